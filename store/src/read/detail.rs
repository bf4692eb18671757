//! An event as a sentence in a merchant's words, for the timeline. Never personal data.

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{
    events::{Hold, NoteKind, PaymentState, PostingKind},
    inputs::{LineQuantity, OutcomeKind},
    values::currency_decimals,
};

/// What the event says, in one sentence.
pub fn detail(event: &LedgerEvent) -> String {
    match event {
        LedgerEvent::Accepted(it) => {
            let ordered = total(it.order.lines.iter().map(|line| line.quantity));
            let what = format!(
                "{} of {}, {}",
                count(it.order.lines.len(), "line"),
                units(ordered),
                money(it.order.total_minor, &it.order.currency)
            );
            match it.revision {
                0 => format!("Accepted: {what}; {} claimed from stock", units(sum(&it.claimed))),
                revision => format!("Accepted again as revision {revision}: {what}"),
            }
        }
        LedgerEvent::Held(it) => format!("Held: {}", list(it.holds.iter().map(hold))),
        LedgerEvent::Unheld(it) => {
            format!(
                "No longer held: {}",
                list(it.holds.iter().map(|one| {
                    format!("{} ({}, by {})", plain(one.reason.as_str()), plain(&one.resolution), one.by)
                }))
            )
        }
        LedgerEvent::Released(_) => "Released: nothing stands in the way".into(),
        LedgerEvent::Reserved(it) => {
            let (gained, lost): (Vec<_>, Vec<_>) = it.lines.iter().partition(|line| line.quantity >= 0);
            let gained = total(gained.iter().map(|line| line.quantity));
            let lost = total(lost.iter().map(|line| line.quantity.saturating_neg()));
            match (gained, lost) {
                (gained, 0) => format!("{} more reserved", units(gained)),
                (0, lost) => format!("{} no longer reserved: the stock is not there", units(lost)),
                (gained, lost) => format!("{} more reserved, {} lost", units(gained), units(lost)),
            }
        }
        LedgerEvent::Backordered(it) => format!("Waits for stock: {}", lines(&it.lines)),
        LedgerEvent::Paid(it) => {
            let state = match it.state {
                PaymentState::Open => "nothing paid yet",
                PaymentState::Authorised => "authorised",
                PaymentState::PartlyPaid => "partly paid",
                PaymentState::Paid => "paid",
                PaymentState::Failed => "failed",
                PaymentState::Refunded => "refunded",
                PaymentState::NotNeeded => "not needed",
                PaymentState::Unknown => "in a state this version does not know",
            };
            match it.amount_minor {
                0 => format!("Payment {state}"),
                amount => format!("Payment {state}: {} {}", money(amount, &it.currency), plain(it.kind.as_str())),
            }
        }
        LedgerEvent::Cancelled(it) => {
            let what = if it.whole { "the whole order".to_owned() } else { lines(&it.lines) };
            let back = match sum(&it.given_back) {
                0 => String::new(),
                back => format!("; {} free again", units(back)),
            };
            format!("Cancelled: {what}, by {}{back}", it.by)
        }
        LedgerEvent::Completed(it) => match it.outcome.as_str() {
            "delivered" => "Complete: everything is delivered".into(),
            "cancelled" => "Complete: everything is cancelled".into(),
            other => format!("Complete: {}", plain(other)),
        },
        LedgerEvent::Noted(it) => {
            let what = match it.kind {
                NoteKind::Duplicate => "The same order came again",
                NoteKind::Alias => "The same order came by another account",
                NoteKind::BeforeOrder => "A fact came before the order",
                NoteKind::Refused => "A request was refused",
                NoteKind::Stale => "A fact that no longer matters",
                NoteKind::Deadline => "A deadline passed",
                NoteKind::Picked => "Picked",
                NoteKind::Withdrawn => "A location does not ship it any more",
                NoteKind::Declined => "A location will not ship it",
                NoteKind::Short => "A location found less than asked",
                NoteKind::CancelAsked => "A cancellation was asked for",
                NoteKind::NotUnderstood => "Fields not understood",
                NoteKind::Looked => "Looked at again, nothing changed",
                NoteKind::Unknown => "Noted",
            };
            match (it.detail.is_empty(), it.lines.is_empty()) {
                (true, true) => what.into(),
                (true, false) => format!("{what}: {}", lines(&it.lines)),
                (false, _) => format!("{what}: {}", it.detail),
            }
        }
        LedgerEvent::Revised(it) => format!("Sent back to be checked again: {}", it.why),
        LedgerEvent::Requested(it) => {
            let asked = total(it.lines.iter().map(|line| line.quantity));
            let why = it.reasons.iter().find(|reason| reason.chosen && !reason.why.is_empty());
            let why = why.map(|reason| format!(" ({})", reason.why)).unwrap_or_default();
            format!("{} was asked to ship {}{why}", it.location_id, units(asked))
        }
        LedgerEvent::Withdrawn(it) => format!("{} was asked not to ship: {}", it.location_id, plain(&it.reason)),
        LedgerEvent::Despatched(it) => {
            let by = it.carrier.as_ref().map(|carrier| format!(" with {carrier}")).unwrap_or_default();
            let unasked = sum(&it.lines).saturating_sub(sum(&it.unpinned));
            let unasked =
                if unasked > 0 { format!("; {} of them nobody had asked for", units(unasked)) } else { String::new() };
            format!(
                "{} left {} in {}{by}{unasked}",
                units(sum(&it.lines)),
                it.location_id,
                count(it.parcels.len(), "parcel")
            )
        }
        LedgerEvent::Tracked(it) => {
            let what = if it.parcel_id.is_some() { "A parcel" } else { "The shipment" };
            let code = it.carrier_code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
            match it.kind {
                OutcomeKind::Delivered => format!("{what} was delivered{code}"),
                OutcomeKind::DeliveryFailed => format!("{what} could not be delivered{code}"),
                _ => format!("{what} was scanned by the carrier{code}"),
            }
        }
        LedgerEvent::Notification(it) => {
            format!("The customer is told by {}: {}", it.medium, plain(it.purpose.as_str()))
        }
        LedgerEvent::Posting(it) => {
            let kind = match it.kind {
                PostingKind::Sale => "sale",
                PostingKind::Payment => "payment",
                PostingKind::Refund => "refund",
                PostingKind::Unknown => "posting",
            };
            let debit = it.entries.iter().find(|entry| entry.amount.minor > 0);
            let amount = debit.map(|entry| {
                money(total(it.entries.iter().map(|entry| entry.amount.minor.max(0))), &entry.amount.currency)
            });
            format!("Books: {kind}{}", amount.map(|amount| format!(" of {amount}")).unwrap_or_default())
        }
        LedgerEvent::Stock(it) => format!("Stock of {} at {}: {}", it.sku, it.location_id, plain(&it.movement)),
        LedgerEvent::Woken(it) => format!("Looked at again: stock of {} came free", it.sku),
    }
}

/// A sum for people; what does not fit stays at the largest number.
fn total(numbers: impl Iterator<Item = i64>) -> i64 {
    numbers.fold(0, i64::saturating_add)
}

fn hold(hold: &Hold) -> String {
    let line = hold.line_no.map(|line| format!(", line {line}")).unwrap_or_default();
    match hold.detail.is_empty() {
        true => format!("{}{line}", plain(hold.reason.as_str())),
        false => format!("{}{line} ({})", plain(hold.reason.as_str()), hold.detail),
    }
}

fn plain(word: &str) -> String {
    word.replace('_', " ")
}

fn sum(lines: &[LineQuantity]) -> i64 {
    total(lines.iter().map(|line| line.quantity))
}

fn units(number: i64) -> String {
    if number == 1 { "1 unit".into() } else { format!("{number} units") }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn lines(lines: &[LineQuantity]) -> String {
    list(lines.iter().map(|line| format!("{} of line {}", line.quantity, line.line_no)))
}

/// The first few, and how many more.
fn list(parts: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 6;
    let parts: Vec<String> = parts.collect();
    match parts.len() {
        0 => "nothing named".into(),
        all if all > SHOWN => format!("{} and {} more", parts[..SHOWN].join(", "), all - SHOWN),
        _ => parts.join(", "),
    }
}

fn money(minor: i64, currency: &str) -> String {
    let decimals = currency_decimals(currency).unwrap_or(2) as usize;
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let sign = if minor < 0 { "-" } else { "" };
    let point = if decimals == 0 { "" } else { "." };
    format!("{currency} {sign}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kept_schemas::{
        Order, OrderLine,
        events::{
            OrderAccepted, OrderCancelled, OrderHeld, OrderNoted, OrderReserved, PostingEntry, PostingRequested,
            ShipmentDespatched,
        },
        inbound::HoldReason,
        inputs::Parcel,
        values::Money,
    };

    #[test]
    fn an_event_reads_as_a_merchant_would_say_it() {
        let of = |line_no, quantity| LineQuantity { line_no, quantity };
        let order = Order {
            currency: "EUR".into(),
            total_minor: 1205,
            lines: vec![OrderLine { quantity: 3, ..Default::default() }],
            ..Default::default()
        };
        let held =
            Hold { reason: HoldReason::OutOfStock, line_no: Some(2), detail: "1 missing".into(), ..Default::default() };
        let entry = |minor| PostingEntry { account: "x".into(), amount: Money { minor, currency: "EUR".into() } };
        let cases: Vec<(LedgerEvent, &str)> = vec![
            (
                OrderAccepted { order: order.clone(), claimed: vec![of(1, 1)], ..Default::default() }.into(),
                "Accepted: 1 line of 3 units, EUR 12.05; 1 unit claimed from stock",
            ),
            (
                OrderAccepted { order, revision: 2, ..Default::default() }.into(),
                "Accepted again as revision 2: 1 line of 3 units, EUR 12.05",
            ),
            (
                OrderNoted {
                    kind: NoteKind::NotUnderstood,
                    detail: "/gift, /lines/0/colour".into(),
                    ..Default::default()
                }
                .into(),
                "Fields not understood: /gift, /lines/0/colour",
            ),
            (OrderHeld { holds: vec![held], ..Default::default() }.into(), "Held: out of stock, line 2 (1 missing)"),
            (
                OrderReserved { lines: vec![of(1, 2), of(2, -1)], ..Default::default() }.into(),
                "2 units more reserved, 1 unit lost",
            ),
            (
                OrderCancelled { whole: true, given_back: vec![of(1, 2)], by: "shop".into(), ..Default::default() }
                    .into(),
                "Cancelled: the whole order, by shop; 2 units free again",
            ),
            (
                ShipmentDespatched {
                    location_id: "north".into(),
                    carrier: Some("PostNL".into()),
                    lines: vec![of(1, 3)],
                    unpinned: vec![of(1, 2)],
                    parcels: vec![Parcel::default(), Parcel::default()],
                    ..Default::default()
                }
                .into(),
                "3 units left north in 2 parcels with PostNL; 1 unit of them nobody had asked for",
            ),
            (
                PostingRequested {
                    kind: PostingKind::Sale,
                    entries: vec![entry(700), entry(-500), entry(-200)],
                    ..Default::default()
                }
                .into(),
                "Books: sale of EUR 7.00",
            ),
        ];
        for (event, text) in cases {
            assert_eq!(detail(&event), text);
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let holds = vec![Hold { reason: HoldReason::UnknownSku, ..Default::default() }; 9];
        assert!(detail(&OrderHeld { holds, ..Default::default() }.into()).ends_with("unknown sku and 3 more"));
    }
}
