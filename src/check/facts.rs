//! What the outside knows: senders' and partners' logs, topics, Postgres. Plain values, so that a check is a plain
//! function of them and a test can spoil any of them. No names, addresses or other personal data get in here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kept_processors::ledger::{LedgerEvent, OrderState};
use kept_schemas::{EventId, Micros, OrderId, Topic};
use serde::Deserialize;

use super::again::Redecided;

/// Everything a check may look at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Postgres's clock when the ledger was read.
    pub now: Micros,
    pub logs: Logs,
    pub topics: Topics,
    pub groups: Groups,
    pub ledger: LedgerTables,
    pub read: ReadTables,
}

// ---- logs ----

/// The fsynced logs of those who sent orders and of the simulated warehouse and carrier.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    pub sent_files: usize,
    pub sent: Vec<Sent>,
    pub world_files: usize,
    pub world: Vec<WorldEntry>,
}

/// One line of a sender's log: what it was told was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sent {
    pub order_id: OrderId,
    #[serde(default)]
    pub number: String,
    /// `order`, `payment` or `cancellation`.
    pub kind: String,
    /// SHA-256 of the body as it was sent, in hex.
    #[serde(default)]
    pub body_sha256: String,
    #[serde(default)]
    pub accepted: bool,
    pub lines: Option<i64>,
    pub units: Option<i64>,
    pub total_minor: Option<i64>,
}

/// One line of the simulated world's log: what it did.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WorldEntry {
    pub fulfilment_id: String,
    pub order_id: OrderId,
    /// An outcome's kind: `picked`, `despatched` …
    pub kind: String,
    pub outcome_id: String,
}

// ---- topics ----

/// A record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub topic: Topic,
    pub partition: i32,
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// A hash of a record's whole value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Body(pub u128);

impl Body {
    pub fn of(parts: &[&[u8]]) -> Self {
        let whole;
        let bytes = match parts {
            [one] => one,
            many => {
                whole = many.concat();
                whole.as_slice()
            }
        };
        Self(kept_schemas::ids::derive("body", &[bytes]).as_u128())
    }
}

/// Everything committed on the topics up to the moment of reading.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    pub extents: BTreeMap<(Topic, i32), Extent>,
    /// Every record, in no particular order.
    pub records: Vec<Record>,
    /// The ledger's events of each order.
    pub events: BTreeMap<OrderId, Vec<OrderEvent>>,
    pub moves: Vec<Move>,
    pub inbound: Vec<Inbound>,
    pub received: Vec<Received>,
    pub outcomes: Vec<Outcome>,
    pub dead_letters: Vec<DeadLetter>,
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    pub start: i64,
    /// Everything before it is committed or aborted.
    pub stable_end: i64,
    pub end: i64,
}

/// A record without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub place: Place,
    /// When the broker appended it.
    pub at: Micros,
    /// From its header, else from its place.
    pub event_id: EventId,
    pub step: Option<Step>,
    pub cause_id: Option<EventId>,
    pub cause: Option<Place>,
    pub index: Option<u32>,
    /// A fused step took it further in the same transaction.
    pub fused: bool,
    /// The order its key names.
    pub order: Option<OrderId>,
    pub body: Body,
    pub readable: bool,
    /// Done again from its cause it comes out the same. `None`: not done again.
    pub same_again: Option<bool>,
}

impl Record {
    /// Where the transaction began that takes it further: a fused step reads a record of its own as part of the one that
    /// began further up.
    pub fn origin(&self) -> Place {
        if self.fused { self.cause.unwrap_or(self.place) } else { self.place }
    }
}

/// The steps that a header may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Normalise,
    Enrich,
    Validate,
    Ledger,
    /// Whoever made it, it is not a step this check knows.
    Other,
}

impl Step {
    pub fn of(name: &str) -> Self {
        match name {
            "normalise" => Self::Normalise,
            "enrich" => Self::Enrich,
            "validate" => Self::Validate,
            "ledger" => Self::Ledger,
            _ => Self::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Normalise => "normalise",
            Self::Enrich => "enrich",
            Self::Validate => "validate",
            Self::Ledger => "ledger",
            Self::Other => "another step",
        }
    }
}

/// One event of an order's life, as its topic has it. The person is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderEvent {
    pub event_id: EventId,
    pub place: Place,
    pub seq: i64,
    pub event: LedgerEvent,
}

/// A movement of a stock row: from `stock.changed`, and from the ledger's own table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub event_id: EventId,
    pub row: StockName,
    pub version: i64,
    pub movement: Arc<str>,
    pub quantity: i64,
    pub now: Counts,
    pub claimed: i64,
}

/// A stock row: SKU, location, condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StockName {
    pub sku: Arc<str>,
    pub location: Arc<str>,
    pub condition: Arc<str>,
}

impl std::fmt::Display for StockName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {} ({})", self.sku, self.location, self.condition)
    }
}

/// Units of a stock row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub on_hand: i64,
    pub reserved: i64,
    pub picked: i64,
    /// Pinned, and not found by a count: what orders have pinned is reserved + unbacked. The read model does not show it.
    pub unbacked: i64,
}

impl Counts {
    /// What orders have pinned.
    pub fn pinned(&self) -> i64 {
        self.reserved + self.unbacked
    }
}

/// A body that came in, without the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    pub place: Place,
    pub order_id: OrderId,
    pub kind: String,
    pub body_sha256: String,
}

/// An order on `orders.received`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub place: Place,
    pub order_id: OrderId,
}

/// What a warehouse or carrier reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub order_id: OrderId,
    pub outcome_id: String,
    pub kind: String,
    pub fulfilment_id: String,
    pub simulated: bool,
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub place: Place,
    /// The order its key names.
    pub order: Option<OrderId>,
    pub reason: String,
    pub at: Micros,
}

/// How far each consumer group says it is.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// Normalise, enrich and validate.
    pub steps: BTreeMap<(Topic, i32), i64>,
    /// What the ledger step has emitted.
    pub ledger: BTreeMap<(Topic, i32), i64>,
}

impl Groups {
    pub fn steps_did(&self, place: Place) -> bool {
        self.steps.get(&(place.topic, place.partition)).is_some_and(|&next| place.offset < next)
    }

    pub fn ledger_emitted(&self, place: Place) -> bool {
        self.ledger.get(&(place.topic, place.partition)).is_some_and(|&next| place.offset < next)
    }
}

// ---- the ledger ----

/// The ledger's tables.
#[derive(Debug, Clone, Default)]
pub struct LedgerTables {
    /// What is decided, of the ledger step.
    pub progress: BTreeMap<(Topic, i32), i64>,
    /// Topics that were made anew and whose old place was put aside: what was decided of the old one has causes that
    /// are not in the new one.
    pub made_anew: BTreeSet<Topic>,
    pub states: BTreeMap<OrderId, OrderState>,
    /// (order, cause) acted on; for stock the order is `None`.
    pub causes: BTreeSet<(Option<OrderId>, EventId)>,
    pub claims: BTreeMap<Arc<str>, i64>,
    /// Units and version.
    pub stock: BTreeMap<StockName, (Counts, i64)>,
    pub entries: Vec<Move>,
    pub timers: Vec<TimerRow>,
    pub journal: Vec<JournalRow>,
    pub parked: Vec<ParkedRow>,
    /// What deciding everything again came to.
    pub again: Redecided,
}

impl LedgerTables {
    pub fn decided(&self, place: Place) -> bool {
        self.progress.get(&(place.topic, place.partition)).is_some_and(|&next| place.offset < next)
    }
}

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerRow {
    pub order_id: OrderId,
    pub timer_id: String,
    pub purpose: String,
    pub due_at: Micros,
}

/// An event as the ledger decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    pub journal_id: i64,
    pub event_id: EventId,
    pub topic: Topic,
    pub order: Option<(OrderId, i64)>,
    pub cause_id: EventId,
    pub cause: Place,
    pub index: u32,
    /// `None`: its person was erased, so the bytes are not those that went out.
    pub body: Option<Body>,
}

/// A record that waits for a person to let it go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    pub order_id: OrderId,
    pub place: Place,
    pub event_id: EventId,
    pub reason: Option<String>,
}

// ---- the read model ----

/// The read model's tables.
#[derive(Debug, Clone, Default)]
pub struct ReadTables {
    pub progress: BTreeMap<(Topic, i32), i64>,
    pub orders: Vec<OrderRow>,
    /// Orders that facts came for before they did.
    pub placeholders: BTreeSet<OrderId>,
    pub lines: Vec<LineRow>,
    pub charges: Vec<ChargeRow>,
    pub holds: Vec<HoldRow>,
    pub shipments: BTreeSet<(String, Option<String>)>,
    pub shipment_lines: Vec<(String, OrderId, i32, i64)>,
    pub parcels: Vec<ParcelRow>,
    pub timeline: Vec<(OrderId, i64, Topic)>,
    pub stock: BTreeMap<StockName, (Counts, i64)>,
    pub postings: Vec<PostingRow>,
    pub notifications: Vec<(String, OrderId)>,
    pub dead_letters: Vec<Place>,
}

impl ReadTables {
    pub fn took(&self, place: Place) -> bool {
        self.progress.get(&(place.topic, place.partition)).is_some_and(|&next| place.offset < next)
    }
}

/// A row of `orders`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderRow {
    pub order_id: OrderId,
    pub order_no: i64,
    pub revision: i32,
    pub shop: String,
    pub channel: String,
    pub channel_order_id: String,
    pub status: String,
    pub placed_at: Micros,
    pub currency: String,
    pub total_minor: i64,
    pub charges_minor: i64,
    pub test: bool,
    pub quantity: i64,
    pub reserved: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub picked: i64,
    pub open_holds: i64,
    pub released: bool,
    pub outcome: Option<String>,
    /// (state, authorised, captured, refunded).
    pub payment: Option<(String, i64, i64, i64)>,
}

/// A row of `order_lines`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineRow {
    pub order_id: OrderId,
    pub line_no: i32,
    pub sku: String,
    pub quantity: i64,
    pub unit_price: String,
    pub line_total_minor: i64,
    pub reserved: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub short: i64,
}

/// A row of `order_charges`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChargeRow {
    pub order_id: OrderId,
    pub charge_no: i32,
    pub kind: String,
    pub code: String,
    pub amount_minor: i64,
}

/// A row of `holds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    pub order_id: OrderId,
    pub hold_id: String,
    pub reason: String,
    pub opened: bool,
    pub due_at: Option<Micros>,
    pub resolution: Option<String>,
}

/// A row of `parcels`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParcelRow {
    pub parcel_id: String,
    pub shipment_id: String,
    pub tracking_number: Option<String>,
}

/// A row of `postings`: one side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PostingRow {
    pub posting_id: String,
    pub order_id: OrderId,
    pub kind: String,
    pub account: String,
    pub currency: String,
    pub amount_minor: i64,
}
