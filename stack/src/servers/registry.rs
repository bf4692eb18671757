//! The schema registry, with its schemas in Postgres: its own default is memory, which forgets them at every restart.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use super::ports::{Port, Ports};

/// The database that it keeps schemas in.
pub const DATABASE: &str = "registry";

pub fn command(java: &Path, jars: &Path, ports: &Ports, user: &str, password: &str) -> Command {
    let mut command = Command::new(java);
    command.current_dir(jars).env("LC_ALL", "C.UTF-8");
    command.args(["-Xms96m", "-Xmx288m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"]);
    command.arg("-jar").arg(jars.join("quarkus-run.jar"));
    let database = format!("jdbc:postgresql://127.0.0.1:{}/{DATABASE}", ports.get(Port::Postgres));
    for (key, value) in [
        ("QUARKUS_HTTP_HOST", "127.0.0.1"),
        ("QUARKUS_HTTP_PORT", &ports.get(Port::Registry).to_string()),
        // Else it would listen on every address.
        ("QUARKUS_MANAGEMENT_HOST", "127.0.0.1"),
        ("QUARKUS_MANAGEMENT_PORT", &ports.get(Port::RegistryHealth).to_string()),
        ("APICURIO_STORAGE_KIND", "sql"),
        ("APICURIO_STORAGE_SQL_KIND", "postgresql"),
        ("APICURIO_DATASOURCE_URL", &database),
        ("APICURIO_DATASOURCE_USERNAME", user),
        ("APICURIO_DATASOURCE_PASSWORD", password),
        ("APICURIO_DATASOURCE_JDBC_INITIAL_SIZE", "1"),
        ("APICURIO_DATASOURCE_JDBC_MIN_SIZE", "1"),
        ("APICURIO_DATASOURCE_JDBC_MAX_SIZE", "8"),
    ] {
        command.env(key, value);
    }
    command
}

pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/apis/ccompat/v7")
}

/// Whether it answers what it will be asked; the answer comes from its database.
pub fn probe(port: u16) -> Result<(), String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let request = format!("GET /apis/ccompat/v7/subjects HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut first = [0; 64];
        let read = stream.read(&mut first)?;
        Ok(String::from_utf8_lossy(&first[..read]).lines().next().unwrap_or_default().to_owned())
    };
    match ask() {
        Ok(line) if line.contains(" 200 ") => Ok(()),
        Ok(line) => Err(format!("it answers {line:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_an_answer_of_200_is_health() {
        for (answer, healthy) in
            [("HTTP/1.1 200 OK\r\n\r\n[]", true), ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /apis/ccompat/v7/subjects "));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(probe(port).is_ok(), healthy, "{answer}");
            server.join().unwrap();
        }
    }
}
