//! The ledger step's driver: *decide once, emit once.*
//!
//! One Postgres transaction moves the input's offsets on by compare-and-set, locks facts, decides, and stores every
//! event as finished bytes. One Kafka transaction then produces those bytes and commits the same offsets. Postgres
//! says what is decided, and up to where its events were seen to stand on their topics (see [`crate::sent`]); whatever
//! lies between is looked for there, and what is missing is emitted from the journal by `catch_up`, which runs whenever
//! we cannot be sure where we stand.
//!
//! Nothing here is remembered that may not be lost: a process can be killed at any await.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kept_processors::{
    ledger::{Cause, LedgerEvent, LedgerInput},
    reference::Reference,
};
use kept_schemas::{EventId, Headers, OrderId, Topic};
use kept_store::seam::{
    Advance, DecidedWith, Ends, JournalRow, Keys, Ledger, LedgerError, LedgerTxn, Locked, Parked, Queue, Rules,
    TopicPartition, Written,
};
use thiserror::Error;

use crate::{
    counters::{Counters, add, time},
    dead_letters,
    log::{Ask, Change, Ended, Found, Log, LogError, LogRecord, Look, Outgoing, TopicFacts},
    schemas::{self, Schemas},
    sent::{self, Done, Watching},
};

/// A record that ended the process is parked when it is met for this many unclean starts.
pub const MAX_ATTEMPTS: i32 = 3;

/// A batch of this step is full at so many bytes of values: what is decided of them is many times as much.
pub const BATCH_BYTES: usize = 512 << 10;

/// What to do where database and topics contradict each other.
const DO_NOT_FIT: &str = "see \"When database and topics do not fit\" in docs/running.md";

/// A step looks at all its topics, and notes what it passed, as often, between two batches.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a step stopped for good, in words for the person who must act.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("step {step} stopped: {reason}")]
pub struct Stopped {
    pub step: String,
    pub reason: String,
}

/// How a step works.
#[derive(Debug, Clone)]
pub struct StepSettings {
    /// The step's name, as its headers carry it.
    pub step: String,
    /// Most records in a batch.
    pub max_records: usize,
    /// How long a batch is gathered.
    pub window: Duration,
    /// Records that a step without memory hands over at a time, while it decides the next ones.
    pub hand_over: usize,
    /// About how many journal rows are emitted again in one transaction.
    pub chunk: usize,
    /// Records worked on alone after an unclean start; batches then grow from this size.
    pub careful: usize,
    /// Waited after something failed that mends itself.
    pub retry: Duration,
}

impl StepSettings {
    /// Sizes that suit two cores.
    pub fn new(step: &str) -> Self {
        Self {
            step: step.to_owned(),
            max_records: 2_000,
            window: Duration::from_millis(100),
            hand_over: 64,
            chunk: 5_000,
            careful: 200,
            retry: Duration::from_millis(500),
        }
    }
}

/// A deliberately broken engine. Only the simulation sets it, to show that it would be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    OffsetsBeforeOutput,
    NoCompareAndSet,
    NoReEmission,
    MetadataAtCommit,
    DedupeByPositionOnly,
    ProducerKept,
    /// The transaction of a batch that was given up stays open: readers wait for its time-out.
    TransactionKept,
    /// What a broker lost the end of is left to whatever ends there next.
    NotSwept,
    /// The group's offset is believed, and what it says nothing of is sent again.
    NotLookedFor,
}

impl Broken {
    /// Every way.
    pub const ALL: &'static [Self] = &[
        Self::OffsetsBeforeOutput,
        Self::NoCompareAndSet,
        Self::NoReEmission,
        Self::MetadataAtCommit,
        Self::DedupeByPositionOnly,
        Self::ProducerKept,
        Self::TransactionKept,
        Self::NotSwept,
        Self::NotLookedFor,
    ];
}

/// What went wrong, by what is to be done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Wait, then establish positions anew.
    Retry(String),
    /// The store's connection is gone.
    Lost(String),
    /// Another worker moved the partition on, or our own commit's answer was lost.
    Miss,
    /// We are not the group member we were.
    Stale(String),
    Stop(String),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Retry(why) => Self::Retry(why),
            LogError::Stop(why) => Self::Stop(why),
        }
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Lost(why) => Self::Lost(why),
            LedgerError::Repeat(why) | LedgerError::Refused(why) => Self::Retry(why),
            LedgerError::Stop(why) => Self::Stop(why),
        }
    }
}

/// Where we stand with a partition.
#[derive(Debug, Clone, Default)]
struct Part {
    /// Positions are established; only then are its records worked on.
    ready: bool,
    topic_id: String,
    epoch: i64,
    /// Decided up to here.
    next: i64,
    /// Emitted up to here.
    emitted: i64,
    /// Seen to stand, and noted, up to here.
    floor: i64,
    /// What `next` was at the last look at all topics.
    looked: i64,
    /// Records below this offset are worked on alone.
    careful_below: i64,
    /// What the last batch was decided with, as it is noted.
    with: Option<BTreeMap<Topic, i64>>,
}

impl Part {
    /// The topic's id and the offset that comes next.
    fn place(&self) -> (&str, i64) {
        (&self.topic_id, self.next)
    }

    /// Nothing came since the last look.
    fn quiet(&self) -> bool {
        self.looked == self.next
    }
}

/// A record on its way through a batch.
struct Item {
    record: LogRecord,
    cause: Cause,
    /// `Err`: it cannot be read, for this reason.
    input: Result<LedgerInput, String>,
    /// It is to be parked without a try, for this reason.
    fault: Option<String>,
}

impl Item {
    fn order(&self) -> Option<OrderId> {
        match &self.input {
            Ok(input) => input.order_id(),
            Err(_) => None,
        }
    }
}

/// What deciding a batch came to.
struct Decided {
    rows: Vec<Outgoing>,
    moves: Vec<Advance>,
}

/// The driver. Runs until it is told to stop, or until going on would be wrong.
pub struct LedgerStep<L: Log, S: Ledger, R: Rules, C: Schemas> {
    pub log: L,
    pub ledger: S,
    pub rules: R,
    pub schemas: C,
    /// Gives today's reference data.
    pub reference: Box<dyn Fn() -> Arc<Reference> + Send>,
    pub settings: StepSettings,
    pub counters: Arc<Counters>,
    /// Set it and the step stops in good order after the batch at hand.
    pub stop: Arc<AtomicBool>,
    /// Only the simulation sets this.
    pub broken: Option<Broken>,
    state: State<L::Meta>,
}

struct State<M> {
    parts: BTreeMap<TopicPartition, Part>,
    meta: Option<M>,
    need_producer: bool,
    need_connection: bool,
    need_positions: bool,
    need_rejoin: bool,
    had_producer: bool,
    /// Largest batch for now; grows again after an unclean start.
    batch: usize,
    /// When all topics were looked at last.
    looked_at: Duration,
    watching: Watching,
    /// What may be sent to.
    outputs: Vec<Topic>,
    /// Records whose attempt this process has counted, and the count.
    tried: BTreeMap<(TopicPartition, i64), i32>,
}

impl<L: Log, S: Ledger, R: Rules, C: Schemas> LedgerStep<L, S, R, C> {
    /// A driver at rest; [`Self::run`] does the work.
    pub fn new(
        log: L,
        ledger: S,
        rules: R,
        schemas: C,
        reference: Box<dyn Fn() -> Arc<Reference> + Send>,
        settings: StepSettings,
    ) -> Self {
        let batch = settings.max_records;
        Self {
            log,
            ledger,
            rules,
            schemas,
            reference,
            settings,
            counters: Arc::default(),
            stop: Arc::default(),
            broken: None,
            state: State {
                parts: BTreeMap::new(),
                meta: None,
                need_producer: true,
                need_connection: false,
                need_positions: false,
                need_rejoin: false,
                had_producer: false,
                batch,
                looked_at: Duration::ZERO,
                watching: Watching::default(),
                outputs: sent::of_ledger(),
                tried: BTreeMap::new(),
            },
        }
    }

    /// Works until told to stop.
    pub async fn run(&mut self) -> Result<(), Stopped> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                self.part_in_good_order().await;
                self.log.close().await;
                return Ok(());
            }
            if let Err(trouble) = self.turn().await {
                self.settle(trouble).await?;
            }
        }
    }

    /// Partitions that are ours and ready.
    pub fn ready(&self) -> usize {
        self.state.parts.values().filter(|part| part.ready).count()
    }

    async fn settle(&mut self, trouble: Trouble) -> Result<(), Stopped> {
        let state = &mut self.state;
        state.need_positions = true;
        match trouble {
            Trouble::Stop(reason) => {
                tracing::error!(step = self.settings.step, reason, "step stopped");
                return Err(Stopped { step: self.settings.step.clone(), reason });
            }
            Trouble::Retry(why) => {
                tracing::warn!(step = self.settings.step, why, "waiting, then checking positions");
                self.log.pause(self.settings.retry).await;
            }
            Trouble::Lost(why) => {
                tracing::warn!(step = self.settings.step, why, "connecting to the ledger again");
                state.need_connection = true;
                self.log.pause(self.settings.retry).await;
            }
            Trouble::Miss => {
                add(&self.counters.cas_misses, 1);
                tracing::info!(step = self.settings.step, "the partition was moved on by another; checking positions");
            }
            Trouble::Stale(why) => {
                add(&self.counters.fences, 1);
                tracing::info!(step = self.settings.step, why, "no longer the group member we were; joining again");
                state.need_producer = true;
                state.need_rejoin = true;
            }
        }
        Ok(())
    }

    /// One round: mend what needs mending, then one batch.
    async fn turn(&mut self) -> Result<(), Trouble> {
        self.counters.gauges.turn(self.state.parts.len(), self.ready());
        if self.state.need_connection {
            self.ledger.reconnect().await?;
            add(&self.counters.reconnects, 1);
            self.state.need_connection = false;
        }
        if self.state.need_producer {
            self.renew().await?;
        }
        if self.state.need_rejoin {
            self.state.parts.clear();
            self.state.meta = None;
            self.log.rejoin().await?;
            add(&self.counters.rejoins, 1);
            self.state.need_rejoin = false;
        }
        if self.state.need_positions && !self.state.parts.is_empty() {
            // Still ours after a poll? Records it brings are read again from the position to be established.
            let polled = self.log.poll(1, Duration::ZERO).await?;
            self.state.meta = polled.meta;
            self.take_changes(polled.changes).await;
            if !self.state.parts.is_empty() && !self.catch_up().await? {
                return Ok(());
            }
        }
        self.state.need_positions = false;
        self.look().await?;
        let polled = self.log.poll(self.state.batch, self.settings.window).await?;
        self.state.meta = polled.meta;
        self.take_changes(polled.changes).await;
        if self.state.need_positions || polled.records.is_empty() {
            return Ok(());
        }
        self.work(polled.records).await
    }

    /// Now and then, at all partitions of ours: a topic made anew under us brings neither an error nor, below our
    /// position, a record, so it is asked for.
    async fn look(&mut self) -> Result<(), Trouble> {
        let now = self.log.now();
        if now.saturating_sub(self.state.looked_at) < LOOK_EVERY {
            return Ok(());
        }
        self.state.looked_at = now;
        self.watch().await?;
        if self.state.parts.is_empty() {
            return Ok(());
        }
        let ours: Vec<TopicPartition> = self.state.parts.keys().copied().collect();
        let facts = self.log.topic_facts(&ours, Ask::Beside).await?;
        check_beside(&facts, |at| self.state.parts.get(&at).map(Part::place))?;
        self.pass().await
    }

    /// Notes what was emitted by an earlier look once it is seen to stand. No transaction of ours is open here.
    async fn watch(&mut self) -> Result<(), Trouble> {
        let ready = self.state.parts.iter().filter(|(_, part)| part.ready);
        let emitted = ready.map(|(at, part)| Done { at: *at, upto: part.emitted, noted: part.floor }).collect();
        let seen = self.state.watching.watch(&mut self.log, &self.state.outputs, emitted).await;
        // Whatever went wrong, a new producer finds out what of the old one's stands.
        self.state.need_producer |= seen.is_err();
        let (floors, ends) = seen?;
        self.note(&floors, &ends).await
    }

    async fn note(&mut self, floors: &[(TopicPartition, i64)], ends: &Ends) -> Result<(), Trouble> {
        if !floors.is_empty() && !self.ledger.emitted(floors, ends).await? {
            return Err(Trouble::Miss);
        }
        for (at, floor) in floors {
            if let Some(part) = self.state.parts.get_mut(at) {
                part.floor = part.floor.max(*floor);
            }
        }
        Ok(())
    }

    /// Notes what was read of quiet partitions and held no record, as records are. Else a topic whose last records are
    /// older than it keeps them would begin after what we believe comes next.
    async fn pass(&mut self) -> Result<(), Trouble> {
        let parts = &self.state.parts;
        let quiet = |at| parts.get(&at).filter(|part| part.ready && part.quiet()).map(|part| (part.epoch, part.next));
        let moves = past(self.log.passed(), quiet);
        self.state.parts.values_mut().for_each(|part| part.looked = part.next);
        if moves.is_empty() {
            return Ok(());
        }
        let mut txn = self.ledger.begin().await?;
        if !txn.advance(&moves).await? {
            return Err(Trouble::Miss);
        }
        txn.commit().await?;
        let mut offsets = Vec::with_capacity(moves.len());
        for it in moves {
            if let Some(part) = self.state.parts.get_mut(&it.at) {
                part.next = it.to_offset;
            }
            offsets.push((it.at, it.to_offset));
        }
        self.transact(&[], &offsets).await?;
        self.emitted(&offsets);
        Ok(())
    }

    fn emitted(&mut self, offsets: &[(TopicPartition, i64)]) {
        for (at, emitted) in offsets {
            if let Some(part) = self.state.parts.get_mut(at) {
                part.emitted = *emitted;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Trouble> {
        if self.broken != Some(Broken::ProducerKept) || !self.state.had_producer {
            let swept = if self.broken == Some(Broken::NotSwept) { &[] } else { &self.state.outputs[..] };
            self.log.renew_producer(swept).await?;
            let ends = self.log.ends(swept).await?;
            self.state.watching.swept(&ends, self.log.now());
        }
        if self.state.had_producer {
            add(&self.counters.recycled_producers, 1);
        }
        self.state.had_producer = true;
        self.state.need_producer = false;
        self.state.need_positions = true;
        Ok(())
    }

    async fn take_changes(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Assigned(ours) => {
                    self.state.parts = ours.into_iter().map(|at| (at, Part::default())).collect();
                    self.state.need_positions = true;
                    self.state.need_rejoin |= self.state.meta.is_none();
                }
                // All that was read of them is done: nothing is polled while a batch is at work.
                Change::Revoked(gone) => {
                    self.leave(&gone).await;
                    self.state.parts.retain(|at, _| !gone.contains(at));
                }
                Change::Lost(gone) => self.state.parts.retain(|at, _| !gone.contains(at)),
            }
            self.state.watching.anew();
        }
    }

    /// Tells the next owner that it need not go record by record, nor look for what we sent. If it cannot be told, it
    /// will; no harm.
    async fn leave(&mut self, gone: &[TopicPartition]) {
        if !self.state.need_positions
            && !self.state.need_connection
            && let Err(trouble) = self.watch().await
        {
            tracing::info!(step = self.settings.step, ?trouble, "leaving, it could not be seen what stands");
            self.state.need_connection |= matches!(trouble, Trouble::Lost(_));
        }
        let whole = |at: &TopicPartition| {
            self.state
                .parts
                .get(at)
                .filter(|part| part.ready && part.emitted == part.next)
                .map(|part| (*at, part.epoch))
        };
        let left: Vec<(TopicPartition, i64)> = gone.iter().filter_map(whole).collect();
        if left.is_empty() || self.state.need_connection {
            return;
        }
        if let Err(error) = self.ledger.leave(&left).await {
            tracing::info!(step = self.settings.step, %error, "leaving in good order could not be noted");
            self.state.need_connection |= matches!(error, LedgerError::Lost(_));
        }
    }

    async fn part_in_good_order(&mut self) {
        let ours: Vec<TopicPartition> = self.state.parts.keys().copied().collect();
        if !self.state.need_positions {
            self.leave(&ours).await;
        }
        self.state.parts.clear();
    }

    /// Establishes where every partition of ours stands, emits what is decided and not emitted, and reads on from
    /// there. `false`: membership changed under way, or a new producer is needed; it must run again.
    async fn catch_up(&mut self) -> Result<bool, Trouble> {
        add(&self.counters.catch_ups, 1);
        self.state.watching.anew();
        let ours: Vec<TopicPartition> = self.state.parts.keys().copied().collect();
        let facts = self.log.topic_facts(&ours, Ask::Anew).await?;
        let mut open: BTreeMap<TopicPartition, Open> = BTreeMap::new();
        for facts in facts {
            let (at, part, it) = self.position(facts).await?;
            open.insert(at, it);
            self.state.parts.insert(at, part);
        }
        // Only now: a step whose topic was made anew stops, whatever is open over its outputs.
        let settled = self.state.watching.settle(&mut self.log, &self.state.outputs).await;
        self.state.need_producer |= settled.is_err();
        settled?;
        // Asked before anything is sent: what is not sent again from here on stands below.
        let ends = self.log.ends(&self.state.outputs).await?;
        let found = self.find(&open, &ends).await?;
        while open.values().any(Open::is_open) {
            self.emit_chunk(&mut open, &found).await?;
            // The group must hear from us while a long journal is emitted.
            let polled = self.log.poll(1, Duration::ZERO).await?;
            if !polled.changes.is_empty() {
                self.state.meta = polled.meta;
                self.take_changes(polled.changes).await;
                return Ok(false);
            }
            if self.state.need_producer {
                // A new one aborts what the broker lost the end of, and that may be what was sent just now.
                return Ok(false);
            }
        }
        let mut floors = Vec::with_capacity(ours.len());
        for at in ours {
            let Some(part) = self.state.parts.get_mut(&at) else {
                continue;
            };
            part.emitted = part.next;
            part.ready = true;
            let next = part.next;
            if open.get(&at).is_some_and(|it| !it.sent) {
                floors.push((at, next));
            }
            self.log.seek(at, next).await?;
        }
        self.note(&floors, &sent::whole(&ends)).await?;
        Ok(true)
    }

    /// Looks for the events of which it is not noted that they stand.
    async fn find(
        &mut self,
        open: &BTreeMap<TopicPartition, Open>,
        ends: &BTreeMap<TopicPartition, crate::log::End>,
    ) -> Result<Found, Trouble> {
        let doubtful: Vec<(&TopicPartition, &Open)> = open.iter().filter(|(_, it)| it.from < it.to).collect();
        if doubtful.is_empty() || self.broken == Some(Broken::NotLookedFor) {
            return Ok(Found::default());
        }
        let look = Look {
            steps: vec![self.settings.step.clone()],
            from: sent::least(ends, &self.state.outputs, doubtful.iter().map(|(_, it)| &it.sent_from))?,
            causes: doubtful.iter().map(|(at, it)| (**at, it.from)).collect(),
        };
        let found = self.log.find(&look).await;
        self.state.need_producer |= found.is_err();
        Ok(found?)
    }

    async fn group_offset(&mut self, at: TopicPartition) -> Result<Option<i64>, Trouble> {
        let group = self.log.group_offset(at).await;
        // What it waits for in vain may be a transaction of ours whose end the broker lost.
        self.state.need_producer |= group.is_err();
        Ok(group?)
    }

    /// Takes one partition over and checks that store, group and topic agree.
    async fn position(&mut self, facts: TopicFacts) -> Result<(TopicPartition, Part, Open), Trouble> {
        let at = facts.at;
        let place = format!("{}/{}", at.topic, at.partition);
        // The group first: what is decided only grows, so a later look at it is never behind what is emitted.
        let group = self.group_offset(at).await?;
        let before = self.ledger.progress(at).await?;
        if let (None, Some(group)) = (&before, group) {
            return Err(Trouble::Stop(format!(
                "the group has emitted {place} up to {group}, but the database knows nothing of it; was it emptied or \
                 restored? {DO_NOT_FIT}"
            )));
        }
        let progress = self.ledger.take(at, &facts.topic_id, facts.start).await?;
        let next = progress.next_offset;
        let facts = facts.or_anew(&mut self.log, &progress.topic_id, next).await?;
        if progress.topic_id != facts.topic_id {
            let floor = progress.emitted_floor;
            let open = if floor < next {
                format!("; events decided from {floor} to {next} may or may not be emitted, `kept check` names them")
            } else {
                String::new()
            };
            return Err(Trouble::Stop(format!(
                "{place} is another topic of the same name (id {}, was {}): it was deleted and made anew; \
                 its offsets mean nothing any more{open}",
                facts.topic_id, progress.topic_id
            )));
        }
        if !facts.fits(&progress.topic_id, next) {
            return Err(Trouble::Stop(format!(
                "{place} is decided up to offset {next}, but the topic holds {} to {}: records were lost or the topic \
                 was cut off",
                facts.start, facts.end
            )));
        }
        let floor = progress.emitted_floor;
        let group = match group {
            // Asked before the partition was ours; another may have gone on since.
            Some(group) if group < floor => self.group_offset(at).await?,
            known => known,
        };
        match group {
            Some(group) if group > next => {
                return Err(Trouble::Stop(format!(
                    "the group has emitted {place} up to {group}, but the database has decided only up to {next}: it is \
                     older than the topics; {DO_NOT_FIT}"
                )));
            }
            Some(group) if group < floor => {
                forgotten(&self.settings.step, &self.counters, &place, Some(group), floor);
            }
            _ => {}
        }
        let from = match (self.broken, group) {
            (Some(Broken::NotLookedFor), Some(group)) => group.max(floor),
            _ => floor,
        };
        let old = self.state.parts.get(&at).cloned().unwrap_or_default();
        let unclean = old.topic_id.is_empty() && before.is_some_and(|it| !it.clean);
        let careful = i64::try_from(self.settings.careful).unwrap_or(i64::MAX);
        if unclean {
            self.state.batch = self.settings.careful.clamp(1, self.settings.max_records);
        }
        let part = Part {
            ready: false,
            topic_id: facts.topic_id,
            epoch: progress.owner_epoch,
            next,
            emitted: floor,
            floor,
            looked: next,
            careful_below: if unclean { next + careful } else { old.careful_below },
            with: None,
        };
        Ok((at, part, Open { from, to: next, group, sent_from: progress.sent_from, sent: false }))
    }

    /// Emits one bounded chunk of the journal, over all partitions in journal order, ending on whole causes.
    async fn emit_chunk(&mut self, open: &mut BTreeMap<TopicPartition, Open>, found: &Found) -> Result<(), Trouble> {
        let mut chunks = Vec::new();
        for (&at, it) in open.iter() {
            if it.from < it.to {
                let (rows, complete) = self.ledger.unemitted(at, it.from, it.to, self.settings.chunk).await?;
                chunks.push((at, rows, complete, it.to));
            } else if it.is_open() {
                chunks.push((at, Vec::new(), it.to, it.to));
            }
        }
        let horizon = chunks
            .iter()
            .filter(|(_, _, complete, to)| complete < to)
            .filter_map(|(_, rows, ..)| rows.last().map(|row| row.journal_id))
            .min()
            .unwrap_or(i64::MAX);
        let mut rows = Vec::new();
        let mut offsets = Vec::new();
        for (at, mut chunk, complete, _) in chunks {
            let mut whole = chunk.partition_point(|row| row.journal_id <= horizon);
            let mut upto = complete;
            if let Some(next) = chunk.get(whole) {
                upto = next.cause.offset;
                while whole > 0 && chunk[whole - 1].cause.offset == upto {
                    whole -= 1;
                }
            }
            chunk.truncate(whole);
            rows.append(&mut chunk);
            offsets.push((at, upto));
        }
        rows.sort_by_key(|row: &JournalRow| row.journal_id);
        if self.broken == Some(Broken::NoReEmission) {
            rows.clear();
        }
        let all = rows.len();
        rows.retain(|row| !found.holds(place_of(row), row.headers.event_id));
        add(&self.counters.found_sent, all - rows.len());
        if let (true, Some(row)) = (found.cut, rows.first()) {
            return Err(Trouble::Stop(format!(
                "what was sent last is older than {} keeps it, so that decided events may or may not be emitted, the \
                 first of them of {}/{}/{}; {DO_NOT_FIT}",
                row.topic, row.cause.topic, row.cause.partition, row.cause.offset
            )));
        }
        let sent_of: BTreeSet<TopicPartition> = rows.iter().map(|row| place_of(row).0).collect();
        for (_, it) in open.iter_mut().filter(|(at, _)| sent_of.contains(at)) {
            it.sent = true;
        }
        let outgoing: Vec<Outgoing> = rows.into_iter().map(Outgoing::from).collect();
        add(&self.counters.re_emissions, outgoing.len());
        // The group is told what it does not know, and of whatever events are sent again: it refuses a stale owner only
        // with an offset. It is never told less than it knows.
        let mut told = Vec::with_capacity(offsets.len());
        for &(at, upto) in &offsets {
            let known = open.get(&at).and_then(|it| it.group);
            if sent_of.contains(&at) || known.is_none_or(|known| known < upto) {
                told.push((at, known.map_or(upto, |known| known.max(upto))));
            }
        }
        if !outgoing.is_empty() || !told.is_empty() {
            self.transact(&outgoing, &told).await?;
        }
        for (at, upto) in offsets {
            if let Some(it) = open.get_mut(&at) {
                it.from = upto;
                it.group = it.group.max(Some(upto));
            }
        }
        Ok(())
    }

    /// One Kafka transaction as the member we were when the batch was read.
    async fn transact(&mut self, outgoing: &[Outgoing], offsets: &[(TopicPartition, i64)]) -> Result<(), Trouble> {
        let mut meta = self.state.meta.clone();
        if self.broken == Some(Broken::MetadataAtCommit) {
            meta = self.log.meta_now();
        }
        let Some(meta) = meta else {
            return Err(Trouble::Stale("not a member of the group".into()));
        };
        self.state.watching.sending();
        let began = Instant::now();
        let ended = if self.broken == Some(Broken::OffsetsBeforeOutput) && !outgoing.is_empty() {
            match self.log.transact(&[], offsets, &meta).await {
                Ended::Committed => self.log.transact(outgoing, &[], &meta).await,
                other => other,
            }
        } else {
            self.log.transact(outgoing, offsets, &meta).await
        };
        time(&self.counters.spreads.commit, began);
        match ended {
            Ended::Committed => add(&self.counters.transactions, 1),
            Ended::CommittedTwice => {
                add(&self.counters.transactions, 1);
                self.state.need_producer = true;
            }
            Ended::Aborted(why) | Ended::Ambiguous(why) => {
                add(&self.counters.aborts, 1);
                self.state.need_producer = true;
                return Err(Trouble::Retry(why));
            }
            Ended::Fenced(why) => {
                add(&self.counters.fences, 1);
                self.state.need_producer = true;
                return Err(Trouble::Retry(why));
            }
            Ended::Stale(why) => return Err(Trouble::Stale(why)),
        }
        Ok(())
    }

    /// Decides and emits what a poll brought.
    async fn work(&mut self, records: Vec<LogRecord>) -> Result<(), Trouble> {
        let mut slices: VecDeque<Vec<LogRecord>> = VecDeque::new();
        let mut together = Vec::new();
        for record in records {
            let Some(part) = self.state.parts.get(&record.at).filter(|part| part.ready) else {
                continue;
            };
            if record.offset < part.next {
                continue;
            }
            if record.offset < part.careful_below {
                slices.push_back(vec![record]);
            } else {
                together.push(record);
            }
        }
        let careful = slices.len();
        if !together.is_empty() {
            slices.push_back(together);
        }
        let mut rows = Vec::new();
        let mut ends: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        for (position, slice) in slices.into_iter().enumerate() {
            let items = if position < careful { self.read_alone(slice).await? } else { self.read(slice).await? };
            self.decide(items, &mut rows, &mut ends).await?;
        }
        if ends.is_empty() {
            return Ok(());
        }
        let offsets: Vec<(TopicPartition, i64)> = ends.into_iter().collect();
        self.transact(&rows, &offsets).await?;
        self.emitted(&offsets);
        self.state.batch = (self.state.batch * 2).min(self.settings.max_records);
        Ok(())
    }

    /// After an unclean start: the attempt is counted before anything is done with the record.
    async fn read_alone(&mut self, slice: Vec<LogRecord>) -> Result<Vec<Item>, Trouble> {
        let mut items = Vec::with_capacity(slice.len());
        for record in slice {
            add(&self.counters.careful_records, 1);
            // Once for this start of the process: a failure that it survives is not the record's.
            let attempts = match self.state.tried.get(&(record.at, record.offset)) {
                Some(&attempts) => attempts,
                None => self.ledger.attempt(record.at, record.offset).await?,
            };
            self.state.tried.insert((record.at, record.offset), attempts);
            if attempts >= MAX_ATTEMPTS {
                let why = format!("it ended the process {} times when it was tried alone", attempts - 1);
                items.push(Item { cause: cause(&record), input: Err(why.clone()), fault: Some(why), record });
            } else {
                items.append(&mut self.read(vec![record]).await?);
            }
        }
        Ok(items)
    }

    async fn read(&mut self, slice: Vec<LogRecord>) -> Result<Vec<Item>, Trouble> {
        let mut items = Vec::with_capacity(slice.len());
        let mut codec = self.schemas.codec();
        for record in slice {
            let input = loop {
                let Some(value) = &record.value else {
                    break Err("it has no value".to_owned());
                };
                match LedgerInput::decode(&codec, record.at.topic, value) {
                    Ok(Some(input)) => break Ok(input),
                    Err(error) => break Err(error.to_string()),
                    Ok(None) => {
                        let id = kept_schemas::codec::split(value).map_or(0, |(id, _)| id);
                        match self.schemas.ensure(id).await {
                            Ok(true) => codec = self.schemas.codec(),
                            Ok(false) => {
                                break Err(schemas::unknown(id));
                            }
                            Err(error) => return Err(Trouble::Retry(error.to_string())),
                        }
                    }
                }
            };
            items.push(Item { cause: cause(&record), input, fault: None, record });
        }
        Ok(items)
    }

    /// Decides a slice; cuts it in two until the record at fault is found, and parks that one's order.
    async fn decide(
        &mut self,
        items: Vec<Item>,
        rows: &mut Vec<Outgoing>,
        ends: &mut BTreeMap<TopicPartition, i64>,
    ) -> Result<(), Trouble> {
        let mut work: VecDeque<Vec<Item>> = VecDeque::from([items]);
        let mut repeats = 0;
        while let Some(mut slice) = work.pop_front() {
            match self.attempt(&slice).await {
                Ok(Tried::Done(decided)) => {
                    add(&self.counters.batches, 1);
                    add(&self.counters.records, slice.len());
                    self.counters.spreads.batch.note(slice.len() as u64);
                    decided.rows.iter().for_each(|it| self.counters.count_sent(it.topic, 1));
                    rows.extend(decided.rows);
                    for it in decided.moves {
                        if let Some(part) = self.state.parts.get_mut(&it.at) {
                            part.next = it.to_offset;
                        }
                        ends.insert(it.at, it.to_offset);
                    }
                    repeats = 0;
                }
                Ok(Tried::AtFault(position, why)) => {
                    let item = &mut slice[position];
                    if item.fault.is_some() {
                        return Err(stuck(item, &why));
                    }
                    item.fault = Some(why);
                    work.push_front(slice);
                }
                Err(Failed::Trouble(trouble)) => return Err(trouble),
                Err(Failed::Repeat(why)) => {
                    add(&self.counters.repeats, 1);
                    repeats += 1;
                    if repeats > 20 {
                        return Err(Trouble::Retry(why));
                    }
                    self.log.pause(Duration::from_millis(5 * repeats)).await;
                    work.push_front(slice);
                }
                Err(Failed::Refused(why)) if slice.len() > 1 => {
                    add(&self.counters.bisections, 1);
                    tracing::info!(
                        step = self.settings.step,
                        why,
                        records = slice.len(),
                        "batch refused; cutting it in two"
                    );
                    let rest = slice.split_off(slice.len() / 2);
                    work.push_front(rest);
                    work.push_front(slice);
                }
                Err(Failed::Refused(why)) => {
                    let item = &mut slice[0];
                    if item.fault.is_some() {
                        return Err(stuck(item, &why));
                    }
                    item.fault = Some(why);
                    work.push_front(slice);
                }
            }
        }
        Ok(())
    }

    /// One Postgres transaction: offsets, facts, decisions, events.
    async fn attempt(&mut self, slice: &[Item]) -> Result<Tried, Failed> {
        let moves = self.moves(slice).await?;
        let keys = keys(&self.rules, slice);
        let asked: Vec<TopicPartition> = moves.iter().map(|it| it.at).collect();
        let reference = (self.reference)();
        let codec = self.schemas.codec();
        let Self { log, ledger, rules, counters, settings, broken, state, .. } = self;
        let began = Instant::now();
        let work = async {
            let mut txn = ledger.begin().await?;
            if !txn.advance(&moves).await? {
                return Err(Failed::Trouble(Trouble::Miss));
            }
            let mut skus = |facts: &kept_processors::ledger::Facts| {
                let all: BTreeSet<String> = slice
                    .iter()
                    // What is to be parked may be so for what it needs locked.
                    .filter(|item| item.fault.is_none())
                    .filter_map(|item| item.input.as_ref().ok())
                    .flat_map(|input| rules.skus(input, facts))
                    .collect();
                all.into_iter().collect()
            };
            let locked = txn.lock(&keys, &mut skus).await?;
            let deciding = Instant::now();
            let folded = fold(&*rules, slice, locked, &reference, &codec, &settings.step, *broken);
            time(&counters.spreads.decide, deciding);
            Ok((txn, folded))
        };
        // The question for the topic's id goes beside the work; its answer is awaited before the commit.
        let (work, facts) = tokio::join!(work, log.topic_facts(&asked, Ask::Beside));
        let (mut txn, folded) = work?;
        let mut folded = match folded {
            Err((position, why)) => return Ok(Tried::AtFault(position, why)),
            Ok(folded) => folded,
        };
        folded.written.with = moves
            .iter()
            .filter(|it| state.parts.get(&it.at).is_some_and(|part| part.with.as_ref() != Some(&reference.versions)))
            .map(|it| DecidedWith {
                at: it.at,
                from_offset: it.from_offset,
                code: env!("CARGO_PKG_VERSION").into(),
                versions: reference.versions.clone(),
            })
            .collect();
        let facts = facts.map_err(Trouble::from)?;
        check_beside(&facts, |at| state.parts.get(&at).map(Part::place))?;
        txn.write(&folded.written).await?;
        txn.commit().await?;
        for it in &folded.written.with {
            if let Some(part) = state.parts.get_mut(&it.at) {
                part.with = Some(it.versions.clone());
            }
        }
        time(&counters.spreads.store, began);
        folded.tally.count(counters);
        for (cause, why) in &folded.faults {
            let record = format!("{}/{}/{}", cause.topic, cause.partition, cause.offset);
            tracing::error!(step = settings.step, record, traceparent = cause.traceparent, why, "record is set aside");
        }
        let next = |at| moves.iter().find(|it| it.at == at).map(|it| it.to_offset);
        counters.gauges.behind(&facts, next);
        counters.done(slice.iter().map(|it| it.record.timestamp));
        let rows = folded.written.events.into_iter().map(|(_, row)| Outgoing::from(row)).collect();
        Ok(Tried::Done(Decided { rows, moves }))
    }

    /// Each partition's compare-and-set for this slice.
    async fn moves(&mut self, slice: &[Item]) -> Result<Vec<Advance>, Failed> {
        let mut moves: BTreeMap<TopicPartition, Advance> = BTreeMap::new();
        for item in slice {
            let part = &self.state.parts[&item.record.at];
            let entry = moves.entry(item.record.at).or_insert(Advance {
                at: item.record.at,
                owner_epoch: part.epoch,
                from_offset: part.next,
                to_offset: part.next,
            });
            entry.to_offset = item.record.offset + 1;
        }
        let mut moves: Vec<Advance> = moves.into_values().collect();
        if self.broken == Some(Broken::NoCompareAndSet) {
            for it in &mut moves {
                if let Some(now) = self.ledger.progress(it.at).await? {
                    it.owner_epoch = now.owner_epoch;
                    it.from_offset = now.next_offset;
                }
            }
        }
        Ok(moves)
    }
}

/// What is still to be done about a partition before it is worked on.
struct Open {
    /// Its events are dealt with up to here.
    from: i64,
    /// Decided up to here.
    to: i64,
    /// What the group has committed.
    group: Option<i64>,
    /// Where to look for its events.
    sent_from: Ends,
    /// Some of its events were sent.
    sent: bool,
}

impl Open {
    fn is_open(&self) -> bool {
        self.from < self.to || self.group != Some(self.to)
    }
}

/// The record that a row of the journal came of.
fn place_of(row: &JournalRow) -> (TopicPartition, i64) {
    (TopicPartition { topic: row.cause.topic, partition: row.cause.partition }, row.cause.offset)
}

/// Told when the broker gives an older committed offset than one that it had confirmed: it lost commits, or went back
/// to a state before them. What was confirmed is not done again; whether the outputs are there still, when a machine
/// went down and not only a process, is for `kept check` to say.
pub(crate) fn forgotten(step: &str, counters: &Counters, place: &str, group: Option<i64>, floor: i64) {
    add(&counters.forgotten_offsets, 1);
    tracing::error!(
        step,
        place,
        group,
        floor,
        "the broker forgot offsets that it had committed; going on from our note; `kept check` tells of lost records"
    );
}

fn stuck(item: &Item, why: &str) -> Trouble {
    let Cause { topic, partition, offset, .. } = &item.cause;
    Trouble::Stop(format!("record {topic}/{partition}/{offset} can neither be decided nor parked: {why}"))
}

enum Tried {
    Done(Decided),
    /// Nothing was written: the record at this position must be parked.
    AtFault(usize, String),
}

enum Failed {
    Trouble(Trouble),
    Repeat(String),
    Refused(String),
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Repeat(why) => Self::Repeat(why),
            LedgerError::Refused(why) => Self::Refused(why),
            other => Self::Trouble(other.into()),
        }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// A running consumer is not told that its topic was made anew; so the id is asked for every batch, after the batch
/// was read and before it is committed.
/// `place`: the id of a partition's topic and the offset it is read from; `None`: it is not ours any more.
pub(crate) fn check_beside<'a>(
    facts: &[TopicFacts],
    place: impl Fn(TopicPartition) -> Option<(&'a str, i64)>,
) -> Result<(), Trouble> {
    for facts in facts {
        if place(facts.at).is_some_and(|(topic_id, next)| !facts.fits(topic_id, next)) {
            // Whether it is so for good is for `catch_up` to say: it asks anew, and stops with the reason.
            return Err(Trouble::Retry(format!(
                "{}/{} is not as it was: id or extent changed",
                facts.at.topic, facts.at.partition
            )));
        }
    }
    Ok(())
}

/// The moves past what was read and held no record. `quiet`: owner epoch and next offset of a partition that is quiet.
pub(crate) fn past(
    passed: Vec<(TopicPartition, i64)>,
    quiet: impl Fn(TopicPartition) -> Option<(i64, i64)>,
) -> Vec<Advance> {
    let moves = passed.into_iter().filter_map(|(at, to_offset)| {
        let (owner_epoch, from_offset) = quiet(at)?;
        (from_offset < to_offset).then_some(Advance { at, owner_epoch, from_offset, to_offset })
    });
    moves.collect()
}

fn cause(record: &LogRecord) -> Cause {
    Cause {
        event_id: record.event_id(),
        topic: record.at.topic,
        partition: record.at.partition,
        offset: record.offset,
        traceparent: record.headers.traceparent.clone(),
    }
}

fn keys<R: Rules>(rules: &R, slice: &[Item]) -> Keys {
    let mut keys = Keys::default();
    for item in slice {
        if let Ok(input) = &item.input {
            // Whatever the rules need; the order and the cause are always needed.
            if item.fault.is_none() {
                rules.keys(input, &item.cause, &mut keys);
            }
            match input.order_id() {
                Some(order) => {
                    keys.orders.push(order);
                    keys.causes.push((order, item.cause.event_id));
                }
                None => keys.stock_causes.push(item.cause.event_id),
            }
        }
        // Where it waits, if it could not be read.
        keys.orders.extend(order_of_key(&item.record));
    }
    keys.orders.sort_unstable();
    keys.orders.dedup();
    keys.contents.sort_unstable();
    keys.contents.dedup();
    keys.causes.sort_unstable();
    keys.causes.dedup();
    keys.skus.sort_unstable();
    keys.skus.dedup();
    keys.stock_causes.sort_unstable();
    keys.stock_causes.dedup();
    keys
}

/// The order that a record's key names, for a record that cannot be read itself.
fn order_of_key(record: &LogRecord) -> Option<OrderId> {
    record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).and_then(OrderId::parse)
}

/// What a batch counted, added once it is committed.
#[derive(Default)]
struct Tally {
    duplicates: usize,
    parked: usize,
    behind: usize,
    dead: usize,
    events: usize,
}

impl Tally {
    fn count(&self, counters: &Counters) {
        add(&counters.duplicates, self.duplicates);
        add(&counters.parked, self.parked);
        add(&counters.queued_behind_parked, self.behind);
        add(&counters.dead_letters, self.dead);
        add(&counters.events, self.events);
    }
}

struct Folded {
    written: Written,
    tally: Tally,
    /// Records that are parked or dead letters now, and why.
    faults: Vec<(Cause, String)>,
}

/// Decides record by record. `Err`: the record at this position is at fault; the facts may be half changed and are
/// thrown away with the transaction.
fn fold<R: Rules>(
    rules: &R,
    slice: &[Item],
    locked: Locked,
    reference: &Reference,
    codec: &kept_schemas::Codec,
    step: &str,
    broken: Option<Broken>,
) -> Result<Folded, (usize, String)> {
    let Locked { mut facts, mut acted, mut parked } = locked;
    let mut written = Written::default();
    let mut tally = Tally::default();
    let mut faults = Vec::new();
    if broken == Some(Broken::DedupeByPositionOnly) {
        acted.clear();
    }
    for (position, item) in slice.iter().enumerate() {
        let by_key = order_of_key(&item.record);
        let order = item.order().or_else(|| by_key.filter(|_| item.input.is_err() && item.fault.is_some()));
        let event_id = item.cause.event_id;
        // One that could not be read waits among the records of the order that its key names.
        let let_go = [item.order(), by_key].into_iter().flatten().find_map(|owner| {
            let first = parked.get(&owner)?.let_go?;
            (first.event_id == event_id).then_some((owner, first.parked_id))
        });
        let repeated = item.input.is_ok() && acted.contains(&(order, event_id));
        let fault = item.fault.as_ref().filter(|_| !repeated);
        if let (Some((owner, parked_id)), None) = (let_go, fault) {
            leave(&mut parked, owner);
            written.unparked.push(parked_id);
        }
        if repeated {
            tally.duplicates += 1;
            continue;
        }
        let park = |order_id: OrderId, reason: Option<String>| Parked {
            order_id,
            cause: item.cause.clone(),
            key: item.record.key.clone().unwrap_or_default(),
            payload: item.record.value.clone().unwrap_or_default(),
            reason,
            again: let_go.map(|(_, parked_id)| parked_id),
        };
        // One that was let go has had its turn, but only among the records of the order that it waited for: it may have
        // waited by a wrong key while it could not be read.
        let waits = |order: OrderId| let_go.is_none_or(|(owner, _)| owner != order && fault.is_none());
        if let Some(order) = order.filter(|order| waits(*order))
            && let Some(queue) = parked.get_mut(&order)
        {
            tally.behind += 1;
            queue.records += 1;
            written.parked.push(Parked { again: None, ..park(order, None) });
            continue;
        }
        let input = match (fault, order, &item.input) {
            (Some(why), Some(order), _) => {
                tally.parked += 1;
                let owner = let_go.map_or(order, |(owner, _)| owner);
                parked.entry(owner).or_insert(Queue { let_go: None, records: 1 }).let_go = None;
                faults.push((item.cause.clone(), why.clone()));
                written.parked.push(park(owner, Some(why.clone())));
                continue;
            }
            (Some(why), None, _) | (None, _, Err(why)) => {
                let row = dead_letters::row(codec, step, &item.record, &item.cause, why, facts.now)
                    .map_err(|why| (position, why))?;
                tally.dead += 1;
                faults.push((item.cause.clone(), why.clone()));
                written.events.push((None, row));
                continue;
            }
            (None, _, Ok(input)) => input,
        };
        let events = catch_unwind(AssertUnwindSafe(|| rules.decide(input, &item.cause, &mut facts, reference)))
            .map_err(|_| (position, "the rules panicked".to_owned()))?;
        for (index, event) in events.into_iter().enumerate() {
            let index = u32::try_from(index).expect("fewer than 2^32 events of one cause");
            let row = journal_row(codec, step, &item.cause, index, &event).map_err(|why| (position, why))?;
            tally.events += 1;
            written.events.push((Some(event), row));
        }
        if broken != Some(Broken::DedupeByPositionOnly) {
            acted.insert((order, event_id));
        }
        written.acted.push((order, event_id));
    }
    written.facts = facts;
    Ok(Folded { written, tally, faults })
}

/// The first record of a parked order is dealt with; the last one frees it.
fn leave(parked: &mut BTreeMap<OrderId, Queue>, order: OrderId) {
    if let Entry::Occupied(mut it) = parked.entry(order) {
        let queue = it.get_mut();
        *queue = Queue { let_go: None, records: queue.records.saturating_sub(1) };
        if queue.records == 0 {
            it.remove();
        }
    }
}

/// An event as the journal keeps it and the topic gets it.
fn journal_row(
    codec: &kept_schemas::Codec,
    step: &str,
    cause: &Cause,
    index: u32,
    event: &LedgerEvent,
) -> Result<JournalRow, String> {
    let topic = event.topic();
    let wire = event.encode(codec).map_err(|error| error.to_string())?;
    Ok(JournalRow {
        journal_id: 0,
        topic,
        key: event.key(),
        wire,
        headers: headers(step, cause, index, topic),
        order: event.place(),
        cause: cause.clone(),
        index,
    })
}

/// The headers of the `index`-th record that `step` makes from `cause`.
pub fn headers(step: &str, cause: &Cause, index: u32, topic: Topic) -> Headers {
    Headers {
        event_id: Some(EventId::of_step(step, cause.event_id, index)),
        cause_id: Some(cause.event_id),
        traceparent: cause.traceparent.clone(),
        subject: Some(topic.subject().into()),
        step: Some(step.to_owned().into()),
        cause: Some((cause.topic.name().into(), cause.partition, cause.offset)),
        index: Some(index),
        fused_by: None,
    }
}

#[cfg(test)]
mod tests {
    use kept_processors::ledger::Facts;
    use kept_schemas::{Micros, codec::offline, inputs::PaymentReceived};
    use kept_store::seam::LetGo;

    use super::*;

    struct Silent;

    impl Rules for Silent {
        fn keys(&self, _: &LedgerInput, _: &Cause, _: &mut Keys) {}

        fn skus(&self, _: &LedgerInput, _: &Facts) -> Vec<kept_processors::ledger::Sku> {
            Vec::new()
        }

        fn decide(&self, _: &LedgerInput, _: &Cause, _: &mut Facts, _: &Reference) -> Vec<LedgerEvent> {
            Vec::new()
        }
    }

    fn order(name: &str) -> OrderId {
        OrderId::of("shop", name)
    }

    /// A payment of an order, on its way again under the key that it came with.
    fn payment(of: &str, key: &str) -> Item {
        let value = PaymentReceived { order_id: order(of), ..Default::default() };
        let headers = Headers { event_id: Some(EventId::of_input("test", of, b"")), ..Default::default() };
        let record = LogRecord {
            at: TopicPartition { topic: Topic::PaymentsReceived, partition: 0 },
            offset: 9,
            timestamp: Micros(0),
            key: Some(order(key).to_string().into_bytes()),
            value: Some(offline().encode(&value).expect("it fits").bytes()),
            headers,
        };
        Item { cause: cause(&record), input: Ok(LedgerInput::Payment(value)), fault: None, record }
    }

    #[test]
    fn a_record_that_was_let_go_is_decided_unless_its_own_order_waits_for_another() {
        let item = payment("one", "two");
        let let_go = |order_id| {
            let first = LetGo { event_id: item.cause.event_id, parked_id: 5 };
            (order_id, Queue { let_go: Some(first), records: 1 })
        };
        let waiting = |order_id| (order_id, Queue { let_go: None, records: 2 });
        // What is parked; whether it is decided; in whose queue it is put.
        let cases = [
            ("it waited for its own order", vec![let_go(order("one"))], true, None),
            ("it waited by its key", vec![let_go(order("two"))], true, None),
            ("and its order waits too", vec![let_go(order("two")), waiting(order("one"))], false, Some(order("one"))),
            ("another one was let go", vec![waiting(order("one"))], false, Some(order("one"))),
        ];
        for (what, parked, decided, behind) in cases {
            let locked = Locked { parked: parked.iter().copied().collect(), ..Locked::default() };
            let was_let_go = parked.iter().any(|(_, it)| it.let_go.is_some());
            let slice = [payment("one", "two")];
            let folded = fold(&Silent, &slice, locked, &Reference::default(), &offline(), "ledger", None);
            let written = folded.unwrap_or_else(|(_, why)| panic!("{what}: {why}")).written;
            assert_eq!(written.acted.len() == 1, decided, "{what}");
            assert_eq!(written.unparked, if was_let_go { vec![5] } else { vec![] }, "{what}");
            let queued: Vec<(OrderId, Option<i64>)> = written.parked.iter().map(|it| (it.order_id, it.again)).collect();
            assert_eq!(queued, behind.map(|order| (order, None)).into_iter().collect::<Vec<_>>(), "{what}");
        }
    }
}
