//! A session that is opened when it is needed and opened again when it broke, for pages and the HTTP door.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::pg::{Purpose, Schema, StoreError, connect};

/// After a failed attempt the next one waits this long; until then the answer is "away" at once, so that requests do
/// not queue behind a server that is not there.
const PAUSE: Duration = Duration::from_millis(500);

/// One session on one schema, shared by all who ask; statements of several callers are pipelined.
pub struct Session {
    url: String,
    schema: Schema,
    purpose: Purpose,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    client: Option<Arc<Client>>,
    failed: Option<(Instant, String)>,
}

impl Session {
    /// Nothing is opened yet.
    pub fn new(url: &str, schema: Schema, purpose: Purpose) -> Self {
        Self { url: url.to_owned(), schema, purpose, state: Mutex::default() }
    }

    /// The open session, or a new one.
    ///
    /// # Errors
    /// `Away` when the last attempt failed a moment ago; else what [`connect`] says.
    pub async fn client(&self) -> Result<Arc<Client>, StoreError> {
        let mut state = self.state.lock().await;
        if let Some(client) = &state.client
            && !client.is_closed()
        {
            return Ok(Arc::clone(client));
        }
        state.client = None;
        if let Some((at, why)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(StoreError::Away(why.clone()));
        }
        match connect(&self.url, &self.schema, self.purpose).await {
            Ok(client) => {
                let client = Arc::new(client);
                *state = State { client: Some(Arc::clone(&client)), failed: None };
                Ok(client)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Opens the session if need be, does `work` on it, and gives up after `limit`: a server that is stopped, not
    /// gone, answers nothing and closes nothing. The session is opened anew then.
    ///
    /// # Errors
    /// What the work says, `Away`, or `Silent` when time ran out.
    pub async fn within<T, F>(&self, limit: Duration, work: impl FnOnce(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let doing = async { work(self.client().await?).await };
        match tokio::time::timeout(limit, doing).await {
            Ok(done) => done,
            Err(_) => {
                // Whoever is opening one now holds the lock and has a limit of its own.
                if let Ok(mut state) = self.state.try_lock() {
                    state.client = None;
                    state.failed = Some((Instant::now(), "it did not answer in time".into()));
                }
                Err(StoreError::Silent(limit.as_secs()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Prefix;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_not_asked_by_every_request() {
        let schema = Prefix::new("x_").expect("a prefix").read();
        // Port 1 of this machine: nobody listens, so the attempt fails at once.
        let session = Session::new("postgres://kept@127.0.0.1:1/kept", schema, Purpose::Pages);
        let first = session.client().await.expect_err("nobody is there");
        assert!(matches!(first, StoreError::Postgres(_)), "{first}");
        let second = session.client().await.expect_err("nobody is there");
        assert!(matches!(second, StoreError::Away(_)), "{second}");
    }
}
