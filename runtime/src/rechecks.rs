//! A product that arrives lets the orders go on that were held because nobody knew it: each gets a command to be
//! checked again. The same order, SKU and version of the product is the same command, however often it is sent; only
//! where those checks were made by a process that had not heard of the product yet, the next ones are another command.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use kept_schemas::{
    Codec, EventId, Headers, Micros, Topic,
    inputs::{CommandKind, CommandReceived},
};
use kept_store::{
    Client,
    pg::{Purpose, connect},
    reference::{Recheck, held_for, settled, unaware, unknown_skus},
    seam::LedgerError,
};

use crate::{
    config::Config,
    ledger_step::Stopped,
    log::{LogError, Outgoing},
    reference::ReferenceData,
    schemas::Schemas,
    timers::Outbox,
};

/// A product is in every process's memory after this long.
const SETTLED_SECONDS: i32 = 3;
/// Looked at so often without a new product.
const AGAIN: Duration = Duration::from_secs(60);
/// Orders looked at in one go.
const LIMIT: usize = 5_000;
/// Most commands remembered as sent.
const REMEMBERED: usize = 200_000;

/// Looks for orders to check again, `every` so often once products change, until told to stop.
///
/// # Errors
/// When going on would be wrong.
pub async fn run<O: Outbox, C: Schemas>(
    config: &Config,
    reference: &ReferenceData,
    outbox: &mut O,
    schemas: &C,
    every: Duration,
    stop: &AtomicBool,
) -> Result<(), Stopped> {
    let stopped = |reason: String| Stopped { step: "timers".into(), reason };
    let mut sessions: Option<Sessions> = None;
    let mut sent: BTreeSet<Recheck> = BTreeSet::new();
    // Products that came while nobody looked count too; so the first look is not waited for.
    let mut looked_at = None;
    let mut looked = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(every).await;
        let version = reference.snapshot().versions.get(&Topic::ReferenceProducts).copied();
        // An order on its way when its product came is held after that; so now and then all are looked at.
        if version == looked_at && looked.elapsed() < AGAIN {
            continue;
        }
        let waited = Duration::from_secs(u64::try_from(SETTLED_SECONDS).unwrap_or(0) + 1);
        // The newest product must be settled too when we look; else its orders would wait for the next one.
        if !sleep_unless(stop, waited).await {
            break;
        }
        looked = Instant::now();
        let found = match look(config, reference, &sent, &mut sessions).await {
            Ok(found) => found,
            Err(LedgerError::Stop(why)) => return Err(stopped(why)),
            Err(error) => {
                tracing::warn!(%error, "orders to check again cannot be read yet");
                sessions = None;
                continue;
            }
        };
        let Found { new, all } = found;
        let codec = schemas.codec();
        if new.is_empty() {
            looked_at = version;
            continue;
        }
        let outgoing: Result<Vec<Outgoing>, String> = new.iter().map(|it| command(&codec, it)).collect();
        match outbox.send(outgoing.map_err(stopped)?).await {
            Ok(()) => {
                tracing::info!(orders = new.len(), "products arrived; orders that waited for them are checked again");
                if sent.len() > REMEMBERED {
                    sent.clear();
                }
                sent.extend(new);
                // More than fit into one look: look again at once.
                looked_at = if all { version } else { None };
            }
            Err(LogError::Retry(why)) => tracing::warn!(why, "orders are checked again later"),
            Err(LogError::Stop(why)) => return Err(stopped(why)),
        }
    }
    Ok(())
}

/// False: told to stop.
async fn sleep_unless(stop: &AtomicBool, time: Duration) -> bool {
    let mut left = time;
    while !left.is_zero() {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let piece = left.min(Duration::from_millis(200));
        tokio::time::sleep(piece).await;
        left -= piece;
    }
    true
}

/// Sessions on the ledger and on the read model.
struct Sessions {
    ledger: Client,
    read: Client,
}

/// Orders to check again that were not sent yet, and whether these are all.
struct Found {
    new: Vec<Recheck>,
    all: bool,
}

async fn look(
    config: &Config,
    reference: &ReferenceData,
    sent: &BTreeSet<Recheck>,
    sessions: &mut Option<Sessions>,
) -> Result<Found, LedgerError> {
    let Sessions { ledger, read } = match sessions {
        Some(sessions) => sessions,
        none => {
            let prefix = config.store_prefix();
            let ledger = connect(config.postgres.expose(), &prefix.ledger(), Purpose::Command).await?;
            let read = connect(config.read_url(), &prefix.read(), Purpose::Command).await?;
            none.insert(Sessions { ledger, read })
        }
    };
    let mut skus = unknown_skus(read).await?;
    let snapshot = reference.snapshot();
    skus.retain(|sku| snapshot.products.get(sku).is_some_and(|product| product.active));
    if skus.is_empty() {
        return Ok(Found { new: Vec::new(), all: true });
    }
    let versions = settled(ledger, &skus, SETTLED_SECONDS).await?;
    let mut found = Found { new: Vec::new(), all: false };
    let mut last: Option<Recheck> = None;
    while !found.all && found.new.len() < LIMIT {
        let limit = i64::try_from(LIMIT).unwrap_or(i64::MAX);
        let mut held = held_for(read, &versions, last.as_ref(), limit).await?;
        unaware(ledger, &mut held).await?;
        found.all = held.len() < LIMIT;
        last = held.last().cloned();
        found.new.extend(held.into_iter().filter(|it| !sent.contains(it)));
    }
    Ok(found)
}

fn command(codec: &Codec, it: &Recheck) -> Result<Outgoing, String> {
    let command_id = match it.checked {
        None => format!("sku-arrived/{}/{}", it.sku, it.version),
        Some(revision) => format!("sku-arrived/{}/{}/{revision}", it.sku, it.version),
    };
    let value = CommandReceived {
        order_id: it.order_id,
        command_id: command_id.clone(),
        kind: CommandKind::Recheck,
        by: "kept".into(),
        // The same command is the same bytes.
        at: Micros(0),
        reason: Some(format!("product {} arrived", it.sku)),
        ..CommandReceived::default()
    };
    let wire = codec.encode(&value).map_err(|error| error.to_string())?;
    let headers = Headers {
        event_id: Some(EventId::of_input("kept", &it.order_id.to_string(), command_id.as_bytes())),
        subject: Some(Topic::CommandsReceived.subject().into()),
        step: Some("timers".into()),
        ..Headers::default()
    };
    Ok(Outgoing::new(Topic::CommandsReceived, &it.order_id.to_string(), &wire, headers))
}

#[cfg(test)]
mod tests {
    use kept_schemas::{OrderId, codec::offline};

    use super::*;

    #[test]
    fn the_same_product_version_is_the_same_command_unless_the_checks_since_then_did_not_know_it() {
        let codec = offline();
        let event = |version, checked| {
            let recheck = Recheck { order_id: OrderId::of("shop", "1"), sku: "A".into(), version, checked };
            command(&codec, &recheck).expect("made").headers.event_id
        };
        assert_eq!(event(1, None), event(1, None));
        assert_eq!(event(1, Some(1)), event(1, Some(1)));
        let different: BTreeSet<_> = [(1, None), (2, None), (1, Some(0)), (1, Some(1)), (2, Some(1))].into();
        assert_eq!(different.iter().map(|it| event(it.0, it.1)).collect::<BTreeSet<_>>().len(), different.len());
    }
}
