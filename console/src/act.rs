//! What can be done about an order that waits, in words, and as the command line that does it.

use kept_schemas::inbound::HoldReason;

use crate::html::{Html, html};

/// Advice for a hold, and command lines with `ORDER` and `HOLD` in place of their ids.
struct Advice {
    /// What ends it by itself, if anything does.
    by_itself: &'static str,
    /// What a person checks or does first.
    first: &'static str,
    commands: &'static [(&'static str, &'static str)],
}

const RELEASE: (&str, &str) = ("Go on as it is", "./kept order release ORDER --hold HOLD");
const RECHECK: (&str, &str) = ("Check it again", "./kept order recheck ORDER");
const CANCEL: (&str, &str) = ("Cancel it", "./kept order cancel ORDER");
const ADDRESS: (&str, &str) = ("Correct the address", "./kept order address ORDER address.json");

/// Every command line that a page shows, for the program's test that it takes them.
pub const COMMANDS: &[&str] = &[RELEASE.1, RECHECK.1, CANCEL.1, ADDRESS.1];

fn advice(reason: HoldReason) -> Advice {
    let of = |by_itself, first, commands| Advice { by_itself, first, commands };
    match reason {
        HoldReason::Incomplete => {
            of("", "Ask the channel or the customer for what is missing.", &[ADDRESS, RELEASE, CANCEL])
        }
        HoldReason::AddressInvalid => of("", "Ask the customer, then correct it.", &[ADDRESS, RELEASE, CANCEL]),
        HoldReason::UnknownSku => {
            of("It ends when the product is added.", "Add the product, or find out what was meant.", &[RECHECK, CANCEL])
        }
        HoldReason::TotalsDiffer => {
            of("", "Compare with the channel what was sold and at what price.", &[RELEASE, CANCEL])
        }
        HoldReason::ValueImplausible => of("", "Look at the value; is it meant?", &[RELEASE, CANCEL]),
        HoldReason::NoGoods => of("", "Is it an order at all? There is nothing to ship.", &[RELEASE, CANCEL]),
        HoldReason::AwaitingPayment => of(
            "It ends when the payment arrives, and the order is cancelled when it does not.",
            "Look for the payment.",
            &[RELEASE, CANCEL],
        ),
        HoldReason::PaymentFailed => {
            of("It ends when a payment arrives.", "Ask the customer for another payment.", &[RELEASE, CANCEL])
        }
        HoldReason::OutOfStock => {
            of("It ends when stock arrives.", "Order stock, count the shelf, or tell the customer.", &[RECHECK, CANCEL])
        }
        HoldReason::ChangedAfterAcceptance => {
            of("", "Ask the channel which one holds. Going on keeps the first.", &[RELEASE, CANCEL])
        }
        HoldReason::ShortPick => of("It ends when stock arrives.", "Count the shelf.", &[RECHECK, CANCEL]),
        HoldReason::DespatchedAfterCancellation => {
            of("", "Call the parcel back, or leave it and charge it.", &[RELEASE])
        }
        HoldReason::UnaskedDespatch => of("", "Ask the location what it sent, and to whom.", &[RELEASE]),
        HoldReason::RefundDue => of("It ends when the refund is reported.", "Pay the money back.", &[RELEASE]),
        HoldReason::MoneyMismatch => of("", "Compare with the payment provider.", &[RELEASE]),
        HoldReason::DeliveryProblem => of("", "Ask the carrier, then the customer.", &[RELEASE]),
        HoldReason::NoRoute => {
            of("", "Which location can ship it? Look at locations and their countries.", &[RECHECK, CANCEL])
        }
        HoldReason::Manual => of("", "Ask whoever put it on hold.", &[RELEASE, CANCEL]),
        HoldReason::Unknown => of("", "", &[RELEASE, CANCEL]),
    }
}

/// What to do first, for a list.
pub fn first(reason: &str) -> String {
    let advice = advice(HoldReason::of(reason));
    [advice.first, advice.by_itself].join(" ").trim().to_owned()
}

/// All that can be done about a hold.
pub fn all(reason: &str, order_id: &str, hold_id: &str) -> Html {
    let commands = advice(HoldReason::of(reason)).commands.iter().map(|(what, line)| {
        let line = line.replace("ORDER", order_id).replace("HOLD", &quoted(hold_id));
        html!("<li>{}: <code>{}</code></li>", *what, line)
    });
    html!("<p>{}</p><ul class=\"commands\">{}</ul>", first(reason), commands.collect::<Html>())
}

/// An argument as a shell takes it.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_./:@".contains(&it));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_can_be_done() {
        for reason in HoldReason::ALL {
            assert!(!first(reason.as_str()).is_empty(), "{reason}");
            let shown = all(reason.as_str(), "0-0", "h").0;
            assert!(shown.contains("./kept order ") && !shown.contains("ORDER") && !shown.contains("HOLD"), "{shown}");
        }
        assert!(COMMANDS.iter().all(|line| line.starts_with("./kept order ")));
    }

    #[test]
    fn an_id_cannot_break_out_of_a_command_line() {
        assert_eq!(quoted("a/b-1"), "a/b-1");
        assert_eq!(quoted("x; rm -rf '"), r"'x; rm -rf '\'''");
    }
}
