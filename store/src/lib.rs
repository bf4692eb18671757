//! Postgres: everything that must be remembered, and the only place that writes SQL.

pub mod accepted;
pub mod answers;
pub mod calls;
pub mod dead_letters;
pub mod gauges;
pub mod journal;
pub mod leases;
pub mod ledger;
pub mod migrate;
pub mod pages;
pub mod parked;
pub mod pg;
pub mod read;
pub mod reference;
pub mod schemas;
pub mod seam;
pub mod session;
mod statements;
pub mod summary;
pub mod timers;

pub use ledger::PgLedger;
pub use migrate::{drop_all, migrate};
pub use pg::{Prefix, Schema, StoreError};
pub use read::PgSink;
pub use session::Session;
pub use timers::PgTimers;
pub use tokio_postgres::Client;
