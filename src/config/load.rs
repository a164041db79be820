//! The layers: built-in defaults, file, environment, command line. Then the tree is read and checked.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ::config::{Config, Environment, File, FileFormat, Value, ValueKind};

use super::Settings;
use super::convert;
use super::locate::Locator;
use super::read::{COMMAND_LINE, Place, Problem, Report};

/// What the settings are made of.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The configuration file; `None`: the embedded default.
    pub file: Option<PathBuf>,
    /// `HEADWATER__SECTION__KEY` variables.
    pub environment: HashMap<String, String>,
    /// `KEY=VALUE` pairs of the command line.
    pub overrides: Vec<(String, String)>,
    /// The working directory; relative paths from the environment and the command line start here.
    pub cwd: PathBuf,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// Where state is kept unless configured.
    pub state: PathBuf,
}

/// Why there are no settings: every problem found, at least one of them no warning.
#[derive(Debug)]
pub struct LoadError(pub Vec<Problem>);

impl Source {
    /// The source of this process: its environment, its directories.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| k.starts_with(PREFIX))
            .collect();
        Self {
            file,
            environment,
            overrides,
            cwd: std::env::current_dir().unwrap_or_default(),
            home: home(),
            state: default_state(),
        }
    }

    /// Reads, merges and checks all layers.
    ///
    /// # Errors
    /// Everything found wrong, each with its place; warnings of a good configuration are in the settings.
    pub fn load(&self) -> Result<Settings, LoadError> {
        let (name, text) = match &self.file {
            Some(path) => (path.display().to_string(), read(path)?),
            None => ("embedded default".to_owned(), EMBEDDED.to_owned()),
        };
        let locator = Locator::new(&text).map_err(|errors| {
            let problem = |line, message| error(Place::File(name.clone(), line), message);
            LoadError(
                errors
                    .into_iter()
                    .map(|e| problem(e.line, e.message))
                    .collect(),
            )
        })?;
        let merged = self
            .merge(&text)
            .map_err(|e| LoadError(vec![error(Place::File(name.clone(), 0), e.to_string())]))?;
        let report = Report::new(&name, Some(locator));
        let root = report.root(merged);
        let mut settings = convert::settings(&root, self);
        drop(root);
        let (problems, keys) = report.finish();
        if problems.iter().any(|p| !p.warning) {
            return Err(LoadError(problems));
        }
        settings.warnings = problems;
        settings.keys = keys;
        Ok(settings)
    }

    fn merge(&self, text: &str) -> Result<::config::Map<String, Value>, ::config::ConfigError> {
        let environment = Environment::with_prefix("HEADWATER")
            .prefix_separator("__")
            .separator("__")
            .source(Some(self.environment.clone().into_iter().collect()));
        let mut builder = Config::builder()
            .add_source(File::from_str(BASE, FileFormat::Toml))
            .add_source(File::from_str(text, FileFormat::Toml))
            .add_source(environment);
        for (key, value) in &self.overrides {
            builder = builder.set_override(key, from_command_line(value))?;
        }
        let merged = builder.build()?;
        merged.cache.into_table()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// The state directory when none is configured: the user's (XDG base directories).
#[must_use]
pub fn default_state() -> PathBuf {
    let xdg = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    xdg.or_else(|| home().map(|h| h.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("headwater")
}

/// The user's home directory.
fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|h| h.is_absolute())
}

fn read(path: &Path) -> Result<String, LoadError> {
    let place = |line| Place::File(path.display().to_string(), line);
    let bytes = std::fs::read(path).map_err(|e| LoadError(vec![error(place(0), e.to_string())]))?;
    String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
        let message = "found bytes that are no UTF-8, expected TOML".to_owned();
        LoadError(vec![error(place(line), message)])
    })
}

fn error(place: Place, message: String) -> Problem {
    Problem {
        warning: false,
        place,
        key: String::new(),
        message,
    }
}

/// A value of the command line: TOML if it is that, else text.
fn from_command_line(text: &str) -> Value {
    fn value(toml: toml::Value) -> Value {
        let kind = match toml {
            toml::Value::String(s) => ValueKind::String(s),
            toml::Value::Integer(i) => ValueKind::I64(i),
            toml::Value::Float(x) => ValueKind::Float(x),
            toml::Value::Boolean(b) => ValueKind::Boolean(b),
            toml::Value::Datetime(d) => ValueKind::String(d.to_string()),
            toml::Value::Array(items) => ValueKind::Array(items.into_iter().map(value).collect()),
            toml::Value::Table(table) => {
                ValueKind::Table(table.into_iter().map(|(k, v)| (k, value(v))).collect())
            }
        };
        Value::new(Some(&COMMAND_LINE.to_owned()), kind)
    }
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"));
    match parsed.ok().and_then(|mut t| t.remove("v")) {
        Some(toml) => value(toml),
        None => value(toml::Value::String(text.to_owned())),
    }
}

/// Prefix of the environment variables that are settings.
const PREFIX: &str = "HEADWATER__";

/// Every key with its default.
pub const BASE: &str = include_str!("../../config/base.toml");

/// What `headwater` runs when no file is given.
pub const EMBEDDED: &str = include_str!("../../config/default.toml");
