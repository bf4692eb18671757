//! Records that cannot be read: kept whole, with the reason, where an engineer finds them.

use kept_processors::ledger::Cause;
use kept_schemas::{Codec, CodecError, Micros, Topic, Wire, events::DeadLetter};
use kept_store::seam::JournalRow;

use crate::{ledger_step::headers, log::LogRecord};

/// How much of a record's bytes is kept when it does not fit whole.
const KEPT_BYTES: usize = 512 * 1024;

/// The dead letter of a record.
pub fn letter(step: &str, record: &LogRecord, reason: &str, at: Micros) -> DeadLetter {
    DeadLetter {
        step: step.to_owned(),
        topic: record.at.topic.name().to_owned(),
        partition: record.at.partition,
        offset: record.offset,
        reason: reason.to_owned(),
        at,
        key: record.key.clone(),
        payload: record.value.clone(),
    }
}

/// Its bytes. A record as large as the limit does not fit with its reason; then its tail is cut off, and it says so.
pub fn encode(codec: &Codec, mut letter: DeadLetter) -> Result<Wire, CodecError> {
    match codec.encode(&letter) {
        Err(CodecError::TooLarge(..)) => {
            let whole = letter.payload.as_ref().map_or(0, Vec::len);
            letter.reason = format!("{} (kept: {KEPT_BYTES} of {whole} bytes)", letter.reason);
            if let Some(payload) = &mut letter.payload {
                payload.truncate(KEPT_BYTES);
            }
            if let Some(key) = &mut letter.key {
                key.truncate(KEPT_BYTES / 4);
            }
            codec.encode(&letter)
        }
        other => other,
    }
}

/// A row of the journal that says nothing about an order: the dead letter goes out exactly once, as events do.
pub fn row(
    codec: &Codec,
    step: &str,
    record: &LogRecord,
    cause: &Cause,
    reason: &str,
    at: Micros,
) -> Result<JournalRow, String> {
    let wire = encode(codec, letter(step, record, reason, at)).map_err(|error| error.to_string())?;
    // Named after its place: two unreadable records under one event id are two dead letters.
    let cause = &Cause { event_id: record.place_id(), ..cause.clone() };
    Ok(JournalRow {
        journal_id: 0,
        topic: Topic::DeadLetters,
        key: record.at.topic.name().to_owned(),
        wire,
        headers: headers(step, cause, 0, Topic::DeadLetters),
        order: None,
        cause: cause.clone(),
        index: 0,
    })
}

#[cfg(test)]
mod tests {
    use kept_schemas::{codec::offline, order::MAX_RECORD_BYTES};
    use kept_store::seam::TopicPartition;

    use super::*;

    #[test]
    fn a_record_at_the_size_limit_still_becomes_a_dead_letter() {
        let codec = offline();
        let record = LogRecord {
            at: TopicPartition { topic: Topic::OrdersValidated, partition: 1 },
            offset: 7,
            timestamp: Micros(0),
            key: None,
            value: Some(vec![9; MAX_RECORD_BYTES + 100_000]),
            headers: Default::default(),
        };
        let wire = encode(&codec, letter("ledger", &record, "first byte is 9", Micros(1))).expect("it is cut to fit");
        let read: DeadLetter = codec.decode(&wire.bytes()).expect("it reads").expect("known");
        assert_eq!(read.payload.map(|it| it.len()), Some(KEPT_BYTES));
        assert!(read.reason.starts_with("first byte is 9 (kept:"));
    }
}
