//! One order from its rows: a pure function of the rows and the mapping. Every reason against it is given at once.

use std::collections::BTreeMap;

use kept_schemas::{
    Micros, UnitPrice,
    order::{Address, Attribute, ChargeKind, Delivery, MAX_LINES, PaymentMethod},
    own::{ChargeForm, LineForm, OrderForm, PaymentTermsForm},
    values::currency_decimals,
};
use serde::Serialize;

use super::{
    mapping::{Bound, Oddity, Skip},
    rows::{Group, MAX_ROWS, Row},
    source::{Differs, Source, shown},
    tally::{Exact, SkipTally, Sum},
};
use crate::synthetic::person;

/// The most reasons that are told of one order.
const MAX_REASONS: usize = 20;

/// What became of an order's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Send(Box<Built>),
    /// Left out by the mapping's own rule.
    Skip(String, SkipTally),
    Refuse(Vec<Reason>),
}

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// As a spreadsheet counts.
    pub row: u64,
    /// The column or field at fault.
    pub field: String,
    /// In plain words, without personal data.
    pub text: String,
}

/// An order ready to be sent, and what is counted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub form: OrderForm,
    /// The form as it is sent.
    pub body: Vec<u8>,
    pub goods: Sum,
    /// (kind and code, sum).
    pub charges: Vec<(String, Sum)>,
    pub total_minor: i64,
    pub several_times: bool,
    pub zero_price_lines: u64,
    pub folded_skus: u64,
    pub odd_as_charges: u64,
    pub synthetic_address: bool,
    pub synthetic_defect: bool,
    pub synthetic_payment: bool,
}

/// Builds an order of its rows, or says why not.
pub fn build(group: &Group, bound: &Bound) -> Verdict {
    if let Some(skip) = bound.skips.iter().find(|skip| !skip.spec.row_only && matches(skip, group, bound)) {
        return Verdict::Skip(skip.spec.name.clone(), skip_tally(skip, &group.rows, group.row_count, bound));
    }
    let mut reasons = Reasons::default();
    let first_row = group.first_row;
    if let Some(fault) = &group.fault {
        reasons.add(first_row, "rows", fault.clone());
    }
    if group.row_count > MAX_ROWS as u64 {
        reasons.add(first_row, "rows", format!("the order has {} rows, more than {MAX_ROWS}", group.row_count));
    }
    // A line that is no object has no number either; that is not what is wrong with it.
    let empty = |row: &Row| row.fault.is_some() && row.fields.iter().all(str::is_empty);
    if group.number.is_empty() && !group.rows.iter().any(empty) {
        reasons.add(first_row, &bound.number.name, "the row has no order number".into());
    }
    for row in &group.rows {
        if let Some(fault) = &row.fault {
            reasons.add(row.no, "row", format!("the row {fault}"));
        }
    }
    // A row that cannot be read says nothing true about its columns.
    if !reasons.list.is_empty() {
        return Verdict::Refuse(reasons.list);
    }
    let dropped = |row: &&Row| {
        !bound.skips.iter().any(|skip| {
            skip.spec.row_only && skip.column.is_some_and(|column| is_meant(skip, row.fields.get(column).unwrap_or("")))
        })
    };
    let rows: Vec<&Row> = group.rows.iter().filter(dropped).collect();
    order(group, &rows, bound, reasons)
}

/// Reads an order of our own form as it stands; it is sent as it is.
pub fn read(body: &[u8], row: u64) -> Result<Built, Vec<Reason>> {
    let one = |field: &str, text: String| vec![Reason { row, field: field.to_owned(), text }];
    let form = OrderForm::parse(body).map_err(|problems| {
        let reason = |it: &kept_schemas::own::FieldProblem| Reason {
            row,
            field: if it.field.is_empty() { "body".into() } else { it.field.trim_start_matches('/').to_owned() },
            text: it.to_string(),
        };
        problems.iter().map(reason).collect::<Vec<_>>()
    })?;
    let form = form.form;
    let Some(total_minor) = form.total_minor() else {
        return Err(one("total", "the order's total does not fit".into()));
    };
    let decimals = form.decimals();
    let sum = |price: UnitPrice, quantity: i64| Sum {
        count: 1,
        units: quantity,
        exact: Exact::of(price, quantity),
        rounded: Exact::of_minor(price.total_minor(quantity, decimals).unwrap_or(0), decimals),
    };
    let mut goods = Sum::default();
    form.lines.iter().for_each(|line| goods.add(sum(line.unit_price, line.quantity)));
    let charges = form.charges.iter().map(|it| (format!("{} {}", it.kind, it.code), sum(it.unit_price, it.quantity)));
    Ok(Built {
        body: body.to_vec(),
        goods,
        charges: charges.collect(),
        total_minor,
        several_times: false,
        zero_price_lines: form.lines.iter().filter(|line| line.unit_price.amount == 0).count() as u64,
        folded_skus: 0,
        odd_as_charges: 0,
        synthetic_address: false,
        synthetic_defect: false,
        synthetic_payment: false,
        form,
    })
}

fn order(group: &Group, rows: &[&Row], bound: &Bound, mut reasons: Reasons) -> Verdict {
    let mut several_times = false;
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, source) in &bound.order {
        let differs = if name == "placed_at" { Differs::First } else { source.differs };
        let (value, same) = once(rows, source, differs, bound, &mut reasons);
        several_times |= name == "placed_at" && !same;
        if let Some(value) = value {
            fields.insert(name, value);
        }
    }
    for (name, what) in [("placed_at", "time"), ("currency", "currency")] {
        if !fields.contains_key(name) && reasons.list.is_empty() {
            reasons.add(group.first_row, name, format!("the order has no {what}"));
        }
    }
    let currency = fields.remove("currency").unwrap_or_default();
    let decimals = currency_decimals(&currency);
    if decimals.is_none() && !currency.is_empty() {
        reasons.add(
            group.first_row,
            "currency",
            format!("the currency ({}) is not one we know", shown_code(&currency)),
        );
    }
    let decimals = decimals.unwrap_or(2);

    let mut parts = Parts::default();
    for row in rows {
        line(row, bound, decimals, &mut parts, &mut reasons);
    }
    for (kind, code, source) in &bound.charge_columns {
        if let (Some(amount), _) = once(rows, source, source.differs, bound, &mut reasons)
            && let Some(price) = UnitPrice::parse(&amount)
            && price.amount != 0
        {
            parts.charge(*kind, code, None, 1, price, decimals, group.first_row, &mut reasons);
        }
    }
    if parts.lines.len() > MAX_LINES {
        let text = format!("the order has {} lines, more than {MAX_LINES}", parts.lines.len());
        reasons.add(group.first_row, "rows", text);
    }
    let mut attributes = Vec::new();
    for (name, source) in &bound.attributes {
        if let (Some(value), _) = once(rows, source, source.differs, bound, &mut reasons) {
            attributes.push(Attribute { name: name.clone(), value });
        }
    }
    let mut method = fields.remove("payment_method").unwrap_or_default();
    if !method.is_empty() && PaymentMethod::of(&method) == PaymentMethod::Unknown {
        let words: Vec<&str> = PaymentMethod::ALL.iter().map(|it| it.as_str()).collect();
        let text = format!("payment_method: is none of {} (order.payment_method.words translates)", words.join(", "));
        reasons.add(group.first_row, "payment_method", text);
    }
    let total_minor = parts.total_minor();
    if total_minor.is_none() {
        reasons.add(group.first_row, "total", "the order's total does not fit".into());
    }
    let (Some(total_minor), true) = (total_minor, reasons.list.is_empty()) else {
        return Verdict::Refuse(reasons.list);
    };

    // Every value was read once already; what could not be is a reason above.
    let mut take = |name: &str| fields.remove(name);
    let at = |text: Option<String>| text.as_deref().and_then(Micros::parse_rfc3339);
    let amount = |text: Option<String>| text.as_deref().and_then(UnitPrice::parse);
    let mut form = OrderForm {
        order_number: group.number.clone(),
        placed_at: at(take("placed_at")).unwrap_or_default(),
        currency,
        total: amount(take("total")),
        customer_number: take("customer_number"),
        language: take("language"),
        test: take("test").is_some_and(|it| it == "true"),
        email: take("email"),
        phone: take("phone"),
        delivery: Delivery {
            service: take("service"),
            requested_at: at(take("requested_at")),
            promised_at: at(take("promised_at")),
            ship_by: at(take("ship_by")),
            pickup_location: take("pickup_location"),
        },
        ..OrderForm::default()
    };
    let (authorised, captured) = (amount(take("payment_authorised")), amount(take("payment_captured")));
    let reference = take("payment_reference");
    let mut ship_to = address("ship_to", &mut take);
    form.bill_to = Some(address("bill_to", &mut take)).filter(|it| *it != Address::default());

    let mut labels = Vec::new();
    let mut defect = false;
    let synthetic = &bound.mapping.synthetic;
    let country_only = Address { country: ship_to.country.clone(), ..Address::default() };
    if synthetic.addresses && ship_to == country_only {
        let who = form.customer_number.as_deref().map_or(["order", &group.number], |number| ["customer", number]);
        let who = [bound.mapping.shop.as_str(), who[0], who[1]];
        let person = person(synthetic.seed, &who, &ship_to.country, false, synthetic.defects_per_mille);
        if let Some(person) = person {
            labels.push("address");
            defect = person.defect.is_some();
            form.email = form.email.take().or_else(|| Some(person.email.clone()));
            ship_to = person.address();
        }
    }
    let synthetic_address = !labels.is_empty();
    let mut synthetic_payment = false;
    if method.is_empty()
        && let Some((units, otherwise)) = bound.payment
    {
        method = if parts.goods.units >= units { PaymentMethod::OnAccount } else { otherwise }.as_str().to_owned();
        synthetic_payment = true;
        labels.push("payment");
    }
    if !labels.is_empty() {
        attributes.push(Attribute { name: "synthetic".into(), value: labels.join(", ") });
    }
    let terms = PaymentTermsForm::default();
    form.payment = PaymentTermsForm {
        method: if method.is_empty() { terms.method } else { PaymentMethod::of(&method) },
        authorised: authorised.unwrap_or(terms.authorised),
        captured: captured.unwrap_or(terms.captured),
        reference,
    };
    form.ship_to = Some(ship_to).filter(|it| *it != Address::default());
    form.attributes = attributes;
    form.lines = parts.lines;
    form.charges = parts.charges;
    let body = form.to_json();
    // What the pipeline would not read is refused here, where its rows are known.
    if let Err(problems) = OrderForm::parse(&body) {
        for problem in problems {
            reasons.add(group.first_row, problem.field.trim_start_matches('/'), problem.to_string());
        }
        return Verdict::Refuse(reasons.list);
    }
    Verdict::Send(Box::new(Built {
        form,
        body,
        goods: parts.goods,
        charges: parts.charge_sums,
        total_minor,
        several_times,
        zero_price_lines: parts.zero_prices,
        folded_skus: parts.folded,
        odd_as_charges: parts.odd,
        synthetic_address,
        synthetic_defect: defect,
        synthetic_payment,
    }))
}

fn address(part: &str, take: &mut impl FnMut(&str) -> Option<String>) -> Address {
    let mut take = |name: &str| take(&format!("{part}.{name}"));
    Address {
        name: take("name").unwrap_or_default(),
        company: take("company"),
        street: take("street").unwrap_or_default(),
        house_number: take("house_number"),
        house_number_addition: take("house_number_addition"),
        extra: take("extra"),
        postcode: take("postcode").unwrap_or_default(),
        city: take("city").unwrap_or_default(),
        region: take("region"),
        country: take("country").unwrap_or_default(),
    }
}

/// Reads a field that an order has once from its rows: the first row that has it counts. `false`: rows differ.
fn once(
    rows: &[&Row],
    source: &Source,
    differs: Differs,
    bound: &Bound,
    reasons: &mut Reasons,
) -> (Option<String>, bool) {
    let mut found: Option<String> = None;
    let mut same = true;
    for row in rows {
        match source.value(&row.fields, &bound.notation) {
            Err(text) => reasons.add(row.no, &source.name, text),
            Ok(None) => {}
            Ok(Some(value)) => match &found {
                None => found = Some(value),
                Some(first) if *first != value => {
                    if differs == Differs::Refuse && same {
                        let text = format!("{}: rows of one order say different things", source.name);
                        reasons.add(row.no, &source.name, text);
                    }
                    same = false;
                }
                Some(_) => {}
            },
        }
        if source.column.is_none() {
            break;
        }
    }
    (found, same)
}

/// Lines and charges as they are gathered.
#[derive(Default)]
struct Parts {
    lines: Vec<LineForm>,
    charges: Vec<ChargeForm>,
    goods: Sum,
    charge_sums: Vec<(String, Sum)>,
    minor: Vec<i64>,
    zero_prices: u64,
    folded: u64,
    odd: u64,
}

impl Parts {
    fn total_minor(&self) -> Option<i64> {
        self.minor.iter().try_fold(0i64, |sum, minor| sum.checked_add(*minor))
    }

    #[allow(clippy::too_many_arguments)]
    fn charge(
        &mut self,
        kind: ChargeKind,
        code: &str,
        description: Option<String>,
        quantity: i64,
        price: UnitPrice,
        decimals: u32,
        row: u64,
        reasons: &mut Reasons,
    ) {
        let Some(sum) = self.sum(quantity, price, decimals, row, reasons) else { return };
        self.charges.push(ChargeForm { kind, code: code.to_owned(), quantity, unit_price: price, description });
        self.charge_sums.push((format!("{kind} {code}"), sum));
    }

    fn sum(&mut self, quantity: i64, price: UnitPrice, decimals: u32, row: u64, reasons: &mut Reasons) -> Option<Sum> {
        let Some(minor) = price.total_minor(quantity, decimals) else {
            reasons.add(row, "quantity", "quantity times price does not fit".into());
            return None;
        };
        self.minor.push(minor);
        Some(Sum {
            count: 1,
            units: quantity,
            exact: Exact::of(price, quantity),
            rounded: Exact::of_minor(minor, decimals),
        })
    }
}

fn line(row: &Row, bound: &Bound, decimals: u32, parts: &mut Parts, reasons: &mut Reasons) {
    let before = reasons.count;
    let read = |source: &Source, reasons: &mut Reasons| match source.value(&row.fields, &bound.notation) {
        Ok(value) => value,
        Err(text) => {
            reasons.add(row.no, &source.name, text);
            None
        }
    };
    let sku = read(&bound.sku, reasons);
    let quantity = read(&bound.quantity, reasons);
    let price = read(&bound.unit_price, reasons);
    let mut extra: BTreeMap<&str, String> = BTreeMap::new();
    for (name, source) in &bound.line {
        if let Some(value) = read(source, reasons) {
            extra.insert(name, value);
        }
    }
    let mut attributes = Vec::new();
    for (name, source) in &bound.line_attributes {
        if let Some(value) = read(source, reasons) {
            attributes.push(Attribute { name: name.clone(), value });
        }
    }
    for (value, source) in [(&sku, &bound.sku), (&quantity, &bound.quantity), (&price, &bound.unit_price)] {
        if value.is_none() && reasons.count == before {
            reasons.add(row.no, &source.name, format!("{}: is empty", source.name));
        }
    }
    let (Some(sku), Some(quantity), Some(price)) = (sku, quantity, price) else { return };
    let (Ok(quantity), Some(price)) = (quantity.parse::<i64>(), UnitPrice::parse(&price)) else { return };
    let description = extra.remove("description");
    if let Some(kind) = bound.charge_kind(&sku) {
        parts.charge(kind, &sku, description, quantity, price, decimals, row.no, reasons);
        return;
    }
    let odd = [
        (
            quantity <= 0,
            bound.mapping.rules.negative_quantity,
            &bound.quantity,
            "a quantity of zero or below",
            "negative_quantity",
        ),
        (
            price.amount < 0,
            bound.mapping.rules.negative_price,
            &bound.unit_price,
            "a price below zero",
            "negative_price",
        ),
    ];
    for (is_odd, rule, source, what, key) in odd {
        if !is_odd {
            continue;
        }
        match rule {
            Oddity::Refuse => {
                let text = format!("{}: {what} in an order that is sent (rules.{key} may say \"charge\")", source.name);
                reasons.add(row.no, &source.name, text);
            }
            Oddity::Charge => {
                parts.odd += 1;
                parts.charge(ChargeKind::Manual, &sku, description, quantity, price, decimals, row.no, reasons);
            }
        }
        return;
    }
    let Some(sum) = parts.sum(quantity, price, decimals, row.no, reasons) else { return };
    parts.goods.add(sum);
    parts.zero_prices += u64::from(price.amount == 0);
    if bound.sku.case.is_some()
        && let Some(column) = bound.sku.column
    {
        parts.folded += u64::from(row.fields.get(column).unwrap_or("").trim() != sku);
    }
    let mut at = |name: &str| extra.remove(name).as_deref().and_then(Micros::parse_rfc3339);
    let (promised_at, ship_by) = (at("promised_at"), at("ship_by"));
    parts.lines.push(LineForm {
        sku,
        quantity,
        unit_price: price,
        description,
        line_id: extra.remove("line_id"),
        promised_at,
        ship_by,
        attributes,
    });
}

/// Reasons, at most [`MAX_REASONS`] of them.
#[derive(Default)]
struct Reasons {
    list: Vec<Reason>,
    count: u64,
}

impl Reasons {
    fn add(&mut self, row: u64, field: &str, text: String) {
        self.count += 1;
        if self.list.len() < MAX_REASONS {
            self.list.push(Reason { row, field: field.to_owned(), text });
        }
    }
}

fn shown_code(code: &str) -> String {
    if code.len() <= 5 && code.bytes().all(|b| b.is_ascii_alphanumeric()) { format!("\"{code}\"") } else { shown(code) }
}

fn is_meant(skip: &Skip, value: &str) -> bool {
    let value = value.trim();
    match (&skip.spec.is, &skip.spec.starts_with) {
        (Some(words), _) => words.iter().any(|word| word == value),
        (None, Some(start)) => value.starts_with(start.as_str()),
        (None, None) => false,
    }
}

fn matches(skip: &Skip, group: &Group, bound: &Bound) -> bool {
    if let Some(start) = &skip.spec.number_starts_with {
        return group.number.starts_with(start.as_str());
    }
    if let Some(column) = skip.column {
        return group.rows.iter().any(|row| is_meant(skip, row.fields.get(column).unwrap_or("")));
    }
    // Rows that cannot be read may well be positive: such an order is refused, not left out.
    skip.spec.no_positive_quantity
        && !group.number.is_empty()
        && group.rows.iter().all(|row| row.fault.is_none() && units(row, bound).is_some_and(|units| units <= 0))
}

fn units(row: &Row, bound: &Bound) -> Option<i64> {
    bound.quantity.value(&row.fields, &bound.notation).ok()??.parse().ok()
}

fn skip_tally(skip: &Skip, rows: &[Row], row_count: u64, bound: &Bound) -> SkipTally {
    let mut tally = SkipTally {
        why: skip.spec.why.clone(),
        orders: 1,
        rows: row_count,
        first_row: rows.first().map_or(0, |row| row.no),
        ..SkipTally::default()
    };
    for row in rows {
        let price = bound.unit_price.value(&row.fields, &bound.notation).ok().flatten();
        match (units(row, bound), price.as_deref().and_then(UnitPrice::parse)) {
            (Some(units), Some(price)) => {
                tally.units += units;
                tally.exact += Exact::of(price, units);
            }
            _ => tally.unreadable_rows += 1,
        }
    }
    tally
}
