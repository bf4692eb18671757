//! The servers as containers: `docker-compose.yml`, where a Docker engine answers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Addresses, Say, Server, env_file,
    home::Home,
    install::{find, run_logged},
    ports::{Port, Ports},
};

/// Pulling the images the first time takes most of it.
const UP_WITHIN: Duration = Duration::from_secs(20 * 60);
const DOWN_WITHIN: Duration = Duration::from_secs(120);
/// Only loopback reaches it, and the file is there for everybody to read.
const PASSWORD: &str = "kept";

pub struct Compose {
    docker: PathBuf,
    file: PathBuf,
}

impl Compose {
    /// If a Docker engine answers, with its compose plugin, and our file is there.
    pub fn there() -> Option<Self> {
        let docker = find("docker")?;
        let file = compose_file()?;
        let answers = |arguments: &[&str]| {
            let mut command = Command::new(&docker);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            succeeds_within(&mut command, Duration::from_secs(10))
        };
        (answers(&["info"]) && answers(&["compose", "version"])).then_some(Self { docker, file })
    }

    pub fn up(&self, home: &Home, which: &[Server], say: Say<'_>) -> Result<Addresses> {
        home.make()?;
        let ports = Ports::remembered(&home.ports_file(), home.root())?;
        let addresses = addresses(&ports);
        env_file::write(&home.docker_mark(), "These servers run in containers.", &[])?;
        say("starting the servers in containers (docker compose up) …");
        let mut up = self.command(home, &ports);
        up.args(["up", "--detach", "--wait", "postgres", "kafka", "registry"]);
        run_logged(&home.log("docker"), "docker compose up", &mut up, UP_WITHIN)?;
        let values: Vec<(&str, String)> =
            which.iter().map(|it| (it.variable(), addresses.of(*it).to_owned())).collect();
        env_file::write(&home.env_file(), "Written by `./kept up`: servers in containers.", &values)?;
        Ok(addresses)
    }

    pub fn down(&self, home: &Home, data: bool) -> Result<()> {
        let ports = Ports::remembered(&home.ports_file(), home.root())?;
        let mut down = self.command(home, &ports);
        down.arg("down");
        if data {
            down.arg("--volumes");
        }
        run_logged(&home.log("docker"), "docker compose down", &mut down, DOWN_WITHIN)?;
        let mark = home.docker_mark();
        fs::remove_file(&mark).with_context(|| format!("remove {}", mark.display()))
    }

    fn command(&self, home: &Home, ports: &Ports) -> Command {
        let mut command = Command::new(&self.docker);
        // Two folders are two deployments.
        command.args(["compose", "--project-name", &format!("kept-{}", &home.tag()[..8])]);
        command.arg("--file").arg(&self.file);
        for (variable, port) in [
            ("KEPT_POSTGRES_PORT", Port::Postgres),
            ("KEPT_KAFKA_PORT", Port::Kafka),
            ("KEPT_REGISTRY_PORT", Port::Registry),
        ] {
            command.env(variable, ports.get(port).to_string());
        }
        command.env("KEPT_POSTGRES_PASSWORD", PASSWORD);
        command
    }
}

fn addresses(ports: &Ports) -> Addresses {
    Addresses {
        kafka: format!("127.0.0.1:{}", ports.get(Port::Kafka)),
        registry: super::registry::url(ports.get(Port::Registry)),
        postgres: super::postgres::url(ports.get(Port::Postgres), PASSWORD),
    }
}

/// Beside the script `./kept`, which says where it is in KEPT_ROOT.
fn compose_file() -> Option<PathBuf> {
    let root = env::var_os("KEPT_ROOT").map(PathBuf::from).unwrap_or_else(|| Path::new(".").to_owned());
    Some(root.join("docker-compose.yml")).filter(|it| it.is_file())
}

fn succeeds_within(command: &mut Command, patience: Duration) -> bool {
    let Ok(mut child) = command.spawn() else { return false };
    let until = std::time::Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if std::time::Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                // Ended or not, it did not answer.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_hangs_does_not_answer() {
        assert!(succeeds_within(&mut Command::new("true"), Duration::from_secs(10)));
        assert!(!succeeds_within(&mut Command::new("false"), Duration::from_secs(10)));
        let mut hung = Command::new("sleep");
        assert!(!succeeds_within(hung.arg("60"), Duration::from_millis(100)));
        assert!(!succeeds_within(&mut Command::new("there-is-no-such-program"), Duration::from_secs(1)));
    }
}
