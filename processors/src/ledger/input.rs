//! What the ledger step reads.

use kept_schemas::{
    Codec, CodecError, EventId, OrderId, Topic,
    inbound::OrderValidated,
    inputs::{CommandReceived, DeadlineReached, OrderWoken, OutcomeReceived, PaymentReceived, StockCounted},
};

/// Where an input came from. Its events carry it, and it is what re-delivery is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub event_id: EventId,
    pub topic: Topic,
    pub partition: i32,
    pub offset: i64,
    /// W3C trace context, passed on.
    pub traceparent: Option<String>,
}

/// One record of any of the ledger's input topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerInput {
    Validated(Box<OrderValidated>),
    Payment(PaymentReceived),
    Command(Box<CommandReceived>),
    Outcome(Box<OutcomeReceived>),
    Deadline(DeadlineReached),
    Stock(StockCounted),
    Woken(OrderWoken),
}

impl LedgerInput {
    /// Reads a value of `topic`. `Ok(None)`: its schema id is not known yet.
    pub fn decode(codec: &Codec, topic: Topic, value: &[u8]) -> Result<Option<Self>, CodecError> {
        Ok(match topic {
            Topic::OrdersValidated => codec.decode(value)?.map(|it| Self::Validated(Box::new(it))),
            Topic::PaymentsReceived => codec.decode(value)?.map(Self::Payment),
            Topic::CommandsReceived => codec.decode(value)?.map(|it| Self::Command(Box::new(it))),
            Topic::OutcomesReceived => codec.decode(value)?.map(|it| Self::Outcome(Box::new(it))),
            Topic::DeadlinesReached => codec.decode(value)?.map(Self::Deadline),
            Topic::StockCounted => codec.decode(value)?.map(Self::Stock),
            Topic::OrdersWoken => codec.decode(value)?.map(Self::Woken),
            other => return Err(CodecError::Encode(other.name(), "it is not an input of the ledger step".into())),
        })
    }

    /// The order it is about; `None` for stock.
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::Validated(it) => Some(it.order.order_id),
            Self::Payment(it) => Some(it.order_id),
            Self::Command(it) => Some(it.order_id),
            Self::Outcome(it) => Some(it.order_id),
            Self::Deadline(it) => Some(it.order_id),
            Self::Woken(it) => Some(it.order_id),
            Self::Stock(_) => None,
        }
    }
}
