//! Zones between servers: transfers out and in (RFC 5936, RFC 1995), NOTIFY (RFC 1996).
//!
//! From ground to roof: `message` (messages read and composed whole), `history` (differences between versions),
//! `outgoing` (a zone as messages), `incoming` (messages to a zone), `refresh` (when primaries are asked), `copy` (zones
//! on disk), `catalog` (zones that list zones), `secure` (TLS to primaries), [`notifier`] (tells others of changes), [`secondary`] (asks primaries); [`Allow`] and [`Remote`] say
//! who may.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::ServerName;

pub use self::copy::file_name;
use crate::net::Network;

pub(super) mod message;

pub(super) mod history;

pub(super) mod outgoing;

pub(super) mod incoming;

pub(super) mod refresh;

pub(super) mod copy;

pub(super) mod catalog;

mod secure;

pub mod notifier;

pub mod secondary;

/// Bounds of transfers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Transfers to secondaries at once.
    pub outgoing: usize,
    /// Zones asked for at primaries at once.
    pub incoming: usize,
    /// How long asking one primary may take in all.
    pub time: Duration,
    /// How long a primary may be silent on the way.
    pub silence: Duration,
    /// Bytes a primary may send.
    pub size: u64,
    /// NOTIFY messages under way at once.
    pub notifies: usize,
    /// Authorities that vouch for primaries asked over TLS, beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    /// The documented bounds.
    fn default() -> Self {
        Self {
            outgoing: 64,
            incoming: 16,
            time: Duration::from_secs(3_600),
            silence: Duration::from_secs(10),
            size: 4 << 30,
            notifies: 64,
            ca_file: None,
        }
    }
}

/// Who may: an address of the network, with the key, over TLS; each may be left open, but not network and key both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// `None`: any address.
    pub network: Option<Network>,
    /// Name of the key; `None`: unsigned requests, too.
    pub key: Option<String>,
    /// Only where nobody on the way can read it (RFC 9103).
    pub tls: bool,
}

/// Another server, and the key that messages to it are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose certificate it must show over TLS; `None`: it is asked in the clear.
    pub tls: Option<ServerName<'static>>,
    /// Name of the key.
    pub key: Option<String>,
}

/// As it would be written, without the key.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls {
            None => write!(f, "{}", self.address),
            Some(name) => write!(f, "tls://{}#{}", self.address, name.to_str()),
        }
    }
}

impl Allow {
    /// Whether this lets `client` in, whose request is signed with `key`, and came `encrypted`.
    #[must_use]
    pub fn allows(&self, client: IpAddr, key: Option<&str>, encrypted: bool) -> bool {
        self.network.is_none_or(|network| network.contains(client))
            && self.key.as_deref().is_none_or(|wanted| key == Some(wanted))
            && (encrypted || !self.tls)
    }
}

impl FromStr for Allow {
    type Err = String;

    /// `192.0.2.0/24`, `key:NAME`, or both, and `tls` behind them if only over TLS.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (who, tls) = match text.trim_end().strip_suffix(" tls") {
            Some(who) => (who, true),
            None => (text, false),
        };
        let (network, key) = with_key(who)?;
        let network = network.map(Network::from_str).transpose()?;
        if network.is_none() && key.is_none() {
            return Err(format!("{text:?}: expected {ALLOW_EXPECTED}"));
        }
        Ok(Self { network, key, tls })
    }
}

impl FromStr for Remote {
    type Err = String;

    /// `192.0.2.5:53` or `192.0.2.5`, or over TLS `tls://192.0.2.5:853#NAME`, and `key:NAME` behind it if messages are to be signed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, key) = with_key(text)?;
        let expected = || format!("{text:?}: expected {REMOTE_EXPECTED}");
        let place = place.ok_or_else(expected)?;
        let (place, name, port) = match place.strip_prefix("tls://") {
            None => (place, None, 53),
            Some(rest) => match rest.split_once('#') {
                Some((place, name)) => (place, Some(name), 853),
                None => (rest, Some(""), 853),
            },
        };
        let address = match place.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => place.parse().map_err(|_| expected())?,
        };
        let tls = match name {
            None => None,
            // Without a name the certificate is for the address.
            Some("") => Some(ServerName::from(address.ip())),
            Some(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                Some(ServerName::try_from(name).map_err(|_| expected())?)
            }
        };
        Ok(Self { address, tls, key })
    }
}

/// The first word of a text that may end in `key:NAME`, and that name in lower case with a final dot.
fn with_key(text: &str) -> Result<(Option<&str>, Option<String>), String> {
    let (mut first, mut key) = (None, None);
    for word in text.split_whitespace() {
        match word.strip_prefix("key:") {
            Some(name) if key.is_none() && !name.is_empty() => {
                let mut name = name.to_ascii_lowercase();
                if !name.ends_with('.') {
                    name.push('.');
                }
                key = Some(name);
            }
            None if first.is_none() && key.is_none() => first = Some(word),
            _ => return Err(format!("{text:?}: expected one word and key:NAME at most")),
        }
    }
    Ok((first, key))
}

/// What an element of `allow_transfer` is.
pub const ALLOW_EXPECTED: &str = "a network such as \"192.0.2.0/24\", \"key:NAME\", or both, and \"tls\" behind them if only over TLS";

/// What an element of `notify` and `primaries` is.
pub const REMOTE_EXPECTED: &str = "an address such as \"192.0.2.5\", \"192.0.2.5:53 key:NAME\" or (of a primary) \"tls://192.0.2.5#dns.example\"";

/// Differences kept of a zone that has no `journal` of its own configured, bytes.
pub const JOURNAL: u64 = 4 << 20;

/// Updates that may wait for a zone that has no `updates_waiting` of its own configured.
pub const UPDATES_WAITING: usize = 1_000;

/// Waits between the tries of a NOTIFY.
pub const NOTIFY_WAITS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_needs_all_it_names() {
        let over = |text: &str, client: &str, key: Option<&str>, tls: bool, expected: bool| {
            let allow: Allow = text.parse().expect(text);
            let client = client.parse().expect("an address");
            assert_eq!(
                allow.allows(client, key, tls),
                expected,
                "{text} {client} {key:?} {tls}"
            );
        };
        let check = |text: &str, client: &str, key: Option<&str>, expected: bool| {
            over(text, client, key, false, expected);
        };
        for tls in [true, false] {
            over("192.0.2.0/24 tls", "192.0.2.9", None, tls, tls);
            over("192.0.2.0/24 tls", "192.0.3.9", None, tls, false);
            over("key:k tls", "192.0.2.9", Some("k."), tls, tls);
            over("192.0.2.0/24 key:k tls", "192.0.2.9", None, tls, false);
        }
        check("192.0.2.0/24", "192.0.2.9", None, true);
        check("192.0.2.0/24", "192.0.3.9", Some("k."), false);
        check("key:K", "2001:db8::1", Some("k."), true);
        check("key:K", "2001:db8::1", None, false);
        check("192.0.2.0/24 key:k.", "192.0.2.9", Some("k."), true);
        check("192.0.2.0/24 key:k.", "192.0.2.9", Some("x."), false);
        check("192.0.2.0/24 key:k.", "192.0.3.9", Some("k."), false);
        for bad in [
            "",
            "key:",
            "x",
            "192.0.2.1 192.0.2.2",
            "key:a key:b",
            "tls",
            " tls",
            "192.0.2.1 tls tls",
        ] {
            assert!(bad.parse::<Allow>().is_err(), "{bad}");
        }
    }

    #[test]
    fn remote_has_port_53_unless_it_says_another() {
        let check = |text: &str, address: &str, key: Option<&str>| {
            let remote: Remote = text.parse().expect(text);
            assert_eq!(remote.address.to_string(), address);
            assert_eq!(remote.key.as_deref(), key);
        };
        check("192.0.2.5", "192.0.2.5:53", None);
        check(
            "[2001:db8::1]:5353 key:Tx",
            "[2001:db8::1]:5353",
            Some("tx."),
        );
        check("2001:db8::1", "[2001:db8::1]:53", None);
        let over_tls = |text: &str, shown: &str, key: Option<&str>| {
            let remote: Remote = text.parse().expect(text);
            assert_eq!((&*remote.to_string(), remote.key.as_deref()), (shown, key));
        };
        over_tls(
            "tls://192.0.2.5#DNS.example. key:k",
            "tls://192.0.2.5:853#dns.example",
            Some("k."),
        );
        over_tls(
            "tls://[2001:db8::1]:8853",
            "tls://[2001:db8::1]:8853#2001:db8::1",
            None,
        );
        for bad in [
            "",
            "host",
            "192.0.2.5:99999",
            "key:a",
            "tls://",
            "tls://host#a",
            "tls://192.0.2.5#a_b/",
            "192.0.2.5#a",
        ] {
            assert!(bad.parse::<Remote>().is_err(), "{bad}");
        }
    }
}
