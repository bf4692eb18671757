//! The ledger's driver over real servers (`KEPT_KAFKA`, `KEPT_POSTGRES`), with seeded faults; what comes out must equal
//! what the model gives for the same records, or the model is not true. Faults here: workers killed and started again,
//! sessions ended, a second owner. Stops, late ends, networks and topics made anew on real servers are `kept chaos`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kept_processors::ledger::LedgerEvent;
use kept_runtime::{
    counters::Counters,
    kafka::{KafkaLog, KafkaOutbox, KafkaSettings, client_config},
    ledger_step::{LedgerStep, StepSettings},
    log::{Change, Log, LogRecord, Outgoing},
    schemas::Fixed,
    timers::Outbox,
};
use kept_schemas::{Codec, EventId, Topic};
use kept_store::{
    ledger::PgLedger,
    migrate::{drop_all, migrate_ledger},
    pg::{Prefix, Purpose, connect},
    seam::TopicPartition,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::{
    TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    schedule::{INPUTS, OUTPUTS},
    toy::ToyRules,
    world::PARTITIONS,
};

/// What came out: every visible event by cause, and each order's total in the end. The order of two inputs of one
/// order on different topics is free, and so are the numbers they get.
pub type Signature = (Vec<(Option<EventId>, Topic)>, BTreeMap<String, (usize, i64)>);

pub fn signature(codec: &Codec, visible: &[LogRecord]) -> Result<Signature, String> {
    let mut events: Vec<(Option<EventId>, Topic)> =
        visible.iter().map(|it| (it.headers.event_id, it.at.topic)).collect();
    events.sort_unstable();
    let mut orders: BTreeMap<String, (Vec<i64>, i64)> = BTreeMap::new();
    for record in visible {
        let value = record.value.as_deref().unwrap_or_default();
        let event = LedgerEvent::decode(codec, record.at.topic, value).map_err(|error| error.to_string())?;
        let Some((order, seq)) = event.as_ref().and_then(LedgerEvent::place) else {
            continue;
        };
        let entry = orders.entry(order.to_string()).or_default();
        entry.0.push(seq);
        if let Some(LedgerEvent::Paid(it)) = event {
            entry.1 = entry.1.max(it.captured_minor);
        }
    }
    let mut totals = BTreeMap::new();
    for (order, (mut seqs, total)) in orders {
        seqs.sort_unstable();
        if seqs.iter().zip(1..).any(|(have, want)| *have != want) {
            return Err(format!("events of {order} are not dense: {seqs:?}"));
        }
        totals.insert(order, (seqs.len(), total));
    }
    Ok((events, totals))
}

pub struct Servers {
    brokers: String,
    postgres: String,
    runtime: tokio::runtime::Runtime,
}

struct Worker {
    kill: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Servers {
    pub fn there() -> Self {
        let named = |variable: &str| {
            std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no server to test with: `./kept test`"))
        };
        let (brokers, postgres) = (named("KEPT_KAFKA"), named("KEPT_POSTGRES"));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        Self { brokers, postgres, runtime }
    }

    fn settings(&self, prefix: &str, group: &str, slot: &str, topics: &[Topic]) -> KafkaSettings {
        KafkaSettings {
            brokers: self.brokers.clone(),
            prefix: format!("{prefix}."),
            group: format!("{prefix}.{group}"),
            transactional_id: format!("{prefix}.{slot}"),
            topics: topics.to_vec(),
            properties: BTreeMap::new(),
        }
    }

    fn start(&self, prefix: &str, slot: usize, codec: &Arc<Codec>, counters: &Arc<Counters>) -> Worker {
        let kill: Arc<AtomicBool> = Arc::default();
        let killed = Arc::clone(&kill);
        let settings = self.settings(prefix, "ledger", &format!("slot-{slot}"), &INPUTS);
        let (url, tables) = (self.postgres.clone(), Prefix::new(&format!("{prefix}_")).expect("a prefix"));
        let (schemas, counters) = (Fixed(Arc::clone(codec)), Arc::clone(counters));
        let handle = self.runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            handle.block_on(async move {
                let ledger = loop {
                    match PgLedger::connect(&url, &tables, "ledger").await {
                        Ok(it) => break it,
                        Err(_) if !killed.load(Ordering::Relaxed) => {
                            tokio::time::sleep(Duration::from_millis(50)).await
                        }
                        // It is told to die, and has not begun.
                        Err(_) => return Ok(()),
                    }
                };
                let log = KafkaLog::new(settings).map_err(|error| error.to_string())?;
                let mut how = StepSettings::new("ledger");
                how.max_records = 7;
                how.window = Duration::from_millis(30);
                how.chunk = 3;
                how.careful = 3;
                how.retry = Duration::from_millis(50);
                let mut step = LedgerStep::new(log, ledger, ToyRules, schemas, Box::new(Arc::default), how);
                step.counters = counters;
                let killing = async {
                    while !killed.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_micros(300)).await;
                    }
                };
                // Killed at whatever await it stands at: the future is dropped.
                tokio::select! {
                    biased;
                    () = killing => Ok(()),
                    ended = step.run() => ended.map_err(|error| error.to_string()),
                }
            })
        });
        Worker { kill, thread }
    }

    /// Sends `inputs` through two workers under seeded faults; gives what is visible in the end.
    pub fn run(
        &self,
        seed: u64,
        inputs: Vec<Outgoing>,
        codec: &Arc<Codec>,
        counters: &Arc<Counters>,
    ) -> Result<Vec<LogRecord>, String> {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
        let prefix = format!("sim{}", nanos % 1_000_000_000_000);
        let tables = Prefix::new(&format!("{prefix}_")).expect("a prefix");
        let admin: AdminClient<DefaultClientContext> =
            client_config(&self.brokers, &BTreeMap::new()).create().expect("admin client");
        let topics: Vec<Topic> = INPUTS.iter().chain(&OUTPUTS).copied().collect();
        let names: Vec<String> = topics.iter().map(|topic| format!("{prefix}.{topic}")).collect();
        self.runtime.block_on(async {
            let new: Vec<NewTopic<'_>> =
                names.iter().map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))).collect();
            admin.create_topics(&new, &AdminOptions::new()).await.map_err(|error| error.to_string())?;
            migrate_ledger(&self.postgres, &tables).await.map_err(|error| error.to_string())
        })?;
        let result = self.play(seed, &prefix, inputs, codec, counters);
        if std::env::var_os("KEPT_AGREE_KEEP").is_some() {
            eprintln!("kept: {prefix}");
            return result;
        }
        self.runtime.block_on(async {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let _ = admin.delete_topics(&names, &AdminOptions::new()).await;
            let _ = drop_all(&self.postgres, &tables).await;
        });
        result
    }

    fn play(
        &self,
        seed: u64,
        prefix: &str,
        mut inputs: Vec<Outgoing>,
        codec: &Arc<Codec>,
        counters: &Arc<Counters>,
    ) -> Result<Vec<LogRecord>, String> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut outbox = KafkaOutbox::new(self.settings(prefix, "-", "-", &[])).map_err(|error| error.to_string())?;
        let tables = Prefix::new(&format!("{prefix}_")).expect("a prefix");
        let command = self
            .runtime
            .block_on(connect(&self.postgres, &tables.ledger(), Purpose::Command))
            .map_err(|error| error.to_string())?;
        let mut workers: Vec<(usize, Worker)> =
            (0..2).map(|slot| (slot, self.start(prefix, slot, codec, counters))).collect();
        inputs.reverse();
        while !inputs.is_empty() {
            let some = rng.random_range(1..=8).min(inputs.len());
            let chunk: Vec<Outgoing> = inputs.split_off(inputs.len() - some).into_iter().rev().collect();
            self.runtime.block_on(outbox.send(chunk)).map_err(|error| error.to_string())?;
            std::thread::sleep(Duration::from_millis(rng.random_range(5..150)));
            match rng.random_range(0..10) {
                0..3 => {
                    let (slot, worker) = workers.remove(rng.random_range(0..workers.len()));
                    worker.kill.store(true, Ordering::Relaxed);
                    // Sometimes the next one on the slot starts while the old one still dies.
                    if rng.random_bool(0.5) {
                        workers.push((slot, self.start(prefix, slot, codec, counters)));
                        join(worker)?;
                    } else {
                        join(worker)?;
                        workers.push((slot, self.start(prefix, slot, codec, counters)));
                    }
                }
                3..5 => {
                    let name = Purpose::Ledger.session(&tables.ledger());
                    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
                    self.runtime.block_on(command.execute(end, &[&name])).map_err(|error| error.to_string())?;
                }
                5 if workers.len() < 3 => {
                    // A second owner of a slot, for a while.
                    let slot = rng.random_range(0..2);
                    workers.push((slot, self.start(prefix, slot, codec, counters)));
                }
                6 if workers.len() == 3 => {
                    let (_, worker) = workers.remove(0);
                    worker.kill.store(true, Ordering::Relaxed);
                    join(worker)?;
                }
                _ => {}
            }
        }
        // One owner a slot from here on.
        while let Some(extra) = (0..workers.len()).find(|&at| workers[..at].iter().any(|it| it.0 == workers[at].0)) {
            let (_, worker) = workers.remove(extra);
            worker.kill.store(true, Ordering::Relaxed);
            join(worker)?;
        }
        for slot in 0..2 {
            if !workers.iter().any(|it| it.0 == slot) {
                workers.push((slot, self.start(prefix, slot, codec, counters)));
            }
        }
        let visible = self.runtime.block_on(self.settle(prefix, &workers));
        for (_, worker) in workers {
            worker.kill.store(true, Ordering::Relaxed);
            join(worker)?;
        }
        visible
    }

    /// Waits until every input is decided and emitted, and no transaction hides an output.
    async fn settle(&self, prefix: &str, workers: &[(usize, Worker)]) -> Result<Vec<LogRecord>, String> {
        let said = |error: kept_runtime::log::LogError| error.to_string();
        // Looks at the group's offsets without being a member of it.
        let group: BaseConsumer = client_config(&self.brokers, &BTreeMap::new())
            .set("group.id", format!("{prefix}.ledger"))
            .create()
            .map_err(|error| error.to_string())?;
        let plain: BaseConsumer = client_config(&self.brokers, &BTreeMap::new())
            .set("group.id", format!("{prefix}.ledger"))
            .set("isolation.level", "read_uncommitted")
            .create()
            .map_err(|error| error.to_string())?;
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some((slot, _)) = workers.iter().find(|(_, it)| it.thread.is_finished()) {
                return Err(format!("worker of slot {slot} stopped by itself"));
            }
            let mut done = true;
            for at in crate::schedule::places(&INPUTS) {
                let name = format!("{prefix}.{}", at.topic);
                let mut list = TopicPartitionList::new();
                list.add_partition(&name, at.partition);
                let wait = Duration::from_secs(5);
                let list = group.committed_offsets(list, wait).map_err(|error| error.to_string())?;
                let (_, end) = group.fetch_watermarks(&name, at.partition, wait).map_err(|error| error.to_string())?;
                let emitted = list.elements().first().and_then(|it| it.offset().to_raw());
                done &= end == 0 || emitted.is_some_and(|emitted| emitted >= end);
            }
            // A killed producer's transaction hides what comes after it, until it is aborted for it.
            for at in crate::schedule::places(&OUTPUTS) {
                let (name, wait) = (format!("{prefix}.{}", at.topic), Duration::from_secs(5));
                let stable = group.fetch_watermarks(&name, at.partition, wait).map_err(|error| error.to_string())?;
                let all = plain.fetch_watermarks(&name, at.partition, wait).map_err(|error| error.to_string())?;
                done &= stable == all;
            }
            if done {
                break;
            }
            if Instant::now() > until {
                return Err("it does not settle within 60 s".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut reader = KafkaLog::new(self.settings(prefix, "reader", "-", &OUTPUTS)).map_err(said)?;
        let mut visible = Vec::new();
        // Until every partition is read to its end, past aborted records and markers.
        let mut ends = BTreeMap::new();
        for at in crate::schedule::places(&OUTPUTS) {
            let name = format!("{prefix}.{}", at.topic);
            let (_, end) = group
                .fetch_watermarks(&name, at.partition, Duration::from_secs(5))
                .map_err(|error| error.to_string())?;
            ends.insert(at, end);
        }
        let until = Instant::now() + Duration::from_secs(20);
        let mut quiet = 0;
        while quiet < 8 {
            let polled = reader.poll(1000, Duration::from_millis(100)).await.map_err(said)?;
            for change in polled.changes {
                if let Change::Assigned(ours) = change {
                    for at in ours {
                        reader.seek(at, 0).await.map_err(said)?;
                    }
                    visible.clear();
                }
            }
            visible.extend(polled.records);
            let passed: BTreeMap<TopicPartition, i64> = reader.passed().into_iter().collect();
            let read = ends.iter().all(|(at, end)| *end == 0 || passed.get(at).is_some_and(|next| next >= end));
            quiet = if read && polled.meta.is_some() { quiet + 1 } else { 0 };
            if Instant::now() > until {
                return Err(format!("the reader got {} records and no more; ends are {ends:?}", visible.len()));
            }
        }
        Ok(visible)
    }
}

fn join(worker: Worker) -> Result<(), String> {
    worker.thread.join().map_err(|_| "a worker panicked".to_owned())?
}
