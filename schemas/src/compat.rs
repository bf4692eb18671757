//! What a change of a schema would break, field by field. `kept topics apply` asks before it registers anything, and
//! a test asks for every released version.
//!
//! The rules are Avro's for schema resolution, and one more: a number must keep its meaning, so that milliseconds do
//! not become microseconds because both are a long.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{Name, RecordField, RecordSchema},
};

use crate::topics::Compatibility;

/// Every reason why `new` may not follow `old` on a topic with this rule, each with its field; none: it may.
pub fn breaks(old: &Schema, new: &Schema, compatibility: Compatibility) -> Vec<String> {
    let (old, new) = (Names::of(old), Names::of(new));
    let mut found = Vec::new();
    Look { writer: &old, reader: &new, direction: Direction::Backward, found: &mut found, open: Vec::new() }.top();
    if compatibility == Compatibility::FullTransitive {
        Look { writer: &new, reader: &old, direction: Direction::Forward, found: &mut found, open: Vec::new() }.top();
    }
    found.dedup();
    found
}

/// A schema with its named types at hand.
struct Names<'a> {
    top: &'a Schema,
    named: HashMap<&'a Name, &'a Schema>,
}

impl<'a> Names<'a> {
    fn of(top: &'a Schema) -> Self {
        let mut names = Self { top, named: HashMap::new() };
        names.gather(top);
        names
    }

    fn gather(&mut self, schema: &'a Schema) {
        match schema {
            Schema::Record(record) => {
                self.named.insert(&record.name, schema);
                record.fields.iter().for_each(|field| self.gather(&field.schema));
            }
            Schema::Enum(it) => drop(self.named.insert(&it.name, schema)),
            Schema::Fixed(it) => drop(self.named.insert(&it.name, schema)),
            Schema::Array(it) => self.gather(&it.items),
            Schema::Map(it) => self.gather(&it.types),
            Schema::Union(it) => it.variants().iter().for_each(|variant| self.gather(variant)),
            _ => {}
        }
    }

    fn resolve(&self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.named.get(name).copied().unwrap_or(schema),
            _ => schema,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// New readers, older records.
    Backward,
    /// Readers of before, newer records.
    Forward,
}

struct Look<'a, 'b> {
    writer: &'b Names<'a>,
    reader: &'b Names<'a>,
    direction: Direction,
    found: &'b mut Vec<String>,
    /// Pairs of records being compared: one may hold itself.
    open: Vec<(&'a Name, &'a Name)>,
}

impl<'a> Look<'a, '_> {
    fn top(&mut self) {
        self.compare(self.writer.top, self.reader.top, "");
    }

    fn say(&mut self, path: &str, what: String) {
        let field = if path.is_empty() { "the record".to_owned() } else { format!("field {path}") };
        let whom = match self.direction {
            Direction::Backward => "records written before could not be read",
            Direction::Forward => "readers built before could not read new records",
        };
        self.found.push(format!("{field} {what}: {whom}"));
    }

    /// Can what `writer` describes be read as `reader` says?
    fn compare(&mut self, writer: &'a Schema, reader: &'a Schema, path: &str) {
        let (writer, reader) = (self.writer.resolve(writer), self.reader.resolve(reader));
        match (writer, reader) {
            (Schema::Union(writers), _) => {
                for variant in writers.variants() {
                    self.one_of(variant, reader, path);
                }
            }
            (_, Schema::Union(_)) => self.one_of(writer, reader, path),
            (Schema::Record(writer), Schema::Record(reader)) => self.records(writer, reader, path),
            (Schema::Array(writer), Schema::Array(reader)) => {
                self.compare(&writer.items, &reader.items, &format!("{path}[]"));
            }
            (Schema::Map(writer), Schema::Map(reader)) => {
                self.compare(&writer.types, &reader.types, &format!("{path}{{}}"));
            }
            (Schema::Enum(written), Schema::Enum(read)) => {
                let gone: Vec<&str> =
                    written.symbols.iter().filter(|it| !read.symbols.contains(it)).map(String::as_str).collect();
                if !gone.is_empty() && read.default.is_none() {
                    self.say(path, format!("has words the reader does not know ({})", gone.join(", ")));
                }
            }
            _ if widens(writer, reader) => {}
            _ => {
                let what = match self.direction {
                    Direction::Backward => format!("changes from {} to {}", kind(writer), kind(reader)),
                    Direction::Forward => format!("changes from {} to {}", kind(reader), kind(writer)),
                };
                self.say(path, what);
            }
        }
    }

    /// One side is a union: a variant of the reader, or the reader itself, must take what is written.
    fn one_of(&mut self, writer: &'a Schema, reader: &'a Schema, path: &str) {
        let readers = match reader {
            Schema::Union(it) => it.variants(),
            other => std::slice::from_ref(other),
        };
        let writer = self.writer.resolve(writer);
        match readers.iter().find(|it| alike(writer, self.reader.resolve(it))) {
            Some(variant) => self.compare(writer, variant, path),
            None => self.say(path, format!("may be {}, which the other side does not take", kind(writer))),
        }
    }

    fn records(&mut self, writer: &'a RecordSchema, reader: &'a RecordSchema, path: &str) {
        if writer.name.name() != reader.name.name() {
            self.say(path, format!("changes its name ({}, {})", writer.name.name(), reader.name.name()));
        }
        if self.open.contains(&(&writer.name, &reader.name)) {
            return;
        }
        self.open.push((&writer.name, &reader.name));
        for field in &reader.fields {
            let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            let is_it = |it: &&RecordField| it.name == field.name || field.aliases.contains(&it.name);
            match writer.fields.iter().find(is_it) {
                Some(written) => self.compare(&written.schema, &field.schema, &path),
                None if field.default.is_some() => {}
                None if self.direction == Direction::Backward => {
                    self.say(&path, "is new and has no default".to_owned());
                }
                None => self.say(&path, "is gone and had no default".to_owned()),
            }
        }
        self.open.pop();
    }
}

/// Equal, or a number that fits into the other without changing what it means.
fn widens(writer: &Schema, reader: &Schema) -> bool {
    use Schema::{Bytes, Double, Float, Int, Long, String};
    match (writer, reader) {
        (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double) | (String, Bytes) | (Bytes, String) => {
            true
        }
        (Schema::Fixed(one), Schema::Fixed(other)) => one.size == other.size && one.name.name() == other.name.name(),
        _ => kind(writer) == kind(reader),
    }
}

/// True when `reader` is the variant of a union that a value of `writer` goes to.
fn alike(writer: &Schema, reader: &Schema) -> bool {
    match (writer, reader) {
        (Schema::Record(one), Schema::Record(other)) => one.name.name() == other.name.name(),
        (Schema::Enum(one), Schema::Enum(other)) => one.name.name() == other.name.name(),
        (Schema::Array(_), Schema::Array(_)) | (Schema::Map(_), Schema::Map(_)) => true,
        _ => widens(writer, reader),
    }
}

/// A type in a word or two.
fn kind(schema: &Schema) -> String {
    match schema {
        Schema::Record(it) => format!("record {}", it.name.name()),
        Schema::Enum(it) => format!("enum {}", it.name.name()),
        Schema::Fixed(it) => format!("fixed {}", it.name.name()),
        Schema::Array(_) => "a list".into(),
        Schema::Map(_) => "a map".into(),
        Schema::Union(it) => {
            let all: Vec<String> = it.variants().iter().map(kind).collect();
            all.join(" or ")
        }
        Schema::Ref { name } => name.name().to_owned(),
        Schema::TimestampMicros => "time in microseconds".into(),
        Schema::TimestampMillis => "time in milliseconds".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> Schema {
        Schema::parse_str(&format!(r#"{{"type":"record","name":"kept.R","fields":[{fields}]}}"#)).expect("a schema")
    }

    fn found(old: &str, new: &str, compatibility: Compatibility) -> Vec<String> {
        breaks(&record(old), &record(new), compatibility)
    }

    const A: &str = r#"{"name":"a","type":"string"}"#;
    const B: &str = r#"{"name":"b","type":"long"}"#;
    const B_DEFAULT: &str = r#"{"name":"b","type":"long","default":0}"#;

    #[test]
    fn a_change_that_is_allowed_breaks_nothing() {
        use Compatibility::{BackwardTransitive as Backward, FullTransitive as Full};
        let and = |more: &str| format!("{A},{more}");
        for (old, new, compatibility) in [
            (A.to_owned(), A.to_owned(), Full),
            (A.into(), and(B_DEFAULT), Full),
            (and(B_DEFAULT), A.into(), Full),
            (and(B), and(B_DEFAULT), Full),
            (and(B), A.into(), Backward),
            (and(r#"{"name":"b","type":"int"}"#), and(B), Backward),
            (and(B), and(r#"{"name":"b","type":["null","long"]}"#), Backward),
            (and(B), and(r#"{"name":"renamed","aliases":["b"],"type":"long"}"#), Backward),
        ] {
            assert_eq!(found(&old, &new, compatibility), Vec::<String>::new(), "{old} → {new}");
        }
    }

    #[test]
    fn a_change_that_breaks_someone_names_the_field_the_change_and_whom() {
        use Compatibility::{BackwardTransitive as Backward, FullTransitive as Full};
        let and = |more: &str| format!("{A},{more}");
        let list = |items: &str| {
            format!(
                r#"{{"name":"l","type":{{"type":"array","items":{{"type":"record","name":"kept.L","fields":[{items}]}}}}}}"#
            )
        };
        let time = |unit: &str| format!(r#"{{"name":"t","type":{{"type":"long","logicalType":"timestamp-{unit}"}}}}"#);
        for (old, new, compatibility, reasons) in [
            (
                A.to_owned(),
                and(B),
                Backward,
                vec!["field b is new and has no default: records written before could not be read"],
            ),
            (
                and(B),
                A.into(),
                Full,
                vec!["field b is gone and had no default: readers built before could not read new records"],
            ),
            (
                and(B),
                and(r#"{"name":"b","type":"string"}"#),
                Backward,
                vec!["field b changes from long to string: records written before could not be read"],
            ),
            (
                and(r#"{"name":"b","type":"int"}"#),
                and(B),
                Full,
                vec!["field b changes from int to long: readers built before could not read new records"],
            ),
            (
                and(B),
                and(r#"{"name":"b","type":["null","long"]}"#),
                Full,
                vec![
                    "field b may be null, which the other side does not take: readers built before could not read new records",
                ],
            ),
            (
                and(r#"{"name":"b","type":["null","long"]}"#),
                and(B),
                Backward,
                vec![
                    "field b may be null, which the other side does not take: records written before could not be read",
                ],
            ),
            (
                list(A),
                list(&and(B)),
                Backward,
                vec!["field l[].b is new and has no default: records written before could not be read"],
            ),
            (
                time("millis"),
                time("micros"),
                Backward,
                vec![
                    "field t changes from time in milliseconds to time in microseconds: records written before could not be read",
                ],
            ),
            (
                time("micros"),
                B.replace("\"b\"", "\"t\""),
                Full,
                vec![
                    "field t changes from time in microseconds to long: records written before could not be read",
                    "field t changes from time in microseconds to long: readers built before could not read new records",
                ],
            ),
        ] {
            assert_eq!(found(&old, &new, compatibility), reasons, "{old} → {new}");
        }
    }

    #[test]
    fn a_record_of_another_name_is_another_record() {
        let other = Schema::parse_str(r#"{"type":"record","name":"kept.S","fields":[]}"#).expect("a schema");
        let found = breaks(&record(""), &other, Compatibility::BackwardTransitive);
        assert_eq!(found, vec!["the record changes its name (R, S): records written before could not be read"]);
    }

    #[test]
    fn a_record_that_holds_itself_is_looked_at_once() {
        let tree =
            |more: &str| record(&format!(r#"{A}{more},{{"name":"next","type":["null","kept.R"],"default":null}}"#));
        assert_eq!(breaks(&tree(""), &tree(""), Compatibility::FullTransitive), Vec::<String>::new());
        let found = breaks(&tree(""), &tree(&format!(",{B}")), Compatibility::BackwardTransitive);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn the_library_that_reads_agrees() {
        use apache_avro::schema_compatibility::SchemaCompatibility;
        for &topic in crate::Topic::ALL {
            for &other in crate::Topic::ALL {
                let (one, two) = (topic.derived_schema(), other.derived_schema());
                let ours = breaks(&one, &two, Compatibility::BackwardTransitive).is_empty();
                assert_eq!(ours, SchemaCompatibility::can_read(&one, &two).is_ok(), "{topic} → {other}");
            }
        }
    }
}
