//! Invariant 7: every order ends, or waits for something that has a name and a deadline.

use std::collections::{BTreeMap, BTreeSet};

use kept_processors::ledger::{FulfilmentStatus, OrderState};
use kept_schemas::{Micros, OrderId};

use super::{
    facts::{Facts, TimerRow},
    verdict::Verdict,
};

/// The timer source sends what is due within a second, and the ledger answers when it is there: after this long one of
/// them is not.
const LATE: Micros = Micros(120 * Micros::SECOND);

/// Where an order stands, in the words of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Done,
    /// Left, not delivered yet; the carrier's time is not ours to limit.
    OnItsWay,
    /// Asked of a location, with a deadline to leave.
    AtALocation,
    /// An open hold, with a deadline.
    Held,
    /// Facts came, the order itself did not.
    Placeholder,
    /// None of these: nobody will ever look at it again.
    Forgotten,
}

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("endings", 7, "every order has ended, or waits for something with a name and a deadline");
    let mut timers: BTreeMap<OrderId, Vec<&TimerRow>> = BTreeMap::new();
    for timer in &facts.ledger.timers {
        timers.entry(timer.order_id).or_default().push(timer);
    }
    let under_way = super::accepted::orders_under_way(facts);
    let parked: BTreeSet<OrderId> = facts.ledger.parked.iter().map(|it| it.order_id).collect();
    let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
    let (mut overdue, mut due) = (0, 0);
    for (order, state) in &facts.ledger.states {
        let timers = timers.remove(order).unwrap_or_default();
        let standing = standing(state);
        *counts.entry(standing).or_default() += 1;
        if let Some(fault) = without_deadline(standing, state, &timers) {
            verdict.broken_or_in_flight(!under_way.contains(order), || format!("order {order} {fault}"));
        }
        for fault in differing(state, &timers) {
            verdict.broken(|| format!("order {order} {fault}"));
        }
        overdue += state.holds.iter().filter(|hold| hold.due_at < facts.now).count();
        due += timers.iter().filter(|timer| timer.due_at < facts.now).count();
        // A parked order is not asked for its deadlines.
        for timer in timers.iter().filter(|it| it.due_at.0 < facts.now.0 - LATE.0 && !parked.contains(order)) {
            verdict.in_flight(|| format!("order {order} was not told that timer {} is due", timer.timer_id));
        }
    }
    for (order, timers) in timers {
        verdict.broken(|| format!("timer {} is set for order {order}, which is not known", timers[0].timer_id));
    }
    let words: [(Standing, &'static str); 5] = [
        (Standing::Done, "ended"),
        (Standing::OnItsWay, "on their way to the customer"),
        (Standing::AtALocation, "at a location, with a deadline"),
        (Standing::Held, "held, with a deadline"),
        (Standing::Placeholder, "announced by facts alone"),
    ];
    for (standing, what) in words {
        verdict.count(what, counts.get(&standing).copied().unwrap_or(0));
    }
    if overdue > 0 {
        verdict.notes.push(format!("{overdue} holds are past their deadline: someone should act"));
    }
    if due > 0 {
        verdict.notes.push(format!("{due} timers are due and not dealt with yet (does `kept run` run?)"));
    }
    verdict
}

/// Where an order stands by what the ledger remembers.
pub fn standing(state: &OrderState) -> Standing {
    let at_a_location = state.fulfilments.iter().any(|it| {
        matches!(it.status, FulfilmentStatus::Requested | FulfilmentStatus::Picked | FulfilmentStatus::Withdrawing)
    });
    let open: i64 = state.lines.iter().map(|line| line.open()).sum();
    match () {
        () if !state.holds.is_empty() => Standing::Held,
        () if !state.accepted => Standing::Placeholder,
        () if state.completed.is_some() => Standing::Done,
        () if at_a_location => Standing::AtALocation,
        () if !state.shipments.is_empty() && open <= 0 => Standing::OnItsWay,
        () => Standing::Forgotten,
    }
}

fn without_deadline(standing: Standing, state: &OrderState, timers: &[&TimerRow]) -> Option<String> {
    match standing {
        Standing::Forgotten => Some("is neither done nor held nor at a location: nothing will wake it".into()),
        Standing::Held => state
            .holds
            .iter()
            .find(|hold| hold.due_at <= Micros(0))
            .map(|hold| format!("is held for {} without a deadline", hold.reason)),
        Standing::AtALocation => timers.is_empty().then(|| "is at a location without a deadline".to_owned()),
        Standing::Done | Standing::OnItsWay | Standing::Placeholder => None,
    }
}

/// The table of timers is what the order's state says.
fn differing(state: &OrderState, timers: &[&TimerRow]) -> Vec<String> {
    let table: BTreeSet<(&str, Micros)> = timers.iter().map(|it| (it.timer_id.as_str(), it.due_at)).collect();
    let says: BTreeSet<(&str, Micros)> = state.timers.iter().map(|it| (it.timer_id.as_str(), it.due_at)).collect();
    let missing = says.difference(&table).map(|(timer, _)| format!("has timer {timer}, but it is not set"));
    let extra = table.difference(&says).map(|(timer, _)| format!("does not know of its timer {timer}"));
    missing.chain(extra).collect()
}
