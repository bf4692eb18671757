//! Runs a command with servers to test on, and stops what it started for it: `with_servers cargo test`. The one place
//! that decides which servers tests run on: those that the environment names; else containers (testcontainers) where a
//! Docker engine answers; else processes of this machine, in a folder of their own.

use std::{
    process::{Command, ExitCode, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kept_stack::servers::{self, Addresses, Home, SERVERS, Server, Settings};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor, wait::LogWaitStrategy},
    runners::AsyncRunner,
};

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run() {
        Ok(status) => status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code.clamp(0, 255) as u8)),
        Err(error) => {
            eprintln!("with_servers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitStatus> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("which command? e.g. with_servers cargo test")?;
    let mut command = Command::new(program);
    command.args(arguments);
    // The command hears Ctrl-C too, and ends; we stay to stop the servers. A handler, unlike ignoring, is not inherited.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(signal, note as extern "C" fn(i32) as libc::sighandler_t) };
    }
    let named = SERVERS.iter().filter(|it| std::env::var_os(it.variable()).is_some_and(|it| !it.is_empty())).count();
    match named {
        0 if docker_answers() => in_containers(command),
        0 => native(command),
        _ if named == SERVERS.len() => {
            eprintln!("with_servers: on the servers that the environment names");
            supervise(command)
        }
        _ => bail!("KEPT_KAFKA, KEPT_REGISTRY and KEPT_POSTGRES: name all of them, or none"),
    }
}

extern "C" fn note(_: i32) {
    ASKED_TO_END.store(true, Ordering::Relaxed);
}

fn native(mut command: Command) -> Result<ExitStatus> {
    let usual = Home::from_env()?;
    let home = Home::at(usual.root().join("test"))?;
    let say = |line: &str| eprintln!("with_servers: {line}");
    say(&format!("on processes of this machine, in {}", home.root().display()));
    let settings = Settings { durable: false, ..Settings::default() };
    let status = servers::up(&home, settings, &[], &say).and_then(|up| {
        let addresses = up.addresses.context("servers of ours have addresses")?;
        name(&mut command, &addresses);
        supervise(command)
    });
    let well = status.as_ref().is_ok_and(ExitStatus::success);
    servers::down(&home, well, &say)?;
    if !well {
        say(&format!("the servers' logs are in {}", home.logs().display()));
    }
    status
}

fn in_containers(mut command: Command) -> Result<ExitStatus> {
    eprintln!("with_servers: in containers");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (addresses, containers) = runtime.block_on(start_containers())?;
    name(&mut command, &addresses);
    let status = supervise(command);
    runtime.block_on(async {
        for container in containers {
            container.rm().await.context("remove a container")?;
        }
        anyhow::Ok(())
    })?;
    status
}

/// The same versions and settings as the processes that `./kept up` starts. The registry keeps its schemas in memory:
/// it lives as long as the tests do.
async fn start_containers() -> Result<(Addresses, Vec<ContainerAsync<GenericImage>>)> {
    let postgres = GenericImage::new("postgres", "17.6")
        .with_exposed_port(5432.tcp())
        // Once while it makes the database, once for good.
        .with_wait_for(WaitFor::log(
            LogWaitStrategy::stderr("database system is ready to accept connections").with_times(2),
        ))
        .with_env_var("POSTGRES_USER", "kept")
        .with_env_var("POSTGRES_PASSWORD", "kept")
        .with_env_var("POSTGRES_DB", "kept")
        .with_cmd(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"])
        .start()
        .await
        .context("start Postgres in a container")?;
    // A broker tells its clients its address, so its port must be known before it starts.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut kafka = GenericImage::new("apache/kafka", "4.3.1")
        .with_wait_for(WaitFor::message_on_stdout("Kafka Server started"))
        .with_mapped_port(port, 9092.tcp())
        .with_startup_timeout(Duration::from_secs(120));
    for (key, value) in [
        ("KAFKA_NODE_ID", "1"),
        ("KAFKA_PROCESS_ROLES", "broker,controller"),
        ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@127.0.0.1:9093"),
        ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
        ("KAFKA_LISTENERS", "CLIENTS://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093"),
        ("KAFKA_ADVERTISED_LISTENERS", &format!("CLIENTS://127.0.0.1:{port}")),
        ("KAFKA_INTER_BROKER_LISTENER_NAME", "CLIENTS"),
        ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE", "LogAppendTime"),
        ("KAFKA_MESSAGE_MAX_BYTES", "1048576"),
        ("KAFKA_OFFSETS_RETENTION_MINUTES", "525600"),
        ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
        ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
        ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
        ("KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS", "1000"),
    ] {
        kafka = kafka.with_env_var(key, value);
    }
    let kafka = kafka.start().await.context("start Kafka in a container")?;
    let registry = GenericImage::new("apicurio/apicurio-registry", "3.3.3")
        .with_exposed_port(8080.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Listening on:"))
        .with_startup_timeout(Duration::from_secs(120))
        .start()
        .await
        .context("start the registry in a container")?;
    let host = registry.get_host().await?;
    let addresses = Addresses {
        kafka: format!("127.0.0.1:{port}"),
        registry: format!("http://{host}:{}/apis/ccompat/v7", registry.get_host_port_ipv4(8080.tcp()).await?),
        postgres: format!("postgresql://kept:kept@{host}:{}/kept", postgres.get_host_port_ipv4(5432.tcp()).await?),
    };
    Ok((addresses, vec![postgres, kafka, registry]))
}

fn name(command: &mut Command, addresses: &Addresses) {
    for server in SERVERS {
        command.env(Server::variable(server), addresses.of(server));
    }
}

/// Runs the command to its end, or until we are asked to end.
fn supervise(mut command: Command) -> Result<ExitStatus> {
    if ASKED_TO_END.load(Ordering::Relaxed) {
        bail!("asked to end");
    }
    let mut child = command.spawn().with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().context("wait for the command")? {
            return Ok(status);
        }
        if ASKED_TO_END.load(Ordering::Relaxed) {
            match asked {
                None => {
                    let pid = i32::try_from(child.id()).context("the system's process number")?;
                    // SAFETY: kill takes two numbers, and the process is our child, not yet waited for.
                    unsafe { libc::kill(pid, libc::SIGTERM) };
                    asked = Some(Instant::now());
                }
                Some(since) if since.elapsed() > Duration::from_secs(10) => child.kill().context("end the command")?,
                Some(_) => (),
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn docker_answers() -> bool {
    match std::env::var("KEPT_SERVERS").as_deref() {
        Ok("native") => return false,
        Ok("docker") => return true,
        _ => (),
    }
    let info =
        Command::new("docker").arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    info.is_ok_and(|it| it.success())
}
