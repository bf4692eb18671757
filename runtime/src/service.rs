//! One process of the pipeline: starts what was chosen, each driver on a thread of its own under a leased slot, and
//! stops all of it in good order.
//!
//! What decides (the stateless steps, the ledger's rules) is handed in; so tests run this with small rules of their
//! own. Other services (the HTTP API) are handed in as [`Extra`]s and end with the rest.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use kept_schemas::Topic;
use kept_store::{
    PgLedger, PgSink, PgTimers,
    migrate::{pending_ledger, pending_read},
    seam::{LedgerError, Rules},
};
use tokio::runtime::Handle;

use crate::{
    admin,
    board::{Board, Phase, Worker},
    config::Config,
    kafka::KafkaLog,
    leases::{Keeper, Slot},
    ledger_step::{self, LedgerStep, StepSettings, Stopped},
    log::LogError,
    ops, rechecks, reference,
    registry::Registry,
    sink_step::{self, SinkStep},
    stateless::{STEPS_GROUP, Stateless, StatelessStep},
    threads::run_on_own_thread,
    timers,
};

/// The ledger step: its name in headers, in the store and as a group.
pub const LEDGER: &str = "ledger";
/// The sink of the read model.
pub const READ: &str = "read";
/// How often due timers are read.
const TIMERS_EVERY: Duration = Duration::from_millis(500);
/// How often a server, a topic or a slot that is waited for is asked for.
const ASK: Duration = Duration::from_secs(1);
/// How often waiting is told.
const TELL: Duration = Duration::from_secs(5);

/// What the sink of the read model reads.
pub fn read_topics() -> Vec<Topic> {
    let mut topics: Vec<Topic> = kept_processors::ledger::LedgerEvent::TOPICS
        .iter()
        .copied()
        // Written for the ledger itself: a wake-up says nothing about what happened.
        .filter(|topic| !matches!(topic, Topic::OrdersWoken))
        .collect();
    topics.push(Topic::DeadLetters);
    topics
}

/// One part of the pipeline that a process can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Stateless steps in one transaction; one of them alone is a step apart.
    Steps {
        name: String,
        steps: Vec<String>,
    },
    Ledger,
    Read,
    /// Due timers, and orders that wait for a product.
    Timers,
    /// A service that was handed in.
    Extra(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps { name, .. } | Self::Extra(name) => f.write_str(name),
            Self::Ledger => f.write_str(LEDGER),
            Self::Read => f.write_str(READ),
            Self::Timers => f.write_str("timers"),
        }
    }
}

/// Which parts are asked for. `apart`: stateless steps one by one, not fused.
///
/// # Errors
/// A name that is none, with those that are.
pub fn parts(asked: &[String], stateless: &[StatelessStep], extras: &[&str], apart: bool) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    let mut add = |part: Part| {
        if !parts.contains(&part) {
            parts.push(part);
        }
    };
    let single = |step: &StatelessStep| Part::Steps { name: step.name.to_owned(), steps: vec![step.name.to_owned()] };
    for name in asked {
        let everything = name == "all";
        if everything || name == STEPS_GROUP {
            if apart {
                stateless.iter().for_each(|step| add(single(step)));
            } else {
                let steps = stateless.iter().map(|step| step.name.to_owned()).collect();
                add(Part::Steps { name: STEPS_GROUP.to_owned(), steps });
            }
        }
        if everything || name == LEDGER {
            add(Part::Ledger);
        }
        if everything || name == READ {
            add(Part::Read);
        }
        if everything || name == "timers" {
            add(Part::Timers);
        }
        for extra in extras.iter().filter(|it| everything || *it == name) {
            add(Part::Extra((*extra).to_owned()));
        }
        for step in stateless.iter().filter(|step| step.name == name) {
            add(single(step));
        }
        let known = everything
            || [STEPS_GROUP, LEDGER, READ, "timers"].contains(&name.as_str())
            || extras.contains(&name.as_str())
            || stateless.iter().any(|step| step.name == name);
        if !known {
            let mut names: Vec<&str> = vec!["all", STEPS_GROUP];
            names.extend(stateless.iter().map(|step| step.name));
            names.extend([LEDGER, READ, "timers"]);
            names.extend(extras);
            return Err(format!("{name} is no part of the pipeline; parts are {}", names.join(", ")));
        }
    }
    Ok(parts)
}

/// What a service that was handed in gets.
#[derive(Clone)]
pub struct Given {
    pub config: Config,
    pub registry: Registry,
    pub board: Arc<Board>,
    /// Set when the process is to stop.
    pub stop: Arc<AtomicBool>,
}

/// A service that runs beside the drivers. It ends soon after `stop` is set; if it ends before, the process does.
pub struct Extra {
    pub name: &'static str,
    #[allow(clippy::type_complexity)]
    pub run: Box<dyn FnOnce(Given) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>,
}

/// What decides.
pub struct Decisions<R> {
    pub stateless: Vec<StatelessStep>,
    pub rules: R,
}

/// How a process starts and stops.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Servers, topics and tables that are not there are waited for.
    pub start: Duration,
    /// A driver that has not stopped after this long is left behind.
    pub stop: Duration,
}

/// Why a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and everything stopped in good order.
    InOrder,
    /// It was told to, and these did not stop in time. Nothing is lost: whoever comes next takes over.
    Late(Vec<String>),
    /// A part cannot go on.
    Stopped(Stopped),
}

/// Runs the chosen parts until `stop` is set or one of them cannot go on. Call it on a runtime with threads of its own;
/// it blocks.
pub fn run<R: Rules + Clone + 'static>(
    handle: &Handle,
    config: &Config,
    parts: &[Part],
    decisions: Decisions<R>,
    extras: Vec<Extra>,
    patience: Patience,
    stop: &Arc<AtomicBool>,
) -> Ended {
    let board = Arc::new(Board::default());
    let mut running = match start(handle, config, parts, decisions, extras, patience, stop, &board) {
        Ok(Some(running)) => running,
        Ok(None) => return Ended::InOrder,
        Err(stopped) => return Ended::Stopped(stopped),
    };
    board.started.store(true, Ordering::SeqCst);
    let mut first = None;
    while !stop.load(Ordering::Relaxed) {
        match running.ended.recv_timeout(Duration::from_millis(100)) {
            Ok((name, result)) => {
                running.left.retain(|it| *it != name);
                let result = result.and_then(|()| match stop.load(Ordering::Relaxed) {
                    true => Ok(()),
                    false => Err(Stopped { step: name, reason: "it ended though nobody told it to".into() }),
                });
                if let Err(stopped) = result {
                    first = Some(stopped);
                    break;
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    stop.store(true, Ordering::SeqCst);
    board.stopping.store(true, Ordering::SeqCst);
    tracing::info!(parts = running.left.join(", "), "stopping");
    running.flags.stop_all();
    let late = running.wait(patience.stop, &mut first);
    running.keeper.end();
    match first {
        Some(stopped) => Ended::Stopped(stopped),
        None if late.is_empty() => Ended::InOrder,
        None => Ended::Late(late),
    }
}

/// Everything that runs.
struct Running {
    /// Names of parts that have not ended.
    left: Vec<String>,
    ended: mpsc::Receiver<(String, Result<(), Stopped>)>,
    flags: Flags,
    keeper: Keeper,
}

impl Running {
    /// Waits until all have ended; gives the names of those that have not in time.
    fn wait(&mut self, patience: Duration, first: &mut Option<Stopped>) -> Vec<String> {
        let until = Instant::now() + patience;
        while !self.left.is_empty() {
            match self.ended.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((name, result)) => {
                    self.left.retain(|it| *it != name);
                    if let Err(stopped) = result {
                        first.get_or_insert(stopped);
                    }
                }
                Err(_) => break,
            }
        }
        std::mem::take(&mut self.left)
    }
}

/// The drivers' stop flags: one each, for a lost lease stops one driver and not the process.
#[derive(Clone, Default)]
struct Flags(Arc<Mutex<Vec<Arc<AtomicBool>>>>);

impl Flags {
    /// A new one; set at once when the process is stopping already.
    fn new_flag(&self, stopping: &AtomicBool) -> Arc<AtomicBool> {
        let flag = Arc::new(AtomicBool::new(false));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| Arc::strong_count(it) > 1);
        all.push(Arc::clone(&flag));
        // After it is in the list, so that one of the two sees the other.
        if stopping.load(Ordering::SeqCst) {
            flag.store(true, Ordering::SeqCst);
        }
        flag
    }

    fn stop_all(&self) {
        for flag in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            flag.store(true, Ordering::SeqCst);
        }
    }
}

/// What every worker needs.
struct Context<R> {
    config: Config,
    registry: Registry,
    board: Arc<Board>,
    keeper: Keeper,
    flags: Flags,
    stop: Arc<AtomicBool>,
    decisions: Decisions<R>,
}

/// `Ok(None)`: told to stop while it started.
#[allow(clippy::too_many_arguments)]
fn start<R: Rules + Clone + 'static>(
    handle: &Handle,
    config: &Config,
    parts: &[Part],
    decisions: Decisions<R>,
    extras: Vec<Extra>,
    patience: Patience,
    stop: &Arc<AtomicBool>,
    board: &Arc<Board>,
) -> Result<Option<Running>, Stopped> {
    let failed = |step: &str, reason: String| Stopped { step: step.to_owned(), reason };
    let address = handle.block_on(ops::serve(&config.ops, Arc::clone(board))).map_err(|error| {
        failed("ops", format!("cannot listen on {}: {error}; KEPT_OPS (`ops`) names another address", config.ops))
    })?;
    tracing::info!(%address, "health and metrics are served");
    let waited = handle.block_on(wait_for_servers(config, patience.start, stop));
    let Some(registry) = waited.map_err(|reason| failed("start", reason))? else {
        return Ok(None);
    };
    let (keeper, _) = Keeper::start(config).map_err(|error| failed("leases", error.to_string()))?;
    board.set_keeper(keeper.clone());
    let (tell, ended) = mpsc::channel();
    let flags = Flags::default();
    let mut running = Running { left: Vec::new(), ended, flags: flags.clone(), keeper: keeper.clone() };
    let watching = (Arc::clone(board), config.clone(), registry.clone(), Arc::clone(stop));
    handle.spawn(async move { watching.0.watch(&watching.1, &watching.2, &watching.3).await });

    // Reference data first: no step starts without it.
    let (there, reached) = mpsc::channel();
    let name = "reference";
    running.left.push(name.to_owned());
    let (config_, registry_, data, flag) =
        (config.clone(), registry.clone(), board.reference.clone(), flags.new_flag(stop));
    spawn(handle, name, &tell, move || async move {
        reference::follow(&config_, registry_, data, &flag, || {
            // Nobody waits any more when the start was given up.
            let _ = there.send(());
        })
        .await
    })?;
    let until = Instant::now() + patience.start;
    while reached.recv_timeout(Duration::from_millis(100)).is_err() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Ok((_, Err(stopped))) = running.ended.try_recv() {
            return Err(stopped);
        }
        if Instant::now() > until {
            let waited = patience.start.as_secs();
            return Err(failed(name, format!("it could not be read to its end within {waited} s")));
        }
    }

    let context = Arc::new(Context {
        config: config.clone(),
        registry: registry.clone(),
        board: Arc::clone(board),
        keeper,
        flags,
        stop: Arc::clone(stop),
        decisions,
    });
    let mut extras = extras;
    for part in parts {
        let name = part.to_string();
        running.left.push(name.clone());
        if let Part::Extra(extra) = part {
            let Some(at) = extras.iter().position(|it| it.name == extra) else {
                return Err(failed(extra, "it is not in this build".into()));
            };
            let given = Given {
                config: config.clone(),
                registry: registry.clone(),
                board: Arc::clone(board),
                stop: Arc::clone(stop),
            };
            let (work, tell) = ((extras.swap_remove(at).run)(given), tell.clone());
            handle.spawn(async move {
                let result = work.await.map_err(|reason| Stopped { step: name.clone(), reason });
                // Nobody listens any more when the process is past waiting.
                drop(tell.send((name, result)));
            });
            continue;
        }
        let (context, part) = (Arc::clone(&context), part.clone());
        let worker = board.worker(&name, part != Part::Timers);
        spawn(handle, &name, &tell, move || async move {
            let result = work(&context, &part, &worker).await;
            worker.enter(Phase::Ended);
            result
        })?;
    }
    Ok(Some(running))
}

/// A thread that tells when it ended, also by a panic.
fn spawn<F, D>(
    handle: &Handle,
    name: &str,
    tell: &mpsc::Sender<(String, Result<(), Stopped>)>,
    make: F,
) -> Result<(), Stopped>
where
    F: FnOnce() -> D + Send + 'static,
    D: Future<Output = Result<(), Stopped>>,
{
    let failed = |error: std::io::Error| Stopped { step: name.to_owned(), reason: format!("no thread: {error}") };
    let thread = run_on_own_thread(name, handle.clone(), make).map_err(failed)?;
    let (name_, tell) = (name.to_owned(), tell.clone());
    std::thread::Builder::new()
        .name(format!("{name}-end"))
        .spawn(move || {
            let panicked =
                || Stopped { step: name_.clone(), reason: "it panicked; the lines before this say where".into() };
            let result = thread.join().unwrap_or_else(|_| Err(panicked()));
            drop(tell.send((name_, result)));
        })
        .map_err(failed)?;
    Ok(())
}

/// Takes a slot and works in it; again when the lease was lost.
async fn work<R: Rules + Clone>(context: &Context<R>, part: &Part, worker: &Arc<Worker>) -> Result<(), Stopped> {
    while !context.stop.load(Ordering::Relaxed) {
        worker.enter(Phase::Waiting);
        let stop = context.flags.new_flag(&context.stop);
        let Some(slot) = wait_for_slot(context, part, &stop).await? else {
            return Ok(());
        };
        tracing::info!(step = %part, slot = slot.lease.slot, "slot taken; working");
        let result = work_in(context, part, worker, slot.lease.slot, &stop).await;
        let lost = slot.lost();
        if !lost {
            context.keeper.give_back(slot).await;
        }
        result?;
        if !lost {
            return Ok(());
        }
    }
    Ok(())
}

async fn work_in<R: Rules + Clone>(
    context: &Context<R>,
    part: &Part,
    worker: &Arc<Worker>,
    slot: i32,
    stop: &Arc<AtomicBool>,
) -> Result<(), Stopped> {
    let (config, registry, board) = (&context.config, &context.registry, &context.board);
    let name = part.to_string();
    let (url, prefix) = (config.postgres.expose(), config.store_prefix());
    let settings =
        StepSettings { max_records: config.batch.max_records, window: config.window(), ..StepSettings::new(&name) };
    let log = |group: &str, topics: &[Topic]| {
        KafkaLog::new(config.kafka_settings(group, &format!("{name}.{slot}"), topics)).map_err(|error| {
            let (LogError::Retry(reason) | LogError::Stop(reason)) = error;
            Stopped { step: name.clone(), reason }
        })
    };
    match part {
        Part::Steps { steps, .. } => {
            let steps: Vec<StatelessStep> = context
                .decisions
                .stateless
                .iter()
                .filter(|it| steps.iter().any(|name| it.name == name))
                .copied()
                .collect();
            // By the group, which they share whether they run fused or apart, and not by the part.
            let Some(places) = connect(&name, stop, || PgLedger::connect(url, &prefix, STEPS_GROUP)).await? else {
                return Ok(());
            };
            let inputs = Stateless::<KafkaLog, PgLedger, Registry>::inputs(&steps);
            let (log, group) = (log(STEPS_GROUP, &inputs)?, format!("{}{STEPS_GROUP}", config.prefix));
            let source = board.reference.source();
            let mut driver = Stateless::new(log, places, registry.clone(), source, steps, &group, settings);
            driver.family.clone_from(&context.decisions.stateless);
            driver.counters = Arc::clone(&worker.counters);
            driver.stop = Arc::clone(stop);
            worker.enter(Phase::Running);
            driver.run().await
        }
        Part::Ledger => {
            let Some(ledger) = connect(&name, stop, || PgLedger::connect(url, &prefix, LEDGER)).await? else {
                return Ok(());
            };
            let log = log(LEDGER, Topic::LEDGER_INPUTS)?.with_batch_bytes(ledger_step::BATCH_BYTES);
            let (log, rules) = (log, context.decisions.rules.clone());
            let source = board.reference.source();
            let mut driver = LedgerStep::new(log, ledger, rules, registry.clone(), source, settings);
            driver.counters = Arc::clone(&worker.counters);
            driver.stop = Arc::clone(stop);
            worker.enter(Phase::Running);
            driver.run().await
        }
        Part::Read => {
            let Some(sink) = connect(&name, stop, || PgSink::connect(config.read_url(), &prefix)).await? else {
                return Ok(());
            };
            let log = log(READ, &read_topics())?.with_batch_bytes(sink_step::BATCH_BYTES);
            let mut driver = SinkStep::new(log, sink, registry.clone(), settings);
            driver.counters = Arc::clone(&worker.counters);
            driver.stop = Arc::clone(stop);
            worker.enter(Phase::Running);
            driver.run().await
        }
        Part::Timers => {
            let Some(mut due) = connect(&name, stop, || PgTimers::connect(url, &prefix)).await? else {
                return Ok(());
            };
            let failed = |error: LogError| Stopped { step: name.clone(), reason: error.to_string() };
            let mut outbox = crate::outbox(config).map_err(failed)?;
            let mut second = outbox.clone();
            worker.enter(Phase::Running);
            let (first, second) = tokio::join!(
                timers::run(&mut due, &mut outbox, registry, TIMERS_EVERY, stop),
                rechecks::run(config, &board.reference, &mut second, registry, TIMERS_EVERY, stop),
            );
            first.and(second)
        }
        Part::Extra(_) => Ok(()),
    }
}

/// A connection, waited for; `None`: told to stop before there was one.
async fn connect<T, F: Future<Output = Result<T, LedgerError>>>(
    step: &str,
    stop: &AtomicBool,
    open: impl Fn() -> F,
) -> Result<Option<T>, Stopped> {
    let mut told = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match open().await {
            Ok(it) => return Ok(Some(it)),
            Err(LedgerError::Stop(reason)) => return Err(Stopped { step: step.to_owned(), reason }),
            Err(error) => tell(&mut told, &format!("{step} waits for postgres: {error}")),
        }
        tokio::time::sleep(ASK).await;
    }
}

async fn wait_for_slot<R>(context: &Context<R>, part: &Part, stop: &Arc<AtomicBool>) -> Result<Option<Slot>, Stopped> {
    let name = part.to_string();
    // Two timer sources would only send everything twice.
    let slots = if *part == Part::Timers { 1 } else { context.config.slots };
    let mut told = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match context.keeper.take(&name, slots, stop).await {
            Ok(Some(slot)) => return Ok(Some(slot)),
            Ok(None) if slots == 1 => tell(&mut told, &format!("{name} runs elsewhere; waiting for its slot")),
            Ok(None) => tell(&mut told, &format!("all {slots} slots of {name} are taken; waiting for a free one")),
            Err(LedgerError::Stop(reason)) => return Err(Stopped { step: name, reason }),
            Err(error) => tell(&mut told, &format!("{name} waits for a slot: {error}")),
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Tells what is waited for, at once and then now and again.
fn tell(told: &mut Option<Instant>, what: &str) {
    if told.is_none_or(|told| told.elapsed() >= TELL) {
        *told = Some(Instant::now());
        tracing::info!("{what}");
    }
}

/// Waits until every server is there with what the contract wants. `None`: told to stop before.
///
/// # Errors
/// What is still missing after `patience`, and what to do about it.
pub async fn wait_for_servers(
    config: &Config,
    patience: Duration,
    stop: &AtomicBool,
) -> Result<Option<Registry>, String> {
    let until = Instant::now() + patience;
    let mut told = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match servers(config).await {
            Ok(registry) => return Ok(Some(registry)),
            Err(why) if Instant::now() >= until => return Err(why),
            Err(why) => tell(&mut told, &format!("waiting: {why}")),
        }
        tokio::time::sleep(ASK).await;
    }
}

async fn servers(config: &Config) -> Result<Registry, String> {
    let (url, prefix) = (config.postgres.expose(), config.store_prefix());
    let mut pending = pending_ledger(url, &prefix).await.map_err(|error| error.to_string())?;
    pending.extend(pending_read(config.read_url(), &prefix.read()).await.map_err(|error| error.to_string())?);
    if !pending.is_empty() {
        return Err(format!("tables are not those of this version ({}); run `kept migrate`", pending.join(", ")));
    }
    let topics = admin::look_at_topics(config).await.map_err(|error| error.to_string())?;
    let missing: Vec<&str> = Topic::ALL.iter().filter(|it| !topics.contains_key(it)).map(|it| it.name()).collect();
    if !missing.is_empty() {
        return Err(format!(
            "{} topics are not there ({}); run `kept topics apply`",
            missing.len(),
            missing.join(", ")
        ));
    }
    for (&topic, found) in &topics {
        let wanted = admin::wanted_partitions(config, topic);
        if found.partitions != wanted {
            return Err(format!(
                "topic {} has {} partitions and the configuration says {wanted}; run `kept topics apply`",
                config.topic(topic),
                found.partitions
            ));
        }
    }
    Registry::open(config).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateless() -> Vec<StatelessStep> {
        ["normalise", "enrich"]
            .map(|name| StatelessStep { name, inputs: &[], outputs: &[], decide: |_| Ok(vec![]) })
            .to_vec()
    }

    fn names(asked: &[&str], apart: bool) -> Result<Vec<String>, String> {
        let asked: Vec<String> = asked.iter().map(|it| (*it).to_owned()).collect();
        Ok(parts(&asked, &stateless(), &["http"], apart)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_is_everything_and_nothing_runs_twice() {
        assert_eq!(names(&["all"], false).expect("known"), vec!["steps", "ledger", "read", "timers", "http"]);
        assert_eq!(names(&["ledger", "all", "ledger"], false).expect("known").len(), 5);
        assert_eq!(
            names(&["all"], true).expect("known"),
            vec!["normalise", "enrich", "ledger", "read", "timers", "http"]
        );
        assert_eq!(names(&["enrich"], false).expect("known"), vec!["enrich"]);
    }

    #[test]
    fn an_unknown_part_is_refused_with_those_there_are() {
        let error = names(&["ledgr"], false).expect_err("refused");
        assert!(error.contains("ledgr") && error.contains("normalise") && error.contains("http"), "{error}");
    }

    #[test]
    fn a_flag_made_while_stopping_is_set() {
        let (flags, stopping) = (Flags::default(), AtomicBool::new(false));
        let before = flags.new_flag(&stopping);
        stopping.store(true, Ordering::SeqCst);
        assert!(flags.new_flag(&stopping).load(Ordering::SeqCst));
        flags.stop_all();
        assert!(before.load(Ordering::SeqCst));
    }
}
