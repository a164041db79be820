//! What many clients that read slowly cost in memory: each reads one large object from a place of its own, a little at
//! a time, and all of them are in the midst of it at once.
//!
//! With 200 clients of a 64 MiB object, or `HEADWATER_READERS`: `HEADWATER_READERS=1000 cargo test --release --test peers
//! readers -- --nocapture` is the whole of it, with an object of 1 GiB.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::harness::{COMMON, Node, poll};

const MIB: u64 = 1 << 20;

/// What all of a thousand may take beyond an idle server. 31 MiB were measured.
const OF_A_THOUSAND: u64 = 40 * MIB;

/// What of that does not depend on how many there are: buffers for what is read and digested at once, and large parts for
/// the first clients.
const OF_THE_FIRST: u64 = 16 * MIB;

/// What each reads in one turn.
const TURN: usize = 64 << 10;

/// A client in the midst of its body.
struct Reader {
    stream: socket2::Socket,
    /// Where in the object its next byte lies.
    at: u64,
}

/// The object's bytes: each word is where it lies, turned into something else.
fn word(at: u64) -> [u8; 8] {
    (at / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

fn make(file: &Path, size: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file).expect("writable"));
    for at in (0..size).step_by(8) {
        out.write_all(&word(at)).expect("there is room");
    }
    out.flush().expect("there is room");
}

impl Reader {
    /// Asks for all of the object from `from` on.
    fn ask(address: SocketAddr, from: u64) -> Self {
        let kind = socket2::Type::STREAM;
        let stream = socket2::Socket::new(socket2::Domain::IPV4, kind, None).expect("a socket");
        // So that what it does not read is seen by the server soon.
        stream.set_recv_buffer_size(16 << 10).expect("settable");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("settable");
        stream.connect(&address.into()).expect("the node listens");
        let head = format!("GET /video.bin HTTP/1.1\r\nHost: test\r\nRange: bytes={from}-\r\n\r\n");
        (&stream).write_all(head.as_bytes()).expect("sent");
        Self { stream, at: from }
    }

    fn head(&self) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            (&self.stream).read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 206 "),
            "{}",
            head.escape_ascii()
        );
    }

    /// Takes the next bytes, which are the right ones.
    fn read(&mut self, buffer: &mut [u8]) {
        (&self.stream).read_exact(buffer).expect("a body");
        for (word_at, found) in (self.at..).step_by(8).zip(buffer.chunks(8)) {
            assert_eq!(found, word(word_at), "at {word_at}");
        }
        self.at += buffer.len() as u64;
    }
}

/// Memory of a process that no file stands behind, bytes.
fn anonymous(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let words: Vec<&str> = line.expect("Linux says so").split_whitespace().collect();
    words[1].parse::<u64>().expect("a number") * 1_024
}

#[test]
fn many_slow_readers_of_a_large_object_keep_to_the_memory_each_may_take() {
    let count: u64 = std::env::var("HEADWATER_READERS").map_or(200, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("HEADWATER_READERS: found {text:?}, expected a number"))
    });
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).expect("up to the hard limit it may be raised");
    // Chunks kept in memory have a bound of their own (`store.memory`).
    let mut node = Node::new(
        &format!(
            "{COMMON}\n[store]\nmemory = \"0 B\"\n[[publish]]\nprefix = \"/\"\ndir = \"@DIR@/content\"\n"
        )
        .replace("[http]\n", "[http]\nconnections_per_address = 10000\n"),
    );
    let size = if count >= 1_000 { 1 << 30 } else { 64 * MIB };
    fs::create_dir(node.path("content")).expect("the temporary directory is writable");
    make(&node.path("content/video.bin"), size);
    node.start();
    poll(Duration::from_secs(120), "the object", || {
        (node.metric("headwater_content_objects", &[("role", "origin")]) > 0.0).then_some(())
    });
    let pid = node.pid().as_raw_pid();
    let idle = anonymous(pid);
    let address = SocketAddr::from(([127, 0, 0, 1], node.http));
    // Far enough from the end for all that is read, and for all that buffers hold.
    let step = (size - 16 * MIB) / count / 8 * 8;
    let mut readers: Vec<Reader> = (0..count)
        .map(|reader| Reader::ask(address, reader * step))
        .collect();
    readers.iter().for_each(Reader::head);
    assert_eq!(node.metric("headwater_http_bodies", &[]) as u64, count);
    let mut buffer = vec![0; TURN];
    let mut most = 0;
    for _ in 0..20 {
        for reader in &mut readers {
            reader.read(&mut buffer);
        }
        most = most.max(anonymous(pid));
    }
    let taken = most.saturating_sub(idle);
    let line = format!(
        "{count} clients: {} KiB beyond the {} MiB of an idle server, {} KiB each",
        taken >> 10,
        idle / MIB,
        (taken / count) >> 10
    );
    println!("{line}");
    let each = (OF_A_THOUSAND - OF_THE_FIRST) / 1_000;
    assert!(taken <= OF_THE_FIRST + each * count, "{line}");
    for reader in &mut readers {
        reader.read(&mut buffer);
    }
    drop(readers);
    poll(Duration::from_secs(20), "the bodies to end", || {
        (node.metric("headwater_http_bodies", &[]) as u64 == 0).then_some(())
    });
    assert!(node.stop().success());
}
