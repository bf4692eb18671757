//! `kept.payment.v1`: what happened to an order's money.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{FieldProblem, MAX_BODY_BYTES, MAX_CODE, MAX_CURRENCY, MAX_TEXT, Parsed, json::Walk};
use crate::{
    inputs::PaymentKind,
    values::{Micros, UnitPrice, currency_decimals},
};

/// `kept.payment.v1`. Unlike an order, a payment with a fault is refused whole: money that cannot be read to the cent
/// is not a fact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PaymentForm {
    /// The provider's id of this fact: the same id again is the same fact.
    pub payment_id: String,
    pub kind: PaymentKind,
    /// Never negative; the kind says which way it went.
    #[serde(serialize_with = "super::amount")]
    pub amount: UnitPrice,
    pub currency: String,
    #[serde(serialize_with = "super::time")]
    pub at: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl PaymentForm {
    /// The name of the form, as `Inbound::format` bears it.
    pub const FORMAT: &'static str = "kept.payment.v1";

    /// Reads a body; refused with every reason (at most 20).
    pub fn parse(body: &[u8]) -> Result<Parsed<Self>, Vec<FieldProblem>> {
        let mut walk = Walk::default();
        let form = walk.body(body, MAX_BODY_BYTES).and_then(|value| payment(&mut walk, value)).unwrap_or_default();
        Ok(Parsed { unmapped: walk.end()?, form })
    }

    /// The body; [`Self::parse`] reads it back.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a form is JSON: its keys are texts")
    }

    /// The amount in minor units. `None` only for a form that [`Self::parse`] refuses.
    pub fn amount_minor(&self) -> Option<i64> {
        self.amount.total_minor(1, currency_decimals(&self.currency)?)
    }
}

fn payment(walk: &mut Walk, value: &RawValue) -> Option<PaymentForm> {
    let fields = walk.object(value)?;
    walk.require(&fields, &["payment_id", "kind", "amount", "currency", "at"]);
    let mut form = PaymentForm::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            "payment_id" => {
                form.payment_id =
                    walk.field("payment_id", value, |it, v| it.needed_text(v, MAX_CODE)).unwrap_or_default();
            }
            "kind" => {
                let read = |it: &mut Walk, v| it.word(v, PaymentKind::ALL, PaymentKind::of);
                form.kind = walk.field("kind", value, read).unwrap_or_default();
            }
            "amount" => form.amount = walk.field("amount", value, super::not_negative).unwrap_or_default(),
            "currency" => form.currency = walk.field("currency", value, currency).unwrap_or_default(),
            "at" => form.at = walk.field("at", value, Walk::time).unwrap_or_default(),
            "detail" => form.detail = walk.field("detail", value, |it, v| it.text(v, MAX_TEXT)),
            other => walk.unknown(other, value),
        }
    }
    if let Some(decimals) = currency_decimals(&form.currency)
        && super::is_finer(form.amount, decimals)
    {
        walk.problem_in("amount", format!("has more than the {decimals} decimals of {}", form.currency));
    }
    Some(form)
}

fn currency(walk: &mut Walk, value: &RawValue) -> Option<String> {
    let code = walk.needed_text(value, MAX_CURRENCY)?.to_ascii_uppercase();
    if currency_decimals(&code).is_none() { walk.problem("is not a currency that is known here") } else { Some(code) }
}
