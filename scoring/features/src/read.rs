//! What a read of the feature store came to, and how much of it may be believed.

use std::time::Duration;

use scoring_core::{
    decide::FeatureState,
    event::{Entities, EntityKind},
    state::EntityStates,
    windows::Windows,
};

/// The states of an event's entities, with what is known to be missing.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRead {
    /// What is known of each entity: hand it to `FeatureSchema::assemble`.
    pub states: EntityStates,
    /// Entities of the event whose value could not be read in time.
    pub unread: Vec<EntityKind>,
    /// How old the user's profile is that this process remembered, because its shard did not answer. It has no windows.
    pub cached: Option<Duration>,
    /// Whether the event is known to be in all its values, so that other pods count it. False in a standby region, whose
    /// shards are read-only, when a write failed, and when a replica was faster than the shard; the event then enters
    /// through the log.
    pub recorded: bool,
}

impl FeatureRead {
    /// A read of which nothing has come yet.
    pub(crate) fn nothing_of(entities: &Entities) -> Self {
        let unread = entities.iter().map(|(kind, _)| kind).collect();
        Self { states: EntityStates::default(), unread, cached: None, recorded: false }
    }

    /// `Whole` only when every value was read and the event recorded; `Cached` when nothing could be read and the user's
    /// profile is remembered; `Missing` without even that.
    ///
    /// A read-only region counts as incomplete, because payments that other regions or pods have just accepted may not have
    /// arrived. How much the log is behind is not part of this: the builder measures it.
    pub fn state(&self) -> FeatureState {
        let read = self.states.iter().any(|(kind, _)| !self.unread.contains(&kind));
        match (read, self.cached) {
            _ if self.unread.is_empty() && self.recorded => FeatureState::Whole,
            (true, _) => FeatureState::Incomplete,
            (false, Some(_)) => FeatureState::Cached,
            (false, None) => FeatureState::Missing,
        }
    }

    /// The windows that may miss something: all of them, unless the read is whole.
    pub fn incomplete_windows(&self, windows: &Windows) -> Vec<String> {
        match self.state() {
            FeatureState::Whole => Vec::new(),
            _ => windows.lengths().iter().map(ToString::to_string).collect(),
        }
    }

    /// Entities with more events than are kept: counts over long windows are lower bounds.
    pub fn saturated(&self) -> impl Iterator<Item = EntityKind> + '_ {
        self.states.iter().filter(|(_, state)| state.saturated()).map(|(kind, _)| kind)
    }
}

#[cfg(test)]
mod tests {
    use scoring_core::{event::EntityId, state::EntityState};

    use super::*;

    #[test]
    fn only_a_recorded_event_with_all_its_values_is_whole() {
        let entities: Entities = [(EntityKind::User, EntityId([1; 16])), (EntityKind::Card, EntityId([2; 16]))].into_iter().collect();
        let windows = Windows::default();
        let nothing = FeatureRead::nothing_of(&entities);
        assert_eq!((nothing.state(), nothing.unread.len()), (FeatureState::Missing, 2));
        let mut states = EntityStates::default();
        states.set(EntityKind::User, EntityState::default());
        let cached = FeatureRead { states: states.clone(), cached: Some(Duration::from_secs(3)), ..nothing };
        assert_eq!(cached.state(), FeatureState::Cached);
        states.set(EntityKind::Card, EntityState::default());
        let half = FeatureRead { states: states.clone(), unread: vec![EntityKind::User], ..cached };
        assert_eq!(half.state(), FeatureState::Incomplete);
        assert_eq!(half.incomplete_windows(&windows), ["5s", "1m", "1h", "24h"]);
        let whole = FeatureRead { states, unread: vec![], cached: None, recorded: true };
        assert_eq!((whole.state(), whole.incomplete_windows(&windows).len()), (FeatureState::Whole, 0));
        assert_eq!(FeatureRead { recorded: false, ..whole }.state(), FeatureState::Incomplete);
    }
}
