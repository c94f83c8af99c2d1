//! What unit tests share.

use scoring_core::event::EntityId;

/// A different one for each number.
pub(crate) fn entity_id(n: u32) -> EntityId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    EntityId(id)
}
