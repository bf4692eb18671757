//! The checks' answers, as a table for people and as JSON for scripts.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::verdict::{Outcome, Verdict};

/// All verdicts of one run.
#[derive(Debug, Clone)]
pub struct Report {
    pub verdicts: Vec<Verdict>,
    pub took: Duration,
}

impl Report {
    /// Nothing is broken and, when everything is to be at rest, nothing is on its way.
    pub fn passes(&self, settled: bool) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passes(settled))
    }

    /// One JSON object.
    pub fn json(&self, settled: bool) -> Value {
        let checks: Vec<Value> = (self.verdicts.iter())
            .map(|it| {
                json!({
                    "check": it.check,
                    "invariant": it.invariant,
                    "says": it.says,
                    "outcome": it.outcome(),
                    "counted": it.counted.iter().map(|(what, n)| json!({"what": what, "count": n})).collect::<Vec<_>>(),
                    "broken": it.broken,
                    "in_flight": it.in_flight,
                    "not_yet": it.not_yet,
                    "notes": it.notes,
                })
            })
            .collect();
        json!({ "ok": self.passes(settled), "settled": settled, "seconds": self.took.as_secs_f64(), "checks": checks })
    }

    /// The table, then what is broken or on its way, with examples.
    pub fn text(&self, settled: bool) -> String {
        let mut text = String::new();
        let mut line = |it: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{it}");
        };
        let width = self.verdicts.iter().map(|it| it.check.len()).max().unwrap_or(0);
        for it in &self.verdicts {
            let word = match it.outcome() {
                Outcome::Held => "holds",
                Outcome::InFlight => "in flight",
                Outcome::Broken => "BROKEN",
                Outcome::NotYetApplicable => "not yet",
            };
            line(format_args!("{word:<9}  {:<width$}  {}", it.check, it.says));
            line(format_args!("{:<9}  {:<width$}  {}", "", "", counted(it)));
        }
        for it in &self.verdicts {
            if it.broken.count + it.in_flight.count == 0 && it.notes.is_empty() && it.not_yet.is_none() {
                continue;
            }
            line(format_args!("\n{} (invariant {})", it.check, it.invariant));
            for (what, findings) in [("broken", &it.broken), ("in flight", &it.in_flight)] {
                if findings.count > 0 {
                    line(format_args!("  {}: {what}", findings.count));
                }
                for example in &findings.examples {
                    line(format_args!("    {example}"));
                }
                let more = findings.count - findings.examples.len() as u64;
                if more > 0 {
                    line(format_args!("    and {more} more"));
                }
            }
            for note in it.not_yet.iter().chain(&it.notes) {
                line(format_args!("  note: {note}"));
            }
        }
        line(format_args!("\n{} ({:.1} s)", self.headline(settled), self.took.as_secs_f64()));
        text
    }

    fn headline(&self, settled: bool) -> String {
        let of = |outcome| self.verdicts.iter().filter(|it| it.outcome() == outcome).count();
        let (broken, on_its_way, all) = (of(Outcome::Broken), of(Outcome::InFlight), self.verdicts.len());
        match (broken, on_its_way) {
            (0, 0) => format!("All {all} checks hold: nothing was lost, doubled or broken."),
            (0, some) if settled => format!("{some} of {all} checks see something under way; nothing should be."),
            (0, some) => format!("Nothing is broken; {some} of {all} checks see something still under way."),
            (some, _) => format!("{some} of {all} checks are BROKEN."),
        }
    }
}

fn counted(it: &Verdict) -> String {
    let parts: Vec<String> = it.counted.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    parts.join(", ")
}
