//! `[dns]`: the front.

use std::net::SocketAddr;
use std::str::FromStr as _;

use super::super::read::Section;
use super::values::{Paths, addresses, bytes, ms, secs};
use crate::dns::chaos::{self, Identity};
use crate::dns::rrl::{self, Rate};
use crate::dns::wire::NSID_MAX;
use crate::dns::{self, CookieConfig, RateLimit};
use crate::net::Network;
use crate::tls;

pub(super) fn settings(section: &Section<'_, '_>, paths: &Paths<'_>) -> dns::Config {
    let mut config = dns::Config {
        listen: addresses(section, "listen"),
        workers: section.integer("workers", 0..=1_024),
        udp_payload: section.integer("udp_payload", 512..=4_096),
        udp_segments: section.integer("udp_segments", 1..=dns::UDP_SEGMENTS),
        edns_options: section.integer("edns_options", 1..=1_000),
        cname_chain: section.integer("cname_chain", 0..=dns::answer::CHAIN_MAX),
        queries_in_flight: section.integer("queries_in_flight", 1..=1_000_000),
        queries_in_flight_per_network: section
            .integer("queries_in_flight_per_network", 1..=1_000_000),
        queries_in_flight_per_proven_network: section
            .integer("queries_in_flight_per_proven_network", 1..=1_000_000),
        udp_late: section.duration("udp_late", ms(100)..=secs(60)),
        tcp_connections: section.integer("tcp_connections", 1..=1_000_000),
        tcp_connections_per_address: section.integer("tcp_connections_per_address", 1..=1_000_000),
        tcp_idle: section.duration("tcp_idle", ms(100)..=secs(3_600)),
        tcp_message: section.duration("tcp_message_time", ms(100)..=secs(3_600)),
        tcp_unanswered: section.integer("tcp_unanswered", 1..=65_535),
        tcp_unread: bytes(section, "tcp_unread", 65_537..=1 << 30),
        tcp_unread_time: section.duration("tcp_unread_time", ms(100)..=secs(3_600)),
        tls_listen: addresses(section, "tls_listen"),
        https_listen: addresses(section, "https_listen"),
        quic_listen: addresses(section, "quic_listen"),
        tls_handshake: section.duration("tls_handshake", ms(100)..=secs(60)),
        https_path: section.parsed("https_path", "a path such as \"/dns-query\"", |path| {
            let good = path.starts_with('/') && !path.contains(['?', '#', ' ', '%']);
            good.then(|| path.to_owned())
        }),
        https_streams: section.integer("https_streams", 1..=10_000),
        https_resets: section.integer("https_resets", 1..=10_000),
        https_head: u32::try_from(section.size("https_head", 1 << 10..=1 << 20))
            .unwrap_or(u32::MAX),
        quic_streams: section.integer("quic_streams", 1..=10_000),
        identity: Identity {
            version: short(section, "version", chaos::TEXT_MAX),
            name: short(section, "nsid", NSID_MAX),
        },
        cookies: cookies(&section.section("cookies"), paths),
        rate_limit: rate_limit(&section.section("rate_limit")),
        transfer: transfer(&section.section("transfer"), paths),
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

/// `[tls]`: certificate and key, which the encrypted listeners of `user`, if there is one, need.
pub(super) fn tls(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    user: Option<&str>,
) -> Option<tls::Files> {
    let [cert, key] = ["cert", "key"].map(|key| {
        let path = section.text(key);
        (!path.is_empty()).then(|| paths.resolve(section, key, &path))
    });
    let files = match (cert, key) {
        (Some(cert), Some(key)) => {
            let files = tls::Files { cert, key };
            if let Err(problem) = files.read() {
                let (key, message) = problem.split_once(": ").unwrap_or(("tls.cert", &problem));
                section.error(key.trim_start_matches("tls."), message);
            }
            Some(files)
        }
        (None, None) => {
            if let Some(user) = user
                && !section.failed("cert")
            {
                let message =
                    format!("found \"\", expected a file: {user} has encrypted listeners");
                section.error("cert", message);
            }
            None
        }
        (None, Some(_)) => {
            section.error("cert", "found \"\", expected a file: there is a key");
            None
        }
        (Some(_), None) => {
            section.error("key", "found \"\", expected a file: there is a certificate");
            None
        }
    };
    section.end();
    files
}

/// A text of at most `max` bytes.
fn short(section: &Section<'_, '_>, key: &'static str, max: usize) -> String {
    let text = section.text(key);
    if text.len() > max {
        let found = text.len();
        section.error(key, format!("found {found} bytes, expected at most {max}"));
    }
    text
}

fn cookies(section: &Section<'_, '_>, paths: &Paths<'_>) -> Option<CookieConfig> {
    let enabled = section.boolean("enabled");
    let required = section.boolean("required");
    let file = section.text("secret_file");
    section.end();
    enabled.then(|| CookieConfig {
        required,
        secret_file: (!file.is_empty()).then(|| paths.resolve(section, "secret_file", &file)),
    })
}

fn rate_limit(section: &Section<'_, '_>) -> Option<RateLimit> {
    let rate = Rate {
        responses: section.integer("responses", 0..=rrl::RATE_MAX),
        slip: section.integer("slip", 0..=10),
    };
    let exempt = section.list("exempt", "networks such as \"192.0.2.0/24\"", |text| {
        let network = Network::from_str(text);
        network.map_err(|e| format!("found {e}"))
    });
    let buckets: usize = section.integer("buckets", rrl::BUCKETS_MIN..=1 << 24);
    if buckets >= rrl::BUCKETS_MIN && !buckets.is_power_of_two() {
        let (below, above) = (buckets.next_power_of_two() / 2, buckets.next_power_of_two());
        let message =
            format!("found {buckets}, expected a power of two such as {below} or {above}");
        section.error("buckets", message);
    }
    section.end();
    (rate.responses > 0).then_some(RateLimit {
        rate,
        buckets,
        exempt,
    })
}

/// `[dns.transfer]`: bounds of zone transfers.
fn transfer(section: &Section<'_, '_>, paths: &Paths<'_>) -> dns::transfer::Config {
    let file = section.text("ca_file");
    let ca_file = (!file.is_empty()).then(|| paths.resolve(section, "ca_file", &file));
    if let Some(Err(problem)) = ca_file.as_deref().map(|file| crate::tls::roots(Some(file))) {
        section.error("ca_file", problem);
    }
    let config = dns::transfer::Config {
        outgoing: section.integer("outgoing", 1..=10_000),
        incoming: section.integer("incoming", 1..=10_000),
        time: section.duration("time", secs(1)..=secs(86_400)),
        silence: section.duration("silence", ms(100)..=secs(600)),
        size: section.size("size", 65_536..=1 << 40),
        notifies: section.integer("notifies", 1..=10_000),
        ca_file,
    };
    section.end();
    config
}

/// Whether this machine has ::1.
fn has_ipv6_loopback() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}
