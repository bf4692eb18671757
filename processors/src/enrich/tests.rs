//! What is looked up, and which orders of others are not taken.

use kept_schemas::{
    Micros, OrderId, OrderLine,
    inbound::{Problem, ReferenceVersion, Unmapped},
    order::{Attribute, Charge},
    reference::{Customer, Location, Product},
};

use super::*;
use crate::hostile::{filled, holds_one, spoilt};

fn reference() -> Reference {
    let product = |sku: &str, weight_grams| {
        (sku.to_owned(), Product { sku: sku.into(), weight_grams, active: true, ..Default::default() })
    };
    let customer = |id: &str, class: &str, vat: Option<&str>| {
        let vat_country = vat.map(str::to_owned);
        (id.to_owned(), Customer { customer_ref: id.into(), class: class.into(), vat_country })
    };
    let shop = Location { location_id: "shop-1".into(), country: "BE".into(), active: true, ..Default::default() };
    Reference {
        products: [product("A", Some(300)), product("B", None), product("C", Some(i64::MAX)), product("D", Some(-1))]
            .into(),
        customers: [customer("trade", "wholesale", Some("DE")), customer("plain", "", None)].into(),
        locations: [("shop-1".to_owned(), shop)].into(),
        versions: [(Topic::ReferenceProducts, 9)].into(),
        ..Default::default()
    }
}

fn order(skus: &[(&str, i64)]) -> OrderReceived {
    let line = |(at, (sku, quantity)): (usize, &(&str, i64))| OrderLine {
        line_no: i32::try_from(at + 1).expect("few"),
        sku: (*sku).to_owned(),
        quantity: *quantity,
        ..Default::default()
    };
    let mut received = OrderReceived::default();
    received.order.shop = "shop.example".into();
    received.order.channel_order_id = "1001".into();
    received.order.order_id = OrderId::of("shop.example", "1001");
    received.order.lines = skus.iter().enumerate().map(line).collect();
    received.party.ship_to.country = "NL".into();
    received
}

fn enriched(it: OrderReceived) -> Enrichment {
    received(it, &reference()).expect("it is sound").enrichment
}

#[test]
fn weights_add_up_while_every_one_is_known() {
    for (skus, weight) in [
        (&[("A", 2)][..], Some(600)),
        (&[("A", 2), ("A", 1)], Some(900)),
        (&[], Some(0)),
        (&[("A", 2), ("B", 1)], None),
        (&[("A", 2), ("nobody's", 1)], None),
        (&[("C", 2)], None),
        (&[("C", 1), ("A", 1)], None),
        (&[("D", 1)], None),
        (&[("A", -1)], Some(0)),
    ] {
        assert_eq!(enriched(order(skus)).weight_grams, weight, "{skus:?}");
    }
}

#[test]
fn each_line_says_whether_its_sku_is_known() {
    let it = enriched(order(&[("A", 1), ("nobody's", 1), ("B", 1)]));
    let facts: Vec<(i32, bool, Option<i64>)> =
        it.lines.iter().map(|it| (it.line_no, it.known, it.weight_grams)).collect();
    assert_eq!(facts, vec![(1, true, Some(300)), (2, false, None), (3, true, None)]);
}

#[test]
fn class_and_vat_country_come_from_the_customer_else_from_the_order() {
    let case = |change: fn(&mut OrderReceived)| {
        let mut it = order(&[]);
        change(&mut it);
        let it = enriched(it);
        (it.customer_class, it.vat_country)
    };
    let is = |class: &str, country: &str| (class.to_owned(), country.to_owned());
    assert_eq!(case(|_| {}), is("consumer", "NL"));
    assert_eq!(case(|it| it.party.ship_to.company = Some("Made Up Ltd".into())), is("business", "NL"));
    assert_eq!(case(|it| it.order.customer_ref = Some("trade".into())), is("wholesale", "DE"));
    assert_eq!(case(|it| it.order.customer_ref = Some("plain".into())), is("consumer", "NL"));
    assert_eq!(case(|it| it.order.customer_ref = Some("stranger".into())), is("consumer", "NL"));
    assert_eq!(case(|it| it.order.delivery.pickup_location = Some("shop-1".into())), is("consumer", "BE"));
    assert_eq!(case(|it| it.party.ship_to.country.clear()), is("consumer", ""));
}

#[test]
fn the_versions_that_were_used_are_recorded() {
    let version = |topic: &str, version| ReferenceVersion { topic: topic.into(), version };
    assert_eq!(
        enriched(order(&[])).versions,
        vec![version("reference.products", 9), version("reference.locations", 0), version("reference.customers", 0),]
    );
}

#[test]
fn nothing_of_an_order_gets_lost_on_the_way() {
    let it = OrderReceived {
        received_at: Micros(5),
        body_hash: "hash".into(),
        problems: vec![Problem { field: "x".into(), ..Default::default() }],
        ..order(&[("A", 1)])
    };
    let made = received(it.clone(), &reference()).expect("it is sound");
    assert_eq!((made.order, made.party, made.problems), (it.order, it.party, it.problems));
    assert_eq!((made.received_at, made.body_hash, made.revision), (it.received_at, it.body_hash, 0));
}

#[test]
fn a_revised_order_keeps_its_revision_and_came_in_when_it_was_sent_back() {
    let it = order(&[("A", 1)]);
    let it = OrderRevised { revision: 2, at: Micros(8), order: it.order, party: it.party, ..Default::default() };
    let made = revised(it, &reference()).expect("it is sound");
    assert_eq!((made.revision, made.received_at, made.body_hash.as_str()), (2, Micros(8), ""));
}

/// The same order under another number, with the id that follows from it.
fn renumbered(it: &mut OrderReceived, number: &str) {
    it.order.channel_order_id = number.into();
    it.order.order_id = OrderId::of(&it.order.shop, number);
}

#[test]
fn texts_as_long_as_the_forms_take_them_are_taken() {
    let mut it = order(&[("A", 1)]);
    renumbered(&mut it, &"é".repeat(100));
    it.order.lines[0].sku = "é".repeat(100);
    it.party.ship_to.city = "é".repeat(200);
    it.order.attributes = vec![Attribute { name: "é".repeat(100), value: "é".repeat(2_000) }];
    assert_eq!(received(it, &reference()).map(drop), Ok(()));
}

#[test]
fn no_text_that_a_table_could_not_hold_gets_past_enrich() {
    let mut it: OrderReceived = filled();
    for (line, line_no) in it.order.lines.iter_mut().zip(1..) {
        (line.line_no, line.quantity, line.unit_price.scale) = (line_no, 1, 2);
    }
    for charge in &mut it.order.charges {
        (charge.quantity, charge.unit_price.scale) = (1, 2);
    }
    let taken = |mut it: OrderReceived| {
        it.order.order_id = OrderId::of(&it.order.shop, &it.order.channel_order_id);
        received(it, &reference())
    };
    assert_eq!(taken(it.clone()).map(drop), Ok(()), "it is taken as it is");
    for (place, it) in spoilt(&it) {
        match taken(it) {
            Ok(made) => assert!(!holds_one(&made), "{place}"),
            Err(why) => assert!(why.len() < 200 && !why.contains('\0'), "{place}: {why}"),
        }
    }
}

#[test]
fn fields_that_were_not_understood_go_along_by_name_and_without_what_stands_in_them() {
    let unmapped = |path: &str| Unmapped { path: path.into(), value: "\"Jane\"".into() };
    let with = |unmapped: Vec<Unmapped>| {
        received(OrderReceived { unmapped, ..order(&[]) }, &reference()).expect("it is sound").not_understood
    };
    assert_eq!(with(vec![]), Vec::<String>::new());
    assert_eq!(with(vec![unmapped("/gift"), unmapped("/lines/0/colour")]), vec!["/gift", "/lines/0/colour"]);
    assert_eq!(with(vec![unmapped("/a\0\n")]), vec!["/a\u{fffd}\u{fffd}"], "no table and no line breaks of it");
    assert_eq!(with(vec![unmapped(&"x".repeat(10_000))])[0].len(), 100);
    let many = with(vec![unmapped("/x"); 201]);
    assert_eq!((many.len(), many[20].as_str()), (21, "and more"));
}

#[test]
fn an_order_that_breaks_a_rule_of_the_contract_is_a_dead_letter_that_names_the_rule() {
    type Change = fn(&mut OrderReceived);
    let table: &[(Change, &str)] = &[
        (|it| it.order.order_id = OrderId::default(), "order_id is made from shop and channel_order_id"),
        (|it| it.order.shop.clear(), "shop and channel_order_id are not empty"),
        (|it| it.order.lines = vec![OrderLine::default(); 2_001], "at most 2000 lines"),
        (|it| it.order.charges = vec![Charge::default(); 201], "at most 200 charges"),
        (|it| it.order.lines[0].line_no = 2, "line_no counts 1, 2, 3"),
        (|it| it.order.lines[0].quantity = i64::MIN, "within the limits"),
        (|it| it.order.lines[0].unit_price.scale = 10, "within the limits"),
        (|it| it.order.lines[0].unit_price.scale = -1, "within the limits"),
        (|it| it.order.lines[0].line_total_minor = i64::MAX, "within the limits"),
        (|it| it.order.payment.captured_minor = i64::MIN, "within the limits"),
        (|it| it.order.total_minor = i64::MAX, "total_minor is the sum"),
        (|it| it.order.lines[0].sku = "A\0".into(), "U+0000"),
        (|it| it.party.ship_to.extra = Some("\0".into()), "U+0000"),
        (|it| it.party.bill_to = Some(Address { city: "\0".into(), ..Default::default() }), "bill_to.city holds"),
        (|it| it.problems = vec![Problem { detail: "\0".into(), ..Default::default() }], "problems.detail holds"),
        (|it| it.body_hash = "\0".into(), "body_hash holds"),
        (|it| renumbered(it, &"9".repeat(101)), "channel_order_id is longer than 100 characters"),
        (|it| it.order.lines[0].sku = "x".repeat(101), "lines.sku is longer than 100 characters"),
        (|it| it.order.customer_ref = Some("x".repeat(101)), "customer_ref is longer than 100 characters"),
        (|it| it.order.language = Some("x".repeat(36)), "language is longer than 35 characters"),
        (|it| it.order.currency = "x".repeat(11), "currency is longer than 10 characters"),
        (|it| it.order.payment.reference = Some("x".repeat(201)), "payment.reference is longer than 200"),
        (|it| it.party.email = Some("x".repeat(255)), "email is longer than 254 characters"),
        (|it| it.party.phone = Some("x".repeat(51)), "phone is longer than 50 characters"),
        (|it| it.party.ship_to.street = "x".repeat(201), "ship_to.street is longer than 200 characters"),
        (|it| it.order.lines[0].description = Some("x".repeat(2_001)), "lines.description is longer than 2000"),
        (|it| it.order.attributes = vec![Attribute { name: "x".repeat(101), ..Default::default() }], "attributes.name"),
        (|it| it.order.charges = vec![Charge { code: "x".repeat(101), ..Default::default() }], "charges.code"),
    ];
    for (change, rule) in table {
        let mut it = order(&[("A", 1)]);
        change(&mut it);
        let why = received(it, &reference()).expect_err(rule);
        assert!(why.starts_with("order breaks a rule: ") && why.contains(rule), "{why}");
    }
}
