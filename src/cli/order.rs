//! `kept order`: what a person decides about one order. It is sent as a command like any other; nothing is changed from
//! outside.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kept_runtime::{config::Config, log::Outgoing, outbox, registry::Registry, timers::Outbox};
use kept_schemas::{
    EventId, Headers, Micros, OrderId, Party, Topic,
    inbound::HoldReason,
    inputs::{CommandKind, CommandReceived, LineQuantity},
    order::Address,
    texts,
};

use super::one_order;

/// Decide about an order: let it go, stop it, call it off, correct its address
///
/// A decision is stored at once and carried out a moment later; `kept explain ORDER` shows what came of it.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept order release 1001 --reason address_invalid --by j.jansen
  ./kept order cancel 1001 --line 2=1
  ./kept order address 1001 address.json

Exit codes: 0 the decision is stored; 1 there is no such order, several have that number, or a server does not answer;
2 wrong usage.")]
pub struct Order {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Resolve a hold: go on as if it were not there
    #[command(after_help = "Examples:
  ./kept order release 1001 --reason address_invalid
  ./kept order release 1001 --hold 6f8a1c5e --by j.jansen

A hold that a person may not resolve stays; `kept explain` says why. Exit codes: 0 the decision is stored; 1 there is
no such order or reason, several have that number, or a server does not answer; 2 wrong usage.")]
    Release {
        #[command(flatten)]
        about: About,
        /// The hold, as `kept explain` names it
        #[arg(long, value_name = "ID", required_unless_present = "reason")]
        hold: Option<String>,
        /// Every hold of a reason, e.g. address_invalid
        #[arg(long, value_name = "REASON", conflicts_with = "hold")]
        reason: Option<String>,
    },
    /// Put it on hold by hand
    #[command(after_help = "Examples:
  ./kept order hold 1001
  ./kept order hold 1001 --because \"the customer rings back\" --by j.jansen

Exit codes: 0 the decision is stored; 1 there is no such order, several have that number, or a server does not answer;
2 wrong usage.")]
    Hold {
        #[command(flatten)]
        about: About,
        /// Why, for whoever reads it later; no personal data
        #[arg(long, value_name = "TEXT")]
        because: Option<String>,
    },
    /// Call it off, or some of it
    #[command(after_help = "Examples:
  ./kept order cancel 1001
  ./kept order cancel 1001 --line 2=1 --line 3=4 --because \"out of print\"

What has left already is not called back. Exit codes: 0 the decision is stored; 1 there is no such order, several have
that number, a line is no line, or a server does not answer; 2 wrong usage.")]
    Cancel {
        #[command(flatten)]
        about: About,
        /// A line and how many of it; may be given several times. None: all that is left
        #[arg(long, value_name = "LINE=QUANTITY")]
        line: Vec<String>,
        /// Why, for whoever reads it later; no personal data
        #[arg(long, value_name = "TEXT")]
        because: Option<String>,
    },
    /// Run its checks again, for reference data changed
    #[command(after_help = "Examples:
  ./kept order recheck 1001

Exit codes: 0 the decision is stored; 1 there is no such order, several have that number, or a server does not answer;
2 wrong usage.")]
    Recheck {
        #[command(flatten)]
        about: About,
    },
    /// Give it another address, and run its checks again
    #[command(after_help = "Examples:
  ./kept order address 1001 address.json
  ./kept order address 1001 address.json --by j.jansen --json

FILE holds one address as JSON, so that no address gets into a shell's history:
  {\"name\": \"…\", \"street\": \"…\", \"house_number\": \"…\", \"postcode\": \"…\", \"city\": \"…\", \"country\": \"NL\"}

Exit codes: 0 the decision is stored; 1 the file is no address, there is no such order, several have that number, or a
server does not answer; 2 wrong usage.")]
    Address {
        #[command(flatten)]
        about: About,
        /// The address
        file: PathBuf,
    },
}

#[derive(Args)]
struct About {
    /// The order: the channel's number, or our id
    order: String,
    /// Who decides, as the history shows it: a login, not a name
    #[arg(long, value_name = "LOGIN", default_value = "cli")]
    by: String,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A JSON object: the order's id, what was decided and the decision's id
    #[arg(long)]
    json: bool,
}

impl Order {
    pub fn run(self) -> Result<ExitCode> {
        let (about, mut command) = self.what.command()?;
        let config = Config::load(about.config.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        runtime.block_on(async {
            let order = one_order(&config, &about.order).await?;
            command.order_id = order;
            command.by = about.by;
            texts::command(&command).map_err(anyhow::Error::msg)?;
            let kind = command.kind.to_string();
            let command_id = send(&config, command).await?;
            if about.json {
                let id = order.to_string();
                println!("{}", serde_json::json!({ "order_id": id, "command": kind, "command_id": command_id }));
            } else {
                println!("asked; see `./kept explain {order}` for what came of it");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl What {
    /// The command, but for its order and who asks.
    fn command(self) -> Result<(About, CommandReceived)> {
        let command = CommandReceived::default();
        Ok(match self {
            Self::Release { about, hold, reason } => {
                if let Some(word) = reason.as_deref().filter(|word| HoldReason::of(word) == HoldReason::Unknown) {
                    let known: Vec<&str> = HoldReason::ALL.iter().map(|reason| reason.as_str()).collect();
                    bail!("{word} is not a reason for a hold; reasons are {}", known.join(", "));
                }
                (about, CommandReceived { kind: CommandKind::Release, hold_id: hold, reason, ..command })
            }
            Self::Hold { about, because } => {
                (about, CommandReceived { kind: CommandKind::Hold, reason: because, ..command })
            }
            Self::Cancel { about, line, because } => {
                let lines = line.iter().map(|text| line_quantity(text)).collect::<Result<_>>()?;
                (about, CommandReceived { kind: CommandKind::Cancel, lines, reason: because, ..command })
            }
            Self::Recheck { about } => (about, CommandReceived { kind: CommandKind::Recheck, ..command }),
            Self::Address { about, file } => {
                let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
                // The parser's own message may quote what it read.
                let ship_to: Address = serde_json::from_str(&text).map_err(|error| {
                    let (line, column) = (error.line(), error.column());
                    anyhow::anyhow!("{} is not an address at line {line}, column {column}", file.display())
                })?;
                if let Some(why) = unknown_field(&text)? {
                    bail!("{}: {why}", file.display());
                }
                if ship_to == Address::default() {
                    bail!("{} has no part of an address in it", file.display());
                }
                if let Err(why) = texts::address(&ship_to) {
                    bail!("{}: {why}", file.display());
                }
                let party = Party { ship_to, ..Party::default() };
                (about, CommandReceived { kind: CommandKind::CorrectAddress, party, ..command })
            }
        })
    }
}

/// A field that an address does not have would be lost without a word.
fn unknown_field(text: &str) -> Result<Option<String>> {
    let given: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)?;
    let known = serde_json::to_value(Address::default())?;
    let names: Vec<&String> = known.as_object().into_iter().flat_map(|it| it.keys()).collect();
    let unknown = given.keys().find(|it| !names.contains(it));
    let fields = || names.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
    Ok(unknown.map(|it| format!("{it:.100} is not a field of an address; fields are {}", fields())))
}

fn line_quantity(text: &str) -> Result<LineQuantity> {
    let parts = text.split_once('=').and_then(|(line, units)| Some((line.parse().ok()?, units.parse().ok()?)));
    match parts {
        Some((line_no, quantity)) if line_no > 0 && quantity > 0 => Ok(LineQuantity { line_no, quantity }),
        _ => bail!("{text} is not a line and a quantity, such as 2=1"),
    }
}

/// Sends a command; gives its id when it is stored.
async fn send(config: &Config, mut command: CommandReceived) -> Result<String> {
    let registry = Registry::open(config).await?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    command.at = Micros(i64::try_from(since.as_micros()).context("the clock is too far ahead")?);
    let event_id = event_id(&command);
    command.command_id = event_id.to_string();
    let wire = registry.codec().encode(&command)?;
    let headers = Headers {
        event_id: Some(event_id),
        subject: Some(Topic::CommandsReceived.subject().into()),
        ..Headers::default()
    };
    let key = command.order_id.to_string();
    outbox(config)?.send(vec![Outgoing::new(Topic::CommandsReceived, &key, &wire, headers)]).await?;
    Ok(command.command_id)
}

/// Resolving the same hold again is the same wish; anything else said again is said anew.
fn event_id(command: &CommandReceived) -> EventId {
    let OrderId(order) = command.order_id;
    let version = match (&command.kind, &command.hold_id) {
        (CommandKind::Release, Some(hold_id)) => hold_id.clone().into_bytes(),
        _ => command.at.0.to_be_bytes().to_vec(),
    };
    EventId::of_input("cli", &format!("{} {order}", command.kind), &version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_its_quantity_are_read_and_anything_else_is_refused() {
        assert_eq!(line_quantity("2=3").expect("it reads"), LineQuantity { line_no: 2, quantity: 3 });
        for wrong in ["", "2", "2=", "=3", "0=1", "1=0", "1=-1", "a=b", "1=2=3"] {
            assert!(line_quantity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_that_could_not_be_kept_is_refused_with_its_field_and_reason() {
        let file = std::env::temp_dir().join(format!("kept-order-address-{}.json", std::process::id()));
        let asked = |address: serde_json::Value| {
            std::fs::write(&file, address.to_string()).expect("writable");
            let about = About { order: "1001".into(), by: "anna".into(), config: None, json: false };
            What::Address { about, file: file.clone() }.command().map(|it| it.1.party.ship_to.city)
        };
        let sound = asked(serde_json::json!({"city": "Utrecht"}));
        let refused = [("a\0b".to_owned(), "holds the character U+0000"), ("x".repeat(201), "is longer than 200")]
            .map(|(city, why)| (asked(serde_json::json!({"city": city})), why));
        let lost = asked(serde_json::json!({"city": "Utrecht", "housenumber": "12"})).expect_err("a typing error");
        std::fs::remove_file(&file).expect("it is there");
        assert_eq!(sound.expect("it reads"), "Utrecht");
        assert!(lost.to_string().contains("housenumber is not a field of an address; fields are "), "{lost}");
        for (asked, why) in refused {
            let error = asked.expect_err(why).to_string();
            assert!(error.contains(&format!(": city {why}")), "{error}");
        }
    }

    #[test]
    fn the_same_hold_released_twice_is_one_wish_and_two_cancellations_are_two() {
        let release =
            |at| CommandReceived { kind: CommandKind::Release, hold_id: Some("h".into()), at, ..Default::default() };
        assert_eq!(event_id(&release(Micros(1))), event_id(&release(Micros(2))));
        let cancel = |at| CommandReceived { kind: CommandKind::Cancel, at, ..Default::default() };
        assert_ne!(event_id(&cancel(Micros(1))), event_id(&cancel(Micros(2))));
    }

    #[test]
    fn every_command_line_that_the_pages_show_is_one_that_this_program_takes() {
        for line in kept_console::COMMANDS {
            let line = line.replace("ORDER", "6f8a1c5e-0000-8000-8000-000000000000").replace("HOLD", "h");
            let words = line.split(' ').map(|word| word.trim_start_matches("./"));
            if let Err(error) = <super::super::Kept as clap::Parser>::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
