//! The countries and merchant categories of the imaginary world. Pure data.

/// A country: how many live there, when it is day, and how it pays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Country {
    pub(crate) code: &'static str,
    pub(crate) currency: &'static str,
    /// Minor units of the currency for one US dollar, about.
    pub(crate) minor_per_usd: f64,
    pub(crate) hours_east: f64,
    pub(crate) share: f64,
}

const fn country(code: &'static str, currency: &'static str, minor_per_usd: f64, hours_east: f64, share: f64) -> Country {
    Country { code, currency, minor_per_usd, hours_east, share }
}

/// The currencies are those of examples/fx-rates.yaml.
pub(crate) const COUNTRIES: [Country; 12] = [
    country("US", "USD", 100.0, -6.0, 30.0),
    country("GB", "GBP", 78.7, 0.0, 12.0),
    country("DE", "EUR", 92.2, 1.0, 11.0),
    country("FR", "EUR", 92.2, 1.0, 9.0),
    country("ES", "EUR", 92.2, 1.0, 6.0),
    country("IT", "EUR", 92.2, 1.0, 6.0),
    country("NL", "EUR", 92.2, 1.0, 5.0),
    country("IE", "EUR", 92.2, 0.0, 3.0),
    country("PT", "EUR", 92.2, 0.0, 3.0),
    country("SG", "USD", 100.0, 8.0, 6.0),
    country("IN", "INR", 8470.0, 5.5, 6.0),
    country("JP", "JPY", 156.0, 9.0, 3.0),
];

/// A kind of merchant, by ISO 18245 category code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Category {
    pub(crate) code: u32,
    pub(crate) median_usd: f64,
    /// Spread of prices (standard deviation of the logarithm).
    pub(crate) sigma: f64,
    pub(crate) online_share: f64,
    pub(crate) share: f64,
    /// Goods that are easily sold on: what thieves buy.
    pub(crate) resale: bool,
    /// Charges stored cards by itself, month by month.
    pub(crate) subscription: bool,
}

const fn category(code: u32, median_usd: f64, sigma: f64, online_share: f64, share: f64) -> Category {
    Category { code, median_usd, sigma, online_share, share, resale: false, subscription: false }
}

const fn resale(code: u32, median_usd: f64, sigma: f64, online_share: f64, share: f64) -> Category {
    Category { code, median_usd, sigma, online_share, share, resale: true, subscription: false }
}

const fn subscription(code: u32, median_usd: f64, sigma: f64, share: f64) -> Category {
    Category { code, median_usd, sigma, online_share: 1.0, share, resale: false, subscription: true }
}

pub(crate) const CATEGORIES: [Category; 18] = [
    category(5411, 38.0, 0.8, 0.15, 16.0),
    category(5812, 34.0, 0.7, 0.05, 12.0),
    category(5814, 13.0, 0.5, 0.3, 12.0),
    category(5541, 42.0, 0.5, 0.0, 8.0),
    category(5912, 24.0, 0.8, 0.25, 6.0),
    category(4121, 17.0, 0.6, 0.8, 7.0),
    category(5651, 62.0, 0.8, 0.6, 8.0),
    category(5942, 21.0, 0.6, 0.7, 4.0),
    category(5999, 35.0, 1.0, 0.7, 8.0),
    category(4511, 310.0, 0.8, 0.95, 2.5),
    category(7011, 190.0, 0.8, 0.7, 3.0),
    category(8398, 25.0, 0.9, 0.8, 2.0),
    resale(5732, 140.0, 1.0, 0.65, 5.0),
    resale(5944, 230.0, 0.9, 0.4, 1.5),
    resale(5816, 19.0, 0.8, 1.0, 4.0),
    resale(6540, 60.0, 0.7, 0.8, 2.0),
    subscription(4899, 12.0, 0.4, 3.0),
    subscription(5968, 16.0, 0.5, 3.0),
];
