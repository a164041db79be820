//! A mirror of an origin: whole, while it fills, and when the origin has gone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::harness::{COMMON, Node, Process, READY, noise, poll, run, sha256, tool};

/// An origin of `video.bin` with `size` bytes, and its mirror, which is not started.
fn pair(size: usize, mirror_options: &str) -> (Node, Node) {
    let mut origin = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[store]
chunk = "64 KiB"
[[publish]]
prefix = "/"
dir = "content"
"#
    ));
    origin.write("content/video.bin", noise(3, size));
    origin.start();
    let mirror = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[mirror]]
prefix = "/"
from = ["http://127.0.0.1:{}"]
interval = "300ms"
{mirror_options}
"#,
        origin.http
    ));
    (origin, mirror)
}

/// `(held, all)` chunks of an object in `content list`, once it is there.
fn progress(node: &Node, path: &str) -> Option<(u64, u64)> {
    let list = node.control_json(&["content", "list"]);
    let object = list
        .as_array()
        .expect("a list of objects")
        .iter()
        .find(|object| object["path"] == path)?;
    Some((object["held"].as_u64()?, object["chunks"].as_u64()?))
}

fn wait_until_whole(mirror: &Node) {
    poll(Duration::from_secs(60), "the mirror to be whole", || {
        let (held, all) = progress(mirror, "/video.bin")?;
        (held == all).then_some(())
    });
}

/// Downloads `video.bin` from a node; the file.
fn download(node: &Node, name: &str) -> PathBuf {
    let file = node.path(name);
    run(Command::new(tool("curl"))
        .args(["-q", "-fsS", "--max-time", "50", "-o"])
        .arg(&file)
        .arg(node.url("/video.bin")))
    .assert_success();
    file
}

#[test]
fn mirror_holds_the_same_bytes_under_the_same_etag_and_outlives_the_origin() {
    let size = 64 << 20;
    let (mut origin, mut mirror) = pair(size, "");
    mirror.start();
    wait_until_whole(&mirror);
    let original = sha256(&origin.path("content/video.bin"));
    assert_eq!(sha256(&download(&origin, "copy")), original);
    assert_eq!(sha256(&download(&mirror, "copy")), original);
    let etag = |node: &Node| {
        let head = run(Command::new(tool("curl"))
            .args(["-q", "-sSI"])
            .arg(node.url("/video.bin")));
        head.stdout
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("etag:"))
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("{head:?}"))
    };
    assert_eq!(etag(&origin), etag(&mirror));
    let received = mirror.metric("headwater_replication_bytes_total", &[]);
    assert!(received >= size as f64, "{received}");

    origin.stop();
    assert_eq!(sha256(&download(&mirror, "copy")), original);
    // Started again without its origin it still has everything.
    mirror.stop();
    mirror.start();
    assert_eq!(sha256(&download(&mirror, "copy")), original);
    assert_eq!(mirror.metric("headwater_replication_bytes_total", &[]), 0.0);
}

#[test]
fn reader_during_the_fill_gets_the_right_bytes() {
    let size = 128 << 20;
    let (origin, mut mirror) = pair(size, "in_flight = 1");
    mirror.start();
    // The origin is stopped in its tracks while the mirror is partly filled …
    poll(READY, "the fill to begin", || {
        let (held, all) = progress(&mirror, "/video.bin")?;
        assert!(held < all, "the fill was over before it could be seen");
        (held > 0).then_some(())
    });
    origin.signal(Signal::STOP);
    let (held, all) = progress(&mirror, "/video.bin").expect("it was there");
    assert!(0 < held && held < all, "{held} of {all}");
    // … a reader gets what is there …
    let copy = mirror.path("copy");
    let mut curl = Command::new(tool("curl"));
    curl.args(["-q", "-fsS", "--max-time", "50", "-o"])
        .arg(&copy)
        .arg(mirror.url("/video.bin"));
    let reader = Process::spawn("curl", curl, mirror.path("curl.log"));
    poll(READY, "the reader's first bytes", || {
        let length = fs::metadata(&copy).ok()?.len();
        assert!(length < size as u64, "nobody has all of it");
        (length > 0).then_some(())
    });
    // … and the rest when the fill goes on.
    origin.signal(Signal::CONT);
    let status = reader.wait();
    assert!(status.success(), "{status}");
    assert_eq!(sha256(&copy), sha256(&origin.path("content/video.bin")));
    wait_until_whole(&mirror);
}

#[test]
fn changed_object_replaces_the_mirrored_one() {
    let (origin, mut mirror) = pair(1 << 20, "");
    mirror.start();
    wait_until_whole(&mirror);
    origin.write("content/video.bin", noise(4, 2 << 20));
    let changed = sha256(&origin.path("content/video.bin"));
    poll(READY, "the new version on the mirror", || {
        (sha256(&download(&mirror, "copy")) == changed).then_some(())
    });
}
