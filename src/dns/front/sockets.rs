//! The sockets of each address: taken over from systemd where it has one, else bound here.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use anyhow::Context as _;
use socket2::SockRef;

use crate::dns::{Config, Transport};
use crate::net::{bind_tcp, bind_udp, bind_udp_alone};

/// Sockets handed over by systemd, to be used in place of binding the same addresses.
#[derive(Debug, Default)]
pub struct Inherited {
    /// UDP sockets.
    pub udp: Vec<UdpSocket>,
    /// TCP listeners.
    pub tcp: Vec<TcpListener>,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Bound {
    /// With the port in use.
    pub(super) address: SocketAddr,
    /// One per worker.
    pub(super) udp: Vec<UdpSocket>,
    tcp: Option<TcpListener>,
}

/// The sockets of the encrypted listeners.
#[derive(Debug, Default)]
pub(super) struct Encrypted {
    pub(super) tls: Vec<TcpListener>,
    pub(super) https: Vec<TcpListener>,
    pub(super) quic: Vec<UdpSocket>,
}

impl Bound {
    /// The TCP listener, on the runtime this is called on. Once.
    pub(super) fn take_tcp(&mut self) -> Result<tokio::net::TcpListener, anyhow::Error> {
        let taken = self.tcp.take().ok_or(io::ErrorKind::NotConnected);
        taken
            .map_err(io::Error::from)
            .and_then(tokio::net::TcpListener::from_std)
            .with_context(|| format!("dns: TCP listener of {}", self.address))
    }
}

impl Encrypted {
    /// Where they listen, as far as the kernel says.
    pub(super) fn addresses(&self) -> Vec<(Transport, SocketAddr)> {
        let of = |transport, address: io::Result<SocketAddr>| Some((transport, address.ok()?));
        let tls = self.tls.iter().map(|l| of(Transport::Tls, l.local_addr()));
        let https = self.https.iter();
        let https = https.map(|l| of(Transport::Https, l.local_addr()));
        let quic = self
            .quic
            .iter()
            .map(|s| of(Transport::Quic, s.local_addr()));
        tls.chain(https).chain(quic).flatten().collect()
    }
}

/// Binds every address of the encrypted listeners.
pub(super) fn bind_encrypted(config: &Config) -> Result<Encrypted, anyhow::Error> {
    let listen = |addresses: &[SocketAddr], what: &str| {
        let bind =
            |&address| bind_tcp(address, BACKLOG).with_context(|| format!("{what} {address}"));
        addresses.iter().map(bind).collect::<Result<Vec<_>, _>>()
    };
    let quic = config.quic_listen.iter().map(|&address| {
        bind_udp_alone(address).with_context(|| format!("dns.quic_listen {address}"))
    });
    Ok(Encrypted {
        tls: listen(&config.tls_listen, "dns.tls_listen")?,
        https: listen(&config.https_listen, "dns.https_listen")?,
        quic: quic.collect::<Result<_, _>>()?,
    })
}

/// Binds every address of `config.listen`.
pub(super) fn bind(config: &Config, mut inherited: Inherited) -> Result<Vec<Bound>, anyhow::Error> {
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let bound = config
        .listen
        .iter()
        .map(|&address| bind_address(address, workers, &mut inherited))
        .collect::<Result<Vec<_>, _>>()?;
    let unused = inherited
        .udp
        .iter()
        .map(UdpSocket::local_addr)
        .chain(inherited.tcp.iter().map(TcpListener::local_addr));
    for address in unused.flatten() {
        tracing::warn!(%address, "inherited DNS socket is of no address in dns.listen; it is closed");
    }
    Ok(bound)
}

fn bind_address(
    address: SocketAddr,
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Bound, anyhow::Error> {
    let mut attempts = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        attempts -= 1;
        // TCP first: it refuses a port that another process serves, where UDP (SO_REUSEPORT) would share it.
        let tcp = match take(&mut inherited.tcp, address, TcpListener::local_addr) {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                listener
            }
            None => bind_tcp(address, BACKLOG).with_context(|| format!("dns: TCP {address}"))?,
        };
        let address = tcp.local_addr()?;
        match bind_workers(address, workers, inherited) {
            Ok(udp) => {
                let tcp = Some(tcp);
                return Ok(Bound { address, udp, tcp });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(error).with_context(|| format!("dns: UDP {address}")),
        }
    }
}

fn bind_workers(
    address: SocketAddr,
    workers: usize,
    inherited: &mut Inherited,
) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::with_capacity(workers);
    while let Some(socket) = take(&mut inherited.udp, address, UdpSocket::local_addr) {
        // So that more can be bound beside it. As good as it goes: below they share it otherwise.
        let _ = SockRef::from(&socket).set_reuse_port(true);
        sockets.push(socket);
    }
    let taken_over = sockets.len();
    while sockets.len() < workers {
        match bind_udp(address) {
            Ok(socket) => sockets.push(socket),
            // Another user (systemd) bound it: the kernel lets nobody beside it, so the workers share it.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && taken_over > 0 => {
                sockets.push(sockets[sockets.len() % taken_over].try_clone()?);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Takes the first socket of `address` out of `sockets`.
fn take<S>(
    sockets: &mut Vec<S>,
    address: SocketAddr,
    local: impl Fn(&S) -> io::Result<SocketAddr>,
) -> Option<S> {
    let index = sockets
        .iter()
        .position(|s| local(s).is_ok_and(|a| a == address))?;
    Some(sockets.swap_remove(index))
}

/// Connections the kernel keeps until they are accepted.
const BACKLOG: u16 = 1024;

/// Free TCP ports tried until UDP is free, too.
const FREE_PORTS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn port_zero_gives_udp_and_tcp_one_port() {
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            workers: 3,
            ..super::super::tests::config()
        };
        let bound = bind(&config, Inherited::default()).unwrap();
        let [bound] = &bound[..] else {
            panic!("one address")
        };
        assert_ne!(bound.address.port(), 0);
        let tcp = bound.tcp.as_ref().unwrap();
        assert_eq!(tcp.local_addr().unwrap(), bound.address);
        assert_eq!(bound.udp.len(), 3);
        for socket in &bound.udp {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
    }

    /// Sockets of an address are taken over; the third worker binds or shares, as the kernel lets it.
    #[track_caller]
    fn check_inherited(bind_inherited: fn(SocketAddr) -> io::Result<UdpSocket>) {
        let (tcp, udp) = (0..FREE_PORTS)
            .find_map(|_| {
                let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
                let udp = bind_inherited(tcp.local_addr().unwrap()).ok()?;
                Some((tcp, udp))
            })
            .expect("a port free in both");
        let address = udp.local_addr().unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = Config {
            listen: vec![address],
            workers: 2,
            ..super::super::tests::config()
        };
        let inherited = Inherited {
            udp: vec![other, udp],
            tcp: vec![tcp],
        };
        let bound = bind(&config, inherited).unwrap();
        assert_eq!(bound[0].udp.len(), 2);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", address).unwrap();
        let got = bound[0].udp.iter().any(|socket| {
            socket
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            socket.recv(&mut [0; 4]).is_ok()
        });
        assert!(got, "one of the workers' sockets has the packet");
    }

    #[test]
    fn inherited_sockets_are_taken_over() {
        check_inherited(bind_udp);
        check_inherited(UdpSocket::bind::<SocketAddr>);
    }

    #[test]
    fn address_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = Config {
            listen: vec![address],
            ..super::super::tests::config()
        };
        let error = bind(&config, Inherited::default()).unwrap_err();
        assert!(
            format!("{error:#}").contains(&address.to_string()),
            "{error:#}"
        );
    }
}
