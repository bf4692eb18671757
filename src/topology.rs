//! The whole pipeline as one table: who reads which topics, does what, and writes which.

use kept_processors::ledger::LedgerEvent;
use kept_runtime::{
    reference,
    service::read_topics,
    steps::{ENRICH, NORMALISE, VALIDATE},
};
use kept_schemas::{
    Topic,
    topics::{Cleanup, Partitions},
};

/// Someone who reads or writes topics.
pub struct Step {
    pub name: &'static str,
    /// In a merchant's words.
    pub about: &'static str,
    /// Part of `kept run`, or from outside of the pipeline.
    pub inside: bool,
    pub reads: Vec<Topic>,
    pub writes: Vec<Topic>,
}

/// Everybody, in the order an order meets them.
pub fn steps() -> Vec<Step> {
    let step = |name, about, inside, reads: &[Topic], writes: &[Topic]| Step {
        name,
        about,
        inside,
        reads: reads.to_vec(),
        writes: writes.to_vec(),
    };
    let mut ledger = LedgerEvent::TOPICS.to_vec();
    ledger.push(Topic::DeadLetters);
    let dead = |outputs: &[Topic]| [outputs, &[Topic::DeadLetters]].concat();
    vec![
        step(
            "ways in",
            "HTTP, import and sample: bodies exactly as they came",
            false,
            &[Topic::ReferenceAccounts],
            &[Topic::ChannelsInbound],
        ),
        step(
            "people",
            "`kept order`, `kept reference apply`, counts of stock: what people decide and know",
            false,
            &[],
            &[
                Topic::CommandsReceived,
                Topic::StockCounted,
                Topic::ReferenceProducts,
                Topic::ReferenceLocations,
                Topic::ReferenceAccounts,
                Topic::ReferenceCustomers,
                Topic::ReferencePolicies,
            ],
        ),
        step(
            "other programs",
            "other teams and `kept send`: bodies, whole orders, payments, commands, reports and counts",
            false,
            &[],
            Topic::FROM_OTHERS,
        ),
        step("normalise", "makes one form of every channel's", true, NORMALISE.inputs, &dead(NORMALISE.outputs)),
        step(
            "enrich",
            "adds weights, customer class and VAT country",
            true,
            &with_reference(ENRICH.inputs),
            &dead(ENRICH.outputs),
        ),
        step("validate", "finds every problem", true, &with_reference(VALIDATE.inputs), &dead(VALIDATE.outputs)),
        step(
            "ledger",
            "decides: accepts, claims stock, holds, releases, routes, answers to payments, commands and outcomes",
            true,
            &with_reference(Topic::LEDGER_INPUTS),
            &ledger,
        ),
        step(
            "timers",
            "tells the ledger what is due, and which orders a new product lets go on",
            true,
            &[Topic::ReferenceProducts],
            &[Topic::DeadlinesReached, Topic::CommandsReceived],
        ),
        step(
            "read",
            "writes what happened into the read model, for people, pages and reports",
            true,
            &read_topics(),
            &[],
        ),
        step(
            "warehouse and carrier",
            "simulated for now: pick, ship, scan and report",
            false,
            &[Topic::FulfilmentRequested, Topic::FulfilmentWithdrawn],
            &[Topic::OutcomesReceived],
        ),
    ]
}

/// Who reads reference data reads all of it.
fn with_reference(inputs: &[Topic]) -> Vec<Topic> {
    [inputs, reference::TOPICS].concat()
}

/// The names of those who write a topic.
pub fn writers(topic: Topic) -> Vec<&'static str> {
    steps().into_iter().filter(|it| it.writes.contains(&topic)).map(|it| it.name).collect()
}

/// The names of those who read it.
pub fn readers(topic: Topic) -> Vec<&'static str> {
    steps().into_iter().filter(|it| it.reads.contains(&topic)).map(|it| it.name).collect()
}

/// Reference data as one word, for it would hide the rest.
fn names(topics: &[Topic]) -> Vec<String> {
    let all = reference::TOPICS.iter().all(|it| topics.contains(it));
    let mut names: Vec<String> =
        topics.iter().filter(|it| !(all && reference::TOPICS.contains(it))).map(|it| it.name().to_owned()).collect();
    if all {
        names.push("reference.*".into());
    }
    names
}

/// The table as text for a terminal.
pub fn table() -> String {
    let mut text = String::new();
    for step in steps() {
        let place = if step.inside { "" } else { " (outside)" };
        text.push_str(&format!("{}{place}: {}\n", step.name, step.about));
        for (word, topics) in [("reads ", &step.reads), ("writes", &step.writes)] {
            for (position, line) in wrapped(&names(topics), 96).into_iter().enumerate() {
                let word = if position == 0 { word } else { "      " };
                text.push_str(&format!("  {word}  {line}\n"));
            }
        }
    }
    text
}

fn wrapped(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() + 2 <= width => {
                line.push_str(", ");
                line.push_str(word);
            }
            last => {
                if let Some(line) = last {
                    line.push(',');
                }
                lines.push(word.clone());
            }
        }
    }
    lines
}

/// A flow chart in Mermaid's form.
pub fn mermaid() -> String {
    let id = |name: &str| name.replace([' ', '.', '*'], "_");
    let mut text = String::from("flowchart LR\n");
    for step in steps() {
        let shape = if step.inside { format!("[{}]", step.name) } else { format!("([{}])", step.name) };
        text.push_str(&format!("  {}{shape}\n", id(step.name)));
    }
    let mut topics: Vec<String> = Vec::new();
    for step in steps() {
        for topic in names(&step.reads).into_iter().chain(names(&step.writes)) {
            if !topics.contains(&topic) {
                text.push_str(&format!("  t_{}>{topic}]\n", id(&topic)));
                topics.push(topic);
            }
        }
    }
    for step in steps() {
        for topic in names(&step.reads) {
            text.push_str(&format!("  t_{} --> {}\n", id(&topic), id(step.name)));
        }
        for topic in names(&step.writes) {
            text.push_str(&format!("  {} --> t_{}\n", id(step.name), id(&topic)));
        }
    }
    text
}

/// The table as JSON.
pub fn json() -> serde_json::Value {
    let topics = |topics: &[Topic]| topics.iter().map(|it| it.name()).collect::<Vec<_>>();
    steps()
        .iter()
        .map(|it| {
            serde_json::json!({
                "step": it.name, "about": it.about, "inside": it.inside,
                "reads": topics(&it.reads), "writes": topics(&it.writes),
            })
        })
        .collect()
}

/// `docs/topics.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Topics\n\nPrinted by `kept topology --markdown`; a test holds the two equal. Every topic's record is in \
         `schemas/` under the topic's name; `kept topics apply` makes topics and registers schemas.\n\n\
         Read them with `isolation.level=read_committed`, which is not the default of clients on the JVM: steps send \
         in transactions, and what is aborted, empty records among it, was never said.\n\n\
         ## Who does what\n\n| step | what it does | reads | writes |\n|---|---|---|---|\n",
    );
    let list = |topics: &[Topic]| {
        let names: Vec<String> = names(topics).iter().map(|it| format!("`{it}`")).collect();
        if names.is_empty() { "–".into() } else { names.join(", ") }
    };
    for step in steps() {
        let name = if step.inside { format!("**{}**", step.name) } else { step.name.to_owned() };
        text.push_str(&format!("| {name} | {} | {} | {} |\n", step.about, list(&step.reads), list(&step.writes)));
    }
    text.push_str(
        "\nBold: part of `kept run`. *normalise*, *enrich* and *validate* usually run as one step and write every \
         topic all the same.\n\n## Every topic\n\nPartitions: `n` is the deployment's number, fixed once made. Rule: \
         what a new version of the schema must keep. Topics with personal data are kept 30 days at most.\n\n\
         | topic | what it says | key | partitions | kept | rule | personal data | written by | read by |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for &topic in Topic::ALL {
        let spec = topic.spec();
        let partitions = match spec.partitions {
            Partitions::Shared => "n",
            Partitions::One => "1",
        };
        let kept = match spec.cleanup {
            Cleanup::Days(days) => format!("{days} days"),
            Cleanup::Compact => "newest of each key".into(),
        };
        text.push_str(&format!(
            "| `{topic}` | {} | {} | {partitions} | {kept} | {} | {} | {} | {} |\n",
            spec.about,
            spec.key,
            spec.compatibility.as_str(),
            if spec.personal { "yes" } else { "" },
            writers(topic).join(", "),
            readers(topic).join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kept_runtime::steps::FUSED;

    use super::*;
    use crate::check::steps::reader_of;

    #[test]
    fn every_topic_has_a_writer_and_a_reader() {
        // Work asked for of partners that come later; until then the read model shows it.
        for &topic in Topic::ALL {
            assert!(!writers(topic).is_empty(), "nobody writes {topic}");
            assert!(!readers(topic).is_empty(), "nobody reads {topic}");
        }
    }

    #[test]
    fn the_checker_knows_every_topic_that_a_step_without_memory_reads_and_no_other() {
        let read: BTreeSet<Topic> = FUSED.iter().flat_map(|step| step.inputs).copied().collect();
        let checked = Topic::ALL.iter().copied().filter(|&topic| reader_of(topic).is_some()).collect();
        assert_eq!(read, checked);
    }

    #[test]
    fn what_is_kept_longer_than_a_month_holds_no_personal_data() {
        for &topic in Topic::ALL {
            let spec = topic.spec();
            if spec.personal {
                assert!(matches!(spec.cleanup, Cleanup::Days(days) if days <= 30), "{topic}");
            }
        }
    }

    /// `KEPT_WRITE_DOCS=1 cargo test -p kept topology` writes the page after an intended change.
    #[test]
    fn the_page_about_topics_equals_the_print() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/topics.md");
        if std::env::var_os("KEPT_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).expect("written");
            return;
        }
        let page = std::fs::read_to_string(path).expect("docs/topics.md is there");
        assert_eq!(page, markdown(), "docs/topics.md is not what `kept topology --markdown` prints");
    }

    #[test]
    fn the_flow_chart_names_every_step_and_topic() {
        let chart = mermaid();
        for step in steps() {
            assert!(chart.contains(step.name), "{} is missing", step.name);
        }
        for topic in Topic::ALL.iter().filter(|it| !reference::TOPICS.contains(it)) {
            assert!(chart.contains(topic.name()), "{topic} is missing");
        }
    }
}
