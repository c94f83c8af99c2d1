//! Topics: what there is, and making it what it should be. Never deletes a topic, never removes a partition.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    client::{Context, KafkaMetrics},
    config::{ConfigError, KafkaConfig},
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a topic should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: u32,
    /// None: what the brokers do by default.
    pub replication: Option<u16>,
    /// Settings of the topic that must have these values; others are left alone.
    pub config: BTreeMap<String, String>,
}

/// What a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub partitions: u32,
    /// Settings made for this topic, without those it inherits from the brokers.
    pub config: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicOutcome {
    Created,
    /// Was as it should be. It may have more partitions than asked for: they cannot be taken away.
    Unchanged,
    /// Existed and was brought up to the specification.
    Changed {
        partitions_added: u32,
        settings: Vec<String>,
    },
    Failed {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    pub name: String,
    pub outcome: TopicOutcome,
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cluster did not answer: {0}")]
    Unreachable(KafkaError),
    #[error("not authorised: {0}. Grant the client's user what it needs on the topic, or on the cluster to create topics")]
    NotAuthorised(KafkaError),
    #[error("refused by the cluster: {0}")]
    Refused(KafkaError),
    #[error("interrupted: the process is shutting down")]
    Interrupted,
}

impl From<KafkaError> for AdminError {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication,
            ) => Self::NotAuthorised(error),
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve | Code::RequestTimedOut) => {
                Self::Unreachable(error)
            }
            _ => Self::Refused(error),
        }
    }
}

/// A client for questions about topics and changes to them. Clones share one connection.
#[derive(Clone)]
pub struct Admin {
    /// None only while it is being dropped.
    client: Option<Arc<AdminClient<Context>>>,
}

impl Admin {
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &KafkaConfig, client_id: &str, metrics: &KafkaMetrics) -> Result<Self, ConfigError> {
        let client = config.client_config(client_id)?.create_with_context(Context::new(client_id, metrics))?;
        Ok(Self { client: Some(Arc::new(client)) })
    }

    /// The identity of the cluster, which no other cluster has.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn cluster_id(&self) -> Result<String, AdminError> {
        let unreachable = || AdminError::Unreachable(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        self.blocking(move |client| client.inner().fetch_cluster_id(TIMEOUT).ok_or_else(unreachable)).await
    }

    /// Partition counts of all topics.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn partition_counts(&self) -> Result<BTreeMap<String, u32>, AdminError> {
        self.blocking(|client| {
            let metadata = client.inner().fetch_metadata(None, TIMEOUT)?;
            let count = |partitions: usize| u32::try_from(partitions).unwrap_or(u32::MAX);
            let usable = metadata.topics().iter().filter(|topic| topic.error().is_none());
            Ok(usable.map(|topic| (topic.name().to_owned(), count(topic.partitions().len()))).collect())
        })
        .await
    }

    /// What the named topics are. Topics that do not exist are left out.
    ///
    /// # Errors
    /// When the cluster does not answer, or does not allow describing one of them.
    pub async fn describe(&self, names: &[String]) -> Result<BTreeMap<String, TopicInfo>, AdminError> {
        let counts = self.partition_counts().await?;
        let present: Vec<(&String, u32)> = names.iter().filter_map(|name| counts.get(name).map(|&count| (name, count))).collect();
        let configs = self.topic_configs(present.iter().map(|(name, _)| name.as_str())).await?;
        let info = |(name, partitions): (&String, u32)| {
            let config = configs.get(name.as_str()).cloned().unwrap_or_default();
            (name.clone(), TopicInfo { partitions, config })
        };
        Ok(present.into_iter().map(info).collect())
    }

    async fn topic_configs(&self, names: impl Iterator<Item = &str>) -> Result<BTreeMap<String, BTreeMap<String, String>>, AdminError> {
        let resources: Vec<_> = names.map(ResourceSpecifier::Topic).collect();
        if resources.is_empty() {
            return Ok(BTreeMap::new());
        }
        let described = self.client()?.describe_configs(&resources, &options()).await?;
        let mut configs = BTreeMap::new();
        for (resource, name) in described.into_iter().zip(&resources) {
            let resource = resource.map_err(KafkaError::AdminOp)?;
            let ResourceSpecifier::Topic(name) = name else { continue };
            let own = resource.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
            configs.insert((*name).to_owned(), own.filter_map(|entry| Some((entry.name, entry.value?))).collect());
        }
        Ok(configs)
    }

    /// Creates missing topics, adds missing partitions, and sets the settings that differ. One topic's failure does not
    /// keep the others from being made.
    ///
    /// # Errors
    /// When the cluster does not answer; what was refused for a single topic is in its report.
    pub async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, AdminError> {
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        let present = self.describe(&names).await?;
        let mut reports = Vec::with_capacity(specs.len());
        for spec in specs {
            let outcome = match present.get(&spec.name) {
                None => self.create(spec).await,
                Some(info) => self.bring_up(spec, info).await,
            };
            let outcome = outcome.unwrap_or_else(|error| TopicOutcome::Failed { why: error.to_string() });
            reports.push(TopicReport { name: spec.name.clone(), outcome });
        }
        Ok(reports)
    }

    async fn create(&self, spec: &TopicSpec) -> Result<TopicOutcome, AdminError> {
        let replication = TopicReplication::Fixed(spec.replication.map_or(-1, i32::from));
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(&spec.name, partitions, replication);
        for (key, value) in &spec.config {
            topic = topic.set(key, value);
        }
        for result in self.client()?.create_topics([&topic], &options()).await? {
            match result {
                // Somebody else made it in this moment; the next round compares it.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code).into()),
            }
        }
        Ok(TopicOutcome::Created)
    }

    async fn bring_up(&self, spec: &TopicSpec, info: &TopicInfo) -> Result<TopicOutcome, AdminError> {
        let partitions_added = spec.partitions.saturating_sub(info.partitions);
        if partitions_added > 0 {
            let grown = NewPartitions::new(&spec.name, usize::try_from(spec.partitions).unwrap_or(usize::MAX));
            for result in self.client()?.create_partitions([&grown], &options()).await? {
                result.map_err(|(_, code)| KafkaError::AdminOp(code))?;
            }
        }
        let differs = |(key, value): &(&String, &String)| info.config.get(*key) != Some(*value);
        let settings: Vec<String> = spec.config.iter().filter(differs).map(|(key, _)| key.clone()).collect();
        if !settings.is_empty() {
            self.set_config(spec, info).await?;
        }
        if partitions_added == 0 && settings.is_empty() {
            return Ok(TopicOutcome::Unchanged);
        }
        Ok(TopicOutcome::Changed { partitions_added, settings })
    }

    /// The request replaces all settings of a topic, so those that are to stay are sent along.
    async fn set_config(&self, spec: &TopicSpec, info: &TopicInfo) -> Result<(), AdminError> {
        let mut all = info.config.clone();
        all.extend(spec.config.iter().map(|(key, value)| (key.clone(), value.clone())));
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&spec.name));
        for (key, value) in &all {
            change = change.set(key, value);
        }
        for result in self.client()?.alter_configs([&change], &options()).await? {
            result.map_err(|(_, code)| KafkaError::AdminOp(code))?;
        }
        Ok(())
    }

    fn client(&self) -> Result<&Arc<AdminClient<Context>>, AdminError> {
        self.client.as_ref().ok_or(AdminError::Interrupted)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        question: impl FnOnce(&AdminClient<Context>) -> Result<T, AdminError> + Send + 'static,
    ) -> Result<T, AdminError> {
        let client = self.client()?.clone();
        tokio::task::spawn_blocking(move || question(&client)).await.map_err(|_| AdminError::Interrupted)?
    }
}

impl Drop for Admin {
    /// Closing joins threads of the client: not on a thread of an async runtime.
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(client));
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// Makes topics what they should be, with a connection for this once.
///
/// # Errors
/// When the configuration cannot be used or the cluster does not answer.
pub async fn ensure_topics(config: &KafkaConfig, specs: &[TopicSpec]) -> Result<Vec<TopicReport>, AdminError> {
    Admin::new(config, "fraudpipeline-topics", &KafkaMetrics::default())?.ensure_topics(specs).await
}
