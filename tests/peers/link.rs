//! A link between two processes that carries so much and no more, may turn bytes over, and counts chunks asked for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A link to a port of 127.0.0.1, by a port of its own.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where it begins.
    pub(crate) port: u16,
    seam: Arc<Seam>,
}

/// What went over it, and what may.
#[derive(Debug)]
struct Seam {
    lies: AtomicBool,
    /// Bytes that came from the other side.
    came: AtomicU64,
    /// Beyond as many it stands still.
    allowed: AtomicU64,
    /// Chunks that were asked for.
    asked: AtomicUsize,
    /// Nanoseconds since the beginning until which it is taken.
    taken: AtomicU64,
}

impl Seam {
    /// Waits for the turn of `bytes` at `rate` bytes per second.
    fn pace(&self, begin: Instant, bytes: usize, rate: u64) {
        while self.came.load(Ordering::Relaxed) >= self.allowed.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        let now = u64::try_from(begin.elapsed().as_nanos()).expect("some years");
        let cost = bytes as u64 * 1_000_000_000 / rate;
        let claim = |taken: u64| Some(taken.max(now) + cost);
        let before = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim)
            .expect("a claim is always made");
        thread::sleep(Duration::from_nanos(before.saturating_sub(now)));
    }
}

impl Link {
    /// Carries `rate` bytes per second from `port`, all connections together.
    pub(crate) fn to(port: u16, rate: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let seam = Arc::new(Seam {
            lies: AtomicBool::new(false),
            came: AtomicU64::new(0),
            allowed: AtomicU64::new(u64::MAX),
            asked: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        });
        let begin = Instant::now();
        let carried = seam.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    continue;
                };
                let (asks, answers) = (carried.clone(), carried.clone());
                let mut before = Vec::new();
                forward(&client, &server, move |bytes| {
                    // A request may lie in two reads.
                    before.extend_from_slice(bytes);
                    let found = before.windows(ASK.len()).filter(|w| *w == ASK).count();
                    asks.asked.fetch_add(found, Ordering::Relaxed);
                    before.drain(..before.len().saturating_sub(ASK.len() - 1));
                });
                forward(&server, &client, move |bytes| {
                    answers.pace(begin, bytes.len(), rate);
                    // Heads are short: what is long is of a body.
                    if bytes.len() >= LONG && answers.lies.load(Ordering::Relaxed) {
                        let last = bytes.len() - 1;
                        bytes[last] ^= 1;
                    }
                    answers
                        .came
                        .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                });
            }
        });
        Self { port: own, seam }
    }

    /// Bytes that came from the other side.
    pub(crate) fn came(&self) -> u64 {
        self.seam.came.load(Ordering::Relaxed)
    }

    /// Beyond as many bytes that came it stands still.
    pub(crate) fn allow(&self, bytes: u64) {
        self.seam.allowed.store(bytes, Ordering::Relaxed);
    }

    /// Chunks that were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.seam.asked.load(Ordering::Relaxed)
    }

    /// From now on a bit is turned over in all bodies that pass.
    pub(crate) fn lie(&self) {
        self.seam.lies.store(true, Ordering::Relaxed);
    }
}

/// Copies one direction of a connection on a thread of its own until either side is gone.
fn forward(from: &TcpStream, to: &TcpStream, mut pass: impl FnMut(&mut [u8]) + Send + 'static) {
    let mut from = from.try_clone().expect("a socket can be shared");
    let mut to = to.try_clone().expect("a socket can be shared");
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = &mut buffer[..length];
            pass(bytes);
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

const LONG: usize = 8 << 10;

/// How a request for a chunk begins.
const ASK: &[u8] = b"GET /.well-known/headwater/v1/chunk/";
