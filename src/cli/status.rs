//! `kept status`: what runs from this folder.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kept_stack::servers::{self, Home, SERVERS};

/// Show which servers and background processes of this folder run, and whether they answer
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept status
  ./kept status --json

Exit codes: 0 all servers of this folder answer; 1 one does not, or none was started.")]
pub struct Status {
    /// A JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Status {
    pub fn run(self) -> Result<ExitCode> {
        let home = Home::from_env()?;
        let status = servers::status(&home)?;
        let well = status.servers.len() == SERVERS.len() && status.servers.iter().all(|it| it.trouble.is_none());
        if self.json {
            println!("{}", serde_json::to_string(&status)?);
        } else if status.servers.is_empty() {
            println!("nothing was started from {} (`./kept up` starts servers)", home.root().display());
        } else {
            for server in &status.servers {
                let pid = server.pid.map_or(String::new(), |it| format!("process {it}"));
                let trouble = server.trouble.as_deref().unwrap_or("answers");
                println!("{:<16} 127.0.0.1:{:<6} {pid:<14} {trouble}", server.server.to_string(), server.port);
            }
            for process in &status.processes {
                println!("{:<16} {:<16} process {:<6} log: {}", process.name, "", process.pid, process.log.display());
            }
        }
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
