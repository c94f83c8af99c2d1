//! Keeps the mirrored topics like the origin's: existence, partition counts, settings. Topics and partitions are only
//! added here; what the origin deletes stays.

use std::{collections::BTreeMap, time::Duration};

use kafka::{Admin, TopicInfo, TopicOutcome, TopicSpec};
use replicator_core::{Side, Trouble};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, POSITIONS_PARTITIONS},
    link::{Note, Notes},
    trouble,
};

/// Settings that belong to the origin's brokers, or would change the mirrored records.
const NOT_COPIED: &[&str] = &["leader.replication.throttled.replicas", "follower.replication.throttled.replicas", "message.timestamp.type"];

/// A mirrored record keeps the time at which it was written first.
const KEPT_TIMES: (&str, &str) = ("message.timestamp.type", "CreateTime");

/// Compares again and again, and tells which topics can be mirrored.
pub(crate) async fn keep_in_step(config: &Config, source: &Admin, target: &Admin, notes: &Notes, stop: &CancellationToken) {
    let mut interval = tokio::time::interval(config.limits.topic_sync_interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { _ = interval.tick() => {} () = stop.cancelled() => return }
        tokio::select! {
            note = async {
                match compare(config, source, target).await {
                    Ok((topics, trouble)) => Note::Topics(topics, trouble),
                    Err(trouble) => Note::TopicsNotCompared(trouble),
                }
            } => notes.send(note),
            () = stop.cancelled() => return,
        }
    }
}

/// The topics that are in order now, with their partition counts, and what is wrong with one of the others.
async fn compare(config: &Config, source: &Admin, target: &Admin) -> Result<(BTreeMap<String, u32>, Option<Trouble>), Trouble> {
    let wanted: Vec<String> = config.topics().into_iter().collect();
    let origin = source.describe(&wanted).await.map_err(|error| trouble::of_admin(Side::Source, error))?;
    let specs: Vec<TopicSpec> = origin.iter().map(|(name, info)| mirrored_spec(config, name, info)).collect();
    let reports = target.ensure_topics(&specs).await.map_err(|error| trouble::of_admin(Side::Target, error))?;
    let mut failed = None;
    let mut usable = BTreeMap::new();
    for (report, (name, info)) in reports.into_iter().zip(&origin) {
        match report.outcome {
            TopicOutcome::Failed { why } => {
                failed = Some(Trouble::Refused { side: Side::Target, why: format!("topic {}: {why}", report.name) });
                continue;
            }
            TopicOutcome::Unchanged => {}
            changed => tracing::info!(topic = report.name, ?changed, "mirrored topic made like the origin's"),
        }
        usable.insert(name.clone(), info.partitions);
    }
    Ok((usable, failed))
}

fn mirrored_spec(config: &Config, name: &str, info: &TopicInfo) -> TopicSpec {
    let copied = info.config.iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    let mut settings: BTreeMap<String, String> = copied.map(|(key, value)| (key.clone(), value.clone())).collect();
    settings.insert(KEPT_TIMES.0.to_owned(), KEPT_TIMES.1.to_owned());
    TopicSpec { name: config.mirrored(name), partitions: info.partitions, replication: None, config: settings }
}

/// The topic of positions: small segments, compacted often, so that a start reads little.
pub(crate) async fn ensure_positions(config: &Config, target: &Admin) -> Result<(), Trouble> {
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    let spec = TopicSpec {
        name: config.positions_topic(),
        partitions: POSITIONS_PARTITIONS,
        replication: None,
        config: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    let reports = target.ensure_topics(&[spec]).await.map_err(|error| trouble::of_admin(Side::Target, error))?;
    match reports.into_iter().map(|report| report.outcome).next() {
        Some(TopicOutcome::Failed { why }) => {
            Err(Trouble::Refused { side: Side::Target, why: format!("topic {}: {why}", config.positions_topic()) })
        }
        Some(TopicOutcome::Created) => {
            // Metadata of a topic spreads in a moment; reading it before would look like a topic without partitions.
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}
