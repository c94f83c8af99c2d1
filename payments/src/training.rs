//! Training data as served: payments go, in arrival order, through the same code as in the decision service. Pure.
//!
//! Each payment is checked and protected, folded into the value of every entity that took part, and then read: the
//! vector is what the decision service would have sent to the model, from a store that was empty when the stream began.
//! Event times are arrival times.

use std::collections::BTreeMap;

use domain::{Epoch, RegionName};
use scoring_core::event::{DecisionState, EntityId, EntityKind, Event};
use scoring_core::money::Rates;
use scoring_core::protect::{Acceptance, PiiKey, protect};
use scoring_core::record::Record;
use scoring_core::schema::{FeatureSchema, FeatureVector};
use scoring_core::state::{Additions, EntityState, EntityStates, StateConfig, fold};
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
    config: StateConfig,
    values: BTreeMap<(EntityKind, EntityId), Vec<u8>>,
    start_ms: i64,
}

impl Replay {
    /// A stream whose first payment arrives at `start_ms`.
    pub fn new(schema: FeatureSchema, start_ms: i64) -> anyhow::Result<Self> {
        Ok(Self {
            config: StateConfig::fitting(schema.windows()),
            schema,
            key: PiiKey::new("training", &THROWAWAY_SECRET)?,
            rates: Rates::new("USD", "training", RATES)?,
            region: RegionName::new("training")?,
            values: BTreeMap::new(),
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
        let states = self.record(&event);
        Ok(self.schema.assemble(&event, &states))
    }

    fn record(&mut self, event: &Event) -> EntityStates {
        let records = [Record::of(event)];
        let mut read = EntityStates::default();
        for (kind, id) in event.entities.iter() {
            let value = self.values.entry((kind, id)).or_default();
            let additions = Additions { records: &records, values: &[] };
            *value = fold(kind, std::mem::take(value), additions, event.event_time_ms, &self.config).value;
            read.set(kind, EntityState::parse(value, self.config.events_max()));
        }
        read
    }
}
