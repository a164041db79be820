//! Keys to the topics' own types, with the range of every value and the checks across keys.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};

use super::Settings;
use super::load::Source;
use super::read::{COMMAND_LINE, ENVIRONMENT, Section};
use super::units;
use crate::content::{PublishConfig, StoreConfig};
use crate::dns::resolver::{self, CacheConfig, ForwardZone};
use crate::dns::{TtlOverride, ZoneConfig};
use crate::net::Network;
use crate::peer::MirrorConfig;
use crate::{dns, http, link, trace};

/// Reads every section. What it returns counts only if nothing was noted as an error.
pub(super) fn settings(root: &Section<'_, '_>, source: &Source) -> Settings {
    let (node, state) = node(&root.section("node"), source);
    let paths = Paths {
        source,
        state: &state,
    };
    let dns = dns(&root.section("dns"));
    let zones = zones(&root.sections("zone"), &paths);
    let resolver = resolver(&root.section("resolver"), &dns.listen);
    let (mut http, http_workers) = http(&root.section("http"));
    let publish = publish(&root.sections("publish"), &paths);
    let mirrors = mirrors(&root.sections("mirror"), &publish);
    let store = store(&root.section("store"), &state);
    let link = link(&root.section("link"));
    let (metrics_listen, metrics_connections) = metrics(&root.section("metrics"));
    let (admin_socket, admin_connections) = admin(&root.section("admin"), &paths);
    let log = log(&root.section("log"), &paths, &mut http);
    root.end();
    listeners(root, &dns.listen, &http.listen, metrics_listen);
    if resolver.is_some() && zones.is_empty() && dns.listen.is_empty() && http.listen.is_empty() {
        root.warning(
            "dns",
            "nothing is served: dns.listen and http.listen are empty",
        );
    }
    Settings {
        node,
        state,
        dns,
        zones,
        resolver,
        http,
        http_workers,
        publish,
        mirrors,
        store,
        link,
        metrics_listen,
        metrics_connections,
        admin_socket,
        admin_connections,
        log,
        warnings: Vec::new(),
        keys: Vec::new(),
    }
}

/// How written paths become absolute ones.
struct Paths<'a> {
    source: &'a Source,
    state: &'a Path,
}

impl Paths<'_> {
    /// `~/` is the home directory; other relative paths start at the file that names them (or at the working
    /// directory, when no file does).
    fn resolve(&self, section: &Section<'_, '_>, key: &str, path: &str) -> PathBuf {
        resolve(self.source, section.origin(key), path)
    }

    /// As [`Paths::resolve`]; but the embedded default's files live in the state directory.
    fn resolve_zone(&self, section: &Section<'_, '_>, path: &str) -> PathBuf {
        if self.source.file.is_none() && !Path::new(path).has_root() && !path.starts_with("~/") {
            return self.state.join(path);
        }
        self.resolve(section, "file", path)
    }
}

fn resolve(source: &Source, origin: Option<&str>, path: &str) -> PathBuf {
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

fn node(section: &Section<'_, '_>, source: &Source) -> (String, PathBuf) {
    let mut id = section.text("id");
    if id.is_empty() {
        let host = rustix::system::uname();
        id = host.nodename().to_string_lossy().into_owned();
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if id.len() > 64 || !id.chars().all(good) {
        let expected = "expected at most 64 letters, digits, '-', '.' or '_'";
        section.error("id", format!("found {id:?}, {expected}"));
    }
    let state = section.text("state");
    let state = if state.is_empty() {
        source.state.clone()
    } else {
        resolve(source, section.origin("state"), &state)
    };
    section.end();
    (id, state)
}

fn dns(section: &Section<'_, '_>) -> dns::Config {
    let mut config = dns::Config {
        listen: addresses(section, "listen"),
        workers: section.integer("workers", 0..=1_024),
        udp_payload: section.integer("udp_payload", 512..=4_096),
        queries_in_flight: section.integer("queries_in_flight", 1..=1_000_000),
        queries_in_flight_per_network: section
            .integer("queries_in_flight_per_network", 1..=1_000_000),
        udp_late: section.duration("udp_late", ms(100)..=secs(60)),
        tcp_connections: section.integer("tcp_connections", 1..=1_000_000),
        tcp_connections_per_address: section.integer("tcp_connections_per_address", 1..=1_000_000),
        tcp_idle: section.duration("tcp_idle", ms(100)..=secs(3_600)),
        tcp_message: section.duration("tcp_message_time", ms(100)..=secs(3_600)),
        tcp_unanswered: section.integer("tcp_unanswered", 1..=65_535),
        tcp_unread: bytes(section, "tcp_unread", 65_537..=1 << 30),
        tcp_unread_time: section.duration("tcp_unread_time", ms(100)..=secs(3_600)),
    };
    if config.udp_payload > 1_232 {
        let why = "answers above 1232 bytes may be fragmented and lost";
        section.warning(
            "udp_payload",
            format!("found {}; {why}", config.udp_payload),
        );
    }
    for (part, whole) in [
        ("queries_in_flight_per_network", "queries_in_flight"),
        ("tcp_connections_per_address", "tcp_connections"),
    ] {
        let value = |key| match key {
            "queries_in_flight_per_network" => config.queries_in_flight_per_network,
            "queries_in_flight" => config.queries_in_flight,
            "tcp_connections_per_address" => config.tcp_connections_per_address,
            _ => config.tcp_connections,
        };
        if value(part) > value(whole) {
            let (part_value, whole_value) = (value(part), value(whole));
            let message =
                format!("found {part_value}, more than {whole} ({whole_value}): no bound");
            section.warning(part, message);
        }
    }
    if section.is_default("listen") && !has_ipv6_loopback() {
        config.listen.retain(SocketAddr::is_ipv4);
        section.warning("listen", "this machine has no ::1; IPv4 only");
    }
    section.end();
    config
}

fn zones(sections: &[Section<'_, '_>], paths: &Paths<'_>) -> Vec<ZoneConfig> {
    let mut names = BTreeSet::new();
    let mut zones = Vec::new();
    for section in sections {
        let name = section.parsed("name", DOMAIN_EXPECTED, domain);
        let file = section.text("file");
        if file.is_empty() && !section.failed("file") {
            section.error("file", "expected the path of a master file");
        }
        let ttl = section.duration_or("ttl", TTLS, secs(3_600));
        let mut ttls = Vec::new();
        for (key, ttl) in section.durations("ttls", TTLS) {
            match ttl_override(&key, seconds(ttl)) {
                Some(ttl) => ttls.push(ttl),
                None => section.error(
                    "ttls",
                    format!("found {key:?}, expected {TTL_KEY_EXPECTED}"),
                ),
            }
            whole_seconds(section, "ttls", ttl);
        }
        whole_seconds(section, "ttl", ttl);
        if ttl.is_zero() && !section.failed("ttl") {
            section.warning("ttl", "0s: no resolver may keep any answer of this zone");
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            section.error(
                "name",
                format!("found {name:?} a second time, expected it once"),
            );
        }
        section.end();
        zones.push(ZoneConfig {
            name,
            file: paths.resolve_zone(section, &file),
            ttl: seconds(ttl),
            ttls,
        });
    }
    zones
}

fn resolver(section: &Section<'_, '_>, own: &[SocketAddr]) -> Option<resolver::Config> {
    let mode = section.choice("mode", &["forward", "off"]);
    let allow = section.list("allow", "networks such as \"192.0.2.0/24\"", |text| {
        let network = Network::from_str(text);
        network.map_err(|e| format!("found {e}"))
    });
    for (index, network) in ["0.0.0.0/0", "::/0"].iter().enumerate() {
        let open = network.parse::<Network>().ok();
        if mode != "off" && allow.iter().any(|n| Some(*n) == open) {
            let family = if index == 0 { "IPv4" } else { "IPv6" };
            let message = format!("{network} lets all of {family} recurse: an open resolver");
            section.warning("allow", message);
        }
    }
    let mut upstreams = upstreams(section, "upstreams");
    for upstream in &upstreams {
        not_itself(section, *upstream, own);
    }
    if mode == "forward" && upstreams.is_empty() && !section.failed("upstreams") {
        upstreams = system_resolvers();
        upstreams.retain(|u| !own.contains(u));
        if upstreams.is_empty() {
            let message =
                "none configured and none in /etc/resolv.conf; foreign names get SERVFAIL";
            section.warning("upstreams", message);
        }
    }
    let mut zones = BTreeSet::new();
    let mut forward = Vec::new();
    for entry in section.sections("forward") {
        let zone = entry.parsed("zone", DOMAIN_EXPECTED, domain);
        let upstreams = self::upstreams(&entry, "upstreams");
        if upstreams.is_empty() && !entry.failed("upstreams") {
            entry.error(
                "upstreams",
                format!("expected at least one: {UPSTREAM_EXPECTED}"),
            );
        }
        for upstream in &upstreams {
            not_itself(&entry, *upstream, own);
        }
        if !zone.is_empty() && !zones.insert(zone.clone()) {
            entry.error(
                "zone",
                format!("found {zone:?} a second time, expected it once"),
            );
        }
        entry.end();
        forward.push(ForwardZone { zone, upstreams });
    }
    let config = resolver::Config {
        allow,
        upstreams,
        forward,
        packets: section.integer("packets", 1..=1_000),
        time: section.duration("time", ms(100)..=secs(60)),
        waiters: section.integer("waiters", 1..=1_000_000),
        fetches: section.integer("fetches", 1..=1_000_000),
        cache: resolver_cache(&section.section("cache")),
    };
    if config.cache.stale_wait >= config.time && !config.cache.stale.is_zero() {
        let message = "resolver.cache.stale_wait is not shorter: a stale answer comes too late";
        section.warning("time", message);
    }
    section.end();
    (mode == "forward").then_some(config)
}

fn resolver_cache(section: &Section<'_, '_>) -> CacheConfig {
    let config = CacheConfig {
        size: section.size("size", 64 << 10..=1 << 40),
        min_ttl: section.duration("min_ttl", TTLS),
        max_ttl: section.duration("max_ttl", TTLS),
        negative_max_ttl: section.duration("negative_max_ttl", TTLS),
        stale: section.duration("stale", TTLS),
        stale_wait: section.duration("stale_wait", ms(1)..=secs(60)),
        stale_ttl: section.duration("stale_ttl", secs(1)..=secs(3_600)),
        failure_ttl: (
            section.duration("failure_ttl_min", secs(1)..=secs(300)),
            section.duration("failure_ttl_max", secs(1)..=secs(300)),
        ),
        entry: bytes(section, "entry", 512..=65_535),
    };
    let text = super::units::duration_text;
    if config.min_ttl > config.max_ttl && !section.failed("max_ttl") {
        let (min, max) = (text(config.min_ttl), text(config.max_ttl));
        let message = format!("found \"{min}\", expected at most max_ttl (\"{max}\")");
        section.error("min_ttl", message);
    }
    if config.failure_ttl.0 > config.failure_ttl.1 && !section.failed("failure_ttl_max") {
        let (min, max) = (text(config.failure_ttl.0), text(config.failure_ttl.1));
        let message = format!("found \"{min}\", expected at most failure_ttl_max (\"{max}\")");
        section.error("failure_ttl_min", message);
    }
    if config.max_ttl > secs(604_800) {
        let message = format!("\"{}\": longer than a week", text(config.max_ttl));
        section.warning("max_ttl", message);
    }
    if config.max_ttl.is_zero() && !section.failed("max_ttl") {
        section.warning("max_ttl", "\"0s\": nothing is cached");
    }
    if config.min_ttl > secs(3_600) {
        let message = format!("\"{}\": changes are seen late", text(config.min_ttl));
        section.warning("min_ttl", message);
    }
    section.end();
    config
}

fn http(section: &Section<'_, '_>) -> (http::Config, usize) {
    let config = http::Config {
        listen: addresses(section, "listen"),
        connections: section.integer("connections", 1..=1_000_000),
        connections_per_address: section.integer("connections_per_address", 1..=1_000_000),
        silent: section.duration("silent", ms(100)..=secs(3_600)),
        head_time: section.duration("head_time", ms(100)..=secs(3_600)),
        idle: section.duration("idle", ms(100)..=secs(3_600)),
        slow: section.duration("slow", ms(100)..=secs(3_600)),
        head_size: bytes(section, "head_size", 8 << 10..=1 << 20),
        headers: section.integer("headers", 10..=1_000),
        streams: section.integer("streams", 1..=10_000),
        ranges: section.integer("ranges", 1..=1_000),
        fill_wait: section.duration("fill_wait", ms(100)..=secs(3_600)),
        access_log: None,
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

fn publish(sections: &[Section<'_, '_>], paths: &Paths<'_>) -> Vec<PublishConfig> {
    let mut prefixes = BTreeSet::new();
    let mut publish = Vec::new();
    for section in sections {
        let prefix = prefix(section);
        let dir = section.text("dir");
        if dir.is_empty() && !section.failed("dir") {
            section.error("dir", "expected the path of a directory");
        }
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
        section.end();
        publish.push(PublishConfig {
            prefix,
            dir: paths.resolve(section, "dir", &dir),
            index,
            listing,
        });
    }
    publish
}

fn mirrors(sections: &[Section<'_, '_>], publish: &[PublishConfig]) -> Vec<MirrorConfig> {
    let mut prefixes = BTreeSet::new();
    let mut mirrors = Vec::new();
    for section in sections {
        let prefix = prefix(section);
        let from = section.list("from", NODE_EXPECTED, node_url);
        if from.is_empty() && !section.failed("from") {
            section.error("from", format!("expected at least one: {NODE_EXPECTED}"));
        }
        section.choice_or_first("mode", &["replicate"]);
        if !prefixes.insert(prefix.clone()) {
            section.error(
                "prefix",
                format!("found {prefix:?} a second time, expected it once"),
            );
        }
        if publish.iter().any(|p| p.prefix == prefix) {
            let message =
                format!("found {prefix:?}, which is published here, expected another prefix");
            section.error("prefix", message);
        }
        let interval = section.duration_or("interval", ms(100)..=secs(86_400), secs(5));
        let in_flight = section.integer_or("in_flight", 1..=1_024, 8);
        let filling = section.integer_or("filling", 1..=1_024, 4);
        section.end();
        mirrors.push(MirrorConfig {
            prefix,
            from,
            interval,
            in_flight,
            filling,
        });
    }
    mirrors
}

fn store(section: &Section<'_, '_>, state: &Path) -> StoreConfig {
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
    };
    if !config.chunk.is_multiple_of(64 << 10) {
        let found = config.chunk;
        let expected = "expected a multiple of 64 KiB";
        section.error("chunk", format!("found {found} bytes, {expected}"));
    }
    section.end();
    config
}

fn link(section: &Section<'_, '_>) -> link::Config {
    let capacity = section.parsed("capacity", RATE_OR_EMPTY, |text| {
        if text.is_empty() {
            return Some(None);
        }
        super::units::rate(text).filter(|r| *r > 0).map(Some)
    });
    let interfaces = section.list(
        "interfaces",
        "names of interfaces such as \"eth0\"",
        |text| {
            let good =
                !text.is_empty() && text.len() < 16 && !text.contains(['/', ' ']) && text != "..";
            let expected = "expected the name of an interface such as \"eth0\"";
            good.then(|| text.to_owned())
                .ok_or_else(|| format!("found {text:?}, {expected}"))
        },
    );
    let default_capacity = section.parsed("default_capacity", RATE_EXPECTED, |text| {
        super::units::rate(text).filter(|r| *r > 0)
    });
    section.end();
    link::Config {
        capacity,
        interfaces,
        default_capacity,
    }
}

fn metrics(section: &Section<'_, '_>) -> (Option<SocketAddr>, usize) {
    let listen = section.parsed("listen", ADDRESS_OR_EMPTY, |text| {
        if text.is_empty() {
            Some(None)
        } else {
            text.parse().ok().map(Some)
        }
    });
    let connections = section.integer("connections", 1..=10_000);
    section.end();
    (listen, connections)
}

fn admin(section: &Section<'_, '_>, paths: &Paths<'_>) -> (PathBuf, usize) {
    let socket = section.text("socket");
    let socket = if socket.is_empty() {
        paths.state.join("admin.sock")
    } else {
        paths.resolve(section, "socket", &socket)
    };
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let expected = format!("expected at most {SOCKET_PATH_MAX} bytes for a socket's path");
        section.error(
            "socket",
            format!("found {} ({length} bytes), {expected}", socket.display()),
        );
    }
    let connections = section.integer("connections", 1..=10_000);
    section.end();
    (socket, connections)
}

fn log(section: &Section<'_, '_>, paths: &Paths<'_>, http: &mut http::Config) -> trace::Config {
    let level = section.parsed("level", "error, warn, info, debug or trace", |text| {
        trace::is_level(text).then(|| text.to_owned())
    });
    let format = match section.choice("format", &["text", "json"]) {
        "json" => trace::Format::Json,
        _ => trace::Format::Text,
    };
    let access = section.text("access");
    match access.as_str() {
        "off" => {}
        "" => section.error("access", "found \"\", expected \"off\" or a file"),
        file => http.access_log = Some(paths.resolve(section, "access", file)),
    }
    section.end();
    trace::Config { level, format }
}

/// No two services may want one TCP address (port 0 asks for a free one).
fn listeners(
    root: &Section<'_, '_>,
    dns: &[SocketAddr],
    http: &[SocketAddr],
    metrics: Option<SocketAddr>,
) {
    let all = dns.iter().map(|a| ("dns.listen", *a));
    let all = all.chain(http.iter().map(|a| ("http.listen", *a)));
    let all = all.chain(metrics.map(|a| ("metrics.listen", a)));
    let mut seen: Vec<(&str, SocketAddr)> = Vec::new();
    for (key, address) in all {
        if address.port() == 0 {
            continue;
        }
        if let Some((first, _)) = seen.iter().find(|(_, a)| *a == address) {
            // Said of the one that was written, if the other is a default.
            let default = section(root, key).is_default("listen");
            let (key, other) = if default {
                (*first, key)
            } else {
                (key, *first)
            };
            let message = format!("found {address}, which {other} has already, expected another");
            section(root, key).error("listen", message);
        }
        seen.push((key, address));
    }
}

/// The section of a `….listen` key.
fn section<'r, 'a>(root: &Section<'r, 'a>, key: &str) -> Section<'r, 'a> {
    root.section(match key {
        "dns.listen" => "dns",
        "http.listen" => "http",
        _ => "metrics",
    })
}

fn addresses(section: &Section<'_, '_>, key: &'static str) -> Vec<SocketAddr> {
    section.list(key, ADDRESS_EXPECTED, |text| {
        let address = text.parse();
        address.map_err(|_| format!("found {text:?}, expected {ADDRESS_EXPECTED}"))
    })
}

fn upstreams(section: &Section<'_, '_>, key: &'static str) -> Vec<SocketAddr> {
    section.list(key, UPSTREAM_EXPECTED, |text| {
        upstream(text).ok_or_else(|| format!("found {text:?}, expected {UPSTREAM_EXPECTED}"))
    })
}

/// An address, with port 53 unless it has one.
fn upstream(text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok().or_else(|| {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
        Some(SocketAddr::new(address, 53))
    })?;
    (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
}

fn not_itself(section: &Section<'_, '_>, upstream: SocketAddr, own: &[SocketAddr]) {
    let itself = own.iter().any(|a| {
        a.port() == upstream.port()
            && (a.ip() == upstream.ip() || a.ip().is_unspecified() && upstream.ip().is_loopback())
    });
    if itself {
        let message = format!("found {upstream}, where this node itself listens, expected another");
        section.error("upstreams", message);
    }
}

/// The `nameserver` lines of /etc/resolv.conf.
fn system_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    nameservers(&text)
}

/// At most the first three are used, as in the C library.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|l| {
        let mut words = l.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    });
    lines.filter_map(upstream).take(3).collect()
}

/// A domain name in lower case with a final dot.
fn domain(text: &str) -> Option<String> {
    if text.is_empty() || text.starts_with('.') && text.len() > 1 {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name.to_lowercase().to_ascii())
}

/// `www`, `www/AAAA` or `@`.
fn ttl_override(key: &str, ttl: u32) -> Option<TtlOverride> {
    let (name, rtype) = match key.split_once('/') {
        Some((name, rtype)) => (name, Some(rtype.to_ascii_uppercase())),
        None => (key, None),
    };
    let known = |t: &String| {
        RecordType::from_str(t).is_ok()
            || t.strip_prefix("TYPE")
                .is_some_and(|n| n.parse::<u16>().is_ok())
    };
    let relative = name == "@" || domain(name).is_some() && !name.ends_with('.');
    (relative && rtype.as_ref().is_none_or(known)).then(|| TtlOverride {
        name: name.to_ascii_lowercase(),
        rtype,
        ttl,
    })
}

/// A URL path prefix, `/` unless configured.
fn prefix(section: &Section<'_, '_>) -> String {
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
fn node_url(text: &str) -> Result<String, String> {
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

fn bytes<T: TryFrom<u64> + Default>(
    section: &Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
) -> T {
    T::try_from(section.size(key, range)).unwrap_or_default()
}

/// Whether this machine has ::1.
fn has_ipv6_loopback() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

fn whole_seconds(section: &Section<'_, '_>, key: &str, ttl: Duration) {
    if ttl.subsec_nanos() != 0 {
        let found = super::units::duration_text(ttl);
        section.error(key, format!("found \"{found}\", expected whole seconds"));
    }
}

fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// TTLs are 31 bits (RFC 2181 section 8); a year is plenty.
const TTLS: std::ops::RangeInclusive<Duration> = secs(0)..=secs(31_536_000);

/// Bytes of `sun_path` without its final NUL.
const SOCKET_PATH_MAX: usize = 107;

const ADDRESS_EXPECTED: &str = "an address and a port such as \"127.0.0.1:5300\" or \"[::1]:5300\"";
const ADDRESS_OR_EMPTY: &str = "an address and a port such as \"127.0.0.1:9153\", or \"\" for none";
const DOMAIN_EXPECTED: &str = "a domain name such as \"cdn.test.\"";
const NODE_EXPECTED: &str = "the base URL of a node such as \"http://origin:8080\"";
const TTL_KEY_EXPECTED: &str = "a name relative to the zone such as \"www\", \"www/AAAA\" or \"@\"";
const RATE_EXPECTED: &str = "a rate such as \"1 Gbit/s\"";
const MEMORY: &str = "a size such as \"2 GiB\", or \"\" for an eighth of the memory";
const RATE_OR_EMPTY: &str = "a rate such as \"1 Gbit/s\", or \"\" for what the interface reports";
const UPSTREAM_EXPECTED: &str =
    "an address with or without a port such as \"192.0.2.53\" or \"[2001:db8::1]:53\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_upstream(text: &str, expected: Option<&str>) {
        let expected = expected.map(|e| e.parse().unwrap());
        assert_eq!(upstream(text), expected, "{text}");
    }

    #[test]
    fn upstream_without_a_port_has_port_53() {
        check_upstream("192.0.2.53", Some("192.0.2.53:53"));
        check_upstream("192.0.2.53:5353", Some("192.0.2.53:5353"));
        check_upstream("2001:db8::1", Some("[2001:db8::1]:53"));
        check_upstream("[2001:db8::1]:53", Some("[2001:db8::1]:53"));
        check_upstream("dns.example", None);
        check_upstream("0.0.0.0", None);
    }

    #[test]
    fn nameservers_are_the_first_three() {
        let text = "# a\nnameserver 192.0.2.1\noptions edns0\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<_> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[::1]:53", "192.0.2.2:53"]);
    }

    #[test]
    fn domain_is_lower_case_with_a_final_dot() {
        assert_eq!(domain("CDN.Test").as_deref(), Some("cdn.test."));
        assert_eq!(domain(".").as_deref(), Some("."));
        for bad in ["", ".test", "a..b", &"a".repeat(64)] {
            assert_eq!(domain(bad), None, "{bad}");
        }
    }

    #[test]
    fn ttl_override_names_a_name_and_maybe_a_type() {
        let get = |key| ttl_override(key, 5).map(|t| (t.name, t.rtype));
        assert_eq!(get("WWW"), Some(("www".into(), None)));
        assert_eq!(get("a.b/aaaa"), Some(("a.b".into(), Some("AAAA".into()))));
        assert_eq!(
            get("@/TYPE65280"),
            Some(("@".into(), Some("TYPE65280".into())))
        );
        assert_eq!(get("www/NOTYPE"), None);
        assert_eq!(get("www.cdn.test."), None);
    }
}
