//! Chaos: a deployment of its own, with orders flowing, is broken in every way we can think of, by a schedule that
//! follows from a seed; then everything is left alone, and must come to rest with nothing lost, doubled or broken.
//!
//! It judges from outside only: orders by the senders' own logs and the read model, the rest by `kept check`. Kept's
//! processes are the shipped binary, started as anybody would start them.

mod deployment;
mod eyes;
mod fleet;
mod report;
pub mod schedule;
mod sender;
mod shop;
mod side;
mod tally;

use std::{
    path::PathBuf,
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

pub use report::Report;

use self::{
    deployment::Deployment,
    report::{Guard, Made},
    schedule::{Planned, Profile, schedule},
    shop::PAYMENT_DUE_SECONDS,
};
use crate::servers::Say;

/// A run of at least so many minutes must have seen every guard act.
const LONG_MINUTES: u32 = 30;
/// What is still to be sent when sending ends must be accepted within this.
const LAST_ORDERS: Duration = Duration::from_secs(120);
/// Between two looks at whether everything is at rest.
const LOOK: Duration = Duration::from_secs(2);
/// So many looks in a row must show the same.
const SAME_LOOKS: u32 = 3;

/// What a run needs to be told.
pub struct Settings {
    /// Where servers, data and logs of the run are; what an earlier run left there is deleted.
    pub home: PathBuf,
    /// The binary `kept`.
    pub program: PathBuf,
    pub seed: u64,
    pub minutes: u32,
    pub profile: Profile,
    /// Nothing but faults whose words hold these.
    pub only: Option<String>,
    /// Orders a second.
    pub per_second: u32,
    /// How long everything may take to come to rest.
    pub settle: Duration,
}

/// Makes the faults and judges. An error: it could not be carried out.
pub async fn run(settings: &Settings, say: Say<'_>) -> Result<Report> {
    let planned = schedule(settings.seed, settings.minutes, settings.profile, settings.only.as_deref());
    let mut deployment = Deployment::build(settings, &planned, say).await?;
    let began = Instant::now();
    let mut made = faults(settings, &planned, &mut deployment, began, say).await?;
    let last = Instant::now();

    say("no more faults; waiting until everything is at rest");
    deployment.leave_alone();
    let mut broken = Vec::new();
    for (at, side) in deployment.take_sides() {
        match side.await.context("the deployment beside")? {
            Ok(stopped) => {
                made[at].recovered_seconds = Some(stopped.seconds);
                made[at].note = "it stopped, twice, and went on after the operator's recovery".into();
                deployment.side_stops += stopped.stops;
            }
            Err(error) => made[at].note = format!("{error:#}"),
        }
    }
    deployment.flags.stop.store(true, Relaxed);
    match tokio::time::timeout(LAST_ORDERS, deployment.sender()).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => broken.push(format!("the senders ended early: {error:#}")),
        Ok(Err(error)) => broken.push(format!("the senders broke: {error}")),
        Err(_) => broken.push(format!("the last orders were not accepted within {} s", LAST_ORDERS.as_secs())),
    }
    let quiet_seconds = quiet(settings, &mut deployment, last, say).await;
    say("checking");
    let (check, check_ok) = deployment.check(settings.settle.saturating_sub(last.elapsed()), say).await;
    deployment.scrape().await;
    broken.append(&mut deployment.trouble());

    let standing = deployment.eyes.standing().await.context("count the orders")?;
    let fleet = deployment.fleet.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        seed: settings.seed,
        minutes: settings.minutes,
        long: settings.minutes >= LONG_MINUTES && settings.profile == Profile::Full && settings.only.is_none(),
        made,
        guards: guards(&deployment),
        accepted: deployment.accepted.count(),
        standing,
        quiet_seconds,
        check,
        check_ok,
        deaths: fleet.deaths().iter().map(|it| (it.name.clone(), it.second, it.last_words.clone())).collect(),
        restarts: fleet.restarts(),
        broken,
    })
}

async fn faults(
    settings: &Settings,
    planned: &[Planned],
    deployment: &mut Deployment,
    began: Instant,
    say: Say<'_>,
) -> Result<Vec<Made>> {
    let at = |second: u32| began + Duration::from_secs(u64::from(second));
    // The short profile ends with its last fault; a full one uses its time.
    let end = match (settings.profile, planned.last()) {
        (Profile::Ci, Some(last)) => at(last.second),
        _ => at(settings.minutes * 60),
    };
    let grace = Duration::from_secs(u64::try_from(PAYMENT_DUE_SECONDS).unwrap_or(60) + 10);
    let mut made = Vec::with_capacity(planned.len());
    for it in planned {
        deployment.wait_until(at(it.second), end.checked_sub(grace)).await;
        let second = began.elapsed().as_secs();
        say(&format!("{second:>5} s  {}", it.fault));
        let (recovered_seconds, note) = deployment.make(it.fault, made.len()).await?;
        match (recovered_seconds, deployment.goes_on_beside(made.len())) {
            (Some(seconds), _) => say(&format!("         through again after {seconds:.1} s{}", appended(&note))),
            (None, true) => {}
            (None, false) => say(&format!("         NOT got over{}", appended(&note))),
        }
        made.push(Made { second, fault: it.fault, recovered_seconds, note });
        if deployment.sender_ended() {
            say("         the senders ended; nothing more can be shown");
            break;
        }
    }
    if settings.profile == Profile::Full && !deployment.sender_ended() {
        deployment.wait_until(end, end.checked_sub(grace)).await;
    }
    Ok(made)
}

fn appended(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!("; {note}") }
}

/// Waits until every accepted order is shown and stands in a final state or waits for something with a name.
async fn quiet(settings: &Settings, deployment: &mut Deployment, last: Instant, say: Say<'_>) -> Option<f64> {
    const AT_REST: [&str; 3] = ["held", "cancelled", "delivered"];
    let accepted = deployment.accepted.all();
    let mut same = (Vec::new(), 0);
    let mut told = Instant::now();
    while last.elapsed() < settings.settle {
        if let Ok(standing) = deployment.eyes.standing().await {
            let all: i64 = standing.iter().map(|it| it.1).sum();
            let moving: i64 = standing.iter().filter(|it| !AT_REST.contains(&it.0.as_str())).map(|it| it.1).sum();
            let here = usize::try_from(all).unwrap_or(0) >= accepted.len();
            same = if same.0 == standing { (standing, same.1 + 1) } else { (standing, 0) };
            if here && moving == 0 && same.1 >= SAME_LOOKS {
                match deployment.eyes.shown(&accepted).await {
                    Ok(shown) if shown == accepted.len() => return Some(last.elapsed().as_secs_f64()),
                    _ => {}
                }
            }
            if told.elapsed() > Duration::from_secs(15) {
                told = Instant::now();
                say(&format!("  {all} of {} orders are shown, {moving} still on their way", accepted.len()));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}

fn guards(deployment: &Deployment) -> Vec<Guard> {
    let tally = deployment.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let counted = |name, metric: &str, must_act| Guard { name, acted: tally.sum(metric), must_act };
    vec![
        counted("commits refused: we were not the owner any more (fences)", "kept_fences", true),
        counted("batches refused: another had moved on (compare-and-set)", "kept_cas_misses", true),
        counted("events sent again from the journal", "kept_re_emissions", true),
        counted("records found on their topics and not sent again", "kept_found_sent", true),
        counted("producers replaced after an abort or a doubtful end", "kept_recycled_producers", true),
        counted("positions established anew (catch-up)", "kept_catch_ups", true),
        counted("records recognised as acted on before", "kept_duplicates", true),
        counted("records worked on alone after an unclean start", "kept_careful_records", true),
        counted("records that could not be read (dead letters)", "kept_dead_letters", true),
        counted("orders parked", "kept_parked", true),
        counted("records queued behind a parked one", "kept_queued_behind_parked", false),
        counted("offsets that the broker forgot", "kept_forgotten_offsets", false),
        counted("leased slots lost while they were held", "kept_leases_lost", true),
        counted("connections to Postgres replaced", "kept_reconnects", true),
        Guard { name: "steps stopped by a topic made anew", acted: deployment.side_stops, must_act: true },
        Guard { name: "ends of transactions that arrived late", acted: deployment.late_ends(), must_act: true },
        counted("groups left and joined again", "kept_rejoins", true),
        counted("transactions aborted", "kept_aborts", true),
        counted("batches repeated after a deadlock", "kept_repeats", false),
        counted("batches cut in two to find a record at fault", "kept_bisections", false),
        Guard {
            name: "tries of a sender that had to be repeated",
            acted: deployment.accepted.tries_again.load(Relaxed),
            must_act: false,
        },
    ]
}
