//! `kept topology`: the whole pipeline on one screen.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::topology;

/// Show the whole pipeline: who reads which topics, does what, and writes which
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept topology
  ./kept topology --mermaid > flow.mmd
  ./kept topology --json | jq -r '.[].step'
  ./kept topology --markdown > docs/topics.md

Exit codes: 0 always.")]
pub struct Topology {
    /// A flow chart in Mermaid's form
    #[arg(long, group = "form")]
    mermaid: bool,
    /// A JSON list
    #[arg(long, group = "form")]
    json: bool,
    /// The page docs/topics.md
    #[arg(long, group = "form")]
    markdown: bool,
}

impl Topology {
    pub fn run(self) -> Result<ExitCode> {
        let text = if self.mermaid {
            topology::mermaid()
        } else if self.json {
            format!("{}\n", topology::json())
        } else if self.markdown {
            topology::markdown()
        } else {
            topology::table()
        };
        print!("{text}");
        Ok(ExitCode::SUCCESS)
    }
}
