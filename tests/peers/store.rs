//! The store of a real node: how soon it serves again after it was killed, what it does about rot, and on a full disk.
//!
//! With 20,000 objects, or `HEADWATER_STORE_OBJECTS`: `HEADWATER_STORE_OBJECTS=100000 cargo test --release --test peers
//! store -- --nocapture` is the whole of it.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use headwater::content::chunk::{Digest, Layout};
use headwater::content::manifest::Manifest;
use nix::sched::{CloneFlags, unshare};

use super::harness::{COMMON, Node, noise, poll, run, sha256, tool};

/// What the mirror's restart may take.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn node_killed_with_many_objects_serves_again_within_two_seconds() {
    let count = std::env::var("HEADWATER_STORE_OBJECTS").map_or(20_000, |text| {
        text.parse().unwrap_or_else(|_| {
            panic!("HEADWATER_STORE_OBJECTS: found {text:?}, expected a number")
        })
    });
    // Nobody to mirror from: what is served is what lies there.
    let mut node = Node::new(&format!(
        "{COMMON}\n[[mirror]]\nprefix = \"/\"\nfrom = [\"http://127.0.0.1:1\"]\n"
    ));
    make_objects(&node.path("state/store/objects"), count);
    node.start();
    assert_eq!(
        node.metric("headwater_content_objects", &[("role", "mirror")]) as u32,
        count
    );
    node.kill();
    let begun = Instant::now();
    node.spawn();
    let last = format!("/{}", count - 1);
    poll(Duration::from_secs(60), "the node to serve", || {
        let (status, body) = curl(&node, &last)?;
        (status == 200).then(|| assert_eq!(body, content(count - 1)))
    });
    let took = begun.elapsed();
    println!("{count} objects: served {took:?} after the start");
    assert!(took <= SOON, "{took:?}");
    for number in [0, count / 2] {
        assert_eq!(
            curl(&node, &format!("/{number}")),
            Some((200, content(number)))
        );
    }
}

/// A node that publishes `content`, started.
fn origin() -> Node {
    let mut origin = Node::new(&format!(
        "{COMMON}\n[[publish]]\nprefix = \"/\"\ndir = \"@DIR@/content\"\n"
    ));
    fs::create_dir(origin.path("content")).expect("the temporary directory is writable");
    origin.start();
    origin
}

/// A mirror of it, not started.
fn mirror(origin: &Node, interval: &str, more: &str) -> Node {
    Node::new(&format!(
        "{COMMON}\n[[mirror]]\nprefix = \"/\"\nfrom = [\"http://127.0.0.1:{}\"]\ninterval = \"{interval}\"\n{more}",
        origin.http
    ))
}

fn wait_until_whole(mirror: &Node, objects: u32) {
    poll(Duration::from_secs(60), "the mirror to be whole", || {
        let whole = mirror.metric("headwater_replication_objects", &[("state", "whole")]);
        (whole as u32 == objects).then_some(())
    });
}

/// Downloads `path` from a node; its digest.
fn download(node: &Node, path: &str) -> String {
    let file = node.path("download");
    let mut curl = Command::new(tool("curl"));
    curl.args(["-sSf", "-m", "60", &node.url(path), "-o"])
        .arg(&file);
    run(&mut curl).assert_success();
    sha256(&file)
}

#[test]
fn rot_on_a_mirror_is_repaired_behind_the_reader_who_finds_it() {
    let origin = origin();
    let file = origin.write("content/video.bin", noise(1, 16 << 20));
    // So long that no round mends it.
    let mut mirror = mirror(&origin, "1h", "");
    poll(Duration::from_secs(60), "the origin to publish", || {
        (origin.metric("headwater_content_objects", &[("role", "origin")]) > 0.0).then_some(())
    });
    mirror.start();
    wait_until_whole(&mirror, 1);
    let objects = fs::read_dir(mirror.path("state/store/objects")).expect("a store");
    let object = objects.flatten().next().expect("an object").path();
    let data = fs::OpenOptions::new().write(true).open(object.join("data"));
    let data = data.expect("a file");
    for chunk in [3, 9] {
        data.write_all_at(b"rotten", (chunk << 20) + 77)
            .expect("written");
    }
    let begun = Instant::now();
    assert_eq!(download(&mirror, "/video.bin"), sha256(&file));
    let took = begun.elapsed();
    println!("two rotten chunks repaired and 16 MiB read in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        mirror.metric("headwater_content_repaired_chunks_total", &[]) as u32,
        2
    );
    assert_eq!(
        mirror.metric("headwater_content_quarantined_chunks", &[]) as u32,
        0
    );
    // On disk, too.
    assert_eq!(sha256(&object.join("data")), sha256(&file));
    assert!(mirror.stop().success());
}

#[test]
fn full_disk_stops_replication_and_nothing_else_until_there_is_room() {
    // The mount is this thread's and its children's.
    let ran = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS)
            .unwrap_or_else(|e| panic!("no mount namespace can be made ({e}): run as root"));
        on_a_small_disk();
    });
    ran.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn on_a_small_disk() {
    let origin = origin();
    let first = origin.write("content/first.bin", noise(1, 8 << 20));
    let zone = "[[zone]]\nname = \"cdn.test.\"\nfile = \"@DIR@/zone\"\n";
    let mut mirror = mirror(&origin, "500ms", zone);
    mirror.write(
        "zone",
        "@ 60 SOA ns.cdn.test. root.cdn.test. 1 1 1 1 1\n@ 60 NS ns\nns 60 A 192.0.2.1\n",
    );
    let state = mirror.path("state");
    fs::create_dir(&state).expect("the temporary directory is writable");
    for words in [
        &["--make-rprivate", "/"][..],
        &["-t", "tmpfs", "-o", "size=64m", "tmpfs"],
    ] {
        let mut mount = Command::new(tool("mount"));
        mount.args(words);
        if words.len() > 2 {
            mount.arg(&state);
        }
        run(&mut mount).assert_success();
    }
    mirror.start();
    wait_until_whole(&mirror, 1);
    let ballast = state.join("ballast");
    fs::write(&ballast, noise(2, 30 << 20)).expect("there is room for it");
    let second = origin.write("content/second.bin", noise(3, 32 << 20));
    let failures = || {
        mirror.metric(
            "headwater_content_write_failures_total",
            &[("reason", "full")],
        )
    };
    poll(Duration::from_secs(30), "it to fail more than once", || {
        (failures() >= 3.0).then_some(())
    });
    let status = mirror.control(&["status"]).stdout;
    assert!(status.contains("no space: the disk is full"), "{status}");
    let refused = mirror.metric("headwater_replication_objects", &[("state", "refused")]);
    assert_eq!(refused as u32, 1);
    let log = fs::read_to_string(mirror.path("log")).expect("a log");
    assert_eq!(log.matches("object not begun").count(), 1, "{log}");
    // What is held is served, names are answered, and what is not held is not: at once.
    assert_eq!(download(&mirror, "/first.bin"), sha256(&first));
    assert_eq!(mirror.dig(&["ns.cdn.test", "A"]).status, "NOERROR");
    let begun = Instant::now();
    let refused = curl(&mirror, "/second.bin").expect("an answer");
    assert_eq!(refused.0, 507, "{}", refused.1);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    fs::remove_file(ballast).expect("removed");
    let begun = Instant::now();
    wait_until_whole(&mirror, 2);
    let took = begun.elapsed();
    println!("normal {took:?} after space returned");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(download(&mirror, "/second.bin"), sha256(&second));
    assert!(mirror.stop().success());
}

/// One GET; `None` when nobody answers.
fn curl(node: &Node, path: &str) -> Option<(u16, String)> {
    let mut curl = Command::new(tool("curl"));
    curl.args(["-s", "-w", "%{http_code}", "-m", "2", &node.url(path)]);
    let output = run(&mut curl);
    let split = output.stdout.len().checked_sub(3)?;
    let (body, status) = output.stdout.split_at(split);
    match status.parse() {
        Ok(0) | Err(_) => None,
        Ok(status) => Some((status, body.to_owned())),
    }
}

fn content(number: u32) -> String {
    format!("object {:04}\n", number % LINKS)
}

/// The files of `count` whole objects, as a store leaves them. Few have data and bitmap of their own: these are links.
fn make_objects(objects: &Path, count: u32) {
    fs::create_dir_all(objects).expect("the temporary directory is writable");
    let data: Vec<PathBuf> = (0..LINKS.min(count))
        .map(|number| {
            let file = objects.with_file_name(format!("data-{number}"));
            fs::write(&file, content(number)).expect("written");
            let have = objects.with_file_name(format!("have-{number}"));
            fs::write(have, [1]).expect("written");
            file
        })
        .collect();
    let make = |number: u32| -> io::Result<()> {
        let content = content(number);
        let manifest = Manifest {
            path: format!("/{number}"),
            layout: Layout {
                size: content.len() as u64,
                chunk: 1 << 20,
            },
            media_type: "text/plain; charset=utf-8".into(),
            modified: 1,
            sha256: [0; 32],
            chunks: vec![Digest::of(content.as_bytes())],
        };
        let dir = objects.join(manifest.digest().to_string());
        fs::create_dir(&dir)?;
        fs::write(dir.join("manifest"), manifest.encode())?;
        let number = number % LINKS;
        fs::hard_link(&data[number as usize], dir.join("data"))?;
        fs::hard_link(
            objects.with_file_name(format!("have-{number}")),
            dir.join("have"),
        )
    };
    for number in 0..count {
        make(number).expect("the temporary directory is writable");
    }
}

/// Objects with different bytes.
const LINKS: u32 = 1_000;
