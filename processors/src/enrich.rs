//! Adds what reference data says of an order: known SKUs and weights, the customer's class, the country whose VAT
//! applies, and the versions it was read from. Judges nothing.

use kept_schemas::{
    Order, Party, Topic,
    inbound::{Enrichment, LineFacts, OrderEnriched, OrderReceived, OrderRevised},
    order::Address,
    own::{MAX_TEXT, not_understood},
    texts,
};

use crate::{
    reference::Reference,
    sound::{broken, sound},
};

/// What this step looks up.
const USES: &[Topic] = &[Topic::ReferenceProducts, Topic::ReferenceLocations, Topic::ReferenceCustomers];

/// An order that came in. `orders.received` is public, so what the later steps take for granted is checked here; an
/// error says which rule it breaks.
pub fn received(it: OrderReceived, reference: &Reference) -> Result<OrderEnriched, String> {
    sound(&it.order, &it.party)?;
    let hash = texts::fault(&it.body_hash, MAX_TEXT).map(|why| format!("body_hash {why}"));
    if let Some(why) = texts::problems(&it.problems).err().or(hash) {
        return Err(broken(&why));
    }
    Ok(OrderEnriched {
        enrichment: enrichment(&it.order, &it.party, reference),
        order: it.order,
        received_at: it.received_at,
        body_hash: it.body_hash,
        problems: it.problems,
        revision: 0,
        not_understood: not_understood(&it.unmapped),
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
        not_understood: Vec::new(),
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

#[cfg(test)]
mod tests;
