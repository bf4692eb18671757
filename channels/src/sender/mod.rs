//! Sends orders, payments and cancellations by HTTP and by topic until each is accepted: the import's sending half, and
//! the load of demo, bench and chaos. Servers may be down under way; a try is repeated, and repeats are harmless.
//!
//! Every try and every acceptance is in the sender's own log, on disk, before it is told.

mod http;
mod item;
mod topic;

use std::{
    io,
    time::{Duration, Instant},
};

use kept_runtime::{
    log::{LogError, Outgoing},
    timers::Outbox,
};
use kept_schemas::{Codec, CodecError};
use serde::Serialize;
use thiserror::Error;

pub use self::{
    http::Http,
    item::{Item, Way},
    topic::{ToSend, to_send},
};
use crate::sent_log::{Sent, SentLog};

/// Why sending cannot go on. What was accepted is in the sender's log.
#[derive(Debug, Error)]
pub enum SendError {
    #[error("not accepted within {0:?}: {1}")]
    GaveUp(Duration, String),
    #[error("{0}")]
    Stop(String),
    #[error("the sender's log {0} cannot be written ({1}); what was sent last is not in it")]
    Log(String, #[source] io::Error),
    #[error("order {0} cannot be written as a record: {1}")]
    Record(String, #[source] CodecError),
    #[error("an item is for HTTP, but no address was given")]
    NoHttp,
}

/// How a sender behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// How long one thing is tried before giving up.
    pub patience: Duration,
    /// How many things are tried at once by HTTP.
    pub at_once: usize,
    /// The most things that are on their way and not yet in the log as accepted.
    pub chunk: usize,
    /// Orders and all else a second; `None`: as fast as they are taken.
    pub per_second: Option<u32>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { patience: Duration::from_secs(300), at_once: 32, chunk: 1_000, per_second: None }
    }
}

/// How far sending has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sendings {
    pub orders: u64,
    pub payments: u64,
    pub cancellations: u64,
    pub by_http: u64,
    pub by_topic: u64,
    /// Turned away with a reason; never sent again.
    pub refused: u64,
    /// The first refusals: order number and the server's reason.
    pub refusals: Vec<(String, String)>,
    /// Tries that failed and were repeated.
    pub repeated: u64,
}

impl Sendings {
    pub fn accepted(&self) -> u64 {
        self.orders + self.payments + self.cancellations
    }

    fn count(&mut self, sent: &Sent, by_http: bool) {
        match sent.kind.as_str() {
            "order" => self.orders += 1,
            "payment" => self.payments += 1,
            _ => self.cancellations += 1,
        }
        *(if by_http { &mut self.by_http } else { &mut self.by_topic }) += 1;
    }
}

/// Waits longer after each failure, and not for ever.
struct Tries {
    since: Instant,
    patience: Duration,
    wait: Duration,
}

impl Tries {
    fn new(patience: Duration) -> Self {
        Self { since: Instant::now(), patience, wait: Duration::from_millis(100) }
    }

    async fn again(&mut self, why: String) -> Result<(), SendError> {
        if self.since.elapsed() + self.wait > self.patience {
            return Err(SendError::GaveUp(self.patience, why));
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(Duration::from_secs(5));
        Ok(())
    }
}

/// Stores records, trying for as long as `patience` lasts; gives how often it had to try again. The whole batch goes
/// again after a failure: every record has its own event id, so a repeat is known as one.
pub async fn store<O: Outbox>(outbox: &mut O, outgoing: Vec<Outgoing>, patience: Duration) -> Result<u64, SendError> {
    let mut tries = Tries::new(patience);
    let mut repeated = 0;
    loop {
        match outbox.send(outgoing.clone()).await {
            Ok(()) => return Ok(repeated),
            Err(LogError::Stop(why)) => return Err(SendError::Stop(why)),
            Err(LogError::Retry(why)) => {
                repeated += 1;
                tries.again(why).await?;
            }
        }
    }
}

/// Sends by topic, and by HTTP when there is one.
pub struct Sender<O> {
    outbox: O,
    log: SentLog,
    http: Option<Http>,
    manners: Manners,
    sendings: Sendings,
}

impl<O: Outbox> Sender<O> {
    pub fn new(outbox: O, log: SentLog, http: Option<Http>, manners: Manners) -> Self {
        Self { outbox, log, http, manners, sendings: Sendings::default() }
    }

    /// What was sent so far.
    pub fn sendings(&self) -> &Sendings {
        &self.sendings
    }

    /// Sends finished records and returns when all are stored and in the log.
    pub async fn records(&mut self, records: Vec<ToSend>) -> Result<(), SendError> {
        self.intend(records.iter().map(|it| &it.sent))?;
        let (outgoing, sent): (Vec<_>, Vec<Sent>) = records.into_iter().map(|it| (it.outgoing, it.sent)).unzip();
        self.sendings.repeated += store(&mut self.outbox, outgoing, self.manners.patience).await?;
        self.accepted(&sent, false)
    }

    /// Sends items, each by its own way, until every one is accepted or refused; `progress` hears of each chunk.
    pub async fn items<E: Into<SendError>>(
        &mut self,
        codec: &Codec,
        items: impl IntoIterator<Item = Result<Item, E>>,
        mut progress: impl FnMut(&Sendings),
    ) -> Result<(), SendError> {
        let started = Instant::now();
        let mut done = 0u64;
        let chunk = match self.manners.per_second {
            // Ten times a second, so that a rate is a rate and not a burst.
            Some(rate) => (rate as usize / 10).clamp(1, self.manners.chunk),
            None => self.manners.chunk.max(1),
        };
        let mut items = items.into_iter();
        loop {
            let next: Result<Vec<Item>, E> = items.by_ref().take(chunk).collect();
            let next = next.map_err(Into::into)?;
            if next.is_empty() {
                return Ok(());
            }
            if let Some(rate) = self.manners.per_second {
                let due = Duration::from_secs_f64(done as f64 / f64::from(rate.max(1)));
                tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
            }
            done += next.len() as u64;
            self.chunk(codec, next).await?;
            progress(&self.sendings);
        }
    }

    async fn chunk(&mut self, codec: &Codec, items: Vec<Item>) -> Result<(), SendError> {
        let (by_http, by_topic): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|it| it.way == Way::Http);
        if !by_topic.is_empty() {
            let records: Result<Vec<ToSend>, SendError> = by_topic.iter().map(|it| topic::item(codec, it)).collect();
            self.records(records?).await?;
        }
        if !by_http.is_empty() {
            let Some(http) = self.http.clone() else { return Err(SendError::NoHttp) };
            let sent: Vec<Sent> = by_http.iter().map(Item::sent).collect();
            self.intend(&sent)?;
            let answers = http.send(by_http, self.manners).await?;
            self.sendings.repeated += answers.repeated;
            for (number, reason) in answers.refused {
                self.sendings.refused += 1;
                if self.sendings.refusals.len() < 20 {
                    self.sendings.refusals.push((number, reason));
                }
            }
            self.accepted(&answers.accepted, true)?;
        }
        Ok(())
    }

    fn intend<'a>(&mut self, sent: impl IntoIterator<Item = &'a Sent>) -> Result<(), SendError> {
        let tries: Vec<Sent> = sent.into_iter().map(|it| Sent { accepted: false, ..it.clone() }).collect();
        self.append(&tries)
    }

    fn accepted(&mut self, sent: &[Sent], by_http: bool) -> Result<(), SendError> {
        let done: Vec<Sent> = sent.iter().map(|it| Sent { accepted: true, ..it.clone() }).collect();
        self.append(&done)?;
        done.iter().for_each(|it| self.sendings.count(it, by_http));
        Ok(())
    }

    fn append(&mut self, lines: &[Sent]) -> Result<(), SendError> {
        let path = self.log.path().display().to_string();
        self.log.append(lines).map_err(|error| SendError::Log(path, error))
    }
}

#[cfg(test)]
mod tests;
