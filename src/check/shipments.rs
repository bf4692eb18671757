//! Invariant 5: one live shipment and label for each fulfilment order, here and in the world's own log.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::OrderId;

use super::{facts::Facts, life::Life, verdict::Verdict};

pub fn check(facts: &Facts, lives: &BTreeMap<OrderId, Life<'_>>) -> Verdict {
    let mut verdict =
        Verdict::new("shipments", 5, "each fulfilment has one shipment and label, as the warehouse's own log has it");
    verdict.notes.push("not yet applicable: labels at real carriers".into());
    // By fulfilment: its shipments; by tracking number: its parcels.
    let mut shipments: BTreeMap<(OrderId, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut parcels: BTreeMap<&str, BTreeSet<(&str, Option<&str>)>> = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut rows: BTreeMap<(&str, OrderId, i32), i64> = BTreeMap::new();
    for (order, life) in lives {
        for despatched in &life.despatched {
            if !despatched.fulfilment_id.is_empty() {
                let all = shipments.entry((*order, &despatched.fulfilment_id)).or_default();
                if !all.insert(&despatched.shipment_id) {
                    let id = &despatched.shipment_id;
                    verdict.broken(|| format!("order {order}: shipment {id} is despatched twice"));
                }
            }
            for line in &despatched.lines {
                *rows.entry((&despatched.shipment_id, *order, line.line_no)).or_default() += line.quantity;
            }
            for parcel in &despatched.parcels {
                let all = parcels.entry(&parcel.parcel_id).or_default();
                all.insert((&despatched.shipment_id, parcel.tracking_number.as_deref()));
                if let Some(number) = &parcel.tracking_number {
                    labels.entry(number).or_default().insert(&parcel.parcel_id);
                }
            }
        }
    }
    verdict.count("fulfilments despatched", shipments.len());
    verdict.count("parcels", parcels.len());
    for ((order, fulfilment), all) in shipments.iter().filter(|(_, all)| all.len() > 1) {
        verdict.broken(|| format!("order {order}: fulfilment {fulfilment} has {} live shipments", all.len()));
    }
    for (parcel, all) in parcels.iter().filter(|(_, all)| all.len() > 1) {
        verdict.broken(|| format!("parcel {parcel} has {} labels or shipments", all.len()));
    }
    for (label, all) in labels.iter().filter(|(_, all)| all.len() > 1) {
        verdict.broken(|| format!("label {label} is on {} parcels", all.len()));
    }
    read_model(facts, lives, &rows, &parcels, &mut verdict);
    world(facts, &shipments, lives, &mut verdict);
    verdict
}

fn read_model(
    facts: &Facts,
    lives: &BTreeMap<OrderId, Life<'_>>,
    rows: &BTreeMap<(&str, OrderId, i32), i64>,
    parcels: &BTreeMap<&str, BTreeSet<(&str, Option<&str>)>>,
    verdict: &mut Verdict,
) {
    let shown: BTreeMap<&str, Option<&str>> =
        facts.read.shipments.iter().map(|(id, location)| (id.as_str(), location.as_deref())).collect();
    let behind = super::read_model::behind(facts, lives);
    for (order, life) in lives {
        for it in &life.despatched {
            if shown.get(it.shipment_id.as_str()) != Some(&Some(&it.location_id)) {
                let late = behind.contains(order);
                verdict.broken_or_in_flight(!late, || {
                    format!("order {order}: shipment {} is not in the read model as it left", it.shipment_id)
                });
            }
        }
    }
    let known: BTreeSet<&str> =
        lives.values().flat_map(|life| &life.despatched).map(|it| it.shipment_id.as_str()).collect();
    for (shipment, location) in &shown {
        if location.is_some() && !known.contains(shipment) {
            verdict.broken(|| format!("shipment {shipment} is in the read model, but never left"));
        }
    }
    let mut seen = BTreeSet::new();
    for (shipment, order, line, units) in &facts.read.shipment_lines {
        seen.insert((shipment.as_str(), *order, *line));
        match rows.get(&(shipment.as_str(), *order, *line)) {
            Some(expected) if expected == units => {}
            _ if behind.contains(order) => {}
            expected => {
                let expected = expected.copied().unwrap_or(0);
                verdict.broken(|| {
                    format!("shipment {shipment}: {units} of line {line} of order {order}, {expected} left")
                });
            }
        }
    }
    for (key @ (shipment, order, line), units) in rows {
        if !seen.contains(key) && *units != 0 && !behind.contains(order) {
            verdict.broken(|| format!("shipment {shipment}: line {line} of order {order} is not in the read model"));
        }
    }
    for row in &facts.read.parcels {
        let expected = parcels.get(row.parcel_id.as_str());
        let agrees =
            expected.is_some_and(|all| all.contains(&(row.shipment_id.as_str(), row.tracking_number.as_deref())));
        // A scan may come before its parcel: then it has no label yet.
        if !agrees && (expected.is_some() || row.tracking_number.is_some()) && behind.is_empty() {
            verdict.broken(|| format!("parcel {} is otherwise in the read model than it left", row.parcel_id));
        }
    }
    let shown: BTreeSet<&str> = facts.read.parcels.iter().map(|row| row.parcel_id.as_str()).collect();
    for parcel in parcels.keys().filter(|parcel| !shown.contains(**parcel)) {
        verdict.broken_or_in_flight(behind.is_empty(), || format!("parcel {parcel} is not in the read model"));
    }
}

/// The simulated warehouse and carrier wrote down what they did; the ledger must know the same, no more and no less.
fn world(
    facts: &Facts,
    shipments: &BTreeMap<(OrderId, &str), BTreeSet<&str>>,
    lives: &BTreeMap<OrderId, Life<'_>>,
    verdict: &mut Verdict,
) {
    if facts.logs.world_files == 0 {
        verdict.notes.push("no log of a simulated warehouse: shipments are compared among our own records".into());
        return;
    }
    let reported: BTreeSet<&str> = facts.topics.outcomes.iter().map(|it| it.outcome_id.as_str()).collect();
    // Written again after a restart, under the same id: the same deed.
    let mut did: BTreeMap<(OrderId, &str), BTreeSet<&str>> = BTreeMap::new();
    for entry in &facts.logs.world {
        if entry.kind == "despatched" {
            did.entry((entry.order_id, &entry.fulfilment_id)).or_default().insert(&entry.outcome_id);
        }
        if !reported.contains(entry.outcome_id.as_str()) {
            verdict.in_flight(|| format!("the warehouse's report {} is not on its topic yet", entry.outcome_id));
        }
    }
    verdict.count("despatches in the warehouse's log", did.len());
    let under_way = super::accepted::orders_under_way(facts);
    for ((order, fulfilment), outcomes) in &did {
        if outcomes.len() > 1 {
            verdict.broken(|| format!("the warehouse despatched fulfilment {fulfilment} {} times", outcomes.len()));
        }
        if !shipments.contains_key(&(*order, *fulfilment)) {
            let told = outcomes.iter().all(|it| reported.contains(it)) && !under_way.contains(order);
            verdict.broken_or_in_flight(told, || {
                format!("the warehouse despatched fulfilment {fulfilment} of order {order}, we know of no shipment")
            });
        }
    }
    for (order, life) in lives {
        for it in life.despatched.iter().filter(|it| it.simulated) {
            if !did.contains_key(&(*order, it.fulfilment_id.as_str())) {
                verdict.broken(|| format!("order {order}: shipment {} is not in the warehouse's log", it.shipment_id));
            }
        }
    }
}
