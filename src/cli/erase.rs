//! `kept erase`: forgetting a person.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use kept_store::{
    journal,
    pg::{Purpose, connect},
};
use serde_json::json;

use super::{ConfigFile, block_on, one_order};

/// Forget the person of an order: names, addresses, e-mail and phone, in the ledger and in the read model
///
/// What happened to the order stays. Topics that carry personal data forget it by their retention, after 30 days at
/// most; so does what was parked, once it is sent again and decided. It cannot be undone: what still arrives about the person is
/// not kept.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept erase 1001                 say what would be forgotten
  ./kept erase 1001 --yes
  ./kept erase 1001 --yes --json

Exit codes: 0 done (or told what would be); 1 there is no such order, Postgres does not answer, or the read model
is being rebuilt (say it again after that).")]
pub struct Erase {
    /// The order: the channel's number, or our id
    order: String,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// A JSON object: the order's id, whether it was done, and how many records of the ledger and the read model
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Erase {
    pub fn run(self) -> Result<ExitCode> {
        block_on(async {
            let config = self.config.load()?;
            let order = one_order(&config, &self.order).await?;
            let id = order.to_string();
            if !self.yes && self.json {
                let told = json!({ "order_id": id, "done": false, "ledger_records": null, "read_model_records": null });
                println!("{told}");
                return Ok(ExitCode::SUCCESS);
            }
            if !self.yes {
                println!("would forget the person of order {order}; it cannot be undone. Say --yes to do it");
                return Ok(ExitCode::SUCCESS);
            }
            let prefix = config.store_prefix();
            let mut ledger = connect(config.postgres.expose(), &prefix.ledger(), Purpose::Command)
                .await
                .context("connect to the ledger")?;
            let mut read = connect(config.read_url(), &prefix.read(), Purpose::Command)
                .await
                .context("connect to the read model")?;
            let events = journal::erase(&mut ledger, order).await.context("forget in the ledger")?;
            let Some(events) = events else {
                bail!(
                    "the ledger has no order {id}: nothing was forgotten. If it is on its way, say it again once it is there"
                );
            };
            let rows = journal::erase_read(&mut read, &prefix, order).await.context("forget in the read model")?;
            if self.json {
                let told =
                    json!({ "order_id": id, "done": true, "ledger_records": events, "read_model_records": rows });
                println!("{told}");
            } else {
                println!("forgot the person of order {id}: {events} records of the ledger, {rows} of the read model");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
