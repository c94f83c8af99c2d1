//! A loaded set of rules and its evaluation. Pure.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use cel::{Context, Env, ExecutionError, Program, Value};
use scoring_core::decide::{RuleAction, RuleHit, Verdict};

use super::{
    check,
    facts::{Facts, FeatureNames},
    file::{Action, Adjust, Given, ID_LENGTH_MAX, OnMissing, Phase, RULES_BYTES_MAX, RULES_MAX, RuleFile, RuleText, TESTS_MAX},
};

/// An adjustment of more than this would make a certainty of any score.
const ADJUST_MAX: f64 = 5.0;

/// Why a set of rules was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("rules are refused: {0}")]
    File(String),
    #[error("rules are refused: rule {id:?}: {problem}")]
    Rule { id: String, problem: String },
}

#[derive(Debug)]
struct Rule {
    id: String,
    phase: Phase,
    program: Program,
    action: Action,
    priority: i32,
    on_missing: OnMissing,
}

/// Rules in the order of the file.
pub struct RuleSet {
    rules: Vec<Rule>,
    /// Building the standard functions takes longer than evaluating many rules, hence once per set.
    environment: Arc<Env>,
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

impl RuleSet {
    /// No rules.
    pub fn empty() -> Self {
        Self { rules: Vec::new(), environment: Arc::new(Env::stdlib()) }
    }

    /// Reads, checks and tests a file of rules.
    ///
    /// # Errors
    /// When anything in it is wrong: then nothing of it is used.
    pub fn load(text: &str, features: &FeatureNames) -> Result<Self, RulesError> {
        if text.len() > RULES_BYTES_MAX {
            return Err(RulesError::File(format!("{} bytes, at most {RULES_BYTES_MAX} are allowed", text.len())));
        }
        let file: RuleFile = serde_yaml::from_str(text).map_err(|error| RulesError::File(error.to_string()))?;
        if file.rules.len() > RULES_MAX {
            return Err(RulesError::File(format!("{} rules, at most {RULES_MAX} are allowed", file.rules.len())));
        }
        let mut set = Self::empty();
        let mut ids = BTreeSet::new();
        for rule in file.rules {
            let id: String = rule.id.chars().take(ID_LENGTH_MAX).collect();
            if !ids.insert(id.clone()) {
                return Err(RulesError::Rule { id, problem: "another rule has the same id".into() });
            }
            let loaded = set.check(rule, features).map_err(|problem| RulesError::Rule { id, problem })?;
            set.rules.push(loaded);
        }
        Ok(set)
    }

    fn check(&self, text: RuleText, features: &FeatureNames) -> Result<Rule, String> {
        check_id(&text.id)?;
        check_action(text.action)?;
        let program = check::compile(&text.when, features, text.phase == Phase::After).map_err(|problem| format!("when: {problem}"))?;
        let rule =
            Rule { id: text.id, phase: text.phase, program, action: text.action, priority: text.priority, on_missing: text.on_missing };
        if text.tests.is_empty() || text.tests.len() > TESTS_MAX {
            return Err(format!(
                "tests: has {}, must have 1 to {TESTS_MAX}: show at least one payment for which it fires",
                text.tests.len()
            ));
        }
        for (number, test) in text.tests.iter().enumerate() {
            self.test(&rule, &test.given, test.expect, features).map_err(|problem| format!("tests[{number}]: {problem}"))?;
        }
        Ok(rule)
    }

    fn test(&self, rule: &Rule, given: &Given, expect: bool, features: &FeatureNames) -> Result<(), String> {
        let mut vector = vec![f32::NAN; features.len()];
        for (name, value) in &given.features {
            let position = features.position(name).ok_or_else(|| format!("given: feature {name:?} is not in the feature schema"))?;
            vector[position] = *value;
        }
        let facts = Facts {
            amount: given.amount,
            currency: Cow::Borrowed(&given.currency),
            channel: Cow::Borrowed(&given.channel),
            card_entry: Cow::Borrowed(&given.card_entry),
            card_country: Cow::Borrowed(&given.card_country),
            ip_country: Cow::Borrowed(&given.ip_country),
            billing_country: Cow::Borrowed(&given.billing_country),
            merchant_id: Cow::Borrowed(&given.merchant_id),
            merchant_category: given.merchant_category.into(),
            merchant_country: Cow::Borrowed(&given.merchant_country),
            bin8: Cow::Borrowed(&given.bin8),
            email_domain: Cow::Borrowed(&given.email_domain),
            ip_prefix: Cow::Borrowed(&given.ip_prefix),
            score: given.score,
            features: Cow::Owned(vector),
            names: Some(features),
        };
        match answer(rule, &self.context(&facts)) {
            Answer::Known(found) if found == expect => Ok(()),
            Answer::Known(found) => Err(format!("the expression is {found}, expected is {expect}")),
            Answer::Missing => Err("the expression needs something that given does not have".into()),
            Answer::Broken(why) => Err(format!("the expression cannot be evaluated: {why}")),
        }
    }

    fn context<'v>(&self, facts: &'v Facts<'_>) -> Context<'v, 'v> {
        let mut context = Context::with_env(self.environment.clone());
        context.set_variable_resolver(facts);
        context
    }

    /// Asks every rule of `phase` and adds what fires to `hits`.
    pub fn evaluate(&self, phase: Phase, facts: &Facts<'_>, hits: &mut Hits) {
        let context = self.context(facts);
        for rule in self.rules.iter().filter(|rule| rule.phase == phase) {
            match answer(rule, &context) {
                Answer::Known(true) => hits.add(rule, rule.action.of_core()),
                Answer::Known(false) => {}
                unknown => {
                    hits.errors += u64::from(matches!(unknown, Answer::Broken(_)));
                    if rule.on_missing == OnMissing::Review {
                        hits.add(rule, RuleAction::Set(Verdict::Review));
                    }
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }
}

enum Answer {
    Known(bool),
    /// Something that the expression needs is not known.
    Missing,
    Broken(String),
}

fn answer(rule: &Rule, context: &Context<'_, '_>) -> Answer {
    match rule.program.execute(context) {
        Ok(Value::Bool(fires)) => Answer::Known(fires),
        Ok(other) => Answer::Broken(format!("it is a {:?}, not true or false", other.type_of())),
        // Names were checked when the rule was loaded, so an undeclared one is a variable without a value.
        Err(ExecutionError::UndeclaredReference(_)) => Answer::Missing,
        Err(error) => Answer::Broken(error.to_string().chars().take(200).collect()),
    }
}

fn check_id(id: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if id.is_empty() || id.len() > ID_LENGTH_MAX || !id.bytes().all(plain) {
        return Err(format!(
            "id: use 1 to {ID_LENGTH_MAX} lower-case letters, digits and '-': it becomes a reason code and a metric's label"
        ));
    }
    Ok(())
}

fn check_action(action: Action) -> Result<(), String> {
    match action {
        Action::Adjust(Adjust { by }) if !by.is_finite() || by.abs() > ADJUST_MAX => {
            Err(format!("action: adjust.by is in log-odds and must be from -{ADJUST_MAX} to {ADJUST_MAX}"))
        }
        _ => Ok(()),
    }
}

/// What fired, over both phases.
#[derive(Debug, Clone, Default)]
pub struct Hits {
    pub fired: Vec<RuleHit>,
    /// Rules that could not be evaluated although everything was known.
    pub errors: u64,
}

impl Hits {
    fn add(&mut self, rule: &Rule, action: RuleAction) {
        self.fired.push(RuleHit { id: rule.id.clone(), priority: rule.priority, action });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> FeatureNames {
        FeatureNames::new(["card_count_1m", "card_sum_1h"])
    }

    fn load(rules: &str) -> RuleSet {
        RuleSet::load(rules, &names()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn rule(id: &str, when: &str, rest: &str) -> String {
        format!("- {{id: {id}, phase: before, when: \"{when}\", {rest}}}\n")
    }

    fn fired(set: &RuleSet, facts: &Facts<'_>) -> Vec<RuleHit> {
        let mut hits = Hits::default();
        set.evaluate(Phase::Before, facts, &mut hits);
        assert_eq!(hits.errors, 0);
        hits.fired
    }

    fn ids(hits: &[RuleHit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.id.as_str()).collect()
    }

    #[test]
    fn rules_fire_with_their_action_and_priority_in_the_order_of_the_file() {
        let test = "tests: [{given: {amount: 5}, expect: true}]";
        let set = load(&format!(
            "rules:\n{}{}{}",
            rule("a", "amount > 1.0", &format!("action: approve, priority: 5, {test}")),
            rule("d", "amount > 2", &format!("action: decline, {test}")),
            rule("x", "amount > 4", &format!("action: {{adjust: {{by: 0.4}}}}, {test}")),
        ));
        let facts = |amount| Facts { amount: Some(amount), ..Facts::default() };
        assert!(fired(&set, &facts(0.5)).is_empty());
        let hits = fired(&set, &facts(3.0));
        assert_eq!(ids(&hits), ["a", "d"]);
        assert_eq!((hits[0].priority, hits[0].action), (5, RuleAction::Set(Verdict::Approve)));
        assert_eq!(fired(&set, &facts(5.0))[2].action, RuleAction::Adjust(0.4));
    }

    #[test]
    fn rules_of_the_other_phase_are_not_asked() {
        let set = load("rules: [{id: s, phase: after, when: score > 0.5, action: review, tests: [{given: {score: 0.6}, expect: true}]}]");
        let facts = Facts { score: Some(0.9), ..Facts::default() };
        assert!(fired(&set, &facts).is_empty());
        let mut hits = Hits::default();
        set.evaluate(Phase::After, &facts, &mut hits);
        assert_eq!(ids(&hits.fired), ["s"]);
    }

    #[test]
    fn a_missing_feature_takes_the_on_missing_way_and_is_never_zero() {
        let test = "tests: [{given: {amount: 1, features: {card_count_1m: 0}}, expect: true}]";
        let set = load(&format!(
            "rules:\n{}{}",
            rule("skipped", "features.card_count_1m < 1.0", &format!("action: decline, {test}")),
            rule("reviewed", "features.card_count_1m < 1.0 && amount < 2.0", &format!("action: decline, onMissing: review, {test}")),
        ));
        let names = names();
        let vector = [f32::NAN, 1.0];
        let facts = |amount| Facts { amount: Some(amount), features: Cow::Borrowed(&vector), names: Some(&names), ..Facts::default() };
        let hits = fired(&set, &facts(1.0));
        assert_eq!(ids(&hits), ["reviewed"]);
        assert_eq!(hits[0].action, RuleAction::Set(Verdict::Review));
        // False whatever the feature is: then it is not missed.
        assert!(fired(&set, &facts(9.0)).is_empty());
    }

    #[test]
    fn a_set_with_one_bad_rule_is_refused_whole_with_a_sentence() {
        let good = "tests: [{given: {amount: 5}, expect: true}]";
        for (rules, sentence) in [
            ("rules: 7".to_owned(), "rules are refused"),
            ("rules: []\nextra: 1".to_owned(), "extra"),
            (format!("rules:\n{}", rule("A b", "true", &format!("action: decline, {good}"))), "lower-case letters"),
            (format!("rules:\n{}", rule("a", "amount > 1.0", "action: decline, tests: []")), "must have 1 to 50"),
            (
                format!("rules:\n{}", rule("a", "amount > 9.0", &format!("action: decline, {good}"))),
                "tests[0]: the expression is false, expected is true",
            ),
            (format!("rules:\n{}", rule("a", "amount", &format!("action: decline, {good}"))), "not true or false"),
            (format!("rules:\n{}", rule("a", "amount > 'x'", &format!("action: decline, {good}"))), "cannot be evaluated"),
            (format!("rules:\n{}", rule("a", "features.card_sum_1h > 1.0", &format!("action: decline, {good}"))), "needs something"),
            (format!("rules:\n{}", rule("a", "amount > 1.0", &format!("action: {{adjust: {{by: 50}}}}, {good}"))), "log-odds"),
            (format!("rules:\n{}", rule("a", "amount > 1.0", &format!("action: explode, {good}"))), "explode"),
            (
                format!("rules:\n{0}{0}", rule("a", "amount > 1.0", &format!("action: decline, {good}"))),
                "rule \"a\": another rule has the same id",
            ),
        ] {
            let error = RuleSet::load(&rules, &names()).expect_err(&rules).to_string();
            assert!(error.contains(sentence), "{rules}\n{error}");
        }
    }
}
