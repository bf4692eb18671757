//! The ledger's seam against a real Postgres: what a worker may rely on, and what it is protected from.

mod common;

use std::{future::Future as _, time::Duration};

use common::Deployment;
use kept_processors::ledger::{
    Cause, Content, FulfilmentState, FulfilmentStatus, LedgerEvent, LineState, OrderState, Sku, StockKey, StockRow,
    Timer,
};
use kept_schemas::{
    EventId, Headers, Micros, OrderId, Party, Topic, codec,
    events::{FulfilmentRequested, OrderAccepted, OrderHeld, StockChanged},
    inbound::{Enrichment, ReferenceVersion},
    inputs::{Condition, TimerPurpose},
    order::Address,
};
use kept_store::{
    PgLedger, PgTimers,
    answers::{self, Known},
    calls::{Call, CallState, call_id},
    gauges, journal,
    parked::{self, Fate},
    pg::{Purpose, connect},
    reference::{self, Recheck},
    schemas,
    seam::{
        Advance, DecidedWith, Ends, JournalRow, Keys, Ledger, LedgerError, LedgerTxn, LetGo, Locked, Parked, Queue,
        Timers, TopicPartition, Written,
    },
};

/// What a ledger's session must have (times in milliseconds), so that a worker that was stopped or cut off holds nobody up.
const SESSION: [(&str, &str); 7] = [
    ("idle_in_transaction_session_timeout", "5000"),
    ("lock_timeout", "5000"),
    ("statement_timeout", "30000"),
    ("tcp_user_timeout", "8000"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("synchronous_commit", "on"),
];

const AT: TopicPartition = TopicPartition { topic: Topic::OrdersValidated, partition: 0 };

async fn ledger(on: &Deployment) -> PgLedger {
    PgLedger::connect(&on.url, &on.prefix, "ledger").await.expect("a ledger")
}

fn step(epoch: i64, from: i64, to: i64) -> Advance {
    Advance { at: AT, owner_epoch: epoch, from_offset: from, to_offset: to }
}

fn id(number: u32) -> OrderId {
    OrderId::of("shop.nl", &number.to_string())
}

fn cause(offset: i64) -> Cause {
    Cause {
        event_id: EventId::of_input("test", "cause", &offset.to_be_bytes()),
        topic: AT.topic,
        partition: AT.partition,
        offset,
        traceparent: None,
    }
}

fn row(event: impl Into<LedgerEvent>, cause: &Cause, index: u32) -> (Option<LedgerEvent>, JournalRow) {
    let event = event.into();
    let codec = codec::offline();
    let row = JournalRow {
        journal_id: 0,
        topic: event.topic(),
        key: event.key(),
        wire: event.encode(&codec).expect("an event fits its schema"),
        headers: Headers {
            event_id: Some(EventId::of_step("ledger", cause.event_id, index)),
            cause_id: Some(cause.event_id),
            traceparent: cause.traceparent.clone(),
            subject: Some(event.topic().subject().into()),
            step: Some("ledger".into()),
            cause: Some((cause.topic.name().into(), cause.partition, cause.offset)),
            index: Some(index),
            fused_by: None,
        },
        order: event.place(),
        cause: cause.clone(),
        index,
    };
    (Some(event), row)
}

fn held(order: OrderId, seq: i64) -> OrderHeld {
    OrderHeld { order_id: order, seq, ..Default::default() }
}

async fn lock(txn: &mut impl LedgerTxn, orders: &[OrderId], skus: &[&str]) -> Locked {
    let keys = Keys { orders: orders.to_vec(), contents: orders.to_vec(), ..Keys::default() };
    let wanted: Vec<Sku> = skus.iter().map(|sku| (*sku).to_owned()).collect();
    txn.lock(&keys, &mut |_| wanted.clone()).await.expect("locks")
}

/// Moves the partition on by one and writes `change`d facts of `orders` and `skus` with their events.
async fn one_batch(
    ledger: &mut PgLedger,
    (epoch, offset): (i64, i64),
    (orders, skus): (&[OrderId], &[&str]),
    change: impl FnOnce(&mut Locked) -> Vec<(Option<LedgerEvent>, JournalRow)>,
) -> Result<(), LedgerError> {
    let mut txn = ledger.begin().await?;
    assert!(txn.advance(&[step(epoch, offset, offset + 1)]).await?, "the partition is ours and stands there");
    let mut locked = lock(&mut txn, orders, skus).await;
    let events = change(&mut locked);
    txn.write(&Written { facts: locked.facts, events, ..Written::default() }).await?;
    txn.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_taken_with_a_rising_epoch_and_keeps_its_place() {
    let on = Deployment::new().await;
    let mut first = ledger(&on).await;
    assert_eq!(first.progress(AT).await, Ok(None));
    let taken = first.take(AT, "topic-1", 40).await.expect("taken");
    assert_eq!((taken.next_offset, taken.owner_epoch, taken.emitted_floor, taken.clean), (40, 1, 40, true));

    let mut txn = first.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 40, 45)]).await.expect("advances"));
    txn.commit().await.expect("commits");
    first.emitted(&[(AT, 41)], &Ends::new()).await.expect("noted");

    let mut second = ledger(&on).await;
    let taken = second.take(AT, "other", 0).await.expect("taken over");
    assert_eq!((taken.next_offset, taken.owner_epoch, taken.emitted_floor), (45, 2, 41));
    assert_eq!((taken.topic_id.as_str(), taken.clean), ("topic-1", false), "the stored id, for the driver to compare");

    second.leave(&[(AT, 2)]).await.expect("left");
    let mut third = ledger(&on).await;
    assert!(third.take(AT, "topic-1", 0).await.expect("taken").clean, "it was left in good order");
    assert!(second.progress(AT).await.is_ok(), "who left in good order keeps its session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_at_another_offset_or_under_a_stale_epoch_does_not_happen() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    for miss in [step(1, 5, 6), step(0, 0, 1), step(2, 0, 1)] {
        let mut txn = ledger.begin().await.expect("a transaction");
        assert!(!txn.advance(&[miss]).await.expect("an answer"));
        assert!(matches!(txn.commit().await, Err(LedgerError::Refused(_))), "nothing to commit after a miss");
    }
    let other = TopicPartition { topic: Topic::CommandsReceived, partition: 3 };
    let unknown = Advance { at: other, ..step(1, 0, 1) };
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(!txn.advance(&[step(1, 0, 1), unknown]).await.expect("an answer"), "one miss is a miss of all");
    drop(txn);
    assert_eq!(ledger.progress(AT).await.expect("progress").expect("a row").next_offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_a_partition_over_ends_the_session_of_a_stopped_owner_and_its_locks() {
    let on = Deployment::new().await;
    let mut zombie = ledger(&on).await;
    zombie.take(AT, "t", 0).await.expect("taken");
    let mut stuck = zombie.begin().await.expect("a transaction");
    assert!(stuck.advance(&[step(1, 0, 1)]).await.expect("advances"));
    lock(&mut stuck, &[id(1)], &["A"]).await;

    let mut next = ledger(&on).await;
    let taken =
        tokio::time::timeout(Duration::from_secs(3), next.take(AT, "t", 0)).await.expect("at once").expect("taken");
    assert_eq!((taken.next_offset, taken.owner_epoch), (0, 2));
    one_batch(&mut next, (2, 0), (&[id(1)], &["A"]), |_| Vec::new()).await.expect("the locks are free");

    assert!(matches!(stuck.commit().await, Err(LedgerError::Lost(_))));
    zombie.reconnect().await.expect("a new session");
    let mut late = zombie.begin().await.expect("a transaction");
    assert!(!late.advance(&[step(1, 0, 1)]).await.expect("an answer"), "the old epoch is worth nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_reply_is_lost_shows_in_the_progress_after_reconnecting() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let watcher = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    // Ended before COMMIT: it did not happen, and the driver is told that it cannot know.
    let pid = ledger.backend_pid();
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 0, 7)]).await.expect("advances"));
    watcher.query_one("SELECT pg_terminate_backend($1, 3000)", &[&pid]).await.expect("ended");
    assert!(matches!(txn.commit().await, Err(LedgerError::Lost(_))));
    ledger.reconnect().await.expect("a new session");
    assert_eq!(ledger.progress(AT).await.expect("progress").expect("a row").next_offset, 0);
    // Dropped while COMMIT is under way: after reconnecting it has happened or not, and stays so.
    let epoch = ledger.take(AT, "t", 0).await.expect("taken").owner_epoch;
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(epoch, 0, 7)]).await.expect("advances"));
    let mut commit = Box::pin(txn.commit());
    let nothing_yet = std::future::poll_fn(|cx| std::task::Poll::Ready(commit.as_mut().poll(cx).is_pending())).await;
    drop(commit);
    ledger.reconnect().await.expect("a new session");
    let next = ledger.progress(AT).await.expect("progress").expect("a row").next_offset;
    assert!(next == 7 || (nothing_yet && next == 0), "{next}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ledger.progress(AT).await.expect("progress").expect("a row").next_offset, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_contents_stock_and_causes_read_back_as_they_were_written() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let (order, first) = (id(1), cause(0));
    let key = StockKey { sku: "A".into(), location_id: "north".into(), condition: Condition::Sellable };
    let party = Party { ship_to: Address { name: "someone".into(), ..Default::default() }, ..Default::default() };

    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 0, 1)]).await.expect("advances"));
    let mut locked = lock(&mut txn, &[order], &["A", "B"]).await;
    assert!(locked.facts.now.0 > 1_700_000_000 * Micros::SECOND);
    let fresh = locked.facts.orders[&order].clone();
    assert_eq!(fresh, OrderState { order_id: order, order_no: 1, ..Default::default() });
    assert_eq!(locked.facts.claims.get("A"), Some(&0));
    let state = OrderState {
        seq: 1,
        accepted: true,
        fulfilments: vec![FulfilmentState {
            fulfilment_id: "f".into(),
            location_id: "north".into(),
            status: FulfilmentStatus::Requested,
            pinned: vec![(1, 2)],
            picked: vec![],
            late: false,
        }],
        ..fresh
    };
    let content = Content { party: party.clone(), ..Default::default() };
    locked.facts.orders.insert(order, state.clone());
    locked.facts.contents.insert(order, content.clone());
    locked.facts.claims.insert("A".into(), 3);
    let stock = StockRow { on_hand: 9, reserved: 4, picked: 1, unbacked: 2, version: 1 };
    locked.facts.stock.insert(key.clone(), stock);
    let moved =
        StockChanged { sku: "A".into(), location_id: "north".into(), movement: "count".into(), ..Default::default() };
    let written = Written {
        facts: locked.facts,
        events: vec![row(held(order, 1), &first, 0), row(moved, &first, 1)],
        acted: vec![(Some(order), first.event_id), (None, first.event_id)],
        ..Written::default()
    };
    txn.write(&written).await.expect("writes");
    txn.commit().await.expect("commits");

    let mut txn = ledger.begin().await.expect("a transaction");
    let keys = Keys {
        orders: vec![order, id(2)],
        contents: vec![order, id(2)],
        causes: vec![(order, first.event_id), (id(2), first.event_id), (order, cause(1).event_id)],
        skus: vec!["B".into()],
        stock_causes: vec![first.event_id, cause(1).event_id],
    };
    let locked =
        txn.lock(&keys, &mut |facts| facts.orders.keys().map(|_| "A".to_owned()).collect()).await.expect("locks");
    assert_eq!(locked.facts.orders[&order], state);
    assert_eq!(locked.facts.orders[&id(2)].order_no, 2, "numbers are not used up by orders that are known");
    assert_eq!(locked.facts.contents.get(&order), Some(&content));
    assert_eq!(locked.facts.contents.get(&id(2)), None);
    assert_eq!(locked.facts.claims, [("A".to_owned(), 3), ("B".to_owned(), 0)].into());
    assert_eq!(locked.facts.stock, [(key, stock)].into());
    assert_eq!(locked.acted, [(Some(order), first.event_id), (None, first.event_id)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_decisions_are_made_with_is_kept_from_its_offset_on() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    let epoch = ledger.take(AT, "topic-1", 40).await.expect("taken").owner_epoch;
    for (from, version) in [(40, 7), (45, 8)] {
        let mut txn = ledger.begin().await.expect("a transaction");
        assert!(txn.advance(&[step(epoch, from, from + 5)]).await.expect("advances"));
        let versions = [(Topic::ReferenceProducts, version)].into();
        let with = vec![DecidedWith { at: AT, from_offset: from, code: "1.2.3".into(), versions }];
        txn.write(&Written { with, ..Written::default() }).await.expect("written");
        txn.commit().await.expect("commits");
    }
    let watcher = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let rows = watcher
        .query("SELECT from_offset, code, versions FROM decided_with ORDER BY from_offset", &[])
        .await
        .expect("rows");
    let rows: Vec<(i64, String, String)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let row = |from, version| (from, "1.2.3".to_owned(), format!(r#"{{"reference.products":{version}}}"#));
    assert_eq!(rows, [row(40, 7), row(45, 8)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_changed_is_not_written() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let orders = [id(1), id(2)];
    one_batch(&mut ledger, (1, 0), (&orders, &["A"]), |locked| {
        for order in locked.facts.orders.values_mut() {
            order.seq = 1;
        }
        Vec::new()
    })
    .await
    .expect("commits");
    let watcher = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let versions = async || {
        let rows = watcher
            .query("SELECT order_id, state, updated_at::text FROM orders JOIN states USING (order_no) ORDER BY 1", &[])
            .await;
        rows.expect("rows")
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect::<Vec<(uuid::Uuid, String, String)>>()
    };
    let before = versions().await;
    one_batch(&mut ledger, (1, 1), (&orders, &["A"]), |locked| {
        locked.facts.orders.get_mut(&id(2)).expect("locked").seq = 2;
        Vec::new()
    })
    .await
    .expect("commits");
    let after = versions().await;
    let changed: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).map(|(old, _)| old.0).collect();
    assert_eq!(changed, [id(2).0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_and_timers_follow_the_state() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let order = id(1);
    let line = |sku: &str, claimed| {
        // What nobody knows cannot be waited for.
        LineState { sku: sku.into(), quantity: 2, claimed, known: sku != "?", ..Default::default() }
    };
    let timer = |name: &str, revision, due: i64| Timer {
        timer_id: name.into(),
        purpose: TimerPurpose::HoldDue,
        revision,
        due_at: Micros(due),
    };
    type Change = Box<dyn Fn(&mut OrderState)>;
    /// What changes, the SKUs waited for after it, and the timers with their revision.
    type Step<'a> = (Change, &'a [&'a str], &'a [(&'a str, i64)]);
    let steps: Vec<Step> = vec![
        (Box::new(move |it| it.lines = vec![line("A", 0), line("B", 1), line("C", 2), line("?", 0)]), &[], &[]),
        (Box::new(|it| it.accepted = true), &["A", "B"], &[]),
        (
            Box::new(move |it| it.timers = vec![timer("one", 0, 5), timer("two", 0, i64::MAX)]),
            &["A", "B"],
            &[("one", 0), ("two", 0)],
        ),
        (
            Box::new(move |it| {
                it.lines[0].claimed = 2;
                it.timers = vec![timer("two", 1, 7)]
            }),
            &["B"],
            &[("two", 1)],
        ),
        (Box::new(|it| it.cancelled = true), &[], &[("two", 1)]),
        (
            Box::new(|it| {
                it.cancelled = false;
                it.test = true;
                it.timers.clear()
            }),
            &[],
            &[],
        ),
    ];
    let watcher = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    for (offset, (change, waits, timers)) in steps.into_iter().enumerate() {
        let offset = i64::try_from(offset).expect("few steps");
        one_batch(&mut ledger, (1, offset), (&[order], &[]), |locked| {
            let state = locked.facts.orders.get_mut(&order).expect("locked");
            state.seq += 1;
            change(state);
            Vec::new()
        })
        .await
        .expect("commits");
        let rows = watcher.query("SELECT sku FROM waits ORDER BY sku", &[]).await.expect("rows");
        assert_eq!(rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>(), waits, "step {offset}");
        let rows = watcher.query("SELECT timer_id, revision FROM timers ORDER BY timer_id", &[]).await.expect("rows");
        assert_eq!(
            rows.iter().map(|row| (row.get::<_, &str>(0), row.get(1))).collect::<Vec<(&str, i64)>>(),
            timers,
            "step {offset}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_sku_is_heard_first_come_first() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    for (offset, order) in [id(7), id(3), id(5)].into_iter().enumerate() {
        one_batch(&mut ledger, (1, i64::try_from(offset).expect("few")), (&[order], &[]), |locked| {
            let state = locked.facts.orders.get_mut(&order).expect("locked");
            (state.seq, state.accepted) = (1, true);
            state.lines = vec![LineState { sku: "A".into(), quantity: 1, known: true, ..Default::default() }];
            Vec::new()
        })
        .await
        .expect("commits");
    }
    let mut txn = ledger.begin().await.expect("a transaction");
    let locked = lock(&mut txn, &[], &["A", "B"]).await;
    assert_eq!(locked.facts.waiting, [("A".to_owned(), vec![id(7), id(3), id(5)])].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_began_to_wait_for_a_new_sku_is_heard_by_who_was_held_up_by_it() {
    let on = Deployment::new().await;
    let other = TopicPartition { topic: Topic::StockCounted, partition: 0 };
    let mut orders = ledger(&on).await;
    let mut counts = ledger(&on).await;
    orders.take(AT, "t", 0).await.expect("taken");
    counts.take(other, "u", 0).await.expect("taken");
    let mut short = orders.begin().await.expect("a transaction");
    assert!(short.advance(&[step(1, 0, 1)]).await.expect("advances"));
    let mut locked = lock(&mut short, &[id(1)], &["A"]).await;
    let state = locked.facts.orders.get_mut(&id(1)).expect("locked");
    (state.seq, state.accepted) = (1, true);
    state.lines = vec![LineState { sku: "A".into(), quantity: 1, known: true, ..Default::default() }];
    short.write(&Written { facts: locked.facts, ..Written::default() }).await.expect("writes");

    let held_up = counts.backend_pid();
    let watcher = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let mut count = counts.begin().await.expect("a transaction");
    let committed = async {
        let waits = "SELECT wait_event_type IS NOT DISTINCT FROM 'Lock' FROM pg_stat_activity WHERE pid = $1";
        while !watcher.query_one(waits, &[&held_up]).await.expect("a row").get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        short.commit().await.expect("commits");
    };
    let (locked, ()) = tokio::join!(lock(&mut count, &[], &["A"]), committed);
    assert_eq!(locked.facts.waiting, [("A".to_owned(), vec![id(1)])].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_that_contradicts_itself_is_refused_and_nothing_of_the_batch_happens() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    for (on_hand, reserved, picked) in [(1, 2, 0), (2, 1, 2), (-1, -1, -1)] {
        let refused = one_batch(&mut ledger, (1, 0), (&[id(1)], &["A"]), |locked| {
            let key = StockKey { sku: "A".into(), location_id: "north".into(), condition: Condition::Sellable };
            locked.facts.stock.insert(key, StockRow { on_hand, reserved, picked, unbacked: 0, version: 1 });
            locked.facts.orders.get_mut(&id(1)).expect("locked").seq = 1;
            Vec::new()
        })
        .await;
        let Err(LedgerError::Refused(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("stock_counts_agree"), "{text}");
    }
    assert_eq!(ledger.progress(AT).await.expect("progress").expect("a row").next_offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_which_something_failed_cannot_be_committed() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 0, 1)]).await.expect("advances"));
    let mut locked = lock(&mut txn, &[], &["A"]).await;
    locked.facts.claims.insert("A".into(), -1);
    assert!(matches!(
        txn.write(&Written { facts: locked.facts, ..Written::default() }).await,
        Err(LedgerError::Refused(_))
    ));
    assert!(matches!(txn.commit().await, Err(LedgerError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unemitted_events_come_back_as_they_were_written_in_whole_causes() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let orders = [id(1), id(2)];
    let traced =
        Cause { traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()), ..cause(5) };
    let party = Party { ship_to: Address { city: "Utrecht".into(), ..Default::default() }, ..Default::default() };
    let mut events = Vec::new();
    for index in 0..3 {
        events.push(row(held(id(1), 1 + i64::from(index)), &traced, index));
    }
    events.push(row(StockChanged { sku: "A".into(), ..Default::default() }, &cause(6), 0));
    events.push(row(OrderAccepted { order_id: id(2), seq: 1, party, ..Default::default() }, &cause(9), 0));
    events.push(row(FulfilmentRequested { order_id: id(2), seq: 2, ..Default::default() }, &cause(9), 1));
    events[5].1.headers.fused_by = Some("somebody".into());
    let written: Vec<JournalRow> = events.iter().map(|(_, row)| row.clone()).collect();
    one_batch(&mut ledger, (1, 0), (&orders, &[]), |locked| {
        for order in locked.facts.orders.values_mut() {
            order.seq = 3;
        }
        events
    })
    .await
    .expect("commits");

    let (all, up_to) = ledger.unemitted(AT, 0, 10, 100).await.expect("rows");
    assert_eq!(up_to, 10);
    assert!(all.is_sorted_by_key(|row| row.journal_id) && all[0].journal_id > 0);
    let unnumbered: Vec<JournalRow> = all.iter().cloned().map(|row| JournalRow { journal_id: 0, ..row }).collect();
    assert_eq!(unnumbered, written);

    for (from, to, limit, count, complete) in
        [(0, 10, 1, 3, 6), (6, 10, 1, 1, 7), (7, 10, 1, 2, 10), (0, 10, 4, 4, 7), (0, 9, 100, 4, 9), (6, 6, 5, 0, 6)]
    {
        let (rows, up_to) = ledger.unemitted(AT, from, to, limit).await.expect("rows");
        assert_eq!((rows.len(), up_to), (count, complete), "from {from} to {to} by {limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_is_erased_while_a_batch_has_it_in_hand_is_not_written_again() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let mut eraser = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let party = Party { ship_to: Address { city: "Utrecht".into(), ..Default::default() }, ..Default::default() };
    let accepted = |seq| OrderAccepted { order_id: id(1), seq, party: party.clone(), ..Default::default() };
    let written = |mut locked: Locked, seq| {
        locked.facts.orders.get_mut(&id(1)).expect("locked").seq = seq;
        locked.facts.contents.insert(id(1), Content { party: party.clone(), ..Default::default() });
        let events = vec![row(accepted(seq), &cause(seq - 1), 0), row(held(id(1), seq + 1), &cause(seq - 1), 1)];
        Written { facts: locked.facts, events, ..Written::default() }
    };
    one_batch(&mut ledger, (1, 0), (&[id(1)], &[]), |_| Vec::new()).await.expect("its row is there");
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 1, 2)]).await.expect("advances"));
    let locked = lock(&mut txn, &[id(1)], &[]).await;
    let finish = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        txn.write(&written(locked, 1)).await.expect("writes");
        txn.commit().await.expect("commits");
    };
    assert_eq!(journal::erase(&mut eraser, id(7)).await.expect("asked"), None, "of an order that is not there");
    let (forgotten, ()) = tokio::join!(journal::erase(&mut eraser, id(1)), finish);
    assert_eq!(forgotten.expect("erased"), Some(2), "it waited for the batch: the content and one event");

    // A correction that was on its way still has the person.
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 2, 4)]).await.expect("advances"));
    let locked = lock(&mut txn, &[id(1)], &[]).await;
    txn.write(&written(locked, 3)).await.expect("writes");
    txn.commit().await.expect("commits");
    for table in ["contents", "journal"] {
        let query = format!("SELECT count(*) FROM {table} WHERE party <> ''::bytea");
        assert_eq!(eraser.query_one(&query, &[]).await.expect("a row").get::<_, i64>(0), 0, "{table}");
    }
    let (rows, _) = ledger.unemitted(AT, 0, 3, 100).await.expect("rows");
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.wire.party.is_empty() || row.wire.party == codec::erased_party()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_event_of_an_older_schema_reads_back() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let mut eraser = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    // As before there was a phone.
    let mut older: serde_json::Value = serde_json::from_str(Topic::OrdersAccepted.schema_text()).expect("JSON");
    let party = older["fields"].as_array_mut().expect("fields").last_mut().expect("a party");
    party["type"]["fields"].as_array_mut().expect("fields").pop();
    let older = older.to_string();
    schemas::keep(&eraser, 900, "orders.accepted-value", &older).await.expect("kept");
    let mut accepted = row(OrderAccepted { order_id: id(1), seq: 1, ..Default::default() }, &cause(0), 0);
    accepted.1.wire.body[1..5].copy_from_slice(&900_u32.to_be_bytes());
    one_batch(&mut ledger, (1, 0), (&[id(1)], &[]), |locked| {
        locked.facts.orders.get_mut(&id(1)).expect("locked").seq = 1;
        vec![accepted]
    })
    .await
    .expect("commits");
    journal::erase(&mut eraser, id(1)).await.expect("erased");
    let mut codec = codec::offline();
    codec.learn(900, &older).expect("a schema");
    let rows = journal::of_order(&eraser, "ledger", id(1)).await.expect("rows");
    let read = LedgerEvent::decode(&codec, rows[0].0.topic, &rows[0].0.wire.bytes()).expect("it reads");
    assert!(matches!(read, Some(LedgerEvent::Accepted(it)) if it.order_id == id(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_order_is_known_as_parked_and_tries_are_counted() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    assert_eq!(ledger.attempt(AT, 0).await, Ok(1));
    assert_eq!(ledger.attempt(AT, 0).await, Ok(2));
    assert_eq!(ledger.attempt(AT, 1).await, Ok(1));
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 0, 1)]).await.expect("advances"));
    let locked = lock(&mut txn, &[id(1)], &[]).await;
    assert!(locked.parked.is_empty());
    let parked = |reason: Option<&str>, offset| Parked {
        order_id: id(1),
        cause: cause(offset),
        key: b"k".to_vec(),
        payload: vec![0, 1, 2],
        reason: reason.map(str::to_owned),
        again: None,
    };
    let parked = vec![parked(Some("a panic"), 0), parked(None, 1)];
    txn.write(&Written { facts: locked.facts, parked, ..Written::default() }).await.expect("writes");
    txn.commit().await.expect("commits");
    let mut txn = ledger.begin().await.expect("a transaction");
    let queue = Queue { let_go: None, records: 2 };
    assert_eq!(lock(&mut txn, &[id(1), id(2)], &[]).await.parked, [(id(1), queue)].into());
    drop(txn);
    ledger.take(AT, "t", 0).await.expect("taken again");
    assert_eq!(ledger.attempt(AT, 1).await, Ok(2), "a try at what is still ahead is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_topic_made_anew_is_parked_beside_one_of_the_old_topic_at_the_same_place() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    for (number, event) in [(1, "of the old topic"), (2, "of the new topic")] {
        let mut txn = ledger.begin().await.expect("a transaction");
        let locked = lock(&mut txn, &[id(number)], &[]).await;
        let cause = Cause { event_id: EventId::of_input("test", event, b""), ..cause(0) };
        let reason = Some("a panic".to_owned());
        let parked =
            vec![Parked { order_id: id(number), cause, key: b"k".to_vec(), payload: vec![0], reason, again: None }];
        txn.write(&Written { facts: locked.facts, parked, ..Written::default() }).await.expect("writes");
        txn.commit().await.expect("commits");
    }
    let mut txn = ledger.begin().await.expect("a transaction");
    let queue = Queue { let_go: None, records: 1 };
    assert_eq!(lock(&mut txn, &[id(1), id(2)], &[]).await.parked, [(id(1), queue), (id(2), queue)].into());
}

fn at(topic: Topic, partition: i32) -> TopicPartition {
    TopicPartition { topic, partition }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_raises_the_emitted_floor_and_it_never_falls() {
    let on = Deployment::new().await;
    let mut ours = ledger(&on).await;
    ours.take(AT, "t", 10).await.expect("taken");
    let sent = |offset| Ends::from([2, 0].map(|partition| (at(Topic::OrdersPaid, partition), offset)));
    assert_eq!(ours.emitted(&[(AT, 15)], &sent(150)).await, Ok(true));
    assert_eq!(ours.emitted(&[(AT, 12)], &sent(120)).await, Ok(true), "it is beyond that already");
    let mut theirs = ledger(&on).await;
    assert_eq!(theirs.emitted(&[(AT, 99)], &sent(990)).await, Ok(false), "they never took it");
    ours.reconnect().await.expect("connected anew");
    assert_eq!(ours.emitted(&[(AT, 99)], &sent(990)).await, Ok(false), "this connection did not take it");
    let kept = theirs.progress(AT).await.expect("progress").expect("a row");
    assert_eq!(kept.emitted_floor, 15);
    assert_eq!(kept.sent_from.get(&at(Topic::OrdersPaid, 2)), Some(&150));
    assert_eq!(kept.sent_from.get(&at(Topic::OrdersPaid, 1)).copied().unwrap_or(0), 0, "from its beginning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_on_the_same_orders_take_turns() {
    let on = Deployment::new().await;
    let other = TopicPartition { topic: Topic::CommandsReceived, partition: 0 };
    let mut first = ledger(&on).await;
    let mut second = ledger(&on).await;
    first.take(AT, "t", 0).await.expect("taken");
    second.take(other, "u", 0).await.expect("taken");
    let orders: Vec<OrderId> = (0..50).map(id).collect();
    let work = async |ledger: &mut PgLedger, at: TopicPartition, reversed: bool| {
        for offset in 0..10 {
            let mut txn = ledger.begin().await.expect("a transaction");
            assert!(txn.advance(&[Advance { at, ..step(1, offset, offset + 1) }]).await.expect("advances"));
            let mut keys = orders.clone();
            if reversed {
                keys.reverse();
            }
            let mut locked = lock(&mut txn, &keys, if reversed { &["B", "A"] } else { &["A", "B"] }).await;
            for order in locked.facts.orders.values_mut() {
                order.seq += 1;
            }
            *locked.facts.claims.get_mut("A").expect("locked") += 1;
            txn.write(&Written { facts: locked.facts, ..Written::default() }).await.expect("no deadlock");
            txn.commit().await.expect("commits");
        }
    };
    tokio::join!(work(&mut first, AT, false), work(&mut second, other, true));
    let mut txn = first.begin().await.expect("a transaction");
    let locked = lock(&mut txn, &orders, &["A"]).await;
    assert!(locked.facts.orders.values().all(|order| order.seq == 20));
    assert_eq!(locked.facts.claims["A"], 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_once_and_an_edited_one_is_refused() {
    let on = Deployment::new().await;
    assert_eq!(kept_store::migrate(&on.url, &on.prefix).await.expect("nothing to do"), Vec::<String>::new());
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    client.execute("UPDATE migrations SET checksum = 'other'", &[]).await.expect("edited");
    let refused = kept_store::migrate(&on.url, &on.prefix).await.expect_err("refused").to_string();
    assert!(refused.contains("never edited"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_were_made_without_a_product_that_was_there_are_known_by_their_versions() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let of = |topic: Topic, version| ReferenceVersion { topic: topic.name().into(), version };
    let (products, other) = (Topic::ReferenceProducts, Topic::ReferencePolicies);
    // The product is record 7: who read up to 8, not included, knows it.
    let cases = [
        (id(1), vec![of(products, 7)], Some(2)),
        (id(2), vec![of(products, 8)], None),
        (id(3), vec![of(other, 3), of(products, 8), of(products, 5)], Some(2)),
        (id(4), vec![], None),
    ];
    one_batch(&mut ledger, (1, 0), (&cases.clone().map(|it| it.0), &[]), |locked| {
        for (order, versions, _) in cases.clone() {
            let state = locked.facts.orders.get_mut(&order).expect("locked");
            (state.seq, state.checked, state.revision) = (1, 2, 3);
            let enrichment = Enrichment { versions, ..Default::default() };
            locked.facts.contents.insert(order, Content { enrichment, ..Default::default() });
        }
        Vec::new()
    })
    .await
    .expect("commits");
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let recheck = |order_id, checked| Recheck { order_id, sku: "A".into(), version: 7, checked };
    let mut held: Vec<Recheck> = cases.iter().map(|it| recheck(it.0, None)).collect();
    held.push(recheck(id(9), None));
    reference::unaware(&client, &mut held).await.expect("read");
    let mut expected: Vec<Recheck> = cases.iter().map(|it| recheck(it.0, it.2)).collect();
    expected.push(recheck(id(9), None));
    assert_eq!(held, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn due_timers_come_oldest_first_but_not_those_of_parked_orders() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let orders = [id(1), id(2), id(3)];
    let mut txn = ledger.begin().await.expect("a transaction");
    assert!(txn.advance(&[step(1, 0, 1)]).await.expect("advances"));
    let mut locked = lock(&mut txn, &orders, &[]).await;
    for (order, due_at) in orders.iter().zip([Micros(20), Micros(10), Micros(30)]) {
        let state = locked.facts.orders.get_mut(order).expect("locked");
        state.seq = 1;
        let timer = |name: &str, due_at| Timer {
            timer_id: name.into(),
            purpose: TimerPurpose::PaymentDue,
            revision: 4,
            due_at,
        };
        state.timers = vec![timer("now", due_at), timer("later", Micros(i64::MAX))];
    }
    let reason = Some("x".into());
    let parked = Parked { order_id: id(3), cause: cause(0), key: vec![], payload: vec![], reason, again: None };
    txn.write(&Written { facts: locked.facts, parked: vec![parked], ..Written::default() }).await.expect("writes");
    txn.commit().await.expect("commits");

    let mut timers = PgTimers::connect(&on.url, &on.prefix).await.expect("timers");
    let due = timers.due(10).await.expect("due");
    let seen: Vec<_> = due.iter().map(|it| (it.order_id, it.timer_id.as_str(), it.revision, it.due_at)).collect();
    assert_eq!(seen, [(id(2), "now", 4, Micros(10)), (id(1), "now", 4, Micros(20))]);
    assert_eq!(timers.due(1).await.expect("due").len(), 1);
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let seen = gauges::ledger(&client).await.expect("gauges");
    assert_eq!((seen.parked_orders, seen.parked_records, seen.timers_due), (1, 1, 3));
    assert!(seen.timers_late_seconds > 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_order_is_let_go_record_by_record_in_the_order_they_came() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let record = |offset, reason: Option<&str>, again| Parked {
        order_id: id(1),
        cause: Cause { event_id: EventId::of_input("test", if offset == 5 { "5" } else { "4" }, b""), ..cause(offset) },
        key: b"k".to_vec(),
        payload: vec![7],
        reason: reason.map(str::to_owned),
        again,
    };
    let (first, second) = (record(4, None, None).cause.event_id, record(5, None, None).cause.event_id);
    write(&mut ledger, Written { parked: vec![record(4, Some("a panic"), None), record(5, None, None)], ..none() })
        .await;
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let list = parked::list(&client, 10).await.expect("a list");
    assert_eq!((list.len(), list[0].records, list[0].reason.as_str(), list[0].offset), (1, 2, "a panic", 4));

    let gone = parked::let_go(&client, id(1), "lena").await.expect("asked").expect("it is parked");
    assert_eq!((gone.offset, gone.event_id, gone.released), (4, first, true));
    let let_go = Some(LetGo { event_id: first, parked_id: gone.parked_id });
    assert_eq!(queue(&mut ledger).await, Some(Queue { let_go, records: 2 }));
    assert_eq!(parked::fate(&client, &gone).await.expect("known"), Fate::Waits);
    let again = parked::let_go(&client, id(1), "lena").await.expect("asked").expect("after a crash: once more");
    assert_eq!(again.parked_id, gone.parked_id);

    let failed = record(9, Some("a panic, still"), Some(gone.parked_id));
    write(&mut ledger, Written { parked: vec![failed], ..none() }).await;
    assert_eq!(queue(&mut ledger).await, Some(Queue { let_go: None, records: 2 }));
    let failed = Fate::FailedAgain("a panic, still".into());
    assert_eq!(parked::fate(&client, &gone).await.expect("known"), failed);
    let all = parked::show(&client, id(1)).await.expect("shown");
    assert_eq!(all.iter().map(|it| (it.offset, it.released)).collect::<Vec<_>>(), [(9, false), (5, false)]);

    // The first is decided about; the second turns out to be unreadable, and is dealt with all the same.
    let rounds = [
        (first, vec![(Some(id(1)), first)], Fate::Decided, Some(Queue { let_go: None, records: 1 })),
        (second, vec![], Fate::LeftWithout, None),
    ];
    for (event, acted, fate, left) in rounds {
        let gone = parked::let_go(&client, id(1), "lena").await.expect("asked").expect("it is parked");
        assert_eq!(gone.event_id, event);
        write(&mut ledger, Written { unparked: vec![gone.parked_id], acted, ..none() }).await;
        assert_eq!(parked::fate(&client, &gone).await.expect("known"), fate);
        assert_eq!(queue(&mut ledger).await, left);
        let list = parked::list(&client, 10).await.expect("a list");
        assert_eq!(list.first().is_some_and(|it| it.reason.contains("let go")), left.is_some(), "{list:?}");
    }
    assert_eq!(parked::let_go(&client, id(1), "lena").await.expect("asked"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lets_an_order_go_while_its_first_record_leaves_gets_the_next_one() {
    let on = Deployment::new().await;
    let mut ledger = ledger(&on).await;
    ledger.take(AT, "t", 0).await.expect("taken");
    let record = |offset| Parked {
        order_id: id(1),
        cause: cause(offset),
        key: b"k".to_vec(),
        payload: vec![7],
        reason: None,
        again: None,
    };
    write(&mut ledger, Written { parked: vec![record(4), record(5)], ..none() }).await;
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let gone = parked::let_go(&client, id(1), "lena").await.expect("asked").expect("it is parked");
    let mut txn = ledger.begin().await.expect("a transaction");
    let locked = lock(&mut txn, &[id(1)], &[]).await;
    let written = Written { facts: locked.facts, unparked: vec![gone.parked_id], ..Written::default() };
    txn.write(&written).await.expect("writes");
    let asked = tokio::spawn(async move { parked::let_go(&client, id(1), "jan").await });
    // It waits for the row that is about to leave.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!asked.is_finished());
    txn.commit().await.expect("commits");
    let next = asked.await.expect("it ends").expect("asked").expect("the next one is parked");
    assert_eq!(next.offset, 5);
}

fn none() -> Written {
    Written::default()
}

async fn write(ledger: &mut PgLedger, written: Written) {
    let mut txn = ledger.begin().await.expect("a transaction");
    let locked = lock(&mut txn, &[id(1)], &[]).await;
    txn.write(&Written { facts: locked.facts, ..written }).await.expect("writes");
    txn.commit().await.expect("commits");
}

async fn queue(ledger: &mut PgLedger) -> Option<Queue> {
    let mut txn = ledger.begin().await.expect("a transaction");
    lock(&mut txn, &[id(1)], &[]).await.parked.get(&id(1)).copied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_gets_the_same_answer_and_another_body_none() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    assert_eq!(answers::begin(&client, "shop", "k", "hash").await.expect("known"), Known::New);
    assert_eq!(answers::begin(&client, "shop", "k", "hash").await.expect("known"), Known::Unfinished);
    assert_eq!(answers::begin(&client, "shop", "k", "other").await.expect("known"), Known::Other);
    assert_eq!(answers::begin(&client, "shop2", "k", "other").await.expect("known"), Known::New);
    answers::finish(&client, ("shop", "k", "hash"), 202, "{}").await.expect("kept");
    answers::finish(&client, ("shop", "k", "hash"), 500, "late").await.expect("ignored");
    assert_eq!(answers::begin(&client, "shop", "k", "hash").await.expect("known"), Known::Answered(202, "{}".into()));
    assert_eq!(answers::begin(&client, "shop", "k", "other").await.expect("known"), Known::Other);
    assert_eq!(answers::forget(&client, 0).await.expect("forgotten"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reads_back_as_it_was_planned_in_every_state_and_is_planned_once() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    for (revision, &state) in (0..).zip(CallState::ALL) {
        let some = |text: &str| Some(text.to_owned());
        let call = Call {
            call_id: call_id("label", &["s1", "p1"], revision),
            order_no: Some(7),
            purpose: "label".into(),
            partner: "carrier".into(),
            account: "nl".into(),
            lane: "labels".into(),
            state,
            revision,
            supersedes: Some(call_id("label", &["s1", "p1"], revision - 1)),
            intent: "{}".into(),
            conversation: some("[]"),
            body_hash: some("00"),
            reference: some("r"),
            detail: some("busy"),
            attempt: 2,
            deadline_at: Some(Micros(1_700_000_000_000_000)),
        };
        call.plan(&client).await.expect("planned");
        Call { detail: None, ..call.clone() }.plan(&client).await.expect("it is there already");
        assert_eq!(Call::read(&client, call.call_id).await.expect("read"), Some(call));
    }
    assert_eq!(Call::read(&client, call_id("label", &["none"], 0)).await.expect("read"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledgers_session_ends_what_it_left_open_and_waits_for_no_lock_for_ever() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.ledger(), Purpose::Ledger).await.expect("a session");
    for (setting, wanted) in SESSION {
        let query = "SELECT setting FROM pg_settings WHERE name = $1";
        let row = client.query_one(query, &[&setting]).await.expect("shown");
        assert_eq!(row.get::<_, &str>(0), wanted, "{setting}");
    }
}
