//! The schema registry (Confluent's API): which id today's schemas have, and which schema an id means.
//!
//! An id is looked up once and then known for good. Texts are kept in Postgres too, and there first: a registry that
//! was lost and made anew may give an old id to another schema, and what was written with it must still be read as it
//! was written.

use std::{
    collections::BTreeMap,
    error::Error as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use kept_schemas::{Codec, Topic};
use kept_store::{
    Prefix,
    pg::{Purpose, connect},
    schemas,
};
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_schema_by_id, is_compatible_schema, perform_sr_call, post_schema},
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SrCall, SuppliedSchema},
};
use thiserror::Error;

use crate::{
    config::{Config, Secret},
    schemas::{RegistryDown, Schemas},
};

/// One question to the registry. A busy one (its database writes, it collects garbage) takes seconds; one that is not
/// there says so at once.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Slower than this is not well.
const SOON: Duration = Duration::from_secs(5);
/// An id that the registry does not have is not asked for again so soon: a flood of bad records is not a flood of
/// questions.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// So many of them are remembered.
const UNKNOWN_IDS: usize = 10_000;

/// Why the registry is of no use now.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RegistryError {
    #[error("schema registry does not answer: {0}")]
    Down(String),
    #[error("the schema of {} is not registered; run `kept topics apply`", .0.join(", "))]
    NotRegistered(Vec<String>),
    /// What it said.
    #[error("schema registry: {0}")]
    Refused(String),
    #[error("schema {subject} cannot be registered: {answer}")]
    Incompatible { subject: String, answer: String },
    /// A person must look.
    #[error("{0}")]
    Stop(String),
}

/// The registry. Cheap to clone; all clones know what one learned.
#[derive(Clone)]
pub struct Registry {
    url: String,
    prefix: Prefix,
    postgres: Secret,
    settings: SrSettings,
    http: reqwest::Client,
    known: Arc<Known>,
}

#[derive(Default)]
struct Known {
    codec: RwLock<Arc<Codec>>,
    /// Ids that nobody knows, and when that was asked.
    unknown: Mutex<BTreeMap<u32, Instant>>,
}

impl Registry {
    /// Connects and looks up the ids of today's schemas.
    ///
    /// # Errors
    /// `NotRegistered` names those that are not there.
    pub async fn open(config: &Config) -> Result<Self, RegistryError> {
        let registry = Self::client(config)?;
        registry.look_up_all(config).await?;
        Ok(registry)
    }

    /// A client that knows nothing yet, for `kept topics apply`.
    ///
    /// # Errors
    /// Only when an HTTP client cannot be made.
    pub fn client(config: &Config) -> Result<Self, RegistryError> {
        install_tls();
        let broken = |error: String| RegistryError::Stop(format!("no HTTP client can be made: {error}"));
        let settings = SrSettings::new_builder(config.registry.clone())
            .no_proxy()
            .set_timeout(TIMEOUT)
            .build()
            .map_err(|error| broken(error.error))?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            url: config.registry.clone(),
            prefix: config.store_prefix(),
            postgres: config.postgres.clone(),
            settings,
            http,
            known: Arc::default(),
        })
    }

    /// Learns the id of every topic's schema.
    async fn look_up_all(&self, config: &Config) -> Result<(), RegistryError> {
        let mut asking = tokio::task::JoinSet::new();
        for &topic in Topic::ALL {
            let (registry, subject) = (self.clone(), config.subject(topic));
            asking.spawn(async move { (topic, registry.id_of(&subject, topic.schema_text()).await) });
        }
        let mut codec = Codec::default();
        let mut missing = Vec::new();
        while let Some(answer) = asking.join_next().await {
            let (topic, id) = answer.map_err(|error| RegistryError::Stop(format!("a question broke off: {error}")))?;
            match id? {
                Some(id) => codec.register(topic, id).map_err(|error| RegistryError::Stop(error.to_string()))?,
                None => missing.push(topic.name().to_owned()),
            }
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            return Err(RegistryError::NotRegistered(missing));
        }
        *self.known.codec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(codec);
        Ok(())
    }

    /// Everything known so far.
    pub fn codec(&self) -> Arc<Codec> {
        Arc::clone(&self.known.codec.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// True when the registry answers soon.
    pub async fn answers(&self) -> bool {
        match self.http.get(format!("{}/config", self.url)).timeout(SOON).send().await {
            Ok(answer) => answer.status().is_success(),
            Err(_) => false,
        }
    }

    /// The id that `text` is registered as under `subject`.
    ///
    /// # Errors
    /// As the registry answers.
    pub async fn id_of(&self, subject: &str, text: &str) -> Result<Option<u32>, RegistryError> {
        let body = serde_json::json!({ "schemaType": "AVRO", "schema": text }).to_string();
        match perform_sr_call(&self.settings, SrCall::PostForVersion(subject, &body)).await {
            Ok(found) => {
                found.id.map(Some).ok_or_else(|| RegistryError::Refused(format!("its answer for {subject} has no id")))
            }
            Err(error) => match judge(error) {
                Judged::NotThere => Ok(None),
                Judged::Down(why) => Err(RegistryError::Down(why)),
                Judged::Refused(why) => Err(RegistryError::Refused(format!("{subject}: {why}"))),
            },
        }
    }

    /// The newest schema registered under `subject`.
    ///
    /// # Errors
    /// As the registry answers.
    pub async fn latest(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        match perform_sr_call(&self.settings, SrCall::GetLatest(subject)).await {
            Ok(found) => Ok(found.schema),
            Err(error) => match judge(error) {
                Judged::NotThere => Ok(None),
                Judged::Down(why) => Err(RegistryError::Down(why)),
                Judged::Refused(why) => Err(RegistryError::Refused(format!("{subject}: {why}"))),
            },
        }
    }

    /// True when the registry has a schema of this id.
    ///
    /// # Errors
    /// As the registry answers.
    pub async fn has(&self, id: u32) -> Result<bool, RegistryError> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(_) => Ok(true),
            Err(error) => match judge(error) {
                Judged::NotThere => Ok(false),
                Judged::Down(why) => Err(RegistryError::Down(why)),
                Judged::Refused(why) => Err(RegistryError::Refused(format!("schema id {id}: {why}"))),
            },
        }
    }

    /// True when `text` keeps the rule of `subject` against what is registered there.
    ///
    /// # Errors
    /// As the registry answers.
    pub async fn accepts(&self, subject: &str, text: &str) -> Result<bool, RegistryError> {
        let schema = SuppliedSchema::new(None, SchemaType::Avro, text.to_owned());
        match is_compatible_schema(&self.settings, subject.to_owned(), schema).await {
            Ok(accepts) => Ok(accepts),
            Err(error) => match judge(error) {
                Judged::NotThere => Ok(true),
                Judged::Down(why) => Err(RegistryError::Down(why)),
                Judged::Refused(why) => Err(RegistryError::Refused(format!("{subject}: {why}"))),
            },
        }
    }

    /// Registers `text` under `subject`; what is registered already keeps its id.
    ///
    /// # Errors
    /// `Incompatible` with the registry's own answer.
    pub async fn register(&self, subject: &str, text: &str) -> Result<u32, RegistryError> {
        let schema = SuppliedSchema::new(None, SchemaType::Avro, text.to_owned());
        match post_schema(&self.settings, subject.to_owned(), schema).await {
            Ok(registered) => Ok(registered.id),
            Err(error) => match judge(error) {
                Judged::Down(why) => Err(RegistryError::Down(why)),
                Judged::NotThere => Err(RegistryError::Refused(format!("{subject}: it has no such subject"))),
                Judged::Refused(answer) => Err(RegistryError::Incompatible { subject: subject.to_owned(), answer }),
            },
        }
    }

    /// The rule that new versions of `subject` must keep; `None`: the registry's own.
    ///
    /// # Errors
    /// As the registry answers.
    pub async fn compatibility(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        let answer = self.http.get(self.rule_of(subject)).send().await.map_err(|error| down(&error))?;
        match answer.status().as_u16() {
            404 => return Ok(None),
            200 => {}
            status => return Err(status_error(subject, status)),
        }
        let answer: serde_json::Value = answer.json().await.map_err(|error| down(&error))?;
        Ok(answer["compatibilityLevel"].as_str().map(str::to_owned))
    }

    /// Sets that rule.
    ///
    /// # Errors
    /// As the registry answers.
    pub async fn set_compatibility(&self, subject: &str, rule: &str) -> Result<(), RegistryError> {
        let answer = self
            .http
            .put(self.rule_of(subject))
            .header("Content-Type", "application/vnd.schemaregistry.v1+json")
            .body(serde_json::json!({ "compatibility": rule }).to_string())
            .send()
            .await
            .map_err(|error| down(&error))?;
        let status = answer.status().as_u16();
        if status == 200 { Ok(()) } else { Err(status_error(subject, status)) }
    }

    fn rule_of(&self, subject: &str) -> String {
        format!("{}/config/{subject}", self.url)
    }

    /// The text of `id`: as it was kept, else as the registry has it.
    async fn text_of(&self, id: u32) -> Result<Option<String>, RegistryDown> {
        let lost = |error: kept_store::StoreError| RegistryDown(format!("the texts kept beside it: {error}"));
        let client = connect(self.postgres.expose(), &self.prefix.ledger(), Purpose::Command).await.map_err(lost)?;
        if let Some(text) = schemas::kept(&client, id).await.map_err(lost)? {
            return Ok(Some(text));
        }
        match get_schema_by_id(id, &self.settings).await {
            Ok(found) if found.schema_type == SchemaType::Avro => {
                let subject = found.subject.unwrap_or_default();
                schemas::keep(&client, id, &subject, &found.schema).await.map(Some).map_err(lost)
            }
            // It is no schema that we could read.
            Ok(_) => Ok(None),
            Err(error) => match judge(error) {
                Judged::NotThere => Ok(None),
                Judged::Down(why) | Judged::Refused(why) => Err(RegistryDown(why)),
            },
        }
    }

    fn is_unknown(&self, id: u32) -> bool {
        let unknown = self.known.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.get(&id).is_some_and(|asked| asked.elapsed() < UNKNOWN_FOR)
    }

    fn remember_unknown(&self, id: u32) {
        let mut unknown = self.known.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= UNKNOWN_IDS {
            unknown.clear();
        }
        unknown.insert(id, Instant::now());
    }
}

impl Schemas for Registry {
    fn codec(&self) -> Arc<Codec> {
        Registry::codec(self)
    }

    async fn ensure(&self, id: u32) -> Result<bool, RegistryDown> {
        if self.codec().knows(id) {
            return Ok(true);
        }
        if self.is_unknown(id) {
            return Ok(false);
        }
        let Some(text) = self.text_of(id).await? else {
            self.remember_unknown(id);
            return Ok(false);
        };
        let mut guard = self.known.codec.write().unwrap_or_else(PoisonError::into_inner);
        if guard.knows(id) {
            return Ok(true);
        }
        let mut codec = Codec::clone(&guard);
        match codec.learn(id, &text) {
            Ok(()) => {
                *guard = Arc::new(codec);
                Ok(true)
            }
            Err(error) => {
                tracing::error!(id, %error, "a registered schema cannot be read");
                drop(guard);
                self.remember_unknown(id);
                Ok(false)
            }
        }
    }
}

/// One HTTP client's TLS for the whole process; the first one to ask installs it.
fn install_tls() {
    // An error says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

enum Judged {
    NotThere,
    Down(String),
    Refused(String),
}

fn judge(error: SRCError) -> Judged {
    let Some(answer) = error.source().and_then(|source| source.downcast_ref::<RawError>()) else {
        let why = error.source().and_then(|it| it.downcast_ref::<reqwest::Error>()).map(kind);
        return match why {
            Some(why) => Judged::Down(why),
            None => Judged::Refused(error.error),
        };
    };
    let server_fault = [" 500", " 502", " 503", " 504"].iter().any(|status| error.error.contains(status));
    match answer.error_code {
        404 | 40401..=40499 => Judged::NotThere,
        _ if error.retriable || server_fault => Judged::Down(error.error),
        0 => Judged::Refused(error.error),
        _ => Judged::Refused(answer.message.clone()),
    }
}

/// What went wrong with a request, without its address.
fn kind(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        format!("no answer within {} s", TIMEOUT.as_secs())
    } else if error.is_connect() {
        "no connection".into()
    } else {
        "its answer is not one".into()
    }
}

fn down(error: &reqwest::Error) -> RegistryError {
    RegistryError::Down(kind(error))
}

fn status_error(subject: &str, status: u16) -> RegistryError {
    match status {
        500.. | 429 => RegistryError::Down(format!("status {status}")),
        _ => RegistryError::Refused(format!("{subject}: status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    fn config(registry: &str) -> Config {
        Config { registry: registry.into(), ..crate::config::tests::bare() }
    }

    /// A registry that gives one answer to everything.
    fn answering(status: &'static str, body: &'static str) -> String {
        answering_after(Duration::ZERO, status, body)
    }

    fn answering_after(pause: Duration, status: &'static str, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                // Until the whole body is here: closing earlier would reset the connection.
                loop {
                    let read = stream.read(&mut piece).expect("a request");
                    request.extend_from_slice(&piece[..read]);
                    let text = String::from_utf8_lossy(&request).to_lowercase();
                    let Some(head) = text.find("\r\n\r\n") else { continue };
                    let length = text
                        .split("content-length: ")
                        .nth(1)
                        .map_or(0, |it| it.split("\r\n").next().expect("a line").parse::<usize>().expect("a number"));
                    if read == 0 || request.len() >= head + 4 + length {
                        break;
                    }
                }
                std::thread::sleep(pause);
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).expect("answered");
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn what_is_not_registered_is_named_with_the_way_out() {
        let url = answering("404 Not Found", r#"{"error_code":40401,"message":"Subject not found."}"#);
        let Err(error) = Registry::open(&config(&url)).await else { panic!("refused") };
        let text = error.to_string();
        assert!(text.contains("orders.held") && text.contains("kept topics apply"), "{text}");
    }

    #[tokio::test]
    async fn a_registry_that_is_away_or_broken_is_down_and_not_without_schemas() {
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
        let closed = format!("http://{}", nobody.local_addr().expect("bound"));
        drop(nobody);
        for url in [closed, answering("503 Service Unavailable", "{}"), answering("500 Oops", "not json")] {
            let Err(error) = Registry::open(&config(&url)).await else { panic!("refused") };
            assert!(matches!(error, RegistryError::Down(_)), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn a_busy_registry_is_waited_for() {
        let url = answering_after(Duration::from_secs(6), "200 OK", r#"{"id":7}"#);
        let id = Registry::client(&config(&url)).expect("a client").register("s", "{}").await;
        assert_eq!(id, Ok(7));
    }

    #[tokio::test]
    async fn an_incompatible_schema_is_refused_in_the_registrys_own_words() {
        let url = answering("409 Conflict", r#"{"error_code":409,"message":"incompatible: b at /fields/1"}"#);
        let error = Registry::client(&config(&url)).expect("a client").register("s", "{}").await.expect_err("refused");
        assert_eq!(
            error,
            RegistryError::Incompatible { subject: "s".into(), answer: "incompatible: b at /fields/1".into() }
        );
    }

    #[tokio::test]
    async fn without_the_kept_texts_no_record_is_called_unreadable() {
        let url = answering("404 Not Found", r#"{"error_code":40403,"message":"Schema not found."}"#);
        let registry = Registry::client(&config(&url)).expect("a client");
        let error = registry.ensure(77).await.expect_err("postgres is away");
        assert!(error.to_string().contains("texts kept"), "{error}");
    }
}
