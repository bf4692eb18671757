//! A model of Postgres as the ledger and the sink use it: compare-and-set under row locks, sessions that can be
//! ended, commits whose answer is lost, commits that happen after their process is gone.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use kept_processors::ledger::{Facts, LedgerEvent, OrderState, Sku};
use kept_schemas::{EventId, Micros, OrderId, Topic};
use kept_store::seam::{
    Advance, DecidedWith, Ends, JournalRow, Keys, Ledger, LedgerError, LedgerTxn, LetGo, Locked, Parked, Progress,
    Queue, Sink, SinkInput, SinkRecord, SinkTxn, TopicPartition, Written,
};

use rand::Rng;

use crate::toy::PANIC;
use crate::world::{Shared, World, hop, nap};

/// An order of this account cannot be stored, a SKU of this name not be locked.
pub const REFUSE: &str = "REFUSE";
/// A session idle in a transaction is ended after this long.
const IDLE: u64 = 5_000;

/// The ledger step and the sink each have a book of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Book {
    Ledger,
    Sink,
    Stateless,
}

type Row = (Book, TopicPartition);

#[derive(Default)]
struct Session {
    ended: bool,
    touched: u64,
    open: bool,
}

struct Pending {
    at: u64,
    session: u64,
    staged: Staged,
    done: Rc<Cell<Option<bool>>>,
}

/// A row that a transaction locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    Place(Row),
    Order(OrderId),
}

#[derive(Default, Clone)]
struct Staged {
    moves: Vec<(Book, Advance)>,
    facts: Facts,
    rows: Vec<JournalRow>,
    acted: Vec<(Option<OrderId>, EventId)>,
    parked: Vec<Parked>,
    unparked: Vec<i64>,
    with: Vec<DecidedWith>,
    applied: Vec<SinkRecord>,
}

#[derive(Default)]
pub struct Store {
    pub progress: BTreeMap<Row, Progress>,
    owner: BTreeMap<Row, u64>,
    locks: BTreeMap<Lock, u64>,
    sessions: BTreeMap<u64, Session>,
    pending: Vec<Pending>,
    pub orders: BTreeMap<OrderId, OrderState>,
    pub acted: BTreeSet<(Option<OrderId>, EventId)>,
    pub journal: Vec<JournalRow>,
    /// The queues of parked orders, each in the order they came.
    pub parked: BTreeMap<i64, Parked>,
    /// Records that were let go, by their rows.
    let_go: BTreeSet<i64>,
    /// Everything that was ever parked, and where it stood then.
    pub queued: Vec<Parked>,
    /// Places of parked records that were sent again and dealt with.
    pub left: BTreeSet<(TopicPartition, i64)>,
    /// Versions that decisions were made with, by the place from which on they hold.
    pub with: BTreeMap<(TopicPartition, i64), BTreeMap<Topic, i64>>,
    attempts: BTreeMap<(Row, i64), i32>,
    next_journal: i64,
    next_row: i64,
    /// An input topic was deleted and made anew.
    pub made_anew: bool,
    pub applied: Vec<SinkRecord>,
}

impl Store {
    pub fn next_offset(&self, book: Book, at: TopicPartition) -> Option<i64> {
        self.progress.get(&(book, at)).map(|it| it.next_offset)
    }

    /// Everything before was seen to stand.
    pub fn noted(&self, book: Book, at: TopicPartition) -> Option<i64> {
        self.progress.get(&(book, at)).map(|it| it.emitted_floor)
    }

    fn end(&mut self, session: u64) {
        if let Some(it) = self.sessions.get_mut(&session) {
            it.ended = true;
            it.open = false;
        }
        self.locks.retain(|_, holder| *holder != session);
    }

    fn release(&mut self, session: u64) {
        if let Some(it) = self.sessions.get_mut(&session) {
            it.open = false;
        }
        self.locks.retain(|_, holder| *holder != session);
    }

    /// Lets the first record of a parked order go; it is to be sent again.
    pub fn let_go(&mut self, order: OrderId) -> Option<Parked> {
        let (row, first) = self.parked.iter().find(|(_, it)| it.order_id == order)?;
        self.let_go.insert(*row);
        Some(first.clone())
    }

    /// Takes a record out of its queue that was let go and is dealt with.
    fn take(&mut self, row: i64) -> Parked {
        assert!(self.let_go.remove(&row), "only what was let go is dealt with");
        let it = self.parked.remove(&row).expect("it is parked");
        let at = TopicPartition { topic: it.cause.topic, partition: it.cause.partition };
        self.left.insert((at, it.cause.offset));
        it
    }

    pub fn tick(&mut self, world: &mut World) {
        let now = world.now;
        let mut due = Vec::new();
        let mut rest = Vec::new();
        for it in std::mem::take(&mut self.pending) {
            if it.at <= now { due.push(it) } else { rest.push(it) }
        }
        self.pending = rest;
        for it in due {
            let alive = self.sessions.get(&it.session).is_some_and(|session| !session.ended);
            if alive {
                world.say(|| {
                    let moves: Vec<String> = it
                        .staged
                        .moves
                        .iter()
                        .map(|(_, it)| {
                            format!("{}/{} {}..{}", it.at.topic, it.at.partition, it.from_offset, it.to_offset)
                        })
                        .collect();
                    format!("session {} commits {moves:?}, {} rows", it.session, it.staged.rows.len())
                });
                self.apply(it.staged);
                self.release(it.session);
            }
            it.done.set(Some(alive));
        }
        let committing: BTreeSet<u64> = self.pending.iter().map(|it| it.session).collect();
        let idle: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(id, it)| it.open && now.saturating_sub(it.touched) > IDLE && !committing.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            world.say(|| format!("session {id} idle in transaction: ended"));
            self.end(id);
        }
    }

    fn apply(&mut self, staged: Staged) {
        for (book, it) in staged.moves {
            if let Some(row) = self.progress.get_mut(&(book, it.at)) {
                row.next_offset = it.to_offset;
            }
        }
        self.orders.extend(staged.facts.orders);
        self.acted.extend(staged.acted);
        self.journal.extend(staged.rows);
        for row in staged.unparked {
            self.take(row);
        }
        for it in staged.parked {
            match it.again {
                Some(row) => {
                    let before = self.take(row);
                    assert_eq!(before.cause.event_id, it.cause.event_id, "only the one that was let go fails again");
                    self.parked.insert(row, it);
                }
                None => {
                    self.next_row += 1;
                    self.queued.push(it.clone());
                    self.parked.insert(self.next_row, it);
                }
            }
        }
        self.with.extend(staged.with.into_iter().map(|it| ((it.at, it.from_offset), it.versions)));
        self.applied.extend(staged.applied);
    }
}

/// The ledger seam, and the sink seam, on the model.
pub struct ModelStore {
    world: Shared,
    book: Book,
    session: u64,
    /// What this session took, and at which epoch.
    owned: BTreeMap<TopicPartition, i64>,
}

impl ModelStore {
    pub fn new(world: &Shared, book: Book) -> Self {
        let mut it = world.borrow_mut();
        let session = it.fresh();
        it.store.sessions.insert(session, Session::default());
        Self { world: Rc::clone(world), book, session, owned: BTreeMap::new() }
    }

    /// One round trip. Now and then the connection breaks.
    async fn trip(&self) -> Result<(), LedgerError> {
        trip(&self.world, self.session).await
    }

    async fn take_over(&mut self, at: TopicPartition, id: &str, start: i64) -> Result<Progress, LedgerError> {
        self.trip().await?;
        let row = (self.book, at);
        let taken = {
            let mut it = self.world.borrow_mut();
            let it = &mut *it;
            // Ending it may fail (a pooler between, no right to); then only the compare-and-set stands guard.
            let ends = it.rng.random_bool(0.5);
            if let Some(&old) = it.store.owner.get(&row).filter(|&&old| old != self.session && ends) {
                it.store.end(old);
            }
            let holder = it.store.locks.get(&Lock::Place(row)).copied();
            if let Some(holder) = holder.filter(|&holder| holder != self.session) {
                it.store.end(holder);
            }
            it.store.owner.insert(row, self.session);
            let progress = it.store.progress.entry(row).or_insert_with(|| Progress {
                next_offset: start,
                owner_epoch: 0,
                topic_id: id.to_owned(),
                emitted_floor: start,
                sent_from: Ends::new(),
                clean: true,
            });
            progress.owner_epoch += 1;
            let taken = progress.clone();
            progress.clean = false;
            taken
        };
        self.trip().await?;
        self.owned.insert(at, taken.owner_epoch);
        Ok(taken)
    }

    async fn open(&mut self) -> Result<ModelTxn, LedgerError> {
        self.trip().await?;
        let mut it = self.world.borrow_mut();
        let now = it.now;
        let session = it.store.sessions.get_mut(&self.session).expect("it is there");
        session.open = true;
        session.touched = now;
        drop(it);
        Ok(ModelTxn {
            world: Rc::clone(&self.world),
            book: self.book,
            session: self.session,
            staged: Staged::default(),
            handed_in: false,
        })
    }

    async fn look(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError> {
        self.trip().await?;
        let found = self.world.borrow().store.progress.get(&(self.book, at)).cloned();
        self.trip().await?;
        Ok(found)
    }

    async fn let_go(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        self.trip().await?;
        let mut it = self.world.borrow_mut();
        for (at, epoch) in at {
            let row = (self.book, *at);
            if let Some(progress) = it.store.progress.get_mut(&row).filter(|it| it.owner_epoch == *epoch) {
                progress.clean = true;
            }
        }
        Ok(())
    }

    async fn connect_anew(&mut self) -> Result<(), LedgerError> {
        hop(&self.world).await;
        let mut it = self.world.borrow_mut();
        // As the shipped store does: the old session, and a commit of it still on its way, is ended first.
        it.store.end(self.session);
        self.session = it.fresh();
        let session = self.session;
        it.store.sessions.insert(session, Session::default());
        drop(it);
        self.owned.clear();
        Ok(())
    }
}

impl Drop for ModelStore {
    /// The process is gone; the server notices, and a commit on its way still happens.
    fn drop(&mut self) {
        if let Ok(mut it) = self.world.try_borrow_mut() {
            let session = self.session;
            if !it.store.pending.iter().any(|pending| pending.session == session) {
                it.store.end(session);
            }
        }
    }
}

async fn trip(world: &Shared, session: u64) -> Result<(), LedgerError> {
    hop(world).await;
    let mut it = world.borrow_mut();
    it.tick();
    let now = it.now;
    let breaks = it.chance(0.001);
    if breaks {
        it.store.end(session);
    }
    match it.store.sessions.get_mut(&session) {
        Some(session) if !session.ended => {
            session.touched = now;
            Ok(())
        }
        _ => Err(LedgerError::Lost("session ended".into())),
    }
}

pub struct ModelTxn {
    world: Shared,
    book: Book,
    session: u64,
    staged: Staged,
    handed_in: bool,
}

impl Drop for ModelTxn {
    fn drop(&mut self) {
        if !self.handed_in {
            self.world.borrow_mut().store.release(self.session);
        }
    }
}

impl ModelTxn {
    /// Waits for a row's lock; it is held until the transaction ends.
    async fn take_lock(&self, lock: Lock) -> Result<(), LedgerError> {
        let until = self.world.borrow().now + 10_000;
        loop {
            {
                let mut world = self.world.borrow_mut();
                let holder = world.store.locks.get(&lock).copied();
                if holder.is_none_or(|holder| holder == self.session) {
                    world.store.locks.insert(lock, self.session);
                    return Ok(());
                }
                if world.now >= until {
                    return Err(LedgerError::Repeat("lock timeout".into()));
                }
                let now = world.now;
                if let Some(session) = world.store.sessions.get_mut(&self.session) {
                    session.touched = now;
                }
            }
            nap(&self.world, 20).await;
            trip(&self.world, self.session).await?;
        }
    }

    async fn compare_and_set(&mut self, moves: &[Advance]) -> Result<bool, LedgerError> {
        trip(&self.world, self.session).await?;
        for it in moves {
            let row = (self.book, it.at);
            self.take_lock(Lock::Place(row)).await?;
            let ok = self
                .world
                .borrow()
                .store
                .progress
                .get(&row)
                .is_some_and(|now| now.next_offset == it.from_offset && now.owner_epoch == it.owner_epoch);
            if !ok {
                return Ok(false);
            }
            self.staged.moves.push((self.book, it.clone()));
        }
        Ok(true)
    }

    async fn hand_in(mut self) -> Result<(), LedgerError> {
        trip(&self.world, self.session).await?;
        let done = Rc::new(Cell::new(None));
        let lost = {
            let mut it = self.world.borrow_mut();
            let slow = it.chance(0.05);
            let lost = it.chance(0.02);
            let at = it.now + if slow { it.rng.random_range(10..8_000) } else { it.rng.random_range(0..3) };
            let pending =
                Pending { at, session: self.session, staged: std::mem::take(&mut self.staged), done: Rc::clone(&done) };
            it.store.pending.push(pending);
            self.handed_in = true;
            lost
        };
        if lost {
            hop(&self.world).await;
            return Err(LedgerError::Lost("no answer to the commit".into()));
        }
        loop {
            nap(&self.world, 2).await;
            self.world.borrow_mut().tick();
            match done.get() {
                Some(true) => return Ok(()),
                Some(false) => return Err(LedgerError::Lost("session ended".into())),
                None => {}
            }
        }
    }
}

impl LedgerTxn for ModelTxn {
    async fn advance(&mut self, moves: &[Advance]) -> Result<bool, LedgerError> {
        self.compare_and_set(moves).await
    }

    async fn lock(&mut self, keys: &Keys, skus: &mut dyn FnMut(&Facts) -> Vec<Sku>) -> Result<Locked, LedgerError> {
        trip(&self.world, self.session).await?;
        if self.world.borrow_mut().chance(0.01) {
            return Err(LedgerError::Repeat("deadlock".into()));
        }
        for &order in &keys.orders {
            self.take_lock(Lock::Order(order)).await?;
        }
        let it = self.world.borrow();
        let mut locked = Locked::default();
        locked.facts.now = Micros(i64::try_from(it.now).expect("small"));
        for &order_id in &keys.orders {
            let state = it.store.orders.get(&order_id).cloned();
            let state = state.unwrap_or_else(|| OrderState { order_id, ..Default::default() });
            locked.facts.orders.insert(order_id, state);
            let mut queue = it.store.parked.iter().filter(|(_, parked)| parked.order_id == order_id);
            if let Some((&parked_id, first)) = queue.next() {
                let gone = it.store.let_go.contains(&parked_id);
                let let_go = gone.then_some(LetGo { event_id: first.cause.event_id, parked_id });
                locked.parked.insert(order_id, Queue { let_go, records: 1 + queue.count() });
            }
        }
        for &(order, cause) in &keys.causes {
            if it.store.acted.contains(&(Some(order), cause)) {
                locked.acted.insert((Some(order), cause));
            }
        }
        if skus(&locked.facts).iter().any(|it| it == REFUSE) {
            return Err(LedgerError::Refused("value too long".into()));
        }
        Ok(locked)
    }

    async fn write(&mut self, written: &Written) -> Result<(), LedgerError> {
        trip(&self.world, self.session).await?;
        if written.facts.orders.values().any(|it| it.account == REFUSE) {
            return Err(LedgerError::Refused("value out of range".into()));
        }
        let mut it = self.world.borrow_mut();
        let mut numbered = |row: &JournalRow| {
            it.store.next_journal += 1;
            JournalRow { journal_id: it.store.next_journal, ..row.clone() }
        };
        self.staged.rows = written.events.iter().map(|(_, row)| numbered(row)).collect();
        self.staged.facts = written.facts.clone();
        self.staged.acted = written.acted.clone();
        self.staged.parked = written.parked.clone();
        self.staged.unparked = written.unparked.clone();
        self.staged.with = written.with.clone();
        Ok(())
    }

    async fn commit(self) -> Result<(), LedgerError> {
        self.hand_in().await
    }
}

impl Ledger for ModelStore {
    type Txn<'a> = ModelTxn;

    async fn progress(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError> {
        self.look(at).await
    }

    async fn take(&mut self, at: TopicPartition, id: &str, start: i64) -> Result<Progress, LedgerError> {
        self.take_over(at, id, start).await
    }

    async fn begin(&mut self) -> Result<ModelTxn, LedgerError> {
        self.open().await
    }

    async fn unemitted(
        &mut self,
        at: TopicPartition,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<(Vec<JournalRow>, i64), LedgerError> {
        self.trip().await?;
        let it = self.world.borrow();
        let mut rows: Vec<JournalRow> = it
            .store
            .journal
            .iter()
            .filter(|row| row.cause.topic == at.topic && row.cause.partition == at.partition)
            .filter(|row| (from..to).contains(&row.cause.offset))
            .cloned()
            .collect();
        rows.sort_by_key(|row| row.journal_id);
        if rows.len() <= limit {
            return Ok((rows, to));
        }
        let cut = rows[limit].cause.offset;
        let mut keep = limit;
        while keep > 0 && rows[keep - 1].cause.offset == cut {
            keep -= 1;
        }
        if keep == 0 {
            keep = rows.iter().take_while(|row| row.cause.offset == cut).count();
            let upto = rows.get(keep).map_or(to, |row| row.cause.offset);
            rows.truncate(keep);
            return Ok((rows, upto));
        }
        rows.truncate(keep);
        Ok((rows, cut))
    }

    async fn emitted(&mut self, floors: &[(TopicPartition, i64)], sent_from: &Ends) -> Result<bool, LedgerError> {
        self.trip().await?;
        let mut kept = 0;
        let mut it = self.world.borrow_mut();
        for (at, floor) in floors {
            let Some(&epoch) = self.owned.get(at) else { continue };
            let row = it.store.progress.get_mut(&(self.book, *at)).filter(|row| row.owner_epoch == epoch);
            if let Some(row) = row {
                if *floor >= row.emitted_floor {
                    row.emitted_floor = *floor;
                    row.sent_from.clone_from(sent_from);
                }
                kept += 1;
            }
        }
        Ok(kept == floors.len())
    }

    async fn attempt(&mut self, at: TopicPartition, offset: i64) -> Result<i32, LedgerError> {
        self.trip().await?;
        let count = {
            let mut it = self.world.borrow_mut();
            let count = it.store.attempts.entry(((self.book, at), offset)).or_insert(0);
            *count += 1;
            *count
        };
        self.trip().await?;
        Ok(count)
    }

    async fn leave(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        self.let_go(at).await
    }

    async fn reconnect(&mut self) -> Result<(), LedgerError> {
        self.connect_anew().await
    }
}

/// The sink on the model: it keeps what it was given.
pub struct ModelSink(pub ModelStore);

impl SinkTxn for ModelTxn {
    async fn advance(&mut self, moves: &[Advance]) -> Result<bool, LedgerError> {
        self.compare_and_set(moves).await
    }

    async fn apply(&mut self, records: &[SinkRecord]) -> Result<(), LedgerError> {
        trip(&self.world, self.session).await?;
        if self.world.borrow_mut().chance(0.01) {
            return Err(LedgerError::Repeat("deadlock".into()));
        }
        for record in records {
            if let SinkInput::Event(LedgerEvent::Noted(it)) = &record.input {
                assert_ne!(it.detail.get(it.detail.len().saturating_sub(PANIC.len())..), Some(PANIC), "as told");
            }
        }
        self.staged.applied.extend_from_slice(records);
        Ok(())
    }

    async fn commit(self) -> Result<(), LedgerError> {
        self.hand_in().await
    }
}

impl Sink for ModelSink {
    type Txn<'a> = ModelTxn;

    async fn progress(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError> {
        self.0.look(at).await
    }

    async fn take(&mut self, at: TopicPartition, id: &str, start: i64) -> Result<Progress, LedgerError> {
        self.0.take_over(at, id, start).await
    }

    async fn begin(&mut self) -> Result<ModelTxn, LedgerError> {
        self.0.open().await
    }

    async fn leave(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        self.0.let_go(at).await
    }

    async fn reconnect(&mut self) -> Result<(), LedgerError> {
        self.0.connect_anew().await
    }
}

/// What the sink's rows say of an order's money.
pub fn captured(applied: &[SinkRecord]) -> BTreeMap<OrderId, Vec<i64>> {
    let mut sums: BTreeMap<OrderId, Vec<i64>> = BTreeMap::new();
    for record in applied {
        if let SinkInput::Event(LedgerEvent::Paid(it)) = &record.input {
            sums.entry(it.order_id).or_default().push(it.captured_minor);
        }
    }
    sums
}
