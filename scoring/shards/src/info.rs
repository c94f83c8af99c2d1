//! The answer to INFO, as far as replication is concerned. Untrusted text: what is missing or strange is `None`.

use std::str::FromStr;

use domain::HostPort;
use operator_planner::{Link, ShardRole};

/// Where every process looks for a primary when it starts; nothing listens there.
const NOWHERE: (&str, u16) = ("127.0.0.1", 1);
/// More replicas than any shard has, fewer than would flood a report.
const REPLICAS_MAX: usize = 64;

/// Lines `name:value`.
pub(crate) struct Info<'a>(pub(crate) &'a str);

/// A line `slave0:ip=…,port=…,state=online,offset=…,lag=…` of a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaLine {
    pub(crate) address: HostPort,
    pub(crate) state: String,
    pub(crate) offset: u64,
    pub(crate) ack_age_s: u64,
}

impl Info<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    pub(crate) fn role(&self, writes_blocked: bool) -> Option<ShardRole> {
        match self.get("role")? {
            "master" if writes_blocked => Some(ShardRole::Held),
            "master" => Some(ShardRole::Primary),
            "slave" => self.replica_role(),
            _ => None,
        }
    }

    fn replica_role(&self) -> Option<ShardRole> {
        let upstream = HostPort { host: self.get("master_host")?.to_owned(), port: self.number("master_port")? };
        if (upstream.host.as_str(), upstream.port) == NOWHERE {
            return Some(ShardRole::Nowhere);
        }
        let syncing = self.get("master_sync_in_progress") == Some("1");
        let link = match self.get("master_link_status")? {
            "up" => Link::Up,
            _ if syncing => Link::Syncing,
            _ => Link::Down,
        };
        Some(ShardRole::Following { upstream, link })
    }

    /// For how long a replica has had no connection. One that never had any says -1.
    pub(crate) fn unlinked_s(&self) -> u64 {
        match self.get("master_link_status") {
            Some("down") => self.number("master_link_down_since_seconds").unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        // A replica that never had a connection says -1 or 0.
        self.number("slave_repl_offset").or_else(|| self.number("master_repl_offset")).unwrap_or(0)
    }

    pub(crate) fn replicas(&self) -> Vec<ReplicaLine> {
        (0..REPLICAS_MAX).map_while(|n| self.get(&format!("slave{n}"))).filter_map(replica_line).collect()
    }
}

fn replica_line(line: &str) -> Option<ReplicaLine> {
    let get = |name: &str| line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    Some(ReplicaLine {
        address: HostPort { host: get("ip")?.to_owned(), port: get("port")?.parse().ok()? },
        state: get("state")?.to_owned(),
        offset: get("offset")?.parse().ok()?,
        ack_age_s: get("lag")?.parse().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_says_for_how_long_it_is_alone() {
        let alone = |seconds: i64| format!("role:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:{seconds}\r\n");
        assert_eq!((Info(&alone(7)).unlinked_s(), Info(&alone(-1)).unlinked_s()), (7, u64::MAX));
        assert_eq!(Info("role:slave\r\nmaster_link_status:up\r\n").unlinked_s(), 0);
    }

    #[test]
    fn what_a_process_says_of_itself_is_understood() {
        let replica = |host: &str, port: u16, status: &str, syncing: u8| {
            format!(
                "# Replication\r\nrole:slave\r\nmaster_host:{host}\r\nmaster_port:{port}\r\nmaster_link_status:{status}\r\nmaster_sync_in_progress:{syncing}\r\nslave_repl_offset:42\r\n"
            )
        };
        let role = |text: &str, blocked| Info(text).role(blocked);
        assert_eq!(role(&replica("127.0.0.1", 1, "down", 0), false), Some(ShardRole::Nowhere));
        let following = |link| Some(ShardRole::Following { upstream: HostPort { host: "node.us-east".into(), port: 30400 }, link });
        assert_eq!(role(&replica("node.us-east", 30400, "up", 0), false), following(Link::Up));
        assert_eq!(role(&replica("node.us-east", 30400, "down", 1), false), following(Link::Syncing));
        assert_eq!(role(&replica("node.us-east", 30400, "down", 0), false), following(Link::Down));
        assert_eq!(Info(&replica("a", 1, "up", 0)).offset(), 42);
        assert_eq!(role("role:master\r\nmaster_repl_offset:7\r\n", false), Some(ShardRole::Primary));
        assert_eq!(role("role:master\r\n", true), Some(ShardRole::Held));
        for nonsense in ["", "role:sentinel", "role:slave\r\nmaster_host:x\r\n"] {
            assert_eq!(role(nonsense, false), None);
        }
    }

    #[test]
    fn the_replicas_of_a_primary_are_listed_and_strange_lines_left_out() {
        let text = "role:master\r\nslave0:ip=10.0.0.7,port=6379,state=online,offset=90,lag=1\r\nslave1:ip=x\r\n";
        let address = HostPort { host: "10.0.0.7".into(), port: 6379 };
        assert_eq!(Info(text).replicas(), [ReplicaLine { address, state: "online".into(), offset: 90, ack_age_s: 1 }]);
    }
}
