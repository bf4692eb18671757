//! Every driver has a thread of its own: the Kafka client blocks, and must be polled by one thread.

use std::{future::Future, thread::JoinHandle};

use tokio::runtime::Handle;

use crate::ledger_step::Stopped;

/// Runs a driver on a thread of its own. `make` builds it there (connects, subscribes) and drives it; its other
/// tasks, such as a database connection, live on `handle`'s runtime, which must have threads of its own.
pub fn run_on_own_thread<F, D>(name: &str, handle: Handle, make: F) -> std::io::Result<JoinHandle<Result<(), Stopped>>>
where
    F: FnOnce() -> D + Send + 'static,
    D: Future<Output = Result<(), Stopped>>,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(move || handle.block_on(make()))
}
