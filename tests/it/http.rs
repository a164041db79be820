//! The HTTP server over real sockets: what it serves, and what it refuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater::content::chunk::{self, Layout};
use headwater::content::library::{Entry, Library};
use headwater::content::manifest::Manifest;
use headwater::content::object::Object;
use headwater::content::publish::Publisher;
use headwater::content::store::Store;
use headwater::content::{PublishConfig, StoreConfig};
use headwater::http::Config;
use headwater::http::access::Format;
use headwater::http::rules::Rule;
use headwater::http::server::Server;
use headwater::metrics::Metrics;
use headwater::metrics::content::Limit;
use headwater::metrics::http::{Closed, Outcome, Refused, Role};
use headwater::tls::Certificates;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::harness::rapid_resets;

mod connections;
mod faces;
mod filling;
mod hits;
mod quick;
mod seed;
mod tls;
mod upload;

const SMALL: &[u8] = b"Sixteen letters.";
const LONG: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// A server of published files.
struct Node {
    dir: TempDir,
    address: SocketAddr,
    /// Where it speaks TLS.
    encrypted: SocketAddr,
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    server: JoinHandle<Result<(), anyhow::Error>>,
}

fn config_of_tests() -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls_listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls_handshake: LONG,
        connections: 100,
        connections_per_address: 100,
        silent: LONG,
        head_time: LONG,
        idle: LONG,
        slow: LONG,
        unsent: 1 << 20,
        frames: 8 << 20,
        head_size: 32 << 10,
        headers: 100,
        header_list: 16 << 10,
        streams: 100,
        resets: 20,
        error_resets: 1000,
        ranges: 16,
        fill_wait: Duration::from_millis(200),
        access_log: None,
        access_format: Format::Combined,
        piece_digests: 1 << 20,
        torrent_peers: false,
        upload: None,
        rules: Vec::new(),
        access_lines: 8_192,
        proxy: Default::default(),
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new())
}

/// Bytes that differ everywhere, so that one chunk cannot stand for another.
fn big() -> Vec<u8> {
    let mut state = 1u64;
    (0..(3 << 20) + 12_345)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

impl Node {
    async fn start(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("content");
        std::fs::create_dir_all(root.join("films")).unwrap();
        std::fs::create_dir_all(root.join("site")).unwrap();
        std::fs::write(dir.path().join("secret"), "not published").unwrap();
        std::fs::write(root.join("small.txt"), SMALL).unwrap();
        std::fs::write(root.join("empty.bin"), "").unwrap();
        std::fs::write(root.join("big.bin"), big()).unwrap();
        std::fs::write(root.join("site/index.html"), "<p>hello").unwrap();
        std::fs::write(root.join("films/a <b>&\"c.txt"), "odd").unwrap();
        let metrics = metrics();
        let store = StoreConfig::new(dir.path().join("state"));
        let library = Library::new(&store, Arc::clone(&metrics));
        let publish = PublishConfig {
            prefix: "/".into(),
            dir: root,
            index: "index.html".into(),
            listing: true,
        };
        let publisher =
            Publisher::new(vec![publish], &store, library.clone(), Arc::clone(&metrics)).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(publisher.run(stop.child_token()));
        let ready = Instant::now() + LONG;
        for path in ["/small.txt", "/empty.bin", "/big.bin", "/site/"] {
            while !matches!(library.find(path).await, Entry::Object(_)) {
                assert!(Instant::now() < ready, "{path} not published in time");
                tokio::time::sleep(POLL).await;
            }
        }
        Self::serve(config, library, metrics, dir, stop)
    }

    fn serve(
        config: Config,
        library: Library,
        metrics: Arc<Metrics>,
        dir: TempDir,
        stop: CancellationToken,
    ) -> Self {
        let server = Server::bind(config, Vec::new(), library, Arc::clone(&metrics)).unwrap();
        let certificates = Arc::new(Certificates::default());
        certificates.set(tls::files(dir.path(), "first.test").read().unwrap());
        let server = server.certified(&certificates).unwrap();
        let (address, encrypted) = (server.local_addrs()[0], server.encrypted_addrs()[0]);
        let server = tokio::spawn(server.run(stop.clone()));
        Self {
            dir,
            address,
            encrypted,
            certificates,
            metrics,
            stop,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `head` on a connection of its own and reads until the server closes.
    async fn raw(&self, head: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(head).await.unwrap();
        read_all(&mut stream).await
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        Reply::parse(&self.raw(head.as_bytes()).await)
    }

    async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.ask("GET", target, fields).await
    }

    /// Stops and waits until every connection is done; no counter moves after.
    async fn end(self) -> (Arc<Metrics>, TempDir) {
        self.stop.cancel();
        timeout(LONG, self.server)
            .await
            .expect("stops in time")
            .unwrap()
            .unwrap();
        (self.metrics, self.dir)
    }
}

/// Reads until the end; a reset counts as one.
async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes))
        .await
        .expect("the server closes in time");
    bytes
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    fn parse(bytes: &[u8]) -> Self {
        Self::try_parse(bytes)
            .unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)))
    }

    /// `None` while the head is not whole.
    fn try_parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Some(Self {
            status: status.parse().unwrap(),
            fields: fields.collect(),
            body: bytes[end + 4..].to_vec(),
        })
    }

    #[track_caller]
    fn field(&self, name: &str) -> &str {
        self.fields
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {:?}", self.fields))
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |i: usize| bytes.get(i / 8).is_some_and(|b| b >> (7 - i % 8) & 1 == 1);
    let mut out: String = (0..bytes.len() * 8)
        .step_by(6)
        .map(|at| {
            let digit = (at..at + 6).fold(0, |sum, i| sum << 1 | usize::from(bit(i)));
            char::from(ALPHABET[digit])
        })
        .collect();
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

#[tokio::test]
async fn get_gives_the_file_and_what_it_is_known_by() {
    let node = Node::start(config_of_tests()).await;
    for (target, bytes) in [
        ("/small.txt", SMALL.to_vec()),
        ("/big.bin", big()),
        ("/empty.bin", Vec::new()),
    ] {
        for _ in 0..2 {
            let reply = node.get(target, &[]).await;
            assert_eq!(reply.status, 200, "{target}");
            assert!(reply.body == bytes, "{target}: other bytes");
            assert_eq!(reply.field("content-length"), bytes.len().to_string());
            assert_eq!(reply.field("accept-ranges"), "bytes");
            assert!(reply.field("etag").starts_with('"'));
            assert!(reply.field("last-modified").ends_with(" GMT"));
            assert!(reply.fields.contains_key("date"));
            let digest = format!("sha-256=:{}:", base64(&Sha256::digest(&bytes)));
            assert_eq!(reply.field("repr-digest"), digest);
        }
    }
    let reply = node.get("/small.txt", &[]).await;
    assert!(reply.field("content-type").starts_with("text/plain"));
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Ok), 7);
    let sent = 3 * SMALL.len() + 2 * big().len();
    assert_eq!(metrics.http.sent(Role::Origin), sent as u64);
}

#[tokio::test]
async fn one_range_gives_exactly_its_bytes() {
    let node = Node::start(config_of_tests()).await;
    let big = big();
    let len = big.len();
    let cases = [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=1048575-1048576".into(), 1_048_575..1_048_577),
        ("bytes=1000000-1999999".into(), 1_000_000..2_000_000),
        ("bytes=-1".into(), len - 1..len),
        (format!("bytes={}-", len - 300_000), len - 300_000..len),
        ("bytes=5-99999999999".into(), 5..len),
    ];
    for (range, expected) in cases {
        let reply = node.get("/big.bin", &[("Range", &range)]).await;
        assert_eq!(reply.status, 206, "{range}");
        let content_range = format!("bytes {}-{}/{len}", expected.start, expected.end - 1);
        assert_eq!(reply.field("content-range"), content_range);
        assert_eq!(reply.field("content-length"), expected.len().to_string());
        assert!(reply.body == big[expected], "{range}: other bytes");
    }
    let reply = node.get("/small.txt", &[("Range", "bytes=8-")]).await;
    assert_eq!((reply.status, &reply.body[..]), (206, &SMALL[8..]));
}

#[tokio::test]
async fn range_outside_is_416_with_the_length() {
    let node = Node::start(config_of_tests()).await;
    for range in ["bytes=16-", "bytes=99-100", "bytes=-0"] {
        let reply = node.get("/small.txt", &[("Range", range)]).await;
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.field("content-range"), "bytes */16");
    }
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::ClientError), 3);
}

#[tokio::test]
async fn many_ranges_give_a_multipart_body() {
    let node = Node::start(config_of_tests()).await;
    let big = big();
    for (target, bytes) in [("/small.txt", SMALL), ("/big.bin", &big[..])] {
        // Twice: the small file comes from the disk first, from memory after.
        for _ in 0..2 {
            let reply = node
                .get(target, &[("Range", "bytes=-3, 0-4, 3-6, 9-9")])
                .await;
            assert_eq!(reply.status, 206);
            assert_eq!(reply.field("content-length"), reply.body.len().to_string());
            let boundary = reply
                .field("content-type")
                .strip_prefix("multipart/byteranges; boundary=")
                .unwrap();
            let len = bytes.len();
            let mut expected = Vec::new();
            let plain = node.get(target, &[]).await;
            for range in [0..7, 9..10, len - 3..len] {
                expected.extend_from_slice(
                    format!(
                        "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: bytes {}-{}/{len}\r\n\r\n",
                        plain.field("content-type"),
                        range.start,
                        range.end - 1
                    )
                    .as_bytes(),
                );
                expected.extend_from_slice(&bytes[range]);
            }
            expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            assert!(reply.body == expected, "{target}: other bytes");
        }
    }
}

#[tokio::test]
async fn too_many_ranges_give_the_whole_object() {
    let node = Node::start(config_of_tests()).await;
    let list: Vec<_> = (0..1000).map(|i| format!("{i}-{i}")).collect();
    let range = format!("bytes={}", list.join(","));
    let reply = node.get("/small.txt", &[("Range", &range)]).await;
    assert_eq!((reply.status, &reply.body[..]), (200, SMALL));
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.ranges_ignored.get(), 1);
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let node = Node::start(config_of_tests()).await;
    for target in [
        "/small.txt",
        "/big.bin",
        "/empty.bin",
        "/missing",
        "/films/",
    ] {
        let mut get = node.get(target, &[]).await;
        let mut head = node.ask("HEAD", target, &[]).await;
        assert_eq!(get.status, head.status, "{target}");
        assert!(head.body.is_empty(), "{target}");
        get.fields.remove("date");
        head.fields.remove("date");
        assert_eq!(get.fields, head.fields, "{target}");
    }
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Ok), 6);
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Aborted), 0);
}

#[tokio::test]
async fn conditions_are_held() {
    let node = Node::start(config_of_tests()).await;
    let plain = node.get("/small.txt", &[]).await;
    let (etag, modified) = (plain.field("etag"), plain.field("last-modified"));
    let weak = format!("W/{etag}");
    let cases: [(&str, &str, u16); 9] = [
        ("If-None-Match", etag, 304),
        ("If-None-Match", &weak, 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"other\"", 200),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("If-Match", etag, 200),
        ("If-Match", "\"other\"", 412),
        ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", 412),
    ];
    for (name, value, status) in cases {
        let reply = node.get("/small.txt", &[(name, value)]).await;
        assert_eq!(reply.status, status, "{name}: {value}");
        if status == 304 {
            assert_eq!(reply.field("etag"), etag);
            assert!(reply.body.is_empty());
        }
    }
}

#[tokio::test]
async fn download_resumes_only_on_the_same_version() {
    let node = Node::start(config_of_tests()).await;
    let big = big();
    let half = big.len() / 2;
    let range = format!("bytes={half}-");
    let etag = node
        .ask("HEAD", "/big.bin", &[])
        .await
        .field("etag")
        .to_owned();
    let reply = node
        .get("/big.bin", &[("Range", &range), ("If-Range", &etag)])
        .await;
    assert_eq!(reply.status, 206);
    assert!(reply.body == big[half..], "other bytes");
    let reply = node
        .get("/big.bin", &[("Range", &range), ("If-Range", "\"other\"")])
        .await;
    assert_eq!(reply.status, 200);
    assert!(reply.body == big, "other bytes");
}

#[tokio::test]
async fn what_does_not_stand_or_may_not_be_asked_is_refused() {
    let node = Node::start(config_of_tests()).await;
    assert_eq!(node.get("/missing", &[]).await.status, 404);
    assert_eq!(node.get("/small.txt/", &[]).await.status, 404);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let reply = node.ask(method, "/small.txt", &[]).await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.field("allow"), "GET, HEAD, OPTIONS");
    }
    for target in ["/small.txt", "*"] {
        let reply = node.ask("OPTIONS", target, &[]).await;
        assert_eq!(reply.status, 204, "{target}");
        assert_eq!(reply.field("allow"), "GET, HEAD, OPTIONS");
    }
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::None, Outcome::NotFound), 2);
    assert_eq!(metrics.http.requests(Role::None, Outcome::ClientError), 6);
    assert_eq!(metrics.http.requests(Role::None, Outcome::Ok), 2);
}

#[tokio::test]
async fn nothing_outside_the_root_is_served() {
    let node = Node::start(config_of_tests()).await;
    let link = node.dir.path().join("content/link");
    std::os::unix::fs::symlink(node.dir.path(), link).unwrap();
    for target in [
        "/../secret",
        "/films/../../secret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/films/..%2f..%2fsecret",
        "/..%5csecret",
        "//secret",
        "/films//../../secret",
        "/%252e%252e/secret",
        "/link/secret",
        "/films/%00/../../secret",
        "/%c0%ae%c0%ae/secret",
    ] {
        let reply = node.get(target, &[]).await;
        assert!(
            matches!(reply.status, 400 | 404),
            "{target}: {}",
            reply.status
        );
        assert!(
            !reply.body.windows(9).any(|w| w == b"published"),
            "{target}"
        );
    }
    // Inside the root it is a path as any other.
    let reply = node.get("/films/../%73mall.txt", &[]).await;
    assert_eq!((reply.status, &reply.body[..]), (200, SMALL));
    let reply = node.get("http://other.test/small.txt", &[]).await;
    assert_eq!((reply.status, &reply.body[..]), (200, SMALL));
}

#[tokio::test]
async fn directory_gives_its_index_its_listing_or_its_slash() {
    let node = Node::start(config_of_tests()).await;
    let reply = node.get("/site/", &[]).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"<p>hello"[..]));
    let reply = node.get("/films", &[]).await;
    assert_eq!((reply.status, reply.field("location")), (301, "/films/"));
    let reply = node.get("/films/", &[]).await;
    let html = String::from_utf8(reply.body).unwrap();
    assert_eq!(reply.status, 200);
    assert!(
        html.contains("<a href=\"./a%20%3Cb%3E%26%22c.txt\">a &lt;b&gt;&amp;&quot;c.txt</a>"),
        "{html}"
    );
}

#[tokio::test]
async fn listing_ends_at_its_bound_and_says_so() {
    let node = Node::start(config_of_tests()).await;
    let folder = node.dir.path().join("content/many");
    std::fs::create_dir(&folder).unwrap();
    let add = |names: std::ops::Range<u32>| {
        for n in names {
            std::fs::File::create(folder.join(format!("{n:05}"))).unwrap();
        }
    };
    let listed = async || {
        let reply = node.get("/many/", &[]).await;
        assert_eq!(reply.status, 200);
        let html = String::from_utf8(reply.body).unwrap();
        let more = html.contains("<p>10000 names, and there are more");
        (html.matches("<li>").count(), more)
    };
    let reached = || node.metrics.content.limit_count(Limit::Listing);
    add(0..10_000);
    assert_eq!((listed().await, reached()), ((10_000, false), 0));
    add(10_000..10_003);
    assert_eq!((listed().await, reached()), ((10_000, true), 1));
    // Whatever is left out has its own path still.
    for n in (0..10_000).step_by(1_000).chain(10_000..10_003) {
        assert_eq!(node.get(&format!("/many/{n:05}"), &[]).await.status, 200);
    }
}

#[tokio::test]
async fn every_request_is_one_line_of_the_access_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let mut config = config_of_tests();
    config.access_log = Some(path.clone());
    let node = Node::start(config).await;
    node.get("/small.txt", &[("User-Agent", "a \"b\"")]).await;
    node.get("/big.bin", &[("Range", "bytes=1-4")]).await;
    node.get("/missing", &[]).await;
    node.end().await;
    check_log(
        &path,
        &[
            "\"GET /small.txt HTTP/1.1\" 200 16 \"-\" \"a \\x22b\\x22\"",
            "\"GET /big.bin HTTP/1.1\" 206 4 \"-\" \"-\"",
            "\"GET /missing HTTP/1.1\" 404 35 \"-\" \"-\"",
        ],
    );
}

#[track_caller]
fn check_log(path: &Path, expected: &[&str]) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, end) in lines.iter().zip(expected) {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.ends_with(end), "{line}");
    }
}

#[tokio::test]
async fn digest_is_sent_as_it_is_wanted() {
    let node = Node::start(config_of_tests()).await;
    let whole = format!("sha-256=:{}:", base64(&Sha256::digest(SMALL)));
    for (fields, repr, content) in [
        (&[("Range", "bytes=3-5")][..], Some(&whole), None),
        (&[("Want-Repr-Digest", "sha-256=10")], Some(&whole), None),
        (&[("Want-Repr-Digest", "sha-512=10")], Some(&whole), None),
        (&[("Want-Repr-Digest", "sha-256=0, sha-512=1")], None, None),
        (&[("Want-Repr-Digest", "what?")], Some(&whole), None),
        (
            &[("Want-Content-Digest", "sha-256=1")],
            Some(&whole),
            Some(&whole),
        ),
        // The digest of these bytes alone is not known.
        (
            &[("Want-Content-Digest", "sha-256=1"), ("Range", "bytes=3-5")],
            Some(&whole),
            None,
        ),
    ] {
        for method in ["GET", "HEAD"] {
            // A range is for GET alone.
            if method == "HEAD" && fields.iter().any(|(name, _)| *name == "Range") {
                continue;
            }
            let reply = node.ask(method, "/small.txt", fields).await;
            assert_eq!(reply.fields.get("repr-digest"), repr, "{fields:?}");
            assert_eq!(reply.fields.get("content-digest"), content, "{fields:?}");
        }
    }
}

#[tokio::test]
async fn rule_of_the_prefix_goes_with_every_answer() {
    let rule = |prefix: &str, cache: &'static str, cors| Rule {
        prefix: prefix.into(),
        cache_control: Some(http::HeaderValue::from_static(cache)),
        cors,
        ..Rule::default()
    };
    let mut config = config_of_tests();
    config.rules = vec![
        rule("/", "no-cache", false),
        rule("/films/", "public, max-age=60", true),
    ];
    let node = Node::start(config).await;
    let etag = node.get("/small.txt", &[]).await.field("etag").to_owned();
    let reply = node.get("/small.txt", &[("If-None-Match", &etag)]).await;
    assert_eq!(
        (reply.status, reply.field("cache-control")),
        (304, "no-cache")
    );
    assert!(!reply.fields.contains_key("access-control-allow-origin"));
    let film = "/films/a%20%3Cb%3E&%22c.txt";
    let film = film.replace('"', "%22");
    for (target, fields, status, kept) in [
        (film.as_str(), &[][..], 200, true),
        (&film, &[("Range", "bytes=0-0")], 206, true),
        (&film, &[("If-None-Match", "*")], 304, true),
        (&film, &[("If-Match", "\"x\"")], 412, false),
        (&film, &[("Range", "bytes=9-")], 416, false),
        ("/films/", &[], 200, true),
        ("/films/none", &[], 404, false),
    ] {
        let reply = node.get(target, fields).await;
        assert_eq!(reply.status, status, "{target} {fields:?}");
        assert_eq!(reply.field("access-control-allow-origin"), "*");
        let cache_control = reply.fields.get("cache-control").map(String::as_str);
        assert_eq!(
            cache_control,
            kept.then_some("public, max-age=60"),
            "{status}"
        );
    }
    let asked = [
        ("Origin", "http://page.test"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "range"),
    ];
    let open = node.ask("OPTIONS", "/films/x", &asked).await;
    assert_eq!(open.status, 204);
    assert_eq!(
        open.field("access-control-allow-methods"),
        "GET, HEAD, OPTIONS"
    );
    assert!(open.field("access-control-allow-headers").contains("Range"));
    let shut = node.ask("OPTIONS", "/x", &asked).await;
    assert!(!shut.fields.contains_key("access-control-allow-methods"));
}

#[tokio::test]
async fn listing_is_json_for_whom_that_is_dearer() {
    let node = Node::start(config_of_tests()).await;
    let reply = node.get("/films/", &[("Accept", "application/json")]).await;
    assert_eq!(reply.field("content-type"), "application/json");
    assert_eq!(reply.field("vary"), "accept");
    let items: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(items[0]["name"], "a <b>&\"c.txt");
    assert_eq!(
        (&items[0]["type"], &items[0]["size"]),
        (&"file".into(), &3.into())
    );
    let date = items[0]["mtime"].as_str().unwrap();
    let film = node.ask("HEAD", "/films/a%20%3Cb%3E&%22c.txt", &[]).await;
    assert_eq!(film.field("last-modified"), date);
    let reply = node.get("/films/", &[("Accept", "text/html, */*")]).await;
    assert_eq!(reply.field("content-type"), "text/html; charset=utf-8");
}
