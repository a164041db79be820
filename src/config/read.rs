//! Typed reading of the merged tree of settings. Every fault is noted with its place and the reading goes
//! on, so that one run of `headwater check` shows them all; keys nobody asked for are the unknown ones.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use ::config::{Map, Value, ValueKind};

use super::locate::Locator;
use super::{suggest, units};

/// One table of the tree.
pub(super) struct Section<'r, 'a> {
    report: &'r Report<'a>,
    path: String,
    table: Map<String, Value>,
    asked: RefCell<Vec<&'static str>>,
    /// The table itself is missing or no table, which was said already.
    muted: bool,
}

/// Everything found wrong or unwise, with its places.
pub(super) struct Report<'a> {
    file: &'a str,
    locator: Option<Locator<'a>>,
    problems: RefCell<Vec<Problem>>,
    keys: RefCell<Vec<String>>,
}

/// One thing wrong or unwise: where, which key, what was found and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it only deserves a warning.
    pub warning: bool,
    /// File and 1-based line, an environment variable, or the command line.
    pub place: Place,
    /// The key, such as `zone[1].ttl`; empty for the file as a whole.
    pub key: String,
    /// Found and expected.
    pub message: String,
}

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file, and the line in it; line 0 is the file as a whole.
    File(String, usize),
    /// An environment variable.
    Environment(String),
    /// `--set` on the command line.
    CommandLine,
    /// The built-in defaults.
    Defaults,
}

/// What a missing key means.
enum Missing<T> {
    /// It has this value.
    Default(T),
    /// The base layer has every such key; elsewhere it must be written.
    Error,
}

impl<'a> Report<'a> {
    /// An empty report about `file`, whose keys `locator` finds.
    pub(super) fn new(file: &'a str, locator: Option<Locator<'a>>) -> Self {
        Self {
            file,
            locator,
            problems: RefCell::default(),
            keys: RefCell::default(),
        }
    }

    /// The top of the tree.
    pub(super) fn root(&self, table: Map<String, Value>) -> Section<'_, 'a> {
        Section {
            report: self,
            path: String::new(),
            table,
            asked: RefCell::default(),
            muted: false,
        }
    }

    /// Whether the file sets `key` itself.
    pub(super) fn in_file(&self, key: &str) -> bool {
        self.locator.as_ref().is_some_and(|l| l.sets(key))
    }

    /// Notes an error at `key`, wherever it was last set.
    pub(super) fn error(&self, key: &str, origin: Option<&str>, message: String) {
        self.note(false, key, origin, message);
    }

    /// Notes a warning at `key`.
    pub(super) fn warning(&self, key: &str, origin: Option<&str>, message: String) {
        self.note(true, key, origin, message);
    }

    /// The problems in the order of their places, and every key that was asked for.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems.dedup();
        (problems, self.keys.into_inner())
    }

    fn note(&self, warning: bool, key: &str, origin: Option<&str>, message: String) {
        let place = match origin {
            Some(ENVIRONMENT) => Place::Environment(variable(key)),
            Some(COMMAND_LINE) => Place::CommandLine,
            _ => match self.locator.as_ref().map(|l| l.line(key)) {
                Some(line) => Place::File(self.file.to_owned(), line.unwrap_or(0)),
                None => Place::Defaults,
            },
        };
        self.problems.borrow_mut().push(Problem {
            warning,
            place,
            key: key.to_owned(),
            message,
        });
    }
}

impl<'r, 'a> Section<'r, 'a> {
    /// The path of `key` from the top.
    pub(super) fn path(&self, key: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = if key.chars().all(plain) {
            key.to_owned()
        } else {
            format!("\"{key}\"")
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Where `key` was set: `None` for a file or the defaults.
    pub(super) fn origin(&self, key: &str) -> Option<&str> {
        self.table.get(key).and_then(Value::origin)
    }

    /// Whether nobody set `key`: it has its built-in value.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.origin(key).is_none() && !self.report.in_file(&self.path(key))
    }

    /// Notes an error at `key` of this section.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) {
        self.report
            .error(&self.path(key), self.origin(key), message.into());
    }

    /// Whether an error was noted at `key` of this section or beneath it: what follows from it is not said.
    pub(super) fn failed(&self, key: &str) -> bool {
        let path = self.path(key);
        let problems = self.report.problems.borrow();
        let beneath = |p: &Problem| p.key.strip_prefix(&path).is_some_and(is_boundary);
        problems.iter().any(|p| !p.warning && beneath(p))
    }

    /// Notes a warning at `key` of this section.
    pub(super) fn warning(&self, key: &str, message: impl Into<String>) {
        self.report
            .warning(&self.path(key), self.origin(key), message.into());
    }

    /// A table beneath `key`.
    pub(super) fn section(&self, key: &'static str) -> Section<'r, 'a> {
        self.ask(key);
        let (table, muted) = match self.table.get(key).map(|v| &v.kind) {
            Some(ValueKind::Table(table)) => (table.clone(), false),
            None | Some(ValueKind::Nil) => (Map::new(), true),
            Some(other) => {
                let expected = format!("expected a table ([{}])", self.path(key));
                self.error(key, format!("found {}, {expected}", describe(other)));
                (Map::new(), true)
            }
        };
        self.child(self.path(key), table, muted)
    }

    /// An array of tables beneath `key`; none when it is absent.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'r, 'a>> {
        self.ask(key);
        let path = self.path(key);
        let expected = format!("expected an array of tables ([[{path}]])");
        let items = match self.table.get(key).map(|v| &v.kind) {
            None | Some(ValueKind::Nil) => return Vec::new(),
            Some(ValueKind::Array(items)) => items,
            Some(other) => {
                self.error(key, format!("found {}, {expected}", describe(other)));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match &item.kind {
                ValueKind::Table(table) => sections.push(self.child(path, table.clone(), false)),
                other => {
                    let message = format!("found {}, {expected}", describe(other));
                    self.report.error(&path, item.origin(), message);
                }
            }
        }
        sections
    }

    /// Text.
    pub(super) fn text(&self, key: &'static str) -> String {
        self.read(key, Missing::Error, "text", text)
    }

    /// Text with a default.
    pub(super) fn text_or(&self, key: &'static str, default: &str) -> String {
        self.read(key, Missing::Default(default.to_owned()), "text", text)
    }

    /// Text that `parse` turns into something.
    pub(super) fn parsed<T: Default>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        self.read(key, Missing::Error, expected, |v| parse(&text(v)?))
    }

    /// One of a few words.
    pub(super) fn choice(&self, key: &'static str, words: &[&'static str]) -> &'static str {
        self.choice_or(key, words, Missing::Error)
    }

    /// One of a few words; the first when it is absent.
    pub(super) fn choice_or_first(
        &self,
        key: &'static str,
        words: &[&'static str],
    ) -> &'static str {
        self.choice_or(key, words, Missing::Default(words[0]))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> bool {
        self.boolean_with(key, Missing::Error)
    }

    /// `true` or `false`; `default` when it is absent.
    pub(super) fn boolean_or(&self, key: &'static str, default: bool) -> bool {
        self.boolean_with(key, Missing::Default(default))
    }

    /// `true` or `false`, if it says.
    pub(super) fn maybe_boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.boolean_or(key, false);
        self.table.get(key).map(|_| value)
    }

    /// A share, from 0 to 1.
    pub(super) fn share(&self, key: &'static str) -> f64 {
        self.read(
            key,
            Missing::Error,
            "a share from 0 to 1, such as 0.01",
            |v| {
                let share = match &v.kind {
                    ValueKind::Float(share) => Some(*share),
                    ValueKind::String(s) if from_outside(v) => s.parse().ok(),
                    _ => integer(v)
                        .and_then(|i| i32::try_from(i).ok())
                        .map(f64::from),
                };
                share.filter(|share| (0.0..=1.0).contains(share))
            },
        )
    }

    /// A whole number within `range`.
    pub(super) fn integer<T>(&self, key: &'static str, range: RangeInclusive<T>) -> T
    where
        T: Copy + Default + PartialOrd + fmt::Display + TryFrom<i64>,
    {
        self.integer_with(key, range, Missing::Error)
    }

    /// A whole number within `range`; `default` when it is absent.
    pub(super) fn integer_or<T>(&self, key: &'static str, range: RangeInclusive<T>, default: T) -> T
    where
        T: Copy + Default + PartialOrd + fmt::Display + TryFrom<i64>,
    {
        self.integer_with(key, range, Missing::Default(default))
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Duration {
        let expected = duration_expected(&range);
        self.read(key, Missing::Error, &expected, |v| duration(v, &range))
    }

    /// A duration within `range`; `default` when it is absent.
    pub(super) fn duration_or(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let expected = duration_expected(&range);
        self.read(key, Missing::Default(default), &expected, |v| {
            duration(v, &range)
        })
    }

    /// A size in bytes within `range`.
    pub(super) fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> u64 {
        self.size_with(key, range, Missing::Error)
    }

    /// A size in bytes within `range`; `default` when it is absent.
    pub(super) fn size_or(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.size_with(key, range, Missing::Default(default))
    }

    fn size_with(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        missing: Missing<u64>,
    ) -> u64 {
        let expected = format!(
            "a size such as \"64 MiB\", from {} to {}",
            units::size_text(*range.start()),
            units::size_text(*range.end())
        );
        self.read(key, missing, &expected, |v| {
            let size = match &v.kind {
                ValueKind::String(s) => units::size(s),
                _ => integer(v).and_then(|i| u64::try_from(i).ok()),
            };
            size.filter(|s| range.contains(s))
        })
    }

    /// A list of texts, each turned into something by `parse`, which says what is wrong.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.ask(key);
        let path = self.path(key);
        let Some(value) = self.table.get(key) else {
            if !self.muted {
                self.error(key, format!("missing, expected {expected}"));
            }
            return Vec::new();
        };
        let items: Vec<Value> = match &value.kind {
            ValueKind::Array(items) => items.clone(),
            ValueKind::String(s) if from_outside(value) => s
                .split(',')
                .map(str::trim)
                .filter(|s| !s.is_empty())
                .map(|s| Value::new(value.origin().map(str::to_owned).as_ref(), s))
                .collect(),
            other => {
                let message = format!("found {}, expected {expected}", describe(other));
                self.error(key, message);
                return Vec::new();
            }
        };
        let mut parsed = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let result = match &item.kind {
                ValueKind::String(s) => parse(s),
                other => Err(format!("found {}, expected {expected}", describe(other))),
            };
            match result {
                Ok(value) => parsed.push(value),
                Err(message) => {
                    let path = format!("{path}[{index}]");
                    self.report.error(&path, item.origin(), message);
                }
            }
        }
        parsed
    }

    /// As [`Section::list_or_none`]; one text may stand for a list of one.
    pub(super) fn one_or_more<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let alone = self.table.get(key).filter(|v| !from_outside(v));
        let Some(ValueKind::String(one)) = alone.map(|v| &v.kind) else {
            return self.list_or_none(key, expected, parse);
        };
        self.ask(key);
        match parse(one) {
            Ok(value) => vec![value],
            Err(message) => {
                self.error(key, message);
                Vec::new()
            }
        }
    }

    /// As [`Section::list`]; empty when it is absent.
    pub(super) fn list_or_none<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if self.table.contains_key(key) {
            return self.list(key, expected, parse);
        }
        self.ask(key);
        Vec::new()
    }

    /// As [`Section::list`]; `default` when it is absent.
    pub(super) fn list_or<T>(
        &self,
        key: &'static str,
        expected: &str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if self.table.contains_key(key) {
            return self.list(key, expected, parse);
        }
        self.ask(key);
        default
    }

    /// The entries of a free table beneath `key`, durations all of them.
    pub(super) fn durations(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Vec<(String, Duration)> {
        self.ask(key);
        let table = match self.table.get(key).map(|v| &v.kind) {
            None | Some(ValueKind::Nil) => return Vec::new(),
            Some(ValueKind::Table(table)) => table.clone(),
            Some(other) => {
                let expected = "expected a table such as { \"www\" = \"30s\" }";
                self.error(key, format!("found {}, {expected}", describe(other)));
                return Vec::new();
            }
        };
        let child = self.child(self.path(key), table, false);
        let mut entries = Vec::new();
        for (name, value) in &child.table {
            match duration(value, &range) {
                Some(duration) => entries.push((name.clone(), duration)),
                None => {
                    let expected = duration_expected(&range);
                    let message = format!("found {}, expected {expected}", describe(&value.kind));
                    child.error(name, message);
                }
            }
        }
        entries.sort();
        entries
    }

    /// Says which keys of this table nobody asked for.
    pub(super) fn end(&self) {
        let asked = self.asked.borrow();
        let mut unknown: Vec<_> = self.table.keys().collect();
        unknown.retain(|k| !asked.contains(&k.as_str()));
        unknown.sort();
        for key in unknown {
            let hint = match suggest::nearest(key, &asked) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("expected one of {}", asked.join(", ")),
            };
            self.error(key, format!("unknown key; {hint}"));
        }
    }

    fn child(&self, path: String, table: Map<String, Value>, muted: bool) -> Section<'r, 'a> {
        Section {
            report: self.report,
            path,
            table,
            asked: RefCell::default(),
            muted,
        }
    }

    fn ask(&self, key: &'static str) {
        self.asked.borrow_mut().push(key);
        self.report.keys.borrow_mut().push(self.path(key));
    }

    fn choice_or(
        &self,
        key: &'static str,
        words: &[&'static str],
        missing: Missing<&'static str>,
    ) -> &'static str {
        let quoted: Vec<_> = words.iter().map(|w| format!("\"{w}\"")).collect();
        self.read(key, missing, &quoted.join(" or "), |v| {
            let text = text(v)?;
            words.iter().copied().find(|w| **w == text)
        })
    }

    fn boolean_with(&self, key: &'static str, missing: Missing<bool>) -> bool {
        self.read(key, missing, "true or false", |v| match &v.kind {
            ValueKind::Boolean(b) => Some(*b),
            ValueKind::String(s) if from_outside(v) => s.parse().ok(),
            _ => None,
        })
    }

    fn integer_with<T>(&self, key: &'static str, range: RangeInclusive<T>, missing: Missing<T>) -> T
    where
        T: Copy + Default + PartialOrd + fmt::Display + TryFrom<i64>,
    {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.read(key, missing, &expected, |v| {
            T::try_from(integer(v)?).ok().filter(|i| range.contains(i))
        })
    }

    fn read<T: Default>(
        &self,
        key: &'static str,
        missing: Missing<T>,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> T {
        self.ask(key);
        match (self.table.get(key), missing) {
            (Some(value), _) => parse(value).unwrap_or_else(|| {
                let found = describe(&value.kind);
                self.error(key, format!("found {found}, expected {expected}"));
                T::default()
            }),
            (None, Missing::Default(default)) => default,
            (None, Missing::Error) => {
                if !self.muted {
                    self.error(key, format!("missing, expected {expected}"));
                }
                T::default()
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(file, 0) => write!(f, "{file}: ")?,
            Place::File(file, line) => write!(f, "{file}:{line}: ")?,
            Place::Environment(name) => write!(f, "environment {name}: ")?,
            Place::CommandLine => f.write_str("command line: ")?,
            Place::Defaults => f.write_str("built-in defaults: ")?,
        }
        if self.warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Whether what follows a path begins a step beneath it, or is nothing.
fn is_boundary(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

/// The environment variable that sets `key`.
fn variable(key: &str) -> String {
    // One element of a list from the environment is named by its list.
    let key = key.split('[').next().unwrap_or(key);
    format!("HEADWATER__{}", key.replace('.', "__").to_uppercase())
}

/// Whether the value came as text that knows no types.
fn from_outside(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT)
}

fn text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(s) => Some(s.clone()),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match &value.kind {
        ValueKind::I64(i) => Some(*i),
        ValueKind::U64(i) => i64::try_from(*i).ok(),
        ValueKind::String(s) if from_outside(value) => s.trim().parse().ok(),
        _ => None,
    }
}

fn duration(value: &Value, range: &RangeInclusive<Duration>) -> Option<Duration> {
    units::duration(&text(value)?).filter(|d| range.contains(d))
}

fn duration_expected(range: &RangeInclusive<Duration>) -> String {
    format!(
        "a duration such as \"5s\", from {} to {}",
        units::duration_text(*range.start()),
        units::duration_text(*range.end())
    )
}

/// A value as an error message shows it.
fn describe(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(b) => b.to_string(),
        ValueKind::I64(i) => i.to_string(),
        ValueKind::I128(i) => i.to_string(),
        ValueKind::U64(i) => i.to_string(),
        ValueKind::U128(i) => i.to_string(),
        ValueKind::Float(x) => x.to_string(),
        ValueKind::String(s) => format!("{s:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "an array".to_owned(),
    }
}

/// Origin of values from the environment, as the `config` crate names it.
pub(super) const ENVIRONMENT: &str = "the environment";

/// Origin of values from the command line.
pub(super) const COMMAND_LINE: &str = "the command line";
