//! A model of Kafka, in memory: topics with transactions and their markers, one group protocol, producer epochs.
//! It errs on the nasty side wherever Kafka may be nasty: ends of transactions that arrive late and hit another one,
//! late records of an aborted transaction, members that learn late that they were put out, topics made anew, ends of
//! transactions that it says are done and never writes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use kept_runtime::log::{Ask, Change, End, Ended, Found, Log, LogError, LogRecord, Look, Outgoing, Polled, TopicFacts};
use kept_schemas::{Headers, Micros, Topic};
use kept_store::seam::TopicPartition;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{schedule::places, store::Store};

pub const PARTITIONS: i32 = 2;
const SESSION: u64 = 10_000;
const TRANSACTION: u64 = 8_000;
const REQUEST: u64 = 6_000;
const REBALANCE: u64 = 60_000;
/// A reader waits so long for a transaction to end.
const STABLE: u64 = 20_000;

pub type Shared = Rc<RefCell<World>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Open,
    Committed,
    Aborted,
}

struct Txn {
    began: u64,
    /// (group, partition, offset), applied when it is committed.
    offsets: Vec<(String, TopicPartition, i64)>,
    /// What became of it in each place it touched.
    fates: BTreeMap<Touched, Fate>,
}

/// Where a transaction's end is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Touched {
    Partition(TopicPartition),
    /// The offsets of a group.
    Group(String),
}

impl Txn {
    fn fate(&self, at: TopicPartition) -> Fate {
        self.fates.get(&Touched::Partition(at)).copied().unwrap_or(Fate::Open)
    }
}

struct Entry {
    offset: i64,
    /// `None`: a marker, or what a compaction left.
    record: Option<Outgoing>,
    txn: Option<usize>,
}

#[derive(Default)]
pub struct Partition {
    entries: Vec<Entry>,
    /// What is before this offset is gone for readers; kept here for the oracle.
    start: i64,
    next: i64,
}

pub struct TopicModel {
    pub id: u64,
    pub partitions: Vec<Partition>,
}

#[derive(Default)]
struct Producer {
    epoch: i32,
    open: Option<usize>,
    /// How the last one ended: a repeated request for the same is answered with success.
    last: Option<Fate>,
    /// Ended ones, and where their end was not written: it comes with that of the next one there.
    unwritten: Vec<(Touched, usize)>,
}

enum Late {
    End { id: String, epoch: i32, commit: bool },
    Record { id: String, epoch: i32, record: Box<Outgoing> },
}

#[derive(Default)]
pub struct Group {
    generation: i32,
    preparing_since: Option<u64>,
    members: BTreeMap<u64, Member>,
    committed: BTreeMap<TopicPartition, i64>,
}

struct Member {
    topics: Vec<Topic>,
    joined: bool,
    heard: u64,
    assigned: Vec<TopicPartition>,
}

/// What the client library of one process knows.
struct Client {
    worker: usize,
    group: String,
    topics: Vec<Topic>,
    member: Option<u64>,
    generation: i32,
    owned: BTreeMap<TopicPartition, Option<i64>>,
    /// It learns at this time that it was put out, or that a rebalance is on.
    lost_at: Option<u64>,
    lost: bool,
    rebalance_at: Option<u64>,
    meta: Option<Meta>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    generation: i32,
    member: u64,
}

/// How nasty a schedule is.
#[derive(Debug, Clone, Copy)]
pub struct Nasty {
    pub late_end: f64,
    pub give_up: f64,
    pub network: f64,
    pub slow: f64,
    /// Ends that are never written, as by a broker that restarts.
    pub unwritten: f64,
}

pub struct World {
    pub rng: ChaCha8Rng,
    pub now: u64,
    pub trace: bool,
    /// No new faults.
    pub calm: bool,
    pub nasty: Nasty,
    pub topics: BTreeMap<Topic, TopicModel>,
    next_id: u64,
    txns: Vec<Txn>,
    producers: BTreeMap<String, Producer>,
    late: Vec<(u64, Late)>,
    pub groups: BTreeMap<String, Group>,
    clients: BTreeMap<u64, Client>,
    pub store: Store,
    /// The worker being polled, and when each wants to be polled again.
    pub current: usize,
    pub wake: BTreeMap<usize, u64>,
    pub paused: BTreeSet<usize>,
    pub late_applied: usize,
    pub ends_lost: usize,
    /// Transactions with records and no offset that were committed: nobody would refuse them to a stale owner.
    pub unfenced: usize,
    /// Positions established anew by one whose own transaction was open: its time-out is what everybody waits for then.
    pub left_open: usize,
}

impl World {
    pub fn new(seed: u64, nasty: Nasty) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 1,
            trace: false,
            calm: false,
            nasty,
            topics: BTreeMap::new(),
            next_id: 1,
            txns: Vec::new(),
            producers: BTreeMap::new(),
            late: Vec::new(),
            groups: BTreeMap::new(),
            clients: BTreeMap::new(),
            store: Store::default(),
            current: 0,
            wake: BTreeMap::new(),
            paused: BTreeSet::new(),
            late_applied: 0,
            ends_lost: 0,
            unfenced: 0,
            left_open: 0,
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>8} w{} {}", self.now, self.current, what());
        }
    }

    pub fn chance(&mut self, p: f64) -> bool {
        !self.calm && self.rng.random_bool(p)
    }

    pub fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn create(&mut self, topic: Topic) {
        let id = self.fresh();
        let partitions = (0..PARTITIONS).map(|_| Partition::default()).collect();
        self.topics.insert(topic, TopicModel { id, partitions });
    }

    /// Deletes a topic and makes it anew, as a person would.
    pub fn make_anew(&mut self, topic: Topic) {
        self.say(|| format!("topic {topic} is made anew"));
        self.create(topic);
        for group in self.groups.values_mut() {
            group.committed.retain(|at, _| at.topic != topic);
        }
    }

    fn partition(&mut self, at: TopicPartition) -> &mut Partition {
        let index = usize::try_from(at.partition).expect("not negative");
        &mut self.topics.get_mut(&at.topic).expect("it was created").partitions[index]
    }

    pub fn place(topic: Topic, key: &[u8]) -> TopicPartition {
        let sum: i32 = key.iter().map(|&byte| i32::from(byte)).sum();
        TopicPartition { topic, partition: sum % PARTITIONS }
    }

    fn append(&mut self, at: TopicPartition, record: Option<Outgoing>, txn: Option<usize>) -> i64 {
        let partition = self.partition(at);
        let offset = partition.next;
        partition.next += 1;
        partition.entries.push(Entry { offset, record, txn });
        offset
    }

    /// A record of somebody else, outside of any transaction.
    pub fn put(&mut self, record: Outgoing) -> (TopicPartition, i64) {
        let at = Self::place(record.topic, &record.key);
        (at, self.append(at, Some(record), None))
    }

    /// An offset without a record.
    pub fn hole(&mut self, at: TopicPartition) {
        self.append(at, None, None);
    }

    fn stable_end(&self, at: TopicPartition) -> i64 {
        let index = usize::try_from(at.partition).expect("not negative");
        let partition = &self.topics[&at.topic].partitions[index];
        partition
            .entries
            .iter()
            .find(|it| it.txn.is_some_and(|txn| self.txns[txn].fate(at) == Fate::Open))
            .map_or(partition.next, |it| it.offset)
    }

    /// Everything a reader of committed records sees from `from` on.
    pub fn committed(&self, at: TopicPartition, from: i64, max: usize) -> (Vec<LogRecord>, i64) {
        let index = usize::try_from(at.partition).expect("not negative");
        let end = self.stable_end(at);
        let entries = &self.topics[&at.topic].partitions[index].entries;
        let first = entries.partition_point(|it| it.offset < from);
        let mut records = Vec::new();
        let mut next = from;
        for entry in &entries[first..] {
            if entry.offset >= end || records.len() >= max {
                break;
            }
            next = entry.offset + 1;
            let visible = entry.txn.is_none_or(|txn| self.txns[txn].fate(at) == Fate::Committed);
            if let Some(record) = entry.record.as_ref().filter(|_| visible) {
                records.push(LogRecord {
                    at,
                    offset: entry.offset,
                    timestamp: Micros(0),
                    key: Some(record.key.clone()),
                    value: Some(record.value.clone()),
                    headers: record.headers.clone(),
                });
            }
        }
        (records, next)
    }

    pub fn all_committed(&self, topic: Topic) -> Vec<LogRecord> {
        (0..PARTITIONS)
            .flat_map(|partition| self.committed(TopicPartition { topic, partition }, 0, usize::MAX).0)
            .collect()
    }

    /// Readers wait for it.
    pub fn transaction_open(&self) -> bool {
        self.producers
            .values()
            .any(|it| it.open.is_some() || it.unwritten.iter().any(|(at, _)| matches!(at, Touched::Partition(_))))
    }

    /// First offset, and one past the last.
    pub fn extent(&self, at: TopicPartition) -> (i64, i64) {
        let partition = &self.topics[&at.topic].partitions[usize::try_from(at.partition).expect("not negative")];
        (partition.start, partition.next)
    }

    /// Everything is older than its topic keeps it.
    pub fn expire(&mut self) {
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.start = partition.next;
        }
    }

    /// Every group's committed offsets go back to half of themselves, and some are gone.
    pub fn forget(&mut self) {
        for group in self.groups.values_mut() {
            group.committed.retain(|_, it| {
                *it /= 2;
                *it % 3 != 0
            });
        }
    }

    pub fn group_committed(&self, group: &str, at: TopicPartition) -> Option<i64> {
        self.groups.get(group).and_then(|it| it.committed.get(&at).copied())
    }

    // Transactions

    /// Ends a transaction of a producer, and with it, where it is written, what was left there without an end.
    fn resolve(&mut self, id: &str, txn: usize, fate: Fate) {
        let unwritten = self.nasty.unwritten;
        let loses = self.chance(unwritten);
        let spares = if self.rng.random_bool(0.5) { 0.0 } else { 0.5 };
        let all: Vec<Touched> = self.txns[txn].fates.keys().cloned().collect();
        for touched in all {
            let producer = self.producers.get_mut(id).expect("it began one");
            producer.unwritten.push((touched.clone(), txn));
            if loses && !self.rng.random_bool(spares) {
                self.ends_lost += 1;
                self.say(|| format!("the end ({fate:?}) of a transaction of {id} is lost: {touched:?}"));
                continue;
            }
            let producer = self.producers.get_mut(id).expect("it began one");
            let ended: Vec<usize> =
                producer.unwritten.extract_if(.., |(at, _)| *at == touched).map(|(_, txn)| txn).collect();
            for txn in ended {
                self.txns[txn].fates.insert(touched.clone(), fate);
                if fate == Fate::Committed && matches!(touched, Touched::Group(_)) {
                    for (group, at, offset) in std::mem::take(&mut self.txns[txn].offsets) {
                        self.groups.entry(group).or_default().committed.insert(at, offset);
                    }
                }
            }
            if let Touched::Partition(at) = touched {
                self.append(at, None, None);
            }
        }
    }

    fn init(&mut self, id: &str) -> i32 {
        let producer = self.producers.entry(id.to_owned()).or_default();
        producer.epoch += 1;
        producer.last = None;
        let epoch = producer.epoch;
        if let Some(open) = producer.open.take() {
            self.resolve(id, open, Fate::Aborted);
        }
        epoch
    }

    /// The producer's open transaction; one is opened when there is none.
    fn open(&mut self, id: &str, epoch: i32) -> Option<usize> {
        let now = self.now;
        let count = self.txns.len();
        let producer = self.producers.get_mut(id)?;
        if producer.epoch != epoch {
            return None;
        }
        if producer.open.is_none() {
            self.txns.push(Txn { began: now, offsets: Vec::new(), fates: BTreeMap::new() });
            producer.open = Some(count);
        }
        producer.open
    }

    fn produce(&mut self, id: &str, epoch: i32, record: Outgoing) -> bool {
        let Some(txn) = self.open(id, epoch) else {
            return false;
        };
        let at = Self::place(record.topic, &record.key);
        self.txns[txn].fates.insert(Touched::Partition(at), Fate::Open);
        self.append(at, Some(record), Some(txn));
        true
    }

    fn add_offsets(&mut self, id: &str, epoch: i32, group: &str, offsets: &[(TopicPartition, i64)]) -> bool {
        let Some(txn) = self.open(id, epoch) else {
            return false;
        };
        let txn = &mut self.txns[txn];
        txn.fates.insert(Touched::Group(group.to_owned()), Fate::Open);
        txn.offsets.extend(offsets.iter().map(|(at, offset)| (group.to_owned(), *at, *offset)));
        true
    }

    /// A transaction over every partition of some topics and the group's offsets, aborted.
    fn sweep(&mut self, id: &str, epoch: i32, group: &str, topics: &[Topic]) {
        let Some(txn) = self.open(id, epoch).filter(|_| !topics.is_empty()) else {
            return;
        };
        for at in places(topics).filter(|at| self.topics.contains_key(&at.topic)).collect::<Vec<_>>() {
            self.txns[txn].fates.insert(Touched::Partition(at), Fate::Open);
            // Were it ever seen, the judge would see a record that nobody made.
            let nothing = Outgoing { topic: at.topic, key: Vec::new(), value: Vec::new(), headers: Headers::default() };
            self.append(at, Some(nothing), Some(txn));
        }
        self.add_offsets(id, epoch, group, &[]);
        self.end_txn(id, epoch, false);
    }

    fn end_txn(&mut self, id: &str, epoch: i32, commit: bool) -> bool {
        let want = if commit { Fate::Committed } else { Fate::Aborted };
        let Some(producer) = self.producers.get_mut(id).filter(|it| it.epoch == epoch) else {
            return false;
        };
        match producer.open.take() {
            Some(open) => {
                producer.last = Some(want);
                self.resolve(id, open, want);
                true
            }
            None => producer.last == Some(want),
        }
    }

    fn accepts(&self, group: &str, meta: &Meta) -> bool {
        // No generation and no member: the broker takes it for a plain consumer and refuses nothing.
        if meta.generation < 0 {
            return true;
        }
        self.groups
            .get(group)
            .is_some_and(|it| it.generation == meta.generation && it.members.contains_key(&meta.member))
    }

    // Time

    /// Lets everything happen that is due by now.
    pub fn tick(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        self.late.retain_mut(|(at, late)| {
            if *at > now {
                return true;
            }
            due.push(std::mem::replace(late, Late::End { id: String::new(), epoch: 0, commit: false }));
            false
        });
        for late in due {
            match late {
                Late::End { id, epoch, commit } => {
                    let open = self.producers.get(&id).is_some_and(|it| it.open.is_some() && it.epoch == epoch);
                    if open {
                        self.late_applied += 1;
                        self.say(|| format!("a late end (commit {commit}) hits an open transaction of {id}"));
                    }
                    self.end_txn(&id, epoch, commit);
                }
                Late::Record { id, epoch, record } => {
                    // Only into a transaction that is open: brokers verify that since 3.6.
                    if self.producers.get(&id).is_some_and(|it| it.open.is_some() && it.epoch == epoch) {
                        self.late_applied += 1;
                        self.say(|| format!("a late record joins an open transaction of {id}"));
                        self.produce(&id, epoch, *record);
                    }
                }
            }
        }
        let expired: Vec<(String, usize)> = self
            .producers
            .iter()
            .filter_map(|(id, it)| it.open.map(|open| (id.clone(), open)))
            .filter(|(_, open)| now.saturating_sub(self.txns[*open].began) > TRANSACTION)
            .collect();
        for (id, open) in expired {
            self.say(|| format!("transaction of {id} timed out"));
            let producer = self.producers.get_mut(&id).expect("it was there");
            producer.open = None;
            producer.epoch += 1;
            self.resolve(&id, open, Fate::Aborted);
        }
        self.tick_groups();
        let mut store = std::mem::take(&mut self.store);
        store.tick(self);
        self.store = store;
    }

    fn tick_groups(&mut self) {
        let now = self.now;
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            // One that was stopped for long sends its heartbeat the moment it wakes up.
            let lag_lost = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(0..3000) };
            let lag_rebalance = self.rng.random_range(0..1000);
            let client = self.clients.get_mut(&id).expect("it is there");
            if self.paused.contains(&client.worker) {
                continue;
            }
            let group = self.groups.entry(client.group.clone()).or_default();
            let Some(member) = client.member else {
                continue;
            };
            match group.members.get_mut(&member) {
                Some(it) => {
                    it.heard = now;
                    if group.preparing_since.is_some() && client.rebalance_at.is_none() {
                        client.rebalance_at = Some(now + lag_rebalance);
                    }
                }
                None => {
                    let at = *client.lost_at.get_or_insert(now + lag_lost);
                    client.lost |= now >= at;
                }
            }
        }
        for group in self.groups.values_mut() {
            let before = group.members.len();
            let preparing = group.preparing_since;
            group.members.retain(|_, it| {
                let silent = now.saturating_sub(it.heard) > SESSION;
                let late = preparing.is_some_and(|since| now.saturating_sub(since) > REBALANCE) && !it.joined;
                !(silent || late)
            });
            if group.members.len() != before && group.preparing_since.is_none() {
                group.preparing_since = Some(now);
            }
            if group.preparing_since.is_some() && group.members.values().all(|it| it.joined) {
                group.preparing_since = None;
                group.generation += 1;
                let topics: BTreeSet<Topic> = group.members.values().flat_map(|it| it.topics.clone()).collect();
                group.members.values_mut().for_each(|it| {
                    it.joined = false;
                    it.assigned.clear();
                });
                for topic in topics {
                    let who: Vec<u64> =
                        group.members.iter().filter(|(_, it)| it.topics.contains(&topic)).map(|(id, _)| *id).collect();
                    let share = PARTITIONS as usize / who.len();
                    let extra = PARTITIONS as usize % who.len();
                    let mut partition = 0;
                    for (position, id) in who.iter().enumerate() {
                        for _ in 0..share + usize::from(position < extra) {
                            let at = TopicPartition { topic, partition };
                            group.members.get_mut(id).expect("it is there").assigned.push(at);
                            partition += 1;
                        }
                    }
                }
            }
        }
    }

    /// What a poll of the client library brings about.
    fn serve(&mut self, id: u64) -> Vec<Change> {
        let now = self.now;
        let fresh = self.fresh();
        let client = self.clients.get_mut(&id).expect("it is there");
        let group = self.groups.entry(client.group.clone()).or_default();
        if client.lost {
            client.lost = false;
            client.lost_at = None;
            client.rebalance_at = None;
            client.member = None;
            client.meta = None;
            let gone: Vec<TopicPartition> = std::mem::take(&mut client.owned).into_keys().collect();
            if !gone.is_empty() {
                return vec![Change::Lost(gone)];
            }
        }
        let Some(member) = client.member else {
            client.member = Some(fresh);
            client.generation = 0;
            let topics = client.topics.clone();
            group.members.insert(fresh, Member { topics, joined: true, heard: now, assigned: Vec::new() });
            group.preparing_since.get_or_insert(now);
            return Vec::new();
        };
        let Some(it) = group.members.get_mut(&member) else {
            return Vec::new();
        };
        if group.preparing_since.is_some() && !it.joined && client.rebalance_at.is_some_and(|at| now >= at) {
            client.rebalance_at = None;
            it.joined = true;
            let gone: Vec<TopicPartition> = std::mem::take(&mut client.owned).into_keys().collect();
            return if gone.is_empty() { Vec::new() } else { vec![Change::Revoked(gone)] };
        }
        if group.preparing_since.is_none() && group.generation > client.generation {
            client.generation = group.generation;
            client.rebalance_at = None;
            client.owned = it.assigned.iter().map(|&at| (at, None)).collect();
            client.meta = Some(Meta { generation: group.generation, member });
            return vec![Change::Assigned(it.assigned.clone())];
        }
        Vec::new()
    }

    fn fetch(&mut self, id: u64, max: usize) -> Vec<LogRecord> {
        let mut owned: Vec<(TopicPartition, i64)> =
            self.clients[&id].owned.iter().filter_map(|(at, position)| position.map(|it| (*at, it))).collect();
        if !owned.is_empty() {
            let turn = self.rng.random_range(0..owned.len());
            owned.rotate_left(turn);
        }
        let mut records = Vec::new();
        for (at, position) in owned {
            let (mut more, next) = self.committed(at, position, max - records.len());
            records.append(&mut more);
            self.clients.get_mut(&id).expect("it is there").owned.insert(at, Some(next));
            if records.len() >= max {
                break;
            }
        }
        records
    }

    fn leave(&mut self, id: u64) {
        let client = self.clients.get_mut(&id).expect("it is there");
        let group = self.groups.entry(client.group.clone()).or_default();
        if let Some(member) = client.member.take()
            && group.members.remove(&member).is_some()
        {
            group.preparing_since.get_or_insert(self.now);
        }
        client.owned.clear();
        client.lost = false;
        client.lost_at = None;
        client.rebalance_at = None;
        client.meta = None;
        client.generation = 0;
    }
}

/// Waits for a moment of the model's time.
pub struct Nap {
    world: Shared,
    until: u64,
}

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut world = self.world.borrow_mut();
        if world.now >= self.until {
            return Poll::Ready(());
        }
        let current = world.current;
        let wake = world.wake.entry(current).or_insert(u64::MAX);
        *wake = (*wake).min(self.until);
        Poll::Pending
    }
}

pub fn nap(world: &Shared, millis: u64) -> Nap {
    let until = world.borrow().now + millis;
    Nap { world: Rc::clone(world), until }
}

/// The time a request takes: always at least one turn of the scheduler, sometimes long.
pub fn hop(world: &Shared) -> Nap {
    let millis = {
        let mut it = world.borrow_mut();
        let slow = it.nasty.slow;
        if it.chance(slow) { it.rng.random_range(100..2_500) } else { it.rng.random_range(1..4) }
    };
    nap(world, millis)
}

/// The log seam on the model.
pub struct ModelLog {
    world: Shared,
    client: u64,
    id: String,
    group: String,
    epoch: i32,
    /// The transaction that was begun by `send`, or why it cannot go on.
    open: Option<Result<(), Ended>>,
}

impl ModelLog {
    pub fn new(world: &Shared, worker: usize, group: &str, id: &str, topics: &[Topic]) -> Self {
        let mut it = world.borrow_mut();
        let client = it.fresh();
        it.clients.insert(
            client,
            Client {
                worker,
                group: group.to_owned(),
                topics: topics.to_vec(),
                member: None,
                generation: 0,
                owned: BTreeMap::new(),
                lost_at: None,
                lost: false,
                rebalance_at: None,
                meta: None,
            },
        );
        Self { world: Rc::clone(world), client, id: id.to_owned(), group: group.to_owned(), epoch: -1, open: None }
    }

    /// Ends the transaction as the client library does: repeats what timed out.
    async fn end(&mut self, commit: bool) -> Ended {
        hop(&self.world).await;
        let (late, give_up, delay) = {
            let mut it = self.world.borrow_mut();
            let Nasty { late_end, give_up, .. } = it.nasty;
            (it.chance(late_end), it.chance(give_up), it.rng.random_range(500..30_000))
        };
        let mut twice = false;
        if late || give_up {
            let at = self.world.borrow().now + delay;
            self.world.borrow_mut().late.push((at, Late::End { id: self.id.clone(), epoch: self.epoch, commit }));
            if give_up {
                nap(&self.world, TRANSACTION).await;
                return Ended::Ambiguous("no answer to the end of the transaction".into());
            }
            twice = true;
            nap(&self.world, REQUEST.min(delay + 10)).await;
        }
        let done = self.world.borrow_mut().end_txn(&self.id, self.epoch, commit);
        hop(&self.world).await;
        match (done, twice) {
            (true, false) => Ended::Committed,
            (true, true) => Ended::CommittedTwice,
            (false, _) => Ended::Fenced("epoch".into()),
        }
    }

    async fn abort(&mut self, ended: Ended) -> Ended {
        // Whatever comes of it: the driver must take a new producer.
        let _ = self.end(false).await;
        ended
    }
}

impl Drop for ModelLog {
    /// The process is gone: its member falls silent, and is put out in time.
    fn drop(&mut self) {
        self.world.borrow_mut().clients.remove(&self.client);
    }
}

impl Log for ModelLog {
    type Meta = Meta;

    async fn poll(&mut self, max: usize, wait: Duration) -> Result<Polled<Meta>, LogError> {
        hop(&self.world).await;
        let wait = u64::try_from(wait.as_millis()).expect("short");
        let until = self.world.borrow().now + wait;
        loop {
            {
                let mut it = self.world.borrow_mut();
                it.tick();
                let changes = it.serve(self.client);
                if !changes.is_empty() {
                    it.say(|| format!("{} {changes:?}", self.id));
                    let meta = it.clients[&self.client].meta.clone();
                    return Ok(Polled { changes, records: Vec::new(), meta });
                }
                let outside =
                    |(at, next): (&TopicPartition, &Option<i64>)| next.is_some_and(|next| next < it.extent(*at).0);
                if it.clients[&self.client].owned.iter().any(outside) {
                    return Err(LogError::Retry("a position is outside of its topic".into()));
                }
                let some = it.rng.random_range(1..=max.max(1));
                let records = it.fetch(self.client, some);
                if !records.is_empty() || it.now >= until {
                    let meta = it.clients[&self.client].meta.clone();
                    return Ok(Polled { changes, records, meta });
                }
            }
            let step = self.world.borrow_mut().rng.random_range(5..50);
            nap(&self.world, step).await;
        }
    }

    fn meta_now(&mut self) -> Option<Meta> {
        let it = self.world.borrow();
        let client = &it.clients[&self.client];
        if client.lost || client.member.is_none() {
            // The library forgot its member: no generation, no name.
            return Some(Meta { generation: -1, member: 0 });
        }
        client.meta.clone()
    }

    async fn group_offset(&mut self, at: TopicPartition) -> Result<Option<i64>, LogError> {
        hop(&self.world).await;
        let until = self.world.borrow().now + STABLE;
        loop {
            {
                let mut it = self.world.borrow_mut();
                it.tick();
                let open = it.txns.iter().any(|txn| {
                    txn.fates.get(&Touched::Group(self.group.clone())) == Some(&Fate::Open)
                        && txn.offsets.iter().any(|(group, on, _)| *group == self.group && *on == at)
                });
                if !open {
                    return Ok(it.group_committed(&self.group, at));
                }
                if it.now >= until {
                    return Err(LogError::Retry("a transaction over the offset is open".into()));
                }
            }
            nap(&self.world, 100).await;
        }
    }

    fn passed(&mut self) -> Vec<(TopicPartition, i64)> {
        let it = self.world.borrow();
        it.clients[&self.client].owned.iter().filter_map(|(at, next)| next.map(|next| (*at, next))).collect()
    }

    fn ask(&mut self, _: &[TopicPartition]) {}

    async fn topic_facts(&mut self, at: &[TopicPartition], _: Ask) -> Result<Vec<TopicFacts>, LogError> {
        hop(&self.world).await;
        self.answer("topics")?;
        let facts = {
            let it = self.world.borrow();
            at.iter()
                .map(|&at| {
                    let (start, end) = it.extent(at);
                    TopicFacts { at, topic_id: it.topics[&at.topic].id.to_string(), start, end }
                })
                .collect()
        };
        hop(&self.world).await;
        Ok(facts)
    }

    async fn seek(&mut self, at: TopicPartition, offset: i64) -> Result<(), LogError> {
        hop(&self.world).await;
        let mut it = self.world.borrow_mut();
        it.left_open += usize::from(self.open.is_some());
        let client = it.clients.get_mut(&self.client).expect("it is there");
        if let Some(position) = client.owned.get_mut(&at) {
            *position = Some(offset);
        }
        Ok(())
    }

    async fn send(&mut self, outgoing: &[Outgoing]) {
        if matches!(self.open, None | Some(Ok(()))) {
            self.open = Some(self.produce(outgoing).await);
        }
    }

    async fn transact(&mut self, outgoing: &[Outgoing], offsets: &[(TopicPartition, i64)], meta: &Meta) -> Ended {
        self.world.borrow().say(|| {
            let to: Vec<String> =
                offsets.iter().map(|(at, to)| format!("{}/{} to {to}", at.topic, at.partition)).collect();
            format!("{} epoch {} sends {} records, {to:?} as {meta:?}", self.id, self.epoch, outgoing.len())
        });
        let begun = self.open.is_some();
        self.send(outgoing).await;
        let ended = match self.open.take() {
            Some(Err(ended)) => ended,
            _ => self.finish(begun || !outgoing.is_empty(), offsets, meta).await,
        };
        self.world.borrow().say(|| format!("{} epoch {}: {ended:?}", self.id, self.epoch));
        ended
    }

    async fn give_up(&mut self) {
        if let Some(Ok(())) = self.open.take() {
            // Whatever comes of it: the driver must take a new producer.
            let _ = self.end(false).await;
        }
    }

    async fn renew_producer(&mut self, outputs: &[Topic]) -> Result<(), LogError> {
        hop(&self.world).await;
        self.open = None;
        self.epoch = self.world.borrow_mut().init(&self.id);
        hop(&self.world).await;
        self.world.borrow_mut().sweep(&self.id, self.epoch, &self.group, outputs);
        hop(&self.world).await;
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), LogError> {
        hop(&self.world).await;
        {
            let mut it = self.world.borrow_mut();
            if !it.add_offsets(&self.id, self.epoch, &self.group, &[]) {
                return Err(LogError::Retry("epoch".into()));
            }
            it.end_txn(&self.id, self.epoch, false);
        }
        hop(&self.world).await;
        Ok(())
    }

    async fn ends(&mut self, topics: &[Topic]) -> Result<BTreeMap<TopicPartition, End>, LogError> {
        hop(&self.world).await;
        self.answer("ends")?;
        let ends: BTreeMap<TopicPartition, i64> = {
            let it = self.world.borrow();
            places(topics).filter(|at| it.topics.contains_key(&at.topic)).map(|at| (at, it.extent(at).1)).collect()
        };
        hop(&self.world).await;
        let it = self.world.borrow();
        Ok(ends.into_iter().map(|(at, end)| (at, End { end, stable: it.stable_end(at) })).collect())
    }

    async fn find(&mut self, look: &Look) -> Result<Found, LogError> {
        hop(&self.world).await;
        self.answer("what stands")?;
        let mut found = Found::default();
        let ends: Vec<(TopicPartition, i64, i64)> = {
            let it = self.world.borrow();
            look.from.iter().map(|(&at, &from)| (at, from, it.extent(at).1)).collect()
        };
        for (at, from, end) in ends {
            let until = self.world.borrow().now + STABLE;
            loop {
                hop(&self.world).await;
                {
                    let mut it = self.world.borrow_mut();
                    it.tick();
                    if it.stable_end(at) >= end {
                        let start = it.extent(at).0;
                        found.cut |= from < start;
                        let from = if from > end { start } else { from.max(start) };
                        let (records, _) = it.committed(at, from, usize::MAX);
                        records
                            .iter()
                            .filter(|it| it.offset < end)
                            .for_each(|it| found.note(look, it.at.topic, &it.headers));
                        break;
                    }
                    if it.now >= until {
                        return Err(LogError::Retry(format!("a transaction on {}/{} is open", at.topic, at.partition)));
                    }
                }
                nap(&self.world, 100).await;
            }
        }
        Ok(found)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.world.borrow().now)
    }

    async fn rejoin(&mut self) -> Result<(), LogError> {
        hop(&self.world).await;
        self.world.borrow_mut().leave(self.client);
        Ok(())
    }

    async fn pause(&self, time: Duration) {
        nap(&self.world, u64::try_from(time.as_millis()).expect("short").max(1)).await;
    }

    async fn close(&mut self) {
        hop(&self.world).await;
        self.world.borrow_mut().leave(self.client);
    }
}

impl ModelLog {
    /// Now and then a question is not answered.
    fn answer(&self, what: &str) -> Result<(), LogError> {
        let mut it = self.world.borrow_mut();
        let network = it.nasty.network;
        if it.chance(network) {
            return Err(LogError::Retry(format!("the question for {what} was not answered")));
        }
        Ok(())
    }

    /// Hands records over, in the open transaction or a new one.
    async fn produce(&mut self, outgoing: &[Outgoing]) -> Result<(), Ended> {
        hop(&self.world).await;
        for record in outgoing {
            let (fails, joins_late, delay) = {
                let mut it = self.world.borrow_mut();
                let network = it.nasty.network;
                (it.chance(network), it.rng.random_bool(0.5), it.rng.random_range(10..20_000))
            };
            if fails {
                if joins_late {
                    let record = Box::new(record.clone());
                    let late = Late::Record { id: self.id.clone(), epoch: self.epoch, record };
                    let mut it = self.world.borrow_mut();
                    let at = it.now + delay;
                    it.late.push((at, late));
                }
                return Err(self.abort(Ended::Aborted("a record was not delivered".into())).await);
            }
            let done = self.world.borrow_mut().produce(&self.id, self.epoch, record.clone());
            if !done {
                return Err(Ended::Fenced("epoch".into()));
            }
            if self.world.borrow_mut().rng.random_bool(0.3) {
                hop(&self.world).await;
            }
        }
        Ok(())
    }

    async fn finish(&mut self, begun: bool, offsets: &[(TopicPartition, i64)], meta: &Meta) -> Ended {
        hop(&self.world).await;
        if !offsets.is_empty() {
            let accepted = self.world.borrow().accepts(&self.group, meta);
            if !accepted {
                return self.abort(Ended::Stale("generation".into())).await;
            }
            if !self.world.borrow_mut().add_offsets(&self.id, self.epoch, &self.group, offsets) {
                return Ended::Fenced("epoch".into());
            }
        } else if !begun {
            return Ended::Committed;
        } else {
            self.world.borrow_mut().unfenced += 1;
        }
        self.end(true).await
    }
}
