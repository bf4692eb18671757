//! An order's story as text for a terminal.

use super::story::Story;

/// The story, top to bottom: what it is, where it stands, what one can do, what happened, goods, parcels, money.
pub fn text(story: &Story) -> String {
    let mut text = String::new();
    let mut line = |it: std::fmt::Arguments<'_>| {
        // What others wrote must not drive a terminal.
        let shown = it.to_string();
        text.extend(shown.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }));
        text.push('\n');
    };
    line(format_args!("{}.", story.headline));
    for sentence in &story.stands {
        line(format_args!("{sentence}."));
    }
    line(format_args!("Id {}", story.order_id));
    if let Some(person) = &story.person {
        line(format_args!("\nFor"));
        for part in person.address.iter().chain(&person.email).chain(&person.phone) {
            line(format_args!("  {part}"));
        }
    }
    if !story.waits.is_empty() {
        line(format_args!("\nWhat it waits for"));
    }
    for wait in &story.waits {
        let overdue = if wait.overdue { " (overdue)" } else { "" };
        let detail = if wait.detail.is_empty() { String::new() } else { format!(": {}", wait.detail) };
        line(format_args!("  {}{detail}", wait.reason.replace('_', " ")));
        line(format_args!("    since {}, until {}{overdue}", wait.since, wait.until));
        for advice in &wait.do_this {
            line(format_args!("    - {advice}"));
        }
    }
    if !story.parked.is_empty() {
        line(format_args!("\nParked records (./kept parked show {})", story.order_id));
    }
    for parked in &story.parked {
        let why = parked.reason.as_deref().unwrap_or("waits behind another one");
        line(format_args!("  {} since {}: {why}", parked.record, parked.since));
    }
    line(format_args!("\nWhat happened"));
    let mut cause = "";
    for entry in &story.events {
        if entry.cause != cause {
            cause = &entry.cause;
            line(format_args!("  {}  {} ({cause})", entry.at, entry.because));
        }
        line(format_args!("{:>7}  {}", entry.seq, entry.what));
        for fact in &entry.facts {
            line(format_args!("           {fact}"));
        }
    }
    if !story.lines.is_empty() {
        line(format_args!(
            "\nGoods{:>31}{:>9}{:>9}{:>9}{:>11}{:>9}",
            "ordered", "claimed", "pinned", "shipped", "cancelled", "short"
        ));
    }
    for it in &story.lines {
        let name = format!("{} {}", it.line_no, it.sku);
        line(format_args!(
            "  {name:<26}{:>8}{:>9}{:>9}{:>9}{:>11}{:>9}",
            it.quantity, it.claimed, it.pinned, it.shipped, it.cancelled, it.short
        ));
    }
    if !story.shipments.is_empty() {
        line(format_args!("\nShipments"));
    }
    for it in &story.shipments {
        let carrier = it.carrier.as_ref().map(|carrier| format!(" with {carrier}")).unwrap_or_default();
        let simulated = if it.simulated { " (simulated)" } else { "" };
        line(format_args!("  left {} {}{carrier}, {}{simulated}", it.location, it.left_at, it.status));
        for parcel in &it.parcels {
            line(format_args!("    parcel {parcel}"));
        }
    }
    let money = &story.money;
    line(format_args!("\nMoney"));
    line(format_args!(
        "  {} in all, {}; authorised {}, captured {}, refunded {}; sold in the books {}",
        money.total, money.method, money.authorised, money.captured, money.refunded, money.sold
    ));
    text
}
