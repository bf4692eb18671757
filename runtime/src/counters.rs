//! How often each guard acted. A guard that never acts in a fault test was not tested by it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[doc = $about:literal])+ $name:ident),+ $(,)?) => {
        /// One step's counters, since its start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $about])+ pub $name: AtomicU64,)+
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

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

/// Adds the time since `from` to a counter of microseconds.
pub fn time(counter: &AtomicU64, from: std::time::Instant) {
    counter.fetch_add(
        u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX),
        Relaxed,
    );
}
