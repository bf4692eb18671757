//! Reference data: read to its end before any step starts, followed while they run, every version kept.
//!
//! The topics have one partition each and belong to no group: every process reads all of them. A record's offset is the
//! version it began with. A version is kept in Postgres before a decision can see it, so that the decision can be made
//! again later.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kept_processors::reference::Reference;
use kept_schemas::{
    Codec, CodecError, Micros, Topic,
    reference::{Account, Customer, Location, Policy, Product},
};
use kept_store::{
    Client,
    pg::{Purpose, connect},
    reference::{self as kept, ReferenceVersion},
    seam::LedgerError,
};
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    admin::AdminClient,
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    config::Config,
    kafka::{client_config, describe},
    ledger_step::Stopped,
    registry::Registry,
    schemas::{RegistryDown, Schemas},
};

/// Reference data's topics.
pub const TOPICS: &[Topic] = &[
    Topic::ReferenceProducts,
    Topic::ReferenceLocations,
    Topic::ReferenceAccounts,
    Topic::ReferenceCustomers,
    Topic::ReferencePolicies,
];

/// Most records taken in at once: a new snapshot may cost a copy of the old one.
const BATCH: usize = 5_000;
/// How long they are gathered.
const WINDOW: Duration = Duration::from_millis(200);
/// How often it is looked whether the topics are still the same.
const LOOK: Duration = Duration::from_secs(30);
/// Waited after something failed that mends itself.
const RETRY: Duration = Duration::from_millis(500);

/// Reference data as of now, for every step of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct ReferenceData(Arc<Shared>);

#[derive(Default)]
struct Shared {
    current: Mutex<Arc<Reference>>,
    unreadable: AtomicU64,
}

impl ReferenceData {
    /// All of it as of now.
    pub fn snapshot(&self) -> Arc<Reference> {
        Arc::clone(&self.0.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same as drivers take it.
    pub fn source(&self) -> Box<dyn Fn() -> Arc<Reference> + Send> {
        let data = self.clone();
        Box::new(move || data.snapshot())
    }

    /// Records that could not be read and are passed over.
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable.load(Ordering::Relaxed)
    }

    fn take_in(&self, change: impl FnOnce(&mut Reference)) {
        // Copied only when a batch at work holds the old one.
        change(Arc::make_mut(&mut self.0.current.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

/// Reads the topics to their end and gives what is in them; keeps nothing in Postgres.
///
/// # Errors
/// Topics that are not there; brokers or a registry that do not answer within `patience`.
pub async fn read_once(config: &Config, registry: &Registry, patience: Duration) -> Result<Reference, String> {
    let (config, registry) = (config.clone(), registry.clone());
    let handle = tokio::runtime::Handle::current();
    // The Kafka client blocks.
    tokio::task::spawn_blocking(move || {
        let data = ReferenceData::default();
        let mut reader = Reader::open(&config, registry, data.clone(), None).map_err(|trouble| trouble.to_string())?;
        let until = Instant::now() + patience;
        handle.block_on(async {
            while !reader.at_end() {
                if Instant::now() > until {
                    return Err("reference data could not be read to its end in time".to_owned());
                }
                reader.turn().await.map_err(|trouble| trouble.to_string())?;
            }
            Ok(())
        })?;
        let snapshot = data.snapshot();
        Ok(Arc::try_unwrap(snapshot).unwrap_or_else(|shared| Reference::clone(&shared)))
    })
    .await
    .map_err(|_| "reading reference data broke off".to_owned())?
}

/// Reads the topics to their end, then follows them until told to stop; every version is kept in Postgres first.
/// `there` is called once, when the end was reached. To be run on a thread of its own.
///
/// # Errors
/// When going on would be wrong, such as topics that are not there.
pub async fn follow(
    config: &Config,
    registry: Registry,
    data: ReferenceData,
    stop: &AtomicBool,
    there: impl FnOnce(),
) -> Result<(), Stopped> {
    let stopped = |reason: String| Stopped { step: "reference".into(), reason };
    let mut reader = loop {
        match Reader::open(config, registry.clone(), data.clone(), Some(Keeping::default())) {
            Ok(reader) => break reader,
            Err(Trouble::Stop(why)) => return Err(stopped(why)),
            Err(Trouble::Retry(_)) if stop.load(Ordering::Relaxed) => return Ok(()),
            Err(Trouble::Retry(why)) => {
                tracing::warn!(why, "reference data waits");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let mut there = Some(there);
    let mut looked = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut turned = reader.turn().await;
        if turned.is_ok() && looked.elapsed() >= LOOK {
            looked = Instant::now();
            turned = reader.look();
        }
        match turned {
            Ok(()) => {}
            Err(Trouble::Stop(why)) => return Err(stopped(why)),
            Err(Trouble::Retry(why)) => {
                tracing::warn!(why, "reference data waits");
                tokio::time::sleep(RETRY).await;
            }
        }
        if reader.at_end()
            && let Some(there) = there.take()
        {
            there();
        }
    }
    Ok(())
}

enum Trouble {
    Retry(String),
    Stop(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Retry(why) | Self::Stop(why)) = self;
        f.write_str(why)
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Stop(why) => Self::Stop(why),
            other => Self::Retry(other.to_string()),
        }
    }
}

impl From<RegistryDown> for Trouble {
    fn from(error: RegistryDown) -> Self {
        Self::Retry(error.to_string())
    }
}

/// How every version is kept.
#[derive(Default)]
struct Keeping {
    client: Option<Client>,
    /// Per topic, what is kept up to here.
    kept: BTreeMap<Topic, i64>,
}

/// One record, as read.
struct Record {
    topic: Topic,
    version: ReferenceVersion,
}

struct Reader {
    config: Config,
    registry: Registry,
    data: ReferenceData,
    consumer: BaseConsumer<Quiet>,
    admin: AdminClient<DefaultClientContext>,
    /// Topics whose end was not reached yet.
    open: Vec<Topic>,
    topic_ids: BTreeMap<Topic, String>,
    keeping: Option<Keeping>,
    /// Read and not taken in yet.
    waiting: VecDeque<Record>,
}

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(client = "reference", facility, "kafka client: {message}");
    }

    fn error(&self, error: KafkaError, _: &str) {
        tracing::debug!(client = "reference", code = ?error.rdkafka_error_code(), "kafka client reports an error");
    }
}

impl ConsumerContext for Quiet {}

impl Reader {
    fn open(
        config: &Config,
        registry: Registry,
        data: ReferenceData,
        keeping: Option<Keeping>,
    ) -> Result<Self, Trouble> {
        let broken = |what: &str, error: KafkaError| Trouble::Stop(format!("{what}: {error}"));
        let admin: AdminClient<_> = client_config(&config.kafka, &config.client_properties())
            .create()
            .map_err(|error| broken("kafka admin client cannot be made", error))?;
        let topic_ids = ids(config, &admin)?;
        let consumer: BaseConsumer<Quiet> = client_config(&config.kafka, &config.client_properties())
            // A name is asked for, though no group is joined and nothing committed.
            .set("group.id", format!("{}reference", config.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.max.bytes", "1048576")
            .set("message.max.bytes", "1048576")
            .set("queued.max.messages.kbytes", "2048")
            .create_with_context(Quiet)
            .map_err(|error| broken("kafka consumer cannot be made", error))?;
        let mut list = TopicPartitionList::new();
        for &topic in TOPICS {
            list.add_partition_offset(&config.topic(topic), 0, Offset::Beginning)
                .map_err(|error| broken("reference topics cannot be read", error))?;
        }
        consumer.assign(&list).map_err(|error| broken("reference topics cannot be read", error))?;
        Ok(Self {
            config: config.clone(),
            registry,
            data,
            consumer,
            admin,
            open: TOPICS.to_vec(),
            topic_ids,
            keeping,
            waiting: VecDeque::new(),
        })
    }

    /// A running consumer is not told that its topic was made anew, and skips what is new in it.
    fn look(&self) -> Result<(), Trouble> {
        let now = ids(&self.config, &self.admin)?;
        match TOPICS.iter().find(|topic| now.get(topic) != self.topic_ids.get(topic)) {
            None => Ok(()),
            Some(topic) => Err(Trouble::Stop(format!(
                "{topic} is another topic of the same name: it was deleted and made anew; start again to read it whole"
            ))),
        }
    }

    /// Everything that was there at the start, and since, is taken in.
    fn at_end(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }

    /// Gathers what is there and takes it in.
    async fn turn(&mut self) -> Result<(), Trouble> {
        if self.waiting.is_empty() {
            self.gather()?;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.learn().await?;
        self.keep().await?;
        let records = std::mem::take(&mut self.waiting);
        let codec = self.registry.codec();
        let unreadable = &self.data.0.unreadable;
        self.data.take_in(|reference| {
            for record in &records {
                if let Err(why) = put(reference, &codec, record) {
                    unreadable.fetch_add(1, Ordering::Relaxed);
                    let (topic, version) = (record.topic.name(), record.version.version);
                    tracing::error!(topic, version, why, "reference record cannot be read; it is passed over");
                }
                reference.versions.insert(record.topic, record.version.version + 1);
            }
        });
        Ok(())
    }

    fn gather(&mut self) -> Result<(), Trouble> {
        let until = Instant::now() + WINDOW;
        while self.waiting.len() < BATCH {
            let left = until.saturating_duration_since(Instant::now());
            let Some(polled) = self.consumer.poll(left) else { return Ok(()) };
            match polled {
                Ok(message) => {
                    let Some(topic) = TOPICS.iter().copied().find(|&it| self.config.topic(it) == message.topic())
                    else {
                        continue;
                    };
                    self.waiting.push_back(Record {
                        topic,
                        version: ReferenceVersion {
                            version: message.offset(),
                            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                            value: message.payload().map(<[u8]>::to_vec),
                            at: Micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)),
                        },
                    });
                }
                Err(KafkaError::PartitionEOF(_)) => {
                    let positions = self.consumer.position().map_err(|error| Trouble::Retry(error.to_string()))?;
                    self.close_ended(&positions);
                    if self.open.is_empty() {
                        return Ok(());
                    }
                }
                Err(error) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        return Err(Trouble::Stop("a reference topic was cut off or made anew".into()));
                    }
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                        return Err(Trouble::Retry("a reference topic is not there; run `kept topics apply`".into()));
                    }
                    code => tracing::debug!(?code, "reference topics: kafka client reports an error"),
                },
            }
        }
        Ok(())
    }

    /// Which partition ended is not told for several topics of partition 0, so each one's end is looked up.
    fn close_ended(&mut self, positions: &TopicPartitionList) {
        let Self { open, consumer, config, .. } = self;
        open.retain(|&topic| {
            let name = config.topic(topic);
            let Ok((low, high)) = consumer.fetch_watermarks(&name, 0, Duration::from_secs(6)) else {
                return true;
            };
            let position = positions.find_partition(&name, 0).map(|it| it.offset());
            !(low == high || matches!(position, Some(Offset::Offset(at)) if at >= high))
        });
    }

    /// Asks the registry for schemas that are not known yet.
    async fn learn(&self) -> Result<(), Trouble> {
        let codec = self.registry.codec();
        let mut asked: Vec<u32> = Vec::new();
        for record in &self.waiting {
            if let Some(value) = &record.version.value
                && let Ok((id, _)) = kept_schemas::codec::split(value)
                && !codec.knows(id)
                && !asked.contains(&id)
            {
                asked.push(id);
                self.registry.ensure(id).await?;
            }
        }
        Ok(())
    }

    async fn keep(&mut self) -> Result<(), Trouble> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        let result = keeping.keep(&self.config, &self.topic_ids, &self.waiting).await;
        if result.is_err() {
            keeping.client = None;
        }
        result
    }
}

/// The topics' ids; all must be there.
fn ids(config: &Config, admin: &AdminClient<DefaultClientContext>) -> Result<BTreeMap<Topic, String>, Trouble> {
    let names: Vec<(Topic, String)> = TOPICS.iter().map(|&topic| (topic, config.topic(topic))).collect();
    let ids = describe(admin, &names).map_err(|error| Trouble::Retry(error.to_string()))?;
    match names.iter().find(|(topic, _)| !ids.contains_key(topic)) {
        None => Ok(ids.into_iter().map(|(topic, it)| (topic, it.id)).collect()),
        Some((_, name)) => Err(Trouble::Retry(format!("topic {name} is not there; run `kept topics apply`"))),
    }
}

impl Keeping {
    async fn keep(
        &mut self,
        config: &Config,
        topic_ids: &BTreeMap<Topic, String>,
        records: &VecDeque<Record>,
    ) -> Result<(), Trouble> {
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                let opened = connect(config.postgres.expose(), &config.store_prefix().ledger(), Purpose::Command).await;
                none.insert(opened.map_err(LedgerError::from)?)
            }
        };
        for &topic in TOPICS {
            let Some(topic_id) = topic_ids.get(&topic) else { continue };
            let up_to = match self.kept.get(&topic) {
                Some(&up_to) => up_to,
                None => kept::kept_up_to(client, topic, topic_id).await.map_err(LedgerError::from)?,
            };
            let new: Vec<ReferenceVersion> = records
                .iter()
                .filter(|it| it.topic == topic && it.version.version >= up_to)
                .map(|it| it.version.clone())
                .collect();
            if !new.is_empty() {
                kept::keep(client, topic, topic_id, &new).await.map_err(LedgerError::from)?;
            }
            self.kept.insert(topic, new.last().map_or(up_to, |it| it.version + 1));
        }
        Ok(())
    }
}

/// Takes one record into a snapshot; its key is what the record is found by.
fn put(reference: &mut Reference, codec: &Codec, record: &Record) -> Result<(), String> {
    let key = record.version.key.clone();
    let value = record.version.value.as_deref();
    match record.topic {
        Topic::ReferenceProducts => set::<Product>(&mut reference.products, codec, key, value),
        Topic::ReferenceLocations => set::<Location>(&mut reference.locations, codec, key, value),
        Topic::ReferenceAccounts => set::<Account>(&mut reference.accounts, codec, key, value),
        Topic::ReferenceCustomers => set::<Customer>(&mut reference.customers, codec, key, value),
        Topic::ReferencePolicies => set::<Policy>(&mut reference.policies, codec, key, value),
        other => Err(format!("{other} is not a reference topic")),
    }
}

fn set<T: kept_schemas::topics::Record>(
    map: &mut BTreeMap<String, T>,
    codec: &Codec,
    key: String,
    value: Option<&[u8]>,
) -> Result<(), String> {
    let Some(value) = value else {
        map.remove(&key);
        return Ok(());
    };
    let read: Option<T> = codec.decode(value).map_err(|error: CodecError| error.to_string())?;
    map.insert(key, read.ok_or("its schema id is not in the registry")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kept_schemas::codec::offline;

    use super::*;

    fn record(version: i64, key: &str, value: Option<Vec<u8>>) -> Record {
        let version = ReferenceVersion { version, key: key.into(), value, at: Micros(0) };
        Record { topic: Topic::ReferenceProducts, version }
    }

    #[test]
    fn a_newer_record_of_a_key_replaces_the_older_and_a_tombstone_removes_it() {
        let codec = offline();
        let product = |weight| {
            let product = Product { sku: "A".into(), weight_grams: Some(weight), ..Default::default() };
            Some(codec.encode(&product).expect("it fits").bytes())
        };
        let mut reference = Reference::default();
        put(&mut reference, &codec, &record(0, "A", product(1))).expect("read");
        put(&mut reference, &codec, &record(1, "A", product(2))).expect("read");
        assert_eq!(reference.products["A"].weight_grams, Some(2));
        put(&mut reference, &codec, &record(2, "A", None)).expect("read");
        assert!(reference.products.is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_leaves_the_older_one_in_place() {
        let codec = offline();
        let product = Product { sku: "A".into(), ..Default::default() };
        let mut reference = Reference::default();
        put(&mut reference, &codec, &record(0, "A", Some(codec.encode(&product).expect("it fits").bytes())))
            .expect("read");
        assert!(put(&mut reference, &codec, &record(1, "A", Some(vec![9, 9]))).is_err());
        assert!(put(&mut reference, &codec, &record(2, "A", Some(vec![0, 255, 0, 0, 0, 1]))).is_err());
        assert_eq!(reference.products.len(), 1);
    }

    #[test]
    fn a_snapshot_in_use_does_not_change() {
        let data = ReferenceData::default();
        let before = data.snapshot();
        data.take_in(|reference| {
            reference.products.insert("A".into(), Product::default());
        });
        assert!(before.products.is_empty());
        assert_eq!(data.snapshot().products.len(), 1);
    }
}
