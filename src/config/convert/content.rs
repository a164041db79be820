//! `[[publish]]`, `[[mirror]]` and `[store]`.

use std::collections::BTreeSet;
use std::path::Path;

use ::http::HeaderValue;

use super::super::read::Section;
use super::super::units;
use super::bucket;
use super::values::{Paths, bytes, ms, secs};
use crate::content::bucket::BucketConfig;
use crate::content::disk::Disk;
use crate::content::sign::PublicKey;
use crate::content::{PublishConfig, StoreConfig};
use crate::http::faces::Face;
use crate::http::rules::{Rule, is_cache_control};
use crate::peer::filter::Filter;
use crate::peer::{MirrorConfig, Mode};

pub(super) fn publish(
    sections: &[Section<'_, '_>],
    paths: &Paths<'_>,
    rules: &mut Vec<Rule>,
) -> (Vec<PublishConfig>, Vec<BucketConfig>) {
    let mut buckets = Vec::new();
    let mut prefixes = BTreeSet::new();
    let mut publish = Vec::new();
    for section in sections {
        let prefix = prefix(section);
        let dir = section.text_or("dir", "");
        let index = section.text_or("index", "index.html");
        if index.contains('/') {
            section.error("index", format!("found {index:?}, expected a file name"));
        }
        if !prefixes.insert(prefix.clone()) {
            section.error(
                "prefix",
                format!("found {prefix:?} a second time, expected it once"),
            );
        }
        let listing = section.boolean_or("listing", false);
        let bucket = bucket::settings(section, &prefix, &index, listing);
        match (&bucket, dir.is_empty()) {
            (Some(_), false) => {
                let expected = "expected a directory or a bucket, not both";
                section.error("dir", format!("found {dir:?} beside `s3`, {expected}"));
            }
            (None, true) if !section.failed("dir") && section.is_default("s3") => {
                let expected = "expected the path of a directory, or `s3` with a bucket";
                section.error("dir", format!("missing, {expected}"));
            }
            _ => {}
        }
        rules.push(rule(section, &prefix, Vec::new()));
        section.end();
        if let Some(bucket) = bucket {
            buckets.push(bucket);
            continue;
        }
        publish.push(PublishConfig {
            prefix,
            dir: paths.resolve(section, "dir", &dir),
            index,
            listing,
        });
    }
    (publish, buckets)
}

pub(super) fn mirrors(
    sections: &[Section<'_, '_>],
    published: &[&str],
    rules: &mut Vec<Rule>,
) -> Vec<MirrorConfig> {
    let mut prefixes = BTreeSet::new();
    let mut mirrors = Vec::new();
    for section in sections {
        let prefix = prefix(section);
        let from = section.list_or_none("from", NODE_EXPECTED, node_url);
        let mode = match section.choice_or_first("mode", &["replicate", "on-demand"]) {
            "on-demand" => Mode::OnDemand,
            _ => Mode::Replicate,
        };
        let filter = filter(section);
        if !prefixes.insert(prefix.clone()) {
            section.error(
                "prefix",
                format!("found {prefix:?} a second time, expected it once"),
            );
        }
        if published.contains(&prefix.as_str()) {
            let message =
                format!("found {prefix:?}, which is published here, expected another prefix");
            section.error("prefix", message);
        }
        let keys = section.one_or_more("key", KEY_EXPECTED, |text| {
            let key = text.parse::<PublicKey>();
            key.map_err(|_| format!("found {text:?}, expected {KEY_EXPECTED}"))
        });
        if from.is_empty() && keys.is_empty() && !section.failed("from") && !section.failed("key") {
            let otherwise = "or `key`, by which nodes are taken that `peers.discover` finds";
            let message = format!("expected at least one: {NODE_EXPECTED}; {otherwise}");
            section.error("from", message);
        }
        let interval = section.duration_or("interval", ms(100)..=secs(86_400), secs(5));
        let in_flight = section.integer_or("in_flight", 1..=1_024, 8);
        let filling = match mode {
            Mode::Replicate => section.integer_or("filling", 1..=1_024, 4),
            Mode::OnDemand => section.integer_or("filling", 1..=1_024, 64),
        };
        rules.push(rule(section, &prefix, from.clone()));
        section.end();
        mirrors.push(MirrorConfig {
            prefix,
            from,
            keys,
            filter,
            mode,
            interval,
            in_flight,
            filling,
        });
    }
    mirrors
}

pub(super) fn store(section: &Section<'_, '_>, state: &Path) -> StoreConfig {
    let config = StoreConfig {
        dir: state.join("store"),
        size: section.size("size", 1 << 20..=1 << 50),
        chunk: bytes(section, "chunk", 64 << 10..=16 << 20),
        objects: section.integer("objects", 1..=100_000_000),
        small_object: bytes(section, "small_object", 0..=16 << 20),
        small_total: section.size("small_total", 0..=1 << 40),
        memory: section.parsed("memory", MEMORY, |text| {
            if text.is_empty() {
                return Some(None);
            }
            units::size(text)
                .filter(|bytes| *bytes <= 1 << 50)
                .map(Some)
        }),
        buffers: section.size("buffers", 0..=1 << 40),
        reads: section.integer("reads", 1..=1_000),
        threads: section.integer("threads", 4..=1_000),
        cold: section.duration("cold", secs(1)..=secs(31_536_000)),
        scrub: section.duration("scrub", secs(0)..=secs(31_536_000)),
        scrub_rate: section.size("scrub_rate", 64 << 10..=1 << 40),
        disk: Disk::default(),
    };
    if !config.chunk.is_multiple_of(64 << 10) {
        let found = config.chunk;
        let expected = "expected a multiple of 64 KiB";
        section.error("chunk", format!("found {found} bytes, {expected}"));
    }
    section.end();
    config
}

/// What is said of the answers beneath `prefix`; `duplicates` are known to have the same unless others are written.
fn rule(section: &Section<'_, '_>, prefix: &str, duplicates: Vec<String>) -> Rule {
    let cache_control = section.text_or("cache_control", "");
    let value = HeaderValue::try_from(&cache_control).ok();
    let good = cache_control.is_empty() || is_cache_control(&cache_control) && value.is_some();
    if !good {
        let expected = "expected directives such as \"public, max-age=3600\", or \"\" for none";
        section.error(
            "cache_control",
            format!("found {cache_control:?}, {expected}"),
        );
    }
    let written = section.list_or_none("duplicates", SERVER_EXPECTED, server_url);
    let all = vec![Face::Metalink, Face::Torrent];
    let faces = section.list_or("faces", FACES_EXPECTED, all, |text| match text {
        "metalink" => Ok(Face::Metalink),
        "torrent" => Ok(Face::Torrent),
        _ => Err(format!("found {text:?}, expected {FACES_EXPECTED}")),
    });
    Rule {
        prefix: prefix.to_owned(),
        cache_control: value.filter(|_| good && !cache_control.is_empty()),
        cors: section.boolean_or("cors", false),
        duplicates: if written.is_empty() {
            duplicates
        } else {
            written
        },
        faces,
    }
}

/// The base URL of a server, without a final slash.
fn server_url(text: &str) -> Result<String, String> {
    let good = text.parse::<::http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if good && !text.contains(['<', '>', '"', '#']) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!("found {text:?}, expected {SERVER_EXPECTED}"))
    }
}

/// The patterns of what is mirrored.
fn filter(section: &Section<'_, '_>) -> Filter {
    let list = |key| {
        section.list_or_none(key, PATTERNS_EXPECTED, |text| {
            let one = [text.to_owned()];
            Filter::new(&one, &[]).map(|_| text.to_owned())
        })
    };
    let (include, exclude) = (list("include"), list("exclude"));
    Filter::new(&include, &exclude).unwrap_or_else(|message| {
        section.error("include", message);
        Filter::default()
    })
}

/// A URL path prefix, `/` unless configured.
pub(super) fn prefix(section: &Section<'_, '_>) -> String {
    let prefix = section.text_or("prefix", "/");
    let clean = prefix.starts_with('/')
        && prefix.ends_with('/')
        && !prefix.contains("//")
        && !prefix.split('/').any(|s| s == "." || s == "..")
        && !prefix.contains(['?', '#', '%', '\\'])
        && !prefix.chars().any(char::is_control);
    if !clean {
        let expected = "expected a path that begins and ends with '/', such as \"/videos/\"";
        section.error("prefix", format!("found {prefix:?}, {expected}"));
    } else if crate::peer::message::ROOT.starts_with(&prefix) && prefix != "/" {
        section.error(
            "prefix",
            format!("found {prefix:?}, which nodes use among themselves"),
        );
    }
    prefix
}

/// The base URL of another node, without a final slash.
pub(super) fn node_url(text: &str) -> Result<String, String> {
    let good = text.parse::<::http::Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if good {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!("found {text:?}, expected {NODE_EXPECTED}"))
    }
}

const FACES_EXPECTED: &str = "\"metalink\" or \"torrent\"";

const SERVER_EXPECTED: &str = "the base URL of a server such as \"https://mirror.example:8443\"";

pub(super) const NODE_EXPECTED: &str = "the base URL of a node such as \"http://origin:8080\"";

const KEY_EXPECTED: &str =
    "the public key of the origin, 64 digits as `headwater status` shows it there";

const PATTERNS_EXPECTED: &str = "patterns such as \"*.iso\" or \"releases/**\"";

const MEMORY: &str = "a size such as \"2 GiB\", or \"\" for an eighth of the memory";
