//! `snapshot`, `snapshots`, `restore` and `rebuild`.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use domain::{Epoch, HostPort, PipelineName, PlanView, SlotMap};
use feature_shards::ShardClient;
use feature_snapshots::{
    Catalog, Content, Identity, Listed, Manifest, Outcome, ReplaceOptions, SnapshotError, SnapshotId, Source, Storage, StorageConfig,
    TakeOptions,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    NOT_ALL_WELL,
    addresses::Addresses,
    arguments::{Output, RebuildArguments, ReplaceArguments, RestoreArguments, SnapshotArguments, SnapshotsArguments, StoreArguments},
    roles::{self, Row},
    show::print_json,
};

#[derive(Serialize)]
struct Taken {
    /// Nothing where there was nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Manifest>,
    deleted: Vec<SnapshotId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(crate) async fn take(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &SnapshotArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let (pipeline, source) = source(addresses, arguments)?;
    let catalog = catalog(&arguments.store, pipeline)?;
    let options = TakeOptions { at_once: arguments.at_once.into(), within: arguments.within };
    let taken = match feature_snapshots::take(&catalog, client, &source, &options, Timestamp::now()).await {
        Err(SnapshotError::AllPrimaries) if arguments.skip_primaries => None,
        taken => Some(taken?),
    };
    // A snapshot that was taken is one, whatever becomes of the old ones.
    let (deleted, problem) = match catalog.prune(&source.region, arguments.keep, Timestamp::now()).await {
        Ok(deleted) => (deleted, None),
        Err(error) => (Vec::new(), Some(format!("old snapshots were not all deleted: {error}"))),
    };
    let report = Taken { snapshot: taken, deleted, problem };
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print!("{}", taken_text(&report)),
    }
    Ok(if report.problem.is_some() { ExitCode::from(NOT_ALL_WELL) } else { ExitCode::SUCCESS })
}

fn taken_text(report: &Taken) -> String {
    let taken = match &report.snapshot {
        Some(manifest) => format!("{} of {} {}\n", manifest.id, manifest.region, size_text(manifest)),
        None => "no snapshot: all shards here are primaries, another region takes it\n".to_owned(),
    };
    let deleted: String = report.deleted.iter().map(|id| format!("deleted {id}\n")).collect();
    let problem = report.problem.as_ref().map(|problem| format!("{problem}\n")).unwrap_or_default();
    format!("{taken}{deleted}{problem}")
}

fn size_text(manifest: &Manifest) -> String {
    let epoch = manifest.epoch().map_or_else(|| "no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
    format!("complete: {} shards, {} bytes, {epoch}", manifest.shards.len(), manifest.bytes())
}

fn source(addresses: &Addresses, arguments: &SnapshotArguments) -> anyhow::Result<(PipelineName, Source)> {
    if let Some(path) = &arguments.plan {
        let plan = plan(path)?;
        let processes = plan.shards.into_iter().map(|shard| [shard.replicas, vec![shard.primary]].concat()).collect();
        return Ok((plan.pipeline, Source { region: plan.region, slots: plan.slots, processes }));
    }
    let side = arguments.of.as_deref().context("--of is missing")?;
    let processes: Vec<_> = addresses.side(side).context("--of")?.into_iter().map(|address| vec![address]).collect();
    let pipeline = arguments.pipeline.clone().context("--pipeline is missing")?;
    let region = arguments.region.clone().context("--region is missing")?;
    Ok((pipeline, Source { region, slots: even(processes.len())?, processes }))
}

/// Checked as far as these commands rely on it.
fn plan(path: &Path) -> anyhow::Result<PlanView> {
    let read = || -> anyhow::Result<PlanView> {
        let mut plan: PlanView = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
        plan.shards.sort_by_key(|shard| shard.shard);
        anyhow::ensure!(
            plan.shards.iter().map(|shard| shard.shard).eq(0..plan.slots.shards()),
            "it has not each of the {} shards that slots belong to once",
            plan.slots.shards()
        );
        Ok(plan)
    };
    read().with_context(|| format!("--plan {} cannot be used", path.display()))
}

fn even(shards: usize) -> anyhow::Result<SlotMap> {
    Ok(SlotMap::even(u16::try_from(shards).unwrap_or(u16::MAX))?)
}

fn catalog(store: &StoreArguments, pipeline: PipelineName) -> anyhow::Result<Catalog> {
    let config = StorageConfig {
        uri: store.store.clone(),
        endpoint: store.s3_endpoint.clone(),
        credentials_dir: store.credentials_dir.clone(),
        region: store.s3_region.clone(),
    };
    Ok(Catalog { storage: Storage::open(&config)?, pipeline })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    region: &'a str,
    id: &'a SnapshotId,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a Manifest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(crate) async fn list(arguments: &SnapshotsArguments, output: Output) -> anyhow::Result<ExitCode> {
    let catalog = catalog(&arguments.store, arguments.pipeline.clone())?;
    let listed = catalog.list(arguments.region.as_ref()).await?;
    let mut shown = Vec::with_capacity(listed.len());
    for listed in &listed {
        shown.push(show(&catalog, listed, arguments.check).await);
    }
    match output {
        Output::Json => print_json(&shown)?,
        Output::Text if shown.is_empty() => println!("no snapshots of {}", arguments.pipeline),
        Output::Text => shown.iter().for_each(print_shown),
    }
    let bad = shown.iter().any(|shown| shown.state == "unusable" || shown.state == "damaged");
    Ok(if bad { ExitCode::from(NOT_ALL_WELL) } else { ExitCode::SUCCESS })
}

async fn show<'a>(catalog: &Catalog, listed: &'a Listed, check: bool) -> Shown<'a> {
    let shown = |state, manifest, problem| Shown { region: listed.region.as_str(), id: &listed.id, state, manifest, problem };
    match &listed.content {
        Content::Torn => shown("torn", None, Some("it has no manifest: it is being taken, or was never finished".to_owned())),
        Content::Unusable(error) => shown("unusable", None, Some(error.to_string())),
        Content::Complete(manifest) if check => match catalog.check(manifest).await {
            Ok(()) => shown("checked", Some(manifest), None),
            Err(error) => shown("damaged", Some(manifest), Some(error.to_string())),
        },
        Content::Complete(manifest) => shown("complete", Some(manifest), None),
    }
}

fn print_shown(shown: &Shown<'_>) {
    let text = match (&shown.problem, shown.manifest) {
        (Some(problem), _) => format!("{}: {problem}", shown.state),
        (None, Some(manifest)) if shown.state == "checked" => format!("{}; checked", size_text(manifest)),
        (None, Some(manifest)) => size_text(manifest),
        (None, None) => shown.state.to_owned(),
    };
    println!("{} {} {text}", shown.id, shown.region);
}

pub(crate) async fn restore(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &RestoreArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let (pipeline, targets) = match &arguments.plan {
        Some(path) => Targets::of_plan(plan(path)?),
        None => {
            let side = arguments.to.as_deref().context("--to is missing")?;
            let pipeline = arguments.pipeline.clone().context("--pipeline is missing")?;
            (pipeline, Targets::of_side(addresses, ("--to", side), arguments.epoch)?)
        }
    };
    let catalog = catalog(&arguments.store, pipeline)?;
    let id =
        arguments.snapshot.as_deref().map(|text| SnapshotId::parse(text).with_context(|| format!("--snapshot {text:?} is no name of one")));
    let manifest = catalog.find(arguments.from_region.as_ref(), id.transpose()?.as_ref()).await?;
    eprintln!("restoring {} of {}, {}", manifest.id, manifest.region, size_text(&manifest));
    let options = options(&arguments.replace, targets.epoch)?;
    let shards = (&targets.slots, targets.addresses.as_slice());
    let outcomes = Box::pin(feature_snapshots::restore(&catalog, client, &manifest, shards, &options)).await?;
    print(outcomes, &format!("primary of epoch {} with snapshot {}", targets.epoch, manifest.id), output)
}

pub(crate) async fn rebuild(
    client: &ShardClient,
    addresses: &Addresses,
    arguments: &RebuildArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let targets = match &arguments.plan {
        Some(path) => Targets::of_plan(plan(path)?).1,
        None => Targets::of_side(addresses, ("--of", arguments.of.as_deref().context("--of is missing")?), arguments.epoch)?,
    };
    let options = options(&arguments.replace, targets.epoch)?;
    let outcomes = Box::pin(feature_snapshots::rebuild(client, &targets.addresses, arguments.read_from, &options)).await?;
    print(outcomes, &format!("empty primary of epoch {}: the builder folds the logs anew", targets.epoch), output)
}

fn print(outcomes: Vec<Outcome>, done: &str, output: Output) -> anyhow::Result<ExitCode> {
    let row = |outcome: Outcome| Row::of(outcome.shard, &outcome.address, outcome.result.map(|()| done.to_owned()));
    roles::print(outcomes.into_iter().map(row).collect(), output)
}

/// Shards that are replaced.
struct Targets {
    epoch: Epoch,
    slots: SlotMap,
    /// By number.
    addresses: Vec<HostPort>,
}

impl Targets {
    fn of_plan(plan: PlanView) -> (PipelineName, Self) {
        let addresses = plan.shards.into_iter().map(|shard| shard.primary).collect();
        (plan.pipeline, Self { epoch: plan.epoch, slots: plan.slots, addresses })
    }

    fn of_side(addresses: &Addresses, (argument, side): (&'static str, &str), epoch: Option<u64>) -> anyhow::Result<Self> {
        let addresses = addresses.side(side).context(argument)?;
        Ok(Self { epoch: Epoch(epoch.context("--epoch is missing")?), slots: even(addresses.len())?, addresses })
    }
}

fn options(arguments: &ReplaceArguments, epoch: Epoch) -> anyhow::Result<ReplaceOptions> {
    Ok(ReplaceOptions {
        epoch,
        overwrite: arguments.overwrite,
        advertise: arguments.advertise.clone(),
        port: arguments.port,
        identity: identity(arguments)?,
        at_once: arguments.at_once.into(),
        within: arguments.within,
    })
}

fn identity(arguments: &ReplaceArguments) -> anyhow::Result<Option<Identity>> {
    let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else { return Ok(None) };
    let read = |option: &str, path: &Path| std::fs::read(path).with_context(|| format!("{option} {} cannot be read", path.display()));
    let identity = Identity::of(&read("--tls-cert", certificate)?, &read("--tls-key", key)?);
    identity.map(Some).map_err(|problem| anyhow::anyhow!("--tls-cert and --tls-key cannot be used: {problem}"))
}
