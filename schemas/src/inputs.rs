//! What the ledger step is told, besides validated orders: payments, commands, outcomes, deadlines, stock.
//! Others write these topics; the ledger never does (except `orders.woken`).

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::OrderId, order::Party, values::Micros, words};

words! {
    /// What happened to money.
    pub enum PaymentKind {
        Authorised = "authorised",
        Captured = "captured",
        Failed = "failed",
        Cancelled = "cancelled",
        Refunded = "refunded",
        ChargedBack = "charged_back",
    }
}

/// `payments.received`: a fact about an order's money, from a provider, a channel or a person.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct PaymentReceived {
    pub order_id: OrderId,
    /// The provider's id of this fact: the same id again is the same fact.
    pub payment_id: String,
    pub kind: PaymentKind,
    /// The amount of this fact, in minor units, never negative.
    pub amount_minor: i64,
    pub currency: String,
    /// When it happened, by the provider's clock.
    pub at: Micros,
    /// Who says so: a channel account, `api`, `cli`.
    pub source: String,
    pub detail: Option<String>,
    /// The fields of the raw body that were not understood, by JSON pointer, without what stands in them.
    #[avro(default = "[]")]
    pub not_understood: Vec<String>,
}

words! {
    /// What a person or a program asks the ledger to do.
    pub enum CommandKind {
        /// Cancel what `lines` names, or everything when it names none.
        Cancel = "cancel",
        /// Resolve the hold `hold_id`, or every hold of `reason`: go on as if it were not there.
        Release = "release",
        /// Put a hold on the order.
        Hold = "hold",
        /// Replace the address (in `party`) and check the order again.
        CorrectAddress = "correct_address",
        /// Run the checks again.
        Recheck = "recheck",
    }
}

/// A quantity of one line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct LineQuantity {
    pub line_no: i32,
    pub quantity: i64,
}

/// `commands.received`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct CommandReceived {
    pub order_id: OrderId,
    /// The sender's id of this command: the same id again is the same command.
    pub command_id: String,
    pub kind: CommandKind,
    /// Who asks: a channel account or a person's login; never a name.
    pub by: String,
    pub at: Micros,
    pub lines: Vec<LineQuantity>,
    pub hold_id: Option<String>,
    /// Why, in the asker's words; no personal data.
    pub reason: Option<String>,
    /// The fields of the raw body that were not understood, by JSON pointer, without what stands in them.
    #[avro(default = "[]")]
    pub not_understood: Vec<String>,
    /// A corrected address; empty for other commands.
    pub party: Party,
}

words! {
    /// What came of work that was asked for.
    pub enum OutcomeKind {
        /// The warehouse took the goods from the shelf.
        Picked = "picked",
        /// The warehouse found less than asked; `lines` are what is missing.
        Short = "short",
        /// The warehouse will not ship it.
        Refused = "refused",
        /// The parcels left.
        Despatched = "despatched",
        /// A carrier's scan.
        Tracked = "tracked",
        Delivered = "delivered",
        /// Lost, damaged, refused or returned to sender.
        DeliveryFailed = "delivery_failed",
        /// A withdrawal of a fulfilment order took effect.
        Withdrawn = "withdrawn",
    }
}

/// A parcel as it left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Parcel {
    pub parcel_id: String,
    pub tracking_number: Option<String>,
    pub weight_grams: Option<i64>,
    /// What is in it, when the warehouse says.
    pub lines: Vec<LineQuantity>,
}

/// `outcomes.received`: a fact from a warehouse or a carrier about one order's part of a shipment.
/// A shipment that serves several orders gives one outcome for each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OutcomeReceived {
    pub order_id: OrderId,
    /// The sender's id of this fact.
    pub outcome_id: String,
    pub kind: OutcomeKind,
    /// The fulfilment order it answers; empty when the sender does not know it.
    pub fulfilment_id: String,
    pub shipment_id: String,
    pub location_id: String,
    pub carrier: Option<String>,
    pub service: Option<String>,
    /// The carrier's own word for the scan.
    pub carrier_code: Option<String>,
    pub at: Micros,
    pub lines: Vec<LineQuantity>,
    pub parcels: Vec<Parcel>,
    /// Simulated, not from a real warehouse or carrier.
    pub simulated: bool,
}

words! {
    /// What a timer is for.
    pub enum TimerPurpose {
        /// Payment must be confirmed by then.
        PaymentDue = "payment_due",
        /// A hold's deadline.
        HoldDue = "hold_due",
        /// The fulfilment must have left by then.
        DespatchDue = "despatch_due",
    }
}

/// `deadlines.reached`: a timer's due time has passed. Sent again and again until the ledger clears the timer;
/// a revision older than the timer's is a no-op.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct DeadlineReached {
    pub order_id: OrderId,
    pub timer_id: String,
    pub purpose: TimerPurpose,
    pub revision: i64,
    pub due_at: Micros,
}

words! {
    /// The state goods are in.
    pub enum Condition {
        Sellable = "sellable",
        Quarantine = "quarantine",
        Damaged = "damaged",
    }
}

words! {
    /// What a stock message says.
    pub enum StockKind {
        /// This many are there now, picked ones not among them.
        Count = "count",
        /// This many more came in (negative: went out).
        Receipt = "receipt",
    }
}

/// `stock.counted`: what is on a shelf, from a count, a receipt or a feed. Keyed by SKU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct StockCounted {
    pub sku: String,
    pub location_id: String,
    pub condition: Condition,
    /// The sender's id of this fact.
    pub count_id: String,
    pub kind: StockKind,
    pub quantity: i64,
    pub at: Micros,
    /// Who says so: `count`, `feed`, `simulator`.
    pub source: String,
}

/// `orders.woken`: the ledger asks itself to look at a waiting order again. Keyed by order, sent through the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderWoken {
    pub order_id: OrderId,
    /// What freed: a SKU.
    pub sku: String,
    pub at: Micros,
    /// More orders wait behind this one: if there is still some left after it, they are woken next.
    pub more: bool,
}
