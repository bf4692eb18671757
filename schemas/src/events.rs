//! What the ledger decides: public events, each with the order's dense sequence number.
//!
//! `seq` is dense over all of an order's events on all topics together; order across topics is not promised, so
//! consumers fold each topic by itself and ignore what is older than what they know.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::OrderId,
    inbound::{Enrichment, HoldReason},
    inputs::{Condition, LineQuantity, OutcomeKind, Parcel, PaymentKind},
    order::{Order, Party},
    values::{Micros, Money},
    words,
};

/// `orders.accepted`: the order is on our books, with what was claimed for it. It may be held all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderAccepted {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    /// Our own running number.
    pub order_no: i64,
    pub order: Order,
    pub enrichment: Enrichment,
    /// What each line claimed of the network's stock; a line with less than its quantity is short.
    pub claimed: Vec<LineQuantity>,
    /// Raised by each correction; a later revision replaces the order as read models show it.
    pub revision: i32,
    /// SHA-256 of the raw body in hex, to recognise the same body; empty when there was none.
    pub body_hash: String,
    pub party: Party,
}

/// One reason an order waits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Hold {
    pub hold_id: String,
    pub reason: HoldReason,
    pub line_no: Option<i32>,
    /// The evidence in plain words, without personal data.
    pub detail: String,
    pub opened_at: Micros,
    /// When someone must have acted.
    pub due_at: Micros,
}

/// `orders.held`: holds were opened. The order waits until each is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderHeld {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub holds: Vec<Hold>,
}

/// A hold that no longer stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct HoldResolved {
    pub hold_id: String,
    pub reason: HoldReason,
    /// How: `released`, `corrected`, `paid`, `refunded`, `stock_arrived`, `delivered`, `cancelled`, `expired`.
    pub resolution: String,
    /// Who: `kept`, a channel account or a login.
    pub by: String,
}

/// `orders.unheld`: holds were resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderUnheld {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub holds: Vec<HoldResolved>,
}

/// `orders.released`: nothing stands in the way; fulfilment is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderReleased {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
}

words! {
    /// Where an order's money stands, from the amounts.
    pub enum PaymentState {
        Open = "open",
        Authorised = "authorised",
        PartlyPaid = "partly_paid",
        Paid = "paid",
        Failed = "failed",
        Refunded = "refunded",
        NotNeeded = "not_needed",
    }
}

/// `orders.paid`: a fact about money was taken in; the totals are those after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderPaid {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub state: PaymentState,
    /// Totals so far, in minor units of the order's currency.
    pub authorised_minor: i64,
    pub captured_minor: i64,
    pub refunded_minor: i64,
    /// The fact itself: the provider's id, what happened, how much.
    pub payment_id: String,
    pub kind: PaymentKind,
    pub amount_minor: i64,
    /// Of the fact; one in another currency than the order's is kept out of the totals.
    pub currency: String,
}

/// `orders.cancelled`: quantities that will not be delivered, and what was given back. Sent when it is effective:
/// for goods a location was asked to ship, when that location has confirmed the withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderCancelled {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    /// Nothing is left to deliver.
    pub whole: bool,
    /// Units that will not be delivered any more, per line.
    pub lines: Vec<LineQuantity>,
    /// Units among them that were claimed or pinned and are free again, per line.
    pub given_back: Vec<LineQuantity>,
    pub reason: String,
    pub by: String,
}

/// `orders.backordered`: these lines wait for stock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderBackordered {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    /// Missing quantities.
    pub lines: Vec<LineQuantity>,
}

/// `orders.reserved`: claims of an accepted order changed: stock came, or was lost. Changes, not totals, so that
/// readers may add them in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderReserved {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    /// Units gained (positive) or lost (negative) per line, claimed and pinned together.
    pub lines: Vec<LineQuantity>,
}

/// `orders.completed`: a final state; later facts may reopen it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderCompleted {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    /// `delivered` (an order without goods: its charges are in the books), `cancelled`, or `test` for a trial order.
    pub outcome: String,
}

words! {
    /// Facts that change nothing but must not be forgotten.
    pub enum NoteKind {
        /// The same order came again, with the same content.
        Duplicate = "duplicate",
        /// The same order came by another account.
        Alias = "alias",
        /// A fact about an order we do not have yet.
        BeforeOrder = "before_order",
        /// A command that cannot be done, with the reason.
        Refused = "refused",
        /// A fact that no longer matters.
        Stale = "stale",
        /// A timer fired and was dealt with.
        Deadline = "deadline",
        /// The warehouse picked goods.
        Picked = "picked",
        /// A location does not ship what is still pinned of a fulfilment order: it was withdrawn in time, or nothing
        /// is left of it. `lines` are pinned no longer, and claimed again.
        Withdrawn = "withdrawn",
        /// A location will not ship it. As `withdrawn`, and it is not asked again.
        Declined = "declined",
        /// A location found less than asked; `lines` are pinned no longer, and claimed again.
        Short = "short",
        /// A cancellation that has to wait: for the order itself, or for a location's answer. No lines: all of it.
        CancelAsked = "cancel_asked",
        /// Fields of what came in were not understood: the order's body, a cancellation's or a payment's.
        NotUnderstood = "not_understood",
        /// The order was looked at again and nothing changed.
        Looked = "looked",
    }
}

/// `orders.noted`: recorded, with no other effect on the order's state than what it says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderNoted {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub kind: NoteKind,
    /// In plain words, without personal data.
    pub detail: String,
    /// What it is about, by kind: a fulfilment order, a timer, an account, who asked. Empty: the order.
    pub about: String,
    /// Of a deadline: when it is looked at next. Absent: never again.
    pub due_at: Option<Micros>,
    pub lines: Vec<LineQuantity>,
}

/// A quantity of an order's line with what the warehouse must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct FulfilmentLine {
    pub line_no: i32,
    pub sku: String,
    pub quantity: i64,
    pub unit_weight_grams: Option<i64>,
}

/// Why a location was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct RouteReason {
    pub location_id: String,
    pub chosen: bool,
    pub why: String,
}

/// `fulfilment.requested`: a location is asked to ship these quantities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct FulfilmentRequested {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub fulfilment_id: String,
    pub location_id: String,
    pub lines: Vec<FulfilmentLine>,
    pub service: Option<String>,
    pub ship_by: Option<Micros>,
    pub promised_at: Option<Micros>,
    /// When we ask what became of it.
    pub due_at: Micros,
    pub channel: String,
    pub channel_order_id: String,
    pub reasons: Vec<RouteReason>,
    pub party: Party,
}

/// `fulfilment.withdrawn`: do not ship; if it has left, say so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct FulfilmentWithdrawn {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub fulfilment_id: String,
    pub location_id: String,
    pub reason: String,
    /// When we ask what became of it.
    pub due_at: Micros,
}

/// `shipments.despatched`: parcels left; this order's part of the shipment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct ShipmentDespatched {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub shipment_id: String,
    pub fulfilment_id: String,
    pub location_id: String,
    pub carrier: Option<String>,
    pub service: Option<String>,
    /// When it left, by the warehouse's clock.
    pub despatched_at: Micros,
    pub lines: Vec<LineQuantity>,
    /// Units among them that were pinned for it; less than `lines` when goods left that nobody had asked for.
    pub unpinned: Vec<LineQuantity>,
    pub parcels: Vec<Parcel>,
    pub simulated: bool,
}

/// `shipments.tracked`: a milestone of a shipment or of one of its parcels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct ShipmentTracked {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub shipment_id: String,
    pub parcel_id: Option<String>,
    /// `tracked`, `delivered` or `delivery_failed`.
    pub kind: OutcomeKind,
    /// By the carrier's clock.
    pub tracked_at: Micros,
    pub carrier_code: Option<String>,
}

words! {
    /// Why the customer is written to. Once per purpose and revision.
    pub enum NotificationPurpose {
        OrderConfirmed = "order_confirmed",
        OrderDelayed = "order_delayed",
        PaymentReminder = "payment_reminder",
        Despatched = "despatched",
        Delivered = "delivered",
        Cancelled = "cancelled",
    }
}

/// `notifications.requested`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct NotificationRequested {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub notification_id: String,
    pub purpose: NotificationPurpose,
    /// `email` or `sms`.
    pub medium: String,
    pub language: Option<String>,
    pub revision: i32,
    pub shipment_id: Option<String>,
    pub party: Party,
}

words! {
    /// What a posting is for.
    pub enum PostingKind {
        /// Goods and charges of a shipment (or of an order without goods).
        Sale = "sale",
        /// Money that came.
        Payment = "payment",
        /// Money that went back.
        Refund = "refund",
    }
}

/// One side of a posting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct PostingEntry {
    /// `revenue`, `shipping`, `charges`, `receivable`, `bank`.
    pub account: String,
    /// Debit positive, credit negative; the entries of a posting sum to zero.
    pub amount: Money,
}

/// `postings.requested`: a balanced posting for the books. Posted once, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct PostingRequested {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    pub posting_id: String,
    pub kind: PostingKind,
    pub entries: Vec<PostingEntry>,
    /// What it is for: a shipment id or a payment id.
    pub cause: String,
}

/// `stock.changed`: a stock row after a movement of it. Keyed by SKU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct StockChanged {
    pub sku: String,
    pub location_id: String,
    pub condition: Condition,
    /// Rises with each change of the row; older ones are to be ignored.
    pub version: i64,
    pub at: Micros,
    pub on_hand: i64,
    pub reserved: i64,
    pub picked: i64,
    /// Pinned units that a count did not find: pins = reserved + unbacked.
    pub unbacked: i64,
    /// The SKU's claims over the whole network, not pinned to a location yet.
    pub claimed: i64,
    /// What moved: `count`, `receipt`, `pin`, `unpin`, `pick`, `short`, `despatch`.
    pub movement: String,
    pub quantity: i64,
    pub cause: String,
}

/// `dead.letters`: a record that could not be read, whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct DeadLetter {
    pub step: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Why it could not be read; without its content.
    pub reason: String,
    pub at: Micros,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    #[avro(with)]
    pub key: Option<Vec<u8>>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    #[avro(with)]
    pub payload: Option<Vec<u8>>,
}
