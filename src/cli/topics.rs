//! `kept topics`: the topics and schemas of a deployment, and making them what the contract wants.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kept_runtime::{
    admin::{self, Plan},
    config::Config,
    registry::Registry,
};
use kept_schemas::{Cleanup, Topic};

use super::{ConfigFile, block_on};

/// Make the topics and schemas of a deployment, or show them
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept topics apply --dry-run
  ./kept topics list

Exit codes: 0 everything is there as it should be; 1 it is not, or a server does not answer, and the message says
what.")]
pub struct Topics {
    #[command(subcommand)]
    verb: TopicsVerb,
}

#[derive(Subcommand)]
enum TopicsVerb {
    Apply(Apply),
    List(List),
}

/// Make every topic and register every schema, and repair settings that drifted
///
/// Topics get their partitions, retention and copies, schemas the rule that later versions must keep. What cannot be
/// changed without harm is refused: another number of partitions on a topic that is there, a schema that would make
/// older records unreadable. Nothing is done then. Safe to run at any time; run `kept migrate` before the first time.
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept topics apply --dry-run     say what would be changed
  ./kept topics apply
  ./kept topics apply --json

Exit codes: 0 everything is as it should be (with --dry-run: could be made so); 1 something was refused or a server
does not answer, and the message says what.")]
struct Apply {
    /// Say what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// A JSON object with the changes and the refusals
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Show every topic: what it says, how it is keyed and kept, and whether it is there
#[derive(Args)]
#[command(after_help = "Examples:
  ./kept topics list
  ./kept topics list --json | jq -r '.[] | select(.personal) | .topic'

Exit codes: 0 all are there; 1 some are not, or Kafka does not answer.")]
struct List {
    /// A JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Topics {
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            TopicsVerb::Apply(it) => block_on(it.run()),
            TopicsVerb::List(it) => block_on(it.run()),
        }
    }
}

impl Apply {
    async fn run(self) -> Result<ExitCode> {
        let config = self.config.load()?;
        let registry = Registry::client(&config)?;
        let found = admin::look(&config, &registry).await.with_context(|| place(&config))?;
        let plan = admin::plan(&config, &found);
        let refused = !plan.refusals.is_empty();
        if !self.dry_run && !refused {
            let told = |change: &admin::Change| {
                if !self.json {
                    println!("{change}: done");
                }
            };
            admin::apply(&config, &registry, &found, &plan, told).await?;
        }
        self.print(&plan)?;
        Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn print(&self, plan: &Plan) -> Result<()> {
        let refused = !plan.refusals.is_empty();
        let applied = !self.dry_run && !refused;
        if self.json {
            let mut object = serde_json::to_value(plan).context("print the plan")?;
            object["applied"] = applied.into();
            println!("{object}");
            return Ok(());
        }
        if !applied {
            for change in &plan.changes {
                println!("would {change}");
            }
        }
        for refusal in &plan.refusals {
            println!("refused: {}: {}", refusal.of, refusal.why);
        }
        match (plan.changes.len(), applied) {
            (0, _) if !refused => println!("nothing to do: topics and schemas are as they should be"),
            (many, true) => println!("{many} changes done"),
            (_, false) if refused => println!("nothing was changed"),
            (many, false) => println!("{many} changes to do"),
        }
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<ExitCode> {
        let config = self.config.load()?;
        let found = admin::look_at_topics(&config).await.with_context(|| place(&config))?;
        if self.json {
            let all: Vec<serde_json::Value> = Topic::ALL
                .iter()
                .map(|&topic| {
                    let spec = topic.spec();
                    serde_json::json!({
                        "topic": config.topic(topic), "about": spec.about, "key": spec.key,
                        "personal": spec.personal, "there": found.contains_key(&topic),
                        "partitions": found.get(&topic).map(|it| it.partitions),
                        "days": match spec.cleanup { Cleanup::Days(days) => Some(days), Cleanup::Compact => None },
                    })
                })
                .collect();
            println!("{}", serde_json::Value::from(all));
        } else {
            println!("{:<32} {:>10}  {:<8}  {:<16} what it says", "topic", "partitions", "kept", "key");
            for &topic in Topic::ALL {
                let spec = topic.spec();
                let partitions = found.get(&topic).map_or("not there".into(), |it| it.partitions.to_string());
                let kept = match spec.cleanup {
                    Cleanup::Days(days) => format!("{days} days"),
                    Cleanup::Compact => "newest".into(),
                };
                println!("{:<32} {partitions:>10}  {kept:<8}  {:<16} {}", config.topic(topic), spec.key, spec.about);
            }
        }
        Ok(if found.len() == Topic::ALL.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Where the servers are that were asked, for a message.
fn place(config: &Config) -> String {
    format!("ask kafka at {} and the registry at {}", config.kafka, config.registry)
}
