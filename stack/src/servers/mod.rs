//! Kafka, a schema registry and Postgres on this machine, for trying, testing and breaking: named ones are used as they
//! are, else a Docker engine runs them, else they run as processes of ours. Everything listens on loopback only.

mod docker;
pub(crate) mod env_file;
mod home;
mod install;
mod kafka;
mod native;
mod ports;
mod postgres;
mod random;
mod registry;

use std::{
    fmt, fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

pub use self::{
    home::Home,
    native::{Native, Settings},
};
use crate::processes::Stopped;

/// Tells a person what happens, one line at a time.
pub type Say<'a> = &'a dyn Fn(&str);

/// In the order they are started in: the registry keeps its schemas in Postgres.
pub const SERVERS: [Server; 3] = [Server::Postgres, Server::Kafka, Server::Registry];

/// How long one of Kept's own processes may take to finish its batch when asked to end.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    Postgres,
    Kafka,
    Registry,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::Registry => "registry",
        }
    }

    /// What names its address in the environment and in `stack.env`.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "KEPT_POSTGRES",
            Self::Kafka => "KEPT_KAFKA",
            Self::Registry => "KEPT_REGISTRY",
        }
    }

    fn port(self) -> ports::Port {
        match self {
            Self::Postgres => ports::Port::Postgres,
            Self::Kafka => ports::Port::Kafka,
            Self::Registry => ports::Port::Registry,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "Postgres",
            Self::Kafka => "Kafka",
            Self::Registry => "schema registry",
        })
    }
}

/// Where the servers are. No `Debug`: the URL of Postgres holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Addresses {
    pub kafka: String,
    pub registry: String,
    pub postgres: String,
}

impl Addresses {
    pub fn of(&self, server: Server) -> &str {
        match server {
            Server::Postgres => &self.postgres,
            Server::Kafka => &self.kafka,
            Server::Registry => &self.registry,
        }
    }
}

/// Who runs the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// All are named in the configuration: nothing was started.
    Configuration,
    Docker,
    Processes,
}

#[derive(Clone)]
pub struct Up {
    pub by: By,
    /// Those that `up` looks after; the others are named in the configuration.
    pub ours: Vec<Server>,
    pub started: Vec<Server>,
    pub addresses: Option<Addresses>,
}

/// Starts what is missing and waits until all answer. Twice is fine; what is half dead is repaired.
/// `named` are the servers that the configuration names: they are not started.
pub fn up(home: &Home, settings: Settings, named: &[Server], say: Say<'_>) -> Result<Up> {
    let ours: Vec<Server> = SERVERS.into_iter().filter(|it| !named.contains(it)).collect();
    if ours.is_empty() {
        return Ok(Up { by: By::Configuration, ours, started: Vec::new(), addresses: None });
    }
    let _lock = home.lock()?;
    let docker = match std::env::var("KEPT_SERVERS").as_deref() {
        Ok("native") => None,
        Ok("docker") => Some(docker::Compose::there().context("KEPT_SERVERS asks for docker, which does not answer")?),
        Ok(other) if !other.is_empty() => bail!("KEPT_SERVERS is `{other}`: it may be `docker` or `native`"),
        _ => docker::Compose::there(),
    };
    if let Some(compose) = docker {
        let addresses = compose.up(home, &ours, say)?;
        return Ok(Up { by: By::Docker, started: ours.clone(), ours, addresses: Some(addresses) });
    }
    let mut native = Native::open(home.clone(), settings)?;
    let mut wanted = ours.clone();
    // A registry of ours keeps its schemas in a Postgres of ours.
    if ours.contains(&Server::Registry) && !ours.contains(&Server::Postgres) {
        wanted.insert(0, Server::Postgres);
    }
    native.install(&wanted, say)?;
    let mut started = Vec::new();
    let mut waited_for: Vec<(Server, Instant)> = Vec::new();
    for server in wanted {
        if server == Server::Registry {
            // What it keeps its schemas in. The broker goes on starting meanwhile.
            for (postgres, began) in waited_for.extract_if(.., |it| it.0 == Server::Postgres) {
                ready(&mut native, postgres, began, say)?;
            }
        }
        let began = Instant::now();
        if native.launch(server, say)? {
            started.push(server);
            waited_for.push((server, began));
        } else {
            say(&format!("{server}: running already"));
        }
    }
    for (server, began) in waited_for {
        ready(&mut native, server, began, say)?;
    }
    let addresses = native.write_env(&ours)?;
    Ok(Up { by: By::Processes, ours, started, addresses: Some(addresses) })
}

fn ready(native: &mut Native, server: Server, began: Instant, say: Say<'_>) -> Result<()> {
    native.wait_ready(server, say)?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!("{server}: answers on 127.0.0.1:{}, {seconds:.1} s after its start", native.port(server)));
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Down {
    /// By name, in the order they were stopped.
    pub stopped: Vec<String>,
    pub data_deleted: bool,
}

/// Stops Kept's own processes first, then the servers. With `data`, deletes what they kept, and what was logged of it.
pub fn down(home: &Home, data: bool, say: Say<'_>) -> Result<Down> {
    if !home.root().exists() {
        return Ok(Down { stopped: Vec::new(), data_deleted: false });
    }
    let _lock = home.lock()?;
    let native = Native::open(home.clone(), Settings::default())?;
    let mut stopped = Vec::new();
    let is_server = |name: &str| SERVERS.iter().any(|it| it.name() == name);
    let processes = home.processes();
    for process in processes.all()?.iter().filter(|it| !is_server(&it.name)) {
        let how = processes.stop(&process.name, FINISH_WITHIN)?;
        tell(say, &process.name, how);
        stopped.push(process.name.clone());
    }
    for server in SERVERS.into_iter().rev() {
        match native.stop(server)? {
            Stopped::WasNotRunning => (),
            how => {
                tell(say, &server.to_string(), how);
                stopped.push(server.name().to_owned());
            }
        }
    }
    if home.docker_mark().exists() {
        let compose = docker::Compose::there().context("the servers run in containers, and Docker does not answer")?;
        compose.down(home, data)?;
        say("containers: stopped");
        stopped.push("docker".to_owned());
    }
    remove_file(home.env_file())?;
    if data {
        // By name: KEPT_HOME may be a folder that holds other things too.
        let postgres = postgres::folder_of(home)?;
        for folder in [postgres, home.data(), home.logs(), home.root().join("pids")] {
            remove_folder(folder)?;
        }
        remove_file(home.ports_file())?;
        say("data and logs: deleted");
    }
    Ok(Down { stopped, data_deleted: data })
}

fn tell(say: Say<'_>, name: &str, how: Stopped) {
    match how {
        Stopped::Killed => say(&format!("{name}: did not end in time and was killed")),
        _ => say(&format!("{name}: stopped")),
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub servers: Vec<ServerStatus>,
    /// Kept's own processes that go on in the background.
    pub processes: Vec<ProcessStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    pub server: Server,
    pub pid: Option<i32>,
    pub port: u16,
    /// Why it does not answer; none when it does.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProcessStatus {
    pub name: String,
    pub pid: i32,
    pub log: PathBuf,
}

/// How the servers and processes of this folder are. Starts nothing.
pub fn status(home: &Home) -> Result<Status> {
    let mut status = Status { servers: Vec::new(), processes: Vec::new() };
    if !home.root().exists() {
        return Ok(status);
    }
    let native = Native::open(home.clone(), Settings::default())?;
    let in_docker = home.docker_mark().exists();
    for server in SERVERS {
        let pid = native.process(server)?.map(|it| it.pid);
        let trouble = match pid {
            None if !in_docker => Some("not started".to_owned()),
            _ => native.probe(server).err(),
        };
        status.servers.push(ServerStatus { server, pid, port: native.port(server), trouble });
    }
    for process in home.processes().all()? {
        if !SERVERS.iter().any(|it| it.name() == process.name) {
            status.processes.push(ProcessStatus { name: process.name, pid: process.pid, log: process.log });
        }
    }
    Ok(status)
}

fn remove_file(path: PathBuf) -> Result<()> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_folder(path: PathBuf) -> Result<()> {
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
