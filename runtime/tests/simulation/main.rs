//! The drivers that ship, under a seeded simulation: thousands of schedules of kills, stops, rebalances, stale
//! owners, lost answers, late ends of transactions, re-created topics and records delivered twice.
//!
//! A failing seed is printed; `KEPT_SIM_SEED=n cargo test --release -p kept-runtime --test simulation` plays it alone
//! and tells what happens. `KEPT_SIM_SCHEDULES` sets how many are run.

mod misfit;
mod real;
mod schedule;
mod store;
mod toy;
mod world;

use std::{collections::BTreeMap, time::Instant};

use kept_runtime::ledger_step::Broken;
use misfit::Misfit;
use schedule::Schedule;

/// Schedules a broken engine is given to be caught in.
const CATCH_WITHIN: u64 = 3_000;

fn quiet() {
    // Rules that panic, as told, are part of the schedules.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let told = info
                .payload()
                .downcast_ref::<String>()
                .is_some_and(|it| it.starts_with("assertion `left != right` failed: as told"));
            if !told {
                before(info);
            }
        }));
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|it| it.parse().ok())
}

#[test]
fn the_engine_does_everything_exactly_once_in_every_schedule() {
    quiet();
    if let Some(seed) = number("KEPT_SIM_SEED") {
        let mut schedule = Schedule::new(seed, None, true);
        if let Err(wrong) = schedule.run() {
            panic!("{}: {wrong}", schedule.describe());
        }
        return;
    }
    let began = Instant::now();
    let schedules = number("KEPT_SIM_SCHEDULES").unwrap_or(3_000);
    let mut acted: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut late, mut lost, mut kills, mut pauses, mut anew) = (0, 0, 0, 0, 0);
    for seed in 0..schedules {
        let mut schedule = Schedule::new(seed, None, false);
        match schedule.run() {
            Err(wrong) => panic!("{}: {wrong}", schedule.describe()),
            Ok(report) => {
                for (name, value) in report.counters {
                    *acted.entry(name).or_default() += value;
                }
                late += report.late_applied;
                lost += report.ends_lost;
                kills += report.kills;
                pauses += report.pauses;
                anew += report.anew;
            }
        }
    }
    eprintln!(
        "{schedules} schedules in {:?}: {kills} kills, {pauses} stops, {late} late ends that hit, {lost} ends never \
         written, {anew} steps stopped by a topic made anew",
        began.elapsed()
    );
    eprintln!("{acted:?}");
    for (count, what) in [
        (late, "late ends"),
        (lost, "ends never written"),
        (kills, "kills"),
        (pauses, "stops"),
        (anew, "topics made anew"),
    ] {
        assert!(count > 0, "no {what} in any schedule");
    }
    // A guard that never acted was not tested.
    for guard in [
        "fences",
        "cas_misses",
        "re_emissions",
        "found_sent",
        "forgotten_offsets",
        "recycled_producers",
        "rejoins",
        "duplicates",
        "parked",
        "queued_behind_parked",
        "dead_letters",
        "repeats",
        "bisections",
        "reconnects",
        "careful_records",
        "fused_skips",
    ] {
        assert!(acted.get(guard).copied().unwrap_or(0) > 0, "guard {guard} never acted");
    }
}

#[test]
fn every_broken_engine_is_caught() {
    quiet();
    let only = std::env::var("KEPT_SIM_BROKEN").ok();
    for &broken in Broken::ALL {
        if only.as_ref().is_some_and(|it| *it != format!("{broken:?}")) {
            continue;
        }
        let began = Instant::now();
        let caught = (0..CATCH_WITHIN).find_map(|seed| {
            let mut schedule = Schedule::new(seed, Some(broken), false);
            schedule.run().err().map(|wrong| format!("{}: {wrong}", schedule.describe()))
        });
        let caught = caught.unwrap_or_else(|| panic!("{broken:?} was not caught in {CATCH_WITHIN} schedules"));
        eprintln!("{broken:?} caught after {:?} by {caught}", began.elapsed());
    }
}

#[test]
fn a_step_stops_with_the_reason_where_database_group_and_topic_do_not_fit() {
    quiet();
    for &what in Misfit::ALL {
        let mut stopped = 0;
        for seed in 0..60 {
            let (before, after) =
                Schedule::misfit(seed, what).unwrap_or_else(|wrong| panic!("{what:?}, seed {seed}: {wrong}"));
            assert_eq!(before, after, "{what:?}, seed {seed}: something was made although nothing fits");
            stopped += usize::from(before > 0);
        }
        assert!(stopped > 10, "{what:?} stopped somebody in {stopped} schedules only");
    }
}

/// `KEPT_AGREE_SCHEDULES` sets how many; each takes seconds on real servers.
#[test]
fn the_model_and_real_servers_agree() {
    quiet();
    let servers = real::Servers::there();
    let counters = std::sync::Arc::default();
    let began = Instant::now();
    let schedules = number("KEPT_AGREE_SCHEDULES").unwrap_or(4);
    let first = number("KEPT_AGREE_SEED").unwrap_or(0);
    for seed in first..first + schedules {
        let (mut schedule, inputs) = Schedule::plain(seed);
        if let Err(wrong) = schedule.run() {
            panic!("model, {}: {wrong}", schedule.describe());
        }
        let codec = schedule.codec();
        let model = real::signature(&codec, &schedule.visible()).expect("the model's output can be read");
        let visible = servers.run(seed, inputs, &codec, &counters);
        let visible = visible.unwrap_or_else(|wrong| panic!("real servers, KEPT_AGREE_SEED={seed}: {wrong}"));
        let real = real::signature(&codec, &visible);
        eprintln!("schedule {seed} played on real servers, {:?} since the start", began.elapsed());
        let same = real.as_ref() == Ok(&model);
        assert!(same, "KEPT_AGREE_SEED={seed}: the model gives\n{model:?}\nreal servers\n{real:?}");
    }
    let counters: &kept_runtime::counters::Counters = &counters;
    let acted: Vec<_> = counters.all().into_iter().filter(|(.., n)| *n > 0).map(|(name, _, n)| (name, n)).collect();
    eprintln!("{schedules} schedules agree after {:?}: {acted:?}", began.elapsed());
}
