//! The ledger step's contract: what it reads, what it remembers, what it says.
//!
//! `keys` names what to lock, `decide` gives events, `fold` the new state. State is the fold of the events and of
//! nothing else, so it can be rebuilt from the journal. One worker at a time decides for an order.

mod event;
mod input;
mod state;

pub use event::LedgerEvent;
pub use input::{Cause, LedgerInput};
pub use state::{
    Content, Facts, FulfilmentState, FulfilmentStatus, LineState, OrderState, PaymentTotals, ShipmentState, Sku,
    StockKey, StockRow, Timer,
};
