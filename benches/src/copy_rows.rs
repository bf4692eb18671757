//! `COPY` of prepared rows into a table: the least Postgres can be asked to do for the same rows.

use std::{io::Cursor, pin::pin, time::Instant};

use anyhow::{Context, Result};
use futures_util::{SinkExt, TryStreamExt};
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

/// Tables of schema `from` that hold rows, copied empty into schema `into`, each with its rows as COPY's text. Views,
/// progress and migrations are left out; generated columns are the server's own work on both sides.
///
/// # Errors
/// Whatever Postgres says.
pub async fn take_rows(client: &Client, from: &str, into: &str) -> Result<Vec<TableRows>> {
    let tables = client
        .query(
            "SELECT t.table_name::text,
                    string_agg(c.column_name::text, ', ' ORDER BY c.ordinal_position)
             FROM information_schema.tables t JOIN information_schema.columns c USING (table_schema, table_name)
             WHERE t.table_schema = $1 AND t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER'
               AND t.table_name NOT IN ('sink_progress', 'migrations')
             GROUP BY 1 ORDER BY 1",
            &[&from],
        )
        .await
        .context("list tables")?;
    client.batch_execute(&format!("CREATE SCHEMA {into}")).await.context("make the schema")?;
    let mut all = Vec::new();
    for table in tables {
        let (name, columns): (String, String) = (table.get(0), table.get(1));
        client
            .batch_execute(&format!("CREATE TABLE {into}.{name} (LIKE {from}.{name} INCLUDING ALL)"))
            .await
            .with_context(|| format!("make {into}.{name}"))?;
        let stream = client
            .copy_out(&format!("COPY (SELECT {columns} FROM {from}.{name}) TO STDOUT"))
            .await
            .with_context(|| format!("read {from}.{name}"))?;
        let text: Vec<u8> = stream
            .try_fold(Vec::new(), |mut text, part| async move {
                text.extend_from_slice(&part);
                Ok(text)
            })
            .await
            .context("read rows")?;
        let rows = String::from_utf8(text).context("rows are text")?.lines().map(str::to_owned).collect();
        all.push(TableRows { name, columns, rows });
    }
    Ok(all)
}

/// One table's rows. See [`take_rows`].
#[derive(Debug, Clone)]
pub struct TableRows {
    pub name: String,
    pub columns: String,
    pub rows: Vec<String>,
}
