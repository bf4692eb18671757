//! What a body must be to count as an order, a cancellation or a payment. The forms themselves are in
//! `kept_schemas::own`; a business fault (an unknown SKU, a wrong total) is none of the door's business.

use kept_schemas::own::{CancellationForm, FieldProblem, MAX_CODE, OrderForm, PaymentForm, not_understood};

use super::problem::Fault;

pub const ORDER: &str = OrderForm::FORMAT;
pub const CANCELLATION: &str = CancellationForm::FORMAT;
pub const PAYMENT: &str = PaymentForm::FORMAT;

/// True when an order can have this number.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.chars().count() <= MAX_CODE && !text.chars().any(char::is_control)
}

/// The fields of a body that were not understood, by name.
pub type NotUnderstood = Vec<String>;

/// The order's number.
///
/// # Errors
/// Every fault found, with its place.
pub fn order(body: &[u8]) -> Result<(String, NotUnderstood), Vec<Fault>> {
    let parsed = OrderForm::parse(body).map_err(faults)?;
    let number = parsed.form.order_number;
    // It becomes part of an address, and of lines that people read.
    if is_number(&number) {
        return Ok((number, not_understood(&parsed.unmapped)));
    }
    Err(vec![Fault { pointer: "/order_number".into(), reason: "holds a control character".into() }])
}

/// # Errors
/// Every fault found, with its place.
pub fn cancellation(body: &[u8]) -> Result<NotUnderstood, Vec<Fault>> {
    CancellationForm::parse(body).map(|it| not_understood(&it.unmapped)).map_err(faults)
}

/// # Errors
/// Every fault found, with its place.
pub fn payment(body: &[u8]) -> Result<NotUnderstood, Vec<Fault>> {
    PaymentForm::parse(body).map(|it| not_understood(&it.unmapped)).map_err(faults)
}

fn faults(problems: Vec<FieldProblem>) -> Vec<Fault> {
    problems.into_iter().map(|it| Fault { pointer: it.field, reason: it.reason }).collect()
}
