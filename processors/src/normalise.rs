//! Raw bodies become orders, commands and payments in the one model. Nothing of a body is lost: what was not
//! understood goes along with an order as `unmapped`, and is told by name in the order's history.
//!
//! Who sent a body decides which shop, channel and account it belongs to; the body has no say in that. What is wrong
//! with an order is no business of this step: validate says it of every order, also of those that others produce.

use kept_schemas::{
    EventId, Order, OrderId, OrderLine, Party, UnitPrice,
    ids::sha256_hex,
    inbound::{Inbound, InboundKind, OrderReceived},
    inputs::{CommandKind, CommandReceived, PaymentReceived},
    order::{Charge, PaymentTerms},
    own::{CancellationForm, FieldProblem, OrderForm, Parsed, PaymentForm, not_understood},
    reference::Account,
};

use crate::reference::Reference;

/// What a body became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normalised {
    Order(Box<OrderReceived>),
    Command(Box<CommandReceived>),
    Payment(Box<PaymentReceived>),
}

/// Reads a body; `event_id` is the record's. An error is the reason it is a dead letter: without content of the body,
/// and worth a replay once its cause (an unknown account, an older build) is mended.
pub fn decide(inbound: &Inbound, event_id: EventId, reference: &Reference) -> Result<Normalised, String> {
    let account = account(inbound, reference)?;
    let form = |expected: &str| match inbound.format.as_str() {
        format if format == expected => Ok(()),
        other => Err(format!("form {} of a body is not known here; {expected} is", quoted(other))),
    };
    match inbound.kind {
        InboundKind::Order => {
            form(OrderForm::FORMAT)?;
            let parsed = OrderForm::parse(&inbound.body).map_err(|it| refused(OrderForm::FORMAT, &it))?;
            order(inbound, account, parsed).map(|it| Normalised::Order(Box::new(it)))
        }
        InboundKind::Cancellation => {
            form(CancellationForm::FORMAT)?;
            let parsed = CancellationForm::parse(&inbound.body).map_err(|it| refused(CancellationForm::FORMAT, &it))?;
            Ok(Normalised::Command(Box::new(cancellation(inbound, account, event_id, parsed))))
        }
        InboundKind::Payment => {
            form(PaymentForm::FORMAT)?;
            let parsed = PaymentForm::parse(&inbound.body).map_err(|it| refused(PaymentForm::FORMAT, &it))?;
            payment(inbound, account, parsed).map(|it| Normalised::Payment(Box::new(it)))
        }
        InboundKind::Unknown => Err("kind of body is none of order, cancellation, payment".into()),
    }
}

/// The account that sent it, if it may.
fn account<'a>(inbound: &Inbound, reference: &'a Reference) -> Result<&'a Account, String> {
    let id = quoted(&inbound.account);
    let Some(account) = reference.accounts.get(&inbound.account) else {
        return Err(format!("channel account {id} is not in reference.accounts; add it, then replay this record"));
    };
    if !account.active {
        return Err(format!("channel account {id} is not active; make it so, then replay this record"));
    }
    // The record's key was made from the shop, and the order's identity is made from it.
    if !inbound.shop.is_empty() && inbound.shop != account.shop {
        return Err(format!(
            "record is of shop {}, but channel account {id} brings orders of shop {}",
            quoted(&inbound.shop),
            quoted(&account.shop)
        ));
    }
    if inbound.external_id.trim().is_empty() {
        return Err("record names no order (external_id is empty)".into());
    }
    Ok(account)
}

/// A word from outside as a message may show it: cut, and without what would break a line of a log.
fn quoted(word: &str) -> String {
    format!("{:?}", word.chars().take(100).collect::<String>())
}

fn refused(form: &str, problems: &[FieldProblem]) -> String {
    let shown: Vec<String> = problems.iter().take(5).map(ToString::to_string).collect();
    let more = problems.len().saturating_sub(shown.len());
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("body is not a {form}: {}{rest}", shown.join("; "))
}

fn order(inbound: &Inbound, account: &Account, parsed: Parsed<OrderForm>) -> Result<OrderReceived, String> {
    let Parsed { form, unmapped } = parsed;
    if form.order_number != inbound.external_id.trim() {
        return Err("record and body name two different orders (external_id, order_number)".into());
    }
    let decimals = form.decimals();
    let minor = |price: UnitPrice, quantity: i64| {
        price.total_minor(quantity, decimals).ok_or_else(|| "an amount does not fit 64 bits".to_owned())
    };
    let party = Party {
        ship_to: form.ship_to.unwrap_or_default(),
        bill_to: form.bill_to,
        email: form.email,
        phone: form.phone,
    };
    let mut lines = Vec::with_capacity(form.lines.len());
    for (line, line_no) in form.lines.into_iter().zip(1..) {
        lines.push(OrderLine {
            line_no,
            line_total_minor: minor(line.unit_price, line.quantity)?,
            channel_line_id: line.line_id,
            sku: line.sku,
            description: line.description,
            quantity: line.quantity,
            unit_price: line.unit_price,
            promised_at: line.promised_at,
            ship_by: line.ship_by,
            attributes: line.attributes,
        });
    }
    let mut charges = Vec::with_capacity(form.charges.len());
    for charge in form.charges {
        charges.push(Charge {
            amount_minor: minor(charge.unit_price, charge.quantity)?,
            kind: charge.kind,
            code: charge.code,
            description: charge.description,
            quantity: charge.quantity,
            unit_price: charge.unit_price,
        });
    }
    let total_minor = lines
        .iter()
        .map(|it| it.line_total_minor)
        .chain(charges.iter().map(|it| it.amount_minor))
        .try_fold(0i64, i64::checked_add)
        .ok_or("lines and charges do not add up in 64 bits")?;
    let order = Order {
        order_id: OrderId::of(&account.shop, &form.order_number),
        channel: account.channel.clone(),
        shop: account.shop.clone(),
        channel_order_id: form.order_number,
        account: account.account_id.clone(),
        placed_at: form.placed_at,
        stated_total_minor: form.total.map(|total| minor(total, 1)).transpose()?,
        total_minor,
        currency: form.currency,
        customer_ref: form.customer_number,
        country: party.ship_to.country.clone(),
        language: form.language,
        test: form.test,
        lines,
        charges,
        payment: PaymentTerms {
            method: form.payment.method,
            authorised_minor: minor(form.payment.authorised, 1)?,
            captured_minor: minor(form.payment.captured, 1)?,
            reference: form.payment.reference,
        },
        delivery: form.delivery,
        attributes: form.attributes,
    };
    Ok(OrderReceived {
        order,
        received_at: inbound.received_at,
        body_hash: sha256_hex(&inbound.body),
        unmapped,
        problems: Vec::new(),
        party,
    })
}

fn cancellation(
    inbound: &Inbound,
    account: &Account,
    event_id: EventId,
    parsed: Parsed<CancellationForm>,
) -> CommandReceived {
    let Parsed { form, unmapped } = parsed;
    CommandReceived {
        order_id: OrderId::of(&account.shop, inbound.external_id.trim()),
        command_id: form.request_id.unwrap_or_else(|| event_id.to_string()),
        kind: CommandKind::Cancel,
        by: account.account_id.clone(),
        at: inbound.received_at,
        lines: form.lines,
        hold_id: None,
        reason: form.reason,
        not_understood: not_understood(&unmapped),
        party: Party::default(),
    }
}

fn payment(inbound: &Inbound, account: &Account, parsed: Parsed<PaymentForm>) -> Result<PaymentReceived, String> {
    let Parsed { form, unmapped } = parsed;
    Ok(PaymentReceived {
        order_id: OrderId::of(&account.shop, inbound.external_id.trim()),
        amount_minor: form.amount_minor().ok_or("amount does not fit its currency")?,
        payment_id: form.payment_id,
        kind: form.kind,
        currency: form.currency,
        at: form.at,
        source: account.account_id.clone(),
        detail: form.detail,
        not_understood: not_understood(&unmapped),
    })
}

#[cfg(test)]
mod tests;
