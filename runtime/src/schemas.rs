//! The schemas seam: how a driver learns of schema ids it does not know yet.

use std::sync::Arc;

use kept_schemas::Codec;
use thiserror::Error;

/// The registry cannot be asked now: wait, then again. A record is never a dead letter because of that.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("schema registry does not answer: {0}")]
pub struct RegistryDown(pub String);

/// The registry as a driver sees it.
#[allow(async_fn_in_trait)]
pub trait Schemas {
    /// Everything known so far.
    fn codec(&self) -> Arc<Codec>;

    /// Asks for a schema id that the codec does not know. `false`: the registry has none of this id, or none that can
    /// be read.
    async fn ensure(&self, id: u32) -> Result<bool, RegistryDown>;
}

/// Why a record of such a schema is a dead letter.
pub(crate) fn unknown(id: u32) -> String {
    format!("schema id {id} is not in the registry, or not as Avro that can be read")
}

/// A fixed codec, for tests, benches and the simulation.
#[derive(Clone)]
pub struct Fixed(pub Arc<Codec>);

impl Schemas for Fixed {
    fn codec(&self) -> Arc<Codec> {
        Arc::clone(&self.0)
    }

    async fn ensure(&self, _: u32) -> Result<bool, RegistryDown> {
        Ok(false)
    }
}
