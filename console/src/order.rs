//! One order in full.

use kept_schemas::Micros;
use kept_store::pages::{Hold, OrderFacts, Shipment, Told};

use crate::{
    act,
    html::{Column, Html, facts, html, table},
    words,
};

pub fn body(order: &OrderFacts, timeline: &[Told], more: bool, now: Micros) -> Html {
    let money = |minor| html!("{}", words::money(minor, &order.currency));
    let mut body = html!("<p class=\"badges\">{}", words::badge(&order.status));
    if order.test {
        body.push(&html!(" <span class=\"badge quiet\">test order: claims no stock, is never shipped</span>"));
    }
    if order.shipments.iter().any(|it| it.simulated) {
        body.push(&html!(" <span class=\"badge quiet\">simulated warehouse and carrier</span>"));
    }
    body.push(&html!("</p>"));
    body.push(&facts(&[
        ("Channel", html!("{}", order.channel)),
        ("Shop", html!("{}", order.shop)),
        ("Customer no.", text(order.customer_ref.as_deref())),
        ("Placed", words::time(order.placed_at)),
        ("On our books", words::time(order.accepted_at)),
        ("Ship by", deadline(order, order.ship_by, now)),
        ("Promised", deadline(order, order.promised_at, now)),
        ("Total", money(order.total_minor)),
        ("Last event", words::time(order.updated_at)),
        ("Corrected", if order.revision > 0 { html!("{} times", order.revision) } else { Html::default() }),
        ("Our id", html!("<code>{}</code>", order.order_id.to_string())),
    ]));
    body.push(&open_holds(order, now));
    body.push(&lines(order));
    body.push(&payment(order));
    body.push(&shipments(order));
    body.push(&receiver(order));
    body.push(&ended_holds(order));
    body.push(&messages(order));
    body.push(&postings(order));
    body.push(&told(order, timeline, more));
    body
}

/// A moment, and how far off it is while something is still to leave.
fn deadline(order: &OrderFacts, at: Option<Micros>, now: Micros) -> Html {
    let done = order.shipped + order.cancelled >= order.quantity && order.quantity > 0;
    match at {
        None => Html::default(),
        Some(_) if done => words::time(at),
        Some(_) => html!("{} ({})", words::time(at), words::due(at, now)),
    }
}

fn text(text: Option<&str>) -> Html {
    text.map(|it| html!("{}", it)).unwrap_or_default()
}

fn line_of(hold: &Hold) -> Html {
    hold.line_no.map(|it| html!(", line {}", it)).unwrap_or_default()
}

fn open_holds(order: &OrderFacts, now: Micros) -> Html {
    let open: Vec<&Hold> = order.holds.iter().filter(|it| it.resolved_at.is_none()).collect();
    if open.is_empty() {
        return Html::default();
    }
    let id = order.order_id.to_string();
    let each: Html = open
        .iter()
        .map(|hold| {
            html!(
                "<li><h3>{}{}</h3><p>{}</p><p class=\"note\">Since {} · due {}</p>{}</li>",
                words::reason(&hold.reason),
                line_of(hold),
                hold.detail,
                words::time(hold.opened_at),
                words::due(hold.due_at, now),
                act::all(&hold.reason, &id, &hold.hold_id)
            )
        })
        .collect();
    let title = if open.len() == 1 { "It waits".to_owned() } else { format!("It waits for {} reasons", open.len()) };
    html!("<section class=\"waits\"><h2>{}</h2><ul class=\"holds\">{}</ul></section>", title, each)
}

fn lines(order: &OrderFacts) -> Html {
    let columns = [
        Column::Number("Line"),
        Column::Text("SKU"),
        Column::Text("What"),
        Column::Number("Ordered"),
        Column::Number("Reserved"),
        Column::Number("Short"),
        Column::Number("Shipped"),
        Column::Number("Cancelled"),
        Column::Number("Returned"),
        Column::Number("Unit price"),
        Column::Number("Total"),
    ];
    let rows = order.lines.iter().map(|line| {
        vec![
            html!("{}", line.line_no),
            html!("{}", line.sku),
            html!("{}", line.description),
            html!("{}", line.quantity),
            html!("{}", line.reserved),
            if line.short > 0 { html!("<b class=\"late\">{}</b>", line.short) } else { html!("{}", line.short) },
            html!("{}", line.shipped),
            html!("{}", line.cancelled),
            html!("{}", line.returned),
            html!("{}", line.unit_price),
            html!("{}", words::money(line.line_total_minor, &order.currency)),
        ]
    });
    let mut section =
        html!("<section><h2>Lines</h2>{}", table("What was ordered", &columns, rows, "No line with goods."));
    if !order.charges.is_empty() {
        let columns = [Column::Text("Charge"), Column::Text("Code"), Column::Text("What"), Column::Number("Amount")];
        let rows = order.charges.iter().map(|it| {
            vec![
                html!("{}", words::plain(&it.kind)),
                html!("{}", it.code),
                html!("{}", it.description),
                html!("{}", words::money(it.amount_minor, &order.currency)),
            ]
        });
        section.push(&table("Charges that are not goods", &columns, rows, ""));
    }
    section.push(&html!("</section>"));
    section
}

fn payment(order: &OrderFacts) -> Html {
    let money = |minor| html!("{}", words::money(minor, &order.currency));
    let some = |minor: i64| if minor == 0 { Html::default() } else { money(minor) };
    let state = match order.payment_state.as_deref() {
        Some(state) => words::plain(state),
        None if order.payment_method == "channel" => "settled by the channel".into(),
        None => "nothing heard yet".into(),
    };
    html!(
        "<section><h2>Money</h2>{}</section>",
        facts(&[
            ("Paid by", html!("{}", words::payment_method(&order.payment_method))),
            ("State", html!("{}", state)),
            ("Total", money(order.total_minor)),
            ("Of which charges", some(order.charges_minor)),
            ("Authorised", some(order.authorised_minor)),
            ("Captured", some(order.captured_minor)),
            ("Refunded", some(order.refunded_minor)),
        ])
    )
}

fn shipments(order: &OrderFacts) -> Html {
    if order.shipments.is_empty() {
        return html!("<section><h2>Shipments</h2><p class=\"empty\">Nothing has left yet.</p></section>");
    }
    let each: Html = order.shipments.iter().map(shipment).collect();
    html!("<section><h2>Shipments</h2>{}</section>", each)
}

fn shipment(it: &Shipment) -> Html {
    let what: Vec<String> = it.lines.iter().map(|(line, quantity)| format!("{quantity} of line {line}")).collect();
    let columns =
        [Column::Text("Tracking number"), Column::Text("Status"), Column::Text("Last scan"), Column::Number("Weight")];
    let rows = it.parcels.iter().map(|parcel| {
        vec![
            html!("{}", parcel.tracking_number.clone().unwrap_or_else(|| "none".into())),
            words::badge(&parcel.status),
            words::time(parcel.tracked_at),
            parcel.weight_grams.map(|grams| html!("{} g", grams)).unwrap_or_default(),
        ]
    });
    let simulated = if it.simulated { html!(" <span class=\"badge quiet\">simulated</span>") } else { Html::default() };
    html!(
        "<article><h3>From {} with {} {}{}</h3>{}{}</article>",
        if it.location_id.is_empty() { "an unknown location" } else { &it.location_id },
        if it.carrier.is_empty() { "an unknown carrier" } else { &it.carrier },
        words::badge(&it.status),
        simulated,
        facts(&[
            ("What", html!("{}", what.join(", "))),
            ("Left", words::time(it.despatched_at)),
            ("Delivered", words::time(it.delivered_at)),
            ("Service", html!("{}", it.service)),
            ("Shipment", html!("<code>{}</code>", it.shipment_id)),
        ]),
        table("Parcels", &columns, rows, "No parcel was named.")
    )
}

fn receiver(order: &OrderFacts) -> Html {
    let person = &order.person;
    let parts = [&person.name, &person.company, &person.street];
    let place = format!("{} {}", person.postcode, person.city);
    let lines: Vec<Html> = parts
        .into_iter()
        .map(String::as_str)
        .chain([place.trim(), order.country.as_str()])
        .filter(|it| !it.is_empty())
        .map(|it| html!("{}<br>", it))
        .collect();
    let address: Html = lines.into_iter().collect();
    html!(
        "<section><h2>Ship to</h2>{}</section>",
        facts(&[
            (
                "Address",
                if person.name.is_empty() && person.street.is_empty() {
                    html!("not given, or erased ({})", order.country)
                } else {
                    address
                }
            ),
            ("E-mail", html!("{}", person.email)),
            ("Phone", html!("{}", person.phone)),
        ])
    )
}

fn ended_holds(order: &OrderFacts) -> Html {
    let ended: Vec<&Hold> = order.holds.iter().filter(|it| it.resolved_at.is_some()).collect();
    if ended.is_empty() {
        return Html::default();
    }
    let columns = [
        Column::Text("Why it waited"),
        Column::Text("Evidence"),
        Column::Text("From"),
        Column::Text("To"),
        Column::Text("How it ended"),
        Column::Text("By"),
    ];
    let rows = ended.iter().map(|hold| {
        vec![
            html!("{}{}", words::reason(&hold.reason), line_of(hold)),
            html!("{}", hold.detail),
            words::time(hold.opened_at),
            words::time(hold.resolved_at),
            html!("{}", words::resolution(&hold.resolution)),
            html!("{}", hold.resolved_by),
        ]
    });
    html!("<section><h2>Waited before</h2>{}</section>", table("Holds that have ended", &columns, rows, ""))
}

fn messages(order: &OrderFacts) -> Html {
    if order.notifications.is_empty() {
        return Html::default();
    }
    let columns = [Column::Text("When"), Column::Text("What for"), Column::Text("By"), Column::Text("Status")];
    let rows = order.notifications.iter().map(|it| {
        vec![
            words::time(it.at),
            html!("{}", words::plain(&it.purpose)),
            html!("{}", it.medium),
            html!("{}", words::plain(&it.status)),
        ]
    });
    html!("<section><h2>Messages to the customer</h2>{}</section>", table("Messages", &columns, rows, ""))
}

fn postings(order: &OrderFacts) -> Html {
    if order.postings.is_empty() {
        return Html::default();
    }
    let columns = [
        Column::Text("When"),
        Column::Text("What"),
        Column::Text("Account"),
        Column::Number("Debit"),
        Column::Number("Credit"),
    ];
    let rows = order.postings.iter().map(|it| {
        let amount = html!("{}", words::money(it.amount_minor.saturating_abs(), &it.currency));
        let (debit, credit) = if it.amount_minor >= 0 { (amount, Html::default()) } else { (Html::default(), amount) };
        vec![
            words::time(it.at),
            html!("{}", words::plain(&it.kind)),
            html!("{}", words::plain(&it.account)),
            debit,
            credit,
        ]
    });
    html!(
        "<section><details><summary>For the books</summary>{}</details></section>",
        table("Postings", &columns, rows, "")
    )
}

fn told(order: &OrderFacts, timeline: &[Told], more: bool) -> Html {
    let each: Html = timeline
        .iter()
        .map(|it| {
            html!(
                "<li>{} <span>{}</span> <code class=\"note\">{}</code></li>",
                words::moment(it.at),
                it.detail,
                it.event
            )
        })
        .collect();
    let rest = match timeline.last() {
        Some(last) if more => {
            let address = format!("/orders/{}?after={}", order.order_id, last.seq);
            html!("<p><a href=\"{}\">Later events</a></p>", address)
        }
        _ => Html::default(),
    };
    let list = if each.is_empty() {
        html!("<p class=\"empty\">No events here.</p>")
    } else {
        html!("<ol class=\"timeline\">{}</ol>", each)
    };
    html!(
        "<section><h2>What happened</h2>{}{}<p class=\"note\">With the facts behind each decision: <code>./kept explain {}</code></p></section>",
        list,
        rest,
        order.order_id.to_string()
    )
}
