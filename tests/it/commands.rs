//! `headwater content …` against two nodes: one that publishes, one that mirrors what it is asked for.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Output;

use crate::harness::{Node, get, until};

const ORIGIN: &str = "[[publish]]\ndir = \"content\"\n";

fn origin() -> Node {
    let files = [
        ("content/d/a.bin", "aaaa"),
        ("content/d/b.bin", "bb"),
        ("content/c", "c"),
    ];
    let node = Node::start(ORIGIN, &files);
    until("the files to be published", || {
        node.status().content.objects == 3
    });
    node
}

fn mirror(of: &Node, more: &str) -> Node {
    let (from, key) = (of.address("http"), of.status().key);
    let config = format!(
        "[[mirror]]\nfrom = [\"http://{from}\"]\nkey = \"{key}\"\nmode = \"on-demand\"\ninterval = \"100ms\"\n{more}"
    );
    let node = Node::start(&config, &[]);
    until("the catalogue", || {
        node.status().mirrors[0].version.is_some()
    });
    node
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command prints; it must be done well.
#[track_caller]
fn done(node: &Node, args: &[&str]) -> String {
    let output = node.command(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    text(&output)
}

/// What a command that is refused says.
#[track_caller]
fn refused(node: &Node, args: &[&str]) -> String {
    let output = node.command(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn prefetch_fetches_and_purge_drops() {
    let origin = origin();
    let mirror = mirror(&origin, "");
    let shown = done(&mirror, &["content", "prefetch", "/d/"]);
    assert!(
        shown.starts_with("2 of 2 objects whole, 6 B of 6 B\n"),
        "{shown}"
    );
    let listed = done(&mirror, &["content", "list"]);
    assert!(
        listed.contains("/d/a.bin") && !listed.contains("/c"),
        "{listed}"
    );
    let shown = done(&mirror, &["content", "show", "/d/a.bin"]);
    let signed = format!("signed by   {}", origin.status().key);
    assert!(shown.contains(&signed), "{shown}");
    let verified = done(&mirror, &["content", "verify", "--json"]);
    assert_eq!(verified.matches("\"bad\": 0").count(), 2, "{verified}");

    let dropped = done(&mirror, &["content", "purge", "/d/a.bin", "--json"]);
    assert!(
        dropped.contains("\"objects\": 1") && dropped.contains("\"bytes\": 4"),
        "{dropped}"
    );
    assert_eq!(mirror.status().content.objects, 1);
    // A reader has it fetched again.
    assert_eq!(get(mirror.address("http"), "/d/a.bin", &[]).body, b"aaaa");
    let dropped = done(&mirror, &["content", "purge", "/"]);
    assert_eq!(dropped, "2 objects dropped, 6 B\n");
}

#[test]
fn put_publishes_and_delete_removes() {
    let origin = origin();
    let http = origin.address("http");
    let big = vec![7; 3_000_000];
    fs::write(origin.path("big.bin"), &big).unwrap();
    let file = origin.path("big.bin");
    let file = file.to_str().unwrap();
    // The name of the file is added to a path that ends with a slash, and directories are made.
    let put = done(&origin, &["content", "put", file, "/new/er/"]);
    assert!(
        put.starts_with("/new/er/big.bin published, 2.8 MiB, sha256 "),
        "{put}"
    );
    assert_eq!(get(http, "/new/er/big.bin", &[]).body, big);
    let put = done(&origin, &["content", "put", file, "/c", "--json"]);
    assert!(
        put.contains("\"new\": false") && put.contains("\"size\": 3000000"),
        "{put}"
    );
    assert_eq!(get(http, "/c", &[]).body, big);
    assert_eq!(fs::read(origin.path("content/c")).unwrap(), big);

    assert_eq!(done(&origin, &["content", "delete", "/c"]), "/c deleted\n");
    assert_eq!(get(http, "/c", &[]).status, 404);
    assert!(!origin.path("content/c").exists());
    let said = refused(&origin, &["content", "delete", "/c"]);
    assert!(said.contains("/c: no such object here"), "{said}");
}

#[test]
fn put_that_breaks_off_or_is_refused_changes_nothing() {
    let origin = origin();
    let socket = origin.status().listeners;
    let socket = socket.iter().find(|l| l.service == "admin").unwrap();
    let mut stream = UnixStream::connect(&socket.address).unwrap();
    let verb = "{\"path\":\"/c\",\"size\":1000000}\n";
    let length = verb.len() + 1_000_000;
    write!(
        stream,
        "POST /v1/content/put HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{verb}{}",
        "x".repeat(600_000)
    )
    .unwrap();
    until("the file to be on its way", || {
        fs::read_dir(origin.path("content/.headwater")).is_ok_and(|dir| dir.count() == 1)
    });
    // Who comes second is told so, though the node closes before it has read what he sends.
    fs::write(origin.path("other"), vec![1; 2_000_000]).unwrap();
    let other = origin.path("other");
    let other = other.to_str().unwrap();
    let said = refused(&origin, &["content", "put", other, "/c"]);
    assert!(
        said.contains("/c: it is being written by another"),
        "{said}"
    );
    drop(stream);
    until("the part to be removed", || {
        fs::read_dir(origin.path("content/.headwater")).is_ok_and(|dir| dir.count() == 0)
    });
    assert_eq!(get(origin.address("http"), "/c", &[]).body, b"c");
    for path in ["c", "/../c", "/d", "/.hidden", "/a//b"] {
        refused(&origin, &["content", "put", other, path]);
    }
    let mirror = mirror(&origin, "");
    let said = refused(&mirror, &["content", "put", other, "/c"]);
    let expected =
        "/c: nothing can be published there; expected a path beneath the prefix of a [[publish]]";
    assert!(said.contains(expected), "{said}");
    done(&mirror, &["content", "prefetch", "/c"]);
    let said = refused(&mirror, &["content", "delete", "/c"]);
    assert!(said.contains("mirrored here, not published"), "{said}");
    let absent = origin.path("absent");
    let said = refused(&origin, &["content", "put", absent.to_str().unwrap(), "/c"]);
    assert!(said.contains("absent: No such file"), "{said}");
}

#[test]
fn commands_that_make_no_sense_say_why() {
    let origin = origin();
    let mirror = mirror(&origin, "exclude = [\"b.bin\"]\n");
    for (node, args, expected) in [
        (
            &origin,
            ["content", "prefetch", "/c"],
            "/c: not mirrored here",
        ),
        (
            &mirror,
            ["content", "prefetch", "/x"],
            "/x: the origin publishes no such object",
        ),
        (
            &mirror,
            ["content", "prefetch", "/d/b.bin"],
            "/d/b.bin: the origin publishes no such object",
        ),
        (
            &origin,
            ["content", "purge", "/c"],
            "/c: published here, not mirrored",
        ),
        (
            &mirror,
            ["content", "purge", "/c"],
            "/c: no such object here",
        ),
        (
            &mirror,
            ["content", "show", "/c"],
            "/c: no such object here",
        ),
    ] {
        let found = refused(node, &args);
        assert!(found.contains(expected), "{args:?}: {found}");
    }
}

#[test]
fn key_of_a_node_is_made_once_and_kept_over_a_restart() {
    let mut node = origin();
    let key = node.status().key;
    assert_eq!(key.len(), 64);
    let shown = done(&node, &["status"]);
    assert!(shown.contains(&format!("key      {key}\n")), "{shown}");
    node.signal(rustix::process::Signal::TERM);
    assert!(node.ended().success());
    node.start_again();
    assert_eq!(node.status().key, key);
    let secret = fs::read_to_string(node.path("state/node.key")).unwrap();
    assert!(!done(&node, &["status", "--json"]).contains(secret.trim()));
}
