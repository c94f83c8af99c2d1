//! What a read of the feature store came to, and how much of it may be believed.

use scoring_core::{
    decide::FeatureState,
    event::{Entities, EntityKind},
    state::EntityStates,
    windows::Windows,
};

/// What the store knows of an event's entities, with what is known to be missing.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRead {
    /// The state of each entity that could be read: hand it to `FeatureSchema::assemble`.
    pub states: EntityStates,
    /// Entities of the event whose value could not be read in time.
    pub unread: Vec<EntityKind>,
    /// Whether the event is in the values of all its entities, so that other pods count it. False in a standby region, whose shards are
    /// read-only, and when a write failed; the event then enters through the log.
    pub recorded: bool,
}

impl FeatureRead {
    /// A read of which nothing has come yet.
    pub(crate) fn nothing_of(entities: &Entities) -> Self {
        Self { states: EntityStates::default(), unread: entities.iter().map(|(kind, _)| kind).collect(), recorded: false }
    }

    /// `Whole` only when every value was read and the event recorded; `Missing` when none was.
    ///
    /// A read-only region counts as incomplete, because payments that other regions or pods have just accepted may not have
    /// arrived. How much the log is behind is not part of this: the builder measures it.
    pub fn state(&self) -> FeatureState {
        if self.unread.is_empty() && self.recorded {
            FeatureState::Whole
        } else if self.states.iter().next().is_none() {
            FeatureState::Missing
        } else {
            FeatureState::Incomplete
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
    fn only_a_recorded_event_with_all_its_entities_read_is_whole() {
        let entities: Entities = [(EntityKind::User, EntityId([1; 16])), (EntityKind::Card, EntityId([2; 16]))].into_iter().collect();
        let windows = Windows::default();
        let nothing = FeatureRead::nothing_of(&entities);
        assert_eq!((nothing.state(), nothing.unread.len()), (FeatureState::Missing, 2));
        let mut states = EntityStates::default();
        states.set(EntityKind::Card, EntityState::default());
        let half = FeatureRead { states: states.clone(), unread: vec![EntityKind::User], recorded: false };
        assert_eq!(half.state(), FeatureState::Incomplete);
        assert_eq!(half.incomplete_windows(&windows), ["5s", "1m", "1h", "24h"]);
        let whole = FeatureRead { states, unread: vec![], recorded: true };
        assert_eq!((whole.state(), whole.incomplete_windows(&windows).len()), (FeatureState::Whole, 0));
        assert_eq!(FeatureRead { recorded: false, ..whole }.state(), FeatureState::Incomplete);
    }
}
