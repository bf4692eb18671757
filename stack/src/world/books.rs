//! The simulated world's own books: a file of JSON lines, on the disk before anybody is told. The checker compares
//! them with what Kept knows. A line may stand there twice after a restart, under the same outcome id: one deed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use kept_schemas::{Micros, inputs::OutcomeKind};
use serde::Deserialize;
use serde_json::json;

use super::plan::Report;

/// The file's name in the folder of logs.
pub const FILE: &str = "world-simulator.jsonl";

/// The books, open for one writer.
pub struct Books {
    file: File,
    path: PathBuf,
}

/// What must be known again after a restart.
#[derive(Deserialize)]
struct Entry {
    fulfilment_id: String,
    kind: String,
    at: Micros,
}

impl Books {
    /// Opens the books in `dir`, and says which fulfilment orders were withdrawn in time, and when: the one thing
    /// that cannot be worked out again.
    pub fn open(dir: &Path) -> Result<(Self, BTreeMap<String, Micros>)> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        // Sound: the descriptor is open as long as `file` is.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            bail!("another simulator writes {}; there can be one at a time", path.display());
        }
        let withdrawn = read(&mut file).with_context(|| format!("read {}", path.display()))?;
        Ok((Self { file, path }, withdrawn))
    }

    /// Writes these reports down; they are on the disk when it returns.
    pub fn append(&mut self, reports: &[Report]) -> Result<()> {
        let mut text = Vec::with_capacity(reports.len() * 320);
        for report in reports {
            let it = &report.outcome;
            let line = json!({
                "fulfilment_id": it.fulfilment_id, "order_id": it.order_id, "kind": it.kind,
                "outcome_id": it.outcome_id, "event_id": report.event_id(), "shipment_id": it.shipment_id,
                "lines": it.lines, "parcels": it.parcels.len(), "at": it.at, "repeated": report.repeated,
                "simulated": true,
            });
            serde_json::to_writer(&mut text, &line).context("write a line")?;
            text.push(b'\n');
        }
        self.file
            .write_all(&text)
            .and_then(|()| self.file.sync_data())
            .with_context(|| format!("write {}", self.path.display()))
    }
}

/// Reads to the last whole line and cuts off what follows it: a line that was being written when its writer was
/// killed; nobody was told of it.
fn read(file: &mut File) -> io::Result<BTreeMap<String, Micros>> {
    let mut withdrawn = BTreeMap::new();
    let mut whole = 0u64;
    let mut reader = BufReader::new(&mut *file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 || line.last() != Some(&b'\n') {
            break;
        }
        whole += length as u64;
        let entry: Entry = serde_json::from_slice(&line).map_err(|error| {
            io::Error::new(ErrorKind::InvalidData, format!("the line that ends at byte {whole}: {error}"))
        })?;
        if OutcomeKind::of(&entry.kind) == OutcomeKind::Withdrawn {
            withdrawn.insert(entry.fulfilment_id, entry.at);
        }
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::End(0))?;
    Ok(withdrawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kept_schemas::inputs::OutcomeReceived;

    fn report(id: &str, kind: OutcomeKind, at: i64) -> Report {
        let outcome = OutcomeReceived {
            outcome_id: format!("{id}:{kind}"),
            fulfilment_id: id.into(),
            kind,
            at: Micros(at),
            simulated: true,
            ..Default::default()
        };
        Report { due: Micros(at), outcome, repeated: false }
    }

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("kept-books-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn withdrawals_are_known_again_after_a_kill_in_the_middle_of_a_line() {
        let dir = dir("torn");
        let (mut books, before) = Books::open(&dir).expect("opens");
        assert_eq!(before, BTreeMap::new());
        books
            .append(&[report("f-1", OutcomeKind::Picked, 1), report("f-2", OutcomeKind::Withdrawn, 2)])
            .expect("written");
        drop(books);
        let path = dir.join(FILE);
        let whole = fs::metadata(&path).expect("there").len();
        let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(b"{\"fulfilment_id\":\"f-3\",\"kind\":\"withd").expect("written");
        let (mut books, after) = Books::open(&dir).expect("opens");
        assert_eq!(after, BTreeMap::from([("f-2".to_owned(), Micros(2))]));
        assert_eq!(fs::metadata(&path).expect("there").len(), whole);
        books.append(&[report("f-4", OutcomeKind::Withdrawn, 4)]).expect("written");
        drop(books);
        assert_eq!(Books::open(&dir).expect("opens").1.len(), 2);
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn two_simulators_never_write_the_same_books() {
        let dir = dir("two");
        let first = Books::open(&dir).expect("opens");
        let error = Books::open(&dir).map(|_| ()).expect_err("the first has them");
        assert!(error.to_string().starts_with("another simulator writes "), "{error}");
        drop(first);
        assert!(Books::open(&dir).is_ok());
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_broken_line_is_named_and_nothing_is_cut_off() {
        let dir = dir("broken");
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join(FILE), "nonsense\n").expect("written");
        let error = Books::open(&dir).map(|_| ()).expect_err("it is broken");
        assert!(format!("{error:#}").contains("the line that ends at byte 9"), "{error:#}");
        assert_eq!(fs::read_to_string(dir.join(FILE)).expect("there"), "nonsense\n");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
