//! What the processes counted. A process that is killed forgets its counters, so they are read every second and summed
//! here; what was counted in its last second is not known.

use std::collections::BTreeMap;

/// A counter over all lives of a process.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Of the lives before.
    before: u64,
    /// In this one.
    now: u64,
}

/// Counters by process, metric and step.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(String, String, String), Seen>);

impl Tally {
    /// Takes in what a process shows on its page of metrics.
    pub fn take(&mut self, process: &str, page: &str) {
        for (metric, step, value) in counters(page) {
            let seen = self.0.entry((process.to_owned(), metric.to_owned(), step.to_owned())).or_default();
            // It began anew without our having heard of it.
            if value < seen.now {
                seen.before += seen.now;
            }
            seen.now = value;
        }
    }

    /// A process begins a new life.
    pub fn began(&mut self, process: &str) {
        for (_, seen) in self.0.iter_mut().filter(|(key, _)| key.0 == process) {
            seen.before += seen.now;
            seen.now = 0;
        }
    }

    /// A counter over all processes and steps.
    pub fn sum(&self, metric: &str) -> u64 {
        self.0.iter().filter(|(key, _)| key.1 == metric).map(|(_, seen)| seen.before + seen.now).sum()
    }
}

/// Kept's own counters on a page in Prometheus's text form: name, step, value. Other lines are passed over.
fn counters(page: &str) -> impl Iterator<Item = (&str, &str, u64)> {
    page.lines().filter(|line| line.starts_with("kept_")).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = name.strip_suffix("_total")?;
        let step = labels.split(['{', ',', '}']).find_map(|it| it.strip_prefix("step=\"")?.strip_suffix('"'));
        // Numbers of several topics under one step are not needed here, and would overwrite each other.
        if labels.contains("topic=") {
            return None;
        }
        let whole = value.split('.').next().unwrap_or(value);
        Some((metric, step.unwrap_or_default(), whole.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_a_page_and_nothing_else_is() {
        let page = "# HELP kept_fences_total Commits refused\n# TYPE kept_fences_total counter\n\
                    kept_fences_total{step=\"ledger\"} 3\nkept_fences_total{step=\"read\"} 1\n\
                    kept_sent_total{step=\"ledger\",topic=\"orders.held\"} 9\nkept_lag_records{step=\"ledger\"} 7\n\
                    kept_leases_lost_total 2\nprocess_cpu_seconds_total 1.5\nkept_aborts_total{step=\"x\"} nonsense\n";
        assert_eq!(
            counters(page).collect::<Vec<_>>(),
            vec![("kept_fences", "ledger", 3), ("kept_fences", "read", 1), ("kept_leases_lost", "", 2)]
        );
    }

    #[test]
    fn a_process_that_begins_anew_keeps_what_it_had_counted() {
        let mut tally = Tally::default();
        let page = |count| format!("kept_fences_total{{step=\"ledger\"}} {count}\n");
        tally.take("a", &page(3));
        tally.take("a", &page(5));
        assert_eq!(tally.sum("kept_fences"), 5);
        tally.began("a");
        assert_eq!(tally.sum("kept_fences"), 5);
        tally.take("a", &page(1));
        assert_eq!(tally.sum("kept_fences"), 6);
        // A new life that nobody told us of.
        tally.take("a", &page(0));
        tally.take("b", &page(10));
        assert_eq!(tally.sum("kept_fences"), 16);
        assert_eq!(tally.sum("kept_aborts"), 0);
    }
}
