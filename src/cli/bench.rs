//! `kept bench`: our steps beside their baselines, in one run.

use std::{fs::File, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use kept_benches::report::Row;
use kept_runtime::config::Config;

use crate::bench::{self, Plan};

/// Measure Kept's steps, each beside a baseline measured in the same run
///
/// Ratios are what counts: the machine and whoever else uses it change every figure, but both sides of a ratio alike.
/// Each thing and its baseline run in turn, several times; the median and the spread are printed. All that a bench
/// makes bears a prefix of its own and is deleted in the end. It reads /proc, so it needs Linux.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept up && ./kept bench
  ./kept bench --only step --runs 5
  ./kept bench --only pipeline --lines 3
  ./kept bench --json bench.json      one JSON object a line: name, value, unit, baseline, ratio, goal, config

Exit codes: 0 every goal met; 1 one missed, or something failed.")]
pub struct Bench {
    /// Only what has this word in its name
    #[arg(long, value_name = "WORD", value_parser = ["step", "read", "ledger", "pipeline"])]
    only: Option<String>,
    /// Lines of an order; given several times, each in turn
    #[arg(long, value_name = "NUMBER", default_values_t = [3, 25], value_parser = clap::value_parser!(u16).range(1..=100))]
    lines: Vec<u16>,
    /// Runs of each thing and of its baseline
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    runs: u16,
    /// Orders a run
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    orders: u32,
    /// Write one JSON object a line to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        let config = Config::load(None)?;
        // Opened first: a path that cannot be written must not cost an hour.
        let json = match &self.json {
            Some(path) => Some(File::create(path).with_context(|| format!("write {}", path.display()))?),
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let plan = Plan {
            brokers: config.kafka.clone(),
            postgres: config.postgres.expose().to_owned(),
            prefix: format!("bench{}_", std::process::id()),
            runs: self.runs.into(),
            orders: self.orders as usize,
            partitions: config.partitions,
            batch: config.batch.max_records,
            window: Duration::from_millis(config.batch.window_ms),
        };
        let lines: Vec<usize> = self.lines.iter().copied().map(usize::from).collect();
        let rows = bench::all(&plan, &config, runtime.handle(), self.only.as_deref(), &lines)?;
        print!("{}", bench::table(&rows));
        if let Some(mut file) = json {
            for row in &rows {
                let line = serde_json::to_string(row).context("a row is JSON")?;
                writeln!(file, "{line}").context("write the JSON file")?;
            }
            file.sync_all().context("write the JSON file")?;
        }
        let missed: Vec<&Row> = rows.iter().filter(|row| row.missed()).collect();
        for row in &missed {
            println!("missed: {} by {:.0} %", row.name, row.short_of_goal() * 100.0);
        }
        Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
