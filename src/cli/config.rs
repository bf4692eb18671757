//! `kept config`: the effective configuration, and where each value came from.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kept_runtime::config::Layers;

use super::ConfigFile;

/// Show the effective configuration and where each value came from, without secrets
///
/// Four layers, the later one wins: defaults, .kept/stack.env (written by `kept up`), a TOML file, the environment.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept config
  ./kept config --config shop.toml --json

Exit codes: 0 the configuration can be used; 1 it cannot, and the message says which value and what is allowed.")]
pub struct ShowConfig {
    /// A JSON list of {key, variable, value, origin, about}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl ShowConfig {
    pub fn run(self) -> Result<ExitCode> {
        let layers = Layers::read(self.config.config.as_deref())?;
        let shown = layers.shown();
        if self.json {
            let all: Vec<serde_json::Value> = shown
                .iter()
                .map(|it| {
                    serde_json::json!({
                        "key": it.key, "variable": it.variable, "value": it.value,
                        "origin": it.value.as_ref().map(|_| it.origin.to_string()), "about": it.about,
                    })
                })
                .collect();
            println!("{}", serde_json::Value::from(all));
        } else {
            let origin = |it: &kept_runtime::config::Shown| match it.value {
                Some(_) => it.origin.to_string(),
                None => format!("not set ({})", it.variable),
            };
            let wide = shown.iter().map(|it| it.value.as_deref().unwrap_or("").len()).max().unwrap_or(0).clamp(8, 60);
            for it in &shown {
                println!(
                    "{:<18} {:<wide$}  {:<28} {}",
                    it.key,
                    it.value.as_deref().unwrap_or("–"),
                    origin(it),
                    it.about
                );
            }
        }
        // What cannot be used is told last, where it is read.
        layers.config()?;
        Ok(ExitCode::SUCCESS)
    }
}
