//! The log seam on Kafka: one group member and one transactional producer, over librdkafka.
//!
//! A driver runs on a thread of its own, so most calls here simply block. Facts this file rests on are stated where
//! they matter; the tests against real servers hold them. librdkafka knows no transaction protocol v2 (KIP-890): a
//! try to end a transaction that was delayed on its way may hit a later one, so a producer is never used again after
//! an end that was tried twice, nor after the abort of a batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kept_schemas::{Headers, Micros, Topic};
use kept_store::seam::TopicPartition;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::AdminClient,
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaRespErr,
};
use rdkafka_sys as sys;
use tokio::task::JoinHandle;

use crate::{
    log::{Ask, Change, End, Ended, Found, Log, LogError, LogRecord, Look, Outgoing, Polled, TopicFacts},
    outputs,
};

/// A dead member's partitions go to others after this long.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead producer's transaction is aborted after this long, at the broker's next look; shorter than the session, so
/// that it is gone, or nearly, before its successor starts.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);
/// A stuck worker is put out of the group after this long without a poll.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Requests to the broker.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);
/// A batch is full at so many bytes of values, however few records they are, unless it is told otherwise.
const BATCH_BYTES: usize = 4 << 20;
/// Longer than a transaction can stay open: brokers look for those that are too old every ten seconds, unless they are
/// told otherwise.
pub(crate) const STABLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How to reach Kafka and as whom.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Put before every topic's name.
    pub prefix: String,
    /// The consumer group, whole.
    pub group: String,
    /// The transactional id, whole: one per leased slot, stable over restarts.
    pub transactional_id: String,
    /// What to read.
    pub topics: Vec<Topic>,
    /// Further client properties (TLS, SASL).
    pub properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    pub(crate) fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Topic> {
        name.strip_prefix(&self.prefix).and_then(Topic::of)
    }
}

/// Properties common to every client.
pub fn client_config(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "kept")
        .set("retry.backoff.ms", "10")
        .set("retry.backoff.max.ms", "500")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.timeout.ms", REQUEST_TIMEOUT.as_millis().to_string())
        .set("topic.metadata.refresh.interval.ms", "60000")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Notice);
    for (name, value) in properties {
        config.set(name, value);
    }
    config
}

/// Who we are in the group, as of one assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub generation: i32,
    pub id: String,
}

/// What the rebalance callback saw.
enum Seen {
    Assigned(Vec<(String, i32)>, Option<Member>),
    Revoked(Vec<(String, i32)>),
    Lost(Vec<(String, i32)>),
}

/// The consumer's side of callbacks; they run on the thread that polls.
#[derive(Default)]
struct Watch {
    seen: Mutex<Vec<Seen>>,
    /// There is something in `seen`.
    any: AtomicBool,
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line("consumer", level, facility, message);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        // The reason names the broker's address; the code is enough.
        tracing::warn!(client = "consumer", code = ?error.rdkafka_error_code(), "kafka client reports an error");
    }
}

fn log_line(client: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(client, facility, "kafka client: {message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(client, facility, "kafka client: {message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(client, facility, "kafka client: {message}");
        }
    }
}

fn member(consumer: &BaseConsumer<Watch>) -> Option<Member> {
    // Sound: the pointers come from librdkafka, live until the destroy below, and the strings are copied before it.
    unsafe {
        let raw = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if raw.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(raw);
        let id = sys::rd_kafka_consumer_group_metadata_member_id(raw);
        let id = if id.is_null() { String::new() } else { CStr::from_ptr(id).to_string_lossy().into_owned() };
        sys::rd_kafka_consumer_group_metadata_destroy(raw);
        // Generation -1 and no member id would be taken by the broker as "no group", and never refused.
        (generation > 0 && !id.is_empty()).then_some(Member { generation, id })
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements().iter().map(|it| (it.topic().to_owned(), it.partition())).collect()
}

impl ConsumerContext for Watch {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let seen = if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Assigned at 0 and paused: nothing is read until `seek` says from where. A plain number, for a name
            // (beginning, end, committed) makes the library ask the broker, and a seek that meets the question
            // under way leaves the partition silent for good.
            if let Err(error) = list.set_all_offsets(Offset::Offset(0)) {
                tracing::warn!(code = ?error.rdkafka_error_code(), "cannot set offsets of an assignment");
            }
            if consumer.assign(list).and_then(|()| consumer.pause(list)).is_err() {
                tracing::warn!("kafka client refused an assignment; it is treated as lost");
                Seen::Lost(partitions(list))
            } else {
                // Taken here, on the polling thread, with the assignment: a later look might show a later generation.
                Seen::Assigned(partitions(list), member(consumer))
            }
        } else {
            let lost = consumer.assignment_lost();
            if consumer.unassign().is_err() {
                tracing::warn!("kafka client refused to give partitions back");
            }
            if lost { Seen::Lost(partitions(list)) } else { Seen::Revoked(partitions(list)) }
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        self.any.store(true, Ordering::Release);
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        rdkafka::util::Timeout::After(Duration::from_millis(100))
    }
}

/// The producer's side of callbacks.
#[derive(Default)]
struct Ends {
    /// The end of a transaction was tried more than once, or may have been: this producer must not begin another.
    recycle: AtomicBool,
    /// A record could not be delivered.
    failed: Mutex<Option<String>>,
}

impl Ends {
    /// librdkafka repeats a timed-out EndTxn by itself and then reports plain success; only its log tells.
    fn note(&self, facility: &str, message: &str) {
        let anomaly = match facility {
            "ENDTXN" => message.contains("EndTxn returned") && !message.contains("EndTxn returned NO_ERROR"),
            "REQTMOUT" => true,
            _ => false,
        };
        if anomaly {
            self.recycle.store(true, Ordering::SeqCst);
        }
    }
}

/// Shared with the client, whose callbacks outlive a borrow.
struct ProducerWatch(Arc<Ends>);

impl ClientContext for ProducerWatch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.note(facility, message);
        log_line("producer", level, facility, message);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        tracing::warn!(client = "producer", code = ?error.rdkafka_error_code(), "kafka client reports an error");
    }
}

impl ProducerContext for ProducerWatch {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let code = format!("{:?}", error.rdkafka_error_code());
            self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(code);
        }
    }
}

struct Transactional {
    producer: ThreadedProducer<ProducerWatch>,
    ends: Arc<Ends>,
}

/// What librdkafka says of a failed transactional call.
struct TxnError {
    code: RDKafkaErrorCode,
    fatal: bool,
    retriable: bool,
}

impl TxnError {
    /// Reads and frees the error of a call; `None` when it went well.
    ///
    /// # Safety
    /// `raw` is null or an error that librdkafka handed to the caller.
    unsafe fn take(raw: *mut sys::rd_kafka_error_t) -> Option<Self> {
        if raw.is_null() {
            return None;
        }
        // Sound by the contract above; freed once, here.
        unsafe {
            let error = Self {
                code: sys::rd_kafka_error_code(raw).into(),
                fatal: sys::rd_kafka_error_is_fatal(raw) != 0,
                retriable: sys::rd_kafka_error_is_retriable(raw) != 0,
            };
            sys::rd_kafka_error_destroy(raw);
            Some(error)
        }
    }

    fn fenced(&self) -> bool {
        matches!(
            self.code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::InvalidTransactionalState
        )
    }

    fn stale(&self) -> bool {
        matches!(
            self.code,
            RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::RebalanceInProgress
        )
    }
}

/// The log on Kafka.
pub struct KafkaLog {
    settings: KafkaSettings,
    consumer: Arc<BaseConsumer<Watch>>,
    admin: Arc<AdminClient<DefaultClientContext>>,
    producer: Option<Transactional>,
    member: Option<Member>,
    /// Partitions that are ours, and the offset to read on from once there is one.
    positions: BTreeMap<TopicPartition, Option<i64>>,
    /// What was ours until we had to join anew by ourselves, to be told by the next poll.
    lost: Vec<TopicPartition>,
    /// An error that came while records were being gathered.
    pending: Option<LogError>,
    batch_bytes: usize,
    began: Instant,
    /// The transaction that was begun and is not ended, and until when it must be; or why it cannot go on.
    open: Option<Result<Instant, Ended>>,
    /// A question for topic ids that is under way.
    asked: Option<(Vec<TopicPartition>, Question)>,
}

/// Topic ids, and of each partition start and end where they were asked for.
type Answer = (BTreeMap<Topic, String>, Vec<(i64, i64)>);

/// An answer that is under way.
type Question = JoinHandle<Result<Answer, LogError>>;

impl KafkaLog {
    /// Connects and subscribes. The producer comes with the first [`Log::renew_producer`].
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        let consumer = Arc::new(subscribe(&settings)?);
        let admin = client_config(&settings.brokers, &settings.properties)
            .create::<AdminClient<DefaultClientContext>>()
            .map_err(|error| LogError::Stop(format!("kafka admin client cannot be made: {error}")))?;
        Ok(Self {
            settings,
            consumer,
            admin: Arc::new(admin),
            producer: None,
            member: None,
            positions: BTreeMap::new(),
            lost: Vec::new(),
            pending: None,
            batch_bytes: BATCH_BYTES,
            began: Instant::now(),
            open: None,
            asked: None,
        })
    }

    /// With batches of at most so many bytes of values, or of one record.
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    fn list(&self, at: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(at.len());
        for it in at {
            list.add_partition(&self.settings.name(it.topic), it.partition);
        }
        list
    }

    fn known(&self, names: Vec<(String, i32)>) -> Vec<TopicPartition> {
        names
            .into_iter()
            .filter_map(|(name, partition)| self.settings.topic(&name).map(|topic| TopicPartition { topic, partition }))
            .collect()
    }

    /// Takes over what the callbacks saw.
    fn changes(&mut self) -> Vec<Change> {
        if !self.consumer.context().any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let seen = std::mem::take(&mut *self.consumer.context().seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut changes = Vec::with_capacity(seen.len());
        for it in seen {
            match it {
                Seen::Assigned(names, member) => {
                    let ours = self.known(names);
                    self.member = member;
                    self.positions = ours.iter().map(|&at| (at, None)).collect();
                    changes.push(Change::Assigned(ours));
                }
                Seen::Revoked(names) => {
                    let gone = self.known(names);
                    self.positions.retain(|at, _| !gone.contains(at));
                    changes.push(Change::Revoked(gone));
                }
                Seen::Lost(names) => {
                    let gone = self.known(names);
                    tracing::warn!(group = self.settings.group, partitions = gone.len(), "the group took them from us");
                    self.positions.retain(|at, _| !gone.contains(at));
                    self.member = None;
                    changes.push(Change::Lost(gone));
                }
            }
        }
        changes
    }

    /// Begins a transaction: until when it must have ended, or why it cannot begin.
    fn begin(&self) -> Result<Instant, Ended> {
        let Some(to) = &self.producer else {
            return Err(Ended::Aborted("there is no producer yet".into()));
        };
        if to.ends.recycle.load(Ordering::SeqCst) {
            return Err(Ended::Aborted("an earlier transaction's end may still be on its way".into()));
        }
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        match to.producer.begin_transaction() {
            Ok(()) => Ok(deadline),
            Err(error) => Err(Ended::Aborted(format!("transaction cannot begin: {:?}", error.rdkafka_error_code()))),
        }
    }

    fn polled(&self, changes: Vec<Change>, mut records: Vec<LogRecord>) -> Polled<Member> {
        if !changes.is_empty() {
            records.retain(|it| self.positions.get(&it.at).is_some_and(Option::is_some));
        }
        Polled { changes, records, meta: self.member.clone() }
    }

    /// Hands records to the client, in the open transaction.
    fn hand_over(&self, to: &Transactional, outgoing: &[Outgoing], deadline: Instant) -> Result<(), String> {
        let mut names: BTreeMap<Topic, String> = BTreeMap::new();
        for it in outgoing {
            let name = names.entry(it.topic).or_insert_with(|| self.settings.name(it.topic));
            let mut record = BaseRecord::to(name).key(&it.key[..]).payload(&it.value[..]).headers(packed(&it.headers));
            loop {
                match to.producer.send(record) {
                    Ok(()) => break,
                    Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                        if Instant::now() > deadline {
                            return Err("the producer's queue stayed full".into());
                        }
                        std::thread::sleep(Duration::from_millis(1));
                        record = back;
                    }
                    Err((error, _)) => {
                        return Err(format!("record for {} refused: {:?}", it.topic, error.rdkafka_error_code()));
                    }
                }
            }
        }
        Ok(())
    }

    fn delivered(to: &Transactional, deadline: Instant) -> Result<(), String> {
        // Waiting here until everything is delivered, by sleeping, is what makes the commit quick: the library
        // itself waits in slices of 100 ms.
        while to.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err("records were not delivered in time".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match to.ends.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(code) => Err(format!("a record was not delivered: {code}")),
        }
    }

    fn abort(to: &Transactional, why: String) -> Ended {
        // The new producer that must follow would end it too; doing it now frees readers at once.
        if let Err(error) = to.producer.abort_transaction(REQUEST_TIMEOUT) {
            tracing::info!(code = ?error.rdkafka_error_code(), "transaction could not be aborted; a new producer will");
        }
        Ended::Aborted(why)
    }

    /// Adds offsets to the open transaction; gives what went wrong.
    fn add_offsets(
        &self,
        to: &Transactional,
        list: &TopicPartitionList,
        member: &Member,
        deadline: Instant,
    ) -> Option<TxnError> {
        let (Ok(group), Ok(id)) = (CString::new(self.settings.group.as_str()), CString::new(member.id.as_str())) else {
            return Some(TxnError { code: RDKafkaErrorCode::InvalidGroupId, fatal: true, retriable: false });
        };
        loop {
            // Sound: all pointers live through the call; the metadata is ours to destroy.
            let error = unsafe {
                let raw = sys::rd_kafka_consumer_group_metadata_new_with_genid(
                    group.as_ptr(),
                    member.generation,
                    id.as_ptr(),
                    std::ptr::null(),
                );
                let error = sys::rd_kafka_send_offsets_to_transaction(
                    to.producer.client().native_ptr(),
                    list.ptr(),
                    raw,
                    i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX),
                );
                sys::rd_kafka_consumer_group_metadata_destroy(raw);
                TxnError::take(error)
            };
            if !error.as_ref().is_some_and(|it| it.retriable) || Instant::now() >= deadline {
                return error;
            }
        }
    }

    /// Aborts a record in every partition of these topics, and an offset of the group. What the broker has lost the
    /// end of, and would take for a part of our next transaction there, is aborted with it. It goes well only as long
    /// as this producer is the newest of its id.
    fn sweep(&self, to: &Transactional, topics: &[Topic]) -> Result<(), LogError> {
        let failed = |why: String| LogError::Retry(format!("open ends of transactions cannot be aborted: {why}"));
        if to.ends.recycle.load(Ordering::SeqCst) {
            return Err(failed("an earlier one may still be on its way".into()));
        }
        let places =
            if topics.is_empty() { Vec::new() } else { outputs::partitions(&self.admin, &self.settings, topics)? };
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        to.producer.begin_transaction().map_err(|error| failed(format!("{:?}", error.rdkafka_error_code())))?;
        for at in places {
            let name = self.settings.name(at.topic);
            let nothing: &[u8] = &[];
            let record = BaseRecord::to(&name).partition(at.partition).key(nothing).payload(nothing);
            to.producer
                .send(record)
                .map_err(|(error, _)| failed(format!("{}: {:?}", at.topic, error.rdkafka_error_code())))?;
        }
        Self::delivered(to, deadline).map_err(failed)?;
        let mut list = TopicPartitionList::new();
        // Of a topic that nobody reads in this group, should it become visible after all.
        list.add_partition_offset(&self.settings.name(Topic::DeadLetters), 0, Offset::Offset(0))
            .map_err(|error| failed(error.to_string()))?;
        // As nobody in the group: it is aborted anyway, and we need not be a member to do it.
        let nobody = Member { generation: -1, id: String::new() };
        if let Some(error) = self.add_offsets(to, &list, &nobody, deadline) {
            return Err(failed(format!("{:?}", error.code)));
        }
        to.producer
            .abort_transaction(REQUEST_TIMEOUT)
            .map_err(|error| failed(format!("{:?}", error.rdkafka_error_code())))?;
        if to.ends.recycle.load(Ordering::SeqCst) {
            return Err(failed("the end may arrive once more".into()));
        }
        Ok(())
    }

    fn end(&self, deadline: Instant, offsets: &[(TopicPartition, i64)], meta: &Member) -> Ended {
        let Some(to) = &self.producer else {
            return Ended::Aborted("there is no producer any more".into());
        };
        if let Err(why) = Self::delivered(to, deadline) {
            return Self::abort(to, why);
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (at, offset) in offsets {
            if list.add_partition_offset(&self.settings.name(at.topic), at.partition, Offset::Offset(*offset)).is_err()
            {
                return Self::abort(to, format!("offset {offset} of {} is not an offset", at.topic));
            }
        }
        match self.add_offsets(to, &list, meta, deadline) {
            None => {}
            Some(error) if error.stale() => {
                Self::abort(to, String::new());
                return Ended::Stale(format!("the group refused our offsets: {:?}", error.code));
            }
            Some(error) if error.fenced() || error.fatal => {
                return Ended::Fenced(format!("the producer was fenced: {:?}", error.code));
            }
            Some(error) => {
                return Self::abort(to, format!("offsets were refused: {:?}", error.code));
            }
        }
        loop {
            // No other time-out than "never", which is the transaction's own: the library loses its state otherwise.
            // Sound: the client outlives the call.
            let error =
                unsafe { TxnError::take(sys::rd_kafka_commit_transaction(to.producer.client().native_ptr(), -1)) };
            match error {
                None => break,
                Some(error) if error.retriable && Instant::now() < deadline => {}
                Some(error) if error.fenced() => {
                    return Ended::Fenced(format!("the producer was fenced at its commit: {:?}", error.code));
                }
                Some(error) => {
                    return Ended::Ambiguous(format!("end of transaction not known: {:?}", error.code));
                }
            }
        }
        // The log lines of this commit are queued; they are counted as in flight until the other thread took them.
        let patience = Instant::now() + Duration::from_millis(5);
        while to.producer.in_flight_count() > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_micros(200));
        }
        if to.ends.recycle.load(Ordering::SeqCst) { Ended::CommittedTwice } else { Ended::Committed }
    }
}

fn consumer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = client_config(&settings.brokers, &settings.properties);
    config
        .set("group.id", &settings.group)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", POLL_INTERVAL.as_millis().to_string())
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.max.bytes", "1048576")
        .set("message.max.bytes", "1048576")
        .set("max.partition.fetch.bytes", "1048576")
        .set("queued.max.messages.kbytes", "2048")
        .set("queued.min.messages", "2000");
    config
}

fn producer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = client_config(&settings.brokers, &settings.properties);
    config
        .set("transactional.id", &settings.transactional_id)
        .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
        .set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.codec", "lz4")
        .set("linger.ms", "2")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("debug", "eos")
        .set_log_level(RDKafkaLogLevel::Debug);
    config
}

fn subscribe(settings: &KafkaSettings) -> Result<BaseConsumer<Watch>, LogError> {
    let consumer: BaseConsumer<Watch> = consumer_config(settings)
        .create_with_context(Watch::default())
        .map_err(|error| LogError::Stop(format!("kafka consumer cannot be made: {error}")))?;
    let names: Vec<String> = settings.topics.iter().map(|&topic| settings.name(topic)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(|error| LogError::Stop(format!("cannot subscribe: {error}")))?;
    Ok(consumer)
}

/// Drops a client on a thread of its own and waits a while: closing may hang when its broker is gone.
pub(crate) fn drop_within<T: Send + 'static>(it: T, patience: Duration) {
    let (done, wait) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
        drop(it);
        // Nobody waits any more when the patience is over; then there is nobody to tell.
        let _ = done.send(());
    });
    if spawned.is_ok() && wait.recv_timeout(patience).is_err() {
        tracing::info!("a kafka client takes its time to close; it is left to itself");
    }
}

impl Log for KafkaLog {
    type Meta = Member;

    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Polled<Member>, LogError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        if !self.lost.is_empty() {
            let lost = Change::Lost(std::mem::take(&mut self.lost));
            return Ok(self.polled(vec![lost], Vec::new()));
        }
        // The client blocks, so an idle driver would never give way to whoever wants to cancel it.
        tokio::task::yield_now().await;
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        let mut until = Instant::now() + wait;
        let mut dry = false;
        while records.len() < max && bytes < self.batch_bytes && !(dry && Instant::now() >= until) {
            // What lies ready is taken at once; only then is there a wait.
            let left = if dry { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            let polled = self.consumer.poll(left).map(|it| it.map(|message| record(&self.settings, &message)));
            dry = polled.is_none();
            let changes = self.changes();
            match polled {
                None => {}
                Some(Err(error)) => {
                    if let Some(error) = judge(&error) {
                        if records.is_empty() && changes.is_empty() {
                            return Err(error);
                        }
                        self.pending = Some(error);
                        return Ok(self.polled(changes, records));
                    }
                }
                Some(Ok(record)) => {
                    if let Some(record) = record
                        // What was read before the last seek, or of a partition without one, is dropped.
                        && let Some(Some(position)) = self.positions.get_mut(&record.at)
                        && record.offset >= *position
                    {
                        *position = record.offset + 1;
                        if records.is_empty() {
                            // Of a backlog, what is just being fetched is worth a short wait.
                            let left = wait.saturating_sub(age(record.timestamp)).max(wait / 10);
                            until = Instant::now() + left;
                        }
                        bytes += record.value.as_ref().map_or(0, Vec::len);
                        records.push(record);
                    }
                }
            }
            if !changes.is_empty() {
                return Ok(self.polled(changes, records));
            }
        }
        Ok(self.polled(Vec::new(), records))
    }

    fn meta_now(&mut self) -> Option<Member> {
        member(&self.consumer)
    }

    async fn group_offset(&mut self, at: TopicPartition) -> Result<Option<i64>, LogError> {
        // Under read_committed the broker answers only once no transaction over the offset is open.
        let deadline = Instant::now() + STABLE_TIMEOUT;
        loop {
            let last = match self.consumer.committed_offsets(self.list(&[at]), REQUEST_TIMEOUT) {
                Ok(list) => match list.elements().first().map(|it| (it.error(), it.offset())) {
                    Some((Ok(()), Offset::Offset(offset))) => return Ok(Some(offset)),
                    Some((Ok(()), _)) => return Ok(None),
                    Some((Err(error), _)) => format!("{:?}", error.rdkafka_error_code()),
                    None => "an empty answer".into(),
                },
                Err(error) => format!("{:?}", error.rdkafka_error_code()),
            };
            if Instant::now() > deadline {
                return Err(LogError::Retry(format!(
                    "committed offset of {}/{} cannot be read: {last}",
                    at.topic, at.partition
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn passed(&mut self) -> Vec<(TopicPartition, i64)> {
        // The library's position: it rises with each record as that is handed over, and with each marker in its turn
        // between them; a seek clears it.
        let Ok(list) = self.consumer.position() else {
            return Vec::new();
        };
        let elements = list.elements();
        let passed = elements.iter().filter_map(|it| match it.offset() {
            Offset::Offset(offset) => {
                Some((TopicPartition { topic: self.settings.topic(it.topic())?, partition: it.partition() }, offset))
            }
            _ => None,
        });
        passed.filter(|(at, _)| self.positions.get(at).is_some_and(Option::is_some)).collect()
    }

    fn ask(&mut self, at: &[TopicPartition]) {
        self.asked = Some((at.to_vec(), self.question(at, Ask::Beside)));
    }

    async fn topic_facts(&mut self, at: &[TopicPartition], ask: Ask) -> Result<Vec<TopicFacts>, LogError> {
        let question = match self.asked.take() {
            Some((asked, question)) if ask == Ask::Beside && asked == at => question,
            _ => self.question(at, ask),
        };
        let (ids, asked) =
            question.await.map_err(|_| LogError::Retry("the question for topic ids was cut off".into()))??;
        at.iter()
            .enumerate()
            .map(|(position, &at)| {
                let (start, end) = match ask {
                    Ask::Anew => asked[position],
                    Ask::Beside => self.cached_marks(&self.settings.name(at.topic), at.partition),
                };
                let topic_id = ids.get(&at.topic).cloned().ok_or_else(|| missing(at.topic))?;
                Ok(TopicFacts { at, topic_id, start, end })
            })
            .collect()
    }

    async fn seek(&mut self, at: TopicPartition, offset: i64) -> Result<(), LogError> {
        if !self.positions.contains_key(&at) {
            // Not ours any more: the next poll says so.
            return Ok(());
        }
        let list = self.list(&[at]);
        let name = self.settings.name(at.topic);
        let failed = |what: &str, error: &KafkaError| {
            LogError::Retry(format!("cannot {what} {}/{}: {error}", at.topic, at.partition))
        };
        self.consumer.pause(&list).map_err(|error| failed("pause", &error))?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        // Right after an assignment the partition may not have started yet; then a seek is refused.
        while let Err(error) = self.consumer.seek(&name, at.partition, Offset::Offset(offset), Duration::from_secs(1)) {
            if Instant::now() > deadline {
                // A partition that the library has given up on is not mended by asking again.
                let ours = self.positions.keys().copied().collect();
                self.rejoin().await?;
                self.lost = ours;
                return Err(failed("seek in", &error));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.positions.insert(at, Some(offset));
        self.consumer.resume(&list).map_err(|error| failed("resume", &error))
    }

    async fn send(&mut self, outgoing: &[Outgoing]) {
        let open = self.open.take().unwrap_or_else(|| self.begin());
        self.open = Some(open.and_then(|deadline| match &self.producer {
            Some(to) => match self.hand_over(to, outgoing, deadline) {
                Ok(()) => Ok(deadline),
                Err(why) => Err(Self::abort(to, why)),
            },
            None => Err(Ended::Aborted("there is no producer any more".into())),
        }));
    }

    async fn transact(&mut self, outgoing: &[Outgoing], offsets: &[(TopicPartition, i64)], meta: &Member) -> Ended {
        self.send(outgoing).await;
        match self.open.take() {
            Some(Ok(deadline)) => self.end(deadline, offsets, meta),
            Some(Err(ended)) => ended,
            None => Ended::Aborted("no transaction was begun".into()),
        }
    }

    async fn give_up(&mut self) {
        if let (Some(Ok(_)), Some(to)) = (self.open.take(), &self.producer) {
            Self::abort(to, String::new());
        }
    }

    async fn confirm(&mut self) -> Result<(), LogError> {
        match &self.producer {
            Some(to) => self.sweep(to, &[]),
            None => Err(LogError::Retry("there is no producer yet".into())),
        }
    }

    async fn ends(&mut self, topics: &[Topic]) -> Result<BTreeMap<TopicPartition, End>, LogError> {
        outputs::ends(&self.admin, &self.settings, topics)
    }

    async fn find(&mut self, look: &Look) -> Result<Found, LogError> {
        outputs::find(&self.admin, &self.settings, look)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn renew_producer(&mut self, outputs: &[Topic]) -> Result<(), LogError> {
        self.open = None;
        if let Some(old) = self.producer.take() {
            drop_within(old, Duration::from_secs(2));
        }
        let ends = Arc::new(Ends::default());
        let producer: ThreadedProducer<ProducerWatch> = producer_config(&self.settings)
            .create_with_context(ProducerWatch(Arc::clone(&ends)))
            .map_err(|error| LogError::Stop(format!("kafka producer cannot be made: {error}")))?;
        let ready = producer.init_transactions(STABLE_TIMEOUT).map_err(|error| {
            LogError::Retry(format!("producer cannot be initialised: {:?}", error.rdkafka_error_code()))
        });
        ends.recycle.store(false, Ordering::SeqCst);
        let fresh = Transactional { producer, ends };
        let swept = ready.and_then(|()| self.sweep(&fresh, outputs));
        match swept {
            Ok(()) => self.producer = Some(fresh),
            Err(_) => drop_within(fresh, Duration::from_secs(2)),
        }
        swept
    }

    async fn rejoin(&mut self) -> Result<(), LogError> {
        let fresh = Arc::new(subscribe(&self.settings)?);
        let old = std::mem::replace(&mut self.consumer, fresh);
        (self.pending, self.asked) = (None, None);
        self.lost.clear();
        self.positions.clear();
        self.member = None;
        drop_within(old, Duration::from_secs(3));
        Ok(())
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn close(&mut self) {
        self.positions.clear();
        self.member = None;
        if let Some(old) = self.producer.take() {
            drop_within(old, Duration::from_secs(2));
        }
        // Unsubscribing leaves the group; the client itself goes with this value.
        self.consumer.unsubscribe();
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            drop(self.consumer.poll(Duration::from_millis(20)));
            if self.consumer.assignment().is_ok_and(|list| list.count() == 0) {
                break;
            }
        }
    }
}

impl KafkaLog {
    /// Asks the broker on a thread of its own.
    fn question(&self, at: &[TopicPartition], ask: Ask) -> Question {
        let topics: BTreeSet<Topic> = at.iter().map(|it| it.topic).collect();
        let names: Vec<(Topic, String)> = topics.into_iter().map(|topic| (topic, self.settings.name(topic))).collect();
        let wanted: Vec<(TopicPartition, String)> = at.iter().map(|&it| (it, self.settings.name(it.topic))).collect();
        let admin = Arc::clone(&self.admin);
        tokio::task::spawn_blocking(move || {
            let ids = describe(&admin, &names)?.into_iter().map(|(topic, it)| (topic, it.id)).collect();
            if ask == Ask::Beside {
                return Ok((ids, Vec::new()));
            }
            let marks = wanted.iter().map(|(at, name)| {
                admin.inner().fetch_watermarks(name, at.partition, REQUEST_TIMEOUT).map_err(|error| {
                    let (topic, partition, code) = (at.topic, at.partition, error.rdkafka_error_code());
                    LogError::Retry(format!("start and end of {topic}/{partition} cannot be read: {code:?}"))
                })
            });
            Ok((ids, marks.collect::<Result<_, _>>()?))
        })
    }

    /// Start and end as the last fetch's answer gave them.
    fn cached_marks(&self, name: &str, partition: i32) -> (i64, i64) {
        let (mut low, mut high) = (0i64, i64::MAX);
        let Ok(name) = CString::new(name) else {
            return (low, high);
        };
        // Sound: the client and the name outlive the call, which only writes the two numbers.
        let err = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                name.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        // Negative: nothing was fetched yet, so nothing was read that these could contradict.
        let known = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        (if known && low >= 0 { low } else { 0 }, if known && high >= 0 { high } else { i64::MAX })
    }
}

fn missing(topic: Topic) -> LogError {
    LogError::Retry(format!("topic {topic} is not there; run `kept topics apply`"))
}

/// How long ago the broker stored a record; zero where its clock is ahead of ours.
fn age(stored: Micros) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(u64::try_from(stored.0).unwrap_or(0)))
}

/// The client's form of our headers, in one list made once: an empty one of the client's costs two allocations.
fn packed(headers: &Headers) -> OwnedHeaders {
    let mut list = Some(OwnedHeaders::new_with_capacity(Headers::MOST));
    headers.each(|name, value| {
        list = list.take().map(|list| list.insert(Header { key: name, value: Some(value) }));
    });
    list.unwrap_or_default()
}

pub(crate) fn record(settings: &KafkaSettings, message: &rdkafka::message::BorrowedMessage<'_>) -> Option<LogRecord> {
    let mut headers = Headers::default();
    if let Some(list) = message.headers() {
        for header in list.iter() {
            if let Some(value) = header.value {
                headers.take(header.key, value);
            }
        }
    }
    Some(LogRecord {
        at: TopicPartition { topic: settings.topic(message.topic())?, partition: message.partition() },
        offset: message.offset(),
        timestamp: Micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1000)),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    })
}

/// What a consumer's error means; `None`: it mends itself.
fn judge(error: &KafkaError) -> Option<LogError> {
    let code = error.rdkafka_error_code();
    match (error, code) {
        (KafkaError::MessageConsumptionFatal(code), _) => {
            Some(LogError::Stop(format!("kafka consumer failed for good: {code:?}")))
        }
        (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => Some(LogError::Retry(
            "a position is outside of its topic: the topic was cut off or made anew; positions are checked again"
                .into(),
        )),
        (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
            Some(LogError::Retry("a topic is not there; run `kept topics apply`".into()))
        }
        (_, Some(RDKafkaErrorCode::PollExceeded)) => {
            tracing::warn!("the group did not hear from us for too long; joining again");
            None
        }
        _ => {
            tracing::debug!(?code, "kafka consumer reports an error");
            None
        }
    }
}

/// A topic as the broker describes it.
pub(crate) struct Described {
    /// See [`TopicFacts::topic_id`].
    pub id: String,
    pub partitions: i32,
}

/// Topics by DescribeTopics; the crate has no call for it, librdkafka has.
pub(crate) fn describe(
    admin: &AdminClient<DefaultClientContext>,
    names: &[(Topic, String)],
) -> Result<BTreeMap<Topic, Described>, LogError> {
    let texts: Vec<CString> = names
        .iter()
        .map(|(topic, name)| CString::new(name.as_str()).map_err(|_| missing(*topic)))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const std::ffi::c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let client = admin.inner().native_ptr();
    let mut ids = BTreeMap::new();
    // Sound: everything made here is destroyed here, the event last, and what points into it is copied before.
    unsafe {
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut text = [0; 256];
        let timeout = i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout, text.as_mut_ptr(), text.len());
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeTopics(client, collection, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout + 1000);
        let mut failed = None;
        if event.is_null() {
            failed = Some("no answer".to_owned());
        } else {
            let err = sys::rd_kafka_event_error(event);
            if err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                failed = Some(format!("{:?}", RDKafkaErrorCode::from(err)));
            } else {
                let result = sys::rd_kafka_event_DescribeTopics_result(event);
                let mut count = 0;
                let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                for position in 0..count {
                    let topic = *topics.add(position);
                    let error = sys::rd_kafka_TopicDescription_error(topic);
                    let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic)).to_string_lossy();
                    // The code of none is that there is no error.
                    match sys::rd_kafka_error_code(error) {
                        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                        | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => continue,
                        // It may be there all the same.
                        other => {
                            failed = Some(format!("{name}: {:?}", RDKafkaErrorCode::from(other)));
                            continue;
                        }
                    }
                    let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                    let id = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id)).to_string_lossy().into_owned();
                    let mut partitions = 0;
                    sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
                    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
                    if let Some((topic, _)) = names.iter().find(|(_, it)| *it == name) {
                        ids.insert(*topic, Described { id, partitions });
                    }
                }
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
        match failed {
            None => Ok(ids),
            Some(why) => Err(LogError::Retry(format!("topic ids cannot be read: {why}"))),
        }
    }
}

/// Records that belong to no consumer's offsets: idempotent, stored by every in-sync replica before it returns.
#[derive(Clone)]
pub struct KafkaOutbox {
    settings: KafkaSettings,
    producer: rdkafka::producer::FutureProducer,
}

impl KafkaOutbox {
    /// Connects; `group`, `transactional_id` and `topics` of the settings are not used.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        let producer = client_config(&settings.brokers, &settings.properties)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.codec", "lz4")
            .set("linger.ms", "2")
            .set("message.timeout.ms", "30000")
            .set("queue.buffering.max.kbytes", "65536")
            .create()
            .map_err(|error| LogError::Stop(format!("kafka producer cannot be made: {error}")))?;
        Ok(Self { settings, producer })
    }
}

impl crate::timers::Outbox for KafkaOutbox {
    async fn send(&mut self, outgoing: Vec<Outgoing>) -> Result<(), LogError> {
        let mut waiting = Vec::with_capacity(outgoing.len());
        for it in &outgoing {
            let name = self.settings.name(it.topic);
            let mut record = rdkafka::producer::FutureRecord::to(&name)
                .key(&it.key[..])
                .payload(&it.value[..])
                .headers(packed(&it.headers));
            loop {
                match self.producer.send_result(record) {
                    Ok(future) => {
                        waiting.push((it.topic, future));
                        break;
                    }
                    Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        record = back;
                    }
                    Err((error, _)) => {
                        return Err(LogError::Retry(format!(
                            "record for {} refused: {:?}",
                            it.topic,
                            error.rdkafka_error_code()
                        )));
                    }
                }
            }
        }
        for (topic, future) in waiting {
            match future.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => {
                    let code = error.rdkafka_error_code();
                    return Err(LogError::Retry(format!("record for {topic} was not stored: {code:?}")));
                }
                Err(_) => {
                    return Err(LogError::Retry(format!("record for {topic}: the producer went away")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_the_same_number_go_to_the_same_member_and_a_stopped_one_loses_its_transaction_first() {
        let settings = KafkaSettings {
            brokers: "127.0.0.1:1".into(),
            prefix: String::new(),
            group: "ledger".into(),
            transactional_id: "ledger-0".into(),
            topics: Vec::new(),
            properties: BTreeMap::new(),
        };
        let (consumer, producer) = (consumer_config(&settings), producer_config(&settings));
        let wanted = [
            // An order's records of all topics meet in one worker.
            (&consumer, "partition.assignment.strategy", "range"),
            (&consumer, "isolation.level", "read_committed"),
            (&consumer, "enable.auto.commit", "false"),
            // A place that is gone stops the step; it is not skipped.
            (&consumer, "auto.offset.reset", "error"),
            (&consumer, "session.timeout.ms", "10000"),
            (&producer, "transaction.timeout.ms", "8000"),
            (&producer, "enable.idempotence", "true"),
            (&producer, "partitioner", "murmur2_random"),
        ];
        for (config, name, value) in wanted {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        assert!(TRANSACTION_TIMEOUT < SESSION_TIMEOUT);
    }
}
