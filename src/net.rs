//! Networks (address prefixes), and sockets bound the way every listener here wants them.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// An address prefix such as `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` bits around `address`, or `None` if it has more bits than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then(|| Self {
            address: mask(address, prefix),
            prefix,
        })
    }

    /// Whether `address` lies in this network. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix) == self.address
    }
}

/// `address` with all but its first `prefix` bits cleared.
#[must_use]
pub fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let keep = u32::MAX
                .checked_shl(32 - u32::from(prefix.min(32)))
                .unwrap_or(0);
            IpAddr::V4((u32::from(a) & keep).into())
        }
        IpAddr::V6(a) => {
            let keep = u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(a) & keep))
        }
    }
}

/// The client network that shares one allowance: /24 for IPv4, /56 for IPv6.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    mask(address, if address.is_ipv4() { 24 } else { 56 })
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || {
            format!(
                "{text:?}: expected an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32"
            )
        };
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(p) => p.parse().map_err(|_| expected())?,
            None => bits,
        };
        let network = Self::new(address, prefix).ok_or_else(expected)?;
        if network.address != address {
            return Err(format!(
                "{text:?}: bits set beyond the prefix; expected {network}"
            ));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Binds a UDP socket with `SO_REUSEPORT` and 4 MiB buffers (as far as the kernel allows), blocking.
///
/// # Errors
/// What the kernel said of `socket`, `setsockopt` or `bind`.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    bind_datagrams(address, true)
}

/// As [`bind_udp`], but nobody can bind the same address beside it.
///
/// # Errors
/// As [`bind_udp`].
pub fn bind_udp_alone(address: SocketAddr) -> io::Result<UdpSocket> {
    bind_datagrams(address, false)
}

fn bind_datagrams(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    const BUFFER: usize = 4 << 20;
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// Binds a TCP listener (non-blocking, for tokio) with `SO_REUSEADDR` and the given backlog.
///
/// # Errors
/// What the kernel said of `socket`, `setsockopt`, `bind` or `listen`.
pub fn bind_tcp(address: SocketAddr, backlog: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(i32::from(backlog))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether an HTTP/2 connection ended with `error` because the client overdid it, as with too many streams that were reset.
pub(crate) fn is_flood(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Who is counted for an address: IPv6 clients by their /64, which is what one of them is given.
#[must_use]
pub fn holder(address: IpAddr) -> IpAddr {
    if address.is_ipv6() {
        mask(address, 64)
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: &str, inside: &[&str], outside: &[&str]) {
        let network: Network = network.parse().unwrap();
        for a in inside {
            assert!(network.contains(a.parse().unwrap()), "{a} in {network}");
        }
        for a in outside {
            assert!(
                !network.contains(a.parse().unwrap()),
                "{a} not in {network}"
            );
        }
    }

    #[test]
    fn network_contains_its_addresses_only() {
        check(
            "127.0.0.0/8",
            &["127.0.0.1", "127.255.0.9", "::ffff:127.0.0.1"],
            &["128.0.0.1", "::1"],
        );
        check("::1", &["::1"], &["::2", "0.0.0.1"]);
        check("0.0.0.0/0", &["203.0.113.9"], &["2001:db8::1"]);
        check("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::1"]);
    }

    #[test]
    fn network_with_bits_beyond_the_prefix_is_refused() {
        let error = "192.0.2.1/24".parse::<Network>().unwrap_err();
        assert!(error.contains("192.0.2.0/24"), "{error}");
        assert!("192.0.2.0/33".parse::<Network>().is_err());
        assert!("lan".parse::<Network>().is_err());
    }

    #[test]
    fn client_network_is_24_or_56_bits() {
        assert_eq!(
            client_network("192.0.2.77".parse().unwrap()),
            "192.0.2.0".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            client_network("2001:db8:1:2ff::1".parse().unwrap()),
            "2001:db8:1:200::".parse::<IpAddr>().unwrap()
        );
    }
}
