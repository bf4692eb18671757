//! Configuration: defaults, then `.kept/stack.env`, then a TOML file, then the environment; the later one wins.
//!
//! One table ([`SETTINGS`]) says what can be set, under which names, and what it means; `kept config` prints it. An
//! unknown name or a value that cannot be is refused with the place it stands at and what is allowed. Secrets are
//! [`Secret`]s: nothing that prints, logs or serialises them shows them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use kept_schemas::Topic;
use kept_store::Prefix;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::kafka::KafkaSettings;

/// Written by `kept up`: where its servers are. In the folder that `KEPT_HOME` names, else in `.kept`.
pub fn stack_env_file() -> PathBuf {
    let home = std::env::var_os("KEPT_HOME").filter(|it| !it.is_empty());
    PathBuf::from(home.unwrap_or_else(|| ".kept".into())).join("stack.env")
}

/// Read when no other file is named.
pub const FILE: &str = "kept.toml";

/// A value that must never be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for whoever connects with it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Where an address points to, without the user, the password and the parameters in it.
    pub fn place(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return "***".into();
        };
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}://***@{}", place.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("{place}: cannot be read: {why}")]
    File { place: String, why: String },
    #[error("{place}: {key} is not a setting; settings are {}", names())]
    Unknown { place: String, key: String },
    /// The value is not repeated: it may be a secret that was put in the wrong place.
    #[error("{place}: {key} cannot be that; it is {allowed}")]
    Value { place: String, key: String, allowed: String },
    #[error("not known: {0}; start servers with `./kept up`, or name yours in the environment or in {FILE}")]
    Missing(String),
}

/// Where a setting's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// A file, by its path.
    File(String),
    /// An environment variable.
    Environment(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => f.write_str(path),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

/// One thing that can be set.
pub struct Setting {
    /// Its name in the file; a dot is a table.
    pub key: &'static str,
    /// Its name in the environment.
    pub variable: &'static str,
    /// `None`: must be set, or may be left out (see `optional`).
    pub default: Option<&'static str>,
    /// It may be left out altogether.
    pub optional: bool,
    /// It may hold a password.
    pub secret: bool,
    pub about: &'static str,
}

const fn setting(
    key: &'static str,
    variable: &'static str,
    default: Option<&'static str>,
    about: &'static str,
) -> Setting {
    Setting { key, variable, default, optional: false, secret: false, about }
}

const fn secret(key: &'static str, variable: &'static str, optional: bool, about: &'static str) -> Setting {
    Setting { key, variable, default: None, optional, secret: true, about }
}

/// Everything that can be set.
pub const SETTINGS: &[Setting] = &[
    setting("kafka", "KEPT_KAFKA", None, "Kafka's brokers: host:port, comma separated"),
    setting("registry", "KEPT_REGISTRY", None, "the schema registry's address, Confluent's API"),
    secret(
        "postgres",
        "KEPT_POSTGRES",
        false,
        "Postgres, as a URL that psql takes; or file: and the path it stands in",
    ),
    secret("read_postgres", "KEPT_READ_POSTGRES", true, "Postgres of the read model, where it is another one"),
    setting("prefix", "KEPT_PREFIX", Some(""), "stands before every topic, group, subject and schema of a deployment"),
    setting(
        "partitions",
        "KEPT_PARTITIONS",
        Some("2"),
        "partitions of every topic keyed by order or SKU; fixed once made",
    ),
    setting("replication", "KEPT_REPLICATION", Some("1"), "copies of every topic"),
    setting("http", "KEPT_HTTP", Some("127.0.0.1:8080"), "listen address of the API and the pages"),
    setting("ops", "KEPT_OPS", Some("127.0.0.1:9464"), "listen address of /livez, /readyz and /metrics"),
    setting(
        "pages",
        "KEPT_PAGES",
        Some("auto"),
        "who sees the pages: auto (this machine, where http is a loopback address), open (whoever reaches the address; something in front asks them who they are), off",
    ),
    setting("slots", "KEPT_SLOTS", Some("8"), "most workers of one step at the same time, over all processes"),
    setting("batch.max_records", "KEPT_BATCH_MAX_RECORDS", Some("2000"), "most records in a batch"),
    setting(
        "batch.window_ms",
        "KEPT_BATCH_WINDOW_MS",
        Some("100"),
        "how old a batch's first record gets while more are gathered, in milliseconds",
    ),
    Setting {
        key: "kafka_properties",
        variable: "KEPT_KAFKA_PROPERTIES",
        default: None,
        optional: true,
        secret: true,
        about: "further client properties, TLS and SASL: a table in the file, name=value;name=value in the environment",
    },
];

fn names() -> String {
    SETTINGS.iter().map(|it| it.key).collect::<Vec<_>>().join(", ")
}

/// Client properties that may be set; any other is ours, and what we promise rests on it.
const PROPERTIES: &[&str] = &[
    "security.",
    "sasl.",
    "ssl.",
    "enable.ssl.certificate.verification",
    "https.",
    "client.rack",
    "broker.address.",
    "socket.keepalive.enable",
    "metadata.recovery.strategy",
];

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    pub max_records: usize,
    pub window_ms: u64,
}

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Kafka's brokers.
    pub kafka: String,
    /// The registry's address, without a slash at its end.
    pub registry: String,
    pub postgres: Secret,
    pub read_postgres: Option<Secret>,
    /// Stands before topics, groups, transactional ids, subjects and Postgres schemas.
    pub prefix: String,
    pub partitions: i32,
    pub replication: i32,
    pub http: String,
    pub ops: String,
    /// `auto`, `open` or `off`.
    pub pages: String,
    pub slots: i32,
    pub batch: Batch,
    pub kafka_properties: BTreeMap<String, Secret>,
}

/// A setting's value as `kept config` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub key: &'static str,
    pub variable: &'static str,
    pub about: &'static str,
    /// Without secrets. `None`: not set.
    pub value: Option<String>,
    pub origin: Origin,
}

impl Config {
    /// Reads every layer. `file`: the TOML file, else `KEPT_CONFIG`, else `kept.toml` where there is one.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Layers::read(file)?.config()
    }

    /// From these variables alone: no file, nothing of this process's own environment.
    pub fn of(environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let nowhere = Path::new("");
        Layers::of(nowhere, None, nowhere, environment)?.config()
    }

    /// How to reach Kafka as a member of `group` under `transactional_id`, reading `topics`; the deployment's prefix
    /// is put before both names.
    pub fn kafka_settings(&self, group: &str, transactional_id: &str, topics: &[Topic]) -> KafkaSettings {
        KafkaSettings {
            brokers: self.kafka.clone(),
            prefix: self.prefix.clone(),
            group: format!("{}{group}", self.prefix),
            transactional_id: format!("{}{transactional_id}", self.prefix),
            topics: topics.to_vec(),
            properties: self.client_properties(),
        }
    }

    /// Properties for a Kafka client of one's own.
    pub fn client_properties(&self) -> BTreeMap<String, String> {
        self.kafka_properties.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
    }

    /// The topic's name in this deployment.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// The registry subject of the topic's values in this deployment.
    pub fn subject(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.subject())
    }

    /// The prefix as the store takes it.
    pub fn store_prefix(&self) -> Prefix {
        Prefix::new(&self.prefix).expect("the prefix was checked when the configuration was read")
    }

    /// The read model's Postgres.
    pub fn read_url(&self) -> &str {
        self.read_postgres.as_ref().unwrap_or(&self.postgres).expose()
    }

    /// How long a batch is gathered.
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.batch.window_ms)
    }
}

/// What each layer said.
pub struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Layers {
    /// Reads every layer of this process. See [`Config::load`].
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::of(&stack_env_file(), file, Path::new(FILE), &environment)
    }

    fn of(
        stack: &Path,
        named: Option<&Path>,
        usual: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut values: BTreeMap<&'static str, (String, Origin)> = SETTINGS
            .iter()
            .filter_map(|it| it.default.map(|value| (it.key, (value.to_owned(), Origin::Default))))
            .collect();
        if let Some(text) = read(stack, false)? {
            stack_env(&text, stack, &mut values);
        }
        let named: Option<PathBuf> =
            named.map(Path::to_owned).or_else(|| environment.get("KEPT_CONFIG").map(PathBuf::from));
        let (file, must) = named.as_deref().map_or((usual, false), |file| (file, true));
        if let Some(text) = read(file, must)? {
            toml_file(&text, file, &mut values)?;
        }
        for setting in SETTINGS {
            if let Some(value) = environment.get(setting.variable).filter(|value| !value.is_empty()) {
                values.insert(setting.key, (value.clone(), Origin::Environment(setting.variable)));
            }
        }
        Ok(Self { values })
    }

    /// Every setting with its value and where that came from, secrets left out.
    pub fn shown(&self) -> Vec<Shown> {
        SETTINGS
            .iter()
            .map(|it| {
                let found = self.values.get(it.key);
                let value = found.map(|(value, _)| match it.key {
                    "kafka_properties" => hide_properties(value),
                    _ if it.secret => Secret::new(value.as_str()).place(),
                    _ => hide_user(value),
                });
                let origin = found.map_or(Origin::Default, |(_, origin)| origin.clone());
                Shown { key: it.key, variable: it.variable, about: it.about, value, origin }
            })
            .collect()
    }

    /// Checks every value.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let missing: Vec<String> = SETTINGS
            .iter()
            .filter(|it| !it.optional && !self.values.contains_key(it.key))
            .map(|it| format!("{} ({})", it.key, it.variable))
            .collect();
        if !missing.is_empty() {
            return Err(ConfigError::Missing(missing.join(", ")));
        }
        let prefix = self.text(
            "prefix",
            |it| Prefix::new(it).is_ok(),
            "a-z, 0-9 and _, at most 40 characters, beginning with neither a digit nor pg_",
        )?;
        let registry = self.text(
            "registry",
            |it| it.starts_with("http://") || it.starts_with("https://"),
            "an http:// or https:// address",
        )?;
        let properties = match self.values.get("kafka_properties") {
            Some((text, origin)) => properties(text, &origin.to_string())?,
            None => BTreeMap::new(),
        };
        Ok(Config {
            kafka: self.text("kafka", |it| it.split(',').all(host_and_port), "host:port, comma separated")?,
            registry: registry.trim_end_matches('/').to_owned(),
            postgres: self
                .postgres("postgres")?
                .ok_or_else(|| ConfigError::Missing("postgres (KEPT_POSTGRES)".into()))?,
            read_postgres: self.postgres("read_postgres")?,
            prefix,
            partitions: self.number("partitions", 1, 1_000)?,
            replication: self.number("replication", 1, 9)?,
            http: self.text("http", host_and_port, "host:port; port 0 takes a free one")?,
            ops: self.text("ops", host_and_port, "host:port; port 0 takes a free one")?,
            pages: self.text("pages", |it| ["auto", "open", "off"].contains(&it), "auto, open or off")?,
            slots: self.number("slots", 1, 1_000)?,
            batch: Batch {
                max_records: self.number("batch.max_records", 1, 50_000)?,
                window_ms: self.number("batch.window_ms", 1, 10_000)?,
            },
            kafka_properties: properties,
        })
    }

    fn value(&self, key: &str) -> (&str, String) {
        self.values.get(key).map_or(("", "default".into()), |(value, origin)| (value.as_str(), origin.to_string()))
    }

    fn text(&self, key: &str, fits: impl Fn(&str) -> bool, allowed: &str) -> Result<String, ConfigError> {
        let (value, place) = self.value(key);
        if fits(value) { Ok(value.to_owned()) } else { Err(refuse(place, key, allowed)) }
    }

    fn number<N: FromStr + PartialOrd + fmt::Display>(&self, key: &str, from: N, to: N) -> Result<N, ConfigError> {
        let (value, place) = self.value(key);
        match value.parse::<N>() {
            Ok(number) if from <= number && number <= to => Ok(number),
            _ => Err(refuse(place, key, &format!("a whole number from {from} to {to}"))),
        }
    }

    fn postgres(&self, key: &str) -> Result<Option<Secret>, ConfigError> {
        let Some((value, origin)) = self.values.get(key) else {
            return Ok(None);
        };
        let value = match value.strip_prefix("file:") {
            None => value.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| ConfigError::File { place: path.to_owned(), why: error.to_string() })?
                .trim()
                .to_owned(),
        };
        if value.starts_with("postgres://") || value.starts_with("postgresql://") {
            Ok(Some(Secret::new(value)))
        } else {
            Err(refuse(origin.to_string(), key, "a URL that psql takes, postgresql://user:password@host:port/database"))
        }
    }
}

fn refuse(place: String, key: &str, allowed: &str) -> ConfigError {
    ConfigError::Value { place, key: key.to_owned(), allowed: allowed.to_owned() }
}

fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.trim().is_empty() && port.parse::<u16>().is_ok())
}

/// A user and a password in an address are nobody's business.
fn hide_user(value: &str) -> String {
    if value.contains("://") && value.contains('@') { Secret::new(value).place() } else { value.to_owned() }
}

fn hide_properties(text: &str) -> String {
    let names: Vec<String> =
        text.split(';').filter_map(|pair| Some(format!("{}=***", pair.split_once('=')?.0.trim()))).collect();
    names.join(";")
}

fn properties(text: &str, place: &str) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let mut properties = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(refuse(place.to_owned(), "kafka_properties", "name=value, separated by ;"));
        };
        let name = name.trim();
        let known = |allowed: &&str| name == *allowed || allowed.ends_with('.') && name.starts_with(*allowed);
        if !PROPERTIES.iter().any(known) {
            let allowed =
                format!("one of {} (a name that ends in a dot stands for all below it)", PROPERTIES.join(", "));
            return Err(refuse(place.to_owned(), &format!("kafka_properties: {name}"), &allowed));
        }
        properties.insert(name.to_owned(), Secret::new(value));
    }
    Ok(properties)
}

fn read(path: &Path, must: bool) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if !must && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::File { place: path.display().to_string(), why: error.to_string() }),
    }
}

/// Lines KEY=VALUE. Names that are no setting are for others: the file is sourced by shells too.
fn stack_env(text: &str, path: &Path, values: &mut BTreeMap<&'static str, (String, Origin)>) {
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let name = name.trim().trim_start_matches("export ").trim();
        let value = value.trim().trim_matches(['"', '\'']);
        if let Some(setting) = SETTINGS.iter().find(|it| it.variable == name) {
            values.insert(setting.key, (value.to_owned(), Origin::File(path.display().to_string())));
        }
    }
}

fn toml_file(
    text: &str,
    path: &Path,
    values: &mut BTreeMap<&'static str, (String, Origin)>,
) -> Result<(), ConfigError> {
    let place = path.display().to_string();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // Its message quotes the line, which may hold a password; where and what is enough.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        ConfigError::File { place: format!("{place}:{line}"), why: error.message().to_owned() }
    })?;
    let mut flat: Vec<(String, toml::Value)> = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) if name != "kafka_properties" => {
                flat.extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => flat.push((name, value)),
        }
    }
    for (key, value) in flat {
        let Some(setting) = SETTINGS.iter().find(|it| it.key == key) else {
            return Err(ConfigError::Unknown { place, key });
        };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Table(table) if key == "kafka_properties" => {
                let mut pairs = Vec::new();
                for (name, value) in table {
                    let text = match value {
                        toml::Value::String(text) if !text.contains(';') => text,
                        toml::Value::Integer(number) => number.to_string(),
                        toml::Value::Boolean(yes) => yes.to_string(),
                        _ => return Err(refuse(place, &format!("kafka_properties: {name}"), "a text without ;")),
                    };
                    pairs.push(format!("{name}={text}"));
                }
                pairs.join(";")
            }
            _ => return Err(refuse(place, &key, "a text or a whole number")),
        };
        values.insert(setting.key, (value, Origin::File(place.clone())));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration that reaches nobody.
    pub(crate) fn bare() -> Config {
        Config {
            kafka: "127.0.0.1:1".into(),
            registry: "http://127.0.0.1:1".into(),
            postgres: Secret::new("postgresql://nobody@127.0.0.1:1/x"),
            read_postgres: None,
            prefix: String::new(),
            partitions: 1,
            replication: 1,
            http: "127.0.0.1:0".into(),
            ops: "127.0.0.1:0".into(),
            pages: "off".into(),
            slots: 1,
            batch: Batch { max_records: 1, window_ms: 1 },
            kafka_properties: BTreeMap::new(),
        }
    }

    const URL: &str = "postgresql://kept:hunter2@db:5432/kept?sslmode=disable";

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            [("KEPT_KAFKA", "a:1"), ("KEPT_REGISTRY", "http://r/"), ("KEPT_POSTGRES", URL)]
                .iter()
                .chain(pairs)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
        all.retain(|_, value| !value.is_empty());
        all
    }

    struct Files {
        folder: PathBuf,
    }

    impl Files {
        fn new(name: &str, stack: &str, toml: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("kept-config-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join("stack.env"), stack).expect("written");
            std::fs::write(folder.join("kept.toml"), toml).expect("written");
            Self { folder }
        }

        fn layers(&self, pairs: &[(&str, &str)]) -> Result<Layers, ConfigError> {
            Layers::of(&self.folder.join("stack.env"), None, &self.folder.join("kept.toml"), &environment(pairs))
        }

        fn config(&self, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
            self.layers(pairs)?.config()
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).expect("removed");
        }
    }

    #[test]
    fn the_page_about_configuration_says_what_can_be_set() {
        let page = include_str!("../../docs/configuration.md");
        let rows: Vec<String> = SETTINGS
            .iter()
            .map(|it| {
                let default = match it.default {
                    Some("") => "empty",
                    Some(value) => value,
                    None if it.optional => "–",
                    None => "must be set",
                };
                format!("| `{}` | `{}` | {default} | {} |", it.key, it.variable, it.about)
            })
            .collect();
        let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(found, rows);
    }

    #[test]
    fn the_later_layer_wins() {
        let files = Files::new(
            "later",
            "# written by kept up\nKEPT_PARTITIONS=3\nexport KEPT_PREFIX=\"stack_\"\nKEPT_HTTP=h:1\nOTHER=x\n",
            "prefix = \"file_\"\npartitions = 4\n[batch]\nwindow_ms = 20\n",
        );
        let config = files.config(&[("KEPT_PARTITIONS", "5")]).expect("it is whole");
        assert_eq!((config.partitions, config.prefix.as_str(), config.http.as_str()), (5, "file_", "h:1"));
        assert_eq!((config.batch.window_ms, config.batch.max_records, config.replication), (20, 2_000, 1));
        assert_eq!(config.registry, "http://r");
        assert_eq!(config.topic(Topic::OrdersHeld), "file_orders.held");
        assert_eq!(config.subject(Topic::OrdersHeld), "file_orders.held-value");
        let settings = config.kafka_settings("ledger", "ledger.0", &[Topic::OrdersHeld]);
        assert_eq!((settings.group.as_str(), settings.transactional_id.as_str()), ("file_ledger", "file_ledger.0"));
    }

    #[test]
    fn what_is_not_a_setting_is_refused_with_its_file_and_what_is() {
        for (text, key) in [("partitons = 3", "partitons"), ("[batch]\nsize = 1", "batch.size"), ("[x]\ny = 1", "x.y")]
        {
            let error = Files::new("unknown", "", text).config(&[]).expect_err("refused").to_string();
            assert!(error.contains("kept.toml") && error.contains(key) && error.contains("partitions"), "{error}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_with_what_is_allowed_and_without_being_repeated() {
        let cases = [
            ("KEPT_PARTITIONS", "0", "1 to 1000"),
            ("KEPT_PARTITIONS", "many-secret", "1 to 1000"),
            ("KEPT_REPLICATION", "-1", "1 to 9"),
            ("KEPT_PREFIX", "Shop-secret", "a-z, 0-9 and _"),
            ("KEPT_KAFKA", "broker-secret", "host:port"),
            ("KEPT_REGISTRY", "secret:8081", "http://"),
            ("KEPT_HTTP", "8080", "host:port"),
            ("KEPT_OPS", "x:99999", "host:port"),
            ("KEPT_POSTGRES", "host=secret", "psql takes"),
            ("KEPT_BATCH_WINDOW_MS", "0", "1 to 10000"),
            ("KEPT_KAFKA_PROPERTIES", "secret", "name=value"),
            ("KEPT_KAFKA_PROPERTIES", "isolation.level=secret", "sasl."),
        ];
        let files = Files::new("value", "", "");
        for (name, value, allowed) in cases {
            let error = files.config(&[(name, value)]).expect_err("refused").to_string();
            assert!(error.contains(name) && error.contains(allowed), "{name}={value}: {error}");
            assert!(!error.contains("secret"), "{name}: {error}");
        }
    }

    #[test]
    fn what_must_be_known_is_named_all_at_once() {
        let files = Files::new("missing", "", "");
        let error = files.config(&[("KEPT_KAFKA", ""), ("KEPT_POSTGRES", "")]).expect_err("refused").to_string();
        assert!(
            error.contains("KEPT_KAFKA") && error.contains("KEPT_POSTGRES") && error.contains("kept up"),
            "{error}"
        );
        assert!(!error.contains("KEPT_REGISTRY"), "{error}");
    }

    #[test]
    fn a_named_file_must_be_there_and_broken_toml_is_told_with_its_line_and_not_its_text() {
        let nowhere =
            Layers::of(Path::new("/no/stack"), Some(Path::new("/no/file.toml")), Path::new("x"), &environment(&[]));
        assert!(nowhere.err().expect("refused").to_string().starts_with("/no/file.toml: cannot be read"));
        let error = Files::new("broken", "", "partitions = 2\npostgres = \"hunter2\n")
            .config(&[])
            .expect_err("refused")
            .to_string();
        assert!(error.contains("kept.toml:2") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn nothing_that_prints_shows_a_secret() {
        let files = Files::new("secret", "", "[kafka_properties]\n\"sasl.password\" = \"hunter3\"\n");
        let layers = files.layers(&[("KEPT_READ_POSTGRES", "postgres://u:hunter4@h/d")]).expect("read");
        let config = layers.config().expect("whole");
        assert_eq!(config.postgres.expose(), URL);
        assert_eq!(config.client_properties()["sasl.password"], "hunter3");
        let json = serde_json::to_string(&config.postgres).expect("JSON");
        let printed = format!("{config:?} {} {json} {:?}", config.postgres, layers.shown());
        assert!(!printed.contains("hunter"), "{printed}");
        assert!(printed.contains("postgresql://***@db:5432/kept"), "{printed}");
    }

    #[test]
    fn a_secret_may_stand_in_a_file_of_its_own() {
        let files = Files::new("file", "", "");
        let path = files.folder.join("pg");
        std::fs::write(&path, format!("{URL}\n")).expect("written");
        let config = files.config(&[("KEPT_POSTGRES", &format!("file:{}", path.display()))]).expect("whole");
        assert_eq!(config.postgres.expose(), URL);
        assert!(files.config(&[("KEPT_POSTGRES", "file:/no/such")]).is_err());
    }
}
