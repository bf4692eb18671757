//! Postgres: everything that must be remembered, and the only place that writes SQL.

pub mod answers;
pub mod calls;
pub mod gauges;
pub mod journal;
pub mod ledger;
pub mod migrate;
pub mod pages;
pub mod parked;
pub mod pg;
pub mod read;
pub mod seam;
mod statements;
pub mod timers;

pub use ledger::PgLedger;
pub use migrate::{drop_all, migrate};
pub use pg::{Prefix, Schema, StoreError};
pub use read::PgSink;
pub use timers::PgTimers;
