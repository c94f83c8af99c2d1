//! One suite for both stores: what an entity's value means does not depend on where it is kept.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{NOW, Redis, config_of, payment, plan, records};
use domain::RegionRole;
use proptest::{prelude::*, test_runner::TestRunner};
use scoring_core::{
    decide::FeatureState,
    event::{EntityKind, Event},
    record::Record,
    schema::FeatureSchema,
    state::{EntityState, Retention},
    windows::{Window, Windows},
};
use scoring_features::{FeatureMetrics, FeatureRead, FeatureStore, MemoryStore, RedisStore};
use tokio::time::Instant;

fn small_windows() -> Windows {
    let lengths: Vec<Window> = ["1s", "10s"].iter().map(|text| text.parse().unwrap()).collect();
    Windows::new(lengths, Duration::from_millis(500), 4).unwrap()
}

/// Both stores, and what must outlive them.
struct Stores {
    runtime: tokio::runtime::Runtime,
    stores: [FeatureStore; 2],
    shards: Vec<Redis>,
    windows: Windows,
}

impl Stores {
    fn start(windows: Windows) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = config_of(windows.clone(), Retention::default());
        let shards = vec![Redis::start(), Redis::start()];
        let addresses: Vec<_> = shards.iter().map(Redis::address).collect();
        let redis = runtime.block_on(async {
            let plan = plan(1, RegionRole::Active, &addresses);
            let store = RedisStore::start(config.clone(), FeatureMetrics::default(), &plan).unwrap();
            while !store.disconnected().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            store
        });
        let stores = [FeatureStore::Redis(redis), FeatureStore::Memory(MemoryStore::new(&windows, 1_000))];
        Self { runtime, stores, shards, windows }
    }

    /// Records in both, and gives the answers.
    fn record(&self, event: &Event) -> [FeatureRead; 2] {
        let within = Duration::from_secs(5);
        [0, 1].map(|n| self.runtime.block_on(self.stores[n].record_and_read(event, Instant::now() + within)))
    }

    /// Records in both, asserts that they agree, and gives the one answer.
    fn agree(&self, event: &Event) -> FeatureRead {
        let [redis, memory] = self.record(event);
        assert_eq!(told(&redis), told(&memory));
        redis
    }

    fn count(&self, event: &Event, name: &str) -> f32 {
        let schema = FeatureSchema::full(&self.windows);
        let vector = schema.assemble(event, &self.agree(event).states);
        vector.values()[schema.names().position(|known| known == name).unwrap()]
    }

    fn clear(&self) {
        self.shards.iter().for_each(|shard| shard.ask("FLUSHALL"));
    }
}

/// Kind, records, and up to when records were left out.
type ToldOfEntity = (EntityKind, Vec<Record>, Option<i64>);

/// What a read tells of each entity. In memory there is no log to wait for, so what leaves the records is in the profile sooner.
fn told(read: &FeatureRead) -> (FeatureState, Vec<ToldOfEntity>) {
    let of = |(kind, state): (EntityKind, &EntityState)| (kind, state.records().collect(), state.saturated_through_ms());
    (read.state(), read.states.iter().map(of).collect())
}

#[test]
fn a_payment_is_read_back_with_itself_and_is_whole() {
    let stores = Stores::start(small_windows());
    let read = stores.agree(&payment("t-1", 1, NOW));
    assert_eq!(read.state(), FeatureState::Whole);
    assert_eq!(EntityKind::ALL.iter().map(|kind| records(&read, *kind)).collect::<Vec<_>>(), [1; 5]);
}

#[test]
fn recording_twice_or_retrying_with_other_content_counts_once() {
    let stores = Stores::start(small_windows());
    let first = payment("t-1", 1, NOW);
    let mut differing = first.clone();
    differing.amount.as_mut().unwrap().amount_base_minor = Some(9);
    for event in [&first, &first, &differing, &first] {
        assert_eq!(stores.count(event, "card_count_10s"), 1.0);
    }
    let next = payment("t-2", 1, NOW + 10);
    assert_eq!(stores.count(&next, "card_count_10s"), 2.0);
}

#[test]
fn windows_open_after_their_length_and_see_a_clock_that_is_ahead() {
    let stores = Stores::start(small_windows());
    stores.agree(&payment("t-1", 1, NOW));
    stores.agree(&payment("t-ahead", 1, NOW + 1_400));
    assert_eq!(stores.count(&payment("t-2", 1, NOW + 999), "card_count_1s"), 3.0);
    assert_eq!(stores.count(&payment("t-3", 1, NOW + 1_000), "card_count_1s"), 3.0);
    assert_eq!(stores.count(&payment("t-4", 2, NOW + 1_000), "card_count_1s"), 1.0);
}

#[test]
fn an_entity_beyond_its_cap_keeps_the_newest_and_says_so() {
    let stores = Stores::start(small_windows());
    for n in 0..5 {
        let read = stores.agree(&payment(&format!("t-{n}"), 1, NOW + n));
        assert_eq!(read.saturated().count() > 0, n >= 4, "{n}");
    }
    let read = stores.agree(&payment("t-9", 1, NOW + 9));
    let times: Vec<i64> = read.states.get(EntityKind::Card).unwrap().records().map(|r| r.time_ms - NOW).collect();
    assert_eq!(times, [2, 3, 4, 9]);
}

#[test]
fn any_history_gives_the_same_states_in_both() {
    // Eleven seconds of events around a ten-second window, few customers, repeated ids.
    let event = (0_u8..12, 0_u8..3, 0_i64..11_000);
    let windows = Windows::new(small_windows().lengths().to_vec(), Duration::from_millis(500), 512).unwrap();
    let stores = Stores::start(windows);
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    // The number of the case keeps customers of different cases apart in the memory store, which cannot be emptied.
    let case = std::cell::Cell::new(0_u8);
    let histories = prop::collection::vec(event, 1..25);
    let outcome = runner.run(&histories, |mut history| {
        stores.clear();
        case.set(case.get().wrapping_add(3));
        // In arrival order with at most a second of disorder, as a log gives them.
        history.sort_by_key(|(id, _, time)| time / 1_000 * 100 + i64::from(*id));
        for (id, who, time) in history {
            let event = payment(&format!("t-{}-{id}", case.get()), case.get().wrapping_add(who), NOW + time);
            let [redis, memory] = stores.record(&event);
            prop_assert_eq!(told(&redis), told(&memory));
        }
        Ok(())
    });
    outcome.unwrap();
}
