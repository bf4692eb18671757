//! Kept's own JSON forms, as they lie in `channels.inbound`: `kept.order.v1`, `kept.cancellation.v1` and
//! `kept.payment.v1`. `docs/order-form.md` is the page for those who send them.
//!
//! Where the line runs: what cannot be written down in the order model is *refused* with every reason (HTTP says 400,
//! normalise makes a dead letter): not JSON, no order number, a wrong type, a word outside a closed list, a number
//! that does not fit. What can be written down is *accepted*, however wrong it is (no address, quantity zero, a
//! currency nobody knows): validate says so and a person sees a hold. A field that is not part of the form is neither:
//! it is kept as `unmapped`.

mod json;
mod payment;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

pub use json::MAX_FIELDS;
pub use payment::PaymentForm;

use crate::{
    inbound::Unmapped,
    order::{Address, Attribute, ChargeKind, Delivery, MAX_LINES, PaymentMethod},
    values::{Micros, UnitPrice, currency_decimals},
};
use json::Walk;

/// The largest body, in bytes. Below the limit of a record (900 kB), so that what the steps add to it fits as well.
pub const MAX_BODY_BYTES: usize = 800_000;
/// The most charges an order may have.
pub const MAX_CHARGES: usize = 200;
/// The longest order number, SKU, line id, code, reference or customer number, in characters.
pub const MAX_CODE: usize = 100;
/// The longest part of an address, and the longest reason, in characters.
pub const MAX_TEXT: usize = 200;
/// The longest description or value of an attribute, in characters.
pub const MAX_LONG_TEXT: usize = 2_000;
/// The longest currency code, in characters; those there are have three.
pub const MAX_CURRENCY: usize = 10;
/// The longest language tag, in characters (BCP 47).
pub const MAX_LANGUAGE: usize = 35;
/// The longest address that mail can be sent to, in characters (RFC 5321).
pub const MAX_EMAIL: usize = 254;
/// The longest telephone number, in characters.
pub const MAX_PHONE: usize = 50;
/// The largest quantity of a line, up or down.
pub const MAX_QUANTITY: i64 = 1_000_000_000;
/// Amounts, and quantity × unit price, stay below 10 to this power: then a full order of them adds up in any currency.
pub const MAX_AMOUNT_DIGITS: u32 = 12;

/// A field that stands against a body, and why. Holds nothing of the body's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) into the body; empty for the body itself.
    pub field: String,
    /// In plain words, to be read after the field's name: "is not a whole number".
    pub reason: String,
}

impl std::fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = if self.field.is_empty() { "the body" } else { &self.field };
        write!(f, "{field} {}", self.reason)
    }
}

/// A body that was read, and what of it is not part of the form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    pub form: T,
    pub unmapped: Vec<Unmapped>,
}

/// The most fields that are told of a body when they were not understood.
pub const MAX_NAMED: usize = 20;

/// The names of fields that were not understood, to be told: JSON pointers, cut, without what stands in the fields, for
/// that may be about a person. Those past the first [`MAX_NAMED`] are one last "and more".
pub fn not_understood(unmapped: &[Unmapped]) -> Vec<String> {
    const LONGEST: usize = 100;
    let plain = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    let named = unmapped.iter().map(|it| it.path.chars().take(LONGEST).map(plain).collect());
    let mut names: Vec<String> = named.take(MAX_NAMED).collect();
    if unmapped.len() > MAX_NAMED {
        names.push("and more".to_owned());
    }
    names
}

/// `kept.order.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct OrderForm {
    pub order_number: String,
    #[serde(serialize_with = "time")]
    pub placed_at: Micros,
    /// Upper case; empty when the body names none.
    pub currency: String,
    #[serde(serialize_with = "some_amount", skip_serializing_if = "Option::is_none")]
    pub total: Option<UnitPrice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    pub test: bool,
    #[serde(serialize_with = "some_address", skip_serializing_if = "Option::is_none")]
    pub ship_to: Option<Address>,
    #[serde(serialize_with = "some_address", skip_serializing_if = "Option::is_none")]
    pub bill_to: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    pub lines: Vec<LineForm>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<ChargeForm>,
    pub payment: PaymentTermsForm,
    #[serde(serialize_with = "delivery", skip_serializing_if = "is_default")]
    pub delivery: Delivery,
    #[serde(serialize_with = "attributes", skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
}

/// One line of [`OrderForm`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LineForm {
    /// Empty when the body names none.
    pub sku: String,
    pub quantity: i64,
    #[serde(serialize_with = "amount")]
    pub unit_price: UnitPrice,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_id: Option<String>,
    #[serde(serialize_with = "some_time", skip_serializing_if = "Option::is_none")]
    pub promised_at: Option<Micros>,
    #[serde(serialize_with = "some_time", skip_serializing_if = "Option::is_none")]
    pub ship_by: Option<Micros>,
    #[serde(serialize_with = "attributes", skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
}

/// Money on [`OrderForm`] that is not for goods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ChargeForm {
    pub kind: ChargeKind,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    pub quantity: i64,
    #[serde(serialize_with = "amount")]
    pub unit_price: UnitPrice,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What [`OrderForm`] says of payment. Without it an order counts as to be paid online and unpaid: nothing ships
/// before a payment says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PaymentTermsForm {
    pub method: PaymentMethod,
    #[serde(serialize_with = "amount")]
    pub authorised: UnitPrice,
    #[serde(serialize_with = "amount")]
    pub captured: UnitPrice,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

impl Default for PaymentTermsForm {
    fn default() -> Self {
        Self {
            method: PaymentMethod::Online,
            authorised: UnitPrice::default(),
            captured: UnitPrice::default(),
            reference: None,
        }
    }
}

/// `kept.cancellation.v1`: cancels an order, or some of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CancellationForm {
    /// The sender's id of this request. The same body again is the same request; this tells apart two that are else alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// None: the whole order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<crate::inputs::LineQuantity>,
}

impl OrderForm {
    /// The name of the form, as `Inbound::format` bears it.
    pub const FORMAT: &'static str = "kept.order.v1";

    /// Reads a body; refused with every reason (at most 20).
    pub fn parse(body: &[u8]) -> Result<Parsed<Self>, Vec<FieldProblem>> {
        let mut walk = Walk::default();
        let form = walk.body(body, MAX_BODY_BYTES).and_then(|value| order(&mut walk, value)).unwrap_or_default();
        Ok(Parsed { unmapped: walk.end()?, form })
    }

    /// The body; [`Self::parse`] reads it back.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a form is JSON: its keys are texts")
    }

    /// Minor units' decimals of its currency; two for a currency that we do not know (the order will be held for it).
    pub fn decimals(&self) -> u32 {
        currency_decimals(&self.currency).unwrap_or(2)
    }

    /// Σ lines + Σ charges in minor units, each rounded once. `None` only for a form that [`Self::parse`] refuses.
    pub fn total_minor(&self) -> Option<i64> {
        let decimals = self.decimals();
        let lines = self.lines.iter().map(|line| (line.unit_price, line.quantity));
        let charges = self.charges.iter().map(|charge| (charge.unit_price, charge.quantity));
        lines
            .chain(charges)
            .try_fold(0i64, |sum, (price, quantity)| sum.checked_add(price.total_minor(quantity, decimals)?))
    }

    /// Units of goods.
    pub fn units(&self) -> i64 {
        self.lines.iter().map(|line| line.quantity).sum()
    }
}

impl CancellationForm {
    /// The name of the form, as `Inbound::format` bears it.
    pub const FORMAT: &'static str = "kept.cancellation.v1";

    /// Reads a body; refused with every reason (at most 20).
    pub fn parse(body: &[u8]) -> Result<Parsed<Self>, Vec<FieldProblem>> {
        let mut walk = Walk::default();
        let form = walk.body(body, MAX_BODY_BYTES).and_then(|value| cancellation(&mut walk, value)).unwrap_or_default();
        Ok(Parsed { unmapped: walk.end()?, form })
    }

    /// The body; [`Self::parse`] reads it back.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a form is JSON: its keys are texts")
    }
}

fn order(walk: &mut Walk, value: &RawValue) -> Option<OrderForm> {
    let fields = walk.object(value)?;
    walk.require(&fields, &["order_number", "placed_at"]);
    let mut form = OrderForm::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "order_number" => {
                form.order_number =
                    walk.field("order_number", value, |it, v| it.needed_text(v, MAX_CODE)).unwrap_or_default();
            }
            "placed_at" => form.placed_at = walk.field("placed_at", value, Walk::time).unwrap_or_default(),
            "currency" => {
                form.currency = walk.field("currency", value, |it, v| it.text(v, MAX_CURRENCY)).unwrap_or_default();
                form.currency.make_ascii_uppercase();
            }
            "total" => form.total = walk.field("total", value, Walk::amount),
            "customer_number" => {
                form.customer_number = walk.field("customer_number", value, |it, v| it.text(v, MAX_CODE));
            }
            "language" => form.language = walk.field("language", value, |it, v| it.text(v, MAX_LANGUAGE)),
            "test" => form.test = walk.field("test", value, Walk::yes_or_no).unwrap_or_default(),
            "ship_to" => form.ship_to = walk.field("ship_to", value, address),
            "bill_to" => form.bill_to = walk.field("bill_to", value, address),
            "email" => form.email = walk.field("email", value, |it, v| it.text(v, MAX_EMAIL)),
            "phone" => form.phone = walk.field("phone", value, |it, v| it.text(v, MAX_PHONE)),
            "lines" => {
                form.lines = walk.field("lines", value, |it, v| it.list(v, MAX_LINES, line)).unwrap_or_default();
            }
            "charges" => {
                form.charges =
                    walk.field("charges", value, |it, v| it.list(v, MAX_CHARGES, charge)).unwrap_or_default();
            }
            "payment" => form.payment = walk.field("payment", value, payment_terms).unwrap_or_default(),
            "delivery" => form.delivery = walk.field("delivery", value, read_delivery).unwrap_or_default(),
            "attributes" => {
                form.attributes = walk.field("attributes", value, read_attributes).unwrap_or_default();
            }
            other => walk.unknown(other, value),
        }
    }
    whole_minor_units(walk, &form);
    Some(form)
}

/// Amounts must be payable in the currency, which may come after them in the body.
fn whole_minor_units(walk: &mut Walk, form: &OrderForm) {
    let decimals = form.decimals();
    if currency_decimals(&form.currency).is_some() {
        let finer = |amount: UnitPrice| is_finer(amount, decimals);
        let reason = || format!("has more than the {decimals} decimals of {}", form.currency);
        if form.total.is_some_and(finer) {
            walk.problem_in("total", reason());
        }
        if finer(form.payment.authorised) || finer(form.payment.captured) {
            walk.problem_in("payment", reason());
        }
    }
}

/// Says so when quantity × unit price is too much to add up.
fn product(walk: &mut Walk, price: UnitPrice, quantity: i64) {
    if is_beyond(i128::from(price.amount) * i128::from(quantity), price.scale) {
        walk.problem::<()>(format!("comes to 10^{MAX_AMOUNT_DIGITS} or more"));
    }
}

/// True when `value` × 10^−`scale` has too many digits before the point.
fn is_beyond(value: i128, scale: i32) -> bool {
    value.abs() >= 10i128.pow(MAX_AMOUNT_DIGITS + u32::try_from(scale).unwrap_or(0))
}

/// True for an amount that a currency of `decimals` decimals cannot pay.
fn is_finer(amount: UnitPrice, decimals: u32) -> bool {
    let scale = u32::try_from(amount.scale).unwrap_or(0);
    scale > decimals && amount.amount % 10i64.pow(scale - decimals) != 0
}

fn line(walk: &mut Walk, value: &RawValue) -> Option<LineForm> {
    let fields = walk.object(value)?;
    walk.require(&fields, &["quantity", "unit_price"]);
    let mut line = LineForm::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "sku" => line.sku = walk.field("sku", value, |it, v| it.text(v, MAX_CODE)).unwrap_or_default(),
            "quantity" => {
                line.quantity = walk.field("quantity", value, |it, v| it.whole(v, MAX_QUANTITY)).unwrap_or_default();
            }
            "unit_price" => line.unit_price = walk.field("unit_price", value, Walk::amount).unwrap_or_default(),
            "description" => line.description = walk.field("description", value, |it, v| it.text(v, MAX_LONG_TEXT)),
            "line_id" => line.line_id = walk.field("line_id", value, |it, v| it.text(v, MAX_CODE)),
            "promised_at" => line.promised_at = walk.field("promised_at", value, Walk::time),
            "ship_by" => line.ship_by = walk.field("ship_by", value, Walk::time),
            "attributes" => {
                line.attributes = walk.field("attributes", value, read_attributes).unwrap_or_default();
            }
            other => walk.unknown(other, value),
        }
    }
    product(walk, line.unit_price, line.quantity);
    Some(line)
}

fn charge(walk: &mut Walk, value: &RawValue) -> Option<ChargeForm> {
    let fields = walk.object(value)?;
    walk.require(&fields, &["kind", "unit_price"]);
    let mut charge = ChargeForm { quantity: 1, ..Default::default() };
    for (name, value) in fields.0 {
        match name.as_ref() {
            "kind" => {
                let read = |it: &mut Walk, v| it.word(v, ChargeKind::ALL, ChargeKind::of);
                charge.kind = walk.field("kind", value, read).unwrap_or_default();
            }
            "code" => charge.code = walk.field("code", value, |it, v| it.text(v, MAX_CODE)).unwrap_or_default(),
            "quantity" => {
                charge.quantity = walk.field("quantity", value, |it, v| it.whole(v, MAX_QUANTITY)).unwrap_or(1);
            }
            "unit_price" => charge.unit_price = walk.field("unit_price", value, Walk::amount).unwrap_or_default(),
            "description" => charge.description = walk.field("description", value, |it, v| it.text(v, MAX_LONG_TEXT)),
            other => walk.unknown(other, value),
        }
    }
    product(walk, charge.unit_price, charge.quantity);
    Some(charge)
}

fn payment_terms(walk: &mut Walk, value: &RawValue) -> Option<PaymentTermsForm> {
    let fields = walk.object(value)?;
    let mut terms = PaymentTermsForm::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "method" => {
                let read = |it: &mut Walk, v| it.word(v, PaymentMethod::ALL, PaymentMethod::of);
                terms.method = walk.field("method", value, read).unwrap_or(PaymentMethod::Online);
            }
            "authorised" => terms.authorised = walk.field("authorised", value, not_negative).unwrap_or_default(),
            "captured" => terms.captured = walk.field("captured", value, not_negative).unwrap_or_default(),
            "reference" => terms.reference = walk.field("reference", value, |it, v| it.text(v, MAX_TEXT)),
            other => walk.unknown(other, value),
        }
    }
    Some(terms)
}

/// Money that came is never negative; money that went back is a payment of its own kind.
fn not_negative(walk: &mut Walk, value: &RawValue) -> Option<UnitPrice> {
    let amount = walk.amount(value)?;
    if amount.amount < 0 { walk.problem("is negative") } else { Some(amount) }
}

fn address(walk: &mut Walk, value: &RawValue) -> Option<Address> {
    let fields = walk.object(value)?;
    let mut address = Address::default();
    for (name, value) in fields.0 {
        let needed = |walk: &mut Walk, name| walk.field(name, value, |it, v| it.text(v, MAX_TEXT)).unwrap_or_default();
        let wanted = |walk: &mut Walk, name| walk.field(name, value, |it, v| it.text(v, MAX_TEXT));
        match name.as_ref() {
            "name" => address.name = needed(walk, "name"),
            "company" => address.company = wanted(walk, "company"),
            "street" => address.street = needed(walk, "street"),
            "house_number" => {
                // Many systems hold it as a number.
                let read = |it: &mut Walk, v| it.loose_text(v, MAX_TEXT);
                address.house_number = walk.field("house_number", value, read);
            }
            "house_number_addition" => address.house_number_addition = wanted(walk, "house_number_addition"),
            "extra" => address.extra = wanted(walk, "extra"),
            "postcode" => address.postcode = needed(walk, "postcode"),
            "city" => address.city = needed(walk, "city"),
            "region" => address.region = wanted(walk, "region"),
            "country" => {
                address.country = needed(walk, "country");
                address.country.make_ascii_uppercase();
            }
            other => walk.unknown(other, value),
        }
    }
    Some(address)
}

fn read_delivery(walk: &mut Walk, value: &RawValue) -> Option<Delivery> {
    let fields = walk.object(value)?;
    let mut delivery = Delivery::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "service" => delivery.service = walk.field("service", value, |it, v| it.text(v, MAX_TEXT)),
            "requested_at" => delivery.requested_at = walk.field("requested_at", value, Walk::time),
            "promised_at" => delivery.promised_at = walk.field("promised_at", value, Walk::time),
            "ship_by" => delivery.ship_by = walk.field("ship_by", value, Walk::time),
            "pickup_location" => {
                delivery.pickup_location = walk.field("pickup_location", value, |it, v| it.text(v, MAX_CODE));
            }
            other => walk.unknown(other, value),
        }
    }
    Some(delivery)
}

/// The merchant's own fields: any JSON value, kept as text. Their names are not ours, so a fault is told of the whole.
fn read_attributes(walk: &mut Walk, value: &RawValue) -> Option<Vec<Attribute>> {
    let fields = walk.object(value)?;
    let mut attributes = Vec::with_capacity(fields.0.len());
    for (name, value) in fields.0 {
        if name.is_empty() || name.chars().count() > MAX_CODE || name.contains('\0') {
            return walk
                .problem(format!("has a name that is empty, longer than {MAX_CODE} characters or holds U+0000"));
        }
        if value.get() == "null" {
            continue;
        }
        let value = walk.loose_text(value, MAX_LONG_TEXT).unwrap_or_default();
        attributes.push(Attribute { name: name.into_owned(), value });
    }
    Some(attributes)
}

fn cancellation(walk: &mut Walk, value: &RawValue) -> Option<CancellationForm> {
    let fields = walk.object(value)?;
    let mut form = CancellationForm::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "request_id" => form.request_id = walk.field("request_id", value, |it, v| it.text(v, MAX_CODE)),
            "reason" => form.reason = walk.field("reason", value, |it, v| it.text(v, MAX_TEXT)),
            "lines" => {
                // An empty list would mean everything, which is not what somebody who sends one can mean.
                let lines = walk.field("lines", value, |it, v| it.list(v, MAX_LINES, line_quantity));
                form.lines = lines.unwrap_or_default();
                if form.lines.is_empty() && value.get() != "null" {
                    walk.problem_in("lines", "is empty; leave it out to cancel the whole order");
                }
            }
            other => walk.unknown(other, value),
        }
    }
    Some(form)
}

fn line_quantity(walk: &mut Walk, value: &RawValue) -> Option<crate::inputs::LineQuantity> {
    let fields = walk.object(value)?;
    walk.require(&fields, &["line_no", "quantity"]);
    let mut line = crate::inputs::LineQuantity::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "line_no" => {
                let limit = i64::try_from(MAX_LINES).unwrap_or(i64::MAX);
                let number = walk.field("line_no", value, |it, v| positive(it, v, limit)).unwrap_or_default();
                line.line_no = i32::try_from(number).unwrap_or_default();
            }
            "quantity" => {
                line.quantity =
                    walk.field("quantity", value, |it, v| positive(it, v, MAX_QUANTITY)).unwrap_or_default();
            }
            other => walk.unknown(other, value),
        }
    }
    Some(line)
}

fn positive(walk: &mut Walk, value: &RawValue, limit: i64) -> Option<i64> {
    let number = walk.whole(value, limit)?;
    if number < 1 { walk.problem("is less than 1") } else { Some(number) }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn amount<S: Serializer>(amount: &UnitPrice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(amount)
}

fn some_amount<S: Serializer>(some: &Option<UnitPrice>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&some.unwrap_or_default())
}

fn time<S: Serializer>(time: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

fn some_time<S: Serializer>(some: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&some.unwrap_or_default().rfc3339())
}

fn attributes<S: Serializer>(attributes: &[Attribute], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(attributes.iter().map(|it| (&it.name, &it.value)))
}

/// A map of those parts that say something.
fn parts<S: Serializer>(parts: &[(&'static str, Option<&str>)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (name, value) in parts {
        if let Some(value) = value.filter(|it| !it.is_empty()) {
            map.serialize_entry(name, value)?;
        }
    }
    map.end()
}

fn some_address<S: Serializer>(some: &Option<Address>, serializer: S) -> Result<S::Ok, S::Error> {
    let none = Address::default();
    let it = some.as_ref().unwrap_or(&none);
    let all = [
        ("name", Some(it.name.as_str())),
        ("company", it.company.as_deref()),
        ("street", Some(it.street.as_str())),
        ("house_number", it.house_number.as_deref()),
        ("house_number_addition", it.house_number_addition.as_deref()),
        ("extra", it.extra.as_deref()),
        ("postcode", Some(it.postcode.as_str())),
        ("city", Some(it.city.as_str())),
        ("region", it.region.as_deref()),
        ("country", Some(it.country.as_str())),
    ];
    parts(&all, serializer)
}

fn delivery<S: Serializer>(it: &Delivery, serializer: S) -> Result<S::Ok, S::Error> {
    let [requested, promised, ship_by] =
        [it.requested_at, it.promised_at, it.ship_by].map(|it| it.map(Micros::rfc3339));
    let all = [
        ("service", it.service.as_deref()),
        ("requested_at", requested.as_deref()),
        ("promised_at", promised.as_deref()),
        ("ship_by", ship_by.as_deref()),
        ("pickup_location", it.pickup_location.as_deref()),
    ];
    parts(&all, serializer)
}

#[cfg(test)]
mod tests;
