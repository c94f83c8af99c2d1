//! The file that `--config` names. The operator renders it; `tests/config.yaml` is the full sample that both sides test.
//!
//! Names are snake_case; durations are texts such as `500ms`; money and probabilities are decimal texts such as `"0.5"`,
//! as in the manifest, so that nothing is rounded on the way. Secrets are files, and the configuration holds their paths.
//! Does no IO: [`Config::checked`] judges a value that was read elsewhere.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use domain::{PipelineName, RegionName};
use scoring_core::{codes::minor_digits, decide, freshness, money};
use serde::Deserialize;

use crate::units::Decimal;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The region in which this process runs.
    pub region: RegionName,
    pub pipeline: PipelineName,
    #[serde(default)]
    pub listen: Listen,
    /// TLS of gRPC and REST. Absent: plain text, for networks that encrypt by themselves. Admin is always plain text.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// `spec.scoring.deadline`: every request is answered inside it, or inside the client's own if that is shorter.
    #[serde(with = "domain::duration", default = "defaults::deadline")]
    pub deadline: Duration,
    /// `spec.scoring.budgets`.
    #[serde(default)]
    pub budgets: Budgets,
    /// `spec.scoring.thresholds`.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// `spec.features.staleness.raiseBy`: what incomplete or missing features add to the thresholds, in log-odds.
    #[serde(default)]
    pub raise_by: RaiseBy,
    /// `spec.features.staleness`.
    #[serde(default)]
    pub staleness: Staleness,
    /// `spec.scoring.tiers`, ascending. Empty: every payment gets the full model.
    #[serde(default)]
    pub tiers: Vec<Tier>,
    /// `spec.scoring.fallback`.
    #[serde(default)]
    pub fallback: Fallback,
    /// This region's own Kafka.
    pub kafka: kafka::KafkaConfig,
    /// `spec.kafka.topicPrefix`: `fraud` gives `fraud.events.raw` and `fraud.decisions`.
    #[serde(default = "defaults::topic_prefix")]
    pub topic_prefix: String,
    /// The feature store: windows, limits and connection settings. Addresses of shards come from the plan.
    pub features: scoring_features::FeaturesConfig,
    pub inference: Inference,
    /// `spec.model.light`: scored in this process, for the tier LightModel and when the inference service is away.
    #[serde(default)]
    pub light_model: Option<ModelSource>,
    /// The rules: a key of a mounted ConfigMap, read again when it changes.
    pub rules_file: PathBuf,
    /// A mounted Secret with the keys of personal data: a file `current` that holds a key id, and a file `<key id>.key` per
    /// key, with 64 hexadecimal digits.
    pub pii_keys_dir: PathBuf,
    #[serde(default)]
    pub currency: Currency,
    #[serde(default)]
    pub limits: Limits,
    /// Most time between SIGTERM and the end: what is in flight is answered, what Kafka has not acknowledged is flushed.
    #[serde(with = "domain::duration", default = "defaults::shutdown_grace")]
    pub shutdown_grace: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// `fraud.v1.Scoring`.
    pub grpc: SocketAddr,
    /// `POST /v1/decisions`.
    pub rest: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`, `/plan`.
    pub admin: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self { grpc: any(8443), rest: any(8080), admin: any(9090) }
    }
}

/// PEM files; read at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// Most time that each stage gets. Together at most the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Recording the event and reading its windows.
    #[serde(with = "domain::duration")]
    pub features: Duration,
    /// Rules, before and after the score.
    #[serde(with = "domain::duration")]
    pub rules: Duration,
    /// The model.
    #[serde(with = "domain::duration")]
    pub inference: Duration,
    /// Graph features. There is no graph yet; the time stays unused.
    #[serde(with = "domain::duration")]
    pub graph: Duration,
    /// Thresholds and the answer itself.
    #[serde(with = "domain::duration")]
    pub decision: Duration,
    /// Waiting until Kafka has acknowledged event and decision.
    #[serde(with = "domain::duration")]
    pub handover: Duration,
}

impl Budgets {
    pub fn sum(&self) -> Duration {
        self.features + self.rules + self.inference + self.graph + self.decision + self.handover
    }
}

impl Default for Budgets {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { features: ms(15), rules: ms(5), inference: ms(30), graph: ms(18), decision: ms(3), handover: ms(5) }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Probability of fraud from which a payment is reviewed.
    pub review: Decimal,
    /// Probability of fraud from which a payment is declined.
    pub decline: Decimal,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { review: Decimal::new(5, 1), decline: Decimal::new(9, 1) }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaiseBy {
    pub review: Decimal,
    pub decline: Decimal,
}

impl Default for RaiseBy {
    fn default() -> Self {
        Self { review: Decimal::new(15, 2), decline: Decimal::new(5, 2) }
    }
}

/// How old folded events may be.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Staleness {
    /// Somebody is told.
    #[serde(with = "domain::duration")]
    pub warn: Duration,
    /// Windows count as incomplete, and thresholds rise.
    #[serde(with = "domain::duration")]
    pub raise: Duration,
    /// Windows count as missing.
    #[serde(with = "domain::duration")]
    pub stop: Duration,
}

impl Default for Staleness {
    fn default() -> Self {
        Self { warn: Duration::from_secs(1), raise: Duration::from_secs(5), stop: Duration::from_secs(60) }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Amounts below this, in the base currency, are treated as `use` says.
    pub below: String,
    #[serde(rename = "use")]
    pub treatment: TierTreatment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TierTreatment {
    RulesOnly,
    LightModel,
    FullModel,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fallback {
    /// When nothing could be scored: approve below this amount in the base currency, review from it on.
    pub approve_below: String,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { approve_below: "100".into() }
    }
}

/// Which engine computes scores: a union by `engine`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "engine")]
pub enum Inference {
    /// A server of the Open Inference Protocol over gRPC: our inference service, or any other.
    Service {
        /// `host:port`. Every address behind the name is used: give the name of a headless Service.
        address: String,
        model_name: String,
    },
    /// A tree ensemble evaluated in this process.
    InProcess { model: ModelSource },
}

/// Where a model package is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// `file:///path`, `http(s)://host/path`, or `s3://bucket/key` on `endpoint`.
    pub uri: String,
    /// SHA-256 of the file in hexadecimal. Another file is not loaded.
    pub sha256: String,
    /// The region's object storage, for `s3://`. Absent: Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// A mounted Secret with files `accessKeyId` and `secretAccessKey`. Absent: requests are not signed.
    #[serde(default)]
    pub credentials_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Currency {
    /// ISO 4217 code of amounts in features, tiers, thresholds of money and rules.
    pub base: String,
    /// YAML: `version: "2026-11-20"`, `base: USD` and `rates: {EUR: "1.08"}`, what one unit is worth in the base currency.
    /// Absent: amounts in other currencies count as unknown and get the highest tier.
    pub rates_file: Option<PathBuf>,
}

impl Default for Currency {
    fn default() -> Self {
        Self { base: "USD".into(), rates_file: None }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Decisions under way at once. A request beyond it is decided by its amount alone, and the answer says so.
    pub inflight_max: usize,
    /// Size of one request, in bytes.
    pub request_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { inflight_max: 1024, request_bytes_max: 64 * 1024 }
    }
}

/// What the pipeline works with: the numbers of a [`Config`], checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub region: RegionName,
    pub deadline: Duration,
    pub budgets: Budgets,
    pub thresholds: decide::Thresholds,
    pub raise_by: decide::RaiseBy,
    pub staleness: freshness::Staleness,
    pub tiers: decide::Tiers,
    pub approve_below_minor: i64,
    /// Decimal places of the base currency.
    pub base_digits: u32,
    pub inflight_max: usize,
    pub request_bytes_max: usize,
}

/// A configuration that can be read and makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Senseless {
    field: &'static str,
    problem: String,
}

fn senseless(field: &'static str, problem: impl ToString) -> Senseless {
    Senseless { field, problem: problem.to_string() }
}

impl Config {
    /// # Errors
    /// When numbers contradict each other or are out of bounds; the sentence names the field.
    pub fn checked(&self) -> Result<Settings, Senseless> {
        let deadline_ms = 10..=10_000;
        if !deadline_ms.contains(&self.deadline.as_millis()) {
            return Err(senseless("deadline", "must be from 10ms to 10s"));
        }
        if self.budgets.sum() > self.deadline {
            let problem = format!(
                "add up to {:?}, more than the deadline of {:?}: lower a budget or raise the deadline",
                self.budgets.sum(),
                self.deadline
            );
            return Err(senseless("budgets", problem));
        }
        if !(1..=100_000).contains(&self.limits.inflight_max) {
            return Err(senseless("limits.inflight_max", "must be from 1 to 100000"));
        }
        if !(1_024..=1_048_576).contains(&self.limits.request_bytes_max) {
            return Err(senseless("limits.request_bytes_max", "must be from 1024 to 1048576"));
        }
        if self.topic_prefix.is_empty() || self.topic_prefix.len() > 64 {
            return Err(senseless("topic_prefix", "must have 1 to 64 characters"));
        }
        if self.shutdown_grace < self.deadline || self.shutdown_grace > Duration::from_secs(3600) {
            return Err(senseless("shutdown_grace", "must be from the deadline to 1h"));
        }
        Ok(Settings {
            region: self.region.clone(),
            deadline: self.deadline,
            budgets: self.budgets,
            thresholds: self.thresholds.checked()?,
            raise_by: self.raise_by.checked()?,
            staleness: self.staleness.checked()?,
            tiers: self.checked_tiers()?,
            approve_below_minor: self.currency.minor("fallback.approve_below", &self.fallback.approve_below)?,
            base_digits: self.currency.digits()?,
            inflight_max: self.limits.inflight_max,
            request_bytes_max: self.limits.request_bytes_max,
        })
    }

    fn checked_tiers(&self) -> Result<decide::Tiers, Senseless> {
        let treated = |tier: &Tier| Ok((self.currency.minor("tiers.below", &tier.below)?, tier.treatment.tier()));
        let tiers = self.tiers.iter().map(treated).collect::<Result<Vec<_>, _>>()?;
        decide::Tiers::new(tiers).map_err(|error| senseless("tiers", error))
    }
}

impl Thresholds {
    /// # Errors
    /// When they are no probabilities or in the wrong order.
    pub fn checked(&self) -> Result<decide::Thresholds, Senseless> {
        decide::Thresholds::new(self.review.as_f64(), self.decline.as_f64()).map_err(|error| senseless("thresholds", error))
    }
}

impl RaiseBy {
    /// # Errors
    /// When a value is no log-odds that can be meant.
    pub fn checked(&self) -> Result<decide::RaiseBy, Senseless> {
        decide::RaiseBy::new(self.review.as_f64(), self.decline.as_f64()).map_err(|error| senseless("raise_by", error))
    }
}

impl Staleness {
    /// # Errors
    /// When they do not rise.
    pub fn checked(&self) -> Result<freshness::Staleness, Senseless> {
        freshness::Staleness::new(self.warn, self.raise, self.stop).map_err(|error| senseless("staleness", error))
    }
}

impl TierTreatment {
    fn tier(self) -> decide::Tier {
        match self {
            Self::RulesOnly => decide::Tier::RulesOnly,
            Self::LightModel => decide::Tier::LightModel,
            Self::FullModel => decide::Tier::Full,
        }
    }
}

impl Currency {
    /// An amount of configuration, in minor units of the base currency.
    ///
    /// # Errors
    /// When the text is not an amount of the base currency.
    pub fn minor(&self, field: &'static str, text: &str) -> Result<i64, Senseless> {
        money::parse_minor(field, text, &self.base).map_err(|error| senseless(field, error))
    }

    /// # Errors
    /// When the base currency is not one.
    pub fn digits(&self) -> Result<u32, Senseless> {
        let unknown = || senseless("currency.base", format!("{:?} is not an active ISO 4217 currency such as \"USD\"", self.base));
        minor_digits(&self.base).ok_or_else(unknown)
    }
}

mod defaults {
    use std::time::Duration;

    pub(super) fn deadline() -> Duration {
        Duration::from_millis(100)
    }

    pub(super) fn topic_prefix() -> String {
        "fraud".into()
    }

    pub(super) fn shutdown_grace() -> Duration {
        Duration::from_secs(25)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../tests/config.yaml");

    fn checked(from: &str, to: &str) -> Result<Settings, String> {
        assert!(SAMPLE.contains(from), "{from} is not in the sample");
        let config: Config = serde_yaml::from_str(&SAMPLE.replace(from, to)).map_err(|error| error.to_string())?;
        config.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_is_read_in_full() {
        let settings = checked("deadline: 100ms", "deadline: 120ms").unwrap();
        assert_eq!((settings.deadline, settings.approve_below_minor, settings.base_digits), (Duration::from_millis(120), 10_000, 2));
        assert_eq!(settings.tiers.tier_of(Some(999)), decide::Tier::RulesOnly);
        assert_eq!(settings.tiers.tier_of(Some(9_999)), decide::Tier::LightModel);
    }

    #[test]
    fn a_short_file_has_the_defaults() {
        let config: Config = serde_yaml::from_str(
            "{region: us-east, pipeline: payments, kafka: {bootstrap_servers: ['k:9092']}, features: {redis: {}}, rules_file: /r, \
             pii_keys_dir: /p, inference: {engine: InProcess, model: {uri: 'file:///m', sha256: ''}}}",
        )
        .unwrap();
        let settings = config.checked().unwrap();
        assert_eq!(settings.deadline, Duration::from_millis(100));
        assert_eq!(settings.tiers.tier_of(Some(1)), decide::Tier::Full);
        assert!((settings.thresholds.review() - 0.5).abs() < 1e-12 && (settings.thresholds.decline() - 0.9).abs() < 1e-12);
    }

    #[test]
    fn each_wrong_field_is_named_with_what_to_write() {
        for (from, to, sentence) in [
            ("region: us-east", "region: US", "lower-case letters"),
            ("deadline: 100ms", "deadline: 100", "500ms"),
            ("deadline: 100ms", "deadline: 5ms", "deadline: must be from 10ms"),
            ("deadline: 100ms", "dedline: 100ms", "dedline"),
            ("features: 15ms", "features: 90ms", "budgets: add up to"),
            ("review: \"0.5\"", "review: \"0.95\"", "thresholds"),
            ("review: \"0.5\"", "review: 0,5", "decimal number"),
            ("below: \"10\"", "below: \"200\"", "tiers"),
            ("below: \"10\"", "below: \"9.999\"", "tiers.below"),
            ("raise: 5s", "raise: 500ms", "staleness: warn 1s, raise 500ms"),
            ("use: RulesOnly", "use: Rules", "RulesOnly"),
            ("approve_below: \"100\"", "approve_below: lots", "fallback.approve_below"),
            ("base: USD", "base: usd", "currency"),
            ("engine: Service", "engine: Remote", "Service"),
            ("inflight_max: 1024", "inflight_max: 0", "limits.inflight_max"),
            ("shutdown_grace: 25s", "shutdown_grace: 1ms", "shutdown_grace"),
        ] {
            let error = checked(from, to).expect_err(to);
            assert!(error.contains(sentence), "{to}: {error}");
        }
    }
}
