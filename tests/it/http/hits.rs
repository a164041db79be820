//! Fresh responses of the proxy's cache, which plain requests get before hyper: the same answers, under the same rules.

use std::sync::Mutex;

use headwater::http::proxy;
use headwater::metrics::proxy::Outcome as Cached;

use super::quick::reply;
use super::*;

/// What the upstream was asked for, oldest first.
type Asked = Arc<Mutex<Vec<String>>>;

/// What the upstream says of a path.
fn says(target: &str, head: &str) -> String {
    let (status, fields, body) = match target {
        "/gone" => ("404 Not Found", "Cache-Control: max-age=3600\r\n", "no"),
        "/moved" => (
            "301 Moved Permanently",
            "Cache-Control: s-maxage=3600\r\nLocation: /there\r\n",
            "",
        ),
        // It wants TLS, and does not say that the answer hangs on it.
        "/strict" if !head.contains("x-forwarded-proto: https") => (
            "301 Moved Permanently",
            "Cache-Control: max-age=3600\r\nLocation: https://test/strict\r\n",
            "",
        ),
        "/aged" => (
            "200 OK",
            "Cache-Control: max-age=3600\r\nAge: 100\r\nCache-Status: up; hit\r\n",
            "aged",
        ),
        "/stale" => (
            "200 OK",
            "Cache-Control: max-age=0\r\nETag: \"s\"\r\n",
            "stale",
        ),
        "/validated" => (
            "200 OK",
            "Cache-Control: max-age=3600, no-cache\r\n",
            "asked",
        ),
        "/short" => ("200 OK", "Cache-Control: max-age=1\r\n", "of a second"),
        "/private" => ("200 OK", "Cache-Control: private, max-age=3600\r\n", "mine"),
        "/scheme" => {
            let scheme = head
                .lines()
                .find_map(|line| line.strip_prefix("x-forwarded-proto: "));
            let body = scheme.unwrap_or("none");
            let fields = "Cache-Control: max-age=3600\r\nVary: X-Forwarded-Proto\r\n";
            let length = body.len();
            return format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        }
        "/vary" => {
            let wanted = head
                .lines()
                .find_map(|line| line.strip_prefix("accept-encoding: "));
            let body = wanted.unwrap_or("none");
            let fields = "Cache-Control: max-age=3600\r\nVary: Accept-Encoding\r\n";
            let length = body.len();
            return format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        }
        "/large" => {
            let body = "x".repeat(40_000);
            return format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 40000\r\n\r\n{body}"
            );
        }
        _ => (
            "200 OK",
            "Cache-Control: max-age=3600\r\nETag: \"v\"\r\nX-Two: a\r\nContent-Type: text/plain\r\nX-Two: b\r\n",
            "of the upstream",
        ),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

async fn upstream() -> (SocketAddr, Asked) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    if !bytes.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let head = String::from_utf8(std::mem::take(&mut bytes)).unwrap();
                    let head = head.to_ascii_lowercase();
                    let target = head.split(' ').nth(1).unwrap().to_owned();
                    let answer = says(&target, &head);
                    told.lock().unwrap().push(target);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, asked)
}

/// A node that publishes, keeps `/site/` and `/small.txt` for itself, and passes the rest on.
async fn start() -> (Node, Asked, TempDir) {
    let (address, asked) = upstream().await;
    let dir = tempfile::tempdir().unwrap();
    let rule = |host: Option<&str>| proxy::Rule {
        host: host.map(str::to_owned),
        upstream: address.to_string(),
        roots: None,
        forwarded: proxy::Forward::Replace,
        default_ttl: 0,
    };
    let config = Config {
        proxy: proxy::Config {
            rules: vec![rule(Some("named.test")), rule(None)],
            local: vec!["/site/".into(), "/small.txt".into()],
            node: "test".into(),
            dir: dir.path().join("cache"),
            size: 1 << 20,
            memory: 1 << 20,
            entries: 100,
            variants: 8,
            object: 1 << 20,
            requests: 10,
            fill_threads: 1,
            connect: LONG,
            head_time: LONG,
            silence: LONG,
            idle: LONG,
            stale_if_error: Duration::ZERO,
        },
        ..config_of_tests()
    };
    (Node::start(config).await, asked, dir)
}

/// One connection, and what came on it ahead.
struct Line(TcpStream, Vec<u8>);

impl Line {
    /// Opens one whose first request is behind it: that one is hyper's, the first time.
    async fn open(node: &Node) -> Self {
        let mut line = Self(node.connect().await, Vec::new());
        line.ask("test", "/small.txt", "").await;
        line
    }

    /// Head, without its date, and body of an answer.
    async fn ask(&mut self, host: &str, target: &str, fields: &str) -> (String, String) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
        let (head, body) = reply(&mut self.0, &mut self.1).await;
        (head, String::from_utf8(body).unwrap())
    }
}

/// All values of a field, in their order.
fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines();
    lines
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect()
}

/// Its first value.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head, name).first().copied()
}

/// Whether age and what is left of the life are the same: whole seconds, which do not turn at one moment.
fn are_of_one_second(one: &str, other: &str) -> bool {
    let equal = |name| fields(one, name) == fields(other, name);
    equal("age") && equal("cache-status")
}

#[tokio::test]
async fn hit_is_answered_and_counted_as_hyper_does() {
    let (node, asked, _dir) = start().await;
    let mut line = Line::open(&node).await;
    let paths = [
        "/fresh",
        "/fresh?a=%41",
        "/gone",
        "/moved",
        "/aged",
        "/large",
    ];
    let (mut asks, mut quick, mut sent) = (0, 0, 0);
    for path in paths {
        let first = line.ask("test", path, "").await;
        assert!(
            first.0.contains("headwater; fwd=uri-miss; stored"),
            "{first:?}"
        );
        asks += 1;
        let deadline = Instant::now() + LONG;
        loop {
            let by_hyper = line.ask("Test", path, "X-Odd: 1\r\n").await;
            let before = node.metrics.http.quick.get();
            let by_us = line
                .ask("test", path, "Accept: */*\r\nCookie: a=b\r\n")
                .await;
            quick = node.metrics.http.quick.get();
            assert_eq!(quick - before, u64::from(path != "/large"), "{path}");
            asks += 2;
            sent += 2 * by_us.1.len();
            assert_eq!(by_hyper.1, first.1);
            assert!(field(&by_us.0, "age").is_some(), "{by_us:?}");
            if are_of_one_second(&by_hyper.0, &by_us.0) {
                let sorted = |head: &str| {
                    let mut lines: Vec<_> = head.lines().map(str::to_owned).collect();
                    lines.sort();
                    lines
                };
                assert_eq!(by_us.1, by_hyper.1, "{path}");
                assert_eq!(sorted(&by_us.0), sorted(&by_hyper.0), "{path}");
                assert!(by_us.0.contains("cache-status: headwater; hit; ttl="));
                break;
            }
            assert!(Instant::now() < deadline, "two answers within one second");
        }
        sent += first.1.len();
    }
    let aged = line.ask("test", "/aged", "").await.0;
    sent += "aged".len();
    assert!(field(&aged, "age").unwrap().parse::<u64>().unwrap() >= 100);
    let ours = aged.find("cache-status: headwater").unwrap();
    assert!(aged.find("cache-status: up; hit").unwrap() < ours, "{aged}");
    assert_eq!(*asked.lock().unwrap(), paths);
    drop(line);
    let (metrics, _dir) = node.end().await;
    let hits = metrics.proxy.requests(Cached::Hit);
    assert_eq!(hits, asks - paths.len() as u64 + 1);
    assert_eq!(metrics.http.quick.get(), quick + 1);
    let counted: u64 = [Outcome::Ok, Outcome::NotFound, Outcome::Redirect]
        .map(|outcome| metrics.http.requests(Role::Proxy, outcome))
        .iter()
        .sum();
    assert_eq!(counted, asks + 1);
    assert_eq!(metrics.http.sent(Role::Proxy), sent as u64);
}

#[tokio::test]
async fn hit_is_written_field_by_field_as_hyper_writes_it() {
    let (node, _, _dir) = start().await;
    let mut line = Line::open(&node).await;
    line.ask("test", "/fresh", "").await;
    let deadline = Instant::now() + LONG;
    loop {
        let by_hyper = line.ask("test", "/fresh", "X-Odd: 1\r\n").await;
        let by_us = line.ask("test", "/fresh", "").await;
        if are_of_one_second(&by_hyper.0, &by_us.0) {
            assert_eq!(by_us, by_hyper);
            break;
        }
        assert!(Instant::now() < deadline, "two answers within one second");
    }
}

#[tokio::test]
async fn what_needs_thought_is_left_to_hyper() {
    let (node, asked, _dir) = start().await;
    let mut line = Line::open(&node).await;
    for path in ["/fresh", "/stale", "/validated", "/private"] {
        line.ask("test", path, "").await;
    }
    let before = node.metrics.http.quick.get();
    for (path, fields, answer) in [
        ("/fresh", "Cache-Control: no-cache\r\n", "fwd=request"),
        ("/fresh", "Pragma: no-cache\r\n", "fwd=request"),
        ("/fresh", "Cache-Control: max-age=0\r\n", "fwd=request"),
        ("/fresh", "Cache-Control: only-if-cached\r\n", "hit; ttl="),
        ("/fresh", "If-None-Match: \"v\"\r\n", "hit; ttl="),
        ("/fresh", "Range: bytes=0-1\r\n", "hit; ttl="),
        ("/fresh", "Authorization: Basic eA==\r\n", "headwater; "),
        ("/fresh", "Via: 1.1 other\r\n", "hit; ttl="),
        ("/stale", "", "fwd="),
        ("/validated", "", "fwd="),
        ("/private", "", "fwd="),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        line.0.write_all(request.as_bytes()).await.unwrap();
        // A 304 has no length.
        let head = loop {
            if let Some(reply) = Reply::try_parse(&line.1)
                && (reply.status == 304
                    || reply.body.len().to_string() == reply.field("content-length"))
            {
                line.1.clear();
                break reply;
            }
            let read = timeout(LONG, line.0.read_buf(&mut line.1));
            assert!(read.await.expect("in time").unwrap() > 0);
        };
        let told = head.field("cache-status");
        assert!(told.contains(answer), "{path} {fields}: {told}");
    }
    assert_eq!(node.metrics.http.quick.get(), before);
    let loops = line.ask("test", "/fresh", "Via: 1.1 test\r\n").await;
    assert!(loops.0.starts_with("HTTP/1.1 508 "), "{loops:?}");
    let kept = line
        .ask("test", "/none", "Cache-Control: only-if-cached\r\n")
        .await;
    assert!(kept.0.starts_with("HTTP/1.1 504 "), "{kept:?}");
    assert_eq!(node.metrics.http.quick.get(), before);
    let times = |path: &str| asked.lock().unwrap().iter().filter(|p| *p == path).count();
    assert_eq!(
        (times("/stale"), times("/validated"), times("/private")),
        (2, 2, 2)
    );
    assert_eq!(times("/none"), 0);
}

#[tokio::test]
async fn hit_is_the_variant_the_request_chooses() {
    let (node, asked, _dir) = start().await;
    let mut line = Line::open(&node).await;
    let wants = [
        "",
        "Accept-Encoding: br\r\n",
        "Accept-Encoding: gzip, br\r\n",
    ];
    let bodies = ["none", "br", "gzip, br"];
    for _ in 0..2 {
        for (fields, body) in wants.iter().zip(bodies) {
            assert_eq!(line.ask("test", "/vary", fields).await.1, body);
        }
    }
    // Another order, the same wish.
    let same = line
        .ask("test", "/vary", "accept-encoding:br,gzip\r\n")
        .await;
    assert_eq!(same.1, "gzip, br");
    assert_eq!(asked.lock().unwrap().len(), 3);
    let other = line.ask("test", "/vary", "Accept-Encoding: gzip\r\n").await;
    assert!(other.0.contains("fwd=vary-miss"), "{other:?}");
    assert_eq!(node.metrics.http.quick.get(), 4);
    // What the client claims itself chooses nothing.
    for fields in ["", "", "X-Forwarded-Proto: https\r\n"] {
        let answer = line.ask("test", "/scheme", fields).await;
        assert_eq!(answer.1, "http", "{fields}");
    }
    assert_eq!(node.metrics.http.quick.get(), 6);
    assert_eq!(asked.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn redirect_to_tls_is_not_kept_for_those_within_tls() {
    let (node, asked, _dir) = start().await;
    let mut line = Line::open(&node).await;
    let head = b"GET /strict HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    for _ in 0..2 {
        let clear = line.ask("test", "/strict", "").await;
        assert!(clear.0.starts_with("HTTP/1.1 301 "), "{clear:?}");
        let within = String::from_utf8(node.raw_tls(head).await).unwrap();
        assert!(within.starts_with("HTTP/1.1 200 "), "{within}");
        assert!(within.ends_with("\r\n\r\nof the upstream"), "{within}");
    }
    assert_eq!(asked.lock().unwrap().len(), 2);
    // An unsafe request of the one ends what is kept for both.
    let post =
        b"POST /strict HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    node.raw_tls(post).await;
    line.ask("test", "/strict", "").await;
    node.raw_tls(head).await;
    assert_eq!(asked.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn host_decides_who_answers_by_both() {
    let (node, asked, _dir) = start().await;
    let mut line = Line::open(&node).await;
    let small = std::str::from_utf8(SMALL).unwrap();
    for (host, target, body) in [
        ("named.test", "/small.txt", "of the upstream"),
        ("NAMED.test:8080", "/small.txt", "of the upstream"),
        ("other.test", "/small.txt", small),
        ("other.test", "/site/", "<p>hello"),
        ("other.test", "/elsewhere", "of the upstream"),
        ("[::1]", "/small.txt", small),
    ] {
        for fields in ["", "X-Odd: 1\r\n", ""] {
            let answer = line.ask(host, target, fields).await;
            assert_eq!(answer.1, body, "{host} {target}");
        }
    }
    assert_eq!(asked.lock().unwrap().len(), 3);
    for host in ["a@b", "a b"] {
        let mut line = Line::open(&node).await;
        let before = node.metrics.http.quick.get();
        let answer = line.ask(host, "/elsewhere", "").await;
        assert!(answer.0.starts_with("HTTP/1.1 400 "), "{answer:?}");
        assert_eq!(node.metrics.http.quick.get(), before);
    }
    assert_eq!(asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn hit_ends_with_its_freshness_and_with_an_unsafe_request() {
    let (node, asked, _dir) = start().await;
    let mut line = Line::open(&node).await;
    let asked_for = |path: &str| asked.lock().unwrap().iter().filter(|p| *p == path).count();
    let deadline = Instant::now() + LONG;
    while asked_for("/short") < 2 {
        let answer = line.ask("test", "/short", "").await;
        assert_eq!(answer.1, "of a second");
        if let Some(age) = field(&answer.0, "age") {
            assert!(age == "0" || !answer.0.contains("; hit"), "{answer:?}");
        }
        assert!(Instant::now() < deadline, "it is stale in time");
        tokio::time::sleep(POLL).await;
    }
    assert!(node.metrics.http.quick.get() > 0);
    for _ in 0..2 {
        line.ask("test", "/fresh", "").await;
    }
    assert_eq!(asked_for("/fresh"), 1);
    let post = b"POST /fresh HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
    line.0.write_all(post).await.unwrap();
    reply(&mut line.0, &mut line.1).await;
    line.ask("test", "/fresh", "").await;
    assert_eq!(asked_for("/fresh"), 3);
}
