//! How long each step of a planned promotion may take.

use std::time::Duration;

/// Every step has a deadline; before the first process is promoted, a missed one undoes everything.
#[derive(Debug, Clone)]
pub struct PlannedOptions {
    /// How long the old primaries are paused at most, and how long we may go on: after it nothing is promoted and nothing is
    /// opened again. Must end before anybody else may begin to act, so not later than the coordinator's own lease.
    pub lease: Duration,
    pub prepare_within: Duration,
    /// From the pause until all copies have everything.
    pub catch_up_within: Duration,
    pub promote_within: Duration,
    /// Until the old primary has become a copy. Nothing waits for it.
    pub rejoin_within: Duration,
    /// A copy that is further behind is not waited for with writes paused.
    pub lag_bytes_max: u64,
    /// What `repl-ping-replica-period` is set to where an interrupted promotion has left its own value behind.
    pub ping_period_s: u64,
}

impl Default for PlannedOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            prepare_within: Duration::from_secs(3),
            catch_up_within: Duration::from_secs(2),
            promote_within: Duration::from_secs(1),
            rejoin_within: Duration::from_secs(10),
            lag_bytes_max: 4 << 20,
            ping_period_s: 1,
        }
    }
}

impl PlannedOptions {
    pub(crate) fn check(&self) -> Result<(), String> {
        let needed = self.catch_up_within.saturating_add(self.promote_within);
        if needed >= self.lease {
            return Err(format!(
                "lease is {} ms, which is not more than catching up and promoting may take ({} ms): raise lease",
                self.lease.as_millis(),
                needed.as_millis()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_cannot_suffice_is_refused_before_anything_is_paused() {
        assert!(PlannedOptions::default().check().is_ok());
        let short = PlannedOptions { lease: Duration::from_secs(3), ..PlannedOptions::default() };
        assert!(short.check().unwrap_err().contains("raise lease"));
    }
}
