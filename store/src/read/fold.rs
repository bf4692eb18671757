//! A batch of events summed up into what changes in each row. Pure; the order of events in a batch, and of batches,
//! makes no difference: numbers are added, and of two descriptions the one with the higher number stays. Sums stop at
//! the ends of 64 bits instead of stopping the sink.

use std::collections::{BTreeMap, BTreeSet};

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{
    Micros, OrderId, OrderLine,
    events::{
        Hold, HoldResolved, NoteKind, NotificationRequested, OrderAccepted, OrderPaid, PostingRequested,
        ShipmentDespatched, ShipmentTracked, StockChanged,
    },
    inputs::{LineQuantity, OutcomeKind, Parcel},
    order::Charge,
};

/// What a batch changes. Keys are sorted, so that two sinks lock rows in the same order.
#[derive(Default)]
pub struct Changes<'a> {
    pub orders: BTreeMap<OrderId, OrderChange<'a>>,
    pub lines: BTreeMap<(OrderId, i32), LineChange<'a>>,
    pub charges: BTreeMap<(OrderId, i32), (i32, &'a Charge)>,
    pub holds: BTreeMap<(OrderId, &'a str), HoldChange<'a>>,
    pub shipments: BTreeMap<&'a str, ShipmentChange<'a>>,
    pub shipment_lines: BTreeMap<(&'a str, OrderId, i32), i64>,
    pub parcels: BTreeMap<&'a str, ParcelChange<'a>>,
    pub stock: BTreeMap<(&'a str, &'a str, &'static str), &'a StockChanged>,
    /// By posting, account and currency: the event and the amount.
    pub postings: BTreeMap<(&'a str, &'a str, &'a str), (&'a PostingRequested, i64)>,
    pub notifications: BTreeMap<&'a str, &'a NotificationRequested>,
}

#[derive(Default)]
pub struct OrderChange<'a> {
    /// The highest revision in the batch.
    pub accepted: Option<&'a OrderAccepted>,
    /// Of the first acceptance.
    pub accepted_at: Option<Micros>,
    pub reserved: i64,
    pub shipped: i64,
    pub cancelled: i64,
    pub picked: i64,
    pub fulfilments: i64,
    pub released: bool,
    pub backordered: bool,
    pub whole_cancelled: bool,
    pub paid: Option<&'a OrderPaid>,
    /// Of the latest completion: its number and its word.
    pub outcome: Option<(i64, &'a str)>,
    pub updated_at: Micros,
}

#[derive(Default)]
pub struct LineChange<'a> {
    pub described: Option<(i32, &'a OrderLine)>,
    pub reserved: i64,
    pub shipped: i64,
    pub cancelled: i64,
}

#[derive(Default)]
pub struct HoldChange<'a> {
    pub opened: Option<&'a Hold>,
    pub resolved: Option<(&'a HoldResolved, Micros)>,
}

/// The latest milestone, and the first delivery.
#[derive(Default)]
pub struct Milestones {
    pub latest: Option<(Micros, &'static str)>,
    pub delivered_at: Option<Micros>,
}

#[derive(Default)]
pub struct ShipmentChange<'a> {
    pub despatched: Option<&'a ShipmentDespatched>,
    pub milestones: Milestones,
}

pub struct ParcelChange<'a> {
    pub shipment_id: &'a str,
    pub parcel: Option<&'a Parcel>,
    pub milestones: Milestones,
}

impl Milestones {
    fn reach(&mut self, it: &ShipmentTracked) {
        self.latest = self.latest.max(Some((it.tracked_at, it.kind.as_str())));
        if it.kind == OutcomeKind::Delivered {
            self.delivered_at = Some(self.delivered_at.map_or(it.tracked_at, |first| first.min(it.tracked_at)));
        }
    }
}

impl<'a> Changes<'a> {
    /// Sums `events` up; each must be new to the read model.
    pub fn of(events: impl IntoIterator<Item = &'a LedgerEvent>) -> Self {
        let mut changes = Self::default();
        for event in events {
            changes.take(event);
        }
        changes
    }

    /// Orders whose holds changed.
    pub fn held(&self) -> BTreeSet<OrderId> {
        self.holds.keys().map(|(order, _)| *order).collect()
    }

    /// Shipments with parcels that changed.
    pub fn with_parcels(&self) -> BTreeSet<&'a str> {
        self.parcels.values().map(|parcel| parcel.shipment_id).collect()
    }

    fn take(&mut self, event: &'a LedgerEvent) {
        match event {
            LedgerEvent::Accepted(it) => self.accepted(it),
            LedgerEvent::Held(it) => {
                self.touch(it.order_id, it.at);
                for hold in &it.holds {
                    self.holds.entry((it.order_id, hold.hold_id.as_str())).or_default().opened = Some(hold);
                }
            }
            LedgerEvent::Unheld(it) => {
                self.touch(it.order_id, it.at);
                for hold in &it.holds {
                    self.holds.entry((it.order_id, hold.hold_id.as_str())).or_default().resolved = Some((hold, it.at));
                }
            }
            LedgerEvent::Released(it) => self.touch(it.order_id, it.at).released = true,
            LedgerEvent::Reserved(it) => {
                self.touch(it.order_id, it.at);
                self.add(it.order_id, &it.lines, |line, order, units| {
                    line.reserved = line.reserved.saturating_add(units);
                    order.reserved = order.reserved.saturating_add(units);
                });
            }
            LedgerEvent::Backordered(it) => self.touch(it.order_id, it.at).backordered = true,
            LedgerEvent::Paid(it) => {
                let order = self.touch(it.order_id, it.at);
                if order.paid.is_none_or(|known| known.seq < it.seq) {
                    order.paid = Some(it);
                }
            }
            LedgerEvent::Cancelled(it) => {
                let order = self.touch(it.order_id, it.at);
                order.whole_cancelled |= it.whole;
                self.add(it.order_id, &it.lines, |line, order, units| {
                    line.cancelled = line.cancelled.saturating_add(units);
                    order.cancelled = order.cancelled.saturating_add(units);
                });
                self.add(it.order_id, &it.given_back, |line, order, units| {
                    line.reserved = line.reserved.saturating_sub(units);
                    order.reserved = order.reserved.saturating_sub(units);
                });
            }
            LedgerEvent::Completed(it) => {
                let order = self.touch(it.order_id, it.at);
                order.outcome = order.outcome.max(Some((it.seq, it.outcome.as_str())));
            }
            LedgerEvent::Noted(it) => {
                let order = self.touch(it.order_id, it.at);
                match it.kind {
                    NoteKind::Picked => {
                        let picked = it.lines.iter().map(|line| line.quantity);
                        order.picked = picked.fold(order.picked, i64::saturating_add);
                    }
                    NoteKind::Withdrawn | NoteKind::Declined => order.fulfilments -= 1,
                    _ => {}
                }
            }
            LedgerEvent::Revised(it) => {
                self.touch(it.order_id, it.at);
            }
            LedgerEvent::Requested(it) => self.touch(it.order_id, it.at).fulfilments += 1,
            LedgerEvent::Withdrawn(it) => {
                self.touch(it.order_id, it.at);
            }
            LedgerEvent::Despatched(it) => self.despatched(it),
            LedgerEvent::Tracked(it) => {
                self.touch(it.order_id, it.at);
                match &it.parcel_id {
                    None => self.shipments.entry(&it.shipment_id).or_default().milestones.reach(it),
                    Some(parcel_id) => self.parcel(parcel_id, &it.shipment_id).milestones.reach(it),
                }
            }
            // A message or a posting never comes alone: what it follows from bears the same time, and touches the order.
            LedgerEvent::Notification(it) => {
                self.notifications.insert(&it.notification_id, it);
            }
            LedgerEvent::Posting(it) => {
                for entry in &it.entries {
                    let key = (it.posting_id.as_str(), entry.account.as_str(), entry.amount.currency.as_str());
                    let sum = &mut self.postings.entry(key).or_insert((it, 0)).1;
                    *sum = sum.saturating_add(entry.amount.minor);
                }
            }
            LedgerEvent::Stock(it) => {
                let row = self
                    .stock
                    .entry((it.sku.as_str(), it.location_id.as_str(), it.condition.as_str()))
                    .or_insert(it.as_ref());
                if row.version < it.version {
                    *row = it.as_ref();
                }
            }
            LedgerEvent::Woken(_) => {}
        }
    }

    fn accepted(&mut self, it: &'a OrderAccepted) {
        let order = self.touch(it.order_id, it.at);
        if order.accepted.is_none_or(|known| known.revision < it.revision) {
            order.accepted = Some(it);
        }
        order.accepted_at = Some(order.accepted_at.map_or(it.at, |first| first.min(it.at)));
        for line in &it.order.lines {
            let row = self.lines.entry((it.order_id, line.line_no)).or_default();
            if row.described.is_none_or(|(revision, _)| revision < it.revision) {
                row.described = Some((it.revision, line));
            }
        }
        for (charge_no, charge) in (1..).zip(&it.order.charges) {
            let row = self.charges.entry((it.order_id, charge_no)).or_insert((it.revision, charge));
            if row.0 < it.revision {
                *row = (it.revision, charge);
            }
        }
        self.add(it.order_id, &it.claimed, |line, order, units| {
            line.reserved = line.reserved.saturating_add(units);
            order.reserved = order.reserved.saturating_add(units);
        });
    }

    fn despatched(&mut self, it: &'a ShipmentDespatched) {
        self.touch(it.order_id, it.at);
        self.add(it.order_id, &it.lines, |line, order, units| {
            line.shipped = line.shipped.saturating_add(units);
            order.shipped = order.shipped.saturating_add(units);
        });
        self.add(it.order_id, &it.unpinned, |line, order, units| {
            line.reserved = line.reserved.saturating_sub(units);
            order.reserved = order.reserved.saturating_sub(units);
        });
        let shipment = self.shipments.entry(&it.shipment_id).or_default();
        if shipment.despatched.is_none_or(|known| it.despatched_at < known.despatched_at) {
            shipment.despatched = Some(it);
        }
        for line in &it.lines {
            let units = self.shipment_lines.entry((&it.shipment_id, it.order_id, line.line_no)).or_default();
            *units = units.saturating_add(line.quantity);
        }
        for parcel in &it.parcels {
            self.parcel(&parcel.parcel_id, &it.shipment_id).parcel = Some(parcel);
        }
    }

    fn touch(&mut self, order: OrderId, at: Micros) -> &mut OrderChange<'a> {
        let row = self.orders.entry(order).or_default();
        row.updated_at = row.updated_at.max(at);
        row
    }

    fn parcel(&mut self, parcel_id: &'a str, shipment_id: &'a str) -> &mut ParcelChange<'a> {
        let new = || ParcelChange { shipment_id, parcel: None, milestones: Milestones::default() };
        self.parcels.entry(parcel_id).or_insert_with(new)
    }

    fn add(
        &mut self,
        order_id: OrderId,
        lines: &[LineQuantity],
        add: impl Fn(&mut LineChange<'a>, &mut OrderChange<'a>, i64),
    ) {
        let order = self.orders.entry(order_id).or_default();
        for line in lines {
            add(self.lines.entry((order_id, line.line_no)).or_default(), order, line.quantity);
        }
    }
}
