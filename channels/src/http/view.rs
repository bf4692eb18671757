//! An order as the API shows it: where it stands, what waits for what, what left. Not the person it is for, whom the
//! sender knows.

use axum::http::StatusCode;
use kept_schemas::{Micros, OrderId, UnitPrice, values::currency_decimals};
use kept_store::pages::{OrderFacts, Told};
use serde::Serialize;

use super::{books::Found, door::Answer};

/// Fields that are not known are left out.
#[derive(Serialize, Default)]
struct Order<'a> {
    order_id: OrderId,
    order_number: &'a str,
    shop: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    placed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promised_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ship_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    currency: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<Payment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Line<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<Vec<Hold<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipments: Option<Vec<Shipment<'a>>>,
}

#[derive(Serialize)]
struct Payment<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    authorised: String,
    captured: String,
    refunded: String,
}

#[derive(Serialize)]
struct Line<'a> {
    line_no: i32,
    sku: &'a str,
    quantity: i64,
    reserved: i64,
    short: i64,
    shipped: i64,
    cancelled: i64,
    returned: i64,
    unit_price: &'a str,
    total: String,
}

#[derive(Serialize)]
struct Hold<'a> {
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line_no: Option<i32>,
    opened_at: Option<String>,
    due_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_at: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    resolution: &'a str,
}

#[derive(Serialize)]
struct Shipment<'a> {
    shipment_id: &'a str,
    location: &'a str,
    carrier: &'a str,
    status: &'a str,
    despatched_at: Option<String>,
    delivered_at: Option<String>,
    simulated: bool,
    lines: Vec<LineOf>,
    parcels: Vec<Parcel<'a>>,
}

#[derive(Serialize)]
struct LineOf {
    line_no: i32,
    quantity: i64,
}

#[derive(Serialize)]
struct Parcel<'a> {
    tracking_number: Option<&'a str>,
    status: &'a str,
}

#[derive(Serialize)]
struct Event<'a> {
    seq: i64,
    at: Option<String>,
    event: &'a str,
    what: &'a str,
}

/// The answer to `GET /v1/orders/{id}`; `None` when there is no such order.
pub fn order(order_id: OrderId, found: &Found) -> Option<Answer> {
    let body = match found {
        Found::Unknown => return None,
        Found::AtTheDoor(order) => {
            Order { order_id, order_number: &order.number, shop: &order.shop, status: "accepted", ..Default::default() }
        }
        Found::Here(facts) => whole(facts),
    };
    Some(Answer::json(StatusCode::OK, None, &body))
}

/// The answer to `GET /v1/orders/{id}/timeline`.
pub fn timeline(order_id: OrderId, events: &[Told], page: i64) -> Answer {
    #[derive(Serialize)]
    struct Timeline<'a> {
        order_id: OrderId,
        events: Vec<Event<'a>>,
        /// Ask with `?after=` this for the rest.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<i64>,
    }
    let full = i64::try_from(events.len()).is_ok_and(|count| count >= page);
    let after = events.last().filter(|_| full).map(|last| last.seq);
    let events =
        events.iter().map(|it| Event { seq: it.seq, at: time(it.at), event: &it.event, what: &it.detail }).collect();
    Answer::json(StatusCode::OK, None, &Timeline { order_id, events, after })
}

fn whole(facts: &OrderFacts) -> Order<'_> {
    let money = |minor| amount(minor, &facts.currency);
    Order {
        order_id: facts.order_id,
        order_number: &facts.number,
        shop: &facts.shop,
        status: &facts.status,
        channel: &facts.channel,
        placed_at: time(facts.placed_at),
        accepted_at: time(facts.accepted_at),
        updated_at: time(facts.updated_at),
        promised_at: time(facts.promised_at),
        ship_by: time(facts.ship_by),
        test: Some(facts.test),
        currency: &facts.currency,
        total: Some(money(facts.total_minor)),
        payment: Some(Payment {
            method: &facts.payment_method,
            state: facts.payment_state.as_deref(),
            authorised: money(facts.authorised_minor),
            captured: money(facts.captured_minor),
            refunded: money(facts.refunded_minor),
        }),
        lines: Some(
            facts
                .lines
                .iter()
                .map(|line| Line {
                    line_no: line.line_no,
                    sku: &line.sku,
                    quantity: line.quantity,
                    reserved: line.reserved,
                    short: line.short,
                    shipped: line.shipped,
                    cancelled: line.cancelled,
                    returned: line.returned,
                    unit_price: &line.unit_price,
                    total: money(line.line_total_minor),
                })
                .collect(),
        ),
        holds: Some(
            facts
                .holds
                .iter()
                .map(|hold| Hold {
                    reason: &hold.reason,
                    detail: &hold.detail,
                    line_no: hold.line_no,
                    opened_at: time(hold.opened_at),
                    due_at: time(hold.due_at),
                    resolved_at: time(hold.resolved_at),
                    resolution: &hold.resolution,
                })
                .collect(),
        ),
        shipments: Some(
            facts
                .shipments
                .iter()
                .map(|it| Shipment {
                    shipment_id: &it.shipment_id,
                    location: &it.location_id,
                    carrier: &it.carrier,
                    status: &it.status,
                    despatched_at: time(it.despatched_at),
                    delivered_at: time(it.delivered_at),
                    simulated: it.simulated,
                    lines: it.lines.iter().map(|&(line_no, quantity)| LineOf { line_no, quantity }).collect(),
                    parcels: it
                        .parcels
                        .iter()
                        .map(|it| Parcel { tracking_number: it.tracking_number.as_deref(), status: &it.status })
                        .collect(),
                })
                .collect(),
        ),
    }
}

/// Minor units as a decimal text; a currency without known decimals stays in minor units.
fn amount(minor: i64, currency: &str) -> String {
    let decimals = currency_decimals(currency).unwrap_or(0);
    UnitPrice { amount: minor, scale: i32::try_from(decimals).unwrap_or(0) }.to_string()
}

/// RFC 3339 in UTC.
fn time(at: Option<Micros>) -> Option<String> {
    at.map(Micros::rfc3339)
}
