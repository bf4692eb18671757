//! Sends the made-up shop's orders without pause, by topic and by HTTP, each until it is accepted. What was accepted is
//! in the sender's own log, on the disk, before it counts.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use kept_runtime::{
    kafka::KafkaOutbox,
    log::{LogError, Outgoing},
    timers::Outbox,
};
use kept_schemas::{
    Codec, EventId, Headers, Micros, OrderId, Topic,
    inbound::{Inbound, InboundKind},
    inputs::{Condition, StockCounted, StockKind},
    own::{CancellationForm, OrderForm, PaymentForm},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::shop::{self, ACCOUNT, Made, SHOP, What};

const TICK: Duration = Duration::from_millis(100);
/// Between two tries of what was not taken.
const AGAIN: Duration = Duration::from_millis(250);
/// Orders that wait for HTTP; beyond that they go by topic.
const HTTP_QUEUE: usize = 2_000;
const HTTP_AT_ONCE: usize = 8;
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Of what is hard to get, and how often it comes.
const RECEIPT: i64 = 40;
const RECEIPT_EVERY: Duration = Duration::from_secs(10);

/// What was accepted, for those who watch.
#[derive(Default)]
pub struct Accepted {
    orders: Mutex<Vec<(Instant, OrderId, bool)>>,
    pub tries_again: AtomicU64,
}

impl Accepted {
    fn add(&self, order: OrderId, by_http: bool) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), order, by_http));
    }

    /// The first `most` orders accepted after `since`, of HTTP only or of any way.
    pub fn after(&self, since: Instant, most: usize, http: bool) -> Vec<OrderId> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let from = orders.partition_point(|it| it.0 <= since);
        orders[from..].iter().filter(|it| !http || it.2).take(most).map(|it| it.1).collect()
    }

    pub fn count(&self) -> usize {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn all(&self) -> Vec<OrderId> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|it| it.1).collect()
    }
}

/// The sender's own log.
pub struct SentLog(File);

impl SentLog {
    pub fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("sent-{name}.jsonl"));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self(file.with_context(|| format!("open {}", path.display()))?))
    }

    fn append(&mut self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.sync_data()).context("write the sender's log")
    }
}

/// What a sender is given.
pub struct Settings {
    pub seed: u64,
    pub per_second: u32,
    /// Where the HTTP API is, and the key to it.
    pub http: String,
    pub key: String,
}

/// Set from outside.
#[derive(Default)]
pub struct Flags {
    /// No order stays unpaid from now on: the end is near, and timers are to have fired by then.
    pub all_paid: AtomicBool,
    /// Finish what is begun, then end.
    pub stop: AtomicBool,
}

/// Sends until told to stop. By HTTP and by topic at the same time; neither waits for the other.
pub async fn send(
    settings: Settings,
    codec: Arc<Codec>,
    outbox: KafkaOutbox,
    logs: &Path,
    accepted: Arc<Accepted>,
    flags: Arc<Flags>,
) -> Result<()> {
    let (to_http, from_topic) = mpsc::channel(HTTP_QUEUE);
    let (base, key) = (settings.http.clone(), settings.key.clone());
    let http = by_http(&base, &key, SentLog::open(logs, "chaos-http")?, from_topic, &accepted);
    let topic = by_topic(settings, codec, outbox, SentLog::open(logs, "chaos-topic")?, to_http, &accepted, &flags);
    tokio::try_join!(topic, http).map(|_| ())
}

/// One record for `channels.inbound`.
pub fn inbound(codec: &Codec, kind: InboundKind, number: &str, order: OrderId, body: &[u8]) -> Result<Outgoing> {
    let format = match kind {
        InboundKind::Payment => PaymentForm::FORMAT,
        InboundKind::Cancellation => CancellationForm::FORMAT,
        _ => OrderForm::FORMAT,
    };
    let value = Inbound {
        account: ACCOUNT.into(),
        kind,
        format: format.into(),
        shop: SHOP.into(),
        external_id: number.into(),
        source_version: None,
        received_at: now(),
        body: body.to_vec(),
    };
    let headers = Headers {
        event_id: Some(EventId::of_input(ACCOUNT, number, &Sha256::digest(body))),
        subject: Some(Topic::ChannelsInbound.subject().into()),
        ..Default::default()
    };
    let wire = codec.encode(&value).context("encode an order")?;
    Ok(Outgoing::new(Topic::ChannelsInbound, &order.to_string(), &wire, headers))
}

/// Sends records until they are stored.
pub async fn store(outbox: &mut KafkaOutbox, outgoing: Vec<Outgoing>, tries_again: &AtomicU64) -> Result<()> {
    loop {
        match outbox.send(outgoing.clone()).await {
            Ok(()) => return Ok(()),
            Err(LogError::Stop(why)) => bail!("orders cannot be sent: {why}"),
            Err(LogError::Retry(_)) => {
                tries_again.fetch_add(1, Relaxed);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Puts an order on its topic, and into the log.
pub async fn send_one(
    outbox: &mut KafkaOutbox,
    codec: &Codec,
    log: &mut SentLog,
    made: &Made,
    accepted: &Accepted,
) -> Result<()> {
    let record = inbound(codec, InboundKind::Order, &made.number, made.order_id, &made.body)?;
    store(outbox, vec![record], &accepted.tries_again).await?;
    log.append(&[order_line(made)])?;
    accepted.add(made.order_id, false);
    Ok(())
}

/// What is on the shelves at first: plenty, but for what is hard to get.
pub fn first_stock(codec: &Codec) -> Result<Vec<Outgoing>> {
    let mut records = Vec::new();
    for (sku, scarce) in shop::skus() {
        for location in shop::LOCATIONS {
            let quantity = if scarce { RECEIPT } else { 1_000_000 };
            records.push(stock(codec, &sku, location, StockKind::Count, quantity, "first")?);
        }
    }
    Ok(records)
}

fn stock(codec: &Codec, sku: &str, location: &str, kind: StockKind, quantity: i64, id: &str) -> Result<Outgoing> {
    let value = StockCounted {
        sku: sku.into(),
        location_id: location.into(),
        condition: Condition::Sellable,
        count_id: format!("{id}-{sku}-{location}"),
        kind,
        quantity,
        at: now(),
        source: "simulator".into(),
    };
    let headers = Headers {
        event_id: Some(EventId::of_input("simulator", &value.count_id, b"")),
        subject: Some(Topic::StockCounted.subject().into()),
        ..Default::default()
    };
    let wire = codec.encode(&value).context("encode a count")?;
    Ok(Outgoing::new(Topic::StockCounted, sku, &wire, headers))
}

async fn by_topic(
    settings: Settings,
    codec: Arc<Codec>,
    mut outbox: KafkaOutbox,
    mut log: SentLog,
    to_http: mpsc::Sender<Made>,
    accepted: &Accepted,
    flags: &Flags,
) -> Result<()> {
    let mut later: BTreeMap<(Instant, u64, usize), (Made, What)> = BTreeMap::new();
    let (mut n, mut receipts) = (0u64, 0u64);
    let mut receipt_at = Instant::now() + RECEIPT_EVERY;
    let mut owed = 0.0;
    let mut ticks = tokio::time::interval(TICK);
    // After a fault the rate is kept, not caught up with.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stopping = flags.stop.load(Relaxed);
        let mut records = Vec::new();
        let mut lines = Vec::new();
        let mut orders = Vec::new();
        if !stopping {
            owed += f64::from(settings.per_second) * TICK.as_secs_f64();
        }
        while owed >= 1.0 && !stopping {
            owed -= 1.0;
            let made = shop::order(settings.seed, n, now(), !flags.all_paid.load(Relaxed));
            for (at, it) in made.follow_ups.iter().enumerate() {
                let due = Instant::now() + Duration::from_millis(it.after_ms);
                later.insert((due, n, at), (made.clone(), it.what.clone()));
            }
            n += 1;
            let made = match made.by_http {
                true => match to_http.try_send(made) {
                    Ok(()) => continue,
                    Err(back) => back.into_inner(),
                },
                false => made,
            };
            records.push(inbound(&codec, InboundKind::Order, &made.number, made.order_id, &made.body)?);
            lines.push(order_line(&made));
            orders.push(made.order_id);
        }
        // At the end, what is still to follow follows at once.
        while let Some(entry) = later.first_entry()
            && (entry.key().0 <= Instant::now() || stopping)
        {
            let (made, what) = entry.remove();
            let (kind, body, name) = match &what {
                What::Again => (InboundKind::Order, &made.body, "order"),
                What::Payment(body) => (InboundKind::Payment, body, "payment"),
                What::Cancellation(body) => (InboundKind::Cancellation, body, "cancellation"),
            };
            records.push(inbound(&codec, kind, &made.number, made.order_id, body)?);
            if what != What::Again {
                lines.push(line(&made, name, body));
            }
        }
        if Instant::now() >= receipt_at && !stopping {
            receipt_at = Instant::now() + RECEIPT_EVERY;
            receipts += 1;
            for product in 0..shop::SCARCE {
                let id = format!("receipt-{receipts}");
                records.push(stock(&codec, &shop::sku(product), shop::LOCATIONS[0], StockKind::Receipt, RECEIPT, &id)?);
            }
        }
        if !records.is_empty() {
            store(&mut outbox, records, &accepted.tries_again).await?;
            log.append(&lines)?;
            orders.into_iter().for_each(|order| accepted.add(order, false));
        }
        if stopping {
            // Dropping the way to HTTP ends that, too, once its queue is empty.
            return Ok(());
        }
    }
}

async fn by_http(
    base: &str,
    key: &str,
    mut log: SentLog,
    mut orders: mpsc::Receiver<Made>,
    accepted: &Accepted,
) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(HTTP_TIMEOUT).build().context("make an HTTP client")?;
    let mut some = Vec::new();
    while orders.recv_many(&mut some, HTTP_AT_ONCE).await > 0 {
        let mut sent = tokio::task::JoinSet::new();
        for made in some.drain(..) {
            let request = client
                .post(format!("{base}/v1/orders"))
                .bearer_auth(key)
                .header("idempotency-key", &made.number)
                .header("content-type", "application/json")
                .body(made.body.clone());
            sent.spawn(async move { (post(request).await, made) });
        }
        let mut lines = Vec::new();
        let mut taken = Vec::new();
        while let Some(one) = sent.join_next().await {
            let (tries, made) = one.context("send an order by HTTP")?;
            accepted.tries_again.fetch_add(tries?, Relaxed);
            lines.push(order_line(&made));
            taken.push(made.order_id);
        }
        log.append(&lines)?;
        taken.into_iter().for_each(|order| accepted.add(order, true));
    }
    Ok(())
}

/// Tries until it is accepted; gives how often it had to be tried again. A refusal is a fault: every order is one.
async fn post(request: reqwest::RequestBuilder) -> Result<u64> {
    let mut again = 0;
    loop {
        let one = request.try_clone().context("a request that can be sent again")?;
        match one.send().await {
            Ok(answer) if answer.status().as_u16() == 202 => return Ok(again),
            // 409: the first try under the same key is still being worked on. 429: too much at once.
            Ok(answer) if answer.status().is_client_error() && ![408, 409, 429].contains(&answer.status().as_u16()) => {
                let status = answer.status();
                bail!("the API refused an order with {status}: {}", answer.text().await.unwrap_or_default());
            }
            Ok(_) | Err(_) => {
                again += 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn order_line(made: &Made) -> String {
    json!({
        "order_id": made.order_id, "shop": SHOP, "number": made.number, "kind": "order",
        "body_sha256": hex(&made.body), "accepted": true, "lines": made.lines, "units": made.units,
        "total_minor": made.total_minor,
    })
    .to_string()
}

fn line(made: &Made, kind: &str, body: &[u8]) -> String {
    json!({
        "order_id": made.order_id, "shop": SHOP, "number": made.number, "kind": kind, "body_sha256": hex(body),
        "accepted": true,
    })
    .to_string()
}

fn hex(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in hex, as account keys are stored.
pub fn key_hash(key: &str) -> String {
    hex(key.as_bytes())
}

pub fn now() -> Micros {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
    Micros(i64::try_from(micros).unwrap_or(i64::MAX))
}
