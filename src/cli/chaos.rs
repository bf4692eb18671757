//! `kept chaos`: breaks a deployment of its own in every way, and shows that nothing was lost.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use kept_stack::{
    chaos::{
        self, Report, Settings,
        schedule::{Planned, Profile, schedule},
    },
    servers::{self, Home},
};
use tokio::signal::unix::{SignalKind, signal};

/// Break a deployment of its own while orders flow, and show that nothing was lost, doubled or broken
///
/// Starts Kafka, a registry and Postgres of its own, Kept's processes beside them, and sends made-up orders without
/// pause. Then processes and servers are killed and stopped, connections cut, delayed and stalled, a transaction's end
/// delivered late, a topic made anew, records sent that nobody can read. In the end everything is left alone, must come
/// to rest, and is checked. The same seed makes the same faults in the same order. docs/chaos.md says what must hold.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept chaos                              five minutes, as many kinds of faults as fit
  ./kept chaos --seed 7 --minutes 60        everything; a guard that never acted makes this red
  ./kept chaos --ci                         what every change must stand, in about five minutes
  ./kept chaos --minutes 10 --only \"kill -9 Kafka\"
                                            one fault again and again
  ./kept chaos --seed 7 --minutes 60 --show say what would be done, and do nothing

Exit codes: 0 everything held; 1 something did not, and the last lines say what; or it could not be carried out.")]
pub struct Chaos {
    /// What chance is drawn from; another one each time unless it is given
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are made; starting, coming to rest and checking come on top
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// The short profile: kills of everything, one stop of 20 s, one late end of a transaction, one topic made anew
    #[arg(long, conflicts_with = "minutes")]
    ci: bool,
    /// Only faults whose words, as `--show` prints them, hold these
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Orders a second
    #[arg(long, default_value_t = 30, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    per_second: u32,
    /// How long everything may take to come to rest, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    settle: u64,
    /// Where its servers, data and logs are; what an earlier run left there is deleted
    #[arg(long, default_value = ".kept/chaos", value_name = "FOLDER")]
    home: PathBuf,
    /// Leave data and logs for a look afterwards even when everything held; the next run deletes them
    #[arg(long)]
    keep: bool,
    /// Print the schedule and do nothing
    #[arg(long)]
    show: bool,
    /// A JSON object with faults, times and guards; what happens is told on standard error
    #[arg(long)]
    json: bool,
}

impl Chaos {
    pub fn run(self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |it| u64::from(it.subsec_micros()) + 1)
        });
        let profile = if self.ci { Profile::Ci } else { Profile::Full };
        let planned = schedule(seed, self.minutes, profile, self.only.as_deref());
        if let (true, Some(words)) = (planned.is_empty(), &self.only) {
            bail!("there is no fault with \"{words}\" in its words; `kept chaos --minutes 60 --show` prints them all");
        }
        if self.show {
            self.show(&planned);
            return Ok(ExitCode::SUCCESS);
        }
        let json = self.json;
        let say = move |line: &str| if json { eprintln!("{line}") } else { println!("{line}") };
        say(&format!("chaos with seed {seed}: {} faults", planned.len()));
        if !json {
            self.show(&planned);
        }
        let settings = Settings {
            home: self.home.clone(),
            program: std::env::current_exe().context("find this program")?,
            seed,
            minutes: self.minutes,
            profile,
            only: self.only.clone(),
            per_second: self.per_second,
            settle: Duration::from_secs(self.settle),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start")?;
        let result = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
            let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
            tokio::select! {
                result = chaos::run(&settings, &say) => result,
                _ = interrupt.recv() => bail!("stopped before its end"),
                _ = terminate.recv() => bail!("stopped before its end"),
            }
        });
        // A deployment beside may still wait for something; nothing of it matters now.
        runtime.shutdown_background();
        self.end(result.as_ref().ok(), &say)?;
        let report = result?;
        if json {
            println!("{}", report.json())
        } else {
            print!("{}", report.text())
        }
        Ok(if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Stops everything: without its proxies nothing of it could go on. Data stays when it was asked for, and when there
    /// is something to look into.
    fn end(&self, report: Option<&Report>, say: &dyn Fn(&str)) -> Result<()> {
        let home = Home::at(&self.home)?;
        let stays = self.keep || !report.is_some_and(Report::ok);
        servers::down(&home, !stays, &|_| ())?;
        if stays {
            let root = home.root().display();
            say(&format!("data and logs are in {root}; KEPT_HOME={root} ./kept up starts servers with them"));
        }
        Ok(())
    }

    fn show(&self, planned: &[Planned]) {
        for it in planned {
            if self.json {
                println!("{}", serde_json::json!({ "second": it.second, "fault": it.fault.to_string() }));
            } else {
                println!("  {:>5} s  {}", it.second, it.fault);
            }
        }
    }
}
