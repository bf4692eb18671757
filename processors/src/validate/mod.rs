//! Everything that is wrong with an order, at once, each with its field and in plain words. What it means (a hold, a
//! claim all the same) is the ledger's to decide.
//!
//! A detail never holds what stands in a field about a person.

mod address;
mod countries;

use kept_schemas::{
    Micros, Order, Topic, UnitPrice,
    inbound::{Enrichment, HoldReason, OrderEnriched, OrderValidated, Problem},
    values::currency_decimals,
};

use crate::reference::Reference;

/// A line of more units is looked at by a person first, whatever the product allows.
pub const PLAUSIBLE_QUANTITY: i64 = 100_000;
/// So is an order of more than this, in whole units of its currency.
pub const PLAUSIBLE_TOTAL: i64 = 1_000_000;
/// The most problems of one reason; the rest are counted, so that an order of 2,000 unknown SKUs fits its record.
pub const MAX_PER_REASON: usize = 20;

/// What this step looks up besides what enrich found.
const USES: &[Topic] = &[Topic::ReferenceProducts, Topic::ReferenceLocations, Topic::ReferencePolicies];

/// The order with every problem it has; those that came with it first.
pub fn decide(enriched: OrderEnriched, reference: &Reference) -> OrderValidated {
    let mut found = Found::default();
    check(&enriched, reference, &mut found);
    let OrderEnriched { order, received_at, body_hash, mut enrichment, mut problems, revision, not_understood, party } =
        enriched;
    problems.extend(found.end());
    for version in reference.versions_of(USES) {
        if !enrichment.versions.contains(&version) {
            enrichment.versions.push(version);
        }
    }
    OrderValidated { order, received_at, body_hash, enrichment, problems, revision, not_understood, party }
}

fn check(it: &OrderEnriched, reference: &Reference, found: &mut Found) {
    let order = &it.order;
    match order.delivery.pickup_location.as_deref() {
        None => address::check(&it.party.ship_to, found),
        Some(id) if reference.locations.get(id).is_some_and(|location| location.active) => {}
        Some(_) => {
            let detail = "the pick-up location is not one of ours, or not open".to_owned();
            found.order(HoldReason::AddressInvalid, "delivery.pickup_location", detail);
        }
    }
    lines(order, &it.enrichment, reference, found);
    money(order, reference.policy(&order.channel).total_tolerance_minor, found);
    times(order, it.received_at, found);
}

fn lines(order: &Order, enrichment: &Enrichment, reference: &Reference, found: &mut Found) {
    if order.lines.is_empty() {
        found.order(HoldReason::NoGoods, "lines", "the order has no line with goods".to_owned());
    }
    for (at, line) in order.lines.iter().enumerate() {
        let no = line.line_no;
        if line.sku.is_empty() {
            found.line(HoldReason::Incomplete, no, "sku", || "the line names no product".to_owned());
        } else {
            // Enrich lists the lines in the order's own order; anybody else's list is searched.
            let facts = enrichment.lines.get(at).filter(|it| it.line_no == no);
            let known =
                facts.or_else(|| enrichment.lines.iter().find(|it| it.line_no == no)).is_some_and(|it| it.known);
            let product = reference.products.get(&line.sku);
            if !known {
                found.line(HoldReason::UnknownSku, no, "sku", || {
                    format!("SKU {:?} is not in the product list", line.sku)
                });
            } else if product.is_some_and(|it| !it.active) {
                found.line(HoldReason::UnknownSku, no, "sku", || format!("product {:?} is no longer sold", line.sku));
            }
            if let Some(most) = product.and_then(|it| it.max_quantity)
                && line.quantity > most
            {
                found.line(HoldReason::ValueImplausible, no, "quantity", || {
                    format!(
                        "{} units of {:?} are more than the {most} that one order may have",
                        line.quantity, line.sku
                    )
                });
            }
        }
        if line.quantity <= 0 {
            found.line(HoldReason::ValueImplausible, no, "quantity", || {
                format!("the quantity is {}, not above zero", line.quantity)
            });
        } else if line.quantity > PLAUSIBLE_QUANTITY {
            found.line(HoldReason::ValueImplausible, no, "quantity", || {
                format!("{} units are more than {PLAUSIBLE_QUANTITY}", line.quantity)
            });
        }
        if line.unit_price.amount < 0 {
            found.line(HoldReason::ValueImplausible, no, "unit_price", || "the price is below zero".to_owned());
        }
    }
}

fn money(order: &Order, tolerance_minor: i64, found: &mut Found) {
    let known = currency_decimals(&order.currency);
    if order.currency.is_empty() {
        found.order(HoldReason::Incomplete, "currency", "the currency is missing".to_owned());
    } else if known.is_none() {
        let detail = format!("currency {:?} is not one that is known here", order.currency);
        found.order(HoldReason::ValueImplausible, "currency", detail);
    }
    let decimals = known.unwrap_or(2);
    let show = |minor: i64| {
        let amount = UnitPrice { amount: minor, scale: i32::try_from(decimals).unwrap_or(0) };
        format!("{amount} {}", order.currency).trim_end().to_owned()
    };
    // Orders that others put on `orders.received` must add up as well.
    let mut sum = 0i64;
    for line in &order.lines {
        let right = line.unit_price.total_minor(line.quantity, decimals);
        if right != Some(line.line_total_minor) {
            found.line(HoldReason::TotalsDiffer, line.line_no, "line_total_minor", || {
                let right = right.map_or_else(|| "more than fits".to_owned(), show);
                format!("quantity × price is {right}, the line says {}", show(line.line_total_minor))
            });
        }
        sum = sum.saturating_add(line.line_total_minor);
    }
    for charge in &order.charges {
        let right = charge.unit_price.total_minor(charge.quantity, decimals);
        if right != Some(charge.amount_minor) {
            let right = right.map_or_else(|| "more than fits".to_owned(), show);
            let detail = format!(
                "quantity × price of charge {:?} is {right}, it says {}",
                charge.code,
                show(charge.amount_minor)
            );
            found.order(HoldReason::TotalsDiffer, "charges", detail);
        }
        sum = sum.saturating_add(charge.amount_minor);
    }
    if sum != order.total_minor {
        let detail = format!("lines and charges make {}, the order says {}", show(sum), show(order.total_minor));
        found.order(HoldReason::TotalsDiffer, "total_minor", detail);
    }
    if let Some(stated) = order.stated_total_minor
        && stated.saturating_sub(order.total_minor).saturating_abs() > tolerance_minor
    {
        let detail = format!("lines and charges make {}, the channel says {}", show(order.total_minor), show(stated));
        found.order(HoldReason::TotalsDiffer, "total", detail);
    }
    let most = PLAUSIBLE_TOTAL.saturating_mul(10i64.saturating_pow(decimals));
    if order.total_minor > most {
        let detail = format!("the total is {}, more than {}", show(order.total_minor), show(most));
        found.order(HoldReason::ValueImplausible, "total", detail);
    } else if order.total_minor < 0 {
        let detail = format!("the total is {}, below zero", show(order.total_minor));
        found.order(HoldReason::ValueImplausible, "total", detail);
    }
}

fn times(order: &Order, received_at: Micros, found: &mut Found) {
    // A day: clocks differ, and so do the time zones that senders believe in.
    if order.placed_at > received_at.plus(Micros::DAY) {
        let detail = format!("placed at {}, after it came in", order.placed_at.rfc3339());
        found.order(HoldReason::ValueImplausible, "placed_at", detail);
    }
    let before = |promise: Option<Micros>| promise.is_some_and(|it| it < order.placed_at);
    for (field, promise) in
        [("delivery.promised_at", order.delivery.promised_at), ("delivery.ship_by", order.delivery.ship_by)]
    {
        if before(promise) {
            let detail = "the promise lies before the order was placed".to_owned();
            found.order(HoldReason::ValueImplausible, field, detail);
        }
    }
    for line in &order.lines {
        for (field, promise) in [("promised_at", line.promised_at), ("ship_by", line.ship_by)] {
            if before(promise) {
                found.line(HoldReason::ValueImplausible, line.line_no, field, || {
                    "the promise lies before the order was placed".to_owned()
                });
            }
        }
    }
}

/// Problems as they are found, bounded per reason.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    left_out: Vec<(HoldReason, usize)>,
}

impl Found {
    /// Something is wrong with the order as a whole.
    fn order(&mut self, reason: HoldReason, field: &str, detail: String) {
        self.add(reason, None, field, || detail);
    }

    /// Something is wrong with a line.
    fn line(&mut self, reason: HoldReason, line_no: i32, field: &str, detail: impl FnOnce() -> String) {
        self.add(reason, Some(line_no), field, detail);
    }

    fn add(&mut self, reason: HoldReason, line_no: Option<i32>, field: &str, detail: impl FnOnce() -> String) {
        if self.problems.iter().filter(|it| it.reason == reason).count() < MAX_PER_REASON {
            let field = if line_no.is_some() { format!("lines.{field}") } else { field.to_owned() };
            self.problems.push(Problem { reason, line_no, field, detail: detail() });
            return;
        }
        match self.left_out.iter_mut().find(|it| it.0 == reason) {
            Some((_, count)) => *count += 1,
            None => self.left_out.push((reason, 1)),
        }
    }

    fn end(self) -> Vec<Problem> {
        let mut problems = self.problems;
        for (reason, count) in self.left_out {
            let detail = format!("and {count} more of the same kind");
            problems.push(Problem { reason, line_no: None, field: "lines".to_owned(), detail });
        }
        problems
    }
}

#[cfg(test)]
mod tests;
