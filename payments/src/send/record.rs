//! Takes outcomes off the sender's hands on a thread of its own: counts, writes the ledger, prints progress. IO: files, output.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::tally::{Outcome, Progress, Tally};

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

pub struct Recorder {
    pub ledger: Option<Ledger>,
    /// Called once a second.
    pub show: Box<dyn FnMut(&Progress) + Send>,
}

impl Recorder {
    /// Returns the counts when every sender of outcomes is gone.
    pub fn run(mut self, outcomes: &Receiver<Outcome>) -> anyhow::Result<Tally> {
        let began = Instant::now();
        let mut tally = Tally::default();
        let mut shown = began;
        loop {
            match outcomes.recv_timeout((shown + PROGRESS_EVERY).saturating_duration_since(Instant::now())) {
                Ok(outcome) => self.take(&mut tally, &outcome)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if shown.elapsed() >= PROGRESS_EVERY {
                (self.show)(&tally.progress(began.elapsed(), shown.elapsed()));
                shown = Instant::now();
            }
        }
        if let Some(ledger) = self.ledger {
            ledger.finish()?;
        }
        Ok(tally)
    }

    fn take(&mut self, tally: &mut Tally, outcome: &Outcome) -> anyhow::Result<()> {
        tally.record(outcome);
        if let (Some(ledger), Some(entry)) = (&mut self.ledger, outcome.acknowledged()) {
            ledger.append(&entry)?;
        }
        Ok(())
    }
}
