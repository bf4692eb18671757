//! The timer source: reads due timers, by Postgres's clock, and sends `deadlines.reached`, again and again until the
//! ledger clears them, each time after a longer pause. Sending twice is harmless: the ledger acts once per event id,
//! and a stale revision is a no-op. What was sent is remembered in memory only, for the pauses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kept_schemas::{EventId, Headers, OrderId, Topic, inputs::DeadlineReached};
use kept_store::seam::{DueTimer, Timers};

use crate::{
    ledger_step::Stopped,
    log::{LogError, Outgoing},
    schemas::Schemas,
};

/// Most deadlines sent in one go.
const AT_ONCE: usize = 1_000;
/// Most deadlines remembered. What falls due after them waits until the ledger has dealt with some.
const REMEMBERED: usize = 10_000;
/// How long the ledger is given for a deadline that was sent once; each time after it, twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// By then a lost record is what is mended, not a slow ledger: what is in the topic waits there.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Where records go that belong to no consumer's offsets: returns once all are stored by the broker.
#[allow(async_fn_in_trait)]
pub trait Outbox {
    async fn send(&mut self, outgoing: Vec<Outgoing>) -> Result<(), LogError>;
}

/// Reads and sends until told to stop. `every` is the longest a due timer waits.
pub async fn run<T: Timers, O: Outbox, C: Schemas>(
    timers: &mut T,
    outbox: &mut O,
    schemas: &C,
    every: Duration,
    stop: &Arc<AtomicBool>,
) -> Result<(), Stopped> {
    let stopped = |reason: String| Stopped { step: "timers".into(), reason };
    let mut sent = Sent::default();
    while !stop.load(Ordering::Relaxed) {
        // What rests must not hide what fell due later.
        match timers.due(AT_ONCE + sent.0.len()).await {
            Ok(due) => {
                let now = sent.choose(due, Instant::now());
                let codec = schemas.codec();
                let outgoing: Result<Vec<Outgoing>, String> = now.iter().map(|it| deadline(&codec, it)).collect();
                let outgoing = outgoing.map_err(stopped)?;
                match if outgoing.is_empty() { Ok(()) } else { outbox.send(outgoing).await } {
                    Ok(()) => sent.note(now, Instant::now()),
                    Err(LogError::Retry(why)) => {
                        tracing::warn!(why, "deadlines are sent again later")
                    }
                    Err(LogError::Stop(why)) => return Err(stopped(why)),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "due timers cannot be read; connecting again");
                if let Err(error) = timers.reconnect().await {
                    tracing::warn!(%error, "no connection yet");
                }
            }
        }
        tokio::time::sleep(every).await;
    }
    Ok(())
}

/// Deadlines that were sent and are not dealt with yet.
#[derive(Default)]
struct Sent(BTreeMap<(OrderId, String), Sending>);

struct Sending {
    revision: i64,
    times: u32,
    again_at: Instant,
}

impl Sent {
    /// Those of the `due` timers to send now. Forgets what is not due any more.
    fn choose(&mut self, due: Vec<DueTimer>, now: Instant) -> Vec<DueTimer> {
        let still: BTreeSet<_> = due.iter().map(|timer| (timer.order_id, timer.timer_id.as_str())).collect();
        let mut before = std::mem::take(&mut self.0);
        before.retain(|(order_id, timer_id), _| still.contains(&(*order_id, timer_id.as_str())));
        let mut chosen = Vec::new();
        let mut new = 0;
        for timer in due {
            let key = (timer.order_id, timer.timer_id.clone());
            let known = before.remove(&key).filter(|it| it.revision == timer.revision);
            let rests = match known {
                Some(it) => {
                    let rests = it.again_at > now;
                    self.0.insert(key, it);
                    rests
                }
                None => {
                    new += 1;
                    self.0.len() + before.len() + new > REMEMBERED
                }
            };
            if !rests && chosen.len() < AT_ONCE {
                chosen.push(timer);
            }
        }
        chosen
    }

    fn note(&mut self, sent: Vec<DueTimer>, now: Instant) {
        for timer in sent {
            let (key, revision) = ((timer.order_id, timer.timer_id), timer.revision);
            let it = self.0.entry(key).or_insert(Sending { revision, times: 0, again_at: now });
            it.times = it.times.saturating_add(1);
            it.again_at = now + pause(it.times);
        }
    }
}

/// How long after a deadline was sent so many times it is sent again.
fn pause(times: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

/// The record of a due timer. The same timer at the same revision is the same event, however often it is sent.
fn deadline(codec: &kept_schemas::Codec, timer: &DueTimer) -> Result<Outgoing, String> {
    let value = DeadlineReached {
        order_id: timer.order_id,
        timer_id: timer.timer_id.clone(),
        purpose: timer.purpose,
        revision: timer.revision,
        due_at: timer.due_at,
    };
    let wire = codec.encode(&value).map_err(|error| error.to_string())?;
    let external = format!("{}/{}", timer.order_id, timer.timer_id);
    let headers = Headers {
        event_id: Some(EventId::of_input("timers", &external, &timer.revision.to_be_bytes())),
        subject: Some(Topic::DeadlinesReached.subject().into()),
        step: Some("timers".into()),
        ..Default::default()
    };
    Ok(Outgoing::new(Topic::DeadlinesReached, &timer.order_id.to_string(), &wire, headers))
}

#[cfg(test)]
mod tests {
    use kept_schemas::{Micros, inputs::TimerPurpose};

    use super::*;

    fn timer(number: usize, revision: i64) -> DueTimer {
        DueTimer {
            order_id: OrderId::of("shop", &number.to_string()),
            timer_id: "hold".into(),
            purpose: TimerPurpose::HoldDue,
            revision,
            due_at: Micros(0),
        }
    }

    #[test]
    fn each_time_a_deadline_is_sent_the_pause_after_it_is_twice_as_long_up_to_an_end() {
        for (times, seconds) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (40, 300), (u32::MAX, 300)] {
            assert_eq!(pause(times), Duration::from_secs(seconds), "after {times} times");
        }
    }

    #[test]
    fn a_deadline_that_nobody_answers_is_sent_a_hundred_times_in_eight_hours_and_not_each_time() {
        let (mut sent, began) = (Sent::default(), Instant::now());
        let mut times = 0;
        for half_second in 0..8 * 3_600 * 2 {
            let now = began + Duration::from_millis(500 * half_second);
            let chosen = sent.choose(vec![timer(1, 0)], now);
            times += chosen.len();
            sent.note(chosen, now);
        }
        assert!((95..=110).contains(&times), "{times}");
    }

    #[test]
    fn what_was_dealt_with_is_forgotten_and_another_revision_is_another_deadline() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let mut steps = |due: &[(usize, i64)], chosen: &[(usize, i64)]| {
            let of = |them: &[(usize, i64)]| them.iter().map(|it| timer(it.0, it.1)).collect::<Vec<_>>();
            let found = sent.choose(of(due), now);
            assert_eq!(found, of(chosen), "{due:?}");
            sent.note(found, now);
            assert!(sent.0.len() <= due.len());
        };
        steps(&[(1, 0), (2, 0)], &[(1, 0), (2, 0)]);
        steps(&[(1, 0), (2, 0), (3, 0)], &[(3, 0)]);
        steps(&[(1, 1), (3, 0)], &[(1, 1)]);
        steps(&[], &[]);
        steps(&[(2, 0)], &[(2, 0)]);
    }

    #[test]
    fn what_was_not_sent_is_chosen_again_and_no_more_is_remembered_than_may_be() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let due: Vec<DueTimer> = (0..REMEMBERED + 50).map(|number| timer(number, 0)).collect();
        assert_eq!(sent.choose(due.clone(), now), sent.choose(due.clone(), now));
        loop {
            let chosen = sent.choose(due.clone(), now);
            assert!(chosen.len() <= AT_ONCE);
            if chosen.is_empty() {
                break;
            }
            sent.note(chosen, now);
        }
        assert_eq!(sent.0.len(), REMEMBERED);
        let rotated = [&due[REMEMBERED..], &due[..REMEMBERED]].concat();
        assert_eq!(sent.choose(rotated, now), [], "what is new is due before what is remembered");
        assert_eq!(sent.choose(due[1..].to_vec(), now), [due[REMEMBERED].clone()], "one was dealt with");
    }
}
