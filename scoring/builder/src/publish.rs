//! The features of an entity after each of its events, to `<prefix>.features`, for those who follow entities.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{Epoch, RegionName};
use futures::future::join_all;
use kafka::{Ack, AckProducer, ProduceError, headers::RecordHeaders};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::{
    event::{EntityId, EntityKind, Event, entity_to_wire},
    schema::FeatureSchema,
    state::EntityState,
};
use tokio::sync::mpsc;

use crate::{batch::published_entity, metrics::Metrics};

/// How long to wait for room in the producer's queue.
const QUEUE_WAIT: Duration = Duration::from_millis(10);

/// Events that have been folded, and the entities of which features are published, as they are afterwards.
pub(crate) struct ToPublish {
    pub(crate) events: Vec<Event>,
    pub(crate) states: States,
}

pub(crate) type States = BTreeMap<(EntityKind, EntityId), EntityState>;

pub(crate) struct Publisher {
    pub(crate) producer: AckProducer,
    pub(crate) topic: String,
    pub(crate) schema: FeatureSchema,
    pub(crate) region: RegionName,
}

impl Publisher {
    /// Publishes until the sender is gone.
    pub(crate) async fn publish_all(self: Arc<Self>, mut batches: mpsc::Receiver<ToPublish>, epoch: Epoch, metrics: Metrics) {
        while let Some(batch) = batches.recv().await {
            let unpublished = self.publish(&batch.events, &batch.states, epoch).await;
            if unpublished > 0 {
                metrics.unpublished(unpublished);
                tracing::warn!(unpublished, "feature updates were not acknowledged by Kafka; they can be recomputed from the events");
            }
        }
    }

    /// Publishes one update an event and waits for the acknowledgements; gives how many were not acknowledged.
    async fn publish(&self, events: &[Event], states: &States, epoch: Epoch) -> u64 {
        let headers = RecordHeaders { epoch, origin: self.region.clone() };
        let (mut acks, mut failed) = (Vec::with_capacity(events.len()), 0_u64);
        for event in events {
            let Some(update) = update(&self.schema, event, states, epoch) else { continue };
            match self.produce(&update, &headers).await {
                Ok(ack) => acks.push(ack),
                Err(_) => failed = failed.saturating_add(1),
            }
        }
        let unacknowledged = join_all(acks).await.into_iter().filter(Result::is_err).count();
        failed.saturating_add(u64::try_from(unacknowledged).unwrap_or(u64::MAX))
    }

    async fn produce(&self, update: &v1::FeatureUpdate, headers: &RecordHeaders) -> Result<Ack, ProduceError> {
        let key = update.entity.as_ref().map(|entity| entity.id.as_slice()).unwrap_or_default();
        let payload = update.encode_to_vec();
        loop {
            match self.producer.produce(&self.topic, key, &payload, headers) {
                // The queue empties within the delivery timeout: its records are acknowledged or fail.
                Err(ProduceError::QueueFull) => tokio::time::sleep(QUEUE_WAIT).await,
                other => return other,
            }
        }
    }
}

/// `None` for an event whose entity did not change: it had expired, or it had been folded before.
fn update(schema: &FeatureSchema, event: &Event, states: &States, epoch: Epoch) -> Option<v1::FeatureUpdate> {
    let (kind, id) = published_entity(event)?;
    let values = schema.entity_values(kind, event, states.get(&(kind, id))?);
    Some(v1::FeatureUpdate {
        transaction_id: event.transaction_id.clone(),
        entity: Some(entity_to_wire(kind, id)),
        event_time_ms: event.event_time_ms,
        values: values.into_iter().map(|(name, value)| v1::NamedValue { name: name.to_owned(), value }).collect(),
        feature_schema: schema.fingerprint().to_owned(),
        epoch: epoch.0,
    })
}
