//! Upstreams over TLS and HTTPS: whom they must prove to be, how their connections are used, and what is made of bad ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater::dns::resolver::upstream::Target;
use headwater::dns::resolver::{Config, Resolver, UpstreamStatus};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;

/// What a server says to one query.
enum Say {
    /// This, at once.
    Now(Vec<u8>),
    /// This, once it is told to.
    When(Arc<Notify>, Vec<u8>),
    /// Nothing.
    Nothing,
    /// This, and closes.
    Last(Vec<u8>),
}

/// An upstream over TLS or HTTPS on a free port of 127.0.0.1, and who listens on that port for what comes in the clear.
struct Encrypted {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    /// Queries, as they came.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    connections: Arc<AtomicUsize>,
    in_the_clear: UdpSocket,
}

/// The certificate of `dns.test`, valid for as long as any of rcgen, and its key.
fn certificate(change: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::new(vec!["dns.test".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), key)
}

impl Encrypted {
    async fn start_with<F, S>(
        protocol: &[u8],
        (certificate, key): (CertificateDer<'static>, KeyPair),
        serve: S,
    ) -> Self
    where
        S: Fn(tokio_rustls::server::TlsStream<TcpStream>, Arc<Mutex<Vec<Vec<u8>>>>) -> F
            + Send
            + Sync
            + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, in_the_clear) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The port may be taken for UDP; then another one is tried.
            if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, udp);
            }
        };
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::default(), Arc::<AtomicUsize>::default());
        let upstream = Self {
            address,
            certificate,
            seen: Arc::clone(&seen),
            connections: Arc::clone(&connections),
            in_the_clear,
        };
        let serve = Arc::new(serve);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, seen).await;
                    }
                });
            }
        });
        upstream
    }

    /// DNS over TLS by a script.
    async fn tls_with(
        certificate: (CertificateDer<'static>, KeyPair),
        script: impl Fn(&Message) -> Say + Send + Sync + 'static,
    ) -> Self {
        let script = Arc::new(script);
        let serve = move |stream, seen| {
            let script = Arc::clone(&script);
            serve_tls(stream, seen, move |query: &Message| script(query))
        };
        Self::start_with(b"dot", certificate, serve).await
    }

    async fn tls(script: impl Fn(&Message) -> Say + Send + Sync + 'static) -> Self {
        Self::tls_with(certificate(|_| {}), script).await
    }

    /// DNS over HTTPS by a script.
    async fn https(
        script: impl Fn(&http::request::Parts, &[u8]) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let script = Arc::new(script);
        let serve = move |stream, seen: Arc<Mutex<Vec<Vec<u8>>>>| {
            let script = Arc::clone(&script);
            async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        seen.lock().unwrap().push(body.to_vec());
                        Ok::<_, hyper::Error>(script(&parts, &body))
                    }
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        };
        Self::start_with(b"h2", certificate(|_| {}), serve).await
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Nothing came to its port but TLS.
    #[track_caller]
    fn assert_nothing_in_the_clear(&self) {
        let received = self.in_the_clear.try_recv(&mut [0; 512]);
        assert!(received.is_err(), "a datagram came");
    }
}

async fn serve_tls(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    script: impl Fn(&Message) -> Say,
) {
    let (mut reader, writer) = tokio::io::split(stream);
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    while let Ok(len) = reader.read_u16().await {
        let mut packet = vec![0; len.into()];
        if reader.read_exact(&mut packet).await.is_err() {
            return;
        }
        let query = Message::from_vec(&packet).unwrap();
        seen.lock().unwrap().push(packet);
        let framed = |reply: Vec<u8>| {
            let len = u16::try_from(reply.len()).unwrap();
            [&len.to_be_bytes()[..], &reply].concat()
        };
        match script(&query) {
            Say::Now(reply) => {
                let _ = writer.lock().await.write_all(&framed(reply)).await;
            }
            Say::When(gate, reply) => {
                let (writer, reply) = (Arc::clone(&writer), framed(reply));
                tokio::spawn(async move {
                    gate.notified().await;
                    let _ = writer.lock().await.write_all(&reply).await;
                });
            }
            Say::Nothing => {}
            Say::Last(reply) => {
                let mut writer = writer.lock().await;
                let _ = writer.write_all(&framed(reply)).await;
                let _ = writer.shutdown().await;
                return;
            }
        }
    }
}

/// An address for whatever is asked, as bytes.
fn bytes(query: &Message, host: u8) -> Vec<u8> {
    address(query, host).to_vec().unwrap()
}

/// The id of a query and then no reply.
fn garbage(query: &Message) -> Vec<u8> {
    [&query.id.to_be_bytes()[..], b"no reply at all"].concat()
}

fn dns_message(reply: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .header("content-type", "application/dns-message")
        .body(Full::new(reply.into()))
        .unwrap()
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn tls(upstream: &Encrypted) -> Target {
    target(&format!("tls://{}#dns.test", upstream.address))
}

fn https(upstream: &Encrypted) -> Target {
    target(&format!("https://dns.test/dns-query@{}", upstream.address))
}

/// Asks `targets`, and trusts the certificates of `trusted`.
fn trusting(targets: Vec<Target>, trusted: &[&Encrypted]) -> Config {
    let mut roots = rustls::RootCertStore::empty();
    for upstream in trusted {
        roots.add(upstream.certificate.clone()).unwrap();
    }
    let mut config = config(&[]);
    config.upstreams = targets;
    config.upstream.roots = Arc::new(roots);
    config
}

fn a_of(n: usize) -> Ask {
    ask(&format!("n{n}.example."), RecordType::A)
}

fn status(resolver: &Resolver) -> UpstreamStatus {
    resolver.upstreams().remove(0)
}

/// The code that says why in an answer (RFC 8914).
fn reason(message: &Message) -> Option<u16> {
    let edns = message.edns.as_ref()?;
    let option = edns.options().as_ref().iter().find_map(|(code, option)| {
        (u16::from(*code) == 15).then(|| Vec::<u8>::try_from(option).unwrap())
    })?;
    Some(u16::from_be_bytes([option[0], option[1]]))
}

/// With EDNS, so that the answer may say why.
fn with_edns(name: &str) -> Ask {
    build(name, RecordType::A, Some(false), false)
}

#[tokio::test]
async fn queries_over_tls_share_one_connection_and_tell_little() {
    let upstream = Encrypted::tls(|query| Say::Now(bytes(query, 1))).await;
    let bench = bench(trusting(vec![tls(&upstream)], &[&upstream]));
    for n in 0..10 {
        let (outcome, message) = bench.ask(&a_of(n)).await;
        assert_eq!(outcome, Outcome::Resolved);
        assert_eq!(hosts(&message), ["192.0.2.1"]);
    }
    assert_eq!((upstream.connections(), upstream.count()), (1, 10));
    for query in &*upstream.seen.lock().unwrap() {
        assert_eq!(query.len() % 128, 0, "padded (RFC 8467)");
        let query = Message::from_vec(query).unwrap();
        let options = query.edns.unwrap().options().clone();
        let codes: Vec<u16> = options.as_ref().iter().map(|(c, _)| (*c).into()).collect();
        assert_eq!(codes, [11, 12], "keepalive and padding, no cookie");
    }
    upstream.assert_nothing_in_the_clear();
    let status = status(&bench.resolver);
    assert_eq!(
        status.upstream,
        format!("tls://{}#dns.test", upstream.address)
    );
    assert_eq!((status.connection, status.problem), (Some("open"), None));
    assert!(status.round_trip.is_some() && !status.dead);
    let metrics = bench.metrics.text();
    for line in [
        "headwater_resolver_upstream_handshakes_total{outcome=\"full\"} 1".to_owned(),
        format!(
            "headwater_resolver_upstream_queries_total{{outcome=\"answer\",upstream=\"{}\"}} 10",
            status.upstream
        ),
    ] {
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn slow_answer_over_tls_holds_no_other_up() {
    let gate = Arc::new(Notify::new());
    let script = {
        let gate = Arc::clone(&gate);
        move |query: &Message| match query.queries[0].name == name("slow.example.") {
            true => Say::When(Arc::clone(&gate), bytes(query, 9)),
            false => Say::Now(bytes(query, 1)),
        }
    };
    let upstream = Encrypted::tls(script).await;
    let bench = Arc::new(bench(trusting(vec![tls(&upstream)], &[&upstream])));
    let slow = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.ask(&ask("slow.example.", RecordType::A)).await })
    };
    eventually(async || upstream.count() == 1, "the slow question").await;
    for n in 0..5 {
        assert_eq!(bench.ask(&a_of(n)).await.0, Outcome::Resolved);
    }
    assert!(!slow.is_finished());
    gate.notify_one();
    assert_eq!(hosts(&slow.await.unwrap().1), ["192.0.2.9"]);
    assert_eq!(upstream.connections(), 1);
}

/// Asks an upstream whose certificate does not hold.
async fn check_refused(upstream: &Encrypted, targets: Vec<Target>, trusted: &[&Encrypted]) {
    let mut config = trusting(targets, trusted);
    config.cache.failure_ttl = (Duration::from_millis(1), Duration::from_millis(1));
    let bench = bench(config);
    for n in 0..20 {
        let (outcome, message) = bench.ask(&with_edns(&format!("n{n}.example."))).await;
        assert_eq!(outcome, Outcome::Servfail);
        assert_eq!(reason(&message), Some(23), "a network error");
    }
    assert_eq!(upstream.count(), 0, "nothing was asked");
    upstream.assert_nothing_in_the_clear();
    let status = status(&bench.resolver);
    let problem = status.problem.expect("a problem");
    assert!(problem.contains("certificate"), "{problem}");
    assert!(status.dead);
    let handshakes = &bench.metrics.resolver.handshakes;
    let refused = handshakes.certificate.get();
    assert!((1..20).contains(&refused), "{refused} handshakes of 20");
    assert_eq!(handshakes.full.get(), 0);
}

#[tokio::test]
async fn certificate_for_another_name_is_refused_and_nothing_asked_in_the_clear() {
    let upstream = Encrypted::tls(|query| Say::Now(bytes(query, 1))).await;
    let target = target(&format!("tls://{}#other.test", upstream.address));
    check_refused(&upstream, vec![target], &[&upstream]).await;
    let target = self::target(&format!("tls://{}", upstream.address));
    check_refused(&upstream, vec![target], &[&upstream]).await;
}

#[tokio::test]
async fn expired_certificate_is_refused_and_nothing_asked_in_the_clear() {
    let expired = certificate(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let upstream = Encrypted::tls_with(expired, |query| Say::Now(bytes(query, 1))).await;
    check_refused(&upstream, vec![tls(&upstream)], &[&upstream]).await;
}

#[tokio::test]
async fn certificate_of_nobody_trusted_is_refused_over_tls_and_https() {
    let upstream = Encrypted::tls(|query| Say::Now(bytes(query, 1))).await;
    check_refused(&upstream, vec![tls(&upstream)], &[]).await;
    let upstream = Encrypted::https(|_, _| dns_message(vec![])).await;
    check_refused(&upstream, vec![https(&upstream)], &[]).await;
}

#[tokio::test]
async fn upstream_that_closes_after_each_answer_is_asked_again_by_the_same_session() {
    let upstream = Encrypted::tls(|query| Say::Last(bytes(query, 1))).await;
    let bench = bench(trusting(vec![tls(&upstream)], &[&upstream]));
    for n in 0..10 {
        let (outcome, message) = bench.ask(&a_of(n)).await;
        assert_eq!(outcome, Outcome::Resolved, "{n}");
        assert_eq!(hosts(&message), ["192.0.2.1"]);
    }
    let handshakes = &bench.metrics.resolver.handshakes;
    assert!(handshakes.full.get() + handshakes.resumed.get() >= 10);
    assert!(handshakes.resumed.get() >= 5, "{:?}", handshakes);
    assert!(!status(&bench.resolver).dead);
}

#[tokio::test]
async fn connection_nobody_uses_is_closed_as_we_and_as_the_upstream_want() {
    let upstream = Encrypted::tls(|query| Say::Now(bytes(query, 1))).await;
    let mut config = trusting(vec![tls(&upstream)], &[&upstream]);
    config.upstream.tls_idle = Duration::from_millis(50);
    let short = bench(config);
    short.ask(&a_of(1)).await;
    let closed = async || status(&short.resolver).connection == Some("closed");
    eventually(closed, "our end of patience").await;
    assert_eq!(short.ask(&a_of(2)).await.0, Outcome::Resolved);
    assert_eq!(upstream.connections(), 2);

    // The upstream's: 0.1 s (RFC 7828).
    let upstream = Encrypted::tls(|query| {
        let mut reply = bytes(query, 1);
        // The OPT is the last record; it has no options yet.
        let len = reply.len();
        reply[len - 2..].copy_from_slice(&6_u16.to_be_bytes());
        reply.extend([0, 11, 0, 2, 0, 1]);
        Say::Now(reply)
    })
    .await;
    let bench = bench(trusting(vec![tls(&upstream)], &[&upstream]));
    assert_eq!(bench.ask(&a_of(1)).await.0, Outcome::Resolved);
    let closed = async || status(&bench.resolver).connection == Some("closed");
    eventually(closed, "the upstream's end of patience").await;
    assert_eq!(bench.ask(&a_of(2)).await.0, Outcome::Resolved);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn query_beyond_those_a_connection_may_carry_waits_its_turn_and_is_counted() {
    let gate = Arc::new(Notify::new());
    let script = {
        let gate = Arc::clone(&gate);
        move |query: &Message| Say::When(Arc::clone(&gate), bytes(query, 1))
    };
    let upstream = Encrypted::tls(script).await;
    let mut config = trusting(vec![tls(&upstream)], &[&upstream]);
    config.upstream.stream_queries = 1;
    let bench = Arc::new(bench(config));
    let [first, second] = [1, 2].map(|n| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.ask(&a_of(n)).await.0 })
    });
    eventually(async || upstream.count() == 1, "the first").await;
    // Both are under way, one of them on the connection.
    let fetching = async || bench.metrics.resolver.upstream_packets.get() == 4;
    eventually(fetching, "the second").await;
    gate.notify_one();
    eventually(async || upstream.count() == 2, "the second's turn").await;
    gate.notify_one();
    assert_eq!(first.await.unwrap(), Outcome::Resolved);
    assert_eq!(second.await.unwrap(), Outcome::Resolved);
    assert_eq!(bench.metrics.resolver.limits.stream_queries.get(), 1);
}

#[tokio::test]
async fn budget_pays_for_connection_handshake_and_query() {
    let upstream = Encrypted::tls(|query| Say::Now(bytes(query, 1))).await;
    let poor = bench(trusting(vec![tls(&upstream)], &[&upstream]));
    let resolve = async |bench: &Bench, ask: &Ask, packets| {
        let query = Query::parse(&ask.packet).unwrap();
        let budget = Budget::new(packets, Now::read().plus(Duration::from_secs(4)));
        let mut out = Vec::new();
        let resolve = bench.resolver.resolve(&query, 1_232, &budget, &mut out);
        (resolve.await, budget.packets())
    };
    let (outcome, left) = resolve(&poor, &a_of(1), 2).await;
    assert_eq!((outcome, left), (Outcome::Servfail, 0));
    assert_eq!(upstream.count(), 0);
    let bench = bench(trusting(vec![tls(&upstream)], &[&upstream]));
    assert_eq!(resolve(&bench, &a_of(2), 3).await, (Outcome::Resolved, 0));
    // The connection is there now.
    assert_eq!(resolve(&bench, &a_of(3), 3).await, (Outcome::Resolved, 2));
}

#[tokio::test]
async fn dead_garbled_and_silent_upstreams_do_not_keep_a_good_one_from_answering() {
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let no_tls = Upstream::start(|_, _| None).await;
    let silent = Encrypted::tls(|_| Say::Nothing).await;
    let garbled = Encrypted::tls(|query| Say::Now(garbage(query))).await;
    let mute = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Connections are taken by the kernel, and nobody says a word.
        (listener, address)
    };
    let good = Encrypted::tls(|query| Say::Now(bytes(query, 1))).await;
    let of = |address: SocketAddr| target(&format!("tls://{address}#dns.test"));
    for bad in [
        of(dead),
        of(no_tls.address),
        of(mute.1),
        tls(&silent),
        tls(&garbled),
    ] {
        let targets = vec![bad.clone(), tls(&good)];
        let mut config = trusting(targets, &[&silent, &garbled, &good]);
        config.upstream.tls_handshake = Duration::from_millis(300);
        let bench = bench(config);
        for n in 0..6 {
            let start = Instant::now();
            assert_eq!(bench.ask(&a_of(n)).await.0, Outcome::Resolved, "{bad}");
            assert!(start.elapsed() < Duration::from_secs(3), "{bad}");
        }
    }
    assert_eq!(no_tls.count(), 0, "asked in the clear");
}

#[tokio::test]
async fn garbage_alone_is_a_failure_with_its_cause_and_the_upstream_is_left_alone() {
    let garbled = Encrypted::tls(|query| Say::Now(garbage(query))).await;
    let bench = bench(trusting(vec![tls(&garbled)], &[&garbled]));
    for n in 0..10 {
        let (outcome, message) = bench.ask(&with_edns(&format!("n{n}.example."))).await;
        assert_eq!(outcome, Outcome::Servfail);
        assert_eq!(reason(&message), Some(23));
    }
    assert!(garbled.connections() < 10, "{}", garbled.connections());
    let problem = status(&bench.resolver).problem.expect("a problem");
    assert!(problem.contains("no reply"), "{problem}");
}

#[tokio::test]
async fn queries_over_https_are_posted_with_id_0_on_one_connection() {
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let upstream = {
        let requests = Arc::clone(&requests);
        Encrypted::https(move |parts, body| {
            let field = |name| parts.headers[name].to_str().unwrap();
            let (uri, of) = (&parts.uri, field("content-type"));
            let line = format!("{} {uri} {of} {}", parts.method, field("accept"));
            requests.lock().unwrap().push(line);
            dns_message(bytes(&Message::from_vec(body).unwrap(), 1))
        })
        .await
    };
    let bench = bench(trusting(vec![https(&upstream)], &[&upstream]));
    let asks: Vec<_> = (0..10).map(a_of).collect();
    for (outcome, message) in
        futures_util::future::join_all(asks.iter().map(|a| bench.ask(a))).await
    {
        assert_eq!(outcome, Outcome::Resolved);
        assert_eq!(hosts(&message), ["192.0.2.1"]);
    }
    assert_eq!((upstream.connections(), upstream.count()), (1, 10));
    let media_type = "application/dns-message";
    let expected = format!("POST https://dns.test/dns-query {media_type} {media_type}");
    assert!(
        requests.lock().unwrap().iter().all(|r| *r == expected),
        "{requests:?}"
    );
    for query in &*upstream.seen.lock().unwrap() {
        assert_eq!(query[..2], [0, 0], "RFC 8484 section 4.1");
        assert_eq!(query.len() % 128, 0, "padded");
    }
    upstream.assert_nothing_in_the_clear();
    assert_eq!(status(&bench.resolver).connection, Some("open"));
}

#[tokio::test]
async fn https_answer_that_is_none_is_a_failure_with_its_cause() {
    type Script = fn(&Message) -> Response<Full<Bytes>>;
    let scripts: [(Script, &str); 4] = [
        (
            |query| {
                let mut response = dns_message(bytes(query, 1));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            },
            "HTTP status 503",
        ),
        (
            |query| {
                let mut response = dns_message(bytes(query, 1));
                let html = http::HeaderValue::from_static("text/html");
                response.headers_mut().insert("content-type", html);
                response
            },
            "found text/html",
        ),
        (|_| dns_message(vec![0; 70_000]), "more than 65535 octets"),
        (|_| dns_message(b"no reply".to_vec()), "no reply"),
    ];
    for (script, expected) in scripts {
        let bad = Encrypted::https(move |_, body| script(&Message::from_vec(body).unwrap())).await;
        let good =
            Encrypted::https(|_, body| dns_message(bytes(&Message::from_vec(body).unwrap(), 2)))
                .await;
        let alone = bench(trusting(vec![https(&bad)], &[&bad]));
        let (outcome, message) = alone.ask(&with_edns("www.example.")).await;
        assert_eq!(outcome, Outcome::Servfail);
        assert_eq!(reason(&message), Some(23));
        let problem = status(&alone.resolver).problem.expect("a problem");
        assert!(problem.contains(expected), "{problem}");

        let beside = bench(trusting(vec![https(&bad), https(&good)], &[&bad, &good]));
        for n in 0..5 {
            let (outcome, message) = beside.ask(&a_of(n)).await;
            assert_eq!(outcome, Outcome::Resolved, "{expected}");
            assert_eq!(hosts(&message), ["192.0.2.2"]);
        }
        bad.assert_nothing_in_the_clear();
    }
}

#[tokio::test]
async fn https_upstream_without_http2_is_refused() {
    let certificate = certificate(|_| {});
    let old = Encrypted::start_with(b"http/1.1", certificate, |_, _| async {}).await;
    let bench = bench(trusting(vec![https(&old)], &[&old]));
    assert_eq!(bench.ask(&a_of(1)).await.0, Outcome::Servfail);
    assert_eq!(bench.metrics.resolver.handshakes.failed.get(), 1);
    assert_eq!(old.count(), 0);
    old.assert_nothing_in_the_clear();
}

#[tokio::test]
async fn faster_of_an_encrypted_and_a_clear_upstream_is_asked() {
    let clear = Upstream::start(|query, _| Some(address(query, 1))).await;
    let far = Encrypted::tls(|query| {
        let gate = Arc::new(Notify::new());
        let wake = Arc::clone(&gate);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(40)).await;
            wake.notify_one();
        });
        Say::When(gate, bytes(query, 2))
    })
    .await;
    let bench = bench(trusting(vec![tls(&far), clear.address.into()], &[&far]));
    for n in 0..60 {
        assert_eq!(bench.ask(&a_of(n)).await.0, Outcome::Resolved);
    }
    assert!(
        clear.count() > 45,
        "{} of 60 went to the near one",
        clear.count()
    );
    assert!(far.count() > 0, "the far one was never measured");
}
