//! How often each guard acted. A guard that never acts in a fault test was not tested by it.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kept_schemas::Micros;
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
    /// Producers replaced after an abort or an ambiguous end.
    recycled_producers,
    /// Times a partition's position was established anew.
    catch_ups,
    /// Times the group was left and joined again.
    rejoins,
    /// Records recognised as acted on before.
    duplicates,
    /// Orders parked for a person.
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
    /// Microseconds spent in Kafka transactions.
    commit_micros,
    /// Microseconds spent deciding.
    decide_micros,
    /// Microseconds spent in the store.
    store_micros,
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

    /// Records appended at these times are done.
    pub fn done(&self, appended: impl Iterator<Item = Micros>) {
        if let Some(newest) = appended.max() {
            self.newest_done_micros.fetch_max(newest.0, Relaxed);
        }
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

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

/// Adds the time since `from` to a counter of microseconds.
pub fn time(counter: &AtomicU64, from: Instant) {
    counter.fetch_add(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
}
