//! Postings for the books: money that came or went back, and what was sold, a shipment at a time. Each balances to
//! zero; its id is a function of what it is for. A trial order posts nothing.

use std::collections::BTreeMap;

use kept_schemas::{
    events::{PostingEntry, PostingKind, PostingRequested},
    ids::child,
    inputs::PaymentKind,
    values::Money,
};

use super::{OrderState, decision::Decision, fold::sum, money::share_up_to};

/// Posts a payment or, when money went back, a refund.
pub(super) fn money_moved(d: &mut Decision<'_>, kind: PaymentKind, payment_id: &str, amount: i64) {
    let (posting, amount) = match kind {
        PaymentKind::Captured => (PostingKind::Payment, amount),
        PaymentKind::Refunded | PaymentKind::ChargedBack => (PostingKind::Refund, -amount),
        _ => return,
    };
    let of = format!("{kind} {payment_id}");
    post(d, posting, &of, payment_id, &[("bank", amount), ("receivable", -amount)]);
}

/// Posts what was sold with a shipment: the share of each line that left (line, units shipped before it, units in it),
/// and with the `first` all charges.
pub(super) fn sold(d: &mut Decision<'_>, shipment_id: &str, left: &[(i32, i64, i64)], first: bool) {
    let order = d.order();
    let shares = left.iter().filter_map(|&(line_no, before, units)| {
        let line = super::fold::line_at(&order.lines, line_no)?;
        let before_it = if before == 0 { 0 } else { share_up_to(line, before) };
        Some(share_up_to(line, before + units) - before_it)
    });
    let goods = sum(shares);
    let (other, shipping, charges) = if first { charges(order) } else { (0, 0, 0) };
    post_sale(d, shipment_id, goods.saturating_add(other), shipping, charges);
}

/// Posts what left before the order was on our books, shipment by shipment.
pub(super) fn sold_before(d: &mut Decision<'_>) {
    let mut shipped: BTreeMap<i32, i64> = BTreeMap::new();
    let shipments: Vec<(String, Vec<(i32, i64)>)> =
        d.order().shipments.iter().map(|it| (it.shipment_id.clone(), it.lines.clone())).collect();
    let mut first = true;
    for (shipment_id, lines) in shipments.into_iter().filter(|it| !it.1.is_empty()) {
        let left: Vec<(i32, i64, i64)> = (lines.into_iter())
            .map(|(line_no, units)| {
                let sum = shipped.entry(line_no).or_default();
                let before = *sum;
                *sum += units;
                (line_no, before, units)
            })
            .collect();
        sold(d, &shipment_id, &left, first);
        first = false;
    }
}

/// Posts the charges of an order that has nothing to ship, once it is complete.
pub(super) fn charges_without_goods(d: &mut Decision<'_>) {
    let order = d.order();
    if !order.charges_posted {
        let (goods, shipping, charges) = charges(order);
        post_sale(d, "no_goods", goods, shipping, charges);
    }
}

/// What no unit stands for: lines without units, shipping, other charges.
fn charges(order: &OrderState) -> (i64, i64, i64) {
    let without_units = order.lines.iter().filter(|line| line.quantity <= 0);
    let goods = sum(without_units.map(|line| line.line_total_minor));
    (goods, order.shipping_minor, order.charges_minor.saturating_sub(order.shipping_minor))
}

fn post_sale(d: &mut Decision<'_>, of: &str, goods: i64, shipping: i64, charges: i64) {
    let owed = sum([goods, shipping, charges].into_iter());
    let entries = [("receivable", owed), ("revenue", -goods), ("shipping", -shipping), ("charges", -charges)];
    post(d, PostingKind::Sale, of, of, &entries);
}

fn post(d: &mut Decision<'_>, kind: PostingKind, of: &str, cause: &str, entries: &[(&str, i64)]) {
    let order = d.order();
    let entries: Vec<PostingEntry> = entries
        .iter()
        .filter(|(_, minor)| *minor != 0)
        .map(|&(account, minor)| PostingEntry {
            account: account.to_owned(),
            amount: Money { minor, currency: order.currency.clone() },
        })
        .collect();
    if order.test || entries.is_empty() {
        return;
    }
    let (order_id, seq, at) = d.stamp();
    let id = child("posting", order_id, &[kind.as_str().as_bytes(), of.as_bytes()]);
    d.say(PostingRequested { order_id, seq, at, posting_id: id.to_string(), kind, entries, cause: cause.to_owned() });
}
