//! Mirrored objects at their paths: called by the store.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::super::object::Object;
use super::{Library, Slot};

impl Library {
    /// The mirrored versions at `path`: the one that serves, and the next.
    pub(in crate::content) fn mirrored(&self, path: &str) -> [Option<Arc<Object>>; 2] {
        let shard = self.inner.paths[self.shard(path)].load();
        match shard.get(path) {
            Some(slot) => [slot.mirrored.clone(), slot.next.clone()],
            None => [None, None],
        }
    }

    /// The mirrored objects that no other version is to replace.
    pub(in crate::content) fn evictable(&self) -> Vec<Arc<Object>> {
        self.collect(|slot| slot.mirrored.clone().filter(|_| slot.next.is_none()))
    }

    /// Puts a mirrored object at its path, beside a whole one or in place of a partial one; gives those replaced.
    pub(in crate::content) fn put_mirrored(&self, object: &Arc<Object>) -> Vec<Arc<Object>> {
        self.update(&object.manifest().path, |slot| slot.put_mirrored(object))
    }

    /// Puts mirrored objects at their paths as [`Library::put_mirrored`] does one after the other, with one new
    /// snapshot for all, as far as the bound on objects allows. The bytes of those taken; those replaced.
    pub(in crate::content) fn put_recovered(
        &self,
        objects: impl Iterator<Item = Arc<Object>>,
    ) -> (u64, Vec<Arc<Object>>) {
        let inner = &self.inner;
        let write = inner.write.lock().unwrap_or_else(PoisonError::into_inner);
        let mut paths: Vec<_> = inner
            .paths
            .iter()
            .map(|s| HashMap::clone(&s.load()))
            .collect();
        let mut versions: Vec<_> = inner
            .versions
            .iter()
            .map(|s| HashMap::clone(&s.load()))
            .collect();
        let (mut bytes, mut taken, mut gone) = (0, 0, Vec::new());
        for object in objects {
            // Those replaced make room only once they are dropped.
            if inner.objects.load(Ordering::Acquire) + taken >= inner.objects_most {
                self.has_room(); // Says so.
                break;
            }
            taken += 1;
            bytes += object.manifest().layout.size;
            let path = &object.manifest().path;
            let slot: &mut Slot = paths[self.shard(path)]
                .entry(path.as_str().into())
                .or_default();
            gone.extend(slot.put_mirrored(&object));
            versions[usize::from(object.id().0[0])].insert(object.id(), Arc::downgrade(&object));
        }
        for (shard, map) in inner.paths.iter().zip(paths) {
            shard.store(Arc::new(map));
        }
        for (shard, map) in inner.versions.iter().zip(versions) {
            shard.store(Arc::new(map));
        }
        let stay = taken - gone.len();
        inner.objects.fetch_add(stay, Ordering::AcqRel);
        inner.generation.fetch_add(1, Ordering::AcqRel);
        let metrics = &inner.reader.metrics.content;
        metrics.mirror_objects.add(stay as i64);
        drop(write);
        (bytes, gone)
    }

    /// The next version is whole and takes its place; gives the one it replaced.
    pub(in crate::content) fn promote(&self, object: &Arc<Object>) -> Option<Arc<Object>> {
        self.update(&object.manifest().path, |slot| {
            if !slot
                .next
                .as_ref()
                .is_some_and(|next| Arc::ptr_eq(next, object))
            {
                return None;
            }
            std::mem::replace(&mut slot.mirrored, slot.next.take())
        })
    }

    /// Takes the version that fills beside a whole one out; gives it.
    pub(in crate::content) fn remove_next(&self, path: &str) -> Option<Arc<Object>> {
        self.update(path, |slot| slot.next.take())
    }

    /// Whether a mirrored object stands at its path, as the version that serves or as the next.
    #[must_use]
    pub fn is_current(&self, object: &Arc<Object>) -> bool {
        let known = self.mirrored(&object.manifest().path);
        known.iter().flatten().any(|one| Arc::ptr_eq(one, object))
    }

    /// Takes the mirrored versions out; gives them.
    pub(in crate::content) fn remove_mirrored(&self, path: &str) -> Vec<Arc<Object>> {
        self.update(path, |slot| {
            slot.mirrored
                .take()
                .into_iter()
                .chain(slot.next.take())
                .collect()
        })
    }
}
