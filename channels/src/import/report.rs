//! The report of an import: one CSV row for everything that was refused, left out or put together, with row numbers.
//! It holds no content of a row. A report that cannot be written never stops the import: it is said at the end.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// What happened to an order or a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Refused,
    LeftOut,
    Note,
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::LeftOut => "left out",
            Self::Note => "note",
        }
    }
}

/// A report on its way to disk: written beside its name and put in place when it is whole.
pub struct Report {
    path: PathBuf,
    /// The name it has until it is whole; `None` for a device, which is written as it is.
    draft: Option<PathBuf>,
    out: Option<BufWriter<File>>,
    lines: u64,
    failed: Option<io::Error>,
}

impl Report {
    /// Begins a report; a name that cannot be written at all is said before anything is sent.
    pub fn create(path: &Path) -> io::Result<Self> {
        let device = path.metadata().is_ok_and(|it| !it.is_file());
        let draft = (!device).then(|| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.part", std::process::id()));
            path.with_file_name(name)
        });
        let target = draft.as_deref().unwrap_or(path);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(target)?;
        let mut report = Self { path: path.to_owned(), draft, out: Some(BufWriter::new(file)), lines: 0, failed: None };
        report.write(&["what", "order", "first_row", "last_row", "rows", "reason"]);
        Ok(report)
    }

    /// One line; `rows` as a spreadsheet counts them.
    pub fn line(&mut self, what: What, order: &str, first_row: u64, last_row: u64, rows: u64, reason: &str) {
        self.lines += 1;
        let [first_row, last_row, rows] = [first_row, last_row, rows].map(|it| it.to_string());
        self.write(&[what.as_str(), order, &first_row, &last_row, &rows, reason]);
    }

    fn write(&mut self, fields: &[&str]) {
        let Some(out) = &mut self.out else { return };
        let text = fields.iter().map(|field| cell(field)).collect::<Vec<_>>().join(",");
        if let Err(error) = writeln!(out, "{text}") {
            self.failed = Some(error);
            self.out = None;
        }
    }

    /// Puts the report in place. The error says what is lost and what is not.
    pub fn finish(mut self) -> Result<PathBuf, String> {
        let written = match self.failed.take() {
            Some(error) => Err(error),
            None => self.settle(),
        };
        let Err(error) = written else { return Ok(self.path) };
        if let Some(draft) = &self.draft {
            // A half report would be taken for a whole one. When even this fails there is nothing more to do: the
            // draft's name says that it is one.
            let _ = std::fs::remove_file(draft);
        }
        Err(format!(
            "the report {} could not be written ({error}); it would have {} lines",
            self.path.display(),
            self.lines
        ))
    }

    fn settle(&mut self) -> io::Result<()> {
        let Some(out) = self.out.take() else { return Ok(()) };
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        match &self.draft {
            None => Ok(()),
            Some(draft) => {
                file.sync_all()?;
                std::fs::rename(draft, &self.path)
            }
        }
    }
}

/// A CSV field. A spreadsheet must not take it for a formula.
fn cell(text: &str) -> String {
    let text = match text.bytes().next() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r') => format!("'{text}"),
        _ => text.to_owned(),
    };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("kept-report-{name}-{}.csv", std::process::id()))
    }

    #[test]
    fn a_report_is_in_place_only_when_it_is_whole() {
        let path = place("whole");
        let mut report = Report::create(&path).unwrap();
        report.line(What::Refused, "=1+1", 2, 3, 2, "Qty: \"x\", wrong");
        assert!(!path.exists());
        report.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "what,order,first_row,last_row,rows,reason\nrefused,'=1+1,2,3,2,\"Qty: \"\"x\"\", wrong\"\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_full_disk_is_said_at_the_end_and_stops_nothing() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let mut report = Report::create(full).unwrap();
        for row in 0..10_000 {
            report.line(What::LeftOut, "C1", row, row, 1, "credits");
        }
        let error = report.finish().unwrap_err();
        assert!(error.contains("/dev/full") && error.contains("10000 lines"), "{error}");
        assert!(full.exists(), "the device is still there");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_said_at_once() {
        assert!(Report::create(Path::new("/nowhere/at/all.csv")).is_err());
    }
}
