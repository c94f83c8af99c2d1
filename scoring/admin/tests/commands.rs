//! The command itself, against real Redis processes: what it prints and with which code it ends.
#![allow(clippy::unwrap_used)]

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use redis_testbed::Server;
use tempfile::TempDir;

const USERS: &str = "user default off
user operator on >operator-password resetchannels ~fp:* +@transaction +ping +get +set +eval +time +info +replicaof +config|get +config|set +dbsize +acl|setuser +client|pause +client|unpause
user replication on >replication-password resetchannels +psync +replconf +ping
user tester on >tester-password resetchannels ~* &* +@all
";
const REPLICATION: &str = "masteruser replication\nmasterauth replication-password\n";

struct Regions {
    us: Server,
    eu: Server,
    folder: TempDir,
}

impl Regions {
    fn start() -> Self {
        let server = || Server::start_with_users(USERS, ("tester", "tester-password"), REPLICATION).unwrap();
        let (us, eu, folder) = (server(), server(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("password"), "operator-password\n").unwrap();
        let file = format!("regions:\n  us-east: [\"{}\"]\n  eu-west: [\"{}\"]\n", us.address(), eu.address());
        std::fs::write(folder.path().join("shards.yaml"), file).unwrap();
        Self { us, eu, folder }
    }

    fn run(&self, line: &str) -> Output {
        self.run_with("password", line)
    }

    fn run_with(&self, password_file: &str, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fraud-features"))
            .args(line.split(' '))
            .arg("--addresses")
            .arg(self.folder.path().join("shards.yaml"))
            .arg("--password-file")
            .arg(self.folder.path().join(password_file))
            .output()
            .unwrap()
    }

    fn wait_for_copy(&self, copy: &Server) {
        let started = Instant::now();
        while !copy.ask::<String>("INFO replication").unwrap().contains("master_link_status:up") {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// us-east has the primary of epoch 1 and eu-west its copy.
    fn set_up(&self) {
        assert_eq!(code(&self.run("promote --unplanned --to us-east --epoch 1 --force")), 0);
        self.us.ask::<()>("SET e:{x} 1").unwrap();
        assert_eq!(code(&self.run("follow --of eu-west --upstream us-east --epoch 1")), 0);
        self.wait_for_copy(&self.eu);
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_region_is_promoted_and_the_other_one_follows_it() {
    let regions = Regions::start();
    regions.set_up();
    let promoted = regions.run("promote --planned --from us-east --to eu-west --epoch 2 --output json");
    assert_eq!(code(&promoted), 0, "{}", said(&promoted));
    let report: serde_json::Value = serde_json::from_slice(&promoted.stdout).unwrap();
    assert_eq!((&report["outcome"], &report["shards"][0]["state"]), (&"promoted".into(), &"rejoined".into()), "{report}");
    assert!(report["writeGapMsMax"].is_f64() && report["shards"][0]["fullResyncs"] == 0, "{report}");
    let status = regions.run("status");
    assert_eq!(code(&status), 0, "{}", said(&status));
    assert!(said(&status).contains(&format!("{}: primary, epoch 2, holds data", regions.eu.address())), "{}", said(&status));
    let lag = regions.run("lag --from eu-west --to us-east --beat -o json");
    let lag_report: serde_json::Value = serde_json::from_slice(&lag.stdout).unwrap();
    assert!(code(&lag) == 0 && lag_report[0]["heartbeatAgeMs"].is_u64(), "{lag_report}");
}

#[test]
fn a_lower_epoch_is_refused_in_the_words_of_the_library() {
    let regions = Regions::start();
    regions.set_up();
    assert_eq!(code(&regions.run("promote --planned --from us-east --to eu-west --epoch 5")), 0);
    let verbs = [
        "promote --planned --from eu-west --to us-east",
        "promote --unplanned --to us-east",
        "hold --of eu-west",
        "follow --of us-east --upstream eu-west",
    ];
    for verb in verbs {
        let refused = regions.run(&format!("{verb} --epoch 4"));
        assert_eq!(code(&refused), 4, "{verb}: {}", said(&refused));
        assert!(said(&refused).contains("holds epoch 5, which is newer than epoch 4: nothing was changed"), "{verb}: {}", said(&refused));
    }
}

#[test]
fn wrong_passwords_wrong_settings_and_wrong_arguments_are_told_apart() {
    let regions = Regions::start();
    regions.set_up();
    std::fs::write(regions.folder.path().join("guessed"), "guessed").unwrap();
    let refused = regions.run_with("guessed", "hold --of us-east --epoch 9");
    assert_eq!(code(&refused), 1);
    assert!(said(&refused).contains("wrong password") && !said(&refused).contains("guessed"), "{}", said(&refused));
    let missing = regions.run_with("nowhere", "status");
    assert!(code(&missing) == 1 && said(&missing).contains("--password-file"), "{}", said(&missing));

    regions.us.ask::<()>("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    let status = regions.run("status --of us-east");
    assert!(code(&status) == 3 && said(&status).contains("Set: maxmemory-policy noeviction"), "{}", said(&status));
    assert_eq!(code(&regions.run("promote --to us-east --epoch 9")), 2);
    let unknown = regions.run("status --of mars");
    assert!(code(&unknown) == 1 && said(&unknown).contains("eu-west, us-east"), "{}", said(&unknown));
}

#[test]
fn shells_get_their_completions() {
    let output = Command::new(env!("CARGO_BIN_EXE_fraud-features")).args(["completion", "bash"]).output().unwrap();
    assert!(code(&output) == 0 && said(&output).contains("fraud-features"));
}
