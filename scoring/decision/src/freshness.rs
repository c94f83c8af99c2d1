//! What is known to be missing in the features, for the decisions: read from the shards four times a second, beside the
//! decisions, and judged with `scoring_core::freshness`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use domain::{Known, RegionName};
use proto::fraud::v1;
use scoring_core::{
    decide::FeatureState,
    freshness::{Completeness, Freshness, Memory, OriginData, Staleness, assess},
    published::{self, Heard},
    windows::{Window, Windows},
};
use scoring_features::RedisStore;
use tokio::time::MissedTickBehavior;

use crate::{metrics::Metrics, pipeline::Clock};

const INTERVAL: Duration = Duration::from_millis(250);
/// When nothing was judged for so long, what was judged last is not believed any more.
const JUDGED_FOR: Duration = Duration::from_secs(2);

/// How complete the features are, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    judged_at: Instant,
    windows: Vec<(Window, Completeness)>,
    missing: Vec<Window>,
    wire: v1::Freshness,
}

impl View {
    fn of(freshness: &Freshness, origins: &BTreeMap<RegionName, OriginData>, judged_at: Instant) -> Self {
        let missing = freshness.windows.iter().filter(|(_, completeness)| *completeness == Completeness::Missing);
        Self {
            judged_at,
            missing: missing.map(|(window, _)| *window).collect(),
            wire: v1::Freshness {
                windows: freshness.windows.iter().map(window_to_wire).collect(),
                origins: origins.iter().map(origin_to_wire).collect(),
            },
            windows: freshness.windows.clone(),
        }
    }

    fn everywhere(windows: &Windows, completeness: Completeness) -> Self {
        let windows = windows.lengths().iter().map(|window| (*window, completeness)).collect();
        Self::of(&Freshness { windows, level: completeness.into(), warned: false }, &BTreeMap::new(), Instant::now())
    }

    /// What a decision says of its features, given what became of reading them.
    pub fn state(&self, read: FeatureState) -> FeatureState {
        let any = |wanted| self.windows.iter().any(|(_, completeness)| *completeness == wanted);
        if read == FeatureState::Missing || self.missing.len() == self.windows.len() {
            FeatureState::Missing
        } else if read != FeatureState::Whole {
            read
        } else if any(Completeness::Incomplete) || any(Completeness::Missing) {
            FeatureState::Incomplete
        } else if any(Completeness::Unknown) {
            FeatureState::Unknown
        } else {
            FeatureState::Whole
        }
    }

    /// The windows that are not known to be complete, as configured.
    pub fn incomplete_windows(&self) -> Vec<String> {
        let incomplete = self.windows.iter().filter(|(_, completeness)| *completeness != Completeness::Complete);
        incomplete.map(|(window, _)| window.to_string()).collect()
    }

    /// Windows that are as good as not there: their features are left out.
    pub fn missing(&self) -> &[Window] {
        &self.missing
    }

    pub fn to_wire(&self) -> v1::Freshness {
        self.wire.clone()
    }

    pub(crate) fn windows(&self) -> &[(Window, Completeness)] {
        &self.windows
    }
}

fn window_to_wire((window, completeness): &(Window, Completeness)) -> v1::WindowFreshness {
    v1::WindowFreshness { window: window.to_string(), state: state_to_wire(*completeness).into() }
}

pub(crate) fn state_to_wire(completeness: Completeness) -> v1::WindowState {
    match completeness {
        Completeness::Complete => v1::WindowState::WindowComplete,
        Completeness::Incomplete => v1::WindowState::WindowIncomplete,
        Completeness::Unknown => v1::WindowState::WindowUnknown,
        Completeness::Missing => v1::WindowState::WindowMissing,
    }
}

fn origin_to_wire((region, data): (&RegionName, &OriginData)) -> v1::OriginFreshness {
    let region = region.to_string();
    match data {
        OriginData::Producing { age_ms } => v1::OriginFreshness { region, age_ms: age_ms.fresh().copied(), missing_ms: None, ended: false },
        OriginData::Ended { folded_through_ms, ended_ms } => {
            let missing = |through_ms: &i64| ended_ms.saturating_sub(*through_ms).max(0).unsigned_abs();
            v1::OriginFreshness { region, age_ms: None, missing_ms: folded_through_ms.fresh().map(missing), ended: true }
        }
    }
}

/// The view in force. Cheap to share; reading it never waits.
pub struct FreshnessWatch {
    judged: ArcSwap<View>,
    /// What holds when nothing was judged lately. `None`: what was judged holds for ever.
    unknown: Option<Arc<View>>,
}

impl FreshnessWatch {
    /// For ever the same. Complete: for a store that every event goes through.
    pub fn fixed(windows: &Windows, completeness: Completeness) -> Self {
        Self { judged: ArcSwap::from_pointee(View::everywhere(windows, completeness)), unknown: None }
    }

    /// Nothing is known until it is followed.
    pub fn unknown(windows: &Windows) -> Self {
        let unknown = Arc::new(View::everywhere(windows, Completeness::Unknown));
        Self { judged: ArcSwap::new(unknown.clone()), unknown: Some(unknown) }
    }

    pub fn current(&self) -> Arc<View> {
        let judged = self.judged.load_full();
        match &self.unknown {
            Some(unknown) if judged.judged_at.elapsed() > JUDGED_FOR => unknown.clone(),
            _ => judged,
        }
    }

    /// Whether something was judged, and not all of it is unknown.
    pub(crate) fn is_known(&self) -> bool {
        self.current().windows.iter().any(|(_, completeness)| *completeness != Completeness::Unknown)
    }

    /// Reads and judges for as long as it is polled.
    pub(crate) async fn follow(&self, store: &RedisStore, staleness: Staleness, metrics: &Metrics, clock: &Clock) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (started, mut heard, mut memory) = (Instant::now(), BTreeMap::new(), Memory::default());
        loop {
            ticks.tick().await;
            let said = store.published_freshness(tokio::time::Instant::now() + INTERVAL).await;
            let now = Instant::now();
            let now_ms = u64::try_from(now.saturating_duration_since(started).as_millis()).unwrap_or(u64::MAX);
            note(&mut heard, said, now_ms);
            let origins = published::origins(&heard.values().collect::<Vec<_>>(), now_ms);
            let freshness = assess(&origins, store.windows(), &staleness, &mut memory, clock());
            let view = View::of(&freshness, &origins, now);
            metrics.freshness(&view, &origins, freshness.warned);
            self.judged.store(Arc::new(view));
        }
    }
}

/// What each shard that the plan has says now; a shard that it has no more is forgotten.
fn note(heard: &mut BTreeMap<u16, Heard>, said: Vec<(u16, Option<Vec<u8>>)>, now_ms: u64) {
    heard.retain(|shard, _| said.iter().any(|(known, _)| known == shard));
    for (shard, bytes) in said {
        heard.entry(shard).or_default().note(bytes.as_deref(), now_ms);
    }
}

/// The age of an origin that may still produce; `None` when it is not known.
pub(crate) fn age_of(data: &OriginData) -> Option<u64> {
    match data {
        OriginData::Producing { age_ms: Known::Fresh { value, .. } } => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(states: [Completeness; 4]) -> View {
        let windows = Windows::default();
        let windows = windows.lengths().iter().copied().zip(states).collect();
        View::of(&Freshness { windows, level: Completeness::Complete.into(), warned: false }, &[].into(), Instant::now())
    }

    #[test]
    fn the_worst_window_says_how_the_features_are_and_reading_can_only_make_it_worse() {
        use Completeness::{Complete, Incomplete, Missing, Unknown};
        let state = |states| view(states).state(FeatureState::Whole);
        assert_eq!(state([Complete; 4]), FeatureState::Whole);
        assert_eq!(state([Complete, Complete, Complete, Unknown]), FeatureState::Unknown);
        assert_eq!(state([Unknown, Unknown, Incomplete, Unknown]), FeatureState::Incomplete);
        assert_eq!(state([Complete, Missing, Complete, Complete]), FeatureState::Incomplete);
        assert_eq!(state([Missing; 4]), FeatureState::Missing);
        let whole = view([Complete; 4]);
        assert_eq!(whole.state(FeatureState::Incomplete), FeatureState::Incomplete);
        assert_eq!(view([Unknown; 4]).state(FeatureState::Missing), FeatureState::Missing);
        assert_eq!(view([Complete, Unknown, Complete, Missing]).incomplete_windows(), ["1m", "24h"]);
        assert_eq!(view([Complete, Unknown, Complete, Missing]).missing(), [Windows::default().longest()]);
    }

    #[test]
    fn until_something_is_judged_nothing_is_known_and_what_was_judged_is_not_believed_for_ever() {
        let windows = Windows::default();
        let watch = FreshnessWatch::unknown(&windows);
        assert_eq!(watch.current().state(FeatureState::Whole), FeatureState::Unknown);
        let complete = View::everywhere(&windows, Completeness::Complete);
        watch.judged.store(Arc::new(complete.clone()));
        assert!(watch.is_known());
        let long_ago = Instant::now().checked_sub(JUDGED_FOR * 2).unwrap();
        watch.judged.store(Arc::new(View { judged_at: long_ago, ..complete }));
        assert!(!watch.is_known());
        assert_eq!(FreshnessWatch::fixed(&windows, Completeness::Complete).current().state(FeatureState::Whole), FeatureState::Whole);
    }

    #[test]
    fn what_is_not_known_is_absent_on_the_wire_and_zero_is_zero() {
        let region = |name: &str| RegionName::new(name).unwrap();
        let fresh = |value| Known::Fresh { value, seen_at_ms: 1 };
        let producing = |age_ms| OriginData::Producing { age_ms };
        let wire = origin_to_wire((&region("us-east"), &producing(fresh(0))));
        assert_eq!((wire.age_ms, wire.ended), (Some(0), false));
        assert_eq!(origin_to_wire((&region("us-east"), &producing(Known::unknown("-")))).age_ms, None);
        let ended = OriginData::Ended { folded_through_ms: Known::Fresh { value: 70, seen_at_ms: 1 }, ended_ms: 100 };
        assert_eq!(origin_to_wire((&region("eu-west"), &ended)).missing_ms, Some(30));
    }
}
