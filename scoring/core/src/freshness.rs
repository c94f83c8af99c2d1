//! What is known to be missing in the windows, from how far each origin's log has been folded. Pure.
//!
//! Age alone lies: when a region dies, the end of its mirrored log stops too. So an origin that lost authority counts by the
//! interval between the last that was folded and the end of its authority, and only windows that overlap it miss something;
//! an origin that may still produce counts by the age of its data, which every window misses. Not known is never taken for
//! nothing missing.
//!
//! Getting worse takes effect at once. An age that gets better does so after it has been better for a while, so that one
//! around a threshold does not flap. A missing interval moves out of the windows by itself and needs no such thing.

use std::{collections::BTreeMap, time::Duration};

use domain::{Known, RegionName, duration};

use crate::windows::{Window, Windows};

#[cfg(test)]
mod tests;

const SETTLE_MS: i64 = 3_000;

/// From `spec.features.staleness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staleness {
    warn_ms: u64,
    raise_ms: u64,
    stop_ms: u64,
    settle_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("staleness: warn {warn}, raise {raise} and stop {stop} must rise and be at most 24h")]
pub struct InvalidStaleness {
    warn: String,
    raise: String,
    stop: String,
}

impl Default for Staleness {
    /// 1s, 5s and 60s.
    fn default() -> Self {
        Self { warn_ms: 1_000, raise_ms: 5_000, stop_ms: 60_000, settle_ms: SETTLE_MS }
    }
}

impl Staleness {
    /// Above `warn` somebody is told, above `raise` windows are incomplete, above `stop` they count as missing.
    ///
    /// # Errors
    /// When they do not rise.
    pub fn new(warn: Duration, raise: Duration, stop: Duration) -> Result<Self, InvalidStaleness> {
        if warn > raise || raise > stop || stop > Duration::from_secs(86_400) {
            let [warn, raise, stop] = [warn, raise, stop].map(duration::format);
            return Err(InvalidStaleness { warn, raise, stop });
        }
        let [warn_ms, raise_ms, stop_ms] = [warn, raise, stop].map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { warn_ms, raise_ms, stop_ms, settle_ms: SETTLE_MS })
    }

    /// How long an age must have been better until that counts.
    #[must_use]
    pub fn settling_for(self, settle: Duration) -> Self {
        Self { settle_ms: i64::try_from(settle.as_millis()).unwrap_or(i64::MAX), ..self }
    }

    fn level_of(&self, age: &Known<u64>) -> Level {
        match age.fresh() {
            None => Level::Unknown,
            Some(age_ms) if *age_ms > self.stop_ms => Level::Stopped,
            Some(age_ms) if *age_ms > self.raise_ms => Level::Raised,
            Some(_) => Level::Fresh,
        }
    }
}

/// How far the log of one origin has been folded. Times are those of the reader's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginData {
    /// It may still produce: how old its folded data is. See [`crate::heartbeat`].
    Producing { age_ms: Known<u64> },
    /// It lost authority at `ended_ms`; everything up to `folded_through_ms` is folded.
    Ended { folded_through_ms: Known<i64>, ended_ms: i64 },
}

impl OriginData {
    /// As it is after `elapsed_ms` in which nothing was heard of it: what readers of a published value add.
    #[must_use]
    pub fn older_by(self, elapsed_ms: u64) -> Self {
        match self {
            Self::Producing { age_ms } => Self::Producing { age_ms: age_ms.map(|age_ms| age_ms.saturating_add(elapsed_ms)) },
            ended @ Self::Ended { .. } => ended,
        }
    }

    /// What holds for several partitions of one origin together: the least that holds for each.
    ///
    /// An origin of which one partition has ended has ended; authority ends for all of them at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Producing { age_ms: a }, Self::Producing { age_ms: b }) => Self::Producing { age_ms: worse(a, b, u64::max) },
            (Self::Ended { folded_through_ms: a, ended_ms: x }, Self::Ended { folded_through_ms: b, ended_ms: y }) => {
                Self::Ended { folded_through_ms: worse(a, b, i64::min), ended_ms: x.max(y) }
            }
            (ended @ Self::Ended { .. }, Self::Producing { .. }) | (Self::Producing { .. }, ended @ Self::Ended { .. }) => ended,
        }
    }
}

/// Unknown if either is, stale if either is, else the worse value.
fn worse<T: Copy>(a: Known<T>, b: Known<T>, worse_of: impl Fn(T, T) -> T) -> Known<T> {
    match (a, b) {
        (unknown @ Known::Unknown { .. }, _) | (_, unknown @ Known::Unknown { .. }) => unknown,
        (Known::Fresh { value: a, seen_at_ms: x }, Known::Fresh { value: b, seen_at_ms: y }) => {
            Known::Fresh { value: worse_of(a, b), seen_at_ms: x.min(y) }
        }
        (
            Known::Fresh { value: a, seen_at_ms: x } | Known::Stale { value: a, seen_at_ms: x },
            Known::Fresh { value: b, seen_at_ms: y } | Known::Stale { value: b, seen_at_ms: y },
        ) => Known::Stale { value: worse_of(a, b), seen_at_ms: x.min(y) },
    }
}

/// How much of a window is there, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completeness {
    Complete,
    /// Something is known to be missing: thresholds rise.
    Incomplete,
    /// It was not measured.
    Unknown,
    /// So much is missing that the window is as good as not there.
    Missing,
}

/// The state of the whole, best first: that of the worst window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Fresh,
    Raised,
    Unknown,
    Stopped,
}

impl From<Level> for Completeness {
    fn from(level: Level) -> Self {
        match level {
            Level::Fresh => Self::Complete,
            Level::Raised => Self::Incomplete,
            Level::Unknown => Self::Unknown,
            Level::Stopped => Self::Missing,
        }
    }
}

impl From<Completeness> for Level {
    fn from(completeness: Completeness) -> Self {
        match completeness {
            Completeness::Complete => Self::Fresh,
            Completeness::Incomplete => Self::Raised,
            Completeness::Unknown => Self::Unknown,
            Completeness::Missing => Self::Stopped,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Shortest first.
    pub windows: Vec<(Window, Completeness)>,
    pub level: Level,
    /// Whether an age is above `warn`, not known, or a missing interval touches a window.
    pub warned: bool,
}

/// What must be remembered from one assessment to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    held: BTreeMap<RegionName, Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    level: Level,
    /// Since when it has been better, and the worst that it was since.
    better: Option<(i64, Level)>,
}

/// The completeness of each window at `now_ms`. Without origins nothing is known.
pub fn assess(
    origins: &BTreeMap<RegionName, OriginData>,
    windows: &Windows,
    staleness: &Staleness,
    memory: &mut Memory,
    now_ms: i64,
) -> Freshness {
    memory.held.retain(|region, _| matches!(origins.get(region), Some(OriginData::Producing { .. })));
    let mut found: Vec<(Window, Completeness)> = windows.lengths().iter().map(|window| (*window, Completeness::Complete)).collect();
    let mut warned = false;
    for (region, data) in origins {
        if let OriginData::Producing { age_ms } = data {
            let level = memory.held(region, staleness.level_of(age_ms), now_ms, staleness.settle_ms);
            warned |= level != Level::Fresh || age_ms.fresh().is_none_or(|age_ms| *age_ms > staleness.warn_ms);
            worsen(&mut found, |_| level.into());
        }
        if let OriginData::Ended { folded_through_ms, ended_ms } = data {
            worsen(&mut found, |window| missing(folded_through_ms.fresh(), *ended_ms, window, windows.skew_ms(), now_ms, staleness));
        }
    }
    if origins.is_empty() {
        worsen(&mut found, |_| Completeness::Unknown);
    }
    let worst = found.iter().map(|(_, completeness)| *completeness).max().unwrap_or(Completeness::Unknown);
    Freshness { windows: found, level: worst.into(), warned: warned || worst != Completeness::Complete }
}

fn worsen(found: &mut [(Window, Completeness)], completeness: impl Fn(Window) -> Completeness) {
    for (window, known) in found {
        *known = completeness(*window).max(*known);
    }
}

/// What an origin that lost authority means to a window: (t - w, t + skew] misses what it produced in between.
fn missing(
    folded_through_ms: Option<&i64>,
    ended_ms: i64,
    window: Window,
    skew_ms: i64,
    now_ms: i64,
    staleness: &Staleness,
) -> Completeness {
    // Its last events may have been stamped by a clock that is ahead.
    let overlaps = ended_ms.saturating_add(skew_ms) > now_ms.saturating_sub(window.length_ms());
    match folded_through_ms {
        _ if !overlaps => Completeness::Complete,
        None => Completeness::Unknown,
        Some(through_ms) if *through_ms >= ended_ms => Completeness::Complete,
        Some(through_ms) if ended_ms.saturating_sub(*through_ms).unsigned_abs() > staleness.stop_ms => Completeness::Missing,
        Some(_) => Completeness::Incomplete,
    }
}

impl Memory {
    /// The level that counts: the measured one, unless that is better and has not been for long enough.
    fn held(&mut self, region: &RegionName, measured: Level, now_ms: i64, settle_ms: i64) -> Level {
        let held = self.held.entry(region.clone()).or_insert(Held { level: measured, better: None });
        if measured >= held.level {
            *held = Held { level: measured, better: None };
            return measured;
        }
        let (since_ms, worst) = held.better.map_or((now_ms, measured), |(since_ms, worst)| (since_ms, worst.max(measured)));
        held.better = Some((since_ms, worst));
        if now_ms.saturating_sub(since_ms) >= settle_ms {
            let better = (measured < worst).then_some((now_ms, measured));
            *held = Held { level: worst, better };
        }
        held.level
    }
}
