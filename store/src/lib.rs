//! Postgres: everything that must be remembered, and the only place that writes SQL.

pub mod ledger;
pub mod migrate;
pub mod pages;
pub mod pg;
pub mod read;
pub mod seam;
mod statements;

pub use ledger::PgLedger;
pub use migrate::{drop_all, migrate};
pub use read::PgSink;
pub use pg::{Prefix, Schema, StoreError};
