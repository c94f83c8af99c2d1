//! The mapping file (YAML). Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Every field that a mapping may fill, as users write it.
pub(super) const FIELDS: [&str; 21] = [
    "transaction_id",
    "tenant",
    "client_time_ms",
    "user_id",
    "card.number",
    "card.expiry_month",
    "card.expiry_year",
    "card.holder_name",
    "card.issuer_country",
    "amount",
    "currency",
    "merchant.id",
    "merchant.category_code",
    "merchant.country",
    "device_id",
    "ip_address",
    "ip_country",
    "billing_country",
    "email",
    "channel",
    "card_entry",
];

/// Without these no payment is valid.
const REQUIRED: [&str; 8] =
    ["transaction_id", "user_id", "card.number", "card.expiry_month", "card.expiry_year", "amount", "currency", "merchant.id"];

/// Which column is which field of a payment, and what has the same value in every row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Field to column name.
    pub columns: BTreeMap<String, String>,
    /// Field to value.
    #[serde(default)]
    pub constants: BTreeMap<String, String>,
    #[serde(default)]
    pub amount_unit: AmountUnit,
    #[serde(default)]
    pub card_numbers: CardNumbers,
    #[serde(default)]
    pub label: Option<LabelColumn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountUnit {
    /// Such as 12.50.
    #[default]
    Major,
    /// Such as 1250.
    Minor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardNumbers {
    /// The column holds card numbers.
    #[default]
    Given,
    /// The column holds any text that tells cards apart; each becomes a test card number.
    Derived,
}

/// Only for judging the verdicts: it is never sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelColumn {
    pub column: String,
    /// The texts that mean fraud.
    pub fraud: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error("the mapping is not understood: {0}: see `fraud-payments replay --help` for an example")]
    Unreadable(#[from] serde_yaml::Error),
    #[error("the mapping names the field `{field}`, which payments do not have: use one of {}", FIELDS.join(", "))]
    UnknownField { field: String },
    #[error("the mapping has no `{field}`: add it under `columns`, or under `constants` if it is the same in every row")]
    MissingField { field: &'static str },
    #[error("the mapping gives `{field}` both as a column and as a constant: remove one of them")]
    Twice { field: String },
    #[error("the CSV has no column `{column}`, which the mapping wants for {field}: its columns are {columns}")]
    MissingColumn { field: String, column: String, columns: String },
    #[error("the CSV's header cannot be read: {0}")]
    Header(csv::Error),
}

impl Mapping {
    pub fn parse(yaml: &str) -> Result<Self, MappingError> {
        let mapping: Self = serde_yaml::from_str(yaml)?;
        for field in mapping.columns.keys().chain(mapping.constants.keys()) {
            if !FIELDS.contains(&field.as_str()) {
                return Err(MappingError::UnknownField { field: field.clone() });
            }
        }
        if let Some(field) = mapping.columns.keys().find(|field| mapping.constants.contains_key(*field)) {
            return Err(MappingError::Twice { field: field.clone() });
        }
        let given = |field: &str| mapping.columns.contains_key(field) || mapping.constants.contains_key(field);
        match REQUIRED.into_iter().find(|field| !given(field)) {
            Some(field) => Err(MappingError::MissingField { field }),
            None => Ok(mapping),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
columns: {transaction_id: id, user_id: user, card.number: card, amount: amt, merchant.id: shop}
constants: {currency: USD, card.expiry_month: '12', card.expiry_year: '2040'}
";

    #[test]
    fn a_wrong_mapping_is_refused_with_the_field_and_the_fix() {
        assert!(Mapping::parse(GOOD).is_ok());
        for (bad, expected) in [
            (GOOD.replace("transaction_id", "transaktion"), "names the field `transaktion`"),
            (GOOD.replace("amount: amt, ", ""), "has no `amount`: add it under `columns`"),
            (GOOD.replace("{currency", "{amount: '1', currency"), "gives `amount` both as a column and as a constant"),
            (GOOD.replace("constants", "constant"), "unknown field `constant`"),
            (format!("{GOOD}amount_unit: cents\n"), "unknown variant `cents`"),
        ] {
            let error = Mapping::parse(&bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
