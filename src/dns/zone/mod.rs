//! Own zones: master files in, immutable snapshots with pre-encoded RRsets out.
//!
//! From ground to roof: `name` (names as text), `path` (names as lookups walk them), `table` (hash table), `entry` (text to
//! tokens), `generate` (one line for many records), `layout` (data of common and of rare types, field by field), `rdata` (tokens
//! to data of all types), `denial` (NSEC and NSEC3 chains), `tree` (a zone), `zones` (all of them), `report` (problems with
//! their places), `advise` (warnings about targets), `signed` (signatures and chains), `build` (records to a zone), `records`
//! (a zone as records), `overlay` (changes to them), `read` (files to records).

use std::sync::Arc;

use self::build::Builder;
use self::read::Reader;
pub(super) use self::read::Sink;
pub(super) use self::report::At;
use self::report::Report;
use super::ZoneConfig;

pub(super) mod name;

pub(super) mod path;

pub(super) mod table;

mod entry;

mod generate;

mod layout;

pub(super) mod rdata;

pub(super) mod denial;

pub(super) mod tree;

mod zones;

mod report;

mod advise;

mod signed;

mod build;

mod read;

pub(super) mod records;

pub(super) mod overlay;

pub use records::Record;
pub use tree::Zone;
pub use zones::{Change, Zones};

pub(super) use zones::Place;

/// A problem in a master file: file, line, what was found, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct Problem {
    /// The file, as configured or as named by `$INCLUDE`.
    pub file: String,
    /// 1-based line; 0 when the file as a whole is meant.
    pub line: usize,
    /// Found and expected.
    pub message: String,
}

/// What loading one zone gave.
#[derive(Debug)]
pub struct Loaded {
    /// The zone.
    pub zone: Arc<Zone>,
    /// Legal but unwise.
    pub warnings: Vec<Problem>,
}

/// Reads the master file of `config` and builds the zone.
///
/// # Errors
/// Every problem found (at least one, at most 101), in file order; the caller keeps the zone it had.
pub fn load(config: &ZoneConfig) -> Result<Loaded, Vec<Problem>> {
    build(config, |reader| reader.file(&config.file, At::default()))
}

/// As [`load`], with `text` in place of the file, which is not read; `$INCLUDE` is relative to the working directory.
///
/// # Errors
/// As [`load`].
pub fn load_text(config: &ZoneConfig, text: &[u8]) -> Result<Loaded, Vec<Problem>> {
    let name = config.file.display().to_string();
    build(config, |reader| reader.text(&name, text))
}

/// The wire form, lower case, of a zone's name. `None`: it is no name.
#[must_use]
pub fn apex(name: &str) -> Option<Arc<[u8]>> {
    let mut apex = Vec::new();
    name::from_text(name.as_bytes(), b"\0", &mut apex).ok()?;
    apex.make_ascii_lowercase();
    Some(apex.into())
}

/// Reads master-file text record by record, without building a zone: errors and warnings, each in file order. `name` is
/// that of its file; `origin` is in wire form.
pub(super) fn read_records(
    name: &str,
    text: &[u8],
    origin: &[u8],
    ttl: u32,
    sink: &mut dyn Sink,
) -> (Vec<Problem>, Vec<Problem>) {
    let mut report = Report::default();
    Reader::new(sink, &mut report, origin, ttl).text(name, text);
    report.finish()
}

/// Reads one record in one line, such as `www.cdn.test. 300 A 192.0.2.1`: names are absolute; `ttl` is that of a record without.
///
/// # Errors
/// Found and expected.
pub(super) fn read_record(text: &str, ttl: u32) -> Result<Record, String> {
    if text.contains(['\n', '\r']) || text.starts_with(['$', ' ', '\t']) {
        return Err(format!("found {text:?}, expected one record"));
    }
    let mut records = Records(Vec::new());
    let (errors, _) = read_records("", text.as_bytes(), b"\0", ttl, &mut records);
    if let Some(error) = errors.into_iter().next() {
        return Err(error.message);
    }
    match <[Record; 1]>::try_from(records.0) {
        Ok([record]) => Ok(record),
        Err(_) => Err(format!("found {text:?}, expected one record")),
    }
}

/// Keeps records as they come.
#[derive(Debug)]
struct Records(Vec<Record>);

impl Sink for Records {
    fn take(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
        _: At,
    ) -> Result<Option<String>, String> {
        self.0.push(Record {
            owner: owner.into(),
            rtype,
            ttl,
            data: data.into(),
        });
        Ok(None)
    }

    fn broken(&mut self, _: u16) {}

    fn broken_file(&mut self) {}
}

fn build(config: &ZoneConfig, read: impl FnOnce(&mut Reader<'_>)) -> Result<Loaded, Vec<Problem>> {
    let mut report = Report::strict();
    let mut apex = Vec::new();
    if let Err(problem) = name::from_text(config.name.as_bytes(), b"\0", &mut apex) {
        let file = report.file(config.file.display().to_string());
        report.error(
            At { file, line: 0 },
            format!("zone name `{}`: {problem}", config.name),
        );
        return Err(report.finish().0);
    }
    apex.make_ascii_lowercase();
    let mut builder = Builder::new(&apex);
    read(&mut Reader::new(
        &mut builder,
        &mut report,
        &apex,
        config.ttl,
    ));
    let zone = builder.finish(&config.ttls, &mut report);
    match (zone, report.finish()) {
        (Some(zone), (errors, warnings)) if errors.is_empty() => Ok(Loaded {
            zone: Arc::new(zone),
            warnings,
        }),
        (_, (errors, _)) => Err(errors),
    }
}

#[cfg(test)]
mod tests;
