//! Orders by every way in, to their customer.

use std::time::SystemTime;

use kept_schemas::{
    Codec, Micros, OrderId, Topic,
    inbound::{Inbound, InboundKind},
};
use serde_json::{Value, json};

use crate::deployment::{Deployment, KEY, SHOP, order, wait_for};

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
    let (status, body) = kept.http("POST", "/v1/orders", Some(&order("2001", &[("MUG", 5)]).to_string()));
    assert_eq!(status, 202, "{body}");
    wait_for("the question", || {
        let open = kept.read("SELECT reason FROM holds WHERE resolved_at IS NULL AND opened_at IS NOT NULL");
        open.iter().any(|row| row.get::<_, &str>(0) == "changed_after_acceptance").then_some(())
    });
    let rows = kept.read("SELECT quantity FROM orders");
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
    kept.ok(&["check"]);
}

/// kcat is not ours and knows nothing of us: the key, the topic and the bytes are all there is to the contract.
#[test]
fn an_order_by_a_client_that_is_not_ours_arrives() {
    let mut kept = Deployment::new("kcat");
    kept.start_all();
    let mut codec = Codec::default();
    codec.register(Topic::ChannelsInbound, kept.schema_id("channels.inbound")).expect("a schema of ours");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let raw = Inbound {
        account: "web".into(),
        kind: InboundKind::Order,
        format: "kept.order.v1".into(),
        shop: SHOP.into(),
        external_id: "5001".into(),
        received_at: Micros(i64::try_from(now.as_micros()).expect("an instant")),
        body: order("5001", &[("MUG", 1)]).to_string().into_bytes(),
        ..Default::default()
    };
    let bytes = codec.encode(&raw).expect("it fits").bytes();
    kept.kcat("channels.inbound", &OrderId::of(SHOP, "5001").to_string(), &bytes);
    kept.wait_status("5001", "delivered");
    kept.ok(&["check"]);
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
}
