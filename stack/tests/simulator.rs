//! The simulated world on real servers (`KEPT_KAFKA`, `KEPT_REGISTRY`, `KEPT_POSTGRES`): ended in the middle and started
//! again it reports everything, the same under the same ids, and commits what is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kept_runtime::{admin, config::Config, kafka::client_config, log::Outgoing, registry::Registry, timers::Outbox};
use kept_schemas::{
    EventId, Headers, Micros, OrderId, Topic,
    events::{FulfilmentLine, FulfilmentRequested, FulfilmentWithdrawn},
    inputs::{OutcomeKind, OutcomeReceived},
};
use kept_stack::world::{
    Rates, World,
    plan::{Work, plan},
    rates::Mishap,
    run::{Settings, run},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

fn micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    i64::try_from(now).expect("before the year 292277")
}

fn request(id: u32) -> FulfilmentRequested {
    FulfilmentRequested {
        order_id: OrderId::of("shop", &id.to_string()),
        at: Micros(micros()),
        fulfilment_id: format!("f-{id}"),
        location_id: "dc".into(),
        lines: (1..=3)
            .map(|line_no| FulfilmentLine { line_no, sku: "A".into(), quantity: 2, unit_weight_grams: Some(200) })
            .collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_ended_in_the_middle_reports_everything_once_it_is_started_again() {
    kept_stack::testing::servers();
    let mut config = Config::load(None).expect("a configuration");
    config.prefix = format!("sim{}_", micros());
    kept_store::migrate::migrate_ledger(config.postgres.expose(), &config.store_prefix()).await.expect("tables");
    let registry = Registry::client(&config).expect("a client");
    let found = admin::look(&config, &registry).await.expect("a look");
    admin::apply(&config, &registry, &found, &admin::plan(&config, &found), |_| {}).await.expect("topics and schemas");
    let registry = Registry::open(&config).await.expect("schemas are registered");

    let rates = Mishap::ALL.iter().fold(Rates::default(), |rates, &it| rates.with(it, 200));
    // A day and a half in six seconds.
    let world = World { seed: 5, speed: 21_600, rates };
    let logs: PathBuf = std::env::temp_dir().join(format!("kept-simulator-{}", micros()));
    let codec = registry.codec();
    let requests: Vec<FulfilmentRequested> = (0..400).map(request).collect();
    let mut outgoing: Vec<Outgoing> = requests
        .iter()
        .map(|it| {
            let wire = codec.encode(it).expect("it fits");
            Outgoing::new(Topic::FulfilmentRequested, &it.order_id.to_string(), &wire, Headers::default())
        })
        .collect();
    // Every fifth is withdrawn at once; and there is one record that nobody can read.
    for it in requests.iter().step_by(5) {
        let withdrawn = FulfilmentWithdrawn {
            order_id: it.order_id,
            fulfilment_id: it.fulfilment_id.clone(),
            ..Default::default()
        };
        let wire = codec.encode(&withdrawn).expect("it fits");
        outgoing.push(Outgoing::new(Topic::FulfilmentWithdrawn, &it.order_id.to_string(), &wire, Headers::default()));
    }
    outgoing.push(Outgoing {
        topic: Topic::FulfilmentRequested,
        key: b"k".to_vec(),
        value: vec![0, 0, 0],
        headers: Headers::default(),
    });
    kept_runtime::outbox(&config).expect("a producer").send(outgoing).await.expect("stored");

    let start = || {
        let settings = Settings { config: config.clone(), world, logs: logs.clone(), most_open: 150 };
        let stop = Arc::new(AtomicBool::new(false));
        let handle = tokio::runtime::Handle::current();
        let told = Arc::clone(&stop);
        // The client blocks, so it has a thread of its own.
        let thread = std::thread::spawn(move || handle.block_on(run(settings, told, |_| {})));
        (stop, thread)
    };
    for _ in 0..3 {
        let (stop, thread) = start();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("no panic").expect("it stops in good order");
    }
    let (stop, thread) = start();

    let consumer: BaseConsumer = client_config(&config.kafka, &config.client_properties())
        .set("group.id", "nobody")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..config.partitions {
        all.add_partition_offset(&config.topic(Topic::OutcomesReceived), partition, Offset::Beginning).expect("added");
    }
    consumer.assign(&all).expect("assigned");
    let mut seen: BTreeMap<EventId, OutcomeReceived> = BTreeMap::new();
    let ended = |seen: &BTreeMap<EventId, OutcomeReceived>| {
        let last = [OutcomeKind::Refused, OutcomeKind::Delivered, OutcomeKind::DeliveryFailed, OutcomeKind::Withdrawn];
        seen.values().filter(|it| last.contains(&it.kind)).map(|it| it.fulfilment_id.clone()).collect::<BTreeSet<_>>()
    };
    let until = Instant::now() + Duration::from_secs(90);
    while ended(&seen).len() < 400 && Instant::now() < until {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let Ok(message) = message else { continue };
        let mut headers = Headers::default();
        for it in rdkafka::message::Headers::iter(message.headers().expect("headers")) {
            headers.take(it.key, it.value.unwrap_or_default());
        }
        let outcome: OutcomeReceived =
            codec.decode(message.payload().expect("a value")).expect("it reads").expect("known");
        assert!(outcome.simulated);
        let id = headers.event_id.expect("an event id");
        let before = seen.insert(id, outcome.clone());
        assert!(before.is_none_or(|it| it == outcome), "another report under the same id");
    }
    let withdrawn: BTreeMap<String, Micros> = (seen.values())
        .filter(|it| it.kind == OutcomeKind::Withdrawn)
        .map(|it| (it.fulfilment_id.clone(), it.at))
        .collect();
    assert_eq!(ended(&seen).len(), 400);
    assert!(withdrawn.len() > 40, "{} of 80 withdrawals took effect", withdrawn.len());
    let expected: BTreeSet<EventId> = (requests.iter())
        .flat_map(|it| plan(&world, &Work::from(it), withdrawn.get(&it.fulfilment_id).copied()))
        .map(|report| report.event_id())
        .collect();
    let mut told: BTreeSet<EventId> = seen.keys().copied().collect();
    // What may still be under way when the last parcel is there: a scan that changed places with it.
    let late = Instant::now() + Duration::from_secs(10);
    while told != expected && Instant::now() < late {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            for it in rdkafka::message::Headers::iter(message.headers().expect("headers")) {
                if it.key == kept_schemas::headers::EVENT_ID {
                    told.extend(EventId::parse(std::str::from_utf8(it.value.expect("a value")).expect("text")));
                }
            }
        }
    }
    assert_eq!(told.len(), expected.len());
    assert_eq!(told, expected);

    // Everything is done, so everything is committed.
    let group: BaseConsumer = client_config(&config.kafka, &config.client_properties())
        .set("group.id", format!("{}world", config.prefix))
        .create()
        .expect("a consumer");
    let mut of_requests = TopicPartitionList::new();
    of_requests.add_partition_range(&config.topic(Topic::FulfilmentRequested), 0, config.partitions - 1);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let committed = group.committed_offsets(of_requests.clone(), Duration::from_secs(5)).expect("an answer");
        let sum: i64 = committed.elements().iter().filter_map(|it| it.offset().to_raw().filter(|it| *it > 0)).sum();
        if sum == 401 {
            break;
        }
        assert!(Instant::now() < until, "{sum} of 401 records are committed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("no panic").expect("it stops in good order");
    std::fs::remove_dir_all(&logs).expect("removed");
}
