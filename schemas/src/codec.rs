//! Values on the wire: the Confluent format (magic byte 0, schema id as 4 bytes big-endian, Avro body).
//!
//! A record is read with the schema it was written with and taken into today's Rust type: a field the writer did
//! not know gets its default, a field we do not know is skipped. Schemas live as long as the process.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::Cursor,
    sync::{Arc, LazyLock},
};

use apache_avro::{
    Schema,
    reader::datum::GenericDatumReader,
    schema::{NamesRef, ResolvedSchema},
    writer::datum::GenericDatumWriter,
};
use thiserror::Error;

use crate::{
    order::MAX_RECORD_BYTES,
    topics::{Record, Topic},
};

/// Why bytes are not a record, or a record not bytes. None of these holds content.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    #[error("record of {0} bytes is too short to hold a schema id (5 bytes)")]
    TooShort(usize),
    #[error("first byte is {0}, not the magic byte 0 of the Confluent wire format")]
    Magic(u8),
    #[error("body does not match schema {0}: {1}")]
    Body(u32, String),
    #[error("{1} bytes are left over after the body of schema {0}")]
    Trailing(u32, usize),
    #[error("record for {0} has {1} bytes, more than {MAX_RECORD_BYTES}")]
    TooLarge(&'static str, usize),
    #[error("record for {0} does not fit its schema: {1}")]
    Encode(&'static str, String),
    #[error("record of {0} breaks a rule: {1}")]
    Rule(&'static str, String),
    #[error("schema text is not an Avro schema: {0}")]
    Schema(String),
}

/// The finished value of a record, ready for the wire, in two parts: what an erasure keeps and what it nulls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wire {
    /// Magic, schema id and all fields but `party`.
    pub body: Vec<u8>,
    /// The field `party`; empty when the record has none.
    pub party: Vec<u8>,
}

impl Wire {
    /// The value as it goes out.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(&self.party);
        bytes
    }

    /// The same, of a value that is not needed in its parts any more.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.body;
        bytes.extend_from_slice(&self.party);
        bytes
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.body.len() + self.party.len()
    }

    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A schema someone wrote with.
pub struct WriterSchema {
    id: u32,
    reader: GenericDatumReader<'static>,
}

impl WriterSchema {
    /// Parses `text`, registered as `id`. The schema is kept for the life of the process: there are as many as
    /// the registry has versions.
    pub fn parse(id: u32, text: &str) -> Result<Self, CodecError> {
        let schema = Schema::parse_str(text).map_err(|error| CodecError::Schema(error.to_string()))?;
        Self::of(id, Box::leak(Box::new(schema)))
    }

    fn of(id: u32, schema: &'static Schema) -> Result<Self, CodecError> {
        let reader =
            GenericDatumReader::builder(schema).build().map_err(|error| CodecError::Schema(error.to_string()))?;
        Ok(Self { id, reader })
    }

    /// Reads the body that follows the wire header; every byte must belong to it.
    pub fn read<T: Record>(&self, body: &[u8]) -> Result<T, CodecError> {
        let mut cursor = Cursor::new(body);
        let value =
            self.reader.read_deser(&mut cursor).map_err(|error| CodecError::Body(self.id, cut(&error.to_string())))?;
        let left = body.len() - usize::try_from(cursor.position()).unwrap_or(body.len());
        if left == 0 { Ok(value) } else { Err(CodecError::Trailing(self.id, left)) }
    }
}

/// An error of the Avro library, cut so that no content of any size gets into a log.
fn cut(message: &str) -> String {
    message.chars().take(120).collect()
}

/// Schema id and body of a value.
pub fn split(value: &[u8]) -> Result<(u32, &[u8]), CodecError> {
    match value {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [magic, _, _, _, _, ..] => Err(CodecError::Magic(*magic)),
        _ => Err(CodecError::TooShort(value.len())),
    }
}

struct Own {
    schema: &'static Schema,
    writer: GenericDatumWriter<'static>,
}

static OWN: LazyLock<HashMap<Topic, Own>> = LazyLock::new(|| {
    Topic::ALL
        .iter()
        .map(|&topic| {
            let schema: &'static Schema =
                Box::leak(Box::new(Schema::parse_str(topic.schema_text()).expect("a test parses every schema file")));
            let writer = GenericDatumWriter::builder(schema)
                .validate(false)
                .build()
                .expect("a test builds a writer for every schema file");
            (topic, Own { schema, writer })
        })
        .collect()
});

static PARTY: LazyLock<GenericDatumWriter<'static>> = LazyLock::new(|| {
    let schema: &'static Schema = Box::leak(Box::new(party_schema()));
    GenericDatumWriter::builder(schema).validate(false).build().expect("the schema of a party is whole")
});

fn party_schema() -> Schema {
    use apache_avro::AvroSchema;
    crate::order::Party::get_schema()
}

/// The schema ids of one deployment's own schemas, and those of everybody it has read from.
#[derive(Clone, Default)]
pub struct Codec {
    own: HashMap<Topic, u32>,
    writers: HashMap<u32, Arc<WriterSchema>>,
}

impl Codec {
    /// Knows that today's schema of `topic` is registered as `id`.
    pub fn register(&mut self, topic: Topic, id: u32) -> Result<(), CodecError> {
        self.own.insert(topic, id);
        if let Entry::Vacant(vacant) = self.writers.entry(id) {
            vacant.insert(Arc::new(WriterSchema::of(id, OWN[&topic].schema)?));
        }
        Ok(())
    }

    /// Learns a schema that someone else wrote with.
    pub fn learn(&mut self, id: u32, text: &str) -> Result<(), CodecError> {
        self.writers.insert(id, Arc::new(WriterSchema::parse(id, text)?));
        Ok(())
    }

    /// The id that today's schema of `topic` is registered as.
    pub fn id_of(&self, topic: Topic) -> Option<u32> {
        self.own.get(&topic).copied()
    }

    /// True when records of schema `id` can be read.
    pub fn knows(&self, id: u32) -> bool {
        self.writers.contains_key(&id)
    }

    /// Reads a value. `Ok(None)`: the schema id is not known yet, ask the registry.
    pub fn decode<T: Record>(&self, value: &[u8]) -> Result<Option<T>, CodecError> {
        let (id, body) = split(value)?;
        match self.writers.get(&id) {
            Some(writer) => writer.read(body).map(Some),
            None => Ok(None),
        }
    }

    /// Writes a value; refused when it is larger than any record may be.
    pub fn encode<T: Record>(&self, value: &T) -> Result<Wire, CodecError> {
        let name = T::TOPIC.name();
        let id = self
            .own
            .get(&T::TOPIC)
            .ok_or_else(|| CodecError::Encode(name, "its schema is not registered; run `kept topics apply`".into()))?;
        let mut body = Vec::with_capacity(512);
        body.push(0);
        body.extend_from_slice(&id.to_be_bytes());
        let failed = |error: apache_avro::Error| CodecError::Encode(name, cut(&error.to_string()));
        OWN[&T::TOPIC].writer.write_ser(&mut body, value).map_err(failed)?;
        if body.len() > MAX_RECORD_BYTES {
            return Err(CodecError::TooLarge(name, body.len()));
        }
        let party = match value.party() {
            None => Vec::new(),
            Some(party) => {
                let mut bytes = Vec::with_capacity(160);
                PARTY.write_ser(&mut bytes, party).map_err(failed)?;
                // Party is the last field, so its bytes are the value's tail.
                body.truncate(body.len() - bytes.len());
                bytes
            }
        };
        Ok(Wire { body, party })
    }
}

/// A codec with made-up ids (the topics' positions, from 1), for tests and benches without a registry.
pub fn offline() -> Codec {
    let mut codec = Codec::default();
    for (position, &topic) in Topic::ALL.iter().enumerate() {
        let id = u32::try_from(position + 1).expect("fewer than 2^32 topics");
        codec.register(topic, id).expect("every own schema can be read");
    }
    codec
}

/// Bytes of a party that has been erased, by today's schema: every field empty.
pub fn erased_party() -> Vec<u8> {
    let mut bytes = Vec::new();
    PARTY.write_ser(&mut bytes, &crate::order::Party::default()).expect("an empty party fits its schema");
    bytes
}

/// As [`erased_party`], for a body that was written with the schema `text`: its party may have had fewer fields.
///
/// # Errors
/// A text that is no schema of a record with a party.
pub fn erased_party_of(text: &str) -> Result<Vec<u8>, CodecError> {
    let unfit = |error: apache_avro::Error| CodecError::Schema(error.to_string());
    let schema = Schema::parse_str(text).map_err(unfit)?;
    let names = ResolvedSchema::new(&schema).map_err(unfit)?;
    let Schema::Record(record) = &schema else {
        return Err(CodecError::Schema("not of a record".into()));
    };
    let party = record.fields.last().filter(|field| field.name == "party");
    let party = party.ok_or_else(|| CodecError::Schema("its last field is not a party".into()))?;
    let mut bytes = Vec::new();
    write_empty(&party.schema, names.get_names(), &mut bytes);
    Ok(bytes)
}

/// Nothing, no text, no items, zero: all the same byte, but for what has a length of its own.
fn write_empty(schema: &Schema, names: &NamesRef<'_>, bytes: &mut Vec<u8>) {
    match schema {
        Schema::Null => {}
        Schema::Record(record) => record.fields.iter().for_each(|field| write_empty(&field.schema, names, bytes)),
        Schema::Ref { name } => {
            if let Some(named) = names.get(name) {
                write_empty(named, names, bytes);
            }
        }
        Schema::Union(union) => {
            let null = union.variants().iter().position(|it| *it == Schema::Null);
            let index = null.unwrap_or(0);
            // Zigzag: small numbers are doubled.
            bytes.push(u8::try_from(index * 2).expect("a union has few variants"));
            write_empty(&union.variants()[index], names, bytes);
        }
        Schema::Float => bytes.extend([0; 4]),
        Schema::Double => bytes.extend([0; 8]),
        Schema::Fixed(fixed) => bytes.resize(bytes.len() + fixed.size, 0),
        _ => bytes.push(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::OrderHeld,
        inbound::{Inbound, OrderReceived},
        order::{Address, Order, OrderLine, Party},
    };

    fn order() -> OrderReceived {
        OrderReceived {
            order: Order {
                channel_order_id: "1001".into(),
                currency: "EUR".into(),
                lines: vec![OrderLine { line_no: 1, sku: "A".into(), quantity: 2, ..Default::default() }],
                ..Default::default()
            },
            party: Party {
                ship_to: Address { name: "J. Jansen".into(), city: "Utrecht".into(), ..Default::default() },
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let codec = offline();
        let wire = codec.encode(&order()).expect("it fits");
        assert_eq!(codec.decode(&wire.bytes()), Ok(Some(order())));
        let raw = Inbound { body: vec![0, 255, 1], ..Default::default() };
        assert_eq!(codec.decode(&codec.encode(&raw).expect("it fits").bytes()), Ok(Some(raw)));
    }

    #[test]
    fn the_party_is_the_tail_and_can_be_erased_alone() {
        let codec = offline();
        let mut wire = codec.encode(&order()).expect("it fits");
        wire.party = erased_party();
        let read: OrderReceived = codec.decode(&wire.bytes()).expect("it reads").expect("known");
        assert_eq!(read.order, order().order);
        assert_eq!(read.party, Party::default());
    }

    #[test]
    fn an_erased_party_fits_the_schema_its_record_was_written_with() {
        let today = crate::topics::Topic::OrdersReceived.schema_text();
        assert_eq!(erased_party_of(today), Ok(erased_party()));
        // Without the last field of the party: as before there was a phone.
        let mut older: serde_json::Value = serde_json::from_str(today).expect("JSON");
        let fields = older["fields"].as_array_mut().expect("fields");
        let party = fields.last_mut().expect("a party")["type"]["fields"].as_array_mut().expect("fields");
        assert_eq!(party.pop().expect("a field")["name"], "phone");
        let older = older.to_string();
        let mut codec = offline();
        codec.learn(900, &older).expect("a schema");
        let mut wire = codec.encode(&order()).expect("it fits");
        wire.body[1..5].copy_from_slice(&900_u32.to_be_bytes());
        wire.party = erased_party();
        assert_eq!(codec.decode::<OrderReceived>(&wire.bytes()), Err(CodecError::Trailing(900, 1)));
        wire.party = erased_party_of(&older).expect("it has a party");
        let read: OrderReceived = codec.decode(&wire.bytes()).expect("it reads").expect("known");
        assert_eq!((read.order, read.party), (order().order, Party::default()));
        let held = crate::topics::Topic::OrdersHeld.schema_text();
        assert!(matches!(erased_party_of(held), Err(CodecError::Schema(_))), "it has no party");
    }

    #[test]
    fn what_is_not_a_record_is_named_as_such() {
        let codec = offline();
        let wire = codec.encode(&OrderHeld::default()).expect("it fits").bytes();
        assert_eq!(codec.decode::<OrderHeld>(&[]), Err(CodecError::TooShort(0)));
        assert_eq!(codec.decode::<OrderHeld>(&[0, 0, 0, 1]), Err(CodecError::TooShort(4)));
        assert_eq!(codec.decode::<OrderHeld>(&[7, 0, 0, 0, 1, 0]), Err(CodecError::Magic(7)));
        assert_eq!(codec.decode::<OrderHeld>(&[0, 255, 255, 255, 255, 0]), Ok(None));
        let mut long = wire.clone();
        long.push(0);
        assert!(matches!(codec.decode::<OrderHeld>(&long), Err(CodecError::Trailing(_, 1))));
        assert!(matches!(codec.decode::<OrderHeld>(&wire[..wire.len() - 1]), Err(CodecError::Body(..))));
    }

    #[test]
    fn a_record_over_the_limit_is_refused() {
        let raw = Inbound { body: vec![0; MAX_RECORD_BYTES], ..Default::default() };
        assert!(matches!(offline().encode(&raw), Err(CodecError::TooLarge("channels.inbound", _))));
    }

    #[test]
    fn an_older_schema_without_a_field_is_read_with_its_default() {
        let mut codec = offline();
        let old = r#"{"type":"record","name":"OrderHeld","fields":[{"name":"order_id","type":"string"},{"name":"later","type":"long"}]}"#;
        codec.learn(900, old).expect("a schema");
        let id = "01890a5d-ac96-8b66-a5b2-0b1f4a0b0c0d";
        let mut bytes = vec![0, 0, 0, 3, 132, 72];
        bytes.extend_from_slice(id.as_bytes());
        bytes.push(4);
        let read: OrderHeld = codec.decode(&bytes).expect("it reads").expect("known");
        assert_eq!(read.order_id.to_string(), id);
        assert_eq!(read.holds, vec![]);
    }
}
