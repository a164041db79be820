//! A stream in the clear or within TLS, read and written without waiting.

use std::io::{self, Read as _, Write as _};

use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A stream.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// A stream within TLS, its handshake done.
#[derive(Debug)]
pub(super) struct Tls {
    stream: TcpStream,
    session: ServerConnection,
    /// Octets may be left in the session: the socket does not tell of them.
    buffered: bool,
}

impl Stream {
    pub(super) fn tls(stream: TcpStream, session: ServerConnection) -> Self {
        Self::Tls(Box::new(Tls {
            stream,
            session,
            // What came with the end of the handshake.
            buffered: true,
        }))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.stream,
        }
    }

    /// Waits until a read may give something.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.buffered => Ok(()),
            _ => self.socket().readable().await,
        }
    }

    /// Reads what there is, 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is there.
    pub(super) fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => read_out(stream, into),
            Self::Tls(tls) => tls.try_read(into),
        }
    }

    /// Writes until all is written or the client's window is full; returns how much was taken.
    pub(super) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                let mut done = 0;
                while done < bytes.len() {
                    match stream.try_write(&bytes[done..]) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(n) => done += n,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) => return Err(e),
                    }
                }
                Ok(done)
            }
            Self::Tls(tls) => tls.write_some(bytes),
        }
    }

    /// Whether octets taken have not been written to the socket.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.wants_write())
    }

    /// Says that no more comes from here.
    pub(super) fn say_goodbye(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            // The client may not read any more; then it needs no goodbye.
            let _ = tls.push();
        }
        let _ = socket2::SockRef::from(self.socket()).shutdown(std::net::Shutdown::Write);
    }
}

impl Tls {
    fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            match self.session.reader().read(&mut into[filled..]) {
                // Only an orderly end gives 0 here, for there is room.
                Ok(0) if filled < into.len() => {
                    self.buffered = filled > 0;
                    return Ok(filled);
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The end without a goodbye: for messages that say how long they are it is as good.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.buffered = filled > 0;
                    return Ok(filled);
                }
                Err(e) => return Err(e),
            }
            if filled == into.len() {
                self.buffered = true;
                return Ok(filled);
            }
            match self.session.read_tls(&mut Socket(&self.stream)) {
                Ok(_) => {
                    if let Err(error) = self.session.process_new_packets() {
                        // The alert that says why.
                        let _ = self.push();
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.buffered = false;
                    // Answers to key updates.
                    self.push()?;
                    return if filled > 0 { Ok(filled) } else { Err(e) };
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let mut done = 0;
        while done < bytes.len() && !self.session.wants_write() {
            let piece = bytes.len().min(done + PIECE);
            done += self.session.writer().write(&bytes[done..piece])?;
            self.push()?;
        }
        Ok(done)
    }

    /// Writes what the session has, as far as the client's window goes.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Reads once. Less than there is room for means that the socket is empty: it need not be asked again to be waited for,
/// which saves a system call for every one that gives something.
fn read_out(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let mut got = None;
    let read = stream.try_io(Interest::READABLE, || {
        let n = rustix::io::read(stream, &mut *into)?;
        if (1..into.len()).contains(&n) {
            got = Some(n);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    got.map_or(read, Ok)
}

/// The socket as TLS wants it.
struct Socket<'s>(&'s TcpStream);

impl io::Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Encrypted at once: below what a session takes.
const PIECE: usize = 32 << 10;
