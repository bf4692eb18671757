//! `kept bench`: our own steps, each beside a baseline that is measured in the same run, alternated with it.
//!
//! Absolute figures depend on the machine and on who else uses it; ratios are what counts.

pub mod ledger;
pub mod orders;
pub mod pipeline;
pub mod steps;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use kept_benches::{report::Row, topics};
use kept_runtime::{
    config::Config,
    counters::Counters,
    ledger_step::{StepSettings, Stopped},
};
use kept_schemas::Topic;
use tokio::runtime::Handle;

/// Where a bench runs and how much it does.
#[derive(Debug, Clone)]
pub struct Plan {
    pub brokers: String,
    pub postgres: String,
    /// Before the name of everything this bench makes; all of it is deleted in the end.
    pub prefix: String,
    /// Runs of each thing and of its baseline.
    pub runs: usize,
    /// Orders a run.
    pub orders: usize,
    pub partitions: i32,
    /// Records a batch, ours and the baseline's.
    pub batch: usize,
    /// How long a batch is gathered, ours and the baseline's.
    pub window: Duration,
}

impl Plan {
    /// The name of a topic of this bench.
    pub fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// What is the same for every row.
    pub fn config(&self, more: &str) -> String {
        format!(
            "{} orders, {} partitions, batches of {} or {} ms, {more}",
            self.orders,
            self.partitions,
            self.batch,
            self.window.as_millis()
        )
    }

    fn settings(&self, step: &str) -> StepSettings {
        let mut settings = StepSettings::new(step);
        settings.max_records = self.batch;
        settings.window = self.window;
        settings
    }

    /// Topics that are there while the guard lives.
    pub async fn topics(&self, list: &[Topic]) -> Result<Made> {
        let names: Vec<String> = list.iter().map(|&topic| self.name(topic)).collect();
        topics::create(&self.brokers, &names, self.partitions).await?;
        Ok(Made { brokers: self.brokers.clone(), names })
    }
}

/// Topics a bench made. [`Made::delete`] deletes them.
#[must_use]
pub struct Made {
    brokers: String,
    names: Vec<String>,
}

impl Made {
    /// Deletes them.
    pub async fn delete(self) -> Result<()> {
        topics::delete(&self.brokers, &self.names).await
    }
}

/// A driver at work on its own thread.
pub struct Driven {
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Stopped>>>,
}

impl Driven {
    /// Waits until it has worked on `records`.
    pub fn wait_for(self, records: usize) -> Result<()> {
        self.paced(records).map(|_| ())
    }

    /// Waits until it has worked on `records`. Gives the seconds so many take at the pace it has from its first batch
    /// on; joining a group and the first fetch are left out, as they are of a baseline.
    pub fn seconds_for(self, records: usize) -> Result<f64> {
        let (seconds, paced) = self.paced(records)?;
        if paced == 0 {
            bail!("{records} records are less than two batches: too few to measure; give more --orders");
        }
        Ok(seconds * records as f64 / paced as f64)
    }

    /// Seconds from the end of its first batch on, and how many records came after that one.
    fn paced(mut self, records: usize) -> Result<(f64, u64)> {
        let give_up = Instant::now() + Duration::from_secs(300);
        let mut first: Option<(Instant, u64)> = None;
        let records = records as u64;
        let (since, before) = loop {
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                let ended = self.thread.take().expect("it is there").join();
                bail!("the step ended early: {:?}", ended.map_err(|_| "it panicked"));
            }
            let done = self.counters.records.load(Relaxed);
            if first.is_none() && done > 0 {
                first = Some((Instant::now(), done));
            }
            match first {
                Some((since, before)) if done >= records => break (since, before),
                _ => {}
            }
            if Instant::now() > give_up {
                bail!("the step did {done} of {records} records in 300 s");
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        let seconds = since.elapsed().as_secs_f64();
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the step panicked"))??;
        }
        Ok((seconds, records.saturating_sub(before)))
    }
}

/// Runs everything, or only what has `only` in its name; tells on stderr what it is at.
pub fn all(plan: &Plan, config: &Config, handle: &Handle, only: Option<&str>) -> Result<Vec<Row>> {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut rows = Vec::new();
    if wanted("step") {
        for lines in [3, 25] {
            eprintln!("step, {lines} lines an order …");
            rows.extend(steps::pass_rows(plan, handle, lines)?);
            rows.push(steps::normalise_row(plan, handle, lines)?);
        }
    }
    if wanted("ledger") {
        eprintln!("ledger …");
        rows.push(ledger::hot_sku(plan, handle, 3)?);
    }
    if wanted("read") {
        for lines in [3, 25] {
            eprintln!("read model, {lines} lines an order …");
            rows.push(ledger::sink(plan, handle, lines)?);
        }
    }
    if wanted("pipeline") {
        for lines in [3, 25] {
            eprintln!("pipeline, {lines} lines an order …");
            rows.extend(pipeline::rows(plan, config, handle, lines)?);
        }
    }
    Ok(rows)
}

/// Runs a bench's two sides in turn, so that a busy minute of the machine hits both.
pub fn alternate(
    runs: usize,
    mut ours: impl FnMut(usize) -> Result<f64>,
    mut baseline: impl FnMut(usize) -> Result<f64>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for run in 0..runs {
        // Whoever goes first meets a colder page cache; so they take turns at that too.
        if run % 2 == 0 {
            left.push(ours(run)?);
            right.push(baseline(run)?);
        } else {
            right.push(baseline(run)?);
            left.push(ours(run)?);
        }
    }
    Ok((left, right))
}

/// Prints rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let number = |value: f64| match value.abs() {
        0.0 => "0".to_owned(),
        big if big >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    let mut out = format!(
        "{:<44} {:>12} {:<12} {:>12} {:>7} {:>6}  {}\n",
        "what", "median", "unit", "baseline", "ratio", "goal", "spread"
    );
    for row in rows {
        out.push_str(&format!(
            "{:<44} {:>12} {:<12} {:>12} {:>7} {:>6}  {}–{}\n",
            row.name,
            number(row.value),
            row.unit,
            row.baseline.map(number).unwrap_or_default(),
            row.ratio.map(|it| format!("{it:.2}")).unwrap_or_default(),
            row.goal.map(number).unwrap_or_default(),
            number(row.spread.0),
            number(row.spread.1),
        ));
    }
    out
}
