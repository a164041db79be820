//! A link between two processes that carries so much and no more, and may turn bytes over.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A link to a port of 127.0.0.1, by a port of its own.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where it begins.
    pub(crate) port: u16,
    lies: Arc<AtomicBool>,
}

impl Link {
    /// Carries `rate` bytes per second from `port`, all connections together.
    pub(crate) fn to(port: u16, rate: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let lies = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        // Nanoseconds since the beginning until which the link is taken.
        let taken = Arc::new(AtomicU64::new(0));
        let carried = lies.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    continue;
                };
                forward(&client, &server, |_| {});
                let (taken, lies) = (taken.clone(), carried.clone());
                forward(&server, &client, move |bytes| {
                    let now = u64::try_from(begin.elapsed().as_nanos()).expect("some years");
                    let cost = bytes.len() as u64 * 1_000_000_000 / rate;
                    let claim = |taken: u64| Some(taken.max(now) + cost);
                    let before = taken
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim)
                        .expect("a claim is always made");
                    thread::sleep(Duration::from_nanos(before.saturating_sub(now)));
                    // Heads are short: what is long is of a body.
                    if bytes.len() >= LONG && lies.load(Ordering::Relaxed) {
                        let last = bytes.len() - 1;
                        bytes[last] ^= 1;
                    }
                });
            }
        });
        Self { port: own, lies }
    }

    /// From now on a bit is turned over in all bodies that pass.
    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
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
