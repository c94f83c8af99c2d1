//! Reads the ends of the origin's log at known times. A thread of its own, with a connection of its own: a source that does
//! not answer here is unreachable, whatever the other connection still has in its queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use kafka::{
    Consumer, ConsumerOptions, KafkaMetrics,
    rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError},
};
use replicator_core::{Side, Trouble};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    link::{Clock, Note, Notes},
    trouble,
};

const TIMEOUT: Duration = Duration::from_secs(3);

/// The partitions to measure; the link keeps it up to date.
pub(crate) type Measured = Arc<Mutex<BTreeMap<String, u32>>>;

pub(crate) struct Measure {
    pub(crate) measured: Measured,
    pub(crate) notes: Notes,
    pub(crate) clock: Clock,
    pub(crate) interval: Duration,
    pub(crate) stop: CancellationToken,
    consumer: Consumer,
}

impl Measure {
    pub(crate) fn new(
        config: &Config,
        notes: Notes,
        clock: Clock,
        metrics: &KafkaMetrics,
        stop: CancellationToken,
    ) -> Result<Self, Trouble> {
        let name = format!("fraudpipeline-mirror-{}-ends", config.origin);
        let consumer = ConsumerOptions::new(&name, &name).consumer(&config.source, metrics);
        let consumer = consumer.map_err(|error| trouble::of_config(Side::Source, &error))?;
        Ok(Self { measured: Measured::default(), notes, clock, interval: config.limits.lag_interval, stop, consumer })
    }

    /// Until stopped.
    pub(crate) fn run(self) {
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let partitions = self.measured.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !partitions.is_empty() {
                // Before the question is sent: the answer holds for this time or a later one.
                let at_ms = self.clock.now_ms();
                self.notes.send(match self.ends(&partitions) {
                    Ok(ends) => Note::Ends { at_ms, ends },
                    Err(error) => Note::EndsNotRead(trouble::of_kafka(Side::Source, error)),
                });
            }
            thread::sleep(self.interval.saturating_sub(began.elapsed()));
        }
    }

    /// One question to each broker for all of its partitions. Asking for the time "latest" gives the committed end.
    fn ends(&self, topics: &BTreeMap<String, u32>) -> Result<BTreeMap<(String, i32), i64>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..i32::try_from(*partitions).unwrap_or(0) {
                asked.add_partition_offset(topic, partition, Offset::End)?;
            }
        }
        let answered = self.consumer.offsets_for_times(asked, TIMEOUT)?;
        let mut ends = BTreeMap::new();
        for element in answered.elements() {
            element.error()?;
            if let Offset::Offset(end) = element.offset() {
                ends.insert((element.topic().to_owned(), element.partition()), end);
            }
        }
        Ok(ends)
    }
}
