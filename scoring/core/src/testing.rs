//! Events and records for the tests of this crate.

use std::time::Duration;

use domain::{Epoch, RegionName};
use proptest::prelude::*;

use crate::{
    codes::Country,
    event::{CardEntry, Channel, DecisionState, EntityId, EntityKind, Event, EventKind, Merchant, Money, Outcome},
    record::{AMOUNT_BASE_MINOR_MAX, Record, RecordId, TIME_MS_MAX},
    state::{Retention, StateConfig},
    windows::Windows,
};

pub(crate) fn payment(transaction_id: &str, event_time_ms: i64) -> Event {
    Event {
        transaction_id: transaction_id.into(),
        tenant: "default".into(),
        event_time_ms,
        client_time_ms: Some(event_time_ms - 20),
        origin_region: RegionName::new("us-east").unwrap(),
        epoch: Epoch(3),
        kind: EventKind::PaymentAttempt,
        decision: DecisionState::Made,
        entities: EntityKind::ALL.iter().zip(1..).map(|(&kind, n)| (kind, EntityId([n; 16]))).collect(),
        pii_key_id: "k1".into(),
        amount: Some(Money { amount_minor: 1_999, currency: "EUR".into(), amount_base_minor: Some(2_159), rate_version: "2026-11".into() }),
        merchant: Some(Merchant { id: "m-1".into(), category_code: Some(5_411), country: Country::from_letters("DE") }),
        card_country: Country::from_letters("DE"),
        ip_country: Country::from_letters("FR"),
        billing_country: Country::from_letters("DE"),
        bin8: "41111111".into(),
        email_domain: "example.com".into(),
        ip_prefix: "192.0.2".into(),
        channel: Some(Channel::Web),
        card_entry: Some(CardEntry::Keyed),
        outcome: None,
    }
}

pub(crate) fn record(id: u8, time_ms: i64) -> Record {
    Record {
        id: RecordId([id; 10]),
        time_ms,
        kind: EventKind::PaymentAttempt,
        outcome: None,
        amount_base_minor: Some(100),
        merchant: Some(1),
        card: Some(1),
        device: Some(1),
        country: None,
    }
}

/// Records over the whole range of each field.
pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let hash = || prop::option::of(1_u32..=0xff_ffff);
    let letters = prop::option::of(prop::array::uniform2(b'A'..=b'Z'));
    let codes = (prop::sample::select(EventKind::ALL), prop::option::of(prop::sample::select(Outcome::ALL)));
    let amount = prop::option::of(prop_oneof![0_i64..1_000, 0_i64..=AMOUNT_BASE_MINOR_MAX]);
    (any::<[u8; 10]>(), 0_i64..=TIME_MS_MAX, codes, amount, hash(), hash(), hash(), letters).prop_map(
        |(id, time_ms, (kind, outcome), amount_base_minor, merchant, card, device, letters)| Record {
            id: RecordId(id),
            time_ms,
            kind,
            outcome,
            amount_base_minor,
            merchant,
            card,
            device,
            country: letters.and_then(|pair| std::str::from_utf8(&pair).ok().and_then(Country::from_letters)),
        },
    )
}

/// One to twenty records of few identities, times and values, so that repetitions, ties and differing retries are common.
pub(crate) fn few_records() -> impl Strategy<Value = Vec<Record>> {
    let hash = || prop::option::of(1_u32..4);
    let country = prop::sample::select(vec![None, Country::from_letters("US"), Country::from_letters("BR")]);
    let kind = prop::sample::select(vec![EventKind::PaymentAttempt, EventKind::PaymentAttempt, EventKind::Refund]);
    let one = (0_u8..12, 0_i64..150, kind, prop::option::of(0_i64..5), hash(), hash(), hash(), country).prop_map(
        |(id, time_ms, kind, amount_base_minor, merchant, card, device, country)| Record {
            id: RecordId([id; 10]),
            time_ms,
            kind,
            outcome: None,
            amount_base_minor,
            merchant,
            card,
            device,
            country,
        },
    );
    prop::collection::vec(one, 1..20)
}

/// Two seconds, twenty, a hundred; twenty are exact, as are the newest four; panes of five seconds.
pub(crate) fn small_windows(events_max: usize) -> Windows {
    let lengths = ["2s", "20s", "100s"].iter().map(|text| text.parse().unwrap()).collect();
    Windows::new(lengths, Duration::from_millis(500), events_max).unwrap()
}

pub(crate) fn small_config(events_max: usize) -> StateConfig {
    let seconds = Duration::from_secs;
    let retention = Retention {
        exact_horizon: seconds(20),
        exact_events: 4,
        pane: seconds(5),
        read_margin: seconds(1),
        known_max: 4,
        profile_ttl: seconds(1_000),
    };
    StateConfig::new(&small_windows(events_max), retention).unwrap()
}

/// One to forty records over a hundred seconds, each of an identity of its own, few values, some of the same time.
pub(crate) fn distinct_records() -> impl Strategy<Value = Vec<Record>> {
    let hash = || prop::option::of(1_u32..5);
    let country = prop::sample::select(vec![None, Country::from_letters("US"), Country::from_letters("BR")]);
    let kind =
        prop::sample::select(vec![EventKind::PaymentAttempt, EventKind::PaymentAttempt, EventKind::PaymentAttempt, EventKind::Outcome]);
    let time = prop_oneof![0_i64..100_000, (0_i64..20).prop_map(|n| n * 5_000)];
    let one = (time, kind, prop::option::of(0_i64..50), hash(), hash(), hash(), country);
    prop::collection::vec(one, 1..40).prop_map(|many| {
        let record = |(id, (after_ms, kind, amount_base_minor, merchant, card, device, country)): (u8, _)| Record {
            id: RecordId([id; 10]),
            time_ms: BEGIN_MS + after_ms,
            kind,
            outcome: None,
            amount_base_minor,
            merchant,
            card,
            device,
            country,
        };
        (0..).zip(many).map(record).collect()
    })
}

/// When [`distinct_records`] begin.
pub(crate) const BEGIN_MS: i64 = 1_700_000_000_000;
