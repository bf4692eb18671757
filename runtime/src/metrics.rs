//! Every number this process publishes, in Prometheus's form. One table ([`METRICS`]) names them; `docs/metrics.md`
//! equals it by test. Labels are bounded: steps, topics, reasons, servers, never an order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use kept_schemas::{Topic, inbound::HoldReason};
use prometheus::{
    TextEncoder,
    core::Collector,
    process_collector::ProcessCollector,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    board::{Board, Worker},
    counters::Spread,
    reference::TOPICS,
};

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    pub name: &'static str,
    pub kind: Kind,
    /// Its labels, comma separated.
    pub labels: &'static str,
    pub about: &'static str,
}

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// Prometheus's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static str, about: &'static str) -> About {
    About { name, kind: Kind::Counter, labels, about }
}

const fn gauge(name: &'static str, labels: &'static str, about: &'static str) -> About {
    About { name, kind: Kind::Gauge, labels, about }
}

const fn histogram(name: &'static str, labels: &'static str, about: &'static str) -> About {
    About { name, kind: Kind::Histogram, labels, about }
}

/// Every metric of ours; the process's own (`process_…`) stand beside them.
pub const METRICS: &[About] = &[
    counter("kept_records_total", "step", "Records read and worked on"),
    counter("kept_events_total", "step", "Events decided or made"),
    counter("kept_sent_total", "step, topic", "Records sent, by topic: orders.accepted, orders.held and so on"),
    counter("kept_batches_total", "step", "Batches committed to the store"),
    counter("kept_transactions_total", "step", "Kafka transactions committed"),
    counter("kept_aborts_total", "step", "Kafka transactions aborted"),
    counter(
        "kept_fences_total",
        "step",
        "Commits refused because we were not the group member or the producer any more",
    ),
    counter("kept_cas_misses_total", "step", "Batches refused because another worker had moved the partition on"),
    counter(
        "kept_forgotten_offsets_total",
        "step",
        "Committed offsets that the broker gave back older than it had confirmed",
    ),
    counter("kept_found_sent_total", "step", "Records found on their topics, so that they were not sent again"),
    counter("kept_re_emissions_total", "step", "Events emitted from the journal, not from the batch that decided them"),
    counter("kept_recycled_producers_total", "step", "Producers replaced after an abort or an ambiguous end"),
    counter("kept_catch_ups_total", "step", "Times a partition's position was established anew"),
    counter("kept_rejoins_total", "step", "Times the group was left and joined again"),
    counter("kept_duplicates_total", "step", "Records recognised as acted on before"),
    counter(
        "kept_parked_total",
        "step",
        "Records that could not be decided: an order is parked, or what was let go failed again",
    ),
    counter("kept_queued_behind_parked_total", "step", "Records queued behind a parked one"),
    counter("kept_dead_letters_total", "step", "Records that could not be read"),
    counter("kept_repeats_total", "step", "Batches repeated after a deadlock or serialisation failure"),
    counter("kept_bisections_total", "step", "Batches cut in two to find the record at fault"),
    counter("kept_reconnects_total", "step", "Store connections replaced"),
    counter("kept_careful_records_total", "step", "Records worked on alone after an unclean start"),
    counter("kept_fused_skips_total", "step", "Records already done by a fused instance, passed over"),
    histogram("kept_batch_records", "step", "Records in a batch"),
    histogram("kept_decide_seconds", "step", "Time spent deciding a batch"),
    histogram("kept_commit_seconds", "step", "Time a Kafka transaction took"),
    histogram("kept_store_seconds", "step", "Time a batch took in Postgres, deciding included"),
    histogram("kept_wait_seconds", "step", "Time from a record's append to its being done"),
    gauge("kept_lag_records", "step", "Records between what is done and the end, as of the last batch"),
    gauge("kept_lag_seconds", "step", "Age of the newest record that is done, while others wait behind it; else 0"),
    gauge("kept_partitions", "step", "Partitions that are ours"),
    gauge("kept_ready_partitions", "step", "Partitions that are ours and worked on"),
    gauge("kept_turn_age_seconds", "step", "Time since the driver last began a turn"),
    gauge("kept_running", "step", "1 while the step works, 0 while it waits for a server or a free slot"),
    counter("kept_leases_lost_total", "", "Leased slots lost while they were held"),
    gauge("kept_server_up", "server", "1 when the server answered when it was last asked"),
    gauge("kept_held_orders", "", "Orders that wait for someone or something: those with an open hold"),
    gauge("kept_open_holds", "reason", "Open holds"),
    gauge("kept_overdue_holds", "", "Open holds past their deadline"),
    gauge("kept_dead_letters", "", "Dead letters in the read model"),
    gauge("kept_parked_orders", "", "Orders that are parked now"),
    gauge("kept_parked_records", "", "Records of parked orders"),
    gauge("kept_timers_due", "", "Timers whose time has come and that are not cleared"),
    gauge("kept_timers_late_seconds", "", "How long the oldest of them has been due"),
    gauge("kept_waiting_for_stock", "", "Pairs of an order and a SKU that it is short of"),
    gauge("kept_calls_unknown", "", "Calls to partners of which nobody knows whether they happened"),
    gauge("kept_reference_version", "topic", "Version of reference data: the offset after the last record read"),
    counter("kept_http_answers_total", "status", "Answers of the HTTP API, by status; 0: any other"),
    counter("kept_http_orders_accepted_total", "", "Orders accepted over HTTP: durably stored"),
    counter("kept_http_orders_refused_total", "", "Bodies, or parts of a batch, that cannot be orders"),
    gauge(
        "kept_http_orders_unwritten",
        "",
        "Orders accepted over HTTP while the database is away, still to be written down",
    ),
    histogram("kept_http_seconds", "", "Time from a request's head to its answer"),
    counter("kept_reference_unreadable_total", "", "Records of reference data that could not be read"),
    gauge("kept_build_info", "version", "1; the version is the label"),
];

/// The page.
pub struct Metrics {
    board: Arc<Board>,
    process: ProcessCollector,
}

impl Metrics {
    /// Of everything on the board, and of the process.
    pub fn new(board: Arc<Board>) -> Self {
        Self { board, process: ProcessCollector::for_self() }
    }

    /// The page's text.
    ///
    /// # Errors
    /// Only when two metrics contradict each other, which a test excludes.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut families = self.families();
        families.extend(self.process.collect());
        TextEncoder::new().encode_to_string(&families)
    }

    fn families(&self) -> Vec<MetricFamily> {
        let workers = self.board.workers();
        METRICS
            .iter()
            .map(|about| {
                let mut family = MetricFamily::default();
                family.set_name(about.name.to_owned());
                family.set_help(about.about.to_owned());
                family.set_field_type(match about.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                family.set_metric(self.samples(about, &workers));
                family
            })
            // A family without samples is an error to the encoder; a step's are missing while there is no step.
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }

    fn samples(&self, about: &About, workers: &[Arc<Worker>]) -> Vec<Metric> {
        match about.labels {
            "" if about.kind == Kind::Histogram => vec![histogram_of(&self.board.http.time, 1e6, &[])],
            "step" if about.kind == Kind::Histogram => each(workers, |it| spread(about.name, it)),
            "step" => each(workers, |it| Some(number(about.kind, &[("step", &it.step)], of_step(about.name, it)?))),
            "step, topic" => workers
                .iter()
                .flat_map(|it| {
                    it.counters.sent.all().filter(|(topic, _)| sends(&it.step, *topic)).map(|(topic, count)| {
                        number(about.kind, &[("step", &it.step), ("topic", topic.name())], float(count))
                    })
                })
                .collect(),
            _ => self
                .of_process(about.name)
                .into_iter()
                .map(|(label, value)| match about.labels {
                    "" => number(about.kind, &[], value),
                    name => number(about.kind, &[(name, &label)], value),
                })
                .collect(),
        }
    }

    /// Label and value of what is not a step's.
    fn of_process(&self, name: &str) -> Vec<(String, f64)> {
        let asked = self.board.asked();
        let one = |value: Option<i64>| value.map(|it| (String::new(), signed(it))).into_iter().collect();
        let ledger = |of: fn(&kept_store::gauges::LedgerGauges) -> i64| one(asked.ledger.as_ref().map(of));
        let read = |of: fn(&kept_store::gauges::ReadGauges) -> i64| one(asked.read.as_ref().map(of));
        match name {
            "kept_leases_lost_total" => vec![(String::new(), float(self.board.leases_lost()))],
            "kept_server_up" => vec![
                ("postgres".into(), f64::from(asked.servers.postgres)),
                ("registry".into(), f64::from(asked.servers.registry)),
            ],
            "kept_open_holds" => asked.read.as_ref().map_or_else(Vec::new, |gauges| {
                let open: BTreeMap<&str, i64> =
                    gauges.open_holds.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
                HoldReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str().to_owned(), signed(*open.get(reason.as_str()).unwrap_or(&0))))
                    .collect()
            }),
            "kept_held_orders" => read(|it| it.held_orders),
            "kept_overdue_holds" => read(|it| it.overdue_holds),
            "kept_dead_letters" => read(|it| it.dead_letters),
            "kept_parked_orders" => ledger(|it| it.parked_orders),
            "kept_parked_records" => ledger(|it| it.parked_records),
            "kept_timers_due" => ledger(|it| it.timers_due),
            "kept_timers_late_seconds" => ledger(|it| it.timers_late_seconds),
            "kept_waiting_for_stock" => ledger(|it| it.waits),
            "kept_calls_unknown" => ledger(|it| it.calls_unknown),
            "kept_reference_version" => {
                let snapshot = self.board.reference.snapshot();
                TOPICS
                    .iter()
                    .map(|topic| (topic.name().to_owned(), signed(snapshot.versions.get(topic).copied().unwrap_or(0))))
                    .collect()
            }
            "kept_http_answers_total" => {
                let each = self.board.http.answers();
                each.map(|(status, count)| (status.to_string(), float(count))).collect()
            }
            "kept_http_orders_accepted_total" => counted(&self.board.http.accepted),
            "kept_http_orders_refused_total" => counted(&self.board.http.refused),
            "kept_http_orders_unwritten" => counted(&self.board.http.unwritten),
            "kept_reference_unreadable_total" => vec![(String::new(), float(self.board.reference.unreadable()))],
            "kept_build_info" => vec![(env!("CARGO_PKG_VERSION").to_owned(), 1.0)],
            _ => Vec::new(),
        }
    }
}

/// The topics that a step may send to; the others would only be noise at 0.
fn sends(step: &str, topic: Topic) -> bool {
    let stateless = matches!(
        topic,
        Topic::OrdersReceived
            | Topic::OrdersEnriched
            | Topic::OrdersValidated
            | Topic::PaymentsReceived
            | Topic::CommandsReceived
            | Topic::DeadLetters
    );
    match step {
        "normalise" | "enrich" | "validate" | "steps" => stateless,
        "ledger" => {
            let says = kept_processors::ledger::LedgerEvent::TOPICS;
            says.contains(&topic) || topic == Topic::DeadLetters
        }
        _ => false,
    }
}

fn each(workers: &[Arc<Worker>], sample: impl Fn(&Worker) -> Option<Metric>) -> Vec<Metric> {
    workers.iter().filter(|it| it.reads).filter_map(|it| sample(it)).collect()
}

fn of_step(name: &str, worker: &Worker) -> Option<f64> {
    let (counters, gauges) = (&worker.counters, &worker.counters.gauges);
    let bare = name.strip_prefix("kept_").and_then(|it| it.strip_suffix("_total"));
    if let Some(bare) = bare {
        return counters.all().into_iter().find(|(counter, ..)| *counter == bare).map(|(.., value)| float(value));
    }
    Some(match name {
        "kept_lag_records" => signed(gauges.behind_records.load(Relaxed)),
        "kept_lag_seconds" => {
            let newest = gauges.newest_done_micros.load(Relaxed);
            if gauges.behind_records.load(Relaxed) == 0 || newest == 0 {
                0.0
            } else {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
                signed(i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(newest).max(0)) / 1e6
            }
        }
        "kept_partitions" => signed(gauges.partitions.load(Relaxed)),
        "kept_ready_partitions" => signed(gauges.ready.load(Relaxed)),
        "kept_turn_age_seconds" => worker.turn_age().min(worker.phase().1).as_secs_f64(),
        "kept_running" => f64::from(worker.phase().0 == crate::board::Phase::Running),
        _ => return None,
    })
}

fn spread(name: &str, worker: &Worker) -> Option<Metric> {
    let spreads = &worker.counters.spreads;
    let (spread, unit): (&Spread, f64) = match name {
        "kept_batch_records" => (&spreads.batch, 1.0),
        "kept_decide_seconds" => (&spreads.decide, 1e6),
        "kept_commit_seconds" => (&spreads.commit, 1e6),
        "kept_store_seconds" => (&spreads.store, 1e6),
        "kept_wait_seconds" => (&spreads.wait, 1e6),
        _ => return None,
    };
    Some(histogram_of(spread, unit, &[("step", &worker.step)]))
}

fn counted(counter: &AtomicU64) -> Vec<(String, f64)> {
    vec![(String::new(), float(counter.load(Relaxed)))]
}

fn histogram_of(spread: &Spread, unit: f64, pairs: &[(&str, &str)]) -> Metric {
    let (buckets, count, sum) = spread.cumulative();
    let mut histogram = Histogram::default();
    histogram.set_bucket(
        buckets
            .into_iter()
            .map(|(bound, up_to)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(float(bound) / unit);
                bucket.set_cumulative_count(up_to);
                bucket
            })
            .collect(),
    );
    histogram.set_sample_count(count);
    histogram.set_sample_sum(float(sum) / unit);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_histogram(histogram);
    metric
}

fn number(kind: Kind, pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(labels(pairs));
    if kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

/// Prometheus knows only floats; above 2^53 the last digits go, which no counter of ours reaches.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

#[allow(clippy::cast_precision_loss)]
fn signed(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counters;

    fn page() -> String {
        let board = Arc::new(Board::default());
        for step in ["steps", "ledger", "read"] {
            let worker = board.worker(step, true);
            worker.counters.spreads.commit.note(20_000);
        }
        board.http.answered(202, std::time::Instant::now());
        board.pretend(Default::default(), Default::default());
        Metrics::new(board).text().expect("a page")
    }

    /// `KEPT_WRITE_DOCS=1 cargo test -p kept-runtime metrics` writes the page after an intended change.
    #[test]
    fn the_page_about_metrics_lists_every_one() {
        let mut table = String::from("| metric | kind | labels | what it is |\n|---|---|---|---|\n");
        for it in METRICS {
            let labels = if it.labels.is_empty() { "–" } else { it.labels };
            table.push_str(&format!("| `{}` | {} | {labels} | {} |\n", it.name, it.kind.as_str(), it.about));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let page = std::fs::read_to_string(path).expect("docs/metrics.md is there");
        let (head, rest) = page.split_once("| metric |").expect("it has the table");
        let tail = rest.split_once("\n\n").map_or("", |(_, tail)| tail);
        let wanted = format!("{head}{table}\n{tail}");
        if std::env::var_os("KEPT_WRITE_DOCS").is_some() {
            std::fs::write(path, &wanted).expect("written");
        } else {
            assert_eq!(page, wanted, "docs/metrics.md is not what the table says");
        }
    }

    #[test]
    fn every_metric_of_the_table_is_on_the_page_and_none_besides() {
        let page = page();
        for it in METRICS {
            assert!(page.contains(&format!("# TYPE {} {}\n", it.name, it.kind.as_str())), "{} is missing", it.name);
        }
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE kept_")) {
            let name = format!("kept_{}", line.split(' ').next().expect("a name"));
            assert!(METRICS.iter().any(|it| it.name == name), "{name} is not in the table");
        }
        assert!(page.contains("process_resident_memory_bytes"), "the process's own are there");
    }

    #[test]
    fn every_counter_of_a_step_is_published() {
        for (name, ..) in Counters::default().all() {
            assert!(METRICS.iter().any(|it| it.name == format!("kept_{name}_total")), "{name} is not published");
        }
    }

    #[test]
    fn names_say_their_unit_and_labels_are_of_the_known_few() {
        for it in METRICS {
            assert_eq!(it.name.ends_with("_total"), it.kind == Kind::Counter, "{}", it.name);
            for label in it.labels.split(", ").filter(|label| !label.is_empty()) {
                assert!(["step", "topic", "server", "reason", "version", "status"].contains(&label), "{label}");
            }
        }
    }

    #[test]
    fn times_are_in_seconds() {
        let page = page();
        assert!(page.contains(r#"kept_commit_seconds_bucket{step="ledger",le="0.025"} 1"#), "{page}");
        assert!(page.contains(r#"kept_commit_seconds_sum{step="ledger"} 0.02"#), "{page}");
        assert!(page.contains(r#"kept_sent_total{step="ledger",topic="orders.accepted"} 0"#), "{page}");
        assert!(page.contains(r#"kept_http_answers_total{status="202"} 1"#), "{page}");
        assert!(page.contains(r#"kept_http_seconds_count 1"#), "{page}");
        assert!(page.contains(r#"kept_open_holds{reason="awaiting_payment"} 0"#), "{page}");
    }
}
