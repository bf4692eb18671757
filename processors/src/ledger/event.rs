//! What the ledger step says: one variant a topic.

use kept_schemas::{
    Codec, CodecError, Micros, OrderId, Topic, Wire,
    events::{
        FulfilmentRequested, FulfilmentWithdrawn, NotificationRequested, OrderAccepted, OrderBackordered,
        OrderCancelled, OrderCompleted, OrderHeld, OrderNoted, OrderPaid, OrderReleased, OrderReserved, OrderUnheld,
        PostingRequested, ShipmentDespatched, ShipmentTracked, StockChanged,
    },
    inbound::OrderRevised,
    inputs::OrderWoken,
    topics::Record,
};

macro_rules! ledger_events {
    ($($variant:ident($record:ty)),+; $($unnumbered:ident($urecord:ty)),+) => {
        /// One event of the ledger step.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum LedgerEvent {
            $($variant(Box<$record>),)+
            $($unnumbered(Box<$urecord>),)+
        }

        impl LedgerEvent {
            /// The topics of all of them.
            pub const TOPICS: &'static [Topic] = &[$(<$record>::TOPIC,)+ $(<$urecord>::TOPIC),+];

            /// Where it goes.
            pub fn topic(&self) -> Topic {
                match self {
                    $(Self::$variant(_) => <$record>::TOPIC,)+
                    $(Self::$unnumbered(_) => <$urecord>::TOPIC,)+
                }
            }

            /// The order whose history it belongs to and its number in it; `None` for what has none
            /// (stock rows, wake-ups).
            pub fn place(&self) -> Option<(OrderId, i64)> {
                match self {
                    $(Self::$variant(it) => Some((it.order_id, it.seq)),)+
                    $(Self::$unnumbered(_) => None,)+
                }
            }

            /// When it was decided; the same for everything that one cause brought about.
            pub fn at(&self) -> Micros {
                match self {
                    $(Self::$variant(it) => it.at,)+
                    $(Self::$unnumbered(it) => it.at,)+
                }
            }

            /// Its finished bytes.
            pub fn encode(&self, codec: &Codec) -> Result<Wire, CodecError> {
                match self {
                    $(Self::$variant(it) => codec.encode(it.as_ref()),)+
                    $(Self::$unnumbered(it) => codec.encode(it.as_ref()),)+
                }
            }

            /// Reads an event back from its bytes. `Ok(None)`: its schema id is not known yet.
            pub fn decode(codec: &Codec, topic: Topic, value: &[u8]) -> Result<Option<Self>, CodecError> {
                $(if topic == <$record>::TOPIC { return Ok(codec.decode(value)?.map(|it| Self::$variant(Box::new(it)))); })+
                $(if topic == <$urecord>::TOPIC { return Ok(codec.decode(value)?.map(|it| Self::$unnumbered(Box::new(it)))); })+
                Err(CodecError::Encode(topic.name(), "it is not an output of the ledger step".into()))
            }
        }

        $(impl From<$record> for LedgerEvent { fn from(it: $record) -> Self { Self::$variant(Box::new(it)) } })+
        $(impl From<$urecord> for LedgerEvent { fn from(it: $urecord) -> Self { Self::$unnumbered(Box::new(it)) } })+
    };
}

ledger_events! {
    Accepted(OrderAccepted), Held(OrderHeld), Unheld(OrderUnheld), Released(OrderReleased), Reserved(OrderReserved),
    Backordered(OrderBackordered), Paid(OrderPaid), Cancelled(OrderCancelled), Completed(OrderCompleted),
    Noted(OrderNoted), Revised(OrderRevised), Requested(FulfilmentRequested), Withdrawn(FulfilmentWithdrawn),
    Despatched(ShipmentDespatched), Tracked(ShipmentTracked), Notification(NotificationRequested),
    Posting(PostingRequested);
    Stock(StockChanged), Woken(OrderWoken)
}

impl LedgerEvent {
    /// The record's key: the order id, or the SKU.
    pub fn key(&self) -> String {
        match self {
            Self::Stock(it) => it.sku.clone(),
            Self::Woken(it) => it.order_id.to_string(),
            other => other.place().map(|(order, _)| order.to_string()).expect("every other event has an order"),
        }
    }
}
