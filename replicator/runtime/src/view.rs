//! What a mirror shows of itself: the admin port's `/positions`, metrics and readiness are made of this. No IO.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{Json, Router, routing::get};
use domain::{Epoch, Known, RegionName};
use replicator_core::{LinkState, Mirror, Trouble};
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct View {
    pub(crate) origin: RegionName,
    pub(crate) region: RegionName,
    pub(crate) state: LinkState,
    /// Why it is in a state other than `Mirroring`.
    pub(crate) why: Option<String>,
    pub(crate) epoch: Epoch,
    pub(crate) source_cluster: Option<String>,
    pub(crate) target_cluster: Option<String>,
    pub(crate) came_home_records: u64,
    pub(crate) partitions: Vec<PartitionView>,
}

/// Times are milliseconds since the process started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PartitionView {
    /// As it is called at the origin.
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Everything below this source offset is in the target.
    pub(crate) next: Option<i64>,
    pub(crate) lag_records: Known<u64>,
    pub(crate) lag_ms: Known<u64>,
    /// Everything written at the origin before this time is in the target.
    pub(crate) reached_at_ms: Option<u64>,
    pub(crate) stopped: Option<String>,
}

pub(crate) fn partitions(mirror: &Mirror, now_ms: u64, fresh_ms: u64) -> Vec<PartitionView> {
    let all = mirror.view(now_ms, fresh_ms).into_iter();
    all.map(|state| PartitionView {
        topic: state.topic.to_owned(),
        partition: state.partition,
        next: state.next,
        lag_records: state.lag.records,
        lag_ms: state.lag.lag_ms,
        reached_at_ms: state.reached_at_ms,
        stopped: state.stopped.map(ToString::to_string),
    })
    .collect()
}

/// The state of a connected mirror, and why.
pub(crate) fn judge(partitions: &[PartitionView], trouble: Option<&Trouble>, lag_objective_ms: u64) -> (LinkState, Option<String>) {
    if let Some(trouble) = trouble {
        return (trouble.into(), Some(trouble.to_string()));
    }
    if let Some(stopped) = partitions.iter().find(|partition| partition.stopped.is_some()) {
        let why = stopped.stopped.clone().unwrap_or_default();
        return (LinkState::PartitionStopped, Some(format!("{} partition {}: {why}", stopped.topic, stopped.partition)));
    }
    if partitions.is_empty() {
        return (LinkState::Lagging, Some("the origin has none of the topics yet".to_owned()));
    }
    let late = partitions.iter().find(|partition| partition.lag_ms.fresh().is_none_or(|lag_ms| *lag_ms > lag_objective_ms));
    match late {
        None => (LinkState::Mirroring, None),
        Some(late) => {
            let lag = late.lag_ms.fresh().map_or_else(|| "by an unknown time".to_owned(), |lag_ms| format!("by {lag_ms} ms"));
            (LinkState::Lagging, Some(format!("{} partition {} is behind {lag}", late.topic, late.partition)))
        }
    }
}

/// The latest view, shared with the admin port.
#[derive(Clone)]
pub(crate) struct Shown(Arc<ArcSwap<View>>);

impl Shown {
    pub(crate) fn new(view: View) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(view)))
    }

    pub(crate) fn set(&self, view: View) {
        self.0.store(Arc::new(view));
    }

    pub(crate) fn get(&self) -> Arc<View> {
        self.0.load_full()
    }

    pub(crate) fn routes(&self) -> Router {
        let shown = self.clone();
        Router::new().route("/positions", get(move || async move { Json(View::clone(&shown.get())) }))
    }
}

#[cfg(test)]
mod tests {
    use replicator_core::Side;

    use super::*;

    fn partition(lag_ms: Known<u64>, stopped: Option<&str>) -> PartitionView {
        let lag_records = Known::Fresh { value: 0, seen_at_ms: 0 };
        let stopped = stopped.map(ToOwned::to_owned);
        PartitionView { topic: "t".into(), partition: 0, next: Some(1), lag_records, lag_ms, reached_at_ms: None, stopped }
    }

    fn lag(value: u64) -> Known<u64> {
        Known::Fresh { value, seen_at_ms: 0 }
    }

    #[test]
    fn a_lag_that_is_not_known_is_no_good_lag() {
        let state = |partitions: &[PartitionView]| judge(partitions, None, 1_000).0;
        assert_eq!(state(&[partition(lag(1_000), None)]), LinkState::Mirroring);
        assert_eq!(state(&[partition(lag(0), None), partition(lag(1_001), None)]), LinkState::Lagging);
        assert_eq!(state(&[partition(Known::unknown("x"), None)]), LinkState::Lagging);
        assert_eq!(state(&[partition(Known::Stale { value: 0, seen_at_ms: 0 }, None)]), LinkState::Lagging);
        assert_eq!(state(&[]), LinkState::Lagging);
    }

    #[test]
    fn the_gravest_news_comes_first() {
        let partitions = [partition(lag(5_000), Some("records are gone"))];
        let (state, why) = judge(&partitions, None, 1_000);
        assert_eq!(state, LinkState::PartitionStopped);
        assert!(why.unwrap().contains("records are gone"));
        let trouble = Trouble::Unreachable { side: Side::Source, why: "no route".into() };
        assert_eq!(judge(&partitions, Some(&trouble), 1_000).0, LinkState::SourceUnreachable);
    }
}
