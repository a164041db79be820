//! The thread that writes the query log: to a file, and to a dnstap collector.
//!
//! The file's faults and the collector's are each said once when they begin; what cannot be written meanwhile is dropped and
//! counted. A collector that is not there is tried again, first after a second, at last every half minute.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::IntCounter;
use rtrb::Consumer;

use super::dnstap::{self, CONTROL_MAX, Control};
use super::record::{HEAD_LEN, Record};
use super::{Shared, json, lock};
use crate::time::Now;

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    rings: Vec<Consumer<u8>>,
    file: Option<File>,
    faulty: bool,
    collector: Option<UnixStream>,
    /// When the collector is tried next, and how long to wait after that.
    retry: (Now, Duration),
    lines: Batch,
    frames: Batch,
    scratch: Vec<u8>,
}

/// What is written with the next call.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    records: u64,
    written: IntCounter,
    dropped: IntCounter,
}

impl Writer {
    /// Opens the file.
    pub(super) fn open(shared: Arc<Shared>) -> io::Result<Self> {
        let file = shared.config.queries.as_deref().map(append).transpose()?;
        let batch = |sink| Batch {
            bytes: Vec::new(),
            records: 0,
            written: shared.metrics.dns.log_written(sink),
            dropped: shared.metrics.dns.log_dropped(sink),
        };
        Ok(Self {
            rings: Vec::new(),
            file,
            faulty: false,
            collector: None,
            retry: (Now::read(), RETRY_MIN),
            lines: batch("queries"),
            frames: batch("dnstap"),
            scratch: Vec::new(),
            shared,
        })
    }

    /// Writes until told to stop, and then what is left.
    pub(super) fn run(mut self) {
        loop {
            let stopping = self.shared.stop.load(Ordering::Acquire);
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            self.connect();
            self.rings.append(&mut lock(&self.shared.rings));
            self.drain();
            self.rings
                .retain(|ring| !ring.is_abandoned() || !ring.is_empty());
            if stopping {
                self.part();
                return;
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Empties the rings.
    fn drain(&mut self) {
        for index in 0..self.rings.len() {
            // As much as a ring holds: whoever fills it faster than this does not hold up the others.
            let mut left = self.shared.config.buffer;
            while left > 0 {
                let Some(taken) = self.take(index) else {
                    break;
                };
                left = left.saturating_sub(taken);
                if self.lines.bytes.len().max(self.frames.bytes.len()) >= BATCH {
                    self.flush();
                }
            }
        }
        self.flush();
    }

    /// Takes one record out of a ring; `None`: there is no whole one.
    fn take(&mut self, index: usize) -> Option<usize> {
        let ring = &mut self.rings[index];
        let mut head = [0; HEAD_LEN];
        {
            let chunk = ring.read_chunk(HEAD_LEN).ok()?;
            let (first, second) = chunk.as_slices();
            head[..first.len()].copy_from_slice(first);
            head[first.len()..].copy_from_slice(second);
        }
        let behind = Record::len_behind(&head);
        if ring.slots() < HEAD_LEN + behind {
            return None;
        }
        self.scratch.resize(HEAD_LEN + behind, 0);
        ring.pop_entire_slice(&mut self.scratch).ok()?;
        if let Some(record) = Record::read(&head, &self.scratch[HEAD_LEN..]) {
            if record.sampled {
                json::write(&record, &mut self.lines.bytes);
                self.lines.records += 1;
            }
            if self.collector.is_some() {
                let identity = self.shared.config.identity.as_bytes();
                self.frames.records += dnstap::write(&record, identity, &mut self.frames.bytes);
            } else if self.shared.config.dnstap.is_some() {
                self.frames.dropped.inc();
            }
        }
        Some(HEAD_LEN + behind)
    }

    fn flush(&mut self) {
        if !self.lines.bytes.is_empty() {
            let result = match &mut self.file {
                Some(file) => file.write_all(&self.lines.bytes),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            self.lines.end(result.is_ok());
            self.said(result);
        }
        if !self.frames.bytes.is_empty() {
            let result = match &mut self.collector {
                Some(collector) => collector.write_all(&self.frames.bytes),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            self.frames.end(result.is_ok());
            if let Err(error) = result {
                // Part of a frame may have left: the stream is of no use any more.
                self.collector = None;
                tracing::warn!(%error, "dnstap: the collector is gone");
            }
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.shared.config.queries else {
            return;
        };
        match append(path) {
            Ok(file) => {
                self.file = Some(file);
                self.said(Ok(()));
            }
            Err(error) => self.said(Err(error)),
        }
    }

    /// Says that the file is at fault, or well again, when that changes.
    fn said(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if !self.faulty => {
                tracing::error!(%error, "query log: not written; lines are dropped");
                self.faulty = true;
            }
            Ok(()) if self.faulty => {
                tracing::info!("query log: written again");
                self.faulty = false;
            }
            _ => {}
        }
    }

    /// Goes to the collector, if there is one and it is time.
    fn connect(&mut self) {
        let now = Now::read();
        let Some(path) = &self.shared.config.dnstap else {
            return;
        };
        if self.collector.is_some() || now < self.retry.0 {
            return;
        }
        match handshake(path) {
            Ok(collector) => {
                tracing::info!(socket = %path.display(), "dnstap: connected");
                self.collector = Some(collector);
                self.retry.1 = RETRY_MIN;
            }
            Err(error) => {
                if self.retry.1 == RETRY_MIN {
                    tracing::warn!(socket = %path.display(), %error, "dnstap: no collector; tried again");
                }
                self.retry.1 = (self.retry.1 * 2).min(RETRY_MAX);
            }
        }
        self.retry.0 = Now::read().plus(self.retry.1);
    }

    /// Ends the stream, so that the collector knows that it has everything.
    fn part(&mut self) {
        if let Some(mut collector) = self.collector.take() {
            // Whatever fails now, nothing more can be done.
            let _ = collector.write_all(&Control::Stop.frame());
            let _ = control(&mut collector);
        }
    }
}

impl Batch {
    fn end(&mut self, good: bool) {
        let counter = if good { &self.written } else { &self.dropped };
        counter.inc_by(self.records);
        self.records = 0;
        self.bytes.clear();
    }
}

/// Connects and agrees on what is sent.
fn handshake(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&Control::Ready.frame())?;
    match control(&mut stream)? {
        (Control::Accept, true) => {}
        (found, _) => {
            let message = format!("found {found:?}, expected ACCEPT of protobuf:dnstap.Dnstap");
            return Err(io::Error::other(message));
        }
    }
    stream.write_all(&Control::Start.frame())?;
    Ok(stream)
}

/// Reads one control frame.
fn control(stream: &mut UnixStream) -> io::Result<(Control, bool)> {
    let bad = || io::Error::other("found no control frame of Frame Streams, expected one");
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let [0, 0, 0, 0, length @ ..] = head else {
        return Err(bad());
    };
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| bad())?;
    if length > CONTROL_MAX {
        return Err(bad());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Control::read(&body).ok_or_else(bad)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// How often the rings are looked into.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes written with one call, about.
const BATCH: usize = 256 << 10;

/// How long a collector may leave us waiting.
const PATIENCE: Duration = Duration::from_secs(1);

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::{Config, Entry, Log};
    use super::*;
    use crate::dns::{Outcome, Transport};
    use crate::metrics::Metrics;

    #[test]
    fn collector_gets_a_handshake_frames_and_an_end_and_may_come_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tap");
        let metrics = Arc::new(Metrics::new());
        let config = Config {
            queries: None,
            sample: 1.0,
            dnstap: Some(path.clone()),
            buffer: 64 << 10,
            identity: String::from("a"),
        };
        let listener = UnixListener::bind(&path).unwrap();
        let log = Log::open(config, Arc::clone(&metrics)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(control(&mut stream).unwrap(), (Control::Ready, true));
        stream.write_all(&Control::Accept.frame()).unwrap();
        assert_eq!(control(&mut stream).unwrap(), (Control::Start, true));
        log.put(&Entry {
            received: Now::read(),
            client: "192.0.2.1".parse().unwrap(),
            transport: Transport::Udp,
            outcome: Outcome::Resolved,
            query: b"question",
            answer: b"the answer",
        });
        let mut payloads = Vec::new();
        for _ in 0..2 {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut payload = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut payload).unwrap();
            payloads.push(payload);
        }
        let has = |payload: &[u8], part: &[u8]| payload.windows(part.len()).any(|w| w == part);
        assert!(has(&payloads[0], b"question"));
        assert!(has(&payloads[1], b"the answer"));
        let reader = std::thread::spawn(move || {
            let stop = control(&mut stream).unwrap();
            stream.write_all(&Control::Finish.frame()).unwrap();
            stop
        });
        log.close();
        assert_eq!(reader.join().unwrap().0, Control::Stop);
        assert_eq!(metrics.dns.log_written("dnstap").get(), 2);
    }

    #[test]
    fn without_a_collector_frames_are_counted_as_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let config = Config {
            queries: None,
            sample: 1.0,
            dnstap: Some(dir.path().join("nobody")),
            buffer: 64 << 10,
            identity: String::new(),
        };
        let log = Log::open(config, Arc::clone(&metrics)).unwrap();
        log.put(&Entry {
            received: Now::read(),
            client: "192.0.2.1".parse().unwrap(),
            transport: Transport::Udp,
            outcome: Outcome::Resolved,
            query: b"question",
            answer: b"the answer",
        });
        log.close();
        assert_eq!(metrics.dns.log_dropped("dnstap").get(), 1);
    }
}
