//! The bare transactional loop: poll, decode, encode, produce, commit. What a step is measured against.
//!
//! It has the settings our own client has, the same batch, the same schema, and no decision, no seam, no recovery.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kept_schemas::{codec::Codec, topics::Record};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::cpu;

/// What the loop does with each record: from its value to the value that goes out.
pub type Work<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>>;

/// Copies the bytes.
///
/// # Errors
/// None.
pub fn copy(value: &[u8]) -> Result<Vec<u8>> {
    Ok(value.to_vec())
}

/// Decodes a record of type `T` and encodes it again.
///
/// # Errors
/// A record that is not one.
pub fn recode<T: Record>(codec: &Codec, value: &[u8]) -> Result<Vec<u8>> {
    let record: T = codec.decode(value)?.context("a schema that is not ours")?;
    Ok(codec.encode(&record)?.bytes())
}

/// Where and how much.
#[derive(Debug, Clone)]
pub struct Plan {
    pub brokers: String,
    pub group: String,
    pub input: String,
    pub output: String,
    /// Records to pass on before it ends.
    pub records: usize,
    /// Records a transaction.
    pub batch: usize,
    pub linger: Duration,
}

/// What a run took: from the end of its first transaction to the end of its last one, scaled to all its records.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub records: usize,
    pub seconds: f64,
    /// Of this process's processor time.
    pub cpu_seconds: f64,
}

/// Passes `plan.records` records from input to output, exactly once.
///
/// # Errors
/// Whatever the broker says; not done within 300 s.
pub fn run(plan: &Plan, work: Work<'_>) -> Result<Run> {
    let consumer: BaseConsumer = client(plan)
        .set("group.id", &plan.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "2048")
        .set("queued.min.messages", "2000")
        .set("fetch.max.bytes", "1048576")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .context("consumer")?;
    let producer: ThreadedProducer<DefaultProducerContext> = client(plan)
        .set("transactional.id", &plan.group)
        .set("transaction.timeout.ms", "8000")
        .set("message.timeout.ms", "7000")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("retry.backoff.ms", "10")
        .create()
        .context("producer")?;
    producer.init_transactions(Duration::from_secs(20)).context("init transactions")?;
    consumer.subscribe(&[&plan.input]).context("subscribe")?;

    let mut done = 0;
    let mut started: Option<(Instant, f64, usize)> = None;
    let give_up = Instant::now() + Duration::from_secs(300);
    while done < plan.records {
        if Instant::now() > give_up {
            bail!("the loop passed on {done} of {} records in 300 s", plan.records);
        }
        let mut batch = Vec::with_capacity(plan.batch);
        let until = Instant::now() + plan.linger;
        while batch.len() < plan.batch && Instant::now() < until {
            match consumer.poll(Duration::from_millis(10)) {
                Some(message) => batch.push(message.context("poll")?.detach()),
                None if batch.is_empty() => break,
                None => {}
            }
        }
        if batch.is_empty() {
            continue;
        }
        producer.begin_transaction().context("begin")?;
        let mut offsets = TopicPartitionList::new();
        for message in &batch {
            let value = message.payload().context("a record without a value")?;
            let out = work(value)?;
            let mut record = BaseRecord::to(&plan.output).key(message.key().unwrap_or_default()).payload(&out);
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                    return Err(error).context("send");
                }
                std::thread::sleep(Duration::from_millis(1));
                record = back;
            }
            let place = offsets.find_partition(&plan.input, message.partition());
            match place {
                Some(mut element) => element.set_offset(Offset::Offset(message.offset() + 1))?,
                None => offsets.add_partition_offset(
                    &plan.input,
                    message.partition(),
                    Offset::Offset(message.offset() + 1),
                )?,
            }
        }
        while producer.in_flight_count() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let group = consumer.group_metadata().context("group metadata")?;
        producer.send_offsets_to_transaction(&offsets, &group, Duration::from_secs(10)).context("offsets")?;
        producer.commit_transaction(Duration::from_secs(10)).context("commit")?;
        done += batch.len();
        let (since, cpu, before) = match started {
            Some(started) => started,
            None => *started.insert((Instant::now(), cpu::own_seconds()?, done)),
        };
        if done >= plan.records {
            let paced = done.checked_sub(before).filter(|it| *it > 0).context("fewer records than two batches")?;
            let scale = done as f64 / paced as f64;
            let (seconds, cpu_seconds) = (since.elapsed().as_secs_f64(), cpu::own_seconds()? - cpu);
            return Ok(Run { records: done, seconds: seconds * scale, cpu_seconds: cpu_seconds * scale });
        }
    }
    bail!("nothing to pass on")
}

fn client(plan: &Plan) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &plan.brokers);
    config
}
