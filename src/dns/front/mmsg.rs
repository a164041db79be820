//! Datagrams by the batch: `recvmmsg` and `sendmmsg` over buffers made once.
//!
//! The one file with `unsafe`: no maintained crate offers both calls with reused buffers and packet
//! information. What leaves it is safe: packets as slices, room for an answer, a list of replies.
//! On a socket bound to a wildcard the address a query was sent to is taken along (`IP_PKTINFO`,
//! `IPV6_PKTINFO`), so that the answer leaves from there; other sockets do not pay for it.
//!
//! Answers of one length to one address and port (a load balancer or a forwarder asks by few sockets) are given to the kernel
//! as one long packet to cut (`UDP_SEGMENT`): it is routed, filtered and delivered once, and what arrives are the same datagrams.
#![allow(unsafe_code)]
#![allow(
    clippy::unnecessary_cast,
    reason = "libc's types differ between C libraries"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::dns::UDP_SEGMENTS;

/// Buffers for one worker: the packets received last, and their answers.
///
/// The headers hold pointers into the vectors beside them. None of these vectors is ever grown, and their
/// elements are only touched through pointers of `as_mut_ptr`, so the pointers stay good.
#[derive(Debug)]
pub(super) struct Batch {
    socket: Arc<UdpSocket>,
    pktinfo: bool,
    answer_stride: usize,
    answer_size: usize,
    /// Answers in a run, at most; 1: each is sent as a packet of its own.
    segments: usize,
    slots: Vec<Slot>,
    requests: Vec<u8>,
    answers: Vec<u8>,
    // Pointed to by `received_headers`, never touched after.
    _request_parts: Vec<libc::iovec>,
    reply_parts: Vec<libc::iovec>,
    received_headers: Vec<libc::mmsghdr>,
    reply_headers: Vec<libc::mmsghdr>,
    /// For each run: the control messages of its packet.
    controls: Vec<Control>,
    received: usize,
    /// Answers to send.
    listed: Vec<Listed>,
    runs: Vec<Run>,
    /// By address, port and length, in the next place free: the number of the run begun last, plus one.
    open: [u8; OPEN],
}

/// An answer to send.
#[derive(Clone, Copy, Debug)]
struct Listed {
    /// Of the packet it answers.
    index: u16,
    len: u16,
    run: u16,
}

/// Answers that leave as one packet.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Of the first packet answered: where the run goes.
    index: u16,
    /// Of each answer.
    len: u16,
    count: u16,
}

/// One packet of a [`Batch`].
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// What came; its beginning, if not `whole`.
    pub(super) packet: &'a [u8],
    /// False: the packet was longer than any query.
    pub(super) whole: bool,
    /// Who sent it. An IPv4-mapped address is given as IPv4.
    pub(super) client: IpAddr,
    /// Its port; 0 cannot be answered.
    pub(super) port: u16,
    /// Room for the answer.
    pub(super) answer: &'a mut [u8],
}

/// Where a later answer goes, and from which address.
#[derive(Clone, Copy)]
pub(super) struct Peer(Slot);

/// Client address and the address it asked, as the kernel wants them.
#[derive(Clone, Copy)]
struct Slot {
    name: Name,
    name_len: libc::socklen_t,
    control: Control,
    control_len: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for control messages, aligned for their header.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    /// Buffers for `capacity` packets and answers of at most `answer_size` bytes. Sets the time `receive` waits. Up to `segments`
    /// answers to one client are one packet for the kernel, where it can cut them.
    ///
    /// # Errors
    /// What the kernel said of `getsockname` or `setsockopt`.
    pub(super) fn new(
        socket: Arc<UdpSocket>,
        capacity: usize,
        answer_size: usize,
        segments: usize,
        wait: Duration,
    ) -> io::Result<Self> {
        assert!(
            capacity <= UDP_SEGMENTS && answer_size <= usize::from(u16::MAX),
            "batches and answers are small"
        );
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(wait))?;
        // A full send buffer must not stop the worker for longer than an empty receive buffer does.
        socket.set_write_timeout(Some(wait))?;
        let local = socket.local_addr()?.ip();
        let pktinfo = local.is_unspecified();
        if pktinfo {
            ask_for_pktinfo(&socket, local.is_ipv6())?;
        }
        if local.is_ipv4() && answer_size <= UNFRAGMENTED {
            // A fragment can be forged (RFC 9715), and a packet that is never cut needs no identification, whose making is
            // 2 % of what an answer costs. Nor may a forged ICMP message have answers held back: hence not `DO`.
            set(
                &socket,
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_PROBE,
            )?;
        }
        let segments = self::segments(&socket, segments);
        // An odd number of cache lines: with a power of two all packets would share a few cache sets.
        let answer_stride = answer_size.next_multiple_of(128) + 64;
        let slot = Slot {
            name: Name {
                // SAFETY: all-zero octets are a valid sockaddr_in6.
                v6: unsafe { mem::zeroed() },
            },
            name_len: 0,
            control: Control([0; CONTROL]),
            control_len: 0,
        };
        let mut slots = vec![slot; capacity];
        let mut requests = vec![0; capacity * REQUEST_STRIDE];
        let answers = vec![0; capacity * answer_stride];
        let mut request_parts = Vec::with_capacity(capacity);
        let reply_parts = vec![
            libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0
            };
            capacity
        ];
        let mut received_headers = Vec::with_capacity(capacity);
        let mut reply_headers = Vec::with_capacity(capacity);
        for i in 0..capacity {
            // SAFETY: `i` is below `capacity`, so the pointer stays within `requests`.
            let base = unsafe { requests.as_mut_ptr().add(i * REQUEST_STRIDE) };
            request_parts.push(libc::iovec {
                iov_base: base.cast(),
                iov_len: REQUEST,
            });
        }
        for i in 0..capacity {
            let mut header = empty_header();
            // SAFETY: `i` is below `capacity`, the length of these vectors.
            unsafe {
                let slot = slots.as_mut_ptr().add(i);
                header.msg_hdr.msg_name = (&raw mut (*slot).name).cast();
                header.msg_hdr.msg_iov = request_parts.as_mut_ptr().add(i);
                if pktinfo {
                    header.msg_hdr.msg_control = (&raw mut (*slot).control).cast();
                }
            }
            header.msg_hdr.msg_iovlen = 1;
            received_headers.push(header);
            reply_headers.push(empty_header());
        }
        Ok(Self {
            socket,
            pktinfo,
            answer_stride,
            answer_size,
            segments,
            slots,
            requests,
            answers,
            _request_parts: request_parts,
            reply_parts,
            received_headers,
            reply_headers,
            controls: vec![Control([0; CONTROL]); capacity],
            // Every header is prepared by the first `receive`.
            received: capacity,
            listed: Vec::with_capacity(capacity),
            runs: Vec::with_capacity(capacity),
            open: [0; OPEN],
        })
    }

    /// Receives what is there, after waiting (at most the time given to `new`) for a first packet if `wait`.
    /// Returns the number of packets; 0: none came. Forgets the batch before.
    ///
    /// # Errors
    /// What the kernel said; an interrupted or timed-out wait is no error.
    pub(super) fn receive(&mut self, wait: bool) -> io::Result<usize> {
        let headers = self.received_headers.as_mut_ptr();
        for i in 0..self.received {
            // SAFETY: `received` is never above the number of headers.
            let header = unsafe { &mut (*headers.add(i)).msg_hdr };
            header.msg_namelen = NAME_LEN;
            header.msg_controllen = if self.pktinfo { CONTROL as _ } else { 0 };
        }
        self.received = 0;
        self.clear();
        let flags = if wait {
            libc::MSG_WAITFORONE
        } else {
            libc::MSG_DONTWAIT
        };
        // SAFETY: every header points to a name, one part and (with `pktinfo`) a control buffer of the stated
        // lengths, all owned by `self` and not borrowed now; the socket is open.
        let n = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers,
                as_count(self.received_headers.len()),
                flags as _,
                ptr::null_mut(),
            )
        };
        let Ok(n) = usize::try_from(n) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        self.received = n;
        for i in 0..n {
            // SAFETY: `i` is below the number of headers and slots; no other reference to either exists.
            let (header, slot) = unsafe {
                (
                    &(*headers.add(i)).msg_hdr,
                    &mut *self.slots.as_mut_ptr().add(i),
                )
            };
            slot.name_len = header.msg_namelen;
            if self.pktinfo {
                slot.control_len = keep_source(header, &mut slot.control);
            }
        }
        Ok(n)
    }

    /// How many packets the batch received last has.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// What came as packet `index` of the batch received last; its beginning, if it was longer than any query.
    ///
    /// # Panics
    /// If fewer packets were received.
    pub(super) fn packet(&self, index: usize) -> &[u8] {
        assert!(index < self.received, "a packet that was received");
        // SAFETY: `index` is below the capacity, the kernel wrote `msg_len` octets of the request at most `REQUEST` long,
        // and nothing else touches requests while `self` is borrowed.
        unsafe {
            let header = &*self.received_headers.as_ptr().add(index);
            let len = (header.msg_len as usize).min(REQUEST);
            std::slice::from_raw_parts(self.requests.as_ptr().add(index * REQUEST_STRIDE), len)
        }
    }

    /// The packet `index` of the batch received last.
    ///
    /// # Panics
    /// If fewer packets were received.
    pub(super) fn message(&mut self, index: usize) -> Message<'_> {
        assert!(index < self.received, "a packet that was received");
        // SAFETY: `index` is below the capacity; header, slot, request and answer of one index lie apart from
        // each other, and the references live as long as the borrow of `self`.
        unsafe {
            let header = &*self.received_headers.as_ptr().add(index);
            let slot = &*self.slots.as_ptr().add(index);
            let len = (header.msg_len as usize).min(REQUEST);
            let request = self.requests.as_ptr().add(index * REQUEST_STRIDE);
            let answer = self.answers.as_mut_ptr().add(index * self.answer_stride);
            let (client, port) = slot.client();
            Message {
                packet: std::slice::from_raw_parts(request, len),
                whole: header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0,
                client,
                port,
                answer: std::slice::from_raw_parts_mut(answer, self.answer_size),
            }
        }
    }

    /// Puts the first `len` bytes of the answer room of packet `index` on the list for [`Batch::send`].
    ///
    /// # Panics
    /// If the packet was not received, the answer is longer than its room, or the list is full.
    pub(super) fn reply(&mut self, index: usize, len: usize) {
        assert!(
            index < self.received && len <= self.answer_size && self.listed.len() < self.received
        );
        let run = self.run(index, len);
        self.runs[run].count += 1;
        // Batches have at most UDP_SEGMENTS packets, and `new` has seen the length.
        #[expect(clippy::cast_possible_truncation, reason = "small, see above")]
        self.listed.push(Listed {
            index: index as u16,
            len: len as u16,
            run: run as u16,
        });
    }

    /// The run an answer of `len` bytes to packet `index` belongs to: the last of those alike, unless it is full, or a new one.
    fn run(&mut self, index: usize, len: usize) -> usize {
        let slot = &self.slots[index];
        let mut place = (slot.spread() ^ len) % OPEN;
        // There are fewer runs than places, so one is free.
        while let Some(run) = usize::from(self.open[place]).checked_sub(1) {
            let known = &self.runs[run];
            if usize::from(known.len) == len && self.slots[usize::from(known.index)].same(slot) {
                if usize::from(known.count) < fitting(len, self.segments) {
                    return run;
                }
                break;
            }
            place = (place + 1) % OPEN;
        }
        #[expect(clippy::cast_possible_truncation, reason = "as in `reply`")]
        self.runs.push(Run {
            index: index as u16,
            len: len as u16,
            count: 0,
        });
        self.open[place] = u8::try_from(self.runs.len()).expect("at most UDP_SEGMENTS");
        self.runs.len() - 1
    }

    /// Sends the listed replies; one the kernel does not take is left out. Returns how many were.
    pub(super) fn send(&mut self) -> usize {
        self.lay_out();
        let (mut done, mut failed) = (0, 0);
        while done < self.runs.len() {
            // SAFETY: the headers from `done` to the number of runs point to names, parts and control buffers of `self`,
            // set by `lay_out`; the socket is open.
            let n = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    self.reply_headers.as_mut_ptr().add(done),
                    as_count(self.runs.len() - done),
                    0,
                )
            };
            match usize::try_from(n) {
                Ok(n) if n > 0 => done += n,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    // The send buffer stayed full for the whole wait: the others would fare no better.
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        let left = &self.runs[done..];
                        failed += left.iter().map(|run| usize::from(run.count)).sum::<usize>();
                        done = self.runs.len();
                    }
                    // The first one is at fault: no route, a filter, an address that cannot be; or a path that does not take runs.
                    error => {
                        failed += self.send_apart(done);
                        if error.raw_os_error() == Some(libc::EIO) {
                            // The device on the way computes no checksums, so nobody can cut.
                            self.segments = 1;
                        }
                        done += 1;
                    }
                },
            }
        }
        self.clear();
        failed
    }

    /// Points the headers of all runs to their answers, those of a run beside each other.
    fn lay_out(&mut self) {
        let mut next = [0; UDP_SEGMENTS];
        let mut first = 0;
        for (next, run) in next.iter_mut().zip(&self.runs) {
            *next = first;
            first += usize::from(run.count);
        }
        for listed in &self.listed {
            let place = &mut next[usize::from(listed.run)];
            // SAFETY: the packet's answer room lies within `answers`.
            self.reply_parts[*place] = libc::iovec {
                iov_base: unsafe {
                    let at = usize::from(listed.index) * self.answer_stride;
                    self.answers.as_mut_ptr().add(at).cast()
                },
                iov_len: usize::from(listed.len),
            };
            *place += 1;
        }
        let mut first = 0;
        for number in 0..self.runs.len() {
            let run = self.runs[number];
            let count = usize::from(run.count);
            // SAFETY: `index` and `number` are below the capacity, and `first` and the `count` parts from it on as well.
            unsafe {
                let slot = self.slots.as_mut_ptr().add(usize::from(run.index));
                let header = &mut (*self.reply_headers.as_mut_ptr().add(number)).msg_hdr;
                header.msg_name = (&raw mut (*slot).name).cast();
                header.msg_namelen = (*slot).name_len;
                header.msg_iov = self.reply_parts.as_mut_ptr().add(first);
                header.msg_iovlen = count as _;
                let control = self.controls.as_mut_ptr().add(number);
                let mut len = (*slot).control_len;
                if count == 1 {
                    header.msg_control = (&raw mut (*slot).control).cast();
                } else {
                    (&mut (*control).0)[..len].copy_from_slice(&(&(*slot).control.0)[..len]);
                    len = put_control(
                        &mut *control,
                        len,
                        libc::SOL_UDP,
                        libc::UDP_SEGMENT,
                        &run.len,
                    );
                    header.msg_control = control.cast();
                }
                header.msg_controllen = len as _;
            }
            first += count;
        }
    }

    /// Sends the answers of run `number` each as a packet of its own. Returns how many the kernel did not take.
    fn send_apart(&mut self, number: usize) -> usize {
        let run = self.runs[number];
        if run.count == 1 {
            return 1;
        }
        let peer = Peer(self.slots[usize::from(run.index)]);
        let mine = |listed: &&Listed| usize::from(listed.run) == number;
        let unsent = self.listed.iter().filter(mine).filter(|listed| {
            let at = usize::from(listed.index) * self.answer_stride;
            let answer = &self.answers[at..at + usize::from(listed.len)];
            send(&self.socket, &peer, answer).is_err()
        });
        unsent.count()
    }

    fn clear(&mut self) {
        self.listed.clear();
        self.runs.clear();
        self.open = [0; OPEN];
    }

    /// Where the answer to packet `index` goes, for one that is sent later.
    ///
    /// # Panics
    /// If fewer packets were received.
    pub(super) fn peer(&self, index: usize) -> Peer {
        assert!(index < self.received, "a packet that was received");
        // SAFETY: `index` is below the number of slots.
        Peer(unsafe { *self.slots.as_ptr().add(index) })
    }
}

impl Peer {
    /// A number that differs for most clients.
    pub(super) fn spread(&self) -> usize {
        self.0.spread()
    }

    /// Whether answers to both leave alike.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }
}

impl Slot {
    /// A number that differs for most clients.
    fn spread(&self) -> usize {
        // SAFETY: every octet of the union is initialised; in both variants the port is the second field.
        let (port, address) = unsafe {
            let v4 = self.name.v4;
            if libc::c_int::from(v4.sin_family) == libc::AF_INET {
                (v4.sin_port, v4.sin_addr.s_addr)
            } else {
                let octets = self.name.v6.sin6_addr.s6_addr;
                (
                    v4.sin_port,
                    u32::from_ne_bytes([octets[4], octets[7], octets[14], octets[15]]),
                )
            }
        };
        let mixed = (u32::from(port) << 16 | u32::from(port)) ^ address;
        (mixed.wrapping_mul(0x9e37_79b1) >> 20) as usize
    }

    /// Whether answers to both leave alike: to the same address and port, from the same address.
    fn same(&self, other: &Self) -> bool {
        // SAFETY: every octet of the union is initialised, and a structure of the C library may be read as octets.
        let octets = |slot: &Self| unsafe {
            mem::transmute::<libc::sockaddr_in6, [u8; size_of::<Name>()]>(slot.name.v6)
        };
        // A socket has addresses of one family, so what lies behind a shorter one is zero in both.
        octets(self) == octets(other)
            && self.control_len == other.control_len
            && (self.control_len == 0
                || self.control.0[..self.control_len] == other.control.0[..other.control_len])
    }

    fn client(&self) -> (IpAddr, u16) {
        // SAFETY: both variants begin with the family, the kernel (or `zeroed`) set it, and it says which
        // variant the rest is; every octet of the union is initialised.
        unsafe {
            if libc::c_int::from(self.name.v4.sin_family) == libc::AF_INET {
                let address = Ipv4Addr::from(u32::from_be(self.name.v4.sin_addr.s_addr));
                (address.into(), u16::from_be(self.name.v4.sin_port))
            } else {
                let address = Ipv6Addr::from(self.name.v6.sin6_addr.s6_addr);
                (
                    IpAddr::V6(address).to_canonical(),
                    u16::from_be(self.name.v6.sin6_port),
                )
            }
        }
    }
}

/// Sends one late answer by the socket its query came on. Does not wait.
///
/// # Errors
/// What the kernel said.
pub(super) fn send(socket: &UdpSocket, peer: &Peer, answer: &[u8]) -> io::Result<()> {
    let mut slot = peer.0;
    let mut part = libc::iovec {
        iov_base: answer.as_ptr().cast_mut().cast(),
        iov_len: answer.len(),
    };
    let mut header = empty_header().msg_hdr;
    header.msg_name = (&raw mut slot.name).cast();
    header.msg_namelen = slot.name_len;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if slot.control_len > 0 {
        header.msg_control = (&raw mut slot.control).cast();
        header.msg_controllen = slot.control_len as _;
    }
    // SAFETY: the header points to locals that outlive the call, and the kernel only reads the answer.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// How many answers of `len` bytes may be one packet where up to `segments` may.
pub(super) fn fitting(len: usize, segments: usize) -> usize {
    if len > UNFRAGMENTED {
        return 1;
    }
    segments.min(RUN / len.max(1)).max(1)
}

/// Sends late answers of one length to the first one's client, as one packet if there are several ([`fitting`] at most). Does not
/// wait. Returns how many the kernel did not take.
pub(super) fn send_run(socket: &UdpSocket, answers: &[(Peer, Vec<u8>)]) -> usize {
    let apart = || {
        let failed = |(peer, answer): &&(Peer, Vec<u8>)| send(socket, peer, answer).is_err();
        answers.iter().filter(failed).count()
    };
    let [(peer, first), _, ..] = answers else {
        return apart();
    };
    let Ok(len) = u16::try_from(first.len()) else {
        return apart();
    };
    let mut slot = peer.0;
    let mut parts = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; UDP_SEGMENTS];
    for (part, (_, answer)) in parts.iter_mut().zip(answers) {
        part.iov_base = answer.as_ptr().cast_mut().cast();
        part.iov_len = answer.len();
    }
    let mut header = empty_header().msg_hdr;
    header.msg_name = (&raw mut slot.name).cast();
    header.msg_namelen = slot.name_len;
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = answers.len().min(UDP_SEGMENTS) as _;
    let at = slot.control_len;
    let end = put_control(
        &mut slot.control,
        at,
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        &len,
    );
    header.msg_control = (&raw mut slot.control).cast();
    header.msg_controllen = end as _;
    // SAFETY: the header points to locals that outlive the call, its parts to the answers, which the kernel only reads.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if n < 0 { apart() } else { 0 }
}

/// How many answers may be one packet of `socket`, if `wanted` should: 1 where the kernel does not cut, which would send a run as
/// it is.
pub(super) fn segments(socket: &UdpSocket, wanted: usize) -> usize {
    match set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0) {
        Ok(()) => wanted.max(1),
        Err(_) => 1,
    }
}

/// Turns what the kernel told of a received packet into the control message of its answer: leave from the
/// address that was asked, by whatever route. Returns its length; 0: the kernel told nothing.
fn keep_source(header: &libc::msghdr, control: &mut Control) -> usize {
    // SAFETY: the kernel wrote `msg_controllen` octets of well-formed control messages to `msg_control`, and
    // the CMSG functions stay within them; the data is read unaligned, and only if it is as long as its type.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            let has =
                |size: usize| found.cmsg_len as usize >= libc::CMSG_LEN(as_count(size)) as usize;
            match (found.cmsg_level, found.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if has(size_of::<libc::in_pktinfo>()) => {
                    let mut info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    info.ipi_ifindex = 0;
                    return put_control(control, 0, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if has(size_of::<libc::in6_pktinfo>()) => {
                    let mut info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    // A link-local address means something only together with its link.
                    if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                        info.ipi6_ifindex = 0;
                    }
                    return put_control(control, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
    }
    0
}

/// Writes one control message of plain data behind the first `at` octets of others, and returns where it ends with padding.
fn put_control<T: Copy>(
    control: &mut Control,
    at: usize,
    level: libc::c_int,
    kind: libc::c_int,
    data: &T,
) -> usize {
    let size = as_count(size_of::<T>());
    // SAFETY: `control` is aligned for a header, and so is `at`, where an earlier message ended with its padding; the message fits
    // (checked below); CMSG_LEN and CMSG_SPACE only compute.
    unsafe {
        let end = at + libc::CMSG_SPACE(size) as usize;
        assert!(
            end <= CONTROL && at.is_multiple_of(align_of::<libc::cmsghdr>()),
            "the control messages fit"
        );
        let header: *mut libc::cmsghdr = control.0.as_mut_ptr().add(at).cast();
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), *data);
        end
    }
}

fn ask_for_pktinfo(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

fn set(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is an int, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as _,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: null pointers and zero lengths are valid in every field.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn as_count(n: usize) -> libc::c_uint {
    libc::c_uint::try_from(n).expect("batches and structures are small")
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (client, port) = self.client();
        write!(f, "{client} port {port}")
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Answers up to this many octets are never cut on their way: with the headers they fit the least MTU of IPv6, which
/// networks of both kinds carry today.
const UNFRAGMENTED: usize = 1232;

/// Octets of a run at most; with headers they must fit 65,535.
const RUN: usize = 65_000;

/// Places of `Batch::open`; some more than there are packets, so that most clients have the first they look at.
const OPEN: usize = 256;

/// Longest query that is read; an honest one with every option is shorter.
const REQUEST: usize = 1536;

/// See `answer_stride`.
const REQUEST_STRIDE: usize = REQUEST + 64;

const NAME_LEN: libc::socklen_t = size_of::<Name>() as libc::socklen_t;

/// Room for the packet information, the length of segments and, on sockets of others' making, some more.
const CONTROL: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const WAIT: Duration = Duration::from_secs(5);

    /// Sends packets to a batch bound to `bind` at the address `ask`; they must come back reversed, from there.
    #[track_caller]
    fn check_echo(bind: &str, ask: &str, late: bool) {
        let bind: SocketAddr = bind.parse().unwrap();
        let Ok(socket) = crate::net::bind_udp(bind) else {
            assert!(bind.is_ipv6(), "IPv4 is everywhere");
            return;
        };
        let port = socket.local_addr().unwrap().port();
        let mut batch = Batch::new(Arc::new(socket), 4, 512, UDP_SEGMENTS, WAIT).unwrap();
        let ask = SocketAddr::new(ask.parse().unwrap(), port);
        let client = UdpSocket::bind(SocketAddr::new(
            if bind.is_ipv6() { "::1" } else { "127.0.0.1" }
                .parse()
                .unwrap(),
            0,
        ))
        .unwrap();
        client.set_read_timeout(Some(WAIT)).unwrap();
        for packet in [&b"one"[..], b"two", b"three"] {
            client.send_to(packet, ask).unwrap();
        }
        let mut seen = 0;
        while seen < 3 {
            let n = batch.receive(true).unwrap();
            assert!(n > 0, "a packet within the wait");
            for i in 0..n {
                let m = batch.message(i);
                assert!(m.whole);
                assert_eq!(
                    SocketAddr::new(m.client, m.port),
                    client.local_addr().unwrap()
                );
                let len = m.packet.len();
                m.answer[..len].copy_from_slice(m.packet);
                m.answer[..len].reverse();
                if late {
                    let answer = m.answer[..len].to_vec();
                    send(&batch.socket, &batch.peer(i), &answer).unwrap();
                } else {
                    batch.reply(i, len);
                }
            }
            assert_eq!(batch.send(), 0);
            seen += n;
        }
        for expected in [&b"eno"[..], b"owt", b"eerht"] {
            let mut buffer = [0; 16];
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (expected, ask));
        }
        assert_eq!(batch.receive(false).unwrap(), 0);
    }

    #[test]
    fn batch_of_one_address_answers_from_it() {
        check_echo("127.0.0.1:0", "127.0.0.1", false);
        check_echo("[::1]:0", "::1", false);
    }

    #[test]
    fn batch_of_a_wildcard_answers_from_the_address_asked() {
        check_echo("0.0.0.0:0", "127.0.0.2", false);
        check_echo("0.0.0.0:0", "127.0.0.3", true);
        check_echo("[::]:0", "::1", false);
        check_echo("[::]:0", "::1", true);
    }

    #[test]
    fn answers_that_fit_every_path_are_sent_uncut() {
        let discovery = |answer_size| {
            let socket = Arc::new(crate::net::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap());
            let _batch = Batch::new(Arc::clone(&socket), 1, answer_size, 1, WAIT).unwrap();
            let mut value: libc::c_int = -1;
            let mut len = size_of_val(&value) as libc::socklen_t;
            // SAFETY: the value is an int, and its length is given.
            let result = unsafe {
                libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_IP,
                    libc::IP_MTU_DISCOVER,
                    (&raw mut value).cast(),
                    &raw mut len,
                )
            };
            assert_eq!(result, 0);
            value
        };
        assert_eq!(discovery(1232), libc::IP_PMTUDISC_PROBE);
        assert_ne!(discovery(4096), libc::IP_PMTUDISC_PROBE);
    }

    #[test]
    fn batch_with_a_packet_beyond_any_query_says_so() {
        let socket = crate::net::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let mut batch = Batch::new(Arc::new(socket), 4, 512, UDP_SEGMENTS, WAIT).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&[7; REQUEST + 1], address).unwrap();
        assert_eq!(batch.receive(true).unwrap(), 1);
        let m = batch.message(0);
        assert!(!m.whole);
        assert_eq!(m.packet.len(), REQUEST);
    }

    #[test]
    fn batch_with_one_unsendable_reply_sends_the_others() {
        let socket = crate::net::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let mut batch = Batch::new(Arc::new(socket), 4, 512, UDP_SEGMENTS, WAIT).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(WAIT)).unwrap();
        for packet in [b"a", b"b", b"c"] {
            client.send_to(packet, address).unwrap();
        }
        let mut n = 0;
        while n < 3 {
            // All three are in the buffer before the first is taken out.
            n = batch.receive(true).unwrap();
            assert!(n == 3, "{n}");
        }
        // Port 0 cannot be sent to.
        batch.slots[1].name.v4.sin_port = 0;
        for i in 0..n {
            let m = batch.message(i);
            m.answer[0] = m.packet[0];
            batch.reply(i, 1);
        }
        assert_eq!(batch.send(), 1);
        for expected in [b"a", b"c"] {
            let mut buffer = [0; 4];
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], expected);
        }
    }

    /// Sends the answers to packets of two clients, of two lengths, with `prepare` done to the socket. Returns the number of runs.
    #[track_caller]
    fn check_runs(segments: usize, prepare: impl Fn(&UdpSocket)) -> usize {
        let socket = Arc::new(crate::net::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap());
        let address = socket.local_addr().unwrap();
        let mut batch = Batch::new(Arc::clone(&socket), 16, 512, segments, WAIT).unwrap();
        prepare(&socket);
        let clients: [_; 2] = std::array::from_fn(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(WAIT)).unwrap();
            client
        });
        let packets = ["a1", "b2", "ccc", "d4", "eee", "f6"];
        for packet in packets {
            for client in &clients {
                client.send_to(packet.as_bytes(), address).unwrap();
            }
        }
        // All are in the buffer before the first is taken out.
        assert_eq!(batch.receive(true).unwrap(), 12);
        for i in 0..12 {
            let m = batch.message(i);
            let len = m.packet.len();
            m.answer[..len].copy_from_slice(m.packet);
            batch.reply(i, len);
        }
        let runs = batch.runs.len();
        assert_eq!(batch.send(), 0);
        for client in &clients {
            let mut seen: Vec<_> = packets
                .iter()
                .map(|_| {
                    let mut buffer = [0; 512];
                    let (len, from) = client.recv_from(&mut buffer).unwrap();
                    assert_eq!(from, address);
                    String::from_utf8(buffer[..len].to_vec()).unwrap()
                })
                .collect();
            seen.sort();
            assert_eq!(seen, packets);
        }
        runs
    }

    #[test]
    fn answers_of_one_length_to_one_client_leave_as_one_packet() {
        assert_eq!(check_runs(UDP_SEGMENTS, |_| {}), 4);
        // Of the four short ones three fit, of the two long ones both.
        assert_eq!(check_runs(3, |_| {}), 6);
        assert_eq!(check_runs(1, |_| {}), 12);
    }

    #[test]
    fn runs_the_kernel_does_not_take_are_sent_one_by_one() {
        // Without a checksum nothing is cut.
        let prepare = |socket: &UdpSocket| {
            set(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        };
        assert_eq!(check_runs(UDP_SEGMENTS, prepare), 4);
    }

    #[test]
    fn runs_of_a_wildcard_leave_from_the_address_asked() {
        for (bind, ask) in [
            ("0.0.0.0:0", ["127.0.0.2", "127.0.0.3"]),
            ("[::]:0", ["::1", "::1"]),
        ] {
            let Ok(socket) = crate::net::bind_udp(bind.parse().unwrap()) else {
                assert_eq!(bind, "[::]:0", "IPv4 is everywhere");
                continue;
            };
            let port = socket.local_addr().unwrap().port();
            let mut batch = Batch::new(Arc::new(socket), 4, 512, UDP_SEGMENTS, WAIT).unwrap();
            let any = if bind == "[::]:0" {
                "[::1]:0"
            } else {
                "127.0.0.1:0"
            };
            let client = UdpSocket::bind(any).unwrap();
            client.set_read_timeout(Some(WAIT)).unwrap();
            let asked = ask.map(|ask| SocketAddr::new(ask.parse().unwrap(), port));
            for at in [asked[0], asked[1], asked[0], asked[1]] {
                client.send_to(b"x", at).unwrap();
            }
            assert_eq!(batch.receive(true).unwrap(), 4);
            for i in 0..4 {
                batch.reply(i, 1);
            }
            assert!(batch.runs.len() < 3, "{:?}", batch.runs);
            assert_eq!(batch.send(), 0);
            let mut from: Vec<_> = (0..4)
                .map(|_| client.recv_from(&mut [0; 8]).unwrap().1)
                .collect();
            from.sort();
            assert_eq!(from, [asked[0], asked[0], asked[1], asked[1]]);
        }
    }
}
