//! Invariant 4: stock rows are the fold of their movements, and promises are never more than there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kept_processors::ledger::{FulfilmentStatus, LedgerEvent};
use kept_schemas::{EventId, OrderId};

use super::{
    facts::{Counts, Facts, Move, StockName},
    verdict::Verdict,
};

/// Each row: an unbroken chain of movements, `0 ≤ picked ≤ reserved ≤ on hand` after each, the last one the row as the
/// ledger, the topic and the read model have it.
pub fn rows(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("stock", 4, "each stock row is the sum of its movements, and never promised beyond what is there");
    let mut chains: BTreeMap<&StockName, Vec<&Move>> = BTreeMap::new();
    for entry in &facts.ledger.entries {
        chains.entry(&entry.row).or_default().push(entry);
    }
    verdict.count("stock rows", facts.ledger.stock.len());
    verdict.count("movements", facts.ledger.entries.len());
    for (name, chain) in &mut chains {
        chain.sort_by_key(|entry| entry.version);
        if let Some(fault) = chain_fault(chain) {
            verdict.broken(|| format!("{name}: {fault}"));
        }
    }
    for (name, (counts, version)) in &facts.ledger.stock {
        let last = chains.get(name).and_then(|chain| chain.last());
        match last {
            Some(last) if last.now == *counts && last.version == *version => {}
            Some(last) => verdict.broken(|| {
                format!("{name} is {} in version {version}, but its movements say {}", shown(counts), shown(&last.now))
            }),
            None if *counts == Counts::default() => {}
            None => verdict.broken(|| format!("{name} is {}, but nothing ever moved there", shown(counts))),
        }
    }
    for name in chains.keys().filter(|name| !facts.ledger.stock.contains_key(**name)) {
        verdict.broken(|| format!("{name} has movements and no row"));
    }
    said(facts, &mut verdict);
    shown_to_people(facts, &mut verdict);
    verdict
}

fn shown(counts: &Counts) -> String {
    let Counts { on_hand, reserved, picked, unbacked } = counts;
    let not_found = if *unbacked == 0 { String::new() } else { format!(", {unbacked} pinned and not found") };
    format!("{on_hand} on hand, {reserved} reserved, {picked} picked{not_found}")
}

/// What is wrong with a row's movements, in the order of their versions.
fn chain_fault(chain: &[&Move]) -> Option<String> {
    let mut before = Counts::default();
    for (expected, entry) in (1..).zip(chain) {
        let Move { version, movement, quantity, now, .. } = entry;
        if *version != expected {
            return Some(format!("movement {expected} is missing or there twice: found {version}"));
        }
        let within = 0 <= now.picked && now.picked <= now.reserved && now.reserved <= now.on_hand && 0 <= now.unbacked;
        if !within {
            return Some(format!("after movement {version} ({movement}) it was {}", shown(now)));
        }
        if !follows(&before, movement, *quantity, now) {
            return Some(format!(
                "movement {version} ({movement} {quantity}) does not lead from {} to {}",
                shown(&before),
                shown(now)
            ));
        }
        before = *now;
    }
    None
}

/// Whether a movement leads from one state to the next. Picked goods are in someone's hands: they are there, whatever
/// was counted; and what is pinned and was not found stays pinned.
fn follows(before: &Counts, movement: &str, units: i64, now: &Counts) -> bool {
    let on_hand = now.on_hand - before.on_hand;
    let (pinned, picked) = (now.pinned() - before.pinned(), now.picked - before.picked);
    // What is pinned and there is as much as can be.
    let found = now.reserved == now.pinned().min(now.on_hand);
    match movement {
        "count" => (pinned, picked) == (0, 0) && found && now.on_hand == units.max(0) + now.picked,
        "receipt" => {
            let said = (before.on_hand + units).max(now.picked);
            // A mistyped receipt is cut, so that sums hold.
            (pinned, picked) == (0, 0) && found && (now.on_hand == said || now.on_hand == MOST)
        }
        "pin" => (on_hand, pinned, picked) == (0, units, 0) && now.unbacked == before.unbacked,
        "unpin" => on_hand == 0 && pinned == -units && (-units..=0).contains(&picked),
        // More than were thought to be there are found by picking them.
        "pick" => pinned == 0 && picked == units && on_hand == before.unbacked - now.unbacked,
        "short" => pinned == -units && (-units..=0).contains(&picked) && (-units..=0).contains(&on_hand),
        // Of what left, some may not have been pinned, or not have been thought to be there.
        "despatch" => (pinned == -units || pinned == 0) && (-units..=0).contains(&on_hand) && picked <= 0,
        _ => false,
    }
}

/// No shelf is said to hold more.
const MOST: i64 = 1_000_000_000_000;

/// `stock.changed` says what the ledger's own table says, movement by movement.
fn said(facts: &Facts, verdict: &mut Verdict) {
    let table: BTreeMap<EventId, &Move> = facts.ledger.entries.iter().map(|entry| (entry.event_id, entry)).collect();
    for change in &facts.topics.moves {
        match table.get(&change.event_id) {
            Some(entry) if *entry == change => {}
            Some(_) => verdict.broken(|| {
                format!("{}: stock.changed says version {} otherwise than the ledger", change.row, change.version)
            }),
            None => verdict
                .broken(|| format!("{}: stock.changed has version {}, the ledger has not", change.row, change.version)),
        }
    }
}

/// The read model's rows are the latest that was said.
fn shown_to_people(facts: &Facts, verdict: &mut Verdict) {
    let mut latest: BTreeMap<&StockName, &Move> = BTreeMap::new();
    for change in &facts.topics.moves {
        let row = latest.entry(&change.row).or_insert(change);
        if row.version < change.version {
            *row = change;
        }
    }
    for (name, change) in &latest {
        match facts.read.stock.get(*name) {
            // Units that a count did not find are nobody's business but the ledger's.
            Some((counts, version))
                if *counts == Counts { unbacked: 0, ..change.now } && *version == change.version => {}
            row if row.is_none_or(|row| row.1 < change.version) && sink_is_behind(facts) => {
                verdict.in_flight(|| format!("{name} is not up to date in the read model"));
            }
            _ => verdict.broken(|| format!("{name} is otherwise in the read model than stock.changed says")),
        }
    }
    for name in facts.read.stock.keys().filter(|name| !latest.contains_key(*name)) {
        verdict.broken(|| format!("{name} is in the read model, but stock.changed never named it"));
    }
}

fn sink_is_behind(facts: &Facts) -> bool {
    facts.topics.extents.iter().any(|((topic, partition), extent)| {
        *topic == kept_schemas::Topic::StockChanged
            && facts.read.progress.get(&(*topic, *partition)).copied().unwrap_or(0) < extent.stable_end
    })
}

/// What orders hold is what stock rows and claims say is held; and nothing was ever promised that was not there.
pub fn promises(facts: &Facts) -> Verdict {
    let mut verdict = Verdict::new("promises", 4, "what orders claim and pin is what stock says, and was there");
    let mut claims: BTreeMap<&str, i64> = BTreeMap::new();
    let mut pins: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
    for (order, state) in &facts.ledger.states {
        let skus: BTreeMap<i32, &str> = state.lines.iter().map(|line| (line.line_no, line.sku.as_str())).collect();
        for line in &state.lines {
            *claims.entry(&line.sku).or_default() += line.claimed;
            let counters =
                [line.claimed, line.pinned, line.picked, line.shipped, line.cancelled, line.returned, line.refunded];
            if counters.iter().any(|units| *units < 0) || line.picked > line.pinned {
                verdict.broken(|| format!("order {order}: line {} has impossible counters", line.line_no));
            }
            let by_fulfilments: i64 = (state.fulfilments.iter())
                .flat_map(|it| &it.pinned)
                .filter(|(line_no, _)| *line_no == line.line_no)
                .map(|(_, units)| units)
                .sum();
            if by_fulfilments != line.pinned {
                verdict.broken(|| {
                    format!(
                        "order {order}: line {} says {} pinned, its fulfilments {by_fulfilments}",
                        line.line_no, line.pinned
                    )
                });
            }
        }
        for fulfilment in &state.fulfilments {
            let closed = matches!(
                fulfilment.status,
                FulfilmentStatus::Closed | FulfilmentStatus::Declined | FulfilmentStatus::Despatched
            );
            for (line, units) in &fulfilment.pinned {
                if closed && *units != 0 {
                    verdict.broken(|| {
                        format!("order {order}: fulfilment {} is over and pins {units}", fulfilment.fulfilment_id)
                    });
                }
                if let Some(sku) = skus.get(line) {
                    pins.entry((sku, &fulfilment.location_id)).or_default().0 += units;
                }
            }
            for (line, units) in &fulfilment.picked {
                if let Some(sku) = skus.get(line) {
                    pins.entry((sku, &fulfilment.location_id)).or_default().1 += units;
                }
            }
        }
        if let Some(fault) = partial(state) {
            verdict.broken(|| format!("order {order}: {fault}"));
        }
    }
    let skus: BTreeSet<&str> =
        claims.keys().copied().chain(facts.ledger.claims.keys().map(|sku| sku.as_ref())).collect();
    for sku in &skus {
        let (by_orders, kept) =
            (claims.get(sku).copied().unwrap_or(0), facts.ledger.claims.get(*sku).copied().unwrap_or(0));
        if by_orders != kept {
            verdict.broken(|| format!("{sku}: orders claim {by_orders}, the ledger keeps {kept}"));
        }
    }
    let mut open_pins = 0;
    for (name, (counts, _)) in &facts.ledger.stock {
        let held = match name.condition.as_ref() {
            "sellable" => pins.remove(&(name.sku.as_ref(), name.location.as_ref())).unwrap_or_default(),
            _ => (0, 0),
        };
        open_pins += held.0;
        if (counts.pinned(), counts.picked) != held {
            verdict.broken(|| format!("{name} is {}, orders pin {} and have {} picked", shown(counts), held.0, held.1));
        }
    }
    for ((sku, location), held) in pins.into_iter().filter(|(_, held)| *held != (0, 0)) {
        verdict.broken(|| format!("orders pin {} of {sku} at {location}, where no such row is", held.0));
    }
    verdict.count("SKUs", skus.len());
    verdict.count("units claimed", usize::try_from(claims.values().sum::<i64>()).unwrap_or(0));
    verdict.count("units pinned", usize::try_from(open_pins).unwrap_or(0));
    overpromised(facts, &mut verdict);
    verdict
}

/// An order that was sent to a location holds all that is left of it, or says what it waits for.
fn partial(state: &kept_processors::ledger::OrderState) -> Option<String> {
    if !state.accepted || state.completed.is_some() || state.cancelled {
        return None;
    }
    let pinned: i64 = state.lines.iter().map(|line| line.pinned).sum();
    let short = state.lines.iter().find(|line| line.short() > 0)?;
    let waits = state.holds.iter().any(|hold| !hold.hold_id.is_empty());
    (pinned > 0 && !waits).then(|| {
        format!("part of it is at a location, line {} is {} short, and no hold says so", short.line_no, short.short())
    })
}

/// Goes through all decisions in their order: after none that took stock for an order was more promised of a SKU than
/// there is. (A count that finds fewer may bring that about; a decision may not.)
fn overpromised(facts: &Facts, verdict: &mut Verdict) {
    let changes = changes(facts);
    let skus: BTreeMap<(OrderId, i32), Arc<str>> = lines(facts);
    let on_hand: BTreeMap<EventId, (&StockName, i64)> =
        facts.topics.moves.iter().map(|it| (it.event_id, (&it.row, it.now.on_hand))).collect();
    let mut there: BTreeMap<&str, BTreeMap<&StockName, i64>> = BTreeMap::new();
    let mut promised: BTreeMap<&str, i64> = BTreeMap::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let mut rows = facts.ledger.journal.iter().peekable();
    while let Some(row) = rows.next() {
        if let Some((name, units)) = on_hand.get(&row.event_id)
            && name.condition.as_ref() == "sellable"
        {
            there.entry(&name.sku).or_default().insert(name, *units);
        }
        for (order, line, units) in changes.get(&row.event_id).into_iter().flatten() {
            let Some(sku) = skus.get(&(*order, *line)) else { continue };
            *promised.entry(sku).or_default() += units;
            if *units > 0 {
                taken.insert(sku);
            }
        }
        let ends = rows.peek().is_none_or(|next| next.cause != row.cause);
        if !ends {
            continue;
        }
        for sku in std::mem::take(&mut taken) {
            let stock: i64 = there.get(sku).map_or(0, |rows| rows.values().sum());
            let promised = promised.get(sku).copied().unwrap_or(0);
            if promised > stock {
                verdict.broken(|| {
                    format!("{sku}: after the decision about {} {promised} were promised of {stock}", row.cause)
                });
            }
        }
    }
}

/// Per event, how much more (or less) each line of its order has a promise of.
fn changes(facts: &Facts) -> BTreeMap<EventId, Vec<(OrderId, i32, i64)>> {
    let mut changes: BTreeMap<EventId, Vec<(OrderId, i32, i64)>> = BTreeMap::new();
    for (order, life) in &facts.topics.events {
        for event in life {
            let (lines, sign) = match &event.event {
                LedgerEvent::Accepted(it) => (&it.claimed, 1),
                LedgerEvent::Reserved(it) => (&it.lines, 1),
                LedgerEvent::Cancelled(it) => (&it.given_back, -1),
                LedgerEvent::Despatched(it) => (&it.unpinned, -1),
                _ => continue,
            };
            let lines = lines.iter().map(|line| (*order, line.line_no, sign * line.quantity)).collect();
            changes.insert(event.event_id, lines);
        }
    }
    changes
}

fn lines(facts: &Facts) -> BTreeMap<(OrderId, i32), Arc<str>> {
    let mut skus = BTreeMap::new();
    for (order, life) in &facts.topics.events {
        for event in life {
            if let LedgerEvent::Accepted(it) = &event.event {
                for line in &it.order.lines {
                    skus.insert((*order, line.line_no), Arc::from(line.sku.as_str()));
                }
            }
        }
    }
    skus
}
