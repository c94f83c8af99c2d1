//! What is looked at in Redis' own format of a data set, and the smallest data set there is. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// `REDIS` and four digits.
pub(crate) const HEAD_BYTES: usize = 9;
/// The end mark and a checksum of Redis' own.
pub(crate) const TAIL_BYTES: usize = 9;
/// Of [`with_keys`]: read by every Redis from 5.0 on.
const VERSION: u16 = 9;
const END: u8 = 0xff;
const SELECT_FIRST_DATABASE: [u8; 2] = [0xfe, 0];
const EXPIRES_AT_MS: u8 = 0xfc;
const STRING: u8 = 0;
/// Lengths below this take one byte.
const SHORT: usize = 64;

/// The version of the format; `None` when this is no data set.
pub(crate) fn version(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"REDIS")?.get(..4)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a data set ends as it should.
pub(crate) fn ends_whole(tail: &[u8]) -> bool {
    tail.len() == TAIL_BYTES && tail[0] == END
}

/// A data set of a few short strings, which live for `lifetime` if one is given. Longer ones are cut.
pub(crate) fn with_keys(keys: &[(&str, String, Option<Duration>)], now: Timestamp) -> Vec<u8> {
    let mut bytes = format!("REDIS{VERSION:04}").into_bytes();
    bytes.extend(SELECT_FIRST_DATABASE);
    for (key, value, lifetime) in keys {
        if let Some(lifetime) = lifetime {
            let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
            bytes.push(EXPIRES_AT_MS);
            bytes.extend(now.as_millisecond().saturating_add(lifetime_ms).to_le_bytes());
        }
        bytes.push(STRING);
        string(&mut bytes, key.as_bytes());
        string(&mut bytes, value.as_bytes());
    }
    bytes.push(END);
    // Redis does not check a checksum of zero.
    bytes.extend([0; 8]);
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(SHORT - 1)];
    bytes.push(u8::try_from(text.len()).unwrap_or_default());
    bytes.extend(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_is_known_by_its_head_and_its_tail() {
        let bytes = with_keys(&[("fp:epoch", "7".into(), None)], Timestamp::UNIX_EPOCH);
        assert_eq!(version(&bytes), Some(9));
        assert!(ends_whole(&bytes[bytes.len() - TAIL_BYTES..]));
        assert_eq!(&bytes[HEAD_BYTES..bytes.len() - TAIL_BYTES], b"\xfe\0\0\x08fp:epoch\x017");
        for nonsense in [b"".as_slice(), b"REDIS", b"REDISabcd", b"REDES0009"] {
            assert_eq!(version(nonsense), None);
        }
        assert!(!ends_whole(b"\xff") && !ends_whole(&[0; 9]));
    }
}
