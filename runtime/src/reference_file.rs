//! Reference data in files: JSON lines, each checked whole before anything is sent.
//!
//! A line is `{"topic":"products","value":{…}}`, or the bare value where the topic is said beside the file.

use kept_processors::reference::Reference;
use kept_schemas::{
    Codec, CodecError, EventId, Headers, Topic,
    own::{MAX_LONG_TEXT, MAX_TEXT},
    reference::{Account, Customer, Location, Policy, Product},
    texts,
    topics::Record,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{log::Outgoing, reference::TOPICS};

/// A line longer than this is refused unread.
pub const MAX_LINE_BYTES: usize = 256 * 1024;
/// Most characters of a key.
const MAX_KEY: usize = 200;

/// One record of reference data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Product(Product),
    Location(Location),
    Account(Account),
    Customer(Customer),
    Policy(Policy),
}

/// The topic that people call `name`: `products`, or `reference.products`.
///
/// # Errors
/// A name that is none, with those that are.
pub fn topic(name: &str) -> Result<Topic, String> {
    let bare = name.strip_prefix("reference.").unwrap_or(name);
    TOPICS.iter().copied().find(|topic| short(*topic) == bare).ok_or_else(|| {
        let names: Vec<&str> = TOPICS.iter().map(|topic| short(*topic)).collect();
        format!("{} is not reference data; there are {}", cut(name), names.join(", "))
    })
}

/// What people call a reference topic.
pub fn short(topic: Topic) -> &'static str {
    topic.name().strip_prefix("reference.").unwrap_or(topic.name())
}

/// Reads one line; `usual`: the topic of bare values.
///
/// # Errors
/// What is wrong with it, in words for whoever wrote the file.
pub fn entry(line: &str, usual: Option<Topic>) -> Result<Entry, String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("it has {} bytes, more than {MAX_LINE_BYTES}", line.len()));
    }
    let value: Value =
        serde_json::from_str(line).map_err(|error| format!("it is not JSON (column {})", error.column()))?;
    let Value::Object(mut object) = value else {
        return Err("it is not a JSON object".into());
    };
    match (usual, object.contains_key("topic") && object.contains_key("value")) {
        (Some(topic), false) => of(topic, Value::Object(object)),
        (None, false) => Err("it has no topic and value; or say --topic for bare values".into()),
        (usual, true) => {
            if let Some(other) = object.keys().find(|key| *key != "topic" && *key != "value") {
                return Err(format!("{} does not belong beside topic and value", cut(other)));
            }
            let named = topic(object.get("topic").and_then(Value::as_str).ok_or("topic is not a text")?)?;
            if usual.is_some_and(|usual| usual != named) {
                return Err(format!("it is of {}, and --topic says otherwise", short(named)));
            }
            of(named, object.remove("value").unwrap_or_default())
        }
    }
}

fn of(topic: Topic, value: Value) -> Result<Entry, String> {
    let entry = match topic {
        Topic::ReferenceProducts => Entry::Product(typed(value)?),
        Topic::ReferenceLocations => Entry::Location(typed(value)?),
        Topic::ReferenceAccounts => Entry::Account(typed(value)?),
        Topic::ReferenceCustomers => Entry::Customer(typed(value)?),
        Topic::ReferencePolicies => Entry::Policy(typed(value)?),
        other => return Err(format!("{other} is not reference data")),
    };
    entry.check()?;
    Ok(entry)
}

/// A field that is unknown is a typing error, never passed over: the value it was meant for would be a default.
fn typed<T: Serialize + DeserializeOwned + Default>(value: Value) -> Result<T, String> {
    let Value::Object(given) = &value else {
        return Err("the value is not a JSON object".into());
    };
    let known = serde_json::to_value(T::default()).map_err(|error| error.to_string())?;
    if let Some(unknown) = given.keys().find(|key| known.get(key).is_none()) {
        let names: Vec<&str> = known.as_object().map(|it| it.keys().map(String::as_str).collect()).unwrap_or_default();
        return Err(format!("{} is not a field; fields are {}", cut(unknown), names.join(", ")));
    }
    serde_json::from_value(value).map_err(|error| cut(&error.to_string()))
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

impl Entry {
    /// Its topic.
    pub fn topic(&self) -> Topic {
        match self {
            Self::Product(_) => Topic::ReferenceProducts,
            Self::Location(_) => Topic::ReferenceLocations,
            Self::Account(_) => Topic::ReferenceAccounts,
            Self::Customer(_) => Topic::ReferenceCustomers,
            Self::Policy(_) => Topic::ReferencePolicies,
        }
    }

    /// What it is found by.
    pub fn key(&self) -> &str {
        match self {
            Self::Product(it) => &it.sku,
            Self::Location(it) => &it.location_id,
            Self::Account(it) => &it.account_id,
            Self::Customer(it) => &it.customer_ref,
            Self::Policy(it) => &it.scope,
        }
    }

    /// It is there already, just so.
    pub fn is_in(&self, reference: &Reference) -> bool {
        match self {
            Self::Product(it) => reference.products.get(&it.sku) == Some(it),
            Self::Location(it) => reference.locations.get(&it.location_id) == Some(it),
            Self::Account(it) => reference.accounts.get(&it.account_id) == Some(it),
            Self::Customer(it) => reference.customers.get(&it.customer_ref) == Some(it),
            Self::Policy(it) => reference.policies.get(&it.scope) == Some(it),
        }
    }

    /// The record as it goes out.
    ///
    /// # Errors
    /// As the codec's.
    pub fn record(&self, codec: &Codec) -> Result<Outgoing, CodecError> {
        let wire = match self {
            Self::Product(it) => codec.encode(it),
            Self::Location(it) => codec.encode(it),
            Self::Account(it) => codec.encode(it),
            Self::Customer(it) => codec.encode(it),
            Self::Policy(it) => codec.encode(it),
        }?;
        let topic = self.topic();
        let headers = Headers {
            event_id: Some(EventId::of_input(topic.name(), self.key(), &wire.bytes())),
            subject: Some(topic.subject().into()),
            ..Headers::default()
        };
        Ok(Outgoing::new(topic, self.key(), &wire, headers))
    }

    fn check(&self) -> Result<(), String> {
        let key = self.key();
        if key.trim().is_empty() || key.trim() != key {
            return Err("its key is empty or has spaces around it".into());
        }
        if key.chars().count() > MAX_KEY || key.chars().any(char::is_control) {
            return Err(format!("its key has more than {MAX_KEY} characters, or control characters"));
        }
        // They come into orders, which would each become a dead letter.
        let texts: &[(&str, &str, usize)] = match self {
            Self::Product(it) => &[("description", &it.description, MAX_LONG_TEXT)],
            Self::Location(it) => &[("name", &it.name, MAX_TEXT), ("kind", &it.kind, MAX_TEXT)],
            Self::Account(it) => &[("channel", &it.channel, MAX_TEXT), ("shop", &it.shop, MAX_TEXT)],
            Self::Customer(it) => &[("class", &it.class, MAX_TEXT)],
            Self::Policy(_) => &[],
        };
        for (name, text, most) in texts {
            if let Some(fault) = texts::fault(text, *most) {
                return Err(format!("{name} {fault}"));
            }
        }
        let country = |country: &str| country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
        match self {
            Self::Product(it) => {
                if it.weight_grams.is_some_and(|grams| !(0..=10_000_000).contains(&grams)) {
                    return Err("weight_grams is not from 0 to 10000000".into());
                }
                if it.max_quantity.is_some_and(|units| units < 1) {
                    return Err("max_quantity is below 1".into());
                }
                if !["", "standard", "reduced", "zero"].contains(&it.vat_class.as_str()) {
                    return Err("vat_class is not standard, reduced or zero".into());
                }
            }
            Self::Location(it) => {
                if !country(&it.country) {
                    return Err("country is not two capital letters (ISO 3166-1)".into());
                }
            }
            Self::Account(it) => {
                if it.channel.is_empty() || it.shop.is_empty() {
                    return Err("channel and shop must be there".into());
                }
                let hash = |it: &String| it.len() == 64 && it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
                if !it.key_hashes.iter().all(hash) {
                    return Err(
                        "key_hashes are not SHA-256 in small hex digits; a key itself must not stand here".into()
                    );
                }
            }
            Self::Customer(it) => {
                if it.vat_country.as_ref().is_some_and(|it| !country(it)) {
                    return Err("vat_country is not two capital letters (ISO 3166-1)".into());
                }
            }
            Self::Policy(it) => {
                let times = [
                    ("payment_due_seconds", it.payment_due_seconds),
                    ("transfer_due_seconds", it.transfer_due_seconds),
                    ("hold_due_seconds", it.hold_due_seconds),
                    ("despatch_due_seconds", it.despatch_due_seconds),
                ];
                if let Some((name, _)) = times.iter().find(|(_, time)| !(1..=366 * 86_400).contains(time)) {
                    return Err(format!("{name} is not from 1 second to 366 days"));
                }
                if it.total_tolerance_minor < 0 {
                    return Err("total_tolerance_minor is negative".into());
                }
            }
        }
        Ok(())
    }
}

/// The values of one kind as JSON, by key.
pub fn values(reference: &Reference, topic: Topic) -> Vec<Value> {
    fn all<'a, T: Record>(values: impl Iterator<Item = &'a T>) -> Vec<Value> {
        values.filter_map(|it| serde_json::to_value(it).ok()).collect()
    }
    match topic {
        Topic::ReferenceProducts => all(reference.products.values()),
        Topic::ReferenceLocations => all(reference.locations.values()),
        Topic::ReferenceAccounts => all(reference.accounts.values()),
        Topic::ReferenceCustomers => all(reference.customers.values()),
        Topic::ReferencePolicies => all(reference.policies.values()),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use kept_schemas::codec::offline;

    use super::*;

    #[test]
    fn a_line_says_its_topic_or_the_caller_does() {
        let named = entry(r#"{"topic":"products","value":{"sku":"A","weight_grams":5}}"#, None).expect("read");
        let bare = entry(r#"{"sku":"A","weight_grams":5}"#, Some(Topic::ReferenceProducts)).expect("read");
        assert_eq!(named, bare);
        assert_eq!((named.key(), named.topic()), ("A", Topic::ReferenceProducts));
        assert!(entry(r#"{"topic":"reference.locations","value":{"location_id":"L","country":"NL"}}"#, None).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_in_the_files_own_terms() {
        let hash = "0".repeat(64);
        let account = format!(
            r#"{{"topic":"accounts","value":{{"account_id":"a","channel":"c","shop":"s","key_hashes":["{hash}"]}}}}"#
        );
        assert!(entry(&account, None).is_ok());
        let cases = [
            ("", "not JSON"),
            ("[1]", "not a JSON object"),
            ("{}", "no topic"),
            (r#"{"topic":"prices","value":{}}"#, "products, locations"),
            (r#"{"topic":1,"value":{}}"#, "not a text"),
            (r#"{"topic":"products","value":[]}"#, "not a JSON object"),
            (r#"{"topic":"products","value":{"sku":"A"},"x":1}"#, "x does not belong"),
            (r#"{"topic":"products","value":{"sku":"A","wieght_grams":5}}"#, "wieght_grams is not a field"),
            (r#"{"topic":"products","value":{"sku":"A","weight_grams":"5"}}"#, "invalid type"),
            (r#"{"topic":"products","value":{"sku":"A","weight_grams":-5}}"#, "weight_grams"),
            (r#"{"topic":"products","value":{"sku":" A"}}"#, "key"),
            (r#"{"topic":"products","value":{}}"#, "key is empty"),
            (r#"{"topic":"products","value":{"sku":"A","max_quantity":0}}"#, "max_quantity"),
            (r#"{"topic":"products","value":{"sku":"A","vat_class":"high"}}"#, "vat_class"),
            (r#"{"topic":"locations","value":{"location_id":"L","country":"nl"}}"#, "country"),
            (
                r#"{"topic":"accounts","value":{"account_id":"a","channel":"c","shop":"s","key_hashes":["secret"]}}"#,
                "SHA-256",
            ),
            (r#"{"topic":"accounts","value":{"account_id":"a"}}"#, "channel and shop"),
            (r#"{"topic":"customers","value":{"customer_ref":"1","vat_country":"NLD"}}"#, "vat_country"),
            (r#"{"topic":"policies","value":{"scope":"default","hold_due_seconds":0}}"#, "hold_due_seconds"),
        ];
        for (line, said) in cases {
            let why = entry(line, None).expect_err(line);
            assert!(why.contains(said), "{line}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
        let channel = |channel: &str| {
            let line = account.replace(r#""channel":"c""#, &format!(r#""channel":"{channel}""#));
            entry(&line, None).expect_err("refused")
        };
        assert_eq!(channel(&"x".repeat(201)), "channel is longer than 200 characters");
        assert_eq!(channel("\\u0000"), "channel holds the character U+0000");
        let long = format!(r#"{{"topic":"products","value":{{"sku":"{}"}}}}"#, "x".repeat(MAX_LINE_BYTES));
        assert!(entry(&long, None).expect_err("refused").contains("more than"));
        assert!(entry(r#"{"topic":"products","value":{"sku":"A"}}"#, Some(Topic::ReferenceLocations)).is_err());
    }

    #[test]
    fn the_same_value_is_the_same_record_and_is_known_to_be_there() {
        let codec = offline();
        let product = |weight: i64| {
            entry(&format!(r#"{{"topic":"products","value":{{"sku":"A","weight_grams":{weight}}}}}"#), None)
                .expect("read")
        };
        assert_eq!(product(1).record(&codec), product(1).record(&codec));
        let mut reference = Reference::default();
        assert!(!product(1).is_in(&reference));
        let Entry::Product(it) = product(1) else { panic!("a product") };
        reference.products.insert("A".into(), it);
        assert!(product(1).is_in(&reference));
        assert!(!product(2).is_in(&reference));
    }

    #[test]
    fn a_policy_that_says_only_one_thing_keeps_the_rest_as_it_is_by_default() {
        let Ok(Entry::Policy(policy)) =
            entry(r#"{"topic":"policies","value":{"scope":"default","payment_due_seconds":60}}"#, None)
        else {
            panic!("a policy")
        };
        assert_eq!(policy, Policy { payment_due_seconds: 60, ..Policy::default() });
    }
}
