//! The one order model: what every channel's order becomes, and the person it is for.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::OrderId,
    values::{Micros, UnitPrice},
    words,
};

/// The most lines an order may have, and the most bytes any record may have on the wire.
pub const MAX_LINES: usize = 2_000;
/// See [`MAX_LINES`]; the broker's own limit is 1 MiB.
pub const MAX_RECORD_BYTES: usize = 900_000;

/// An order as the merchant sold it. Never split; only its fulfilment is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Order {
    pub order_id: OrderId,
    /// The kind of channel: `bol`, `amazon`, `shopify`, `woocommerce`, `storefront`, `edi`, `phone`, `import`.
    pub channel: String,
    /// The marketplace or shop whose numbering `channel_order_id` belongs to.
    pub shop: String,
    /// The order's number there, as the customer knows it.
    pub channel_order_id: String,
    /// The channel account (connection) it came in by.
    pub account: String,
    pub placed_at: Micros,
    /// ISO 4217.
    pub currency: String,
    /// The total the channel stated, in minor units; `None` when it stated none.
    pub stated_total_minor: Option<i64>,
    /// Σ line totals + Σ charges, in minor units.
    pub total_minor: i64,
    /// The customer's number at the channel or in the merchant's own books; not a name.
    pub customer_ref: Option<String>,
    /// Where it goes: ISO 3166-1 alpha-2; empty when the channel did not say.
    pub country: String,
    /// The customer's language, BCP 47 (`nl`, `fr-BE`).
    pub language: Option<String>,
    /// A trial order: it claims no stock, calls no partner, posts nothing.
    pub test: bool,
    pub lines: Vec<OrderLine>,
    pub charges: Vec<Charge>,
    pub payment: PaymentTerms,
    pub delivery: Delivery,
    /// Merchant's own fields, kept as they came.
    pub attributes: Vec<Attribute>,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct OrderLine {
    /// From 1, dense, in the channel's order.
    pub line_no: i32,
    /// The channel's own id of the line, needed to report back.
    pub channel_line_id: Option<String>,
    pub sku: String,
    pub description: Option<String>,
    /// Whole units sold.
    pub quantity: i64,
    pub unit_price: UnitPrice,
    /// `quantity` × `unit_price` rounded once, in minor units.
    pub line_total_minor: i64,
    /// Promised to the customer: delivered by.
    pub promised_at: Option<Micros>,
    /// Promised to the channel: handed over to the carrier by.
    pub ship_by: Option<Micros>,
    pub attributes: Vec<Attribute>,
}

words! {
    /// What a charge is for.
    pub enum ChargeKind {
        Shipping = "shipping",
        Discount = "discount",
        ChannelFee = "channel_fee",
        BankFee = "bank_fee",
        GiftCard = "gift_card",
        Sample = "sample",
        Manual = "manual",
        Other = "other",
    }
}

/// Money on an order that is not for goods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Charge {
    pub kind: ChargeKind,
    /// The channel's code for it, e.g. `POST`.
    pub code: String,
    pub description: Option<String>,
    pub quantity: i64,
    pub unit_price: UnitPrice,
    /// `quantity` × `unit_price` rounded once, in minor units.
    pub amount_minor: i64,
}

words! {
    /// How an order is to be paid.
    pub enum PaymentMethod {
        /// Paid at the channel before we saw the order (marketplaces).
        Channel = "channel",
        Online = "online",
        BankTransfer = "bank_transfer",
        OnAccount = "on_account",
        CashOnDelivery = "cash_on_delivery",
    }
}

/// What the channel said about payment when the order was placed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct PaymentTerms {
    pub method: PaymentMethod,
    /// Already authorised, in minor units.
    pub authorised_minor: i64,
    /// Already captured, in minor units.
    pub captured_minor: i64,
    /// The payment provider's or channel's reference.
    pub reference: Option<String>,
}

/// How and when the order is to reach its customer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Delivery {
    /// The service the customer chose, in the channel's words.
    pub service: Option<String>,
    /// Not before this.
    pub requested_at: Option<Micros>,
    /// Delivered by, for the whole order.
    pub promised_at: Option<Micros>,
    /// Handed over by, for the whole order.
    pub ship_by: Option<Micros>,
    /// A pick-up point or store of ours.
    pub pickup_location: Option<String>,
}

/// A named value of the merchant's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Attribute {
    pub name: String,
    pub value: String,
}

/// Everything about a person in a record, in one place, so that erasure has one place to go to.
/// Always the last field of its record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Party {
    pub ship_to: Address,
    /// Absent when it is the same.
    pub bill_to: Option<Address>,
    pub email: Option<String>,
    pub phone: Option<String>,
}

/// A postal address, as structured as the channel gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Address {
    pub name: String,
    pub company: Option<String>,
    pub street: String,
    pub house_number: Option<String>,
    pub house_number_addition: Option<String>,
    /// What else belongs to the address: floor, building, second line.
    pub extra: Option<String>,
    pub postcode: String,
    pub city: String,
    pub region: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}
