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
    Topics(BTreeMap<String, u32>),
    Ends { at_ms: u64, ends: BTreeMap<(String, i32), i64> },
    Trouble(Trouble),
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
    source: Source,
    sink: Sink,
    mirror: Mirror,
    settings: Settings,
    /// Names here by names at the origin.
    mirrored: BTreeMap<String, String>,
    measured: Measured,
    notes: mpsc::Receiver<Note>,
    trouble: Option<Trouble>,
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
            source: Source::connect(&shared.config, &shared.kafka)?,
            shared: shared.clone(),
            sink,
            mirror: Mirror::new(settings.clone(), positions, epoch),
            settings,
            mirrored: BTreeMap::new(),
            measured,
            notes,
            trouble: None,
            written: BTreeMap::new(),
            effects: Vec::new(),
        })
    }

    fn mirror_until_stopped(&mut self) -> Result<(), Trouble> {
        let mut show_at = Instant::now();
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
        // The source is taken out for the time of the call, so that the record may borrow it while the rest of the link works.
        match self.source.poll(due.min(POLL_MAX)) {
            None => Ok(()),
            Some(Ok(record)) => {
                let record = record.detach();
                self.record(&record)
            }
            Some(Err(error)) => self.source_error(error),
        }
    }

    fn take_notes(&mut self) -> Result<(), Trouble> {
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Topics(topics) => {
                    self.mirrored = topics.keys().map(|topic| (topic.clone(), self.shared.config.mirrored(topic))).collect();
                    self.feed(&Event::Topics(&topics), None)?;
                    *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = topics;
                    self.trouble = None;
                }
                Note::Ends { at_ms, ends } => {
                    self.feed(&Event::Ends { at_ms, ends: &ends }, None)?;
                    self.trouble = None;
                }
                Note::Trouble(trouble) => self.trouble = Some(trouble),
            }
        }
        Ok(())
    }
}
