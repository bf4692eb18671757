//! One order of the sample and all that is sent about it: again by another way, payments, a cancellation.

use kept_schemas::{
    Micros, UnitPrice,
    inbound::InboundKind,
    inputs::{LineQuantity, PaymentKind},
    order::{Attribute, ChargeKind, Delivery, PaymentMethod},
    own::{CancellationForm, ChargeForm, LineForm, OrderForm, PaymentForm, PaymentTermsForm},
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::value::RawValue;

use super::{
    Settings,
    catalogue::{Article, Business, pick},
    channels::Channel,
    rates::Share,
};
use crate::{
    sender::{Item, Way},
    synthetic::{Person, person, random},
};

/// What orders are made from.
pub struct Stall<'a> {
    pub settings: &'a Settings,
    pub articles: &'a [Article],
    pub businesses: &'a [Business],
}

/// The `n`-th order, placed at `at` through `channel`, and what follows it. The first item is the order.
pub fn order(stall: &Stall<'_>, n: u64, at: Micros, channel: &Channel, random: &mut ChaCha8Rng) -> Vec<Item> {
    let rates = &stall.settings.rates;
    let mut troubles: Vec<&str> = Vec::new();
    let mut form = form(stall, n, at, channel, random);
    if hit(random, rates.bad_addresses) {
        spoil_address(&mut form, random);
        troubles.push("bad address");
    }
    if hit(random, rates.unknown_skus) {
        let at = random.random_range(0..form.lines.len());
        form.lines[at].sku = format!("GONE-{}", random.random_range(0..1_000u32));
        troubles.push("unknown article");
    }
    let mut total = form.total_minor().unwrap_or(0);
    if hit(random, rates.totals_differ) {
        total += random.random_range(1..=20) * 100;
        troubles.push("total differs");
    }
    form.total = Some(cents(total));
    let mut follow = Vec::new();
    pay(stall, at, total, &mut form, random, &mut follow, &mut troubles);
    let number = form.order_number.clone();
    let item = |way: Way, account: &str, at: Micros, kind: InboundKind, body: Vec<u8>, trouble: Option<String>| Item {
        at,
        way,
        account: account.to_owned(),
        shop: channel.shop.to_owned(),
        kind,
        order_number: number.clone(),
        body: raw(body),
        raw: None,
        trouble,
    };
    let said = (!troubles.is_empty()).then(|| troubles.join(", "));
    let body = form.to_json();
    if channel.way == Way::Http && hit(random, rates.wrong_bodies) {
        // Nothing follows an order that was turned away.
        let mut wrong =
            item(channel.way, channel.account, at, InboundKind::Order, body, Some("body cannot be read".into()));
        spoil_body(&mut wrong, random);
        return vec![wrong];
    }
    let mut items = vec![item(channel.way, channel.account, at, InboundKind::Order, body.clone(), said)];
    if hit(random, rates.second_ways) {
        let later = at.plus(random.random_range(1..=90) * Micros::MINUTE);
        let trouble = Some("a second way in".to_owned());
        items.push(item(other(channel.way), channel.second, later, InboundKind::Order, body.clone(), trouble));
    }
    if hit(random, rates.redeliveries) {
        let later = at.plus(random.random_range(1..=120) * Micros::SECOND);
        let trouble = Some("sent twice".to_owned());
        items.push(item(channel.way, channel.account, later, InboundKind::Order, body, trouble));
    }
    for (payment, trouble) in follow {
        let (when, body) = (payment.at, payment.to_json());
        items.push(item(channel.way, channel.account, when, InboundKind::Payment, body, trouble));
    }
    if hit(random, rates.cancellations) {
        let later = at.plus(random.random_range(5..=180) * Micros::MINUTE);
        let body = cancellation(&form, random).to_json();
        items.push(item(
            channel.way,
            channel.account,
            later,
            InboundKind::Cancellation,
            body,
            Some("cancelled".into()),
        ));
    }
    items
}

fn hit(random: &mut ChaCha8Rng, share: Share) -> bool {
    random.random_range(0..Share::WHOLE) < share.0
}

fn cents(minor: i64) -> UnitPrice {
    UnitPrice { amount: minor, scale: 2 }
}

fn raw(body: Vec<u8>) -> Option<Box<RawValue>> {
    let text = String::from_utf8(body).expect("JSON of a form is UTF-8");
    Some(RawValue::from_string(text).expect("a form is JSON"))
}

/// The way a second account brings the same order.
fn other(way: Way) -> Way {
    match way {
        Way::Http | Way::Topic | Way::Received => Way::Import,
        Way::Import => Way::Topic,
    }
}

fn form(stall: &Stall<'_>, n: u64, at: Micros, channel: &Channel, random: &mut ChaCha8Rng) -> OrderForm {
    let seed = stall.settings.seed;
    let business = channel.business && (channel.channel == "edi" || random.random_range(0..3) > 0);
    let buyer = &stall.businesses[random.random_range(0..stall.businesses.len())];
    let country = if business { buyer.country } else { country(channel, random) };
    let consumer = format!("{}", random.random_range(0..50_000u32));
    let who = if business { ["business", buyer.number.as_str()] } else { ["consumer", consumer.as_str()] };
    let person = person(seed, &who, country, business, 0).unwrap_or_default();
    let lines = lines(stall, business, random);
    let goods: i64 = lines.iter().filter_map(|line| line.unit_price.total_minor(line.quantity, 2)).sum();
    let mut charges = Vec::new();
    let charge = |kind: ChargeKind, code: &str, minor: i64| ChargeForm {
        kind,
        code: code.into(),
        quantity: 1,
        unit_price: cents(minor),
        description: None,
    };
    if !business && goods < 5_000 {
        charges.push(charge(ChargeKind::Shipping, "SHIPPING", 495));
    }
    if !business && channel.payment.is_none() && random.random_range(0..100) < 8 {
        charges.push(charge(ChargeKind::Discount, "WELCOME10", -goods / 10));
    }
    let promised = |days: i64| Some(at.plus(days * Micros::DAY));
    OrderForm {
        order_number: number(stall.settings, channel, n),
        placed_at: at,
        currency: "EUR".into(),
        customer_number: business.then(|| buyer.number.clone()),
        language: Some(person.language.into()),
        email: Some(person.email.clone()),
        ship_to: Some(person.address()),
        lines,
        charges,
        payment: PaymentTermsForm {
            method: channel.payment.unwrap_or(PaymentMethod::Online),
            ..PaymentTermsForm::default()
        },
        delivery: Delivery {
            service: Some(if business { "pallet or parcel" } else { "standard" }.into()),
            promised_at: promised(if channel.channel == "bol" { 2 } else { 4 }),
            ship_by: (channel.payment == Some(PaymentMethod::Channel)).then(|| at.plus(Micros::DAY)),
            ..Delivery::default()
        },
        attributes: vec![Attribute { name: "synthetic".into(), value: "sample".into() }],
        ..OrderForm::default()
    }
}

/// A number of the form the channel gives, from the sample's seed, its first day and the order's place in it: another
/// sample has other numbers.
fn number(settings: &Settings, channel: &Channel, n: u64) -> String {
    let mut random = random(settings.seed, "numbers", &[channel.account, &settings.start.to_string()]);
    let base = random.random_range(1_000..10_000u32);
    match channel.channel {
        "amazon" => format!("{:03}-{base:04}{:03}-{n:07}", 171, base % 997),
        "shopify" => format!("#{base}{n:06}"),
        "edi" => format!("PO-{base}-{n:06}"),
        "phone" => format!("T{base}-{n:06}"),
        _ => format!("{base}{n:07}"),
    }
}

fn country(channel: &Channel, random: &mut ChaCha8Rng) -> &'static str {
    let mut point = random.random_range(0..100u32);
    for (country, share) in channel.countries {
        if point < *share {
            return country;
        }
        point -= share;
    }
    "NL"
}

fn lines(stall: &Stall<'_>, business: bool, random: &mut ChaCha8Rng) -> Vec<LineForm> {
    let count = if business {
        random.random_range(4..=24usize)
    } else {
        // One line in four of ten orders, and each further one in six of ten of what is left.
        let mut count = 1;
        while count < 12 && random.random_range(0..100) < 58 {
            count += 1;
        }
        count
    };
    let mut lines: Vec<LineForm> = Vec::with_capacity(count);
    while lines.len() < count.min(stall.articles.len()) {
        let article = &stall.articles[pick(random, stall.articles.len())];
        if lines.iter().any(|line| line.sku == article.product.sku) {
            // The merry few sell so much that they come up twice; once is a line.
            if random.random_range(0..4) == 0 {
                break;
            }
            continue;
        }
        let quantity = match (business, random.random_range(0..100u32)) {
            (true, _) => 6 * random.random_range(1..=8i64),
            (false, 0..80) => 1,
            (false, 80..94) => 2,
            (false, _) => random.random_range(3..=5),
        };
        // A business pays a third less, to a tenth of a cent.
        let price =
            if business { UnitPrice { amount: article.price.amount * 20 / 3, scale: 3 } } else { article.price };
        lines.push(LineForm {
            sku: article.product.sku.clone(),
            quantity,
            unit_price: price,
            description: Some(article.product.description.clone()),
            line_id: Some(format!("{}", lines.len() + 1)),
            ..LineForm::default()
        });
    }
    lines
}

#[allow(clippy::too_many_arguments)]
fn pay(
    stall: &Stall<'_>,
    at: Micros,
    total: i64,
    form: &mut OrderForm,
    random: &mut ChaCha8Rng,
    follow: &mut Vec<(PaymentForm, Option<String>)>,
    troubles: &mut Vec<&str>,
) {
    if form.payment.method != PaymentMethod::Online || total <= 0 {
        return;
    }
    let rates = &stall.settings.rates;
    let number = form.order_number.clone();
    let mut payment = |kind: PaymentKind, after: i64, trouble: Option<&str>| {
        let form = PaymentForm {
            payment_id: format!("pay-{number}-{}", follow.len() + 1),
            kind,
            amount: cents(total),
            currency: "EUR".into(),
            at: at.plus(after),
            detail: Some("synthetic".into()),
        };
        follow.push((form, trouble.map(str::to_owned)));
    };
    if hit(random, rates.failed_payments) {
        payment(PaymentKind::Failed, random.random_range(1..=15) * Micros::MINUTE, Some("payment failed"));
        troubles.push("never paid");
    } else if hit(random, rates.late_payments) {
        payment(PaymentKind::Captured, random.random_range(60..=1_800) * Micros::MINUTE, Some("paid late"));
        troubles.push("paid late");
    } else if random.random_range(0..100) < 70 {
        // The shop sends the order once it is paid.
        form.payment.captured = cents(total);
        form.payment.reference = Some(format!("pay-{number}"));
    } else {
        payment(PaymentKind::Captured, random.random_range(5..=600) * Micros::SECOND, None);
    }
}

fn spoil_address(form: &mut OrderForm, random: &mut ChaCha8Rng) {
    let Some(address) = &mut form.ship_to else { return };
    let mut broken = Person {
        street: address.street.clone(),
        house_number: address.house_number.clone(),
        house_number_addition: address.house_number_addition.clone(),
        postcode: address.postcode.clone(),
        city: address.city.clone(),
        country: address.country.clone(),
        ..Person::default()
    };
    broken.spoil(random.random_range(0..10));
    address.street = broken.street;
    address.house_number = broken.house_number;
    address.house_number_addition = broken.house_number_addition;
    address.postcode = broken.postcode;
    address.city = broken.city;
}

/// Makes a body that no one can read, in one of the ways that really happen.
fn spoil_body(item: &mut Item, random: &mut ChaCha8Rng) {
    let text = item.body.take().map(|body| body.get().to_owned()).unwrap_or_default();
    let spoilt = match random.random_range(0..4) {
        0 => text.chars().take(text.len() / 2).collect(),
        1 => text.replace("\"quantity\":", "\"quantity\":\"many\",\"was\":"),
        2 => text.replacen("\"order_number\"", "\"number\"", 1),
        _ => "<order/>".into(),
    };
    item.raw = Some(spoilt);
}

fn cancellation(form: &OrderForm, random: &mut ChaCha8Rng) -> CancellationForm {
    let one_line = form.lines.len() > 1 && random.random_range(0..5) == 0;
    let line = random.random_range(0..form.lines.len());
    CancellationForm {
        request_id: Some(format!("cancel-{}", form.order_number)),
        reason: Some("the customer changed their mind (synthetic)".into()),
        lines: if one_line {
            let line_no = i32::try_from(line + 1).expect("an order has few lines");
            vec![LineQuantity { line_no, quantity: form.lines[line].quantity }]
        } else {
            Vec::new()
        },
    }
}
