//! `[resolver]`: who may recurse, upstreams or root hints, cache.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use rustls::RootCertStore;

use super::super::read::Section;
use super::super::units::duration_text;
use super::policy;
use super::values::{DOMAIN_EXPECTED, Paths, TTLS, bytes, domain, ms, secs};
use crate::dns::resolver::recurse::hints::Hints;
use crate::dns::resolver::recurse::records::Unreadable;
use crate::dns::resolver::upstream::{self, Families, Target};
use crate::dns::resolver::validate::anchor::Anchors;
use crate::dns::resolver::validate::roll::{self, Terms};
use crate::dns::resolver::{
    self, CacheConfig, ForwardZone, UPSTREAMS, WarmName, recurse, validate,
};
use crate::net::Network;

pub(super) fn settings(
    section: &Section<'_, '_>,
    own: &[SocketAddr],
    paths: &Paths<'_>,
) -> (Option<resolver::Config>, resolver::policy::Config) {
    let mode = section.choice("mode", &["forward", "recursive", "off"]);
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
        not_itself(section, upstream.address(), own);
    }
    if mode == "forward" && upstreams.is_empty() && !section.failed("upstreams") {
        upstreams = system_resolvers();
        upstreams.retain(|u| !own.contains(&u.address()));
        if upstreams.is_empty() {
            let message =
                "none configured and none in /etc/resolv.conf; foreign names get SERVFAIL";
            section.warning("upstreams", message);
        }
    }
    if mode == "recursive" && !upstreams.is_empty() {
        let message = "of no use with mode = \"recursive\": names are resolved from the root";
        section.warning("upstreams", message);
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
            not_itself(&entry, upstream.address(), own);
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
    let families = families(section);
    let aliases = section.integer("aliases", 1..=50);
    let cache = cache(&section.section("cache"), paths, aliases);
    let waiters = section.integer("waiters", 1..=1_000_000);
    let recursion = recursion(
        section,
        paths,
        families,
        &cache,
        waiters,
        mode == "recursive",
    );
    let all = upstreams
        .iter()
        .chain(forward.iter().flat_map(|f| &f.upstreams));
    let encrypted = mode != "off" && !all.clone().all(Target::is_clear);
    if encrypted && mode == "forward" && upstreams.iter().any(Target::is_clear) {
        let message =
            "some are encrypted, others not: what is asked of these can be read on the way";
        section.warning("upstreams", message);
    }
    let tls = tls(&section.section("tls"), paths, encrypted);
    let config = resolver::Config {
        allow,
        upstreams,
        forward,
        packets: section.integer("packets", 1..=1_000),
        time: section.duration("time", ms(100)..=secs(60)),
        waiters,
        fetches: section.integer("fetches", 1..=1_000_000),
        upstream: upstream::Config {
            sockets: section.integer("sockets", 16..=60_000),
            streams: section.integer("streams", 1..=60_000),
            tls_idle: tls.idle,
            tls_handshake: tls.handshake,
            roots: tls.roots,
            servers: section.integer("servers", 1..=10_000_000),
            fetches_per_server: section.integer("fetches_per_server", 1..=60_000),
            fetches_per_zone: section.integer("fetches_per_zone", 1..=1_000_000),
            sends: section.integer("sends", 1..=10),
            stream_queries: section.integer("stream_queries", 1..=10_000),
            families,
        },
        cache,
        recursion: (recursion.from_root || recursion.forwards).then_some(recursion),
    };
    if config.cache.stale_wait >= config.time && !config.cache.stale.is_zero() {
        let message = "resolver.cache.stale_wait is not shorter: a stale answer comes too late";
        section.warning("time", message);
    }
    let policy = policy::settings(section, mode == "recursive", paths);
    section.end();
    ((mode != "off").then_some(config), policy)
}

/// `[resolver.tls]`
struct Tls {
    idle: Duration,
    handshake: Duration,
    roots: Arc<RootCertStore>,
}

/// `[resolver.tls]`; certificates are read only if they are `needed`.
fn tls(section: &Section<'_, '_>, paths: &Paths<'_>, needed: bool) -> Tls {
    let file = section.text("ca_file");
    let file = (!file.is_empty()).then(|| paths.resolve(section, "ca_file", &file));
    let roots = if needed {
        crate::tls::roots(file.as_deref()).unwrap_or_else(|message| {
            section.error("ca_file", message);
            RootCertStore::empty()
        })
    } else {
        RootCertStore::empty()
    };
    let tls = Tls {
        idle: section.duration("idle", secs(1)..=secs(3_600)),
        handshake: section.duration("handshake", ms(100)..=secs(60)),
        roots: Arc::new(roots),
    };
    section.end();
    tls
}

/// `[resolver.recursion]`, and what stands in `[resolver]` beside it.
fn recursion(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    families: Families,
    cache: &CacheConfig,
    waiters: usize,
    from_root: bool,
) -> recurse::Config {
    let hints = records(section, paths, "root_hints", Hints::parse).unwrap_or_else(Hints::built_in);
    let qname_minimisation = section.boolean_or("qname_minimisation", true);
    // Of an upstream nobody knows whether it passes on what proves an answer, so validating what is forwarded has to be asked for.
    let dnssec = section.maybe_boolean("dnssec");
    let validation = validation(section, paths);
    if dnssec.is_none() && !from_root && !section.text("trust_anchors").is_empty() {
        let message = "of no use: what upstreams say is validated with dnssec = true only";
        section.warning("trust_anchors", message);
    }
    let bounds = section.section("recursion");
    let networks = "networks such as \"127.0.0.0/8\"";
    let config = recurse::Config {
        hints,
        qname_minimisation,
        families,
        deny_servers: bounds.list("deny_servers", networks, |text| {
            Network::from_str(text).map_err(|e| format!("found {e}"))
        }),
        port: 53,
        from_root,
        forwards: dnssec == Some(true),
        dnssec: dnssec.unwrap_or(from_root).then_some(validation),
        size: bounds.size("size", 1 << 20..=1 << 40),
        waiters,
        depth: bounds.integer("depth", 1..=30),
        aliases: cache.aliases,
        glueless: bounds.integer("glueless", 1..=50),
        name_servers: bounds.integer("name_servers", 1..=100),
        max_ttl: cache.max_ttl,
        negative_max_ttl: cache.negative_max_ttl,
    };
    bounds.end();
    config
}

/// What goes with `dnssec`.
fn validation(section: &Section<'_, '_>, paths: &Paths<'_>) -> validate::Config {
    let anchors = records(section, paths, "trust_anchors", Anchors::parse);
    let spared = section.list("negative_trust_anchors", DOMAIN_EXPECTED, |text| {
        domain(text).ok_or_else(|| format!("found {text:?}, expected {DOMAIN_EXPECTED}"))
    });
    let bounds = section.section("validation");
    let hold_down = |key| {
        bounds
            .duration(key, secs(3_600)..=secs(366 * 86_400))
            .as_secs()
    };
    let rolling = roll::Config {
        terms: Terms {
            add: hold_down("add_hold_down"),
            remove: hold_down("remove_hold_down"),
            keys: bounds.integer("anchor_keys", 2..=100),
        },
        file: paths.state.join("trust-anchors"),
    };
    let config = validate::Config {
        anchors: anchors.unwrap_or_else(Anchors::built_in).without(&spared),
        signature_checks: bounds.integer("signature_checks", 8..=1_000),
        signature_failures: bounds.integer("signature_failures", 1..=1_000),
        keys_per_tag: bounds.integer("keys_per_tag", 1..=10),
        signatures_per_rrset: bounds.integer("signatures_per_rrset", 1..=100),
        ds_records: bounds.integer("ds_records", 1..=100),
        nsec3_iterations: bounds.integer("nsec3_iterations", 0..=500),
        nsec3_hashes: bounds.integer("nsec3_hashes", 8..=10_000),
        other_servers: bounds.integer("other_servers", 0..=20),
        ranges: bounds.integer("ranges", 0..=10_000_000),
        rolling: bounds.boolean_or("roll_anchors", true).then_some(rolling),
    };
    bounds.end();
    config
}

/// What `parse` makes of the file that `key` names; `None`: it names none, or one that is no good, which has been said.
fn records<T>(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, Unreadable>,
) -> Option<T> {
    let text = section.text(key);
    if text.is_empty() {
        return None;
    }
    let file = paths.resolve(section, key, &text);
    let parsed = std::fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}", file.display()))
        .and_then(|text| {
            parse(&text).map_err(|e| {
                let (line, found, expected) = (e.line, &e.found, e.expected);
                format!(
                    "{}:{line}: found {found:?}, expected {expected}",
                    file.display()
                )
            })
        });
    match parsed {
        Ok(parsed) => Some(parsed),
        Err(message) => {
            section.error(key, message);
            None
        }
    }
}

fn families(section: &Section<'_, '_>) -> Families {
    let words = section.list("families", "\"ip4\" or \"ip6\"", |text| match text {
        "ip4" => Ok(true),
        "ip6" => Ok(false),
        other => Err(format!("found {other:?}")),
    });
    if words.is_empty() && !section.failed("families") {
        section.error("families", "found [], expected \"ip4\", \"ip6\" or both");
    }
    Families {
        ip4: words.contains(&true),
        ip6: words.contains(&false),
    }
}

/// `www.example` (addresses of both families) or `www.example/MX`.
fn warm_name(text: &str) -> Option<WarmName> {
    let (name, types) = match text.split_once('/') {
        Some((name, rtype)) => {
            let rtype = RecordType::from_str(&rtype.to_ascii_uppercase()).ok()?;
            (name, vec![u16::from(rtype)])
        }
        None => (text, vec![1, 28]),
    };
    Some(WarmName {
        name: domain(name)?,
        types,
    })
}

/// `[resolver.cache]`; with `aliases`, which stands in `[resolver]`.
fn cache(section: &Section<'_, '_>, paths: &Paths<'_>, aliases: usize) -> CacheConfig {
    let mut config = CacheConfig {
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
        records: section.integer("records", 1..=5_000),
        aliases,
        refreshes: section.integer("refreshes", 1..=10_000),
        refreshes_waiting: section.integer("refreshes_waiting", 1..=10_000),
        prefetch: section.boolean_or("prefetch", true),
        keep_warm: section.list("keep_warm", WARM_EXPECTED, |text| {
            warm_name(text).ok_or_else(|| format!("found {text:?}"))
        }),
        nxdomain_cut: section.boolean_or("nxdomain_cut", true),
        save: section.duration("save", TTLS),
        file: None,
    };
    config.file = (!config.save.is_zero()).then(|| paths.state.join("cache.saved"));
    let text = duration_text;
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

fn upstreams(section: &Section<'_, '_>, key: &'static str) -> Vec<Target> {
    let upstreams = section.list(key, UPSTREAM_EXPECTED, |text| {
        let target = Target::from_str(text);
        target.map_err(|expected| format!("found {text:?}, {expected}"))
    });
    if upstreams.len() > UPSTREAMS {
        let found = upstreams.len();
        section.error(key, format!("found {found}, expected at most {UPSTREAMS}"));
    }
    upstreams
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
fn system_resolvers() -> Vec<Target> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    nameservers(&text)
}

/// At most the first three are used, as in the C library.
fn nameservers(text: &str) -> Vec<Target> {
    let lines = text.lines().filter_map(|l| {
        let mut words = l.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    });
    let targets = lines.filter_map(|text| Target::from_str(text).ok());
    targets.filter(Target::is_clear).take(3).collect()
}

const UPSTREAM_EXPECTED: &str =
    "addresses such as \"192.0.2.53\" or \"tls://192.0.2.53#dns.example\"";

const WARM_EXPECTED: &str = "names such as \"www.example\" or \"example/MX\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_the_first_three() {
        let text = "# a\nnameserver 192.0.2.1\noptions edns0\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<_> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[::1]:53", "192.0.2.2:53"]);
    }
}
