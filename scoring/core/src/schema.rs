//! The feature vector: which features there are, in which order, and how an event and the states of its entities become numbers. Pure.
//!
//! Contract with models: a model is trained for one schema and names its fingerprint; the fingerprint covers order, names,
//! groups, entities, units, windows, clock skew, the cap of records, the NaN policy and the version of the functions here.
//! Change what a feature means, and [`FUNCTIONS_VERSION`] must change with it. Missing is NaN, never zero.

use sha2::{Digest, Sha256};

use crate::{
    codes::Country,
    evaluate::{Evaluation, History, WindowValues, evaluate},
    event::{EntityKind, Event},
    record::Record,
    state::{EntityState, EntityStates},
    windows::{Window, Windows},
};

/// Version of what the features mean.
pub const FUNCTIONS_VERSION: u32 = 2;

/// Below this length a window carries counts only: sums and distinct values of a few seconds say no more than the count.
const COUNTS_ONLY_BELOW_MS: i64 = 300_000;

/// Features that go missing together, and are masked together in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Of the event itself: never missing as a group.
    Event,
    VelocityCard,
    VelocityUser,
    ProfileUser,
    VelocityDevice,
    VelocityIp,
    VelocityEmail,
}

impl Group {
    pub const ALL: &'static [Self] = &[
        Self::Event,
        Self::VelocityCard,
        Self::VelocityUser,
        Self::ProfileUser,
        Self::VelocityDevice,
        Self::VelocityIp,
        Self::VelocityEmail,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::VelocityCard => "velocity_card",
            Self::VelocityUser => "velocity_user",
            Self::ProfileUser => "profile_user",
            Self::VelocityDevice => "velocity_device",
            Self::VelocityIp => "velocity_ip",
            Self::VelocityEmail => "velocity_email",
        }
    }

    fn entity(self) -> Option<EntityKind> {
        match self {
            Self::Event => None,
            Self::VelocityCard => Some(EntityKind::Card),
            Self::VelocityUser | Self::ProfileUser => Some(EntityKind::User),
            Self::VelocityDevice => Some(EntityKind::Device),
            Self::VelocityIp => Some(EntityKind::Ip),
            Self::VelocityEmail => Some(EntityKind::Email),
        }
    }
}

/// What a feature measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    AmountLog,
    HourOfDay,
    Channel,
    CardEntry,
    MerchantCategory,
    IpCountryDiffers,
    BillingCountryDiffers,
    MerchantCountryDiffers,
    Count,
    Sum,
    DistinctMerchants,
    DistinctCountries,
    DistinctDevices,
    DistinctCards,
    SecondsSinceLast,
    AmountOverMean,
    DeviceIsNew,
    CountryIsNew,
    MerchantIsNew,
    SecondsSinceOtherCountry,
    DiffersFromLastCountry,
    DiffersFromHomeCountry,
    DaysSinceFirstSeen,
}

impl Quantity {
    /// Name, unit and when it is NaN although its group is there.
    fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::AmountLog => ("amount_log", "ln(1 + minor units of the base currency)", "rate not known"),
            Self::HourOfDay => ("hour_of_day", "hours of the UTC day, with fraction", "never"),
            Self::Channel => ("channel", "code of the API", "not given"),
            Self::CardEntry => ("card_entry", "code of the API", "not given"),
            Self::MerchantCategory => ("merchant_category", "ISO 18245 code", "not given"),
            Self::IpCountryDiffers => ("ip_country_differs_from_card", "0 or 1", "either not given"),
            Self::BillingCountryDiffers => ("billing_country_differs_from_card", "0 or 1", "either not given"),
            Self::MerchantCountryDiffers => ("merchant_country_differs_from_card", "0 or 1", "either not given"),
            Self::Count => ("count", "attempts", "never"),
            Self::Sum => ("sum", "minor units of the base currency", "no rate known"),
            Self::DistinctMerchants => ("distinct_merchants", "merchants", "never"),
            Self::DistinctCountries => ("distinct_countries", "countries", "never"),
            Self::DistinctDevices => ("distinct_devices", "devices", "never"),
            Self::DistinctCards => ("distinct_cards", "cards", "never"),
            Self::SecondsSinceLast => ("seconds_since_last", "seconds", "no other attempt in the longest window"),
            Self::AmountOverMean => {
                ("amount_over_mean", "ratio to the mean of the other attempts", "no other attempt, mean 0, or rate not known")
            }
            Self::DeviceIsNew => ("device_is_new", "0 or 1", "nothing to compare with"),
            Self::CountryIsNew => ("country_is_new", "0 or 1", "nothing to compare with"),
            Self::MerchantIsNew => ("merchant_is_new", "0 or 1", "nothing to compare with"),
            Self::SecondsSinceOtherCountry => {
                ("seconds_since_other_country", "seconds", "place not given, or no attempt in another country known")
            }
            Self::DiffersFromLastCountry => ("country_differs_from_last", "0 or 1", "place not given, or no attempt that tells known"),
            Self::DiffersFromHomeCountry => ("country_differs_from_home", "0 or 1", "place not given, or home not known"),
            Self::DaysSinceFirstSeen => ("days_since_first_seen", "days, 0 for the first event", "never"),
        }
    }
}

/// One place of the vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    name: String,
    group: Group,
    window: Option<Window>,
    quantity: Quantity,
}

impl Feature {
    fn new(group: Group, window: Option<Window>, quantity: Quantity) -> Self {
        let (base, _, _) = quantity.describe();
        let entity = group.entity().map(|kind| format!("{}_", kind.name())).unwrap_or_default();
        let suffix = window.map(|window| format!("_{window}")).unwrap_or_default();
        Self { name: format!("{entity}{base}{suffix}"), group, window, quantity }
    }

    /// Such as `card_count_1m`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn group(&self) -> Group {
        self.group
    }

    /// Whose state it is computed from; `None` for features of the event itself.
    pub fn entity(&self) -> Option<EntityKind> {
        self.group.entity()
    }

    pub fn window(&self) -> Option<Window> {
        self.window
    }

    pub fn unit(&self) -> &'static str {
        self.quantity.describe().1
    }

    /// When it is NaN although its group is there.
    pub fn nan_when(&self) -> &'static str {
        self.quantity.describe().2
    }
}

/// An ordered list of features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSchema {
    features: Vec<Feature>,
    windows: Windows,
    fingerprint: String,
}

impl FeatureSchema {
    /// All features over the given windows: 44 of them with the default ones.
    pub fn full(windows: &Windows) -> Self {
        let mut features = event_features();
        features.extend(card_features(windows));
        features.extend(user_features(windows));
        for group in [Group::VelocityDevice, Group::VelocityIp] {
            features.extend(counts(group, windows));
            features.push(Feature::new(group, Some(windows.longest()), Quantity::DistinctCards));
        }
        features.push(Feature::new(Group::VelocityEmail, Some(windows.longest()), Quantity::DistinctCards));
        Self::of(features, windows)
    }

    /// What the light model sees: the event itself and how often its card was used, so one entity to read.
    pub fn light(windows: &Windows) -> Self {
        let mut features = event_features();
        features.extend(counts(Group::VelocityCard, windows));
        features.push(Feature::new(Group::VelocityCard, None, Quantity::SecondsSinceLast));
        Self::of(features, windows)
    }

    fn of(features: Vec<Feature>, windows: &Windows) -> Self {
        let fingerprint = hex::encode(Sha256::digest(canonical(&features, windows)));
        Self { features, windows: windows.clone(), fingerprint }
    }

    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// How many numbers a vector has.
    pub fn width(&self) -> usize {
        self.features.len()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(Feature::name)
    }

    /// The places of a group's features, for masking.
    pub fn places_of(&self, group: Group) -> impl Iterator<Item = usize> + '_ {
        self.features.iter().enumerate().filter(move |(_, feature)| feature.group == group).map(|(place, _)| place)
    }

    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// SHA-256 in lower-case hex: equal exactly when a model trained on one schema may be served with the other.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The vector of an event, given what is known of its entities. The event itself need not be recorded.
    pub fn assemble(&self, event: &Event, states: &EntityStates) -> FeatureVector {
        let current = Record::of(event);
        let views = EntityKind::ALL.iter().map(|&kind| self.view(kind, &current, states.get(kind))).collect::<Vec<_>>();
        let value = |feature: &Feature| match feature.entity() {
            None => of_event(feature.quantity, event),
            Some(kind) => views[kind.index()].as_ref().and_then(|view| self.value(feature, view, &current)),
        };
        FeatureVector(self.features.iter().map(|feature| value(feature).map_or(f32::NAN, narrow)).collect())
    }

    /// The features of one entity alone, by name, for those who follow entities and not decisions. NaN is left out.
    pub fn entity_values(&self, kind: EntityKind, event: &Event, state: &EntityState) -> Vec<(&str, f64)> {
        let current = Record::of(event);
        let Some(view) = self.view(kind, &current, Some(state)) else { return Vec::new() };
        let of_kind = self.features.iter().filter(|feature| feature.entity() == Some(kind));
        of_kind.filter_map(|feature| self.value(feature, &view, &current).map(|value| (feature.name(), value))).collect()
    }

    /// Evaluates a state once for all features that need it; `None` when none does or the state is not known.
    fn view(&self, kind: EntityKind, current: &Record, state: Option<&EntityState>) -> Option<Evaluation> {
        let state = state.filter(|_| self.features.iter().any(|feature| feature.entity() == Some(kind)))?;
        Some(evaluate(state, current, &self.windows))
    }

    fn value(&self, feature: &Feature, view: &Evaluation, current: &Record) -> Option<f64> {
        match feature.window {
            Some(window) => {
                let index = self.windows.lengths().iter().position(|length| *length == window)?;
                of_window(feature.quantity, view.windows().get(index)?)
            }
            None => of_history(feature.quantity, &view.history, current),
        }
    }
}

fn event_features() -> Vec<Feature> {
    use Quantity::{
        AmountLog, BillingCountryDiffers, CardEntry, Channel, HourOfDay, IpCountryDiffers, MerchantCategory, MerchantCountryDiffers,
    };
    [AmountLog, HourOfDay, Channel, CardEntry, MerchantCategory, IpCountryDiffers, BillingCountryDiffers, MerchantCountryDiffers]
        .map(|quantity| Feature::new(Group::Event, None, quantity))
        .to_vec()
}

fn counts(group: Group, windows: &Windows) -> impl Iterator<Item = Feature> + '_ {
    windows.lengths().iter().map(move |&window| Feature::new(group, Some(window), Quantity::Count))
}

fn long_windows(windows: &Windows) -> impl Iterator<Item = Window> + '_ {
    windows.lengths().iter().copied().filter(|window| window.length_ms() >= COUNTS_ONLY_BELOW_MS)
}

fn card_features(windows: &Windows) -> Vec<Feature> {
    let group = Group::VelocityCard;
    let mut features: Vec<Feature> = counts(group, windows).collect();
    for quantity in [Quantity::Sum, Quantity::DistinctMerchants] {
        features.extend(long_windows(windows).map(|window| Feature::new(group, Some(window), quantity)));
    }
    features.push(Feature::new(group, None, Quantity::SecondsSinceLast));
    features.push(Feature::new(group, None, Quantity::DaysSinceFirstSeen));
    features
}

fn user_features(windows: &Windows) -> Vec<Feature> {
    let group = Group::VelocityUser;
    let mut features: Vec<Feature> = long_windows(windows).map(|window| Feature::new(group, Some(window), Quantity::Count)).collect();
    for quantity in [Quantity::Sum, Quantity::DistinctCountries, Quantity::DistinctDevices, Quantity::DistinctCards] {
        features.push(Feature::new(group, Some(windows.longest()), quantity));
    }
    features.push(Feature::new(group, None, Quantity::SecondsSinceLast));
    for quantity in [
        Quantity::AmountOverMean,
        Quantity::DeviceIsNew,
        Quantity::CountryIsNew,
        Quantity::MerchantIsNew,
        Quantity::SecondsSinceOtherCountry,
        Quantity::DiffersFromLastCountry,
        Quantity::DiffersFromHomeCountry,
        Quantity::DaysSinceFirstSeen,
    ] {
        features.push(Feature::new(Group::ProfileUser, None, quantity));
    }
    features
}

/// The text whose digest is the fingerprint: one line for what all features share, then one a feature.
fn canonical(features: &[Feature], windows: &Windows) -> String {
    let mut text = format!(
        "features v{FUNCTIONS_VERSION}; skew {}ms; newest {} events; windows (t-w, t+skew] of attempts; longest {}\n",
        windows.skew_ms(),
        windows.events_max(),
        windows.longest()
    );
    for (place, feature) in features.iter().enumerate() {
        let entity = feature.entity().map_or("-", EntityKind::name);
        let window = feature.window.map_or_else(|| "-".to_owned(), |window| window.to_string());
        let (group, (_, unit, nan_when)) = (feature.group.name(), feature.quantity.describe());
        text.push_str(&format!("{place}|{}|{group}|{entity}|{window}|{unit}|NaN: {nan_when}\n", feature.name));
    }
    text
}

fn of_event(quantity: Quantity, event: &Event) -> Option<f64> {
    let differs = |country| Some(f64::from(u8::from(country? != event.card_country?)));
    match quantity {
        Quantity::AmountLog => event.amount_base_minor().map(|minor| (minor as f64).ln_1p()),
        Quantity::HourOfDay => Some(event.event_time_ms.rem_euclid(86_400_000) as f64 / 3_600_000.0),
        Quantity::Channel => event.channel.map(|channel| f64::from(channel.to_wire())),
        Quantity::CardEntry => event.card_entry.map(|entry| f64::from(entry.to_wire())),
        Quantity::MerchantCategory => event.merchant.as_ref()?.category_code.map(f64::from),
        Quantity::IpCountryDiffers => differs(event.ip_country),
        Quantity::BillingCountryDiffers => differs(event.billing_country),
        Quantity::MerchantCountryDiffers => differs(event.merchant.as_ref()?.country),
        _ => None,
    }
}

fn of_window(quantity: Quantity, values: &WindowValues) -> Option<f64> {
    match quantity {
        Quantity::Count => Some(f64::from(values.count)),
        Quantity::Sum => values.sum(),
        Quantity::DistinctMerchants => Some(f64::from(values.distinct_merchants)),
        Quantity::DistinctCountries => Some(f64::from(values.distinct_countries)),
        Quantity::DistinctDevices => Some(f64::from(values.distinct_devices)),
        Quantity::DistinctCards => Some(f64::from(values.distinct_cards)),
        _ => None,
    }
}

fn of_history(quantity: Quantity, history: &History, current: &Record) -> Option<f64> {
    let is_new = |seen: Option<bool>| seen.map(|seen| f64::from(u8::from(!seen)));
    let seconds = |ms: Option<i64>| ms.map(|ms| ms as f64 / 1_000.0);
    let differs_from = |country: Option<Country>| Some(f64::from(u8::from(current.country? != country?)));
    match quantity {
        Quantity::SecondsSinceLast => seconds(history.since_last_ms),
        Quantity::AmountOverMean => {
            let mean = history.others_mean().filter(|mean| *mean > 0.0)?;
            current.amount_base_minor.map(|amount| amount as f64 / mean)
        }
        Quantity::DeviceIsNew => is_new(history.device_seen),
        Quantity::CountryIsNew => is_new(history.country_seen),
        Quantity::MerchantIsNew => is_new(history.merchant_seen),
        Quantity::SecondsSinceOtherCountry => seconds(history.since_other_country_ms),
        Quantity::DiffersFromLastCountry => differs_from(history.last_country),
        Quantity::DiffersFromHomeCountry => differs_from(history.home_country),
        Quantity::DaysSinceFirstSeen => Some(history.since_first_seen_ms as f64 / 86_400_000.0),
        _ => None,
    }
}

/// Models take 32-bit floats.
#[allow(clippy::cast_possible_truncation)]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// The numbers of one event, in the order of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureVector(Vec<f32>);

impl FeatureVector {
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// As written in decision records: little-endian, four bytes a number.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// `None` when the bytes are not `width` numbers.
    pub fn from_le_bytes(bytes: &[u8], width: usize) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        (rest.is_empty() && numbers.len() == width).then(|| Self(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    /// The same vector as if a group had been missing.
    #[must_use]
    pub fn masked(mut self, schema: &FeatureSchema, group: Group) -> Self {
        for place in schema.places_of(group) {
            if let Some(value) = self.0.get_mut(place) {
                *value = f32::NAN;
            }
        }
        self
    }

    /// The same vector without what these windows hold. What an entity did before is read from the longest of them.
    #[must_use]
    pub fn without_windows(mut self, schema: &FeatureSchema, missing: &[Window]) -> Self {
        let longest = schema.windows.longest();
        for (feature, value) in schema.features.iter().zip(&mut self.0) {
            if feature.entity().is_some() && missing.contains(&feature.window.unwrap_or(longest)) {
                *value = f32::NAN;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::testing::payment;

    const NOW: i64 = 1_700_000_000_000;

    fn value(schema: &FeatureSchema, vector: &FeatureVector, name: &str) -> f32 {
        vector.values()[schema.names().position(|known| known == name).unwrap_or_else(|| panic!("no feature {name}"))]
    }

    fn states_of(events: &[Event]) -> EntityStates {
        let value: Vec<u8> = events.iter().flat_map(|event| Record::of(event).slot()).collect();
        let mut states = EntityStates::default();
        for &kind in EntityKind::ALL {
            states.set(kind, EntityState::parse(&value, 512));
        }
        states
    }

    #[test]
    fn the_default_schema_is_what_checked_in_models_were_trained_for() {
        // A changed fingerprint refuses every model that is in service: change FUNCTIONS_VERSION, train anew, then this line.
        let full = FeatureSchema::full(&Windows::default());
        let light = FeatureSchema::light(&Windows::default());
        assert_eq!((full.width(), light.width()), (44, 13));
        assert_eq!(full.fingerprint(), "f1574358d3d772a137c236f451455f8a9713aa0650d18a5a0aeaa91bb37b4090");
        assert_eq!(light.fingerprint(), "eb19e5e3a7114f613c0a75bd3279d3acb6512bd281ffb26e6604eb58f534ef5f");
    }

    #[test]
    fn names_are_unique_and_every_group_has_features() {
        let schema = FeatureSchema::full(&Windows::default());
        assert_eq!(schema.names().collect::<BTreeSet<_>>().len(), schema.width());
        assert!(Group::ALL.iter().all(|group| schema.places_of(*group).count() > 0));
        let full: BTreeSet<_> = schema.names().collect();
        assert!(FeatureSchema::light(&Windows::default()).names().all(|name| full.contains(name)));
    }

    #[test]
    fn other_windows_skew_or_cap_give_another_fingerprint() {
        let windows =
            |length: &str, skew, events_max| Windows::new(vec![length.parse().unwrap()], Duration::from_millis(skew), events_max).unwrap();
        let fingerprints: BTreeSet<String> = [windows("1m", 0, 512), windows("2m", 0, 512), windows("1m", 1, 512), windows("1m", 0, 511)]
            .iter()
            .map(|windows| FeatureSchema::full(windows).fingerprint().to_owned())
            .collect();
        assert_eq!(fingerprints.len(), 4);
    }

    #[test]
    fn a_first_payment_counts_itself_and_has_nothing_to_compare_with() {
        let schema = FeatureSchema::full(&Windows::default());
        let vector = schema.assemble(&payment("t-1", NOW), &states_of(&[]));
        assert_eq!(value(&schema, &vector, "card_count_5s"), 1.0);
        assert_eq!(value(&schema, &vector, "user_sum_24h"), 2_159.0);
        assert_eq!(value(&schema, &vector, "ip_country_differs_from_card"), 1.0);
        assert_eq!(value(&schema, &vector, "billing_country_differs_from_card"), 0.0);
        assert_eq!(value(&schema, &vector, "user_days_since_first_seen"), 0.0);
        for missing in ["card_seconds_since_last", "user_amount_over_mean", "user_device_is_new", "user_country_differs_from_home"] {
            assert!(value(&schema, &vector, missing).is_nan(), "{missing}");
        }
    }

    #[test]
    fn a_lookup_that_failed_is_nan_and_not_zero() {
        let schema = FeatureSchema::full(&Windows::default());
        let vector = schema.assemble(&payment("t-1", NOW), &EntityStates::default());
        for (feature, value) in schema.features().iter().zip(vector.values()) {
            assert_eq!(value.is_nan(), feature.entity().is_some(), "{}", feature.name());
        }
    }

    #[test]
    fn a_burst_on_one_card_is_counted_and_compared() {
        let schema = FeatureSchema::full(&Windows::default());
        let burst: Vec<Event> = (0..4).map(|n| payment(&format!("t-{n}"), NOW + n * 1_000)).collect();
        let vector = schema.assemble(&burst[3], &states_of(&burst));
        assert_eq!(value(&schema, &vector, "card_count_5s"), 4.0);
        assert_eq!(value(&schema, &vector, "card_seconds_since_last"), 1.0);
        assert_eq!(value(&schema, &vector, "user_amount_over_mean"), 1.0);
        assert_eq!(value(&schema, &vector, "user_device_is_new"), 0.0);
        assert_eq!(value(&schema, &vector, "user_country_differs_from_last"), 0.0);
        let names: Vec<&str> = schema
            .entity_values(EntityKind::Card, &burst[3], states_of(&burst).get(EntityKind::Card).unwrap())
            .iter()
            .map(|v| v.0)
            .collect();
        assert_eq!(names.len(), 10, "{names:?}");
    }

    #[test]
    fn the_light_schema_needs_the_card_alone() {
        let schema = FeatureSchema::light(&Windows::default());
        let mut card_only = EntityStates::default();
        card_only.set(EntityKind::Card, EntityState::default());
        let event = payment("t-1", NOW);
        let (alone, all) = (schema.assemble(&event, &card_only), schema.assemble(&event, &states_of(&[])));
        assert_eq!(alone.to_le_bytes(), all.to_le_bytes());
    }

    #[test]
    fn a_vector_reads_back_from_its_bytes_and_masking_blanks_one_group() {
        let schema = FeatureSchema::full(&Windows::default());
        let vector = schema.assemble(&payment("t-1", NOW), &states_of(&[]));
        let read = FeatureVector::from_le_bytes(&vector.to_le_bytes(), schema.width()).unwrap();
        assert_eq!(read.to_le_bytes(), vector.to_le_bytes());
        assert_eq!(FeatureVector::from_le_bytes(&vector.to_le_bytes()[1..], schema.width()), None);
        let masked = vector.masked(&schema, Group::VelocityCard);
        assert!(value(&schema, &masked, "card_count_1m").is_nan());
        assert_eq!(value(&schema, &masked, "user_count_1h"), 1.0);
    }

    #[test]
    fn without_a_window_its_features_are_blank_and_without_the_longest_the_history_too() {
        let schema = FeatureSchema::full(&Windows::default());
        let vector = schema.assemble(&payment("t-1", NOW), &states_of(&[]));
        let [minute, day] = ["1m", "24h"].map(|length| length.parse::<Window>().unwrap());
        let blank = |vector: &FeatureVector, name| value(&schema, vector, name).is_nan();
        let without_minute = vector.clone().without_windows(&schema, &[minute]);
        assert!(blank(&without_minute, "card_count_1m") && !blank(&without_minute, "card_count_1h"));
        assert!(!blank(&without_minute, "user_days_since_first_seen") && !blank(&without_minute, "amount_log"));
        let without_day = vector.without_windows(&schema, &[day]);
        assert!(
            blank(&without_day, "user_days_since_first_seen")
                && !blank(&without_day, "card_count_1m")
                && !blank(&without_day, "amount_log")
        );
    }
}
