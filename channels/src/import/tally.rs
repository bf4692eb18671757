//! What an import found, in numbers: for the printed summary, for `--json` and for tests.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{UnitPrice, values::MAX_SCALE};
use serde::{Serialize, Serializer};

use super::build::{Built, Reason};

/// Money before rounding: 10^-9 of a currency unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Exact(pub i128);

impl Exact {
    /// `quantity` × `price`; both have 64 bits, so it fits.
    pub fn of(price: UnitPrice, quantity: i64) -> Self {
        let shift = u32::try_from(MAX_SCALE - price.scale).unwrap_or(0);
        Self(i128::from(price.amount) * i128::from(quantity) * 10i128.pow(shift))
    }

    /// An amount in minor units of a currency with so many decimals.
    pub fn of_minor(minor: i64, decimals: u32) -> Self {
        Self(i128::from(minor) * 10i128.pow(9 - decimals.min(9)))
    }

    /// With at least `decimals` decimals and no needless zero behind them; thousands set apart.
    pub fn show(self, decimals: usize) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = format!("{:0>10}", self.0.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - 9);
        let kept = fraction.trim_end_matches('0').len().max(decimals.min(9));
        if kept == 0 {
            format!("{sign}{}", thousands(whole))
        } else {
            format!("{sign}{}.{}", thousands(whole), &fraction[..kept])
        }
    }
}

impl std::ops::AddAssign for Exact {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl std::ops::Sub for Exact {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.show(2).replace(',', ""))
    }
}

/// `1234567` → `1,234,567`.
pub fn thousands(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Money of one kind: as the file has it and as orders carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sum {
    /// Lines or charges.
    pub count: u64,
    pub units: i64,
    /// Σ quantity × price, not rounded.
    pub exact: Exact,
    /// The same, each line rounded once to minor units, half away from zero.
    pub rounded: Exact,
}

impl Sum {
    pub fn add(&mut self, other: Sum) {
        self.count += other.count;
        self.units += other.units;
        self.exact += other.exact;
        self.rounded += other.rounded;
    }
}

/// What is sent in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CurrencyTally {
    pub orders: u64,
    pub goods: Sum,
    pub charges: Sum,
}

impl CurrencyTally {
    pub fn total(&self) -> Sum {
        let mut total = self.goods;
        total.add(self.charges);
        total
    }
}

/// What is not sent, by the mapping's own rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SkipTally {
    pub why: String,
    pub orders: u64,
    pub rows: u64,
    pub units: i64,
    /// Σ quantity × price of the rows that could be read, currencies not told apart.
    pub exact: Exact,
    /// Rows whose quantity or price could not be read; they are not in the sums.
    pub unreadable_rows: u64,
    pub first_row: u64,
}

/// Everything an import found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Rows read, without the header.
    pub rows: u64,
    /// Orders sent, or that would be sent.
    pub orders: u64,
    /// Of them, accepted in this run.
    pub accepted: u64,
    /// Of them, not sent again because the sender's log says they were accepted before.
    pub already_accepted: u64,
    /// Rows that went into orders.
    pub order_rows: u64,
    pub currencies: BTreeMap<String, CurrencyTally>,
    /// By kind and code of charge.
    pub charges: BTreeMap<String, Sum>,
    /// By the name the mapping gives them.
    pub skipped: BTreeMap<String, SkipTally>,
    pub refused_orders: u64,
    pub refused_rows: u64,
    /// By the field at fault; an order with two faults counts twice.
    pub refused_by_field: BTreeMap<String, u64>,
    pub zero_total_orders: u64,
    pub orders_without_goods: u64,
    pub zero_price_lines: u64,
    pub lines_without_description: u64,
    pub orders_without_customer: u64,
    pub orders_without_country: u64,
    /// Goods whose code was written in another letter case than it is sent in.
    pub folded_sku_lines: u64,
    /// Orders whose rows stand in several places of the file, put together.
    pub scattered_orders: u64,
    /// Orders whose rows say different times; the first counts.
    pub orders_of_several_times: u64,
    /// Lines that became charges by a rule: a quantity of zero or below, or a price below zero.
    pub odd_lines_as_charges: u64,
    pub payment: BTreeMap<String, u64>,
    pub synthetic_addresses: u64,
    pub synthetic_defects: u64,
    pub synthetic_payments: u64,
    /// RFC 3339.
    pub first_placed_at: Option<String>,
    pub last_placed_at: Option<String>,
}

impl Tally {
    /// Counts an order that is sent.
    pub fn order(&mut self, built: &Built, rows: u64) {
        let form = &built.form;
        self.orders += 1;
        self.order_rows += rows;
        let currency = self.currencies.entry(form.currency.clone()).or_default();
        currency.orders += 1;
        currency.goods.add(built.goods);
        for (code, sum) in &built.charges {
            currency.charges.add(*sum);
            self.charges.entry(code.clone()).or_default().add(*sum);
        }
        let country = form.ship_to.as_ref().map_or("", |it| it.country.as_str());
        let count = |counter: &mut u64, it: bool| *counter += u64::from(it);
        count(&mut self.zero_total_orders, built.total_minor == 0);
        count(&mut self.orders_without_goods, form.lines.is_empty());
        count(&mut self.orders_without_customer, form.customer_number.is_none());
        count(&mut self.orders_without_country, country.is_empty());
        count(&mut self.orders_of_several_times, built.several_times);
        count(&mut self.synthetic_addresses, built.synthetic_address);
        count(&mut self.synthetic_defects, built.synthetic_defect);
        count(&mut self.synthetic_payments, built.synthetic_payment);
        self.zero_price_lines += built.zero_price_lines;
        self.folded_sku_lines += built.folded_skus;
        self.odd_lines_as_charges += built.odd_as_charges;
        let bare = form.lines.iter().filter(|line| line.description.is_none()).count();
        self.lines_without_description += bare as u64;
        *self.payment.entry(form.payment.method.as_str().to_owned()).or_default() += 1;
        let at = Some(form.placed_at.rfc3339());
        if self.first_placed_at.is_none() || at < self.first_placed_at {
            self.first_placed_at.clone_from(&at);
        }
        if at > self.last_placed_at {
            self.last_placed_at = at;
        }
    }

    /// Counts what the mapping leaves out.
    pub fn skip(&mut self, name: &str, one: &SkipTally) {
        let all = self.skipped.entry(name.to_owned()).or_default();
        if all.orders == 0 {
            all.why.clone_from(&one.why);
            all.first_row = one.first_row;
        }
        all.orders += one.orders;
        all.rows += one.rows;
        all.units += one.units;
        all.exact += one.exact;
        all.unreadable_rows += one.unreadable_rows;
    }

    /// Counts an order that is refused.
    pub fn refuse(&mut self, rows: u64, reasons: &[Reason]) {
        self.refused_orders += 1;
        self.refused_rows += rows;
        let fields: BTreeSet<&str> = reasons.iter().map(|reason| reason.field.as_str()).collect();
        for field in fields {
            *self.refused_by_field.entry(field.to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_money_shows_what_it_is() {
        let price = |text| UnitPrice::parse(text).unwrap();
        let table = [
            ("2.55", 6, "15.30"),
            ("0.001", 1, "0.001"),
            ("-11062.06", 1, "-11,062.06"),
            ("1", 1_000_000, "1,000,000.00"),
        ];
        for (text, quantity, shown) in table {
            assert_eq!(Exact::of(price(text), quantity).show(2), shown);
        }
        assert_eq!(Exact::of_minor(123, 2).show(2), "1.23");
        assert_eq!(Exact::of_minor(5, 0).show(0), "5");
    }
}
