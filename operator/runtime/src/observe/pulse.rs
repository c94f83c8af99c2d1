//! Notices within a second that a shard's process has ended, fallen silent or come back, and asks for a pass. And gives each
//! process that it connects to the users that the Secret says, so that a changed password needs no restart.
//!
//! Between passes each process is sent a PING over a connection that is kept. No role is decided here, and nothing is
//! written to the API server: what the processes have become, the pass finds out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::HostPort;
use feature_shards::{RedisUsers, ShardClient, ShardError, Visit};
use futures::channel::mpsc;
use tokio::task::JoinSet;

use crate::kinds::Owner;

const EVERY: Duration = Duration::from_millis(300);
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// So many answers in a row must be missing before a process counts as silent.
const MISSED_MAX: u32 = 3;

/// The processes that are looked at, by pipeline. Looking at a pipeline's ends when it is forgotten, or with this value.
pub(crate) struct Pulse {
    changed: mpsc::Sender<()>,
    watched: Mutex<BTreeMap<(String, String), Watched>>,
}

/// As whom a process is visited, and which users it should have.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) client: ShardClient,
    pub(super) users: RedisUsers,
}

struct Watched {
    guest: Guest,
    addresses: Vec<HostPort>,
    /// Ends with this value.
    _beats: JoinSet<()>,
}

impl Pulse {
    /// `changed` is told when something about a process has changed.
    pub(crate) fn new(changed: mpsc::Sender<()>) -> Self {
        Self { changed, watched: Mutex::default() }
    }

    /// Looks at exactly these processes of a pipeline from now on. Changed credentials mean new connections.
    pub(super) fn watch(&self, owner: &Owner, guest: Guest, addresses: Vec<HostPort>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (owner.namespace.clone(), owner.name.clone());
        if watched.get(&key).is_some_and(|now| now.guest == guest && now.addresses == addresses) {
            return;
        }
        let mut beats = JoinSet::new();
        for address in &addresses {
            beats.spawn(follow(guest.clone(), address.clone(), self.changed.clone()));
        }
        watched.insert(key, Watched { guest, addresses, _beats: beats });
    }

    pub(crate) fn forget(&self, owner: &Owner) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&(owner.namespace.clone(), owner.name.clone()));
    }
}

async fn follow(guest: Guest, address: HostPort, mut changed: mpsc::Sender<()>) {
    let mut visit = None;
    let mut state = State::default();
    loop {
        if state.note(beat(&guest, &address, &mut visit).await) {
            // Full: a pass is coming already.
            drop(changed.try_send(()));
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn beat(guest: &Guest, address: &HostPort, visit: &mut Option<Visit>) -> Beat {
    let had_visit = visit.is_some();
    match tokio::time::timeout(ANSWER_WITHIN, ping(guest, address, visit)).await {
        Ok(Ok(())) => Beat::Answered,
        // What was there a moment ago and is not any more has ended.
        Ok(Err(error)) if had_visit || error.is_nobody() => Beat::Ended,
        Ok(Err(_)) | Err(_) => Beat::Missed,
    }
}

/// A connection that gives no answer is not kept.
async fn ping(guest: &Guest, address: &HostPort, visit: &mut Option<Visit>) -> Result<(), ShardError> {
    let mut open = match visit.take() {
        Some(open) => open,
        None => arrive(guest, address).await?,
    };
    open.ping().await?;
    *visit = Some(open);
    Ok(())
}

async fn arrive(guest: &Guest, address: &HostPort) -> Result<Visit, ShardError> {
    let mut open = guest.client.visit(address).await?;
    if let Err(error) = open.give_users(&guest.users).await {
        tracing::warn!(%error, "a process keeps the users that it has");
    }
    Ok(open)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    Answered,
    Missed,
    Ended,
}

/// What was told of one process.
#[derive(Debug, Default)]
struct State {
    missed: u32,
    up: bool,
}

impl State {
    /// Whether this is news.
    fn note(&mut self, beat: Beat) -> bool {
        let up = match beat {
            Beat::Answered => true,
            Beat::Ended => false,
            Beat::Missed => self.up && self.missed + 1 < MISSED_MAX,
        };
        self.missed = if beat == Beat::Missed { self.missed.saturating_add(1) } else { 0 };
        std::mem::replace(&mut self.up, up) != up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_process_is_news_at_once_and_a_silent_one_after_three_answers_are_missing() {
        use Beat::{Answered, Ended, Missed};
        let mut state = State::default();
        let mut told = |beats: &[Beat]| beats.iter().map(|beat| state.note(*beat)).collect::<Vec<_>>();
        assert_eq!(told(&[Missed, Ended, Answered, Answered]), [false, false, true, false], "before it was ever up there is no news");
        assert_eq!(told(&[Ended, Ended, Answered]), [true, false, true]);
        assert_eq!(told(&[Missed, Missed, Answered]), [false; 3], "a slow answer is no news");
        assert_eq!(told(&[Missed, Missed, Missed, Missed, Answered]), [false, false, true, false, true]);
    }

    #[tokio::test]
    async fn the_same_processes_are_not_watched_twice_and_a_forgotten_pipeline_not_at_all() {
        let pulse = Pulse::new(mpsc::channel(1).0);
        let owner = Owner { name: "payments".into(), namespace: "fraud".into(), uid: "1".into() };
        let nobody = HostPort { host: "127.0.0.1".into(), port: 1 };
        let guest = |password: &str| Guest { client: ShardClient::new(password.into()), users: RedisUsers::default() };
        pulse.watch(&owner, guest("a"), vec![nobody.clone()]);
        pulse.watch(&owner, guest("a"), vec![nobody.clone()]);
        pulse.watch(&owner, guest("b"), vec![nobody]);
        assert_eq!(pulse.watched.lock().unwrap().len(), 1);
        pulse.forget(&owner);
        assert!(pulse.watched.lock().unwrap().is_empty());
    }
}
