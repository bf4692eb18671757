//! What the invented merchant has: articles, places, accounts with keys, business customers and rules. All synthetic.

use std::collections::BTreeMap;

use kept_schemas::{
    UnitPrice,
    reference::{Account, Customer, Location, Policy, Product},
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::channels::CHANNELS;
use crate::{hex, synthetic::random};

/// Where everything is shipped from.
pub const WAREHOUSE: &str = "DC1";
/// How many business customers there are.
const BUSINESSES: u32 = 300;

/// An article and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Article {
    pub product: Product,
    pub price: UnitPrice,
}

/// A customer that orders for a business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Business {
    pub number: String,
    pub country: &'static str,
}

const COLOURS: &[&str] = &["white", "blue", "green", "red", "grey", "natural", "black", "yellow", "rose", "oak"];
const THINGS: &[(&str, i64, i64)] = &[
    // What it is, its price in cents and its weight in grams, both to begin from.
    ("mug", 795, 320),
    ("candle", 595, 260),
    ("cushion", 1_995, 480),
    ("lamp", 4_995, 1_900),
    ("vase", 2_495, 1_100),
    ("blanket", 3_495, 950),
    ("notebook", 895, 310),
    ("basket", 1_795, 650),
    ("clock", 2_995, 700),
    ("poster", 1_295, 180),
    ("plant pot", 1_495, 1_300),
    ("lunch box", 1_595, 420),
    ("tea towel", 695, 120),
    ("bowl", 1_195, 540),
    ("photo frame", 1_395, 460),
    ("umbrella", 1_895, 390),
];

/// `count` articles that follow from the seed.
pub fn articles(seed: u64, count: u32) -> Vec<Article> {
    (0..count)
        .map(|n| {
            let sku = format!("KS-{n:05}");
            let mut random = random(seed, "article", &[&sku]);
            let (thing, price, weight) = THINGS[random.random_range(0..THINGS.len())];
            let colour = COLOURS[random.random_range(0..COLOURS.len())];
            let cents = price + 100 * random.random_range(0..=10i64);
            Article {
                product: Product {
                    description: format!("{thing}, {colour} (synthetic)"),
                    sku,
                    weight_grams: Some(weight + random.random_range(0..weight)),
                    vat_class: "standard".into(),
                    max_quantity: None,
                    active: true,
                },
                price: UnitPrice { amount: cents, scale: 2 },
            }
        })
        .collect()
}

/// Picks an article: a few sell much, most sell little.
pub fn pick(random: &mut ChaCha8Rng, count: usize) -> usize {
    // The product of two even draws leans to the small ones.
    let draw = |random: &mut ChaCha8Rng| u128::from(random.random::<u32>());
    let (a, b) = (draw(random), draw(random));
    usize::try_from((a * b * count as u128) >> 64).unwrap_or(0).min(count - 1)
}

/// The merchant's places.
pub fn locations() -> Vec<Location> {
    vec![Location {
        location_id: WAREHOUSE.into(),
        name: "Distribution centre Utrecht (synthetic)".into(),
        kind: "warehouse".into(),
        country: "NL".into(),
        priority: 1,
        active: true,
    }]
}

/// Account → bearer key. For a demonstration: whoever knows the seed knows them.
pub fn keys(seed: u64) -> BTreeMap<String, String> {
    let key = |account: &str| {
        let mut random = random(seed, "key", &[account]);
        let secret: [u8; 24] = random.random();
        format!("kept_sample_{}", hex(&secret))
    };
    CHANNELS.iter().flat_map(|it| [it.account, it.second]).map(|account| (account.to_owned(), key(account))).collect()
}

/// Every account of every channel, with the hash of its key.
pub fn accounts(seed: u64) -> Vec<Account> {
    let keys = keys(seed);
    let account = |id: &str, channel: &str, shop: &str| Account {
        account_id: id.into(),
        channel: channel.into(),
        shop: shop.into(),
        key_hashes: keys.get(id).map(|key| hex(&Sha256::digest(key.as_bytes()))).into_iter().collect(),
        active: true,
    };
    CHANNELS.iter().flat_map(|it| [it.account, it.second].map(|id| account(id, it.channel, it.shop))).collect()
}

/// The businesses that order by EDI and by phone.
pub fn businesses(seed: u64) -> Vec<Business> {
    (0..BUSINESSES)
        .map(|n| {
            let number = format!("B{n:04}");
            let mut random = random(seed, "business", &[&number]);
            let country = match random.random_range(0..100u32) {
                0..70 => "NL",
                70..88 => "BE",
                _ => "DE",
            };
            Business { number, country }
        })
        .collect()
}

/// Their classes, as reference data.
pub fn customers(seed: u64) -> Vec<Customer> {
    businesses(seed)
        .into_iter()
        .map(|it| Customer {
            customer_ref: it.number,
            class: "business".into(),
            vat_country: Some(it.country.to_owned()),
        })
        .collect()
}

/// How the merchant wants decisions made: the usual rules.
pub fn policies() -> Vec<Policy> {
    vec![Policy::default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::person;

    #[test]
    fn a_key_opens_the_account_it_was_made_for() {
        let keys = keys(5);
        let accounts = accounts(5);
        assert_eq!(accounts.len(), 2 * CHANNELS.len());
        assert_eq!(keys.len(), accounts.len(), "no two accounts have one name");
        for account in accounts {
            let key = &keys[&account.account_id];
            assert_eq!(account.key_hashes, [hex(&Sha256::digest(key.as_bytes()))]);
        }
        assert_ne!(keys, super::keys(6));
    }

    #[test]
    fn a_few_articles_sell_much_and_all_can_be_sold() {
        let mut random = random(1, "test", &[]);
        let mut sold = vec![0u32; 100];
        for _ in 0..50_000 {
            sold[pick(&mut random, 100)] += 1;
        }
        assert!(sold[0] > 5 * sold[50] && sold.iter().filter(|it| **it > 0).count() > 95, "{sold:?}");
    }

    #[test]
    fn every_business_has_an_address_that_can_be_invented() {
        assert!(businesses(1).iter().all(|it| person(1, &["x"], it.country, true, 0).is_some()));
    }
}
