//! Rows of a file, gathered into orders. Rows of one order need not be adjacent: a first pass finds the numbers
//! that come back later, and only those wait in memory for their last row.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    io::Read,
    path::Path,
};

use kept_schemas::order::MAX_LINES;

use super::{
    ImportError,
    json_rows::JsonRows,
    mapping::{Bound, Encoding, FileSpec, Format},
    open::{Progress, open},
};

/// The most rows one order may have: as many lines as an order may have, and as many charges again.
pub const MAX_ROWS: usize = 2 * MAX_LINES;
/// The most rows that may wait for the rest of their order.
const MAX_WAITING_ROWS: usize = 200_000;

/// A row as it was read.
#[derive(Debug, Clone)]
pub struct Row {
    /// As a spreadsheet counts: the header is row 1. Of JSON lines, the line.
    pub no: u64,
    pub fields: csv::StringRecord,
    /// Why it cannot be used.
    pub fault: Option<String>,
}

/// The rows of a file, one after the other.
pub struct Rows {
    header: csv::StringRecord,
    source: Source,
}

enum Source {
    Csv(CsvRows),
    Json(JsonRows),
}

impl Rows {
    /// Opens a file; `known`: its columns, when it was read before.
    pub fn open(
        path: &Path,
        spec: &FileSpec,
        known: Option<&csv::StringRecord>,
        progress: &Progress,
    ) -> Result<Self, ImportError> {
        match spec.format {
            Format::Csv => {
                let (header, rows) = CsvRows::open(path, spec, progress)?;
                Ok(Self { header, source: Source::Csv(rows) })
            }
            Format::Jsonl => {
                let header = match known {
                    Some(header) => header.clone(),
                    None => JsonRows::header(path, spec, progress)?,
                };
                let rows = JsonRows::open(path, spec, &header, progress)?;
                Ok(Self { header, source: Source::Json(rows) })
            }
        }
    }

    pub fn header(&self) -> &csv::StringRecord {
        &self.header
    }

    /// The next row; `None` at the end of the file.
    pub fn read(&mut self) -> Result<Option<Row>, ImportError> {
        match &mut self.source {
            Source::Csv(rows) => rows.read(self.header.len()),
            Source::Json(rows) => rows.read(),
        }
    }
}

struct CsvRows {
    reader: csv::Reader<Box<dyn Read + Send>>,
    encoding: Encoding,
    progress: Progress,
    bytes: csv::ByteRecord,
    row: u64,
}

impl CsvRows {
    fn open(path: &Path, spec: &FileSpec, progress: &Progress) -> Result<(csv::StringRecord, Self), ImportError> {
        let file = open(path, progress).map_err(|error| ImportError::Open(path.display().to_string(), error))?;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(u8::try_from(spec.delimiter).unwrap_or(b','))
            .flexible(true)
            .has_headers(false)
            .from_reader(file);
        let mut bytes = csv::ByteRecord::new();
        let some = reader.read_byte_record(&mut bytes).map_err(|error| ImportError::read(1, &error))?;
        if !some {
            return Err(ImportError::Empty(path.display().to_string()));
        }
        progress.row();
        let (header, fault) = decode(&bytes, spec.encoding);
        if let Some(fault) = fault {
            return Err(ImportError::Read(1, fault));
        }
        Ok((header, Self { reader, encoding: spec.encoding, progress: progress.clone(), bytes, row: 1 }))
    }

    fn read(&mut self, columns: usize) -> Result<Option<Row>, ImportError> {
        let some =
            self.reader.read_byte_record(&mut self.bytes).map_err(|error| ImportError::read(self.row + 1, &error))?;
        if !some {
            return Ok(None);
        }
        self.row += 1;
        self.progress.row();
        let (fields, mut fault) = decode(&self.bytes, self.encoding);
        if fields.len() != columns {
            fault = Some(format!("has {} fields, the first row has {columns}", fields.len()));
        }
        Ok(Some(Row { no: self.row, fields, fault }))
    }
}

/// Text of a row's bytes, and what is wrong with it.
fn decode(bytes: &csv::ByteRecord, encoding: Encoding) -> (csv::StringRecord, Option<String>) {
    match encoding {
        Encoding::Utf8 => match csv::StringRecord::from_byte_record(bytes.clone()) {
            Ok(fields) => (fields, None),
            Err(_) => (
                csv::StringRecord::from_byte_record_lossy(bytes.clone()),
                Some(
                    "is not UTF-8; if the file is of an older Windows program, say file.encoding = \"windows-1252\""
                        .into(),
                ),
            ),
        },
        Encoding::Windows1252 => (bytes.iter().map(windows_1252).collect::<Vec<_>>().into(), None),
    }
}

pub fn windows_1252(bytes: &[u8]) -> String {
    // 0x80 to 0x9F differ from Latin-1; five of them stand for nothing.
    const HIGH: [char; 32] = [
        '€', '\u{FFFD}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{FFFD}', 'Ž', '\u{FFFD}',
        '\u{FFFD}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{FFFD}', 'ž', 'Ÿ',
    ];
    bytes
        .iter()
        .map(|&byte| if (0x80..0xA0).contains(&byte) { HIGH[usize::from(byte - 0x80)] } else { char::from(byte) })
        .collect()
}

/// What the first pass found.
#[derive(Debug, Default)]
pub struct Scan {
    pub rows: u64,
    /// Hash of an order number that stands in several places → how many.
    scattered: HashMap<u64, u32>,
}

/// Reads the whole file once: every byte can be unpacked, and which order numbers come back after others. Takes about
/// 20 bytes of memory for each order.
pub fn scan(rows: &mut Rows, bound: &Bound) -> Result<Scan, ImportError> {
    let mut seen: HashSet<u64> = HashSet::new();
    let mut found = Scan::default();
    let mut last: Option<u64> = None;
    while let Some(row) = rows.read()? {
        found.rows += 1;
        let number = number_of(&row, bound);
        let hash = hash(&number);
        if last != Some(hash) && !number.is_empty() && !seen.insert(hash) {
            *found.scattered.entry(hash).or_insert(1) += 1;
        }
        last = Some(hash);
    }
    Ok(found)
}

/// The order number of a row; empty when it has none.
fn number_of(row: &Row, bound: &Bound) -> String {
    bound.number.value(&row.fields, &bound.notation).ok().flatten().unwrap_or_default()
}

fn hash(number: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    number.hash(&mut hasher);
    hasher.finish()
}

/// The rows of one order.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Empty: a row without an order number.
    pub number: String,
    /// At most [`MAX_ROWS`] of them.
    pub rows: Vec<Row>,
    /// How many there are in the file.
    pub row_count: u64,
    pub first_row: u64,
    pub last_row: u64,
    /// In how many places of the file they stand.
    pub places: u32,
    /// Why it could not be gathered.
    pub fault: Option<String>,
}

impl Group {
    fn add(&mut self, row: Row) {
        if self.row_count == 0 {
            self.first_row = row.no;
        }
        self.last_row = row.no;
        self.row_count += 1;
        if self.rows.len() < MAX_ROWS {
            self.rows.push(row);
        }
    }

    fn merge(&mut self, other: Group) {
        self.places += other.places;
        self.row_count += other.row_count;
        self.last_row = other.last_row;
        let room = MAX_ROWS.saturating_sub(self.rows.len());
        self.rows.extend(other.rows.into_iter().take(room));
        self.fault = self.fault.take().or(other.fault);
    }
}

/// Hands out each order's rows once, in file order of its last row.
pub fn groups(
    rows: &mut Rows,
    bound: &Bound,
    scan: &Scan,
    mut each: impl FnMut(Group) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut waiting: BTreeMap<String, Group> = BTreeMap::new();
    let mut waiting_rows = 0usize;
    let mut current = Group::default();
    let mut close = |mut group: Group, each: &mut dyn FnMut(Group) -> Result<(), ImportError>| {
        let Some(&places) = scan.scattered.get(&hash(&group.number)) else { return each(group) };
        if waiting_rows + group.rows.len() > MAX_WAITING_ROWS {
            group.rows.truncate(1);
            group.fault = Some("its rows lie too far apart in the file; sort the file by order number".into());
        }
        waiting_rows += group.rows.len();
        let number = group.number.clone();
        let met = match waiting.get_mut(&number) {
            Some(earlier) => {
                earlier.merge(group);
                earlier.places
            }
            None => {
                waiting.insert(number.clone(), group);
                1
            }
        };
        if met < places {
            return Ok(());
        }
        let Some(group) = waiting.remove(&number) else { return Ok(()) };
        waiting_rows = waiting_rows.saturating_sub(group.rows.len());
        each(group)
    };
    while let Some(row) = rows.read()? {
        let number = number_of(&row, bound);
        if current.row_count > 0 && (number != current.number || number.is_empty()) {
            close(std::mem::take(&mut current), &mut each)?;
        }
        if current.row_count == 0 {
            current = Group { number, places: 1, ..Group::default() };
        }
        current.add(row);
    }
    if current.row_count > 0 {
        close(current, &mut each)?;
    }
    // What two numbers with one hash leave behind.
    let mut rest: Vec<Group> = waiting.into_values().collect();
    rest.sort_by_key(|group| group.first_row);
    rest.into_iter().try_for_each(each)
}
