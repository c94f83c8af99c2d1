//! What an event set keeps of an event, and its bytes as a member of a sorted set. Pure.
//!
//! A member is: version byte, 16 bytes of identity, one byte of kind and outcome, the amount, then hashes of merchant,
//! card and device and the country. The time is not part of it: it is the member's score. One record has exactly one
//! encoding, so that writing it twice is writing it once. Members come from a shared store and are untrusted:
//! [`Record::decode`] refuses what it does not know and never panics.

use sha2::{Digest, Sha256};

use crate::{
    codes::Country,
    event::{EntityId, EntityKind, Event, EventKind, Identity, Outcome},
};

const VERSION: u8 = 1;
/// Version, identity, kind and outcome.
const HEAD_BYTES: usize = 18;
/// Merchant, card, device (4 each), country (2).
const TAIL_BYTES: usize = 14;
/// The longest member that this version writes: a 64-bit amount takes up to ten bytes.
pub const MEMBER_BYTES_MAX: usize = HEAD_BYTES + 10 + TAIL_BYTES;

/// One event of a set.
///
/// Merchants, cards and devices are told apart by 32 bits of hash: enough to count distinct ones among the few hundred
/// of a set (512 of them collide once in 30,000 sets), and half the memory of 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub identity: Identity,
    pub time_ms: i64,
    pub kind: EventKind,
    pub outcome: Option<Outcome>,
    /// Minor units of the base currency; `None` when the rate was not known.
    pub amount_base_minor: Option<i64>,
    pub merchant: Option<u32>,
    pub card: Option<u32>,
    pub device: Option<u32>,
    /// Where the customer was: see [`Event::place`].
    pub country: Option<Country>,
}

/// Why a member cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableMember {
    #[error("event-set member has version {0}, only {VERSION} is known here: upgrade readers before writers")]
    Version(u8),
    #[error("event-set member ends in the middle of a field")]
    Short,
    #[error("event-set member has bytes after its last field")]
    Long,
    #[error("event-set member holds a value that no writer writes in field {0}")]
    Field(&'static str),
}

impl Record {
    pub fn of(event: &Event) -> Self {
        let short = |kind| event.entities.get(kind).map(|EntityId(id)| short_hash(&id));
        Self {
            identity: event.identity(),
            time_ms: event.event_time_ms,
            kind: event.kind,
            outcome: event.outcome,
            amount_base_minor: event.amount_base_minor(),
            merchant: event.merchant.as_ref().map(|merchant| short_hash(&Sha256::digest(merchant.id.as_bytes()))),
            card: short(EntityKind::Card),
            device: short(EntityKind::Device),
            country: event.place(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MEMBER_BYTES_MAX);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.identity.0);
        bytes.push(kind_code(self.kind) | (outcome_code(self.outcome) << 4));
        write_amount(self.amount_base_minor, &mut bytes);
        for hash in [self.merchant, self.card, self.device] {
            bytes.extend_from_slice(&hash.unwrap_or(0).to_be_bytes());
        }
        bytes.extend_from_slice(&self.country.map_or([0, 0], Country::letters));
        bytes
    }

    /// # Errors
    /// When the bytes are not what [`Record::encode`] of this version writes.
    pub fn decode(member: &[u8], time_ms: i64) -> Result<Self, UnreadableMember> {
        let mut rest = member;
        let [version] = take::<1>(&mut rest)?;
        if version != VERSION {
            return Err(UnreadableMember::Version(version));
        }
        let identity = Identity(take(&mut rest)?);
        let [codes] = take::<1>(&mut rest)?;
        let record = Self {
            identity,
            time_ms,
            kind: kind_of(codes & 0x0f)?,
            outcome: outcome_of(codes >> 4)?,
            amount_base_minor: read_amount(&mut rest)?,
            merchant: read_hash(&mut rest)?,
            card: read_hash(&mut rest)?,
            device: read_hash(&mut rest)?,
            country: read_country(&mut rest)?,
        };
        if rest.is_empty() { Ok(record) } else { Err(UnreadableMember::Long) }
    }

    /// Which of two records of one identity a set keeps: the one with the smaller encoding, then the earlier one. A
    /// total order, so that every reader keeps the same one whatever order it learned of them.
    pub(crate) fn wins_over(&self, other: &Self) -> bool {
        (self.encode(), self.time_ms) < (other.encode(), other.time_ms)
    }

    pub fn is_attempt(&self) -> bool {
        self.kind == EventKind::PaymentAttempt
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], UnreadableMember> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(UnreadableMember::Short)?;
    *rest = tail;
    Ok(*head)
}

/// The first four bytes of a hash; 0 stands for "none" in members, so it is never the hash of something.
fn short_hash(bytes: &[u8]) -> u32 {
    let four: [u8; 4] = std::array::from_fn(|index| bytes.get(index).copied().unwrap_or(0));
    u32::from_be_bytes(four).max(1)
}

fn read_hash(rest: &mut &[u8]) -> Result<Option<u32>, UnreadableMember> {
    let hash = u32::from_be_bytes(take(rest)?);
    Ok((hash != 0).then_some(hash))
}

fn read_country(rest: &mut &[u8]) -> Result<Option<Country>, UnreadableMember> {
    let letters = take::<2>(rest)?;
    if letters == [0, 0] {
        return Ok(None);
    }
    std::str::from_utf8(&letters).ok().and_then(Country::from_letters).map(Some).ok_or(UnreadableMember::Field("country"))
}

/// Codes in members are their own, so that no change of the wire format can change what is stored.
fn kind_code(kind: EventKind) -> u8 {
    match kind {
        EventKind::PaymentAttempt => 1,
        EventKind::Outcome => 2,
        EventKind::Refund => 3,
        EventKind::Order => 4,
        EventKind::Loyalty => 5,
    }
}

fn kind_of(code: u8) -> Result<EventKind, UnreadableMember> {
    EventKind::ALL.iter().copied().find(|kind| kind_code(*kind) == code).ok_or(UnreadableMember::Field("kind"))
}

fn outcome_code(outcome: Option<Outcome>) -> u8 {
    match outcome {
        None => 0,
        Some(Outcome::Approved) => 1,
        Some(Outcome::Declined) => 2,
        Some(Outcome::Reviewed) => 3,
    }
}

fn outcome_of(code: u8) -> Result<Option<Outcome>, UnreadableMember> {
    let all = Outcome::ALL.iter().copied().map(Some).chain([None]);
    all.into_iter().find(|outcome| outcome_code(*outcome) == code).ok_or(UnreadableMember::Field("outcome"))
}

/// Seven bits a byte, lowest first, the high bit set while more follow. 0 stands for "not known", n + 1 for n.
fn write_amount(amount: Option<i64>, bytes: &mut Vec<u8>) {
    let mut rest = amount.and_then(|amount| u64::try_from(amount).ok()).map_or(0, |amount| amount + 1);
    while rest >= 0x80 {
        bytes.push(low_seven_bits(rest) | 0x80);
        rest >>= 7;
    }
    bytes.push(low_seven_bits(rest));
}

fn low_seven_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or(0)
}

fn read_amount(rest: &mut &[u8]) -> Result<Option<i64>, UnreadableMember> {
    let refused = UnreadableMember::Field("amount");
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(rest)?;
        let bits = u64::from(byte & 0x7f);
        // Nothing may be shifted out at the top, and a last byte of 0 would be a second encoding of the same amount.
        if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
            return Err(refused);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return value.checked_sub(1).map(|amount| i64::try_from(amount).map_err(|_| refused)).transpose();
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_record, payment};

    #[test]
    fn a_payment_takes_few_bytes() {
        let member = Record::of(&payment("t-1", 1_700_000_000_000)).encode();
        assert!(member.len() <= 36, "{} bytes", member.len());
    }

    #[test]
    fn a_member_of_a_later_version_is_refused_by_its_version() {
        let mut member = Record::of(&payment("t-1", 1)).encode();
        member[0] = 2;
        assert_eq!(Record::decode(&member, 1), Err(UnreadableMember::Version(2)));
    }

    #[test]
    fn an_amount_with_a_second_encoding_is_refused() {
        let mut member = Record { amount_base_minor: None, ..Record::of(&payment("t-1", 1)) }.encode();
        member.splice(HEAD_BYTES..=HEAD_BYTES, [0x80, 0x00]);
        assert_eq!(Record::decode(&member, 1), Err(UnreadableMember::Field("amount")));
    }

    proptest! {
        #[test]
        fn every_record_reads_back_and_has_one_encoding(record in any_record()) {
            let member = record.encode();
            prop_assert!(member.len() <= MEMBER_BYTES_MAX);
            prop_assert_eq!(Record::decode(&member, record.time_ms), Ok(record));
        }

        #[test]
        fn bytes_that_decode_are_the_encoding_of_what_they_decode_to(mut bytes in prop::collection::vec(any::<u8>(), 0..60), versioned: bool) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok(record) = Record::decode(&bytes, 7) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }

        #[test]
        fn a_damaged_member_never_panics(record in any_record(), at in 0_usize..60, to: u8, cut in 0_usize..60) {
            let mut member = record.encode();
            if let Some(byte) = member.get_mut(at) {
                *byte = to;
            }
            member.truncate(cut);
            if let Ok(decoded) = Record::decode(&member, 7) {
                prop_assert_eq!(decoded.encode(), member);
            }
        }
    }
}
