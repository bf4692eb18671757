//! The ledger's decisions, made again: in the order of the journal, from the records that caused them and from what was
//! remembered then, the same pure rules must give the same events. What is remembered is the fold of the events so far.
//!
//! A batch is what was decided at one instant of Postgres's clock. What was read without a lock (who waits for a SKU) is
//! as it was before the batch, as the ledger reads it. Rows of two batches may lie between each other: then two workers
//! wrote at the same time, each with its own locks, and it does not matter which of them is decided again first.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kept_processors::{
    ledger::{
        Cause, Content, Facts as Known, LedgerEvent, LedgerInput, OrderState, Sku, StockKey, StockRow, decide, fold,
        skus,
    },
    reference::Reference,
};
use kept_schemas::{Codec, Micros, OrderId, Topic, inputs::Condition};

use super::{
    facts::{JournalRow, Place},
    references::References,
    verdict::Findings,
};

/// Decisions of another version may rightly be others.
pub const CODE: &str = env!("CARGO_PKG_VERSION");
/// How many waiting orders a batch hears of per SKU.
const WAITING_PER_SKU: usize = 256;

/// What deciding again came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redecided {
    /// Records decided again.
    pub decisions: u64,
    /// Events that came out the same.
    pub events: u64,
    pub different: Findings,
    /// Made by another version of the code, or before it was noted what decisions are made with.
    pub otherwise: u64,
    /// Orders whose person was erased: they cannot be decided again.
    pub erased: u64,
    /// Decisions whose record is not at hand any more.
    pub without_record: u64,
}

/// What a decision was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct With {
    /// The version of the code.
    pub code: String,
    /// Per reference topic: the offset that came next in it.
    pub versions: BTreeMap<Topic, i64>,
}

/// A journal row with its bytes.
struct Row {
    row: JournalRow,
    with: Option<Arc<With>>,
    value: Vec<u8>,
}

/// Follows the journal.
pub struct Again<'a> {
    codec: &'a Codec,
    references: References,
    /// The ledger's input records.
    inputs: &'a BTreeMap<Place, Box<[u8]>>,
    order_nos: BTreeMap<OrderId, i64>,
    known: Known,
    waits: BTreeMap<Sku, BTreeSet<(i64, OrderId)>>,
    /// What each order waits for.
    waiting: BTreeMap<OrderId, BTreeSet<Sku>>,
    erased: BTreeSet<OrderId>,
    /// Batches whose last row is still to come.
    open: BTreeMap<Micros, Vec<Row>>,
    result: Redecided,
}

impl<'a> Again<'a> {
    pub fn new(
        codec: &'a Codec,
        references: References,
        inputs: &'a BTreeMap<Place, Box<[u8]>>,
        order_nos: BTreeMap<OrderId, i64>,
    ) -> Self {
        Self {
            codec,
            references,
            inputs,
            order_nos,
            known: Known::default(),
            waits: BTreeMap::new(),
            waiting: BTreeMap::new(),
            erased: BTreeSet::new(),
            open: BTreeMap::new(),
            result: Redecided::default(),
        }
    }

    /// The next row of the journal, decided at `at`.
    pub fn row(&mut self, row: &JournalRow, with: Option<Arc<With>>, at: Micros, body: &[u8], party: &[u8]) {
        self.open.entry(at).or_default().push(Row { row: row.clone(), with, value: [body, party].concat() });
    }

    /// The journal is at its end.
    pub fn finish(mut self) -> Redecided {
        for (at, rows) in &self.open {
            self.result.different.add(|| format!("{} rows decided at {} have no end", rows.len(), at.0));
        }
        self.result.erased = self.erased.len() as u64;
        self.result
    }

    /// The row before was the last one decided at `at`.
    pub fn batch_ends(&mut self, at: Micros) {
        let batch = self.open.remove(&at).unwrap_or_default();
        // Two workers may have begun in the same microsecond, so a decision's rows are gathered by their cause.
        let mut decisions: Vec<Vec<Row>> = Vec::new();
        let mut of_cause: BTreeMap<Place, usize> = BTreeMap::new();
        for row in batch.into_iter().filter(|row| row.row.topic != Topic::DeadLetters) {
            let at = *of_cause.entry(row.row.cause).or_insert(decisions.len());
            match decisions.get_mut(at) {
                Some(rows) => rows.push(row),
                None => decisions.push(vec![row]),
            }
        }
        if decisions.is_empty() {
            return;
        }
        self.known.now = at;
        let inputs: Vec<Option<LedgerInput>> = decisions.iter().map(|rows| self.input(rows[0].row.cause)).collect();
        for input in inputs.iter().flatten() {
            self.meet(input);
        }
        let touched: BTreeSet<Sku> = inputs.iter().flatten().flat_map(|input| skus(input, &self.known)).collect();
        self.known.waiting = touched
            .into_iter()
            .filter_map(|sku| {
                let all = self.waits.get(&sku)?;
                let first: Vec<OrderId> = all.iter().take(WAITING_PER_SKU).map(|(_, order)| *order).collect();
                (!first.is_empty()).then_some((sku, first))
            })
            .collect();
        for (rows, input) in decisions.into_iter().zip(inputs) {
            self.decision(&rows, input.as_ref());
        }
    }

    fn input(&mut self, cause: Place) -> Option<LedgerInput> {
        let input = LedgerInput::decode(self.codec, cause.topic, self.inputs.get(&cause)?).ok().flatten();
        if input.is_none() {
            self.result.different.add(|| format!("{cause} was decided and cannot be read"));
        }
        input
    }

    /// An order gets its number when its id is first seen.
    fn meet(&mut self, input: &LedgerInput) {
        if let Some(order_id) = input.order_id() {
            let order_no = self.order_nos.get(&order_id).copied().unwrap_or(0);
            let new = || OrderState { order_id, order_no, ..OrderState::default() };
            self.known.orders.entry(order_id).or_insert_with(new);
        }
    }

    fn decision(&mut self, rows: &[Row], input: Option<&LedgerInput>) {
        let events: Option<Vec<LedgerEvent>> =
            rows.iter().map(|it| LedgerEvent::decode(self.codec, it.row.topic, &it.value).ok().flatten()).collect();
        let cause = &rows[0].row;
        let Some(events) = events else {
            self.result.different.add(|| format!("events decided from {} cannot be read", cause.cause));
            return;
        };
        let order = input.and_then(LedgerInput::order_id).or(cause.order.map(|(order, _)| order));
        if rows.iter().any(|it| it.row.body.is_none()) {
            self.erased.extend(order);
        }
        let comparable = order.is_none_or(|order| !self.erased.contains(&order));
        let with = rows[0].with.as_ref().filter(|with| with.code == CODE);
        match (input, with) {
            (Some(input), Some(with)) if comparable => {
                let reference = self.references.below(self.codec, with.versions.clone());
                self.compare(&events, input, cause, &reference);
            }
            _ => {
                self.result.without_record += u64::from(input.is_none());
                self.result.otherwise += u64::from(input.is_some() && comparable);
                events.iter().for_each(|event| fold(&mut self.known, event));
            }
        }
        if let Some(order) = order {
            self.note_waits(order);
        }
    }

    fn compare(&mut self, events: &[LedgerEvent], input: &LedgerInput, cause: &JournalRow, reference: &Reference) {
        let before = Before::of(&self.known, input);
        let place = cause.cause;
        let given = Cause {
            event_id: cause.cause_id,
            topic: place.topic,
            partition: place.partition,
            offset: place.offset,
            traceparent: None,
        };
        let known = &mut self.known;
        let again = catch_unwind(AssertUnwindSafe(|| decide(input, &given, known, reference)));
        self.result.decisions += 1;
        let difference = match &again {
            Err(_) => Some("deciding again fails".to_owned()),
            Ok(again) => difference(events, again),
        };
        let Some(difference) = difference else {
            self.result.events += events.len() as u64;
            return;
        };
        before.restore(&mut self.known);
        events.iter().for_each(|event| fold(&mut self.known, event));
        self.result.different.add(|| format!("{place}: {difference}"));
    }

    /// As the ledger keeps its list of who waits.
    fn note_waits(&mut self, order_id: OrderId) {
        let Some(order) = self.known.orders.get(&order_id) else { return };
        let over = !order.accepted || order.test || order.cancelled || order.completed.is_some();
        let lines = order.lines.iter().filter(|line| !over && line.known && line.short() > 0);
        let now: BTreeSet<Sku> = lines.map(|line| line.sku.clone()).collect();
        let key = (order.order_no, order_id);
        let before = match now.is_empty() {
            true => self.waiting.remove(&order_id).unwrap_or_default(),
            false => self.waiting.insert(order_id, now.clone()).unwrap_or_default(),
        };
        for sku in before.difference(&now) {
            if let Some(all) = self.waits.get_mut(sku) {
                all.remove(&key);
            }
        }
        for sku in now.difference(&before) {
            self.waits.entry(sku.clone()).or_default().insert(key);
        }
    }
}

/// What a decision may change, as it was before.
struct Before {
    order: Option<OrderState>,
    order_id: Option<OrderId>,
    content: Option<Content>,
    skus: Vec<Sku>,
    claims: Vec<Option<i64>>,
    stock: BTreeMap<StockKey, StockRow>,
}

impl Before {
    fn of(known: &Known, input: &LedgerInput) -> Self {
        let order_id = input.order_id();
        let skus = skus(input, known);
        // Only these replace an order's content.
        let replaces = matches!(input, LedgerInput::Validated(_) | LedgerInput::Command(_));
        Self {
            order: order_id.and_then(|id| known.orders.get(&id).cloned()),
            content: order_id.filter(|_| replaces).and_then(|id| known.contents.get(&id).cloned()),
            order_id,
            claims: skus.iter().map(|sku| known.claims.get(sku).copied()).collect(),
            stock: rows_of(known, &skus),
            skus,
        }
    }

    fn restore(self, known: &mut Known) {
        if let Some(id) = self.order_id {
            match self.order {
                Some(order) => known.orders.insert(id, order),
                None => known.orders.remove(&id),
            };
            if let Some(content) = self.content {
                known.contents.insert(id, content);
            }
        }
        for (sku, claimed) in self.skus.iter().zip(self.claims) {
            match claimed {
                Some(claimed) => known.claims.insert(sku.clone(), claimed),
                None => known.claims.remove(sku),
            };
        }
        known.stock.retain(|key, _| self.skus.binary_search(&key.sku).is_err());
        known.stock.extend(self.stock);
    }
}

/// The first way in which two lists of events differ; no content is told.
fn difference(decided: &[LedgerEvent], again: &[LedgerEvent]) -> Option<String> {
    let at = decided.iter().zip(again).position(|(one, other)| one != other);
    let at = at.or((decided.len() != again.len()).then(|| decided.len().min(again.len())))?;
    let name = |event: Option<&LedgerEvent>| event.map_or("nothing", |event| event.topic().name());
    let (was, is) = (name(decided.get(at)), name(again.get(at)));
    Some(match was == is {
        true => format!("its event {at} ({was}) comes out with other content"),
        false => format!("its event {at} was {was}, deciding again gives {is}"),
    })
}

/// The stock rows of SKUs, out of many.
fn rows_of(known: &Known, skus: &[Sku]) -> BTreeMap<StockKey, StockRow> {
    let mut rows = BTreeMap::new();
    for sku in skus {
        let from = StockKey { sku: sku.clone(), location_id: String::new(), condition: Condition::Sellable };
        let of_sku = known.stock.range(from..).take_while(|(key, _)| key.sku == *sku);
        rows.extend(of_sku.map(|(key, row)| (key.clone(), *row)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use kept_schemas::{
        EventId, Order, OrderLine, UnitPrice,
        codec::offline,
        inbound::{Enrichment, LineFacts, OrderValidated},
        inputs::{OutcomeKind, OutcomeReceived, StockCounted, StockKind},
        order::{PaymentMethod, PaymentTerms},
        reference::Location,
    };

    use super::{
        super::{facts::Body, references::Version},
        *,
    };

    const ORDERS: [&str; 2] = ["1001", "1002"];

    fn place(topic: Topic, offset: i64) -> Place {
        Place { topic, partition: 0, offset }
    }

    fn validated(number: &str) -> OrderValidated {
        let line = OrderLine {
            line_no: 1,
            sku: "MUG".into(),
            quantity: 2,
            unit_price: UnitPrice { amount: 1_000, scale: 2 },
            line_total_minor: 2_000,
            ..Default::default()
        };
        OrderValidated {
            order: Order {
                order_id: OrderId::of("shop", number),
                channel: "storefront".into(),
                shop: "shop".into(),
                channel_order_id: number.into(),
                currency: "EUR".into(),
                total_minor: 2_000,
                lines: vec![line],
                payment: PaymentTerms { method: PaymentMethod::Channel, ..Default::default() },
                ..Default::default()
            },
            enrichment: Enrichment {
                lines: vec![LineFacts { line_no: 1, known: true, weight_grams: None }],
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn references(codec: &Codec) -> References {
        let mut references = References::default();
        let location = Location { location_id: "north".into(), active: true, ..Default::default() };
        let value = Some(codec.encode(&location).expect("it fits").bytes());
        references.add(Topic::ReferenceLocations, 0, Version { key: "north".into(), value, at: Micros(0) });
        references
    }

    /// Three goods for two orders of two: the second waits until more comes in, and the first is despatched. Each record
    /// is a batch of its own but for the two orders, which are one. `spoil` changes what was written down.
    fn decided_again(spoil: impl FnOnce(&mut Vec<(Micros, JournalRow, LedgerEvent)>)) -> Redecided {
        decided_again_after(0, spoil)
    }

    /// The first rows, so many, by an older version of Kept.
    fn decided_again_after(older: usize, spoil: impl FnOnce(&mut Vec<(Micros, JournalRow, LedgerEvent)>)) -> Redecided {
        let codec = offline();
        let count = |quantity, kind| StockCounted {
            sku: "MUG".into(),
            location_id: "north".into(),
            condition: Condition::Sellable,
            kind,
            quantity,
            ..Default::default()
        };
        let fulfilment =
            |known: &Known| known.orders[&OrderId::of("shop", ORDERS[0])].fulfilments[0].fulfilment_id.clone();
        let mut known = Known::default();
        let mut references_then = references(&codec);
        let mut inputs: BTreeMap<Place, Box<[u8]>> = BTreeMap::new();
        let mut journal = Vec::new();
        let order_nos: BTreeMap<OrderId, i64> =
            (1..).zip(ORDERS).map(|(no, it)| (OrderId::of("shop", it), no)).collect();
        let mut act = |known: &mut Known, at: i64, place: Place, bytes: Vec<u8>| {
            let input = LedgerInput::decode(&codec, place.topic, &bytes).expect("it reads").expect("known");
            inputs.insert(place, bytes.into());
            let at = Micros(Micros::DAY + at);
            known.now = at;
            if let Some(order_id) = input.order_id() {
                let new = || OrderState { order_id, order_no: order_nos[&order_id], ..OrderState::default() };
                known.orders.entry(order_id).or_insert_with(new);
            }
            let event_id = EventId::of_input("test", &place.to_string(), b"");
            let Place { topic, partition, offset } = place;
            let cause = Cause { event_id, topic, partition, offset, traceparent: None };
            let reference = references_then.at(&codec, at);
            for (index, event) in (0..).zip(decide(&input, &cause, known, &reference)) {
                let row = JournalRow {
                    journal_id: 0,
                    event_id: EventId::of_step("ledger", event_id, index),
                    topic: event.topic(),
                    order: event.place(),
                    cause_id: event_id,
                    cause: place,
                    index,
                    body: Some(Body(0)),
                };
                journal.push((at, row, event));
            }
        };
        let bytes = |it: Result<kept_schemas::Wire, _>| it.expect("it fits").bytes();
        act(&mut known, 1, place(Topic::StockCounted, 0), bytes(codec.encode(&count(3, StockKind::Count))));
        for (offset, number) in (0..).zip(ORDERS) {
            act(&mut known, 2, place(Topic::OrdersValidated, offset), bytes(codec.encode(&validated(number))));
        }
        act(&mut known, 3, place(Topic::StockCounted, 1), bytes(codec.encode(&count(5, StockKind::Receipt))));
        let woken = journal_woken(&known);
        act(&mut known, 4, place(Topic::OrdersWoken, 0), bytes(codec.encode(&woken)));
        for (offset, kind) in (0..).zip([OutcomeKind::Picked, OutcomeKind::Despatched]) {
            let outcome = OutcomeReceived {
                order_id: OrderId::of("shop", ORDERS[0]),
                kind,
                fulfilment_id: fulfilment(&known),
                location_id: "north".into(),
                shipment_id: "s1".into(),
                ..Default::default()
            };
            act(&mut known, 5 + offset, place(Topic::OutcomesReceived, offset), bytes(codec.encode(&outcome)));
        }
        spoil(&mut journal);
        let mut again = Again::new(&codec, references(&codec), &inputs, order_nos.clone());
        let ends: BTreeMap<Micros, usize> = (0..).zip(&journal).map(|(position, (at, ..))| (*at, position)).collect();
        for (position, (at, row, event)) in journal.iter().enumerate() {
            let wire = event.encode(&codec).expect("it fits");
            let versions = references_then.versions_at(*at);
            let code = if position < older { "0.0.0" } else { CODE };
            let with = Arc::new(With { code: code.into(), versions });
            again.row(row, Some(with), *at, &wire.body, &wire.party);
            if ends[at] == position {
                again.batch_ends(*at);
            }
        }
        again.finish()
    }

    /// The wake-up that the receipt sent.
    fn journal_woken(known: &Known) -> kept_schemas::inputs::OrderWoken {
        kept_schemas::inputs::OrderWoken {
            order_id: OrderId::of("shop", ORDERS[1]),
            sku: "MUG".into(),
            at: known.now,
            more: true,
        }
    }

    #[test]
    fn decided_again_everything_comes_out_the_same() {
        let again = decided_again(|_| {});
        assert_eq!(again.different, Findings::default());
        assert_eq!((again.decisions, again.otherwise, again.without_record, again.erased), (7, 0, 0, 0));
        assert!(again.events > 15, "{again:?}");
    }

    #[test]
    fn what_another_version_of_kept_decided_is_counted_and_left_alone() {
        // Its rules said something else of the first record.
        let again = decided_again_after(1, |journal| {
            if let LedgerEvent::Stock(it) = &mut journal[0].2 {
                it.cause = "older rules".into();
            }
        });
        assert_eq!((again.different, again.otherwise, again.decisions), (Findings::default(), 1, 6));
    }

    #[test]
    fn rows_of_two_workers_that_wrote_at_the_same_time_may_lie_between_each_other() {
        let again = decided_again(|journal| {
            // One order is woken, another one picked.
            let ends: Vec<usize> = (1..journal.len()).filter(|&at| journal[at].0 != journal[at - 1].0).collect();
            let picked = ends[ends.len() - 2];
            journal.swap(picked - 1, picked);
            let causes = [picked - 1, picked].map(|at| journal[at].1.cause.topic);
            assert_eq!(causes, [Topic::OutcomesReceived, Topic::OrdersWoken]);
        });
        assert_eq!((again.different, again.decisions), (Findings::default(), 7));
    }

    #[test]
    fn an_event_that_says_something_else_is_lacking_or_too_many_is_noticed_once() {
        let changed = decided_again(|journal| {
            let claim = journal.iter_mut().find_map(|(_, _, event)| match event {
                LedgerEvent::Accepted(it) => Some(&mut it.claimed[0].quantity),
                _ => None,
            });
            *claim.expect("an order was accepted") -= 1;
        });
        assert_eq!(
            changed.different.examples[0],
            "orders.validated/0/0: its event 0 (orders.accepted) comes out with other content"
        );
        let lacking = decided_again(|journal| {
            let last = journal.len() - 1;
            journal.remove(last);
        });
        assert_eq!(lacking.different.count, 1);
        assert!(lacking.different.examples[0].contains("was nothing, deciding again gives"), "{lacking:?}");
        let many = decided_again(|journal| {
            let last = journal.last().expect("events").clone();
            journal.push(last);
        });
        assert_eq!(many.different.count, 1);
        assert!(many.different.examples[0].contains("deciding again gives nothing"), "{many:?}");
    }

    #[test]
    fn an_order_whose_person_was_erased_is_counted_and_left_alone() {
        let again = decided_again(|journal| {
            for (_, row, event) in journal.iter_mut() {
                if matches!(event, LedgerEvent::Accepted(_)) {
                    row.body = None;
                }
            }
        });
        assert_eq!((again.different.count, again.erased), (0, 2));
    }
}
