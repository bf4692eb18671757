//! Invariant 2 for the ledger: what was decided is on its topic, body for body: none lost, none twice, none torn; and
//! every record that was read left a trace.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{EventId, Topic};

use super::{
    facts::{Facts, Place, Record, Step},
    verdict::Verdict,
};

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict = Verdict::new("decisions", 2, "every decision of the ledger is on its topic, to the byte, once");
    let mut emitted: BTreeMap<EventId, (&Record, u32)> = BTreeMap::new();
    let mut records = 0;
    for record in facts.topics.records.iter().filter(|it| it.step == Some(Step::Ledger)) {
        records += 1;
        emitted.entry(record.event_id).or_insert((record, 0)).1 += 1;
    }
    verdict.count("decided events", facts.ledger.journal.len());
    verdict.count("events on topics", records);

    let mut missing: BTreeMap<Place, (u32, Topic)> = BTreeMap::new();
    let mut there: BTreeSet<Place> = BTreeSet::new();
    let mut erased = 0;
    for row in &facts.ledger.journal {
        let Some((record, times)) = emitted.remove(&row.event_id) else {
            missing.entry(row.cause).or_insert((0, row.topic)).0 += 1;
            continue;
        };
        there.insert(row.cause);
        let place = record.place;
        if times > 1 {
            verdict.broken(|| format!("event {} is on {} {times} times", row.event_id, place.topic));
        }
        if place.topic != row.topic {
            verdict.broken(|| format!("event {} was decided for {} and is on {place}", row.event_id, row.topic));
        }
        match row.body {
            None => erased += 1,
            Some(body) if body != record.body => {
                verdict.broken(|| format!("{place} has another body than was decided"));
            }
            Some(_) => {}
        }
        if record.cause != Some(row.cause) || record.cause_id != Some(row.cause_id) || record.index != Some(row.index) {
            verdict.broken(|| format!("{place} names another cause than {}", row.cause));
        }
        if row.event_id != EventId::of_step("ledger", row.cause_id, row.index) {
            verdict.broken(|| format!("{place} does not have the event id that follows from its cause"));
        }
        if !record.readable {
            verdict.broken(|| format!("{place} cannot be read"));
        }
    }
    for (cause, (count, topic)) in missing {
        if facts.topics.extents.iter().any(|((it, _), extent)| *it == topic && extent.start > 0) {
            // Its retention is over; the journal alone remembers.
            verdict.notes.push(format!("the oldest records of {topic} are gone: older events are not compared"));
        } else if there.contains(&cause) {
            verdict.broken(|| format!("the decision about {cause} is torn: {count} of its events are not on topics"));
        } else {
            let lost = facts.groups.ledger_emitted(cause);
            verdict.broken_or_in_flight(lost, || {
                format!("{count} events decided from {cause} (first for {topic}) are not on topics")
            });
        }
    }
    verdict.notes.sort();
    verdict.notes.dedup();
    for (record, _) in emitted.into_values() {
        verdict.broken(|| format!("{} was never decided", record.place));
    }
    if erased > 0 {
        verdict.notes.push(format!("{erased} events are not compared: their person was erased"));
    }
    traces(facts, &mut verdict);
    verdict
}

/// Every record the ledger read was acted on, is parked or is a dead letter; it or its copy: one that was parked is
/// sent again, under the same event id, when its order is let go.
fn traces(facts: &Facts, verdict: &mut Verdict) {
    let parked: BTreeSet<EventId> = facts.ledger.parked.iter().map(|it| it.event_id).collect();
    let letters: BTreeSet<Place> = facts.topics.dead_letters.iter().map(|it| it.place).collect();
    let dead = facts.topics.records.iter().filter(|it| letters.contains(&it.place));
    let dead: BTreeSet<EventId> = dead.map(|it| it.event_id).collect();
    let answered: BTreeSet<EventId> = facts.ledger.journal.iter().map(|row| row.cause_id).collect();
    let acted: BTreeSet<EventId> = facts.ledger.causes.iter().map(|(_, cause)| *cause).collect();
    let mut read = 0;
    for record in &facts.topics.records {
        if !Topic::LEDGER_INPUTS.contains(&record.place.topic) {
            continue;
        }
        if !facts.ledger.decided(record.place) {
            verdict.in_flight(|| format!("{} is not decided yet", record.place));
            continue;
        }
        read += 1;
        let letter = letters.contains(&record.place) || !record.readable && dead.contains(&record.event_id);
        if !letter && !acted.contains(&record.event_id) && !parked.contains(&record.event_id) {
            verdict.broken(|| format!("{} was passed over: nothing was decided about it", record.place));
        }
        if acted.contains(&record.event_id) && !answered.contains(&record.event_id) && says_something(record) {
            verdict.broken(|| format!("{} was decided about, but nothing came of it", record.place));
        }
    }
    verdict.count("records the ledger read", read);
    verdict.count("parked records", facts.ledger.parked.len());
}

/// Something always follows from these, and be it a note; a deadline that was cleared in time, or a wake-up, may be in
/// vain.
fn says_something(record: &Record) -> bool {
    let topics = [Topic::OrdersValidated, Topic::PaymentsReceived, Topic::CommandsReceived, Topic::OutcomesReceived];
    topics.contains(&record.place.topic)
}
