//! Every number, size and time among the keys is a bound with a metric, or it is said here why it has none.

use std::collections::BTreeSet;

use headwater::config::load;
use headwater::metrics::Metrics;

/// Key, and the series that moves when the bound takes effect.
const BOUNDS: &[(&str, &str)] = &[
    ("dns.edns_options", DNS),
    (
        "dns.cname_chain",
        "headwater_dns_queries_total{outcome=\"cname_chain\",transport=\"udp\"}",
    ),
    ("dns.queries_in_flight", DNS),
    ("dns.queries_in_flight_per_network", DNS),
    (
        "dns.queries_in_flight_per_proven_network",
        "headwater_dns_limit_reached_total{limit=\"queries_in_flight_per_network\"}",
    ),
    ("dns.udp_late", DNS),
    ("dns.tcp_connections", DNS),
    ("dns.tcp_connections_per_address", DNS),
    ("dns.tcp_idle", DNS),
    ("dns.tcp_message_time", DNS),
    ("dns.tcp_unanswered", DNS),
    ("dns.tcp_unread", DNS),
    (
        "dns.tcp_unread_time",
        "headwater_dns_limit_reached_total{limit=\"tcp_unread\"}",
    ),
    ("dns.tls_handshake", DNS),
    ("dns.https_resets", DNS),
    (
        "dns.rate_limit.responses",
        "headwater_dns_queries_total{outcome=\"rate_limited\",transport=\"udp\"}",
    ),
    (
        "dns.rate_limit.slip",
        "headwater_dns_queries_total{outcome=\"slipped\",transport=\"udp\"}",
    ),
    (
        "dns.rate_limit.buckets",
        "headwater_dns_limit_reached_total{limit=\"rate_limit.buckets\"}",
    ),
    (
        "dns.transfer.outgoing",
        "headwater_zone_transfers_outgoing_limit_total",
    ),
    (
        "dns.transfer.incoming",
        "headwater_zone_transfers_incoming_limit_total",
    ),
    (
        "dns.transfer.notifies",
        "headwater_zone_notifies_limit_total",
    ),
    ("dns.transfer.time", BROKEN_TRANSFER),
    ("dns.transfer.silence", BROKEN_TRANSFER),
    ("dns.transfer.size", BROKEN_TRANSFER),
    ("resolver.packets", RESOLVER),
    ("resolver.time", RESOLVER),
    ("resolver.waiters", RESOLVER),
    ("resolver.fetches", RESOLVER),
    (
        "resolver.fetches_per_server",
        "headwater_resolver_limit_hits_total{limit=\"server_fetches\"}",
    ),
    (
        "resolver.fetches_per_zone",
        "headwater_resolver_limit_hits_total{limit=\"zone_fetches\"}",
    ),
    ("resolver.sends", RESOLVER),
    ("resolver.aliases", RESOLVER),
    ("resolver.sockets", RESOLVER),
    ("resolver.streams", RESOLVER),
    ("resolver.stream_queries", RESOLVER),
    ("resolver.recursion.depth", RESOLVER),
    ("resolver.recursion.glueless", RESOLVER),
    ("resolver.recursion.name_servers", RESOLVER),
    (
        "resolver.recursion.size",
        "headwater_resolver_recursion_bytes",
    ),
    (
        "resolver.validation.signature_checks",
        "headwater_resolver_limit_hits_total{limit=\"signatures\"}",
    ),
    (
        "resolver.validation.signature_failures",
        "headwater_resolver_limit_hits_total{limit=\"signatures\"}",
    ),
    ("resolver.validation.keys_per_tag", RESOLVER),
    ("resolver.validation.signatures_per_rrset", RESOLVER),
    ("resolver.validation.ds_records", RESOLVER),
    ("resolver.validation.nsec3_iterations", RESOLVER),
    ("resolver.validation.nsec3_hashes", RESOLVER),
    ("resolver.validation.other_servers", RESOLVER),
    (
        "resolver.validation.add_hold_down",
        "headwater_resolver_trust_anchor_keys{state=\"pending\"}",
    ),
    (
        "resolver.validation.remove_hold_down",
        "headwater_resolver_trust_anchor_keys{state=\"revoked\"}",
    ),
    ("resolver.validation.anchor_keys", RESOLVER),
    ("resolver.cache.size", "headwater_resolver_cache_bytes"),
    ("resolver.cache.entry", RESOLVER),
    ("resolver.cache.records", RESOLVER),
    ("resolver.cache.refreshes", RESOLVER),
    ("resolver.cache.refreshes_waiting", RESOLVER),
    (
        "ftp.sessions",
        "headwater_ftp_sessions_refused_total{limit=\"total\"}",
    ),
    (
        "ftp.sessions_per_address",
        "headwater_ftp_sessions_refused_total{limit=\"address\"}",
    ),
    (
        "ftp.connections_per_session",
        "headwater_ftp_limit_reached_total{limit=\"connections_per_session\"}",
    ),
    (
        "ftp.login_time",
        "headwater_ftp_limit_reached_total{limit=\"login_time\"}",
    ),
    (
        "ftp.idle",
        "headwater_ftp_limit_reached_total{limit=\"idle\"}",
    ),
    (
        "ftp.session_time",
        "headwater_ftp_limit_reached_total{limit=\"session_time\"}",
    ),
    (
        "ftp.max",
        "headwater_ftp_limit_reached_total{limit=\"max\"}",
    ),
    (
        "ftp.login_failures",
        "headwater_ftp_logins_total{outcome=\"locked\"}",
    ),
    (
        "ftp.login_lockout",
        "headwater_ftp_logins_total{outcome=\"locked\"}",
    ),
    (
        "ftp.login_networks",
        "headwater_ftp_logins_total{outcome=\"locked\"}",
    ),
    (
        "http.connections",
        "headwater_http_connections_refused_total{limit=\"total\"}",
    ),
    (
        "http.connections_per_address",
        "headwater_http_connections_refused_total{limit=\"address\"}",
    ),
    ("http.silent", CLOSED),
    ("http.tls_handshake", CLOSED),
    (
        "http.head_time",
        "headwater_http_connections_closed_total{reason=\"head\"}",
    ),
    ("http.idle", CLOSED),
    ("http.slow", CLOSED),
    (
        "http.head_size",
        "headwater_http_connections_closed_total{reason=\"protocol\"}",
    ),
    (
        "http.headers",
        "headwater_http_connections_closed_total{reason=\"protocol\"}",
    ),
    (
        "http.resets",
        "headwater_http_connections_closed_total{reason=\"flood\"}",
    ),
    (
        "http.error_resets",
        "headwater_http_connections_closed_total{reason=\"flood\"}",
    ),
    ("http.ranges", "headwater_http_ranges_ignored_total"),
    (
        "http.piece_digests",
        "headwater_http_piece_digests_given_up_total",
    ),
    (
        "http.fill_wait",
        "headwater_http_requests_total{outcome=\"unavailable\",role=\"mirror\"}",
    ),
    ("http.frames", "headwater_http_frames_reduced_total"),
    (
        "upload.max",
        "headwater_http_uploads_total{outcome=\"too_large\"}",
    ),
    (
        "upload.at_once",
        "headwater_http_uploads_total{outcome=\"busy\"}",
    ),
    ("upload.keep", "headwater_http_uploads_swept_total"),
    (
        "store.size",
        "headwater_content_write_failures_total{reason=\"full\"}",
    ),
    ("store.scrub_rate", "headwater_content_scrubbed_bytes_total"),
    ("store.objects", "headwater_content_objects_refused_total"),
    ("store.small_total", "headwater_content_small_bytes"),
    (
        "store.reads",
        "headwater_content_limit_reached_total{limit=\"reads\"}",
    ),
    (
        "store.threads",
        "headwater_content_limit_reached_total{limit=\"threads\"}",
    ),
    ("proxy_cache.size", "headwater_proxy_disk_bytes"),
    ("proxy_cache.memory", "headwater_proxy_memory_bytes"),
    ("proxy_cache.entries", "headwater_proxy_evicted_total"),
    ("proxy_cache.variants", PROXY),
    ("proxy_cache.object", PROXY),
    ("proxy_cache.requests", PROXY),
    ("proxy_cache.fill_threads", PROXY),
    ("proxy_cache.connect", PROXY),
    ("proxy_cache.head_time", PROXY),
    ("proxy_cache.silence", PROXY),
    (
        "metrics.connections",
        "headwater_control_connections_refused_total{listener=\"metrics\"}",
    ),
    (
        "admin.connections",
        "headwater_control_connections_refused_total{listener=\"admin\"}",
    ),
    (
        "link.background_share",
        "headwater_link_background_delayed_bytes_total{direction=\"transmit\"}",
    ),
    (
        "log.access_lines",
        "headwater_http_access_log_dropped_total",
    ),
    (
        "resolver.tls.handshake",
        "headwater_resolver_upstream_handshakes_total{outcome=\"timeout\"}",
    ),
    (
        "peers.nodes",
        "headwater_peers_limit_reached_total{limit=\"known\"}",
    ),
    ("peers.tracked", PEERS),
    ("peers.in_flight", "headwater_replication_chunks_in_flight"),
    ("peers.silence", PEERS),
    ("peers.candidates", PEERS),
    (
        "peers.lan_beacons",
        "headwater_peers_beacons_received_total{outcome=\"dropped\"}",
    ),
    (
        "log.buffer",
        "headwater_dns_log_dropped_total{sink=\"queries\"}",
    ),
];

/// The series of this family whose label is the key's last part.
const DNS: &str = "headwater_dns_limit_reached_total{limit=\"*\"}";
const RESOLVER: &str = "headwater_resolver_limit_hits_total{limit=\"*\"}";
const PROXY: &str = "headwater_proxy_limit_reached_total{limit=\"*\"}";
const PEERS: &str = "headwater_peers_limit_reached_total{limit=\"*\"}";
const CLOSED: &str = "headwater_http_connections_closed_total{reason=\"*\"}";
const BROKEN_TRANSFER: &str =
    "headwater_zone_transfers_total{direction=\"in\",kind=\"axfr\",outcome=\"broken\"}";

/// Keys that have none, and why.
const OTHERS: &[(&str, &[&str])] = &[
    (
        "says how much there is, not how much there may be",
        &[
            "dns.workers",
            "http.workers",
            "store.chunk",
            "ftp.passive_ports",
            "store.small_object",
            "link.default_capacity",
            "log.queries_sample",
        ],
    ),
    (
        "the next packet takes what one does not",
        &["dns.udp_segments"],
    ),
    (
        "the answer itself says that it was cut (TC)",
        &["dns.udp_payload"],
    ),
    (
        "the protocol tells the other side, which cannot go beyond it, or is refused before there is a request",
        &[
            "dns.https_streams",
            "dns.quic_streams",
            "dns.https_head",
            "http.streams",
            "http.header_list",
            "http.unsent",
        ],
    ),
    (
        "a cache, in which something makes room",
        &[
            "resolver.servers",
            "resolver.validation.ranges",
            "store.buffers",
        ],
    ),
    (
        "a time that is kept, not a bound",
        &[
            "dnssec.lifetime",
            "dnssec.refresh",
            "dnssec.dnskey_ttl",
            "dnssec.propagation",
            "dnssec.ds_ttl",
            "dnssec.ask_parent",
            "dnssec.parent_propagation",
            "resolver.local.ttl",
            "resolver.cache.min_ttl",
            "resolver.cache.max_ttl",
            "resolver.cache.negative_max_ttl",
            "resolver.cache.stale",
            "resolver.cache.stale_wait",
            "resolver.cache.stale_ttl",
            "resolver.cache.failure_ttl_min",
            "resolver.cache.failure_ttl_max",
            "resolver.cache.save",
            "store.cold",
            "store.scrub",
            "resolver.tls.idle",
            "peers.lan_interval",
            "peers.dht_interval",
            "proxy_cache.idle",
            "proxy_cache.stale_if_error",
        ],
    ),
];

#[test]
fn every_bound_among_the_keys_has_its_series() {
    let metrics = Metrics::new();
    // Made when something first logs.
    drop(metrics.dns.log_dropped("queries"));
    let text = metrics.text();
    for (key, series) in BOUNDS {
        let last = key.rsplit('.').next().unwrap_or_default();
        let series = series.replace('*', last);
        let found = text
            .lines()
            .any(|line| line.starts_with(&format!("{series} ")));
        assert!(found, "{key}: no series {series} in:\n{text}");
    }
}

#[test]
fn every_number_size_and_time_among_the_keys_is_accounted_for() {
    let base: toml::Table = load::BASE.parse().unwrap();
    let mut keys = BTreeSet::new();
    amounts("", &toml::Value::Table(base), &mut keys);
    let others = OTHERS.iter().flat_map(|(_, keys)| *keys).copied();
    let said: Vec<&str> = BOUNDS.iter().map(|(key, _)| *key).chain(others).collect();
    let accounted: BTreeSet<String> = said.iter().map(|&key| key.to_owned()).collect();
    assert_eq!(accounted.len(), said.len(), "a key stands here twice");
    let missing: Vec<_> = keys.difference(&accounted).collect();
    assert!(
        missing.is_empty(),
        "neither a bound with a series nor excused: {missing:?}"
    );
    let stale: Vec<_> = accounted.difference(&keys).collect();
    assert!(stale.is_empty(), "no such keys: {stale:?}");
}

/// The dotted paths of all numbers, sizes and times beneath `value`.
fn amounts(at: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                amounts(&path, value, found);
            }
        }
        toml::Value::Integer(_) | toml::Value::Float(_) => {
            found.insert(at.to_owned());
        }
        // An address begins with a digit, too.
        toml::Value::String(text)
            if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(':') =>
        {
            found.insert(at.to_owned());
        }
        _ => {}
    }
}
