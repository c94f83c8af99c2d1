//! Makes owned objects what they should be, writing only what differs.
//!
//! Guarantees: an object that is as it should be is not written; an object that belongs to somebody else is never taken
//! over; one object's failure keeps no other from being applied; what is owned and not wanted any more is deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DynamicObject,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    cache::{Cache, is_owned_by, value_of},
    covers::covers,
    kinds::{Desired, Kind, Owner},
};

/// Digest of what was applied last: tells when something is no longer asked for.
const APPLIED: &str = "fraudpipeline.dev/applied";

/// What one pass over the owned objects did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Objects that were written or deleted, by kind and name.
    pub changed: Vec<String>,
    pub failures: Vec<String>,
}

/// By kind, namespace and name: the digest that was applied, and the version that came of it.
type Written = BTreeMap<(Kind, String, String), (String, String)>;

/// Applies objects. Remembers what the API server made of them.
pub(crate) struct Applier {
    client: Client,
    cache: Cache,
    /// As long as an object still has that version, applying the
    /// same again could change nothing, however the API server spells it.
    written: Mutex<Written>,
}

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("{kind} {name} exists and does not belong to this pipeline: delete or rename it")]
    NotOurs { kind: &'static str, name: String },
    #[error("{kind} {name}: {source}")]
    Api { kind: &'static str, name: String, source: kube::Error },
}

impl Applier {
    pub(crate) fn new(client: Client, cache: Cache) -> Self {
        Self { client, cache, written: Mutex::default() }
    }

    /// Applies all of `desired`, in order.
    pub(crate) async fn apply_all(&self, owner: &Owner, desired: &[Desired]) -> Applied {
        let mut applied = Applied::default();
        for object in desired {
            match self.apply(owner, object).await {
                Ok(true) => applied.changed.push(format!("{} {}", object.kind.name(), object.name)),
                Ok(false) => {}
                Err(error) => applied.failures.push(error.to_string()),
            }
        }
        applied
    }

    /// Deletes what the pipeline owns and `wanted` does not name.
    pub(crate) async fn prune(&self, owner: &Owner, wanted: &BTreeSet<(Kind, String)>) -> Applied {
        let mut applied = Applied::default();
        for kind in Kind::ALL {
            for object in self.cache.owned_by(kind, &owner.uid) {
                let name = object.name_any();
                if wanted.contains(&(kind, name.clone())) || object.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                match self.delete(owner, kind, &object).await {
                    Ok(()) => applied.changed.push(format!("{} {name}", kind.name())),
                    Err(error) => applied.failures.push(error.to_string()),
                }
            }
        }
        applied
    }

    /// Whether the object had to be written.
    async fn apply(&self, owner: &Owner, desired: &Desired) -> Result<bool, ApplyError> {
        let digest = digest(&desired.value);
        let wanted = with_digest(&desired.value, &digest);
        match self.cache.get(desired.kind, &owner.namespace, &desired.name) {
            Some(live) if !is_owned_by(&live, &owner.uid) => return Err(not_ours(desired)),
            Some(live) if covers(&value_of(&live), &without_type(&wanted)) || self.was_written(owner, desired, &digest, &live) => {
                return Ok(false);
            }
            Some(live) if has_rival_ports(&value_of(&live), &wanted) => self.take_out_rival_ports(owner, desired).await?,
            Some(_) => {}
            None => self.check_absent(owner, desired).await?,
        }
        let parameters = PatchParams::apply(crds::names::FIELD_MANAGER).force();
        let written = self.api(owner, desired.kind).patch(&desired.name, &parameters, &Patch::Apply(&wanted)).await;
        let written = written.map_err(|source| api_error(desired.kind, &desired.name, source))?;
        tracing::info!(kind = desired.kind.name(), name = desired.name, namespace = owner.namespace, "applied");
        self.remember(owner, desired, digest, &written);
        Ok(true)
    }

    /// The cache shows only what carries our label: something without it may stand in the way.
    async fn check_absent(&self, owner: &Owner, desired: &Desired) -> Result<(), ApplyError> {
        let found = self.api(owner, desired.kind).get_opt(&desired.name).await;
        match found.map_err(|source| api_error(desired.kind, &desired.name, source))? {
            Some(live) if !is_owned_by(&live, &owner.uid) => Err(not_ours(desired)),
            _ => Ok(()),
        }
    }

    /// Replaces the list of ports, which applying would only add to.
    async fn take_out_rival_ports(&self, owner: &Owner, desired: &Desired) -> Result<(), ApplyError> {
        let patch = json!({"spec": {"ports": desired.value["spec"]["ports"]}});
        let parameters = PatchParams { field_manager: Some(crds::names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let replaced = self.api(owner, desired.kind).patch(&desired.name, &parameters, &Patch::Merge(patch)).await;
        replaced.map(drop).map_err(|source| api_error(desired.kind, &desired.name, source))
    }

    async fn delete(&self, owner: &Owner, kind: Kind, object: &DynamicObject) -> Result<(), ApplyError> {
        let name = object.name_any();
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
            propagation_policy: Some(kube::api::PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.api(owner, kind).delete(&name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(source) => Err(api_error(kind, &name, source)),
        }
    }

    fn api(&self, owner: &Owner, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &owner.namespace, &kind.api_resource())
    }

    fn was_written(&self, owner: &Owner, desired: &Desired, digest: &str, live: &DynamicObject) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.get(&key(owner, desired));
        last.is_some_and(|(applied, version)| applied == digest && Some(version) == live.metadata.resource_version.as_ref())
    }

    fn remember(&self, owner: &Owner, desired: &Desired, digest: String, live: &DynamicObject) {
        let version = live.metadata.resource_version.clone().unwrap_or_default();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(key(owner, desired), (digest, version));
    }

    /// A pipeline that is gone leaves nothing behind here.
    pub(crate) fn forget(&self, owner: &Owner) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("{}-", owner.name);
        written.retain(|(_, namespace, name), _| namespace != &owner.namespace || !name.starts_with(&prefix));
    }
}

fn key(owner: &Owner, desired: &Desired) -> (Kind, String, String) {
    (desired.kind, owner.namespace.clone(), desired.name.clone())
}

fn digest(value: &Value) -> String {
    hex::encode(Sha256::digest(domain::canonical_json(value)))[..16].to_owned()
}

fn with_digest(value: &Value, digest: &str) -> Value {
    let mut wanted = value.clone();
    let annotations = &mut wanted["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[APPLIED] = json!(digest);
    wanted
}

/// Objects that came in a list do not say what they are.
fn without_type(wanted: &Value) -> Value {
    let mut rest = wanted.clone();
    if let Value::Object(members) = &mut rest {
        members.remove("apiVersion");
        members.remove("kind");
    }
    rest
}

/// Whether somebody gave one of a Service's ports another number. The number is what the API server tells ports apart by, so
/// it would keep that entry beside ours, and then refuse the two for having one name.
fn has_rival_ports(live: &Value, wanted: &Value) -> bool {
    let ports = |object: &Value| object["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = ports(wanted);
    let is_same = |live: &Value, ours: &Value, field: &str| !ours[field].is_null() && live[field] == ours[field];
    ports(live).iter().any(|live| {
        let ours = |ours: &&Value| live["port"] == ours["port"];
        let rival = |ours: &Value| is_same(live, ours, "name") || is_same(live, ours, "nodePort");
        !wanted.iter().any(|port| ours(&port)) && wanted.iter().any(rival)
    })
}

fn not_ours(desired: &Desired) -> ApplyError {
    ApplyError::NotOurs { kind: desired.kind.name(), name: desired.name.clone() }
}

fn api_error(kind: Kind, name: &str, source: kube::Error) -> ApplyError {
    ApplyError::Api { kind: kind.name(), name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::{
        kinds::{Part, labels, object},
        mock::{self, Answer},
    };

    fn owner() -> Owner {
        Owner { name: "payments".into(), namespace: "fraud".into(), uid: "uid-1".into() }
    }

    fn wanted() -> Desired {
        let fields = json!({"data": {"config.yaml": "a: 1"}});
        object(&owner(), Kind::ConfigMap, "payments-decision".into(), labels("payments", Part::Decision), fields)
    }

    /// The object as the API server would hold it after it was applied.
    fn live(desired: &Desired, version: &str) -> DynamicObject {
        let mut value = with_digest(&desired.value, &digest(&desired.value));
        value["metadata"]["resourceVersion"] = json!(version);
        value["metadata"]["uid"] = json!("object-1");
        value["spec"] = json!({"a-default": true});
        let mut object: DynamicObject = serde_json::from_value(value).unwrap();
        // As in a list.
        object.types = None;
        object
    }

    #[tokio::test]
    async fn an_object_that_is_as_it_should_be_is_not_written() {
        let (client, server) = mock::api_server();
        let applier = Applier::new(client, Cache::holding(vec![(Kind::ConfigMap, live(&wanted(), "7"))]));
        assert_eq!(applier.apply_all(&owner(), &[wanted()]).await, Applied::default());
        assert_eq!(server.requests(), []);
    }

    #[tokio::test]
    async fn a_changed_object_is_written_once_even_if_the_api_server_spells_it_otherwise() {
        let (client, server) = mock::api_server();
        let mut drifted = live(&wanted(), "7");
        drifted.data["data"]["config.yaml"] = json!("b: 2");
        // The answer, and from then on the cache, never looks like what was asked for.
        server.answer(Method::PATCH, "/configmaps/payments-decision", Answer::ok(&drifted));
        let applier = Applier::new(client, Cache::holding(vec![(Kind::ConfigMap, drifted)]));
        assert_eq!(applier.apply_all(&owner(), &[wanted()]).await.changed, ["ConfigMap payments-decision"]);
        assert_eq!(applier.apply_all(&owner(), &[wanted()]).await, Applied::default());
        assert_eq!(server.requests().len(), 1);
        assert!(server.requests()[0].query.contains("force=true") && server.requests()[0].query.contains("fieldManager=fraud-operator"));
    }

    #[tokio::test]
    async fn a_service_whose_port_was_renumbered_gets_its_own_ports_back() {
        let fields = json!({"spec": {"ports": [{"name": "grpc", "port": 8443, "nodePort": 30443}]}});
        let wanted = object(&owner(), Kind::Service, "payments-decision".into(), labels("payments", Part::Decision), fields);
        let mut drifted = live(&wanted, "7");
        drifted.data["spec"] = wanted.value["spec"].clone();
        drifted.data["spec"]["ports"][0]["port"] = json!(8444);
        let (client, server) = mock::api_server();
        server.answer(Method::PATCH, "/services/payments-decision", Answer::ok(&live(&wanted, "8")));
        let applier = Applier::new(client, Cache::holding(vec![(Kind::Service, drifted)]));
        assert_eq!(applier.apply_all(&owner(), &[wanted]).await.failures, [] as [String; 0]);
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert!(requests[0].body.starts_with(r#"{"spec":{"ports":[{"#) && !requests[0].body.contains("8444"), "{requests:?}");
        assert!(requests[1].query.contains("force=true"), "{requests:?}");
    }

    #[test]
    fn ports_that_others_added_beside_ours_are_no_rivals() {
        let ours = json!({"spec": {"ports": [{"name": "grpc", "port": 8443, "nodePort": 30443}]}});
        let with = |port: Value| json!({"spec": {"ports": [{"name": "grpc", "port": 8443, "nodePort": 30443}, port]}});
        assert!(!has_rival_ports(&ours, &ours));
        assert!(!has_rival_ports(&with(json!({"name": "extra", "port": 9000})), &ours));
        assert!(has_rival_ports(&with(json!({"name": "extra", "port": 9000, "nodePort": 30443})), &ours));
    }

    #[tokio::test]
    async fn what_is_no_longer_asked_for_is_seen_by_the_digest() {
        let (client, server) = mock::api_server();
        let mut before = wanted();
        before.value["data"]["old.yaml"] = json!("x");
        let applier = Applier::new(client, Cache::holding(vec![(Kind::ConfigMap, live(&before, "7"))]));
        server.answer(Method::PATCH, "/configmaps/payments-decision", Answer::ok(&live(&wanted(), "8")));
        assert_eq!(applier.apply_all(&owner(), &[wanted()]).await.changed.len(), 1);
    }

    #[tokio::test]
    async fn a_missing_object_is_made_and_a_foreign_one_of_that_name_is_left_alone() {
        let (client, server) = mock::api_server();
        let applier = Applier::new(client, Cache::holding(vec![]));
        server.answer(Method::GET, "/configmaps/payments-decision", Answer::not_found());
        server.answer(Method::PATCH, "/configmaps/payments-decision", Answer::ok(&live(&wanted(), "8")));
        assert_eq!(applier.apply_all(&owner(), &[wanted()]).await.changed.len(), 1);

        let (client, server) = mock::api_server();
        let applier = Applier::new(client, Cache::holding(vec![]));
        let mut foreign = live(&wanted(), "1");
        foreign.metadata.owner_references = None;
        server.answer(Method::GET, "/configmaps/payments-decision", Answer::ok(&foreign));
        let applied = applier.apply_all(&owner(), &[wanted()]).await;
        assert!(applied.failures[0].contains("does not belong to this pipeline"), "{applied:?}");
        assert!(server.requests().iter().all(|request| request.method == Method::GET));
    }

    #[tokio::test]
    async fn what_is_owned_and_not_wanted_is_deleted_and_nothing_else() {
        let (client, server) = mock::api_server();
        let mut foreign = live(&wanted(), "1");
        foreign.metadata.name = Some("foreign".into());
        foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-2".into();
        let mut old = live(&wanted(), "1");
        old.metadata.name = Some("payments-mirror-mars".into());
        let cache = Cache::holding([foreign, old, live(&wanted(), "1")].map(|object| (Kind::ConfigMap, object)).into());
        server.answer(
            Method::DELETE,
            "/configmaps/payments-mirror-mars",
            Answer::ok(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
        );
        let applier = Applier::new(client, cache);
        let keep = [(Kind::ConfigMap, "payments-decision".to_string())].into();
        assert_eq!(applier.prune(&owner(), &keep).await.changed, ["ConfigMap payments-mirror-mars"]);
        assert_eq!(server.requests().len(), 1);
    }
}
