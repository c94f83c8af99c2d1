//! Requests that are sent when they are due, whether or not earlier ones were answered. A latency counts from when its request was due, so a server that stalls
//! is charged for every request that would have come meanwhile, and so is a generator that falls behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::latency::Latencies;
use crate::metronome::Metronome;

/// Every request has its own due time, computed from its number, so that errors do not add up.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub rate_per_s: u32,
}

impl Schedule {
    /// When a request is due, counted from the start.
    pub fn due(self, index: u64) -> Duration {
        let nanoseconds = u128::from(index) * 1_000_000_000 / u128::from(self.rate_per_s);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How many requests are due up to and including a moment: the first one is due at once.
    pub fn due_by(self, elapsed: Duration) -> u64 {
        u64::try_from(elapsed.as_nanos() * u128::from(self.rate_per_s) / 1_000_000_000).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// How many requests are due before `length` has passed.
    pub fn within(self, length: Duration) -> u64 {
        u64::try_from((length.as_nanos() * u128::from(self.rate_per_s)).div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub schedule: Schedule,
    /// Sent and not counted.
    pub warm_up: Duration,
    pub measured: Duration,
    /// With so many unanswered the next request is not sent and counts as abandoned.
    pub in_flight_max: u64,
    /// How long answers are waited for after the last request was sent.
    pub patience: Duration,
}

/// At which moment of a run the caller is told to take its own readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    WarmedUp,
    AllSent,
}

/// What came of the measured requests.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of all requests, failed ones too. What was not answered counts as the patience: it took at least that long, and a server that answers little must not
    /// look fast.
    pub latencies: Latencies,
    /// How long after their due time requests were sent: what the generator itself adds to every latency.
    pub generator_late: Latencies,
    pub answered: u64,
    pub failed: u64,
    /// Not sent, because too many were unanswered, or not answered within the patience.
    pub unanswered: u64,
}

struct Tally {
    latencies: Mutex<Latencies>,
    failed: AtomicU64,
    in_flight: AtomicU64,
}

/// Runs `request` for each number that is due. Must be called on a tokio runtime; the requests are tasks of it.
///
/// # Errors
/// When there is no timer, or `mark` fails.
pub async fn run<Request, Answer>(load: Load, request: Request, mut mark: impl FnMut(Mark) -> Result<()>) -> Result<Outcome>
where
    Request: Fn(u64) -> Answer,
    Answer: Future<Output = Result<()>> + Send + 'static,
{
    let tally = Arc::new(Tally { latencies: Mutex::new(Latencies::new()?), failed: AtomicU64::new(0), in_flight: AtomicU64::new(0) });
    let (warm_up, all) = (load.schedule.within(load.warm_up), load.schedule.within(load.warm_up + load.measured));
    let mut metronome = Metronome::every(load.schedule.due(1))?;
    let (began, mut next, mut late) = (Instant::now(), 0, Latencies::new()?);
    while next < all {
        let due = load.schedule.due_by(began.elapsed()).min(all);
        while next < due {
            if next == warm_up {
                mark(Mark::WarmedUp)?;
            }
            if tally.in_flight.load(Ordering::Relaxed) < load.in_flight_max {
                let (due, counts) = (began + load.schedule.due(next), next >= warm_up);
                tally.start(request(next), due, counts);
                late.record_many(due.elapsed(), u64::from(counts));
            }
            next += 1;
        }
        metronome.tick().await?;
    }
    mark(Mark::AllSent)?;
    let give_up = Instant::now() + load.patience;
    while tally.in_flight.load(Ordering::Relaxed) > 0 && Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(tally.outcome(all - warm_up, load.patience, late))
}

impl Tally {
    fn start(self: &Arc<Self>, answer: impl Future<Output = Result<()>> + Send + 'static, due: Instant, counts: bool) {
        let tally = self.clone();
        tally.in_flight.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let result = answer.await;
            if counts {
                tally.latencies.lock().unwrap_or_else(PoisonError::into_inner).record(due.elapsed());
                tally.failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
            }
            tally.in_flight.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn outcome(&self, measured: u64, patience: Duration, generator_late: Latencies) -> Outcome {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let failed = self.failed.load(Ordering::Relaxed);
        let (answered, unanswered) = (latencies.count().saturating_sub(failed), measured.saturating_sub(latencies.count()));
        latencies.record_many(patience, unanswered);
        Outcome { latencies, generator_late, answered, failed, unanswered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { rate_per_s: 3 };

    #[test]
    fn due_times_do_not_drift_although_a_period_is_no_whole_number() {
        assert_eq!(SCHEDULE.due(0), Duration::ZERO);
        assert_eq!(SCHEDULE.due(1), Duration::from_nanos(333_333_333));
        assert_eq!(SCHEDULE.due(3_000_000), Duration::from_secs(1_000_000));
    }

    #[test]
    fn what_is_due_by_a_moment_are_those_due_before_it_and_at_it() {
        let by = |ms| SCHEDULE.due_by(Duration::from_millis(ms));
        assert_eq!([by(0), by(333), by(334), by(999), by(1_000)], [1, 1, 2, 3, 4]);
        assert_eq!(SCHEDULE.within(Duration::from_secs(1)), 3);
        assert_eq!(SCHEDULE.within(Duration::from_millis(1_001)), 4);
    }

    fn load(rate_per_s: u32, measured_ms: u64, in_flight_max: u64) -> Load {
        let (measured, patience) = (Duration::from_millis(measured_ms), Duration::from_millis(200));
        Load { schedule: Schedule { rate_per_s }, warm_up: Duration::from_millis(20), measured, in_flight_max, patience }
    }

    #[tokio::test]
    async fn a_stall_is_charged_to_every_request_that_was_due_meanwhile() {
        // The server is away from 50 ms to 150 ms after the start: requests due then are answered when it is back.
        let began = Instant::now();
        let request = move |_| async move {
            let away = Duration::from_millis(50)..Duration::from_millis(150);
            if away.contains(&began.elapsed()) {
                tokio::time::sleep_until(began + away.end).await;
            }
            Ok(())
        };
        let outcome = run(load(1_000, 180, 1_000), request, |_| Ok(())).await.unwrap();
        assert_eq!((outcome.answered, outcome.failed, outcome.unanswered), (180, 0, 0));
        // A hundred of 180 requests waited, fifty of them 50 ms and more. A closed loop would have seen a single one.
        assert!(outcome.latencies.quantile_ms(0.75) >= 45.0, "{}", outcome.latencies.quantile_ms(0.75));
        assert_eq!(outcome.generator_late.count(), 180);
    }

    #[tokio::test]
    async fn what_is_never_answered_or_never_sent_is_counted() {
        let outcome = run(load(1_000, 50, 10), |_| std::future::pending(), |_| Ok(())).await.unwrap();
        assert_eq!((outcome.answered, outcome.failed, outcome.unanswered), (0, 0, 50));
        assert!(outcome.latencies.p50_ms() >= 199.0, "{}", outcome.latencies.p50_ms());
        let outcome = run(load(1_000, 50, 10), |_| async { anyhow::bail!("no") }, |_| Ok(())).await.unwrap();
        assert_eq!((outcome.answered, outcome.failed, outcome.unanswered), (0, 50, 0));
    }

    #[tokio::test]
    async fn marks_come_once_each_and_in_order() {
        let mut marks = Vec::new();
        let record = |mark| {
            marks.push(mark);
            Ok(())
        };
        run(load(1_000, 30, 10), |_| async { Ok(()) }, record).await.unwrap();
        assert_eq!(marks, [Mark::WarmedUp, Mark::AllSent]);
    }
}
