//! `POST /v1/orders`: one order, or a batch of which each order is a record and an answer of its own.

use std::fmt;

use axum::http::StatusCode;
use kept_runtime::{counters::add, log::Outgoing};
use kept_schemas::{OrderId, inbound::InboundKind, reference::Account};
use kept_store::accepted::AtTheDoor;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    door::{Answer, Door},
    forms,
    problem::{Fault, Problem},
};

/// What became of one order of a batch.
#[derive(Serialize)]
struct Item {
    /// Its place in the batch, from 0.
    index: usize,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<OrderId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_understood: forms::NotUnderstood,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

#[derive(Serialize)]
struct Accepted<'a> {
    order_id: OrderId,
    order_number: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_understood: forms::NotUnderstood,
}

#[derive(Serialize)]
struct Batch {
    accepted: usize,
    refused: usize,
    orders: Vec<Item>,
}

/// Takes a body in.
pub async fn take(door: &Door, account: &Account, trace: &str, body: &[u8]) -> Answer {
    let whole: &RawValue = match serde_json::from_slice(body) {
        Ok(whole) => whole,
        Err(error) => return not_json(body, &error).into(),
    };
    let taken = match batch_of(whole.get(), door.limits.batch) {
        Ok(None) => one(door, account, trace, whole.get()).await,
        Ok(Some((prefix, orders))) => batch(door, account, trace, prefix, &orders).await,
        Err(problem) => Err(problem),
    };
    taken.unwrap_or_else(Answer::from)
}

/// Why a body is not JSON. The parser's messages name what it expected and where, never what it found.
pub fn not_json(body: &[u8], error: &serde_json::Error) -> Problem {
    if body.is_empty() {
        return Problem::new("not-json", "the body is empty");
    }
    Problem::new("not-json", error.to_string())
}

async fn one(door: &Door, account: &Account, trace: &str, raw: &str) -> Result<Answer, Problem> {
    if raw.len() > door.limits.one_bytes {
        return Err(Problem::new("too-large", format!("one order has at most {} bytes", door.limits.one_bytes)));
    }
    let (number, not_understood) = forms::order(raw.as_bytes()).map_err(|faults| {
        add(&door.counters.refused, 1);
        Problem::new("not-an-order", "see `errors`; nothing was stored").with_errors(faults)
    })?;
    let form = (InboundKind::Order, forms::ORDER);
    let (order_id, outgoing) = door.inbound(account, trace, form, &number, raw.as_bytes())?;
    store(door, vec![outgoing], vec![AtTheDoor { order_id, shop: account.shop.clone(), number: number.clone() }])
        .await?;
    let body = Accepted { order_id, order_number: &number, status: "accepted", not_understood };
    Ok(Answer::json(StatusCode::ACCEPTED, Some(location(order_id)), &body))
}

async fn batch(
    door: &Door,
    account: &Account,
    trace: &str,
    prefix: &str,
    orders: &[&RawValue],
) -> Result<Answer, Problem> {
    let (mut outgoing, mut rows) = (Vec::new(), Vec::new());
    let mut items = Vec::with_capacity(orders.len());
    for (index, raw) in orders.iter().enumerate() {
        let item = match read_item(door, account, trace, raw.get(), &format!("{prefix}/{index}"))? {
            Ok(Read { number, not_understood, order_id, record }) => {
                outgoing.push(record);
                rows.push(AtTheDoor { order_id, shop: account.shop.clone(), number: number.clone() });
                Item {
                    index,
                    status: "accepted",
                    order_number: Some(number),
                    order_id: Some(order_id),
                    not_understood,
                    errors: Vec::new(),
                }
            }
            Err(errors) => Item {
                index,
                status: "refused",
                order_number: None,
                order_id: None,
                not_understood: Vec::new(),
                errors,
            },
        };
        items.push(item);
    }
    let accepted = outgoing.len();
    let refused = items.len() - accepted;
    add(&door.counters.refused, refused);
    if accepted == 0 {
        let errors = items.into_iter().flat_map(|item| item.errors).collect();
        return Err(
            Problem::new("not-an-order", "none of the batch; see `errors`; nothing was stored").with_errors(errors)
        );
    }
    store(door, outgoing, rows).await?;
    let status = if refused == 0 { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    Ok(Answer::json(status, None, &Batch { accepted, refused, orders: items }))
}

/// An order of a batch that can be stored.
struct Read {
    number: String,
    not_understood: forms::NotUnderstood,
    order_id: OrderId,
    record: Outgoing,
}

/// An order of a batch, or its faults with pointers into the whole body. The outer error is nobody's fault but ours.
fn read_item(
    door: &Door,
    account: &Account,
    trace: &str,
    raw: &str,
    pointer: &str,
) -> Result<Result<Read, Vec<Fault>>, Problem> {
    let fault = |reason: String| vec![Fault { pointer: pointer.to_owned(), reason }];
    let too_large = || fault(format!("one order has at most {} bytes", door.limits.one_bytes));
    if raw.len() > door.limits.one_bytes {
        return Ok(Err(too_large()));
    }
    let (number, not_understood) = match forms::order(raw.as_bytes()) {
        Ok(read) => read,
        Err(faults) => {
            let within = |fault: Fault| Fault { pointer: format!("{pointer}{}", fault.pointer), ..fault };
            return Ok(Err(faults.into_iter().map(within).collect()));
        }
    };
    match door.inbound(account, trace, (InboundKind::Order, forms::ORDER), &number, raw.as_bytes()) {
        Ok((order_id, record)) => Ok(Ok(Read { number, not_understood, order_id, record })),
        Err(problem) if problem.status() == StatusCode::PAYLOAD_TOO_LARGE => Ok(Err(too_large())),
        Err(problem) => Err(problem),
    }
}

/// Stores bodies, then remembers their orders until the pipeline has them.
async fn store(door: &Door, outgoing: Vec<Outgoing>, rows: Vec<AtTheDoor>) -> Result<(), Problem> {
    if !door.books.has_room() {
        return Err(Problem::new("busy", "too many accepted orders wait to be written down; try again shortly"));
    }
    let count = outgoing.len();
    door.store(outgoing).await?;
    add(&door.counters.accepted, count);
    door.books.accepted(rows).await;
    Ok(())
}

/// Where to ask for an order.
pub fn location(order_id: OrderId) -> String {
    format!("/v1/orders/{order_id}")
}

/// The orders of a batch with the pointer to their list; `None` when the body is one order.
fn batch_of(text: &str, most: usize) -> Result<Option<(&'static str, Vec<&RawValue>)>, Problem> {
    #[derive(Deserialize)]
    struct Holder<'a> {
        #[serde(borrow, default)]
        orders: Option<&'a RawValue>,
    }
    let (prefix, list) = match text.as_bytes().first() {
        Some(b'[') => ("", text),
        Some(b'{') => match serde_json::from_str::<Holder>(text) {
            Ok(Holder { orders: Some(list) }) if list.get().starts_with('[') => ("/orders", list.get()),
            Ok(Holder { orders: Some(_) }) => {
                let fault = Fault { pointer: "/orders".into(), reason: "must be a list of orders".into() };
                return Err(Problem::new("not-an-order", "see `errors`; nothing was stored").with_errors(vec![fault]));
            }
            // Anything else is for the order's own form to judge.
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let mut parser = serde_json::Deserializer::from_str(list);
    let Some(orders) = Items { most }.deserialize(&mut parser).map_err(|error| not_json(list.as_bytes(), &error))?
    else {
        return Err(Problem::new("too-large", format!("a batch has at most {most} orders")));
    };
    if orders.is_empty() {
        return Err(Problem::new("not-an-order", "the batch is empty"));
    }
    Ok(Some((prefix, orders)))
}

/// Reads a list no further than `most` items; `None` when there are more.
struct Items {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Option<Vec<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of orders")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.most {
            match list.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(Some(items)),
            }
        }
        let mut more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok((!more).then_some(items))
    }
}
