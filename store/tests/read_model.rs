//! The read model against a real Postgres: the same tables whatever the order events come in, and each event once.

mod common;

use common::Deployment;
use kept_processors::ledger::{Cause, LedgerEvent};
use kept_schemas::{
    EventId, Headers, Micros, Order, OrderId, OrderLine, Party, Topic, UnitPrice, codec,
    events::{
        DeadLetter, FulfilmentRequested, Hold, HoldResolved, NoteKind, NotificationPurpose, NotificationRequested,
        OrderAccepted, OrderBackordered, OrderCancelled, OrderCompleted, OrderHeld, OrderNoted, OrderPaid,
        OrderReleased, OrderReserved, OrderUnheld, PaymentState, PostingEntry, PostingKind, PostingRequested,
        ShipmentDespatched, ShipmentTracked, StockChanged,
    },
    inbound::{HoldReason, OrderRevised},
    inputs::{Condition, LineQuantity, OutcomeKind, Parcel},
    order::{Address, Charge, ChargeKind},
    values::Money,
};
use kept_store::{
    PgLedger, PgSink,
    journal::{self, Numbers},
    pg::{Purpose, connect},
    read::rebuild,
    seam::{
        Advance, JournalRow, Keys, Ledger, LedgerError, LedgerTxn, Sink, SinkInput, SinkRecord, SinkTxn,
        TopicPartition, Written,
    },
};
use tokio_postgres::Client;

const AT: TopicPartition = TopicPartition { topic: Topic::OrdersHeld, partition: 0 };

fn id(number: u32) -> OrderId {
    OrderId::of("shop.nl", &number.to_string())
}

fn of(line_no: i32, quantity: i64) -> LineQuantity {
    LineQuantity { line_no, quantity }
}

fn record(offset: i64, event: LedgerEvent) -> SinkRecord {
    let cause = ("orders.validated".into(), 0, 7);
    let headers = Headers { cause: Some(cause), ..Headers::default() };
    SinkRecord {
        at: TopicPartition { topic: event.topic(), partition: 0 },
        offset,
        timestamp: Micros(0),
        headers,
        input: SinkInput::Event(event),
    }
}

/// The lives of a few orders, in the order the ledger told them.
#[allow(clippy::needless_update, reason = "the macro below fills any event")]
fn history() -> Vec<LedgerEvent> {
    let line = |line_no: i32, sku: &str, quantity| OrderLine {
        line_no,
        sku: sku.into(),
        quantity,
        unit_price: UnitPrice { amount: 375, scale: 4 },
        line_total_minor: quantity * 4,
        ..Default::default()
    };
    let order = |number: u32, lines: Vec<OrderLine>| Order {
        order_id: id(number),
        channel: "shopify".into(),
        channel_order_id: number.to_string(),
        currency: "EUR".into(),
        country: "NL".into(),
        placed_at: Micros(1_700_000_000_000_000),
        total_minor: 1000,
        lines,
        charges: vec![Charge {
            kind: ChargeKind::Shipping,
            code: "POST".into(),
            quantity: 1,
            amount_minor: 495,
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut seqs = std::collections::BTreeMap::<OrderId, i64>::new();
    let mut at = 1_700_000_001_000_000;
    let mut next = |order: OrderId| {
        let seq = seqs.entry(order).or_insert(0);
        *seq += 1;
        at += 1_000_000;
        (order, *seq, Micros(at))
    };
    let hold =
        |hold_id: &str, reason| Hold { hold_id: hold_id.into(), reason, detail: "why".into(), ..Default::default() };
    let person = Party {
        ship_to: Address {
            name: "someone".into(),
            street: "Plein".into(),
            house_number: Some("1".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    let stock = |version, reserved| StockChanged {
        sku: "A".into(),
        location_id: "north".into(),
        condition: Condition::Sellable,
        version,
        on_hand: 10,
        reserved,
        ..Default::default()
    };
    macro_rules! say {
        ($order:expr, $type:ident { $($field:ident: $value:expr),* }) => {{
            let (order_id, seq, at) = next($order);
            LedgerEvent::from($type { order_id, seq, at, $($field: $value,)* ..Default::default() })
        }};
    }
    vec![
        // One that goes through, in two parcels.
        say!(
            id(1),
            OrderAccepted {
                order_no: 1,
                order: order(1, vec![line(1, "A", 3), line(2, "B", 1)]),
                claimed: vec![of(1, 3), of(2, 1)],
                party: person.clone()
            }
        ),
        say!(id(1), OrderReleased {}),
        say!(id(1), FulfilmentRequested { fulfilment_id: "f1".into(), location_id: "north".into() }),
        stock(1, 0).into(),
        stock(2, 3).into(),
        say!(id(1), OrderPaid { state: PaymentState::Authorised, authorised_minor: 1000 }),
        say!(id(1), OrderNoted { kind: NoteKind::Picked, lines: vec![of(1, 3), of(2, 1)] }),
        say!(
            id(1),
            ShipmentDespatched {
                shipment_id: "s1".into(),
                location_id: "north".into(),
                carrier: Some("PostNL".into()),
                despatched_at: Micros(1_700_000_050_000_000),
                lines: vec![of(1, 3), of(2, 1)],
                unpinned: vec![of(1, 3), of(2, 1)],
                parcels: vec![
                    Parcel { parcel_id: "p1".into(), ..Default::default() },
                    Parcel { parcel_id: "p2".into(), weight_grams: Some(5), ..Default::default() }
                ]
            }
        ),
        say!(
            id(1),
            PostingRequested {
                posting_id: "b1".into(),
                kind: PostingKind::Sale,
                entries: vec![
                    PostingEntry {
                        account: "receivable".into(),
                        amount: Money { minor: 1000, currency: "EUR".into() }
                    },
                    PostingEntry { account: "revenue".into(), amount: Money { minor: -600, currency: "EUR".into() } },
                    PostingEntry { account: "revenue".into(), amount: Money { minor: -400, currency: "EUR".into() } },
                ]
            }
        ),
        say!(id(1), OrderPaid { state: PaymentState::Paid, authorised_minor: 1000, captured_minor: 1000 }),
        say!(
            id(1),
            ShipmentTracked {
                shipment_id: "s1".into(),
                parcel_id: Some("p1".into()),
                kind: OutcomeKind::Tracked,
                tracked_at: Micros(1_700_000_060_000_000)
            }
        ),
        say!(
            id(1),
            ShipmentTracked {
                shipment_id: "s1".into(),
                parcel_id: Some("p1".into()),
                kind: OutcomeKind::Delivered,
                tracked_at: Micros(1_700_000_070_000_000)
            }
        ),
        say!(
            id(1),
            ShipmentTracked {
                shipment_id: "s1".into(),
                parcel_id: Some("p2".into()),
                kind: OutcomeKind::Delivered,
                tracked_at: Micros(1_700_000_080_000_000)
            }
        ),
        say!(id(1), OrderCompleted { outcome: "delivered".into() }),
        say!(
            id(1),
            NotificationRequested {
                notification_id: "n1".into(),
                purpose: NotificationPurpose::Delivered,
                medium: "email".into()
            }
        ),
        // One that is held, corrected to fewer lines, and waits for stock.
        say!(
            id(2),
            OrderAccepted {
                order_no: 2,
                order: order(2, vec![line(1, "A", 5), line(2, "C", 1)]),
                claimed: vec![of(1, 2)]
            }
        ),
        say!(
            id(2),
            OrderHeld { holds: vec![hold("h1", HoldReason::AddressInvalid), hold("h2", HoldReason::UnknownSku)] }
        ),
        say!(id(2), OrderRevised { revision: 1 }),
        say!(id(2), OrderAccepted { order_no: 2, order: order(2, vec![line(1, "A", 5)]), revision: 1 }),
        say!(
            id(2),
            OrderUnheld {
                holds: vec![
                    HoldResolved {
                        hold_id: "h1".into(),
                        reason: HoldReason::AddressInvalid,
                        resolution: "corrected".into(),
                        by: "lena".into()
                    },
                    HoldResolved {
                        hold_id: "h2".into(),
                        reason: HoldReason::UnknownSku,
                        resolution: "corrected".into(),
                        by: "lena".into()
                    },
                ]
            }
        ),
        say!(id(2), OrderReleased {}),
        say!(id(2), OrderBackordered { lines: vec![of(1, 3)] }),
        say!(id(2), OrderReserved { lines: vec![of(1, 2)] }),
        say!(id(2), OrderReserved { lines: vec![of(1, -1)] }),
        stock(3, 2).into(),
        // One that is cancelled in part, and one that is cancelled and held by hand.
        say!(id(3), OrderAccepted { order_no: 3, order: order(3, vec![line(1, "A", 4)]), claimed: vec![of(1, 4)] }),
        say!(id(3), OrderCancelled { lines: vec![of(1, 1)], given_back: vec![of(1, 1)], by: "shop".into() }),
        say!(id(3), FulfilmentRequested { fulfilment_id: "f3".into() }),
        say!(id(3), OrderNoted { kind: NoteKind::Withdrawn }),
        say!(id(3), FulfilmentRequested { fulfilment_id: "f4".into() }),
        say!(id(4), OrderAccepted { order_no: 4, order: order(4, vec![line(1, "A", 1)]), claimed: vec![of(1, 1)] }),
        say!(
            id(4),
            OrderCancelled { whole: true, lines: vec![of(1, 1)], given_back: vec![of(1, 1)], by: "shop".into() }
        ),
        say!(id(4), OrderCompleted { outcome: "cancelled".into() }),
        // A shipment that serves two orders, tracked as a whole, of goods nobody had asked for.
        say!(id(5), OrderAccepted { order_no: 5, order: order(5, vec![line(1, "A", 2)]), claimed: vec![of(1, 2)] }),
        say!(id(6), OrderAccepted { order_no: 6, order: order(6, vec![line(1, "A", 2)]), claimed: vec![of(1, 1)] }),
        say!(
            id(5),
            ShipmentDespatched {
                shipment_id: "s2".into(),
                despatched_at: Micros(1_700_000_090_000_000),
                lines: vec![of(1, 1)],
                unpinned: vec![of(1, 1)]
            }
        ),
        say!(
            id(6),
            ShipmentDespatched {
                shipment_id: "s2".into(),
                despatched_at: Micros(1_700_000_090_000_000),
                lines: vec![of(1, 2)],
                unpinned: vec![of(1, 1)]
            }
        ),
        say!(
            id(5),
            ShipmentTracked {
                shipment_id: "s2".into(),
                kind: OutcomeKind::DeliveryFailed,
                tracked_at: Micros(1_700_000_095_000_000)
            }
        ),
        say!(id(6), OrderHeld { holds: vec![hold("h1", HoldReason::DeliveryProblem)] }),
        // A fact about an order that never came.
        say!(id(9), OrderNoted { kind: NoteKind::BeforeOrder }),
    ]
}

const TABLES: &[&str] = &[
    "order_rows",
    "line_rows",
    "charge_rows",
    "holds",
    "shipments",
    "shipment_lines",
    "parcels",
    "timeline",
    "stock",
    "postings",
    "notifications",
    "dead_letters",
];

/// Every row but when it was written, which no two models share.
async fn dump(client: &Client) -> Vec<String> {
    let mut dump = Vec::new();
    for table in TABLES {
        let rows =
            client.query(&format!("SELECT (to_jsonb(t) - 'written_at')::text FROM {table} t ORDER BY 1"), &[]).await;
        dump.extend(rows.expect("rows").iter().map(|row| format!("{table} {}", row.get::<_, &str>(0))));
    }
    dump
}

struct Bench {
    sink: PgSink,
    next: i64,
    epoch: i64,
}

impl Bench {
    async fn new(on: &Deployment) -> Self {
        let mut sink = PgSink::connect(&on.url, &on.prefix).await.expect("a sink");
        let taken = sink.take(AT, "t", 0).await.expect("taken");
        Self { sink, next: taken.next_offset, epoch: taken.owner_epoch }
    }

    async fn apply(&mut self, records: &[SinkRecord]) -> Result<(), LedgerError> {
        let mut txn = self.sink.begin().await?;
        let advance = Advance { at: AT, owner_epoch: self.epoch, from_offset: self.next, to_offset: self.next + 1 };
        assert!(txn.advance(&[advance]).await?);
        txn.apply(records).await?;
        txn.commit().await?;
        self.next += 1;
        Ok(())
    }
}

/// SplitMix64, for shuffles that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below the bound")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_are_the_same_whatever_order_and_batches_the_events_come_in_and_if_they_come_twice() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let mut bench = Bench::new(&on).await;
    let records: Vec<SinkRecord> = (0..).zip(history()).map(|(offset, event)| record(offset, event)).collect();
    bench.apply(&records).await.expect("applied");
    let expected = dump(&client).await;
    assert!(expected.len() > 60, "{}", expected.len());
    for seed in 0..30 {
        client.batch_execute(&format!("TRUNCATE {}", TABLES.join(", "))).await.expect("emptied");
        let mut dice = Dice(seed);
        let mut shuffled = records.clone();
        for _ in 0..10 {
            shuffled.push(records[dice.below(records.len())].clone());
        }
        for place in (1..shuffled.len()).rev() {
            shuffled.swap(place, dice.below(place + 1));
        }
        let mut rest = shuffled.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rest.len().min(1 + dice.below(9)));
            bench.apply(batch).await.expect("applied");
            rest = later;
        }
        let found = dump(&client).await;
        let differ: Vec<_> = expected.iter().zip(&found).filter(|(wanted, found)| wanted != found).collect();
        assert!(differ.is_empty() && found.len() == expected.len(), "seed {seed}: {differ:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_tables_say_what_happened() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let mut bench = Bench::new(&on).await;
    let records: Vec<SinkRecord> = (0..).zip(history()).map(|(offset, event)| record(offset, event)).collect();
    bench.apply(&records).await.expect("applied");
    let rows = async |sql: &str| -> Vec<String> {
        let rows = client.query(&format!("SELECT array_to_string(ARRAY({sql}), ';')"), &[]).await.expect("rows");
        rows[0].get::<_, String>(0).split(';').map(str::to_owned).collect()
    };
    assert_eq!(
        rows("SELECT concat_ws(' ', order_no, channel_order_id, status, total_minor, charges_minor, ship_street) FROM orders ORDER BY order_no").await,
        [
            "1 1 delivered 1000 495 Plein 1",
            "2 2 backordered 1000 495",
            "3 3 in_fulfilment 1000 495",
            "4 4 cancelled 1000 495",
            "5 5 partly_despatched 1000 495",
            "6 6 held 1000 495",
        ],
        "the order that never came is not among them"
    );
    assert_eq!(
        rows("SELECT concat_ws(' ', o.order_no, l.line_no, l.sku, l.quantity, l.unit_price, l.reserved, l.short, l.shipped, l.cancelled)
              FROM order_lines l JOIN orders o USING (order_id) ORDER BY 1").await,
        [
            "1 1 A 3 0.0375 0 0 3 0",
            "1 2 B 1 0.0375 0 0 1 0",
            "2 1 A 5 0.0375 3 2 0 0",
            "3 1 A 4 0.0375 3 0 0 1",
            "4 1 A 1 0.0375 0 0 0 1",
            "5 1 A 2 0.0375 1 0 1 0",
            "6 1 A 2 0.0375 0 0 2 0",
        ],
        "a line that a correction took away is gone"
    );
    assert_eq!(
        rows("SELECT concat_ws(' ', shipment_id, status, carrier) FROM shipments ORDER BY 1").await,
        ["s1 delivered PostNL", "s2 delivery_failed"]
    );
    assert_eq!(
        rows("SELECT concat_ws(' ', parcel_id, status, weight_grams) FROM parcels ORDER BY 1").await,
        ["p1 delivered", "p2 delivered 5"]
    );
    assert_eq!(
        rows("SELECT concat_ws(' ', hold_id, reason, resolution) FROM holds ORDER BY order_id, hold_id").await.len(),
        3
    );
    assert_eq!(
        rows("SELECT concat_ws(' ', account, amount_minor) FROM postings ORDER BY 1").await,
        ["receivable 1000", "revenue -1000"]
    );
    assert_eq!(rows("SELECT concat_ws(' ', sku, version, reserved) FROM stock").await, ["A 3 2"]);
    assert_eq!(
        rows("SELECT concat_ws(' ', payment_state, captured_minor) FROM orders WHERE order_no = 1").await,
        ["paid 1000"]
    );
    assert_eq!(rows("SELECT cause FROM timeline LIMIT 1").await, ["orders.validated/0/7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_headline_follows_from_the_axes() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let cases = [
        ("", "waiting"),
        ("revision = 0, quantity = 3", "accepted"),
        ("revision = 0, quantity = 3, released = true", "released"),
        ("revision = 0, quantity = 3, released = true, open_holds = 1", "held"),
        ("revision = 0, quantity = 3, backordered = true, reserved = 2", "backordered"),
        ("revision = 0, quantity = 3, backordered = true, reserved = 2, cancelled = 1, released = true", "released"),
        ("revision = 0, quantity = 3, released = true, fulfilments = 1", "in_fulfilment"),
        ("revision = 0, quantity = 3, backordered = true, fulfilments = 1", "in_fulfilment"),
        ("revision = 0, quantity = 3, picked = 1", "in_fulfilment"),
        ("revision = 0, quantity = 3, shipped = 1", "partly_despatched"),
        ("revision = 0, quantity = 3, shipped = 1, cancelled = 2", "despatched"),
        ("revision = 0, quantity = 3, shipped = 3", "despatched"),
        ("revision = 0, quantity = 3, shipped = 3, outcome = 'delivered'", "delivered"),
        ("revision = 0, quantity = 3, shipped = 3, outcome = 'delivered', open_holds = 1", "held"),
        ("revision = 0, quantity = 3, cancelled = 3", "cancelled"),
        ("revision = 0, quantity = 3, cancelled = 2", "accepted"),
        ("revision = 0, quantity = 0", "accepted"),
        ("revision = 0, quantity = 0, whole_cancelled = true", "cancelled"),
        ("revision = 0, quantity = 0, outcome = 'delivered'", "delivered"),
        ("revision = 0, quantity = 3, cancelled = 3, shipped = 1, whole_cancelled = true, open_holds = 1", "held"),
        ("revision = 0, quantity = 3, cancelled = 3, shipped = 1, whole_cancelled = true", "despatched"),
    ];
    for (axes, status) in cases {
        client.batch_execute("TRUNCATE order_rows").await.expect("emptied");
        client
            .execute("INSERT INTO order_rows (order_id, updated_at) VALUES ($1, now())", &[&id(1).0])
            .await
            .expect("a row");
        if !axes.is_empty() {
            client.batch_execute(&format!("UPDATE order_rows SET {axes}")).await.expect("set");
        }
        let row = client.query_one("SELECT status FROM order_rows", &[]).await.expect("a row");
        assert_eq!(row.get::<_, &str>(0), status, "{axes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_a_sink_that_lost_its_partition_does_not_happen() {
    let on = Deployment::new().await;
    let mut old = Bench::new(&on).await;
    let records: Vec<SinkRecord> = (0..).zip(history()).map(|(offset, event)| record(offset, event)).collect();
    let mut stuck = old.sink.begin().await.expect("a transaction");
    let advance = Advance { at: AT, owner_epoch: 1, from_offset: 0, to_offset: 1 };
    assert!(stuck.advance(std::slice::from_ref(&advance)).await.expect("advances"));
    stuck.apply(&records).await.expect("applied");

    let mut new = Bench::new(&on).await;
    assert_eq!((new.next, new.epoch), (0, 2));
    assert!(matches!(stuck.commit().await, Err(LedgerError::Lost(_))), "its session was ended");
    old.sink.reconnect().await.expect("a new session");
    let mut late = old.sink.begin().await.expect("a transaction");
    assert!(!late.advance(&[advance]).await.expect("an answer"));
    drop(late);
    let client = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    assert!(dump(&client).await.is_empty());
    new.apply(&records).await.expect("applied");
    new.sink.leave(&[(AT, 2)]).await.expect("left");
    let progress = new.sink.progress(AT).await.expect("progress").expect("a row");
    assert_eq!((progress.next_offset, progress.clean), (1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_kept_whole_and_once_and_not_for_ever() {
    let on = Deployment::new().await;
    let mut bench = Bench::new(&on).await;
    let letter = DeadLetter {
        step: "enrich".into(),
        topic: "orders.received".into(),
        partition: 1,
        offset: 8,
        reason: "too short".into(),
        at: today(),
        key: None,
        payload: Some(vec![0, 1]),
    };
    let record = |letter: DeadLetter| SinkRecord {
        at: AT,
        offset: 0,
        timestamp: Micros(0),
        headers: Headers { event_id: Some(EventId::default()), ..Headers::default() },
        input: SinkInput::DeadLetter(Box::new(letter)),
    };
    let old = DeadLetter { offset: 7, at: letter.at.plus(-31 * Micros::DAY), ..letter.clone() };
    for _ in 0..2 {
        bench.apply(&[record(letter.clone()), record(letter.clone()), record(old.clone())]).await.expect("applied");
    }
    let client = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let rows = client.query("SELECT topic, record_offset, payload FROM dead_letters", &[]).await.expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, Vec<u8>>(2), [0, 1]);
}

fn today() -> Micros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Micros(i64::try_from(since.as_micros()).expect("an instant"))
}

/// Writes a history to the ledger's journal, as one record's events.
async fn write_journal(on: &Deployment, events: Vec<LedgerEvent>) {
    let at = TopicPartition { topic: Topic::OrdersValidated, partition: 0 };
    let codec = codec::offline();
    let mut ledger = PgLedger::connect(&on.url, &on.prefix, "ledger").await.expect("a ledger");
    let taken = ledger.take(at, "t", 0).await.expect("taken");
    let offset = taken.next_offset;
    let mut txn = ledger.begin().await.expect("a transaction");
    let advance = Advance { at, owner_epoch: taken.owner_epoch, from_offset: offset, to_offset: offset + 1 };
    assert!(txn.advance(&[advance]).await.expect("advances"));
    let orders = events.iter().filter_map(|event| event.place().map(|(order, _)| order)).collect();
    let mut locked = txn.lock(&Keys { orders, ..Keys::default() }, &mut |_| Vec::new()).await.expect("locks");
    for order in locked.facts.orders.values_mut() {
        order.seq += 1;
    }
    let cause = Cause {
        event_id: EventId::of_input("test", "history", &offset.to_be_bytes()),
        topic: at.topic,
        partition: at.partition,
        offset: 7,
        traceparent: None,
    };
    let events = (0..)
        .zip(events)
        .map(|(index, event)| {
            let row = JournalRow {
                journal_id: 0,
                topic: event.topic(),
                key: event.key(),
                wire: event.encode(&codec).expect("an event fits its schema"),
                headers: Headers {
                    event_id: Some(EventId::of_step("ledger", cause.event_id, index)),
                    cause: Some(("orders.validated".into(), 0, 7)),
                    ..Headers::default()
                },
                order: event.place(),
                cause: cause.clone(),
                index,
            };
            (Some(event), row)
        })
        .collect();
    txn.write(&Written { facts: locked.facts, events, ..Written::default() }).await.expect("writes");
    txn.commit().await.expect("commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_model_equals_the_live_one_and_goes_on_where_it_stood() {
    let on = Deployment::new().await;
    let client = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let all = history();
    let records: Vec<SinkRecord> = (0..).zip(all.clone()).map(|(offset, event)| record(offset, event)).collect();
    let (step, topic) = ("enrich".to_owned(), "orders.received".to_owned());
    let letter = DeadLetter { step, topic, at: today(), ..Default::default() };
    let letter = SinkRecord { input: SinkInput::DeadLetter(Box::new(letter)), ..record(99, all[0].clone()) };
    write_journal(&on, all.clone()).await;
    // The sink is behind the journal by ten events, and somebody damaged its tables.
    let (known, late) = records.split_at(records.len() - 10);
    let mut bench = Bench::new(&on).await;
    bench.apply(known).await.expect("applied");
    bench.apply(&[letter]).await.expect("applied");
    client.batch_execute("DELETE FROM line_rows; UPDATE order_rows SET shipped = 99").await.expect("damaged");

    let mut heard = 0;
    let done = rebuild((&on.url, &on.url), &on.prefix, "ledger", &codec::offline(), |done| heard = done.rows).await;
    let done = done.expect("rebuilt");
    assert_eq!((done.events, done.rows, heard), (all.len() as u64, all.len() as u64, all.len() as u64));
    assert!(matches!(bench.apply(late).await, Err(LedgerError::Lost(_))), "the sink's session was ended");
    bench.sink.reconnect().await.expect("a new session");
    let mut stale = bench.sink.begin().await.expect("a transaction");
    let stale_move = Advance { at: AT, owner_epoch: 1, from_offset: 2, to_offset: 3 };
    assert!(!stale.advance(&[stale_move]).await.expect("an answer"), "the epoch is another one");
    drop(stale);
    let mut bench = Bench::new(&on).await;
    assert_eq!(bench.next, 2, "it goes on where the live model stood");
    bench.apply(late).await.expect("what the journal had already is left out");

    let rebuilt = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let found = dump(&rebuilt).await;
    let fresh = Deployment::new().await;
    let expected = connect(&fresh.url, &fresh.prefix.read(), Purpose::Command).await.expect("a session");
    let mut bench = Bench::new(&fresh).await;
    bench.apply(&records).await.expect("applied");
    let letters: Vec<&String> = found.iter().filter(|row| row.starts_with("dead_letters")).collect();
    assert_eq!(letters.len(), 1, "dead letters come along");
    let rest: Vec<String> = found.iter().filter(|row| !row.starts_with("dead_letters")).cloned().collect();
    assert_eq!(rest, dump(&expected).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_is_erased_is_in_neither_the_events_nor_the_pages_and_the_rest_stays() {
    let on = Deployment::new().await;
    let mut ledger = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let mut read = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    write_journal(&on, history()).await;
    let records: Vec<SinkRecord> = (0..).zip(history()).map(|(offset, event)| record(offset, event)).collect();
    Bench::new(&on).await.apply(&records).await.expect("applied");
    let codec = codec::offline();
    let name = async |client: &Client| {
        let rows = journal::of_order(client, "ledger", id(1)).await.expect("rows");
        let first = LedgerEvent::decode(&codec, rows[0].0.topic, &rows[0].0.wire.bytes());
        let Ok(Some(LedgerEvent::Accepted(it))) = first else { panic!("{first:?}") };
        (rows.len(), it.order.lines.len(), it.party.ship_to.name)
    };
    assert_eq!(name(&ledger).await, (13, 2, "someone".into()));
    assert!(journal::erase(&mut ledger, id(1)).await.expect("erased") >= Some(1));
    assert_eq!(name(&ledger).await, (13, 2, String::new()));
    journal::erase_read(&mut read, &on.prefix, id(1)).await.expect("erased");
    let row = read
        .query_one("SELECT ship_name, ship_street, status FROM orders WHERE order_no = 1", &[])
        .await
        .expect("a row");
    assert_eq!(
        (row.get::<_, Option<String>>(0), row.get::<_, Option<String>>(1), row.get::<_, &str>(2)),
        (None, None, "delivered")
    );
    for numbers in [Numbers::Channels, Numbers::All] {
        assert_eq!(journal::find(&read, "1", numbers).await.expect("found"), [id(1)]);
        assert_eq!(journal::find(&read, &id(2).to_string(), numbers).await.expect("found"), [id(2)]);
    }
    let ours = read.execute("UPDATE order_rows SET order_no = 77 WHERE order_id = $1", &[&id(2).0]).await;
    assert_eq!(ours.expect("updated"), 1);
    assert_eq!(journal::find(&read, "77", Numbers::All).await.expect("found"), [id(2)]);
    assert_eq!(journal::find(&read, "77", Numbers::Channels).await.expect("found"), []);
    assert_eq!(journal::after(&ledger, "ledger", 0, 5).await.expect("rows").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_person_comes_back_neither_with_a_late_event_nor_with_a_rebuild() {
    let on = Deployment::new().await;
    let mut ledger = connect(&on.url, &on.prefix.ledger(), Purpose::Command).await.expect("a session");
    let mut read = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    write_journal(&on, history()).await;
    journal::erase(&mut ledger, id(1)).await.expect("erased");
    journal::erase_read(&mut read, &on.prefix, id(1)).await.expect("erased");
    let person = async || {
        let read = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
        let row = read.query_one("SELECT ship_name, email, status FROM orders WHERE order_no = 1", &[]).await;
        let row = row.expect("a row");
        (row.get::<_, Option<String>>(0), row.get::<_, Option<String>>(1), row.get::<_, String>(2))
    };
    // The sink is behind: what it reads in the topics has the person still.
    let records: Vec<SinkRecord> = (0..).zip(history()).map(|(offset, event)| record(offset, event)).collect();
    let mut bench = Bench::new(&on).await;
    bench.apply(&records).await.expect("applied");
    assert_eq!(person().await, (None, None, "delivered".into()));
    // As though the rebuild had read the rows just before.
    let party = codec::offline().encode(&accepted(&history())).expect("it fits").party;
    ledger
        .execute("UPDATE journal SET party = $1 WHERE party IS NULL AND topic = 'orders.accepted'", &[&party])
        .await
        .expect("as before");
    rebuild((&on.url, &on.url), &on.prefix, "ledger", &codec::offline(), |_| ()).await.expect("rebuilt");
    assert_eq!(person().await, (None, None, "delivered".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_erased_in_a_read_model_that_is_being_replaced() {
    let on = Deployment::new().await;
    let mut read = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let rebuilding = connect(&on.url, &on.prefix.read(), Purpose::Command).await.expect("a session");
    let lock = "SELECT pg_advisory_lock(hashtext($1))";
    rebuilding.execute(lock, &[&on.prefix.read_new().to_string()]).await.expect("locked");
    let refused = journal::erase_read(&mut read, &on.prefix, id(1)).await.expect_err("refused").to_string();
    assert!(refused.contains("being rebuilt"), "{refused}");
}

/// The first acceptance among these.
fn accepted(events: &[LedgerEvent]) -> OrderAccepted {
    let found = events.iter().find_map(|event| match event {
        LedgerEvent::Accepted(it) => Some(it.clone()),
        _ => None,
    });
    *found.expect("an order is accepted")
}
