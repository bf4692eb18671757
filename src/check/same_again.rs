//! Invariant 2, by doing everything again: the same pure functions, the same records and the same facts must give the
//! same results and the same events.

use super::{again::CODE, facts::Facts, verdict::Verdict};

pub fn check(facts: &Facts) -> Verdict {
    let mut verdict =
        Verdict::new("same again", 2, "doing every step and every decision again from the same facts gives the same");
    let mut results = 0;
    for record in &facts.topics.records {
        match record.same_again {
            None => {}
            Some(true) => results += 1,
            Some(false) => {
                let step = record.step.map_or("a step", |step| step.name());
                verdict.broken(|| format!("{} comes out otherwise when {step} is done again", record.place));
            }
        }
    }
    let again = &facts.ledger.again;
    verdict.broken.count += again.different.count;
    verdict.broken.examples.extend(again.different.examples.iter().cloned());
    verdict.counted.push(("results of steps", results));
    verdict.counted.push(("decisions of the ledger", again.decisions));
    verdict.counted.push(("events", again.events));
    if again.otherwise > 0 {
        verdict.notes.push(format!(
            "{} decisions were not made again: another version of Kept than {CODE} made them",
            again.otherwise
        ));
    }
    if again.erased > 0 {
        verdict.notes.push(format!("{} orders were not decided again: their person was erased", again.erased));
    }
    if again.without_record > 0 {
        verdict.notes.push(format!("{} decisions were not made again: their record is gone", again.without_record));
    }
    if results + again.decisions == 0 && verdict.broken.count == 0 {
        verdict.not_yet = Some("nothing was decided yet".into());
    }
    verdict
}
