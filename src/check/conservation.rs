//! Invariant 8: what came in = what is done + under way + waiting + held + could not be read. Nothing leaks.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{Micros, OrderId};

use super::{
    endings::{Standing, standing},
    facts::{DeadLetter, Facts},
    verdict::Verdict,
};

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("conservation", 8, "orders in = done + on their way + at a location + held + unreadable");
    let ins: BTreeSet<OrderId> = facts
        .logs
        .sent
        .iter()
        .filter(|it| it.accepted && it.kind == "order")
        .map(|it| it.order_id)
        .chain(facts.topics.inbound.iter().filter(|it| it.kind == "order").map(|it| it.order_id))
        .chain(facts.topics.received.iter().map(|it| it.order_id))
        .collect();
    let parked: BTreeSet<OrderId> = facts.ledger.parked.iter().map(|it| it.order_id).collect();
    let letters: BTreeSet<OrderId> = facts.topics.dead_letters.iter().filter_map(|it| it.order).collect();
    let under_way = super::accepted::orders_under_way(facts);
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for order in &ins {
        let state = facts.ledger.states.get(order).filter(|state| state.accepted);
        let place = match (state.map(standing), parked.contains(order)) {
            (_, true) => "parked for an engineer",
            (Some(Standing::Done), _) => "done",
            (Some(Standing::OnItsWay), _) => "on their way to the customer",
            (Some(Standing::AtALocation), _) => "at a location",
            (Some(Standing::Held), _) => "held or waiting",
            (Some(Standing::Placeholder | Standing::Forgotten), _) => "between two steps",
            (None, _) if under_way.contains(order) => "between two steps",
            (None, _) if letters.contains(order) => "unreadable (dead letters)",
            (None, _) => {
                verdict.broken(|| format!("order {order} came in and is nowhere"));
                continue;
            }
        };
        *counts.entry(place).or_default() += 1;
        if place == "between two steps" {
            verdict.in_flight(|| format!("order {order} is between two steps"));
        }
    }
    for (order, state) in &facts.ledger.states {
        if state.accepted && !ins.contains(order) {
            verdict.broken(|| format!("order {order} is on the books, but never came in"));
        }
    }
    verdict.count("orders in", ins.len());
    for (place, count) in counts {
        verdict.count(place, count);
    }
    dead_letters(facts, &mut verdict);
    verdict
}

/// People see every dead letter, and no other. They are shown for thirty days; a topic may keep a few a little longer.
fn dead_letters(facts: &Facts, verdict: &mut Verdict) {
    let young = |it: &&DeadLetter| it.at.0 > facts.now.0 - 29 * Micros::DAY;
    let said: BTreeSet<_> = facts.topics.dead_letters.iter().filter(young).map(|it| it.place).collect();
    let shown: BTreeSet<_> = facts.read.dead_letters.iter().copied().collect();
    let behind = facts.topics.extents.iter().any(|((topic, partition), extent)| {
        *topic == kept_schemas::Topic::DeadLetters
            && facts.read.progress.get(&(*topic, *partition)).copied().unwrap_or(0) < extent.stable_end
    });
    for place in said.difference(&shown) {
        verdict.broken_or_in_flight(!behind, || format!("the dead letter of {place} is not in the read model"));
    }
    verdict.count("dead letters", said.len());
    let reasons: BTreeMap<&str, usize> = facts.topics.dead_letters.iter().fold(BTreeMap::new(), |mut all, it| {
        *all.entry(it.reason.as_str()).or_default() += 1;
        all
    });
    for (reason, times) in reasons.into_iter().take(5) {
        verdict.notes.push(format!("{times} dead letters: {reason}"));
    }
}
