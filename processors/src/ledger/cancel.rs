//! Cancelling: what nobody was asked to ship is given back at once; what a location was asked for is withdrawn first,
//! and is cancelled when the location has answered.

use kept_schemas::{
    events::{FulfilmentWithdrawn, NoteKind, NotificationPurpose, OrderCancelled},
    inbound::HoldReason,
    inputs::LineQuantity,
};

use super::{
    FulfilmentStatus, OrderState,
    decision::{Decision, KEPT},
    fold::{line_at, units_of},
    payments,
};

/// Cancels `wanted` units per line, of those that are open. `whole`: all that is left, later found units among them.
pub(super) fn cancel(d: &mut Decision<'_>, whole: bool, wanted: &[(i32, i64)], reason: &str, by: &str) {
    let mut now = Vec::new();
    let mut later = Vec::new();
    for &(line_no, units) in wanted {
        let Some(line) = line_at(&d.order().lines, line_no) else { continue };
        let free = (line.open() - line.pinned).clamp(0, units);
        now.extend((free > 0).then_some((line_no, free)));
        later.extend((units > free).then_some(LineQuantity { line_no, quantity: units - free }));
    }
    if !later.is_empty() {
        let lines = later.iter().map(|it| it.line_no).collect::<Vec<_>>();
        d.note(NoteKind::CancelAsked, by, reason, if whole { Vec::new() } else { later });
        withdraw(d, "cancelled", |order, at| {
            order.fulfilments[at].pinned.iter().any(|pinned| lines.contains(&pinned.0))
        });
    }
    effect(d, &now, reason, by);
}

/// Does what was asked for before and can be done now. True: something was.
pub(super) fn do_what_was_asked(d: &mut Decision<'_>) -> bool {
    let order = d.order();
    let Some(asked) = &order.cancel_asked else { return false };
    let free = |line_no: i32| line_at(&order.lines, line_no).map_or(0, |line| line.open() - line.pinned);
    let of_line = |line_no: i32| if asked.whole { i64::MAX } else { units_of(&asked.lines, line_no) };
    let now: Vec<(i32, i64)> = (order.lines.iter())
        .map(|line| (line.line_no, free(line.line_no).min(of_line(line.line_no))))
        .filter(|it| it.1 > 0)
        .collect();
    let nothing = now.is_empty() && !(asked.whole && order.lines.iter().all(|line| line.open() <= 0));
    if nothing {
        return false;
    }
    let (reason, by) = (asked.reason.clone(), asked.by.clone());
    effect(d, &now, &reason, &by);
    true
}

/// The cancellation itself, and what it means for holds, money and the customer.
fn effect(d: &mut Decision<'_>, now: &[(i32, i64)], reason: &str, by: &str) {
    let order = d.order();
    let taken = |line_no: i32| units_of(now, line_no);
    let whole = order.lines.iter().all(|line| line.open() - taken(line.line_no) <= 0);
    if now.is_empty() && !(whole && order.lines.iter().all(|line| line.open() <= 0 && line.shipped == 0)) {
        return;
    }
    let of = |&(line_no, quantity): &(i32, i64)| LineQuantity { line_no, quantity };
    let lines: Vec<LineQuantity> = now.iter().map(of).collect();
    let given_back: Vec<LineQuantity> = (now.iter())
        .filter_map(|&(line_no, units)| {
            let line = line_at(&order.lines, line_no)?;
            // Units nothing is claimed for are the first to go.
            let back = units - units.min(line.short().max(0));
            (back > 0).then_some(LineQuantity { line_no, quantity: back })
        })
        .collect();
    for line in &given_back {
        d.free(line.line_no);
    }
    let (order_id, seq, at) = d.stamp();
    let (reason, by) = (reason.to_owned(), by.to_owned());
    d.say(OrderCancelled { order_id, seq, at, whole, lines, given_back, reason, by });
    let nothing_left = whole && d.order().lines.iter().all(|line| line.shipped == 0);
    if nothing_left {
        d.resolve("cancelled", KEPT, |hold| !outlives(hold.reason));
        d.notify(NotificationPurpose::Cancelled, "", None);
    }
    payments::check(d);
}

/// Holds that a cancellation of everything does not answer.
fn outlives(reason: HoldReason) -> bool {
    matches!(
        reason,
        HoldReason::MoneyMismatch
            | HoldReason::RefundDue
            | HoldReason::DespatchedAfterCancellation
            | HoldReason::UnaskedDespatch
            | HoldReason::DeliveryProblem
    )
}

/// Asks the locations of the fulfilment orders that `which` names not to ship.
pub(super) fn withdraw(d: &mut Decision<'_>, reason: &str, which: impl Fn(&OrderState, usize) -> bool) {
    let due_at = d.after(d.policy().despatch_due_seconds);
    for at in 0..d.order().fulfilments.len() {
        let order = d.order();
        let fulfilment = &order.fulfilments[at];
        let asked = matches!(fulfilment.status, FulfilmentStatus::Requested | FulfilmentStatus::Picked);
        if !asked || !which(order, at) {
            continue;
        }
        let (fulfilment_id, location_id) = (fulfilment.fulfilment_id.clone(), fulfilment.location_id.clone());
        let (order_id, seq, at) = d.stamp();
        let reason = reason.to_owned();
        d.say(FulfilmentWithdrawn { order_id, seq, at, fulfilment_id, location_id, reason, due_at });
    }
}
