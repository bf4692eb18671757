//! Connections to Postgres: settings every session has, names, instants, and what an error means.
//!
//! Statements carry no schema name: a session's `search_path` is the one schema it works in, so SQL is constant
//! text and only values vary.

use std::{error::Error as _, time::Duration};

use bytes::BytesMut;
use kept_schemas::Micros;
use thiserror::Error;
use tokio_postgres::{
    Client, Config, NoTls,
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

use crate::seam::LedgerError;

/// A deployment's prefix: put before its schemas' names, so that several share a database. May be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefix(String);

impl Prefix {
    /// Checks a prefix: `[a-z0-9_]`, at most 40 characters, not beginning with a digit or `pg_`.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let starts_well = !text.starts_with(|first: char| first.is_ascii_digit()) && !text.starts_with("pg_");
        if plain && starts_well && text.len() <= 40 { Ok(Self(text.to_owned())) } else { Err(StoreError::Prefix) }
    }

    /// The schema of the ledger's tables.
    pub fn ledger(&self) -> Schema {
        Schema(format!("{}ledger", self.0))
    }

    /// The schema of the read model.
    pub fn read(&self) -> Schema {
        Schema(format!("{}read", self.0))
    }

    /// The schema a new read model is built in.
    pub fn read_new(&self) -> Schema {
        Schema(format!("{}read_new", self.0))
    }

    /// The schema of the read model before the last switch, until it is dropped.
    pub fn read_old(&self) -> Schema {
        Schema(format!("{}read_old", self.0))
    }
}

/// A schema's name; safe to stand in SQL as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(String);

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something could not be done in Postgres.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("prefix must be of a-z, 0-9 and _, at most 40 characters, and begin with neither a digit nor pg_")]
    Prefix,
    #[error("the address of postgres is not a URL that psql would take: {0}")]
    Address(String),
    #[error("postgres: {}", describe(.0))]
    Postgres(tokio_postgres::Error),
    #[error("postgres did not answer within {0} seconds")]
    Silent(u64),
    #[error("postgres is away: {0}")]
    Away(String),
    #[error("{0}")]
    Stop(String),
}

// By hand, for the message has the cause in it already.
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// A statement waits at most this long for a lock. With the time-outs below it bounds how long a batch can hold up
/// another one; the previous owner's backend is ended on take-over, which nothing but that reaches in every case.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that began a transaction and then says nothing is ended.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// Bytes not acknowledged by the other side for so long end the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Short transactions by key; plans never scan a table, whatever its statistics say.
    Ledger,
    /// The same, for the read model.
    Sink,
    /// Reads and work of people's commands; no limit on a statement's time.
    Command,
    /// Reads for pages and the HTTP API: nothing is written, and nothing runs long.
    Pages,
    /// What the HTTP door remembers: single rows by key.
    Door,
}

impl Purpose {
    /// The session's name in `pg_stat_activity`: what it is for, and the schema it works in.
    pub fn session(self, schema: &Schema) -> String {
        format!("{} {schema}", self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ledger => "kept ledger",
            Self::Sink => "kept sink",
            Self::Command => "kept",
            Self::Pages => "kept pages",
            Self::Door => "kept door",
        }
    }
}

/// Opens a session that works in `schema`. The connection's own task ends when the client is dropped.
///
/// # Errors
/// A URL that does not parse, a server that is not there within 5 s or refuses.
pub async fn connect(url: &str, schema: &Schema, purpose: Purpose) -> Result<Client, StoreError> {
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        StoreError::Address(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    })?;
    let mut options = config.get_options().unwrap_or_default().to_owned();
    let mut set = |name: &str, value: String| options.push_str(&format!(" -c {name}={value}"));
    set("search_path", schema.to_string());
    set("timezone", "UTC".into());
    set("tcp_user_timeout", TCP_USER_TIMEOUT.as_millis().to_string());
    if matches!(purpose, Purpose::Pages | Purpose::Door) {
        set("statement_timeout", "8000".into());
        set("lock_timeout", LOCK_TIMEOUT.as_millis().to_string());
    }
    if purpose == Purpose::Pages {
        set("default_transaction_read_only", "on".into());
    }
    if matches!(purpose, Purpose::Ledger | Purpose::Sink) {
        set("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION.as_millis().to_string());
        set("lock_timeout", LOCK_TIMEOUT.as_millis().to_string());
        set("statement_timeout", "30000".into());
        // Everything is read by key through arrays. A plan made while a table was young and small would scan it,
        // and stay until the next ANALYZE; so scans are out of the question and plans are made once.
        set("plan_cache_mode", "force_generic_plan".into());
        set("enable_seqscan", "off".into());
        set("enable_hashjoin", "off".into());
        set("enable_mergejoin", "off".into());
        set("jit", "off".into());
    }
    config
        .options(options)
        .application_name(purpose.session(schema))
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(3)
        .connect_timeout(CONNECT_TIMEOUT);
    let (client, connection) = tokio::time::timeout(2 * CONNECT_TIMEOUT, config.connect(NoTls))
        .await
        .map_err(|_| StoreError::Silent(2 * CONNECT_TIMEOUT.as_secs()))??;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever waits for an answer gets an error of their own; this line says why.
            tracing::debug!(purpose = purpose.name(), error = describe(&error), "postgres connection ended");
        }
    });
    Ok(client)
}

/// An error in one line, without the values of rows: the server's message and the constraint's name, never its
/// detail, which quotes keys.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => match (db.constraint(), db.table()) {
            (Some(constraint), Some(table)) => {
                format!("{} (constraint {constraint} of {table})", db.message())
            }
            _ => format!("{} ({})", db.message(), db.code().code()),
        },
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// What to do after an error, by its SQLSTATE (PostgreSQL 15, appendix A).
impl From<tokio_postgres::Error> for LedgerError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = describe(&error);
        let Some(code) = error.code() else {
            // Without a reply of the server's: the connection broke, or a value did not fit the protocol.
            let broken = error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>());
            return if broken { Self::Lost(text) } else { Self::Refused(text) };
        };
        match code.code() {
            // A plan that a migration under way made old; a new session plans anew.
            "0A000" => Self::Lost(text),
            "40001" | "40P01" => Self::Repeat(text),
            // A lock or a statement's time ran out, or the session was ended: somebody stands in the way or we are
            // thought dead. Reconnect and look who owns what.
            "55P03" | "57014" | "25P02" | "25P03" | "25006" => Self::Lost(text),
            code if code.starts_with("08") || code.starts_with("57P") => Self::Lost(text),
            // No memory, no disk, too many connections, the server's own trouble: not the record's fault.
            code if code.starts_with("53") || code.starts_with("58") => Self::Lost(text),
            code if code == SqlState::UNDEFINED_TABLE.code()
                || code == SqlState::UNDEFINED_COLUMN.code()
                || code == SqlState::INVALID_SCHEMA_NAME.code() =>
            {
                Self::Stop(format!("the tables are not those of this version; run `kept migrate`: {text}"))
            }
            code if code.starts_with("28")
                || code.starts_with("3D")
                || code.starts_with("42")
                || code.starts_with("XX") =>
            {
                Self::Stop(text)
            }
            _ => Self::Refused(text),
        }
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Postgres(error) => match error.code() {
                // A connection that is refused for a wrong password or a missing database will not get better.
                Some(_) => error.into(),
                None => Self::Lost(describe(&error)),
            },
            StoreError::Silent(_) | StoreError::Away(_) => Self::Lost(error.to_string()),
            StoreError::Prefix | StoreError::Address(_) | StoreError::Stop(_) => Self::Stop(error.to_string()),
        }
    }
}

/// An instant as a `timestamptz`. What Postgres cannot hold becomes its first or last instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub Micros);

/// 2000-01-01 in microseconds since 1970: where Postgres counts from.
const EPOCH_2000: i64 = 946_684_800_000_000;
/// 294276-12-31T23:59:59.999999Z and 4713-01-01 BC, from 2000.
const LAST: i64 = 9_223_371_331_199_999_999;
const FIRST: i64 = -211_810_204_800_000_000;

impl ToSql for At {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let since_2000 = self.0.0.saturating_sub(EPOCH_2000).clamp(FIRST, LAST);
        out.extend_from_slice(&since_2000.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for At {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let since_2000 = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(Micros(since_2000.saturating_add(EPOCH_2000))))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_could_break_out_of_a_name_is_refused() {
        for bad in ["a.b", "A", "a\"", "a b", "a;", "ä", "1a", "pg_x", &"a".repeat(41)] {
            assert!(Prefix::new(bad).is_err(), "{bad}");
        }
        for good in ["", "t1_", "shop_nl_"] {
            assert_eq!(Prefix::new(good).expect("a prefix").read().to_string(), format!("{good}read"));
        }
    }
}
