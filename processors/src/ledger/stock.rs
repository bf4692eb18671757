//! Counts and receipts, and who waits for what. Stock never locks orders: it wakes those that wait, first come first
//! served, and each looks at itself again.

use kept_schemas::{
    OrderId,
    inputs::{Condition, OrderWoken, StockCounted, StockKind},
};

use super::{Facts, LedgerEvent, OrderState, StockKey, decision::stock_changed, fold::fold};

/// The most orders woken by one event. The last of them wakes the next, while there is some left.
const WOKEN_AT_ONCE: usize = 256;

/// A shelf holds at most this many; a larger number is a mistyped one, and is cut so that sums hold.
const MAX_UNITS: i64 = 1_000_000_000_000;

/// Takes in a count or a receipt. Messages of a kind or condition this version does not know say nothing.
pub(super) fn counted(facts: &mut Facts, it: &StockCounted) -> Vec<LedgerEvent> {
    if it.condition == Condition::Unknown || it.kind == StockKind::Unknown {
        return Vec::new();
    }
    let key = StockKey { sku: it.sku.clone(), location_id: it.location_id.clone(), condition: it.condition };
    let mut row = facts.stock.get(&key).copied().unwrap_or_default();
    let units = it.quantity.clamp(-MAX_UNITS, MAX_UNITS);
    let room = MAX_UNITS - row.on_hand;
    match it.kind {
        StockKind::Count => row.count(units),
        _ => row.receive(units.min(room.max(0))),
    }
    let changed = stock_changed(key, row, facts, it.kind.as_str(), it.quantity, &it.count_id);
    let mut events: Vec<LedgerEvent> = vec![changed.into()];
    fold(facts, &events[0]);
    events.extend(wake(facts, &it.sku, None, None).into_iter().map(LedgerEvent::from));
    events
}

/// Wake-ups for the orders that could get some of what is available of `sku`: the first that wait, or the first behind
/// `after`; never `not`, which is being decided.
pub(super) fn wake(facts: &Facts, sku: &str, after: Option<OrderId>, not: Option<OrderId>) -> Vec<OrderWoken> {
    let Some(waiting) = facts.waiting.get(sku) else { return Vec::new() };
    let available = usize::try_from(facts.available(sku)).unwrap_or(0);
    if available == 0 {
        return Vec::new();
    }
    // One that left the queue tells nothing of its place any more; then all that are in it are looked at again.
    let from = after.and_then(|after| waiting.iter().position(|it| *it == after)).map_or(0, |at| at + 1);
    let behind: Vec<OrderId> = waiting[from..].iter().copied().filter(|it| Some(*it) != not).collect();
    let woken = behind.len().min(available).min(WOKEN_AT_ONCE);
    let numbered = behind.into_iter().take(woken).enumerate();
    numbered
        .map(|(index, order_id)| {
            // The list that was read is bounded, so there may always be more behind it.
            OrderWoken { order_id, sku: sku.to_owned(), at: facts.now, more: index + 1 == woken }
        })
        .collect()
}

/// Whether an order waits for stock at all. The store keeps its list of waiting orders by the same rule.
fn waits(order: &OrderState) -> bool {
    order.accepted && !order.test && !order.cancelled && order.completed.is_none()
}

/// Keeps the list of who waits true within a batch: it was read before the batch's first decision.
pub(super) fn keep_waiting(facts: &mut Facts, order_id: OrderId) {
    let Facts { orders, waiting, .. } = facts;
    let Some(order) = orders.get(&order_id) else { return };
    let short = |line: &super::LineState| line.known && waits(order) && line.short() > 0;
    if !waiting.is_empty() {
        for line in order.lines.iter().filter(|line| !short(line)) {
            if let Some(list) = waiting.get_mut(&line.sku) {
                list.retain(|it| *it != order_id);
            }
        }
    }
    for line in order.lines.iter().filter(|line| short(line)) {
        match waiting.get_mut(&line.sku) {
            Some(list) if list.contains(&order_id) => {}
            Some(list) => list.push(order_id),
            None => {
                waiting.insert(line.sku.clone(), vec![order_id]);
            }
        }
    }
}

/// Someone else waits for this SKU.
pub(super) fn others_wait(facts: &Facts, sku: &str, order_id: OrderId) -> bool {
    facts.waiting.get(sku).is_some_and(|list| list.iter().any(|it| *it != order_id))
}
