//! What the simulated warehouse and carrier will report about a fulfilment order, and when. A pure function: the same
//! fulfilment order, seed, rates and speed always give the same reports under the same ids.

use kept_schemas::{
    EventId, Micros, OrderId,
    events::FulfilmentRequested,
    ids::derive,
    inputs::{LineQuantity, OutcomeKind, OutcomeReceived, Parcel},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rates::{Mishap, Rates};

/// Who reports, as part of every event id.
const ACCOUNT: &str = "simulator";
/// What a parcel may weigh with its packaging.
const PARCEL_GRAMS: i64 = 20_000;
const PACKAGING_GRAMS: i64 = 150;
/// For goods whose weight nobody stated.
const UNKNOWN_UNIT_GRAMS: i64 = 500;
/// Goods that need more parcels than this travel on a pallet, as one.
const MOST_PARCELS: usize = 20;

/// How this world goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    pub seed: u64,
    /// Seconds of the simulated world in one second of ours; at least 1.
    pub speed: u32,
    pub rates: Rates,
}

impl Default for World {
    fn default() -> Self {
        Self { seed: 1, speed: 3_600, rates: Rates::default() }
    }
}

/// A fulfilment order as the warehouse keeps it: no name, no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub order_id: OrderId,
    pub fulfilment_id: String,
    pub location_id: String,
    pub service: Option<String>,
    pub requested_at: Micros,
    pub lines: Vec<WorkLine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkLine {
    pub line_no: i32,
    pub quantity: i64,
    pub unit_weight_grams: Option<i64>,
}

impl From<&FulfilmentRequested> for Work {
    fn from(it: &FulfilmentRequested) -> Self {
        Self {
            order_id: it.order_id,
            fulfilment_id: it.fulfilment_id.clone(),
            location_id: it.location_id.clone(),
            service: it.service.clone(),
            requested_at: it.at,
            lines: it
                .lines
                .iter()
                .filter(|line| line.quantity > 0)
                .map(|line| WorkLine {
                    line_no: line.line_no,
                    quantity: line.quantity,
                    unit_weight_grams: line.unit_weight_grams,
                })
                .collect(),
        }
    }
}

/// One report, and when it is sent (which is later than when it happened if two swapped places).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub due: Micros,
    pub outcome: OutcomeReceived,
    /// Sent before already, on purpose: a carrier's system that repeats itself.
    pub repeated: bool,
}

impl Report {
    /// The same for the same report, however often it is sent.
    pub fn event_id(&self) -> EventId {
        EventId::of_input(ACCOUNT, &self.outcome.outcome_id, b"")
    }
}

/// Everything that will be reported about `work`, in the order it is sent. `withdrawn_at`: when a withdrawal took
/// effect; what was due by then stands, and nothing else comes after the confirmation.
pub fn plan(world: &World, work: &Work, withdrawn_at: Option<Micros>) -> Vec<Report> {
    let course = Course::of(world, work);
    let mut reports = course.reports(world, work);
    if let Some(at) = withdrawn_at {
        reports.retain(|report| report.due <= at);
        let mut withdrawn = course.outcome(work, "withdrawn", OutcomeKind::Withdrawn, at);
        // What was reported missing is not there to be given back.
        let short = reports.iter().any(|it| it.outcome.kind == OutcomeKind::Short);
        withdrawn.lines = if short { course.picked.clone() } else { quantities(work) };
        reports.push(Report { due: at, outcome: withdrawn, repeated: false });
    }
    reports
}

/// Up to when a withdrawal is heeded.
pub fn last_chance(world: &World, work: &Work) -> Micros {
    let course = Course::of(world, work);
    if course.ends_at_the_shelf() || course.withdrawal_too_late { course.pick_at } else { course.despatch_at }
}

/// What was drawn for one fulfilment order. Everything is drawn each time, in one order, so that changing one rate
/// changes nothing else.
struct Course {
    refused: bool,
    missing: Vec<LineQuantity>,
    picked: Vec<LineQuantity>,
    withdrawal_too_late: bool,
    pick_at: Micros,
    despatch_at: Micros,
    /// Of the carrier's scans; the last is the delivery.
    scans_at: [Micros; 4],
    failure: Option<&'static str>,
    /// Which report changes places with the one after it.
    swapped: Option<usize>,
    /// Which report is sent again, and how much later.
    repeated: Option<(usize, i64)>,
}

const SCANS: [(&str, &str); 3] =
    [("scan-1", "ACCEPTED_AT_DEPOT"), ("scan-2", "SORTED"), ("scan-3", "OUT_FOR_DELIVERY")];
const FAILURES: [&str; 4] = ["LOST", "DAMAGED", "REFUSED_BY_RECEIVER", "RETURNED_TO_SENDER"];

impl Course {
    fn of(world: &World, work: &Work) -> Self {
        let seed = derive("world", &[&world.seed.to_be_bytes(), work.fulfilment_id.as_bytes()]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed.as_u64_pair().0);
        let happens = |rng: &mut ChaCha8Rng, it| rng.random_range(0..1_000) < world.rates.of(it);
        let speed = i64::from(world.speed.max(1));
        let span = |rng: &mut ChaCha8Rng, from: i64, to: i64| rng.random_range(from..=to) / speed;

        let refused = happens(&mut rng, Mishap::Refused);
        let short = happens(&mut rng, Mishap::Short);
        let (short_line, short_part) = (rng.random_range(0..=u32::MAX), rng.random_range(0..=u32::MAX));
        let late_pick = happens(&mut rng, Mishap::LatePick);
        let withdrawal_too_late = happens(&mut rng, Mishap::WithdrawalTooLate);
        let mut at = work.requested_at.plus(span(&mut rng, 30 * Micros::MINUTE, 4 * Micros::HOUR));
        let pick_delay = span(&mut rng, Micros::DAY, 3 * Micros::DAY);
        if late_pick {
            at = at.plus(pick_delay);
        }
        let pick_at = at;
        at = at.plus(span(&mut rng, Micros::HOUR, 6 * Micros::HOUR));
        let despatch_at = at;
        let late_delivery = happens(&mut rng, Mishap::LateDelivery);
        let delivery_delay = span(&mut rng, Micros::DAY, 3 * Micros::DAY);
        let mut scans_at = [Micros(0); 4];
        for (scan, (from, to)) in scans_at.iter_mut().zip([(4, 10), (4, 8), (6, 10), (1, 6)]) {
            at = at.plus(span(&mut rng, from * Micros::HOUR, to * Micros::HOUR));
            *scan = at;
        }
        if late_delivery {
            scans_at[2] = scans_at[2].plus(delivery_delay);
            scans_at[3] = scans_at[3].plus(delivery_delay);
        }
        let failure = happens(&mut rng, Mishap::DeliveryFailed);
        let failure_kind = FAILURES[rng.random_range(0..FAILURES.len())];
        let swap = happens(&mut rng, Mishap::OutOfOrder);
        let swap_at = rng.random_range(2..5);
        let repeat = happens(&mut rng, Mishap::Duplicate);
        let repeat_at = rng.random_range(0..8);
        let repeat_after = span(&mut rng, Micros::HOUR, 3 * Micros::HOUR);

        let (missing, picked) = shelf(work, short.then_some((short_line, short_part)));
        Self {
            refused,
            missing,
            picked,
            withdrawal_too_late,
            pick_at,
            despatch_at,
            scans_at,
            failure: failure.then_some(failure_kind),
            swapped: swap.then_some(swap_at),
            repeated: repeat.then_some((repeat_at, repeat_after)),
        }
    }

    /// Nothing is despatched.
    fn ends_at_the_shelf(&self) -> bool {
        self.refused || self.picked.is_empty()
    }

    fn outcome(&self, work: &Work, step: &str, kind: OutcomeKind, at: Micros) -> OutcomeReceived {
        OutcomeReceived {
            order_id: work.order_id,
            outcome_id: format!("{}:{step}", work.fulfilment_id),
            kind,
            fulfilment_id: work.fulfilment_id.clone(),
            location_id: work.location_id.clone(),
            at,
            simulated: true,
            ..Default::default()
        }
    }

    fn reports(&self, world: &World, work: &Work) -> Vec<Report> {
        let mut told: Vec<OutcomeReceived> = Vec::with_capacity(8);
        if self.refused {
            let mut refused = self.outcome(work, "refused", OutcomeKind::Refused, self.pick_at);
            refused.lines = quantities(work);
            told.push(refused);
        } else {
            if !self.missing.is_empty() {
                let mut short = self.outcome(work, "short", OutcomeKind::Short, self.pick_at);
                short.lines = self.missing.clone();
                told.push(short);
            }
            if !self.picked.is_empty() {
                let mut picked = self.outcome(work, "picked", OutcomeKind::Picked, self.pick_at);
                picked.lines = self.picked.clone();
                told.push(picked);
                self.shipment(world, work, &mut told);
            }
        }
        let mut reports: Vec<Report> =
            told.into_iter().map(|outcome| Report { due: outcome.at, outcome, repeated: false }).collect();
        // Only the carrier's reports change places: a warehouse that reports a despatch before its pick is another
        // kind of fault, and reports it in one message anyway.
        if let Some(at) = self.swapped
            && let Some(first) = reports.iter().position(|it| it.outcome.kind == OutcomeKind::Despatched)
            && first + at <= reports.len().saturating_sub(1)
        {
            let (a, b) = (first + at - 1, first + at);
            (reports[a].due, reports[b].due) = (reports[b].due, reports[a].due);
        }
        if let Some((at, after)) = self.repeated
            && let Some(again) = reports.get(at % reports.len().max(1))
        {
            reports.push(Report { due: again.due.plus(after), outcome: again.outcome.clone(), repeated: true });
        }
        // Stable: what is due at the same instant keeps its order.
        reports.sort_by_key(|it| it.due);
        reports
    }

    fn shipment(&self, world: &World, work: &Work, told: &mut Vec<OutcomeReceived>) {
        let id = derive("shipment", &[&world.seed.to_be_bytes(), work.fulfilment_id.as_bytes()]);
        let parcels = pack(work, &self.picked, id);
        let heavy = parcels.iter().any(|it| it.weight_grams.unwrap_or(0) > PARCEL_GRAMS);
        let told_of = |step: &str, kind, at| OutcomeReceived {
            shipment_id: format!("SIM-{id}"),
            carrier: Some(if heavy { "simulated-freight" } else { "simulated-post" }.into()),
            service: Some(work.service.clone().unwrap_or_else(|| "standard".into())),
            ..self.outcome(work, step, kind, at)
        };
        let mut despatched = told_of("despatched", OutcomeKind::Despatched, self.despatch_at);
        despatched.lines = self.picked.clone();
        despatched.parcels = parcels.clone();
        told.push(despatched);
        // A scan names the parcels; what is in them and what they weigh was said once.
        let scanned: Vec<Parcel> = parcels
            .into_iter()
            .map(|it| Parcel { parcel_id: it.parcel_id, tracking_number: it.tracking_number, ..Default::default() })
            .collect();
        for ((step, code), at) in SCANS.into_iter().zip(self.scans_at) {
            let mut scan = told_of(step, OutcomeKind::Tracked, at);
            scan.carrier_code = Some(code.into());
            scan.parcels = scanned.clone();
            told.push(scan);
        }
        let (step, kind, code) = match self.failure {
            None => ("delivered", OutcomeKind::Delivered, "DELIVERED"),
            Some(code) => ("delivery-failed", OutcomeKind::DeliveryFailed, code),
        };
        let mut end = told_of(step, kind, self.scans_at[3]);
        end.carrier_code = Some(code.into());
        end.parcels = scanned;
        told.push(end);
    }
}

fn quantities(work: &Work) -> Vec<LineQuantity> {
    work.lines.iter().map(|it| LineQuantity { line_no: it.line_no, quantity: it.quantity }).collect()
}

/// What is missing and what is there; a short shelf lacks one to all units of one line.
fn shelf(work: &Work, short: Option<(u32, u32)>) -> (Vec<LineQuantity>, Vec<LineQuantity>) {
    let mut picked = quantities(work);
    let Some((line, part)) = short.filter(|_| !picked.is_empty()) else {
        return (Vec::new(), picked);
    };
    let at = line as usize % picked.len();
    let missing = 1 + i64::from(part) % picked[at].quantity;
    let lacking = LineQuantity { line_no: picked[at].line_no, quantity: missing };
    picked[at].quantity -= missing;
    picked.retain(|it| it.quantity > 0);
    (vec![lacking], picked)
}

/// Puts what was picked into parcels by weight, in the order of the lines.
fn pack(work: &Work, picked: &[LineQuantity], shipment: uuid::Uuid) -> Vec<Parcel> {
    let unit_grams = |line_no| {
        let stated = work.lines.iter().find(|it| it.line_no == line_no).and_then(|it| it.unit_weight_grams);
        stated.filter(|&it| it > 0).unwrap_or(UNKNOWN_UNIT_GRAMS)
    };
    let mut parcels: Vec<Parcel> = Vec::new();
    let mut room = 0;
    for it in picked {
        let each = unit_grams(it.line_no);
        let mut left = it.quantity;
        while left > 0 {
            if room < each || parcels.is_empty() {
                parcels.push(Parcel { weight_grams: Some(PACKAGING_GRAMS), ..Default::default() });
                room = PARCEL_GRAMS - PACKAGING_GRAMS;
            }
            // A unit heavier than a parcel may be goes alone.
            let units = (room / each).clamp(1, left);
            let grams = each.saturating_mul(units);
            let parcel = parcels.last_mut().expect("one was pushed if there was none");
            parcel.lines.push(LineQuantity { line_no: it.line_no, quantity: units });
            parcel.weight_grams = parcel.weight_grams.map(|so_far| so_far.saturating_add(grams));
            room = room.saturating_sub(grams);
            left -= units;
            if parcels.len() > MOST_PARCELS {
                return pallet(picked, unit_grams, shipment);
            }
        }
    }
    for (at, parcel) in parcels.iter_mut().enumerate() {
        name(parcel, shipment, at);
    }
    parcels
}

fn pallet(picked: &[LineQuantity], unit_grams: impl Fn(i32) -> i64, shipment: uuid::Uuid) -> Vec<Parcel> {
    let grams =
        picked.iter().fold(25_000i64, |sum, it| sum.saturating_add(unit_grams(it.line_no).saturating_mul(it.quantity)));
    let mut pallet = Parcel { weight_grams: Some(grams), lines: picked.to_vec(), ..Default::default() };
    name(&mut pallet, shipment, 0);
    vec![pallet]
}

fn name(parcel: &mut Parcel, shipment: uuid::Uuid, at: usize) {
    parcel.parcel_id = format!("SIM-{shipment}-{}", at + 1);
    let number = derive("tracking", &[parcel.parcel_id.as_bytes()]).as_u64_pair().0 % 10u64.pow(12);
    parcel.tracking_number = Some(format!("SIM{number:012}{}", check_digit(number)));
}

/// The last digit of a tracking number: weights 3 and 1 from the right, as on most parcels.
fn check_digit(mut number: u64) -> u64 {
    let (mut sum, mut weight) = (0, 3);
    while number > 0 {
        sum += number % 10 * weight;
        weight = 4 - weight;
        number /= 10;
    }
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutcomeKind::{Delivered, DeliveryFailed, Despatched, Picked, Refused, Short, Tracked, Withdrawn};

    fn work(id: u32, lines: &[(i32, i64, Option<i64>)]) -> Work {
        Work {
            order_id: OrderId::of("shop", &id.to_string()),
            fulfilment_id: format!("f-{id}"),
            location_id: "dc".into(),
            service: None,
            requested_at: Micros(1_000 * Micros::DAY),
            lines: lines
                .iter()
                .map(|&(line_no, quantity, unit_weight_grams)| WorkLine { line_no, quantity, unit_weight_grams })
                .collect(),
        }
    }

    fn two() -> Vec<(i32, i64, Option<i64>)> {
        vec![(1, 2, Some(300)), (2, 1, None)]
    }

    fn always(mishaps: &[Mishap]) -> World {
        let rates = mishaps.iter().fold(Rates::none(), |rates, &it| rates.with(it, 1_000));
        World { seed: 7, speed: 3_600, rates }
    }

    fn kinds(reports: &[Report]) -> Vec<OutcomeKind> {
        reports.iter().map(|it| it.outcome.kind).collect()
    }

    #[test]
    fn what_is_reported_follows_from_what_goes_wrong() {
        let whole = vec![Picked, Despatched, Tracked, Tracked, Tracked, Delivered];
        let failed = vec![Picked, Despatched, Tracked, Tracked, Tracked, DeliveryFailed];
        for (mishaps, expected) in [
            (vec![], whole.clone()),
            (vec![Mishap::Refused], vec![Refused]),
            (vec![Mishap::Refused, Mishap::Short], vec![Refused]),
            (vec![Mishap::DeliveryFailed], failed),
            (vec![Mishap::LatePick, Mishap::LateDelivery, Mishap::WithdrawalTooLate], whole),
        ] {
            let reports = plan(&always(&mishaps), &work(1, &two()), None);
            assert_eq!(kinds(&reports), expected, "{mishaps:?}");
            assert!(reports.iter().all(|it| it.outcome.simulated));
            assert!(reports.is_sorted_by_key(|it| it.due));
        }
    }

    #[test]
    fn a_short_shelf_lacks_some_of_one_line_and_the_rest_leaves() {
        let mut nothing_left = 0;
        for id in 0..200 {
            let work = work(id, &two());
            let reports = plan(&always(&[Mishap::Short]), &work, None);
            assert_eq!(reports[0].outcome.kind, Short);
            let missing: i64 = reports[0].outcome.lines.iter().map(|it| it.quantity).sum();
            let left = reports.iter().filter(|it| it.outcome.kind == Despatched);
            let shipped: i64 = left.flat_map(|it| &it.outcome.lines).map(|it| it.quantity).sum();
            assert!((1..=2).contains(&missing), "{missing}");
            assert_eq!(missing + shipped, 3);
        }
        for id in 0..50 {
            let reports = plan(&always(&[Mishap::Short]), &work(id, &[(1, 1, None)]), None);
            assert_eq!(kinds(&reports), vec![Short], "there is nothing left to ship");
            nothing_left += 1;
        }
        assert_eq!(nothing_left, 50);
    }

    #[test]
    fn the_same_fulfilment_order_and_seed_give_the_same_reports_and_another_seed_others() {
        let world = World { rates: Rates::default().with(Mishap::OutOfOrder, 500), ..World::default() };
        for id in 0..100 {
            assert_eq!(plan(&world, &work(id, &two()), None), plan(&world, &work(id, &two()), None));
        }
        let other = World { seed: 2, ..world };
        assert!((0..100).any(|id| plan(&world, &work(id, &two()), None) != plan(&other, &work(id, &two()), None)));
    }

    #[test]
    fn every_report_has_an_id_of_its_own_except_a_repeated_one() {
        let reports = plan(&always(&[Mishap::Duplicate]), &work(3, &two()), None);
        assert_eq!(reports.len(), 7);
        let ids: std::collections::BTreeSet<EventId> = reports.iter().map(Report::event_id).collect();
        assert_eq!(ids.len(), 6);
        let repeated = reports.iter().find(|it| it.repeated).expect("one is repeated");
        let first = reports.iter().find(|it| it.event_id() == repeated.event_id()).expect("it was sent");
        assert_eq!(first.outcome, repeated.outcome);
        assert!(first.due < repeated.due);
    }

    #[test]
    fn two_reports_of_the_carrier_change_places_but_not_the_time_they_happened() {
        let mut seen = std::collections::BTreeSet::new();
        for id in 0..60 {
            let reports = plan(&always(&[Mishap::OutOfOrder]), &work(id, &two()), None);
            assert_eq!(kinds(&reports)[..2], [Picked, Despatched], "the warehouse's own reports keep their order");
            let happened: Vec<Micros> = reports.iter().map(|it| it.outcome.at).collect();
            let wrong: Vec<usize> = (1..happened.len()).filter(|&at| happened[at] < happened[at - 1]).collect();
            assert_eq!(wrong.len(), 1, "{happened:?}");
            seen.insert(wrong[0]);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), vec![3, 4, 5]);
    }

    #[test]
    fn a_withdrawal_that_is_heeded_ends_everything_and_what_was_told_before_stands() {
        let world = always(&[Mishap::Duplicate]);
        let work = work(5, &two());
        let chance = last_chance(&world, &work);
        let told = plan(&world, &work, Some(Micros(chance.0 - 1)));
        assert_eq!(told.last().map(|it| it.outcome.kind), Some(Withdrawn));
        assert!(!kinds(&told).contains(&Despatched));
        assert_eq!(told.first().map(|it| it.outcome.kind), Some(Picked));
        let at_once = plan(&world, &work, Some(work.requested_at));
        assert_eq!(kinds(&at_once), vec![Withdrawn]);
        assert_eq!(at_once[0].outcome.lines.iter().map(|it| it.quantity).sum::<i64>(), 3);
    }

    #[test]
    fn a_withdrawal_after_a_short_shelf_gives_back_what_was_picked() {
        let world = always(&[Mishap::Short]);
        let work = work(6, &[(1, 5, None), (2, 5, None)]);
        let told = plan(&world, &work, Some(Micros(last_chance(&world, &work).0 - 1)));
        assert_eq!(kinds(&told), vec![Short, Picked, Withdrawn]);
        assert_eq!(told[2].outcome.lines, told[1].outcome.lines);
    }

    #[test]
    fn a_withdrawal_is_heeded_until_despatch_or_until_the_pick() {
        let work = work(8, &two());
        let due = |world: &World, kind| {
            plan(world, &work, None).iter().find(|it| it.outcome.kind == kind).map(|it| it.due).expect("it is told")
        };
        for (mishaps, until) in
            [(vec![], Despatched), (vec![Mishap::WithdrawalTooLate], Picked), (vec![Mishap::Refused], Refused)]
        {
            let world = always(&mishaps);
            assert_eq!(last_chance(&world, &work), due(&world, until), "{mishaps:?}");
        }
    }

    #[test]
    fn speed_moves_everything_nearer() {
        let spans = |speed| {
            let world = World { speed, ..always(&[]) };
            let work = work(9, &two());
            plan(&world, &work, None).last().map(|it| it.due.0 - work.requested_at.0).expect("reports")
        };
        let (slow, fast) = (spans(1), spans(3_600));
        assert!((16 * Micros::HOUR..44 * Micros::HOUR).contains(&slow), "{slow}");
        // Each of the six spans is rounded down on its own.
        assert!((slow / 3_600 - fast).abs() <= 6, "{slow} {fast}");
    }

    #[test]
    fn parcels_hold_what_was_picked_and_none_is_too_heavy() {
        for (lines, parcels) in [
            (vec![(1, 2, Some(300))], 1),
            (vec![(1, 10, Some(5_000))], 4),
            (vec![(1, 2, Some(25_000))], 2),
            (vec![(1, 3, None), (2, 4, Some(9_000))], 2),
            (vec![(1, 100_000, Some(1_000))], 1),
            (vec![(1, i64::MAX, Some(i64::MAX))], 1),
        ] {
            let reports = plan(&always(&[]), &work(10, &lines), None);
            let despatched = &reports[1].outcome;
            assert_eq!(despatched.parcels.len(), parcels, "{lines:?}");
            for &(line_no, quantity, _) in &lines {
                let packed = despatched.parcels.iter().flat_map(|it| &it.lines).filter(|it| it.line_no == line_no);
                assert_eq!(packed.map(|it| i128::from(it.quantity)).sum::<i128>(), i128::from(quantity), "{lines:?}");
            }
            for parcel in &despatched.parcels {
                assert!(parcel.weight_grams.is_some_and(|it| it > PACKAGING_GRAMS));
                assert!(parcel.tracking_number.as_deref().is_some_and(|it| it.len() == 16 && it.starts_with("SIM")));
            }
        }
    }

    #[test]
    fn rates_are_kept_within_what_chance_allows() {
        let world = World { seed: 11, ..World::default() };
        let count =
            |kind| (0..20_000).filter(|&id| kinds(&plan(&world, &work(id, &two()), None)).contains(&kind)).count();
        // 20,000 draws: within four standard deviations of the stated rate.
        for (kind, expected, sigma) in [(Short, 200.0, 14.1), (Refused, 40.0, 6.3), (DeliveryFailed, 100.0, 10.0)] {
            let seen = f64::from(u32::try_from(count(kind)).expect("small"));
            assert!((seen - expected).abs() < 4.0 * sigma, "{kind}: {seen} of {expected}");
        }
    }

    #[test]
    fn an_empty_fulfilment_order_is_answered_by_nothing_and_breaks_nothing() {
        let reports = plan(&always(&[Mishap::Short, Mishap::Duplicate, Mishap::OutOfOrder]), &work(12, &[]), None);
        assert_eq!(reports, vec![]);
    }
}
