//! Answers given to HTTP requests with an `Idempotency-Key`: the same key and body get the same answer, another body
//! under the same key is refused.

use tokio_postgres::Client;

use crate::pg::StoreError;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It is new and ours now: do the work, then [`finish`].
    New,
    /// The first request is still being worked on, or died; do the work again, which is harmless, then [`finish`].
    Unfinished,
    /// Answered: the HTTP status and the body.
    Answered(u16, String),
    /// Another body came under this key.
    Other,
}

/// Looks a key of an account up and remembers it. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn begin(client: &Client, account: &str, key: &str, body_hash: &str) -> Result<Known, StoreError> {
    let new = client
        .execute(
            "INSERT INTO http_answers (account, idempotency_key, body_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[&account, &key, &body_hash],
        )
        .await?;
    if new == 1 {
        return Ok(Known::New);
    }
    let row = client
        .query_opt(
            "SELECT body_hash, status, answer FROM http_answers WHERE account = $1 AND idempotency_key = $2",
            &[&account, &key],
        )
        .await?;
    // Gone in between: too old to be kept. It is as good as new.
    let Some(row) = row else {
        return Ok(Known::Unfinished);
    };
    let (known, status, answer): (&str, Option<i32>, Option<String>) = (row.get(0), row.get(1), row.get(2));
    Ok(match status.and_then(|status| u16::try_from(status).ok()) {
        _ if known != body_hash => Known::Other,
        Some(status) => Known::Answered(status, answer.unwrap_or_default()),
        None => Known::Unfinished,
    })
}

/// Remembers the answer; the first one stays.
///
/// # Errors
/// Whatever Postgres says.
pub async fn finish(
    client: &Client,
    (account, key, body_hash): (&str, &str, &str),
    status: u16,
    answer: &str,
) -> Result<(), StoreError> {
    client
        .execute(
            "INSERT INTO http_answers AS a (account, idempotency_key, body_hash, status, answer)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (account, idempotency_key) DO UPDATE SET status = excluded.status, answer = excluded.answer
             WHERE a.status IS NULL AND a.body_hash = excluded.body_hash",
            &[&account, &key, &body_hash, &i32::from(status), &answer],
        )
        .await?;
    Ok(())
}

/// Forgets keys older than `hours`; returns how many.
///
/// # Errors
/// Whatever Postgres says.
pub async fn forget(client: &Client, hours: i32) -> Result<u64, StoreError> {
    Ok(client.execute("DELETE FROM http_answers WHERE at < now() - make_interval(hours => $1)", &[&hours]).await?)
}
