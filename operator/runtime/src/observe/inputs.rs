//! Which Secrets, ConfigMaps and StorageClasses exist, by the keys that they have. Contents stay where they are, but for
//! the operator's own password to the feature store.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    storage::v1::StorageClass,
};
use kube::{Api, Client};

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

/// The password of the feature store's user `operator`, or why there is none.
pub(crate) async fn operator_password(client: &Client, owner: &Owner) -> Result<String, String> {
    let (name, key) = (format!("{}-redis", owner.name), "operator.password");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &owner.namespace);
    let secret = secrets.get_opt(&name).await.map_err(|error| format!("Secret {name} cannot be read: {error}"))?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let password = data.get(key).ok_or_else(|| format!("Secret {name} has no key {key}"))?;
    String::from_utf8(password.0.clone()).map_err(|_| format!("Secret {name}, key {key}, is no text"))
}
