//! `promote`: the copies become the primaries.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use domain::{Epoch, HostPort};
use feature_shards::{Outcome, Pair, PlannedOptions, PlannedReport, ShardClient, ShardReport, ShardState, Unplanned};
use futures::future::join_all;

use crate::{
    NOT_ALL_WELL, REFUSED,
    addresses::{Addresses, same_length},
    arguments::{Output, PromoteArguments},
    roles::{self, Row},
    show::print_json,
};

pub(crate) async fn run(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &PromoteArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let to = addresses.side(&arguments.to).context("--to")?;
    let from = arguments.from.as_deref().map(|from| addresses.side(from).context("--from")).transpose()?;
    if let Some(from) = &from {
        same_length(("--from", from.len()), ("--to", to.len()))?;
    }
    match from {
        Some(from) if arguments.planned => {
            let pairs = pairs(addresses, arguments, from, to)?;
            Box::pin(planned(client, &pairs, arguments, output)).await
        }
        from => Box::pin(unplanned(client, to, from, arguments, output)).await,
    }
}

fn pairs(addresses: &Addresses, arguments: &PromoteArguments, from: Vec<HostPort>, to: Vec<HostPort>) -> anyhow::Result<Vec<Pair>> {
    let exposed = addresses.exposed(&arguments.to, arguments.to_exposed.as_deref()).context("--to-exposed")?;
    same_length(("--to", to.len()), ("--to-exposed", exposed.len()))?;
    let shards = from.into_iter().zip(to).zip(exposed);
    Ok((0..).zip(shards).map(|(shard, ((old, new), new_from_old))| Pair { shard, old, new, new_from_old }).collect())
}

async fn planned(client: &ShardClient, pairs: &[Pair], arguments: &PromoteArguments, output: Output) -> anyhow::Result<ExitCode> {
    let options = PlannedOptions {
        lease: Duration::from_millis(arguments.lease_ms),
        catch_up_within: Duration::from_millis(arguments.catch_up_ms),
        ..PlannedOptions::default()
    };
    let mut promotion = Box::pin(client.promote_planned(pairs, Epoch(arguments.epoch), &options));
    // Stopping in the middle would leave old primaries that refuse writes; every step ends by itself.
    let report = loop {
        tokio::select! {
            report = &mut promotion => break report,
            _ = tokio::signal::ctrl_c() => eprintln!("the promotion ends by itself within seconds: waiting for it"),
        }
    };
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print!("{}", text(&report)),
    }
    Ok(match report.outcome {
        Outcome::Promoted => ExitCode::SUCCESS,
        Outcome::Aborted if report.refused() => ExitCode::from(REFUSED),
        Outcome::Aborted => ExitCode::FAILURE,
        Outcome::Unfinished => ExitCode::from(NOT_ALL_WELL),
    })
}

fn text(report: &PlannedReport) -> String {
    let outcome = match report.outcome {
        Outcome::Promoted => "promoted: all shards have moved, the old primaries are copies",
        Outcome::Aborted => "aborted: no shard has moved, everything is as it was",
        Outcome::Unfinished => "unfinished: see what is left to do for each shard",
    };
    let gap = report.write_gap_ms_max.map_or_else(String::new, |gap| format!("; writes stood still for at most {gap:.0} ms"));
    let shards: String = report.shards.iter().map(shard_text).collect();
    format!("{outcome}{gap}\n{shards}")
}

fn shard_text(shard: &ShardReport) -> String {
    let state = match shard.state {
        ShardState::Unchanged => "as it was",
        ShardState::Fenced => "the old primary refuses writes, the copy is not known to be promoted",
        ShardState::Promoted => "promoted, the old primary does not follow yet",
        ShardState::Rejoined => "promoted, the old primary follows",
    };
    let problems: String = shard.problems.iter().map(|problem| format!("    {problem}\n")).collect();
    let (partial, full) = (shard.partial_resyncs, shard.full_resyncs);
    format!("  shard {} {} -> {}: {state}; {partial} partial and {full} full resyncs\n{problems}", shard.shard, shard.old, shard.new)
}

async fn unplanned(
    client: &ShardClient,
    to: Vec<HostPort>,
    from: Option<Vec<HostPort>>,
    arguments: &PromoteArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let old = |shard: usize| from.as_ref().and_then(|from| from.get(shard).cloned());
    let wanted: Vec<Unplanned> = (0..)
        .zip(to.into_iter().enumerate())
        .map(|(shard, (index, new))| Unplanned { shard, new, old: old(index), force: arguments.force })
        .collect();
    let epoch = Epoch(arguments.epoch);
    let outcomes = join_all(wanted.iter().map(|shard| client.promote_unplanned(shard, epoch))).await;
    let rows = wanted.iter().zip(outcomes).map(|(shard, outcome)| {
        let done = |report: feature_shards::UnplannedReport| match report.fork_offset {
            Some(offset) => format!("primary of epoch {epoch}; has the old primary's stream up to offset {offset}"),
            None => format!("primary of epoch {epoch}"),
        };
        Row::of(shard.shard, &shard.new, outcome.map(done))
    });
    roles::print(rows.collect(), output)
}
