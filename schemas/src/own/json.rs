//! Walks a JSON body and remembers where it is, so that every problem names its field (a JSON pointer, RFC 6901)
//! and every field that nobody asked for is kept.
//!
//! Values stay text until something asks for them: an amount is read from its digits and never becomes a float.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::FieldProblem;
use crate::{
    inbound::Unmapped,
    texts::fault,
    values::{Micros, UnitPrice},
};

/// The most fields one JSON object may have.
pub const MAX_FIELDS: usize = 100;
/// The most problems told of one body, and the most fields kept that were not understood.
const MAX_PROBLEMS: usize = 20;
/// See [`MAX_PROBLEMS`].
const MAX_UNMAPPED: usize = 200;
/// How much is kept of a value that was not understood, in bytes; of its path, 200.
const UNMAPPED_BYTES: usize = 500;

/// A step from a value to one inside it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Field(&'static str),
    Item(usize),
}

/// Reads values and gathers what is wrong with them.
#[derive(Debug, Default)]
pub struct Walk {
    path: Vec<Step>,
    problems: Vec<FieldProblem>,
    unmapped: Vec<Unmapped>,
    left_out: usize,
}

/// The fields of an object, in the order they came in.
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl Walk {
    /// The whole body as a value, when it is one.
    pub fn body<'a>(&mut self, body: &'a [u8], max_bytes: usize) -> Option<&'a RawValue> {
        if body.len() > max_bytes {
            return self.problem(format!("is larger than {max_bytes} bytes"));
        }
        let Ok(text) = std::str::from_utf8(body) else {
            return self.problem("is not UTF-8");
        };
        match serde_json::from_str(text) {
            Ok(value) => Some(value),
            // The library's message quotes nothing of the body.
            Err(error) => self.problem(format!("is not JSON: {error}")),
        }
    }

    /// Everything found, or what stands against the body.
    pub fn end(mut self) -> Result<Vec<Unmapped>, Vec<FieldProblem>> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        if self.left_out > 0 {
            let value = format!("{} more fields are only in the raw body", self.left_out);
            self.unmapped.push(Unmapped { path: String::new(), value });
        }
        Ok(self.unmapped)
    }

    /// Says that the value at hand is at fault.
    pub fn problem<T>(&mut self, reason: impl Into<String>) -> Option<T> {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(FieldProblem { field: self.pointer(), reason: reason.into() });
        }
        None
    }

    /// Says that the field `name` of the value at hand is at fault.
    pub fn problem_in(&mut self, name: &'static str, reason: impl Into<String>) {
        self.inside(Step::Field(name), |walk| walk.problem::<()>(reason));
    }

    /// Keeps a field that is not part of the form.
    pub fn unknown(&mut self, name: &str, value: &RawValue) {
        if self.unmapped.len() >= MAX_UNMAPPED {
            self.left_out += 1;
            return;
        }
        let path = format!("{}/{}", self.pointer(), name.replace('~', "~0").replace('/', "~1"));
        let (path, value) = (cut(&path, 200).to_owned(), cut(value.get(), UNMAPPED_BYTES).to_owned());
        self.unmapped.push(Unmapped { path, value });
    }

    /// Reads a field with `read`; `None` when it is null or at fault.
    pub fn field<'a, T>(
        &mut self,
        name: &'static str,
        value: &'a RawValue,
        read: impl FnOnce(&mut Self, &'a RawValue) -> Option<T>,
    ) -> Option<T> {
        if value.get() == "null" {
            return None;
        }
        self.inside(Step::Field(name), |walk| read(walk, value))
    }

    /// An object's fields; one that comes twice is a fault, for nobody could tell which one is meant.
    pub fn object<'a>(&mut self, value: &'a RawValue) -> Option<Fields<'a>> {
        if !value.get().starts_with('{') {
            return self.problem("is not an object");
        }
        let fields = match serde_json::from_str::<Fields<'a>>(value.get()) {
            Ok(fields) => fields,
            Err(error) if error.is_data() => return self.problem(format!("has more than {MAX_FIELDS} fields")),
            Err(_) => return self.problem("has a field whose name is not a text"),
        };
        let twice = fields.0.iter().enumerate().any(|(at, (name, _))| fields.0[..at].iter().any(|it| it.0 == *name));
        if twice { self.problem("has a field twice") } else { Some(fields) }
    }

    /// Says of each of `names` that is not there that it is missing.
    pub fn require(&mut self, fields: &Fields<'_>, names: &[&'static str]) {
        for &name in names {
            if !fields.0.iter().any(|(field, value)| field == name && value.get() != "null") {
                self.problem_in(name, "is missing");
            }
        }
    }

    /// A list of at most `max` values, each read with `read`; those at fault are left out (and told).
    pub fn list<'a, T>(
        &mut self,
        value: &'a RawValue,
        max: usize,
        mut read: impl FnMut(&mut Self, &'a RawValue) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !value.get().starts_with('[') {
            return self.problem("is not a list");
        }
        let Ok(items) = serde_json::from_str::<Items<'a>>(value.get()) else {
            return self.problem("is not a list");
        };
        if items.count > max {
            return self.problem(format!("has {} entries, more than {max}", items.count));
        }
        let mut read_items = Vec::with_capacity(items.values.len());
        for (at, value) in items.values.into_iter().enumerate() {
            if let Some(item) = self.inside(Step::Item(at), |walk| read(walk, value)) {
                read_items.push(item);
            }
        }
        Some(read_items)
    }

    /// A text of at most `max` characters, without the white space around it; `None` when nothing is left.
    pub fn text(&mut self, value: &RawValue, max: usize) -> Option<String> {
        let text = self.string(value)?;
        let trimmed = text.trim();
        if let Some(fault) = fault(trimmed, max) {
            return self.problem(fault);
        }
        if trimmed.is_empty() {
            return None;
        }
        Some(if trimmed.len() == text.len() { text.into_owned() } else { trimmed.to_owned() })
    }

    /// [`Self::text`] that must say something.
    pub fn needed_text(&mut self, value: &RawValue, max: usize) -> Option<String> {
        let before = self.problems.len();
        let text = self.text(value, max);
        if text.is_none() && self.problems.len() == before {
            return self.problem("is empty");
        }
        text
    }

    /// Any value as text: a string as it reads, anything else as its JSON.
    pub fn loose_text(&mut self, value: &RawValue, max: usize) -> Option<String> {
        match value.get().as_bytes() {
            [b'"', ..] => self.text(value, max),
            json if json.len() > max => self.problem(format!("is longer than {max} characters")),
            _ => Some(value.get().to_owned()),
        }
    }

    /// One of a closed list of words.
    pub fn word<T: Copy + PartialEq + std::fmt::Display>(
        &mut self,
        value: &RawValue,
        all: &[T],
        of: fn(&str) -> T,
    ) -> Option<T> {
        let word = of(self.string(value)?.trim());
        if all.contains(&word) {
            return Some(word);
        }
        let list: Vec<String> = all.iter().map(T::to_string).collect();
        self.problem(format!("is not one of {}", list.join(", ")))
    }

    /// A decimal amount below 10^12 in size, from a string or from the digits of a JSON number.
    pub fn amount(&mut self, value: &RawValue) -> Option<UnitPrice> {
        let text: Cow<'_, str> = match value.get().as_bytes() {
            [b'"', ..] => self.string(value)?,
            [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(value.get()),
            _ => return self.problem("is not an amount such as \"12.50\""),
        };
        let Some(amount) = UnitPrice::parse(text.trim()) else {
            return self.problem("is not an amount such as \"12.50\", with at most 9 decimals and 18 digits in all");
        };
        if super::is_beyond(i128::from(amount.amount), amount.scale) {
            return self.problem(format!("is an amount of 10^{} or more", super::MAX_AMOUNT_DIGITS));
        }
        Some(amount)
    }

    /// A whole number whose size is at most `limit`; `2` and `2.0` are the same.
    pub fn whole(&mut self, value: &RawValue, limit: i64) -> Option<i64> {
        let digits = match value.get().split_once('.') {
            Some((digits, fraction)) if !fraction.is_empty() && fraction.bytes().all(|it| it == b'0') => digits,
            _ => value.get(),
        };
        let is_number = digits.strip_prefix('-').unwrap_or(digits).bytes().all(|it| it.is_ascii_digit());
        match digits.parse::<i64>() {
            Ok(number) if number.unsigned_abs() <= limit.unsigned_abs() => Some(number),
            _ if is_number => self.problem(format!("is beyond {limit}")),
            _ => self.problem("is not a whole number"),
        }
    }

    /// An instant in RFC 3339.
    pub fn time(&mut self, value: &RawValue) -> Option<Micros> {
        let text = self.string(value)?;
        match Micros::parse_rfc3339(text.trim()) {
            None => self.problem("is not a time with its offset, such as \"2026-11-25T10:00:00Z\""),
            time => time,
        }
    }

    pub fn yes_or_no(&mut self, value: &RawValue) -> Option<bool> {
        match value.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => self.problem("is neither true nor false"),
        }
    }

    fn string<'a>(&mut self, value: &'a RawValue) -> Option<Cow<'a, str>> {
        match serde_json::from_str::<Text<'a>>(value.get()) {
            Ok(text) => Some(text.0),
            Err(_) => self.problem("is not a text"),
        }
    }

    fn inside<T>(&mut self, step: Step, run: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let done = run(self);
        self.path.pop();
        done
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            match step {
                Step::Field(name) => pointer.push_str(name),
                Step::Item(at) => pointer.push_str(&at.to_string()),
            }
        }
        pointer
    }
}

/// The head of a text, of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// A string that is borrowed from the body when it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    if fields.len() == MAX_FIELDS {
                        return Err(A::Error::custom("too many fields"));
                    }
                    fields.push((name.0, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Any)
    }
}

/// The values of a list; past the most that any list may hold they are only counted.
struct Items<'a> {
    values: Vec<&'a RawValue>,
    count: usize,
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
                let mut items = Items { values: Vec::new(), count: 0 };
                while let Some(value) = list.next_element::<&'de RawValue>()? {
                    items.count += 1;
                    if items.count <= crate::order::MAX_LINES {
                        items.values.push(value);
                    }
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Any)
    }
}
