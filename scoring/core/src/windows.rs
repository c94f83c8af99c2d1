//! Which windows there are. Pure. What they hold is in [`crate::evaluate`].

use std::{fmt, str::FromStr, time::Duration};

use domain::duration::{self, InvalidDuration};
use serde::{Deserialize, Serialize};

use crate::state::EVENTS_PER_ENTITY_MAX;

const WINDOWS_MAX: usize = 8;
const HOUR_MS: i64 = 3_600_000;
const LENGTH_MS_MAX: i64 = 7 * 24 * HOUR_MS;
const SKEW_MS_MAX: i64 = 60_000;
const EVENTS_MAX: usize = 65_536;

/// The length of a window, such as `1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    length_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindows {
    #[error(transparent)]
    Unreadable(#[from] InvalidDuration),
    #[error("window {0}: a window is 1ms to 168h long")]
    Length(String),
    #[error("windows: give 1 to {WINDOWS_MAX} windows, each longer than the one before it, such as [5s, 1m, 1h, 24h]")]
    Order,
    #[error("clock skew {0}: at most 60s can be allowed for")]
    Skew(String),
    #[error("events per entity: {0} is not within 1 to {EVENTS_MAX}")]
    EventsMax(usize),
}

impl Window {
    /// # Errors
    /// When the length is 0 or more than seven days.
    pub fn new(length: Duration) -> Result<Self, InvalidWindows> {
        let length_ms = i64::try_from(length.as_millis()).ok().filter(|ms| (1..=LENGTH_MS_MAX).contains(ms));
        length_ms.map(|length_ms| Self { length_ms }).ok_or_else(|| InvalidWindows::Length(duration::format(length)))
    }

    pub fn length_ms(self) -> i64 {
        self.length_ms
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A day is "24h" in manifests, in the names of features and here.
        match (self.length_ms % HOUR_MS, self.length_ms / HOUR_MS) {
            (0, hours) => write!(f, "{hours}h"),
            _ => f.write_str(&duration::format(Duration::from_millis(self.length_ms.unsigned_abs()))),
        }
    }
}

impl FromStr for Window {
    type Err = InvalidWindows;
    fn from_str(text: &str) -> Result<Self, InvalidWindows> {
        Self::new(duration::parse(text)?)
    }
}

impl TryFrom<String> for Window {
    type Error = InvalidWindows;
    fn try_from(text: String) -> Result<Self, InvalidWindows> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

/// Everything that fixes what a window feature is: part of the fingerprint of the feature schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    lengths: Vec<Window>,
    skew_ms: i64,
    events_max: usize,
}

impl Default for Windows {
    /// 5s, 1m, 1h and 24h, half a second of clock skew, 512 events an entity.
    fn default() -> Self {
        let lengths = [5_000, 60_000, 3_600_000, 86_400_000].map(|length_ms| Window { length_ms }).to_vec();
        Self { lengths, skew_ms: 500, events_max: EVENTS_PER_ENTITY_MAX }
    }
}

impl Windows {
    /// # Errors
    /// When there are none or too many, when they do not rise, or when skew or cap are out of bounds.
    pub fn new(lengths: Vec<Window>, skew: Duration, events_max: usize) -> Result<Self, InvalidWindows> {
        let rising = lengths.windows(2).all(|pair| pair[0] < pair[1]);
        if lengths.is_empty() || lengths.len() > WINDOWS_MAX || !rising {
            return Err(InvalidWindows::Order);
        }
        let skew_ms = i64::try_from(skew.as_millis()).ok().filter(|ms| *ms <= SKEW_MS_MAX);
        let skew_ms = skew_ms.ok_or_else(|| InvalidWindows::Skew(duration::format(skew)))?;
        if !(1..=EVENTS_MAX).contains(&events_max) {
            return Err(InvalidWindows::EventsMax(events_max));
        }
        Ok(Self { lengths, skew_ms, events_max })
    }

    /// Shortest first.
    pub fn lengths(&self) -> &[Window] {
        &self.lengths
    }

    pub fn longest(&self) -> Window {
        self.lengths.last().copied().unwrap_or(Window { length_ms: LENGTH_MS_MAX })
    }

    pub fn skew_ms(&self) -> i64 {
        self.skew_ms
    }

    /// How many records of an entity count.
    pub fn events_max(&self) -> usize {
        self.events_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_named_as_manifests_write_them() {
        for text in ["5s", "1m", "1h", "24h", "1500ms"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn windows_that_do_not_rise_are_refused() {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Window>>();
        assert!(Windows::new(parse(&["5s", "1m"]), Duration::ZERO, 512).is_ok());
        assert_eq!(Windows::new(parse(&["1m", "5s"]), Duration::ZERO, 512), Err(InvalidWindows::Order));
        assert_eq!(Windows::new(vec![], Duration::ZERO, 512), Err(InvalidWindows::Order));
        assert!(matches!("8d".parse::<Window>(), Err(InvalidWindows::Length(_))));
        assert!(matches!(Windows::new(parse(&["5s"]), Duration::from_secs(61), 512), Err(InvalidWindows::Skew(_))));
    }
}
