//! For tests: a small world of facts that agree, made by hand: an order that was delivered, one at a location, one held
//! for its payment, one that waits for stock, one cancelled, a payment, and a body that could not be read.

use std::{collections::BTreeMap, sync::Arc};

use kept_processors::ledger::{
    FulfilmentState, FulfilmentStatus, LedgerEvent, LineState, OrderState, ShipmentState, Timer,
};
use kept_schemas::{
    EventId, Micros, Order, OrderId, OrderLine, Topic, UnitPrice,
    events::{
        FulfilmentLine, FulfilmentRequested, Hold, NoteKind, NotificationRequested, OrderAccepted, OrderBackordered,
        OrderCancelled, OrderCompleted, OrderHeld, OrderNoted, OrderPaid, OrderReleased, PaymentState, PostingEntry,
        PostingKind, PostingRequested, ShipmentDespatched, ShipmentTracked, StockChanged,
    },
    inbound::HoldReason,
    inputs::{Condition, LineQuantity, OutcomeKind, Parcel, TimerPurpose},
    order::{Charge, ChargeKind},
    values::Money,
};

use super::{
    facts::{
        Body, ChargeRow, Counts, DeadLetter, Extent, Facts, HoldRow, Inbound, JournalRow, LineRow, Move, OrderEvent,
        OrderRow, Outcome, ParcelRow, Place, PostingRow, Received, Record, Sent, Step, StockName, TimerRow, WorldEntry,
    },
    life::Life,
};

pub const SKU: &str = "MUG";
pub const PLACE: &str = "north";

/// The orders, by what became of them.
pub fn delivered() -> OrderId {
    OrderId::of("shop", "1")
}
pub fn at_location() -> OrderId {
    OrderId::of("shop", "2")
}
pub fn held() -> OrderId {
    OrderId::of("shop", "3")
}
pub fn short() -> OrderId {
    OrderId::of("shop", "4")
}
pub fn cancelled() -> OrderId {
    OrderId::of("shop", "5")
}
pub fn unreadable() -> OrderId {
    OrderId::of("shop", "6")
}

/// Facts that agree with each other.
pub fn world() -> Facts {
    let mut world = World::default();
    let count = world.input(Topic::StockCounted, None);
    let movement = world.movement("count", 9);
    world.decide(&count, vec![movement]);
    for (number, order) in (1..).zip([delivered(), at_location(), held(), short(), cancelled()]) {
        let validated = world.comes_in(order, number, number % 2 == 0);
        world.accept(&validated, order, number);
    }
    world.pay(at_location());
    world.cancel(cancelled());
    world.despatch(delivered());
    world.dead_letter(unreadable());
    world.finish()
}

#[derive(Default)]
struct World {
    facts: Facts,
    clock: i64,
    seqs: BTreeMap<OrderId, i64>,
    stock: (Counts, i64),
}

impl World {
    fn now(&mut self) -> Micros {
        self.clock += 1;
        Micros(Micros::DAY + self.clock)
    }

    fn seq(&mut self, order: OrderId) -> i64 {
        let seq = self.seqs.entry(order).or_default();
        *seq += 1;
        *seq
    }

    fn record(
        &mut self,
        topic: Topic,
        order: Option<OrderId>,
        made: Option<(Step, &Record, u32)>,
        fused: bool,
    ) -> Record {
        let at = self.now();
        let extent = self.facts.topics.extents.entry((topic, 0)).or_default();
        let place = Place { topic, partition: 0, offset: extent.end };
        *extent = Extent { start: 0, stable_end: place.offset + 1, end: place.offset + 1 };
        let number = u32::try_from(self.clock).expect("a small world");
        let event_id = match made {
            Some((step, cause, index)) => EventId::of_step(step.name(), cause.event_id, index),
            None => EventId::of_input("shop", &number.to_string(), b""),
        };
        let record = Record {
            place,
            at,
            event_id,
            step: made.map(|(step, ..)| step),
            cause_id: made.map(|(_, cause, _)| cause.event_id),
            cause: made.map(|(_, cause, _)| if cause.fused { cause.cause.expect("made") } else { cause.place }),
            index: made.map(|(.., index)| index),
            fused,
            order,
            body: Body::of(&[&number.to_be_bytes()]),
            readable: true,
            same_again: made.filter(|(step, ..)| *step < Step::Ledger).map(|_| true),
        };
        self.facts.topics.records.push(record.clone());
        record
    }

    fn input(&mut self, topic: Topic, order: Option<OrderId>) -> Record {
        self.record(topic, order, None, false)
    }

    fn sent(&mut self, order: OrderId, kind: &str) -> Record {
        let record = self.input(Topic::ChannelsInbound, Some(order));
        let body_sha256 = format!("{:032x}", record.body.0);
        self.facts.logs.sent.push(Sent {
            order_id: order,
            number: order.to_string(),
            kind: kind.into(),
            body_sha256: body_sha256.clone(),
            accepted: true,
            lines: Some(1),
            units: Some(2),
            total_minor: Some(2_495),
        });
        self.facts.topics.inbound.push(Inbound {
            place: record.place,
            order_id: order,
            kind: kind.into(),
            body_sha256,
        });
        record
    }

    /// Through the stateless steps, fused or apart.
    fn comes_in(&mut self, order: OrderId, _number: i64, fused: bool) -> Record {
        let raw = self.sent(order, "order");
        let received = self.record(Topic::OrdersReceived, Some(order), Some((Step::Normalise, &raw, 0)), fused);
        self.facts.topics.received.push(Received { place: received.place, order_id: order });
        let enriched = self.record(Topic::OrdersEnriched, Some(order), Some((Step::Enrich, &received, 0)), fused);
        self.record(Topic::OrdersValidated, Some(order), Some((Step::Validate, &enriched, 0)), false)
    }

    fn movement(&mut self, movement: &str, quantity: i64) -> LedgerEvent {
        let (now, version) = &mut self.stock;
        match movement {
            "count" => now.on_hand = quantity,
            "pin" => now.reserved += quantity,
            "pick" => now.picked += quantity,
            _ => {
                now.on_hand -= quantity;
                now.reserved -= quantity;
                now.picked -= quantity;
            }
        }
        *version += 1;
        StockChanged {
            sku: SKU.into(),
            location_id: PLACE.into(),
            condition: Condition::Sellable,
            version: *version,
            on_hand: now.on_hand,
            reserved: now.reserved,
            picked: now.picked,
            movement: movement.into(),
            quantity,
            ..Default::default()
        }
        .into()
    }

    /// The ledger's answer to a record: journal, topics, tables.
    fn decide(&mut self, cause: &Record, events: Vec<LedgerEvent>) {
        self.facts.ledger.causes.insert((cause.order, cause.event_id));
        for (index, event) in (0..).zip(events) {
            let order = match &event {
                LedgerEvent::Stock(_) => None,
                _ => cause.order,
            };
            let record = self.record(event.topic(), order, Some((Step::Ledger, cause, index)), false);
            let journal_id = i64::try_from(self.facts.ledger.journal.len()).expect("a small world") + 1;
            self.facts.ledger.journal.push(JournalRow {
                journal_id,
                event_id: record.event_id,
                topic: record.place.topic,
                order: event.place(),
                cause_id: cause.event_id,
                cause: cause.place,
                index,
                body: Some(record.body),
            });
            if let LedgerEvent::Stock(it) = &event {
                let change = Move {
                    event_id: record.event_id,
                    row: name(),
                    version: it.version,
                    movement: it.movement.as_str().into(),
                    quantity: it.quantity,
                    now: Counts { on_hand: it.on_hand, reserved: it.reserved, picked: it.picked, unbacked: 0 },
                    claimed: 0,
                };
                self.facts.topics.moves.push(change.clone());
                self.facts.ledger.entries.push(change);
            }
            if let Some((order, seq)) = event.place() {
                let place = record.place;
                let event = OrderEvent { event_id: record.event_id, place, seq, event };
                self.facts.topics.events.entry(order).or_default().push(event);
                self.facts.read.timeline.push((order, seq, place.topic));
            }
        }
    }

    fn accept(&mut self, cause: &Record, order_id: OrderId, order_no: i64) {
        let line = OrderLine {
            line_no: 1,
            sku: SKU.into(),
            quantity: 2,
            unit_price: UnitPrice { amount: 1_000, scale: 2 },
            line_total_minor: 2_000,
            ..Default::default()
        };
        let charge = Charge {
            kind: ChargeKind::Shipping,
            code: "POST".into(),
            quantity: 1,
            unit_price: UnitPrice { amount: 495, scale: 2 },
            amount_minor: 495,
            ..Default::default()
        };
        let order = Order {
            order_id,
            channel: "storefront".into(),
            shop: "shop".into(),
            channel_order_id: order_no.to_string(),
            currency: "EUR".into(),
            total_minor: 2_495,
            lines: vec![line],
            charges: vec![charge],
            ..Default::default()
        };
        let claimed = if order_id == short() { 1 } else { 2 };
        let claimed = vec![LineQuantity { line_no: 1, quantity: claimed }];
        let seq = self.seq(order_id);
        let mut events: Vec<LedgerEvent> =
            vec![OrderAccepted { order_id, seq, order_no, order, claimed, ..Default::default() }.into()];
        if order_id == held() || order_id == short() {
            let reason = if order_id == held() { HoldReason::AwaitingPayment } else { HoldReason::OutOfStock };
            if order_id == short() {
                let lines = vec![LineQuantity { line_no: 1, quantity: 1 }];
                events.push(OrderBackordered { order_id, seq: self.seq(order_id), lines, ..Default::default() }.into());
            }
            let due_at = Micros(2 * Micros::DAY);
            let hold = Hold { hold_id: format!("{order_no}-1"), reason, due_at, ..Default::default() };
            events
                .push(OrderHeld { order_id, seq: self.seq(order_id), holds: vec![hold], ..Default::default() }.into());
        }
        if order_id == delivered() || order_id == at_location() {
            events.push(OrderReleased { order_id, seq: self.seq(order_id), ..Default::default() }.into());
            let seq = self.seq(order_id);
            let lines = vec![FulfilmentLine { line_no: 1, sku: SKU.into(), quantity: 2, ..Default::default() }];
            let (fulfilment_id, location_id) = (format!("f{order_no}"), PLACE.into());
            events.push(
                FulfilmentRequested { order_id, seq, fulfilment_id, location_id, lines, ..Default::default() }.into(),
            );
            events.push(self.movement("pin", 2));
        }
        self.decide(cause, events);
    }

    fn pay(&mut self, order_id: OrderId) {
        let raw = self.sent(order_id, "payment");
        let payment = self.record(Topic::PaymentsReceived, Some(order_id), Some((Step::Normalise, &raw, 0)), false);
        let seq = self.seq(order_id);
        let paid = OrderPaid { order_id, seq, state: PaymentState::Paid, captured_minor: 2_495, ..Default::default() };
        let seq = self.seq(order_id);
        let posting = posting(order_id, seq, PostingKind::Payment, "bank", "receivable");
        self.decide(&payment, vec![paid.into(), posting.into()]);
    }

    fn cancel(&mut self, order_id: OrderId) {
        let raw = self.sent(order_id, "cancellation");
        let command = self.record(Topic::CommandsReceived, Some(order_id), Some((Step::Normalise, &raw, 0)), false);
        let lines = vec![LineQuantity { line_no: 1, quantity: 2 }];
        let seq = self.seq(order_id);
        let given_back = lines.clone();
        let cancelled = OrderCancelled { order_id, seq, whole: true, lines, given_back, ..Default::default() };
        let seq = self.seq(order_id);
        let completed = OrderCompleted { order_id, seq, outcome: "cancelled".into(), ..Default::default() };
        self.decide(&command, vec![cancelled.into(), completed.into()]);
    }

    fn despatch(&mut self, order_id: OrderId) {
        let lines = vec![LineQuantity { line_no: 1, quantity: 2 }];
        let picked = self.outcome(order_id, "picked");
        let seq = self.seq(order_id);
        let note = OrderNoted { order_id, seq, kind: NoteKind::Picked, lines: lines.clone(), ..Default::default() };
        let movement = self.movement("pick", 2);
        self.decide(&picked, vec![note.into(), movement]);

        let despatched = self.outcome(order_id, "despatched");
        let parcel = Parcel { parcel_id: "p1".into(), tracking_number: Some("T1".into()), ..Default::default() };
        let seq = self.seq(order_id);
        let left = ShipmentDespatched {
            order_id,
            seq,
            shipment_id: "s1".into(),
            fulfilment_id: "f1".into(),
            location_id: PLACE.into(),
            lines: lines.clone(),
            unpinned: lines,
            parcels: vec![parcel],
            simulated: true,
            ..Default::default()
        };
        let movement = self.movement("despatch", 2);
        let seq = self.seq(order_id);
        let sale = posting(order_id, seq, PostingKind::Sale, "receivable", "revenue");
        let seq = self.seq(order_id);
        let told = NotificationRequested { order_id, seq, notification_id: "n1".into(), ..Default::default() };
        self.decide(&despatched, vec![left.into(), movement, sale.into(), told.into()]);

        let delivered = self.outcome(order_id, "delivered");
        let (seq, shipment_id) = (self.seq(order_id), "s1".into());
        let tracked =
            ShipmentTracked { order_id, seq, shipment_id, kind: OutcomeKind::Delivered, ..Default::default() };
        let seq = self.seq(order_id);
        let completed = OrderCompleted { order_id, seq, outcome: "delivered".into(), ..Default::default() };
        self.decide(&delivered, vec![tracked.into(), completed.into()]);
    }

    fn outcome(&mut self, order_id: OrderId, kind: &str) -> Record {
        let outcome_id = format!("o-{kind}");
        let (fulfilment_id, kind) = ("f1".to_owned(), kind.to_owned());
        self.facts.logs.world.push(WorldEntry {
            fulfilment_id: fulfilment_id.clone(),
            order_id,
            kind: kind.clone(),
            outcome_id: outcome_id.clone(),
        });
        self.facts.topics.outcomes.push(Outcome { order_id, outcome_id, kind, fulfilment_id, simulated: true });
        self.input(Topic::OutcomesReceived, Some(order_id))
    }

    fn dead_letter(&mut self, order: OrderId) {
        let raw = self.input(Topic::ChannelsInbound, Some(order));
        let at = self.now();
        self.facts.topics.dead_letters.push(DeadLetter {
            place: raw.place,
            order: Some(order),
            reason: "first byte is 9".into(),
            at,
        });
        self.facts.read.dead_letters.push(raw.place);
        self.record(Topic::DeadLetters, None, Some((Step::Other, &raw, 0)), false);
    }

    /// Everything has gone all the way; tables say what the events add up to.
    fn finish(mut self) -> Facts {
        let facts = &mut self.facts;
        facts.now = Micros(Micros::DAY + self.clock + 1);
        (facts.logs.sent_files, facts.logs.world_files) = (1, 1);
        facts.ledger.again.decisions = 1;
        facts.ledger.again.events = facts.ledger.journal.len() as u64;
        let ends: BTreeMap<(Topic, i32), i64> = facts.topics.extents.iter().map(|(at, it)| (*at, it.end)).collect();
        facts.groups.steps.clone_from(&ends);
        facts.groups.ledger.clone_from(&ends);
        facts.ledger.progress.clone_from(&ends);
        facts.read.progress = ends;
        facts.ledger.stock.insert(name(), self.stock);
        facts.read.stock.insert(name(), self.stock);
        let mut claims = 0;
        for (order, events) in &facts.topics.events {
            let life = Life::of(events);
            let state = state(&life);
            claims += state.lines.iter().map(|line| line.claimed).sum::<i64>();
            for it in &state.timers {
                let (timer_id, purpose) = (it.timer_id.clone(), it.purpose.to_string());
                facts.ledger.timers.push(TimerRow { order_id: *order, timer_id, purpose, due_at: it.due_at });
            }
            facts.ledger.states.insert(*order, state);
            show(&life, *order, &mut facts.read);
        }
        facts.ledger.claims.insert(Arc::from(SKU), claims);
        self.facts
    }
}

fn name() -> StockName {
    StockName { sku: SKU.into(), location: PLACE.into(), condition: Condition::Sellable.as_str().into() }
}

fn posting(order_id: OrderId, seq: i64, kind: PostingKind, debit: &str, credit: &str) -> PostingRequested {
    let side = |account: &str, minor| PostingEntry {
        account: account.to_owned(),
        amount: Money { minor, currency: "EUR".into() },
    };
    let entries = vec![side(debit, 2_495), side(credit, -2_495)];
    let (posting_id, cause) = (format!("{kind}-{order_id}"), "x".into());
    PostingRequested { order_id, seq, posting_id, kind, entries, cause, ..Default::default() }
}

/// What the ledger would remember.
fn state(life: &Life<'_>) -> OrderState {
    let accepted = life.accepted.expect("every order here is accepted");
    let units = life.units[&1];
    let asked: i64 = life.requested.iter().flat_map(|it| &it.lines).map(|line| line.quantity).sum();
    let pinned = asked - units.shipped;
    let line = &accepted.order.lines[0];
    let holds: Vec<Hold> =
        life.holds.values().filter(|hold| hold.open()).filter_map(|hold| hold.opened.cloned()).collect();
    let timer = |timer_id: &str, purpose| Timer {
        timer_id: timer_id.to_owned(),
        purpose,
        revision: 1,
        due_at: Micros(2 * Micros::DAY),
    };
    let mut timers: Vec<Timer> = holds.iter().map(|hold| timer(&hold.hold_id, TimerPurpose::HoldDue)).collect();
    let mut fulfilments = Vec::new();
    for it in &life.requested {
        let left = units.shipped > 0;
        if !left {
            timers.push(timer(&it.fulfilment_id, TimerPurpose::DespatchDue));
        }
        fulfilments.push(FulfilmentState {
            fulfilment_id: it.fulfilment_id.clone(),
            location_id: it.location_id.clone(),
            status: if left { FulfilmentStatus::Despatched } else { FulfilmentStatus::Requested },
            pinned: if left { Vec::new() } else { vec![(1, 2)] },
            picked: Vec::new(),
            late: false,
        });
    }
    let mut state = OrderState {
        order_id: accepted.order_id,
        order_no: accepted.order_no,
        seq: life.last_seq,
        accepted: true,
        total_minor: accepted.order.total_minor,
        lines: vec![LineState {
            line_no: 1,
            sku: line.sku.clone(),
            quantity: line.quantity,
            claimed: units.reserved - pinned,
            pinned,
            shipped: units.shipped,
            cancelled: units.cancelled,
            ..Default::default()
        }],
        holds,
        released: life.released,
        cancelled: life.whole_cancelled,
        fulfilments,
        timers,
        completed: life.outcome.map(str::to_owned),
        ..Default::default()
    };
    if let Some(paid) = life.paid {
        state.payment.captured_minor = paid.captured_minor;
    }
    if !life.despatched.is_empty() {
        state.shipments.push(ShipmentState { shipment_id: "s1".into(), delivered: true, ..Default::default() });
    }
    state
}

/// What the read model would show.
fn show(life: &Life<'_>, order_id: OrderId, read: &mut super::facts::ReadTables) {
    let accepted = life.accepted.expect("every order here is accepted");
    let (order, units) = (&accepted.order, life.units[&1]);
    read.orders.push(OrderRow {
        order_id,
        order_no: accepted.order_no,
        revision: 0,
        shop: order.shop.clone(),
        channel: order.channel.clone(),
        channel_order_id: order.channel_order_id.clone(),
        status: life.status().to_owned(),
        placed_at: order.placed_at,
        currency: order.currency.clone(),
        total_minor: 2_495,
        charges_minor: 495,
        test: false,
        quantity: 2,
        reserved: units.reserved,
        shipped: units.shipped,
        cancelled: units.cancelled,
        picked: life.picked,
        open_holds: life.open_holds(),
        released: life.released,
        outcome: life.outcome.map(str::to_owned),
        payment: life.paid.map(|it| (it.state.to_string(), it.authorised_minor, it.captured_minor, it.refunded_minor)),
    });
    read.lines.push(LineRow {
        order_id,
        line_no: 1,
        sku: SKU.into(),
        quantity: 2,
        unit_price: "10.00".into(),
        line_total_minor: 2_000,
        reserved: units.reserved,
        shipped: units.shipped,
        cancelled: units.cancelled,
        short: 2 - units.reserved - units.shipped - units.cancelled,
    });
    let (kind, code) = ("shipping".into(), "POST".into());
    read.charges.push(ChargeRow { order_id, charge_no: 1, kind, code, amount_minor: 495 });
    for (hold_id, hold) in &life.holds {
        let opened = hold.opened.expect("every hold here was opened");
        read.holds.push(HoldRow {
            order_id,
            hold_id: (*hold_id).to_owned(),
            reason: opened.reason.to_string(),
            opened: true,
            due_at: Some(opened.due_at),
            resolution: None,
        });
    }
    for it in &life.despatched {
        read.shipments.insert((it.shipment_id.clone(), Some(it.location_id.clone())));
        read.shipment_lines.push((it.shipment_id.clone(), order_id, 1, 2));
        read.parcels.push(ParcelRow {
            parcel_id: "p1".into(),
            shipment_id: it.shipment_id.clone(),
            tracking_number: Some("T1".into()),
        });
    }
    for it in &life.postings {
        for entry in &it.entries {
            read.postings.push(PostingRow {
                posting_id: it.posting_id.clone(),
                order_id,
                kind: it.kind.to_string(),
                account: entry.account.clone(),
                currency: "EUR".into(),
                amount_minor: entry.amount.minor,
            });
        }
    }
    read.notifications.extend(life.notifications.iter().map(|it| (it.notification_id.clone(), order_id)));
}
