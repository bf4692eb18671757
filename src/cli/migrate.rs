//! `kept migrate`: makes the tables, or brings them up to date.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use kept_store::{
    Prefix,
    migrate::{migrate_ledger, migrate_read},
};

use super::{ConfigFile, block_on};

/// Make the tables in Postgres, or bring them up to date
///
/// Two schemas: `ledger` (what must be remembered) and `read` (what happened to every order, for people and reports).
/// Safe to run at any time and from anywhere at once; steps that ran are left alone.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept migrate
  ./kept migrate --json
  ./kept migrate --prefix test_     another deployment in the same database

Exit codes: 0 the tables are those of this version; 1 they are not, and the message says why.")]
pub struct Migrate {
    /// Postgres, as a URL that psql takes; else the one of the configuration
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Postgres of the read model, where it is another one
    #[arg(long, value_name = "URL", requires = "postgres")]
    read_postgres: Option<String>,
    /// What stands before the names of this deployment's schemas: a-z, 0-9 and _; else that of the configuration
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// A JSON object with the steps that ran
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub fn run(self) -> Result<ExitCode> {
        let (prefix, url, read_url) = match &self.postgres {
            Some(url) => {
                let prefix = Prefix::new(self.prefix.as_deref().unwrap_or_default())?;
                (prefix, url.clone(), self.read_postgres.as_ref().unwrap_or(url).clone())
            }
            None => {
                let config = self.config.load()?;
                let prefix = match &self.prefix {
                    Some(prefix) => Prefix::new(prefix)?,
                    None => config.store_prefix(),
                };
                (prefix, config.postgres.expose().to_owned(), config.read_url().to_owned())
            }
        };
        let ran = block_on(async {
            let mut ran = migrate_ledger(&url, &prefix).await.context("migrate the ledger")?;
            ran.extend(migrate_read(&read_url, &prefix.read()).await.context("migrate the read model")?);
            anyhow::Ok(ran)
        })?;
        if self.json {
            println!("{}", serde_json::json!({ "ran": ran }));
        } else if ran.is_empty() {
            println!("nothing to do: the tables are those of this version");
        } else {
            for step in &ran {
                println!("ran {step}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
