//! Decimal numbers as configuration files write them. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

/// A decimal number of at most 18 digits, such as `0.15`. Kept as written, so that money and probabilities are never
/// rounded by a binary fraction before they are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    digits: i64,
    scale: u32,
}

const DIGITS_MAX: usize = 18;

impl Decimal {
    /// `digits` divided by ten to the power of `scale` (at most 18).
    pub const fn new(digits: i64, scale: u32) -> Self {
        Self { digits, scale: if scale > 18 { 18 } else { scale } }
    }

    #[allow(clippy::cast_precision_loss)] // at most 18 digits: the nearest double is what is wanted
    pub fn as_f64(self) -> f64 {
        self.digits as f64 / 10_i64.pow(self.scale) as f64
    }
}

impl FromStr for Decimal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{:?} is not a decimal number such as \"0.15\" or \"100\"", text.chars().take(40).collect::<String>());
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
        let digits = format!("{whole}{fraction}");
        let plain = !whole.is_empty() && digits.len() <= DIGITS_MAX && digits.bytes().all(|b| b.is_ascii_digit());
        if !plain || rest.ends_with('.') {
            return Err(refused());
        }
        let value: i64 = digits.parse().map_err(|_| refused())?;
        let scale = u32::try_from(fraction.len()).map_err(|_| refused())?;
        Ok(Self::new(if negative { -value } else { value }, scale))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        assert_eq!(decimal("0.15"), Decimal::new(15, 2));
        assert!((decimal("-0.5").as_f64() + 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_not_a_decimal_is_refused_with_an_example() {
        for bad in ["", ".", "1.", ".5", "1e3", "NaN", "1,5", "--1", "1234567890123456789", "٣"] {
            assert!(bad.parse::<Decimal>().unwrap_err().contains("0.15"), "{bad}");
        }
    }
}
