//! The timer source on a real Postgres (`KEPT_POSTGRES`): what leaves when a timer is due, and how often.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kept_runtime::{
    log::{LogError, Outgoing},
    schemas::Fixed,
    timers::{self, Outbox},
};
use kept_schemas::{
    EventId, OrderId, Topic, codec,
    inputs::{DeadlineReached, TimerPurpose},
};
use kept_store::{
    PgTimers, Prefix, drop_all, migrate,
    pg::{Purpose, connect},
};

/// Refuses the first, keeps the rest.
#[derive(Default)]
struct Kept {
    refused: usize,
    sent: Vec<Outgoing>,
}

impl Outbox for Kept {
    async fn send(&mut self, outgoing: Vec<Outgoing>) -> Result<(), LogError> {
        if self.refused == 0 {
            self.refused = outgoing.len();
            return Err(LogError::Retry("no broker yet".into()));
        }
        self.sent.extend(outgoing);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_timer_leaves_as_the_same_event_whoever_sends_it_and_is_not_sent_at_every_look() {
    let url = std::env::var("KEPT_POSTGRES").expect("KEPT_POSTGRES names a Postgres to test with (`./kept test`)");
    let prefix = Prefix::new(&format!("tim{}_", std::process::id())).expect("a prefix");
    drop_all(&url, &prefix).await.expect("what an older run with our pid left can be dropped");
    migrate(&url, &prefix).await.expect("migrations run");
    let order = OrderId::of("shop", "1");
    let client = connect(&url, &prefix.ledger(), Purpose::Command).await.expect("a session");
    client.execute("INSERT INTO orders (order_id) VALUES ($1)", &[&order.0]).await.expect("an order");
    client
        .batch_execute(
            "INSERT INTO timers (order_no, timer_id, purpose, revision, due_at)
             SELECT order_no, 'despatch/f1', 'despatch_due', 3, now() - interval '1 hour' FROM orders;
             INSERT INTO timers (order_no, timer_id, purpose, revision, due_at)
             SELECT order_no, 'hold', 'hold_due', 0, now() + interval '1 hour' FROM orders",
        )
        .await
        .expect("timers");

    let codec = codec::offline();
    let mut by_process = Vec::new();
    for _ in 0..2 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut timers = PgTimers::connect(&url, &prefix).await.expect("timers");
        let (mut outbox, schemas) = (Kept::default(), Fixed(Arc::new(codec.clone())));
        let run = timers::run(&mut timers, &mut outbox, &schemas, Duration::from_millis(20), &stop);
        let end = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            stop.store(true, Ordering::Relaxed);
        };
        let (ended, ()) = tokio::join!(run, end);
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(
            (outbox.refused, outbox.sent.len()),
            (1, 1),
            "what was refused at once, what was sent not yet again"
        );
        by_process.extend(outbox.sent);
    }
    drop_all(&url, &prefix).await.expect("dropped");

    assert_eq!(by_process[0], by_process[1], "after a restart it is the same event");
    let sent = &by_process[0];
    assert_eq!((sent.topic, sent.key.as_slice()), (Topic::DeadlinesReached, order.to_string().as_bytes()));
    let id = EventId::of_input("timers", &format!("{order}/despatch/f1"), &3_i64.to_be_bytes());
    assert_eq!(sent.headers.event_id, Some(id));
    let value: DeadlineReached = codec.decode(&sent.value).expect("it reads").expect("known");
    assert_eq!(
        (value.order_id, value.timer_id.as_str(), value.purpose, value.revision),
        (order, "despatch/f1", TimerPurpose::DespatchDue, 3)
    );
}
