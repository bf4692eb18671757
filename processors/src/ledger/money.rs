//! What is due and what came, in minor units. Whole numbers only; a share of a line is rounded once, from the line's
//! start, so that the shares of all its units are exactly its total.

use kept_schemas::{
    events::PaymentState,
    order::PaymentMethod,
    values::{currency_decimals, round_to},
};

use super::{LineState, OrderState, PaymentTotals, fold::sum};

/// What `units` of a line cost, counted from its first unit; never more than the line. A line without units has no
/// shares: what it costs goes with the charges.
pub(super) fn share_up_to(line: &LineState, units: i64) -> i64 {
    if line.quantity <= 0 {
        return 0;
    }
    let units = units.clamp(0, line.quantity);
    if units == line.quantity {
        return line.line_total_minor;
    }
    let product = i128::from(line.line_total_minor) * i128::from(units);
    let (quantity, half) = (i128::from(line.quantity), i128::from(line.quantity) / 2);
    let rounded = if product >= 0 { (product + half) / quantity } else { (product - half) / quantity };
    i64::try_from(rounded).unwrap_or(line.line_total_minor)
}

/// What the customer owes for all that is not cancelled.
pub(super) fn due(order: &OrderState) -> i64 {
    let nothing_left = order.lines.iter().all(|line| line.open() <= 0 && line.shipped == 0);
    if order.cancelled && nothing_left {
        return 0;
    }
    let lines = order.lines.iter().map(|line| match line.cancelled {
        0 => line.line_total_minor,
        // What left although it was cancelled is owed all the same.
        cancelled => share_up_to(line, (line.quantity - cancelled).max(line.shipped)),
    });
    sum(lines).saturating_add(order.charges_minor)
}

/// What came and did not go back, and what was authorised beyond it.
pub(super) fn covered(order: &OrderState) -> i64 {
    let payment = &order.payment;
    let fact = |kind: &str, id: &str| payment.seen.get(&format!("{kind} {id}")).copied();
    let authorised = payment.seen.iter().filter_map(|(key, amount)| Some((key.strip_prefix("authorised ")?, amount)));
    // A capture of an authorisation uses it up; the two bear the same id.
    let beyond = authorised.map(|(id, amount)| match (fact("cancelled", id), fact("failed", id)) {
        (None, None) => (amount - fact("captured", id).unwrap_or(0)).max(0),
        _ => 0,
    });
    kept(payment).saturating_add(sum(beyond))
}

/// What came and did not go back.
pub(super) fn kept(payment: &PaymentTotals) -> i64 {
    payment.captured_minor.saturating_sub(payment.refunded_minor)
}

/// Nothing has to come before the goods may go.
pub(super) fn satisfied(order: &OrderState) -> bool {
    free(order) || order.payment.waived || covered(order) >= due(order)
}

/// No payment is waited for at all.
fn free(order: &OrderState) -> bool {
    let later = matches!(
        order.payment.method,
        PaymentMethod::Channel | PaymentMethod::OnAccount | PaymentMethod::CashOnDelivery
    );
    order.test || later || due(order) <= 0
}

/// More was kept than is owed since something was cancelled. What a marketplace collected, it pays back itself.
pub(super) fn refund_due(order: &OrderState) -> bool {
    let due = due(order);
    order.payment.method != PaymentMethod::Channel && due < order.total_minor && kept(&order.payment) > due.max(0)
}

/// More came than the whole order costs.
pub(super) fn overpaid(order: &OrderState) -> bool {
    kept(&order.payment) > order.total_minor.max(0)
}

/// Where the order's money stands with these totals.
pub(super) fn state(order: &OrderState, payment: &PaymentTotals) -> PaymentState {
    let (captured, refunded) = (payment.captured_minor, payment.refunded_minor);
    match () {
        () if refunded > 0 && refunded >= captured => PaymentState::Refunded,
        // Before the order came nobody knows what is due.
        () if captured > 0 && (!order.accepted || kept(payment) < due(order)) => PaymentState::PartlyPaid,
        () if captured > 0 => PaymentState::Paid,
        () if order.accepted && free(order) => PaymentState::NotNeeded,
        () if payment.failed => PaymentState::Failed,
        () if payment.authorised_minor > 0 => PaymentState::Authorised,
        () => PaymentState::Open,
    }
}

/// An amount for people.
pub(super) fn plain(minor: i64, currency: &str) -> String {
    let decimals = currency_decimals(currency).unwrap_or(2);
    let whole = round_to(1, 0, decimals).unwrap_or(1).unsigned_abs();
    let (sign, minor) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    match decimals {
        0 => format!("{currency} {sign}{minor}"),
        _ => format!("{currency} {sign}{}.{:0>width$}", minor / whole, minor % whole, width = decimals as usize),
    }
}
