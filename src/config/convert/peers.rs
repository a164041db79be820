//! `[peers]`: what nodes do among themselves.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use super::super::read::Section;
use super::content::{NODE_EXPECTED, node_url};
use super::values::{Paths, ms, secs};
use crate::metrics::peers::Way;
use crate::peer::MirrorConfig;
use crate::peer::swarm::{DhtConfig, LanConfig, SwarmConfig};

pub(super) fn settings(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    mirrors: &[MirrorConfig],
) -> (SwarmConfig, Option<PathBuf>) {
    let file = section.text("secret_file");
    let file = (!file.is_empty()).then(|| paths.resolve(section, "secret_file", &file));
    let config = SwarmConfig {
        secret: None,
        discover: section.list("discover", WAYS, |text| {
            let way = Way::ALL.into_iter().find(|way| way.label() == text);
            way.ok_or_else(|| format!("found {text:?}, expected {WAYS}"))
        }),
        known: section.list("static", NODE_EXPECTED, node_url),
        nodes: section.integer("nodes", 1..=1_000),
        tracked: section.integer("tracked", 1..=1_000_000),
        in_flight: section.integer("in_flight", 1..=1_024),
        silence: section.duration("silence", ms(100)..=secs(300)),
        candidates: section.integer("candidates", 8..=100_000),
        lan: lan(section),
        dht: dht(section),
    };
    for mirror in mirrors.iter().filter(|mirror| mirror.from.is_empty()) {
        let finds = |way: &Way| match way {
            Way::Static => !config.known.is_empty(),
            Way::Tracker => false,
            Way::Lan | Way::Dht => true,
        };
        if !mirror.keys.is_empty() && !config.discover.iter().any(finds) {
            let expected = "expected \"lan\", \"dht\", or \"static\" and its list";
            let message = format!(
                "finds no node to mirror {} from, which names none in `from`: {expected}",
                mirror.prefix
            );
            section.error("discover", message);
        }
    }
    unwise(section, &config, file.is_some(), mirrors);
    section.end();
    (config, file)
}

fn lan(section: &Section<'_, '_>) -> LanConfig {
    let groups = section.list("lan_groups", GROUP_EXPECTED, |text| {
        let group = text.parse().ok();
        let group = group.filter(|group: &SocketAddr| group.ip().is_multicast());
        let group = group.filter(|group| group.port() != 0);
        group.ok_or_else(|| format!("found {text:?}, expected {GROUP_EXPECTED}"))
    });
    if groups.len() > GROUPS {
        let found = groups.len();
        let expected = format!("expected at most {GROUPS}");
        section.error("lan_groups", format!("found {found} groups, {expected}"));
    }
    LanConfig {
        groups,
        interfaces: section.list("lan_interfaces", INTERFACE_EXPECTED, |text| {
            let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
            let good = !text.is_empty() && text.len() < 16 && !text.contains(bad) && text != "..";
            let name = (good && text != ".").then(|| text.to_owned());
            name.ok_or_else(|| format!("found {text:?}, expected {INTERFACE_EXPECTED}"))
        }),
        interval: section.duration("lan_interval", secs(1)..=secs(1_200)),
        beacons: section.integer("lan_beacons", 1..=1_000_000),
    }
}

fn dht(section: &Section<'_, '_>) -> DhtConfig {
    DhtConfig {
        bootstrap: section.list("dht_bootstrap", HOST_EXPECTED, |text| {
            let split = text.rsplit_once(':');
            let good = split.is_some_and(|(host, port)| {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                !host.is_empty()
                    && host.chars().all(plain)
                    && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            let host = good.then(|| text.to_owned());
            host.ok_or_else(|| format!("found {text:?}, expected {HOST_EXPECTED}"))
        }),
        listen: section
            .parsed("dht_listen", DHT_LISTEN_EXPECTED, |text| {
                text.parse().ok().map(Some)
            })
            .unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        serve: section.boolean("dht_serve"),
        interval: section.duration("dht_interval", secs(1)..=secs(86_400)),
    }
}

/// What will not do what its writer may expect.
fn unwise(section: &Section<'_, '_>, config: &SwarmConfig, secret: bool, mirrors: &[MirrorConfig]) {
    if secret {
        return;
    }
    if config.discover.contains(&Way::Lan) {
        section.warning(
            "discover",
            "\"lan\" without secret_file: whoever is on the network can name nodes",
        );
    }
    if config.discover.contains(&Way::Dht) {
        for mirror in mirrors.iter().filter(|mirror| mirror.keys.is_empty()) {
            let message = format!(
                "\"dht\" finds no other mirrors of {}: expected secret_file, or `key` in its [[mirror]]",
                mirror.prefix
            );
            section.warning("discover", message);
        }
    }
}

/// Multicast groups at most.
const GROUPS: usize = 8;

const WAYS: &str = "\"static\", \"tracker\", \"lan\" or \"dht\"";

const GROUP_EXPECTED: &str =
    "a multicast group and a port such as \"239.255.72.87:4857\" or \"[ff02::4857]:4857\"";

const INTERFACE_EXPECTED: &str = "the name of an interface such as \"eth0\"";

const HOST_EXPECTED: &str = "a host and a port such as \"router.bittorrent.com:6881\"";

const DHT_LISTEN_EXPECTED: &str = "an IPv4 address and a port such as \"0.0.0.0:6881\"";
