//! What the store keeps of an event. Pure.

use sha2::{Digest, Sha256};

use crate::{
    codes::Country,
    event::{EntityId, EntityKind, Event, EventKind, Identity, Outcome},
};

/// The largest time of a record: 42 bits of milliseconds, in the year 2109.
pub const TIME_MS_MAX: i64 = (1 << 42) - 1;
/// The largest amount of a record; larger ones are kept as this one.
pub const AMOUNT_BASE_MINOR_MAX: i64 = (1 << 38) - 2;

/// The first ten bytes of an [`Identity`]: among the few hundred events of an entity, two share them once in 10^19 entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 10]);

impl From<Identity> for RecordId {
    fn from(identity: Identity) -> Self {
        Self(std::array::from_fn(|index| identity.0[index]))
    }
}

/// One event of an entity, exactly as far as a slot of the store holds it.
///
/// Merchants, cards and devices are told apart by 24 bits of hash, 0 being "none": 512 distinct ones of an entity are
/// counted as 511 or fewer in one of 128 cases, 64 in one of 8,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub id: RecordId,
    /// Within 0 to [`TIME_MS_MAX`].
    pub time_ms: i64,
    pub kind: EventKind,
    pub outcome: Option<Outcome>,
    /// Minor units of the base currency, within 0 to [`AMOUNT_BASE_MINOR_MAX`]; `None` when the rate was not known.
    pub amount_base_minor: Option<i64>,
    pub merchant: Option<u32>,
    pub card: Option<u32>,
    pub device: Option<u32>,
    /// Where the customer was: see [`Event::place`].
    pub country: Option<Country>,
}

impl Record {
    pub fn of(event: &Event) -> Self {
        let entity = |kind| event.entities.get(kind).map(|EntityId(id)| short_hash(&id));
        Self {
            id: event.identity().into(),
            time_ms: event.event_time_ms.clamp(0, TIME_MS_MAX),
            kind: event.kind,
            outcome: event.outcome,
            amount_base_minor: event.amount_base_minor().map(|amount| amount.clamp(0, AMOUNT_BASE_MINOR_MAX)),
            merchant: event.merchant.as_ref().map(|merchant| short_hash(&Sha256::digest(merchant.id.as_bytes()))),
            card: entity(EntityKind::Card),
            device: entity(EntityKind::Device),
            country: event.place(),
        }
    }

    pub fn is_attempt(&self) -> bool {
        self.kind == EventKind::PaymentAttempt
    }
}

/// The first three bytes of a hash; 0 stands for "none", so it is never the hash of something.
fn short_hash(bytes: &[u8]) -> u32 {
    let three = |index: usize| bytes.get(index).copied().unwrap_or(0);
    u32::from_be_bytes([0, three(0), three(1), three(2)]).max(1)
}
