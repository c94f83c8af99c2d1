//! Snapshots from the command line, against real Redis processes: what is printed, and with which code it ends.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use redis_testbed::Server;
use tempfile::TempDir;

/// As `kubectl fraud init` writes them; `tester` is ours.
const USERS: &str = "user default off
user operator on >operator-password resetchannels ~fp:* +@connection +@transaction +get +set +hgetall +hget +role +info +replicaof +eval +config|get +config|set +dbsize +time
user snapshot on >snapshot-password resetchannels %R~fp:* +@connection +get +hgetall +info +dbsize +psync +replconf
user replication on >replication-password resetchannels +psync +replconf +ping
user tester on >tester-password resetchannels ~* &* +@all
";

struct Regions {
    us: Server,
    eu: Server,
    folder: TempDir,
}

fn server() -> Server {
    Server::start_with_users(USERS, ("tester", "tester-password"), "masteruser replication\nmasterauth replication-password\n").unwrap()
}

impl Regions {
    /// us-east has the primary of epoch 1 and eu-west its copy.
    fn start() -> Self {
        let (us, eu, folder) = (server(), server(), tempfile::tempdir().unwrap());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("operator.password", "operator-password\n");
        write("snapshot.password", "snapshot-password\n");
        write("shards.yaml", &format!("regions:\n  us-east: [\"{}\"]\n  eu-west: [\"{}\"]\n", us.address(), eu.address()));
        write(
            "plan.yaml",
            &format!(
                "{{pipeline: payments, namespace: fraud, region: eu-west, epoch: 1, revision: 1, activeRegion: us-east, role: Standby, step: Steady, \
                 slots: [{{first: 0, last: 16383, shard: 0}}], shards: [{{shard: 0, primary: {}}}]}}",
                serde_json::to_string(&eu.address()).unwrap()
            ),
        );
        fs::create_dir(folder.path().join("kept")).unwrap();
        let regions = Self { us, eu, folder };
        assert_eq!(code(&regions.operator("promote --unplanned --to us-east --epoch 1 --force")), 0);
        regions.us.ask::<()>("MSET e:{x} 1 e:{y} 2").unwrap();
        assert_eq!(code(&regions.operator("follow --of eu-west --upstream us-east --epoch 1")), 0);
        let started = Instant::now();
        while !regions.eu.ask::<String>("INFO replication").is_ok_and(|info| info.contains("master_link_status:up")) {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(50));
        }
        regions
    }

    fn operator(&self, line: &str) -> Output {
        self.run("operator", line)
    }

    /// In what is run, `STORE` and `PLAN` stand for paths.
    fn run(&self, user: &str, line: &str) -> Output {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let word = |word: &str| match word {
            "STORE" => format!("file://{}", path("kept")),
            "PLAN" => path("plan.yaml"),
            other => other.to_owned(),
        };
        Command::new(env!("CARGO_BIN_EXE_fraud-features"))
            .args(line.split(' ').map(word))
            .args(["--user", user, "--password-file", &path(&format!("{user}.password")), "--addresses", &path("shards.yaml")])
            .output()
            .unwrap()
    }

    fn copies(&self) -> Vec<std::path::PathBuf> {
        let region = self.folder.path().join("kept/payments/eu-west");
        fs::read_dir(region).unwrap().map(|entry| entry.unwrap().path().join("shard-0000.rdb")).collect()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn ends(output: &Output, wanted: i32, sentence: &str) {
    assert!(code(output) == wanted && said(output).contains(sentence), "{}: {}", code(output), said(output));
}

#[test]
fn a_snapshot_is_taken_listed_checked_and_put_back() {
    let regions = Regions::start();
    ends(&regions.run("snapshot", "snapshot --plan PLAN --store STORE"), 0, " of eu-west complete: 1 shards, ");
    let taken = regions.run("snapshot", "snapshot --of eu-west --region eu-west --pipeline payments --store STORE -o json");
    let report: serde_json::Value = serde_json::from_slice(&taken.stdout).unwrap();
    assert_eq!((&report["snapshot"]["shards"][0]["epoch"], &report["deleted"]), (&1.into(), &serde_json::json!([])), "{report}");
    assert_eq!(report["snapshot"]["shards"][0]["sha256"].as_str().unwrap().len(), 64);
    ends(&regions.operator("snapshots --pipeline payments --store STORE --check"), 0, "; checked");

    let new = server();
    let to_new = format!("restore --store STORE --to {} --pipeline payments", new.address());
    ends(&regions.operator(&format!("{to_new} --epoch 2")), 0, "primary of epoch 2 with snapshot");
    assert_eq!((new.ask::<u64>("GET e:{y}").unwrap(), new.ask::<u64>("GET fp:epoch").unwrap()), (2, 2));
    ends(&regions.operator(&format!("{to_new} --epoch 2")), 4, "is not empty, it holds 2 entities");
    ends(&regions.operator(&format!("{to_new} --epoch 1 --overwrite")), 4, "holds epoch 2, which is newer than epoch 1");
    ends(&regions.operator(&format!("{to_new} --epoch 2 --snapshot 20011120T080000.000Z")), 1, "there is no complete snapshot");

    let copies = regions.copies();
    assert_eq!(copies.len(), 2);
    copies.iter().for_each(|copy| fs::write(copy, "REDIS0010 or so").unwrap());
    ends(&regions.operator("snapshots --pipeline payments --store STORE --check"), 3, "damaged");
    ends(&regions.operator(&format!("{to_new} --epoch 2 --overwrite")), 4, "Nothing was changed; take another snapshot");
    assert_eq!(new.ask::<u64>("DBSIZE").unwrap(), 3);
}

#[test]
fn primaries_are_left_in_peace_and_passwords_are_told_apart() {
    let regions = Regions::start();
    let of_us = "snapshot --of us-east --region us-east --pipeline payments --store STORE";
    ends(&regions.run("snapshot", of_us), 4, "take the snapshot in a region that follows");
    ends(&regions.run("snapshot", &format!("{of_us} --skip-primaries")), 0, "no snapshot: all shards here are primaries");
    ends(&regions.operator("snapshots --pipeline payments --store STORE"), 0, "no snapshots of payments");
    fs::write(regions.folder.path().join("snapshot.password"), "guessed").unwrap();
    let refused = regions.run("snapshot", "snapshot --plan PLAN --store STORE");
    ends(&refused, 1, "user snapshot: wrong password");
    assert!(!said(&refused).contains("guessed"));
    ends(&regions.operator("snapshots --pipeline payments --store file:///does/not/exist"), 1, "mount the volume");
}

#[test]
fn shards_are_emptied_for_the_builder_only_when_that_is_said() {
    let regions = Regions::start();
    ends(&regions.operator("rebuild --of us-east --epoch 1"), 4, "is not empty, it holds 2 entities");
    let rebuilt = regions.operator("rebuild --of us-east --epoch 1 --overwrite --read-from 2026-11-13T00:00:00Z");
    ends(&rebuilt, 0, "empty primary of epoch 1: the builder folds the logs anew");
    let keys: Vec<String> = regions.us.ask("KEYS *").unwrap();
    assert!(keys.len() == 2 && regions.us.ask::<u64>("GET fp:read_from").unwrap() == 1_794_528_000_000, "{keys:?}");
    regions.us.ask::<()>("SET e:{z} 1").unwrap();
}
