//! What can be asked where. The router is made from [`ROUTES`]; a test holds `openapi.json` equal to it.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Path, Query, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use kept_schemas::reference::Account;
use serde::Deserialize;

use super::{
    auth, books,
    door::Door,
    follow_up::{self, About, target},
    keyed, orders,
    problem::Problem,
    trace, view,
};

/// A path and a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub path: &'static str,
    pub method: &'static str,
    does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    TakeOrders,
    Show,
    Tell,
    Cancel,
    Pay,
    Describe,
}

/// Everything this API answers to.
pub const ROUTES: &[Route] = &[
    Route { path: "/v1/orders", method: "post", does: Does::TakeOrders },
    Route { path: "/v1/orders/{id}", method: "get", does: Does::Show },
    Route { path: "/v1/orders/{id}/timeline", method: "get", does: Does::Tell },
    Route { path: "/v1/orders/{id}/cancellation", method: "post", does: Does::Cancel },
    Route { path: "/v1/orders/{id}/payments", method: "post", does: Does::Pay },
    Route { path: "/v1/openapi.json", method: "get", does: Does::Describe },
];

/// The API's description, OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// The API under `/v1`.
pub fn routes(door: Arc<Door>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let handler: MethodRouter<Arc<Door>> = match route.does {
            Does::TakeOrders => post(take_orders),
            Does::Show => get(show),
            Does::Tell => get(tell),
            Does::Cancel => post(cancel),
            Does::Pay => post(pay),
            Does::Describe => get(describe),
        };
        router = router.route(route.path, handler);
    }
    router
        .route("/v1", axum::routing::any(unknown))
        .route("/v1/{*rest}", axum::routing::any(unknown))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&door), dressed))
        .with_state(door)
}

#[derive(Deserialize, Default)]
struct Asked {
    shop: Option<String>,
    after: Option<i64>,
}

type Segment = Result<Path<String>, PathRejection>;

async fn take_orders(State(door): State<Arc<Door>>, request: Request) -> Response {
    admit(&door, request, Work::Orders).await.unwrap_or_else(IntoResponse::into_response)
}

async fn cancel(State(door): State<Arc<Door>>, path: Segment, request: Request) -> Response {
    let work = |path| Work::About(path, About::Cancellation);
    match segment(path) {
        Ok(path) => admit(&door, request, work(path)).await.unwrap_or_else(IntoResponse::into_response),
        Err(problem) => problem.into_response(),
    }
}

async fn pay(State(door): State<Arc<Door>>, path: Segment, request: Request) -> Response {
    match segment(path) {
        Ok(path) => {
            admit(&door, request, Work::About(path, About::Payment)).await.unwrap_or_else(IntoResponse::into_response)
        }
        Err(problem) => problem.into_response(),
    }
}

async fn show(State(door): State<Arc<Door>>, path: Segment, parts: Parts) -> Response {
    let showing = async {
        let _slot = door.slot()?;
        let account = account(&door, &parts.headers)?;
        let target = target(&account, &segment(path)?, query(&parts.uri)?.shop.as_deref())?;
        let found = follow_up::find(&door, &account, target.order_id).await?;
        view::order(target.order_id, &found)
            .ok_or_else(|| Problem::new("unknown-order", "no order of this shop has this id or number"))
    };
    showing.await.map_or_else(IntoResponse::into_response, IntoResponse::into_response)
}

async fn tell(State(door): State<Arc<Door>>, path: Segment, parts: Parts) -> Response {
    let telling = async {
        let _slot = door.slot()?;
        let account = account(&door, &parts.headers)?;
        let asked = query(&parts.uri)?;
        let target = target(&account, &segment(path)?, asked.shop.as_deref())?;
        follow_up::find(&door, &account, target.order_id).await?;
        let events =
            door.books.timeline(target.order_id, asked.after.unwrap_or(0)).await.map_err(|_| {
                Problem::new("not-available", "the timeline cannot be looked up now; try again shortly")
            })?;
        Ok::<_, Problem>(view::timeline(target.order_id, &events, books::TIMELINE_PAGE))
    };
    telling.await.map_or_else(IntoResponse::into_response, IntoResponse::into_response)
}

async fn describe() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn unknown() -> Problem {
    Problem::new("unknown-path", "GET /v1/openapi.json lists what there is")
}

async fn wrong_method(method: Method) -> Problem {
    Problem::new(
        "wrong-method",
        format!("{method} is not among the methods of this path; GET /v1/openapi.json lists them"),
    )
}

/// What a body is for.
enum Work {
    Orders,
    /// Of the order that the path names.
    About(String, About),
}

/// Takes a body in: who, how much, seen before, then the work. Nobody's body is read before their key was.
async fn admit(door: &Door, request: Request, work: Work) -> Result<Response, Problem> {
    let _slot = door.slot()?;
    let (parts, body) = request.into_parts();
    let account = account(door, &parts.headers)?;
    let target = match &work {
        Work::Orders => None,
        Work::About(asked, about) => Some((target(&account, asked, query(&parts.uri)?.shop.as_deref())?, *about)),
    };
    let key = keyed::key(&parts.headers)?;
    let trace = trace::parent(&parts.headers);
    let taken = door.take(&parts.headers, body).await?;
    let working = async {
        match target {
            None => orders::take(door, &account, &trace, &taken.bytes).await,
            Some((target, about)) => follow_up::take(door, &account, &trace, target, about, &taken.bytes).await,
        }
    };
    let mut response =
        keyed::once(&*door.books, &account, key, (&parts.method, &parts.uri, &taken.bytes), working).await;
    if let Ok(value) = HeaderValue::try_from(&trace) {
        response.headers_mut().insert("traceparent", value);
    }
    Ok(response)
}

fn account(door: &Door, headers: &HeaderMap) -> Result<Account, Problem> {
    auth::account(headers, &(door.reference)())
}

fn segment(path: Segment) -> Result<String, Problem> {
    path.map(|Path(text)| text).map_err(|_| Problem::new("bad-request", "the path is not UTF-8"))
}

fn query(uri: &Uri) -> Result<Asked, Problem> {
    Query::try_from_uri(uri)
        .map(|Query(asked)| asked)
        .map_err(|_| Problem::new("bad-request", "the query can have `shop` (a name) and `after` (a number)"))
}

/// Counted, and dressed: answers are nobody else's to keep or to guess at.
async fn dressed(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let from = Instant::now();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if response.status() == StatusCode::SERVICE_UNAVAILABLE && !response.headers().contains_key(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    door.counters.answered(response.status().as_u16(), from);
    response
}
