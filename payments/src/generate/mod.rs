//! The generator: labelled card payments in time order. Pure: the same seed and population give the same payments.
//!
//! A slot comes every `1 / rate` seconds. What is due (the next payment of a spree, of a subscription run, of a fraud
//! campaign) takes it; otherwise a campaign begins if fraud is behind its share, else a customer who is awake pays.
//! Human times (a journey, a spree) are compressed with the customers' day, so that a stream of two minutes has them all.

mod dice;
mod everyday;
mod fraud;
mod identity;
mod payment;
mod tables;
mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proto::fraud::v1::DecideRequest;
use serde::{Deserialize, Serialize};

pub use identity::{card_number, card_number_for};
pub use world::Population;

use dice::{Dice, Weighted};
use payment::Planned;
use world::World;

/// How many visitors a merchant remembers.
const VISITORS_MAX: usize = 40;

/// What a thief did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FraudType {
    /// Stolen numbers tried with small amounts, to learn which ones work.
    CardTesting,
    /// A customer's account and stored card in somebody else's hands.
    AccountTakeover,
    /// Cards misused after they were copied at a merchant.
    MerchantCompromise,
    /// A copied card in a store far from where its owner has just paid.
    ImpossibleTravel,
}

impl FraudType {
    pub const ALL: [Self; 4] = [Self::CardTesting, Self::AccountTakeover, Self::MerchantCompromise, Self::ImpossibleTravel];

    pub fn name(self) -> &'static str {
        match self {
            Self::CardTesting => "card_testing",
            Self::AccountTakeover => "account_takeover",
            Self::MerchantCompromise => "merchant_compromise",
            Self::ImpossibleTravel => "impossible_travel",
        }
    }

    /// Share of this type among the fraudulent payments.
    fn share(self) -> f64 {
        match self {
            Self::CardTesting => 0.3,
            Self::AccountTakeover => 0.3,
            Self::MerchantCompromise => 0.25,
            Self::ImpossibleTravel => 0.15,
        }
    }
}

/// A payment and what it is. Only `payment` ever goes on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPayment {
    pub payment: DecideRequest,
    pub fraud: Option<FraudType>,
    /// When it is due, from the beginning of the stream.
    pub at: Duration,
    /// Counted from 0.
    pub sequence: u64,
    /// The amount in US dollars, for judging what the amount alone would tell.
    pub amount_usd: f64,
}

/// An endless stream of payments.
#[derive(Debug, Clone)]
pub struct Generator {
    population: Population,
    world: World,
    dice: Dice,
    due: BinaryHeap<Reverse<Planned>>,
    emitted: u64,
    frauds_planned: [u64; FraudType::ALL.len()],
    planned: u64,
    next_subscription_run_us: u64,
    transaction_prefix: String,
}

impl Generator {
    pub fn new(seed: u64, population: Population) -> Self {
        Self {
            world: World::new(seed, &population),
            dice: Dice::new(seed, 3),
            population,
            due: BinaryHeap::new(),
            emitted: 0,
            frauds_planned: [0; FraudType::ALL.len()],
            planned: 0,
            next_subscription_run_us: 2_000_000,
            transaction_prefix: format!("t{seed}-"),
        }
    }

    /// Transaction ids are this prefix and the sequence number.
    pub fn with_transaction_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.transaction_prefix);
        self
    }

    fn slot_us(&mut self) -> u64 {
        let slot = self.emitted as f64 + self.dice.unit();
        micros(slot / self.population.rate_per_s)
    }

    fn add(&mut self, plans: impl IntoIterator<Item = Planned>) {
        for mut planned in plans {
            planned.order = self.planned;
            self.planned += 1;
            if let Some(fraud) = planned.fraud {
                self.frauds_planned[fraud as usize] += 1;
            }
            self.due.push(Reverse(planned));
        }
    }

    fn fill_slot(&mut self, now_us: u64) {
        if self.is_due(now_us) {
            return;
        }
        if let Some(fraud) = self.fraud_that_is_behind() {
            let campaign = fraud::campaign(fraud, &self.world, &mut self.dice, now_us);
            self.add(campaign);
        } else if now_us >= self.next_subscription_run_us {
            self.next_subscription_run_us = now_us + micros(self.dice.exponential(6.0));
            let run = everyday::subscription_run(&self.world, &mut self.dice, now_us);
            self.add(run);
        }
        if !self.is_due(now_us) {
            let visit = everyday::visit(&mut self.world, &mut self.dice, now_us, self.population.day_s);
            self.add(visit);
        }
    }

    fn is_due(&self, now_us: u64) -> bool {
        self.due.peek().is_some_and(|planned| planned.0.at_us <= now_us)
    }

    /// At first nothing: thieves need cards that have been used.
    fn fraud_that_is_behind(&mut self) -> Option<FraudType> {
        let wanted = (self.emitted as f64 - 3.0 * self.population.rate_per_s) * self.population.fraud_share;
        if (self.frauds_planned.iter().sum::<u64>() as f64) >= wanted || !self.dice.chance(0.05) {
            return None;
        }
        let behind = |fraud: &FraudType| (wanted * fraud.share() - self.frauds_planned[*fraud as usize] as f64).max(0.0) + 0.1;
        let chosen = Weighted::new(FraudType::ALL.iter().map(behind)).draw(&mut self.dice);
        FraudType::ALL.get(chosen).copied()
    }

    fn remember_visit(&mut self, planned: &Planned) {
        if let (Some((customer, card)), None) = (planned.visitor, planned.fraud) {
            let visitors = &mut self.world.merchants[planned.merchant].visitors;
            if visitors.len() == VISITORS_MAX {
                visitors.pop_front();
            }
            visitors.push_back((customer, card));
        }
    }
}

impl Iterator for Generator {
    type Item = LabelledPayment;

    fn next(&mut self) -> Option<LabelledPayment> {
        let now_us = self.slot_us();
        self.fill_slot(now_us);
        let Reverse(planned) = self.due.pop()?;
        self.remember_visit(&planned);
        let sequence = self.emitted;
        self.emitted += 1;
        let mut payment = planned.payment;
        payment.transaction_id = format!("{}{sequence:08}", self.transaction_prefix);
        Some(LabelledPayment { payment, fraud: planned.fraud, at: Duration::from_micros(now_us), sequence, amount_usd: planned.amount_usd })
    }
}

/// Seconds to microseconds; negative is 0.
fn micros(seconds: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let micros = (seconds.max(0.0) * 1e6) as u64;
    micros
}
