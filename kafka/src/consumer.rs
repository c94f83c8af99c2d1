//! Consumers that read committed records only, and never skip silently: what happens when an offset is gone is chosen.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::{
    admin::AdminError,
    client::{Context, KafkaMetrics},
    config::{ConfigError, KafkaConfig},
};

/// Polled by hand from a thread of its own.
pub type Consumer = BaseConsumer<Context>;
/// Awaited from an async task.
pub type StreamConsumer = rdkafka::consumer::StreamConsumer<Context>;

/// What a consumer does when the offset that it wants is not in the log (retention overtook it, or the topic was made anew).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingOffset {
    /// Report `AutoOffsetReset` and read no further.
    Error,
    Earliest,
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Records of open and aborted transactions are not seen; ends are last stable offsets.
    ReadCommitted,
    ReadUncommitted,
}

/// When a broker answers a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// As soon as there is a record, or after 100 ms without one.
    AtOnce,
    /// With 64 KiB, or after 50 ms. For readers that follow a whole log: with a trickle of records, answering each fetch at once
    /// costs the broker more than everything else that it does.
    Batched,
}

/// How a consumer is made. Offsets are never committed by the client itself.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    pub client_id: String,
    /// Needed by the protocol. With partitions assigned by hand it only names the client.
    pub group_id: String,
    pub isolation: Isolation,
    pub on_missing_offset: MissingOffset,
    /// Bound of fetched and not yet handled records, for each partition.
    pub queued_kib_max: u32,
    pub fetch: Fetch,
}

impl ConsumerOptions {
    /// Read committed, stop at a missing offset, at most 1 MiB queued per partition, each record at once.
    pub fn new(client_id: &str, group_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            group_id: group_id.to_owned(),
            isolation: Isolation::ReadCommitted,
            on_missing_offset: MissingOffset::Error,
            queued_kib_max: 1024,
            fetch: Fetch::AtOnce,
        }
    }

    /// # Errors
    /// When the configuration cannot be used.
    pub fn consumer(&self, config: &KafkaConfig, metrics: &KafkaMetrics) -> Result<Consumer, ConfigError> {
        Ok(self.client_config(config)?.create_with_context(Context::new(&self.client_id, metrics))?)
    }

    /// # Errors
    /// When the configuration cannot be used.
    pub fn stream(&self, config: &KafkaConfig, metrics: &KafkaMetrics) -> Result<StreamConsumer, ConfigError> {
        Ok(self.client_config(config)?.create_with_context(Context::new(&self.client_id, metrics))?)
    }

    /// For a consumer with a context or settings of its own.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn client_config(&self, config: &KafkaConfig) -> Result<rdkafka::ClientConfig, ConfigError> {
        let isolation = match self.isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        let reset = match self.on_missing_offset {
            MissingOffset::Error => "error",
            MissingOffset::Earliest => "earliest",
            MissingOffset::Latest => "latest",
        };
        let (fetch_min_bytes, fetch_wait_max_ms) = match self.fetch {
            Fetch::AtOnce => ("1", "100"),
            Fetch::Batched => ("65536", "50"),
        };
        let mut client = config.client_config(&self.client_id)?;
        client
            .set("group.id", &self.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false")
            .set("isolation.level", isolation)
            .set("auto.offset.reset", reset)
            .set("queued.max.messages.kbytes", self.queued_kib_max.to_string())
            .set("fetch.min.bytes", fetch_min_bytes)
            .set("fetch.wait.max.ms", fetch_wait_max_ms)
            .set("fetch.error.backoff.ms", "100");
        Ok(client)
    }
}

/// The committed end (the next offset to be written) of each partition of `topics`. Missing topics are left out.
///
/// # Errors
/// When the cluster cannot be asked within `timeout` per question.
pub async fn end_offsets(config: &KafkaConfig, topics: &[String], timeout: Duration) -> Result<BTreeMap<(String, i32), i64>, AdminError> {
    let options = ConsumerOptions::new("fraudpipeline-ends", "fraudpipeline-ends");
    let consumer = options.consumer(config, &KafkaMetrics::default())?;
    let topics = topics.to_vec();
    let ends = tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(None, timeout)?;
        let mut ends = BTreeMap::new();
        for topic in metadata.topics().iter().filter(|topic| topics.iter().any(|name| name == topic.name())) {
            for partition in topic.partitions() {
                let (_, end) = consumer.fetch_watermarks(topic.name(), partition.id(), timeout)?;
                ends.insert((topic.name().to_owned(), partition.id()), end);
            }
        }
        Ok::<_, AdminError>(ends)
    });
    ends.await.map_err(|_| AdminError::Interrupted)?
}
