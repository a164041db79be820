//! The runtime's threads for work that waits for the disk, and how often all of them had work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::metrics::Metrics;
use crate::metrics::content::Limit;

/// Where work of content is handed to those threads.
#[derive(Clone, Debug)]
pub struct Threads {
    /// What has been handed over and is not done.
    busy: Arc<AtomicUsize>,
    most: usize,
    metrics: Arc<Metrics>,
}

impl Threads {
    /// As many threads as the runtime was given.
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            busy: Arc::default(),
            most,
            metrics,
        }
    }

    /// Runs `work` on one of the threads; if all have work, it waits for its turn, which is counted.
    pub fn run<T, W>(&self, work: W) -> JoinHandle<T>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let before = self.busy.fetch_add(1, Ordering::Relaxed);
        if before >= self.most {
            self.metrics.content.limit(Limit::Threads);
        }
        let busy = Busy(Arc::clone(&self.busy));
        spawn_blocking(move || {
            let _busy = busy;
            work()
        })
    }
}

/// One that is busy, until it is dropped.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_that_waits_for_a_thread_is_counted() {
        let metrics = Arc::new(Metrics::new());
        let threads = Threads::new(2, Arc::clone(&metrics));
        let (go, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let wait = |held: &Arc<std::sync::Mutex<mpsc::Receiver<()>>>| {
            let held = Arc::clone(held);
            threads.run(move || held.lock().unwrap().recv().is_err())
        };
        let two = [wait(&held), wait(&held)];
        let waited = || metrics.content.limit_count(Limit::Threads);
        assert_eq!(waited(), 0);
        let third = wait(&held);
        assert_eq!(waited(), 1);
        drop(go);
        for work in two.into_iter().chain([third]) {
            assert!(work.await.unwrap());
        }
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
        assert_eq!(waited(), 1, "they are free again");
    }
}
