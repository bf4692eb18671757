//! `kept demo`: everything at once, for a first look.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use kept_runtime::config::Config;
use kept_stack::servers::{self, Home, Settings};
use kept_store::{
    pg::{Purpose, connect},
    summary,
};

use crate::demo;

/// Send a day of orders through every stage on real servers, and show what became of it
///
/// Starts Kafka, a schema registry and Postgres (as `kept up` does), makes topics and tables, starts the pipeline and a
/// simulated warehouse and carrier, sends the orders, waits until everything has come to rest, and ends with a summary
/// and the checker's verdict. Everything stays up for a look until `./kept down`. Run again, it begins anew: what an
/// earlier demo left is deleted; data that no demo made is left alone.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept demo
  ./kept demo --orders 50000 --seed 3
  ./kept demo --data year.csv.xz                     a file of orders, with the mapping of the year of orders
  ./kept demo --data orders.csv --map my-shop.toml

Exit codes: 0 everything came to rest and the checker is content; 1 not so, and what is printed says why.")]
pub struct Demo {
    /// A file of orders in place of a made-up day (as `kept import` takes it)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Its mapping
    #[arg(long, value_name = "MAP", requires = "data")]
    map: Option<PathBuf>,
    /// How many orders the made-up day has
    #[arg(long, default_value_t = 20_000, conflicts_with = "data", value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    orders: u64,
    /// Another seed makes another day
    #[arg(long, default_value_t = 7, conflicts_with = "data")]
    seed: u64,
    /// How long to wait for everything to come to rest after the last order is sent, in seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    patience: u64,
    /// The figures as one JSON object; all else goes to standard error
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub fn run(self) -> Result<ExitCode> {
        if let Some(data) = self.data.as_ref().filter(|data| !data.is_file()) {
            bail!("{} is not there, or not a file", data.display());
        }
        let home = Home::from_env()?;
        let mark = home.root().join("demo").join("made-by-demo");
        let say = |line: &str| eprintln!("· {line}");
        let named = super::up::named(None)?;
        let made = mark.exists();
        if made {
            say("what an earlier demo left is deleted");
            servers::down(&home, true, &say)?;
            std::fs::remove_dir_all(home.root().join("demo")).context("delete the earlier demo")?;
        }
        let up = servers::up(&home, Settings::default(), &named, &say)?;
        if !made && named.is_empty() && has_data()? {
            bail!(
                "there is data in {} that no demo made; look at it with `./kept status`, delete it with \
                 `./kept down --data`, or give the demo another place: KEPT_HOME=/some/folder ./kept demo",
                home.root().display()
            );
        }
        drop(up);
        std::fs::create_dir_all(mark.parent().context("the demo's folder")?).context("make the demo's folder")?;
        std::fs::write(&mark, "The data in this folder was made by `kept demo`; the next demo deletes it.\n")
            .context("mark the demo's folder")?;
        let mut config = Config::load(None)?;
        if !named.is_empty() && config.prefix.is_empty() {
            // On servers that are not ours alone, a name of the demo's own each time.
            config.prefix = format!("demo{}_", std::process::id());
        }
        let asked = demo::Demo {
            data: self.data,
            map: self.map,
            orders: self.orders,
            seed: self.seed,
            patience: Duration::from_secs(self.patience),
            json: self.json,
        };
        let came = demo::run(&asked, &home, &mut config)?;
        Ok(if came.checked && came.settled && came.reconciled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Orders were taken in here before. Not knowing is an error: a demo deletes what an earlier one left.
fn has_data() -> Result<bool> {
    let config = Config::load(None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let schema = config.store_prefix().ledger();
    runtime.block_on(async {
        let client = connect(config.postgres.expose(), &schema, Purpose::Command).await;
        let client = client.context("look whether there is data already")?;
        Ok(summary::any_order(&client).await?)
    })
}
