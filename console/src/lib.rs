//! Pages for people: where everything stands, and one order in full. Read-only; they show the read model.
//!
//! Plain HTML from the server, no script, so that it opens on any bench computer.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use kept_schemas::values::{UnitPrice, currency_decimals};
use kept_store::pages;
use tokio_postgres::Client;

/// What the pages need: a connection and the read model's schema.
pub struct Console {
    pub client: Client,
    pub schema: String,
}

/// The routes `/`, `/orders?q=` and `/orders/{id}/page`.
pub fn routes(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/find", get(find))
        .route("/orders/{id}", get(order))
        .with_state(console)
}

#[derive(serde::Deserialize)]
struct Asked {
    q: String,
}

async fn find(Query(asked): Query<Asked>) -> Redirect {
    Redirect::to(&format!("/orders/{}", path_segment(asked.q.trim())))
}

async fn overview(State(console): State<Arc<Console>>) -> Response {
    match pages::overview(&console.client, &console.schema).await {
        Ok(found) => page("Kept", &overview_html(&found, SystemTime::now())),
        Err(error) => unavailable(&error),
    }
}

async fn order(State(console): State<Arc<Console>>, Path(asked): Path<String>) -> Response {
    match pages::order(&console.client, &console.schema, &asked).await {
        Ok(Some(found)) => page(&format!("Order {}", found.number), &order_html(&found)),
        Ok(None) => {
            (StatusCode::NOT_FOUND, page("Not found", "<p>No order has this id or number (yet).</p>")).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &tokio_postgres::Error) -> Response {
    tracing::warn!(%error, "the read model does not answer");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        page("Not available", "<p>The read model does not answer; try again shortly.</p>"),
    )
        .into_response()
}

fn overview_html(found: &pages::Overview, now: SystemTime) -> String {
    let counts = |rows: &[pages::Count]| {
        table(&["", "orders"], rows.iter().map(|row| vec![escape(&row.name.replace('_', " ")), row.count.to_string()]))
    };
    let waiting = found.waiting.iter().map(|row| {
        vec![
            format!("<a href=\"/orders/{}\">{}</a>", path_segment(&row.order_id), escape(&row.number)),
            escape(&row.channel),
            escape(&row.reason.replace('_', " ")),
            escape(&row.detail),
            due(row.due_at, now),
        ]
    });
    format!(
        "<form action=\"/find\"><label>Order number or id <input name=\"q\" required maxlength=\"200\"></label> <button>Show</button></form>\
         <div class=\"side\"><section><h2>Orders</h2>{}</section><section><h2>Waiting for someone</h2>{}<p>{} past their deadline · {} dead letters</p></section></div>\
         <h2>First to look at</h2>{}",
        counts(&found.orders),
        counts(&found.holds),
        found.overdue,
        found.dead_letters,
        table(&["order", "channel", "why it waits", "evidence", "due"], waiting)
    )
}

fn due(at: SystemTime, now: SystemTime) -> String {
    let (seconds, late) = match at.duration_since(now) {
        Ok(left) => (left.as_secs(), false),
        Err(past) => (past.duration().as_secs(), true),
    };
    let span = match seconds {
        0..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    if late { format!("<b>{span} late</b>") } else { format!("in {span}") }
}

fn order_html(found: &pages::OrderPage) -> String {
    let rows = |cells: &[Vec<String>]| -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect()
    };
    format!(
        "<p>{} · <b>{}</b> · {} {} · <code>{}</code></p><h2>Lines</h2>{}<h2>Holds</h2>{}<h2>Shipments</h2>{}<h2>What happened</h2>{}",
        escape(&found.channel),
        escape(&found.status.replace('_', " ")),
        amount(found.total_minor, &found.currency),
        escape(&found.currency),
        escape(&found.order_id),
        table(
            &["line", "SKU", "ordered", "unit price", "reserved", "short", "shipped", "cancelled"],
            rows(&found.lines)
        ),
        table(&["why", "evidence", "since", "due", "resolved", "how"], rows(&found.holds)),
        table(&["shipment", "from", "carrier", "status", "left", "delivered"], rows(&found.shipments)),
        table(&["", "when", "event", "what"], rows(&found.timeline)),
    )
}

/// Minor units as people write them; a currency without known decimals stays in minor units.
fn amount(minor: i64, currency: &str) -> UnitPrice {
    let decimals = currency_decimals(currency).unwrap_or(0);
    UnitPrice { amount: minor, scale: i32::try_from(decimals).unwrap_or(0) }
}

/// A table of cells that are HTML already.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let body: String = rows
        .into_iter()
        .map(|row| format!("<tr>{}</tr>", row.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>()))
        .collect();
    if body.is_empty() {
        return "<p>None.</p>".into();
    }
    let head: String = head.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    format!("<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
}

fn page(title: &str, body: &str) -> Response {
    const STYLE: &str = "body{font:16px/1.4 system-ui,sans-serif;max-width:70rem;margin:1.5rem auto;padding:0 1rem;color:#1b1f24}\
        h1 a{color:inherit;text-decoration:none}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;\
        border-bottom:1px solid #d9dee3;vertical-align:top}.side{display:flex;gap:3rem;flex-wrap:wrap}.side section{flex:1;min-width:18rem}\
        input{font:inherit}";
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body><h1><a href=\"/\">Kept</a></h1>{}{body}</body></html>",
        escape(title),
        if title == "Kept" { String::new() } else { format!("<h2>{}</h2>", escape(title)) },
    );
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
            ),
            (header::CACHE_CONTROL, "no-store"),
        ],
        html,
    )
        .into_response()
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Text as one segment of a path: what is not unreserved (RFC 3986) is percent-encoded.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_number_cannot_carry_markup_or_leave_its_path() {
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
        assert_eq!(path_segment("../a b?c"), "..%2Fa%20b%3Fc");
    }

    #[test]
    fn money_is_shown_with_its_currencys_decimals() {
        assert_eq!(amount(1_250, "EUR").to_string(), "12.50");
        assert_eq!(amount(1_250, "JPY").to_string(), "1250");
    }

    #[test]
    fn what_is_late_says_so() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        assert_eq!(due(now + std::time::Duration::from_secs(7_200), now), "in 2 h");
        assert_eq!(due(now - std::time::Duration::from_secs(300), now), "<b>5 min late</b>");
    }
}
