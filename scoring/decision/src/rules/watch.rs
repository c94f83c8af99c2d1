//! Follows the file of rules.
//!
//! Looks at the content once a second, so that it does not matter how the file is replaced (a mounted ConfigMap swaps
//! symbolic links). Compiling happens off the request threads; readers take one pointer and never wait.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use scoring_core::decide::RuleState;
use tokio_util::sync::CancellationToken;

use super::{FeatureNames, RULES_BYTES_MAX, RuleSet};

const POLL: Duration = Duration::from_secs(1);

/// The rules in use.
#[derive(Debug)]
pub struct ActiveRules {
    pub set: Arc<RuleSet>,
    /// `Current`, or `LastGood` while the file is one that was refused.
    pub state: RuleState,
    /// Why the file was refused.
    pub problem: Option<String>,
    /// Whether any set has been loaded since the process started.
    pub loaded: bool,
}

#[derive(Clone)]
pub struct RulesWatch {
    active: Arc<ArcSwap<ActiveRules>>,
}

impl RulesWatch {
    /// Rules that do not change.
    pub fn fixed(set: RuleSet) -> Self {
        Self::of(ActiveRules { set: Arc::new(set), state: RuleState::Current, problem: None, loaded: true })
    }

    fn of(active: ActiveRules) -> Self {
        Self { active: Arc::new(ArcSwap::from_pointee(active)) }
    }

    /// Loads the file and follows it until `stop`. A first file that does not load leaves the process running and not
    /// ready: it becomes ready with the first set that loads.
    pub fn follow(path: &Path, features: FeatureNames, stop: CancellationToken) -> Self {
        let none = ActiveRules { set: Arc::new(RuleSet::empty()), state: RuleState::LastGood, problem: None, loaded: false };
        let watch = Self::of(none);
        let follower = Arc::new(Follower { path: path.to_owned(), features, active: watch.active.clone(), seen: Mutex::new(None) });
        follower.look();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = stop.cancelled() => return,
                }
                let follower = follower.clone();
                // The only failure of a blocking task is a panic or the end of the runtime; the last good rules stay.
                let _ = tokio::task::spawn_blocking(move || follower.look()).await;
            }
        });
        watch
    }

    pub fn current(&self) -> Arc<ActiveRules> {
        self.active.load_full()
    }
}

struct Follower {
    path: PathBuf,
    features: FeatureNames,
    active: Arc<ArcSwap<ActiveRules>>,
    /// What the last look found, so that nothing is loaded, or logged, twice.
    seen: Mutex<Option<Result<String, String>>>,
}

impl Follower {
    fn look(&self) {
        let found = self.read();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_ref() == Some(&found) {
            return;
        }
        let loaded =
            found.as_ref().map_err(Clone::clone).and_then(|text| RuleSet::load(text, &self.features).map_err(|error| error.to_string()));
        match loaded {
            Ok(set) => self.replace(set),
            Err(problem) => self.keep(problem),
        }
        *seen = Some(found);
    }

    fn read(&self) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", self.path.display());
        let bytes = std::fs::metadata(&self.path).map_err(failed)?.len();
        if usize::try_from(bytes).is_ok_and(|bytes| bytes <= RULES_BYTES_MAX) {
            return std::fs::read_to_string(&self.path).map_err(failed);
        }
        Err(format!("{} has {bytes} bytes, at most {RULES_BYTES_MAX} are allowed", self.path.display()))
    }

    fn replace(&self, set: RuleSet) {
        tracing::info!(rules = set.len(), "rules loaded");
        self.active.store(Arc::new(ActiveRules { set: Arc::new(set), state: RuleState::Current, problem: None, loaded: true }));
    }

    fn keep(&self, problem: String) {
        let last = self.active.load();
        tracing::error!(problem, rules_in_use = last.set.len(), "new rules are not used, the last good ones stay");
        self.active.store(Arc::new(ActiveRules {
            set: last.set.clone(),
            state: RuleState::LastGood,
            problem: Some(problem),
            loaded: last.loaded,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const GOOD: &str = "rules: [{id: a, phase: before, when: 'amount > 1.0', action: review, tests: [{given: {amount: 2}, expect: true}]}]";

    /// As a mounted ConfigMap does it: a new directory, and a symbolic link that is renamed over the old one.
    fn swap(dir: &Path, version: &str, text: &str) {
        let data = dir.join(version);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("rules.yaml"), text).unwrap();
        let next = dir.join("..next");
        symlink(&data, &next).unwrap();
        std::fs::rename(&next, dir.join("..data")).unwrap();
    }

    async fn until(watch: &RulesWatch, what: &str, holds: impl Fn(&ActiveRules) -> bool) {
        for _ in 0..100 {
            if holds(&watch.current()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: {:?}", watch.current());
    }

    #[tokio::test]
    async fn broken_rules_leave_the_last_good_ones_in_use_until_they_are_mended() {
        let dir = tempfile::tempdir().unwrap();
        swap(dir.path(), "..1", GOOD);
        symlink("..data/rules.yaml", dir.path().join("rules.yaml")).unwrap();
        let stop = CancellationToken::new();
        let watch = RulesWatch::follow(&dir.path().join("rules.yaml"), FeatureNames::default(), stop.clone());
        assert_eq!((watch.current().set.len(), watch.current().state), (1, RuleState::Current));

        swap(dir.path(), "..2", &GOOD.replace("amount > 1.0", "amuont > 1.0"));
        until(&watch, "broken rules are noticed", |active| active.state == RuleState::LastGood).await;
        let broken = watch.current();
        assert_eq!(broken.set.len(), 1, "the last good rules are still there");
        assert!(broken.problem.as_deref().unwrap().contains("amuont"), "{broken:?}");

        swap(dir.path(), "..3", "rules: []");
        until(&watch, "mended rules are used", |active| active.state == RuleState::Current).await;
        assert_eq!(watch.current().set.len(), 0);
        stop.cancel();
    }

    #[tokio::test]
    async fn a_process_without_any_rules_is_not_loaded() {
        let watch = RulesWatch::follow(Path::new("/does/not/exist.yaml"), FeatureNames::default(), CancellationToken::new());
        let active = watch.current();
        assert!(!active.loaded && active.problem.as_deref().unwrap().contains("cannot read"));
    }
}
