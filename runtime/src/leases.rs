//! Holding leased slots: a thread of its own renews them, whatever the drivers are doing.
//!
//! A lease that could not be renewed in time is given up here, by our own clock, before it runs out by Postgres's: the
//! worker is asked to stop while nobody else can have the slot yet.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kept_store::{
    Client,
    leases::{self, Lease},
    pg::{Purpose, connect},
    seam::LedgerError,
};

use crate::config::Config;

/// How long a lease lasts without being renewed.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// Given up so long before it runs out: time for a driver to stop.
const MARGIN: Duration = Duration::from_secs(12);
/// One statement.
const PATIENCE: Duration = Duration::from_secs(5);

struct Held {
    lease: Lease,
    /// By our own clock, from before the statement that got it.
    until: Instant,
    /// The worker's stop flag.
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
}

struct Shared {
    config: Config,
    owner: String,
    held: Mutex<Vec<Held>>,
    ended: AtomicBool,
    /// Leases lost since the start.
    lost: AtomicU64,
}

/// Takes, renews and gives back the leases of a process.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

/// A slot that is ours. Dropping it does not give it back at once; [`Keeper::give_back`] does.
pub struct Slot {
    pub lease: Lease,
    lost: Arc<AtomicBool>,
}

impl Slot {
    /// It was lost while it was held.
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Keeper {
    /// Starts the thread that renews.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(config: &Config) -> std::io::Result<(Self, JoinHandle<()>)> {
        let keeper = Self(Arc::new(Shared {
            config: config.clone(),
            owner: owner(),
            held: Mutex::default(),
            ended: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }));
        let shared = Arc::clone(&keeper.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            std::thread::Builder::new().name("leases".into()).spawn(move || runtime.block_on(shared.keep()))?;
        Ok((keeper, thread))
    }

    /// The lowest free slot of a step; `None`: all are taken. `stop` is set when the lease is lost.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn take(&self, step: &str, slots: i32, stop: &Arc<AtomicBool>) -> Result<Option<Slot>, LedgerError> {
        let asked = Instant::now();
        let client = self.0.client().await?;
        let seconds = i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX);
        let Some(lease) = leases::take(&client, step, slots, &self.0.owner, seconds).await? else {
            return Ok(None);
        };
        let lost = Arc::new(AtomicBool::new(false));
        self.0.held().push(Held {
            lease: lease.clone(),
            until: asked + LEASE,
            stop: Arc::clone(stop),
            lost: Arc::clone(&lost),
        });
        Ok(Some(Slot { lease, lost }))
    }

    /// Gives a slot back. Where Postgres cannot be told, the lease runs out by itself.
    pub async fn give_back(&self, slot: Slot) {
        self.0.held().retain(|it| it.lease != slot.lease);
        let told = async {
            let client = self.0.client().await?;
            Ok::<_, LedgerError>(leases::give_back(&client, &slot.lease).await?)
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(step = slot.lease.step, slot = slot.lease.slot, %error, "slot could not be given back");
            }
            Err(_) => tracing::info!(step = slot.lease.step, slot = slot.lease.slot, "slot could not be given back"),
        }
    }

    /// Leases lost since the start.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Result<Client, LedgerError> {
        let schema = self.config.store_prefix().ledger();
        let opened = connect(self.config.postgres.expose(), &schema, Purpose::Command);
        match tokio::time::timeout(PATIENCE, opened).await {
            Ok(client) => Ok(client?),
            Err(_) => Err(LedgerError::Lost("no connection".into())),
        }
    }

    async fn keep(&self) {
        let mut client = None;
        let mut renewed = Instant::now();
        while !self.ended.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                if let Err(error) = self.renew(&mut client).await {
                    tracing::warn!(%error, "leases could not be renewed; trying again");
                    client = None;
                    // Sooner than usual.
                    renewed = Instant::now().checked_sub(RENEW - Duration::from_secs(1)).unwrap_or(renewed);
                }
            }
            self.drop_lost(|held| held.until.saturating_duration_since(Instant::now()) < MARGIN);
        }
    }

    async fn renew(&self, client: &mut Option<Client>) -> Result<(), LedgerError> {
        let asked = Instant::now();
        let leases: Vec<Lease> = self.held().iter().map(|it| it.lease.clone()).collect();
        if leases.is_empty() {
            return Ok(());
        }
        if client.is_none() {
            *client = Some(self.client().await?);
        }
        let Some(client) = client else { return Ok(()) };
        let seconds = i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX);
        let ours = match tokio::time::timeout(PATIENCE, leases::renew(client, &leases, seconds)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(LedgerError::Lost("no answer".into())),
        };
        for held in self.held().iter_mut() {
            if let Some(at) = leases.iter().position(|it| *it == held.lease)
                && ours[at]
            {
                held.until = asked + LEASE;
            }
        }
        let gone: Vec<&Lease> = leases.iter().zip(&ours).filter(|(_, ours)| !**ours).map(|(it, _)| it).collect();
        self.drop_lost(|held| gone.contains(&&held.lease));
        Ok(())
    }

    fn drop_lost(&self, lost: impl Fn(&Held) -> bool) {
        self.held().retain(|held| {
            if !lost(held) {
                return true;
            }
            tracing::warn!(step = held.lease.step, slot = held.lease.slot, "lease lost; the worker stops");
            self.lost.fetch_add(1, Ordering::Relaxed);
            held.lost.store(true, Ordering::SeqCst);
            held.stop.store(true, Ordering::SeqCst);
            false
        });
    }
}

/// Who we are, for a person who looks at the slots.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} pid {}", host.trim(), std::process::id())
}
