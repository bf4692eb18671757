//! Parked orders: a record that could not be decided, and what queues behind it, until a person lets them go.
//!
//! Letting go is in two steps, so that a crash between them loses nothing: [`release`] marks the records and hands
//! them over to be sent to their topics again, [`sent`] removes them. A record sent twice is recognised by its event
//! id. What [`release`] marked and [`sent`] did not remove shows in [`show`] and can be released again.

use kept_schemas::{EventId, Micros, OrderId, Topic};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::pg::{At, StoreError};

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
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    /// `None`: it waits behind another one.
    pub reason: Option<String>,
    pub at: Micros,
    /// Let go, but not known to be sent again.
    pub released: bool,
}

/// Parked orders, the longest waiting first. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn list(client: &Client, limit: i64) -> Result<Vec<ParkedOrder>, StoreError> {
    let rows = client
        .query(
            "SELECT DISTINCT ON (order_id) order_id, coalesce(reason, ''), topic, partition_no, record_offset,
                    count(*) OVER (PARTITION BY order_id), at
             FROM parked ORDER BY order_id, (reason IS NULL), parked_id",
            &[],
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
            "SELECT parked_id, order_id, topic, partition_no, record_offset, event_id, traceparent, key, payload,
                    reason, at, released_at IS NOT NULL
             FROM parked WHERE order_id = $1 ORDER BY parked_id",
            &[&order.0],
        )
        .await?;
    rows.iter().map(record).collect()
}

/// Lets an order go: from now on its records are decided again. Returns the records to send to their topics again, in
/// order, those of an earlier release that were not sent among them.
///
/// # Errors
/// As [`show`].
pub async fn release(client: &Client, order: OrderId, by: &str) -> Result<Vec<ParkedRecord>, StoreError> {
    client
        .execute(
            "UPDATE parked SET released_at = now(), released_by = $2 WHERE order_id = $1 AND released_at IS NULL",
            &[&order.0, &by],
        )
        .await?;
    let mut records = show(client, order).await?;
    // What was parked since the update stays parked.
    records.retain(|record| record.released);
    Ok(records)
}

/// Removes released records that are in their topics again.
///
/// # Errors
/// Whatever Postgres says.
pub async fn sent(client: &Client, parked_ids: &[i64]) -> Result<(), StoreError> {
    client.execute("DELETE FROM parked WHERE parked_id = ANY($1) AND released_at IS NOT NULL", &[&parked_ids]).await?;
    Ok(())
}

fn record(row: &Row) -> Result<ParkedRecord, StoreError> {
    let (order_id, topic, event_id): (Uuid, &str, Uuid) = (row.get(1), row.get(2), row.get(5));
    let At(at) = row.get(10);
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
        key: row.get(7),
        payload: row.get(8),
        reason: row.get(9),
        at,
        released: row.get(11),
    })
}
