//! The read model shows exactly what the events add up to, row for row, and what the ledger remembers. (Its orders are
//! invariant 1's, its stock 4's, its shipments 5's, its postings 6's.)

use std::collections::{BTreeMap, BTreeSet};

use kept_processors::ledger::OrderState;
use kept_schemas::OrderId;

use super::{
    facts::{ChargeRow, Facts, HoldRow, LineRow, OrderRow},
    life::Life,
    verdict::Verdict,
};

/// Orders that the read model has not heard all about.
pub fn behind(facts: &Facts, lives: &BTreeMap<OrderId, Life<'_>>) -> BTreeSet<OrderId> {
    let _ = lives;
    facts
        .topics
        .events
        .iter()
        .filter(|(_, life)| life.iter().any(|event| !facts.read.took(event.place)))
        .map(|(order, _)| *order)
        .collect()
}

pub fn check(facts: &Facts, lives: &BTreeMap<OrderId, Life<'_>>) -> Verdict {
    let mut verdict =
        Verdict::new("read model", 2, "the read model is what the events add up to and what the ledger remembers");
    let behind = behind(facts, lives);
    let ledger_ahead = |order: &OrderId| {
        let known = facts.ledger.states.get(order).map_or(0, |state| state.seq);
        lives.get(order).map_or(0, |life| life.last_seq) != known
    };
    let rows: BTreeMap<OrderId, &OrderRow> = facts.read.orders.iter().map(|row| (row.order_id, row)).collect();
    let mut lines: BTreeMap<OrderId, Vec<&LineRow>> = BTreeMap::new();
    for line in &facts.read.lines {
        lines.entry(line.order_id).or_default().push(line);
    }
    let mut holds: BTreeMap<OrderId, Vec<&HoldRow>> = BTreeMap::new();
    for hold in &facts.read.holds {
        holds.entry(hold.order_id).or_default().push(hold);
    }
    let mut charges: BTreeMap<OrderId, Vec<&ChargeRow>> = BTreeMap::new();
    for charge in &facts.read.charges {
        charges.entry(charge.order_id).or_default().push(charge);
    }
    verdict.count("orders", rows.len());
    verdict.count("lines", facts.read.lines.len());
    verdict.count("holds", facts.read.holds.len());
    verdict.count("timeline entries", facts.read.timeline.len());
    for (order, life) in lives {
        if behind.contains(order) {
            verdict.in_flight(|| format!("order {order} is not up to date in the read model"));
            continue;
        }
        if life.accepted.is_some()
            && let Some(row) = rows.get(order)
        {
            for fault in order_faults(row, life) {
                verdict.broken(|| format!("order {order}: {fault}"));
            }
        }
        for fault in line_faults(life, lines.get(order).map_or(&[], Vec::as_slice)) {
            verdict.broken(|| format!("order {order}: {fault}"));
        }
        for fault in hold_faults(life, holds.get(order).map_or(&[], Vec::as_slice)) {
            verdict.broken(|| format!("order {order}: {fault}"));
        }
        for fault in charge_faults(life, charges.get(order).map_or(&[], Vec::as_slice)) {
            verdict.broken(|| format!("order {order}: {fault}"));
        }
        if !ledger_ahead(order)
            && let Some(state) = facts.ledger.states.get(order)
        {
            for fault in ledger_faults(state, life) {
                verdict.broken(|| format!("order {order}: {fault}"));
            }
        }
    }
    let nobodys = |order: &OrderId| !lives.contains_key(order);
    for order in lines.keys().chain(holds.keys()).filter(|order| nobodys(order)) {
        verdict.broken(|| format!("order {order} is in the read model, but has no events"));
    }
    timeline(facts, &behind, &mut verdict);
    notifications(facts, lives, &behind, &mut verdict);
    verdict
}

/// A column that is not as it should be.
fn differs<T: PartialEq + std::fmt::Display>(faults: &mut Vec<String>, what: &str, shown: &T, expected: &T) {
    if shown != expected {
        faults.push(format!("{what} is {shown}, its events say {expected}"));
    }
}

fn order_faults(row: &OrderRow, life: &Life<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(accepted) = life.accepted else { return faults };
    let (order, units) = (&accepted.order, life.total());
    let charges = order.charges.iter().fold(0, |sum: i64, charge| sum.saturating_add(charge.amount_minor));
    let mut text = |what, shown: &str, expected: &str| differs(&mut faults, what, &shown, &expected);
    text("status", &row.status, life.status());
    text("shop", &row.shop, &order.shop);
    text("channel", &row.channel, &order.channel);
    text("number", &row.channel_order_id, &order.channel_order_id);
    text("currency", &row.currency, &order.currency);
    text("outcome", row.outcome.as_deref().unwrap_or("none"), life.outcome.unwrap_or("none"));
    let mut number = |what, shown: i64, expected: i64| differs(&mut faults, what, &shown, &expected);
    number("our number", row.order_no, accepted.order_no);
    number("revision", i64::from(row.revision), i64::from(accepted.revision));
    number("placed at", row.placed_at.0, order.placed_at.0);
    number("total", row.total_minor, order.total_minor);
    number("charges", row.charges_minor, charges);
    number("quantity", row.quantity, life.quantity());
    number("reserved", row.reserved, units.reserved);
    number("shipped", row.shipped, units.shipped);
    number("cancelled", row.cancelled, units.cancelled);
    number("picked", row.picked, life.picked);
    number("open holds", row.open_holds, life.open_holds());
    number("test", i64::from(row.test), i64::from(order.test));
    number("released", i64::from(row.released), i64::from(life.released));
    let paid =
        life.paid.map(|it| (it.state.as_str().to_owned(), it.authorised_minor, it.captured_minor, it.refunded_minor));
    if row.payment != paid {
        faults.push(format!("payment is {:?}, its events say {paid:?}", row.payment));
    }
    faults
}

fn line_faults(life: &Life<'_>, rows: &[&LineRow]) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(accepted) = life.accepted else { return faults };
    let by_no: BTreeMap<i32, &LineRow> = rows.iter().map(|row| (row.line_no, *row)).collect();
    let lines = &accepted.order.lines;
    if by_no.len() != lines.len() || rows.len() != lines.len() {
        faults.push(format!("has {} lines in the read model, {} were accepted", rows.len(), lines.len()));
    }
    for line in lines {
        let Some(row) = by_no.get(&line.line_no) else {
            faults.push(format!("line {} is not in the read model", line.line_no));
            continue;
        };
        let units = life.units.get(&line.line_no).copied().unwrap_or_default();
        let expected = LineRow {
            order_id: row.order_id,
            line_no: line.line_no,
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price.to_string(),
            line_total_minor: line.line_total_minor,
            reserved: units.reserved,
            shipped: units.shipped,
            cancelled: units.cancelled,
            short: line.quantity - units.cancelled - units.shipped - units.reserved,
        };
        if **row != expected {
            faults.push(format!(
                "line {} is otherwise in the read model: {}",
                line.line_no,
                line_change(row, &expected)
            ));
        }
    }
    faults
}

fn line_change(row: &LineRow, expected: &LineRow) -> String {
    let mut faults = Vec::new();
    differs(&mut faults, "SKU", &row.sku, &expected.sku);
    differs(&mut faults, "price", &row.unit_price, &expected.unit_price);
    differs(&mut faults, "quantity", &row.quantity, &expected.quantity);
    differs(&mut faults, "total", &row.line_total_minor, &expected.line_total_minor);
    differs(&mut faults, "reserved", &row.reserved, &expected.reserved);
    differs(&mut faults, "shipped", &row.shipped, &expected.shipped);
    differs(&mut faults, "cancelled", &row.cancelled, &expected.cancelled);
    differs(&mut faults, "short", &row.short, &expected.short);
    faults.join("; ")
}

fn hold_faults(life: &Life<'_>, rows: &[&HoldRow]) -> Vec<String> {
    let mut faults = Vec::new();
    if rows.len() != life.holds.len() {
        faults.push(format!("has {} holds in the read model, its events say {}", rows.len(), life.holds.len()));
    }
    for row in rows {
        let Some(hold) = life.holds.get(row.hold_id.as_str()) else {
            faults.push(format!("hold {} was never opened", row.hold_id));
            continue;
        };
        let reason = hold.opened.map(|it| it.reason).or(hold.resolved.map(|it| it.reason)).unwrap_or_default();
        let expected = HoldRow {
            order_id: row.order_id,
            hold_id: row.hold_id.clone(),
            reason: reason.to_string(),
            opened: hold.opened.is_some(),
            due_at: hold.opened.map(|it| it.due_at),
            resolution: hold.resolved.map(|it| it.resolution.clone()),
        };
        if **row != expected {
            faults.push(format!("hold {} is otherwise in the read model than its events say", row.hold_id));
        }
    }
    faults
}

fn charge_faults(life: &Life<'_>, rows: &[&ChargeRow]) -> Vec<String> {
    let Some(accepted) = life.accepted else { return Vec::new() };
    let said: BTreeSet<(i32, &str, &str, i64)> = (1..)
        .zip(&accepted.order.charges)
        .map(|(no, it)| (no, it.kind.as_str(), it.code.as_str(), it.amount_minor))
        .collect();
    let shown: BTreeSet<(i32, &str, &str, i64)> =
        rows.iter().map(|row| (row.charge_no, row.kind.as_str(), row.code.as_str(), row.amount_minor)).collect();
    if said == shown && rows.len() == said.len() { Vec::new() } else { vec!["its charges differ".into()] }
}

/// What the ledger remembers is what its events add up to.
fn ledger_faults(state: &OrderState, life: &Life<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    if state.accepted != life.accepted.is_some() {
        faults.push("the ledger and its events disagree whether it was accepted".into());
        return faults;
    }
    for line in &state.lines {
        let units = life.units.get(&line.line_no).copied().unwrap_or_default();
        let remembered = (line.claimed + line.pinned, line.shipped, line.cancelled);
        let said = (units.reserved, units.shipped, units.cancelled);
        if remembered != said {
            faults.push(format!(
                "line {}: the ledger remembers reserved, shipped, cancelled {remembered:?}, its events say {said:?}",
                line.line_no
            ));
        }
    }
    if let Some(accepted) = life.accepted {
        let said = (accepted.order.total_minor, accepted.revision, accepted.order_no);
        let remembered = (state.total_minor, state.revision, state.order_no);
        if said != remembered {
            faults.push(format!("the ledger remembers total, revision, number {remembered:?}, it was {said:?}"));
        }
    }
    let open: BTreeSet<&str> = life.holds.iter().filter(|(_, hold)| hold.open()).map(|(hold_id, _)| *hold_id).collect();
    let remembered: BTreeSet<&str> = state.holds.iter().map(|hold| hold.hold_id.as_str()).collect();
    if open != remembered {
        faults.push(format!("the ledger remembers {} open holds, its events say {}", remembered.len(), open.len()));
    }
    if let Some(paid) = life.paid {
        let it = &state.payment;
        let remembered = (it.authorised_minor, it.captured_minor, it.refunded_minor);
        let said = (paid.authorised_minor, paid.captured_minor, paid.refunded_minor);
        if remembered != said {
            faults.push(format!("the ledger remembers money {remembered:?}, its events say {said:?}"));
        }
    }
    faults
}

/// Every event is in the timeline once, by its number and kind.
fn timeline(facts: &Facts, behind: &BTreeSet<OrderId>, verdict: &mut Verdict) {
    let mut shown: BTreeMap<(OrderId, i64), Vec<kept_schemas::Topic>> = BTreeMap::new();
    for (order, seq, topic) in &facts.read.timeline {
        shown.entry((*order, *seq)).or_default().push(*topic);
    }
    for (order, life) in &facts.topics.events {
        for event in life {
            match shown.remove(&(*order, event.seq)).as_deref() {
                Some([topic]) if *topic == event.place.topic => {}
                None if behind.contains(order) => {}
                None => verdict.broken(|| format!("order {order}: event {} is not in the timeline", event.seq)),
                Some(_) => {
                    verdict.broken(|| format!("order {order}: event {} is otherwise in the timeline", event.seq))
                }
            }
        }
    }
    for ((order, seq), _) in shown {
        verdict.broken(|| format!("order {order}: event {seq} is in the timeline, but on no topic"));
    }
}

/// Each message to a customer is asked for once, and shown.
fn notifications(
    facts: &Facts,
    lives: &BTreeMap<OrderId, Life<'_>>,
    behind: &BTreeSet<OrderId>,
    verdict: &mut Verdict,
) {
    let shown: BTreeSet<&str> = facts.read.notifications.iter().map(|(id, _)| id.as_str()).collect();
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    for (order, life) in lives {
        for it in &life.notifications {
            if !asked.insert(&it.notification_id) {
                verdict.broken(|| format!("order {order}: message {} is asked for twice", it.notification_id));
            }
            if !shown.contains(it.notification_id.as_str()) && !behind.contains(order) {
                verdict.broken(|| format!("order {order}: message {} is not shown", it.notification_id));
            }
        }
    }
    for id in shown.difference(&asked) {
        verdict.broken(|| format!("message {id} is shown, but was never asked for"));
    }
}
