//! The first page: so many went through untouched, so many wait and for what, what is late.

use kept_schemas::Micros;
use kept_store::pages::{Listed, Overview};

use crate::{
    act,
    html::{Column, Html, encoded, html, table},
    list, words,
};

/// How many of those that wait stand on the first page.
const FIRST: usize = 10;

pub fn body(figures: &Overview, at: Micros, first: &Listed, now: Micros) -> Html {
    if figures.orders == 0 {
        return nothing_yet(figures);
    }
    let mut body = headline(figures);
    body.push(&html!("<p class=\"asof\">As of {} UTC. <a href=\"/\">Refresh</a></p>", words::clock(at)));
    body.push(&waiting(figures, now));
    let rows = &first.rows[..first.rows.len().min(FIRST)];
    if !rows.is_empty() {
        body.push(&html!(
            "<section><h2>First to look at</h2>{}",
            list::held(rows, now, "Held orders, the first deadline first")
        ));
        body.push(&html!("<p><a href=\"/waiting\">All that wait</a></p></section>"));
    }
    body.push(&stands(figures));
    body.push(&letters(figures));
    body
}

fn headline(figures: &Overview) -> Html {
    let late = figures.overdue + figures.ship_by_missed;
    let share = |count: i64| percent(count, figures.orders);
    let tile = |class: &str, count: i64, title: &str, text: Html| {
        html!(
            "<li class=\"tile {}\"><span class=\"figure\">{}</span><span class=\"name\">{}</span><span class=\"note\">{}</span></li>",
            class,
            count,
            title,
            text
        )
    };
    let went_on = if figures.went_on > 0 {
        html!(
            "{} of {} orders; {} more waited once and went on",
            share(figures.untouched),
            figures.orders,
            figures.went_on
        )
    } else {
        html!("{} of {} orders", share(figures.untouched), figures.orders)
    };
    let tiles: Html = [
        tile("good", figures.untouched, "went through untouched", went_on),
        tile(
            if figures.waiting > 0 { "warn" } else { "plain" },
            figures.waiting,
            "wait for someone or something",
            if figures.waiting > 0 { html!("<a href=\"/waiting\">which, and for what</a>") } else { html!("nothing waits") },
        ),
        tile(
            if late > 0 { "bad" } else { "plain" },
            late,
            "are late",
            if late > 0 {
                html!(
                    "<a href=\"/late\">{} holds past their deadline</a>, <a href=\"/late?what=ship\">{} orders past their ship-by</a>",
                    figures.overdue,
                    figures.ship_by_missed
                )
            } else {
                html!("no deadline and no ship-by has passed")
            },
        ),
    ]
    .into_iter()
    .collect();
    html!("<ul class=\"tiles\">{}</ul>", tiles)
}

fn waiting(figures: &Overview, now: Micros) -> Html {
    let rows = figures.reasons.iter().map(|it| {
        vec![
            html!("<a href=\"/waiting?reason={}\">{}</a>", encoded(&it.reason), words::reason(&it.reason)),
            html!("{}", it.orders),
            if it.overdue > 0 { html!("<span class=\"late\">{}</span>", it.overdue) } else { html!("0") },
            words::due(it.first_due_at, now),
            html!("{}", act::first(&it.reason)),
        ]
    });
    let columns = [
        Column::Text("Why"),
        Column::Number("Orders"),
        Column::Number("Overdue"),
        Column::Text("First deadline"),
        Column::Text("What ends it"),
    ];
    html!(
        "<section><h2>What they wait for</h2>{}</section>",
        table("Open holds by reason", &columns, rows, "Nothing waits. Every order goes its way.")
    )
}

fn stands(figures: &Overview) -> Html {
    let rows = figures.statuses.iter().map(|it| {
        vec![
            html!("<a href=\"/orders?status={}\">{}</a>", encoded(&it.name), words::badge(&it.name)),
            html!("{}", it.count),
            html!(
                "<meter min=\"0\" max=\"{}\" value=\"{}\">{}</meter> {}",
                Html(figures.orders.to_string()),
                Html(it.count.to_string()),
                percent(it.count, figures.orders),
                percent(it.count, figures.orders)
            ),
        ]
    });
    let columns = [Column::Text("Status"), Column::Number("Orders"), Column::Text("Share")];
    let tests = if figures.tests > 0 {
        html!("<p>Among them {} test orders, which claim no stock and are never shipped.</p>", figures.tests)
    } else {
        Html::default()
    };
    html!(
        "<section><h2>Where the orders are</h2>{}{}</section>",
        table("Orders by status", &columns, rows, "No orders."),
        tests
    )
}

fn letters(figures: &Overview) -> Html {
    if figures.dead_letters == 0 {
        return Html::default();
    }
    html!(
        "<section><h2>For an engineer</h2><p><b>{}</b> records could not be read. Nothing of them is lost: \
         <code>./kept dead-letters list</code></p></section>",
        figures.dead_letters
    )
}

fn nothing_yet(figures: &Overview) -> Html {
    let mut body = html!(
        "<section class=\"empty\"><h2>No orders yet</h2><p>They show here moments after they come in. Ways in:</p>\
         <ul class=\"commands\"><li>Over HTTP: <code>POST /v1/orders</code>, described at <a href=\"/v1/openapi.json\">/v1/openapi.json</a></li>\
         <li>From a file: <code>./kept import FILE --map MAP</code></li>\
         <li>Made up, for a try: <code>./kept sample</code></li></ul></section>"
    );
    body.push(&letters(figures));
    body
}

/// A share in whole per cent, rounded down, so that 100 % means all.
fn percent(part: i64, of: i64) -> String {
    if of <= 0 {
        return "–".into();
    }
    let share = i128::from(part) * 1_000 / i128::from(of);
    if share % 10 == 0 || (100..990).contains(&share) {
        format!("{} %", share / 10)
    } else {
        format!("{}.{} %", share / 10, share % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_per_cent_means_all() {
        for (part, of, text) in [
            (0, 0, "–"),
            (1, 1, "100 %"),
            (999, 1_000, "99.9 %"),
            (9_999, 10_000, "99.9 %"),
            (1, 3, "33 %"),
            (1, 50, "2 %"),
            (1, 80, "1.2 %"),
            (0, 5, "0 %"),
        ] {
            assert_eq!(percent(part, of), text, "{part} of {of}");
        }
    }
}
