//! What holds whatever comes, in whatever order, however often: the world checks it after every record (see
//! `testing::World::check`), here under random histories of hostile and of ordinary inputs.

use kept_schemas::{
    inbound::HoldReason,
    inputs::{CommandKind, DeadlineReached, LineQuantity, OutcomeKind, OutcomeReceived, Parcel, PaymentKind},
    order::PaymentMethod,
};
use proptest::{prelude::*, strategy::ValueTree};

use super::{testing::*, *};

const SKUS: [&str; 4] = ["A", "B", "C", "?"];
const LOCATIONS: [&str; 3] = ["north", "south", "nowhere"];

/// One thing that happens; which one, and its details, are read from four numbers.
type Move = (u8, u8, u8, u8);

fn pick<T: Copy>(list: &[T], by: u8) -> T {
    list[usize::from(by) % list.len()]
}

fn an_order(number: i64, a: u8, b: u8) -> kept_schemas::inbound::OrderValidated {
    let lines: Vec<(&str, i64)> = (0..a % 4)
        .map(|at| (pick(&SKUS, a / 4 + at * 3), i64::from(b % 5) + i64::from(at) - i64::from(b / 250)))
        .collect();
    let mut it = order(number, &lines);
    for line in &mut it.order.lines {
        // Prices that do not divide evenly.
        line.line_total_minor = line.quantity * 1000 / 3;
    }
    if a.is_multiple_of(3) {
        it = with_shipping(it, 495);
    }
    priced(&mut it);
    let methods =
        [PaymentMethod::Online, PaymentMethod::OnAccount, PaymentMethod::BankTransfer, PaymentMethod::Channel];
    it.order.payment.method = pick(&methods, b);
    if b % 7 == 1 {
        it.order.payment.captured_minor = it.order.total_minor;
        it.order.payment.reference = Some("p0".into());
    }
    it.order.test = b % 16 == 15;
    if a % 8 == 7 {
        it = with_problem(it, HoldReason::AddressInvalid, "no house number");
    }
    it
}

fn a_report(world: &World, number: i64, (a, b, c): (u8, u8, u8)) -> OutcomeReceived {
    let kinds = [
        OutcomeKind::Picked,
        OutcomeKind::Despatched,
        OutcomeKind::Delivered,
        OutcomeKind::Short,
        OutcomeKind::Despatched,
        OutcomeKind::Withdrawn,
        OutcomeKind::Refused,
        OutcomeKind::DeliveryFailed,
        OutcomeKind::Tracked,
        OutcomeKind::Unknown,
    ];
    let LedgerInput::Outcome(report) = world.reports(number, pick(&kinds, a), &[]) else { unreachable!() };
    let mut report = *report;
    if let Some(state) = world.orders.get(&id(number)) {
        if !state.fulfilments.is_empty() {
            report.fulfilment_id = state.fulfilments[usize::from(b) % state.fulfilments.len()].fulfilment_id.clone();
        }
        if !state.shipments.is_empty() && report.kind != OutcomeKind::Despatched {
            report.shipment_id = state.shipments[usize::from(b) % state.shipments.len()].shipment_id.clone();
        }
    }
    match c % 8 {
        0 | 1 => {}
        2 => report.fulfilment_id.clear(),
        3 => report.lines = vec![LineQuantity { line_no: i32::from(b % 5), quantity: i64::from(c % 9) }],
        4 => report.lines = vec![LineQuantity { line_no: 1, quantity: i64::MAX - i64::from(b % 2) }; 2],
        5 => report.parcels = vec![Parcel { parcel_id: format!("parcel {}", b % 3), ..Default::default() }],
        6 => report.shipment_id = format!("shipment {}", b % 3),
        _ => report.lines = (1..4).map(|line_no| LineQuantity { line_no, quantity: 1 }).collect(),
    }
    report.at = report.at.plus(i64::from(b) * 100_000 - 10_000_000);
    report
}

fn a_deadline(world: &World, number: i64, b: u8) -> Option<LedgerInput> {
    let state = world.orders.get(&id(number)).filter(|state| !state.timers.is_empty())?;
    let timer = &state.timers[usize::from(b) % state.timers.len()];
    Some(LedgerInput::Deadline(DeadlineReached {
        order_id: id(number),
        timer_id: timer.timer_id.clone(),
        purpose: timer.purpose,
        revision: timer.revision - i64::from(b / 250),
        due_at: timer.due_at,
    }))
}

fn a_command(number: i64, b: u8, c: u8) -> LedgerInput {
    let kind = if b > 250 { CommandKind::Unknown } else { pick(CommandKind::ALL, b) };
    let mut it = command(number, kind);
    it.party = party(if c.is_multiple_of(4) { "" } else { "1111 AA" });
    it.party.ship_to.city = if c.is_multiple_of(16) { String::new() } else { "Utrecht".into() };
    LedgerInput::Command(Box::new(it))
}

/// What a move is; `None`: nothing comes of it in this world.
fn input(world: &mut World, (what, a, b, c): Move) -> Option<LedgerInput> {
    let number = i64::from(a % 4) + 1;
    Some(match what % 16 {
        0..=2 => {
            let mut it = an_order(number, if c % 8 == 0 { b } else { a }, a ^ 0x15);
            if c % 16 == 3 {
                it.order.account = "other".into();
                it.body_hash = "other".into();
            }
            validated(it)
        }
        3 => {
            let kinds = PaymentKind::ALL;
            let amount = pick(&[333, 1000, 1495, 5000, -1, i64::MAX], c);
            let LedgerInput::Payment(mut it) = pays(number, pick(kinds, b), &format!("p{}", c % 5), amount) else {
                unreachable!()
            };
            if c > 240 {
                it.currency = "USD".into();
            }
            LedgerInput::Payment(it)
        }
        4 => {
            let state = world.orders.get(&id(number));
            let due = state.map_or(1000, |state| money::due(state) - money::covered(state));
            pays(number, PaymentKind::Captured, &format!("rest {due} {c}"), due)
        }
        5 => match b % 3 {
            0 => cancels(number, &[]),
            1 => cancels(number, &[(i32::from(c % 4), i64::from(b % 3) + 1)]),
            _ => cancels(number, &[(1, 1), (2, i64::MAX)]),
        },
        6 => releases(number, pick(HoldReason::ALL, b)),
        7 => a_command(number, b, c),
        8..=11 => LedgerInput::Outcome(Box::new(a_report(world, number, (b, c, a)))),
        12 => counted(pick(&SKUS[..3], a), pick(&LOCATIONS, b), i64::from(c % 12)),
        13 => arrives(pick(&SKUS[..3], a), pick(&LOCATIONS, b), i64::from(c % 16) - 3),
        14 => a_deadline(world, number, b)?,
        _ => world.returning.pop_front()?,
    })
}

fn history(moves: &[Move]) -> World {
    let mut world = World::with(&[("A", "north", 6), ("B", "north", 4), ("B", "south", 9), ("C", "south", 3)]);
    let mut before: Vec<LedgerInput> = Vec::new();
    let mut batch: Vec<LedgerInput> = Vec::new();
    for &it in moves {
        if let Some(next) = input(&mut world, it) {
            before.push(next.clone());
            batch.push(next);
        }
        // Now and then the same record again under another cause, and several in one batch.
        if it.3 % 11 == 0 && !before.is_empty() {
            batch.push(before[usize::from(it.2) % before.len()].clone());
        }
        if it.2 % 3 != 0 {
            world.batch(&std::mem::take(&mut batch));
        }
    }
    world.batch(&batch);
    while let Some(next) = world.returning.pop_front() {
        world.take(next);
    }
    world
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec(any::<Move>(), 1..80)
}

/// The properties would hold in a world where nothing happens, too.
#[test]
fn random_histories_get_everywhere() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for _ in 0..400 {
        let moves = moves().new_tree(&mut runner).expect("a history").current();
        for word in words(&history(&moves).journal) {
            // Without its numbers and places.
            let word: Vec<&str> = word.split(' ').take(2).filter(|part| part.parse::<i64>().is_err()).collect();
            *seen.entry(word.join(" ")).or_default() += 1;
        }
    }
    let expected = "accepted|backordered|cancelled|completed cancelled|completed delivered|completed test|count|despatch\
        |despatched|held unasked_despatch|held despatched_after_cancellation|held no_route|held short_pick\
        |held out_of_stock|held refund_due|held money_mismatch|held payment_failed|held delivery_problem|held manual\
        |held changed_after_acceptance|noted alias|noted before_order|noted cancel_asked|noted deadline|noted declined\
        |noted duplicate|noted picked|noted refused|noted short|noted stale|noted withdrawn|paid failed|paid paid\
        |paid refunded|pick|pin|posted payment|posted refund|posted sale|receipt|released|requested north\
        |requested south|reserved|revised|short|told cancelled|told delivered|told order_delayed|tracked delivered\
        |unheld awaiting_payment|unheld address_invalid|unheld out_of_stock|unheld short_pick|unheld refund_due\
        |unheld no_route|unpin|withdrawn north|woken";
    let missing: Vec<&str> = expected.split('|').filter(|word| !seen.contains_key(*word)).collect();
    assert!(missing.is_empty(), "never said: {missing:?}; said: {seen:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_breaks_what_must_always_be_true(moves in moves()) {
        history(&moves);
    }

    #[test]
    fn no_stock_is_left_while_someone_waits_for_it(moves in moves()) {
        let world = history(&moves);
        let facts = Facts { claims: world.claims.clone(), stock: world.stock.clone(), ..Facts::default() };
        for order in world.orders.values().filter(|it| it.accepted && !it.test && !it.cancelled && it.completed.is_none()) {
            for line in order.lines.iter().filter(|line| line.known && line.short() > 0) {
                prop_assert!(facts.available(&line.sku) <= 0, "{line:?} waits, and {} are there", facts.available(&line.sku));
            }
        }
    }

    #[test]
    fn a_payment_counts_the_same_before_its_order_and_after(captured in 0i64..3000, first in 0i64..3000, units in 1i64..4) {
        // Never too much: that is a hold, and what went before it came has gone.
        let captured = captured % (1000 * units - 499);
        let ends = [false, true].map(|before| {
            let mut world = World::with(&[("A", "north", 3)]);
            let pays = [
                pays(1, PaymentKind::Authorised, "p1", first),
                pays(1, PaymentKind::Captured, "p1", captured),
                pays(1, PaymentKind::Captured, "p2", 500),
            ];
            let order = validated(unpaid(order(1, &[("A", units)])));
            let all: Vec<LedgerInput> =
                if before { pays.into_iter().chain([order]).collect() } else { [order].into_iter().chain(pays).collect() };
            for input in all {
                world.take(input);
            }
            let state = world.order(1);
            let reasons: std::collections::BTreeSet<HoldReason> = state.holds.iter().map(|it| it.reason).collect();
            (state.payment.clone(), reasons, state.released, state.lines.clone())
        });
        prop_assert_eq!(&ends[0], &ends[1]);
    }

    #[test]
    fn the_shares_of_a_line_add_up_to_its_total(total in -100_000i64..100_000, cuts in prop::collection::vec(1i64..50, 1..12)) {
        let quantity: i64 = cuts.iter().sum();
        let line = LineState { quantity, line_total_minor: total, ..LineState::default() };
        let (mut units, mut sum) = (0, 0);
        for cut in cuts {
            let before = if units == 0 { 0 } else { money::share_up_to(&line, units) };
            units += cut;
            sum += money::share_up_to(&line, units) - before;
        }
        prop_assert_eq!(sum, total);
    }

    #[test]
    fn a_stock_row_keeps_its_bounds_and_its_pins(moves in prop::collection::vec((0u8..7, 0i64..9, any::<u8>()), 1..60)) {
        let mut row = StockRow::default();
        // Open pins: (units, picked).
        let mut pins: Vec<(i64, i64)> = Vec::new();
        for (what, units, which) in moves {
            let at = if pins.is_empty() { 0 } else { usize::from(which) % pins.len() };
            match what {
                0 => row.count(units),
                1 => row.receive(units - 2),
                2 if units <= row.free() && units > 0 => {
                    row.pin(units);
                    pins.push((units, 0));
                }
                3 if !pins.is_empty() => {
                    let left = units.min(pins[at].0 - pins[at].1);
                    row.pick(left);
                    pins[at].1 += left;
                }
                4 if !pins.is_empty() => {
                    let (pinned, picked) = pins.remove(at);
                    row.unpin(pinned, picked);
                }
                5 if !pins.is_empty() => {
                    let missing = units.min(pins[at].0);
                    let picked = (missing - (pins[at].0 - pins[at].1)).max(0);
                    row.short(missing, picked);
                    pins[at] = (pins[at].0 - missing, pins[at].1 - picked);
                }
                6 if !pins.is_empty() => {
                    let left = units.min(pins[at].0);
                    let picked = pins[at].1.min(left);
                    row.despatch(left, picked);
                    pins[at] = (pins[at].0 - left, pins[at].1 - picked);
                }
                _ => row.leave(units / 4),
            }
            let (pinned, picked) = pins.iter().fold((0, 0), |sum, pin| (sum.0 + pin.0, sum.1 + pin.1));
            prop_assert!(0 <= row.picked && row.picked <= row.reserved && row.reserved <= row.on_hand, "{:?}", row);
            prop_assert_eq!((row.reserved + row.unbacked, row.picked), (pinned, picked), "{:?}", row);
        }
    }
}
