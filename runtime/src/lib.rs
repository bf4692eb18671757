//! The runtime: makes decisions true, once, for every step. Only this crate knows Kafka.

pub mod admin;
pub mod board;
pub mod chaos_hook;
pub mod config;
pub mod counters;
pub mod dead_letters;
pub mod kafka;
pub mod leases;
pub mod ledger_step;
pub mod log;
pub mod metrics;
pub mod ops;
mod outputs;
pub mod rechecks;
pub mod reference;
pub mod reference_file;
pub mod registry;
pub mod replay;
pub mod rules;
pub mod schemas;
mod sent;
pub mod service;
pub mod sink_step;
pub mod stateless;
pub mod steps;
pub mod threads;
pub mod timers;

/// An outbox of this deployment, for ways in and commands.
///
/// # Errors
/// Only when a client cannot be made; an absent broker shows when something is sent.
pub fn outbox(config: &config::Config) -> Result<kafka::KafkaOutbox, log::LogError> {
    kafka::KafkaOutbox::new(config.kafka_settings("", "", &[]))
}
