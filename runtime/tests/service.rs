//! A whole process on real servers (`KEPT_KAFKA`, `KEPT_REGISTRY`, `KEPT_POSTGRES`), with small rules: topics made,
//! reference data read, records through every driver, a second process that waits for its slot, a stop in good order.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kept_processors::{
    ledger::{Cause, Facts, LedgerEvent, LedgerInput, Sku},
    reference::Reference,
};
use kept_runtime::{
    admin,
    config::Config,
    log::Outgoing,
    reference,
    registry::{Registry, RegistryError},
    schemas::Schemas,
    service::{self, Decisions, Ended, Extra, Patience},
    stateless::{Inward, Made, StatelessStep, Unread},
    timers::Outbox,
};
use kept_schemas::{
    EventId, Headers, OrderId, Topic,
    events::{Hold, NoteKind, OrderAccepted, OrderHeld, OrderNoted},
    inbound::{HoldReason, OrderEnriched, OrderReceived, OrderValidated},
    order::OrderLine,
    reference::Product,
    topics::Record,
};
use kept_store::{
    Client, drop_all, migrate,
    pg::{Purpose, connect},
    seam::{Keys, Rules},
};
use tokio::runtime::Runtime;

/// A note for every order and every command; the order `waits` is held for its SKU.
#[derive(Clone)]
struct Notes;

impl Rules for Notes {
    fn keys(&self, _: &LedgerInput, _: &Cause, _: &mut Keys) {}

    fn skus(&self, _: &LedgerInput, _: &Facts) -> Vec<Sku> {
        Vec::new()
    }

    fn decide(&self, input: &LedgerInput, _: &Cause, facts: &mut Facts, _: &Reference) -> Vec<LedgerEvent> {
        let (order_id, detail) = match input {
            LedgerInput::Validated(it) => (it.order.order_id, "validated".to_owned()),
            LedgerInput::Command(it) => (it.order_id, format!("{} by {}", it.kind, it.by)),
            _ => return Vec::new(),
        };
        let state = facts.orders.get_mut(&order_id).expect("it was locked");
        let mut events = Vec::new();
        let mut seq = || {
            state.seq += 1;
            state.seq
        };
        let kind = NoteKind::Looked;
        events.push(OrderNoted { order_id, seq: seq(), kind, detail, ..Default::default() }.into());
        match input {
            LedgerInput::Validated(it) if it.order.channel_order_id == "waits" => {
                let order = it.order.clone();
                events.push(OrderAccepted { order_id, seq: seq(), order, ..Default::default() }.into());
                let hold = Hold { hold_id: "h".into(), reason: HoldReason::UnknownSku, ..Default::default() };
                events.push(OrderHeld { order_id, seq: seq(), holds: vec![hold], ..Default::default() }.into());
            }
            _ => {}
        }
        events
    }
}

const STEPS: [StatelessStep; 2] = [
    StatelessStep {
        name: "enrich",
        inputs: &[Topic::OrdersReceived],
        outputs: &[Topic::OrdersEnriched],
        decide: enrich,
    },
    StatelessStep {
        name: "validate",
        inputs: &[Topic::OrdersEnriched],
        outputs: &[Topic::OrdersValidated],
        decide: validate,
    },
];

fn enrich(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let order = inward.read::<OrderReceived>()?.order.clone();
    let key = order.order_id.to_string();
    Ok(vec![Made::of(inward.codec, key, OrderEnriched { order, ..Default::default() })?])
}

fn validate(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let order = inward.read::<OrderEnriched>()?.order.clone();
    let key = order.order_id.to_string();
    Ok(vec![Made::of(inward.codec, key, OrderValidated { order, ..Default::default() })?])
}

/// One runtime for every test: the Kafka client blocks, so its work is not done on it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// A deployment of its own on the servers that the environment names.
struct Deployment {
    config: Config,
}

impl Deployment {
    fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut config =
            Config::load(None).expect("KEPT_KAFKA, KEPT_REGISTRY and KEPT_POSTGRES name servers to test with");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        config.prefix = format!("svc{}_{number}_{name}_", std::process::id());
        config.ops = "127.0.0.1:0".into();
        config.batch.window_ms = 20;
        Self { config }
    }

    /// With tables, topics and schemas.
    fn made(name: &str) -> Self {
        let deployment = Self::new(name);
        let config = &deployment.config;
        runtime().block_on(async {
            migrate(config.postgres.expose(), &config.store_prefix()).await.expect("tables");
            deployment.apply().await;
        });
        deployment
    }

    async fn apply(&self) -> admin::Plan {
        let registry = Registry::client(&self.config).expect("a client");
        let found = admin::look(&self.config, &registry).await.expect("looked");
        let plan = admin::plan(&self.config, &found);
        if plan.refusals.is_empty() {
            admin::apply(&self.config, &registry, &found, &plan, |_| {}).await.expect("applied");
        }
        plan
    }

    async fn registry(&self) -> Registry {
        Registry::open(&self.config).await.expect("registered")
    }

    async fn send<T: Record>(&self, key: &str, value: &T) {
        let wire = self.registry().await.codec().encode(value).expect("it fits");
        let event_id = Some(EventId::of_input("test", key, &wire.bytes()));
        let headers = Headers { event_id, ..Default::default() };
        let mut outbox = kept_runtime::outbox(&self.config).expect("an outbox");
        outbox.send(vec![Outgoing::new(T::TOPIC, key, &wire, headers)]).await.expect("sent");
    }

    async fn send_order(&self, number: &str) -> OrderId {
        let order_id = OrderId::of("shop", number);
        let mut received = OrderReceived::default();
        received.order.order_id = order_id;
        received.order.channel_order_id = number.to_owned();
        received.order.lines = vec![OrderLine { line_no: 1, sku: "NEW".into(), quantity: 1, ..Default::default() }];
        self.send(&order_id.to_string(), &received).await;
        order_id
    }

    async fn ledger(&self) -> Client {
        let schema = self.config.store_prefix().ledger();
        connect(self.config.postgres.expose(), &schema, Purpose::Command).await.expect("a session")
    }

    /// Waits until the read model's timeline says this of the order.
    fn wait_for(&self, order: OrderId, detail: &str) {
        runtime().block_on(async {
            let schema = self.config.store_prefix().read();
            let client = connect(self.config.read_url(), &schema, Purpose::Command).await.expect("a session");
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                let rows = client
                    .query("SELECT detail FROM timeline WHERE order_id = $1 ORDER BY seq", &[&order.0])
                    .await
                    .expect("read");
                let details: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                if details.iter().any(|it| it.contains(detail)) {
                    return;
                }
                assert!(Instant::now() < until, "the timeline of {order} is {details:?}, and {detail} is waited for");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    fn start(&self, what: &str, extras: Vec<Extra>) -> Process {
        let asked: Vec<String> = what.split(' ').map(str::to_owned).collect();
        let names: Vec<&str> = extras.iter().map(|it| it.name).collect();
        let parts = service::parts(&asked, &STEPS, &names, false).expect("parts");
        let (stop, config) = (Arc::new(AtomicBool::new(false)), self.config.clone());
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let decisions = Decisions { stateless: STEPS.to_vec(), rules: Notes };
            let patience = Patience { start: Duration::from_secs(5), stop: Duration::from_secs(20) };
            service::run(runtime().handle(), &config, &parts, decisions, extras, patience, &flag)
        });
        Process { stop, thread }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let (url, prefix) = (self.config.postgres.expose().to_owned(), self.config.store_prefix());
        // Topics stay: a broker for tests is thrown away as a whole.
        if let Err(error) = runtime().block_on(drop_all(&url, &prefix)) {
            eprintln!("schemas of a test are left behind: {error}");
        }
    }
}

struct Process {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

impl Process {
    fn end(self) -> Ended {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it did not panic")
    }
}

#[test]
fn an_order_goes_through_every_driver_of_one_process_which_stops_in_good_order() {
    let deployment = Deployment::made("whole");
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let page = Arc::clone(&seen);
    let extra = Extra {
        name: "http",
        run: Box::new(move |given| {
            Box::pin(async move {
                while !given.stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let text = kept_runtime::metrics::Metrics::new(Arc::clone(&given.board)).text();
                *page.lock().expect("free") = text.map_err(|error| error.to_string())?;
                Ok(())
            })
        }),
    };
    let process = deployment.start("all", vec![extra]);
    let order = runtime().block_on(deployment.send_order("1"));
    deployment.wait_for(order, "validated");
    assert_eq!(process.end(), Ended::InOrder);
    let page = seen.lock().expect("free");
    for line in [
        r#"kept_sent_total{step="steps",topic="orders.validated"} 1"#,
        r#"kept_sent_total{step="ledger",topic="orders.noted"} 1"#,
        r#"kept_batch_records_count{step="read"} 1"#,
        r#"kept_server_up{server="postgres"} 1"#,
        r#"kept_server_up{server="registry"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is not on the page:\n{page}");
    }
    // In good order: the next owner need not go record by record.
    let clean: Vec<bool> = runtime().block_on(async {
        let rows = deployment.ledger().await.query("SELECT clean FROM progress", &[]).await.expect("read");
        rows.iter().map(|row| row.get(0)).collect()
    });
    assert!(clean.len() >= 14 && clean.iter().all(|clean| *clean), "{clean:?}");
}

#[test]
fn an_order_that_waits_for_an_unknown_product_is_checked_again_once_the_product_came() {
    let deployment = Deployment::made("recheck");
    let process = deployment.start("all", vec![]);
    let order = runtime().block_on(deployment.send_order("waits"));
    deployment.wait_for(order, "validated");
    let product = Product { sku: "NEW".into(), active: true, ..Default::default() };
    runtime().block_on(deployment.send("NEW", &product));
    deployment.wait_for(order, "recheck by kept");
    assert_eq!(process.end(), Ended::InOrder);
    runtime().block_on(async {
        let client = deployment.ledger().await;
        let kept = client.query("SELECT key, version FROM reference_versions", &[]).await.expect("read");
        assert_eq!(kept.len(), 1, "every version is kept, once");
        let registry = deployment.registry().await;
        let all = reference::read_once(&deployment.config, &registry, Duration::from_secs(20)).await.expect("read");
        assert_eq!(all.products["NEW"], product);
        assert_eq!(all.versions[&Topic::ReferenceProducts], 1);
    });
}

#[test]
fn a_second_process_waits_for_its_slot_and_takes_over_when_the_first_stops() {
    let mut deployment = Deployment::made("slots");
    deployment.config.slots = 1;
    let first = deployment.start("all", vec![]);
    let order = runtime().block_on(deployment.send_order("1"));
    deployment.wait_for(order, "validated");
    let second = deployment.start("all", vec![]);
    std::thread::sleep(Duration::from_secs(3));
    let epochs = |deployment: &Deployment| -> Vec<(String, i64)> {
        runtime().block_on(async {
            let rows = deployment.ledger().await.query("SELECT step, epoch FROM slots ORDER BY step", &[]).await;
            rows.expect("read").iter().map(|row| (row.get(0), row.get(1))).collect()
        })
    };
    assert!(epochs(&deployment).iter().all(|(_, epoch)| *epoch == 1), "{:?}", epochs(&deployment));
    assert_eq!(first.end(), Ended::InOrder);
    let order = runtime().block_on(deployment.send_order("2"));
    deployment.wait_for(order, "validated");
    assert!(epochs(&deployment).iter().all(|(_, epoch)| *epoch == 2), "{:?}", epochs(&deployment));
    assert_eq!(second.end(), Ended::InOrder);
}

#[test]
fn a_process_whose_slot_was_taken_from_it_steps_back() {
    let mut deployment = Deployment::made("lost");
    deployment.config.slots = 1;
    let process = deployment.start("ledger", vec![]);
    let client = runtime().block_on(deployment.ledger());
    let until = Instant::now() + Duration::from_secs(20);
    let epoch = |wanted: i64| {
        runtime().block_on(async {
            let row = client.query_opt("SELECT epoch FROM slots WHERE step = 'ledger'", &[]).await.expect("read");
            row.is_some_and(|row| row.get::<_, i64>(0) >= wanted)
        })
    };
    while !epoch(1) {
        assert!(Instant::now() < until, "the slot is taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Somebody else took the slot while this process was asleep, and gave it back.
    runtime().block_on(async {
        client.execute("UPDATE slots SET epoch = epoch + 1, owner = 'other', until = now()", &[]).await.expect("taken")
    });
    while !epoch(3) {
        assert!(Instant::now() < until, "the worker stopped and took the slot anew");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(process.end(), Ended::InOrder);
}

#[test]
fn what_is_missing_at_the_start_is_waited_for_and_then_named_with_the_way_out() {
    let deployment = Deployment::new("missing");
    let config = &deployment.config;
    let patience = Duration::from_secs(1);
    let stop = AtomicBool::new(false);
    let why = || runtime().block_on(service::wait_for_servers(config, patience, &stop)).err().expect("not there");
    assert!(why().contains("kept migrate"), "{}", why());
    runtime().block_on(migrate(config.postgres.expose(), &config.store_prefix())).expect("tables");
    assert!(why().contains("kept topics apply"), "{}", why());
    runtime().block_on(deployment.apply());
    let there = runtime().block_on(service::wait_for_servers(config, Duration::from_secs(20), &stop));
    assert!(there.is_ok_and(|it| it.is_some()));
    let mut other = config.clone();
    other.partitions += 1;
    let why = runtime().block_on(service::wait_for_servers(&other, patience, &stop)).err().expect("refused");
    assert!(why.contains("has 2 partitions and the configuration says 3"), "{why}");
}

#[test]
fn a_part_that_cannot_go_on_ends_the_process_with_its_reason() {
    let deployment = Deployment::made("broken");
    let extra = Extra { name: "http", run: Box::new(|_| Box::pin(async { Err("the port is taken".into()) })) };
    let process = deployment.start("ledger http", vec![extra]);
    let until = Instant::now() + Duration::from_secs(30);
    while !process.thread.is_finished() {
        assert!(Instant::now() < until, "it ends by itself");
        std::thread::sleep(Duration::from_millis(100));
    }
    let Ended::Stopped(stopped) = process.end() else { panic!("it stopped") };
    assert_eq!((stopped.step.as_str(), stopped.reason.as_str()), ("http", "the port is taken"));
}

#[test]
fn topics_are_made_once_drift_is_repaired_and_other_partitions_are_refused() {
    let mut deployment = Deployment::new("topics");
    runtime().block_on(async {
        migrate(deployment.config.postgres.expose(), &deployment.config.store_prefix()).await.expect("tables");
        assert!(deployment.apply().await.changes.len() > 60);
        assert_eq!(deployment.apply().await, admin::Plan::default());
        // A wish that changed is drift of what is there.
        deployment.config.partitions = 3;
        let plan = deployment.apply().await;
        assert!(plan.changes.is_empty() && plan.refusals.len() > 20, "{plan:?}");
    });
}

#[test]
fn a_schema_that_others_wrote_with_is_learned_once_and_kept_beside_the_registry() {
    let deployment = Deployment::made("learn");
    runtime().block_on(async {
        let registry = deployment.registry().await;
        let subject = format!("{}others-value", deployment.config.prefix);
        let text = r#"{"type":"record","name":"Note","fields":[{"name":"order_id","type":"string"}]}"#;
        let id = registry.register(&subject, text).await.expect("registered");
        assert!(!registry.codec().knows(id));
        assert_eq!(registry.ensure(id).await, Ok(true));
        assert!(registry.codec().knows(id));
        assert_eq!(registry.ensure(999_999_999).await, Ok(false));
        let kept = kept_store::schemas::kept(&deployment.ledger().await, id).await.expect("read");
        assert!(kept.is_some_and(|kept| kept.contains("Note")));
        let mut elsewhere = deployment.config.clone();
        elsewhere.prefix = format!("{}none_", elsewhere.prefix);
        assert!(matches!(Registry::open(&elsewhere).await, Err(RegistryError::NotRegistered(_))));
    });
}

/// A registry in memory that gives ids in a row from 1, as real ones do; with nothing in it at first.
struct FreshRegistry {
    url: String,
}

impl FreshRegistry {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        std::thread::spawn(move || {
            let mut texts: Vec<(String, String)> = Vec::new();
            let mut rules: std::collections::BTreeMap<String, String> = Default::default();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let (line, body) = request(&mut stream);
                let (status, answer) = answer(&line, &body, &mut texts, &mut rules);
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
                std::io::Write::write_all(&mut stream, (head + &answer).as_bytes()).expect("answered");
            }
        });
        Self { url }
    }
}

fn request(stream: &mut std::net::TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    let mut piece = [0; 65_536];
    loop {
        let read = std::io::Read::read(stream, &mut piece).expect("a request");
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |it| it.split("\r\n").next().expect("a line").parse::<usize>().expect("a number"));
        if read == 0 || body.len() >= length {
            return (head.lines().next().expect("a line").to_owned(), body.to_owned());
        }
    }
}

fn answer(
    line: &str,
    body: &str,
    texts: &mut Vec<(String, String)>,
    rules: &mut std::collections::BTreeMap<String, String>,
) -> (&'static str, String) {
    let mut words = line.split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let path = path.split('?').next().expect("a path");
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = body["schema"].as_str().unwrap_or_default().to_owned();
    let not_there = ("404 Not Found", r#"{"error_code":40401,"message":"not there"}"#.to_owned());
    match (method, &parts[..]) {
        ("PUT", ["config", subject]) => {
            rules.insert((*subject).to_owned(), body["compatibility"].as_str().expect("a rule").to_owned());
            ("200 OK", "{}".into())
        }
        ("GET", ["config", subject]) => match rules.get(*subject) {
            Some(rule) => ("200 OK", format!(r#"{{"compatibilityLevel":"{rule}"}}"#)),
            None => not_there,
        },
        ("GET", ["schemas", "ids", id]) => match texts.get(id.parse::<usize>().expect("an id").wrapping_sub(1)) {
            Some((_, text)) => ("200 OK", serde_json::json!({ "schema": text }).to_string()),
            None => not_there,
        },
        ("POST", ["subjects", subject, "versions"]) => {
            let wanted = ((*subject).to_owned(), text);
            let id = texts.iter().position(|it| *it == wanted).unwrap_or_else(|| {
                texts.push(wanted);
                texts.len() - 1
            });
            ("200 OK", format!(r#"{{"id":{}}}"#, id + 1))
        }
        ("POST", ["subjects", subject]) => match texts.iter().position(|it| it.0 == *subject && it.1 == text) {
            Some(id) => ("200 OK", format!(r#"{{"id":{},"subject":"{subject}","version":1,"schema":""}}"#, id + 1)),
            None => not_there,
        },
        _ => not_there,
    }
}

#[test]
fn a_registry_that_was_lost_gets_every_id_back_that_records_carry() {
    let mut deployment = Deployment::new("fresh");
    let ids = |deployment: &Deployment| -> Vec<Option<u32>> {
        let codec = runtime().block_on(deployment.registry()).codec();
        Topic::ALL.iter().map(|&topic| codec.id_of(topic)).collect()
    };
    let (first, second) = (FreshRegistry::new(), FreshRegistry::new());
    deployment.config.registry = first.url.clone();
    runtime().block_on(async {
        migrate(deployment.config.postgres.expose(), &deployment.config.store_prefix()).await.expect("tables");
        // Somebody else's schemas take up ids before and between ours.
        let registry = Registry::client(&deployment.config).expect("a client");
        for name in ["other-a", "other-b"] {
            registry.register(name, r#"{"type":"string"}"#).await.expect("registered");
        }
        deployment.apply().await;
    });
    let before = ids(&deployment);
    assert_eq!(before.first(), Some(&Some(3)));
    deployment.config.registry = second.url.clone();
    assert!(matches!(runtime().block_on(Registry::open(&deployment.config)), Err(RegistryError::NotRegistered(_))));
    let plan = runtime().block_on(deployment.apply());
    assert!(matches!(plan.changes.first(), Some(admin::Change::RestoreIds { ids }) if ids.len() == Topic::ALL.len()));
    assert_eq!(ids(&deployment), before);
    assert_eq!(runtime().block_on(deployment.apply()), admin::Plan::default());
}

#[test]
fn a_dead_letter_and_a_record_of_today_can_be_fetched_and_sent_again_as_the_same_event() {
    let deployment = Deployment::made("replay");
    let order = runtime().block_on(deployment.send_order("1"));
    let at = |partition| kept_store::seam::TopicPartition { topic: Topic::OrdersReceived, partition };
    let fetch = |partition, offset| {
        kept_runtime::replay::fetch(&deployment.config, at(partition), offset, Duration::from_secs(15)).expect("asked")
    };
    let found = [fetch(0, 0), fetch(1, 0)];
    let record = found.iter().flatten().next().expect("it is in one of the two partitions");
    assert_eq!(record.key.as_deref(), Some(order.to_string().as_bytes()));
    assert!(record.headers.event_id.is_some());
    assert_eq!(kept_runtime::replay::again(record).headers.event_id, record.headers.event_id);
    assert_eq!(fetch(0, 1_000), None, "past the end there is none");
}
