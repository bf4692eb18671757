//! The shipped rules: the plain functions of `kept_processors::ledger`, as the ledger step's driver asks for them.

use kept_processors::{
    ledger::{Cause, Facts, LedgerEvent, LedgerInput, Needs, Sku, decide, needs, skus},
    reference::Reference,
};
use kept_store::seam::{Keys, Rules};

/// The rules that ship.
#[derive(Debug, Clone, Copy)]
pub struct Shipped;

impl Rules for Shipped {
    fn keys(&self, input: &LedgerInput, _: &Cause, keys: &mut Keys) {
        match needs(input) {
            Needs::Order { order_id, content } => {
                keys.orders.push(order_id);
                if content {
                    keys.contents.push(order_id);
                }
            }
            Needs::Sku(sku) => keys.skus.push(sku),
        }
    }

    fn skus(&self, input: &LedgerInput, facts: &Facts) -> Vec<Sku> {
        skus(input, facts)
    }

    fn decide(&self, input: &LedgerInput, cause: &Cause, facts: &mut Facts, reference: &Reference) -> Vec<LedgerEvent> {
        crate::chaos_hook::abort_if_told(cause.event_id);
        decide(input, cause, facts, reference)
    }
}
