//! Money in minor units, and its value in the base currency by a table of rates. Exact decimal arithmetic. Pure.

use std::collections::BTreeMap;

use crate::codes::minor_digits;

/// Beyond this many rates the table is a mistake.
const RATES_MAX: usize = 500;
const DIGITS_MAX: usize = 18;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMoney {
    #[error("{what}: {given:?} is not a decimal number of 0 or more with at most {DIGITS_MAX} digits, such as \"1.0837\"")]
    Decimal { what: String, given: String },
    #[error("{what}: {given:?} has more than {digits} digits after the point, which {currency} does not have")]
    TooFine { what: String, given: String, currency: String, digits: u32 },
    #[error("{what}: {given:?} is not an active ISO 4217 currency, such as \"USD\"")]
    Currency { what: &'static str, given: String },
    #[error("rates: the rate of {0} is 0: leave the currency out if its rate is not known")]
    ZeroRate(String),
    #[error("rates: more than {RATES_MAX} currencies")]
    TooMany,
}

/// mantissa / 10^scale, from decimal text. Never a float: a rate means exactly what its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    mantissa: u64,
    scale: u32,
}

impl Decimal {
    fn parse(what: &str, text: &str) -> Result<Self, InvalidMoney> {
        let refused = || InvalidMoney::Decimal { what: bounded(what), given: bounded(text) };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let pointless = text.ends_with('.') || whole.is_empty();
        let digits = format!("{whole}{fraction}");
        if pointless || digits.len() > DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let scale = u32::try_from(fraction.len()).map_err(|_| refused())?;
        Ok(Self { mantissa: digits.parse().map_err(|_| refused())?, scale })
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Reads an amount that configuration gives in decimal text, such as `"100"` or `"9.99"`, as minor units of `currency`.
/// `what` names the field in errors.
///
/// # Errors
/// When the text is no decimal number, is finer than the currency's minor unit, or the currency is not known.
pub fn parse_minor(what: &str, text: &str, currency: &str) -> Result<i64, InvalidMoney> {
    let digits = minor_digits(currency).ok_or_else(|| InvalidMoney::Currency { what: "currency", given: bounded(currency) })?;
    let decimal = Decimal::parse(what, text)?;
    let too_fine = || InvalidMoney::TooFine { what: bounded(what), given: bounded(text), currency: currency.to_owned(), digits };
    let shift = digits.checked_sub(decimal.scale).ok_or_else(too_fine)?;
    let minor = 10_u64.checked_pow(shift).and_then(|factor| decimal.mantissa.checked_mul(factor));
    minor.and_then(|minor| i64::try_from(minor).ok()).ok_or_else(|| InvalidMoney::Decimal { what: bounded(what), given: bounded(text) })
}

/// How much of the base currency one unit of each other currency is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    base: String,
    base_digits: u32,
    version: String,
    rates: BTreeMap<String, Decimal>,
}

impl Rates {
    /// `rates` holds (currency, decimal text): one unit of the currency in units of `base`. `version` is written into
    /// every event that was converted with this table.
    ///
    /// # Errors
    /// When a currency is not active, or a rate is no decimal number above 0.
    pub fn new<'a>(base: &str, version: &str, rates: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, InvalidMoney> {
        let base_digits = minor_digits(base).ok_or_else(|| InvalidMoney::Currency { what: "base currency", given: bounded(base) })?;
        let mut table = BTreeMap::new();
        for (currency, text) in rates {
            if minor_digits(currency).is_none() {
                return Err(InvalidMoney::Currency { what: "rates", given: bounded(currency) });
            }
            let rate = Decimal::parse(&format!("rates.{currency}"), text)?;
            if rate.mantissa == 0 {
                return Err(InvalidMoney::ZeroRate(currency.to_owned()));
            }
            table.insert(currency.to_owned(), rate);
            if table.len() > RATES_MAX {
                return Err(InvalidMoney::TooMany);
            }
        }
        Ok(Self { base: base.to_owned(), base_digits, version: version.chars().take(64).collect(), rates: table })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// The amount in minor units of the base currency, rounded half up. `None` when the rate is not known (or the result
    /// is beyond 64 bits): such a payment is NaN to the model and belongs to the top tier, never worth 0.
    pub fn to_base_minor(&self, amount_minor: i64, currency: &str) -> Option<i64> {
        if currency == self.base {
            return Some(amount_minor);
        }
        let rate = self.rates.get(currency)?;
        let numerator = i128::from(amount_minor).checked_mul(i128::from(rate.mantissa))?.checked_mul(10_i128.pow(self.base_digits))?;
        let denominator = 10_i128.checked_pow(rate.scale + minor_digits(currency)?)?;
        i64::try_from((numerator + denominator / 2).div_euclid(denominator)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        Rates::new("USD", "2026-11-20", [("EUR", "1.0837"), ("JPY", "0.0065"), ("KWD", "3.25"), ("BHD", "2.6525")]).unwrap()
    }

    #[test]
    fn minor_units_differ_between_currencies_and_conversion_knows() {
        let rates = rates();
        assert_eq!(rates.to_base_minor(10_000, "EUR"), Some(10_837));
        assert_eq!(rates.to_base_minor(1_000, "JPY"), Some(650));
        assert_eq!(rates.to_base_minor(1_000, "KWD"), Some(325));
        assert_eq!(rates.to_base_minor(5, "USD"), Some(5));
        // 0.010 dinar = 2.6525 cents; 0.001 EUR does not exist, 1 cent of EUR = 1.0837 cents.
        assert_eq!((rates.to_base_minor(10, "BHD"), rates.to_base_minor(1, "EUR")), (Some(3), Some(1)));
    }

    #[test]
    fn an_unknown_rate_is_unknown_and_not_zero() {
        assert_eq!(rates().to_base_minor(1_000, "SEK"), None);
        assert_eq!(rates().to_base_minor(i64::MAX, "EUR"), None);
    }

    #[test]
    fn limits_are_read_in_the_units_of_their_currency() {
        assert_eq!(parse_minor("fallback.approveBelow", "100", "USD"), Ok(10_000));
        assert_eq!(parse_minor("tiers[0].below", "9.99", "USD"), Ok(999));
        assert_eq!(parse_minor("tiers[0].below", "100", "JPY"), Ok(100));
        let error = parse_minor("tiers[0].below", "9.999", "USD").unwrap_err().to_string();
        assert!(error.contains("tiers[0].below") && error.contains("2 digits"), "{error}");
    }

    #[test]
    fn rates_that_cannot_be_meant_are_refused() {
        for (currency, rate) in [("EUR", "1,08"), ("EUR", "-1"), ("EUR", "1e3"), ("EUR", ""), ("EUR", "."), ("EUR", "1."), ("EUR", "NaN")] {
            let error = Rates::new("USD", "v", [(currency, rate)]).unwrap_err().to_string();
            assert!(error.contains("rates.EUR") && error.contains("such as"), "{error}");
        }
        assert_eq!(Rates::new("USD", "v", [("EUR", "0.00")]), Err(InvalidMoney::ZeroRate("EUR".into())));
        assert!(Rates::new("USD", "v", [("DEM", "1")]).unwrap_err().to_string().contains("DEM"));
        assert!(Rates::new("usd", "v", []).unwrap_err().to_string().contains("base currency"));
    }
}
