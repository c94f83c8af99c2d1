//! A process that comes near to its memory limit: at the limit it takes no events any more.

use crate::{Finding, Health};

/// From here on it is time to act, in percent of the limit.
const NEAR_PERCENT: u64 = 80;

/// Whether a process is near to its limit, and what to have instead. A process without a limit is never near to it.
pub fn near_memory_limit(health: &Health) -> Option<Finding> {
    let (used, limit) = (health.used_memory_bytes, health.settings.maxmemory_bytes);
    let near = limit > 0 && used.saturating_mul(100) >= limit.saturating_mul(NEAR_PERCENT);
    near.then(|| Finding {
        address: health.address.clone(),
        setting: "maxmemory",
        current: limit.to_string(),
        line: format!("maxmemory {}", limit.max(used).saturating_mul(2)),
        why: format!(
            "{used} bytes are used, which is {NEAR_PERCENT} % of the limit or more: at the limit no event is taken, and decisions are made without them. Give the shards more memory, or have more shards"
        ),
    })
}
