//! Small rules and steps over the real record types: enough to tell every way of doing something twice or not at all.

use kept_processors::{
    ledger::{Cause, Facts, LedgerEvent, LedgerInput, Sku},
    reference::Reference,
};
use kept_runtime::stateless::{Inward, Made, StatelessStep, Unread};
use kept_schemas::{
    Micros, OrderId, Topic,
    events::{NoteKind, OrderNoted, OrderPaid},
    inbound::{Inbound, OrderEnriched, OrderReceived, OrderValidated},
};
use kept_store::seam::{Keys, Rules};

use crate::store::REFUSE;

pub const PANIC: &str = "PANIC";
/// What a payment in this currency needs locked cannot be.
pub const NO_LOCK: &str = "NO_LOCK";

/// Running totals of payments; some payments make two events, some none; commands make a note.
pub struct ToyRules;

impl Rules for ToyRules {
    fn keys(&self, _: &LedgerInput, _: &Cause, _: &mut Keys) {}

    fn skus(&self, input: &LedgerInput, _: &Facts) -> Vec<Sku> {
        match input {
            LedgerInput::Payment(it) if it.currency == NO_LOCK => vec![REFUSE.into()],
            _ => Vec::new(),
        }
    }

    fn decide(&self, input: &LedgerInput, _: &Cause, facts: &mut Facts, with: &Reference) -> Vec<LedgerEvent> {
        match input {
            LedgerInput::Payment(it) => {
                let state = facts.orders.get_mut(&it.order_id).expect("it was locked");
                if it.amount_minor % 7 == 0 {
                    return Vec::new();
                }
                state.seq += 1;
                state.payment.captured_minor += it.amount_minor;
                assert_ne!(it.currency, PANIC, "as told");
                if it.currency == REFUSE {
                    state.account = REFUSE.into();
                }
                let mut events = vec![LedgerEvent::from(OrderPaid {
                    order_id: it.order_id,
                    seq: state.seq,
                    captured_minor: state.payment.captured_minor,
                    ..Default::default()
                })];
                if it.amount_minor % 3 == 0 {
                    state.seq += 1;
                    events.push(note(it.order_id, state.seq, &it.payment_id));
                }
                events
            }
            LedgerInput::Command(it) => {
                let state = facts.orders.get_mut(&it.order_id).expect("it was locked");
                state.seq += 1;
                let version = with.versions.values().sum::<i64>();
                let detail = format!("{} {version}{}", it.command_id, it.by);
                vec![note(it.order_id, state.seq, &detail)]
            }
            _ => Vec::new(),
        }
    }
}

fn note(order_id: OrderId, seq: i64, detail: &str) -> LedgerEvent {
    let detail = detail.to_owned();
    OrderNoted { order_id, seq, at: Micros(0), kind: NoteKind::Looked, detail, ..Default::default() }.into()
}

/// Raw → received → enriched → validated, each adding a mark; some bodies make two orders, some cannot be read.
pub const STEPS: [StatelessStep; 3] = [
    StatelessStep { name: "one", inputs: &[Topic::ChannelsInbound], outputs: &[Topic::OrdersReceived], decide: one },
    StatelessStep { name: "two", inputs: &[Topic::OrdersReceived], outputs: &[Topic::OrdersEnriched], decide: two },
    StatelessStep {
        name: "three",
        inputs: &[Topic::OrdersEnriched],
        outputs: &[Topic::OrdersValidated],
        decide: three,
    },
];

fn one(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let it = inward.read::<Inbound>()?;
    assert_ne!(it.shop, PANIC, "as told");
    let count = if it.external_id.ends_with('3') { 2 } else { 1 };
    (0..count)
        .map(|part| {
            let mut received = OrderReceived::default();
            received.order.order_id = OrderId::of(&it.shop, &format!("{}-{part}", it.external_id));
            received.order.channel_order_id = it.external_id.clone();
            received.body_hash = "one".into();
            Made::of(inward.codec, received.order.order_id.to_string(), received)
        })
        .collect()
}

fn two(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let it = inward.read::<OrderReceived>()?;
    if it.order.channel_order_id.ends_with('5') {
        return Err(Unread::Poison("as told".into()));
    }
    let body_hash = format!("{} two", it.body_hash);
    let made = OrderEnriched { order: it.order.clone(), body_hash, ..Default::default() };
    Ok(vec![Made::of(inward.codec, made.order.order_id.to_string(), made)?])
}

fn three(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let it = inward.read::<OrderEnriched>()?;
    let body_hash = format!("{} three", it.body_hash);
    let made = OrderValidated { order: it.order.clone(), body_hash, ..Default::default() };
    Ok(vec![Made::of(inward.codec, made.order.order_id.to_string(), made)?])
}
