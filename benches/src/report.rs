//! One measured thing: its value, its baseline, and the goal their ratio has.

use serde::Serialize;

/// One line of `kept bench --json`.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Row {
    pub name: String,
    /// Median of the runs.
    pub value: f64,
    pub unit: String,
    /// Median of the baseline's runs; absent where the goal is absolute.
    pub baseline: Option<f64>,
    /// `value` ÷ `baseline`.
    pub ratio: Option<f64>,
    /// The goal for the ratio, or for the value where there is no baseline.
    pub goal: Option<f64>,
    /// The goal is a limit from above.
    pub at_most: bool,
    /// Smallest and largest of the runs, and of the baseline's.
    pub spread: (f64, f64),
    pub baseline_spread: Option<(f64, f64)>,
    pub runs: usize,
    pub config: String,
}

impl Row {
    /// Compares runs of a thing with runs of its baseline.
    pub fn ratio(name: &str, unit: &str, runs: &[f64], baseline: &[f64], goal: Option<f64>, config: String) -> Self {
        let (value, base) = (median(runs), median(baseline));
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            baseline: Some(base),
            ratio: Some(value / base),
            goal,
            at_most: false,
            spread: spread(runs),
            baseline_spread: Some(spread(baseline)),
            runs: runs.len(),
            config,
        }
    }

    /// States a thing by itself.
    pub fn plain(name: &str, unit: &str, runs: &[f64], goal: Option<f64>, config: String) -> Self {
        Self {
            name: name.into(),
            value: median(runs),
            unit: unit.into(),
            baseline: None,
            ratio: None,
            goal,
            at_most: false,
            spread: spread(runs),
            baseline_spread: None,
            runs: runs.len(),
            config,
        }
    }
}

impl Row {
    /// What the goal is held against: the ratio, or the value where there is no baseline.
    fn reached(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }

    /// True when there is a goal and it was not reached.
    pub fn missed(&self) -> bool {
        self.short_of_goal() > 0.0
    }

    /// By which part of the goal it was missed; 0 when it was not. A goal with `at_most` set is missed by being
    /// above it.
    pub fn short_of_goal(&self) -> f64 {
        let Some(goal) = self.goal else { return 0.0 };
        let short = if self.at_most { self.reached() / goal - 1.0 } else { 1.0 - self.reached() / goal };
        // What could not be measured did not reach its goal.
        if short.is_nan() { 1.0 } else { short.max(0.0) }
    }

    /// Says that the goal is a limit: less is better.
    pub fn at_most(mut self) -> Self {
        self.at_most = true;
        self
    }
}

/// The middle of the runs; of an even number, the mean of the two in the middle. Not a number when there are none.
pub fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

fn spread(runs: &[f64]) -> (f64, f64) {
    runs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &run| (low.min(run), high.max(run)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_missed_from_its_own_side() {
        let row = |value, goal| Row::plain("x", "ms", &[value], Some(goal), String::new());
        assert!(row(0.7, 0.8).missed());
        assert!(!row(0.9, 0.8).missed());
        assert!(row(600.0, 500.0).at_most().missed());
        assert!(!row(400.0, 500.0).at_most().missed());
        assert!(row(f64::NAN, 500.0).missed());
        assert!(!Row::plain("x", "ms", &[1.0], None, String::new()).missed());
    }

    #[test]
    fn the_median_is_the_middle_run() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
