//! One fetch from beginning to end: boarded, asked, screened, kept, told to those who wait.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::budget::Budget;
use super::entry::Entry;
use super::failure::Memory;
use super::flight::{Failed, Pilot, Seat};
use super::forward::Unanswered;
use super::key::{self, Key};
use super::reply::Reply;
use super::{Inner, names};
use crate::dns::wire::Ede;
use crate::time::Now;

type Result<T> = std::result::Result<T, Failed>;

/// Joins or starts the fetch for `key`; the future waits for it, at most for `patience` if there is one, else as long as the
/// budget has time. `memory` is what is remembered of its failures.
pub(super) fn start(
    inner: &Arc<Inner>,
    key: &Key,
    memory: Memory,
    budget: &Budget,
    patience: Option<Duration>,
) -> impl Future<Output = Result<Arc<Entry>>> + Send + use<> {
    let limits = &inner.metrics.resolver.limits;
    let mut flying = None;
    let waiting = match inner.flights.board(key, inner.cache.generation()) {
        Seat::Wait(result) => Some(result),
        Seat::Lead(pilot) => {
            let result = patience.and_then(|_| pilot.wait());
            let flight = Flight::new(fly(Arc::clone(inner), pilot, memory, budget.share()));
            // With something stale to give, the fetch goes on when the client has been given that.
            if result.is_none() {
                flying = Some(flight);
            }
            result
        }
        Seat::CrowdedOut => {
            limits.waiters.inc();
            None
        }
        Seat::Grounded => {
            limits.fetches.inc();
            None
        }
    };
    let patience = patience.unwrap_or_else(|| budget.remaining(Now::read()));
    async move {
        if let Some(flight) = flying {
            // It ends within the budget by itself.
            return flight.await;
        }
        let Some(mut result) = waiting else {
            return Err(Failed(Ede::Other));
        };
        match tokio::time::timeout(patience, result.wait_for(Option::is_some)).await {
            Ok(Ok(landed)) => landed.clone().unwrap_or(Err(Failed(Ede::Other))),
            // The task that fetched is gone, or it takes too long for this client.
            Ok(Err(_)) | Err(_) => Err(Failed(Ede::NoReachableAuthority)),
        }
    }
}

/// Fetches the answer to the question of `key` anew though there is one, unless that is under way or has failed lately.
pub(super) async fn again(inner: &Arc<Inner>, key: &Key, budget: &Budget) -> Result<Arc<Entry>> {
    let memory = inner.failures.recall(key, Now::read());
    if memory == Memory::Fresh {
        return Err(Failed(Ede::CachedError));
    }
    match inner.flights.board(key, inner.cache.generation()) {
        Seat::Lead(pilot) => fly(Arc::clone(inner), pilot, memory, budget.share()).await,
        Seat::Wait(_) | Seat::CrowdedOut | Seat::Grounded => Err(Failed(Ede::Other)),
    }
}

/// A fetch, polled by the client that came first; dropped before its end, it goes on as a task of its own, since others may
/// wait for it. So the usual fetch costs no task.
struct Flight(Option<BoxFuture<'static, Result<Arc<Entry>>>>);

impl Flight {
    fn new(fetch: impl Future<Output = Result<Arc<Entry>>> + Send + 'static) -> Self {
        Self(Some(Box::pin(fetch)))
    }
}

impl Future for Flight {
    type Output = Result<Arc<Entry>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(fetch) = &mut self.0 else {
            return Poll::Ready(Err(Failed(Ede::Other)));
        };
        let polled = fetch.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(fetch) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(fetch);
        }
    }
}

async fn fly(
    inner: Arc<Inner>,
    pilot: Pilot,
    memory: Memory,
    budget: Budget,
) -> Result<Arc<Entry>> {
    let question = Key::parts(pilot.key());
    let mut result = ask(&inner, question, &budget).await;
    for _ in 0..inner.config.cache.aliases {
        let Ok(reply) = result else { break };
        result = match reply.onward {
            None => Ok(reply),
            // Seldom; in a box, it takes no room where it is not needed.
            Some(_) => Box::pin(follow(&inner, question, reply, &budget)).await,
        };
    }
    if matches!(&result, Ok(reply) if reply.onward.is_some()) {
        inner.metrics.resolver.limits.aliases.inc();
    }
    let now = Now::read();
    let landed = match result {
        Ok(reply) => {
            if memory != Memory::None {
                inner.failures.forget(pilot.key());
            }
            let cuts = reply.negative;
            let (reply, screened) = screen(&inner, question, reply);
            let generation = pilot.generation();
            let entry = inner.cache.keep(pilot.key(), reply, generation, now);
            if cuts && !screened && inner.cache.generation() == generation {
                inner.cuts.learn(pilot.key(), &entry);
            }
            Ok(entry)
        }
        Err(error) => {
            fail(&inner, &pilot, error, now);
            Err(Failed(match error {
                Unanswered::Failed(reason) => reason,
                Unanswered::Busy => Ede::Other,
                _ => Ede::NoReachableAuthority,
            }))
        }
    };
    pilot.land(&landed);
    landed
}

/// Counts, logs and remembers that a question has no answer.
fn fail(inner: &Inner, pilot: &Pilot, error: Unanswered, now: Now) {
    let limits = &inner.metrics.resolver.limits;
    match error {
        Unanswered::Exhausted => limits.packets.inc(),
        Unanswered::TimeUp => limits.time.inc(),
        Unanswered::Busy | Unanswered::Nobody | Unanswered::Failed(_) => {}
    }
    let question = Key::parts(pilot.key());
    tracing::debug!(
        name = %names::text(question.name),
        qtype = question.qtype,
        %error,
        "fetch failed"
    );
    // That we were too busy says nothing about the question.
    if error == Unanswered::Busy {
        return;
    }
    if inner.cache.generation() == pilot.generation() {
        inner.failures.remember(pilot.key(), now);
    }
    if let Some(entry) = inner.cache.held(pilot.key()) {
        entry.refresh_failed(now, RECHECK);
    }
}

/// Asks the upstreams of the key's partition, or from the root on, within the budget.
async fn ask(
    inner: &Inner,
    question: key::Parts<'_>,
    budget: &Budget,
) -> std::result::Result<Reply, Unanswered> {
    if let Some(recursor) = &inner.recursor
        && recursor.takes(question.partition)
    {
        // Boxed, since it is large, and a fetch from an upstream has no use for the room.
        let fetched = Box::pin(recursor.fetch(question, budget)).await;
        let fetched = fetched.map_err(|trouble| {
            let name = names::text(question.name);
            tracing::debug!(%name, qtype = question.qtype, %trouble, "not resolved");
            trouble.as_unanswered()
        })?;
        let reply = inner.cache.read(question, &fetched.message);
        let mut reply = reply.map_err(|_| Unanswered::Nobody)?;
        if let Some((target, ttl)) = fetched.onward {
            // What is at the end of the aliases is yet to be asked.
            (reply.negative, reply.ttl) = (false, ttl);
            reply.onward = Some(target);
        }
        return Ok(reply);
    }
    let upstreams = inner
        .upstreams
        .get(usize::from(question.partition.0))
        .ok_or(Unanswered::Nobody)?;
    let zone = inner.partitions.zone(question.partition);
    let read = |message: &[u8]| inner.cache.read_of(question, zone, message);
    upstreams
        .fetch(&inner.exchanger, question, budget, read)
        .await
}

/// Goes where the aliases of `reply` lead, out of the zone its upstreams speak for: asks those of the zone they lead into.
async fn follow(
    inner: &Inner,
    question: key::Parts<'_>,
    reply: Reply,
    budget: &Budget,
) -> std::result::Result<Reply, Unanswered> {
    let Some(target) = &reply.onward else {
        return Ok(reply);
    };
    let partition = inner.partitions.find(target);
    let key = Key::new(
        target,
        question.qtype,
        question.dnssec_ok,
        question.checking_disabled,
        partition,
    );
    let now = Now::read();
    let held = inner
        .cache
        .held(&key)
        .filter(|entry| entry.age(now).is_some());
    let rest = match held {
        Some(entry) => entry.to_reply(now),
        None => ask(inner, Key::parts(&key), budget).await?,
    };
    reply.join(&rest).ok_or(Unanswered::Nobody)
}

/// What of a reply is to be kept, by the policy; and whether that is something else than came.
fn screen(inner: &Inner, question: key::Parts<'_>, reply: Reply) -> (Reply, bool) {
    let forwarded = question.partition.0 != 0;
    let screened = inner.policy.load().screen(&reply.wire, forwarded);
    let Some(screened) = screened else {
        return (reply, false);
    };
    if screened.private {
        inner.metrics.policy.private.inc();
    }
    // What the policy writes is a reply to the question; were it none, what came stays.
    let read = inner.cache.read(question, &screened.message);
    (read.unwrap_or(reply), true)
}

/// How long a failed refresh of an expired answer is not tried again (RFC 8767 section 5).
pub(super) const RECHECK: Duration = Duration::from_secs(30);
