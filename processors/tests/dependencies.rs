//! Deciding and doing live apart: neither the contract nor the decisions can reach a network, a broker or a database,
//! for no crate that can is among what they are built from.

use std::process::Command;

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
