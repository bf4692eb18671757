//! Which faults are made, and when: a pure function of the seed, the length and the profile.

use std::fmt;

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::servers::Server;

/// A part of the pipeline, as processes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Steps,
    Ledger,
    Read,
    Timers,
    Http,
    World,
}

impl Part {
    pub const ALL: [Self; 6] = [Self::Steps, Self::Ledger, Self::Read, Self::Timers, Self::Http, Self::World];

    /// As the command line calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Ledger => "ledger",
            Self::Read => "read",
            Self::Timers => "timers",
            Self::Http => "http",
            Self::World => "world",
        }
    }

    /// How many processes of it run.
    pub const fn processes(self) -> u8 {
        match self {
            Self::Steps | Self::Ledger | Self::Read => 2,
            Self::Timers | Self::Http | Self::World => 1,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Steps => "the steps",
            Self::Ledger => "the ledger",
            Self::Read => "the read model's sink",
            Self::Timers => "the timers",
            Self::Http => "the HTTP API",
            Self::World => "the simulated warehouse",
        }
    }
}

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A part, and which of its processes.
    Part(Part, u8),
    Server(Server),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(part, _) if part.processes() == 1 => f.write_str(part.words()),
            Self::Part(part, which) => write!(f, "{} {}", part.words(), which + 1),
            Self::Server(server) => server.fmt(f),
        }
    }
}

/// One thing that is done to the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9.
    Kill(Who),
    /// SIGSTOP, and SIGCONT after so many seconds.
    Pause(Who, u32),
    /// A process is stopped until its slot's lease is another's; then it goes on.
    TwoOwners(Part, u8),
    /// A rival takes every partition of the part from its owner and does nothing more, as one does that was stopped in
    /// the middle of taking them and went on too late.
    TakenLate(Part),
    /// Every connection to the server is cut once.
    Cut(Server),
    /// Nobody can connect to it for so many seconds.
    Refuse(Server, u32),
    /// Each piece to and from it is up to so many milliseconds late, for so many seconds.
    Delay(Server, u32, u32),
    /// Connections stay and nothing passes, for so many seconds.
    Stall(Server, u32),
    /// The next end of a transaction of this part arrives late, after its repetition.
    LateEnd(Part),
    /// In a deployment beside: a topic is deleted and made anew under a running ledger step.
    TopicMadeAnew,
    /// A record whose deciding ends the process: the n-th of them.
    KillingRecord(u8),
    /// Records that nobody can read.
    UnreadableRecords,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(who) => write!(f, "kill -9 {who}"),
            Self::Pause(who, seconds) => write!(f, "stop {who} for {seconds} s (SIGSTOP)"),
            Self::TwoOwners(part, which) => {
                write!(f, "stop {} until another owns its slot, then let both go on", Who::Part(*part, *which))
            }
            Self::TakenLate(part) => {
                write!(f, "every partition of {} is taken by one that came too late and does nothing", part.words())
            }
            Self::Cut(server) => write!(f, "cut every connection to {server}"),
            Self::Refuse(server, seconds) => write!(f, "{server} takes no connections for {seconds} s"),
            Self::Delay(server, most, seconds) => {
                write!(f, "everything to and from {server} is up to {most} ms late for {seconds} s")
            }
            Self::Stall(server, seconds) => write!(f, "nothing passes to and from {server} for {seconds} s"),
            Self::LateEnd(part) => write!(f, "an end of a transaction of {} arrives late", part.words()),
            Self::TopicMadeAnew => f.write_str("a topic is made anew under a running step (in a deployment beside)"),
            Self::KillingRecord(_) => f.write_str("a record that ends every process that decides about it"),
            Self::UnreadableRecords => f.write_str("records that nobody can read"),
        }
    }
}

impl Fault {
    /// Its kind, for the table at the end.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(Who::Part(..)) => "kill -9 a process",
            Self::Kill(Who::Server(_)) => "kill -9 a server",
            Self::Pause(Who::Part(..), _) => "stop a process (SIGSTOP)",
            Self::Pause(Who::Server(_), _) => "stop a server (SIGSTOP)",
            Self::TwoOwners(..) => "two owners of one slot",
            Self::TakenLate(_) => "partitions taken by a late rival",
            Self::Cut(_) => "connections cut",
            Self::Refuse(..) => "connections refused",
            Self::Delay(..) => "everything late",
            Self::Stall(..) => "half-open connections",
            Self::LateEnd(_) => "late end of a transaction",
            Self::TopicMadeAnew => "topic made anew",
            Self::KillingRecord(_) => "record that ends a process",
            Self::UnreadableRecords => "unreadable records",
        }
    }

    /// How long it and getting over it take, roughly, in seconds.
    fn lasts(&self) -> u32 {
        match self {
            Self::Kill(Who::Part(Part::Steps | Part::Ledger | Part::Read, _)) => 16,
            Self::Kill(Who::Part(..)) | Self::Cut(_) => 6,
            Self::Kill(Who::Server(_)) => 20,
            Self::Pause(_, seconds) => seconds + 16,
            Self::TwoOwners(..) => 75,
            Self::TakenLate(_) => 10,
            Self::Refuse(_, seconds) | Self::Delay(_, _, seconds) | Self::Stall(_, seconds) => seconds + 14,
            Self::LateEnd(_) => 20,
            Self::TopicMadeAnew => 0,
            Self::KillingRecord(_) => 60,
            Self::UnreadableRecords => 8,
        }
    }
}

/// A fault and its time, in seconds from the first order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub second: u32,
    pub fault: Fault,
}

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Everything, again and again, in the time there is.
    Full,
    /// What every change must stand: the kills, one stop of 20 s, one late end, one topic made anew.
    Ci,
}

/// Before the first fault, and at least between two.
const GAP: u32 = 3;

/// The faults of a run of `minutes` minutes. The same arguments give the same schedule. A run that is long enough has
/// every fault before one comes again, and a short one as many kinds as possible.
/// `only`: nothing but faults whose words hold these; none, when no fault's do.
pub fn schedule(seed: u64, minutes: u32, profile: Profile, only: Option<&str>) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let end = minutes.saturating_mul(60);
    let mut planned = Vec::new();
    let mut second = GAP;
    let mut killing = 0;
    loop {
        let deck = match profile {
            Profile::Full => deal(&mut rng, everything()),
            Profile::Ci => ci(&mut rng),
        };
        let wanted = |fault: &Fault| only.is_none_or(|words| fault.to_string().contains(words));
        let before = planned.len();
        for mut fault in deck.into_iter().filter(wanted) {
            if let Fault::KillingRecord(number) = &mut fault {
                *number = killing;
                killing += 1;
            }
            // What is too long for the time that is left is left out; something shorter may follow.
            if profile == Profile::Full && second + fault.lasts() > end {
                continue;
            }
            planned.push(Planned { second, fault });
            second += fault.lasts() + rng.random_range(GAP..GAP + 5);
        }
        // Nothing that takes time fits any more, or nothing that is wanted.
        if profile == Profile::Ci || second + 6 > end || planned.len() == before {
            return planned;
        }
    }
}

fn ci(rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let which = |rng: &mut ChaCha8Rng, part: Part| rng.random_range(0..part.processes());
    let mut faults: Vec<Fault> = Part::ALL.iter().map(|&part| Fault::Kill(Who::Part(part, which(rng, part)))).collect();
    faults.extend([Server::Kafka, Server::Registry, Server::Postgres].map(|it| Fault::Kill(Who::Server(it))));
    faults.push(Fault::Pause(Who::Part(Part::Ledger, which(rng, Part::Ledger)), 20));
    faults.push(Fault::LateEnd(Part::Ledger));
    faults.shuffle(rng);
    // It goes on beside the others, and takes longest.
    faults.insert(0, Fault::TopicMadeAnew);
    faults
}

/// Every fault there is, kinds apart.
fn everything() -> Vec<Vec<Fault>> {
    let servers = [Server::Kafka, Server::Registry, Server::Postgres];
    let processes: Vec<Who> =
        Part::ALL.iter().flat_map(|&part| (0..part.processes()).map(move |which| Who::Part(part, which))).collect();
    let parts = [Part::Steps, Part::Ledger, Part::Read];
    let stopped: Vec<Who> = parts.iter().map(|&part| Who::Part(part, 0)).collect();
    let of_servers = servers.map(Who::Server);
    let pauses = |who: &[Who]| {
        who.iter().flat_map(|&who| [5, 20, 60].map(|seconds| Fault::Pause(who, seconds))).collect::<Vec<_>>()
    };
    vec![
        processes.iter().map(|&it| Fault::Kill(it)).collect(),
        of_servers.map(Fault::Kill).to_vec(),
        pauses(&stopped),
        pauses(&of_servers),
        parts.map(|part| Fault::TwoOwners(part, 0)).to_vec(),
        vec![Fault::TakenLate(Part::Ledger), Fault::TakenLate(Part::Read)],
        servers.map(Fault::Cut).to_vec(),
        servers.map(|it| Fault::Refuse(it, 10)).to_vec(),
        servers.map(|it| Fault::Delay(it, 200, 20)).to_vec(),
        servers.map(|it| Fault::Stall(it, 15)).to_vec(),
        vec![Fault::LateEnd(Part::Ledger), Fault::LateEnd(Part::Steps), Fault::LateEnd(Part::Ledger)],
        vec![Fault::TopicMadeAnew],
        vec![Fault::KillingRecord(0)],
        vec![Fault::UnreadableRecords],
    ]
}

/// Shuffles kinds and what is within them, and deals one of each kind in turn. Of two processes of a part, chance
/// takes one.
fn deal(rng: &mut ChaCha8Rng, mut kinds: Vec<Vec<Fault>>) -> Vec<Fault> {
    for kind in &mut kinds {
        kind.shuffle(rng);
    }
    kinds.shuffle(rng);
    let mut dealt = Vec::new();
    while kinds.iter().any(|kind| !kind.is_empty()) {
        for kind in &mut kinds {
            let Some(mut fault) = kind.pop() else { continue };
            match &mut fault {
                Fault::Pause(Who::Part(part, which), _) | Fault::TwoOwners(part, which) => {
                    *which = rng.random_range(0..part.processes());
                }
                _ => {}
            }
            dealt.push(fault);
        }
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn faults(planned: &[Planned]) -> BTreeSet<Fault> {
        planned.iter().map(|it| it.fault).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        for minutes in [5, 30, 60] {
            let first = schedule(7, minutes, Profile::Full, None);
            assert_eq!(first, schedule(7, minutes, Profile::Full, None));
            assert_ne!(first, schedule(8, minutes, Profile::Full, None));
        }
    }

    #[test]
    fn faults_follow_each_other_and_end_in_time() {
        for seed in 0..200 {
            for minutes in [1, 5, 30, 60] {
                let planned = schedule(seed, minutes, Profile::Full, None);
                for pair in planned.windows(2) {
                    assert!(pair[1].second >= pair[0].second + pair[0].fault.lasts() + GAP, "{pair:?}");
                }
                assert!(planned.iter().all(|it| it.second + it.fault.lasts() <= minutes * 60), "seed {seed}");
                assert!(!planned.is_empty());
            }
        }
    }

    #[test]
    fn an_hour_has_every_fault_and_half_an_hour_every_kind() {
        for seed in 0..100 {
            let kinds = |planned: &[Planned]| planned.iter().map(|it| it.fault.kind()).collect::<BTreeSet<_>>();
            assert_eq!(kinds(&schedule(seed, 30, Profile::Full, None)).len(), 14, "seed {seed}");
            let hour = faults(&schedule(seed, 60, Profile::Full, None));
            for fault in everything().into_iter().flatten() {
                let there = match fault {
                    Fault::Pause(Who::Part(part, _), seconds) => {
                        (0..part.processes()).any(|which| hour.contains(&Fault::Pause(Who::Part(part, which), seconds)))
                    }
                    Fault::TwoOwners(part, _) => {
                        (0..part.processes()).any(|which| hour.contains(&Fault::TwoOwners(part, which)))
                    }
                    other => hour.contains(&other),
                };
                assert!(there, "seed {seed}: no {fault}");
            }
        }
    }

    #[test]
    fn the_short_profile_has_the_kills_one_stop_one_late_end_and_one_topic_made_anew() {
        for seed in 0..50 {
            let planned = schedule(seed, 5, Profile::Ci, None);
            let all = faults(&planned);
            let kills = all.iter().filter(|it| matches!(it, Fault::Kill(_))).count();
            let stops = all.iter().filter(|it| matches!(it, Fault::Pause(_, 20))).count();
            assert_eq!((kills, stops, all.len()), (9, 1, 12));
            assert!(all.contains(&Fault::LateEnd(Part::Ledger)) && all.contains(&Fault::TopicMadeAnew));
            let last = planned.last().expect("some");
            assert!(last.second + last.fault.lasts() < 260, "{last:?}");
        }
    }

    #[test]
    fn one_fault_can_be_made_again_and_again_and_words_of_none_make_none() {
        let only = |words| schedule(7, 10, Profile::Full, Some(words));
        let kills = only("kill -9 Kafka");
        assert!(kills.len() > 15, "{}", kills.len());
        assert_eq!(faults(&kills), BTreeSet::from([Fault::Kill(Who::Server(Server::Kafka))]));
        assert_eq!(only("kill -9 the moon"), []);
    }

    #[test]
    fn records_that_end_a_process_have_a_number_each() {
        let planned = schedule(3, 180, Profile::Full, None);
        let numbers: Vec<u8> = planned
            .iter()
            .filter_map(|it| match it.fault {
                Fault::KillingRecord(number) => Some(number),
                _ => None,
            })
            .collect();
        assert!(numbers.len() > 2);
        assert_eq!(numbers, (0..u8::try_from(numbers.len()).expect("few")).collect::<Vec<_>>());
    }
}
