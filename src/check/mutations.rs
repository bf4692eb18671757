//! The checker checked: in a world that agrees everything holds; each single spoiling of it turns exactly those checks
//! red that ought to see it, and no check is never red.

use std::{collections::BTreeSet, sync::Arc};

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{EventId, Micros, OrderId, Topic};

use super::{
    facts::{Body, Facts, OrderEvent, Place, Record},
    verdict::Outcome,
    verdicts,
    world::{PLACE, SKU, at_location, cancelled, delivered, held, short, world},
};

fn with_outcome(facts: &Facts, outcome: Outcome) -> BTreeSet<&'static str> {
    verdicts(facts).into_iter().filter(|it| it.outcome() == outcome).map(|it| it.check).collect()
}

/// The n-th record of a topic.
fn record(facts: &mut Facts, topic: Topic, n: usize) -> &mut Record {
    facts.topics.records.iter_mut().filter(|it| it.place.topic == topic).nth(n).expect("the record is there")
}

fn lose_record(facts: &mut Facts, topic: Topic, n: usize) {
    let place = record(facts, topic, n).place;
    facts.topics.records.retain(|it| it.place != place);
}

fn event(facts: &mut Facts, order: OrderId, topic: Topic) -> &mut OrderEvent {
    let life = facts.topics.events.get_mut(&order).expect("the order is there");
    life.iter_mut().find(|it| it.place.topic == topic).expect("the event is there")
}

/// Changes what an event says, everywhere it is said.
fn say(facts: &mut Facts, order: OrderId, topic: Topic, change: impl FnOnce(&mut LedgerEvent)) {
    change(&mut event(facts, order, topic).event);
}

fn row(facts: &mut Facts, order: OrderId) -> &mut super::facts::OrderRow {
    facts.read.orders.iter_mut().find(|it| it.order_id == order).expect("the row is there")
}

fn state(facts: &mut Facts, order: OrderId) -> &mut kept_processors::ledger::OrderState {
    facts.ledger.states.get_mut(&order).expect("the state is there")
}

type Spoil = fn(&mut Facts);

/// What is done to the world, and which checks must be red then.
const MUTATIONS: &[(&str, Spoil, &[&str])] = &[
    // 1
    ("an order's row is deleted", |f| f.read.orders.retain(|it| it.order_id != held()), &["accepted"]),
    ("an order's row is copied", |f| f.read.orders.push(f.read.orders[0].clone()), &["accepted"]),
    (
        "an order's row is copied under another id",
        |f| {
            let mut copy = f.read.orders[0].clone();
            copy.order_id = OrderId::of("shop", "copy");
            f.read.orders.push(copy);
        },
        &["accepted"],
    ),
    (
        "a sender knows of one more order",
        |f| {
            let mut sent = f.logs.sent[0].clone();
            sent.order_id = OrderId::of("shop", "lost");
            sent.body_sha256.clear();
            f.logs.sent.push(sent);
        },
        &["accepted", "conservation"],
    ),
    ("a sender sent one cent more", |f| f.logs.sent[0].total_minor = Some(2_496), &["accepted"]),
    ("an accepted body is stored otherwise", |f| f.topics.inbound[5].body_sha256 = "00".into(), &["accepted"]),
    // 2, steps
    ("a step lost a record", |f| lose_record(f, Topic::OrdersValidated, 0), &["steps", "history"]),
    (
        "a step worked on a record twice",
        |f| {
            let mut copy = record(f, Topic::OrdersEnriched, 2).clone();
            copy.place.offset = 99;
            copy.fused = true;
            f.topics.records.push(copy);
        },
        &["steps"],
    ),
    ("a step's result is torn", |f| record(f, Topic::OrdersEnriched, 0).index = Some(1), &["steps"]),
    (
        "a step's result has an id that does not follow",
        |f| record(f, Topic::CommandsReceived, 0).event_id = EventId::of_input("a", "b", b"c"),
        &["steps", "decisions", "history"],
    ),
    ("a record cannot be read", |f| record(f, Topic::OrdersEnriched, 0).readable = false, &["steps"]),
    ("a dead letter is lost", |f| f.topics.dead_letters.clear(), &["steps"]),
    ("a dead letter is there twice", |f| f.topics.dead_letters.push(f.topics.dead_letters[0].clone()), &["steps"]),
    (
        "a record is dead and alive",
        |f| f.topics.dead_letters[0].place = f.topics.inbound[0].place,
        &["steps", "conservation"],
    ),
    (
        "a result comes from nowhere",
        |f| {
            let place = Place { topic: Topic::ChannelsInbound, partition: 0, offset: 77 };
            record(f, Topic::PaymentsReceived, 0).cause = Some(place);
        },
        &["steps"],
    ),
    // 2, ledger
    ("an event is lost on its topic", |f| lose_record(f, Topic::OrdersHeld, 0), &["decisions"]),
    (
        "all events of a decision are lost",
        |f| {
            lose_record(f, Topic::OrdersPaid, 0);
            lose_record(f, Topic::PostingsRequested, 0);
        },
        &["decisions"],
    ),
    (
        "an event is on its topic twice",
        |f| {
            let mut copy = record(f, Topic::OrdersHeld, 0).clone();
            copy.place.offset = 99;
            f.topics.records.push(copy);
        },
        &["decisions"],
    ),
    ("an event has another body", |f| record(f, Topic::OrdersHeld, 0).body = Body(1), &["decisions"]),
    ("an event was never decided", |f| _ = f.ledger.journal.pop(), &["decisions"]),
    (
        "a record was passed over",
        |f| {
            let id = record(f, Topic::CommandsReceived, 0).event_id;
            f.ledger.causes.retain(|(_, cause)| *cause != id);
        },
        &["decisions"],
    ),
    (
        "nothing came of a record that was decided about",
        |f| {
            let mut lost = record(f, Topic::PaymentsReceived, 0).clone();
            lost.place.offset = 1;
            (lost.event_id, lost.step) = (EventId::of_input("shop", "lost", b""), None);
            f.ledger.causes.insert((lost.order, lost.event_id));
            for next in [&mut f.ledger.progress, &mut f.groups.ledger] {
                next.insert((Topic::PaymentsReceived, 0), 2);
            }
            f.topics.records.push(lost);
        },
        &["decisions"],
    ),
    // 2, done again
    (
        "a step's result comes out otherwise when it is done again",
        |f| record(f, Topic::OrdersValidated, 0).same_again = Some(false),
        &["same again"],
    ),
    (
        "a decision comes out otherwise when it is made again",
        |f| f.ledger.again.different.add(|| "x".into()),
        &["same again"],
    ),
    // 2, read model
    ("a status is changed", |f| row(f, held()).status = "released".into(), &["read model"]),
    ("a cent is added to an order's row", |f| row(f, held()).total_minor += 1, &["accepted", "read model"]),
    ("a line's row is deleted", |f| _ = f.read.lines.pop(), &["accepted", "read model"]),
    ("a line's row is copied", |f| f.read.lines.push(f.read.lines[0].clone()), &["accepted", "read model"]),
    ("a line's shipped units change", |f| f.read.lines[0].shipped += 1, &["read model"]),
    ("a charge changes by a cent", |f| f.read.charges[0].amount_minor += 1, &["read model"]),
    ("a hold's row is deleted", |f| _ = f.read.holds.pop(), &["read model"]),
    ("a hold's row is resolved", |f| f.read.holds[0].resolution = Some("released".into()), &["read model"]),
    ("a timeline entry is deleted", |f| _ = f.read.timeline.pop(), &["read model"]),
    ("a timeline entry is doubled", |f| f.read.timeline.push(f.read.timeline[0]), &["read model"]),
    ("a message is shown that was never asked for", |f| f.read.notifications[0].0 = "n9".into(), &["read model"]),
    ("the ledger remembers another hold", |f| state(f, held()).holds[0].hold_id = "x".into(), &["read model"]),
    ("the ledger remembers more money", |f| state(f, at_location()).payment.captured_minor += 1, &["read model"]),
    // 3
    (
        "an order's number is missing",
        |f| event(f, delivered(), Topic::OrdersCompleted).seq += 1,
        &["history", "read model"],
    ),
    (
        "two events are swapped",
        |f| {
            let life = f.topics.events.get_mut(&cancelled()).expect("the order is there");
            let last = life.len() - 1;
            let (a, b) = (life[last].event.clone(), life[0].event.clone());
            (life[0].event, life[last].event) = (a, b);
        },
        &["history"],
    ),
    (
        "a release comes while a hold is open",
        |f| {
            let order_id = held();
            let life = f.topics.events.get_mut(&order_id).expect("the order is there");
            let seq = i64::try_from(life.len()).expect("few") + 1;
            let event = kept_schemas::events::OrderReleased { order_id, seq, ..Default::default() };
            let place = Place { topic: Topic::OrdersReleased, partition: 0, offset: 9 };
            life.push(OrderEvent { event_id: EventId::of_input("x", "", b""), place, seq, event: event.into() });
            f.read.progress.insert((Topic::OrdersReleased, 0), 10);
            f.read.timeline.push((order_id, seq, Topic::OrdersReleased));
            state(f, order_id).seq = seq;
            row(f, order_id).released = true;
        },
        &["history"],
    ),
    ("an event is older than its cause", |f| record(f, Topic::OrdersCancelled, 0).at = Micros(0), &["history"]),
    (
        "a later record was answered first",
        |f| {
            let cause = Place { topic: Topic::OutcomesReceived, partition: 0, offset: 2 };
            let id = record(f, Topic::OutcomesReceived, 2).event_id;
            let noted = record(f, Topic::OrdersNoted, 0);
            (noted.cause, noted.cause_id) = (Some(cause), Some(id));
            noted.at = Micros(i64::MAX);
        },
        &["decisions", "history"],
    ),
    // 4
    ("reserved is raised", |f| f.ledger.stock.values_mut().for_each(|it| it.0.reserved += 1), &["stock", "promises"]),
    (
        "a row and its last movement say more is reserved",
        |f| {
            f.ledger.stock.values_mut().for_each(|it| it.0.reserved += 1);
            f.read.stock.values_mut().for_each(|it| it.0.reserved += 1);
            f.ledger.entries.last_mut().expect("moved").now.reserved += 1;
            f.topics.moves.last_mut().expect("moved").now.reserved += 1;
        },
        &["promises", "stock"],
    ),
    (
        "more was reserved than there was, for a moment",
        |f| {
            for moves in [&mut f.ledger.entries, &mut f.topics.moves] {
                moves[1].now.reserved = 9;
                moves[2].now.reserved = 11;
            }
        },
        &["stock"],
    ),
    ("a movement is lost", |f| _ = f.ledger.entries.remove(1), &["stock"]),
    ("a movement is there twice", |f| f.ledger.entries.push(f.ledger.entries[1].clone()), &["stock"]),
    ("a movement is told otherwise", |f| f.topics.moves[1].quantity = 1, &["stock"]),
    (
        "the read model's stock is off by one",
        |f| f.read.stock.values_mut().for_each(|it| it.0.on_hand += 1),
        &["stock"],
    ),
    ("a claim is lost", |f| f.ledger.claims.values_mut().for_each(|it| *it -= 1), &["promises"]),
    (
        "an order remembers a pin that stock does not have",
        |f| {
            let state = state(f, at_location());
            state.fulfilments[0].location_id = "south".into();
        },
        &["promises"],
    ),
    (
        "an order holds part of a line and says nothing",
        |f| {
            let state = state(f, at_location());
            state.lines[0].quantity += 1;
        },
        &["promises"],
    ),
    (
        "an order was promised what another had",
        |f| {
            for moves in [&mut f.ledger.entries, &mut f.topics.moves] {
                moves.iter_mut().for_each(|it| it.now.on_hand -= 3);
                moves[0].quantity -= 3;
            }
            f.ledger.stock.values_mut().for_each(|it| it.0.on_hand -= 3);
            f.read.stock.values_mut().for_each(|it| it.0.on_hand -= 3);
        },
        &["promises"],
    ),
    // 5
    (
        "a fulfilment has two shipments",
        |f| {
            let life = f.topics.events.get_mut(&delivered()).expect("the order is there");
            let mut second = life.iter().find(|it| it.place.topic == Topic::ShipmentsDespatched).expect("it").clone();
            if let LedgerEvent::Despatched(it) = &mut second.event {
                it.shipment_id = "s2".into();
                it.lines.clear();
                it.unpinned.clear();
                it.parcels.clear();
            }
            second.event_id = EventId::of_input("x", "", b"");
            second.seq = i64::try_from(life.len()).expect("few") + 1;
            let seq = second.seq;
            life.push(second);
            f.read.timeline.push((delivered(), seq, Topic::ShipmentsDespatched));
            f.read.shipments.insert(("s2".into(), Some(PLACE.into())));
            state(f, delivered()).seq = seq;
        },
        &["shipments"],
    ),
    (
        "a label is on two parcels",
        |f| {
            say(f, delivered(), Topic::ShipmentsDespatched, |event| {
                if let LedgerEvent::Despatched(it) = event {
                    let mut second = it.parcels[0].clone();
                    second.parcel_id = "p2".into();
                    it.parcels.push(second);
                }
            });
            let mut second = f.read.parcels[0].clone();
            second.parcel_id = "p2".into();
            f.read.parcels.push(second);
        },
        &["shipments"],
    ),
    (
        "the warehouse despatched twice",
        |f| {
            let mut second = f.logs.world[1].clone();
            second.outcome_id = "o-again".into();
            f.logs.world.push(second.clone());
            f.topics.outcomes.push(super::facts::Outcome {
                order_id: second.order_id,
                outcome_id: second.outcome_id,
                kind: second.kind,
                fulfilment_id: second.fulfilment_id,
                simulated: true,
            });
        },
        &["shipments"],
    ),
    ("the warehouse knows of no despatch", |f| f.logs.world.retain(|it| it.kind != "despatched"), &["shipments"]),
    (
        "the warehouse despatched what we do not know of",
        |f| {
            let mut other = f.logs.world[1].clone();
            other.fulfilment_id = "f9".into();
            f.logs.world.push(other);
        },
        &["shipments"],
    ),
    ("a shipment's row is deleted", |f| f.read.shipments.clear(), &["shipments"]),
    ("a shipment's units change", |f| f.read.shipment_lines[0].3 += 1, &["shipments"]),
    ("a parcel's label changes", |f| f.read.parcels[0].tracking_number = Some("T9".into()), &["shipments"]),
    // 6
    (
        "a side of a posting is dropped",
        |f| {
            say(f, delivered(), Topic::PostingsRequested, |event| {
                if let LedgerEvent::Posting(it) = event {
                    it.entries.pop();
                }
            });
            f.read.postings.retain(|it| it.account != "revenue");
        },
        &["postings"],
    ),
    (
        "a posting is a cent off",
        |f| {
            say(f, at_location(), Topic::PostingsRequested, |event| {
                if let LedgerEvent::Posting(it) = event {
                    it.entries[0].amount.minor += 1;
                }
            });
        },
        &["postings"],
    ),
    ("a posting's row is a cent off", |f| f.read.postings[0].amount_minor += 1, &["postings"]),
    ("a posting's row is deleted", |f| _ = f.read.postings.pop(), &["postings"]),
    ("a posting's row is copied", |f| f.read.postings.push(f.read.postings[0].clone()), &["postings"]),
    (
        "an order was sold for a cent less than it is worth",
        |f| {
            say(f, delivered(), Topic::PostingsRequested, |event| {
                if let LedgerEvent::Posting(it) = event {
                    it.entries[0].amount.minor -= 1;
                    it.entries[1].amount.minor += 1;
                }
            });
            for row in f.read.postings.iter_mut().filter(|it| it.order_id == delivered()) {
                row.amount_minor -= row.amount_minor.signum();
            }
        },
        &["postings"],
    ),
    (
        "a payment is posted again under another id",
        |f| {
            let order = at_location();
            let life = f.topics.events.get_mut(&order).expect("the order is there");
            let mut second = life.iter().find(|it| it.place.topic == Topic::PostingsRequested).expect("it").clone();
            second.seq = i64::try_from(life.len()).expect("few") + 1;
            let seq = second.seq;
            if let LedgerEvent::Posting(it) = &mut second.event {
                it.posting_id = "again".into();
            }
            life.push(second);
            f.read.timeline.push((order, seq, Topic::PostingsRequested));
            state(f, order).seq = seq;
            let again: Vec<_> = f.read.postings.iter().filter(|it| it.order_id == order).cloned().collect();
            f.read.postings.extend(again.into_iter().map(|mut it| {
                it.posting_id = "again".into();
                it
            }));
        },
        &["postings"],
    ),
    (
        "more is refunded than came in",
        |f| {
            say(f, at_location(), Topic::OrdersPaid, |event| {
                if let LedgerEvent::Paid(it) = event {
                    it.refunded_minor = it.captured_minor + 1;
                }
            });
            state(f, at_location()).payment.refunded_minor = 2_496;
            row(f, at_location()).payment = Some(("paid".into(), 0, 2_495, 2_496));
        },
        &["postings"],
    ),
    // 7
    ("a hold has no deadline", |f| state(f, held()).holds[0].due_at = Micros(0), &["endings"]),
    ("a timer is lost", |f| f.ledger.timers.retain(|it| it.order_id != at_location()), &["endings"]),
    (
        "a timer is left behind",
        |f| {
            let mut timer = f.ledger.timers[0].clone();
            timer.order_id = delivered();
            f.ledger.timers.push(timer);
        },
        &["endings"],
    ),
    (
        "an order at a location has nothing that will wake it",
        |f| {
            state(f, at_location()).timers.clear();
            f.ledger.timers.retain(|it| it.order_id != at_location());
        },
        &["endings"],
    ),
    (
        "an order is forgotten",
        |f| {
            let state = state(f, cancelled());
            state.completed = None;
        },
        &["endings"],
    ),
    // 8
    (
        "an order came in and is nowhere",
        |f| {
            f.ledger.states.remove(&short());
            f.ledger.timers.retain(|it| it.order_id != short());
            f.ledger.claims.insert(Arc::from(SKU), 2);
        },
        &["conservation", "history"],
    ),
    (
        "an order is on the books that never came in",
        |f| {
            f.topics.received.retain(|it| it.order_id != held());
            f.topics.inbound.retain(|it| it.order_id != held());
            f.logs.sent.retain(|it| it.order_id != held());
        },
        &["accepted", "conservation"],
    ),
    ("a dead letter is hidden from people", |f| f.read.dead_letters.clear(), &["conservation"]),
];

#[test]
fn in_a_world_that_agrees_every_check_holds() {
    for verdict in verdicts(&world()) {
        assert_eq!(verdict.outcome(), Outcome::Held, "{verdict:#?}");
        assert!(verdict.counted.iter().any(|(_, count)| *count > 0), "{} looked at nothing", verdict.check);
    }
}

#[test]
fn each_spoiling_turns_exactly_its_checks_red() {
    let mut wrong = Vec::new();
    for (name, spoil, expected) in MUTATIONS {
        let mut facts = world();
        spoil(&mut facts);
        let red = with_outcome(&facts, Outcome::Broken);
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        if red != expected {
            let said: Vec<String> = verdicts(&facts).into_iter().flat_map(|it| it.broken.examples).collect();
            wrong.push(format!("{name}: {red:?} instead of {expected:?}\n  {}", said.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_check_is_without_a_spoiling_that_only_it_sees() {
    let alone: BTreeSet<&str> =
        MUTATIONS.iter().filter(|(.., red)| red.len() == 1).flat_map(|(.., red)| red.iter().copied()).collect();
    let all: BTreeSet<&str> = verdicts(&Facts::default()).into_iter().map(|it| it.check).collect();
    assert_eq!(alone, all);
}

/// What is decided, made or read up to a point is behind it; the rest is on its way and no fault.
#[test]
fn what_is_under_way_is_called_so_and_not_broken() {
    let mut facts = world();
    // The sink has read nothing of held orders, and the ledger has not emitted its last decision.
    facts.read.progress.insert((Topic::OrdersHeld, 0), 0);
    facts.read.holds.clear();
    facts.read.timeline.retain(|(.., topic)| *topic != Topic::OrdersHeld);
    let late = held();
    row(&mut facts, late).open_holds = 0;
    assert_eq!(with_outcome(&facts, Outcome::Broken), BTreeSet::new());
    assert!(with_outcome(&facts, Outcome::InFlight).contains("read model"));

    let mut facts = world();
    let last = facts.groups.steps.get_mut(&(Topic::ChannelsInbound, 0)).expect("read");
    *last -= 1;
    facts.topics.dead_letters.clear();
    facts.read.dead_letters.clear();
    assert_eq!(with_outcome(&facts, Outcome::Broken), BTreeSet::new());
    let under_way = with_outcome(&facts, Outcome::InFlight);
    assert!(under_way.contains("steps"), "{under_way:?}");
    assert!(verdicts(&facts).iter().all(|it| it.passes(false)));
    assert!(verdicts(&facts).iter().any(|it| !it.passes(true)));
}

#[test]
fn an_open_transaction_is_under_way() {
    let mut facts = world();
    facts.topics.extents.get_mut(&(Topic::OrdersHeld, 0)).expect("written").end += 1;
    assert_eq!(with_outcome(&facts, Outcome::Broken), BTreeSet::new());
    assert_eq!(with_outcome(&facts, Outcome::InFlight), BTreeSet::from(["steps"]));
}

#[test]
fn a_deadline_that_nobody_dealt_with_is_under_way_once_it_is_long_due() {
    let mut facts = world();
    for (seconds_ago, red) in [(60, false), (180, true)] {
        let due_at = Micros(facts.now.0 - seconds_ago * Micros::SECOND);
        state(&mut facts, at_location()).timers[0].due_at = due_at;
        facts.ledger.timers.iter_mut().find(|it| it.order_id == at_location()).expect("a timer").due_at = due_at;
        assert_eq!(with_outcome(&facts, Outcome::Broken), BTreeSet::new());
        let expected = if red { BTreeSet::from(["endings"]) } else { BTreeSet::new() };
        assert_eq!(with_outcome(&facts, Outcome::InFlight), expected, "{seconds_ago} s");
        assert_eq!(verdicts(&facts).iter().all(|it| it.passes(true)), !red, "{seconds_ago} s");
    }
}

#[test]
fn an_erased_person_is_no_fault() {
    let mut facts = world();
    for row in &mut facts.ledger.journal {
        row.body = None;
    }
    assert_eq!(with_outcome(&facts, Outcome::Broken), BTreeSet::new());
}
