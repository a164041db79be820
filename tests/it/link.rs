//! What replication, and each client, may take of the link, on real sockets: a node that other nodes fetch chunks from while viewers
//! read.
//!
//! Loopback carries far more than the link the node is told of, so viewers want all of it, and what replication gets is
//! what the node lets it have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use headwater::ftp::users;

use crate::harness::{Node, get, until};

/// 64 Mbit/s.
const CAPACITY: f64 = 8_000_000.0;

const SHARE: f64 = 0.3;

const CONFIG: &str = r#"
[node]
state = "state"
[dns]
listen = []
[resolver]
mode = "off"
[http]
listen = ["127.0.0.1:0"]
[metrics]
listen = "127.0.0.1:0"
[admin]
socket = "state/admin.sock"
[link]
capacity = "64 Mbit/s"
background_share = 0.3
[ftp]
listen = ["127.0.0.1:0"]
tls = "optional"
[[publish]]
dir = "content"
"#;

/// Clients that ask for the same again and again, and what they got so far.
struct Load {
    got: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(node: SocketAddr, head: &str, clients: usize) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, node, head, clients)
    }

    /// All of them are at `address`.
    fn from(address: Ipv4Addr, node: SocketAddr, head: &str, clients: usize) -> Self {
        let head = head.to_owned();
        Self::of(clients, move |got, stop| {
            let stream = connect(address, node);
            let mut reader = BufReader::new(&stream);
            while !stop.load(Ordering::Relaxed) {
                (&stream).write_all(head.as_bytes()).expect("sent");
                let (mut line, mut length) = (String::new(), 0);
                reader.read_line(&mut line).expect("a status line");
                assert!(line.starts_with("HTTP/1.1 200"), "{line}");
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).expect("a head");
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a length");
                    }
                }
                let taken = take(&mut reader, length, got, stop);
                assert!(
                    taken == length || stop.load(Ordering::Relaxed),
                    "it breaks off"
                );
            }
        })
    }

    /// FTP sessions at `address`, each with a transfer at a time.
    fn over_ftp(address: Ipv4Addr, node: SocketAddr, path: &str, sessions: usize) -> Self {
        let get = format!("RETR {path}");
        Self::of(sessions, move |got, stop| {
            let mut control = BufReader::new(connect(address, node));
            let mut ask = |command: &str, expected: &str| {
                if !command.is_empty() {
                    write!(control.get_mut(), "{command}\r\n").expect("sent");
                }
                let mut reply = String::new();
                control.read_line(&mut reply).expect("a reply");
                assert!(reply.starts_with(expected), "{command}: {reply}");
                reply
            };
            ask("", "220");
            ask("USER press", "331");
            ask("PASS geheim", "230");
            loop {
                let port = ask("EPSV", "229");
                let port = port.split('|').nth(3).and_then(|port| port.parse().ok());
                let data = SocketAddr::new(node.ip(), port.expect("a port"));
                let mut data = connect(address, data);
                ask(&get, "150");
                take(&mut data, usize::MAX, got, stop);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                ask("", "226");
            }
        })
    }

    fn of(clients: usize, work: impl Fn(&AtomicU64, &AtomicBool) + Send + Sync + 'static) -> Self {
        let (got, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let work = Arc::new(work);
        let client = |_| {
            let (got, stop, work) = (Arc::clone(&got), Arc::clone(&stop), Arc::clone(&work));
            thread::spawn(move || work(&got, &stop))
        };
        let clients = (0..clients).map(client).collect();
        Self { got, stop, clients }
    }

    fn got(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }

    /// Bytes per second over the next `time`.
    fn rate(&self, time: Duration) -> f64 {
        let (begun, before) = (Instant::now(), self.got());
        thread::sleep(time);
        (self.got() - before) as f64 / begun.elapsed().as_secs_f64()
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("what it got was right");
        }
    }
}

/// Takes `length` bytes, or all there are; fewer when it is to stop.
fn take(from: &mut impl Read, length: usize, got: &AtomicU64, stop: &AtomicBool) -> usize {
    let (mut buffer, mut all) = ([0; 16 << 10], 0);
    while all < length && !stop.load(Ordering::Relaxed) {
        let most = buffer.len().min(length - all);
        let taken = from.read(&mut buffer[..most]).expect("bytes");
        if taken == 0 {
            break;
        }
        all += taken;
        got.fetch_add(taken as u64, Ordering::Relaxed);
    }
    all
}

fn connect(from: Ipv4Addr, node: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("an address of loopback");
    socket.connect(&node.into()).expect("the node listens");
    socket.into()
}

/// A node that publishes an object of 4 MiB, and the requests for its second chunk and for all of it.
fn origin() -> (Node, SocketAddr, String) {
    let letters = "Sixteen letters.".repeat(4 << 16);
    let hash = users::hash("geheim", [7; 16], NonZeroU32::new(1_000).expect("not 0"));
    let users = format!("press:{hash}:/:r\n");
    let files = [("content/video.bin", &*letters), ("ftp.users", &*users)];
    let node = Node::start(CONFIG, &files);
    let address = node.address("http");
    let index = "/.well-known/headwater/v1/index?prefix=/";
    let mut id = None;
    until("the object to be published", || {
        let found = get(address, index, &[]);
        let index: serde_json::Value = serde_json::from_slice(&found.body).unwrap_or_default();
        let manifest = &index["objects"][0]["manifest"];
        id = manifest.as_str().map(str::to_owned);
        id.is_some()
    });
    let id = id.expect("it is published");
    let chunk = format!("/.well-known/headwater/v1/chunk/{id}/1");
    (node, address, chunk)
}

fn head(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n")
}

fn metric(node: &Node, name: &str) -> f64 {
    let page = get(node.address("metrics"), "/metrics", &[]);
    let text = String::from_utf8(page.body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.trim().parse().expect("a number")
}

#[test]
fn replication_uses_the_idle_link_yields_to_viewers_and_comes_back() {
    let (node, address, chunk) = origin();
    let background = Load::start(address, &head(&chunk, "Priority: u=7\r\n"), 6);
    until("the idle link to be used", || {
        background.rate(Duration::from_millis(500)) > 0.85 * CAPACITY
    });
    let idle = background.rate(Duration::from_secs(1));
    assert!(idle <= 1.02 * CAPACITY, "{idle} of {CAPACITY}");
    // A viewer comes. A tenth of a second after its first byte replication is down to its share.
    let viewer = Load::start(address, &head("/video.bin", ""), 1);
    while viewer.got() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(100));
    let yielded = background.rate(Duration::from_millis(500));
    assert!(
        yielded <= 1.1 * SHARE * CAPACITY,
        "{yielded} of {CAPACITY} with a viewer, {idle} without"
    );
    let going = background.rate(Duration::from_secs(1));
    assert!(going <= 1.05 * SHARE * CAPACITY, "{going} of {CAPACITY}");
    assert!(going >= 0.7 * SHARE * CAPACITY, "{going} of {CAPACITY}");
    let allowance = "headwater_link_background_allowance_bytes_per_second{direction=\"transmit\"}";
    assert_eq!(metric(&node, allowance).round(), SHARE * CAPACITY);
    let delayed = "headwater_link_background_delayed_bytes_total{direction=\"transmit\"}";
    assert!(metric(&node, delayed) > 0.0);
    viewer.end();
    until("replication to have the link again", || {
        background.rate(Duration::from_millis(500)) > 0.85 * CAPACITY
    });
    background.end();
}

#[test]
fn clients_that_fill_the_link_have_equal_shares_however_many_connections_they_open() {
    let (node, address, _) = origin();
    let load = |last, connections| {
        let from = Ipv4Addr::new(127, 0, 0, last);
        Load::from(from, address, &head("/video.bin", ""), connections)
    };
    share_evenly(&node, || load(2, 12), || load(3, 1));
}

#[test]
fn replication_yields_to_ftp() {
    let (node, address, chunk) = origin();
    let background = Load::start(address, &head(&chunk, "Priority: u=7\r\n"), 6);
    until("the idle link to be used", || {
        background.rate(Duration::from_millis(500)) > 0.85 * CAPACITY
    });
    let viewer = Load::over_ftp(Ipv4Addr::LOCALHOST, node.address("ftp"), "/video.bin", 1);
    until("replication to be at its share", || {
        background.rate(Duration::from_millis(500)) <= 1.1 * SHARE * CAPACITY
    });
    viewer.end();
    until("replication to have the link again", || {
        background.rate(Duration::from_millis(500)) > 0.85 * CAPACITY
    });
    background.end();
}

#[test]
fn ftp_has_the_share_of_its_address_and_no_more() {
    let (node, address, _) = origin();
    let (two, three) = ([127, 0, 0, 2].into(), [127, 0, 0, 3].into());
    share_evenly(
        &node,
        || Load::over_ftp(two, node.address("ftp"), "/video.bin", 4),
        || Load::from(three, address, &head("/video.bin", ""), 1),
    );
}

/// Both fill the link alone, and have equal shares of it together.
fn share_evenly(node: &Node, many: impl Fn() -> Load, one: impl Fn() -> Load) {
    let many = many();
    until("more than the link is said to carry", || {
        many.rate(Duration::from_millis(200)) > 1.5 * CAPACITY
    });
    let level = "headwater_link_client_level_bytes_per_second";
    assert_eq!(metric(node, level) as u64, 0, "one alone is not held");
    let one = one();
    until("the link to be shared", || metric(node, level) > 0.0);
    // What lies in buffers by then is still to come.
    until("the many to have no more than their share", || {
        many.rate(Duration::from_millis(500)) < 0.6 * CAPACITY
    });
    let (begun, before) = (Instant::now(), [many.got(), one.got()]);
    thread::sleep(Duration::from_secs(2));
    let secs = begun.elapsed().as_secs_f64();
    let got = [many.got() - before[0], one.got() - before[1]];
    let rates = got.map(|bytes| bytes as f64 / secs);
    for rate in rates {
        let share = rate / CAPACITY;
        assert!((0.4..0.55).contains(&share), "{rates:?} of {CAPACITY}");
    }
    assert!(metric(node, "headwater_link_client_delayed_writes_total") > 0.0);
    assert_eq!(metric(node, "headwater_link_clients ") as u64, 2);
    one.end();
    until("who is left to have all again", || {
        many.rate(Duration::from_millis(200)) > 1.5 * CAPACITY
    });
    many.end();
}

#[test]
fn chunk_that_a_reader_waits_for_is_not_held_back() {
    let (node, address, chunk) = origin();
    let waiting = Load::start(address, &head(&chunk, "Priority: u=3\r\n"), 2);
    until("more than the link is said to carry", || {
        waiting.rate(Duration::from_millis(200)) > 1.5 * CAPACITY
    });
    waiting.end();
    let background = "headwater_link_background_bytes_total{direction=\"transmit\"}";
    assert_eq!(metric(&node, background) as u64, 0);
}

#[test]
fn share_that_would_stop_replication_is_refused_with_its_place() {
    let config = CONFIG.replace("background_share = 0.3", "background_share = 0.0");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("content")).unwrap();
    std::fs::write(dir.path().join("node.toml"), config).unwrap();
    let output = crate::harness::command(dir.path())
        .args(["check", "--config", "node.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("node.toml:16: link.background_share: found 0, expected 0.01 to 1"),
        "{text}"
    );
}
