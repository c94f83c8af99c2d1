//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::snapshots::{
    RebuildArguments, ReplaceArguments, RestoreArguments, SnapshotArguments, SnapshotsArguments, StoreArguments,
};

mod snapshots;

const EXAMPLES: &str = "Sides of a shard are named by a region of the --addresses file, or by addresses separated by commas, one for each shard.

Examples:
  fraud-features status --addresses shards.yaml --password-file operator.password
  fraud-features lag --from 10.0.0.5:6379 --to 10.1.0.5:6379 --password-file operator.password
  fraud-features promote --planned --from us-east --to eu-west --epoch 7 --addresses shards.yaml --password-file operator.password
  fraud-features promote --unplanned --to eu-west --epoch 7 --addresses shards.yaml --password-file operator.password
  fraud-features follow --of us-east --upstream eu-west --epoch 7 --addresses shards.yaml --password-file operator.password
  fraud-features snapshot --plan plan.yaml --store s3://backups/features --user snapshot --password-file snapshot.password
  fraud-features snapshots --pipeline payments --store s3://backups/features
  fraud-features restore --plan plan.yaml --store s3://backups/features --password-file operator.password
  fraud-features rebuild --plan plan.yaml --overwrite --password-file operator.password

The file of addresses:
  regions:                # as they are reached from here; one address for each shard, in order
    us-east: [\"10.0.0.5:6379\", \"10.0.0.6:6379\"]
    eu-west: [\"10.1.0.5:6379\", \"10.1.0.6:6379\"]
  exposed:                # as the shards of other regions reach them, where that differs
    eu-west: [\"198.51.100.7:30400\", \"198.51.100.7:30401\"]

Exit codes: 0 done, all well; 1 failed; 2 wrong arguments; 3 something is left to do or not as it should be, the output says what; 4 refused by a rule (a newer epoch, an empty copy, a damaged snapshot), nothing was changed.";

#[derive(Parser)]
#[command(name = "fraud-features", version, about = "Look at the feature store's shards, and change their roles", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// File with the shards' addresses in each region
    #[arg(long, global = true)]
    pub(crate) addresses: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) login: Login,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct Login {
    /// ACL user of the shards
    #[arg(long, global = true, default_value = "operator")]
    pub(crate) user: String,
    /// File with the user's password; without it nobody logs in
    #[arg(long, global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// File with the authority of the shards' certificates (ca.crt); without it nothing is encrypted
    #[arg(long, global = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// The name that the certificates must have
    #[arg(long, global = true, default_value = domain::ANY_FEATURE_STORE_NAME)]
    pub(crate) server_name: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show roles, replication, and settings that will go wrong one day
    Status(StatusArguments),
    /// Make a promotion: no acknowledged write is lost if it is planned
    Promote(PromoteArguments),
    /// Make shards follow those of another region
    Follow(FollowArguments),
    /// Make shards refuse writes, follow nobody, and give copies
    Hold(HoldArguments),
    /// Measure how far copies are behind their primaries
    Lag(LagArguments),
    /// Take a snapshot from replicas, and delete those that are too old
    Snapshot(SnapshotArguments),
    /// List snapshots
    Snapshots(SnapshotsArguments),
    /// Put a snapshot into empty shards and make them primaries; the builder folds what came after
    Restore(RestoreArguments),
    /// Empty shards and make them primaries; the builder folds the logs anew
    Rebuild(RebuildArguments),
    /// Print a shell completion script
    Completion {
        /// The shell: bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  fraud-features status --of us-east --sample-s 10 --addresses shards.yaml --password-file operator.password -o json"
)]
pub(crate) struct StatusArguments {
    /// Which shards [default: all of the file]
    #[arg(long)]
    pub(crate) of: Option<String>,
    /// Look a second time after so many seconds: copies that begin anew again and again are only seen so
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) sample_s: u64,
    /// Bytes that the replication backlog has to hold: writes a second times the seconds a link may be away
    #[arg(long, default_value_t = 8 << 20)]
    pub(crate) backlog_bytes_min: u64,
}

#[derive(Args)]
#[command(group = ArgGroup::new("kind").required(true), after_help = "Examples:\n  fraud-features promote --planned --from us-east --to eu-west --epoch 7 --addresses shards.yaml --password-file operator.password\n  fraud-features promote --unplanned --to 10.1.0.5:6379,10.1.0.6:6379 --epoch 7 --password-file operator.password\n\nBoth are safe to repeat in the same epoch. Planned: until all copies have everything, a failure undoes everything; afterwards nothing is undone, and what is left to do is printed.")]
pub(crate) struct PromoteArguments {
    /// Both sides answer: writes stop until the copies have everything
    #[arg(long, group = "kind", requires = "from")]
    pub(crate) planned: bool,
    /// The primaries are gone: what they had not yet sent is missing until the logs bring it
    #[arg(long, group = "kind")]
    pub(crate) unplanned: bool,
    /// The primaries of now; with --unplanned: where to look whether they are really gone
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// The copies that become primaries
    #[arg(long)]
    pub(crate) to: String,
    /// How the old primaries reach the new ones [default: as `exposed` in the file says, else as --to]
    #[arg(long)]
    pub(crate) to_exposed: Option<String>,
    /// The epoch of the plan in which this is done
    #[arg(long)]
    pub(crate) epoch: u64,
    /// With --unplanned: also an empty or half-copied process, and beside a primary that takes writes
    #[arg(long, conflicts_with = "planned")]
    pub(crate) force: bool,
    /// With --planned: milliseconds after which nothing is promoted or undone any more, and a pause lapses
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..=60_000))]
    pub(crate) lease_ms: u64,
    /// With --planned: milliseconds in which all copies have to catch up, else everything is undone
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=30_000))]
    pub(crate) catch_up_ms: u64,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  fraud-features follow --of us-east --upstream eu-west --epoch 7 --addresses shards.yaml --password-file operator.password"
)]
pub(crate) struct FollowArguments {
    /// The shards that follow
    #[arg(long)]
    pub(crate) of: String,
    /// What they follow
    #[arg(long)]
    pub(crate) upstream: String,
    /// How they reach it [default: as `exposed` in the file says, else as --upstream]
    #[arg(long)]
    pub(crate) upstream_exposed: Option<String>,
    /// The epoch of the plan in which this is done
    #[arg(long)]
    pub(crate) epoch: u64,
    /// Also where data would be replaced by none, or by nobody knows what
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  fraud-features hold --of eu-west --epoch 7 --addresses shards.yaml --password-file operator.password")]
pub(crate) struct HoldArguments {
    /// The shards that keep their copy
    #[arg(long)]
    pub(crate) of: String,
    /// The epoch of the plan in which this is done
    #[arg(long)]
    pub(crate) epoch: u64,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  fraud-features lag --from us-east --to eu-west --beat --addresses shards.yaml --password-file operator.password"
)]
pub(crate) struct LagArguments {
    /// The primaries
    #[arg(long)]
    pub(crate) from: String,
    /// Their copies
    #[arg(long)]
    pub(crate) to: String,
    /// Write a heartbeat on the primaries first, so that ages can be told where nobody else writes one
    #[arg(long)]
    pub(crate) beat: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn accepts(line: &str) -> bool {
        Arguments::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn the_command_line_is_well_formed_and_its_rules_hold() {
        Arguments::command().debug_assert();
        assert!(accepts("fraud-features promote --planned --from a:1 --to b:1 --epoch 2"));
        assert!(accepts("fraud-features promote --unplanned --to b:1 --epoch 2 --force"));
        assert!(accepts("fraud-features snapshot --store file:///s --of a:1 --region us-east --pipeline p --keep 7d"));
        assert!(accepts("fraud-features snapshot --store s3://b --plan p --skip-primaries"));
        assert!(accepts("fraud-features restore --store s3://b --to a:1 --pipeline p --epoch 2 --snapshot 20261120T080000.000Z"));
        assert!(accepts("fraud-features rebuild --plan p --overwrite --read-from 2026-11-20T00:00:00Z"));
        for wrong in [
            "fraud-features promote --from a:1 --to b:1 --epoch 2",
            "fraud-features promote --planned --unplanned --from a:1 --to b:1 --epoch 2",
            "fraud-features promote --planned --to b:1 --epoch 2",
            "fraud-features promote --planned --from a:1 --to b:1 --epoch 2 --force",
            "fraud-features promote --unplanned --to b:1",
            "fraud-features hold --of a:1",
            "fraud-features follow --of a:1 --upstream b:1",
            "fraud-features snapshot --store file:///s",
            "fraud-features snapshot --store file:///s --of a:1 --region us-east",
            "fraud-features snapshot --store file:///s --plan p --of a:1",
            "fraud-features snapshot --store file:///s --plan p --keep 7w",
            "fraud-features restore --store file:///s --to a:1 --pipeline p",
            "fraud-features rebuild --of a:1",
            "fraud-features rebuild --of a:1 --epoch 2 --read-from yesterday",
        ] {
            assert!(!accepts(wrong), "{wrong}");
        }
    }
}
