//! The ledger seam: all that the ledger driver needs from Postgres. The driver is generic over it, so that the
//! shipped driver runs against Postgres and, in the simulation, against a model in memory.
//!
//! Every method may be cancelled (its future dropped) at any await: that is what a crash looks like.

use std::collections::BTreeMap;

use kept_processors::{
    ledger::{Cause, Facts, LedgerEvent, LedgerInput, Sku},
    reference::Reference,
};
use kept_schemas::{EventId, Headers, Micros, OrderId, Topic, Wire};
use thiserror::Error;

/// A partition of an input topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Topic,
    pub partition: i32,
}

/// Per partition of output topics, an offset from which on stands all that was sent since some moment.
pub type Ends = BTreeMap<TopicPartition, i64>;

/// Where a partition stands in Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The next offset to decide.
    pub next_offset: i64,
    /// Rises each time a worker takes the partition over.
    pub owner_epoch: i64,
    /// The topic's id (KIP-516) when the row was made; another id means another topic of the same name.
    pub topic_id: String,
    /// What came of everything below this offset was seen to stand on its topics.
    pub emitted_floor: i64,
    /// From where on stands what was sent beyond the floor. A partition that is not here: from its beginning.
    pub sent_from: Ends,
    /// The last owner stopped in good order.
    pub clean: bool,
}

/// One partition's part of a batch: the compare-and-set of its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    pub at: TopicPartition,
    pub owner_epoch: i64,
    /// Expected before.
    pub from_offset: i64,
    /// New next offset.
    pub to_offset: i64,
}

/// What a batch must lock. The ledger locks orders first, then SKUs, then stock rows, each in key order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    pub orders: Vec<OrderId>,
    /// Orders whose content (the order itself, the person) is needed too.
    pub contents: Vec<OrderId>,
    /// (order, cause event id) of each record, to recognise what was acted on before.
    pub causes: Vec<(OrderId, EventId)>,
    /// Input about SKUs themselves.
    pub skus: Vec<Sku>,
    /// Cause ids of input without an order (stock).
    pub stock_causes: Vec<EventId>,
}

/// What the ledger found for [`Keys`].
#[derive(Debug, Clone, Default)]
pub struct Locked {
    /// Orders seen for the first time have a fresh `order_no` and `seq` 0.
    pub facts: Facts,
    /// Causes that were acted on before: their records are skipped.
    pub acted: std::collections::BTreeSet<(Option<OrderId>, EventId)>,
    /// Orders that are parked.
    pub parked: BTreeMap<OrderId, Queue>,
}

/// What waits of a parked order. Whatever comes of it queues behind, but the record that a person let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Its first record, when that one was let go: it is decided when it comes again.
    pub let_go: Option<LetGo>,
    /// How many records wait, that one included.
    pub records: usize,
}

/// The first record of a parked order, on its way again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetGo {
    pub event_id: EventId,
    /// Its row.
    pub parked_id: i64,
}

/// An event with its finished bytes and where it came from: one row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// Given by the ledger on writing, rising; 0 before.
    pub journal_id: i64,
    pub topic: Topic,
    pub key: String,
    pub wire: Wire,
    pub headers: Headers,
    /// The order's number and the event's number in it, where it has them.
    pub order: Option<(OrderId, i64)>,
    pub cause: Cause,
    pub index: u32,
}

/// A record that could not be decided, waiting for a person; later records of the order queue behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub order_id: OrderId,
    pub cause: Cause,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    /// `None`: it waits behind another record of its order.
    pub reason: Option<String>,
    /// It was let go and failed again: it stays the first of its order, in this row.
    pub again: Option<i64>,
}

/// What decisions about a partition's records are made with, from an offset on until it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedWith {
    pub at: TopicPartition,
    pub from_offset: i64,
    /// The version of the code.
    pub code: String,
    /// Per reference topic: the offset that comes next in it.
    pub versions: BTreeMap<Topic, i64>,
}

/// All that a batch changes besides the facts themselves.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Facts after the fold; the ledger writes what differs from what it locked.
    pub facts: Facts,
    /// What was said, in order. A row without an event says nothing about an order: a dead letter.
    pub events: Vec<(Option<LedgerEvent>, JournalRow)>,
    /// Causes acted on in this batch.
    pub acted: Vec<(Option<OrderId>, EventId)>,
    pub parked: Vec<Parked>,
    /// Rows of records that were let go and are dealt with: they leave the queues of their orders.
    pub unparked: Vec<i64>,
    /// Where it is not as in the batch before.
    pub with: Vec<DecidedWith>,
}

/// What to do after a failed call.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LedgerError {
    /// The connection is gone or a time-out hit: whether the last commit happened is not known. Reconnect, catch up.
    #[error("ledger connection lost: {0}")]
    Lost(String),
    /// Deadlock or serialisation failure; nothing happened: repeat the batch.
    #[error("ledger transaction must be repeated: {0}")]
    Repeat(String),
    /// The statement itself failed; nothing happened: bisect the batch to find the record at fault.
    #[error("ledger refused: {0}")]
    Refused(String),
    /// The stored state contradicts what we see; a person must look. The step stops with this message.
    #[error("{0}")]
    Stop(String),
}

/// An open transaction of the ledger. Dropping it rolls back.
#[allow(async_fn_in_trait)]
pub trait LedgerTxn {
    /// First statement: moves each partition on. `false`: someone else did, or we are not the owner any more.
    async fn advance(&mut self, moves: &[Advance]) -> Result<bool, LedgerError>;

    /// Locks orders, then hands each to `skus` to learn which SKUs its inputs touch, then locks those and their
    /// stock rows; reads who waits for them.
    async fn lock(&mut self, keys: &Keys, skus: &mut dyn FnMut(&Facts) -> Vec<Sku>) -> Result<Locked, LedgerError>;

    /// Writes facts, journal, causes, timers and queues of parked orders. Journal ids are taken here, after the locks.
    async fn write(&mut self, written: &Written) -> Result<(), LedgerError>;

    /// Commits. `Lost`: it may or may not have happened.
    async fn commit(self) -> Result<(), LedgerError>;
}

/// The ledger as the driver sees it. One value per worker; it holds one connection.
#[allow(async_fn_in_trait)]
pub trait Ledger {
    type Txn<'a>: LedgerTxn
    where
        Self: 'a;

    /// Where a partition stands; `None` when it was never worked on.
    async fn progress(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError>;

    /// Takes a partition over: raises its epoch, ends the previous owner's backend, remembers ours. Makes the row
    /// at `start_offset` with `topic_id` when there is none.
    async fn take(&mut self, at: TopicPartition, topic_id: &str, start_offset: i64) -> Result<Progress, LedgerError>;

    /// Begins a transaction.
    async fn begin(&mut self) -> Result<Self::Txn<'_>, LedgerError>;

    /// Journal rows whose cause lies in `from..to` of the partition, in journal order, at most about `limit`, but
    /// always whole causes; and the offset up to which they are complete.
    async fn unemitted(
        &mut self,
        at: TopicPartition,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<(Vec<JournalRow>, i64), LedgerError>;

    /// Raises the emitted floor of partitions we own, outside of a batch, and notes from where on stands what is sent
    /// beyond it. False: one of them is not ours, or not by this connection, and its floor stays.
    async fn emitted(&mut self, floors: &[(TopicPartition, i64)], sent_from: &Ends) -> Result<bool, LedgerError>;

    /// Counts one more attempt at a record, committed before the attempt; returns the count, this one included.
    async fn attempt(&mut self, at: TopicPartition, offset: i64) -> Result<i32, LedgerError>;

    /// Marks partitions as left in good order, so that the next owner need not go record by record.
    async fn leave(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError>;

    /// Opens a new connection in place of a lost one.
    async fn reconnect(&mut self) -> Result<(), LedgerError>;
}

/// What a stateless step remembers of its partitions: which topic it was, whether the last owner left in good order,
/// how often a record was tried, up to where what was sent is known to stand, and from where on to look for the rest.
/// Every [`Ledger`] can do that; `()` remembers nothing.
#[allow(async_fn_in_trait)]
pub trait Places {
    /// Takes a partition over, or, after another connection or owner, anew. The topic's id when it was first taken, and
    /// whether it was left in good order (as it is the first time).
    async fn enter(&mut self, at: TopicPartition, topic_id: &str) -> Result<Entered, LedgerError>;

    /// As [`Ledger::attempt`].
    async fn attempt_at(&mut self, at: TopicPartition, offset: i64) -> Result<i32, LedgerError>;

    /// What came of everything before these offsets was seen to stand: kept, with from where on stands what is sent
    /// beyond. False: not all are kept, and [`Places::enter`] comes first.
    async fn done_to(&mut self, floors: &[(TopicPartition, i64)], sent_from: &Ends) -> Result<bool, LedgerError>;

    /// As [`Ledger::leave`].
    async fn leave_places(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError>;

    /// As [`Ledger::reconnect`].
    async fn reconnect_places(&mut self) -> Result<(), LedgerError>;
}

/// What [`Places::enter`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    pub topic_id: String,
    pub epoch: i64,
    pub clean: bool,
    /// The last offset of [`Places::done_to`], if there was one.
    pub floor: Option<i64>,
    /// As [`Progress::sent_from`].
    pub sent_from: Ends,
}

impl<S: Ledger> Places for S {
    async fn enter(&mut self, at: TopicPartition, topic_id: &str) -> Result<Entered, LedgerError> {
        let taken = self.take(at, topic_id, 0).await?;
        let noted = taken.emitted_floor > 0 || !taken.sent_from.is_empty();
        Ok(Entered {
            topic_id: taken.topic_id,
            epoch: taken.owner_epoch,
            clean: taken.clean,
            floor: noted.then_some(taken.emitted_floor),
            sent_from: taken.sent_from,
        })
    }

    async fn done_to(&mut self, floors: &[(TopicPartition, i64)], sent_from: &Ends) -> Result<bool, LedgerError> {
        self.emitted(floors, sent_from).await
    }

    async fn attempt_at(&mut self, at: TopicPartition, offset: i64) -> Result<i32, LedgerError> {
        self.attempt(at, offset).await
    }

    async fn leave_places(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        self.leave(at).await
    }

    async fn reconnect_places(&mut self) -> Result<(), LedgerError> {
        self.reconnect().await
    }
}

impl Places for () {
    async fn enter(&mut self, _: TopicPartition, topic_id: &str) -> Result<Entered, LedgerError> {
        Ok(Entered { topic_id: topic_id.to_owned(), epoch: 0, clean: true, floor: None, sent_from: Ends::new() })
    }

    async fn done_to(&mut self, _: &[(TopicPartition, i64)], _: &Ends) -> Result<bool, LedgerError> {
        Ok(true)
    }

    async fn attempt_at(&mut self, _: TopicPartition, _: i64) -> Result<i32, LedgerError> {
        Ok(1)
    }

    async fn leave_places(&mut self, _: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn reconnect_places(&mut self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// The pure step as the driver sees it; the shipped one is `kept_processors::ledger`.
pub trait Rules: Send + Sync {
    /// What a record needs locked.
    fn keys(&self, input: &LedgerInput, cause: &Cause, keys: &mut Keys);

    /// The SKUs a record touches, once its order is known.
    fn skus(&self, input: &LedgerInput, facts: &Facts) -> Vec<Sku>;

    /// Decides. The events are folded into `facts` as they are made, so that the next record sees them.
    fn decide(&self, input: &LedgerInput, cause: &Cause, facts: &mut Facts, reference: &Reference) -> Vec<LedgerEvent>;
}

/// A timer that is due, as the timer source reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimer {
    pub order_id: OrderId,
    pub timer_id: String,
    pub purpose: kept_schemas::inputs::TimerPurpose,
    pub revision: i64,
    pub due_at: Micros,
}

/// Where the timer source reads what is due, by Postgres's clock.
#[allow(async_fn_in_trait)]
pub trait Timers {
    /// Timers whose time has come and that are not cleared, oldest first, at most `limit`.
    async fn due(&mut self, limit: usize) -> Result<Vec<DueTimer>, LedgerError>;

    /// Opens a new connection in place of a lost one.
    async fn reconnect(&mut self) -> Result<(), LedgerError>;
}

/// What a sink is given: one record of one of its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkInput {
    /// An output of the ledger step.
    Event(LedgerEvent),
    /// A record of `dead.letters`, or one of the sink's own topics that could not be read.
    DeadLetter(Box<kept_schemas::events::DeadLetter>),
}

/// One record for a sink, with its place and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkRecord {
    pub at: TopicPartition,
    pub offset: i64,
    /// When the broker appended it.
    pub timestamp: Micros,
    pub headers: Headers,
    pub input: SinkInput,
}

/// An open transaction of a sink. Dropping it rolls back.
#[allow(async_fn_in_trait)]
pub trait SinkTxn {
    /// First statement: moves each partition on. `false`: someone else did, or we are not the owner any more.
    async fn advance(&mut self, moves: &[Advance]) -> Result<bool, LedgerError>;

    /// Folds records into the sink's tables.
    async fn apply(&mut self, records: &[SinkRecord]) -> Result<(), LedgerError>;

    /// Commits. `Lost`: it may or may not have happened.
    async fn commit(self) -> Result<(), LedgerError>;
}

/// A sink as its driver sees it: exactly once by the same compare-and-set as the ledger's, in the batch's own
/// transaction. One value per worker; it holds one connection.
#[allow(async_fn_in_trait)]
pub trait Sink {
    type Txn<'a>: SinkTxn
    where
        Self: 'a;

    /// Where a partition stands; `None` when it was never worked on. `emitted_floor` and `sent_from` have no meaning
    /// here.
    async fn progress(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError>;

    /// Takes a partition over: raises its epoch, ends the previous owner's backend, remembers ours. Makes the row
    /// at `start_offset` with `topic_id` when there is none.
    async fn take(&mut self, at: TopicPartition, topic_id: &str, start_offset: i64) -> Result<Progress, LedgerError>;

    /// Begins a transaction.
    async fn begin(&mut self) -> Result<Self::Txn<'_>, LedgerError>;

    /// Marks partitions as left in good order.
    async fn leave(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError>;

    /// Opens a new connection in place of a lost one.
    async fn reconnect(&mut self) -> Result<(), LedgerError>;
}
