//! The router's control protocol, and the commands that speak it: one JSON line there, one back. IO.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::link::{Conditions, Counters};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Show,
    /// Changes a link until it is changed again.
    Set {
        from: String,
        to: String,
        change: Change,
    },
    /// Changes a link for a while; what was set before returns by itself.
    Fault {
        from: String,
        to: String,
        change: Change,
        for_ms: Option<u64>,
    },
    EndFault {
        from: String,
        to: String,
    },
    /// Takes a whole site off the network, whatever its links' conditions are.
    Site {
        site: String,
        down: bool,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub delay_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    pub loss: Option<f64>,
    pub bandwidth_mbit: Option<f64>,
    pub cut: Option<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(default)]
    pub links: Vec<LinkReport>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkReport {
    pub from: String,
    pub to: String,
    /// In force now.
    pub conditions: Conditions,
    /// A fault replaces what was set.
    pub fault: bool,
    pub site_down: bool,
    pub counters: Counters,
}

pub(crate) fn socket(instance: &Instance) -> PathBuf {
    instance.folder.join("wan.sock")
}

pub(crate) fn ask(instance: &Instance, request: &Request) -> Result<Vec<LinkReport>> {
    let path = socket(instance);
    let mut stream = UnixStream::connect(&path)
        .with_context(|| format!("no router answers at {}; `sandbox up --instance {}` starts it", path.display(), instance.name))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("cannot ask the router")?;
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text).context("the router did not answer")?;
    let reply: Reply = serde_json::from_str(&text).context("the router's answer is not understood; it may be of another build")?;
    match reply.error {
        Some(sentence) => bail!(sentence),
        None => Ok(reply.links),
    }
}

/// The directed links that a command on `from` and `to` means.
pub(crate) fn directions(from: &str, to: &str, one_way: bool) -> Vec<(String, String)> {
    let forth = (from.to_owned(), to.to_owned());
    if one_way { vec![forth] } else { vec![forth, (to.to_owned(), from.to_owned())] }
}

pub(crate) fn show(links: &[LinkReport]) -> String {
    let mut lines = vec![format!(
        "{:<24} {:>8} {:>9} {:>7} {:>10}  {:<10} {:>12} {:>8} {:>8} {:>9}",
        "LINK", "DELAY_MS", "JITTER_MS", "LOSS", "MBIT/S", "STATE", "FORWARDED", "LOST", "CUT", "OVERFLOW"
    )];
    for link in links {
        let conditions = link.conditions;
        let state = match (link.site_down, conditions.cut, link.fault) {
            (true, _, _) => "site down",
            (_, true, true) => "cut (fault)",
            (_, true, false) => "cut",
            (_, false, true) => "fault",
            (_, false, false) => "open",
        };
        lines.push(format!(
            "{:<24} {:>8} {:>9} {:>7} {:>10}  {:<10} {:>12} {:>8} {:>8} {:>9}",
            format!("{}->{}", link.from, link.to),
            conditions.delay_ms,
            conditions.jitter_ms,
            conditions.loss,
            conditions.bandwidth_mbit.map_or_else(|| "-".to_owned(), |mbit| mbit.to_string()),
            state,
            link.counters.forwarded_packets,
            link.counters.lost_packets,
            link.counters.cut_packets,
            link.counters.overflow_packets
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_of_json_with_the_documented_keys() {
        let change = Change { delay_ms: Some(80.0), ..Change::default() };
        let request = Request::Fault { from: "us-east".to_owned(), to: "eu-west".to_owned(), change, for_ms: Some(5000) };
        let text = serde_json::to_string(&request).unwrap();
        assert!(text.starts_with(r#"{"op":"fault","from":"us-east","to":"eu-west","change":{"delay_ms":80.0"#), "{text}");
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(r#"{"op":"show"}"#).unwrap(), Request::Show);
        assert!(serde_json::from_str::<Request>(r#"{"op":"explode"}"#).is_err());
    }

    #[test]
    fn a_command_means_both_directions_unless_it_says_one_way() {
        assert_eq!(directions("a", "b", true).len(), 1);
        assert_eq!(directions("a", "b", false), [("a".to_owned(), "b".to_owned()), ("b".to_owned(), "a".to_owned())]);
    }
}
