//! `kept migrate`: makes the tables, or brings them up to date.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use kept_store::{
    Prefix,
    migrate::{migrate_ledger, migrate_read},
};

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
    /// Postgres, as a URL that psql takes
    #[arg(long, env = "KEPT_POSTGRES", hide_env_values = true, value_name = "URL")]
    postgres: String,
    /// Postgres of the read model, where it is another one
    #[arg(long, env = "KEPT_READ_POSTGRES", hide_env_values = true, value_name = "URL")]
    read_postgres: Option<String>,
    /// What stands before the names of this deployment's schemas: a-z, 0-9 and _
    #[arg(long, env = "KEPT_PREFIX", default_value = "", value_name = "PREFIX")]
    prefix: String,
    /// A JSON object with the steps that ran
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub fn run(self) -> Result<ExitCode> {
        let prefix = Prefix::new(&self.prefix)?;
        let read_url = self.read_postgres.as_ref().unwrap_or(&self.postgres);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        let ran = runtime.block_on(async {
            let mut ran = migrate_ledger(&self.postgres, &prefix)
                .await
                .context("migrate the ledger")?;
            let read = migrate_read(read_url, &prefix.read())
                .await
                .context("migrate the read model")?;
            ran.extend(read);
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
