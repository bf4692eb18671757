//! Bad input, servers that are away, processes that are killed: each with its clear answer, and nothing lost.

use kept_schemas::{
    EventId, OrderId, Topic,
    inputs::{PaymentKind, PaymentReceived},
};
use serde_json::{Value, json};

use crate::deployment::{Deployment, SHOP, now, order, wait_for};

/// A trace that a sender began.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_missing_topic_and_a_server_that_is_away_are_said_plainly() {
    let kept = Deployment::bare("away");
    let output = kept.run(&["run", "all", "--wait", "2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("kept topics apply") || said.contains("kept migrate"), "{said}");
    let mut nowhere = kept.command(&["topics", "apply"]);
    let output = nowhere.env("KEPT_KAFKA", "127.0.0.1:1").output().expect("kept starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn bad_bodies_are_refused_with_the_field_and_the_reason() {
    let mut kept = Deployment::new("bodies");
    kept.start_all();
    let huge = "x".repeat(50_000_000);
    let mut lines = order("7001", &[("MUG", 1)]);
    lines["lines"] = (0..10_000).map(|_| serde_json::json!({"sku": "MUG", "quantity": 1, "unit_price": "1"})).collect();
    let mut wrong = order("7002", &[("MUG", 1)]);
    wrong["lines"][0]["quantity"] = "many".into();
    let cases = [
        ("", &[400, 411][..]),
        ("{", &[400]),
        ("[1, 2", &[400]),
        (huge.as_str(), &[413]),
        (&lines.to_string(), &[400, 413, 422]),
        (&wrong.to_string(), &[400, 422]),
    ];
    for (body, allowed) in cases {
        let (status, answer) = kept.http("POST", "/v1/orders", Some(body));
        let head: String = body.chars().take(40).collect();
        assert!(allowed.contains(&status), "{head}: {status} {answer}");
        assert!(answer.contains("\"title\""), "{head}: not a problem: {answer}");
    }
    let (_, answer) = kept.http("POST", "/v1/orders", Some(&wrong.to_string()));
    assert!(answer.contains("/lines/0/quantity"), "{answer}");
    assert!(kept.read("SELECT 1 FROM orders").is_empty());
    kept.ok(&["check"]);
}

#[test]
fn unreadable_records_become_dead_letters_and_hold_nobody_up() {
    let mut kept = Deployment::new("dead");
    kept.start_all();
    // Five bytes; a schema id nobody knows; not Avro at all.
    for bytes in [&b"\0\0\0\0\x01"[..], b"\0\x7f\xff\xff\xff\x00\x01", b"hello"] {
        kept.kcat("orders.received", "x", bytes, &[("traceparent", TRACE)]);
    }
    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("8001", &[("MUG", 1)]).to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("8001", "delivered");
    wait_for("three dead letters", || (kept.read("SELECT 1 FROM dead_letters").len() == 3).then_some(()));
    // Exit code 1: there is something to look at.
    let output = kept.run(&["dead-letters", "list"]);
    let listed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{listed}");
    assert_eq!(listed.matches("orders.received/").count(), 3, "{listed}");
    // Whoever sent them finds their lines by the trace that they sent along.
    let log = kept.log("run");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let traced: Vec<Value> = lines.filter(|line| line["traceparent"] == TRACE).collect();
    assert_eq!(traced.len(), 3, "{log}");
    assert!(traced.iter().all(|line| line["record"].as_str().is_some_and(|it| it.contains("/"))), "{log}");
    kept.ok(&["check"]);
}

/// A fault of ours that ends the process: the record that meets it is set aside, and everything else goes on.
#[test]
fn a_record_that_ends_the_process_three_times_is_parked_and_holds_nobody_up() {
    let mut kept = Deployment::new("abort");
    let payment = EventId::of_input("another team", "9501", b"");
    // Without timers, whose one slot would be waited for at each start.
    let parts = ["run", "steps", "ledger", "read", "http"];
    let start = |kept: &mut Deployment| {
        let mut command = kept.command(&parts);
        command.env("KEPT_CHAOS_ABORT_ON", payment.to_string());
        kept.spawn("run", command);
    };
    start(&mut kept);
    kept.wait_ready();
    kept.start("simulate", &["simulate", "--speed", "36000", "--rate", "refused=0", "--rate", "delivery-failed=0"]);
    let mut unpaid = order("9501", &[("MUG", 1)]);
    unpaid["payment"] = json!({"method": "bank_transfer"});
    let (status, body) = kept.http("POST", "/v1/orders", Some(&unpaid.to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("9501", "held");

    let order_id = OrderId::of(SHOP, "9501");
    let pay = |kept: &Deployment, payment_id: &str, amount_minor: i64, event: EventId| {
        let paid = PaymentReceived {
            order_id,
            payment_id: payment_id.into(),
            kind: PaymentKind::Captured,
            amount_minor,
            currency: "EUR".into(),
            at: now(),
            source: "another team".into(),
            detail: None,
            not_understood: Vec::new(),
        };
        let bytes = kept.codec(Topic::PaymentsReceived).encode(&paid).expect("it fits").bytes();
        kept.kcat("payments.received", &order_id.to_string(), &bytes, &[("kept-event-id", &event.to_string())]);
    };
    pay(&kept, "p1", 1_000, payment);
    let mut ends = 0;
    wait_for("the record to be parked", || {
        if kept.ended("run") {
            ends += 1;
            start(&mut kept);
        }
        (!kept.ledger("SELECT 1 FROM parked").is_empty()).then_some(())
    });
    assert_eq!(ends, 3, "it is parked at the third end, and not before");
    kept.wait_ready();
    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("9502", &[("MUG", 1)]).to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("9502", "delivered");
    assert_eq!(kept.status("9501").as_deref(), Some("held"));
    let output = kept.run(&["parked", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "{listed}");
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["order_id"]), (Some(1), &json!(order_id.to_string())));

    // What comes after it queues behind.
    pay(&kept, "p2", 250, EventId::of_input("another team", "9501", b"the rest"));
    wait_for("the rest to queue", || (kept.ledger("SELECT 1 FROM parked").len() == 2).then_some(()));

    // The fault is mended.
    kept.kill("run");
    kept.start("run", &parts);
    kept.wait_ready();
    let would: Value =
        serde_json::from_str(&kept.ok(&["parked", "replay", "9501", "--dry-run", "--json"])).expect("JSON");
    assert_eq!((&would["sent"], would["records"].as_array().map(Vec::len)), (&json!(false), Some(2)), "{would}");
    let sent: Value = serde_json::from_str(&kept.ok(&["parked", "replay", "9501", "--json"])).expect("JSON");
    assert_eq!((&sent["sent"], sent["records"].as_array().map(Vec::len)), (&json!(true), Some(2)), "{sent}");
    let captured = "SELECT body FROM events WHERE topic = 'orders.paid' AND order_id = $1";
    assert_eq!(kept.ledger(&captured.replace("$1", &format!("'{order_id}'"))).len(), 2, "one after the other");
    kept.wait_status("9501", "delivered");
    // Its name of old is taken still.
    assert_eq!(kept.run(&["parked", "release", "9501"]).status.code(), Some(1), "it is parked no more");
    kept.ok(&["check"]);
}

#[test]
fn a_killed_process_loses_nothing_and_doubles_nothing() {
    let mut kept = Deployment::new("kill");
    kept.start_all();
    for round in 0..3 {
        for number in 0..40 {
            let body = order(&format!("9{round}{number:02}"), &[("MUG", 1), ("PLATE", 1)]).to_string();
            let (status, answer) = kept.http("POST", "/v1/orders", Some(&body));
            assert_eq!(status, 202, "{answer}");
        }
        kept.kill("run");
        kept.start("run", &["run", "all"]);
        kept.wait_ready();
    }
    wait_for("120 deliveries", || {
        let done = kept.read("SELECT count(*) FROM orders WHERE status = 'delivered'");
        (done[0].get::<_, i64>(0) == 120).then_some(())
    });
    let shipped: i64 = kept.read("SELECT sum(quantity)::bigint FROM shipment_lines")[0].get(0);
    assert_eq!(shipped, 240);
    kept.ok(&["check"]);
}

#[test]
fn the_checker_turns_red_when_a_row_is_lost_copied_or_changed_by_a_cent() {
    let mut kept = Deployment::new("red");
    kept.start_all();
    for number in ["1", "2", "3"] {
        let (status, body) = kept.http("POST", "/v1/orders", Some(&order(number, &[("MUG", 1)]).to_string()));
        assert_eq!(status, 202, "{body}");
    }
    for number in ["1", "2", "3"] {
        kept.wait_status(number, "delivered");
    }
    kept.ok(&["check"]);
    let tampers = [
        ("read", "DELETE FROM timeline WHERE event = 'orders.released'"),
        ("read", "UPDATE order_rows SET total_minor = total_minor + 1 WHERE channel_order_id = '2'"),
        ("read", "DELETE FROM order_rows WHERE channel_order_id = '3'"),
        ("ledger", "UPDATE stock SET on_hand = on_hand + 1 WHERE sku = 'MUG'"),
    ];
    for (schema, sql) in tampers {
        kept.tamper(schema, sql);
        let output = kept.run(&["check"]);
        assert_eq!(output.status.code(), Some(1), "the checker did not see: {sql}");
    }
}
