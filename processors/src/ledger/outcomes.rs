//! What warehouses and carriers report. A fact from the world is always recorded, even when it breaks a rule of ours;
//! the rule then opens a hold.

use kept_schemas::{
    events::{NoteKind, NotificationPurpose, ShipmentDespatched, ShipmentTracked},
    ids::child,
    inbound::HoldReason,
    inputs::{LineQuantity, OutcomeKind, OutcomeReceived},
};

use super::{
    FulfilmentState, FulfilmentStatus, books,
    decision::{Decision, KEPT},
    fold::{line_at, picked_of_missing, units_of},
    payments::cut,
    settle::{self, Arrived, evidence, missing, settle},
};

/// No line has more units than this leave in one parcel run; a larger number is a mistake, and must not be added up.
const MAX_UNITS: i64 = 1_000_000_000;

/// (line, units).
type Lines = Vec<(i32, i64)>;

/// The most parcels one report may name.
const MAX_PARCELS: usize = 1_000;

/// Takes in a report.
pub(super) fn received(d: &mut Decision<'_>, it: &OutcomeReceived) {
    match it.kind {
        OutcomeKind::Despatched => despatched(d, it),
        OutcomeKind::Tracked | OutcomeKind::Delivered | OutcomeKind::DeliveryFailed => tracked(d, it),
        OutcomeKind::Unknown => settle::refuse(d, "a report of a kind this version does not know"),
        _ if !d.order().accepted => {
            d.note(NoteKind::BeforeOrder, &it.fulfilment_id, format!("{} was reported", it.kind), Vec::new());
        }
        _ => match open_fulfilment(d, it) {
            None => {
                let detail = format!("{} was reported for work that is not open", it.kind);
                d.note(NoteKind::Stale, &it.fulfilment_id, detail, Vec::new());
            }
            Some(fulfilment) => match it.kind {
                OutcomeKind::Picked => picked(d, it, &fulfilment),
                OutcomeKind::Short => short(d, it, fulfilment),
                OutcomeKind::Withdrawn => gone(d, it, &fulfilment, fulfilment.status != FulfilmentStatus::Withdrawing),
                _ => gone(d, it, &fulfilment, true),
            },
        },
    }
}

/// Positive quantities per line, in line order.
pub(super) fn per_line(lines: &[LineQuantity]) -> Lines {
    let mut sums: std::collections::BTreeMap<i32, i64> = std::collections::BTreeMap::new();
    for line in lines.iter().filter(|line| line.quantity > 0) {
        let sum = sums.entry(line.line_no).or_default();
        *sum = sum.saturating_add(line.quantity).min(MAX_UNITS);
    }
    sums.into_iter().collect()
}

/// The fulfilment order a report answers: the one it names, or the only one that is open at its location.
fn open_fulfilment(d: &Decision<'_>, it: &OutcomeReceived) -> Option<FulfilmentState> {
    fulfilment(d, it).filter(|found| is_open(found)).cloned()
}

fn fulfilment<'a>(d: &'a Decision<'_>, it: &OutcomeReceived) -> Option<&'a FulfilmentState> {
    let mut all = d.order().fulfilments.iter();
    match it.fulfilment_id.is_empty() {
        false => all.find(|known| known.fulfilment_id == it.fulfilment_id),
        true => all.find(|known| is_open(known) && known.location_id == it.location_id),
    }
}

fn is_open(it: &FulfilmentState) -> bool {
    matches!(it.status, FulfilmentStatus::Requested | FulfilmentStatus::Picked | FulfilmentStatus::Withdrawing)
}

fn lines_of(list: &[(i32, i64)]) -> Vec<LineQuantity> {
    list.iter().map(|&(line_no, quantity)| LineQuantity { line_no, quantity }).collect()
}

/// Goods were taken from the shelf: those that are named, or all.
fn picked(d: &mut Decision<'_>, it: &OutcomeReceived, fulfilment: &FulfilmentState) {
    let named = per_line(&it.lines);
    let units: Lines = (fulfilment.pinned.iter())
        .map(|&(line_no, pinned)| {
            let left = pinned - units_of(&fulfilment.picked, line_no);
            (line_no, if it.lines.is_empty() { left } else { left.min(units_of(&named, line_no)) })
        })
        .filter(|it| it.1 > 0)
        .collect();
    if units.is_empty() {
        return d.note(NoteKind::Stale, &fulfilment.fulfilment_id, "picked what is not to be picked", Vec::new());
    }
    let moved = d.by_sku(units.iter().map(|&(line_no, units)| (line_no, units, 0)));
    d.note(NoteKind::Picked, &fulfilment.fulfilment_id, "", lines_of(&units));
    d.move_stock(&fulfilment.location_id, "pick", &fulfilment.fulfilment_id, &moved, |row, units, _| row.pick(units));
}

/// The location found less. What is missing is claimed elsewhere, or waits for stock.
fn short(d: &mut Decision<'_>, it: &OutcomeReceived, fulfilment: FulfilmentState) {
    let named = per_line(&it.lines);
    let units: Lines = (fulfilment.pinned.iter())
        .map(|&(line_no, pinned)| {
            (line_no, if it.lines.is_empty() { pinned } else { pinned.min(units_of(&named, line_no)) })
        })
        .filter(|it| it.1 > 0)
        .collect();
    if units.is_empty() {
        return d.note(NoteKind::Stale, &fulfilment.fulfilment_id, "short of what is not asked for", Vec::new());
    }
    let with_picked =
        units.iter().map(|&(line_no, units)| (line_no, units, picked_of_missing(&fulfilment, line_no, units)));
    let moved = d.by_sku(with_picked);
    let id = &fulfilment.fulfilment_id;
    d.note(NoteKind::Short, id, "", lines_of(&units));
    d.move_stock(&fulfilment.location_id, "short", id, &moved, |row, units, picked| row.short(units, picked));
    let left = d.order().fulfilments.iter().any(|it| it.fulfilment_id == *id && !it.pinned.is_empty());
    if !left {
        d.note(NoteKind::Withdrawn, id, "nothing of it is left", Vec::new());
    }
    // The goods are not where we thought; what the network has elsewhere stays claimed.
    let mut lost: Vec<LineQuantity> = Vec::new();
    for &(line_no, units) in &units {
        let Some(line) = line_at(&d.order().lines, line_no) else { continue };
        let given_up: i64 = (lost.iter())
            .filter(|it| line_at(&d.order().lines, it.line_no).is_some_and(|other| other.sku == line.sku))
            .map(|it| -it.quantity)
            .sum();
        let over = -d.facts.available(&line.sku) - given_up;
        let quantity = over.min(units).min(line.claimed);
        if quantity > 0 {
            lost.push(LineQuantity { line_no, quantity: -quantity });
        }
    }
    if !lost.is_empty() {
        d.reserve(lost);
        let order = d.order();
        let missing = missing(order);
        let one = (missing.len() == 1).then(|| missing[0].line_no);
        let detail = format!("{} did not find it: {}", fulfilment.location_id, evidence(order, &missing));
        if order.cancel_asked.is_none() {
            d.hold(HoldReason::ShortPick, one, detail);
        }
    }
    settle(d, Arrived::Stock);
}

/// The location does not ship it: as it was asked, or of its own accord.
fn gone(d: &mut Decision<'_>, it: &OutcomeReceived, fulfilment: &FulfilmentState, declined: bool) {
    let pins = fulfilment.pinned.iter();
    let moved = d.by_sku(pins.map(|&(line_no, units)| (line_no, units, units_of(&fulfilment.picked, line_no))));
    // One that was asked not to ship it and says it will not has answered what it was asked.
    let declined = declined && fulfilment.status != FulfilmentStatus::Withdrawing;
    let kind = if declined { NoteKind::Declined } else { NoteKind::Withdrawn };
    let detail = match (&it.carrier_code, declined) {
        (Some(code), _) => format!("{}: {}", fulfilment.location_id, cut(code)),
        (None, true) => format!("{} will not ship it", fulfilment.location_id),
        (None, false) => format!("{} does not ship it", fulfilment.location_id),
    };
    let id = &fulfilment.fulfilment_id;
    d.note(kind, id, detail, lines_of(&fulfilment.pinned));
    d.move_stock(&fulfilment.location_id, "unpin", id, &moved, |row, units, picked| row.unpin(units, picked));
    settle(d, Arrived::Stock);
}

/// Parcels left.
fn despatched(d: &mut Decision<'_>, it: &OutcomeReceived) {
    let (order_id, ..) = d.stamp();
    let shipment_id = match it.shipment_id.as_str() {
        // What has no name of its own gets one from the report.
        "" => child("shipment", order_id, &[it.outcome_id.as_bytes(), d.cause.event_id.0.as_bytes()]).to_string(),
        id => id.to_owned(),
    };
    let before = d.order().shipments.iter().find(|known| known.shipment_id == shipment_id);
    if before.is_some_and(|known| !known.lines.is_empty()) {
        return d.note(NoteKind::Duplicate, &shipment_id, "the despatch was reported before", Vec::new());
    }
    let fulfilment = fulfilment(d, it).cloned();
    let named = per_line(&it.lines);
    let (accepted, cancelled) = (d.order().accepted, d.order().cancelled);
    let (left, strange): (Lines, Lines) = match (&fulfilment, it.lines.is_empty()) {
        (Some(known), true) => (known.pinned.clone(), Vec::new()),
        // Of an order that is not here yet, nobody knows the lines.
        _ => named.into_iter().partition(|line| !accepted || line_at(&d.order().lines, line.0).is_some()),
    };
    let pinned = |line_no: i32| fulfilment.as_ref().map_or(0, |known| units_of(&known.pinned, line_no));
    let unpinned: Lines =
        left.iter().map(|&(line_no, units)| (line_no, units.min(pinned(line_no)))).filter(|it| it.1 > 0).collect();
    let unasked: Lines = (left.iter())
        .map(|&(line_no, units)| (line_no, units - units.min(pinned(line_no))))
        .filter(|it| it.1 > 0)
        .collect();
    let from = fulfilment.as_ref().map_or(&it.location_id, |known| &known.location_id).clone();
    let fulfilment_id = fulfilment.as_ref().map_or(&it.fulfilment_id, |known| &known.fulfilment_id).clone();
    let shipped: Vec<(i32, i64, i64)> = (left.iter())
        .map(|&(line_no, units)| (line_no, line_at(&d.order().lines, line_no).map_or(0, |line| line.shipped), units))
        .collect();
    let picked = |line_no: i32| fulfilment.as_ref().map_or(0, |known| units_of(&known.picked, line_no));
    let moved = d.by_sku(unpinned.iter().map(|&(line_no, units)| (line_no, units, picked(line_no).min(units))));
    let moved_unasked = d.by_sku(unasked.iter().map(|&(line_no, units)| (line_no, units, 0)));
    let withdrawing = fulfilment.as_ref().is_some_and(|known| known.status == FulfilmentStatus::Withdrawing);
    let against = d.order().cancel_asked.is_some() && withdrawing || cancelled;

    let first = !d.order().charges_posted;

    let (order_id, seq, at) = d.stamp();
    d.say(ShipmentDespatched {
        order_id,
        seq,
        at,
        shipment_id: shipment_id.clone(),
        fulfilment_id: fulfilment_id.clone(),
        location_id: from.clone(),
        carrier: it.carrier.clone(),
        service: it.service.clone(),
        despatched_at: it.at,
        lines: lines_of(&left),
        unpinned: lines_of(&unpinned),
        parcels: it.parcels.iter().take(MAX_PARCELS).cloned().collect(),
        simulated: it.simulated,
    });
    d.move_stock(&from, "despatch", &shipment_id, &moved, |row, units, picked| row.despatch(units, picked));
    d.move_stock(&from, "despatch", &shipment_id, &moved_unasked, |row, units, _| row.leave(units));
    if accepted && !left.is_empty() {
        give_up_claims(d, &unasked);
        books::sold(d, &shipment_id, &shipped, first);
    }
    if !left.is_empty() {
        d.notify(NotificationPurpose::Despatched, &shipment_id, Some(&shipment_id));
    }
    let units: i64 = left.iter().map(|it| it.1).sum();
    if against && units > 0 {
        let detail = format!("{units} left {} although a cancellation was asked for", cut(&from));
        d.hold(HoldReason::DespatchedAfterCancellation, None, detail);
    } else if accepted && (!unasked.is_empty() || !strange.is_empty() || left.is_empty()) {
        let more = settle::list(unasked.iter().map(|(line_no, units)| format!("{units} of line {line_no}")));
        let other = settle::list(strange.iter().map(|(line_no, _)| format!("line {line_no}, which it does not have")));
        let parts: Vec<String> = [more, other].into_iter().filter(|part| !part.is_empty()).collect();
        let what = if parts.is_empty() { "a shipment of nothing".to_owned() } else { parts.join(", ") };
        d.hold(HoldReason::UnaskedDespatch, None, format!("nobody had asked {} to ship {what}", cut(&from)));
    }
    if accepted {
        super::payments::check(d);
    }
    settle(d, Arrived::Stock);
}

/// Goods left that were not pinned: a claim for the same units is not needed any more.
fn give_up_claims(d: &mut Decision<'_>, unasked: &[(i32, i64)]) {
    let lost: Vec<LineQuantity> = (unasked.iter())
        .filter_map(|&(line_no, _)| {
            let line = line_at(&d.order().lines, line_no)?;
            let over = (line.claimed + line.pinned - line.open().max(0)).min(line.claimed);
            (over > 0).then_some(LineQuantity { line_no, quantity: -over })
        })
        .collect();
    d.reserve(lost);
}

/// A milestone of a shipment, or of each parcel that is named.
fn tracked(d: &mut Decision<'_>, it: &OutcomeReceived) {
    let arrived =
        |d: &Decision<'_>| d.order().shipments.iter().any(|known| known.shipment_id == it.shipment_id && known.arrived);
    let failed =
        |d: &Decision<'_>| d.order().shipments.iter().any(|known| known.shipment_id == it.shipment_id && known.failed);
    let (arrived_before, failed_before) = (arrived(d), failed(d));
    let parcels: Vec<Option<String>> = match it.parcels.is_empty() {
        true => vec![None],
        false => it.parcels.iter().take(MAX_PARCELS).map(|parcel| Some(parcel.parcel_id.clone())).collect(),
    };
    for parcel_id in parcels {
        let (order_id, seq, at) = d.stamp();
        d.say(ShipmentTracked {
            order_id,
            seq,
            at,
            shipment_id: it.shipment_id.clone(),
            parcel_id,
            kind: it.kind,
            tracked_at: it.at,
            carrier_code: it.carrier_code.clone(),
        });
    }
    match it.kind {
        OutcomeKind::Delivered => {
            if arrived(d) && !arrived_before {
                d.notify(NotificationPurpose::Delivered, &it.shipment_id, Some(&it.shipment_id));
            }
            if d.holds(HoldReason::DeliveryProblem) && d.order().shipments.iter().all(|known| !known.failed) {
                d.resolve("delivered", KEPT, |hold| hold.reason == HoldReason::DeliveryProblem);
            }
            settle(d, Arrived::Stock);
        }
        OutcomeKind::DeliveryFailed if failed(d) && !failed_before => {
            let code = it.carrier_code.as_deref().map(|code| format!(": {}", cut(code))).unwrap_or_default();
            let detail = format!("shipment {} could not be delivered{code}", cut(&it.shipment_id));
            d.hold(HoldReason::DeliveryProblem, None, detail);
            settle(d, Arrived::Stock);
        }
        _ => {}
    }
}
