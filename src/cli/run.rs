//! `kept run`: one process of the pipeline.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use kept_channels::http::{Limits, Service, Settings};
use kept_console::Guard;
use kept_runtime::{
    board::{Phase, Worker},
    outbox,
    rules::Shipped,
    service::{self, Decisions, Ended, Extra, Given, Patience},
    steps::FUSED,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::ConfigFile;
use crate::logs;

/// Run the pipeline, or parts of it, until told to stop
///
/// Parts: steps (normalise, enrich and validate in one), normalise, enrich, validate, ledger, read, timers, http; all
/// is everything. Run as many processes as you like: each part of each but http takes a slot of its own, spare ones
/// wait. Health and metrics are at the address of `ops` (/livez, /readyz, /metrics). On one machine each process needs
/// an address of its own for that (KEPT_OPS), and for http (KEPT_HTTP); else it stops with "cannot listen". KEPT_LOG
/// says how much is logged, for example warn or info,kept_runtime=debug.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept run                        everything in one process
  ./kept run ledger read            two parts
  ./kept run normalise --wait 300   one step apart, waiting up to five minutes for servers
  kill -TERM PID                    stop in good order; Ctrl-C does the same

Exit codes: 0 stopped when told to; 1 a part cannot go on, and the last line says why; 2 wrong usage; 3 told to stop,
but a part did not within the time (nothing is lost: the next process takes over).")]
pub struct Run {
    /// What to run
    #[arg(value_name = "PART", default_value = "all")]
    parts: Vec<String>,
    /// Run normalise, enrich and validate one by one, not as one
    #[arg(long, conflicts_with = "fused")]
    apart: bool,
    /// Run normalise, enrich and validate as one (this is how it is when nothing is said)
    #[arg(long)]
    fused: bool,
    /// How long servers, topics and tables that are not there are waited for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// How long stopping may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    stop_within: u64,
    #[command(flatten)]
    config: ConfigFile,
}

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.config.load()?;
        let extras = extras();
        let names: Vec<&str> = extras.iter().map(|it| it.name).collect();
        let parts = match service::parts(&self.parts, &FUSED, &names, self.apart) {
            Ok(parts) => parts,
            Err(why) => {
                eprintln!("kept: {why}");
                return Ok(ExitCode::from(2));
            }
        };
        logs::start()?;
        few_arenas();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, patience) = (Arc::clone(&stop), Duration::from_secs(self.stop_within));
        runtime.block_on(async { stop_on_signal(flag, patience) })?;
        let decisions = Decisions { stateless: FUSED.to_vec(), rules: Shipped };
        let patience = Patience { start: Duration::from_secs(self.wait), stop: patience };
        let ended = service::run(runtime.handle(), &config, &parts, decisions, extras, patience, &stop);
        // Tasks that still wait for a server are not waited for.
        runtime.shutdown_background();
        Ok(match ended {
            Ended::InOrder => ExitCode::SUCCESS,
            Ended::Late(parts) => {
                eprintln!("kept: {} did not stop within {} s", parts.join(", "), self.stop_within);
                ExitCode::from(3)
            }
            Ended::Stopped(stopped) => {
                eprintln!("kept: {stopped}");
                ExitCode::FAILURE
            }
        })
    }
}

/// Services that run beside the drivers: one line each.
fn extras() -> Vec<Extra> {
    let run = |given: Given| -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        // On the board at once: the process is not ready before the door is open.
        let door = given.board.worker("http", false);
        Box::pin(http(given, door))
    };
    vec![Extra { name: "http", run: Box::new(run) }]
}

/// The HTTP API, and the pages for people beside it.
async fn http(given: Given, door: Arc<Worker>) -> Result<(), String> {
    let (config, prefix) = (&given.config, given.config.store_prefix());
    let outbox = outbox(config).map_err(|error| error.to_string())?;
    let (data, registry) = (given.board.reference.clone(), given.registry.clone());
    let settings = Settings {
        listen: &config.http,
        postgres: config.postgres.expose(),
        read_postgres: config.read_url(),
        prefix: &prefix,
        limits: Limits::default(),
        counters: Arc::clone(&given.board.http),
    };
    let local = config.http.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    let guard = match (config.pages.as_str(), local) {
        ("off", _) => Guard::Off,
        ("open", _) => Guard::Open,
        (_, "localhost") => Guard::Loopback,
        (_, address) => address.parse().map_or(Guard::Off, Guard::for_address),
    };
    let pages = kept_console::routes(config.read_url(), &prefix, guard);
    let (tell, told) = watch::channel(false);
    let (reference, codec) = (Box::new(move || data.snapshot()), Box::new(move || registry.codec()));
    let service = Service::start(settings, reference, codec, Arc::new(outbox), pages, told).await.map_err(|error| {
        format!("cannot listen on {}: {error}; KEPT_HTTP (`http`) names another address", config.http)
    })?;
    door.enter(Phase::Running);
    tracing::info!(address = %service.address(), "the API and the pages are served");
    while !given.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The receiver is gone only when the service has ended already.
    let _ = tell.send(true);
    service.ended().await;
    Ok(())
}

/// SIGTERM or SIGINT: stop in good order. A second one, or a stop that takes much too long: end at once.
fn stop_on_signal(stop: Arc<AtomicBool>, patience: Duration) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        let mut told = false;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told {
                eprintln!("kept: told twice to stop; ending at once");
                std::process::exit(3);
            }
            told = true;
            stop.store(true, Ordering::SeqCst);
            // For the case that even the thread that waits for the others hangs.
            let limit = patience + Duration::from_secs(10);
            std::thread::spawn(move || {
                std::thread::sleep(limit);
                eprintln!("kept: stopping took longer than {} s; ending at once", limit.as_secs());
                std::process::exit(3);
            });
        }
    });
    Ok(())
}

/// The C library gives every thread a heap of its own, which never shrinks: with a dozen threads that is most of the
/// memory of a process that is behind. Two are enough.
fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // Sound: called before other threads of ours are started; it only sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
