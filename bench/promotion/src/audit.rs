//! Reads everything back that was acknowledged.

use anyhow::Result;
use redis_testbed::Server;

use crate::writer::{Acknowledged, key};

const KEYS_AT_ONCE: usize = 500;

/// How many acknowledged writes the primaries do not hold as they were written.
pub(crate) fn lost(acknowledged: &[Acknowledged], primaries: &[Server]) -> Result<u64> {
    let mut lost = 0;
    for (shard, primary) in (0..).zip(primaries) {
        let own: Vec<Acknowledged> = acknowledged.iter().copied().filter(|write| write.0 == shard).collect();
        let mut connection = primary.connection()?;
        for writes in own.chunks(KEYS_AT_ONCE) {
            let keys: Vec<String> = writes.iter().copied().map(key).collect();
            let values: Vec<Option<u64>> = redis::cmd("MGET").arg(keys).query(&mut connection)?;
            let held = writes.iter().zip(values).filter(|(write, value)| *value == Some(write.1)).count();
            lost += u64::try_from(writes.len().saturating_sub(held))?;
        }
    }
    Ok(lost)
}
