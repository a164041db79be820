//! Opening a store: what a stop or a crash left is taken up, or swept.
//!
//! An object is read by its manifest and its `have` record and no more: its data is opened when somebody reads it.
//! Several threads read, since each file costs the same few waits, and the library takes all objects at once. So a
//! store of 100,000 objects is open within a second or two.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::OFlags;

use super::{DATA, HAVE, Inner, MANIFEST};
use crate::content::chunk::Digest;
use crate::content::file::{Place, Stamp};
use crate::content::have::Have;
use crate::content::manifest::{Manifest, SIZE_MAX};
use crate::content::object::Object;
use crate::content::sign::Seal;

/// Why a directory is no object.
enum Unusable {
    /// It never was one, or is damaged: a crash left it.
    Broken(String),
    /// It could not be read; it may be whole.
    Unread(io::Error),
}

impl Inner {
    /// Puts what is whole or well begun into the library and sweeps the rest, with up to `threads` threads.
    ///
    /// # Errors
    /// What the kernel said about the directories themselves. An object that cannot be read is left where it is.
    pub(super) fn recover(self: &Arc<Self>, threads: usize) -> io::Result<()> {
        for path in self.disk.list(&self.removed)? {
            self.sweep(&path, "removed before");
        }
        for path in self.disk.list(&self.incoming)? {
            self.sweep(&path, "not whole");
        }
        let dirs = self.disk.list(&self.objects)?;
        let threads = threads.min(dirs.len() / FEW + 1);
        let next = AtomicUsize::new(0);
        let scan = || {
            let mut found = Vec::new();
            while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.extend(self.take_up(dir));
            }
            found
        };
        let mut found = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(scan)).collect();
            let mut found = scan();
            for other in others {
                match other.join() {
                    Ok(more) => found.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            found
        });
        // The whole ones first, then by age: a version takes its place as it did before the crash.
        found.sort_by_cached_key(|(begun, object)| (!object.complete(), *begun, object.id().0));
        let objects = found.into_iter().map(|(_, object)| object);
        let _change = self.changing();
        // What does not fit stays on disk, for a larger bound.
        let (taken, replaced) = self.library.put_recovered(objects);
        self.count(taken);
        self.doom(replaced)
    }

    /// One directory of `objects`: the object and when it was begun (nanoseconds since 1970).
    fn take_up(self: &Arc<Self>, dir: &Path) -> Option<(i64, Arc<Object>)> {
        match self.recover_one(dir) {
            Ok(recovered) => return Some(recovered),
            Err(Unusable::Broken(reason)) => self.sweep(dir, &reason),
            Err(Unusable::Unread(error)) => {
                // The next start may be luckier.
                tracing::error!(path = %dir.display(), %error, "object not readable, left alone");
            }
        }
        None
    }

    fn recover_one(self: &Arc<Self>, dir: &Path) -> Result<(i64, Arc<Object>), Unusable> {
        let name = dir.file_name().and_then(|name| name.to_str());
        let id: Digest = name
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| Unusable::Broken("not named by a digest".into()))?;
        let place = |name| self.place(id, name);
        let (file, stamp) = self.open_part(&place(MANIFEST), MANIFEST)?;
        if stamp.size > (SIZE_MAX + Seal::SIZE) as u64 {
            let reason = format!("manifest of {} bytes", stamp.size);
            return Err(Unusable::Broken(reason));
        }
        let encoded = self.read_part(&file, stamp)?;
        let whose = |payload: &[u8]| Digest::of(payload) == id;
        let (payload, seal) = match Seal::split(&encoded) {
            Some((payload, seal)) if whose(payload) => (payload, Some(seal)),
            _ if whose(&encoded) => (encoded.as_slice(), None),
            _ => return Err(Unusable::Broken("manifest of another digest".into())),
        };
        let manifest = Manifest::decode(payload);
        let manifest = manifest.map_err(|error| Unusable::Broken(error.to_string()))?;
        let size = place(DATA).stamp().map_err(|e| unusable(DATA, e))?.size;
        if size != manifest.layout.size {
            let expected = manifest.layout.size;
            let reason = format!("data of {size} bytes, expected {expected}");
            return Err(Unusable::Broken(reason));
        }
        let (file, shape) = self.open_part(&place(HAVE), HAVE)?;
        let count = manifest.layout.count();
        let have = match shape.size == u64::from(count.div_ceil(8)) {
            true => Have::decode(&self.read_part(&file, shape)?, count),
            false => None,
        };
        let have = have.ok_or_else(|| Unusable::Broken("have of wrong shape".into()))?;
        let object = self.object(Arc::new(manifest), seal, id, None, &have);
        Ok((stamp.modified_ns, object))
    }

    fn open_part(&self, place: &Place, name: &str) -> Result<(File, Stamp), Unusable> {
        let file = self.disk.open(place, OFlags::RDONLY);
        let file = file.map_err(|e| unusable(name, e))?;
        match Stamp::of_file(&file) {
            Ok(Some(stamp)) => Ok((file, stamp)),
            Ok(None) => Err(Unusable::Broken(format!("{name}: no file"))),
            Err(error) => Err(Unusable::Unread(error)),
        }
    }

    fn read_part(&self, file: &File, stamp: Stamp) -> Result<Vec<u8>, Unusable> {
        let len = usize::try_from(stamp.size).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        let read = self.disk.read_at(file, &mut bytes, 0);
        read.map_err(Unusable::Unread)?;
        Ok(bytes)
    }

    /// Removes what recovery cannot use.
    fn sweep(&self, path: &Path, reason: &str) {
        match self.disk.remove(path) {
            Ok(()) => tracing::info!(path = %path.display(), reason, "swept from the store"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "not swept"),
        }
    }
}

fn unusable(name: &str, error: io::Error) -> Unusable {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Unusable::Broken(format!("{name}: {error}"))
        }
        _ => Unusable::Unread(error),
    }
}

/// So many objects are not worth another thread.
const FEW: usize = 256;
