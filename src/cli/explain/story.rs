//! An order's life put into words. A plain function of its events and of what the ledger remembers.

use kept_processors::ledger::{Cause, FulfilmentStatus, LedgerEvent, OrderState};
use kept_schemas::{
    Micros, OrderId, Party, Topic,
    events::{Hold, OrderAccepted, ShipmentDespatched},
    inbound::HoldReason,
    inputs::{LineQuantity, OutcomeKind},
    order::Address,
    values::currency_decimals,
};
use kept_store::read::detail;
use serde::Serialize;

/// An event with its place in time and what caused it.
pub struct Happened {
    /// When it was decided.
    pub at: Micros,
    pub event: LedgerEvent,
    pub cause: Cause,
}

/// Everything there is to say of one order.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    pub order_id: String,
    pub order_no: Option<i64>,
    pub number: String,
    pub shop: String,
    pub channel: String,
    /// What was ordered, from whom, when, what it is worth.
    pub headline: String,
    /// Where it stands and why.
    pub stands: Vec<String>,
    pub events: Vec<Entry>,
    pub waits: Vec<Wait>,
    pub lines: Vec<Line>,
    pub shipments: Vec<Shipment>,
    pub money: Money,
    pub parked: Vec<Parked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<Person>,
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    pub seq: i64,
    pub at: String,
    pub event: String,
    pub what: String,
    /// What it was decided from.
    pub facts: Vec<String>,
    /// What came in that it answers.
    pub because: String,
    /// topic/partition/offset of that record.
    pub cause: String,
    pub cause_id: String,
}

/// An open hold.
#[derive(Debug, Clone, Serialize)]
pub struct Wait {
    pub hold_id: String,
    pub reason: String,
    pub detail: String,
    pub since: String,
    pub until: String,
    pub overdue: bool,
    /// What one can do.
    pub do_this: Vec<String>,
}

/// One line as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub line_no: i32,
    pub sku: String,
    pub quantity: i64,
    pub claimed: i64,
    pub pinned: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub short: i64,
}

/// A shipment.
#[derive(Debug, Clone, Serialize)]
pub struct Shipment {
    pub shipment_id: String,
    pub location: String,
    pub carrier: Option<String>,
    pub left_at: String,
    pub simulated: bool,
    pub parcels: Vec<String>,
    pub status: String,
}

/// Money so far, as text.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Money {
    pub method: String,
    pub total: String,
    pub authorised: String,
    pub captured: String,
    pub refunded: String,
    pub sold: String,
}

/// A record of the order that could not be decided.
#[derive(Debug, Clone, Serialize)]
pub struct Parked {
    pub record: String,
    pub since: String,
    /// `None`: it waits behind another one.
    pub reason: Option<String>,
}

/// Who it is for; only when asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Person {
    pub address: Vec<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
}

impl Story {
    /// `None`: nothing ever happened to the order, and nothing is parked.
    pub fn of(
        order: OrderId,
        state: Option<OrderState>,
        happened: Vec<Happened>,
        parked: Vec<Parked>,
        person: bool,
    ) -> Option<Self> {
        if state.is_none() && happened.is_empty() && parked.is_empty() {
            return None;
        }
        let state = state.unwrap_or_default();
        let accepted = happened.iter().rev().find_map(|it| match &it.event {
            LedgerEvent::Accepted(it) => Some(it.as_ref()),
            _ => None,
        });
        let now = happened.iter().map(|it| it.at).max().unwrap_or_default();
        let (number, shop, channel) = accepted.map_or_else(Default::default, |it| {
            (it.order.channel_order_id.clone(), it.order.shop.clone(), it.order.channel.clone())
        });
        Some(Self {
            order_id: order.to_string(),
            order_no: accepted.map(|it| it.order_no),
            number,
            shop,
            channel,
            headline: headline(order, accepted),
            stands: stands(&state, &happened, &parked),
            waits: state.holds.iter().map(|hold| wait(order, hold, &state, now)).collect(),
            lines: lines(&state),
            shipments: shipments(&happened),
            money: money_of(&state, &happened),
            person: if person { happened.iter().rev().find_map(|it| the_person(&it.event)) } else { None },
            events: happened.into_iter().map(entry).collect(),
            parked,
        })
    }
}

/// An instant for people: seconds are enough.
pub fn when(at: Micros) -> String {
    let text = Micros(at.0 - at.0.rem_euclid(Micros::SECOND)).rfc3339();
    text.replace('T', " ").replace('Z', " UTC")
}

fn plain(word: &str) -> String {
    word.replace('_', " ")
}

pub fn money(minor: i64, currency: &str) -> String {
    let decimals = currency_decimals(currency).unwrap_or(2) as usize;
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let sign = if minor < 0 { "-" } else { "" };
    let point = if decimals == 0 { "" } else { "." };
    format!("{currency} {sign}{whole}{point}{fraction}")
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn sum(lines: &[LineQuantity]) -> i64 {
    lines.iter().fold(0, |sum, line| sum.saturating_add(line.quantity))
}

fn headline(id: OrderId, accepted: Option<&OrderAccepted>) -> String {
    let Some(it) = accepted else {
        return format!("Order {id} is not here yet; facts about it came before it did");
    };
    let order = &it.order;
    let units = order.lines.iter().fold(0i64, |sum, line| sum.saturating_add(line.quantity));
    let units = if units == 1 { "1 unit".to_owned() } else { format!("{units} units") };
    let charges = order.charges.iter().fold(0i64, |sum, it| sum.saturating_add(it.amount_minor));
    let charges = match charges {
        0 => String::new(),
        some => format!(" ({} of it not for goods)", money(some, &order.currency)),
    };
    let trial = if order.test { "A trial: " } else { "" };
    format!(
        "{trial}Order {} of {} by {}, placed {}: {} of {units}, worth {}{charges}; our number {}",
        order.channel_order_id,
        order.shop,
        order.channel,
        when(order.placed_at),
        count(order.lines.len(), "line"),
        money(order.total_minor, &order.currency),
        it.order_no,
    )
}

/// Where it stands and why; the first sentence that fits, and what stands beside it.
fn stands(state: &OrderState, happened: &[Happened], parked: &[Parked]) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(first) = parked.first() {
        let why = first.reason.as_deref().unwrap_or("it waits behind another record");
        said.push(format!(
            "{} of it could not be decided ({why}); everything about it waits for an engineer since {}",
            count(parked.len(), "record"),
            first.since
        ));
    }
    if !state.accepted {
        said.push("It waits for the order itself".into());
    }
    for hold in &state.holds {
        let detail = match (hold.detail.is_empty(), hold.line_no) {
            (false, _) => format!(" ({})", hold.detail),
            (true, Some(line)) => format!(", line {line}"),
            (true, None) => String::new(),
        };
        said.push(format!("It is held: {}{detail}, until {}", plain(hold.reason.as_str()), when(hold.due_at)));
    }
    for it in &state.fulfilments {
        let due = state.timers.iter().find(|timer| timer.timer_id == it.fulfilment_id);
        let due = due.map(|timer| format!(", due to leave by {}", when(timer.due_at))).unwrap_or_default();
        let units: i64 = it.pinned.iter().map(|(_, units)| units).sum();
        match it.status {
            FulfilmentStatus::Requested => {
                said.push(format!("{} is to ship {units} units{due}", it.location_id));
            }
            FulfilmentStatus::Picked => said.push(format!("{} has picked it{due}", it.location_id)),
            FulfilmentStatus::Withdrawing => {
                said.push(format!("{} was asked not to ship it and has not answered yet", it.location_id));
            }
            _ => {}
        }
    }
    let left: i64 = state.lines.iter().map(|line| line.shipped).sum();
    match &state.completed {
        Some(outcome) => {
            let last = happened.last().map(|it| format!(" since {}", when(it.at))).unwrap_or_default();
            said.push(format!("It is complete: {}{last}", plain(outcome)));
        }
        None if said.is_empty() && left > 0 => {
            let arrived = state.shipments.iter().filter(|it| it.delivered).count();
            said.push(format!("It has left; {arrived} of {} arrived", count(state.shipments.len(), "shipment")));
        }
        None if said.is_empty() => said.push("It is between two steps".into()),
        None => {}
    }
    said
}

fn wait(order: OrderId, hold: &Hold, state: &OrderState, now: Micros) -> Wait {
    Wait {
        hold_id: hold.hold_id.clone(),
        reason: hold.reason.to_string(),
        detail: hold.detail.clone(),
        since: when(hold.opened_at),
        until: when(hold.due_at),
        overdue: hold.due_at < now,
        do_this: advice(order, hold, state),
    }
}

/// What one can do about a hold: what has to happen, and the command that says so.
fn advice(order: OrderId, hold: &Hold, state: &OrderState) -> Vec<String> {
    let release = |what: &str| format!("{what}: ./kept order release {order} --hold {}", hold.hold_id);
    let cancel = format!("call it off: ./kept order cancel {order}");
    let recheck = |first: &str| format!("{first}, then: ./kept order recheck {order}");
    let address = format!("give the right address: ./kept order address {order} FILE.json");
    let paid = format!("tell of the payment: POST /v1/orders/{order}/payments");
    let missing: Vec<String> = (state.lines.iter())
        .filter(|line| line.short() > 0)
        .map(|line| format!(" --line {}={}", line.line_no, line.short()))
        .collect();
    let line = match missing.len() {
        0 => cancel.clone(),
        1..=6 => format!("call off what is missing: ./kept order cancel {order}{}", missing.concat()),
        many => format!(
            "call off what is missing ({many} lines, below): ./kept order cancel {order} --line LINE=QUANTITY …"
        ),
    };
    match hold.reason {
        HoldReason::AwaitingPayment | HoldReason::PaymentFailed => {
            vec![paid, release("go on without it"), cancel]
        }
        HoldReason::OutOfStock | HoldReason::ShortPick => {
            vec!["bring stock in: ./kept stock receive FILE.jsonl (it goes on by itself)".into(), line]
        }
        HoldReason::UnknownSku => {
            vec![recheck("add the product with ./kept reference apply FILE"), line]
        }
        HoldReason::AddressInvalid | HoldReason::Incomplete => {
            vec![address, release("ship it as it is"), cancel]
        }
        HoldReason::NoRoute => {
            vec![recheck("bring stock to one location, or open one with ./kept reference apply FILE"), cancel]
        }
        HoldReason::RefundDue => {
            vec![paid.replace("of the payment", "of the refund"), release("settle it elsewhere")]
        }
        HoldReason::MoneyMismatch | HoldReason::DespatchedAfterCancellation | HoldReason::UnaskedDespatch => {
            vec![release("it is settled")]
        }
        HoldReason::DeliveryProblem => vec![release("it is settled with the carrier")],
        HoldReason::TotalsDiffer
        | HoldReason::ValueImplausible
        | HoldReason::NoGoods
        | HoldReason::ChangedAfterAcceptance
        | HoldReason::Manual
        | HoldReason::Unknown => vec![release("it is right as it is"), cancel],
    }
}

fn lines(state: &OrderState) -> Vec<Line> {
    let lines = state.lines.iter().map(|it| Line {
        line_no: it.line_no,
        sku: it.sku.clone(),
        quantity: it.quantity,
        claimed: it.claimed,
        pinned: it.pinned,
        shipped: it.shipped,
        cancelled: it.cancelled,
        short: it.short(),
    });
    lines.collect()
}

fn shipments(happened: &[Happened]) -> Vec<Shipment> {
    let left = happened.iter().filter_map(|it| match &it.event {
        LedgerEvent::Despatched(it) => Some(it.as_ref()),
        _ => None,
    });
    left.map(|it| Shipment {
        shipment_id: it.shipment_id.clone(),
        location: it.location_id.clone(),
        carrier: it.carrier.clone(),
        left_at: when(it.despatched_at),
        simulated: it.simulated,
        parcels: parcels(it),
        status: tracked(&it.shipment_id, happened),
    })
    .collect()
}

fn parcels(it: &ShipmentDespatched) -> Vec<String> {
    let parcels = it.parcels.iter().map(|parcel| {
        let label = parcel.tracking_number.as_deref().unwrap_or("no label");
        match parcel.weight_grams {
            Some(grams) => format!("{label}, {grams} g"),
            None => label.to_owned(),
        }
    });
    parcels.collect()
}

/// The last that was heard of a shipment.
fn tracked(shipment_id: &str, happened: &[Happened]) -> String {
    let last = happened.iter().rev().find_map(|it| match &it.event {
        LedgerEvent::Tracked(it) if it.shipment_id == shipment_id => Some(it),
        _ => None,
    });
    match last {
        None => "on its way".into(),
        Some(it) => {
            let what = match it.kind {
                OutcomeKind::Delivered => "delivered",
                OutcomeKind::DeliveryFailed => "could not be delivered",
                _ => "scanned by the carrier",
            };
            format!("{what} {}", when(it.tracked_at))
        }
    }
}

fn money_of(state: &OrderState, happened: &[Happened]) -> Money {
    let currency = &state.currency;
    let sold = happened.iter().filter_map(|it| match &it.event {
        LedgerEvent::Posting(it) if it.kind == kept_schemas::events::PostingKind::Sale => Some(&it.entries),
        _ => None,
    });
    let sold = sold.flatten().filter(|entry| entry.amount.minor > 0).map(|entry| entry.amount.minor).sum();
    Money {
        method: plain(state.payment.method.as_str()),
        total: money(state.total_minor, currency),
        authorised: money(state.payment.authorised_minor, currency),
        captured: money(state.payment.captured_minor, currency),
        refunded: money(state.payment.refunded_minor, currency),
        sold: money(sold, currency),
    }
}

fn the_person(event: &LedgerEvent) -> Option<Person> {
    let party: &Party = match event {
        LedgerEvent::Accepted(it) => &it.party,
        LedgerEvent::Revised(it) => &it.party,
        _ => return None,
    };
    if *party == Party::default() {
        return Some(Person { address: vec!["(erased)".into()], email: None, phone: None });
    }
    Some(Person { address: address(&party.ship_to), email: party.email.clone(), phone: party.phone.clone() })
}

fn address(it: &Address) -> Vec<String> {
    let number = it.house_number.as_deref().unwrap_or_default();
    let addition = it.house_number_addition.as_deref().unwrap_or_default();
    [
        it.name.clone(),
        it.company.clone().unwrap_or_default(),
        format!("{} {number}{addition}", it.street).trim().to_owned(),
        it.extra.clone().unwrap_or_default(),
        format!("{} {}", it.postcode, it.city).trim().to_owned(),
        it.country.clone(),
    ]
    .into_iter()
    .filter(|line| !line.is_empty())
    .collect()
}

fn entry(it: Happened) -> Entry {
    let Cause { event_id, topic, partition, offset, .. } = it.cause;
    Entry {
        seq: it.event.place().map_or(0, |(_, seq)| seq),
        at: it.at.rfc3339(),
        event: it.event.topic().name().to_owned(),
        what: detail(&it.event),
        facts: facts(&it.event),
        because: because(topic).to_owned(),
        cause: format!("{topic}/{partition}/{offset}"),
        cause_id: event_id.to_string(),
    }
}

/// What a record of a topic is, in a merchant's words.
fn because(topic: Topic) -> &'static str {
    match topic {
        Topic::OrdersValidated => "the order came in, checked",
        Topic::PaymentsReceived => "news of its payment came",
        Topic::CommandsReceived => "someone asked for it",
        Topic::OutcomesReceived => "a warehouse or carrier reported",
        Topic::DeadlinesReached => "a deadline passed",
        Topic::OrdersWoken => "goods it waits for came free",
        _ => "a record came",
    }
}

/// What a decision was made from, as far as the event says.
fn facts(event: &LedgerEvent) -> Vec<String> {
    const SHOWN: usize = 8;
    let mut facts: Vec<String> = match event {
        LedgerEvent::Accepted(it) => accepted_facts(it),
        LedgerEvent::Held(it) => it
            .holds
            .iter()
            .map(|hold| format!("{}: until {}", plain(hold.reason.as_str()), when(hold.due_at)))
            .collect(),
        LedgerEvent::Reserved(it) => {
            it.lines.iter().map(|line| format!("line {}: {:+}", line.line_no, line.quantity)).collect()
        }
        LedgerEvent::Backordered(it) => {
            it.lines.iter().map(|line| format!("line {}: {} missing", line.line_no, line.quantity)).collect()
        }
        LedgerEvent::Requested(it) => {
            let considered = it.reasons.iter().map(|reason| {
                let chosen = if reason.chosen { "chosen" } else { "passed over" };
                format!("{} {chosen}: {}", reason.location_id, reason.why)
            });
            let lines = it.lines.iter().map(|line| format!("line {}: {} of {}", line.line_no, line.quantity, line.sku));
            considered.chain(lines).collect()
        }
        LedgerEvent::Cancelled(it) => {
            let why = (!it.reason.is_empty()).then(|| format!("reason: {}", it.reason));
            let lines = it.lines.iter().map(|line| format!("line {}: {}", line.line_no, line.quantity));
            why.into_iter().chain(lines).collect()
        }
        LedgerEvent::Despatched(it) => parcels(it),
        LedgerEvent::Posting(it) => (it.entries.iter())
            .map(|entry| format!("{} {}", entry.account, money(entry.amount.minor, &entry.amount.currency)))
            .collect(),
        _ => Vec::new(),
    };
    if facts.len() > SHOWN {
        let more = facts.len() - SHOWN;
        facts.truncate(SHOWN);
        facts.push(format!("and {more} more"));
    }
    facts
}

fn accepted_facts(it: &OrderAccepted) -> Vec<String> {
    let mut facts = Vec::new();
    let ordered: i64 = it.order.lines.iter().map(|line| line.quantity).sum();
    if sum(&it.claimed) < ordered && it.revision == 0 {
        let short = it.order.lines.iter().filter_map(|line| {
            let claimed = it.claimed.iter().find(|claim| claim.line_no == line.line_no).map_or(0, |it| it.quantity);
            (claimed < line.quantity)
                .then(|| format!("line {}: {claimed} of {} of {} claimed", line.line_no, line.quantity, line.sku))
        });
        facts.extend(short);
    }
    let unknown = it.enrichment.lines.iter().filter(|line| !line.known).map(|line| line.line_no.to_string());
    let unknown: Vec<String> = unknown.take(10).collect();
    if !unknown.is_empty() {
        facts.push(format!("not in the product list: line {}", unknown.join(", ")));
    }
    if !it.enrichment.customer_class.is_empty() {
        facts.push(format!("customer class {}, VAT of {}", it.enrichment.customer_class, it.enrichment.vat_country));
    }
    let versions: Vec<String> =
        it.enrichment.versions.iter().map(|version| format!("{} {}", version.topic, version.version)).collect();
    if !versions.is_empty() {
        facts.push(format!("reference data: {}", versions.join(", ")));
    }
    facts
}

#[cfg(test)]
mod tests {
    use kept_processors::ledger::{FulfilmentState, LineState, Timer};
    use kept_schemas::{
        EventId, Order, OrderLine,
        events::{FulfilmentRequested, OrderHeld, RouteReason},
        inputs::TimerPurpose,
    };

    use super::*;

    fn id() -> OrderId {
        OrderId::of("shop.nl", "1001")
    }

    fn at(seconds: i64) -> Micros {
        Micros::parse_rfc3339("2026-11-25T10:00:00Z").expect("a time").plus(seconds * Micros::SECOND)
    }

    fn accepted() -> LedgerEvent {
        let order = Order {
            order_id: id(),
            channel: "storefront".into(),
            shop: "shop.nl".into(),
            channel_order_id: "1001".into(),
            placed_at: at(0),
            currency: "EUR".into(),
            total_minor: 2_495,
            lines: vec![OrderLine { line_no: 1, sku: "MUG".into(), quantity: 2, ..Default::default() }],
            ..Default::default()
        };
        let party = Party {
            ship_to: Address { name: "Somebody Made Up".into(), city: "Nowhere".into(), ..Default::default() },
            email: Some("made-up@example.test".into()),
            ..Default::default()
        };
        OrderAccepted { order_id: id(), seq: 1, order_no: 17, order, party, ..Default::default() }.into()
    }

    fn happened(seconds: i64, event: LedgerEvent) -> Happened {
        let event_id = EventId::of_input("shop", "1001", b"");
        let cause = Cause { event_id, topic: Topic::OrdersValidated, partition: 0, offset: 12, traceparent: None };
        Happened { at: at(seconds), event, cause }
    }

    fn hold() -> Hold {
        Hold {
            hold_id: "h1".into(),
            reason: HoldReason::AwaitingPayment,
            detail: "the payment of EUR 24.95 has not come".into(),
            opened_at: at(1),
            due_at: at(3_600),
            ..Default::default()
        }
    }

    fn held() -> Story {
        let event = OrderHeld { order_id: id(), seq: 2, holds: vec![hold()], ..Default::default() };
        let state = OrderState {
            accepted: true,
            currency: "EUR".into(),
            lines: vec![LineState { line_no: 1, sku: "MUG".into(), quantity: 2, claimed: 2, ..Default::default() }],
            holds: vec![hold()],
            ..Default::default()
        };
        let happened = vec![happened(1, accepted()), happened(1, event.into())];
        Story::of(id(), Some(state), happened, Vec::new(), false).expect("a story")
    }

    #[test]
    fn a_held_order_says_what_it_is_why_it_waits_until_when_and_what_to_do() {
        let story = held();
        assert_eq!(
            story.headline,
            "Order 1001 of shop.nl by storefront, placed 2026-11-25 10:00:00 UTC: 1 line of 2 units, worth EUR 24.95; \
             our number 17"
        );
        assert_eq!(
            story.stands,
            ["It is held: awaiting payment (the payment of EUR 24.95 has not come), until 2026-11-25 11:00:00 UTC"]
        );
        assert_eq!(story.events[1].cause, "orders.validated/0/12");
        let release = format!("go on without it: ./kept order release {} --hold h1", id());
        assert!(story.waits[0].do_this.contains(&release), "{:?}", story.waits[0].do_this);
    }

    #[test]
    fn what_others_wrote_does_not_drive_a_terminal() {
        let story = Story { headline: "Order \u{1b}[2J\u{7}1001".into(), ..held() };
        let printed = super::super::print::text(&story);
        assert!(printed.starts_with("Order \u{fffd}[2J\u{fffd}1001.\n"), "{printed:?}");
    }

    #[test]
    fn the_person_is_shown_only_when_asked_for() {
        let printed = super::super::print::text(&held()) + &serde_json::to_string(&held()).expect("JSON");
        assert!(!printed.contains("Made Up") && !printed.contains("example.test") && !printed.contains("Nowhere"));
        let story = Story::of(id(), None, vec![happened(1, accepted())], Vec::new(), true).expect("a story");
        assert!(super::super::print::text(&story).contains("Somebody Made Up"));
    }

    #[test]
    fn a_request_says_which_locations_were_considered_and_when_it_is_due() {
        let reason =
            |location: &str, chosen, why: &str| RouteReason { location_id: location.into(), chosen, why: why.into() };
        let event = FulfilmentRequested {
            order_id: id(),
            seq: 2,
            fulfilment_id: "f1".into(),
            location_id: "north".into(),
            reasons: vec![reason("south", false, "has 1 of 2 of MUG"), reason("north", true, "comes first")],
            ..Default::default()
        };
        let state = OrderState {
            accepted: true,
            fulfilments: vec![FulfilmentState {
                fulfilment_id: "f1".into(),
                location_id: "north".into(),
                status: FulfilmentStatus::Requested,
                pinned: vec![(1, 2)],
                picked: Vec::new(),
                late: false,
            }],
            timers: vec![Timer {
                timer_id: "f1".into(),
                purpose: TimerPurpose::DespatchDue,
                revision: 1,
                due_at: at(60),
            }],
            ..Default::default()
        };
        let happened = vec![happened(1, accepted()), happened(1, event.into())];
        let story = Story::of(id(), Some(state), happened, Vec::new(), false).expect("a story");
        assert_eq!(story.stands, ["north is to ship 2 units, due to leave by 2026-11-25 10:01:00 UTC"]);
        assert_eq!(story.events[1].facts[..2], ["south passed over: has 1 of 2 of MUG", "north chosen: comes first"]);
    }

    #[test]
    fn every_hold_reason_has_something_one_can_do() {
        for &reason in HoldReason::ALL {
            let hold = Hold { reason, ..hold() };
            assert!(
                advice(id(), &hold, &OrderState::default())
                    .iter()
                    .any(|line| line.contains("./kept") || line.contains("/v1/")),
                "{reason}"
            );
        }
    }

    #[test]
    fn an_order_of_which_nothing_is_known_has_no_story() {
        assert!(Story::of(id(), None, Vec::new(), Vec::new(), false).is_none());
    }
}
