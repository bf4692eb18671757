//! Sending a record to its topic again, as the same event: parked records and dead letters that may be decided now.

use std::time::{Duration, Instant};

use kept_schemas::{Headers, Topic};
use kept_store::{parked::ParkedRecord, seam::TopicPartition};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    config::Config,
    kafka::{client_config, record},
    log::{LogRecord, Outgoing},
};

/// A parked record, to be sent again. It is the same event, so a repeat of it is recognised; and its key names the order
/// that it is parked for, whatever it was, so that it is known as the one that waits there.
pub fn parked(record: &ParkedRecord) -> Outgoing {
    Outgoing {
        topic: record.topic,
        key: record.order_id.to_string().into_bytes(),
        value: record.payload.clone(),
        headers: Headers {
            event_id: Some(record.event_id),
            subject: Some(record.topic.subject().into()),
            traceparent: record.traceparent.clone(),
            ..Headers::default()
        },
    }
}

/// A record as it stands in its topic, to be sent again as the same event. A fused step's mark is left out: it says
/// that the next steps are done, and they are not.
pub fn again(record: &LogRecord) -> Outgoing {
    let headers = Headers { event_id: Some(record.event_id()), fused_by: None, ..record.headers.clone() };
    Outgoing {
        topic: record.at.topic,
        key: record.key.clone().unwrap_or_default(),
        value: record.value.clone().unwrap_or_default(),
        headers,
    }
}

/// A dead letter's record when it is no longer in its topic: what was kept of it, under the id of its place.
pub fn from_kept(topic: Topic, partition: i32, offset: i64, key: Option<Vec<u8>>, value: Vec<u8>) -> Outgoing {
    let event_id = Headers::default().id_or_place(topic, partition, offset);
    let headers = Headers { event_id: Some(event_id), subject: Some(topic.subject().into()), ..Headers::default() };
    Outgoing { topic, key: key.unwrap_or_default(), value, headers }
}

/// One record of a topic; `None`: it is not there any more. Blocks: to be called where that is allowed.
///
/// # Errors
/// Brokers that do not answer within `patience`.
pub fn fetch(
    config: &Config,
    at: TopicPartition,
    offset: i64,
    patience: Duration,
) -> Result<Option<LogRecord>, String> {
    let settings = config.kafka_settings("replay", "", &[at.topic]);
    let consumer: BaseConsumer = client_config(&config.kafka, &config.client_properties())
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .create()
        .map_err(|error| format!("kafka consumer cannot be made: {error}"))?;
    let name = config.topic(at.topic);
    let (start, end) = consumer
        .fetch_watermarks(&name, at.partition, patience)
        .map_err(|error| format!("{name}/{} cannot be read: {:?}", at.partition, error.rdkafka_error_code()))?;
    if offset < start || offset >= end {
        return Ok(None);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&name, at.partition, Offset::Offset(offset)).map_err(|error| error.to_string())?;
    consumer.assign(&list).map_err(|error| error.to_string())?;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                // A later one: this offset was no record, or compaction took it.
                return Ok(record(&settings, &message).filter(|it| it.offset == offset));
            }
            Some(Err(error)) => tracing::debug!(code = ?error.rdkafka_error_code(), "kafka consumer reports an error"),
            None => {}
        }
    }
    Err(format!("{name}/{} did not answer within {} s", at.partition, patience.as_secs()))
}

#[cfg(test)]
mod tests {
    use kept_schemas::{EventId, Micros};

    use super::*;

    #[test]
    fn a_record_sent_again_is_the_same_event_and_goes_through_every_step() {
        let at = TopicPartition { topic: Topic::OrdersReceived, partition: 1 };
        let event_id = Some(EventId::of_input("a", "1", b"v"));
        let headers = Headers { event_id, fused_by: Some("steps".into()), ..Headers::default() };
        let (key, value) = (Some(b"k".to_vec()), Some(b"v".to_vec()));
        let mut record = LogRecord { at, offset: 7, timestamp: Micros(0), key, value, headers };
        let sent = again(&record);
        assert_eq!((sent.headers.event_id, sent.headers.fused_by), (event_id, None));
        // One that came without an id has the id of its first place, also from what was kept of it.
        record.headers.event_id = None;
        let kept = from_kept(at.topic, 1, 7, Some(b"k".to_vec()), b"v".to_vec());
        assert_eq!(again(&record).headers.event_id, kept.headers.event_id);
    }
}
