//! Payments of many customers, with a history. Every contender gets the same ones. Pure.

use std::time::Duration;

use anyhow::{Context, Result};
use domain::{Epoch, RegionName};
use scoring_core::codes::Country;
use scoring_core::event::{CardEntry, Channel, DecisionState, Entities, EntityId, EntityKind, Event, EventKind, Merchant, Money};

/// Each payment has one of each kind: user, card, device, address and mailbox.
pub const ENTITIES: u64 = EntityKind::ALL.len() as u64;
const MERCHANTS: u64 = 500;

#[derive(Debug, Clone)]
pub struct Workload {
    pub customers: u64,
    /// What each customer's entities hold before the load begins.
    pub history_events: u64,
    /// The history is spread evenly over this long before `now_ms`.
    pub history_span: Duration,
    pub now_ms: i64,
    region: RegionName,
}

impl Workload {
    /// # Errors
    /// Never: the name of the region is a constant.
    pub fn new(customers: u64, history_events: u64, history_span: Duration, now_ms: i64) -> Result<Self> {
        let region = RegionName::new("us-east").context("the region of the payments")?;
        Ok(Self { customers, history_events, history_span, now_ms, region })
    }

    /// Keys of all entities of all customers.
    pub fn keys(&self) -> u64 {
        self.customers * ENTITIES
    }

    /// A customer's payments before the load, oldest first.
    pub fn history(&self, customer: u64) -> impl Iterator<Item = Event> + '_ {
        (0..self.history_events).map(move |n| self.payment(customer, n, self.history_time_ms(n, self.history_events)))
    }

    /// When the n-th of `count` evenly spread events was.
    pub fn history_time_ms(&self, n: u64, count: u64) -> i64 {
        let span_ms = self.history_span.as_millis();
        let ago_ms = span_ms * u128::from(count - n) / u128::from(count);
        self.now_ms - i64::try_from(ago_ms).unwrap_or(i64::MAX)
    }

    /// The payment number `index` of the load, by a customer chosen at random; the same for every contender.
    pub fn load(&self, index: u64, time_ms: i64) -> Event {
        self.payment(self.customer_of_load(index), self.history_events + index, time_ms)
    }

    pub fn customer_of_load(&self, index: u64) -> u64 {
        mix(index) % self.customers
    }

    /// A payment whose identity is made of the customer and `n`.
    pub fn payment(&self, customer: u64, n: u64, time_ms: i64) -> Event {
        let chance = mix(customer ^ mix(n));
        let amount_minor = 100 + i64::from((chance % 50_000) as u16);
        Event {
            transaction_id: format!("{customer:x}-{n:x}"),
            tenant: "default".to_string(),
            event_time_ms: time_ms,
            client_time_ms: None,
            origin_region: self.region.clone(),
            epoch: Epoch(1),
            kind: EventKind::PaymentAttempt,
            decision: DecisionState::Made,
            entities: entities(customer),
            pii_key_id: "k1".to_string(),
            amount: Some(Money {
                amount_minor,
                currency: "USD".to_string(),
                amount_base_minor: Some(amount_minor),
                rate_version: "1".to_string(),
            }),
            merchant: Some(Merchant {
                id: format!("m-{}", chance % MERCHANTS),
                category_code: Some(5_411),
                country: Country::from_letters("US"),
            }),
            card_country: Country::from_letters("US"),
            ip_country: Country::from_letters(if chance.is_multiple_of(50) { "CA" } else { "US" }),
            billing_country: Country::from_letters("US"),
            bin8: "41111111".to_string(),
            email_domain: "example.com".to_string(),
            ip_prefix: "192.0.2".to_string(),
            channel: Some(Channel::Web),
            card_entry: Some(CardEntry::Keyed),
            outcome: None,
        }
    }
}

fn entities(customer: u64) -> Entities {
    let id = |kind: EntityKind| {
        let half = |salt: u64| mix(customer ^ mix(salt + kind.index() as u64)).to_be_bytes();
        let (first, second) = (half(1_000), half(2_000));
        EntityId(std::array::from_fn(|n| if n < 8 { first[n] } else { second[n - 8] }))
    };
    EntityKind::ALL.iter().map(|&kind| (kind, id(kind))).collect()
}

/// The mixing function of SplitMix64: numbers that look random and are the same in every run.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn workload() -> Workload {
        Workload::new(100, 4, Duration::from_secs(40), 1_700_000_000_000).unwrap()
    }

    #[test]
    fn a_history_is_spread_evenly_and_ends_before_the_load() {
        let times: Vec<i64> = workload().history(7).map(|event| event.event_time_ms - 1_700_000_000_000).collect();
        assert_eq!(times, [-40_000, -30_000, -20_000, -10_000]);
    }

    #[test]
    fn customers_share_no_entity_and_no_identity() {
        let workload = workload();
        let all: Vec<Event> = (0..100).flat_map(|customer| workload.history(customer).collect::<Vec<_>>()).collect();
        let entities: BTreeSet<_> = all.iter().flat_map(|event| event.entities.iter()).collect();
        let identities: BTreeSet<_> = all.iter().map(Event::identity).chain((0..100).map(|n| workload.load(n, 1).identity())).collect();
        assert_eq!((entities.len() as u64, identities.len()), (workload.keys(), 500));
    }

    #[test]
    fn the_load_reaches_nearly_all_customers() {
        let workload = workload();
        let reached: BTreeSet<_> = (0..1_000).map(|n| workload.load(n, 1).entities.get(EntityKind::Card)).collect();
        assert!(reached.len() > 95, "{}", reached.len());
    }
}
