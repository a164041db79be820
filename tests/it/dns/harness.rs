//! A front on a free port, clients for it, and an upstream behind it.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headwater::dns::chaos::Identity;
use headwater::dns::engine::Engine;
use headwater::dns::front::{Front, Heartbeat, Inherited};
use headwater::dns::keeper::Keeper;
use headwater::dns::resolver::{self, Resolver};
use headwater::dns::{Config, Outcome, Transport, ZoneConfig};
use headwater::metrics::Metrics;
use headwater::tls::Certificates;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio_util::sync::CancellationToken;

/// An upstream that answers every A question with 198.51.100.7; names that begin with `held`, in any case, only after `release`.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) asked: Arc<AtomicU64>,
    released: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    pub(super) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, released, done): (Arc<AtomicU64>, Arc<AtomicBool>, Arc<AtomicBool>) =
            Default::default();
        let thread = {
            let (asked, released, done) = (asked.clone(), released.clone(), done.clone());
            std::thread::spawn(move || {
                let mut held = Vec::new();
                let mut buffer = [0; 1500];
                while !done.load(Ordering::SeqCst) {
                    if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                        asked.fetch_add(1, Ordering::SeqCst);
                        let query = Message::from_vec(&buffer[..length]).unwrap();
                        held.push((query, client));
                    }
                    held.retain(|(query, client)| {
                        let name = query.queries[0].name().clone();
                        if name.to_string().to_ascii_lowercase().starts_with("held")
                            && !released.load(Ordering::SeqCst)
                        {
                            return true;
                        }
                        let mut answer = Message::response(query.metadata.id, OpCode::Query);
                        answer.metadata.recursion_desired = true;
                        answer.metadata.recursion_available = true;
                        answer.add_query(query.queries[0].clone());
                        answer.add_answer(Record::from_rdata(
                            name,
                            300,
                            RData::A(std::net::Ipv4Addr::new(198, 51, 100, 7).into()),
                        ));
                        // The resolver may have given up and closed its socket.
                        let _ = socket.send_to(&answer.to_vec().unwrap(), client);
                        false
                    });
                }
            })
        };
        Self {
            address,
            asked,
            released,
            done,
            thread: Some(thread),
        }
    }

    pub(super) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the upstream ends well");
            }
        }
    }
}

/// A front on a free port with one zone, `example.test.`.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) encrypted: Vec<(Transport, SocketAddr)>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) engine: Arc<Engine>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) heartbeat: Heartbeat,
    pub(super) file: PathBuf,
    pub(super) stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    #[track_caller]
    pub(super) fn start(zone: &str, config: Config) -> Self {
        Self::start_with(zone, config, None)
    }

    #[track_caller]
    pub(super) fn start_with(zone: &str, config: Config, upstream: Option<SocketAddr>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("example.test.zone");
        std::fs::write(&file, zone).unwrap();
        let metrics = Arc::new(Metrics::new());
        let zones = vec![ZoneConfig {
            name: "example.test.".to_owned(),
            file: file.clone(),
            ttl: 300,
            ..ZoneConfig::default()
        }];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let resolver = upstream.map(|upstream| {
            let _runtime = runtime.enter();
            Resolver::new(forward_to(upstream), Arc::clone(&metrics)).unwrap()
        });
        let keeper = Arc::new(Keeper::new(zones, Arc::clone(&metrics)));
        let _ = keeper.reload(None);
        let engine = Arc::new(Engine::new(&config, keeper, resolver, Arc::clone(&metrics)));
        let certificates = Arc::new(Certificates::default());
        let inherited = Inherited::default();
        let front = Front::bind(
            config,
            Arc::clone(&certificates),
            inherited,
            Arc::clone(&metrics),
        )
        .unwrap();
        let encrypted = front.encrypted_addrs();
        let address = front.local_addrs()[0];
        let heartbeat = front.heartbeat();
        let stop = CancellationToken::new();
        let thread = {
            let (engine, stop) = (Arc::clone(&engine), stop.clone());
            std::thread::spawn(move || runtime.block_on(front.run(engine, stop)).unwrap())
        };
        Self {
            address,
            encrypted,
            certificates,
            engine,
            metrics,
            heartbeat,
            file,
            stop,
            thread: Some(thread),
            _folder: folder,
        }
    }

    pub(super) fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(super) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(super) fn queries(&self, transport: Transport) -> u64 {
        Outcome::ALL
            .into_iter()
            .map(|o| self.metrics.dns.query_count(transport, o))
            .sum()
    }

    /// Waits for the end of the front.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the front ends well");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.join();
    }
}

pub(crate) fn forward_to(upstream: SocketAddr) -> resolver::Config {
    resolver::Config {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        upstreams: vec![upstream.into()],
        recursion: None,
        forward: vec![],
        cache: resolver::CacheConfig {
            size: 1 << 20,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            negative_max_ttl: Duration::from_secs(3_600),
            stale: Duration::ZERO,
            stale_wait: Duration::from_millis(1800),
            stale_ttl: Duration::from_secs(30),
            failure_ttl: (Duration::from_secs(1), Duration::from_secs(300)),
            entry: 16 << 10,
            records: 100,
            ..resolver::CacheConfig::default()
        },
        packets: 50,
        time: PATIENCE,
        waiters: 1000,
        fetches: 1000,
        upstream: resolver::upstream::Config::default(),
    }
}

pub(super) fn config() -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        workers: 2,
        udp_payload: 1232,
        udp_segments: 64,
        edns_options: 32,
        cname_chain: 11,
        queries_in_flight: 4096,
        queries_in_flight_per_network: 200,
        queries_in_flight_per_proven_network: 2000,
        udp_late: Duration::from_millis(1900),
        tcp_connections: 100,
        tcp_connections_per_address: 50,
        tcp_idle: Duration::from_secs(10),
        tcp_message: Duration::from_secs(10),
        tcp_unanswered: 100,
        tcp_unread: 256 << 10,
        tcp_unread_time: Duration::from_secs(15),
        tls_listen: vec![],
        https_listen: vec![],
        quic_listen: vec![],
        tls_handshake: Duration::from_secs(5),
        https_path: "/dns-query".to_owned(),
        https_streams: 100,
        https_resets: 20,
        https_head: 16 << 10,
        quic_streams: 100,
        identity: Identity::default(),
        cookies: None,
        rate_limit: None,
        transfer: headwater::dns::transfer::Config::default(),
    }
}

pub(super) fn zone(serial: u32) -> String {
    format!(
        "$TTL 300\n\
         @ IN SOA ns hostmaster {serial} 3600 600 86400 60\n\
         @ IN NS ns\n\
         ns IN A 192.0.2.53\n\
         www IN A 192.0.2.1\n\
         mail IN A 192.0.2.9\n\
         both IN TXT \"a\" \"{serial}\"\n\
         both IN TXT \"b\" \"{serial}\"\n"
    )
}

pub(super) fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut question = Query::query(Name::from_ascii(name).unwrap(), kind);
    question.set_query_class(DNSClass::IN);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question);
    message.to_vec().unwrap()
}

#[track_caller]
pub(super) fn ask(client: &UdpSocket, query: &[u8]) -> Message {
    client.send(query).unwrap();
    Message::from_vec(&receive(client)).unwrap()
}

#[track_caller]
pub(super) fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let length = client.recv(&mut buffer).expect("an answer in time");
    buffer[..length].to_vec()
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    frame
}

/// The next message, or `None` when the server closed the connection.
#[track_caller]
pub(super) fn receive_stream(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("neither an answer nor the end"),
        Err(_) => return None,
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Some(Message::from_vec(&message).unwrap())
}

pub(super) fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(a.to_string()),
            _ => None,
        })
        .collect()
}

/// The last string of every TXT record, as a number.
pub(super) fn texts(message: &Message) -> Vec<u32> {
    message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::TXT(txt) => std::str::from_utf8(txt.txt_data.last()?).ok()?.parse().ok(),
            _ => None,
        })
        .collect()
}

#[track_caller]
pub(super) fn wait(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// For a machine busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
