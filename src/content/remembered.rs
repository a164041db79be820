//! Digests of published files, remembered across a restart.
//!
//! One small file for each published file, named by the digest of directory and path: its stamp, the file's
//! manifest, and the digest of both. Written to a temporary name and renamed; not synced, since one that is lost or
//! damaged only costs a reading of the file. A file is remembered once its stamp is settled.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::chunk::Digest;
use super::disk::Disk;
use super::file::Stamp;
use super::manifest::Manifest;

/// The directory of remembered manifests.
#[derive(Debug)]
pub(super) struct Remembered {
    dir: PathBuf,
    disk: Disk,
}

impl Remembered {
    /// Below the store's directory; made if it is not there.
    pub(super) fn open(store: &Path, disk: &Disk) -> io::Result<Self> {
        let dir = store.join("published");
        disk.make_directories(&dir)?;
        let disk = disk.clone();
        Ok(Self { dir, disk })
    }

    /// The manifest of the file at `path` of directory `root`, if it is remembered with this stamp and chunk size.
    pub(super) fn recall(
        &self,
        root: &Path,
        path: &str,
        stamp: Stamp,
        chunk: u32,
    ) -> Option<Manifest> {
        let bytes = self.disk.read(&self.dir.join(name(root, path))).ok()?;
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        if Digest::of(rest) != Digest(*digest) {
            return None;
        }
        let manifest = Manifest::decode(rest.strip_prefix(&encode(stamp))?).ok()?;
        let fits = manifest.path == path
            && manifest.layout.chunk == chunk
            && manifest.layout.size == stamp.size;
        fits.then_some(manifest)
    }

    pub(super) fn remember(
        &self,
        root: &Path,
        stamp: Stamp,
        manifest: &Manifest,
    ) -> io::Result<()> {
        let mut rest = encode(stamp).to_vec();
        rest.extend_from_slice(&manifest.encode());
        let mut bytes = Digest::of(&rest).0.to_vec();
        bytes.extend_from_slice(&rest);
        let file = self.dir.join(name(root, &manifest.path));
        self.disk.replace(&file, &bytes)
    }

    pub(super) fn forget(&self, root: &Path, path: &str) {
        // If it stays, it is swept after the next scan.
        drop(self.disk.remove(&self.dir.join(name(root, path))));
    }

    /// Removes what is not of one of `published` (directory and path), also temporary files of a crash.
    pub(super) fn sweep<'a>(
        &self,
        published: impl Iterator<Item = (&'a Path, &'a str)>,
    ) -> io::Result<()> {
        let names: HashSet<String> = published.map(|(root, path)| name(root, path)).collect();
        for path in self.disk.list(&self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(|name| names.contains(name)) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }
}

fn name(root: &Path, path: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(root.as_os_str().as_encoded_bytes());
    hasher.update(b"\0"); // Neither part contains it.
    hasher.update(path.as_bytes());
    Digest(*hasher.finalize().as_bytes()).to_string()
}

fn encode(stamp: Stamp) -> [u8; 40] {
    let fields = [
        stamp.dev,
        stamp.ino,
        stamp.size,
        stamp.modified_ns.cast_unsigned(),
        stamp.changed_ns.cast_unsigned(),
    ];
    let mut bytes = [0; 40];
    for (place, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
        *place = field.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::chunk::Layout;
    use super::*;

    const STAMP: Stamp = Stamp {
        dev: 1,
        ino: 2,
        size: 3,
        modified_ns: -4,
        changed_ns: 5,
    };

    fn sample() -> Manifest {
        Manifest {
            path: "/a".into(),
            layout: Layout {
                size: 3,
                chunk: 65_536,
            },
            media_type: "text/plain".into(),
            modified: 0,
            sha256: [1; 32],
            chunks: vec![Digest([2; 32])],
        }
    }

    /// Remembers the sample, lets `change` at the files, and recalls it with `stamp`.
    #[track_caller]
    fn check(stamp: Stamp, change: impl FnOnce(&Path), expected: Option<&Manifest>) {
        let dir = tempfile::tempdir().expect("a directory");
        let remembered = Remembered::open(dir.path(), &Disk::default()).expect("a directory");
        remembered
            .remember(Path::new("/x"), STAMP, &sample())
            .expect("written");
        change(&remembered.dir.join(name(Path::new("/x"), "/a")));
        let found = remembered.recall(Path::new("/x"), "/a", stamp, 65_536);
        assert_eq!(found.as_ref(), expected);
    }

    #[test]
    fn recall_same_stamp_is_the_manifest() {
        check(STAMP, |_| (), Some(&sample()));
    }

    #[test]
    fn recall_other_stamp_is_nothing() {
        let later = Stamp {
            changed_ns: 6,
            ..STAMP
        };
        check(later, |_| (), None);
    }

    #[test]
    fn recall_damaged_file_is_nothing() {
        check(
            STAMP,
            |file| fs::write(file, b"short").expect("written"),
            None,
        );
        let flip = |file: &Path| {
            let mut bytes = fs::read(file).expect("read");
            *bytes.last_mut().expect("not empty") ^= 1;
            fs::write(file, bytes).expect("written");
        };
        check(STAMP, flip, None);
    }

    #[test]
    fn sweep_keeps_what_is_published() {
        let sweep = |file: &Path| {
            let dir = file.parent().and_then(Path::parent).expect("two levels");
            let remembered = Remembered::open(dir, &Disk::default()).expect("a directory");
            fs::write(file.with_extension("new"), b"left by a crash").expect("written");
            let published = [(Path::new("/x"), "/a")];
            remembered.sweep(published.into_iter()).expect("swept");
            assert_eq!(fs::read_dir(&remembered.dir).expect("listed").count(), 1);
        };
        check(STAMP, sweep, Some(&sample()));
    }
}
