//! A mirror between two logs in memory that crashes at any point, starts again, and must neither lose nor double a record.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use domain::Epoch;
use proptest::prelude::*;
use replicator_core::{Effect, Event, Mirror, Position, PositionKey, Positions, Settings};

const TOPIC: &str = "t";

/// The origin: the offsets that hold a record, by partition. Offsets have holes.
type Source = Vec<Vec<i64>>;

/// The target: what committed transactions wrote, and the positions topic.
#[derive(Default)]
struct Target {
    logs: BTreeMap<i32, Vec<i64>>,
    positions: Vec<(PositionKey, Position)>,
}

/// One life of a mirror process.
struct Life<'a> {
    mirror: Mirror,
    source: &'a Source,
    target: &'a mut Target,
    /// Where each partition is read next, as a consumer would hold it.
    reading: BTreeMap<i32, i64>,
    open: Vec<(i32, i64)>,
    /// Steps until the process is killed.
    left: u32,
}

/// The process was killed.
struct Killed;

impl Life<'_> {
    fn tick(&mut self) -> Result<(), Killed> {
        self.left = self.left.checked_sub(1).ok_or(Killed)?;
        Ok(())
    }

    fn feed(&mut self, event: &Event<'_>) -> Result<(), Killed> {
        let mut effects = Vec::new();
        self.mirror.step(event, &mut effects);
        for effect in effects {
            self.tick()?;
            self.carry_out(effect, event)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect, event: &Event<'_>) -> Result<(), Killed> {
        match effect {
            Effect::FindStart { topic, partition } => {
                let offset = self.source[usize::try_from(partition).unwrap()].first().copied().unwrap_or(0);
                self.feed(&Event::Start { topic: &topic, partition, offset })?;
            }
            Effect::Read { partition, from, .. } => {
                self.reading.insert(partition, from);
            }
            Effect::StopReading { why, .. } => panic!("nothing is missing, and yet: {why}"),
            Effect::BeginTransaction => assert!(self.open.is_empty()),
            Effect::Write => {
                if let Event::Record { partition, offset, .. } = event {
                    self.open.push((*partition, *offset));
                }
            }
            Effect::Commit(positions) => {
                // All or nothing: the one thing that transactions give.
                for (partition, offset) in self.open.drain(..) {
                    self.target.logs.entry(partition).or_default().push(offset);
                }
                self.target.positions.extend(positions);
                // Killed here, the mirror never learns that its transaction was committed.
                self.tick()?;
                self.feed(&Event::Committed)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, order: &[usize]) -> Result<(), Killed> {
        let topics = BTreeMap::from([(TOPIC.to_owned(), u32::try_from(self.source.len()).unwrap())]);
        self.feed(&Event::Topics(&topics))?;
        let mut now_ms = 0;
        for choice in order.iter().cycle() {
            now_ms += 7;
            let waiting: Vec<i32> =
                self.reading.iter().filter(|(partition, from)| self.next(**partition, **from).is_some()).map(|(p, _)| *p).collect();
            if waiting.is_empty() {
                return self.feed(&Event::Stop);
            }
            let partition = waiting[choice % waiting.len()];
            let offset = self.next(partition, self.reading[&partition]).unwrap();
            self.reading.insert(partition, offset + 1);
            self.feed(&Event::Record { topic: TOPIC, partition, offset, bytes: 10, source: None, now_ms })?;
            self.feed(&Event::Tick { now_ms })?;
        }
        Ok(())
    }

    fn next(&self, partition: i32, from: i64) -> Option<i64> {
        self.source[usize::try_from(partition).unwrap()].iter().copied().find(|offset| *offset >= from)
    }
}

fn settings() -> Settings {
    Settings {
        source_cluster: "us".into(),
        target_cluster: "eu".into(),
        transaction_interval_ms: 30,
        transaction_records_max: 5,
        transaction_bytes_max: 1_000,
    }
}

proptest! {
    #[test]
    fn whatever_is_killed_whenever_nothing_is_lost_doubled_or_reordered(
        gaps in proptest::collection::vec(proptest::collection::vec(1_i64..4, 0..40), 1..4),
        lives in proptest::collection::vec(0_u32..60, 0..12),
        order in proptest::collection::vec(0_usize..100, 1..30),
    ) {
        let source: Source = gaps.iter().map(|gaps| gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect()).collect();
        let mut target = Target::default();
        for left in lives.into_iter().chain([u32::MAX]) {
            let mut positions = Positions::default();
            for (key, position) in &target.positions {
                positions.insert(key.clone(), *position);
            }
            let mirror = Mirror::new(settings(), positions, Epoch(1));
            let mut life = Life { mirror, source: &source, target: &mut target, reading: BTreeMap::new(), open: Vec::new(), left };
            // Killed or finished: the next life reads what is stored.
            let _ = life.run(&order);
        }
        for (partition, expected) in (0_i32..).zip(&source) {
            prop_assert_eq!(target.logs.get(&partition).cloned().unwrap_or_default(), expected.clone());
        }
    }
}
