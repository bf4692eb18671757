//! `kept reference`: products, locations, channel accounts, customers and policies, from files.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use kept_runtime::{
    outbox, reference,
    reference_file::{self, Entry, short},
    registry::Registry,
    timers::Outbox,
};
use kept_schemas::Topic;

use super::{ConfigFile, block_on};

/// Most wrong lines told one by one.
const TOLD: usize = 20;
/// Records sent at once.
const BATCH: usize = 1_000;

/// Give the pipeline its products, locations, channel accounts, customers and policies, or show them
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept reference apply shop.jsonl
  ./kept reference list products

Exit codes: 0 all of it is there now, or shown; 1 a line is wrong or a server does not answer.")]
pub struct Reference {
    #[command(subcommand)]
    verb: ReferenceVerb,
}

#[derive(Subcommand)]
enum ReferenceVerb {
    Apply(Apply),
    List(List),
}

/// Send files of reference data; what is there already, just so, is not sent again
///
/// A file has one JSON object a line: {"topic": "products", "value": {…}}, or with --topic the bare values. Topics are
/// products, locations, accounts, customers, policies. Every line is checked first; one that is wrong and nothing is
/// sent. A field that is left out takes its default; a product that is gone gets "active": false.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept reference apply products.jsonl locations.jsonl --dry-run
  ./kept reference apply shop.jsonl
  ./kept reference apply --topic products items.jsonl

Exit codes: 0 all of it is there now (with --dry-run: could be); 1 a line is wrong or a server does not answer.")]
struct Apply {
    /// Files, one JSON object a line; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What bare values are: products, locations, accounts, customers or policies
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// A JSON object with the numbers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Show reference data as the pipeline knows it now
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept reference list locations
  ./kept reference list products --json | jq -r '.[].sku'

Exit codes: 0 shown; 1 a server does not answer.")]
struct List {
    /// products, locations, accounts, customers or policies
    topic: String,
    /// A JSON list instead of a JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Reference {
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            ReferenceVerb::Apply(it) => block_on(it.run()),
            ReferenceVerb::List(it) => block_on(it.run()),
        }
    }
}

impl Apply {
    async fn run(self) -> Result<ExitCode> {
        let usual = self.topic.as_deref().map(reference_file::topic).transpose().map_err(|why| anyhow!(why))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut wrong = 0;
        for file in &self.files {
            read(file, usual, &mut entries, &mut wrong)?;
        }
        if wrong > 0 {
            let more = wrong.saturating_sub(TOLD);
            if more > 0 {
                eprintln!("… and {more} more");
            }
            eprintln!("kept: {wrong} lines are wrong; nothing was sent");
            return Ok(ExitCode::FAILURE);
        }
        // Of several lines for one key the last one counts, as it would in the topic.
        let mut last: BTreeMap<(Topic, String), Entry> = BTreeMap::new();
        for entry in entries {
            last.insert((entry.topic(), entry.key().to_owned()), entry);
        }
        let config = self.config.load()?;
        let registry = Registry::open(&config).await?;
        let now =
            reference::read_once(&config, &registry, Duration::from_secs(60)).await.map_err(|why| anyhow!(why))?;
        let all = last.len();
        let changed: Vec<Entry> = last.into_values().filter(|entry| !entry.is_in(&now)).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &changed {
            *counts.entry(short(entry.topic())).or_default() += 1;
        }
        if !self.dry_run {
            let codec = registry.codec();
            let mut outbox = outbox(&config)?;
            let bar = bar(changed.len(), self.json);
            for entries in changed.chunks(BATCH) {
                let records = entries.iter().map(|it| it.record(&codec)).collect::<Result<Vec<_>, _>>()?;
                outbox.send(records).await?;
                bar.inc(u64::try_from(entries.len()).unwrap_or(0));
            }
            bar.finish_and_clear();
        }
        if self.json {
            let same = all - changed.len();
            println!("{}", serde_json::json!({ "sent": !self.dry_run, "changed": counts, "unchanged": same }));
        } else {
            let word = if self.dry_run { "would send" } else { "sent" };
            let what: Vec<String> = counts.iter().map(|(topic, count)| format!("{count} {topic}")).collect();
            let what = if what.is_empty() { "nothing".into() } else { what.join(", ") };
            println!("{word} {what}; {} were there already", all - changed.len());
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self) -> Result<ExitCode> {
        let topic = reference_file::topic(&self.topic).map_err(|why| anyhow!(why))?;
        let config = self.config.load()?;
        let registry = Registry::open(&config).await?;
        let now =
            reference::read_once(&config, &registry, Duration::from_secs(60)).await.map_err(|why| anyhow!(why))?;
        let values = reference_file::values(&now, topic);
        if self.json {
            println!("{}", serde_json::Value::from(values));
        } else {
            for value in values {
                println!("{value}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads one file; wrong lines are told with their number.
fn read(file: &Path, usual: Option<Topic>, entries: &mut Vec<Entry>, wrong: &mut usize) -> Result<()> {
    let name = file.display().to_string();
    let mut reader: Box<dyn BufRead> = if name == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(file).with_context(|| format!("open {name}"))?))
    };
    let limit = u64::try_from(reference_file::MAX_LINE_BYTES).unwrap_or(u64::MAX) + 2;
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        bytes.clear();
        // A line without an end is not read into memory for ever.
        let read = std::io::Read::take(&mut reader, limit)
            .read_until(b'\n', &mut bytes)
            .with_context(|| format!("read {name}"))?;
        if read == 0 {
            break;
        }
        let checked = match std::str::from_utf8(&bytes).map(str::trim) {
            Ok("") => continue,
            Ok(_) if !bytes.ends_with(b"\n") && read as u64 == limit => {
                anyhow::bail!("{name}:{number}: the line is longer than {} bytes", reference_file::MAX_LINE_BYTES)
            }
            Ok(line) => reference_file::entry(line.trim_start_matches('\u{feff}'), usual),
            Err(_) => Err("it is not UTF-8".to_owned()),
        };
        match checked {
            Ok(entry) => entries.push(entry),
            Err(why) => {
                *wrong += 1;
                if *wrong <= TOLD {
                    eprintln!("{name}:{number}: {why}");
                }
            }
        }
    }
    Ok(())
}

fn bar(length: usize, quiet: bool) -> ProgressBar {
    if quiet || length < BATCH || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} sent ({eta} left)");
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
