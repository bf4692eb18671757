//! The command line: what each verb is called and where it is.

mod bench;
mod chaos;
mod check;
mod config;
mod dead_letters;
mod demo;
mod down;
mod erase;
mod explain;
mod import;
mod migrate;
mod order;
mod parked;
mod rebuild;
mod reference;
mod run;
mod sample;
mod send;
mod simulate;
mod status;
mod stock;
mod topics;
mod topology;
mod up;

use std::{future::Future, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use kept_runtime::config::Config;
use kept_schemas::{Micros, OrderId};
use kept_store::journal::Numbers;

/// Kept takes orders from every channel to their customers: nothing lost, nothing doubled, every decision explained
#[derive(Parser)]
#[command(name = "kept", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  ./kept demo                       a day of orders through every stage, on real servers
  ./kept explain 1001               the life of one order, in plain words
  ./kept test                       every test; each command has examples in its own --help

Exit codes: 0 done, and all is well; 1 it is not, and the message says what; 2 wrong usage.")]
pub struct Kept {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Bench(bench::Bench),
    Up(up::Up),
    Down(down::Down),
    Status(status::Status),
    Check(check::Check),
    Chaos(chaos::Chaos),
    Explain(explain::Explain),
    Run(run::Run),
    Migrate(migrate::Migrate),
    Topics(topics::Topics),
    Topology(topology::Topology),
    Reference(reference::Reference),
    Simulate(simulate::Simulate),
    Order(order::Order),
    Parked(parked::Parked),
    DeadLetters(dead_letters::DeadLetters),
    Rebuild(rebuild::Rebuild),
    Erase(erase::Erase),
    Config(config::ShowConfig),
    Import(import::Import),
    Sample(sample::Sample),
    Send(send::Send),
    Stock(stock::Stock),
}

impl Kept {
    /// Runs the verb. An error is printed by the caller; a verb that answers "no" gives another exit code itself.
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            Verb::Demo(it) => it.run(),
            Verb::Bench(it) => it.run(),
            Verb::Up(it) => it.run(),
            Verb::Down(it) => it.run(),
            Verb::Status(it) => it.run(),
            Verb::Check(it) => it.run(),
            Verb::Chaos(it) => it.run(),
            Verb::Explain(it) => it.run(),
            Verb::Run(it) => it.run(),
            Verb::Migrate(it) => it.run(),
            Verb::Topics(it) => it.run(),
            Verb::Topology(it) => it.run(),
            Verb::Reference(it) => it.run(),
            Verb::Simulate(it) => it.run(),
            Verb::Order(it) => it.run(),
            Verb::Parked(it) => it.run(),
            Verb::DeadLetters(it) => it.run(),
            Verb::Rebuild(it) => it.run(),
            Verb::Erase(it) => it.run(),
            Verb::Config(it) => it.run(),
            Verb::Import(it) => it.run(),
            Verb::Sample(it) => it.run(),
            Verb::Send(it) => it.run(),
            Verb::Stock(it) => it.run(),
        }
    }
}

/// Where a verb gets its settings from.
#[derive(Args)]
pub struct ConfigFile {
    /// A file with settings in TOML (else $KEPT_CONFIG, else kept.toml where there is one); see `kept config`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// The effective configuration.
    pub fn load(&self) -> Result<Config> {
        Ok(Config::load(self.config.as_deref())?)
    }
}

/// The one order that a person means to change, by its id or the channel's number.
///
/// # Errors
/// None or several have that number.
pub async fn one_order(config: &Config, asked: &str) -> Result<OrderId> {
    // An order that never got into the read model is known by its id alone.
    if let Some(order) = OrderId::parse(asked) {
        return Ok(order);
    }
    match explain::find(config, asked, Numbers::Channels).await?.as_slice() {
        [] => bail!("no order has the number or id {asked}"),
        [one] => Ok(*one),
        several => bail!(
            "{} orders have the number {asked}: name one by its id (`./kept explain {asked}` lists them)",
            several.len()
        ),
    }
}

/// An instant as people write it, in UTC.
pub fn when(at: Micros) -> String {
    Micros(at.0 - at.0.rem_euclid(Micros::SECOND)).rfc3339()
}

/// Runs a verb's work on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start a runtime")?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Kept;

    /// Every command and group, with its long help.
    fn pages(command: &mut clap::Command, name: &str, pages: &mut Vec<(String, bool, String)>) {
        let group = command.has_subcommands();
        pages.push((name.to_owned(), group, command.render_long_help().to_string()));
        // The `help` of clap itself has no page of its own.
        for below in command.get_subcommands_mut().filter(|it| it.get_name() != "help") {
            let name = format!("{name} {}", below.get_name());
            self::pages(below, &name, pages);
        }
    }

    #[test]
    fn every_help_has_examples_and_exit_codes_and_every_command_answers_in_json() {
        let mut all = Vec::new();
        pages(&mut Kept::command(), "kept", &mut all);
        assert!(all.len() > 35, "{} pages", all.len());
        let mut wrong: Vec<String> = Vec::new();
        for (name, group, help) in &all {
            for part in ["Examples:", "Exit codes:"] {
                if !help.contains(part) {
                    wrong.push(format!("{name} --help has no \"{part}\""));
                }
            }
            if help.contains('\\') {
                wrong.push(format!("{name} --help has a backslash"));
            }
            // `kept run` answers with its log alone.
            if !group && name != "kept run" && !help.contains("--json") {
                wrong.push(format!("{name} has no --json"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
