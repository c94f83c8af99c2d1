//! Whether a request is a payment: every problem at once, each with its field, what is wrong and what to send. Pure.
//!
//! Requests are untrusted and hold raw personal data. No text made here repeats what was sent, except currency and country
//! codes; nothing here can be printed.

use std::{fmt, net::IpAddr};

use proto::fraud::v1;

use crate::{
    codes::{Country, minor_digits},
    event::{AMOUNT_MINOR_MAX, CardEntry, Channel},
    wire::UnknownNumber,
};

/// How many problems are listed; a request with more is wrong in kind.
const PROBLEMS_MAX: usize = 16;
/// A card is good through the last day of its month, in the time zone that reaches that day last (UTC-12).
const LAST_TIME_ZONE_MS: i64 = 12 * 3_600_000;
/// Cards are issued for at most this many years.
const CARD_YEARS_MAX: i64 = 20;
const TENANT_OF_NONE: &str = "default";

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As in the API, such as `card.number`.
    pub field: &'static str,
    pub problem: String,
    /// What to send instead.
    pub fix: &'static str,
}

/// Everything that is wrong with a request, at most sixteen of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    fn add(&mut self, field: &'static str, problem: impl Into<String>, fix: &'static str) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(Problem { field, problem: problem.into(), fix });
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { field, problem, fix }) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{field} {problem}: {fix}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A request that passed every check. It still holds raw personal data: it has no `Debug`, and only
/// [`protect`](crate::protect::protect) reads that data.
pub struct CheckedPayment {
    pub(crate) request: v1::DecideRequest,
    pub(crate) card_number: String,
    pub(crate) merchant: v1::Merchant,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) card_country: Option<Country>,
    pub(crate) ip_country: Option<Country>,
    pub(crate) billing_country: Option<Country>,
    pub(crate) merchant_country: Option<Country>,
    pub(crate) merchant_category: Option<u16>,
    pub(crate) channel: Option<Channel>,
    pub(crate) card_entry: Option<CardEntry>,
}

impl CheckedPayment {
    pub fn transaction_id(&self) -> &str {
        &self.request.transaction_id
    }

    pub fn tenant(&self) -> &str {
        &self.request.tenant
    }
}

/// Checks a request at the time `now_ms`.
///
/// # Errors
/// All that is wrong with it, up to a bound.
pub fn check(mut request: v1::DecideRequest, now_ms: i64) -> Result<CheckedPayment, Problems> {
    let mut problems = Problems::default();
    if request.tenant.is_empty() {
        request.tenant = TENANT_OF_NONE.to_owned();
    }
    check_ids(&request, &mut problems);
    check_amount(&request, &mut problems);
    let card = request.card.take().unwrap_or_default();
    check_card(&card, now_ms, &mut problems);
    let merchant = request.merchant.take().unwrap_or_default();
    check_id("merchant.id", &merchant.id, &mut problems);
    let checked = CheckedPayment {
        card_country: country("card.issuer_country", &card.issuer_country, &mut problems),
        ip_country: country("ip_country", &request.ip_country, &mut problems),
        billing_country: country("billing_country", &request.billing_country, &mut problems),
        merchant_country: country("merchant.country", &merchant.country, &mut problems),
        merchant_category: category(merchant.category_code, &mut problems),
        ip: ip(&request.ip_address, &mut problems),
        channel: known("channel", Channel::from_wire(request.channel), "send WEB, APP, IN_STORE or PHONE, or leave it out", &mut problems),
        card_entry: known(
            "card_entry",
            CardEntry::from_wire(request.card_entry),
            "send KEYED, STORED, CHIP or CONTACTLESS, or leave it out",
            &mut problems,
        ),
        card_number: card.number,
        merchant,
        request,
    };
    if problems.0.is_empty() { Ok(checked) } else { Err(problems) }
}

fn check_ids(request: &v1::DecideRequest, problems: &mut Problems) {
    check_id("transaction_id", &request.transaction_id, problems);
    check_id("tenant", &request.tenant, problems);
    bounded("user_id", &request.user_id, 1, 128, "send the customer's id, 1 to 128 bytes", problems);
    bounded("device_id", &request.device_id, 0, 128, "send at most 128 bytes, or leave it out", problems);
    if !request.email.is_empty() && !plausible_email(&request.email) {
        problems.add("email", "is not an e-mail address", "send name@domain with at most 254 bytes, or leave it out");
    }
    if request.client_time_ms.is_some_and(|ms| ms < 0) {
        problems.add("client_time_ms", "is negative", "send milliseconds since 1970, or leave it out");
    }
}

/// Ids become keys and header values: visible ASCII only.
fn check_id(field: &'static str, id: &str, problems: &mut Problems) {
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        let problem =
            if id.is_empty() { "is missing".to_owned() } else { format!("has {} bytes, or bytes that are not visible ASCII", id.len()) };
        problems.add(field, problem, "send 1 to 64 visible ASCII characters without spaces");
    }
}

fn bounded(field: &'static str, text: &str, bytes_min: usize, bytes_max: usize, fix: &'static str, problems: &mut Problems) {
    if text.len() < bytes_min {
        problems.add(field, "is missing", fix);
    } else if text.len() > bytes_max {
        problems.add(field, format!("has {} bytes", text.len()), fix);
    } else if text.chars().any(char::is_control) {
        problems.add(field, "holds control characters", fix);
    }
}

fn check_amount(request: &v1::DecideRequest, problems: &mut Problems) {
    if !(0..=AMOUNT_MINOR_MAX).contains(&request.amount_minor) {
        problems.add("amount_minor", "is out of bounds", "send minor units (cents) from 0 to 1000000000000");
    }
    if minor_digits(&request.currency).is_none() {
        let problem = format!("is {:?}, which is not an active currency", quoted(&request.currency));
        problems.add("currency", problem, "send an ISO 4217 code in upper case, such as \"USD\"");
    }
}

fn check_card(card: &v1::Card, now_ms: i64, problems: &mut Problems) {
    let digits = card.number.as_bytes();
    if !(12..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        problems.add("card.number", "is not 12 to 19 digits", "send the digits without spaces or dashes");
    } else if !passes_luhn(digits) {
        problems.add("card.number", "fails the Luhn check", "send the number as printed on the card; one digit is wrong");
    }
    bounded("card.holder_name", &card.holder_name, 0, 200, "send at most 200 bytes, or leave it out", problems);
    check_expiry(card, now_ms, problems);
}

fn check_expiry(card: &v1::Card, now_ms: i64, problems: &mut Problems) {
    if !(1..=12).contains(&card.expiry_month) {
        problems.add("card.expiry_month", "is not a month", "send 1 to 12");
        return;
    }
    let (year, month) = year_and_month(now_ms.saturating_sub(LAST_TIME_ZONE_MS));
    let expiry_year = i64::from(card.expiry_year);
    if !(1_000..=9_999).contains(&expiry_year) {
        problems.add("card.expiry_year", "does not have four digits", "send the year with its century, such as 2028");
    } else if (expiry_year, card.expiry_month) < (year, month) {
        problems.add("card.expiry_year", "is past: the card has expired", "send the expiry month and year of a valid card");
    } else if expiry_year > year + CARD_YEARS_MAX {
        problems.add("card.expiry_year", "is more than 20 years ahead", "send the expiry year printed on the card");
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .zip([false, true].into_iter().cycle())
        .map(|(digit, doubled)| {
            let value = u32::from(digit.saturating_sub(b'0')) << u32::from(doubled);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Year and month (1 to 12) of a time in UTC, in the proleptic Gregorian calendar.
fn year_and_month(time_ms: i64) -> (i64, u32) {
    // Days are counted from 1 March of year 0, so that a leap day is the last day of its year; 400 years have 146,097 days.
    let days = time_ms.div_euclid(86_400_000) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1))
}

fn country(field: &'static str, code: &str, problems: &mut Problems) -> Option<Country> {
    if code.is_empty() {
        return None;
    }
    let country = Country::assigned(code);
    if country.is_none() {
        let problem = format!("is {:?}, which is not an assigned country", quoted(code));
        problems.add(field, problem, "send an ISO 3166-1 alpha-2 code in upper case, such as \"DE\", or leave it out");
    }
    country
}

/// A code that was sent, short enough for an error; codes are not personal data.
fn quoted(code: &str) -> String {
    code.chars().take(8).collect()
}

fn category(code: u32, problems: &mut Problems) -> Option<u16> {
    let checked = u16::try_from(code).ok().filter(|code| *code <= 9_999);
    if checked.is_none() {
        problems.add("merchant.category_code", "is above 9999", "send the four digits of ISO 18245, or 0 when not known");
    }
    checked.filter(|code| *code != 0)
}

fn ip(text: &str, problems: &mut Problems) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    let address = text.parse::<IpAddr>().ok();
    if address.is_none() {
        problems.add(
            "ip_address",
            "is not an IP address",
            "send IPv4 such as 192.0.2.7 or IPv6 such as 2001:db8::7, without port, or leave it out",
        );
    }
    // ::ffff:192.0.2.7 is the same customer as 192.0.2.7.
    address.map(|address| address.to_canonical())
}

fn known<T>(field: &'static str, value: Result<Option<T>, UnknownNumber>, fix: &'static str, problems: &mut Problems) -> Option<T> {
    value.unwrap_or_else(|unknown| {
        problems.add(field, unknown.to_string(), fix);
        None
    })
}

/// Bounded and simple on purpose: one @, something on both sides, a plain domain with a dot. Delivery is not our business.
fn plausible_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let plain_domain = domain.split('.').count() >= 2 && domain.split('.').all(|label| !label.is_empty() && label.len() <= 63);
    let visible = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    text.len() <= 254 && !local.is_empty() && local.len() <= 64 && !local.contains('@') && plain_domain && visible
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-20T12:00:00Z.
    pub(crate) const NOW: i64 = 1_795_176_000_000;

    pub(crate) fn good() -> v1::DecideRequest {
        v1::DecideRequest {
            transaction_id: "t-1".into(),
            user_id: "customer 1".into(),
            card: Some(v1::Card {
                number: "4111111111111111".into(),
                expiry_month: 11,
                expiry_year: 2026,
                holder_name: "Zoë Example".into(),
                issuer_country: "DE".into(),
            }),
            amount_minor: 1_999,
            currency: "EUR".into(),
            merchant: Some(v1::Merchant { id: "m-1".into(), category_code: 5_411, country: "DE".into() }),
            device_id: "d-1".into(),
            ip_address: "192.0.2.7".into(),
            ip_country: "FR".into(),
            email: "Zoe@Example.com".into(),
            channel: v1::Channel::Web.into(),
            card_entry: v1::CardEntry::Keyed.into(),
            ..Default::default()
        }
    }

    fn fields(request: v1::DecideRequest) -> Vec<&'static str> {
        check(request, NOW).err().map(|problems| problems.iter().map(|problem| problem.field).collect()).unwrap_or_default()
    }

    #[test]
    fn a_good_payment_passes_and_an_empty_tenant_is_the_default_one() {
        let checked = check(good(), NOW).ok().unwrap();
        assert_eq!((checked.transaction_id(), checked.tenant()), ("t-1", "default"));
    }

    #[test]
    fn each_bad_field_is_named_alone() {
        type Damage = fn(&mut v1::DecideRequest);
        let cases: [(&str, Damage); 24] = [
            ("transaction_id", |r| r.transaction_id.clear()),
            ("transaction_id", |r| r.transaction_id = "a b".into()),
            ("tenant", |r| r.tenant = "x".repeat(65)),
            ("user_id", |r| r.user_id.clear()),
            ("device_id", |r| r.device_id = "x".repeat(129)),
            ("email", |r| r.email = "nobody".into()),
            ("email", |r| r.email = "a@b".into()),
            ("client_time_ms", |r| r.client_time_ms = Some(-1)),
            ("amount_minor", |r| r.amount_minor = -1),
            ("amount_minor", |r| r.amount_minor = 1_000_000_000_001),
            ("currency", |r| r.currency = "DEM".into()),
            ("card.number", |r| r.card.as_mut().unwrap().number = "4111 1111 1111 1111".into()),
            ("card.number", |r| r.card.as_mut().unwrap().number = "4111111111111112".into()),
            ("card.holder_name", |r| r.card.as_mut().unwrap().holder_name = "x".repeat(201)),
            ("card.expiry_month", |r| r.card.as_mut().unwrap().expiry_month = 13),
            ("card.expiry_year", |r| r.card.as_mut().unwrap().expiry_year = 26),
            ("card.expiry_year", |r| r.card.as_mut().unwrap().expiry_year = 2047),
            ("card.issuer_country", |r| r.card.as_mut().unwrap().issuer_country = "XX".into()),
            ("merchant.id", |r| r.merchant = None),
            ("merchant.category_code", |r| r.merchant.as_mut().unwrap().category_code = 10_000),
            ("merchant.country", |r| r.merchant.as_mut().unwrap().country = "de".into()),
            ("ip_address", |r| r.ip_address = "192.0.2.7:80".into()),
            ("channel", |r| r.channel = 77),
            ("card_entry", |r| r.card_entry = -1),
        ];
        for (field, damage) in cases {
            let mut request = good();
            damage(&mut request);
            assert_eq!(fields(request), [field]);
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let found = fields(v1::DecideRequest::default());
        assert_eq!(found, ["transaction_id", "user_id", "currency", "card.number", "card.expiry_month", "merchant.id"]);
    }

    #[test]
    fn a_card_is_good_through_the_last_hour_of_its_month_anywhere() {
        let with_expiry = |year, month| {
            let mut request = good();
            let card = request.card.as_mut().unwrap();
            (card.expiry_year, card.expiry_month) = (year, month);
            request
        };
        // 2026-12-01T11:59:59Z is still November in UTC-12.
        let turn_of_month = NOW + 11 * 86_400_000;
        assert!(check(with_expiry(2026, 11), turn_of_month - 1_000).is_ok());
        assert!(check(with_expiry(2026, 11), turn_of_month).is_err());
        assert!(check(with_expiry(2026, 12), turn_of_month).is_ok());
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let months = [0, 68_169_600_000, 68_255_999_999, 68_256_000_000, 951_782_400_000, 951_868_800_000, 1_795_176_000_000, -1]
            .map(year_and_month);
        assert_eq!(months, [(1970, 1), (1972, 2), (1972, 2), (1972, 3), (2000, 2), (2000, 3), (2026, 11), (1969, 12)]);
    }

    #[test]
    fn errors_never_repeat_personal_data() {
        let mut request = good();
        request.card.as_mut().unwrap().number = "4111111111111119".into();
        request.email = "zoe-secret".into();
        request.user_id = format!("user-secret{}", "x".repeat(200));
        request.ip_address = "10.secret".into();
        let text = check(request, NOW).err().unwrap().to_string();
        assert!(!text.contains("secret") && !text.contains("4111"), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_in_any_field_is_answered_and_never_panics(text in ".{0,80}", number in "[0-9]{0,25}", a: i64, b: u32, c: i32, now: i32) {
            let request = v1::DecideRequest {
                transaction_id: text.clone(), tenant: text.clone(), user_id: text.clone(), amount_minor: a, currency: text.clone(),
                card: Some(v1::Card { number, expiry_month: b % 14, expiry_year: b, holder_name: text.clone(), issuer_country: text.clone() }),
                merchant: Some(v1::Merchant { id: text.clone(), category_code: b, country: text.clone() }),
                device_id: text.clone(), ip_address: text.clone(), ip_country: text.clone(), billing_country: text.clone(), email: text,
                channel: c, card_entry: c, client_time_ms: Some(a),
            };
            if let Err(problems) = check(request, i64::from(now) * 1_000_000) {
                prop_assert!(problems.iter().count() <= PROBLEMS_MAX);
            }
        }

        #[test]
        fn one_wrong_digit_always_fails_luhn(at in 0_usize..16, by in 1_u8..10) {
            let mut digits = *b"4111111111111111";
            digits[at] = b'0' + (digits[at] - b'0' + by) % 10;
            prop_assert!(!passes_luhn(&digits));
        }
    }
}
