//! `kept parked`: orders whose next record could not be decided, and letting them go on.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kept_runtime::{config::Config, outbox, replay, timers::Outbox};
use kept_schemas::OrderId;
use kept_store::{
    Client,
    parked::{self, Fate, ParkedRecord},
    pg::{Purpose, connect},
};

use super::{ConfigFile, block_on, one_order, when};

/// Orders that a fault of ours stopped: look at them, and let them go on once the fault is mended
///
/// A record that could not be decided (the rules failed, or it ended the process three times) is parked, and every
/// later record of its order behind it. All other orders go on. Nothing is lost: replay sends the records to their
/// topics again, as the same events, one by one and in the order they came.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept parked list
  ./kept parked show 1001
  ./kept parked replay 1001 --dry-run

Exit codes: 0 done, and with list: no order is parked; 1 some are, the order asked for is not, a record failed again,
or a server does not answer.")]
pub struct Parked {
    #[command(subcommand)]
    verb: ParkedVerb,
}

#[derive(Subcommand)]
enum ParkedVerb {
    /// Every parked order, the longest waiting first
    #[command(after_help = "Examples:
  ./kept parked list
  ./kept parked list --json | jq -r '.[].order_id'

Exit codes: 0 none is parked; 1 some are, or Postgres does not answer.")]
    List {
        /// Most orders shown
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: i64,
        /// A JSON list
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// The records of one parked order, in the order they came
    #[command(after_help = "Examples:
  ./kept parked show 1001
  ./kept parked show 1001 --json | jq '.[0].reason'

Exit codes: 0 shown; 1 the order is not parked, or Postgres does not answer.")]
    Show {
        /// The order: the channel's number, or our id
        order: String,
        /// A JSON list
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Let one order go on: its records are sent to their topics again, each once the one before is decided
    #[command(
        alias = "release",
        after_help = "Examples:
  ./kept parked replay 1001 --dry-run
  ./kept parked replay 1001 --by j.jansen

What comes of the order meanwhile queues behind, and is sent too. A record that fails again stays the first, and all
others wait behind it. Exit codes: 0 the order is parked no more; 1 it was not parked, a record failed again or was not
decided in time (then replay it again), or a server does not answer."
    )]
    Replay {
        /// The order: the channel's number, or our id
        order: String,
        /// Who lets it go: a login, not a name
        #[arg(long, value_name = "LOGIN", default_value = "cli")]
        by: String,
        /// How long a record may take to be decided, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
        /// Say what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// A JSON object: the order's id, the records sent (with --dry-run: to be sent), whether they were, and what
        /// stopped it
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl Parked {
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            ParkedVerb::List { limit, json, config } => block_on(list(&config.load()?, limit, json)),
            ParkedVerb::Show { order, json, config } => block_on(show(&config.load()?, &order, json)),
            ParkedVerb::Replay { order, dry_run: true, json, config, .. } => {
                block_on(would_send(&config.load()?, &order, json))
            }
            ParkedVerb::Replay { order, by, wait, json, config, .. } => {
                block_on(resend(&config.load()?, &order, &by, Duration::from_secs(wait), json))
            }
        }
    }
}

async fn ledger(config: &Config) -> Result<Client> {
    let schema = config.store_prefix().ledger();
    connect(config.postgres.expose(), &schema, Purpose::Command).await.context("connect to the ledger")
}

async fn list(config: &Config, limit: i64, json: bool) -> Result<ExitCode> {
    let orders = parked::list(&ledger(config).await?, limit).await?;
    if json {
        let all: Vec<serde_json::Value> = orders
            .iter()
            .map(|it| {
                serde_json::json!({
                    "order_id": it.order_id.to_string(), "reason": it.reason, "records": it.records,
                    "topic": it.topic, "partition": it.partition, "offset": it.offset, "since": when(it.since),
                })
            })
            .collect();
        println!("{}", serde_json::Value::from(all));
    } else if orders.is_empty() {
        println!("no order is parked");
    } else {
        for it in &orders {
            println!(
                "{}  since {}  {} records wait behind {}/{}/{}\n  {}",
                it.order_id,
                when(it.since),
                it.records,
                it.topic,
                it.partition,
                it.offset,
                it.reason
            );
        }
        println!("`./kept parked show ORDER` shows the records, `./kept parked replay ORDER` lets an order go on");
    }
    Ok(if orders.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn show(config: &Config, order: &str, json: bool) -> Result<ExitCode> {
    let order = one_order(config, order).await?;
    let records = parked::show(&ledger(config).await?, order).await?;
    if json {
        let all: Vec<serde_json::Value> = records.iter().map(as_json).collect();
        println!("{}", serde_json::Value::from(all));
    } else {
        tell(order, &records);
    }
    Ok(if records.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn would_send(config: &Config, order: &str, json: bool) -> Result<ExitCode> {
    let order = one_order(config, order).await?;
    let records = parked::show(&ledger(config).await?, order).await?;
    if json {
        println!("{}", sent(order, &records, false, None));
    } else {
        tell(order, &records);
        println!("would send these {} records to their topics again", records.len());
    }
    Ok(if records.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn resend(config: &Config, order: &str, by: &str, wait: Duration, json: bool) -> Result<ExitCode> {
    let order = one_order(config, order).await?;
    let client = ledger(config).await?;
    let mut outbox = outbox(config)?;
    let mut done: Vec<ParkedRecord> = Vec::new();
    let trouble = loop {
        let (record, fate) = match send_next(&client, &mut outbox, order, by, wait).await {
            Ok(Some(sent)) => sent,
            Ok(None) => break None,
            Err(error) => break Some(format!("{error:#}; replay the order again")),
        };
        let place = format!("{}/{}/{}", record.topic, record.partition, record.offset);
        done.push(record);
        match fate {
            Fate::Decided if json => {}
            Fate::Decided => println!("{place} is decided"),
            Fate::LeftWithout => {
                break Some(format!(
                    "{place} left the queue, and nothing was decided about this order: it cannot be read \
                     (`./kept dead-letters list`), or is about another order; replay the order again to go on without it"
                ));
            }
            Fate::FailedAgain(why) => break Some(format!("{place} failed again, and is the first still: {why}")),
            Fate::Waits => {
                break Some(format!(
                    "{place} was sent, but not decided within {} s; is the ledger running (`./kept status`)? Then \
                     replay the order again",
                    wait.as_secs()
                ));
            }
        }
    };
    if json {
        println!("{}", sent(order, &done, !done.is_empty(), trouble.as_deref()));
    } else if done.is_empty() && trouble.is_none() {
        println!("order {order} is not parked");
    } else if trouble.is_none() {
        println!("order {order} is parked no more");
    }
    let well = !done.is_empty() && trouble.is_none();
    if let Some(trouble) = trouble {
        eprintln!("{trouble}");
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends the first record of an order to its topic again, and says what came of it; `None`: the order is not parked.
async fn send_next(
    client: &Client,
    outbox: &mut impl Outbox,
    order: OrderId,
    by: &str,
    wait: Duration,
) -> Result<Option<(ParkedRecord, Fate)>> {
    let Some(record) = parked::let_go(client, order, by).await? else {
        return Ok(None);
    };
    outbox.send(vec![replay::parked(&record)]).await?;
    let until = Instant::now() + wait;
    loop {
        match parked::fate(client, &record).await? {
            Fate::Waits if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
            fate => return Ok(Some((record, fate))),
        }
    }
}

fn sent(order: OrderId, records: &[ParkedRecord], sent: bool, trouble: Option<&str>) -> serde_json::Value {
    let all: Vec<serde_json::Value> = records.iter().map(as_json).collect();
    serde_json::json!({ "order_id": order.to_string(), "records": all, "sent": sent, "trouble": trouble })
}

fn as_json(it: &ParkedRecord) -> serde_json::Value {
    serde_json::json!({
        "parked_id": it.parked_id, "order_id": it.order_id.to_string(), "topic": it.topic.name(),
        "partition": it.partition, "offset": it.offset, "event_id": it.event_id.to_string(),
        "traceparent": it.traceparent, "bytes": it.payload.len(), "reason": it.reason, "at": when(it.at),
        "released": it.released,
    })
}

fn tell(order: OrderId, records: &[ParkedRecord]) {
    if records.is_empty() {
        println!("order {order} is not parked");
    }
    for it in records {
        let why = it.reason.as_deref().unwrap_or("waits behind the one before");
        let released = if it.released { " (let go, but not decided yet)" } else { "" };
        println!(
            "{}  {}/{}/{}  {} bytes  {why}{released}",
            when(it.at),
            it.topic,
            it.partition,
            it.offset,
            it.payload.len()
        );
    }
}
