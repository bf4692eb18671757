//! What follows from how an order stands now, whatever happened to it: a cancellation that can be done is done, what
//! stands in its way gets a name, what no longer does loses it, and when nothing is left in the way the order is
//! released, routed, completed. Every decision about an order ends here.

use kept_schemas::{
    events::{NoteKind, OrderBackordered, OrderCompleted, OrderReleased},
    inbound::HoldReason,
    inputs::LineQuantity,
    order::PaymentMethod,
};

use super::{
    FulfilmentStatus, LineState, OrderState, books, cancel,
    decision::{Decision, KEPT},
    money, route,
};

/// How many lines a hold's evidence names.
const NAMED: usize = 6;

/// Why a hold for goods ends when nothing is missing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    Stock,
    Cancelled,
}

impl Arrived {
    /// The hold's resolution.
    fn word(self) -> &'static str {
        match self {
            Self::Stock => "stock_arrived",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Follows up. `arrived`: what resolves a hold for goods.
pub(super) fn settle(d: &mut Decision<'_>, arrived: Arrived) {
    if !d.order().accepted {
        d.say_holds();
        return;
    }
    let cancelled = cancel::do_what_was_asked(d);
    let arrived = if cancelled { Arrived::Cancelled } else { arrived };
    unknown_skus(d, arrived);
    let newly_short = shortage(d, arrived);
    payment(d);
    try_route_again(d, arrived);
    d.say_holds();
    if !newly_short.is_empty() {
        backordered(d, newly_short);
    }
    if may_go(d) {
        release(d);
    }
    complete(d);
}

/// A line whose SKU is not in the product list waits for the product, or for its cancellation.
fn unknown_skus(d: &mut Decision<'_>, arrived: Arrived) {
    let unknown = |line: &&LineState| !line.known && line.open() > 0;
    let order = d.order();
    match order.lines.iter().find(unknown) {
        None => {
            if d.holds(HoldReason::UnknownSku) {
                let how = if arrived == Arrived::Cancelled { arrived.word() } else { "corrected" };
                d.resolve(how, KEPT, |hold| hold.reason == HoldReason::UnknownSku);
            }
        }
        Some(_) if d.holds(HoldReason::UnknownSku) => {}
        Some(line) => {
            let one = (order.lines.iter().filter(unknown).count() == 1).then_some(line.line_no);
            let named = order.lines.iter().filter(unknown).map(|line| format!("line {}, {}", line.line_no, line.sku));
            let detail = format!("not in the product list: {}", list(named));
            d.hold(HoldReason::UnknownSku, one, detail);
        }
    }
}

/// Lines for which less is reserved than they need. Returns what has just begun to be short.
fn shortage(d: &mut Decision<'_>, arrived: Arrived) -> Vec<LineQuantity> {
    let stock = |reason| matches!(reason, HoldReason::OutOfStock | HoldReason::ShortPick);
    let order = d.order();
    let missing = match order.test {
        true => Vec::new(),
        false => missing(order),
    };
    if missing.is_empty() {
        if d.open_holds().any(|hold| stock(hold.reason)) {
            d.resolve(arrived.word(), KEPT, |hold| stock(hold.reason));
        }
        return missing;
    }
    if d.holds(HoldReason::OutOfStock) || d.open_holds().any(|hold| hold.reason == HoldReason::ShortPick) {
        return Vec::new();
    }
    if !d.holds(HoldReason::ShortPick) {
        let one = (missing.len() == 1).then_some(missing[0].line_no);
        let detail = evidence(order, &missing);
        d.hold(HoldReason::OutOfStock, one, detail);
    }
    missing
}

/// What an order's lines are short of.
pub(super) fn missing(order: &OrderState) -> Vec<LineQuantity> {
    let short = order.lines.iter().filter(|line| line.known && line.open() > 0 && line.short() > 0);
    short.map(|line| LineQuantity { line_no: line.line_no, quantity: line.short() }).collect()
}

/// "2 of 5 of A missing (line 1)".
pub(super) fn evidence(order: &OrderState, missing: &[LineQuantity]) -> String {
    list(missing.iter().filter_map(|it| {
        let line = super::fold::line_at(&order.lines, it.line_no)?;
        Some(format!("{} of {} of {} missing (line {})", it.quantity, line.open(), line.sku, line.line_no))
    }))
}

fn backordered(d: &mut Decision<'_>, lines: Vec<LineQuantity>) {
    let (order_id, seq, at) = d.stamp();
    d.say(OrderBackordered { order_id, seq, at, lines });
}

/// The first few, and how many more there are.
pub(super) fn list(parts: impl Iterator<Item = String>) -> String {
    let mut parts = parts;
    let mut text = String::new();
    for part in parts.by_ref().take(NAMED) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&part);
    }
    match parts.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// An order that is not paid for waits until it is; one that is, no longer.
fn payment(d: &mut Decision<'_>) {
    let waiting = |reason| matches!(reason, HoldReason::AwaitingPayment | HoldReason::PaymentFailed);
    let order = d.order();
    if money::satisfied(order) {
        if d.open_holds().any(|hold| waiting(hold.reason)) {
            d.resolve("paid", KEPT, |hold| waiting(hold.reason));
        }
    } else if !order.released && !d.holds(HoldReason::AwaitingPayment) {
        let policy = d.policy();
        let (what, seconds) = match order.payment.method {
            PaymentMethod::BankTransfer => ("the bank transfer", policy.transfer_due_seconds),
            _ => ("the payment", policy.payment_due_seconds),
        };
        let due = money::due(order) - money::covered(order);
        let detail = format!("{what} of {} has not come", money::plain(due, &order.currency));
        let due_at = d.after(seconds);
        d.hold_until(HoldReason::AwaitingPayment, None, detail, due_at);
    }
    if d.open_holds().any(|hold| hold.reason == HoldReason::RefundDue) && !money::refund_due(d.order()) {
        d.resolve("refunded", KEPT, |hold| hold.reason == HoldReason::RefundDue);
    }
}

/// An order that waits for nothing but a location: there may be one now.
fn try_route_again(d: &mut Decision<'_>, arrived: Arrived) {
    let mut open = d.open_holds();
    let only = open.next().is_some_and(|hold| hold.reason == HoldReason::NoRoute) && open.next().is_none();
    drop(open);
    if only && (route::choose(d).is_ok() || !route::anything_to_pin(d.order())) {
        d.resolve(arrived.word(), KEPT, |hold| hold.reason == HoldReason::NoRoute);
    }
}

/// Nothing stands in the order's way, and there is something left to do for it.
fn may_go(d: &Decision<'_>) -> bool {
    let order = d.order();
    let settled = order.holds.is_empty() && order.checked >= order.revision && order.cancel_asked.is_none();
    let complete = order.test || order.lines.iter().all(|line| line.open() <= 0 || (line.known && line.short() <= 0));
    settled && complete && order.completed.is_none() && !all_cancelled(order)
}

fn release(d: &mut Decision<'_>) {
    if !d.order().released {
        let (order_id, seq, at) = d.stamp();
        d.say(OrderReleased { order_id, seq, at });
    }
    if !d.order().test && route::anything_to_pin(d.order()) {
        route::route(d);
    }
}

/// Nothing was shipped, and nothing of what was ordered is left.
fn all_cancelled(order: &OrderState) -> bool {
    let cancelled = order.lines.iter().any(|line| line.cancelled > 0) || order.cancelled;
    cancelled && order.lines.iter().all(|line| line.open() <= 0 && line.shipped == 0)
}

/// A final state, when nothing is left to wait for.
fn complete(d: &mut Decision<'_>) {
    let order = d.order();
    if order.completed.is_some() || !order.holds.is_empty() || order.cancel_asked.is_some() {
        return;
    }
    let outcome = match order {
        _ if order.test && order.released => "test",
        _ if all_cancelled(order) => "cancelled",
        _ if !everything_arrived(order) => return,
        _ => "delivered",
    };
    if outcome == "delivered" {
        // An order without goods has no despatch that its charges could be posted with.
        books::charges_without_goods(d);
    }
    let (order_id, seq, at) = d.stamp();
    d.say(OrderCompleted { order_id, seq, at, outcome: outcome.to_owned() });
}

fn everything_arrived(order: &OrderState) -> bool {
    let open = |status| {
        matches!(status, FulfilmentStatus::Requested | FulfilmentStatus::Picked | FulfilmentStatus::Withdrawing)
    };
    order.released_or_shipped()
        && order.lines.iter().all(|line| line.open() <= 0)
        && !order.fulfilments.iter().any(|it| open(it.status))
        && order.shipments.iter().all(|it| it.delivered || it.lines.is_empty())
}

impl OrderState {
    fn released_or_shipped(&self) -> bool {
        self.released || self.lines.iter().any(|line| line.shipped > 0)
    }
}

/// Nothing changed that follows from anything: a note for the history.
pub(super) fn refuse(d: &mut Decision<'_>, why: impl Into<String>) {
    d.note(NoteKind::Refused, "", why, Vec::new());
}
