//! A copy, kept by watching, of all objects that operators own in this cluster. Both replicas keep one, so that the one
//! that takes over knows at once what is there.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use crds::names;
use futures::{StreamExt, channel::mpsc, future::join_all};
use kube::{
    Api, Client,
    core::DynamicObject,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde_json::Value;

use crate::{error::with_causes, kinds::Kind};

/// Which namespaces are looked at: one, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Namespace(String),
}

impl Scope {
    pub(crate) fn of(namespaces: &[String]) -> Vec<Self> {
        if namespaces.is_empty() { vec![Self::All] } else { namespaces.iter().cloned().map(Self::Namespace).collect() }
    }

    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    fn objects(&self, client: &Client, kind: Kind) -> Api<DynamicObject> {
        let resource = kind.api_resource();
        match self {
            Self::All => Api::all_with(client.clone(), &resource),
            Self::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        }
    }
}

/// Reads never wait, and may be a moment behind the API server.
#[derive(Clone, Default)]
pub(crate) struct Cache {
    stores: BTreeMap<Kind, Vec<Store<DynamicObject>>>,
}

impl Cache {
    /// A cache, what keeps it up to date while it is polled, and a stream with an item after each change (changes that
    /// come together may give one item).
    pub(crate) fn start(client: &Client, scopes: &[Scope]) -> (Self, impl Future<Output = ()> + Send + use<>, mpsc::Receiver<()>) {
        let (changed, changes) = mpsc::channel(1);
        let mut cache = Self::default();
        let mut watches = Vec::new();
        for kind in Kind::ALL {
            for scope in scopes {
                let writer = reflector::store::Writer::new(kind.api_resource());
                cache.stores.entry(kind).or_default().push(writer.as_reader());
                watches.push(follow(scope.objects(client, kind), writer, changed.clone()));
            }
        }
        let all = async move {
            join_all(watches).await;
        };
        (cache, all, changes)
    }

    /// Waits until everything has been listed once.
    pub(crate) async fn ready(&self) {
        for store in self.stores.values().flatten() {
            // The writer lives in the future that keeps the cache; without it, whoever waits is being stopped too.
            let _ = store.wait_until_ready().await;
        }
    }

    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let key = ObjectRef::new_with(name, kind.api_resource()).within(namespace);
        self.stores.get(&kind)?.iter().find_map(|store| store.get(&key))
    }

    /// All objects of a kind that `uid` owns.
    pub(crate) fn owned_by(&self, kind: Kind, uid: &str) -> Vec<Arc<DynamicObject>> {
        let stores = self.stores.get(&kind).into_iter().flatten();
        stores.flat_map(|store| store.state_filter(|object| is_owned_by(object, uid))).collect()
    }

    /// A cache with exactly these objects, for tests.
    #[cfg(test)]
    pub(crate) fn holding(objects: Vec<(Kind, DynamicObject)>) -> Self {
        let mut cache = Self::default();
        for kind in Kind::ALL {
            let mut writer = reflector::store::Writer::new(kind.api_resource());
            writer.apply_watcher_event(&watcher::Event::Init);
            for (_, object) in objects.iter().filter(|(found, _)| *found == kind) {
                writer.apply_watcher_event(&watcher::Event::InitApply(object.clone()));
            }
            writer.apply_watcher_event(&watcher::Event::InitDone);
            cache.stores.entry(kind).or_default().push(writer.as_reader());
        }
        cache
    }
}

/// Whether an object belongs to the pipeline with this uid.
pub(crate) fn is_owned_by(object: &DynamicObject, uid: &str) -> bool {
    object.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

/// An object as one JSON value.
pub(crate) fn value_of(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

async fn follow(api: Api<DynamicObject>, writer: reflector::store::Writer<DynamicObject>, mut changed: mpsc::Sender<()>) {
    let ours = watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY_LABEL_VALUE));
    let events = watcher(api, ours).default_backoff().modify(|object| object.metadata.managed_fields = None).reflect(writer);
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            // Full: somebody is told already.
            Ok(_) => drop(changed.try_send(())),
            Err(error) => tracing::warn!(error = with_causes(&error), "a watch was interrupted; it starts again"),
        }
    }
}
