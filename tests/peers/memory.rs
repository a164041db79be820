//! What the resolver cache holds in its bytes, and what the process really takes for it, beside Unbound.
//!
//! With caches of 64 MiB, or of `HEADWATER_MEMORY_MIB`: `HEADWATER_MEMORY_MIB=256 cargo test --release --test peers memory -- --nocapture`
//! is the whole of it.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::harness::{COMMON, Node, Process, READY, free_port, poll, tool};

const MIB: usize = 1 << 20;

/// What the process may take beyond the cache's size.
const BESIDE: usize = 48 * MIB;

fn size() -> usize {
    std::env::var("HEADWATER_MEMORY_MIB").map_or(64, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("HEADWATER_MEMORY_MIB: found {text:?}, expected a number"))
    }) * MIB
}

/// An upstream that has one address for every name, and counts.
struct Upstream {
    port: u16,
    asked: Arc<AtomicUsize>,
    ttl: Arc<AtomicU32>,
}

impl Upstream {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let (asked, ttl) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicU32::new(1)));
        let (count, life) = (Arc::clone(&asked), Arc::clone(&ttl));
        thread::spawn(move || {
            let mut packet = [0; 1_500];
            while let Ok((length, client)) = socket.recv_from(&mut packet) {
                count.fetch_add(1, Ordering::Relaxed);
                let name = packet[12..length].iter().position(|&octet| octet == 0);
                let end = 12 + name.expect("a name ends") + 5;
                packet[2..4].copy_from_slice(&[0x81, 0x80]);
                packet[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
                packet[end..end + 6].copy_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
                let ttl = life.load(Ordering::Relaxed).to_be_bytes();
                packet[end + 6..end + 10].copy_from_slice(&ttl);
                packet[end + 10..end + 16].copy_from_slice(&[0, 4, 192, 0, 2, 1]);
                let _ = socket.send_to(&packet[..end + 16], client);
            }
        });
        Self { port, asked, ttl }
    }
}

/// Asks the server on `port` for the names of these numbers, some at a time, until each was answered.
fn ask(port: u16, numbers: impl Iterator<Item = usize>) {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.connect(("127.0.0.1", port)).expect("loopback");
    let limit = Some(Duration::from_millis(500));
    client.set_read_timeout(limit).expect("not zero");
    let mut numbers = numbers.peekable();
    let mut waiting = vec![None; 1 << 16];
    let (mut id, mut open) = (0_u16, 0);
    let (mut packet, mut buffer) = (Vec::new(), [0; 1_500]);
    let mut send = |id: u16, n: usize| {
        packet.clear();
        packet.extend(id.to_be_bytes());
        packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        packet.push(11);
        packet.extend(format!("host{n:07}").bytes());
        packet.extend(b"\x05bench\x04test\0\0\x01\0\x01");
        let _ = client.send(&packet);
    };
    let deadline = Instant::now() + Duration::from_secs(900);
    while open > 0 || numbers.peek().is_some() {
        assert!(Instant::now() < deadline, "it takes too long");
        while open < 100
            && let Some(n) = numbers.next()
        {
            send(id, n);
            waiting[usize::from(id)] = Some(n);
            id = id.wrapping_add(1);
            open += 1;
        }
        match client.recv(&mut buffer) {
            Ok(_) => {
                let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                // A failure is asked about again by nobody: it is not held then.
                open -= usize::from(waiting[id].take().is_some());
            }
            Err(_) => {
                for (id, n) in waiting.iter().enumerate() {
                    if let Some(n) = n {
                        send(id as u16, *n);
                    }
                }
            }
        }
    }
}

/// Anonymous memory of a process, bytes.
fn memory(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let words: Vec<&str> = line.expect("Linux says so").split_whitespace().collect();
    words[1].parse::<usize>().expect("a number") * 1_024
}

/// What a cache was found to hold, and what its process takes beyond what it took when idle.
#[derive(Debug)]
struct Found {
    answers: usize,
    most: usize,
}

/// Fills the cache on `port`, replaces half of what it holds three times, fills it again; then looks.
fn measure(port: u16, pid: i32, upstream: &Upstream, names: usize) -> Found {
    let idle = memory(pid);
    upstream.ttl.store(1, Ordering::Relaxed);
    ask(port, 0..names);
    let mut most = memory(pid);
    for _ in 0..3 {
        // Of what was asked last, every other one: all have expired.
        ask(port, (names * 3 / 4..names).step_by(2));
        most = most.max(memory(pid));
    }
    upstream.ttl.store(86_400, Ordering::Relaxed);
    ask(port, names..names * 2);
    most = most.max(memory(pid));
    // Few enough that what they bring in pushes out hardly anything.
    let sample = names / 50;
    let before = upstream.asked.load(Ordering::Relaxed);
    ask(port, (0..sample).map(|n| names + n * 50 + n % 50));
    let missed = upstream.asked.load(Ordering::Relaxed) - before;
    Found {
        answers: names * sample.saturating_sub(missed) / sample,
        most: most.saturating_sub(idle),
    }
}

fn unbound(size: usize, upstream: u16) -> (Process, u16, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let port = free_port();
    let half = size / 2;
    let config = format!(
        "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{at}\"\n pidfile: \"\"\n \
         use-syslog: no\n do-daemonize: no\n num-threads: 1\n module-config: \"iterator\"\n access-control: 127.0.0.0/8 allow\n \
         do-not-query-localhost: no\n local-zone: \"test.\" nodefault\n msg-cache-size: {half}\n rrset-cache-size: {half}\n \
         outgoing-range: 900\n num-queries-per-thread: 400\n infra-cache-numhosts: 100\n\
         forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@{upstream}\nremote-control:\n control-enable: no\n",
        at = dir.path().display()
    );
    let file = dir.path().join("unbound.conf");
    fs::write(&file, config).expect("the directory is writable");
    let mut command = Command::new(tool("unbound"));
    command.arg("-d").arg("-c").arg(&file);
    let mut process = Process::spawn("unbound", command, dir.path().join("log"));
    poll(READY, "Unbound to answer", || {
        process.assert_running();
        super::harness::try_dig(port, &["first.bench.test", "A", "+time=1"])
    });
    (process, port, dir)
}

#[test]
fn cache_stays_within_its_bytes_under_churn_and_holds_no_less_than_unbound() {
    let size = size();
    let upstream = Upstream::start();
    // More than fit into either.
    let names = size / 100;
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nupstreams = [\"127.0.0.1:{}\"]\n[resolver.cache]\nsize = {size}\nsave = \"0s\"\n",
        upstream.port
    ));
    node.start();
    let ours = measure(node.dns, node.pid().as_raw_pid(), &upstream, names);
    let entries = node.metric("headwater_resolver_cache_entries", &[]) as usize;
    let bytes = node.metric("headwater_resolver_cache_bytes", &[]) as usize;
    node.stop();
    let (process, port, _dir) = unbound(size, upstream.port);
    let theirs = measure(port, process.pid().as_raw_pid(), &upstream, names);
    let line = format!(
        "{} MiB, of {names} names: headwater {ours:?} ({entries} entries, {bytes} bytes), Unbound {theirs:?}",
        size / MIB
    );
    eprintln!("{line}");
    assert!(ours.most <= size + BESIDE, "{line}");
    assert!(bytes <= size, "{line}");
    assert!(ours.answers >= theirs.answers, "{line}");
    // What was asked for last is part of what is held.
    assert!(ours.answers <= entries, "{line}");
}
