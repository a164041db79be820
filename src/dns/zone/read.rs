//! Master files to records (RFC 1035 section 5, RFC 2308 section 4): directives, owners, TTLs, includes.

use std::path::{Path as FilePath, PathBuf};

use super::entry::{Entries, Token};
use super::generate;
use super::name;
use super::rdata::{self, show};
use super::report::{At, Report};

/// What takes the records that are read.
pub(in crate::dns) trait Sink: std::fmt::Debug {
    /// Takes one record; `owner` is in wire form, lower case, `data` is uncompressed. May say what is unwise about it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn take(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
        at: At,
    ) -> Result<Option<String>, String>;

    /// Notes that a record of this type was there but could not be read.
    fn broken(&mut self, rtype: u16);

    /// Notes that a file could not be read.
    fn broken_file(&mut self);
}

/// Reads master files, record by record, into a [`Sink`].
#[derive(Debug)]
pub(super) struct Reader<'b> {
    sink: &'b mut dyn Sink,
    report: &'b mut Report,
    /// TTL of records without one: `$TTL`, until then the configured one.
    ttl: u32,
    origin: Vec<u8>,
    owner: Owner,
    /// The data of the last record, kept for its room.
    data: Vec<u8>,
    /// Files being read, outermost first.
    open: Vec<PathBuf>,
}

/// The owner that an indented entry takes over.
#[derive(Debug)]
enum Owner {
    /// No record came yet.
    None,
    /// The last one could not be read: its other records are passed over, one problem is enough.
    Bad,
    Name(Vec<u8>),
}

impl<'b> Reader<'b> {
    pub(super) fn new(
        sink: &'b mut dyn Sink,
        report: &'b mut Report,
        apex: &[u8],
        ttl: u32,
    ) -> Self {
        Self {
            sink,
            report,
            ttl,
            origin: apex.to_vec(),
            owner: Owner::None,
            data: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Reads a file and what it includes.
    pub(super) fn file(&mut self, path: &FilePath, from: At) {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("found no readable file `{}`: {error}", path.display());
                // The zone's own file has no place that names it.
                let from = if self.report.files() == 0 {
                    At {
                        file: self.report.file(path.display().to_string()),
                        line: 0,
                    }
                } else {
                    from
                };
                self.report.error(from, message);
                // Whatever misses now may stand in there.
                self.sink.broken_file();
                return;
            }
        };
        self.open.push(path.to_path_buf());
        self.text(&path.display().to_string(), &text);
        self.open.pop();
    }

    /// Reads text that stands in for a file.
    pub(super) fn text(&mut self, name: &str, text: &[u8]) {
        let file = self.report.file(name.to_owned());
        let mut entries = Entries::new(text);
        let mut tokens = Vec::new();
        while let Some(entry) = entries.next(&mut tokens) {
            match entry {
                Err(bad) => {
                    self.report.error(at(file, bad.line), bad.message);
                    self.owner = Owner::Bad;
                }
                Ok(entry) => {
                    let at = at(file, entry.line);
                    let read =
                        if !entry.indented && tokens[0].text.starts_with(b"$") && !tokens[0].quoted
                        {
                            self.directive(&tokens, at)
                        } else {
                            self.record(entry.indented, &tokens, at)
                        };
                    if let Err(message) = read {
                        self.report.error(at, message);
                    }
                }
            }
        }
    }

    fn directive(&mut self, tokens: &[Token<'_>], at: At) -> Result<(), String> {
        let name = tokens[0].text.to_ascii_uppercase();
        let arguments = &tokens[1..];
        match (name.as_slice(), arguments) {
            (b"$TTL", [ttl]) => {
                self.ttl = rdata::ttl(ttl.text)
                    .map_err(|expected| format!("$TTL: found `{}`, {expected}", show(ttl)))?;
                Ok(())
            }
            (b"$ORIGIN", [origin]) => {
                let mut wire = Vec::new();
                name::from_text(origin.text, &self.origin, &mut wire)
                    .map_err(|problem| format!("$ORIGIN: {problem}"))?;
                self.origin = wire;
                Ok(())
            }
            (b"$INCLUDE", [file]) => self.include(file, None, at),
            (b"$INCLUDE", [file, origin]) => self.include(file, Some(origin), at),
            (b"$GENERATE", [range, record @ ..]) if record.len() >= 3 => {
                self.generate(range, record, at)
            }
            (b"$GENERATE", _) => {
                Err("$GENERATE: expected a range, an owner, a type and its data".to_owned())
            }
            (b"$TTL", _) => Err("$TTL: expected one TTL".to_owned()),
            (b"$ORIGIN", _) => Err("$ORIGIN: expected one name".to_owned()),
            (b"$INCLUDE", _) => Err("$INCLUDE: expected a file and perhaps a name".to_owned()),
            _ => Err(format!(
                "found `{}`, expected $TTL, $ORIGIN, $INCLUDE or $GENERATE",
                show(&tokens[0])
            )),
        }
    }

    /// Origin and owner are afterwards as before (RFC 1035 section 5.1).
    fn include(
        &mut self,
        file: &Token<'_>,
        origin: Option<&Token<'_>>,
        at: At,
    ) -> Result<(), String> {
        let mut inner = self.origin.clone();
        if let Some(origin) = origin {
            inner.clear();
            name::from_text(origin.text, &self.origin, &mut inner)
                .map_err(|problem| format!("$INCLUDE: {problem}"))?;
        }
        let Ok(name) = std::str::from_utf8(file.text) else {
            return Err("$INCLUDE: found a file name that is not UTF-8, expected UTF-8".to_owned());
        };
        let base = self.open.last().and_then(|path| path.parent());
        let path = base.map_or_else(|| PathBuf::from(name), |base| base.join(name));
        if self.open.contains(&path) {
            return Err(format!(
                "$INCLUDE: found `{name}`, which includes itself, expected another file"
            ));
        }
        if self.open.len() > INCLUDES_MAX || self.report.files() >= FILES_MAX {
            return Err(format!(
                "$INCLUDE: found `{name}`, expected at most {INCLUDES_MAX} files inside each other and {FILES_MAX} in all"
            ));
        }
        let origin = std::mem::replace(&mut self.origin, inner);
        let owner = std::mem::replace(&mut self.owner, Owner::None);
        self.file(&path, at);
        self.origin = origin;
        self.owner = owner;
        Ok(())
    }

    /// A record per number (not of any RFC: BIND began it). The first problem ends it, as the others would be like it.
    fn generate(&mut self, range: &Token<'_>, record: &[Token<'_>], at: At) -> Result<(), String> {
        let numbers = generate::numbers(range.text)
            .map_err(|expected| format!("$GENERATE: found `{}`, {expected}", show(range)))?;
        let mut line = Vec::new();
        for number in numbers {
            line.clear();
            let read = generate::line(record, number, &mut line).and_then(|()| {
                let mut tokens = Vec::new();
                match Entries::new(&line).next(&mut tokens) {
                    Some(Ok(_)) => self.record(false, &tokens, at),
                    Some(Err(bad)) => Err(bad.message.to_owned()),
                    None => Err("found nothing, expected a record".to_owned()),
                }
            });
            read.map_err(|problem| format!("$GENERATE, number {number}: {problem}"))?;
        }
        Ok(())
    }

    fn record(&mut self, indented: bool, tokens: &[Token<'_>], at: At) -> Result<(), String> {
        let mut rest = tokens;
        if !indented {
            let mut wire = match std::mem::replace(&mut self.owner, Owner::None) {
                Owner::Name(before) => before,
                _ => Vec::new(),
            };
            wire.clear();
            let read = name::from_text(tokens[0].text, &self.origin, &mut wire);
            rest = &tokens[1..];
            if let Err(problem) = read {
                self.owner = Owner::Bad;
                return Err(format!("owner `{}`: {problem}", show(&tokens[0])));
            }
            wire.make_ascii_lowercase();
            self.owner = Owner::Name(wire);
        }
        let owner = match &self.owner {
            Owner::Name(owner) => owner,
            Owner::Bad => return Ok(()),
            Owner::None => {
                self.owner = Owner::Bad;
                return Err(
                    "found an indented record, expected one with an owner before it".to_owned(),
                );
            }
        };

        let (mut ttl, mut class) = (None, false);
        let token = loop {
            let Some((token, after)) = rest.split_first() else {
                return Err("found the end of the record, expected a type".to_owned());
            };
            rest = after;
            if ttl.is_none() && token.text.first().is_some_and(u8::is_ascii_digit) {
                ttl = Some(
                    rdata::ttl(token.text)
                        .map_err(|expected| format!("TTL: found `{}`, {expected}", show(token)))?,
                );
            } else if !class && is_class(token.text) {
                class = true;
                if !token.text.eq_ignore_ascii_case(b"IN")
                    && !token.text.eq_ignore_ascii_case(b"CLASS1")
                {
                    return Err(format!("found class `{}`, expected IN", show(token)));
                }
            } else {
                break token;
            }
        };
        let Some(rtype) = rdata::rtype(token.text) else {
            return Err(format!(
                "found `{}`, expected a record type, class or TTL",
                show(token)
            ));
        };
        if !rdata::storable(rtype) {
            return Err(format!(
                "found type {}, expected one that may stand in a zone",
                rdata::mnemonic(rtype)
            ));
        }
        rdata::encode(rtype, rest, &self.origin, &mut self.data)
            .inspect_err(|_| self.sink.broken(rtype))?;
        let ttl = ttl.unwrap_or(self.ttl);
        if let Some(warning) = self.sink.take(owner, rtype, ttl, &self.data, at)? {
            self.report.warn(at, warning);
        }
        Ok(())
    }
}

/// Whether a token is a class; no type is written so.
pub(super) fn is_class(text: &[u8]) -> bool {
    if text.len() == 2 {
        return [b"IN", b"CH", b"HS", b"CS"]
            .iter()
            .any(|class| text.eq_ignore_ascii_case(*class));
    }
    text.split_at_checked(5).is_some_and(|(start, number)| {
        start.eq_ignore_ascii_case(b"CLASS")
            && !number.is_empty()
            && number.iter().all(u8::is_ascii_digit)
    })
}

fn at(file: u16, line: usize) -> At {
    At {
        file,
        line: u32::try_from(line).unwrap_or(u32::MAX),
    }
}

/// Files inside each other through `$INCLUDE`.
const INCLUDES_MAX: usize = 10;

/// Files per zone.
const FILES_MAX: usize = 1_000;
