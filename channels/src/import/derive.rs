//! Reference data and stock made from the orders' own file: products from what was sold, stock from demand with
//! deliberate shortages, customers, the location and the account. Weights, stock and location are synthetic and say so.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    path::Path,
};

use kept_schemas::{
    Micros,
    own::OrderForm,
    reference::{Account, Customer, Location, Product},
};
use rand::Rng;
use serde::Serialize;
use serde_json::json;

use super::mapping::{Derive, Mapping};
use crate::synthetic::random;

/// Texts kept for each SKU; the commonest of them wins.
const MAX_TEXTS: usize = 8;

/// What can be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Products,
    Stock,
    Customers,
    Locations,
    Accounts,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[Kind::Products, Kind::Stock, Kind::Customers, Kind::Locations, Kind::Accounts];

    /// The word on the command line and the file's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Products => "products",
            Self::Stock => "stock",
            Self::Customers => "customers",
            Self::Locations => "locations",
            Self::Accounts => "accounts",
        }
    }

    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == word)
    }
}

/// What is remembered of a file while it is read: memory for each SKU and customer, not for each order.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    skus: BTreeMap<String, Sku>,
    customers: BTreeMap<String, Buyer>,
    first_placed: Option<Micros>,
}

#[derive(Debug, Clone, Default)]
struct Sku {
    units: i64,
    /// Texts in order of first appearance, and how often each was seen.
    texts: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Buyer {
    largest_order: i64,
    country: String,
}

impl Demand {
    /// Takes in an order that is sent.
    pub fn order(&mut self, form: &OrderForm) {
        self.first_placed = Some(self.first_placed.map_or(form.placed_at, |at| at.min(form.placed_at)));
        for line in &form.lines {
            self.line(&line.sku, line.quantity, line.description.as_deref());
        }
        if let Some(number) = &form.customer_number {
            let it = self.customers.entry(number.clone()).or_default();
            it.largest_order = it.largest_order.max(form.units());
            if it.country.is_empty() {
                it.country = form.ship_to.as_ref().map(|it| it.country.clone()).unwrap_or_default();
            }
        }
    }

    fn line(&mut self, sku: &str, units: i64, text: Option<&str>) {
        let it = match self.skus.get_mut(sku) {
            Some(it) => it,
            None => self.skus.entry(sku.to_owned()).or_default(),
        };
        it.units += units.max(0);
        if let Some(text) = text {
            match it.texts.iter().position(|(known, _)| known == text) {
                Some(at) => it.texts[at].1 += 1,
                None if it.texts.len() < MAX_TEXTS => it.texts.push((text.to_owned(), 1)),
                None => {}
            }
        }
    }
}

/// A line of a stock file: what `kept stock receive` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StockLine {
    pub sku: String,
    pub location_id: String,
    pub kind: &'static str,
    pub quantity: i64,
    pub count_id: String,
    pub at: String,
    pub source: &'static str,
}

/// Everything derived from one file.
#[derive(Debug, Clone, Default)]
pub struct Derived {
    pub products: Vec<Product>,
    pub stock: Vec<StockLine>,
    pub customers: Vec<Customer>,
    pub locations: Vec<Location>,
    pub accounts: Vec<Account>,
    /// SKUs that get less than was sold.
    pub short_skus: usize,
    /// Units sold and units received.
    pub demand_units: i64,
    pub stock_units: i64,
}

/// Makes reference data and stock of what was seen; a pure function of the file, the mapping and its seed.
pub fn derive(demand: &Demand, mapping: &Mapping) -> Derived {
    let Derive { location, location_name, location_country, channel, .. } = mapping.derive.clone();
    let rules = &mapping.derive;
    let seed = mapping.synthetic.seed;
    let before = demand.first_placed.unwrap_or_default().plus(-Micros::DAY);
    let mut derived = Derived {
        locations: vec![Location {
            location_id: location.clone(),
            name: location_name,
            kind: "warehouse".into(),
            country: location_country,
            priority: 1,
            active: true,
        }],
        accounts: vec![Account {
            account_id: mapping.account.clone(),
            channel,
            shop: mapping.shop.clone(),
            key_hashes: Vec::new(),
            active: true,
        }],
        ..Derived::default()
    };
    for (sku, it) in &demand.skus {
        let mut random = random(seed, "product", &[&mapping.shop, sku]);
        // Small things are common, heavy ones rare: 20 g to 5 kg.
        let weight = 20 << random.random_range(0..8u32);
        let weight = weight + random.random_range(0..weight);
        let mut text = "";
        let mut times = 0;
        for (candidate, seen) in &it.texts {
            if *seen > times {
                (text, times) = (candidate, *seen);
            }
        }
        derived.products.push(Product {
            sku: sku.clone(),
            description: text.to_owned(),
            weight_grams: Some(weight),
            vat_class: "standard".into(),
            max_quantity: None,
            active: true,
        });
        let short = random.random_range(0..1_000) < rules.short_skus_per_mille;
        let missing = if short { (it.units * i64::from(rules.short_by_percent) / 100).max(1) } else { 0 };
        let quantity = it.units - missing;
        derived.short_skus += usize::from(short);
        derived.demand_units += it.units;
        derived.stock_units += quantity;
        if quantity > 0 {
            derived.stock.push(StockLine {
                sku: sku.clone(),
                location_id: location.clone(),
                kind: "receipt",
                quantity,
                count_id: format!("synthetic-{}-{sku}", mapping.account),
                at: before.rfc3339(),
                source: "synthetic",
            });
        }
    }
    for (number, it) in &demand.customers {
        let business = it.largest_order >= rules.business_from_units;
        derived.customers.push(Customer {
            customer_ref: number.clone(),
            class: if business { "business" } else { "consumer" }.into(),
            vat_country: (!it.country.is_empty()).then(|| it.country.clone()),
        });
    }
    derived
}

impl Derived {
    /// Writes `<dir>/<kind>.jsonl` for each kind asked for: reference data in the form `kept reference apply` reads,
    /// stock in the form `kept stock receive` reads. Gives the files' names and how many lines each has.
    pub fn write(&self, dir: &Path, kinds: &[Kind]) -> io::Result<Vec<(String, usize)>> {
        std::fs::create_dir_all(dir)?;
        let mut written = Vec::new();
        for kind in kinds {
            let topic = kind.as_str();
            let of = |value: serde_json::Value| json!({ "topic": topic, "value": value });
            let lines: Vec<serde_json::Value> = match kind {
                Kind::Products => self.products.iter().map(|it| of(json!(it))).collect(),
                Kind::Customers => self.customers.iter().map(|it| of(json!(it))).collect(),
                Kind::Locations => self.locations.iter().map(|it| of(json!(it))).collect(),
                Kind::Accounts => self.accounts.iter().map(|it| of(json!(it))).collect(),
                Kind::Stock => self.stock.iter().map(|it| json!(it)).collect(),
            };
            let path = dir.join(format!("{topic}.jsonl"));
            write_lines(&path, &lines)?;
            written.push((path.display().to_string(), lines.len()));
        }
        Ok(written)
    }
}

/// Writes lines of JSON beside the name and puts them in place when they are whole.
pub fn write_lines(path: &Path, lines: &[impl Serialize]) -> io::Result<()> {
    let draft = path.with_extension("jsonl.part");
    let mut out = BufWriter::new(std::fs::File::create(&draft)?);
    for line in lines {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use kept_schemas::own::LineForm;

    use super::*;

    fn mapping() -> Mapping {
        Mapping::parse("account = \"a\"\nshop = \"s\"\n[derive]\nshort_skus_per_mille = 100\nshort_by_percent = 10\n")
            .unwrap()
    }

    fn order(customer: Option<&str>, lines: &[(&str, i64, Option<&str>)]) -> OrderForm {
        let line = |(sku, quantity, text): &(&str, i64, Option<&str>)| LineForm {
            sku: (*sku).into(),
            quantity: *quantity,
            description: text.map(str::to_owned),
            ..LineForm::default()
        };
        OrderForm {
            placed_at: Micros(Micros::DAY),
            customer_number: customer.map(str::to_owned),
            lines: lines.iter().map(line).collect(),
            ..OrderForm::default()
        }
    }

    #[test]
    fn the_commonest_text_names_a_product_and_stock_follows_demand() {
        let mut demand = Demand::default();
        demand.order(&order(Some("17850"), &[("A", 600, Some("lantern?")), ("A", 3, Some("LANTERN"))]));
        demand.order(&order(None, &[("A", 4, Some("LANTERN")), ("B", 5, None)]));
        let derived = derive(&demand, &mapping());
        assert_eq!(derived.products[0].description, "LANTERN");
        assert_eq!(derived.customers[0].class, "business");
        assert_eq!(derived.stock[0].at, "1970-01-01T00:00:00Z");
        assert_eq!(derived.demand_units, 612);
        assert!(derived.products.iter().all(|it| (20..5_200).contains(&it.weight_grams.unwrap())));
    }

    #[test]
    fn shortages_are_as_many_as_the_mapping_says_and_the_same_every_time() {
        let mut demand = Demand::default();
        for n in 0..2_000 {
            demand.order(&order(None, &[(&format!("S{n}"), 100, None)]));
        }
        let derived = derive(&demand, &mapping());
        assert!((150..250).contains(&derived.short_skus), "{}", derived.short_skus);
        assert_eq!(derived.stock_units, 200_000 - 10 * i64::try_from(derived.short_skus).unwrap());
        assert_eq!(super::derive(&demand, &mapping()).stock, derived.stock);
    }
}
