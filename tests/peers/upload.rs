//! What curl puts, takes up again and deletes; a full disk; and a mirror that gets what was put.

use std::fs;
use std::process::Command;

use super::harness::{COMMON, Node, Output, READY, noise, poll, run, sha256, tool};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const SIZE: usize = (4 << 20) + 77;

fn origin() -> Node {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[publish]]
prefix = "/"
dir = "content"
[upload]
enabled = true
token_file = "upload.token"
prefix = "/incoming/"
max = "16 MiB"
"#
    ));
    node.write("upload.token", format!("{TOKEN}\n"));
    node.write("content/index.html", "hello\n");
    node.start();
    node
}

/// Runs curl with the token; the status code, then what `args` write.
fn curl(node: &Node, args: &[&str], path: &str) -> Output {
    let mut command = Command::new(tool("curl"));
    command
        .current_dir(node.path("."))
        .args([
            "-q",
            "-sS",
            "--max-time",
            "30",
            "-o",
            "answer",
            "-w",
            "%{http_code}",
        ])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(args)
        .arg(node.url(path));
    run(&mut command)
}

#[test]
fn file_put_by_curl_is_served_at_once_and_mirrored() {
    let node = origin();
    let file = node.write("video.bin", noise(3, SIZE));
    let output = curl(&node, &["-T", "video.bin"], "/incoming/");
    assert_eq!(output.stdout, "201", "{output:?}");
    let output = curl(&node, &[], "/incoming/video.bin");
    assert_eq!(output.stdout, "200");
    assert_eq!(sha256(&node.path("answer")), sha256(&file));
    let mut mirror = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[mirror]]
prefix = "/"
from = ["{}"]
interval = "200ms"
"#,
        node.url("")
    ));
    mirror.start();
    poll(READY, "the mirror to have it", || {
        (curl(&mirror, &[], "/incoming/video.bin").stdout == "200").then_some(())
    });
    assert_eq!(sha256(&mirror.path("answer")), sha256(&file));
    // Over HTTP/2 too; and a token that is none.
    let output = curl(
        &node,
        &["--http2-prior-knowledge", "-T", "video.bin"],
        "/incoming/2.bin",
    );
    assert_eq!(output.stdout, "201", "{output:?}");
    let wrong = ["-H", "Authorization: Bearer wrong", "-T", "video.bin"];
    assert_eq!(curl(&node, &wrong, "/incoming/3.bin").stdout, "401");
    assert_eq!(
        curl(&node, &["-X", "DELETE"], "/incoming/video.bin").stdout,
        "204"
    );
    assert_eq!(curl(&node, &[], "/incoming/video.bin").stdout, "404");
}

#[test]
fn upload_goes_on_with_curls_own_resumption() {
    let node = origin();
    let bytes = noise(4, SIZE);
    let file = node.write("whole.bin", &bytes);
    node.write("first.bin", &bytes[..2_000_000]);
    let part = format!("Content-Range: bytes 0-1999999/{SIZE}");
    let output = curl(
        &node,
        &["-H", &part, "-T", "first.bin"],
        "/incoming/whole.bin",
    );
    assert_eq!(output.stdout, "202", "{output:?}");
    let output = curl(&node, &["-C", "2000000", "-T", "whole.bin"], "/incoming/");
    assert_eq!(output.stdout, "201", "{output:?}");
    assert_eq!(
        sha256(&node.path("content/incoming/whole.bin")),
        sha256(&file)
    );
}

#[test]
fn full_disk_is_507_and_what_was_there_stays() {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[publish]]
prefix = "/"
dir = "small"
[upload]
enabled = true
prefix = "/"
"#
    ));
    node.write("upload.token", TOKEN);
    let small = node.path("small");
    fs::create_dir_all(&small).expect("writable");
    let mut mount = Command::new(tool("mount"));
    mount
        .args(["-t", "tmpfs", "-o", "size=8m", "none"])
        .arg(&small);
    run(&mut mount).assert_success();
    let unmount = Unmount(small);
    node.start();
    node.write("three.bin", noise(5, 3 << 20));
    node.write("nine.bin", noise(6, 9 << 20));
    assert_eq!(curl(&node, &["-T", "three.bin"], "/a.bin").stdout, "201");
    assert_eq!(curl(&node, &["-T", "nine.bin"], "/a.bin").stdout, "507");
    // Its size is not known beforehand here.
    let chunked = ["-H", "Transfer-Encoding: chunked", "-T", "nine.bin"];
    assert_eq!(curl(&node, &chunked, "/b.bin").stdout, "507");
    assert_eq!(curl(&node, &[], "/a.bin").stdout, "200");
    assert_eq!(
        sha256(&node.path("answer")),
        sha256(&node.path("three.bin"))
    );
    assert_eq!(curl(&node, &["-T", "three.bin"], "/b.bin").stdout, "201");
    assert_eq!(
        node.metric("headwater_http_uploads_total", &[("outcome", "full")]),
        2.0
    );
    node.kill();
    drop(unmount);
}

/// Unmounts when dropped.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let mut unmount = Command::new(tool("umount"));
        run(unmount.arg("-l").arg(&self.0));
    }
}
