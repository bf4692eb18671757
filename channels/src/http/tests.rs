//! Every answer of the door, without a server: the router, a broker and books in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use kept_processors::reference::Reference;
use kept_runtime::{
    counters::Http,
    log::{LogError, Outgoing},
};
use kept_schemas::{
    Headers, OrderId, Topic,
    codec::offline,
    ids::sha256_hex,
    inbound::{Inbound, InboundKind},
    reference::Account,
};
use kept_store::{accepted::AtTheDoor, answers::Known, pages};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    books::{Away, Books, Boxed, Found, Keyed},
    door::{Door, Limits, Outbox},
    json_schema::faults,
    problem,
    routes::{OPENAPI, ROUTES, routes},
};

/// A broker in memory.
#[derive(Default)]
struct Broker {
    stored: Mutex<Vec<Outgoing>>,
    mood: Mutex<Mood>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Mood {
    #[default]
    Fine,
    Down,
    Silent,
}

impl Outbox for Broker {
    fn send(&self, outgoing: Vec<Outgoing>) -> Boxed<'_, Result<(), LogError>> {
        Box::pin(async move {
            let mood = *self.mood.lock().expect("no panic");
            match mood {
                Mood::Fine => {
                    self.stored.lock().expect("no panic").extend(outgoing);
                    Ok(())
                }
                Mood::Down => Err(LogError::Retry("no broker".into())),
                Mood::Silent => std::future::pending().await,
            }
        })
    }
}

type Kept = (String, Option<(u16, String)>);

/// Books in memory. `away`: the database does not answer.
#[derive(Default)]
struct Memory {
    /// By account and key: the request's hash, and the answer once there is one.
    keys: Mutex<BTreeMap<(String, String), Kept>>,
    accepted: Mutex<BTreeMap<OrderId, AtTheDoor>>,
    here: Mutex<BTreeMap<OrderId, pages::OrderFacts>>,
    away: Mutex<bool>,
    full: Mutex<bool>,
}

impl Memory {
    fn there<T>(&self, answer: T) -> Result<T, Away> {
        if *self.away.lock().expect("no panic") { Err(Away) } else { Ok(answer) }
    }
}

impl Books for Memory {
    fn begin<'a>(&'a self, request: &'a Keyed) -> Boxed<'a, Result<Known, Away>> {
        Box::pin(async move {
            self.there(())?;
            let mut keys = self.keys.lock().expect("no panic");
            let key = (request.account.clone(), request.key.clone());
            Ok(match keys.get(&key) {
                None => {
                    keys.insert(key, (request.hash.clone(), None));
                    Known::New
                }
                Some((hash, _)) if *hash != request.hash => Known::Other,
                Some((_, None)) => Known::Unfinished,
                Some((_, Some((status, answer)))) => Known::Answered(*status, answer.clone()),
            })
        })
    }

    fn finish<'a>(&'a self, request: &'a Keyed, status: u16, answer: &'a str) -> Boxed<'a, Result<(), Away>> {
        Box::pin(async move {
            self.there(())?;
            let key = (request.account.clone(), request.key.clone());
            self.keys.lock().expect("no panic").insert(key, (request.hash.clone(), Some((status, answer.into()))));
            Ok(())
        })
    }

    fn has_room(&self) -> bool {
        !*self.full.lock().expect("no panic")
    }

    fn accepted(&self, orders: Vec<AtTheDoor>) -> Boxed<'_, ()> {
        Box::pin(async move {
            self.accepted.lock().expect("no panic").extend(orders.into_iter().map(|it| (it.order_id, it)));
        })
    }

    fn find(&self, order_id: OrderId) -> Boxed<'_, Result<Found, Away>> {
        Box::pin(async move {
            self.there(())?;
            if let Some(facts) = self.here.lock().expect("no panic").get(&order_id) {
                return Ok(Found::Here(Box::new(facts.clone())));
            }
            let accepted = self.accepted.lock().expect("no panic").get(&order_id).cloned();
            Ok(accepted.map_or(Found::Unknown, Found::AtTheDoor))
        })
    }

    fn timeline(&self, _: OrderId, after: i64) -> Boxed<'_, Result<Vec<pages::Told>, Away>> {
        Box::pin(async move {
            let told = |seq| pages::Told {
                seq,
                event: "orders.accepted".into(),
                detail: "Accepted".into(),
                ..Default::default()
            };
            self.there((after + 1..=2).map(told).collect())
        })
    }
}

struct World {
    broker: Arc<Broker>,
    memory: Arc<Memory>,
    counters: Arc<Http>,
    router: Router,
}

const SHOP: &str = "shop.example";

fn world() -> World {
    world_with(Limits {
        store_time: Duration::from_millis(50),
        body_time: Duration::from_millis(100),
        ..Limits::default()
    })
}

fn world_with(limits: Limits) -> World {
    let account = |id: &str, shop: &str, keys: &[&str], active| {
        let account = Account {
            account_id: id.into(),
            channel: "storefront".into(),
            shop: shop.into(),
            key_hashes: keys.iter().map(|key| sha256_hex(key.as_bytes())).collect(),
            active,
        };
        (id.to_owned(), account)
    };
    let accounts = [
        account("main", SHOP, &["key"], true),
        account("other", "other.example", &["other"], true),
        account("off", SHOP, &["off"], false),
    ];
    let reference = Arc::new(Reference { accounts: accounts.into(), ..Default::default() });
    let (broker, memory) = (Arc::new(Broker::default()), Arc::new(Memory::default()));
    let codec = Arc::new(offline());
    let counters: Arc<Http> = Arc::default();
    let door = Door::new(
        Box::new(move || Arc::clone(&reference)),
        Box::new(move || Arc::clone(&codec)),
        Arc::clone(&broker) as _,
        Arc::clone(&memory) as _,
        limits,
        Arc::clone(&counters),
    );
    World { broker, memory, counters, router: routes(Arc::new(door)) }
}

/// A request: method, path, key, further headers, body.
fn request(method: &str, path: &str, key: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    if !headers.iter().any(|it| it.0 == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

struct Got {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Value,
}

impl Got {
    /// The kind of a problem document.
    fn kind(&self) -> &str {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.body["status"], self.status);
        self.body["type"].as_str().and_then(|it| it.strip_prefix(problem::TYPE)).expect("a problem's type")
    }

    fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|it| it["pointer"].as_str().expect("a pointer")).collect()
    }
}

impl World {
    async fn ask(&self, request: Request<Body>) -> Got {
        let response: Response<Body> = self.router.clone().oneshot(request).await.expect("a router answers");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        Got { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Got {
        self.ask(request("POST", path, "key", &[], body)).await
    }

    async fn get(&self, path: &str) -> Got {
        self.ask(request("GET", path, "key", &[], Body::empty())).await
    }

    /// What is in `channels.inbound`, with its headers.
    fn inbound(&self) -> Vec<(Inbound, Headers, String)> {
        let stored = self.broker.stored.lock().expect("no panic");
        let read = |it: &Outgoing| {
            assert_eq!(it.topic, Topic::ChannelsInbound);
            let value = offline().decode(&it.value).expect("readable").expect("a known schema");
            (value, it.headers.clone(), String::from_utf8(it.key.clone()).expect("text"))
        };
        stored.iter().map(read).collect()
    }

    fn mood(&self, mood: Mood) {
        *self.broker.mood.lock().expect("no panic") = mood;
    }
}

fn order(number: &str) -> Value {
    json!({
        "order_number": number, "placed_at": "2026-11-25T10:00:00Z", "currency": "EUR",
        "ship_to": {"name": "Secret Person", "street": "Straat", "house_number": "1", "postcode": "1234 AB",
                    "city": "Utrecht", "country": "NL"},
        "lines": [{"sku": "A", "quantity": 2, "unit_price": "12.50"}],
        "payment": {"method": "online", "captured": "25.00"}
    })
}

fn with(mut order: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match order.pointer_mut(parent).expect("the parent is there") {
        Value::Array(list) => list[name.parse::<usize>().expect("an index")] = value,
        Value::Object(map) => drop(map.insert(name.to_owned(), value)),
        _ => panic!("{parent} holds nothing"),
    }
    order
}

fn without(mut order: Value, name: &str) -> Value {
    order.as_object_mut().expect("an object").remove(name).expect("the field is there");
    order
}

#[tokio::test]
async fn an_order_is_accepted_once_its_body_is_stored_exactly_as_it_came() {
    let world = world();
    let body = serde_json::to_string_pretty(&order("1001")).expect("JSON");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let got = world.ask(request("POST", "/v1/orders", "key", &[("traceparent", trace)], body.clone())).await;
    let id = OrderId::of(SHOP, "1001");
    assert_eq!(got.status, 202);
    assert_eq!(got.headers[header::LOCATION], format!("/v1/orders/{id}"));
    assert_eq!(got.body, json!({"order_id": id, "order_number": "1001", "status": "accepted"}));
    assert_eq!(got.headers["traceparent"], trace);
    let [(inbound, headers, key)] = &world.inbound()[..] else { panic!("one record") };
    assert_eq!(inbound.body, body.as_bytes());
    assert_eq!(
        (inbound.account.as_str(), inbound.shop.as_str(), inbound.external_id.as_str(), inbound.kind, &*inbound.format),
        ("main", SHOP, "1001", InboundKind::Order, "kept.order.v1")
    );
    assert!(inbound.received_at.0 > 1_700_000_000_000_000);
    assert_eq!(*key, id.to_string());
    assert_eq!(headers.traceparent.as_deref(), Some(trace));
    assert!(headers.event_id.is_some());
}

#[tokio::test]
async fn fields_that_are_not_part_of_a_form_are_told_by_name() {
    let world = world();
    let strange = |number: &str| {
        let mut it = with(order(number), "/lines/0/quantity", json!(3));
        it["gift"] = json!("Jane");
        it["lines"][0]["colour"] = json!("red");
        it
    };
    let got = world.post("/v1/orders", strange("1").to_string()).await;
    assert_eq!((got.status, &got.body["not_understood"]), (202, &json!(["/gift", "/lines/0/colour"])));
    assert_valid(&got.body, schema("Accepted"));
    let got = world.post("/v1/orders", json!([order("2"), strange("3")]).to_string()).await;
    assert_eq!(got.body["orders"][0].get("not_understood"), None);
    assert_eq!(got.body["orders"][1]["not_understood"], json!(["/gift", "/lines/0/colour"]));
    assert_valid(&got.body, schema("Batch"));
    let path = format!("/v1/orders/1/cancellation?shop={SHOP}");
    let got = world.post(&path, json!({"who": "Jane"}).to_string()).await;
    assert_eq!((got.status, &got.body["not_understood"]), (202, &json!(["/who"])));
    assert_valid(&got.body, schema("Taken"));
    let many: serde_json::Map<String, Value> = (0..60).map(|it| (format!("x{it}"), json!(it))).collect();
    let got = world.post(&path, Value::Object(many).to_string()).await;
    assert_eq!(got.body["not_understood"].as_array().map(Vec::len), Some(21));
    assert_valid(&got.body, schema("Taken"));
}

#[tokio::test]
async fn the_same_body_is_the_same_event_and_a_changed_one_is_another_of_the_same_order() {
    let world = world();
    for body in [order("1"), order("1"), with(order("1"), "/lines/0/quantity", json!(3))] {
        assert_eq!(world.post("/v1/orders", body.to_string()).await.status, 202);
    }
    let events: Vec<_> = world.inbound().iter().map(|it| (it.1.event_id, it.2.clone())).collect();
    assert_eq!(events[0], events[1]);
    assert_ne!(events[0].0, events[2].0);
    assert_eq!(events[0].1, events[2].1);
}

#[tokio::test]
async fn what_cannot_be_an_order_is_refused_with_its_place_and_nothing_is_stored() {
    let many = |count| Value::Array(vec![json!({"sku": "A", "quantity": 1, "unit_price": "1"}); count]);
    let cases: Vec<(&str, String, u16, &str, &[&str])> = vec![
        ("no bytes", String::new(), 400, "not-json", &[]),
        ("broken JSON", "{\"order_number\": \"Secret".into(), 400, "not-json", &[]),
        ("two values", "{} {}".into(), 400, "not-json", &[]),
        ("not UTF-8 escape", "\"\\ud800\"".into(), 400, "not-an-order", &[""]),
        ("a number", "17".into(), 400, "not-an-order", &[""]),
        ("null", "null".into(), 400, "not-an-order", &[""]),
        ("orders is no list", "{\"orders\": 1}".into(), 400, "not-an-order", &["/orders"]),
        ("an empty batch", "[]".into(), 400, "not-an-order", &[]),
        ("nested too deep", "[".repeat(200) + &"]".repeat(200), 400, "not-an-order", &["/0"]),
        ("no number", without(order("1"), "order_number").to_string(), 400, "not-an-order", &["/order_number"]),
        (
            "an empty number",
            with(order("1"), "/order_number", json!("")).to_string(),
            400,
            "not-an-order",
            &["/order_number"],
        ),
        (
            "a number with a control character",
            with(order("1"), "/order_number", json!("1\u{0}2")).to_string(),
            400,
            "not-an-order",
            &["/order_number"],
        ),
        (
            "a number of 10,000 characters",
            with(order("1"), "/order_number", json!("x".repeat(10_000))).to_string(),
            400,
            "not-an-order",
            &["/order_number"],
        ),
        (
            "a number that is a number",
            with(order("1"), "/order_number", json!(1001)).to_string(),
            400,
            "not-an-order",
            &["/order_number"],
        ),
        (
            "quantity as words",
            with(order("1"), "/lines/0/quantity", json!("Secret")).to_string(),
            400,
            "not-an-order",
            &["/lines/0/quantity"],
        ),
        (
            "a quantity beyond 64 bits",
            with(order("1"), "/lines/0/quantity", json!(1e30)).to_string(),
            400,
            "not-an-order",
            &["/lines/0/quantity"],
        ),
        (
            "a price beyond 64 bits",
            with(order("1"), "/lines/0/unit_price", json!("99999999999999999999")).to_string(),
            400,
            "not-an-order",
            &["/lines/0/unit_price"],
        ),
        ("lines is no list", with(order("1"), "/lines", json!({})).to_string(), 400, "not-an-order", &["/lines"]),
        ("10,000 lines", with(order("1"), "/lines", many(10_000)).to_string(), 400, "not-an-order", &["/lines"]),
        (
            "a time that is none",
            with(order("1"), "/placed_at", json!("yesterday")).to_string(),
            400,
            "not-an-order",
            &["/placed_at"],
        ),
        (
            "an address that is a list",
            with(order("1"), "/ship_to", json!(["Secret"])).to_string(),
            400,
            "not-an-order",
            &["/ship_to"],
        ),
    ];
    let world = world();
    for (name, body, status, kind, pointers) in cases {
        let got = world.post("/v1/orders", body).await;
        assert_eq!((got.status, got.kind()), (status, kind), "{name}: {}", got.body);
        assert_eq!(got.pointers(), pointers, "{name}: {}", got.body);
        assert!(!got.body.to_string().contains("Secret"), "{name} echoes what came: {}", got.body);
    }
    assert_eq!(world.inbound(), []);
}

#[tokio::test]
async fn every_fault_of_an_order_is_named_at_once() {
    let faulty = with(with(order("1"), "/lines/0/quantity", json!("x")), "/placed_at", json!(5));
    let got = world().post("/v1/orders", faulty.to_string()).await;
    assert_eq!(got.status, 400);
    let mut pointers = got.pointers();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/lines/0/quantity", "/placed_at"]);
}

#[tokio::test]
async fn an_order_with_a_business_fault_is_accepted_for_it_will_be_held() {
    let world = world();
    let cases = [
        ("an unknown currency", with(order("1"), "/currency", json!("XXX"))),
        ("a negative quantity", with(order("2"), "/lines/0/quantity", json!(-1))),
        ("a negative price", with(order("3"), "/lines/0/unit_price", json!("-12.50"))),
        ("a total that does not add up", with(order("4"), "/total", json!("1.00"))),
        ("no lines", with(order("5"), "/lines", json!([]))),
        ("an address of nothing", with(order("6"), "/ship_to", json!({}))),
        ("what we do not know", with(order("7"), "/gift_wrap", json!({"paper": "red"}))),
    ];
    let count = cases.len();
    for (name, body) in cases {
        let got = world.post("/v1/orders", body.to_string()).await;
        assert_eq!(got.status, 202, "{name}: {}", got.body);
    }
    assert_eq!(world.inbound().len(), count);
}

#[tokio::test]
async fn a_batch_is_one_record_and_one_answer_an_order() {
    let world = world();
    let bad = with(order("3"), "/lines/0/quantity", json!("x"));
    for (body, prefix) in
        [(json!([order("1"), order("2"), bad]), ""), (json!({"orders": [order("1"), order("2"), bad]}), "/orders")]
    {
        let got = world.post("/v1/orders", body.to_string()).await;
        assert_eq!(got.status, 207, "{}", got.body);
        assert_eq!((&got.body["accepted"], &got.body["refused"]), (&json!(2), &json!(1)));
        assert_eq!(got.body["orders"][1]["order_id"], json!(OrderId::of(SHOP, "2")));
        assert_eq!(got.body["orders"][2]["status"], "refused");
        assert_eq!(got.body["orders"][2]["errors"][0]["pointer"], format!("{prefix}/2/lines/0/quantity"));
    }
    let records = world.inbound();
    let numbers: Vec<&str> = records.iter().map(|it| it.0.external_id.as_str()).collect();
    assert_eq!(numbers, ["1", "2", "1", "2"]);
    assert_eq!(records[0].0.body, order("1").to_string().as_bytes());
    let all = world.post("/v1/orders", json!([order("8"), order("9")]).to_string()).await;
    assert_eq!((all.status, all.body["accepted"].as_i64()), (202, Some(2)));
    let none = world.post("/v1/orders", json!([{}, 5]).to_string()).await;
    assert_eq!((none.status, none.kind()), (400, "not-an-order"));
    assert_eq!(world.inbound().len(), 6);
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((counted(&world.counters.accepted), counted(&world.counters.refused)), (6, 4));
    let answers: Vec<(u16, u64)> = world.counters.answers().filter(|it| it.1 > 0).collect();
    assert_eq!(answers, [(202, 1), (207, 2), (400, 1)]);
}

#[tokio::test]
async fn size_is_bounded_for_an_order_a_batch_and_a_request() {
    let world = world();
    let line = json!({"sku": "A", "quantity": 1, "unit_price": "1", "description": "x".repeat(2_000)});
    let many = |lines: usize| with(order("1"), "/lines", json!(vec![line.clone(); lines])).to_string();
    let too_many = vec![order("1"); 1_001];
    let cases: Vec<(&str, String, u16)> = vec![
        ("an order of 700 kB", many(340), 202),
        ("an order of 900 kB", many(430), 413),
        ("1,001 orders", json!(too_many).to_string(), 413),
        ("nine megabytes", many(4_300), 413),
    ];
    for (name, body, status) in cases {
        let got = world.post("/v1/orders", body).await;
        assert_eq!(got.status, status, "{name}: {}", got.body);
    }
    let batch = format!("[{},{}]", many(430), order("2"));
    let got = world.post("/v1/orders", batch).await;
    assert_eq!((got.status, &got.body["orders"][0]["errors"][0]["pointer"]), (207, &json!("/0")));
}

/// A body that counts how much of it was asked for.
struct Endless {
    given: Arc<Mutex<u64>>,
    stated: Option<u64>,
}

impl axum::body::HttpBody for Endless {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        let chunk = bytes::Bytes::from(vec![b' '; 100_000]);
        *self.given.lock().expect("no panic") += chunk.len() as u64;
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(chunk))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.stated.map(hyper::body::SizeHint::with_exact).unwrap_or_default()
    }
}

#[tokio::test]
async fn fifty_megabytes_are_refused_without_reading_them() {
    for (stated, most) in [(Some(50_000_000), 0), (None, 8_200_000)] {
        let given = Arc::new(Mutex::new(0));
        let body = Body::new(Endless { given: Arc::clone(&given), stated });
        let got = world().post("/v1/orders", body).await;
        assert_eq!((got.status, got.kind()), (413, "too-large"));
        let given = *given.lock().expect("no panic");
        assert!(given <= most, "{given} bytes were read");
    }
}

#[tokio::test]
async fn nobodys_body_is_read_before_their_key_was() {
    for (key, status) in [("", 401), ("wrong", 401), ("off", 403)] {
        let given = Arc::new(Mutex::new(0));
        let body = Body::new(Endless { given: Arc::clone(&given), stated: None });
        let got = world().ask(request("POST", "/v1/orders", key, &[], body)).await;
        assert_eq!(got.status, status);
        assert_eq!(got.headers.contains_key(header::WWW_AUTHENTICATE), status == 401);
        assert_eq!(*given.lock().expect("no panic"), 0);
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up_on() {
    struct Never;
    impl axum::body::HttpBody for Never {
        type Data = bytes::Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    let got = world().post("/v1/orders", Body::new(Never)).await;
    assert_eq!((got.status, got.kind()), (408, "too-slow"));
}

#[tokio::test]
async fn only_json_in_utf_8_is_taken() {
    let world = world();
    for (kind, status) in [
        ("application/json", 202),
        ("application/json; charset=UTF-8", 202),
        ("application/vnd.shop+json", 202),
        ("application/json; charset=latin1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ] {
        let got =
            world.ask(request("POST", "/v1/orders", "key", &[("content-type", kind)], order("1").to_string())).await;
        assert_eq!(got.status, status, "{kind}");
    }
}

#[tokio::test]
async fn nothing_is_accepted_while_the_broker_is_down_or_silent() {
    let world = world();
    for mood in [Mood::Down, Mood::Silent] {
        world.mood(mood);
        for (path, body) in [
            ("/v1/orders".to_owned(), order("1")),
            ("/v1/orders".to_owned(), json!([order("1"), order("2")])),
            (format!("/v1/orders/1/cancellation?shop={SHOP}"), json!({})),
        ] {
            let got = world.post(&path, body.to_string()).await;
            assert_eq!((got.status, got.kind()), (503, "not-stored"));
            assert!(got.headers.contains_key(header::RETRY_AFTER));
        }
    }
    assert_eq!(*world.memory.accepted.lock().expect("no panic"), BTreeMap::new());
    world.mood(Mood::Fine);
    assert_eq!(world.post("/v1/orders", order("1").to_string()).await.status, 202);
}

#[tokio::test]
async fn more_at_once_than_can_be_worked_on_is_turned_away() {
    let limits = Limits { at_once: 1, store_time: Duration::from_millis(200), ..Limits::default() };
    let world = world_with(limits);
    world.mood(Mood::Silent);
    let (first, second) = tokio::join!(
        world.post("/v1/orders", order("1").to_string()),
        world.post("/v1/orders", order("2").to_string())
    );
    assert_eq!((first.status, second.status), (503, 503));
    assert_eq!((first.kind(), second.kind()), ("not-stored", "busy"));
    world.mood(Mood::Fine);
    assert_eq!(world.post("/v1/orders", order("1").to_string()).await.status, 202);
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_together() {
    let limits = Limits { bytes_at_once: 8_100_000, body_time: Duration::from_millis(200), ..Limits::default() };
    let world = world_with(limits);
    // A body of unknown size counts as the largest.
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    struct Held(tokio::sync::oneshot::Receiver<()>);
    impl axum::body::HttpBody for Held {
        type Data = bytes::Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::future::Future::poll(std::pin::Pin::new(&mut self.0), context).map(|_| None)
        }
    }
    let body =
        with(order("1"), "/attributes", json!({"note": "x".repeat(2_000), "more": vec!["x"; 50_000]})).to_string();
    let second = async {
        let got = world.post("/v1/orders", body).await;
        drop(sender);
        got
    };
    let (first, second) = tokio::join!(world.post("/v1/orders", Body::new(Held(receiver))), second);
    assert_eq!((first.status, first.kind()), (400, "not-json"));
    assert_eq!((second.status, second.kind()), (503, "busy"));
}

#[tokio::test]
async fn an_order_just_accepted_is_there_and_another_shops_is_not() {
    let world = world();
    assert_eq!(world.post("/v1/orders", order("A/1").to_string()).await.status, 202);
    let id = OrderId::of(SHOP, "A/1");
    let by_number = format!("/v1/orders/A%2F1?shop={SHOP}");
    for path in [format!("/v1/orders/{id}"), by_number.clone()] {
        let got = world.get(&path).await;
        assert_eq!(got.status, 200, "{path}: {}", got.body);
        assert_eq!(got.body, json!({"order_id": id, "order_number": "A/1", "shop": SHOP, "status": "accepted"}));
    }
    let other = |path: String| world.ask(request("GET", &path, "other", &[], Body::empty()));
    for (path, status, kind) in [(format!("/v1/orders/{id}"), 404, "unknown-order"), (by_number, 403, "other-shop")] {
        let got = other(path).await;
        assert_eq!((got.status, got.kind()), (status, kind));
    }
    for path in
        [format!("/v1/orders/{}", OrderId::of(SHOP, "2")), "/v1/orders/A-1".into(), format!("/v1/orders/2?shop={SHOP}")]
    {
        let got = world.get(&path).await;
        assert_eq!((got.status, got.kind()), (404, "unknown-order"), "{path}");
    }
    *world.memory.away.lock().expect("no panic") = true;
    let got = world.get(&format!("/v1/orders/{id}")).await;
    assert_eq!((got.status, got.kind()), (503, "not-available"));
}

fn facts(number: &str) -> pages::OrderFacts {
    pages::OrderFacts {
        order_id: OrderId::of(SHOP, number),
        number: number.into(),
        shop: SHOP.into(),
        status: "held".into(),
        currency: "EUR".into(),
        total_minor: 2_500,
        placed_at: Some(kept_schemas::Micros(1_764_064_800_000_000)),
        payment_method: "online".into(),
        person: pages::Person { name: "Secret Person".into(), ..Default::default() },
        lines: vec![pages::Line {
            line_no: 1,
            sku: "A".into(),
            quantity: 2,
            unit_price: "12.50".into(),
            ..Default::default()
        }],
        holds: vec![pages::Hold { reason: "out_of_stock".into(), detail: "1 missing".into(), ..Default::default() }],
        shipments: vec![pages::Shipment {
            shipment_id: "s".into(),
            status: "despatched".into(),
            simulated: true,
            lines: vec![(1, 1)],
            parcels: vec![pages::Parcel { status: "despatched".into(), ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn an_order_of_the_read_model_is_shown_without_the_person() {
    let world = world();
    let facts = facts("1");
    let id = facts.order_id;
    world.memory.here.lock().expect("no panic").insert(id, facts);
    let got = world.get(&format!("/v1/orders/{id}")).await;
    assert_eq!(got.status, 200);
    assert_eq!((&got.body["status"], &got.body["total"]), (&json!("held"), &json!("25.00")));
    assert_eq!(got.body["placed_at"], "2025-11-25T10:00:00Z");
    assert_eq!(got.body["holds"][0]["reason"], "out_of_stock");
    assert_eq!(got.body["shipments"][0]["simulated"], true);
    assert!(!got.body.to_string().contains("Secret"));
    assert_valid(&got.body, schema("OrderView"));
    let timeline = world.get(&format!("/v1/orders/{id}/timeline?after=1")).await;
    assert_eq!((timeline.status, timeline.body["events"].as_array().map(Vec::len)), (200, Some(1)));
    assert_valid(&timeline.body, schema("Timeline"));
    let nonsense = world.get(&format!("/v1/orders/{id}/timeline?after=x")).await;
    assert_eq!((nonsense.status, nonsense.kind()), (400, "bad-request"));
}

#[tokio::test]
async fn a_cancellation_and_a_payment_reach_their_order() {
    let world = world();
    world.post("/v1/orders", order("1").to_string()).await;
    let id = OrderId::of(SHOP, "1");
    let payment = json!({"payment_id": "p", "kind": "captured", "amount": "25.00", "currency": "EUR", "at": "2026-11-25T10:05:00Z"});
    let cases = [
        (format!("/v1/orders/{id}/cancellation"), json!({"reason": "changed"}), InboundKind::Cancellation),
        (
            format!("/v1/orders/1/cancellation?shop={SHOP}"),
            json!({"lines": [{"line_no": 1, "quantity": 1}]}),
            InboundKind::Cancellation,
        ),
        (format!("/v1/orders/{id}/payments"), payment.clone(), InboundKind::Payment),
        // Before its order: it waits for it.
        (format!("/v1/orders/2/payments?shop={SHOP}"), payment.clone(), InboundKind::Payment),
    ];
    for (path, body, kind) in cases {
        let got = world.post(&path, body.to_string()).await;
        assert_eq!(got.status, 202, "{path}: {}", got.body);
        let (inbound, _, key) = world.inbound().pop().expect("a record");
        assert_eq!((inbound.kind, inbound.body), (kind, body.to_string().into_bytes()));
        assert_eq!(key, OrderId::of(SHOP, &inbound.external_id).to_string());
        assert_eq!(got.headers[header::LOCATION], format!("/v1/orders/{key}"));
    }
    let unknown = OrderId::of(SHOP, "nobody's");
    let refused = [
        (format!("/v1/orders/{unknown}/payments"), payment.clone(), 404, "unknown-order"),
        ("/v1/orders/1/payments".into(), payment.clone(), 404, "unknown-order"),
        ("/v1/orders/1/payments?shop=other.example".into(), payment.clone(), 403, "other-shop"),
        (format!("/v1/orders/{id}/payments"), without(payment.clone(), "amount"), 400, "not-a-payment"),
        (format!("/v1/orders/{id}/payments"), with(payment.clone(), "/kind", json!("wished")), 400, "not-a-payment"),
        (format!("/v1/orders/{id}/payments"), with(payment, "/amount", json!("-1")), 400, "not-a-payment"),
        (format!("/v1/orders/{id}/cancellation"), json!({"lines": "all"}), 400, "not-a-cancellation"),
        (format!("/v1/orders/{id}/cancellation"), json!([]), 400, "not-a-cancellation"),
    ];
    let before = world.inbound().len();
    for (path, body, status, kind) in refused {
        let got = world.post(&path, body.to_string()).await;
        assert_eq!((got.status, got.kind()), (status, kind), "{path} {body}: {}", got.body);
    }
    assert_eq!(world.inbound().len(), before);
}

#[tokio::test]
async fn a_cancellation_whose_order_was_not_there_yet_reaches_it_under_the_same_key_once_it_is() {
    let world = world();
    let path = format!("/v1/orders/{}/cancellation", OrderId::of(SHOP, "1"));
    let ask = || world.ask(request("POST", &path, "key", &[("idempotency-key", "k")], "{}"));
    assert_eq!(ask().await.status, 404);
    world.post("/v1/orders", order("1").to_string()).await;
    assert_eq!(ask().await.status, 202);
    let again = ask().await;
    assert_eq!(again.status, 202);
    assert_eq!(again.headers["idempotency-replayed"], "true");
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_and_another_body_none() {
    let world = world();
    let ask = |key: &'static str, body: Value| {
        world.ask(request("POST", "/v1/orders", "key", &[("idempotency-key", key)], body.to_string()))
    };
    let first = ask("k1", order("1")).await;
    let again = ask("k1", order("1")).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.body, again.body);
    assert_eq!(first.headers[header::LOCATION], again.headers[header::LOCATION]);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(world.inbound().len(), 1);
    let other = ask("k1", order("2")).await;
    assert_eq!((other.status, other.kind()), (422, "key-reused"));
    // Another account's key of the same name is another key.
    let theirs =
        world.ask(request("POST", "/v1/orders", "other", &[("idempotency-key", "k1")], order("2").to_string())).await;
    assert_eq!(theirs.status, 202);
    // A refusal is an answer, too.
    let refused = ask("k2", json!({})).await;
    let refused_again = ask("k2", json!({})).await;
    assert_eq!((refused.status, &refused.body), (400, &refused_again.body));
    assert_eq!(refused_again.headers["idempotency-replayed"], "true");
    assert_eq!(refused_again.headers[header::CONTENT_TYPE], "application/problem+json");
}

#[tokio::test]
async fn a_request_that_was_not_finished_is_worked_on_again() {
    let world = world();
    let ask = || world.ask(request("POST", "/v1/orders", "key", &[("idempotency-key", "k")], order("1").to_string()));
    world.mood(Mood::Down);
    assert_eq!(ask().await.status, 503);
    world.mood(Mood::Fine);
    let got = ask().await;
    assert_eq!(got.status, 202);
    assert!(!got.headers.contains_key("idempotency-replayed"));
    assert_eq!(ask().await.headers["idempotency-replayed"], "true");
}

#[tokio::test]
async fn an_idempotency_key_is_bounded_and_never_ignored() {
    let world = world();
    let long = "x".repeat(201);
    for key in ["", "a b", long.as_str()] {
        let got =
            world.ask(request("POST", "/v1/orders", "key", &[("idempotency-key", key)], order("1").to_string())).await;
        assert_eq!((got.status, got.kind()), (400, "bad-idempotency-key"), "{key}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(world.ask(request("POST", "/v1/orders", "key", &twice, order("1").to_string())).await.status, 400);
    *world.memory.away.lock().expect("no panic") = true;
    let got =
        world.ask(request("POST", "/v1/orders", "key", &[("idempotency-key", "k")], order("1").to_string())).await;
    assert_eq!((got.status, got.kind()), (503, "not-available"));
    assert_eq!(world.inbound(), []);
    // Without a key the door stays open while the database is away.
    assert_eq!(world.post("/v1/orders", order("1").to_string()).await.status, 202);
}

#[tokio::test]
async fn no_more_is_accepted_than_can_be_written_down() {
    let world = world();
    *world.memory.full.lock().expect("no panic") = true;
    let got = world.post("/v1/orders", order("1").to_string()).await;
    assert_eq!((got.status, got.kind()), (503, "busy"));
    assert_eq!(world.inbound(), []);
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let world = world();
    for (method, path, status, kind) in [
        ("GET", "/v1", 404, "unknown-path"),
        ("GET", "/v1/nothing", 404, "unknown-path"),
        ("POST", "/v1/orders/x/y/z", 404, "unknown-path"),
        ("GET", "/v1/orders", 405, "wrong-method"),
        ("DELETE", "/v1/orders/1", 405, "wrong-method"),
        ("GET", "/v1/orders/%FF", 400, "bad-request"),
    ] {
        let got = world.ask(request(method, path, "key", &[], Body::empty())).await;
        assert_eq!((got.status, got.kind()), (status, kind), "{method} {path}");
        assert_eq!(got.headers.contains_key(header::ALLOW), status == 405, "{method} {path}");
    }
}

// ---- The description is true -------------------------------------------------------------------------------------

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("the description is JSON")
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

#[test]
fn the_description_and_the_routes_list_the_same_paths_and_methods() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            assert!(METHODS.contains(&method.as_str()), "{method} of {path} is no method");
            described.push((path.clone(), method.clone()));
        }
    }
    let mut routed: Vec<(String, String)> = ROUTES.iter().map(|it| (it.path.into(), it.method.into())).collect();
    described.sort();
    routed.sort();
    assert_eq!(described, routed);
}

#[tokio::test]
async fn the_router_answers_to_what_is_described_and_to_nothing_else() {
    let world = world();
    let document = document();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in METHODS {
            let concrete = path.replace("{id}", "1");
            let got = world.ask(request(&method.to_uppercase(), &concrete, "", &[], Body::empty())).await;
            // HEAD is GET without a body.
            let described = operations.get(if method == "head" { "get" } else { method }).is_some();
            assert_eq!(got.status != 405, described, "{method} {path} gave {}", got.status);
            let open = operations[if method == "head" { "get" } else { method }]["security"] == json!([]);
            assert!(!described || open || got.status == 401, "{method} {path} without a key gave {}", got.status);
        }
    }
}

#[test]
fn every_kind_of_problem_is_described() {
    let document = document();
    let described = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].clone();
    let ours: Vec<String> = problem::KINDS.iter().map(|it| format!("{}{}", problem::TYPE, it.0)).collect();
    assert_eq!(described, json!(ours));
}

/// Every example of the description, sent or compared with its schema.
#[tokio::test]
async fn every_example_body_is_valid_and_taken() {
    let document = document();
    let world = world();
    let mut sent = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            for (name, example) in
                operation["requestBody"]["content"]["application/json"]["examples"].as_object().into_iter().flatten()
            {
                assert_valid(
                    &example["value"],
                    operation["requestBody"]["content"]["application/json"]["schema"].clone(),
                );
                let path = format!(
                    "{}{}",
                    path.replace("{id}", "1001"),
                    if path.contains("{id}") { "?shop=shop.example" } else { "" }
                );
                let got =
                    world.ask(request(&method.to_uppercase(), &path, "key", &[], example["value"].to_string())).await;
                assert_eq!(got.status, 202, "{name} of {method} {path}: {}", got.body);
                assert_valid(&got.body, operation["responses"]["202"]["content"]["application/json"]["schema"].clone());
                sent += 1;
            }
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let json = &response["content"]["application/json"];
                if !json["example"].is_null() {
                    assert_valid(&json["example"], json["schema"].clone());
                }
                assert!(status.parse::<u16>().is_ok_and(|it| StatusCode::from_u16(it).is_ok()), "{status}");
            }
        }
    }
    assert!(sent >= 6, "only {sent} examples");
    let refused = world.post("/v1/orders", json!([{}]).to_string()).await;
    assert_valid(&refused.body, schema("Problem"));
    let some = world.post("/v1/orders", json!([{}, order("1")]).to_string()).await;
    assert_valid(&some.body, schema("Batch"));
}

#[test]
fn a_body_that_the_description_forbids_is_seen() {
    for (body, valid) in [
        (order("1"), true),
        (without(order("1"), "placed_at"), false),
        (with(order("1"), "/lines/0/quantity", json!("2")), false),
        (with(order("1"), "/order_number", json!("")), false),
        (with(order("1"), "/payment/method", json!("shells")), false),
    ] {
        assert_eq!(faults(&body, &schema("Order"), &document(), "").is_empty(), valid, "{body}");
    }
}

fn assert_valid(value: &Value, schema: Value) {
    let faults = faults(value, &schema, &document(), "");
    assert!(faults.is_empty(), "{faults:#?} in {value:#}");
}
