//! Settings without which replication or promotion goes wrong one day, and the line of redis.conf that mends each.

use std::collections::BTreeMap;

use domain::HostPort;
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use crate::{NO_WRITES, ShardClient, ShardError, info::Info, planned};

const MEBIBYTE: u64 = 1 << 20;
/// What the planner's waiting for a silent primary is made for.
const LAG_S_MAX: u64 = 2;

/// A setting that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub address: HostPort,
    pub setting: &'static str,
    pub current: String,
    /// The line of redis.conf to have instead.
    pub line: String,
    pub why: String,
}

/// What depends on the region's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSettings {
    /// For as long as a link may be away: bytes of writes a second times that.
    pub backlog_bytes_min: u64,
    /// Functions came with Redis 7.0.
    pub version_min: (u64, u64),
}

impl Default for WantedSettings {
    fn default() -> Self {
        Self { backlog_bytes_min: 8 * MEBIBYTE, version_min: (7, 0) }
    }
}

/// As the process has them now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub version: String,
    pub maxmemory_bytes: u64,
    pub maxmemory_policy: String,
    pub backlog_bytes: u64,
    pub backlog_ttl_s: u64,
    /// For replicas: hard limit, soft limit, seconds.
    pub output_limit: String,
    pub output_limit_bytes: u64,
    pub min_replicas_to_write: u64,
    pub min_replicas_lag_s_max: u64,
    pub ping_period_s: u64,
    pub repl_timeout_s: u64,
    pub diskless_sync: bool,
    pub replica_read_only: bool,
    pub cluster_enabled: bool,
}

const NAMES: &[&str] = &[
    "maxmemory",
    "maxmemory-policy",
    "repl-backlog-size",
    "repl-backlog-ttl",
    "client-output-buffer-limit",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "repl-ping-replica-period",
    "repl-timeout",
    "repl-diskless-sync",
    "replica-read-only",
    "cluster-enabled",
];

impl ShardClient {
    /// What is wrong with a process's version and settings.
    ///
    /// # Errors
    /// When the process does not answer in time or not as Redis does.
    pub async fn check_settings(&self, address: &HostPort, wanted: &WantedSettings) -> Result<Vec<Finding>, ShardError> {
        self.visit(address).await?.check_settings(wanted).await
    }
}

impl Settings {
    pub(crate) async fn ask(
        client: &ShardClient,
        connection: &mut MultiplexedConnection,
        address: &HostPort,
        server: &str,
    ) -> Result<Self, ShardError> {
        let mut pipe = redis::pipe();
        for name in NAMES {
            pipe.cmd("CONFIG").arg("GET").arg(*name);
        }
        // One answer for each name: the name again and its value, or nothing where this version does not know it.
        let answers: Vec<Vec<String>> = client.ask(connection, address, &pipe).await?;
        let values = answers.into_iter().filter_map(|answer| Some((answer.first()?.clone(), answer.get(1)?.clone()))).collect();
        Ok(Self::of(Info(server).get("redis_version").unwrap_or_default(), &values))
    }

    fn of(version: &str, values: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| values.get(name).cloned().unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let output_limit = replica_limit(&text("client-output-buffer-limit"));
        Self {
            version: version.to_owned(),
            maxmemory_bytes: number("maxmemory"),
            maxmemory_policy: text("maxmemory-policy"),
            backlog_bytes: number("repl-backlog-size"),
            backlog_ttl_s: number("repl-backlog-ttl"),
            output_limit_bytes: output_limit.split(' ').next().and_then(|hard| hard.parse().ok()).unwrap_or(0),
            output_limit,
            min_replicas_to_write: number("min-replicas-to-write"),
            min_replicas_lag_s_max: number("min-replicas-max-lag"),
            ping_period_s: number("repl-ping-replica-period"),
            repl_timeout_s: number("repl-timeout"),
            diskless_sync: text("repl-diskless-sync") == "yes",
            replica_read_only: text("replica-read-only") == "yes",
            cluster_enabled: text("cluster-enabled") == "yes",
        }
    }

    /// What is not as it has to be, each with the line to have instead.
    pub fn findings(&self, address: &HostPort, wanted: &WantedSettings) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut note = |wrong: bool, setting: &'static str, current: String, line: String, why: &str| {
            if wrong {
                found.push(Finding { address: address.clone(), setting, current, line, why: why.to_owned() });
            }
        };
        self.note_version(wanted, &mut note);
        self.note_memory(&mut note);
        self.note_replication(wanted, &mut note);
        self.note_promotion(&mut note);
        found
    }

    fn note_version(&self, wanted: &WantedSettings, note: &mut impl FnMut(bool, &'static str, String, String, &str)) {
        let (major, minor) = wanted.version_min;
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0_u64));
        let have = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let why = "CLIENT PAUSE … WRITE needs 6.2, the builder's function needs 7.0";
        note(have < wanted.version_min, "redis-server", self.version.clone(), format!("redis-server {major}.{minor} or newer"), why);
        let why = "Redis refuses REPLICAOF in cluster mode";
        note(self.cluster_enabled, "cluster-enabled", "yes".into(), "cluster-enabled no".into(), why);
    }

    fn note_memory(&self, note: &mut impl FnMut(bool, &'static str, String, String, &str)) {
        let policy = &self.maxmemory_policy;
        let why = "any other policy drops events of customers without a word, and on each side others";
        note(policy != "noeviction", "maxmemory-policy", policy.clone(), "maxmemory-policy noeviction".into(), why);
    }

    fn note_replication(&self, wanted: &WantedSettings, note: &mut impl FnMut(bool, &'static str, String, String, &str)) {
        let (backlog, least) = (self.backlog_bytes, wanted.backlog_bytes_min);
        let why = "a replica that was away for longer than the backlog reaches back copies everything again";
        note(backlog < least, "repl-backlog-size", backlog.to_string(), format!("repl-backlog-size {least}"), why);
        let why = "a primary whose replicas are away for longer forgets the backlog, and they copy everything again";
        note(self.backlog_ttl_s != 0, "repl-backlog-ttl", self.backlog_ttl_s.to_string(), "repl-backlog-ttl 0".into(), why);
        let limit = backlog.max(least).saturating_mul(2);
        let why = "writes that come in during a full copy wait in this buffer: a replica whose buffer outgrows it is cut off and begins anew. The hard limit has to be above the backlog, the soft limit off";
        let soft = self.output_limit.split(' ').skip(1).any(|part| part != "0");
        let low = self.output_limit_bytes != 0 && self.output_limit_bytes < backlog.max(least);
        let line = format!("client-output-buffer-limit replica {limit} 0 0");
        note(low || soft, "client-output-buffer-limit", format!("replica {}", self.output_limit), line, why);
        let why = "a copy through the disk of the primary slows it down for long";
        note(!self.diskless_sync, "repl-diskless-sync", "no".into(), "repl-diskless-sync yes".into(), why);
        let why = "a write to a copy is lost, and makes the copy differ";
        note(!self.replica_read_only, "replica-read-only", "no".into(), "replica-read-only yes".into(), why);
    }

    fn note_promotion(&self, note: &mut impl FnMut(bool, &'static str, String, String, &str)) {
        let lag_s_max = self.min_replicas_lag_s_max;
        let why = if lag_s_max == 0 {
            "0 switches min-replicas-to-write off, which keeps an old primary from taking writes after a promotion"
        } else {
            "a primary that lost its replica goes on taking writes for longer than the operator waits before it promotes another one"
        };
        let wrong = lag_s_max == 0 || lag_s_max > LAG_S_MAX;
        note(wrong, "min-replicas-max-lag", lag_s_max.to_string(), format!("min-replicas-max-lag {LAG_S_MAX}"), why);
        let interrupted = self.ping_period_s == planned::SILENT_S;
        let why = if interrupted {
            "an interrupted promotion has left this behind: repeat it, or set it back"
        } else {
            "replicas that hear nothing for repl-timeout give their link up"
        };
        let quiet = self.ping_period_s.saturating_mul(2) > self.repl_timeout_s;
        note(quiet, "repl-ping-replica-period", self.ping_period_s.to_string(), "repl-ping-replica-period 1".into(), why);
        let why = "the process refuses writes: it is held as a copy, or an interrupted promotion has fenced it. Promote it, or repeat the promotion";
        let fenced = self.min_replicas_to_write == NO_WRITES;
        note(fenced && interrupted, "min-replicas-to-write", NO_WRITES.to_string(), "min-replicas-to-write 0".into(), why);
    }
}

/// Of `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60` the three numbers after `slave`.
fn replica_limit(all: &str) -> String {
    let words = all.split(' ').skip_while(|word| *word != "slave" && *word != "replica").skip(1).take(3);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changes: &[(&str, &str)]) -> Settings {
        let good = [
            ("maxmemory", "1000"),
            ("maxmemory-policy", "noeviction"),
            ("repl-backlog-size", "16777216"),
            ("repl-backlog-ttl", "0"),
            ("client-output-buffer-limit", "normal 0 0 0 slave 33554432 0 0 pubsub 1 1 1"),
            ("min-replicas-to-write", "1"),
            ("min-replicas-max-lag", "2"),
            ("repl-ping-replica-period", "1"),
            ("repl-timeout", "10"),
            ("repl-diskless-sync", "yes"),
            ("replica-read-only", "yes"),
            ("cluster-enabled", "no"),
        ];
        let values = good.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::of("7.0.15", &values)
    }

    fn lines(settings: &Settings) -> Vec<String> {
        let address = HostPort { host: "a".into(), port: 1 };
        settings.findings(&address, &WantedSettings::default()).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn the_operators_settings_are_in_order() {
        assert_eq!(lines(&settings(&[])), Vec::<String>::new());
        assert_eq!(lines(&settings(&[("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0")])), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_setting_names_the_line_to_have_instead() {
        let cases = [
            (("maxmemory-policy", "allkeys-lru"), "maxmemory-policy noeviction"),
            (("repl-backlog-ttl", "3600"), "repl-backlog-ttl 0"),
            (("client-output-buffer-limit", "normal 0 0 0 slave 1048576 0 0"), "client-output-buffer-limit replica 33554432 0 0"),
            (("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60"), "client-output-buffer-limit replica 33554432 0 0"),
            (("min-replicas-max-lag", "0"), "min-replicas-max-lag 2"),
            (("min-replicas-max-lag", "10"), "min-replicas-max-lag 2"),
            (("repl-ping-replica-period", "10"), "repl-ping-replica-period 1"),
            (("repl-diskless-sync", "no"), "repl-diskless-sync yes"),
            (("replica-read-only", "no"), "replica-read-only yes"),
            (("cluster-enabled", "yes"), "cluster-enabled no"),
        ];
        for (change, line) in cases {
            assert_eq!(lines(&settings(&[change])), [line], "{change:?}");
        }
        assert_eq!(lines(&settings(&[("repl-backlog-size", "1048576")])), ["repl-backlog-size 8388608"]);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let of = |version: &str| lines(&Settings { version: version.into(), ..settings(&[]) });
        assert_eq!(of("6.2.14"), ["redis-server 7.0 or newer"]);
        assert_eq!(of(""), ["redis-server 7.0 or newer"]);
        assert!(of("10.0.0").is_empty() && of("7.0.15").is_empty());
    }

    #[test]
    fn what_an_interrupted_promotion_left_behind_is_named() {
        let silent = planned::SILENT_S.to_string();
        let found = lines(&settings(&[("repl-ping-replica-period", &silent), ("min-replicas-to-write", "255")]));
        assert_eq!(found, ["repl-ping-replica-period 1", "min-replicas-to-write 0"]);
    }
}
