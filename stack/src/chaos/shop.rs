//! A made-up shop: what it sells, and its n-th order. Pure: the same seed and number give the same order, its later
//! payment and cancellation included.

use kept_schemas::{
    Micros, OrderId, UnitPrice,
    ids::derive,
    inputs::PaymentKind,
    order::{Address, ChargeKind, PaymentMethod},
    own::{CancellationForm, ChargeForm, LineForm, OrderForm, PaymentForm, PaymentTermsForm},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

pub const ACCOUNT: &str = "chaos-shop";
pub const SHOP: &str = "chaos.example";
/// Two warehouses.
pub const LOCATIONS: [&str; 2] = ["dc-north", "dc-south"];
const PRODUCTS: u32 = 200;
/// The first few are hard to get: each receipt brings a few dozen.
pub const SCARCE: u32 = 3;
/// How long an unpaid order waits, in seconds: short, so that timers have work.
pub const PAYMENT_DUE_SECONDS: i64 = 40;

/// What else is sent about an order, and how long after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    pub after_ms: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The same body again.
    Again,
    Payment(Vec<u8>),
    Cancellation(Vec<u8>),
}

/// An order as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub number: String,
    pub order_id: OrderId,
    pub body: Vec<u8>,
    pub lines: usize,
    pub units: i64,
    pub total_minor: i64,
    pub follow_ups: Vec<FollowUp>,
    /// By HTTP, not by topic.
    pub by_http: bool,
}

/// The SKU of the n-th product.
pub fn sku(product: u32) -> String {
    format!("CHAOS-{product:03}")
}

/// Every SKU, and whether it is hard to get.
pub fn skus() -> impl Iterator<Item = (String, bool)> {
    (0..PRODUCTS).map(|it| (sku(it), it < SCARCE))
}

/// The reference data that the shop needs, as `kept reference apply` takes it, one value a line.
pub fn reference(key_hash: &str) -> Vec<Value> {
    let of = |topic: &str, value: Value| json!({ "topic": topic, "value": value });
    let mut lines = vec![
        of(
            "accounts",
            json!({ "account_id": ACCOUNT, "channel": "storefront", "shop": SHOP, "key_hashes": [key_hash],
                    "active": true }),
        ),
        of(
            "policies",
            json!({ "scope": "default", "payment_due_seconds": PAYMENT_DUE_SECONDS,
                    "transfer_due_seconds": 604_800, "hold_due_seconds": 172_800, "despatch_due_seconds": 259_200,
                    "total_tolerance_minor": 1 }),
        ),
    ];
    lines.extend(LOCATIONS.iter().zip(1..).map(|(location, priority)| {
        of(
            "locations",
            json!({ "location_id": location, "name": location, "kind": "warehouse", "country": "NL",
                    "priority": priority, "active": true }),
        )
    }));
    lines.extend((0..PRODUCTS).map(|it| {
        of(
            "products",
            json!({ "sku": sku(it), "description": format!("made-up product {it}"),
                    "weight_grams": 100 + 37 * (it % 40), "vat_class": "standard", "active": true }),
        )
    }));
    lines
}

/// The n-th order. `unpaid`: some may stay unpaid until their time is over.
pub fn order(seed: u64, n: u64, placed_at: Micros, unpaid: bool) -> Made {
    let number = format!("K{seed}-{n}");
    let id = derive("chaos", &[&seed.to_be_bytes(), &n.to_be_bytes()]);
    let mut rng = ChaCha8Rng::seed_from_u64(id.as_u64_pair().0);
    let mut in_a_thousand = |rate: u32| rng.random_range(0..1_000) < rate;
    let (scarce, unknown, no_address) = (in_a_thousand(20), in_a_thousand(5), in_a_thousand(5));
    let (later, never, cancelled, again) = (in_a_thousand(50), in_a_thousand(5), in_a_thousand(40), in_a_thousand(20));
    let by_http = in_a_thousand(200);

    let mut lines: Vec<LineForm> = Vec::new();
    for _ in 0..rng.random_range(1..=5) {
        // Squared: some products sell far more often than others.
        let draw = f64::from(rng.random_range(0..1_000u32)) / 1_000.0;
        let product = SCARCE + (draw * draw * f64::from(PRODUCTS - SCARCE)) as u32;
        lines.push(line(sku(product), rng.random_range(1..=3), rng.random_range(100..5_000)));
    }
    if scarce {
        lines.push(line(sku(rng.random_range(0..SCARCE)), rng.random_range(1..=2), 9_900));
    }
    if unknown {
        lines.push(line("CHAOS-UNKNOWN".into(), 1, 100));
    }
    let charges = vec![ChargeForm {
        kind: ChargeKind::Shipping,
        code: "POST".into(),
        quantity: 1,
        unit_price: UnitPrice { amount: 495, scale: 2 },
        description: None,
    }];
    let mut form = OrderForm {
        order_number: number.clone(),
        placed_at,
        currency: "EUR".into(),
        customer_number: Some(format!("C-{}", rng.random_range(0..500))),
        ship_to: (!no_address).then(|| address(&mut rng)),
        lines,
        charges,
        ..Default::default()
    };
    let total_minor = form.total_minor().expect("small numbers");
    let total = UnitPrice { amount: total_minor, scale: 2 };
    form.total = Some(total);
    let waits = later || (never && unpaid);
    form.payment = PaymentTermsForm {
        method: PaymentMethod::Online,
        captured: if waits { UnitPrice { amount: 0, scale: 2 } } else { total },
        ..Default::default()
    };

    let mut follow_ups = Vec::new();
    if later {
        let payment = PaymentForm {
            payment_id: format!("pay-{number}"),
            kind: PaymentKind::Captured,
            amount: total,
            currency: "EUR".into(),
            at: placed_at,
            detail: None,
        };
        follow_ups.push(FollowUp { after_ms: rng.random_range(500..8_000), what: What::Payment(payment.to_json()) });
    }
    if cancelled {
        let cancellation =
            CancellationForm { request_id: Some(format!("c-{number}")), reason: None, lines: Vec::new() };
        let what = What::Cancellation(cancellation.to_json());
        follow_ups.push(FollowUp { after_ms: rng.random_range(0..10_000), what });
    }
    if again {
        follow_ups.push(FollowUp { after_ms: rng.random_range(0..20_000), what: What::Again });
    }
    Made {
        order_id: OrderId::of(SHOP, &number),
        body: form.to_json(),
        lines: form.lines.len(),
        units: form.units(),
        total_minor,
        follow_ups,
        by_http,
        number,
    }
}

fn line(sku: String, quantity: i64, cents: i64) -> LineForm {
    LineForm { sku, quantity, unit_price: UnitPrice { amount: cents, scale: 2 }, ..Default::default() }
}

fn address(rng: &mut ChaCha8Rng) -> Address {
    Address {
        house_number: Some(rng.random_range(1..200).to_string()),
        postcode: format!("{} AB", rng.random_range(1000..9999)),
        ..plain_address()
    }
}

/// Nobody's.
pub fn plain_address() -> Address {
    Address {
        name: "Simulated Customer".into(),
        street: "Teststraat".into(),
        house_number: Some("1".into()),
        postcode: "1234 AB".into(),
        city: "Utrecht".into(),
        country: "NL".into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_order_is_the_same_body() {
        for n in 0..300 {
            assert_eq!(order(1, n, Micros(5), true), order(1, n, Micros(5), true));
        }
        assert_ne!(order(1, 1, Micros(5), true).body, order(2, 1, Micros(5), true).body);
    }

    #[test]
    fn every_body_is_an_order_that_can_be_read_and_adds_up() {
        for n in 0..2_000 {
            let made = order(4, n, Micros(1_000_000), true);
            let read = OrderForm::parse(&made.body).expect("it reads");
            assert_eq!(read.unmapped, vec![]);
            assert_eq!(read.form.total_minor(), Some(made.total_minor));
            assert_eq!((read.form.lines.len(), read.form.units()), (made.lines, made.units));
            assert_eq!(made.order_id, OrderId::of(SHOP, &read.form.order_number));
            for follow_up in &made.follow_ups {
                match &follow_up.what {
                    What::Payment(body) => {
                        let payment = PaymentForm::parse(body).expect("it reads");
                        assert_eq!(payment.form.amount_minor(), Some(made.total_minor));
                    }
                    What::Cancellation(body) => {
                        CancellationForm::parse(body).expect("it reads");
                    }
                    What::Again => {}
                }
            }
        }
    }

    #[test]
    fn every_kind_of_order_is_among_a_few_thousand() {
        let made: Vec<Made> = (0..4_000).map(|n| order(9, n, Micros(1), true)).collect();
        let some = |what: &str, found: &dyn Fn(&Made) -> bool| {
            let count = made.iter().filter(|it| found(it)).count();
            assert!(count > 3 && count < 2_000, "{what}: {count}");
        };
        let text = |it: &Made| String::from_utf8(it.body.clone()).expect("text");
        some("unknown product", &|it| text(it).contains("CHAOS-UNKNOWN"));
        some("hard to get", &|it| (0..SCARCE).any(|product| text(it).contains(&sku(product))));
        some("no address", &|it| !text(it).contains("ship_to"));
        some("paid later", &|it| it.follow_ups.iter().any(|it| matches!(it.what, What::Payment(_))));
        some("cancelled", &|it| it.follow_ups.iter().any(|it| matches!(it.what, What::Cancellation(_))));
        some("sent twice", &|it| it.follow_ups.iter().any(|it| it.what == What::Again));
        some("by HTTP", &|it| it.by_http);
        let never = |it: &Made| text(it).contains("\"captured\":\"0") && it.follow_ups.is_empty();
        some("never paid", &never);
        assert!(!(0..4_000).map(|n| order(9, n, Micros(1), false)).any(|it| never(&it)));
    }
}
