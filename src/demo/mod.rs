//! `kept demo`: a day of orders through the whole pipeline on real servers, as a newcomer would do it by hand: every
//! stage is one of Kept's own verbs in a process of its own.

mod stage;
pub mod summary;

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use kept_runtime::config::Config;
use kept_schemas::values::{UnitPrice, currency_decimals};
use kept_stack::servers::Home;
use kept_store::{
    pg::{Purpose, connect},
    summary::{
        InFlight, Summary, accepted_at_the_door, accepted_on_the_books, held_example, in_flight, read, requested_at,
    },
};
use serde_json::Value;
use tokio::runtime::Runtime;

use stage::{OPS, PORT_RANGE, free_near, get, quiet, verb};
use summary::{Delays, From, Speed, amount, grouped, words};

/// The mapping of the year of orders, so that `--data` needs nothing beside the file.
const YEAR: &str = include_str!("../../channels/maps/online-retail.toml");
/// Says whose data lies in the folder.
const MARK: &str = "demo";
/// Seconds of the simulated warehouse's time in one of ours: an hour of its work takes half a second.
const SPEED: &str = "7200";
/// How the demo shortens what takes hours: a payment may take a minute, a hold an hour.
const POLICY: &str = r#"{"topic":"policies","value":{"scope":"default","payment_due_seconds":60,"transfer_due_seconds":1800,"hold_due_seconds":3600,"despatch_due_seconds":600,"total_tolerance_minor":1}}"#;

/// What the demo is asked to do.
pub struct Demo {
    /// A file of orders in place of a made-up day.
    pub data: Option<PathBuf>,
    pub map: Option<PathBuf>,
    pub orders: u64,
    pub seed: u64,
    pub patience: Duration,
    pub json: bool,
}

/// What it came to.
pub struct Came {
    pub checked: bool,
    pub settled: bool,
    pub reconciled: bool,
}

/// Runs the demo. `home`: where servers, data and logs are; `local`: the servers are ours to empty.
pub fn run(demo: &Demo, home: &Home, config: &mut Config) -> Result<Came> {
    let folder = home.root().join(MARK);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let logs = home.logs();
    // Ports that are taken would stop the demo late; so free ones are looked for now.
    config.http = free_near(8080..8080 + PORT_RANGE)?;
    config.ops = free_near(OPS..OPS + PORT_RANGE)?;
    let runtime = Runtime::new().context("start a runtime")?;

    say("tables and topics");
    quiet(config, &["migrate"])?;
    quiet(config, &["topics", "apply"])?;
    let plan = prepare(demo, config, &folder)?;
    for file in &plan.reference {
        quiet(config, &["reference", "apply", &file.display().to_string()])?;
    }

    say("starting `kept run all` and the simulated warehouse and carrier");
    start(home, config, "run", &["run", "all"])?;
    wait_ready(home, config)?;
    let logs_text = logs.display().to_string();
    start(home, config, "simulate", &["simulate", "--speed", SPEED, "--logs", &logs_text])?;
    quiet(config, &["stock", "receive", &plan.stock.display().to_string()])?;

    say(&plan.sending);
    let began = SystemTime::now();
    let clock = Instant::now();
    let mut senders = Vec::new();
    for (at, arguments) in plan.senders.iter().enumerate() {
        let out = folder.join(format!("send-{}.out", at + 1));
        senders.push((spawn(config, arguments, &out)?, out));
    }
    let mut view = View::new(&runtime, config)?;
    while !senders.is_empty() {
        let mut sending = Vec::new();
        for (mut sender, out) in senders {
            match sender.try_wait().context("look at a sender")? {
                None => sending.push((sender, out)),
                Some(status) if status.success() => {}
                Some(status) => bail!("sending ended with {status}; what it said:\n{}", tail(&out)),
            }
        }
        senders = sending;
        view.show(&runtime)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let sending = clock.elapsed();
    say(&format!("sent in {:.0} s; waiting until nothing moves any more", sending.as_secs_f64()));
    let settled = view.settle(&runtime, demo.patience)?;
    let (day, example, delays) = runtime.block_on(look(config))?;
    let took =
        view.last.map_or_else(|| clock.elapsed(), |it| it.last_event_at.duration_since(began).unwrap_or_default());
    let speed = Speed { took, sending, delays };

    // With --json, the object alone goes to where a script reads.
    let tell = |text: &str| if demo.json { eprintln!("{text}") } else { println!("{text}") };
    tell(&format!("\n{}\n{}", plan.title, words(&day)));
    if let Some(order) = example {
        let life = verb(config, &["explain", &order])?;
        tell(&format!("One order that waits, in full (./kept explain {order}):\n\n{life}"));
    }
    tell(&summary::speed(&day, &speed));
    let reconciled = match &plan.expected {
        None => true,
        Some(expected) => {
            let (same, text) = reconcile(expected, &day);
            tell(&text);
            tell(&left_out(&expected["found"], folder.join("report.csv").as_path()));
            same
        }
    };
    tell("What the checker says, from outside facts only:\n");
    let mut check = stage::command(config, &["check", "--logs", &logs_text])?;
    if demo.json {
        check.stdout(std::io::stderr());
    }
    let check = check.status().context("run the check")?;
    if !settled {
        tell(&format!(
            "\nNot everything came to rest in time; `./kept status` and the logs in {} tell more.",
            logs.display()
        ));
    }
    tell(&format!(
        "\nStill up, for a look: pages http://{} · metrics http://{}/metrics · psql \"$KEPT_POSTGRES\" after `. {}`\n\
         Stop it with ./kept down (and --data to forget the data).",
        config.http,
        config.ops,
        home.env_file().display()
    ));
    if demo.json {
        let report = serde_json::json!({
            "orders": day.orders, "untouched": day.untouched, "went_on": day.went_on, "waiting": day.waiting,
            "events": day.events, "dead_letters": day.dead_letters, "sending_seconds": sending.as_secs_f64(),
            "took_seconds": took.as_secs_f64(), "p50_ms": delays.map(|it| it.p50.as_millis()),
            "p99_ms": delays.map(|it| it.p99.as_millis()), "measured": delays.map(|it| it.measured()),
            "check": check.success(), "settled": settled, "reconciled": reconciled,
        });
        println!("{report}");
    }
    Ok(Came { checked: check.success(), settled, reconciled })
}

/// What is sent, and how.
struct Plan {
    title: String,
    sending: String,
    reference: Vec<PathBuf>,
    stock: PathBuf,
    /// Verbs that send, all at the same time.
    senders: Vec<Vec<String>>,
    /// What the file holds, by the import's own count.
    expected: Option<Value>,
}

fn prepare(demo: &Demo, config: &Config, folder: &Path) -> Result<Plan> {
    let file = |name: &str| folder.join(name);
    let text = |path: &Path| path.display().to_string();
    let policy = file("policy.jsonl");
    fs::write(&policy, format!("{POLICY}\n")).context("write the demo's policy")?;
    let logs = text(&folder.parent().unwrap_or(folder).join("logs"));
    let Some(data) = &demo.data else {
        say(&format!(
            "making up a day of {} orders (seed {}); nothing in it is real",
            grouped_u64(demo.orders),
            demo.seed
        ));
        let (orders, seed) = (demo.orders.to_string(), demo.seed.to_string());
        quiet(config, &["sample", "--to", &text(folder), "--orders", &orders, "--seed", &seed])?;
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
        let (items, keys) = (text(&file("items.jsonl")), text(&file("keys.json")));
        let mut senders = vec![owned(&["send", &items, "--keys", &keys, "--logs", &logs])];
        for map in mappings(&file("files"))? {
            let orders = text(&map.with_extension("jsonl"));
            senders.push(owned(&["import", &orders, "--map", &text(&map), "--logs", &logs]));
        }
        let by_file = match senders.len() - 1 {
            0 => String::new(),
            files => format!("by file (`kept import` of {files} from {}), ", text(&file("files"))),
        };
        return Ok(Plan {
            title: format!(
                "A made-up day of a Dutch merchant (synthetic, seed {}; stock, picks and scans too)",
                demo.seed
            ),
            sending: format!(
                "sending the day by HTTP, {by_file}and by topic (forms on channels.inbound, whole orders on \
                 orders.received), as fast as it is taken"
            ),
            reference: vec![file("reference.jsonl"), policy],
            stock: file("stock.jsonl"),
            senders,
            expected: None,
        });
    };
    let map = match &demo.map {
        Some(map) => map.clone(),
        None => {
            fs::write(file("map.toml"), YEAR).context("write the mapping")?;
            file("map.toml")
        }
    };
    say(&format!("reading {}: what would be sent, and products and stock for it (stock is made up)", data.display()));
    let derived = file("derived");
    let kinds = "products,stock,customers,locations,accounts";
    let dry = verb(
        config,
        &[
            "import",
            &text(data),
            "--map",
            &text(&map),
            "--dry-run",
            "--json",
            "--derive",
            kinds,
            "--derive-to",
            &text(&derived),
        ],
    )?;
    let expected: Value = serde_json::from_str(&dry).context("the import's answer is JSON")?;
    let mut reference: Vec<PathBuf> = ["products", "customers", "locations", "accounts"]
        .iter()
        .map(|it| derived.join(format!("{it}.jsonl")))
        .collect();
    reference.push(policy);
    Ok(Plan {
        title: format!("The orders of {} (addresses, payments, stock, picks and scans are synthetic)", data.display()),
        sending: "importing the file".into(),
        reference,
        stock: derived.join("stock.jsonl"),
        senders: vec![
            ["import", &text(data), "--map", &text(&map), "--logs", &logs, "--report", &text(&file("report.csv"))]
                .map(str::to_owned)
                .to_vec(),
        ],
        expected: Some(expected),
    })
}

/// The mappings of a folder's files of orders, in order of their names.
fn mappings(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        let path = entry.context("look at a file")?.path();
        if path.extension().is_some_and(|it| it == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn grouped_u64(n: u64) -> String {
    grouped(i64::try_from(n).unwrap_or(i64::MAX))
}

fn start(home: &Home, config: &Config, name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = stage::command(config, arguments)?;
    home.processes().spawn_detached(name, &mut command, &home.log(name))?;
    Ok(())
}

fn spawn(config: &Config, arguments: &[String], out: &Path) -> Result<Child> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let file = fs::File::create(out).with_context(|| format!("write {}", out.display()))?;
    let mut command: Command = stage::command(config, &arguments)?;
    command.stdout(file.try_clone().context("a second handle")?).stderr(file).stdin(Stdio::null());
    command.spawn().context("start the sender")
}

fn wait_ready(home: &Home, config: &Config) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(90);
    while !get(&config.ops, "/readyz").is_ok_and(|status| status == 200) {
        let running = home.processes().running("run")?;
        if running.is_none() || Instant::now() > give_up {
            bail!("`kept run all` does not get ready; the end of its log:\n{}", tail(&home.log("run")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The read model, looked at again and again.
struct View {
    client: tokio_postgres::Client,
    last: Option<InFlight>,
    told: Instant,
    terminal: bool,
}

impl View {
    fn new(runtime: &Runtime, config: &Config) -> Result<Self> {
        let client = runtime.block_on(connect(config.read_url(), &config.store_prefix().read(), Purpose::Command))?;
        Ok(Self { client, last: None, told: Instant::now(), terminal: std::io::stderr().is_terminal() })
    }

    fn show(&mut self, runtime: &Runtime) -> Result<InFlight> {
        let now = runtime.block_on(in_flight(&self.client))?;
        let line = format!(
            "on the books {} · on their way {} · delivered or cancelled {} · waiting {}",
            grouped(now.orders),
            grouped(now.moving()),
            grouped(now.ended),
            grouped(now.held)
        );
        if self.terminal {
            eprint!("\r{line:<100}");
            std::io::stderr().flush().context("print progress")?;
        } else if self.told.elapsed() > Duration::from_secs(5) {
            eprintln!("{line}");
            self.told = Instant::now();
        }
        self.last = Some(now);
        Ok(now)
    }

    /// Waits until no order is on its way and nothing new has happened for a while. False when patience ran out.
    fn settle(&mut self, runtime: &Runtime, patience: Duration) -> Result<bool> {
        let give_up = Instant::now() + patience;
        let mut still_since = Instant::now();
        let mut before = self.last;
        loop {
            let now = self.show(runtime)?;
            if before != Some(now) {
                before = Some(now);
                still_since = Instant::now();
            }
            let quiet_for = still_since.elapsed();
            if now.moving() == 0 && quiet_for > Duration::from_secs(5) {
                break;
            }
            if Instant::now() > give_up {
                self.end_line();
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        self.end_line();
        Ok(true)
    }

    fn end_line(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}

type Looked = (Summary, Option<String>, Option<Delays>);

async fn look(config: &Config) -> Result<Looked> {
    let client = connect(config.read_url(), &config.store_prefix().read(), Purpose::Command).await?;
    let day = read(&client).await?;
    let example = held_example(&client).await?.map(|order| order.to_string());
    let ledger = connect(config.postgres.expose(), &config.store_prefix().ledger(), Purpose::Command).await?;
    let door: BTreeMap<_, _> = accepted_at_the_door(&ledger).await?.into_iter().collect();
    let requested = requested_at(&client).await?;
    let mut delays = Delays::of(From::Door, &door, &requested);
    if delays.is_none() {
        // No order came by HTTP, as with a file; what is known of each is when it came on the books.
        let books = accepted_on_the_books(&client).await?.into_iter().collect();
        delays = Delays::of(From::Books, &books, &requested);
    }
    Ok((day, example, delays))
}

/// Holds the file's own figures against the books: whether all are the same, and each in words.
fn reconcile(expected: &Value, day: &Summary) -> (bool, String) {
    let mut text = "The file against the books:\n\n".to_owned();
    let mut same = true;
    let mut line = |what: &str, file: i64, books: i64, shown: &dyn Fn(i64) -> String| {
        let verdict = if file == books { "the same" } else { "NOT the same" };
        let (of_file, of_books) = (shown(file), shown(books));
        text.push_str(&format!("  {what:<28} file {of_file:>18}   books {of_books:>18}   {verdict}\n"));
        same &= file == books;
    };
    let found = &expected["found"];
    line("orders", found["orders"].as_i64().unwrap_or(-1), day.orders, &grouped);
    for money in &day.money {
        let of = &found["currencies"][&money.currency];
        let (goods, charges) = (&of["goods"], &of["charges"]);
        let shown = |minor: i64| amount(minor, &money.currency);
        let rounded = |sum: &Value| minor(&sum["rounded"], &money.currency);
        line(&format!("{} units", money.currency), goods["units"].as_i64().unwrap_or(-1), money.units, &grouped);
        line(&format!("{} total", money.currency), rounded(goods) + rounded(charges), money.total_minor, &shown);
        line(&format!("{} of it charges", money.currency), rounded(charges), money.charges_minor, &shown);
    }
    (same, text)
}

/// What of the file is not on the books, and what on them is out of the ordinary; by the import's own count.
fn left_out(found: &Value, report: &Path) -> String {
    let number = |value: &Value| grouped(value.as_i64().unwrap_or(0));
    let mut text = "What of the file was not sent, by the mapping's own rules:\n\n".to_owned();
    for (name, it) in found["skipped"].as_object().into_iter().flatten() {
        let (orders, rows, units) = (number(&it["orders"]), number(&it["rows"]), number(&it["units"]));
        let money = it["exact"].as_str().unwrap_or("?");
        text.push_str(&format!("  {orders:>9}  {name}: {rows} rows, {units} units, {money} in money\n"));
    }
    let more = [
        ("refused_orders", "were refused, each with its rows and reasons in the report"),
        ("zero_total_orders", "have a total of zero, and were sent"),
        ("orders_without_goods", "have charges only; they were sent, and wait as \"no goods\""),
    ];
    for (name, what) in more {
        text.push_str(&format!("  {:>9}  {what}\n", number(&found[name])));
    }
    text.push_str(&format!("\nRow by row: {}\n", report.display()));
    text
}

/// An amount that the import printed, in minor units; one that cannot be read agrees with nothing.
fn minor(text: &Value, currency: &str) -> i64 {
    let read = || {
        let price = UnitPrice::parse(text.as_str()?)?;
        price.total_minor(1, currency_decimals(currency)?)
    };
    read().unwrap_or(i64::MIN / 4)
}

/// Tells what is being done now.
fn say(what: &str) {
    eprintln!("· {what}");
}
