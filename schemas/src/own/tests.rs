//! The forms as tables, and as properties over orders made up by proptest.

use proptest::prelude::*;

use super::*;
use crate::inputs::{LineQuantity, PaymentKind};

const WHOLE: &str = r#"{
  "order_number": " 1001 ", "placed_at": "2026-11-25T10:00:00Z", "currency": "eur", "total": "29.95",
  "customer_number": "C-7", "language": "nl", "test": true,
  "ship_to": {"name": "Made Up", "company": "Made Up Ltd", "street": "Some Street", "house_number": 12,
    "house_number_addition": "b", "extra": "2nd floor", "postcode": "1234 AB", "city": "Utrecht", "region": "UT",
    "country": "nl"},
  "bill_to": {"name": "Someone Else"}, "email": "someone@example.com", "phone": "+31 30 0000000",
  "lines": [{"sku": "A", "quantity": 2, "unit_price": 12.50, "description": "A thing", "line_id": "x1",
    "promised_at": "2026-11-27T00:00:00Z", "ship_by": "2026-11-26T00:00:00Z", "attributes": {"gift": true, "n": 1.50}}],
  "charges": [{"kind": "shipping", "code": "POST", "quantity": 1, "unit_price": "4.95", "description": "Post"}],
  "payment": {"method": "online", "authorised": "0.00", "captured": "29.95", "reference": "tr_1"},
  "delivery": {"service": "standard", "requested_at": "2026-11-26T00:00:00Z", "promised_at": "2026-11-28T00:00:00Z",
    "ship_by": "2026-11-27T00:00:00Z", "pickup_location": "shop-1"},
  "attributes": {"campaign": "november", "nested": {"a": [1, 2]}, "empty": null}
}"#;

fn refused(body: impl AsRef<[u8]>) -> Vec<String> {
    match OrderForm::parse(body.as_ref()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The smallest order, with `more` fields.
fn with(more: &str) -> String {
    format!(r#"{{"order_number":"1","placed_at":"2026-11-25T10:00:00Z"{more}}}"#)
}

#[test]
fn every_field_of_an_order_is_read() {
    let Parsed { form, unmapped } = OrderForm::parse(WHOLE.as_bytes()).expect("it is an order");
    assert_eq!(unmapped, vec![]);
    assert_eq!(form.order_number, "1001");
    assert_eq!(form.placed_at, Micros(1_795_600_800_000_000));
    assert_eq!((form.currency.as_str(), form.total), ("EUR", UnitPrice::parse("29.95")));
    assert_eq!((form.customer_number.as_deref(), form.language.as_deref(), form.test), (Some("C-7"), Some("nl"), true));
    let to = form.ship_to.clone().expect("an address");
    assert_eq!((to.house_number.as_deref(), to.house_number_addition.as_deref()), (Some("12"), Some("b")));
    assert_eq!((to.postcode.as_str(), to.country.as_str()), ("1234 AB", "NL"));
    assert_eq!(form.bill_to.clone().expect("an address").name, "Someone Else");
    let line = &form.lines[0];
    assert_eq!((line.sku.as_str(), line.quantity, line.unit_price.to_string()), ("A", 2, "12.50".into()));
    let attribute = |name: &str, value: &str| Attribute { name: name.into(), value: value.into() };
    assert_eq!(line.attributes, vec![attribute("gift", "true"), attribute("n", "1.50")]);
    assert_eq!(form.charges[0].kind, ChargeKind::Shipping);
    assert_eq!((form.payment.method, form.payment.captured.to_string()), (PaymentMethod::Online, "29.95".into()));
    assert_eq!(form.delivery.pickup_location.as_deref(), Some("shop-1"));
    assert_eq!(form.attributes, vec![attribute("campaign", "november"), attribute("nested", r#"{"a": [1, 2]}"#)]);
    assert_eq!((form.total_minor(), form.units()), (Some(2995), 2));
}

#[test]
fn an_order_reads_back_as_it_was_written() {
    let form = OrderForm::parse(WHOLE.as_bytes()).expect("it is an order").form;
    assert_eq!(OrderForm::parse(&form.to_json()), Ok(Parsed { form, unmapped: vec![] }));
}

#[test]
fn the_example_of_the_page_is_an_order() {
    let page = include_str!("../../../docs/order-form.md");
    let mut examples = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().expect("it ends"));
    let order = OrderForm::parse(examples.next().expect("an order").as_bytes()).expect("it is an order");
    assert_eq!(order.unmapped, vec![]);
    assert_eq!(order.form.total_minor(), order.form.total.and_then(|it| it.total_minor(1, 2)), "its total is right");
    let file = OrderForm::parse(include_bytes!("../../../docs/examples/order.json"));
    assert_eq!(file, Ok(order), "the file beside produce.py is the same");
    let cancellation = CancellationForm::parse(examples.next().expect("a cancellation").as_bytes());
    assert_eq!(cancellation.expect("it is a cancellation").unmapped, vec![]);
    let payment = PaymentForm::parse(examples.next().expect("a payment").as_bytes());
    assert_eq!(payment.expect("it is a payment").unmapped, vec![]);
}

#[test]
fn what_is_wrong_with_an_order_but_can_be_written_down_is_accepted() {
    for more in [
        "",
        r#","lines":[]"#,
        r#","ship_to":null,"currency":"","total":null"#,
        r#","currency":"XXX","total":"1.2345""#,
        r#","lines":[{"quantity":0,"unit_price":"0"},{"sku":"","quantity":-5,"unit_price":"-1.00"}]"#,
        r#","ship_to":{"country":"Nowhere"}"#,
        r#","lines":[{"sku":"A","quantity":1000000000,"unit_price":"999.99"}]"#,
    ] {
        assert_eq!(refused(with(more)), Vec::<String>::new(), "{more}");
    }
}

#[test]
fn what_cannot_be_written_down_is_refused_with_its_field_and_reason() {
    let line = |fields: &str| with(&format!(r#","lines":[{{"sku":"A","quantity":1,"unit_price":"1"}},{{{fields}}}]"#));
    for (body, reasons) in [
        (String::new(), vec!["the body is not JSON: EOF while parsing a value at line 1 column 0"]),
        ("[]".into(), vec!["the body is not an object"]),
        ("{".into(), vec!["the body is not JSON: EOF while parsing an object at line 1 column 1"]),
        ("{}".into(), vec!["/order_number is missing", "/placed_at is missing"]),
        (with(r#","order_number":"2""#), vec!["the body has a field twice"]),
        (r#"{"order_number":"  ","placed_at":null}"#.into(), vec!["/placed_at is missing", "/order_number is empty"]),
        (
            r#"{"order_number":7,"placed_at":"today"}"#.into(),
            vec![
                "/order_number is not a text",
                r#"/placed_at is not a time with its offset, such as "2026-11-25T10:00:00Z""#,
            ],
        ),
        (with(r#","test":"yes""#), vec!["/test is neither true nor false"]),
        (with(r#","ship_to":"Some Street 1""#), vec!["/ship_to is not an object"]),
        (with(r#","ship_to":{"city":5}"#), vec!["/ship_to/city is not a text"]),
        (with(r#","email":"a\u0000b""#), vec!["/email holds the character U+0000"]),
        (with(r#","lines":{"sku":"A"}"#), vec!["/lines is not a list"]),
        (with(r#","lines":[5]"#), vec!["/lines/0 is not an object"]),
        (line(r#""sku":"B""#), vec!["/lines/1/quantity is missing", "/lines/1/unit_price is missing"]),
        (
            line(r#""quantity":1.5,"unit_price":"1e3""#),
            vec![
                "/lines/1/quantity is not a whole number",
                r#"/lines/1/unit_price is not an amount such as "12.50", with at most 9 decimals and 18 digits in all"#,
            ],
        ),
        (
            line(r#""quantity":"2","unit_price":true"#),
            vec!["/lines/1/quantity is not a whole number", r#"/lines/1/unit_price is not an amount such as "12.50""#],
        ),
        (
            line(r#""quantity":1e30,"unit_price":1e30"#),
            vec![
                "/lines/1/quantity is not a whole number",
                r#"/lines/1/unit_price is not an amount such as "12.50", with at most 9 decimals and 18 digits in all"#,
            ],
        ),
        (
            line(r#""quantity":99999999999999999999,"unit_price":"1000000000000""#),
            vec!["/lines/1/quantity is beyond 1000000000", "/lines/1/unit_price is an amount of 10^12 or more"],
        ),
        (line(r#""quantity":-1000000000,"unit_price":"1000""#), vec!["/lines/1 comes to 10^12 or more"]),
        (
            with(r#","charges":[{"kind":"tip","unit_price":"1"}]"#),
            vec![
                "/charges/0/kind is not one of shipping, discount, channel_fee, bank_fee, gift_card, sample, manual, other",
            ],
        ),
        (
            with(r#","payment":{"method":"unknown","captured":"-1"}"#),
            vec![
                "/payment/method is not one of channel, online, bank_transfer, on_account, cash_on_delivery",
                "/payment/captured is negative",
            ],
        ),
        (with(r#","total":"1.005","currency":"EUR""#), vec!["/total has more than the 2 decimals of EUR"]),
        (
            with(r#","currency":"JPY","payment":{"captured":"1.5"}"#),
            vec!["/payment has more than the 0 decimals of JPY"],
        ),
        (
            with(r#","attributes":{"":"x"}"#),
            vec!["/attributes has a name that is empty, longer than 100 characters or holds U+0000"],
        ),
        (
            with(&format!(r#","customer_number":"{}""#, "x".repeat(101))),
            vec!["/customer_number is longer than 100 characters"],
        ),
        (
            with(&format!(r#","lines":[{}]"#, vec!["5"; 10_000].join(","))),
            vec!["/lines has 10000 entries, more than 2000"],
        ),
        (
            with(&format!(
                r#","attributes":{{{}}}"#,
                (0..101).map(|it| format!(r#""{it}":0"#)).collect::<Vec<_>>().join(",")
            )),
            vec!["/attributes has more than 100 fields"],
        ),
    ] {
        assert_eq!(refused(&body), reasons, "{}", &body[..body.len().min(200)]);
    }
    assert_eq!(refused([0xff, 0xfe]), vec!["the body is not UTF-8"]);
    assert_eq!(refused(vec![b' '; MAX_BODY_BYTES + 1]), vec!["the body is larger than 800000 bytes"]);
    assert_eq!(refused(vec![b'['; MAX_BODY_BYTES]).len(), 1, "deep nesting ends");
    assert_eq!(
        refused(with(&format!(r#","lines":[{}]"#, vec!["5"; 100].join(",")))).len(),
        20,
        "no more than 20 reasons"
    );
}

#[test]
fn a_number_may_be_written_without_quotes_and_is_read_from_its_digits() {
    let body = with(r#","currency":"EUR","total":0.10,"lines":[{"sku":"A","quantity":2.0,"unit_price":0.000000001}]"#);
    let form = OrderForm::parse(body.as_bytes()).expect("it is an order").form;
    assert_eq!(form.total, Some(UnitPrice { amount: 10, scale: 2 }));
    assert_eq!((form.lines[0].quantity, form.lines[0].unit_price), (2, UnitPrice { amount: 1, scale: 9 }));
}

#[test]
fn a_field_that_is_not_part_of_the_form_is_kept_with_its_place() {
    let body = with(r#","a/b~c":[1, 2],"lines":[{"sku":"A","quantity":1,"unit_price":"1","colour":"red"}]"#);
    let unmapped = OrderForm::parse(body.as_bytes()).expect("it is an order").unmapped;
    let it = |path: &str, value: &str| Unmapped { path: path.into(), value: value.into() };
    assert_eq!(unmapped, vec![it("/a~1b~0c", "[1, 2]"), it("/lines/0/colour", "\"red\"")]);
}

#[test]
fn what_is_kept_of_unknown_fields_is_bounded_and_says_so() {
    let line = r#"{"quantity":1,"unit_price":"1","x":1}"#;
    let body = with(&format!(r#","y":"{}ü","lines":[{}]"#, "x".repeat(498), vec![line; 300].join(",")));
    let unmapped = OrderForm::parse(body.as_bytes()).expect("it is an order").unmapped;
    assert_eq!(unmapped.len(), 201);
    assert_eq!(unmapped[0].value.len(), 499, "cut before the character that does not fit");
    assert_eq!(unmapped[200].value, "101 more fields are only in the raw body");
}

#[test]
fn a_cancellation_is_for_the_whole_order_or_for_quantities_of_lines() {
    let parse = |body: &str| {
        CancellationForm::parse(body.as_bytes())
            .map(|it| it.form)
            .map_err(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(parse("{}"), Ok(CancellationForm::default()));
    let lines = vec![LineQuantity { line_no: 2, quantity: 1 }];
    let some = CancellationForm { request_id: Some("r1".into()), reason: Some("changed my mind".into()), lines };
    assert_eq!(parse(std::str::from_utf8(&some.to_json()).expect("text")), Ok(some));
    for (body, reason) in [
        (r#"{"lines":[]}"#, "/lines is empty; leave it out to cancel the whole order"),
        (r#"{"lines":[{"line_no":0,"quantity":1}]}"#, "/lines/0/line_no is less than 1"),
        (r#"{"lines":[{"line_no":1,"quantity":-1}]}"#, "/lines/0/quantity is less than 1"),
        (r#"{"lines":[{"line_no":1}]}"#, "/lines/0/quantity is missing"),
        ("null", "the body is not an object"),
    ] {
        assert_eq!(parse(body), Err(vec![reason.to_owned()]), "{body}");
    }
}

#[test]
fn a_payment_is_read_to_the_cent_or_refused() {
    let body =
        |fields: &str| format!(r#"{{"payment_id":"p1","kind":"captured","at":"2026-11-25T10:00:00Z",{fields}}}"#);
    let parsed = PaymentForm::parse(body(r#""amount":"119.90","currency":"EUR","detail":"card""#).as_bytes());
    let form = parsed.expect("it is a payment").form;
    assert_eq!((form.amount_minor(), form.kind), (Some(11_990), PaymentKind::Captured));
    assert_eq!(PaymentForm::parse(&form.to_json()).expect("it is a payment").form, form);
    for (fields, reason) in [
        (r#""amount":"1.005","currency":"EUR""#, "/amount has more than the 2 decimals of EUR"),
        (r#""amount":"-1.00","currency":"EUR""#, "/amount is negative"),
        (r#""amount":"1.00","currency":"XXX""#, "/currency is not a currency that is known here"),
        (r#""amount":"1.00""#, "/currency is missing"),
        (r#""amount":null,"currency":"EUR""#, "/amount is missing"),
    ] {
        let problems = PaymentForm::parse(body(fields).as_bytes()).expect_err(fields);
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), vec![reason], "{fields}");
    }
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9é\"\\\\/~-]([ -~éü]{0,20}[a-zA-Z0-9é\"\\\\])?"
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(word())
}

fn instant() -> impl Strategy<Value = Micros> {
    (0i64..253_402_300_800_000_000).prop_map(Micros)
}

/// Less than 1,000, so that no quantity takes it over the limit.
fn price() -> impl Strategy<Value = UnitPrice> {
    (0i32..=9, 0i64..1_000).prop_map(|(scale, amount)| UnitPrice { amount, scale })
}

fn some_attributes() -> impl Strategy<Value = Vec<Attribute>> {
    proptest::collection::btree_map(word(), word(), 0..4)
        .prop_map(|it| it.into_iter().map(|(name, value)| Attribute { name, value }).collect())
}

fn some_address_form() -> impl Strategy<Value = Option<Address>> {
    proptest::option::of((proptest::array::uniform4(word()), proptest::array::uniform5(maybe())).prop_map(
        |([name, street, postcode, city], [company, house_number, house_number_addition, extra, region])| Address {
            name,
            street,
            postcode,
            city,
            company,
            house_number,
            house_number_addition,
            extra,
            region,
            country: "NL".into(),
        },
    ))
}

fn some_line() -> impl Strategy<Value = LineForm> {
    (word(), -1_000_000i64..1_000_000, price(), maybe(), maybe(), proptest::option::of(instant()), some_attributes())
        .prop_map(|(sku, quantity, unit_price, description, line_id, promised_at, attributes)| LineForm {
            sku,
            quantity,
            unit_price,
            description,
            line_id,
            promised_at,
            ship_by: promised_at,
            attributes,
        })
}

prop_compose! {
    fn some_order()(
        order_number in word(), placed_at in instant(), customer_number in maybe(), test: bool,
        ship_to in some_address_form(), bill_to in some_address_form(), email in maybe(),
        lines in proptest::collection::vec(some_line(), 0..4), total in proptest::option::of(-1_000_000i64..1_000_000),
        captured in 0i64..1_000_000, promised_at in proptest::option::of(instant()), service in maybe(),
        attributes in some_attributes(), kind in proptest::sample::select(ChargeKind::ALL), code in word(),
    ) -> OrderForm {
        let cents = |amount| UnitPrice { amount, scale: 2 };
        OrderForm {
            order_number, placed_at, currency: "EUR".into(), total: total.map(cents), customer_number, language: None,
            test, ship_to, bill_to, phone: email.clone(), email, lines,
            charges: vec![ChargeForm { kind, code, quantity: -1, unit_price: cents(captured), description: None }],
            payment: PaymentTermsForm { captured: cents(captured), ..Default::default() },
            delivery: Delivery { service, promised_at, ..Default::default() }, attributes,
        }
    }
}

proptest! {
    #[test]
    fn any_order_reads_back_as_it_was_written(form in some_order()) {
        prop_assert_eq!(OrderForm::parse(&form.to_json()), Ok(Parsed { form, unmapped: vec![] }));
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (OrderForm::parse(&bytes), CancellationForm::parse(&bytes), PaymentForm::parse(&bytes));
    }

    #[test]
    fn no_damage_to_an_order_makes_the_reader_panic(at in 0usize..1_800, byte: u8) {
        let mut body = WHOLE.as_bytes().to_vec();
        let at = at % body.len();
        body[at] = byte;
        if let Ok(parsed) = OrderForm::parse(&body) {
            prop_assert_eq!(OrderForm::parse(&parsed.form.to_json()).map(|it| it.form), Ok(parsed.form));
        }
    }
}
