//! An order that was checked: taken on our books, with its claims on stock, whatever is wrong with it; or recognised as
//! one that we have. Content that we hold a promise about is never overwritten from outside.

use std::collections::BTreeMap;

use kept_schemas::{
    Order, OrderId,
    events::{NoteKind, NotificationPurpose, OrderAccepted},
    inbound::{HoldReason, OrderValidated, Problem},
    inputs::{LineQuantity, OrderWoken},
    order::Party,
};

use super::{
    Facts, OrderState, books,
    decision::{Decision, KEPT},
    fold::{line_at, line_facts, numbered, units_of},
    payments,
    settle::{Arrived, list, settle},
    stock::others_wait,
};

/// Takes in a checked order.
pub(super) fn validated(d: &mut Decision<'_>, it: &OrderValidated) {
    let order = d.order();
    if !order.accepted {
        first(d, it);
    } else if it.revision == 0 {
        again(d, it);
    } else if it.revision < order.revision || it.revision <= order.checked {
        d.note(NoteKind::Stale, "", format!("checks of revision {}, which is not the last", it.revision), Vec::new());
    } else {
        corrected(d, it);
    }
}

/// The first time: everything that is wrong is a hold, and all the same the order is on our books.
fn first(d: &mut Decision<'_>, it: &OrderValidated) {
    let mismatch = !d.order().currency.is_empty() && d.order().currency != it.order.currency;
    let cancelled = d.order().cancelled;
    let (claimed, yielded) = claims(d, it);
    accept(d, it, claimed);
    d.not_understood(&it.not_understood);
    for problem in problems(it) {
        d.hold(problem.reason, problem.line_no, problem.detail);
    }
    if d.order().shipments.iter().any(|shipment| !shipment.lines.is_empty()) {
        books::sold_before(d);
        d.hold(HoldReason::UnaskedDespatch, None, "goods left before the order was on our books");
    }
    if mismatch {
        let detail = format!("money came in another currency than {}, the order's", payments::cut(&it.order.currency));
        d.hold(HoldReason::MoneyMismatch, None, detail);
    }
    payments::with_order(d, &it.order.payment);
    if !cancelled {
        d.notify(NotificationPurpose::OrderConfirmed, "", None);
    }
    settle(d, Arrived::Stock);
    wake_later(d, yielded);
}

/// A correction of ours comes back from its checks.
fn corrected(d: &mut Decision<'_>, it: &OrderValidated) {
    let order = d.order();
    let gone = |line: &&super::LineState| {
        let now = it.order.lines.iter().find(|now| now.line_no == line.line_no);
        now.is_none_or(|now| now.sku != line.sku || now.quantity < line.cancelled + line.shipped + line.pinned)
    };
    if order.lines.iter().filter(gone).any(|line| line.cancelled + line.shipped + line.pinned > 0) {
        let detail = "a correction would take away lines that are shipped, cancelled or being shipped";
        d.hold(HoldReason::ChangedAfterAcceptance, None, detail);
        return settle(d, Arrived::Stock);
    }
    // What a line no longer needs is given up before the line is described anew.
    let given_up: Vec<LineQuantity> = (order.lines.iter())
        .filter_map(|line| {
            let now = it.order.lines.iter().find(|now| now.line_no == line.line_no && now.sku == line.sku);
            let needs = now.map_or(0, |now| (now.quantity - line.cancelled - line.shipped - line.pinned).max(0));
            let over = line.claimed - needs;
            (over > 0).then_some(LineQuantity { line_no: line.line_no, quantity: -over })
        })
        .collect();
    d.reserve(given_up);
    let (claimed, yielded) = claims(d, it);
    accept(d, it, claimed);
    let mut found = problems(it);
    let stands = |hold: &kept_schemas::events::Hold, found: &[Found]| {
        found.iter().any(|it| it.reason == hold.reason && it.detail == hold.detail && it.line_no == hold.line_no)
    };
    d.resolve("corrected", KEPT, |hold| from_checks(hold.reason) && !stands(hold, &found));
    found.retain(|it| !d.holds(it.reason));
    for problem in found {
        d.hold(problem.reason, problem.line_no, problem.detail);
    }
    payments::check(d);
    settle(d, Arrived::Stock);
    wake_later(d, yielded);
}

fn accept(d: &mut Decision<'_>, it: &OrderValidated, claimed: Vec<LineQuantity>) {
    let (order_id, seq, at) = d.stamp();
    let order = d.order();
    let body_hash = if it.body_hash.is_empty() { order.body_hash.clone() } else { it.body_hash.clone() };
    d.say(OrderAccepted {
        order_id,
        seq,
        at,
        order_no: order.order_no,
        order: it.order.clone(),
        enrichment: it.enrichment.clone(),
        claimed,
        revision: it.revision,
        body_hash,
        party: it.party.clone(),
    });
}

/// What each line may claim now, and the SKUs it left to those that waited before it.
fn claims(d: &Decision<'_>, it: &OrderValidated) -> (Vec<LineQuantity>, Vec<String>) {
    let state = d.order();
    if it.order.test || state.cancelled || !numbered(it.order.lines.iter().map(|line| line.line_no)) {
        return (Vec::new(), Vec::new());
    }
    let mut left: BTreeMap<&str, i64> = BTreeMap::new();
    let mut yielded: Vec<String> = Vec::new();
    let mut claimed = Vec::new();
    for (index, line) in it.order.lines.iter().enumerate() {
        let wanted = line.quantity - has(state, line.line_no);
        let known = line_facts(&it.enrichment, index, line.line_no).is_some_and(|it| it.known);
        if !known || wanted <= 0 {
            continue;
        }
        let left = left.entry(&line.sku).or_insert_with(|| {
            let available = d.facts.available(&line.sku);
            if available > 0 && others_wait(d.facts, &line.sku, d.order_id) {
                yielded.push(line.sku.clone());
                return 0;
            }
            available
        });
        let units = wanted.min(*left);
        if units > 0 {
            *left -= units;
            claimed.push(LineQuantity { line_no: line.line_no, quantity: units });
        }
    }
    (claimed, yielded)
}

/// Units of a line that need no new claim: cancelled, gone, pinned or claimed already.
fn has(state: &OrderState, line_no: i32) -> i64 {
    if let Some(line) = line_at(&state.lines, line_no) {
        return line.cancelled + line.shipped + line.pinned + line.claimed;
    }
    // What is known of an order that was not here yet.
    let cancelled = state.cancel_asked.as_ref().map_or(0, |asked| units_of(&asked.lines, line_no));
    cancelled.saturating_add(state.shipments.iter().map(|it| units_of(&it.lines, line_no)).sum())
}

/// Stock is there, but others were first: they are on their way to it, and the order looks again behind them.
fn wake_later(d: &mut Decision<'_>, yielded: Vec<String>) {
    for sku in yielded {
        let (order_id, at) = (d.order_id, d.facts.now);
        d.say(OrderWoken { order_id, sku, at, more: true });
    }
}

/// The same order came again from outside.
fn again(d: &mut Decision<'_>, it: &OrderValidated) {
    let state = d.order();
    let known = state.account == it.order.account || state.aliases.contains(&it.order.account);
    let same = match state.account == it.order.account {
        true => same_body(state, it) || same_content(d.facts, d.order_id, it),
        false => same_sale(state, &it.order),
    };
    match (same, known) {
        (true, true) => d.note(NoteKind::Duplicate, "", "with the same content", Vec::new()),
        (true, false) => {
            let detail = format!("by account {}", payments::cut(&it.order.account));
            d.note(NoteKind::Alias, &it.order.account, detail, Vec::new());
        }
        (false, _) if d.holds(HoldReason::ChangedAfterAcceptance) => {
            d.note(NoteKind::Duplicate, "", "with other content; the hold for it stands", Vec::new());
        }
        (false, _) => {
            let detail = difference(d.order(), &it.order);
            d.note(NoteKind::Duplicate, "", format!("with other content: {detail}"), Vec::new());
            d.hold(HoldReason::ChangedAfterAcceptance, None, detail);
            settle(d, Arrived::Stock);
        }
    }
}

fn same_body(state: &OrderState, it: &OrderValidated) -> bool {
    !it.body_hash.is_empty() && state.body_hash == it.body_hash
}

/// All that we keep of the order is the same. A person that was erased is not compared.
fn same_content(facts: &Facts, order_id: OrderId, it: &OrderValidated) -> bool {
    let Some(content) = facts.contents.get(&order_id) else { return false };
    content.order == it.order && (content.party == it.party || content.party == Party::default())
}

/// The same goods at the same price, placed at the same time. Two ways in word the rest differently.
fn same_sale(state: &OrderState, order: &Order) -> bool {
    let lines = state
        .lines
        .iter()
        .zip(&order.lines)
        .all(|(a, b)| a.sku == b.sku && a.quantity == b.quantity && a.line_total_minor == b.line_total_minor);
    lines
        && state.lines.len() == order.lines.len()
        && state.placed_at == order.placed_at
        && state.currency == order.currency
        && state.total_minor == order.total_minor
}

fn difference(state: &OrderState, order: &Order) -> String {
    let skus = |a: &[super::LineState], b: &[kept_schemas::OrderLine]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.sku == b.sku && a.quantity == b.quantity)
    };
    let mut what = Vec::new();
    if state.placed_at != order.placed_at {
        what.push("when it was placed");
    }
    if !skus(&state.lines, &order.lines) {
        what.push("its lines");
    }
    if state.total_minor != order.total_minor || state.currency != order.currency {
        what.push("its total");
    }
    if what.is_empty() {
        what.push("the address or other details");
    }
    format!("the same number came again, and {} differ", what.join(", "))
}

/// A hold that the checks ask for.
struct Found {
    reason: HoldReason,
    line_no: Option<i32>,
    detail: String,
}

/// One hold for each reason, with all its evidence. A reason that this version has no word for holds the order too: a
/// newer check found something, and only a person can tell what.
fn problems(it: &OrderValidated) -> Vec<Found> {
    let mut by_reason: BTreeMap<HoldReason, Vec<&Problem>> = BTreeMap::new();
    for problem in &it.problems {
        by_reason.entry(problem.reason).or_default().push(problem);
    }
    let mut found: Vec<Found> = by_reason
        .into_iter()
        .map(|(reason, problems)| {
            let line_no = problems[0].line_no.filter(|_| problems.iter().all(|it| it.line_no == problems[0].line_no));
            Found { reason, line_no, detail: list(problems.iter().map(|it| it.detail.clone())) }
        })
        .collect();
    if !numbered(it.order.lines.iter().map(|line| line.line_no))
        && found.iter().all(|it| it.reason != HoldReason::ValueImplausible)
    {
        let detail = "its lines are not numbered from 1 on, or are too many".to_owned();
        found.push(Found { reason: HoldReason::ValueImplausible, line_no: None, detail });
    }
    found
}

/// Reasons that the checks find; a correction answers them.
fn from_checks(reason: HoldReason) -> bool {
    matches!(
        reason,
        HoldReason::Incomplete
            | HoldReason::AddressInvalid
            | HoldReason::UnknownSku
            | HoldReason::TotalsDiffer
            | HoldReason::ValueImplausible
            | HoldReason::NoGoods
            | HoldReason::Unknown
    )
}
