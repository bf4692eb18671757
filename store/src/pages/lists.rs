//! Lists of orders, a page at a time, and looking one up.

use kept_schemas::{Micros, OrderId};
use tokio_postgres::Client;

use super::{instant, number, text};
use crate::pg::{At, StoreError};

/// Rows on a page.
pub const PAGE: i64 = 50;

/// Which orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// All, the newest first.
    All,
    /// Those of a headline status, the newest first.
    Status(String),
    /// Those with an open hold of this reason, the first deadline first.
    Reason(String),
    /// Those with any open hold, the first deadline first.
    Held,
    /// Those with an open hold past its deadline.
    Overdue,
    /// Those whose ship-by has passed and that have not left whole, the longest first.
    ShipByMissed,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    pub rows: Vec<Row>,
    /// There are more after these.
    pub more: bool,
}

/// One order in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    pub order_id: OrderId,
    pub number: String,
    pub channel: String,
    pub status: String,
    pub country: String,
    pub currency: String,
    pub total_minor: i64,
    pub placed_at: Option<Micros>,
    pub ship_by: Option<Micros>,
    pub test: bool,
    /// The open hold with the first deadline; empty when there is none.
    pub reason: String,
    pub detail: String,
    pub due_at: Option<Micros>,
    pub open_holds: i64,
}

/// Page `page` (from 0) of the orders that `by` names.
///
/// # Errors
/// Whatever Postgres says.
pub async fn list(client: &Client, by: &By, page: i64) -> Result<Listed, StoreError> {
    const COLUMNS: &str = "o.order_id, o.channel_order_id, o.channel, o.status, o.country, o.currency, o.total_minor,
                           o.placed_at, o.ship_by, o.test, o.open_holds, h.reason, h.detail, h.due_at";
    // Each order once, with the hold of the first deadline.
    const FIRST_HOLD: &str = "LEFT JOIN LATERAL (SELECT reason, detail, due_at FROM holds h
                              WHERE h.order_id = o.order_id AND h.opened_at IS NOT NULL AND h.resolved_at IS NULL
                              ORDER BY due_at, hold_id LIMIT 1) h ON true";
    const HELD: &str = "FROM (SELECT DISTINCT ON (order_id) * FROM holds
                              WHERE opened_at IS NOT NULL AND resolved_at IS NULL AND ($1 = '' OR reason = $1)
                                AND (due_at < now() OR NOT $4::boolean)
                              ORDER BY order_id, due_at, hold_id) h
                        JOIN orders o USING (order_id) ORDER BY h.due_at, o.order_no";
    let limit = PAGE + 1;
    let offset = page.clamp(0, 100_000) * PAGE;
    let rows = match by {
        By::All | By::Status(_) => {
            let status = if let By::Status(status) = by { status.as_str() } else { "" };
            let sql = format!(
                "SELECT {COLUMNS} FROM (SELECT * FROM orders WHERE $1 = '' OR status = $1
                                        ORDER BY order_no DESC LIMIT $2 OFFSET $3) o {FIRST_HOLD}
                 ORDER BY o.order_no DESC"
            );
            client.query(&sql, &[&status, &limit, &offset]).await?
        }
        By::Reason(_) | By::Held | By::Overdue => {
            let reason = if let By::Reason(reason) = by { reason.as_str() } else { "" };
            let sql = format!("SELECT {COLUMNS} {HELD} LIMIT $2 OFFSET $3");
            client.query(&sql, &[&reason, &limit, &offset, &(*by == By::Overdue)]).await?
        }
        By::ShipByMissed => {
            let sql = format!(
                "SELECT {COLUMNS} FROM (SELECT * FROM orders WHERE ship_by < now() AND shipped + cancelled < quantity
                                        ORDER BY ship_by, order_no LIMIT $1 OFFSET $2) o {FIRST_HOLD}
                 ORDER BY o.ship_by, o.order_no"
            );
            client.query(&sql, &[&limit, &offset]).await?
        }
    };
    let more = rows.len() > PAGE as usize;
    Ok(Listed { rows: rows.iter().take(PAGE as usize).map(listed).collect(), more })
}

fn listed(row: &tokio_postgres::Row) -> Row {
    Row {
        order_id: OrderId(row.get("order_id")),
        number: text(row, "channel_order_id"),
        channel: text(row, "channel"),
        status: text(row, "status"),
        country: text(row, "country"),
        currency: text(row, "currency"),
        total_minor: number(row, "total_minor"),
        placed_at: instant(row, "placed_at"),
        ship_by: instant(row, "ship_by"),
        test: row.get::<_, Option<bool>>("test").unwrap_or_default(),
        reason: text(row, "reason"),
        detail: text(row, "detail"),
        due_at: instant(row, "due_at"),
        open_holds: number(row, "open_holds"),
    }
}

/// An order that someone asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub order_id: OrderId,
    pub number: String,
    pub shop: String,
    pub status: String,
    pub placed_at: Micros,
}

/// The orders of this number (in whatever shop) or this id, the newest first, at most 50.
///
/// # Errors
/// Whatever Postgres says.
pub async fn find(client: &Client, asked: &str) -> Result<Vec<Found>, StoreError> {
    let id = OrderId::parse(asked).map(|id| id.0);
    let rows = client
        .query(
            "SELECT order_id, channel_order_id, coalesce(shop, ''), status, coalesce(placed_at, updated_at) FROM orders
             WHERE order_id = $1 OR channel_order_id = $2 ORDER BY placed_at DESC LIMIT 50",
            &[&id, &asked],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let At(placed_at) = row.get(4);
            Found { order_id: OrderId(row.get(0)), number: row.get(1), shop: row.get(2), status: row.get(3), placed_at }
        })
        .collect())
}
