//! `kept dead-letters`: records that could not be read, and sending them again once they can be.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use kept_processors::ledger::LedgerEvent;
use kept_runtime::{config::Config, outbox, replay, timers::Outbox};
use kept_schemas::Topic;
use kept_store::{
    Client,
    dead_letters::{self, DeadLetterRow},
    pg::{Purpose, connect},
    seam::TopicPartition,
};

use super::{ConfigFile, block_on, when};

/// Records that could not be read: for engineers, each with its reason and its bytes
///
/// A record is a dead letter when it is not what its topic says: not in the wire format, of an unknown schema, or of a
/// form that no step knows. What a merchant must decide is never here; that is a hold (`kept explain`).
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept dead-letters list
  ./kept dead-letters show channels.inbound/0/17
  ./kept dead-letters replay channels.inbound/0/17 --dry-run

Exit codes: 0 done, and with list: there is none; 1 there are some, the one asked for is not there, or a server does
not answer.")]
pub struct DeadLetters {
    #[command(subcommand)]
    verb: DeadVerb,
}

#[derive(Subcommand)]
enum DeadVerb {
    /// The newest ones
    #[command(after_help = "Examples:
  ./kept dead-letters list
  ./kept dead-letters list --topic orders.received --json | jq -r '.[].record'

Exit codes: 0 there is none; 1 there are some, or Postgres does not answer.")]
    List {
        /// Of one topic only
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// Most shown
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: i64,
        /// A JSON list
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// One of them, with the beginning of its bytes
    #[command(after_help = "Examples:
  ./kept dead-letters show channels.inbound/0/17
  ./kept dead-letters show channels.inbound/0/17 --json | jq -r '.[0].payload' | xxd -r -p > record

Exit codes: 0 shown; 1 there is no such one, or Postgres does not answer.")]
    Show {
        /// The record: topic/partition/offset
        record: String,
        /// A JSON list, with all bytes in base 16
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Send a record's own bytes to its topic again, as the same event
    #[command(after_help = "Examples:
  ./kept dead-letters replay channels.inbound/0/17 --dry-run
  ./kept dead-letters replay channels.inbound/0/17

What cannot be read again becomes a dead letter again. What was acted on meanwhile is recognised and skipped.

Exit codes: 0 sent; 1 there is no such record, it is not whole any more, or a server does not answer.")]
    Replay {
        /// The record: topic/partition/offset
        record: String,
        /// Say what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// A JSON object: the record, its event's id, how many bytes, and whether they were sent
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl DeadLetters {
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            DeadVerb::List { topic, limit, json, config } => {
                block_on(list(&config.load()?, topic.as_deref(), limit, json))
            }
            DeadVerb::Show { record, json, config } => block_on(show(&config.load()?, &record, json)),
            DeadVerb::Replay { record, dry_run, json, config } => {
                block_on(resend(&config.load()?, &record, dry_run, json))
            }
        }
    }
}

/// The record that `text` names.
fn place(text: &str) -> Result<(Topic, i32, i64)> {
    let mut parts = text.rsplitn(3, '/');
    let named = (|| {
        let (offset, partition) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((Topic::of(parts.next()?)?, partition, offset))
    })();
    named.ok_or_else(|| anyhow!("{text} is not topic/partition/offset, such as channels.inbound/0/17"))
}

async fn read_model(config: &Config) -> Result<Client> {
    let schema = config.store_prefix().read();
    connect(config.read_url(), &schema, Purpose::Command).await.context("connect to the read model")
}

async fn list(config: &Config, topic: Option<&str>, limit: i64, json: bool) -> Result<ExitCode> {
    let rows = dead_letters::list(&read_model(config).await?, topic, limit).await?;
    if json {
        let all: Vec<serde_json::Value> = rows.iter().map(|it| as_json(it, false)).collect();
        println!("{}", serde_json::Value::from(all));
    } else if rows.is_empty() {
        println!("there is no dead letter");
    } else {
        for it in &rows {
            println!("{}  {}/{}/{}  {}: {}", when(it.at), it.topic, it.partition, it.offset, it.step, it.reason);
        }
        println!("`./kept dead-letters show RECORD` shows one, `replay RECORD` sends it again");
    }
    Ok(if rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn show(config: &Config, record: &str, json: bool) -> Result<ExitCode> {
    let (topic, partition, offset) = place(record)?;
    let rows = dead_letters::of_record(&read_model(config).await?, topic.name(), partition, offset).await?;
    if json {
        let all: Vec<serde_json::Value> = rows.iter().map(|it| as_json(it, true)).collect();
        println!("{}", serde_json::Value::from(all));
    } else if rows.is_empty() {
        println!("{record} is no dead letter");
    } else {
        for it in &rows {
            println!("{}  given up by {}: {}", when(it.at), it.step, it.reason);
            let key = it.key.as_deref().map_or("none".into(), |key| String::from_utf8_lossy(key).into_owned());
            println!("key: {}", key.escape_debug());
            dump(it.payload.as_deref().unwrap_or_default());
        }
    }
    Ok(if rows.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn resend(config: &Config, record: &str, dry_run: bool, json: bool) -> Result<ExitCode> {
    let (topic, partition, offset) = place(record)?;
    if LedgerEvent::TOPICS.contains(&topic) {
        bail!(
            "{topic} is what the ledger says; sent again, it would be said twice. `./kept rebuild read` reads it anew"
        );
    }
    let rows = dead_letters::of_record(&read_model(config).await?, topic.name(), partition, offset).await?;
    let Some(letter) = rows.into_iter().next() else {
        if json {
            println!("{}", serde_json::json!({ "record": record, "event_id": null, "bytes": null, "sent": false }));
        } else {
            println!("{record} is no dead letter");
        }
        return Ok(ExitCode::FAILURE);
    };
    let (asked, at) = (config.clone(), TopicPartition { topic, partition });
    let found = tokio::task::spawn_blocking(move || replay::fetch(&asked, at, offset, Duration::from_secs(15)))
        .await
        .context("read the record")?
        .map_err(|why| anyhow!(why))?;
    let outgoing = match found {
        Some(found) => replay::again(&found),
        None if letter.reason.contains("(kept: ") => {
            bail!("{record} is no longer in its topic, and it was too large to be kept whole")
        }
        None => {
            eprintln!("{record} is no longer in its topic; what was kept of it is sent");
            replay::from_kept(topic, partition, offset, letter.key, letter.payload.unwrap_or_default())
        }
    };
    let id = outgoing.headers.event_id.map_or_else(String::new, |id| id.to_string());
    let bytes = outgoing.value.len();
    if !dry_run {
        outbox(config)?.send(vec![outgoing]).await?;
    }
    if json {
        let told = serde_json::json!({ "record": record, "event_id": id, "bytes": bytes, "sent": !dry_run });
        println!("{told}");
    } else {
        let word = if dry_run { "would send" } else { "sent" };
        println!("{word} {bytes} bytes to {topic} as event {id}");
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(it: &DeadLetterRow, whole: bool) -> serde_json::Value {
    let hex = |bytes: &Option<Vec<u8>>| {
        bytes.as_ref().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let mut object = serde_json::json!({
        "record": format!("{}/{}/{}", it.topic, it.partition, it.offset), "step": it.step, "reason": it.reason,
        "at": when(it.at), "bytes": it.bytes,
    });
    if whole {
        object["key"] = hex(&it.key).into();
        object["payload"] = hex(&it.payload).into();
    }
    object
}

/// The first bytes, 16 a line, with what of them is text.
fn dump(bytes: &[u8]) {
    for (line, chunk) in bytes.chunks(16).take(16).enumerate() {
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String =
            chunk.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { byte as char } else { '.' }).collect();
        println!("{:06x}  {hex:<48} {text}", line * 16);
    }
    if bytes.len() > 256 {
        println!("… {} bytes in all", bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_by_topic_partition_and_offset() {
        assert_eq!(place("channels.inbound/0/17").expect("named"), (Topic::ChannelsInbound, 0, 17));
        for wrong in ["", "channels.inbound", "channels.inbound/0", "nothing/0/1", "channels.inbound/x/1", "0/1"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
