//! A store that has less room than there are objects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater::content::StoreConfig;
use headwater::content::chunk::{Digest, Layout};
use headwater::content::library::Library;
use headwater::content::manifest::Manifest;
use headwater::content::object::{Object, WriteError};
use headwater::content::store::{Purpose, Store};
use headwater::metrics::Metrics;
use headwater::metrics::content::Eviction;
use tempfile::TempDir;

const CHUNK: u32 = 64 << 10;

/// Bytes of each object.
const SIZE: usize = 100_000;

struct Node {
    library: Library,
    store: Store,
    metrics: Arc<Metrics>,
}

impl Node {
    /// With room for `objects` of them, of which half is forgotten in a second.
    fn open(dir: &TempDir, objects: usize) -> Self {
        let config = StoreConfig {
            chunk: CHUNK,
            size: (objects * SIZE) as u64,
            cold: Duration::from_secs(1),
            ..StoreConfig::new(dir.path())
        };
        let metrics = Arc::new(Metrics::new());
        let library = Library::new(&config, Arc::clone(&metrics));
        let store = Store::open(&config, &library, Arc::clone(&metrics)).expect("a store");
        Self {
            library,
            store,
            metrics,
        }
    }

    fn fill(&self, path: &str) -> Result<Arc<Object>, WriteError> {
        self.fill_for(Purpose::Replicate, path)
    }

    fn fill_for(&self, purpose: Purpose, path: &str) -> Result<Arc<Object>, WriteError> {
        let (bytes, manifest) = content(path);
        let object = self.store.begin_signed(manifest, None, purpose)?;
        for (index, chunk) in (0..).zip(bytes.chunks(CHUNK as usize)) {
            object.write(index, chunk).expect("written");
        }
        object.set_elsewhere(true);
        Ok(object)
    }

    /// Fills it as soon as something is cold enough to make room.
    fn fill_soon(&self, path: &str, mut meanwhile: impl FnMut()) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(self.store.used() <= capacity(&self.metrics));
            match self.fill(path) {
                Ok(_) => return,
                Err(error) => assert!(matches!(error, WriteError::Full { .. }), "{error}"),
            }
            assert!(Instant::now() < deadline, "there is never room for {path}");
            meanwhile();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn paths(&self) -> Vec<String> {
        let list = self.library.list();
        list.iter().map(|o| o.manifest().path.clone()).collect()
    }
}

fn capacity(metrics: &Metrics) -> u64 {
    metrics.content.store_capacity.get() as u64
}

fn content(path: &str) -> (Vec<u8>, Manifest) {
    let bytes: Vec<u8> = path.bytes().cycle().take(SIZE).collect();
    let manifest = Manifest {
        path: path.into(),
        layout: Layout {
            size: SIZE as u64,
            chunk: CHUNK,
        },
        media_type: "application/octet-stream".into(),
        modified: 1,
        sha256: [0; 32],
        chunks: bytes.chunks(CHUNK as usize).map(Digest::of).collect(),
    };
    (bytes, manifest)
}

fn read(object: &Object) {
    for index in 0..2 {
        let len = object.manifest().layout.len(index);
        object.read_blocking(index, 0..len).expect("read");
    }
}

#[test]
fn new_object_displaces_what_is_cold_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir, 4);
    for path in ["/cold", "/hot", "/only", "/open"] {
        node.fill(path).expect("room");
    }
    let open = node.library.get("/open").expect("it is held");
    node.library
        .get("/only")
        .expect("it is held")
        .set_elsewhere(false);
    let refused = node.fill("/new").expect_err("all are as new as it is");
    assert!(refused.to_string().contains("400000 of 400000 in use"));
    node.fill_soon("/new", || {
        read(&node.library.get("/hot").expect("it stays"))
    });
    assert_eq!(node.paths(), ["/hot", "/new", "/only", "/open"]);
    assert_eq!(
        node.metrics.content.evicted_count(Eviction::Replicate),
        (1, 100_000)
    );
    read(&open);
}

#[test]
fn evicted_object_comes_back_only_where_there_is_room() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir, 2);
    drop((
        node.fill("/a").expect("room"),
        node.fill("/b").expect("room"),
    ));
    node.fill_soon("/c", || ());
    let left = node.paths();
    let gone = if left.contains(&"/a".to_owned()) {
        "/b"
    } else {
        "/a"
    };
    // By now what stayed is as cold as what went was.
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        assert!(matches!(node.fill(gone), Err(WriteError::Full { .. })));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(node.store.remove("/c").expect("removed"));
    node.fill(gone).expect("room");
    assert_eq!(node.paths(), ["/a", "/b"]);
}

#[test]
fn lowered_size_drops_the_coldest_that_others_have() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir, 5);
    for path in ["/a", "/b", "/c", "/d", "/e"] {
        node.fill(path).expect("room");
    }
    drop(node);
    let node = Node::open(&dir, 2);
    node.store.trim();
    assert!(node.store.is_over(), "nobody is known to have any of it");
    for object in node.library.list() {
        object.set_elsewhere(object.manifest().path != "/d");
    }
    let hot = node.library.get("/b").expect("it is held");
    for _ in 0..3 {
        read(&hot);
    }
    drop(hot);
    node.store.trim();
    assert_eq!(node.paths(), ["/b", "/d"]);
    assert_eq!(node.store.used(), capacity(&node.metrics));
    assert_eq!(
        node.metrics.content.evicted_count(Eviction::Size),
        (3, 300_000)
    );
}

#[test]
fn object_a_reader_waits_for_displaces_the_coldest_that_may_go() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir, 3);
    for path in ["/a", "/b", "/c"] {
        read(&node.fill(path).expect("room"));
    }
    for path in ["/a", "/c"] {
        read(&node.library.get(path).expect("it is held"));
    }
    let open = node
        .fill_for(Purpose::Reader, "/d")
        .expect("the coldest makes room");
    assert_eq!(node.paths(), ["/a", "/c", "/d"]);
    let held = ["/a", "/c"].map(|path| node.library.get(path));
    let refused = node.fill_for(Purpose::Reader, "/b");
    assert!(
        matches!(refused, Err(WriteError::Full { .. })),
        "all are being read"
    );
    drop(held);
    node.fill_for(Purpose::Reader, "/b").expect("one may go");
    assert!(node.paths().contains(&"/d".to_owned()));
    read(&open);
    let evicted = node.metrics.content.evicted_count(Eviction::Reader);
    assert_eq!(evicted, (2, 200_000));
}
