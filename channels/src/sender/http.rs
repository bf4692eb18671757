//! The HTTP way in, as a client sees it: bearer key, `Idempotency-Key`, and a repeat of everything that was not
//! answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kept_schemas::inbound::InboundKind;
use reqwest::{StatusCode, Url, header};
use tokio::task::JoinSet;

use super::{Item, Manners, SendError, Tries};
use crate::sent_log::Sent;

/// One request must be answered within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The most of a refusal's text that is kept.
const MAX_REASON: usize = 300;

/// A client of the API.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    /// Without a slash at its end.
    base: Arc<str>,
    /// Account → bearer key.
    keys: Arc<BTreeMap<String, String>>,
}

/// What became of a chunk.
#[derive(Debug, Default)]
pub struct Answers {
    pub accepted: Vec<Sent>,
    /// Order number and the server's reason.
    pub refused: Vec<(String, String)>,
    pub repeated: u64,
}

impl Http {
    /// A client of the API at `base` (`http://127.0.0.1:8080`), with each account's key.
    pub fn new(base: &str, keys: BTreeMap<String, String>) -> Result<Self, SendError> {
        // An error says that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .build()
            .map_err(|error| SendError::Stop(format!("an HTTP client cannot be made: {error}")))?;
        Ok(Self { client, base: base.trim_end_matches('/').into(), keys: Arc::new(keys) })
    }

    /// Sends items until each is answered. Items of one order go one after the other.
    pub(super) async fn send(&self, items: Vec<Item>, manners: Manners) -> Result<Answers, SendError> {
        let lanes = manners.at_once.max(1);
        let mut queues: Vec<Vec<Item>> = vec![Vec::new(); lanes];
        for item in items {
            let lane = (item.order_id().0.as_u128() % lanes as u128) as usize;
            queues[lane].push(item);
        }
        let mut tasks = JoinSet::new();
        for queue in queues.into_iter().filter(|it| !it.is_empty()) {
            let http = self.clone();
            tasks.spawn(async move {
                let mut answers = Answers::default();
                for item in queue {
                    http.one(&item, manners.patience, &mut answers).await?;
                }
                Ok::<_, SendError>(answers)
            });
        }
        let mut all = Answers::default();
        while let Some(done) = tasks.join_next().await {
            let answers = done.map_err(|error| SendError::Stop(format!("a sending task ended: {error}")))??;
            all.accepted.extend(answers.accepted);
            all.refused.extend(answers.refused);
            all.repeated += answers.repeated;
        }
        Ok(all)
    }

    /// Where an item goes. What is said about an order names it by its number, so that it may come before the order.
    fn address(&self, item: &Item) -> Result<Url, SendError> {
        let wrong = |why: &str| SendError::Stop(format!("the API's address {} is of no use: {why}", self.base));
        let mut to = Url::parse(&format!("{}/v1/orders", self.base)).map_err(|error| wrong(&error.to_string()))?;
        let about = match item.kind {
            InboundKind::Payment => "payments",
            InboundKind::Cancellation => "cancellation",
            _ => return Ok(to),
        };
        to.path_segments_mut().map_err(|()| wrong("it has no path"))?.extend([&item.order_number, about]);
        to.query_pairs_mut().append_pair("shop", &item.shop);
        Ok(to)
    }

    async fn one(&self, item: &Item, patience: Duration, answers: &mut Answers) -> Result<(), SendError> {
        let to = self.address(item)?;
        let Some(key) = self.keys.get(&item.account) else {
            return Err(SendError::Stop(format!("no bearer key is known for account {}", item.account)));
        };
        let mut tries = Tries::new(patience);
        loop {
            let request = self
                .client
                .post(to.clone())
                .bearer_auth(key)
                .header(header::CONTENT_TYPE, "application/json")
                .header("Idempotency-Key", item.event_id().to_string())
                .body(item.bytes().to_vec());
            let why = match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    answers.accepted.push(item.sent());
                    return Ok(());
                }
                Ok(answer) if is_final(answer.status()) => {
                    let status = answer.status();
                    let text: String = answer.text().await.unwrap_or_default().chars().take(MAX_REASON).collect();
                    answers.refused.push((item.order_number.clone(), format!("{status}: {text}")));
                    return Ok(());
                }
                Ok(answer) => format!("the API answers {}", answer.status()),
                Err(error) => format!("the API does not answer: {}", error.without_url()),
            };
            answers.repeated += 1;
            tries.again(why).await?;
        }
    }
}

/// The server has read it and says no; asking again would change nothing.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        )
}
