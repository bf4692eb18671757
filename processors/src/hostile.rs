//! For tests: records with one text made such that no table could hold it, one copy for each text there is.

use kept_schemas::{Topic, codec::WriterSchema, topics::Record};
use serde_json::Value;

/// What every text is replaced with in turn.
pub fn texts() -> [String; 2] {
    ["a\0b".to_owned(), "x".repeat(10_000)]
}

/// A record of `T`'s topic with every field filled, as it was released.
pub fn filled<T: Record>() -> T {
    let folder = format!("{}/../schemas/released/v1", env!("CARGO_MANIFEST_DIR"));
    let schema = std::fs::read_to_string(format!("{folder}/{}.avsc", T::TOPIC)).expect("its schema");
    let body = std::fs::read(format!("{folder}/{}.bin", T::TOPIC)).expect("its record");
    let writer = WriterSchema::parse(1, &schema).expect("a schema");
    let mut json = T::TOPIC.read_json(&writer, &body).expect("it reads");
    // Filled with its own name, which is longer than any code of a currency.
    for place in ["/currency", "/order/currency"] {
        if let Some(currency) = json.pointer_mut(place) {
            *currency = "EUR".into();
        }
    }
    serde_json::from_value(json).expect("it was made from one")
}

/// The place of each text of a record, and the record with a hostile one there. Ids are no texts.
pub fn spoilt<T: Record>(record: &T) -> Vec<(String, T)> {
    let json = serde_json::to_value(record).expect("JSON");
    let mut places = Vec::new();
    find(&json, String::new(), &mut places);
    let mut all = Vec::new();
    for place in places {
        for text in texts() {
            let mut json = json.clone();
            *json.pointer_mut(&place).expect("it was found") = text.into();
            all.extend(serde_json::from_value(json).ok().map(|it| (place.clone(), it)));
        }
    }
    assert!(!all.is_empty(), "{} has texts", T::TOPIC);
    all
}

/// True when the record holds one of the hostile texts.
pub fn holds_one<T: serde::Serialize>(record: &T) -> bool {
    let json = serde_json::to_string(record).expect("JSON");
    json.contains("\\u0000") || json.contains(&texts()[1])
}

fn find(value: &Value, place: String, into: &mut Vec<String>) {
    match value {
        Value::String(_) => into.push(place),
        Value::Array(all) => all.iter().enumerate().for_each(|(at, it)| find(it, format!("{place}/{at}"), into)),
        Value::Object(all) => all.iter().for_each(|(name, it)| find(it, format!("{place}/{name}"), into)),
        _ => {}
    }
}

#[test]
fn every_topic_that_others_write_to_has_texts_to_spoil() {
    let stock: kept_schemas::inputs::StockCounted = filled();
    let places: Vec<String> = spoilt(&stock).into_iter().map(|it| it.0).collect();
    for place in ["/sku", "/location_id", "/count_id", "/source"] {
        assert_eq!(places.iter().filter(|it| *it == place).count(), 2, "{place} in {}", Topic::StockCounted);
    }
    assert!(spoilt(&stock).iter().any(|it| holds_one(&it.1)) && !holds_one(&stock));
}
