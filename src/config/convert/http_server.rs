//! `[http]`: the server of what is published and mirrored.

use super::super::read::Section;
use super::content::prefix;
use super::values::{Paths, addresses, bytes, ms, secs};
use crate::content::PublishConfig;
use crate::http;

pub(super) fn settings(section: &Section<'_, '_>) -> (http::Config, usize) {
    let config = http::Config {
        listen: addresses(section, "listen"),
        tls_listen: addresses(section, "tls_listen"),
        tls_handshake: section.duration("tls_handshake", ms(100)..=secs(60)),
        connections: section.integer("connections", 1..=1_000_000),
        connections_per_address: section.integer("connections_per_address", 1..=1_000_000),
        silent: section.duration("silent", ms(100)..=secs(3_600)),
        head_time: section.duration("head_time", ms(100)..=secs(3_600)),
        idle: section.duration("idle", ms(100)..=secs(3_600)),
        slow: section.duration("slow", ms(100)..=secs(3_600)),
        unsent: bytes(section, "unsent", 16 << 10..=64 << 20),
        frames: section.size("frames", 64 << 10..=1 << 40),
        head_size: bytes(section, "head_size", 8 << 10..=1 << 20),
        headers: section.integer("headers", 10..=1_000),
        header_list: bytes(section, "header_list", 1 << 10..=1 << 20),
        streams: section.integer("streams", 1..=10_000),
        resets: section.integer("resets", 1..=10_000),
        error_resets: section.integer("error_resets", 1..=10_000),
        ranges: section.integer("ranges", 1..=1_000),
        fill_wait: section.duration("fill_wait", ms(100)..=secs(3_600)),
        access_log: None,
        access_format: http::access::Format::Combined,
        access_lines: 0,
        piece_digests: bytes(section, "piece_digests", 0..=1 << 30),
        torrent_peers: section.boolean("torrent_peers"),
        upload: None,
        rules: Vec::new(),
        proxy: http::proxy::Config::default(),
    };
    if config.connections_per_address > config.connections {
        let found = config.connections_per_address;
        let message = format!("found {found}, more than connections: no bound");
        section.warning("connections_per_address", message);
    }
    let workers = section.integer("workers", 0..=1_024);
    section.end();
    (config, workers)
}

/// `[upload]`: what may be put where.
pub(super) fn upload(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    publish: &[PublishConfig],
) -> Option<http::upload::Config> {
    let enabled = section.boolean("enabled");
    let file = section.text("token_file");
    let config = http::upload::Config {
        token_file: paths.resolve(section, "token_file", &file),
        prefix: prefix(section),
        max: section.size("max", 1..=1 << 50),
        at_once: section.integer("at_once", 1..=10_000),
        keep: section.duration("keep", secs(1)..=secs(30 * 86_400)),
    };
    section.end();
    if !enabled {
        return None;
    }
    if let Err(problem) = http::upload::tokens(&config.token_file) {
        let expected = "expected a file of tokens, one a line";
        section.error("token_file", format!("found {problem}; {expected}"));
    }
    let beneath = |p: &PublishConfig| config.prefix.starts_with(&p.prefix);
    if !section.failed("prefix") && !publish.iter().any(beneath) {
        let expected = "expected a prefix of a [[publish]], or one beneath it";
        section.error("prefix", format!("found {:?}, {expected}", config.prefix));
    }
    Some(config)
}
