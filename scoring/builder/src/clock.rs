//! Time. Ages are computed by a clock that never jumps; event times and what is published are wall-clock milliseconds.

use std::time::{Instant, SystemTime};

/// Wall-clock milliseconds: event times are compared with them.
pub(crate) fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Begins at the wall clock and goes on by itself, whatever becomes of that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyClock {
    began_ms: i64,
    began: Instant,
}

impl SteadyClock {
    pub(crate) fn start() -> Self {
        Self { began_ms: now_ms(), began: Instant::now() }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.began_ms.saturating_add(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}
