//! Snapshots of the feature store: a job on a schedule, whose pod takes one from this region's replicas and ends.

use std::time::Duration;

use crds::{
    common::{ContainerResources, PodTemplate},
    features::{Backup, S3Destination},
};
use domain::duration;
use serde_json::{Value, json};

use super::{BuildError, BuildInput, digest, files, pod, scaling};
use crate::kinds::{Desired, Kind, Part, labels, object};

const PART: Part = Part::Snapshot;
const VOLUME_FOLDER: &str = "/var/lib/fraudpipeline/snapshots";
/// Ended by a signal, it leaves a torn snapshot, which is never restored.
const GRACE_SECONDS: u64 = 30;

pub(super) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    let Some(backup) = &input.effective.spec.features.backup else { return Ok(Vec::new()) };
    Ok(vec![scaling::service_account(input, PART), cron_job(input, backup)?])
}

fn cron_job(input: &BuildInput<'_>, backup: &Backup) -> Result<Desired, BuildError> {
    let every = backup.every.to_std().map_err(|error| BuildError::new("features.backup.every", error))?;
    let place = u64::from_str_radix(&digest(&format!("{}/{}", input.pipeline(), input.region))[..8], 16).unwrap_or_default();
    let wrong = || BuildError::new("features.backup.every", "must divide an hour or a day, such as 30m or 4h");
    let schedule = schedule(every, place).ok_or_else(wrong)?;
    let mut template = pod_template(input, backup, every)?;
    template["spec"]["restartPolicy"] = json!("Never");
    let spec = json!({
        "schedule": schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": {"backoffLimit": 2, "activeDeadlineSeconds": every.as_secs(), "template": template}},
    });
    let name = input.name(PART.label());
    Ok(object(input.owner, Kind::CronJob, name, labels(input.pipeline(), PART), json!({"spec": spec})))
}

/// Regions and pipelines take theirs at different minutes; `None` for what a schedule cannot say.
fn schedule(every: Duration, place: u64) -> Option<String> {
    let minutes = every.as_secs() / 60;
    if every != Duration::from_secs(minutes * 60) || minutes == 0 {
        return None;
    }
    if minutes < 60 {
        return (60 % minutes == 0).then(|| format!("{}-59/{minutes} * * * *", place % minutes));
    }
    let hours = minutes / 60;
    (minutes % 60 == 0 && hours <= 24 && 24 % hours == 0).then(|| format!("{} {}-23/{hours} * * *", place % 60, place / 60 % hours))
}

fn pod_template(input: &BuildInput<'_>, backup: &Backup, every: Duration) -> Result<Value, BuildError> {
    let keep = backup.keep.to_std().map_err(|error| BuildError::new("features.backup.keep", error))?;
    let store = Store::of(backup)?;
    let common = [
        "snapshot".to_owned(),
        format!("--plan={}", files::plan_path()),
        format!("--keep={}", duration::format(keep)),
        // What takes longer than the time between two is given up.
        format!("--within={}", duration::format(every)),
        "--skip-primaries".to_owned(),
        "--user=snapshot".to_owned(),
        format!("--password-file={}/password", files::REDIS_FOLDER),
        format!("--ca-file={}/ca.crt", files::REDIS_TLS_FOLDER),
        format!("--server-name={}", domain::feature_store_name(input.region)),
    ];
    let arguments = [common.to_vec(), store.arguments].concat();
    let config_digest = digest(&arguments.join(" "));
    let container = json!({
        "name": PART.label(),
        "image": input.images.builder,
        "command": ["/usr/bin/fraud-features"],
        "args": arguments,
        "resources": pod::resources(&ContainerResources::default(), "100m", "128Mi", "512Mi"),
        "volumeMounts": [
            pod::mount("plan", files::PLAN_FOLDER),
            pod::mount("redis", files::REDIS_FOLDER),
            pod::mount("redis-tls", files::REDIS_TLS_FOLDER),
        ],
    });
    let mut pod = pod::Pod {
        part: PART,
        labels: json!({}),
        container,
        volumes: vec![
            pod::config_map_volume("plan", &input.name("plan")),
            pod::secret_files("redis", &input.name("redis"), &[("snapshot.password", "password")]),
            pod::secret_files("redis-tls", &input.name("redis-tls"), &[("ca.crt", "ca.crt")]),
        ],
        config_digest,
        grace_seconds: GRACE_SECONDS,
    };
    if let Some((mount, volume)) = store.volume {
        if let Some(mounts) = pod.container["volumeMounts"].as_array_mut() {
            mounts.push(mount);
        }
        pod.volumes.push(volume);
    }
    Ok(pod::template(input, pod, &PodTemplate::default()))
}

/// Where snapshots go.
struct Store {
    arguments: Vec<String>,
    /// What the pod mounts for it.
    volume: Option<(Value, Value)>,
}

impl Store {
    fn of(backup: &Backup) -> Result<Self, BuildError> {
        match (&backup.destination.s3, &backup.destination.volume_claim) {
            (Some(s3), None) => Ok(Self::bucket(s3)),
            (None, Some(claim)) => {
                let volume = json!({"name": "snapshots", "persistentVolumeClaim": {"claimName": claim.name.as_str()}});
                let mount = pod::writable_mount("snapshots", VOLUME_FOLDER);
                Ok(Self { arguments: vec![format!("--store=file://{VOLUME_FOLDER}")], volume: Some((mount, volume)) })
            }
            _ => Err(BuildError::new("features.backup.destination", "set exactly one of s3 and volumeClaim")),
        }
    }

    fn bucket(s3: &S3Destination) -> Self {
        let prefix = s3.prefix.as_deref().unwrap_or_default().trim_matches('/');
        let mut arguments = vec![format!("--store=s3://{}/{prefix}", s3.bucket), format!("--s3-endpoint={}", s3.endpoint)];
        let volume = s3.secret_ref.as_ref().map(|secret| {
            arguments.push(format!("--credentials-dir={}", files::BUCKET_FOLDER));
            let keys = [("accessKeyId", "accessKeyId"), ("secretAccessKey", "secretAccessKey")];
            (pod::mount("bucket", files::BUCKET_FOLDER), pod::secret_files("bucket", secret.name.as_str(), &keys))
        });
        Self { arguments, volume }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_divides_an_hour_or_a_day_is_a_schedule() {
        let said = |minutes: u64| schedule(Duration::from_secs(minutes * 60), 1_234_567);
        assert_eq!(said(10).unwrap(), "7-59/10 * * * *");
        assert_eq!(said(60).unwrap(), "7 0-23/1 * * *");
        assert_eq!(said(240).unwrap(), "7 0-23/4 * * *");
        assert_eq!(said(1_440).unwrap(), "7 8-23/24 * * *");
        for wrong in [0, 7, 45, 90, 300, 1_500] {
            assert_eq!(said(wrong), None, "{wrong}");
        }
        assert_eq!(schedule(Duration::from_secs(601), 0), None);
    }
}
