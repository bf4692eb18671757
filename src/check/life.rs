//! An order's life, folded from its events by the checker's own short rules: what the read model and the ledger must
//! both say of it.

use std::collections::BTreeMap;

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{
    events::{
        FulfilmentRequested, Hold, HoldResolved, NoteKind, NotificationRequested, OrderAccepted, OrderPaid,
        PostingRequested, ShipmentDespatched,
    },
    inputs::LineQuantity,
};

use super::facts::OrderEvent;

/// Units of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// Claimed or pinned.
    pub reserved: i64,
    pub shipped: i64,
    pub cancelled: i64,
}

/// A hold: opened, resolved, or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct HoldLife<'a> {
    pub opened: Option<&'a Hold>,
    pub resolved: Option<&'a HoldResolved>,
}

impl HoldLife<'_> {
    pub fn open(&self) -> bool {
        self.opened.is_some() && self.resolved.is_none()
    }
}

/// Where an order stands after its events.
#[derive(Debug, Default)]
pub struct Life<'a> {
    pub last_seq: i64,
    /// Of the highest revision.
    pub accepted: Option<&'a OrderAccepted>,
    pub units: BTreeMap<i32, Units>,
    pub picked: i64,
    /// Asked for and not withdrawn.
    pub fulfilments: i64,
    pub holds: BTreeMap<&'a str, HoldLife<'a>>,
    pub released: bool,
    pub backordered: bool,
    pub whole_cancelled: bool,
    pub paid: Option<&'a OrderPaid>,
    pub outcome: Option<&'a str>,
    pub requested: Vec<&'a FulfilmentRequested>,
    pub despatched: Vec<&'a ShipmentDespatched>,
    pub postings: Vec<&'a PostingRequested>,
    pub notifications: Vec<&'a NotificationRequested>,
}

impl<'a> Life<'a> {
    /// `events` by their numbers.
    pub fn of(events: &'a [OrderEvent]) -> Self {
        let mut life = Self::default();
        for event in events {
            life.take(&event.event);
            life.last_seq = event.seq;
        }
        life
    }

    /// Units over all lines.
    pub fn total(&self) -> Units {
        self.units.values().fold(Units::default(), |sum, it| Units {
            reserved: sum.reserved.saturating_add(it.reserved),
            shipped: sum.shipped.saturating_add(it.shipped),
            cancelled: sum.cancelled.saturating_add(it.cancelled),
        })
    }

    pub fn quantity(&self) -> i64 {
        self.accepted.map_or(0, |it| it.order.lines.iter().fold(0, |sum: i64, line| sum.saturating_add(line.quantity)))
    }

    pub fn open_holds(&self) -> i64 {
        i64::try_from(self.holds.values().filter(|hold| hold.open()).count()).unwrap_or(i64::MAX)
    }

    /// The headline, as docs/read-model.md states it.
    pub fn status(&self) -> &'static str {
        let (quantity, units) = (self.quantity(), self.total());
        let nothing_left = quantity > 0 && units.cancelled >= quantity;
        match () {
            () if self.accepted.is_none() => "waiting",
            () if self.open_holds() > 0 => "held",
            () if units.shipped == 0 && (self.whole_cancelled || self.outcome == Some("cancelled") || nothing_left) => {
                "cancelled"
            }
            () if self.outcome == Some("delivered") => "delivered",
            () if units.shipped > 0 && units.shipped + units.cancelled >= quantity => "despatched",
            () if units.shipped > 0 => "partly_despatched",
            () if self.fulfilments > 0 || self.picked > 0 => "in_fulfilment",
            () if self.backordered && units.reserved + units.cancelled < quantity => "backordered",
            () if self.released => "released",
            () => "accepted",
        }
    }

    pub fn take(&mut self, event: &'a LedgerEvent) {
        match event {
            LedgerEvent::Accepted(it) => {
                if self.accepted.is_none_or(|known| known.revision < it.revision) {
                    self.accepted = Some(it);
                }
                for line in &it.order.lines {
                    self.units.entry(line.line_no).or_default();
                }
                self.each(&it.claimed, |units, n| units.reserved = units.reserved.saturating_add(n));
            }
            LedgerEvent::Held(it) => {
                for hold in &it.holds {
                    self.holds.entry(&hold.hold_id).or_default().opened = Some(hold);
                }
            }
            LedgerEvent::Unheld(it) => {
                for hold in &it.holds {
                    self.holds.entry(&hold.hold_id).or_default().resolved = Some(hold);
                }
            }
            LedgerEvent::Released(_) => self.released = true,
            LedgerEvent::Reserved(it) => {
                self.each(&it.lines, |units, n| units.reserved = units.reserved.saturating_add(n));
            }
            LedgerEvent::Backordered(_) => self.backordered = true,
            LedgerEvent::Paid(it) => self.paid = Some(it),
            LedgerEvent::Cancelled(it) => {
                self.whole_cancelled |= it.whole;
                self.each(&it.lines, |units, n| units.cancelled = units.cancelled.saturating_add(n));
                self.each(&it.given_back, |units, n| units.reserved = units.reserved.saturating_sub(n));
            }
            LedgerEvent::Completed(it) => self.outcome = Some(&it.outcome),
            LedgerEvent::Noted(it) => match it.kind {
                NoteKind::Picked => {
                    self.picked = it.lines.iter().fold(self.picked, |sum, line| sum.saturating_add(line.quantity));
                }
                NoteKind::Withdrawn | NoteKind::Declined => self.fulfilments -= 1,
                _ => {}
            },
            LedgerEvent::Requested(it) => {
                self.fulfilments += 1;
                self.requested.push(it);
            }
            LedgerEvent::Despatched(it) => {
                self.each(&it.lines, |units, n| units.shipped = units.shipped.saturating_add(n));
                self.each(&it.unpinned, |units, n| units.reserved = units.reserved.saturating_sub(n));
                self.despatched.push(it);
            }
            LedgerEvent::Notification(it) => self.notifications.push(it),
            LedgerEvent::Posting(it) => self.postings.push(it),
            LedgerEvent::Revised(_)
            | LedgerEvent::Withdrawn(_)
            | LedgerEvent::Tracked(_)
            | LedgerEvent::Stock(_)
            | LedgerEvent::Woken(_) => {}
        }
    }

    fn each(&mut self, lines: &[LineQuantity], add: impl Fn(&mut Units, i64)) {
        for line in lines {
            add(self.units.entry(line.line_no).or_default(), line.quantity);
        }
    }
}
