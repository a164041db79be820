//! The resolver against a scripted upstream on real sockets.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater::dns::Outcome;
use headwater::dns::resolver::budget::Budget;
use headwater::dns::resolver::cache::{Cached, Partition};
use headwater::dns::resolver::upstream;
use headwater::dns::resolver::{CacheConfig, Config, Flush, ForwardZone, Resolver, WarmName};
use headwater::dns::wire::Query;
use headwater::metrics::Metrics;
use headwater::time::Now;
use hickory_proto::op::{Edns, Message, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NULL, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;

mod attack;

mod encrypted;

mod keep;

// The upstream.

/// What the upstream does with a query: answer, or stay silent. The flag says whether it came over TCP.
type Script = Arc<dyn Fn(&Message, bool) -> Option<Message> + Send + Sync>;

/// A name server on a free port of 127.0.0.1 that does what its script says.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One query that reached the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    name: String,
    tcp: bool,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Upstream {
    async fn start(
        script: impl Fn(&Message, bool) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        Self::start_gated(script, None).await
    }

    /// With a gate, every answer waits until the gate is notified.
    async fn start_gated(
        script: impl Fn(&Message, bool) -> Option<Message> + Send + Sync + 'static,
        gate: Option<Arc<Notify>>,
    ) -> Self {
        let script: Script = Arc::new(script);
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The port may be taken for TCP; then another one is tried.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        tokio::spawn(serve_udp(udp, Arc::clone(&script), Arc::clone(&seen), gate));
        tokio::spawn(serve_tcp(tcp, script, Arc::clone(&seen)));
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve_udp(
    socket: Arc<UdpSocket>,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    gate: Option<Arc<Notify>>,
) {
    let mut packet = [0; 4_096];
    while let Ok((len, client)) = socket.recv_from(&mut packet).await {
        let Some(reply) = react(&packet[..len], false, &script, &seen) else {
            continue;
        };
        if let Some(gate) = &gate {
            gate.notified().await;
        }
        let _ = socket.send_to(&reply, client).await;
    }
}

async fn serve_tcp(listener: TcpListener, script: Script, seen: Arc<Mutex<Vec<Seen>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok(len) = stream.read_u16().await {
                let mut packet = vec![0; len.into()];
                if stream.read_exact(&mut packet).await.is_err() {
                    return;
                }
                if let Some(reply) = react(&packet, true, &script, &seen) {
                    let len = u16::try_from(reply.len()).unwrap();
                    let _ = stream.write_u16(len).await;
                    let _ = stream.write_all(&reply).await;
                }
            }
        });
    }
}

fn react(packet: &[u8], tcp: bool, script: &Script, seen: &Mutex<Vec<Seen>>) -> Option<Vec<u8>> {
    let query = Message::from_vec(packet).unwrap();
    seen.lock().unwrap().push(Seen {
        name: query.queries[0].name.to_ascii(),
        tcp,
        dnssec_ok: query.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok),
        checking_disabled: query.checking_disabled,
    });
    let mut reply = script(&query, tcp)?;
    reply.metadata.id = query.id;
    Some(reply.to_vec().unwrap())
}

/// An empty reply to `query`, with EDNS.
fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(query.id, OpCode::Query);
    reply.metadata.response_code = code;
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.add_query(query.queries[0].clone());
    reply.set_edns(Edns::new());
    reply
}

fn name(name: &str) -> Name {
    Name::from_str(name).unwrap()
}

fn a(owner: &str, ttl: u32, host: u8) -> Record {
    let address = Ipv4Addr::new(192, 0, 2, host);
    Record::from_rdata(name(owner), ttl, RData::A(A(address)))
}

fn soa(zone: &str, ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns."), name("host."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name(zone), ttl, RData::SOA(soa))
}

/// One address for whatever is asked.
fn address(query: &Message, host: u8) -> Message {
    let mut reply = reply(query, ResponseCode::NoError);
    reply.add_answer(a(&query.queries[0].name.to_ascii(), 300, host));
    reply
}

// The client.

struct Bench {
    resolver: Resolver,
    metrics: Arc<Metrics>,
}

fn config(upstreams: &[&Upstream]) -> Config {
    Config {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        upstreams: upstreams.iter().map(|u| u.address.into()).collect(),
        recursion: None,
        forward: Vec::new(),
        cache: CacheConfig {
            size: 1 << 20,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            negative_max_ttl: Duration::from_secs(3_600),
            stale: Duration::from_secs(3_600),
            stale_wait: Duration::from_millis(200),
            stale_ttl: Duration::from_secs(30),
            failure_ttl: (Duration::from_secs(5), Duration::from_secs(300)),
            entry: 16 << 10,
            records: 100,
            ..CacheConfig::default()
        },
        packets: 50,
        time: Duration::from_secs(5),
        waiters: 1_000,
        fetches: 1_000,
        upstream: upstream::Config::default(),
    }
}

/// Would wait for a silent upstream longer than any test.
fn patient(upstream: &Upstream) -> Config {
    Config {
        time: Duration::from_secs(60),
        ..config(&[upstream])
    }
}

fn bench(config: Config) -> Bench {
    let metrics = Arc::new(Metrics::new());
    Bench {
        resolver: Resolver::new(config, Arc::clone(&metrics)).unwrap(),
        metrics,
    }
}

/// A client's query.
#[derive(Clone)]
struct Ask {
    packet: Vec<u8>,
    limit: usize,
}

fn ask(name: &str, rtype: RecordType) -> Ask {
    build(name, rtype, None, false)
}

fn build(asked: &str, rtype: RecordType, dnssec_ok: Option<bool>, checking_disabled: bool) -> Ask {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = checking_disabled;
    message.add_query(Question::query(name(asked), rtype));
    if let Some(dnssec_ok) = dnssec_ok {
        let mut edns = Edns::new();
        edns.set_max_payload(1_232).set_dnssec_ok(dnssec_ok);
        message.set_edns(edns);
    }
    Ask {
        packet: message.to_vec().unwrap(),
        limit: 1_232,
    }
}

impl Bench {
    /// Asks as the engine does: the cache first, then the slow path.
    async fn ask(&self, ask: &Ask) -> (Outcome, Message) {
        let query = Query::parse(&ask.packet).unwrap();
        if let Some((outcome, message)) = self.cached(ask, Duration::ZERO) {
            return (outcome, message);
        }
        let mut out = Vec::new();
        let budget = self.resolver.budget();
        let outcome = self
            .resolver
            .resolve(&query, ask.limit, &budget, &mut out)
            .await;
        assert!(out.len() <= ask.limit);
        (outcome, Message::from_vec(&out).unwrap())
    }

    /// Asks the cache alone, in the future.
    fn cached(&self, ask: &Ask, later: Duration) -> Option<(Outcome, Message)> {
        let query = Query::parse(&ask.packet).unwrap();
        let mut out = vec![0; ask.limit];
        let partition = self.resolver.partition(query.name);
        let now = Now::read().plus(later);
        let cache = self.resolver.cache();
        let (outcome, len) = match cache.answer(&query, partition, now, ask.limit, &mut out) {
            Cached::Fresh { len, .. } => (Outcome::CacheHit, len),
            Cached::Stale { len } => (Outcome::CacheStale, len),
            Cached::Miss => return None,
        };
        Some((outcome, Message::from_vec(&out[..len]).unwrap()))
    }

    /// Puts an answer into the cache that has run out.
    fn store_expired(&self, ask: &Ask) {
        let query = Query::parse(&ask.packet).unwrap();
        let mut reply = address(&Message::from_vec(&ask.packet).unwrap(), 77);
        reply.answers[0].ttl = 1;
        let now = Now::read();
        let past = Now {
            mono_ns: now.mono_ns - 5_000_000_000,
            unix_ms: now.unix_ms - 5_000,
        };
        let message = reply.to_vec().unwrap();
        let cache = self.resolver.cache();
        assert!(cache.store(&query, Partition(0), &message, past));
    }
}

/// Polls until `done`, at most five seconds.
async fn eventually<F: Future<Output = bool>>(mut done: impl FnMut() -> F, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done().await {
        assert!(Instant::now() < deadline, "{what}: not within 5 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn hosts(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

#[tokio::test]
async fn second_ask_comes_from_the_cache_with_the_ttl_counted_down() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("www.example.", RecordType::A);
    let (outcome, message) = bench.ask(&ask).await;
    assert_eq!(outcome, Outcome::Resolved);
    assert_eq!(hosts(&message), ["192.0.2.1"]);
    assert_eq!(message.answers[0].ttl, 300);
    assert!(message.edns.is_none(), "the client sent none");

    let (outcome, message) = bench.cached(&ask, Duration::from_secs(100)).unwrap();
    assert_eq!(outcome, Outcome::CacheHit);
    assert_eq!(hosts(&message), ["192.0.2.1"]);
    assert!((199..=200).contains(&message.answers[0].ttl));
    assert_eq!(upstream.count(), 1);

    let stats = bench.resolver.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (1, 1, 1));
    assert!(stats.bytes > 0 && stats.bytes < stats.capacity);
    let text = bench.metrics.text();
    let line = format!(
        "headwater_resolver_upstream_queries_total{{outcome=\"answer\",upstream=\"{}\"}} 1",
        upstream.address
    );
    assert!(text.contains(&line), "{line} in {text}");
}

#[tokio::test]
async fn names_that_do_not_exist_are_cached_for_the_time_of_the_soa() {
    let upstream = Upstream::start(|query, _| {
        let missing = query.queries[0].name == name("none.example.");
        let mut reply = reply(
            query,
            if missing {
                ResponseCode::NXDomain
            } else {
                ResponseCode::NoError
            },
        );
        reply.add_authority(soa("example.", 900, 60));
        Some(reply)
    })
    .await;
    let bench = bench(config(&[&upstream]));
    for (asked, code) in [
        ("none.example.", ResponseCode::NXDomain),
        ("nodata.example.", ResponseCode::NoError),
    ] {
        let ask = ask(asked, RecordType::AAAA);
        let (outcome, message) = bench.ask(&ask).await;
        assert_eq!(outcome, Outcome::Resolved);
        assert_eq!(message.response_code, code);
        let (_, message) = bench.cached(&ask, Duration::from_secs(20)).unwrap();
        assert_eq!(message.response_code, code);
        assert!((39..=40).contains(&message.authorities[0].ttl));
        assert!(bench.cached(&ask, Duration::from_secs(61)).is_none());
    }
    assert_eq!(upstream.count(), 2);
    assert_eq!(bench.resolver.stats().negative, 2);
}

#[tokio::test]
async fn alias_chain_is_kept_and_strange_records_are_not() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = reply(query, ResponseCode::NoError);
        let alias = |from, to| Record::from_rdata(name(from), 60, RData::CNAME(CNAME(name(to))));
        reply.add_answer(alias("www.example.", "a.example."));
        reply.add_answer(alias("a.example.", "b.other."));
        reply.add_answer(a("b.other.", 30, 1));
        reply.add_answer(a("victim.", 30, 66));
        reply.add_additional(a("ns.victim.", 30, 66));
        Some(reply)
    })
    .await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("www.example.", RecordType::A);
    bench.ask(&ask).await;
    let (outcome, message) = bench.ask(&ask).await;
    assert_eq!(outcome, Outcome::CacheHit);
    assert_eq!(hosts(&message), ["a.example.", "b.other.", "192.0.2.1"]);
    assert!(message.additionals.is_empty());
}

#[tokio::test]
async fn unknown_type_passes_to_the_byte() {
    let rdata = [0xC0, 0x0C, 1, 2, 3, 0xFF];
    let upstream = Upstream::start(move |query, _| {
        let mut reply = reply(query, ResponseCode::NoError);
        let data = RData::Unknown {
            code: RecordType::Unknown(65_400),
            rdata: NULL::with(rdata.to_vec()),
        };
        reply.add_answer(Record::from_rdata(name("odd.example."), 60, data));
        Some(reply)
    })
    .await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("odd.example.", RecordType::Unknown(65_400));
    for outcome in [Outcome::Resolved, Outcome::CacheHit] {
        let (ended, message) = bench.ask(&ask).await;
        assert_eq!(ended, outcome);
        let RData::Unknown { rdata: found, .. } = &message.answers[0].data else {
            panic!("{message}");
        };
        assert_eq!(found.anything, rdata);
    }
}

#[tokio::test]
async fn truncated_answer_is_fetched_again_over_tcp() {
    let upstream = Upstream::start(|query, tcp| {
        let mut reply = reply(query, ResponseCode::NoError);
        if !tcp {
            reply.metadata.truncation = true;
            return Some(reply);
        }
        for n in 0..20 {
            let text = TXT::new(vec![format!("{n}{}", "x".repeat(90))]);
            let data = RData::TXT(text);
            reply.add_answer(Record::from_rdata(name("big.example."), 60, data));
        }
        Some(reply)
    })
    .await;
    let bench = bench(config(&[&upstream]));
    let udp = ask("big.example.", RecordType::TXT);
    let (outcome, message) = bench.ask(&udp).await;
    assert_eq!(outcome, Outcome::Resolved);
    assert!(message.truncation && message.answers.is_empty());
    let tcp = Ask {
        limit: 65_535,
        ..udp
    };
    let (outcome, message) = bench.ask(&tcp).await;
    assert_eq!(outcome, Outcome::CacheHit);
    assert_eq!(message.answers.len(), 20);
    let seen: Vec<bool> = upstream.seen().iter().map(|seen| seen.tcp).collect();
    assert_eq!(seen, [false, true]);
    // Datagram, connect, query.
    assert_eq!(bench.metrics.resolver.upstream_packets.get(), 3);
}

#[tokio::test]
async fn hundred_equal_questions_at_once_are_one_upstream_query() {
    let gate = Arc::new(Notify::new());
    let script = |query: &Message, _| Some(address(query, 1));
    let upstream = Upstream::start_gated(script, Some(Arc::clone(&gate))).await;
    let bench = Arc::new(bench(config(&[&upstream])));
    let clients: Vec<_> = (0..100)
        .map(|n| {
            let bench = Arc::clone(&bench);
            let asked = if n % 2 == 0 {
                "www.example."
            } else {
                "WWW.Example."
            };
            let ask = ask(asked, RecordType::A);
            tokio::spawn(async move { bench.ask(&ask).await })
        })
        .collect();
    eventually(async || upstream.count() > 0, "the query").await;
    gate.notify_one();
    for client in clients {
        let (outcome, message) = client.await.unwrap();
        assert!(matches!(outcome, Outcome::Resolved | Outcome::CacheHit));
        assert_eq!(hosts(&message), ["192.0.2.1"]);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn client_that_goes_away_strands_nobody() {
    let gate = Arc::new(Notify::new());
    let script = |query: &Message, _| Some(address(query, 1));
    let upstream = Upstream::start_gated(script, Some(Arc::clone(&gate))).await;
    let bench = Arc::new(bench(config(&[&upstream])));
    let ask = ask("www.example.", RecordType::A);
    let client = |ask: &Ask| {
        let (bench, ask) = (Arc::clone(&bench), ask.clone());
        tokio::spawn(async move { bench.ask(&ask).await })
    };
    let leader = client(&ask);
    eventually(async || upstream.count() > 0, "the query").await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    let waiter = client(&ask);
    gate.notify_one();
    let (outcome, _) = waiter.await.unwrap();
    assert!(matches!(outcome, Outcome::Resolved | Outcome::CacheHit));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn clients_beyond_the_bound_of_one_fetch_are_turned_away() {
    let upstream = Upstream::start(|_, _| None).await;
    let mut config = config(&[&upstream]);
    config.waiters = 3;
    config.time = Duration::from_millis(900);
    let bench = Arc::new(bench(config));
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let bench = Arc::clone(&bench);
            let ask = ask("www.example.", RecordType::A);
            tokio::spawn(async move { bench.ask(&ask).await })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap().0, Outcome::Servfail);
    }
    assert_eq!(bench.metrics.resolver.limits.waiters.get(), 2);
}

#[tokio::test]
async fn fetches_beyond_the_bound_are_turned_away() {
    let upstream = Upstream::start(|_, _| None).await;
    let mut config = config(&[&upstream]);
    config.fetches = 2;
    config.time = Duration::from_millis(600);
    let bench = Arc::new(bench(config));
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let bench = Arc::clone(&bench);
            let ask = ask(&format!("n{n}.example."), RecordType::A);
            tokio::spawn(async move { bench.ask(&ask).await })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap().0, Outcome::Servfail);
    }
    assert_eq!(bench.metrics.resolver.limits.fetches.get(), 2);
}

#[tokio::test]
async fn failure_is_remembered_and_a_flush_forgets_it() {
    let upstream = Upstream::start(|query, _| Some(reply(query, ResponseCode::ServFail))).await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("bad.example.", RecordType::A);
    for _ in 0..3 {
        let (outcome, message) = bench.ask(&ask).await;
        assert_eq!(outcome, Outcome::Servfail);
        assert_eq!(message.response_code, ResponseCode::ServFail);
        assert!(message.recursion_available);
    }
    assert_eq!(upstream.count(), 1);
    bench
        .resolver
        .flush(&Flush::Name("bad.example".into(), None));
    bench.ask(&ask).await;
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn upstream_that_is_silent_makes_the_answer_stale_after_the_wait() {
    let upstream = Upstream::start(|_, _| None).await;
    let bench = bench(patient(&upstream));
    let ask = build("www.example.", RecordType::A, Some(false), false);
    bench.store_expired(&ask);
    let start = Instant::now();
    let (outcome, message) = bench.ask(&ask).await;
    let took = start.elapsed();
    assert_eq!(outcome, Outcome::CacheStale);
    assert_eq!(hosts(&message), ["192.0.2.77"]);
    assert_eq!(message.answers[0].ttl, 30);
    // A twentieth of the wait is left for the answer to arrive in.
    assert!(took >= Duration::from_millis(190), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(bench.resolver.stats().stale, 1);
}

#[tokio::test]
async fn upstream_that_fails_makes_the_answer_stale_at_once_and_for_a_while() {
    let upstream = Upstream::start(|query, _| Some(reply(query, ResponseCode::Refused))).await;
    let mut config = config(&[&upstream]);
    config.cache.stale_wait = Duration::from_secs(4);
    let bench = bench(config);
    let ask = ask("www.example.", RecordType::A);
    bench.store_expired(&ask);
    let start = Instant::now();
    let (outcome, _) = bench.ask(&ask).await;
    assert_eq!(outcome, Outcome::CacheStale);
    assert!(start.elapsed() < Duration::from_secs(2));
    let (outcome, _) = bench.cached(&ask, Duration::from_secs(25)).unwrap();
    assert_eq!(outcome, Outcome::CacheStale, "without asking again");
    assert!(bench.cached(&ask, Duration::from_secs(31)).is_none());
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn upstream_that_lives_again_ends_the_stale_answer() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("www.example.", RecordType::A);
    bench.store_expired(&ask);
    let (outcome, message) = bench.ask(&ask).await;
    assert_eq!(outcome, Outcome::Resolved);
    assert_eq!(hosts(&message), ["192.0.2.1"]);
}

#[tokio::test]
async fn stale_switched_off_gives_no_expired_answer() {
    let upstream = Upstream::start(|query, _| Some(reply(query, ResponseCode::Refused))).await;
    let mut config = config(&[&upstream]);
    config.cache.stale = Duration::ZERO;
    let bench = bench(config);
    let ask = ask("www.example.", RecordType::A);
    bench.store_expired(&ask);
    assert_eq!(bench.ask(&ask).await.0, Outcome::Servfail);
}

#[tokio::test]
async fn forward_zones_have_upstreams_and_answers_of_their_own() {
    let world = Upstream::start(|query, _| Some(address(query, 1))).await;
    let corp = Upstream::start(|query, _| Some(address(query, 2))).await;
    let mut config = config(&[&world]);
    config.forward = vec![ForwardZone {
        zone: "corp.example.".into(),
        upstreams: vec![corp.address.into()],
    }];
    let bench = bench(config);
    for (asked, host) in [
        ("www.example.", "192.0.2.1"),
        ("www.Corp.example.", "192.0.2.2"),
        ("corp.example.", "192.0.2.2"),
        ("notcorp.example.", "192.0.2.1"),
    ] {
        let (_, message) = bench.ask(&ask(asked, RecordType::A)).await;
        assert_eq!(hosts(&message), [host], "{asked}");
    }
    assert_eq!((world.count(), corp.count()), (2, 2));

    // Even an answer to the same name in another partition is not found.
    let ask = ask("x.corp.example.", RecordType::A);
    bench.store_expired(&ask);
    let (outcome, message) = bench.ask(&ask).await;
    assert_eq!(outcome, Outcome::Resolved);
    assert_eq!(hosts(&message), ["192.0.2.2"]);
}

#[tokio::test]
async fn dnssec_flags_go_upstream_and_part_the_cache() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&upstream]));
    let flags = [(false, false), (true, false), (false, true), (true, true)];
    for _ in 0..2 {
        for (dnssec_ok, checking_disabled) in flags {
            let ask = build(
                "www.example.",
                RecordType::A,
                Some(dnssec_ok),
                checking_disabled,
            );
            let (_, message) = bench.ask(&ask).await;
            assert_eq!(message.checking_disabled, checking_disabled);
            let edns = message.edns.unwrap();
            assert_eq!(edns.flags().dnssec_ok, dnssec_ok);
        }
    }
    let seen: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| (seen.dnssec_ok, seen.checking_disabled))
        .collect();
    assert_eq!(seen, flags);
}

#[tokio::test]
async fn flush_drops_what_it_names_and_nothing_else() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&upstream]));
    let asks: Vec<Ask> = ["a.example.", "b.example.", "c.other."]
        .iter()
        .map(|name| ask(name, RecordType::A))
        .collect();
    let held = || -> Vec<bool> {
        asks.iter()
            .map(|ask| bench.cached(ask, Duration::ZERO).is_some())
            .collect()
    };
    for ask in &asks {
        bench.ask(ask).await;
    }
    assert_eq!(held(), [true, true, true]);

    let found = bench.resolver.lookup("A.example", None);
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].name, found[0].qtype), ("a.example.", 1));
    assert!((299..=300).contains(&found[0].ttl));
    assert_eq!(found[0].records.len(), 1);
    assert!(found[0].records[0].contains("192.0.2.1"));
    assert!(bench.resolver.lookup("a.example", Some(28)).is_empty());

    let flush = |what| bench.resolver.flush(&what);
    assert_eq!(flush(Flush::Name("a.example".into(), Some(28))), 0);
    assert_eq!(flush(Flush::Name("A.Example.".into(), Some(1))), 1);
    assert_eq!(held(), [false, true, true]);
    assert_eq!(flush(Flush::Zone("example.".into())), 1);
    assert_eq!(held(), [false, false, true]);
    assert_eq!(flush(Flush::All), 1);
    assert_eq!(held(), [false, false, false]);
}

#[tokio::test]
async fn answer_asked_for_before_a_flush_does_not_come_in_after_it() {
    let gate = Arc::new(Notify::new());
    let script = |query: &Message, _| Some(address(query, 1));
    let upstream = Upstream::start_gated(script, Some(Arc::clone(&gate))).await;
    let bench = Arc::new(bench(config(&[&upstream])));
    let ask = ask("www.example.", RecordType::A);
    let client = {
        let (bench, ask) = (Arc::clone(&bench), ask.clone());
        tokio::spawn(async move { bench.ask(&ask).await })
    };
    eventually(async || upstream.count() > 0, "the query").await;
    bench.resolver.flush(&Flush::All);
    gate.notify_one();
    assert_eq!(client.await.unwrap().0, Outcome::Resolved);
    assert!(bench.cached(&ask, Duration::ZERO).is_none());
}

#[tokio::test]
async fn budget_ends_after_its_packets() {
    let upstream = Upstream::start(|_, _| None).await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("www.example.", RecordType::A);
    let query = Query::parse(&ask.packet).unwrap();
    let budget = Budget::new(2, Now::read().plus(Duration::from_secs(4)));
    let mut out = Vec::new();
    let resolve = bench.resolver.resolve(&query, 1_232, &budget, &mut out);
    assert_eq!(resolve.await, Outcome::Servfail);
    // Without the budget there would be a third one: the upstream is silent, so it is asked again.
    assert_eq!(upstream.count(), 2);
    assert_eq!(budget.packets(), 0);
    assert_eq!(bench.metrics.resolver.limits.packets.get(), 1);
}

#[tokio::test]
async fn budget_ends_at_its_deadline() {
    let upstream = Upstream::start(|_, _| None).await;
    let bench = bench(patient(&upstream));
    let ask = ask("www.example.", RecordType::A);
    let query = Query::parse(&ask.packet).unwrap();
    let budget = Budget::new(50, Now::read().plus(Duration::from_millis(300)));
    let mut out = Vec::new();
    let start = Instant::now();
    let resolve = bench.resolver.resolve(&query, 1_232, &budget, &mut out);
    assert_eq!(resolve.await, Outcome::Servfail);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn dead_upstream_does_not_keep_the_living_from_answering() {
    let dead = Upstream::start(|_, _| None).await;
    let living = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&dead, &living]));
    for n in 0..5 {
        let ask = ask(&format!("n{n}.example."), RecordType::A);
        let start = Instant::now();
        assert_eq!(bench.ask(&ask).await.0, Outcome::Resolved);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn upstream_that_refuses_does_not_keep_the_next_from_answering() {
    let refusing = Upstream::start(|query, _| Some(reply(query, ResponseCode::Refused))).await;
    let answering = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&refusing, &answering]));
    for n in 0..5 {
        let ask = ask(&format!("n{n}.example."), RecordType::A);
        assert_eq!(bench.ask(&ask).await.0, Outcome::Resolved);
    }
    assert_eq!(answering.count(), 5);
}

#[tokio::test]
async fn questions_that_name_no_data_are_not_asked_upstream() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&upstream]));
    let (outcome, message) = bench.ask(&ask("example.", RecordType::AXFR)).await;
    assert_eq!(outcome, Outcome::Notimp);
    assert_eq!(message.response_code, ResponseCode::NotImp);
    assert_eq!(upstream.count(), 0);
    assert!(bench.resolver.allows("127.0.0.9".parse().unwrap()));
    assert!(!bench.resolver.allows("192.0.2.1".parse().unwrap()));
}
