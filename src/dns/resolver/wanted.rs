//! Answers that are asked for and about to expire: from the threads that answer to the task that refreshes.

use std::sync::{Arc, Mutex, TryLockError};

use tokio::sync::Notify;

use super::key::Key;

/// The questions to ask again. Who answers never waits for it and allocates nothing; what does not fit is dropped, and
/// fetched when it has expired, as it would be without.
pub(super) struct Wanted {
    keys: Mutex<Vec<Key>>,
    some: Notify,
}

impl Wanted {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::new(Vec::with_capacity(ROOM)),
            some: Notify::new(),
        })
    }

    /// Has the question of `key` asked again, if there is room.
    pub(super) fn add(&self, key: &Key) {
        let mut keys = match self.keys.try_lock() {
            Ok(keys) => keys,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if keys.len() < ROOM {
            keys.push(*key);
            self.some.notify_one();
        }
    }

    /// The questions added since, once there is one.
    pub(super) async fn next(&self) -> Vec<Key> {
        loop {
            self.some.notified().await;
            let mut keys = self.keys.lock().expect("nothing panics while it is held");
            if !keys.is_empty() {
                return std::mem::replace(&mut *keys, Vec::with_capacity(ROOM));
            }
        }
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wanted")
    }
}

/// Questions that may wait for the task.
const ROOM: usize = 64;
