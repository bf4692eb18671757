//! Parked orders: a record that could not be decided, and what queues behind it, until a person lets them go.
//!
//! They go one by one, in the order they came: [`let_go`] marks the first and hands it over to be sent to its topic
//! again; it leaves the queue with the decision about it, in one transaction, and whatever else comes of the order
//! meanwhile queues behind. The order flows again once the queue is empty. A crash between the steps loses nothing: what
//! was marked stays the first, and is sent once more; a record that comes twice is recognised by its event id.

use kept_schemas::{EventId, Micros, OrderId, Topic};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::pg::{At, StoreError};

/// Why a record waits that came behind another one, once that one is gone.
const NEXT: &str = "the one before it was let go and is decided";

/// An order that is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedOrder {
    pub order_id: OrderId,
    /// Why its first record could not be decided.
    pub reason: String,
    /// Where that record is: topic, partition, offset.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Records that wait, that one included.
    pub records: i64,
    pub since: Micros,
}

/// One parked record, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRecord {
    pub parked_id: i64,
    pub order_id: OrderId,
    pub topic: Topic,
    pub partition: i32,
    pub offset: i64,
    /// To be sent along when it is sent again: it is the same event.
    pub event_id: EventId,
    pub traceparent: Option<String>,
    pub payload: Vec<u8>,
    /// `None`: it waits behind another one. The first of an order always has a reason.
    pub reason: Option<String>,
    pub at: Micros,
    /// Let go, but not decided yet.
    pub released: bool,
}

/// Parked orders, the longest waiting first. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn list(client: &Client, limit: i64) -> Result<Vec<ParkedOrder>, StoreError> {
    let rows = client
        .query(
            "SELECT DISTINCT ON (order_id) order_id, coalesce(reason, $1), topic, partition_no, record_offset,
                    count(*) OVER (PARTITION BY order_id), at
             FROM parked ORDER BY order_id, parked_id",
            &[&NEXT],
        )
        .await?;
    let mut orders: Vec<ParkedOrder> = rows
        .iter()
        .map(|row| {
            let At(since) = row.get(6);
            ParkedOrder {
                order_id: OrderId(row.get(0)),
                reason: row.get(1),
                topic: row.get(2),
                partition: row.get(3),
                offset: row.get(4),
                records: row.get(5),
                since,
            }
        })
        .collect();
    orders.sort_by_key(|order| (order.since, order.order_id));
    orders.truncate(usize::try_from(limit).unwrap_or(0));
    Ok(orders)
}

/// The records of one parked order, in the order they came.
///
/// # Errors
/// Whatever Postgres says; a topic that this version does not know.
pub async fn show(client: &Client, order: OrderId) -> Result<Vec<ParkedRecord>, StoreError> {
    let rows = client
        .query(
            "SELECT parked_id, order_id, topic, partition_no, record_offset, event_id, traceparent, payload,
                    reason, at, released_at IS NOT NULL
             FROM parked WHERE order_id = $1 ORDER BY parked_id",
            &[&order.0],
        )
        .await?;
    let mut records = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = records.first_mut() {
        first.reason.get_or_insert_with(|| NEXT.to_owned());
    }
    Ok(records)
}

/// Lets the first record of an order go, and returns it, to be sent to its topic again. `None`: the order is not parked.
///
/// # Errors
/// As [`show`].
pub async fn let_go(client: &Client, order: OrderId, by: &str) -> Result<Option<ParkedRecord>, StoreError> {
    loop {
        let first = client
            .query_opt(
                "UPDATE parked SET released_at = coalesce(released_at, now()), released_by = $2
                 WHERE parked_id = (SELECT min(parked_id) FROM parked WHERE order_id = $1)
                 RETURNING parked_id, order_id, topic, partition_no, record_offset, event_id, traceparent, payload,
                           reason, at, released_at IS NOT NULL",
                &[&order.0, &by],
            )
            .await?;
        if let Some(first) = first {
            return record(&first).map(Some);
        }
        // The first one may have left under our eyes; then the next one is the first.
        let left = client.query_opt("SELECT FROM parked WHERE order_id = $1 LIMIT 1", &[&order.0]).await?;
        if left.is_none() {
            return Ok(None);
        }
    }
}

/// What came of a record that was let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was sent, but nobody decided about it yet.
    Waits,
    /// It was decided about, and left the queue.
    Decided,
    /// It left the queue, and nothing was decided about this order: it cannot be read and is a dead letter, or its key
    /// named this order and it is about another one.
    LeftWithout,
    /// It failed again, for this reason, and is the first of its order still.
    FailedAgain(String),
}

/// What came of a record that was let go.
///
/// # Errors
/// Whatever Postgres says.
pub async fn fate(client: &Client, record: &ParkedRecord) -> Result<Fate, StoreError> {
    let query = "SELECT released_at IS NOT NULL, coalesce(reason, '') FROM parked WHERE parked_id = $1";
    if let Some(row) = client.query_opt(query, &[&record.parked_id]).await? {
        return Ok(if row.get(0) { Fate::Waits } else { Fate::FailedAgain(row.get(1)) });
    }
    let query = "SELECT FROM causes c JOIN orders o USING (order_no) WHERE o.order_id = $1 AND c.cause_id = $2";
    let decided = client.query_opt(query, &[&record.order_id.0, &record.event_id.0]).await?;
    Ok(if decided.is_some() { Fate::Decided } else { Fate::LeftWithout })
}

fn record(row: &Row) -> Result<ParkedRecord, StoreError> {
    let (order_id, topic, event_id): (Uuid, &str, Uuid) = (row.get(1), row.get(2), row.get(5));
    let At(at) = row.get(9);
    Ok(ParkedRecord {
        parked_id: row.get(0),
        order_id: OrderId(order_id),
        topic: Topic::of(topic).ok_or_else(|| {
            StoreError::Stop(format!("order {order_id} is parked on topic {topic}, which is not ours"))
        })?,
        partition: row.get(3),
        offset: row.get(4),
        event_id: EventId(event_id),
        traceparent: row.get(6),
        payload: row.get(7),
        reason: row.get(8),
        at,
        released: row.get(10),
    })
}
