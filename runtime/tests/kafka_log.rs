//! The log seam against a real broker: the one that `KEPT_KAFKA` names (`./kept test` starts one).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kept_runtime::{
    kafka::{KafkaLog, KafkaOutbox, KafkaSettings, Member, client_config},
    log::{Ask, Change, End, Ended, Log, LogError, LogRecord, Look, Outgoing, Polled, TopicFacts},
    timers::Outbox,
};
use kept_schemas::{EventId, Headers, Topic};
use kept_store::seam::{Ends, TopicPartition};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};

struct Broker {
    brokers: String,
    prefix: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Broker {
    fn there(name: &str) -> Self {
        let brokers = std::env::var("KEPT_KAFKA").expect("KEPT_KAFKA names a broker to test with (`./kept test`)");
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
        let admin = client_config(&brokers, &BTreeMap::new()).create().expect("admin client");
        Self { brokers, prefix: format!("t{nanos}.{name}."), admin }
    }

    /// These, and the one that every producer of ours begins with.
    async fn create(&self, topics: &[Topic], partitions: i32) {
        let topics = topics.iter().chain([&Topic::DeadLetters]);
        let names: Vec<String> = topics.map(|topic| format!("{}{topic}", self.prefix)).collect();
        let new: Vec<NewTopic<'_>> =
            names.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        for result in self.admin.create_topics(&new, &AdminOptions::new()).await.expect("asked") {
            match result {
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) if name.ends_with(Topic::DeadLetters.name()) => {}
                made => drop(made.expect("created")),
            }
        }
    }

    async fn delete(&self, topic: Topic) {
        let name = format!("{}{topic}", self.prefix);
        for result in self.admin.delete_topics(&[&name], &AdminOptions::new()).await.expect("asked") {
            result.expect("deleted");
        }
    }

    /// One past the last record of the topic's first partition, committed or not.
    fn end(&self, topic: Topic) -> i64 {
        let name = format!("{}{topic}", self.prefix);
        self.admin.inner().fetch_watermarks(&name, 0, Duration::from_secs(5)).expect("asked").1
    }

    fn settings(&self, group: &str, slot: &str, topics: &[Topic]) -> KafkaSettings {
        KafkaSettings {
            brokers: self.brokers.clone(),
            prefix: self.prefix.clone(),
            group: format!("{}{group}", self.prefix),
            transactional_id: format!("{}{slot}", self.prefix),
            topics: topics.to_vec(),
            properties: BTreeMap::new(),
        }
    }

    fn log(&self, group: &str, slot: &str, topics: &[Topic]) -> KafkaLog {
        KafkaLog::new(self.settings(group, slot, topics)).expect("a log")
    }
}

const IN: Topic = Topic::PaymentsReceived;
const OUT: Topic = Topic::OrdersPaid;

fn outgoing(topic: Topic, key: &str, value: &str) -> Outgoing {
    let headers = Headers { event_id: Some(EventId::of_input("test", key, value.as_bytes())), ..Default::default() };
    Outgoing { topic, key: key.into(), value: value.into(), headers }
}

/// Polls until partitions are assigned; gives them with who we are.
async fn assigned(log: &mut KafkaLog) -> (Vec<TopicPartition>, Member) {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let polled = match log.poll(10, Duration::from_millis(100)).await {
            Ok(polled) => polled,
            // A topic has no leader right after it was made.
            Err(LogError::Retry(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        assert!(polled.records.is_empty(), "nothing is read before a seek");
        if let (Some(Change::Assigned(ours)), Some(meta)) = (polled.changes.last(), polled.meta) {
            return (ours.clone(), meta);
        }
    }
    panic!("no assignment within 30 s");
}

async fn read(log: &mut KafkaLog, count: usize) -> Vec<LogRecord> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut records = Vec::new();
    while records.len() < count && Instant::now() < until {
        match log.poll(1000, Duration::from_millis(100)).await {
            Ok(Polled { records: more, .. }) => records.extend(more),
            // A topic has no leader right after it was made.
            Err(LogError::Retry(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    records
}

#[tokio::test]
async fn records_and_offsets_are_committed_together() {
    let broker = Broker::there("basics");
    broker.create(&[IN, OUT], 2).await;
    let mut log = broker.log("g", "s1", &[IN]);
    log.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut log).await;
    assert_eq!(ours.len(), 2);
    for &at in &ours {
        assert_eq!(log.group_offset(at).await, Ok(None));
        log.seek(at, 0).await.expect("seeks");
    }
    let many: Vec<Outgoing> = (0..1000).map(|n| outgoing(IN, &format!("k{n}"), &format!("v{n}"))).collect();
    assert_eq!(log.transact(&many, &[], &meta).await, Ended::Committed);
    let records = read(&mut log, 1000).await;
    assert_eq!(records.len(), 1000);
    assert_eq!(
        records[0].headers.event_id,
        Some(EventId::of_input(
            "test",
            std::str::from_utf8(records[0].key.as_deref().expect("a key")).expect("text"),
            records[0].value.as_deref().expect("a value")
        ))
    );
    let next = records.iter().filter(|it| it.at == ours[0]).map(|it| it.offset + 1).max().expect("some are there");
    let began = Instant::now();
    for n in 0..20 {
        let ended = log.transact(&[outgoing(OUT, "k", &n.to_string())], &[(ours[0], next)], &meta).await;
        assert_eq!(ended, Ended::Committed);
    }
    eprintln!("a transaction takes {:?}", began.elapsed() / 20);
    assert_eq!(log.group_offset(ours[0]).await, Ok(Some(next)));
    // Back and forth: a seek reads exactly from there on.
    log.seek(ours[0], next - 3).await.expect("seeks");
    let again = read(&mut log, 1).await;
    assert!(again.first().is_some_and(|it| it.at == ours[0] && it.offset >= next - 3));
    let facts = log.topic_facts(&ours, Ask::Anew).await.expect("facts");
    assert!(facts.iter().all(|it| it.start == 0 && it.end > 0 && !it.topic_id.is_empty()));
    let began = Instant::now();
    let beside = log.topic_facts(&ours, Ask::Beside).await.expect("facts");
    eprintln!("asking for topic ids takes {:?}", began.elapsed());
    assert_eq!(beside[0].topic_id, facts[0].topic_id);
    log.close().await;
}

/// Hashes from the tests of Kafka's own client (`UtilsTest`, murmur2); a partition is the hash without its sign, modulo
/// the number of partitions.
#[tokio::test]
async fn a_key_is_in_the_partition_that_a_client_on_the_jvm_gives_it() {
    const PARTITIONS: i32 = 7;
    let hashes = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107i32),
    ];
    let broker = Broker::there("partitions");
    broker.create(&[IN, OUT], PARTITIONS).await;
    let mut log = broker.log("g", "s1", &[IN]);
    log.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut log).await;
    for &at in &ours {
        log.seek(at, 0).await.expect("seeks");
    }
    let records: Vec<Outgoing> = hashes.iter().map(|(key, _)| outgoing(IN, key, "")).collect();
    assert_eq!(log.transact(&records, &[], &meta).await, Ended::Committed);
    let mut outbox = KafkaOutbox::new(broker.settings("", "", &[])).expect("a producer");
    outbox.send(records).await.expect("stored");
    let mut found = BTreeMap::new();
    for record in read(&mut log, 2 * hashes.len()).await {
        let key = String::from_utf8(record.key.expect("a key")).expect("text");
        found.entry(key).or_insert_with(Vec::new).push(record.at.partition);
    }
    for (key, hash) in hashes {
        let partition = (hash & i32::MAX) % PARTITIONS;
        assert_eq!(found.remove(key), Some(vec![partition; 2]), "{key}");
    }
    log.close().await;
}

/// The controller knows a new topic before the broker tells of it.
async fn seen(log: &mut KafkaLog, at: TopicPartition) -> TopicFacts {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match log.topic_facts(&[at], Ask::Beside).await {
            Ok(mut facts) => return facts.remove(0),
            Err(error) => assert!(Instant::now() < until, "a new topic is seen: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_topic_made_anew_has_another_id() {
    let broker = Broker::there("anew");
    broker.create(&[IN], 1).await;
    let mut log = broker.log("g", "s1", &[IN]);
    let at = TopicPartition { topic: IN, partition: 0 };
    let before = seen(&mut log, at).await;
    broker.delete(IN).await;
    let until = Instant::now() + Duration::from_secs(20);
    while log.topic_facts(&[at], Ask::Beside).await.is_ok() {
        assert!(Instant::now() < until, "a deleted topic is noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.create(&[IN], 1).await;
    let after = seen(&mut log, at).await;
    assert_ne!(before.topic_id, after.topic_id);
}

#[tokio::test]
async fn a_member_of_an_earlier_generation_cannot_commit() {
    let broker = Broker::there("stale");
    broker.create(&[IN, OUT], 2).await;
    let mut one = broker.log("g", "s1", &[IN]);
    one.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut one).await;
    let end = one.transact(&[outgoing(OUT, "k", "1")], &[(ours[0], 5)], &meta).await;
    assert_eq!(end, Ended::Committed);
    // A second member joins; the first one takes part in the rebalance but keeps using what it knew.
    let mut two = broker.log("g", "s2", &[IN]);
    two.renew_producer(&[]).await.expect("a producer");
    let until = Instant::now() + Duration::from_secs(30);
    let mut theirs = Vec::new();
    while theirs.is_empty() && Instant::now() < until {
        one.poll(1, Duration::from_millis(50)).await.expect("polls");
        let polled = two.poll(1, Duration::from_millis(50)).await.expect("polls");
        if let Some(Change::Assigned(it)) = polled.changes.last() {
            theirs = it.clone();
        }
    }
    assert_eq!(theirs.len(), 1);
    let stale = one.transact(&[outgoing(OUT, "k", "2")], &[(theirs[0], 6)], &meta).await;
    assert!(matches!(stale, Ended::Stale(_)), "{stale:?}");
    assert_eq!(two.group_offset(ours[0]).await, Ok(Some(5)));
}

/// A record that a step made of the record at an offset of our input.
fn made(step: &'static str, partition: i32, offset: i64) -> Outgoing {
    let mut it = outgoing(OUT, "k", &format!("{step} {partition}/{offset}"));
    it.headers.cause_id = Some(EventId::default());
    it.headers.step = Some(step.into());
    it.headers.cause = Some((IN.name().into(), partition, offset));
    it
}

#[tokio::test]
async fn what_stands_is_found_by_the_record_it_came_of_and_what_a_new_producer_finds_open_is_aborted() {
    let broker = Broker::there("sent");
    broker.create(&[IN, OUT], 2).await;
    let mut one = broker.log("g", "same", &[IN]);
    let missing = [OUT, Topic::OrdersNoted];
    let until = Instant::now() + Duration::from_secs(20);
    let ends = loop {
        match one.ends(&missing).await {
            Ok(ends) => break ends,
            // A topic has no leader right after it was made.
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ends.len(), 2, "a topic that is not there has no ends");
    one.renew_producer(&missing).await.expect("a producer");
    one.confirm().await.expect("it is the only one");
    let (ours, meta) = assigned(&mut one).await;
    let sent = [made("us", 0, 7), made("them", 0, 7), made("us", 1, 3), made("us", 0, 9)];
    assert_eq!(one.transact(&sent, &[(ours[0], 10)], &meta).await, Ended::Committed);
    let written = loop {
        let ends = one.ends(&[OUT]).await.expect("asked");
        if ends.values().all(|it| it.stable == it.end) {
            break ends;
        }
        assert!(Instant::now() < until, "its end is written: {ends:?}");
    };
    one.send(&[made("us", 0, 10)]).await;
    let open = loop {
        let ends = one.ends(&[OUT]).await.expect("asked");
        if ends != written {
            break ends;
        }
        assert!(Instant::now() < until, "it is sent");
    };
    let differ: Vec<(&End, &End)> = open.values().zip(written.values()).filter(|(now, before)| now != before).collect();
    let [(now, before)] = differ[..] else { panic!("one partition has one more record: {open:?} {written:?}") };
    assert_eq!((now.stable, now.end), (before.end, before.end + 1));

    let mut two = broker.log("g", "same", &[IN]);
    two.renew_producer(&[OUT]).await.expect("a producer");
    assert!(one.confirm().await.is_err(), "it is not the only one any more");
    let look = |from: Ends| Look { steps: vec!["us".into()], from, causes: BTreeMap::from([(ours[0], 0)]) };
    let all = two.find(&look(written.keys().map(|at| (*at, 0)).collect())).await.expect("found");
    let found: Vec<i64> = all.records.keys().map(|(_, offset)| *offset).collect();
    assert_eq!((found, all.cut), (vec![7, 9], false));
    assert!(all.holds((ours[0], 7), sent[0].headers.event_id));
    assert!(!all.holds((ours[0], 7), sent[1].headers.event_id), "it is another step's");
    let later = two.find(&look(written.iter().map(|(at, it)| (*at, it.end)).collect())).await.expect("found");
    assert!(later.records.is_empty(), "what was open was aborted: {later:?}");
    let beyond = two.find(&look(written.keys().map(|at| (*at, 1_000)).collect())).await.expect("found");
    assert_eq!(beyond.records.len(), 2, "a topic that ends before is another one; all of it is looked at");
}

#[tokio::test]
async fn a_transaction_that_does_not_end_is_not_waited_for_longer_because_others_write() {
    let broker = Broker::there("open");
    broker.create(&[IN, OUT], 2).await;
    let mut log = broker.log("g", "same", &[IN]);
    log.renew_producer(&[]).await.expect("a producer");
    let at = |partition| TopicPartition { topic: OUT, partition };
    let name = format!("{}{OUT}", broker.prefix);
    let other: BaseProducer = client_config(&broker.brokers, &BTreeMap::new())
        .set("transactional.id", format!("{}other", broker.prefix))
        .set("transaction.timeout.ms", "60000")
        .create()
        .expect("a producer");
    other.init_transactions(Duration::from_secs(20)).expect("ready");
    other.begin_transaction().expect("begun");
    other.send(BaseRecord::to(&name).partition(0).key("k").payload("open")).expect("sent");
    let writer: BaseProducer = client_config(&broker.brokers, &BTreeMap::new()).create().expect("a producer");
    let theirs = name.clone();
    let write = move |count: usize| {
        for _ in 0..count {
            writer.send(BaseRecord::to(&theirs).partition(1).key("k").payload("more")).expect("sent");
        }
        writer.flush(Duration::from_secs(10)).expect("there");
    };
    write(1);
    other.flush(Duration::from_secs(10)).expect("there");
    let look = Look { steps: vec!["us".into()], from: [(at(0), 0), (at(1), 0)].into(), causes: BTreeMap::new() };
    let began = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&done);
    let busy = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(40) {
            write(200);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let found = log.find(&look).await;
    done.store(true, Ordering::Relaxed);
    busy.join().expect("it wrote");
    let error = found.expect_err("it is open").to_string();
    assert!(error.contains("orders.paid/0 is open"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    other.abort_transaction(Duration::from_secs(10)).expect("ended");
    assert!(log.find(&look).await.expect("found").records.is_empty());
}

#[tokio::test]
async fn the_older_producer_of_a_slot_is_fenced_and_the_newer_goes_on() {
    let broker = Broker::there("fence");
    broker.create(&[IN, OUT], 1).await;
    let mut one = broker.log("g", "same", &[IN]);
    one.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut one).await;
    assert_eq!(one.transact(&[outgoing(OUT, "k", "1")], &[(ours[0], 1)], &meta).await, Ended::Committed);
    let mut two = broker.log("other", "same", &[OUT]);
    two.renew_producer(&[]).await.expect("a producer");
    let fenced = one.transact(&[outgoing(OUT, "k", "2")], &[(ours[0], 2)], &meta).await;
    assert!(matches!(fenced, Ended::Fenced(_) | Ended::Aborted(_)), "{fenced:?}");
    assert_eq!(one.group_offset(ours[0]).await, Ok(Some(1)));
    one.renew_producer(&[]).await.expect("a producer");
    assert_eq!(one.transact(&[outgoing(OUT, "k", "3")], &[(ours[0], 3)], &meta).await, Ended::Committed);
    let (theirs, _) = assigned(&mut two).await;
    two.seek(theirs[0], 0).await.expect("seeks");
    let values: Vec<_> = read(&mut two, 2).await.into_iter().filter_map(|it| it.value).collect();
    assert_eq!(values, vec![b"1".to_vec(), b"3".to_vec()]);
}

#[tokio::test]
async fn what_was_sent_ahead_is_seen_with_its_transaction_and_never_without() {
    let broker = Broker::there("ahead");
    broker.create(&[IN, OUT], 1).await;
    let mut log = broker.log("g", "s", &[IN]);
    log.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut log).await;
    for give_up in [true, false] {
        let before = broker.end(OUT);
        log.send(&[outgoing(OUT, "k", "given up")]).await;
        let until = Instant::now() + Duration::from_secs(10);
        while broker.end(OUT) == before {
            assert!(Instant::now() < until, "it is stored within 10 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if give_up {
            log.give_up().await;
        }
        log.renew_producer(&[]).await.expect("a producer");
    }
    for value in ["1", "2"] {
        log.send(&[outgoing(OUT, "k", value)]).await;
    }
    assert_eq!(log.transact(&[outgoing(OUT, "k", "3")], &[(ours[0], 7)], &meta).await, Ended::Committed);
    assert_eq!(log.group_offset(ours[0]).await, Ok(Some(7)));
    let mut reader = broker.log("reader", "r", &[OUT]);
    let (theirs, _) = assigned(&mut reader).await;
    reader.seek(theirs[0], 0).await.expect("seeks");
    let values: Vec<_> = read(&mut reader, 3).await.into_iter().filter_map(|it| it.value).collect();
    assert_eq!(values, [b"1", b"2", b"3"].map(|it| it.to_vec()));
}

#[tokio::test]
async fn leaving_and_joining_again_makes_a_new_member_at_the_same_offset() {
    let broker = Broker::there("rejoin");
    broker.create(&[IN, OUT], 1).await;
    let mut log = broker.log("g", "s", &[IN]);
    log.renew_producer(&[]).await.expect("a producer");
    let (ours, before) = assigned(&mut log).await;
    assert_eq!(log.transact(&[outgoing(OUT, "k", "1")], &[(ours[0], 9)], &before).await, Ended::Committed);
    log.rejoin().await.expect("joins again");
    let (ours, after) = assigned(&mut log).await;
    assert_ne!(before.id, after.id);
    assert_eq!(log.group_offset(ours[0]).await, Ok(Some(9)));
    assert!(matches!(log.transact(&[], &[(ours[0], 10)], &before).await, Ended::Stale(_)));
}

#[tokio::test]
async fn every_partition_is_read_soon_after_its_position_is_set() {
    let broker = Broker::there("soon");
    let topics = [IN, OUT, Topic::OrdersNoted];
    broker.create(&topics, 2).await;
    let mut writer = broker.log("writer", "w", &[Topic::OrdersNoted]);
    writer.renew_producer(&[]).await.expect("a producer");
    let (_, meta) = assigned(&mut writer).await;
    let many: Vec<Outgoing> =
        topics.iter().flat_map(|&topic| (0..40).map(move |n| outgoing(topic, &format!("k{n}"), "v"))).collect();
    assert_eq!(writer.transact(&many, &[], &meta).await, Ended::Committed);
    let mut slowest = Duration::ZERO;
    for trial in 0..20 {
        let mut log = broker.log(&format!("g{trial}"), "s", &topics);
        let (ours, _) = assigned(&mut log).await;
        let began = Instant::now();
        for &at in &ours {
            log.seek(at, 0).await.expect("seeks");
        }
        let sought = began.elapsed();
        let records = read(&mut log, many.len()).await;
        assert_eq!(records.len(), many.len(), "after {:?}", began.elapsed());
        eprintln!("seeks took {sought:?}, all was read after {:?}", began.elapsed());
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn what_holds_no_record_is_passed_so_that_the_place_is_still_there_when_the_topic_has_expired() {
    let broker = Broker::there("passed");
    broker.create(&[IN], 1).await;
    let mut log = broker.log("g", "s1", &[IN]);
    log.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut log).await;
    let at = ours[0];
    assert_eq!(log.passed(), [], "nothing was read yet");
    log.seek(at, 0).await.expect("seeks");
    // A marker after three records, then two records of a transaction that comes to nothing, and its marker.
    let three: Vec<Outgoing> = (0..3).map(|n| outgoing(IN, "k", &n.to_string())).collect();
    assert_eq!(log.transact(&three, &[], &meta).await, Ended::Committed);
    log.send(&three[..2]).await;
    let until = Instant::now() + Duration::from_secs(10);
    while broker.end(IN) < 6 {
        assert!(Instant::now() < until, "what was sent does not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    log.give_up().await;
    log.renew_producer(&[]).await.expect("a producer");

    assert_eq!(read_one(&mut log).await.offset, 0);
    assert_eq!(log.passed(), [(at, 1)], "never more than was handed out");
    let records = read(&mut log, 2).await;
    assert_eq!(records.iter().map(|it| it.offset).collect::<Vec<_>>(), [1, 2]);
    let end = broker.end(IN);
    assert!(end > 6, "markers follow");
    passes(&mut log, (at, end)).await;

    log.seek(at, 2).await.expect("seeks");
    assert_eq!(log.passed(), [], "a seek begins anew");
    assert_eq!(read_one(&mut log).await.offset, 2);
    passes(&mut log, (at, end)).await;

    // As retention does once everything is old.
    let mut all = rdkafka::TopicPartitionList::new();
    all.add_partition_offset(&format!("{}{IN}", broker.prefix), 0, rdkafka::Offset::End).expect("a place");
    broker.admin.delete_records(&all, &AdminOptions::new()).await.expect("deleted");
    let facts = log.topic_facts(&[at], Ask::Anew).await.expect("facts");
    assert_eq!((facts[0].start, facts[0].end), (end, end));
    log.seek(at, end).await.expect("seeks");
    assert_eq!(log.transact(&three[..1], &[], &meta).await, Ended::Committed);
    assert_eq!(read_one(&mut log).await.offset, end);
}

async fn read_one(log: &mut KafkaLog) -> LogRecord {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(record) = log.poll(1, Duration::from_millis(100)).await.expect("polls").records.pop() {
            return record;
        }
    }
    panic!("no record within 20 s");
}

async fn passes(log: &mut KafkaLog, place: (TopicPartition, i64)) {
    let until = Instant::now() + Duration::from_secs(20);
    while log.passed() != [place] {
        assert!(Instant::now() < until, "passed {:?}, not {place:?}", log.passed());
        assert_eq!(log.poll(10, Duration::from_millis(100)).await.expect("polls").records, []);
    }
}
