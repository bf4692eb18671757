//! File import: rows of a merchant's export become orders of our own form, by a mapping the merchant writes.
//!
//! The file is read twice, in bounded memory: once to see that it can be read whole and which orders are scattered
//! over it, once to send. What is sent follows from file and mapping alone, so that a second run sends the same.

pub mod build;
pub mod derive;
mod json_rows;
pub mod mapping;
pub mod open;
pub mod report;
pub mod rows;
pub mod source;
pub mod summary;
pub mod tally;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
};

use kept_schemas::{
    EventId, Headers, Micros, OrderId, Topic,
    inbound::{Inbound, InboundKind},
    own::OrderForm,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use self::{
    build::{Built, Reason, Verdict, build},
    derive::Demand,
    mapping::{Format, Mapping, MappingError},
    open::Progress,
    report::{Report, What},
    rows::{Rows, groups, scan},
    tally::Tally,
};

/// Why an import cannot go on. What was sent before stays sent; the same import again doubles nothing.
#[derive(Debug, Error)]
pub enum ImportError {
    #[error("{0} cannot be opened: {1}")]
    Open(String, #[source] io::Error),
    #[error("{0} is empty: it has not even a first row with the columns' names")]
    Empty(String),
    #[error("row {0} cannot be read: {1}")]
    Read(u64, String),
    #[error(transparent)]
    Mapping(#[from] MappingError),
    #[error("{0}")]
    Deliver(String),
}

impl ImportError {
    fn read(row: u64, error: &csv::Error) -> Self {
        match error.kind() {
            csv::ErrorKind::Io(error) => Self::Read(row, error.to_string()),
            _ => Self::Read(row, error.to_string()),
        }
    }
}

/// What the caller wants besides the orders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many orders, and how many refusals, to keep as examples.
    pub examples: usize,
    /// Gather what [`derive::derive`] needs.
    pub demand: bool,
}

/// An order as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub order_id: OrderId,
    pub number: String,
    pub body: Vec<u8>,
    pub body_sha256: [u8; 32],
    /// Lines with goods.
    pub lines: u64,
    /// Units of goods.
    pub units: i64,
    pub total_minor: i64,
}

impl Ready {
    fn of(shop: &str, number: &str, body: Vec<u8>) -> Self {
        Self {
            order_id: OrderId::of(shop, number),
            number: number.to_owned(),
            body_sha256: Sha256::digest(&body).into(),
            body,
            lines: 0,
            units: 0,
            total_minor: 0,
        }
    }

    /// The record that goes to `channels.inbound`, and its headers. The event id follows from account, number and
    /// body, so that the same order sent again is the same event.
    pub fn inbound(&self, mapping: &Mapping, received_at: Micros) -> (Inbound, Headers) {
        let inbound = Inbound {
            account: mapping.account.clone(),
            kind: InboundKind::Order,
            format: OrderForm::FORMAT.into(),
            shop: mapping.shop.clone(),
            external_id: self.number.clone(),
            source_version: None,
            received_at,
            body: self.body.clone(),
        };
        let headers = Headers {
            event_id: Some(EventId::of_input(&mapping.account, &self.number, &self.body_sha256)),
            subject: Some(Topic::ChannelsInbound.subject().into()),
            ..Headers::default()
        };
        (inbound, headers)
    }
}

/// What an import found, whatever became of the orders.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tally: Tally,
    /// The first orders' bodies.
    pub examples: Vec<Vec<u8>>,
    /// The first refusals: order number and reasons.
    pub refusals: Vec<(String, Vec<Reason>)>,
    pub demand: Demand,
}

/// Reads a file and hands out every order that is to be sent, in file order. `outcome` grows as it goes, so that it
/// tells how far an import came that could not be finished.
pub fn run(
    path: &Path,
    mapping: &Mapping,
    options: Options,
    progress: &Progress,
    report: Option<&mut Report>,
    outcome: &mut Outcome,
    each: impl FnMut(Ready) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let faults = mapping.plain_faults();
    if !faults.is_empty() {
        return Err(MappingError::Keys(faults).into());
    }
    let mut run = Run { mapping, options, report, each, outcome };
    match mapping.file.format {
        Format::Jsonl if !mapping.names_columns() => run.own_form(path, progress),
        Format::Csv | Format::Jsonl => run.table(path, progress),
    }
}

struct Run<'a, F> {
    mapping: &'a Mapping,
    options: Options,
    report: Option<&'a mut Report>,
    each: F,
    outcome: &'a mut Outcome,
}

impl<F: FnMut(Ready) -> Result<(), ImportError>> Run<'_, F> {
    fn table(&mut self, path: &Path, progress: &Progress) -> Result<(), ImportError> {
        let spec = &self.mapping.file;
        let mut first = Rows::open(path, spec, None, progress)?;
        let header = first.header().clone();
        let bound = self.mapping.bind(&header)?;
        let found = scan(&mut first, &bound)?;
        self.outcome.tally.rows = found.rows;
        drop(first);
        let mut second = Rows::open(path, spec, Some(&header), progress)?;
        groups(&mut second, &bound, &found, |group| {
            let verdict = build(&group, &bound);
            if group.places > 1 {
                self.outcome.tally.scattered_orders += 1;
                let text = format!("its rows stand in {} places of the file; they were put together", group.places);
                self.note(What::Note, &group.number, group.first_row, group.last_row, group.row_count, &text);
            }
            match verdict {
                Verdict::Send(built) => self.send(*built, group.row_count),
                Verdict::Skip(name, skipped) => {
                    let reason = format!("{name}: {}", skipped.why);
                    self.note(What::LeftOut, &group.number, group.first_row, group.last_row, group.row_count, &reason);
                    self.outcome.tally.skip(&name, &skipped);
                    Ok(())
                }
                Verdict::Refuse(reasons) => {
                    self.refuse(&group.number, group.last_row, group.row_count, reasons);
                    Ok(())
                }
            }
        })
    }

    fn note(&mut self, what: What, order: &str, first: u64, last: u64, rows: u64, reason: &str) {
        if let Some(report) = &mut self.report {
            report.line(what, order, first, last, rows, reason);
        }
    }

    fn refuse(&mut self, number: &str, last_row: u64, rows: u64, reasons: Vec<Reason>) {
        self.outcome.tally.refuse(rows, &reasons);
        for reason in &reasons {
            self.note(What::Refused, number, reason.row, last_row.max(reason.row), rows, &reason.text);
        }
        if self.outcome.refusals.len() < self.options.examples {
            self.outcome.refusals.push((number.to_owned(), reasons));
        }
    }

    fn send(&mut self, built: Built, rows: u64) -> Result<(), ImportError> {
        self.outcome.tally.order(&built, rows);
        if self.options.demand {
            self.outcome.demand.order(&built.form);
        }
        let mut ready = Ready::of(&self.mapping.shop, &built.form.order_number, built.body);
        ready.lines = built.goods.count;
        ready.units = built.goods.units;
        ready.total_minor = built.total_minor;
        if self.outcome.examples.len() < self.options.examples {
            self.outcome.examples.push(ready.body.clone());
        }
        (self.each)(ready)
    }

    /// Every line is an order of our own form, sent as it is.
    fn own_form(&mut self, path: &Path, progress: &Progress) -> Result<(), ImportError> {
        let file = open::open(path, progress).map_err(|error| ImportError::Open(path.display().to_string(), error))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        let mut row = 0u64;
        loop {
            line.clear();
            row += 1;
            lines.read_until(b'\n', &mut line).map_err(|error| ImportError::Read(row, error.to_string()))?;
            progress.row();
            if line.is_empty() {
                return Ok(());
            }
            self.outcome.tally.rows += 1;
            match build::read(line.trim_ascii(), row) {
                Ok(built) => self.send(built, 1)?,
                Err(reasons) => self.refuse("", row, 1, reasons),
            }
        }
    }
}
