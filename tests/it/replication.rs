//! Replication in one process: an origin's library served over real sockets, a mirror filling its own store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater::content::library::Library;
use headwater::content::object::{Object, Role};
use headwater::content::publish::Publisher;
use headwater::content::store::Store;
use headwater::content::{PublishConfig, StoreConfig};
use headwater::http::peer;
use headwater::metrics::Metrics;
use headwater::metrics::replication::Outcome;
use headwater::peer::MirrorConfig;
use headwater::peer::discover::{Discovery, Here, Published};
use headwater::peer::message::Ask;
use headwater::peer::replicate::{MirrorHandle, Replicator};
use headwater::peer::swarm::{Swarm, SwarmConfig};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

mod chosen;

mod signed;

/// Chunk size in these tests: the smallest.
pub(crate) const CHUNK: usize = 64 << 10;

/// A node that publishes a directory, and can be made to misbehave.
pub(crate) struct Origin {
    pub(crate) content: TempDir,
    pub(crate) library: Library,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
    pub(crate) ways: Arc<Ways>,
    _store: TempDir,
    _stop: DropGuard,
}

/// How an origin misbehaves.
#[derive(Default)]
pub(crate) struct Ways {
    /// Breaks every connection.
    pub(crate) away: AtomicBool,
    /// Flips a bit in each chunk with this number, less 1; 0: none.
    flips: AtomicU32,
    /// Waits before each chunk, milliseconds.
    pub(crate) pause: AtomicU64,
    /// Answers this many chunks more, then is away.
    pub(crate) chunks_left: AtomicU64,
    /// Chunks asked for so far.
    pub(crate) asked: std::sync::Mutex<Vec<u32>>,
    /// Changes what it sends.
    forge: std::sync::Mutex<Option<Forge>>,
    /// Says that it has a newer catalogue, and sends this one.
    replay: std::sync::Mutex<Option<Vec<u8>>>,
    /// Answers like the node of this library.
    instead: std::sync::Mutex<Option<Library>>,
}

/// The body to send in place of a right one.
type Forge = fn(&Ask, Vec<u8>) -> Vec<u8>;

impl Ways {
    fn honest() -> Arc<Self> {
        Arc::new(Self {
            chunks_left: AtomicU64::new(u64::MAX),
            ..Self::default()
        })
    }
}

impl Origin {
    pub(crate) async fn new(files: &[(&str, &[u8])]) -> Self {
        Self::within(SwarmConfig::default(), files).await
    }

    /// As a member of a swarm with these settings.
    pub(crate) async fn within(config: SwarmConfig, files: &[(&str, &[u8])]) -> Self {
        let content = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            put(content.path(), name, bytes);
        }
        let state = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let (library, _store) = open(state.path(), &metrics);
        let publish = PublishConfig {
            prefix: "/".into(),
            dir: content.path().into(),
            index: String::new(),
            listing: false,
        };
        let publisher = Publisher::new(
            vec![publish],
            &store_config(state.path()),
            library.clone(),
            metrics.clone(),
        )
        .unwrap();
        let stop = CancellationToken::new();
        let published = publisher.run(stop.clone());
        tokio::spawn(async move { published.await.expect("the publisher runs") });
        let ways = Ways::honest();
        let swarm = Arc::new(Swarm::new(config, 7, metrics.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let here = Here {
            node: "origin".to_owned(),
            http: vec![address],
        };
        let published = Published {
            key: library.editions().key(),
            prefixes: vec!["/".to_owned()],
        };
        let discovery = Discovery::new(&[], &published, here, swarm.clone());
        tokio::spawn(discovery.run(stop.clone()));
        let served = (library.clone(), swarm, metrics.clone());
        serve(listener, served, ways.clone(), stop.clone());
        let origin = Self {
            content,
            library,
            metrics,
            address,
            ways,
            _store: state,
            _stop: stop.drop_guard(),
        };
        until("the origin to publish its files", || {
            files
                .iter()
                .all(|(name, _)| origin.library.get(&format!("/{name}")).is_some())
        })
        .await;
        origin
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A node that mirrors everything of its origins.
struct Mirror {
    library: Library,
    metrics: Arc<Metrics>,
    handle: MirrorHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), anyhow::Error>>,
    /// Removed at the end, if it is its own.
    _state: Option<TempDir>,
}

impl Mirror {
    /// With a state directory of its own.
    fn new(origins: &[&Origin], in_flight: usize) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut mirror = Self::in_dir(state.path(), origins, in_flight);
        mirror._state = Some(state);
        mirror
    }

    fn in_dir(state: &Path, origins: &[&Origin], in_flight: usize) -> Self {
        let from = origins.iter().map(|origin| origin.url()).collect();
        let config = MirrorConfig {
            interval: Duration::from_millis(100),
            in_flight,
            filling: 3,
            ..MirrorConfig::new("/", from)
        };
        Self::with(state, config)
    }

    fn with(state: &Path, config: MirrorConfig) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (library, store) = open(state, &metrics);
        let replicator = Replicator::new(
            vec![config],
            "mirror".into(),
            store,
            library.clone(),
            &swarm(&metrics),
            metrics.clone(),
        );
        let handle = replicator.handle();
        let stop = CancellationToken::new();
        let task = tokio::spawn(replicator.run(stop.clone()));
        Self {
            library,
            metrics,
            handle,
            stop,
            task,
            _state: None,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn has(&self, path: &str, bytes: &[u8]) {
        until(&format!("{path} to be whole"), || {
            self.library
                .get(path)
                .is_some_and(|o| o.complete() && o.manifest().layout.size == bytes.len() as u64)
        })
        .await;
        let object = self.library.get(path).unwrap();
        assert_eq!(object.role(), Role::Mirror);
        assert!(read(&object).await == bytes, "{path}: other bytes");
    }

    fn chunks(&self, outcome: Outcome) -> u64 {
        self.metrics.replication.chunks(outcome)
    }

    fn problem(&self) -> Option<String> {
        self.handle.status().remove(0).problem
    }
}

fn swarm(metrics: &Arc<Metrics>) -> Arc<Swarm> {
    Arc::new(Swarm::new(SwarmConfig::default(), 1, metrics.clone()))
}

pub(crate) fn store_config(dir: &Path) -> StoreConfig {
    StoreConfig {
        chunk: CHUNK as u32,
        ..StoreConfig::new(dir)
    }
}

pub(crate) fn open(dir: &Path, metrics: &Arc<Metrics>) -> (Library, Store) {
    let config = store_config(dir);
    let library = Library::new(&config, metrics.clone());
    let store = Store::open(&config, &library, metrics.clone()).unwrap();
    (library, store)
}

/// Writes a file as an operator's tool does: beside it, then renamed over it.
pub(crate) fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let beside = dir.join(".beside");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// Serves other nodes as `http::server` does, and misbehaves as `ways` say.
pub(crate) fn serve(
    listener: TcpListener,
    (library, swarm, metrics): (Library, Arc<Swarm>, Arc<Metrics>),
    ways: Arc<Ways>,
    stop: CancellationToken,
) {
    let ended = stop.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (library, metrics, ways) = (library.clone(), metrics.clone(), ways.clone());
            let swarm = swarm.clone();
            let connection = async move {
                let service =
                    service_fn(|request| answer(request, &library, &swarm, &metrics, &ways));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                drop(connection.await); // A connection broken on purpose ends in an error.
            };
            tokio::spawn(ended.clone().run_until_cancelled_owned(connection));
        }
    }));
}

async fn answer(
    request: Request<Incoming>,
    library: &Library,
    swarm: &Swarm,
    metrics: &Metrics,
    ways: &Ways,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let broken = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
    let ask = Ask::parse(request.uri().path(), request.uri().query());
    let chunk = match &ask {
        Ok(Ask::Chunk(_, chunk)) => Some(*chunk),
        _ => None,
    };
    if let Some(chunk) = chunk {
        ways.asked.lock().unwrap().push(chunk);
        let left = ways.chunks_left.load(Ordering::Relaxed);
        if left == 0 {
            ways.away.store(true, Ordering::Relaxed);
        } else if left != u64::MAX {
            ways.chunks_left.store(left - 1, Ordering::Relaxed);
        }
        let pause = ways.pause.load(Ordering::Relaxed);
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    if ways.away.load(Ordering::Relaxed) {
        return broken();
    }
    let instead = ways.instead.lock().unwrap().clone();
    let library = instead.as_ref().unwrap_or(library);
    let from = Ipv4Addr::LOCALHOST.into();
    let response = peer::serve(&request, from, library, swarm, metrics).await;
    let forge = *ways.forge.lock().unwrap();
    let replay = ways.replay.lock().unwrap().clone();
    if let Ok(ask) = &ask
        && (forge.is_some() || replay.is_some())
        && response.status() == hyper::StatusCode::OK
    {
        let body = response.into_body().collect().await;
        let body = body.unwrap_or_else(|never: Infallible| match never {});
        let mut body = body.to_bytes().to_vec();
        if let Some(forge) = forge {
            body = forge(ask, body);
        }
        match (ask, replay) {
            (Ask::Index(_), Some(_)) => body = signed::boast(&body),
            (Ask::Catalogue(..), Some(replay)) => body = replay,
            _ => {}
        }
        return Ok(Response::new(Full::new(body.into())));
    }
    if chunk.is_some_and(|chunk| chunk + 1 == ways.flips.load(Ordering::Relaxed)) {
        let body = response.into_body().collect().await;
        let mut bytes = body
            .unwrap_or_else(|never: Infallible| match never {})
            .to_bytes()
            .to_vec();
        bytes[7] ^= 1;
        return Ok(Response::new(Full::new(bytes.into())));
    }
    Ok(response)
}

/// All bytes of a whole object.
pub(crate) async fn read(object: &Arc<Object>) -> Vec<u8> {
    let layout = object.manifest().layout;
    let mut bytes = Vec::new();
    for index in 0..layout.count() {
        bytes.extend(object.read(index, 0..layout.len(index)).await.unwrap());
    }
    bytes
}

pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let key = blake3::hash(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(key.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub(crate) async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_all_sizes_are_mirrored_changed_and_removed() {
    let mut truth: HashMap<&str, Vec<u8>> = HashMap::new();
    for (seed, (name, size)) in [
        ("empty", 0),
        ("one", 1),
        ("short", CHUNK - 1),
        ("exact", CHUNK),
        ("long", CHUNK + 1),
        ("twice", 2 * CHUNK),
        ("dir/with space & ümlaut", 40 * CHUNK + 17),
    ]
    .into_iter()
    .enumerate()
    {
        truth.insert(name, noise(seed as u64, size));
    }
    let files: Vec<(&str, &[u8])> = truth.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    let origin = Origin::new(&files).await;
    let mirror = Mirror::new(&[&origin], 4);
    for (name, bytes) in &truth {
        mirror.has(&format!("/{name}"), bytes).await;
    }
    until("the status to say so", || {
        let status = mirror.handle.status().remove(0);
        (status.objects, status.filling, status.problem) == (truth.len(), 0, None)
    })
    .await;
    let sent: usize = truth.values().map(Vec::len).sum();
    assert_eq!(mirror.metrics.replication.in_origin.get(), sent as u64);
    assert_eq!(origin.metrics.replication.out_origin.get(), sent as u64);

    // While a new version fills, the old one stays in service; then the new one does, with nothing in between.
    let (old, new) = (&truth["twice"], noise(99, 30 * CHUNK + 5));
    origin.ways.pause.store(3, Ordering::Relaxed);
    put(origin.content.path(), "twice", &new);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let object = mirror.library.get("/twice").expect("it never goes away");
        assert!(
            object.complete(),
            "a partial version took the whole one's place"
        );
        let bytes = read(&object).await;
        if bytes == new {
            break;
        }
        assert!(bytes == *old, "neither the old version nor the new");
        assert!(Instant::now() < deadline, "the new version never came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    std::fs::remove_file(origin.content.path().join("one")).unwrap();
    until("the removed object to go", || {
        mirror.library.get("/one").is_none()
    })
    .await;
    mirror.has("/exact", &truth["exact"]).await;
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_stays_while_its_origin_is_away() {
    let bytes = noise(1, 3 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    let mirror = Mirror::new(&[&origin], 4);
    mirror.has("/a", &bytes).await;
    origin.ways.away.store(true, Ordering::Relaxed);
    until("the mirror to notice", || mirror.problem().is_some()).await;
    std::fs::remove_file(origin.content.path().join("a")).unwrap();
    until("the origin to drop it", || {
        origin.library.get("/a").is_none()
    })
    .await;
    mirror.has("/a", &bytes).await;
    origin.ways.away.store(false, Ordering::Relaxed);
    until("the object to go", || mirror.library.get("/a").is_none()).await;
    assert_eq!(mirror.problem(), None);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_chunk_is_never_kept_and_its_sender_is_cut_off() {
    let bytes = noise(2, 9 * CHUNK + 1);
    let liar = Origin::new(&[("a", &bytes)]).await;
    liar.ways.flips.store(4 + 1, Ordering::Relaxed);
    let mirror = Mirror::new(&[&liar], 1);
    until("the lie to be found", || {
        mirror.chunks(Outcome::Mismatch) > 0
    })
    .await;
    let asked = liar.ways.asked.lock().unwrap().len();
    assert_eq!(asked, 5, "one chunk after the other, the fifth wrong");
    until("the status to say so", || {
        mirror
            .problem()
            .is_some_and(|p| p.contains("chunk 4 of /a"))
    })
    .await;
    let object = mirror.library.get("/a").unwrap();
    assert_eq!(object.have().missing().next(), Some(4));
    assert!(!object.complete());
    for index in 0..4 {
        let chunk = object.read(index, 0..CHUNK as u32).await.unwrap();
        assert!(chunk == bytes[index as usize * CHUNK..][..CHUNK]);
    }
    assert!(object.read(4, 0..CHUNK as u32).await.is_err());
    let text = mirror.metrics.text();
    assert!(text.contains("state=\"cut_off\"} 1"), "{text}");
    // It is left alone: nothing more is asked of it over several intervals.
    let quiet = Instant::now() + Duration::from_millis(400);
    until("some intervals to pass", || Instant::now() > quiet).await;
    assert_eq!(liar.ways.asked.lock().unwrap().len(), asked);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_node_fills_what_a_liar_holds_too() {
    let bytes = noise(3, 60 * CHUNK);
    let liar = Origin::new(&[("a", &bytes)]).await;
    let honest = Origin::new(&[]).await;
    // The same version: same bytes, same times.
    let (from, to) = (liar.content.path(), honest.content.path());
    let copied = std::process::Command::new("cp")
        .args(["-p"])
        .arg(from.join("a"))
        .arg(to.join("a"))
        .status();
    assert!(copied.unwrap().success());
    until("the second to publish it", || {
        honest.library.get("/a").is_some()
    })
    .await;
    let id = |origin: &Origin| origin.library.get("/a").unwrap().id();
    assert_eq!(id(&liar), id(&honest));
    for origin in [&liar, &honest] {
        origin.ways.pause.store(2, Ordering::Relaxed);
    }
    liar.ways.flips.store(20 + 1, Ordering::Relaxed);
    honest.ways.flips.store(0, Ordering::Relaxed);
    let mirror = Mirror::new(&[&liar, &honest], 4);
    mirror.has("/a", &bytes).await;
    let shares = [&liar, &honest].map(|o| o.ways.asked.lock().unwrap().len());
    assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    assert!(mirror.chunks(Outcome::Mismatch) <= 1);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fill_goes_on_when_the_origin_returns() {
    let bytes = noise(4, 50 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    origin.ways.chunks_left.store(20, Ordering::Relaxed);
    let mirror = Mirror::new(&[&origin], 4);
    until("the origin to go away", || {
        mirror.chunks(Outcome::Failed) > 0
    })
    .await;
    until("the status to say so", || mirror.problem().is_some()).await;
    let object = mirror.library.get("/a").unwrap();
    let held = object.have().held();
    assert!((1..50).contains(&held), "{held}");
    origin.ways.chunks_left.store(u64::MAX, Ordering::Relaxed);
    origin.ways.away.store(false, Ordering::Relaxed);
    mirror.has("/a", &bytes).await;
    assert_eq!(mirror.chunks(Outcome::Kept), 50);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fill_goes_on_where_it_was_after_a_restart() {
    let bytes = noise(5, 100 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    origin.ways.pause.store(3, Ordering::Relaxed);
    let state = tempfile::tempdir().unwrap();
    let in_flight = 3;
    let mut kept = 0;
    for part in 1..5 {
        let mirror = Mirror::in_dir(state.path(), &[&origin], in_flight);
        until("some chunks to come", || {
            let object = mirror.library.get("/a");
            object.is_some_and(|object| object.have().held() >= part * 20)
        })
        .await;
        kept += mirror.chunks(Outcome::Kept);
        mirror.stop().await;
    }
    assert!(kept < 100);
    let mirror = Mirror::in_dir(state.path(), &[&origin], in_flight);
    mirror.has("/a", &bytes).await;
    let asked = origin.ways.asked.lock().unwrap().len();
    assert!(asked <= 100 + 4 * in_flight, "{asked} chunks asked for");
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_of_a_filling_object_gets_its_chunk_before_the_others() {
    let bytes = noise(6, 200 * CHUNK + 9);
    let origin = Origin::new(&[("a", &bytes), ("b", &bytes[9..])]).await;
    origin.ways.pause.store(5, Ordering::Relaxed);
    let mirror = Mirror::new(&[&origin], 2);
    until("the fills to begin", || {
        let begun = |path: &str| mirror.library.get(path).is_some();
        begun("/a") && begun("/b")
    })
    .await;
    // One object's last chunks, while the other's first are being fetched.
    let object = mirror.library.get("/b").unwrap();
    for index in [199, 150, 175] {
        object.wanted(index).await;
        let chunk = object.read(index, 0..CHUNK as u32).await.unwrap();
        assert!(chunk == bytes[9 + index as usize * CHUNK..][..CHUNK]);
    }
    let asked = origin.ways.asked.lock().unwrap().len();
    assert!(
        asked < 60,
        "{asked} chunks asked for before the wanted ones"
    );
    mirror.has("/a", &bytes).await;
    mirror.has("/b", &bytes[9..]).await;
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_too_large_for_the_store_leaves_room_for_others() {
    let (large, small) = (noise(7, 100 * CHUNK), noise(8, 5 * CHUNK));
    let origin = Origin::new(&[("large", &large), ("small", &small)]).await;
    let state = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let config = StoreConfig {
        size: 50 * CHUNK as u64,
        ..store_config(state.path())
    };
    let library = Library::new(&config, metrics.clone());
    let store = Store::open(&config, &library, metrics.clone()).unwrap();
    let mirror = MirrorConfig {
        interval: Duration::from_millis(50),
        in_flight: 2,
        filling: 1,
        ..MirrorConfig::new("/", vec![origin.url()])
    };
    let replicator = Replicator::new(
        vec![mirror],
        "mirror".into(),
        store,
        library.clone(),
        &swarm(&metrics),
        metrics.clone(),
    );
    let handle = replicator.handle();
    let stop = CancellationToken::new();
    let task = tokio::spawn(replicator.run(stop.clone()));
    until("the small object to be whole", || {
        library
            .get("/small")
            .is_some_and(|object| object.complete())
    })
    .await;
    until("the status to say that the store is full", || {
        let status = handle.status().remove(0);
        status.problem.is_some_and(|p| p.contains("/large")) && status.filling == 1
    })
    .await;
    assert!(library.get("/large").is_none());
    stop.cancel();
    task.await.unwrap().unwrap();
}
