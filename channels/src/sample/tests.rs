//! A sample is the same in every run, in order of time, and holds what its rates say.

use kept_schemas::inbound::OrderReceived;

use super::*;
use crate::sender::Way;

fn census(settings: Settings) -> Census {
    let day = Day::of(settings).unwrap();
    let mut census = Census::default();
    day.items().for_each(|item| census.add(&item));
    census
}

#[test]
fn two_runs_make_the_same_and_another_seed_makes_other_orders() {
    let lines = |seed| {
        let day = Day::new(seed, 300).unwrap();
        let text: Vec<String> = day.items().map(|it| serde_json::to_string(&it).unwrap()).collect();
        (text, serde_json::to_string(&day.reference()).unwrap(), day.stock())
    };
    assert_eq!(lines(1), lines(1));
    let (one, two) = (lines(1).0, lines(2).0);
    assert!(one.iter().all(|line| !two.contains(line)));
}

#[test]
fn items_come_in_order_of_time_and_none_is_lost() {
    let settings = Settings { orders: 5_000, days: 3, ..Settings::default() };
    let day = Day::of(settings).unwrap();
    let items: Vec<Item> = day.items().collect();
    assert!(items.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let made: usize = day.orders().map(|(_, items)| items.len()).sum();
    assert_eq!(items.len(), made);
    let first = Micros::parse_rfc3339("2026-11-25T00:00:00+01:00").unwrap();
    assert!(items[0].at >= first && items[0].at < first.plus(Micros::HOUR));
}

#[test]
fn orders_look_like_a_merchants_and_go_by_all_ways() {
    let census = census(Settings { orders: 20_000, ..Settings::default() });
    assert_eq!(census.orders, 20_000);
    let mean = census.lines * 100 / census.orders;
    assert!((260..360).contains(&mean), "{mean} lines a hundred orders");
    assert_eq!(census.by_way.len(), 4);
    assert_eq!(census.by_account.len(), channels::CHANNELS.len(), "{census:?}");
    assert!(census.by_account["bol-nl"] > census.by_account["phone"]);
}

#[test]
fn what_goes_wrong_is_as_frequent_as_the_rates_say() {
    let census = census(Settings { orders: 20_000, ..Settings::default() });
    let near = |name: &str, of: u64, share: Share| {
        let found = census.troubles.get(name).copied().unwrap_or(0);
        let expected = of * u64::from(share.0) / u64::from(Share::WHOLE);
        assert!(found * 10 > expected * 7 && found * 10 < expected * 13, "{name}: {found}, expected {expected}");
    };
    let rates = Rates::default();
    near("bad address", 20_000, rates.bad_addresses);
    near("cancelled", 20_000, rates.cancellations);
    near("a second way in", 20_000, rates.second_ways);
    near("sent twice", 20_000, rates.redeliveries);
    near("unknown article", 20_000, rates.unknown_skus);
    near("total differs", 20_000, rates.totals_differ);
    assert!(census.troubles["paid late"] > 200 && census.troubles["payment failed"] > 50, "{census:?}");
    assert!(census.troubles["body cannot be read"] > 5);
}

#[test]
fn a_sample_without_troubles_has_none() {
    let census = census(Settings { orders: 2_000, rates: Rates::none(), ..Settings::default() });
    assert_eq!(census.troubles, BTreeMap::new());
    assert_eq!(census.cancellations, 0);
}

#[test]
fn every_body_but_the_spoilt_ones_can_be_read_and_says_that_it_is_synthetic() {
    let day = Day::new(3, 3_000).unwrap();
    for item in day.items() {
        let spoilt = item.trouble.as_deref() == Some("body cannot be read");
        match item.kind {
            InboundKind::Order => match OrderForm::parse(item.bytes()) {
                Ok(parsed) => {
                    assert!(!spoilt || item.raw.is_some());
                    assert_eq!(parsed.form.order_number, item.order_number);
                    assert_eq!(parsed.form.attributes[0].name, "synthetic");
                    let differs = item.trouble.as_deref().is_some_and(|it| it.contains("total differs"));
                    let stated = parsed.form.total.and_then(|total| total.total_minor(1, 2));
                    assert_eq!(stated != parsed.form.total_minor(), differs, "{item:?}");
                }
                Err(problems) => assert!(spoilt && item.way == Way::Http, "{problems:?} {item:?}"),
            },
            InboundKind::Payment => {
                kept_schemas::own::PaymentForm::parse(item.bytes()).unwrap();
            }
            InboundKind::Cancellation => {
                kept_schemas::own::CancellationForm::parse(item.bytes()).unwrap();
            }
            InboundKind::Unknown => panic!("{item:?}"),
        }
    }
}

#[test]
fn a_whole_order_says_what_its_form_said() {
    let day = Day::new(3, 500).unwrap();
    let made: Vec<Item> = day.items().filter(|it| it.way == Way::Received && it.kind == InboundKind::Order).collect();
    assert!(made.len() > 20, "{}", made.len());
    for item in made {
        let form = OrderForm::parse(item.bytes()).unwrap().form;
        let whole = day.whole(&item).unwrap();
        let order: OrderReceived = serde_json::from_slice(whole.bytes()).unwrap();
        assert_eq!((order.order.order_id, order.order.lines.len()), (item.order_id(), form.lines.len()));
        assert_eq!(order.party.ship_to, form.ship_to.clone().unwrap());
        assert_eq!(whole.sent().total_minor, form.total_minor());
    }
}

#[test]
fn stock_is_enough_but_for_the_articles_that_are_short_on_purpose() {
    let day = Day::of(Settings { orders: 4_000, articles: 500, ..Settings::default() }).unwrap();
    let stock = day.stock();
    assert!((3..30).contains(&stock.short_articles), "{}", stock.short_articles);
    assert!(stock.units > stock.demand_units * 9 / 10);
    let rich = Day::of(Settings {
        orders: 4_000,
        articles: 500,
        rates: Rates { short_articles: Share(0), ..Rates::default() },
        ..Settings::default()
    });
    assert_eq!(rich.unwrap().stock().short_articles, 0);
}
