//! One order in full.

use kept_schemas::{Micros, OrderId};
use tokio_postgres::Client;

use super::{instant, number, text};
use crate::pg::StoreError;

/// Everything the read model says of one order, but its timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFacts {
    pub order_id: OrderId,
    pub order_no: i64,
    pub number: String,
    pub channel: String,
    pub shop: String,
    pub account: String,
    pub status: String,
    pub placed_at: Option<Micros>,
    pub accepted_at: Option<Micros>,
    pub updated_at: Option<Micros>,
    pub promised_at: Option<Micros>,
    pub ship_by: Option<Micros>,
    pub currency: String,
    pub total_minor: i64,
    pub charges_minor: i64,
    pub customer_ref: Option<String>,
    pub country: String,
    pub revision: i32,
    pub test: bool,
    pub payment_method: String,
    /// Absent until something was heard of money.
    pub payment_state: Option<String>,
    pub authorised_minor: i64,
    pub captured_minor: i64,
    pub refunded_minor: i64,
    pub quantity: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub person: Person,
    pub lines: Vec<Line>,
    pub charges: Vec<Charge>,
    pub holds: Vec<Hold>,
    pub shipments: Vec<Shipment>,
    pub notifications: Vec<Notification>,
    pub postings: Vec<Posting>,
}

/// Who gets it; empty after an erasure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub company: String,
    pub street: String,
    pub postcode: String,
    pub city: String,
    pub email: String,
    pub phone: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    pub line_no: i32,
    pub sku: String,
    pub description: String,
    /// As many decimals as the price had.
    pub unit_price: String,
    pub line_total_minor: i64,
    pub quantity: i64,
    pub reserved: i64,
    pub short: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub returned: i64,
    pub promised_at: Option<Micros>,
    pub ship_by: Option<Micros>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge {
    pub kind: String,
    pub code: String,
    pub description: String,
    pub quantity: i64,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    pub hold_id: String,
    pub reason: String,
    pub line_no: Option<i32>,
    pub detail: String,
    pub opened_at: Option<Micros>,
    pub due_at: Option<Micros>,
    pub resolved_at: Option<Micros>,
    pub resolution: String,
    pub resolved_by: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shipment {
    pub shipment_id: String,
    pub location_id: String,
    pub carrier: String,
    pub service: String,
    pub status: String,
    pub despatched_at: Option<Micros>,
    pub delivered_at: Option<Micros>,
    /// Made by the simulated warehouse and carrier.
    pub simulated: bool,
    /// (line, quantity) of this order in it.
    pub lines: Vec<(i32, i64)>,
    pub parcels: Vec<Parcel>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parcel {
    pub parcel_id: String,
    pub tracking_number: Option<String>,
    pub weight_grams: Option<i64>,
    pub status: String,
    pub tracked_at: Option<Micros>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    pub purpose: String,
    pub medium: String,
    pub status: String,
    pub at: Option<Micros>,
}

/// One entry of a posting: debit positive, credit negative.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Posting {
    pub kind: String,
    pub account: String,
    pub currency: String,
    pub amount_minor: i64,
    pub at: Option<Micros>,
}

/// An event of the timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub seq: i64,
    pub event: String,
    pub at: Option<Micros>,
    pub cause: String,
    pub detail: String,
}

/// The order of this id; `None` while the read model does not have it.
///
/// # Errors
/// Whatever Postgres says.
pub async fn order(client: &Client, order_id: OrderId) -> Result<Option<OrderFacts>, StoreError> {
    let id = order_id.0;
    let Some(row) = client.query_opt("SELECT * FROM orders WHERE order_id = $1", &[&id]).await? else {
        return Ok(None);
    };
    let ask = async |sql: &'static str| client.query(sql, &[&id]).await;
    // Polled in this order over one connection: every request is sent before the first answer is awaited.
    let (lines, charges, holds, shipments, shipment_lines, parcels, notifications, postings) = tokio::try_join!(
        ask("SELECT *, unit_price::text AS price FROM order_lines WHERE order_id = $1 ORDER BY line_no"),
        ask("SELECT * FROM order_charges WHERE order_id = $1 ORDER BY charge_no"),
        ask("SELECT * FROM holds WHERE order_id = $1 AND opened_at IS NOT NULL
             ORDER BY resolved_at IS NOT NULL, due_at, hold_id"),
        ask("SELECT * FROM shipments
             WHERE shipment_id IN (SELECT shipment_id FROM shipment_lines WHERE order_id = $1)
             ORDER BY despatched_at, shipment_id"),
        ask("SELECT shipment_id, line_no, quantity FROM shipment_lines WHERE order_id = $1 ORDER BY line_no"),
        ask("SELECT * FROM parcels
             WHERE shipment_id IN (SELECT shipment_id FROM shipment_lines WHERE order_id = $1) ORDER BY parcel_id"),
        ask("SELECT * FROM notifications WHERE order_id = $1 ORDER BY at, notification_id"),
        ask("SELECT * FROM postings WHERE order_id = $1 ORDER BY at, posting_id, amount_minor DESC"),
    )?;
    let mut shipments: Vec<Shipment> = shipments
        .iter()
        .map(|row| Shipment {
            shipment_id: text(row, "shipment_id"),
            location_id: text(row, "location_id"),
            carrier: text(row, "carrier"),
            service: text(row, "service"),
            status: text(row, "status"),
            despatched_at: instant(row, "despatched_at"),
            delivered_at: instant(row, "delivered_at"),
            simulated: row.get::<_, Option<bool>>("simulated").unwrap_or_default(),
            ..Default::default()
        })
        .collect();
    for shipment in &mut shipments {
        let of_it = |row: &&tokio_postgres::Row| row.get::<_, &str>("shipment_id") == shipment.shipment_id;
        shipment.lines =
            shipment_lines.iter().filter(of_it).map(|row| (row.get("line_no"), row.get("quantity"))).collect();
        shipment.parcels = parcels
            .iter()
            .filter(of_it)
            .map(|row| Parcel {
                parcel_id: text(row, "parcel_id"),
                tracking_number: row.get("tracking_number"),
                weight_grams: row.get("weight_grams"),
                status: text(row, "status"),
                tracked_at: instant(row, "tracked_at"),
            })
            .collect();
    }
    Ok(Some(OrderFacts {
        order_id,
        order_no: number(&row, "order_no"),
        number: text(&row, "channel_order_id"),
        channel: text(&row, "channel"),
        shop: text(&row, "shop"),
        account: text(&row, "account"),
        status: text(&row, "status"),
        placed_at: instant(&row, "placed_at"),
        accepted_at: instant(&row, "accepted_at"),
        updated_at: instant(&row, "updated_at"),
        promised_at: instant(&row, "promised_at"),
        ship_by: instant(&row, "ship_by"),
        currency: text(&row, "currency"),
        total_minor: number(&row, "total_minor"),
        charges_minor: number(&row, "charges_minor"),
        customer_ref: row.get("customer_ref"),
        country: text(&row, "country"),
        revision: row.get::<_, Option<i32>>("revision").unwrap_or_default(),
        test: row.get::<_, Option<bool>>("test").unwrap_or_default(),
        payment_method: text(&row, "payment_method"),
        payment_state: row.get("payment_state"),
        authorised_minor: number(&row, "authorised_minor"),
        captured_minor: number(&row, "captured_minor"),
        refunded_minor: number(&row, "refunded_minor"),
        quantity: number(&row, "quantity"),
        shipped: number(&row, "shipped"),
        cancelled: number(&row, "cancelled"),
        person: Person {
            name: text(&row, "ship_name"),
            company: text(&row, "ship_company"),
            street: text(&row, "ship_street"),
            postcode: text(&row, "ship_postcode"),
            city: text(&row, "ship_city"),
            email: text(&row, "email"),
            phone: text(&row, "phone"),
        },
        lines: lines
            .iter()
            .map(|row| Line {
                line_no: row.get("line_no"),
                sku: text(row, "sku"),
                description: text(row, "description"),
                unit_price: text(row, "price"),
                line_total_minor: number(row, "line_total_minor"),
                quantity: number(row, "quantity"),
                reserved: number(row, "reserved"),
                short: number(row, "short"),
                shipped: number(row, "shipped"),
                cancelled: number(row, "cancelled"),
                returned: number(row, "returned"),
                promised_at: instant(row, "promised_at"),
                ship_by: instant(row, "ship_by"),
            })
            .collect(),
        charges: charges
            .iter()
            .map(|row| Charge {
                kind: text(row, "kind"),
                code: text(row, "code"),
                description: text(row, "description"),
                quantity: number(row, "quantity"),
                amount_minor: number(row, "amount_minor"),
            })
            .collect(),
        holds: holds
            .iter()
            .map(|row| Hold {
                hold_id: text(row, "hold_id"),
                reason: text(row, "reason"),
                line_no: row.get("line_no"),
                detail: text(row, "detail"),
                opened_at: instant(row, "opened_at"),
                due_at: instant(row, "due_at"),
                resolved_at: instant(row, "resolved_at"),
                resolution: text(row, "resolution"),
                resolved_by: text(row, "resolved_by"),
            })
            .collect(),
        shipments,
        notifications: notifications
            .iter()
            .map(|row| Notification {
                purpose: text(row, "purpose"),
                medium: text(row, "channel"),
                status: text(row, "status"),
                at: instant(row, "at"),
            })
            .collect(),
        postings: postings
            .iter()
            .map(|row| Posting {
                kind: text(row, "kind"),
                account: text(row, "account"),
                currency: text(row, "currency"),
                amount_minor: number(row, "amount_minor"),
                at: instant(row, "at"),
            })
            .collect(),
    }))
}

/// What happened to the order, oldest first, at most `limit` events after number `after`.
///
/// # Errors
/// Whatever Postgres says.
pub async fn timeline(client: &Client, order_id: OrderId, after: i64, limit: i64) -> Result<Vec<Told>, StoreError> {
    let rows = client
        .query(
            "SELECT seq, event, at, cause, detail FROM timeline WHERE order_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            &[&order_id.0, &after, &limit],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Told {
            seq: row.get("seq"),
            event: text(row, "event"),
            at: instant(row, "at"),
            cause: text(row, "cause"),
            detail: text(row, "detail"),
        })
        .collect())
}
