//! Reference data: compacted topics of one partition each; a record's offset is the version it began with.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::values::Micros;

/// `reference.products`. Key: the SKU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Product {
    pub sku: String,
    pub description: String,
    pub weight_grams: Option<i64>,
    /// `standard`, `reduced`, `zero`.
    pub vat_class: String,
    /// The most units one order may have; absent: no limit.
    pub max_quantity: Option<i64>,
    pub active: bool,
}

/// `reference.locations`. Key: the location id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Location {
    pub location_id: String,
    pub name: String,
    /// `warehouse`, `3pl`, `store`, `supplier`.
    pub kind: String,
    pub country: String,
    /// Lower comes first.
    pub priority: i32,
    pub active: bool,
}

/// `reference.accounts`: a channel account. Key: the account id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Account {
    pub account_id: String,
    pub channel: String,
    /// The marketplace or shop whose order numbers it brings.
    pub shop: String,
    /// SHA-256 of each bearer key in hex; several, so that keys rotate without downtime.
    pub key_hashes: Vec<String>,
    pub active: bool,
}

/// `reference.customers`. Key: the customer's number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Customer {
    pub customer_ref: String,
    /// `consumer`, `business` or the merchant's own.
    pub class: String,
    pub vat_country: Option<String>,
}

/// `reference.policies`: how the merchant wants decisions made. Key: `default` or a channel's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
#[serde(default)]
pub struct Policy {
    /// `default` or a channel's name.
    pub scope: String,
    /// How long an online payment may take, in seconds.
    pub payment_due_seconds: i64,
    /// How long a bank transfer may take, in seconds.
    pub transfer_due_seconds: i64,
    /// How long a hold may wait before it is overdue, in seconds.
    pub hold_due_seconds: i64,
    /// How long a location may take to despatch, in seconds.
    pub despatch_due_seconds: i64,
    /// How far lines and stated total may differ, in minor units.
    pub total_tolerance_minor: i64,
    /// Since when, for people.
    pub since: Micros,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            scope: "default".into(),
            payment_due_seconds: 3_600,
            transfer_due_seconds: 7 * 86_400,
            hold_due_seconds: 2 * 86_400,
            despatch_due_seconds: 3 * 86_400,
            total_tolerance_minor: 1,
            since: Micros(0),
        }
    }
}
