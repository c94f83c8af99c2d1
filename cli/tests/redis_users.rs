//! The rules of each user, as `kubectl fraud init` writes them, in a real Redis: what a role needs is allowed, all else is not.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

const ENTITY: &str = "{u0123456789abcdef}";

/// What each role does, and nothing of what it must not do.
const NEEDED: &[(&str, &[&[&str]])] = &[
    (
        "operator",
        &[
            &["PING"],
            &["INFO", "replication"],
            &["WATCH", "fp:epoch"],
            &["GET", "fp:epoch"],
            &["MULTI"],
            &["EXEC"],
            &["DBSIZE"],
            &["CONFIG", "GET", "min-replicas-to-write"],
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["REPLICAOF", "NO", "ONE"],
            &["EVAL", "return 1", "1", "fp:epoch"],
            &["ACL", "SETUSER", "decision", "on"],
            &["CLIENT", "PAUSE", "10", "WRITE"],
            &["CLIENT", "UNPAUSE"],
        ],
    ),
    (
        "decision",
        &[
            &["PING"],
            &["APPEND", ENTITY, "x"],
            &["GETEX", ENTITY, "PX", "1000"],
            &["GET", ENTITY],
            &["GET", "fp:fresh"],
            &["SET", "fp:hot", "x", "EX", "1000"],
        ],
    ),
    (
        "builder",
        &[
            &["GET", "fp:epoch"],
            &["MGET", ENTITY, "{u1}"],
            &["FCALL_RO", "fp_version", "0"],
            &["FCALL", "fp_fold", "1", ENTITY],
            &["GETRANGE", ENTITY, "0", "-1"],
            &["SET", ENTITY, "x", "EX", "1000"],
            &["HGET", "fp:vector", "c/t/0"],
            &["HMGET", "fp:vector", "c/t/0"],
            &["HGETALL", "fp:vector"],
            &["HSET", "fp:vector", "c/t/0", "1"],
            &["SET", "fp:fresh", "x"],
            &["FUNCTION", "LOAD", "REPLACE", "x"],
        ],
    ),
    ("replication", &[&["PING"], &["PSYNC", "?", "-1"], &["REPLCONF", "ack", "1"]]),
    (
        "snapshot",
        &[
            &["SYNC"],
            &["PSYNC", "?", "-1"],
            &["REPLCONF", "rdb-only", "1"],
            &["INFO", "replication"],
            &["DBSIZE"],
            &["GET", "fp:epoch"],
            &["HGETALL", "fp:vector"],
        ],
    ),
    ("monitor", &[&["PING"], &["INFO"]]),
    ("probe", &[&["PING"]]),
];

const FORBIDDEN: &[(&str, &[&[&str]])] = &[
    ("operator", &[&["GET", ENTITY], &["FLUSHALL"], &["SHUTDOWN"], &["DEBUG", "SLEEP", "1"], &["KEYS", "*"], &["ACL", "LIST"]]),
    (
        "decision",
        &[
            &["SET", ENTITY, "x"],
            &["DEL", ENTITY],
            &["SET", "fp:epoch", "9"],
            &["APPEND", "fp:epoch", "9"],
            &["SET", "fp:fresh", "x"],
            &["FCALL", "fp_fold", "1", ENTITY],
            &["FCALL_RO", "fp_version", "0"],
            &["EVAL", "return 1", "0"],
            &["CONFIG", "GET", "*"],
            &["REPLICAOF", "NO", "ONE"],
            &["CLIENT", "PAUSE", "1000"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["KEYS", "*"],
        ],
    ),
    (
        "builder",
        &[
            &["FLUSHALL"],
            &["EVAL", "return 1", "0"],
            &["CONFIG", "SET", "maxmemory", "1"],
            &["REPLICAOF", "NO", "ONE"],
            &["FUNCTION", "FLUSH"],
            &["DEL", ENTITY],
            &["SET", "other", "x"],
        ],
    ),
    ("replication", &[&["GET", ENTITY], &["INFO"]]),
    ("snapshot", &[&["GET", ENTITY], &["SET", "fp:epoch", "9"], &["CONFIG", "GET", "*"], &["REPLICAOF", "NO", "ONE"]]),
    ("monitor", &[&["GET", "fp:epoch"], &["CONFIG", "GET", "*"]]),
    ("probe", &[&["INFO"], &["GET", ENTITY]]),
];

struct Redis {
    process: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    fn start(folder: &std::path::Path, users: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Somebody has to be allowed to ask what the others may do.
        std::fs::write(folder.join("users.acl"), format!("{users}user judge on >judge allkeys +@all\n")).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", "."])
            .args(["--aclfile", "users.acl"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { process, port };
        while redis.ask("judge", "judge", &["PING"]).trim() != "PONG" {
            std::thread::sleep(Duration::from_millis(50));
        }
        redis
    }

    fn ask(&self, user: &str, password: &str, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--user", user, "--no-auth-warning"])
            .args(command)
            .env("REDISCLI_AUTH", password)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn may(&self, role: &str, command: &[&str]) -> String {
        let question: Vec<&str> = ["ACL", "DRYRUN", role].iter().chain(command).copied().collect();
        self.ask("judge", "judge", &question).trim().to_owned()
    }
}

/// The Secret of the feature store's users, as a cluster gets it.
fn users(folder: &std::path::Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder.join("credentials/us-east/secrets.yaml")).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text).map(|document| {
        let value: serde_yaml::Value = serde::Deserialize::deserialize(document).unwrap();
        serde_yaml::from_value::<BTreeMap<String, String>>(value["stringData"].clone()).unwrap()
    });
    documents.into_iter().find(|data| data.contains_key("users.acl")).unwrap()
}

fn fraud(folder: &std::path::Path, arguments: &[&str]) {
    let done = Command::new(env!("CARGO_BIN_EXE_kubectl-fraud")).args(arguments).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn every_role_may_do_its_work_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    fraud(folder.path(), &["init", "--regions", "us-east", "--out", "credentials"]);
    let redis = Redis::start(folder.path(), &users(folder.path())["users.acl"]);
    for (role, commands) in NEEDED {
        for command in *commands {
            assert_eq!(redis.may(role, command), "OK", "{role} needs {command:?}");
        }
    }
    for (role, commands) in FORBIDDEN {
        for command in *commands {
            assert!(redis.may(role, command).contains("no permission"), "{role} must not {command:?}: {}", redis.may(role, command));
        }
    }
    assert!(redis.ask("default", "", &["PING"]).contains("NOAUTH") || redis.ask("default", "x", &["PING"]).contains("NOAUTH"));
}

#[test]
fn the_current_and_the_next_password_log_in_and_after_a_rotation_the_next_one_is_current() {
    let folder = tempfile::tempdir().unwrap();
    fraud(folder.path(), &["init", "--regions", "us-east", "--out", "credentials"]);
    let before = users(folder.path());
    let redis = Redis::start(folder.path(), &before["users.acl"]);
    fraud(folder.path(), &["rotate", "--credentials", "credentials"]);
    let after = users(folder.path());
    assert_eq!(after["decision.password"], before["decision.next"]);
    for password in [&before["decision.password"], &after["decision.password"]] {
        assert_eq!(redis.ask("decision", password, &["PING"]).trim(), "PONG");
    }
    assert_ne!(redis.ask("decision", "wrong", &["PING"]).trim(), "PONG");
}
