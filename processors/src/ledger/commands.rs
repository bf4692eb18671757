//! What people and programs ask for. What cannot be done is refused with the reason, as a note in the order's history.

use kept_schemas::{
    events::NoteKind,
    inbound::{HoldReason, OrderRevised},
    inputs::{CommandKind, CommandReceived, LineQuantity},
    order::{Address, Party},
};

use super::{
    FulfilmentStatus, OrderState, cancel,
    decision::Decision,
    fold::{RELEASED, line_at, units_of},
    outcomes::per_line,
    settle::{Arrived, refuse, settle},
};
use crate::sound::sound;

/// Takes in a command.
pub(super) fn received(d: &mut Decision<'_>, it: &CommandReceived) {
    d.not_understood(&it.not_understood);
    match it.kind {
        CommandKind::Cancel => cancel(d, it),
        CommandKind::Release => release(d, it),
        CommandKind::Hold => hold(d, it),
        CommandKind::CorrectAddress => correct_address(d, it),
        CommandKind::Recheck => recheck(d, it),
        CommandKind::Unknown => refuse(d, "a command this version does not know"),
    }
}

fn cancel(d: &mut Decision<'_>, it: &CommandReceived) {
    let reason = words(it, "asked for");
    let asked = per_line(&it.lines);
    if !it.lines.is_empty() && asked.is_empty() {
        return refuse(d, "cancel: no line with a quantity is named");
    }
    let order = d.order();
    let whole = it.lines.is_empty();
    if !order.accepted {
        let lines = asked.iter().map(|&(line_no, quantity)| LineQuantity { line_no, quantity }).collect();
        d.note(NoteKind::CancelAsked, &it.by, reason, lines);
        return settle(d, Arrived::Cancelled);
    }
    let waiting = |line_no: i32| order.cancel_asked.as_ref().map_or(0, |asked| units_of(&asked.lines, line_no));
    let open = |line_no: i32| line_at(&order.lines, line_no).map_or(0, |line| line.open() - waiting(line_no)).max(0);
    let wanted: Vec<(i32, i64)> = match whole {
        true => order.lines.iter().map(|line| (line.line_no, open(line.line_no))).filter(|it| it.1 > 0).collect(),
        false => asked.iter().map(|&(no, units)| (no, units.min(open(no)))).filter(|it| it.1 > 0).collect(),
    };
    let empty = order.lines.iter().all(|line| line.quantity <= 0) && order.completed.is_none();
    if order.cancelled && (whole || wanted.is_empty()) {
        return refuse(d, "cancel: it is cancelled already, or about to be");
    }
    if wanted.is_empty() && !(whole && empty) {
        return refuse(d, why_not(order, &asked));
    }
    cancel::cancel(d, whole, &wanted, &reason, &it.by);
    settle(d, Arrived::Cancelled);
}

fn why_not(order: &OrderState, asked: &[(i32, i64)]) -> String {
    let unknown = asked.iter().find(|it| line_at(&order.lines, it.0).is_none());
    match unknown {
        Some((line_no, _)) => format!("cancel: the order has no line {line_no}"),
        None if order.lines.iter().any(|line| line.shipped > 0) => "cancel: it has left already".into(),
        None => "cancel: nothing of it is left to cancel".into(),
    }
}

/// Goes on as if a hold were not there; but goods that are missing and products nobody knows cannot be shipped.
fn release(d: &mut Decision<'_>, it: &CommandReceived) {
    let asked = it.reason.as_deref().map(HoldReason::of);
    let named = |hold: &kept_schemas::events::Hold| match (&it.hold_id, asked) {
        (Some(hold_id), _) => hold.hold_id == *hold_id,
        (None, Some(reason)) => hold.reason == reason,
        (None, None) => false,
    };
    if it.hold_id.is_none() && asked.is_none_or(|reason| reason == HoldReason::Unknown) {
        return refuse(d, "release: no hold and no reason for holds is named");
    }
    let Some(hold) = d.open_holds().find(|hold| named(hold)) else {
        return refuse(d, "release: no such hold is open");
    };
    match hold.reason {
        HoldReason::OutOfStock | HoldReason::ShortPick => {
            refuse(d, "release: the goods are not there; wait for stock, or cancel what is missing")
        }
        HoldReason::UnknownSku => {
            refuse(d, "release: the product is not known; add it and check the order again, or cancel its line")
        }
        _ => {
            d.resolve(RELEASED, &it.by, named);
            settle(d, Arrived::Stock);
        }
    }
}

/// Stops an order: what a location was asked for already is withdrawn.
fn hold(d: &mut Decision<'_>, it: &CommandReceived) {
    if d.holds(HoldReason::Manual) {
        return refuse(d, "hold: it is on hold by hand already");
    }
    if d.order().completed.is_some() {
        return refuse(d, "hold: nothing is left to do for the order");
    }
    d.hold(HoldReason::Manual, None, words(it, "by hand"));
    d.say_holds();
    cancel::withdraw(d, "on hold", |_, _| true);
    settle(d, Arrived::Stock);
}

fn correct_address(d: &mut Decision<'_>, it: &CommandReceived) {
    if it.party.ship_to == Address::default() {
        return refuse(d, "correct address: there is no address in it");
    }
    let Some(party) = d.content().map(|content| &content.party) else {
        return refuse(d, "correct address: the order is not here yet");
    };
    let given = it.party.clone();
    let party = Party {
        ship_to: given.ship_to,
        bill_to: given.bill_to.or_else(|| party.bill_to.clone()),
        email: given.email.or_else(|| party.email.clone()),
        phone: given.phone.or_else(|| party.phone.clone()),
    };
    revise(d, "correct address", party, "the address was corrected");
}

fn recheck(d: &mut Decision<'_>, _: &CommandReceived) {
    match d.content().map(|content| content.party.clone()) {
        Some(party) => revise(d, "check again", party, "asked for"),
        None => refuse(d, "check again: the order is not here yet"),
    }
}

/// Sends the order back to its checks, as long as nobody acts on what it says now.
fn revise(d: &mut Decision<'_>, command: &str, party: Party, why: &str) {
    let order = d.order();
    if !order.accepted {
        return refuse(d, format!("{command}: the order is not here yet"));
    }
    if order.cancelled || order.completed.is_some() {
        return refuse(d, format!("{command}: nothing is left to do for the order"));
    }
    let asked = |status| !matches!(status, FulfilmentStatus::Closed | FulfilmentStatus::Declined);
    if order.fulfilments.iter().any(|it| asked(it.status)) || order.lines.iter().any(|line| line.shipped > 0) {
        return refuse(d, format!("{command}: a location was asked to ship it already"));
    }
    let Some(mut content) = d.content().map(|content| content.order.clone()) else { return };
    if !party.ship_to.country.is_empty() {
        content.country.clone_from(&party.ship_to.country);
    }
    // Its checks would make a dead letter of it, and the order would wait for them without an end.
    if let Err(why) = sound(&content, &party) {
        return refuse(d, format!("{command}: {why}"));
    }
    let revision = order.revision + 1;
    let (order_id, seq, at) = d.stamp();
    d.say(OrderRevised { order_id, seq, at, revision, why: why.to_owned(), order: content, party });
}

/// The asker's own words, cut.
fn words(it: &CommandReceived, otherwise: &str) -> String {
    const LONGEST: usize = 200;
    match it.reason.as_deref() {
        None | Some("") => otherwise.to_owned(),
        Some(reason) => reason.chars().take(LONGEST).collect(),
    }
}
