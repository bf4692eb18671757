//! The board and the alerts name only what a running process tells.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::deployment::{Deployment, order};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Names of metrics in an expression: words that begin as ours or as the process's own do.
fn metrics(expression: &str) -> BTreeSet<String> {
    expression
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("kept_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

fn board() -> Value {
    let text = fs::read_to_string(deploy("grafana/dashboards/kept.json")).expect("the board is there");
    serde_json::from_str(&text).expect("the board is JSON")
}

#[test]
fn every_metric_of_the_board_and_the_alerts_is_told_by_a_running_process() {
    let mut kept = Deployment::new("board");
    kept.start_all();
    // Some metrics are there only once something happened: one order goes through, one waits.
    for (number, lines) in [("1", [("MUG", 1)]), ("2", [("RARE", 5)])] {
        let (status, body) = kept.http("POST", "/v1/orders", Some(&order(number, &lines).to_string()));
        assert_eq!(status, 202, "{body}");
    }
    kept.wait_status("1", "delivered");
    kept.wait_status("2", "held");
    let mut named = BTreeSet::new();
    for panel in board()["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            named.extend(metrics(target["expr"].as_str().expect("an expression")));
        }
    }
    let rules = fs::read_to_string(deploy("prometheus/rules/kept.yml")).expect("the rules are there");
    rules.lines().filter(|line| line.trim_start().starts_with("expr:")).for_each(|line| named.extend(metrics(line)));
    assert!(named.len() > 25, "{named:?}");
    let missing = crate::deployment::wait_for("the metrics", || {
        let (status, page) = kept.get_ops("/metrics")?;
        assert_eq!(status, 200);
        let told: BTreeSet<&str> = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let missing: Vec<&String> = named.iter().filter(|name| !told.contains(name.as_str())).collect();
        // Gauges of the deployment are asked for every few seconds.
        if missing.iter().all(|name| !name.starts_with("kept_open_holds")) { Some(json!(missing)) } else { None }
    });
    assert_eq!(missing, json!([]), "named, and told by nobody");
    kept.ok(&["check"]);
}

#[test]
fn the_panels_of_the_board_do_not_overlap_and_each_says_what_it_shows() {
    let board = board();
    let panels = board["panels"].as_array().expect("panels");
    let place = |panel: &Value, side: &str| panel["gridPos"][side].as_u64().expect("a place");
    let mut ids = BTreeSet::new();
    for (at, panel) in panels.iter().enumerate() {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "two panels of one id");
        if panel["type"] != "row" {
            let title = panel["title"].as_str().expect("a title");
            assert!(panel["description"].as_str().is_some_and(|it| !it.is_empty()), "{title} says nothing");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        }
        for other in &panels[at + 1..] {
            let apart = |side: &str, size: &str| {
                place(panel, side) + place(panel, size) <= place(other, side)
                    || place(other, side) + place(other, size) <= place(panel, side)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{} and {} overlap", panel["title"], other["title"]);
        }
    }
}

#[test]
fn promtool_accepts_the_alerts() {
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(deploy("prometheus/rules/kept.yml"))
        .output()
        .expect("promtool is there (Debian's package prometheus)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
