//! What the generator promises to those who judge a model by it.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use payments::{FraudType, Generator, LabelledPayment, Population};
use proto::fraud::v1::CardEntry;
use scoring_core::validate;

const NOW_MS: i64 = 1_795_176_000_000;

fn stream(seed: u64, count: usize) -> Vec<LabelledPayment> {
    Generator::new(seed, Population::for_rate(250.0, 2027)).take(count).collect()
}

#[test]
fn the_same_seed_gives_the_same_payments_and_another_seed_gives_strangers() {
    let one = stream(5, 3_000);
    assert_eq!(one, stream(5, 3_000));
    let names = |payments: &[LabelledPayment]| -> BTreeSet<String> {
        let of = |labelled: &LabelledPayment| {
            let merchant = labelled.payment.merchant.clone().unwrap_or_default();
            [labelled.payment.user_id.clone(), merchant.id]
        };
        payments.iter().flat_map(of).collect()
    };
    assert!(names(&one).is_disjoint(&names(&stream(6, 3_000))));
}

#[test]
fn every_payment_is_valid_belongs_to_nobody_and_comes_in_time_order() {
    let payments = stream(7, 20_000);
    for pair in payments.windows(2) {
        assert!(pair[0].at <= pair[1].at && pair[0].sequence + 1 == pair[1].sequence);
    }
    for labelled in &payments {
        let payment = &labelled.payment;
        if let Err(problems) = validate::check(payment.clone(), NOW_MS) {
            panic!("payment {} is refused: {problems}", labelled.sequence);
        }
        assert!(payment.card.as_ref().is_some_and(|card| card.number.starts_with("9999")));
        assert!(payment.email.is_empty() || payment.email.contains("@example."));
    }
    // 20,000 payments at 250 per second.
    let last_s = payments[payments.len() - 1].at.as_secs_f64();
    assert!((79.9..=80.0).contains(&last_s), "{last_s}");
}

#[test]
fn transaction_ids_are_unique_and_the_label_is_nowhere_in_the_request() {
    let payments = stream(8, 20_000);
    let ids: BTreeSet<&str> = payments.iter().map(|labelled| labelled.payment.transaction_id.as_str()).collect();
    assert_eq!(ids.len(), payments.len());
    // Ids of frauds and of honest payments are one sequence, and no text of a request names a kind of fraud.
    for labelled in payments.iter().filter(|labelled| labelled.fraud.is_some()) {
        let text = format!("{:?}", labelled.payment).to_lowercase();
        assert!(!text.contains("fraud") && FraudType::ALL.iter().all(|kind| !text.contains(kind.name())), "{text}");
    }
}

#[test]
fn fraud_has_its_share_and_every_kind_occurs() {
    for seed in [11, 12, 13] {
        let payments = stream(seed, 30_000);
        let mut of_kind: BTreeMap<FraudType, usize> = BTreeMap::new();
        payments.iter().filter_map(|labelled| labelled.fraud).for_each(|kind| *of_kind.entry(kind).or_default() += 1);
        let share = of_kind.values().sum::<usize>() as f64 / payments.len() as f64;
        assert!((0.010..=0.020).contains(&share), "seed {seed}: {share}");
        assert!(FraudType::ALL.iter().all(|kind| of_kind.get(kind).is_some_and(|count| *count >= 25)), "seed {seed}: {of_kind:?}");
    }
}

#[test]
fn no_single_sign_decides_because_honest_people_show_it_too() {
    let payments = stream(14, 30_000);
    let share = |fraud: bool, sign: &dyn Fn(&LabelledPayment) -> bool| {
        let all: Vec<&LabelledPayment> = payments.iter().filter(|labelled| labelled.fraud.is_some() == fraud).collect();
        all.iter().filter(|labelled| sign(labelled)).count() as f64 / all.len() as f64
    };
    let abroad = |labelled: &LabelledPayment| {
        !labelled.payment.ip_country.is_empty() && labelled.payment.ip_country != labelled.payment.billing_country
    };
    let large = |labelled: &LabelledPayment| labelled.amount_usd > 300.0;
    let keyed = |labelled: &LabelledPayment| labelled.payment.card_entry() == CardEntry::Keyed;
    for sign in [&abroad as &dyn Fn(&LabelledPayment) -> bool, &large, &keyed] {
        let (of_frauds, of_honest) = (share(true, sign), share(false, sign));
        assert!((0.05..0.9).contains(&of_frauds) && of_honest > 0.02, "{of_frauds} of frauds, {of_honest} of honest payments");
    }
}

#[test]
fn honest_people_retry_share_lines_and_are_charged_in_runs() {
    let payments = stream(15, 30_000);
    let honest: Vec<&LabelledPayment> = payments.iter().filter(|labelled| labelled.fraud.is_none()).collect();
    let mut users_of_line: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut times_s: BTreeMap<(&str, &str, i64), Vec<f64>> = BTreeMap::new();
    for labelled in &honest {
        let payment = &labelled.payment;
        users_of_line.entry(&payment.ip_address).or_default().insert(&payment.user_id);
        let merchant = payment.merchant.as_ref().map_or("", |merchant| merchant.id.as_str());
        times_s.entry((&payment.user_id, merchant, payment.amount_minor)).or_default().push(labelled.at.as_secs_f64());
    }
    let retries = times_s.values().flat_map(|times| times.windows(2)).filter(|pair| pair[1] - pair[0] < 5.0).count();
    assert!(retries > 100, "{retries}");
    users_of_line.remove("");
    assert!(users_of_line.values().filter(|users| users.len() > 5).count() > 5);
    let charged =
        honest.iter().filter(|labelled| labelled.payment.ip_address.is_empty() && labelled.payment.card_entry() == CardEntry::Stored);
    assert!(charged.count() > 200);
}
