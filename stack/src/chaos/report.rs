//! What a chaos run came to: faults and how long each took to get over, how often each guard acted, the verdict.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};

use super::schedule::Fault;

/// One fault that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// From the first order.
    pub second: u64,
    pub fault: Fault,
    /// From the moment what was taken away was given back (of a kill: from the kill) until orders that were accepted
    /// after it were through. `None`: they were not in time, or what had to hold did not.
    pub recovered_seconds: Option<f64>,
    /// What else there is to say.
    pub note: String,
}

/// A guard, and how often it acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    pub name: &'static str,
    pub acted: u64,
    /// A long run is red when it never acted.
    pub must_act: bool,
}

/// What the run came to.
#[derive(Debug, Clone)]
pub struct Report {
    pub seed: u64,
    pub minutes: u32,
    /// So long that every guard must have acted.
    pub long: bool,
    pub made: Vec<Made>,
    pub guards: Vec<Guard>,
    pub accepted: usize,
    /// Orders by where they stand.
    pub standing: Vec<(String, i64)>,
    /// How long after the last fault everything was at rest; `None`: it was not in time.
    pub quiet_seconds: Option<f64>,
    /// What the checker said, whole.
    pub check: String,
    pub check_ok: bool,
    /// Processes that ended by themselves: name, second, last words.
    pub deaths: Vec<(String, u64, String)>,
    pub restarts: u64,
    /// What else did not hold.
    pub broken: Vec<String>,
}

impl Report {
    /// Everything that speaks against a green verdict.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = self.broken.clone();
        for made in self.made.iter().filter(|it| it.recovered_seconds.is_none()) {
            reasons.push(format!("not got over: {} ({})", made.fault, made.note));
        }
        if self.quiet_seconds.is_none() {
            reasons.push("not everything came to rest in time".into());
        }
        if !self.check_ok {
            reasons.push("the check is red".into());
        }
        if self.long {
            for guard in self.guards.iter().filter(|it| it.must_act && it.acted == 0) {
                reasons.push(format!("never acted, so nothing shows that it works: {}", guard.name));
            }
        }
        reasons
    }

    pub fn ok(&self) -> bool {
        self.reasons().is_empty()
    }

    pub fn json(&self) -> Value {
        json!({
            "ok": self.ok(), "reasons": self.reasons(), "seed": self.seed, "minutes": self.minutes,
            "orders": self.accepted, "standing": self.standing.iter().cloned().collect::<BTreeMap<_, _>>(),
            "quiet_seconds": self.quiet_seconds, "restarts": self.restarts,
            "faults": self.made.iter().map(|it| json!({
                "second": it.second, "fault": it.fault.to_string(), "kind": it.fault.kind(),
                "recovered_seconds": it.recovered_seconds, "note": it.note,
            })).collect::<Vec<_>>(),
            "guards": self.guards.iter().map(|it| (it.name, it.acted)).collect::<BTreeMap<_, _>>(),
            "ended_by_themselves": self.deaths.iter().map(|(name, second, words)| json!({
                "process": name, "second": second, "last_words": words.trim(),
            })).collect::<Vec<_>>(),
            "check_ok": self.check_ok,
        })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let line = |text: &mut String, it: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{it}");
        };
        line(&mut text, format!("\n{} faults; time until orders were through again:", self.made.len()));
        line(&mut text, format!("  {:<28} {:>5} {:>9} {:>9}", "", "times", "p50", "longest"));
        for (kind, times, p50, longest) in by_kind(&self.made) {
            line(&mut text, format!("  {kind:<28} {times:>5} {:>9} {:>9}", seconds(p50), seconds(longest)));
        }
        line(&mut text, "\nHow often each guard acted:".into());
        for guard in &self.guards {
            let chance = if guard.must_act { "" } else { "  (by chance)" };
            line(&mut text, format!("  {:<66} {:>8}{chance}", guard.name, guard.acted));
        }
        if !self.deaths.is_empty() {
            line(
                &mut text,
                format!("\nProcesses that ended by themselves and were started again ({}):", self.deaths.len()),
            );
            for (name, second, words) in self.deaths.iter().take(20) {
                line(
                    &mut text,
                    format!("  {name}, at {second} s: {}", words.trim().lines().next_back().unwrap_or_default()),
                );
            }
        }
        let standing: Vec<String> = self.standing.iter().map(|(status, count)| format!("{count} {status}")).collect();
        line(&mut text, format!("\n{} orders were accepted; now: {}", self.accepted, standing.join(", ")));
        if let Some(quiet) = self.quiet_seconds {
            line(&mut text, format!("at rest {quiet:.0} s after the last fault and order"));
        }
        line(&mut text, format!("\n{}", self.check.trim_end()));
        match self.reasons() {
            reasons if reasons.is_empty() => line(&mut text, "\nHeld: nothing lost, doubled or broken.".into()),
            reasons => {
                line(&mut text, "\nNOT held:".into());
                reasons.into_iter().for_each(|it| line(&mut text, format!("  - {it}")));
            }
        }
        text
    }
}

fn seconds(it: Option<f64>) -> String {
    it.map_or_else(|| "never".into(), |it| format!("{it:.1} s"))
}

/// Kind, how often, median and longest time, in the order of the longest first. One that was never got over counts as
/// the longest.
fn by_kind(made: &[Made]) -> Vec<(&'static str, usize, Option<f64>, Option<f64>)> {
    let mut kinds: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for it in made {
        kinds.entry(it.fault.kind()).or_default().push(it.recovered_seconds.unwrap_or(f64::INFINITY));
    }
    let finite = |it: f64| it.is_finite().then_some(it);
    let mut rows: Vec<_> = kinds
        .into_iter()
        .map(|(kind, mut times)| {
            times.sort_by(f64::total_cmp);
            let longest = times[times.len() - 1];
            (kind, times.len(), finite(times[(times.len() - 1) / 2]), finite(longest), longest)
        })
        .collect();
    rows.sort_by(|a, b| b.4.total_cmp(&a.4));
    rows.into_iter().map(|(kind, times, p50, longest, _)| (kind, times, p50, longest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::schedule::{Part, Who},
        servers::Server,
    };

    fn made(fault: Fault, recovered_seconds: Option<f64>) -> Made {
        Made { second: 1, fault, recovered_seconds, note: String::new() }
    }

    fn report() -> Report {
        Report {
            seed: 1,
            minutes: 60,
            long: true,
            made: vec![made(Fault::Cut(Server::Kafka), Some(1.0))],
            guards: vec![
                Guard { name: "fences", acted: 2, must_act: true },
                Guard { name: "luck", acted: 0, must_act: false },
            ],
            accepted: 10,
            standing: vec![("delivered".into(), 10)],
            quiet_seconds: Some(3.0),
            check: "all green".into(),
            check_ok: true,
            deaths: vec![],
            restarts: 0,
            broken: vec![],
        }
    }

    #[test]
    fn it_is_green_only_if_everything_held() {
        assert!(report().ok());
        type Spoil = fn(&mut Report);
        let spoilt: [(&str, Spoil); 6] = [
            ("the check is red", |it| it.check_ok = false),
            ("not everything came to rest in time", |it| it.quiet_seconds = None),
            ("not got over: cut every connection", |it| it.made[0].recovered_seconds = None),
            ("never acted, so nothing shows that it works: fences", |it| it.guards[0].acted = 0),
            ("something else", |it| it.broken.push("something else".into())),
            ("never acted", |it| it.guards[0].acted = 0),
        ];
        for (reason, spoil) in spoilt {
            let mut report = report();
            spoil(&mut report);
            assert!(!report.ok() && report.reasons()[0].starts_with(reason), "{:?}", report.reasons());
            assert!(report.text().contains("NOT held"));
            assert_eq!(report.json()["ok"], false);
        }
    }

    #[test]
    fn a_guard_that_never_acted_does_not_speak_against_a_short_run() {
        let mut report = report();
        report.long = false;
        report.guards[0].acted = 0;
        assert!(report.ok());
    }

    #[test]
    fn times_are_told_by_kind_with_median_and_longest() {
        let kill = |which, time| made(Fault::Kill(Who::Part(Part::Ledger, which)), time);
        let rows = by_kind(&[
            kill(0, Some(3.0)),
            kill(1, Some(1.0)),
            kill(0, Some(9.0)),
            made(Fault::Cut(Server::Kafka), None),
            made(Fault::Cut(Server::Postgres), Some(2.0)),
        ]);
        assert_eq!(
            rows,
            vec![("connections cut", 2, Some(2.0), None), ("kill -9 a process", 3, Some(3.0), Some(9.0)),]
        );
    }
}
