//! Deciding and doing live apart: neither the contract nor the decisions can reach a network, a broker or a database,
//! for no crate that can is among what they are built from. And a decision made again gives the same bytes, for nothing
//! that it is made with differs from run to run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Crates that do I/O, or exist to drive it.
const DOERS: &[&str] = &[
    "async-std",
    "axum",
    "hyper",
    "mio",
    "rdkafka",
    "rdkafka-sys",
    "reqwest",
    "rustls",
    "socket2",
    "tokio",
    "tokio-postgres",
    "ureq",
];

/// The names of all crates that `package` is built from, tests left out.
fn built_from(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_contract_and_the_decisions_are_built_without_anything_that_does_io() {
    for package in ["kept-schemas", "kept-processors"] {
        let crates = built_from(package);
        assert!(crates.iter().any(|it| it == "serde"), "{package}: the list is whole");
        let doers: Vec<&String> = crates.iter().filter(|it| DOERS.contains(&it.as_str())).collect();
        assert_eq!(doers, Vec::<&String>::new(), "{package}");
    }
}

#[test]
fn a_crate_that_does_io_would_be_noticed() {
    let crates = built_from("kept-runtime");
    for doer in ["rdkafka", "tokio", "tokio-postgres"] {
        assert!(crates.iter().any(|it| it == doer), "{doer}");
    }
}

/// What differs from run to run or from machine to machine: the order of hashed keys, floats, clocks, threads.
const CHANGING: &[&str] =
    &["HashMap", "HashSet", "RandomState", "f32", "f64", "SystemTime", "Instant", "thread", "random"];

/// The words of a source file that must not be there, each with its line. Comments may name them; tests have no need of
/// them either.
fn changing(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        found.extend(words.filter(|word| CHANGING.contains(word)).map(|word| format!("{word} in line {}", at + 1)));
    }
    found
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.push(path),
        }
    }
}

#[test]
fn decisions_are_made_with_nothing_that_differs_from_run_to_run() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 20, "the list is whole: {files:?}");
    let mut found = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).expect("text");
        found.extend(changing(&source).into_iter().map(|what| format!("{}: {what}", file.display())));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn what_differs_from_run_to_run_would_be_noticed() {
    for (line, named) in [
        ("use std::collections::HashMap;", "HashMap"),
        ("let all: std::collections::HashSet<i32> = it.collect();", "HashSet"),
        ("let share = total as f64;", "f64"),
        ("fn share(of: f32) {}", "f32"),
        ("let now = std::time::SystemTime::now();", "SystemTime"),
        ("let began = Instant::now();", "Instant"),
    ] {
        assert_eq!(changing(&format!("fn a() {{}}\n{line}\n")), vec![format!("{named} in line 2")]);
    }
    for line in ["// A HashMap would differ.", "let instant = 1;", "use std::collections::BTreeMap;"] {
        assert_eq!(changing(line), Vec::<String>::new(), "{line}");
    }
}
