//! Orders and what is wrong with them, as a table.

use std::collections::BTreeMap;

use kept_schemas::{
    OrderLine, Party,
    inbound::LineFacts,
    order::{Address, Charge, ChargeKind},
    reference::{Location, Policy, Product},
};
use proptest::prelude::*;

use super::*;

fn price(text: &str) -> UnitPrice {
    UnitPrice::parse(text).expect("a price")
}

/// Two of A at 12.50 and 4.95 postage: nothing is wrong with it.
fn order() -> OrderEnriched {
    let line = OrderLine {
        line_no: 1,
        sku: "A".into(),
        quantity: 2,
        unit_price: price("12.50"),
        line_total_minor: 2_500,
        ..Default::default()
    };
    let postage = Charge {
        kind: ChargeKind::Shipping,
        code: "POST".into(),
        quantity: 1,
        unit_price: price("4.95"),
        amount_minor: 495,
        ..Default::default()
    };
    OrderEnriched {
        order: Order {
            channel: "storefront".into(),
            currency: "EUR".into(),
            country: "NL".into(),
            placed_at: Micros(1_795_600_800_000_000),
            stated_total_minor: Some(2_995),
            total_minor: 2_995,
            lines: vec![line],
            charges: vec![postage],
            ..Default::default()
        },
        received_at: Micros(1_795_600_860_000_000),
        enrichment: Enrichment {
            lines: vec![LineFacts { line_no: 1, known: true, weight_grams: Some(300) }],
            ..Default::default()
        },
        party: Party {
            ship_to: Address {
                name: "Made Up".into(),
                street: "Voorbeeldstraat 12".into(),
                postcode: "1234 AB".into(),
                city: "Utrecht".into(),
                country: "NL".into(),
                ..Default::default()
            },
            ..Default::default()
        },
        ..Default::default()
    }
}

fn reference() -> Reference {
    let product = |sku: &str, active, max_quantity| {
        (sku.to_owned(), Product { sku: sku.into(), active, max_quantity, ..Default::default() })
    };
    let location =
        |id: &str, active| (id.to_owned(), Location { location_id: id.into(), active, ..Default::default() });
    Reference {
        products: [product("A", true, None), product("OLD", false, None), product("FEW", true, Some(3))].into(),
        locations: [location("open", true), location("shut", false)].into(),
        versions: BTreeMap::from([(Topic::ReferenceProducts, 5), (Topic::ReferencePolicies, 2)]),
        ..Default::default()
    }
}

fn problems(change: impl FnOnce(&mut OrderEnriched)) -> Vec<String> {
    let mut it = order();
    change(&mut it);
    let problems = decide(it, &reference()).problems;
    problems
        .into_iter()
        .map(|it| {
            let line = it.line_no.map(|no| format!(" {no}")).unwrap_or_default();
            format!("{}{line} {}: {}", it.reason, it.field, it.detail)
        })
        .collect()
}

#[test]
fn an_order_with_nothing_wrong_has_no_problem() {
    assert_eq!(problems(|_| {}), Vec::<String>::new());
}

#[test]
fn every_kind_of_fault_is_said_with_its_field_and_in_plain_words() {
    type Change = fn(&mut OrderEnriched);
    let table: Vec<(&str, Change, Vec<&str>)> = vec![
        (
            "no lines",
            |it| it.order = Order { lines: vec![], total_minor: 495, stated_total_minor: None, ..it.order.clone() },
            vec!["no_goods lines: the order has no line with goods"],
        ),
        (
            "unknown SKU",
            |it| it.enrichment.lines[0].known = false,
            vec!["unknown_sku 1 lines.sku: SKU \"A\" is not in the product list"],
        ),
        (
            "a line enrich did not see",
            |it| it.enrichment.lines.clear(),
            vec!["unknown_sku 1 lines.sku: SKU \"A\" is not in the product list"],
        ),
        ("no SKU", |it| it.order.lines[0].sku.clear(), vec!["incomplete 1 lines.sku: the line names no product"]),
        (
            "no longer sold",
            |it| it.order.lines[0].sku = "OLD".into(),
            vec!["unknown_sku 1 lines.sku: product \"OLD\" is no longer sold"],
        ),
        (
            "more than the product allows",
            |it| {
                let line = &mut it.order.lines[0];
                (line.sku, line.quantity, line.unit_price, line.line_total_minor) =
                    ("FEW".into(), 4, price("6.25"), 2_500);
            },
            vec!["value_implausible 1 lines.quantity: 4 units of \"FEW\" are more than the 3 that one order may have"],
        ),
        (
            "quantity zero",
            |it| {
                let line = &mut it.order.lines[0];
                (line.quantity, line.line_total_minor) = (0, 0);
                (it.order.total_minor, it.order.stated_total_minor) = (495, Some(495));
            },
            vec!["value_implausible 1 lines.quantity: the quantity is 0, not above zero"],
        ),
        (
            "quantity below zero",
            |it| {
                let line = &mut it.order.lines[0];
                (line.quantity, line.line_total_minor) = (-2, -2_500);
                (it.order.total_minor, it.order.stated_total_minor) = (-2_005, None);
            },
            vec![
                "value_implausible 1 lines.quantity: the quantity is -2, not above zero",
                "value_implausible total: the total is -20.05 EUR, below zero",
            ],
        ),
        (
            "a great many units",
            |it| {
                let line = &mut it.order.lines[0];
                (line.quantity, line.unit_price, line.line_total_minor) = (100_001, price("0"), 0);
                (it.order.total_minor, it.order.stated_total_minor) = (495, None);
            },
            vec!["value_implausible 1 lines.quantity: 100001 units are more than 100000"],
        ),
        (
            "a great deal of money",
            |it| {
                let line = &mut it.order.lines[0];
                (line.unit_price, line.line_total_minor) = (price("600000"), 120_000_000);
                (it.order.total_minor, it.order.stated_total_minor) = (120_000_495, None);
            },
            vec!["value_implausible total: the total is 1200004.95 EUR, more than 1000000.00 EUR"],
        ),
        (
            "a negative price",
            |it| {
                let line = &mut it.order.lines[0];
                (line.unit_price, line.line_total_minor) = (price("-0.01"), -2);
                (it.order.total_minor, it.order.stated_total_minor) = (493, None);
            },
            vec!["value_implausible 1 lines.unit_price: the price is below zero"],
        ),
        ("one cent more is within tolerance", |it| it.order.stated_total_minor = Some(2_996), vec![]),
        (
            "two cents more are not",
            |it| it.order.stated_total_minor = Some(2_997),
            vec!["totals_differ total: lines and charges make 29.95 EUR, the channel says 29.97 EUR"],
        ),
        (
            "another stated total, far off",
            |it| it.order.stated_total_minor = Some(i64::MIN),
            vec!["totals_differ total: lines and charges make 29.95 EUR, the channel says -92233720368547758.08 EUR"],
        ),
        ("no stated total", |it| it.order.stated_total_minor = None, vec![]),
        (
            "a total that is not the sum",
            |it| it.order.total_minor = 2_994,
            vec!["totals_differ total_minor: lines and charges make 29.95 EUR, the order says 29.94 EUR"],
        ),
        (
            "a line total that is not the product",
            |it| {
                it.order.lines[0].line_total_minor = 2_499;
                it.order.total_minor = 2_994;
            },
            vec!["totals_differ 1 lines.line_total_minor: quantity × price is 25.00 EUR, the line says 24.99 EUR"],
        ),
        (
            "a charge that is not the product",
            |it| {
                it.order.charges[0].quantity = 2;
            },
            vec!["totals_differ charges: quantity × price of charge \"POST\" is 9.90 EUR, it says 4.95 EUR"],
        ),
        (
            "a product that does not fit",
            |it| {
                it.order.lines[0].unit_price = UnitPrice { amount: i64::MAX, scale: 0 };
            },
            vec!["totals_differ 1 lines.line_total_minor: quantity × price is more than fits, the line says 25.00 EUR"],
        ),
        (
            "unknown currency",
            |it| it.order.currency = "XXX".into(),
            vec!["value_implausible currency: currency \"XXX\" is not one that is known here"],
        ),
        ("no currency", |it| it.order.currency.clear(), vec!["incomplete currency: the currency is missing"]),
        (
            "placed a week from now",
            |it| it.order.placed_at = it.received_at.plus(7 * Micros::DAY),
            vec!["value_implausible placed_at: placed at 2026-12-02T10:01:00Z, after it came in"],
        ),
        (
            "promised before it was placed",
            |it| {
                it.order.delivery.promised_at = Some(Micros(0));
                it.order.lines[0].ship_by = Some(Micros(0));
            },
            vec![
                "value_implausible delivery.promised_at: the promise lies before the order was placed",
                "value_implausible 1 lines.ship_by: the promise lies before the order was placed",
            ],
        ),
        (
            "a pick-up point needs no address",
            |it| {
                it.party = Party::default();
                it.order.delivery.pickup_location = Some("open".into());
            },
            vec![],
        ),
        (
            "a pick-up point that is shut",
            |it| it.order.delivery.pickup_location = Some("shut".into()),
            vec!["address_invalid delivery.pickup_location: the pick-up location is not one of ours, or not open"],
        ),
        (
            "several at once",
            |it| {
                it.party.ship_to.postcode = "12".into();
                it.enrichment.lines[0].known = false;
                it.order.stated_total_minor = Some(1);
            },
            vec![
                "address_invalid ship_to.postcode: the postcode does not have the form of NL (1234 AB)",
                "unknown_sku 1 lines.sku: SKU \"A\" is not in the product list",
                "totals_differ total: lines and charges make 29.95 EUR, the channel says 0.01 EUR",
            ],
        ),
    ];
    for (case, change, expected) in table {
        assert_eq!(problems(change), expected, "{case}");
    }
}

#[test]
fn what_others_found_before_stays_and_comes_first() {
    let found = Problem { reason: HoldReason::Manual, detail: "seen by the channel".into(), ..Default::default() };
    let mut it = order();
    it.problems = vec![found.clone()];
    it.order.currency.clear();
    let problems = decide(it, &reference()).problems;
    assert_eq!((problems.len(), &problems[0]), (2, &found));
}

#[test]
fn the_tolerance_is_the_channels_policy() {
    let mut reference = reference();
    let policy = Policy { scope: "storefront".into(), total_tolerance_minor: 500, ..Default::default() };
    reference.policies.insert("storefront".into(), policy);
    let mut it = order();
    it.order.stated_total_minor = Some(2_500);
    assert_eq!(decide(it, &reference).problems, vec![]);
}

#[test]
fn the_versions_of_what_was_looked_up_are_recorded_once() {
    let mut it = order();
    it.enrichment.versions = reference().versions_of(&[Topic::ReferenceProducts]);
    let versions = decide(it, &reference()).enrichment.versions;
    let shown: Vec<(&str, i64)> = versions.iter().map(|it| (it.topic.as_str(), it.version)).collect();
    assert_eq!(shown, vec![("reference.products", 5), ("reference.locations", 0), ("reference.policies", 2)]);
}

#[test]
fn problems_of_one_kind_are_bounded_and_the_rest_are_counted() {
    let mut it = order();
    it.order.lines = (1..=2_000).map(|line_no| OrderLine { line_no, ..it.order.lines[0].clone() }).collect();
    it.enrichment.lines.clear();
    it.order.total_minor = 2_000 * 2_500 + 495;
    it.order.stated_total_minor = None;
    let problems = decide(it, &reference()).problems;
    assert_eq!(problems.len(), MAX_PER_REASON + 1);
    assert_eq!(problems[MAX_PER_REASON].detail, "and 1980 more of the same kind");
}

#[test]
fn no_detail_shows_what_stands_in_a_field_about_a_person() {
    let secret = "Zanzibar9";
    let all = problems(|it| {
        let to = &mut it.party.ship_to;
        *to = Address {
            name: "-".into(),
            company: Some("-".into()),
            street: secret.into(),
            house_number: Some(secret.into()),
            extra: Some(secret.into()),
            postcode: secret.into(),
            city: "-".into(),
            region: Some(secret.into()),
            country: secret.into(),
            house_number_addition: Some(secret.into()),
        };
        it.party.email = Some(secret.into());
        it.party.phone = Some(secret.into());
    });
    assert!(all.len() >= 3 && all.iter().all(|it| !it.contains(secret)), "{all:?}");
}

proptest! {
    #[test]
    fn no_numbers_make_it_panic(
        quantity: i64, amount: i64, scale in -5i32..20, line_total: i64, total: i64, stated: Option<i64>, placed: i64,
    ) {
        let mut it = order();
        let line = &mut it.order.lines[0];
        line.quantity = quantity;
        line.unit_price = UnitPrice { amount, scale };
        line.line_total_minor = line_total;
        it.order.total_minor = total;
        it.order.stated_total_minor = stated;
        it.order.placed_at = Micros(placed);
        let _ = decide(it, &reference());
    }

    #[test]
    fn no_address_makes_it_panic(parts in proptest::array::uniform5("\\PC{0,15}"), country in "[A-Z]{0,3}|\\PC{0,3}") {
        let mut it = order();
        let [name, street, postcode, city, number] = parts;
        it.party.ship_to = Address { name, street, postcode, city, country, house_number: Some(number), ..Default::default() };
        let _ = decide(it, &reference());
    }
}
