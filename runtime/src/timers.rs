//! The timer source: reads due timers, by Postgres's clock, and sends `deadlines.reached`, again and again until the
//! ledger clears them. Sending twice is harmless: the ledger acts once per event id, and a stale revision is a no-op.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kept_schemas::{EventId, Headers, Topic, inputs::DeadlineReached};
use kept_store::seam::{DueTimer, Timers};

use crate::{
    ledger_step::Stopped,
    log::{LogError, Outgoing},
    schemas::Schemas,
};

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
    while !stop.load(Ordering::Relaxed) {
        match timers.due(1_000).await {
            Ok(due) if due.is_empty() => {}
            Ok(due) => {
                let codec = schemas.codec();
                let outgoing: Result<Vec<Outgoing>, String> = due.iter().map(|it| deadline(&codec, it)).collect();
                match outbox.send(outgoing.map_err(stopped)?).await {
                    Ok(()) => {}
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
        subject: Some(Topic::DeadlinesReached.subject()),
        step: Some("timers".into()),
        ..Default::default()
    };
    Ok(Outgoing::new(Topic::DeadlinesReached, &timer.order_id.to_string(), &wire, headers))
}
