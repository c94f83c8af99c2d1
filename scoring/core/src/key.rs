//! The key of an entity in the store: `{`, one letter for its kind, its 16 raw bytes, `}`. Pure.
//!
//! One key holds everything of an entity. The braces make its slot the CRC16 of what is between them, as in Redis Cluster.
//! An id may contain a brace of its own: its slot then comes from fewer bytes, which every client computes alike.

use domain::slot_of;

use crate::event::{EntityId, EntityKind};

pub const ENTITY_KEY_BYTES: usize = 19;

/// What the letters of the kinds are. They are stored, so they never change and are never used again for another kind.
fn letter_of(kind: EntityKind) -> u8 {
    match kind {
        EntityKind::User => b'u',
        EntityKind::Card => b'c',
        EntityKind::Device => b'd',
        EntityKind::Ip => b'a',
        EntityKind::Email => b'm',
    }
}

pub fn entity_key(kind: EntityKind, id: EntityId) -> [u8; ENTITY_KEY_BYTES] {
    let mut key = [b'{'; ENTITY_KEY_BYTES];
    key[1] = letter_of(kind);
    key[2..18].copy_from_slice(&id.0);
    key[18] = b'}';
    key
}

/// Whose key it is; `None` for other keys of the store.
pub fn entity_of(key: &[u8]) -> Option<(EntityKind, EntityId)> {
    let [b'{', letter, id @ .., b'}'] = key else { return None };
    let kind = EntityKind::ALL.iter().copied().find(|kind| letter_of(*kind) == *letter)?;
    Some((kind, EntityId(id.try_into().ok()?)))
}

pub fn slot_of_entity(kind: EntityKind, id: EntityId) -> u16 {
    slot_of(&entity_key(kind, id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_key_of_an_entity_is_a_contract_with_other_versions_and_tools() {
        let key = entity_key(EntityKind::Card, EntityId([0xab; 16]));
        assert_eq!(key, *b"{c\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab}");
        assert_eq!(slot_of_entity(EntityKind::Card, EntityId([0xab; 16])), slot_of(&key[1..18]));
        let letters: BTreeSet<u8> = EntityKind::ALL.iter().map(|kind| letter_of(*kind)).collect();
        assert_eq!(letters, BTreeSet::from(*b"ucdam"));
    }

    #[test]
    fn keys_read_back_and_other_keys_are_nobodys() {
        for &kind in EntityKind::ALL {
            for id in [EntityId([0; 16]), EntityId(*b"}{}{}{}{}{}{}{}{")] {
                assert_eq!(entity_of(&entity_key(kind, id)), Some((kind, id)));
            }
        }
        for other in [b"fp:epoch".as_slice(), b"", b"{}", b"{c}", &[b'{'; 19]] {
            assert_eq!(entity_of(other), None);
        }
    }
}
