//! Invariant 6: postings balance, each is posted once, refunds stay within what was captured, and what was sold is what
//! was shipped.

use std::collections::{BTreeMap, BTreeSet};

use kept_schemas::{
    OrderId,
    events::{PostingKind, PostingRequested},
    inbound::HoldReason,
};

use super::{
    facts::{Facts, PostingRow},
    life::Life,
    verdict::Verdict,
};

pub fn check(facts: &Facts, lives: &BTreeMap<OrderId, Life<'_>>) -> Verdict {
    let mut verdict =
        Verdict::new("postings", 6, "every posting balances and is posted once; refunds stay within what was captured");
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    // A payment or a shipment is posted once, whatever the id; one payment may go back in several ways.
    let mut purposes: BTreeSet<(OrderId, PostingKind, &str)> = BTreeSet::new();
    let mut postings = 0;
    let mut whole = 0;
    for (order, life) in lives {
        for posting in &life.postings {
            postings += 1;
            if let Some(fault) = unbalanced(posting) {
                verdict.broken(|| format!("order {order}: posting {} {fault}", posting.posting_id));
            }
            if !ids.insert(&posting.posting_id) {
                verdict.broken(|| format!("order {order}: posting {} is there twice", posting.posting_id));
            } else if posting.kind != PostingKind::Refund && !purposes.insert((*order, posting.kind, &posting.cause)) {
                verdict.broken(|| format!("order {order}: a second {} for {} is posted", posting.kind, posting.cause));
            }
        }
        if let Some(fault) = refunds(life) {
            verdict.broken(|| format!("order {order}: {fault}"));
        }
        match sales(life) {
            Some(Err(fault)) => verdict.broken(|| format!("order {order}: {fault}")),
            Some(Ok(())) => whole += 1,
            None => {}
        }
    }
    verdict.notes.push("not yet applicable: the books of an accounting system, and refunds of our own".into());
    verdict.count("postings", postings);
    verdict.count("orders shipped whole, sale = total", whole);
    read_model(facts, lives, &mut verdict);
    verdict
}

fn unbalanced(posting: &PostingRequested) -> Option<String> {
    let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
    for entry in &posting.entries {
        *sums.entry(&entry.amount.currency).or_default() += i128::from(entry.amount.minor);
    }
    if posting.entries.len() < 2 {
        return Some(format!("has {} sides", posting.entries.len()));
    }
    sums.into_iter().find(|(_, sum)| *sum != 0).map(|(currency, sum)| format!("is {sum} cents of {currency} off"))
}

/// Money that came and went. What a provider or a channel did is a fact even where it breaks the rule; then a hold must
/// say so.
fn refunds(life: &Life<'_>) -> Option<String> {
    let paid = life.paid?;
    let told = life.holds.values().filter_map(|hold| hold.opened).any(|hold| hold.reason == HoldReason::MoneyMismatch);
    (paid.refunded_minor > paid.captured_minor && !told).then(|| {
        format!("{} cents refunded of {} captured, and no hold says so", paid.refunded_minor, paid.captured_minor)
    })
}

/// An order that left whole was sold for its total: no more, no less. `None`: it did not leave whole, or is a trial.
fn sales(life: &Life<'_>) -> Option<Result<(), String>> {
    let order = &life.accepted?.order;
    let units = life.total();
    let sold: i64 = life
        .postings
        .iter()
        .filter(|posting| posting.kind == PostingKind::Sale)
        .flat_map(|posting| &posting.entries)
        .filter(|entry| entry.account == "receivable")
        .map(|entry| entry.amount.minor)
        .sum();
    if order.test {
        return (sold != 0).then(|| Err(format!("a trial order was sold for {sold} cents")));
    }
    let goods: i64 = order.lines.iter().map(|line| line.quantity).sum();
    if units.shipped == 0 && sold != 0 && goods > 0 {
        return Some(Err(format!("nothing left, but {sold} cents are posted as a sale")));
    }
    if goods == 0 || units.cancelled != 0 || units.shipped != goods {
        return None;
    }
    Some(if sold == order.total_minor {
        Ok(())
    } else {
        Err(format!("all of it left, worth {} cents, but {sold} are posted as sales", order.total_minor))
    })
}

/// The read model has each side of each posting.
fn read_model(facts: &Facts, lives: &BTreeMap<OrderId, Life<'_>>, verdict: &mut Verdict) {
    let behind = super::read_model::behind(facts, lives);
    let mut expected: BTreeMap<(&str, &str, &str), (OrderId, PostingKind, i64)> = BTreeMap::new();
    for (order, life) in lives {
        for posting in &life.postings {
            for entry in &posting.entries {
                let key = (posting.posting_id.as_str(), entry.account.as_str(), entry.amount.currency.as_str());
                expected.entry(key).or_insert((*order, posting.kind, 0)).2 += entry.amount.minor;
            }
        }
    }
    let mut sums: BTreeMap<(&str, &str), i128> = BTreeMap::new();
    let mut seen: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for row in &facts.read.postings {
        let PostingRow { posting_id, order_id, kind, account, currency, amount_minor } = row;
        *sums.entry((posting_id, currency)).or_default() += i128::from(*amount_minor);
        if !seen.insert((posting_id, account, currency)) {
            verdict.broken(|| format!("posting {posting_id} has its side {account} twice in the read model"));
        }
        match expected.get(&(posting_id.as_str(), account.as_str(), currency.as_str())) {
            Some((order, posting, amount))
                if order == order_id && posting.as_str() == kind && amount == amount_minor => {}
            _ if behind.contains(order_id) => {}
            _ => verdict.broken(|| format!("posting {posting_id}: side {account} is otherwise than was decided")),
        }
    }
    for ((posting, currency), sum) in sums {
        if sum != 0 {
            verdict.broken(|| format!("posting {posting} is {sum} cents of {currency} off in the read model"));
        }
    }
    for (key @ (posting, account, _), (order, ..)) in &expected {
        if !seen.contains(key) {
            verdict.broken_or_in_flight(!behind.contains(order), || {
                format!("posting {posting}: side {account} is not in the read model")
            });
        }
    }
    verdict.count("sides in the read model", facts.read.postings.len());
}
