//! What is remembered in this process of the users who are asked for most: for the time in which their shard does not answer.
//!
//! Only what changes slowly: profiles, never windows. An entry carries its age. Pure: time is an argument.

mod users;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use scoring_core::{event::EntityId, state::EntityState};

use users::HotUsers;

/// For how many users.
pub(crate) const USERS_MAX: usize = 1_000;
/// An entry younger than this is not renewed: a profile changes slowly.
const RENEWED_AFTER: Duration = Duration::from_secs(10);
/// How long a profile is as good as none.
const KEPT: Duration = Duration::from_secs(900);
/// How long it is believed that a user has no profile: the first payment makes one.
const NOTHING_KEPT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct HotProfiles {
    users: HotUsers,
    entries: HashMap<EntityId, Entry>,
}

#[derive(Debug)]
struct Entry {
    profile: EntityState,
    learned: Instant,
}

impl HotProfiles {
    /// Counts a request; says whether the profile, which has just been read, is wanted by [`HotProfiles::learn`].
    pub(crate) fn asked_for(&mut self, user: EntityId, now: Instant) -> bool {
        if self.users.note(user) {
            // Those who are not asked for any more make room.
            let users = &self.users;
            self.entries.retain(|user, _| users.is_hot(*user));
        }
        let wanted = self.users.is_hot(user);
        wanted && self.entries.get(&user).is_none_or(|entry| now.saturating_duration_since(entry.learned) >= RENEWED_AFTER)
    }

    pub(crate) fn learn(&mut self, user: EntityId, profile: EntityState, now: Instant) {
        if self.entries.len() < USERS_MAX || self.entries.contains_key(&user) {
            self.entries.insert(user, Entry { profile, learned: now });
        }
    }

    /// A profile and its age.
    pub(crate) fn get(&self, user: EntityId, now: Instant) -> Option<(&EntityState, Duration)> {
        let entry = self.entries.get(&user)?;
        let age = now.saturating_duration_since(entry.learned);
        let kept = if entry.profile.profile().is_empty() { NOTHING_KEPT } else { KEPT };
        (age <= kept).then_some((&entry.profile, age))
    }

    /// Those who are asked for most, first.
    pub(crate) fn hottest(&self) -> Vec<EntityId> {
        self.users.hottest(USERS_MAX)
    }

    /// Takes a list of former times: these users are hot until others are hotter.
    pub(crate) fn expect(&mut self, users: &[EntityId]) {
        users.iter().take(USERS_MAX).for_each(|user| self.users.expect(*user));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use scoring_core::{event::EntityKind, profile::ProfileRecord, record::RecordId, state};

    use super::*;
    use crate::testing::entity_id as user;

    fn somebody() -> EntityState {
        let record = ProfileRecord::new((EntityKind::User, user(1)), "x", 1.0, 1, RecordId([0; 10])).unwrap();
        let windows = scoring_core::windows::Windows::default();
        let config = state::StateConfig::new(&windows, state::Retention::default()).unwrap();
        let values = [record.stored()];
        let folded = state::fold(EntityKind::User, Vec::new(), state::Additions { records: &[], values: &values }, 1, &config);
        EntityState::parse(&folded.value, 512)
    }

    #[test]
    fn a_user_who_comes_again_is_wanted_once_in_a_while_and_answered_with_an_age() {
        let (mut hot, now) = (HotProfiles::default(), Instant::now());
        assert!(!hot.asked_for(user(1), now));
        assert!((0..3).any(|_| hot.asked_for(user(1), now)));
        hot.learn(user(1), somebody(), now);
        assert!(!hot.asked_for(user(1), now + Duration::from_secs(9)));
        assert!(hot.asked_for(user(1), now + Duration::from_secs(10)));
        let (profile, age) = hot.get(user(1), now + Duration::from_secs(600)).unwrap();
        assert_eq!((profile, age), (&somebody(), Duration::from_secs(600)));
        assert!(hot.get(user(1), now + Duration::from_secs(901)).is_none());
        assert!(hot.get(user(2), now).is_none());
    }

    #[test]
    fn that_there_is_no_profile_is_believed_for_seconds_only() {
        let (mut hot, now) = (HotProfiles::default(), Instant::now());
        hot.learn(user(1), EntityState::default(), now);
        assert!(hot.get(user(1), now + NOTHING_KEPT).is_some());
        assert!(hot.get(user(1), now + NOTHING_KEPT + Duration::from_millis(1)).is_none());
    }

    #[test]
    fn users_who_are_asked_for_no_more_make_room_and_the_rest_stays_bounded() {
        let (mut hot, now) = (HotProfiles::default(), Instant::now());
        for round in 0..4 {
            for n in 0..3_000 {
                for _ in 0..3 {
                    if hot.asked_for(user(round * 10_000 + n), now) {
                        hot.learn(user(round * 10_000 + n), somebody(), now);
                    }
                }
                assert!(hot.len() <= USERS_MAX);
            }
        }
        assert!(hot.get(user(0), now).is_none());
        assert!(hot.hottest().len() <= USERS_MAX);
    }

    #[test]
    fn a_list_of_former_times_makes_its_users_wanted_at_once() {
        let (mut hot, now) = (HotProfiles::default(), Instant::now());
        hot.expect(&[user(5), user(6)]);
        assert!(hot.asked_for(user(5), now) && !hot.asked_for(user(7), now));
        assert_eq!(hot.hottest()[0], user(5));
    }
}
