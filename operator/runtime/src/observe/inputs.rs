//! Which Secrets, ConfigMaps and StorageClasses exist, by the keys that they have. Contents stay where they are, but for
//! the operator's own credentials of the feature store.

use std::collections::{BTreeMap, BTreeSet};

use domain::RegionName;
use feature_shards::{RedisUsers, ShardClient};
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{ConfigMap, Secret},
        storage::v1::StorageClass,
    },
};
use kube::{Api, Client};
use scoring_dial::Tls;

use crate::{
    kinds::Owner,
    validate::{Inputs, References},
};

#[derive(Debug, thiserror::Error)]
#[error("cannot read {kind} {name}: {source}")]
pub(crate) struct InputError {
    kind: &'static str,
    name: String,
    source: kube::Error,
}

pub(super) async fn look(client: &Client, namespace: &str, references: &References<'_>) -> Result<Inputs, InputError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let classes: Api<StorageClass> = Api::all(client.clone());
    let mut inputs = Inputs::default();
    for (name, _) in &references.secrets {
        let found = secrets.get_opt(name).await.map_err(|source| InputError { kind: "Secret", name: name.clone(), source })?;
        inputs.secrets.extend(found.map(|secret| (name.clone(), keys(secret.data))));
    }
    for (name, _) in &references.config_maps {
        let found = config_maps.get_opt(name).await.map_err(|source| InputError { kind: "ConfigMap", name: name.clone(), source })?;
        inputs.config_maps.extend(found.map(|map| (name.clone(), keys(map.data))));
    }
    if let Some(name) = &references.storage_class {
        match classes.get_opt(name).await {
            Ok(found) => inputs.storage_classes.extend(found.map(|_| name.clone())),
            // Classes belong to the whole cluster: where the operator may not look at them, a missing one shows in its pods.
            Err(kube::Error::Api(status)) if status.code == 403 => drop(inputs.storage_classes.insert(name.clone())),
            Err(source) => return Err(InputError { kind: "StorageClass", name: name.clone(), source }),
        }
    }
    Ok(inputs)
}

fn keys<T>(data: Option<BTreeMap<String, T>>) -> BTreeSet<String> {
    data.into_iter().flatten().map(|(key, _)| key).collect()
}

/// What the operator needs to reach the feature store of any region.
pub(crate) struct ShardCredentials {
    password: String,
    ca_pem: Vec<u8>,
    /// The users that shards should have, or what of the Secret cannot be understood.
    pub(crate) users: Result<RedisUsers, String>,
}

impl ShardCredentials {
    /// For the shards of one region: they show a certificate with that region's name.
    pub(crate) fn client(&self, region: &RegionName) -> ShardClient {
        let tls = Tls { ca_pem: self.ca_pem.clone(), server_name: domain::feature_store_name(region) };
        ShardClient::new(self.password.clone()).with_tls(tls)
    }
}

/// The credentials of the feature store's user `operator`, or why there are none.
pub(crate) async fn shard_credentials(client: &Client, owner: &Owner) -> Result<ShardCredentials, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &owner.namespace);
    let (users, tls) = (format!("{}-redis", owner.name), format!("{}-redis-tls", owner.name));
    let (users, tls) = tokio::try_join!(SecretData::read(&secrets, users), SecretData::read(&secrets, tls))?;
    Ok(ShardCredentials {
        password: users.text("operator.password")?,
        ca_pem: tls.text("ca.crt")?.into_bytes(),
        users: RedisUsers::parse(&users.text("users.acl")?, &users.text("replication.conf")?),
    })
}

struct SecretData {
    name: String,
    data: BTreeMap<String, ByteString>,
}

impl SecretData {
    async fn read(secrets: &Api<Secret>, name: String) -> Result<Self, String> {
        let secret = secrets.get_opt(&name).await.map_err(|error| format!("Secret {name} cannot be read: {error}"))?;
        Ok(Self { data: secret.and_then(|secret| secret.data).unwrap_or_default(), name })
    }

    fn text(&self, key: &str) -> Result<String, String> {
        let value = self.data.get(key).ok_or_else(|| format!("Secret {} has no key {key}", self.name))?;
        String::from_utf8(value.0.clone()).map_err(|_| format!("Secret {}, key {key}, is no text", self.name))
    }
}
