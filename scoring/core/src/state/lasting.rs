//! What of an entity's state changes slowly: worth remembering for a time in which the store cannot be asked. Pure.

use super::{EntityState, StateConfig};

impl EntityState {
    /// The profile united with the records, without the records themselves: windows over it are not known.
    #[must_use]
    pub fn lasting(&self, config: &StateConfig) -> Self {
        let mut profile = self.profile.clone();
        self.records().for_each(|record| profile.add(&record, config.known_max()));
        Self { profile, lasting_only: true, ..Self::default() }
    }

    /// Whether only this is known: then windows are missing, not empty.
    pub fn is_lasting_only(&self) -> bool {
        self.lasting_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evaluate::evaluate,
        record::Record,
        schema::FeatureSchema,
        state::{EntityStates, Retention},
        testing::payment,
        windows::Windows,
    };

    #[test]
    fn a_remembered_profile_tells_what_is_new_and_nothing_of_windows() {
        let windows = Windows::default();
        let config = StateConfig::new(&windows, Retention::default()).unwrap();
        let (before, now) = (payment("t-1", 1_700_000_000_000), payment("t-2", 1_700_000_060_000));
        let lasting = EntityState::parse(&Record::of(&before).slot(), 512).lasting(&config);
        let history = evaluate(&lasting, &Record::of(&now), &windows).history;
        assert_eq!((history.device_seen, history.since_first_seen_ms, history.others), (Some(true), 60_000, 0));

        let schema = FeatureSchema::full(&windows);
        let mut states = EntityStates::default();
        states.set(crate::event::EntityKind::User, lasting);
        let vector = schema.assemble(&now, &states);
        for (feature, value) in schema.features().iter().zip(vector.values()) {
            let of_user = feature.entity() == Some(crate::event::EntityKind::User);
            if of_user && feature.window().is_some() {
                assert!(value.is_nan(), "{}", feature.name());
            }
            if feature.name() == "user_device_is_new" {
                assert!(*value == 0.0);
            }
        }
    }
}
