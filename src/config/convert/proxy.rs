//! `[[proxy]]` and `[proxy_cache]`.

use std::sync::Arc;

use super::super::read::Section;
use super::values::{Paths, ms, secs};
use crate::http::proxy::{Config, Forward, Rule};

pub(super) fn settings(
    sections: &[Section<'_, '_>],
    cache: &Section<'_, '_>,
    node: &str,
    paths: &Paths<'_>,
    local: Vec<String>,
) -> Config {
    let mut rules: Vec<Rule> = Vec::new();
    for section in sections {
        let host = section.text_or("host", "*");
        let upstream = section.text("upstream");
        let ttl = section.duration_or("default_ttl", secs(0)..=secs(31_536_000), secs(0));
        let file = section.text_or("ca_file", "");
        let file = (!file.is_empty()).then(|| paths.resolve(section, "ca_file", &file));
        let forwarded = match section.choice_or_first("forwarded", &["replace", "append", "off"]) {
            "append" => Forward::Append,
            "off" => Forward::Off,
            _ => Forward::Replace,
        };
        section.end();
        let host = match host.as_str() {
            "*" => None,
            name if is_host(name) => Some(name.to_ascii_lowercase()),
            _ => {
                section.error("host", format!("found {host:?}, expected {HOST}"));
                continue;
            }
        };
        if rules.iter().any(|rule| rule.host == host) {
            let host = host.as_deref().unwrap_or("*");
            section.error(
                "host",
                format!("found {host:?} a second time, expected it once"),
            );
            continue;
        }
        if host.is_none() && local.iter().any(|prefix| prefix == "/") {
            section.warning(
                "host",
                "never asked: this node publishes or mirrors \"/\", which goes before \"*\"",
            );
        }
        match upstream_of(&upstream) {
            Some((secure, upstream)) => {
                if !secure && file.is_some() {
                    let message = "of no use: the upstream is asked in the clear";
                    section.warning("ca_file", message);
                }
                let roots = if secure {
                    match crate::tls::roots(file.as_deref()) {
                        Ok(roots) => Some(Arc::new(roots)),
                        Err(problem) => {
                            section.error("ca_file", problem);
                            continue;
                        }
                    }
                } else {
                    None
                };
                rules.push(Rule {
                    host,
                    upstream,
                    roots,
                    forwarded,
                    default_ttl: ttl.as_secs(),
                });
            }
            None if section.failed("upstream") => {}
            None => section.error(
                "upstream",
                format!("found {upstream:?}, expected {UPSTREAM}"),
            ),
        }
    }
    let config = Config {
        rules,
        local,
        node: node.to_owned(),
        dir: paths.state.join("proxy"),
        size: cache.size("size", 1 << 20..=1 << 50),
        memory: cache.size("memory", 1 << 20..=1 << 40),
        entries: cache.integer("entries", 1..=100_000_000),
        variants: cache.integer("variants", 1..=10_000),
        object: cache.size("object", 1..=1 << 50),
        requests: cache.integer("requests", 1..=100_000),
        fill_threads: cache.integer("fill_threads", 0..=1_000),
        connect: cache.duration("connect", ms(10)..=secs(3_600)),
        head_time: cache.duration("head_time", ms(10)..=secs(3_600)),
        silence: cache.duration("silence", ms(10)..=secs(3_600)),
        idle: cache.duration("idle", ms(0)..=secs(3_600)),
        stale_if_error: cache.duration("stale_if_error", secs(0)..=secs(31_536_000)),
    };
    if config.object > config.size {
        cache.warning(
            "object",
            "found more than size: one response may fill the cache",
        );
    }
    cache.end();
    config
}

/// A host name or address, with or without a port.
fn is_host(name: &str) -> bool {
    let authority = name.parse::<::http::uri::Authority>();
    authority.is_ok_and(|a| !a.as_str().contains('@') && !a.host().contains('*'))
}

/// Whether it is over TLS, and host and port, of `http://host[:port]` or `https://…`.
fn upstream_of(text: &str) -> Option<(bool, String)> {
    let uri: ::http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let secure = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let good = !authority.as_str().contains('@') && uri.path() == "/" && uri.query().is_none();
    good.then(|| (secure, authority.as_str().to_ascii_lowercase()))
}

const HOST: &str = "a host name such as \"files.example.com\", or \"*\" for all others";

const UPSTREAM: &str =
    "the base URL of a server such as \"http://127.0.0.1:8000\" or \"https://files.example.com\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_a_host_and_nothing_more() {
        for (text, secure, upstream) in [
            ("http://A.test:80/", false, "a.test:80"),
            ("http://[::1]:8000", false, "[::1]:8000"),
            ("https://A.test", true, "a.test"),
        ] {
            assert_eq!(upstream_of(text), Some((secure, upstream.to_owned())));
        }
        for bad in [
            "",
            "a.test",
            "ftp://a.test",
            "http://u@a.test",
            "http://a.test/x",
            "http://a.test/?q",
        ] {
            assert_eq!(upstream_of(bad), None, "{bad}");
        }
    }
}
