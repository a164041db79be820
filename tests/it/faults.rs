//! Every file operation of the store made to fail, one after the other: what a path had before it, or what it was to
//! get, is there afterwards, and nothing else.
//!
//! One cycle evicts an object, replaces another by its next version and publishes a changed file. It is
//! run once for every operation in it and every way this one may fail. A crash is: from this operation on none takes
//! place, and another process opens what is there.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater::content::chunk::{Digest, Layout};
use headwater::content::disk::{Disk, Fault, Faults, Operation};
use headwater::content::library::{Entry, Library};
use headwater::content::manifest::Manifest;
use headwater::content::object::Object;
use headwater::content::publish::Publisher;
use headwater::content::store::Store;
use headwater::content::{PublishConfig, StoreConfig};
use headwater::metrics::Metrics;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CHUNK: u32 = 64 << 10;

/// Bytes the store may have: both versions, and not what is to be evicted.
const SIZE: u64 = 182_000;

/// How the operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Once, with this error.
    Once(io::ErrorKind),
    /// It and all after it; half of it is done if `half`.
    Crash { half: bool },
}

/// Fails the operation with number `at`.
#[derive(Debug)]
struct Nth {
    way: Way,
    at: usize,
    seen: AtomicUsize,
}

impl Faults for Nth {
    fn before(&self, operation: Operation) -> Result<(), Fault> {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        let (fails, kind, half) = match self.way {
            Way::Once(kind) => (seen == self.at, kind, false),
            Way::Crash { half } => (
                seen >= self.at,
                io::ErrorKind::Other,
                half && seen == self.at,
            ),
        };
        if !fails {
            return Ok(());
        }
        let error = io::Error::new(kind, format!("{operation:?} fails, as the test wants it"));
        Err(Fault { error, half })
    }
}

/// One process: a store, and a published directory beside it.
struct Process {
    library: Library,
    store: Store,
    _publisher: Publisher,
}

impl Process {
    fn open(dir: &Path, size: u64, disk: Disk) -> io::Result<Self> {
        let config = StoreConfig {
            chunk: CHUNK,
            memory: Some(0),
            small_object: 0,
            disk,
            size,
            ..StoreConfig::new(dir.join("store"))
        };
        let metrics = Arc::new(Metrics::new());
        let library = Library::new(&config, Arc::clone(&metrics));
        let store = Store::open(&config, &library, Arc::clone(&metrics))?;
        let publish = PublishConfig {
            prefix: "/published/".into(),
            dir: dir.join("content"),
            index: String::new(),
            listing: false,
        };
        let publisher = Publisher::new(vec![publish], &config, library.clone(), metrics)?;
        Ok(Self {
            library,
            store,
            _publisher: publisher,
        })
    }

    /// As the mirror's task does it: gives up at the first error, and is called again later.
    fn fill(&self, path: &str, bytes: &[u8]) -> bool {
        let Ok(object) = self.store.begin(manifest(path, bytes)) else {
            return false;
        };
        let mut chunks = (0..).zip(bytes.chunks(CHUNK as usize));
        chunks.all(|(index, chunk)| object.write(index, chunk).is_ok())
    }

    fn find(&self, runtime: &Runtime, path: &str) -> Option<Arc<Object>> {
        match runtime.block_on(self.library.find(path)) {
            Entry::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The bytes at `path`, whoever is asked; `None` if nothing stands there.
    fn bytes(&self, runtime: &Runtime, path: &str) -> Option<Vec<u8>> {
        let object = self.find(runtime, path)?;
        let layout = object.manifest().layout;
        let mut all = Vec::new();
        for index in 0..layout.count() {
            // A fault is one failed read; a reader that asks again is served.
            let within = 0..layout.len(index);
            let read = object
                .read_blocking(index, within.clone())
                .or_else(|_| object.read_blocking(index, within));
            all.extend_from_slice(&read.expect("what is offered can be read"));
        }
        Some(all)
    }
}

/// What the paths of the cycle had, and are to get.
struct Story {
    mirrored: [Vec<u8>; 2],
    published: [Vec<u8>; 2],
    leaving: Vec<u8>,
}

impl Story {
    fn new() -> Self {
        Self {
            mirrored: [noise(100_000, 1), noise(80_000, 2)],
            published: [noise(70_000, 3), noise(100_000, 4)],
            leaving: noise(90_000, 5),
        }
    }

    fn prepare(&self, dir: &Path, runtime: &Runtime) {
        let content = dir.join("content");
        fs::create_dir(&content).expect("a directory");
        fs::write(content.join("p"), &self.published[0]).expect("written");
        let before = Process::open(dir, 1 << 20, Disk::default()).expect("a store");
        assert!(before.fill("/m", &self.mirrored[0]));
        assert!(before.fill("/leaving", &self.leaving));
        assert!(before.find(runtime, "/published/p").is_some());
        drop(before);
        fs::write(content.join("next"), &self.published[1]).expect("written");
        fs::rename(content.join("next"), content.join("p")).expect("renamed");
    }

    fn cycle(&self, process: &Process, runtime: &Runtime) {
        if let Some(leaving) = process.library.get("/leaving") {
            leaving.set_elsewhere(true);
        }
        process.store.trim();
        process.fill("/m", &self.mirrored[1]);
        drop(process.find(runtime, "/published/p"));
    }

    /// Old or new, and `done`: new.
    #[track_caller]
    fn check(&self, process: &Process, runtime: &Runtime, done: bool, case: &str) {
        let mirrored = process.bytes(runtime, "/m");
        let mirrored = mirrored.unwrap_or_else(|| panic!("{case}: neither version is there"));
        let new = mirrored == self.mirrored[1];
        assert!(new || mirrored == self.mirrored[0], "{case}: wrong bytes");
        let leaving = process.bytes(runtime, "/leaving").unwrap_or_default();
        let stays = leaving == self.leaving;
        assert!(stays || leaving.is_empty(), "{case}: wrong bytes");
        // Its file was replaced before the cycle: the new one is found sooner or later, never another.
        let published = process.bytes(runtime, "/published/p");
        let published = published.or_else(|| process.bytes(runtime, "/published/p"));
        assert!(
            published.as_ref() == Some(&self.published[1]),
            "{case}: published"
        );
        if done {
            assert!(new, "{case}: not replaced");
            // It fits beside the new version, if that is where a start finds it.
            let used = 80_000 + leaving.len() as u64;
            assert_eq!(process.store.used(), used, "{case}: bytes counted");
        }
    }
}

/// Runs the cycle with its `at`-th operation failing; whether there was one.
fn check(way: Way, at: usize, runtime: &Runtime) -> bool {
    let case = format!("{way:?} at {at}");
    let story = Story::new();
    let dir = directory();
    story.prepare(dir.path(), runtime);
    let faults = Arc::new(Nth {
        way,
        at,
        seen: AtomicUsize::new(0),
    });
    let disk = Disk::with_faults(faults.clone());
    if let Ok(process) = Process::open(dir.path(), SIZE, disk) {
        story.cycle(&process, runtime);
        if let Way::Once(_) = way {
            story.check(&process, runtime, false, &case);
            story.cycle(&process, runtime);
            story.check(&process, runtime, true, &case);
        }
    }
    let process = Process::open(dir.path(), SIZE, Disk::default()).expect("it can be opened again");
    story.check(&process, runtime, false, &format!("{case}, opened again"));
    story.cycle(&process, runtime);
    story.check(&process, runtime, true, &format!("{case}, done again"));
    faults.seen.load(Ordering::Relaxed) > at
}

fn check_every(way: Way) {
    let runtime = Runtime::new().expect("a runtime");
    let mut at = 0;
    while check(way, at, &runtime) {
        at += 1;
        assert!(at < 10_000, "the cycle does not end");
    }
    println!("{way:?}: {at} operations");
    assert!(at > 35, "only {at} operations were seen");
}

#[test]
fn failed_operation_leaves_the_old_version_or_the_new_one() {
    check_every(Way::Once(io::ErrorKind::Other));
}

#[test]
fn full_disk_at_any_operation_leaves_the_old_version_or_the_new_one() {
    check_every(Way::Once(io::ErrorKind::StorageFull));
}

#[test]
fn crash_before_any_operation_leaves_the_old_version_or_the_new_one() {
    check_every(Way::Crash { half: false });
}

#[test]
fn crash_in_the_middle_of_any_operation_leaves_the_old_version_or_the_new_one() {
    check_every(Way::Crash { half: true });
}

/// In memory if there is such a place: the cycle syncs some ten thousand times.
fn directory() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| TempDir::new()).expect("a directory")
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

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
