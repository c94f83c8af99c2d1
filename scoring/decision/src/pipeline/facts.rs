//! An event as rules see it. Borrows everything.

use std::borrow::Cow;

use proto::fraud::v1::{CardEntry, Channel};
use scoring_core::{codes::Country, event::Event};

use super::Pipeline;
use crate::rules::Facts;

impl Pipeline {
    pub(super) fn facts<'a>(&'a self, event: &'a Event, vector: &'a [f32]) -> Facts<'a> {
        let merchant = event.merchant.as_ref();
        let channel = event.channel.and_then(|channel| Channel::try_from(channel.to_wire()).ok());
        let card_entry = event.card_entry.and_then(|entry| CardEntry::try_from(entry.to_wire()).ok());
        Facts {
            amount: event.amount_base_minor().map(|minor| major_units(minor, self.parts.settings.base_digits)),
            currency: Cow::Borrowed(event.amount.as_ref().map_or("", |money| &money.currency)),
            channel: Cow::Borrowed(channel.map_or("", |channel| channel.as_str_name())),
            card_entry: Cow::Borrowed(card_entry.map_or("", |entry| entry.as_str_name())),
            card_country: country(event.card_country.as_ref()),
            ip_country: country(event.ip_country.as_ref()),
            billing_country: country(event.billing_country.as_ref()),
            merchant_id: Cow::Borrowed(merchant.map_or("", |merchant| &merchant.id)),
            merchant_category: merchant.and_then(|merchant| merchant.category_code).unwrap_or(0).into(),
            merchant_country: country(merchant.and_then(|merchant| merchant.country.as_ref())),
            bin8: Cow::Borrowed(&event.bin8),
            email_domain: Cow::Borrowed(&event.email_domain),
            ip_prefix: Cow::Borrowed(&event.ip_prefix),
            score: None,
            features: Cow::Borrowed(vector),
            names: Some(&self.names),
        }
    }
}

fn country(country: Option<&Country>) -> Cow<'_, str> {
    Cow::Borrowed(country.map_or("", Country::as_str))
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53 minor units
fn major_units(minor: i64, digits: u32) -> f64 {
    minor as f64 / f64::from(10_u32.pow(digits.min(9)))
}
