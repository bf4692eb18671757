//! Where the timer source reads what is due, by Postgres's clock.

use kept_schemas::{OrderId, inputs::TimerPurpose};
use tokio_postgres::{Client, Statement};

use crate::{
    pg::{At, Prefix, Purpose, Schema, connect},
    seam::{DueTimer, LedgerError, Timers},
};

/// A parked order answers nobody: its timers would only pile up behind what it is parked for.
const DUE: &str = "SELECT o.order_id, t.timer_id, t.purpose, t.revision, t.due_at
                   FROM timers t JOIN orders o USING (order_no)
                   WHERE t.due_at <= now()
                     AND NOT EXISTS (SELECT FROM parked p WHERE p.order_id = o.order_id)
                   ORDER BY t.due_at LIMIT $1";

/// The timers of a deployment over one connection.
pub struct PgTimers {
    url: String,
    schema: Schema,
    client: Client,
    due: Statement,
}

impl PgTimers {
    /// Connects to the ledger's schema.
    ///
    /// # Errors
    /// `Lost` while the server is away; `Stop` when it refuses us or the tables are not there.
    pub async fn connect(url: &str, prefix: &Prefix) -> Result<Self, LedgerError> {
        let schema = prefix.ledger();
        let client = connect(url, &schema, Purpose::Ledger).await?;
        let due = client.prepare(DUE).await?;
        Ok(Self { url: url.to_owned(), schema, client, due })
    }
}

impl Timers for PgTimers {
    async fn due(&mut self, limit: usize) -> Result<Vec<DueTimer>, LedgerError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.client.query(&self.due, &[&limit]).await?;
        Ok(rows
            .iter()
            .map(|row| {
                let At(due_at) = row.get(4);
                DueTimer {
                    order_id: OrderId(row.get(0)),
                    timer_id: row.get(1),
                    purpose: TimerPurpose::of(row.get(2)),
                    revision: row.get(3),
                    due_at,
                }
            })
            .collect())
    }

    async fn reconnect(&mut self) -> Result<(), LedgerError> {
        self.client = connect(&self.url, &self.schema, Purpose::Ledger).await?;
        self.due = self.client.prepare(DUE).await?;
        Ok(())
    }
}
