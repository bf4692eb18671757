//! Invariant 1: what senders were told was accepted is in the read model, once, as it was sent; and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{OrderId, Topic};

use super::{
    facts::{Facts, Sent},
    verdict::Verdict,
};

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("accepted", 1, "every accepted order is in the read model once, and none that was not accepted");
    let rows: BTreeMap<OrderId, usize> = facts.read.orders.iter().fold(BTreeMap::new(), |mut rows, row| {
        *rows.entry(row.order_id).or_default() += 1;
        rows
    });
    let by_log: BTreeSet<OrderId> =
        facts.logs.sent.iter().filter(|it| it.accepted && it.kind == "order").map(|it| it.order_id).collect();
    let on_topics: BTreeSet<OrderId> = (facts.topics.inbound.iter().filter(|it| it.kind == "order"))
        .map(|it| it.order_id)
        .chain(facts.topics.received.iter().map(|it| it.order_id))
        .collect();
    verdict.count("orders in senders' logs", by_log.len());
    verdict.count("orders on topics", on_topics.len());
    verdict.count("orders in the read model", facts.read.orders.len());
    if facts.logs.sent_files == 0 {
        verdict.notes.push("no senders' logs: checked against channels.inbound and orders.received alone".into());
    }

    let behind = orders_under_way(facts);
    for order in by_log.union(&on_topics) {
        match rows.get(order) {
            Some(1) => {}
            Some(times) => verdict.broken(|| format!("order {order} is in the read model {times} times")),
            None if behind.contains(order) => {
                verdict.in_flight(|| format!("order {order} is not in the read model yet"));
            }
            None if unreadable(facts, *order) => {}
            None => verdict.broken(|| format!("order {order} was accepted and is not in the read model")),
        }
    }
    for order in rows.keys() {
        if !by_log.contains(order) && !on_topics.contains(order) {
            verdict.broken(|| format!("order {order} is in the read model, but nobody sent it"));
        }
    }
    // By another id, but the same order of the same shop.
    let mut numbers: BTreeMap<(&str, &str), OrderId> = BTreeMap::new();
    for row in &facts.read.orders {
        if let Some(other) = numbers.insert((&row.shop, &row.channel_order_id), row.order_id)
            && other != row.order_id
        {
            verdict.broken(|| format!("orders {other} and {} have the same number of the same shop", row.order_id));
        }
    }
    bodies(facts, &mut verdict);
    content(facts, &mut verdict);
    verdict
}

/// Each body a sender was told was accepted is on the topic, to the byte.
fn bodies(facts: &Facts, verdict: &mut Verdict) {
    let stored: BTreeSet<(OrderId, &str)> =
        facts.topics.inbound.iter().map(|it| (it.order_id, it.body_sha256.as_str())).collect();
    let mut counted = 0;
    for sent in facts.logs.sent.iter().filter(|it| it.accepted && !it.body_sha256.is_empty()) {
        counted += 1;
        if !stored.contains(&(sent.order_id, sent.body_sha256.as_str())) {
            let Sent { order_id, kind, .. } = sent;
            verdict.broken(|| format!("the {kind} sent for order {order_id} was accepted, but its body is not stored"));
        }
    }
    verdict.count("accepted bodies", counted);
}

/// An order says what one of its accepted bodies said: lines, units and, to the cent, its total.
fn content(facts: &Facts, verdict: &mut Verdict) {
    let mut said: BTreeMap<OrderId, Vec<&Sent>> = BTreeMap::new();
    for sent in facts.logs.sent.iter().filter(|it| it.accepted && it.kind == "order") {
        said.entry(sent.order_id).or_default().push(sent);
    }
    let mut lines: BTreeMap<OrderId, (i64, i64)> = BTreeMap::new();
    for line in &facts.read.lines {
        let sum = lines.entry(line.order_id).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(line.quantity));
    }
    for row in facts.read.orders.iter().filter(|row| row.revision == 0) {
        let Some(said) = said.get(&row.order_id) else { continue };
        let (count, units) = lines.get(&row.order_id).copied().unwrap_or_default();
        let agrees = |sent: &&&Sent| {
            sent.lines.is_none_or(|it| it == count)
                && sent.units.is_none_or(|it| it == units)
                && sent.total_minor.is_none_or(|it| it == row.total_minor)
        };
        if !said.iter().any(|sent| agrees(&sent)) {
            let sent = said[0];
            verdict.broken(|| {
                format!(
                    "order {} was sent with {} lines, {} units, {} cents and is here with {count}, {units}, {}",
                    row.order_id,
                    sent.lines.unwrap_or_default(),
                    sent.units.unwrap_or_default(),
                    sent.total_minor.unwrap_or_default(),
                    row.total_minor
                )
            });
        }
    }
}

/// Orders with records that a step, the ledger or the sink has not come to, or that are parked.
pub fn orders_under_way(facts: &Facts) -> BTreeSet<OrderId> {
    let mut orders: BTreeSet<OrderId> = facts.ledger.parked.iter().map(|it| it.order_id).collect();
    for record in &facts.topics.records {
        let Some(order) = record.order else { continue };
        let (topic, place) = (record.place.topic, record.place);
        let waits_for_step =
            super::steps::reader_of(topic).is_some() && !record.fused && !facts.groups.steps_did(place);
        let waits_for_ledger = Topic::LEDGER_INPUTS.contains(&topic) && !facts.groups.ledger_emitted(place);
        let waits_for_sink = topic == Topic::OrdersAccepted && !facts.read.took(place);
        if waits_for_step || waits_for_ledger || waits_for_sink {
            orders.insert(order);
        }
    }
    orders
}

/// A dead letter holds the order; the conservation check counts it.
fn unreadable(facts: &Facts, order: OrderId) -> bool {
    facts.topics.dead_letters.iter().any(|letter| letter.order == Some(order))
}
