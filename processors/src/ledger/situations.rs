//! Tables of situations: what is there, what comes, what is said.

use kept_schemas::{
    Micros,
    inbound::{HoldReason::*, OrderValidated},
    inputs::{CommandKind, OutcomeKind, PaymentKind},
    order::{Party, PaymentMethod},
};

use super::{testing::*, *};

fn assert_said(events: &[LedgerEvent], expected: &[&str]) {
    assert_eq!(words(events), expected);
}

#[test]
fn an_order_with_nothing_in_its_way_is_accepted_released_and_asked_for_at_once() {
    let mut world = World::with(&[("A", "north", 5)]);
    let events = world.take(validated(order(1, &[("A", 2)])));
    assert_said(&events, &["accepted 2", "told order_confirmed", "released", "requested north", "pin 2 A at north"]);
    let row = world.row("A", "north");
    assert_eq!((row.on_hand, row.reserved), (5, 2));
}

#[test]
fn an_order_goes_from_the_door_to_the_customer() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(with_shipping(order(1, &[("A", 2)]), 495)));
    let events = world.take(world.reports(1, OutcomeKind::Picked, &[]));
    assert_said(&events, &["noted picked", "pick 2 A at north"]);
    let events = world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    assert_said(&events, &["despatched", "despatch 2 A at north", "posted sale 2495", "told despatched"]);
    let events = world.take(world.reports(1, OutcomeKind::Tracked, &[]));
    assert_said(&events, &["tracked tracked"]);
    let events = world.take(world.reports(1, OutcomeKind::Delivered, &[]));
    assert_said(&events, &["tracked delivered", "told delivered", "completed delivered"]);
    assert_eq!((world.row("A", "north").on_hand, world.row("A", "north").reserved), (3, 0));
}

#[test]
fn an_order_is_held_once_with_every_reason() {
    let mut world = World::with(&[("A", "north", 1)]);
    let it = with_problem(unpaid(order(1, &[("A", 2), ("?", 1)])), AddressInvalid, "no house number");
    let events = world.take(validated(it));
    let held = "held address_invalid+unknown_sku+out_of_stock+awaiting_payment";
    assert_said(&events, &["accepted 1", "told order_confirmed", held, "backordered"]);
    assert_eq!(world.order(1).holds[2].detail, "1 of 2 of A missing (line 1)");
}

#[test]
fn an_unpaid_order_keeps_its_claim_and_goes_when_it_is_paid() {
    let mut world = World::with(&[("A", "north", 2)]);
    let events = world.take(validated(unpaid(order(1, &[("A", 2)]))));
    assert_said(&events, &["accepted 2", "told order_confirmed", "held awaiting_payment"]);
    let events = world.take(pays(1, PaymentKind::Captured, "p1", 1500));
    assert_said(&events, &["paid partly_paid", "posted payment -1500"]);
    let events = world.take(pays(1, PaymentKind::Captured, "p2", 500));
    let released = ["released", "requested north", "pin 2 A at north"];
    assert_said(
        &events,
        &[&["paid paid", "posted payment -500", "unheld awaiting_payment paid"], &released[..]].concat(),
    );
    let events = world.take(pays(1, PaymentKind::Captured, "p2", 500));
    assert_said(&events, &["noted duplicate"]);
}

#[test]
fn a_bank_transfer_has_longer_than_an_online_payment() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(unpaid(order(1, &[("A", 1)]))));
    let mut transfer = order(2, &[("A", 1)]);
    transfer.order.payment.method = PaymentMethod::BankTransfer;
    world.take(validated(transfer));
    let wait = |number| (world.order(number).holds[0].due_at.0 - world.order(number).accepted_at.0) / 1_000_000;
    assert_eq!((wait(1), wait(2)), (HOUR, 7 * 24 * HOUR));
}

#[test]
fn a_payment_that_comes_before_its_order_counts() {
    let mut world = World::with(&[("A", "north", 2)]);
    assert_said(&world.take(pays(1, PaymentKind::Captured, "p1", 2000)), &["paid partly_paid"]);
    let events = world.take(validated(unpaid(order(1, &[("A", 2)]))));
    let expected = [
        "accepted 2",
        "posted payment -2000",
        "told order_confirmed",
        "released",
        "requested north",
        "pin 2 A at north",
    ];
    assert_said(&events, &expected);
}

#[test]
fn a_cancellation_that_comes_before_its_order_stops_it() {
    let mut world = World::with(&[("A", "north", 2)]);
    assert_said(&world.take(cancels(1, &[])), &["noted cancel_asked"]);
    let events = world.take(validated(order(1, &[("A", 2)])));
    assert_said(&events, &["accepted 0", "cancelled 2 back 0", "told cancelled", "completed cancelled"]);
}

#[test]
fn a_cancellation_before_fulfilment_gives_everything_back_at_once() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(unpaid(order(1, &[("A", 2)]))));
    let events = world.take(cancels(1, &[]));
    assert_said(
        &events,
        &["cancelled 2 back 2", "told cancelled", "unheld awaiting_payment cancelled", "completed cancelled"],
    );
    assert_said(&world.take(cancels(1, &[])), &["noted refused"]);
}

#[test]
fn a_cancellation_of_what_a_location_was_asked_for_waits_for_its_answer() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(order(1, &[("A", 2)])));
    let events = world.take(cancels(1, &[]));
    assert_said(&events, &["noted cancel_asked", "withdrawn north"]);
    let events = world.take(world.reports(1, OutcomeKind::Withdrawn, &[]));
    let expected =
        ["noted withdrawn", "unpin 2 A at north", "cancelled 2 back 2", "told cancelled", "completed cancelled"];
    assert_said(&events, &expected);
    assert_eq!(world.row("A", "north").reserved, 0);
}

#[test]
fn goods_that_leave_although_a_cancellation_was_asked_for_are_recorded_and_open_a_hold() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(order(1, &[("A", 2)])));
    world.take(cancels(1, &[]));
    let events = world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    let sold = ["despatched", "despatch 2 A at north", "posted sale 2000", "told despatched"];
    assert_said(&events, &[&sold[..], &["held despatched_after_cancellation"]].concat());
}

#[test]
fn what_has_left_cannot_be_cancelled() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(order(1, &[("A", 2)])));
    world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    assert_said(&world.take(cancels(1, &[])), &["noted refused"]);
}

#[test]
fn stock_that_arrives_wakes_who_waits_first_come_first_served() {
    let mut world = World::with(&[("A", "north", 0)]);
    for number in 1..=3 {
        let events = world.take(validated(order(number, &[("A", 2)])));
        assert_said(&events, &["accepted 0", "told order_confirmed", "held out_of_stock", "backordered"]);
    }
    let events = world.take_all(arrives("A", "north", 3));
    let first = ["reserved 2", "unheld out_of_stock stock_arrived", "released", "requested north", "pin 2 A at north"];
    let expected = [&["receipt 3 A at north", "woken", "woken", "woken"], &first[..], &["reserved 1"]].concat();
    assert_said(&events, &expected);
    assert_eq!(world.order(2).lines[0].short(), 1);
    assert_eq!(world.order(3).lines[0].short(), 2);
}

#[test]
fn a_new_order_does_not_overtake_those_that_wait() {
    let mut world = World::with(&[("A", "north", 0)]);
    world.take(validated(order(1, &[("A", 2)])));
    world.take(arrives("A", "north", 2));
    // The wake-up of order 1 is on its way when order 2 comes.
    let events = world.take(validated(order(2, &[("A", 1)])));
    assert_said(&events, &["accepted 0", "told order_confirmed", "held out_of_stock", "backordered", "woken"]);
    while let Some(next) = world.returning.pop_front() {
        world.take(next);
    }
    assert_eq!((world.order(1).lines[0].pinned, world.order(2).lines[0].short()), (2, 1));
}

#[test]
fn no_single_location_with_everything_is_a_hold_with_the_evidence() {
    let mut world = World::with(&[("A", "north", 1), ("A", "south", 1)]);
    let events = world.take(validated(order(1, &[("A", 2)])));
    assert_said(&events, &["accepted 2", "told order_confirmed", "released", "held no_route"]);
    assert_eq!(
        world.order(1).holds[0].detail,
        "no location can ship all of it: north has 1 of 2 of A, south has 1 of 2 of A"
    );
    world.take(arrives("A", "south", 1));
    let events = world.take(releases(1, NoRoute));
    assert_said(&events, &["unheld no_route released", "requested south", "pin 2 A at south"]);
}

#[test]
fn a_short_pick_is_taken_from_elsewhere_or_waits_for_stock() {
    let mut world = World::with(&[("A", "north", 2), ("A", "south", 1)]);
    world.take(validated(order(1, &[("A", 2)])));
    let events = world.take(world.reports(1, OutcomeKind::Short, &[(1, 1)]));
    assert_said(&events, &["noted short", "short 1 A at north", "requested south", "pin 1 A at south"]);
    let events = world.take(world.reports(1, OutcomeKind::Short, &[(1, 1)]));
    let gone = ["noted short", "short 1 A at south", "noted withdrawn", "reserved -1"];
    assert_said(&events, &[&gone[..], &["held short_pick", "backordered"]].concat());
    let events = world.take_all(arrives("A", "south", 1));
    let found = ["receipt 1 A at south", "woken", "reserved 1", "unheld short_pick stock_arrived"];
    assert_said(&events, &[&found[..], &["requested south", "pin 1 A at south"]].concat());
}

#[test]
fn a_location_that_declines_is_not_asked_again() {
    let mut world = World::with(&[("A", "north", 2), ("A", "south", 2)]);
    world.take(validated(order(1, &[("A", 2)])));
    let events = world.take(world.reports(1, OutcomeKind::Refused, &[]));
    assert_said(&events, &["noted declined", "unpin 2 A at north", "requested south", "pin 2 A at south"]);
    let events = world.take(world.reports(1, OutcomeKind::Refused, &[]));
    assert_said(&events, &["noted declined", "unpin 2 A at south", "held no_route"]);
}

#[test]
fn a_corrected_address_goes_back_through_the_checks_and_answers_their_holds() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(with_problem(order(1, &[("A", 2)]), AddressInvalid, "no post code")));
    let mut correction = command(1, CommandKind::CorrectAddress);
    correction.party = party("9999 ZZ");
    let events = world.take_all(LedgerInput::Command(Box::new(correction)));
    let again = ["revised", "accepted 0", "unheld address_invalid corrected", "released", "requested north"];
    assert_said(&events, &[&again[..], &["pin 2 A at north"]].concat());
    assert_eq!(world.contents[&id(1)].party.ship_to.postcode, "9999 ZZ");
    assert_eq!(world.contents[&id(1)].party.email.as_deref(), Some("someone@example.org"));
}

#[test]
fn a_problem_that_this_version_has_no_word_for_holds_the_order_until_it_is_answered() {
    let unknown = || validated(with_problem(order(1, &[("A", 2)]), Unknown, "a check of a newer version"));
    let mut world = World::with(&[("A", "north", 2)]);
    let events = world.take(unknown());
    assert_said(&events, &["accepted 2", "told order_confirmed", "held unknown"]);
    let mut correction = command(1, CommandKind::CorrectAddress);
    correction.party = party("9999 ZZ");
    let events = world.take_all(LedgerInput::Command(Box::new(correction)));
    let again = ["revised", "accepted 0", "unheld unknown corrected", "released", "requested north"];
    assert_said(&events, &[&again[..], &["pin 2 A at north"]].concat());
}

#[test]
fn the_same_order_again_is_noted_and_never_overwrites() {
    let other_account = |mut it: OrderValidated| {
        it.order.account = "feed".into();
        it.body_hash = "worded otherwise".into();
        it.order.lines.iter_mut().for_each(|line| line.channel_line_id = Some("x".into()));
        it
    };
    let mut later = order(1, &[("A", 1)]);
    (later.order.placed_at, later.body_hash) = (Micros(99), "later".into());
    let mut elsewhere = order(1, &[("A", 1)]);
    (elsewhere.party.ship_to.postcode, elsewhere.body_hash) = ("5678 CD".into(), "elsewhere".into());
    let mut spaced = order(1, &[("A", 1)]);
    spaced.body_hash = "with more spaces".into();
    let changed = ["noted duplicate", "held changed_after_acceptance"];
    let cases: Vec<(&str, OrderValidated, &[&str])> = vec![
        ("same body", order(1, &[("A", 1)]), &["noted duplicate"]),
        ("same content in another body", spaced, &["noted duplicate"]),
        ("by another account", other_account(order(1, &[("A", 1)])), &["noted alias"]),
        ("by another account, other lines", other_account(order(1, &[("A", 2)])), &changed),
        ("other lines", OrderValidated { body_hash: "2".into(), ..order(1, &[("A", 2)]) }, &changed),
        ("placed at another time", later, &changed),
        ("another address", elsewhere, &changed),
    ];
    for (what, again, expected) in cases {
        let mut world = World::with(&[("A", "north", 5)]);
        world.take(validated(order(1, &[("A", 1)])));
        let before = world.contents.clone();
        assert_eq!(words(&world.take(validated(again))), expected, "{what}");
        assert_eq!(world.contents, before, "{what}");
    }
}

#[test]
fn an_alias_is_noted_once_and_a_change_is_held_once() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(order(1, &[("A", 1)])));
    let mut alias = order(1, &[("A", 1)]);
    (alias.order.account, alias.body_hash) = ("feed".into(), "feed".into());
    assert_said(&world.take(validated(alias.clone())), &["noted alias"]);
    assert_said(&world.take(validated(alias)), &["noted duplicate"]);
    let changed = OrderValidated { body_hash: "2".into(), ..order(1, &[("A", 2)]) };
    world.take(validated(changed.clone()));
    assert_said(&world.take(validated(changed)), &["noted duplicate"]);
    assert_eq!(world.held(1), [ChangedAfterAcceptance]);
}

#[test]
fn an_order_that_needs_no_payment_is_not_held_for_it() {
    let mut world = World::with(&[("A", "north", 9)]);
    let mut gift = unpaid(order(1, &[("A", 1)]));
    gift.order.lines[0].line_total_minor = 0;
    priced(&mut gift);
    let mut paid = unpaid(order(2, &[("A", 1)]));
    (paid.order.payment.captured_minor, paid.order.payment.reference) = (1000, Some("tr_1".into()));
    let mut authorised = unpaid(order(3, &[("A", 1)]));
    authorised.order.payment.authorised_minor = 1000;
    let mut channel = unpaid(order(4, &[("A", 1)]));
    channel.order.payment.method = PaymentMethod::Channel;
    for it in [gift, paid, authorised, channel] {
        let number = it.order.placed_at.0;
        world.take(validated(it));
        assert!(world.order(number).released, "order {number}");
    }
    let events = world.take(pays(2, PaymentKind::Captured, "tr_1", 1000));
    assert_said(&events, &["noted duplicate"]);
}

#[test]
fn a_capture_uses_its_authorisation_up() {
    let mut world = World::with(&[("A", "north", 9)]);
    world.take(validated(unpaid(order(1, &[("A", 2)]))));
    world.take(pays(1, PaymentKind::Authorised, "p1", 1200));
    world.take(pays(1, PaymentKind::Captured, "p1", 1200));
    assert_eq!(world.held(1), [AwaitingPayment], "1200 of 2000 is there once, not twice");
    world.take(pays(1, PaymentKind::Authorised, "p2", 800));
    assert!(world.order(1).released);
}

#[test]
fn money_that_does_not_fit_is_recorded_and_held() {
    let usd = |mut it: LedgerInput| {
        if let LedgerInput::Payment(payment) = &mut it {
            payment.currency = "USD".into();
        }
        it
    };
    let cases: Vec<(&str, LedgerInput, &[&str])> = vec![
        (
            "too much",
            pays(1, PaymentKind::Captured, "p", 2500),
            &["paid paid", "posted payment -2500", "held money_mismatch"],
        ),
        (
            "in another currency",
            usd(pays(1, PaymentKind::Captured, "p", 2000)),
            &["paid not_needed", "held money_mismatch"],
        ),
        (
            "more back than came",
            pays(1, PaymentKind::Refunded, "p", 1),
            &["paid refunded", "posted refund 1", "held money_mismatch"],
        ),
        (
            "charged back",
            pays(1, PaymentKind::ChargedBack, "p", 1),
            &["paid refunded", "posted refund 1", "held money_mismatch"],
        ),
        (
            "an amount that cannot be",
            pays(1, PaymentKind::Captured, "p", -5),
            &["noted refused", "held money_mismatch"],
        ),
        ("a failure of what was never needed", pays(1, PaymentKind::Failed, "p", 0), &["paid not_needed"]),
        ("of an unknown kind", pays(1, PaymentKind::Unknown, "p", 5), &["noted refused"]),
    ];
    for (what, fact, expected) in cases {
        let mut world = World::with(&[("A", "north", 5)]);
        world.take(validated(order(1, &[("A", 2)])));
        assert_eq!(words(&world.take(fact)), expected, "{what}");
    }
}

#[test]
fn a_failed_payment_is_a_hold_that_a_later_payment_ends() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(unpaid(order(1, &[("A", 1)]))));
    assert_said(&world.take(pays(1, PaymentKind::Failed, "p1", 1000)), &["paid failed", "held payment_failed"]);
    let events = world.take(pays(1, PaymentKind::Captured, "p2", 1000));
    assert_eq!(words(&events)[2], "unheld awaiting_payment paid+payment_failed paid");
    assert!(world.order(1).released);
}

#[test]
fn an_order_that_is_not_paid_in_time_is_cancelled() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(unpaid(order(1, &[("A", 1)]))));
    world.take(pays(1, PaymentKind::Captured, "p1", 400));
    let due = world.deadline(1);
    let events = world.take(due.clone());
    let expected = [
        "noted deadline",
        "cancelled 1 back 1",
        "told cancelled",
        "unheld awaiting_payment expired",
        "held refund_due",
    ];
    assert_said(&events, &expected);
    assert_said(&world.take(due), &[]);
    let events = world.take(pays(1, PaymentKind::Refunded, "r1", 400));
    assert_said(&events, &["paid refunded", "posted refund 400", "unheld refund_due refunded", "completed cancelled"]);
}

#[test]
fn a_deadline_that_was_cleared_or_set_anew_says_nothing() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(unpaid(order(1, &[("A", 1)]))));
    let due = world.deadline(1);
    world.take(pays(1, PaymentKind::Captured, "p1", 1000));
    assert_said(&world.take(due), &[]);
}

#[test]
fn a_location_that_is_late_is_told_of_once_and_asked_about_until_it_ships() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(order(1, &[("A", 1)])));
    let first = world.deadline(1);
    assert_said(&world.take(first.clone()), &["noted deadline", "told order_delayed"]);
    assert_said(&world.take(first), &[]);
    assert_said(&world.take(world.deadline(1)), &["noted deadline"]);
    world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    assert!(world.order(1).timers.is_empty());
}

#[test]
fn an_overdue_hold_stays_and_is_looked_at_again() {
    let mut world = World::with(&[("A", "north", 1), ("A", "south", 1)]);
    world.take(validated(order(1, &[("A", 2)])));
    assert_said(&world.take(world.deadline(1)), &["noted deadline"]);
    world.take(arrives("A", "south", 1));
    let events = world.take(world.deadline(1));
    assert_said(&events, &["noted deadline", "unheld no_route stock_arrived", "requested south", "pin 2 A at south"]);
}

#[test]
fn a_trial_order_claims_posts_and_tells_nothing() {
    let mut world = World::with(&[("A", "north", 5)]);
    let mut it = unpaid(order(1, &[("A", 1)]));
    (it.order.test, it.order.payment.captured_minor) = (true, 1000);
    assert_said(&world.take(validated(it)), &["accepted 0", "paid paid", "released", "completed test"]);
}

#[test]
fn an_order_without_goods_is_held_and_when_released_ends_with_its_charges_in_the_books() {
    let mut world = World::default();
    let it = with_problem(with_shipping(order(1, &[]), 495), NoGoods, "no line with goods");
    assert_said(&world.take(validated(it)), &["accepted 0", "told order_confirmed", "held no_goods"]);
    let events = world.take(releases(1, NoGoods));
    assert_said(&events, &["unheld no_goods released", "released", "posted sale 495", "completed delivered"]);
}

#[test]
fn an_order_without_goods_can_be_cancelled() {
    let mut world = World::default();
    world.take(validated(with_problem(order(1, &[]), NoGoods, "no line with goods")));
    let events = world.take(cancels(1, &[]));
    assert_said(&events, &["cancelled 0 back 0", "told cancelled", "unheld no_goods cancelled", "completed cancelled"]);
}

#[test]
fn an_unknown_product_waits_for_the_product_or_for_its_line_to_be_cancelled() {
    let mut world = World::with(&[("A", "north", 5)]);
    let it = with_problem(order(1, &[("A", 1), ("?new", 1)]), UnknownSku, "not in the product list");
    world.take(validated(it.clone()));
    assert_said(&world.take(releases(1, UnknownSku)), &["noted refused"]);
    let events = world.take(cancels(1, &[(2, 1)]));
    let gone = ["cancelled 1 back 0", "unheld unknown_sku cancelled", "released", "requested north"];
    assert_said(&events, &[&gone[..], &["pin 1 A at north"]].concat());

    let mut world = World::with(&[("A", "north", 5), ("?new", "north", 5)]);
    world.take(validated(it));
    let product = kept_schemas::reference::Product { sku: "?new".into(), ..Default::default() };
    world.reference.products.insert("?new".into(), product);
    let events = world.take_all(commands(1, CommandKind::Recheck));
    let known = ["revised", "accepted 1", "unheld unknown_sku corrected", "released", "requested north"];
    assert_said(&events, &[&known[..], &["pin 1 ?new at north", "pin 1 A at north"]].concat());
}

#[test]
fn commands_that_cannot_be_done_are_refused_with_a_reason() {
    let mut unaddressed = command(1, CommandKind::CorrectAddress);
    unaddressed.party = Party::default();
    let mut addressed = command(1, CommandKind::CorrectAddress);
    addressed.party = party("1111 AA");
    let boxed = |it| LedgerInput::Command(Box::new(it));
    let cases: Vec<(LedgerInput, &str)> = vec![
        (commands(1, CommandKind::Unknown), "a command this version does not know"),
        (commands(1, CommandKind::Release), "release: no hold and no reason for holds is named"),
        (releases(1, Manual), "release: no such hold is open"),
        (boxed(unaddressed), "correct address: there is no address in it"),
        (boxed(addressed), "correct address: a location was asked to ship it already"),
        (commands(1, CommandKind::Recheck), "check again: a location was asked to ship it already"),
        (commands(2, CommandKind::Recheck), "check again: the order is not here yet"),
        (cancels(1, &[(7, 1)]), "cancel: the order has no line 7"),
        (cancels(1, &[(1, -1)]), "cancel: no line with a quantity is named"),
    ];
    for (input, expected) in cases {
        let mut world = World::with(&[("A", "north", 5)]);
        world.take(validated(order(1, &[("A", 1)])));
        let events = world.take(input);
        assert_said(&events, &["noted refused"]);
        let [LedgerEvent::Noted(note)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(note.detail, expected);
    }
}

#[test]
fn an_address_that_could_not_be_checked_is_refused_and_the_order_keeps_the_hold_it_has() {
    type Change = fn(&mut Party);
    let table: &[(Change, &str)] = &[
        (|it| it.ship_to.city = "a\0b".into(), "ship_to.city holds the character U+0000"),
        (|it| it.ship_to.street = "x".repeat(201), "ship_to.street is longer than 200 characters"),
        (|it| it.ship_to.country = "\0".into(), "ship_to.country holds the character U+0000"),
        (|it| it.email = Some("x".repeat(255)), "email is longer than 254 characters"),
        (|it| it.bill_to = Some(party(&"x".repeat(201)).ship_to), "bill_to.postcode is longer than 200 characters"),
    ];
    for (change, why) in table {
        let mut world = World::with(&[("A", "north", 2)]);
        world.take(validated(with_problem(order(1, &[("A", 2)]), AddressInvalid, "no post code")));
        let mut correction = command(1, CommandKind::CorrectAddress);
        correction.party = party("1111 AA");
        change(&mut correction.party);
        let events = world.take(LedgerInput::Command(Box::new(correction)));
        assert_said(&events, &["noted refused"]);
        let [LedgerEvent::Noted(note)] = &events[..] else { panic!("{events:?}") };
        assert!(note.detail.starts_with("correct address: ") && note.detail.ends_with(why), "{}", note.detail);
        let state = world.order(1);
        assert_eq!((state.revision, state.checked, state.holds.len()), (0, 0, 1), "{why}");
    }
}

#[test]
fn an_order_that_its_checks_would_not_take_is_not_sent_back_to_them() {
    let mut world = World::with(&[("A", "north", 2)]);
    let mut it = with_problem(order(1, &[("A", 2)]), AddressInvalid, "no post code");
    it.order.channel_order_id = "other".into();
    world.take(validated(it));
    let events = world.take(commands(1, CommandKind::Recheck));
    assert_said(&events, &["noted refused"]);
    let [LedgerEvent::Noted(note)] = &events[..] else { panic!("{events:?}") };
    assert!(note.detail.starts_with("check again: order breaks a rule: order_id is made"), "{}", note.detail);
}

#[test]
fn fields_that_were_not_understood_are_told_once_and_change_nothing() {
    let names = || vec!["/gift".to_owned(), "/lines/0/colour".to_owned()];
    let mut world = World::with(&[("A", "north", 5)]);
    let it = OrderValidated { not_understood: names(), ..order(1, &[("A", 2)]) };
    let events = world.take(validated(it.clone()));
    let goes = ["released", "requested north", "pin 2 A at north"];
    assert_said(&events, &[&["accepted 2", "noted not_understood", "told order_confirmed"][..], &goes].concat());
    let LedgerEvent::Noted(note) = &events[1] else { panic!("{events:?}") };
    assert_eq!(note.detail, "/gift, /lines/0/colour");
    assert_said(&world.take(validated(it)), &["noted duplicate"]);

    let LedgerInput::Payment(mut money) = pays(1, PaymentKind::Authorised, "p", 1) else { unreachable!() };
    money.not_understood = names();
    assert_said(&world.take(LedgerInput::Payment(money.clone())), &["noted not_understood", "paid not_needed"]);
    assert_said(&world.take(LedgerInput::Payment(money)), &["noted duplicate"]);
    let mut asked = command(1, CommandKind::Release);
    asked.not_understood = vec!["/x".into(); 10_000];
    let events = world.take(LedgerInput::Command(Box::new(asked)));
    assert_said(&events, &["noted not_understood", "noted refused"]);
    let LedgerEvent::Noted(note) = &events[0] else { panic!("{events:?}") };
    assert!(note.detail.len() < 100, "{}", note.detail);
}

#[test]
fn a_hold_by_hand_stops_what_a_location_was_asked_for_and_a_release_starts_it_again() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(order(1, &[("A", 1)])));
    assert_said(&world.take(commands(1, CommandKind::Hold)), &["held manual", "withdrawn north"]);
    assert_said(&world.take(commands(1, CommandKind::Hold)), &["noted refused"]);
    assert_said(&world.take(world.reports(1, OutcomeKind::Withdrawn, &[])), &["noted withdrawn", "unpin 1 A at north"]);
    let events = world.take(releases(1, Manual));
    assert_said(&events, &["unheld manual released", "requested north", "pin 1 A at north"]);
}

#[test]
fn part_of_a_line_at_a_location_is_cancelled_when_it_answers_and_the_rest_goes_on() {
    let mut world = World::with(&[("A", "north", 5), ("B", "north", 5)]);
    world.take(validated(order(1, &[("A", 3), ("B", 1)])));
    assert_said(&world.take(cancels(1, &[(1, 1)])), &["noted cancel_asked", "withdrawn north"]);
    let events = world.take(world.reports(1, OutcomeKind::Withdrawn, &[]));
    let gone = ["noted withdrawn", "unpin 3 A at north", "unpin 1 B at north", "cancelled 1 back 1"];
    assert_said(&events, &[&gone[..], &["requested north", "pin 2 A at north", "pin 1 B at north"]].concat());
}

#[test]
fn a_cancellation_of_a_line_before_its_order_leaves_the_rest() {
    let mut world = World::with(&[("A", "north", 5), ("B", "north", 5)]);
    world.take(cancels(1, &[(1, 2), (9, 1)]));
    let events = world.take(validated(order(1, &[("A", 2), ("B", 1)])));
    let expected = ["accepted 1", "told order_confirmed", "cancelled 2 back 0", "released", "requested north"];
    assert_said(&events, &[&expected[..], &["pin 1 B at north"]].concat());
}

#[test]
fn a_despatch_of_more_than_was_asked_for_is_recorded_and_held() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(order(1, &[("A", 2)])));
    let events = world.take(world.reports(1, OutcomeKind::Despatched, &[(1, 3), (8, 1)]));
    let left = ["despatched", "despatch 2 A at north", "despatch 1 A at north", "posted sale 2000", "told despatched"];
    assert_said(&events, &[&left[..], &["held unasked_despatch"]].concat());
    assert_eq!(world.row("A", "north").on_hand, 2);
    assert_eq!(
        world.order(1).holds[0].detail,
        "nobody had asked north to ship 1 of line 1, line 8, which it does not have"
    );
}

#[test]
fn a_despatch_that_is_reported_twice_counts_once() {
    let mut world = World::with(&[("A", "north", 5)]);
    world.take(validated(order(1, &[("A", 2)])));
    let report = world.reports(1, OutcomeKind::Despatched, &[]);
    world.take(report.clone());
    assert_said(&world.take(report), &["noted duplicate"]);
    assert_eq!(world.row("A", "north").on_hand, 3);
}

#[test]
fn shipments_in_parts_add_up_to_the_total_to_the_cent() {
    let mut world = World::with(&[("A", "north", 9)]);
    let mut it = with_shipping(order(1, &[("A", 3)]), 495);
    it.order.lines[0].line_total_minor = 1000;
    priced(&mut it);
    world.take(validated(it));
    let mut sold = Vec::new();
    for _ in 0..3 {
        let events = world.take(world.reports(1, OutcomeKind::Despatched, &[(1, 1)]));
        sold.extend(words(&events).into_iter().filter(|word| word.starts_with("posted")));
    }
    assert_eq!(sold, ["posted sale 828", "posted sale 334", "posted sale 333"]);
}

#[test]
fn a_shipment_is_delivered_when_each_of_its_parcels_is() {
    let mut world = World::with(&[("A", "north", 9)]);
    world.take(validated(order(1, &[("A", 2)])));
    let with_parcels = |input: LedgerInput, ids: &[&str]| {
        let LedgerInput::Outcome(mut report) = input else { unreachable!() };
        let parcel = |id: &&str| kept_schemas::inputs::Parcel { parcel_id: (*id).into(), ..Default::default() };
        report.parcels = ids.iter().map(parcel).collect();
        LedgerInput::Outcome(report)
    };
    // The carrier's scan may be quicker than the warehouse's report.
    let mut scan = with_parcels(world.reports(1, OutcomeKind::Delivered, &[]), &["one"]);
    if let LedgerInput::Outcome(report) = &mut scan {
        report.shipment_id = "shipment 1/0".into();
    }
    assert_said(&world.take(scan), &["tracked delivered", "told delivered"]);
    let mut left = with_parcels(world.reports(1, OutcomeKind::Despatched, &[]), &["one", "two"]);
    if let LedgerInput::Outcome(report) = &mut left {
        report.shipment_id = "shipment 1/0".into();
    }
    world.take(left);
    assert_eq!(world.order(1).completed, None, "one of two parcels is there");
    let two = with_parcels(world.reports(1, OutcomeKind::Delivered, &[]), &["two"]);
    assert_said(&world.take(two), &["tracked delivered", "completed delivered"]);
}

#[test]
fn a_failed_delivery_is_held_until_it_succeeds_after_all() {
    let mut world = World::with(&[("A", "north", 9)]);
    world.take(validated(order(1, &[("A", 2)])));
    world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    let events = world.take(world.reports(1, OutcomeKind::DeliveryFailed, &[]));
    assert_said(&events, &["tracked delivery_failed", "held delivery_problem"]);
    let events = world.take(world.reports(1, OutcomeKind::Delivered, &[]));
    let expected = ["tracked delivered", "told delivered", "unheld delivery_problem delivered", "completed delivered"];
    assert_said(&events, &expected);
}

#[test]
fn a_final_state_is_reopened_by_a_fact() {
    let mut world = World::with(&[("A", "north", 9)]);
    world.take(validated(order(1, &[("A", 2)])));
    world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    world.take(world.reports(1, OutcomeKind::Delivered, &[]));
    assert!(world.order(1).completed.is_some());
    world.take(world.reports(1, OutcomeKind::DeliveryFailed, &[]));
    assert_eq!((world.order(1).completed.as_deref(), world.held(1)), (None, vec![DeliveryProblem]));
    assert_said(&world.take(releases(1, DeliveryProblem)), &["unheld delivery_problem released"]);
}

#[test]
fn a_count_below_what_is_pinned_leaves_the_location_to_say_who_goes_short() {
    let mut world = World::with(&[("A", "north", 5)]);
    for number in 1..=2 {
        world.take(validated(order(number, &[("A", 2)])));
    }
    assert_said(&world.take(counted("A", "north", 3)), &["count 3 A at north"]);
    let row = world.row("A", "north");
    assert_eq!((row.on_hand, row.reserved, row.unbacked), (3, 3, 1));
    world.take(world.reports(1, OutcomeKind::Despatched, &[]));
    let events = world.take(world.reports(2, OutcomeKind::Short, &[(1, 1)]));
    assert_said(&events, &["noted short", "short 1 A at north", "reserved -1", "held short_pick", "backordered"]);
    let row = world.row("A", "north");
    assert_eq!((row.on_hand, row.reserved, row.unbacked), (1, 1, 0));
}

#[test]
fn what_was_not_counted_may_be_found_by_the_picker() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(order(1, &[("A", 2)])));
    world.take(counted("A", "north", 0));
    assert_eq!(world.row("A", "north").unbacked, 2);
    world.take(world.reports(1, OutcomeKind::Picked, &[]));
    let row = world.row("A", "north");
    assert_eq!((row.on_hand, row.reserved, row.picked, row.unbacked), (2, 2, 2, 0));
    world.take(counted("A", "north", 0));
    assert_eq!(world.row("A", "north").on_hand, 2, "what is picked is not on the shelf, and is there");
}

#[test]
fn a_claim_on_goods_that_a_count_did_not_find_is_lost_when_the_order_is_to_go() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(unpaid(order(1, &[("A", 2)]))));
    world.take(counted("A", "north", 1));
    let events = world.take(pays(1, PaymentKind::Captured, "p", 2000));
    let lost = ["paid paid", "posted payment -2000", "unheld awaiting_payment paid", "released", "reserved -1"];
    assert_said(&events, &[&lost[..], &["held out_of_stock", "backordered"]].concat());
    let events = world.take_all(arrives("A", "north", 1));
    let came = ["receipt 1 A at north", "woken", "reserved 1", "unheld out_of_stock stock_arrived"];
    assert_said(&events, &[&came[..], &["requested north", "pin 2 A at north"]].concat());
}

#[test]
fn what_a_cancellation_gives_back_goes_to_who_waits_first() {
    let mut world = World::with(&[("A", "north", 1)]);
    world.take(validated(unpaid(order(1, &[("A", 1)]))));
    world.take(validated(order(2, &[("A", 1)])));
    world.take(validated(order(3, &[("A", 1)])));
    world.take_all(cancels(1, &[]));
    assert_eq!((world.order(2).lines[0].pinned, world.order(3).lines[0].short()), (1, 1));
}

#[test]
fn stock_that_arrives_in_the_batch_in_which_an_order_went_short_wakes_it() {
    let mut world = World::with(&[("A", "north", 0)]);
    world.batch(&[validated(order(1, &[("A", 1)])), arrives("A", "north", 1)]);
    assert_eq!(world.returning.len(), 1);
}

#[test]
fn goods_on_quarantine_are_not_sold() {
    let mut world = World::default();
    let LedgerInput::Stock(mut count) = counted("A", "north", 5) else { unreachable!() };
    count.condition = kept_schemas::inputs::Condition::Quarantine;
    world.take(LedgerInput::Stock(count));
    world.take(validated(order(1, &[("A", 1)])));
    assert_eq!(world.held(1), [OutOfStock]);
}

#[test]
fn locations_are_tried_by_priority_and_each_that_was_passed_over_is_told_why() {
    let mut world = World::with(&[("A", "north", 1), ("A", "south", 5), ("A", "west", 5)]);
    let west = kept_schemas::reference::Location { location_id: "west".into(), active: false, ..Default::default() };
    world.reference.locations.insert("west".into(), west);
    let events = world.take(validated(order(1, &[("A", 2)])));
    let Some(LedgerEvent::Requested(asked)) = events.iter().find(|it| matches!(it, LedgerEvent::Requested(_))) else {
        panic!("{events:?}")
    };
    let reasons: Vec<(&str, bool, &str)> =
        asked.reasons.iter().map(|it| (it.location_id.as_str(), it.chosen, it.why.as_str())).collect();
    let expected = [
        ("west", false, "is closed"),
        ("north", false, "has 1 of 2 of A"),
        ("south", true, "has everything, and comes first"),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn an_order_that_is_picked_up_is_shipped_from_there_or_not_at_all() {
    let mut world = World::with(&[("A", "north", 5), ("A", "south", 5)]);
    let mut it = order(1, &[("A", 1)]);
    it.order.delivery.pickup_location = Some("south".into());
    world.take(validated(it.clone()));
    assert_eq!(world.order(1).fulfilments[0].location_id, "south");
    (it.order.order_id, it.order.delivery.pickup_location) = (id(2), Some("shop".into()));
    world.take(validated(it));
    assert_eq!(world.held(2), [NoRoute]);
}

#[test]
fn an_address_that_is_corrected_twice_is_checked_for_the_last_one() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(with_problem(order(1, &[("A", 2)]), AddressInvalid, "no post code")));
    for postcode in ["", "9999 ZZ"] {
        let mut correction = command(1, CommandKind::CorrectAddress);
        correction.party = party(postcode);
        correction.party.ship_to.city = "Utrecht".into();
        world.take(LedgerInput::Command(Box::new(correction)));
    }
    let first = world.returning.pop_front().expect("the first correction");
    assert_said(&world.take(first), &["noted stale"]);
    let last = world.returning.pop_front().expect("the last correction");
    world.take(last);
    assert!(world.order(1).released);
}

#[test]
fn nothing_goes_while_a_correction_is_being_checked() {
    let mut world = World::with(&[("A", "north", 2)]);
    world.take(validated(unpaid(order(1, &[("A", 2)]))));
    let mut correction = command(1, CommandKind::CorrectAddress);
    correction.party = party("9999 ZZ");
    world.take(LedgerInput::Command(Box::new(correction)));
    world.take(pays(1, PaymentKind::Captured, "p", 2000));
    assert!(!world.order(1).released, "the address may be wrong");
    let checked = world.returning.pop_front().expect("the correction");
    world.take(checked);
    assert!(world.order(1).released);
}

#[test]
fn lines_that_are_not_numbered_as_they_should_claim_nothing() {
    let mut world = World::with(&[("A", "north", 9)]);
    let mut it = order(1, &[("A", 1), ("A", 1)]);
    it.order.lines[1].line_no = 1;
    let events = world.take(validated(it));
    assert_said(&events, &["accepted 0", "told order_confirmed", "held value_implausible+unknown_sku"]);
}

#[test]
fn an_order_of_two_thousand_lines_goes_from_end_to_end() {
    let mut world = World::with(&[("A", "north", 100_000), ("B", "north", 100_000)]);
    let lines: Vec<(&str, i64)> = (0..2_000).map(|at| (if at % 2 == 0 { "A" } else { "B" }, 3)).collect();
    world.take(validated(order(1, &lines)));
    world.take(world.reports(1, OutcomeKind::Picked, &[]));
    let short: Vec<(i32, i64)> = (1..=2_000).map(|line_no| (line_no, 1)).collect();
    world.take(world.reports(1, OutcomeKind::Short, &short));
    assert_eq!(world.order(1).fulfilments.len(), 2);
    let first = world.order(1).fulfilments[0].fulfilment_id.clone();
    let LedgerInput::Outcome(mut report) = world.reports(1, OutcomeKind::Despatched, &[]) else { unreachable!() };
    report.fulfilment_id = first;
    world.take(LedgerInput::Outcome(report));
    world.take(world.reports(1, OutcomeKind::Withdrawn, &[]));
    world.take(cancels(1, &[]));
    assert_eq!(world.order(1).lines.iter().map(|line| line.shipped).sum::<i64>(), 4_000);
}
