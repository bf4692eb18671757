//! Records of `channels.inbound` (who sent which body), and of `orders.received` (whole orders of other teams).

use kept_runtime::log::Outgoing;
use kept_schemas::{
    Codec, Headers, Micros, Topic,
    inbound::{Inbound, InboundKind, OrderReceived},
    own::{CancellationForm, OrderForm, PaymentForm},
};

use super::{Item, SendError, Way};
use crate::{
    import::{Ready, mapping::Mapping},
    sent_log::Sent,
};

/// A finished record and its line in the sender's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToSend {
    pub outgoing: Outgoing,
    pub sent: Sent,
}

/// An imported order as a record.
pub fn to_send(codec: &Codec, ready: &Ready, mapping: &Mapping) -> Result<ToSend, SendError> {
    let (inbound, headers) = ready.inbound(mapping, now());
    let sent = Sent {
        order_id: ready.order_id,
        shop: mapping.shop.clone(),
        number: ready.number.clone(),
        kind: InboundKind::Order.as_str().to_owned(),
        body_sha256: crate::hex(&ready.body_sha256),
        accepted: false,
        lines: Some(ready.lines),
        units: Some(ready.units),
        total_minor: Some(ready.total_minor),
    };
    record(codec, &inbound, headers, sent)
}

/// An item as a record of the topic it is for.
pub fn item(codec: &Codec, item: &Item) -> Result<ToSend, SendError> {
    if item.way != Way::Received {
        return inbound(codec, item);
    }
    let unreadable = |error| SendError::Stop(format!("order {} is not a whole order: {error}", item.order_number));
    let order: OrderReceived = serde_json::from_slice(item.bytes()).map_err(unreadable)?;
    let order = OrderReceived { received_at: now(), ..order };
    let headers = Headers {
        event_id: Some(item.event_id()),
        subject: Some(Topic::OrdersReceived.subject().into()),
        ..Headers::default()
    };
    let sent = item.sent();
    let wire = codec.encode(&order).map_err(|error| SendError::Record(item.order_number.clone(), error))?;
    let outgoing = Outgoing::new(Topic::OrdersReceived, &sent.order_id.to_string(), &wire, headers);
    Ok(ToSend { outgoing, sent })
}

/// An item as a record of `channels.inbound`.
pub fn inbound(codec: &Codec, item: &Item) -> Result<ToSend, SendError> {
    let format = match item.kind {
        InboundKind::Cancellation => CancellationForm::FORMAT,
        InboundKind::Payment => PaymentForm::FORMAT,
        _ => OrderForm::FORMAT,
    };
    let inbound = Inbound {
        account: item.account.clone(),
        kind: item.kind,
        format: format.into(),
        shop: item.shop.clone(),
        external_id: item.order_number.clone(),
        source_version: None,
        received_at: now(),
        body: item.bytes().to_vec(),
    };
    let headers = Headers {
        event_id: Some(item.event_id()),
        subject: Some(Topic::ChannelsInbound.subject().into()),
        ..Headers::default()
    };
    record(codec, &inbound, headers, item.sent())
}

fn record(codec: &Codec, inbound: &Inbound, headers: Headers, sent: Sent) -> Result<ToSend, SendError> {
    let wire = codec.encode(inbound).map_err(|error| SendError::Record(inbound.external_id.clone(), error))?;
    let outgoing = Outgoing::new(Topic::ChannelsInbound, &sent.order_id.to_string(), &wire, headers);
    Ok(ToSend { outgoing, sent })
}

/// This machine's clock: when a body came in. Nothing is decided by it.
fn now() -> Micros {
    Micros(jiff::Timestamp::now().as_microsecond())
}
