//! What the pages and the API read, against a real Postgres.

mod common;

use common::Deployment;
use kept_schemas::{Micros, OrderId};
use kept_store::{
    Session, StoreError,
    accepted::{self, AtTheDoor},
    pages::{self, By, Count},
    pg::{Purpose, connect},
};
use std::time::Duration;

fn id(number: u32) -> OrderId {
    OrderId::of("shop.nl", &number.to_string())
}

/// Sixty orders as the sink would have written them: 1 is held twice (once overdue), 2 was held and went on, 3 missed
/// its ship-by, 4 is a test, the others went through; and one that was never accepted.
const ROWS: &str = "
    INSERT INTO order_rows (order_id, revision, order_no, channel, channel_order_id, shop, account, placed_at,
                            accepted_at, currency, total_minor, charges_minor, country, test, quantity, updated_at,
                            ship_by, open_holds, shipped, ship_name, payment_method)
    SELECT id, 0, n, 'storefront', n::text, 'shop.nl', 'main', '2026-11-25T10:00:00Z', '2026-11-25T10:00:01Z', 'EUR',
           1000 + n, 495, 'NL', n = 4, 2, '2026-11-25T10:00:02Z',
           CASE WHEN n = 3 THEN now() - interval '1 day' ELSE now() + interval '1 day' END,
           CASE WHEN n = 1 THEN 2 ELSE 0 END, CASE WHEN n > 5 THEN 2 ELSE 0 END, 'Someone', 'online'
    FROM unnest($1::uuid[]) WITH ORDINALITY AS u(id, n)";

const MORE: &[&str] = &[
    "INSERT INTO order_rows (order_id, quantity, updated_at) VALUES (gen_random_uuid(), 0, now())",
    "INSERT INTO line_rows (order_id, line_no, revision, sku, description, quantity, unit_price, line_total_minor, reserved)
     SELECT order_id, 1, 0, 'A', 'A thing', 2, 5.0250, 1005, 1 FROM order_rows WHERE order_no = 1",
    "INSERT INTO line_rows (order_id, line_no, revision, sku, quantity, unit_price, line_total_minor)
     SELECT order_id, 2, -1, 'OLD', 2, 1, 2 FROM order_rows WHERE order_no = 1",
    "INSERT INTO charge_rows (order_id, charge_no, revision, kind, code, quantity, unit_price, amount_minor)
     SELECT order_id, 1, 0, 'shipping', 'POST', 1, 4.95, 495 FROM order_rows WHERE order_no = 1",
    "INSERT INTO holds (order_id, hold_id, reason, detail, opened_at, due_at)
     SELECT order_id, 'h1', 'out_of_stock', '1 missing', now(), now() - interval '1 hour' FROM order_rows WHERE order_no = 1",
    "INSERT INTO holds (order_id, hold_id, reason, detail, opened_at, due_at)
     SELECT order_id, 'h2', 'address_invalid', 'no number', now(), now() + interval '1 hour' FROM order_rows WHERE order_no = 1",
    "INSERT INTO holds (order_id, hold_id, reason, detail, opened_at, due_at, resolved_at, resolution, resolved_by)
     SELECT order_id, 'h1', 'awaiting_payment', '', now(), now(), now(), 'paid', 'kept' FROM order_rows WHERE order_no = 2",
    "INSERT INTO holds (order_id, hold_id, reason, resolved_at) SELECT order_id, 'early', 'manual', now() FROM order_rows WHERE order_no = 9",
    "INSERT INTO shipments (shipment_id, location_id, carrier, simulated, despatched_at)
     VALUES ('s1', 'north', 'carrier', true, now())",
    "INSERT INTO shipment_lines SELECT 's1', order_id, 1, 1 FROM order_rows WHERE order_no IN (1, 2)",
    "INSERT INTO parcels (parcel_id, shipment_id, tracking_number, weight_grams) VALUES ('p1', 's1', '3S1', 250)",
    "INSERT INTO timeline (order_id, seq, event, at, detail)
     SELECT order_id, n, 'orders.held', now(), 'Held' FROM order_rows, generate_series(1, 7) n WHERE order_no = 1",
    "INSERT INTO postings SELECT 'x', order_id, 'sale', 'revenue', 'EUR', -1005, 'c', now() FROM order_rows WHERE order_no = 1",
    "INSERT INTO notifications SELECT 'n', order_id, 'confirmation', 'email', 'requested', now(), 0 FROM order_rows WHERE order_no = 1",
    "INSERT INTO dead_letters VALUES ('channels.inbound', 0, 1, 'normalise', 'not JSON', NULL, NULL, now())",
];

async fn session(deployment: &Deployment) -> Session {
    let schema = deployment.prefix.read();
    let client = connect(&deployment.url, &schema, Purpose::Command).await.expect("connects");
    let ids: Vec<uuid::Uuid> = (1..=60).map(|number| id(number).0).collect();
    client.execute(ROWS, &[&ids]).await.expect("orders");
    for sql in MORE {
        client.execute(*sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    Session::new(&deployment.url, schema, Purpose::Pages)
}

#[tokio::test]
async fn figures_lists_and_one_order_agree() {
    let deployment = Deployment::new().await;
    let session = session(&deployment).await;
    let client = session.client().await.expect("connects");

    let figures = pages::overview(&client).await.expect("figures");
    assert_eq!((figures.orders, figures.tests), (60, 1));
    assert_eq!((figures.untouched, figures.went_on, figures.waiting), (58, 1, 1));
    assert_eq!((figures.ship_by_missed, figures.overdue, figures.dead_letters), (1, 1, 1));
    assert_eq!(figures.statuses[0], Count { name: "despatched".into(), count: 55 });
    let reasons: Vec<(&str, i64, i64)> =
        figures.reasons.iter().map(|it| (it.reason.as_str(), it.orders, it.overdue)).collect();
    assert_eq!(reasons, [("address_invalid", 1, 0), ("out_of_stock", 1, 1)]);
    assert_eq!(figures.last_event_at, Micros::parse_rfc3339("2026-11-25T10:00:02Z"));

    for (by, page, numbers, more) in [
        (By::Held, 0, vec!["1"], false),
        (By::Reason("address_invalid".into()), 0, vec!["1"], false),
        (By::Reason("manual".into()), 0, vec![], false),
        (By::Overdue, 0, vec!["1"], false),
        (By::ShipByMissed, 0, vec!["3"], false),
        (By::Status("held".into()), 0, vec!["1"], false),
        (By::Status("nonsense".into()), 0, vec![], false),
        (By::Status("accepted".into()), 0, vec!["5", "4", "3", "2"], false),
        (
            By::All,
            1,
            (1..=10).rev().map(|it| ["", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"][it]).collect(),
            false,
        ),
        (By::All, 5, vec![], false),
    ] {
        let listed = pages::list(&client, &by, page).await.expect("a list");
        let found: Vec<&str> = listed.rows.iter().map(|it| it.number.as_str()).collect();
        assert_eq!((found, listed.more), (numbers, more), "{by:?}");
    }
    let first = pages::list(&client, &By::All, 0).await.expect("a list");
    assert_eq!((first.rows.len(), first.more, first.rows[0].number.as_str()), (50, true, "60"));
    // The hold of the first deadline is the one shown.
    let held = &pages::list(&client, &By::Held, 0).await.expect("a list").rows[0];
    assert_eq!((held.reason.as_str(), held.detail.as_str(), held.open_holds), ("out_of_stock", "1 missing", 2));

    let order = pages::order(&client, id(1)).await.expect("asked").expect("order 1");
    assert_eq!((order.order_id, order.number.as_str(), order.status.as_str()), (id(1), "1", "held"));
    assert_eq!((order.total_minor, order.charges_minor, order.person.name.as_str()), (1_001, 495, "Someone"));
    let [line] = &order.lines[..] else { panic!("one line, the old revision's left out: {:?}", order.lines) };
    assert_eq!((line.sku.as_str(), line.unit_price.as_str(), line.short), ("A", "5.0250", 1));
    assert_eq!(order.charges.len(), 1);
    assert_eq!(order.holds.iter().map(|it| it.hold_id.as_str()).collect::<Vec<_>>(), ["h1", "h2"]);
    let [shipment] = &order.shipments[..] else { panic!("one shipment") };
    assert_eq!((shipment.lines.clone(), shipment.simulated), (vec![(1, 1)], true));
    assert_eq!(shipment.parcels[0].tracking_number.as_deref(), Some("3S1"));
    assert_eq!((order.postings.len(), order.notifications.len()), (1, 1));
    assert_eq!(pages::order(&client, id(99)).await.expect("asked"), None);

    let told = pages::timeline(&client, id(1), 2, 3).await.expect("a timeline");
    assert_eq!(told.iter().map(|it| it.seq).collect::<Vec<_>>(), [3, 4, 5]);

    for asked in ["7", &id(7).to_string()] {
        let found = pages::find(&client, asked).await.expect("asked");
        assert_eq!(found.iter().map(|it| it.order_id).collect::<Vec<_>>(), [id(7)], "{asked}");
    }
    assert_eq!(pages::find(&client, "' OR true --").await.expect("asked"), []);
}

#[tokio::test]
async fn pages_cannot_write_and_their_session_comes_back() {
    let deployment = Deployment::new().await;
    let session = Session::new(&deployment.url, deployment.prefix.read(), Purpose::Pages);
    let client = session.client().await.expect("connects");
    let refused = client.execute("DELETE FROM dead_letters", &[]).await.expect_err("reads only");
    assert_eq!(refused.code().map(|it| it.code()), Some("25006"));

    let other = connect(&deployment.url, &deployment.prefix.read(), Purpose::Command).await.expect("connects");
    let name = Purpose::Pages.session(&deployment.prefix.read());
    other
        .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", &[&name])
        .await
        .expect("ended");
    let figures = loop {
        match session.within(Duration::from_secs(5), async |client| pages::overview(&client).await).await {
            Ok(figures) => break figures,
            // The end of a session is noticed when it is used.
            Err(StoreError::Postgres(_) | StoreError::Away(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(figures.orders, 0);

    let slow = session.within(Duration::from_millis(200), async |client| {
        client.query("SELECT pg_sleep(5)", &[]).await?;
        Ok(())
    });
    assert!(matches!(slow.await, Err(StoreError::Silent(_))));
}

#[tokio::test]
async fn an_order_accepted_at_the_door_is_known_until_the_ledger_has_had_it_for_a_day() {
    let deployment = Deployment::new().await;
    let client = connect(&deployment.url, &deployment.prefix.ledger(), Purpose::Door).await.expect("connects");
    let at_the_door =
        |number: u32| AtTheDoor { order_id: id(number), shop: "shop.nl".into(), number: number.to_string() };
    accepted::remember(&client, &[at_the_door(1), at_the_door(2), at_the_door(2)]).await.expect("remembered");
    accepted::remember(&client, &[at_the_door(1), at_the_door(3)]).await.expect("again is fine");
    assert_eq!(accepted::find(&client, id(1)).await.expect("asked"), Some(at_the_door(1)));
    assert_eq!(accepted::find(&client, id(9)).await.expect("asked"), None);

    // 1 and 2 are days old; the ledger has 1. 3 is older than anything is kept.
    client
        .batch_execute(
            "UPDATE http_accepted SET at = now() - CASE number WHEN '3' THEN interval '31 days' ELSE interval '2 days' END",
        )
        .await
        .expect("aged");
    client
        .execute(
            "WITH o AS (INSERT INTO orders (order_id) VALUES ($1) RETURNING order_no)
             INSERT INTO contents (order_no, content) SELECT order_no, '{}' FROM o",
            &[&id(1).0],
        )
        .await
        .expect("in the ledger");
    assert_eq!(accepted::forget(&client).await.expect("forgot"), 2);
    assert_eq!(accepted::find(&client, id(1)).await.expect("asked"), None);
    assert_eq!(accepted::find(&client, id(2)).await.expect("asked"), Some(at_the_door(2)));
}
