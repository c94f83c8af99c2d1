//! Which shard holds a key: CRC16 of its hash tag, 16,384 slots as in Redis Cluster, slots to shards by the plan.

use serde::{Deserialize, Serialize};

/// Number of slots, as in the Redis Cluster specification.
pub const SLOTS: u16 = 16_384;

/// The slot of a key. A hash tag `{…}` that is not empty stands for the whole key.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16_xmodem(hash_tag(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    match key[open + 1..].iter().position(|&b| b == b'}') {
        Some(0) | None => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// CRC16-CCITT with polynomial 0x1021 and initial value 0 (XMODEM), as the Redis Cluster specification asks.
fn crc16_xmodem(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

/// Slots `first..=last` belong to `shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotRange {
    pub first: u16,
    pub last: u16,
    pub shard: u16,
}

/// A whole assignment of slots to shards: every slot once, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<SlotRange>", into = "Vec<SlotRange>")]
pub struct SlotMap(Vec<SlotRange>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotMapError {
    #[error("slot map: a range must start at slot {expected} (every slot belongs to exactly one shard, in order) but starts at {found}")]
    Gap { expected: u16, found: u16 },
    #[error("slot map: range {first}..={last} is empty or beyond slot 16383")]
    BadRange { first: u16, last: u16 },
    #[error("slot map: ends at slot {last}, must end at 16383")]
    Short { last: u16 },
    #[error("a feature store has 1 to 1024 shards, not {0}")]
    Shards(u16),
}

impl SlotMap {
    /// Contiguous ranges of nearly equal size.
    ///
    /// # Errors
    /// When `shards` is 0 or above 1,024.
    pub fn even(shards: u16) -> Result<Self, SlotMapError> {
        if shards == 0 || shards > 1024 {
            return Err(SlotMapError::Shards(shards));
        }
        let bound = |shard: u16| u16::try_from(u32::from(SLOTS) * u32::from(shard) / u32::from(shards)).unwrap_or(SLOTS);
        Ok(Self((0..shards).map(|shard| SlotRange { first: bound(shard), last: bound(shard + 1) - 1, shard }).collect()))
    }

    pub fn shard_of(&self, slot: u16) -> u16 {
        let index = self.0.partition_point(|range| range.last < slot % SLOTS);
        self.0[index].shard
    }

    pub fn ranges(&self) -> &[SlotRange] {
        &self.0
    }

    /// One more than the highest shard index.
    pub fn shards(&self) -> u16 {
        self.0.iter().map(|range| range.shard).max().map_or(0, |highest| highest.saturating_add(1))
    }
}

impl TryFrom<Vec<SlotRange>> for SlotMap {
    type Error = SlotMapError;

    fn try_from(ranges: Vec<SlotRange>) -> Result<Self, SlotMapError> {
        let mut expected = 0;
        for range in &ranges {
            if range.first != expected {
                return Err(SlotMapError::Gap { expected, found: range.first });
            }
            if range.last < range.first || range.last >= SLOTS {
                return Err(SlotMapError::BadRange { first: range.first, last: range.last });
            }
            expected = range.last + 1;
        }
        if expected != SLOTS {
            return Err(SlotMapError::Short { last: expected.saturating_sub(1) });
        }
        Ok(Self(ranges))
    }
}

impl From<SlotMap> for Vec<SlotRange> {
    fn from(map: SlotMap) -> Self {
        map.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_agree_with_the_redis_cluster_specification() {
        // The specification's own test vector: CRC16("123456789") = 0x31C3.
        assert_eq!(slot_of(b"123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16_xmodem(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), crc16_xmodem(b"{bar") % SLOTS);
    }

    #[test]
    fn every_slot_has_one_shard_and_shares_are_even() {
        for shards in [1, 2, 3, 20, 1024] {
            let map = SlotMap::even(shards).unwrap();
            assert_eq!(SlotMap::try_from(map.ranges().to_vec()), Ok(map.clone()));
            assert_eq!((map.shard_of(0), map.shard_of(SLOTS - 1), map.shards()), (0, shards - 1, shards));
            let sizes: Vec<u16> = map.ranges().iter().map(|range| range.last - range.first).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn a_map_with_a_hole_is_refused() {
        let ranges = vec![SlotRange { first: 0, last: 9, shard: 0 }, SlotRange { first: 11, last: 16_383, shard: 1 }];
        assert_eq!(SlotMap::try_from(ranges), Err(SlotMapError::Gap { expected: 10, found: 11 }));
        assert!(SlotMap::try_from(vec![]).is_err());
    }
}
