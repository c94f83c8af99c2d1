//! `follow` and `hold`, and how a role change of each shard is shown.

use std::process::ExitCode;

use anyhow::Context;
use domain::{Epoch, HostPort};
use feature_shards::{ShardClient, Upstream};
use feature_snapshots::SnapshotError;
use futures::future::join_all;
use serde::Serialize;

use crate::{
    NOT_ALL_WELL, REFUSED,
    addresses::{Addresses, same_length},
    arguments::{FollowArguments, HoldArguments, Output},
    show::print_json,
};

/// What became of one shard.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    shard: u16,
    address: HostPort,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// A rule forbade it.
    refused: bool,
}

impl Row {
    pub(crate) fn of(shard: u16, address: &HostPort, outcome: Result<String, impl Into<SnapshotError>>) -> Self {
        let outcome = outcome.map_err(Into::into);
        let refused = outcome.as_ref().is_err_and(SnapshotError::is_refusal);
        let problem = outcome.as_ref().err().map(ToString::to_string);
        Self { shard, address: address.clone(), done: outcome.ok(), problem, refused }
    }
}

/// Refused if a rule forbade all that was not done, and nothing was done; something is left to do if a part was done.
pub(crate) fn print(rows: Vec<Row>, output: Output) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => print_json(&rows)?,
        Output::Text => rows.iter().for_each(|row| {
            let outcome = row.done.as_deref().or(row.problem.as_deref()).unwrap_or_default();
            println!("shard {} {}: {outcome}", row.shard, row.address);
        }),
    }
    let failed = rows.iter().filter(|row| row.problem.is_some()).count();
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ if failed < rows.len() => ExitCode::from(NOT_ALL_WELL),
        _ if rows.iter().all(|row| row.refused) => ExitCode::from(REFUSED),
        _ => ExitCode::FAILURE,
    })
}

pub(crate) async fn follow(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &FollowArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let of = addresses.side(&arguments.of).context("--of")?;
    let upstream = addresses.side(&arguments.upstream).context("--upstream")?;
    let exposed = addresses.exposed(&arguments.upstream, arguments.upstream_exposed.as_deref()).context("--upstream-exposed")?;
    same_length(("--of", of.len()), ("--upstream", upstream.len()))?;
    same_length(("--of", of.len()), ("--upstream-exposed", exposed.len()))?;
    let upstreams = upstream.into_iter().zip(exposed).map(|(address, from_follower)| Upstream { address, from_follower });
    let shards = (0..).zip(of.into_iter().zip(upstreams));
    let changes = shards.map(|(shard, (address, upstream))| async move {
        let outcome = client.follow(&address, &upstream, Epoch(arguments.epoch), arguments.force).await;
        Row::of(shard, &address, outcome.map(|()| format!("follows {}", upstream.from_follower)))
    });
    print(join_all(changes).await, output)
}

pub(crate) async fn hold(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &HoldArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let of = addresses.side(&arguments.of).context("--of")?;
    let changes = (0..).zip(of).map(|(shard, address)| async move {
        let outcome = client.hold(&address, Epoch(arguments.epoch)).await;
        Row::of(shard, &address, outcome.map(|()| "holds its copy and refuses writes".to_owned()))
    });
    print(join_all(changes).await, output)
}
