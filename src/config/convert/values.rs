//! Kinds of values that several sections have: paths, addresses, names, sizes, durations.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::rr::Name;

use super::super::load::Source;
use super::super::read::{COMMAND_LINE, ENVIRONMENT, Section};
use super::super::units::duration_text;

/// How written paths become absolute ones.
pub(super) struct Paths<'a> {
    pub(super) source: &'a Source,
    pub(super) state: &'a Path,
}

impl Paths<'_> {
    /// `~/` is the home directory; other relative paths start at the file that names them (or at the working
    /// directory, when no file does).
    pub(super) fn resolve(&self, section: &Section<'_, '_>, key: &str, path: &str) -> PathBuf {
        resolve(self.source, section.origin(key), path)
    }

    /// As [`Paths::resolve`]; but the embedded default's files live in the state directory.
    pub(super) fn resolve_zone(&self, section: &Section<'_, '_>, path: &str) -> PathBuf {
        if self.source.file.is_none() && !Path::new(path).has_root() && !path.starts_with("~/") {
            return self.state.join(path);
        }
        self.resolve(section, "file", path)
    }
}

pub(super) fn resolve(source: &Source, origin: Option<&str>, path: &str) -> PathBuf {
    if let (Some(rest), Some(home)) = (path.strip_prefix("~/"), &source.home) {
        return home.join(rest);
    }
    let outside = matches!(origin, Some(ENVIRONMENT | COMMAND_LINE));
    let file = source.file.as_deref().and_then(Path::parent);
    match file {
        Some(dir) if !outside => source.cwd.join(dir).join(path),
        _ => source.cwd.join(path),
    }
}

pub(super) fn addresses(section: &Section<'_, '_>, key: &'static str) -> Vec<SocketAddr> {
    section.list(key, ADDRESS_EXPECTED, |text| {
        let address = text.parse();
        address.map_err(|_| format!("found {text:?}, expected {ADDRESS_EXPECTED}"))
    })
}

/// A domain name in lower case with a final dot.
pub(super) fn domain(text: &str) -> Option<String> {
    if text.is_empty() || text.starts_with('.') && text.len() > 1 {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name.to_lowercase().to_ascii())
}

pub(super) fn bytes<T: TryFrom<u64> + Default>(
    section: &Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
) -> T {
    T::try_from(section.size(key, range)).unwrap_or_default()
}

pub(super) fn whole_seconds(section: &Section<'_, '_>, key: &str, ttl: Duration) {
    if ttl.subsec_nanos() != 0 {
        let found = duration_text(ttl);
        section.error(key, format!("found \"{found}\", expected whole seconds"));
    }
}

pub(super) fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// TTLs are 31 bits (RFC 2181 section 8); a year is plenty.
pub(super) const TTLS: std::ops::RangeInclusive<Duration> = secs(0)..=secs(31_536_000);

/// Bytes of `sun_path` without its final NUL.
pub(super) const SOCKET_PATH_MAX: usize = 107;

pub(super) const ADDRESS_EXPECTED: &str =
    "an address and a port such as \"127.0.0.1:5300\" or \"[::1]:5300\"";
pub(super) const ADDRESS_OR_EMPTY: &str =
    "an address and a port such as \"127.0.0.1:9153\", or \"\" for none";
pub(super) const DOMAIN_EXPECTED: &str = "a domain name such as \"cdn.test.\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_is_lower_case_with_a_final_dot() {
        assert_eq!(domain("CDN.Test").as_deref(), Some("cdn.test."));
        assert_eq!(domain(".").as_deref(), Some("."));
        for bad in ["", ".test", "a..b", &"a".repeat(64)] {
            assert_eq!(domain(bad), None, "{bad}");
        }
    }
}
