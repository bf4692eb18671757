//! Invariant 3: an order's events are numbered without a gap, follow their causes, and tell a possible story.

use std::collections::{BTreeMap, BTreeSet};

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{OrderId, Topic, events::NoteKind};

use super::{
    facts::{Facts, OrderEvent, Place, Record, Step},
    verdict::Verdict,
};

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("history", 3, "each order's events are numbered 1, 2, 3 …, follow their causes, and are possible");
    let cut: BTreeSet<Topic> =
        facts.topics.extents.iter().filter(|(_, extent)| extent.start > 0).map(|((topic, _), _)| *topic).collect();
    let mut events = 0;
    for (order, life) in &facts.topics.events {
        events += life.len();
        if numbered(*order, life, facts, &mut verdict) {
            for fault in story(life) {
                verdict.broken(|| format!("order {order}: {fault}"));
            }
        }
    }
    verdict.count("orders", facts.topics.events.len());
    verdict.count("events", events);
    causes(facts, &cut, &mut verdict);
    for topic in &facts.ledger.made_anew {
        verdict.notes.push(format!("{topic} was made anew: causes in the old one are not looked at"));
    }
    if !cut.is_empty() {
        verdict.notes.push("some topics no longer hold their oldest records; those are not checked".into());
    }
    verdict
}

/// True when the numbers are 1, 2, 3 … and the story can be followed.
fn numbered(order: OrderId, life: &[OrderEvent], facts: &Facts, verdict: &mut Verdict) -> bool {
    let known = facts.ledger.states.get(&order).map_or(0, |state| state.seq);
    for (expected, event) in (1..).zip(life) {
        if event.seq != expected {
            let place = event.place;
            verdict.broken(|| format!("order {order}: number {expected} is not there; {place} has {}", event.seq));
            return false;
        }
    }
    let last = life.last().map_or(0, |event| event.seq);
    if last < known {
        verdict.in_flight(|| format!("order {order} has {known} events, of which {last} are on topics"));
    } else if last > known {
        verdict.broken(|| format!("order {order} has {last} events on topics, but the ledger knows of {known}"));
    }
    true
}

/// Each event comes after the record that caused it, and records of one partition are answered in their order.
fn causes(facts: &Facts, cut: &BTreeSet<Topic>, verdict: &mut Verdict) {
    let by_place: BTreeMap<Place, &Record> = facts
        .topics
        .records
        .iter()
        .filter(|record| Topic::LEDGER_INPUTS.contains(&record.place.topic))
        .map(|record| (record.place, record))
        .collect();
    let by_id: BTreeMap<_, &Record> = facts
        .topics
        .records
        .iter()
        .filter(|it| it.step == Some(Step::Ledger) && it.order.is_some())
        .map(|it| (it.event_id, it))
        .collect();
    for record in by_id.values() {
        let Some(cause) = record.cause else {
            verdict.broken(|| format!("{} does not say what caused it", record.place));
            continue;
        };
        let anew = facts.ledger.made_anew.contains(&cause.topic);
        match by_place.get(&cause) {
            None if cut.contains(&cause.topic) || anew => {}
            Some(it) if anew && record.cause_id != Some(it.event_id) => {}
            None => verdict.broken(|| format!("{} was caused by {cause}, which is not there", record.place)),
            Some(it) if record.cause_id != Some(it.event_id) && record.place.topic != Topic::DeadLetters => {
                verdict.broken(|| format!("{} names {cause} as its cause, but another event id", record.place));
            }
            Some(it) if it.at > record.at => {
                verdict.broken(|| format!("{} is older than its cause {cause}", record.place));
            }
            Some(_) => {}
        }
    }
    for (order, life) in &facts.topics.events {
        let mut last: BTreeMap<(Topic, i32), i64> = BTreeMap::new();
        for event in life {
            let cause = by_id.get(&event.event_id).and_then(|record| record.cause);
            let Some(cause) = cause.filter(|it| !facts.ledger.made_anew.contains(&it.topic)) else { continue };
            let before = last.insert((cause.topic, cause.partition), cause.offset);
            if before.is_some_and(|before| before > cause.offset) {
                verdict.broken(|| {
                    format!("order {order}: number {} answers {cause}, after a later record was answered", event.seq)
                });
            }
        }
    }
}

/// What an order's own decisions presuppose. Facts from the world may come in any order and are always possible.
#[derive(Default)]
struct Story<'a> {
    revision: Option<i32>,
    quantity: BTreeMap<i32, i64>,
    cancelled: BTreeMap<i32, i64>,
    open: BTreeSet<&'a str>,
    ever: BTreeSet<&'a str>,
    released: bool,
    requested: BTreeSet<&'a str>,
    whole_cancelled: bool,
}

/// What is impossible in a life whose numbers are right.
fn story(life: &[OrderEvent]) -> Vec<String> {
    let mut story = Story::default();
    let mut faults = Vec::new();
    for event in life {
        if let Some(fault) = story.step(&event.event) {
            faults.push(format!("number {} ({}): {fault}", event.seq, event.place.topic));
        }
    }
    faults
}

impl<'a> Story<'a> {
    fn step(&mut self, event: &'a LedgerEvent) -> Option<String> {
        let accepted = self.revision.is_some();
        match event {
            LedgerEvent::Accepted(it) => {
                let expected = self.revision.map_or(0, |revision| revision + 1);
                let first = self.revision.is_none();
                self.revision = Some(it.revision);
                self.quantity = it.order.lines.iter().map(|line| (line.line_no, line.quantity)).collect();
                // A placeholder may have been corrected before it was ever accepted; a revision never goes back.
                (it.revision < expected || (first && it.revision != 0))
                    .then(|| format!("revision {} where {expected} was due", it.revision))
            }
            LedgerEvent::Held(it) => it.holds.iter().find_map(|hold| {
                self.open.insert(&hold.hold_id);
                (!self.ever.insert(&hold.hold_id)).then(|| format!("hold {} is opened again", hold.hold_id))
            }),
            LedgerEvent::Unheld(it) => it.holds.iter().find_map(|hold| {
                (!self.open.remove(hold.hold_id.as_str()))
                    .then(|| format!("hold {} is resolved, but is not open", hold.hold_id))
            }),
            LedgerEvent::Released(_) => {
                self.released = true;
                match (accepted, self.open.first()) {
                    (false, _) => Some("released before it was accepted".into()),
                    (true, Some(hold)) => Some(format!("released while hold {hold} is open")),
                    (true, None) if self.whole_cancelled => Some("released although it is cancelled".into()),
                    (true, None) => None,
                }
            }
            LedgerEvent::Requested(it) => {
                if !self.requested.insert(&it.fulfilment_id) {
                    return Some(format!("fulfilment {} is asked for again", it.fulfilment_id));
                }
                match self.open.first() {
                    _ if !self.released => Some("a location is asked to ship before the release".into()),
                    Some(hold) => Some(format!("a location is asked to ship while hold {hold} is open")),
                    None if self.whole_cancelled => Some("a location is asked to ship a cancelled order".into()),
                    None => None,
                }
            }
            LedgerEvent::Withdrawn(it) => (!self.requested.contains(it.fulfilment_id.as_str()))
                .then(|| format!("fulfilment {} is withdrawn, but was never asked for", it.fulfilment_id)),
            LedgerEvent::Cancelled(it) => {
                self.whole_cancelled |= it.whole;
                it.lines.iter().find_map(|line| {
                    let sum = self.cancelled.entry(line.line_no).or_default();
                    *sum = sum.saturating_add(line.quantity);
                    let most = self.quantity.get(&line.line_no).copied().unwrap_or(0);
                    (accepted && (line.quantity < 0 || *sum > most))
                        .then(|| format!("line {}: {} of {most} cancelled", line.line_no, *sum))
                })
            }
            LedgerEvent::Completed(_) => match self.open.first() {
                _ if !accepted => Some("complete before it was accepted".into()),
                Some(hold) => Some(format!("complete while hold {hold} is open")),
                None => None,
            },
            LedgerEvent::Reserved(_) | LedgerEvent::Backordered(_) | LedgerEvent::Posting(_) => {
                (!accepted).then(|| "decided before the order was accepted".into())
            }
            LedgerEvent::Noted(it) => (it.kind == NoteKind::Unknown).then(|| "a note of an unknown kind".into()),
            LedgerEvent::Paid(_)
            | LedgerEvent::Revised(_)
            | LedgerEvent::Despatched(_)
            | LedgerEvent::Tracked(_)
            | LedgerEvent::Notification(_)
            | LedgerEvent::Stock(_)
            | LedgerEvent::Woken(_) => None,
        }
    }
}
