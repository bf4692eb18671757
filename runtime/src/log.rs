//! The log seam: all that the drivers need from Kafka. They are generic over it, so that the shipped drivers run
//! against Kafka and, in the simulation, against a model in memory.
//!
//! Every method may be cancelled (its future dropped) at any await: that is what a crash looks like.

use std::{collections::BTreeMap, time::Duration};

use kept_schemas::{EventId, Headers, Micros, Topic, Wire};
use kept_store::seam::{Ends, JournalRow, TopicPartition};
use thiserror::Error;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub at: TopicPartition,
    pub offset: i64,
    /// When the broker appended it.
    pub timestamp: Micros,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl LogRecord {
    /// Its event id, or one made from its place.
    pub fn event_id(&self) -> EventId {
        self.headers.id_or_place(self.at.topic, self.at.partition, self.offset)
    }

    /// The id made from its place, whatever its headers say.
    pub fn place_id(&self) -> EventId {
        Headers::default().id_or_place(self.at.topic, self.at.partition, self.offset)
    }
}

/// A record to produce, finished to the byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: Topic,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub headers: Headers,
}

impl Outgoing {
    /// A record of a finished value.
    pub fn new(topic: Topic, key: &str, wire: &Wire, headers: Headers) -> Self {
        Self { topic, key: key.as_bytes().to_vec(), value: wire.bytes(), headers }
    }
}

impl From<JournalRow> for Outgoing {
    fn from(row: JournalRow) -> Self {
        Self { topic: row.topic, key: row.key.into_bytes(), value: row.wire.into_bytes(), headers: row.headers }
    }
}

/// How our part in the group changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Ours now; nothing of them is read until [`Log::seek`] says from where.
    Assigned(Vec<TopicPartition>),
    /// Given back in good order: what was read of them before is done or was dropped.
    Revoked(Vec<TopicPartition>),
    /// Somebody else may have them since a while already.
    Lost(Vec<TopicPartition>),
}

/// What a poll brought. Records are of partitions that are ours after `changes`.
#[derive(Debug, Clone)]
pub struct Polled<M> {
    pub changes: Vec<Change>,
    pub records: Vec<LogRecord>,
    /// Who we were in the group when these partitions were assigned; offsets are committed as that and as nobody
    /// else. `None` before the first assignment.
    pub meta: Option<M>,
}

/// A partition as the broker has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    pub at: TopicPartition,
    /// The topic's id (KIP-516); another id is another topic of the same name.
    pub topic_id: String,
    /// First offset that is still there.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
}

impl TopicFacts {
    /// Whether it is still this topic, and reading can go on from `next`.
    pub(crate) fn fits(&self, topic_id: &str, next: i64) -> bool {
        self.topic_id == topic_id && (self.start..=self.end).contains(&next)
    }

    /// These if they fit; else what the broker says now, for an owner before us may have gone on since they were asked.
    pub(crate) async fn or_anew<L: Log>(self, log: &mut L, topic_id: &str, next: i64) -> Result<Self, LogError> {
        if self.fits(topic_id, next) {
            return Ok(self);
        }
        Ok(log.topic_facts(&[self.at], Ask::Anew).await?.pop().unwrap_or(self))
    }
}

/// How fresh [`TopicFacts`] must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Everything asked now: when a position is established.
    Anew,
    /// The id asked now, start and end as of the last fetch: beside each batch.
    Beside,
}

/// Where a partition of an output topic ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// One past the last record.
    pub end: i64,
    /// First offset that belongs to a transaction whose end is not written yet, else as `end`. Never older than `end`.
    pub stable: i64,
}

/// Whose records to look for, and where.
#[derive(Debug, Clone)]
pub struct Look {
    /// Names of the steps that made them.
    pub steps: Vec<String>,
    /// Where they were sent: from these offsets on, up to what is there now.
    pub from: Ends,
    /// Of which partitions they came, from which offset on.
    pub causes: BTreeMap<TopicPartition, i64>,
}

/// What was found to stand.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// By the place of the record they came of. There may be hundreds of thousands.
    pub records: BTreeMap<(TopicPartition, i64), Vec<FoundRecord>>,
    /// Some of where they might be is older than its topic keeps it, and gone.
    pub cut: bool,
}

/// One record that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    pub event_id: EventId,
    /// Of what it was made: the record at the place it came of, or another one made of that.
    pub cause_id: EventId,
    /// Which of [`Look::steps`] made it.
    pub step: usize,
    /// A fused instance took it further.
    pub fused: bool,
    /// It is the dead letter of the record at the place it came of.
    pub letter: bool,
}

impl Found {
    /// Notes a record of `topic`, if it is one of those that are looked for.
    pub fn note(&mut self, look: &Look, topic: Topic, headers: &Headers) {
        let Headers {
            event_id: Some(event_id), cause_id: Some(cause_id), step: Some(step), cause: Some(cause), ..
        } = headers
        else {
            return;
        };
        let (of, partition, offset) = cause;
        let Some(of) = Topic::of(of) else { return };
        let at = TopicPartition { topic: of, partition: *partition };
        let Some(step) = look.steps.iter().position(|it| it == step) else { return };
        if look.causes.get(&at).is_some_and(|from| offset >= from) {
            let (fused, letter) = (headers.fused_by.is_some(), topic == Topic::DeadLetters);
            let found = FoundRecord { event_id: *event_id, cause_id: *cause_id, step, fused, letter };
            self.records.entry((at, *offset)).or_default().push(found);
        }
    }

    /// Whether the record of this id that came of this place stands.
    pub fn holds(&self, cause: (TopicPartition, i64), event_id: Option<EventId>) -> bool {
        self.records.get(&cause).is_some_and(|all| all.iter().any(|it| Some(it.event_id) == event_id))
    }
}

/// How a Kafka transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All of it is visible, or will be.
    Committed,
    /// All of it is visible, but a first try of its end may still be on its way: a new producer before the next one.
    CommittedTwice,
    /// None of it will be visible.
    Aborted(String),
    /// The group does not take our word any more: we are not the member we were. None of it will be visible.
    Stale(String),
    /// Not known; a new producer settles it.
    Ambiguous(String),
    /// Another producer took our transactional id, or ours timed out; a new producer settles it.
    Fenced(String),
}

/// What to do after a failed call.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LogError {
    /// The broker cannot be reached or is busy: wait, then again.
    #[error("{0}")]
    Retry(String),
    /// Going on would be wrong.
    #[error("{0}")]
    Stop(String),
}

/// The log as a driver sees it. One value per worker: one group member and one transactional producer.
#[allow(async_fn_in_trait)]
pub trait Log {
    /// Who we are in the group, as of one assignment.
    type Meta: Clone;

    /// Up to `max` records, and a few MiB at most: waits up to `wait` for the first, and gathers until that one is as
    /// old. Returns at once when membership changed, with no record of partitions that are not ours any more.
    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Polled<Self::Meta>, LogError>;

    /// Who we are in the group at this instant. Never to be used for a commit: a paused owner would commit a stale
    /// batch under it. The simulation's broken engine does, and must be caught.
    fn meta_now(&mut self) -> Option<Self::Meta>;

    /// The group's own committed offset, once no transaction over it is open. `None`: there is none.
    async fn group_offset(&mut self, at: TopicPartition) -> Result<Option<i64>, LogError>;

    /// Up to where partitions of ours were read since the last [`Log::seek`]: past the last record that was handed out,
    /// and past whatever follows it without being one (markers of transactions, aborted records).
    fn passed(&mut self) -> Vec<(TopicPartition, i64)>;

    /// Asks already now what [`Log::topic_facts`] is going to be asked of these partitions with [`Ask::Beside`].
    fn ask(&mut self, at: &[TopicPartition]);

    /// Id, start and end of each partition, in the order asked for.
    async fn topic_facts(&mut self, at: &[TopicPartition], ask: Ask) -> Result<Vec<TopicFacts>, LogError>;

    /// Reads on from `offset`; records read before are dropped. No transaction of ours is open.
    async fn seek(&mut self, at: TopicPartition, offset: i64) -> Result<(), LogError>;

    /// The first records of our next transaction; they are on their way while the caller goes on. What goes wrong is
    /// told by [`Log::transact`]. A caller that cannot get that far gives up.
    async fn send(&mut self, outgoing: &[Outgoing]);

    /// Aborts what was sent, so that readers need not wait for it. A new producer must follow.
    async fn give_up(&mut self);

    /// One Kafka transaction: these records after those that were sent already, and these offsets of ours; or nothing.
    async fn transact(&mut self, outgoing: &[Outgoing], offsets: &[(TopicPartition, i64)], meta: &Self::Meta) -> Ended;

    /// A new producer under the same transactional id: whatever the old one left is finished or aborted, and
    /// nothing of it can arrive later. `outputs`: topics on which the broker may have lost the end of what the old one
    /// left. Such records would become visible with the next commit; they are aborted. So would be what this aborts,
    /// until its own end is written ([`Log::ends`] shows that).
    async fn renew_producer(&mut self, outputs: &[Topic]) -> Result<(), LogError>;

    /// Whether our producer is still the one of its transactional id, and has been until now. An error: it is not, or it
    /// cannot be told; then a new producer must follow.
    async fn confirm(&mut self) -> Result<(), LogError>;

    /// Where each partition of these topics ends; a topic that is not there is left out.
    async fn ends(&mut self, topics: &[Topic]) -> Result<BTreeMap<TopicPartition, End>, LogError>;

    /// Looks for records that stand, once no transaction is open over where they might be.
    async fn find(&mut self, look: &Look) -> Result<Found, LogError>;

    /// The log's clock, from any beginning.
    fn now(&self) -> Duration;

    /// Leaves the group and joins it again as a new member.
    async fn rejoin(&mut self) -> Result<(), LogError>;

    /// Waits, by the log's clock.
    async fn pause(&self, time: Duration);

    /// Leaves the group.
    async fn close(&mut self);
}
