//! Which location ships: one that has everything the order has a claim on, the first by priority, then by its id. All
//! lines or none. What each location was passed over for goes along with the request.

use std::collections::BTreeMap;

use kept_schemas::{
    Micros,
    events::{FulfilmentLine, FulfilmentRequested, RouteReason},
    ids::child,
    inbound::HoldReason,
    inputs::{Condition, LineQuantity},
    reference::Location,
};

use super::{Facts, FulfilmentStatus, OrderState, StockKey, StockRow, decision::Decision, fold::line_at, settle};

/// A request tells of at most so many locations that were passed over.
const REASONS: usize = 20;

/// Something is claimed and not yet asked for.
pub(super) fn anything_to_pin(order: &OrderState) -> bool {
    order.lines.iter().any(|line| line.claimed > 0)
}

/// Asks a location to ship all that is claimed, or holds the order with the reason.
pub(super) fn route(d: &mut Decision<'_>) {
    match choose(d) {
        Ok((location_id, reasons)) => request(d, location_id, reasons),
        Err(reasons) => {
            let lost = lost(d);
            if lost.is_empty() {
                let passed = settle::list(reasons.iter().map(|it| format!("{} {}", it.location_id, it.why)));
                let detail = match reasons.is_empty() {
                    true => "no location is set up to ship".to_owned(),
                    false => format!("no location can ship all of it: {passed}"),
                };
                d.hold(HoldReason::NoRoute, None, detail);
                d.say_holds();
            } else {
                // A count found less than was promised: the claim was on goods that are not there.
                d.reserve(lost);
                settle::settle(d, settle::Arrived::Stock);
            }
        }
    }
}

/// What the order needs of a SKU, and what is free of it at each location.
struct Need<'a> {
    sku: &'a str,
    units: i64,
    free: Vec<(&'a str, i64)>,
}

/// The location, and what was thought of each that was looked at.
pub(super) fn choose(d: &Decision<'_>) -> Result<(String, Vec<RouteReason>), Vec<RouteReason>> {
    let order = d.order();
    let mut needs: BTreeMap<&str, i64> = BTreeMap::new();
    for line in order.lines.iter().filter(|line| line.claimed > 0) {
        *needs.entry(&line.sku).or_default() += line.claimed;
    }
    let needs: Vec<Need> =
        (needs.into_iter()).map(|(sku, units)| Need { sku, units, free: free_by_location(d.facts, sku) }).collect();
    let mut locations: Vec<&Location> = d.reference.locations.values().collect();
    locations.sort_by(|a, b| (a.priority, &a.location_id).cmp(&(b.priority, &b.location_id)));
    let pickup = d.content().and_then(|content| content.order.delivery.pickup_location.as_deref());
    let mut reasons = Vec::new();
    for location in locations {
        let why = passed_over(location, order, pickup, &needs);
        let chosen = why.is_none();
        if chosen || reasons.len() < REASONS {
            let why = why.unwrap_or_else(|| "has everything, and comes first".to_owned());
            reasons.push(RouteReason { location_id: location.location_id.clone(), chosen, why });
        }
        if chosen {
            return Ok((location.location_id.clone(), reasons));
        }
    }
    Err(reasons)
}

/// Why a location cannot ship the order; `None`: it can.
fn passed_over(location: &Location, order: &OrderState, pickup: Option<&str>, needs: &[Need]) -> Option<String> {
    let id = location.location_id.as_str();
    if !location.active {
        return Some("is closed".into());
    }
    if let Some(pickup) = pickup.filter(|pickup| *pickup != id) {
        return Some(format!("is not {pickup}, where the customer picks it up"));
    }
    if order.fulfilments.iter().any(|it| it.status == FulfilmentStatus::Declined && it.location_id == id) {
        return Some("would not ship it before".into());
    }
    needs.iter().find_map(|Need { sku, units, free }| {
        let there = free.iter().find(|it| it.0 == id).map_or(0, |it| it.1);
        (there < *units).then(|| format!("has {there} of {units} of {sku}"))
    })
}

fn free_by_location<'a>(facts: &'a Facts, sku: &str) -> Vec<(&'a str, i64)> {
    let from = StockKey { sku: sku.to_owned(), location_id: String::new(), condition: Condition::Sellable };
    facts
        .stock
        .range(&from..)
        .take_while(|(key, _)| key.sku == sku)
        .filter(|(key, _)| key.condition == Condition::Sellable)
        .map(|(key, row)| (key.location_id.as_str(), row.free()))
        .collect()
}

/// Claims on goods that a count did not find: what the order must give up for the rest to be true.
fn lost(d: &Decision<'_>) -> Vec<LineQuantity> {
    let mut over: BTreeMap<&str, i64> = BTreeMap::new();
    let mut lost = Vec::new();
    for line in d.order().lines.iter().filter(|line| line.claimed > 0) {
        let over = over.entry(&line.sku).or_insert_with(|| -d.facts.available(&line.sku));
        let units = line.claimed.min(*over);
        if units > 0 {
            *over -= units;
            lost.push(LineQuantity { line_no: line.line_no, quantity: -units });
        }
    }
    lost
}

fn request(d: &mut Decision<'_>, location_id: String, reasons: Vec<RouteReason>) {
    let order = d.order();
    let Some(content) = d.content() else {
        // Without its content there is no address to ship to.
        d.hold(HoldReason::Incomplete, None, "the order's content is not there any more");
        d.say_holds();
        return;
    };
    let lines: Vec<FulfilmentLine> = order
        .lines
        .iter()
        .filter(|line| line.claimed > 0)
        .map(|line| FulfilmentLine {
            line_no: line.line_no,
            sku: line.sku.clone(),
            quantity: line.claimed,
            unit_weight_grams: line.unit_weight_grams,
        })
        .collect();
    let (order_id, seq, at) = d.stamp();
    let fulfilment_id = child("fulfilment", order_id, &[&(order.fulfilments.len() as u64).to_be_bytes()]).to_string();
    let delivery = &content.order.delivery;
    let asked = |line_no: i32| line_at(&order.lines, line_no).is_some_and(|line| line.claimed > 0);
    let ours = || content.order.lines.iter().filter(|line| asked(line.line_no));
    let ship_by = earliest(delivery.ship_by, ours().map(|line| line.ship_by));
    let promised_at = earliest(delivery.promised_at, ours().map(|line| line.promised_at));
    let usual = d.after(d.policy().despatch_due_seconds);
    let due_at = ship_by.filter(|ship_by| *ship_by > at).map_or(usual, |ship_by| ship_by.min(usual));
    let requested = FulfilmentRequested {
        order_id,
        seq,
        at,
        fulfilment_id: fulfilment_id.clone(),
        location_id: location_id.clone(),
        service: delivery.service.clone(),
        ship_by,
        promised_at,
        due_at,
        channel: content.order.channel.clone(),
        channel_order_id: content.order.channel_order_id.clone(),
        reasons,
        party: content.party.clone(),
        lines,
    };
    let moved = d.by_sku(requested.lines.iter().map(|line| (line.line_no, line.quantity, 0)));
    d.say(requested);
    d.move_stock(&location_id, "pin", &fulfilment_id, &moved, |row: &mut StockRow, units, _| row.pin(units));
}

fn earliest(of_order: Option<Micros>, of_lines: impl Iterator<Item = Option<Micros>>) -> Option<Micros> {
    of_order.into_iter().chain(of_lines.flatten()).min()
}
