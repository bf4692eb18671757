//! The HTTP way in: orders, cancellations and payments over JSON, and where an order stands. `docs/http-api.md`.
//!
//! A 202 means that the body is durably in `channels.inbound`, exactly as it came; everything else about an order is
//! decided behind that topic, never here.

mod auth;
mod books;
mod door;
mod follow_up;
mod forms;
mod keyed;
mod orders;
mod problem;
mod routes;
mod server;
mod trace;
mod view;

pub use books::PgBooks;
pub use door::{CodecNow, Door, Limits, Outbox, ReferenceNow};
pub use routes::{OPENAPI, routes};
pub use server::{Service, Settings, serve};

#[cfg(test)]
mod json_schema;
#[cfg(test)]
mod tests;
