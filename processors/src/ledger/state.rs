//! What the ledger remembers, and the facts a decision is made from.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{
    Micros, Order, OrderId, Party, UnitPrice,
    events::Hold,
    inbound::Enrichment,
    inputs::{Condition, TimerPurpose},
    order::PaymentMethod,
};
use serde::{Deserialize, Serialize};

/// A stock keeping unit's code.
pub type Sku = String;

/// One line's counters, in units. `quantity = cancelled + shipped + pinned + claimed + short`, where short is
/// what is left; picked ≤ pinned; returned ≤ shipped; refunded ≤ quantity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LineState {
    pub line_no: i32,
    pub sku: Sku,
    pub quantity: i64,
    pub unit_price: UnitPrice,
    pub line_total_minor: i64,
    pub unit_weight_grams: Option<i64>,
    /// The SKU is in the product list; a line with an unknown SKU claims nothing.
    pub known: bool,
    /// Claimed network-wide, not pinned yet.
    pub claimed: i64,
    /// Pinned to a location by an open fulfilment order (picked ones among them).
    pub pinned: i64,
    pub picked: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub returned: i64,
    /// Paid back, for whatever reason. Nothing counts here yet: refunds are known by amount, not by line.
    pub refunded: i64,
}

impl LineState {
    /// Units that are still to be delivered and not shipped.
    pub fn open(&self) -> i64 {
        self.quantity - self.cancelled - self.shipped
    }

    /// Units to be delivered for which nothing is claimed or pinned.
    pub fn short(&self) -> i64 {
        self.open() - self.claimed - self.pinned
    }
}

/// Where a fulfilment order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FulfilmentStatus {
    Requested,
    Picked,
    Despatched,
    /// Asked not to ship; the location has not answered yet. Its pins stay until it does.
    Withdrawing,
    /// Withdrawn, or nothing was left of it; nothing of it is pinned.
    Closed,
    /// The location will not ship it, and is not asked again; nothing of it is pinned.
    Declined,
}

/// A fulfilment order: quantities of lines at one location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FulfilmentState {
    pub fulfilment_id: String,
    pub location_id: String,
    pub status: FulfilmentStatus,
    /// (line, units still pinned by it).
    pub pinned: Vec<(i32, i64)>,
    /// (line, units of those that are picked).
    pub picked: Vec<(i32, i64)>,
    /// It was overdue once; the customer knows.
    #[serde(default)]
    pub late: bool,
}

/// A shipment, as far as this order has a part in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShipmentState {
    pub shipment_id: String,
    pub delivered: bool,
    /// It was delivered at least once; the customer knows.
    pub arrived: bool,
    pub failed: bool,
    /// (line, units).
    pub lines: Vec<(i32, i64)>,
    /// Its parcels, and which of them were delivered.
    pub parcels: Vec<(String, bool)>,
    /// The latest scan, by the carrier's clock.
    pub tracked_at: Micros,
}

/// A timer: `deadlines.reached` comes when it is due. Written and cleared only by the fold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    pub timer_id: String,
    pub purpose: TimerPurpose,
    pub revision: i64,
    pub due_at: Micros,
}

/// An order's money so far, in minor units of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PaymentTotals {
    pub method: PaymentMethod,
    pub authorised_minor: i64,
    pub captured_minor: i64,
    pub refunded_minor: i64,
    /// The last fact said that a payment failed.
    pub failed: bool,
    /// A person said to go on without payment.
    pub waived: bool,
    /// Facts taken in, by kind and the provider's id, with their amounts.
    pub seen: BTreeMap<String, i64>,
}

/// A cancellation that waits: for the order itself, or for the answer of a location.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelAsked {
    /// All that is left to deliver.
    pub whole: bool,
    /// (line, units) when not all.
    pub lines: Vec<(i32, i64)>,
    pub by: String,
    pub reason: String,
}

/// What the ledger remembers of an order. `seq == 0`: nothing has happened yet. An order with `accepted` false
/// but `seq > 0` is a placeholder: facts came before the order did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderState {
    pub order_id: OrderId,
    /// Our own running number, given when the order's id is first seen.
    pub order_no: i64,
    /// Number of the last event.
    pub seq: i64,
    pub accepted: bool,
    pub accepted_at: Micros,
    /// Raised by each correction.
    pub revision: i32,
    /// The revision whose checks are done; below `revision`, a correction is still on its way through them.
    pub checked: i32,
    pub channel: String,
    pub account: String,
    /// Other accounts the same order came by.
    pub aliases: BTreeSet<String>,
    pub placed_at: Micros,
    pub body_hash: String,
    pub currency: String,
    pub test: bool,
    pub total_minor: i64,
    /// Σ charges, and of those the shipping, in minor units.
    pub charges_minor: i64,
    pub shipping_minor: i64,
    pub lines: Vec<LineState>,
    pub payment: PaymentTotals,
    /// Open holds.
    pub holds: Vec<Hold>,
    /// How many holds there ever were: the next hold's number.
    pub holds_ever: i64,
    /// Released to fulfilment at least once.
    pub released: bool,
    /// A cancellation came for all that was left (perhaps before the order itself).
    pub cancelled: bool,
    /// What of a cancellation is not done yet.
    pub cancel_asked: Option<CancelAsked>,
    pub fulfilments: Vec<FulfilmentState>,
    pub shipments: Vec<ShipmentState>,
    pub timers: Vec<Timer>,
    /// `delivered`, `cancelled` or `test`, once nothing is left to do.
    pub completed: Option<String>,
    /// Charges and goods already posted, in minor units.
    pub posted_minor: i64,
    /// The charges went with the first shipment, or with the end of an order without goods.
    pub charges_posted: bool,
}

/// The order itself and its person: big, seldom needed, kept beside the state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Content {
    pub order: Order,
    pub enrichment: Enrichment,
    /// Kept in a column of its own, which an erasure nulls.
    #[serde(skip)]
    pub party: Party,
}

/// A stock row's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StockKey {
    pub sku: Sku,
    pub location_id: String,
    pub condition: Condition,
}

/// Stock of one SKU at one location in one condition, in units. `0 ≤ picked ≤ reserved ≤ on_hand`, whatever the
/// world reports: what is pinned and was not found when counted is `unbacked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StockRow {
    pub on_hand: i64,
    /// Pinned by open fulfilment orders and there, picked ones among them.
    pub reserved: i64,
    pub picked: i64,
    /// Pinned by open fulfilment orders and not found by a count: the location will pick less, or find it after all.
    pub unbacked: i64,
    /// Rises with each change.
    pub version: i64,
}

/// Everything a decision may look at. What was changed is what fold wrote.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Postgres's clock at the batch's start.
    pub now: Micros,
    pub orders: BTreeMap<OrderId, OrderState>,
    pub contents: BTreeMap<OrderId, Content>,
    /// Per SKU: units claimed network-wide and not pinned.
    pub claims: BTreeMap<Sku, i64>,
    pub stock: BTreeMap<StockKey, StockRow>,
    /// Orders that are short of a SKU, first come first, as read without a lock (at most a bounded number), and as
    /// decisions of this batch changed them.
    pub waiting: BTreeMap<Sku, Vec<OrderId>>,
}

impl Facts {
    /// Units of a SKU that are sellable and neither pinned nor claimed, over all locations. What is pinned and was not
    /// found is owed all the same. May be negative after a count found fewer than were promised.
    pub fn available(&self, sku: &str) -> i64 {
        let free: i64 = self
            .stock
            .range(StockKey { sku: sku.to_owned(), location_id: String::new(), condition: Condition::Sellable }..)
            .take_while(|(key, _)| key.sku == sku)
            .filter(|(key, _)| key.condition == Condition::Sellable)
            .map(|(_, row)| row.free() - row.unbacked)
            .sum();
        free - self.claims.get(sku).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_stored_before_it_had_all_its_counters_is_read() {
        // Only texts and numbers: what JSON reads, the store reads.
        let stored = [("line_no", 1i64), ("quantity", 3), ("shipped", 2), ("returned", 1)];
        let read = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(stored.into_iter());
        let line = LineState::deserialize(read).expect("it reads");
        assert_eq!(line, LineState { line_no: 1, quantity: 3, shipped: 2, returned: 1, ..LineState::default() });
        assert_eq!(line.refunded, 0);
    }
}
