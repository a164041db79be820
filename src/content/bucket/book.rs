//! What is known of the objects of one bucket, over restarts.
//!
//! One small file for each object, named by the digest of its path: the tag of the version that was read through, its
//! manifest, and the digest of both. Written to a temporary name and renamed; not synced, since one that is lost or damaged
//! only costs a reading of the object. The manifests stay on disk until somebody asks for one; in memory are path,
//! tag and digest, some 250 bytes for an object. The directory is named by the bucket and its prefix, so another
//! bucket at the same prefix begins with an empty book.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::catalogue::Listed;
use super::super::chunk::Digest;
use super::super::disk::Disk;
use super::super::manifest::{Manifest, Reader};
use super::BucketConfig;
use super::listing::Tag;

/// The objects of a bucket that were read through.
#[derive(Debug)]
pub struct Book {
    prefix: String,
    index: String,
    listing: bool,
    dir: PathBuf,
    disk: Disk,
    pages: Mutex<Pages>,
    /// Everything that was there when the bucket was first listed was read through once.
    read: AtomicBool,
}

#[derive(Debug, Default)]
struct Pages {
    by_path: BTreeMap<String, Known>,
    by_id: HashMap<Digest, String>,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The version that was read through.
    pub tag: Tag,
    /// Its manifest's digest.
    pub id: Digest,
    /// Last modification, Unix seconds.
    pub modified: u64,
}

/// A name in a directory of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; that of a directory ends with `/`.
    pub name: String,
    /// Size and last modification (Unix seconds) of an object.
    pub object: Option<(u64, u64)>,
}

impl Book {
    /// Takes up what was known before, for objects in chunks of `chunk` bytes, below the store's directory. What is
    /// damaged, or of another chunk size, is left out and read through again. Blocking.
    ///
    /// # Errors
    /// The directory and what the kernel said.
    pub fn open(config: &BucketConfig, store: &Path, disk: &Disk, chunk: u32) -> io::Result<Self> {
        let endpoint = config.endpoint.as_deref().unwrap_or_default();
        let what = format!("{endpoint}\0{}\0{}", config.name(), config.prefix);
        let name = Digest::of(what.as_bytes()).to_string();
        let dir = store.join("buckets").join(name);
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
        disk.make_directories(&dir).map_err(at)?;
        let mut pages = Pages::default();
        for file in disk.list(&dir).map_err(at)? {
            let kept = disk.read(&file).ok();
            let kept = kept.as_deref().and_then(decode);
            match kept.filter(|(_, m)| m.layout.chunk == chunk && file.ends_with(name_of(&m.path)))
            {
                Some((tag, manifest)) => pages.put(&manifest, tag),
                // What a crash left; if it stays, it is found again at the next start.
                None => drop(disk.remove(&file)),
            }
        }
        Ok(Self {
            prefix: config.prefix.clone(),
            index: config.index.clone(),
            listing: config.listing,
            dir,
            disk: disk.clone(),
            pages: Mutex::new(pages),
            read: AtomicBool::new(false),
        })
    }

    /// The prefix it is published at.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The file that stands for a directory; empty: none.
    #[must_use]
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Whether everything that was there when the bucket was first listed was read through.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.read.load(Ordering::Acquire)
    }

    /// From now on what is not in the book is not in the bucket; whether that is news.
    pub fn set_read(&self) -> bool {
        !self.read.swap(true, Ordering::AcqRel)
    }

    /// Notes an object that was read through. Blocking.
    ///
    /// # Errors
    /// What the kernel said; then it is known until the process ends.
    pub fn put(&self, manifest: &Manifest, tag: Tag) -> io::Result<()> {
        let encoded = encode(&tag, manifest);
        self.pages().put(manifest, tag);
        self.disk
            .replace(&self.dir.join(name_of(&manifest.path)), &encoded)
    }

    /// Forgets an object that is gone; its file goes with [`Book::sweep`].
    pub fn forget(&self, path: &str) {
        self.pages().remove(path);
    }

    /// Removes the file of a path that is forgotten. Blocking.
    pub fn sweep(&self, path: &str) {
        if self.known(path).is_none() {
            // If the file stays, the next listing after a start finds that its object is gone.
            drop(self.disk.remove(&self.dir.join(name_of(path))));
        }
    }

    /// Whether it has this path.
    #[must_use]
    pub fn known(&self, path: &str) -> Option<Known> {
        self.pages().by_path.get(path).cloned()
    }

    /// The path of the object with this manifest.
    #[must_use]
    pub fn path_of(&self, id: Digest) -> Option<String> {
        self.pages().by_id.get(&id).cloned()
    }

    /// The manifest of an object, read from disk. Blocking.
    #[must_use]
    pub fn manifest(&self, path: &str) -> Option<(Tag, Manifest)> {
        let (tag, manifest) = decode(&self.disk.read(&self.dir.join(name_of(path))).ok()?)?;
        let known = self.known(path)?;
        (known.tag == tag && known.id == manifest.digest()).then_some((tag, manifest))
    }

    /// Versions of all objects, by path.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, Tag> {
        let pages = self.pages();
        let tags = pages.by_path.iter();
        tags.map(|(path, known)| (path.clone(), known.tag.clone()))
            .collect()
    }

    /// Objects known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages().by_path.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects whose paths begin with `prefix`, by path.
    #[must_use]
    pub fn listed(&self, prefix: &str) -> Vec<Listed> {
        let pages = self.pages();
        pages
            .beneath(prefix)
            .map(|(path, known)| Listed {
                path: path.clone(),
                size: known.tag.size,
                manifest: known.id,
            })
            .collect()
    }

    /// Whether objects lie beneath `dir`, a path with its final `/`.
    #[must_use]
    pub fn has_directory(&self, dir: &str) -> bool {
        self.pages().beneath(dir).next().is_some()
    }

    /// The names in `dir` (a path with its final `/`), at most `most`, in their order; `None`: it is not to be listed, or
    /// there is no such directory.
    #[must_use]
    pub fn entries(&self, dir: &str, most: usize) -> Option<Vec<Entry>> {
        if !self.listing {
            return None;
        }
        let pages = self.pages();
        let mut entries: Vec<Entry> = Vec::new();
        for (path, known) in pages.beneath(dir) {
            let inner = &path[dir.len()..];
            let entry = match inner.split_once('/') {
                Some((name, _)) => Entry {
                    name: format!("{name}/"),
                    object: None,
                },
                None => Entry {
                    name: inner.to_owned(),
                    object: Some((known.tag.size, known.modified)),
                },
            };
            if entries.last().is_some_and(|last| last.name == entry.name) {
                continue;
            }
            if entries.len() == most {
                break;
            }
            entries.push(entry);
        }
        (!entries.is_empty()).then_some(entries)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn put(&mut self, manifest: &Manifest, tag: Tag) {
        self.remove(&manifest.path);
        let id = manifest.digest();
        self.by_id.insert(id, manifest.path.clone());
        let modified = manifest.modified;
        self.by_path
            .insert(manifest.path.clone(), Known { tag, id, modified });
    }

    fn remove(&mut self, path: &str) {
        if let Some(known) = self.by_path.remove(path) {
            self.by_id.remove(&known.id);
        }
    }

    fn beneath(&self, prefix: &str) -> impl Iterator<Item = (&String, &Known)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let range = self.by_path.range::<str, _>(from);
        range.take_while(move |(path, _)| path.starts_with(prefix))
    }
}

fn name_of(path: &str) -> String {
    Digest::of(path.as_bytes()).to_string()
}

/// Digest of the rest; length and bytes of the entity tag (none: 0); last modification; manifest.
fn encode(tag: &Tag, manifest: &Manifest) -> Vec<u8> {
    let etag = tag.etag.as_deref().unwrap_or_default();
    let mut rest = Vec::new();
    rest.extend_from_slice(&u16::try_from(etag.len()).unwrap_or(0).to_le_bytes());
    rest.extend_from_slice(etag.as_bytes());
    rest.extend_from_slice(&tag.modified_ms.to_le_bytes());
    rest.extend_from_slice(&manifest.encode());
    let mut bytes = Digest::of(&rest).0.to_vec();
    bytes.extend_from_slice(&rest);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Tag, Manifest)> {
    let (digest, rest) = bytes.split_first_chunk::<32>()?;
    if Digest::of(rest) != Digest(*digest) {
        return None;
    }
    let mut rest = Reader(rest);
    let etag = rest.text("entity tag").ok()?;
    let modified_ms = i64::from_le_bytes(rest.array("last modification").ok()?);
    let manifest = Manifest::decode(rest.0).ok()?;
    let tag = Tag {
        etag: (!etag.is_empty()).then_some(etag),
        size: manifest.layout.size,
        modified_ms,
    };
    Some((tag, manifest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::super::chunk::Layout;
    use super::*;

    fn config() -> BucketConfig {
        BucketConfig {
            prefix: "/m/".into(),
            bucket: "b".into(),
            beneath: String::new(),
            endpoint: None,
            region: None,
            anonymous: true,
            virtual_host: false,
            index: "index.html".into(),
            listing: true,
            interval: Duration::from_secs(1),
            objects: 10,
            reads: 1,
            in_flight: 1,
            silence: Duration::from_secs(1),
        }
    }

    fn manifest(path: &str) -> Manifest {
        Manifest {
            path: path.into(),
            layout: Layout {
                size: 3,
                chunk: 65_536,
            },
            media_type: "text/plain".into(),
            modified: 7,
            sha256: [1; 32],
            chunks: vec![Digest([2; 32])],
        }
    }

    fn tag(etag: Option<&str>) -> Tag {
        Tag {
            etag: etag.map(str::to_owned),
            size: 3,
            modified_ms: 7_001,
        }
    }

    fn open(dir: &Path, chunk: u32) -> Book {
        Book::open(&config(), dir, &Disk::default(), chunk).expect("a directory")
    }

    #[test]
    fn book_is_the_same_after_a_restart_without_what_is_gone_or_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path(), 65_536);
        for (path, etag) in [("/m/a", Some("\"1\"")), ("/m/b", None), ("/m/c", None)] {
            book.put(&manifest(path), tag(etag)).unwrap();
        }
        book.forget("/m/b");
        book.sweep("/m/b");
        let damaged = book.dir.join(name_of("/m/c"));
        let mut bytes = fs::read(&damaged).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&damaged, bytes).unwrap();
        fs::write(book.dir.join("left.new"), b"by a crash").unwrap();
        drop(book);
        let book = open(dir.path(), 65_536);
        assert_eq!(book.tags().into_keys().collect::<Vec<_>>(), ["/m/a"]);
        let (found, read) = book.manifest("/m/a").unwrap();
        assert_eq!((found, read), (tag(Some("\"1\"")), manifest("/m/a")));
        assert_eq!(
            book.path_of(manifest("/m/a").digest()).as_deref(),
            Some("/m/a")
        );
        assert_eq!(fs::read_dir(&book.dir).unwrap().count(), 1);
        assert!(
            open(dir.path(), 131_072).is_empty(),
            "of another chunk size"
        );
    }

    #[test]
    fn book_with_a_newer_version_forgets_the_older() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path(), 65_536);
        let newer = Manifest {
            modified: 8,
            ..manifest("/m/a")
        };
        book.put(&manifest("/m/a"), tag(Some("1"))).unwrap();
        book.put(&newer, tag(Some("2"))).unwrap();
        assert_eq!(book.path_of(manifest("/m/a").digest()), None);
        assert_eq!(book.manifest("/m/a").unwrap().1, newer);
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn entries_of_a_directory_are_its_names_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path(), 65_536);
        for path in ["/m/a", "/m/d/x", "/m/d/y/z", "/m/e"] {
            book.put(&manifest(path), tag(None)).unwrap();
        }
        let names = |dir: &str, most| {
            let entries = book.entries(dir, most)?;
            Some(entries.into_iter().map(|e| e.name).collect::<Vec<_>>())
        };
        assert_eq!(names("/m/", 9).unwrap(), ["a", "d/", "e"]);
        assert_eq!(names("/m/", 2).unwrap(), ["a", "d/"]);
        assert_eq!(names("/m/d/", 9).unwrap(), ["x", "y/"]);
        assert_eq!(names("/m/x/", 9), None);
        assert!(book.has_directory("/m/d/") && !book.has_directory("/m/a/"));
    }
}
