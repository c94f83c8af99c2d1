//! `status` and `lag`: looks and changes nothing.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use domain::HostPort;
use feature_shards::{Finding, Health, LagReport, ShardClient, ShardError, WantedSettings, near_memory_limit, resync_loop};
use futures::future::join_all;
use serde::Serialize;

use crate::{
    NOT_ALL_WELL,
    addresses::{Addresses, same_length},
    arguments::{LagArguments, Output, StatusArguments},
};

/// How long a heartbeat may take to arrive before ages are read.
const BEAT_TRAVELS: Duration = Duration::from_millis(500);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<T> {
    address: HostPort,
    #[serde(flatten)]
    seen: Option<T>,
    /// Why it was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    health: Health,
    findings: Vec<Finding>,
}

impl<T> Shown<T> {
    fn of(address: HostPort, outcome: Result<T, ShardError>) -> Self {
        match outcome {
            Ok(seen) => Self { address, seen: Some(seen), problem: None },
            Err(error) => Self { address, seen: None, problem: Some(error.to_string()) },
        }
    }
}

pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(crate) async fn status(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &StatusArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let shards = match &arguments.of {
        Some(of) => addresses.side(of).context("--of")?,
        None => addresses.all()?,
    };
    let wanted = WantedSettings { backlog_bytes_min: arguments.backlog_bytes_min, ..WantedSettings::default() };
    let former = look(client, &shards).await;
    let now = if arguments.sample_s > 0 {
        tokio::time::sleep(Duration::from_secs(arguments.sample_s)).await;
        look(client, &shards).await
    } else {
        Vec::new()
    };
    let mut second = now.into_iter();
    let shown: Vec<Shown<Status>> =
        shards.into_iter().zip(former).map(|(address, former)| Shown::of(address, judged(former, second.next(), &wanted))).collect();
    match output {
        Output::Json => print_json(&shown)?,
        Output::Text => shown.iter().for_each(print_status),
    }
    Ok(code(shown.iter().all(|shown| shown.seen.as_ref().is_some_and(is_well))))
}

async fn look(client: &ShardClient, shards: &[HostPort]) -> Vec<Result<Health, ShardError>> {
    join_all(shards.iter().map(|address| client.health(address))).await
}

fn judged(
    first: Result<Health, ShardError>,
    second: Option<Result<Health, ShardError>>,
    wanted: &WantedSettings,
) -> Result<Status, ShardError> {
    let (former, health) = match second {
        Some(second) => (first.ok(), second?),
        None => (None, first?),
    };
    let mut findings = health.settings.findings(&health.address, wanted);
    findings.extend(near_memory_limit(&health));
    findings.extend(former.and_then(|former| resync_loop(&former, &health)));
    Ok(Status { health, findings })
}

fn is_well(status: &Status) -> bool {
    status.findings.is_empty() && status.health.link.is_none_or(|link| link == "up") && status.health.role != "nowhere"
}

fn code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL_WELL) }
}

fn print_status(shown: &Shown<Status>) {
    let Some(Status { health, findings }) = &shown.seen else {
        return println!("{}", shown.problem.as_deref().unwrap_or_default());
    };
    let epoch = health.epoch.map_or_else(|| "no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
    let data = if health.holds_data { "holds data" } else { "empty" };
    println!("{}: {}{}, {epoch}, {data}, offset {}", shown.address, health.role, follows(health), health.offset);
    for replica in &health.replicas {
        println!(
            "    replica {} {}, {} bytes behind, acknowledged {} s ago",
            replica.address, replica.state, replica.lag_bytes, replica.lag_s
        );
    }
    let resyncs = health.resyncs;
    if health.upstream.is_none() {
        println!("    resyncs: {} full, {} partial, {} that could not be partial", resyncs.full, resyncs.partial_ok, resyncs.partial_err);
    }
    for finding in findings {
        println!("    {} is {}: {}. Set: {}", finding.setting, finding.current, finding.why, finding.line);
    }
}

fn follows(health: &Health) -> String {
    let Some(upstream) = &health.upstream else { return String::new() };
    let seconds = match (health.link_down_s, health.heard_s_ago) {
        (Some(down), _) => format!(" for {down} s"),
        (None, Some(heard)) => format!(", heard of {heard} s ago"),
        (None, None) => String::new(),
    };
    format!(" {upstream}, link {}{seconds}", health.link.unwrap_or("unknown"))
}

pub(crate) async fn lag(client: &ShardClient, addresses: &Addresses, arguments: &LagArguments, output: Output) -> anyhow::Result<ExitCode> {
    let from = addresses.side(&arguments.from).context("--from")?;
    let to = addresses.side(&arguments.to).context("--to")?;
    same_length(("--from", from.len()), ("--to", to.len()))?;
    if arguments.beat {
        let beats = join_all(from.iter().map(|primary| client.beat(primary))).await;
        beats.into_iter().collect::<Result<Vec<()>, _>>()?;
        tokio::time::sleep(BEAT_TRAVELS).await;
    }
    let looks = from.iter().zip(to).map(|(primary, copy)| async move {
        let outcome = client.lag(primary, &copy).await;
        Shown::of(copy, outcome)
    });
    let shown = join_all(looks).await;
    match output {
        Output::Json => print_json(&shown)?,
        Output::Text => shown.iter().for_each(print_lag),
    }
    Ok(code(shown.iter().all(|shown| shown.seen.as_ref().is_some_and(|lag| lag.lag_bytes.is_some()))))
}

fn print_lag(shown: &Shown<LagReport>) {
    let Some(lag) = &shown.seen else { return println!("{}", shown.problem.as_deref().unwrap_or_default()) };
    let bytes = match lag.lag_bytes {
        Some(bytes) => format!("{bytes} bytes behind"),
        None if lag.link_up => "lag unknown, its history is not that of the primary".to_owned(),
        None => "lag unknown, its link is down".to_owned(),
    };
    let age = lag.heartbeat_age_ms.map_or_else(|| "no heartbeat".to_owned(), |age| format!("newest heartbeat {age} ms old"));
    println!("{} of {}: {bytes}, {age}", lag.replica, lag.primary);
}
