//! The door: who may come in, how much at once, and when a body counts as accepted. Which is: once it is durably in
//! `channels.inbound`, exactly as it came.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kept_processors::reference::Reference;
use kept_runtime::{
    counters::Http,
    kafka::KafkaOutbox,
    log::{LogError, Outgoing},
};
use kept_schemas::{
    Codec, CodecError, EventId, Headers, Micros, OrderId, Topic,
    inbound::{Inbound, InboundKind},
    own::MAX_BODY_BYTES,
    reference::Account,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    books::{Books, Boxed},
    problem::Problem,
};

/// Where records go: returns once all are stored by the broker.
pub trait Outbox: Send + Sync {
    fn send(&self, outgoing: Vec<Outgoing>) -> Boxed<'_, Result<(), LogError>>;
}

impl Outbox for KafkaOutbox {
    fn send(&self, outgoing: Vec<Outgoing>) -> Boxed<'_, Result<(), LogError>> {
        let mut own = self.clone();
        Box::pin(async move { kept_runtime::timers::Outbox::send(&mut own, outgoing).await })
    }
}

/// How much the door takes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one order, cancellation or payment.
    pub one_bytes: usize,
    /// Bytes of a request.
    pub body_bytes: usize,
    /// Orders in a batch.
    pub batch: usize,
    /// Requests worked on at once.
    pub at_once: usize,
    /// Bytes of bodies in memory at once.
    pub bytes_at_once: usize,
    /// A body must have arrived by then.
    pub body_time: Duration,
    /// The broker must have stored it by then.
    pub store_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            one_bytes: MAX_BODY_BYTES,
            body_bytes: 8_000_000,
            batch: 1_000,
            at_once: 256,
            bytes_at_once: 64_000_000,
            body_time: Duration::from_secs(20),
            store_time: Duration::from_secs(8),
        }
    }
}

/// Today's reference data.
pub type ReferenceNow = Box<dyn Fn() -> Arc<Reference> + Send + Sync>;
/// Today's schema ids.
pub type CodecNow = Box<dyn Fn() -> Arc<Codec> + Send + Sync>;

/// What requests are answered with.
pub struct Door {
    pub(super) reference: ReferenceNow,
    codec: CodecNow,
    outbox: Arc<dyn Outbox>,
    pub(super) books: Arc<dyn Books>,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Http>,
    clock: fn() -> Micros,
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// An answer that can be kept and given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub problem: bool,
    pub body: String,
}

impl Answer {
    pub fn json(status: StatusCode, location: Option<String>, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("texts and numbers are JSON");
        Self { status: status.as_u16(), location, problem: false, body }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        Self { status: problem.status().as_u16(), location: None, problem: true, body: problem.body() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let kind = if self.problem { "application/problem+json" } else { "application/json" };
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CONTENT_TYPE, kind)], self.body).into_response();
        let headers = response.headers_mut();
        if let Some(location) = self.location.and_then(|it| HeaderValue::try_from(it).ok()) {
            headers.insert(header::LOCATION, location);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

/// A body with its share of the memory.
pub struct Taken {
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Door {
    pub fn new(
        reference: ReferenceNow,
        codec: CodecNow,
        outbox: Arc<dyn Outbox>,
        books: Arc<dyn Books>,
        limits: Limits,
        counters: Arc<Http>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(limits.at_once));
        let room = Arc::new(Semaphore::new(kib(limits.bytes_at_once) as usize));
        Self { reference, codec, outbox, books, limits, counters, clock: now, slots, room }
    }

    /// A place among the requests worked on at once.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub fn slot(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| busy())
    }

    /// Reads a body of JSON, no further than the limit and not longer than the time allowed.
    ///
    /// # Errors
    /// 415, 413, 408, 503 when too many bytes are in memory, 400 when the connection broke.
    pub async fn take(&self, headers: &HeaderMap, body: Body) -> Result<Taken, Problem> {
        if !is_json(headers) {
            return Err(Problem::new("media-type", "send `Content-Type: application/json`"));
        }
        let most = self.limits.body_bytes;
        let too_large = || Problem::new("too-large", format!("a request has at most {most} bytes"));
        let hint = body.size_hint();
        if hint.lower() > most as u64 {
            return Err(too_large());
        }
        let expected = hint.upper().map_or(most, |upper| usize::try_from(upper).unwrap_or(most).min(most));
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib(expected)).map_err(|_| busy())?;
        let reading = read(body, most, expected);
        match tokio::time::timeout(self.limits.body_time, reading).await {
            Ok(Ok(Some(bytes))) => Ok(Taken { bytes, _room: room }),
            Ok(Ok(None)) => Err(too_large()),
            Ok(Err(())) => Err(Problem::new("bad-request", "the connection broke in the middle of the body")),
            Err(_) => {
                let seconds = self.limits.body_time.as_secs();
                Err(Problem::new("too-slow", format!("the body must arrive within {seconds} seconds")))
            }
        }
    }

    /// The record of a body for `channels.inbound`.
    ///
    /// # Errors
    /// 413 when the record would be larger than any may be; 503 when its schema is not known yet.
    pub fn inbound(
        &self,
        account: &Account,
        trace: &str,
        (kind, format): (InboundKind, &str),
        number: &str,
        body: &[u8],
    ) -> Result<(OrderId, Outgoing), Problem> {
        let order_id = OrderId::of(&account.shop, number);
        let value = Inbound {
            account: account.account_id.clone(),
            kind,
            format: format.to_owned(),
            shop: account.shop.clone(),
            external_id: number.to_owned(),
            source_version: None,
            received_at: (self.clock)(),
            body: body.to_vec(),
        };
        let wire = (self.codec)().encode(&value).map_err(|error| match error {
            CodecError::TooLarge(..) => {
                Problem::new("too-large", format!("one order has at most {} bytes", self.limits.one_bytes))
            }
            other => {
                tracing::error!(error = %other, "bodies cannot be encoded");
                Problem::new("not-stored", "the schema of the topic is not known; the merchant must look at this")
            }
        })?;
        let headers = Headers {
            event_id: Some(EventId::of_input(&account.account_id, number, &Sha256::digest(body))),
            traceparent: Some(trace.to_owned()),
            subject: Some(Topic::ChannelsInbound.subject().into()),
            step: Some("http".into()),
            ..Default::default()
        };
        Ok((order_id, Outgoing::new(Topic::ChannelsInbound, &order_id.to_string(), &wire, headers)))
    }

    /// Returns once the broker has stored all of it.
    ///
    /// # Errors
    /// 503 when it has not, or when nobody knows. Sending the same again is harmless either way.
    pub async fn store(&self, outgoing: Vec<Outgoing>) -> Result<(), Problem> {
        const AGAIN: &str = "send the same request again; what was stored already is recognised";
        match tokio::time::timeout(self.limits.store_time, self.outbox.send(outgoing)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a body was not stored");
                Err(Problem::new("not-stored", AGAIN))
            }
            Err(_) => {
                let seconds = self.limits.store_time.as_secs();
                tracing::warn!(seconds, "the broker did not store a body in time");
                Err(Problem::new("not-stored", AGAIN))
            }
        }
    }
}

fn busy() -> Problem {
    Problem::new("busy", "as many requests as can be are being worked on; try again shortly")
}

/// Bytes in KiB, rounded up.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

fn now() -> Micros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// `None`: there is more than `most`.
async fn read(mut body: Body, most: usize, expected: usize) -> Result<Option<Bytes>, ()> {
    let mut bytes = Vec::with_capacity(expected.min(64 * 1024));
    loop {
        let frame = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await;
        match frame {
            None => return Ok(Some(bytes.into())),
            Some(Err(_)) => return Err(()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > most {
                    return Ok(None);
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// `application/json` or `application/…+json`, in UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    let kind = parts.next().unwrap_or_default();
    let is_json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    is_json
        && parts
            .filter_map(|it| it.strip_prefix("charset=").map(str::to_owned))
            .all(|it| it.trim_matches('"') == "utf-8")
}

/// Says that an answer was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
