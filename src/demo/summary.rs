//! The end of a day in words: first what an operations lead asks, then what an engineer asks.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use kept_schemas::{
    OrderId,
    values::{UnitPrice, currency_decimals},
};
use kept_store::summary::Summary;

/// How fast the day went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    /// From the first order sent to the last event.
    pub took: Duration,
    /// How long sending took.
    pub sending: Duration,
    /// None when no order was asked for.
    pub delays: Option<Delays>,
}

/// From when an order's time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Accepted over HTTP.
    Door,
    /// Accepted by the ledger.
    Books,
}

/// How long orders took until they were asked for, as the read model shows it; median and 99th percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    pub from: From,
    pub orders: usize,
    pub p50: Duration,
    pub p99: Duration,
}

impl Delays {
    /// None when no order that was asked for has a beginning.
    pub fn of(from: From, begun: &BTreeMap<OrderId, SystemTime>, requested: &[(OrderId, SystemTime)]) -> Option<Self> {
        let delay = |(order, at): &(OrderId, SystemTime)| at.duration_since(*begun.get(order)?).ok();
        let mut delays: Vec<Duration> = requested.iter().filter_map(delay).collect();
        delays.sort_unstable();
        let at = |part: usize| delays.get(delays.len() * part / 100).copied();
        Some(Self { from, orders: delays.len(), p50: at(50)?, p99: at(99)? })
    }

    /// What was measured, in words.
    pub fn measured(&self) -> &'static str {
        match self.from {
            From::Door => "from accepted over HTTP to asked for at the warehouse, as people see it",
            From::Books => {
                "from accepted on our books to asked for at the warehouse, as people see it; the wait of a file's \
                 orders before that is not in it"
            }
        }
    }
}

/// What an operations lead asks first.
pub fn words(day: &Summary) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("memory can be written");
    let share = |part: i64| if day.orders == 0 { 0.0 } else { part as f64 * 100.0 / day.orders as f64 };
    line(format!("{} orders are on the books.", grouped(day.orders)));
    line(format!("  {:>9}  ({:.1} %) went through untouched", grouped(day.untouched), share(day.untouched)));
    line(format!("  {:>9}  ({:.1} %) waited and went on", grouped(day.went_on), share(day.went_on)));
    line(format!("  {:>9}  ({:.1} %) wait for something or someone now", grouped(day.waiting), share(day.waiting)));
    for hold in &day.open_holds {
        let overdue =
            if hold.overdue > 0 { format!(", {} past the deadline", grouped(hold.overdue)) } else { String::new() };
        line(format!("             {:>9}  {}{overdue}", grouped(hold.orders), plain(&hold.reason)));
    }
    if day.waiting > 0 && day.open_holds.iter().map(|hold| hold.orders).sum::<i64>() > day.waiting {
        line("                        (an order may wait for several things)".into());
    }
    if day.ship_by_missed > 0 {
        line(format!("  {:>9}  should have left by now and have not", grouped(day.ship_by_missed)));
    }
    if day.test_orders > 0 {
        line(format!("  {:>9}  are test orders: no stock, no partner, no books", grouped(day.test_orders)));
    }
    line(String::new());
    line(format!("Where they stand: {}", counts(&day.by_status)));
    line(format!("Where they came from: {}", counts(&day.by_channel)));
    if !day.resolved_holds.is_empty() {
        line(format!("What was settled: {}", counts(&day.resolved_holds)));
    }
    for money in &day.money {
        line(format!(
            "{}: {} units in {} orders for {}, of which {} are charges; posted as sales so far {}",
            money.currency,
            grouped(money.units),
            grouped(money.orders),
            amount(money.total_minor, &money.currency),
            amount(money.charges_minor, &money.currency),
            amount(money.sold_minor, &money.currency),
        ));
    }
    line(match day.dead_letters {
        0 => "Every record could be read".into(),
        letters => format!("{} records could not be read (./kept dead-letters list)", grouped(letters)),
    });
    out
}

/// How fast it went.
pub fn speed(day: &Summary, speed: &Speed) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("memory can be written");
    let rate = |n: i64, over: Duration| if over.is_zero() { 0.0 } else { n as f64 / over.as_secs_f64() };
    line(format!(
        "Speed: {:.0} orders/s sent in {:.0} s; {} events in {:.0} s ({:.0} events/s)",
        rate(day.orders, speed.sending),
        speed.sending.as_secs_f64(),
        grouped(day.events),
        speed.took.as_secs_f64(),
        rate(day.events, speed.took),
    ));
    if let Some(delays) = speed.delays {
        line(format!(
            "Half of {} orders took at most {} ms, 99 in 100 at most {} ms (p50, p99):",
            grouped(i64::try_from(delays.orders).unwrap_or(i64::MAX)),
            delays.p50.as_millis(),
            delays.p99.as_millis()
        ));
        line(format!("  {}", delays.measured()));
    }
    out
}

fn counts(rows: &[kept_store::pages::Count]) -> String {
    if rows.is_empty() {
        return "none".into();
    }
    rows.iter().map(|row| format!("{} {}", grouped(row.count), plain(&row.name))).collect::<Vec<_>>().join(" · ")
}

/// A code name as people say it.
fn plain(name: &str) -> String {
    name.replace('_', " ")
}

/// 1234567 as 1,234,567.
pub fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n < 0 {
        out.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Minor units as people write them; a currency without known decimals stays in minor units.
pub fn amount(minor: i64, currency: &str) -> String {
    let scale = currency_decimals(currency).and_then(|it| i32::try_from(it).ok()).unwrap_or(0);
    let text = UnitPrice { amount: minor, scale }.to_string();
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    format!("{whole}{rest}")
}

#[cfg(test)]
mod tests {
    use kept_store::summary::Waiting;

    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")] {
            assert_eq!(grouped(n), text);
        }
        assert_eq!(amount(1_065_562_248, "GBP"), "10,655,622.48");
        assert_eq!(amount(500, "JPY"), "500");
    }

    #[test]
    fn the_first_lines_say_what_went_through_and_what_waits_for_what() {
        let day = Summary {
            orders: 1_000,
            untouched: 900,
            went_on: 40,
            waiting: 60,
            open_holds: vec![Waiting { reason: "out_of_stock".into(), orders: 60, overdue: 2 }],
            ..Default::default()
        };
        let text = words(&day);
        assert!(text.starts_with("1,000 orders are on the books.\n"));
        assert!(text.contains("900  (90.0 %) went through untouched"));
        assert!(text.contains("60  out of stock, 2 past the deadline"));
    }

    #[test]
    fn an_orders_time_is_told_with_what_was_measured_and_only_where_its_beginning_is_known() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let order = |n: u64| OrderId::of("shop", &n.to_string());
        let requested: Vec<_> = (0..100).map(|n| (order(n), at(1_000 + n))).collect();
        assert_eq!(Delays::of(From::Door, &BTreeMap::new(), &requested), None);
        let begun = (0..100).map(|n| (order(n), at(1_000))).collect();
        let delays = Delays::of(From::Books, &begun, &requested).expect("each has a beginning");
        assert_eq!((delays.p50.as_millis(), delays.p99.as_millis(), delays.orders), (50, 99, 100));
        let text = speed(&Summary::default(), &Speed { delays: Some(delays), ..Speed::default() });
        assert!(text.contains("at most 50 ms") && text.contains("from accepted on our books to asked for"), "{text}");
    }

    #[test]
    fn a_day_without_orders_divides_by_nothing() {
        assert!(words(&Summary::default()).contains("0 orders are on the books."));
        assert!(speed(&Summary::default(), &Speed::default()).contains("0 orders/s"));
    }
}
