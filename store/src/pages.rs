//! What the pages for people read: the read model, never the ledger.

use std::time::SystemTime;

use tokio_postgres::{Client, Error};

/// A count with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub name: String,
    pub count: i64,
}

/// The first page: where everything stands.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    pub orders: Vec<Count>,
    /// Open holds by reason.
    pub holds: Vec<Count>,
    /// Open holds past their deadline.
    pub overdue: i64,
    pub dead_letters: i64,
    /// The orders that waited longest.
    pub waiting: Vec<WaitingOrder>,
}

/// An order with an open hold.
#[derive(Debug, Clone)]
pub struct WaitingOrder {
    pub order_id: String,
    pub number: String,
    pub channel: String,
    pub reason: String,
    pub detail: String,
    pub due_at: SystemTime,
}

/// Everything the read model says of one order.
#[derive(Debug, Clone)]
pub struct OrderPage {
    pub order_id: String,
    pub number: String,
    pub channel: String,
    pub status: String,
    pub currency: String,
    pub total_minor: i64,
    pub lines: Vec<Vec<String>>,
    pub holds: Vec<Vec<String>>,
    pub shipments: Vec<Vec<String>>,
    pub timeline: Vec<Vec<String>>,
}

/// Reads the first page from schema `schema`.
pub async fn overview(client: &Client, schema: &str) -> Result<Overview, Error> {
    let counts = async |sql: String| -> Result<Vec<Count>, Error> {
        let rows = client.query(&sql, &[]).await?;
        Ok(rows.iter().map(|row| Count { name: row.get(0), count: row.get(1) }).collect())
    };
    let number = async |sql: String| -> Result<i64, Error> { Ok(client.query_one(&sql, &[]).await?.get(0)) };
    let waiting = client
        .query(
            &format!(
                "SELECT o.order_id::text, o.channel_order_id, o.channel, h.reason, h.detail, h.due_at
                 FROM {schema}.holds h JOIN {schema}.orders o USING (order_id)
                 WHERE h.resolved_at IS NULL AND h.opened_at IS NOT NULL ORDER BY h.due_at, o.order_no LIMIT 50"
            ),
            &[],
        )
        .await?;
    Ok(Overview {
        orders: counts(format!("SELECT status, count(*) FROM {schema}.orders GROUP BY 1 ORDER BY 2 DESC, 1")).await?,
        holds: counts(format!(
            "SELECT reason, count(*) FROM {schema}.holds WHERE resolved_at IS NULL AND opened_at IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        ))
        .await?,
        overdue: number(format!(
            "SELECT count(*) FROM {schema}.holds WHERE resolved_at IS NULL AND due_at < now()"
        ))
        .await?,
        dead_letters: number(format!("SELECT count(*) FROM {schema}.dead_letters")).await?,
        waiting: waiting
            .iter()
            .map(|row| WaitingOrder {
                order_id: row.get(0),
                number: row.get(1),
                channel: row.get(2),
                reason: row.get(3),
                detail: row.get(4),
                due_at: row.get(5),
            })
            .collect(),
    })
}

/// Reads one order by its id or by its number; `None` when neither is known. Of several orders with one number
/// (of different shops) the newest.
pub async fn order(client: &Client, schema: &str, asked: &str) -> Result<Option<OrderPage>, Error> {
    let Some(row) = client
        .query_opt(
            &format!(
                "SELECT order_id::text, channel_order_id, channel, status, currency, total_minor FROM {schema}.orders
                 WHERE order_id::text = $1 OR channel_order_id = $1 ORDER BY placed_at DESC LIMIT 1"
            ),
            &[&asked],
        )
        .await?
    else {
        return Ok(None);
    };
    let order_id: String = row.get(0);
    let table = async |sql: String| -> Result<Vec<Vec<String>>, Error> {
        let rows = client.query(&sql, &[&order_id]).await?;
        Ok(rows
            .iter()
            .map(|row| (0..row.len()).map(|at| row.get::<_, Option<String>>(at).unwrap_or_default()).collect())
            .collect())
    };
    Ok(Some(OrderPage {
        number: row.get(1),
        channel: row.get(2),
        status: row.get(3),
        currency: row.get(4),
        total_minor: row.get(5),
        lines: table(format!(
            "SELECT line_no::text, sku, quantity::text, unit_price::text, reserved::text, short::text, shipped::text, cancelled::text
             FROM {schema}.order_lines WHERE order_id::text = $1 ORDER BY line_no"
        ))
        .await?,
        holds: table(format!(
            "SELECT reason, detail, opened_at::text, due_at::text, resolved_at::text, resolution
             FROM {schema}.holds WHERE order_id::text = $1 ORDER BY opened_at"
        ))
        .await?,
        shipments: table(format!(
            "SELECT DISTINCT s.shipment_id::text, s.location_id, s.carrier, s.status, s.despatched_at::text, s.delivered_at::text
             FROM {schema}.shipments s JOIN {schema}.shipment_lines l USING (shipment_id) WHERE l.order_id::text = $1"
        ))
        .await?,
        timeline: table(format!(
            "SELECT seq::text, at::text, event, detail FROM {schema}.timeline WHERE order_id::text = $1 ORDER BY seq"
        ))
        .await?,
        order_id,
    }))
}
