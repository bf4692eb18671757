//! What the door remembers and looks up: answers given under an `Idempotency-Key`, orders accepted and still on their
//! way, and the read model. A seam, so that every answer of the door can be tested without a server.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kept_runtime::counters::Http;
use kept_schemas::OrderId;
use kept_store::{
    Prefix, Session, StoreError,
    accepted::{self, AtTheDoor},
    answers::{self, Known},
    pages,
    pg::Purpose,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// A future that a trait object can return.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request that carries an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    pub account: String,
    pub key: String,
    /// SHA-256 over method, path and body, in hex.
    pub hash: String,
}

/// What is known of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The read model has it.
    Here(Box<pages::OrderFacts>),
    /// Accepted, on its way.
    AtTheDoor(AtTheDoor),
    Unknown,
}

/// The database cannot be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away;

/// See the module.
pub trait Books: Send + Sync {
    fn begin<'a>(&'a self, request: &'a Keyed) -> Boxed<'a, Result<Known, Away>>;
    fn finish<'a>(&'a self, request: &'a Keyed, status: u16, answer: &'a str) -> Boxed<'a, Result<(), Away>>;
    /// False when so many accepted orders wait to be written down that no more can be taken.
    fn has_room(&self) -> bool;
    /// Writes down orders that are durably stored. Never fails: what cannot be written now is written later.
    fn accepted(&self, orders: Vec<AtTheDoor>) -> Boxed<'_, ()>;
    fn find(&self, order_id: OrderId) -> Boxed<'_, Result<Found, Away>>;
    fn timeline(&self, order_id: OrderId, after: i64) -> Boxed<'_, Result<Vec<pages::Told>, Away>>;
}

/// The longest a request waits for the database.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest an accepted order's answer waits for its row; the order is safe in the topic already.
const ROW_PATIENCE: Duration = Duration::from_secs(1);
/// Accepted orders that may wait in memory while the database is away.
const MAX_PENDING: usize = 50_000;
/// How long a key's answer is kept.
const KEY_HOURS: i32 = 72;
/// Events of a timeline in one answer.
pub const TIMELINE_PAGE: i64 = 500;

/// The books in Postgres.
pub struct PgBooks {
    door: Arc<Session>,
    read: Session,
    queue: mpsc::UnboundedSender<Entry>,
    shared: Arc<Shared>,
}

struct Entry {
    orders: Vec<AtTheDoor>,
    written: oneshot::Sender<()>,
}

#[derive(Default)]
struct Shared {
    /// Accepted and not written down yet. Lost when this process dies while the database is away; such an order is
    /// answered with "unknown" until the ledger has it.
    pending: Mutex<BTreeMap<OrderId, AtTheDoor>>,
    /// The last attempt to write failed.
    behind: AtomicBool,
    counters: Arc<Http>,
}

impl Shared {
    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<OrderId, AtTheDoor>> {
        // A panic between two operations on a map leaves a whole map.
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Shared {
    fn count(&self, pending: &BTreeMap<OrderId, AtTheDoor>) {
        self.counters.unwritten.store(pending.len() as u64, Ordering::Relaxed);
    }
}

impl PgBooks {
    /// Opens nothing yet. `ledger`, `read`: URLs that psql takes. The task writes accepted orders down, and ends once
    /// the books are dropped and everything is written.
    pub fn new(ledger: &str, read: &str, prefix: &Prefix, counters: Arc<Http>) -> (Self, JoinHandle<()>) {
        let door = Arc::new(Session::new(ledger, prefix.ledger(), Purpose::Door));
        let shared = Arc::new(Shared { counters, ..Default::default() });
        let (queue, entries) = mpsc::unbounded_channel();
        let task = tokio::spawn(write_down(Arc::clone(&door), Arc::clone(&shared), entries));
        (Self { door, read: Session::new(read, prefix.read(), Purpose::Pages), queue, shared }, task)
    }

    /// Forgets old keys and old news. To be called now and then.
    pub async fn tidy(&self) {
        let tidied = self.door.within(8 * PATIENCE, async |client| {
            Ok((answers::forget(&client, KEY_HOURS).await?, accepted::forget(&client).await?))
        });
        match tidied.await {
            Ok((keys, orders)) => tracing::debug!(keys, orders, "forgot old idempotency keys and accepted orders"),
            Err(error) => tracing::warn!(%error, "old idempotency keys are forgotten later"),
        }
    }
}

/// Writes accepted orders down, all that wait in one statement, and keeps trying while the database is away.
async fn write_down(door: Arc<Session>, shared: Arc<Shared>, mut entries: mpsc::UnboundedReceiver<Entry>) {
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, 1_000).await > 0 {
        let orders: Vec<AtTheDoor> = batch.iter().flat_map(|entry| entry.orders.iter().cloned()).collect();
        while let Err(error) = door.within(PATIENCE, async |client| accepted::remember(&client, &orders).await).await {
            if !shared.behind.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "accepted orders cannot be written down; they are safe in their topic, and asked for meanwhile from memory");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if shared.behind.swap(false, Ordering::Relaxed) {
            tracing::info!(orders = orders.len(), "accepted orders are written down again");
        }
        {
            let mut pending = shared.pending();
            for order in &orders {
                pending.remove(&order.order_id);
            }
            shared.count(&pending);
        }
        for entry in batch.drain(..) {
            // Nobody may be waiting any more.
            let _ = entry.written.send(());
        }
    }
}

fn away(error: &StoreError) -> Away {
    tracing::warn!(%error, "the database cannot be asked");
    Away
}

impl Books for PgBooks {
    fn begin<'a>(&'a self, request: &'a Keyed) -> Boxed<'a, Result<Known, Away>> {
        Box::pin(async move {
            let work = async |client: Arc<tokio_postgres::Client>| {
                answers::begin(&client, &request.account, &request.key, &request.hash).await
            };
            self.door.within(PATIENCE, work).await.map_err(|error| away(&error))
        })
    }

    fn finish<'a>(&'a self, request: &'a Keyed, status: u16, answer: &'a str) -> Boxed<'a, Result<(), Away>> {
        Box::pin(async move {
            let of = (request.account.as_str(), request.key.as_str(), request.hash.as_str());
            let work = async |client: Arc<tokio_postgres::Client>| answers::finish(&client, of, status, answer).await;
            self.door.within(PATIENCE, work).await.map_err(|error| away(&error))
        })
    }

    fn has_room(&self) -> bool {
        self.shared.pending().len() < MAX_PENDING
    }

    fn accepted(&self, orders: Vec<AtTheDoor>) -> Boxed<'_, ()> {
        Box::pin(async move {
            {
                let mut pending = self.shared.pending();
                pending.extend(orders.iter().map(|order| (order.order_id, order.clone())));
                self.shared.count(&pending);
            }
            let (written, done) = oneshot::channel();
            let sent = self.queue.send(Entry { orders, written });
            if sent.is_ok() && !self.shared.behind.load(Ordering::Relaxed) {
                // Late or not, the answer is the same.
                let _ = tokio::time::timeout(ROW_PATIENCE, done).await;
            }
        })
    }

    fn find(&self, order_id: OrderId) -> Boxed<'_, Result<Found, Away>> {
        Box::pin(async move {
            let read = self.read.within(PATIENCE, async |client| pages::order(&client, order_id).await);
            if let Some(facts) = read.await.map_err(|error| away(&error))? {
                return Ok(Found::Here(Box::new(facts)));
            }
            if let Some(order) = self.shared.pending().get(&order_id) {
                return Ok(Found::AtTheDoor(order.clone()));
            }
            let door = self.door.within(PATIENCE, async |client| accepted::find(&client, order_id).await);
            let order = door.await.map_err(|error| away(&error))?;
            Ok(order.map_or(Found::Unknown, Found::AtTheDoor))
        })
    }

    fn timeline(&self, order_id: OrderId, after: i64) -> Boxed<'_, Result<Vec<pages::Told>, Away>> {
        Box::pin(async move {
            let read = self
                .read
                .within(PATIENCE, async |client| pages::timeline(&client, order_id, after, TIMELINE_PAGE).await);
            read.await.map_err(|error| away(&error))
        })
    }
}
