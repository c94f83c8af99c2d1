//! Values that are written as text and kept as written: durations, decimals, digests, quantities.
//!
//! Reading an object never fails because of one of these: a stored value that no longer parses would otherwise stop
//! the watch of every pipeline. The API server checks them on the way in; whoever needs the number parses it and
//! handles the error. Pure.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A text of the manifest that does not say what its field needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct InvalidText {
    given: String,
    expected: &'static str,
}

impl InvalidText {
    fn new(given: &str, expected: &'static str) -> Self {
        Self { given: given.chars().take(64).collect(), expected }
    }
}

/// Declares a text newtype whose schema carries a CEL rule, so that a refusal says what to write instead of quoting
/// a regular expression.
macro_rules! text {
    ($(#[$doc:meta])* $type:ident, length_max: $length_max:literal, rule: $rule:expr, message: $message:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "maxLength": $length_max,
                    "x-kubernetes-validations": [{ "rule": $rule, "message": $message }],
                })
            }
        }
    };
}

text!(
    /// A length of time, such as `500ms`, `3s` or `1h30m`.
    DurationText,
    length_max: 24,
    rule: "self.matches('^([0-9]{1,9}(ms|s|m|h))+$')",
    message: "write a duration such as \"500ms\", \"3s\", \"10m\" or \"4h\""
);

text!(
    /// A length of time that may also be written in days, such as `7d`.
    RetentionText,
    length_max: 24,
    rule: "self.matches('^([0-9]{1,9}(s|m|h|d))+$')",
    message: "write a period such as \"7d\" or \"36h\""
);

text!(
    /// A number that is never a float: an amount of money, or a difference in log-odds.
    DecimalText,
    length_max: 24,
    rule: "self.matches('^[0-9]{1,12}([.][0-9]{1,9})?$')",
    message: "write a decimal number in quotes, such as \"100\" or \"0.25\""
);

text!(
    /// A probability or a share, from 0 to 1.
    ProbabilityText,
    length_max: 12,
    rule: "self.matches('^(0([.][0-9]{1,9})?|1([.]0{1,9})?)$')",
    message: "write a decimal number from 0 to 1 in quotes, such as \"0.9\""
);

text!(
    /// A SHA-256 digest in lower-case hexadecimal.
    Sha256Text,
    length_max: 64,
    rule: "self.matches('^[0-9a-f]{64}$')",
    message: "write the SHA-256 digest as 64 lower-case hexadecimal digits, as sha256sum prints it"
);

text!(
    /// The name of a region, as in `spec.regions`.
    RegionNameText,
    length_max: 63,
    rule: "self.matches('^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$')",
    message: "use 1 to 32 lower-case letters, digits and '-', starting and ending with a letter or digit"
);

text!(
    /// The name of a Kubernetes object in the pipeline's namespace.
    ObjectNameText,
    length_max: 253,
    rule: "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    message: "write the name of an object: lower-case letters, digits, '-' and '.'"
);

text!(
    /// A host name or an IP address.
    HostText,
    length_max: 253,
    rule: "self.matches('^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$')",
    message: "write a host name or an IP address, without scheme or port"
);

text!(
    /// A host name in which `{shard}` may stand for the number of a shard.
    HostTemplateText,
    length_max: 253,
    rule: "self.matches('^([A-Za-z0-9.-]|[{]shard[}])+$')",
    message: "write a host name, with {shard} where the number of the shard belongs, such as \"fs-{shard}.us-east.example.com\""
);

text!(
    /// The name of a Kafka topic.
    TopicText,
    length_max: 200,
    rule: "self.matches('^[A-Za-z0-9._-]+$')",
    message: "write the name of a topic: letters, digits, '.', '_' and '-'"
);

text!(
    /// `host:port`.
    HostPortText,
    length_max: 260,
    rule: "self.matches('^[A-Za-z0-9.-]+:[0-9]{1,5}$')",
    message: "write host:port, such as \"kafka.us-east:9092\""
);

text!(
    /// A block of IP addresses, such as `10.1.0.0/16`.
    CidrText,
    length_max: 43,
    rule: "isCIDR(self)",
    message: "write a block of addresses such as \"10.1.0.0/16\""
);

text!(
    /// An IPv4 or IPv6 address.
    AddressText,
    length_max: 39,
    rule: "isIP(self)",
    message: "write an IP address such as \"203.0.113.10\""
);

text!(
    /// An `http://` or `https://` address without a path that matters.
    EndpointText,
    length_max: 253,
    rule: "self.matches('^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[^ ]*)?$')",
    message: "write an http:// or https:// address, such as \"https://s3.us-east.example.com\""
);

text!(
    /// Where a model is fetched from.
    ModelUriText,
    length_max: 512,
    rule: "self.matches('^(s3|https?|file)://[^ ]+$')",
    message: "write where the model is: s3://bucket/key, https://host/path, http://host/path or file:///path"
);

text!(
    /// Version of the data plane, as in the chart's value `images`.
    VersionText,
    length_max: 32,
    rule: "self.matches('^[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z.-]+)?$')",
    message: "write a version such as \"0.3.0\""
);

text!(
    /// When a schedule fires: five fields, minute hour day-of-month month day-of-week, in UTC.
    CronText,
    length_max: 64,
    rule: "self.matches('^[0-9*/,-]+ [0-9*/,-]+ [0-9*/,-]+ [0-9A-Za-z*/,-]+ [0-9A-Za-z*/,-]+$')",
    message: "write a schedule of five fields: minute hour day month weekday, such as \"0 3 * * 1\""
);

const A_DURATION: &str = "a duration such as \"500ms\", \"3s\", \"10m\", \"4h\" or \"7d\"";

/// Sums the parts of `1h30m`. `None` when a part has no unit or no number, or when the sum does not fit.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().ok()?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = tail;
    }
    Some(total)
}

impl DurationText {
    /// # Errors
    /// When the text is not a duration; the API server admits none such.
    pub fn to_std(&self) -> Result<Duration, InvalidText> {
        parse_duration(&self.0).ok_or_else(|| InvalidText::new(&self.0, A_DURATION))
    }
}

impl RetentionText {
    /// # Errors
    /// When the text is not a duration; the API server admits none such.
    pub fn to_std(&self) -> Result<Duration, InvalidText> {
        parse_duration(&self.0).ok_or_else(|| InvalidText::new(&self.0, A_DURATION))
    }
}

/// Reads digits with at most one point; signs, exponents and `NaN`, which `f64` would also read, are refused.
fn parse_decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value: f64 = if plain { text.parse().ok()? } else { return None };
    value.is_finite().then_some(value)
}

impl DecimalText {
    /// The nearest floating-point number, for comparisons; the text itself stays exact.
    ///
    /// # Errors
    /// When the text is not a decimal number; the API server admits none such.
    pub fn to_f64(&self) -> Result<f64, InvalidText> {
        parse_decimal(&self.0).ok_or_else(|| InvalidText::new(&self.0, "a decimal number such as \"0.25\""))
    }
}

impl ProbabilityText {
    /// # Errors
    /// When the text is not a number from 0 to 1; the API server admits none such.
    pub fn to_f64(&self) -> Result<f64, InvalidText> {
        parse_decimal(&self.0)
            .filter(|value| (0.0..=1.0).contains(value))
            .ok_or_else(|| InvalidText::new(&self.0, "a decimal number from 0 to 1"))
    }
}

/// A Kubernetes quantity: `64Mi`, `500m`, `2`. A plain number is read too, and kept as its digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct QuantityText(String);

impl QuantityText {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whole units, rounded up: bytes for memory and volumes.
    ///
    /// # Errors
    /// When the text is not a quantity; the API server admits none such.
    pub fn to_units(&self) -> Result<u64, InvalidText> {
        parse_quantity(&self.0).ok_or_else(|| InvalidText::new(&self.0, "a quantity such as \"64Mi\" or \"10Gi\""))
    }
}

/// Reads `[digits][.digits][suffix]` without going through floating point, so that `0.1Gi` is exact.
fn parse_quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (scale, divisor): (u128, u128) = match suffix {
        "" => (1, 1),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut parts: u128 = 1;
    for _ in 0..fraction.len() {
        parts *= 10;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let units = digits.checked_mul(scale)?.div_ceil(parts * divisor);
    u64::try_from(units).ok()
}

impl fmt::Display for QuantityText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for QuantityText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for QuantityText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(i64),
            String(String),
        }
        Ok(match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => Self(number.to_string()),
            IntOrString::String(text) => Self(text),
        })
    }
}

impl JsonSchema for QuantityText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "QuantityText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [{
                "rule": "type(self) == string ? isQuantity(self) && quantity(self).isGreaterThan(quantity('0')) : self > 0",
                "message": "write a quantity above zero, such as \"64Mi\", \"10Gi\" or \"500m\"",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_parts_and_kept_as_written() {
        let text = DurationText::from("1h30m");
        assert_eq!(text.to_std().unwrap(), Duration::from_secs(5_400));
        assert_eq!(text.as_str(), "1h30m");
        assert_eq!(DurationText::from("500ms").to_std().unwrap(), Duration::from_millis(500));
        assert_eq!(RetentionText::from("7d").to_std().unwrap(), Duration::from_secs(604_800));
        for bad in ["", "3", "s", "3 s", "-3s", "3x", "1.5s", "99999999999999999999s", "3s4"] {
            let error = DurationText::from(bad).to_std().unwrap_err().to_string();
            assert!(error.contains("a duration such as"), "{bad}: {error}");
        }
    }

    #[test]
    fn decimals_refuse_what_is_not_plain_digits() {
        assert!((DecimalText::from("0.25").to_f64().unwrap() - 0.25).abs() < f64::EPSILON);
        for bad in ["", ".", "NaN", "inf", "1e9", "-1", "+1", "1.2.3"] {
            assert!(DecimalText::from(bad).to_f64().is_err(), "{bad}");
        }
        assert!(ProbabilityText::from("1.1").to_f64().is_err());
        assert!(ProbabilityText::from("1").to_f64().is_ok());
    }

    #[test]
    fn quantities_are_exact_and_plain_numbers_are_read() {
        let units = |text: &str| QuantityText::from(text).to_units().unwrap();
        assert_eq!(units("64Mi"), 64 << 20);
        assert_eq!(units("10Gi"), 10 << 30);
        assert_eq!(units("0.1Gi"), 107_374_183);
        assert_eq!(units("500m"), 1);
        assert_eq!(units("2"), 2);
        for bad in ["", "Mi", "1.5.2Gi", "-1", "1Zi", "99999999999999999999Ti", ".5"] {
            assert!(QuantityText::from(bad).to_units().is_err(), "{bad}");
        }
        let read: QuantityText = serde_json::from_str("2").unwrap();
        assert_eq!(read.as_str(), "2");
    }
}
