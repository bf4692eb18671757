//! Adds what reference data says of an order: known SKUs and weights, the customer's class, the country whose VAT
//! applies, and the versions it was read from. Judges nothing.

use kept_schemas::{
    Order, OrderId, Party, Topic, UnitPrice,
    inbound::{Enrichment, LineFacts, OrderEnriched, OrderReceived, OrderRevised},
    order::{Address, MAX_LINES},
    own::{MAX_AMOUNT_DIGITS, MAX_CHARGES, MAX_QUANTITY},
    values::MAX_SCALE,
};

use crate::reference::Reference;

/// What this step looks up.
const USES: &[Topic] = &[Topic::ReferenceProducts, Topic::ReferenceLocations, Topic::ReferenceCustomers];

/// An order that came in. `orders.received` is public, so what the later steps take for granted is checked here; an
/// error says which rule it breaks.
pub fn received(it: OrderReceived, reference: &Reference) -> Result<OrderEnriched, String> {
    sound(&it.order, &it.party)?;
    Ok(OrderEnriched {
        enrichment: enrichment(&it.order, &it.party, reference),
        order: it.order,
        received_at: it.received_at,
        body_hash: it.body_hash,
        problems: it.problems,
        revision: 0,
        party: it.party,
    })
}

/// An order that the ledger sent back to be checked again. It has no body of its own, so its hash is empty; it came
/// in when it was sent back.
pub fn revised(it: OrderRevised, reference: &Reference) -> Result<OrderEnriched, String> {
    sound(&it.order, &it.party)?;
    Ok(OrderEnriched {
        enrichment: enrichment(&it.order, &it.party, reference),
        order: it.order,
        received_at: it.at,
        body_hash: String::new(),
        problems: Vec::new(),
        revision: it.revision,
        party: it.party,
    })
}

fn enrichment(order: &Order, party: &Party, reference: &Reference) -> Enrichment {
    let mut weight_grams = Some(0i64);
    let mut lines = Vec::with_capacity(order.lines.len());
    for line in &order.lines {
        let product = reference.products.get(&line.sku);
        let unit_grams = product.and_then(|it| it.weight_grams).filter(|it| *it >= 0);
        weight_grams = weight_grams
            .zip(unit_grams)
            .and_then(|(sum, grams)| sum.checked_add(line.quantity.max(0).checked_mul(grams)?));
        lines.push(LineFacts { line_no: line.line_no, known: product.is_some(), weight_grams: unit_grams });
    }
    let customer = order.customer_ref.as_ref().and_then(|it| reference.customers.get(it));
    let named = customer.map(|it| it.class.as_str()).filter(|it| !it.is_empty());
    let has_company = |it: &Address| it.company.as_deref().is_some_and(|name| !name.trim().is_empty());
    let business = has_company(&party.ship_to) || party.bill_to.as_ref().is_some_and(has_company);
    let pickup = order.delivery.pickup_location.as_ref().and_then(|it| reference.locations.get(it));
    let vat_country = customer
        .and_then(|it| it.vat_country.as_deref())
        .filter(|it| !it.is_empty())
        .or(pickup.map(|it| it.country.as_str()))
        .unwrap_or(&party.ship_to.country);
    Enrichment {
        lines,
        weight_grams,
        customer_class: named.unwrap_or(if business { "business" } else { "consumer" }).to_owned(),
        vat_country: vat_country.to_owned(),
        versions: reference.versions_of(USES),
    }
}

/// The rules that hold for every order past this step, whoever made it.
fn sound(order: &Order, party: &Party) -> Result<(), String> {
    let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(format!("order breaks a rule: {rule}")) };
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
    let clean = texts(order, party, |text| !text.contains('\0'));
    rule(clean, "no text holds the character U+0000")
}

/// True when `holds` is so for every text of the order.
fn texts(order: &Order, party: &Party, holds: impl Fn(&str) -> bool) -> bool {
    let some = |text: &Option<String>| text.as_deref().is_none_or(&holds);
    let address = |it: &Address| {
        [&it.name, &it.street, &it.postcode, &it.city, &it.country].into_iter().all(|it| holds(it))
            && [&it.company, &it.house_number, &it.house_number_addition, &it.extra, &it.region].into_iter().all(some)
    };
    let attributes = |all: &[kept_schemas::order::Attribute]| all.iter().all(|it| holds(&it.name) && holds(&it.value));
    [&order.channel, &order.shop, &order.channel_order_id, &order.account, &order.currency, &order.country]
        .into_iter()
        .all(|it| holds(it))
        && [
            &order.customer_ref,
            &order.language,
            &order.payment.reference,
            &order.delivery.service,
            &order.delivery.pickup_location,
            &party.email,
            &party.phone,
        ]
        .into_iter()
        .all(some)
        && attributes(&order.attributes)
        && order.lines.iter().all(|it| {
            holds(&it.sku) && some(&it.channel_line_id) && some(&it.description) && attributes(&it.attributes)
        })
        && order.charges.iter().all(|it| holds(&it.code) && some(&it.description))
        && address(&party.ship_to)
        && party.bill_to.as_ref().is_none_or(address)
}

#[cfg(test)]
mod tests;
