//! The read model: what the sink writes from the ledger's topics, for people, pages and reports.
//!
//! [`detail`] puts an event into words, [`fold`] sums a batch up, [`sink`] writes the sum with a handful of
//! statements. The tables are in `store/migrations/read/`, explained in `docs/read-model.md`.

mod detail;
mod fold;
mod rebuild;
mod sink;

pub use detail::detail;
pub use rebuild::{Rebuilt, rebuild};
pub use sink::{PgSink, PgSinkTxn};
