//! Plain requests, which are answered before hyper: the answers must be hyper's, each in its turn.

use super::*;

/// One reply from `stream`, whose requests before were answered; its date is left out.
pub(super) async fn reply(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> (String, Vec<u8>) {
    loop {
        let whole = Reply::try_parse(ahead).and_then(|reply| {
            let length: usize = reply.field("content-length").parse().unwrap();
            (reply.body.len() >= length).then(|| ahead.len() - reply.body.len() + length)
        });
        if let Some(end) = whole {
            let bytes: Vec<u8> = ahead.drain(..end).collect();
            let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
            let (before, date) = text.split_once("\r\ndate: ").expect("a date");
            let after = date.split_once("\r\n").map_or("", |(_, after)| after);
            return (format!("{before}\r\n{after}"), bytes[head + 4..].to_vec());
        }
        let read = timeout(LONG, stream.read_buf(ahead));
        assert!(read.await.expect("in time").unwrap() > 0, "{ahead:?}");
    }
}

#[tokio::test]
async fn plain_request_is_answered_and_counted_as_hyper_does() {
    let node = Node::start(config_of_tests()).await;
    let mut stream = node.connect().await;
    let mut ahead = Vec::new();
    for (path, body) in [
        ("/small.txt", SMALL),
        ("/empty.bin", b""),
        ("/site/", b"<p>hello"),
    ] {
        let mut replies = Vec::new();
        // The first on the connection, and any with a field nobody knows, is hyper's.
        for field in ["X-Odd: 1\r\n", "", "", "X-Odd: 1\r\n", "Accept: */*\r\n"] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{field}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            replies.push(reply(&mut stream, &mut ahead).await);
        }
        for reply in &replies {
            assert_eq!(reply, &replies[0], "{path}");
        }
        assert_eq!(replies[0].1, body);
    }
    drop(stream);
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Ok), 15);
    let sent = 5 * (SMALL.len() + b"<p>hello".len());
    assert_eq!(metrics.http.sent(Role::Origin), sent as u64);
    let hits = metrics.content.requests.with_label_values(&["hit"]);
    assert_eq!(hits.get(), 15);
    // An index file has another path, which hyper's side looks up.
    assert_eq!(metrics.http.quick.get(), 6);
}

#[tokio::test]
async fn request_with_a_query_is_answered_like_one_without() {
    let node = Node::start(config_of_tests()).await;
    let mut stream = node.connect().await;
    let mut ahead = Vec::new();
    let mut replies = Vec::new();
    for target in ["/small.txt", "/small.txt?v=1", "/small.txt"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        replies.push(reply(&mut stream, &mut ahead).await);
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!(replies[0], replies[2]);
}

#[tokio::test]
async fn line_of_the_log_is_the_same_by_both() {
    for format in [Format::Combined, Format::Json] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut config = config_of_tests();
        config.access_log = Some(path.clone());
        config.access_format = format;
        let node = Node::start(config).await;
        let mut stream = node.connect().await;
        let mut ahead = Vec::new();
        let told = [
            "",
            "User-Agent: a \"b\\\t\u{e9}\r\nReferer: http://c/?d\r\n",
            "User-Agent:\r\nuser-agent: second\r\nReferer:  e \r\n",
        ];
        for fields in told {
            for odd in ["X-Odd: 1\r\n", ""] {
                let head = format!("GET /small.txt HTTP/1.1\r\nHost: test:80\r\n{fields}{odd}\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                assert_eq!(reply(&mut stream, &mut ahead).await.1, SMALL);
            }
        }
        drop(stream);
        let (metrics, _dir) = node.end().await;
        assert_eq!(metrics.http.quick.get(), told.len() as u64);
        let text = std::fs::read_to_string(&path).unwrap();
        let timeless = |line: &str| match format {
            Format::Combined => {
                let (before, behind) = line.split_once('[').unwrap();
                format!("{before}{}", behind.split_once(']').unwrap().1)
            }
            Format::Json => {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                let line = line.as_object_mut().unwrap();
                assert!(line["micros"].as_u64().unwrap() < 20_000_000);
                line.retain(|name, _| name != "time" && name != "micros");
                assert_eq!(line["status"], 200);
                serde_json::to_string(line).unwrap()
            }
        };
        let lines: Vec<_> = text.lines().map(timeless).collect();
        assert_eq!(lines.len(), 2 * told.len(), "{text}");
        for pair in lines.chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
    }
}

#[tokio::test]
async fn answers_of_both_kinds_come_in_the_order_of_their_requests() {
    let node = Node::start(config_of_tests()).await;
    let big = big();
    let mut seed = 7u64;
    let mut dice = move |sides: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % sides
    };
    for _ in 0..30 {
        let mut text = String::new();
        let mut expected = Vec::new();
        for _ in 0..20 {
            let (path, field, body): (_, _, &[u8]) = match dice(6) {
                0 => ("/big.bin", "", &big),
                1 => ("/big.bin", "Range: bytes=5-9\r\n", &big[5..10]),
                2 => ("/small.txt", "X-Odd: 1\r\n", SMALL),
                3 => ("/empty.bin", "", b""),
                4 => ("/site/", "", b"<p>hello"),
                _ => ("/small.txt", "", SMALL),
            };
            text += &format!("GET {path} HTTP/1.1\r\nHost: test\r\n{field}\r\n");
            expected.push(body);
        }
        let cuts: Vec<usize> = (0..dice(8)).map(|_| dice(text.len())).collect();
        let stream = node.connect().await;
        stream.set_nodelay(true).unwrap();
        let (mut from, mut to) = stream.into_split();
        let bytes = text.into_bytes();
        let writer = tokio::spawn(async move {
            let mut cuts = cuts;
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut at = 0;
            for cut in cuts {
                to.write_all(&bytes[at..cut]).await.unwrap();
                tokio::task::yield_now().await;
                at = cut;
            }
            to
        });
        let mut ahead = Vec::new();
        for body in expected {
            let (head, found) = loop {
                let whole = Reply::try_parse(&ahead).and_then(|reply| {
                    let length: usize = reply.field("content-length").parse().unwrap();
                    let end = ahead.len() - reply.body.len() + length;
                    (end <= ahead.len()).then_some((reply, end, length))
                });
                if let Some((reply, end, length)) = whole {
                    ahead.drain(..end);
                    break (reply.status, reply.body[..length].to_vec());
                }
                let read = timeout(LONG, from.read_buf(&mut ahead));
                assert!(read.await.expect("in time").unwrap() > 0);
            };
            assert!(head == 200 || head == 206, "{head}");
            assert!(found == body, "{} bytes for {}", found.len(), body.len());
        }
        drop(writer.await.unwrap());
    }
    node.end().await;
}

#[tokio::test]
async fn client_that_asks_and_does_not_read_is_not_read_from() {
    let node = Node::start(Config {
        slow: Duration::from_millis(300),
        ..config_of_tests()
    })
    .await;
    let mut stream = node.connect().await;
    let head = b"GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(head).await.unwrap();
    reply(&mut stream, &mut Vec::new()).await;
    let many = head.repeat(1000);
    // It writes until the server, whose answers nobody takes, closes.
    let closed = timeout(LONG, async {
        while stream.write_all(&many).await.is_ok() {}
    });
    closed.await.expect("closed in time");
    let metrics = Arc::clone(&node.metrics);
    assert!(metrics.http.quick.get() > 0);
    eventually("closed as slow", || metrics.http.closed(Closed::Slow) == 1).await;
    node.end().await;
}

const PLAIN: &[u8] = b"GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";

/// A connection to `node` that begins with an answer before hyper.
async fn begun(node: &Node) -> TcpStream {
    // The first reading is from the disk, which is hyper's.
    while node.metrics.http.quick.get() == 0 {
        node.get("/small.txt", &[]).await;
        let mut stream = node.connect().await;
        stream.write_all(PLAIN).await.unwrap();
        reply(&mut stream, &mut Vec::new()).await;
    }
    let before = node.metrics.http.quick.get();
    let mut stream = node.connect().await;
    stream.write_all(PLAIN).await.unwrap();
    assert_eq!(reply(&mut stream, &mut Vec::new()).await.1, SMALL);
    assert_eq!(node.metrics.http.quick.get(), before + 1);
    stream
}

#[tokio::test]
async fn client_that_sends_nothing_but_plain_requests_needs_no_hyper() {
    let node = Node::start(config_of_tests()).await;
    let mut stream = begun(&node).await;
    let before = (
        node.metrics.http.quick.get(),
        node.metrics.http.closed(Closed::Done),
    );
    stream.write_all(&PLAIN.repeat(3)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut rest));
    read.await.expect("in time").unwrap();
    let found = rest.windows(SMALL.len()).filter(|w| *w == SMALL).count();
    assert_eq!(found, 3);
    assert_eq!(node.metrics.http.quick.get(), before.0 + 3);
    eventually("ended in good order", || {
        node.metrics.http.closed(Closed::Done) == before.1 + 1
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn connection_without_hyper_ends_when_it_is_idle_and_with_the_node() {
    let idle = Node::start(Config {
        idle: Duration::from_millis(200),
        ..config_of_tests()
    })
    .await;
    let mut stream = begun(&idle).await;
    let mut byte = [0];
    let read = timeout(LONG, stream.read(&mut byte));
    assert_eq!(read.await.expect("in time").unwrap(), 0);
    eventually("counted", || idle.metrics.http.closed(Closed::Idle) >= 1).await;
    idle.end().await;

    let node = Node::start(config_of_tests()).await;
    let mut stream = begun(&node).await;
    let (metrics, _dir) = node.end().await;
    let mut byte = [0];
    let read = timeout(LONG, stream.read(&mut byte));
    assert_eq!(read.await.expect("in time").unwrap(), 0);
    assert_eq!(metrics.http.closed(Closed::Stop), 1);
}

#[tokio::test]
async fn preface_in_two_parts_is_http2() {
    let node = Node::start(config_of_tests()).await;
    for cut in [1, 14, 23] {
        let mut stream = node.connect().await;
        stream.set_nodelay(true).unwrap();
        let (first, second) = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".split_at(cut);
        stream.write_all(first).await.unwrap();
        // Most likely the server has the first part alone by now.
        tokio::task::yield_now().await;
        stream.write_all(second).await.unwrap();
        // An empty SETTINGS frame (RFC 9113 section 6.5), to which the server's own is the answer.
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let mut head = [0; 9];
        let read = timeout(LONG, stream.read_exact(&mut head));
        read.await.expect("in time").unwrap();
        assert_eq!((head[3], &head[5..]), (4, &[0; 4][..]), "{head:?}");
    }
    node.end().await;
}
