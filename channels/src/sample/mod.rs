//! A sample: orders as the channels of a Dutch merchant would send them, in the rhythm of a week, with everything
//! that goes wrong at rates that are stated. All of it is synthetic and follows from a seed: a second run makes the
//! same, to the byte.

pub mod catalogue;
pub mod channels;
mod orders;
mod rates;
mod rhythm;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use jiff::{civil::Date, tz::TimeZone};
use kept_processors::{
    normalise::{self, Normalised},
    reference::Reference,
};
use kept_schemas::{
    Micros,
    inbound::{Inbound, InboundKind},
    own::OrderForm,
};
use rand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

pub use self::rates::{Rates, Share};
use self::{
    catalogue::{Article, Business, WAREHOUSE},
    orders::{Stall, order},
    rhythm::Rhythm,
};
use crate::{import::derive::StockLine, sender::Item, synthetic::random};

/// The merchant's clock.
pub const ZONE: &str = "Europe/Amsterdam";

/// What a sample is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub seed: u64,
    /// Orders in all.
    pub orders: u64,
    pub days: u32,
    /// The first day.
    #[serde(serialize_with = "as_text")]
    pub start: Date,
    /// How many articles the merchant has.
    pub articles: u32,
    pub rates: Rates,
}

fn as_text<S: serde::Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            orders: 20_000,
            days: 1,
            start: Date::constant(2026, 11, 25),
            articles: 2_000,
            rates: Rates::default(),
        }
    }
}

/// A day (or several) of an invented merchant: reference data, stock, and what is sent in order of time.
pub struct Day {
    settings: Settings,
    rhythm: Rhythm,
    articles: Vec<Article>,
    businesses: Vec<Business>,
}

impl Day {
    /// A day of `orders` orders with the usual rates.
    pub fn new(seed: u64, orders: u64) -> Result<Self, String> {
        Self::of(Settings { seed, orders, ..Settings::default() })
    }

    /// As the settings say.
    pub fn of(settings: Settings) -> Result<Self, String> {
        if settings.articles == 0 || settings.days == 0 || settings.days > 3_660 {
            return Err("a sample needs at least one article and one day, and at most 3,660 days".into());
        }
        let zone = TimeZone::get(ZONE).map_err(|error| error.to_string())?;
        Ok(Self {
            rhythm: Rhythm::new(settings.start, settings.days, &zone)?,
            articles: catalogue::articles(settings.seed, settings.articles),
            businesses: catalogue::businesses(settings.seed),
            settings,
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Everything that is sent, in order of time. Memory: what follows orders of the last days, such as payments.
    pub fn items(&self) -> Items<'_> {
        Items { day: self, next: 0, newest: None, waiting: BinaryHeap::new(), sequence: 0 }
    }

    /// An order as the team behind its channel's adapter sends it: whole, as `orders.received` has it.
    ///
    /// # Errors
    /// An order that cannot be read; none that this sample makes is.
    pub fn whole(&self, item: &Item) -> Result<Item, String> {
        let accounts = catalogue::accounts(self.settings.seed).into_iter();
        let accounts = accounts.map(|it| (it.account_id.clone(), it)).collect();
        let reference = Reference { accounts, ..Reference::default() };
        let raw = Inbound {
            account: item.account.clone(),
            kind: item.kind,
            format: OrderForm::FORMAT.into(),
            shop: item.shop.clone(),
            external_id: item.order_number.clone(),
            received_at: item.at,
            body: item.bytes().to_vec(),
            ..Inbound::default()
        };
        let Normalised::Order(whole) = normalise::decide(&raw, item.event_id(), &reference)? else {
            return Err("only an order can be whole".into());
        };
        let body = serde_json::value::to_raw_value(&whole).map_err(|error| error.to_string())?;
        Ok(Item { body: Some(body), raw: None, ..item.clone() })
    }

    /// Reference data, a line each, as `kept reference apply` reads it.
    pub fn reference(&self) -> Vec<Value> {
        let of = |topic: &str, value: Value| json!({ "topic": topic, "value": value });
        let mut lines: Vec<Value> = Vec::new();
        lines.extend(catalogue::policies().iter().map(|it| of("policies", json!(it))));
        lines.extend(catalogue::locations().iter().map(|it| of("locations", json!(it))));
        lines.extend(catalogue::accounts(self.settings.seed).iter().map(|it| of("accounts", json!(it))));
        lines.extend(catalogue::customers(self.settings.seed).iter().map(|it| of("customers", json!(it))));
        lines.extend(self.articles.iter().map(|it| of("products", json!(it.product))));
        lines
    }

    /// Account → bearer key, for demonstrations.
    pub fn keys(&self) -> BTreeMap<String, String> {
        catalogue::keys(self.settings.seed)
    }

    /// Stock for what this sample will order, with deliberate shortages: goes through all orders once.
    pub fn stock(&self) -> Stock {
        let mut demand: BTreeMap<&str, i64> = self.articles.iter().map(|it| (it.product.sku.as_str(), 0)).collect();
        let mut before = Micros(i64::MAX);
        for (at, items) in self.orders() {
            before = before.min(at);
            let Some(Ok(order)) = items.first().map(|it| OrderForm::parse(it.bytes())) else { continue };
            for line in &order.form.lines {
                if let Some(units) = demand.get_mut(line.sku.as_str()) {
                    *units += line.quantity;
                }
            }
        }
        let mut stock = Stock::default();
        for (sku, units) in demand {
            let mut random = random(self.settings.seed, "stock", &[sku]);
            let short = units > 0 && random.random_range(0..Share::WHOLE) < self.settings.rates.short_articles.0;
            // A shelf holds a little more than will be sold, or is a tenth to a half short.
            let spare = units / 10 + random.random_range(5..=25i64);
            let missing = (units * random.random_range(10..=50i64) / 100).max(1);
            let quantity = if short { units - missing } else { units + spare };
            stock.demand_units += units;
            stock.units += quantity;
            stock.short_articles += u64::from(short);
            if quantity > 0 {
                stock.lines.push(StockLine {
                    sku: sku.to_owned(),
                    location_id: WAREHOUSE.into(),
                    kind: "receipt",
                    quantity,
                    count_id: format!("sample-{}-{}-{sku}", self.settings.seed, self.settings.start),
                    at: before.min(Micros(i64::MAX - Micros::DAY)).plus(-Micros::HOUR).rfc3339(),
                    source: "synthetic",
                });
            }
        }
        stock
    }

    fn orders(&self) -> impl Iterator<Item = (Micros, Vec<Item>)> {
        (0..self.settings.orders).map(|n| self.order(n))
    }

    fn order(&self, n: u64) -> (Micros, Vec<Item>) {
        let mut random = random(self.settings.seed, "order", &[&self.settings.start.to_string(), &n.to_string()]);
        let (at, channel) = self.rhythm.order(n, self.settings.orders, &mut random);
        let stall = Stall { settings: &self.settings, articles: &self.articles, businesses: &self.businesses };
        (at, order(&stall, n, at, channel, &mut random))
    }
}

/// Stock of a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    pub lines: Vec<StockLine>,
    pub units: i64,
    pub demand_units: i64,
    pub short_articles: u64,
}

/// What a sample sends, in order of time.
pub struct Items<'a> {
    day: &'a Day,
    next: u64,
    /// When the order made last was placed; no later one is placed before it.
    newest: Option<Micros>,
    /// What was made already and is not due yet.
    waiting: BinaryHeap<Reverse<Due>>,
    sequence: u64,
}

struct Due {
    at: Micros,
    sequence: u64,
    item: Item,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while self.next < self.day.settings.orders
            && self.waiting.peek().is_none_or(|Reverse(due)| Some(due.at) > self.newest)
        {
            let (at, items) = self.day.order(self.next);
            self.next += 1;
            self.newest = Some(at);
            for item in items {
                self.sequence += 1;
                self.waiting.push(Reverse(Due { at: item.at, sequence: self.sequence, item }));
            }
        }
        self.waiting.pop().map(|Reverse(due)| due.item)
    }
}

/// What a sample holds, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Different orders, those with an unreadable body among them.
    pub orders: u64,
    pub lines: u64,
    pub units: i64,
    pub total_minor: i64,
    pub payments: u64,
    pub cancellations: u64,
    pub by_account: BTreeMap<String, u64>,
    pub by_way: BTreeMap<String, u64>,
    pub troubles: BTreeMap<String, u64>,
}

impl Census {
    /// Counts an item.
    pub fn add(&mut self, item: &Item) {
        let trouble = item.trouble.as_deref().unwrap_or_default();
        for one in trouble.split(", ").filter(|it| !it.is_empty()) {
            *self.troubles.entry(one.to_owned()).or_default() += 1;
        }
        let way = serde_json::to_value(item.way).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default();
        *self.by_way.entry(way).or_default() += 1;
        match item.kind {
            InboundKind::Payment => self.payments += 1,
            InboundKind::Cancellation => self.cancellations += 1,
            _ if trouble == "a second way in" || trouble == "sent twice" => {}
            _ => {
                self.orders += 1;
                *self.by_account.entry(item.account.clone()).or_default() += 1;
                if let Ok(parsed) = OrderForm::parse(item.bytes()) {
                    self.lines += parsed.form.lines.len() as u64;
                    self.units += parsed.form.units();
                    self.total_minor += parsed.form.total_minor().unwrap_or(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
