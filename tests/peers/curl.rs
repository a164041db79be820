//! What curl gets from an origin.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::harness::{COMMON, Node, Output, READY, noise, poll, run, tool};

/// Five chunks and a bit.
const SIZE: usize = 5 * (1 << 20) + 12_345;

/// A started origin of `video.bin` ([`SIZE`] bytes), `index.html` and `films/a.txt`, and a directory to download to.
struct Origin {
    node: Node,
    video: Vec<u8>,
    downloads: TempDir,
}

impl Origin {
    fn start() -> Self {
        let mut node = Node::new(&format!(
            r#"{COMMON}
[resolver]
mode = "off"
[[publish]]
prefix = "/"
dir = "content"
listing = true
"#
        ));
        let video = noise(1, SIZE);
        node.write("content/video.bin", &video);
        node.write("content/index.html", "<h1>index</h1>\n");
        node.write("content/films/a.txt", "a film\n");
        node.start();
        let origin = Self {
            node,
            video,
            downloads: tempfile::tempdir().expect("a temporary directory can be made"),
        };
        poll(READY, "video.bin to be published", || {
            (origin.status(&["-I"], "/video.bin") == "200").then_some(())
        });
        origin
    }

    /// Runs curl in the download directory.
    fn curl(&self, args: &[&str], path: &str) -> Output {
        let mut command = Command::new(tool("curl"));
        command
            .current_dir(self.downloads.path())
            .args(["-q", "-sS", "--max-time", "30"])
            .args(args)
            .arg(self.node.url(path));
        run(&mut command)
    }

    /// The status code curl sees.
    fn status(&self, args: &[&str], path: &str) -> String {
        let all = [&["-o", "/dev/null", "-w", "%{http_code}"], args].concat();
        self.curl(&all, path).stdout
    }

    /// The head of the response and the body, fetched with `args`.
    fn fetch(&self, args: &[&str], path: &str) -> (String, Vec<u8>) {
        let all = [&["-D", "head", "-o", "body"], args].concat();
        self.curl(&all, path).assert_success();
        let head = fs::read_to_string(self.downloaded("head")).expect("curl wrote the head");
        let body = fs::read(self.downloaded("body")).unwrap_or_default();
        (head.to_ascii_lowercase(), body)
    }

    fn downloaded(&self, name: &str) -> PathBuf {
        self.downloads.path().join(name)
    }
}

/// The value of a field in a lower-case head.
#[track_caller]
fn field<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in:\n{head}"))
}

#[track_caller]
fn assert_same(file: &Path, bytes: &[u8]) {
    let found = fs::read(file).expect("curl wrote the file");
    assert_eq!(found.len(), bytes.len());
    assert!(found == bytes, "the bytes differ");
}

#[test]
fn whole_object_arrives() {
    let origin = Origin::start();
    origin.curl(&["-O"], "/video.bin").assert_success();
    assert_same(&origin.downloaded("video.bin"), &origin.video);
    let sent = origin
        .node
        .metric("headwater_http_sent_bytes_total", &[("role", "origin")]);
    assert!(sent >= SIZE as f64, "{sent} bytes counted");
}

#[test]
fn range_is_exactly_these_bytes() {
    let origin = Origin::start();
    let (head, body) = origin.fetch(&["-r", "1000000-1999999"], "/video.bin");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert_eq!(
        field(&head, "content-range"),
        format!("bytes 1000000-1999999/{SIZE}")
    );
    assert_eq!(field(&head, "content-length"), "1000000");
    assert!(body == origin.video[1_000_000..2_000_000]);
}

#[test]
fn suffix_range_is_the_end() {
    let origin = Origin::start();
    let (head, body) = origin.fetch(&["-r", "-500"], "/video.bin");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(body == origin.video[SIZE - 500..]);
}

#[test]
fn several_ranges_arrive_as_parts() {
    let origin = Origin::start();
    let (head, body) = origin.fetch(&["-r", "0-9,3000000-3000019"], "/video.bin");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    let boundary = field(&head, "content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_else(|| panic!("{head}"))
        .trim_matches('"')
        .to_owned();
    for (range, bytes) in [
        ("0-9", &origin.video[..10]),
        ("3000000-3000019", &origin.video[3_000_000..3_000_020]),
    ] {
        let text = format!("bytes {range}/{SIZE}\r\n");
        let place = position(&body, text.as_bytes()).expect("the part has its Content-Range");
        let part = &body[place..];
        let start = position(part, b"\r\n\r\n").expect("the part has a head") + 4;
        assert!(part[start..].starts_with(bytes), "{range}");
        assert!(
            part[start + bytes.len()..].starts_with(b"\r\n--"),
            "{range}"
        );
    }
    assert!(
        position(
            &body.to_ascii_lowercase(),
            format!("--{boundary}--").as_bytes()
        )
        .is_some()
    );
}

#[test]
fn range_beyond_the_end_is_416_with_the_size() {
    let origin = Origin::start();
    let range = format!("{SIZE}-");
    let (head, _) = origin.fetch(&["-r", &range], "/video.bin");
    assert!(head.starts_with("http/1.1 416"), "{head}");
    assert_eq!(field(&head, "content-range"), format!("bytes */{SIZE}"));
}

#[test]
fn broken_off_download_goes_on_where_it_was() {
    let origin = Origin::start();
    let have = 1_234_567;
    fs::write(origin.downloaded("video.bin"), &origin.video[..have]).expect("writable");
    let output = origin.curl(&["-C", "-", "-O", "-w", "%{size_download}"], "/video.bin");
    output.assert_success();
    assert_eq!(output.stdout, (SIZE - have).to_string());
    assert_same(&origin.downloaded("video.bin"), &origin.video);
}

#[test]
fn head_says_all_and_sends_nothing() {
    let origin = Origin::start();
    let (head, body) = origin.fetch(&["-I"], "/video.bin");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(field(&head, "content-length"), SIZE.to_string());
    assert_eq!(field(&head, "accept-ranges"), "bytes");
    assert!(field(&head, "etag").starts_with('"'), "{head}");
    assert!(field(&head, "last-modified").ends_with("gmt"), "{head}");
    // With -I curl writes the head as the body's file too.
    assert!(body.len() < 4_096);
}

#[test]
fn unchanged_object_is_304() {
    let origin = Origin::start();
    origin
        .curl(&["-o", "first", "--etag-save", "etag"], "/video.bin")
        .assert_success();
    let output = origin.curl(
        &[
            "-o",
            "second",
            "--etag-compare",
            "etag",
            "-w",
            "%{http_code} %{size_download}",
        ],
        "/video.bin",
    );
    assert_eq!(output.stdout, "304 0");
    assert_eq!(
        origin.status(&["-H", "If-None-Match: \"other\""], "/video.bin"),
        "200"
    );
}

#[test]
fn changed_file_is_a_new_version_with_a_new_etag() {
    let origin = Origin::start();
    let (before, _) = origin.fetch(&[], "/films/a.txt");
    origin.node.write("content/films/a.txt", "another film\n");
    poll(READY, "the new version", || {
        let (after, body) = origin.fetch(&[], "/films/a.txt");
        (body == b"another film\n").then(|| {
            assert_ne!(field(&before, "etag"), field(&after, "etag"));
        })
    });
}

#[test]
fn missing_object_is_404_and_other_methods_405() {
    let origin = Origin::start();
    assert_eq!(origin.status(&[], "/nothing.bin"), "404");
    assert_eq!(
        origin.status(&["-X", "POST", "-d", "x"], "/video.bin"),
        "405"
    );
    assert_eq!(origin.status(&["-X", "DELETE"], "/video.bin"), "405");
}

#[test]
fn directory_is_its_index_or_a_listing() {
    let origin = Origin::start();
    let (_, index) = origin.fetch(&[], "/");
    assert_eq!(index, b"<h1>index</h1>\n");
    let (_, listing) = origin.fetch(&[], "/films/");
    let listing = String::from_utf8(listing).expect("a listing is text");
    assert!(listing.contains("a.txt"), "{listing}");
}

#[test]
fn http2_without_tls_gives_the_same_bytes() {
    let origin = Origin::start();
    let output = origin.curl(
        &[
            "--http2-prior-knowledge",
            "-O",
            "-w",
            "%{http_version} %{http_code}",
        ],
        "/video.bin",
    );
    assert_eq!(output.stdout, "2 200");
    assert_same(&origin.downloaded("video.bin"), &origin.video);
    let (head, body) = origin.fetch(
        &["--http2-prior-knowledge", "-r", "4194300-4194310"],
        "/video.bin",
    );
    assert!(head.starts_with("http/2 206"), "{head}");
    assert!(body == origin.video[4_194_300..=4_194_310]);
}

#[test]
fn many_readers_at_once_get_the_same_bytes() {
    let origin = Origin::start();
    let mut command = Command::new(tool("curl"));
    command.current_dir(origin.downloads.path()).args([
        "-q",
        "-sS",
        "--max-time",
        "30",
        "-Z",
        "--parallel-max",
        "12",
    ]);
    for number in 0..12 {
        command
            .args(["-o", &number.to_string()])
            .arg(origin.node.url("/video.bin"));
    }
    run(&mut command).assert_success();
    for number in 0..12 {
        assert_same(&origin.downloaded(&number.to_string()), &origin.video);
    }
}

#[test]
fn nothing_outside_the_published_directory_is_served() {
    let origin = Origin::start();
    let secret = origin.node.write("secret.txt", "not for you\n");
    symlink(&secret, origin.node.path("content/way-out")).expect("the directory is writable");
    symlink(origin.node.path("."), origin.node.path("content/up"))
        .expect("the directory is writable");
    origin
        .node
        .write("content/last.txt", "published after the links\n");
    poll(READY, "a file made after the links", || {
        (origin.status(&[], "/last.txt") == "200").then_some(())
    });
    for path in [
        "/../secret.txt",
        "/films/../../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "//secret.txt",
        "/films/%2e%2e/%2e%2e/secret.txt",
        "/way-out",
        "/up/secret.txt",
    ] {
        let output = origin.curl(&["--path-as-is", "-w", "\n%{http_code}"], path);
        assert!(!output.stdout.contains("not for you"), "{path}: {output:?}");
        let status = output.stdout.lines().last().unwrap_or_default();
        assert!(
            ["400", "403", "404"].contains(&status),
            "{path}: {output:?}"
        );
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}
