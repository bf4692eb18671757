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
use kept_benches::{cpu, report::Row, topics};
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

/// Time by the clock, and this process's processor time; that of the servers is not in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Took {
    pub seconds: f64,
    pub cpu_seconds: f64,
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
    pub fn seconds_for(self, records: usize) -> Result<Took> {
        let (took, paced) = self.paced(records)?;
        if paced == 0 {
            bail!("{records} records are less than two batches: too few to measure; give more --orders");
        }
        let scale = records as f64 / paced as f64;
        Ok(Took { seconds: took.seconds * scale, cpu_seconds: took.cpu_seconds * scale })
    }

    /// What it took from the end of its first batch on, and how many records came after that one.
    fn paced(mut self, records: usize) -> Result<(Took, u64)> {
        let give_up = Instant::now() + Duration::from_secs(300);
        let mut first: Option<(Instant, f64, u64)> = None;
        let records = records as u64;
        let (since, cpu, before) = loop {
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                let ended = self.thread.take().expect("it is there").join();
                bail!("the step ended early: {:?}", ended.map_err(|_| "it panicked"));
            }
            let done = self.counters.records.load(Relaxed);
            if first.is_none() && done > 0 {
                first = Some((Instant::now(), cpu::own_seconds()?, done));
            }
            match first {
                Some(first) if done >= records => break first,
                _ => {}
            }
            if Instant::now() > give_up {
                bail!("the step did {done} of {records} records in 300 s");
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        let took = Took { seconds: since.elapsed().as_secs_f64(), cpu_seconds: cpu::own_seconds()? - cpu };
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the step panicked"))??;
        }
        Ok((took, records.saturating_sub(before)))
    }
}

/// What measures something with orders of so many lines.
type Part<'a> = &'a dyn Fn(usize) -> Result<Vec<Row>>;

/// Runs everything, or only what has `only` in its name, with orders of each of these sizes; tells on stderr what it is
/// at.
pub fn all(plan: &Plan, config: &Config, handle: &Handle, only: Option<&str>, sizes: &[usize]) -> Result<Vec<Row>> {
    let step = |lines| {
        let mut rows = steps::pass_rows(plan, handle, lines)?;
        rows.extend(steps::normalise_rows(plan, handle, lines)?);
        rows.extend(steps::stage_rows(plan, handle, lines)?);
        Ok(rows)
    };
    let ledger = |lines| ledger::hot_sku(plan, handle, lines);
    let read = |lines| ledger::sink(plan, handle, lines);
    let pipeline = |lines| pipeline::rows(plan, config, handle, lines);
    let parts: [(&str, &str, Part<'_>); 4] = [
        ("step", "step", &step),
        ("ledger", "ledger", &ledger),
        ("read", "read model", &read),
        ("pipeline", "pipeline", &pipeline),
    ];
    let mut rows = Vec::new();
    for (word, title, part) in parts {
        if only.is_some_and(|only| only != word) {
            continue;
        }
        for &lines in sizes {
            eprintln!("{title}, {lines} lines an order …");
            rows.extend(part(lines)?);
        }
    }
    Ok(rows)
}

/// How fast one run was.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A second.
    rate: f64,
    per_cpu_second: f64,
}

impl Pace {
    pub fn of(records: usize, took: Took) -> Self {
        let records = records as f64;
        // The system counts in hundredths of a second.
        Self { rate: records / took.seconds, per_cpu_second: records / took.cpu_seconds.max(0.01) }
    }
}

/// Two rows of one comparison: by the clock, with its goal, and by processor time.
pub fn pace_rows(
    name: &str,
    what: &str,
    ours: &[Pace],
    baseline: &[Pace],
    goal: Option<f64>,
    config: &str,
) -> Vec<Row> {
    let of = |paces: &[Pace], part: fn(&Pace) -> f64| paces.iter().map(part).collect::<Vec<f64>>();
    let row = |name: &str, unit: &str, part: fn(&Pace) -> f64, goal, config: String| {
        Row::ratio(name, unit, &of(ours, part), &of(baseline, part), goal, config)
    };
    let cpu = format!("{name}, CPU");
    let apart = format!("{config}; processor time of this process, without the servers'");
    vec![
        row(name, &format!("{what}/s"), |it| it.rate, goal, config.into()),
        row(&cpu, &format!("{what}/CPU-s"), |it| it.per_cpu_second, None, apart),
    ]
}

/// Runs a bench's two sides in turn, so that a busy minute of the machine hits both.
pub fn alternate(
    runs: usize,
    mut ours: impl FnMut(usize) -> Result<Pace>,
    mut baseline: impl FnMut(usize) -> Result<Pace>,
) -> Result<(Vec<Pace>, Vec<Pace>)> {
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
    let range = |(low, high): (f64, f64)| format!("{}–{}", number(low), number(high));
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let mut out = format!(
        "{:<width$} {:>12} {:<13} {:>12} {:>7} {:>6}  {:<20}  {}\n",
        "what", "median", "unit", "baseline", "ratio", "goal", "spread", "baseline's"
    );
    for row in rows {
        out.push_str(&format!(
            "{:<width$} {:>12} {:<13} {:>12} {:>7} {:>6}  {:<20}  {}\n",
            row.name,
            number(row.value),
            row.unit,
            row.baseline.map(number).unwrap_or_default(),
            row.ratio.map(|it| format!("{it:.2}")).unwrap_or_default(),
            row.goal.map(number).unwrap_or_default(),
            range(row.spread),
            row.baseline_spread.map(range).unwrap_or_default(),
        ));
    }
    out
}
