//! `kept up` and `kept down`, as a person uses them, on servers of their own in a folder of their own: twice, with a
//! killed broker, a hung registry and a port that somebody else took.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
};

struct Home(PathBuf);

impl Home {
    fn kept(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kept"));
        for variable in ["KEPT_KAFKA", "KEPT_REGISTRY", "KEPT_POSTGRES", "KEPT_CONFIG"] {
            command.env_remove(variable);
        }
        // Containers cannot be looked at from here.
        command.env("KEPT_HOME", &self.0).env("KEPT_SERVERS", "native").current_dir(std::env::temp_dir());
        command.args(arguments).output().expect("kept starts")
    }

    fn well(&self, arguments: &[&str]) -> String {
        let out = self.kept(arguments);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "kept {arguments:?}: {said}{}", String::from_utf8_lossy(&out.stdout));
        said + &String::from_utf8_lossy(&out.stdout)
    }

    fn values(&self, file: &str) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.0.join(file)).expect("it is there");
        text.lines().filter_map(|it| it.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
    }

    fn signal(&self, server: &str, signal: i32) {
        let text = fs::read_to_string(self.0.join(format!("pids/{server}.json"))).expect("it was started");
        let process: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let pid = i32::try_from(process["pid"].as_i64().expect("a number")).expect("a process number");
        // SAFETY: kill takes two numbers; the process is one that this test started a moment ago.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{server} runs");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kept(&["down", "--data"]);
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

#[test]
fn servers_start_are_repaired_and_stop() {
    let home = Home(std::env::temp_dir().join(format!("kept-servers-{}", std::process::id())));

    assert!(!home.kept(&["status"]).status.success(), "nothing was started yet");
    home.well(&["up", "--no-fsync"]);
    home.well(&["status"]);
    let first = home.values("stack.env");
    assert_eq!(first.keys().collect::<Vec<_>>(), ["KEPT_KAFKA", "KEPT_POSTGRES", "KEPT_REGISTRY"]);

    let again = home.well(&["up", "--no-fsync"]);
    assert!(again.contains("all servers were running"), "{again}");
    assert_eq!(home.values("stack.env"), first);

    // One dead, one that hears nothing: both come back where they were.
    home.signal("kafka", libc::SIGKILL);
    home.signal("registry", libc::SIGSTOP);
    assert!(!home.kept(&["status"]).status.success(), "two servers do not answer");
    let repaired = home.well(&["up", "--no-fsync"]);
    assert!(repaired.contains("Postgres: running already"), "{repaired}");
    home.well(&["status"]);
    assert_eq!(home.values("stack.env"), first);

    home.well(&["down"]);
    let idle = home.well(&["down"]);
    assert!(idle.contains("nothing was running"), "{idle}");
    assert!(!home.0.join("stack.env").exists(), "addresses where nobody answers");

    // Somebody took the broker's port meanwhile.
    let port: u16 = home.values("ports.env")["KAFKA"].parse().expect("a port");
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("the broker has gone");
    home.well(&["up", "--no-fsync"]);
    home.well(&["status"]);
    let moved = home.values("stack.env");
    assert_ne!(moved["KEPT_KAFKA"], first["KEPT_KAFKA"]);
    assert_eq!(moved["KEPT_POSTGRES"], first["KEPT_POSTGRES"], "what is free stays, and so does the data's password");
    drop(taken);

    home.well(&["down", "--data"]);
    assert!(!home.0.join("data").exists());
}

#[test]
fn servers_that_the_configuration_names_are_not_started() {
    let home = Home(std::env::temp_dir().join(format!("kept-named-{}", std::process::id())));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kept"));
    command.env("KEPT_HOME", &home.0).current_dir(std::env::temp_dir()).env_remove("KEPT_CONFIG");
    command.env("KEPT_KAFKA", "broker.example:9092").env("KEPT_REGISTRY", "http://registry.example");
    command.env("KEPT_POSTGRES", "postgresql://me:secret@db.example/orders").args(["up", "--json"]);
    let out = command.output().expect("kept starts");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["by"], "configuration");
    assert_eq!(answer["started"], serde_json::json!([]));
    assert!(!said.contains("secret"), "{said}");
    fs::create_dir_all(&home.0).expect("a folder for the end of this test to remove");
}
