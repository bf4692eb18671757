//! Invariant 2 for the steps that remember nothing: each record gave exactly its results, in one transaction, once.

use std::collections::BTreeMap;

use kept_schemas::{EventId, Topic};

use super::{
    facts::{Facts, Place, Record, Step},
    verdict::Verdict,
};

/// The step that reads a topic; written down here once more, so that the shipped table is checked and not trusted.
pub fn reader_of(topic: Topic) -> Option<Step> {
    match topic {
        Topic::ChannelsInbound => Some(Step::Normalise),
        Topic::OrdersReceived | Topic::OrdersRevised => Some(Step::Enrich),
        Topic::OrdersEnriched => Some(Step::Validate),
        _ => None,
    }
}

/// What a step made of one record: by the place its transaction began at, and the record's event id.
type Key = (Step, Place, EventId);

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("steps", 2, "normalise, enrich and validate made exactly one result of every record");
    let mut made: BTreeMap<Key, Vec<&Record>> = BTreeMap::new();
    let mut results = 0;
    for record in &facts.topics.records {
        let Some(step @ (Step::Normalise | Step::Enrich | Step::Validate)) = record.step else { continue };
        if record.place.topic == Topic::DeadLetters {
            continue;
        }
        results += 1;
        match (record.cause, record.cause_id) {
            (Some(cause), Some(id)) => made.entry((step, cause, id)).or_default().push(record),
            _ => verdict.broken(|| format!("{} does not say what it was made from", record.place)),
        }
    }
    let letters: BTreeMap<Place, usize> = facts.topics.dead_letters.iter().fold(BTreeMap::new(), |mut all, it| {
        *all.entry(it.place).or_default() += 1;
        all
    });
    let mut inputs = 0;
    for record in &facts.topics.records {
        let Some(step) = reader_of(record.place.topic) else { continue };
        inputs += 1;
        let origin = record.origin();
        let results = made.remove(&(step, origin, record.event_id)).unwrap_or_default();
        match (results.as_slice(), letters.get(&record.place)) {
            ([], None) if !record.fused && !facts.groups.steps_did(record.place) => {
                verdict.in_flight(|| format!("{} is not {}d yet", record.place, step.name()));
            }
            ([], None) => verdict.broken(|| format!("{} gave nothing: {} lost it", record.place, step.name())),
            ([], Some(1)) => {}
            ([], Some(times)) => verdict.broken(|| format!("{} is a dead letter {times} times", record.place)),
            (_, Some(_)) => {
                verdict.broken(|| format!("{} is a dead letter and has results of {} too", record.place, step.name()));
            }
            (results, None) => {
                for fault in faults(step, record, results) {
                    verdict.broken(|| fault);
                }
            }
        }
    }
    for ((step, cause, _), records) in made {
        // Older records than the topic still holds cannot be looked up.
        if facts.topics.extents.get(&(cause.topic, cause.partition)).is_none_or(|it| cause.offset >= it.start) {
            let first = records[0].place;
            verdict.broken(|| format!("{first} says that {} made it from {cause}, which is not there", step.name()));
        }
    }
    open_transactions(facts, &mut verdict);
    verdict.count("records read", inputs);
    verdict.count("results", results);
    verdict.count("dead letters", facts.topics.dead_letters.len());
    verdict
}

/// What is wrong with a step's results of one record.
fn faults(step: Step, cause: &Record, results: &[&Record]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut indexes: Vec<u32> = results.iter().filter_map(|it| it.index).collect();
    indexes.sort_unstable();
    if indexes.windows(2).any(|pair| pair[0] == pair[1]) {
        faults.push(format!("{} was {}d twice", cause.place, step.name()));
    } else if (0..).zip(&indexes).any(|(expected, index)| expected != *index) || indexes.len() != results.len() {
        faults.push(format!("{} of {} is torn: results {indexes:?}", step.name(), cause.place));
    }
    for result in results {
        let right = EventId::of_step(step.name(), cause.event_id, result.index.unwrap_or_default());
        if result.event_id != right {
            faults.push(format!("{} does not have the event id that follows from its cause", result.place));
        }
        if cause.order.is_some() && result.order != cause.order {
            faults.push(format!("{} is keyed by another order than its cause {}", result.place, cause.place));
        }
        if !result.readable {
            faults.push(format!("{} cannot be read", result.place));
        }
    }
    faults
}

/// A transaction that is open holds back everything after it.
fn open_transactions(facts: &Facts, verdict: &mut Verdict) {
    for ((topic, partition), extent) in &facts.topics.extents {
        if extent.stable_end < extent.end {
            verdict.in_flight(|| {
                format!("{topic}/{partition} has an open transaction: {} to {}", extent.stable_end, extent.end)
            });
        }
    }
}
