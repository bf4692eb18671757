//! Values on the wire: the Confluent format (magic byte 0, schema id as 4 bytes big-endian, Avro body).
//!
//! A record is read with the schema it was written with and taken into today's Rust type: a field the writer did
//! not know gets its default, a field we do not know is skipped. Schemas live as long as the process.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::Cursor,
    sync::{Arc, LazyLock},
};

use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
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

/// Bytes of a party that has been erased: every field empty.
pub fn erased_party() -> Vec<u8> {
    let mut bytes = Vec::new();
    PARTY.write_ser(&mut bytes, &crate::order::Party::default()).expect("an empty party fits its schema");
    bytes
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
