//! JSON to request, and response to JSON. Pure; bytes are untrusted, errors name the field, nothing panics.

use proto::fraud::v1::{
    Card, CardEntry, Channel, DecideRequest, DecideResponse, Degradation, Freshness, Merchant, OriginFreshness, WindowFreshness,
};
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// Not a JSON object at all.
    Malformed(String),
    Field {
        field: String,
        detail: String,
    },
}

/// What is there is looked at here; whether it is a valid payment is judged later, for gRPC and REST alike.
pub(super) fn read_request(body: &[u8]) -> Result<DecideRequest, ReadError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| ReadError::Malformed(error.to_string()))?;
    let Value::Object(map) = value else {
        return Err(ReadError::Malformed("the body must be an object, such as {\"transactionId\": \"t-1\", …}".into()));
    };
    let mut object = Object { path: "", map };
    let request = DecideRequest {
        transaction_id: object.text("transactionId")?,
        tenant: object.text("tenant")?,
        client_time_ms: object.optional_integer("clientTimeMs")?,
        user_id: object.text("userId")?,
        card: object.object("card")?.map(read_card).transpose()?,
        amount_minor: object.required_integer("amountMinor")?,
        currency: object.text("currency")?,
        merchant: object.object("merchant")?.map(read_merchant).transpose()?,
        device_id: object.text("deviceId")?,
        ip_address: object.text("ipAddress")?,
        ip_country: object.text("ipCountry")?,
        billing_country: object.text("billingCountry")?,
        email: object.text("email")?,
        channel: object.choice("channel", &CHANNELS, |name| Channel::from_str_name(name).map(i32::from))?,
        card_entry: object.choice("cardEntry", &CARD_ENTRIES, |name| CardEntry::from_str_name(name).map(i32::from))?,
    };
    object.finish()?;
    Ok(request)
}

fn read_card(mut object: Object<'_>) -> Result<Card, ReadError> {
    let card = Card {
        number: object.text("number")?,
        expiry_month: object.small("expiryMonth")?,
        expiry_year: object.small("expiryYear")?,
        holder_name: object.text("holderName")?,
        issuer_country: object.text("issuerCountry")?,
    };
    object.finish()?;
    Ok(card)
}

fn read_merchant(mut object: Object<'_>) -> Result<Merchant, ReadError> {
    let merchant = Merchant { id: object.text("id")?, category_code: object.small("categoryCode")?, country: object.text("country")? };
    object.finish()?;
    Ok(merchant)
}

const CHANNELS: [&str; 4] = ["WEB", "APP", "IN_STORE", "PHONE"];
const CARD_ENTRIES: [&str; 4] = ["KEYED", "STORED", "CHIP", "CONTACTLESS"];

/// An object whose members are taken out one by one; what is left over was not expected. A member that is null counts
/// as left out.
struct Object<'a> {
    path: &'a str,
    map: Map<String, Value>,
}

impl Object<'_> {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    fn wrong<T>(&self, name: &str, detail: impl Into<String>) -> Result<T, ReadError> {
        let dot = if self.path.is_empty() { "" } else { "." };
        Err(ReadError::Field { field: format!("{}{dot}{}", self.path, bounded(name)), detail: detail.into() })
    }

    fn text(&mut self, name: &str) -> Result<String, ReadError> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => self.wrong(name, "must be a string"),
        }
    }

    fn optional_integer(&mut self, name: &str) -> Result<Option<i64>, ReadError> {
        let number = match self.take(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        if number.is_none() {
            return self.wrong(name, "must be a whole number of at most 64 bits");
        }
        Ok(number)
    }

    fn required_integer(&mut self, name: &str) -> Result<i64, ReadError> {
        match self.optional_integer(name)? {
            Some(number) => Ok(number),
            None => self.wrong(name, "is missing"),
        }
    }

    /// A number that the API calls small; 0 when left out.
    fn small(&mut self, name: &str) -> Result<u32, ReadError> {
        match u32::try_from(self.optional_integer(name)?.unwrap_or(0)) {
            Ok(number) => Ok(number),
            Err(_) => self.wrong(name, "must be from 0 to 4294967295"),
        }
    }

    fn choice(&mut self, name: &str, allowed: &[&str], number: impl Fn(&str) -> Option<i32>) -> Result<i32, ReadError> {
        let given = self.text(name)?;
        if given.is_empty() {
            return Ok(0);
        }
        match number(&given).filter(|_| allowed.contains(&given.as_str())) {
            Some(number) => Ok(number),
            None => self.wrong(name, format!("{:?} is not known: use {}", bounded(&given), allowed.join(", "))),
        }
    }

    fn object<'n>(&mut self, name: &'n str) -> Result<Option<Object<'n>>, ReadError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Object { path: name, map })),
            Some(_) => self.wrong(name, "must be an object"),
        }
    }

    fn finish(self) -> Result<(), ReadError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(unexpected) => self.wrong(unexpected, "is not a field of a payment: see /v1/openapi.json"),
        }
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(64).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseJson<'a> {
    transaction_id: &'a str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    reasons: &'a [String],
    rules_hit: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    thresholds: Option<ThresholdsJson<'a>>,
    degradation: DegradationJson<'a>,
    model_digest: &'a str,
    tier: &'static str,
    region: &'a str,
    epoch: u64,
    event_time_ms: i64,
    stages: Vec<StageJson<'a>>,
    freshness: FreshnessJson<'a>,
}

#[derive(Serialize)]
struct FreshnessJson<'a> {
    windows: Vec<WindowJson<'a>>,
    origins: Vec<OriginJson<'a>>,
}

#[derive(Serialize)]
struct WindowJson<'a> {
    window: &'a str,
    state: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OriginJson<'a> {
    region: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_ms: Option<u64>,
    ended: bool,
}

#[derive(Serialize)]
struct ThresholdsJson<'a> {
    review: f64,
    decline: f64,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DegradationJson<'a> {
    features: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    incomplete_windows: &'a [String],
    graph: &'static str,
    inference: &'static str,
    rules: &'static str,
    authority: &'static str,
    durability: &'static str,
    idempotency: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StageJson<'a> {
    stage: &'a str,
    elapsed_ms: f64,
}

pub(super) fn write_response(response: &DecideResponse) -> String {
    let (none, unknown) = (Degradation::default(), Freshness::default());
    let json = ResponseJson {
        transaction_id: &response.transaction_id,
        verdict: response.verdict().as_str_name(),
        score: response.score,
        reasons: &response.reasons,
        rules_hit: &response.rules_hit,
        thresholds: response.thresholds.as_ref().map(|t| ThresholdsJson { review: t.review, decline: t.decline, cause: &t.cause }),
        degradation: degradation_json(response.degradation.as_ref().unwrap_or(&none)),
        model_digest: &response.model_digest,
        tier: response.tier().as_str_name(),
        region: &response.region,
        epoch: response.epoch,
        event_time_ms: response.event_time_ms,
        stages: response.stages.iter().map(|s| StageJson { stage: &s.stage, elapsed_ms: s.elapsed_ms }).collect(),
        freshness: freshness_json(response.freshness.as_ref().unwrap_or(&unknown)),
    };
    // Numbers and texts of our own always have a JSON form.
    serde_json::to_string(&json).unwrap_or_default()
}

fn freshness_json(freshness: &Freshness) -> FreshnessJson<'_> {
    FreshnessJson {
        windows: freshness.windows.iter().map(window_json).collect(),
        origins: freshness.origins.iter().map(origin_json).collect(),
    }
}

fn window_json(found: &WindowFreshness) -> WindowJson<'_> {
    WindowJson { window: &found.window, state: found.state().as_str_name() }
}

fn origin_json(found: &OriginFreshness) -> OriginJson<'_> {
    OriginJson { region: &found.region, age_ms: found.age_ms, missing_ms: found.missing_ms, ended: found.ended }
}

fn degradation_json(degradation: &Degradation) -> DegradationJson<'_> {
    DegradationJson {
        features: degradation.features().as_str_name(),
        incomplete_windows: &degradation.incomplete_windows,
        graph: degradation.graph().as_str_name(),
        inference: degradation.inference().as_str_name(),
        rules: degradation.rules().as_str_name(),
        authority: degradation.authority().as_str_name(),
        durability: degradation.durability().as_str_name(),
        idempotency: degradation.idempotency().as_str_name(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proto::fraud::v1::Thresholds;

    use super::*;

    fn refused(body: &str) -> (String, String) {
        match read_request(body.as_bytes()).unwrap_err() {
            ReadError::Field { field, detail } => (field, detail),
            ReadError::Malformed(detail) => (String::new(), detail),
        }
    }

    #[test]
    fn a_payment_is_read_by_its_names() {
        let request = read_request(
            br#"{"transactionId": "t-1", "amountMinor": "1250", "currency": "USD", "channel": "IN_STORE", "tenant": null,
                "card": {"number": "4111111111111111", "expiryMonth": 12, "expiryYear": 2031}, "clientTimeMs": 5}"#,
        )
        .unwrap();
        assert_eq!((request.amount_minor, request.client_time_ms, request.channel()), (1250, Some(5), Channel::InStore));
        assert_eq!(request.card.unwrap().expiry_year, 2031);
    }

    #[test]
    fn each_wrong_field_is_named() {
        for (body, field, detail) in [
            ("", "", "EOF"),
            ("[]", "", "must be an object"),
            (r#"{"amountMinor": 1, "amount": 2}"#, "amount", "is not a field"),
            (r#"{"currency": "USD"}"#, "amountMinor", "is missing"),
            (r#"{"amountMinor": 1.5}"#, "amountMinor", "whole number"),
            (r#"{"amountMinor": 1e99}"#, "amountMinor", "whole number"),
            (r#"{"amountMinor": "9223372036854775808"}"#, "amountMinor", "64 bits"),
            (r#"{"amountMinor": 1, "card": 7}"#, "card", "must be an object"),
            (r#"{"amountMinor": 1, "card": {"pan": "1"}}"#, "card.pan", "is not a field"),
            (r#"{"amountMinor": 1, "card": {"expiryYear": -1}}"#, "card.expiryYear", "from 0 to"),
            (r#"{"amountMinor": 1, "channel": "WEBB"}"#, "channel", "use WEB, APP, IN_STORE, PHONE"),
            (r#"{"amountMinor": 1, "channel": "CHANNEL_UNSPECIFIED"}"#, "channel", "use WEB"),
            (r#"{"amountMinor": 1, "email": ["a"]}"#, "email", "must be a string"),
        ] {
            let (found, why) = refused(body);
            assert!(found == field && why.contains(detail), "{body}: {found}: {why}");
        }
    }

    fn schema(name: &str) -> Map<String, Value> {
        let document: Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        document["components"]["schemas"][name]["properties"].as_object().unwrap().clone()
    }

    /// A value of every member that the document describes.
    fn sample(name: &str) -> Value {
        let value = |member: &Value| match (&member["$ref"], member["enum"].as_array(), member["type"].as_str()) {
            (Value::String(reference), ..) => sample(reference.rsplit('/').next().unwrap()),
            (_, Some(choices), _) => choices[0].clone(),
            (_, _, Some("integer")) => Value::from(1),
            _ => Value::from("x"),
        };
        schema(name).iter().map(|(name, member)| (name.clone(), value(member))).collect::<Map<_, _>>().into()
    }

    #[test]
    fn the_openapi_document_describes_every_member_that_is_read_and_no_other() {
        let request = read_request(sample("Payment").to_string().as_bytes()).unwrap();
        assert_eq!((request.channel(), request.card.unwrap().expiry_year, request.merchant.unwrap().category_code), (Channel::Web, 1, 1));
        let choices = |member: &str| schema("Payment")[member]["enum"].clone();
        assert_eq!((choices("channel"), choices("cardEntry")), (Value::from(CHANNELS.to_vec()), Value::from(CARD_ENTRIES.to_vec())));
    }

    #[test]
    fn the_openapi_document_describes_every_member_that_is_written() {
        let response = DecideResponse {
            score: Some(0.5),
            thresholds: Some(Thresholds { review: 0.5, decline: 0.9, cause: "x".into() }),
            degradation: Some(Degradation { incomplete_windows: vec!["1m".into()], ..Degradation::default() }),
            freshness: Some(Freshness {
                windows: vec![WindowFreshness::default()],
                origins: vec![OriginFreshness { age_ms: Some(1), missing_ms: Some(1), ..OriginFreshness::default() }],
            }),
            ..DecideResponse::default()
        };
        let written: Map<String, Value> = serde_json::from_str(&write_response(&response)).unwrap();
        let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&written), names(&schema("Decision")));
        assert_eq!(names(written["degradation"].as_object().unwrap()), names(&schema("Degradation")));
        let freshness = &written["freshness"];
        assert_eq!(names(freshness.as_object().unwrap()), names(&schema("Freshness")));
        assert_eq!(names(freshness["windows"][0].as_object().unwrap()), names(&schema("WindowFreshness")));
        assert_eq!(names(freshness["origins"][0].as_object().unwrap()), names(&schema("OriginFreshness")));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names = "(transactionId|amountMinor|card|merchant|channel|expiryMonth|number|[a-z]{0,3})";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = read_request(&bytes);
        }

        #[test]
        fn arbitrary_json_never_panics(value in any_json()) {
            let _ = read_request(value.to_string().as_bytes());
        }
    }

    #[test]
    fn deeply_nested_json_is_refused_and_does_not_overflow() {
        assert_eq!(refused(&"[".repeat(60_000)).0, "");
        assert_eq!(refused(&format!("{{\"a\":{}", "{\"a\":".repeat(10_000))).0, "");
    }
}
