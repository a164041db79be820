//! A future beside one that is polled all the time, polled only when it was woken itself.
//!
//! A connection's task wakes for every request. To look each time whether the node stops or a second has passed takes
//! locks and timers about 1 % of what a small request costs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Of a task, what is polled seldom.
#[derive(Debug)]
pub(super) struct Seldom<F> {
    inner: F,
    bell: Option<(Arc<Bell>, Waker)>,
}

/// Notes that it was rung, and wakes the task.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F> Seldom<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner, bell: None }
    }

    /// Polls by `poll`, if what it polled last may have more to say.
    pub(super) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut F, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &self.bell {
            Some((bell, _)) if bell.task.will_wake(cx.waker()) => {
                // A ring from here on is for the next poll.
                if !bell.rung.swap(false, Ordering::Acquire) {
                    return Poll::Pending;
                }
            }
            _ => {
                let bell = Arc::new(Bell {
                    rung: AtomicBool::new(false),
                    task: cx.waker().clone(),
                });
                let waker = Waker::from(Arc::clone(&bell));
                self.bell = Some((bell, waker));
            }
        }
        let Some((bell, waker)) = &self.bell else {
            return Poll::Pending;
        };
        let polled = poll(&mut self.inner, &mut Context::from_waker(waker));
        if polled.is_ready() {
            // Whoever was ready may be again, without being woken.
            bell.rung.store(true, Ordering::Release);
        }
        polled
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Seldom::poll(&mut self, cx, |inner, cx| Pin::new(inner).poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    /// Wakes a task, and counts.
    #[derive(Debug, Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn future_is_polled_first_and_then_only_when_woken() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let mut kept: Option<Waker> = None;
        let mut seldom = Seldom::new(0);
        let mut look = |kept: &mut Option<Waker>, answer: Poll<()>| {
            let before = seldom.inner;
            let polled = seldom.poll(&cx, |polls, cx| {
                *polls += 1;
                *kept = Some(cx.waker().clone());
                answer
            });
            (polled, seldom.inner - before)
        };
        assert_eq!(look(&mut kept, Poll::Pending), (Poll::Pending, 1));
        assert_eq!(look(&mut kept, Poll::Pending), (Poll::Pending, 0));
        kept.take().expect("it was polled").wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert_eq!(look(&mut kept, Poll::Ready(())), (Poll::Ready(()), 1));
        assert_eq!(look(&mut kept, Poll::Pending), (Poll::Pending, 1));
        assert_eq!(look(&mut kept, Poll::Pending), (Poll::Pending, 0));
    }

    #[test]
    fn future_is_polled_by_another_task_that_takes_it_over() {
        let mut seldom = Seldom::new(0);
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(Task::default()));
            let cx = Context::from_waker(&waker);
            for _ in 0..3 {
                let polled: Poll<()> = seldom.poll(&cx, |polls, _| {
                    *polls += 1;
                    Poll::Pending
                });
                assert!(polled.is_pending());
            }
        }
        assert_eq!(seldom.inner, 2);
    }

    #[tokio::test]
    async fn wake_beside_a_busy_future_is_seen() {
        let notify = Notify::new();
        let mut seldom = std::pin::pin!(Seldom::new(Box::pin(notify.notified())));
        let waits = async {
            let mut turns = 0;
            std::future::poll_fn(|cx| {
                turns += 1;
                if turns == 100 {
                    notify.notify_waiters();
                }
                cx.waker().wake_by_ref();
                seldom.as_mut().poll(cx)
            })
            .await;
            turns
        };
        let turns = timeout(Duration::from_secs(5), waits)
            .await
            .expect("in time");
        assert!((100..=101).contains(&turns), "{turns}");
    }
}
