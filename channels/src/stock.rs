//! Stock files: counts and receipts of goods, one JSON object a line, for `kept stock receive`.
//!
//! A line is the same fact however often its file is sent: its id is the file's own `count_id`, or follows from what
//! the line says and how many equal lines stand before it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader},
    path::Path,
};

use kept_runtime::log::Outgoing;
use kept_schemas::{
    Codec, EventId, Headers, Micros, Topic,
    ids::derive,
    inputs::{Condition, StockCounted, StockKind},
    texts,
};
use serde::Deserialize;
use thiserror::Error;

use crate::{import::open::Progress, sender::SendError};

/// The most faults that are told.
const MAX_FAULTS: usize = 20;
/// More units than any shelf holds.
const MAX_QUANTITY: i64 = 1_000_000_000;

/// Why a stock file cannot be used.
#[derive(Debug, Error)]
pub enum StockError {
    #[error("{0} cannot be read: {1}")]
    File(String, #[source] io::Error),
    #[error("nothing was sent, because of\n  {}", .0.join("\n  "))]
    Lines(Vec<String>),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// A line as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sku: String,
    location_id: String,
    quantity: i64,
    kind: Option<String>,
    condition: Option<String>,
    count_id: Option<String>,
    at: Option<String>,
    source: Option<String>,
}

/// Reads a stock file and hands out its facts in file order. `now` stands for a time that a line does not name.
pub fn read(
    path: &Path,
    now: Micros,
    mut each: impl FnMut(StockCounted) -> Result<(), StockError>,
) -> Result<(), StockError> {
    let failed = |error: io::Error| StockError::File(path.display().to_string(), error);
    let progress = Progress::default();
    let mut lines = BufReader::new(crate::import::open::open(path, &progress).map_err(failed)?);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut text = Vec::new();
    let mut row = 0u64;
    loop {
        text.clear();
        row += 1;
        lines.read_until(b'\n', &mut text).map_err(failed)?;
        progress.row();
        if text.is_empty() {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        match fact(text.trim_ascii(), now, &mut seen) {
            Ok(fact) if faults.is_empty() => each(fact)?,
            Ok(_) => {}
            Err(why) => {
                faults.push(format!("line {row}: {why}"));
                if faults.len() == MAX_FAULTS {
                    faults.push("and perhaps more".into());
                    break;
                }
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(StockError::Lines(faults)) }
}

fn fact(text: &[u8], now: Micros, seen: &mut BTreeMap<String, u64>) -> Result<StockCounted, String> {
    let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let texts = [
        ("sku", Some(&line.sku)),
        ("location_id", Some(&line.location_id)),
        ("count_id", line.count_id.as_ref()),
        ("source", line.source.as_ref()),
    ];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
        if name != "source" && text.trim().is_empty() {
            return Err(format!("{name} is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{name} holds a control character"));
        }
    }
    let kind = StockKind::of(line.kind.as_deref().unwrap_or("receipt"));
    if kind == StockKind::Unknown {
        return Err("kind is neither count nor receipt".into());
    }
    let condition = Condition::of(line.condition.as_deref().unwrap_or("sellable"));
    if condition == Condition::Unknown {
        return Err("condition is none of sellable, quarantine, damaged".into());
    }
    if line.quantity.unsigned_abs() > MAX_QUANTITY.unsigned_abs() || (kind == StockKind::Count && line.quantity < 0) {
        return Err("quantity is not possible".into());
    }
    let at = match &line.at {
        None => None,
        Some(text) => {
            Some(Micros::parse_rfc3339(text).ok_or("at is not a time of the form 2026-11-25T10:00:00Z".to_owned())?)
        }
    };
    let count_id = match (line.count_id, at) {
        (Some(id), _) => id,
        (None, None) => {
            return Err("needs count_id or at: without either the same file sent again would count twice".into());
        }
        (None, Some(at)) => {
            let says = format!("{}\n{}\n{condition}\n{kind}\n{}\n{}", line.sku, line.location_id, line.quantity, at.0);
            let times = seen.entry(says.clone()).or_default();
            *times += 1;
            derive("stock line", &[says.as_bytes(), &times.to_be_bytes()]).to_string()
        }
    };
    let fact = StockCounted {
        sku: line.sku,
        location_id: line.location_id,
        condition,
        count_id,
        kind,
        quantity: line.quantity,
        at: at.unwrap_or(now),
        source: line.source.unwrap_or_else(|| if kind == StockKind::Count { "count" } else { "feed" }.into()),
    };
    // What the ledger would make a dead letter of is told to whoever wrote the file.
    texts::stock(&fact)?;
    Ok(fact)
}

/// A fact as a record of `stock.counted`.
pub fn record(codec: &Codec, fact: &StockCounted) -> Result<Outgoing, SendError> {
    let wire = codec.encode(fact).map_err(|error| SendError::Record(fact.sku.clone(), error))?;
    let place = format!("{}\n{}\n{}", fact.sku, fact.location_id, fact.condition);
    let headers = Headers {
        event_id: Some(EventId::of_input(&format!("stock {}", fact.source), &fact.count_id, place.as_bytes())),
        subject: Some(Topic::StockCounted.subject().into()),
        ..Headers::default()
    };
    Ok(Outgoing::new(Topic::StockCounted, &fact.sku, &wire, headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Result<Vec<StockCounted>, String> {
        let mut seen = BTreeMap::new();
        text.lines().map(|line| fact(line.as_bytes(), Micros(7), &mut seen)).collect()
    }

    #[test]
    fn a_line_is_the_same_fact_in_every_run_and_two_equal_lines_are_two_facts() {
        let text = r#"{"sku":"A","location_id":"DC1","quantity":5,"at":"2026-11-25T10:00:00Z"}
{"sku":"A","location_id":"DC1","quantity":5,"at":"2026-11-25T10:00:00Z"}
{"sku":"A","location_id":"DC1","quantity":3,"kind":"count","count_id":"c-1"}"#;
        let one = facts(text).unwrap();
        assert_eq!(one, facts(text).unwrap());
        assert_ne!(one[0].count_id, one[1].count_id);
        assert_eq!((one[2].count_id.as_str(), one[2].at, one[2].source.as_str()), ("c-1", Micros(7), "count"));
        let mut codec = Codec::default();
        codec.register(Topic::StockCounted, 9).unwrap();
        let ids: Vec<_> = one.iter().map(|it| record(&codec, it).unwrap().headers.event_id).collect();
        assert!(ids[0] != ids[1] && ids.iter().all(Option::is_some));
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_refused() {
        let table = [
            (r#"{"sku":"A","location_id":"D","quantity":1}"#, "needs count_id or at"),
            (r#"{"sku":"","location_id":"D","quantity":1,"count_id":"1"}"#, "sku is empty"),
            (r#"{"sku":"A","location_id":"D","quantity":1.5,"count_id":"1"}"#, "expected i64"),
            (r#"{"sku":"A","location_id":"D","quantity":-1,"kind":"count","count_id":"1"}"#, "quantity"),
            (r#"{"sku":"A","location_id":"D","quantity":1,"kind":"guess","count_id":"1"}"#, "kind is neither"),
            (r#"{"sku":"A","location_id":"D","quantity":1,"condition":"wet","count_id":"1"}"#, "condition"),
            (r#"{"sku":"A","location_id":"D","quantity":1,"at":"today"}"#, "at is not a time"),
            (r#"{"sku":"A","location_id":"D","quantity":1,"count_id":"1","qty":2}"#, "unknown field"),
            ("[]", "invalid"),
        ];
        for (text, said) in table {
            let error = facts(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let long = "x".repeat(201);
        for (field, sound) in [("sku", "A"), ("location_id", "D"), ("count_id", "1"), ("source", "feed")] {
            let all = [("sku", "A"), ("location_id", "D"), ("count_id", "1"), ("source", "feed")];
            let with = |text: &str| {
                let mut line = serde_json::json!({"quantity": 1});
                for (name, usual) in all {
                    line[name] = if name == field { text.into() } else { usual.into() };
                }
                facts(&line.to_string()).map(|it| it.len())
            };
            assert_eq!(with(sound), Ok(1));
            assert_eq!(with("a\0b"), Err(format!("{field} holds a control character")));
            assert_eq!(with("a\nb"), Err(format!("{field} holds a control character")));
            assert_eq!(with(&long), Err(format!("{field} is longer than 200 characters")));
        }
    }
}
