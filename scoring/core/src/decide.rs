//! From score, rules and what was missing to a verdict. Pure: every branch of a decision is on this page.

use proto::fraud::v1;

use crate::wire::wire_enum;

wire_enum! {
    /// Ordered from lenient to strict.
    Verdict from Verdict { Approve = Approve, Review = Review, Decline = Decline }
}
wire_enum! {
    /// How much work an amount is worth, least first.
    Tier from Tier { RulesOnly = RulesOnly, LightModel = LightModel, Full = Full }
}
wire_enum! {
    FeatureState from FeatureState {
        Whole = FeaturesWhole,
        /// Some windows miss something: they are listed.
        Incomplete = FeaturesIncomplete,
        Cached = FeaturesCached,
        Missing = FeaturesMissing,
        /// Nothing is known to be missing, and whether something is was not measured.
        Unknown = FeaturesUnknown,
    }
}
wire_enum! {
    GraphState from GraphState {
        Used = GraphUsed,
        Skipped = GraphSkipped,
        /// The pipeline has no graph.
        None = GraphNone,
    }
}
wire_enum! {
    InferenceState from InferenceState {
        Used = InferenceUsed,
        Light = InferenceLight,
        Missing = InferenceMissing,
        /// The tier asks for none.
        NotNeeded = InferenceNotNeeded,
    }
}
wire_enum! { RuleState from RuleState { Current = RulesCurrent, LastGood = RulesLastGood } }
wire_enum! { AuthorityState from AuthorityState { Confirmed = AuthorityConfirmed, Unconfirmed = AuthorityUnconfirmed } }
wire_enum! { Durability from Durability { Kafka = Kafka, Local = Local, None = None } }
wire_enum! { IdempotencyState from IdempotencyState { Confirmed = IdempotencyConfirmed, Unconfirmed = IdempotencyUnconfirmed } }

/// What was missing when a decision was made: a set, each dimension for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degradation {
    pub features: FeatureState,
    /// With [`FeatureState::Incomplete`]: which windows, as configured.
    pub incomplete_windows: Vec<String>,
    pub graph: GraphState,
    pub inference: InferenceState,
    pub rules: RuleState,
    pub authority: AuthorityState,
    pub durability: Durability,
    pub idempotency: IdempotencyState,
}

impl Degradation {
    pub fn to_wire(&self) -> v1::Degradation {
        v1::Degradation {
            features: self.features.to_wire(),
            incomplete_windows: self.incomplete_windows.clone(),
            graph: self.graph.to_wire(),
            inference: self.inference.to_wire(),
            rules: self.rules.to_wire(),
            authority: self.authority.to_wire(),
            durability: self.durability.to_wire(),
            idempotency: self.idempotency.to_wire(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidPolicy {
    #[error("thresholds: review {review} and decline {decline} must both be within 0 to 1, review at most decline")]
    Thresholds { review: f64, decline: f64 },
    #[error("thresholds.raiseBy: {0} must be a log-odds of 0 to 20")]
    Raise(f64),
    #[error("tiers: `below` must rise from one tier to the next, and `use` too (RulesOnly, LightModel); what is above the last is Full")]
    Tiers,
}

/// From which score on a payment is reviewed, and declined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    review: f64,
    decline: f64,
}

impl Thresholds {
    /// # Errors
    /// When a threshold is no probability, or a review would start above a decline.
    pub fn new(review: f64, decline: f64) -> Result<Self, InvalidPolicy> {
        let ordered = 0.0 <= review && review <= decline && decline <= 1.0;
        if ordered { Ok(Self { review, decline }) } else { Err(InvalidPolicy::Thresholds { review, decline }) }
    }

    pub fn review(&self) -> f64 {
        self.review
    }

    pub fn decline(&self) -> f64 {
        self.decline
    }

    pub fn to_wire(&self, cause: &str) -> v1::Thresholds {
        v1::Thresholds { review: self.review, decline: self.decline, cause: cause.to_owned() }
    }
}

/// By how much thresholds rise, in log-odds, where features are incomplete and no calibrated table says better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RaiseBy {
    review: f64,
    decline: f64,
}

impl RaiseBy {
    /// # Errors
    /// When a value is not within 0 to 20.
    pub fn new(review: f64, decline: f64) -> Result<Self, InvalidPolicy> {
        match [review, decline].into_iter().find(|by| !(0.0..=20.0).contains(by)) {
            Some(by) => Err(InvalidPolicy::Raise(by)),
            None => Ok(Self { review, decline }),
        }
    }
}

/// The thresholds that a decision applies, and why they differ from the configured ones (empty when they do not).
pub fn thresholds_for(configured: Thresholds, raise_by: RaiseBy, features: FeatureState) -> (Thresholds, &'static str) {
    if features == FeatureState::Whole {
        return (configured, "");
    }
    let raised_review = add_log_odds(configured.review, raise_by.review);
    // Rising by different amounts must not turn the order around.
    let raised_decline = add_log_odds(configured.decline, raise_by.decline).max(raised_review);
    (Thresholds { review: raised_review, decline: raised_decline }, "features not whole: raised by spec.features.staleness.raiseBy")
}

/// Moves a probability by log-odds; 0 and 1 stay what they are.
fn add_log_odds(probability: f64, by: f64) -> f64 {
    if probability <= 0.0 || probability >= 1.0 {
        return probability;
    }
    let odds = (probability / (1.0 - probability)) * by.exp();
    if odds.is_finite() { odds / (1.0 + odds) } else { 1.0 }
}

/// Tiers by amount in minor units of the base currency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tiers(Vec<(i64, Tier)>);

impl Tiers {
    /// `below` the amount, the tier. With none, everything is worth the full work.
    ///
    /// # Errors
    /// When amounts or tiers do not rise.
    pub fn new(tiers: Vec<(i64, Tier)>) -> Result<Self, InvalidPolicy> {
        let rising = tiers.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let positive = tiers.first().is_none_or(|(below, _)| *below > 0);
        if rising && positive && tiers.len() <= Tier::ALL.len() { Ok(Self(tiers)) } else { Err(InvalidPolicy::Tiers) }
    }

    /// An amount whose rate is not known belongs to the top tier.
    pub fn tier_of(&self, amount_base_minor: Option<i64>) -> Tier {
        let found = amount_base_minor.and_then(|amount| self.0.iter().find(|(below, _)| amount < *below));
        found.map_or(Tier::Full, |(_, tier)| *tier)
    }
}

/// What inference came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scored {
    Score(f64),
    /// The tier asks for no score.
    NotNeeded,
    /// There should be a score and there is none.
    Unavailable,
}

impl Scored {
    /// What is no probability is no score.
    pub fn of(score: f64) -> Self {
        if (0.0..=1.0).contains(&score) { Self::Score(score) } else { Self::Unavailable }
    }
}

/// What a rule that matched asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RuleAction {
    Set(Verdict),
    /// Moves the score by log-odds.
    Adjust(f64),
}

/// A rule that matched.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleHit {
    pub id: String,
    /// The highest wins; among equals the strictest.
    pub priority: i32,
    pub action: RuleAction,
}

/// A verdict with its grounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    /// After adjustments by rules; `None` when nothing was scored.
    pub score: Option<f64>,
    /// Stable codes, deciding one first; only for review and decline.
    pub reasons: Vec<String>,
    /// Every rule that matched, as given.
    pub rules_hit: Vec<String>,
}

/// Everything that a verdict depends on.
#[derive(Debug, Clone, Copy)]
pub struct Grounds<'a> {
    pub scored: Scored,
    pub rules: &'a [RuleHit],
    pub thresholds: Thresholds,
    pub amount_base_minor: Option<i64>,
    /// Without a score, approve below this amount and review from it on.
    pub approve_below_minor: i64,
}

/// A rule that approves or declines decides; else the score by the thresholds; else, where a score should be, the amount.
/// A rule that asks for a review is a floor: it never softens a decline.
pub fn decide(grounds: &Grounds<'_>) -> Decision {
    let scored = adjusted(grounds.scored, grounds.rules);
    let without_rules = match scored {
        Scored::Score(score) => by_score(score, grounds.thresholds),
        Scored::NotNeeded => (Verdict::Approve, String::new()),
        Scored::Unavailable => by_amount(grounds.amount_base_minor, grounds.approve_below_minor),
    };
    let (verdict, reason) = match deciding_rule(grounds.rules) {
        Some((Verdict::Review, _)) if without_rules.0 == Verdict::Decline => without_rules,
        Some(by_rule) => by_rule,
        None => without_rules,
    };
    Decision {
        verdict,
        score: if let Scored::Score(score) = scored { Some(score) } else { None },
        reasons: if verdict == Verdict::Approve { Vec::new() } else { vec![reason] },
        rules_hit: grounds.rules.iter().map(|hit| hit.id.clone()).collect(),
    }
}

fn adjusted(scored: Scored, rules: &[RuleHit]) -> Scored {
    let Scored::Score(score) = scored else { return scored };
    let shift = rules.iter().map(|hit| if let RuleAction::Adjust(by) = hit.action { by } else { 0.0 }).filter(|by| by.is_finite()).sum();
    Scored::of(add_log_odds(score, shift))
}

fn deciding_rule(rules: &[RuleHit]) -> Option<(Verdict, String)> {
    let sets = rules.iter().filter_map(|hit| if let RuleAction::Set(verdict) = hit.action { Some((hit, verdict)) } else { None });
    sets.max_by_key(|(hit, verdict)| (hit.priority, *verdict)).map(|(hit, verdict)| (verdict, format!("RULE:{}", hit.id)))
}

fn by_score(score: f64, thresholds: Thresholds) -> (Verdict, String) {
    if score >= thresholds.decline {
        (Verdict::Decline, "SCORE_AT_DECLINE".to_owned())
    } else if score >= thresholds.review {
        (Verdict::Review, "SCORE_AT_REVIEW".to_owned())
    } else {
        (Verdict::Approve, String::new())
    }
}

/// An unknown amount is a large one.
fn by_amount(amount_base_minor: Option<i64>, approve_below_minor: i64) -> (Verdict, String) {
    match amount_base_minor {
        Some(amount) if amount < approve_below_minor => (Verdict::Approve, String::new()),
        Some(_) => (Verdict::Review, "NO_SCORE_LARGE_AMOUNT".to_owned()),
        None => (Verdict::Review, "NO_SCORE_UNKNOWN_AMOUNT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_asks_for_a_review_never_softens_a_decline() {
        let review = [RuleHit { id: "missing-data".into(), priority: 9, action: RuleAction::Set(Verdict::Review) }];
        let decision = decide(&grounds(Scored::Score(0.95), &review));
        assert_eq!((decision.verdict, decision.reasons), (Verdict::Decline, vec!["SCORE_AT_DECLINE".to_owned()]));
        assert_eq!(decide(&grounds(Scored::Score(0.1), &review)).verdict, Verdict::Review);
    }

    fn grounds(scored: Scored, rules: &[RuleHit]) -> Grounds<'_> {
        let thresholds = Thresholds::new(0.5, 0.9).unwrap();
        Grounds { scored, rules, thresholds, amount_base_minor: Some(5_000), approve_below_minor: 10_000 }
    }

    fn rule(id: &str, priority: i32, action: RuleAction) -> RuleHit {
        RuleHit { id: id.into(), priority, action }
    }

    #[test]
    fn thresholds_are_inclusive() {
        let verdict = |score| decide(&grounds(Scored::of(score), &[])).verdict;
        assert_eq!(
            [0.49, 0.5, 0.89, 0.9, 1.0].map(verdict),
            [Verdict::Approve, Verdict::Review, Verdict::Review, Verdict::Decline, Verdict::Decline]
        );
    }

    #[test]
    fn without_a_score_small_amounts_pass_and_large_or_unknown_ones_are_reviewed() {
        let verdict = |scored, amount_base_minor| decide(&Grounds { amount_base_minor, ..grounds(scored, &[]) });
        assert_eq!(verdict(Scored::Unavailable, Some(9_999)).verdict, Verdict::Approve);
        assert_eq!(verdict(Scored::Unavailable, Some(10_000)).reasons, ["NO_SCORE_LARGE_AMOUNT"]);
        assert_eq!(verdict(Scored::Unavailable, None).reasons, ["NO_SCORE_UNKNOWN_AMOUNT"]);
        assert_eq!(verdict(Scored::of(f64::NAN), None).verdict, Verdict::Review);
        // A tier that asks for no score is no failure.
        assert_eq!(verdict(Scored::NotNeeded, Some(10_000)).verdict, Verdict::Approve);
    }

    #[test]
    fn a_rule_outranks_the_score_and_among_rules_priority_then_strictness_decide() {
        let (approve, decline) = (RuleAction::Set(Verdict::Approve), RuleAction::Set(Verdict::Decline));
        let listed = [rule("trusted", 1, approve), rule("blocked-bin", 1, decline)];
        let decision = decide(&grounds(Scored::of(0.1), &listed));
        assert_eq!((decision.verdict, decision.reasons), (Verdict::Decline, vec!["RULE:blocked-bin".to_owned()]));
        assert_eq!(decision.rules_hit, ["trusted", "blocked-bin"]);
        let outranked = [rule("trusted", 2, approve), rule("blocked-bin", 1, decline)];
        assert_eq!(decide(&grounds(Scored::of(0.99), &outranked)).verdict, Verdict::Approve);
        assert_eq!(decide(&grounds(Scored::Unavailable, &listed)).verdict, Verdict::Decline);
    }

    #[test]
    fn adjustments_add_up_in_log_odds_and_damage_is_ignored() {
        let adjust = |by| rule("a", 0, RuleAction::Adjust(by));
        let score = |rules: &[RuleHit]| decide(&grounds(Scored::of(0.5), rules)).score.unwrap();
        assert!((score(&[adjust(1.0), adjust(1.0)]) - 0.880_797).abs() < 1e-6);
        assert_eq!(score(&[adjust(f64::NAN), adjust(f64::INFINITY)]), 0.5);
        assert_eq!(score(&[adjust(1e9)]), 1.0);
    }

    #[test]
    fn incomplete_features_raise_thresholds_and_never_past_each_other() {
        let configured = Thresholds::new(0.5, 0.6).unwrap();
        let raise = RaiseBy::new(2.0, 0.05).unwrap();
        assert_eq!(thresholds_for(configured, raise, FeatureState::Whole), (configured, ""));
        let (raised, cause) = thresholds_for(configured, raise, FeatureState::Incomplete);
        assert!(raised.review() > 0.8 && raised.decline() >= raised.review() && !cause.is_empty());
        let limits = Thresholds::new(0.0, 1.0).unwrap();
        assert_eq!(thresholds_for(limits, raise, FeatureState::Missing).0, limits);
        // What was not measured is not taken for good.
        assert_eq!(thresholds_for(configured, raise, FeatureState::Unknown).0, raised);
    }

    #[test]
    fn an_amount_picks_its_tier_and_an_unknown_one_the_top() {
        let tiers = Tiers::new(vec![(1_000, Tier::RulesOnly), (10_000, Tier::LightModel)]).unwrap();
        let picked = [Some(0), Some(999), Some(1_000), Some(9_999), Some(10_000), None].map(|amount| tiers.tier_of(amount));
        assert_eq!(picked, [Tier::RulesOnly, Tier::RulesOnly, Tier::LightModel, Tier::LightModel, Tier::Full, Tier::Full]);
        assert_eq!(Tiers::default().tier_of(Some(0)), Tier::Full);
    }

    #[test]
    fn policies_that_contradict_themselves_are_refused() {
        assert!(Thresholds::new(0.9, 0.5).is_err() && Thresholds::new(-0.1, 0.5).is_err() && Thresholds::new(f64::NAN, 0.5).is_err());
        assert!(RaiseBy::new(-1.0, 0.0).is_err() && RaiseBy::new(0.0, f64::NAN).is_err());
        assert!(Tiers::new(vec![(10, Tier::LightModel), (20, Tier::RulesOnly)]).is_err());
        assert!(Tiers::new(vec![(20, Tier::RulesOnly), (10, Tier::LightModel)]).is_err());
    }

    #[test]
    fn a_degradation_says_on_the_wire_what_it_is() {
        let degradation = Degradation {
            features: FeatureState::Incomplete,
            incomplete_windows: vec!["1h".into()],
            graph: GraphState::None,
            inference: InferenceState::Light,
            rules: RuleState::LastGood,
            authority: AuthorityState::Unconfirmed,
            durability: Durability::Local,
            idempotency: IdempotencyState::Unconfirmed,
        };
        let wire = degradation.to_wire();
        assert_eq!(FeatureState::from_wire(wire.features), Ok(Some(FeatureState::Incomplete)));
        assert_eq!((wire.graph(), wire.durability()), (v1::GraphState::GraphNone, v1::Durability::Local));
        assert_eq!(Verdict::from_wire(0), Ok(None));
    }
}
