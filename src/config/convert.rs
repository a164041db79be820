//! Keys to the topics' own types, with the range of every value and the checks across keys.
//!
//! From ground to roof: `values` (kinds of values that several sections have), one file per topic, then [`settings`] with what concerns
//! more than one of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use self::values::{ADDRESS_OR_EMPTY, Paths, SOCKET_PATH_MAX, resolve};
use super::Settings;
use super::load::Source;
use super::read::Section;
use crate::dns as dns_config;
use crate::dns::log as dns_log;
use crate::{http, trace};

mod values;

mod bucket;

mod content;

mod dns;

mod dnssec;

mod ftp;

mod http_server;

mod key;

mod link;

mod peers;

mod policy;

mod proxy;

mod resolver;

mod zone;

/// Reads every section. What it returns counts only if nothing was noted as an error.
pub(super) fn settings(root: &Section<'_, '_>, source: &Source) -> Settings {
    let (node, state) = node(&root.section("node"), source);
    let paths = Paths {
        source,
        state: &state,
    };
    let dns = dns::settings(&root.section("dns"), &paths);
    let (mut http, http_workers) = http_server::settings(&root.section("http"));
    let ftp = ftp::settings(&root.section("ftp"), &paths);
    let encrypted = [
        ("dns", dns.is_encrypted()),
        ("http", !http.tls_listen.is_empty()),
        ("ftp", !ftp.listen.is_empty() && ftp.tls_required),
    ];
    let user = encrypted.iter().find(|(_, is)| *is).map(|(user, _)| *user);
    let tls = dns::tls(&root.section("tls"), &paths, user);
    let tsig = key::settings(&root.sections("key"), &paths);
    let templates = zone::templates(&root.sections("template"), &tsig);
    let zones = zone::settings(&root.sections("zone"), &paths, &tsig, &templates);
    let dnssec = dnssec::settings(&root.section("dnssec"));
    let (resolver, policy) = resolver::settings(&root.section("resolver"), &dns.listen, &paths);
    let published = &root.sections("publish");
    let (publish, buckets) = content::publish(published, &paths, &mut http.rules);
    let published: Vec<_> = publish.iter().map(|p| p.prefix.as_str()).collect();
    let from_buckets = buckets.iter().map(|b| b.prefix.as_str());
    let published: Vec<_> = published.into_iter().chain(from_buckets).collect();
    let mirrors = content::mirrors(&root.sections("mirror"), &published, &mut http.rules);
    http.upload = http_server::upload(&root.section("upload"), &paths, &publish);
    open_uploads(root, &http);
    let store = content::store(&root.section("store"), &state);
    let local = published.iter().map(|&prefix| prefix.to_owned());
    let local = local.chain(mirrors.iter().map(|m| m.prefix.clone()));
    let (rules, cache) = (root.sections("proxy"), root.section("proxy_cache"));
    http.proxy = proxy::settings(&rules, &cache, &node, &paths, local.collect());
    let (swarm, swarm_secret) = peers::settings(&root.section("peers"), &paths, &mirrors);
    let link = link::settings(&root.section("link"));
    let (metrics_listen, metrics_connections) = metrics(&root.section("metrics"));
    let (admin_socket, admin_connections) = admin(&root.section("admin"), &paths);
    let (log, query_log) = log(&root.section("log"), &paths, &node, &mut http);
    root.end();
    listeners(root, &dns, &http, &ftp, metrics_listen);
    if resolver.is_some() && zones.is_empty() && !dns.is_on() && !http.is_on() {
        root.warning(
            "dns",
            "nothing is served: dns.listen and http.listen are empty",
        );
    }
    Settings {
        node,
        state,
        dns,
        tls,
        zones,
        tsig,
        dnssec,
        resolver,
        policy,
        http,
        http_workers,
        ftp,
        publish,
        buckets,
        mirrors,
        swarm,
        swarm_secret,
        store,
        link,
        metrics_listen,
        metrics_connections,
        admin_socket,
        admin_connections,
        log,
        query_log,
        warnings: Vec::new(),
        keys: Vec::new(),
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

fn log(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    node: &str,
    http: &mut http::Config,
) -> (trace::Config, Option<dns_log::Config>) {
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
    http.access_format = match section.choice("access_format", &["combined", "json"]) {
        "json" => http::access::Format::Json,
        _ => http::access::Format::Combined,
    };
    http.access_lines = section.integer("access_lines", 1..=10_000_000);
    let queries = match section.text("queries").as_str() {
        "off" => None,
        "" => {
            section.error("queries", "found \"\", expected \"off\" or a file");
            None
        }
        file => Some(paths.resolve(section, "queries", file)),
    };
    let sample = section.share("queries_sample");
    let dnstap = section.text("dnstap");
    let dnstap = (!dnstap.is_empty()).then(|| paths.resolve(section, "dnstap", &dnstap));
    if let Some(socket) = &dnstap
        && socket.as_os_str().len() > SOCKET_PATH_MAX
    {
        let expected = format!("expected at most {SOCKET_PATH_MAX} bytes for a socket's path");
        let length = socket.as_os_str().len();
        section.error(
            "dnstap",
            format!("found {} ({length} bytes), {expected}", socket.display()),
        );
    }
    let buffer = values::bytes(section, "buffer", 128 << 10..=1 << 30);
    section.end();
    let queries_on = queries.is_some() || dnstap.is_some();
    let queries = queries_on.then(|| dns_log::Config {
        queries,
        sample,
        dnstap,
        buffer,
        identity: node.to_owned(),
    });
    (trace::Config { level, format }, queries)
}

/// Tokens that go over a network in the clear are everybody's.
fn open_uploads(root: &Section<'_, '_>, http: &http::Config) {
    let mut open = http.listen.iter().filter(|a| !a.ip().is_loopback());
    if http.upload.is_some()
        && let Some(address) = open.next()
    {
        let message = format!(
            "tokens may come in the clear over http.listen ({address}); http.tls_listen keeps them secret"
        );
        root.section("upload").warning("enabled", message);
    }
}

/// No two services may want one TCP address (port 0 asks for a free one).
fn listeners(
    root: &Section<'_, '_>,
    dns: &dns_config::Config,
    http: &http::Config,
    ftp: &crate::ftp::Config,
    metrics: Option<SocketAddr>,
) {
    let all = [
        ("dns.listen", &dns.listen),
        ("dns.tls_listen", &dns.tls_listen),
        ("dns.https_listen", &dns.https_listen),
        ("http.listen", &http.listen),
        ("http.tls_listen", &http.tls_listen),
        ("ftp.listen", &ftp.listen),
    ];
    let all = all
        .into_iter()
        .flat_map(|(key, addresses)| addresses.iter().map(move |a| (key, *a)));
    let all = all.chain(metrics.map(|a| ("metrics.listen", a)));
    let mut seen: Vec<(&str, SocketAddr)> = Vec::new();
    for (key, address) in all {
        if address.port() == 0 {
            continue;
        }
        if let Some((first, _)) = seen.iter().find(|(_, a)| *a == address) {
            // Said of the one that was written, if the other is a default.
            let (at, name) = section(root, key);
            let (key, other) = if at.is_default(name) {
                (*first, key)
            } else {
                (key, *first)
            };
            let message = format!("found {address}, which {other} has already, expected another");
            let (at, name) = section(root, key);
            at.error(name, message);
        }
        seen.push((key, address));
    }
}

/// The section of a key, and its name there.
fn section<'r, 'a>(root: &Section<'r, 'a>, key: &'static str) -> (Section<'r, 'a>, &'static str) {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    (root.section(section), name)
}
