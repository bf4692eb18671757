//! A transaction's end that is delayed on its way, through a proxy before a real broker (`KEPT_KAFKA`). The client
//! library repeats it by itself and reports plain success; only its log tells, and this test fails when the words of
//! that log change.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kept_runtime::{
    kafka::{KafkaLog, KafkaSettings, Member, client_config},
    log::{Change, Ended, Log, Outgoing},
};
use kept_schemas::{Headers, Topic};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

const END_TXN: i16 = 26;

/// Keeps back the next end of a transaction while armed.
#[derive(Default)]
struct Held {
    armed: AtomicBool,
    frame: Mutex<Option<Vec<u8>>>,
}

fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut whole = length.to_vec();
    whole.resize(4 + usize::try_from(i32::from_be_bytes(length)).ok()?, 0);
    from.read_exact(&mut whole[4..]).ok()?;
    Some(whole)
}

/// A proxy that speaks Kafka's framing; answers name it instead of the broker, so that clients stay with it.
fn proxy(broker: &str, held: &Arc<Held>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (host, broker_port) = broker.rsplit_once(':').expect("host:port");
    let mut theirs = host.as_bytes().to_vec();
    let mut ours = theirs.clone();
    theirs.extend_from_slice(&broker_port.parse::<i32>().expect("a port").to_be_bytes());
    ours.extend_from_slice(&i32::from(port).to_be_bytes());
    let (broker, held) = (broker.to_owned(), Arc::clone(held));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&broker) else {
                continue;
            };
            let (mut from_client, mut to_client) = (client.try_clone().expect("a socket"), client);
            let (mut from_server, mut to_server) = (server.try_clone().expect("a socket"), server);
            let held = Arc::clone(&held);
            std::thread::spawn(move || {
                while let Some(request) = frame(&mut from_client) {
                    let end = i16::from_be_bytes([request[4], request[5]]) == END_TXN;
                    if end && held.armed.swap(false, Ordering::SeqCst) {
                        *held.frame.lock().expect("not poisoned") = Some(request);
                        continue;
                    }
                    if to_server.write_all(&request).is_err() {
                        break;
                    }
                }
                let _ = to_server.shutdown(std::net::Shutdown::Both);
            });
            let (theirs, ours) = (theirs.clone(), ours.clone());
            std::thread::spawn(move || {
                while let Some(mut answer) = frame(&mut from_server) {
                    for at in 0..answer.len().saturating_sub(theirs.len() - 1) {
                        if answer[at..at + theirs.len()] == theirs[..] {
                            answer[at..at + ours.len()].copy_from_slice(&ours);
                        }
                    }
                    if to_client.write_all(&answer).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

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

#[tokio::test]
async fn an_end_that_was_tried_twice_is_noticed_and_its_first_try_hits_nothing_after_a_new_producer() {
    let Ok(brokers) = std::env::var("KEPT_KAFKA") else {
        eprintln!("KEPT_KAFKA is not set: not tested against a broker");
        return;
    };
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let prefix = format!("late{nanos}.");
    let admin: AdminClient<DefaultClientContext> =
        client_config(&brokers, &BTreeMap::new()).create().expect("admin client");
    let names = [format!("{prefix}{}", Topic::PaymentsReceived), format!("{prefix}{}", Topic::OrdersPaid)];
    let new: Vec<NewTopic<'_>> = names.iter().map(|it| NewTopic::new(it, 1, TopicReplication::Fixed(1))).collect();
    admin.create_topics(&new, &AdminOptions::new()).await.expect("created");

    let held: Arc<Held> = Arc::default();
    let port = proxy(&brokers, &held);
    let settings = |brokers: String, group: &str, topic: Topic| KafkaSettings {
        brokers,
        prefix: prefix.clone(),
        group: format!("{prefix}{group}"),
        transactional_id: format!("{prefix}{group}"),
        topics: vec![topic],
        properties: BTreeMap::new(),
    };
    let mut log = KafkaLog::new(settings(format!("127.0.0.1:{port}"), "g", Topic::PaymentsReceived)).expect("a log");
    log.renew_producer().await.expect("a producer");
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
    held.armed.store(true, Ordering::SeqCst);
    assert_eq!(log.transact(&out("two"), &[(ours[0], 2)], &meta).await, Ended::CommittedTwice);
    assert_eq!(log.group_offset(ours[0]).await, Ok(Some(2)));
    // Without a new producer the next transaction is refused here, before it begins.
    assert!(matches!(log.transact(&out("never"), &[(ours[0], 9)], &meta).await, Ended::Aborted(_)));
    log.renew_producer().await.expect("a producer");
    // The first try arrives only now.
    let late = held.frame.lock().expect("not poisoned").take().expect("it was kept back");
    let mut direct = TcpStream::connect(&brokers).expect("the broker");
    direct.write_all(&late).expect("sent");
    direct.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    let answer = frame(&mut direct).expect("an answer");
    let code = answer[answer.len() - 3..].to_vec();
    eprintln!("the late end is answered with the bytes {code:?}");
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
