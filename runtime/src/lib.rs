//! The runtime: makes decisions true, once, for every step. Only this crate knows Kafka.

pub mod counters;
pub mod dead_letters;
pub mod kafka;
pub mod ledger_step;
pub mod log;
pub mod schemas;
pub mod sink_step;
pub mod stateless;
pub mod threads;
pub mod timers;
