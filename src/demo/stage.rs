//! One stage: a verb of our own in a process of its own, with the demo's addresses.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    ops::Range,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use kept_runtime::config::Config;

/// The first port that is tried for health and metrics.
pub const OPS: u16 = 9464;
/// How many ports are tried.
pub const PORT_RANGE: u16 = 50;

/// Our own program, told where everything is.
pub fn command(config: &Config, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find our own program")?);
    command
        .args(arguments)
        .env("KEPT_KAFKA", &config.kafka)
        .env("KEPT_REGISTRY", &config.registry)
        .env("KEPT_POSTGRES", config.postgres.expose())
        .env("KEPT_PREFIX", &config.prefix)
        .env("KEPT_HTTP", &config.http)
        .env("KEPT_OPS", &config.ops);
    Ok(command)
}

/// Runs a verb; gives what it printed. Fails with its message when it fails.
pub fn verb(config: &Config, arguments: &[&str]) -> Result<String> {
    let output = command(config, arguments)?.output().context("run our own program")?;
    if !output.status.success() {
        bail!("kept {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a verb whose output nobody needs while it goes well.
pub fn quiet(config: &Config, arguments: &[&str]) -> Result<()> {
    verb(config, arguments).map(drop)
}

/// A loopback address with the first free port of `ports`.
pub fn free_near(ports: Range<u16>) -> Result<String> {
    let (first, last) = (ports.start, ports.end - 1);
    ports
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("no port from {first} to {last} is free"))
}

/// The status of a GET; the body is left unread.
pub fn get(address: &str, path: &str) -> Result<u16> {
    let patience = Duration::from_secs(3);
    let to = address.to_socket_addrs().context("an address")?.next().context("an address")?;
    let mut stream = TcpStream::connect_timeout(&to, patience).context("connect")?;
    stream.set_read_timeout(Some(patience)).context("time-out")?;
    stream.set_write_timeout(Some(patience)).context("time-out")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").context("ask")?;
    let mut head = [0; 32];
    let read = stream.read(&mut head).context("read")?;
    let line = String::from_utf8_lossy(&head[..read]).into_owned();
    line.split_whitespace().nth(1).and_then(|status| status.parse().ok()).context("an answer that is not HTTP")
}
