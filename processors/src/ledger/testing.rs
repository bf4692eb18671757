//! For tests: builders of inputs, and a world that remembers as the store does. It hands a decision only what `needs`
//! and `skus` asked for, refuses changes to anything else, and after every record checks what must always be true.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{
    EventId, Micros, Order, OrderId, OrderLine, Topic, UnitPrice,
    events::{Hold, NotificationRequested, PostingRequested},
    ids::derive,
    inbound::{HoldReason, LineFacts, OrderRevised, OrderValidated, Problem},
    inputs::{
        CommandKind, CommandReceived, Condition, DeadlineReached, LineQuantity, OrderWoken, OutcomeKind,
        OutcomeReceived, PaymentKind, PaymentReceived, StockCounted, StockKind,
    },
    order::{Charge, ChargeKind, Party, PaymentMethod},
    reference::{Location, Policy, Product},
};

use super::*;

pub const HOUR: i64 = 3_600;

pub fn id(number: i64) -> OrderId {
    OrderId::of("shop", &number.to_string())
}

/// An order of lines (SKU, units) at 10.00 a unit, by an account customer, with an e-mail address.
pub fn order(number: i64, lines: &[(&str, i64)]) -> OrderValidated {
    let lines: Vec<OrderLine> = (1..)
        .zip(lines)
        .map(|(line_no, &(sku, quantity))| OrderLine {
            line_no,
            sku: sku.into(),
            quantity,
            unit_price: UnitPrice { amount: 1000, scale: 2 },
            line_total_minor: 1000 * quantity,
            ..Default::default()
        })
        .collect();
    let mut it = OrderValidated {
        order: Order {
            order_id: id(number),
            channel: "storefront".into(),
            shop: "shop".into(),
            channel_order_id: number.to_string(),
            account: "web".into(),
            placed_at: Micros(number),
            currency: "EUR".into(),
            country: "NL".into(),
            lines,
            ..Default::default()
        },
        body_hash: format!("body {number}"),
        ..Default::default()
    };
    it.order.payment.method = PaymentMethod::OnAccount;
    it.party.email = Some("someone@example.org".into());
    it.party.ship_to.postcode = "1234 AB".into();
    priced(&mut it);
    it
}

/// Brings totals and enrichment in line with lines and charges. SKUs that begin with `?` are not known.
pub fn priced(it: &mut OrderValidated) {
    it.order.total_minor = it.order.lines.iter().map(|line| line.line_total_minor).sum::<i64>()
        + it.order.charges.iter().map(|charge| charge.amount_minor).sum::<i64>();
    it.enrichment.lines = (it.order.lines.iter())
        .map(|line| LineFacts { line_no: line.line_no, known: !line.sku.starts_with('?'), weight_grams: Some(100) })
        .collect();
}

/// The order is to be paid online, and is not yet.
pub fn unpaid(mut it: OrderValidated) -> OrderValidated {
    it.order.payment.method = PaymentMethod::Online;
    it
}

pub fn with_problem(mut it: OrderValidated, reason: HoldReason, detail: &str) -> OrderValidated {
    it.problems.push(Problem { reason, detail: detail.into(), ..Default::default() });
    it
}

pub fn with_shipping(mut it: OrderValidated, minor: i64) -> OrderValidated {
    it.order.charges.push(Charge { kind: ChargeKind::Shipping, amount_minor: minor, ..Default::default() });
    priced(&mut it);
    it
}

pub fn pays(number: i64, kind: PaymentKind, payment_id: &str, minor: i64) -> LedgerInput {
    LedgerInput::Payment(PaymentReceived {
        order_id: id(number),
        payment_id: payment_id.into(),
        kind,
        amount_minor: minor,
        currency: "EUR".into(),
        ..Default::default()
    })
}

pub fn command(number: i64, kind: CommandKind) -> CommandReceived {
    CommandReceived { order_id: id(number), kind, by: "anna".into(), ..Default::default() }
}

pub fn cancels(number: i64, lines: &[(i32, i64)]) -> LedgerInput {
    let lines = lines.iter().map(|&(line_no, quantity)| LineQuantity { line_no, quantity }).collect();
    LedgerInput::Command(Box::new(CommandReceived { lines, ..command(number, CommandKind::Cancel) }))
}

pub fn releases(number: i64, reason: HoldReason) -> LedgerInput {
    let reason = Some(reason.as_str().to_owned());
    LedgerInput::Command(Box::new(CommandReceived { reason, ..command(number, CommandKind::Release) }))
}

pub fn commands(number: i64, kind: CommandKind) -> LedgerInput {
    LedgerInput::Command(Box::new(command(number, kind)))
}

pub fn counted(sku: &str, location: &str, quantity: i64) -> LedgerInput {
    stock(sku, location, quantity, StockKind::Count)
}

pub fn arrives(sku: &str, location: &str, quantity: i64) -> LedgerInput {
    stock(sku, location, quantity, StockKind::Receipt)
}

fn stock(sku: &str, location: &str, quantity: i64, kind: StockKind) -> LedgerInput {
    LedgerInput::Stock(StockCounted {
        sku: sku.into(),
        location_id: location.into(),
        condition: Condition::Sellable,
        kind,
        quantity,
        ..Default::default()
    })
}

pub fn validated(it: OrderValidated) -> LedgerInput {
    LedgerInput::Validated(Box::new(it))
}

/// What the store would hold, and everything that was ever said.
pub struct World {
    pub now: Micros,
    pub reference: Reference,
    pub orders: BTreeMap<OrderId, OrderState>,
    pub contents: BTreeMap<OrderId, Content>,
    pub claims: BTreeMap<Sku, i64>,
    pub stock: BTreeMap<StockKey, StockRow>,
    pub journal: Vec<LedgerEvent>,
    /// Wake-ups and corrections on their way back.
    pub returning: std::collections::VecDeque<LedgerInput>,
    order_nos: BTreeMap<OrderId, i64>,
    causes: u64,
}

impl Default for World {
    fn default() -> Self {
        let mut reference = Reference::default();
        for (location_id, priority) in [("north", 1), ("south", 2)] {
            let location = Location { location_id: location_id.into(), priority, active: true, ..Default::default() };
            reference.locations.insert(location_id.into(), location);
        }
        for sku in ["A", "B", "C"] {
            reference.products.insert(sku.into(), Product { sku: sku.into(), active: true, ..Default::default() });
        }
        reference.policies.insert("default".into(), Policy::default());
        Self {
            now: Micros(1_000_000),
            reference,
            orders: BTreeMap::new(),
            contents: BTreeMap::new(),
            claims: BTreeMap::new(),
            stock: BTreeMap::new(),
            journal: Vec::new(),
            returning: std::collections::VecDeque::new(),
            order_nos: BTreeMap::new(),
            causes: 0,
        }
    }
}

impl World {
    /// A world with so many units (SKU, location, units) on the shelves.
    pub fn with(stock: &[(&str, &str, i64)]) -> Self {
        let mut world = Self::default();
        for &(sku, location, units) in stock {
            world.take(counted(sku, location, units));
        }
        world
    }

    /// Decides one record in a batch of its own.
    pub fn take(&mut self, input: LedgerInput) -> Vec<LedgerEvent> {
        self.batch(&[input])
    }

    /// Takes a record, then everything that comes back because of it.
    pub fn take_all(&mut self, input: LedgerInput) -> Vec<LedgerEvent> {
        let mut events = self.take(input);
        while let Some(next) = self.returning.pop_front() {
            events.extend(self.take(next));
        }
        events
    }

    /// Decides records as one batch: locks what they need, all at once, and writes what changed.
    pub fn batch(&mut self, inputs: &[LedgerInput]) -> Vec<LedgerEvent> {
        self.now = self.now.plus(Micros::SECOND);
        let mut facts = Facts { now: self.now, ..Facts::default() };
        let mut locked = BTreeSet::new();
        for input in inputs {
            match needs(input) {
                Needs::Sku(sku) => {
                    locked.insert(sku);
                }
                Needs::Order { order_id, content } => {
                    let next = self.order_nos.len() as i64 + 1;
                    let order_no = *self.order_nos.entry(order_id).or_insert(next);
                    let fresh = OrderState { order_id, order_no, ..Default::default() };
                    facts.orders.insert(order_id, self.orders.get(&order_id).cloned().unwrap_or(fresh));
                    if let Some(known) = self.contents.get(&order_id).filter(|_| content) {
                        facts.contents.insert(order_id, known.clone());
                    }
                }
            }
        }
        for input in inputs {
            locked.extend(skus(input, &facts));
        }
        for sku in &locked {
            facts.claims.insert(sku.clone(), self.claims.get(sku).copied().unwrap_or(0));
            facts
                .stock
                .extend(self.stock.iter().filter(|(key, _)| key.sku == *sku).map(|(key, row)| (key.clone(), *row)));
            let waiting = self.waiting(sku);
            if !waiting.is_empty() {
                facts.waiting.insert(sku.clone(), waiting);
            }
        }
        let before = facts.clone();
        let mut said = Vec::new();
        for input in inputs {
            self.causes += 1;
            let event_id = EventId(derive("cause", &[&self.causes.to_be_bytes()]));
            let cause = Cause { event_id, topic: Topic::OrdersValidated, partition: 0, offset: 0, traceparent: None };
            said.extend(decide(input, &cause, &mut facts, &self.reference));
        }
        for (sku, claimed) in &facts.claims {
            assert!(locked.contains(sku) || *claimed == 0, "{sku} was claimed but not locked");
        }
        for (key, row) in &facts.stock {
            assert!(locked.contains(&key.sku) || before.stock.get(key) == Some(row), "{key:?} moved but not locked");
        }
        for order_id in facts.orders.keys() {
            assert!(before.orders.contains_key(order_id), "an order changed that was not locked");
        }
        let changed = facts.orders.into_iter().filter(|(_, order)| order.seq > 0);
        self.orders.extend(changed);
        self.contents.extend(facts.contents);
        self.claims.extend(facts.claims);
        self.stock.extend(facts.stock);
        for event in &said {
            match event {
                LedgerEvent::Woken(it) => self.returning.push_back(LedgerInput::Woken(OrderWoken::clone(it))),
                LedgerEvent::Revised(it) => self.returning.push_back(self.checked(it)),
                _ => {}
            }
        }
        self.journal.extend(said.iter().cloned());
        self.check();
        said
    }

    /// A correction as it comes back from its checks: fine, when there is a post code and the SKUs are known.
    fn checked(&self, it: &OrderRevised) -> LedgerInput {
        let mut back = OrderValidated {
            order: it.order.clone(),
            party: it.party.clone(),
            revision: it.revision,
            ..Default::default()
        };
        priced(&mut back);
        for line in &mut back.enrichment.lines {
            let sku = &back.order.lines[line.line_no as usize - 1].sku;
            line.known = self.reference.products.contains_key(sku);
        }
        if back.enrichment.lines.iter().any(|line| !line.known) {
            back = with_problem(back, HoldReason::UnknownSku, "not in the product list");
        }
        if back.party.ship_to.postcode.is_empty() {
            back = with_problem(back, HoldReason::AddressInvalid, "no post code");
        }
        validated(back)
    }

    /// As the store keeps the list.
    fn waiting(&self, sku: &str) -> Vec<OrderId> {
        let mut waiting: Vec<(i64, OrderId)> = (self.orders.values())
            .filter(|order| order.accepted && !order.test && !order.cancelled && order.completed.is_none())
            .filter(|order| order.lines.iter().any(|line| line.sku == sku && line.known && line.short() > 0))
            .map(|order| (order.order_no, order.order_id))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|it| it.1).take(256).collect()
    }

    pub fn order(&self, number: i64) -> &OrderState {
        &self.orders[&id(number)]
    }

    pub fn row(&self, sku: &str, location: &str) -> StockRow {
        let key = StockKey { sku: sku.into(), location_id: location.into(), condition: Condition::Sellable };
        self.stock.get(&key).copied().unwrap_or_default()
    }

    /// A report on the order's latest fulfilment order.
    pub fn reports(&self, number: i64, kind: OutcomeKind, lines: &[(i32, i64)]) -> LedgerInput {
        let fulfilment = self.orders.get(&id(number)).and_then(|order| order.fulfilments.last());
        let fulfilment_id = fulfilment.map_or(String::new(), |it| it.fulfilment_id.clone());
        let count = self.orders.get(&id(number)).map_or(0, |order| order.shipments.len());
        LedgerInput::Outcome(Box::new(OutcomeReceived {
            order_id: id(number),
            outcome_id: format!("{kind} {number} {count}"),
            kind,
            fulfilment_id,
            shipment_id: match kind {
                OutcomeKind::Despatched => format!("shipment {number}/{count}"),
                OutcomeKind::Tracked | OutcomeKind::Delivered | OutcomeKind::DeliveryFailed => {
                    format!("shipment {number}/{}", count.saturating_sub(1))
                }
                _ => String::new(),
            },
            location_id: fulfilment.map_or("north".into(), |it| it.location_id.clone()),
            at: self.now,
            lines: lines.iter().map(|&(line_no, quantity)| LineQuantity { line_no, quantity }).collect(),
            ..Default::default()
        }))
    }

    /// The deadline of the order's first timer.
    pub fn deadline(&self, number: i64) -> LedgerInput {
        let timer = self.order(number).timers.first().expect("a timer");
        LedgerInput::Deadline(DeadlineReached {
            order_id: id(number),
            timer_id: timer.timer_id.clone(),
            purpose: timer.purpose,
            revision: timer.revision,
            due_at: timer.due_at,
        })
    }

    /// Reasons of the open holds, in the order they were opened.
    pub fn held(&self, number: i64) -> Vec<HoldReason> {
        self.order(number).holds.iter().map(|hold: &Hold| hold.reason).collect()
    }

    /// What must be true after every record.
    pub fn check(&self) {
        let mut claims: BTreeMap<&str, i64> = BTreeMap::new();
        let mut pins: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
        for order in self.orders.values() {
            self.check_order(order);
            for line in order.lines.iter().filter(|line| line.known && !order.test) {
                *claims.entry(&line.sku).or_default() += line.claimed;
            }
            for it in &order.fulfilments {
                for (list, pick) in [(&it.pinned, false), (&it.picked, true)] {
                    for &(line_no, units) in list {
                        let sku = &order.lines[line_no as usize - 1].sku;
                        let sum = pins.entry((sku.as_str(), it.location_id.as_str())).or_default();
                        if pick { sum.1 += units } else { sum.0 += units }
                    }
                }
            }
        }
        for (sku, claimed) in &self.claims {
            assert_eq!(*claimed, claims.get(sku.as_str()).copied().unwrap_or(0), "claims of {sku}");
        }
        for (key, row) in &self.stock {
            assert!(0 <= row.picked && row.picked <= row.reserved && row.reserved <= row.on_hand, "{key:?}: {row:?}");
            let at = (key.sku.as_str(), key.location_id.as_str());
            let (pinned, picked) = match key.condition {
                Condition::Sellable => pins.get(&at).copied().unwrap_or_default(),
                _ => (0, 0),
            };
            assert_eq!((row.reserved + row.unbacked, row.picked), (pinned, picked), "pins of {key:?}: {row:?}");
            assert!(row.unbacked >= 0, "{row:?}");
        }
        self.check_journal();
    }

    fn check_order(&self, order: &OrderState) {
        let what = |line: &LineState| format!("order {}, {line:?}", order.order_no);
        for line in &order.lines {
            let parts = line.cancelled + line.shipped + line.pinned + line.claimed + line.short();
            assert_eq!(line.quantity, parts, "{}", what(line));
            for units in
                [line.claimed, line.pinned, line.picked, line.shipped, line.cancelled, line.returned, line.refunded]
            {
                assert!(units >= 0, "{}", what(line));
            }
            assert!(line.claimed + line.pinned <= line.open().max(0) || line.shipped > 0, "{}", what(line));
            let of = |pick: fn(&FulfilmentState) -> &Vec<(i32, i64)>| -> i64 {
                order.fulfilments.iter().map(|it| fold::units_of(pick(it), line.line_no)).sum()
            };
            assert_eq!((line.pinned, line.picked), (of(|it| &it.pinned), of(|it| &it.picked)), "{}", what(line));
        }
        let ids: BTreeSet<&String> = order.timers.iter().map(|it| &it.timer_id).collect();
        assert_eq!(ids.len(), order.timers.len(), "timers have ids of their own");
        let reasons: BTreeSet<HoldReason> = order.holds.iter().map(|it| it.reason).collect();
        assert_eq!(reasons.len(), order.holds.len(), "one hold a reason");
        if order.accepted && order.completed.is_none() {
            let open = |it: &FulfilmentState| {
                !matches!(
                    it.status,
                    FulfilmentStatus::Closed | FulfilmentStatus::Declined | FulfilmentStatus::Despatched
                )
            };
            let waits = !order.holds.is_empty()
                || order.fulfilments.iter().any(open)
                || order.shipments.iter().any(|it| !it.delivered)
                || order.checked < order.revision;
            assert!(waits, "order {} waits for nothing: {order:#?}", order.order_no);
        }
        if order.completed.is_some() {
            assert!(order.holds.is_empty() && order.cancel_asked.is_none(), "{order:#?}");
            assert!(order.timers.is_empty(), "{order:#?}");
            assert!(order.test || order.lines.iter().all(|line| line.open() <= 0), "{order:#?}");
        }
    }

    fn check_journal(&self) {
        let mut folded = Facts::default();
        for (&order_id, &order_no) in &self.order_nos {
            folded.orders.insert(order_id, OrderState { order_id, order_no, ..Default::default() });
        }
        let mut seqs: BTreeMap<OrderId, i64> = BTreeMap::new();
        let mut sold: BTreeMap<OrderId, i64> = BTreeMap::new();
        let (mut postings, mut notifications) = (BTreeSet::new(), BTreeSet::new());
        let follows = |it: &LedgerEvent| matches!(it, LedgerEvent::Posting(_) | LedgerEvent::Notification(_));
        let moments: BTreeSet<(OrderId, Micros)> =
            (self.journal.iter().filter(|it| !follows(it))).filter_map(|it| Some((it.place()?.0, it.at()))).collect();
        for event in &self.journal {
            fold(&mut folded, event);
            if let Some((order_id, seq)) = event.place() {
                let before = seqs.insert(order_id, seq).unwrap_or(0);
                assert_eq!(seq, before + 1, "numbers are dense: {event:?}");
                // The read model takes an order's time from what a message or a posting follows from.
                assert!(moments.contains(&(order_id, event.at())), "follows from nothing: {event:?}");
            }
            match event {
                LedgerEvent::Posting(it) => {
                    assert_balanced(it);
                    assert!(postings.insert(&it.posting_id), "posted twice: {it:?}");
                    if it.kind == kept_schemas::events::PostingKind::Sale {
                        *sold.entry(it.order_id).or_default() += receivable(it);
                    }
                }
                LedgerEvent::Notification(it) => {
                    let NotificationRequested { notification_id, .. } = it.as_ref();
                    assert!(notifications.insert(notification_id), "told twice: {it:?}");
                }
                _ => {}
            }
        }
        folded.orders.retain(|_, order| order.seq > 0);
        assert_eq!(folded.orders, self.orders, "state is the fold of the events");
        assert_eq!(folded.contents, self.contents);
        assert_eq!(folded.stock, self.stock);
        let claims: BTreeMap<&Sku, &i64> = self.claims.iter().filter(|it| *it.1 != 0).collect();
        assert_eq!(folded.claims.iter().filter(|it| *it.1 != 0).collect::<BTreeMap<_, _>>(), claims);
        for order in self.orders.values().filter(|order| order.accepted && !order.test) {
            let sold = sold.get(&order.order_id).copied().unwrap_or(0);
            assert_eq!(sold, order.posted_minor);
            let shipped = order.lines.iter().all(|line| line.shipped >= line.quantity);
            if shipped && order.lines.iter().any(|line| line.shipped > 0) {
                assert_eq!(sold, order.total_minor, "all is shipped, so all is sold: {order:#?}");
            }
        }
    }
}

fn receivable(it: &PostingRequested) -> i64 {
    it.entries.iter().filter(|entry| entry.account == "receivable").map(|entry| entry.amount.minor).sum()
}

fn assert_balanced(it: &PostingRequested) {
    assert_eq!(it.entries.iter().map(|entry| entry.amount.minor).sum::<i64>(), 0, "{it:?}");
    assert!(it.entries.iter().all(|entry| entry.amount.minor != 0), "{it:?}");
}

/// Events in short: the word of its topic and, where it matters, what of.
pub fn words(events: &[LedgerEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            LedgerEvent::Held(it) => {
                format!("held {}", it.holds.iter().map(|hold| hold.reason.as_str()).collect::<Vec<_>>().join("+"))
            }
            LedgerEvent::Unheld(it) => {
                let one = |hold: &kept_schemas::events::HoldResolved| format!("{} {}", hold.reason, hold.resolution);
                format!("unheld {}", it.holds.iter().map(one).collect::<Vec<_>>().join("+"))
            }
            LedgerEvent::Noted(it) => format!("noted {}", it.kind),
            LedgerEvent::Requested(it) => format!("requested {}", it.location_id),
            LedgerEvent::Withdrawn(it) => format!("withdrawn {}", it.location_id),
            LedgerEvent::Stock(it) => format!("{} {} {} at {}", it.movement, it.quantity, it.sku, it.location_id),
            LedgerEvent::Notification(it) => format!("told {}", it.purpose),
            LedgerEvent::Posting(it) => format!("posted {} {}", it.kind, receivable(it)),
            LedgerEvent::Completed(it) => format!("completed {}", it.outcome),
            LedgerEvent::Paid(it) => format!("paid {}", it.state),
            LedgerEvent::Tracked(it) => format!("tracked {}", it.kind),
            LedgerEvent::Reserved(it) => {
                format!(
                    "reserved {}",
                    it.lines.iter().map(|line| line.quantity.to_string()).collect::<Vec<_>>().join(",")
                )
            }
            LedgerEvent::Cancelled(it) => {
                let sum = |lines: &[LineQuantity]| lines.iter().map(|line| line.quantity).sum::<i64>();
                format!("cancelled {} back {}", sum(&it.lines), sum(&it.given_back))
            }
            LedgerEvent::Woken(_) => "woken".into(),
            LedgerEvent::Accepted(it) => {
                format!("accepted {}", it.claimed.iter().map(|line| line.quantity).sum::<i64>())
            }
            other => other.topic().name().rsplit('.').next().expect("a name").to_owned(),
        })
        .collect()
}

/// Party with another post code.
pub fn party(postcode: &str) -> Party {
    let mut party = Party::default();
    party.ship_to.postcode = postcode.into();
    party
}
