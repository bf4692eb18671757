//! The rules that every order keeps past enrich, whoever made it. Enrich makes a dead letter of one that breaks them, and
//! the ledger sends none back to it that would.

use kept_schemas::{
    Order, OrderId, Party, UnitPrice,
    order::MAX_LINES,
    own::{MAX_AMOUNT_DIGITS, MAX_CHARGES, MAX_QUANTITY},
    texts,
    values::MAX_SCALE,
};

/// An error says which rule an order breaks.
pub fn sound(order: &Order, party: &Party) -> Result<(), String> {
    let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(broken(rule)) };
    rule(!order.shop.is_empty() && !order.channel_order_id.is_empty(), "shop and channel_order_id are not empty")?;
    let id = OrderId::of(&order.shop, &order.channel_order_id);
    rule(order.order_id == id, "order_id is made from shop and channel_order_id as docs/producing.md says")?;
    rule(order.lines.len() <= MAX_LINES, "at most 2000 lines")?;
    rule(order.charges.len() <= MAX_CHARGES, "at most 200 charges")?;
    rule(order.lines.iter().zip(1..).all(|(line, no)| line.line_no == no), "line_no counts 1, 2, 3 …")?;
    let price = |price: UnitPrice, quantity: i64| {
        quantity.unsigned_abs() <= MAX_QUANTITY.unsigned_abs() && (0..=MAX_SCALE).contains(&price.scale)
    };
    // Three more digits: the minor units of the currencies that have most of them.
    let fits = |minor: i64| minor.unsigned_abs() <= 10u64.pow(MAX_AMOUNT_DIGITS + 3);
    let within = order.lines.iter().all(|it| price(it.unit_price, it.quantity) && fits(it.line_total_minor))
        && order.charges.iter().all(|it| price(it.unit_price, it.quantity) && fits(it.amount_minor))
        && [order.stated_total_minor.unwrap_or(0), order.payment.authorised_minor, order.payment.captured_minor]
            .into_iter()
            .all(fits);
    rule(within, "quantities, scales and amounts are within the limits of docs/order-form.md")?;
    let most = 10u64.pow(MAX_AMOUNT_DIGITS + 3) * (MAX_LINES + MAX_CHARGES) as u64;
    rule(order.total_minor.unsigned_abs() <= most, "total_minor is the sum of lines and charges")?;
    texts::order(order, party).map_err(|why| broken(&why))
}

/// Says that a rule is broken: the rule, or the field and what it has against it.
pub fn broken(rule: &str) -> String {
    format!("order breaks a rule: {rule}")
}
