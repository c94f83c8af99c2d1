//! Heartbeats as they are written into the logs, and the task that writes them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{RegionName, headers::HEARTBEAT};
use kafka::{
    AckProducer, Admin,
    headers::RecordHeaders,
    rdkafka::message::{Header, OwnedHeaders},
};
use process::plan::PlanWatch;
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::heartbeat::Heartbeat;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, watermarks::Watermarks};

/// The version of the heartbeat's meaning, in its header.
const VERSION: &str = "1";
/// How often it is looked whether the log has more partitions.
const PARTITIONS_KNOWN_FOR: Duration = Duration::from_secs(30);
/// So often as long as the log does not exist.
const PARTITIONS_RETRY: Duration = Duration::from_secs(2);
const ECHOES_MAX: usize = 64;

/// A value that is no heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable;

pub(crate) fn to_bytes(heartbeat: &Heartbeat) -> Vec<u8> {
    let echoes = heartbeat.echoes.iter().map(|(region, counter)| (region.to_string(), *counter));
    v1::Heartbeat { counter: heartbeat.counter, clock_ms: heartbeat.clock_ms, echoes: echoes.collect() }.encode_to_vec()
}

pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Heartbeat, Unreadable> {
    let wire = v1::Heartbeat::decode(bytes).map_err(|_| Unreadable)?;
    if wire.echoes.len() > ECHOES_MAX {
        return Err(Unreadable);
    }
    let echo = |(region, counter): (String, u64)| RegionName::new(&region).map(|region| (region, counter)).map_err(|_| Unreadable);
    let echoes = wire.echoes.into_iter().map(echo).collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(Heartbeat { counter: wire.counter, clock_ms: wire.clock_ms, echoes })
}

/// Writes this region's heartbeats, whatever its role is: also a region that only follows says how far its log goes.
pub(crate) struct Heart {
    pub(crate) producer: AckProducer,
    pub(crate) admin: Admin,
    pub(crate) topic: String,
    pub(crate) region: RegionName,
    pub(crate) plan: PlanWatch,
    pub(crate) interval: Duration,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) metrics: Metrics,
}

impl Heart {
    pub(crate) async fn beat_until(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        // After a pause there is nothing to catch up with.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut partitions, mut look_at) = (0, Instant::now());
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if Instant::now() >= look_at {
                partitions = self.partitions().await.unwrap_or(partitions);
                look_at = Instant::now() + if partitions > 0 { PARTITIONS_KNOWN_FOR } else { PARTITIONS_RETRY };
            }
            self.beat(partitions);
        }
    }

    async fn partitions(&self) -> Option<i32> {
        match self.admin.partition_counts().await {
            Ok(counts) => Some(counts.get(&self.topic).and_then(|count| i32::try_from(*count).ok()).unwrap_or(0)),
            Err(error) => {
                tracing::warn!(%error, "partitions of the own log are not known: heartbeats go to those known before");
                None
            }
        }
    }

    /// One record a partition. Nobody waits for it: what is not written is missed by those who would have read it.
    fn beat(&self, partitions: i32) {
        if partitions == 0 {
            return;
        }
        let payload = to_bytes(&self.watermarks.beat());
        let headers = heartbeat_headers(&RecordHeaders { epoch: self.plan.current().epoch, origin: self.region.clone() });
        for partition in 0..partitions {
            let queued = self.producer.produce_to(&self.topic, partition, &payload, headers.clone());
            self.metrics.heartbeat(queued.is_ok());
        }
    }
}

fn heartbeat_headers(record: &RecordHeaders) -> OwnedHeaders {
    record.to_kafka().insert(Header { key: HEARTBEAT, value: Some(VERSION) })
}

#[cfg(test)]
mod tests {
    use domain::Epoch;

    use super::*;

    #[test]
    fn a_heartbeat_reads_back_and_is_marked_as_none_of_the_events() {
        let echoes = BTreeMap::from([(RegionName::new("eu-west").unwrap(), 7)]);
        let heartbeat = Heartbeat { counter: 1_700_000_000_000, clock_ms: 5, echoes };
        assert_eq!(from_bytes(&to_bytes(&heartbeat)), Ok(heartbeat));
        let headers = heartbeat_headers(&RecordHeaders { epoch: Epoch(1), origin: RegionName::new("us-east").unwrap() });
        assert!(kafka::headers::is_heartbeat(Some(&headers)));
    }

    #[test]
    fn damage_is_no_heartbeat() {
        assert_eq!(from_bytes(&[0xff; 9]), Err(Unreadable));
        let named = v1::Heartbeat { counter: 1, clock_ms: 1, echoes: [("EU WEST".to_owned(), 1)].into() };
        assert_eq!(from_bytes(&named.encode_to_vec()), Err(Unreadable));
        let many = (0..65).map(|n| (format!("r{n}"), 1)).collect();
        assert_eq!(from_bytes(&v1::Heartbeat { counter: 1, clock_ms: 1, echoes: many }.encode_to_vec()), Err(Unreadable));
    }
}
