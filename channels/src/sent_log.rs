//! The sender's own log: what was tried and what was accepted, on disk before it is said. `kept check` holds the
//! pipeline to it, so it must be true whatever happens to the sender.
//!
//! One JSON object a line. A line with `"accepted":false` is written before a send, one with `"accepted":true` after
//! it; a crash between them leaves an order that may or may not have arrived.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use kept_schemas::OrderId;
use serde::{Deserialize, Serialize};

/// One thing that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub order_id: OrderId,
    pub shop: String,
    /// The order's number.
    pub number: String,
    /// `order`, `payment` or `cancellation`.
    pub kind: String,
    /// Hex.
    pub body_sha256: String,
    pub accepted: bool,
    /// Lines with goods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// Units of goods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<i64>,
    /// Lines and charges, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_minor: Option<i64>,
}

/// A log that only grows.
pub struct SentLog {
    file: File,
    path: PathBuf,
}

impl SentLog {
    /// Opens `<dir>/sent-<name>.jsonl`, making both when they are not there. A line torn by a crash is cut off:
    /// nothing was said of it.
    pub fn open(dir: &Path, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(80).collect();
        let path = dir.join(format!("sent-{safe}.jsonl"));
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        cut_torn_line(&mut file)?;
        // The file's own name must survive a crash, too.
        File::open(dir)?.sync_all()?;
        Ok(Self { file, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes lines and waits until they are on disk.
    pub fn append<'a>(&mut self, lines: impl IntoIterator<Item = &'a Sent>) -> io::Result<()> {
        let mut text = Vec::with_capacity(1 << 14);
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        self.file.write_all(&text)?;
        self.file.sync_data()
    }

    /// What this log says was accepted: (order, kind, hash of the body).
    pub fn accepted(&self) -> io::Result<HashSet<(OrderId, String, String)>> {
        let mut found = HashSet::new();
        for line in BufReader::new(File::open(&self.path)?).lines() {
            let sent: Sent = serde_json::from_str(&line?)?;
            if sent.accepted {
                found.insert((sent.order_id, sent.kind, sent.body_sha256));
            }
        }
        Ok(found)
    }
}

fn cut_torn_line(file: &mut File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let tail = length.min(1 << 16);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    file.take(tail).read_to_end(&mut bytes)?;
    if bytes.last().is_none_or(|&last| last == b'\n') {
        return Ok(());
    }
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    file.set_len(length - tail + whole as u64)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: &str, accepted: bool) -> Sent {
        Sent {
            order_id: OrderId::of("shop", number),
            shop: "shop".into(),
            number: number.into(),
            kind: "order".into(),
            body_sha256: "00".into(),
            accepted,
            lines: Some(1),
            units: Some(2),
            total_minor: Some(3),
        }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_stays() {
        let dir = std::env::temp_dir().join(format!("kept-sent-log-{}", std::process::id()));
        let mut log = SentLog::open(&dir, "a b").unwrap();
        log.append(&[sent("1", false), sent("1", true), sent("2", false)]).unwrap();
        let path = log.path().to_owned();
        drop(log);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"order_id\":\"tor").unwrap();
        drop(file);
        let mut log = SentLog::open(&dir, "a b").unwrap();
        log.append(&[sent("3", true)]).unwrap();
        let accepted = log.accepted().unwrap();
        let numbers: Vec<bool> = ["1", "2", "3"]
            .iter()
            .map(|n| accepted.contains(&(OrderId::of("shop", n), "order".into(), "00".into())))
            .collect();
        assert_eq!(numbers, [true, false, true]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
