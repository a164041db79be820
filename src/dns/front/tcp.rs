//! DNS over TCP (RFC 7766) and TLS (RFC 7858): pipelined, answered out of order, bounded.
//!
//! A connection reads all that is there with one call, answers what zones and cache can answer, and writes
//! these answers with one call; queries of the slow path are answered when they are ready. Between turns
//! a connection owns no buffer, except for a message that is not whole and answers not yet taken.
//! On stop it answers what it has, says goodbye (FIN) and lets the client read to the end.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::handshake::Handshake;
use super::places::{IDLE_CROWDED, Place};
use super::scratch::{FLUSH, FRAME, Pool, Scratch};
use super::single::Single;
use super::slow::Slow;
use super::stream::Stream;
use crate::dns::engine::{Engine, Fast, error};
use crate::dns::exchange::{Begin, Transfer};
use crate::dns::wire::Rcode;
use crate::dns::{Config, Outcome, Transport};
use crate::metrics::Metrics;
use crate::metrics::dns::{Limit, Tally};
use crate::time::Now;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Server {
    config: Config,
    engine: Arc<Engine>,
    slow: Arc<Slow>,
    scratch: Arc<Pool>,
    metrics: Arc<Metrics>,
}

impl Server {
    pub(super) fn new(config: &Config, single: Single) -> Arc<Self> {
        let Single {
            engine,
            slow,
            scratch,
            metrics,
        } = single;
        Arc::new(Self {
            config: Config {
                tcp_unanswered: config.tcp_unanswered.max(1),
                ..config.clone()
            },
            engine,
            slow,
            scratch,
            metrics,
        })
    }

    /// Serves one connection in the clear.
    pub(super) async fn serve_plain(
        self: Arc<Self>,
        stream: TcpStream,
        place: Place,
        stop: CancellationToken,
    ) {
        serve(&self, Stream::Plain(stream), Transport::Tcp, place, stop).await;
    }

    /// Serves one connection within TLS.
    pub(super) async fn serve_tls(
        self: Arc<Self>,
        stream: TcpStream,
        handshake: Arc<Handshake>,
        place: Place,
        stop: CancellationToken,
    ) {
        if let Some(stream) = handshake.shake(stream).await {
            let (stream, session) = stream.into_inner();
            let stream = Stream::tls(stream, session);
            serve(&self, stream, Transport::Tls, place, stop).await;
        }
    }
}

/// Serves one connection to its end.
async fn serve(
    server: &Server,
    stream: Stream,
    transport: Transport,
    place: Place,
    stop: CancellationToken,
) {
    let (sender, mut answers) = mpsc::channel(server.config.tcp_unanswered);
    let now = Now::read();
    let mut connection = Connection {
        server,
        stream,
        transport,
        client: place.address,
        place,
        sender,
        tally: Tally::new(transport),
        seed: now.mono_ns,
        input: Vec::new(),
        unsent: Vec::new(),
        waiting: 0,
        transfers: VecDeque::new(),
        ended: false,
        stalled: false,
        active: now,
        begun: None,
        progress: now,
    };
    let timer = sleep(connection.tick());
    tokio::pin!(timer);
    match connection.run(&mut answers, timer, &stop).await {
        Ok(End::Limit(limit)) => server.metrics.dns.limit(limit),
        Ok(End::Done) => {
            if stop.is_cancelled() && !connection.ended {
                connection.part().await;
            } else {
                connection.stream.say_goodbye();
            }
        }
        // The client broke the connection off.
        Err(error) => tracing::trace!(%error, "connection broken off"),
    }
}

/// Why a connection ended without an error.
#[derive(Debug)]
enum End {
    /// The client or this node finished; everything is answered.
    Done,
    /// The client overstepped a limit.
    Limit(Limit),
}

/// One connection.
#[derive(Debug)]
struct Connection<'s> {
    server: &'s Server,
    stream: Stream,
    transport: Transport,
    client: IpAddr,
    place: Place,
    /// To be cloned into tasks of the slow path.
    sender: mpsc::Sender<Vec<u8>>,
    tally: Tally,
    seed: u64,
    /// Read and not answered: the beginning of a message, or messages that wait for a limit.
    input: Vec<u8>,
    /// Answers the client's window had no room for.
    unsent: Vec<u8>,
    /// Queries on the slow path.
    waiting: usize,
    /// Zone transfers going out, one message of each in turn.
    transfers: VecDeque<Transfer>,
    /// The client will send no more.
    ended: bool,
    /// `input` begins with a whole message that may not be answered yet.
    stalled: bool,
    /// The last query or answer.
    active: Now,
    /// When the first octet of an unfinished message came.
    begun: Option<Now>,
    /// When the client last took something of `unsent`.
    progress: Now,
}

impl Connection<'_> {
    async fn run(
        &mut self,
        answers: &mut mpsc::Receiver<Vec<u8>>,
        mut timer: std::pin::Pin<&mut Sleep>,
        stop: &CancellationToken,
    ) -> io::Result<End> {
        let mut draining = false;
        loop {
            if (self.ended || draining)
                && self.waiting == 0
                && self.transfers.is_empty()
                && !self.is_behind()
                && !self.stalled
            {
                return Ok(End::Done);
            }
            let reading = !self.ended && !draining && !self.stalled && !self.is_behind();
            tokio::select! {
                ready = self.stream.readable(), if reading => {
                    ready?;
                    self.turn(true)?;
                }
                ready = self.stream.socket().writable(), if self.is_behind() => {
                    ready?;
                    self.flush()?;
                    if !self.is_behind() && self.stalled {
                        self.turn(false)?;
                    }
                }
                ready = self.stream.socket().writable(), if !self.is_behind() && !self.transfers.is_empty() => {
                    ready?;
                    self.send_on()?;
                    if self.unsent.is_empty() && self.stalled {
                        self.turn(false)?;
                    }
                }
                Some(answer) = answers.recv(), if self.waiting > 0 => {
                    self.take(&answer);
                    while let Ok(answer) = answers.try_recv() {
                        self.take(&answer);
                    }
                    self.flush()?;
                    if self.unsent.len() > self.server.config.tcp_unread {
                        return Ok(End::Limit(Limit::TcpUnread));
                    }
                    if !self.is_behind() && self.stalled {
                        self.turn(false)?;
                    }
                }
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    // A secondary whose transfer breaks off asks again.
                    self.transfers.clear();
                    // What has arrived by now is still answered.
                    self.turn(reading)?;
                }
                () = &mut timer => {
                    if let Some(limit) = self.overdue(Now::read()) {
                        return Ok(End::Limit(limit));
                    }
                    timer.as_mut().reset(Instant::now() + self.tick());
                }
            }
        }
    }

    /// Reads once (if `read`) and answers what is whole.
    fn turn(&mut self, read: bool) -> io::Result<()> {
        let pool = Arc::clone(&self.server.scratch);
        pool.with(|scratch| self.turn_with(read, scratch))
    }

    fn turn_with(&mut self, read: bool, scratch: &mut Scratch) -> io::Result<()> {
        let Scratch {
            input,
            output,
            near,
        } = scratch;
        let mut filled = self.input.len();
        input[..filled].copy_from_slice(&self.input);
        if read && filled < input.len() {
            match self.stream.try_read(&mut input[filled..]) {
                Ok(0) => self.ended = true,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        let now = Now::read();
        let flush = FLUSH.min(self.server.config.tcp_unread);
        let mut snapshot = self.server.engine.snapshot().with(near.as_mut(), None);
        let (mut at, mut out) = (0, 0);
        self.stalled = false;
        while let Some(packet) = frame(&input[at..filled]) {
            if self.is_behind() || self.unanswered() >= self.server.config.tcp_unanswered {
                self.stalled = true;
                break;
            }
            at += 2 + packet.len();
            self.seed = self.seed.wrapping_add(1);
            let room = &mut output[out + 2..out + FRAME];
            let fast =
                match snapshot.fast(packet, self.client, self.transport, now, self.seed, room) {
                    Fast::Slow { proven } => self.hand_over(packet, proven, now, room),
                    done => Some(done),
                };
            match fast {
                Some(Fast::Respond { len, outcome }) => {
                    self.tally.count(outcome);
                    let prefix = u16::try_from(len).expect("an answer fits its room");
                    output[out..out + 2].copy_from_slice(&prefix.to_be_bytes());
                    out += 2 + len;
                }
                Some(Fast::Drop(outcome)) => self.tally.count(outcome),
                Some(Fast::Slow { .. }) | None => {}
            }
            if out >= flush {
                self.write(&output[..out], now)?;
                out = 0;
            }
        }
        drop(snapshot);
        if out > 0 {
            self.write(&output[..out], now)?;
        }
        if at > 0 {
            self.active = now;
            self.tally
                .flush(&self.server.metrics.dns, Now::read().since(now));
        }
        if self.stalled && self.unanswered() >= self.server.config.tcp_unanswered {
            self.server.metrics.dns.limit(Limit::TcpUnanswered);
        }
        let rest = &input[at..filled];
        if rest.is_empty() || self.stalled {
            self.begun = None;
        } else if at > 0 || self.begun.is_none() {
            self.begun = Some(now);
        }
        if rest.is_empty() {
            self.input = Vec::new();
        } else {
            self.input.clear();
            self.input.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Queries not answered to the end.
    fn unanswered(&self) -> usize {
        self.waiting + self.transfers.len()
    }

    /// Sends the next message of a transfer.
    fn send_on(&mut self) -> io::Result<()> {
        let Some(mut transfer) = self.transfers.pop_front() else {
            return Ok(());
        };
        let now = Now::read();
        self.active = now;
        if let Some(message) = transfer.next(now) {
            self.transfers.push_back(transfer);
            let prefix = u16::try_from(message.len()).expect("a message has at most 65,535 bytes");
            self.write(&[&prefix.to_be_bytes(), &message[..]].concat(), now)?;
        }
        Ok(())
    }

    /// Gives a query to the slow path, or begins the transfer it asks for; a refusal is answered at once.
    fn hand_over(
        &mut self,
        packet: &[u8],
        proven: bool,
        now: Now,
        room: &mut [u8],
    ) -> Option<Fast> {
        let exchange = self.server.engine.exchange();
        match exchange.transfer(packet, self.client, self.transport, now) {
            Some(Begin::Transfer(transfer)) => {
                self.transfers.push_back(transfer);
                self.tally.count(Outcome::Transfer);
                return None;
            }
            Some(Begin::Answer(answer, outcome)) => {
                let len = answer.len();
                room[..len].copy_from_slice(&answer);
                return Some(Fast::Respond { len, outcome });
            }
            None => {}
        }
        match self
            .server
            .slow
            .admit(self.client, self.transport, proven, now)
        {
            Ok(permit) => {
                self.waiting += 1;
                let sender = self.sender.clone();
                self.server.slow.resolve_message(
                    permit,
                    packet.into(),
                    self.client,
                    |answer| async move {
                        // There is room: the channel holds as many as may wait. No receiver: the client left.
                        let _ = sender.send(answer).await;
                    },
                );
                None
            }
            Err(_) => Some(error(packet, Rcode::ServFail, room)),
        }
    }

    /// Takes an answer of the slow path; an empty one only makes room.
    fn take(&mut self, answer: &[u8]) {
        self.waiting -= 1;
        self.active = Now::read();
        if answer.is_empty() {
            return;
        }
        if self.unsent.is_empty() {
            self.progress = self.active;
        }
        let prefix =
            u16::try_from(answer.len()).expect("the resolver keeps to the limit it is given");
        self.unsent.extend_from_slice(&prefix.to_be_bytes());
        self.unsent.extend_from_slice(answer);
    }

    /// Writes `answers`; what the client has no room for becomes `unsent`.
    fn write(&mut self, mut answers: &[u8], now: Now) -> io::Result<()> {
        if self.unsent.is_empty() {
            let n = self.stream.write_some(answers)?;
            answers = &answers[n..];
            self.progress = now;
        }
        self.unsent.extend_from_slice(answers);
        Ok(())
    }

    /// Whether answers wait for the client to take them.
    fn is_behind(&self) -> bool {
        !self.unsent.is_empty() || self.stream.is_behind()
    }

    /// Writes what it can of `unsent`.
    fn flush(&mut self) -> io::Result<()> {
        let was_behind = self.stream.is_behind();
        let n = self.stream.write_some(&self.unsent)?;
        if n > 0 || was_behind && !self.stream.is_behind() {
            self.progress = Now::read();
        }
        if n == self.unsent.len() {
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..n);
        }
        Ok(())
    }

    /// The limit this connection has overstepped by `now`.
    fn overdue(&self, now: Now) -> Option<Limit> {
        let config = &self.server.config;
        if self.is_behind() && now.since(self.progress) >= config.tcp_unread_time {
            return Some(Limit::TcpUnread);
        }
        if let Some(begun) = self.begun
            && now.since(begun) >= config.tcp_message
        {
            return Some(Limit::TcpMessage);
        }
        let idle = self.unanswered() == 0 && !self.is_behind() && self.input.is_empty();
        (idle && now.since(self.active) >= self.place.idle()).then_some(Limit::TcpIdle)
    }

    /// How often limits of time are looked at. Idle time shrinks when the server fills, so a connection
    /// cannot sleep until the deadline it had.
    fn tick(&self) -> Duration {
        let config = &self.server.config;
        IDLE_CROWDED
            .min(config.tcp_idle)
            .min(config.tcp_message)
            .min(config.tcp_unread_time)
            .max(TICK_MIN)
    }

    /// Ends the stream and lets the client read to the end: closing with octets unread would reset the
    /// connection and take away answers still under way.
    async fn part(&mut self) {
        let _ = timeout(PART, async {
            self.stream.say_goodbye();
            let mut scrap = [0; 1024];
            loop {
                self.stream.readable().await?;
                match self.stream.try_read(&mut scrap) {
                    Ok(0) => return Ok(()),
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                    _ => {}
                }
            }
        })
        .await;
    }
}

/// The message at the beginning of `input`, if it is whole.
fn frame(input: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = input.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*prefix)))
}

/// A tick is never shorter, however short a limit.
const TICK_MIN: Duration = Duration::from_millis(10);

/// How long a client may take to read the last answers after the stop.
const PART: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_frame(input: &[u8], expected: Option<&[u8]>) {
        assert_eq!(frame(input), expected);
    }

    #[test]
    fn frame_is_there_only_when_whole() {
        check_frame(&[], None);
        check_frame(&[0], None);
        check_frame(&[0, 2, 7], None);
        check_frame(&[0, 2, 7, 8], Some(&[7, 8]));
        check_frame(&[0, 1, 7, 0, 9], Some(&[7]));
        check_frame(&[0, 0, 7], Some(&[]));
    }
}
