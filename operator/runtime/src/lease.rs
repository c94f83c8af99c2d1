//! Which of the operator's replicas acts: the one that holds a Lease in the operator's namespace.
//!
//! A lease is no fence: between a check and a write any time may pass. What protects data is the RegionPlan's
//! resourceVersion and the epoch in Redis; the lease only keeps two replicas from doing the same work. No time of
//! another machine is compared with this one's: a lease counts as left once this replica has seen it unchanged for its
//! whole length.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use crate::{config::Identity, error::with_causes};

const NAME: &str = "fraudpipeline-operator";
const LENGTH: Duration = Duration::from_secs(15);
/// The holder gives up this long after its last renewal, before anybody else may begin.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);

/// A replica's part in the election.
pub(crate) struct Election {
    leases: Api<Lease>,
    identity: Identity,
    /// What the lease was last seen as, and since when on this machine's own clock.
    seen: Option<(Holding, Instant)>,
}

/// What changes with every renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holding {
    holder: String,
    renewed: Option<Timestamp>,
}

impl Election {
    pub(crate) fn new(client: Client, identity: Identity) -> Self {
        Self { leases: Api::namespaced(client, &identity.namespace), identity, seen: None }
    }

    /// Waits until this replica holds the lease. An API server that does not answer is asked again.
    pub(crate) async fn win(&mut self) {
        loop {
            match self.take_or_renew().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = with_causes(&error), "cannot ask for the lease"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Renews until that fails for too long; then returns, and whoever called must stop at once.
    pub(crate) async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(PAUSE).await;
            // Taken before the request: the lease runs from when it was sent, not from when the answer came.
            let asked = Instant::now();
            if asked.duration_since(renewed) > RENEW_WITHIN {
                return;
            }
            let answer = tokio::time::timeout(RENEW_WITHIN.saturating_sub(asked.duration_since(renewed)), self.take_or_renew()).await;
            match answer {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(error = with_causes(&error), "cannot renew the lease"),
                Err(_) => return,
            }
        }
    }

    /// Gives the lease up, so that another replica need not wait for its end.
    pub(crate) async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.leases.get_opt(NAME).await? else { return Ok(()) };
            if holding(&lease).holder != self.identity.pod {
                return Ok(());
            }
            let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
            spec.holder_identity = Some(String::new());
            self.leases.replace(NAME, &PostParams::default(), &lease).await.map(drop)
        };
        if let Err::<(), kube::Error>(error) = released.await {
            tracing::warn!(error = with_causes(&error), "cannot release the lease; another replica waits for its end");
        }
    }

    async fn take_or_renew(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            return conflict_is_no(self.leases.create(&PostParams::default(), &self.held(None)).await);
        };
        let now = Instant::now();
        let holding = holding(&lease);
        if self.may_take(&holding, now) {
            return conflict_is_no(self.leases.replace(NAME, &PostParams::default(), &self.held(Some(&lease))).await);
        }
        Ok(false)
    }

    /// Ours, given up, or seen unchanged for its whole length.
    fn may_take(&mut self, holding: &Holding, now: Instant) -> bool {
        if holding.holder.is_empty() || holding.holder == self.identity.pod {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == holding => now.duration_since(*since) > LENGTH,
            _ => {
                self.seen = Some((holding.clone(), now));
                false
            }
        }
    }

    /// The lease as this replica would hold it.
    fn held(&self, before: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let renewal = old.holder_identity.as_deref() == Some(self.identity.pod.as_str());
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.pod.clone()),
            lease_duration_seconds: i32::try_from(LENGTH.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: if renewal { old.acquire_time } else { Some(now) },
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!renewal && before.is_some())),
            ..LeaseSpec::default()
        };
        let metadata = before.map_or_else(
            || ObjectMeta { name: Some(NAME.into()), namespace: Some(self.identity.namespace.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        Lease { metadata, spec: Some(spec) }
    }
}

fn holding(lease: &Lease) -> Holding {
    let spec = lease.spec.as_ref();
    Holding {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
    }
}

/// Somebody else was quicker: an answer, not an error.
fn conflict_is_no(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock;

    fn election(client: Client) -> Election {
        Election::new(client, Identity { namespace: "fraudpipeline-system".into(), pod: "operator-0".into() })
    }

    fn seen(holder: &str, second: i64) -> Holding {
        Holding { holder: holder.into(), renewed: Timestamp::from_second(second).ok() }
    }

    #[tokio::test(start_paused = true)]
    async fn another_replicas_lease_is_taken_only_after_it_was_seen_unchanged_for_its_whole_length() {
        let (client, _server) = mock::api_server();
        let mut election = election(client);
        // Its renew time lies far in the past by this machine's clock, which says nothing.
        let theirs = seen("operator-1", 1);
        assert!(!election.may_take(&theirs, Instant::now()));
        tokio::time::advance(LENGTH).await;
        assert!(!election.may_take(&theirs, Instant::now()), "not before the whole length has passed");
        assert!(!election.may_take(&seen("operator-1", 2), Instant::now()), "a renewal starts the wait again");
        tokio::time::advance(LENGTH + Duration::from_millis(1)).await;
        assert!(election.may_take(&seen("operator-1", 2), Instant::now()));
    }

    #[tokio::test]
    async fn an_own_or_released_lease_is_taken_at_once() {
        let (client, _server) = mock::api_server();
        let mut election = election(client);
        assert!(election.may_take(&seen("operator-0", 1), Instant::now()));
        assert!(election.may_take(&seen("", 1), Instant::now()));
    }
}
