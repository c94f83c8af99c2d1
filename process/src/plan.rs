//! The plan that a data-plane process follows: a file written by its region's operator, reloaded when it changes.
//!
//! Guarantees: a reader never sees an older epoch after a newer one (invariant I2), nor a revision that goes back inside an epoch; a file that cannot be read
//! or parsed leaves the last good plan in force.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use domain::{EpochGuard, PlanView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{self, ConfigError};

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(500);

/// Cheap to clone; `current` never blocks.
#[derive(Clone)]
pub struct PlanWatch {
    current: Arc<ArcSwap<PlanView>>,
    changes: watch::Receiver<Arc<PlanView>>,
}

impl PlanWatch {
    /// Reads the plan and follows the file until `stop`.
    ///
    /// # Errors
    /// When the first plan cannot be read: a process without a plan does not know what it may do.
    pub fn follow(path: &Path, stop: CancellationToken) -> Result<Self, ConfigError> {
        let first: PlanView = config::load(path)?;
        let (watch, sender) = Self::of(first);
        let follower = Follower { path: path.to_owned(), current: watch.current.clone(), sender };
        tokio::spawn(follower.run(stop));
        Ok(watch)
    }

    /// A plan that is set by hand, for processes without an operator and for tests.
    pub fn fixed(plan: PlanView) -> Self {
        Self::of(plan).0
    }

    fn of(first: PlanView) -> (Self, watch::Sender<Arc<PlanView>>) {
        let first = Arc::new(first);
        let (sender, changes) = watch::channel(first.clone());
        (Self { current: Arc::new(ArcSwap::new(first)), changes }, sender)
    }

    pub fn current(&self) -> Arc<PlanView> {
        self.current.load_full()
    }

    /// A receiver that is told of every accepted change.
    pub fn changes(&self) -> watch::Receiver<Arc<PlanView>> {
        self.changes.clone()
    }
}

struct Follower {
    path: PathBuf,
    current: Arc<ArcSwap<PlanView>>,
    sender: watch::Sender<Arc<PlanView>>,
}

impl Follower {
    async fn run(self, stop: CancellationToken) {
        let mut refused = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => return,
            }
            let problem = self.reload().err();
            if problem.is_some() && problem != refused {
                tracing::warn!(path = %self.path.display(), problem = problem.as_deref(), "keeping the last good plan");
            }
            refused = problem;
        }
    }

    fn reload(&self) -> Result<(), String> {
        let next: PlanView = config::load(&self.path).map_err(|error| error.to_string())?;
        let current = self.current.load();
        if next == **current {
            return Ok(());
        }
        admit(&current, &next)?;
        tracing::info!(epoch = next.epoch.0, revision = next.revision.0, role = %next.role, active = %next.active_region, "plan changed");
        let next = Arc::new(next);
        self.current.store(next.clone());
        self.sender.send_replace(next);
        Ok(())
    }
}

/// Whether `next` may replace `current`.
fn admit(current: &PlanView, next: &PlanView) -> Result<(), String> {
    EpochGuard::new(current.epoch).admit(next.epoch).map_err(|older| older.to_string())?;
    if next.epoch == current.epoch && next.revision < current.revision {
        return Err(format!("revision {} is older than revision {} of the same epoch, which is in force", next.revision, current.revision));
    }
    if let Some(shard) = next.shard_going_back(current) {
        return Err(format!("shard {shard} would go back to an earlier primary of the same epoch"));
    }
    if next.region != current.region || next.pipeline != current.pipeline {
        return Err(format!(
            "the plan is for pipeline {} in {}, this process serves {} in {}: a plan never changes hands",
            next.pipeline, next.region, current.pipeline, current.region
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use domain::{Epoch, HostPort, PipelineName, RegionName, RegionRole, Revision, ShardAddress, SlotMap, Step};

    use super::*;

    fn view(epoch: u64, revision: u64, role: RegionRole) -> PlanView {
        PlanView {
            pipeline: PipelineName::new("payments").unwrap(),
            namespace: "fraud".into(),
            region: RegionName::new("eu-west").unwrap(),
            epoch: Epoch(epoch),
            revision: Revision(revision),
            active_region: RegionName::new("us-east").unwrap(),
            role,
            step: Step::Steady,
            slots: SlotMap::even(1).unwrap(),
            shards: vec![ShardAddress {
                shard: 0,
                primary: HostPort { host: "s0".into(), port: 6379 },
                replicas: vec![],
                process: 0,
                term: 0,
            }],
        }
    }

    #[test]
    fn a_plan_of_an_older_epoch_or_revision_is_refused() {
        let current = view(4, 7, RegionRole::Standby);
        assert!(admit(&current, &view(3, 9, RegionRole::Active)).unwrap_err().contains("older than epoch 4"));
        assert!(admit(&current, &view(4, 6, RegionRole::Active)).unwrap_err().contains("older than revision 7"));
        assert!(admit(&current, &view(5, 1, RegionRole::Active)).is_ok());
    }

    #[test]
    fn a_primary_never_goes_back_to_an_earlier_process_of_its_epoch() {
        let mut moved = view(4, 7, RegionRole::Active);
        (moved.shards[0].process, moved.shards[0].term) = (1, 1);
        assert!(admit(&view(4, 7, RegionRole::Active), &moved).is_ok(), "no revision is needed: the region's operator decides");
        assert!(admit(&moved, &view(4, 8, RegionRole::Active)).unwrap_err().contains("earlier primary"));
        assert!(admit(&moved, &view(5, 1, RegionRole::Active)).is_ok(), "an epoch counts anew");
    }

    #[test]
    fn a_plan_of_another_region_is_refused() {
        let mut stray = view(9, 1, RegionRole::Active);
        stray.region = RegionName::new("us-east").unwrap();
        assert!(admit(&view(4, 7, RegionRole::Standby), &stray).unwrap_err().contains("never changes hands"));
    }

    #[tokio::test]
    async fn a_damaged_file_leaves_the_last_good_plan_in_force_and_a_mended_one_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.yaml");
        let write = |plan: &PlanView| std::fs::write(&path, serde_yaml::to_string(plan).unwrap()).unwrap();
        write(&view(1, 1, RegionRole::Standby));
        let stop = CancellationToken::new();
        let watch = PlanWatch::follow(&path, stop.clone()).unwrap();
        let mut changes = watch.changes();

        std::fs::write(&path, "epoch: [").unwrap();
        tokio::time::sleep(POLL * 2).await;
        assert_eq!(watch.current().epoch, Epoch(1));

        write(&view(2, 1, RegionRole::Active));
        changes.changed().await.unwrap();
        assert_eq!(watch.current().role, RegionRole::Active);
        stop.cancel();
    }
}
