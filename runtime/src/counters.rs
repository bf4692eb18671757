//! How often each guard acted. A guard that never acts in a fault test was not tested by it.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kept_schemas::{Micros, Topic};
use kept_store::seam::TopicPartition;

use crate::log::TopicFacts;

macro_rules! counters {
    ($($(#[doc = $about:literal])+ $name:ident),+ $(,)?) => {
        /// One step's counters, since its start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $about])+ pub $name: AtomicU64,)+
            /// How things stand now.
            pub gauges: Gauges,
            /// How times and sizes spread.
            pub spreads: Spreads,
            /// Records sent, by topic.
            pub sent: ByTopic,
        }

        impl Counters {
            /// Name, meaning and value of each.
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($about),+), self.$name.load(Relaxed)),)+]
            }
        }
    };
}

counters! {
    /// Records read and worked on.
    records,
    /// Events decided or made.
    events,
    /// Batches committed to the store.
    batches,
    /// Kafka transactions committed.
    transactions,
    /// Kafka transactions aborted.
    aborts,
    /// Commits refused because we were not the group member or the producer any more.
    fences,
    /// Batches refused because another worker had moved the partition on.
    cas_misses,
    /// Events emitted from the journal, not from the batch that decided them.
    re_emissions,
    /// Records found on their topics, so that they were not sent again.
    found_sent,
    /// Committed offsets that the broker gave back older than it had confirmed.
    forgotten_offsets,
    /// Producers replaced after an abort or an ambiguous end.
    recycled_producers,
    /// Times a partition's position was established anew.
    catch_ups,
    /// Times the group was left and joined again.
    rejoins,
    /// Records recognised as acted on before.
    duplicates,
    /// Records that could not be decided: an order is parked, or what was let go failed again.
    parked,
    /// Records queued behind a parked one.
    queued_behind_parked,
    /// Records that could not be read.
    dead_letters,
    /// Batches repeated after a deadlock or serialisation failure.
    repeats,
    /// Batches cut in two to find the record at fault.
    bisections,
    /// Store connections replaced.
    reconnects,
    /// Records worked on alone after an unclean start.
    careful_records,
    /// Records already done by a fused instance, passed over.
    fused_skips,
}

/// How a step stands now: what health and lag are told from.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Partitions that are ours.
    pub partitions: AtomicI64,
    /// Partitions that are ours and whose position is established.
    pub ready: AtomicI64,
    /// Offsets between what is done and the end of the partitions of the last batch, as of their last fetch.
    pub behind_records: AtomicI64,
    /// When the broker appended the newest record that is done, in microseconds since 1970; 0: none yet. While
    /// `behind_records` is above 0, now minus this is the lag in time.
    pub newest_done_micros: AtomicI64,
    /// When the driver last began a turn, in microseconds since 1970. An idle one turns several times a second.
    pub turned_micros: AtomicI64,
}

impl Gauges {
    /// The driver begins a turn with so many partitions.
    pub fn turn(&self, partitions: usize, ready: usize) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
        self.turned_micros.store(i64::try_from(now).unwrap_or(i64::MAX), Relaxed);
        self.partitions.store(i64::try_from(partitions).unwrap_or(i64::MAX), Relaxed);
        self.ready.store(i64::try_from(ready).unwrap_or(i64::MAX), Relaxed);
    }

    /// The ends of partitions against what will be done with this batch.
    pub fn behind(&self, facts: &[TopicFacts], next: impl Fn(TopicPartition) -> Option<i64>) {
        let behind: i64 = facts
            .iter()
            .filter(|it| it.end != i64::MAX)
            .filter_map(|it| next(it.at).map(|next| (it.end - next).max(0)))
            .sum();
        self.behind_records.store(behind, Relaxed);
    }
}

/// Upper bounds of [`Spread`]s of times, in microseconds.
pub const TIMES: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Of waiting times, in microseconds: up to an hour.
pub const WAITS: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
];
/// Of numbers of records.
pub const SIZES: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// How values spread: a histogram. Noting one costs a short search and two additions.
#[derive(Debug)]
pub struct Spread {
    bounds: &'static [u64],
    /// Per bound, values up to it and above the one before; last, those above all.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Spread {
    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Notes a value.
    pub fn note(&self, value: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Upper bound and how many values were at most that, for each bound; then how many there were, and their sum.
    pub fn cumulative(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut up_to = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            up_to += count.load(Relaxed);
            buckets.push((*bound, up_to));
        }
        let all = up_to + self.counts[self.bounds.len()].load(Relaxed);
        (buckets, all, self.sum.load(Relaxed))
    }
}

/// A step's histograms.
#[derive(Debug)]
pub struct Spreads {
    /// Records in a batch.
    pub batch: Spread,
    /// Microseconds spent deciding a batch.
    pub decide: Spread,
    /// Microseconds a Kafka transaction took.
    pub commit: Spread,
    /// Microseconds a batch took in the store, deciding included.
    pub store: Spread,
    /// Microseconds from a record's append to its being done.
    pub wait: Spread,
}

impl Default for Spreads {
    fn default() -> Self {
        Self {
            batch: Spread::new(SIZES),
            decide: Spread::new(TIMES),
            commit: Spread::new(TIMES),
            store: Spread::new(TIMES),
            wait: Spread::new(WAITS),
        }
    }
}

/// The answers that the HTTP API gives; what else there may be is counted as 0.
pub const STATUSES: [u16; 14] = [0, 200, 202, 207, 400, 401, 403, 404, 405, 408, 413, 415, 422, 503];

/// What the HTTP API did.
#[derive(Debug)]
pub struct Http {
    answers: [AtomicU64; STATUSES.len()],
    /// Orders that are durably stored.
    pub accepted: AtomicU64,
    /// Bodies, or parts of a batch, that cannot be orders.
    pub refused: AtomicU64,
    /// Orders accepted and not written down yet: above 0 for long, the database is away.
    pub unwritten: AtomicU64,
    /// Microseconds from a request's head to its answer.
    pub time: Spread,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            answers: Default::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            time: Spread::new(TIMES),
        }
    }
}

impl Http {
    /// A request that came in at `from` has its answer.
    pub fn answered(&self, status: u16, from: Instant) {
        let place = STATUSES.iter().position(|it| *it == status).unwrap_or(0);
        self.answers[place].fetch_add(1, Relaxed);
        time(&self.time, from);
    }

    /// Each status with its count.
    pub fn answers(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.iter().zip(&self.answers).map(|(status, count)| (*status, count.load(Relaxed)))
    }
}

/// A counter for each topic.
#[derive(Debug)]
pub struct ByTopic(Vec<AtomicU64>);

impl Default for ByTopic {
    fn default() -> Self {
        Self(Topic::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl ByTopic {
    /// Each topic with its count.
    pub fn all(&self) -> impl Iterator<Item = (Topic, u64)> {
        Topic::ALL.iter().zip(&self.0).map(|(topic, count)| (*topic, count.load(Relaxed)))
    }
}

impl Counters {
    /// Records appended at these times are done.
    pub fn done(&self, appended: impl Iterator<Item = Micros>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut newest = 0;
        for at in appended {
            newest = newest.max(at.0);
            self.spreads.wait.note(u64::try_from(now.saturating_sub(at.0)).unwrap_or(0));
        }
        self.gauges.newest_done_micros.fetch_max(newest, Relaxed);
    }

    /// So many records are sent to a topic, and will be seen.
    pub fn count_sent(&self, topic: Topic, count: usize) {
        // Topics are listed in the order of their declaration.
        if let Some(sent) = self.sent.0.get(topic as usize) {
            add(sent, count);
        }
    }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

/// Notes the time since `from`.
pub fn time(spread: &Spread, from: Instant) {
    spread.note(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_up_to_its_bound_and_above_all_where_it_is_larger() {
        let spread = Spread::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 1_000] {
            spread.note(value);
        }
        assert_eq!(spread.cumulative(), (vec![(1, 2), (10, 4), (100, 5)], 6, 1_024));
    }

    #[test]
    fn topics_are_counted_under_their_own_names() {
        let counters = Counters::default();
        for &topic in Topic::ALL {
            counters.count_sent(topic, topic as usize + 1);
        }
        for (position, (topic, count)) in counters.sent.all().enumerate() {
            assert_eq!((topic, count), (Topic::ALL[position], position as u64 + 1));
        }
    }
}
