//! Reading and writing the headers of `domain::headers` on Kafka records. No IO.

use std::str::FromStr;

use domain::{
    Epoch, RegionName,
    headers::{EPOCH, HEARTBEAT, ORIGIN, SOURCE, Source},
};
use rdkafka::message::{Header, Headers, OwnedHeaders};

const SOURCE_FORM: &str = "it is not CLUSTER/TOPIC-ID/PARTITION/OFFSET";

/// What the first producer of a record says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeaders {
    pub epoch: Epoch,
    pub origin: RegionName,
}

impl RecordHeaders {
    pub fn to_kafka(&self) -> OwnedHeaders {
        OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: EPOCH, value: Some(&self.epoch.to_string()) })
            .insert(Header { key: ORIGIN, value: Some(self.origin.as_str()) })
    }
}

/// What a record's headers say. Each may be missing: other producers write to the same topics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenHeaders {
    pub epoch: Option<Epoch>,
    pub origin: Option<RegionName>,
    pub source: Option<Source>,
}

/// A header of ours that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {name} cannot be read: {why}")]
pub struct UnreadableHeader {
    pub name: &'static str,
    why: &'static str,
}

/// # Errors
/// When a header of ours is there and damaged. Foreign headers are passed over.
pub fn read<H: Headers>(headers: Option<&H>) -> Result<SeenHeaders, UnreadableHeader> {
    let mut seen = SeenHeaders::default();
    for header in headers.into_iter().flat_map(Headers::iter) {
        match header.key {
            EPOCH => seen.epoch = Some(Epoch(parsed(EPOCH, header.value, "it is not a decimal number")?)),
            ORIGIN => seen.origin = Some(parsed(ORIGIN, header.value, "it is not a region name")?),
            SOURCE => seen.source = Some(parsed(SOURCE, header.value, SOURCE_FORM)?),
            _ => {}
        }
    }
    Ok(seen)
}

/// Whether a record of an event log is a heartbeat and no event, whatever else it says.
pub fn is_heartbeat<H: Headers>(headers: Option<&H>) -> bool {
    headers.into_iter().flat_map(Headers::iter).any(|header| header.key == HEARTBEAT)
}

/// Where a mirrored record came from, without a look at its other headers.
///
/// # Errors
/// When the header is there and damaged.
pub fn source<H: Headers>(headers: Option<&H>) -> Result<Option<Source>, UnreadableHeader> {
    let found = headers.into_iter().flat_map(Headers::iter).find(|header| header.key == SOURCE);
    found.map(|header| parsed(SOURCE, header.value, SOURCE_FORM)).transpose()
}

/// All headers of a record, and where it came from. A `fp-src` that it already had is replaced.
pub fn with_source<H: Headers>(headers: Option<&H>, source: &Source) -> OwnedHeaders {
    let mut all = OwnedHeaders::new_with_capacity(headers.map_or(0, Headers::count) + 1);
    for header in headers.into_iter().flat_map(Headers::iter).filter(|header| header.key != SOURCE) {
        all = all.insert(header);
    }
    all.insert(Header { key: SOURCE, value: Some(&source.to_string()) })
}

fn parsed<T: FromStr>(name: &'static str, value: Option<&[u8]>, why: &'static str) -> Result<T, UnreadableHeader> {
    let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).ok_or(UnreadableHeader { name, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(offset: i64) -> Source {
        Source { cluster_id: "c".into(), topic_id: "t".into(), partition: 1, offset }
    }

    #[test]
    fn headers_read_back_what_was_written() {
        let ours = RecordHeaders { epoch: Epoch(7), origin: RegionName::new("us-east").unwrap() };
        let kafka = with_source(Some(&ours.to_kafka()), &source(41));
        let seen = read(Some(&kafka)).unwrap();
        assert_eq!(seen, SeenHeaders { epoch: Some(Epoch(7)), origin: Some(ours.origin), source: Some(source(41)) });
        assert_eq!(read(None::<&OwnedHeaders>).unwrap(), SeenHeaders::default());
    }

    #[test]
    fn foreign_headers_are_kept_and_an_older_source_is_replaced() {
        let foreign =
            OwnedHeaders::new().insert(Header { key: "trace", value: Some("x") }).insert(Header { key: "null", value: None::<&str> });
        let twice = with_source(Some(&with_source(Some(&foreign), &source(1))), &source(2));
        let keys: Vec<_> = twice.iter().map(|header| (header.key, header.value.is_some())).collect();
        assert_eq!(keys, [("trace", true), ("null", false), (SOURCE, true)]);
        assert_eq!(read(Some(&twice)).unwrap().source, Some(source(2)));
        assert_eq!(super::source(Some(&twice)), Ok(Some(source(2))));
    }

    #[test]
    fn a_heartbeat_is_known_by_its_header_also_after_it_was_mirrored() {
        let event = RecordHeaders { epoch: Epoch(7), origin: RegionName::new("us-east").unwrap() }.to_kafka();
        let heartbeat = event.clone().insert(Header { key: HEARTBEAT, value: Some("1") });
        assert!(!is_heartbeat(Some(&event)) && !is_heartbeat(None::<&OwnedHeaders>));
        assert!(is_heartbeat(Some(&with_source(Some(&heartbeat), &source(1)))));
    }

    #[test]
    fn a_damaged_header_of_ours_is_named() {
        let damaged = OwnedHeaders::new().insert(Header { key: EPOCH, value: Some("-1") });
        assert_eq!(read(Some(&damaged)).unwrap_err().name, EPOCH);
        let empty = OwnedHeaders::new().insert(Header { key: ORIGIN, value: None::<&str> });
        assert_eq!(read(Some(&empty)).unwrap_err().name, ORIGIN);
    }
}
