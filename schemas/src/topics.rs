//! The list of topics: what each is for, how it is keyed, kept and evolved. `kept topics apply` makes it true.

use crate::{events, inbound, inputs, reference};

/// How a topic is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Deleted after this many days.
    Days(u32),
    /// Kept as long as the deployment says (read models rebuild from the journal).
    Compact,
}

/// What a new schema version may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    /// Inputs: new readers read all older data.
    BackwardTransitive,
    /// Outputs: that, and old readers read all newer data.
    FullTransitive,
}

impl Compatibility {
    /// The registry's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }
}

/// How many partitions a topic has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    /// As many as every other topic keyed by order or SKU; fixed at creation.
    Shared,
    /// One: reference data.
    One,
}

/// Everything about a topic but its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: &'static str,
    /// The registry subject of its values, without the deployment's prefix.
    pub subject: &'static str,
    /// What the key is, for people.
    pub key: &'static str,
    pub partitions: Partitions,
    pub cleanup: Cleanup,
    pub compatibility: Compatibility,
    /// The record holds personal data, in its last field `party` or in a raw body.
    pub personal: bool,
    /// What it says, in a merchant's words.
    pub about: &'static str,
}

/// A record type and the topic it travels on.
pub trait Record: serde::Serialize + serde::de::DeserializeOwned + apache_avro::AvroSchema + Send + 'static {
    const TOPIC: Topic;
    /// The person in the record, when its last field is one.
    fn party(&self) -> Option<&crate::order::Party> {
        None
    }
}

macro_rules! topics {
    ($($variant:ident($record:ty) $name:literal key $key:literal, $partitions:ident, $cleanup:expr, $compat:ident, $($party:ident)? ; $about:literal)+) => {
        /// A topic of the pipeline.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Topic { $(#[doc = $about] $variant),+ }

        impl Topic {
            /// Every topic, in the order an order meets them.
            pub const ALL: &'static [Topic] = &[$(Topic::$variant),+];

            /// Its key, partitions, retention and rules.
            pub const fn spec(self) -> TopicSpec {
                match self {
                    $(Topic::$variant => TopicSpec {
                        name: $name, subject: concat!($name, "-value"), key: $key,
                        partitions: Partitions::$partitions, cleanup: $cleanup, compatibility: Compatibility::$compat,
                        personal: topics!(@personal $($party)?), about: $about,
                    }),+
                }
            }

            /// The text of its schema file.
            pub const fn schema_text(self) -> &'static str {
                match self { $(Topic::$variant => include_str!(concat!("../", $name, ".avsc"))),+ }
            }

            /// The schema of its Rust type; a test holds it equal to the file.
            pub fn derived_schema(self) -> apache_avro::Schema {
                use apache_avro::AvroSchema;
                match self { $(Topic::$variant => <$record>::get_schema()),+ }
            }

            /// A record's body, read into today's type and shown as JSON: for people and for comparing. It may hold
            /// personal data.
            pub fn read_json(
                self,
                writer: &crate::codec::WriterSchema,
                body: &[u8],
            ) -> Result<serde_json::Value, crate::CodecError> {
                let shown = match self {
                    $(Topic::$variant => serde_json::to_value(writer.read::<$record>(body)?)),+
                };
                shown.map_err(|error| crate::CodecError::Encode(self.name(), error.to_string()))
            }
        }

        $(impl Record for $record {
            const TOPIC: Topic = Topic::$variant;
            topics!(@party $($party)?);
        })+
    };
    (@personal) => { false };
    (@personal $any:ident) => { true };
    (@party party) => { fn party(&self) -> Option<&crate::order::Party> { Some(&self.party) } };
    (@party $($other:ident)?) => {};
}

const MONTH: Cleanup = Cleanup::Days(30);
const YEAR: Cleanup = Cleanup::Days(365);

topics! {
    ChannelsInbound(inbound::Inbound) "channels.inbound" key "order id", Shared, MONTH, BackwardTransitive, raw; "Every body that came in, exactly as it came"
    OrdersReceived(inbound::OrderReceived) "orders.received" key "order id", Shared, MONTH, BackwardTransitive, party; "Orders of every channel in one form"
    OrdersRevised(inbound::OrderRevised) "orders.revised" key "order id", Shared, MONTH, FullTransitive, party; "Orders that must be checked again"
    OrdersEnriched(inbound::OrderEnriched) "orders.enriched" key "order id", Shared, MONTH, FullTransitive, party; "Orders with weights, customer class and VAT country"
    OrdersValidated(inbound::OrderValidated) "orders.validated" key "order id", Shared, MONTH, FullTransitive, party; "Orders with every problem found"
    PaymentsReceived(inputs::PaymentReceived) "payments.received" key "order id", Shared, YEAR, BackwardTransitive, ; "What happened to money"
    CommandsReceived(inputs::CommandReceived) "commands.received" key "order id", Shared, MONTH, BackwardTransitive, party; "What people and programs ask for"
    OutcomesReceived(inputs::OutcomeReceived) "outcomes.received" key "order id", Shared, YEAR, BackwardTransitive, ; "What warehouses and carriers report"
    DeadlinesReached(inputs::DeadlineReached) "deadlines.reached" key "order id", Shared, Cleanup::Days(7), BackwardTransitive, ; "Timers whose time has come"
    StockCounted(inputs::StockCounted) "stock.counted" key "SKU", Shared, YEAR, BackwardTransitive, ; "Counts, receipts and feeds of stock"
    OrdersWoken(inputs::OrderWoken) "orders.woken" key "order id", Shared, Cleanup::Days(7), FullTransitive, ; "Waiting orders to look at again"
    OrdersAccepted(events::OrderAccepted) "orders.accepted" key "order id", Shared, MONTH, FullTransitive, party; "Orders on our books, with what they claimed"
    OrdersHeld(events::OrderHeld) "orders.held" key "order id", Shared, YEAR, FullTransitive, ; "Orders that wait, with every reason"
    OrdersUnheld(events::OrderUnheld) "orders.unheld" key "order id", Shared, YEAR, FullTransitive, ; "Reasons that no longer stand"
    OrdersReleased(events::OrderReleased) "orders.released" key "order id", Shared, YEAR, FullTransitive, ; "Orders nothing stands in the way of"
    OrdersReserved(events::OrderReserved) "orders.reserved" key "order id", Shared, YEAR, FullTransitive, ; "What each line has a claim on"
    OrdersBackordered(events::OrderBackordered) "orders.backordered" key "order id", Shared, YEAR, FullTransitive, ; "Lines that wait for stock"
    OrdersPaid(events::OrderPaid) "orders.paid" key "order id", Shared, YEAR, FullTransitive, ; "Amounts authorised, captured and refunded"
    OrdersCancelled(events::OrderCancelled) "orders.cancelled" key "order id", Shared, YEAR, FullTransitive, ; "Quantities that will not be delivered"
    OrdersCompleted(events::OrderCompleted) "orders.completed" key "order id", Shared, YEAR, FullTransitive, ; "Orders in a final state"
    OrdersNoted(events::OrderNoted) "orders.noted" key "order id", Shared, YEAR, FullTransitive, ; "Facts recorded for the history"
    FulfilmentRequested(events::FulfilmentRequested) "fulfilment.requested" key "order id", Shared, MONTH, FullTransitive, party; "Locations asked to ship"
    FulfilmentWithdrawn(events::FulfilmentWithdrawn) "fulfilment.withdrawn" key "order id", Shared, YEAR, FullTransitive, ; "Locations asked not to ship"
    ShipmentsDespatched(events::ShipmentDespatched) "shipments.despatched" key "order id", Shared, YEAR, FullTransitive, ; "Parcels that left"
    ShipmentsTracked(events::ShipmentTracked) "shipments.tracked" key "order id", Shared, YEAR, FullTransitive, ; "Where parcels are"
    NotificationsRequested(events::NotificationRequested) "notifications.requested" key "order id", Shared, MONTH, FullTransitive, party; "Messages to customers"
    PostingsRequested(events::PostingRequested) "postings.requested" key "order id", Shared, YEAR, FullTransitive, ; "Balanced postings for the books"
    StockChanged(events::StockChanged) "stock.changed" key "SKU", Shared, YEAR, FullTransitive, ; "Stock rows as they stand now"
    ReferenceProducts(reference::Product) "reference.products" key "SKU", One, Cleanup::Compact, BackwardTransitive, ; "Products"
    ReferenceLocations(reference::Location) "reference.locations" key "location id", One, Cleanup::Compact, BackwardTransitive, ; "Places that ship"
    ReferenceAccounts(reference::Account) "reference.accounts" key "account id", One, Cleanup::Compact, BackwardTransitive, ; "Channel accounts"
    ReferenceCustomers(reference::Customer) "reference.customers" key "customer number", One, Cleanup::Compact, BackwardTransitive, ; "Customer classes"
    ReferencePolicies(reference::Policy) "reference.policies" key "scope", One, Cleanup::Compact, BackwardTransitive, ; "How the merchant wants decisions made"
    DeadLetters(events::DeadLetter) "dead.letters" key "topic", Shared, MONTH, BackwardTransitive, raw; "Records that could not be read"
}

impl Topic {
    /// Those that other programs may write to (docs/producing.md).
    pub const FROM_OTHERS: &'static [Topic] = &[
        Topic::ChannelsInbound,
        Topic::OrdersReceived,
        Topic::PaymentsReceived,
        Topic::CommandsReceived,
        Topic::OutcomesReceived,
        Topic::StockCounted,
    ];

    /// The topic's name without the deployment's prefix.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The registry subject of its values, without the deployment's prefix.
    pub const fn subject(self) -> &'static str {
        self.spec().subject
    }

    /// The topic of a name; `None` for one that is not ours.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|topic| topic.name() == name)
    }

    /// What the ledger step reads.
    pub const LEDGER_INPUTS: &'static [Topic] = &[
        Topic::OrdersValidated,
        Topic::PaymentsReceived,
        Topic::CommandsReceived,
        Topic::OutcomesReceived,
        Topic::DeadlinesReached,
        Topic::StockCounted,
        Topic::OrdersWoken,
    ];
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `KEPT_WRITE_SCHEMAS=1 cargo test -p kept-schemas` writes the files after an intended change.
    #[test]
    fn every_schema_file_equals_its_rust_type() {
        for &topic in Topic::ALL {
            let derived: serde_json::Value = serde_json::to_value(topic.derived_schema()).expect("a schema is JSON");
            let pretty = serde_json::to_string_pretty(&derived).expect("JSON") + "\n";
            let path = format!("{}/{}.avsc", env!("CARGO_MANIFEST_DIR"), topic.name());
            if std::env::var_os("KEPT_WRITE_SCHEMAS").is_some() {
                std::fs::write(&path, &pretty).expect("schema file is writable");
                continue;
            }
            let file: serde_json::Value = serde_json::from_str(topic.schema_text()).expect("schema file is JSON");
            assert_eq!(file, derived, "{path} differs from the Rust type");
        }
    }

    #[test]
    fn no_schema_file_is_without_a_topic() {
        let mut files: Vec<String> = std::fs::read_dir(env!("CARGO_MANIFEST_DIR"))
            .expect("schemas/ is there")
            .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".avsc").map(str::to_owned))
            .collect();
        files.sort();
        let mut names: Vec<String> = Topic::ALL.iter().map(|topic| topic.name().to_owned()).collect();
        names.sort();
        assert_eq!(files, names);
    }
}
