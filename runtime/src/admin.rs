//! Topics and schemas as the contract wants them: what there is, what is missing, and making it so.
//!
//! [`look`] asks the servers, [`plan`] compares (a plain function), [`apply`] does what the plan says and nothing
//! else. What cannot be changed without harm is refused, never done: another number of partitions moves keys, and an
//! incompatible schema makes records unreadable.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use kept_schemas::{Cleanup, Topic, compat::breaks, topics::Partitions};
use kept_store::{
    pg::{Purpose, connect},
    schemas::{self, KeptSchema},
    seam::LedgerError,
};
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
        TopicResult,
    },
    client::DefaultClientContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use serde::Serialize;
use thiserror::Error;

use crate::{
    config::Config,
    kafka::client_config,
    registry::{Registry, RegistryError},
};

/// One question to the brokers.
const TIMEOUT: Duration = Duration::from_secs(15);
const DAY_MS: u64 = 86_400_000;
/// Most ids that are taken up to bring a registry that was made anew past those that records carry.
const MOST_IDS: u32 = 20_000;

/// Why looking or applying failed.
#[derive(Debug, Error)]
pub enum AdminError {
    #[error("kafka does not answer: {0}")]
    Kafka(String),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("postgres: {0}")]
    Postgres(LedgerError),
    #[error("{0}")]
    Stop(String),
}

impl From<kept_store::StoreError> for AdminError {
    fn from(error: kept_store::StoreError) -> Self {
        Self::Postgres(error.into())
    }
}

/// What the servers have.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub topics: BTreeMap<Topic, FoundTopic>,
    pub schemas: BTreeMap<Topic, FoundSchema>,
    /// Ids that records may carry and that the registry does not have.
    pub lost_ids: Vec<u32>,
}

/// A topic that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundTopic {
    pub partitions: i32,
    pub replication: i32,
    /// Entries we have an opinion about, and those set on the topic itself.
    pub config: BTreeMap<String, FoundEntry>,
}

/// One entry of a topic's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundEntry {
    pub value: String,
    /// Set on the topic, not inherited.
    pub own: bool,
}

/// What the registry has for a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundSchema {
    /// The id of today's schema.
    pub id: Option<u32>,
    /// The newest registered one.
    pub latest: Option<String>,
    /// The rule for new versions.
    pub rule: Option<String>,
    /// The registry says that today's schema breaks an older one.
    pub refused: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    CreateTopic {
        topic: String,
        partitions: i32,
        replication: i32,
        config: BTreeMap<String, String>,
    },
    SetConfig {
        topic: String,
        entry: String,
        from: Option<String>,
        to: String,
    },
    SetRule {
        subject: String,
        from: Option<String>,
        to: String,
    },
    RegisterSchema {
        subject: String,
        first: bool,
    },
    /// Ids of a registry that was lost are taken up again, with their texts.
    RestoreIds {
        ids: Vec<u32>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTopic { topic, partitions, replication, config } => {
                let plural = if *partitions == 1 { "" } else { "s" };
                write!(f, "make topic {topic}: {partitions} partition{plural}, {}", kept(config))?;
                if *replication > 1 { write!(f, ", {replication} copies") } else { Ok(()) }
            }
            Self::SetConfig { topic, entry, from, to } => {
                write!(f, "set {entry} of topic {topic} to {to} (it is {})", from.as_deref().unwrap_or("not set"))
            }
            Self::SetRule { subject, from, to } => {
                write!(f, "set the rule for {subject} to {to} (it is {})", from.as_deref().unwrap_or("not set"))
            }
            Self::RegisterSchema { subject, first: true } => write!(f, "register the schema of {subject}"),
            Self::RegisterSchema { subject, first: false } => write!(f, "register a new version of {subject}"),
            Self::RestoreIds { ids } => {
                write!(f, "restore {} schema ids that the registry has lost and records still carry", ids.len())
            }
        }
    }
}

fn kept(config: &BTreeMap<String, String>) -> String {
    match config.get("retention.ms").and_then(|it| it.parse::<u64>().ok()) {
        Some(time) => format!("kept {} days", time / DAY_MS),
        None => "the newest record of each key kept".into(),
    }
}

/// Something that is not as it should be and is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The topic or subject.
    pub of: String,
    pub why: String,
}

/// What [`apply`] would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub refusals: Vec<Refusal>,
}

/// How a topic is to be kept.
pub fn wanted_config(config: &Config, topic: Topic) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::new();
    let mut set = |name: &str, value: String| wanted.insert(name.to_owned(), value);
    match topic.spec().cleanup {
        Cleanup::Days(days) => {
            set("cleanup.policy", "delete".into());
            set("retention.ms", (u64::from(days) * DAY_MS).to_string());
        }
        Cleanup::Compact => {
            set("cleanup.policy", "compact".into());
            // Time for a running process to keep every version in its table before older ones go.
            set("min.compaction.lag.ms", DAY_MS.to_string());
        }
    }
    // By the broker's clock: an order of last year must not expire on arrival.
    set("message.timestamp.type", "LogAppendTime".into());
    set("max.message.bytes", "1048588".into());
    if config.replication >= 3 {
        set("min.insync.replicas", "2".into());
    }
    wanted
}

/// How many partitions a topic is to have.
pub fn wanted_partitions(config: &Config, topic: Topic) -> i32 {
    match topic.spec().partitions {
        Partitions::Shared => config.partitions,
        Partitions::One => 1,
    }
}

/// What must be done so that the servers have what the contract wants.
pub fn plan(config: &Config, found: &Found) -> Plan {
    let mut plan = Plan::default();
    if !found.lost_ids.is_empty() {
        plan.changes.push(Change::RestoreIds { ids: found.lost_ids.clone() });
    }
    for &topic in Topic::ALL {
        plan_topic(config, topic, found.topics.get(&topic), &mut plan);
    }
    for &topic in Topic::ALL {
        plan_schema(config, topic, &found.schemas.get(&topic).cloned().unwrap_or_default(), &mut plan);
    }
    plan
}

fn plan_topic(config: &Config, topic: Topic, found: Option<&FoundTopic>, plan: &mut Plan) {
    let (name, partitions, wanted) =
        (config.topic(topic), wanted_partitions(config, topic), wanted_config(config, topic));
    let Some(found) = found else {
        plan.changes.push(Change::CreateTopic {
            topic: name,
            partitions,
            replication: config.replication,
            config: wanted,
        });
        return;
    };
    if found.partitions != partitions {
        plan.refusals.push(Refusal {
            of: name.clone(),
            why: format!(
                "it has {} partitions, {partitions} are wanted; another number sends an order's records to another \
                 partition than its earlier ones. Set `partitions` to what the topics have",
                found.partitions
            ),
        });
    }
    if found.replication < config.replication {
        plan.refusals.push(Refusal {
            of: name.clone(),
            why: format!(
                "it has {} copies, {} are wanted; move it with Kafka's own kafka-reassign-partitions",
                found.replication, config.replication
            ),
        });
    }
    for (entry, to) in wanted {
        let from = found.config.get(&entry).map(|it| it.value.clone());
        if from.as_deref() != Some(to.as_str()) {
            plan.changes.push(Change::SetConfig { topic: name.clone(), entry, from, to });
        }
    }
}

fn plan_schema(config: &Config, topic: Topic, found: &FoundSchema, plan: &mut Plan) {
    let subject = config.subject(topic);
    let rule = topic.spec().compatibility.as_str();
    if found.id.is_none() {
        if found.refused {
            plan.refusals.push(Refusal { of: subject.clone(), why: broken(topic, found.latest.as_deref()) });
        } else {
            plan.changes.push(Change::RegisterSchema { subject: subject.clone(), first: found.latest.is_none() });
        }
    }
    if found.rule.as_deref() != Some(rule) {
        plan.changes.push(Change::SetRule { subject, from: found.rule.clone(), to: rule.into() });
    }
}

/// What of today's schema breaks the one before, as far as it can be told from the two.
fn broken(topic: Topic, latest: Option<&str>) -> String {
    let rule = topic.spec().compatibility.as_str();
    let parse = |text: &str| apache_avro::Schema::parse_str(text).ok();
    let fields = latest
        .and_then(|latest| Some(breaks(&parse(latest)?, &parse(topic.schema_text())?, topic.spec().compatibility)))
        .unwrap_or_default();
    let which = if fields.is_empty() { String::new() } else { format!(": {}", fields.join("; ")) };
    format!("today's schema breaks an older version under the rule {rule}{which}; a breaking change is a new topic")
}

/// Asks the servers what there is.
///
/// # Errors
/// A server that does not answer.
pub async fn look(config: &Config, registry: &Registry) -> Result<Found, AdminError> {
    let mut found = Found { topics: look_at_topics(config).await?, ..Found::default() };
    let client = connect(config.postgres.expose(), &config.store_prefix().ledger(), Purpose::Command).await?;
    for kept in schemas::all(&client).await? {
        if !kept.subject.is_empty() && !registry.has(kept.id).await? {
            found.lost_ids.push(kept.id);
        }
    }
    let mut asking = tokio::task::JoinSet::new();
    for &topic in Topic::ALL {
        let (registry, subject) = (registry.clone(), config.subject(topic));
        asking.spawn(async move {
            let mut found =
                FoundSchema { id: registry.id_of(&subject, topic.schema_text()).await?, ..Default::default() };
            found.rule = registry.compatibility(&subject).await?;
            if found.id.is_none() {
                found.latest = registry.latest(&subject).await?;
                if found.latest.is_some() {
                    found.refused = !registry.accepts(&subject, topic.schema_text()).await?;
                }
            }
            Ok::<_, RegistryError>((topic, found))
        });
    }
    while let Some(answer) = asking.join_next().await {
        let (topic, schema) = answer.map_err(|error| AdminError::Stop(format!("a question broke off: {error}")))??;
        found.schemas.insert(topic, schema);
    }
    Ok(found)
}

/// The topics of this deployment that are there.
///
/// # Errors
/// Brokers that do not answer.
pub async fn look_at_topics(config: &Config) -> Result<BTreeMap<Topic, FoundTopic>, AdminError> {
    let admin = admin(config)?;
    let names: BTreeMap<String, Topic> = Topic::ALL.iter().map(|&topic| (config.topic(topic), topic)).collect();
    let asked = names.clone();
    let (admin, mut topics) = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, TIMEOUT).map_err(|error| kafka(&error))?;
        let topics: BTreeMap<Topic, FoundTopic> = metadata
            .topics()
            .iter()
            .filter_map(|it| Some((*asked.get(it.name())?, it)))
            .map(|(topic, it)| {
                let replication = it.partitions().iter().map(|partition| partition.replicas().len()).min();
                let found = FoundTopic {
                    partitions: i32::try_from(it.partitions().len()).unwrap_or(i32::MAX),
                    replication: i32::try_from(replication.unwrap_or(0)).unwrap_or(i32::MAX),
                    config: BTreeMap::new(),
                };
                (topic, found)
            })
            .collect();
        Ok::<_, AdminError>((admin, topics))
    })
    .await
    .map_err(|_| AdminError::Kafka("the question broke off".into()))??;
    let there: Vec<String> = topics.keys().map(|&topic| config.topic(topic)).collect();
    if there.is_empty() {
        return Ok(topics);
    }
    let resources: Vec<ResourceSpecifier<'_>> = there.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = admin.describe_configs(&resources, &options()).await.map_err(|error| kafka(&error))?;
    for resource in described {
        let resource = resource.map_err(|code| AdminError::Kafka(format!("{code:?}")))?;
        let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
            continue;
        };
        let Some((topic, found)) = names.get(name).and_then(|topic| Some((*topic, topics.get_mut(topic)?))) else {
            continue;
        };
        let wanted = wanted_config(config, topic);
        for entry in resource.entries {
            let own = entry.source == ConfigSource::DynamicTopic;
            if own || wanted.contains_key(&entry.name) {
                let value = entry.value.unwrap_or_default();
                found.config.insert(entry.name, FoundEntry { value, own });
            }
        }
    }
    Ok(topics)
}

/// Does what the plan says; `told` hears of each change when it is done. Nothing is done of a plan with refusals.
///
/// # Errors
/// The first change that fails; applying again goes on from there.
pub async fn apply(
    config: &Config,
    registry: &Registry,
    found: &Found,
    plan: &Plan,
    mut told: impl FnMut(&Change),
) -> Result<(), AdminError> {
    if !plan.refusals.is_empty() {
        return Err(AdminError::Stop("a plan with refusals is not applied".into()));
    }
    let admin = admin(config)?;
    let client = connect(config.postgres.expose(), &config.store_prefix().ledger(), Purpose::Command).await?;
    let kept = schemas::all(&client).await?;
    for change in &plan.changes {
        match change {
            Change::CreateTopic { topic, partitions, replication, config } => {
                let mut new = NewTopic::new(topic, *partitions, TopicReplication::Fixed(*replication));
                for (name, value) in config {
                    new = new.set(name, value);
                }
                done(topic, admin.create_topics(&[new], &options()).await, Some(RDKafkaErrorCode::TopicAlreadyExists))?;
            }
            // All of a topic's entries are set at once, below.
            Change::SetConfig { .. } => {}
            Change::SetRule { subject, to, .. } => registry.set_compatibility(subject, to).await?,
            Change::RegisterSchema { subject, .. } => {
                let Some(topic) = Topic::ALL.iter().copied().find(|&it| config.subject(it) == *subject) else {
                    continue;
                };
                let id = registry.register(subject, topic.schema_text()).await?;
                if let Some(other) = kept.iter().find(|it| it.id == id && !same(&it.text, topic.schema_text())) {
                    return Err(AdminError::Stop(format!(
                        "the registry gave {subject} the id {id}, which records carry that were written as {}; it was \
                         made anew, and its ids cannot be told from the old ones. Restore the registry's own data",
                        if other.subject.is_empty() { "something else" } else { &other.subject }
                    )));
                }
            }
            Change::RestoreIds { .. } => restore(config, registry, &kept).await?,
        }
        told(change);
    }
    let mut names: BTreeSet<&String> = BTreeSet::new();
    for change in &plan.changes {
        if let Change::SetConfig { topic, .. } = change {
            names.insert(topic);
        }
    }
    for name in names {
        let Some(topic) = Topic::ALL.iter().copied().find(|&it| config.topic(it) == *name) else {
            continue;
        };
        // The broker replaces all of a topic's own entries, so those that we have no opinion about go along.
        let mut entries: BTreeMap<String, String> = found
            .topics
            .get(&topic)
            .into_iter()
            .flat_map(|it| it.config.iter().filter(|(_, entry)| entry.own))
            .map(|(name, entry)| (name.clone(), entry.value.clone()))
            .collect();
        entries.extend(wanted_config(config, topic));
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (entry, value) in &entries {
            alter = alter.set(entry, value);
        }
        let results = admin.alter_configs(&[alter], &options()).await.map_err(|error| kafka(&error))?;
        for result in results {
            result.map_err(|(_, code)| AdminError::Kafka(format!("topic {name}: {code:?}")))?;
        }
    }
    keep_texts(config, registry, &client).await?;
    seen(config).await
}

/// Waits until the broker tells of every topic: a new one is known to the controller first.
async fn seen(config: &Config) -> Result<(), AdminError> {
    let until = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let topics = look_at_topics(config).await?;
        match Topic::ALL.iter().find(|topic| !topics.contains_key(topic)) {
            None => return Ok(()),
            Some(topic) if tokio::time::Instant::now() > until => {
                return Err(AdminError::Kafka(format!(
                    "topic {} was made, but is not to be seen",
                    config.topic(*topic)
                )));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Keeps the text of every schema of today beside the registry.
async fn keep_texts(config: &Config, registry: &Registry, client: &kept_store::Client) -> Result<(), AdminError> {
    for &topic in Topic::ALL {
        let subject = config.subject(topic);
        if let Some(id) = registry.id_of(&subject, topic.schema_text()).await? {
            let kept = schemas::keep(client, id, &subject, topic.schema_text()).await?;
            if !same(&kept, topic.schema_text()) {
                return Err(AdminError::Stop(format!(
                    "schema id {id} of {subject} was another schema's before; the registry was made anew, and its ids \
                     cannot be told from the old ones. Restore the registry's own data"
                )));
            }
        }
    }
    Ok(())
}

/// Takes a new registry through the ids of the old one: ids are given in a row, so each text gets its old id again,
/// and what is between is taken up by schemas that mean nothing.
async fn restore(config: &Config, registry: &Registry, kept: &[KeptSchema]) -> Result<(), AdminError> {
    let last = kept.iter().map(|it| it.id).max().unwrap_or(0);
    if last > MOST_IDS {
        return Err(AdminError::Stop(format!(
            "records carry schema ids up to {last}; so many are not taken up again. Restore the registry's own data"
        )));
    }
    let filler = format!("{}kept.unused", config.prefix);
    registry.set_compatibility(&filler, "NONE").await?;
    for id in 1..=last {
        match kept.iter().find(|it| it.id == id && !it.subject.is_empty()) {
            Some(it) => {
                registry.set_compatibility(&it.subject, "NONE").await?;
                registry.register(&it.subject, &it.text).await?;
            }
            None if registry.has(id).await? => {}
            None => {
                let text = format!(r#"{{"type":"record","name":"Unused{id}","fields":[]}}"#);
                if registry.register(&filler, &text).await? > last {
                    break;
                }
            }
        }
    }
    for &topic in Topic::ALL {
        registry.set_compatibility(&config.subject(topic), topic.spec().compatibility.as_str()).await?;
    }
    Ok(())
}

/// The same JSON, however it is laid out.
fn same(a: &str, b: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    a == b || parse(a).is_some_and(|a| parse(b) == Some(a))
}

fn admin(config: &Config) -> Result<AdminClient<DefaultClientContext>, AdminError> {
    client_config(&config.kafka, &config.client_properties())
        .create()
        .map_err(|error| AdminError::Stop(format!("kafka admin client cannot be made: {error}")))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn kafka(error: &KafkaError) -> AdminError {
    AdminError::Kafka(error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}")))
}

fn done(name: &str, result: KafkaResult<Vec<TopicResult>>, fine: Option<RDKafkaErrorCode>) -> Result<(), AdminError> {
    for result in result.map_err(|error| kafka(&error))? {
        match result {
            Err((_, code)) if Some(code) != fine => return Err(AdminError::Kafka(format!("topic {name}: {code:?}"))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { prefix: "t_".into(), partitions: 2, ..crate::config::tests::bare() }
    }

    /// Everything as the contract wants it.
    fn made() -> Found {
        let config = config();
        let mut found = Found::default();
        for &topic in Topic::ALL {
            let entries = wanted_config(&config, topic)
                .into_iter()
                .map(|(name, value)| (name, FoundEntry { value, own: true }))
                .collect();
            let partitions = wanted_partitions(&config, topic);
            found.topics.insert(topic, FoundTopic { partitions, replication: 1, config: entries });
            let rule = Some(topic.spec().compatibility.as_str().into());
            let latest = Some(topic.schema_text().into());
            found.schemas.insert(topic, FoundSchema { id: Some(1), latest, rule, refused: false });
        }
        found
    }

    #[test]
    fn an_empty_server_gets_every_topic_schema_and_rule() {
        let plan = plan(&config(), &Found::default());
        assert_eq!(plan.refusals, vec![]);
        assert_eq!(plan.changes.len(), 3 * Topic::ALL.len());
        let texts: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
        assert!(texts.contains(&"make topic t_orders.held: 2 partitions, kept 365 days".into()), "{texts:?}");
        assert!(
            texts.contains(&"make topic t_reference.products: 1 partition, the newest record of each key kept".into()),
            "{texts:?}"
        );
    }

    #[test]
    fn what_is_as_it_should_be_needs_nothing() {
        assert_eq!(plan(&config(), &made()), Plan::default());
    }

    #[test]
    fn another_number_of_partitions_is_refused_by_name() {
        let mut found = made();
        found.topics.get_mut(&Topic::OrdersHeld).expect("there").partitions = 3;
        let plan = plan(&config(), &found);
        assert_eq!(plan.changes, vec![]);
        assert_eq!(plan.refusals.len(), 1);
        assert_eq!(plan.refusals[0].of, "t_orders.held");
        assert!(plan.refusals[0].why.contains("3 partitions, 2 are wanted"), "{}", plan.refusals[0].why);
    }

    #[test]
    fn drift_is_repaired_and_told() {
        let mut found = made();
        let held = found.topics.get_mut(&Topic::OrdersHeld).expect("there");
        held.config.insert("retention.ms".into(), FoundEntry { value: "1000".into(), own: true });
        held.config.remove("message.timestamp.type");
        found.schemas.get_mut(&Topic::OrdersHeld).expect("there").rule = Some("NONE".into());
        let texts: Vec<String> = plan(&config(), &found).changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            vec![
                "set message.timestamp.type of topic t_orders.held to LogAppendTime (it is not set)",
                "set retention.ms of topic t_orders.held to 31536000000 (it is 1000)",
                "set the rule for t_orders.held-value to FULL_TRANSITIVE (it is NONE)",
            ]
        );
    }

    #[test]
    fn an_incompatible_schema_is_refused_with_the_field_named() {
        let mut found = made();
        let old = Topic::OrdersHeld.schema_text().replacen("\"name\": \"order_id\"", "\"name\": \"order_number\"", 1);
        let latest = Some(old);
        found.schemas.insert(Topic::OrdersHeld, FoundSchema { id: None, latest, rule: None, refused: true });
        let plan = plan(&config(), &found);
        assert_eq!(plan.refusals.len(), 1);
        let why = &plan.refusals[0].why;
        assert!(why.contains("order_number"), "{why}");
        assert!(!plan.changes.iter().any(|it| matches!(it, Change::RegisterSchema { .. })));
    }

    #[test]
    fn a_registry_that_lost_ids_gets_them_back_first() {
        let plan = plan(&config(), &Found { lost_ids: vec![3, 4], ..made() });
        assert_eq!(plan.changes, vec![Change::RestoreIds { ids: vec![3, 4] }]);
    }
}
