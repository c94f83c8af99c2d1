//! Training data as served: payments go, in arrival order, through the same code as in the decision service. Pure.
//!
//! Each payment is checked and protected, recorded in the event set of every entity that took part, and then read: the
//! vector is what the decision service would have sent to the model, from a store that was empty when the stream began.
//! Event times are arrival times.

use std::collections::BTreeMap;

use domain::{Epoch, RegionName};
use scoring_core::encoding::Record;
use scoring_core::event::{DecisionState, EntityId, EntityKind, Event};
use scoring_core::money::Rates;
use scoring_core::protect::{Acceptance, PiiKey, protect};
use scoring_core::schema::{FeatureSchema, FeatureVector};
use scoring_core::set::{EntitySets, EventSet};
use scoring_core::validate;

use crate::LabelledPayment;

/// Which entity hashes come out does not matter to the features, as long as they differ.
const THROWAWAY_SECRET: [u8; 32] = [0x5a; 32];
/// As in examples/fx-rates.yaml; what generated payments are priced with.
const RATES: [(&str, &str); 4] = [("EUR", "1.0850"), ("GBP", "1.2710"), ("INR", "0.0118"), ("JPY", "0.0064")];

/// The feature store of one training stream.
pub struct Replay {
    schema: FeatureSchema,
    key: PiiKey,
    rates: Rates,
    region: RegionName,
    sets: BTreeMap<(EntityKind, EntityId), EventSet>,
    start_ms: i64,
}

impl Replay {
    /// A stream whose first payment arrives at `start_ms`.
    pub fn new(schema: FeatureSchema, start_ms: i64) -> anyhow::Result<Self> {
        Ok(Self {
            schema,
            key: PiiKey::new("training", &THROWAWAY_SECRET)?,
            rates: Rates::new("USD", "training", RATES)?,
            region: RegionName::new("training")?,
            sets: BTreeMap::new(),
            start_ms,
        })
    }

    pub fn schema(&self) -> &FeatureSchema {
        &self.schema
    }

    /// Records the payment and gives its vector.
    pub fn vector(&mut self, labelled: &LabelledPayment) -> anyhow::Result<FeatureVector> {
        let event_time_ms = self.start_ms + i64::try_from(labelled.at.as_millis())?;
        let checked = validate::check(labelled.payment.clone(), event_time_ms)?;
        let acceptance = Acceptance {
            event_time_ms,
            origin_region: self.region.clone(),
            epoch: Epoch(1),
            decision: DecisionState::Requested,
            rates: &self.rates,
        };
        let event = protect(checked, &self.key, acceptance).event;
        let sets = self.record(&event);
        Ok(self.schema.assemble(&event, &sets))
    }

    fn record(&mut self, event: &Event) -> EntitySets {
        let mut read = EntitySets::default();
        for (kind, id) in event.entities.iter() {
            let set = self.sets.entry((kind, id)).or_insert_with(|| self.schema.windows().empty_set());
            set.insert(Record::of(event));
            read.set(kind, set.clone());
        }
        read
    }
}
