//! Connections: what clients may do on them, and what ends them.

use super::*;

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

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let header = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&header, payload].concat()
}

/// The next frame: kind, stream and payload.
async fn next_frame(stream: &mut TcpStream) -> (u8, u32, Vec<u8>) {
    let mut header = [0; 9];
    let read = timeout(LONG, stream.read_exact(&mut header)).await;
    read.expect("a frame in time").unwrap();
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.unwrap();
    let number = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
    (header[3], number, payload)
}

/// An HTTP/2 client that takes no body, and what the server says it bears: streams, and bytes of a head.
async fn http2(node: &Node) -> (TcpStream, u32, u32) {
    let mut client = node.connect().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.write_all(preface).await.unwrap();
    client.write_all(&settings).await.unwrap();
    let (kind, _, said) = next_frame(&mut client).await;
    assert_eq!(kind, 4);
    let said = |id: u16| {
        let mut all = said.chunks_exact(6);
        let found = all.find(|s| s[..2] == id.to_be_bytes()).unwrap();
        u32::from_be_bytes([found[2], found[3], found[4], found[5]])
    };
    let bounds = (said(3), said(6));
    client.write_all(&frame(4, 1, 0, b"")).await.unwrap();
    (client, bounds.0, bounds.1)
}

/// GET, http, "/small.txt", authority "a" (RFC 7541).
const GET_SMALL: &[u8] = b"\x82\x86\x04\x0a/small.txt\x41\x01a";

#[tokio::test]
async fn http2_streams_beyond_the_bound_are_refused() {
    let node = Node::start(config_of_tests()).await;
    let (mut client, streams, _) = http2(&node).await;
    assert_eq!(streams, 100);
    for number in 0..=100 {
        let request = frame(1, 5, 2 * number + 1, GET_SMALL);
        client.write_all(&request).await.unwrap();
    }
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    while answered.len() + refused.len() <= 100 {
        let (kind, stream, payload) = next_frame(&mut client).await;
        match kind {
            1 => answered.push(stream),
            3 => refused.push((stream, payload)),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, Vec::from_iter((0..100).map(|n| 2 * n + 1)));
    assert_eq!(
        refused,
        [(201, 7_u32.to_be_bytes().to_vec())],
        "REFUSED_STREAM"
    );
}

#[tokio::test]
async fn http2_head_beyond_its_bound_is_refused_and_the_next_is_not() {
    let node = Node::start(config_of_tests()).await;
    let (mut client, _, head) = http2(&node).await;
    assert_eq!(head, 16 << 10);
    // Two fields "x" of 9,000 bytes, in as many frames.
    let field = [b"\x00\x01x\x7f\xa9\x45".to_vec(), vec![b'y'; 9_000]].concat();
    let first = [GET_SMALL, &field].concat();
    client.write_all(&frame(1, 1, 1, &first)).await.unwrap();
    client.write_all(&frame(9, 4, 1, &field)).await.unwrap();
    client.write_all(&frame(1, 5, 3, GET_SMALL)).await.unwrap();
    let mut answers = [None, None];
    while answers.contains(&None) {
        let (kind, stream, payload) = next_frame(&mut client).await;
        if kind == 1 || kind == 3 {
            // 0x88 is `:status: 200`.
            answers[usize::from(stream == 3)] = Some(kind == 1 && payload[0] == 0x88);
        }
    }
    assert_eq!(answers, [Some(false), Some(true)]);
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
