//! Why something does not happen. A reason is an answer: it ends in `status.waitingOn`, in events and in the CLI.

use std::fmt;

use domain::{Epoch, RegionName};

use crate::SettingFault;

/// Something is missing (`WaitingOn…`: it goes on by itself) or would be wrong (`UnsafeTo…`: it needs somebody).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    WaitingOnShard { shard: u16, why: String },
    WaitingOnReplica { shard: u16, process: u16, why: String },
    WaitingOnProcess { shard: u16, process: u16, why: String },
    WaitingOnSilentPrimary { shard: u16, process: u16 },
    WaitingOnCopy { shard: u16, from: RegionName },
    WaitingOnLink { shard: u16, to: RegionName },
    WaitingOnHeldCopy { shard: u16, region: RegionName },
    WaitingOnActiveShard { shard: u16, region: RegionName, why: String },
    WaitingOnTopics { topics: Vec<String> },
    WaitingOnKafka { why: String },
    WaitingOnPlanView { why: String },
    UnsafeToPromoteEmptyShard { shard: u16, unknown: Vec<RegionName> },
    UnsafeToPromoteWhileUpstreamWrites { shard: u16, upstream: String },
    UnsafeToReplaceSilentPrimary { shard: u16, process: u16, why: String },
    UnsafeToFollowEmptyShard { shard: u16, region: RegionName },
    UnsafeToRunWithSetting(Box<SettingFault>),
    UnsafeToActBelowSeenEpoch { what: String, seen: Epoch, ours: Epoch },
    UnsafeToRemoveActiveRegion { region: RegionName },
    UnsafeToReshard { planned: u16, asked: u16 },
    UnsafeToPlanWithoutDataPlane,
    UnsafeToActInNoRegion { region: RegionName },
    UnsafeToAddressShards { region: RegionName, addresses: usize, shards: u16 },
}

impl Reason {
    /// The stable name, for events and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WaitingOnShard { .. } => "WaitingOnShard",
            Self::WaitingOnReplica { .. } => "WaitingOnReplica",
            Self::WaitingOnProcess { .. } => "WaitingOnProcess",
            Self::WaitingOnSilentPrimary { .. } => "WaitingOnSilentPrimary",
            Self::WaitingOnCopy { .. } => "WaitingOnCopy",
            Self::WaitingOnLink { .. } => "WaitingOnLink",
            Self::WaitingOnHeldCopy { .. } => "WaitingOnHeldCopy",
            Self::WaitingOnActiveShard { .. } => "WaitingOnActiveShard",
            Self::WaitingOnTopics { .. } => "WaitingOnTopics",
            Self::WaitingOnKafka { .. } => "WaitingOnKafka",
            Self::WaitingOnPlanView { .. } => "WaitingOnPlanView",
            Self::UnsafeToPromoteEmptyShard { .. } => "UnsafeToPromoteEmptyShard",
            Self::UnsafeToPromoteWhileUpstreamWrites { .. } => "UnsafeToPromoteWhileUpstreamWrites",
            Self::UnsafeToReplaceSilentPrimary { .. } => "UnsafeToReplaceSilentPrimary",
            Self::UnsafeToFollowEmptyShard { .. } => "UnsafeToFollowEmptyShard",
            Self::UnsafeToRunWithSetting(_) => "UnsafeToRunWithSetting",
            Self::UnsafeToActBelowSeenEpoch { .. } => "UnsafeToActBelowSeenEpoch",
            Self::UnsafeToRemoveActiveRegion { .. } => "UnsafeToRemoveActiveRegion",
            Self::UnsafeToReshard { .. } => "UnsafeToReshard",
            Self::UnsafeToPlanWithoutDataPlane => "UnsafeToPlanWithoutDataPlane",
            Self::UnsafeToActInNoRegion { .. } => "UnsafeToActInNoRegion",
            Self::UnsafeToAddressShards { .. } => "UnsafeToAddressShards",
        }
    }

    /// Whether somebody has to do something, because waiting alone does not help.
    pub fn needs_somebody(&self) -> bool {
        self.name().starts_with("UnsafeTo")
    }

    /// Whether a shard does not do what its region is for. One that only lacks a replica does.
    pub fn is_about_shards(&self) -> bool {
        use Reason::{
            UnsafeToFollowEmptyShard, UnsafeToPromoteEmptyShard, UnsafeToPromoteWhileUpstreamWrites, UnsafeToReplaceSilentPrimary,
            WaitingOnActiveShard, WaitingOnCopy, WaitingOnHeldCopy, WaitingOnLink, WaitingOnProcess, WaitingOnShard,
            WaitingOnSilentPrimary,
        };
        matches!(
            self,
            WaitingOnShard { .. }
                | WaitingOnCopy { .. }
                | WaitingOnLink { .. }
                | WaitingOnHeldCopy { .. }
                | WaitingOnActiveShard { .. }
                | WaitingOnProcess { .. }
                | WaitingOnSilentPrimary { .. }
                | UnsafeToReplaceSilentPrimary { .. }
                | UnsafeToPromoteEmptyShard { .. }
                | UnsafeToPromoteWhileUpstreamWrites { .. }
                | UnsafeToFollowEmptyShard { .. }
        )
    }
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = items.iter().take(SHOWN).map(T::to_string).collect();
    let more = if items.len() > SHOWN { format!(" and {} more", items.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingOnShard { shard, why } => write!(f, "shard {shard}: its Redis process has not answered ({why})"),
            Self::WaitingOnReplica { shard, process, why } => {
                write!(f, "shard {shard}: process {process} is no replica of this region's primary yet ({why})")
            }
            Self::WaitingOnProcess { shard, process, why } => {
                write!(f, "shard {shard}: it is not known whether process {process} of this region holds data ({why})")
            }
            Self::WaitingOnSilentPrimary { shard, process } => write!(
                f,
                "shard {shard}: its primary, process {process}, does not answer; another one takes over once that one takes no writes any more"
            ),
            Self::WaitingOnCopy { shard, from } => write!(f, "shard {shard}: copying the data from {from}"),
            Self::WaitingOnLink { shard, to } => write!(f, "shard {shard}: no connection to the shard in {to}, which it follows"),
            Self::WaitingOnHeldCopy { shard, region } => {
                write!(f, "shard {shard} is empty; its data are in {region}, whose operator has to hold that copy before it can be fetched")
            }
            Self::WaitingOnActiveShard { shard, region, why } => {
                write!(f, "shard {shard} keeps its data and does not follow {region} yet: {why}")
            }
            Self::WaitingOnTopics { topics } => write!(
                f,
                "Kafka lacks topics or partitions: {}. Unblock: create them, or set spec.kafka.manageTopics to true",
                listed(topics)
            ),
            Self::WaitingOnKafka { why } => write!(f, "this region's Kafka has not answered ({why})"),
            Self::WaitingOnPlanView { why } => write!(f, "the plan that pods read is not known ({why})"),
            Self::UnsafeToPromoteEmptyShard { shard, unknown } => write!(
                f,
                "shard {shard} is empty and was a primary before; whether {} hold its data is not known, so it is not made a primary. \
                 Unblock: bring the feature store of {} back",
                listed(unknown),
                listed(unknown)
            ),
            Self::UnsafeToPromoteWhileUpstreamWrites { shard, upstream } => {
                write!(f, "shard {shard} follows {upstream}, and it is not known that nothing writes there")
            }
            Self::UnsafeToReplaceSilentPrimary { shard, process, why } => write!(
                f,
                "shard {shard}: its primary, process {process}, does not answer, and it may still take writes ({why}). \
                 Unblock: if its node is lost, delete the pod with --force, so that another one takes its name"
            ),
            Self::UnsafeToFollowEmptyShard { shard, region } => write!(
                f,
                "shard {shard} holds data and the primary in {region} is empty: following it would lose them. \
                 Unblock: restart the shard's pod in {region}, so that it fetches the data from here"
            ),
            Self::UnsafeToRunWithSetting(fault) => {
                let SettingFault { process, setting, current, line, why } = fault.as_ref();
                write!(f, "{process} has {setting} {current}: {why}. Unblock: have the line `{line}` in its redis.conf, or restart its pod")
            }
            Self::UnsafeToActBelowSeenEpoch { what, seen, ours } => {
                write!(f, "{what} is in epoch {seen}, this region's plan in epoch {ours}: a newer plan exists that is not known here")
            }
            Self::UnsafeToRemoveActiveRegion { region } => write!(
                f,
                "the manifest has no region {region} any more, which is active. Unblock: put it back into spec.regions until another region is active"
            ),
            Self::UnsafeToReshard { planned, asked } => {
                write!(
                    f,
                    "the manifest asks for {asked} shards, the plan has {planned}. Unblock: set spec.features.shards back to {planned}"
                )
            }
            Self::UnsafeToPlanWithoutDataPlane => f.write_str("no region of the manifest runs a data plane with a preference"),
            Self::UnsafeToActInNoRegion { region } => write!(f, "the plan has no region {region}: nothing is done here"),
            Self::UnsafeToAddressShards { region, addresses, shards } => {
                write!(
                    f,
                    "region {region} has {addresses} shard addresses for {shards} shards. Unblock: check regions[{region}].features.expose"
                )
            }
        }
    }
}

/// What planning found. It ends in status, events and logs.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanReport {
    /// What is different from the committed plan, in words; empty if nothing is.
    pub changes: Vec<String>,
    /// Why the manifest is not followed in some respect.
    pub reasons: Vec<Reason>,
}
