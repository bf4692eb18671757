//! Every released version's records are read by today's code, and no schema changes in a way that breaks someone.
//!
//! `schemas/released/<version>/` holds a topic's schema as it was released, and one record with every field filled.
//! `KEPT_WRITE_RELEASED=v1 cargo test --release -p kept-schemas --test released` writes a version from today's
//! schemas. A version that has been released is never written again.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Once};

use apache_avro::{Schema, types::Value as Avro, writer::datum::GenericDatumWriter};
use kept_schemas::{Topic, codec::WriterSchema, compat};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("released")
}

/// (version, topic, schema, body) of all that was released.
fn released() -> Vec<(String, Topic, Schema, Vec<u8>)> {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(write_when_asked);
    let mut all = Vec::new();
    for version in fs::read_dir(folder()).expect("schemas/released is there") {
        let version = version.expect("an entry").path();
        for file in fs::read_dir(&version).expect("a folder") {
            let file = file.expect("an entry").path();
            let name = file.file_stem().and_then(|it| it.to_str()).expect("a name").to_owned();
            if file.extension().is_none_or(|it| it != "avsc") {
                continue;
            }
            let topic = Topic::of(&name).unwrap_or_else(|| panic!("topic {name} was released and is gone"));
            let text = fs::read_to_string(&file).expect("readable");
            let schema = Schema::parse_str(&text).expect("an Avro schema");
            let body = fs::read(file.with_extension("bin")).expect("its record");
            let version = version.file_name().expect("a name").to_string_lossy().into_owned();
            all.push((version, topic, schema, body));
        }
    }
    all.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    all
}

fn write_when_asked() {
    let Ok(version) = std::env::var("KEPT_WRITE_RELEASED") else { return };
    assert!(version.starts_with('v') && version[1..].parse::<u32>().is_ok(), "KEPT_WRITE_RELEASED is v1, v2, …");
    let folder = folder().join(version);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("it can be removed");
    }
    fs::create_dir_all(&folder).expect("it can be made");
    for &topic in Topic::ALL {
        let schema = Schema::parse_str(topic.schema_text()).expect("an Avro schema");
        let writer = GenericDatumWriter::builder(&schema).build().expect("a writer");
        let body = writer.write_value_to_vec(filled(&schema, &mut Fill::default())).expect("it fits its schema");
        fs::write(folder.join(format!("{topic}.avsc")), topic.schema_text()).expect("writable");
        fs::write(folder.join(format!("{topic}.bin")), body).expect("writable");
    }
}

#[test]
fn every_released_record_is_read_by_todays_code_with_nothing_lost() {
    let released = released();
    assert!(!released.is_empty(), "no version was released");
    for (version, topic, schema, body) in released {
        let text = serde_json::to_string(&schema).expect("JSON");
        let writer = WriterSchema::parse(1, &text).expect("a schema");
        let today = topic.read_json(&writer, &body).unwrap_or_else(|error| panic!("{version} {topic}: {error}"));
        let then = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
            .build()
            .expect("a reader")
            .read_value(&mut body.as_slice())
            .expect("it was written with this schema");
        let then = Value::try_from(then).expect("JSON");
        let mut lost = Vec::new();
        differences(&then, &today, "", &mut lost);
        assert_eq!(lost, Vec::<String>::new(), "{version} {topic}");
    }
}

/// What was said then and is not said today. A field that is gone today is compat's to judge.
fn differences(then: &Value, today: &Value, path: &str, lost: &mut Vec<String>) {
    match (then, today) {
        (Value::Object(then), Value::Object(today)) => {
            for (name, then) in then {
                if let Some(today) = today.get(name) {
                    differences(then, today, &format!("{path}.{name}"), lost);
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (at, (then, today)) in one.iter().zip(other).enumerate() {
                differences(then, today, &format!("{path}[{at}]"), lost);
            }
        }
        (then, today) if then == today => {}
        (then, today) => lost.push(format!("{path} was {then} and is read as {today} (a closed list? see WORDS)")),
    }
}

#[test]
fn no_schema_breaks_a_released_version() {
    let mut broken = Vec::new();
    for (version, topic, old, _) in released() {
        let today = Schema::parse_str(topic.schema_text()).expect("an Avro schema");
        for reason in compat::breaks(&old, &today, topic.spec().compatibility) {
            broken.push(format!("{topic} ({version}): {reason}"));
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "a breaking change is a new topic");
}

/// Words of closed lists, by record and field: other texts would be read as a word nobody knows.
const WORDS: &[(&str, &str, &str)] = &[
    ("Charge", "kind", "shipping"),
    ("CommandReceived", "kind", "cancel"),
    ("DeadlineReached", "purpose", "hold_due"),
    ("Hold", "reason", "address_invalid"),
    ("HoldResolved", "reason", "unknown_sku"),
    ("Inbound", "kind", "order"),
    ("NotificationRequested", "purpose", "despatched"),
    ("OrderNoted", "kind", "duplicate"),
    ("OrderPaid", "kind", "captured"),
    ("OrderPaid", "state", "paid"),
    ("OutcomeReceived", "kind", "delivered"),
    ("PaymentReceived", "kind", "captured"),
    ("PaymentTerms", "method", "bank_transfer"),
    ("PostingRequested", "kind", "sale"),
    ("Problem", "reason", "totals_differ"),
    ("ShipmentTracked", "kind", "tracked"),
    ("StockChanged", "condition", "quarantine"),
    ("StockCounted", "condition", "damaged"),
    ("StockCounted", "kind", "receipt"),
];

/// Numbers that differ from field to field, and the records seen so far.
#[derive(Default)]
struct Fill {
    number: i32,
    named: BTreeMap<String, Schema>,
    record: String,
    field: String,
}

/// A value with every field set: no null, no empty list, no zero.
fn filled(schema: &Schema, fill: &mut Fill) -> Avro {
    fill.number += 1;
    let number = fill.number;
    match schema {
        Schema::Boolean => Avro::Boolean(true),
        Schema::Int => Avro::Int(number),
        Schema::Long => Avro::Long(1_000_000_000_000 + i64::from(number)),
        Schema::TimestampMicros => Avro::TimestampMicros(1_795_600_800_000_000 + i64::from(number)),
        Schema::Bytes => Avro::Bytes(vec![0, 255, u8::try_from(number % 250).expect("small")]),
        Schema::String if fill.field == "order_id" => Avro::String("01890a5d-ac96-8b66-a5b2-0b1f4a0b0c0d".into()),
        Schema::String => {
            let word = WORDS.iter().find(|it| it.0 == fill.record && it.1 == fill.field).map(|it| it.2.to_owned());
            Avro::String(word.unwrap_or_else(|| format!("{} é {number}", fill.field)))
        }
        Schema::Array(it) => Avro::Array(vec![filled(&it.items, fill), filled(&it.items, fill)]),
        Schema::Union(it) => {
            let position = it.variants().iter().position(|it| *it != Schema::Null).expect("not only null");
            let value = filled(&it.variants()[position], fill);
            Avro::Union(u32::try_from(position).expect("few variants"), Box::new(value))
        }
        Schema::Ref { name } => {
            let named = fill.named.get(&name.to_string()).cloned().expect("named before it is used");
            filled(&named, fill)
        }
        Schema::Record(record) => {
            fill.named.insert(record.name.to_string(), schema.clone());
            let (outer, field) = (fill.record.clone(), fill.field.clone());
            let mut fields = Vec::new();
            for it in &record.fields {
                fill.record = record.name.name().to_owned();
                fill.field.clone_from(&it.name);
                fields.push((it.name.clone(), filled(&it.schema, fill)));
            }
            (fill.record, fill.field) = (outer, field);
            Avro::Record(fields)
        }
        other => panic!("the contract uses no {other:?}; say here what a full one is"),
    }
}
