//! The driver of steps that remember nothing: poll → decide → produce → offsets → commit, in one Kafka transaction.
//!
//! Several such steps may run fused: a record goes through all of them in one transaction, and every topic between
//! them is written all the same. Their middle topics are read too, for others may produce to them; a record whose
//! header names our group was taken further by a fused instance and only its offset is committed. Steps that may be
//! fused share one consumer group, fused or apart, so that it can be switched at any time.

use std::{
    any::Any,
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kept_processors::{ledger::Cause, reference::Reference};
use kept_schemas::{Codec, CodecError, EventId, Headers, Micros, Topic, Wire, topics::Record};
use kept_store::seam::{Ends, LedgerError, Places, TopicPartition};

use crate::{
    counters::{Counters, add, time},
    dead_letters,
    ledger_step::{Broken, LOOK_EVERY, MAX_ATTEMPTS, StepSettings, Stopped, Trouble, check_beside, forgotten},
    log::{Ask, Change, Ended, Found, FoundRecord, Log, LogRecord, Look, Outgoing, TopicFacts},
    schemas::{self, Schemas},
    sent::{self, Done, Watching},
};

/// The group that all stateless steps share, fused or apart.
pub const STEPS_GROUP: &str = "steps";

/// Why a record is a dead letter of which a part stands.
const HALF: &str = "a part of what came of it stands, was to be taken further, and now cannot be: reference data or steps \
                    changed while it was on its way; see to what stands by hand";

/// Why a record cannot be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Written with a schema that is not known yet.
    UnknownSchema(u32),
    /// It never will be.
    Poison(String),
}

impl From<CodecError> for Unread {
    fn from(error: CodecError) -> Self {
        Self::Poison(error.to_string())
    }
}

/// A record as a step's function sees it.
pub struct Inward<'a> {
    pub topic: Topic,
    pub event_id: EventId,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// When the broker appended the record that started this; the only clock there is.
    pub at: Micros,
    pub codec: &'a Codec,
    pub reference: &'a Reference,
    /// The value itself, when a fused step before made it.
    typed: Option<&'a (dyn Any + Send + Sync)>,
}

impl<'a> Inward<'a> {
    /// A record as a step that runs apart gets it; tests of steps start here.
    pub fn new(record: &'a LogRecord, codec: &'a Codec, reference: &'a Reference) -> Self {
        Self {
            topic: record.at.topic,
            event_id: record.event_id(),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            at: record.timestamp,
            codec,
            reference,
            typed: None,
        }
    }

    /// The record's value.
    pub fn read<T: Record + Clone + Sync>(&self) -> Result<Cow<'_, T>, Unread> {
        if let Some(value) = self.typed.and_then(|it| it.downcast_ref::<T>()) {
            return Ok(Cow::Borrowed(value));
        }
        let value = self.value.ok_or_else(|| Unread::Poison("it has no value".into()))?;
        match self.codec.decode(value)? {
            Some(value) => Ok(Cow::Owned(value)),
            None => Err(Unread::UnknownSchema(kept_schemas::codec::split(value)?.0)),
        }
    }
}

/// A record that a step makes.
pub struct Made {
    pub topic: Topic,
    pub key: String,
    wire: Wire,
    typed: Box<dyn Any + Send + Sync>,
}

impl Made {
    /// Encodes `value`, which goes to its type's own topic.
    pub fn of<T: Record + Sync>(codec: &Codec, key: String, value: T) -> Result<Self, Unread> {
        Ok(Self { topic: T::TOPIC, key, wire: codec.encode(&value)?, typed: Box::new(value) })
    }

    /// Its finished bytes.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }
}

/// A step without memory, as a plain value.
#[derive(Debug, Clone, Copy)]
pub struct StatelessStep {
    pub name: &'static str,
    pub inputs: &'static [Topic],
    pub outputs: &'static [Topic],
    pub decide: fn(&Inward<'_>) -> Result<Vec<Made>, Unread>,
}

#[derive(Debug, Clone, Default)]
struct Part {
    ready: bool,
    topic_id: String,
    epoch: i64,
    next: i64,
    /// Seen to stand, and noted, up to here.
    floor: i64,
    /// What `next` was at the last look at all topics.
    looked: i64,
    /// Records that are done one by one, each attempt counted.
    careful: Range<i64>,
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

/// The driver of one stateless step or of several fused ones. Runs until it is told to stop, or until going on would
/// be wrong.
pub struct Stateless<L: Log, P: Places, C: Schemas> {
    pub log: L,
    pub places: P,
    pub schemas: C,
    pub reference: Box<dyn Fn() -> Arc<Reference> + Send>,
    /// One: apart. Several: fused.
    pub steps: Vec<StatelessStep>,
    /// All that may be fused. One that runs apart finishes with them what a fused instance could not.
    pub family: Vec<StatelessStep>,
    /// The group's name, as records that need no second look carry it.
    pub group: String,
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
    /// A transaction was begun whose end is not known.
    sending: bool,
    batch: usize,
    /// When all topics were looked at last.
    looked_at: Duration,
    watching: Watching,
    /// What stands already of what comes next.
    found: Found,
    /// Records whose attempt this process has counted, and the count.
    tried: BTreeMap<(TopicPartition, i64), i32>,
}

impl<L: Log, P: Places, C: Schemas> Stateless<L, P, C> {
    /// A driver at rest; [`Self::run`] does the work. `group` is the consumer group all steps that may be fused share.
    pub fn new(
        log: L,
        places: P,
        schemas: C,
        reference: Box<dyn Fn() -> Arc<Reference> + Send>,
        steps: Vec<StatelessStep>,
        group: &str,
        settings: StepSettings,
    ) -> Self {
        let batch = settings.max_records;
        Self {
            log,
            places,
            schemas,
            reference,
            family: steps.clone(),
            steps,
            group: group.to_owned(),
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
                sending: false,
                batch,
                looked_at: Duration::ZERO,
                watching: Watching::default(),
                found: Found::default(),
                tried: BTreeMap::new(),
            },
        }
    }

    /// What these steps read.
    pub fn inputs(steps: &[StatelessStep]) -> Vec<Topic> {
        let mut topics: Vec<Topic> = steps.iter().flat_map(|step| step.inputs.iter().copied()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Partitions that are ours and ready.
    pub fn ready(&self) -> usize {
        self.state.parts.values().filter(|part| part.ready).count()
    }

    /// Works until told to stop.
    pub async fn run(&mut self) -> Result<(), Stopped> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                let ours: Vec<TopicPartition> = self.state.parts.keys().copied().collect();
                self.leave(&ours).await;
                self.state.parts.clear();
                self.log.close().await;
                return Ok(());
            }
            if let Err(trouble) = self.turn().await {
                self.settle(trouble).await?;
            }
        }
    }

    async fn settle(&mut self, trouble: Trouble) -> Result<(), Stopped> {
        let state = &mut self.state;
        state.need_positions = true;
        if std::mem::take(&mut state.sending) && self.broken != Some(Broken::TransactionKept) {
            state.need_producer = true;
            self.log.give_up().await;
        }
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
                tracing::warn!(step = self.settings.step, why, "connecting to the database again");
                state.need_connection = true;
                self.log.pause(self.settings.retry).await;
            }
            Trouble::Stale(why) => {
                add(&self.counters.fences, 1);
                tracing::info!(step = self.settings.step, why, "no longer the group member we were; joining again");
                state.need_producer = true;
                state.need_rejoin = true;
            }
            Trouble::Miss => {}
        }
        Ok(())
    }

    async fn turn(&mut self) -> Result<(), Trouble> {
        self.counters.gauges.turn(self.state.parts.len(), self.ready());
        if self.state.need_connection {
            self.places.reconnect_places().await?;
            add(&self.counters.reconnects, 1);
            self.state.need_connection = false;
        }
        if self.state.need_producer {
            if self.broken != Some(Broken::ProducerKept) || !self.state.had_producer {
                let swept = if self.broken == Some(Broken::NotSwept) { Vec::new() } else { self.outputs() };
                self.log.renew_producer(&swept).await?;
                let ends = self.log.ends(&swept).await?;
                self.state.watching.swept(&ends, self.log.now());
            }
            if self.state.had_producer {
                add(&self.counters.recycled_producers, 1);
            }
            self.state.had_producer = true;
            self.state.need_producer = false;
            self.state.need_positions = true;
        }
        if self.state.need_rejoin {
            self.state.parts.clear();
            self.state.meta = None;
            self.log.rejoin().await?;
            add(&self.counters.rejoins, 1);
            self.state.need_rejoin = false;
        }
        if self.state.need_positions && !self.state.parts.is_empty() {
            let polled = self.log.poll(1, Duration::ZERO).await?;
            self.state.meta = polled.meta;
            self.take_changes(polled.changes).await;
            self.catch_up().await?;
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
        self.check(&facts)?;
        self.pass().await
    }

    /// Who may have sent what came of our input: the family's steps, in their order, then who names dead letters.
    fn senders(&self) -> Vec<String> {
        let names = self.family.iter().map(|step| step.name);
        names.chain([self.settings.step.as_str(), STEPS_GROUP]).map(str::to_owned).collect()
    }

    /// What these steps send to, fused or apart.
    fn outputs(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.family.iter().flat_map(|step| step.outputs.iter().copied()).collect();
        topics.push(Topic::DeadLetters);
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Notes what was done by an earlier look once it is seen to stand. No transaction of ours is open here.
    async fn watch(&mut self) -> Result<(), Trouble> {
        // While something stands of what comes next, it must be found again from where it was looked for.
        let known = self.state.found.records.is_empty();
        let ready = self.state.parts.iter().filter(|(_, part)| part.ready && known);
        let done = ready.map(|(at, part)| Done { at: *at, upto: part.next, noted: part.floor }).collect();
        let outputs = self.outputs();
        let seen = self.state.watching.watch(&mut self.log, &outputs, done).await;
        // Whatever went wrong, a new producer finds out what of the old one's stands.
        self.state.need_producer |= seen.is_err();
        let (floors, ends) = seen?;
        self.note(&floors, &ends).await
    }

    async fn note(&mut self, floors: &[(TopicPartition, i64)], ends: &Ends) -> Result<(), Trouble> {
        if !floors.is_empty() && !self.places.done_to(floors, ends).await? {
            return Err(Trouble::Miss);
        }
        for (at, floor) in floors {
            if let Some(part) = self.state.parts.get_mut(at) {
                part.floor = part.floor.max(*floor);
            }
        }
        Ok(())
    }

    /// Commits what was read of quiet partitions and held no record, as records are. Else a topic whose last records
    /// are older than it keeps them would begin after what we believe comes next.
    async fn pass(&mut self) -> Result<(), Trouble> {
        let mut passed = self.log.passed();
        let parts = &mut self.state.parts;
        passed.retain(|(at, to)| parts.get(at).is_some_and(|part| part.ready && part.quiet() && part.next < *to));
        parts.values_mut().for_each(|part| part.looked = part.next);
        if passed.is_empty() {
            return Ok(());
        }
        self.transact(&[], &passed).await?;
        self.done(&passed);
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
                Change::Revoked(gone) => {
                    self.leave(&gone).await;
                    self.state.parts.retain(|at, _| !gone.contains(at));
                }
                Change::Lost(gone) => self.state.parts.retain(|at, _| !gone.contains(at)),
            }
            self.state.watching.anew();
            let parts = &self.state.parts;
            self.state.found.records.retain(|(at, _), _| parts.contains_key(at));
        }
    }

    async fn leave(&mut self, gone: &[TopicPartition]) {
        if !self.state.need_positions
            && !self.state.need_connection
            && let Err(trouble) = self.watch().await
        {
            tracing::info!(step = self.settings.step, ?trouble, "leaving, it could not be seen what stands");
            self.state.need_connection |= matches!(trouble, Trouble::Lost(_));
        }
        let left: Vec<(TopicPartition, i64)> = gone
            .iter()
            .filter_map(|at| self.state.parts.get(at).filter(|part| part.ready).map(|part| (*at, part.epoch)))
            .collect();
        if left.is_empty() || self.state.need_connection {
            return;
        }
        if let Err(error) = self.places.leave_places(&left).await {
            tracing::info!(step = self.settings.step, %error, "leaving in good order could not be noted");
            self.state.need_connection |= matches!(error, LedgerError::Lost(_));
        }
    }

    /// Establishes where every partition of ours stands: where what was sent is known to stand. What was sent beyond is
    /// looked for, and not sent again. Without a note, it is where the group says.
    async fn catch_up(&mut self) -> Result<(), Trouble> {
        add(&self.counters.catch_ups, 1);
        self.state.watching.anew();
        self.state.found = Found::default();
        let ours: Vec<TopicPartition> = self.state.parts.keys().copied().collect();
        let (mut floors, mut tell, mut doubtful) = (Vec::new(), Vec::new(), BTreeMap::new());
        for at in ours {
            let place = format!("{}/{}", at.topic, at.partition);
            for facts in self.log.topic_facts(&[at], Ask::Anew).await? {
                let old = self.state.parts.get(&at).cloned().unwrap_or_default();
                let first = old.topic_id.is_empty();
                // Each time: another connection of ours owns nothing yet, and a late rival may have taken it.
                let entered = self.places.enter(at, &facts.topic_id).await?;
                // Only now: an owner before us may have gone on until here.
                let group = self.group_offset(at).await?;
                let noted = match self.broken {
                    Some(Broken::NotLookedFor) => group.max(entered.floor),
                    _ => entered.floor,
                };
                let next = noted.or(group).unwrap_or(facts.start);
                let facts = facts.or_anew(&mut self.log, &entered.topic_id, next).await?;
                if entered.topic_id != facts.topic_id {
                    return Err(Trouble::Stop(format!(
                        "{place} is another topic of the same name (id {}, was {}): it was deleted and made anew",
                        facts.topic_id, entered.topic_id
                    )));
                }
                if !facts.fits(&entered.topic_id, next) {
                    return Err(Trouble::Stop(format!(
                        "{place} is done up to offset {next}, but the topic holds {} to {}: records were lost or the \
                         topic was made anew",
                        facts.start, facts.end
                    )));
                }
                match entered.floor {
                    Some(floor) if group.unwrap_or(0) < floor => {
                        forgotten(&self.settings.step, &self.counters, &place, group, floor);
                        tell.push((at, next));
                    }
                    None => floors.push((at, next)),
                    Some(_) => {}
                }
                if entered.floor.is_some() {
                    doubtful.insert(at, (entered.sent_from, facts.end));
                }
                let unclean = first && !entered.clean;
                if unclean {
                    self.state.batch = self.settings.careful.clamp(1, self.settings.max_records);
                }
                let careful = if unclean { careful(next, group, self.settings.careful) } else { old.careful };
                self.log.seek(at, next).await?;
                let part = Part {
                    ready: true,
                    topic_id: entered.topic_id,
                    epoch: entered.epoch,
                    next,
                    floor: next,
                    looked: next,
                    careful,
                };
                self.state.parts.insert(at, part);
            }
        }
        // Only now: a step whose topic was made anew stops, whatever is open over its outputs.
        let outputs = self.outputs();
        let settled = self.state.watching.settle(&mut self.log, &outputs).await;
        self.state.need_producer |= settled.is_err();
        settled?;
        let ends = self.log.ends(&outputs).await?;
        if !doubtful.is_empty() && self.broken != Some(Broken::NotLookedFor) {
            let look = Look {
                steps: self.senders(),
                from: sent::least(&ends, &outputs, doubtful.values().map(|(from, _)| from))?,
                causes: doubtful.keys().map(|at| (*at, self.state.parts[at].next)).collect(),
            };
            let found = self.log.find(&look).await;
            self.state.need_producer |= found.is_err();
            self.state.found = found?;
            // Headers copied from elsewhere may name a record that is not there yet.
            self.state.found.records.retain(|(at, offset), _| *offset < doubtful[at].1);
            if self.state.found.cut {
                tracing::warn!(
                    step = self.settings.step,
                    "what was sent last is older than its topic keeps it; what cannot be told is sent again"
                );
            }
            let standing: BTreeSet<TopicPartition> = self.state.found.records.keys().map(|(at, _)| *at).collect();
            floors.extend(look.causes.into_iter().filter(|(at, _)| !standing.contains(at)));
        }
        // The first time, all that the group has committed counts as standing. Where nothing was found, nothing need be
        // looked for in what was read just now.
        self.note(&floors, &sent::whole(&ends)).await?;
        if !tell.is_empty() {
            self.transact(&[], &tell).await?;
        }
        Ok(())
    }

    async fn group_offset(&mut self, at: TopicPartition) -> Result<Option<i64>, Trouble> {
        let group = self.log.group_offset(at).await;
        // What it waits for in vain may be a transaction of ours whose end the broker lost.
        self.state.need_producer |= group.is_err();
        Ok(group?)
    }

    async fn work(&mut self, records: Vec<LogRecord>) -> Result<(), Trouble> {
        let mut together = Vec::with_capacity(records.len());
        for record in records {
            let Some(part) = self.state.parts.get(&record.at).filter(|part| part.ready) else {
                continue;
            };
            if record.offset < part.next {
                continue;
            }
            if part.careful.contains(&record.offset) {
                // In their order: what comes before may be one that need not be done alone.
                if !together.is_empty() {
                    self.batch(std::mem::take(&mut together), None).await?;
                }
                add(&self.counters.careful_records, 1);
                // Once for this start of the process: a failure that it survives is not the record's.
                let attempts = match self.state.tried.get(&(record.at, record.offset)) {
                    Some(&attempts) => attempts,
                    None => self.places.attempt_at(record.at, record.offset).await?,
                };
                self.state.tried.insert((record.at, record.offset), attempts);
                let fault = (attempts >= MAX_ATTEMPTS)
                    .then(|| format!("it ended the process {} times when it was tried alone", attempts - 1));
                self.batch(vec![record], fault).await?;
            } else {
                together.push(record);
            }
        }
        if !together.is_empty() {
            self.batch(together, None).await?;
        }
        self.state.batch = (self.state.batch * 2).min(self.settings.max_records);
        Ok(())
    }

    async fn batch(&mut self, records: Vec<LogRecord>, fault: Option<String>) -> Result<(), Trouble> {
        if self.state.meta.is_none() {
            return Err(Trouble::Stale("not a member of the group".into()));
        }
        let mut ends: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        for record in &records {
            ends.insert(record.at, record.offset + 1);
        }
        let offsets: Vec<(TopicPartition, i64)> = ends.into_iter().collect();
        let asked: Vec<TopicPartition> = offsets.iter().map(|(at, _)| *at).collect();
        let began = Instant::now();
        // The question for the topic's id goes beside the work; its answer is awaited before the commit.
        self.log.ask(&asked);
        let reference = (self.reference)();
        // Before anything is sent: while the registry is away, there is nothing to abort.
        self.learn(&records).await?;
        let mut codec = self.schemas.codec();
        let mut sent = Sent::default();
        let mut outgoing = Vec::with_capacity(self.settings.hand_over + self.steps.len());
        for record in &records {
            if record.headers.fused_by.as_deref() == Some(self.group.as_str()) {
                add(&self.counters.fused_skips, 1);
                continue;
            }
            let before = outgoing.len();
            let steps = self.finishing(record);
            loop {
                let Self { group, settings, .. } = &*self;
                let given = Given { steps, group, step: &settings.step, reference: &reference, codec: &codec };
                match given.whole(record, fault.as_deref(), &mut outgoing) {
                    Ok(()) => break,
                    Err(Unread::Poison(why)) => return Err(Trouble::Stop(why)),
                    Err(Unread::UnknownSchema(id)) => {
                        outgoing.truncate(before);
                        match self.schemas.ensure(id).await {
                            Ok(true) => codec = self.schemas.codec(),
                            Ok(false) => {
                                let why = schemas::unknown(id);
                                outgoing.push(dead(&codec, &self.settings.step, record, &why).map_err(Trouble::Stop)?);
                                break;
                            }
                            Err(error) => return Err(Trouble::Retry(error.to_string())),
                        }
                    }
                }
            }
            if !self.leave_out_what_stands(record, &mut outgoing, before) {
                let letter = dead(&codec, &self.settings.step, record, HALF).map_err(Trouble::Stop)?;
                outgoing.push(letter);
            }
            if outgoing.len() >= self.settings.hand_over && self.broken != Some(Broken::OffsetsBeforeOutput) {
                // Until this transaction's end is known, our producer must not begin another.
                self.state.sending = true;
                self.log.send(&outgoing).await;
                sent.note(&outgoing);
                outgoing.clear();
            }
        }
        time(&self.counters.spreads.decide, began);
        let facts = self.log.topic_facts(&asked, Ask::Beside).await?;
        self.check(&facts)?;
        self.transact(&outgoing, &offsets).await?;
        self.state.sending = false;
        sent.note(&outgoing);
        let next = |at| offsets.iter().find(|it| it.0 == at).map(|it| it.1);
        self.counters.gauges.behind(&facts, next);
        self.counters.done(records.iter().map(|it| it.timestamp));
        add(&self.counters.batches, 1);
        add(&self.counters.records, records.len());
        self.counters.spreads.batch.note(records.len() as u64);
        for (&topic, &count) in &sent.counts {
            add(&self.counters.events, count);
            self.counters.count_sent(topic, count);
        }
        add(&self.counters.dead_letters, sent.dead.len());
        for headers in sent.dead {
            let place = headers.cause.map(|(topic, partition, offset)| format!("{topic}/{partition}/{offset}"));
            let traceparent = headers.traceparent;
            tracing::error!(step = self.settings.step, record = place, traceparent, "record is a dead letter now");
        }
        self.done(&offsets);
        Ok(())
    }

    /// What is committed up to these offsets.
    fn done(&mut self, offsets: &[(TopicPartition, i64)]) {
        for &(at, next) in offsets {
            if let Some(part) = self.state.parts.get_mut(&at) {
                part.next = next;
            }
            self.state.found.records.retain(|(on, offset), _| *on != at || *offset >= next);
        }
    }

    /// The steps that a record goes through: all, where a fused instance sent only a part of what came of it.
    fn finishing(&self, record: &LogRecord) -> &[StatelessStep] {
        let there = self.state.found.records.get(&(record.at, record.offset));
        let by_fused = there.into_iter().flatten().any(|it| {
            // By one that does not read this topic itself, it was made further on.
            it.fused || self.family.get(it.step).is_some_and(|step| !step.inputs.contains(&record.at.topic))
        });
        if by_fused { &self.family } else { &self.steps }
    }

    /// Of what was made of a record (in `outgoing` from `first` on), leaves out what stands on its topic already, and
    /// what whoever reads that will make of it. False: a part stands that nobody would take further.
    fn leave_out_what_stands(&self, record: &LogRecord, outgoing: &mut Vec<Outgoing>, first: usize) -> bool {
        let Some(there) = self.state.found.records.get(&(record.at, record.offset)) else {
            return true;
        };
        let made = outgoing.split_off(first);
        // Dead letters are named after the place.
        let standing = descendants([record.event_id(), record.place_id()], there, &made);
        let all = made.len();
        let (mut missing, whole) = missing(&standing, made);
        add(&self.counters.found_sent, all - missing.len());
        outgoing.append(&mut missing);
        whole
    }

    /// Asks the registry for the schemas that these records were written with and we do not know.
    async fn learn(&self, records: &[LogRecord]) -> Result<(), Trouble> {
        let codec = self.schemas.codec();
        let ids = records.iter().filter_map(|it| kept_schemas::codec::split(it.value.as_deref()?).ok());
        let unknown: BTreeSet<u32> = ids.map(|(id, _)| id).filter(|id| !codec.knows(*id)).collect();
        for id in unknown {
            self.schemas.ensure(id).await.map_err(|error| Trouble::Retry(error.to_string()))?;
        }
        Ok(())
    }

    fn check(&self, facts: &[TopicFacts]) -> Result<(), Trouble> {
        check_beside(facts, |at| self.state.parts.get(&at).map(Part::place))
    }

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
}

/// Records that a step does one by one after an unclean start: as many from where the group had committed, for what comes
/// before did not end the process. `next` is where it starts: what was seen to stand lags behind.
fn careful(next: i64, group: Option<i64>, many: usize) -> Range<i64> {
    let from = group.map_or(next, |group| group.max(next));
    from..from.saturating_add(i64::try_from(many).unwrap_or(i64::MAX))
}

/// Those that were made of one of these, or of what was made of them. Others may have headers copied from elsewhere.
fn descendants<'a>(roots: [EventId; 2], there: &'a [FoundRecord], made: &[Outgoing]) -> Vec<&'a FoundRecord> {
    let mut known = BTreeSet::from(roots);
    // One that stands may have been made of one that does not.
    known.extend(made.iter().filter_map(|it| it.headers.event_id));
    let mut rest: Vec<&FoundRecord> = there.iter().collect();
    let mut kept = Vec::new();
    loop {
        let (ours, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|it| known.contains(&it.cause_id));
        if ours.is_empty() {
            return kept;
        }
        known.extend(ours.iter().map(|it| it.event_id));
        kept.extend(ours);
        rest = others;
    }
}

/// What is to be sent of what was made of a record of which something stands: not that, and not what whoever reads that
/// will make of it. Decided otherwise this time, with other reference data, what stands holds. False: something stands
/// that bears the mark of a fused instance, so that nobody takes it further, we do not either, and no dead letter says so.
fn missing(standing: &[&FoundRecord], mut made: Vec<Outgoing>) -> (Vec<Outgoing>, bool) {
    let all = made.len();
    if standing.is_empty() {
        return (made, true);
    }
    if standing.iter().any(|it| it.letter) {
        // A person has it.
        return (Vec::new(), true);
    }
    let mut others: BTreeSet<EventId> = BTreeSet::new();
    let taken_further = |id: EventId, made: &[Outgoing]| {
        standing.iter().any(|it| it.cause_id == id) || made.iter().any(|it| it.headers.cause_id == Some(id))
    };
    let whole = standing.iter().all(|it| !it.fused || taken_further(it.event_id, &made));
    made.retain(|it| {
        let standing = standing.iter().find(|there| Some(there.event_id) == it.headers.event_id);
        let by_others = it.headers.cause_id.is_some_and(|id| others.contains(&id));
        if by_others || standing.is_some_and(|it| !it.fused) {
            others.extend(it.headers.event_id);
        }
        standing.is_none() && !by_others
    });
    if made.len() == all {
        made.retain(|it| !whole && it.topic == Topic::DeadLetters);
    }
    let told = made.iter().any(|it| it.topic == Topic::DeadLetters);
    (made, whole || told)
}

/// What a batch sent, told once it is committed.
#[derive(Default)]
struct Sent {
    counts: BTreeMap<Topic, usize>,
    /// Of dead letters.
    dead: Vec<Headers>,
}

impl Sent {
    fn note(&mut self, outgoing: &[Outgoing]) {
        for it in outgoing {
            *self.counts.entry(it.topic).or_default() += 1;
            if it.topic == Topic::DeadLetters {
                self.dead.push(it.headers.clone());
            }
        }
    }
}

/// What is the same for every record of a batch.
struct Given<'a> {
    steps: &'a [StatelessStep],
    group: &'a str,
    step: &'a str,
    reference: &'a Reference,
    codec: &'a Codec,
}

/// A record of ours on its way to the next fused step.
struct Passed {
    /// Where it stands in what goes out.
    at: usize,
    topic: Topic,
    event_id: EventId,
    key: Vec<u8>,
    value: Vec<u8>,
    typed: Box<dyn Any + Send + Sync>,
}

impl Given<'_> {
    fn step_of(&self, topic: Topic) -> Option<&StatelessStep> {
        self.steps.iter().find(|step| step.inputs.contains(&topic))
    }

    /// Takes one record through every step that reads what it becomes.
    fn whole(&self, record: &LogRecord, fault: Option<&str>, outgoing: &mut Vec<Outgoing>) -> Result<(), Unread> {
        let dead_letter = |why: &str| dead(self.codec, self.step, record, why).map_err(Unread::Poison);
        if let Some(why) = fault {
            outgoing.push(dead_letter(why)?);
            return Ok(());
        }
        let first = Inward::new(record, self.codec, self.reference);
        let mut open: Vec<Passed> = match self.one(&first, record, outgoing) {
            Ok(passed) => passed,
            Err(Unread::Poison(why)) => {
                outgoing.push(dead_letter(&why)?);
                return Ok(());
            }
            Err(unknown) => return Err(unknown),
        };
        while !open.is_empty() {
            for passed in std::mem::take(&mut open) {
                let next = Inward {
                    topic: passed.topic,
                    event_id: passed.event_id,
                    key: Some(&passed.key),
                    value: Some(&passed.value),
                    at: record.timestamp,
                    codec: self.codec,
                    reference: self.reference,
                    typed: Some(passed.typed.as_ref()),
                };
                match self.one(&next, record, outgoing) {
                    Ok(mut more) => open.append(&mut more),
                    // It goes out without our mark, and is met again on its topic: there its place is known.
                    Err(Unread::Poison(_)) => outgoing[passed.at].headers.fused_by = None,
                    Err(unknown) => return Err(unknown),
                }
            }
        }
        Ok(())
    }

    /// One step over one record; gives what a later step of ours reads. Nothing is left in `outgoing` on an error.
    fn one(
        &self,
        inward: &Inward<'_>,
        origin: &LogRecord,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<Vec<Passed>, Unread> {
        let Some(step) = self.step_of(inward.topic) else {
            return Err(Unread::Poison(format!("no step reads {}", inward.topic)));
        };
        let made = catch_unwind(AssertUnwindSafe(|| (step.decide)(inward)))
            .unwrap_or_else(|_| Err(Unread::Poison(format!("step {} panicked", step.name))))?;
        let mut passed = Vec::new();
        for (index, made) in made.into_iter().enumerate() {
            let index = u32::try_from(index).expect("fewer than 2^32 records of one cause");
            let event_id = EventId::of_step(step.name, inward.event_id, index);
            let further = self.step_of(made.topic).is_some();
            let headers = Headers {
                event_id: Some(event_id),
                cause_id: Some(inward.event_id),
                traceparent: origin.headers.traceparent.clone(),
                subject: Some(made.topic.subject().into()),
                step: Some(step.name.into()),
                cause: Some((origin.at.topic.name().into(), origin.at.partition, origin.offset)),
                index: Some(index),
                fused_by: further.then(|| self.group.to_owned()),
            };
            let out = Outgoing::new(made.topic, &made.key, &made.wire, headers);
            if further {
                passed.push(Passed {
                    at: outgoing.len(),
                    topic: made.topic,
                    event_id,
                    key: out.key.clone(),
                    value: out.value.clone(),
                    typed: made.typed,
                });
            }
            outgoing.push(out);
        }
        Ok(passed)
    }
}

/// The dead letter of a record, as it goes out.
fn dead(codec: &Codec, step: &str, record: &LogRecord, why: &str) -> Result<Outgoing, String> {
    let cause = Cause {
        event_id: record.event_id(),
        topic: record.at.topic,
        partition: record.at.partition,
        offset: record.offset,
        traceparent: record.headers.traceparent.clone(),
    };
    dead_letters::row(codec, step, record, &cause, why, record.timestamp).map(Outgoing::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> EventId {
        EventId::of_step("test", EventId::default(), number)
    }

    fn stands(event: u32, cause: EventId, fused: bool) -> FoundRecord {
        FoundRecord { event_id: id(event), cause_id: cause, step: 0, fused, letter: false }
    }

    fn makes(topic: Topic, event: u32, cause: EventId) -> Outgoing {
        let headers = Headers { event_id: Some(id(event)), cause_id: Some(cause), ..Headers::default() };
        Outgoing { topic, key: Vec::new(), value: Vec::new(), headers }
    }

    #[test]
    fn what_stands_is_not_sent_again_and_what_nobody_would_take_further_is_not_lost() {
        // The record, and the place that dead letters are named after.
        let (record, place) = (id(1), id(2));
        let letter = || makes(Topic::DeadLetters, 90, place);
        let chain = || {
            let received = makes(Topic::OrdersReceived, 10, record);
            vec![received, makes(Topic::OrdersEnriched, 11, id(10)), makes(Topic::OrdersValidated, 12, id(11))]
        };
        let one = || vec![makes(Topic::OrdersReceived, 10, record)];
        let foreign = stands(77, id(76), false);
        let told = FoundRecord { letter: true, ..stands(90, place, false) };
        let half = stands(10, record, true);
        let cases: [(_, _, _, &[u32], _); 13] = [
            ("nothing", vec![], chain(), &[10, 11, 12], true),
            ("somebody's with copied headers", vec![foreign.clone()], chain(), &[10, 11, 12], true),
            (
                "all",
                vec![stands(10, record, true), stands(11, id(10), true), stands(12, id(11), false)],
                chain(),
                &[],
                true,
            ),
            ("the first of a fused instance", vec![stands(10, record, true)], chain(), &[11, 12], true),
            ("the first of one that ran apart", vec![stands(10, record, false)], chain(), &[], true),
            ("only the middle", vec![stands(11, id(10), true)], chain(), &[10, 12], true),
            ("a dead letter, decided otherwise now", vec![told.clone()], chain(), &[], true),
            ("a half and its letter", vec![half.clone(), told.clone()], one(), &[], true),
            ("a half and its letter, decided otherwise now", vec![told, half], chain(), &[], true),
            ("the whole, a dead letter now", vec![stands(10, record, false)], vec![letter()], &[], true),
            ("a half, a dead letter now", vec![stands(10, record, true)], vec![letter()], &[90], true),
            ("a half that goes no further now", vec![stands(10, record, true)], one(), &[], false),
            ("a half and somebody's", vec![stands(10, record, true), foreign], one(), &[], false),
        ];
        for (what, there, made, sent, whole) in cases {
            let standing = descendants([record, place], &there, &made);
            let (missing, is_whole) = missing(&standing, made);
            let ids: Vec<Option<EventId>> = missing.iter().map(|it| it.headers.event_id).collect();
            let sent: Vec<Option<EventId>> = sent.iter().map(|it| Some(id(*it))).collect();
            assert_eq!((ids, is_whole), (sent, whole), "{what}");
        }
    }

    #[test]
    fn records_that_the_group_committed_did_not_end_the_process() {
        for (next, group, range) in
            [(10, None, 10..210), (10, Some(10), 10..210), (10, Some(5_000), 5_000..5_200), (10, Some(3), 10..210)]
        {
            assert_eq!(careful(next, group, 200), range, "{next} {group:?}");
        }
    }
}
