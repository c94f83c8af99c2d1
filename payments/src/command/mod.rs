//! The subcommands: each reads its arguments, does its work, and says what to do when it cannot. IO.

mod features;
mod replay;
mod sending;
mod stream;

pub use features::FeaturesArgs;
pub use replay::ReplayArgs;
pub use stream::StreamArgs;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// The year after this one: cards of generated payments are valid until then at least.
fn next_year(now_ms: i64) -> u32 {
    const MEAN_YEAR_MS: i64 = 31_556_952_000;
    u32::try_from(1971 + now_ms / MEAN_YEAR_MS).unwrap_or(1971)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    domain::duration::parse(text).map_err(|error| error.to_string())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number of payments per second, such as 250".to_owned())?;
    if (0.1..=100_000.0).contains(&rate) { Ok(rate) } else { Err("between 0.1 and 100000 payments per second are possible".to_owned()) }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.5).contains(share));
    share.ok_or_else(|| "write a share between 0 and 0.5, such as 0.015".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_valid_for_at_least_this_year() {
        let ms_of = |days_since_1970: i64| days_since_1970 * 86_400_000;
        // 2026-11-22 and 2026-01-02.
        assert_eq!(next_year(ms_of(20_779)), 2027);
        assert_eq!(next_year(ms_of(20_455)), 2027);
    }
}
