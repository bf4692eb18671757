//! Numbers for the metrics page, read now and then. Each is an index read or a count of a table that stays small.

use tokio_postgres::Client;

use crate::pg::StoreError;

/// What waits in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerGauges {
    pub parked_orders: i64,
    pub parked_records: i64,
    /// Timers whose time has come and that are not cleared.
    pub timers_due: i64,
    /// How long the oldest of them has been due, in seconds.
    pub timers_late_seconds: i64,
    /// (order, SKU) pairs that wait for stock.
    pub waits: i64,
    /// Calls to partners of which nobody knows whether they happened.
    pub calls_unknown: i64,
}

/// What people should look at in the read model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadGauges {
    /// Open holds by reason.
    pub open_holds: Vec<(String, i64)>,
    /// Those past their deadline.
    pub overdue_holds: i64,
    /// Orders that someone or something must see to: those with an open hold.
    pub held_orders: i64,
    pub dead_letters: i64,
}

/// `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn ledger(client: &Client) -> Result<LedgerGauges, StoreError> {
    let row = client
        .query_one(
            "SELECT (SELECT count(DISTINCT order_id) FROM parked),
                    (SELECT count(*) FROM parked),
                    t.due, t.late,
                    (SELECT count(*) FROM waits),
                    (SELECT count(*) FROM calls WHERE state = 'unknown')
             FROM (SELECT count(*) AS due,
                          coalesce(extract(epoch FROM now() - min(due_at)), 0)::bigint AS late
                   FROM timers WHERE due_at <= now()) t",
            &[],
        )
        .await?;
    Ok(LedgerGauges {
        parked_orders: row.get(0),
        parked_records: row.get(1),
        timers_due: row.get(2),
        timers_late_seconds: row.get(3),
        waits: row.get(4),
        calls_unknown: row.get(5),
    })
}

/// `client`: a session on the read model's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn read(client: &Client) -> Result<ReadGauges, StoreError> {
    let holds = client
        .query(
            "SELECT reason, count(*), count(*) FILTER (WHERE due_at < now()) FROM holds
             WHERE resolved_at IS NULL AND opened_at IS NOT NULL GROUP BY reason ORDER BY reason",
            &[],
        )
        .await?;
    let letters = client
        .query_one(
            "SELECT (SELECT count(*) FROM dead_letters),
                    (SELECT count(DISTINCT order_id) FROM holds WHERE resolved_at IS NULL AND opened_at IS NOT NULL)",
            &[],
        )
        .await?;
    Ok(ReadGauges {
        open_holds: holds.iter().map(|row| (row.get(0), row.get(1))).collect(),
        overdue_holds: holds.iter().map(|row| row.get::<_, i64>(2)).sum(),
        held_orders: letters.get(1),
        dead_letters: letters.get(0),
    })
}
