//! The transactions that change what a process is.

use domain::{Epoch, HostPort};
use redis::Pipeline;

use crate::{EPOCH_KEY, NO_WRITES};

const WRITE_EPOCH: &str = "return redis.call('SET', KEYS[1], ARGV[1])";

/// What a process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Primary,
    Follow(HostPort),
    /// Takes no writes and gives copies.
    Hold,
    /// As a primary, takes writes only while so many replicas have them at hand.
    Require(u64),
}

pub(crate) fn transaction(change: &Change, epoch: Epoch) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    match change {
        Change::Primary => {
            set(&mut pipe, "min-replicas-to-write", 0);
            pipe.cmd("REPLICAOF").arg("NO").arg("ONE");
            pipe.cmd("EVAL").arg(WRITE_EPOCH).arg(1).arg(EPOCH_KEY).arg(epoch.0);
        }
        Change::Follow(upstream) => {
            pipe.cmd("REPLICAOF").arg(&upstream.host).arg(upstream.port);
        }
        Change::Hold => {
            set(&mut pipe, "min-replicas-to-write", NO_WRITES);
            pipe.cmd("REPLICAOF").arg("NO").arg("ONE");
        }
        Change::Require(replicas) => set(&mut pipe, "min-replicas-to-write", *replicas),
    }
    pipe
}

pub(crate) fn set(pipe: &mut Pipeline, setting: &str, value: u64) {
    pipe.cmd("CONFIG").arg("SET").arg(setting).arg(value);
}
