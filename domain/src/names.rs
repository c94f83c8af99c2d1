//! Names that come from users, checked once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name was refused, with what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {given:?} is not allowed: use 1 to {length_max} lower-case letters, digits and '-', starting and ending with a letter or digit"
)]
pub struct InvalidName {
    what: &'static str,
    given: String,
    length_max: usize,
}

fn check(what: &'static str, given: &str, length_max: usize) -> Result<(), InvalidName> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = given.as_bytes();
    let ends_plain = bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
    if ends_plain && bytes.len() <= length_max && bytes.iter().all(|&b| plain(b) || b == b'-') {
        return Ok(());
    }
    // The name is untrusted: quote a bounded part of it.
    Err(InvalidName { what, given: given.chars().take(64).collect(), length_max })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $length_max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// # Errors
            /// When the text is not a DNS label of at most the allowed length.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check($what, &text, $length_max)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// A region, such as `us-east`. It becomes part of topic names, DNS names and object names, hence the length.
    RegionName, "region name", 32
);
name!(
    /// A pipeline, such as `payments`: the `metadata.name` of its `FraudPipeline`. Owned objects append to it.
    PipelineName, "pipeline name", 32
);

/// A name that all shards of all regions have, for tools that talk to several regions at once.
pub const ANY_FEATURE_STORE_NAME: &str = "features.fraudpipeline.internal";

/// The name in the certificate of all of a region's shards. No name server knows it: shards are reached at many addresses,
/// from inside and from other regions, and are verified by this one.
pub fn feature_store_name(region: &RegionName) -> String {
    format!("{region}.{ANY_FEATURE_STORE_NAME}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_name_is_a_short_dns_label() {
        assert!(RegionName::new("us-east").is_ok());
        for bad in ["", "-a", "a-", "US", "a.b", "a_b", "ü", &"a".repeat(33)] {
            let error = RegionName::new(bad).unwrap_err().to_string();
            assert!(error.contains("lower-case letters"), "{bad}: {error}");
        }
    }

    #[test]
    fn deserializing_checks_too() {
        assert!(serde_json::from_str::<RegionName>("\"eu-west\"").is_ok());
        assert!(serde_json::from_str::<RegionName>("\"EU\"").is_err());
    }
}
