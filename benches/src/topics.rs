//! Topics for a bench run: made empty, filled, deleted.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    AdminClient::from_config(&config).context("admin client")
}

/// Makes topics, each with `partitions`.
///
/// # Errors
/// Whatever the broker says, named by topic.
pub async fn create(brokers: &str, names: &[String], partitions: i32) -> Result<()> {
    let new: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| {
            NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime")
        })
        .collect();
    for made in admin(brokers)?.create_topics(&new, &AdminOptions::new()).await.context("create topics")? {
        if let Err((name, code)) = made {
            bail!("topic {name} cannot be made: {code}");
        }
    }
    Ok(())
}

/// Deletes topics.
///
/// # Errors
/// Whatever the broker says.
pub async fn delete(brokers: &str, names: &[String]) -> Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    admin(brokers)?.delete_topics(&names, &AdminOptions::new()).await.context("delete topics")?;
    Ok(())
}

/// Writes records (key, value) to `topic`, all stored when it returns. In large batches.
///
/// # Errors
/// Whatever the broker says.
pub fn fill(brokers: &str, topic: &str, records: impl Iterator<Item = (String, Vec<u8>)>) -> Result<usize> {
    write(brokers, topic, records, "20")
}

/// The same, each record sent within 2 ms.
///
/// # Errors
/// Whatever the broker says.
pub fn fill_soon(brokers: &str, topic: &str, records: impl Iterator<Item = (String, Vec<u8>)>) -> Result<usize> {
    write(brokers, topic, records, "2")
}

fn write(
    brokers: &str,
    topic: &str,
    records: impl Iterator<Item = (String, Vec<u8>)>,
    linger_ms: &str,
) -> Result<usize> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", linger_ms)
        .create()
        .context("producer")?;
    let mut sent = 0;
    for (key, value) in records {
        let mut record = BaseRecord::to(topic).key(&key).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                return Err(error).context("send");
            }
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
        sent += 1;
    }
    producer.flush(Duration::from_secs(60)).context("flush")?;
    Ok(sent)
}
