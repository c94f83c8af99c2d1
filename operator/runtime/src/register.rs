//! The register as the operator uses it: read what is committed, commit a child of it.
//!
//! [`KubeRegister`] is a register of one cell, this region's own RegionPlan, behind the trait that a register of several
//! regions will implement. It follows the same rules with a voter set of one, and claims nothing about other regions.
//!
//! Guarantees: nothing is answered before this region's API server has acknowledged the write; a write that raced with
//! another one is refused by the API server (resourceVersion), and nothing of it is kept.

use std::{collections::BTreeMap, future::Future};

use base64::{Engine, engine::general_purpose::STANDARD};
use crds::{RegionPlan, RegionPlanSpec, names, region_plan};
use domain::{Ballot, InvalidName, Plan, PlanBytes, PlanError, RegionName};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use operator_planner::CurrentPlan;
use operator_register::{
    Answer, Cell, NextStep, NoMajority, Proposal, Refusal, Voter, Voters, accept, after_prepare, commit, next_ballot, prepare,
};
use serde_json::json;

/// Which pipeline's register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineKey {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("RegionPlan cannot be {what}: {source}")]
    Api { what: &'static str, source: kube::Error },
    #[error("somebody else wrote the RegionPlan in this moment; the next pass reads it again")]
    Raced,
    #[error("RegionPlan cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "the RegionPlan was restored from a copy (it names cell {named}, it is {is}): its promises may be forgotten. Make sure that no other region is active, then delete the RegionPlan"
    )]
    Restored { named: String, is: String },
    #[error("the plan was not taken: {0}")]
    Refused(#[from] Refusal),
    #[error("the plan was not taken: {0}")]
    NoMajority(#[from] NoMajority),
    #[error("the plan was made from another plan than the one that is committed; the next pass plans again")]
    NotFromCommitted,
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The epoch register of a pipeline.
pub trait Register: Send + Sync + 'static {
    /// The newest plan that this region knows to be committed.
    fn committed(&self, key: &PipelineKey) -> impl Future<Output = Result<Option<CurrentPlan>, RegisterError>> + Send;

    /// Commits `plan`, which was made from the committed plan. Afterwards a majority of the voters holds it.
    fn commit(&self, key: &PipelineKey, plan: &Plan) -> impl Future<Output = Result<CurrentPlan, RegisterError>> + Send;

    /// Gives up this region's cell, at the end of a confirmed deletion.
    fn forget(&self, key: &PipelineKey) -> impl Future<Output = Result<(), RegisterError>> + Send;
}

/// A register whose only voter is this region.
#[derive(Clone)]
pub struct KubeRegister {
    client: Client,
    region: RegionName,
}

impl KubeRegister {
    pub fn new(client: Client, region: RegionName) -> Self {
        Self { client, region }
    }

    fn api(&self, key: &PipelineKey) -> Api<RegionPlan> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn get(&self, key: &PipelineKey) -> Result<Option<RegionPlan>, RegisterError> {
        self.api(key).get_opt(&key.name).await.map_err(|source| RegisterError::Api { what: "read", source })
    }

    /// An empty cell. It has no voters until its uid is known.
    async fn create(&self, key: &PipelineKey) -> Result<RegionPlan, RegisterError> {
        let spec =
            RegionPlanSpec { voters: region_plan::Voters::default(), promised: None, accepted: None, committed: None, incarnation: None };
        let labels = BTreeMap::from([
            (names::NAME_LABEL.to_owned(), names::NAME_LABEL_VALUE.to_owned()),
            (names::INSTANCE_LABEL.to_owned(), key.name.clone()),
            (names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY_LABEL_VALUE.to_owned()),
        ]);
        let mut object = RegionPlan::new(&key.name, spec);
        // No owner: the cell outlives a manifest that is deleted by mistake.
        object.metadata = ObjectMeta { namespace: Some(key.namespace.clone()), labels: Some(labels), ..object.metadata };
        let created = self.api(key).create(&parameters(), &object).await;
        created.map_err(|source| if is_conflict(&source) { RegisterError::Raced } else { RegisterError::Api { what: "created", source } })
    }

    async fn replace(&self, key: &PipelineKey, object: &RegionPlan) -> Result<(), RegisterError> {
        let replaced = self.api(key).replace(&key.name, &parameters(), object).await;
        replaced
            .map(drop)
            .map_err(|source| if is_conflict(&source) { RegisterError::Raced } else { RegisterError::Api { what: "written", source } })
    }

    /// The decoded copy that people and printer columns read.
    async fn publish(&self, key: &PipelineKey, object: &RegionPlan, plan: &Plan) -> Result<(), RegisterError> {
        let decoded = serde_json::to_value(plan).map_err(|error| RegisterError::Unreadable(error.to_string()))?;
        if object.status.as_ref().and_then(|status| status.plan.as_ref()) == Some(&decoded) {
            return Ok(());
        }
        let status = json!({"apiVersion": names::API_VERSION, "kind": "RegionPlan", "status": {"plan": decoded}});
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let written = self.api(key).patch_status(&key.name, &parameters, &Patch::Apply(status)).await;
        written.map(drop).map_err(|source| RegisterError::Api { what: "published", source })
    }
}

impl Register for KubeRegister {
    async fn committed(&self, key: &PipelineKey) -> Result<Option<CurrentPlan>, RegisterError> {
        let Some(object) = self.get(key).await? else { return Ok(None) };
        let (_, cell) = cell_of(&object, &self.region)?;
        let Some(committed) = cell.committed else { return Ok(None) };
        let current = CurrentPlan { plan: committed.plan().decode()?, sha256: committed.sha256().to_owned() };
        self.publish(key, &object, &current.plan).await?;
        Ok(Some(current))
    }

    async fn commit(&self, key: &PipelineKey, plan: &Plan) -> Result<CurrentPlan, RegisterError> {
        let mut object = match self.get(key).await? {
            Some(object) => object,
            None => self.create(key).await?,
        };
        let (voter, cell) = cell_of(&object, &self.region)?;
        let next = committed_alone(&cell, &voter, plan)?;
        object.spec = spec_of(&next);
        self.replace(key, &object).await?;
        let current = CurrentPlan { plan: plan.clone(), sha256: plan.to_bytes()?.sha256().to_owned() };
        if let Some(written) = self.get(key).await? {
            self.publish(key, &written, plan).await?;
        }
        Ok(current)
    }

    async fn forget(&self, key: &PipelineKey) -> Result<(), RegisterError> {
        let Some(object) = self.get(key).await? else { return Ok(()) };
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api(key).delete(&key.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(RegisterError::Api { what: "deleted", source }),
        }
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// All three phases of a round with one voter, as one change of its cell. Pure.
fn committed_alone(cell: &Cell, voter: &Voter, plan: &Plan) -> Result<Cell, RegisterError> {
    let mut cell = cell.clone();
    if cell.voters.members.is_empty() {
        cell.voters = Voters { generation: cell.voters.generation + 1, members: vec![voter.clone()] };
    }
    let generation = cell.voters.generation;
    let ballot = next_ballot(cell.promised.as_ref(), &voter.region);
    cell = prepare(&cell, generation, &ballot)?;
    let answer = Answer { voter: voter.clone(), cell: cell.clone() };
    let parent = match after_prepare(&cell.voters, &[answer])? {
        NextStep::PlanTheFirst => None,
        NextStep::PlanFrom(parent) => Some(parent.sha256().to_owned()),
        // Left by a round of another implementation that was cut off; it is finished there.
        NextStep::FinishFirst(_) => return Err(RegisterError::NotFromCommitted),
    };
    if plan.parent != parent {
        return Err(RegisterError::NotFromCommitted);
    }
    let proposal = Proposal::new(ballot, plan.to_bytes()?)?;
    cell = accept(&cell, generation, proposal.clone())?;
    Ok(commit(&cell, generation, proposal, &[])?)
}

/// The cell that an object holds, and which voter it is.
fn cell_of(object: &RegionPlan, region: &RegionName) -> Result<(Voter, Cell), RegisterError> {
    let voter = Voter { region: region.clone(), cell_uid: object.uid().unwrap_or_default() };
    let unreadable_name = |error: InvalidName| RegisterError::Unreadable(error.to_string());
    let members = object.spec.voters.members.iter().map(|member| {
        let region = RegionName::new(member.region.as_str()).map_err(unreadable_name)?;
        Ok(Voter { region, cell_uid: member.cell_uid.clone() })
    });
    let members: Vec<Voter> = members.collect::<Result<_, RegisterError>>()?;
    if let Some(own) = members.iter().find(|member| &member.region == region)
        && own.cell_uid != voter.cell_uid
    {
        return Err(RegisterError::Restored { named: own.cell_uid.clone(), is: voter.cell_uid });
    }
    let cell = Cell {
        voters: Voters { generation: unsigned(object.spec.voters.generation)?, members },
        promised: object.spec.promised.as_ref().map(ballot_of).transpose()?,
        accepted: object.spec.accepted.as_ref().map(proposal_of).transpose()?,
        committed: object.spec.committed.as_ref().map(proposal_of).transpose()?,
        incarnation: object.spec.incarnation.clone(),
    };
    Ok((voter, cell))
}

fn ballot_of(record: &region_plan::BallotRecord) -> Result<Ballot, RegisterError> {
    let region = RegionName::new(record.region.as_str()).map_err(|error| RegisterError::Unreadable(error.to_string()))?;
    Ok(Ballot { term: unsigned(record.term)?, region, seq: unsigned(record.seq)? })
}

fn proposal_of(record: &region_plan::PlanRecord) -> Result<Proposal, RegisterError> {
    let bytes = STANDARD.decode(&record.plan).map_err(|error| RegisterError::Unreadable(format!("plan is not base64: {error}")))?;
    let plan = PlanBytes::checked(bytes, record.sha256.as_str())?;
    Ok(Proposal::new(ballot_of(&record.ballot)?, plan)?)
}

fn spec_of(cell: &Cell) -> RegionPlanSpec {
    let member = |voter: &Voter| region_plan::Voter { region: voter.region.as_str().into(), cell_uid: voter.cell_uid.clone() };
    RegionPlanSpec {
        voters: region_plan::Voters {
            generation: signed(cell.voters.generation),
            members: cell.voters.members.iter().map(member).collect(),
        },
        promised: cell.promised.as_ref().map(ballot_record),
        accepted: cell.accepted.as_ref().map(plan_record),
        committed: cell.committed.as_ref().map(plan_record),
        incarnation: cell.incarnation.clone(),
    }
}

fn ballot_record(ballot: &Ballot) -> region_plan::BallotRecord {
    region_plan::BallotRecord { term: signed(ballot.term), region: ballot.region.as_str().into(), seq: signed(ballot.seq) }
}

fn plan_record(proposal: &Proposal) -> region_plan::PlanRecord {
    let (epoch, revision) = proposal.order();
    region_plan::PlanRecord {
        ballot: ballot_record(&proposal.ballot),
        epoch: signed(epoch.0),
        revision: signed(revision.0),
        plan: STANDARD.encode(proposal.plan().bytes()),
        sha256: proposal.sha256().into(),
    }
}

fn unsigned(number: i64) -> Result<u64, RegisterError> {
    u64::try_from(number).map_err(|_| RegisterError::Unreadable(format!("{number} is negative")))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use domain::Revision;
    use operator_planner::{Observation, PlanInput, plan};

    use super::*;
    use crate::{facts, testing::example};

    fn region() -> RegionName {
        RegionName::new("us-east").unwrap()
    }

    fn first_plan() -> Plan {
        let spec = facts::of_spec("payments", "fraud", &example().spec).unwrap();
        let (region, seen) = (region(), Observation::nothing("test"));
        plan(&PlanInput { region: &region, spec: &spec, current: None, seen: &seen, newest_version: "0.1.0" }).plan.unwrap()
    }

    fn voter() -> Voter {
        Voter { region: region(), cell_uid: "uid-1".into() }
    }

    #[test]
    fn what_is_committed_is_read_back_from_the_stored_object() {
        let cell = committed_alone(&Cell::default(), &voter(), &first_plan()).unwrap();
        let mut object = RegionPlan::new("payments", spec_of(&cell));
        object.metadata.uid = Some("uid-1".into());
        let (read_voter, read) = cell_of(&object, &region()).unwrap();
        assert_eq!((read_voter, read.voters.generation), (voter(), 1));
        assert_eq!(read, cell);
        assert_eq!(read.committed.unwrap().plan().decode().unwrap(), first_plan());
    }

    #[test]
    fn a_plan_that_was_made_from_an_older_one_is_not_taken() {
        let cell = committed_alone(&Cell::default(), &voter(), &first_plan()).unwrap();
        let mut next = first_plan();
        next.revision = Revision(2);
        assert!(matches!(committed_alone(&cell, &voter(), &next), Err(RegisterError::NotFromCommitted)));
        next.parent = cell.committed.as_ref().map(|held| held.sha256().to_owned());
        let cell = committed_alone(&cell, &voter(), &next).unwrap();
        assert_eq!(cell.committed.unwrap().order().1, Revision(2));
    }

    #[test]
    fn a_restored_cell_is_not_used() {
        let cell = committed_alone(&Cell::default(), &voter(), &first_plan()).unwrap();
        let mut object = RegionPlan::new("payments", spec_of(&cell));
        object.metadata.uid = Some("another-uid".into());
        assert!(matches!(cell_of(&object, &region()), Err(RegisterError::Restored { .. })));
    }

    #[test]
    fn a_damaged_plan_is_refused() {
        let cell = committed_alone(&Cell::default(), &voter(), &first_plan()).unwrap();
        let mut object = RegionPlan::new("payments", spec_of(&cell));
        object.metadata.uid = Some("uid-1".into());
        object.spec.committed.as_mut().unwrap().sha256 = "00".into();
        assert!(matches!(cell_of(&object, &region()), Err(RegisterError::Plan(PlanError::Digest { .. }))));
    }
}
