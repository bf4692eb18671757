//! The broker: one node that is its own controller (KRaft). Its settings are those that Kept needs of any broker, and
//! those that make one node of a few hundred MB enough.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rdkafka::{
    config::{ClientConfig, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer},
};

use super::{
    install::run_logged,
    ports::{Port, Ports},
    random,
};

pub struct Files {
    pub java: PathBuf,
    pub jars: PathBuf,
    pub data: PathBuf,
    pub log: PathBuf,
}

/// Writes the settings and, the first time, the empty data folder.
pub fn prepare(files: &Files, ports: &Ports, advertised: Option<&str>) -> Result<()> {
    fs::create_dir_all(&files.data).with_context(|| format!("make {}", files.data.display()))?;
    let settings = files.data.join("server.properties");
    write(&settings, &server_properties(&files.data, ports, advertised))?;
    write(&files.data.join("log4j2.properties"), LOG_SETTINGS)?;
    if !files.data.join("log/meta.properties").exists() {
        let mut format = java(files);
        format.args([
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "--cluster-id",
            &cluster_id()?,
            "--config",
        ]);
        run_logged(&files.log, "kafka's format", format.arg(&settings), Duration::from_secs(300))?;
    }
    Ok(())
}

pub fn command(files: &Files) -> Command {
    let mut command = java(files);
    command.args(["kafka.Kafka"]).arg(files.data.join("server.properties"));
    command
}

/// Whether it answers and is in service. (A broker that has not joined its own cluster yet names none.)
pub fn probe(address: &str) -> Result<(), String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("socket.connection.setup.timeout.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create()
        .map_err(|error| error.to_string())?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(3)).map_err(|error| error.to_string())?;
    if metadata.brokers().is_empty() { Err("no broker is in service yet".to_owned()) } else { Ok(()) }
}

fn java(files: &Files) -> Command {
    let mut command = Command::new(&files.java);
    command.current_dir(&files.data).env("LC_ALL", "C.UTF-8").env_remove("CLASSPATH");
    // With two cores and half a gigabyte the simplest collector is the cheapest one.
    command.args([
        "-Xms512m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
    ]);
    command.arg(format!("-Dlog4j2.configurationFile={}", files.data.join("log4j2.properties").display()));
    command.arg("-cp").arg(files.jars.join("*"));
    command
}

fn server_properties(data: &Path, ports: &Ports, advertised: Option<&str>) -> String {
    let listen = |port: Port| format!("127.0.0.1:{}", ports.get(port));
    let (kafka, direct, controller) = (listen(Port::Kafka), listen(Port::KafkaDirect), listen(Port::KafkaController));
    let advertised = advertised.unwrap_or(&kafka);
    format!(
        "# Written by `./kept up` at every start; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=CLIENTS://{kafka},DIRECT://{direct},CONTROLLER://{controller}
advertised.listeners=CLIENTS://{advertised},DIRECT://{direct}
inter.broker.listener.name=DIRECT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENTS:PLAINTEXT,DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}

# What Kept needs of any broker.
log.message.timestamp.type=LogAppendTime
message.max.bytes=1048576
offsets.retention.minutes=525600
auto.create.topics.enable=false

# One node.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=8
# Cut and compacted early, so that after a kill groups are loaded before their partition changes its leader again: where
# that overlaps, Kafka 4.3 goes on with older offsets than it had confirmed.
offsets.topic.segment.bytes=1048576
transaction.state.log.num.partitions=8
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# A transaction whose owner is gone is ended within a second of its time-out, not within ten.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=33554432
",
        data = data.join("log").display(),
    )
}

const LOG_SETTINGS: &str = "# Written by `./kept up` at every start.
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1} %m%n
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
# One line for each setting, at every start.
logger.config.name=org.apache.kafka.common.config
logger.config.level=WARN
";

/// Sixteen bytes in the letters that Kafka writes them in, of which the last holds two bits only.
fn cluster_id() -> Result<String> {
    Ok(format!("{}A", random::letters(21)?))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_can_stand_before_the_broker_while_the_direct_address_stays() {
        let folder = std::env::temp_dir().join(format!("kept-kafka-{}", std::process::id()));
        let ports = Ports::remembered(&folder, &folder).unwrap();
        fs::remove_file(&folder).unwrap();
        let text = server_properties(Path::new("/d"), &ports, Some("127.0.0.1:7"));
        let direct = format!("DIRECT://127.0.0.1:{}", ports.get(Port::KafkaDirect));
        assert!(text.contains(&format!("\nadvertised.listeners=CLIENTS://127.0.0.1:7,{direct}\n")), "{text}");
        assert!(
            text.contains(&format!("\nlisteners=CLIENTS://127.0.0.1:{},{direct},", ports.get(Port::Kafka))),
            "{text}"
        );
    }
}
