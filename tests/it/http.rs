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
use headwater::http::server::Server;
use headwater::metrics::Metrics;
use headwater::metrics::http::{Closed, Outcome, Refused, Role};
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

const SMALL: &[u8] = b"Sixteen letters.";
const LONG: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// A server of published files.
struct Node {
    dir: TempDir,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    server: JoinHandle<Result<(), anyhow::Error>>,
}

fn config_of_tests() -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        connections: 100,
        connections_per_address: 100,
        silent: LONG,
        head_time: LONG,
        idle: LONG,
        slow: LONG,
        unsent: 1 << 20,
        head_size: 32 << 10,
        headers: 100,
        header_list: 16 << 10,
        streams: 100,
        resets: 20,
        error_resets: 1000,
        ranges: 16,
        fill_wait: Duration::from_millis(200),
        access_log: None,
        access_lines: 8_192,
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
        let address = server.local_addrs()[0];
        let server = tokio::spawn(server.run(stop.clone()));
        Self {
            dir,
            address,
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
async fn pipelined_requests_are_answered_in_order() {
    let node = Node::start(config_of_tests()).await;
    let one = "GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    let missing = "GET /missing HTTP/1.1\r\nHost: test\r\n\r\n";
    let last = "GET /small.txt HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let text = node
        .raw(format!("{one}{missing}{one}{last}").as_bytes())
        .await;
    let text = String::from_utf8(text).unwrap();
    let statuses: Vec<_> = text
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &text[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "404", "200", "200"]);
    assert_eq!(text.matches("Sixteen letters.").count(), 3);
}

#[tokio::test]
async fn heads_that_smuggle_are_refused_and_the_connection_closed() {
    let node = Node::start(config_of_tests()).await;
    let hidden = "GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    let post = "POST /small.txt HTTP/1.1\r\nHost: test\r\n";
    let get = "GET /small.txt HTTP/1.1\r\nHost: test\r\n";
    for head in [
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello{hidden}"),
        format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{hidden}"),
        format!("{post}Content-Length: 5, 5\r\n\r\nhello{hidden}"),
        format!("{post}Content-Length: +5\r\n\r\nhello{hidden}"),
        format!("{post}Content-Length: 0x5\r\n\r\nhello{hidden}"),
        format!("{post}Content-Length : 5\r\n\r\nhello{hidden}"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{get}X: a\n\r\n{hidden}"),
        format!("{get}X: a\r\n\n{hidden}"),
        format!("{get}X: a\r\n b\r\n\r\n{hidden}"),
        format!("{get}X: a\r\n\tContent-Length: 40\r\n\r\n{hidden}"),
        format!("{get}X: a\rContent-Length: 40\r\n\r\n{hidden}"),
        format!("{get}X: a\0b\r\n\r\n{hidden}"),
        format!("{get}: empty\r\n\r\n{hidden}"),
        format!("GET /small.txt HTTP/1.1\nHost: test\n\n{hidden}"),
        format!("GET  /small.txt HTTP/1.1\r\nHost: test\r\n\r\n{hidden}"),
        format!("GET /small.txt HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
    ] {
        let bytes = node.raw(head.as_bytes()).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 400 "), "{head:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head:?}: {text}");
        assert!(!text.contains("Sixteen letters."), "{head:?}: {text}");
    }
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.closed(Closed::Protocol), 21);
}

#[tokio::test]
async fn fault_in_a_later_head_leaves_the_earlier_answer() {
    let node = Node::start(config_of_tests()).await;
    let good = "GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    let bad = "GET /small.txt HTTP/1.1\r\nHost: test\n\r\n";
    let text = node.raw(format!("{good}{bad}{good}").as_bytes()).await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.contains("HTTP/1.1 400 "), "{text}");
    assert_eq!(text.matches("Sixteen letters.").count(), 1);
}

#[tokio::test]
async fn request_with_a_body_ends_its_connection() {
    let node = Node::start(config_of_tests()).await;
    let hidden = "GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    for head in [
        format!("GET /missing HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello{hidden}"),
        format!(
            "POST /missing HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\n\r\n{hidden}"),
    ] {
        let bytes = node.raw(head.as_bytes()).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.to_ascii_lowercase().contains("connection: close"),
            "{text}"
        );
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head:?}: {text}");
        assert!(!text.contains("Sixteen letters."), "{head:?}: {text}");
    }
}

#[tokio::test]
async fn answer_to_a_refused_body_is_not_lost() {
    let node = Node::start(config_of_tests()).await;
    let mut stream = node.connect().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n")
        .await
        .unwrap();
    // The answer is under way; a close now, with these bytes unread, would reset the connection.
    stream.write_all(&[b'x'; 60_000]).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = timeout(LONG, stream.read(&mut buffer)).await.unwrap();
        match read.expect("the connection is not reset") {
            0 => break,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
    assert_eq!(Reply::parse(&bytes).status, 405);
}

#[tokio::test]
async fn host_is_wanted_exactly_once() {
    let node = Node::start(config_of_tests()).await;
    for (fields, status) in [
        ("", "400"),
        ("Host: a\r\nHost: b\r\n", "400"),
        ("Host: a\r\n", "200"),
    ] {
        let head = format!("GET /small.txt HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        let reply = Reply::parse(&node.raw(head.as_bytes()).await);
        assert_eq!(reply.status.to_string(), status, "{fields:?}");
    }
    let reply = Reply::parse(&node.raw(b"GET /small.txt HTTP/1.0\r\n\r\n").await);
    assert_eq!((reply.status, &reply.body[..]), (200, SMALL));
}

#[tokio::test]
async fn head_beyond_its_bounds_is_refused() {
    let node = Node::start(config_of_tests()).await;
    let start = "GET /small.txt HTTP/1.1\r\nHost: test\r\n";
    let large = format!("{start}X: {}\r\n\r\n", "x".repeat(33 << 10));
    let many = format!("{start}{}\r\n", "X: y\r\n".repeat(101));
    for head in [large, many] {
        let reply = Reply::parse(&node.raw(head.as_bytes()).await);
        assert_eq!(reply.status, 431);
    }
    let allowed = format!("{start}Connection: close\r\n{}\r\n", "X: y\r\n".repeat(98));
    let reply = Reply::parse(&node.raw(allowed.as_bytes()).await);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn connections_that_do_too_little_are_closed() {
    let short = Duration::from_millis(300);
    type Shorten = fn(&mut Config, Duration);
    let cases: [(Closed, &[u8], Shorten); 5] = [
        (Closed::Silent, b"", |c, short| c.silent = short),
        (Closed::Silent, b"PRI * HTTP/2.0\r\n", |c, short| {
            c.silent = short;
        }),
        (Closed::Head, b"GET / HTTP/1.1\r\nHost: te", |c, short| {
            c.head_time = short;
        }),
        (
            Closed::Idle,
            b"GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n",
            |c, short| c.idle = short,
        ),
        (
            Closed::Head,
            b"GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\nGET /",
            |c, short| c.head_time = short,
        ),
    ];
    for (reason, bytes, set) in cases {
        let mut config = config_of_tests();
        set(&mut config, short);
        let node = Node::start(config).await;
        let begun = Instant::now();
        let mut stream = node.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await;
        assert!(begun.elapsed() >= short / 2, "{reason:?} too early");
        let (metrics, _dir) = node.end().await;
        assert_eq!(metrics.http.closed(reason), 1, "{reason:?}");
        assert_eq!(metrics.http.connections.get(), 0);
    }
}

/// A node with a file larger than what the kernel buffers between the two ends, and a reader of it that has read
/// nothing yet.
async fn with_huge_file(slow: Duration) -> (Node, TcpStream) {
    let mut config = config_of_tests();
    config.slow = slow;
    let node = Node::start(config).await;
    std::fs::write(node.dir.path().join("content/huge.bin"), vec![7; HUGE]).unwrap();
    let deadline = Instant::now() + LONG;
    while node.ask("HEAD", "/huge.bin", &[]).await.status != 200 {
        assert!(Instant::now() < deadline, "not published in time");
        tokio::time::sleep(POLL).await;
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(node.address).await.unwrap();
    stream
        .write_all(b"GET /huge.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    (node, stream)
}

const HUGE: usize = 64 << 20;

#[tokio::test]
async fn reader_that_stops_reading_is_closed_and_counted_as_aborted() {
    let (node, mut stream) = with_huge_file(Duration::from_millis(500)).await;
    let metrics = Arc::clone(&node.metrics);
    eventually("the slow reader is closed", || {
        metrics.http.closed(Closed::Slow) == 1
    })
    .await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Aborted), 1);
    assert!(read_all(&mut stream).await.len() < HUGE);
}

#[tokio::test]
async fn reader_that_trickles_is_kept_as_long_as_it_takes_enough() {
    let slow = Duration::from_secs(1);
    let (node, mut stream) = with_huge_file(slow).await;
    // First as fast as it can, so that the kernel holds much for it.
    let mut buffer = vec![0; 8 << 20];
    stream.read_exact(&mut buffer).await.unwrap();
    let end = Instant::now() + 3 * slow;
    while Instant::now() < end {
        stream.read_exact(&mut buffer[..4 << 10]).await.unwrap();
        tokio::time::sleep(slow / 20).await;
    }
    assert_eq!(node.metrics.http.closed(Closed::Slow), 0);
    let metrics = Arc::clone(&node.metrics);
    eventually("it is closed once it takes no more", || {
        metrics.http.closed(Closed::Slow) == 1
    })
    .await;
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_by_address() {
    for (limit, total, per_address) in [(Refused::Total, 3, 100), (Refused::Address, 100, 3)] {
        let mut config = config_of_tests();
        (config.connections, config.connections_per_address) = (total, per_address);
        let node = Node::start(config).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(node.connect().await);
        }
        let metrics = Arc::clone(&node.metrics);
        eventually("all are taken", || metrics.http.connections.get() == 3).await;
        assert!(read_all(&mut node.connect().await).await.is_empty());
        assert_eq!(metrics.http.refused(limit), 1, "{limit:?}");
        held.pop();
        eventually("one is given back", || metrics.http.connections.get() == 2).await;
        assert_eq!(node.get("/small.txt", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn http2_without_tls_is_served() {
    let node = Node::start(config_of_tests()).await;
    let io = TokioIo::new(node.connect().await);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    for (target, bytes) in [("/small.txt", SMALL.to_vec()), ("/big.bin", big())] {
        let request = http::Request::get(format!("http://test{target}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let reply = client.send_request(request).await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-length"], bytes.len().to_string());
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert!(body == bytes, "{target}: other bytes");
    }
    drop(client);
    let _ = connection.await;
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Ok), 2);
}

#[tokio::test]
async fn http2_client_that_resets_its_streams_loses_its_connection() {
    for (resets, lost) in [(1_000, 0), (10, 1)] {
        let config = Config {
            resets,
            ..config_of_tests()
        };
        let node = Node::start(config).await;
        let mut client = node.connect().await;
        client.write_all(&rapid_resets(100)).await.unwrap();
        client.shutdown().await.unwrap();
        read_all(&mut client).await;
        let metrics = node.metrics.clone();
        eventually("it is closed", || metrics.http.connections.get() == 0).await;
        assert_eq!(metrics.http.closed(Closed::Flood), lost, "{resets}");
    }
}

#[tokio::test]
async fn stop_lets_an_open_request_end() {
    let node = Node::start(config_of_tests()).await;
    let mut stream = node.connect().await;
    stream
        .write_all(b"GET /big.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let mut idle = node.connect().await;
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    node.stop.cancel();
    assert!(read_all(&mut idle).await.is_empty());
    let mut bytes = first.to_vec();
    bytes.extend(read_all(&mut stream).await);
    assert!(Reply::parse(&bytes).body == big(), "other bytes");
    let address = node.address;
    node.end().await;
    assert!(TcpStream::connect(address).await.is_err());
}

/// A node that mirrors `bytes` as `/mirrored.bin` and holds no chunk of it yet.
fn mirror(bytes: &[u8], fill_wait: Duration) -> (Node, Arc<Object>) {
    let dir = tempfile::tempdir().unwrap();
    let metrics = metrics();
    let config = StoreConfig::new(dir.path().join("store"));
    let library = Library::new(&config, Arc::clone(&metrics));
    let store = Store::open(&config, &library, Arc::clone(&metrics)).unwrap();
    let manifest = Manifest {
        path: "/mirrored.bin".into(),
        layout: Layout {
            size: bytes.len() as u64,
            chunk: CHUNK,
        },
        media_type: "application/octet-stream".into(),
        modified: 784_111_777,
        sha256: Sha256::digest(bytes).into(),
        chunks: bytes
            .chunks(CHUNK as usize)
            .map(|chunk| chunk::Digest(blake3::hash(chunk).into()))
            .collect(),
    };
    let object = store.begin(manifest).unwrap();
    let config = Config {
        fill_wait,
        ..config_of_tests()
    };
    let node = Node::serve(config, library, metrics, dir, CancellationToken::new());
    (node, object)
}

const CHUNK: u32 = 64 << 10;

fn put(object: &Arc<Object>, bytes: &[u8], index: u32) {
    let chunk = bytes.chunks(CHUNK as usize).nth(index as usize).unwrap();
    object.write(index, chunk).unwrap();
}

#[tokio::test]
async fn mirror_serves_chunks_as_they_come() {
    let bytes = &big()[..3 * CHUNK as usize + 5];
    let (node, object) = mirror(bytes, LONG);
    let mut stream = node.connect().await;
    stream
        .write_all(b"GET /mirrored.bin HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    for index in [0, 1, 2, 3] {
        eventually("the reader asks for its chunk", || {
            object.wants().contains(&index)
        })
        .await;
        put(&object, bytes, index);
        // What is held is served before the next chunk is there.
        let until = (CHUNK as usize * (index as usize + 1)).min(bytes.len());
        while Reply::try_parse(&seen).is_none_or(|reply| reply.body.len() < until) {
            let mut buffer = vec![0; 64 << 10];
            let read = timeout(LONG, stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert!(read > 0, "ended early");
            seen.extend_from_slice(&buffer[..read]);
        }
    }
    let reply = Reply::parse(&seen);
    assert_eq!(reply.status, 200);
    assert!(reply.body == bytes, "other bytes");
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Mirror, Outcome::Ok), 1);
    let fill = metrics.content.requests.with_label_values(&["fill"]);
    assert_eq!(fill.get(), 1);
}

#[tokio::test]
async fn range_of_a_held_chunk_does_not_wait_for_others() {
    let bytes = &big()[..3 * CHUNK as usize];
    let (node, object) = mirror(bytes, LONG);
    put(&object, bytes, 1);
    let reply = node
        .get("/mirrored.bin", &[("Range", "bytes=65536-131071")])
        .await;
    assert_eq!(reply.status, 206);
    assert!(reply.body == bytes[65_536..131_072], "other bytes");
}

#[tokio::test]
async fn mirror_without_the_first_chunk_says_503_in_time() {
    let bytes = &big()[..2 * CHUNK as usize];
    let (node, _object) = mirror(bytes, Duration::from_millis(100));
    let reply = node.get("/mirrored.bin", &[]).await;
    assert_eq!(reply.status, 503);
    assert!(reply.field("retry-after").parse::<u32>().is_ok());
    assert_eq!(node.ask("HEAD", "/mirrored.bin", &[]).await.status, 200);
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Mirror, Outcome::Unavailable), 1);
}

#[tokio::test]
async fn body_that_cannot_go_on_ends_its_connection() {
    let bytes = &big()[..2 * CHUNK as usize];
    let (node, object) = mirror(bytes, Duration::from_millis(100));
    put(&object, bytes, 0);
    let text = node
        .raw(b"GET /mirrored.bin HTTP/1.1\r\nHost: test\r\n\r\nGET /mirrored.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    let reply = Reply::parse(&text);
    assert_eq!(reply.field("content-length"), bytes.len().to_string());
    assert!(
        reply.body.len() <= CHUNK as usize,
        "nothing stands in for the missing chunk"
    );
    assert!(bytes.starts_with(&reply.body));
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Mirror, Outcome::Aborted), 1);
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
            "\"GET /small.txt HTTP/1.1\" 200 16 \"-\" \"a \\x22b\\x22\" [ok]",
            "\"GET /big.bin HTTP/1.1\" 206 4 \"-\" \"-\" [partial]",
            "\"GET /missing HTTP/1.1\" 404 35 \"-\" \"-\" [not_found]",
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
