//! `kept rebuild read`: the read model made anew from the journal, beside the live one.

use std::{
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use kept_runtime::{registry::Registry, schemas::Schemas, service::LEDGER};
use kept_store::{
    pg::{Purpose, connect},
    read, schemas,
};

use super::{ConfigFile, block_on};

/// Make something anew from what is remembered
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept rebuild read               the read model, from the ledger's journal

Exit codes: 0 done; 1 it failed, and what was there is as it was.")]
pub struct Rebuild {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Read(ReadModel),
}

/// Make the read model anew from the ledger's journal, beside the live one, and switch over
///
/// The live one serves until the switch, which takes a moment; `kept run read` may go on running and goes on with the
/// new one. Run one at a time; after a crash run it again.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept rebuild read

Exit codes: 0 done; 1 it failed, and the live read model is as it was.")]
struct ReadModel {
    /// A JSON object with what was done
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Rebuild {
    pub fn run(self) -> Result<ExitCode> {
        let What::Read(it) = self.what;
        block_on(it.run())
    }
}

impl ReadModel {
    async fn run(self) -> Result<ExitCode> {
        let config = self.config.load()?;
        let registry = Registry::open(&config).await?;
        let prefix = config.store_prefix();
        let ledger = connect(config.postgres.expose(), &prefix.ledger(), Purpose::Command)
            .await
            .context("connect to the ledger")?;
        // The journal was written with every schema there ever was.
        for kept in schemas::all(&ledger).await? {
            registry.ensure(kept.id).await?;
        }
        let bar = if self.json || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        bar.enable_steady_tick(Duration::from_millis(100));
        let began = Instant::now();
        let urls = (config.postgres.expose(), config.read_url());
        let codec = registry.codec();
        let done = read::rebuild(urls, &prefix, LEDGER, &codec, |done| {
            bar.set_message(format!("{} events of {} rows", done.events, done.rows));
        })
        .await?;
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        if self.json {
            println!("{}", serde_json::json!({ "rows": done.rows, "events": done.events, "seconds": seconds }));
        } else {
            println!("rebuilt the read model from {} events in {seconds:.1} s and switched to it", done.events);
        }
        Ok(ExitCode::SUCCESS)
    }
}
