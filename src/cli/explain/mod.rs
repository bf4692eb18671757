//! `kept explain`: the life of one order in plain words, from the ledger's journal.

mod print;
mod story;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use kept_processors::ledger::LedgerEvent;
use kept_runtime::{config::Config, registry::Registry, schemas::Schemas};
use kept_schemas::{Micros, OrderId, codec::split};
use kept_store::{
    journal::{self, Numbers},
    parked,
    pg::{Purpose, connect},
    seam::JournalRow,
};
use tokio_postgres::Client;

use self::story::{Happened, Parked, Story};

/// Whose journal it is.
const STEP: &str = "ledger";

/// The life of one order, in plain words
///
/// What was ordered, where it stands and why; then each event with the facts it was decided from; what it waits for and
/// what one can do about it; parcels and money. Names and addresses are shown only with --person.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept explain 1001                                     the number the customer knows
  ./kept explain 17                                       our own number
  ./kept explain 01890a5d-ac96-8b66-a5b2-0b1f4a0b0c0d     our id
  ./kept explain 1001 --json | jq .waits

Exit codes: 0 one order was explained; 1 there is none, or several have that number and are listed.")]
pub struct Explain {
    /// The order: the channel's number, our number, or our id
    order: String,
    /// Show the person too: name, address, e-mail, phone
    #[arg(long)]
    person: bool,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A JSON object
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub fn run(self) -> Result<ExitCode> {
        let config = Config::load(self.config.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        runtime.block_on(self.explain(&config))
    }

    async fn explain(&self, config: &Config) -> Result<ExitCode> {
        let found = find(config, &self.order, Numbers::All).await?;
        let ledger = connect(config.postgres.expose(), &config.store_prefix().ledger(), Purpose::Command)
            .await
            .context("connect to the ledger")?;
        let registry = Registry::client(config)?;
        let mut stories = Vec::new();
        for order in found {
            if let Some(story) = story(&ledger, &registry, order, self.person).await? {
                stories.push(story);
            }
        }
        match stories.as_slice() {
            [] => bail!("no order has the number or id {}", self.order),
            [story] if self.json => println!("{}", serde_json::to_string_pretty(story)?),
            [story] => print!("{}", print::text(story)),
            several if self.json => {
                let several: Vec<_> = several.iter().map(|it| (&it.order_id, &it.headline)).collect();
                println!("{}", serde_json::json!({ "several": several }));
                return Ok(ExitCode::FAILURE);
            }
            several => {
                println!("{} orders have the number {}; ask for one by its id:", several.len(), self.order);
                for story in several {
                    println!("  {}  {}", story.order_id, story.headline);
                }
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The orders someone may mean.
///
/// # Errors
/// When the read model cannot be asked.
pub async fn find(config: &Config, asked: &str, numbers: Numbers) -> Result<Vec<OrderId>> {
    let read = connect(config.read_url(), &config.store_prefix().read(), Purpose::Command)
        .await
        .context("connect to the read model")?;
    let mut found = journal::find(&read, asked, numbers).await.context("look for the order")?;
    if found.is_empty() {
        // The read model may not have heard of it yet.
        found.extend(OrderId::parse(asked));
    }
    Ok(found)
}

async fn story(ledger: &Client, registry: &Registry, order: OrderId, person: bool) -> Result<Option<Story>> {
    let state = journal::state(ledger, order).await.context("read what the ledger remembers")?;
    let parked = parked::show(ledger, order).await.context("look for parked records")?;
    let mut happened = Vec::new();
    for (row, at) in journal::of_order(ledger, STEP, order).await.context("read the journal")? {
        happened.push(read(registry, row, at).await?);
    }
    let parked = parked
        .into_iter()
        .map(|it| Parked {
            record: format!("{}/{}/{}", it.topic, it.partition, it.offset),
            since: it.at.rfc3339(),
            reason: it.reason.map(|why| if it.released { format!("{why}; let go, not decided yet") } else { why }),
        })
        .collect();
    Ok(Story::of(order, state, happened, parked, person))
}

async fn read(registry: &Registry, row: JournalRow, at: Micros) -> Result<Happened> {
    let place = format!("event {} of the order", row.order.map_or(0, |(_, seq)| seq));
    let value = row.wire.bytes();
    let (id, _) = split(&value).with_context(|| format!("read {place}"))?;
    if !registry.ensure(id).await? {
        bail!("{place} was written with schema {id}, which neither the registry nor the database knows");
    }
    match LedgerEvent::decode(&registry.codec(), row.topic, &value).with_context(|| format!("read {place}"))? {
        Some(event) => Ok(Happened { at, event, cause: row.cause }),
        None => bail!("{place} was written with schema {id}, which cannot be read"),
    }
}
