//! The functions that the store keeps in Redis: their library, calls and answers. No IO.

use redis::Value;
use scoring_core::key::ENTITY_KEY_BYTES;

use crate::request::Request;

/// The library `fp`.
pub(crate) const LIBRARY: &str = include_str!("functions.lua");
/// The version that `LIBRARY` names: rises with any change of its arguments or meaning.
pub(crate) const VERSION: &str = "1";

/// What a shard that has the library answers to [`ask_version`].
pub(crate) fn is_current(answer: &Value) -> bool {
    bytes_of(answer) == Some(VERSION.as_bytes())
}

pub(crate) fn ask_version(request: &mut Request) {
    request.command(&[b"FCALL_RO", b"fp_version", b"0"]);
}

/// Whatever version is there is replaced: the process that runs is the one that was deployed last.
pub(crate) fn load() -> Request {
    let mut request = Request::with_room_for(1);
    request.command(&[b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY.as_bytes()]);
    request
}

/// A partition's entry in the vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// As it was read; empty when there was none.
    pub(crate) expected: String,
    pub(crate) next: i64,
}

/// One key's new head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: [u8; ENTITY_KEY_BYTES],
    /// How many bytes of the value it takes the place of.
    pub(crate) read_bytes: u32,
    pub(crate) ttl_seconds: u32,
    pub(crate) value: Vec<u8>,
}

/// What guards a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard<'a> {
    pub(crate) epoch: u64,
    /// How often the shard had been folded into when its values were read.
    pub(crate) folds: &'a str,
    pub(crate) entries: &'a [Entry<'a>],
}

/// `fp_fold`, as `functions.lua` describes it.
pub(crate) fn fold(guard: Guard<'_>, heads: &[Head]) -> Request {
    let text = [heads.len().to_string(), guard.epoch.to_string(), guard.entries.len().to_string()];
    let [keys, epoch, entries] = text.each_ref().map(String::as_bytes);
    let next: Vec<String> = guard.entries.iter().map(|entry| entry.next.to_string()).collect();
    let packed: Vec<u8> = heads.iter().flat_map(|head| [head.read_bytes.to_be_bytes(), head.ttl_seconds.to_be_bytes()]).flatten().collect();
    let mut words: Vec<&[u8]> = Vec::with_capacity(8 + 2 * heads.len() + 3 * guard.entries.len());
    words.extend([b"FCALL".as_slice(), b"fp_fold", keys]);
    words.extend(heads.iter().map(|head| head.key.as_slice()));
    words.extend([VERSION.as_bytes(), epoch, guard.folds.as_bytes(), entries]);
    for (entry, next) in guard.entries.iter().zip(&next) {
        words.extend([entry.name.as_bytes(), entry.expected.as_bytes(), next.as_bytes()]);
    }
    words.push(&packed);
    words.extend(heads.iter().map(|head| head.value.as_slice()));
    let bytes = words.iter().map(|word| word.len()).sum();
    let mut request = Request::with_room_for(1);
    request.long_command(words.len(), bytes, words);
    request
}

/// What `fp_fold` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Folded,
    /// The shard was promoted in this epoch.
    Superseded(u64),
    /// The stored entries, in the order of those given; `None` where there is none.
    Moved(Vec<Option<String>>),
    /// The library was replaced by one of this version.
    OtherVersion(String),
}

/// `None` when the answer is none of these.
pub(crate) fn outcome_of(answer: &Value) -> Option<Outcome> {
    let Value::Array(words) = answer else { return None };
    let text = |word: &Value| bytes_of(word).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (first, rest) = words.split_first()?;
    match bytes_of(first)? {
        b"folded" => Some(Outcome::Folded),
        b"superseded" => text(rest.first()?)?.parse().ok().map(Outcome::Superseded),
        b"version" => text(rest.first()?).map(Outcome::OtherVersion),
        b"moved" => rest
            .iter()
            .map(|word| text(word).map(|text| Some(text).filter(|text| !text.is_empty())))
            .collect::<Option<_>>()
            .map(Outcome::Moved),
        _ => None,
    }
}

pub(crate) fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect())
    }

    #[test]
    fn the_version_here_is_the_one_in_the_library() {
        assert!(LIBRARY.contains(&format!("local VERSION = '{VERSION}'")));
        assert!(LIBRARY.lines().count() < 60);
        assert!(is_current(&Value::BulkString(b"1".to_vec())) && !is_current(&Value::Nil));
    }

    #[test]
    fn answers_are_told_apart_and_others_are_refused() {
        assert_eq!(outcome_of(&words(&["folded"])), Some(Outcome::Folded));
        assert_eq!(outcome_of(&words(&["superseded", "7"])), Some(Outcome::Superseded(7)));
        assert_eq!(outcome_of(&words(&["moved", "", "9"])), Some(Outcome::Moved(vec![None, Some("9".into())])));
        assert_eq!(outcome_of(&words(&["version", "2"])), Some(Outcome::OtherVersion("2".into())));
        for other in [words(&["superseded"]), words(&["superseded", "x"]), words(&["else"]), words(&[]), Value::Nil] {
            assert_eq!(outcome_of(&other), None);
        }
    }

    #[test]
    fn a_call_names_what_it_expects_and_packs_lengths() {
        let entries = [Entry { name: "c/t/0", expected: String::new(), next: 5 }];
        let head = Head { key: *b"{c0123456789abcdef}", read_bytes: 64, ttl_seconds: 90_000, value: b"head".to_vec() };
        let request = fold(Guard { epoch: 3, folds: "12", entries: &entries }, &[head]);
        let args: Vec<Vec<u8>> = request.pipeline().cmd_iter().flat_map(redis_args).collect();
        let expected: [&[u8]; 13] = [
            b"FCALL",
            b"fp_fold",
            b"1",
            b"{c0123456789abcdef}",
            b"1",
            b"3",
            b"12",
            b"1",
            b"c/t/0",
            b"",
            b"5",
            b"\0\0\0\x40\0\x01\x5f\x90",
            b"head",
        ];
        assert_eq!(args, expected);
    }

    fn redis_args(command: &redis::Cmd) -> Vec<Vec<u8>> {
        command.args_iter().map(|arg| if let redis::Arg::Simple(bytes) = arg { bytes.to_vec() } else { Vec::new() }).collect()
    }
}
