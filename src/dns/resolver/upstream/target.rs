//! An upstream as it is written: where it is, and over what it is asked. Pure.
//!
//! `192.0.2.53`, `192.0.2.53:5353`: in the clear. `tls://192.0.2.53#dns.example`: over TLS (RFC 7858), by a certificate for
//! that name; without a name, for the address. `https://dns.example/dns-query@192.0.2.53`: over HTTPS (RFC 8484). Every
//! form takes a port; IPv6 with a port stands in brackets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;
use rustls::pki_types::ServerName;

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub(super) address: SocketAddr,
    pub(super) way: Way,
}

/// What an upstream is asked over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// UDP, and TCP where a datagram does not do.
    Clear,
    /// TLS; whose certificate it must show.
    Tls(ServerName<'static>),
    /// HTTPS; likewise, and what is posted to.
    Https(ServerName<'static>, Uri),
}

impl Target {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether questions to it can be read on the way.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.way == Way::Clear
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            way: Way::Clear,
        }
    }
}

impl FromStr for Target {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if let Some(rest) = text.strip_prefix("tls://") {
            tls(rest).ok_or(Unreadable(TLS_EXPECTED))
        } else if let Some(rest) = text.strip_prefix("https://") {
            https(rest).ok_or(Unreadable(HTTPS_EXPECTED))
        } else {
            address(text, 53)
                .map(Self::from)
                .ok_or(Unreadable(EXPECTED))
        }
    }
}

/// As it would be written, with the port.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match &self.way {
            Way::Clear => write!(f, "{address}"),
            Way::Tls(name) => write!(f, "tls://{address}#{}", name.to_str()),
            Way::Https(_, uri) => write!(f, "{uri}@{address}"),
        }
    }
}

/// No upstream can be read from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Unreadable(pub &'static str);

/// `ADDRESS[#NAME]`
fn tls(text: &str) -> Option<Target> {
    let (place, name) = match text.split_once('#') {
        Some((place, name)) => (place, Some(name)),
        None => (text, None),
    };
    let address = address(place, 853)?;
    let name = match name {
        Some(name) => server_name(name)?,
        None => ServerName::from(address.ip()),
    };
    Some(Target {
        address,
        way: Way::Tls(name),
    })
}

/// `NAME[:PORT]/PATH@ADDRESS`, or `ADDRESS/PATH`.
fn https(text: &str) -> Option<Target> {
    let (url, place) = match text.rsplit_once('@') {
        Some((url, place)) => (url, Some(place)),
        None => (text, None),
    };
    let (authority, _) = url.split_once('/')?;
    // A name and a password, a template or a fragment is more than a path.
    if url.contains(['@', '{', '}', '#']) {
        return None;
    }
    let authority = Authority::from_str(authority).ok()?;
    let uri = Uri::from_str(&format!("https://{url}")).ok()?;
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let name = server_name(bare.unwrap_or(host))?;
    let port = match authority.port() {
        Some(port) => port.as_str().parse().ok().filter(|port| *port != 0)?,
        None => 443,
    };
    let address = match (place, &name) {
        (Some(place), _) => address(place, port)?,
        (None, ServerName::IpAddress(ip)) => usable(SocketAddr::new((*ip).into(), port))?,
        (None, _) => return None,
    };
    Some(Target {
        address,
        way: Way::Https(name, uri),
    })
}

/// A name or an address that a certificate may be for.
fn server_name(text: &str) -> Option<ServerName<'static>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    ServerName::try_from(text.to_ascii_lowercase()).ok()
}

/// An address, with `port` unless it has one.
pub(super) fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let address = text.parse().ok().or_else(|| {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
        Some(SocketAddr::new(address, port))
    })?;
    usable(address)
}

fn usable(address: SocketAddr) -> Option<SocketAddr> {
    (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
}

const EXPECTED: &str = "an address with or without a port such as \"192.0.2.53\" or \"[2001:db8::1]:53\", \
     \"tls://192.0.2.53#dns.example\" or \"https://dns.example/dns-query@192.0.2.53\"";
const TLS_EXPECTED: &str = "\"tls://\", an address with or without a port, and the name in its certificate, such as \
     \"tls://192.0.2.53#dns.example\" or \"tls://[2001:db8::1]:853#dns.example\"";
const HTTPS_EXPECTED: &str = "a URL with a path, \"@\" and an address, with or without a port, such as \
     \"https://dns.example/dns-query@192.0.2.53\"";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let target: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(target.to_string(), expected, "{text}");
        assert_eq!(expected.parse(), Ok(target), "read again");
    }

    #[track_caller]
    fn check_bad(text: &str, expected: &'static str) {
        assert_eq!(text.parse::<Target>(), Err(Unreadable(expected)), "{text}");
    }

    #[test]
    fn address_without_a_port_has_the_port_of_its_transport() {
        check("192.0.2.53", "192.0.2.53:53");
        check("192.0.2.53:5353", "192.0.2.53:5353");
        check("2001:db8::1", "[2001:db8::1]:53");
        check("[2001:db8::1]", "[2001:db8::1]:53");
        check("[2001:db8::1]:5353", "[2001:db8::1]:5353");
        let tls = "tls://192.0.2.53:853#dns.example";
        check("tls://192.0.2.53#dns.example", tls);
        check("tls://192.0.2.53#DNS.example.", tls);
        let other = "tls://[2001:db8::1]:8853#dns.example";
        check("tls://[2001:db8::1]:8853#dns.example", other);
        let https = "https://dns.example/dns-query@192.0.2.53:443";
        check("https://dns.example/dns-query@192.0.2.53", https);
        let both = "https://dns.example/q@[2001:db8::1]:8443";
        check("https://dns.example/q@[2001:db8::1]:8443", both);
    }

    #[test]
    fn port_of_a_url_is_that_of_the_address_unless_it_has_its_own() {
        let one = "https://dns.example:8443/q@192.0.2.53:8443";
        check("https://dns.example:8443/q@192.0.2.53", one);
        let two = "https://dns.example:8443/q@192.0.2.53:9443";
        check("https://dns.example:8443/q@192.0.2.53:9443", two);
    }

    #[test]
    fn address_may_stand_for_the_name() {
        check("tls://192.0.2.53", "tls://192.0.2.53:853#192.0.2.53");
        let v6 = "tls://[2001:db8::1]:853#2001:db8::1";
        check("tls://2001:db8::1", v6);
        let https = "https://192.0.2.53/dns-query@192.0.2.53:443";
        check("https://192.0.2.53/dns-query", https);
        let https = "https://[2001:db8::1]:8443/q@[2001:db8::1]:8443";
        check("https://[2001:db8::1]:8443/q", https);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_the_form_expected() {
        for bad in [
            "dns.example",
            "0.0.0.0",
            "192.0.2.1:0",
            "",
            "udp://192.0.2.1",
        ] {
            check_bad(bad, EXPECTED);
        }
        for bad in [
            "tls://dns.example",
            "tls://192.0.2.53#",
            "tls://192.0.2.53#a b",
            "tls://0.0.0.0#dns.example",
            "tls://192.0.2.53:0#dns.example",
        ] {
            check_bad(bad, TLS_EXPECTED);
        }
        for bad in [
            "https://dns.example/dns-query",
            "https://dns.example@192.0.2.53",
            "https://dns.example/dns-query@dns.example",
            "https://dns.example/dns-query{?dns}@192.0.2.53",
            "https://me:secret@dns.example/dns-query@192.0.2.53",
            "https://dns.example:0/dns-query@192.0.2.53",
            "https:///dns-query@192.0.2.53",
        ] {
            check_bad(bad, HTTPS_EXPECTED);
        }
    }

    proptest! {
        /// Whatever is written, reading it does not panic; and what is shown of a target is that target.
        #[test]
        fn shown_target_is_read_as_itself(text in "(tls://|https://)?[0-9a-z.:@/#\\[\\]]{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse(), Ok(target));
            }
        }
    }
}
