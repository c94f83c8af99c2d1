//! Keys whose values are so long that appending to them would only make things worse. Pure: time is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::commands::EntityKey;

/// How long a key is left alone: by then the builder has shortened it, or it is met again.
const REMEMBERED: Duration = Duration::from_secs(1);
/// More keys than that are not remembered; they are appended to.
const KEYS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct OverLong {
    until: HashMap<EntityKey, Instant>,
}

impl OverLong {
    pub(crate) fn note(&mut self, entity: EntityKey, now: Instant) {
        if self.until.len() >= KEYS_MAX {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < KEYS_MAX {
            self.until.insert(entity, now + REMEMBERED);
        }
    }

    pub(crate) fn has(&mut self, entity: EntityKey, now: Instant) -> bool {
        let Some(until) = self.until.get(&entity) else { return false };
        let still = *until > now;
        if !still {
            self.until.remove(&entity);
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use scoring_core::event::EntityKind;

    use super::*;
    use crate::testing::entity_id;

    fn entity(n: u32) -> EntityKey {
        (EntityKind::Ip, entity_id(n))
    }

    #[test]
    fn a_key_is_remembered_for_a_second_and_not_more_of_them_than_there_is_room_for() {
        let (mut keys, now) = (OverLong::default(), Instant::now());
        (0..5_000).for_each(|n| keys.note(entity(n), now));
        assert!(keys.has(entity(7), now) && !keys.has(entity(4_000), now));
        assert_eq!(keys.until.len(), KEYS_MAX);
        let later = now + REMEMBERED;
        assert!(!keys.has(entity(7), later));
        // The place of the one that was looked for, and then those of all others.
        for n in [4_000, 4_001] {
            keys.note(entity(n), later);
        }
        assert!(keys.has(entity(4_000), later) && keys.until.len() == 2);
    }
}
