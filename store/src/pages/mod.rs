//! What the pages for people and the HTTP API read: the read model, never the ledger. Nothing here writes.
//!
//! Every function takes a session on the read model's schema.

mod lists;
mod one;
mod overview;

pub use lists::{By, Found, Listed, PAGE, Row, find, list};
pub use one::{Charge, Hold, Line, Notification, OrderFacts, Parcel, Person, Posting, Shipment, Told, order, timeline};
pub use overview::{Overview, Reason, overview};

use kept_schemas::Micros;
use tokio_postgres::Row as PgRow;

use crate::pg::At;

/// A count with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub name: String,
    pub count: i64,
}

fn text(row: &PgRow, name: &str) -> String {
    row.get::<_, Option<String>>(name).unwrap_or_default()
}

fn number(row: &PgRow, name: &str) -> i64 {
    row.get::<_, Option<i64>>(name).unwrap_or_default()
}

fn instant(row: &PgRow, name: &str) -> Option<Micros> {
    row.get::<_, Option<At>>(name).map(|At(at)| at)
}
