//! The tracing subscriber: one line per event on standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Level, or directives such as `info,headwater::peer=debug`.
    pub level: String,
    /// How lines look.
    pub format: Format,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Installs the subscriber of this process. A second call changes nothing.
pub fn init(config: &Config) {
    let filter = EnvFilter::builder().parse_lossy(&config.level);
    // Its spans carry whole sessions, and what they say is said by our own lines.
    let filter = filter.add_directive("libunftp=off".parse().expect("a directive"));
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means a subscriber is there already, as in a test that starts two daemons.
    let _ = match config.format {
        // The journal has its own clock.
        Format::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            tracing::subscriber::set_global_default(builder.without_time().finish())
        }
        Format::Text => tracing::subscriber::set_global_default(builder.finish()),
        Format::Json => tracing::subscriber::set_global_default(builder.json().finish()),
    };
}

/// Whether `level` is a level or a list of directives.
#[must_use]
pub fn is_level(level: &str) -> bool {
    !level.trim().is_empty() && EnvFilter::builder().parse(level).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_is_a_word_or_directives() {
        for good in ["info", "DEBUG", "warn,headwater::peer=debug"] {
            assert!(is_level(good), "{good}");
        }
        for bad in ["", "headwater=loud"] {
            assert!(!is_level(bad), "{bad}");
        }
    }
}
