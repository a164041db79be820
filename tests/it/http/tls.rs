//! The same over TLS.

use headwater::tls::Files;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// The files of a new certificate for `name` in `folder`.
pub(super) fn files(folder: &Path, name: &str) -> Files {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let files = Files {
        cert: folder.join(format!("{name}.cert.pem")),
        key: folder.join(format!("{name}.key.pem")),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

impl Node {
    /// Shakes hands over `stream` as a client that trusts the certificate of `name` alone.
    async fn shake(
        &self,
        stream: TcpStream,
        name: &'static str,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let cert = self.dir.path().join(format!("{name}.cert.pem"));
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_file(cert).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let name = ServerName::try_from(name).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await
    }

    async fn tls(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.encrypted).await.unwrap();
        self.shake(stream, "first.test", protocols).await.unwrap()
    }

    /// Sends `head` within TLS and reads until the server closes.
    pub(super) async fn raw_tls(&self, head: &[u8]) -> Vec<u8> {
        let mut stream = self.tls(&[b"http/1.1"]).await;
        stream.write_all(head).await.unwrap();
        all(&mut stream).await
    }
}

/// Reads until the end, however it comes.
async fn all(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes))
        .await
        .expect("the server closes in time");
    bytes
}

#[tokio::test]
async fn both_protocols_give_the_same_bytes_as_in_the_clear() {
    let node = Node::start(config_of_tests()).await;
    let get = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: first.test\r\nConnection: close\r\n\r\n")
    };
    for (target, bytes) in [("/small.txt", SMALL.to_vec()), ("/big.bin", big())] {
        let reply = Reply::parse(&node.raw_tls(get(target).as_bytes()).await);
        assert_eq!(reply.status, 200);
        assert!(reply.body == bytes, "{target}: other bytes");
    }
    let stream = node.tls(&[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("https://first.test/big.bin")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let reply = client.send_request(request).await.unwrap();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    assert!(body == big(), "other bytes");
    drop(client);
    let _ = connection.await;
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Ok), 3);
    assert_eq!(metrics.http.connections.get(), 0);
}

#[tokio::test]
async fn heads_that_smuggle_are_refused_within_tls_too() {
    let node = Node::start(config_of_tests()).await;
    let hidden = "GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    let post = "POST /small.txt HTTP/1.1\r\nHost: test\r\n";
    for head in [
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{hidden}"),
        format!("GET /small.txt HTTP/1.1\r\nHost: test\r\nX: a\n\r\n{hidden}"),
        format!("GET /small.txt HTTP/1.1\r\nHost: test\r\nX: a\r\n b\r\n\r\n{hidden}"),
    ] {
        let bytes = node.raw_tls(head.as_bytes()).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 400 "), "{head:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head:?}: {text}");
    }
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.closed(Closed::Protocol), 4);
}

#[tokio::test]
async fn rapid_resets_within_tls_cost_the_connection() {
    let config = Config {
        resets: 10,
        ..config_of_tests()
    };
    let node = Node::start(config).await;
    let mut client = node.tls(&[b"h2"]).await;
    client.write_all(&rapid_resets(100)).await.unwrap();
    let _ = client.shutdown().await;
    all(&mut client).await;
    let metrics = node.metrics.clone();
    eventually("it is closed", || metrics.http.connections.get() == 0).await;
    assert_eq!(metrics.http.closed(Closed::Flood), 1);
}

#[tokio::test]
async fn handshake_that_takes_too_long_or_fails_ends_the_connection() {
    let mut config = config_of_tests();
    config.tls_handshake = Duration::from_millis(300);
    let node = Node::start(config).await;
    // The beginning of a ClientHello that never ends.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(node.encrypted).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await;
    }
    let mut stream = TcpStream::connect(node.encrypted).await.unwrap();
    stream
        .write_all(b"GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    read_all(&mut stream).await;
    let stream = TcpStream::connect(node.encrypted).await.unwrap();
    let shaken = node.shake(stream, "first.test", &[b"gopher"]).await;
    assert!(shaken.is_err(), "no such protocol is spoken");
    let metrics = node.metrics.clone();
    eventually("all are closed", || metrics.http.connections.get() == 0).await;
    assert_eq!(metrics.http.closed(Closed::TlsHandshake), 2);
    assert_eq!(metrics.http.closed(Closed::Unshaken), 2);
}

#[tokio::test]
async fn connections_that_do_too_little_within_tls_are_closed() {
    let short = Duration::from_millis(400);
    type Shorten = fn(&mut Config, Duration);
    let cases: [(Closed, &[u8], Shorten); 3] = [
        (Closed::Silent, b"", |c, short| c.silent = short),
        (Closed::Head, b"GET / HTTP/1.1\r\nHost: te", |c, short| {
            c.head_time = short;
        }),
        (
            Closed::Idle,
            b"GET /small.txt HTTP/1.1\r\nHost: test\r\n\r\n",
            |c, short| c.idle = short,
        ),
    ];
    for (reason, bytes, set) in cases {
        let mut config = config_of_tests();
        set(&mut config, short);
        let node = Node::start(config).await;
        let mut stream = node.tls(&[]).await;
        stream.write_all(bytes).await.unwrap();
        all(&mut stream).await;
        let (metrics, _dir) = node.end().await;
        assert_eq!(metrics.http.closed(reason), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn reader_that_stops_reading_within_tls_is_closed() {
    let mut config = config_of_tests();
    config.slow = Duration::from_millis(500);
    let node = Node::start(config).await;
    let huge = node.dir.path().join("content/huge.bin");
    std::fs::write(huge, vec![7; 64 << 20]).unwrap();
    let deadline = Instant::now() + LONG;
    while node.ask("HEAD", "/huge.bin", &[]).await.status != 200 {
        assert!(Instant::now() < deadline, "not published in time");
        tokio::time::sleep(POLL).await;
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let stream = socket.connect(node.encrypted).await.unwrap();
    let mut stream = node.shake(stream, "first.test", &[]).await.unwrap();
    stream
        .write_all(b"GET /huge.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let metrics = Arc::clone(&node.metrics);
    eventually("the slow reader is closed", || {
        metrics.http.closed(Closed::Slow) == 1
    })
    .await;
    assert_eq!(metrics.http.requests(Role::Origin, Outcome::Aborted), 1);
}

#[tokio::test]
async fn new_certificate_is_shown_to_new_connections() {
    let node = Node::start(config_of_tests()).await;
    let mut old = node.tls(&[]).await;
    let second = files(node.dir.path(), "second.test");
    node.certificates.set(second.read().unwrap());
    let stream = TcpStream::connect(node.encrypted).await.unwrap();
    assert!(node.shake(stream, "first.test", &[]).await.is_err());
    let stream = TcpStream::connect(node.encrypted).await.unwrap();
    assert!(node.shake(stream, "second.test", &[]).await.is_ok());
    old.write_all(b"GET /small.txt HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(Reply::parse(&all(&mut old).await).body, SMALL);
}
