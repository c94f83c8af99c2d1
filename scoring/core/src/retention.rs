//! How much of an entity is kept, how exactly, and for how long. Pure.

use std::time::Duration;

use domain::duration;
use serde::{Deserialize, Serialize};

use crate::{event::EntityKind, windows::Windows};

/// How much longer than its events a key lives, so that a late reader still finds them.
const TTL_MARGIN_MS: i64 = 600_000;
const PANE_MS_MIN: i64 = 1_000;
/// A pane keeps its width in 16 bits of seconds.
const PANE_MS_MAX: i64 = 65_535_000;
/// How many panes the longest window may take.
const PANES_MAX: i64 = 1_024;
const KNOWN_MAX: usize = 64;

/// How much of an entity is kept exactly, and for how long it is remembered: section `retention` of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Events younger than this are never folded into panes: windows up to this length are exact. At most the longest window.
    #[serde(with = "domain::duration")]
    pub exact_horizon: Duration,
    /// As many of an entity's newest events stay exact even when they are older than that. At most the events of an entity.
    pub exact_events: usize,
    /// The width of a pane: by at most so much a window that reaches beyond the exact events looks back too far.
    #[serde(with = "domain::duration")]
    pub pane: Duration,
    /// How far the time of a decision may be behind the builder's clock without panes blurring its windows.
    #[serde(with = "domain::duration")]
    pub read_margin: Duration,
    /// How many devices, and how many countries, a profile knows: those seen last.
    pub known_max: usize,
    /// How long a user or card is remembered after it was last touched.
    #[serde(with = "domain::duration")]
    pub profile_ttl: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            exact_horizon: Duration::from_secs(3_600),
            exact_events: 64,
            pane: Duration::from_secs(600),
            read_margin: Duration::from_secs(60),
            known_max: 16,
            profile_ttl: Duration::from_secs(30 * 86_400),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRetention {
    #[error("exact horizon {0}: must be within 1s and the longest window")]
    Horizon(String),
    #[error("exact events: {0} is not within 1 and the events of an entity ({1})")]
    ExactEvents(usize, usize),
    #[error("pane {0}: must be whole seconds, 1s to 65535s, and the longest window at most {PANES_MAX} panes")]
    Pane(String),
    #[error("read margin {0}: must be at most the exact horizon")]
    ReadMargin(String),
    #[error("known devices and countries: {0} is not within 1 to {KNOWN_MAX}")]
    Known(usize),
    #[error("profile TTL {0}: must be within the longest window and ten years")]
    ProfileTtl(String),
}

/// A [`Retention`] that fits its [`Windows`]; what folding goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateConfig {
    longest_ms: i64,
    skew_ms: i64,
    events_max: usize,
    horizon_ms: i64,
    exact_events: usize,
    pane_ms: i64,
    read_margin_ms: i64,
    known_max: usize,
    profile_ttl_ms: i64,
}

impl StateConfig {
    /// What is kept when nothing else is configured: the defaults, as far as they fit the windows.
    pub fn fitting(windows: &Windows) -> Self {
        let usual = Retention::default();
        let longest = Duration::from_millis(windows.longest().length_ms().unsigned_abs());
        let exact_horizon = usual.exact_horizon.min(longest);
        let (exact_events, read_margin) = (usual.exact_events.min(windows.events_max()), usual.read_margin.min(exact_horizon));
        Self::of(windows, Retention { exact_horizon, exact_events, read_margin, ..usual })
    }

    /// As [`Self::fitting`] when nothing is configured.
    ///
    /// # Errors
    /// When a value is out of bounds, or does not fit the windows.
    pub fn configured(windows: &Windows, retention: Retention) -> Result<Self, InvalidRetention> {
        if retention == Retention::default() { Ok(Self::fitting(windows)) } else { Self::new(windows, retention) }
    }

    /// # Errors
    /// When a value is out of bounds, or does not fit the windows.
    pub fn new(windows: &Windows, retention: Retention) -> Result<Self, InvalidRetention> {
        let longest_ms = windows.longest().length_ms();
        let within = |value: Duration, min: i64, max: i64| {
            let fits = i64::try_from(value.as_millis()).is_ok_and(|ms| (min..=max).contains(&ms));
            if fits { Ok(()) } else { Err(duration::format(value)) }
        };
        within(retention.exact_horizon, 1_000.min(longest_ms), longest_ms).map_err(InvalidRetention::Horizon)?;
        if !(1..=windows.events_max()).contains(&retention.exact_events) {
            return Err(InvalidRetention::ExactEvents(retention.exact_events, windows.events_max()));
        }
        within(retention.pane, PANE_MS_MIN, PANE_MS_MAX).map_err(InvalidRetention::Pane)?;
        let pane_ms = ms(retention.pane);
        if pane_ms % 1_000 != 0 || longest_ms / pane_ms > PANES_MAX {
            return Err(InvalidRetention::Pane(duration::format(retention.pane)));
        }
        if !(1..=KNOWN_MAX).contains(&retention.known_max) {
            return Err(InvalidRetention::Known(retention.known_max));
        }
        within(retention.read_margin, 0, ms(retention.exact_horizon)).map_err(InvalidRetention::ReadMargin)?;
        within(retention.profile_ttl, longest_ms, 3_650 * 86_400_000).map_err(InvalidRetention::ProfileTtl)?;
        Ok(Self::of(windows, retention))
    }

    fn of(windows: &Windows, retention: Retention) -> Self {
        let Retention { exact_horizon, exact_events, pane, read_margin, known_max, profile_ttl } = retention;
        Self {
            longest_ms: windows.longest().length_ms(),
            skew_ms: windows.skew_ms(),
            events_max: windows.events_max(),
            horizon_ms: ms(exact_horizon),
            exact_events,
            pane_ms: ms(pane),
            read_margin_ms: ms(read_margin),
            known_max,
            profile_ttl_ms: ms(profile_ttl),
        }
    }

    /// How long a key lives after it was last written or read.
    pub fn ttl_ms(&self, kind: EntityKind) -> i64 {
        let of_events_ms = self.longest_ms.saturating_add(self.skew_ms).saturating_add(TTL_MARGIN_MS);
        if kind.has_profile() { of_events_ms.max(self.profile_ttl_ms) } else { of_events_ms }
    }

    /// How many records an entity keeps, exact or not yet folded.
    pub fn events_max(&self) -> usize {
        self.events_max
    }

    /// How far a window beyond the exact events may look back too far.
    pub fn pane_ms(&self) -> i64 {
        self.pane_ms
    }

    pub(crate) fn exact_events(&self) -> usize {
        self.exact_events
    }

    pub(crate) fn known_max(&self) -> usize {
        self.known_max
    }

    /// Up to and including this time, records may be folded into panes.
    pub(crate) fn horizon_at(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.horizon_ms).saturating_sub(self.read_margin_ms)
    }

    /// Up to and including this time, no window needs a record any more.
    pub(crate) fn expired_at(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.longest_ms).saturating_sub(self.read_margin_ms)
    }

    /// A pane that ends by this time is needed no more: the longest window and one pane have passed.
    pub(crate) fn panes_expired_at(&self, now_ms: i64) -> i64 {
        self.expired_at(now_ms).saturating_sub(self.pane_ms)
    }
}

fn ms(value: Duration) -> i64 {
    i64::try_from(value.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_an_hour_exact_and_remember_customers_for_a_month() {
        let config = StateConfig::new(&Windows::default(), Retention::default()).unwrap();
        assert_eq!(config.horizon_at(100_000_000), 100_000_000 - 3_660_000);
        assert_eq!(config.ttl_ms(EntityKind::Ip), 86_400_000 + 500 + 600_000);
        assert_eq!(config.ttl_ms(EntityKind::User), 30 * 86_400_000);
        assert_eq!(StateConfig::fitting(&Windows::default()), config);
    }

    #[test]
    fn short_windows_and_small_caps_have_defaults_that_fit_them() {
        let windows = Windows::new(vec!["10s".parse().unwrap()], Duration::ZERO, 4).unwrap();
        let config = StateConfig::fitting(&windows);
        assert_eq!((config.horizon_at(100_000), config.exact_events()), (80_000, 4));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |change: fn(&mut Retention)| {
            let mut retention = Retention::default();
            change(&mut retention);
            StateConfig::new(&Windows::default(), retention).unwrap_err().to_string()
        };
        assert!(error(|r| r.exact_horizon = Duration::from_secs(90_000)).contains("exact horizon 25h"));
        assert!(error(|r| r.exact_events = 513).contains("513"));
        assert!(error(|r| r.pane = Duration::from_millis(1_500)).contains("pane 1500ms"));
        assert!(error(|r| r.pane = Duration::from_secs(60)).contains("pane 1m"));
        assert!(error(|r| r.read_margin = Duration::from_secs(7_200)).contains("read margin 2h"));
        assert!(error(|r| r.known_max = 0).contains("0 is not"));
        assert!(error(|r| r.profile_ttl = Duration::from_secs(60)).contains("profile TTL 1m"));
    }
}
