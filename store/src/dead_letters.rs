//! Records that could not be read, as the read model keeps them. `client`: a session on the read model's schema.

use kept_schemas::Micros;
use tokio_postgres::{Client, Row};

use crate::pg::{At, StoreError};

/// A dead letter; which record it was, who gave up on it and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub step: String,
    pub reason: String,
    pub at: Micros,
    /// Bytes of the value that are kept.
    pub bytes: i64,
    /// Filled by [`of_record`] only.
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

/// The newest dead letters, of one topic or of all.
///
/// # Errors
/// Whatever Postgres says.
pub async fn list(client: &Client, topic: Option<&str>, limit: i64) -> Result<Vec<DeadLetterRow>, StoreError> {
    let rows = client
        .query(
            "SELECT topic, partition_no, record_offset, step, reason, at, coalesce(length(payload), 0)::bigint,
                    NULL::bytea, NULL::bytea
             FROM dead_letters WHERE $1::text IS NULL OR topic = $1
             ORDER BY at DESC, topic, partition_no, record_offset LIMIT $2",
            &[&topic, &limit],
        )
        .await?;
    Ok(rows.iter().map(row).collect())
}

/// The dead letters of one record, whole: one for each step that gave up on it.
///
/// # Errors
/// Whatever Postgres says.
pub async fn of_record(
    client: &Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Vec<DeadLetterRow>, StoreError> {
    let rows = client
        .query(
            "SELECT topic, partition_no, record_offset, step, reason, at, coalesce(length(payload), 0)::bigint,
                    key, payload
             FROM dead_letters WHERE topic = $1 AND partition_no = $2 AND record_offset = $3 ORDER BY at, step",
            &[&topic, &partition, &offset],
        )
        .await?;
    Ok(rows.iter().map(row).collect())
}

fn row(row: &Row) -> DeadLetterRow {
    let At(at) = row.get(5);
    DeadLetterRow {
        topic: row.get(0),
        partition: row.get(1),
        offset: row.get(2),
        step: row.get(3),
        reason: row.get(4),
        at,
        bytes: row.get(6),
        key: row.get(7),
        payload: row.get(8),
    }
}
