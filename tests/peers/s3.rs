//! Buckets of a real S3 server (`s3s-fs`, which checks signatures), filled with curl.
//!
//! `cargo install s3s-fs --version 0.14.1 --features binary --locked` gives the server.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::harness::{
    COMMON, LIMIT, Node, Process, READY, free_port, headwater, http_get, noise, poll, run, sha256,
    tool,
};

/// The server with one bucket.
struct S3 {
    process: Option<Process>,
    dir: tempfile::TempDir,
    port: u16,
}

impl S3 {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir_all(dir.path().join("root")).expect("it is writable");
        let mut server = Self {
            process: None,
            dir,
            port: free_port(),
        };
        server.again();
        server.curl(&["-X", "PUT"], "").assert_success();
        server
    }

    /// Starts it, with all it had.
    fn again(&mut self) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join("s3s-fs"))
            .find(|file| file.is_file());
        let program = program.unwrap_or_else(|| {
            panic!("`s3s-fs` is missing: cargo install s3s-fs --version 0.14.1 --features binary --locked")
        });
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--access-key", KEY, "--secret-key", SECRET]);
        command.arg(self.dir.path().join("root"));
        self.process = Some(Process::spawn(
            "s3s-fs",
            command,
            self.dir.path().join("log"),
        ));
        let port = self.port;
        poll(READY, "the S3 server", || http_get(port, "/"));
    }

    fn stop(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    fn curl(&self, options: &[&str], key: &str) -> super::harness::Output {
        run(Command::new(tool("curl"))
            .args(["-q", "-fsS", "--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["--user", &format!("{KEY}:{SECRET}")])
            .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(options)
            .arg(format!("http://127.0.0.1:{}/bucket/{key}", self.port)))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> PathBuf {
        let file = self.dir.path().join("upload");
        std::fs::write(&file, bytes).expect("it is writable");
        let named = file.display().to_string();
        self.curl(&["-T", &named], key).assert_success();
        file
    }

    /// As [`S3::put`], but as if it had been at `time`.
    fn put_at(&self, key: &str, bytes: &[u8], time: SystemTime) {
        self.put(key, bytes);
        let file = self.dir.path().join("root/bucket").join(key);
        let file = File::options().write(true).open(file);
        let set = file.and_then(|file| file.set_modified(time));
        set.expect("the server keeps an object in a file");
    }

    fn delete(&self, key: &str) {
        self.curl(&["-X", "DELETE"], key).assert_success();
    }

    /// A node that publishes `models/` of the bucket as `/m/`, not started.
    fn node(&self, options: &str) -> Node {
        let mut node = Node::new(&format!(
            r#"{COMMON}
[resolver]
mode = "off"
[store]
chunk = "64 KiB"
{options}
[[publish]]
prefix = "/m/"
s3 = "s3://bucket/models"
endpoint = "http://127.0.0.1:{}"
interval = "200ms"
listing = true
"#,
            self.port
        ));
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ] {
            node.environment.push((name, value.to_owned()));
        }
        node
    }
}

/// The SHA-256 of what a node serves at a path; `None`: nothing.
fn served(node: &Node, path: &str) -> Option<String> {
    let file = node.path("copy");
    let got = run(Command::new(tool("curl"))
        .args(["-q", "-fsS", "--max-time", "50", "-o"])
        .arg(&file)
        .arg(node.url(path)));
    got.status.success().then(|| sha256(&file))
}

fn wait_for(node: &Node, path: &str, bytes: &[u8]) {
    let expected = node.path("expected");
    std::fs::write(&expected, bytes).expect("it is writable");
    let expected = sha256(&expected);
    poll(LIMIT, path, || {
        (served(node, path)? == expected).then_some(())
    });
}

fn wait_gone(node: &Node, path: &str) {
    poll(LIMIT, "it to be gone", || {
        served(node, path).is_none().then_some(())
    });
}

fn problems(node: &Node) -> String {
    node.control_json(&["status"])["problems"].to_string()
}

#[test]
fn bucket_is_published_followed_and_mirrored() {
    let server = S3::start();
    let large = noise(1, 3_000_000);
    server.put("models/large.bin", &large);
    server.put("models/a%20b/%C3%A4.txt", b"words");
    server.put("elsewhere.txt", b"not published");
    let mut node = server.node("");
    node.start();
    wait_for(&node, "/m/large.bin", &large);
    wait_for(&node, "/m/a%20b/%C3%A4.txt", b"words");
    assert_eq!(served(&node, "/elsewhere.txt"), None);
    let listing = run(Command::new(tool("curl"))
        .args(["-q", "-fsS", "-H", "Accept: application/json"])
        .arg(node.url("/m/")));
    listing.assert_success();
    for entry in [
        r#""name":"large.bin","type":"file""#,
        r#""name":"a b","type":"directory""#,
    ] {
        assert!(listing.stdout.contains(entry), "{}", listing.stdout);
    }

    let mut mirror = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[mirror]]
prefix = "/m/"
from = ["http://127.0.0.1:{}"]
interval = "200ms"
"#,
        node.http
    ));
    mirror.start();
    wait_for(&mirror, "/m/large.bin", &large);
    wait_for(&mirror, "/m/a%20b/%C3%A4.txt", b"words");

    // A new version, a new object, one that is gone: what did not change is not read again.
    let changed = noise(2, 2_000_000);
    server.put("models/large.bin", &changed);
    server.put("models/new.txt", b"new");
    server.delete("models/a%20b/%C3%A4.txt");
    for node in [&node, &mirror] {
        wait_for(node, "/m/large.bin", &changed);
        wait_for(node, "/m/new.txt", b"new");
        wait_gone(node, "/m/a%20b/%C3%A4.txt");
    }
    let read = node.metric("headwater_bucket_bytes_total", &[]);
    assert_eq!(read, (3_000_000 + 5 + 2_000_000 + 3) as f64);
}

#[test]
fn bucket_larger_than_the_store_is_fetched_again_by_chunks() {
    let server = S3::start();
    let objects: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 400_000)).collect();
    for (name, bytes) in objects.iter().enumerate() {
        server.put(&format!("models/{name}"), bytes);
    }
    let mut node = server.node("size = \"1 MiB\"");
    node.start();
    for _ in 0..2 {
        for (name, bytes) in objects.iter().enumerate() {
            wait_for(&node, &format!("/m/{name}"), bytes);
        }
    }
    let fetched = node.metric("headwater_bucket_chunks_total", &[("outcome", "ok")]);
    assert!(fetched >= 14.0, "{fetched}");
    let held = node.metric("headwater_content_store_bytes", &[]);
    assert!(held <= f64::from(1 << 20), "{held}");

    // A mirror with room for all gets all, though the origin never holds it at once.
    let mut mirror = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[mirror]]
prefix = "/m/"
from = ["http://127.0.0.1:{}"]
interval = "200ms"
"#,
        node.http
    ));
    mirror.start();
    for (name, bytes) in objects.iter().enumerate() {
        wait_for(&mirror, &format!("/m/{name}"), bytes);
    }
}

/// The server does not know `If-Match`, so this is the tag of the answer that tells.
#[test]
fn version_that_changed_behind_an_evicted_object_is_never_mixed() {
    let server = S3::start();
    let digest = |server: &S3, name: usize, seed: u64| {
        let bytes = noise(seed, 400_000);
        sha256(&server.put(&format!("models/{name}"), &bytes))
    };
    let old: Vec<_> = (0..4).map(|n| digest(&server, n, n as u64)).collect();
    let mut node = server.node("size = \"1 MiB\"");
    node.start();
    let all = |wanted: &[String]| {
        let found: Vec<_> = (0..4).map(|n| served(&node, &format!("/m/{n}"))).collect();
        let wanted: Vec<_> = wanted.iter().cloned().map(Some).collect();
        (found == wanted).then_some(found)
    };
    poll(LIMIT, "the first versions", || all(&old));
    let new: Vec<_> = (0..4).map(|n| digest(&server, n, 10 + n as u64)).collect();
    poll(LIMIT, "the second versions", || {
        for name in 0..4 {
            let found = served(&node, &format!("/m/{name}"));
            let known = [&old[name], &new[name]];
            assert!(
                found.is_none_or(|f| known.contains(&&f)),
                "of neither version"
            );
        }
        all(&new)
    });
}

/// The server lists no entity tags.
#[test]
fn version_put_in_the_same_second_as_the_one_before_is_published() {
    let server = S3::start();
    let second = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    server.put_at("models/a", b"one", second + Duration::from_millis(200));
    let mut node = server.node("");
    node.start();
    wait_for(&node, "/m/a", b"one");
    server.put_at("models/a", b"two", second + Duration::from_millis(700));
    wait_for(&node, "/m/a", b"two");
}

#[test]
fn server_away_what_is_held_is_served_and_status_says_why() {
    let mut server = S3::start();
    let bytes = noise(7, 500_000);
    server.put("models/held.bin", &bytes);
    let mut node = server.node("");
    node.start();
    wait_for(&node, "/m/held.bin", &bytes);
    server.stop();
    poll(LIMIT, "the problem to be told", || {
        let text = problems(&node);
        (text.contains("bucket /m/") && text.contains("onnect")).then_some(())
    });
    wait_for(&node, "/m/held.bin", &bytes);
    // Started anew without its server it has what it had.
    node.stop();
    node.start();
    wait_for(&node, "/m/held.bin", &bytes);
    server.again();
    server.put("models/later.bin", b"later");
    wait_for(&node, "/m/later.bin", b"later");
    poll(LIMIT, "the problem to be over", || {
        (problems(&node) == "[]").then_some(())
    });
    let read = node.metric("headwater_bucket_bytes_total", &[]);
    assert_eq!(read, 5.0, "what was known was read again");
}

#[test]
fn wrong_secret_is_told_and_not_the_secret() {
    let server = S3::start();
    let mut node = server.node("");
    node.environment.clear();
    let wrong = "wrong-secret-of-a-test";
    node.environment.push(("AWS_ACCESS_KEY_ID", KEY.to_owned()));
    node.environment
        .push(("AWS_SECRET_ACCESS_KEY", wrong.to_owned()));
    node.start();
    let text = poll(LIMIT, "the problem to be told", || {
        let text = problems(&node);
        text.contains("bucket /m/").then_some(text)
    });
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    assert!(!text.contains(wrong), "{text}");
    assert_eq!(served(&node, "/m/any"), None);
}

#[test]
fn bucket_that_makes_no_sense_is_a_configuration_error() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("config.toml");
    let check = |lines: &str| {
        let text = format!("[[publish]]\nprefix = \"/m/\"\n{lines}\n");
        std::fs::write(&file, text).expect("it is writable");
        let mut command = headwater();
        let output = run(command.args(["check", "--config"]).arg(&file));
        format!("{}{}", output.stdout, output.stderr)
    };
    let said = check("s3 = \"https://bucket/a\"");
    assert!(
        said.contains("config.toml:3: publish[0].s3: found"),
        "{said}"
    );
    let said = check("s3 = \"s3://bucket\"\ndir = \"content\"");
    assert!(said.contains("not both"), "{said}");
    let said = check("s3 = \"s3://bucket\"\nendpoint = \"s3.example\"");
    assert!(said.contains("publish[0].endpoint: found"), "{said}");
    let said = check("dir = \"content\"\nregion = \"eu-west-1\"");
    assert!(said.contains("publish[0].region: found"), "{said}");
}

const KEY: &str = "access-key-of-a-test";
const SECRET: &str = "secret-key-of-a-test";
