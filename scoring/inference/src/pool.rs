//! Threads that run the model, and the bounded queue in front of them. An item whose deadline has passed, or whose caller
//! has gone, is not run. Closing the queue lets the threads finish what is queued.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::{infer::InferError, metrics::Metrics, models::LoadedModel};

/// Rows to be scored by the model that they were checked against.
pub(crate) struct Job {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) rows: Vec<f32>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Result<Vec<f32>, InferError>>,
}

struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    jobs_max: usize,
}

pub(crate) struct Pool {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    metrics: Metrics,
}

impl Pool {
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn start(threads: usize, jobs_max: usize, metrics: &Metrics) -> std::io::Result<Self> {
        let waiting = Mutex::new(Waiting { jobs: VecDeque::new(), closed: false });
        let queue = Arc::new(Queue { waiting, filled: Condvar::new(), jobs_max });
        let worker = |number: usize| {
            let (queue, metrics) = (queue.clone(), metrics.clone());
            thread::Builder::new().name(format!("onnx-{number}")).spawn(move || {
                while let Some(job) = queue.next(&metrics) {
                    run(number, job, &metrics);
                }
            })
        };
        let threads = (0..threads).map(worker).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { queue, threads: Mutex::new(threads), metrics: metrics.clone() })
    }

    /// Queues a job, or refuses it at once.
    pub(crate) fn submit(&self, job: Job) -> Result<(), InferError> {
        let mut waiting = locked(&self.queue.waiting);
        if waiting.closed {
            return Err(InferError::ShuttingDown);
        }
        if waiting.jobs.len() >= self.queue.jobs_max {
            return Err(InferError::Overloaded { jobs_max: self.queue.jobs_max });
        }
        waiting.jobs.push_back(job);
        self.metrics.queued.inc();
        drop(waiting);
        self.queue.filled.notify_one();
        Ok(())
    }

    /// Takes no more jobs, and waits until the queued ones are done. Blocks.
    pub(crate) fn close(&self) {
        locked(&self.queue.waiting).closed = true;
        self.queue.filled.notify_all();
        for thread in locked(&self.threads).drain(..) {
            // A panic of a worker was its own; there is nothing left to do for it.
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    /// Waits for a job; none when the queue is closed and empty.
    fn next(&self, metrics: &Metrics) -> Option<Job> {
        let mut waiting = locked(&self.waiting);
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                metrics.queued.dec();
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run(thread: usize, job: Job, metrics: &Metrics) {
    if job.reply.is_closed() {
        return;
    }
    let started = Instant::now();
    let answer = if job.deadline.is_some_and(|deadline| started >= deadline) {
        Err(InferError::DeadlineExceeded)
    } else {
        let scores = job.model.score(thread, &job.rows).map_err(InferError::Engine);
        metrics.ran(started.elapsed());
        scores
    };
    // The caller may have gone in the meantime.
    let _ = job.reply.send(answer);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use prometheus_client::registry::Registry;
    use scoring_model::{Manifest, ModelKind};

    use super::*;

    /// It has no session, so that running it is an engine failure: proof that it was run.
    fn model() -> Arc<LoadedModel> {
        let manifest = Manifest {
            format: 1,
            name: "m".into(),
            version: "1".into(),
            kind: ModelKind::Full,
            schema_fingerprint: String::new(),
            features: vec!["a".into()],
            masked_groups: vec![],
            golden: vec![],
            metrics: BTreeMap::new(),
            training: BTreeMap::new(),
        };
        Arc::new(LoadedModel::without_sessions(manifest))
    }

    type Answer = oneshot::Receiver<Result<Vec<f32>, InferError>>;

    fn job(deadline: Option<Instant>) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        (Job { model: model(), rows: vec![0.0], deadline, reply }, answer)
    }

    fn pool(threads: usize, jobs_max: usize) -> Pool {
        Pool::start(threads, jobs_max, &Metrics::register(&mut Registry::default())).unwrap()
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_a_closed_one_for_good() {
        let pool = pool(0, 2);
        let waiting = [job(None), job(None)].map(|(job, answer)| (pool.submit(job).unwrap(), answer));
        assert_eq!(pool.submit(job(None).0), Err(InferError::Overloaded { jobs_max: 2 }));
        pool.close();
        assert_eq!(pool.submit(job(None).0), Err(InferError::ShuttingDown));
        drop(waiting);
    }

    #[test]
    fn closing_finishes_what_is_queued() {
        let pool = pool(2, 100);
        let answers: Vec<Answer> = (0..100)
            .map(|_| {
                let (job, answer) = job(None);
                pool.submit(job).unwrap();
                answer
            })
            .collect();
        pool.close();
        for mut answer in answers {
            assert!(matches!(answer.try_recv(), Ok(Err(InferError::Engine(_)))));
        }
    }

    #[test]
    fn an_item_whose_deadline_has_passed_is_not_run() {
        let pool = pool(1, 10);
        let (late, mut late_answer) = job(Some(Instant::now() - Duration::from_millis(1)));
        let (early, mut early_answer) = job(Some(Instant::now() + Duration::from_secs(60)));
        pool.submit(late).unwrap();
        pool.submit(early).unwrap();
        pool.close();
        assert_eq!(late_answer.try_recv().unwrap(), Err(InferError::DeadlineExceeded));
        assert!(matches!(early_answer.try_recv().unwrap(), Err(InferError::Engine(_))));
    }
}
