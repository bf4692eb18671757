//! The senders' and the simulated world's own logs: JSON lines, each on disk before what it says was reported.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::facts::Logs;

/// Reads `sent-*.jsonl` and `world-*.jsonl` in `dir`. A directory that is not there has no logs.
pub fn read(dir: &Path) -> Result<Logs> {
    let mut logs = Logs::default();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(logs),
        Err(error) => return Err(error).with_context(|| format!("open {}", dir.display())),
    };
    let mut paths: Vec<_> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().context("list logs")?;
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.ends_with(".jsonl") {
            continue;
        }
        if name.starts_with("sent-") {
            logs.sent_files += 1;
            logs.sent.extend(lines(&path)?);
        } else if name.starts_with("world-") {
            logs.world_files += 1;
            logs.world.extend(lines(&path)?);
        }
    }
    Ok(logs)
}

/// A last line without its end was being written when its writer was killed: nothing was reported for it yet.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut read = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(value) => read.push(value),
            Err(_) if !line.ends_with('\n') => {}
            Err(error) => bail!("line {number} of {} cannot be read: {error}", path.display()),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_being_written_is_left_out_and_a_broken_one_is_named() {
        let dir = std::env::temp_dir().join(format!("kept-check-logs-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let line = r#"{"order_id":"01890a5d-ac96-8b66-a5b2-0b1f4a0b0c0d","kind":"order","accepted":true,"lines":2}"#;
        fs::write(dir.join("sent-a.jsonl"), format!("{line}\n{{\"order_id\":\"0")).expect("written");
        fs::write(dir.join("other.txt"), "x").expect("written");
        let logs = read(&dir).expect("it reads");
        assert_eq!((logs.sent_files, logs.sent.len(), logs.sent[0].lines), (1, 1, Some(2)));
        fs::write(dir.join("sent-b.jsonl"), "nonsense\n").expect("written");
        let message = format!("{:#}", read(&dir).expect_err("it is broken"));
        assert!(message.starts_with("line 1 of "), "{message}");
        fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(read(&dir).expect("no logs").sent_files, 0);
    }
}
