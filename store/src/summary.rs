//! What an operations lead asks first at the end of a day: how many orders went through untouched, how many wait and
//! for what, what is late. Read from the read model.

use std::time::SystemTime;

use kept_schemas::OrderId;
use tokio_postgres::Client;

use crate::{pages::Count, pg::StoreError};

/// The day in figures.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Orders on the books.
    pub orders: i64,
    /// Trial orders among them.
    pub test_orders: i64,
    /// Orders on which no hold was ever opened.
    pub untouched: i64,
    /// Orders that were held once and went on.
    pub went_on: i64,
    /// Orders with an open hold.
    pub waiting: i64,
    /// Orders by headline status.
    pub by_status: Vec<Count>,
    /// Orders by channel.
    pub by_channel: Vec<Count>,
    /// Open holds by reason.
    pub open_holds: Vec<Waiting>,
    /// Closed holds by reason and resolution (`unknown_sku: corrected`).
    pub resolved_holds: Vec<Count>,
    /// Money and units by currency.
    pub money: Vec<Money>,
    /// Orders that should have left by now and did not.
    pub ship_by_missed: i64,
    pub dead_letters: i64,
    /// Events in the timeline.
    pub events: i64,
}

/// A reason and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub orders: i64,
    /// Holds past their deadline.
    pub overdue: i64,
}

/// One currency's totals over all orders, in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    pub currency: String,
    pub orders: i64,
    /// Units over all lines.
    pub units: i64,
    pub total_minor: i64,
    pub charges_minor: i64,
    /// Posted as sales so far.
    pub sold_minor: i64,
}

/// Reads the figures. `client`: a session on the read model.
///
/// # Errors
/// Whatever Postgres says.
pub async fn read(client: &Client) -> Result<Summary, StoreError> {
    let row = client
        .query_one(
            "WITH h AS (SELECT order_id, bool_or(resolved_at IS NULL) AS open FROM holds
                        WHERE opened_at IS NOT NULL GROUP BY order_id)
             SELECT count(*), count(*) FILTER (WHERE o.test), count(*) FILTER (WHERE h.open IS NULL),
                    count(*) FILTER (WHERE NOT h.open), count(*) FILTER (WHERE h.open),
                    count(*) FILTER (WHERE o.ship_by < now() AND o.shipped + o.cancelled < o.quantity)
             FROM orders o LEFT JOIN h USING (order_id)",
            &[],
        )
        .await?;
    let counts = async |sql: &str| -> Result<Vec<Count>, StoreError> {
        let rows = client.query(sql, &[]).await?;
        Ok(rows.iter().map(|row| Count { name: row.get(0), count: row.get(1) }).collect())
    };
    let number = async |sql: &str| -> Result<i64, StoreError> { Ok(client.query_one(sql, &[]).await?.get(0)) };
    let open_holds = client
        .query(
            "SELECT reason, count(DISTINCT order_id), count(*) FILTER (WHERE due_at < now()) FROM holds
             WHERE opened_at IS NOT NULL AND resolved_at IS NULL GROUP BY 1 ORDER BY 2 DESC, 1",
            &[],
        )
        .await?;
    let money = client
        .query(
            "SELECT currency, count(*), sum(quantity)::bigint, sum(total_minor)::bigint, sum(charges_minor)::bigint,
                    coalesce((SELECT sum(amount_minor)::bigint FROM postings p
                              WHERE p.kind = 'sale' AND p.account = 'receivable' AND p.currency = o.currency), 0)
             FROM orders o GROUP BY currency ORDER BY 2 DESC",
            &[],
        )
        .await?;
    Ok(Summary {
        orders: row.get(0),
        test_orders: row.get(1),
        untouched: row.get(2),
        went_on: row.get(3),
        waiting: row.get(4),
        ship_by_missed: row.get(5),
        by_status: counts("SELECT status, count(*) FROM orders GROUP BY 1 ORDER BY 2 DESC, 1").await?,
        by_channel: counts("SELECT channel, count(*) FROM orders GROUP BY 1 ORDER BY 2 DESC, 1").await?,
        open_holds: open_holds
            .iter()
            .map(|row| Waiting { reason: row.get(0), orders: row.get(1), overdue: row.get(2) })
            .collect(),
        resolved_holds: counts(
            "SELECT reason || ': ' || resolution, count(*) FROM holds
             WHERE opened_at IS NOT NULL AND resolved_at IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1",
        )
        .await?,
        money: money
            .iter()
            .map(|row| Money {
                currency: row.get(0),
                orders: row.get(1),
                units: row.get(2),
                total_minor: row.get(3),
                charges_minor: row.get(4),
                sold_minor: row.get(5),
            })
            .collect(),
        dead_letters: number("SELECT count(*) FROM dead_letters").await?,
        events: number("SELECT count(*) FROM timeline").await?,
    })
}

/// What is still on its way, for whoever waits for the day to end: orders that are neither final nor held.
///
/// # Errors
/// Whatever Postgres says.
pub async fn in_flight(client: &Client) -> Result<InFlight, StoreError> {
    let row = client
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE status IN ('delivered', 'cancelled')),
                    count(*) FILTER (WHERE status = 'held'), coalesce(max(updated_at), 'epoch')
             FROM orders",
            &[],
        )
        .await?;
    Ok(InFlight { orders: row.get(0), ended: row.get(1), held: row.get(2), last_event_at: row.get(3) })
}

/// See [`in_flight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    pub orders: i64,
    /// Delivered or cancelled.
    pub ended: i64,
    pub held: i64,
    pub last_event_at: SystemTime,
}

impl InFlight {
    /// Orders that are on their way.
    pub fn moving(&self) -> i64 {
        self.orders - self.ended - self.held
    }
}

/// When each order's first `fulfilment.requested` was to be seen in the read model.
///
/// # Errors
/// Whatever Postgres says.
pub async fn requested_at(client: &Client) -> Result<Vec<(OrderId, SystemTime)>, StoreError> {
    let rows = client
        .query("SELECT order_id, min(written_at) FROM timeline WHERE event = 'fulfilment.requested' GROUP BY 1", &[])
        .await?;
    Ok(rows.iter().map(|row| (OrderId(row.get(0)), row.get(1))).collect())
}

/// An order that is worth being explained: held, with the most reasons open at once; `None` when nothing is held.
///
/// # Errors
/// Whatever Postgres says.
pub async fn held_example(client: &Client) -> Result<Option<OrderId>, StoreError> {
    let row = client
        .query_opt("SELECT order_id FROM orders WHERE status = 'held' ORDER BY open_holds DESC, order_no LIMIT 1", &[])
        .await?;
    Ok(row.map(|row| OrderId(row.get(0))))
}

/// How many orders' fulfilment was asked for, as the read model has it; cheap enough to ask again and again.
///
/// # Errors
/// Whatever Postgres says.
pub async fn requested(client: &Client) -> Result<i64, StoreError> {
    Ok(client.query_one("SELECT count(*) FROM order_rows WHERE fulfilments > 0", &[]).await?.get(0))
}

/// How many stock rows the read model shows.
///
/// # Errors
/// Whatever Postgres says.
pub async fn stock_rows(client: &Client) -> Result<i64, StoreError> {
    Ok(client.query_one("SELECT count(*) FROM stock", &[]).await?.get(0))
}

/// When each order was accepted at the HTTP door. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn accepted_at_the_door(client: &Client) -> Result<Vec<(OrderId, SystemTime)>, StoreError> {
    let rows = client.query("SELECT order_id, at FROM http_accepted", &[]).await?;
    Ok(rows.iter().map(|row| (OrderId(row.get(0)), row.get(1))).collect())
}

/// When the ledger first accepted each order, whichever way it came. `client`: a session on the read model.
///
/// # Errors
/// Whatever Postgres says.
pub async fn accepted_on_the_books(client: &Client) -> Result<Vec<(OrderId, SystemTime)>, StoreError> {
    let rows = client.query("SELECT order_id, accepted_at FROM orders WHERE accepted_at IS NOT NULL", &[]).await?;
    Ok(rows.iter().map(|row| (OrderId(row.get(0)), row.get(1))).collect())
}

/// The ledger has seen an order; false where it has no tables yet. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn any_order(client: &Client) -> Result<bool, StoreError> {
    let there: bool = client.query_one("SELECT to_regclass('orders') IS NOT NULL", &[]).await?.get(0);
    Ok(there && client.query_one("SELECT EXISTS (SELECT FROM orders)", &[]).await?.get(0))
}
