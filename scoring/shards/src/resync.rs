//! Copies that never become complete: each attempt to copy everything fails, and the next one starts from the beginning.

use domain::HostPort;
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use crate::{Finding, Health, ShardClient, ShardError, info::Info};

const MEBIBYTE: u64 = 1 << 20;
/// For how long a link may be away without a full copy, where a backlog is suggested.
const OUTAGE_S: u64 = 60;

/// Counted by a process since it started, for those that follow it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resyncs {
    /// Copies from the beginning.
    pub full: u64,
    /// Links that went on where they were.
    pub partial_ok: u64,
    /// Links that asked to go on where they were, and could not.
    pub partial_err: u64,
}

impl Resyncs {
    pub(crate) fn of(stats: &Info<'_>) -> Self {
        let count = |name| stats.number(name).unwrap_or(0);
        Self { full: count("sync_full"), partial_ok: count("sync_partial_ok"), partial_err: count("sync_partial_err") }
    }

    pub(crate) async fn ask(client: &ShardClient, connection: &mut MultiplexedConnection, address: &HostPort) -> Result<Self, ShardError> {
        let (stats,): (String,) = client.ask(connection, address, redis::pipe().cmd("INFO").arg("stats")).await?;
        Ok(Self::of(&Info(&stats)))
    }
}

/// Whether between two looks at a process its replicas were copied from the beginning again and again, and what to change.
///
/// A replica that could not go on where it was shows that the backlog does not reach back far enough; one that begins anew
/// without having asked for that was cut off in the middle of its copy, because the writes that wait for the end of the
/// copy outgrew the buffer.
pub fn resync_loop(former: &Health, now: &Health) -> Option<Finding> {
    let since = |count: fn(&Resyncs) -> u64| count(&now.resyncs).saturating_sub(count(&former.resyncs));
    let full = since(|resyncs| resyncs.full);
    let replicas = u64::try_from(former.replicas.len().max(now.replicas.len()).max(1)).unwrap_or(u64::MAX);
    // Once for each replica is what a restart of them all costs.
    if full <= replicas {
        return None;
    }
    let unable = since(|resyncs| resyncs.partial_err);
    let backlog_wanted = backlog_wanted(former, now);
    let (setting, current, line, why) = if unable > 0 {
        let why = format!(
            "{full} full copies for {replicas} replicas between two looks; {unable} times a replica could not go on where it was, because the backlog did not reach back to there"
        );
        let current = now.settings.backlog_bytes.to_string();
        ("repl-backlog-size", current, format!("repl-backlog-size {backlog_wanted}"), why)
    } else {
        let limit = now.settings.output_limit_bytes.max(backlog_wanted).saturating_mul(2);
        let why = format!(
            "{full} full copies for {replicas} replicas between two looks, each cut off before its end: the writes that waited for it outgrew the buffer of the replica (or the link was away for longer than repl-timeout)"
        );
        let current = format!("replica {}", now.settings.output_limit);
        ("client-output-buffer-limit", current, format!("client-output-buffer-limit replica {limit} 0 0"), why)
    };
    Some(Finding { address: now.address.clone(), setting, current, line, why })
}

/// Twice what there is, or what comes in while a link is away, whichever is more; in whole mebibytes.
fn backlog_wanted(former: &Health, now: &Health) -> u64 {
    let seconds = (now.time_ms.saturating_sub(former.time_ms) / 1_000).max(1);
    let bytes_per_s = now.offset.saturating_sub(former.offset) / seconds;
    bytes_per_s.saturating_mul(OUTAGE_S).max(now.settings.backlog_bytes.saturating_mul(2)).div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn health(full: u64, partial_err: u64, offset: u64, time_ms: u64) -> Health {
        Health {
            address: HostPort { host: "a".into(), port: 1 },
            role: "primary",
            epoch: None,
            holds_data: true,
            offset,
            upstream: None,
            link: None,
            heard_s_ago: None,
            link_down_s: None,
            replicas: Vec::new(),
            resyncs: Resyncs { full, partial_ok: 0, partial_err },
            used_memory_bytes: 0,
            settings: Settings {
                backlog_bytes: MEBIBYTE,
                output_limit: "1048576 0 0".into(),
                output_limit_bytes: MEBIBYTE,
                ..Settings::default()
            },
            time_ms,
        }
    }

    #[test]
    fn one_full_copy_for_each_replica_is_no_loop() {
        assert_eq!(resync_loop(&health(4, 0, 0, 0), &health(5, 1, 0, 1_000)), None);
    }

    #[test]
    fn a_backlog_that_is_too_small_gets_the_size_that_the_writes_of_an_outage_need() {
        let found = resync_loop(&health(1, 0, 0, 0), &health(4, 3, 10 * MEBIBYTE, 10_000)).unwrap();
        assert_eq!(found.line, format!("repl-backlog-size {}", 60 * MEBIBYTE));
    }

    #[test]
    fn copies_that_are_cut_off_need_a_larger_buffer() {
        let found = resync_loop(&health(1, 0, 0, 0), &health(4, 0, 0, 10_000)).unwrap();
        assert_eq!((found.setting, found.line.as_str()), ("client-output-buffer-limit", "client-output-buffer-limit replica 4194304 0 0"));
    }
}
