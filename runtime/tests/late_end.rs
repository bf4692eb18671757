//! A transaction's end that is delayed on its way, through a proxy before a real broker (`KEPT_KAFKA`). The client
//! library repeats it by itself and reports plain success; only its log tells, and this test fails when the words of
//! that log change.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kept_runtime::{
    kafka::{KafkaLog, KafkaSettings, Member, client_config},
    log::{Change, Ended, Log, Outgoing},
};
use kept_schemas::{Headers, Topic};
use kept_stack::proxy::{Proxy, Speech};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

async fn assigned(log: &mut KafkaLog) -> (Vec<kept_store::seam::TopicPartition>, Member) {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let polled = log.poll(10, Duration::from_millis(100)).await.expect("polls");
        if let (Some(Change::Assigned(ours)), Some(meta)) = (polled.changes.last(), polled.meta) {
            return (ours.clone(), meta);
        }
    }
    panic!("no assignment within 30 s");
}

// The log blocks its thread; the proxy needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_was_tried_twice_is_noticed_and_its_first_try_hits_nothing_after_a_new_producer() {
    let brokers = std::env::var("KEPT_KAFKA").expect("KEPT_KAFKA names a broker to test with (`./kept test`)");
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let prefix = format!("late{nanos}.");
    let admin: AdminClient<DefaultClientContext> =
        client_config(&brokers, &BTreeMap::new()).create().expect("admin client");
    let topics = [Topic::PaymentsReceived, Topic::OrdersPaid, Topic::DeadLetters];
    let names = topics.map(|topic| format!("{prefix}{topic}"));
    let new: Vec<NewTopic<'_>> = names.iter().map(|it| NewTopic::new(it, 1, TopicReplication::Fixed(1))).collect();
    admin.create_topics(&new, &AdminOptions::new()).await.expect("created");

    let proxy = Proxy::start("127.0.0.1:0", &brokers, Speech::Kafka { rename: true }, 1).await.expect("a proxy");
    let settings = |brokers: String, group: &str, topic: Topic| KafkaSettings {
        brokers,
        prefix: prefix.clone(),
        group: format!("{prefix}{group}"),
        transactional_id: format!("{prefix}{group}"),
        topics: vec![topic],
        properties: BTreeMap::new(),
    };
    let mut log = KafkaLog::new(settings(proxy.address().to_string(), "g", Topic::PaymentsReceived)).expect("a log");
    log.renew_producer(&[]).await.expect("a producer");
    let (ours, meta) = assigned(&mut log).await;
    let out = |value: &str| {
        vec![Outgoing {
            topic: Topic::OrdersPaid,
            key: b"k".to_vec(),
            value: value.as_bytes().to_vec(),
            headers: Headers::default(),
        }]
    };
    assert_eq!(log.transact(&out("one"), &[(ours[0], 1)], &meta).await, Ended::Committed);
    proxy.hold_next_end(&prefix);
    assert_eq!(log.transact(&out("two"), &[(ours[0], 2)], &meta).await, Ended::CommittedTwice);
    assert_eq!(log.group_offset(ours[0]).await, Ok(Some(2)));
    // Without a new producer the next transaction is refused here, before it begins.
    assert!(matches!(log.transact(&out("never"), &[(ours[0], 9)], &meta).await, Ended::Aborted(_)));
    log.renew_producer(&[]).await.expect("a producer");
    // The first try arrives only now.
    let late = proxy.held_end(Duration::ZERO).await.expect("it was kept back");
    let code = proxy.deliver(&late).await.expect("an answer");
    eprintln!("the late end is answered with the error code {code}");
    assert_eq!(log.transact(&out("three"), &[(ours[0], 3)], &meta).await, Ended::Committed);
    assert_eq!(log.group_offset(ours[0]).await, Ok(Some(3)));

    let mut reader = KafkaLog::new(settings(brokers, "reader", Topic::OrdersPaid)).expect("a log");
    let (theirs, _) = assigned(&mut reader).await;
    reader.seek(theirs[0], 0).await.expect("seeks");
    let mut values = Vec::new();
    let until = Instant::now() + Duration::from_secs(15);
    while values.len() < 3 && Instant::now() < until {
        let polled = reader.poll(10, Duration::from_millis(200)).await.expect("polls");
        values.extend(polled.records.into_iter().filter_map(|it| it.value));
    }
    assert_eq!(values, vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
}
