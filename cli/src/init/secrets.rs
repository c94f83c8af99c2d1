//! The Secrets of one region, as one manifest.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::RegionName;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use rand::Rng;

use super::{
    InitArguments,
    pki::{Authority, Identity},
    redis_users::{self, RedisUser},
};

/// What is the same in every region: replicas authenticate at any region's primaries, and hashed entities agree everywhere.
pub(super) struct Shared {
    redis: Vec<RedisUser>,
    pii_key_id: &'static str,
    pii_key: [u8; 32],
}

impl Shared {
    pub(super) fn generate() -> Self {
        Self { redis: redis_users::generate(password), pii_key_id: "k1", pii_key: random() }
    }
}

pub(super) fn password() -> String {
    URL_SAFE_NO_PAD.encode(random())
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

pub(super) fn manifest(arguments: &InitArguments, region: &RegionName, authority: &Authority, shared: &Shared) -> anyhow::Result<String> {
    let (pipeline, namespace) = (&arguments.pipeline, &arguments.namespace);
    let scoring = authority.issue(&format!("{pipeline} scoring"), region, scoring_names(arguments, region))?;
    let features = authority.issue(
        &format!("{pipeline} feature store"),
        region,
        vec![domain::feature_store_name(region), domain::ANY_FEATURE_STORE_NAME.into()],
    )?;
    let peer = authority.issue("fraudpipeline operator", region, operator_names(arguments, region))?;
    let secrets = [
        secret(namespace, &format!("{pipeline}-redis"), "Opaque", redis_users::data(&shared.redis)),
        secret(namespace, "fraud-pii", "Opaque", pii_data(shared)),
        secret(namespace, &format!("{pipeline}-tls"), "kubernetes.io/tls", tls_data(authority, scoring)),
        secret(namespace, &format!("{pipeline}-redis-tls"), "kubernetes.io/tls", tls_data(authority, features)),
        secret(&arguments.operator_namespace, "fraudpipeline-peer-tls", "kubernetes.io/tls", tls_data(authority, peer)),
    ];
    documents(&secrets)
}

/// One manifest of them all.
pub(super) fn documents(secrets: &[Secret]) -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> = secrets.iter().map(serde_yaml::to_string).collect();
    Ok(documents?.join("---\n"))
}

fn scoring_names(arguments: &InitArguments, region: &RegionName) -> Vec<String> {
    let InitArguments { pipeline, namespace, .. } = arguments;
    let mut names = vec![format!("{region}.scoring.fraudpipeline.internal")];
    for service in ["decision", "inference"] {
        names.push(format!("{pipeline}-{service}.{namespace}.svc"));
        names.push(format!("{pipeline}-{service}.{namespace}.svc.cluster.local"));
    }
    names
}

fn operator_names(arguments: &InitArguments, region: &RegionName) -> Vec<String> {
    vec![format!("{region}.operator.fraudpipeline.internal"), format!("fraudpipeline-peer.{}.svc", arguments.operator_namespace)]
}

/// One file per key id, and `current`, which names the one to write with.
fn pii_data(shared: &Shared) -> BTreeMap<String, String> {
    let id = shared.pii_key_id;
    [("current".to_owned(), id.into()), (format!("{id}.key"), hex::encode(shared.pii_key))].into()
}

fn tls_data(authority: &Authority, identity: Identity) -> BTreeMap<String, String> {
    [
        ("ca.crt".to_owned(), authority.certificate_pem()),
        ("tls.crt".to_owned(), identity.certificate_pem),
        ("tls.key".to_owned(), identity.key_pem),
    ]
    .into()
}

/// All values are text and go into `stringData`, so that whoever reviews the file sees its shape.
fn secret(namespace: &str, name: &str, kind: &str, text: BTreeMap<String, String>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([("app.kubernetes.io/part-of".to_owned(), "fraudpipeline".to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        string_data: Some(text),
        ..Secret::default()
    }
}
