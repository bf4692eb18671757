//! `kept sample`: a day of an invented merchant, as files.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kept_channels::{
    import::{derive::write_lines, tally::thousands},
    sample::{Census, Day, Rates, Settings, Share, channels::CHANNELS},
    sender::{Item, Way},
};
use kept_schemas::inbound::InboundKind;
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
Files: items.jsonl (for `kept send`, in order of time), files/ACCOUNT.jsonl and files/ACCOUNT.toml (orders that come as
a file and their mapping, for `kept import`), reference.jsonl (for `kept reference apply`), stock.jsonl (for `kept stock
receive`), keys.json (each account's bearer key; for you only).

Examples:
  ./kept sample --to sample
  ./kept sample --to peak --orders 100000 --days 7 --seed 9 --rate short_articles=10
  ./kept sample --to smooth --orders 5000 --rate all=0
  ./kept reference apply sample/reference.jsonl && ./kept stock receive sample/stock.jsonl
  ./kept import sample/files/edi-retail.jsonl --map sample/files/edi-retail.toml
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
        let (census, files) = write_items(&day, &self.to).context("write what is sent")?;
        let stock = day.stock();
        write_lines(&at("stock.jsonl"), &stock.lines).context("write stock.jsonl")?;
        write_lines(&at("reference.jsonl"), &day.reference()).context("write reference.jsonl")?;
        write_keys(&day, &at("keys.json")).context("write keys.json")?;
        if self.json {
            println!(
                "{}",
                json!({
                    "synthetic": true, "settings": day.settings(), "holds": census, "to": self.to,
                    "files": files, "stock": {"units": stock.units, "demand_units": stock.demand_units, "short_articles": stock.short_articles},
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
        let ways: Vec<String> = census.by_way.iter().map(|(way, times)| format!("{} {}", n(*times), by(way))).collect();
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
        println!(
            "\nWritten to {}: items.jsonl, {} files of orders in files/, reference.jsonl, stock.jsonl, keys.json",
            self.to.display(),
            files.len()
        );
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

/// A way in, in words.
fn by(way: &str) -> &str {
    match way {
        "http" => "by HTTP",
        "import" => "by file",
        "received" => "as whole orders on orders.received",
        _ => "as forms on channels.inbound",
    }
}

/// Writes what is sent: orders that come as a file to a file of their account, all else to `items.jsonl`. Gives the
/// accounts with a file and their orders in it, those sent again among them.
fn write_items(day: &Day, to: &Path) -> Result<(Census, BTreeMap<String, u64>)> {
    let folder = to.join("files");
    std::fs::create_dir_all(&folder)?;
    // What an earlier sample left would be imported with this one's.
    for account in CHANNELS.iter().flat_map(|it| [it.account, it.second]) {
        for end in ["jsonl", "toml"] {
            match std::fs::remove_file(folder.join(format!("{account}.{end}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
    }
    let mut items = Lines::create(to.join("items.jsonl"))?;
    let mut files: BTreeMap<String, (Lines, u64)> = BTreeMap::new();
    let mut census = Census::default();
    for item in day.items() {
        let as_file = item.way == Way::Import && item.kind == InboundKind::Order;
        // Only orders come as a file or whole; what is said of them later comes by topic.
        let as_form = item.kind != InboundKind::Order && matches!(item.way, Way::Import | Way::Received);
        let item = if as_form { Item { way: Way::Topic, ..item } } else { item };
        census.add(&item);
        if !as_file {
            let item = if item.way == Way::Received { day.whole(&item).map_err(|why| anyhow!(why))? } else { item };
            items.line(&serde_json::to_vec(&item)?)?;
            continue;
        }
        if !files.contains_key(&item.account) {
            std::fs::write(folder.join(format!("{}.toml", item.account)), mapping(&item))?;
            let lines = Lines::create(folder.join(format!("{}.jsonl", item.account)))?;
            files.insert(item.account.clone(), (lines, 0));
        }
        let (lines, orders) = files.get_mut(&item.account).context("the account's file was made")?;
        lines.line(item.bytes())?;
        *orders += 1;
    }
    items.finish()?;
    let mut counts = BTreeMap::new();
    for (account, (lines, orders)) in files {
        lines.finish()?;
        counts.insert(account, orders);
    }
    Ok((census, counts))
}

/// What `kept import` must know of a file of our own form.
fn mapping(item: &Item) -> String {
    format!("account = \"{}\"\nshop = \"{}\"\n\n[file]\nformat = \"jsonl\"\n", item.account, item.shop)
}

/// A file of lines that has its name once it is whole.
struct Lines {
    out: BufWriter<File>,
    path: PathBuf,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(path.with_extension("jsonl.part"))?;
        Ok(Self { out: BufWriter::with_capacity(1 << 18, file), path })
    }

    fn line(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        Ok(self.out.write_all(b"\n")?)
    }

    fn finish(self) -> Result<()> {
        self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(std::fs::rename(self.path.with_extension("jsonl.part"), self.path)?)
    }
}

/// Keys open doors, even a demonstration's: only their owner reads them.
fn write_keys(day: &Day, path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    serde_json::to_writer_pretty(&mut file, &day.keys())?;
    file.write_all(b"\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kept_channels::import::{self, Options, Outcome, mapping::Mapping, open::Progress};

    use super::*;

    #[test]
    fn orders_that_come_as_a_file_can_be_imported_to_the_byte_and_everything_else_is_an_item() {
        let to = std::env::temp_dir().join(format!("kept-sample-{}", std::process::id()));
        std::fs::create_dir_all(to.join("files")).expect("a folder");
        std::fs::write(to.join("files/phone-file.jsonl"), "of an earlier sample\n").expect("written");
        let rates = Rates { second_ways: Share(0), cancellations: Share(20_000), ..Rates::default() };
        let day = Day::of(Settings { orders: 1_500, rates, ..Settings::default() }).expect("a day");
        let (census, files) = write_items(&day, &to).expect("written");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["edi-retail"]);
        assert!(!to.join("files/phone-file.jsonl").exists());

        let map = Mapping::read(&to.join("files/edi-retail.toml")).expect("a mapping");
        let (mut outcome, mut imported) = (Outcome::default(), BTreeSet::new());
        let path = to.join("files/edi-retail.jsonl");
        import::run(&path, &map, Options::default(), &Progress::default(), None, &mut outcome, |ready| {
            let (inbound, headers) = ready.inbound(&map, kept_schemas::Micros(0));
            imported.insert((inbound.account, ready.order_id, headers.event_id, inbound.body));
            Ok(())
        })
        .expect("it can be imported");
        assert_eq!(outcome.tally.refused_orders, 0);
        let of = |item: &Item| (item.account.clone(), item.order_id(), Some(item.event_id()), item.bytes().to_vec());
        let as_file = |it: &Item| it.way == Way::Import && it.kind == InboundKind::Order;
        assert_eq!(imported, day.items().filter(as_file).map(|it| of(&it)).collect());

        let text = std::fs::read_to_string(to.join("items.jsonl")).expect("items");
        let items: Vec<Item> = text.lines().map(|it| serde_json::from_str(it).expect("an item")).collect();
        assert!(items.iter().all(|it| it.way != Way::Import));
        let whole: Vec<&Item> = items.iter().filter(|it| it.way == Way::Received).collect();
        assert!(
            !whole.is_empty() && whole.iter().all(|it| it.sent().units.is_some()),
            "whole orders say what they are"
        );
        assert!(items.iter().any(|it| it.account == "edi-retail" && it.kind == InboundKind::Cancellation));
        assert_eq!(items.len() as u64 + files["edi-retail"], day.items().count() as u64);
        assert_eq!(census.by_way["import"], files["edi-retail"]);
        std::fs::remove_dir_all(to).expect("removed");
    }
}
