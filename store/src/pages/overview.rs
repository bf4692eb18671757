//! Where everything stands, in figures.

use kept_schemas::Micros;
use tokio_postgres::Client;

use super::{Count, instant};
use crate::pg::StoreError;

/// The first page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Orders on the books.
    pub orders: i64,
    /// Of these, trial orders.
    pub tests: i64,
    /// Orders on which no hold was ever opened.
    pub untouched: i64,
    /// Orders that were held once and went on.
    pub went_on: i64,
    /// Orders with an open hold.
    pub waiting: i64,
    /// Orders whose ship-by has passed and that have not left whole.
    pub ship_by_missed: i64,
    /// Open holds past their deadline.
    pub overdue: i64,
    pub dead_letters: i64,
    /// By headline status.
    pub statuses: Vec<Count>,
    /// By reason of an open hold.
    pub reasons: Vec<Reason>,
    /// When the last event came in.
    pub last_event_at: Option<Micros>,
}

/// A reason and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub reason: String,
    pub orders: i64,
    /// Open holds of this reason past their deadline.
    pub overdue: i64,
    /// The next (or longest past) deadline.
    pub first_due_at: Option<Micros>,
}

/// Reads the figures. Counts whole tables; the caller asks now and then, not for every visitor.
///
/// # Errors
/// Whatever Postgres says.
pub async fn overview(client: &Client) -> Result<Overview, StoreError> {
    let ask = async |sql: &'static str| client.query(sql, &[]).await;
    // Orders are many, holds few: one pass over the orders, and those that were held looked up by key.
    let (statuses, held, reasons, letters) = tokio::try_join!(
        ask("SELECT status, count(*), count(*) FILTER (WHERE test),
                    count(*) FILTER (WHERE ship_by < now() AND shipped + cancelled < quantity), max(updated_at) AS last
             FROM orders GROUP BY 1 ORDER BY 2 DESC, 1"),
        ask("SELECT count(*), count(*) FILTER (WHERE open)
             FROM (SELECT order_id, bool_or(resolved_at IS NULL) AS open FROM holds
                   WHERE opened_at IS NOT NULL GROUP BY order_id) h JOIN orders o USING (order_id)"),
        ask("SELECT reason, count(DISTINCT order_id), count(*) FILTER (WHERE due_at < now()), min(due_at) AS due
             FROM holds WHERE opened_at IS NOT NULL AND resolved_at IS NULL GROUP BY 1 ORDER BY 2 DESC, 1"),
        ask("SELECT count(*) FROM dead_letters"),
    )?;
    let sum = |column: usize| statuses.iter().map(|row| row.get::<_, i64>(column)).sum::<i64>();
    let (orders, ever_held, waiting): (i64, i64, i64) = (sum(1), held[0].get(0), held[0].get(1));
    let reasons: Vec<Reason> = reasons
        .iter()
        .map(|row| Reason {
            reason: row.get(0),
            orders: row.get(1),
            overdue: row.get(2),
            first_due_at: instant(row, "due"),
        })
        .collect();
    Ok(Overview {
        orders,
        tests: sum(2),
        // An order may come in between the two reads.
        untouched: (orders - ever_held).max(0),
        went_on: ever_held - waiting,
        waiting,
        ship_by_missed: sum(3),
        last_event_at: statuses.iter().filter_map(|row| instant(row, "last")).max(),
        overdue: reasons.iter().map(|it| it.overdue).sum(),
        dead_letters: letters[0].get(0),
        statuses: statuses.iter().map(|row| Count { name: row.get(0), count: row.get(1) }).collect(),
        reasons,
    })
}
