//! Orders by HTTP, by file and by topic, to their customer.

use std::{path::Path, process::Command};

use kept_schemas::{
    OrderId, Topic, UnitPrice,
    inbound::OrderReceived,
    order::{Address, Order, OrderLine, Party, PaymentMethod, PaymentTerms},
};
use serde_json::{Value, json};

use crate::deployment::{Deployment, KEY, SHOP, now, order, wait_for};

#[test]
fn an_order_by_http_goes_to_its_customer_and_the_check_is_green() {
    let mut kept = Deployment::new("http");
    kept.start_all();
    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("1001", &[("MUG", 2), ("PLATE", 1)]).to_string()));
    assert_eq!(status, 202, "{body}");
    let id = serde_json::from_str::<Value>(&body).expect("JSON")["order_id"].as_str().expect("an id").to_owned();
    // Known at once, whether the read model has it or not.
    let (status, body) = kept.http("GET", &format!("/v1/orders/{id}"), None);
    assert_eq!(status, 200, "{body}");
    kept.wait_status("1001", "delivered");
    let row = &kept.read("SELECT total_minor, quantity, shipped, reserved FROM orders")[0];
    let found: (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(found, (3_750, 3, 3, 0));
    let sold: i64 = kept
        .read("SELECT sum(amount_minor)::bigint FROM postings WHERE kind = 'sale' AND account = 'receivable'")[0]
        .get(0);
    assert_eq!(sold, 3_750);
    let stock = kept.read("SELECT on_hand, reserved FROM stock WHERE sku = 'MUG'");
    assert_eq!((stock[0].get::<_, i64>(0), stock[0].get::<_, i64>(1)), (998, 0));
    let told = kept.ok(&["explain", "1001"]);
    for word in ["1001", "delivered", "WH"] {
        assert!(told.contains(word), "explain does not say {word}:\n{told}");
    }
    kept.ok(&["check"]);
}

#[test]
fn the_same_order_twice_and_changed_is_one_order_with_a_question() {
    let mut kept = Deployment::new("twice");
    kept.start_all();
    let first = order("2001", &[("MUG", 1)]).to_string();
    for _ in 0..2 {
        let (status, body) = kept.http("POST", "/v1/orders", Some(&first));
        assert_eq!(status, 202, "{body}");
    }
    kept.wait_status("2001", "delivered");
    // The shop is connected a second time, by another account; what came by the first is recognised, a change is not.
    kept.by_topic("files", "2001", &first);
    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("2002", &[("MUG", 1)]).to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("2002", "delivered");
    let open = kept.read("SELECT reason, detail FROM holds WHERE opened_at IS NOT NULL");
    let open: Vec<(&str, &str)> = open.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(open.iter().all(|(reason, _)| *reason != "changed_after_acceptance"), "{open:?}");
    kept.by_topic("files", "2001", &order("2001", &[("MUG", 5)]).to_string());
    wait_for("the question", || {
        let open = kept.read("SELECT reason FROM holds WHERE resolved_at IS NULL AND opened_at IS NOT NULL");
        open.iter().any(|row| row.get::<_, &str>(0) == "changed_after_acceptance").then_some(())
    });
    let rows = kept.read("SELECT quantity FROM orders WHERE channel_order_id = '2001'");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, i64>(0), 1, "the order that was accepted stands");
    kept.ok(&["check"]);
}

#[test]
fn an_order_waits_for_stock_and_goes_on_when_it_comes() {
    let mut kept = Deployment::new("stock");
    kept.start_all();
    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("3001", &[("RARE", 3)]).to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("3001", "held");
    let more = json!({"sku": "RARE", "location_id": "WH", "condition": "sellable", "count_id": "second",
                      "kind": "receipt", "quantity": 5, "at": "2026-01-02T00:00:00Z", "source": "feed"});
    let file = kept.file("more.jsonl", &[more]);
    kept.ok(&["stock", "receive", &file]);
    kept.wait_status("3001", "delivered");
    let how: String = kept.read("SELECT resolution FROM holds WHERE reason = 'out_of_stock'")[0].get(0);
    assert_eq!(how, "stock_arrived");
    kept.ok(&["check"]);
}

#[test]
fn a_cancelled_order_gives_everything_back() {
    let mut kept = Deployment::new("cancel");
    kept.start_all();
    let mut unpaid = order("4001", &[("MUG", 7)]);
    unpaid["payment"] = json!({"method": "bank_transfer"});
    let (status, body) = kept.http("POST", "/v1/orders", Some(&unpaid.to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("4001", "held");
    let id = serde_json::from_str::<Value>(&body).expect("JSON")["order_id"].as_str().expect("an id").to_owned();
    let (status, body) = kept.http(
        "POST",
        &format!("/v1/orders/{id}/cancellation"),
        Some(&json!({"reason": "changed my mind"}).to_string()),
    );
    assert_eq!(status, 202, "{body}");
    kept.wait_status("4001", "cancelled");
    let claimed: i64 = kept.ledger("SELECT coalesce(sum(claimed), 0)::bigint FROM skus")[0].get(0);
    assert_eq!(claimed, 0);

    // Nobody pays and nobody says so: time alone ends it.
    let policy = json!({"topic": "policies", "value": {"scope": "default", "payment_due_seconds": 2}});
    kept.ok(&["reference", "apply", &kept.file("policy.jsonl", &[policy])]);
    let mut unpaid = order("4002", &[("MUG", 7)]);
    unpaid["payment"] = json!({"method": "online"});
    // The process hears of the policy when it comes by, so the first orders may still have an hour.
    let mut attempts = 0;
    wait_for("an order that waits two seconds for its payment", || {
        attempts += 1;
        let number = format!("4002-{attempts}");
        unpaid["order_number"] = number.clone().into();
        let (status, body) = kept.http("POST", "/v1/orders", Some(&unpaid.to_string()));
        assert_eq!(status, 202, "{body}");
        wait_for("its hold", || kept.status(&number).filter(|it| it != "accepted"));
        let short =
            "SELECT 1 FROM holds WHERE reason = 'awaiting_payment' AND due_at < opened_at + interval '1 minute'";
        (!kept.read(short).is_empty()).then_some(())
    });
    kept.wait_status(&format!("4002-{attempts}"), "cancelled");
    assert_eq!(kept.read("SELECT 1 FROM holds WHERE resolution = 'expired'").len(), 1);
    kept.ok(&["check"]);
}

/// A year of orders with everything that goes wrong in such a file, and the same again.
#[test]
fn a_file_imported_twice_is_on_the_books_once() {
    let mut kept = Deployment::new("import");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| root.join(path).display().to_string();
    let (file, map) = (text("channels/fixtures/dirty-year.csv"), text("channels/maps/online-retail.toml"));
    let import = ["import", &file, "--map", &map, "--json"];
    let kinds = "products,stock,customers,locations,accounts";
    let derive = ["--dry-run", "--derive", kinds, "--derive-to", "derived"];
    let said = |output: std::process::Output| -> Value {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let dry = said(kept.run(&[&import[..], &derive].concat()));
    let orders = dry["found"]["orders"].as_i64().expect("a number");
    assert!(orders > 3, "{dry}");
    let files = ["products", "customers", "locations", "accounts"].map(|it| format!("derived/{it}.jsonl"));
    kept.ok(&[&["reference", "apply"][..], &files.each_ref().map(String::as_str)].concat());
    kept.start_all();
    kept.ok(&["stock", "receive", "derived/stock.jsonl"]);
    let first = said(kept.run(&import));
    assert_eq!(first["found"]["accepted"], orders, "{first}");
    let resumed = said(kept.run(&[&import[..], &["--resume"]].concat()));
    let found = &resumed["found"];
    assert_eq!((&found["accepted"], &found["already_accepted"]), (&json!(0), &json!(orders)), "{resumed}");
    // Without its log the file is sent again, whole.
    let again = said(kept.run(&[&import[..], &["--logs", "elsewhere"]].concat()));
    assert_eq!(again["found"]["accepted"], orders, "{again}");

    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("after", &[("MUG", 1)]).to_string()));
    assert_eq!(status, 202, "{body}");
    kept.wait_status("after", "delivered");
    let books = || -> i64 { kept.read("SELECT count(*) FROM orders WHERE account = 'online-retail'")[0].get(0) };
    wait_for("the file's orders", || (books() >= orders).then_some(()));
    assert_eq!(books(), orders);
    let open = "SELECT 1 FROM holds WHERE reason = 'changed_after_acceptance'";
    assert!(kept.read(open).is_empty(), "the same order was taken for another");
    let checked = kept.ok(&["check", "--json"]);
    assert!(checked.contains("orders in senders' logs"), "{checked}");
}

/// kcat is not ours and knows nothing of us: the key, the topic and the bytes are all there is to the contract.
#[test]
fn an_order_by_a_client_that_is_not_ours_arrives() {
    let mut kept = Deployment::new("kcat");
    kept.start_all();
    kept.by_topic("web", "5001", &order("5001", &[("MUG", 1)]).to_string());
    // Another team's order, in the one model already.
    let whole = received("5002");
    let bytes = kept.codec(Topic::OrdersReceived).encode(&whole).expect("it fits").bytes();
    kept.kcat("orders.received", &whole.order.order_id.to_string(), &bytes, &[]);
    kept.wait_status("5001", "delivered");
    kept.wait_status("5002", "delivered");
    let row =
        &kept.read("SELECT channel, account, total_minor, shipped FROM orders WHERE channel_order_id = '5002'")[0];
    let found: (&str, &str, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(found, ("storefront", "another-team", 2_500, 2));
    the_example_in_python_is_taken(&kept);
    kept.ok(&["check"]);
}

/// A whole order as another team produces it.
fn received(number: &str) -> OrderReceived {
    let order_id = OrderId::of(SHOP, number);
    let price = UnitPrice { amount: 1_250, scale: 2 };
    OrderReceived {
        order: Order {
            order_id,
            channel: "storefront".into(),
            shop: SHOP.into(),
            channel_order_id: number.into(),
            account: "another-team".into(),
            placed_at: now(),
            currency: "EUR".into(),
            total_minor: 2_500,
            country: "NL".into(),
            lines: vec![OrderLine {
                line_no: 1,
                sku: "MUG".into(),
                quantity: 2,
                unit_price: price,
                line_total_minor: 2_500,
                ..OrderLine::default()
            }],
            payment: PaymentTerms { method: PaymentMethod::Channel, ..PaymentTerms::default() },
            ..Order::default()
        },
        received_at: now(),
        body_hash: format!("{number} of another team"),
        party: Party {
            ship_to: Address {
                name: "J. de Vries".into(),
                street: "Langestraat".into(),
                house_number: Some("12".into()),
                postcode: "3811 AB".into(),
                city: "Amersfoort".into(),
                country: "NL".into(),
                ..Address::default()
            },
            email: Some("someone@mail.example".into()),
            ..Party::default()
        },
        ..OrderReceived::default()
    }
}

/// docs/examples/produce.py by both of its ways, where its two packages are installed.
fn the_example_in_python_is_taken(kept: &Deployment) {
    let there = Command::new("python3").args(["-c", "import confluent_kafka, fastavro"]).output();
    if !there.is_ok_and(|it| it.status.success()) {
        eprintln!("left out: docs/examples/produce.py needs python3 with confluent-kafka and fastavro");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let text = std::fs::read_to_string(folder.join("order.json")).expect("an order");
    let mut form: Value = serde_json::from_str(&text).expect("JSON");
    for (what, number) in [("inbound", "5003"), ("received", "5004")] {
        form["order_number"] = number.into();
        let file = kept.file(&format!("{number}.json"), &[form.clone()]);
        let mut command = kept.beside("python3");
        command.arg(folder.join("produce.py")).args([what, &file, "--account", "web", "--shop", SHOP]);
        let output = command.output().expect("python3 starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Its article is not one of ours; that is for people to see.
        kept.wait_status(number, "held");
    }
}

#[test]
fn steps_run_fused_and_apart_and_can_be_switched() {
    let mut kept = Deployment::new("apart");
    kept.start_all();
    let post = |kept: &Deployment, number: &str| {
        let (status, body) = kept.http("POST", "/v1/orders", Some(&order(number, &[("MUG", 1)]).to_string()));
        assert_eq!(status, 202, "{body}");
    };
    post(&kept, "6001");
    kept.wait_status("6001", "delivered");
    kept.kill("run");
    kept.start("apart", &["run", "all", "--apart"]);
    kept.wait_ready();
    post(&kept, "6002");
    kept.wait_status("6002", "delivered");
    kept.kill("apart");
    kept.start("run", &["run", "all"]);
    kept.wait_ready();
    post(&kept, "6003");
    kept.wait_status("6003", "delivered");
    kept.ok(&["check"]);
}

#[test]
fn a_key_that_is_not_the_accounts_opens_nothing() {
    let mut kept = Deployment::new("key");
    kept.start_all();
    let url = format!("http://{}/v1/orders", kept.http);
    let status = kept.runtime.block_on(async {
        let client = crate::deployment::client();
        let response = client.post(url).bearer_auth(format!("{KEY}x")).body("{}").send().await.expect("an answer");
        response.status().as_u16()
    });
    assert_eq!(status, 401);
    kept.ok(&["check"]);
}
