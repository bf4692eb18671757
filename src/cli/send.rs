//! `kept send`: sends a sample's items by HTTP and by topic.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kept_channels::{
    import::tally::thousands,
    sender::{Http, Item, Manners, SendError, Sender, Way},
    sent_log::SentLog,
};
use kept_runtime::registry::Registry;
use serde_json::json;

use super::ConfigFile;

/// Send what `kept sample` made, by HTTP and by topic, until everything is accepted
///
/// Servers may be down under way: each thing is tried again until it is accepted or refused with a reason. Sending the
/// same file again doubles nothing. What was accepted is in the sender's log, on disk before it is told. Orders that come
/// as a file are not among the items: `kept import` takes those.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept send sample/items.jsonl --keys sample/keys.json
  ./kept send sample/items.jsonl --keys sample/keys.json --per-second 200
  ./kept send sample/items.jsonl --way topic                       everything by topic; needs no keys

Exit codes: 0 everything was accepted (or refused with a reason, as broken bodies are); 1 sending stopped, and the
message says why; 2 wrong usage.")]
pub struct Send {
    /// The items, one JSON object a line
    file: PathBuf,
    /// Each account's bearer key: keys.json of the sample
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Where the API is; when not said, the configured address
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Send everything by this way, whatever the file says: http or topic (channels.inbound). Whole orders go to
    /// orders.received all the same
    #[arg(long, value_name = "WAY", value_parser = way)]
    way: Option<Way>,
    /// So many a second; when not said, as fast as they are taken
    #[arg(long, value_name = "N")]
    per_second: Option<u32>,
    /// How many requests at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    at_once: usize,
    /// How long to go on trying when servers do not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Where the sender's log is kept
    #[arg(long, value_name = "DIR", default_value = ".kept/logs")]
    logs: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// The answer as one JSON object
    #[arg(long)]
    json: bool,
}

fn way(word: &str) -> Result<Way, String> {
    match word {
        "http" => Ok(Way::Http),
        "topic" => Ok(Way::Topic),
        _ => Err("it is http or topic; files are for `kept import`".to_owned()),
    }
}

impl Send {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.config.load()?;
        let total = items(&self.file)?.count() as u64;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let registry = runtime.block_on(Registry::open(&config))?;
        let keys: BTreeMap<String, String> = match &self.keys {
            None => BTreeMap::new(),
            Some(path) => serde_json::from_reader(BufReader::new(open(path)?))
                .with_context(|| format!("{} is not a JSON object of keys", path.display()))?,
        };
        let base = self.http.clone().unwrap_or_else(|| format!("http://{}", config.http));
        let log = SentLog::open(&self.logs, "items").context("open the sender's log")?;
        let manners = Manners {
            patience: Duration::from_secs(self.patience),
            at_once: self.at_once,
            per_second: self.per_second,
            ..Manners::default()
        };
        let bar = ProgressBar::new(total);
        bar.set_style(
            ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let started = Instant::now();
        let (ran, sendings) = runtime.block_on(async {
            let outbox = kept_runtime::outbox(&config)?;
            let mut sender = Sender::new(outbox, log, Some(Http::new(&base, keys)?), manners);
            let items = items(&self.file)?.map(|item| {
                let mut item = item.map_err(|error| SendError::Stop(format!("{error:#}")))?;
                if item.way != Way::Received {
                    item.way = self.way.unwrap_or(item.way);
                }
                Ok::<Item, SendError>(item)
            });
            let ran = sender
                .items(&registry.codec(), items, |so_far| {
                    bar.set_position(so_far.accepted() + so_far.refused);
                })
                .await;
            anyhow::Ok((ran, sender.sendings().clone()))
        })?;
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        if self.json {
            let fault = ran.as_ref().err().map(ToString::to_string);
            println!("{}", json!({ "sent": sendings, "seconds": seconds, "fault": fault }));
        } else {
            let n = |number: u64| thousands(&number.to_string());
            println!(
                "accepted: {} orders, {} payments, {} cancellations ({} by HTTP, {} by topic) in {seconds:.1} s",
                n(sendings.orders),
                n(sendings.payments),
                n(sendings.cancellations),
                n(sendings.by_http),
                n(sendings.by_topic)
            );
            println!("refused: {}; tried again: {}", n(sendings.refused), n(sendings.repeated));
            for (number, reason) in sendings.refusals.iter().take(3) {
                println!("  order {number}: {reason}");
            }
            if let Err(error) = &ran {
                eprintln!("kept: {error}; send the file again, nothing is doubled");
            }
        }
        Ok(if ran.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

fn items(path: &Path) -> Result<impl Iterator<Item = Result<Item>>> {
    let lines = BufReader::new(open(path)?).lines();
    Ok(lines.enumerate().map(|(at, line)| {
        let wrong = || format!("line {} of the items cannot be read", at + 1);
        serde_json::from_str(&line.with_context(wrong)?).with_context(wrong)
    }))
}
