//! Fields that the schema has and this version does not act on yet. Using one is refused by the operator with the
//! condition Accepted=False, reason NotImplemented: a setting that is silently ignored is worse than none. Pure.

use std::fmt;

use serde_json::Value;

use crate::{FraudPipelineSpec, Kind};

/// What a field comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComesWith {
    /// The feature store.
    Issue4,
    /// The decision pipeline and its degraded modes.
    Issue5,
    /// The replicator.
    Issue6,
    /// Authority: quorum, failover, DNS.
    Issue7,
    /// Model rollouts and drills run by the operator, which follow issue 7.
    RolloutsAndDrills,
}

impl fmt::Display for ComesWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issue4 => "issue 4",
            Self::Issue5 => "issue 5",
            Self::Issue6 => "issue 6",
            Self::Issue7 => "issue 7",
            Self::RolloutsAndDrills => "model rollouts and drills, after issue 7",
        })
    }
}

/// A field, or a whole branch of the spec, that is not acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Path below `spec`; `regions[]` means any region.
    pub path: &'static str,
    /// The values that are not acted on. Empty: every value other than the default.
    pub values: &'static [&'static str],
    pub comes_with: ComesWith,
}

const fn gate(path: &'static str, comes_with: ComesWith) -> Gate {
    Gate { path, values: &[], comes_with }
}

const fn values(path: &'static str, values: &'static [&'static str], comes_with: ComesWith) -> Gate {
    Gate { path, values, comes_with }
}

/// What this version does not act on in a FraudPipeline.
pub const PIPELINE_GATES: &[Gate] = &[
    gate("features.replication", ComesWith::Issue4),
    gate("regions[].model.secretRef", ComesWith::Issue5),
    gate("scoring.budgets.graph", ComesWith::Issue5),
    gate("scoring.fallback.cumulativePerEntity", ComesWith::Issue5),
    gate("scoring.breakers", ComesWith::Issue5),
    gate("scoring.cache", ComesWith::Issue5),
    gate("scoring.inference.engine.external", ComesWith::Issue5),
    values("scoring.inference.engine.type", &["InProcess", "External"], ComesWith::Issue5),
    gate("regions[].kafka.tls", ComesWith::Issue6),
    gate("regions[].kafka.authSecretRef", ComesWith::Issue6),
    gate("failover", ComesWith::Issue7),
    gate("dns", ComesWith::Issue7),
    gate("regions[].dns", ComesWith::Issue7),
    gate("regions[].ingress.addresses", ComesWith::Issue7),
    gate("regions[].ingress.hostname", ComesWith::Issue7),
    values("regions[].type", &["Witness"], ComesWith::Issue7),
    gate("model.rollout", ComesWith::RolloutsAndDrills),
    values("drills.policy", &["WithApproval"], ComesWith::RolloutsAndDrills),
];

/// Kinds of which this version acts on nothing: the definitions are installed, so that manifests can be checked.
pub const KIND_GATES: &[(Kind, ComesWith)] = &[
    (Kind::RegionFailover, ComesWith::Issue7),
    (Kind::PipelineAction, ComesWith::Issue7),
    (Kind::ChaosDrill, ComesWith::RolloutsAndDrills),
];

/// A field of a manifest that is set and not acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotImplemented {
    /// Path in the manifest, such as `spec.regions[us-east].dns`.
    pub path: String,
    pub comes_with: ComesWith,
}

impl fmt::Display for NotImplemented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not implemented yet (it comes with {}): remove it", self.path, self.comes_with)
    }
}

/// Every field that the spec sets to something other than its default and that this version does not act on, in the
/// order of [`PIPELINE_GATES`].
///
/// # Errors
/// Never for specs that were read from JSON.
pub fn not_implemented_in_use(spec: &FraudPipelineSpec) -> Result<Vec<NotImplemented>, serde_json::Error> {
    let canonical = spec.canonical()?;
    let mut found = Vec::new();
    for gate in PIPELINE_GATES {
        visit(&canonical, gate.path, "spec", &mut |path, value| {
            let counts = gate.values.is_empty() || value.as_str().is_some_and(|text| gate.values.contains(&text));
            if counts {
                found.push(NotImplemented { path: path.to_owned(), comes_with: gate.comes_with });
            }
        });
    }
    Ok(found)
}

/// Calls `found` for each place below `value` that `path` leads to.
fn visit(value: &Value, path: &str, at: &str, found: &mut dyn FnMut(&str, &Value)) {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = head.trim_end_matches("[]");
    let Some(member) = value.get(name) else { return };
    let places: Vec<(String, &Value)> = if head.ends_with("[]") {
        let key = |item: &Value| item.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
        member.as_array().into_iter().flatten().map(|item| (format!("{at}.{name}[{}]", key(item)), item)).collect()
    } else {
        vec![(format!("{at}.{name}"), member)]
    };
    for (at, inner) in places {
        if rest.is_empty() {
            found(&at, inner);
        } else {
            visit(inner, rest, &at, found);
        }
    }
}
