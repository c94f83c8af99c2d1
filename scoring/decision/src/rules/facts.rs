//! What rules can ask about: the variables of one payment. Pure.
//!
//! Built once per request, without copying; a variable becomes a CEL value only when a rule looks at it. What is not
//! known is not there at all (never 0 and never NaN), so that a rule that needs it takes its `onMissing` way.

use std::{borrow::Cow, collections::BTreeMap};

use cel::{
    common::{
        types::{CelDouble, CelInt, CelString},
        value::CowVal,
    },
    context::VariableResolver,
};

/// Every variable except `features.<name>`. Texts are empty when the payment does not say.
pub const VARIABLES: &[&str] = &[
    "amount",
    "currency",
    "channel",
    "card_entry",
    "card_country",
    "ip_country",
    "billing_country",
    "merchant_id",
    "merchant_category",
    "merchant_country",
    "bin8",
    "email_domain",
    "ip_prefix",
    "score",
];

/// Start of the names of features.
pub(super) const FEATURES: &str = "features";

/// Positions of features in the served vector.
#[derive(Debug, Clone, Default)]
pub struct FeatureNames(BTreeMap<String, usize>);

impl FeatureNames {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().enumerate().map(|(index, name)| (name.to_owned(), index)).collect())
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One payment, as rules see it.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// In the base currency, in major units; not known without an exchange rate.
    pub amount: Option<f64>,
    pub currency: Cow<'a, str>,
    pub channel: Cow<'a, str>,
    pub card_entry: Cow<'a, str>,
    pub card_country: Cow<'a, str>,
    pub ip_country: Cow<'a, str>,
    pub billing_country: Cow<'a, str>,
    pub merchant_id: Cow<'a, str>,
    pub merchant_category: i64,
    pub merchant_country: Cow<'a, str>,
    pub bin8: Cow<'a, str>,
    pub email_domain: Cow<'a, str>,
    pub ip_prefix: Cow<'a, str>,
    /// Probability of fraud; only after the score, and only when there is one.
    pub score: Option<f64>,
    /// The served vector; NaN where a feature is missing.
    pub features: Cow<'a, [f32]>,
    pub names: Option<&'a FeatureNames>,
}

impl Facts<'_> {
    fn feature(&self, name: &str) -> Option<f64> {
        let position = self.names?.position(name)?;
        self.features.get(position).map(|value| f64::from(*value)).filter(|value| !value.is_nan())
    }
}

impl VariableResolver for Facts<'_> {
    // The interpreter asks for the whole dotted name first, so `features.x` needs no map.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let text = |value: &'b Cow<'_, str>| Some(CowVal::owned(CelString::from(value.as_ref())));
        let number = |value: Option<f64>| value.map(|value| CowVal::owned(CelDouble::from(value)));
        match variable {
            "amount" => number(self.amount),
            "score" => number(self.score),
            "currency" => text(&self.currency),
            "channel" => text(&self.channel),
            "card_entry" => text(&self.card_entry),
            "card_country" => text(&self.card_country),
            "ip_country" => text(&self.ip_country),
            "billing_country" => text(&self.billing_country),
            "merchant_id" => text(&self.merchant_id),
            "merchant_category" => Some(CowVal::owned(CelInt::from(self.merchant_category))),
            "merchant_country" => text(&self.merchant_country),
            "bin8" => text(&self.bin8),
            "email_domain" => text(&self.email_domain),
            "ip_prefix" => text(&self.ip_prefix),
            _ => {
                let (start, name) = variable.split_once('.')?;
                if start == FEATURES { number(self.feature(name)) } else { None }
            }
        }
    }
}
