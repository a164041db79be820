//! Readers of a mirror that fills, while one of the nodes it fills from dies, stalls or lies: they notice nothing.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::harness::{COMMON, LIMIT, Node, Process, READY, noise, poll, sha256, tool};
use super::link::Link;

const SIZE: usize = 48 << 20;

/// Bytes per second from each node: the object takes some seconds.
const RATE: u64 = 8 << 20;

/// An origin, a mirror that has all of it, and a second mirror that fills from both.
struct Three {
    origin: Node,
    holder: Node,
    mirror: Node,
    /// From the holder to the mirror.
    from_holder: Link,
}

impl Three {
    fn start() -> Self {
        let mut origin = Node::new(&format!(
            "{COMMON}\n[resolver]\nmode = \"off\"\n[[publish]]\nprefix = \"/\"\ndir = \"content\"\n"
        ));
        origin.write("content/video.bin", noise(5, SIZE));
        origin.start();
        let mirror_of = |url: String, peers: &str| {
            format!(
                "{COMMON}\n[resolver]\nmode = \"off\"\n[[mirror]]\nprefix = \"/\"\nfrom = [\"{url}\"]\n\
                 interval = \"200ms\"\n[peers]\ndiscover = [\"static\"]\nsilence = \"1s\"\n{peers}"
            )
        };
        let mut holder = Node::new(&mirror_of(origin.url(""), ""));
        holder.start();
        poll(LIMIT, "the holder to be whole", || {
            let whole = [("state", "whole")];
            (holder.metric("headwater_replication_objects", &whole) == 1.0).then_some(())
        });
        let from_origin = Link::to(origin.http, RATE);
        let from_holder = Link::to(holder.http, RATE);
        let mut mirror = Node::new(&mirror_of(
            format!("http://127.0.0.1:{}", from_origin.port),
            &format!("static = [\"http://127.0.0.1:{}\"]\n", from_holder.port),
        ));
        mirror.start();
        Self {
            origin,
            holder,
            mirror,
            from_holder,
        }
    }

    /// Chunk bytes that came to the second mirror from the origin and from the holder.
    fn came(&self) -> [f64; 2] {
        ["origin", "peer"].map(|source| {
            let labels = [("direction", "in"), ("source", source)];
            self.mirror
                .metric("headwater_replication_bytes_total", &labels)
        })
    }

    fn chunks(&self, outcome: &str) -> f64 {
        self.mirror.metric(
            "headwater_replication_chunks_total",
            &[("outcome", outcome)],
        )
    }

    /// Has curl read all of the object from the mirror, over one connection and in one try, while `fault` happens in the midst
    /// of it.
    fn read_through(&mut self, fault: impl FnOnce(&mut Self)) {
        let copy = self.mirror.path("copy");
        poll(READY, "the fill to begin", || {
            (self.came().iter().sum::<f64>() > 0.0).then_some(())
        });
        let mut curl = Command::new(tool("curl"));
        curl.args(["-q", "-fsS", "--max-time", "50", "-w", "%{num_connects}"])
            .arg("-o")
            .arg(&copy)
            .arg(self.mirror.url("/video.bin"));
        let reader = Process::spawn("curl", curl, self.mirror.path("curl.log"));
        poll(READY, "bytes from both", || {
            let came = self.came();
            assert!(
                came.iter().sum::<f64>() < SIZE as f64,
                "over too soon: {came:?}"
            );
            let length = fs::metadata(&copy).ok()?.len();
            (length > 0 && came.iter().all(|came| *came > 3e6)).then_some(())
        });
        fault(self);
        let length = fs::metadata(&copy).expect("curl writes it").len();
        assert!(length < SIZE as u64, "the reader was done before the fault");
        let log = self.mirror.path("curl.log");
        let status = reader.wait();
        let said = fs::read_to_string(log).expect("curl's log");
        assert!(status.success(), "{status}: {said}");
        assert_eq!(said, "1", "connections");
        let original = self.origin.path("content/video.bin");
        assert_eq!(sha256(&copy), sha256(&original));
    }
}

#[test]
fn reader_goes_on_when_a_holder_is_killed() {
    let mut three = Three::start();
    three.read_through(|three| three.holder.kill());
}

#[test]
fn reader_goes_on_when_the_origin_is_killed() {
    let mut three = Three::start();
    three.read_through(|three| three.origin.kill());
}

#[test]
fn reader_goes_on_when_a_holder_stalls() {
    let mut three = Three::start();
    three.read_through(|three| three.holder.signal(Signal::STOP));
    assert!(three.chunks("failed") + three.chunks("dropped") > 0.0);
}

#[test]
fn reader_goes_on_when_the_origin_stalls() {
    let mut three = Three::start();
    three.read_through(|three| three.origin.signal(Signal::STOP));
}

#[test]
fn reader_goes_on_when_a_holder_lies() {
    let mut three = Three::start();
    three.read_through(|three| three.from_holder.lie());
    assert!(three.chunks("mismatch") > 0.0);
}
