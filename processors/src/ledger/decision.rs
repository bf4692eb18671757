//! A decision on one order while it is being made: each event is folded into the facts the moment it is said, and
//! holds are gathered, so that an order is held once with every reason.

use std::collections::BTreeMap;

use kept_schemas::{
    Micros, OrderId,
    events::{
        Hold, HoldResolved, NoteKind, NotificationPurpose, NotificationRequested, OrderHeld, OrderNoted, OrderReserved,
        OrderUnheld, StockChanged,
    },
    ids::child,
    inbound::HoldReason,
    inputs::{Condition, LineQuantity},
    own::MAX_NAMED,
    reference::Policy,
};

use super::{
    Cause, Content, Facts, LedgerEvent, OrderState, Sku, StockKey, StockRow,
    fold::{fold, line_at},
    stock,
};
use crate::reference::Reference;

/// Who acts when the ledger itself does.
pub(super) const KEPT: &str = "kept";

/// The decision.
pub(super) struct Decision<'a> {
    pub facts: &'a mut Facts,
    pub reference: &'a Reference,
    pub cause: &'a Cause,
    pub order_id: OrderId,
    events: Vec<LedgerEvent>,
    /// Holds without an id yet.
    opening: Vec<Hold>,
    resolving: Vec<HoldResolved>,
    /// SKUs of which units came free.
    freed: Vec<Sku>,
}

impl<'a> Decision<'a> {
    pub fn new(facts: &'a mut Facts, reference: &'a Reference, cause: &'a Cause, order_id: OrderId) -> Self {
        facts.orders.entry(order_id).or_insert_with(|| OrderState { order_id, ..OrderState::default() });
        let (events, opening, resolving, freed) = (Vec::with_capacity(8), Vec::new(), Vec::new(), Vec::new());
        Self { facts, reference, cause, order_id, events, opening, resolving, freed }
    }

    /// The order as it is after what was said so far.
    pub fn order(&self) -> &OrderState {
        &self.facts.orders[&self.order_id]
    }

    pub fn content(&self) -> Option<&Content> {
        self.facts.contents.get(&self.order_id)
    }

    /// What every event of the order begins with.
    pub fn stamp(&self) -> (OrderId, i64, Micros) {
        (self.order_id, self.order().seq + 1, self.facts.now)
    }

    pub fn policy(&self) -> Policy {
        self.reference.policy(&self.order().channel)
    }

    /// The instant `seconds` from now; at least one, or a deadline would follow itself without an end.
    pub fn after(&self, seconds: i64) -> Micros {
        self.facts.now.plus(seconds.max(1).saturating_mul(Micros::SECOND))
    }

    /// Says an event.
    pub fn say(&mut self, event: impl Into<LedgerEvent>) {
        let event = event.into();
        fold(self.facts, &event);
        self.events.push(event);
    }

    pub fn note(&mut self, kind: NoteKind, about: &str, detail: impl Into<String>, lines: Vec<LineQuantity>) {
        let (order_id, seq, at) = self.stamp();
        let (about, detail) = (about.to_owned(), detail.into());
        self.say(OrderNoted { order_id, seq, at, kind, detail, about, due_at: None, lines });
    }

    /// Tells which fields of what came in were not understood; they change nothing.
    pub fn not_understood(&mut self, names: &[String]) {
        if !names.is_empty() {
            // A list of others may be longer than ours.
            let names: Vec<&str> = names.iter().take(MAX_NAMED + 1).map(String::as_str).collect();
            self.note(NoteKind::NotUnderstood, "", names.join(", "), Vec::new());
        }
    }

    /// Says that a timer came due, and when it does again.
    pub fn passed(&mut self, timer_id: &str, detail: impl Into<String>, due_at: Option<Micros>) {
        let (order_id, seq, at) = self.stamp();
        let (kind, about, detail) = (NoteKind::Deadline, timer_id.to_owned(), detail.into());
        self.say(OrderNoted { order_id, seq, at, kind, detail, about, due_at, lines: Vec::new() });
    }

    /// A hold is open, or about to be.
    pub fn holds(&self, reason: HoldReason) -> bool {
        self.opening.iter().any(|hold| hold.reason == reason) || self.open_holds().any(|hold| hold.reason == reason)
    }

    /// Open holds that are not about to be resolved.
    pub fn open_holds(&self) -> impl Iterator<Item = &Hold> {
        self.order().holds.iter().filter(|hold| self.resolving.iter().all(|it| it.hold_id != hold.hold_id))
    }

    /// Opens a hold with the usual deadline, unless one of its reason is open.
    pub fn hold(&mut self, reason: HoldReason, line_no: Option<i32>, detail: impl Into<String>) {
        let due_at = self.after(self.policy().hold_due_seconds);
        self.hold_until(reason, line_no, detail, due_at);
    }

    pub fn hold_until(&mut self, reason: HoldReason, line_no: Option<i32>, detail: impl Into<String>, due_at: Micros) {
        if !self.holds(reason) {
            let (hold_id, opened_at) = (String::new(), self.facts.now);
            self.opening.push(Hold { hold_id, reason, line_no, detail: detail.into(), opened_at, due_at });
        }
    }

    /// Resolves every open hold that `which` names; one that was about to be opened never is.
    pub fn resolve(&mut self, resolution: &str, by: &str, which: impl Fn(&Hold) -> bool) {
        self.opening.retain(|hold| !which(hold));
        let resolved: Vec<HoldResolved> = self
            .open_holds()
            .filter(|hold| which(hold))
            .map(|hold| HoldResolved {
                hold_id: hold.hold_id.clone(),
                reason: hold.reason,
                resolution: resolution.to_owned(),
                by: by.to_owned(),
            })
            .collect();
        self.resolving.extend(resolved);
    }

    /// Says which holds ended and which began.
    pub fn say_holds(&mut self) {
        if !self.resolving.is_empty() {
            let holds = std::mem::take(&mut self.resolving);
            let (order_id, seq, at) = self.stamp();
            self.say(OrderUnheld { order_id, seq, at, holds });
        }
        if !self.opening.is_empty() {
            let opening = std::mem::take(&mut self.opening);
            let (order_id, seq, at) = self.stamp();
            let holds = (self.order().holds_ever..).zip(opening).map(|(number, hold)| Hold {
                hold_id: child("hold", order_id, &[&number.to_be_bytes()]).to_string(),
                ..hold
            });
            let holds = holds.collect();
            self.say(OrderHeld { order_id, seq, at, holds });
        }
    }

    /// Changes claims; units that are given up are free for others.
    pub fn reserve(&mut self, lines: Vec<LineQuantity>) {
        if lines.is_empty() {
            return;
        }
        for line in lines.iter().filter(|line| line.quantity < 0) {
            self.free(line.line_no);
        }
        let (order_id, seq, at) = self.stamp();
        self.say(OrderReserved { order_id, seq, at, lines });
    }

    /// Units of a line's SKU came free: others that wait for it are woken at the end.
    pub fn free(&mut self, line_no: i32) {
        let Some(line) = line_at(&self.order().lines, line_no) else { return };
        if line.known && !self.freed.contains(&line.sku) {
            let sku = line.sku.clone();
            self.freed.push(sku);
        }
    }

    /// Writes to the customer, where there is a way to: once per purpose and `of`.
    pub fn notify(&mut self, purpose: NotificationPurpose, of: &str, shipment_id: Option<&str>) {
        if self.order().test {
            return;
        }
        let Some(content) = self.content() else { return };
        let medium = match (&content.party.email, &content.party.phone) {
            (Some(_), _) => "email",
            (None, Some(_)) => "sms",
            (None, None) => return,
        };
        let (party, language) = (content.party.clone(), content.order.language.clone());
        let (order_id, seq, at) = self.stamp();
        let id = child("notification", order_id, &[purpose.as_str().as_bytes(), of.as_bytes()]);
        self.say(NotificationRequested {
            order_id,
            seq,
            at,
            notification_id: id.to_string(),
            purpose,
            medium: medium.to_owned(),
            language,
            revision: self.order().revision,
            shipment_id: shipment_id.map(str::to_owned),
            party,
        });
    }

    /// Moves sellable stock at a location: `moved` holds units, and of those the picked ones, per SKU.
    pub fn move_stock(
        &mut self,
        location_id: &str,
        movement: &str,
        why: &str,
        moved: &BTreeMap<Sku, (i64, i64)>,
        change: impl Fn(&mut StockRow, i64, i64),
    ) {
        for (sku, &(units, picked)) in moved {
            let key =
                StockKey { sku: sku.clone(), location_id: location_id.to_owned(), condition: Condition::Sellable };
            let mut row = self.facts.stock.get(&key).copied().unwrap_or_default();
            let before = row.free() - row.unbacked;
            change(&mut row, units, picked);
            // What a count had missed was there after all, or is not owed any more: it is there for others.
            if row.free() - row.unbacked > before && !self.freed.contains(sku) {
                self.freed.push(sku.clone());
            }
            let changed = stock_changed(key, row, self.facts, movement, units, why);
            self.say(changed);
        }
    }

    /// The SKU of each line that has stock, with its units (and picked ones) summed up.
    pub fn by_sku(&self, lines: impl Iterator<Item = (i32, i64, i64)>) -> BTreeMap<Sku, (i64, i64)> {
        let mut moved: BTreeMap<Sku, (i64, i64)> = BTreeMap::new();
        for (line_no, units, picked) in lines {
            let line = line_at(&self.order().lines, line_no).filter(|line| line.known && !self.order().test);
            if let Some(line) = line.filter(|_| units != 0) {
                let sum = match moved.get_mut(&line.sku) {
                    Some(sum) => sum,
                    None => moved.entry(line.sku.clone()).or_default(),
                };
                sum.0 += units;
                sum.1 += picked;
            }
        }
        moved
    }

    /// Ends the decision: wakes who waits for what came free.
    pub fn finish(mut self) -> Vec<LedgerEvent> {
        for sku in std::mem::take(&mut self.freed) {
            self.wake(&sku, None);
        }
        stock::keep_waiting(self.facts, self.order_id);
        self.events
    }

    /// Wakes orders that wait for `sku`: all that could get some of it, or those behind `after`.
    pub fn wake(&mut self, sku: &str, after: Option<OrderId>) {
        for woken in stock::wake(self.facts, sku, after, Some(self.order_id)) {
            self.say(woken);
        }
    }
}

/// The event of a changed row.
pub(super) fn stock_changed(
    key: StockKey,
    row: StockRow,
    facts: &Facts,
    movement: &str,
    quantity: i64,
    why: &str,
) -> StockChanged {
    StockChanged {
        claimed: facts.claims.get(&key.sku).copied().unwrap_or(0),
        sku: key.sku,
        location_id: key.location_id,
        condition: key.condition,
        version: row.version + 1,
        at: facts.now,
        on_hand: row.on_hand,
        reserved: row.reserved,
        picked: row.picked,
        unbacked: row.unbacked,
        movement: movement.to_owned(),
        quantity,
        cause: why.to_owned(),
    }
}
