//! What a step sent is believed to stand once it was seen to.
//!
//! A broker answers the end of a transaction before it writes it to the partitions concerned, and one that restarts in
//! between, alone, may never write it there (Kafka 4.3: "likely deleted already and hence can be skipped"). The records
//! then stay open, hold up every reader, and take the fate of whatever transaction of the same producer ends next on
//! their partition. So a step looks at its output topics every few seconds: when all that it had sent by the last look
//! has a written end, that is noted. Whatever is beyond the note is looked for, record by record, before anything is
//! sent again.

use std::{collections::BTreeMap, time::Duration};

use kept_schemas::Topic;
use kept_store::seam::{Ends, TopicPartition};

use crate::log::{End, Log, LogError};

/// An end that is not written after this long is not going to be: longer than a transaction may stay open and its
/// broker may take to see that.
const OVERDUE: Duration = Duration::from_secs(25);

/// Between two looks while nothing else can be done.
const SOON: Duration = Duration::from_millis(20);

/// An idle step looks, and sees to its producer, as often: else it would have to look for what it sent among all that
/// others sent since.
const IDLE_EVERY: Duration = Duration::from_secs(30);

/// Of input partitions: up to where something holds.
pub(crate) type Floors = Vec<(TopicPartition, i64)>;

/// A partition of ours, and how far it is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub at: TopicPartition,
    /// Committed up to here.
    pub upto: i64,
    /// Noted up to here.
    pub noted: i64,
}

/// What was committed by some moment, and where the output topics ended then.
#[derive(Debug, Clone)]
struct Watch {
    floors: Floors,
    ends: Ends,
    since: Duration,
}

/// What a look at the output topics says of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything has a written end.
    Written,
    NotYet,
    /// Here it should be written by now.
    Overdue(TopicPartition),
}

impl Watch {
    /// `ends`: asked after everything up to `floors` was committed, and before anything else is sent.
    fn new(floors: Floors, ends: &BTreeMap<TopicPartition, End>, now: Duration) -> Self {
        Self { floors, ends: whole(ends), since: now }
    }

    fn standing(&self, ends: &BTreeMap<TopicPartition, End>, now: Duration) -> Standing {
        // One that is not there now may be there again.
        let open = |(at, end): (&TopicPartition, &i64)| ends.get(at).is_none_or(|it| it.stable < *end).then_some(*at);
        match self.ends.iter().find_map(open) {
            None => Standing::Written,
            Some(at) if now.saturating_sub(self.since) > OVERDUE => Standing::Overdue(at),
            Some(_) => Standing::NotYet,
        }
    }
}

/// What a step waits to see written.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    sent: Option<Watch>,
    /// The end of the transaction that a new producer begins with.
    swept: Option<Watch>,
    /// Something was sent since the watch over it began.
    unwatched: bool,
    /// When there was something to look for, or it was looked all the same.
    looked_at: Duration,
}

/// What is to be done now and then, between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// A look at the output topics.
    Look,
    /// To see whether our producer is still the one: one that took its place for a while may have left something.
    Confirm,
}

/// What a look at the output topics comes to.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// To be noted: all up to here stands, and what is sent beyond stands from here on.
    Stands(Floors, Ends),
    /// An end is not written and will not be: a new producer is needed.
    Overdue(TopicPartition),
}

impl Watching {
    /// A new producer was made; nothing was sent with it yet. It may have aborted what the old one left.
    pub fn swept(&mut self, ends: &BTreeMap<TopicPartition, End>, now: Duration) {
        (self.sent, self.unwatched) = (None, false);
        self.swept = Some(Watch::new(Floors::new(), ends, now));
    }

    /// A transaction is going to end.
    pub fn sending(&mut self) {
        self.unwatched = true;
    }

    /// Partitions are not ours any more, or their positions are established anew: what was sent is looked for, by us or
    /// by others, and nothing of it is noted. That its end is written must be seen all the same, for others wait for it.
    pub fn anew(&mut self) {
        if let Some(it) = &mut self.sent {
            it.floors.clear();
        }
    }

    /// Before anything is sent with a new producer: waits until the end of its first transaction, an abort, is written.
    /// Our next commit could else make visible what that aborts. An error: a new producer must follow.
    pub async fn settle<L: Log>(&mut self, log: &mut L, outputs: &[Topic]) -> Result<(), LogError> {
        while let Some(swept) = &self.swept {
            match swept.standing(&log.ends(outputs).await?, log.now()) {
                Standing::Written => self.swept = None,
                Standing::NotYet => log.pause(SOON).await,
                Standing::Overdue(at) => return Err(LogError::Retry(overdue(at))),
            }
        }
        Ok(())
    }

    /// Between batches, every few seconds: looks at the output topics if there is reason to. `done`: every partition
    /// of ours. Gives what is to be noted, if anything: of the quiet ones too, for what others send grows. An error: a
    /// new producer must follow.
    pub async fn watch<L: Log>(
        &mut self,
        log: &mut L,
        outputs: &[Topic],
        done: Vec<Done>,
    ) -> Result<(Floors, Ends), LogError> {
        let due = self.due(&done, log.now());
        let done = done.into_iter().map(|it| (it.at, it.upto)).collect();
        match due {
            Due::Nothing => {}
            Due::Confirm => log.confirm().await?,
            Due::Look => {
                let ends = log.ends(outputs).await?;
                match self.look(done, &ends, log.now()) {
                    Seen::Stands(floors, ends) if !floors.is_empty() => {
                        // Had another one our transactional id meanwhile, it may have been that one who ended what we
                        // left.
                        log.confirm().await?;
                        return Ok((floors, ends));
                    }
                    Seen::Stands(..) | Seen::Nothing => {}
                    Seen::Overdue(at) => return Err(LogError::Retry(overdue(at))),
                }
            }
        }
        Ok((Floors::new(), Ends::new()))
    }

    fn due(&mut self, done: &[Done], now: Duration) -> Due {
        let waits = self.sent.is_some() || self.swept.is_some() || self.unwatched;
        let due = match now.saturating_sub(self.looked_at) >= IDLE_EVERY {
            _ if waits || done.iter().any(|it| it.noted < it.upto) => Due::Look,
            true if done.is_empty() => Due::Confirm,
            true => Due::Look,
            false => return Due::Nothing,
        };
        self.looked_at = now;
        due
    }

    /// `done`: committed by now. `ends`: asked just now; no transaction of ours is open.
    fn look(&mut self, done: Floors, ends: &BTreeMap<TopicPartition, End>, now: Duration) -> Seen {
        let swept = self.swept.as_ref().map(|it| it.standing(ends, now));
        if swept == Some(Standing::Written) {
            self.swept = None;
        }
        let latest = Watch::new(done, ends, now);
        // In a quiet moment there is nothing to wait for.
        if latest.standing(ends, now) == Standing::Written {
            (self.sent, self.unwatched) = (None, false);
            return Seen::Stands(latest.floors, latest.ends);
        }
        let sent = self.sent.as_ref().map(|it| it.standing(ends, now));
        match (sent, swept) {
            (Some(Standing::Written), _) => {
                self.unwatched = false;
                let before = self.sent.replace(latest);
                before.map_or(Seen::Nothing, |it| Seen::Stands(it.floors, it.ends))
            }
            (Some(Standing::Overdue(at)), _) | (_, Some(Standing::Overdue(at))) => Seen::Overdue(at),
            (None, _) => {
                (self.sent, self.unwatched) = (Some(latest), false);
                Seen::Nothing
            }
            _ => Seen::Nothing,
        }
    }
}

/// Where partitions end, open transactions included.
pub(crate) fn whole(ends: &BTreeMap<TopicPartition, End>) -> Ends {
    ends.iter().map(|(at, it)| (*at, it.end)).collect()
}

/// From where on to look for what any of several partitions sent, over all partitions that there are. An error: a topic
/// of ours to which something was sent is not there, and may be there again.
pub(crate) fn least<'a>(
    there: &BTreeMap<TopicPartition, End>,
    outputs: &[Topic],
    noted: impl Iterator<Item = &'a Ends> + Clone,
) -> Result<Ends, LogError> {
    let gone = |at: &&TopicPartition| outputs.contains(&at.topic) && !there.keys().any(|it| it.topic == at.topic);
    if let Some(at) = noted.clone().flat_map(Ends::keys).find(gone) {
        return Err(LogError::Retry(format!(
            "{} is not there: what was sent to it cannot be told. `kept topics apply` creates what is missing",
            at.topic
        )));
    }
    let from = |at: &TopicPartition| noted.clone().map(|it| it.get(at).copied().unwrap_or(0)).min().unwrap_or(0);
    Ok(there.keys().map(|at| (*at, from(at))).collect())
}

/// Why a step waits: told to whoever must find the transaction.
fn overdue(at: TopicPartition) -> String {
    let TopicPartition { topic, partition } = at;
    format!(
        "a transaction on {topic}/{partition} has no written end; ending ours there, if it is ours. If this line comes \
         again and again it is not: see \"A transaction that never ends\" in docs/running.md"
    )
}

/// The topics a ledger step sends to.
pub(crate) fn of_ledger() -> Vec<Topic> {
    let mut topics = kept_processors::ledger::LedgerEvent::TOPICS.to_vec();
    topics.push(Topic::DeadLetters);
    topics.sort_unstable();
    topics.dedup();
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::OrdersPaid, partition }
    }

    fn ends(all: &[(i32, i64, i64)]) -> BTreeMap<TopicPartition, End> {
        all.iter().map(|&(partition, stable, end)| (at(partition), End { end, stable })).collect()
    }

    #[test]
    fn an_end_is_written_once_no_transaction_is_open_below_where_its_topics_ended() {
        let seconds = Duration::from_secs;
        let watch = Watch::new(vec![(at(0), 7)], &ends(&[(0, 10, 12), (1, 5, 5)]), seconds(100));
        let cases = [
            ("as it was", ends(&[(0, 10, 12), (1, 5, 5)]), 101, Standing::NotYet),
            ("one before it is open still", ends(&[(0, 11, 50), (1, 5, 9)]), 125, Standing::NotYet),
            ("and stays so", ends(&[(0, 11, 50), (1, 5, 9)]), 126, Standing::Overdue(at(0))),
            ("only later ones are open", ends(&[(0, 12, 50), (1, 5, 9)]), 500, Standing::Written),
            ("a partition more", ends(&[(0, 50, 50), (1, 9, 9), (2, 0, 3)]), 500, Standing::Written),
            ("its topic is not there", ends(&[(1, 9, 9)]), 125, Standing::NotYet),
            ("and does not come back", ends(&[(1, 9, 9)]), 126, Standing::Overdue(at(0))),
        ];
        for (what, now, time, standing) in cases {
            assert_eq!(watch.standing(&now, seconds(time)), standing, "{what}");
        }
    }

    #[test]
    fn what_is_noted_was_done_before_the_look_that_saw_its_end_and_not_after() {
        let seconds = Duration::from_secs;
        let mut it = Watching::default();
        let done = |upto| vec![(at(9), upto)];
        let part = |upto, noted| [Done { at: at(9), upto, noted }];
        let mut due = |done: &[Done]| it.due(done, seconds(1));
        assert_eq!((due(&[]), due(&part(1, 1)), due(&part(1, 0))), (Due::Nothing, Due::Nothing, Due::Look));
        assert_eq!(it.look(done(3), &ends(&[(0, 10, 12)]), seconds(1)), Seen::Nothing);
        // Others go on, and so do we.
        let noted = Seen::Stands(done(3), Ends::from([(at(0), 12)]));
        assert_eq!(it.look(done(5), &ends(&[(0, 15, 20)]), seconds(3)), noted);
        let noted = Seen::Stands(done(5), Ends::from([(at(0), 20)]));
        assert_eq!(it.look(done(8), &ends(&[(0, 21, 30)]), seconds(5)), noted);
        assert_eq!(it.look(done(9), &ends(&[(0, 21, 31)]), seconds(30)), Seen::Nothing);
        assert_eq!(it.look(done(9), &ends(&[(0, 21, 31)]), seconds(31)), Seen::Overdue(at(0)));
        let noted = Seen::Stands(done(9), Ends::from([(at(0), 32)]));
        assert_eq!(it.look(done(9), &ends(&[(0, 32, 32)]), seconds(32)), noted);
    }

    #[test]
    fn an_idle_step_looks_now_and_then_so_that_nobody_has_to_look_for_what_it_sent_among_a_weeks_records() {
        let mut it = Watching::default();
        let quiet = [Done { at: at(9), upto: 3, noted: 3 }];
        let second = Duration::from_secs(1);
        for (time, due) in [(29, Due::Nothing), (31, Due::Look), (60, Due::Nothing), (61, Due::Look)] {
            assert_eq!(it.due(&quiet, time * second), due, "{time}");
        }
        let noted = Seen::Stands(vec![(at(9), 3)], Ends::from([(at(0), 90)]));
        assert_eq!(it.look(vec![(at(9), 3)], &ends(&[(0, 90, 90)]), Duration::from_secs(1)), noted);
        for (time, due) in [(90, Due::Nothing), (91, Due::Confirm), (92, Due::Nothing)] {
            assert_eq!(it.due(&[], time * second), due, "without partitions, {time}");
        }
    }

    #[test]
    fn who_has_nothing_to_do_sees_to_it_that_the_end_of_its_own_first_transaction_is_written() {
        let seconds = Duration::from_secs;
        let mut it = Watching::default();
        assert_eq!(it.look(vec![(at(9), 3)], &ends(&[(0, 10, 12)]), seconds(1)), Seen::Nothing);
        it.swept(&ends(&[(0, 10, 12)]), seconds(1));
        assert_eq!(it.due(&[], seconds(2)), Due::Look);
        assert_eq!(it.look(Floors::new(), &ends(&[(0, 10, 50)]), seconds(20)), Seen::Nothing);
        assert_eq!(it.look(Floors::new(), &ends(&[(0, 10, 50)]), seconds(27)), Seen::Overdue(at(0)));
        let written = Seen::Stands(Floors::new(), Ends::from([(at(0), 50)]));
        assert_eq!(it.look(Floors::new(), &ends(&[(0, 50, 50)]), seconds(28)), written, "what the old one sent is not");
    }

    #[test]
    fn who_gave_its_partitions_back_still_sees_to_it_that_the_end_of_what_it_sent_is_written() {
        let seconds = Duration::from_secs;
        for looked_before in [true, false] {
            let mut it = Watching::default();
            it.sending();
            if looked_before {
                assert_eq!(it.look(vec![(at(9), 3)], &ends(&[(0, 10, 12)]), seconds(1)), Seen::Nothing);
            }
            it.anew();
            assert_eq!(it.due(&[], seconds(2)), Due::Look);
            assert_eq!(it.look(Floors::new(), &ends(&[(0, 10, 12)]), seconds(3)), Seen::Nothing);
            assert_eq!(it.look(Floors::new(), &ends(&[(0, 10, 20)]), seconds(40)), Seen::Overdue(at(0)));
            let written = Seen::Stands(Floors::new(), Ends::from([(at(0), 20)]));
            assert_eq!(it.look(Floors::new(), &ends(&[(0, 20, 20)]), seconds(41)), written, "and nothing is noted");
            assert_eq!(it.due(&[], seconds(3)), Due::Nothing);
        }
    }

    #[test]
    fn it_is_looked_for_from_where_any_partition_may_have_sent_it() {
        let noted = [Ends::from([(at(0), 4), (at(1), 9)]), Ends::from([(at(0), 6), (at(1), 2)])];
        let there = ends(&[(0, 10, 10), (1, 10, 10), (2, 3, 3)]);
        let least = |there, outputs| least(there, outputs, noted.iter());
        assert_eq!(least(&there, &[Topic::OrdersPaid]), Ok(Ends::from([(at(0), 4), (at(1), 2), (at(2), 0)])));
        let none = BTreeMap::new();
        assert!(matches!(least(&none, &[Topic::OrdersPaid]), Err(LogError::Retry(_))));
        assert_eq!(least(&none, &[]), Ok(Ends::new()), "nothing is sent there any more");
    }
}
