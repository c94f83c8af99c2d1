//! The only function that reads raw personal data. What leaves it is an event with keyed hashes. Pure.
//!
//! Card number, user, device, e-mail and IP address become HMAC-SHA-256 in a domain of their own, so that equal text in two
//! fields gives unequal hashes. Expiry date and holder name go nowhere. BIN8, e-mail domain and the network part of the IP
//! address are kept in clear; the last four digits never are, because together with BIN8 they leave about a thousand
//! candidates.

use std::net::IpAddr;

use domain::{Epoch, RegionName};
use hmac::{Hmac, Mac};
use prost::Message;
use proto::fraud::v1;
use sha2::Sha256;

use crate::{
    event::{DecisionState, Entities, EntityId, EntityKind, Event, EventKind, Merchant, Money, first_16},
    money::Rates,
    validate::CheckedPayment,
};

const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: usize = 1_024;

/// The key under which personal data is hashed, the same in all regions. It cannot be printed.
pub struct PiiKey {
    id: String,
    keyed: Hmac<Sha256>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPiiKey {
    #[error("PII key: its id must be 1 to 32 letters, digits, '-' or '_'")]
    Id,
    #[error(
        "PII key: the secret has {0} bytes, must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}; `kubectl fraud init` writes a good one"
    )]
    Secret(usize),
}

impl PiiKey {
    /// # Errors
    /// When the id is not a short plain name, or the secret is too short to be one.
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, InvalidPiiKey> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if id.is_empty() || id.len() > 32 || !id.bytes().all(plain) {
            return Err(InvalidPiiKey::Id);
        }
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(InvalidPiiKey::Secret(secret.len()));
        }
        let keyed = Hmac::new_from_slice(secret).map_err(|_| InvalidPiiKey::Secret(secret.len()))?;
        Ok(Self { id: id.to_owned(), keyed })
    }

    /// Written into every event; not a secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Parts are written with their length, so that no two lists of parts give the same bytes.
    fn hash(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        for part in [domain.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn entity(&self, kind: EntityKind, parts: &[&[u8]]) -> EntityId {
        EntityId(first_16(&self.hash(kind.name(), parts)))
    }
}

/// Who accepted the payment, when and in which role.
pub struct Acceptance<'a> {
    pub event_time_ms: i64,
    pub origin_region: RegionName,
    pub epoch: Epoch,
    pub decision: DecisionState,
    pub rates: &'a Rates,
}

/// What is left of a payment.
pub struct Protected {
    pub event: Event,
    /// Keyed digest of everything that a retry must repeat: all fields but the client's time. A plain hash would let whoever
    /// reads it try all card numbers.
    pub request_digest: [u8; 32],
}

/// Turns a checked payment into an event.
pub fn protect(payment: CheckedPayment, key: &PiiKey, acceptance: Acceptance<'_>) -> Protected {
    let request_digest = request_digest(&payment, key);
    let entities = entities(&payment, key);
    let amount_base_minor = acceptance.rates.to_base_minor(payment.request.amount_minor, &payment.request.currency);
    let email = payment.request.email.to_lowercase();
    let event = Event {
        event_time_ms: acceptance.event_time_ms,
        client_time_ms: payment.request.client_time_ms,
        origin_region: acceptance.origin_region,
        epoch: acceptance.epoch,
        kind: EventKind::PaymentAttempt,
        decision: acceptance.decision,
        entities,
        pii_key_id: key.id.clone(),
        amount: Some(Money {
            amount_minor: payment.request.amount_minor,
            currency: payment.request.currency,
            amount_base_minor,
            rate_version: acceptance.rates.version().to_owned(),
        }),
        merchant: Some(Merchant { id: payment.merchant.id, category_code: payment.merchant_category, country: payment.merchant_country }),
        card_country: payment.card_country,
        ip_country: payment.ip_country,
        billing_country: payment.billing_country,
        bin8: payment.card_number.chars().take(8).collect(),
        email_domain: email.rsplit_once('@').map(|(_, domain)| domain.to_owned()).unwrap_or_default(),
        ip_prefix: payment.ip.map(ip_prefix).unwrap_or_default(),
        channel: payment.channel,
        card_entry: payment.card_entry,
        outcome: None,
        transaction_id: payment.request.transaction_id,
        tenant: payment.request.tenant,
    };
    Protected { event, request_digest }
}

/// Users and devices are named by their tenant and differ between tenants; cards, addresses and mailboxes are the same
/// thing for everybody.
fn entities(payment: &CheckedPayment, key: &PiiKey) -> Entities {
    let request = &payment.request;
    let tenant = request.tenant.as_bytes();
    let mut entities = Entities::default();
    entities.set(EntityKind::User, key.entity(EntityKind::User, &[tenant, request.user_id.as_bytes()]));
    entities.set(EntityKind::Card, key.entity(EntityKind::Card, &[payment.card_number.as_bytes()]));
    if !request.device_id.is_empty() {
        entities.set(EntityKind::Device, key.entity(EntityKind::Device, &[tenant, request.device_id.as_bytes()]));
    }
    if let Some(ip) = payment.ip {
        entities.set(EntityKind::Ip, key.entity(EntityKind::Ip, &[ip.to_string().as_bytes()]));
    }
    if !request.email.is_empty() {
        entities.set(EntityKind::Email, key.entity(EntityKind::Email, &[request.email.to_lowercase().as_bytes()]));
    }
    entities
}

fn request_digest(payment: &CheckedPayment, key: &PiiKey) -> [u8; 32] {
    // Encoding writes fields in the order of their numbers and leaves defaults out: one message, one encoding.
    let rest = v1::DecideRequest { client_time_ms: None, ..payment.request.clone() }.encode_to_vec();
    let merchant = payment.merchant.encode_to_vec();
    let card_country = payment.card_country.as_ref().map_or("", |country| country.as_str());
    key.hash("request", &[&rest, &merchant, payment.card_number.as_bytes(), card_country.as_bytes()])
}

/// "192.0.2" of 192.0.2.7, "2001:db8:1" of 2001:db8:1::7.
fn ip_prefix(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::{
        check,
        tests::{NOW, good},
    };

    fn key(secret: u8) -> PiiKey {
        PiiKey::new("k1", &[secret; 32]).unwrap()
    }

    fn protected(request: v1::DecideRequest, key: &PiiKey) -> Protected {
        let rates = Rates::new("USD", "2026-11-20", [("EUR", "1.08")]).unwrap();
        let acceptance = Acceptance {
            event_time_ms: NOW,
            origin_region: RegionName::new("us-east").unwrap(),
            epoch: Epoch(3),
            decision: DecisionState::Made,
            rates: &rates,
        };
        protect(check(request, NOW).ok().unwrap(), key, acceptance)
    }

    #[test]
    fn nothing_raw_is_left_in_the_event() {
        let event = protected(good(), &key(1)).event;
        let written = format!("{event:?} {}", String::from_utf8_lossy(&event.to_wire().encode_to_vec()));
        for raw in ["4111111111111111", "customer 1", "d-1", "192.0.2.7", "zoe", "Zoe", "Zoë", "2026, 11"] {
            assert!(!written.contains(raw), "{raw} in {written}");
        }
        assert_eq!((event.bin8.as_str(), event.email_domain.as_str(), event.ip_prefix.as_str()), ("41111111", "example.com", "192.0.2"));
        assert_eq!(event.amount_base_minor(), Some(2_159));
        assert_eq!(Event::from_wire(&event.to_wire()), Ok(event));
    }

    #[test]
    fn the_same_card_is_the_same_entity_for_every_tenant_and_the_same_user_id_is_not() {
        let (one, two) =
            (protected(good(), &key(1)).event, protected(v1::DecideRequest { tenant: "other".into(), ..good() }, &key(1)).event);
        assert_eq!(one.entities.get(EntityKind::Card), two.entities.get(EntityKind::Card));
        assert_ne!(one.entities.get(EntityKind::User), two.entities.get(EntityKind::User));
    }

    #[test]
    fn spelling_of_address_and_mailbox_does_not_matter() {
        let other = v1::DecideRequest { ip_address: "::ffff:192.0.2.7".into(), email: "zoe@example.COM".into(), ..good() };
        let (one, two) = (protected(good(), &key(1)).event, protected(other, &key(1)).event);
        assert_eq!(one.entities, two.entities);
        assert_eq!(one.ip_prefix, two.ip_prefix);
    }

    #[test]
    fn equal_text_in_two_fields_and_equal_fields_under_two_keys_hash_apart() {
        let same_text = v1::DecideRequest { user_id: "x".into(), device_id: "x".into(), ..good() };
        let event = protected(same_text, &key(1)).event;
        assert_ne!(event.entities.get(EntityKind::User), event.entities.get(EntityKind::Device));
        let other_key = protected(good(), &key(2)).event;
        assert!(protected(good(), &key(1)).event.entities.iter().all(|(kind, id)| other_key.entities.get(kind) != Some(id)));
    }

    #[test]
    fn a_retry_has_the_digest_of_its_first_try_and_a_changed_amount_has_not() {
        let digest = |request| protected(request, &key(1)).request_digest;
        assert_eq!(digest(good()), digest(v1::DecideRequest { client_time_ms: Some(5), ..good() }));
        let mut other_card = good();
        other_card.card.as_mut().unwrap().number = "4012888888881881".into();
        for changed in [
            v1::DecideRequest { amount_minor: 500_000, ..good() },
            v1::DecideRequest { merchant: good().merchant.map(|m| v1::Merchant { id: "m-2".into(), ..m }), ..good() },
            other_card,
        ] {
            assert_ne!(digest(good()), digest(changed));
        }
    }

    #[test]
    fn a_secret_that_is_too_short_is_refused() {
        assert_eq!(PiiKey::new("k1", &[1; 31]).err(), Some(InvalidPiiKey::Secret(31)));
        assert_eq!(PiiKey::new("k 1", &[1; 32]).err(), Some(InvalidPiiKey::Id));
        assert_eq!(ip_prefix("2001:db8:1::7".parse().unwrap()), "2001:db8:1");
    }
}
