//! Schema texts by their id: those kept in Postgres, for a registry that was made anew may give an old id to another
//! schema; else from the registry's Confluent-compatible API.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A registry to ask.
pub struct Registry {
    url: String,
    client: reqwest::Client,
    kept: BTreeMap<u32, String>,
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
}

impl Registry {
    /// `kept`: the texts that Postgres has.
    pub fn new(url: &str, kept: BTreeMap<u32, String>) -> Result<Self> {
        // The client wants to know who does cryptography even where nothing is encrypted; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .context("make an HTTP client")?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), client, kept })
    }

    /// The schema of an id; `None` when nobody has one.
    pub async fn schema(&self, id: u32) -> Result<Option<String>> {
        if let Some(text) = self.kept.get(&id) {
            return Ok(Some(text.clone()));
        }
        let asked = || format!("ask the registry for schema {id}");
        let answer = self.client.get(format!("{}/schemas/ids/{id}", self.url)).send().await.with_context(asked)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer: Answer = answer.error_for_status().with_context(asked)?.json().await.with_context(asked)?;
        Ok(Some(answer.schema))
    }
}
