//! Announcements on the local networks: a beacon to a multicast group on every interface, with one hop to go.
//!
//! At the start a node asks who else is there, three times within three seconds, since datagrams get lost; then it says every
//! `interval` that it is here, and soon after a node was heard for the first time. At the end it says goodbye. Interfaces
//! are looked at each time: those that come are taken up, those that went are let go.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::interface::Interface;
use super::super::beacon::{Beacon, Kind, SIZE};
use super::super::heard::{self, Heard, News};
use super::super::secret::Secret;
use super::super::swarm::Swarm;
use super::vet::{Find, Finds};
use super::{Here, dice, jittered};
use crate::metrics::peers::{Heard as Outcome, Way};
use crate::time::Now;

mod interface;

/// Announces this node and hears others until `stop`.
pub(super) async fn run(here: Here, swarm: Arc<Swarm>, finds: Finds, stop: CancellationToken) {
    let config = &swarm.config().lan;
    let secret = swarm.config().secret.clone();
    let mut heard = Heard::new(
        secret.clone(),
        swarm.run(),
        swarm.config().nodes,
        config.beacons,
    );
    let mut voice = Voice {
        secret: secret.unwrap_or_else(heard::open),
        here,
        number: 0,
        life: u16::try_from(config.interval.as_secs() * 3).unwrap_or(u16::MAX),
    };
    let (queue, mut datagrams) = mpsc::channel(QUEUE);
    let mut links = Links {
        open: Vec::new(),
        failed: BTreeSet::new(),
        queue,
    };
    let mut rhythm = Rhythm::new(config.interval, swarm.run(), Now::read());
    loop {
        let now = Now::read();
        if now >= rhythm.due {
            links.look(&swarm).await;
            voice.say(rhythm.kind(), &links, &swarm).await;
            rhythm.spoke(now);
        }
        tokio::select! {
            () = stop.cancelled() => {
                voice.say(Kind::Leaving, &links, &swarm).await;
                return;
            }
            Some((bytes, from)) = datagrams.recv() => {
                let now = Now::read();
                match heard.take(&bytes, from, now) {
                    Ok(News::Here { node, addresses, life, soon }) => {
                        swarm.metrics().heard(Outcome::Taken);
                        tracing::debug!(node, %from, ?addresses, "node heard");
                        let found = addresses.into_iter().map(|a| Find::Found(a, Way::Lan, life));
                        found.for_each(|find| finds.say(find));
                        if soon {
                            rhythm.hurry(now);
                        }
                    }
                    Ok(News::Left(addresses)) => {
                        swarm.metrics().heard(Outcome::Taken);
                        let left = addresses.into_iter().map(|a| Find::Left(a, Way::Lan));
                        left.for_each(|find| finds.say(find));
                    }
                    Err(outcome) => swarm.metrics().heard(outcome),
                }
            }
            () = tokio::time::sleep(rhythm.due.since(now)) => {}
        }
    }
}

/// What this node says.
struct Voice {
    secret: Secret,
    here: Here,
    number: u64,
    life: u16,
}

impl Voice {
    async fn say(&mut self, kind: Kind, links: &Links, swarm: &Swarm) {
        for link in &links.open {
            let addresses = addresses(&self.here.http, link);
            if addresses.is_empty() {
                continue;
            }
            let beacon = Beacon {
                kind,
                run: swarm.run(),
                number: self.number,
                unix_ms: Now::read().unix_ms,
                life: self.life,
                node: self.here.node.clone(),
                addresses,
            };
            self.number += 1;
            let bytes = beacon.seal(&self.secret);
            match link.socket.send_to(&bytes, link.group).await {
                Ok(_) => swarm.metrics().beacons_sent.inc(),
                Err(error) => {
                    swarm.metrics().beacons_failed.inc();
                    tracing::debug!(%error, interface = link.interface.name, "not announced");
                }
            }
        }
    }
}

/// When this node speaks.
#[derive(Debug)]
struct Rhythm {
    interval: Duration,
    run: u64,
    spoken: u64,
    last: Now,
    due: Now,
}

impl Rhythm {
    fn new(interval: Duration, run: u64, now: Now) -> Self {
        Self {
            interval,
            run,
            spoken: 0,
            last: now,
            due: now,
        }
    }

    fn kind(&self) -> Kind {
        if self.spoken < 3 {
            Kind::Asking
        } else {
            Kind::Here
        }
    }

    fn spoke(&mut self, now: Now) {
        self.spoken += 1;
        self.last = now;
        let pause = match self.spoken {
            early @ 1..=2 => LEAST * u32::try_from(early).unwrap_or(1),
            later => jittered(self.interval, self.run, later),
        };
        self.due = now.plus(pause);
    }

    /// Somebody wants to hear of this node: soon, not at once with all others, and at most once a second.
    fn hurry(&mut self, now: Now) {
        let wait = 20 + dice(self.run, self.spoken) % 200;
        let soon = now.plus(Duration::from_millis(wait));
        self.due = self.due.min(soon.max(self.last.plus(LEAST)));
    }
}

/// The sockets, one for each group and interface.
struct Links {
    open: Vec<Link>,
    /// Where there could be none, so that it is said once.
    failed: BTreeSet<(String, SocketAddr)>,
    queue: mpsc::Sender<(Vec<u8>, IpAddr)>,
}

struct Link {
    interface: Interface,
    group: SocketAddr,
    socket: Arc<UdpSocket>,
    reader: AbortOnDropHandle<()>,
}

impl Links {
    /// Goes by the interfaces that are there now.
    async fn look(&mut self, swarm: &Swarm) {
        let config = &swarm.config().lan;
        let names = config.interfaces.clone();
        let found = tokio::task::spawn_blocking(move || interface::list(&names)).await;
        let interfaces = found.unwrap_or_default();
        self.open
            .retain(|link| interfaces.contains(&link.interface) && !link.reader.is_finished());
        for interface in interfaces {
            for &group in &config.groups {
                let is = |link: &Link| link.interface == interface && link.group == group;
                if self.open.iter().any(is) {
                    continue;
                }
                let place = (interface.name.clone(), group);
                match open(&interface, group) {
                    Ok(socket) => {
                        self.failed.remove(&place);
                        let socket = Arc::new(socket);
                        let reader = listen(socket.clone(), self.queue.clone());
                        self.open.push(Link {
                            interface: interface.clone(),
                            group,
                            socket,
                            reader: AbortOnDropHandle::new(tokio::spawn(reader)),
                        });
                    }
                    Err(error) => {
                        if self.failed.insert(place) {
                            let interface = &interface.name;
                            tracing::warn!(interface, %group, %error, "nodes are not heard there");
                        }
                    }
                }
            }
        }
        let sockets = i64::try_from(self.open.len()).unwrap_or(i64::MAX);
        swarm.metrics().beacon_sockets.set(sockets);
    }
}

/// A socket that takes what is sent to `group` on this interface, and sends there, one hop far.
fn open(interface: &Interface, group: SocketAddr) -> io::Result<UdpSocket> {
    let (domain, udp) = (Domain::for_address(group), Some(Protocol::UDP));
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), udp)?;
    socket.set_reuse_address(true)?; // Several nodes of one machine hear the same.
    socket.bind_device(Some(interface.name.as_bytes()))?;
    match group {
        SocketAddr::V4(group) => {
            socket.bind(&group.into())?;
            socket.set_multicast_all_v4(false)?;
            let index = InterfaceIndexOrAddress::Index(interface.index);
            socket.join_multicast_v4_n(group.ip(), &index)?;
            socket.set_multicast_ttl_v4(1)?;
            if interface.loopback {
                // Nothing else says what such a datagram comes from.
                socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
            }
        }
        SocketAddr::V6(group) => {
            socket.set_only_v6(true)?;
            let (ip, index) = (*group.ip(), interface.index);
            socket.bind(&SocketAddrV6::new(ip, group.port(), 0, index).into())?;
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&ip, index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(1)?;
        }
    }
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Passes on what comes; ends with the socket's first error, after which it is opened anew.
async fn listen(socket: Arc<UdpSocket>, queue: mpsc::Sender<(Vec<u8>, IpAddr)>) {
    let mut buffer = [0; SIZE + 1];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let datagram = (buffer[..len].to_vec(), from.ip());
        if queue.send(datagram).await.is_err() {
            return;
        }
    }
}

/// What is said on a link of where this node serves HTTP: what is bound there, and for all of its addresses those of the
/// link, which over IPv4 are known by where the datagram comes from.
fn addresses(http: &[SocketAddr], link: &Link) -> Vec<SocketAddr> {
    reachable(http, &link.interface, link.group.is_ipv4())
}

fn reachable(http: &[SocketAddr], interface: &Interface, ipv4: bool) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in http {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => {
                if ipv4 {
                    found.push(*address);
                }
            }
            IpAddr::V6(ip) if ip.is_unspecified() => {
                let of_link = interface.global.iter().filter(|_| !ipv4);
                found.extend(of_link.map(|ip| SocketAddr::new((*ip).into(), address.port())));
            }
            ip if ip.is_loopback() && !interface.loopback => {}
            _ => found.push(*address),
        }
    }
    found
}

/// Nobody is answered more often.
const LEAST: Duration = Duration::from_secs(1);

/// Datagrams that wait to be looked at; the kernel keeps or drops the others.
const QUEUE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    #[test]
    fn node_asks_thrice_then_says_at_its_interval_that_it_is_here() {
        let interval = Duration::from_secs(40);
        let mut rhythm = Rhythm::new(interval, 7, START);
        let mut said = Vec::new();
        for _ in 0..5 {
            let now = rhythm.due;
            said.push((now.mono_secs(), rhythm.kind()));
            rhythm.spoke(now);
        }
        assert_eq!(
            said[..3],
            [(0, Kind::Asking), (1, Kind::Asking), (3, Kind::Asking)]
        );
        assert!((33..=53).contains(&said[3].0), "{said:?}");
        assert_eq!(said[4].1, Kind::Here);
    }

    #[test]
    fn newcomers_are_answered_soon_and_at_most_once_a_second() {
        let mut rhythm = Rhythm::new(Duration::from_secs(40), 7, START);
        let at = |ms| START.plus(Duration::from_millis(ms));
        rhythm.spoke(at(0));
        rhythm.spoke(at(10));
        rhythm.spoke(at(20));
        rhythm.hurry(at(100));
        assert_eq!(rhythm.due, at(1_020), "a second after the last");
        rhythm.spoke(at(1_020));
        rhythm.hurry(at(5_000));
        let soon = rhythm.due;
        assert!(soon > at(5_000) && soon < at(5_250));
        rhythm.hurry(at(5_001));
        assert!(rhythm.due <= soon);
    }

    #[test]
    fn node_names_what_can_be_reached_on_the_link() {
        let text = |http: &[&str], loopback, ipv4| {
            let http: Vec<SocketAddr> = http.iter().map(|a| a.parse().unwrap()).collect();
            let interface = Interface {
                name: "x".to_owned(),
                index: 1,
                loopback,
                global: vec!["2001:db8::1".parse().unwrap()],
            };
            let found = reachable(&http, &interface, ipv4);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let all = &["0.0.0.0:80", "[::]:80", "127.0.0.1:81", "192.0.2.1:82"];
        assert_eq!(text(all, false, true), ["0.0.0.0:80", "192.0.2.1:82"]);
        assert_eq!(
            text(all, false, false),
            ["[2001:db8::1]:80", "192.0.2.1:82"]
        );
        assert_eq!(text(&["127.0.0.1:81"], true, true), ["127.0.0.1:81"]);
    }
}
