//! Facts about an order's money. Each counts once, by its kind and the provider's id; what does not fit is recorded
//! and becomes a hold.

use kept_schemas::{
    events::{NoteKind, OrderPaid},
    inbound::HoldReason,
    inputs::{PaymentKind, PaymentReceived},
    order::PaymentTerms,
};

use super::{
    books,
    decision::Decision,
    fold::{MAX_PAYMENTS, seen_key},
    money,
    settle::{Arrived, refuse, settle},
};

/// Amounts up to this are money (a hundred million million); more is a mistake, and must not be added up.
const MAX_AMOUNT: i64 = 10_000_000_000_000_000;

/// Takes in a fact about money.
pub(super) fn received(d: &mut Decision<'_>, it: &PaymentReceived) {
    if it.kind == PaymentKind::Unknown {
        return refuse(d, "a payment fact of a kind this version does not know");
    }
    let order = d.order();
    let key = seen_key(currency(d, it), &it.currency, it.kind, &it.payment_id);
    match order.payment.seen.get(&key) {
        Some(&amount) if amount == it.amount_minor => {
            return d.note(NoteKind::Duplicate, &it.payment_id, "the same payment fact came again", Vec::new());
        }
        Some(_) => {
            let detail = format!("{} {} came again with another amount", words(it.kind), cut(&it.payment_id));
            d.note(NoteKind::Duplicate, &it.payment_id, detail.clone(), Vec::new());
            d.hold(HoldReason::MoneyMismatch, None, detail);
            return settle(d, Arrived::Stock);
        }
        None if order.payment.seen.len() >= MAX_PAYMENTS => {
            let detail = format!("more than {MAX_PAYMENTS} payment facts; this one is not counted");
            d.note(NoteKind::Refused, &it.payment_id, detail.clone(), Vec::new());
            d.hold(HoldReason::MoneyMismatch, None, detail);
            return settle(d, Arrived::Stock);
        }
        None => d.not_understood(&it.not_understood),
    }
    if !(0..=MAX_AMOUNT).contains(&it.amount_minor) {
        d.note(NoteKind::Refused, &it.payment_id, "a payment fact whose amount cannot be", Vec::new());
        d.hold(HoldReason::MoneyMismatch, None, format!("{}: the amount cannot be", words(it.kind)));
        return settle(d, Arrived::Stock);
    }
    take(d, it.kind, &it.payment_id, it.amount_minor, &it.currency);
    settle(d, Arrived::Stock);
}

/// What the order said of its own payment, and what came before it did: now it is known what for.
pub(super) fn with_order(d: &mut Decision<'_>, terms: &PaymentTerms) {
    let before: Vec<(PaymentKind, String, i64)> = (d.order().payment.seen.iter())
        .filter_map(|(key, amount)| {
            let (kind, id) = key.split_once(' ')?;
            Some((PaymentKind::of(kind), id.to_owned(), *amount))
        })
        .collect();
    for (kind, id, amount) in &before {
        books::money_moved(d, *kind, id, *amount);
    }
    let id = terms.reference.as_deref().unwrap_or("order");
    let stated = [(PaymentKind::Authorised, terms.authorised_minor), (PaymentKind::Captured, terms.captured_minor)];
    for (kind, amount) in stated {
        let known = before.iter().any(|it| it.0 == kind && it.1 == id);
        if !known && (1..=MAX_AMOUNT).contains(&amount) {
            let currency = d.order().currency.clone();
            take(d, kind, id, amount, &currency);
        }
    }
    check(d);
}

/// The currency amounts are added up in: the order's, or before it came that of the first fact.
fn currency<'a>(d: &'a Decision<'_>, it: &'a PaymentReceived) -> &'a str {
    match d.order().currency.as_str() {
        "" => &it.currency,
        known => known,
    }
}

/// Adds a fact up, posts it, and gathers the holds it asks for.
pub(super) fn take(d: &mut Decision<'_>, kind: PaymentKind, payment_id: &str, amount: i64, currency: &str) {
    let order = d.order();
    let ours = order.currency.is_empty() || order.currency == currency;
    let mut after = order.payment.clone();
    let total = match kind {
        PaymentKind::Authorised => Some(&mut after.authorised_minor),
        PaymentKind::Captured => Some(&mut after.captured_minor),
        PaymentKind::Refunded | PaymentKind::ChargedBack => Some(&mut after.refunded_minor),
        _ => None,
    };
    if let Some(total) = total.filter(|_| ours) {
        *total = total.saturating_add(amount);
    }
    let failed = matches!(kind, PaymentKind::Failed | PaymentKind::Cancelled);
    after.failed = ours && failed || after.failed && !matches!(kind, PaymentKind::Authorised | PaymentKind::Captured);
    let (order_id, seq, at) = d.stamp();
    d.say(OrderPaid {
        order_id,
        seq,
        at,
        state: money::state(order, &after),
        authorised_minor: after.authorised_minor,
        captured_minor: after.captured_minor,
        refunded_minor: after.refunded_minor,
        payment_id: payment_id.to_owned(),
        kind,
        amount_minor: amount,
        currency: currency.to_owned(),
    });
    if !ours {
        let order = &d.order().currency;
        let detail = format!("{} in {}, but the order is in {order}", words(kind), cut(currency));
        return d.hold(HoldReason::MoneyMismatch, None, detail);
    }
    // Before the order is here nobody knows whether it is a trial, and what it costs.
    if d.order().accepted {
        books::money_moved(d, kind, payment_id, amount);
        check(d);
    }
    if kind == PaymentKind::ChargedBack {
        let detail = format!("{} was charged back", money::plain(amount, currency));
        d.hold(HoldReason::MoneyMismatch, None, detail);
    }
}

/// What the totals of an accepted order say.
pub(super) fn check(d: &mut Decision<'_>) {
    let order = d.order();
    let payment = &order.payment;
    let plain = |minor| money::plain(minor, &order.currency);
    if payment.refunded_minor > payment.captured_minor {
        let detail =
            format!("{} went back, but only {} came", plain(payment.refunded_minor), plain(payment.captured_minor));
        return d.hold(HoldReason::MoneyMismatch, None, detail);
    }
    if money::refund_due(order) {
        let detail = format!("{} has to go back", plain(money::kept(payment) - money::due(order).max(0)));
        return d.hold(HoldReason::RefundDue, None, detail);
    }
    if money::overpaid(order) {
        let detail = format!("{} came, but the order costs {}", plain(money::kept(payment)), plain(order.total_minor));
        return d.hold(HoldReason::MoneyMismatch, None, detail);
    }
    if payment.failed && !money::satisfied(order) {
        d.hold(HoldReason::PaymentFailed, None, "the payment failed or was withdrawn");
    }
}

fn words(kind: PaymentKind) -> &'static str {
    match kind {
        PaymentKind::Authorised => "an authorisation",
        PaymentKind::Captured => "a payment",
        PaymentKind::Failed => "a failed payment",
        PaymentKind::Cancelled => "a withdrawn payment",
        PaymentKind::Refunded => "a refund",
        PaymentKind::ChargedBack => "a charge-back",
        PaymentKind::Unknown => "a payment fact",
    }
}

/// Text from outside, cut so that evidence stays short.
pub(super) fn cut(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
