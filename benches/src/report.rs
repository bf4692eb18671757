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
            spread: spread(runs),
            baseline_spread: None,
            runs: runs.len(),
            config,
        }
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
    fn the_median_is_the_middle_run() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
