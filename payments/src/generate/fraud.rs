//! What thieves do. They differ in how careful they are: the careless reuse a device, the careful change everything. Pure.

use proto::fraud::v1::{CardEntry, Channel};

use super::FraudType;
use super::dice::{Dice, Weighted};
use super::payment::{Online, Payer, Planned};
use super::tables::COUNTRIES;
use super::world::{Card, Customer, World, card};
use super::{identity, micros};

/// The payments of one campaign, the first one now. Empty if nobody can be robbed yet.
pub(crate) fn campaign(fraud: FraudType, world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let mut plans = match fraud {
        FraudType::CardTesting if dice.chance(0.3) => guess_one_card(world, dice, now_us),
        FraudType::CardTesting => test_stolen_cards(world, dice, now_us),
        FraudType::AccountTakeover => take_over(world, dice, now_us),
        FraudType::MerchantCompromise => misuse_copied_cards(world, dice, now_us),
        FraudType::ImpossibleTravel => pay_far_away(world, dice, now_us),
    };
    for planned in &mut plans {
        planned.fraud = Some(fraud);
    }
    plans
}

/// The devices and addresses that a thief has.
struct Kit {
    /// 0: one device for everything; 1: a new one, at home in the victim's country, for every payment.
    care: f64,
    devices: Vec<String>,
    addresses: Vec<(String, usize)>,
}

impl Kit {
    fn new(dice: &mut Dice) -> Self {
        let devices = (0..dice.count(1, 4)).map(|_| identity::opaque_id(dice, "d")).collect();
        let addresses = (0..dice.count(1, 5)).map(|_| address_anywhere(dice)).collect();
        Self { care: dice.uniform(0.2, 1.0), devices, addresses }
    }

    fn online(&self, dice: &mut Dice, victim_home: usize) -> Online {
        let fresh_device = dice.chance(self.care * 0.6);
        let device_id = if fresh_device { identity::opaque_id(dice, "d") } else { dice.pick(&self.devices).cloned().unwrap_or_default() };
        if dice.chance(self.care * 0.8) {
            // A bot in somebody's home: the right country, an address like any other.
            return Online { device_id, ip_address: identity::line_address(dice, victim_home), ip_country: victim_home };
        }
        let (ip_address, ip_country) = dice.pick(&self.addresses).cloned().unwrap_or_default();
        Online { device_id, ip_address, ip_country }
    }
}

fn address_anywhere(dice: &mut Dice) -> (String, usize) {
    let country = Weighted::new(COUNTRIES.iter().map(|country| country.share)).draw(dice);
    let address = if dice.chance(0.4) { identity::hosting_address(dice) } else { identity::line_address(dice, country) };
    (address, country)
}

/// A stolen number: of one of the customers, or of somebody who has never been seen here.
fn stolen_card(world: &World, dice: &mut Dice) -> (Card, usize) {
    if dice.chance(0.5) {
        let victim = &world.customers[dice.index(world.customers.len())];
        return (victim.cards[0].clone(), victim.home);
    }
    let home = Weighted::new(COUNTRIES.iter().map(|country| country.share)).draw(dice);
    let year = world.customers.first().map_or(0, |customer| customer.cards[0].expiry_year);
    let holder_name = identity::holder_name(dice);
    (card(dice, home, year, &holder_name), home)
}

fn guest(dice: &mut Dice, stolen: Card, home: usize, online: Online) -> Payer {
    Payer {
        user_id: identity::opaque_id(dice, "u"),
        email: identity::email(dice),
        card: stolen,
        home,
        online: Some(online),
        channel: if dice.chance(0.2) { Channel::App } else { Channel::Web },
        entry: CardEntry::Keyed,
    }
}

/// Many cards at one shop, small amounts, few tries each.
fn test_stolen_cards(world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let Some(&merchant) = dice.pick(&world.shops) else { return Vec::new() };
    let kit = Kit::new(dice);
    let gap_s = dice.lognormal(0.5, 0.8);
    let mut at_us = now_us;
    let mut plans = Vec::new();
    for _ in 0..dice.count(5, 25) {
        let (stolen, home) = stolen_card(world, dice);
        let online = kit.online(dice, home);
        let payer = guest(dice, stolen, home, online);
        for _ in 0..dice.count(1, 2) {
            plans.push(payer.pays(world, merchant, dice.lognormal(13.0, 0.7), at_us));
            at_us += micros(dice.exponential(gap_s));
        }
    }
    plans
}

/// One card, many tries: guessing its expiry or what is left on it.
fn guess_one_card(world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let kit = Kit::new(dice);
    let (stolen, home) = stolen_card(world, dice);
    let online = kit.online(dice, home);
    let mut payer = guest(dice, stolen, home, online);
    let mut at_us = now_us;
    let mut plans = Vec::new();
    for _ in 0..dice.count(4, 12) {
        let Some(&merchant) = dice.pick(&world.shops) else { break };
        plans.push(payer.pays(world, merchant, dice.lognormal(18.0, 0.9), at_us));
        if dice.chance(kit.care * 0.5) {
            payer.online = Some(kit.online(dice, home));
        }
        at_us += micros(dice.exponential(1.2));
    }
    plans
}

/// The victim's account with the stored card, from a device that is not theirs, for goods that sell.
fn take_over(world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let victim = &world.customers[world.activity.draw(dice)];
    let kit = Kit::new(dice);
    let mut online = kit.online(dice, victim.home);
    if dice.chance(0.2) {
        // The thief is in the victim's own phone.
        online.device_id = victim.devices[0].clone();
    }
    let payer = Payer {
        user_id: victim.user_id.clone(),
        email: if dice.chance(0.3) { identity::email(dice) } else { victim.email.clone() },
        card: victim.cards[0].clone(),
        home: victim.home,
        online: Some(online),
        channel: if dice.chance(0.4) { Channel::App } else { Channel::Web },
        entry: if dice.chance(0.8) { CardEntry::Stored } else { CardEntry::Keyed },
    };
    spend(world, dice, &payer, now_us, SpendingHabit { payments_max: 6, factor: 3.2, gap_s: 4.0 })
}

/// Cards that were all used at one merchant are now used elsewhere by people who bought the list.
fn misuse_copied_cards(world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let robbed = (0..20).map(|_| dice.index(world.merchants.len())).find(|&merchant| world.merchants[merchant].visitors.len() >= 8);
    let Some(robbed) = robbed else { return Vec::new() };
    let kit = Kit::new(dice);
    let mut at_us = now_us;
    let mut plans = Vec::new();
    for &(customer, card) in world.merchants[robbed].visitors.iter().take(dice.count(5, 15)) {
        let victim: &Customer = &world.customers[customer];
        let Some(copied) = victim.cards.get(card) else { continue };
        let online = kit.online(dice, victim.home);
        let payer = guest(dice, copied.clone(), victim.home, online);
        plans.extend(spend(world, dice, &payer, at_us, SpendingHabit { payments_max: 3, factor: 2.6, gap_s: 5.0 }));
        at_us += micros(dice.exponential(1.5));
    }
    plans
}

struct SpendingHabit {
    payments_max: usize,
    /// Of the usual prices.
    factor: f64,
    gap_s: f64,
}

fn spend(world: &World, dice: &mut Dice, payer: &Payer, now_us: u64, habit: SpendingHabit) -> Vec<Planned> {
    let mut at_us = now_us;
    let mut plans = Vec::new();
    for _ in 0..dice.count(1, habit.payments_max) {
        let shops = if dice.chance(0.75) { &world.resale_shops } else { &world.shops };
        let Some(&merchant) = dice.pick(shops) else { break };
        let amount_usd = world.merchants[merchant].price_usd(dice) * habit.factor;
        plans.push(payer.pays(world, merchant, amount_usd, at_us));
        at_us += micros(dice.exponential(habit.gap_s));
    }
    plans
}

/// A copied card in another country's store, soon after its owner has paid at home.
fn pay_far_away(world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let store = (0..20).map(|_| dice.index(world.merchants.len())).find(|&merchant| {
        let merchant = &world.merchants[merchant];
        !merchant.online && merchant.visitors.len() >= 2
    });
    let Some(store) = store else { return Vec::new() };
    let Some(&(customer, card)) = world.merchants[store].visitors.back() else { return Vec::new() };
    let victim = &world.customers[customer];
    let Some(copied) = victim.cards.get(card) else { return Vec::new() };
    let payer = Payer {
        user_id: victim.user_id.clone(),
        email: String::new(),
        card: copied.clone(),
        home: victim.home,
        online: None,
        channel: Channel::InStore,
        entry: if dice.chance(0.35) { CardEntry::Keyed } else { CardEntry::Contactless },
    };
    let abroad = (world.merchants[store].country + dice.count(1, COUNTRIES.len() - 1)) % COUNTRIES.len();
    let mut at_us = now_us;
    let mut plans = Vec::new();
    for _ in 0..dice.count(1, 4) {
        let Some(&merchant) = dice.pick(&world.stores_of[abroad]) else { break };
        plans.push(payer.pays(world, merchant, world.merchants[merchant].price_usd(dice) * 3.5, at_us));
        at_us += micros(dice.exponential(4.0));
    }
    plans
}
