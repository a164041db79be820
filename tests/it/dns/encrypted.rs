//! DNS over TLS, HTTPS and QUIC, with clients of other libraries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater::dns::{Config, Outcome, Transport};
use headwater::metrics::dns::Limit;
use headwater::tls::Files;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::rapid_resets;

use super::harness::{PATIENCE, Server, Upstream, addresses, config, framed, query, wait, zone};

/// A front with all listeners, and the certificate it shows.
struct Setting {
    server: Server,
    trusted: CertificateDer<'static>,
}

impl Setting {
    fn new(upstream: Option<SocketAddr>, change: impl FnOnce(&mut Config)) -> Self {
        let free = || vec!["127.0.0.1:0".parse().unwrap()];
        let mut config = Config {
            tls_listen: free(),
            https_listen: free(),
            quic_listen: free(),
            ..config()
        };
        change(&mut config);
        let server = Server::start_with(&zone(1), config, upstream);
        let trusted = show_new(&server);
        Self { server, trusted }
    }

    fn address(&self, transport: Transport) -> SocketAddr {
        let mut of = self.server.encrypted.iter();
        of.find(|(t, _)| *t == transport).expect("it listens").1
    }

    fn client(&self, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    async fn tls(&self, transport: Transport, protocol: &[u8]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address(transport)).await.unwrap();
        let name = ServerName::try_from("dns.test").unwrap();
        let connector = TlsConnector::from(self.client(protocol));
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }
}

/// Has the server show a new certificate.
fn show_new(server: &Server) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = Files {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    server.certificates.set(files.read().unwrap());
    made.cert.der().clone()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
}

async fn receive(stream: &mut TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await.ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

fn www(id: u16) -> Vec<u8> {
    query(id, "www.example.test.", RecordType::A)
}

/// `packet` with an OPT that asks for padding.
fn padded(mut packet: Vec<u8>) -> Vec<u8> {
    packet[11] = 1;
    packet.extend(b"\0\0\x29\x10\0\0\0\0\0\0\x04\0\x0C\0\0");
    packet
}

#[test]
fn tls_answers_many_queries_of_one_write_and_pads_when_asked() {
    const QUERIES: u16 = 3_000;
    let setting = Setting::new(None, |_| {});
    run(async {
        let mut stream = setting.tls(Transport::Tls, b"dot").await;
        let all: Vec<u8> = (0..QUERIES).flat_map(|id| framed(&www(id))).collect();
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            write.write_all(&all).await.unwrap();
            write
        });
        let mut seen = vec![false; usize::from(QUERIES)];
        for _ in 0..QUERIES {
            let len = read.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(len)];
            read.read_exact(&mut answer).await.unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
            seen[usize::from(answer.metadata.id)] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
        stream = read.unsplit(writing.await.unwrap());
        stream.write_all(&framed(&padded(www(7)))).await.unwrap();
        assert_eq!(receive(&mut stream).await.unwrap().len(), 468);
    });
    wait("all are counted", || {
        setting.server.queries(Transport::Tls) == u64::from(QUERIES) + 1
    });
}

#[test]
fn tls_answer_of_an_upstream_overtakes_one_that_is_held() {
    let upstream = Upstream::start();
    let setting = Setting::new(Some(upstream.address), |_| {});
    run(async {
        let mut stream = setting.tls(Transport::Tls, b"dot").await;
        let mut held = query(1, "held.example.org.", RecordType::A);
        held[2] |= 1;
        stream.write_all(&framed(&held)).await.unwrap();
        stream.write_all(&framed(&www(2))).await.unwrap();
        assert_eq!(receive(&mut stream).await.unwrap()[1], 2);
        upstream.release();
        let answer = receive(&mut stream).await.unwrap();
        assert_eq!(
            addresses(&Message::from_vec(&answer).unwrap()),
            ["198.51.100.7"]
        );
    });
}

#[test]
fn tls_client_that_is_silent_loses_its_connection() {
    let setting = Setting::new(None, |config| {
        config.tls_handshake = Duration::from_millis(50);
        config.tcp_idle = Duration::from_millis(50);
    });
    run(async {
        let mut raw = TcpStream::connect(setting.address(Transport::Tls))
            .await
            .unwrap();
        assert_eq!(raw.read(&mut [0; 8]).await.unwrap_or(0), 0, "no handshake");
        let mut stream = setting.tls(Transport::Tls, b"dot").await;
        assert!(receive(&mut stream).await.is_none(), "no query");
        let mut stream = TcpStream::connect(setting.address(Transport::Tls))
            .await
            .unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 16, "at most an alert");
    });
    let dns = &setting.server.metrics.dns;
    wait("the handshake is counted", || {
        dns.limit_count(Limit::TlsHandshake) == 1
    });
    wait("so is the one that failed", || {
        dns.handshake_failures.get() == 1
    });
    wait("no connection is left", || dns.tcp_connections.get() == 0);
}

#[test]
fn certificate_set_later_is_shown_to_new_connections() {
    let mut setting = Setting::new(None, |_| {});
    run(async {
        let mut old = setting.tls(Transport::Tls, b"dot").await;
        setting.trusted = show_new(&setting.server);
        let mut new = setting.tls(Transport::Tls, b"dot").await;
        for stream in [&mut old, &mut new] {
            stream.write_all(&framed(&www(1))).await.unwrap();
            assert!(receive(stream).await.is_some());
        }
    });
}

#[test]
fn https_answers_over_http2_and_http1() {
    let setting = Setting::new(None, |_| {});
    let host = "https://dns.test";
    run(async {
        let stream = setting.tls(Transport::Https, b"h2").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = |method: &str, uri: &str, body: Vec<u8>| {
            http::Request::builder()
                .method(method)
                .uri(format!("{host}{uri}"))
                .header("content-type", "application/dns-message")
                .body(Full::new(Bytes::from(body)))
                .unwrap()
        };
        let response = sender
            .send_request(request("POST", "/dns-query", padded(www(0))))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-type"],
            "application/dns-message"
        );
        assert_eq!(response.headers()["cache-control"], "max-age=300");
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer.len(), 468);
        assert_eq!(
            addresses(&Message::from_vec(&answer).unwrap()),
            ["192.0.2.1"]
        );
        // www.example.test. A, in base64url.
        let get = "/dns-query?dns=AAAAAAABAAAAAAAAA3d3dwdleGFtcGxlBHRlc3QAAAEAAQ";
        for (method, uri, body, status) in [
            ("GET", get, vec![], 200),
            ("GET", "/dns-query?dns=A", vec![], 400),
            ("GET", "/dns-query", vec![], 400),
            ("GET", "/other", vec![], 404),
            ("PUT", "/dns-query", vec![], 405),
            ("POST", "/dns-query", vec![0; 70_000], 413),
            ("POST", "/dns-query", vec![0; 5], 400),
        ] {
            let response = sender
                .send_request(request(method, uri, body))
                .await
                .unwrap();
            assert_eq!(response.status(), status, "{method} {uri}");
        }
        let mut other = request("POST", "/dns-query", www(0));
        other.headers_mut().remove("content-type");
        assert_eq!(sender.send_request(other).await.unwrap().status(), 415);

        let stream = setting.tls(Transport::Https, b"http/1.1").await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let request = http::Request::get(get)
                .header("host", "dns.test")
                .body(Full::<Bytes>::default())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
        }
    });
    let count = |outcome| {
        setting
            .server
            .metrics
            .dns
            .query_count(Transport::Https, outcome)
    };
    assert_eq!(count(Outcome::Authoritative), 4);
}

#[test]
fn https_client_that_resets_its_streams_loses_its_connection() {
    let setting = Setting::new(None, |config| config.https_resets = 10);
    run(async {
        let mut stream = setting.tls(Transport::Https, b"h2").await;
        stream.write_all(&rapid_resets(100)).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let dns = &setting.server.metrics.dns;
    wait("the connection is gone", || dns.tcp_connections.get() == 0);
    assert_eq!(dns.limit_count(Limit::HttpsResets), 1);
}

#[test]
fn https_connection_that_is_idle_is_closed() {
    let setting = Setting::new(None, |config| config.tcp_idle = Duration::from_millis(50));
    run(async {
        let mut stream = setting.tls(Transport::Https, b"h2").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let dns = &setting.server.metrics.dns;
    wait("the connection is gone", || dns.tcp_connections.get() == 0);
    assert!(dns.limit_count(Limit::TcpIdle) >= 1);
}

/// A QUIC connection to the server.
async fn quic(setting: &Setting) -> (quinn::Endpoint, quinn::Connection) {
    let client = setting.client(b"doq");
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let address = setting.address(Transport::Quic);
    let connection = endpoint
        .connect(address, "dns.test")
        .unwrap()
        .await
        .unwrap();
    (endpoint, connection)
}

async fn ask_quic(connection: &quinn::Connection, packet: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(&framed(packet)).await.ok()?;
    send.finish().ok()?;
    let answer = receive.read_to_end(70_000).await.ok()?;
    assert_eq!(
        usize::from(u16::from_be_bytes([answer[0], answer[1]])),
        answer.len() - 2
    );
    Some(answer[2..].to_vec())
}

#[test]
fn quic_answers_on_the_stream_of_each_query() {
    let upstream = Upstream::start();
    let setting = Setting::new(Some(upstream.address), |_| {});
    run(async {
        let (_endpoint, connection) = quic(&setting).await;
        let mut foreign = query(0, "held.example.org.", RecordType::A);
        foreign[2] |= 1;
        let late = ask_quic(&connection, &foreign);
        let soon = async {
            // More than are open at once: places on the connection come free.
            for _ in 0..250 {
                let answer = ask_quic(&connection, &www(0)).await.unwrap();
                assert_eq!(
                    addresses(&Message::from_vec(&answer).unwrap()),
                    ["192.0.2.1"]
                );
            }
            let answer = ask_quic(&connection, &padded(www(0))).await.unwrap();
            assert_eq!(answer.len(), 468);
            upstream.release();
        };
        let (late, ()) = tokio::join!(late, soon);
        let late = Message::from_vec(&late.unwrap()).unwrap();
        assert_eq!(addresses(&late), ["198.51.100.7"]);
    });
    wait("all are counted", || {
        setting.server.queries(Transport::Quic) == 252
    });
}

#[test]
fn quic_client_that_breaks_the_rules_loses_its_connection() {
    let setting = Setting::new(None, |_| {});
    run(async {
        for bad in [www(7), {
            let mut keepalive = padded(www(0));
            let at = keepalive.len() - 3;
            keepalive[at] = 11;
            keepalive
        }] {
            let (_endpoint, connection) = quic(&setting).await;
            assert!(ask_quic(&connection, &bad).await.is_none());
            let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
                panic!("closed by the server");
            };
            assert_eq!(
                close.error_code,
                quinn::VarInt::from_u32(2),
                "DOQ_PROTOCOL_ERROR"
            );
        }
        let (_endpoint, connection) = quic(&setting).await;
        assert!(
            ask_quic(&connection, &[0, 0, 1]).await.is_none(),
            "no query, no answer"
        );
        assert!(
            ask_quic(&connection, &www(0)).await.is_some(),
            "the others go on"
        );
    });
}

#[test]
fn stop_lets_encrypted_clients_have_what_they_asked_for() {
    let upstream = Upstream::start();
    let mut setting = Setting::new(Some(upstream.address), |_| {});
    let mut held = query(0, "held.example.org.", RecordType::A);
    held[2] |= 1;
    run(async {
        let mut tls = setting.tls(Transport::Tls, b"dot").await;
        let (_endpoint, connection) = quic(&setting).await;
        tls.write_all(&framed(&held)).await.unwrap();
        let over_quic = {
            let (connection, held) = (connection.clone(), held.clone());
            tokio::spawn(async move { ask_quic(&connection, &held).await })
        };
        let metrics = Arc::clone(&setting.server.metrics);
        while metrics.dns.in_flight.get() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        setting.server.stop.cancel();
        upstream.release();
        assert!(receive(&mut tls).await.is_some());
        assert!(receive(&mut tls).await.is_none(), "then the end");
        assert!(over_quic.await.unwrap().is_some());
        let closed = connection.closed().await;
        assert!(
            matches!(closed, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == quinn::VarInt::from_u32(0))
        );
    });
    setting.server.join();
}
