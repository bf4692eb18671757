//! What can be seen of the deployment from outside, in Postgres: which orders are shown, where they stand. Past the
//! proxy, so that a fault of ours does not blind us; a Postgres that is away is asked again.

use std::time::Duration;

use anyhow::{Context, Result};
use kept_schemas::OrderId;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, Row, types::ToSql};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(5);

/// Orders by their headline.
pub type Standing = Vec<(String, i64)>;

pub struct Eyes {
    url: String,
    client: Option<Client>,
}

impl Eyes {
    pub fn new(url: String) -> Self {
        Self { url, client: None }
    }

    /// How many of these orders the read model shows.
    pub async fn shown(&mut self, orders: &[OrderId]) -> Result<usize> {
        let ids: Vec<Uuid> = orders.iter().map(|it| it.0).collect();
        let rows = self.ask("SELECT count(*) FROM read.orders WHERE order_id = ANY($1)", &[&ids]).await?;
        count(&rows).map(|it| usize::try_from(it).unwrap_or(0))
    }

    /// How many orders stand where.
    pub async fn standing(&mut self) -> Result<Standing> {
        let rows = self.ask("SELECT status, count(*) FROM read.orders GROUP BY 1 ORDER BY 1", &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Dead letters in the read model.
    pub async fn dead_letters(&mut self) -> Result<i64> {
        count(&self.ask("SELECT count(*) FROM read.dead_letters", &[]).await?)
    }

    /// Where an order stands; `None`: it is not shown.
    pub async fn status(&mut self, order: OrderId) -> Result<Option<String>> {
        let rows = self.ask("SELECT status FROM read.orders WHERE order_id = $1", &[&order.0]).await?;
        rows.first().map(|row| row.try_get(0).context("read a status")).transpose()
    }

    /// Whether an order is parked.
    pub async fn parked(&mut self, order: OrderId) -> Result<bool> {
        let rows = self.ask("SELECT count(*) FROM ledger.parked WHERE order_id = $1", &[&order.0]).await?;
        Ok(count(&rows)? > 0)
    }

    /// Where an order stands, for a person who must find out why: headline, open holds, what is parked, what was tried.
    pub async fn in_words(&mut self, order: OrderId) -> Result<String> {
        let rows = self
            .ask(
                "SELECT concat_ws('; ',
                     'status ' || coalesce((SELECT status FROM read.orders WHERE order_id = $1), 'not shown'),
                     (SELECT 'held for ' || string_agg(reason, ', ') FROM read.holds
                      WHERE order_id = $1 AND resolved_at IS NULL),
                     (SELECT 'parked: ' || string_agg(concat_ws(' ', topic, partition_no, record_offset, reason,
                                                                'let go at ' || released_at), ', ')
                      FROM ledger.parked WHERE order_id = $1),
                     (SELECT 'tried: ' || string_agg(concat_ws(' ', topic, partition_no, record_offset, attempts), ', ')
                      FROM ledger.attempts WHERE attempts > 1))",
                &[&order.0],
            )
            .await?;
        rows.first().context("a row of words")?.try_get(0).context("read the words")
    }

    /// One question, with a new session when the last one is of no use any more.
    pub async fn ask(&mut self, question: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let (client, connection) = timeout(PATIENCE, tokio_postgres::connect(&self.url, NoTls))
                .await
                .context("Postgres does not take a connection")?
                .context("connect to Postgres")?;
            tokio::spawn(connection);
            self.client = Some(client);
        }
        let client = self.client.as_ref().context("a session")?;
        match timeout(PATIENCE, client.query(question, values)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                if error.as_db_error().is_none() {
                    self.client = None;
                }
                Err(error).context("ask Postgres")
            }
            Err(_) => {
                self.client = None;
                anyhow::bail!("Postgres does not answer")
            }
        }
    }
}

fn count(rows: &[Row]) -> Result<i64> {
    rows.first().context("a count has a row")?.try_get(0).context("read a count")
}
