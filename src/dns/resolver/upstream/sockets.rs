//! A pool of UDP sockets towards servers, each on a random port.
//!
//! A socket carries one query at a time and is connected to that query's server. So packets of anybody else do not get
//! past the kernel, nobody can find the port out by what an unconnected one would let through, and a port nobody listens on
//! is known at once. Between queries a socket waits in the pool, drawn by lot; after [`USES`] queries or [`LIFE`] it
//! is closed, and a new one opened on another port. A query to the server the socket was last used for costs one
//! system call to send and one to receive.
//!
//! One task waits for all of them, by an epoll instance of the pool's own: hundreds of sockets as tasks would
//! each be asked twice per packet.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::event::epoll;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::net::unix::pipe::Receiver;
use tokio::task::AbortHandle;

use super::dice::Dice;
use super::query::{Flaw, Sent};
use crate::metrics::resolver::Rejected;
use crate::time::Now;

/// The sockets.
pub(super) struct Sockets {
    pool: Arc<Pool>,
    driver: AbortHandle,
}

struct Pool {
    epoll: OwnedFd,
    slots: Box<[Mutex<Slot>]>,
    idle: Mutex<Idle>,
    open: AtomicUsize,
    rejected: Rejected,
}

/// The sockets nobody uses, and the places for more.
struct Idle {
    ip4: Vec<Resting>,
    ip6: Vec<Resting>,
    vacant: Vec<usize>,
    dice: Dice,
}

#[derive(Clone, Copy)]
struct Resting {
    place: usize,
    peer: SocketAddr,
}

/// One place of the pool.
#[derive(Default)]
struct Slot {
    socket: Option<Socket>,
    waiting: Option<Waiting>,
}

struct Socket {
    fd: OwnedFd,
    peer: SocketAddr,
    born: Now,
    uses: u32,
}

/// A query whose reply is waited for.
struct Waiting {
    sent: Sent,
    waker: Option<Waker>,
    reply: Option<io::Result<Vec<u8>>>,
    /// A packet came that had the right id but another case.
    odd_case: bool,
}

impl Sockets {
    /// At most `most` sockets. None is opened yet. Must be called inside the runtime.
    pub(super) fn new(most: usize, rejected: Rejected) -> io::Result<Self> {
        let pool = Arc::new(Pool {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: (0..most).map(|_| Mutex::default()).collect(),
            idle: Mutex::new(Idle {
                ip4: Vec::new(),
                ip6: Vec::new(),
                vacant: (0..most).rev().collect(),
                dice: Dice::new(),
            }),
            open: AtomicUsize::new(0),
            rejected,
        });
        // Another descriptor of the same instance, since tokio wants to own the one it waits for. Of what tokio has,
        // only the end of a pipe can be made of any descriptor: it waits for it and leaves the rest to us.
        let ready = Receiver::from_owned_fd_unchecked(pool.epoll.try_clone()?)?;
        let driver = tokio::spawn(drive(Arc::clone(&pool), ready)).abort_handle();
        Ok(Self { pool, driver })
    }

    /// A socket connected to `peer`, and an id and a case for the query that is to be sent by it. `None`: all are in use.
    pub(super) fn take(&self, peer: SocketAddr, now: Now) -> io::Result<Option<Drawn>> {
        let pool = &self.pool;
        let (found, id, case, port) = {
            let mut idle = lock(&pool.idle);
            let (id, case) = (idle.dice.u16(), u64::from_ne_bytes(idle.dice.octets()));
            let port = idle.dice.u16();
            (idle.draw(peer), id, case, port)
        };
        let Some((place, old)) = found else {
            return Ok(None);
        };
        // From here on it goes back to the pool, whatever happens.
        let seat = Seat {
            pool: Arc::clone(pool),
            place,
        };
        let mut slot = lock(&pool.slots[place]);
        // A socket of the other family is given up when there is no more room for one of this.
        let usable = slot.socket.take().filter(|socket| {
            socket.peer.is_ipv4() == peer.is_ipv4()
                && socket.uses < USES
                && now.since(socket.born) < LIFE
        });
        let socket = match usable {
            Some(socket) if socket.peer == peer => Some(socket),
            // The address it sends from was chosen for the old peer, and would stay.
            Some(socket) => {
                let moved = rustix::net::connect_unspec(&socket.fd)
                    .and_then(|()| rustix::net::connect(&socket.fd, &peer));
                moved.is_ok().then_some(Socket { peer, ..socket })
            }
            None => None,
        };
        if old && socket.is_none() {
            pool.open.fetch_sub(1, Ordering::Relaxed);
        }
        let mut socket = match socket {
            Some(socket) => socket,
            None => {
                let fd = open(peer, port, || lock(&pool.idle).dice.u16())?;
                let data = epoll::EventData::new_u64(place as u64);
                epoll::add(&pool.epoll, &fd, data, epoll::EventFlags::IN)?;
                pool.open.fetch_add(1, Ordering::Relaxed);
                Socket {
                    fd,
                    peer,
                    born: now,
                    uses: 0,
                }
            }
        };
        socket.uses += 1;
        slot.socket = Some(socket);
        drop(slot);
        Ok(Some(Drawn { seat, id, case }))
    }

    /// Closes what has rested too long. Returns how many are open.
    pub(super) fn tidy(&self, now: Now) -> usize {
        let pool = &self.pool;
        let mut idle = lock(&pool.idle);
        let Idle {
            ip4, ip6, vacant, ..
        } = &mut *idle;
        for family in [ip4, ip6] {
            family.retain(|resting| {
                let mut slot = lock(&pool.slots[resting.place]);
                let old = slot
                    .socket
                    .as_ref()
                    .is_none_or(|socket| now.since(socket.born) >= LIFE);
                if old && slot.socket.take().is_some() {
                    pool.open.fetch_sub(1, Ordering::Relaxed);
                }
                if old {
                    vacant.push(resting.place);
                }
                !old
            });
        }
        pool.open.load(Ordering::Relaxed)
    }

    /// Eight octets for a cookie.
    pub(super) fn cookie(&self) -> [u8; 8] {
        lock(&self.pool.idle).dice.octets()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets")
            .field("open", &self.pool.open)
            .field("most", &self.pool.slots.len())
            .finish_non_exhaustive()
    }
}

impl Idle {
    /// A place for a query to `peer`, and whether there may be a socket in it.
    ///
    /// Until [`CHOICE`] sockets rest, new ones are opened: who asks seldom has a fresh port each time, who asks
    /// often a choice that tells nothing.
    fn draw(&mut self, peer: SocketAddr) -> Option<(usize, bool)> {
        let (family, other) = if peer.is_ipv4() {
            (&mut self.ip4, &mut self.ip6)
        } else {
            (&mut self.ip6, &mut self.ip4)
        };
        if family.len() < CHOICE
            && let Some(place) = self.vacant.pop()
        {
            return Some((place, false));
        }
        if family.is_empty() {
            return other.pop().map(|resting| (resting.place, true));
        }
        let mut at = self.dice.below(family.len());
        for _ in 1..DRAWS {
            if family[at].peer == peer {
                break;
            }
            at = self.dice.below(family.len());
        }
        Some((family.swap_remove(at).place, true))
    }
}

/// A new socket on a random port, connected to `peer`.
fn open(peer: SocketAddr, first: u16, mut dice: impl FnMut() -> u16) -> io::Result<OwnedFd> {
    let (family, any): (_, IpAddr) = match peer {
        SocketAddr::V4(_) => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if peer.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&fd, true)?;
    }
    // A flood of forged replies must not push the right one out. The kernel gives less to those without the privilege.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(&fd, RECEIVE)?;
    }
    let mut port = first;
    for _ in 0..PORTS {
        // The kernel itself would draw from less than half of the range.
        if port >= PORT_LEAST {
            match rustix::net::bind(&fd, &SocketAddr::new(any, port)) {
                Ok(()) => {
                    rustix::net::connect(&fd, &peer)?;
                    return Ok(fd);
                }
                Err(rustix::io::Errno::ADDRINUSE | rustix::io::Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        port = dice();
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}

/// A place of the pool in use. Dropped, it goes back.
struct Seat {
    pool: Arc<Pool>,
    place: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let rest = {
            let mut slot = lock(&self.pool.slots[self.place]);
            slot.waiting = None;
            slot.socket.as_ref().map(|socket| socket.peer)
        };
        let mut idle = lock(&self.pool.idle);
        let place = self.place;
        match rest {
            Some(peer) if peer.is_ipv4() => idle.ip4.push(Resting { place, peer }),
            Some(peer) => idle.ip6.push(Resting { place, peer }),
            None => idle.vacant.push(place),
        }
    }
}

/// A socket drawn for one query, with the id and case it is to have.
pub(super) struct Drawn {
    seat: Seat,
    pub(super) id: u16,
    /// A bit for each octet of the name.
    pub(super) case: u64,
}

impl Drawn {
    /// From now on the reply to `sent` is waited for.
    pub(super) fn expect(self, sent: Sent) -> Expected {
        let seat = self.seat;
        lock(&seat.pool.slots[seat.place]).waiting = Some(Waiting {
            sent,
            waker: None,
            reply: None,
            odd_case: false,
        });
        Expected { seat }
    }
}

/// A query on its way. Dropped, its reply is waited for no more.
pub(super) struct Expected {
    seat: Seat,
}

impl Expected {
    /// Sends the query, or sends it again.
    pub(super) fn send(&self) -> io::Result<()> {
        let slot = lock(&self.seat.pool.slots[self.seat.place]);
        let (Some(socket), Some(waiting)) = (&slot.socket, &slot.waiting) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let bytes = waiting.sent.bytes();
        let flags = SendFlags::DONTWAIT;
        let mut result = rustix::net::send(&socket.fd, bytes, flags);
        // A complaint about the query before this one; reading it has cleared it.
        if matches!(result, Err(rustix::io::Errno::CONNREFUSED)) {
            result = rustix::net::send(&socket.fd, bytes, flags);
        }
        match result {
            Ok(_) => Ok(()),
            // As good as lost on the way.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The reply, once it has come.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let mut slot = lock(&self.seat.pool.slots[self.seat.place]);
        let Some(waiting) = &mut slot.waiting else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(reply) = waiting.reply.take() {
            return Poll::Ready(reply);
        }
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether a packet came that would have been the reply but for the case of its question.
    pub(super) fn saw_odd_case(&self) -> bool {
        lock(&self.seat.pool.slots[self.seat.place])
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.odd_case)
    }
}

/// Receives for all sockets, until it is aborted.
async fn drive(pool: Arc<Pool>, ready: Receiver) {
    let mut packet = vec![0; PACKET].into_boxed_slice();
    while ready.readable().await.is_ok() {
        match ready.try_io(|| pool.turn(&mut packet)) {
            // Lets the fetches that were woken run, and the timers.
            Ok(()) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::error!(%error, "waiting for upstream sockets");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Pool {
    /// Receives from the sockets that have something. [`io::ErrorKind::WouldBlock`]: none has.
    fn turn(&self, packet: &mut [u8]) -> io::Result<()> {
        let at_once = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut room = [const { MaybeUninit::uninit() }; EVENTS];
        let events = match epoll::wait(&self.epoll, &mut room, Some(&at_once)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if events.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for event in events {
            let place = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            if let Some(slot) = self.slots.get(place) {
                self.receive(&mut lock(slot), packet);
            }
        }
        Ok(())
    }

    /// Takes packets from a socket until the one that is waited for, or some. What is left is reported again.
    fn receive(&self, slot: &mut Slot, packet: &mut [u8]) {
        for _ in 0..PACKETS {
            let Some(socket) = &slot.socket else { return };
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let received = rustix::net::recv(&socket.fd, &mut *packet, flags);
            let waiting = slot.waiting.as_mut().filter(|w| w.reply.is_none());
            let (result, waiting) = match (received, waiting) {
                (Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR), _) => return,
                (Err(error), Some(waiting)) => (Err(error.into()), waiting),
                (Err(_), None) => return,
                (Ok(_), None) => {
                    self.rejected.late.inc();
                    continue;
                }
                (Ok((_, len)), Some(waiting)) => {
                    let Some(packet) = packet.get(..len) else {
                        self.rejected.malformed.inc();
                        continue;
                    };
                    match waiting.sent.check(packet) {
                        Ok(()) => (Ok(packet.to_vec()), waiting),
                        Err(flaw) => {
                            waiting.odd_case |= flaw == Flaw::Case;
                            self.reject(flaw);
                            continue;
                        }
                    }
                }
            };
            waiting.reply = Some(result);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
            return;
        }
    }

    fn reject(&self, flaw: Flaw) {
        match flaw {
            Flaw::Malformed => &self.rejected.malformed,
            Flaw::Id => &self.rejected.id,
            Flaw::Question => &self.rejected.question,
            Flaw::Case => &self.rejected.case,
            Flaw::Cookie => &self.rejected.cookie,
        }
        .inc();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it is held")
}

/// Queries by one socket, and its life.
const USES: u32 = 64;
const LIFE: Duration = Duration::from_secs(30);

/// Sockets that rest before one of them is used again.
const CHOICE: usize = 128;

/// Sockets looked at for one that is connected to the right server.
const DRAWS: usize = 4;

/// Ports tried for a new socket, and the least: those below are for servers.
const PORTS: usize = 64;
const PORT_LEAST: u16 = 1_024;

/// Octets the kernel may hold for one socket: some thousand small packets.
const RECEIVE: usize = 1 << 20;

/// Sockets looked after in one turn, and packets of each: who floods one must not starve the others.
const EVENTS: usize = 256;
const PACKETS: usize = 32;

/// A rest after an error that should not be.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest packet taken. We say we take 1,232 octets, and not all servers listen.
const PACKET: usize = 4_096;
