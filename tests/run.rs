//! `kept run` as a process: what it says and with which code it ends. No server is needed: there is none where these
//! look for one.

use std::process::{Command, Output};

fn kept(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = std::env::temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kept"));
    command.args(arguments).env_clear().current_dir(folder);
    command
        .env("KEPT_KAFKA", "127.0.0.1:1")
        .env("KEPT_REGISTRY", "http://127.0.0.1:1")
        .env("KEPT_POSTGRES", "postgresql://kept:hunter2@127.0.0.1:1/kept")
        .env("KEPT_OPS", "127.0.0.1:0")
        .env("KEPT_HTTP", "127.0.0.1:0");
    for (name, value) in environment {
        command.env(name, value);
    }
    command.output().expect("kept starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn servers_that_are_not_there_are_waited_for_and_then_named_in_the_last_line() {
    let output = kept(&["run", "ledger", "--wait", "1"], &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("kept: ") && last.contains("postgres"), "{said}");
    // On the way there: one JSON object a line, and no password anywhere.
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with('{')).collect();
    assert!(lines.iter().any(|line| line.contains("waiting: ")), "{said}");
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line).expect("a log line is JSON");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_part_that_there_is_not_is_wrong_usage() {
    let output = kept(&["run", "ledgr"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("parts are all, steps, normalise"), "{}", said(&output));
}

#[test]
fn a_log_level_that_there_is_not_is_refused_with_what_is_meant() {
    let output = kept(&["run", "ledger", "--wait", "0"], &[("KEPT_LOG", "kept=loud")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("KEPT_LOG"), "{}", said(&output));
}

#[test]
fn the_effective_configuration_is_shown_without_secrets() {
    for arguments in [&["config"][..], &["config", "--json"][..]] {
        let output = kept(arguments, &[("KEPT_KAFKA_PROPERTIES", "sasl.password=hunter3")]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("127.0.0.1:1/kept") && text.contains("KEPT_POSTGRES"), "{text}");
        assert!(!text.contains("hunter"), "{text}");
    }
}

#[test]
fn a_closed_pipe_is_no_crash() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kept"))
        .args(["topology", "--markdown"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("kept starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(said(&output).is_empty(), "{}", said(&output));
    // 0 when all of it got into the pipe before it was closed.
    assert!(matches!(output.status.code(), Some(141 | 0)), "{:?}", output.status);
}
