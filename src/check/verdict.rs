//! What a check found: held, broken with examples, still in flight, or not applicable yet.

use serde::Serialize;

/// How many examples are kept of each kind; the count goes on.
const EXAMPLES: usize = 5;

/// Findings of one kind: all are counted, the first few are kept in words. Never personal data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Held,
    /// Something is on its way that will settle by itself; what is settled holds.
    InFlight,
    Broken,
    NotYetApplicable,
}

/// One check's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The check's short name, as the documentation and tests use it.
    pub check: &'static str,
    /// Which of the invariants in ARCHITECTURE it holds.
    pub invariant: u8,
    /// What must be true, in plain words.
    pub says: &'static str,
    /// What was looked at, and how many of it.
    pub counted: Vec<(&'static str, u64)>,
    pub broken: Findings,
    pub in_flight: Findings,
    /// Why there was nothing to check.
    pub not_yet: Option<String>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

impl Verdict {
    pub fn new(check: &'static str, invariant: u8, says: &'static str) -> Self {
        Self {
            check,
            invariant,
            says,
            counted: Vec::new(),
            broken: Findings::default(),
            in_flight: Findings::default(),
            not_yet: None,
            notes: Vec::new(),
        }
    }

    pub fn count(&mut self, what: &'static str, number: usize) {
        self.counted.push((what, number as u64));
    }

    pub fn broken(&mut self, example: impl FnOnce() -> String) {
        self.broken.add(example);
    }

    pub fn in_flight(&mut self, example: impl FnOnce() -> String) {
        self.in_flight.add(example);
    }

    /// Broken when `is_broken`, else in flight.
    pub fn broken_or_in_flight(&mut self, is_broken: bool, example: impl FnOnce() -> String) {
        if is_broken { self.broken.add(example) } else { self.in_flight.add(example) }
    }

    pub fn outcome(&self) -> Outcome {
        if self.broken.count > 0 {
            Outcome::Broken
        } else if self.not_yet.is_some() {
            Outcome::NotYetApplicable
        } else if self.in_flight.count > 0 {
            Outcome::InFlight
        } else {
            Outcome::Held
        }
    }

    /// Good enough to go on: nothing broken and, when everything is to be at rest, nothing on its way.
    pub fn passes(&self, settled: bool) -> bool {
        match self.outcome() {
            Outcome::Held | Outcome::NotYetApplicable => true,
            Outcome::InFlight => !settled,
            Outcome::Broken => false,
        }
    }
}
