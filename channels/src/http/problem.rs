//! Refusals as RFC 9457 problem documents: what is wrong, where, and what to do. Never what the request contained.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The most faults named in one answer.
const MAX_ERRORS: usize = 100;

/// A fault in a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the request's body; empty for the whole.
    pub pointer: String,
    pub reason: String,
}

/// A refusal. `kind` is the last part of its `type`, for programs; the rest is for people.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What `type` begins with; not an address.
pub const TYPE: &str = "urn:kept:problem:";

/// Every kind there is: its status and title. `openapi.json` lists the same, and a test compares them.
pub const KINDS: &[(&str, StatusCode, &str)] = &[
    ("not-json", StatusCode::BAD_REQUEST, "the body is not JSON"),
    ("not-an-order", StatusCode::BAD_REQUEST, "the body cannot be an order"),
    ("not-a-cancellation", StatusCode::BAD_REQUEST, "the body cannot be a cancellation"),
    ("not-a-payment", StatusCode::BAD_REQUEST, "the body cannot be a payment"),
    ("bad-request", StatusCode::BAD_REQUEST, "the request is not one this API knows"),
    ("bad-idempotency-key", StatusCode::BAD_REQUEST, "the Idempotency-Key cannot be used"),
    ("no-key", StatusCode::UNAUTHORIZED, "a key is needed"),
    ("wrong-key", StatusCode::UNAUTHORIZED, "the key is not known"),
    ("account-inactive", StatusCode::FORBIDDEN, "the account is switched off"),
    ("other-shop", StatusCode::FORBIDDEN, "the shop is not this account's"),
    ("unknown-order", StatusCode::NOT_FOUND, "there is no such order"),
    ("unknown-path", StatusCode::NOT_FOUND, "there is nothing here"),
    ("wrong-method", StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here"),
    ("too-slow", StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
    ("media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"),
    ("key-reused", StatusCode::UNPROCESSABLE_ENTITY, "the Idempotency-Key was used for another request"),
    ("busy", StatusCode::SERVICE_UNAVAILABLE, "too much at once"),
    ("not-stored", StatusCode::SERVICE_UNAVAILABLE, "nothing is certain to be stored"),
    ("not-available", StatusCode::SERVICE_UNAVAILABLE, "the answer cannot be looked up now"),
];

impl Problem {
    /// A problem of a kind in [`KINDS`].
    pub fn new(kind: &'static str, detail: impl Into<String>) -> Self {
        let (kind, status, title) = KINDS.iter().find(|it| it.0 == kind).expect("every kind is in the list").to_owned();
        let mut headers = Vec::new();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.push((header::RETRY_AFTER, HeaderValue::from_static("2")));
        }
        Self { status, kind, title, detail: detail.into(), errors: Vec::new(), headers }
    }

    /// With the faults found; a long list is cut.
    pub fn with_errors(mut self, mut errors: Vec<Fault>) -> Self {
        if errors.len() > MAX_ERRORS {
            let more = errors.len() - MAX_ERRORS;
            errors.truncate(MAX_ERRORS);
            errors.push(Fault { pointer: String::new(), reason: format!("and {more} more") });
        }
        self.errors = errors;
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The document.
    pub fn body(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
            errors: &'a [Fault],
        }
        let document = Document {
            r#type: format!("{TYPE}{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        serde_json::to_string(&document).expect("texts and numbers are JSON")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/problem+json")], self.body()).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
