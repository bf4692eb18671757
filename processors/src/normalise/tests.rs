//! Bodies and what becomes of them.

use kept_schemas::{Micros, order::PaymentMethod};
use proptest::prelude::*;

use super::*;
use crate::hostile::{holds_one, spoilt};

const NOW: Micros = Micros(1_795_600_800_000_000);

fn reference() -> Reference {
    let account = |id: &str, active| {
        let account = Account {
            account_id: id.into(),
            channel: "storefront".into(),
            shop: "shop.example".into(),
            active,
            ..Default::default()
        };
        (id.to_owned(), account)
    };
    Reference { accounts: [account("shop-1", true), account("closed", false)].into(), ..Default::default() }
}

fn inbound(kind: InboundKind, body: &str) -> Inbound {
    Inbound {
        account: "shop-1".into(),
        kind,
        format: format!("kept.{kind}.v1"),
        shop: "shop.example".into(),
        external_id: "1001".into(),
        received_at: NOW,
        body: body.as_bytes().to_vec(),
        ..Default::default()
    }
}

fn run(inbound: &Inbound) -> Result<Normalised, String> {
    decide(inbound, EventId::default(), &reference())
}

fn received(body: &str) -> OrderReceived {
    match run(&inbound(InboundKind::Order, body)) {
        Ok(Normalised::Order(it)) => *it,
        other => panic!("{other:?}"),
    }
}

fn with(more: &str) -> String {
    format!(r#"{{"order_number":"1001","placed_at":"2026-11-25T10:00:00Z"{more}}}"#)
}

#[test]
fn an_order_belongs_to_the_shop_and_channel_of_the_account_that_sent_it() {
    let body = with(r#","shop":"another.example","account":"other","channel":"amazon""#);
    let it = received(&body);
    assert_eq!((it.order.shop.as_str(), it.order.channel.as_str()), ("shop.example", "storefront"));
    assert_eq!((it.order.account.as_str(), it.order.channel_order_id.as_str()), ("shop-1", "1001"));
    assert_eq!(it.order.order_id, OrderId::of("shop.example", "1001"));
    let kept: Vec<&str> = it.unmapped.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(kept, vec!["/shop", "/account", "/channel"], "what the body says of it is kept, not believed");
}

#[test]
fn lines_and_charges_are_rounded_once_each_and_added_up() {
    let it = received(&with(
        r#","currency":"EUR","total":"3.97","lines":[
            {"sku":"A","quantity":100,"unit_price":"0.0375","line_id":"x"},
            {"sku":"B","quantity":1,"unit_price":0.005},{"sku":"C","quantity":3,"unit_price":"0.333"}],
            "charges":[{"kind":"discount","unit_price":"-0.79","code":"NOV"}]"#,
    ));
    let totals: Vec<(i32, i64)> = it.order.lines.iter().map(|it| (it.line_no, it.line_total_minor)).collect();
    assert_eq!(totals, vec![(1, 375), (2, 1), (3, 100)]);
    assert_eq!((it.order.charges[0].amount_minor, it.order.charges[0].quantity), (-79, 1));
    assert_eq!((it.order.total_minor, it.order.stated_total_minor), (397, Some(397)));
}

#[test]
fn minor_units_are_those_of_the_currency() {
    for (currency, total) in [("EUR", 1_250), ("JPY", 13), ("BHD", 12_500), ("XXX", 1_250), ("", 1_250)] {
        let it = received(&with(&format!(
            r#","currency":"{currency}","lines":[{{"sku":"A","quantity":1,"unit_price":"12.5"}}]"#
        )));
        assert_eq!(it.order.total_minor, total, "{currency}");
    }
}

#[test]
fn an_order_that_says_nothing_of_payment_is_to_be_paid_online_and_unpaid() {
    let it = received(&with(""));
    assert_eq!(it.order.payment, PaymentTerms { method: PaymentMethod::Online, ..Default::default() });
    let it = received(&with(r#","currency":"EUR","payment":{"method":"channel","captured":"1.5","reference":"r"}"#));
    assert_eq!((it.order.payment.method, it.order.payment.captured_minor), (PaymentMethod::Channel, 150));
}

#[test]
fn who_an_order_is_for_is_in_the_party_and_its_country_beside_it() {
    let it =
        received(&with(r#","email":"a@example.com","ship_to":{"name":"N","country":"nl"},"bill_to":{"city":"C"}"#));
    assert_eq!((it.order.country.as_str(), it.party.ship_to.name.as_str()), ("NL", "N"));
    assert_eq!(it.party.email.as_deref(), Some("a@example.com"));
    assert_eq!(it.party.bill_to.expect("another address").city, "C");
}

#[test]
fn the_hash_is_of_the_body_as_it_came() {
    let body = with("");
    assert_eq!(received(&body).body_hash, sha256_hex(body.as_bytes()));
    assert_ne!(received(&format!("{body} ")).body_hash, sha256_hex(body.as_bytes()));
    assert_eq!(received(&body).received_at, NOW);
}

#[test]
fn a_cancellation_is_a_command_of_the_account() {
    let body = r#"{"request_id":"r1","reason":"changed my mind","lines":[{"line_no":2,"quantity":1}]}"#;
    let Ok(Normalised::Command(it)) = run(&inbound(InboundKind::Cancellation, body)) else { panic!("a command") };
    assert_eq!((it.order_id, it.kind), (OrderId::of("shop.example", "1001"), CommandKind::Cancel));
    assert_eq!((it.command_id.as_str(), it.by.as_str(), it.at), ("r1", "shop-1", NOW));
    assert_eq!((it.lines[0].line_no, it.reason.as_deref()), (2, Some("changed my mind")));
    let event = EventId::of_input("a", "b", b"7");
    let made = decide(&inbound(InboundKind::Cancellation, "{}"), event, &reference());
    let Ok(Normalised::Command(it)) = made else { panic!("a command") };
    assert_eq!((it.command_id, it.lines.len()), (event.to_string(), 0), "the record's own id will do");
}

#[test]
fn a_payment_is_a_fact_in_minor_units() {
    let body = |currency: &str, amount: &str| {
        format!(
            r#"{{"payment_id":"p1","kind":"refunded","amount":"{amount}","currency":"{currency}","at":"2026-11-25T10:00:00Z"}}"#
        )
    };
    let made = run(&inbound(InboundKind::Payment, &body("eur", "1.5")));
    let Ok(Normalised::Payment(it)) = made else { panic!("a payment") };
    assert_eq!((it.amount_minor, it.currency.as_str(), it.source.as_str()), (150, "EUR", "shop-1"));
    assert_eq!((it.order_id, it.payment_id.as_str()), (OrderId::of("shop.example", "1001"), "p1"));
    let why = run(&inbound(InboundKind::Payment, &body("XXX", "1.5"))).expect_err("which currency?");
    assert_eq!(why, "body is not a kept.payment.v1: /currency is not a currency that is known here");
}

#[test]
fn what_of_a_cancellation_or_a_payment_was_not_understood_goes_along_by_name() {
    let body = r#"{"lines":[{"line_no":1,"quantity":1,"colour":"red"}],"who":"Jane"}"#;
    let Ok(Normalised::Command(it)) = run(&inbound(InboundKind::Cancellation, body)) else { panic!("a command") };
    assert_eq!(it.not_understood, vec!["/lines/0/colour", "/who"]);
    let body =
        r#"{"payment_id":"p","kind":"captured","amount":"1","currency":"EUR","at":"2026-11-25T10:00:00Z","iban":"x"}"#;
    let Ok(Normalised::Payment(it)) = run(&inbound(InboundKind::Payment, body)) else { panic!("a payment") };
    assert_eq!(it.not_understood, vec!["/iban"]);
}

#[test]
fn what_is_no_order_is_a_dead_letter_with_its_reason() {
    let order = || inbound(InboundKind::Order, &with(""));
    type Change = fn(&mut Inbound);
    let table: &[(Change, &str)] = &[
        (
            |it| it.account = "nobody".into(),
            "channel account \"nobody\" is not in reference.accounts; add it, then replay this record",
        ),
        (
            |it| it.account = "closed".into(),
            "channel account \"closed\" is not active; make it so, then replay this record",
        ),
        (
            |it| it.shop = "another.example".into(),
            "record is of shop \"another.example\", but channel account \"shop-1\" brings orders of shop \"shop.example\"",
        ),
        (|it| it.external_id = " ".into(), "record names no order (external_id is empty)"),
        (|it| it.external_id = "1002".into(), "record and body name two different orders (external_id, order_number)"),
        (|it| it.kind = InboundKind::Unknown, "kind of body is none of order, cancellation, payment"),
        (
            |it| it.format = "kept.order.v9".into(),
            "form \"kept.order.v9\" of a body is not known here; kept.order.v1 is",
        ),
        (
            |it| it.body.clear(),
            "body is not a kept.order.v1: the body is not JSON: EOF while parsing a value at line 1 column 0",
        ),
        (|it| it.body = vec![0xff], "body is not a kept.order.v1: the body is not UTF-8"),
        (|it| it.body = vec![b' '; 50_000_000], "body is not a kept.order.v1: the body is larger than 800000 bytes"),
        (
            |it| it.body = br#"{"order_number":1,"test":1,"lines":1,"ship_to":1,"email":1,"phone":1}"#.to_vec(),
            "body is not a kept.order.v1: /placed_at is missing; /order_number is not a text; /test is neither true nor \
             false; /lines is not a list; /ship_to is not an object; and 2 more",
        ),
    ];
    for (change, reason) in table {
        let mut it = order();
        change(&mut it);
        assert_eq!(run(&it), Err((*reason).to_owned()));
    }
}

#[test]
fn a_word_from_outside_cannot_break_a_line_of_a_log() {
    let it = Inbound { account: "a\n".repeat(100), ..inbound(InboundKind::Order, &with("")) };
    let why = run(&it).expect_err("nobody");
    assert!(!why.contains('\n') && why.len() < 300, "{why}");
}

#[test]
fn the_shop_of_a_record_may_be_left_to_the_account() {
    let it = Inbound { shop: String::new(), ..inbound(InboundKind::Order, &with("")) };
    assert!(run(&it).is_ok());
}

#[test]
fn no_text_of_an_envelope_that_a_table_could_not_hold_gets_past_normalise() {
    for (kind, body) in [
        (InboundKind::Order, with("")),
        (InboundKind::Cancellation, "{}".to_owned()),
        (
            InboundKind::Payment,
            r#"{"payment_id":"p","kind":"captured","amount":"1","currency":"EUR","at":"2026-11-25T10:00:00Z"}"#.into(),
        ),
    ] {
        let whole = Inbound { source_version: Some("7".into()), ..inbound(kind, &body) };
        assert!(run(&whole).is_ok(), "{kind}");
        for (place, it) in spoilt(&whole) {
            match run(&it) {
                Ok(Normalised::Order(made)) => assert!(!holds_one(&made), "{kind} {place}"),
                Ok(Normalised::Command(made)) => assert!(!holds_one(&made), "{kind} {place}"),
                Ok(Normalised::Payment(made)) => assert!(!holds_one(&made), "{kind} {place}"),
                Err(why) => assert!(why.len() < 300 && !why.contains('\0'), "{kind} {place}: {why}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..3) {
        let kind = InboundKind::ALL[kind];
        let _ = run(&Inbound { body, ..inbound(kind, "") });
    }

    #[test]
    fn an_order_that_is_taken_adds_up(
        lines in proptest::collection::vec((
                prop_oneof![-1_000_000_000i64..=1_000_000_000, -50i64..2_000],
                prop_oneof![1 => any::<i64>(), 9 => -1_000_000i64..1_000_000],
                0u32..=9,
            ), 0..6),
        currency in proptest::sample::select(&["EUR", "JPY", "BHD", "XXX"][..]),
    ) {
        let line = |(quantity, amount, scale): &(i64, i64, u32)| {
            let price = UnitPrice { amount: *amount, scale: i32::try_from(*scale).expect("small") };
            format!(r#"{{"sku":"A","quantity":{quantity},"unit_price":"{price}"}}"#)
        };
        let lines: Vec<String> = lines.iter().map(line).collect();
        let body = with(&format!(r#","currency":"{currency}","lines":[{}]"#, lines.join(",")));
        if let Ok(Normalised::Order(it)) = run(&inbound(InboundKind::Order, &body)) {
            let sum: i128 = it.order.lines.iter().map(|it| i128::from(it.line_total_minor)).sum();
            prop_assert_eq!(sum, i128::from(it.order.total_minor));
            prop_assert!(crate::enrich::received(*it, &reference()).is_ok(), "what is taken keeps every rule");
        }
    }
}
