//! Reading the journal back: one order's life, and all of it in the order of decisions. And forgetting a person.

use kept_processors::ledger::OrderState;
use kept_schemas::{Micros, OrderId};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    ledger::{journal_columns, journal_row},
    pg::{At, Prefix, StoreError},
    seam::{JournalRow, LedgerError},
};

/// The events of an order by their number, each with when it was decided. `client`: a session on the ledger's schema;
/// `step`: whose journal, as it was named on writing.
///
/// # Errors
/// Whatever Postgres says; a row of a topic this version does not know.
pub async fn of_order(client: &Client, step: &str, order: OrderId) -> Result<Vec<(JournalRow, Micros)>, LedgerError> {
    let rows = client
        .query(
            concat!(
                "SELECT ",
                journal_columns!(),
                ", j.at FROM orders o JOIN journal j ON j.order_no = o.order_no
                 JOIN progress p ON p.place = j.place WHERE o.order_id = $1 ORDER BY j.seq"
            ),
            &[&order.0],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let At(at) = row.get(16);
            Ok((journal_row(row, step)?, at))
        })
        .collect()
}

/// The next rows after `journal_id`, in the order of decisions, at most `limit`.
///
/// A row may become visible after one with a higher number: two workers commit in any order.
///
/// # Errors
/// As [`of_order`].
pub async fn after(client: &Client, step: &str, journal_id: i64, limit: i64) -> Result<Vec<JournalRow>, LedgerError> {
    let rows = client
        .query(
            concat!(
                "SELECT ",
                journal_columns!(),
                " FROM journal j JOIN progress p ON p.place = j.place
                 LEFT JOIN orders o ON o.order_no = j.order_no
                 WHERE j.journal_id > $1 ORDER BY j.journal_id LIMIT $2"
            ),
            &[&journal_id, &limit],
        )
        .await?;
    rows.iter().map(|row| journal_row(row, step)).collect()
}

/// What the ledger remembers of an order; `None` for an id that was never seen or to which nothing happened.
///
/// # Errors
/// Whatever Postgres says; a state that cannot be read.
pub async fn state(client: &Client, order: OrderId) -> Result<Option<OrderState>, LedgerError> {
    let row = client
        .query_opt("SELECT s.state FROM orders o JOIN states s USING (order_no) WHERE o.order_id = $1", &[&order.0])
        .await?;
    row.map(|row| {
        serde_json::from_str(row.get(0))
            .map_err(|error| LedgerError::Stop(format!("the state of order {order} cannot be read: {error}")))
    })
    .transpose()
}

/// Which numbers of an order count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// The channel's. For whoever changes something: our running number may be a channel's number that has not come yet.
    Channels,
    /// Our running one too.
    All,
}

/// The orders a person may mean: by our id or a number. `client`: a session on the read model.
///
/// # Errors
/// Whatever Postgres says.
pub async fn find(client: &Client, asked: &str, numbers: Numbers) -> Result<Vec<OrderId>, StoreError> {
    let id = Uuid::try_parse(asked).ok();
    let number = if numbers == Numbers::All { asked.parse::<i64>().ok() } else { None };
    let rows = client
        .query(
            "SELECT order_id FROM order_rows WHERE order_id = $1
             UNION SELECT order_id FROM order_rows WHERE channel_order_id = $2
             UNION SELECT order_id FROM order_rows WHERE order_no = $3
             LIMIT 50",
            &[&id, &asked, &number],
        )
        .await?;
    Ok(rows.iter().map(|row| OrderId(row.get(0))).collect())
}

/// Forgets the person of an order in the ledger, for good: in its content, in every event, and in what is decided
/// later. Returns how many rows changed; `None`: the ledger has no such order. What is in topics ends with their
/// retention; a parked record is kept, for it is not decided yet.
///
/// # Errors
/// Whatever Postgres says; all or nothing.
pub async fn erase(client: &mut Client, order: OrderId) -> Result<Option<u64>, StoreError> {
    let txn = client.transaction().await?;
    // The mark takes the order's lock: what a batch at work writes is seen below, and the next batch sees the mark.
    let mark = "UPDATE orders SET erased_at = coalesce(erased_at, now()) WHERE order_id = $1";
    if txn.execute(mark, &[&order.0]).await? == 0 {
        return Ok(None);
    }
    let contents = txn
        .execute(
            "UPDATE contents c SET party = NULL FROM orders o
             WHERE o.order_id = $1 AND c.order_no = o.order_no AND c.party IS NOT NULL",
            &[&order.0],
        )
        .await?;
    let events = txn
        .execute(
            "UPDATE journal j SET party = NULL FROM orders o
             WHERE o.order_id = $1 AND j.order_no = o.order_no AND j.party <> ''::bytea",
            &[&order.0],
        )
        .await?;
    txn.commit().await?;
    Ok(Some(contents + events))
}

/// Orders whose person was forgotten. `client`: a session on the ledger's schema.
pub(crate) async fn erased(client: &Client) -> Result<Vec<Uuid>, StoreError> {
    let rows = client.query("SELECT order_id FROM orders WHERE erased_at IS NOT NULL", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Forgets the person of an order in the read model, for good: also where its events have not come yet. Comes after
/// [`erase`]. `client`: a session on the read model.
///
/// # Errors
/// Whatever Postgres says; a rebuild under way, which may have read the person already.
pub async fn erase_read(client: &mut Client, prefix: &Prefix, order: OrderId) -> Result<u64, StoreError> {
    let txn = client.transaction().await?;
    let new = prefix.read_new().to_string();
    let alone: bool = txn.query_one("SELECT pg_try_advisory_xact_lock_shared(hashtext($1))", &[&new]).await?.get(0);
    if !alone {
        let why = "the read model is being rebuilt; erase the order again when that is done";
        return Err(StoreError::Stop(why.into()));
    }
    let rows = txn.execute(ERASE_READ, &[&[order.0].as_slice()]).await?;
    txn.commit().await?;
    Ok(rows)
}

/// Empties the person of orders in the read model and marks their rows, which may be there before the order.
pub(crate) const ERASE_READ: &str = "
    INSERT INTO order_rows (order_id, updated_at, erased)
    SELECT id, to_timestamp(0), true FROM unnest($1::uuid[]) u(id) ORDER BY id
    ON CONFLICT (order_id) DO UPDATE SET
        erased = true, ship_name = NULL, ship_company = NULL, ship_street = NULL, ship_postcode = NULL,
        ship_city = NULL, email = NULL, phone = NULL";
