//! `kept up`: servers to run on, for those who have none.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use kept_runtime::config::{Layers, Origin, stack_env_file};
use kept_stack::servers::{self, By, Home, SERVERS, Server, Settings};
use serde_json::json;

/// Start Kafka, a schema registry and Postgres on this machine
///
/// Servers that the configuration names (KEPT_KAFKA, KEPT_REGISTRY, KEPT_POSTGRES, or kept.toml) are used as they are
/// and not started. Else a Docker engine runs them where one answers; else they run as processes of this machine, and
/// what is missing for that is installed. They listen on loopback only, keep their data in .kept/ and go on until
/// `./kept down`. Twice is fine: what runs is left alone, what is half dead is repaired.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept up
  ./kept up && set -a && . .kept/stack.env && psql \"$KEPT_POSTGRES\"
  KEPT_POSTGRES=postgresql://me@db.example/orders ./kept up     starts only Kafka and the registry
  KEPT_HOME=/tmp/other ./kept up                                a second set of servers, apart from the first
  KEPT_SERVERS=native ./kept up                                 no containers, though Docker is there

Exit codes: 0 all servers answer; 1 one does not, and the message shows the end of its log.")]
pub struct Up {
    /// The configuration file, where it is not ./kept.toml
    #[arg(long, env = "KEPT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Postgres does not wait for the disk at a commit: quicker, for tests; a power cut may lose what was committed
    #[arg(long)]
    no_fsync: bool,
    /// A JSON object with who runs the servers, what was started and where everything is (but no password)
    #[arg(long)]
    json: bool,
}

impl Up {
    pub fn run(self) -> Result<ExitCode> {
        let home = Home::from_env()?;
        let named = named(self.config.as_deref())?;
        let settings = Settings { durable: !self.no_fsync, ..Settings::default() };
        let up = servers::up(&home, settings, &named, &|line| eprintln!("{line}"))?;
        let file = home.env_file();
        if self.json {
            let addresses = up.addresses.as_ref();
            println!(
                "{}",
                json!({
                    "by": up.by,
                    "started": up.started,
                    "named_in_the_configuration": named,
                    "kafka": addresses.map(|it| &it.kafka),
                    "registry": addresses.map(|it| &it.registry),
                    "addresses_in": addresses.map(|_| &file),
                })
            );
            return Ok(ExitCode::SUCCESS);
        }
        match up.by {
            By::Configuration => println!("the configuration names all three servers: nothing to start"),
            By::Docker | By::Processes => {
                let what = if up.started.is_empty() { "all servers were running" } else { "the servers are up" };
                println!("{what}; their addresses are in {}", file.display());
                if !named.is_empty() {
                    let names: Vec<String> = named.iter().map(Server::to_string).collect();
                    println!("not started, because the configuration names it: {}", names.join(", "));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The servers whose addresses come from anywhere but from an earlier `kept up`.
pub fn named(file: Option<&std::path::Path>) -> Result<Vec<Server>> {
    let ours = Origin::File(stack_env_file().display().to_string());
    let shown = Layers::read(file)?.shown();
    Ok(SERVERS
        .into_iter()
        .filter(|server| {
            shown.iter().any(|it| it.variable == server.variable() && it.value.is_some() && it.origin != ours)
        })
        .collect())
}
