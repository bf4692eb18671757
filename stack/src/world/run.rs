//! The simulated world at work: reads its two topics, asks the [`Desk`] what is due, writes it down, sends it.
//!
//! It reads every partition itself, without a group's rebalancing (its books allow one simulator at a time); its
//! offsets are kept under a group of its own and committed only when all that follows from a record has been sent.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use kept_runtime::{
    config::Config,
    kafka::client_config,
    log::{LogError, Outgoing},
    registry::Registry,
    schemas::Schemas,
    timers::Outbox,
};
use kept_schemas::{
    Headers, Micros, Topic,
    codec::split,
    events::{FulfilmentRequested, FulfilmentWithdrawn},
    topics::Record,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    books::Books,
    desk::{Counts, Desk, Place},
    plan::{Report, Work, World},
};

/// Most records taken in, and most reports sent, in one turn.
const TURN: usize = 1_000;
const TURN_TIME: Duration = Duration::from_millis(20);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of what the servers did not take.
const AGAIN: Duration = Duration::from_millis(500);

/// What a simulator needs to be told.
pub struct Settings {
    pub config: Config,
    pub world: World,
    /// Where its books are.
    pub logs: PathBuf,
    /// Most fulfilment orders open at a time; more wait on their topic.
    pub most_open: usize,
}

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub open: usize,
    pub counts: Counts,
    /// Records that are not what their topic should hold.
    pub unreadable: u64,
}

/// Simulates until told to stop. `tell` is called every ten seconds in which something changed, and at the end.
/// Servers that are away are waited for.
pub async fn run(settings: Settings, stop: Arc<AtomicBool>, mut tell: impl FnMut(&Progress)) -> Result<()> {
    let (books, withdrawn) = Books::open(&settings.logs)?;
    let registry = loop {
        match Registry::open(&settings.config).await {
            Ok(registry) => break registry,
            Err(kept_runtime::registry::RegistryError::Down(why)) => {
                tracing::warn!("the simulator waits for the registry: {why}");
            }
            Err(error) => return Err(error).context("ask the registry"),
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    };
    let outbox = kept_runtime::outbox(&settings.config).context("make a producer")?;
    let Some(consumer) = subscribe(&settings.config, &stop).await? else {
        return Ok(());
    };
    let mut simulator = Simulator {
        requested: settings.config.topic(Topic::FulfilmentRequested),
        withdrawn: settings.config.topic(Topic::FulfilmentWithdrawn),
        desk: Desk::new(settings.world, withdrawn),
        most_open: settings.most_open.max(1),
        paused: false,
        unreadable: 0,
        unsent: false,
        committed: Vec::new(),
        last: Micros(0),
        books,
        registry,
        outbox,
        consumer,
        stop,
    };
    let mut told = Progress::default();
    let (mut commit_at, mut tell_at) = (Instant::now(), Instant::now() + TELL_EVERY);
    while !simulator.stop.load(Ordering::Relaxed) {
        simulator.read().await?;
        simulator.report().await?;
        if Instant::now() >= commit_at {
            commit_at = Instant::now() + COMMIT_EVERY;
            simulator.commit();
        }
        if Instant::now() >= tell_at {
            tell_at = Instant::now() + TELL_EVERY;
            let now = simulator.progress();
            if now != told {
                tell(&now);
                told = now;
            }
        }
    }
    simulator.commit();
    // The commit is sent by the client's own thread; what does not arrive is only reported again next time.
    simulator.consumer.poll(Duration::from_millis(200));
    tell(&simulator.progress());
    Ok(())
}

struct Simulator {
    requested: String,
    withdrawn: String,
    desk: Desk,
    most_open: usize,
    /// Too many are open: requests are not read for now.
    paused: bool,
    unreadable: u64,
    /// The desk believes that reports were sent which were not: nothing may be committed any more.
    unsent: bool,
    /// Positions as they were committed last.
    committed: Vec<Place>,
    /// The latest time this process has acted on; a clock that is set back does not take anything back.
    last: Micros,
    books: Books,
    registry: Registry,
    outbox: kept_runtime::kafka::KafkaOutbox,
    consumer: BaseConsumer,
    stop: Arc<AtomicBool>,
}

/// What a message is.
enum Mail {
    Request(Box<Work>),
    Withdrawal(String),
    Unreadable(Topic),
}

impl Simulator {
    fn now(&mut self) -> Micros {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
        self.last = self.last.max(Micros(i64::try_from(now).unwrap_or(i64::MAX)));
        self.last
    }

    fn progress(&self) -> Progress {
        Progress { open: self.desk.open(), counts: self.desk.counts().clone(), unreadable: self.unreadable }
    }

    /// Takes in what has come.
    async fn read(&mut self) -> Result<()> {
        self.hold_back()?;
        let until = Instant::now() + TURN_TIME;
        for _ in 0..TURN {
            let mail = match self.consumer.poll(until.saturating_duration_since(Instant::now())) {
                None => break,
                Some(Err(error)) => {
                    judge(&error)?;
                    continue;
                }
                Some(Ok(message)) => {
                    let place = (message.partition(), message.offset());
                    match self.open_mail(&message).await {
                        Some(mail) => (place, mail),
                        // Told to stop while the registry was away; the record is read again.
                        None => return Ok(()),
                    }
                }
            };
            let now = self.now();
            match mail {
                (place, Mail::Request(work)) => self.desk.request(place, *work, now),
                (place, Mail::Withdrawal(id)) => self.desk.withdraw(place, &id, now),
                (place, Mail::Unreadable(topic)) => {
                    self.unreadable += 1;
                    if topic == Topic::FulfilmentRequested {
                        self.desk.pass_over_request(place);
                    } else {
                        self.desk.pass_over_withdrawal(place);
                    }
                }
            }
        }
        Ok(())
    }

    async fn open_mail(&self, message: &BorrowedMessage<'_>) -> Option<Mail> {
        let value = message.payload().unwrap_or_default();
        if message.topic() == self.requested {
            let read: Result<FulfilmentRequested, String> = self.decode(value).await?;
            Some(match read {
                Ok(it) => Mail::Request(Box::new(Work::from(&it))),
                Err(why) => unreadable(Topic::FulfilmentRequested, message, &why),
            })
        } else {
            let read: Result<FulfilmentWithdrawn, String> = self.decode(value).await?;
            Some(match read {
                Ok(it) => Mail::Withdrawal(it.fulfilment_id),
                Err(why) => unreadable(Topic::FulfilmentWithdrawn, message, &why),
            })
        }
    }

    /// `None`: told to stop before the registry answered.
    async fn decode<T: Record>(&self, value: &[u8]) -> Option<Result<T, String>> {
        loop {
            match self.registry.codec().decode(value) {
                Ok(Some(record)) => return Some(Ok(record)),
                Err(error) => return Some(Err(error.to_string())),
                Ok(None) => {}
            }
            let id = split(value).map(|(id, _)| id).unwrap_or_default();
            match self.registry.ensure(id).await {
                Ok(true) => {}
                Ok(false) => return Some(Err(format!("nobody knows schema {id}"))),
                Err(down) => {
                    tracing::warn!("the simulator waits: {down}");
                    if self.stop.load(Ordering::Relaxed) {
                        return None;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Requests are not read while too many are open. Withdrawals always are.
    fn hold_back(&mut self) -> Result<()> {
        let full = self.desk.open() >= self.most_open;
        if full == self.paused {
            return Ok(());
        }
        let assigned = self.consumer.assignment().context("ask the Kafka client for its partitions")?;
        let mut requests = TopicPartitionList::new();
        for it in assigned.elements_for_topic(&self.requested) {
            requests.add_partition(it.topic(), it.partition());
        }
        if full { self.consumer.pause(&requests) } else { self.consumer.resume(&requests) }
            .context("pause reading of requests")?;
        self.paused = full;
        Ok(())
    }

    /// Writes down and sends what is due.
    async fn report(&mut self) -> Result<()> {
        loop {
            let now = self.now();
            let reports = self.desk.take_due(now, TURN);
            if reports.is_empty() {
                return Ok(());
            }
            self.books.append(&reports)?;
            if !self.send(&reports).await? {
                return Ok(());
            }
        }
    }

    /// `false`: told to stop before all was sent; what was not is reported after a restart.
    async fn send(&mut self, reports: &[Report]) -> Result<bool> {
        let codec = self.registry.codec();
        let mut outgoing = Vec::with_capacity(reports.len());
        for report in reports {
            let wire = codec.encode(&report.outcome).context("encode a report")?;
            let headers = Headers {
                event_id: Some(report.event_id()),
                subject: Some(Topic::OutcomesReceived.subject().into()),
                ..Default::default()
            };
            let key = report.outcome.order_id.to_string();
            outgoing.push(Outgoing::new(Topic::OutcomesReceived, &key, &wire, headers));
        }
        loop {
            match self.outbox.send(outgoing.clone()).await {
                Ok(()) => return Ok(true),
                Err(LogError::Stop(why)) => bail!("reports cannot be sent: {why}"),
                Err(LogError::Retry(why)) => tracing::warn!("reports are sent again: {why}"),
            }
            if self.stop.load(Ordering::Relaxed) {
                self.unsent = true;
                return Ok(false);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn commit(&mut self) {
        let (requests, withdrawals) = self.desk.positions();
        if self.unsent {
            return;
        }
        let positions: Vec<Place> = requests.iter().chain(&withdrawals).copied().collect();
        if positions == self.committed || positions.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        let named =
            requests.iter().map(|it| (&self.requested, it)).chain(withdrawals.iter().map(|it| (&self.withdrawn, it)));
        for (name, &(partition, offset)) in named {
            if let Err(error) = list.add_partition_offset(name, partition, Offset::Offset(offset)) {
                tracing::warn!(code = ?error.rdkafka_error_code(), "an offset cannot be committed");
            }
        }
        match self.consumer.commit(&list, CommitMode::Async) {
            Ok(()) => self.committed = positions,
            Err(error) => tracing::warn!(code = ?error.rdkafka_error_code(), "offsets are committed again"),
        }
    }
}

fn unreadable(topic: Topic, message: &BorrowedMessage<'_>, why: &str) -> Mail {
    tracing::warn!(
        "the simulator passes over {topic}/{}/{}, which it cannot read: {why}",
        message.partition(),
        message.offset()
    );
    Mail::Unreadable(topic)
}

/// What mends itself is waited for.
fn judge(error: &KafkaError) -> Result<()> {
    match (error, error.rdkafka_error_code()) {
        (KafkaError::MessageConsumptionFatal(code), _) => bail!("the Kafka client failed for good: {code:?}"),
        (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
            tracing::warn!("a topic of the simulator is not there; run `kept topics apply`");
        }
        (_, code) => tracing::debug!(?code, "the simulator's consumer reports an error"),
    }
    Ok(())
}

/// Every partition of both topics, from the committed offsets or the beginning. `None`: told to stop first.
async fn subscribe(config: &Config, stop: &AtomicBool) -> Result<Option<BaseConsumer>> {
    let consumer: BaseConsumer = client_config(&config.kafka, &config.client_properties())
        .set("group.id", format!("{}world", config.prefix))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        // A topic that was made anew is read from its beginning: a warehouse answers what it is asked.
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "2048")
        .set("queued.min.messages", "2000")
        .set("fetch.max.bytes", "1048576")
        .create()
        .context("make a consumer")?;
    while !stop.load(Ordering::Relaxed) {
        match assign(&consumer, config) {
            Ok(()) => return Ok(Some(consumer)),
            Err(error) => tracing::warn!("the simulator waits: {error:#}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(None)
}

fn assign(consumer: &BaseConsumer, config: &Config) -> Result<()> {
    let mut wanted = TopicPartitionList::new();
    for topic in [Topic::FulfilmentRequested, Topic::FulfilmentWithdrawn] {
        let name = config.topic(topic);
        let metadata = consumer.fetch_metadata(Some(&name), ASK_TIMEOUT).context("ask for the topics")?;
        let count = metadata.topics().iter().find(|it| it.name() == name).map_or(0, |it| it.partitions().len());
        if count == 0 {
            bail!("topic {topic} is not there; run `kept topics apply`");
        }
        wanted.add_partition_range(&name, 0, i32::try_from(count - 1).context("so many partitions")?);
    }
    let mut from = consumer.committed_offsets(wanted, ASK_TIMEOUT).context("ask for the committed offsets")?;
    let unset: Vec<(String, i32)> = from
        .elements()
        .iter()
        .filter(|it| !matches!(it.offset(), Offset::Offset(_)))
        .map(|it| (it.topic().to_owned(), it.partition()))
        .collect();
    for (name, partition) in unset {
        from.set_partition_offset(&name, partition, Offset::Beginning).context("set an offset")?;
    }
    consumer.assign(&from).context("read from the offsets")
}
