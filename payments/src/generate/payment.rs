//! How one payment is put together. Pure.

use std::cmp::Ordering;

use proto::fraud::v1::{Card as WireCard, CardEntry, Channel, DecideRequest, Merchant as WireMerchant};

use super::FraudType;
use super::dice::Dice;
use super::tables::COUNTRIES;
use super::world::{Card, Merchant, World};

/// A payment that will be sent when its time has come.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) at_us: u64,
    /// Breaks ties: first planned, first sent.
    pub(crate) order: u64,
    pub(crate) payment: DecideRequest,
    pub(crate) fraud: Option<FraudType>,
    pub(crate) amount_usd: f64,
    pub(crate) merchant: usize,
    /// The customer and which of their cards, if the card's owner paid.
    pub(crate) visitor: Option<(usize, usize)>,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// Who pays, with what, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Payer {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) card: Card,
    /// Of the card's issuer and its bills; index into `COUNTRIES`.
    pub(crate) home: usize,
    /// `None` in a store, and when a merchant charges by itself.
    pub(crate) online: Option<Online>,
    pub(crate) channel: Channel,
    pub(crate) entry: CardEntry,
}

#[derive(Debug, Clone)]
pub(crate) struct Online {
    pub(crate) device_id: String,
    pub(crate) ip_address: String,
    pub(crate) ip_country: usize,
}

impl Payer {
    pub(crate) fn pays(&self, world: &World, merchant: usize, amount_usd: f64, at_us: u64) -> Planned {
        let shop = &world.merchants[merchant];
        let country = COUNTRIES[shop.country];
        let (device_id, ip_address, ip_country) = match &self.online {
            Some(online) => (online.device_id.clone(), online.ip_address.clone(), COUNTRIES[online.ip_country].code.to_owned()),
            None => Default::default(),
        };
        let amount_usd = amount_usd.clamp(0.5, 20_000.0);
        let payment = DecideRequest {
            user_id: self.user_id.clone(),
            card: Some(wire_card(&self.card, self.home)),
            amount_minor: minor(amount_usd * country.minor_per_usd),
            currency: country.currency.to_owned(),
            merchant: Some(wire_merchant(shop)),
            device_id,
            ip_address,
            ip_country,
            billing_country: COUNTRIES[self.home].code.to_owned(),
            email: self.email.clone(),
            channel: self.channel.into(),
            card_entry: self.entry.into(),
            ..DecideRequest::default()
        };
        Planned { at_us, order: 0, payment, fraud: None, amount_usd, merchant, visitor: None }
    }
}

fn wire_card(card: &Card, home: usize) -> WireCard {
    WireCard {
        number: card.number.clone(),
        expiry_month: card.expiry_month,
        expiry_year: card.expiry_year,
        holder_name: card.holder_name.clone(),
        issuer_country: COUNTRIES[home].code.to_owned(),
    }
}

fn wire_merchant(merchant: &Merchant) -> WireMerchant {
    WireMerchant { id: merchant.id.clone(), category_code: merchant.category.code, country: COUNTRIES[merchant.country].code.to_owned() }
}

impl Merchant {
    /// A price of this merchant's goods.
    pub(crate) fn price_usd(&self, dice: &mut Dice) -> f64 {
        let price = dice.lognormal(self.category.median_usd * self.price_level, self.category.sigma);
        // Half of all prices are round or end in .99.
        if dice.chance(0.5) { price.round() - if dice.chance(0.5) { 0.01 } else { 0.0 } } else { price }
    }
}

fn minor(amount: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation)]
    let minor = amount.round() as i64;
    minor.max(1)
}
