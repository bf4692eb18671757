//! The words people use for what the read model says in one of its own.

use kept_schemas::{Micros, UnitPrice, inbound::HoldReason, values::currency_decimals};

use crate::html::{Html, grouped, html};

/// A headline status.
pub fn status(word: &str) -> String {
    match word {
        "held" => "waiting".into(),
        "in_fulfilment" => "at the warehouse".into(),
        "partly_despatched" => "partly despatched".into(),
        "backordered" => "waiting for stock".into(),
        other => plain(other),
    }
}

/// A status as a badge; its colour never says more than its text.
pub fn badge(word: &str) -> Html {
    let tone = match word {
        "held" | "backordered" => "warn",
        "cancelled" => "quiet",
        "delivered" | "despatched" => "good",
        "delivery_failed" => "bad",
        _ => "plain",
    };
    html!("<span class=\"badge {}\">{}</span>", tone, status(word))
}

/// Why an order waits.
pub fn reason(word: &str) -> String {
    match HoldReason::of(word) {
        HoldReason::Incomplete => "Something is missing".into(),
        HoldReason::AddressInvalid => "The address cannot be delivered to".into(),
        HoldReason::UnknownSku => "A SKU is not in the product list".into(),
        HoldReason::TotalsDiffer => "The totals do not agree".into(),
        HoldReason::ValueImplausible => "A value is not plausible".into(),
        HoldReason::NoGoods => "There is nothing to send".into(),
        HoldReason::AwaitingPayment => "Not paid yet".into(),
        HoldReason::PaymentFailed => "The payment failed".into(),
        HoldReason::OutOfStock => "Out of stock".into(),
        HoldReason::ChangedAfterAcceptance => "It came again, changed".into(),
        HoldReason::ShortPick => "The warehouse found less than it had".into(),
        HoldReason::DespatchedAfterCancellation => "It left although it was cancelled".into(),
        HoldReason::UnaskedDespatch => "Something left that nobody asked for".into(),
        HoldReason::RefundDue => "Money has to go back".into(),
        HoldReason::MoneyMismatch => "The money does not match".into(),
        HoldReason::DeliveryProblem => "The delivery went wrong".into(),
        HoldReason::NoRoute => "No location can ship it".into(),
        HoldReason::Manual => "Put on hold by hand".into(),
        HoldReason::Unknown => plain(word),
    }
}

/// How a hold ended.
pub fn resolution(word: &str) -> String {
    match word {
        "stock_arrived" => "stock arrived".into(),
        other => plain(other),
    }
}

/// How an order is paid.
pub fn payment_method(word: &str) -> String {
    match word {
        "channel" => "paid at the channel".into(),
        "on_account" => "on account".into(),
        "" | "unknown" => "not said".into(),
        other => plain(other),
    }
}

/// A word of ours without its underscores.
pub fn plain(word: &str) -> String {
    word.replace('_', " ")
}

/// Minor units as people write them, with the currency; without known decimals they stay in minor units.
pub fn money(minor: i64, currency: &str) -> String {
    let decimals = currency_decimals(currency);
    let scale = decimals.and_then(|it| i32::try_from(it).ok()).unwrap_or(0);
    let amount = UnitPrice { amount: minor, scale }.to_string();
    // Only the whole part is grouped; the sign stays in front.
    let (whole, fraction) = amount.split_once('.').unwrap_or((&amount, ""));
    let point = if fraction.is_empty() { "" } else { "." };
    let whole = match whole.strip_prefix('-') {
        Some(digits) => format!("−{}", grouped(digits)),
        None => grouped(whole),
    };
    let unit = if decimals.is_none() { " (minor units)" } else { "" };
    format!("{currency}\u{a0}{whole}{point}{fraction}{unit}")
}

/// `2026-11-25 10:00`, for machines as well.
pub fn time(at: Option<Micros>) -> Html {
    let Some(at) = at else { return Html::default() };
    let (date, clock) = calendar(at);
    html!("<time datetime=\"{}T{}Z\">{} {}</time>", date, clock, date, &clock[..5])
}

/// `2026-11-25 10:00:05`, where several things happen in a minute.
pub fn moment(at: Option<Micros>) -> Html {
    let Some(at) = at else { return Html::default() };
    let (date, clock) = calendar(at);
    html!("<time datetime=\"{}T{}Z\">{} {}</time>", date, clock, date, clock)
}

/// `10:00:05`, for "as of".
pub fn clock(at: Micros) -> String {
    calendar(at).1
}

/// When something is due, as a span from now; late is said, not only coloured.
pub fn due(at: Option<Micros>, now: Micros) -> Html {
    let Some(at) = at else { return Html::default() };
    let left = at.0.saturating_sub(now.0);
    let (date, clock) = calendar(at);
    let span = span(left.unsigned_abs() / 1_000_000);
    let (class, text) = if left < 0 { ("late", format!("{span} late")) } else { ("", format!("in {span}")) };
    html!("<time class=\"{}\" datetime=\"{}T{}Z\" title=\"{} {}\">{}</time>", class, date, clock, date, clock, text)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => "less than a minute".into(),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Date and time of day in UTC.
fn calendar(at: Micros) -> (String, String) {
    let text = at.rfc3339();
    (text[..10].to_owned(), text[11..19].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_764_064_800_000_000);

    #[test]
    fn a_moment_is_shown_in_utc() {
        assert_eq!(time(Some(NOW)).0, "<time datetime=\"2025-11-25T10:00:00Z\">2025-11-25 10:00</time>");
        assert_eq!(calendar(Micros(-1)), ("1969-12-31".into(), "23:59:59".into()));
        assert_eq!(time(None), Html::default());
    }

    #[test]
    fn what_is_late_says_so() {
        let text = |seconds: i64| due(Some(NOW.plus(seconds * 1_000_000)), NOW).0;
        assert!(text(7_200).contains(">in 2 h<"));
        assert!(text(-300).contains(">5 min late<"), "{}", text(-300));
        assert!(text(-200_000).contains(">2 days late<"));
        assert!(text(-300).contains("class=\"late\""));
    }

    #[test]
    fn money_is_shown_with_its_currencys_decimals() {
        assert_eq!(money(1_250, "EUR"), "EUR\u{a0}12.50");
        assert_eq!(money(-5, "EUR"), "EUR\u{a0}−0.05");
        assert_eq!(money(-1_147_450, "EUR"), "EUR\u{a0}−11\u{202f}474.50");
        assert_eq!(money(1_250, "JPY"), "JPY\u{a0}1\u{202f}250");
        assert_eq!(money(1_250, "XXX"), "XXX\u{a0}1\u{202f}250 (minor units)");
    }

    #[test]
    fn every_reason_has_its_words() {
        for known in HoldReason::ALL {
            assert_ne!(reason(known.as_str()), plain(known.as_str()), "{known}");
        }
        assert_eq!(reason("of_tomorrow"), "of tomorrow");
    }
}
