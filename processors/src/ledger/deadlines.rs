//! Timers that came due. One whose revision is not the timer's any more says nothing: it was cleared or set anew while
//! the deadline was on its way. One that counts is always cleared.

use kept_schemas::{
    events::NotificationPurpose,
    inbound::HoldReason,
    inputs::{DeadlineReached, TimerPurpose},
};

use super::{
    FulfilmentStatus, cancel,
    decision::{Decision, KEPT},
    settle::{Arrived, settle},
};

/// Takes in a deadline.
pub(super) fn reached(d: &mut Decision<'_>, it: &DeadlineReached) {
    let timer = d.order().timers.iter().find(|timer| timer.timer_id == it.timer_id && timer.revision == it.revision);
    let Some(purpose) = timer.map(|timer| timer.purpose) else { return };
    match purpose {
        TimerPurpose::PaymentDue => payment_due(d, it),
        TimerPurpose::DespatchDue => despatch_due(d, it),
        _ => hold_due(d, it),
    }
}

/// An order that was not paid for in time is cancelled.
fn payment_due(d: &mut Decision<'_>, it: &DeadlineReached) {
    d.passed(&it.timer_id, "the payment has not come", None);
    if !d.order().accepted || d.order().cancelled {
        return;
    }
    let waiting = |reason| matches!(reason, HoldReason::AwaitingPayment | HoldReason::PaymentFailed);
    d.resolve("expired", KEPT, |hold| waiting(hold.reason));
    let open: Vec<(i32, i64)> =
        d.order().lines.iter().map(|line| (line.line_no, line.open())).filter(|it| it.1 > 0).collect();
    cancel::cancel(d, true, &open, "payment not received", KEPT);
    settle(d, Arrived::Cancelled);
}

/// A hold is overdue; it stays, and whether what it waits for is there is looked at again and again.
fn hold_due(d: &mut Decision<'_>, it: &DeadlineReached) {
    let hold = d.order().holds.iter().find(|hold| hold.hold_id == it.timer_id).map(|hold| hold.reason);
    let what = hold.map_or("a hold".to_owned(), |reason| reason.as_str().replace('_', " "));
    let next = d.after(d.policy().hold_due_seconds);
    d.passed(&it.timer_id, format!("held for {what} and overdue"), Some(next));
    settle(d, Arrived::Stock);
}

/// A location has not shipped in time, or has not answered whether it will. It is asked about until it does.
fn despatch_due(d: &mut Decision<'_>, it: &DeadlineReached) {
    let found = d.order().fulfilments.iter().find(|known| known.fulfilment_id == it.timer_id);
    let Some((location_id, status, late)) = found.map(|it| (it.location_id.clone(), it.status, it.late)) else {
        return d.passed(&it.timer_id, "a despatch is overdue", None);
    };
    let next = Some(d.after(d.policy().despatch_due_seconds));
    if status == FulfilmentStatus::Withdrawing {
        return d.passed(&it.timer_id, format!("{location_id} has not said whether it ships"), next);
    }
    d.passed(&it.timer_id, format!("{location_id} has not shipped in time"), next);
    // The customer is told once; the rest is for us to see.
    if !late {
        d.notify(NotificationPurpose::OrderDelayed, &it.timer_id, None);
    }
}
