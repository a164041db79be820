//! Answers that are asked for and about to expire: from the threads that answer to the task that refreshes.

use std::sync::{Arc, Mutex, TryLockError};

use prometheus::IntCounter;
use tokio::sync::Notify;

use super::key::Key;

/// The questions to ask again. Who answers never waits for it and allocates nothing; what does not fit is dropped, and
/// fetched when it has expired, as it would be without.
pub(super) struct Wanted {
    keys: Mutex<Vec<Key>>,
    some: Notify,
    /// Questions that may wait for the task.
    room: usize,
    dropped: IntCounter,
}

impl Wanted {
    /// A list of at most `room` questions; those beyond are counted in `dropped`.
    pub(super) fn new(room: usize, dropped: IntCounter) -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::new(Vec::with_capacity(room)),
            some: Notify::new(),
            room,
            dropped,
        })
    }

    /// Has the question of `key` asked again, if there is room.
    pub(super) fn add(&self, key: &Key) {
        let mut keys = match self.keys.try_lock() {
            Ok(keys) => keys,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if keys.len() >= self.room {
            self.dropped.inc();
            return;
        }
        keys.push(*key);
        self.some.notify_one();
    }

    /// The questions added since, once there is one.
    pub(super) async fn next(&self) -> Vec<Key> {
        loop {
            self.some.notified().await;
            let mut keys = self.keys.lock().expect("nothing panics while it is held");
            if !keys.is_empty() {
                return std::mem::replace(&mut *keys, Vec::with_capacity(self.room));
            }
        }
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wanted")
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::Partition;
    use super::super::testing::wire;
    use super::*;

    #[tokio::test]
    async fn list_takes_no_more_than_its_room_and_counts_the_rest() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let wanted = Wanted::new(2, dropped.clone());
        for qtype in 1..=5 {
            wanted.add(&Key::new(
                &wire("www.example."),
                qtype,
                false,
                false,
                Partition(0),
            ));
        }
        assert_eq!(dropped.get(), 3);
        assert_eq!(wanted.next().await.len(), 2);
        wanted.add(&Key::new(
            &wire("www.example."),
            1,
            false,
            false,
            Partition(0),
        ));
        assert_eq!((wanted.next().await.len(), dropped.get()), (1, 3));
    }
}
