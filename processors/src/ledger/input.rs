//! What the ledger step reads.

use kept_schemas::{
    Codec, CodecError, EventId, OrderId, Topic,
    inbound::OrderValidated,
    inputs::{CommandReceived, DeadlineReached, OrderWoken, OutcomeReceived, PaymentReceived, StockCounted},
    texts,
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
    /// Reads a value of `topic`. `Ok(None)`: its schema id is not known yet. Others write to these topics too, so a text
    /// that no table could hold is an error, before anything is locked or decided.
    pub fn decode(codec: &Codec, topic: Topic, value: &[u8]) -> Result<Option<Self>, CodecError> {
        let input = Self::read(codec, topic, value)?;
        match input.as_ref().map_or(Ok(()), Self::texts) {
            Ok(()) => Ok(input),
            Err(why) => Err(CodecError::Rule(topic.name(), why)),
        }
    }

    fn read(codec: &Codec, topic: Topic, value: &[u8]) -> Result<Option<Self>, CodecError> {
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

    fn texts(&self) -> Result<(), String> {
        match self {
            Self::Validated(it) => texts::validated(it),
            Self::Payment(it) => texts::payment(it),
            Self::Command(it) => texts::command(it),
            Self::Outcome(it) => texts::outcome(it),
            Self::Deadline(it) => texts::deadline(it),
            Self::Stock(it) => texts::stock(it),
            Self::Woken(it) => texts::woken(it),
        }
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

#[cfg(test)]
mod tests {
    use kept_schemas::{codec::offline, topics::Record};

    use super::*;
    use crate::hostile::{filled, holds_one, spoilt};

    /// Texts of a `T` that get past reading, by their place.
    fn passed<T: Record>() -> Vec<String> {
        let codec = offline();
        let read = |record: &T| {
            let value = codec.encode(record).expect("it fits").bytes();
            LedgerInput::decode(&codec, T::TOPIC, &value)
        };
        assert!(matches!(read(&filled()), Ok(Some(_))), "{} reads as it is", T::TOPIC);
        let mut passed = Vec::new();
        for (place, record) in spoilt(&filled::<T>()) {
            match read(&record) {
                Ok(_) if holds_one(&record) => passed.push(place),
                Ok(_) => {}
                Err(error) => {
                    let (said, topic) = (error.to_string(), T::TOPIC);
                    assert!(said.starts_with(&format!("record of {topic} breaks a rule: ")), "{place}: {said}");
                    assert!(said.len() < 200 && !said.contains('\0'), "{place}: {said}");
                }
            }
        }
        passed.dedup();
        passed
    }

    #[test]
    fn no_text_that_a_table_could_not_hold_gets_past_reading() {
        let none = Vec::<String>::new();
        assert_eq!(passed::<OrderValidated>(), none);
        assert_eq!(passed::<PaymentReceived>(), none);
        assert_eq!(passed::<OutcomeReceived>(), none);
        assert_eq!(passed::<DeadlineReached>(), none);
        assert_eq!(passed::<StockCounted>(), none);
        assert_eq!(passed::<OrderWoken>(), none);
        // A corrected address is refused in the order's history, with its reason.
        assert!(passed::<CommandReceived>().iter().all(|place| place.starts_with("/party/")));
    }
}
