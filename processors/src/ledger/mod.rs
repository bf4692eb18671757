//! The ledger step's contract: what it reads, what it remembers, what it says.
//!
//! [`needs`] and [`skus`] name what to lock, [`decide`] gives events, [`fold`] the new state. State is the fold of the
//! events and of nothing else, so it can be rebuilt from the journal. One worker at a time decides for an order.
//!
//! One file per kind of input (`accept`, `payments`, `commands`, `outcomes`, `deadlines`, `stock`, `woken`); each ends
//! in `settle`, which says what follows from how the order stands now.

mod accept;
mod books;
mod cancel;
mod commands;
mod deadlines;
mod decision;
mod event;
mod fold;
mod input;
mod money;
mod outcomes;
mod payments;
#[cfg(test)]
mod properties;
mod route;
mod rows;
mod settle;
#[cfg(test)]
mod situations;
mod state;
mod stock;
#[cfg(test)]
mod testing;
mod woken;

use std::collections::BTreeSet;

use kept_schemas::{OrderId, inputs::OutcomeKind};

use crate::reference::Reference;
use decision::Decision;

pub use event::LedgerEvent;
pub use fold::fold;
pub use input::{Cause, LedgerInput};
pub use state::{
    CancelAsked, Content, Facts, FulfilmentState, FulfilmentStatus, LineState, OrderState, PaymentTotals,
    ShipmentState, Sku, StockKey, StockRow, Timer,
};

/// What an input needs locked before it can be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// An order's state, and its content too (the order itself, its person) or not.
    Order { order_id: OrderId, content: bool },
    /// A SKU with its stock.
    Sku(Sku),
}

/// What to lock.
pub fn needs(input: &LedgerInput) -> Needs {
    let content = match input {
        LedgerInput::Stock(it) => return Needs::Sku(it.sku.clone()),
        LedgerInput::Outcome(it) => {
            !matches!(it.kind, OutcomeKind::Picked | OutcomeKind::Tracked | OutcomeKind::DeliveryFailed)
        }
        _ => true,
    };
    Needs::Order { order_id: input.order_id().expect("only stock is about no order"), content }
}

/// The SKUs an input touches, now that its order's state is known.
pub fn skus(input: &LedgerInput, facts: &Facts) -> Vec<Sku> {
    let order = input.order_id().and_then(|order_id| facts.orders.get(&order_id));
    let order = order.filter(|order| order.accepted && !order.test);
    let claims = order.is_some_and(|order| order.lines.iter().any(|line| line.claimed > 0));
    let mut skus: BTreeSet<&str> = BTreeSet::new();
    let lines = match input {
        LedgerInput::Stock(it) => {
            skus.insert(&it.sku);
            false
        }
        LedgerInput::Validated(it) => {
            let news = order.is_none() || it.revision > 0;
            if news && !it.order.test {
                for (index, line) in it.order.lines.iter().enumerate() {
                    if fold::line_facts(&it.enrichment, index, line.line_no).is_some_and(|it| it.known) {
                        skus.insert(&line.sku);
                    }
                }
            }
            news
        }
        LedgerInput::Woken(it) => {
            skus.insert(&it.sku);
            true
        }
        LedgerInput::Command(_) => true,
        LedgerInput::Outcome(it) => match it.kind {
            OutcomeKind::Tracked | OutcomeKind::DeliveryFailed => false,
            OutcomeKind::Delivered => claims,
            _ => true,
        },
        // These may pin or give back what is claimed, and touch nothing else.
        LedgerInput::Payment(_) | LedgerInput::Deadline(_) => claims,
    };
    if lines && let Some(order) = order {
        skus.extend(order.lines.iter().filter(|line| line.known).map(|line| line.sku.as_str()));
    }
    skus.into_iter().map(str::to_owned).collect()
}

/// Decides. Each event is folded into `facts` as it is made.
pub fn decide(input: &LedgerInput, cause: &Cause, facts: &mut Facts, reference: &Reference) -> Vec<LedgerEvent> {
    let order_id = match input {
        LedgerInput::Stock(it) => return stock::counted(facts, it),
        _ => input.order_id().expect("only stock is about no order"),
    };
    let mut d = Decision::new(facts, reference, cause, order_id);
    match input {
        LedgerInput::Validated(it) => accept::validated(&mut d, it),
        LedgerInput::Payment(it) => payments::received(&mut d, it),
        LedgerInput::Command(it) => commands::received(&mut d, it),
        LedgerInput::Outcome(it) => outcomes::received(&mut d, it),
        LedgerInput::Deadline(it) => deadlines::reached(&mut d, it),
        LedgerInput::Woken(it) => woken::woken(&mut d, it),
        LedgerInput::Stock(_) => {}
    }
    d.finish()
}
