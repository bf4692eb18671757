//! `Idempotency-Key`: the same key and request get the same answer, another request under the same key is refused.

use std::future::Future;

use axum::{
    http::{HeaderMap, HeaderValue, Method, Uri},
    response::{IntoResponse, Response},
};
use kept_schemas::{ids::sha256_hex, reference::Account};
use kept_store::answers::Known;

use super::{
    books::{Books, Keyed},
    door::{Answer, REPLAYED},
    problem::Problem,
};

/// The longest key.
pub const MAX_KEY: usize = 200;

/// The request's key, checked.
///
/// # Errors
/// 400 for one that is empty, too long, given twice, or not of visible ASCII characters.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (Some(value), more) = (given.next(), given.next()) else { return Ok(None) };
    let text = value.as_bytes();
    if more.is_some() || text.is_empty() || text.len() > MAX_KEY || !text.iter().all(u8::is_ascii_graphic) {
        let detail = format!("a key is 1 to {MAX_KEY} visible ASCII characters without spaces, given once");
        return Err(Problem::new("bad-idempotency-key", detail));
    }
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// Does `work`, or gives the answer that was given before.
pub async fn once(
    books: &dyn Books,
    account: &Account,
    key: Option<String>,
    (method, uri, body): (&Method, &Uri, &[u8]),
    work: impl Future<Output = Answer>,
) -> Response {
    let Some(key) = key else { return work.await.into_response() };
    let mut whole = format!("{method} {uri}\n").into_bytes();
    whole.extend_from_slice(body);
    let request = Keyed { account: account.account_id.clone(), key, hash: sha256_hex(&whole) };
    match books.begin(&request).await {
        Err(_) => {
            return Problem::new("not-available", "the Idempotency-Key cannot be looked up now; nothing was done")
                .into_response();
        }
        Ok(Known::Other) => {
            let detail = "use a new key for a new request, or send the first one again unchanged";
            return Problem::new("key-reused", detail).into_response();
        }
        Ok(Known::Answered(_, stored)) => match serde_json::from_str::<Answer>(&stored) {
            Ok(answer) => {
                let mut response = answer.into_response();
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                return response;
            }
            Err(error) => {
                tracing::error!(%error, "a kept answer cannot be read; the request is worked on again, which is harmless");
            }
        },
        Ok(Known::New | Known::Unfinished) => {}
    }
    let answer = work.await;
    // A 503 is no answer, and an order that is not there may come yet: the next try does the work again. Everything
    // else is final, for it follows from the request.
    if answer.status < 500 && answer.status != 404 {
        let kept = serde_json::to_string(&answer).expect("texts and numbers are JSON");
        if books.finish(&request, answer.status, &kept).await.is_err() {
            tracing::warn!("an answer was not kept; a repeat is worked on again, which gives the same one");
        }
    }
    answer.into_response()
}
