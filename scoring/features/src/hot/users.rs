//! Who is asked for most. Pure.

use std::collections::HashMap;

use scoring_core::event::EntityId;

/// With so many counters, those who matter are among them: a user with more than one in 4,000 requests always is.
const COUNTERS: usize = 2_000;
/// A user who came so often since counting began, or since counts were halved, comes again.
const HOT: u32 = 3;

/// Counts the users of a stream in bounded space: when there are twice as many as there is room for, the least frequent half
/// is forgotten and the other counts are halved, so that yesterday's users make room for today's.
#[derive(Debug, Default)]
pub(super) struct HotUsers {
    counts: HashMap<EntityId, u32>,
}

impl HotUsers {
    /// Whether some were forgotten on this occasion.
    pub(super) fn note(&mut self, user: EntityId) -> bool {
        *self.counts.entry(user).or_default() += 1;
        let full = self.counts.len() > 2 * COUNTERS;
        if full {
            let kept = self.hottest(COUNTERS);
            self.counts = kept.into_iter().map(|user| (user, self.counts.get(&user).map_or(0, |count| count / 2))).collect();
        }
        full
    }

    pub(super) fn expect(&mut self, user: EntityId) {
        let count = self.counts.entry(user).or_default();
        *count = (*count).max(HOT);
    }

    pub(super) fn is_hot(&self, user: EntityId) -> bool {
        self.counts.get(&user).is_some_and(|count| *count >= HOT)
    }

    pub(super) fn hottest(&self, count: usize) -> Vec<EntityId> {
        let mut all: Vec<(u32, EntityId)> = self.counts.iter().map(|(user, count)| (*count, *user)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.truncate(count);
        all.into_iter().map(|(_, user)| user).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entity_id as user;

    #[test]
    fn frequent_users_are_found_among_a_crowd_that_comes_once() {
        let mut users = HotUsers::default();
        for n in 0..100_000 {
            users.note(user(1_000_000 + n));
            // A hundred users make a tenth of the requests.
            if n % 10 == 0 {
                users.note(user(n / 10 % 100));
            }
        }
        let hottest = users.hottest(100);
        let found = (0..100).filter(|n| hottest.contains(&user(*n))).count();
        assert!(found >= 95, "{found}");
        assert!(users.counts.len() <= 2 * COUNTERS);
    }
}
