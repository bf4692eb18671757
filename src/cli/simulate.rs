//! `kept simulate`: a made-up warehouse and carrier answer fulfilment orders.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use clap::Args;
use kept_schemas::inputs::OutcomeKind;
use kept_stack::world::{
    Rates, World,
    rates::Mishap,
    run::{Progress, Settings, run},
};
use serde_json::json;

use super::{ConfigFile, block_on};

/// Let a simulated warehouse and carrier answer fulfilment orders
///
/// They pick, despatch, scan and deliver what Kept asks for, in compressed time, with mistakes at stated rates. Every
/// report is marked as simulated, and stands in the simulator's own books (a file) before Kept is told. The same seed,
/// rates and speed give the same reports for the same fulfilment order, also after a restart.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept simulate
  ./kept simulate --speed 21600                       six hours of work in a second
  ./kept simulate --rate short=100 --rate refused=0   one pick in ten is short, none is refused
  ./kept simulate --show-rates                        what goes wrong, and how often
  ./kept simulate --json                              a JSON object a line instead of text

It runs until it is stopped (Ctrl-C, SIGTERM). One at a time for a folder of logs.

Exit codes: 0 it was told to stop; 1 it cannot go on, and the message says why.")]
pub struct Simulate {
    /// What chance is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of work in one second
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    speed: u32,
    /// How often something goes wrong, in a thousand cases; may be given several times
    #[arg(long = "rate", value_name = "NAME=PER_THOUSAND")]
    rates: Vec<String>,
    /// Print what goes wrong and how often, and do nothing else
    #[arg(long)]
    show_rates: bool,
    /// Where its books are
    #[arg(long, env = "KEPT_LOGS", default_value = ".kept/logs", value_name = "FOLDER")]
    logs: PathBuf,
    /// Most fulfilment orders open at a time; more wait on their topic
    #[arg(long, default_value_t = 200_000, value_name = "NUMBER")]
    most_open: usize,
    #[command(flatten)]
    config: ConfigFile,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

impl Simulate {
    pub fn run(self) -> Result<ExitCode> {
        let rates = self.rates.iter().try_fold(Rates::default(), |rates, text| rates.set(text));
        let rates = match rates {
            Ok(rates) => rates,
            Err(why) => {
                eprintln!("kept simulate: --rate: {why}");
                return Ok(ExitCode::from(2));
            }
        };
        if self.show_rates {
            show(&rates, self.json);
            return Ok(ExitCode::SUCCESS);
        }
        let config = self.config.load()?;
        let world = World { seed: self.seed, speed: self.speed, rates };
        if self.json {
            println!("{}", json!({ "simulated": true, "seed": self.seed, "speed": self.speed }));
        } else {
            println!(
                "simulated warehouse and carrier: everything they report is made up (seed {}, {} of work in a second)",
                self.seed,
                duration(self.speed)
            );
        }
        let settings = Settings { config, world, logs: self.logs, most_open: self.most_open };
        let stop = Arc::new(AtomicBool::new(false));
        block_on(async {
            tokio::spawn(told_to_stop(Arc::clone(&stop)));
            run(settings, Arc::clone(&stop), |progress| print(progress, self.json)).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn told_to_stop(stop: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            stop.store(true, Ordering::Relaxed);
        }
        _ => tracing::warn!("signals cannot be listened to; stop it with SIGKILL: nothing is lost"),
    }
}

fn show(rates: &Rates, json: bool) {
    for &mishap in Mishap::ALL {
        let (name, about, rate) = (mishap.name(), mishap.about(), rates.of(mishap));
        if json {
            println!("{}", json!({ "name": name, "per_thousand": rate, "about": about }));
        } else {
            println!("{name:<20} {rate:>4} in 1,000   {about}");
        }
    }
}

fn duration(seconds: u32) -> String {
    match seconds {
        it if it % 3_600 == 0 => format!("{} h", it / 3_600),
        it if it % 60 == 0 => format!("{} min", it / 60),
        it => format!("{it} s"),
    }
}

fn print(progress: &Progress, json: bool) {
    let counts = &progress.counts;
    let count = |kind| counts.reports.get(&kind).copied().unwrap_or(0);
    if json {
        let reports: serde_json::Map<_, _> =
            counts.reports.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
        println!(
            "{}",
            json!({
                "simulated": true, "asked": counts.requests, "open": progress.open, "reports": reports,
                "withdrawals": counts.withdrawals, "withdrawn_too_late": counts.withdrawn_too_late,
                "sent_twice": counts.repeated, "unreadable": progress.unreadable,
            })
        );
        return;
    }
    println!(
        "simulated: asked to ship {}; {} open, {} picked, {} despatched, {} delivered; went wrong: {} short, {} refused, \
         {} not delivered; {} withdrawn, {} asked too late",
        counts.requests,
        progress.open,
        count(OutcomeKind::Picked),
        count(OutcomeKind::Despatched),
        count(OutcomeKind::Delivered),
        count(OutcomeKind::Short),
        count(OutcomeKind::Refused),
        count(OutcomeKind::DeliveryFailed),
        count(OutcomeKind::Withdrawn),
        counts.withdrawn_too_late,
    );
    if progress.unreadable > 0 {
        println!("simulated: {} records could not be read and were passed over", progress.unreadable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_told_in_the_largest_whole_unit() {
        for (seconds, text) in [(3_600, "1 h"), (21_600, "6 h"), (90, "90 s"), (120, "2 min"), (1, "1 s")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
