//! `kept check`: is everything as it must be? From outside facts only.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use kept_runtime::config::Config;

use crate::check::{self, Addresses};

/// Check that nothing was lost, doubled or broken
///
/// Reads every topic, the tables in Postgres and the logs of those who sent orders, and holds them against each other:
/// eight invariants, each explained in docs/check.md. Changes nothing, and may run at any time; what is on its way is
/// called so.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept check
  ./kept check --settled            everything is to be at rest: what is under way counts as a fault
  ./kept check --json | jq .ok

Exit codes: 0 nothing is broken; 1 something is, and the report says what, or it could not be read.")]
pub struct Check {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder with the senders' and the simulated warehouse's logs
    #[arg(long, default_value = ".kept/logs", value_name = "DIR")]
    logs: PathBuf,
    /// Demand that nothing is under way any more
    #[arg(long)]
    settled: bool,
    /// The report as a JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn run(self) -> Result<ExitCode> {
        let config = Config::load(self.config.as_deref())?;
        let at = Addresses {
            kafka: config.kafka.clone(),
            kafka_properties: config.client_properties(),
            registry: config.registry.clone(),
            postgres: config.postgres.expose().to_owned(),
            read_postgres: config.read_url().to_owned(),
            prefix: config.prefix.clone(),
            logs: self.logs,
        };
        let mut line = Progress { shown: std::io::stderr().is_terminal(), width: 0 };
        let report = check::run(&at, &mut |what| line.show(what));
        line.show("");
        let report = report?;
        if self.json {
            println!("{}", report.json(self.settled));
        } else {
            print!("{}", report.text(self.settled));
        }
        Ok(if report.passes(self.settled) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// One line on the terminal that says what is being read.
struct Progress {
    shown: bool,
    width: usize,
}

impl Progress {
    fn show(&mut self, what: &str) {
        if self.shown {
            // Nobody misses a progress line that cannot be written.
            let _ = write!(std::io::stderr(), "\r{what:<width$}\r", width = self.width);
            let _ = std::io::stderr().flush();
            self.width = what.chars().count();
        }
    }
}
