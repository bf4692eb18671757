//! The contract: every topic's record as a Rust type, its Avro schema, its wire form and its headers.
//!
//! `ls schemas/*.avsc` is the list of topics; a test holds each file equal to the type here.
//! Nothing in this crate does I/O.

pub mod codec;
pub mod compat;
pub mod events;
pub mod headers;
pub mod ids;
pub mod inbound;
pub mod inputs;
pub mod order;
pub mod own;
pub mod reference;
pub mod text;
pub mod texts;
mod time;
pub mod topics;
pub mod values;

pub use codec::{Codec, CodecError, Wire};
pub use headers::Headers;
pub use ids::{EventId, OrderId};
pub use order::{Order, OrderLine, Party};
pub use topics::{Cleanup, Compatibility, Topic, TopicSpec};
pub use values::{Micros, UnitPrice};
