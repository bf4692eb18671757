//! Where a field's value comes from (a column, a constant, a list of words) and how text becomes a typed value.
//!
//! Amounts and quantities are read from their text, never through a float. No error here repeats text that could be
//! personal: a value is shown only when it is made of digits and punctuation.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil, tz::TimeZone};
use kept_schemas::{Micros, UnitPrice, own::MAX_QUANTITY};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// `"Column"`, or a table that says more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec(pub SourceTable);

/// The table form of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// The column's name in the first row.
    pub column: Option<String>,
    /// A constant, the same for every row.
    pub value: Option<String>,
    /// What stands for an empty field, and for a word that is not in `words`.
    pub default: Option<String>,
    /// For times: `rfc3339` or a pattern such as `%d/%m/%Y %H:%M`.
    pub format: Option<String>,
    /// The file's words and ours.
    pub words: Option<BTreeMap<String, String>>,
    /// `upper` or `lower`: letter case is not meant.
    pub case: Option<Case>,
    /// For fields of the order: what to do when its rows say different things.
    pub differs: Option<Differs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    Upper,
    Lower,
}

/// Rows of one order that say different things in a field the order has once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Differs {
    /// The order is refused.
    #[default]
    Refuse,
    /// The first row that has a value counts.
    First,
}

impl<'de> Deserialize<'de> for SourceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = SourceSpec;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(r#"a column's name, or a table such as { column = "Name" } or { value = "constant" }"#)
            }
            fn visit_str<E: de::Error>(self, column: &str) -> Result<SourceSpec, E> {
                Ok(SourceSpec(SourceTable { column: Some(column.to_owned()), ..SourceTable::default() }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SourceSpec, A::Error> {
                SourceTable::deserialize(MapAccessDeserializer::new(map)).map(SourceSpec)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What a field must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Text that often comes as a number: `17850.0` is read as `17850`.
    Id,
    Amount,
    Quantity,
    Time,
    YesNo,
}

/// A source that is bound to a file's columns.
#[derive(Debug, Clone)]
pub struct Source {
    /// The mapping's key, for messages: `order.placed_at`.
    pub key: String,
    pub kind: Kind,
    pub column: Option<usize>,
    /// The column's name, for messages.
    pub name: String,
    pub constant: Option<String>,
    pub default: Option<String>,
    pub format: Option<String>,
    pub words: Option<BTreeMap<String, String>>,
    pub case: Option<Case>,
    pub differs: Differs,
}

/// How numbers and times are written in the file.
#[derive(Debug, Clone)]
pub struct Notation {
    pub decimal: char,
    pub thousands: Option<char>,
    pub zone: TimeZone,
}

impl Source {
    /// The field's text in this row, after words, default and letter case; empty when there is none.
    pub fn text(&self, row: &csv::StringRecord) -> Result<String, String> {
        let raw = match (&self.constant, self.column) {
            (Some(constant), _) => constant.as_str(),
            (None, Some(column)) => row.get(column).unwrap_or("").trim(),
            (None, None) => "",
        };
        let text = match &self.words {
            Some(words) => match (words.get(raw), &self.default) {
                (Some(word), _) => word.clone(),
                (None, Some(default)) => default.clone(),
                (None, None) if raw.is_empty() => String::new(),
                (None, None) => {
                    return Err(format!("{}: {} is not among the words of {}.words", self.name, shown(raw), self.key));
                }
            },
            None if raw.is_empty() => self.default.clone().unwrap_or_default(),
            None => raw.to_owned(),
        };
        Ok(match self.case {
            Some(Case::Upper) => text.to_uppercase(),
            Some(Case::Lower) => text.to_lowercase(),
            None => text,
        })
    }

    /// The field in the form our own order has it: amounts as plain decimals, times in RFC 3339, identifiers without
    /// a stray `.0`. `None` when it is empty.
    pub fn value(&self, row: &csv::StringRecord, notation: &Notation) -> Result<Option<String>, String> {
        let text = self.text(row)?;
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |what: &str| Err(format!("{}: {} is not {what}", self.name, shown(&text)));
        Ok(Some(match self.kind {
            Kind::Text => text,
            Kind::Id => match whole(&text) {
                Some(whole) => whole.to_owned(),
                None => text,
            },
            Kind::Amount => match amount(&text, notation) {
                Some(price) => price.to_string(),
                None => return wrong("an amount (digits, at most nine decimals)"),
            },
            Kind::Quantity => match quantity(&text, notation) {
                Some(quantity) => quantity.to_string(),
                None => return wrong("a whole number of units, at most a thousand million"),
            },
            Kind::Time => match time(&text, self.format.as_deref(), &notation.zone) {
                Some(at) => at.rfc3339(),
                None => {
                    return wrong(&format!("a time of the form {}", self.format.as_deref().unwrap_or("rfc3339")));
                }
            },
            Kind::YesNo => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "1" => "true".into(),
                "false" | "no" | "n" | "0" => "false".into(),
                _ => return wrong("yes or no"),
            },
        }))
    }
}

/// Text as it may be shown: a number or a date as it is, anything else only by its length.
pub fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_digit() || " .,:;/+-_'TZ%".contains(c);
    if text.len() <= 40 && text.chars().all(plain) {
        format!("\"{text}\"")
    } else {
        format!("a text of {} characters", text.chars().count())
    }
}

/// `17850.0` → `17850`; `None` for what is not a whole number with a needless fraction.
fn whole(text: &str) -> Option<&str> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (digits(whole) && digits(fraction) && fraction.bytes().all(|b| b == b'0')).then_some(whole)
}

/// Reads an amount in the file's notation.
pub fn amount(text: &str, notation: &Notation) -> Option<UnitPrice> {
    if notation.decimal == '.' && notation.thousands.is_none() {
        return UnitPrice::parse(text);
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once(notation.decimal).map_or((digits, None), |(a, b)| (a, Some(b)));
    // Groups of three, or it is written in another notation: `12.50` is not 1250.
    let groups: Vec<&str> = notation.thousands.map_or_else(|| vec![whole], |mark| whole.split(mark).collect());
    let grouped = groups.iter().enumerate().all(|(position, it)| it.len() == 3 || position == 0 && it.len() < 3);
    if groups.len() > 1 && (!grouped || groups[0].is_empty()) {
        return None;
    }
    let whole = groups.concat();
    let plain = fraction.map_or_else(|| format!("{sign}{whole}"), |fraction| format!("{sign}{whole}.{fraction}"));
    plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '.')).then(|| UnitPrice::parse(&plain)).flatten()
}

/// Reads a whole number of units, `6` or `6.0`, as many as an order may have.
pub fn quantity(text: &str, notation: &Notation) -> Option<i64> {
    let price = amount(text, notation)?;
    let unit = 10i64.checked_pow(u32::try_from(price.scale).ok()?)?;
    (price.amount % unit == 0)
        .then_some(price.amount / unit)
        .filter(|it| it.unsigned_abs() <= MAX_QUANTITY.unsigned_abs())
}

/// Reads a time. Without an offset in the pattern it is a wall clock's in `zone`; an hour that a zone has twice is
/// taken as its first, one that it skips as the hour after.
pub fn time(text: &str, format: Option<&str>, zone: &TimeZone) -> Option<Micros> {
    let at = match format {
        None | Some("rfc3339") => text.parse::<Timestamp>().ok()?,
        Some(format) => {
            let parts = jiff::fmt::strtime::parse(format, text).ok()?;
            match parts.to_timestamp() {
                Ok(at) => at,
                Err(_) => {
                    let wall = parts.to_datetime().or_else(|_| parts.to_date().map(civil::Date::into)).ok()?;
                    zone.to_ambiguous_timestamp(wall).compatible().ok()?
                }
            }
        }
    };
    Some(Micros(at.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notation(decimal: char, thousands: Option<char>) -> Notation {
        Notation { decimal, thousands, zone: TimeZone::get("Europe/London").unwrap() }
    }

    #[test]
    fn amounts_are_read_in_the_files_notation() {
        let english = notation('.', None);
        let dutch = notation(',', Some('.'));
        let table: &[(&str, &Notation, Option<&str>)] = &[
            ("2.55", &english, Some("2.55")),
            ("-11062.06", &english, Some("-11062.06")),
            ("0.001", &english, Some("0.001")),
            ("1,5", &english, None),
            ("1e3", &english, None),
            ("1.234,50", &dutch, Some("1234.50")),
            ("-0,5", &dutch, Some("-0.5")),
            ("1.2.3,4,5", &dutch, None),
            ("12 €", &dutch, None),
            ("1.234.567,8", &dutch, Some("1234567.8")),
            ("-1.234", &dutch, Some("-1234")),
            // In the other notation.
            ("12.50", &dutch, None),
            ("1.5", &dutch, None),
            ("1234.567", &dutch, None),
            (".123", &dutch, None),
            ("1.234.5", &dutch, None),
            ("1,234.567", &dutch, None),
            ("--1", &dutch, None),
            ("NaN", &english, None),
        ];
        for (text, notation, expected) in table {
            assert_eq!(amount(text, notation).map(|it| it.to_string()).as_deref(), *expected, "{text}");
        }
    }

    #[test]
    fn quantities_may_be_written_with_a_needless_fraction_and_no_other() {
        let n = notation('.', None);
        for (text, expected) in [
            ("6.0", Some(6)),
            ("-80995.0", Some(-80_995)),
            ("3", Some(3)),
            ("0.5", None),
            ("6.", Some(6)),
            ("", None),
            ("9000000000000000000", None),
        ] {
            assert_eq!(quantity(text, &n), expected, "{text}");
        }
    }

    #[test]
    fn a_wall_clock_is_read_in_its_zone() {
        let london = TimeZone::get("Europe/London").unwrap();
        let pattern = Some("%Y-%m-%d %H:%M:%S");
        let table = [
            ("2010-12-01 08:26:00", Some("2010-12-01T08:26:00Z")),
            ("2011-07-01 08:26:00", Some("2011-07-01T07:26:00Z")),
            // An hour the zone has twice is its first, one it skips is the hour after.
            ("2011-10-30 01:30:00", Some("2011-10-30T00:30:00Z")),
            ("2011-03-27 01:30:00", Some("2011-03-27T01:30:00Z")),
            ("2011-13-01 00:00:00", None),
            ("yesterday", None),
        ];
        for (text, expected) in table {
            assert_eq!(time(text, pattern, &london).map(Micros::rfc3339).as_deref(), expected, "{text}");
        }
        assert_eq!(
            time("31/12/2011", Some("%d/%m/%Y"), &london).map(Micros::rfc3339).as_deref(),
            Some("2011-12-31T00:00:00Z")
        );
        assert_eq!(
            time("2011-01-01T00:00:00+01:00", None, &london).map(Micros::rfc3339).as_deref(),
            Some("2010-12-31T23:00:00Z")
        );
        assert_eq!(
            time("01.02.2011 10:00 +0200", Some("%d.%m.%Y %H:%M %z"), &london).map(Micros::rfc3339).as_deref(),
            Some("2011-02-01T08:00:00Z")
        );
    }

    #[test]
    fn a_refusal_does_not_repeat_what_could_be_a_name() {
        assert_eq!(shown("12/31/2011"), "\"12/31/2011\"");
        assert_eq!(shown("Jan de Vries"), "a text of 12 characters");
    }
}
