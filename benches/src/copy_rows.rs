//! `COPY` of prepared rows into a table: the least Postgres can be asked to do for the same rows.

use std::{io::Cursor, pin::pin, time::Instant};

use anyhow::{Context, Result};
use futures_util::SinkExt;
use tokio_postgres::Client;

/// Copies `rows` (each already in COPY's text form, without a newline) into `table` in batches of `batch`, one
/// transaction each; returns seconds.
pub async fn copy(client: &mut Client, table: &str, columns: &str, rows: &[String], batch: usize) -> Result<f64> {
    let begun = Instant::now();
    for part in rows.chunks(batch.max(1)) {
        let transaction = client.transaction().await.context("begin")?;
        let mut text = Vec::with_capacity(part.iter().map(|row| row.len() + 1).sum());
        for row in part {
            text.extend_from_slice(row.as_bytes());
            text.push(b'\n');
        }
        let mut sink = pin!(
            transaction
                .copy_in::<_, Cursor<Vec<u8>>>(&format!("COPY {table} ({columns}) FROM STDIN"))
                .await
                .context("copy")?
        );
        sink.send(Cursor::new(text)).await.context("copy data")?;
        sink.as_mut().finish().await.context("end of copy")?;
        transaction.commit().await.context("commit")?;
    }
    Ok(begun.elapsed().as_secs_f64())
}
