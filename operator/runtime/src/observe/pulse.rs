//! Notices within a second that a shard's process has ended, fallen silent or come back, and asks for a pass. And gives each
//! process that it connects to the users that the Secret says, so that a changed password needs no restart; and notices
//! settings that are not as they have to be.
//!
//! Between passes each process is sent a PING over a connection that is kept. No role is decided here, and nothing is
//! written to the API server: what the processes have become, the pass finds out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::HostPort;
use feature_shards::{Finding, RedisUsers, ShardClient, Visit, WantedSettings};
use futures::channel::mpsc;
use operator_planner::SettingFault;
use tokio::task::JoinSet;

use crate::kinds::Owner;

const EVERY: Duration = Duration::from_millis(300);
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// A new connection takes a TLS handshake and a login.
const ARRIVE_WITHIN: Duration = Duration::from_secs(1);
/// So many answers in a row must be missing before a process counts as silent.
const MISSED_MAX: u32 = 3;

/// Settings are looked at with each new connection, and after so many beats (a minute).
const BEATS_BETWEEN_CHECKS: u32 = 200;

/// The processes that are looked at, by pipeline. Looking at a pipeline's ends when it is forgotten, or with this value.
pub(crate) struct Pulse {
    changed: mpsc::Sender<()>,
    watched: Mutex<BTreeMap<(String, String), Watched>>,
}

/// As whom a process is visited, and how it should be.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) client: ShardClient,
    pub(super) users: RedisUsers,
    pub(super) wanted: WantedSettings,
}

/// By process. One that is as it should be is not in it.
type Findings = Arc<Mutex<BTreeMap<HostPort, Vec<Finding>>>>;

struct Watched {
    guest: Guest,
    addresses: Vec<HostPort>,
    findings: Findings,
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
        let mut watched = lock(&self.watched);
        if watched.get(&key(owner)).is_some_and(|now| now.guest == guest && now.addresses == addresses) {
            return;
        }
        let (mut beats, findings) = (JoinSet::new(), Findings::default());
        for address in &addresses {
            let heart = Heart { guest: guest.clone(), address: address.clone(), findings: findings.clone(), changed: self.changed.clone() };
            beats.spawn(heart.run());
        }
        watched.insert(key(owner), Watched { guest, addresses, findings, _beats: beats });
    }

    /// What is wrong with the settings of a pipeline's processes.
    pub(super) fn faults(&self, owner: &Owner) -> Vec<SettingFault> {
        let watched = lock(&self.watched);
        let Some(watched) = watched.get(&key(owner)) else { return Vec::new() };
        lock(&watched.findings).values().flatten().map(fault).collect()
    }

    pub(crate) fn forget(&self, owner: &Owner) {
        lock(&self.watched).remove(&key(owner));
    }
}

fn key(owner: &Owner) -> (String, String) {
    (owner.namespace.clone(), owner.name.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fault(finding: &Finding) -> SettingFault {
    SettingFault {
        process: finding.address.clone(),
        setting: finding.setting.to_owned(),
        current: finding.current.clone(),
        line: finding.line.clone(),
        why: finding.why.clone(),
    }
}

/// What looks at one process.
struct Heart {
    guest: Guest,
    address: HostPort,
    findings: Findings,
    changed: mpsc::Sender<()>,
}

impl Heart {
    async fn run(mut self) {
        let (mut visit, mut state, mut beats) = (None, State::default(), 0_u32);
        loop {
            let beat = self.beat(&mut visit).await;
            let news = state.note(beat);
            let new_settings = match &mut visit {
                Some(visit) if news || beats % BEATS_BETWEEN_CHECKS == 0 => self.check(visit).await,
                _ => false,
            };
            if news || new_settings {
                // Full: a pass is coming already.
                drop(self.changed.try_send(()));
            }
            beats = beats.wrapping_add(1);
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn beat(&self, visit: &mut Option<Visit>) -> Beat {
        let Some(mut open) = visit.take() else { return self.arrive(visit).await };
        match tokio::time::timeout(ANSWER_WITHIN, open.ping()).await {
            Ok(Ok(())) => {
                *visit = Some(open);
                Beat::Answered
            }
            // What was there a moment ago and is not any more has ended.
            Ok(Err(_)) => Beat::Ended,
            Err(_) => Beat::Missed,
        }
    }

    async fn arrive(&self, visit: &mut Option<Visit>) -> Beat {
        let mut open = match tokio::time::timeout(ARRIVE_WITHIN, self.guest.client.visit(&self.address)).await {
            Ok(Ok(open)) => open,
            Ok(Err(error)) if error.is_nobody() => return Beat::Ended,
            Ok(Err(_)) | Err(_) => return Beat::Missed,
        };
        if let Err(error) = open.give_users(&self.guest.users).await {
            tracing::warn!(%error, "a process keeps the users that it has");
        }
        *visit = Some(open);
        Beat::Answered
    }

    /// Whether something else is wrong with the settings than before.
    async fn check(&self, visit: &mut Visit) -> bool {
        // Without an answer nothing new is known; the next beat finds out why.
        let Ok(found) = visit.check_settings(&self.guest.wanted).await else { return false };
        let mut findings = lock(&self.findings);
        let before = if found.is_empty() { findings.remove(&self.address) } else { findings.insert(self.address.clone(), found.clone()) };
        before.unwrap_or_default() != found
    }
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
        let guest = |password: &str| Guest {
            client: ShardClient::new(password.into()),
            users: RedisUsers::default(),
            wanted: WantedSettings::default(),
        };
        pulse.watch(&owner, guest("a"), vec![nobody.clone()]);
        pulse.watch(&owner, guest("a"), vec![nobody.clone()]);
        pulse.watch(&owner, guest("b"), vec![nobody]);
        assert_eq!(pulse.watched.lock().unwrap().len(), 1);
        pulse.forget(&owner);
        assert!(pulse.watched.lock().unwrap().is_empty());
    }
}
