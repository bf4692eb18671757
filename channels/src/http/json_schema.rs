//! A small check of JSON against JSON Schema, for the tests: the words that `openapi.json` uses, and no other.

use kept_schemas::{Micros, OrderId};
use serde_json::Value;

/// What `value` has against `schema`. Knows the words of JSON Schema that the description uses, and no other.
pub fn faults(value: &Value, schema: &Value, document: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, says) in schema.as_object().expect("a schema is an object") {
        match word.as_str() {
            "description" | "examples" | "title" => {}
            "format" => {
                let text = value.as_str().unwrap_or_default();
                let ok = value.is_null()
                    || match says.as_str().expect("a format") {
                        "uuid" => OrderId::parse(text).is_some(),
                        "date-time" => Micros::parse_rfc3339(text).is_some(),
                        other => panic!("format {other} is not known here"),
                    };
                if !ok {
                    found.push(at_place(at, &format!("is not of format {says}")));
                }
            }
            "$ref" => {
                let pointer = says.as_str().and_then(|it| it.strip_prefix('#')).expect("a local reference");
                let target = document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"));
                found.extend(faults(value, target, document, at));
            }
            "type" => {
                let is = |kind: &Value| match kind.as_str().expect("a type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                let fine = if let Value::Array(kinds) = says { kinds.iter().any(is) } else { is(says) };
                if !fine {
                    found.push(at_place(at, &format!("is not {says}")));
                }
            }
            "enum" => {
                if !says.as_array().expect("a list").contains(value) {
                    found.push(at_place(at, &format!("is not among {says}")));
                }
            }
            "required" => {
                for name in says.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        found.push(at_place(at, &format!("{name} is missing")));
                    }
                }
            }
            "properties" => {
                for (name, schema) in says.as_object().expect("properties") {
                    if let Some(value) = value.get(name) {
                        found.extend(faults(value, schema, document, &format!("{at}/{name}")));
                    }
                }
            }
            "additionalProperties" => {
                let named = schema["properties"].as_object();
                for (name, value) in value.as_object().into_iter().flatten() {
                    if named.is_some_and(|it| it.contains_key(name)) {
                        continue;
                    }
                    match says {
                        Value::Bool(true) => {}
                        Value::Bool(false) => found.push(format!("{at}: {name} is not described")),
                        schema => found.extend(faults(value, schema, document, &format!("{at}/{name}"))),
                    }
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(value, says, document, &format!("{at}/{index}")));
                }
            }
            "oneOf" | "anyOf" => {
                let fitting = says
                    .as_array()
                    .expect("schemas")
                    .iter()
                    .filter(|schema| faults(value, schema, document, at).is_empty())
                    .count();
                if fitting == 0 || (word == "oneOf" && fitting > 1) {
                    found.push(at_place(at, &format!("fits {fitting} of {word}")));
                }
            }
            "minimum" => {
                if value.as_f64().is_some_and(|it| it < says.as_f64().expect("a number")) {
                    found.push(at_place(at, &format!("is below {says}")));
                }
            }
            "minLength" | "maxLength" => {
                let (length, limit) =
                    (value.as_str().map(|it| it.chars().count() as u64), says.as_u64().expect("a number"));
                if length.is_some_and(|it| if word == "minLength" { it < limit } else { it > limit }) {
                    found.push(at_place(at, &format!("breaks {word} {limit}")));
                }
            }
            "minItems" | "maxItems" => {
                let (length, limit) = (value.as_array().map(|it| it.len() as u64), says.as_u64().expect("a number"));
                if length.is_some_and(|it| if word == "minItems" { it < limit } else { it > limit }) {
                    found.push(at_place(at, &format!("breaks {word} {limit}")));
                }
            }
            other => panic!("the schema word {other} is not known here"),
        }
    }
    found
}

fn at_place(at: &str, why: &str) -> String {
    format!("{at}: {why}")
}
