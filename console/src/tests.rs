//! The pages as a reader gets them, from figures and orders made up here.

use kept_schemas::{Micros, OrderId};
use kept_store::pages::{By, Count, Hold, Line, Listed, OrderFacts, Overview, Parcel, Reason, Row, Shipment, Told};

use crate::{list, order, overview};

const NOW: Micros = Micros(1_764_064_800_000_000);

fn figures() -> Overview {
    Overview {
        orders: 20_000,
        tests: 3,
        untouched: 18_000,
        went_on: 700,
        waiting: 1_300,
        ship_by_missed: 4,
        overdue: 2,
        dead_letters: 1,
        statuses: vec![Count { name: "delivered".into(), count: 18_700 }, Count { name: "held".into(), count: 1_300 }],
        reasons: vec![Reason {
            reason: "out_of_stock".into(),
            orders: 1_300,
            overdue: 2,
            first_due_at: Some(NOW.plus(-Micros::DAY * 3)),
        }],
        last_event_at: Some(NOW),
    }
}

fn row() -> Row {
    Row {
        order_id: OrderId::of("shop", "1"),
        number: "<1>".into(),
        channel: "storefront".into(),
        status: "held".into(),
        currency: "EUR".into(),
        total_minor: 1_250,
        reason: "out_of_stock".into(),
        detail: "1 of A & B missing".into(),
        due_at: Some(NOW.plus(-Micros::DAY * 3)),
        open_holds: 2,
        ..Default::default()
    }
}

fn facts() -> OrderFacts {
    OrderFacts {
        order_id: OrderId::of("shop", "1"),
        number: "1".into(),
        status: "held".into(),
        currency: "EUR".into(),
        quantity: 2,
        test: true,
        lines: vec![Line { line_no: 1, sku: "A".into(), quantity: 2, short: 1, ..Default::default() }],
        holds: vec![
            Hold {
                hold_id: "h1".into(),
                reason: "out_of_stock".into(),
                detail: "1 missing".into(),
                opened_at: Some(NOW),
                due_at: Some(NOW.plus(Micros::DAY)),
                ..Default::default()
            },
            Hold {
                hold_id: "h2".into(),
                reason: "address_invalid".into(),
                line_no: None,
                detail: "no house number".into(),
                opened_at: Some(NOW),
                due_at: Some(NOW.plus(-Micros::HOUR * 3)),
                ..Default::default()
            },
            Hold {
                hold_id: "h3".into(),
                reason: "awaiting_payment".into(),
                opened_at: Some(NOW),
                resolved_at: Some(NOW),
                resolution: "paid".into(),
                resolved_by: "kept".into(),
                ..Default::default()
            },
        ],
        shipments: vec![Shipment {
            shipment_id: "s".into(),
            simulated: true,
            status: "despatched".into(),
            lines: vec![(1, 1)],
            parcels: vec![Parcel {
                tracking_number: Some("3S1".into()),
                status: "in_transit".into(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn the_first_page_says_what_went_through_what_waits_and_what_is_late() {
    let listed = Listed { rows: vec![row()], more: false };
    let text = overview::body(&figures(), NOW, &listed, NOW).0;
    contains(
        &text,
        &[
            "18\u{202f}000</span><span class=\"name\">went through untouched",
            "90 % of 20\u{202f}000 orders; 700 more waited once and went on",
            "1\u{202f}300</span><span class=\"name\">wait for someone or something",
            "6</span><span class=\"name\">are late",
            "<a href=\"/waiting?reason=out_of_stock\">Out of stock</a>",
            "3 days late",
            "&lt;1&gt;",
            "1 of A &amp; B missing",
            "and 1 more",
            "./kept dead-letters list",
            "3 test orders",
        ],
    );
}

#[test]
fn a_deployment_without_orders_says_how_to_send_one() {
    let text = overview::body(&Overview::default(), NOW, &Listed::default(), NOW).0;
    contains(&text, &["No orders yet", "POST /v1/orders", "./kept import", "./kept sample"]);
}

#[test]
fn an_order_shows_every_reason_with_its_deadline_and_the_command_line_that_ends_it() {
    let told = vec![Told {
        seq: 1,
        event: "orders.held".into(),
        at: Some(NOW),
        detail: "Held: out of stock".into(),
        ..Default::default()
    }];
    let order = facts();
    let id = order.order_id.to_string();
    let text = order::body(&order, &told, false, NOW).0;
    contains(
        &text,
        &[
            "It waits for 2 reasons",
            "Out of stock",
            "1 missing",
            "in 24 h",
            "The address cannot be delivered to",
            "3 h late",
            &format!("./kept order release {id} --hold h2"),
            &format!("./kept order cancel {id}"),
            "Waited before",
            "test order",
            "simulated",
            "3S1",
            "Held: out of stock",
            &format!("./kept explain {id}"),
        ],
    );
}

#[test]
fn an_order_that_nothing_was_heard_of_shows_no_empty_tables() {
    let text = order::body(&OrderFacts::default(), &[], false, NOW).0;
    contains(&text, &["No line with goods", "Nothing has left yet", "No events here", "nothing heard yet"]);
    assert!(!text.contains("<table"), "{text}");
}

#[test]
fn a_list_leads_to_its_neighbours_and_says_when_it_is_empty() {
    let listed = Listed { rows: vec![row()], more: true };
    let by = By::Status("held & more".into());
    let text = list::body(&by, &listed, &figures(), 1, NOW).0;
    contains(
        &text,
        &["/orders?status=held%20%26%20more&amp;page=1", "/orders?status=held%20%26%20more&amp;page=3", "page 2"],
    );
    let text = list::body(&By::Held, &Listed::default(), &figures(), 0, NOW).0;
    contains(&text, &["Nothing waits here"]);
    let text = list::body(&By::All, &Listed::default(), &figures(), 7, NOW).0;
    contains(&text, &["There is nothing on this page"]);
}

/// WCAG 2.2: headings, labels, captions and scopes are there on every page.
#[test]
fn tables_have_captions_and_headers_for_screen_readers() {
    let text = order::body(&facts(), &[], false, NOW).0;
    assert_eq!(text.matches("<table>").count(), text.matches("<caption>").count());
    assert_eq!(text.matches("<th ").count(), text.matches("scope=\"col\"").count());
    assert!(text.matches("<th ").count() > 0);
}
