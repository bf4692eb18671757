//! Log lines: text on a terminal, else one JSON object a line, always on standard error. How much, by `KEPT_LOG`.

use std::io::IsTerminal;

use anyhow::{Result, anyhow};
use tracing_subscriber::EnvFilter;

/// What is logged when nothing is said: ours, and of others only what is amiss.
const USUAL: &str = "warn,kept=info,kept_runtime=info,kept_store=info,kept_channels=info,kept_sinks=info,\
                     kept_console=info,kept_stack=info";

/// Starts logging.
///
/// # Errors
/// When KEPT_LOG cannot be read as levels, such as `debug` or `info,kept_runtime=debug`.
pub fn start() -> Result<()> {
    let levels = std::env::var("KEPT_LOG").ok().filter(|it| !it.is_empty()).unwrap_or_else(|| USUAL.into());
    let filter = EnvFilter::builder()
        .parse(&levels)
        .map_err(|error| anyhow!("KEPT_LOG: {error}; it is a level such as warn, or info,kept_runtime=debug"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        lines.with_target(false).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    started.map_err(|error| anyhow!("logging cannot be started: {error}"))
}
