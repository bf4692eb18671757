//! The desk of the simulated warehouse: what it was asked, what it must say next, and how far its reading is done.
//! Pure: the time is handed in, and nothing is read or sent here.
//!
//! An offset is done when everything that follows from its record has been sent, so a simulator that was killed reads
//! again whatever was open. Nothing but a place in the plan is kept of an open fulfilment order: its reports are
//! worked out when they are due.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use kept_schemas::{Micros, inputs::OutcomeKind};

use super::plan::{Report, Work, World, last_chance, plan};

/// A withdrawal of a fulfilment order that is not open waits this long for it: the two come on different topics.
/// After that the fulfilment order must have been answered in full long ago.
const EARLY: i64 = 30 * Micros::SECOND;
/// So many of them wait; beyond, the oldest is given up: a warehouse that did not read its mail in time.
const MOST_EARLY: usize = 100_000;

/// Partition and offset.
pub type Place = (i32, i64);

/// How much was done, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    /// Requests that were open already.
    pub again: u64,
    pub withdrawals: u64,
    pub withdrawn_too_late: u64,
    pub reports: BTreeMap<OutcomeKind, u64>,
    pub repeated: u64,
}

struct Open {
    work: Work,
    place: Place,
    /// The withdrawal that took effect, if there is one: its offset, once it was read by this process.
    withdrawn: Option<(Micros, Option<Place>)>,
    /// How many of its reports were handed out.
    told: usize,
}

/// How far the reading of one topic is done.
#[derive(Default)]
struct Marks(BTreeMap<i32, (i64, BTreeSet<i64>)>);

impl Marks {
    fn read(&mut self, (partition, offset): Place) {
        let (next, open) = self.0.entry(partition).or_default();
        *next = (*next).max(offset + 1);
        open.insert(offset);
    }

    fn done(&mut self, (partition, offset): Place) {
        if let Some((_, open)) = self.0.get_mut(&partition) {
            open.remove(&offset);
        }
    }

    fn positions(&self) -> impl Iterator<Item = Place> {
        self.0.iter().map(|(&partition, (next, open))| (partition, open.first().copied().unwrap_or(*next)))
    }
}

/// The desk.
pub struct Desk {
    world: World,
    open: BTreeMap<Arc<str>, Open>,
    due: BinaryHeap<Reverse<(Micros, Arc<str>)>>,
    /// Withdrawals that took effect, from the books.
    known: BTreeMap<String, Micros>,
    /// Withdrawals of what is not open (yet): until when they wait.
    early: BTreeMap<String, (Place, Micros)>,
    early_by_time: BTreeSet<(Micros, String)>,
    requests: Marks,
    withdrawals: Marks,
    counts: Counts,
}

impl Desk {
    /// `known`: withdrawals that took effect before, by fulfilment id.
    pub fn new(world: World, known: BTreeMap<String, Micros>) -> Self {
        Self {
            world,
            open: BTreeMap::new(),
            due: BinaryHeap::new(),
            known,
            early: BTreeMap::new(),
            early_by_time: BTreeSet::new(),
            requests: Marks::default(),
            withdrawals: Marks::default(),
            counts: Counts::default(),
        }
    }

    /// Takes a fulfilment order in.
    pub fn request(&mut self, place: Place, work: Work, now: Micros) {
        self.counts.requests += 1;
        self.requests.read(place);
        if self.open.contains_key(work.fulfilment_id.as_str()) {
            self.counts.again += 1;
            self.requests.done(place);
            return;
        }
        let id: Arc<str> = work.fulfilment_id.as_str().into();
        let withdrawn = self.known.get(&*id).map(|&at| (at, None));
        self.open.insert(Arc::clone(&id), Open { work, place, withdrawn, told: 0 });
        if let Some((place, until)) = self.early.remove(&*id) {
            self.early_by_time.remove(&(until, id.to_string()));
            self.judge(&id, place, now);
        }
        self.schedule(id);
    }

    /// Takes a withdrawal in.
    pub fn withdraw(&mut self, place: Place, fulfilment_id: &str, now: Micros) {
        self.counts.withdrawals += 1;
        self.withdrawals.read(place);
        if let Some((id, _)) = self.open.get_key_value(fulfilment_id) {
            let id = Arc::clone(id);
            self.judge(&id, place, now);
            self.schedule(id);
            return;
        }
        let until = now.plus(EARLY);
        if let Some((twice, until)) = self.early.insert(fulfilment_id.to_owned(), (place, until)) {
            self.early_by_time.remove(&(until, fulfilment_id.to_owned()));
            self.withdrawals.done(twice);
        }
        self.early_by_time.insert((until, fulfilment_id.to_owned()));
        if self.early.len() > MOST_EARLY {
            self.give_up_oldest();
        }
    }

    /// A record that is none of ours to answer.
    pub fn pass_over_request(&mut self, place: Place) {
        self.requests.read(place);
        self.requests.done(place);
    }

    /// See [`Desk::pass_over_request`].
    pub fn pass_over_withdrawal(&mut self, place: Place) {
        self.withdrawals.read(place);
        self.withdrawals.done(place);
    }

    /// Reports that are due, in the order they are to be sent, at most `most`. They count as sent: write them down
    /// and send them before [`Desk::positions`] is asked again.
    pub fn take_due(&mut self, now: Micros, most: usize) -> Vec<Report> {
        while self.early_by_time.first().is_some_and(|(until, _)| *until <= now) {
            self.give_up_oldest();
        }
        let mut reports = Vec::new();
        while reports.len() < most && self.due.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((_, id))) = self.due.pop() else { break };
            let Some(open) = self.open.get_mut(&*id) else { continue };
            let all = plan(&self.world, &open.work, open.withdrawn.map(|(at, _)| at));
            // A withdrawal moved the next report; its own entry in the queue is due instead.
            if all.get(open.told).is_none_or(|it| it.due > now) {
                if all.len() <= open.told {
                    self.close(&id);
                }
                continue;
            }
            for report in all.into_iter().skip(open.told).take_while(|it| it.due <= now) {
                open.told += 1;
                *self.counts.reports.entry(report.outcome.kind).or_default() += 1;
                self.counts.repeated += u64::from(report.repeated);
                reports.push(report);
            }
            self.schedule(id);
        }
        // Those of one order are in order already; this puts different orders' in order of time.
        reports.sort_by_key(|it| it.due);
        reports
    }

    /// When the next report is due.
    pub fn next_due(&self) -> Option<Micros> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Fulfilment orders that are not answered in full.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How much was done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From where to read on after a restart: (requests, withdrawals), by partition.
    pub fn positions(&self) -> (Vec<Place>, Vec<Place>) {
        (self.requests.positions().collect(), self.withdrawals.positions().collect())
    }

    /// In time, or too late? Everything due by now was sent or is about to be, so what is judged here contradicts
    /// nothing that was told.
    fn judge(&mut self, id: &Arc<str>, place: Place, now: Micros) {
        let Some(open) = self.open.get_mut(id) else { return };
        if let Some((_, read)) = &mut open.withdrawn {
            // Known from the books, or withdrawn twice.
            if let Some(twice) = read.replace(place) {
                self.withdrawals.done(twice);
            }
        } else if now < last_chance(&self.world, &open.work) {
            open.withdrawn = Some((now, Some(place)));
            self.known.insert(id.to_string(), now);
        } else {
            self.counts.withdrawn_too_late += 1;
            self.withdrawals.done(place);
        }
    }

    /// Puts the next report into the queue, or closes what has none.
    fn schedule(&mut self, id: Arc<str>) {
        let Some(open) = self.open.get(&*id) else { return };
        let all = plan(&self.world, &open.work, open.withdrawn.map(|(at, _)| at));
        match all.get(open.told) {
            Some(next) => self.due.push(Reverse((next.due, id))),
            None => self.close(&id),
        }
    }

    fn close(&mut self, id: &str) {
        let Some(open) = self.open.remove(id) else { return };
        self.requests.done(open.place);
        if let Some((_, Some(place))) = open.withdrawn {
            self.withdrawals.done(place);
        }
    }

    fn give_up_oldest(&mut self) {
        let Some((_, id)) = self.early_by_time.pop_first() else { return };
        if let Some((place, _)) = self.early.remove(&id) {
            self.counts.withdrawn_too_late += 1;
            self.withdrawals.done(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Rates, plan::WorkLine, rates::Mishap};
    use kept_schemas::OrderId;

    const START: Micros = Micros(1_000 * Micros::DAY);

    fn world() -> World {
        World { seed: 3, speed: 3_600, rates: Rates::none() }
    }

    fn work(id: u32) -> Work {
        Work {
            order_id: OrderId::of("shop", &id.to_string()),
            fulfilment_id: format!("f-{id}"),
            location_id: "dc".into(),
            service: None,
            requested_at: START,
            lines: vec![WorkLine { line_no: 1, quantity: 2, unit_weight_grams: Some(100) }],
        }
    }

    fn at(seconds: i64) -> Micros {
        START.plus(seconds * Micros::SECOND)
    }

    fn ids(reports: &[Report]) -> Vec<String> {
        reports.iter().map(|it| it.outcome.outcome_id.clone()).collect()
    }

    fn drain(desk: &mut Desk, from: i64, to: i64) -> Vec<Report> {
        (from..=to).flat_map(|second| desk.take_due(at(second), 1_000)).collect()
    }

    #[test]
    fn reports_come_when_they_are_due_and_offsets_are_done_with_the_last() {
        let mut desk = Desk::new(world(), BTreeMap::new());
        for id in 0..5 {
            desk.request((0, 10 + i64::from(id)), work(id), START);
        }
        assert_eq!(desk.take_due(START, 100), vec![]);
        assert_eq!(desk.positions().0, vec![(0, 10)]);
        let reports = drain(&mut desk, 0, 60);
        assert_eq!(reports.len(), 5 * 6);
        assert!(reports.is_sorted_by_key(|it| it.due));
        assert_eq!((desk.open(), desk.next_due()), (0, None));
        assert_eq!(desk.positions().0, vec![(0, 15)]);
    }

    #[test]
    fn one_that_was_killed_says_the_same_again() {
        let mut rates = Rates::default();
        for &mishap in Mishap::ALL {
            rates = rates.with(mishap, 300);
        }
        let world = World { rates, ..world() };
        let uninterrupted = {
            let mut desk = Desk::new(world, BTreeMap::new());
            (0..50).for_each(|id| desk.request((0, i64::from(id)), work(id), START));
            desk.withdraw((0, 7), "f-7", at(1));
            desk.take_due(Micros(i64::MAX), usize::MAX)
        };
        for killed_at in [1, 2, 5, 10, 20, 40, 200] {
            let mut first = Desk::new(world, BTreeMap::new());
            (0..50).for_each(|id| first.request((0, i64::from(id)), work(id), START));
            first.withdraw((0, 7), "f-7", at(1));
            let mut told = drain(&mut first, 1, killed_at);
            let from = first.positions().0[0].1;
            let books = told.iter().filter(|it| it.outcome.kind == OutcomeKind::Withdrawn);
            let books = books.map(|it| (it.outcome.fulfilment_id.clone(), it.outcome.at)).collect();
            let mut second = Desk::new(world, books);
            for id in 0..50 {
                if i64::from(id) >= from {
                    second.request((0, i64::from(id)), work(id), at(killed_at));
                }
            }
            second.withdraw((0, 7), "f-7", at(killed_at));
            told.extend(second.take_due(Micros(i64::MAX), usize::MAX));
            let set = |all: &[Report]| all.iter().map(|it| (it.event_id(), it.outcome.at)).collect::<BTreeSet<_>>();
            assert_eq!(set(&told), set(&uninterrupted), "killed after {killed_at} s");
        }
    }

    #[test]
    fn a_withdrawal_in_time_is_confirmed_and_one_too_late_is_not() {
        let chance = last_chance(&world(), &work(1));
        for (withdrawn_at, last) in [(Micros(chance.0 - 1), "f-1:withdrawn"), (chance, "f-1:delivered")] {
            let mut desk = Desk::new(world(), BTreeMap::new());
            desk.request((0, 0), work(1), START);
            let mut told = desk.take_due(withdrawn_at, 100);
            desk.withdraw((0, 4), "f-1", withdrawn_at);
            told.extend(desk.take_due(Micros(i64::MAX), 100));
            assert_eq!(ids(&told).last().map(String::as_str), Some(last));
            assert_eq!(ids(&told).iter().collect::<BTreeSet<_>>().len(), told.len(), "nothing twice");
            assert_eq!(desk.positions(), (vec![(0, 1)], vec![(0, 5)]));
        }
    }

    #[test]
    fn an_early_withdrawal_waits_for_its_fulfilment_order_but_not_for_ever() {
        let mut desk = Desk::new(world(), BTreeMap::new());
        desk.withdraw((1, 4), "f-1", START);
        desk.withdraw((1, 5), "f-2", START);
        assert_eq!(desk.take_due(at(1), 10), vec![]);
        assert_eq!(desk.positions().1, vec![(1, 4)]);
        desk.request((1, 9), work(1), at(0));
        assert_eq!(ids(&desk.take_due(at(1), 10)), vec!["f-1:withdrawn"]);
        assert_eq!(desk.positions().1, vec![(1, 5)]);
        assert_eq!(desk.take_due(at(31), 10), vec![]);
        assert_eq!(desk.positions().1, vec![(1, 6)]);
        assert_eq!(desk.counts().withdrawn_too_late, 1);
    }

    #[test]
    fn the_same_fulfilment_order_twice_is_answered_once() {
        let mut desk = Desk::new(world(), BTreeMap::new());
        desk.request((0, 1), work(1), START);
        desk.request((0, 2), work(1), START);
        desk.withdraw((0, 1), "f-1", START);
        desk.withdraw((0, 2), "f-1", START);
        assert_eq!(ids(&desk.take_due(Micros(i64::MAX), 10)), vec!["f-1:withdrawn"]);
        assert_eq!(desk.positions(), (vec![(0, 3)], vec![(0, 3)]));
        assert_eq!(desk.counts().again, 1);
    }

    #[test]
    fn an_empty_fulfilment_order_is_done_at_once() {
        let mut desk = Desk::new(world(), BTreeMap::new());
        desk.request((0, 1), Work { lines: vec![], ..work(1) }, START);
        desk.pass_over_request((0, 2));
        assert_eq!((desk.open(), desk.positions().0), (0, vec![(0, 3)]));
    }

    #[test]
    fn an_open_fulfilment_order_takes_little_memory() {
        // What one costs: the entry, its lines, its id three times at most.
        let each = size_of::<Open>() + size_of::<WorkLine>() * 3 + 3 * 40 + size_of::<(Micros, Arc<str>)>();
        assert!(each < 600, "{each} bytes");
    }
}
