//! Who lives in the imaginary world: customers with their habits, and merchants with theirs. Pure; built from a seed.

use std::collections::VecDeque;

use super::dice::{Dice, Weighted};
use super::identity;
use super::tables::{CATEGORIES, COUNTRIES, Category};

/// How large the world is, and how much of what happens is fraud.
#[derive(Debug, Clone, PartialEq)]
pub struct Population {
    pub customers: usize,
    pub merchants: usize,
    /// Payments per second.
    pub rate_per_s: f64,
    /// How long a day of the customers lasts: compressed, so that mornings and nights pass within a short stream.
    pub day_s: f64,
    /// Share of the payments that are fraud.
    pub fraud_share: f64,
    /// The year in which the first cards expire.
    pub expiry_year_min: u32,
}

impl Population {
    /// A world in which a customer pays about every 30 seconds at this rate: busy enough that velocity means something within
    /// two minutes of a store that began empty.
    pub fn for_rate(rate_per_s: f64, expiry_year_min: u32) -> Self {
        Self {
            customers: whole(rate_per_s * 30.0).clamp(300, 1_000_000),
            merchants: whole(rate_per_s * 2.0).clamp(120, 50_000),
            rate_per_s,
            day_s: 60.0,
            fraud_share: 0.015,
            expiry_year_min,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) number: String,
    pub(crate) expiry_month: u32,
    pub(crate) expiry_year: u32,
    pub(crate) holder_name: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Customer {
    pub(crate) user_id: String,
    pub(crate) email: String,
    /// Index into `COUNTRIES`.
    pub(crate) home: usize,
    /// Multiplies the merchants' prices.
    pub(crate) spending: f64,
    pub(crate) online_share: f64,
    /// Local hours.
    pub(crate) wakes_at: f64,
    pub(crate) awake_hours: f64,
    pub(crate) cards: Vec<Card>,
    pub(crate) devices: Vec<String>,
    /// Shared with the household, or with the office.
    pub(crate) line_address: String,
    pub(crate) mobile_address: String,
    /// Always goes through a private network that leaves in another country.
    pub(crate) proxy: Option<(String, usize)>,
    pub(crate) stores: Vec<usize>,
    pub(crate) shops: Vec<usize>,
    /// Abroad in this country until this time (microseconds of the stream).
    pub(crate) abroad: Option<(usize, u64)>,
    /// Until then on a visit: nobody is in two places at once.
    pub(crate) busy_until_us: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Merchant {
    pub(crate) id: String,
    pub(crate) category: Category,
    pub(crate) country: usize,
    pub(crate) online: bool,
    /// Multiplies the category's prices.
    pub(crate) price_level: f64,
    /// The last customers who paid here, newest last: what a thief finds who breaks in.
    pub(crate) visitors: VecDeque<(usize, usize)>,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) customers: Vec<Customer>,
    pub(crate) activity: Weighted,
    pub(crate) merchants: Vec<Merchant>,
    pub(crate) stores_of: Vec<Vec<usize>>,
    pub(crate) shops: Vec<usize>,
    pub(crate) resale_shops: Vec<usize>,
    pub(crate) subscriptions: Vec<usize>,
}

impl World {
    pub(crate) fn new(seed: u64, population: &Population) -> Self {
        let mut dice = Dice::new(seed, 1);
        let merchants: Vec<Merchant> = (0..population.merchants.max(60)).map(|index| merchant(&mut dice, index)).collect();
        let having = |wanted: &dyn Fn(&Merchant) -> bool| -> Vec<usize> {
            merchants.iter().enumerate().filter(|(_, merchant)| wanted(merchant)).map(|(index, _)| index).collect()
        };
        let subscriptions = having(&|merchant| merchant.category.subscription);
        let shops = having(&|merchant| merchant.online && !merchant.category.subscription);
        let resale_shops = having(&|merchant| merchant.online && merchant.category.resale);
        let stores_of: Vec<Vec<usize>> =
            (0..COUNTRIES.len()).map(|country| having(&|merchant| !merchant.online && merchant.country == country)).collect();

        let mut dice = Dice::new(seed, 2);
        let homes = Weighted::new(COUNTRIES.iter().map(|country| country.share));
        let mut customers: Vec<Customer> = Vec::with_capacity(population.customers);
        for _ in 0..population.customers.max(50) {
            let home = homes.draw(&mut dice);
            let mut customer = customer(&mut dice, home, population.expiry_year_min);
            customer.stores = (0..6).filter_map(|_| dice.pick(&stores_of[home]).copied()).collect();
            customer.shops = (0..6).filter_map(|_| favourite_shop(&mut dice, &shops, &merchants, home)).collect();
            move_in_with_neighbours(&mut dice, &mut customer, &customers);
            customers.push(customer);
        }
        let activity = Weighted::new((0..customers.len()).map(|_| dice.lognormal(1.0, 0.6)));
        Self { customers, activity, merchants, stores_of, shops, resale_shops, subscriptions }
    }
}

/// The first merchants are dealt out so that every country has stores and the world has shops and subscriptions of every kind.
fn merchant(dice: &mut Dice, index: usize) -> Merchant {
    let category = if index < CATEGORIES.len() {
        CATEGORIES[index]
    } else {
        CATEGORIES[Weighted::new(CATEGORIES.iter().map(|category| category.share)).draw(dice)]
    };
    let dealt_store = (CATEGORIES.len()..CATEGORIES.len() + 2 * COUNTRIES.len()).contains(&index);
    let (category, online, country) = if dealt_store {
        (CATEGORIES[index % 2], false, index % COUNTRIES.len())
    } else {
        let country = Weighted::new(COUNTRIES.iter().map(|country| country.share)).draw(dice);
        (category, dice.chance(category.online_share), country)
    };
    Merchant {
        id: identity::opaque_id(dice, "m"),
        category,
        country,
        online: online || category.subscription,
        price_level: dice.lognormal(1.0, 0.35),
        visitors: VecDeque::new(),
    }
}

fn customer(dice: &mut Dice, home: usize, expiry_year_min: u32) -> Customer {
    let holder_name = identity::holder_name(dice);
    let cards = (0..if dice.chance(0.35) { 2 } else { 1 }).map(|_| card(dice, home, expiry_year_min, &holder_name)).collect();
    let devices = (0..if dice.chance(0.4) { 2 } else { 1 }).map(|_| identity::opaque_id(dice, "d")).collect();
    let proxy = dice.chance(0.03).then(|| (identity::hosting_address(dice), dice.index(COUNTRIES.len())));
    Customer {
        user_id: identity::opaque_id(dice, "u"),
        email: identity::email(dice),
        home,
        spending: dice.lognormal(1.0, 0.4),
        online_share: dice.uniform(0.3, 0.9),
        wakes_at: dice.uniform(5.0, 11.0),
        awake_hours: dice.uniform(12.0, 18.0),
        cards,
        devices,
        line_address: identity::line_address(dice, home),
        mobile_address: identity::mobile_address(dice, home),
        proxy,
        stores: Vec::new(),
        shops: Vec::new(),
        abroad: None,
        busy_until_us: 0,
    }
}

/// Every country has 30 issuers of its own.
pub(crate) fn card(dice: &mut Dice, home: usize, expiry_year_min: u32, holder_name: &str) -> Card {
    let issuer = home * 30 + dice.index(30);
    Card {
        number: identity::card_number(issuer as u64, dice.bits()),
        expiry_month: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12][dice.index(12)],
        expiry_year: expiry_year_min + [0, 1, 2, 3][dice.index(4)],
        holder_name: holder_name.to_owned(),
    }
}

/// Most people buy from shops of their own country, but not only.
fn favourite_shop(dice: &mut Dice, shops: &[usize], merchants: &[Merchant], home: usize) -> Option<usize> {
    let mut shop = dice.pick(shops).copied()?;
    for _ in 0..3 {
        if merchants[shop].country == home {
            break;
        }
        shop = dice.pick(shops).copied()?;
    }
    Some(shop)
}

/// Families share a line, sometimes a tablet and a card; colleagues share an office's line.
fn move_in_with_neighbours(dice: &mut Dice, customer: &mut Customer, earlier: &[Customer]) {
    if dice.chance(0.3) {
        let household = earlier.iter().rev().take(40).find(|neighbour| neighbour.home == customer.home);
        if let Some(household) = household {
            customer.line_address.clone_from(&household.line_address);
            if dice.chance(0.3) {
                customer.devices.push(household.devices[0].clone());
            }
            if dice.chance(0.25) {
                customer.cards.push(household.cards[0].clone());
            }
        }
    } else if dice.chance(0.1) {
        // One office per country and hundred: about 20 people behind one address.
        customer.line_address = format!("198.{}.{}.1", 18 + customer.home / 8, (customer.home % 8) * 32 + dice.index(4));
    }
}

/// Rounds to a whole number of things; negative is none.
pub(crate) fn whole(value: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = value.round().max(0.0) as usize;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_has_stores_and_the_world_has_every_kind_of_shop() {
        let world = World::new(3, &Population::for_rate(10.0, 2030));
        assert!(world.stores_of.iter().all(|stores| stores.len() >= 2));
        assert!(!world.resale_shops.is_empty() && !world.subscriptions.is_empty() && world.shops.len() > 10);
    }

    #[test]
    fn another_seed_gives_other_customers_and_merchants() {
        let population = Population::for_rate(10.0, 2030);
        let (one, other) = (World::new(1, &population), World::new(2, &population));
        let users =
            |world: &World| world.customers.iter().map(|customer| customer.user_id.clone()).collect::<std::collections::BTreeSet<_>>();
        let merchants =
            |world: &World| world.merchants.iter().map(|merchant| merchant.id.clone()).collect::<std::collections::BTreeSet<_>>();
        let cards = |world: &World| {
            world.customers.iter().map(|customer| customer.cards[0].number.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(users(&one).is_disjoint(&users(&other)));
        assert!(merchants(&one).is_disjoint(&merchants(&other)));
        assert!(cards(&one).intersection(&cards(&other)).count() < 3);
    }
}
