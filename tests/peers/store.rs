//! The store of a real node: how soon it serves again after it was killed.
//!
//! With 20,000 objects, or `HEADWATER_STORE_OBJECTS`: `HEADWATER_STORE_OBJECTS=100000 cargo test --release --test peers
//! store -- --nocapture` is the whole of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use headwater::content::chunk::{Digest, Layout};
use headwater::content::manifest::Manifest;

use super::harness::{COMMON, Node, poll, run, tool};

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
