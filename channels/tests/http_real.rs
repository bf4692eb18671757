//! The HTTP door with a real broker and a real Postgres: those that `KEPT_KAFKA` and `KEPT_POSTGRES` name (`./kept test`
//! starts them).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use kept_channels::http::{Limits, Service, Settings};
use kept_processors::reference::Reference;
use kept_runtime::kafka::{KafkaOutbox, KafkaSettings, client_config};
use kept_schemas::{OrderId, Topic, codec::offline, ids::sha256_hex, inbound::Inbound, reference::Account};
use kept_store::{
    Prefix, drop_all, migrate,
    pg::{Purpose, connect},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

const SHOP: &str = "shop.example";

/// A deployment of its own on shared servers.
struct Deployment {
    kafka: String,
    postgres: String,
    prefix: Prefix,
    name: String,
}

impl Deployment {
    async fn there() -> Self {
        let named = |variable: &str| {
            std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no server to test with: `./kept test`"))
        };
        let (kafka, postgres) = (named("KEPT_KAFKA"), named("KEPT_POSTGRES"));
        let name = format!("h{}_", std::process::id());
        let prefix = Prefix::new(&name).expect("a prefix");
        migrate(&postgres, &prefix).await.expect("tables are made");
        let deployment = Self { kafka, postgres, prefix, name };
        let topic = deployment.topic();
        let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
        for result in deployment.admin().create_topics([&new], &AdminOptions::new()).await.expect("asked") {
            result.expect("created");
        }
        deployment
    }

    fn topic(&self) -> String {
        format!("{}{}", self.name, Topic::ChannelsInbound)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        client_config(&self.kafka, &BTreeMap::new()).create().expect("an admin client")
    }

    async fn start(&self, brokers: &str) -> (Service, watch::Sender<bool>) {
        let account = Account {
            account_id: "main".into(),
            channel: "storefront".into(),
            shop: SHOP.into(),
            key_hashes: vec![sha256_hex(b"key")],
            active: true,
        };
        let accounts = [("main".to_owned(), account)].into();
        let reference = Arc::new(Reference { accounts, ..Default::default() });
        let codec = Arc::new(offline());
        let outbox = KafkaOutbox::new(KafkaSettings {
            brokers: brokers.to_owned(),
            prefix: self.name.clone(),
            group: String::new(),
            transactional_id: String::new(),
            topics: Vec::new(),
            properties: BTreeMap::new(),
        })
        .expect("a producer");
        let (stop, stopped) = watch::channel(false);
        let settings = Settings {
            listen: "127.0.0.1:0",
            postgres: &self.postgres,
            read_postgres: &self.postgres,
            prefix: &self.prefix,
            limits: Limits { store_time: Duration::from_secs(3), ..Limits::default() },
            counters: Arc::default(),
        };
        let service = Service::start(
            settings,
            Box::new(move || Arc::clone(&reference)),
            Box::new(move || Arc::clone(&codec)),
            Arc::new(outbox),
            Router::new(),
            stopped,
        )
        .await
        .expect("it listens");
        (service, stop)
    }

    /// Every body in the topic, read from outside.
    fn stored(&self) -> Vec<Inbound> {
        let consumer: BaseConsumer = client_config(&self.kafka, &BTreeMap::new())
            .set("group.id", format!("{}look", self.name))
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let topic = self.topic();
        let mut whole = TopicPartitionList::new();
        let mut expected = 0;
        for partition in 0..2 {
            let (low, high) =
                consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10)).expect("the partition's ends");
            expected += usize::try_from(high - low).expect("a count");
            whole.add_partition_offset(&topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&whole).expect("assigned");
        let until = Instant::now() + Duration::from_secs(20);
        let mut bodies = Vec::new();
        while bodies.len() < expected && Instant::now() < until {
            if let Some(record) = consumer.poll(Duration::from_millis(200)) {
                let record = record.expect("a record");
                let value = record.payload().expect("a value");
                bodies.push(offline().decode::<Inbound>(value).expect("readable").expect("a known schema"));
            }
        }
        assert_eq!(bodies.len(), expected);
        bodies
    }

    async fn end(self) {
        for result in self.admin().delete_topics(&[&self.topic()], &AdminOptions::new()).await.expect("asked") {
            result.expect("deleted");
        }
        drop_all(&self.postgres, &self.prefix).await.expect("dropped");
    }
}

/// The status, the head and the body of an answer.
struct Got {
    status: u16,
    head: String,
    body: String,
}

/// One request over a connection of its own, by hand: what a client that knows nothing of us sees.
async fn ask(service: &Service, method: &str, path: &str, headers: &str, body: &[u8]) -> Got {
    let mut stream = TcpStream::connect(service.address()).await.expect("connects");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer key\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // The server may answer and close before it took all of it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    Got { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn order(number: &str, quantity: u32) -> String {
    format!(
        r#"{{"order_number":"{number}","placed_at":"2026-11-25T10:00:00Z","currency":"EUR","lines":[{{"sku":"A","quantity":{quantity},"unit_price":"1.00"}}]}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_stored_once_a_request_and_still_known_after_a_restart() {
    let deployment = Deployment::there().await;
    let (service, stop) = deployment.start(&deployment.kafka).await;

    // One order; then the same request again under its key, twice at once; then another body under it.
    let key = "idempotency-key: k-1\r\n";
    let first = ask(&service, "POST", "/v1/orders", key, order("1", 1).as_bytes()).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let id = OrderId::of(SHOP, "1");
    assert!(first.head.contains(&format!("location: /v1/orders/{id}")), "{}", first.head);
    let body = order("1", 1);
    let (again, too) = tokio::join!(
        ask(&service, "POST", "/v1/orders", key, body.as_bytes()),
        ask(&service, "POST", "/v1/orders", key, body.as_bytes())
    );
    assert_eq!((&again.body, &too.body), (&first.body, &first.body));
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    assert_eq!(ask(&service, "POST", "/v1/orders", key, order("1", 2).as_bytes()).await.status, 422);

    // A batch, and a hundred at once.
    let batch = format!("[{},{}]", order("2", 1), order("3", 1));
    assert_eq!(ask(&service, "POST", "/v1/orders", "", batch.as_bytes()).await.status, 202);
    let bodies: Vec<String> = (100..200).map(|number| order(&number.to_string(), 1)).collect();
    let mut asking = tokio::task::JoinSet::new();
    let service = Arc::new(service);
    for body in bodies {
        let service = Arc::clone(&service);
        asking.spawn(async move { ask(&service, "POST", "/v1/orders", "", body.as_bytes()).await.status });
    }
    assert!(asking.join_all().await.iter().all(|&status| status == 202));

    // Every accepted order is in the topic, with its own bytes.
    let stored = deployment.stored();
    let mut numbers: Vec<&str> = stored.iter().map(|it| it.external_id.as_str()).collect();
    numbers.sort_unstable();
    let mut expected: Vec<String> = (1..=3).chain(100..200).map(|number: i32| number.to_string()).collect();
    expected.sort_unstable();
    assert_eq!(numbers, expected);
    let one = stored.iter().find(|it| it.external_id == "1").expect("order 1");
    assert_eq!(one.body, order("1", 1).as_bytes());

    // Fifty megabytes get their answer, though the client sends on without reading.
    let large = ask(&service, "POST", "/v1/orders", "", &vec![b' '; 50_000_000]).await;
    assert_eq!(large.status, 413, "{}", large.body);

    // The database's sessions are ended, as a restart does; the next requests open new ones.
    let client = connect(&deployment.postgres, &deployment.prefix.ledger(), Purpose::Command).await.expect("connects");
    let ended: i64 = client
        .query_one(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name IN ($1, $2)",
            &[&Purpose::Door.session(&deployment.prefix.ledger()), &Purpose::Pages.session(&deployment.prefix.read())],
        )
        .await
        .expect("ended")
        .get(0);
    assert!(ended >= 1, "the door has a session");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let got = ask(&service, "GET", &format!("/v1/orders/{id}"), "", b"").await;
        match got.status {
            200 => break,
            503 if Instant::now() < until => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other}: {}", got.body),
        }
    }

    // A restart: what was accepted is still known, by id and by number.
    stop.send(true).expect("it runs");
    let began = Instant::now();
    Arc::into_inner(service).expect("nobody else asks").ended().await;
    assert!(began.elapsed() < Duration::from_secs(9), "a quiet service ends at once");
    let (service, stop) = deployment.start(&deployment.kafka).await;
    for path in [format!("/v1/orders/{id}"), format!("/v1/orders/150?shop={SHOP}")] {
        let got = ask(&service, "GET", &path, "", b"").await;
        assert_eq!(got.status, 200, "{}", got.body);
        assert!(got.body.contains(r#""status":"accepted""#), "{}", got.body);
    }
    assert_eq!(ask(&service, "GET", &format!("/v1/orders/4?shop={SHOP}"), "", b"").await.status, 404);
    stop.send(true).expect("it runs");
    service.ended().await;

    // No broker: never a 202, and an answer in bounded time.
    let (service, stop) = deployment.start("127.0.0.1:1").await;
    let began = Instant::now();
    let got = ask(&service, "POST", "/v1/orders", "", order("5", 1).as_bytes()).await;
    assert_eq!(got.status, 503, "{}", got.body);
    assert!(got.head.contains("retry-after:"), "{}", got.head);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(ask(&service, "GET", &format!("/v1/orders/5?shop={SHOP}"), "", b"").await.status, 404);
    stop.send(true).expect("it runs");
    service.ended().await;
    deployment.end().await;
}
