//! A step's output topics as the broker has them: where they end, and what of ours stands there.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kept_schemas::Topic;
use kept_store::seam::TopicPartition;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::AdminClient,
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaRespErr,
};
use rdkafka_sys as sys;

use crate::{
    kafka::{KafkaSettings, REQUEST_TIMEOUT, STABLE_TIMEOUT, client_config, describe, drop_within, record},
    log::{End, Found, LogError, Look},
};

type Admin = AdminClient<DefaultClientContext>;

/// Which records count.
#[derive(Debug, Clone, Copy)]
enum Isolation {
    All,
    /// Below the first open transaction.
    Stable,
}

/// Every partition of those of these topics that are there.
pub(crate) fn partitions(
    admin: &Admin,
    settings: &KafkaSettings,
    topics: &[Topic],
) -> Result<Vec<TopicPartition>, LogError> {
    let names: Vec<(Topic, String)> = topics.iter().map(|&topic| (topic, settings.name(topic))).collect();
    let described = describe(admin, &names)?;
    let places = described
        .into_iter()
        .flat_map(|(topic, it)| (0..it.partitions).map(move |partition| TopicPartition { topic, partition }));
    Ok(places.collect())
}

/// See [`crate::log::Log::ends`].
pub(crate) fn ends(
    admin: &Admin,
    settings: &KafkaSettings,
    topics: &[Topic],
) -> Result<BTreeMap<TopicPartition, End>, LogError> {
    let places = partitions(admin, settings, topics)?;
    let latest = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST;
    // In this order: what is stable up to an end that was asked for before is known to be so.
    let end = offsets(admin, settings, &places, latest, Isolation::All)?;
    let stable = offsets(admin, settings, &places, latest, Isolation::Stable)?;
    Ok(end.into_iter().map(|(at, end)| (at, End { end, stable: stable[&at] })).collect())
}

/// See [`crate::log::Log::find`].
pub(crate) fn find(admin: &Admin, settings: &KafkaSettings, look: &Look) -> Result<Found, LogError> {
    let places: Vec<TopicPartition> = look.from.keys().copied().collect();
    let earliest = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST;
    let latest = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST;
    let starts = offsets(admin, settings, &places, earliest, Isolation::All)?;
    let ends = offsets(admin, settings, &places, latest, Isolation::All)?;
    let mut found = Found::default();
    let mut list = TopicPartitionList::new();
    let mut open: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    for (&at, &from) in &look.from {
        let (start, end) = (starts[&at], ends[&at]);
        found.cut |= from < start;
        // Beyond its end: it was made anew since.
        let from = if from > end { start } else { from.max(start) };
        if from < end {
            list.add_partition_offset(&settings.name(at.topic), at.partition, Offset::Offset(from))
                .map_err(|error| LogError::Stop(format!("offset {from} of {} is not an offset: {error}", at.topic)))?;
            open.insert(at, end);
        }
    }
    if open.is_empty() {
        return Ok(found);
    }
    let consumer: BaseConsumer = client_config(&settings.brokers, &settings.properties)
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "8192")
        .create()
        .map_err(|error| LogError::Stop(format!("kafka consumer cannot be made: {error}")))?;
    let found = read(&consumer, settings, look, &list, open, found);
    drop_within(consumer, Duration::from_secs(2));
    found
}

/// Reads partitions from `list` on up to `open`.
fn read(
    consumer: &BaseConsumer,
    settings: &KafkaSettings,
    look: &Look,
    list: &TopicPartitionList,
    mut open: BTreeMap<TopicPartition, i64>,
    mut found: Found,
) -> Result<Found, LogError> {
    let failed = |error: rdkafka::error::KafkaError| {
        LogError::Retry(format!("output topics cannot be read: {:?}", error.rdkafka_error_code()))
    };
    consumer.assign(list).map_err(failed)?;
    let mut until = Instant::now() + STABLE_TIMEOUT;
    let mut read = 0_u32;
    let mut reached: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    loop {
        match consumer.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => {
                if let Some(record) = record(settings, &message) {
                    found.note(look, record.at.topic, &record.headers);
                }
                read += 1;
                if !read.is_multiple_of(1_000) {
                    continue;
                }
            }
            Some(Err(error)) => return Err(failed(error)),
            None => {}
        }
        // Past the last record and past the marker that follows it.
        let mut done = TopicPartitionList::new();
        for it in consumer.position().map_err(failed)?.elements() {
            let (Some(topic), Offset::Offset(next)) = (settings.topic(it.topic()), it.offset()) else { continue };
            let at = TopicPartition { topic, partition: it.partition() };
            let Some(&end) = open.get(&at) else { continue };
            // Only these count: what others write goes on arriving.
            if reached.insert(at, next) != Some(next) {
                until = Instant::now() + STABLE_TIMEOUT;
            }
            if next >= end {
                open.remove(&at);
                done.add_partition(it.topic(), it.partition());
            }
        }
        if done.count() > 0 {
            consumer.pause(&done).map_err(failed)?;
        }
        let Some((at, end)) = open.first_key_value() else { return Ok(found) };
        if Instant::now() > until {
            return Err(LogError::Retry(format!(
                "a transaction on {}/{} is open below offset {end}: what was sent there cannot be told yet",
                at.topic, at.partition
            )));
        }
    }
}

/// One offset of each of these partitions, by one request to each broker.
fn offsets(
    admin: &Admin,
    settings: &KafkaSettings,
    places: &[TopicPartition],
    which: sys::rd_kafka_OffsetSpec_t,
    isolation: Isolation,
) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
    if places.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(places.len());
    for at in places {
        list.add_partition_offset(&settings.name(at.topic), at.partition, Offset::from_raw(which as i64))
            .map_err(|error| LogError::Stop(format!("offsets of {} cannot be asked for: {error}", at.topic)))?;
    }
    let level = match isolation {
        Isolation::All => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        Isolation::Stable => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
    };
    let client = admin.inner().native_ptr();
    let timeout = i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    let mut answer = BTreeMap::new();
    let mut wrong = None;
    // Sound: everything made here is destroyed here, the event last, and what points into it is copied before.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS);
        let mut text = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout, text.as_mut_ptr(), text.len());
        let error = sys::rd_kafka_AdminOptions_set_isolation_level(options, level);
        if !error.is_null() {
            sys::rd_kafka_error_destroy(error);
            wrong = Some("the isolation level is not known".to_owned());
        }
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_ListOffsets(client, list.ptr(), options, queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout + 1000);
        if event.is_null() {
            wrong = Some("no answer".to_owned());
        } else {
            let error = sys::rd_kafka_event_error(event);
            if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                let result = sys::rd_kafka_event_ListOffsets_result(event);
                let mut count = 0;
                let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
                for position in 0..count {
                    let it = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(position));
                    let name = std::ffi::CStr::from_ptr(it.topic).to_string_lossy();
                    let Some(topic) = settings.topic(&name) else { continue };
                    // The client says neither error nor offset where a whole request failed (librdkafka 2.12).
                    if it.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && it.offset >= 0 {
                        answer.insert(TopicPartition { topic, partition: it.partition }, it.offset);
                    } else {
                        wrong = Some(format!("{topic}/{}: {:?}", it.partition, it.err));
                    }
                }
            } else {
                wrong = Some(format!("{error:?}"));
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
    }
    match wrong {
        None if answer.len() == places.len() => Ok(answer),
        None => Err(LogError::Retry("ends of some output topics were not answered".into())),
        Some(why) => Err(LogError::Retry(format!("ends of output topics cannot be read: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{mocking::MockCluster, types::RDKafkaApiKey};

    use super::*;

    #[test]
    fn offsets_that_a_broker_did_not_answer_are_an_error_and_no_offsets() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let settings = KafkaSettings {
            brokers: cluster.bootstrap_servers(),
            prefix: "t.".into(),
            group: "g".into(),
            transactional_id: "g".into(),
            topics: Vec::new(),
            properties: BTreeMap::new(),
        };
        cluster.create_topic(&settings.name(Topic::OrdersPaid), 3, 1).expect("a topic");
        let admin: Admin = client_config(&settings.brokers, &settings.properties).create().expect("an admin client");
        let places: Vec<TopicPartition> =
            (0..3).map(|partition| TopicPartition { topic: Topic::OrdersPaid, partition }).collect();
        let latest = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST;
        let ask = || offsets(&admin, &settings, &places, latest, Isolation::All);
        let answered = places.iter().map(|at| (*at, 0)).collect();
        assert_eq!(ask(), Ok(answered));
        for error in
            [RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]
        {
            cluster.request_errors(RDKafkaApiKey::ListOffsets, &[error; 20]);
            let asked = ask();
            cluster.clear_request_errors(RDKafkaApiKey::ListOffsets);
            assert!(matches!(asked, Err(LogError::Retry(_))), "{error:?}: {asked:?}");
        }
    }
}
