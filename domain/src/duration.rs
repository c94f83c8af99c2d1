//! Durations as they are written in configuration: `500ms`, `3s`, `10m`, `4h`, `7d`.
//!
//! Use with `#[serde(with = "domain::duration")]`.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Larger units first, in milliseconds.
const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("duration {given:?} is not allowed: write a whole number and a unit, such as 500ms, 3s, 10m, 4h or 7d")]
pub struct InvalidDuration {
    given: String,
}

/// # Errors
/// When the text is not a whole number followed by one of the units `ms`, `s`, `m`, `h`, `d`, or is too large.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let refused = || InvalidDuration { given: text.chars().take(32).collect() };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
    number.checked_mul(*factor).map(Duration::from_millis).ok_or_else(refused)
}

/// Writes whole milliseconds in the largest unit that holds them exactly.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = UNITS.iter().find(|(_, factor)| ms > 0 && ms % factor == 0).unwrap_or(&("ms", 1));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{}{unit}", ms / factor);
    text
}

/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// # Errors
/// When the value is not a string that [`parse`] accepts.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_back_what_it_wrote() {
        for text in ["0ms", "1ms", "500ms", "3s", "90s", "10m", "4h", "7d"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(Duration::from_secs(60)), "1m");
    }

    #[test]
    fn what_is_not_a_number_with_a_unit_is_refused() {
        for bad in ["", "5", "ms", "-1s", "1.5s", "1 s", "1w", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
