//! `kept stock receive`: counts and receipts of goods from a file.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kept_channels::{
    sender::store,
    stock::{read, record},
};
use kept_runtime::registry::Registry;
use kept_schemas::{Micros, inputs::StockKind};
use serde_json::json;

use super::ConfigFile;

/// How many facts go together.
const BATCH: usize = 5_000;

/// Tell what is on the shelves
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept stock receive derived/stock.jsonl

Exit codes: 0 all of it is stored; 1 a line is wrong or a server did not answer, and the message says which.")]
pub struct Stock {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Receive(Receive),
}

/// Take in counts and receipts of goods from a file
///
/// One JSON object a line: {"sku", "location_id", "quantity", "kind": "receipt" or "count", "condition": "sellable",
/// "quarantine" or "damaged", "count_id", "at", "source"}. Kind is receipt and condition is sellable when not said.
/// A line needs count_id or at: from them follows its id, so that the same file sent again counts once.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept stock receive derived/stock.jsonl
  echo '{\"sku\":\"MUG\",\"location_id\":\"DC1\",\"quantity\":12,\"at\":\"2026-11-25T10:00:00Z\"}' > in.jsonl
  ./kept stock receive in.jsonl

Exit codes: 0 all of it is stored; 1 a line is wrong (then nothing was sent) or a server did not answer, and the
message says which.")]
struct Receive {
    /// The file: .jsonl, .jsonl.xz or .jsonl.gz
    file: PathBuf,
    /// How long to go on trying when servers do not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    #[command(flatten)]
    config: ConfigFile,
    /// The answer as one JSON object
    #[arg(long)]
    json: bool,
}

impl Stock {
    pub fn run(self) -> Result<ExitCode> {
        match self.what {
            What::Receive(it) => it.run(),
        }
    }
}

impl Receive {
    fn run(self) -> Result<ExitCode> {
        let now = Micros(i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_micros()).context("this machine's clock")?);
        let patience = Duration::from_secs(self.patience);
        // Once to see that every line can be read, once to send.
        let (mut receipts, mut counts, mut units) = (0u64, 0u64, 0i64);
        read(&self.file, now, |fact| {
            *(if fact.kind == StockKind::Count { &mut counts } else { &mut receipts }) += 1;
            units = units.saturating_add(fact.quantity);
            Ok(())
        })?;
        let config = self.config.load()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let registry = runtime.block_on(Registry::open(&config))?;
        let codec = registry.codec();
        let mut outbox = {
            let _inside = runtime.enter();
            kept_runtime::outbox(&config)?
        };
        let mut waiting = Vec::with_capacity(BATCH);
        read(&self.file, now, |fact| {
            waiting.push(record(&codec, &fact)?);
            if waiting.len() == BATCH {
                runtime.block_on(store(&mut outbox, std::mem::take(&mut waiting), patience))?;
            }
            Ok(())
        })?;
        runtime.block_on(store(&mut outbox, waiting, patience))?;
        if self.json {
            println!("{}", json!({ "receipts": receipts, "counts": counts, "units": units }));
        } else {
            println!("stored: {receipts} receipts and {counts} counts, {units} units");
        }
        Ok(ExitCode::SUCCESS)
    }
}
