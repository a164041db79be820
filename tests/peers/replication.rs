//! Replication of a large object between two real nodes, the mirror killed at random points.
//!
//! `REPLICATION_SEED=N` repeats a run's random choices; each run prints its seed. `REPLICATION_KILLS=100` kills as often: that is
//! the whole of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::harness::{COMMON, Node, noise, poll, sha256};
use super::link::Link;

/// Bytes of the object.
const SIZE: usize = 256 << 20;

/// Bytes of a chunk: small, so that every kill loses little of a short way.
const CHUNK: usize = 256 << 10;

/// Chunks the mirror has in flight.
const IN_FLIGHT: usize = 4;

/// Kills: 20, or `REPLICATION_KILLS`.
fn kills() -> usize {
    std::env::var("REPLICATION_KILLS").map_or(20, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("REPLICATION_KILLS: found {text:?}, expected a number"))
    })
}

/// What the link between the nodes carries, bytes per second: the mirror is killed while it fills, not between.
const RATE: u64 = 40 << 20;

#[test]
fn mirror_killed_at_random_points_has_no_wrong_byte_and_refetches_little() {
    let mut random = Random::new();
    let count = kills();
    let truth: Arc<Vec<u8>> = Arc::new(noise(random.seed, SIZE));

    let mut origin = Node::new(&format!(
        "{COMMON}\n[store]\nchunk = \"{} KiB\"\n[[publish]]\nprefix = \"/\"\ndir = \"@DIR@/content\"\n",
        CHUNK >> 10
    ));
    let file = origin.write("content/video.bin", truth.as_slice());
    origin.start();
    poll(Duration::from_secs(60), "the origin to publish", || {
        get(origin.http, "/video.bin", Some(0..1)).filter(|answer| answer.status == 206)
    });

    let link = Link::to(origin.http, RATE);
    let mut mirror = Node::new(&format!(
        "{COMMON}\n[[mirror]]\nprefix = \"/\"\nfrom = [\"http://127.0.0.1:{}\"]\ninterval = \"200ms\"\n\
         in_flight = {IN_FLIGHT}\n",
        link.port
    ));
    let readers = Readers::start(mirror.http, &truth, random.next());

    // Where it is killed is said in bytes that came, not in time: so the points are spread over all of the object, and the fill is
    // not over before the last, however fast or slow the machine is.
    let slack = SIZE as u64 / 10 / count as u64;
    let mut left = SIZE as u64 * 9 / 10;
    let mut kills = Vec::new();
    for kill in 0..count {
        let most = (2 * left / (count - kill) as u64).min(left).max(1);
        let after = random.below(most);
        left -= after;
        let point = link.came() + after;
        link.allow(point + slack);
        mirror.spawn();
        poll(Duration::from_secs(60), "the fill to go on", || {
            (link.came() >= point).then_some(())
        });
        mirror.kill();
        kills.push((after >> 10, link.asked()));
    }
    println!("kills as (KiB that came before it, chunks asked for in all): {kills:?}");
    let before = link.asked();
    link.allow(u64::MAX);
    mirror.start();
    poll(Duration::from_secs(120), "the mirror to be whole", || {
        let whole = [("state", "whole")];
        (mirror.metric("headwater_replication_objects", &whole) == 1.0).then_some(())
    });
    let asked = link.asked();
    assert!(
        asked > before,
        "the fill was over before the last kill: {kills:?}"
    );

    // All of it, over HTTP.
    let whole = get(mirror.http, "/video.bin", None).expect("the mirror serves");
    assert_eq!((whole.status, whole.body.len()), (200, SIZE));
    let copy = mirror.write("copy.bin", &whole.body);
    assert_eq!(sha256(&copy), sha256(&file));

    let read = readers.stop();
    println!("{read:?}");
    assert_eq!(read.wrong, 0, "wrong bytes were served");
    assert!(read.bytes > 0, "nothing was read while it filled");

    // A kill costs what was on its way: each of the streams has its chunk fetched once more, at most. Counted by what is asked for:
    // bytes that the origin has sent lie in buffers between the nodes, and are no measure.
    let again = asked - SIZE / CHUNK;
    println!("refetched: {again} chunks in {count} kills");
    assert!(
        again <= count * IN_FLIGHT,
        "{again} chunks fetched again in {count} kills"
    );
    fs::remove_file(copy).expect("it was just written");
}

/// What the readers saw.
#[derive(Debug, Default)]
struct Seen {
    /// Answers with bytes of the object, and those bytes.
    answers: u64,
    bytes: u64,
    /// Bytes that were not the object's.
    wrong: u64,
}

/// Readers of random ranges and from random places, until stopped; each byte is compared.
struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Seen>>,
}

impl Readers {
    fn start(port: u16, truth: &Arc<Vec<u8>>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..3).map(|number| {
            let (stop, truth) = (stop.clone(), truth.clone());
            let mut random = Random {
                seed: seed ^ number,
            };
            thread::spawn(move || {
                let mut read = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    let start = usize::try_from(random.below(SIZE as u64)).expect("below SIZE");
                    let length = match number {
                        0 => 100 << 10,
                        _ => usize::try_from(random.below(8 << 20)).expect("8 MiB") + 1,
                    };
                    let range = start..SIZE.min(start + length);
                    let Some(answer) = get(port, "/video.bin", Some(range.clone())) else {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    if answer.status != 206 {
                        continue;
                    }
                    // An answer cut off by a kill must be right as far as it goes.
                    let expected = &truth[range][..answer.body.len()];
                    let wrong = answer.body.iter().zip(expected).filter(|(a, b)| a != b);
                    read.wrong += wrong.count() as u64;
                    read.answers += 1;
                    read.bytes += answer.body.len() as u64;
                }
                read
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .map(|thread| thread.join().expect("a reader does not panic"))
            .fold(Seen::default(), |all, one| Seen {
                answers: all.answers + one.answers,
                bytes: all.bytes + one.bytes,
                wrong: all.wrong + one.wrong,
            })
    }
}

/// An answer, its body as far as it came.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// One GET over a connection of its own; `None` when nobody answered.
fn get(port: u16, path: &str, range: Option<Range<usize>>) -> Option<Answer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let range = range.map_or(String::new(), |range| {
        format!("Range: bytes={}-{}\r\n", range.start, range.end - 1)
    });
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{range}Connection: close\r\n\r\n"
    )
    .ok()?;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // What came before an error counts.
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = bytes.split_off(end + 4);
    Some(Answer { status, body })
}

/// Numbers that look random (SplitMix64).
struct Random {
    seed: u64,
}

impl Random {
    /// From `REPLICATION_SEED` or the clock; says which.
    fn new() -> Self {
        let now = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map(|d| d.as_nanos())
        };
        let seed = match std::env::var("REPLICATION_SEED") {
            Ok(seed) => seed.parse().expect("REPLICATION_SEED is a number"),
            Err(_) => now().map_or(1, |nanos| nanos as u64),
        };
        println!("REPLICATION_SEED={seed}");
        Self { seed }
    }

    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
