//! The built binary under attack: it resolves from the root in a network namespace of its own; beyond the only wire stands a
//! small made-up Internet of scripted servers, where every packet is counted.
//!
//! The flood lasts ten seconds, or `HEADWATER_ATTACK_SECONDS`: `HEADWATER_ATTACK_SECONDS=60 cargo test --release --test peers
//! attack::flood` is the whole of it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use self::internet::{Server, Signing, Zone};
use self::scripted::{Host, Internet, Seen};
use super::harness::{COMMON, Node};

#[path = "../support/internet.rs"]
mod internet;

#[path = "../support/namespace.rs"]
mod namespace;

#[path = "../support/scripted.rs"]
mod scripted;

mod bounds;

mod entropy;

mod flood;

mod forged;

mod poison;

mod stale;

/// Where the servers of every test stand: the root's, and that of `test.`
const ROOT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const TEST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Sees to it that `body` runs where the node is to be, with `hosts` on the other side.
fn beside<T: Send>(hosts: Vec<Host>, body: impl FnOnce(&Internet) -> T + Send) -> T {
    let (space, other) = namespace::pair();
    let internet = Internet::start(&other, hosts);
    space.run(|| body(&internet))
}

/// A recursive node, started; `more` is added to its configuration, `anchor` is the root's DS if that is signed.
fn node(anchor: Option<&[u8]>, more: &str) -> Node {
    let (dnssec, anchors) = match anchor {
        Some(_) => ("true", "trust_anchors = \"@DIR@/anchor\"\n"),
        None => ("false", ""),
    };
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"recursive\"\nroot_hints = \"@DIR@/hints\"\nspecial_use_names = false\n\
         dnssec = {dnssec}\n{anchors}{more}"
    ));
    node.write(
        "hints",
        format!(". 3600 IN NS ns.root.\nns.root. 3600 IN A {ROOT}\n"),
    );
    if let Some(ds) = anchor {
        let tag = u16::from_be_bytes([ds[0], ds[1]]);
        let digest = ds[4..].iter().fold(String::new(), |mut hex, octet| {
            write!(hex, "{octet:02X}").expect("a String takes all");
            hex
        });
        let line = format!(". 3600 IN DS {tag} {} {} {digest}\n", ds[2], ds[3]);
        node.write("anchor", line);
    }
    node.start();
    node
}

/// The zone `apex` with its name server at `at`.
fn zone(apex: &str, at: Ipv4Addr, lines: &[String]) -> Zone {
    let mut all = vec![String::from("@ 3600 NS ns"), format!("ns 3600 A {at}")];
    all.extend_from_slice(lines);
    let all: Vec<&str> = all.iter().map(|line| &**line).collect();
    Zone::new(apex, &all)
}

/// The root and `test.`, which delegates each of `children` to its address and has `lines` beside.
fn top(children: &[(&str, Ipv4Addr)], lines: &[String]) -> Vec<Host> {
    let root = root(&[("test", TEST)]);
    let mut all = delegations(children);
    all.extend_from_slice(lines);
    vec![
        Host::new(ROOT, Server::new(vec![root])),
        Host::new(TEST, Server::new(vec![zone("test.", TEST, &all)])),
    ]
}

fn root(children: &[(&str, Ipv4Addr)]) -> Zone {
    let mut lines = vec![
        String::from("@ 86400 NS ns.root."),
        format!("ns.root. 86400 A {ROOT}"),
    ];
    lines.extend(delegations(children));
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    Zone::new(".", &lines)
}

/// Lines of a zone that delegate each child to a name server within it.
fn delegations(children: &[(&str, Ipv4Addr)]) -> Vec<String> {
    let lines = |(child, at): &(&str, Ipv4Addr)| {
        [
            format!("{child} 3600 NS ns.{child}"),
            format!("ns.{child} 3600 A {at}"),
        ]
    };
    children.iter().flat_map(lines).collect()
}

/// What came of a question.
#[derive(Debug)]
struct Said {
    code: ResponseCode,
    /// The data of its answers, in their order.
    data: Vec<String>,
    time: Duration,
}

/// Asks the node as a client would that waits for eight seconds.
#[track_caller]
fn ask(node: &Node, name: &str, qtype: u16) -> Said {
    let client = Client::new(Ipv4Addr::LOCALHOST, node);
    let begun = Instant::now();
    client.send(1, name, qtype);
    let (_, message) = client
        .receive(Duration::from_secs(8))
        .unwrap_or_else(|| panic!("no answer for {name}"));
    Said {
        time: begun.elapsed(),
        code: message.response_code,
        data: message.answers.iter().map(|r| r.data.to_string()).collect(),
    }
}

/// A client with one socket.
struct Client(UdpSocket);

impl Client {
    fn new(at: Ipv4Addr, node: &Node) -> Self {
        let socket = UdpSocket::bind((at, 0)).expect("all of 127.0.0.0/8 is here");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, node.dns));
        socket.connect(server).expect("loopback");
        Self(socket)
    }

    fn send(&self, id: u16, name: &str, qtype: u16) {
        let mut packet = id.to_be_bytes().to_vec();
        packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        packet.extend(internet::name(name));
        packet.extend(qtype.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend([0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0]);
        // A refusal shows as a missing answer.
        let _ = self.0.send(&packet);
    }

    /// The next answer within `limit`, with its id.
    fn receive(&self, limit: Duration) -> Option<(u16, Message)> {
        self.0.set_read_timeout(Some(limit)).expect("not zero");
        let mut buffer = [0; 4_096];
        let length = self.0.recv(&mut buffer).ok()?;
        let message = Message::from_vec(&buffer[..length]).expect("an answer is well-formed");
        Some((message.id, message))
    }
}

const A: u16 = internet::A;

/// Seconds since 1970, for signatures.
fn unix() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}
