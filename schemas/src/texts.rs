//! The texts of records that others may write to our topics: how long each may be, and that none holds U+0000, which
//! no column of Postgres takes. What a form of ours (`own`) takes passes here; an error names the field and the rule,
//! never what stands in it.

use std::fmt::Display;

use crate::{
    inbound::{OrderValidated, Problem},
    inputs::{CommandReceived, DeadlineReached, OrderWoken, OutcomeReceived, PaymentReceived, StockCounted},
    order::{Address, Attribute, Order, Party},
    own::{MAX_CODE, MAX_CURRENCY, MAX_EMAIL, MAX_LANGUAGE, MAX_LONG_TEXT, MAX_PHONE, MAX_TEXT},
};

/// What a text of at most `most` characters has against it, to be read after the field's name.
pub fn fault(text: &str, most: usize) -> Option<String> {
    if text.len() > most && text.chars().count() > most {
        return Some(format!("is longer than {most} characters"));
    }
    // No database column and no label printer takes it.
    text.contains('\0').then(|| "holds the character U+0000".to_owned())
}

/// The texts of an order and of its person.
pub fn order(order: &Order, party: &Party) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.party(party);
    texts.order(order);
    texts.end()
}

/// The texts of what was found wrong with an order.
pub fn problems(problems: &[Problem]) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.problems(problems);
    texts.end()
}

/// The texts of one address.
pub fn address(address: &Address) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.address("", address);
    texts.end()
}

/// The texts of a person.
pub fn party(party: &Party) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.party(party);
    texts.end()
}

/// The texts of a checked order, what enrich looked up among them.
pub fn validated(it: &OrderValidated) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.order(&it.order);
    texts.text("body_hash", &it.body_hash, MAX_TEXT);
    texts.text("enrichment.customer_class", &it.enrichment.customer_class, MAX_LONG_TEXT);
    texts.text("enrichment.vat_country", &it.enrichment.vat_country, MAX_LONG_TEXT);
    for version in &it.enrichment.versions {
        texts.text("enrichment.versions.topic", &version.topic, MAX_TEXT);
    }
    texts.problems(&it.problems);
    texts.names(&it.not_understood);
    texts.party(&it.party);
    texts.end()
}

/// The texts of a fact about money.
pub fn payment(it: &PaymentReceived) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.text("payment_id", &it.payment_id, MAX_TEXT);
    texts.text("currency", &it.currency, MAX_CURRENCY);
    texts.text("source", &it.source, MAX_TEXT);
    texts.some("detail", &it.detail, MAX_LONG_TEXT);
    texts.names(&it.not_understood);
    texts.end()
}

/// The texts of a command, but for its person: who reads that refuses the command and says why.
pub fn command(it: &CommandReceived) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.text("command_id", &it.command_id, MAX_TEXT);
    texts.text("by", &it.by, MAX_TEXT);
    texts.some("hold_id", &it.hold_id, MAX_TEXT);
    texts.some("reason", &it.reason, MAX_LONG_TEXT);
    texts.names(&it.not_understood);
    texts.end()
}

/// The texts of a report.
pub fn outcome(it: &OutcomeReceived) -> Result<(), String> {
    let mut texts = Texts::default();
    for (field, text) in [
        ("outcome_id", &it.outcome_id),
        ("fulfilment_id", &it.fulfilment_id),
        ("shipment_id", &it.shipment_id),
        ("location_id", &it.location_id),
    ] {
        texts.text(field, text, MAX_TEXT);
    }
    for (field, text) in [("carrier", &it.carrier), ("service", &it.service), ("carrier_code", &it.carrier_code)] {
        texts.some(field, text, MAX_TEXT);
    }
    for parcel in &it.parcels {
        texts.text("parcels.parcel_id", &parcel.parcel_id, MAX_TEXT);
        texts.some("parcels.tracking_number", &parcel.tracking_number, MAX_TEXT);
    }
    texts.end()
}

/// The texts of a deadline.
pub fn deadline(it: &DeadlineReached) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.text("timer_id", &it.timer_id, MAX_TEXT);
    texts.end()
}

/// The texts of a count or a receipt.
pub fn stock(it: &StockCounted) -> Result<(), String> {
    let mut texts = Texts::default();
    for (field, text) in
        [("sku", &it.sku), ("location_id", &it.location_id), ("count_id", &it.count_id), ("source", &it.source)]
    {
        texts.text(field, text, MAX_TEXT);
    }
    texts.end()
}

/// The texts of a wake-up.
pub fn woken(it: &OrderWoken) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.text("sku", &it.sku, MAX_TEXT);
    texts.end()
}

/// Looks at one text after the other and keeps the first fault.
#[derive(Debug, Default)]
struct Texts {
    fault: Option<String>,
}

impl Texts {
    fn text(&mut self, field: impl Display, text: &str, most: usize) {
        if self.fault.is_none() {
            self.fault = fault(text, most).map(|why| format!("{field} {why}"));
        }
    }

    fn some(&mut self, field: impl Display, text: &Option<String>, most: usize) {
        if let Some(text) = text {
            self.text(field, text, most);
        }
    }

    fn end(self) -> Result<(), String> {
        self.fault.map_or(Ok(()), Err)
    }

    fn order(&mut self, it: &Order) {
        self.text("channel", &it.channel, MAX_TEXT);
        self.text("shop", &it.shop, MAX_TEXT);
        self.text("channel_order_id", &it.channel_order_id, MAX_CODE);
        self.text("account", &it.account, MAX_TEXT);
        self.text("currency", &it.currency, MAX_CURRENCY);
        self.some("customer_ref", &it.customer_ref, MAX_CODE);
        self.text("country", &it.country, MAX_TEXT);
        self.some("language", &it.language, MAX_LANGUAGE);
        for line in &it.lines {
            self.some("lines.channel_line_id", &line.channel_line_id, MAX_CODE);
            self.text("lines.sku", &line.sku, MAX_CODE);
            self.some("lines.description", &line.description, MAX_LONG_TEXT);
            self.attributes("lines.attributes", &line.attributes);
        }
        for charge in &it.charges {
            self.text("charges.code", &charge.code, MAX_CODE);
            self.some("charges.description", &charge.description, MAX_LONG_TEXT);
        }
        self.some("payment.reference", &it.payment.reference, MAX_TEXT);
        self.some("delivery.service", &it.delivery.service, MAX_TEXT);
        self.some("delivery.pickup_location", &it.delivery.pickup_location, MAX_CODE);
        self.attributes("attributes", &it.attributes);
    }

    fn attributes(&mut self, within: &str, all: &[Attribute]) {
        for it in all {
            self.text(format_args!("{within}.name"), &it.name, MAX_CODE);
            self.text(format_args!("{within}.value"), &it.value, MAX_LONG_TEXT);
        }
    }

    fn party(&mut self, it: &Party) {
        self.address("ship_to.", &it.ship_to);
        if let Some(bill_to) = &it.bill_to {
            self.address("bill_to.", bill_to);
        }
        self.some("email", &it.email, MAX_EMAIL);
        self.some("phone", &it.phone, MAX_PHONE);
    }

    fn address(&mut self, within: &str, it: &Address) {
        for (field, text) in [
            ("name", Some(&it.name)),
            ("company", it.company.as_ref()),
            ("street", Some(&it.street)),
            ("house_number", it.house_number.as_ref()),
            ("house_number_addition", it.house_number_addition.as_ref()),
            ("extra", it.extra.as_ref()),
            ("postcode", Some(&it.postcode)),
            ("city", Some(&it.city)),
            ("region", it.region.as_ref()),
            ("country", Some(&it.country)),
        ] {
            self.text(format_args!("{within}{field}"), text.map_or("", String::as_str), MAX_TEXT);
        }
    }

    fn names(&mut self, all: &[String]) {
        for it in all {
            self.text("not_understood", it, MAX_TEXT);
        }
    }

    fn problems(&mut self, all: &[Problem]) {
        for it in all {
            self.text("problems.field", &it.field, MAX_TEXT);
            self.text("problems.detail", &it.detail, MAX_LONG_TEXT);
        }
    }
}
