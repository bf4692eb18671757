//! The whole pipeline as it ships: `kept run all` in a process of its own, fed through `channels.inbound`, until the
//! read model shows that fulfilment was asked for. Two runs in one: a drain of what waits (how fast), and a steady
//! stream at half that speed (how soon).

use std::{
    io::Write,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use kept_benches::{cpu, report::Row, topics};
use kept_runtime::{config::Config, registry::Registry};
use kept_schemas::{
    Codec, Micros, OrderId, Topic,
    inputs::{Condition, StockCounted, StockKind},
};
use kept_store::{
    Client, StoreError, drop_all,
    pg::{Purpose, connect},
    summary,
};
use serde_json::json;
use tokio::runtime::Handle;

use super::{
    Plan,
    orders::{self, ACCOUNT, Goods, SHOP, SKUS},
};

/// How long the steady stream lasts.
const STEADY: Duration = Duration::from_secs(20);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(420);

/// A deployment of the bench's own: topics, tables and one running process.
struct Deployment {
    config: Config,
    codec: Arc<Codec>,
    folder: PathBuf,
    child: Option<Child>,
    ops: String,
}

/// Measures the pipeline with orders of `lines` lines; the goals stand for three lines.
pub fn rows(plan: &Plan, config: &Config, handle: &Handle, lines: usize) -> Result<Vec<Row>> {
    let (mut rate, mut cost, mut own, mut memory) = (vec![], vec![], vec![], vec![]);
    let (mut p50, mut p99) = (vec![], vec![]);
    for run in 0..plan.runs {
        let mut deployment = Deployment::make(plan, config, handle, &format!("pipe{lines}x{run}_"))?;
        // Stock first: an order that meets none waits, and is woken by each of its goods.
        deployment.start(plan)?;
        deployment.wait_for_stock(handle)?;
        deployment.stop()?;
        deployment.fill(plan, lines, 0..plan.orders)?;
        let busy = busy_seconds()?;
        deployment.start(plan)?;
        let seen = deployment.wait_for(handle, plan.orders)?;
        let spent = busy_seconds()? - busy;
        let speed = sustained(&seen);
        rate.push(speed);
        cost.push(spent * 1e6 / plan.orders as f64);
        let usage = deployment.usage();
        own.push(usage.cpu_seconds * 1e6 / plan.orders as f64);
        memory.push(usage.peak_bytes as f64 / 1e6);
        let (median, late) = deployment.steady(plan, handle, lines, speed / 2.0)?;
        p50.push(median * 1e3);
        p99.push(late * 1e3);
        deployment.end(handle)?;
    }
    let name = |what: &str| format!("pipeline, {lines} lines: {what}");
    let goal = |value: f64| (lines == 3).then_some(value);
    let how = plan.config("one process runs every step, broker and database on the same machine");
    Ok(vec![
        Row::plain(&name("accepted to asked for, sustained"), "orders/s", &rate, goal(3_000.0), how.clone()),
        Row::plain(&name("all processor time of the machine"), "µs/order", &cost, goal(667.0), how.clone()).at_most(),
        Row::plain(&name("processor time of `kept run all`"), "µs/order", &own, None, how.clone()),
        Row::plain(&name("peak memory of `kept run all`"), "MB", &memory, Some(150.0), how.clone()).at_most(),
        Row::plain(&name("seen after, at half that speed, p50"), "ms", &p50, None, how.clone()),
        Row::plain(&name("seen after, at half that speed, p99"), "ms", &p99, goal(500.0), how).at_most(),
    ])
}

impl Deployment {
    fn make(plan: &Plan, config: &Config, handle: &Handle, tag: &str) -> Result<Self> {
        let mut config = config.clone();
        config.prefix = format!("{}{tag}", plan.prefix);
        config.partitions = plan.partitions;
        let folder = std::env::temp_dir().join(&config.prefix);
        std::fs::create_dir_all(&folder).context("a folder for the bench")?;
        let reference = folder.join("reference.jsonl");
        std::fs::write(&reference, reference_lines()).context("write reference data")?;
        let mut made =
            Self { config, codec: Arc::default(), folder, child: None, ops: format!("127.0.0.1:{}", free_port()?) };
        made.verb(&["migrate"])?;
        made.verb(&["topics", "apply"])?;
        made.verb(&["reference", "apply", &reference.display().to_string()])?;
        made.codec = handle.block_on(Registry::open(&made.config)).context("the registry")?.codec();
        let stock = Goods::Spread(SKUS).all().into_iter().map(|sku| {
            let count = StockCounted {
                sku: sku.clone(),
                location_id: "WH".into(),
                condition: Condition::Sellable,
                count_id: format!("bench-{sku}"),
                kind: StockKind::Receipt,
                quantity: 100_000_000,
                at: Micros(1),
                source: "feed".into(),
            };
            (sku, made.codec.encode(&count).expect("a count fits").bytes())
        });
        topics::fill(&plan.brokers, &made.config.topic(Topic::StockCounted), stock)?;
        Ok(made)
    }

    /// Our own program with this deployment's addresses.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("our own program")?);
        command
            .args(arguments)
            .env("KEPT_KAFKA", &self.config.kafka)
            .env("KEPT_REGISTRY", &self.config.registry)
            .env("KEPT_POSTGRES", self.config.postgres.expose())
            .env("KEPT_PREFIX", &self.config.prefix)
            .env("KEPT_PARTITIONS", self.config.partitions.to_string())
            .env("KEPT_OPS", &self.ops)
            .env("KEPT_HTTP", "127.0.0.1:0")
            .stdin(Stdio::null());
        Ok(command)
    }

    fn verb(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(arguments)?.output().context("run our own program")?;
        if !output.status.success() {
            bail!("kept {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn fill(&self, plan: &Plan, lines: usize, numbers: std::ops::Range<usize>) -> Result<()> {
        let records = numbers.map(|number| orders::inbound(&self.codec, number, lines));
        topics::fill(&plan.brokers, &self.config.topic(Topic::ChannelsInbound), records)?;
        Ok(())
    }

    fn start(&mut self, plan: &Plan) -> Result<()> {
        let log = std::fs::File::create(self.folder.join("run.log")).context("a log for the process")?;
        let child = self
            .command(&["run", "all"])?
            .env("KEPT_BATCH_MAX_RECORDS", plan.batch.to_string())
            .env("KEPT_BATCH_WINDOW_MS", plan.window.as_millis().to_string())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start `kept run all`")?;
        self.child = Some(child);
        Ok(())
    }

    fn wait_for_stock(&mut self, handle: &Handle) -> Result<()> {
        let skus = i64::try_from(SKUS).context("SKUs")?;
        self.wait(handle, "not all stock was counted", async |client| {
            Ok((summary::stock_rows(client).await? >= skus).then_some(()))
        })
    }

    /// When each order's request for fulfilment was to be seen, once `orders` of them are.
    fn wait_for(&mut self, handle: &Handle, orders: usize) -> Result<Vec<(OrderId, SystemTime)>> {
        let all = i64::try_from(orders).context("orders")?;
        self.wait(handle, &format!("not all of {orders} orders were asked for"), async |client| {
            if summary::requested(client).await? < all {
                return Ok(None);
            }
            Ok(Some(summary::requested_at(client).await?))
        })
    }

    /// Looks into the read model until `look` finds something.
    fn wait<T>(
        &mut self,
        handle: &Handle,
        late: &str,
        look: impl AsyncFn(&Client) -> Result<Option<T>, StoreError>,
    ) -> Result<T> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            std::thread::sleep(Duration::from_millis(250));
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().context("look at the process")?
            {
                bail!("`kept run all` ended early ({status}); its log is {}", self.folder.join("run.log").display());
            }
            let prefix = self.config.store_prefix();
            let url = self.config.postgres.expose();
            let found = handle.block_on(async {
                let client = connect(url, &prefix.read(), Purpose::Command).await?;
                anyhow::Ok(look(&client).await?)
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
            if Instant::now() > give_up {
                bail!("{late} within {} s", PATIENCE.as_secs());
            }
        }
    }

    /// Sends a steady stream and gives the median and the 99th percentile of the time until each is seen, in seconds.
    /// Counted from when each was due to be sent, so that a stalled sender counts against us.
    fn steady(&mut self, plan: &Plan, handle: &Handle, lines: usize, rate: f64) -> Result<(f64, f64)> {
        let count = (rate * STEADY.as_secs_f64()) as usize;
        let numbers = plan.orders..plan.orders + count;
        let ready: Vec<(String, Vec<u8>)> = numbers.map(|number| orders::inbound(&self.codec, number, lines)).collect();
        let due: Vec<(String, f64)> =
            ready.iter().enumerate().map(|(at, (key, _))| (key.clone(), at as f64 / rate)).collect();
        let begun = SystemTime::now();
        let paced = ready.into_iter().enumerate().map(|(at, record)| {
            let due = Duration::from_secs_f64(at as f64 / rate);
            if let Some(early) = due.checked_sub(begun.elapsed().unwrap_or_default()) {
                std::thread::sleep(early);
            }
            record
        });
        topics::fill_soon(&plan.brokers, &self.config.topic(Topic::ChannelsInbound), paced)?;
        let seen: std::collections::BTreeMap<String, SystemTime> = self
            .wait_for(handle, plan.orders + count)?
            .into_iter()
            .map(|(order, at)| (order.to_string(), at))
            .collect();
        // The first seconds are a running start.
        let mut delays: Vec<f64> = due
            .iter()
            .filter(|(_, due)| *due > 3.0)
            .filter_map(|(key, due)| {
                let sent = begun + Duration::from_secs_f64(*due);
                seen.get(key).map(|at| at.duration_since(sent).unwrap_or_default().as_secs_f64())
            })
            .collect();
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| delays.get((delays.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
        Ok((at(0.5), at(0.99)))
    }

    /// What the running process has used so far.
    fn usage(&self) -> cpu::Usage {
        self.child.as_ref().and_then(|child| cpu::of(child.id())).unwrap_or_default()
    }

    fn end(mut self, handle: &Handle) -> Result<()> {
        self.stop()?;
        let names: Vec<String> = Topic::ALL.iter().map(|&topic| self.config.topic(topic)).collect();
        handle.block_on(async {
            topics::delete(&self.config.kafka, &names).await?;
            drop_all(self.config.postgres.expose(), &self.config.store_prefix()).await?;
            anyhow::Ok(())
        })?;
        std::fs::remove_dir_all(&self.folder).context("remove the bench's folder")
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).context("a pid")?;
        // SAFETY: a signal to a process of ours that has not been waited for yet.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let give_up = Instant::now() + Duration::from_secs(20);
        while child.try_wait().context("look at the process")?.is_none() {
            if Instant::now() > give_up {
                child.kill().context("kill the process")?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("kept: the bench's process may still run: {error:#}");
        }
    }
}

fn reference_lines() -> Vec<u8> {
    let mut text = Vec::new();
    let mut line = |topic: &str, value: serde_json::Value| {
        writeln!(text, "{}", json!({ "topic": topic, "value": value })).expect("memory can be written");
    };
    line("accounts", json!({ "account_id": ACCOUNT, "channel": "storefront", "shop": SHOP, "active": true }));
    line(
        "locations",
        json!({ "location_id": "WH", "name": "Warehouse", "kind": "warehouse", "country": "NL",
                              "priority": 1, "active": true }),
    );
    for sku in Goods::Spread(SKUS).all() {
        line(
            "products",
            json!({ "sku": sku, "description": "Enamel mug", "weight_grams": 350,
                                 "vat_class": "standard", "active": true }),
        );
    }
    text
}

/// Orders a second over the middle nine tenths.
fn sustained(seen: &[(OrderId, SystemTime)]) -> f64 {
    let mut times: Vec<SystemTime> = seen.iter().map(|(_, at)| *at).collect();
    times.sort_unstable();
    let (from, to) = (times.len() / 20, times.len() - 1 - times.len() / 20);
    let seconds = times[to].duration_since(times[from]).unwrap_or_default().as_secs_f64();
    (to - from) as f64 / seconds
}

/// Processor seconds that the whole machine has spent working so far.
fn busy_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    // user, nice, system, then idle and iowait, irq, softirq.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&at| fields.get(at)).sum::<f64>();
    Ok(busy / 100.0)
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("a free port")?;
    Ok(listener.local_addr().context("a free port")?.port())
}
