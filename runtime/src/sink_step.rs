//! The driver of a sink in Postgres: exactly once by the same compare-and-set of offsets as the ledger's, in the
//! batch's own transaction. Kafka only hands out partitions; where to read on from is in the sink.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{Codec, CodecError, Topic};
use kept_store::seam::{Advance, LedgerError, Sink, SinkInput, SinkRecord, SinkTxn, TopicPartition};

use crate::{
    counters::{Counters, add, time},
    dead_letters,
    ledger_step::{Broken, LOOK_EVERY, StepSettings, Stopped, Trouble, check_beside, past},
    log::{Ask, Change, Log, LogRecord},
    schemas::{self, Schemas},
};

/// A batch of this step is full at so many bytes of values.
pub const BATCH_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Default)]
struct Part {
    ready: bool,
    topic_id: String,
    epoch: i64,
    next: i64,
    /// What `next` was at the last look at all topics.
    looked: i64,
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

/// The driver. Runs until it is told to stop, or until going on would be wrong.
pub struct SinkStep<L: Log, S: Sink, C: Schemas> {
    pub log: L,
    pub sink: S,
    pub schemas: C,
    pub settings: StepSettings,
    pub counters: Arc<Counters>,
    /// Set it and the step stops in good order after the batch at hand.
    pub stop: Arc<AtomicBool>,
    /// Only the simulation sets this.
    pub broken: Option<Broken>,
    parts: BTreeMap<TopicPartition, Part>,
    need_connection: bool,
    need_positions: bool,
    /// When all topics were looked at last.
    looked_at: Duration,
}

impl<L: Log, S: Sink, C: Schemas> SinkStep<L, S, C> {
    /// A driver at rest; [`Self::run`] does the work.
    pub fn new(log: L, sink: S, schemas: C, settings: StepSettings) -> Self {
        Self {
            log,
            sink,
            schemas,
            settings,
            counters: Arc::default(),
            stop: Arc::default(),
            broken: None,
            parts: BTreeMap::new(),
            need_connection: false,
            need_positions: false,
            looked_at: Duration::ZERO,
        }
    }

    /// Partitions that are ours and ready.
    pub fn ready(&self) -> usize {
        self.parts.values().filter(|part| part.ready).count()
    }

    /// Works until told to stop.
    pub async fn run(&mut self) -> Result<(), Stopped> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                let ours: Vec<TopicPartition> = self.parts.keys().copied().collect();
                self.leave(&ours).await;
                self.parts.clear();
                self.log.close().await;
                return Ok(());
            }
            let Err(trouble) = self.turn().await else {
                continue;
            };
            self.need_positions = true;
            match trouble {
                Trouble::Stop(reason) => {
                    tracing::error!(step = self.settings.step, reason, "step stopped");
                    return Err(Stopped { step: self.settings.step.clone(), reason });
                }
                Trouble::Retry(why) | Trouble::Stale(why) => {
                    tracing::warn!(step = self.settings.step, why, "waiting, then checking positions");
                    self.log.pause(self.settings.retry).await;
                }
                Trouble::Lost(why) => {
                    tracing::warn!(step = self.settings.step, why, "connecting to the database again");
                    self.need_connection = true;
                    self.log.pause(self.settings.retry).await;
                }
                Trouble::Miss => {
                    add(&self.counters.cas_misses, 1);
                    tracing::info!(
                        step = self.settings.step,
                        "the partition was moved on by another; checking positions"
                    );
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Trouble> {
        self.counters.gauges.turn(self.parts.len(), self.ready());
        if self.need_connection {
            self.sink.reconnect().await?;
            add(&self.counters.reconnects, 1);
            self.need_connection = false;
        }
        if self.need_positions && !self.parts.is_empty() {
            // Still ours after a poll? Records it brings are read again from the position to be established.
            let polled = self.log.poll(1, Duration::ZERO).await?;
            self.take_changes(polled.changes).await;
            self.catch_up().await?;
        }
        self.need_positions = false;
        self.look().await?;
        let polled = self.log.poll(self.settings.max_records, self.settings.window).await?;
        self.take_changes(polled.changes).await;
        if self.need_positions {
            return Ok(());
        }
        let records: Vec<LogRecord> = polled
            .records
            .into_iter()
            .filter(|it| self.parts.get(&it.at).is_some_and(|part| part.ready && it.offset >= part.next))
            .collect();
        if records.is_empty() { Ok(()) } else { self.work(records).await }
    }

    /// Now and then, at all partitions of ours: a topic made anew under us brings neither an error nor, below our
    /// position, a record, so it is asked for.
    async fn look(&mut self) -> Result<(), Trouble> {
        let now = self.log.now();
        if now.saturating_sub(self.looked_at) < LOOK_EVERY || self.parts.is_empty() {
            return Ok(());
        }
        self.looked_at = now;
        let ours: Vec<TopicPartition> = self.parts.keys().copied().collect();
        let facts = self.log.topic_facts(&ours, Ask::Beside).await?;
        check_beside(&facts, |at| self.parts.get(&at).map(Part::place))?;
        self.pass().await
    }

    /// Notes what was read of quiet partitions and held no record, as records are. Else a topic whose last records are
    /// older than it keeps them would begin after what we believe comes next.
    async fn pass(&mut self) -> Result<(), Trouble> {
        let parts = &self.parts;
        let quiet = |at| parts.get(&at).filter(|part| part.ready && part.quiet()).map(|part| (part.epoch, part.next));
        let moves = past(self.log.passed(), quiet);
        self.parts.values_mut().for_each(|part| part.looked = part.next);
        if moves.is_empty() {
            return Ok(());
        }
        let mut txn = self.sink.begin().await?;
        if !txn.advance(&moves).await? {
            return Err(Trouble::Miss);
        }
        txn.commit().await?;
        for it in moves {
            if let Some(part) = self.parts.get_mut(&it.at) {
                part.next = it.to_offset;
            }
        }
        Ok(())
    }

    async fn take_changes(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Assigned(ours) => {
                    self.parts = ours.into_iter().map(|at| (at, Part::default())).collect();
                    self.need_positions = true;
                }
                Change::Revoked(gone) => {
                    self.leave(&gone).await;
                    self.parts.retain(|at, _| !gone.contains(at));
                }
                Change::Lost(gone) => self.parts.retain(|at, _| !gone.contains(at)),
            }
        }
    }

    async fn leave(&mut self, gone: &[TopicPartition]) {
        let left: Vec<(TopicPartition, i64)> = gone
            .iter()
            .filter_map(|at| self.parts.get(at).filter(|part| part.ready).map(|part| (*at, part.epoch)))
            .collect();
        if left.is_empty() || self.need_connection {
            return;
        }
        if let Err(error) = self.sink.leave(&left).await {
            tracing::info!(step = self.settings.step, %error, "leaving in good order could not be noted");
            self.need_connection |= matches!(error, LedgerError::Lost(_));
        }
    }

    /// Takes every partition of ours over, and reads on from where the sink stands.
    async fn catch_up(&mut self) -> Result<(), Trouble> {
        add(&self.counters.catch_ups, 1);
        let ours: Vec<TopicPartition> = self.parts.keys().copied().collect();
        let all = self.log.topic_facts(&ours, Ask::Anew).await?;
        for facts in all {
            let at = facts.at;
            let place = format!("{}/{}", at.topic, at.partition);
            let progress = self.sink.take(at, &facts.topic_id, facts.start).await?;
            let next = progress.next_offset;
            let facts = facts.or_anew(&mut self.log, &progress.topic_id, next).await?;
            if progress.topic_id != facts.topic_id {
                return Err(Trouble::Stop(format!(
                    "{place} is another topic of the same name (id {}, was {}): it was deleted and made anew; \
                     rebuild the read model",
                    facts.topic_id, progress.topic_id
                )));
            }
            if !facts.fits(&progress.topic_id, next) {
                return Err(Trouble::Stop(format!(
                    "{place} is read up to offset {next}, but the topic holds {} to {}: records were lost; rebuild \
                     the read model",
                    facts.start, facts.end
                )));
            }
            self.log.seek(at, next).await?;
            let part = Part { ready: true, topic_id: facts.topic_id, epoch: progress.owner_epoch, next, looked: next };
            self.parts.insert(at, part);
        }
        Ok(())
    }

    async fn work(&mut self, records: Vec<LogRecord>) -> Result<(), Trouble> {
        let read = self.read(&records).await?;
        // A slice, and where in `records` it begins.
        let mut work: VecDeque<(usize, Vec<SinkRecord>)> = VecDeque::from([(0, read)]);
        let mut repeats = 0;
        while let Some((first, mut slice)) = work.pop_front() {
            match self.attempt(&slice).await {
                Ok(moves) => {
                    repeats = 0;
                    add(&self.counters.batches, 1);
                    add(&self.counters.records, slice.len());
                    self.counters.spreads.batch.note(slice.len() as u64);
                    for it in moves {
                        if let Some(part) = self.parts.get_mut(&it.at) {
                            part.next = it.to_offset;
                        }
                    }
                }
                Err(Failed::Trouble(trouble)) => return Err(trouble),
                Err(Failed::Repeat(why)) => {
                    add(&self.counters.repeats, 1);
                    repeats += 1;
                    if repeats > 20 {
                        return Err(Trouble::Retry(why));
                    }
                    self.log.pause(Duration::from_millis(5 * repeats)).await;
                    work.push_front((first, slice));
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
                    work.push_front((first + slice.len(), rest));
                    work.push_front((first, slice));
                }
                Err(Failed::Refused(why)) => {
                    let record = &mut slice[0];
                    if matches!(record.input, SinkInput::DeadLetter(_)) {
                        return Err(Trouble::Stop(format!(
                            "record {}/{}/{} cannot be stored, not even as a dead letter: {why}",
                            record.at.topic, record.at.partition, record.offset
                        )));
                    }
                    add(&self.counters.dead_letters, 1);
                    tracing::error!(
                        step = self.settings.step, topic = %record.at.topic, partition = record.at.partition,
                        offset = record.offset, traceparent = record.headers.traceparent, why,
                        "record cannot be stored; it becomes a dead letter"
                    );
                    record.input = unreadable(&self.settings.step, &records[first], &why);
                    work.push_front((first, slice));
                }
            }
        }
        Ok(())
    }

    async fn read(&self, records: &[LogRecord]) -> Result<Vec<SinkRecord>, Trouble> {
        let mut codec = self.schemas.codec();
        let mut read = Vec::with_capacity(records.len());
        for record in records {
            let input = loop {
                match decode(&codec, record) {
                    Ok(Ok(input)) => break input,
                    Ok(Err(id)) => match self.schemas.ensure(id).await {
                        Ok(true) => codec = self.schemas.codec(),
                        Ok(false) => {
                            add(&self.counters.dead_letters, 1);
                            let why = schemas::unknown(id);
                            break unreadable(&self.settings.step, record, &why);
                        }
                        Err(error) => return Err(Trouble::Retry(error.to_string())),
                    },
                    Err(why) => {
                        add(&self.counters.dead_letters, 1);
                        break unreadable(&self.settings.step, record, &why);
                    }
                }
            };
            read.push(SinkRecord {
                at: record.at,
                offset: record.offset,
                timestamp: record.timestamp,
                headers: record.headers.clone(),
                input,
            });
        }
        Ok(read)
    }

    /// One Postgres transaction: offsets and rows.
    async fn attempt(&mut self, records: &[SinkRecord]) -> Result<Vec<Advance>, Failed> {
        let mut moves: BTreeMap<TopicPartition, Advance> = BTreeMap::new();
        for record in records {
            let part = &self.parts[&record.at];
            let entry = moves.entry(record.at).or_insert(Advance {
                at: record.at,
                owner_epoch: part.epoch,
                from_offset: part.next,
                to_offset: part.next,
            });
            entry.to_offset = record.offset + 1;
        }
        let mut moves: Vec<Advance> = moves.into_values().collect();
        if self.broken == Some(Broken::NoCompareAndSet) {
            for it in &mut moves {
                if let Some(now) = self.sink.progress(it.at).await? {
                    it.owner_epoch = now.owner_epoch;
                    it.from_offset = now.next_offset;
                }
            }
        }
        let asked: Vec<TopicPartition> = moves.iter().map(|it| it.at).collect();
        let began = Instant::now();
        let Self { log, sink, parts, counters, .. } = self;
        let work = async {
            let mut txn = sink.begin().await?;
            if !txn.advance(&moves).await? {
                return Err(Failed::Trouble(Trouble::Miss));
            }
            applied(txn.apply(records)).await?;
            Ok(txn)
        };
        // The question for the topic's id goes beside the work; its answer is awaited before the commit.
        let (txn, facts) = tokio::join!(work, log.topic_facts(&asked, Ask::Beside));
        let txn = txn?;
        let facts = facts.map_err(Trouble::from).map_err(Failed::Trouble)?;
        check_beside(&facts, |at| parts.get(&at).map(Part::place)).map_err(Failed::Trouble)?;
        txn.commit().await?;
        let next = |at| moves.iter().find(|it| it.at == at).map(|it| it.to_offset);
        counters.gauges.behind(&facts, next);
        counters.done(records.iter().map(|it| it.timestamp));
        time(&counters.spreads.store, began);
        Ok(moves)
    }
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

/// A panic over a record is the record's fault, as a refusal is; the transaction is given up either way.
async fn applied(apply: impl Future<Output = Result<(), LedgerError>>) -> Result<(), LedgerError> {
    let mut apply = pin!(apply);
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| apply.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(LedgerError::Refused("storing it panicked".into()))))
    })
    .await
}

/// `Ok(Err(id))`: this schema id is not known yet.
fn decode(codec: &Codec, record: &LogRecord) -> Result<Result<SinkInput, u32>, String> {
    let value = record.value.as_deref().ok_or("it has no value")?;
    let said = |error: CodecError| error.to_string();
    let input = if record.at.topic == Topic::DeadLetters {
        codec.decode(value).map_err(said)?.map(|it| SinkInput::DeadLetter(Box::new(it)))
    } else {
        LedgerEvent::decode(codec, record.at.topic, value).map_err(said)?.map(SinkInput::Event)
    };
    match input {
        Some(input) => Ok(Ok(input)),
        None => Ok(Err(kept_schemas::codec::split(value).map_err(said)?.0)),
    }
}

fn unreadable(step: &str, record: &LogRecord, why: &str) -> SinkInput {
    SinkInput::DeadLetter(Box::new(dead_letters::letter(step, record, why, record.timestamp)))
}
