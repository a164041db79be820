//! Files replaced while they are read, and while they are mirrored: everybody gets one version or the other.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::harness::{COMMON, LIMIT, Node, Process, READY, noise, poll, run, sha256, tool};
use super::link::Link;

fn origin(bytes: &[u8]) -> Node {
    let mut origin = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[publish]]\nprefix = \"/\"\ndir = \"content\"\n"
    ));
    origin.write("content/video.bin", bytes);
    origin.start();
    origin
}

/// curl reading the object into `copy`, at most so fast.
fn reader(node: &Node, copy: &Path, rate: &str) -> Process {
    let mut curl = Command::new(tool("curl"));
    curl.args(["-q", "-fsS", "--max-time", "50", "--limit-rate", rate, "-o"])
        .arg(copy)
        .arg(node.url("/video.bin"));
    Process::spawn("curl", curl, copy.with_extension("log"))
}

fn etag(node: &Node) -> Option<String> {
    let mut curl = Command::new(tool("curl"));
    curl.args(["-q", "-fsSI"]).arg(node.url("/video.bin"));
    let head = run(&mut curl).stdout.to_ascii_lowercase();
    let line = head.lines().find(|line| line.starts_with("etag:"))?;
    Some(line.to_owned())
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

#[test]
fn slow_reader_of_a_replaced_file_ends_on_the_old_bytes() {
    let (old, new) = (noise(1, 24 << 20), noise(2, (24 << 20) + 7));
    let origin = origin(&old);
    poll(READY, "the file to be published", || etag(&origin));
    let copy = origin.path("copy");
    let slow = reader(&origin, &copy, "5M");
    poll(READY, "the first bytes", || {
        (length(&copy) > 0).then_some(())
    });
    let before = etag(&origin);
    origin.write("content/video.bin", &new);
    poll(READY, "the new version", || {
        (etag(&origin) != before).then_some(())
    });
    // Who comes now gets the new version, while the old one is being read.
    let fresh = origin.path("fresh");
    assert!(reader(&origin, &fresh, "1G").wait().success());
    assert!(fs::read(&fresh).expect("curl wrote it") == new);
    let seen = length(&copy);
    assert!(seen < old.len() as u64, "the reader was too fast: {seen}");
    let status = slow.wait();
    assert!(status.success(), "{status}");
    assert!(fs::read(&copy).expect("curl wrote it") == old);
}

#[test]
fn file_replaced_while_a_mirror_fills_is_never_mixed() {
    let (old, new) = (noise(3, 48 << 20), noise(4, 40 << 20));
    let origin = origin(&old);
    poll(READY, "the file to be published", || etag(&origin));
    let link = Link::to(origin.http, 12 << 20);
    let mut mirror = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[mirror]]\nprefix = \"/\"\nfrom = [\"http://127.0.0.1:{}\"]\n\
         interval = \"200ms\"\n",
        link.port
    ));
    mirror.start();
    poll(READY, "the fill to begin", || etag(&mirror));
    let copy = mirror.path("copy");
    let early = reader(&mirror, &copy, "1G");
    poll(READY, "a part of the old version", || {
        (length(&copy) > 4 << 20).then_some(())
    });
    let seen = length(&copy);
    assert!(seen < old.len() as u64, "the mirror was too fast: {seen}");
    origin.write("content/video.bin", &new);

    // Whoever reads meanwhile has one of the two, or knows that it has not.
    let again = mirror.path("again");
    let mut answers = 0;
    poll(LIMIT, "the new version on the mirror", || {
        let status = reader(&mirror, &again, "1G").wait();
        let bytes = fs::read(&again).unwrap_or_default();
        let _ = fs::remove_file(&again);
        if status.success() {
            answers += 1;
            assert!(bytes == old || bytes == new, "a third version");
            return (bytes == new).then_some(());
        }
        assert!(
            old.starts_with(&bytes) || new.starts_with(&bytes),
            "mixed in {} bytes",
            bytes.len()
        );
        None
    });
    assert!(answers > 0);
    let status = early.wait();
    let bytes = fs::read(&copy).expect("curl wrote it");
    assert!(old.starts_with(&bytes), "mixed in {} bytes", bytes.len());
    assert_eq!(status.success(), bytes.len() == old.len(), "{status}");
    let file = mirror.write("new", &new);
    let now = mirror.path("now");
    assert!(reader(&mirror, &now, "1G").wait().success());
    assert_eq!(sha256(&now), sha256(&file));
}
