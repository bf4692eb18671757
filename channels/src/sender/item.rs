//! One thing to send, as a sample file has it a line: when, by which way, as whom, and the body.

use kept_schemas::{
    EventId, Micros, OrderId,
    inbound::{InboundKind, OrderReceived},
    own::OrderForm,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::sent_log::Sent;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// `POST /v1/orders` and what belongs to it, with the account's bearer key.
    Http,
    /// A record in `channels.inbound`, as `kept import` writes it.
    Import,
    /// A record in `channels.inbound`, as a merchant's own program writes it.
    Topic,
    /// A record in `orders.received`, as another team's channel adapter writes it; the body is the whole order as that
    /// topic has it ([`OrderReceived`], in JSON).
    Received,
}

/// One thing to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// When its channel sends it.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub at: Micros,
    pub way: Way,
    pub account: String,
    pub shop: String,
    pub kind: InboundKind,
    /// The order it is about.
    pub order_number: String,
    /// The body as it is sent, to the byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    /// A body that is not JSON, in place of `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// What is wrong with it on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        let head = |it: &Self| (it.at, it.way, it.kind, it.trouble.clone());
        let who = |it: &Self| (it.account.clone(), it.shop.clone(), it.order_number.clone());
        head(self) == head(other) && who(self) == who(other) && self.bytes() == other.bytes()
    }
}

impl Item {
    pub fn bytes(&self) -> &[u8] {
        match (&self.raw, &self.body) {
            (Some(raw), _) => raw.as_bytes(),
            (None, Some(body)) => body.get().as_bytes(),
            (None, None) => b"",
        }
    }

    pub fn order_id(&self) -> OrderId {
        OrderId::of(&self.shop, &self.order_number)
    }

    pub fn body_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }

    /// The id of the record, the same for the same body from the same account.
    pub fn event_id(&self) -> EventId {
        EventId::of_input(&self.account, &self.order_number, &self.body_sha256())
    }

    /// The line of the sender's log. A body that cannot be read has no lines and no total.
    pub fn sent(&self) -> Sent {
        let mut sent = Sent {
            order_id: self.order_id(),
            shop: self.shop.clone(),
            number: self.order_number.clone(),
            kind: self.kind.as_str().to_owned(),
            body_sha256: crate::hex(&self.body_sha256()),
            accepted: false,
            lines: None,
            units: None,
            total_minor: None,
        };
        if self.way == Way::Received {
            // What is stored is the order, not a body.
            sent.body_sha256.clear();
            if let Ok(OrderReceived { order, .. }) = serde_json::from_slice(self.bytes()) {
                sent.lines = Some(order.lines.len() as u64);
                sent.units = Some(order.lines.iter().map(|it| it.quantity).sum());
                sent.total_minor = Some(order.total_minor);
            }
        } else if self.kind == InboundKind::Order
            && let Ok(parsed) = OrderForm::parse(self.bytes())
        {
            sent.lines = Some(parsed.form.lines.len() as u64);
            sent.units = Some(parsed.form.units());
            sent.total_minor = parsed.form.total_minor();
        }
        sent
    }
}

fn write_time<S: Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.rfc3339())
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Micros, D::Error> {
    let text = String::deserialize(deserializer)?;
    Micros::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("is not a time of the form 2026-11-25T10:00:00Z"))
}
