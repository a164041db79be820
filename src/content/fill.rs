//! The filling of one mirrored object: which chunks are held, on disk and in memory, and who waits for which.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::fs::OFlags;
use tokio::sync::Notify;

use super::disk::Disk;
use super::file::Place;
use super::have::Have;
use super::heat::Heat;
use super::object::Object;

/// What a mirrored object has beyond a published one.
#[derive(Debug)]
pub(super) struct Fill {
    /// As the words of [`Have`]; read without the lock, changed under it.
    words: Box<[AtomicU64]>,
    held: AtomicU32,
    count: u32,
    record: Mutex<Record>,
    wants: Mutex<Vec<Want>>,
    asked: Notify,
    keeper: Weak<dyn Keeper>,
    disk: Disk,
    /// What keeps it here.
    pub(super) heat: Heat,
    /// It stays at another node when it is dropped here, as far as is known.
    pub(super) elsewhere: AtomicBool,
    /// Chunks that were found wrong on disk and did not come again yet.
    quarantined: Mutex<BTreeSet<u32>>,
    /// Where its files lie since it was removed.
    doomed: OnceLock<PathBuf>,
}

/// The `have` file; open from the first change until the object is whole.
#[derive(Debug)]
struct Record {
    place: Place,
    file: Option<Arc<File>>,
    /// Bytes of chunks written since data and record were made durable.
    unsynced: u64,
}

/// A chunk readers wait for.
#[derive(Debug)]
struct Want {
    index: u32,
    readers: usize,
    held: Arc<Notify>,
}

/// One reader's wait, ended on drop.
struct Waiter<'a> {
    fill: &'a Fill,
    index: u32,
    held: Arc<Notify>,
}

/// What a chunk changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marked {
    /// It was the last that was missing.
    pub(super) whole: bool,
    /// So much was written that data and record should be made durable now.
    pub(super) sync: bool,
}

/// The store, as an object sees it.
pub(super) trait Keeper: std::fmt::Debug + Send + Sync {
    /// The object has just become whole and durable.
    fn whole(&self, object: &Arc<Object>);

    /// A chunk of the object at `path` was found wrong and is missing now.
    fn dropped(&self, path: &str);

    /// The last reader of a removed object is gone: its files, which lie in `dir` now, may go.
    fn released(&self, dir: &Path, size: u64);
}

impl Fill {
    pub(super) fn new(
        have: &Have,
        record: Place,
        keeper: Weak<dyn Keeper>,
        disk: Disk,
        heat: Heat,
    ) -> Self {
        Self {
            words: have.words().iter().map(|&w| AtomicU64::new(w)).collect(),
            held: AtomicU32::new(have.held()),
            count: have.count(),
            record: Mutex::new(Record {
                place: record,
                file: None,
                unsynced: 0,
            }),
            wants: Mutex::default(),
            asked: Notify::new(),
            keeper,
            disk,
            heat,
            elsewhere: AtomicBool::new(false),
            quarantined: Mutex::default(),
            doomed: OnceLock::new(),
        }
    }

    pub(super) fn have(&self) -> Have {
        let words = self.words.iter().map(|w| w.load(Ordering::Acquire));
        Have::from_words(words.collect(), self.count)
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.words
            .get(index as usize / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (index % 64) & 1 == 1)
    }

    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn complete(&self) -> bool {
        self.held() == self.count
    }

    /// The chunk's bytes are in the file: says so in the record, then to whoever asks or waits.
    pub(super) fn insert(&self, index: u32, len: u32) -> io::Result<Marked> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !self.contains(index);
        self.put(&*record.open(&self.disk)?, index, true)?;
        if new {
            self.held.fetch_add(1, Ordering::AcqRel);
        }
        record.unsynced += u64::from(len);
        let whole = new && self.complete();
        let sync = whole || record.unsynced >= SYNC;
        if sync {
            record.unsynced = 0;
        }
        drop(record);
        self.wake(index);
        Ok(Marked { whole, sync })
    }

    /// The chunk's bytes are wrong: it is not held any more. Whether it was.
    pub(super) fn remove(&self, index: u32) -> io::Result<bool> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.contains(index);
        if held {
            // The memory first: even if the record cannot be written, nobody is given this chunk.
            let word = &self.words[index as usize / 64];
            word.fetch_and(!(1 << (index % 64)), Ordering::AcqRel);
            self.held.fetch_sub(1, Ordering::AcqRel);
            self.asked.notify_one();
            self.put(&*record.open(&self.disk)?, index, false)?;
        }
        Ok(held)
    }

    /// Writes the one byte of the record that `index` stands in, then the word in memory.
    fn put(&self, file: &File, index: u32, held: bool) -> io::Result<()> {
        let word = &self.words[index as usize / 64];
        let bit = 1 << (index % 64);
        let old = word.load(Ordering::Acquire);
        let new = if held { old | bit } else { old & !bit };
        let byte = new.to_le_bytes()[index as usize / 8 % 8];
        self.disk.write_at(file, &[byte], u64::from(index / 8))?;
        word.store(new, Ordering::Release);
        Ok(())
    }

    /// Makes `data`, then the record durable. Blocking.
    pub(super) fn sync(&self, data: &File) -> io::Result<()> {
        let record = {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            record.unsynced = 0;
            let file = record.open(&self.disk)?;
            if self.complete() {
                record.file = None; // Thousands of whole objects need no file each.
            }
            file
        };
        self.disk.sync_data(data)?;
        self.disk.sync_data(&*record)
    }

    /// Whether something was written since the last sync.
    pub(super) fn unsynced(&self) -> bool {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.unsynced > 0
    }

    /// Waits until chunk `index` is held, and says so to the schedule meanwhile.
    pub(super) async fn wanted(&self, index: u32) {
        if index >= self.count || self.contains(index) {
            return;
        }
        let waiter = self.wait(index);
        loop {
            let held = waiter.held.notified();
            tokio::pin!(held);
            held.as_mut().enable(); // From here on no wake is missed.
            if self.contains(index) {
                return;
            }
            held.await;
        }
    }

    fn wait(&self, index: u32) -> Waiter<'_> {
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        let held = match wants.iter_mut().find(|want| want.index == index) {
            Some(want) => {
                want.readers += 1;
                Arc::clone(&want.held)
            }
            None => {
                let held = Arc::new(Notify::new());
                wants.push(Want {
                    index,
                    readers: 1,
                    held: Arc::clone(&held),
                });
                held
            }
        };
        drop(wants);
        self.asked.notify_one();
        Waiter {
            fill: self,
            index,
            held,
        }
    }

    /// Chunks readers wait for, the longest wait first.
    pub(super) fn wants(&self) -> Vec<u32> {
        let wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |index: &u32| !self.contains(*index);
        wants
            .iter()
            .map(|want| want.index)
            .filter(missing)
            .collect()
    }

    /// Waits until a reader wants a chunk, or a held one was dropped. One waiter. Cancel-safe.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    fn wake(&self, index: u32) {
        let wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(want) = wants.iter().find(|want| want.index == index) {
            want.held.notify_waiters();
        }
    }

    /// Chunk `index` was wrong on disk.
    pub(super) fn quarantine(&self, index: u32) {
        let mut chunks = self
            .quarantined
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        chunks.insert(index);
    }

    /// Chunk `index` is on disk again; whether it had been wrong there.
    pub(super) fn mended(&self, index: u32) -> bool {
        let mut chunks = self
            .quarantined
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        chunks.remove(&index)
    }

    /// Chunks that were wrong on disk and did not come again.
    pub(super) fn quarantined(&self) -> usize {
        let chunks = self
            .quarantined
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        chunks.len()
    }

    pub(super) fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        self.keeper.upgrade()
    }

    /// The object was removed or replaced: its files, which lie in `dir` now, go with its last reader.
    pub(super) fn doom(&self, dir: PathBuf) {
        // Whoever was first has moved the files.
        drop(self.doomed.set(dir));
    }

    pub(super) fn doomed(&self) -> Option<&Path> {
        self.doomed.get().map(PathBuf::as_path)
    }
}

impl Record {
    fn open(&mut self, disk: &Disk) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(disk.open(&self.place, OFlags::RDWR)?);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut wants = self
            .fill
            .wants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = wants.iter().position(|want| want.index == self.index) {
            wants[at].readers -= 1;
            if wants[at].readers == 0 {
                wants.remove(at);
            }
        }
    }
}

/// Bytes of chunks between two syncs: what a power loss may lose of an open transfer.
const SYNC: u64 = 64 << 20;
