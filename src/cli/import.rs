//! `kept import`: orders from a merchant's own file.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kept_channels::{
    hex,
    import::{
        self, ImportError, Options, Outcome, Ready,
        derive::{self, Derived, Kind},
        mapping::Mapping,
        open::Progress,
        report::Report,
        summary::{Fate, summary},
    },
    sender::{Manners, SendError, Sender, to_send},
    sent_log::SentLog,
};
use kept_runtime::{kafka::KafkaOutbox, registry::Registry};
use kept_schemas::OrderId;
use serde_json::json;

use super::ConfigFile;

/// How many orders go together and are on disk in the sender's log together.
const BATCH: usize = 2_000;

/// Bring in orders from a file of your own
///
/// A mapping (TOML) says what the columns mean: which row is which order's, what is goods and what a charge, what is
/// left out. Every order is sent once, however often the import is started: its id and its record follow from the
/// file alone. The file may be CSV or JSON lines, plain, .xz or .gz.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept import orders.csv --map my-shop.toml --dry-run           shows what would happen; needs no server
  ./kept import orders.csv --map my-shop.toml --report refused.csv
  ./kept import year.csv.xz --map channels/maps/online-retail.toml --derive products,stock --derive-to derived

Rows are counted as a spreadsheet does: the row with the columns' names is row 1. How to write a mapping:
docs/import.md.

Exit codes: 0 everything was sent (or would be), nothing refused; 1 something was refused, or the import or its
report could not be finished, and the message says which; 2 wrong usage.")]
pub struct Import {
    /// The file: .csv, .csv.xz, .csv.gz, .jsonl, .jsonl.xz, .jsonl.gz
    file: PathBuf,
    /// The mapping, a TOML file
    #[arg(long, value_name = "MAP")]
    map: PathBuf,
    /// Show what would happen; send nothing, need no server
    #[arg(long)]
    dry_run: bool,
    /// Write what was refused, left out or put together to this CSV file, with row numbers and reasons
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How many orders (in a dry run) and refusals to show
    #[arg(long, value_name = "N", default_value_t = 2)]
    examples: usize,
    /// Invent addresses where the file has none, whatever the mapping says; labelled synthetic
    #[arg(long)]
    synthetic_addresses: bool,
    /// Make reference data and stock from the file: products, stock, customers, locations, accounts
    #[arg(long, value_name = "KINDS", value_delimiter = ',', requires = "derive_to", value_parser = kind)]
    derive: Vec<Kind>,
    /// Where to write them: DIR/products.jsonl, DIR/stock.jsonl and so on
    #[arg(long, value_name = "DIR", requires = "derive")]
    derive_to: Option<PathBuf>,
    /// Do not send again what the log of an earlier start says was accepted; quicker, and the same in the end
    #[arg(long, conflicts_with = "dry_run")]
    resume: bool,
    /// Where the sender's log is kept
    #[arg(long, value_name = "DIR", default_value = ".kept/logs")]
    logs: PathBuf,
    /// How long to go on trying when servers do not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    #[command(flatten)]
    config: ConfigFile,
    /// The answer as one JSON object
    #[arg(long)]
    json: bool,
}

fn kind(word: &str) -> Result<Kind, String> {
    let words: Vec<&str> = Kind::ALL.iter().map(|it| it.as_str()).collect();
    Kind::of(word).ok_or_else(|| format!("it is one of {}", words.join(", ")))
}

impl Import {
    pub fn run(self) -> Result<ExitCode> {
        let mut mapping = Mapping::read(&self.map)?;
        mapping.synthetic.addresses |= self.synthetic_addresses;
        let mut delivery = if self.dry_run { None } else { Some(Delivery::open(&self, &mapping)?) };
        let mut report = match &self.report {
            None => None,
            Some(path) => Some(
                Report::create(path)
                    .with_context(|| format!("the report {} cannot be written; nothing was sent", path.display()))?,
            ),
        };
        let progress = Progress::default();
        let bar = Bar::new(&self.file, mapping.passes(), &progress);
        let options = Options { examples: self.examples.min(1_000), demand: !self.derive.is_empty() };
        let mut outcome = Outcome::default();
        let mut ran = import::run(&self.file, &mapping, options, &progress, report.as_mut(), &mut outcome, |ready| {
            delivery.as_mut().map_or(Ok(()), |it| it.take(ready))
        });
        if let (Ok(()), Some(delivery)) = (&ran, &mut delivery) {
            ran = delivery.flush();
        }
        bar.finish();
        if let Some(delivery) = &delivery {
            outcome.tally.accepted = delivery.sender.sendings().orders;
            outcome.tally.already_accepted = delivery.skipped;
        }
        // Whatever stopped the import, and whatever happens to its report: what was found so far is told.
        let report = report.map(Report::finish);
        let files = if ran.is_ok() { self.derived(&outcome, &mapping)? } else { Vec::new() };
        let fate = match (&ran, self.dry_run) {
            (Err(_), _) => Fate::Stopped,
            (Ok(()), true) => Fate::DryRun,
            (Ok(()), false) => Fate::Sent,
        };
        let mut faults: Vec<String> = ran.err().map(|error| error.to_string()).into_iter().collect();
        let mut report_path = None;
        match report {
            Some(Ok(path)) => report_path = Some(path.display().to_string()),
            Some(Err(error)) => faults.push(format!("{error}; the orders are not affected")),
            None => {}
        }
        if self.json {
            self.print_json(&outcome, fate, &files, report_path.as_deref(), &faults)?;
        } else {
            self.print_text(&outcome, fate, &mapping, &files, report_path.as_deref())?;
            for fault in &faults {
                eprintln!("kept: {fault}");
            }
            if fate == Fate::Stopped && !self.dry_run {
                let sent = delivery.as_ref().map_or(0, |it| it.sender.sendings().orders);
                eprintln!(
                    "kept: {sent} orders were accepted before it stopped; start the import again, nothing is doubled"
                );
            }
        }
        let fine = faults.is_empty() && outcome.tally.refused_orders == 0;
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn derived(&self, outcome: &Outcome, mapping: &Mapping) -> Result<Vec<Written>> {
        let Some(dir) = &self.derive_to else { return Ok(Vec::new()) };
        let derived = derive::derive(&outcome.demand, mapping);
        let files = derived.write(dir, &self.derive).with_context(|| format!("write to {}", dir.display()))?;
        Ok(files.into_iter().map(|(file, lines)| Written::of(file, lines, &derived)).collect())
    }

    fn print_text(
        &self,
        outcome: &Outcome,
        fate: Fate,
        mapping: &Mapping,
        files: &[Written],
        report: Option<&str>,
    ) -> Result<()> {
        println!(
            "{} by {}, account {}, shop {}",
            self.file.display(),
            self.map.display(),
            mapping.account,
            mapping.shop
        );
        match fate {
            Fate::DryRun => println!("Dry run: nothing is sent, no server is asked.\n"),
            Fate::Sent => println!("Sent to channels.inbound; the sender's log is in {}.\n", self.logs.display()),
            Fate::Stopped => println!("It stopped under way.\n"),
        }
        print!("{}", summary(outcome, fate));
        if self.dry_run && !outcome.examples.is_empty() {
            println!("\nThe first orders, as they would be sent:");
            for body in &outcome.examples {
                let value: serde_json::Value = serde_json::from_slice(body).context("an order is JSON")?;
                println!("{}", serde_json::to_string_pretty(&value)?);
            }
        }
        if !files.is_empty() {
            println!("\nMade from the file (weights, stock, location and customers' classes are synthetic):");
            for it in files {
                println!("{:>14}  lines in {}{}", it.lines, it.file, it.note);
            }
        }
        if let Some(report) = report {
            println!("\nReport: {report}");
        }
        Ok(())
    }

    fn print_json(
        &self,
        outcome: &Outcome,
        fate: Fate,
        files: &[Written],
        report: Option<&str>,
        faults: &[String],
    ) -> Result<()> {
        let examples: Vec<serde_json::Value> = if self.dry_run {
            outcome.examples.iter().map(|body| serde_json::from_slice(body)).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let refusals: Vec<_> =
            outcome.refusals.iter().map(|(number, reasons)| json!({"order": number, "reasons": reasons})).collect();
        let derived: Vec<_> = files.iter().map(|it| json!({"file": it.file, "lines": it.lines})).collect();
        println!(
            "{}",
            json!({
                "file": self.file, "map": self.map, "dry_run": self.dry_run, "finished": fate != Fate::Stopped,
                "found": outcome.tally, "first_refusals": refusals, "examples": examples, "derived": derived,
                "report": report, "faults": faults,
            })
        );
        Ok(())
    }
}

/// A file of derived data.
struct Written {
    file: String,
    lines: usize,
    note: String,
}

impl Written {
    fn of(file: String, lines: usize, derived: &Derived) -> Self {
        let note = if file.ends_with("stock.jsonl") {
            format!(
                ": {} units for {} sold; {} articles are short on purpose",
                derived.stock_units, derived.demand_units, derived.short_skus
            )
        } else {
            String::new()
        };
        Self { file, lines, note }
    }
}

/// The sending half: batches of orders to the broker, and the log of what it took.
struct Delivery {
    runtime: tokio::runtime::Runtime,
    sender: Sender<KafkaOutbox>,
    registry: Registry,
    mapping: Mapping,
    waiting: Vec<Ready>,
    accepted_before: HashSet<(OrderId, String, String)>,
    skipped: u64,
}

impl Delivery {
    fn open(args: &Import, mapping: &Mapping) -> Result<Self> {
        let config = args.config.load()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let registry = runtime.block_on(Registry::open(&config))?;
        let log = SentLog::open(&args.logs, &format!("import-{}", mapping.account))
            .with_context(|| format!("open the sender's log in {}", args.logs.display()))?;
        let accepted_before = if args.resume {
            log.accepted().with_context(|| format!("read the sender's log {}", log.path().display()))?
        } else {
            HashSet::new()
        };
        let outbox = {
            let _inside = runtime.enter();
            kept_runtime::outbox(&config)?
        };
        let manners = Manners { patience: Duration::from_secs(args.patience), ..Manners::default() };
        Ok(Self {
            sender: Sender::new(outbox, log, None, manners),
            runtime,
            registry,
            mapping: mapping.clone(),
            waiting: Vec::with_capacity(BATCH),
            accepted_before,
            skipped: 0,
        })
    }

    fn take(&mut self, ready: Ready) -> Result<(), ImportError> {
        if !self.accepted_before.is_empty()
            && self.accepted_before.contains(&(ready.order_id, "order".to_owned(), hex(&ready.body_sha256)))
        {
            self.skipped += 1;
            return Ok(());
        }
        self.waiting.push(ready);
        if self.waiting.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        let codec = self.registry.codec();
        let failed = |error: SendError| ImportError::Deliver(error.to_string());
        let records: Result<Vec<_>, SendError> =
            self.waiting.drain(..).map(|ready| to_send(&codec, &ready, &self.mapping)).collect();
        let records = records.map_err(failed)?;
        if records.is_empty() {
            return Ok(());
        }
        self.runtime.block_on(self.sender.records(records)).map_err(failed)
    }
}

/// A bar that follows the bytes read; nothing where no person looks on.
struct Bar {
    bar: ProgressBar,
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bar {
    fn new(file: &Path, passes: u64, progress: &Progress) -> Self {
        // The file is read twice.
        let bar = ProgressBar::new(file.metadata().map_or(0, |it| passes * it.len()));
        bar.set_style(
            ProgressStyle::with_template("{wide_bar} {percent}%").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let done = Arc::new(AtomicBool::new(false));
        let thread = (!bar.is_hidden()).then(|| {
            let (bar, done, progress) = (bar.clone(), Arc::clone(&done), progress.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    bar.set_position(progress.bytes());
                    std::thread::sleep(Duration::from_millis(100));
                }
            })
        });
        Self { bar, done, thread }
    }

    fn finish(mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("kept: the progress bar broke; the import did not");
        }
        self.bar.finish_and_clear();
    }
}
