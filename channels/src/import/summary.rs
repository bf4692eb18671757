//! What an import found, for a person: orders, money, what was left out, what was refused and why, what is made up.

use std::fmt::Write;

use kept_schemas::values::currency_decimals;

use super::{Outcome, tally::thousands};

/// What is said of the orders that came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was sent.
    DryRun,
    Sent,
    /// The import stopped under way.
    Stopped,
}

/// The summary as text.
pub fn summary(outcome: &Outcome, fate: Fate) -> String {
    let mut text = String::new();
    let tally = &outcome.tally;
    let n = |number: u64| thousands(&number.to_string());
    let signed = |number: i64| {
        let digits = thousands(&number.unsigned_abs().to_string());
        if number < 0 { format!("-{digits}") } else { digits }
    };
    // Writing to a string cannot fail.
    let mut say = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    let what = match fate {
        Fate::DryRun => "would be sent",
        Fate::Sent => "sent and accepted",
        Fate::Stopped => "read before it stopped",
    };
    say(format!("{:>14}  rows read", n(tally.rows)));
    say(format!("{:>14}  orders {what}, of {} rows", n(tally.orders), n(tally.order_rows)));
    if tally.already_accepted > 0 {
        say(format!("{:>14}  of them were accepted before and not sent again", n(tally.already_accepted)));
    }
    if let (Some(first), Some(last)) = (&tally.first_placed_at, &tally.last_placed_at) {
        say(format!("{:>14}  placed {first} to {last}", ""));
    }
    for (currency, it) in &tally.currencies {
        let decimals = currency_decimals(currency).unwrap_or(2) as usize;
        let total = it.total();
        say(String::new());
        say(format!("{currency}{:>27}{:>16}{:>22}", "lines", "units", "money, not rounded"));
        for (name, sum) in [("goods", it.goods), ("charges", it.charges), ("in all", total)] {
            say(format!("  {name:<10}{:>18}{:>16}{:>22}", n(sum.count), signed(sum.units), sum.exact.show(decimals)));
        }
        say(format!(
            "  as orders carry it, each line rounded once, half away from zero: {} (difference {})",
            total.rounded.show(decimals),
            (total.rounded - total.exact).show(decimals)
        ));
    }
    if !tally.charges.is_empty() {
        say(String::new());
        say("Charges, not goods (kind and code):".into());
        for (code, sum) in &tally.charges {
            say(format!("{:>14}  {code:<28}{:>18}", n(sum.count), sum.exact.show(2)));
        }
    }
    say(String::new());
    if tally.skipped.is_empty() {
        say("Left out by the mapping: nothing".into());
    } else {
        say("Left out by the mapping:".into());
    }
    for (name, it) in &tally.skipped {
        say(format!(
            "{:>14}  {name}: {} rows from row {}, {} units, {} in money; {}",
            n(it.orders),
            n(it.rows),
            it.first_row,
            signed(it.units),
            it.exact.show(2),
            it.why
        ));
    }
    if tally.refused_orders == 0 {
        say("Refused: nothing".into());
    } else {
        say(format!("Refused: {} orders, {} rows, because of", n(tally.refused_orders), n(tally.refused_rows)));
        for (field, times) in &tally.refused_by_field {
            say(format!("{:>14}  {field}", n(*times)));
        }
        say("  the first:".into());
        for (number, reasons) in &outcome.refusals {
            for reason in reasons.iter().take(3) {
                say(format!("    row {}, order {}: {}", reason.row, shown_number(number), reason.text));
            }
        }
    }
    let notes = [
        (tally.zero_total_orders, "orders have a total of zero; they are sent"),
        (tally.orders_without_goods, "orders have charges only and no goods; they are sent, and wait as `no_goods`"),
        (tally.zero_price_lines, "lines with goods have a price of zero; they are sent as they are"),
        (tally.lines_without_description, "lines with goods have no description"),
        (tally.orders_without_customer, "orders have no customer number"),
        (tally.orders_without_country, "orders have no country; they are sent, and wait as `incomplete`"),
        (tally.folded_sku_lines, "lines had their article number in another letter case; the mapping folds it"),
        (tally.scattered_orders, "orders stand in several places of the file; their rows were put together"),
        (tally.orders_of_several_times, "orders have rows of several times; the first counts"),
        (tally.odd_lines_as_charges, "rows that cannot be goods became charges, by the mapping's rules"),
    ];
    if notes.iter().any(|(times, _)| *times > 0) {
        say(String::new());
        say("Worth knowing:".into());
        for (times, what) in notes.iter().filter(|(times, _)| *times > 0) {
            say(format!("{:>14}  {what}", n(*times)));
        }
    }
    if tally.synthetic_addresses + tally.synthetic_payments > 0 {
        say(String::new());
        say(
            "Synthetic, made up because the file does not have it (each such order says so in `attributes.synthetic`):"
                .into(),
        );
        if tally.synthetic_addresses > 0 {
            say(format!(
                "{:>14}  addresses, {} of them with a fault on purpose",
                n(tally.synthetic_addresses),
                n(tally.synthetic_defects)
            ));
        }
        if tally.synthetic_payments > 0 {
            let methods: Vec<String> =
                tally.payment.iter().map(|(method, times)| format!("{} {method}", n(*times))).collect();
            say(format!("{:>14}  ways to pay: {}", n(tally.synthetic_payments), methods.join(", ")));
        }
    }
    text
}

/// An order number as it may be shown: cut, and without what a terminal would act on.
fn shown_number(number: &str) -> String {
    if number.is_empty() {
        return "without a number".into();
    }
    number.chars().filter(|c| !c.is_control()).take(40).collect()
}
