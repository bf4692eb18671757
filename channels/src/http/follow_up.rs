//! `POST /v1/orders/{id}/cancellation` and `…/payments`: what is asked or told about an order that exists.

use axum::http::StatusCode;
use kept_schemas::{OrderId, inbound::InboundKind, reference::Account};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    books::Found,
    door::{Answer, Door},
    forms,
    orders::{location, not_json},
    problem::Problem,
};

/// The order a request is about.
pub struct Target {
    pub order_id: OrderId,
    /// The order's number, when the request named it.
    pub number: Option<String>,
}

/// What is said about the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Cancellation,
    Payment,
}

/// Reads `{id}` and `?shop=`: our id, or the order's number in the account's own shop.
///
/// # Errors
/// 404 for what can be neither, 403 for another shop.
pub fn target(account: &Account, asked: &str, shop: Option<&str>) -> Result<Target, Problem> {
    let Some(shop) = shop else {
        let hint = "this is no order id; to ask by order number add `?shop=` with the shop's name";
        let order_id = OrderId::parse(asked).ok_or_else(|| Problem::new("unknown-order", hint))?;
        return Ok(Target { order_id, number: None });
    };
    if shop != account.shop {
        return Err(Problem::new("other-shop", "this key sees the orders of its own shop only"));
    }
    if !forms::is_number(asked) {
        return Err(Problem::new("unknown-order", "no order can have this number"));
    }
    Ok(Target { order_id: OrderId::of(shop, asked), number: Some(asked.to_owned()) })
}

/// What is known of an order, as this account may see it: another shop's order does not exist.
///
/// # Errors
/// 404, or 503 when it cannot be looked up.
pub async fn find(door: &Door, account: &Account, order_id: OrderId) -> Result<Found, Problem> {
    let found = door
        .books
        .find(order_id)
        .await
        .map_err(|_| Problem::new("not-available", "the order cannot be looked up now; try again shortly"))?;
    let shop = match &found {
        Found::Here(facts) => Some(&facts.shop),
        Found::AtTheDoor(order) => Some(&order.shop),
        Found::Unknown => None,
    };
    if shop != Some(&account.shop) {
        return Err(Problem::new("unknown-order", "no order of this shop has this id or number"));
    }
    Ok(found)
}

/// Takes a body in.
pub async fn take(door: &Door, account: &Account, trace: &str, target: Target, about: About, body: &[u8]) -> Answer {
    match try_take(door, account, trace, target, about, body).await {
        Ok(answer) => answer,
        Err(problem) => problem.into(),
    }
}

async fn try_take(
    door: &Door,
    account: &Account,
    trace: &str,
    target: Target,
    about: About,
    body: &[u8],
) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Taken {
        order_id: OrderId,
        status: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        not_understood: forms::NotUnderstood,
    }
    let whole: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    let raw = whole.get().as_bytes();
    if raw.len() > door.limits.one_bytes {
        return Err(Problem::new("too-large", format!("a body has at most {} bytes", door.limits.one_bytes)));
    }
    let (kind, form, read, refusal) = match about {
        About::Cancellation => {
            (InboundKind::Cancellation, forms::CANCELLATION, forms::cancellation(raw), "not-a-cancellation")
        }
        About::Payment => (InboundKind::Payment, forms::PAYMENT, forms::payment(raw), "not-a-payment"),
    };
    let not_understood =
        read.map_err(|faults| Problem::new(refusal, "see `errors`; nothing was stored").with_errors(faults))?;
    // By number it may come before its order, and waits for it; by id we must know the number, so the order.
    let number = match target.number {
        Some(number) => number,
        None => match find(door, account, target.order_id).await? {
            Found::Here(facts) => facts.number,
            Found::AtTheDoor(order) => order.number,
            Found::Unknown => return Err(Problem::new("unknown-order", "no order of this shop has this id")),
        },
    };
    let (order_id, outgoing) = door.inbound(account, trace, (kind, form), &number, raw)?;
    door.store(vec![outgoing]).await?;
    Ok(Answer::json(
        StatusCode::ACCEPTED,
        Some(location(order_id)),
        &Taken { order_id, status: "accepted", not_understood },
    ))
}
