//! What comes in at the door, and the stateless steps' records: raw → received → enriched → validated.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::OrderId,
    order::{Order, Party},
    values::Micros,
    words,
};

words! {
    /// What a raw body is about.
    pub enum InboundKind {
        Order = "order",
        Cancellation = "cancellation",
        Payment = "payment",
    }
}

/// `channels.inbound`: a body exactly as it came, and who sent it. Kept at most 30 days.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Inbound {
    /// The channel account it came in by.
    pub account: String,
    pub kind: InboundKind,
    /// The form of `body`; in this version `kept.order.v1`, `kept.cancellation.v1` or `kept.payment.v1` (JSON).
    pub format: String,
    /// The shop whose numbering `external_id` belongs to.
    pub shop: String,
    /// The order's number there.
    pub external_id: String,
    /// The source's own version of the body (an ETag, an updated-at); absent: the body's hash is the version.
    pub source_version: Option<String>,
    pub received_at: Micros,
    #[serde(with = "apache_avro::serde::bytes")]
    #[avro(with)]
    pub body: Vec<u8>,
}

/// Something in a raw body that normalise did not understand; kept, never dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Unmapped {
    /// JSON pointer (RFC 6901) into the body.
    pub path: String,
    /// The value as JSON text, cut at 500 bytes.
    pub value: String,
}

/// `orders.received`: one order in the one model. Public: others may produce to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderReceived {
    pub order: Order,
    pub received_at: Micros,
    /// SHA-256 of the raw body in hex, or empty when the order did not come from one.
    pub body_hash: String,
    pub unmapped: Vec<Unmapped>,
    /// What normalise found wrong already.
    pub problems: Vec<Problem>,
    pub party: Party,
}

/// The version (offset) of one reference topic that a decision used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct ReferenceVersion {
    pub topic: String,
    pub version: i64,
}

/// What reference data says of one line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct LineFacts {
    pub line_no: i32,
    /// The SKU is in `reference.products`.
    pub known: bool,
    /// One unit's weight; absent when the product does not say.
    pub weight_grams: Option<i64>,
}

/// What enrich adds to an order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Enrichment {
    pub lines: Vec<LineFacts>,
    /// Σ quantity × unit weight; absent when a line's weight is not known.
    pub weight_grams: Option<i64>,
    /// `consumer`, `business` or the merchant's own class.
    pub customer_class: String,
    /// The country whose VAT applies, ISO 3166-1 alpha-2; empty when it cannot be told.
    pub vat_country: String,
    pub versions: Vec<ReferenceVersion>,
}

/// `orders.enriched`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderEnriched {
    pub order: Order,
    pub received_at: Micros,
    pub body_hash: String,
    pub enrichment: Enrichment,
    pub problems: Vec<Problem>,
    /// 0 for the first run; raised each time the ledger sends the order back (`orders.revised`).
    pub revision: i32,
    /// The fields of the raw body that were not understood, by JSON pointer, without what stands in them.
    #[avro(default = "[]")]
    pub not_understood: Vec<String>,
    pub party: Party,
}

words! {
    /// Why an order must wait for someone or something. The closed list of our own reasons.
    pub enum HoldReason {
        /// A field the order cannot do without is missing.
        Incomplete = "incomplete",
        /// The address cannot be delivered to as it stands.
        AddressInvalid = "address_invalid",
        /// A line names a SKU that is not in the product list.
        UnknownSku = "unknown_sku",
        /// Lines, charges and the stated total do not agree.
        TotalsDiffer = "totals_differ",
        /// A currency, country or quantity outside what is allowed.
        ValueImplausible = "value_implausible",
        /// No line with goods.
        NoGoods = "no_goods",
        /// Not paid yet.
        AwaitingPayment = "awaiting_payment",
        /// The payment failed or was withdrawn.
        PaymentFailed = "payment_failed",
        /// Less stock than the order needs.
        OutOfStock = "out_of_stock",
        /// The same number came again with other content.
        ChangedAfterAcceptance = "changed_after_acceptance",
        /// The warehouse could not pick what it had confirmed.
        ShortPick = "short_pick",
        /// Goods left although the order was cancelled.
        DespatchedAfterCancellation = "despatched_after_cancellation",
        /// Goods left that nobody had asked for.
        UnaskedDespatch = "unasked_despatch",
        /// Money of a cancelled order, or part of one, has to go back.
        RefundDue = "refund_due",
        /// More money came or went than the order allows.
        MoneyMismatch = "money_mismatch",
        /// Parcel lost, damaged, refused or returned to sender.
        DeliveryProblem = "delivery_problem",
        /// No location can ship it.
        NoRoute = "no_route",
        /// Someone put it on hold by hand.
        Manual = "manual",
    }
}

/// A reason found by a check, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Problem {
    pub reason: HoldReason,
    pub line_no: Option<i32>,
    /// The field it is about, e.g. `ship_to.postcode`; never its content when that is personal.
    pub field: String,
    /// In plain words, without personal data.
    pub detail: String,
}

/// `orders.validated`: the order with every problem found; only the ledger decides what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderValidated {
    pub order: Order,
    pub received_at: Micros,
    pub body_hash: String,
    pub enrichment: Enrichment,
    pub problems: Vec<Problem>,
    pub revision: i32,
    /// As in `orders.enriched`.
    #[avro(default = "[]")]
    pub not_understood: Vec<String>,
    pub party: Party,
}

/// `orders.revised`: the ledger sends an order back to enrich (a corrected address, a SKU that arrived).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderRevised {
    pub order_id: OrderId,
    pub seq: i64,
    pub at: Micros,
    /// Rises with each revision.
    pub revision: i32,
    pub why: String,
    pub order: Order,
    pub party: Party,
}
