//! The store and the published directories on a real disk: crashes, rot, edits, bounds.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater::content::chunk::{Digest, Layout};
use headwater::content::library::{Entry, Library};
use headwater::content::manifest::Manifest;
use headwater::content::object::{Object, ReadError, Role, WriteError};
use headwater::content::publish::Publisher;
use headwater::content::scrub::Scrub;
use headwater::content::store::Store;
use headwater::content::{PublishConfig, StoreConfig};
use headwater::metrics::Metrics;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const CHUNK: u32 = 64 << 10;

/// A library with its store in a directory.
struct Node {
    config: StoreConfig,
    metrics: Arc<Metrics>,
    library: Library,
    store: Store,
}

impl Node {
    fn open(dir: &TempDir) -> Self {
        Self::with(config(dir))
    }

    fn with(config: StoreConfig) -> Self {
        let metrics = Arc::new(Metrics::new());
        let library = Library::new(&config, Arc::clone(&metrics));
        let store = Store::open(&config, &library, Arc::clone(&metrics)).expect("a store");
        Self {
            config,
            metrics,
            library,
            store,
        }
    }

    fn fill(&self, path: &str, bytes: &[u8]) -> Arc<Object> {
        let object = self.store.begin(manifest(path, bytes)).expect("room");
        for (index, chunk) in bytes.chunks(CHUNK as usize).enumerate() {
            object.write(index as u32, chunk).expect("written");
        }
        object
    }

    /// Publishes `dir` at `/`; the task ends when the token is cancelled.
    fn publish(&self, dir: &Path) -> CancellationToken {
        let stop = CancellationToken::new();
        tokio::spawn(self.publisher(dir).run(stop.clone()));
        stop
    }

    fn publisher(&self, dir: &Path) -> Publisher {
        let publish = PublishConfig {
            prefix: "/".into(),
            dir: dir.to_owned(),
            index: "index.html".into(),
            listing: true,
        };
        let library = self.library.clone();
        let metrics = Arc::clone(&self.metrics);
        Publisher::new(vec![publish], &self.config, library, metrics).expect("a directory")
    }
}

fn config(dir: &TempDir) -> StoreConfig {
    StoreConfig {
        chunk: CHUNK,
        ..StoreConfig::new(dir.path().join("store"))
    }
}

/// Bytes that differ from chunk to chunk and from seed to seed.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

fn manifest(path: &str, bytes: &[u8]) -> Manifest {
    Manifest {
        path: path.into(),
        layout: Layout {
            size: bytes.len() as u64,
            chunk: CHUNK,
        },
        media_type: "application/octet-stream".into(),
        modified: 1,
        sha256: [0; 32],
        chunks: bytes.chunks(CHUNK as usize).map(Digest::of).collect(),
    }
}

/// Reads all of an object in slices that do not match its blocks.
async fn read(object: &Arc<Object>) -> Result<Vec<u8>, ReadError> {
    let layout = object.manifest().layout;
    let mut all = Vec::new();
    for start in (0..layout.size).step_by(50_000) {
        for slice in layout.cover(start..start + 50_000) {
            all.extend_from_slice(&object.read(slice.index, slice.within).await?);
        }
    }
    Ok(all)
}

/// Where the store keeps an object.
fn dir_of(node: &Node, id: Digest) -> PathBuf {
    node.config.dir.join("objects").join(id.to_string())
}

/// Changes one byte on disk as a failing disk would, and makes sure that it is read from there.
fn rot(file: &Path, at: u64) {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(file).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    evict(&file);
}

fn evict(file: &fs::File) {
    file.sync_all().expect("synced");
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("evicted");
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn found(library: &Library, path: &str) -> Option<Arc<Object>> {
    match library.find(path).await {
        Entry::Object(object) => Some(object),
        _ => None,
    }
}

// Mirrored objects.

#[tokio::test(flavor = "multi_thread")]
async fn mirrored_object_filled_reads_back_and_serves_while_it_fills() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let content = bytes(300_000, 1);
    let object = node.store.begin(manifest("/a", &content)).unwrap();
    assert_eq!(node.library.get("/a").unwrap().id(), object.id());
    object.write(1, &content[65_536..131_072]).unwrap();
    let middle = object.read(1, 10..20).await.unwrap();
    assert_eq!(middle, content[65_546..65_556]);
    let missing = object.read(0, 0..10).await;
    assert!(matches!(missing, Err(ReadError::Missing { index: 0, .. })));
    assert!(
        object.read(4, 0..CHUNK).await.is_err(),
        "beyond the last chunk"
    );
    let object = node.fill("/a", &content);
    assert!(object.complete());
    assert_eq!(read(&object).await.unwrap(), content);
    assert_eq!(
        node.metrics.content.digested.get(),
        0,
        "written chunks are sealed"
    );
    assert_eq!(object.verify(), (5, 0));
    assert_eq!((object.role(), node.store.used()), (Role::Mirror, 300_000));
}

#[test]
fn write_of_other_bytes_is_refused() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let content = bytes(100_000, 2);
    let object = node.store.begin(manifest("/a", &content)).unwrap();
    for (index, bytes) in [
        (0, &content[1..65_537]),
        (0, &content[..9]),
        (1, &content[..65_536]),
    ] {
        let refused = object.write(index, bytes);
        assert!(matches!(refused, Err(WriteError::Mismatch { .. })));
    }
    assert!(object.write(7, &content[..65_536]).is_err());
    assert_eq!(
        (object.held(), node.metrics.content.write_mismatch.get()),
        (0, 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wanted_chunk_wakes_its_readers_and_leads_the_schedule() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let content = bytes(300_000, 3);
    let object = node.store.begin(manifest("/a", &content)).unwrap();
    let wait = |index| {
        let object = Arc::clone(&object);
        tokio::spawn(async move { object.wanted(index).await })
    };
    let first = wait(3);
    eventually("3 is wanted", || object.wants() == [3]).await;
    object.asked().await;
    let second = wait(1);
    eventually("1 is wanted after 3", || object.wants() == [3, 1]).await;
    second.abort();
    eventually("1 is not wanted any more", || object.wants() == [3]).await;
    object.write(3, &content[3 * 65_536..4 * 65_536]).unwrap();
    first.await.unwrap();
    object.wanted(3).await;
    assert_eq!(object.wants(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_in_the_middle_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let content = bytes(300_000, 4);
    let node = Node::open(&dir);
    let object = node.store.begin(manifest("/a", &content)).unwrap();
    object.write(0, &content[..65_536]).unwrap();
    object.write(3, &content[196_608..262_144]).unwrap();
    drop((node, object)); // No flush: as after `kill -9`.
    let node = Node::open(&dir);
    let object = node.library.get("/a").unwrap();
    assert_eq!(object.have().missing().collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(
        object.read(3, 0..9).await.unwrap(),
        content[196_608..196_617]
    );
    assert_eq!(
        node.metrics.content.digested.get(),
        1,
        "digested anew after a start"
    );
    let begun = node.store.begin(manifest("/a", &content)).unwrap();
    assert!(Arc::ptr_eq(&begun, &object));
    node.fill("/a", &content);
    assert_eq!(read(&object).await.unwrap(), content);
}

/// Leaves the files that a crash in the middle of a begin would leave; the store opens, sweeps them, and begins anew.
#[track_caller]
fn check_crash(leave: impl FnOnce(&Path, &Manifest)) {
    let dir = TempDir::new().unwrap();
    let content = bytes(100_000, 5);
    let manifest = manifest("/a", &content);
    let left = config(&dir)
        .dir
        .join("objects")
        .join(manifest.digest().to_string());
    fs::create_dir_all(&left).unwrap();
    leave(&left, &manifest);
    let node = Node::open(&dir);
    assert!(node.library.list().is_empty());
    assert_eq!(node.store.used(), 0);
    let objects = node.config.dir.join("objects");
    assert_eq!(fs::read_dir(objects).unwrap().count(), 0, "swept");
    assert!(node.fill("/a", &content).complete());
}

#[test]
fn crash_while_beginning_leaves_nothing() {
    let data = |dir: &Path, len: usize| fs::write(dir.join("data"), vec![0; len]).unwrap();
    let have = |dir: &Path, bytes: &[u8]| fs::write(dir.join("have"), bytes).unwrap();
    check_crash(|_, _| ());
    check_crash(|dir, _| data(dir, 100_000));
    check_crash(|dir, _| {
        data(dir, 100_000);
        have(dir, &[0]);
    });
    check_crash(|dir, manifest| {
        data(dir, 100_000);
        have(dir, &[0]);
        fs::write(dir.join("manifest.new"), manifest.encode()).unwrap();
    });
    check_crash(|dir, manifest| {
        data(dir, 99_999);
        have(dir, &[0]);
        fs::write(dir.join("manifest"), manifest.encode()).unwrap();
    });
    check_crash(|dir, manifest| {
        data(dir, 100_000);
        have(dir, &[0b100]);
        fs::write(dir.join("manifest"), manifest.encode()).unwrap();
    });
    check_crash(|dir, manifest| {
        data(dir, 100_000);
        have(dir, &[0]);
        let other = Manifest {
            modified: 2,
            ..manifest.clone()
        };
        fs::write(dir.join("manifest"), other.encode()).unwrap();
    });
    check_crash(|dir, _| {
        let removed = dir.ancestors().nth(2).unwrap().join("removed/0");
        fs::create_dir_all(removed).unwrap();
        fs::write(dir.parent().unwrap().join("stray"), b"x").unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_version_takes_over_when_it_is_whole() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let (one, two) = (bytes(200_000, 6), bytes(150_000, 7));
    let old = node.fill("/a", &one);
    let new = node.store.begin(manifest("/a", &two)).unwrap();
    new.write(0, &two[..65_536]).unwrap();
    assert_eq!(node.library.get("/a").unwrap().id(), old.id());
    assert_eq!(node.library.version(new.id()).unwrap().held(), 1);
    let serving: Vec<_> = node.library.holdings().iter().map(|h| h.serving).collect();
    assert_eq!(serving, [true, false]);
    node.fill("/a", &two);
    assert_eq!(node.library.get("/a").unwrap().id(), new.id());
    assert_eq!(
        read(&old).await.unwrap(),
        one,
        "readers finish on the old version"
    );
    assert_eq!(node.store.used(), 350_000);
    let id = old.id();
    drop(old);
    assert!(node.library.version(id).is_none());
    eventually("old bytes are gone", || {
        let removed = node.config.dir.join("removed");
        node.store.used() == 150_000 && fs::read_dir(removed).unwrap().count() == 0
    })
    .await;
    assert!(node.store.remove("/a").unwrap());
    assert!(!node.store.remove("/a").unwrap());
    assert_eq!(read(&new).await.unwrap(), two);
    assert!(node.library.get("/a").is_none());
}

#[test]
fn restart_with_two_versions_serves_the_whole_one() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (bytes(200_000, 8), bytes(150_000, 9));
    let node = Node::open(&dir);
    let old = node.fill("/a", &one).id();
    let new = node.store.begin(manifest("/a", &two)).unwrap().id();
    drop(node);
    let node = Node::open(&dir);
    assert_eq!(node.library.get("/a").unwrap().id(), old);
    assert_eq!(node.library.version(new).unwrap().held(), 0);
    node.fill("/a", &two);
    drop(node);
    let node = Node::open(&dir);
    assert_eq!(node.library.get("/a").unwrap().id(), new);
    assert_eq!(node.store.used(), 150_000);
}

#[test]
fn begin_of_the_old_version_gives_up_the_next() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let (one, two) = (bytes(200_000, 10), bytes(150_000, 11));
    node.fill("/a", &one);
    node.store.begin(manifest("/a", &two)).unwrap();
    let again = node.store.begin(manifest("/a", &one)).unwrap();
    assert!(again.complete());
    assert_eq!(
        (node.library.holdings().len(), node.store.used()),
        (1, 200_000)
    );
}

#[test]
fn store_that_is_full_says_so_and_keeps_what_it_has() {
    let dir = TempDir::new().unwrap();
    let node = Node::with(StoreConfig {
        size: 250_000,
        objects: 2,
        ..config(&dir)
    });
    let kept = node.fill("/a", &bytes(200_000, 12));
    let refused = node.store.begin(manifest("/b", &bytes(60_000, 13)));
    let text = refused.unwrap_err().to_string();
    assert_eq!(
        text,
        "/b: no space: 60000 bytes, and the store has 200000 of 250000 in use"
    );
    assert_eq!(kept.verify(), (4, 0));
    node.fill("/b", &bytes(10, 14));
    let refused = node.store.begin(manifest("/c", &[]));
    assert!(matches!(refused, Err(WriteError::Full { .. })));
    let metrics = &node.metrics.content;
    assert_eq!(
        (metrics.write_full.get(), metrics.objects_refused.get()),
        (2, 1)
    );
    assert_eq!(metrics.store_used.get(), 200_010);
}

#[test]
fn begin_of_a_manifest_that_lies_is_refused() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    for path in ["/../etc/passwd", "a", "/"] {
        let refused = node.store.begin(manifest(path, b"x"));
        assert!(matches!(refused, Err(WriteError::Io { .. })), "{path}");
    }
    assert_eq!(node.store.used(), 0);
}

#[test]
fn second_store_in_one_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let second = Store::open(&node.config, &node.library, Arc::clone(&node.metrics));
    let text = second.unwrap_err().to_string();
    assert!(text.contains("in use by another process"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_of_a_mirrored_chunk_is_never_served_and_the_chunk_comes_again() {
    let dir = TempDir::new().unwrap();
    let content = bytes(200_000, 15);
    let mut node = Node::open(&dir);
    for restart in [false, true] {
        let mut object = node.fill("/a", &content);
        assert_eq!(read(&object).await.unwrap(), content);
        let data = dir_of(&node, object.id()).join("data");
        if restart {
            drop((node, object));
            node = Node::open(&dir);
            object = node.library.get("/a").unwrap();
        }
        rot(&data, 70_000);
        let neighbour = object.read(0, 0..CHUNK).await.unwrap();
        assert_eq!(neighbour, content[..65_536]);
        let rotten = object.read(1, 4_464..4_465).await;
        assert!(
            matches!(rotten, Err(ReadError::Corrupt { index: 1, .. })),
            "{rotten:?}"
        );
        assert!(matches!(
            object.read(1, 0..1).await,
            Err(ReadError::Missing { .. })
        ));
        assert!(!object.complete());
        object.asked().await;
        assert_eq!(node.metrics.content.corrupt.get(), 1);
        object.write(1, &content[65_536..131_072]).unwrap();
        assert!(object.complete());
        assert_eq!(read(&object).await.unwrap(), content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_without_rot_costs_no_second_digest() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let content = bytes(1_000_000, 16);
    let object = node.fill("/a", &content);
    let data = dir_of(&node, object.id()).join("data");
    evict(&fs::File::open(data).unwrap());
    assert_eq!(read(&object).await.unwrap(), content);
    assert_eq!(node.metrics.content.digested.get(), 0);
    assert!(node.metrics.content.proved.get() >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn scrub_finds_rot_that_nobody_reads_and_goes_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let content = bytes(200_000, 17);
    let object = node.fill("/a", &content);
    rot(&dir_of(&node, object.id()).join("data"), 70_000);
    let metrics = &node.metrics.content;
    let run = |scrub: Scrub| {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { scrub.run(token).await });
        (stop, task)
    };
    let scrub = || {
        Scrub::new(
            &node.config,
            node.library.clone(),
            Arc::clone(&node.metrics),
        )
    };
    let (stop, task) = run(scrub());
    eventually("a pass is over", || metrics.scrub_passes.get() == 1).await;
    assert_eq!((metrics.scrub_good.get(), metrics.scrub_bad.get()), (3, 1));
    assert_eq!((metrics.corrupt.get(), metrics.quarantined.get()), (1, 1));
    assert_eq!(object.have().missing().collect::<Vec<_>>(), [1]);
    object.write(1, &content[65_536..131_072]).unwrap();
    assert_eq!((metrics.repaired.get(), metrics.quarantined.get()), (1, 0));
    let remembered = || fs::read_to_string(node.config.dir.join("scrub")).unwrap_or_default();
    eventually("it is remembered", || remembered().ends_with(" -\n")).await;
    stop.cancel();
    task.await.unwrap();
    // The next pass is due in a week; one that was not ended goes on behind the object it did last.
    let (stop, task) = run(scrub());
    let began = remembered().split(' ').next().unwrap().to_owned();
    stop.cancel();
    task.await.unwrap();
    assert_eq!(metrics.scrub_passes.get(), 1);
    fs::write(
        node.config.dir.join("scrub"),
        format!("{began} {}\n", object.id()),
    )
    .unwrap();
    let (stop, task) = run(scrub());
    eventually("the pass is ended", || metrics.scrub_passes.get() == 2).await;
    assert_eq!(metrics.scrub_good.get(), 3, "nothing was left to do");
    stop.cancel();
    task.await.unwrap();
}

// Chunks in memory.

#[tokio::test(flavor = "multi_thread")]
async fn rot_below_a_chunk_in_memory_is_never_served_and_ends_it_when_seen() {
    let dir = TempDir::new().unwrap();
    let node = Node::open(&dir);
    let content = bytes(200_000, 40);
    let object = node.fill("/a", &content);
    for _ in 0..3 {
        assert_eq!(read(&object).await.unwrap(), content);
    }
    let metrics = &node.metrics.content;
    assert_eq!(metrics.memory_bytes.get(), 200_000);
    rot(&dir_of(&node, object.id()).join("data"), 70_000);
    assert_eq!(read(&object).await.unwrap(), content);
    assert!(object.in_memory(1, &(4_464..4_465)).is_some());
    assert_eq!(object.verify(), (3, 1));
    assert_eq!(metrics.memory_bytes.get(), 200_000 - i64::from(CHUNK));
    assert!(matches!(
        object.read(1, 0..1).await,
        Err(ReadError::Missing { index: 1, .. })
    ));
    object.write(1, &content[65_536..131_072]).unwrap();
    assert_eq!(read(&object).await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_version_leaves_the_memory_and_the_new_one_is_read() {
    let (dir, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = content.path().join("a.bin");
    let [first, second] = [bytes(200_000, 41), bytes(200_000, 42)];
    fs::write(&file, &first).unwrap();
    let node = Node::open(&dir);
    let stop = node.publish(content.path());
    let metrics = Arc::clone(&node.metrics);
    let deadline = Instant::now() + Duration::from_secs(20);
    let old = loop {
        let object = found(&node.library, "/a.bin").await;
        if let Some(object) = object
            && read(&object).await.is_ok_and(|bytes| bytes == first)
            && metrics.content.memory_bytes.get() == 200_000
        {
            break object;
        }
        assert!(Instant::now() < deadline, "never kept in memory");
    };
    assert!(metrics.content.from_memory.get() > 0);
    // In place: an open reader of the old version would see the new bytes.
    let open = OpenOptions::new().write(true).open(&file).unwrap();
    open.write_all_at(&second, 0).unwrap();
    drop(open);
    eventually("the new version is published", || {
        let now = node.library.get("/a.bin").unwrap();
        if let Some(bytes) = old.in_memory(0, &(0..CHUNK)) {
            assert_eq!(bytes, first[..65_536]);
        }
        now.id() != old.id()
    })
    .await;
    assert_eq!(metrics.content.memory_bytes.get(), 0);
    assert_eq!(old.in_memory(0, &(0..CHUNK)), None);
    assert!(matches!(
        old.read(0, 0..CHUNK).await,
        Err(ReadError::Corrupt { index: 0, .. })
    ));
    let new = node.library.get("/a.bin").unwrap();
    for _ in 0..3 {
        assert_eq!(read(&new).await.unwrap(), second);
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_may_be_none() {
    for chunks in [0, 1, 3] {
        let dir = TempDir::new().unwrap();
        let most = chunks * u64::from(CHUNK);
        let node = Node::with(StoreConfig {
            memory: Some(most),
            ..config(&dir)
        });
        let [small, large] = [bytes(100_000, 43), bytes(500_000, 44)];
        let objects = [node.fill("/small", &small), node.fill("/large", &large)];
        let metrics = &node.metrics.content;
        for round in 0..12 {
            assert_eq!(read(&objects[0]).await.unwrap(), small);
            if round % 3 == 0 {
                assert_eq!(read(&objects[1]).await.unwrap(), large);
            }
            let used = metrics.memory_bytes.get();
            assert!((0..=most as i64).contains(&used), "{used} of {most}");
        }
        assert_eq!(metrics.from_memory.get() > 0, chunks > 0);
        assert!(metrics.from_disk.get() > 0);
        drop(objects);
        assert!(node.store.remove("/small").unwrap());
        assert!(node.store.remove("/large").unwrap());
        assert_eq!(metrics.memory_bytes.get(), 0);
    }
}

// Published directories.

#[tokio::test(flavor = "multi_thread")]
async fn published_directory_is_scanned_watched_and_found_below() {
    let (dir, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let at = |name: &str| content.path().join(name);
    fs::create_dir_all(at("sub/deep")).unwrap();
    fs::write(at("sub/page.html"), b"page").unwrap();
    fs::write(at("index.html"), b"home").unwrap();
    fs::write(at(".hidden"), b"secret").unwrap();
    fs::write(dir.path().join("outside"), b"outside").unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside"), at("out")).unwrap();
    std::os::unix::fs::symlink("sub/page.html", at("in")).unwrap();
    let node = Node::open(&dir);
    let stop = node.publish(content.path());
    let library = &node.library;
    // Found at once, scanned or not.
    let home = found(library, "/").await.unwrap();
    assert_eq!(read(&home).await.unwrap(), b"home");
    assert_eq!(home.small(headwater::time::Now::read()).unwrap(), "home");
    assert_eq!(home.manifest().media_type, "text/html; charset=utf-8");
    assert_eq!(home.role(), Role::Origin);
    assert_eq!(
        read(&found(library, "/in").await.unwrap()).await.unwrap(),
        b"page"
    );
    for absent in [
        "/.hidden",
        "/out",
        "/nothing",
        "/../x",
        "/sub/../index.html",
        "//",
        "/a\0b",
    ] {
        let entry = library.find(absent).await;
        assert!(matches!(entry, Entry::None), "{absent}: {entry:?}");
    }
    assert!(matches!(library.find("/sub").await, Entry::Directory));
    let Entry::Listing { items, .. } = library.find("/sub/").await else {
        panic!("no listing");
    };
    let names: Vec<_> = items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["deep/", "page.html"]);
    eventually("all are scanned", || library.list().len() == 3).await;
    // Watched.
    fs::write(at("sub/deep/new.txt"), b"new").unwrap();
    eventually("a new file is seen", || {
        library.get("/sub/deep/new.txt").is_some()
    })
    .await;
    fs::write(at("next"), b"other home").unwrap();
    fs::rename(at("next"), at("index.html")).unwrap();
    eventually("an edit is seen", || {
        let home = library.get("/index.html").unwrap();
        home.manifest().layout.size == 10 && library.get("/next").is_none()
    })
    .await;
    assert_eq!(
        read(&home).await.unwrap(),
        b"home",
        "readers finish on the old version"
    );
    fs::remove_dir_all(at("sub")).unwrap();
    eventually("removals are seen", || {
        let paths = library.list();
        paths
            .iter()
            .all(|object| !object.manifest().path.starts_with("/sub/"))
    })
    .await;
    assert!(library.get("/index.html").is_some());
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_is_seen_by_find_without_a_watch() {
    let (dir, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = content.path().join("a.txt");
    fs::write(&file, b"one").unwrap();
    let node = Node::open(&dir);
    let _not_running = node.publisher(content.path());
    assert_eq!(
        found(&node.library, "/a.txt")
            .await
            .unwrap()
            .manifest()
            .layout
            .size,
        3
    );
    fs::write(&file, b"three").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while found(&node.library, "/a.txt")
        .await
        .unwrap()
        .manifest()
        .layout
        .size
        != 5
    {
        assert!(Instant::now() < deadline, "the edit is never seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::remove_file(&file).unwrap();
    while found(&node.library, "/a.txt").await.is_some() {
        assert!(Instant::now() < deadline, "the removal is never seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrite_and_truncation_during_reads_never_mix_bytes() {
    let (dir, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = content.path().join("a.bin");
    let versions: Vec<_> = (20..24).map(|seed| bytes(400_000, seed)).collect();
    fs::write(&file, &versions[0]).unwrap();
    let node = Node::open(&dir);
    let stop = node.publish(content.path());
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (done, file) = (Arc::clone(&done), file.clone());
        let versions = versions.clone();
        std::thread::spawn(move || {
            for round in 0..40 {
                let version = &versions[round % versions.len()];
                let file = OpenOptions::new().write(true).open(&file).unwrap();
                for (at, part) in (0..).step_by(10_000).zip(version.chunks(10_000)) {
                    file.write_all_at(part, at).unwrap();
                }
                if round % 3 == 0 {
                    file.set_len(100_000).unwrap();
                    file.write_all_at(&version[100_000..], 100_000).unwrap();
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            done.store(true, Ordering::Release);
        })
    };
    let (mut good, mut refused) = (0, 0);
    while !done.load(Ordering::Acquire) {
        let Some(object) = found(&node.library, "/a.bin").await else {
            continue;
        };
        for index in 0..object.manifest().layout.count() {
            let len = object.manifest().layout.len(index);
            match object.read(index, 0..len).await {
                Ok(bytes) => {
                    let digest = object.manifest().chunks[index as usize];
                    assert_eq!(
                        Digest::of(&bytes),
                        digest,
                        "chunk {index} is not the manifest's"
                    );
                    good += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    writer.join().unwrap();
    assert!(good > 0, "{good} reads, {refused} refused");
    eventually("the last bytes are published", || {
        let object = node.library.get("/a.bin").unwrap();
        let last = &versions[39 % versions.len()];
        object.manifest().chunks == manifest("/a.bin", last).chunks
    })
    .await;
    let object = node.library.get("/a.bin").unwrap();
    assert_eq!(read(&object).await.unwrap(), versions[39 % versions.len()]);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_does_not_digest_published_files_again() {
    let (dir, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["a", "b", "c"] {
        fs::write(content.path().join(name), bytes(100_000, 30)).unwrap();
    }
    let mut hashed = Vec::new();
    for _ in 0..2 {
        let node = Node::open(&dir);
        let stop = node.publish(content.path());
        eventually("all are published", || node.library.list().len() == 3).await;
        let metrics = &node.metrics.content;
        hashed.push((
            metrics.published_hashed.get(),
            metrics.published_remembered.get(),
        ));
        assert_eq!(metrics.origin_objects.get(), 3);
        let object = node.library.get("/a").unwrap();
        assert_eq!(read(&object).await.unwrap(), bytes(100_000, 30));
        stop.cancel();
    }
    assert_eq!(hashed, [(3, 0), (0, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn published_wins_over_mirrored_at_one_path() {
    let (dir, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let node = Node::open(&dir);
    node.fill("/a", b"mirrored");
    fs::write(content.path().join("a"), b"published").unwrap();
    let stop = node.publish(content.path());
    eventually("it is published", || {
        node.library.get("/a").unwrap().role() == Role::Origin
    })
    .await;
    fs::remove_file(content.path().join("a")).unwrap();
    eventually("the mirrored one is left", || {
        node.library.get("/a").unwrap().role() == Role::Mirror
    })
    .await;
    stop.cancel();
}
