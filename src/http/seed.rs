//! BitTorrent peers, served on the port of HTTP what they ask for of objects.
//!
//! A client that has nothing but a magnet link gets the torrent from peers (BEP 9), and most clients then ask peers only. So a node is one:
//! of each object with a torrent, it has everything and wants nothing. It tells peers nothing of one another. Requests are answered in
//! their order, one at a time, from verified bytes; what a peer sends meanwhile waits in its socket. Connections count as those of HTTP.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body;
use super::faces;
use super::message::{self, HANDSHAKE, Hello, LONGEST, Message, REQUEST};
use super::object::Site;
use crate::content::object::Object;
use crate::link::clients::Client;
use crate::metrics::http::Closed;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For its first byte.
    pub(super) silent: Duration,
    /// For a handshake, or for the rest of a message.
    pub(super) head: Duration,
    /// Between two messages.
    pub(super) idle: Duration,
    /// To take in one part of a piece.
    pub(super) slow: Duration,
}

/// One peer and what it wants.
struct Peer<'a> {
    stream: TcpStream,
    site: &'a Site,
    client: &'a Client,
    patience: Patience,
    object: Arc<Object>,
    /// How it calls messages with parts of the info dictionary.
    metadata: Option<u8>,
    /// Bytes read ahead: it asks for small parts, one after the other.
    window: (u64, Bytes),
}

/// Whether what comes on a new connection is a handshake of a peer. Takes nothing off it.
///
/// # Errors
/// The first byte did not come in time.
pub(super) async fn is_peer(
    stream: &TcpStream,
    patience: Patience,
    stop: &CancellationToken,
) -> Result<bool, Closed> {
    let mut first = [0];
    tokio::select! {
        peeked = timeout(patience.silent, stream.peek(&mut first)) => match peeked {
            Ok(Ok(count)) => Ok(count == 1 && first[0] == message::FIRST),
            Ok(Err(_)) => Err(Closed::Broken),
            Err(_) => Err(Closed::Silent),
        },
        () = stop.cancelled() => Err(Closed::Stop),
    }
}

/// Serves a peer to its end; says why it ended.
pub(super) async fn serve(
    stream: TcpStream,
    site: &Site,
    client: &Client,
    patience: Patience,
    stop: &CancellationToken,
) -> Closed {
    tokio::select! {
        ended = begin(stream, site, client, patience) => ended.map_or_else(|reason| reason, |()| Closed::Done),
        () = stop.cancelled() => Closed::Stop,
    }
}

async fn begin(
    mut stream: TcpStream,
    site: &Site,
    client: &Client,
    patience: Patience,
) -> Result<(), Closed> {
    let mut bytes = [0; HANDSHAKE];
    let read = timeout(patience.head, stream.read_exact(&mut bytes));
    read.await
        .map_err(|_| Closed::Head)?
        .map_err(|_| Closed::Done)?;
    let hello = Hello::read(&bytes).ok_or(Closed::Protocol)?;
    let Some(object) = site.pieces.object(&hello.info_hash, &site.library) else {
        return Ok(());
    };
    let mut peer = Peer {
        stream,
        site,
        client,
        patience,
        object,
        metadata: None,
        window: (0, Bytes::new()),
    };
    peer.greet(&hello).await?;
    while let Some(message) = peer.next().await? {
        peer.answer(message).await?;
    }
    Ok(())
}

impl Peer<'_> {
    async fn greet(&mut self, hello: &Hello) -> Result<(), Closed> {
        let size = self.object.manifest().layout.size;
        let id = message::peer_id(self.site.swarm.run());
        let mut out = message::handshake(&hello.info_hash, &id);
        if hello.extended {
            let info = faces::info_size(self.object.manifest());
            out.extend(message::extended(info));
        }
        out.extend(message::bitfield(faces::pieces(size)));
        self.send(&[&out]).await
    }

    /// The next message; `None` when the peer has gone.
    async fn next(&mut self) -> Result<Option<Message>, Closed> {
        let mut length = [0; 4];
        let read = timeout(self.patience.idle, self.stream.read_exact(&mut length));
        if read.await.map_err(|_| Closed::Idle)?.is_err() {
            return Ok(None);
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(Closed::Protocol);
        }
        let mut bytes = vec![0; length];
        let read = timeout(self.patience.head, self.stream.read_exact(&mut bytes));
        if read.await.map_err(|_| Closed::Head)?.is_err() {
            return Ok(None);
        }
        Message::read(&bytes).map(Some).ok_or(Closed::Protocol)
    }

    async fn answer(&mut self, message: Message) -> Result<(), Closed> {
        match message {
            Message::Interested => self.send(&[&message::unchoke()]).await,
            Message::Extended(id) => {
                self.metadata = id;
                Ok(())
            }
            Message::Metadata(part) => {
                let Some(id) = self.metadata else {
                    return Ok(());
                };
                let wait = self.site.fill_wait;
                let pieces = self.site.pieces.of(&self.object, wait).await;
                let pieces = pieces.map_err(|_| Closed::Broken)?;
                let info = faces::info(self.object.manifest(), &pieces);
                self.send(&[&message::metadata(id, part, &info)]).await
            }
            Message::Request {
                index,
                begin,
                length,
            } => self.piece(index, begin, length).await,
            Message::Other => Ok(()),
        }
    }

    async fn piece(&mut self, index: u32, begin: u32, length: u32) -> Result<(), Closed> {
        let size = self.object.manifest().layout.size;
        let piece = faces::piece(size);
        let start = u64::from(index) * piece + u64::from(begin);
        let end = start + u64::from(length);
        let within = u64::from(begin) + u64::from(length) <= piece && end <= size;
        if length == 0 || length > REQUEST || !within {
            return Err(Closed::Protocol);
        }
        let mut at = start;
        let mut parts = vec![message::piece(index, begin, length).into()];
        while at < end {
            let bytes = self.read(at..end).await?;
            at += bytes.len() as u64;
            parts.push(bytes);
        }
        let parts: Vec<&[u8]> = parts.iter().map(|part: &Bytes| &part[..]).collect();
        self.send(&parts).await?;
        self.site
            .metrics
            .http
            .torrent_sent
            .inc_by(u64::from(length));
        Ok(())
    }

    /// The first of these bytes, at least one.
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, Closed> {
        let (start, bytes) = &self.window;
        let held = *start..*start + bytes.len() as u64;
        if !held.contains(&range.start) {
            let begin = range.start / WINDOW * WINDOW;
            let mut slices = self.object.manifest().layout.cover(begin..begin + WINDOW);
            // A window may lie in several chunks.
            let slice = slices.find(|slice| {
                let first = self.object.manifest().layout.start(slice.index);
                (first + u64::from(slice.within.start)..first + u64::from(slice.within.end))
                    .contains(&range.start)
            });
            let slice = slice.ok_or(Closed::Broken)?;
            let first = self.object.manifest().layout.start(slice.index);
            let begin = first + u64::from(slice.within.start);
            let object = Arc::clone(&self.object);
            let (bytes, _) = body::read(object, slice, self.site.fill_wait).await;
            let bytes = bytes.map_err(|fault| {
                fault.log();
                Closed::Broken
            })?;
            self.window = (begin, bytes);
        }
        let (start, bytes) = &self.window;
        let place = |at: u64| usize::try_from(at - start).expect("within the window");
        let end = range.end.min(start + bytes.len() as u64);
        Ok(bytes.slice(place(range.start)..place(end)))
    }

    async fn send(&mut self, parts: &[&[u8]]) -> Result<(), Closed> {
        for part in parts {
            let sent = self.client.send(&mut self.stream, part, self.patience.slow);
            sent.await.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => Closed::Slow,
                _ => Closed::Broken,
            })?;
        }
        Ok(())
    }
}

/// Bytes read at once.
const WINDOW: u64 = 256 << 10;
