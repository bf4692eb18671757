//! A waiting order looks at itself again, because stock came free.

use kept_schemas::inputs::{LineQuantity, OrderWoken};

use super::{
    decision::Decision,
    settle::{Arrived, missing, settle},
};

/// Claims what there is now of all that the order is short of, and goes on from there.
pub(super) fn woken(d: &mut Decision<'_>, it: &OrderWoken) {
    let order = d.order();
    if order.accepted && !order.test && !order.cancelled && order.completed.is_none() {
        let mut gained: Vec<(LineQuantity, &str)> = Vec::new();
        for short in missing(order) {
            let Some(line) = super::fold::line_at(&order.lines, short.line_no) else { continue };
            let taken: i64 = gained.iter().filter(|it| it.1 == line.sku).map(|it| it.0.quantity).sum();
            let units = short.quantity.min(d.facts.available(&line.sku) - taken);
            if units > 0 {
                gained.push((LineQuantity { quantity: units, ..short }, &line.sku));
            }
        }
        let gained: Vec<LineQuantity> = gained.into_iter().map(|it| it.0).collect();
        if !gained.is_empty() {
            d.reserve(gained);
            settle(d, Arrived::Stock);
        }
    }
    if it.more {
        d.wake(&it.sku, Some(it.order_id));
    }
}
