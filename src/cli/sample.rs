//! `kept sample`: a day of an invented merchant, as files.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kept_channels::{
    import::{derive::write_lines, tally::thousands},
    sample::{Census, Day, Rates, Settings, Share},
};
use serde_json::json;

/// Make orders as the channels of a Dutch merchant would send them; all of it synthetic
///
/// Orders of bol, Amazon, Shopify, WooCommerce, a storefront, EDI and the phone, in the rhythm of a week, with
/// payments, cancellations and everything that goes wrong at rates you can set. The same seed makes the same files, to
/// the byte. Nothing in it is real: no person, no address, no order.
#[derive(Args)]
#[command(after_help = after_help())]
pub struct Sample {
    /// Where to write the files
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How many orders in all
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    orders: u64,
    /// Over how many days
    #[arg(long, value_name = "N", default_value_t = 1)]
    days: u32,
    /// The first day, by the clock of Amsterdam
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2026-11-25")]
    start: String,
    /// Another seed makes other orders with other numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many articles the merchant has
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    articles: u32,
    /// Set a rate, e.g. bad_addresses=5; may be given several times, and "all=0" turns every trouble off
    #[arg(long = "rate", value_name = "NAME=PERCENT")]
    rates: Vec<String>,
    /// The answer as one JSON object
    #[arg(long)]
    json: bool,
}

fn after_help() -> String {
    let mut text = String::from("Rates (percent), to be set with --rate NAME=PERCENT:\n");
    for (name, usual, about) in Rates::TABLE {
        text.push_str(&format!("  {name:<18}{:>6} {}\n", usual.to_string(), about.trim()));
    }
    text.push_str(
        "
Files: items.jsonl (what is sent, in order of time), reference.jsonl (for `kept reference apply`), stock.jsonl (for
`kept stock receive`), keys.json (each account's bearer key; for you only).

Examples:
  ./kept sample --to sample
  ./kept sample --to peak --orders 100000 --days 7 --seed 9 --rate short_articles=10
  ./kept sample --to smooth --orders 5000 --rate all=0
  ./kept reference apply sample/reference.jsonl && ./kept stock receive sample/stock.jsonl
  ./kept send sample/items.jsonl --keys sample/keys.json

Exit codes: 0 the files are there; 1 they are not, and the message says why; 2 wrong usage.",
    );
    text
}

impl Sample {
    pub fn run(self) -> Result<ExitCode> {
        let start =
            self.start.parse().map_err(|_| anyhow!("--start {} is not a day such as 2026-11-25", self.start))?;
        let settings = Settings {
            seed: self.seed,
            orders: self.orders,
            days: self.days,
            start,
            articles: self.articles,
            rates: rates(&self.rates).map_err(anyhow::Error::msg)?,
        };
        let day = Day::of(settings).map_err(anyhow::Error::msg)?;
        std::fs::create_dir_all(&self.to).with_context(|| format!("make {}", self.to.display()))?;
        let at = |name: &str| self.to.join(name);
        let census = write_items(&day, &at("items.jsonl")).context("write items.jsonl")?;
        let stock = day.stock();
        write_lines(&at("stock.jsonl"), &stock.lines).context("write stock.jsonl")?;
        write_lines(&at("reference.jsonl"), &day.reference()).context("write reference.jsonl")?;
        write_keys(&day, &at("keys.json")).context("write keys.json")?;
        if self.json {
            println!(
                "{}",
                json!({
                    "synthetic": true, "settings": day.settings(), "holds": census, "to": self.to,
                    "stock": {"units": stock.units, "demand_units": stock.demand_units, "short_articles": stock.short_articles},
                })
            );
            return Ok(ExitCode::SUCCESS);
        }
        let n = |number: u64| thousands(&number.to_string());
        println!(
            "Synthetic: no person, address or order here is real. Seed {}, {} days from {}.\n",
            self.seed, self.days, self.start
        );
        println!(
            "{:>12}  orders, {} lines, {} units",
            n(census.orders),
            n(census.lines),
            n(census.units.unsigned_abs())
        );
        for (account, orders) in &census.by_account {
            println!("{:>12}    {account}", n(*orders));
        }
        println!(
            "{:>12}  payments that come on their own, {} cancellations",
            n(census.payments),
            n(census.cancellations)
        );
        let ways: Vec<String> = census.by_way.iter().map(|(way, times)| format!("{} by {way}", n(*times))).collect();
        println!("{:>12}  {}", "sent:", ways.join(", "));
        if !census.troubles.is_empty() {
            println!("\nWhat goes wrong, on purpose:");
            for (trouble, times) in &census.troubles {
                println!("{:>12}  {trouble}", n(*times));
            }
        }
        println!(
            "\n{:>12}  units in stock for {} ordered; {} articles are short on purpose",
            n(stock.units.unsigned_abs()),
            n(stock.demand_units.unsigned_abs()),
            stock.short_articles
        );
        println!("\nWritten to {}: items.jsonl, reference.jsonl, stock.jsonl, keys.json", self.to.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn rates(given: &[String]) -> Result<Rates, String> {
    let mut rates = Rates::default();
    for one in given {
        let (name, percent) =
            one.split_once('=').ok_or_else(|| format!("--rate {one} is not of the form NAME=PERCENT"))?;
        let share = Share::parse(percent)?;
        if name == "all" {
            for (name, _, _) in Rates::TABLE {
                rates.set(name, share)?;
            }
        } else {
            rates.set(name, share)?;
        }
    }
    Ok(rates)
}

fn write_items(day: &Day, path: &Path) -> Result<Census> {
    let draft = path.with_extension("jsonl.part");
    let mut out = BufWriter::with_capacity(1 << 18, std::fs::File::create(&draft)?);
    let mut census = Census::default();
    for item in day.items() {
        census.add(&item);
        serde_json::to_writer(&mut out, &item)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(draft, path)?;
    Ok(census)
}

/// Keys open doors, even a demonstration's: only their owner reads them.
fn write_keys(day: &Day, path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    serde_json::to_writer_pretty(&mut file, &day.keys())?;
    file.write_all(b"\n")?;
    Ok(())
}
