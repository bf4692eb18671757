//! Pages for people: where everything stands, lists of what waits and what is late, and one order in full.
//!
//! They show the read model and change nothing. Plain HTML from the server, without script, so that they open on any
//! bench computer and phone. They show personal data and ask nobody who they are: [`Guard`].

mod act;
mod guard;
mod html;
mod list;
mod order;
mod overview;
mod words;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use kept_schemas::{Micros, OrderId};
use kept_store::{
    Prefix, Session, StoreError,
    pages::{self, By, Overview},
    pg::Purpose,
};
use serde::Deserialize;
use tokio::sync::Mutex;

pub use act::COMMANDS;
pub use guard::Guard;
use html::{html, page};

/// The longest a page waits for the database.
const PATIENCE: Duration = Duration::from_secs(10);
/// The figures of the first page count whole tables. However many look, they are read every three seconds at most, and
/// where that takes long, no more than a twentieth of the time.
const FIGURES_AGE: Duration = Duration::from_secs(3);
const FIGURES_SHARE: u32 = 20;
/// Events of a timeline on one page.
const TIMELINE_PAGE: i64 = 500;

struct Console {
    read: Session,
    figures: Mutex<Option<Figures>>,
}

/// The figures, as of a moment.
#[derive(Clone)]
struct Figures {
    at: Micros,
    until: Instant,
    overview: Arc<Overview>,
}

/// The pages. `postgres`: the read model's server, as a URL that psql takes; it is connected to when a page is asked
/// for, and again whenever the connection broke.
pub fn routes(postgres: &str, prefix: &Prefix, guard: Guard) -> Router {
    let read = Session::new(postgres, prefix.read(), Purpose::Pages);
    let console = Arc::new(Console { read, figures: Mutex::default() });
    Router::new()
        .route("/", get(show_overview))
        .route("/orders", get(show_orders))
        .route("/waiting", get(show_waiting))
        .route("/late", get(show_late))
        .route("/orders/{id}", get(show_order))
        .route("/find", get(find))
        .route("/style.css", get(style))
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_reading)
        .with_state(console)
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .layer(middleware::map_response(html::secured))
}

async fn show_overview(State(console): State<Arc<Console>>) -> Response {
    match figures(&console).await {
        Ok(figures) => {
            let first = console.read.within(PATIENCE, async |client| pages::list(&client, &By::Held, 0).await).await;
            match first {
                Ok(first) => page("Overview", Some("/"), &overview::body(&figures.overview, figures.at, &first, now())),
                Err(error) => unavailable(&error),
            }
        }
        Err(error) => unavailable(&error),
    }
}

/// One reader at a time; whoever waits gets what it read.
async fn figures(console: &Console) -> Result<Figures, StoreError> {
    let mut kept = console.figures.lock().await;
    if let Some(figures) = &*kept
        && Instant::now() < figures.until
    {
        return Ok(figures.clone());
    }
    let (at, began) = (now(), Instant::now());
    let overview = Arc::new(console.read.within(PATIENCE, async |client| pages::overview(&client).await).await?);
    let until = Instant::now() + FIGURES_AGE.max(began.elapsed() * FIGURES_SHARE);
    Ok(kept.insert(Figures { at, until, overview }).clone())
}

/// What the address of a list can say; what it says wrong is left out.
#[derive(Deserialize, Default)]
struct Asked {
    status: Option<String>,
    reason: Option<String>,
    what: Option<String>,
    page: Option<String>,
    q: Option<String>,
    after: Option<String>,
}

impl Asked {
    /// From 0; in addresses from 1.
    fn page(&self) -> i64 {
        self.page.as_deref().and_then(|it| it.parse::<i64>().ok()).unwrap_or(1).clamp(1, 100_000) - 1
    }
}

async fn show_orders(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Response {
    let by = asked.status.clone().filter(|it| !it.is_empty()).map_or(By::All, By::Status);
    show_list(&console, by, &asked).await
}

async fn show_waiting(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Response {
    let by = asked.reason.clone().filter(|it| !it.is_empty()).map_or(By::Held, By::Reason);
    show_list(&console, by, &asked).await
}

async fn show_late(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Response {
    let by = if asked.what.as_deref() == Some("ship") { By::ShipByMissed } else { By::Overdue };
    show_list(&console, by, &asked).await
}

async fn show_list(console: &Console, by: By, asked: &Asked) -> Response {
    let number = asked.page();
    let figures = match figures(console).await {
        Ok(figures) => figures,
        Err(error) => return unavailable(&error),
    };
    match console.read.within(PATIENCE, async |client| pages::list(&client, &by, number).await).await {
        Ok(listed) => {
            let (title, nav) = list::title(&by);
            page(&title, Some(nav), &list::body(&by, &listed, &figures.overview, number, now()))
        }
        Err(error) => unavailable(&error),
    }
}

async fn show_order(
    State(console): State<Arc<Console>>,
    Path(asked): Path<String>,
    Query(more): Query<Asked>,
) -> Response {
    let Some(order_id) = OrderId::parse(&asked) else {
        return found(&console, &asked).await;
    };
    let after = more.after.as_deref().and_then(|it| it.parse().ok()).unwrap_or(0);
    let reading = console.read.within(PATIENCE, async |client| {
        let order = pages::order(&client, order_id).await?;
        Ok(order.zip(Some(pages::timeline(&client, order_id, after, TIMELINE_PAGE).await?)))
    });
    match reading.await {
        Ok(Some((order, timeline))) => {
            let more = i64::try_from(timeline.len()).is_ok_and(|count| count >= TIMELINE_PAGE);
            page(&format!("Order {}", order.number), None, &order::body(&order, &timeline, more, now()))
        }
        Ok(None) => not_found(&asked),
        Err(error) => unavailable(&error),
    }
}

async fn find(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Response {
    found(&console, asked.q.as_deref().unwrap_or_default().trim()).await
}

/// One order: its page. Several (a number in several shops): the choice.
async fn found(console: &Console, asked: &str) -> Response {
    if asked.is_empty() {
        return Redirect::to("/").into_response();
    }
    match console.read.within(PATIENCE, async |client| pages::find(&client, asked).await).await {
        Ok(found) => match &found[..] {
            [] => not_found(asked),
            [one] => Redirect::to(&format!("/orders/{}", one.order_id)).into_response(),
            several => page("Several orders have this number", None, &list::choice(several)),
        },
        Err(error) => unavailable(&error),
    }
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css")).into_response()
}

async fn nothing_here() -> Response {
    (
        StatusCode::NOT_FOUND,
        page("Nothing here", None, &html!("<p>There is no such page. <a href=\"/\">Overview</a></p>")),
    )
        .into_response()
}

async fn only_reading() -> Response {
    let body = html!("<p>These pages only show things. Use the command line or the API to change something.</p>");
    (StatusCode::METHOD_NOT_ALLOWED, page("Pages are for reading", None, &body)).into_response()
}

fn not_found(asked: &str) -> Response {
    let body = html!(
        "<p>No order has the id or number <b>{}</b>, or it has not been decided on yet: an order that came in seconds \
         ago may be on its way. Numbers are exact, with capitals and zeros as the channel writes them.</p>",
        asked
    );
    (StatusCode::NOT_FOUND, page("Not found", None, &body)).into_response()
}

fn unavailable(error: &StoreError) -> Response {
    tracing::warn!(%error, "the read model does not answer");
    let body = html!(
        "<p>The database of the read model does not answer. Orders are not affected by that. Try again shortly.</p>"
    );
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], page("Not available", None, &body)).into_response()
}

fn now() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
