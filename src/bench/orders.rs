//! Made-up orders for the bench: the same for every run of a size.

use std::sync::Arc;

use kept_processors::reference::Reference;
use kept_schemas::{
    Codec, Micros, Order, OrderId, OrderLine, Party, UnitPrice,
    inbound::{Enrichment, Inbound, InboundKind, LineFacts, OrderEnriched, OrderValidated},
    order::{Address, Delivery, PaymentMethod, PaymentTerms},
    reference::{Account, Product},
};
use serde_json::json;

/// 2026-01-01, in microseconds: the first order's placed-at.
const FIRST: i64 = 1_767_225_600_000_000;

/// How many SKUs the orders of JSON bodies are spread over.
pub const SKUS: usize = 5_000;
/// The channel account they come in by, and its shop.
pub const ACCOUNT: &str = "bench";
pub const SHOP: &str = "bench.example";

/// Which SKU line `line` of order `order` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goods {
    /// Every line the same one.
    One,
    /// Spread evenly over so many.
    Spread(usize),
}

impl Goods {
    /// The SKU of line `line` of order `order`.
    pub fn sku(self, order: usize, line: usize) -> String {
        match self {
            Self::One => "SKU-0".to_owned(),
            // A prime step, so that neighbours are far apart.
            Self::Spread(n) => format!("SKU-{}", (order * 7_919 + line * 104_729) % n),
        }
    }

    /// All of them.
    pub fn all(self) -> Vec<String> {
        match self {
            Self::One => vec!["SKU-0".to_owned()],
            Self::Spread(n) => (0..n).map(|sku| format!("SKU-{sku}")).collect(),
        }
    }
}

/// Order `number` with `lines` lines, paid at the channel, address whole.
pub fn order(number: usize, lines: usize, goods: Goods) -> (Order, Party) {
    let lines: Vec<OrderLine> = (0..lines)
        .map(|line| {
            let price = UnitPrice { amount: 1_250 + i64::try_from(line % 7).unwrap_or(0), scale: 2 };
            OrderLine {
                line_no: i32::try_from(line + 1).expect("few lines"),
                channel_line_id: Some(format!("{number}-{line}")),
                sku: goods.sku(number, line),
                description: Some("Enamel mug, white, 350 ml".into()),
                quantity: 2,
                unit_price: price,
                line_total_minor: price.total_minor(2, 2).expect("small"),
                ..Default::default()
            }
        })
        .collect();
    let total_minor = lines.iter().map(|line| line.line_total_minor).sum();
    let channel_order_id = format!("{number:09}");
    let order = Order {
        order_id: OrderId::of(SHOP, &channel_order_id),
        channel: "storefront".into(),
        shop: SHOP.into(),
        channel_order_id,
        account: ACCOUNT.into(),
        placed_at: Micros(FIRST + i64::try_from(number).unwrap_or(0) * Micros::SECOND),
        currency: "EUR".into(),
        stated_total_minor: Some(total_minor),
        total_minor,
        customer_ref: Some(format!("C{}", number % 5_000)),
        country: "NL".into(),
        language: Some("nl".into()),
        lines,
        payment: PaymentTerms { method: PaymentMethod::Channel, captured_minor: total_minor, ..Default::default() },
        delivery: Delivery { service: Some("standard".into()), ..Default::default() },
        ..Default::default()
    };
    let party = Party {
        ship_to: Address {
            name: "A. de Vries".into(),
            street: "Langestraat".into(),
            house_number: Some((number % 200 + 1).to_string()),
            postcode: "3811 AB".into(),
            city: "Amersfoort".into(),
            country: "NL".into(),
            ..Default::default()
        },
        email: Some(format!("customer{number}@mail.example")),
        ..Default::default()
    };
    (order, party)
}

/// The same order as enrich gives it.
pub fn enriched(number: usize, lines: usize, goods: Goods) -> OrderEnriched {
    let (order, party) = order(number, lines, goods);
    let facts = order
        .lines
        .iter()
        .map(|line| LineFacts { line_no: line.line_no, known: true, weight_grams: Some(350) })
        .collect();
    OrderEnriched {
        enrichment: Enrichment {
            lines: facts,
            weight_grams: Some(700 * i64::try_from(lines).unwrap_or(0)),
            customer_class: "consumer".into(),
            vat_country: "NL".into(),
            versions: Vec::new(),
        },
        received_at: order.placed_at,
        order,
        party,
        ..Default::default()
    }
}

/// The same order as validate passes it, without a problem.
pub fn validated(enriched: OrderEnriched) -> OrderValidated {
    OrderValidated {
        order: enriched.order,
        received_at: enriched.received_at,
        body_hash: enriched.body_hash,
        enrichment: enriched.enrichment,
        problems: enriched.problems,
        revision: enriched.revision,
        not_understood: enriched.not_understood,
        party: enriched.party,
    }
}

/// Key and value of order `number` as it comes in: a body in JSON. It is dated when the broker stores it.
pub fn inbound(codec: &Codec, number: usize, lines: usize) -> (String, Vec<u8>) {
    let external_id = format!("{number:09}");
    let raw = Inbound {
        account: ACCOUNT.into(),
        kind: InboundKind::Order,
        format: "kept.order.v1".into(),
        shop: SHOP.into(),
        external_id: external_id.clone(),
        body: body(&external_id, number, lines),
        ..Default::default()
    };
    let key = OrderId::of(SHOP, &external_id).to_string();
    (key, codec.encode(&raw).expect("an order of the bench fits").bytes())
}

fn body(external_id: &str, number: usize, lines: usize) -> Vec<u8> {
    let goods = Goods::Spread(SKUS);
    let lines: Vec<_> = (0..lines)
        .map(|line| {
            json!({ "sku": goods.sku(number, line), "quantity": 2, "unit_price": "12.50",
                    "description": "Enamel mug, white, 350 ml", "line_id": format!("{number}-{line}") })
        })
        .collect();
    let body = json!({
        "order_number": external_id, "placed_at": "2026-01-01T10:00:00Z", "currency": "EUR",
        "customer_number": format!("C{}", number % 5_000), "language": "nl",
        "ship_to": { "name": "A. de Vries", "street": "Langestraat", "house_number": (number % 200 + 1).to_string(),
                     "postcode": "3811 AB", "city": "Amersfoort", "country": "NL" },
        "email": format!("customer{number}@mail.example"),
        "payment": { "method": "channel" }, "lines": lines,
    });
    body.to_string().into_bytes()
}

/// Knows the account.
pub fn reference() -> Arc<Reference> {
    let account = Account {
        account_id: ACCOUNT.into(),
        channel: "storefront".into(),
        shop: SHOP.into(),
        active: true,
        ..Default::default()
    };
    let product = |sku: String| {
        let product = Product { sku: sku.clone(), weight_grams: Some(350), active: true, ..Default::default() };
        (sku, product)
    };
    Arc::new(Reference {
        accounts: [(ACCOUNT.to_owned(), account)].into(),
        products: Goods::Spread(SKUS).all().into_iter().map(product).collect(),
        ..Default::default()
    })
}
