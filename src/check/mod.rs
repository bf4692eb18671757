//! The checker: holds the pipeline to its eight invariants, from outside facts only.
//!
//! It reads the senders' and the simulated world's own logs, every topic, and Postgres, with its own clients and its
//! own SQL. It uses nothing of the engine or the store (a test reads this folder's source for that), so that a fault in
//! them cannot hide itself. [`facts`] is what was seen; each check is a plain function of it, and `mutations` shows for
//! each that it can go red. docs/check.md explains every check to people.

pub mod facts;
pub mod report;
pub mod steps;
pub mod verdict;

mod accepted;
mod again;
mod conservation;
mod endings;
mod history;
mod journal;
mod kafka;
mod life;
mod logs;
mod money;
#[cfg(test)]
mod mutations;
mod postgres;
mod read_model;
mod references;
mod registry;
mod remake;
mod same_again;
mod shipments;
mod stock;
#[cfg(test)]
mod world;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kept_schemas::OrderId;

use self::{facts::Facts, life::Life, report::Report, verdict::Verdict};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `host:port`, comma separated.
    pub kafka: String,
    /// Further client properties (TLS, SASL).
    pub kafka_properties: BTreeMap<String, String>,
    /// The registry's Confluent-compatible API.
    pub registry: String,
    pub postgres: String,
    pub read_postgres: String,
    /// Before the names of topics, groups and schemas.
    pub prefix: String,
    /// The folder of the senders' and the simulated world's logs.
    pub logs: PathBuf,
}

/// Reads everything and runs every check. `say` is told what is being read.
///
/// # Errors
/// When something cannot be read; a broken invariant is no error but part of the report.
pub fn run(at: &Addresses, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let began = Instant::now();
    let facts = gather(at, say)?;
    say("checking");
    let verdicts = verdicts(&facts);
    Ok(Report { verdicts, took: began.elapsed() })
}

/// Reads what is downstream before what is upstream: what a later place says without an earlier one's knowledge is then
/// always a fault, and what an earlier one knows alone is on its way.
fn gather(at: &Addresses, say: &mut dyn FnMut(&str)) -> Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let brokers = kafka::Brokers { brokers: &at.kafka, properties: &at.kafka_properties, prefix: &at.prefix };
    let ledger_schema = format!("{}ledger", at.prefix);
    let (texts, kept) = runtime.block_on(postgres::kept(&at.postgres, &ledger_schema))?;
    let registry = registry::Registry::new(&at.registry, texts)?;
    say("reading the read model");
    let read = runtime.block_on(postgres::read_model(&at.read_postgres, &format!("{}read", at.prefix)))?;
    let partitions = brokers.partitions()?;
    let groups = brokers.groups(&partitions)?;
    let mut said = Instant::now();
    let heard =
        brokers.read(&partitions, kept, &mut |id| runtime.block_on(registry.schema(id)), &mut |topic, records| {
            if said.elapsed() > Duration::from_millis(500) {
                said = Instant::now();
                say(&format!("reading topics: {records} records, {topic} done"));
            }
        })?;
    say("reading the ledger and deciding everything again");
    let (ledger, now) = runtime.block_on(postgres::ledger(&at.postgres, &ledger_schema, &heard))?;
    let logs = logs::read(&at.logs)?;
    Ok(Facts { now, logs, topics: heard.topics, groups, ledger, read })
}

/// Every check over the same facts.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let lives: BTreeMap<OrderId, Life<'_>> =
        facts.topics.events.iter().map(|(order, events)| (*order, Life::of(events))).collect();
    vec![
        accepted::check(facts),
        steps::check(facts),
        journal::check(facts),
        same_again::check(facts),
        read_model::check(facts, &lives),
        history::check(facts),
        stock::rows(facts),
        stock::promises(facts),
        shipments::check(facts, &lives),
        money::check(facts, &lives),
        endings::check(facts),
        conservation::check(facts),
    ]
}

#[cfg(test)]
mod tests {
    /// The checker must not trust what it checks.
    #[test]
    fn nothing_of_the_engine_or_the_store_is_used_here() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/check");
        let forbidden = [["kept", "store"].join("_"), ["kept", "runtime"].join("_")];
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("source is text");
            for name in &forbidden {
                assert!(!text.contains(name.as_str()), "{} uses {name}", path.display());
            }
            files += 1;
        }
        assert!(files > 10, "only {files} files were looked at");
    }
}
