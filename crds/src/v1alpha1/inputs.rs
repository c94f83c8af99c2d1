//! What the pipeline reads beside its spec: rules, keys, exchange rates, the graph. Also names in DNS and drills.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::NameRef,
    text::{DurationText, HostText},
};

/// Rules that decide before and after the score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RulesSpec {
    /// ConfigMap with the rules, the same in every region. A rule set that does not load leaves the last good one in use.
    pub config_map_ref: NameRef,
}

/// Protection of personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivacySpec {
    /// Secret with the keys under which cards, e-mail addresses and the like are hashed. It must hold the same keys in
    /// every region: with others, every entity would be unknown after a failover.
    pub key_secret_ref: NameRef,
}

/// Money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.base == oldSelf.base", "currency.base cannot be changed: amounts in the feature store would mix two currencies. Make a new pipeline"))]
#[x_kube(validation = ("self.base.matches('^[A-Z]{3}$')", "currency.base must be a three-letter code such as \"USD\""))]
pub struct CurrencySpec {
    /// Currency of all amounts in features, tiers and limits (ISO 4217). It cannot be changed later. Default "USD".
    #[serde(default = "CurrencySpec::default_base")]
    #[schemars(length(max = 8))]
    pub base: String,
    /// ConfigMap with the rates to the base currency. Unset: payments in other currencies count as unknown amounts and
    /// get the highest tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates_ref: Option<NameRef>,
}

impl CurrencySpec {
    fn default_base() -> String {
        "USD".into()
    }
}

impl Default for CurrencySpec {
    fn default() -> Self {
        Self { base: Self::default_base(), rates_ref: None }
    }
}

/// Graph features.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GraphSpec {
    /// None: no graph features. Default None.
    #[serde(rename = "type", default)]
    pub kind: GraphType,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GraphType {
    #[default]
    None,
}

/// The pipeline's name in DNS, answered by every region's operator from the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.name == self.zone || self.name.endsWith('.' + self.zone)",
    "dns.name must be inside dns.zone, such as name api.score.example.com in zone score.example.com"
))]
#[x_kube(validation = (
    "duration(self.ttl) >= duration('1s') && duration(self.ttl) <= duration('5m')",
    "dns.ttl must be from 1s to 5m: it is part of how long a failover takes"
))]
pub struct DnsSpec {
    /// Zone that the parent zone delegates to the regions' name servers.
    pub zone: HostText,
    /// Name under which clients find the active region, inside the zone.
    pub name: HostText,
    /// How long resolvers may keep the answer, from 1s to 5m. Default 2s.
    #[serde(default = "DnsSpec::default_ttl")]
    pub ttl: DurationText,
    /// None, or Delegation: external-dns publishes the static delegation, never the answer itself. Default None.
    #[serde(rename = "externalDNS", default)]
    pub external_dns: ExternalDns,
}

impl DnsSpec {
    fn default_ttl() -> DurationText {
        "2s".into()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalDns {
    #[default]
    None,
    Delegation,
}

/// Whether drills may disturb this pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillsSpec {
    /// Forbidden: no drill. Allowed: any drill. WithApproval: only drills with spec.approval. Default Forbidden.
    #[serde(default)]
    pub policy: DrillPolicy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrillPolicy {
    #[default]
    Forbidden,
    Allowed,
    WithApproval,
}
