//! The mapping: a TOML file that says what a file's columns mean. Every mistake in it is named by its key.

use std::{collections::BTreeMap, path::Path};

use jiff::tz::TimeZone;
use kept_schemas::order::{ChargeKind, PaymentMethod};
use serde::Deserialize;
use thiserror::Error;

use super::source::{Differs, Kind, Notation, Source, SourceSpec};

/// What is wrong with a mapping; each line names a key.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MappingError {
    #[error("mapping {0} cannot be read: {1}")]
    File(String, String),
    #[error("the mapping is not valid TOML or has an unknown key\n{0}")]
    Toml(String),
    #[error("the mapping does not fit:\n  {}", .0.join("\n  "))]
    Keys(Vec<String>),
}

/// The form of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Csv,
    /// JSON objects, one a line: orders of our own form (`kept.order.v1`), or, where the mapping says which field is
    /// what, whatever their fields are.
    Jsonl,
}

macro_rules! fields {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ident),+ $(,)? } $({ $($extra:ident: $type:ty),+ $(,)? })?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(pub $field: Option<SourceSpec>,)+
            $($(pub $extra: $type,)+)?
        }

        impl $name {
            fn each(&self) -> Vec<(&'static str, &SourceSpec, Kind)> {
                let mut all = Vec::new();
                $(if let Some(source) = &self.$field { all.push((stringify!($field), source, Kind::$kind)); })+
                all
            }
        }
    };
}

fields! {
    /// Fields an order has once.
    OrderFields {
        number: Id, placed_at: Time, currency: Text, total: Amount, customer_number: Id, language: Text, test: YesNo,
        email: Text, phone: Text,
        payment_method: Text, payment_authorised: Amount, payment_captured: Amount, payment_reference: Text,
        service: Text, requested_at: Time, promised_at: Time, ship_by: Time, pickup_location: Text,
    } {
        ship_to: AddressFields,
        bill_to: AddressFields,
        attributes: BTreeMap<String, SourceSpec>,
    }
}

fields! {
    /// Fields of an address.
    AddressFields {
        name: Text, company: Text, street: Text, house_number: Text, house_number_addition: Text, extra: Text,
        postcode: Text, city: Text, region: Text, country: Text,
    }
}

fields! {
    /// Fields of a line.
    LineFields {
        sku: Text, quantity: Quantity, unit_price: Amount, description: Text, line_id: Id, promised_at: Time,
        ship_by: Time,
    } {
        attributes: BTreeMap<String, SourceSpec>,
    }
}

/// How the file is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileSpec {
    pub format: Format,
    /// Of JSON lines: the list whose entries are the order's rows, such as `items`. Without it each line is one row.
    pub rows: Option<String>,
    /// `,` `;` `|` or a tab (`\t`).
    pub delimiter: char,
    /// `utf-8` or `windows-1252`.
    pub encoding: Encoding,
    /// IANA name; wall-clock times in the file are of this zone.
    pub time_zone: String,
    pub decimal: char,
    pub thousands: Option<char>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl Default for FileSpec {
    fn default() -> Self {
        Self {
            format: Format::Csv,
            rows: None,
            delimiter: ',',
            encoding: Encoding::Utf8,
            time_zone: "UTC".into(),
            decimal: '.',
            thousands: None,
        }
    }
}

/// Which line codes are charges, not goods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChargeCodes {
    /// Code → kind of charge.
    pub codes: BTreeMap<String, String>,
    /// Beginning of a code → kind of charge.
    pub starts_with: BTreeMap<String, String>,
    /// `POST` and `post` are the same code.
    pub ignore_case: bool,
}

/// A charge that an order has in a column of its own, such as a shipping amount.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeColumn {
    pub kind: String,
    pub code: String,
    pub amount: SourceSpec,
}

/// Orders (or rows) that are not sent, counted under their own name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SkipSpec {
    /// What they are, for the report.
    pub name: String,
    /// Why they are not sent.
    pub why: String,
    /// Skip only the row, not its whole order.
    pub row_only: bool,
    pub number_starts_with: Option<String>,
    /// No row of the order has a quantity above zero.
    pub no_positive_quantity: bool,
    pub column: Option<String>,
    pub is: Option<Vec<String>>,
    pub starts_with: Option<String>,
}

/// What to do with a row that cannot be goods as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Oddity {
    /// The order is refused, with the row's number.
    #[default]
    Refuse,
    /// The row becomes a charge of kind `manual` with its code and its money.
    Charge,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// A quantity of zero or below in an order that is sent.
    pub negative_quantity: Oddity,
    /// A price below zero on goods.
    pub negative_price: Oddity,
}

/// What is made up where the file says nothing; always labelled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Synthetic {
    /// Invented addresses in the order's country.
    pub addresses: bool,
    pub seed: u64,
    /// Of a thousand invented addresses so many have a fault that a check should find.
    pub defects_per_mille: u32,
    pub payment: Option<SyntheticPayment>,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { addresses: false, seed: 1, defects_per_mille: 25, payment: None }
    }
}

/// How an order is said to be paid where the file says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticPayment {
    /// An order of so many units of goods or more is on account.
    pub on_account_from_units: i64,
    /// Every other order: `channel`, `online`, `bank_transfer`, `cash_on_delivery` or `on_account`.
    pub otherwise: String,
}

/// How reference data and stock are made from the orders' own file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Derive {
    pub location: String,
    pub location_name: String,
    pub location_country: String,
    /// The channel of the account.
    pub channel: String,
    /// Of a thousand SKUs so many get less stock than was sold.
    pub short_skus_per_mille: u32,
    /// How much less, in percent of what was sold.
    pub short_by_percent: u32,
    /// A customer with one order of so many units or more is a business.
    pub business_from_units: i64,
}

impl Default for Derive {
    fn default() -> Self {
        Self {
            location: "MAIN".into(),
            location_name: "Main warehouse (synthetic)".into(),
            location_country: "NL".into(),
            channel: "import".into(),
            short_skus_per_mille: 30,
            short_by_percent: 10,
            business_from_units: 500,
        }
    }
}

/// A mapping as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// For people; not read.
    #[serde(default)]
    pub about: String,
    /// The channel account the orders come in by.
    pub account: String,
    /// The shop whose numbering the order numbers belong to.
    pub shop: String,
    #[serde(default)]
    pub file: FileSpec,
    #[serde(default)]
    pub order: OrderFields,
    #[serde(default)]
    pub line: LineFields,
    #[serde(default)]
    pub charges: ChargeCodes,
    #[serde(default)]
    pub charge: Vec<ChargeColumn>,
    #[serde(default)]
    pub skip: Vec<SkipSpec>,
    #[serde(default)]
    pub rules: Rules,
    #[serde(default)]
    pub synthetic: Synthetic,
    #[serde(default)]
    pub derive: Derive,
}

impl Mapping {
    /// Reads a mapping file.
    pub fn read(path: &Path) -> Result<Self, MappingError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| MappingError::File(path.display().to_string(), error.to_string()))?;
        Self::parse(&text)
    }

    /// Reads a mapping's text.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        toml::from_str(text).map_err(|error| MappingError::Toml(error.to_string().trim_end().to_owned()))
    }
}

/// A skip rule bound to columns.
#[derive(Debug, Clone)]
pub struct Skip {
    pub spec: SkipSpec,
    pub column: Option<usize>,
}

/// A mapping bound to one file's columns: everything that can be wrong with it has been said.
#[derive(Debug, Clone)]
pub struct Bound {
    pub mapping: Mapping,
    pub notation: Notation,
    pub columns: usize,
    pub number: Source,
    /// All other fields of the order, by name; addresses as `ship_to.city`.
    pub order: Vec<(String, Source)>,
    pub attributes: Vec<(String, Source)>,
    pub line: Vec<(&'static str, Source)>,
    pub line_attributes: Vec<(String, Source)>,
    pub sku: Source,
    pub quantity: Source,
    pub unit_price: Source,
    /// Exact code → kind; upper case when letter case does not count.
    pub charge_codes: BTreeMap<String, ChargeKind>,
    pub charge_prefixes: Vec<(String, ChargeKind)>,
    pub charge_columns: Vec<(ChargeKind, String, Source)>,
    pub skips: Vec<Skip>,
    pub payment: Option<(i64, PaymentMethod)>,
}

impl Mapping {
    /// Binds the mapping to a file's columns, or says everything that does not fit.
    pub fn bind(&self, header: &csv::StringRecord) -> Result<Bound, MappingError> {
        let mut binder = Binder { header, wrong: self.plain_faults() };
        let zone = match TimeZone::get(&self.file.time_zone) {
            Ok(zone) => zone,
            Err(_) => {
                binder.wrong.push(format!(
                    "file.time_zone: \"{}\" is not a time zone; an example is \"Europe/Amsterdam\"",
                    self.file.time_zone
                ));
                TimeZone::UTC
            }
        };
        let mut order: Vec<(String, Source)> = Vec::new();
        for (name, spec, kind) in self.order.each() {
            order.extend(binder.source("order", name, spec, kind));
        }
        for (part, address) in [("ship_to", &self.order.ship_to), ("bill_to", &self.order.bill_to)] {
            for (name, spec, kind) in address.each() {
                let bound = binder.source(&format!("order.{part}"), name, spec, kind);
                order.extend(bound.map(|(name, source)| (format!("{part}.{name}"), source)));
            }
        }
        let attributes = binder.attributes("order.attributes", &self.order.attributes);
        let mut line: Vec<(&'static str, Source)> = Vec::new();
        for (name, spec, kind) in self.line.each() {
            line.extend(binder.source("line", name, spec, kind).map(|(_, source)| (name, source)));
        }
        let line_attributes = binder.attributes("line.attributes", &self.line.attributes);
        let number = binder.required(
            &mut order,
            "number",
            "order.number",
            "which column has the order's number, e.g. number = \"OrderNo\"",
        );
        for (name, hint) in [
            (
                "placed_at",
                "which column has the time, e.g. placed_at = { column = \"Date\", format = \"%d/%m/%Y %H:%M\" }",
            ),
            ("currency", "which column has it, or a constant, e.g. currency = { value = \"EUR\" }"),
        ] {
            if !order.iter().any(|(field, _)| field == name) {
                binder.missing(&format!("order.{name}"), hint);
            }
        }
        let mut take = |name: &'static str, hint: &str| {
            let at = line.iter().position(|(field, _)| *field == name);
            if at.is_none() {
                binder.missing(&format!("line.{name}"), hint);
            }
            at.map(|at| line.remove(at).1)
        };
        let sku = take("sku", "which column has the article number, e.g. sku = \"SKU\"");
        let quantity = take("quantity", "which column has the number of units, e.g. quantity = \"Qty\"");
        let unit_price = take("unit_price", "which column has the price of one unit, e.g. unit_price = \"Price\"");

        let fold = |code: &str| if self.charges.ignore_case { code.to_uppercase() } else { code.to_owned() };
        let mut charge_codes = BTreeMap::new();
        for (code, kind) in &self.charges.codes {
            let kind = binder.charge_kind(&format!("charges.codes.{code}"), kind);
            charge_codes.insert(fold(code), kind);
        }
        let mut charge_prefixes = Vec::new();
        for (code, kind) in &self.charges.starts_with {
            charge_prefixes.push((fold(code), binder.charge_kind(&format!("charges.starts_with.{code}"), kind)));
        }
        let mut charge_columns = Vec::new();
        for (at, charge) in self.charge.iter().enumerate() {
            let key = format!("charge[{}]", at + 1);
            let kind = binder.charge_kind(&format!("{key}.kind"), &charge.kind);
            if let Some((_, source)) = binder.source(&key, "amount", &charge.amount, Kind::Amount) {
                charge_columns.push((kind, charge.code.clone(), source));
            }
        }
        let mut skips = Vec::new();
        for (at, skip) in self.skip.iter().enumerate() {
            let column = skip.column.as_ref().and_then(|name| binder.column(&format!("skip[{}].column", at + 1), name));
            skips.push(Skip { spec: skip.clone(), column });
        }
        let payment = self.synthetic.payment.as_ref().map(|payment| {
            let method = PaymentMethod::of(&payment.otherwise);
            if method == PaymentMethod::Unknown {
                binder.wrong.push(format!(
                    "synthetic.payment.otherwise: \"{}\" is not a way to pay; they are {}",
                    payment.otherwise,
                    list(PaymentMethod::ALL.iter().map(|it| it.as_str()))
                ));
            }
            (payment.on_account_from_units, method)
        });
        match (number, sku, quantity, unit_price) {
            (Some(number), Some(sku), Some(quantity), Some(unit_price)) if binder.wrong.is_empty() => Ok(Bound {
                notation: Notation { decimal: self.file.decimal, thousands: self.file.thousands, zone },
                columns: header.len(),
                mapping: self.clone(),
                number,
                order,
                attributes,
                line,
                line_attributes,
                sku,
                quantity,
                unit_price,
                charge_codes,
                charge_prefixes,
                charge_columns,
                skips,
                payment,
            }),
            _ => Err(MappingError::Keys(binder.wrong)),
        }
    }

    /// True when the mapping says which column is what; else the file's orders have our own form already.
    pub fn names_columns(&self) -> bool {
        !self.order.each().is_empty() || !self.line.each().is_empty()
    }

    /// How often the file is read.
    pub fn passes(&self) -> u64 {
        match (self.file.format, self.names_columns()) {
            (Format::Csv, _) => 2,
            (Format::Jsonl, false) => 1,
            (Format::Jsonl, true) => 3,
        }
    }

    /// What is wrong with the mapping whatever the file is.
    pub fn plain_faults(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, value) in [("account", &self.account), ("shop", &self.shop)] {
            if value.trim().is_empty() || value.len() > 100 {
                wrong.push(format!("{key}: must be 1 to 100 characters"));
            }
        }
        if !self.file.delimiter.is_ascii() {
            wrong.push("file.delimiter: must be one ASCII character, such as , or ; or \\t".into());
        }
        if self.file.rows.is_some() && (self.file.format == Format::Csv || !self.names_columns()) {
            wrong.push("file.rows: goes with format = \"jsonl\" and columns under [order] and [line] only".into());
        }
        if self.file.thousands == Some(self.file.decimal) {
            wrong.push("file.thousands: is the same sign as file.decimal".into());
        }
        if self.synthetic.defects_per_mille > 1_000 {
            wrong.push("synthetic.defects_per_mille: is more than 1000".into());
        }
        if self.derive.short_skus_per_mille > 1_000 {
            wrong.push("derive.short_skus_per_mille: is more than 1000".into());
        }
        if self.derive.short_by_percent > 100 {
            wrong.push("derive.short_by_percent: is more than 100".into());
        }
        for (at, skip) in self.skip.iter().enumerate() {
            let key = format!("skip[{}]", at + 1);
            if skip.name.trim().is_empty() {
                wrong.push(format!("{key}.name: missing; what they are called in the report"));
            }
            let conditions = [skip.number_starts_with.is_some(), skip.no_positive_quantity, skip.column.is_some()];
            if conditions.iter().filter(|it| **it).count() != 1 {
                wrong.push(format!(
                    "{key}: needs exactly one of number_starts_with, no_positive_quantity = true, column"
                ));
            }
            if skip.column.is_some() && skip.is.is_some() == skip.starts_with.is_some() {
                wrong.push(format!("{key}: column needs one of is = [\"…\"] and starts_with = \"…\""));
            }
            if skip.row_only && skip.column.is_none() {
                wrong.push(format!("{key}.row_only: goes with column only"));
            }
        }
        wrong
    }
}

impl Bound {
    /// The kind of charge a line's code is; `None`: goods.
    pub fn charge_kind(&self, code: &str) -> Option<ChargeKind> {
        let folded;
        let code = if self.mapping.charges.ignore_case {
            folded = code.to_uppercase();
            folded.as_str()
        } else {
            code
        };
        self.charge_codes.get(code).copied().or_else(|| {
            self.charge_prefixes.iter().find(|(prefix, _)| code.starts_with(prefix.as_str())).map(|(_, kind)| *kind)
        })
    }
}

struct Binder<'a> {
    header: &'a csv::StringRecord,
    wrong: Vec<String>,
}

impl Binder<'_> {
    /// Says that a key is missing, unless something else was said of it already.
    fn missing(&mut self, key: &str, hint: &str) {
        let said = format!("{key}:");
        if !self.wrong.iter().any(|it| it.starts_with(&said)) {
            self.wrong.push(format!("{key}: missing; say {hint}"));
        }
    }

    fn column(&mut self, key: &str, name: &str) -> Option<usize> {
        let found: Vec<usize> =
            self.header.iter().enumerate().filter(|(_, it)| it.trim() == name).map(|(at, _)| at).collect();
        match found[..] {
            [one] => Some(one),
            [] => {
                let near = self.header.iter().min_by_key(|it| distance(&it.to_lowercase(), &name.to_lowercase()));
                let near = near.map(|it| format!("; the nearest is \"{it}\"")).unwrap_or_default();
                self.wrong.push(format!(
                    "{key}: the file has no column \"{name}\"{near}; it has {}",
                    list(self.header.iter())
                ));
                None
            }
            _ => {
                self.wrong.push(format!("{key}: the file has {} columns \"{name}\"", found.len()));
                None
            }
        }
    }

    fn source(&mut self, under: &str, name: &str, spec: &SourceSpec, kind: Kind) -> Option<(String, Source)> {
        let key = format!("{under}.{name}");
        let spec = &spec.0;
        let column = match (&spec.column, &spec.value) {
            (Some(_), Some(_)) => {
                self.wrong.push(format!("{key}: has both column and value; say one"));
                return None;
            }
            (None, None) => {
                self.wrong.push(format!("{key}: needs column = \"…\" or value = \"…\""));
                return None;
            }
            (Some(name), None) => Some(self.column(&key, name)?),
            (None, Some(_)) => None,
        };
        if spec.format.is_some() && kind != Kind::Time {
            self.wrong.push(format!("{key}.format: only times have a format"));
        }
        if let Some(format) = spec.format.as_deref().filter(|it| *it != "rfc3339")
            && (!format.contains('%') || !format_is_known(format))
        {
            self.wrong.push(format!(
                "{key}.format: \"{format}\" is not a pattern; an example is \"%d/%m/%Y %H:%M\", or say \"rfc3339\""
            ));
        }
        if spec.differs.is_some() && under.starts_with("line") {
            self.wrong.push(format!("{key}.differs: a line's field may differ anyway"));
        }
        let source = Source {
            name: spec.column.clone().unwrap_or_else(|| key.clone()),
            key,
            kind,
            column,
            constant: spec.value.clone(),
            default: spec.default.clone(),
            format: spec.format.clone(),
            words: spec.words.clone(),
            case: spec.case,
            differs: spec.differs.unwrap_or(Differs::Refuse),
        };
        Some((name.to_owned(), source))
    }

    fn attributes(&mut self, under: &str, specs: &BTreeMap<String, SourceSpec>) -> Vec<(String, Source)> {
        specs.iter().filter_map(|(name, spec)| self.source(under, name, spec, Kind::Text)).collect()
    }

    fn required(&mut self, order: &mut Vec<(String, Source)>, name: &str, key: &str, hint: &str) -> Option<Source> {
        let at = order.iter().position(|(field, _)| field == name);
        if at.is_none() {
            self.missing(key, hint);
        }
        at.map(|at| order.remove(at).1)
    }

    fn charge_kind(&mut self, key: &str, word: &str) -> ChargeKind {
        let kind = ChargeKind::of(word);
        if kind == ChargeKind::Unknown {
            self.wrong.push(format!(
                "{key}: \"{word}\" is not a kind of charge; they are {}",
                list(ChargeKind::ALL.iter().map(|it| it.as_str()))
            ));
        }
        kind
    }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// A pattern is known when a time written with it can be read with it.
fn format_is_known(format: &str) -> bool {
    let Ok(sample) = "2011-10-12T13:14:15Z".parse::<jiff::Timestamp>() else { return false };
    let zoned = sample.to_zoned_datetime(TimeZone::UTC);
    let Ok(text) = jiff::fmt::strtime::format(format, &zoned) else { return false };
    super::source::time(&text, Some(format), &TimeZone::UTC).is_some()
}

/// How many letters must change to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
account = "shop-file"
shop = "shop.example"
[file]
time_zone = "Europe/London"
[order]
number = "No"
placed_at = { column = "Date", format = "%Y-%m-%d %H:%M:%S" }
currency = { value = "GBP" }
[line]
sku = "Code"
quantity = "Qty"
unit_price = "Price"
"#;

    fn header() -> csv::StringRecord {
        csv::StringRecord::from(vec!["No", "Date", "Code", "Qty", "Price"])
    }

    fn faults(text: &str) -> Vec<String> {
        match Mapping::parse(text).and_then(|it| it.bind(&header())) {
            Ok(_) => Vec::new(),
            Err(MappingError::Keys(keys)) => keys,
            Err(other) => vec![other.to_string()],
        }
    }

    #[test]
    fn a_whole_mapping_fits() {
        assert_eq!(faults(WHOLE), Vec::<String>::new());
    }

    #[test]
    fn every_mistake_is_named_by_its_key() {
        let table: &[(&str, &str, &str)] = &[
            // what stands in the good mapping, what stands there instead, what the answer must begin with or hold
            ("currency = { value = \"GBP\" }\n", "", "order.currency: missing"),
            ("number = \"No\"\n", "", "order.number: missing"),
            ("sku = \"Code\"\n", "", "line.sku: missing"),
            (
                "quantity = \"Qty\"",
                "quantity = \"Qyt\"",
                "line.quantity: the file has no column \"Qyt\"; the nearest is \"Qty\"",
            ),
            ("quantity = \"Qty\"", "quantity = 5", "invalid type: integer"),
            (
                "unit_price = \"Price\"",
                "unit_price = { column = \"Price\", value = \"1\" }",
                "line.unit_price: has both",
            ),
            ("unit_price = \"Price\"", "unit_price = {}", "line.unit_price: needs column"),
            ("unit_price = \"Price\"", "unit_price = { colum = \"Price\" }", "unknown field `colum`"),
            ("unit_price = \"Price\"", "unit_prize = \"Price\"", "unknown field `unit_prize`"),
            ("account = \"shop-file\"\n", "", "missing field `account`"),
            ("shop = \"shop.example\"", "shop = \" \"", "shop: must be"),
            ("\"Europe/London\"", "\"Europe/Lundon\"", "file.time_zone: \"Europe/Lundon\""),
            ("\"%Y-%m-%d %H:%M:%S\"", "\"YYYY-MM-DD\"", "order.placed_at.format: \"YYYY-MM-DD\" is not a pattern"),
            ("\"%Y-%m-%d %H:%M:%S\"", "\"%H:%M\"", "order.placed_at.format: \"%H:%M\" is not a pattern"),
            ("[line]", "[charges.codes]\nPOST = \"shiping\"\n[line]", "charges.codes.POST: \"shiping\" is not a kind"),
            ("[line]", "[[skip]]\nname = \"x\"\n[line]", "skip[1]: needs exactly one of"),
            ("[line]", "[[skip]]\ncolumn = \"No\"\nis = [\"1\"]\n[line]", "skip[1].name: missing"),
            (
                "[line]",
                "[[skip]]\nname = \"x\"\ncolumn = \"Nr\"\nis = [\"1\"]\n[line]",
                "skip[1].column: the file has no column",
            ),
            (
                "[line]",
                "[[charge]]\nkind = \"shipping\"\ncode = \"S\"\namount = \"Ship\"\n[line]",
                "charge[1].amount: the file has no",
            ),
            (
                "[line]",
                "[synthetic.payment]\non_account_from_units = 5\notherwise = \"cash\"\n[line]",
                "synthetic.payment.otherwise: \"cash\"",
            ),
            ("[file]", "[file]\nthousands = \".\"", "file.thousands: is the same sign"),
            ("[file]", "[file]\nencoding = \"utf-7\"", "unknown variant `utf-7`"),
        ];
        for (good, bad, expected) in table {
            assert!(WHOLE.contains(good), "{good}");
            let found = faults(&WHOLE.replacen(good, bad, 1));
            assert!(found.iter().any(|it| it.contains(expected)), "{bad}: {found:?}");
        }
    }

    #[test]
    fn several_mistakes_are_said_at_once() {
        let text = WHOLE.replace("currency = { value = \"GBP\" }\n", "").replace("sku = \"Code\"\n", "");
        assert_eq!(faults(&text).len(), 2);
    }

    #[test]
    fn charge_codes_may_ignore_letter_case() {
        let text = WHOLE.to_owned()
            + "[charges]\nignore_case = true\ncodes = { M = \"manual\" }\nstarts_with = { gift_ = \"gift_card\" }\n";
        let bound = Mapping::parse(&text).unwrap().bind(&header()).unwrap();
        let table = [
            ("M", Some(ChargeKind::Manual)),
            ("m", Some(ChargeKind::Manual)),
            ("gift_0001", Some(ChargeKind::GiftCard)),
            ("MUG", None),
        ];
        for (code, kind) in table {
            assert_eq!(bound.charge_kind(code), kind, "{code}");
        }
    }
}
