//! Arguments of the commands about snapshots.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use domain::{PipelineName, RegionName};
use jiff::Timestamp;

/// Where snapshots are.
#[derive(Args)]
pub(crate) struct StoreArguments {
    /// s3://BUCKET/PREFIX, or file:///FOLDER for a volume
    #[arg(long)]
    pub(crate) store: String,
    /// Endpoint of S3-compatible storage [default: that of AWS]
    #[arg(long, value_name = "URL")]
    pub(crate) s3_endpoint: Option<String>,
    /// Region of the bucket [default: that of the environment, else us-east-1]
    #[arg(long, value_name = "NAME")]
    pub(crate) s3_region: Option<String>,
    /// Folder with the files accessKeyId and secretAccessKey [default: the environment, as for AWS' own tools]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) credentials_dir: Option<PathBuf>,
}

#[derive(Args)]
#[command(group = ArgGroup::new("source").required(true), after_help = "Examples:\n  fraud-features snapshot --plan plan.yaml --store s3://backups/features --keep 7d --user snapshot --password-file snapshot.password\n  fraud-features snapshot --of eu-west --region eu-west --pipeline payments --store file:///var/snapshots --addresses shards.yaml --user snapshot --password-file snapshot.password\n\nOnly replicas give copies: in the active region those of its own, in the others every shard is one.")]
pub(crate) struct SnapshotArguments {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// The plan as this region's pods read it: pipeline, region, slots and addresses
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) plan: Option<PathBuf>,
    /// Which shards, where there is no plan
    #[arg(long, group = "source", requires_all = ["pipeline", "region"])]
    pub(crate) of: Option<String>,
    /// Whose shards they are
    #[arg(long, conflicts_with = "plan")]
    pub(crate) pipeline: Option<PipelineName>,
    /// The region that they are in
    #[arg(long, conflicts_with = "plan")]
    pub(crate) region: Option<RegionName>,
    /// Delete this region's snapshots that are older; the newest complete one always stays
    #[arg(long, default_value = "7d", value_parser = domain::duration::parse)]
    pub(crate) keep: Duration,
    /// End well, with no snapshot, where all shards are primaries: another region takes it
    #[arg(long)]
    pub(crate) skip_primaries: bool,
    /// Shards at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) at_once: u16,
    /// Give up after this long
    #[arg(long, default_value = "1h", value_parser = domain::duration::parse)]
    pub(crate) within: Duration,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  fraud-features snapshots --pipeline payments --store s3://backups/features --check\n\nWhat is torn is being taken, or was never finished; it cannot be restored, and is deleted after a day."
)]
pub(crate) struct SnapshotsArguments {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Whose snapshots
    #[arg(long)]
    pub(crate) pipeline: PipelineName,
    /// Of which region [default: all]
    #[arg(long)]
    pub(crate) region: Option<RegionName>,
    /// Read all of them, and compare them with their SHA-256
    #[arg(long)]
    pub(crate) check: bool,
}

/// How shards are replaced.
#[derive(Args)]
pub(crate) struct ReplaceArguments {
    /// Also shards that hold entities: those are gone then, in all copies
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Name or address at which the shards reach this process [default: the address from which it reaches them]
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// Port at which they reach it, one shard after the other [default: one that is free for each]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// With --ca-file: certificate of the same authority, shown to the shards that follow this process (tls.crt)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key (tls.key)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Shards at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) at_once: u16,
    /// Give a shard up after this long
    #[arg(long, default_value = "1h", value_parser = domain::duration::parse)]
    pub(crate) within: Duration,
}

#[derive(Args)]
#[command(group = ArgGroup::new("targets").required(true), after_help = "Examples:\n  fraud-features restore --plan plan.yaml --store s3://backups/features --password-file operator.password\n  fraud-features restore --to us-east --pipeline payments --epoch 7 --snapshot 20261120T080000.000Z --store file:///var/snapshots --addresses shards.yaml --password-file operator.password\n\nNothing is changed before everything is checked. Stop the operator first: it gives roles too.")]
pub(crate) struct RestoreArguments {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// The plan as this region's pods read it: pipeline, epoch, slots and addresses
    #[arg(long, value_name = "FILE", group = "targets")]
    pub(crate) plan: Option<PathBuf>,
    /// The shards that become primaries, where there is no plan
    #[arg(long, group = "targets", requires_all = ["pipeline", "epoch"])]
    pub(crate) to: Option<String>,
    /// Whose snapshot
    #[arg(long, conflicts_with = "plan")]
    pub(crate) pipeline: Option<PipelineName>,
    /// The epoch of the plan in which this is done
    #[arg(long, conflicts_with = "plan")]
    pub(crate) epoch: Option<u64>,
    /// Which snapshot, as `snapshots` lists them [default: the newest]
    #[arg(long, value_name = "ID")]
    pub(crate) snapshot: Option<String>,
    /// Only snapshots that were taken there
    #[arg(long, value_name = "REGION")]
    pub(crate) from_region: Option<RegionName>,
    #[command(flatten)]
    pub(crate) replace: ReplaceArguments,
}

#[derive(Args)]
#[command(group = ArgGroup::new("targets").required(true), after_help = "Examples:\n  fraud-features rebuild --plan plan.yaml --overwrite --password-file operator.password\n  fraud-features rebuild --of us-east --epoch 7 --overwrite --read-from 2026-11-13T00:00:00Z --addresses shards.yaml --password-file operator.password\n\nThe builder reads at least what the longest window needs. Profiles know what it reads, so with --read-from they know customers of earlier.")]
pub(crate) struct RebuildArguments {
    /// The plan as this region's pods read it: epoch and addresses
    #[arg(long, value_name = "FILE", group = "targets")]
    pub(crate) plan: Option<PathBuf>,
    /// The shards that become empty primaries, where there is no plan
    #[arg(long, group = "targets", requires = "epoch")]
    pub(crate) of: Option<String>,
    /// The epoch of the plan in which this is done
    #[arg(long, conflicts_with = "plan")]
    pub(crate) epoch: Option<u64>,
    /// From when on the logs are read, if that is earlier
    #[arg(long, value_name = "TIME")]
    pub(crate) read_from: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) replace: ReplaceArguments,
}
