//! Lists of orders, a page at a time.

use kept_schemas::Micros;
use kept_store::pages::{By, Found, Listed, Overview, PAGE, Row};

use crate::{
    act,
    html::{Column, Html, encoded, html, table},
    words,
};

/// The list's title, and the place it belongs to.
pub fn title(by: &By) -> (String, &'static str) {
    match by {
        By::All => ("Orders".into(), "/orders"),
        By::Status(word) => (format!("Orders: {}", words::status(word)), "/orders"),
        By::Held => ("Waiting".into(), "/waiting"),
        By::Reason(word) => (format!("Waiting: {}", words::reason(word)), "/waiting"),
        By::Overdue => ("Late: holds past their deadline".into(), "/late"),
        By::ShipByMissed => ("Late: past their ship-by".into(), "/late"),
    }
}

pub fn body(by: &By, listed: &Listed, figures: &Overview, page: i64, now: Micros) -> Html {
    let mut body = choices(by, figures);
    if let By::Reason(word) = by {
        body.push(&html!("<p class=\"advice\">{}</p>", act::first(word)));
    }
    body.push(&match by {
        By::All | By::Status(_) => plain(&listed.rows, now, page),
        By::ShipByMissed => missed(&listed.rows, now, page),
        By::Held | By::Reason(_) | By::Overdue if listed.rows.is_empty() => empty(page, "Nothing waits here."),
        By::Held | By::Reason(_) | By::Overdue => held(&listed.rows, now, "Held orders, the first deadline first"),
    });
    body.push(&paging(by, listed, page));
    body
}

/// Held orders, with why and until when.
pub fn held(rows: &[Row], now: Micros, caption: &str) -> Html {
    let columns = [
        Column::Text("Order"),
        Column::Text("Channel"),
        Column::Text("Why it waits"),
        Column::Text("Evidence"),
        Column::Text("Due"),
        Column::Number("Worth"),
    ];
    let rows = rows.iter().map(|row| {
        let more = match row.open_holds {
            2.. => html!(" <span class=\"note\">and {} more</span>", row.open_holds - 1),
            _ => Html::default(),
        };
        vec![
            link(row),
            html!("{}", row.channel),
            html!("{}{}", words::reason(&row.reason), more),
            html!("{}", row.detail),
            words::due(row.due_at, now),
            html!("{}", words::money(row.total_minor, &row.currency)),
        ]
    });
    table(caption, &columns, rows, "Nothing waits.")
}

fn plain(rows: &[Row], now: Micros, page: i64) -> Html {
    if rows.is_empty() {
        return empty(page, "No order has this status now.");
    }
    let columns = [
        Column::Text("Order"),
        Column::Text("Channel"),
        Column::Text("Status"),
        Column::Text("Why it waits"),
        Column::Text("Placed"),
        Column::Text("Ship by"),
        Column::Text("To"),
        Column::Number("Worth"),
    ];
    let rows = rows.iter().map(|row| {
        let why = if row.reason.is_empty() {
            Html::default()
        } else {
            html!("{}, {}", words::reason(&row.reason), words::due(row.due_at, now))
        };
        vec![
            link(row),
            html!("{}", row.channel),
            words::badge(&row.status),
            why,
            words::time(row.placed_at),
            words::time(row.ship_by),
            html!("{}", row.country),
            html!("{}", words::money(row.total_minor, &row.currency)),
        ]
    });
    table("Orders, the newest first", &columns, rows, "No orders.")
}

fn missed(rows: &[Row], now: Micros, page: i64) -> Html {
    if rows.is_empty() {
        return empty(page, "Every order has left by its ship-by, or still can.");
    }
    let columns = [
        Column::Text("Order"),
        Column::Text("Channel"),
        Column::Text("Status"),
        Column::Text("Should have left"),
        Column::Text("Why it waits"),
        Column::Number("Worth"),
    ];
    let rows = rows.iter().map(|row| {
        vec![
            link(row),
            html!("{}", row.channel),
            words::badge(&row.status),
            words::due(row.ship_by, now),
            if row.reason.is_empty() { Html::default() } else { html!("{}", words::reason(&row.reason)) },
            html!("{}", words::money(row.total_minor, &row.currency)),
        ]
    });
    table("Orders past their ship-by, the longest first", &columns, rows, "None.")
}

fn link(row: &Row) -> Html {
    let test = if row.test { html!(" <span class=\"badge quiet\">test</span>") } else { Html::default() };
    html!("<a href=\"/orders/{}\">{}</a>{}", row.order_id.to_string(), row.number, test)
}

fn empty(page: i64, text: &str) -> Html {
    let text = if page > 0 { "There is nothing on this page; the list has become shorter." } else { text };
    html!("<p class=\"empty\">{}</p>", text)
}

/// What else can be listed, with how many there are.
fn choices(by: &By, figures: &Overview) -> Html {
    let choice = |address: String, name: String, count: Option<i64>, here: bool| {
        let current = if here { Html(" aria-current=\"true\"".into()) } else { Html::default() };
        let count = count.map(|it| html!(" <span class=\"note\">{}</span>", it)).unwrap_or_default();
        html!("<a href=\"{}\"{}>{}{}</a>", address, current, name, count)
    };
    let links: Html = match by {
        By::All | By::Status(_) => {
            let all = choice("/orders".into(), "All".into(), Some(figures.orders), *by == By::All);
            let each = figures.statuses.iter().map(|it| {
                let here = *by == By::Status(it.name.clone());
                choice(format!("/orders?status={}", encoded(&it.name)), words::status(&it.name), Some(it.count), here)
            });
            std::iter::once(all).chain(each).collect()
        }
        By::Held | By::Reason(_) => {
            let all = choice("/waiting".into(), "All".into(), Some(figures.waiting), *by == By::Held);
            let each = figures.reasons.iter().map(|it| {
                let here = *by == By::Reason(it.reason.clone());
                choice(
                    format!("/waiting?reason={}", encoded(&it.reason)),
                    words::reason(&it.reason),
                    Some(it.orders),
                    here,
                )
            });
            std::iter::once(all).chain(each).collect()
        }
        By::Overdue | By::ShipByMissed => [
            choice("/late".into(), "Holds past their deadline".into(), Some(figures.overdue), *by == By::Overdue),
            choice(
                "/late?what=ship".into(),
                "Orders past their ship-by".into(),
                Some(figures.ship_by_missed),
                *by == By::ShipByMissed,
            ),
        ]
        .into_iter()
        .collect(),
    };
    html!("<nav class=\"choices\" aria-label=\"Which orders\">{}</nav>", links)
}

fn paging(by: &By, listed: &Listed, page: i64) -> Html {
    if page == 0 && !listed.more {
        return Html::default();
    }
    let address = |page: i64| {
        let base = match by {
            By::All => "/orders?".to_owned(),
            By::Status(word) => format!("/orders?status={}&", encoded(word)),
            By::Held => "/waiting?".into(),
            By::Reason(word) => format!("/waiting?reason={}&", encoded(word)),
            By::Overdue => "/late?".into(),
            By::ShipByMissed => "/late?what=ship&".into(),
        };
        format!("{base}page={}", page + 1)
    };
    let before = if page > 0 {
        html!("<a rel=\"prev\" href=\"{}\">Previous {}</a>", address(page - 1), PAGE)
    } else {
        Html::default()
    };
    let after = if listed.more {
        html!("<a rel=\"next\" href=\"{}\">Next {}</a>", address(page + 1), PAGE)
    } else {
        Html::default()
    };
    html!(
        "<nav class=\"paging\" aria-label=\"Further pages\">{} <span>page {}</span> {}</nav>",
        before,
        page + 1,
        after
    )
}

/// Several orders of one number.
pub fn choice(found: &[Found]) -> Html {
    let columns = [Column::Text("Order"), Column::Text("Shop"), Column::Text("Status"), Column::Text("Placed")];
    let rows = found.iter().map(|it| {
        vec![
            html!("<a href=\"/orders/{}\">{}</a>", it.order_id.to_string(), it.number),
            html!("{}", it.shop),
            words::badge(&it.status),
            words::time(Some(it.placed_at)),
        ]
    });
    table("Orders of this number", &columns, rows, "None.")
}
