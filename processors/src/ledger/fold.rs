//! What each event means for what is remembered. State is the fold of the events and of nothing else: so nothing in
//! here looks at a clock, at reference data or at what caused the event.

use std::collections::BTreeMap;

use kept_schemas::{
    Micros,
    events::{
        FulfilmentRequested, FulfilmentWithdrawn, Hold, NoteKind, OrderAccepted, OrderCancelled, OrderHeld, OrderNoted,
        OrderPaid, OrderUnheld, PostingKind, PostingRequested, ShipmentDespatched, ShipmentTracked, StockChanged,
    },
    inbound::{Enrichment, HoldReason},
    inputs::{LineQuantity, OutcomeKind, PaymentKind, TimerPurpose},
    order::MAX_LINES,
};

use super::{
    CancelAsked, Content, Facts, FulfilmentState, FulfilmentStatus, LedgerEvent, LineState, OrderState, ShipmentState,
    Sku, StockKey, Timer,
};

/// How a hold was resolved when a person said to go on without what it asks for.
pub(super) const RELEASED: &str = "released";

/// Payment facts an order takes in; nobody pays a thousand times.
pub(super) const MAX_PAYMENTS: usize = 1_000;

type Claims = BTreeMap<Sku, i64>;

/// Takes an event into the facts.
pub fn fold(facts: &mut Facts, event: &LedgerEvent) {
    let Some((order_id, seq)) = event.place() else {
        if let LedgerEvent::Stock(it) = event {
            stock(facts, it);
        }
        return;
    };
    let Facts { orders, contents, claims, .. } = facts;
    let order = orders.entry(order_id).or_insert_with(|| OrderState { order_id, ..OrderState::default() });
    order.seq = seq;
    match event {
        LedgerEvent::Accepted(it) => {
            accepted(order, claims, it);
            let content =
                Content { order: it.order.clone(), enrichment: it.enrichment.clone(), party: it.party.clone() };
            contents.insert(order_id, content);
        }
        LedgerEvent::Revised(it) => {
            order.revision = it.revision;
            let content = contents.entry(order_id).or_default();
            content.order = it.order.clone();
            content.party = it.party.clone();
        }
        LedgerEvent::Held(it) => held(order, it),
        LedgerEvent::Unheld(it) => unheld(order, it),
        LedgerEvent::Released(_) => order.released = true,
        LedgerEvent::Reserved(it) => {
            for change in &it.lines {
                claim(order, claims, change.line_no, change.quantity);
            }
        }
        LedgerEvent::Paid(it) => paid(order, it),
        LedgerEvent::Cancelled(it) => cancelled(order, claims, it),
        LedgerEvent::Completed(it) => {
            order.charges_posted |= it.outcome == "delivered";
            order.completed = Some(it.outcome.clone());
        }
        LedgerEvent::Noted(it) => noted(order, claims, it),
        LedgerEvent::Requested(it) => requested(order, claims, it),
        LedgerEvent::Withdrawn(it) => withdrawn(order, it),
        LedgerEvent::Despatched(it) => despatched(order, it),
        LedgerEvent::Tracked(it) => tracked(order, it),
        LedgerEvent::Posting(it) => posted(order, it),
        LedgerEvent::Backordered(_) | LedgerEvent::Notification(_) | LedgerEvent::Stock(_) | LedgerEvent::Woken(_) => {}
    }
}

fn stock(facts: &mut Facts, it: &StockChanged) {
    let key = StockKey { sku: it.sku.clone(), location_id: it.location_id.clone(), condition: it.condition };
    let row = facts.stock.entry(key).or_default();
    if it.version > row.version {
        row.on_hand = it.on_hand;
        row.reserved = it.reserved;
        row.picked = it.picked;
        row.unbacked = it.unbacked;
        row.version = it.version;
    }
}

fn accepted(order: &mut OrderState, claims: &mut Claims, it: &OrderAccepted) {
    let first = !order.accepted;
    if first {
        order.accepted = true;
        order.accepted_at = it.at;
        if !order.currency.is_empty() && order.currency != it.order.currency {
            other_currency(order, &it.order.currency);
        }
    }
    order.order_no = it.order_no;
    order.revision = order.revision.max(it.revision);
    order.checked = it.revision;
    order.channel.clone_from(&it.order.channel);
    order.account.clone_from(&it.order.account);
    order.placed_at = it.order.placed_at;
    order.body_hash.clone_from(&it.body_hash);
    order.currency.clone_from(&it.order.currency);
    order.test = it.order.test;
    order.payment.method = it.order.payment.method;
    order.charges_minor = sum(it.order.charges.iter().map(|charge| charge.amount_minor));
    let shipping = it.order.charges.iter().filter(|charge| charge.kind == kept_schemas::order::ChargeKind::Shipping);
    order.shipping_minor = sum(shipping.map(|charge| charge.amount_minor));
    let before = std::mem::take(&mut order.lines);
    order.lines = lines(it, &before);
    order.total_minor = sum(order.lines.iter().map(|line| line.line_total_minor)).saturating_add(order.charges_minor);
    if first {
        for shipment in &order.shipments {
            for &(line_no, units) in &shipment.lines {
                if let Some(line) = line_of(&mut order.lines, line_no) {
                    line.shipped += units;
                }
            }
        }
        order.charges_posted = order.shipments.iter().any(|shipment| !shipment.lines.is_empty());
        // Of a cancellation that came before, what names nothing that is here is void; a whole one is still to be done.
        let whole = order.cancel_asked.as_ref().is_some_and(|asked| asked.whole);
        if !whole || order.lines.iter().any(|line| line.shipped > 0) {
            forget_asked(order);
        }
    }
    for claimed in &it.claimed {
        claim(order, claims, claimed.line_no, claimed.quantity);
    }
}

/// Money came before the order, in another currency first: only what is in the order's own counts.
fn other_currency(order: &mut OrderState, currency: &str) {
    let payment = &mut order.payment;
    let (mut authorised, mut captured, mut refunded) = (0, 0, 0);
    let seen = std::mem::take(&mut payment.seen);
    let prefix = format!("{currency}/");
    for (key, amount) in seen {
        let Some(ours) = key.strip_prefix(&prefix) else {
            let foreign = if key.contains('/') { key } else { format!("{}/{key}", order.currency) };
            payment.seen.insert(foreign, amount);
            continue;
        };
        let kind = ours.split_once(' ').map_or(PaymentKind::Unknown, |it| PaymentKind::of(it.0));
        let total = match kind {
            PaymentKind::Authorised => &mut authorised,
            PaymentKind::Captured => &mut captured,
            PaymentKind::Refunded | PaymentKind::ChargedBack => &mut refunded,
            _ => &mut 0,
        };
        *total = i64::saturating_add(*total, amount);
        payment.seen.insert(ours.to_owned(), amount);
    }
    (payment.authorised_minor, payment.captured_minor, payment.refunded_minor) = (authorised, captured, refunded);
}

/// Lines as they are now, with the counters of those that were there before.
fn lines(it: &OrderAccepted, before: &[LineState]) -> Vec<LineState> {
    let numbered = numbered(it.order.lines.iter().map(|line| line.line_no));
    let lines = it.order.lines.iter().enumerate().map(|(index, line)| {
        let reference = line_facts(&it.enrichment, index, line.line_no);
        let old = line_at(before, line.line_no).cloned().unwrap_or_default();
        LineState {
            line_no: line.line_no,
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price,
            line_total_minor: line.line_total_minor,
            unit_weight_grams: reference.and_then(|it| it.weight_grams),
            known: numbered && reference.is_some_and(|it| it.known),
            ..old
        }
    });
    lines.collect()
}

/// Lines are numbered from 1, dense, and there are not too many. Nothing is claimed for an order of another form.
pub(super) fn numbered(numbers: impl ExactSizeIterator<Item = i32>) -> bool {
    numbers.len() <= MAX_LINES && numbers.zip(1..).all(|(number, expected)| number == expected)
}

/// What reference data says of a line, which is nearly always at the same index.
pub(super) fn line_facts(
    enrichment: &Enrichment,
    index: usize,
    line_no: i32,
) -> Option<&kept_schemas::inbound::LineFacts> {
    let at_index = enrichment.lines.get(index).filter(|it| it.line_no == line_no);
    at_index.or_else(|| enrichment.lines.iter().find(|it| it.line_no == line_no))
}

/// The line of a number.
pub(super) fn line_at(lines: &[LineState], line_no: i32) -> Option<&LineState> {
    let index = usize::try_from(line_no).ok()?.checked_sub(1)?;
    let at_index = lines.get(index).filter(|line| line.line_no == line_no);
    at_index.or_else(|| lines.iter().find(|line| line.line_no == line_no))
}

fn line_of(lines: &mut [LineState], line_no: i32) -> Option<&mut LineState> {
    let index = usize::try_from(line_no).ok()?.checked_sub(1)?;
    if lines.get(index).is_some_and(|line| line.line_no == line_no) {
        return lines.get_mut(index);
    }
    lines.iter_mut().find(|line| line.line_no == line_no)
}

/// A line's claim, and with it the SKU's, changes by `units`.
fn claim(order: &mut OrderState, claims: &mut Claims, line_no: i32, units: i64) {
    let Some(line) = line_of(&mut order.lines, line_no) else { return };
    line.claimed += units;
    match claims.get_mut(&line.sku) {
        Some(claimed) => *claimed += units,
        None => {
            claims.insert(line.sku.clone(), units);
        }
    }
}

fn held(order: &mut OrderState, it: &OrderHeld) {
    for hold in &it.holds {
        order.timers.push(timer_of(hold));
        order.holds.push(hold.clone());
        order.holds_ever += 1;
    }
    order.completed = None;
}

fn timer_of(hold: &Hold) -> Timer {
    let purpose = match hold.reason {
        HoldReason::AwaitingPayment => TimerPurpose::PaymentDue,
        _ => TimerPurpose::HoldDue,
    };
    Timer { timer_id: hold.hold_id.clone(), purpose, revision: 0, due_at: hold.due_at }
}

fn unheld(order: &mut OrderState, it: &OrderUnheld) {
    for resolved in &it.holds {
        order.holds.retain(|hold| hold.hold_id != resolved.hold_id);
        clear_timer(order, &resolved.hold_id);
        let payment = matches!(resolved.reason, HoldReason::AwaitingPayment | HoldReason::PaymentFailed);
        order.payment.waived |= payment && resolved.resolution == RELEASED;
    }
}

fn clear_timer(order: &mut OrderState, timer_id: &str) {
    order.timers.retain(|timer| timer.timer_id != timer_id);
}

fn paid(order: &mut OrderState, it: &OrderPaid) {
    if order.currency.is_empty() {
        order.currency.clone_from(&it.currency);
    }
    let payment = &mut order.payment;
    payment.authorised_minor = it.authorised_minor;
    payment.captured_minor = it.captured_minor;
    payment.refunded_minor = it.refunded_minor;
    payment.seen.insert(seen_key(&order.currency, &it.currency, it.kind, &it.payment_id), it.amount_minor);
    match it.kind {
        _ if it.currency != order.currency => {}
        PaymentKind::Failed | PaymentKind::Cancelled => payment.failed = true,
        PaymentKind::Authorised | PaymentKind::Captured => payment.failed = false,
        _ => {}
    }
}

/// What a payment fact is recognised by. One in another currency than the order's is kept apart.
pub(super) fn seen_key(order: &str, currency: &str, kind: PaymentKind, payment_id: &str) -> String {
    match order == currency {
        true => format!("{kind} {payment_id}"),
        false => format!("{currency}/{kind} {payment_id}"),
    }
}

fn cancelled(order: &mut OrderState, claims: &mut Claims, it: &OrderCancelled) {
    for given in &it.given_back {
        claim(order, claims, given.line_no, -given.quantity);
    }
    for gone in &it.lines {
        if let Some(line) = line_of(&mut order.lines, gone.line_no) {
            line.cancelled += gone.quantity;
        }
        lower_asked(order, gone.line_no, gone.quantity);
    }
    order.cancelled |= it.whole;
    forget_asked(order);
}

fn lower_asked(order: &mut OrderState, line_no: i32, units: i64) {
    let Some(asked) = &mut order.cancel_asked else { return };
    if let Some(line) = asked.lines.iter_mut().find(|line| line.0 == line_no) {
        line.1 -= units.min(line.1);
    }
}

/// A cancellation is done when nothing is left that it could take.
fn forget_asked(order: &mut OrderState) {
    let Some(asked) = &mut order.cancel_asked else { return };
    asked.lines.retain(|line| line.1 > 0);
    let open = |line_no: i32| line_at(&order.lines, line_no).is_some_and(|line| line.open() > 0);
    let left = match asked.whole {
        true => order.lines.iter().any(|line| line.open() > 0),
        false => asked.lines.iter().any(|line| open(line.0)),
    };
    if !left {
        order.cancel_asked = None;
    }
}

fn noted(order: &mut OrderState, claims: &mut Claims, it: &OrderNoted) {
    match it.kind {
        NoteKind::Alias => {
            order.aliases.insert(it.about.clone());
        }
        NoteKind::Deadline => passed(order, it),
        NoteKind::CancelAsked => {
            let asked = order.cancel_asked.get_or_insert_with(CancelAsked::default);
            asked.by.clone_from(&it.about);
            asked.reason.clone_from(&it.detail);
            asked.whole |= it.lines.is_empty();
            order.cancelled |= it.lines.is_empty();
            for line in &it.lines {
                match asked.lines.iter_mut().find(|known| known.0 == line.line_no) {
                    Some(known) => known.1 += line.quantity,
                    None => asked.lines.push((line.line_no, line.quantity)),
                }
            }
        }
        NoteKind::Picked => {
            let Some(at) = fulfilment_of(order, &it.about) else { return };
            for line in &it.lines {
                add(&mut order.fulfilments[at].picked, line.line_no, line.quantity);
                if let Some(state) = line_of(&mut order.lines, line.line_no) {
                    state.picked += line.quantity;
                }
            }
            let status = &mut order.fulfilments[at].status;
            if *status == FulfilmentStatus::Requested {
                *status = FulfilmentStatus::Picked;
            }
        }
        NoteKind::Short => {
            let Some(at) = fulfilment_of(order, &it.about) else { return };
            for line in &it.lines {
                // What was not picked yet is what is missing, as far as it goes.
                let picked = picked_of_missing(&order.fulfilments[at], line.line_no, line.quantity);
                end_pin(order, at, line, picked);
                claim(order, claims, line.line_no, line.quantity);
            }
        }
        NoteKind::Withdrawn | NoteKind::Declined => {
            let Some(at) = fulfilment_of(order, &it.about) else { return };
            for line in &it.lines {
                let picked = units_of(&order.fulfilments[at].picked, line.line_no);
                end_pin(order, at, line, picked);
                claim(order, claims, line.line_no, line.quantity);
            }
            order.fulfilments[at].status = match it.kind {
                NoteKind::Declined => FulfilmentStatus::Declined,
                _ => FulfilmentStatus::Closed,
            };
            clear_timer(order, &it.about);
        }
        _ => {}
    }
}

/// A timer came due: it is cleared, or set anew under a revision of its own.
fn passed(order: &mut OrderState, it: &OrderNoted) {
    let revision = order.seq;
    match (order.timers.iter_mut().find(|timer| timer.timer_id == it.about), it.due_at) {
        (Some(timer), Some(due_at)) => (timer.revision, timer.due_at) = (revision, due_at),
        (Some(_), None) => clear_timer(order, &it.about),
        (None, _) => {}
    }
    if let Some(at) = fulfilment_of(order, &it.about) {
        let fulfilment = &mut order.fulfilments[at];
        fulfilment.late |= fulfilment.status != FulfilmentStatus::Withdrawing;
    }
}

fn fulfilment_of(order: &OrderState, fulfilment_id: &str) -> Option<usize> {
    order.fulfilments.iter().position(|it| it.fulfilment_id == fulfilment_id)
}

/// Of `missing` pinned units of a line, how many had been reported picked.
pub(super) fn picked_of_missing(it: &FulfilmentState, line_no: i32, missing: i64) -> i64 {
    let (pinned, picked) = (units_of(&it.pinned, line_no), units_of(&it.picked, line_no));
    (missing - (pinned - picked)).max(0)
}

/// Units of a line in a list of (line, units).
pub(super) fn units_of(list: &[(i32, i64)], line_no: i32) -> i64 {
    list.iter().find(|it| it.0 == line_no).map_or(0, |it| it.1)
}

fn add(list: &mut Vec<(i32, i64)>, line_no: i32, units: i64) {
    match list.iter_mut().find(|it| it.0 == line_no) {
        Some(it) => it.1 += units,
        None => list.push((line_no, units)),
    }
    list.retain(|it| it.1 != 0);
}

/// Units of a line are no longer pinned by a fulfilment order; `picked` of them were picked.
fn end_pin(order: &mut OrderState, at: usize, line: &LineQuantity, picked: i64) {
    let fulfilment = &mut order.fulfilments[at];
    add(&mut fulfilment.pinned, line.line_no, -line.quantity);
    if picked != 0 {
        add(&mut fulfilment.picked, line.line_no, -picked);
    }
    if let Some(state) = line_of(&mut order.lines, line.line_no) {
        state.pinned -= line.quantity;
        state.picked -= picked;
    }
}

fn requested(order: &mut OrderState, claims: &mut Claims, it: &FulfilmentRequested) {
    let mut pinned = Vec::with_capacity(it.lines.len());
    for line in &it.lines {
        claim(order, claims, line.line_no, -line.quantity);
        if let Some(state) = line_of(&mut order.lines, line.line_no) {
            state.pinned += line.quantity;
        }
        pinned.push((line.line_no, line.quantity));
    }
    order.fulfilments.push(FulfilmentState {
        fulfilment_id: it.fulfilment_id.clone(),
        location_id: it.location_id.clone(),
        status: FulfilmentStatus::Requested,
        pinned,
        picked: Vec::new(),
        late: false,
    });
    set_timer(order, &it.fulfilment_id, it.due_at);
    order.completed = None;
}

fn withdrawn(order: &mut OrderState, it: &FulfilmentWithdrawn) {
    if let Some(at) = fulfilment_of(order, &it.fulfilment_id) {
        order.fulfilments[at].status = FulfilmentStatus::Withdrawing;
        set_timer(order, &it.fulfilment_id, it.due_at);
    }
}

/// A fulfilment order's timer. Each setting has a revision of its own, higher than any before it.
fn set_timer(order: &mut OrderState, fulfilment_id: &str, due_at: Micros) {
    clear_timer(order, fulfilment_id);
    let (timer_id, purpose) = (fulfilment_id.to_owned(), TimerPurpose::DespatchDue);
    order.timers.push(Timer { timer_id, purpose, revision: order.seq, due_at });
}

fn despatched(order: &mut OrderState, it: &ShipmentDespatched) {
    if let Some(at) = fulfilment_of(order, &it.fulfilment_id) {
        for line in &it.unpinned {
            let picked = units_of(&order.fulfilments[at].picked, line.line_no).min(line.quantity);
            end_pin(order, at, line, picked);
        }
        let fulfilment = &mut order.fulfilments[at];
        let open = !matches!(fulfilment.status, FulfilmentStatus::Closed | FulfilmentStatus::Declined);
        if open && fulfilment.pinned.is_empty() {
            fulfilment.status = FulfilmentStatus::Despatched;
            clear_timer(order, &it.fulfilment_id);
        }
    }
    for line in &it.lines {
        if let Some(state) = line_of(&mut order.lines, line.line_no) {
            state.shipped += line.quantity;
        }
        lower_asked(order, line.line_no, line.quantity);
    }
    let shipment = shipment_of(order, &it.shipment_id);
    for line in &it.lines {
        add(&mut shipment.lines, line.line_no, line.quantity);
    }
    for parcel in &it.parcels {
        if shipment.parcels.iter().all(|known| known.0 != parcel.parcel_id) {
            shipment.parcels.push((parcel.parcel_id.clone(), false));
            shipment.delivered = false;
        }
    }
    order.completed = None;
    if order.accepted {
        order.charges_posted |= !it.lines.is_empty();
        forget_asked(order);
    }
}

/// The shipment of an id; a scan may be here before the despatch it follows.
fn shipment_of<'a>(order: &'a mut OrderState, shipment_id: &str) -> &'a mut ShipmentState {
    let at = order.shipments.iter().position(|it| it.shipment_id == shipment_id).unwrap_or_else(|| {
        order.shipments.push(ShipmentState { shipment_id: shipment_id.to_owned(), ..ShipmentState::default() });
        order.shipments.len() - 1
    });
    &mut order.shipments[at]
}

fn tracked(order: &mut OrderState, it: &ShipmentTracked) {
    let shipment = shipment_of(order, &it.shipment_id);
    let late = it.tracked_at < shipment.tracked_at;
    shipment.tracked_at = shipment.tracked_at.max(it.tracked_at);
    match it.kind {
        OutcomeKind::Delivered => {
            match &it.parcel_id {
                None => {
                    shipment.parcels.iter_mut().for_each(|parcel| parcel.1 = true);
                    shipment.delivered = true;
                }
                Some(parcel_id) => {
                    match shipment.parcels.iter_mut().find(|parcel| &parcel.0 == parcel_id) {
                        Some(parcel) => parcel.1 = true,
                        None => shipment.parcels.push((parcel_id.clone(), true)),
                    }
                    shipment.delivered = shipment.parcels.iter().all(|parcel| parcel.1);
                }
            }
            shipment.arrived |= shipment.delivered;
            shipment.failed &= late;
        }
        OutcomeKind::DeliveryFailed if !late => {
            shipment.failed = true;
            shipment.delivered = false;
            if let Some(parcel) = shipment.parcels.iter_mut().find(|parcel| Some(&parcel.0) == it.parcel_id.as_ref()) {
                parcel.1 = false;
            }
        }
        _ => {}
    }
}

fn posted(order: &mut OrderState, it: &PostingRequested) {
    if it.kind == PostingKind::Sale {
        let receivable = it.entries.iter().filter(|entry| entry.account == "receivable");
        order.posted_minor = order.posted_minor.saturating_add(sum(receivable.map(|entry| entry.amount.minor)));
    }
}

/// A sum that stops at the ends of 64 bits; whoever decides sees such amounts as implausible.
pub(super) fn sum(amounts: impl Iterator<Item = i64>) -> i64 {
    amounts.fold(0, i64::saturating_add)
}
