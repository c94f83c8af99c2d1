//! What honest people do, including what looks like fraud: journeys, new phones, sprees, retries, shared lines, private
//! networks, subscription runs, guest checkouts. Pure.

use proto::fraud::v1::{CardEntry, Channel};

use super::dice::{Dice, Weighted};
use super::payment::{Online, Payer, Planned};
use super::tables::COUNTRIES;
use super::world::{Customer, World};
use super::{identity, micros};

/// Somebody who is awake buys something, perhaps several things.
pub(crate) fn visit(world: &mut World, dice: &mut Dice, now_us: u64, day_s: f64) -> Vec<Planned> {
    let customer = somebody_awake(world, dice, now_us, day_s);
    change_of_life(&mut world.customers[customer], dice, now_us, day_s);
    let online = dice.chance(world.customers[customer].online_share);
    let mut plans = Vec::new();
    let mut at_us = now_us;
    for _ in 0..purchases(dice) {
        let Some(planned) = purchase(world, dice, customer, online, at_us) else { break };
        let retries = if online && dice.chance(0.04) { dice.count(1, 3) } else { 0 };
        plans.push(planned.clone());
        for _ in 0..retries {
            // The answer did not come, or the bank wanted another try: the same payment under another id.
            at_us += micros(dice.uniform(0.15, 4.0));
            plans.push(Planned { at_us, ..planned.clone() });
        }
        at_us += micros(dice.uniform(1.5, 9.0));
    }
    world.customers[customer].busy_until_us = at_us;
    plans
}

fn purchases(dice: &mut Dice) -> usize {
    if dice.chance(0.06) { dice.count(2, 7) } else { 1 }
}

fn somebody_awake(world: &World, dice: &mut Dice, now_us: u64, day_s: f64) -> usize {
    let mut customer = 0;
    for _ in 0..20 {
        customer = world.activity.draw(dice);
        let candidate = &world.customers[customer];
        let is_free = candidate.busy_until_us <= now_us;
        if is_free && dice.chance(if is_awake(candidate, now_us, day_s) { 1.0 } else { 0.08 }) {
            break;
        }
    }
    customer
}

fn is_awake(customer: &Customer, now_us: u64, day_s: f64) -> bool {
    let hour = (now_us as f64 / 1e6 / day_s * 24.0 + COUNTRIES[customer.home].hours_east).rem_euclid(24.0);
    (hour - customer.wakes_at).rem_euclid(24.0) < customer.awake_hours
}

/// Now and then somebody buys a new phone, or leaves for another country for a day or two.
fn change_of_life(customer: &mut Customer, dice: &mut Dice, now_us: u64, day_s: f64) {
    if dice.chance(0.01) {
        customer.devices.insert(0, identity::opaque_id(dice, "d"));
        customer.devices.truncate(2);
    }
    if customer.abroad.is_some_and(|(_, until_us)| until_us < now_us) {
        customer.abroad = None;
    }
    if customer.abroad.is_none() && dice.chance(0.006) {
        let country = Weighted::new(COUNTRIES.iter().map(|country| country.share)).draw(dice);
        customer.abroad = Some((country, now_us + micros(dice.uniform(0.3, 2.0) * day_s)));
    }
}

fn purchase(world: &World, dice: &mut Dice, index: usize, online: bool, at_us: u64) -> Option<Planned> {
    let customer = &world.customers[index];
    let merchant = if online { shop(world, dice, customer)? } else { store(world, dice, customer)? };
    let card = dice.index(customer.cards.len());
    let payer = if online { at_the_screen(dice, customer, card) } else { at_the_counter(dice, customer, card) };
    let amount_usd = world.merchants[merchant].price_usd(dice) * customer.spending;
    let mut planned = payer.pays(world, merchant, amount_usd, at_us);
    planned.visitor = Some((index, card));
    Some(planned)
}

fn shop(world: &World, dice: &mut Dice, customer: &Customer) -> Option<usize> {
    let shops = if dice.chance(0.6) { &customer.shops } else { &world.shops };
    dice.pick(shops).copied()
}

fn store(world: &World, dice: &mut Dice, customer: &Customer) -> Option<usize> {
    if let Some((country, _)) = customer.abroad {
        return dice.pick(&world.stores_of[country]).copied();
    }
    let stores = if dice.chance(0.7) { &customer.stores } else { &world.stores_of[customer.home] };
    dice.pick(stores).copied()
}

fn at_the_counter(dice: &mut Dice, customer: &Customer, card: usize) -> Payer {
    Payer {
        user_id: customer.user_id.clone(),
        email: String::new(),
        card: customer.cards[card].clone(),
        home: customer.home,
        online: None,
        channel: Channel::InStore,
        entry: match dice.index(20) {
            0..13 => CardEntry::Contactless,
            13..19 => CardEntry::Chip,
            _ => CardEntry::Keyed,
        },
    }
}

fn at_the_screen(dice: &mut Dice, customer: &Customer, card: usize) -> Payer {
    // Nine of ten use the phone or tablet that they always use; some are at a borrowed computer.
    let device_id =
        if dice.chance(0.03) { identity::opaque_id(dice, "d") } else { dice.pick(&customer.devices).cloned().unwrap_or_default() };
    let (ip_address, ip_country) = whereabouts(dice, customer);
    // A guest checkout has an account of its own.
    let guest = dice.chance(0.1);
    let stored = !guest && dice.chance(0.55);
    Payer {
        user_id: if guest { identity::opaque_id(dice, "u") } else { customer.user_id.clone() },
        email: customer.email.clone(),
        card: customer.cards[card].clone(),
        home: customer.home,
        online: Some(Online { device_id, ip_address, ip_country }),
        channel: if dice.chance(0.5) { Channel::App } else { Channel::Web },
        entry: if stored { CardEntry::Stored } else { CardEntry::Keyed },
    }
}

fn whereabouts(dice: &mut Dice, customer: &Customer) -> (String, usize) {
    if let Some((country, _)) = customer.abroad {
        return (identity::line_address(dice, country), country);
    }
    match &customer.proxy {
        Some((address, country)) if dice.chance(0.9) => (address.clone(), *country),
        _ if dice.chance(0.4) => (customer.mobile_address.clone(), customer.home),
        _ => (customer.line_address.clone(), customer.home),
    }
}

/// A merchant charges the stored cards of its subscribers: many cards, one price, within seconds.
pub(crate) fn subscription_run(world: &World, dice: &mut Dice, now_us: u64) -> Vec<Planned> {
    let Some(&merchant) = dice.pick(&world.subscriptions) else { return Vec::new() };
    let price_usd = world.merchants[merchant].price_usd(dice);
    let charge = |dice: &mut Dice, at_us: u64| {
        let index = world.activity.draw(dice);
        let mut payer = at_the_counter(dice, &world.customers[index], 0);
        payer.channel = Channel::Web;
        payer.entry = CardEntry::Stored;
        payer.email = world.customers[index].email.clone();
        let mut planned = payer.pays(world, merchant, price_usd, at_us);
        planned.visitor = Some((index, 0));
        planned
    };
    let mut at_us = now_us;
    let mut plans = Vec::new();
    for _ in 0..dice.count(10, 40) {
        plans.push(charge(dice, at_us));
        at_us += micros(dice.exponential(0.1));
    }
    plans
}
