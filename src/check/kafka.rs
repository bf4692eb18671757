//! Every committed record of every topic, read with the checker's own client, which never joins a group.
//!
//! One topic after the other, each to its stable end; what is kept of a record is small, so that a year of orders fits
//! in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kept_processors::ledger::LedgerEvent;
use kept_schemas::{
    Codec, CodecError, EventId, Headers, Micros, OrderId, Party, Topic,
    codec::split,
    events::DeadLetter as Letter,
    inbound::{Inbound as Raw, OrderReceived},
    inputs::OutcomeReceived,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
};
use sha2::{Digest, Sha256};

use super::{
    facts::{
        Body, Counts, DeadLetter, Extent, Groups, Inbound, Move, OrderEvent, Outcome, Place, Received, Record, Step,
        Topics,
    },
    postgres::Texts,
    references::{References, Version},
    remake::Remake,
    steps::reader_of,
};

/// A request, and a partition that says nothing though it has records.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to reach Kafka.
pub struct Brokers<'a> {
    pub brokers: &'a str,
    pub properties: &'a BTreeMap<String, String>,
    pub prefix: &'a str,
}

impl Brokers<'_> {
    fn consumer(&self, group: &str, isolation: &str) -> Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers)
            .set("client.id", "kept-check")
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "20")
            .set("queued.min.messages", "20000")
            .set("queued.max.messages.kbytes", "16384");
        for (name, value) in self.properties {
            config.set(name, value);
        }
        config.create().context("make a Kafka client")
    }

    fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// How far each consumer group is. To be asked before the topics are read.
    pub fn groups(&self, partitions: &[(Topic, i32)]) -> Result<Groups> {
        Ok(Groups {
            steps: self.group(&format!("{}steps", self.prefix), partitions)?,
            ledger: self.group(&format!("{}ledger", self.prefix), partitions)?,
        })
    }

    fn group(&self, group: &str, partitions: &[(Topic, i32)]) -> Result<BTreeMap<(Topic, i32), i64>> {
        let consumer = self.consumer(group, "read_committed")?;
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(&self.name(*topic), *partition);
        }
        let known =
            consumer.committed_offsets(list, PATIENCE).with_context(|| format!("ask how far group {group} is"))?;
        Ok(known
            .elements()
            .iter()
            .filter_map(|it| match (self.topic(it.topic()), it.offset()) {
                (Some(topic), Offset::Offset(next)) => Some(((topic, it.partition()), next)),
                _ => None,
            })
            .collect())
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        name.strip_prefix(self.prefix).and_then(Topic::of)
    }

    /// Every partition of every topic that is there.
    pub fn partitions(&self) -> Result<Vec<(Topic, i32)>> {
        let consumer = self.consumer("kept-check", "read_committed")?;
        let metadata = consumer.fetch_metadata(None, PATIENCE).context("ask Kafka for its topics")?;
        let mut all = Vec::new();
        for topic in metadata.topics() {
            if let Some(known) = self.topic(topic.name()) {
                all.extend(topic.partitions().iter().map(|it| (known, it.id())));
            }
        }
        all.sort_unstable();
        let missing: BTreeSet<&str> =
            Topic::ALL.iter().filter(|topic| !all.iter().any(|(it, _)| it == *topic)).map(|it| it.name()).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.into_iter().collect();
            bail!("Kafka has no topic {} (prefix \"{}\"); run `kept topics apply`", names.join(", "), self.prefix);
        }
        Ok(all)
    }

    /// Reads every topic to its end as it is now. `references`: what is known of reference data already; `schema` gives
    /// the text of a schema id.
    pub fn read(
        &self,
        partitions: &[(Topic, i32)],
        references: References,
        schema: &mut dyn FnMut(u32) -> Result<Option<String>>,
        progress: &mut dyn FnMut(Topic, usize),
    ) -> Result<Heard> {
        let committed = self.consumer("kept-check", "read_committed")?;
        let uncommitted = self.consumer("kept-check", "read_uncommitted")?;
        let mut topics = Topics::default();
        // Consequences before causes: then the cause of whatever is read is read too.
        for &(topic, partition) in partitions.iter().rev() {
            let name = self.name(topic);
            let asked = || format!("ask for the ends of {name}/{partition}");
            let (start, stable_end) = committed.fetch_watermarks(&name, partition, PATIENCE).with_context(asked)?;
            let (_, end) = uncommitted.fetch_watermarks(&name, partition, PATIENCE).with_context(asked)?;
            topics.extents.insert((topic, partition), Extent { start, stable_end, end });
        }
        let mut reader = Reader {
            codec: Codec::default(),
            unknown: BTreeSet::new(),
            texts: Texts::default(),
            references,
            remake: Remake::default(),
            inputs: BTreeMap::new(),
            schema,
        };
        reader.learn_references()?;
        // Reference data first: what was made with it is made again on the way.
        let (first, then): (Vec<Topic>, Vec<Topic>) = Topic::ALL.iter().partition(|topic| is_reference(**topic));
        for topic in first.into_iter().chain(then) {
            let wanted: BTreeMap<i32, Extent> = topics
                .extents
                .iter()
                .filter(|((it, _), extent)| *it == topic && extent.start < extent.stable_end)
                .map(|((_, partition), extent)| (*partition, *extent))
                .collect();
            if !wanted.is_empty() {
                self.read_topic(&committed, topic, &wanted, &mut reader, &mut topics)?;
            }
            progress(topic, topics.records.len());
        }
        committed.unassign().context("let go of the partitions")?;
        for events in topics.events.values_mut() {
            events.sort_by_key(|event| event.seq);
            events.shrink_to_fit();
        }
        let Reader { codec, references, inputs, .. } = reader;
        Ok(Heard { topics, codec, references, inputs })
    }

    fn read_topic(
        &self,
        consumer: &BaseConsumer,
        topic: Topic,
        wanted: &BTreeMap<i32, Extent>,
        reader: &mut Reader<'_>,
        into: &mut Topics,
    ) -> Result<()> {
        let name = self.name(topic);
        let mut list = TopicPartitionList::new();
        for (&partition, extent) in wanted {
            list.add_partition_offset(&name, partition, Offset::Offset(extent.start)).context("name a partition")?;
        }
        consumer.assign(&list).with_context(|| format!("read {name}"))?;
        let mut open: BTreeSet<i32> = wanted.keys().copied().collect();
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(200)) {
                None => {
                    if heard.elapsed() > PATIENCE {
                        bail!("{name} says nothing for {} seconds", PATIENCE.as_secs());
                    }
                }
                // Aborted records and a transaction's marks are not shown, so only this tells that the end is reached.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                    heard = Instant::now();
                }
                Some(Err(error)) => return Err(error).with_context(|| format!("read {name}")),
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let Some(extent) = wanted.get(&message.partition()) else { continue };
                    if message.offset() + 1 >= extent.stable_end {
                        open.remove(&message.partition());
                    }
                    if message.topic() == name && message.offset() < extent.stable_end {
                        reader.take(topic, &message, into)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the topics said.
pub struct Heard {
    pub topics: Topics,
    /// Knows every schema that was met.
    pub codec: Codec,
    pub references: References,
    /// The ledger's input records, whole.
    pub inputs: BTreeMap<Place, Box<[u8]>>,
}

fn is_reference(topic: Topic) -> bool {
    matches!(topic.spec().cleanup, kept_schemas::Cleanup::Compact)
}

struct Reader<'a> {
    codec: Codec,
    /// Ids that the registry does not have.
    unknown: BTreeSet<u32>,
    texts: Texts,
    references: References,
    remake: Remake,
    inputs: BTreeMap<Place, Box<[u8]>>,
    schema: &'a mut dyn FnMut(u32) -> Result<Option<String>>,
}

impl Reader<'_> {
    fn take(&mut self, topic: Topic, message: &BorrowedMessage<'_>, into: &mut Topics) -> Result<()> {
        let place = Place { topic, partition: message.partition(), offset: message.offset() };
        let mut headers = Headers::default();
        if let Some(all) = message.headers() {
            for header in all.iter() {
                headers.take(header.key, header.value.unwrap_or_default());
            }
        }
        let order = message.key().and_then(|key| std::str::from_utf8(key).ok()).and_then(OrderId::parse);
        let event_id = headers.id_or_place(topic, place.partition, place.offset);
        let value = message.payload();
        let readable = match value {
            Some(value) => self.content(place, event_id, value, into)?,
            None => is_reference(topic),
        };
        let mut record = Record {
            place,
            at: Micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)),
            event_id,
            step: headers.step.as_deref().map(Step::of),
            cause_id: headers.cause_id,
            cause: headers.cause.as_ref().and_then(|(name, partition, offset)| {
                // Written without the deployment's prefix.
                Some(Place { topic: Topic::of(name)?, partition: *partition, offset: *offset })
            }),
            index: headers.index,
            fused: headers.fused_by.is_some(),
            order,
            body: Body::of(&[value.unwrap_or_default()]),
            readable,
            same_again: None,
        };
        if let Some(value) = value.filter(|_| readable) {
            self.make_again(&mut record, value);
            if Topic::LEDGER_INPUTS.contains(&topic) {
                self.inputs.insert(place, value.into());
            }
        }
        if is_reference(topic) {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            self.references.add(topic, place.offset, Version { key, value: value.map(<[u8]>::to_vec), at: record.at });
        }
        into.records.push(record);
        Ok(())
    }

    /// Keeps what a step reads until its result comes by, and does the step again then.
    fn make_again(&mut self, record: &mut Record, value: &[u8]) {
        if let (Some(step @ (Step::Normalise | Step::Enrich | Step::Validate)), Some(cause), Some(id)) =
            (record.step, record.cause, record.cause_id)
        {
            let topic = record.place.topic;
            record.same_again = self.remake.same(&self.codec, &mut self.references, step, (cause, id), topic, value);
        }
        if let Some(step) = reader_of(record.place.topic) {
            let origin = record.origin();
            self.remake.input(step, origin, record.event_id, record.place.topic, record.at, value);
        }
    }

    /// Versions that the ledger keeps were written with schemas too.
    fn learn_references(&mut self) -> Result<()> {
        let mut values: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for value in self.references.values() {
            if let Ok((id, _)) = split(value) {
                values.entry(id).or_insert_with(|| value.to_vec());
            }
        }
        for value in values.values() {
            self.learn(value)?;
        }
        Ok(())
    }

    /// Learns the schema the value was written with. `false`: it has none that can be read.
    fn learn(&mut self, value: &[u8]) -> Result<bool> {
        let Ok((id, _)) = split(value) else { return Ok(false) };
        if self.codec.knows(id) {
            return Ok(true);
        }
        if self.unknown.contains(&id) {
            return Ok(false);
        }
        match (self.schema)(id)? {
            Some(text) if self.codec.learn(id, &text).is_ok() => Ok(true),
            _ => {
                self.unknown.insert(id);
                Ok(false)
            }
        }
    }

    /// Keeps what checks need of a value. `false`: it cannot be read.
    fn content(&mut self, place: Place, event_id: EventId, value: &[u8], into: &mut Topics) -> Result<bool> {
        if !self.learn(value)? {
            return Ok(false);
        }
        let kept: Result<(), CodecError> = match place.topic {
            Topic::ChannelsInbound => self.decode::<Raw>(value).map(|raw| {
                into.inbound.push(Inbound {
                    place,
                    order_id: OrderId::of(&raw.shop, &raw.external_id),
                    kind: raw.kind.to_string(),
                    body_sha256: hex(&Sha256::digest(&raw.body)),
                });
            }),
            Topic::OrdersReceived => self.decode::<OrderReceived>(value).map(|it| {
                into.received.push(Received { place, order_id: it.order.order_id });
            }),
            Topic::OutcomesReceived => self.decode::<OutcomeReceived>(value).map(|it| {
                into.outcomes.push(Outcome {
                    order_id: it.order_id,
                    outcome_id: it.outcome_id,
                    kind: it.kind.to_string(),
                    fulfilment_id: it.fulfilment_id,
                    simulated: it.simulated,
                });
            }),
            Topic::DeadLetters => self.decode::<Letter>(value).map(|it| {
                if let Some(topic) = Topic::of(&it.topic) {
                    let key = it.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                    into.dead_letters.push(DeadLetter {
                        place: Place { topic, partition: it.partition, offset: it.offset },
                        order: key.and_then(OrderId::parse),
                        reason: it.reason,
                        at: it.at,
                    });
                }
            }),
            Topic::OrdersValidated => self.decode::<kept_schemas::inbound::OrderValidated>(value).map(drop),
            Topic::OrdersEnriched => self.decode::<kept_schemas::inbound::OrderEnriched>(value).map(drop),
            Topic::PaymentsReceived => self.decode::<kept_schemas::inputs::PaymentReceived>(value).map(drop),
            Topic::CommandsReceived => self.decode::<kept_schemas::inputs::CommandReceived>(value).map(drop),
            Topic::DeadlinesReached => self.decode::<kept_schemas::inputs::DeadlineReached>(value).map(drop),
            Topic::StockCounted => self.decode::<kept_schemas::inputs::StockCounted>(value).map(drop),
            topic if is_reference(topic) => Ok(()),
            topic => match LedgerEvent::decode(&self.codec, topic, value) {
                Ok(Some(event)) => {
                    self.ledger_event(place, event_id, event, into);
                    Ok(())
                }
                Ok(None) => return Ok(false),
                Err(error) => Err(error),
            },
        };
        // Whether an unreadable record is a fault is for the checks to say.
        Ok(kept.is_ok())
    }

    fn decode<T: kept_schemas::topics::Record>(&self, value: &[u8]) -> Result<T, CodecError> {
        let (id, _) = split(value)?;
        match self.codec.decode::<T>(value)? {
            Some(it) => Ok(it),
            None => Err(CodecError::Schema(format!("schema {id} is not known"))),
        }
    }

    fn ledger_event(&mut self, place: Place, event_id: EventId, mut event: LedgerEvent, into: &mut Topics) {
        if let LedgerEvent::Stock(it) = &event {
            into.moves.push(Move {
                event_id,
                row: self.texts.stock(&it.sku, &it.location_id, it.condition.as_str()),
                version: it.version,
                movement: self.texts.shared(&it.movement),
                quantity: it.quantity,
                now: Counts { on_hand: it.on_hand, reserved: it.reserved, picked: it.picked, unbacked: it.unbacked },
                claimed: it.claimed,
            });
            return;
        }
        slim(&mut event);
        if let Some((order, seq)) = event.place() {
            into.events.entry(order).or_default().push(OrderEvent { event_id, place, seq, event });
        }
    }
}

/// Leaves out the person, and what is long and of no use here.
fn slim(event: &mut LedgerEvent) {
    match event {
        LedgerEvent::Accepted(it) => {
            it.party = Party::default();
            it.enrichment.lines = Vec::new();
            it.order.attributes = Vec::new();
            for line in &mut it.order.lines {
                line.description = None;
                line.channel_line_id = None;
                line.attributes = Vec::new();
            }
        }
        LedgerEvent::Revised(it) => {
            it.party = Party::default();
            it.order = kept_schemas::Order::default();
        }
        LedgerEvent::Requested(it) => it.party = Party::default(),
        LedgerEvent::Notification(it) => it.party = Party::default(),
        _ => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
