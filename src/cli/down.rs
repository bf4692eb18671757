//! `kept down`: ends what `kept up` and the demo left running.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kept_stack::servers::{self, Home};

/// Stop what runs in the background: Kept's own processes first, then the servers that `kept up` started
///
/// Only processes that were started from this folder are touched. The data stays, and the next `./kept up` goes on with
/// it, unless --data is given.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept down
  ./kept down --data     and delete all data: orders, topics, schemas, logs

Exit codes: 0 nothing of it runs any more; 1 something could not be stopped, and the message says what.")]
pub struct Down {
    /// Delete the servers' data and the logs too. There is no way back
    #[arg(long)]
    data: bool,
    /// A JSON object with what was stopped
    #[arg(long)]
    json: bool,
}

impl Down {
    pub fn run(self) -> Result<ExitCode> {
        let home = Home::from_env()?;
        let down = servers::down(&home, self.data, &|line| eprintln!("{line}"))?;
        if self.json {
            println!("{}", serde_json::to_string(&down)?);
        } else if down.stopped.is_empty() {
            println!("nothing was running from {}", home.root().display());
        } else if !self.data {
            println!("all stopped; the data is kept (`./kept down --data` deletes it)");
        }
        Ok(ExitCode::SUCCESS)
    }
}
