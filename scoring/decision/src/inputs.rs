//! Files that a pod mounts beside its configuration: keys of personal data and exchange rates. Read at start; a change is
//! rolled out with the pods.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use process::config;
use scoring_core::{money::Rates, protect::PiiKey};
use serde::Deserialize;

use crate::config::Currency;

/// The key under which this process hashes. Other keys in the folder belong to a rotation (issue 5) and are not used.
///
/// # Errors
/// When the folder does not say which key is current, or the key is none. The key itself is in no error.
pub(crate) fn read_pii_key(dir: &Path) -> anyhow::Result<PiiKey> {
    let current = config::read_bounded(&dir.join("current"))?;
    let id = current.trim();
    if id.is_empty() || id.contains(['/', '.']) {
        bail!("pii_keys_dir: {} must hold the id of the current key, such as k1", dir.join("current").display());
    }
    let text = config::read_bounded(&dir.join(format!("{id}.key")))?;
    let Ok(secret) = hex::decode(text.trim()) else {
        bail!("pii_keys_dir: key {id:?} is not written in hexadecimal digits; `kubectl fraud init` writes a good one");
    };
    PiiKey::new(id, &secret).with_context(|| format!("pii_keys_dir: key {id:?}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatesFile {
    version: String,
    /// The currency that the rates lead to.
    base: String,
    rates: BTreeMap<String, String>,
}

/// # Errors
/// When the file cannot be read or holds something else than rates.
pub(crate) fn read_rates(currency: &Currency) -> anyhow::Result<Rates> {
    let Some(path) = &currency.rates_file else {
        return Ok(Rates::new(&currency.base, "", [])?);
    };
    let file: RatesFile = config::load(path)?;
    if file.base != currency.base {
        bail!(
            "currency.rates_file: {} has rates to {:?}, the pipeline's base currency is {:?}",
            path.display(),
            file.base.chars().take(8).collect::<String>(),
            currency.base
        );
    }
    let rates = file.rates.iter().map(|(currency, rate)| (currency.as_str(), rate.as_str()));
    Rates::new(&currency.base, &file.version, rates).with_context(|| format!("currency.rates_file: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_key_is_read_and_a_bad_one_is_named_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let error = || format!("{:#}", read_pii_key(dir.path()).err().unwrap());
        assert!(error().contains("current"));
        write("current", "k2\n");
        assert!(error().contains("k2"));
        write("k2.key", "secret that is not hexadecimal");
        assert!(error().contains("hexadecimal") && !error().contains("secret"));
        write("k2.key", "abcd");
        assert!(error().contains("2 bytes") && !error().contains("abcd"));
        write("k2.key", &format!("{}\n", "0f".repeat(32)));
        assert_eq!(read_pii_key(dir.path()).unwrap().id(), "k2");
        write("current", "../k2");
        assert!(error().contains("id of the current key"));
    }

    #[test]
    fn rates_are_read_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rates.yaml");
        let currency = Currency { base: "USD".into(), rates_file: Some(path.clone()) };
        std::fs::write(&path, "version: \"2026-11-20\"\nbase: USD\nrates: {EUR: \"1.08\"}").unwrap();
        assert_eq!(read_rates(&currency).unwrap().to_base_minor(100, "EUR"), Some(108));
        std::fs::write(&path, "version: v\nbase: USD\nrates: {EUR: \"1,08\"}").unwrap();
        assert!(format!("{:#}", read_rates(&currency).unwrap_err()).contains("rates.EUR"));
        std::fs::write(&path, "version: v\nbase: EUR\nrates: {}").unwrap();
        assert!(format!("{:#}", read_rates(&currency).unwrap_err()).contains("base currency is \"USD\""));
        let none = Currency { base: "USD".into(), rates_file: None };
        assert_eq!(read_rates(&none).unwrap().to_base_minor(100, "EUR"), None);
    }
}
