//! The command line: what each verb is called and where it is.

mod migrate;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Kept takes orders from every channel to their customers: nothing lost, nothing doubled, every decision explained
#[derive(Parser)]
#[command(name = "kept", version, propagate_version = true, arg_required_else_help = true)]
pub struct Kept {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Migrate(migrate::Migrate),
}

impl Kept {
    /// Runs the verb. An error is printed by the caller; a verb that answers "no" gives another exit code itself.
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            Verb::Migrate(it) => it.run(),
        }
    }
}
