//! The query log: what was asked and answered, as JSON lines and as dnstap.
//!
//! From ground to roof: `record` (one exchange as bytes), `json` (as a line), `dnstap` (as a frame), `writer` (the thread
//! that writes both), [`Log`].
//!
//! Whoever answers copies query and answer into a ring of bytes of its own and goes on; nothing is allocated and nobody waits. The
//! writer looks into the rings ten times a second. What does not fit into a ring, or does not leave in time, is dropped
//! and counted.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use prometheus::IntCounter;
use rtrb::{Consumer, Producer, RingBuffer};

use self::record::Record;
use self::writer::Writer;
use super::{Outcome, Transport};
use crate::metrics::Metrics;
use crate::time::Now;

mod record;

mod json;

mod dnstap;

mod writer;

/// Settings of the query log.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file of JSON lines; `None`: off.
    pub queries: Option<PathBuf>,
    /// The share of queries that get a line, up to 1.
    pub sample: f64,
    /// The Unix socket of a dnstap collector; `None`: off.
    pub dnstap: Option<PathBuf>,
    /// Bytes of each ring: one for every UDP worker, one for all else.
    pub buffer: usize,
    /// Who this node is to the collector.
    pub identity: String,
}

/// The query log at work.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    /// For whoever has no ring of its own.
    tap: Mutex<Tap>,
    thread: Mutex<Option<JoinHandle<()>>>,
    seed: Mutex<u64>,
}

/// What the writer and the handle share.
#[derive(Debug)]
struct Shared {
    config: Config,
    /// Rings that the writer has not taken over yet.
    rings: Mutex<Vec<Consumer<u8>>>,
    reopen: AtomicBool,
    stop: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Where one thread leaves what it has answered.
#[derive(Debug)]
pub struct Tap {
    ring: Producer<u8>,
    random: u64,
    /// A random number up to this gets a line; `None`: none does.
    sample: Option<u64>,
    dnstap: bool,
    dropped: IntCounter,
}

impl Log {
    /// Opens the file and starts the writer; the collector may come later.
    ///
    /// # Errors
    /// What the kernel said of the file or the thread.
    pub fn open(config: Config, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            config,
            rings: Mutex::default(),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            metrics,
        });
        let writer = Writer::open(Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("dns-log".into())
            .spawn(move || writer.run())?;
        let mut seed = Now::read().mono_ns;
        Ok(Self {
            tap: Mutex::new(shared.tap(&mut seed)),
            shared,
            thread: Mutex::new(Some(thread)),
            seed: Mutex::new(seed),
        })
    }

    /// A ring for one thread.
    #[must_use]
    pub fn tap(&self) -> Tap {
        self.shared.tap(&mut lock(&self.seed))
    }

    /// Leaves one exchange in the ring of all who have none.
    pub(super) fn put(&self, entry: &Entry<'_>) {
        lock(&self.tap).put(entry);
    }

    /// Has the file opened anew (it was renamed away by a log rotation).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Writes what is in the rings and ends. Blocking: some seconds if the collector is stuck.
    pub fn close(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the writer has been said by the panic hook.
            let _ = thread.join();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.thread().unpark();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn tap(&self, seed: &mut u64) -> Tap {
        let (producer, consumer) = RingBuffer::new(self.config.buffer);
        lock(&self.rings).push(consumer);
        *seed = seed.wrapping_add(STEP);
        Tap {
            ring: producer,
            random: *seed,
            sample: self
                .config
                .queries
                .as_ref()
                .map(|_| threshold(self.config.sample)),
            dnstap: self.config.dnstap.is_some(),
            dropped: self.metrics.dns.log_dropped("ring"),
        }
    }
}

/// One query and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) received: Now,
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) outcome: Outcome,
    pub(super) query: &'a [u8],
    /// Empty: there was no answer.
    pub(super) answer: &'a [u8],
}

impl Tap {
    /// Leaves one exchange, if it is to be logged. Allocates nothing and waits for nobody.
    pub(super) fn put(&mut self, entry: &Entry<'_>) {
        let sampled = self
            .sample
            .is_some_and(|sample| random(&mut self.random) <= sample);
        if !sampled && !self.dnstap {
            return;
        }
        let took = Now::read().since(entry.received);
        // A line needs the header of the answer only.
        let kept = if self.dnstap {
            usize::MAX
        } else {
            record::HEADER
        };
        let answer = &entry.answer[..entry.answer.len().min(kept)];
        let record = Record {
            unix_ms: entry.received.unix_ms,
            took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            client: entry.client,
            transport: entry.transport,
            outcome: entry.outcome,
            sampled,
            answer_len: u16::try_from(entry.answer.len()).unwrap_or(u16::MAX),
            query: entry.query,
            answer,
        };
        let head = record.head();
        if self.ring.slots() < head.len() + record.query.len() + answer.len() {
            self.dropped.inc();
            return;
        }
        for part in [&head[..], record.query, answer] {
            // There is room: nobody else writes here.
            let _ = self.ring.push_entire_slice(part);
        }
    }
}

/// The largest of all random numbers that are within `share` of them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of the whole range; the last bits do not matter"
)]
fn threshold(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

/// The next number (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(STEP);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(query: &'a [u8], answer: &'a [u8]) -> Entry<'a> {
        Entry {
            received: Now::read(),
            client: "192.0.2.1".parse().unwrap(),
            transport: Transport::Udp,
            outcome: Outcome::CacheHit,
            query,
            answer,
        }
    }

    fn config(dir: &std::path::Path) -> Config {
        Config {
            queries: Some(dir.join("queries.log")),
            sample: 1.0,
            dnstap: None,
            buffer: 4 << 10,
            identity: String::from("a"),
        }
    }

    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
    const ANSWER: &[u8] = b"\x12\x34\x81\x83\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";

    #[test]
    fn exchange_becomes_a_line_and_what_does_not_fit_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let log = Log::open(config(dir.path()), Arc::clone(&metrics)).unwrap();
        let mut tap = log.tap();
        tap.put(&entry(QUERY, ANSWER));
        log.put(&entry(QUERY, &[]));
        // Larger than the ring.
        tap.put(&entry(&[0; 5_000], &[]));
        log.close();
        let text = std::fs::read_to_string(dir.path().join("queries.log")).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        let line = lines.iter().find(|line| line["bytes"] == 29).unwrap();
        assert_eq!(line["name"], "www.example.");
        assert_eq!(
            (&line["type"], &line["rcode"]),
            (&"A".into(), &"NXDOMAIN".into())
        );
        assert_eq!(line["outcome"], "cache_hit");
        assert_eq!(metrics.dns.log_dropped("ring").get(), 1);
        assert_eq!(metrics.dns.log_written("queries").get(), 2);
    }

    #[test]
    fn share_of_the_queries_is_logged() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let config = Config {
            sample: 0.1,
            buffer: 8 << 20,
            ..config(dir.path())
        };
        let log = Log::open(config, Arc::clone(&metrics)).unwrap();
        let mut tap = log.tap();
        for _ in 0..10_000 {
            tap.put(&entry(QUERY, ANSWER));
        }
        log.close();
        let lines = metrics.dns.log_written("queries").get();
        assert!((800..1_200).contains(&lines), "{lines}");
    }

    #[test]
    fn file_renamed_away_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let config = config(dir.path());
        let path = config.queries.clone().unwrap();
        let log = Log::open(config, metrics).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        log.reopen();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !path.exists() {
            assert!(std::time::Instant::now() < deadline, "not opened anew");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
