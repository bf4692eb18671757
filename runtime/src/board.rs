//! How everything in this process stands: what health and metrics are told from.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kept_store::{
    Client,
    gauges::{self, LedgerGauges, ReadGauges},
    pg::{Purpose, connect},
    seam::LedgerError,
};

use crate::{
    config::Config,
    counters::{Counters, Http},
    leases::Keeper,
    reference::ReferenceData,
    registry::Registry,
};

/// A driver that did not begin a turn for so long is stuck. Its longest call takes about 20 s.
const STUCK: Duration = Duration::from_secs(90);
/// A worker that has joined and got no partition after this long is a spare one.
const SPARE: Duration = Duration::from_secs(20);
/// How often servers are asked.
const ASK: Duration = Duration::from_secs(5);
/// One question.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Servers, reference data or a free slot are waited for.
    Waiting,
    Running,
    Ended,
}

/// One worker.
pub struct Worker {
    pub step: String,
    pub counters: Arc<Counters>,
    /// It reads partitions; the timer source does not.
    pub reads: bool,
    phase: Mutex<(Phase, Instant)>,
}

impl Worker {
    /// It is at something else now.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    /// What it is at, and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let (phase, since) = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        (phase, since.elapsed())
    }

    /// Since it last began a turn.
    pub fn turn_age(&self) -> Duration {
        let turned = u64::try_from(self.counters.gauges.turned_micros.load(Relaxed)).unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
        Duration::from_micros(u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(turned))
    }

    /// Why it is stuck, if it is.
    pub fn stuck(&self) -> Option<String> {
        let (phase, since) = self.phase();
        let quiet = self.turn_age().min(since);
        let stuck = phase == Phase::Ended || (phase == Phase::Running && self.reads && quiet > STUCK);
        stuck.then(|| match phase {
            Phase::Ended => format!("{} has ended", self.step),
            _ => format!("{} has not turned for {} s", self.step, quiet.as_secs()),
        })
    }

    /// Why it does not work yet, if it does not.
    pub fn unready(&self) -> Option<String> {
        let gauges = &self.counters.gauges;
        let (ours, ready) = (gauges.partitions.load(Relaxed), gauges.ready.load(Relaxed));
        match self.phase() {
            (Phase::Waiting, _) => Some(format!("{} waits for a server or a free slot", self.step)),
            (Phase::Ended, _) => Some(format!("{} has ended", self.step)),
            (Phase::Running, _) if !self.reads => None,
            (Phase::Running, since) if ours == 0 && since < SPARE => {
                Some(format!("{} has no partition yet", self.step))
            }
            (Phase::Running, _) if ready < ours => {
                Some(format!("{} catches up on {} of {ours} partitions", self.step, ours - ready))
            }
            (Phase::Running, _) => None,
        }
    }
}

/// A server as it was when it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Servers {
    pub postgres: bool,
    pub registry: bool,
}

/// Everything.
#[derive(Default)]
pub struct Board {
    workers: Mutex<Vec<Arc<Worker>>>,
    pub reference: ReferenceData,
    /// What the HTTP API counts, where this process serves it.
    pub http: Arc<Http>,
    keeper: Mutex<Option<Keeper>>,
    asked: Mutex<Asked>,
    /// Every part has been started; before that, nobody can say whether they work.
    pub started: AtomicBool,
    /// The process is on its way out.
    pub stopping: AtomicBool,
}

/// What the servers said last.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub servers: Servers,
    pub ledger: Option<LedgerGauges>,
    pub read: Option<ReadGauges>,
}

impl Board {
    /// A new worker, waiting.
    pub fn worker(&self, step: &str, reads: bool) -> Arc<Worker> {
        let worker = Arc::new(Worker {
            step: step.to_owned(),
            counters: Arc::default(),
            reads,
            phase: Mutex::new((Phase::Waiting, Instant::now())),
        });
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&worker));
        worker
    }

    /// All of them.
    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who holds this process's leases.
    pub fn set_keeper(&self, keeper: Keeper) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// Leases lost since the start.
    pub fn leases_lost(&self) -> u64 {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Keeper::lost)
    }

    /// What the servers said last.
    pub fn asked(&self) -> Asked {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As if the servers had said this.
    #[cfg(test)]
    pub(crate) fn pretend(&self, ledger: LedgerGauges, read: ReadGauges) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) =
            Asked { servers: Servers { postgres: true, registry: true }, ledger: Some(ledger), read: Some(read) };
    }

    /// Why the process must be started again; empty: it need not.
    pub fn not_live(&self) -> Vec<String> {
        if self.stopping.load(Relaxed) {
            return Vec::new();
        }
        self.workers().iter().filter_map(|it| it.stuck()).collect()
    }

    /// Why the process does not do its work now; empty: it does.
    pub fn not_ready(&self) -> Vec<String> {
        let mut why: Vec<String> = self.workers().iter().filter_map(|it| it.unready()).collect();
        if !self.started.load(Relaxed) {
            why.push("still starting".into());
        }
        let servers = self.asked().servers;
        if !servers.postgres {
            why.push("postgres does not answer".into());
        }
        if !servers.registry {
            why.push("the schema registry does not answer".into());
        }
        if self.stopping.load(Relaxed) {
            why.push("stopping".into());
        }
        why
    }

    /// Asks the servers now and then, until told to stop.
    pub async fn watch(&self, config: &Config, registry: &Registry, stop: &AtomicBool) {
        let (mut ledger, mut read) = (None, None);
        while !stop.load(Relaxed) {
            let (ledger_now, read_now, answers) =
                tokio::join!(ledger_gauges(config, &mut ledger), read_gauges(config, &mut read), registry.answers());
            let servers = Servers { postgres: ledger_now.is_some() && read_now.is_some(), registry: answers };
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) =
                Asked { servers, ledger: ledger_now, read: read_now };
            let until = Instant::now() + ASK;
            while Instant::now() < until && !stop.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn ledger_gauges(config: &Config, client: &mut Option<Client>) -> Option<LedgerGauges> {
    let asked = async {
        let client = match &mut *client {
            Some(client) => client,
            none => {
                let prefix = config.store_prefix();
                none.insert(connect(config.postgres.expose(), &prefix.ledger(), Purpose::Command).await?)
            }
        };
        gauges::ledger(client).await
    };
    settled(tokio::time::timeout(PATIENCE, asked).await, client)
}

async fn read_gauges(config: &Config, client: &mut Option<Client>) -> Option<ReadGauges> {
    let asked = async {
        let client = match &mut *client {
            Some(client) => client,
            none => none.insert(connect(config.read_url(), &config.store_prefix().read(), Purpose::Command).await?),
        };
        gauges::read(client).await
    };
    settled(tokio::time::timeout(PATIENCE, asked).await, client)
}

fn settled<T>(
    answer: Result<Result<T, kept_store::StoreError>, tokio::time::error::Elapsed>,
    client: &mut Option<Client>,
) -> Option<T> {
    match answer {
        Ok(Ok(gauges)) => return Some(gauges),
        Ok(Err(error)) => tracing::debug!(error = %LedgerError::from(error), "gauges cannot be read"),
        Err(_) => tracing::debug!("gauges cannot be read in time"),
    }
    *client = None;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_ready_before_its_parts_are_started() {
        let board = Board::default();
        board.pretend(LedgerGauges::default(), ReadGauges::default());
        assert_eq!(board.not_ready(), ["still starting"]);
        board.started.store(true, Relaxed);
        assert!(board.not_ready().is_empty());
    }

    #[test]
    fn a_worker_is_ready_once_every_partition_of_its_is() {
        let board = Board::default();
        let worker = board.worker("ledger", true);
        let why = |board: &Board| board.not_ready().into_iter().find(|it| it.starts_with("ledger"));
        assert_eq!(why(&board).as_deref(), Some("ledger waits for a server or a free slot"));
        worker.enter(Phase::Running);
        assert_eq!(why(&board).as_deref(), Some("ledger has no partition yet"));
        worker.counters.gauges.turn(3, 1);
        assert_eq!(why(&board).as_deref(), Some("ledger catches up on 2 of 3 partitions"));
        worker.counters.gauges.turn(3, 3);
        assert_eq!(why(&board), None);
    }

    #[test]
    fn a_worker_that_ended_is_not_live_unless_the_process_stops() {
        let board = Board::default();
        let worker = board.worker("read", true);
        worker.enter(Phase::Running);
        assert!(board.not_live().is_empty());
        worker.enter(Phase::Ended);
        assert_eq!(board.not_live(), vec!["read has ended"]);
        board.stopping.store(true, Relaxed);
        assert!(board.not_live().is_empty());
    }
}
