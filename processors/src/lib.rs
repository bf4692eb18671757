//! Decisions: plain functions from an event and its facts to new events. No clock, network, randomness, broker or
//! SQL; no hash-map iteration and no floats, so that a decision can be replayed and compared byte for byte.

pub mod enrich;
#[cfg(test)]
mod hostile;
pub mod ledger;
pub mod normalise;
pub mod reference;
mod sound;
pub mod validate;
