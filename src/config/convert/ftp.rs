//! `[ftp]`.

use std::net::Ipv4Addr;

use super::super::read::Section;
use super::values::{Paths, addresses, ms, secs};
use crate::ftp::Config;

pub(super) fn settings(section: &Section<'_, '_>, paths: &Paths<'_>) -> Config {
    let users = section.text("users_file");
    let passive_ports = section.parsed("passive_ports", "ports such as \"50000-50999\"", |text| {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        (first >= 1_024 && first < last).then_some((first, last))
    });
    let address = |text: &str| match text {
        "" => Some(None),
        text => text.parse::<Ipv4Addr>().ok().map(Some),
    };
    let config = Config {
        listen: addresses(section, "listen"),
        users_file: paths.resolve(section, "users_file", &users),
        tls_required: section.choice("tls", &["required", "optional"]) == "required",
        passive_ports: passive_ports.0..=passive_ports.1,
        passive_address: section.parsed("passive_address", "an IPv4 address or \"\"", address),
        sessions: section.integer("sessions", 1..=10_000),
        sessions_per_address: section.integer("sessions_per_address", 1..=10_000),
        connections_per_session: section.integer("connections_per_session", 1..=64),
        login_time: section.duration("login_time", ms(100)..=secs(3_600)),
        login_failures: section.integer("login_failures", 1..=1_000),
        login_lockout: section.duration("login_lockout", ms(100)..=secs(86_400)),
        login_networks: section.integer("login_networks", 1..=1_000_000),
        idle: section.duration("idle", secs(1)..=secs(86_400)),
        session_time: section.duration("session_time", secs(1)..=secs(7 * 86_400)),
        max: section.size("max", 1..=1 << 50),
    };
    section.end();
    config
}
