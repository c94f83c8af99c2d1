//! An event as the pipeline understands it, and the translation from and to what is written in Kafka. Pure.
//!
//! Guarantee: an [`Event`] that exists has passed every bound, so nothing downstream checks again. Bytes from a log are
//! untrusted: [`Event::from_wire`] names the field that is wrong and never panics.

use domain::{Epoch, RegionName};
use proto::fraud::v1;
use sha2::{Digest, Sha256};

use crate::{
    codes::Country,
    wire::{UnknownNumber, wire_enum},
};

/// The version of the event's meaning that this program writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Event times beyond the year 2100 are damage, not payments.
pub const EVENT_TIME_MS_MAX: i64 = 4_102_444_800_000;
/// The largest amount in minor units, as in the API.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000;

/// The longest text of a field.
mod text_bytes_max {
    pub(super) const ID: usize = 64;
    pub(super) const SHORT: usize = 64;
    pub(super) const DOMAIN: usize = 254;
}

wire_enum! {
    EventKind from EventKind {
        PaymentAttempt = PaymentAttempt,
        Outcome = Outcome,
        Refund = Refund,
        Order = Order,
        Loyalty = Loyalty,
    }
}
wire_enum! {
    /// Whether somebody waits for, or has got, a decision on the event.
    DecisionState from DecisionState { Requested = Requested, Made = Made, NotNeeded = NotNeeded }
}
wire_enum! {
    /// Who or what events are kept of.
    EntityKind from EntityKind { User = User, Card = Card, Device = Device, Ip = Ip, Email = Email }
}
wire_enum! { Channel from Channel { Web = Web, App = App, InStore = InStore, Phone = Phone } }
wire_enum! { CardEntry from CardEntry { Keyed = Keyed, Stored = Stored, Chip = Chip, Contactless = Contactless } }
wire_enum! { Outcome from Outcome { Approved = Approved, Declined = Declined, Reviewed = Reviewed } }

impl EntityKind {
    /// The name used in keys, features and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Card => "card",
            Self::Device => "device",
            Self::Ip => "ip",
            Self::Email => "email",
        }
    }

    /// Whether it is remembered beyond the longest window: people are, and their cards.
    pub fn has_profile(self) -> bool {
        matches!(self, Self::User | Self::Card)
    }

    /// The place of this kind in an array over [`EntityKind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The keyed hash of who or what took part: the first half of an HMAC-SHA-256 in the domain of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(pub [u8; 16]);

/// At most one entity of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entities([Option<EntityId>; EntityKind::ALL.len()]);

impl Entities {
    pub fn get(&self, kind: EntityKind) -> Option<EntityId> {
        self.0[kind.index()]
    }

    pub fn set(&mut self, kind: EntityKind, id: EntityId) {
        self.0[kind.index()] = Some(id);
    }

    /// Those that are present, in the order of [`EntityKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (EntityKind, EntityId)> + '_ {
        EntityKind::ALL.iter().filter_map(|&kind| self.get(kind).map(|id| (kind, id)))
    }
}

impl FromIterator<(EntityKind, EntityId)> for Entities {
    fn from_iter<I: IntoIterator<Item = (EntityKind, EntityId)>>(items: I) -> Self {
        let mut entities = Self::default();
        items.into_iter().for_each(|(kind, id)| entities.set(kind, id));
        entities
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    pub amount_minor: i64,
    /// ISO 4217, three upper-case letters.
    pub currency: String,
    /// In minor units of the pipeline's base currency; `None` when the rate is not known, never 0.
    pub amount_base_minor: Option<i64>,
    pub rate_version: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    pub id: String,
    /// ISO 18245.
    pub category_code: Option<u16>,
    pub country: Option<Country>,
}

/// See `proto/fraud/v1/event.proto` for the meaning of each field. Holds keyed hashes only, so it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub transaction_id: String,
    pub tenant: String,
    /// Fixed by the first acceptor; the only time that windows use.
    pub event_time_ms: i64,
    pub client_time_ms: Option<i64>,
    pub origin_region: RegionName,
    pub epoch: Epoch,
    pub kind: EventKind,
    pub decision: DecisionState,
    pub entities: Entities,
    pub pii_key_id: String,
    /// Always present in a payment attempt.
    pub amount: Option<Money>,
    /// Always present in a payment attempt.
    pub merchant: Option<Merchant>,
    pub card_country: Option<Country>,
    pub ip_country: Option<Country>,
    pub billing_country: Option<Country>,
    pub bin8: String,
    pub email_domain: String,
    pub ip_prefix: String,
    pub channel: Option<Channel>,
    pub card_entry: Option<CardEntry>,
    pub outcome: Option<Outcome>,
}

/// The identity of an event in everything that is kept of entities: half of a SHA-256 over tenant, kind and transaction id. The kind is
/// part of it because an outcome carries the id of its attempt and must not replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 16]);

/// Why bytes from a log are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event field {field}: {problem}")]
pub struct InvalidEvent {
    pub field: &'static str,
    pub problem: String,
}

fn invalid(field: &'static str, problem: impl Into<String>) -> InvalidEvent {
    InvalidEvent { field, problem: problem.into() }
}

impl Event {
    pub fn identity(&self) -> Identity {
        let mut hash = Sha256::new();
        for part in [self.tenant.as_bytes(), self.transaction_id.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.kind.to_wire().to_be_bytes());
        Identity(first_16(&hash.finalize().into()))
    }

    /// Where the customer was, as far as the event tells: the country of the IP address, and in a shop the country of
    /// the merchant.
    pub fn place(&self) -> Option<Country> {
        match self.channel {
            Some(Channel::InStore) => self.merchant.as_ref().and_then(|merchant| merchant.country),
            _ => self.ip_country,
        }
    }

    /// The amount in minor units of the base currency, if the rate was known.
    pub fn amount_base_minor(&self) -> Option<i64> {
        self.amount.as_ref().and_then(|money| money.amount_base_minor)
    }

    /// # Errors
    /// When a field is missing, too long, out of bounds or not known to this version.
    pub fn from_wire(wire: &v1::Event) -> Result<Self, InvalidEvent> {
        if wire.schema_version != SCHEMA_VERSION {
            return Err(invalid(
                "schema_version",
                format!("{} is not known here (only {SCHEMA_VERSION}): upgrade this process before the writers", wire.schema_version),
            ));
        }
        let event = Self {
            transaction_id: text("transaction_id", &wire.transaction_id, 1, text_bytes_max::ID)?,
            tenant: text("tenant", &wire.tenant, 1, text_bytes_max::ID)?,
            event_time_ms: bounded("event_time_ms", wire.event_time_ms, 1, EVENT_TIME_MS_MAX)?,
            client_time_ms: wire.client_time_ms,
            origin_region: RegionName::new(wire.origin_region.as_str()).map_err(|error| invalid("origin_region", error.to_string()))?,
            epoch: Epoch(wire.epoch),
            kind: required("kind", EventKind::from_wire(wire.kind))?,
            decision: required("decision", DecisionState::from_wire(wire.decision))?,
            entities: entities(&wire.entities)?,
            pii_key_id: text("pii_key_id", &wire.pii_key_id, 0, text_bytes_max::SHORT)?,
            amount: wire.amount.as_ref().map(money).transpose()?,
            merchant: wire.merchant.as_ref().map(merchant).transpose()?,
            card_country: country("card_country", &wire.card_country)?,
            ip_country: country("ip_country", &wire.ip_country)?,
            billing_country: country("billing_country", &wire.billing_country)?,
            bin8: bin8(&wire.bin8)?,
            email_domain: text("email_domain", &wire.email_domain, 0, text_bytes_max::DOMAIN)?,
            ip_prefix: text("ip_prefix", &wire.ip_prefix, 0, text_bytes_max::SHORT)?,
            channel: known("channel", Channel::from_wire(wire.channel))?,
            card_entry: known("card_entry", CardEntry::from_wire(wire.card_entry))?,
            outcome: known("outcome", Outcome::from_wire(wire.outcome))?,
        };
        event.complete()
    }

    /// What the kind asks for.
    fn complete(self) -> Result<Self, InvalidEvent> {
        match self.kind {
            EventKind::PaymentAttempt if self.amount.is_none() => Err(invalid("amount", "a payment attempt has an amount")),
            EventKind::PaymentAttempt if self.merchant.is_none() => Err(invalid("merchant", "a payment attempt has a merchant")),
            EventKind::Outcome if self.outcome.is_none() => {
                Err(invalid("outcome", "an event of kind OUTCOME says what became of the attempt"))
            }
            _ => Ok(self),
        }
    }

    pub fn to_wire(&self) -> v1::Event {
        v1::Event {
            schema_version: SCHEMA_VERSION,
            transaction_id: self.transaction_id.clone(),
            tenant: self.tenant.clone(),
            event_time_ms: self.event_time_ms,
            client_time_ms: self.client_time_ms,
            origin_region: self.origin_region.to_string(),
            epoch: self.epoch.0,
            kind: self.kind.to_wire(),
            decision: self.decision.to_wire(),
            entities: self.entities.iter().map(|(kind, id)| entity_to_wire(kind, id)).collect(),
            pii_key_id: self.pii_key_id.clone(),
            amount: self.amount.as_ref().map(|money| v1::Money {
                amount_minor: money.amount_minor,
                currency: money.currency.clone(),
                amount_base_minor: money.amount_base_minor,
                rate_version: money.rate_version.clone(),
            }),
            merchant: self.merchant.as_ref().map(|merchant| v1::Merchant {
                id: merchant.id.clone(),
                category_code: merchant.category_code.map_or(0, u32::from),
                country: country_to_wire(merchant.country),
            }),
            card_country: country_to_wire(self.card_country),
            ip_country: country_to_wire(self.ip_country),
            billing_country: country_to_wire(self.billing_country),
            bin8: self.bin8.clone(),
            email_domain: self.email_domain.clone(),
            ip_prefix: self.ip_prefix.clone(),
            channel: self.channel.map_or(0, Channel::to_wire),
            card_entry: self.card_entry.map_or(0, CardEntry::to_wire),
            outcome: self.outcome.map_or(0, Outcome::to_wire),
        }
    }
}

/// An entity as it is written in messages.
pub fn entity_to_wire(kind: EntityKind, id: EntityId) -> v1::Entity {
    v1::Entity { kind: kind.to_wire(), id: id.0.to_vec() }
}

pub(crate) fn first_16(digest: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|index| digest[index])
}

fn country_to_wire(country: Option<Country>) -> String {
    country.map_or_else(String::new, |country| country.as_str().to_owned())
}

fn known<T>(field: &'static str, value: Result<Option<T>, UnknownNumber>) -> Result<Option<T>, InvalidEvent> {
    value.map_err(|unknown| invalid(field, unknown.to_string()))
}

fn required<T>(field: &'static str, value: Result<Option<T>, UnknownNumber>) -> Result<T, InvalidEvent> {
    known(field, value)?.ok_or_else(|| invalid(field, "is missing"))
}

fn bounded(field: &'static str, value: i64, min: i64, max: i64) -> Result<i64, InvalidEvent> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(invalid(field, format!("{value} is not within {min} to {max}")))
}

fn text(field: &'static str, value: &str, bytes_min: usize, bytes_max: usize) -> Result<String, InvalidEvent> {
    if (bytes_min..=bytes_max).contains(&value.len()) {
        return Ok(value.to_owned());
    }
    Err(invalid(field, format!("has {} bytes, must have {bytes_min} to {bytes_max}", value.len())))
}

fn country(field: &'static str, code: &str) -> Result<Option<Country>, InvalidEvent> {
    if code.is_empty() {
        return Ok(None);
    }
    Country::from_letters(code).map(Some).ok_or_else(|| invalid(field, "is not two upper-case letters"))
}

fn bin8(digits: &str) -> Result<String, InvalidEvent> {
    let plain = digits.is_empty() || (digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()));
    if plain { Ok(digits.to_owned()) } else { Err(invalid("bin8", "is neither empty nor eight digits")) }
}

fn entities(wire: &[v1::Entity]) -> Result<Entities, InvalidEvent> {
    let mut entities = Entities::default();
    for entity in wire.iter().take(EntityKind::ALL.len() + 1) {
        let kind = required("entities.kind", EntityKind::from_wire(entity.kind))?;
        let id: [u8; 16] =
            entity.id.as_slice().try_into().map_err(|_| invalid("entities.id", format!("has {} bytes, must have 16", entity.id.len())))?;
        if entities.get(kind).is_some() {
            return Err(invalid("entities", format!("has more than one {}", kind.name())));
        }
        entities.set(kind, EntityId(id));
    }
    Ok(entities)
}

fn money(wire: &v1::Money) -> Result<Money, InvalidEvent> {
    let currency = wire.currency.as_str();
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(invalid("amount.currency", "is not three upper-case letters"));
    }
    let base = wire.amount_base_minor.map(|minor| bounded("amount.amount_base_minor", minor, 0, i64::MAX)).transpose()?;
    Ok(Money {
        amount_minor: bounded("amount.amount_minor", wire.amount_minor, 0, AMOUNT_MINOR_MAX)?,
        currency: currency.to_owned(),
        amount_base_minor: base,
        rate_version: text("amount.rate_version", &wire.rate_version, 0, text_bytes_max::SHORT)?,
    })
}

fn merchant(wire: &v1::Merchant) -> Result<Merchant, InvalidEvent> {
    let category_code = u16::try_from(wire.category_code).ok().filter(|code| *code <= 9_999);
    let category_code = category_code.ok_or_else(|| invalid("merchant.category_code", "is above 9999"))?;
    Ok(Merchant {
        id: text("merchant.id", &wire.id, 1, text_bytes_max::ID)?,
        category_code: Some(category_code).filter(|code| *code != 0),
        country: country("merchant.country", &wire.country)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::payment;

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let event = payment("t-1", 1_700_000_000_000);
        assert_eq!(Event::from_wire(&event.to_wire()), Ok(event));
    }

    #[test]
    fn each_damaged_field_is_named() {
        type Damage = fn(&mut v1::Event);
        let cases: [(&str, Damage); 13] = [
            ("schema_version", |e| e.schema_version = 9),
            ("transaction_id", |e| e.transaction_id = "x".repeat(65)),
            ("tenant", |e| e.tenant.clear()),
            ("event_time_ms", |e| e.event_time_ms = i64::MAX),
            ("origin_region", |e| e.origin_region = "US".into()),
            ("kind", |e| e.kind = 99),
            ("decision", |e| e.decision = 0),
            ("entities.id", |e| e.entities[0].id.push(1)),
            ("entities", |e| e.entities = vec![e.entities[0].clone(); 2]),
            ("amount.currency", |e| e.amount.as_mut().unwrap().currency = "usd".into()),
            ("amount", |e| e.amount = None),
            ("merchant.category_code", |e| e.merchant.as_mut().unwrap().category_code = 10_000),
            ("bin8", |e| e.bin8 = "1234567x".into()),
        ];
        for (field, damage) in cases {
            let mut wire = payment("t-1", 1_700_000_000_000).to_wire();
            damage(&mut wire);
            assert_eq!(Event::from_wire(&wire).unwrap_err().field, field);
        }
    }

    #[test]
    fn an_outcome_is_another_event_than_its_attempt_and_tenants_do_not_share_ids() {
        let attempt = payment("t-1", 1_700_000_000_000);
        let outcome = Event { kind: EventKind::Outcome, ..attempt.clone() };
        let other_tenant = Event { tenant: "other".into(), ..attempt.clone() };
        let later_retry = Event { event_time_ms: attempt.event_time_ms + 1, ..attempt.clone() };
        assert_ne!(attempt.identity(), outcome.identity());
        assert_ne!(attempt.identity(), other_tenant.identity());
        assert_eq!(attempt.identity(), later_retry.identity());
    }
}
