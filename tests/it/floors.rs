//! The house keeps its floors: arrows between topics go one way, and ground files stay pure.

use std::fs;
use std::path::{Path, PathBuf};

/// Topics and the topics their files may name besides their own.
const MAY_USE: &[(&str, &[&str])] = &[
    ("content", &["metrics", "time", "net"]),
    ("dns", &["metrics", "time", "net", "tls"]),
    ("link", &["metrics", "time"]),
    ("peer", &["content", "link", "metrics", "time", "net"]),
    (
        "http",
        &["content", "peer", "link", "metrics", "time", "net", "tls"],
    ),
    ("ftp", &["content", "link", "metrics", "time", "net", "tls"]),
    ("metrics", &["dns"]),
];

/// Files (or folders) that are functions of their arguments.
const GROUND: &[&str] = &[
    "dns/wire.rs",
    "dns/wire/ede.rs",
    "dns/wire/edns.rs",
    "dns/answer.rs",
    "dns/tsig.rs",
    "dns/transfer/message.rs",
    "dns/transfer/history.rs",
    "dns/transfer/outgoing.rs",
    "dns/transfer/incoming.rs",
    "dns/transfer/refresh.rs",
    "dns/transfer/copy.rs",
    "dns/transfer/catalog.rs",
    "dns/zone/overlay.rs",
    "dns/zone/records.rs",
    "dns/update/apply.rs",
    "dns/update/command.rs",
    "dns/update/journal.rs",
    "dns/resolver/form.rs",
    "dns/resolver/upstream/target.rs",
    "dns/resolver/upstream/query.rs",
    "dns/resolver/upstream/health.rs",
    "dns/resolver/recurse/dname.rs",
    "dns/resolver/recurse/records.rs",
    "dns/resolver/recurse/hints.rs",
    "dns/resolver/recurse/response.rs",
    "dns/resolver/recurse/judge.rs",
    "dns/resolver/recurse/iterate.rs",
    "dns/resolver/recurse/pool.rs",
    "dns/resolver/recurse/walk.rs",
    "dns/resolver/recurse/answer.rs",
    "dns/resolver/validate/crypto.rs",
    "dns/resolver/validate/anchor.rs",
    "dns/resolver/validate/signature.rs",
    "dns/resolver/validate/denial.rs",
    "dns/resolver/validate/ranges.rs",
    "dns/resolver/validate/chain.rs",
    "dns/answer/proof.rs",
    "dns/zone/denial.rs",
    "dns/dnssec/canonical.rs",
    "dns/dnssec/chain.rs",
    "dns/dnssec/roll.rs",
    "dns/dnssec/parent.rs",
    "dns/dnssec/rrset.rs",
    "dns/dnssec/online.rs",
    "dns/dnssec/sign.rs",
    "dns/zone/signed.rs",
    "dns/zone/tree.rs",
    "dns/zone/entry.rs",
    "dns/zone/generate.rs",
    "dns/zone/layout.rs",
    "dns/zone/layout/apl.rs",
    "dns/zone/layout/loc.rs",
    "dns/zone/rdata.rs",
    "dns/zone/name.rs",
    "dns/zone/path.rs",
    "dns/zone/table.rs",
    "dns/chaos.rs",
    "dns/cookie.rs",
    "dns/rrl.rs",
    "dns/log/record.rs",
    "dns/log/json.rs",
    "dns/log/dnstap.rs",
    "dns/resolver/policy/suffixes.rs",
    "dns/resolver/policy/addresses.rs",
    "dns/resolver/policy/rules.rs",
    "dns/resolver/policy/special.rs",
    "dns/resolver/policy/lists.rs",
    "dns/resolver/policy/rpz.rs",
    "dns/resolver/policy/answer.rs",
    "dns/resolver/policy/alias.rs",
    "dns/resolver/policy/screen.rs",
    "dns/doh.rs",
    "content/chunk.rs",
    "content/sign.rs",
    "content/name.rs",
    "content/manifest.rs",
    "content/catalogue.rs",
    "content/bucket/listing.rs",
    "content/bucket/digests.rs",
    "content/have.rs",
    "content/evict.rs",
    "http/range.rs",
    "http/fresh.rs",
    "http/route.rs",
    "http/rules.rs",
    "http/faces.rs",
    "http/message.rs",
    "http/digest.rs",
    "http/listing.rs",
    "http/screen.rs",
    "http/plain.rs",
    "http/proxy/dictionary.rs",
    "http/proxy/control.rs",
    "http/proxy/date.rs",
    "http/proxy/freshness.rs",
    "http/proxy/storable.rs",
    "http/proxy/vary.rs",
    "http/proxy/fields.rs",
    "http/proxy/condition.rs",
    "http/proxy/told.rs",
    "http/proxy/span.rs",
    "link/budget.rs",
    "peer/exchange.rs",
    "peer/claims.rs",
    "peer/window.rs",
    "peer/beacon.rs",
    "ftp/path.rs",
    "ftp/guard.rs",
    "peer/message.rs",
    "peer/filter.rs",
    "peer/schedule.rs",
];

/// What a ground file never names.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "Now::read",
    "Instant::now",
    "SystemTime::now",
    "crate::metrics",
    "rand::",
];

#[test]
fn topics_use_only_the_topics_beneath_them() {
    let mut seen = 0;
    for (topic, allowed) in MAY_USE {
        for file in sources(&source().join(topic)) {
            let text = code(&file);
            for (_, rest) in text
                .match_indices("crate::")
                .map(|(at, m)| (at, &text[at + m.len()..]))
            {
                let used: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                seen += 1;
                assert!(
                    used == *topic || allowed.contains(&used.as_str()),
                    "{} names crate::{used}; {topic} may use {allowed:?}",
                    file.display()
                );
            }
        }
    }
    assert!(
        seen > 50,
        "only {seen} arrows were read: the test looks in the wrong place"
    );
}

#[test]
fn ground_files_touch_no_clock_socket_file_or_metric() {
    for name in GROUND {
        let text = code(&source().join(name));
        for word in IMPURE {
            assert!(!text.contains(word), "{name} is ground and names {word}");
        }
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All `.rs` files beneath `dir`.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a source folder") {
        let path = entry.expect("a readable source folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file: without comments and without its unit tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}
