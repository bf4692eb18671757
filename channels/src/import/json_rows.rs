//! Lines of JSON as rows: an object's fields are columns, those of an object inside it `ship_to.city`, and each entry of
//! the list that `file.rows` names is a row of its own. Numbers stay the digits they are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    ImportError,
    mapping::{Encoding, FileSpec},
    open::{Progress, open},
    rows::{MAX_ROWS, Row, windows_1252},
};

/// The most columns a file may have.
const MAX_COLUMNS: usize = 1_000;
/// How deep objects may lie in objects.
const MAX_DEPTH: usize = 8;

/// The rows of a file of JSON lines.
pub struct JsonRows {
    lines: BufReader<Box<dyn Read + Send>>,
    bytes: Vec<u8>,
    encoding: Encoding,
    list: Option<String>,
    columns: BTreeMap<String, usize>,
    ready: VecDeque<Row>,
    line: u64,
    progress: Progress,
}

impl JsonRows {
    pub fn open(
        path: &Path,
        spec: &FileSpec,
        header: &csv::StringRecord,
        progress: &Progress,
    ) -> Result<Self, ImportError> {
        let file = open(path, progress).map_err(|error| ImportError::Open(path.display().to_string(), error))?;
        Ok(Self {
            lines: BufReader::new(file),
            bytes: Vec::new(),
            encoding: spec.encoding,
            list: spec.rows.clone(),
            columns: header.iter().enumerate().map(|(at, name)| (name.to_owned(), at)).collect(),
            ready: VecDeque::new(),
            line: 0,
            progress: progress.clone(),
        })
    }

    /// The columns of a file: every field that any of its lines has, in order of their names.
    pub fn header(path: &Path, spec: &FileSpec, progress: &Progress) -> Result<csv::StringRecord, ImportError> {
        let mut file = Self::open(path, spec, &csv::StringRecord::new(), progress)?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        while file.next_line()? {
            // One that cannot be read is refused when its turn comes.
            let rows = file.rows().unwrap_or_default();
            names.extend(rows.into_iter().flatten().map(|(name, _)| name));
            if names.len() > MAX_COLUMNS {
                return Err(ImportError::Read(file.line, format!("the file has more than {MAX_COLUMNS} fields")));
            }
        }
        if file.line == 0 {
            return Err(ImportError::Empty(path.display().to_string()));
        }
        Ok(names.into_iter().collect::<Vec<_>>().into())
    }

    /// The next row; `None` at the end of the file.
    pub fn read(&mut self) -> Result<Option<Row>, ImportError> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Ok(Some(row));
            }
            if !self.next_line()? {
                return Ok(None);
            }
            let row = |values: Vec<(String, String)>, fault: Option<String>| {
                let mut fields = vec![String::new(); self.columns.len()];
                for (name, value) in values {
                    if let Some(at) = self.columns.get(&name) {
                        fields[*at] = value;
                    }
                }
                Row { no: self.line, fields: fields.into(), fault }
            };
            self.ready = match self.rows() {
                Ok(rows) => rows.into_iter().map(|values| row(values, None)).collect(),
                Err(fault) => VecDeque::from([row(Vec::new(), Some(fault))]),
            };
        }
    }

    fn next_line(&mut self) -> Result<bool, ImportError> {
        self.bytes.clear();
        let read = self.lines.read_until(b'\n', &mut self.bytes);
        read.map_err(|error| ImportError::Read(self.line + 1, error.to_string()))?;
        self.progress.row();
        self.line += u64::from(!self.bytes.is_empty());
        Ok(!self.bytes.is_empty())
    }

    /// The rows of the line at hand, or why it has none.
    fn rows(&self) -> Result<Vec<Vec<(String, String)>>, String> {
        let text = match self.encoding {
            Encoding::Utf8 => std::str::from_utf8(&self.bytes).map_err(|_| "is not UTF-8".to_owned())?.to_owned(),
            Encoding::Windows1252 => windows_1252(&self.bytes),
        };
        let mut flat = Flat { list: self.list.as_deref(), ..Flat::default() };
        // The library's message quotes nothing of the line.
        let whole: &RawValue = serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))?;
        if !whole.get().starts_with('{') {
            return Err("is not a JSON object".into());
        }
        flat.value("", whole, 0)?;
        let Flat { fields, entries, .. } = flat;
        if entries.is_empty() {
            return Ok(vec![fields]);
        }
        Ok(entries.into_iter().map(|entry| [fields.clone(), entry].concat()).collect())
    }
}

/// A line's fields, and those of each entry of its list.
#[derive(Default)]
struct Flat<'a> {
    list: Option<&'a str>,
    fields: Vec<(String, String)>,
    entries: Vec<Vec<(String, String)>>,
}

impl Flat<'_> {
    fn value(&mut self, name: &str, value: &RawValue, depth: usize) -> Result<(), String> {
        let text = value.get();
        match text.as_bytes() {
            // The column is there, and says nothing.
            b"null" => self.fields.push((name.to_owned(), String::new())),
            [b'{', ..] if depth == MAX_DEPTH => return Err(format!("has objects in more than {MAX_DEPTH} objects")),
            [b'{', ..] => {
                let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| "has a field twice".to_owned())?;
                for (field, value) in fields.0 {
                    let inside = if name.is_empty() { field } else { format!("{name}.{field}") };
                    self.value(&inside, value, depth + 1)?;
                }
            }
            [b'[', ..] if self.list == Some(name) => {
                let entries: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
                if entries.len() > MAX_ROWS {
                    return Err(format!("has {} rows in its list, more than {MAX_ROWS}", entries.len()));
                }
                for entry in entries {
                    let mut flat = Flat::default();
                    flat.value(name, entry, depth + 1)?;
                    self.entries.push(flat.fields);
                }
            }
            [b'"', ..] => {
                let text: String = serde_json::from_str(text).map_err(|error| error.to_string())?;
                self.fields.push((name.to_owned(), text));
            }
            _ => self.fields.push((name.to_owned(), text.to_owned())),
        }
        Ok(())
    }
}

/// An object's fields; one that comes twice is a fault, for nobody could tell which one is meant.
struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
