//! The cache of other HTTP servers, over real sockets, before an upstream that does what a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::PrivateKeyDer;

use crate::harness::{Answer, Node, get, until};

mod large;

/// An upstream on a thread for each connection; keeps the heads it was sent.
struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<u64>>,
}

/// What an upstream does with a request.
enum Does {
    /// Sends this and keeps the connection.
    Say(Vec<u8>),
    /// Sends this, then the other once the gate is open.
    Halt(Vec<u8>, Arc<Gate>, Vec<u8>),
    /// Sends this and closes the connection.
    Close(Vec<u8>),
}

/// Closed until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }
}

impl Upstream {
    fn start(does: impl Fn(&str) -> Does + Send + Sync + 'static) -> Self {
        Self::start_over(|stream| stream, does)
    }

    /// What it speaks is wrapped.
    fn start_over<S: Read + Write>(
        wrap: impl Fn(TcpStream) -> S + Send + Sync + 'static,
        does: impl Fn(&str) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            sent: Arc::default(),
        };
        let (does, wrap) = (Arc::new(does), Arc::new(wrap));
        let (asked, sent) = (Arc::clone(&upstream.asked), Arc::clone(&upstream.sent));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (does, asked, sent) = (does.clone(), asked.clone(), sent.clone());
                let wrap = wrap.clone();
                thread::spawn(move || serve(wrap(stream), &*does, &asked, &sent));
            }
        });
        upstream
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn sent(&self) -> u64 {
        *self.sent.lock().unwrap()
    }
}

fn serve(
    stream: impl Read + Write,
    does: &impl Fn(&str) -> Does,
    asked: &Mutex<Vec<String>>,
    sent: &Mutex<u64>,
) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_ascii_lowercase();
        if let Some(length) = field(&head, "content-length") {
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
        }
        asked.lock().unwrap().push(head.clone());
        let stream = reader.get_mut();
        let mut send = |bytes: &[u8]| {
            // By pieces: how much went out is looked at while it goes.
            bytes.chunks(64 << 10).all(|piece| {
                let done = stream
                    .write_all(piece)
                    .and_then(|()| stream.flush())
                    .is_ok();
                *sent.lock().unwrap() += if done { piece.len() as u64 } else { 0 };
                done
            })
        };
        let on = match does(&head) {
            Does::Say(bytes) => send(&bytes),
            Does::Halt(first, gate, rest) => {
                let sent = send(&first);
                gate.pass();
                sent && send(&rest)
            }
            Does::Close(bytes) => {
                send(&bytes);
                false
            }
        };
        if !on {
            return;
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn response(status: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let fields: String = fields.iter().map(|f| format!("{f}\r\n")).collect();
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn node(upstream: &Upstream, more: &str) -> Node {
    let address = upstream.address;
    let config = format!(
        "[resolver]\nmode = \"off\"\n[[proxy]]\nhost = \"*\"\nupstream = \"http://{address}\"\n{more}"
    );
    Node::start(&config, &[])
}

/// An upstream over TLS whose certificate is for 127.0.0.1, and that certificate.
fn secure(does: impl Fn(&str) -> Does + Send + Sync + 'static) -> (Upstream, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |stream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        rustls::StreamOwned::new(session, stream)
    };
    (Upstream::start_over(wrap, does), made.cert.pem())
}

/// A node before `upstream` that trusts `ca`.
fn before(upstream: &str, ca: &str) -> Node {
    let config = format!(
        "[resolver]\nmode = \"off\"\n[[proxy]]\nupstream = \"{upstream}\"\nca_file = \"ca.pem\"\n"
    );
    Node::start(&config, &[("ca.pem", ca)])
}

fn fetch(node: &Node, path: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let mut bytes = raw(
        node,
        &format!("GET {path} HTTP/1.1\r\nhost: files.test\r\nconnection: close\r\n{headers}\r\n"),
    );
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.expect("the answer has a head");
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body,
    }
}

fn status(answer: &Answer) -> &str {
    field(&answer.head, "cache-status").unwrap_or("")
}

/// Sends `request` and takes what comes until the connection ends, however it does.
fn raw(node: &Node, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.address("http")).unwrap();
    let patience = Duration::from_secs(60);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// Bytes that differ everywhere.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// An upstream with one large file, ranges and all.
fn file(bytes: Vec<u8>) -> Upstream {
    Upstream::start(move |head| {
        let total = bytes.len();
        let fields = ["ETag: \"v1\"", "Cache-Control: max-age=3600"];
        let range = field(head, "range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
        let Some((first, last)) = range else {
            return Does::Say(response("200 OK", &fields, &bytes));
        };
        let first: usize = first.parse().unwrap();
        let last = last
            .parse()
            .map_or(total - 1, |last: usize| last.min(total - 1));
        let place = format!("Content-Range: bytes {first}-{last}/{total}");
        let fields = [fields[0], fields[1], &place];
        Does::Say(response(
            "206 Partial Content",
            &fields,
            &bytes[first..=last],
        ))
    })
}

#[test]
fn fresh_response_is_sent_again_without_asking() {
    let upstream = Upstream::start(|_| {
        let fields = ["Cache-Control: max-age=60", "Connection: x", "X: 1", "Y: 2"];
        Does::Say(response("200 OK", &fields, b"hello"))
    });
    let node = node(&upstream, "");
    let first = fetch(&node, "/a?b", &[]);
    assert_eq!((first.status, first.body.as_slice()), (200, &b"hello"[..]));
    assert_eq!(status(&first), "headwater; fwd=uri-miss; stored");
    let second = fetch(&node, "/a?b", &[]);
    assert_eq!(second.body, b"hello");
    assert!(
        status(&second).starts_with("headwater; hit; ttl="),
        "{}",
        second.head
    );
    assert!(field(&second.head, "age").is_some());
    assert_eq!(field(&second.head, "x"), None, "it was for one connection");
    assert_eq!(field(&second.head, "y"), Some("2"));
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("get /a?b http/1.1"), "{}", asked[0]);
    assert!(field(&asked[0], "via").is_some());
}

#[test]
fn clients_of_one_cold_object_share_one_fetch_and_follow_its_edge() {
    let gate = Arc::new(Gate::default());
    let body = noise(3 << 20);
    let upstream = Upstream::start({
        let (gate, body) = (Arc::clone(&gate), body.clone());
        move |_| {
            let whole = response("200 OK", &["Cache-Control: max-age=60"], &body);
            let (first, rest) = whole.split_at(1 << 20);
            Does::Halt(first.to_vec(), Arc::clone(&gate), rest.to_vec())
        }
    });
    let node = node(&upstream, "");
    let address = node.address("http");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(60)))
                    .unwrap();
                write!(
                    stream,
                    "GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
                )
                .unwrap();
                // What came before the upstream halted is here, though the rest is not.
                let mut bytes = vec![0; 900 << 10];
                stream.read_exact(&mut bytes).unwrap();
                (stream, bytes)
            })
        })
        .collect();
    let clients: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    gate.open();
    for (mut stream, mut bytes) in clients {
        stream.read_to_end(&mut bytes).unwrap();
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        assert!(bytes[head + 4..] == body, "the bytes differ");
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn one_byte_of_a_cold_object_fetches_one_chunk_and_keeps_it() {
    let body = noise(40 << 20);
    let upstream = file(body.clone());
    let node = node(&upstream, "");
    let at = 30 << 20;
    for turn in 0..2 {
        let answer = fetch(&node, "/big", &[&format!("range: bytes={at}-{at}")]);
        assert_eq!(answer.status, 206, "turn {turn}");
        assert_eq!(answer.body, body[at..=at]);
        let place = format!("bytes {at}-{at}/{}", body.len());
        assert_eq!(field(&answer.head, "content-range"), Some(place.as_str()));
    }
    assert_eq!(upstream.asked().len(), 1, "the chunk is kept");
    assert!(
        upstream.sent() < 2 << 20,
        "{} bytes for one",
        upstream.sent()
    );
    // A part across what is held and what is not.
    let answer = fetch(&node, "/big", &["range: bytes=30000000-33000000"]);
    assert!(
        answer.body == body[30_000_000..=33_000_000],
        "the bytes differ"
    );
    let whole = fetch(&node, "/big", &[]);
    assert!(whole.body == body, "the bytes differ");
}

#[test]
fn cache_is_kept_over_a_restart_and_flipped_bits_are_fetched_again() {
    let body = noise((2 << 20) + 5);
    let upstream = file(body.clone());
    let mut node = node(&upstream, "");
    for path in ["/a", "/b"] {
        assert!(fetch(&node, path, &[]).body == body);
    }
    let files = |extension: &str| {
        let mut files = Vec::new();
        for folder in std::fs::read_dir(node.path("state/proxy")).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|e| e == extension) {
                    files.push(path);
                }
            }
        }
        files
    };
    until("both to be on disk", || files("entry").len() == 2);
    // One of them loses a bit in its second chunk.
    let chunks = files("chunks").remove(0);
    node.signal(Signal::KILL);
    node.ended();
    let mut bytes = std::fs::read(&chunks).unwrap();
    bytes[(1 << 20) + 7] ^= 1;
    std::fs::write(chunks, bytes).unwrap();
    node.start_again();
    for path in ["/a", "/b"] {
        let answer = fetch(&node, path, &[]);
        assert!(
            status(&answer).starts_with("headwater; hit"),
            "{}",
            answer.head
        );
        assert!(answer.body == body, "{path}: the bytes differ");
    }
    let asked = upstream.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(field(&asked[2], "range"), Some("bytes=1048576-2097151"));
    assert_eq!(field(&asked[2], "if-range"), Some("\"v1\""));
    // A node that is told to stop keeps it as well.
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    node.start_again();
    for path in ["/a", "/b"] {
        assert!(
            fetch(&node, path, &[]).body == body,
            "{path}: the bytes differ"
        );
    }
    assert_eq!(upstream.asked().len(), 3);
}

#[test]
fn stale_response_stands_in_for_an_upstream_that_fails() {
    let fails = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::start({
        let fails = Arc::clone(&fails);
        move |head| {
            if fails.load(Ordering::Relaxed) {
                return Does::Close(Vec::new());
            }
            let rule = if head.contains("/strict") {
                "Cache-Control: max-age=0, must-revalidate"
            } else {
                "Cache-Control: max-age=0, stale-if-error=60"
            };
            Does::Say(response("200 OK", &[rule, "ETag: \"a\""], b"old"))
        }
    });
    let node = node(&upstream, "");
    for path in ["/soft", "/strict"] {
        assert_eq!(fetch(&node, path, &[]).status, 200);
    }
    fails.store(true, Ordering::Relaxed);
    let soft = fetch(&node, "/soft", &[]);
    assert_eq!((soft.status, soft.body.as_slice()), (200, &b"old"[..]));
    assert!(
        status(&soft).contains("detail=upstream-failed"),
        "{}",
        soft.head
    );
    assert_eq!(fetch(&node, "/strict", &[]).status, 502);
}

#[test]
fn body_that_breaks_off_is_not_taken_for_whole_and_not_kept() {
    let upstream = Upstream::start(|_| {
        let mut bytes = response("200 OK", &["Cache-Control: max-age=60"], &[7; 1000]);
        bytes.truncate(bytes.len() - 10);
        Does::Close(bytes)
    });
    let node = node(&upstream, "");
    for _ in 0..2 {
        let request = "GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = raw(&node, request);
        let sevens = answer.iter().filter(|b| **b == 7).count();
        assert!(sevens < 1000, "{sevens} bytes");
    }
    until("both to have been asked for", || {
        upstream.asked().len() >= 2
    });
}

#[test]
fn unsafe_method_is_passed_on_and_makes_what_is_kept_stale() {
    let upstream =
        Upstream::start(|_| Does::Say(response("200 OK", &["Cache-Control: max-age=60"], b"x")));
    let node = node(&upstream, "");
    fetch(&node, "/a", &[]);
    let head = "POST /a HTTP/1.1\r\nhost: files.test\r\nconnection: close";
    let answer = raw(&node, &format!("{head}\r\ncontent-length: 3\r\n\r\nabc"));
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    fetch(&node, "/a", &[]);
    let asked: Vec<_> = upstream.asked().iter().map(|a| a[..4].to_owned()).collect();
    assert_eq!(asked, ["get ", "post", "get "]);
}

#[test]
fn purge_drops_what_it_names() {
    let upstream =
        Upstream::start(|_| Does::Say(response("200 OK", &["Cache-Control: max-age=60"], b"x")));
    let node = node(&upstream, "");
    for path in ["/a/1", "/a/2", "/b"] {
        fetch(&node, path, &[]);
    }
    let purge = |url: &str| {
        let output = node.command(&["cache", "purge", url]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(purge("/a/*"), "2 responses dropped\n");
    assert_eq!(purge("http://files.test/b"), "1 responses dropped\n");
    assert_eq!(purge("http://other.test/*"), "0 responses dropped\n");
    assert!(
        !node
            .command(&["cache", "purge", "nonsense"])
            .status
            .success()
    );
    fetch(&node, "/b", &[]);
    assert_eq!(upstream.asked().len(), 4);
}

#[test]
fn target_and_host_never_choose_another_server() {
    let upstream = Upstream::start(|_| Does::Say(response("200 OK", &[], b"mine")));
    let other = Upstream::start(|_| Does::Say(response("200 OK", &[], b"other")));
    let node = node(&upstream, "");
    for (target, host) in [
        (format!("http://{}/", other.address), "a".to_owned()),
        ("/".to_owned(), other.address.to_string()),
        ("//evil.test/".to_owned(), "a".to_owned()),
    ] {
        let mut stream = TcpStream::connect(node.address("http")).unwrap();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("mine"), "{target}: {answer}");
    }
    assert!(other.asked().is_empty());
}

#[test]
fn redirect_is_passed_on_and_never_followed() {
    let other = Upstream::start(|_| Does::Say(response("200 OK", &[], b"other")));
    let elsewhere = format!("Location: http://{}/secret", other.address);
    let upstream = Upstream::start({
        let elsewhere = elsewhere.clone();
        move |_| {
            let kept = "Cache-Control: max-age=60";
            Does::Say(response("302 Found", &[&elsewhere, kept], b"there"))
        }
    });
    let node = node(&upstream, "");
    for turn in 0..2 {
        let answer = fetch(&node, "/a", &[]);
        assert_eq!((answer.status, &answer.body[..]), (302, &b"there"[..]));
        assert_eq!(
            field(&answer.head, "location"),
            elsewhere.strip_prefix("Location: "),
            "turn {turn}"
        );
    }
    assert_eq!(upstream.asked().len(), 1);
    assert!(other.asked().is_empty());
}

#[test]
fn upstream_over_tls_is_asked_only_if_its_certificate_holds() {
    let says = |_: &str| Does::Say(response("200 OK", &["Cache-Control: max-age=60"], b"safe"));
    let (upstream, ca) = secure(says);
    let good = format!("https://{}", upstream.address);
    let node = before(&good, &ca);
    for _ in 0..2 {
        let answer = fetch(&node, "/a", &[]);
        assert_eq!((answer.status, &answer.body[..]), (200, &b"safe"[..]));
    }
    assert_eq!(upstream.asked().len(), 1, "it is kept");
    // Its certificate is for an address, not for this name; and another authority vouches for another server.
    let named = format!("https://localhost:{}", upstream.address.port());
    let (_other, other_ca) = secure(says);
    for (upstream, ca) in [(&named, &ca), (&good, &other_ca)] {
        let node = before(upstream, ca);
        assert_eq!(fetch(&node, "/a", &[]).status, 502, "{upstream}");
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn upstream_is_told_who_asks_unless_that_is_off() {
    let upstream = Upstream::start(|_| Does::Say(response("200 OK", &[], b"x")));
    let claims = [
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-proto: https",
        "forwarded: for=10.0.0.1",
    ];
    let own = "for=127.0.0.1;proto=http;host=\"files.test\"";
    for (key, address, scheme, forwarded) in [
        ("", "127.0.0.1", "http", own),
        (
            "forwarded = \"append\"",
            "10.0.0.1, 127.0.0.1",
            "http",
            &format!("for=10.0.0.1, {own}"),
        ),
        ("forwarded = \"off\"", "10.0.0.1", "https", "for=10.0.0.1"),
    ] {
        let node = node(&upstream, key);
        assert_eq!(fetch(&node, "/a", &claims).status, 200);
        let asked = upstream.asked();
        let head = asked.last().unwrap();
        assert_eq!(field(head, "x-forwarded-for"), Some(address), "{key}");
        assert_eq!(field(head, "x-forwarded-proto"), Some(scheme), "{key}");
        assert_eq!(field(head, "forwarded"), Some(forwarded), "{key}");
    }
}

#[test]
fn response_chosen_by_who_asks_is_not_kept() {
    let upstream = Upstream::start(|head| {
        let by = if head.contains("/scheme") {
            "Vary: X-Forwarded-Proto"
        } else {
            "Vary: X-Forwarded-For"
        };
        Does::Say(response("200 OK", &["Cache-Control: max-age=60", by], b"x"))
    });
    let node = node(&upstream, "");
    for _ in 0..2 {
        assert_eq!(fetch(&node, "/client", &[]).status, 200);
    }
    assert_eq!(upstream.asked().len(), 2);
    // What the client claims chooses nothing.
    for claim in ["x-forwarded-proto: https", "x-forwarded-proto: http"] {
        assert_eq!(fetch(&node, "/scheme", &[claim]).status, 200);
    }
    assert_eq!(upstream.asked().len(), 3);
}

#[test]
fn early_hints_are_passed_on_before_the_answer_and_not_kept() {
    let upstream = Upstream::start(|_| {
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
        let answer = response("200 OK", &["Cache-Control: max-age=60"], b"x");
        Does::Say([&hints[..], &answer].concat())
    });
    let node = node(&upstream, "");
    let ask = || {
        let mut stream = TcpStream::connect(node.address("http")).unwrap();
        write!(
            stream,
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let first = ask();
    let (hints, rest) = first.split_once("\r\n\r\n").unwrap();
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload");
    assert!(
        rest.starts_with("HTTP/1.1 200 OK") && !rest.contains("link"),
        "{rest}"
    );
    assert!(ask().starts_with("HTTP/1.1 200 OK"));
}
