//! One connection's worth of mirroring, on a thread of its own: connect, read positions, then poll, decide, carry out.
//! Ends with the trouble that ended it; the supervisor makes the next one.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use domain::headers::Source as RecordSource;
use kafka::{
    Admin, KafkaMetrics, headers,
    rdkafka::{Message, error::KafkaError, message::BorrowedMessage, types::RDKafkaErrorCode},
};
use process::plan::PlanWatch;
use replicator_core::{Effect, Event, LinkState, Mirror, Position, PositionKey, Settings, Side, Trouble};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    measure::{Measure, Measured},
    metrics::Metrics,
    positions,
    sink::{Sink, WriteError},
    source::Source,
    topics, trouble,
    view::{self, Shown, View},
};

/// Most time that the loop waits for a record: notes and the shutdown are looked at this often.
const POLL_MAX: Duration = Duration::from_millis(50);
/// How often the view is made anew.
const SHOW: Duration = Duration::from_secs(1);
/// News that wait for the loop. Each kind comes once a second at most, so more means that the loop hangs in a commit.
const NOTES_MAX: usize = 64;

/// Milliseconds since the process started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the tasks beside the loop tell it.
pub(crate) enum Note {
    /// Topics in order on both sides, and what is wrong with others.
    Topics(BTreeMap<String, u32>, Option<Trouble>),
    TopicsNotCompared(Trouble),
    Ends {
        at_ms: u64,
        ends: BTreeMap<(String, i32), i64>,
    },
    EndsNotRead(Trouble),
}

#[derive(Clone)]
pub(crate) struct Notes(mpsc::SyncSender<Note>);

impl Notes {
    /// Never waits. A note that finds no room is dropped: the next round sends a newer one.
    pub(crate) fn send(&self, note: Note) {
        if self.0.try_send(note).is_err() {
            tracing::debug!("note dropped");
        }
    }
}

/// What all connections of a process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) plan: PlanWatch,
    pub(crate) clock: Clock,
    pub(crate) shown: Shown,
    pub(crate) metrics: Metrics,
    pub(crate) kafka: KafkaMetrics,
    pub(crate) runtime: Handle,
    pub(crate) stop: CancellationToken,
}

/// Connects and mirrors until the process stops or something ends the connection. Blocks.
pub(crate) fn run(shared: &Shared) -> Result<(), Trouble> {
    let beside = shared.stop.child_token();
    let result = Link::connect(shared, &beside).and_then(|mut link| link.mirror_until_stopped());
    // What runs beside the loop ends with it.
    beside.cancel();
    result
}

struct Link {
    shared: Shared,
    source: Arc<Source>,
    sink: Sink,
    mirror: Mirror,
    /// What earlier connections of this process counted.
    came_home_before: u64,
    settings: Settings,
    /// Names here by names at the origin.
    mirrored: BTreeMap<String, String>,
    measured: Measured,
    notes: mpsc::Receiver<Note>,
    /// With reading the origin, until its ends can be read again.
    source_trouble: Option<Trouble>,
    /// With keeping topics like the origin's, until a comparison succeeds.
    topics_trouble: Option<Trouble>,
    /// Records and bytes of the open transaction, by topic.
    written: BTreeMap<String, (u64, u64)>,
    effects: Vec<Effect>,
}

impl Link {
    /// The target comes first: that ends the transaction of a dead predecessor even while the origin is away.
    fn connect(shared: &Shared, beside: &CancellationToken) -> Result<Self, Trouble> {
        let config = &shared.config;
        let admin = |cluster, side, name: &str| Admin::new(cluster, name, &shared.kafka).map_err(|error| trouble::of_config(side, &error));
        let target = admin(&config.target, Side::Target, "fraudpipeline-mirror-target")?;
        let target_cluster = shared.runtime.block_on(target.cluster_id()).map_err(|error| trouble::of_admin(Side::Target, error))?;
        shared.runtime.block_on(topics::ensure_positions(config, &target))?;
        let sink = Sink::connect(config, &shared.kafka)?;

        let origin = admin(&config.source, Side::Source, "fraudpipeline-mirror-source")?;
        let source_cluster = shared.runtime.block_on(origin.cluster_id()).map_err(|error| trouble::of_admin(Side::Source, error))?;
        let positions = positions::read(config, &source_cluster, &shared.kafka)?;
        let epoch = shared.plan.current().epoch;
        positions.admit(epoch).map_err(Trouble::OlderPlan)?;
        tracing::info!(source_cluster, target_cluster, positions = positions.len(), epoch = epoch.0, "mirror connected");

        let settings = settings(config, source_cluster, target_cluster);
        let (sender, notes) = mpsc::sync_channel(NOTES_MAX);
        let notes_in = Notes(sender);
        let measure = Measure::new(config, notes_in.clone(), shared.clock, &shared.kafka, beside.clone())?;
        let measured = measure.measured.clone();
        thread::Builder::new().name("mirror-measure".into()).spawn(move || measure.run()).map_err(no_thread)?;
        let (config, stop) = (config.clone(), beside.clone());
        shared.runtime.spawn(async move { topics::keep_in_step(&config, &origin, &target, &notes_in, &stop).await });

        Ok(Self {
            source: Arc::new(Source::connect(&shared.config, &shared.kafka)?),
            shared: shared.clone(),
            sink,
            mirror: Mirror::new(settings.clone(), positions, epoch),
            came_home_before: shared.shown.get().came_home_records,
            settings,
            mirrored: BTreeMap::new(),
            measured,
            notes,
            source_trouble: None,
            topics_trouble: None,
            written: BTreeMap::new(),
            effects: Vec::new(),
        })
    }

    fn mirror_until_stopped(&mut self) -> Result<(), Trouble> {
        let mut show_at = Instant::now() + SHOW;
        while !self.shared.stop.is_cancelled() {
            self.take_notes()?;
            self.poll()?;
            self.feed(&Event::Tick { now_ms: self.shared.clock.now_ms() }, None)?;
            if Instant::now() >= show_at {
                self.mirror.set_epoch(self.shared.plan.current().epoch);
                self.show();
                show_at = Instant::now() + SHOW;
            }
        }
        self.feed(&Event::Stop, None)
    }

    fn poll(&mut self) -> Result<(), Trouble> {
        let now_ms = self.shared.clock.now_ms();
        let due = self.mirror.due_ms().map_or(POLL_MAX, |due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
        // A handle of its own, so that the record may borrow from it while the link is changed.
        let source = self.source.clone();
        match source.poll(due.min(POLL_MAX)) {
            None => Ok(()),
            Some(Ok(record)) => self.record(&record),
            Some(Err(error)) => self.source_error(error),
        }
    }

    fn take_notes(&mut self) -> Result<(), Trouble> {
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Topics(topics, trouble) => {
                    self.topics(&topics)?;
                    self.topics_trouble = trouble;
                }
                Note::TopicsNotCompared(trouble) => self.topics_trouble = Some(trouble),
                Note::Ends { at_ms, ends } => {
                    self.feed(&Event::Ends { at_ms, ends: &ends }, None)?;
                    self.source_trouble = None;
                }
                Note::EndsNotRead(trouble) => self.source_trouble = Some(trouble),
            }
        }
        Ok(())
    }

    /// A topic that is missing in a later comparison is still mirrored: nothing is taken away here.
    fn topics(&mut self, topics: &BTreeMap<String, u32>) -> Result<(), Trouble> {
        let mirrored = topics.keys().map(|topic| (topic.clone(), self.shared.config.mirrored(topic)));
        self.mirrored.extend(mirrored);
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).extend(topics.clone());
        self.feed(&Event::Topics(topics), None)
    }

    fn record(&mut self, record: &BorrowedMessage<'_>) -> Result<(), Trouble> {
        // A header that cannot be read is copied as it is; it says nothing about where the record comes from.
        let seen = headers::read(record.headers()).unwrap_or_default();
        let event = Event::Record {
            topic: record.topic(),
            partition: record.partition(),
            offset: record.offset(),
            bytes: size(record),
            source: seen.source.as_ref(),
            now_ms: self.shared.clock.now_ms(),
        };
        self.feed(&event, Some(record))
    }

    /// Errors of the client come and go; it goes on by itself. Only a missing offset needs an answer.
    fn source_error(&mut self, error: KafkaError) -> Result<(), Trouble> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => self.find_missing_offset(),
            _ => {
                self.source_trouble = Some(trouble::of_kafka(Side::Source, error));
                Ok(())
            }
        }
    }

    /// The client does not say of which partition an offset is missing, so all are looked at.
    fn find_missing_offset(&mut self) -> Result<(), Trouble> {
        for (topic, partition) in self.source.reading() {
            let (first, end) = self.source.bounds(&topic, partition)?;
            self.feed(&Event::OffsetMissing { topic: &topic, partition, first, end }, None)?;
        }
        Ok(())
    }

    /// One step, and everything that follows from it.
    fn feed(&mut self, event: &Event<'_>, record: Option<&BorrowedMessage<'_>>) -> Result<(), Trouble> {
        let mut effects = std::mem::take(&mut self.effects);
        self.mirror.step(event, &mut effects);
        let done = effects.drain(..).try_for_each(|effect| self.carry_out(effect, record));
        // Kept for its memory: this is once per record.
        self.effects = effects;
        done
    }

    fn carry_out(&mut self, effect: Effect, record: Option<&BorrowedMessage<'_>>) -> Result<(), Trouble> {
        match effect {
            Effect::FindStart { topic, partition } => {
                let (offset, _) = self.source.bounds(&topic, partition)?;
                self.feed(&Event::Start { topic: &topic, partition, offset }, None)
            }
            Effect::Read { topic, partition, from } => {
                tracing::info!(topic, partition, from, "reading");
                self.source.read(&topic, partition, from)
            }
            Effect::StopReading { topic, partition, why } => {
                tracing::error!(topic, partition, %why, "partition stopped");
                self.source.stop_reading(&topic, partition)
            }
            Effect::BeginTransaction => {
                self.written.clear();
                self.sink.begin()
            }
            Effect::Write => record.map_or(Ok(()), |record| self.write(record)),
            Effect::Commit(positions) => self.commit(&positions),
        }
    }

    fn write(&mut self, record: &BorrowedMessage<'_>) -> Result<(), Trouble> {
        let Some(mirrored) = self.mirrored.get(record.topic()) else {
            // Passing over it would lose the record: its position moves with the transaction.
            return Err(Trouble::Refused {
                side: Side::Source,
                why: format!("a record of topic {}, which was not asked for", record.topic()),
            });
        };
        let source = RecordSource {
            cluster_id: self.settings.source_cluster.clone(),
            topic_id: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
        };
        match self.sink.write(record, mirrored, &source) {
            Ok(()) => {
                self.count(record);
                Ok(())
            }
            Err(WriteError::Refused(why)) => {
                self.feed(&Event::RecordRefused { topic: record.topic(), partition: record.partition(), why: &why }, None)
            }
            Err(WriteError::Trouble(trouble)) => Err(trouble),
        }
    }

    fn count(&mut self, record: &BorrowedMessage<'_>) {
        if let Some((records, bytes)) = self.written.get_mut(record.topic()) {
            *records += 1;
            *bytes += size(record);
        } else {
            self.written.insert(record.topic().to_owned(), (1, size(record)));
        }
    }

    fn commit(&mut self, positions: &[(PositionKey, Position)]) -> Result<(), Trouble> {
        let began = Instant::now();
        self.sink.commit(positions)?;
        self.shared.metrics.committed(began.elapsed());
        for (topic, (records, bytes)) in &self.written {
            self.shared.metrics.mirrored(topic, *records, *bytes);
        }
        self.feed(&Event::Committed, None)
    }

    fn show(&self) {
        let config = &self.shared.config;
        // A measurement that failed three times is none.
        let fresh_ms = millis(config.limits.lag_interval * 3) + 2_000;
        let partitions = view::partitions(&self.mirror, self.shared.clock.now_ms(), fresh_ms);
        let trouble = self.source_trouble.as_ref().or(self.topics_trouble.as_ref());
        let (state, why) = view::judge(&partitions, trouble, millis(config.lag_objective));
        let view = View {
            origin: config.origin.clone(),
            region: config.region.clone(),
            state,
            why,
            epoch: self.shared.plan.current().epoch,
            source_cluster: Some(self.settings.source_cluster.clone()),
            target_cluster: Some(self.settings.target_cluster.clone()),
            came_home_records: self.came_home_before + self.mirror.came_home(),
            partitions,
        };
        report(&self.shared.shown.get(), &view);
        self.shared.metrics.show(&view);
        self.shared.shown.set(view);
    }
}

fn settings(config: &Config, source_cluster: String, target_cluster: String) -> Settings {
    Settings {
        source_cluster,
        target_cluster,
        transaction_interval_ms: millis(config.limits.transaction_interval),
        transaction_records_max: u64::from(config.limits.transaction_records_max),
        transaction_bytes_max: u64::from(config.limits.transaction_kib_max) * 1024,
    }
}

/// A log line for each change of state, and none in between.
fn report(before: &View, now: &View) {
    if before.state == now.state {
        return;
    }
    match now.state {
        LinkState::Mirroring => tracing::info!(state = %now.state, "mirror"),
        _ => tracing::warn!(state = %now.state, why = now.why, "mirror"),
    }
}

fn size(record: &BorrowedMessage<'_>) -> u64 {
    (record.key_len() + record.payload_len()) as u64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn no_thread(error: std::io::Error) -> Trouble {
    Trouble::Refused { side: Side::Source, why: format!("no thread for measuring: {error}") }
}
