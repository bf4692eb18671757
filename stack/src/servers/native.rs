//! The servers as processes of this machine: each can be started, stopped, killed, paused and started again on the same
//! port and data, alone. `up` and `down` go through here, and so does what breaks servers on purpose.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Addresses, Say, Server, env_file,
    home::Home,
    install::Installer,
    kafka,
    ports::{self, Port, Ports},
    postgres, registry,
};
use crate::processes::{Process, Stopped};

/// How long a server may take until it answers. A cold machine with a slow disk needs most of it.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// How long a server may take to put its things in order when asked to end.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// One that is there and has not answered for so long is hung, or was paused.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
const LAST_WORDS: usize = 20;
/// What a server dies of that is over a moment later: sessions of a killed Postgres end a little after it, and between
/// our look at a port and the server's own, somebody may take it.
const PASSING: [&str; 4] =
    ["pre-existing shared memory block", "lock file \"postmaster.pid\"", "Address already in use", "Address in use"];
const TRIES: u32 = 5;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a commit in Postgres waits for the disk.
    pub durable: bool,
    /// The address that the broker gives to its clients, where it is not its own: a proxy's. Whoever must go round the
    /// proxy uses [`Native::kafka_direct`].
    pub advertised_kafka: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { durable: true, advertised_kafka: None }
    }
}

pub struct Native {
    home: Home,
    ports: Ports,
    settings: Settings,
}

impl Native {
    pub fn open(home: Home, settings: Settings) -> Result<Self> {
        home.make()?;
        let ports = Ports::remembered(&home.ports_file(), home.root())?;
        Ok(Self { home, ports, settings })
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The process of a server, if it runs.
    pub fn process(&self, server: Server) -> Result<Option<Process>> {
        self.home.processes().running(server.name())
    }

    /// Where the broker really listens, whatever it advertises.
    pub fn kafka_direct(&self) -> String {
        format!("127.0.0.1:{}", self.ports.get(Port::KafkaDirect))
    }

    /// The address behind the advertised one: what a proxy has to pass on to.
    pub fn kafka_behind_proxy(&self) -> String {
        format!("127.0.0.1:{}", self.ports.get(Port::Kafka))
    }

    pub fn port(&self, server: Server) -> u16 {
        self.ports.get(server.port())
    }

    /// What clients are told; Postgres must have been started once, or it has no password yet.
    pub fn addresses(&self) -> Result<Addresses> {
        let password = fs::read_to_string(postgres::folder_of(&self.home)?.join("password"))
            .context("read Postgres's password (`./kept up` makes it)")?;
        let kafka = self.settings.advertised_kafka.clone().unwrap_or_else(|| self.kafka_behind_proxy());
        Ok(Addresses {
            kafka,
            registry: registry::url(self.port(Server::Registry)),
            postgres: postgres::url(self.port(Server::Postgres), password.trim()),
        })
    }

    /// Tells commands where the servers are.
    pub fn write_env(&self, which: &[Server]) -> Result<Addresses> {
        let addresses = self.addresses()?;
        let values: Vec<(&str, String)> =
            which.iter().map(|it| (it.variable(), addresses.of(*it).to_owned())).collect();
        env_file::write(&self.home.env_file(), "Written by `./kept up`: the servers it started.", &values)?;
        Ok(addresses)
    }

    /// Brings what these servers need and this machine has not, so that a start is only a start.
    pub fn install(&self, servers: &[Server], say: Say<'_>) -> Result<()> {
        let installer = Installer::new(&self.home, say);
        for server in servers {
            match server {
                Server::Postgres => installer.postgres().map(drop)?,
                Server::Kafka => installer.java().and(installer.kafka()).map(drop)?,
                Server::Registry => installer.java().and(installer.registry()).map(drop)?,
            }
        }
        Ok(())
    }

    /// Starts a server and waits until it answers. One that runs and answers is left alone; one that is there and does
    /// not answer is started anew. Says whether it was started.
    pub fn start(&mut self, server: Server, say: Say<'_>) -> Result<bool> {
        let started = self.launch(server, say)?;
        self.wait_ready(server, say)?;
        Ok(started)
    }

    /// Like [`Native::start`], without waiting for the answer.
    pub fn launch(&mut self, server: Server, say: Say<'_>) -> Result<bool> {
        if let Some(process) = self.process(server)? {
            if self.answers_within(server, ANSWER_WITHIN)? {
                return Ok(false);
            }
            say(&format!("{server} is there (process {}) and does not answer: starting it anew", process.pid));
            process.kill()?;
        }
        let ports: &[Port] = match server {
            Server::Postgres => &[Port::Postgres],
            Server::Kafka => &[Port::Kafka, Port::KafkaDirect, Port::KafkaController],
            Server::Registry => &[Port::Registry, Port::RegistryHealth],
        };
        for port in ports {
            self.keep_or_change(*port, server, say)?;
        }
        let name = server.name();
        let mut command = match server {
            Server::Postgres => {
                let files = self.postgres_files(say)?;
                postgres::prepare(&files)?;
                postgres::command(&files)
            }
            Server::Kafka => {
                let installer = Installer::new(&self.home, say);
                let files = kafka::Files {
                    java: installer.java()?,
                    jars: installer.kafka()?,
                    data: self.home.data().join("kafka"),
                    log: self.home.log(name),
                };
                kafka::prepare(&files, &self.ports, self.settings.advertised_kafka.as_deref())?;
                kafka::command(&files)
            }
            Server::Registry => {
                let installer = Installer::new(&self.home, say);
                let (java, jars) = (installer.java()?, installer.registry()?);
                let password = postgres::prepare(&self.postgres_files(say)?)?;
                registry::command(&java, &jars, &self.ports, postgres::ROLE, &password)
            }
        };
        let processes = self.home.processes();
        processes.spawn_detached(name, &mut command, &self.home.log(name))?;
        Ok(true)
    }

    /// Waits until the server answers. Fails, with the last lines of its log, when it ended or takes too long.
    pub fn wait_ready(&mut self, server: Server, say: Say<'_>) -> Result<()> {
        let began = Instant::now();
        let mut next_word = Duration::from_secs(5);
        let log = self.home.log(server.name());
        let processes = self.home.processes();
        let mut tries = 0;
        while let Err(trouble) = self.probe(server) {
            if self.process(server)?.is_none() {
                let words = processes.last_words(server.name(), LAST_WORDS)?;
                if tries == TRIES || !PASSING.iter().any(|it| words.contains(it)) {
                    bail!("{server} ended while starting; the end of {}:\n{words}", log.display());
                }
                tries += 1;
                thread::sleep(Duration::from_secs(1));
                self.launch(server, say)?;
            }
            if began.elapsed() > READY_WITHIN {
                let words = processes.last_words(server.name(), LAST_WORDS)?;
                bail!(
                    "{server} did not answer within {} s ({trouble}); the end of {}:\n{words}\n\
                     `./kept down` stops what did start.",
                    READY_WITHIN.as_secs(),
                    log.display(),
                );
            }
            if began.elapsed() > next_word {
                say(&format!("  {server}: starting, {} s …", next_word.as_secs()));
                next_word += Duration::from_secs(5);
            }
            thread::sleep(Duration::from_millis(100));
        }
        if server == Server::Postgres {
            let files = self.postgres_files(say)?;
            postgres::make_databases(&files, &postgres::prepare(&files)?)?;
        }
        Ok(())
    }

    /// Asks a server to end in good order.
    pub fn stop(&self, server: Server) -> Result<Stopped> {
        // Postgres would wait for its clients when asked with SIGTERM; SIGINT makes it send them away.
        let signal = if server == Server::Postgres { libc::SIGINT } else { libc::SIGTERM };
        if let Some(process) = self.process(server)? {
            process.signal_family(libc::SIGCONT)?;
        }
        self.home.processes().stop_with(server.name(), signal, STOP_WITHIN)
    }

    /// kill -9, Postgres's sessions too.
    pub fn kill(&self, server: Server) -> Result<()> {
        self.running(server)?.kill()
    }

    /// SIGSTOP, Postgres's sessions too.
    pub fn pause(&self, server: Server) -> Result<()> {
        self.running(server)?.signal_family(libc::SIGSTOP)
    }

    pub fn resume(&self, server: Server) -> Result<()> {
        self.running(server)?.signal_family(libc::SIGCONT)
    }

    /// Whether it answers; if not, what was heard instead.
    pub fn probe(&self, server: Server) -> Result<(), String> {
        match server {
            Server::Postgres => {
                let programs = Installer::new(&self.home, &|_| ()).postgres().map_err(|error| error.to_string())?;
                let files = self.files_with(programs).map_err(|error| error.to_string())?;
                postgres::probe(&files)
            }
            Server::Kafka => kafka::probe(&self.kafka_direct()),
            Server::Registry => registry::probe(self.port(Server::Registry)),
        }
    }

    fn answers_within(&self, server: Server, patience: Duration) -> Result<bool> {
        let until = Instant::now() + patience;
        loop {
            if self.probe(server).is_ok() {
                return Ok(true);
            }
            if Instant::now() > until || self.process(server)?.is_none() {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn running(&self, server: Server) -> Result<Process> {
        self.process(server)?.with_context(|| format!("{server} does not run"))
    }

    fn keep_or_change(&mut self, port: Port, server: Server, say: Say<'_>) -> Result<()> {
        let number = self.ports.get(port);
        // A server that was killed a moment ago may leave its port with a short delay.
        for _ in 0..10 {
            if ports::is_free(number) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        let other = self.ports.change(port, &self.home.ports_file())?;
        say(&format!("{server}: somebody else listens on port {number}, taking {other}"));
        Ok(())
    }

    fn postgres_files(&self, say: Say<'_>) -> Result<postgres::Files> {
        self.files_with(Installer::new(&self.home, say).postgres()?)
    }

    fn files_with(&self, programs: std::path::PathBuf) -> Result<postgres::Files> {
        postgres::Files::new(&self.home, programs, self.port(Server::Postgres), self.settings.durable)
    }
}
