//! Asking upstreams: which of several, when to ask a second one, and what counts as an answer.
//!
//! The fastest that lives is asked. When it has not replied in the time it usually takes, the next one is asked too, and the first
//! good reply counts: a dead upstream costs a client that time and not its whole patience. SERVFAIL, REFUSED and
//! what is malformed count as no answer as long as another upstream is left. Upstreams over TLS or HTTPS are chosen and measured like
//! the others; none is ever asked over anything but what is configured.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::budget::Budget;
use super::key::Parts;
use super::names;
use super::reply::Invalid;
use super::upstream::health::{self, Health};
use super::upstream::{ExchangeError, Exchanger, Question, Server, Target};
use crate::dns::wire::Ede;
use crate::metrics::Metrics;
use crate::metrics::resolver::Upstream as Counters;
use crate::time::Now;

/// One set of upstreams.
#[derive(Debug)]
pub(super) struct Upstreams {
    upstreams: Vec<Upstream>,
}

#[derive(Clone, Debug)]
struct Upstream {
    target: Target,
    server: Arc<Server>,
    outcomes: Counters,
}

/// How one upstream does.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    /// The names it is asked for are beneath this; `.`: all that are not beneath another.
    pub zone: String,
    /// As in the configuration, with its port.
    pub upstream: String,
    /// It is taken for dead.
    pub dead: bool,
    /// Smoothed; `None`: never measured.
    pub round_trip: Option<Duration>,
    /// Over TLS and HTTPS: `open`, `opening` or `closed`.
    pub connection: Option<&'static str>,
    /// What is wrong.
    pub problem: Option<String>,
}

/// Upstreams of one set that have said what does not validate: a bit for each, by its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Avoid {
    /// Not asked.
    pub(super) never: u64,
    /// Asked if no other has answered.
    pub(super) last: u64,
}

/// Whose turn it is for one question.
struct Choice {
    /// Not to be picked: asked already, or avoided.
    tried: u64,
    /// Those whose turn comes last.
    last: u64,
}

impl Choice {
    fn new(avoid: Avoid) -> Self {
        Self {
            tried: avoid.never | avoid.last,
            last: avoid.last & !avoid.never,
        }
    }

    /// What `pick` picks of the upstreams left, which are those whose bit is not set.
    fn next(&mut self, pick: impl Fn(u64) -> Option<usize>) -> Option<u8> {
        let picked = pick(self.tried).or_else(|| {
            self.tried &= !std::mem::take(&mut self.last);
            pick(self.tried)
        });
        let place = u8::try_from(picked?).ok()?;
        self.tried |= 1 << place;
        Some(place)
    }
}

/// Why a question has no answer; the details have been counted and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// The client query has used up its packets.
    #[error("the client query has used up its upstream packets")]
    Exhausted,
    /// The client query has used up its time.
    #[error("out of time")]
    TimeUp,
    /// A bound of ours was reached.
    #[error("too many queries in flight")]
    Busy,
    /// No upstream gave an answer.
    #[error("no upstream answered")]
    Nobody,
    /// There is none, or none to be believed; the client is told why.
    #[error("failed: {0:?}")]
    Failed(Ede),
}

impl Upstreams {
    /// Asks nobody yet.
    pub(super) fn new(targets: &[Target], exchanger: &Exchanger, metrics: &Metrics) -> Self {
        let upstreams = targets
            .iter()
            .take(UPSTREAMS)
            .filter(|target| exchanger.may_ask(target.address()))
            .map(|target| Upstream {
                target: target.clone(),
                server: exchanger.upstream(target),
                outcomes: metrics.resolver.upstream(&target.to_string()),
            })
            .collect();
        Self { upstreams }
    }

    /// How each of them does; `zone` is whom they are asked for.
    pub(super) fn status<'u>(&'u self, zone: &'u str) -> impl Iterator<Item = UpstreamStatus> + 'u {
        self.upstreams.iter().map(move |upstream| {
            let health = upstream.server.health();
            let (connection, problem) = upstream.server.connection().unzip();
            UpstreamStatus {
                zone: zone.to_owned(),
                upstream: upstream.target.to_string(),
                dead: health.is_dead(),
                round_trip: health.round_trip(),
                connection,
                problem: problem.flatten().map(|problem| problem.to_string()),
            }
        })
    }

    /// Asks the question until an upstream gives a reply that `read` takes for one, within `budget`.
    pub(super) async fn fetch<T, R>(
        &self,
        exchanger: &Arc<Exchanger>,
        question: Parts<'_>,
        budget: &Budget,
        read: R,
    ) -> Result<T, Unanswered>
    where
        R: Fn(&[u8]) -> Result<T, Invalid> + Send + Sync,
    {
        let avoid = Avoid::default();
        let reply = self.fetch_avoiding(exchanger, question, avoid, budget, read);
        reply.await.map(|(reply, _)| reply)
    }

    /// The same, of the upstreams that `avoid` leaves; also the place of the one that has replied.
    pub(super) async fn fetch_avoiding<T, R>(
        &self,
        exchanger: &Arc<Exchanger>,
        question: Parts<'_>,
        avoid: Avoid,
        budget: &Budget,
        read: R,
    ) -> Result<(T, u8), Unanswered>
    where
        R: Fn(&[u8]) -> Result<T, Invalid> + Send + Sync,
    {
        let asked = Question {
            name: question.name,
            qtype: question.qtype,
            zone: names::crowd(question.name),
            recursion_desired: true,
            checking_disabled: question.checking_disabled,
            dnssec_ok: question.dnssec_ok,
        };
        let now = Now::read();
        let until = now.plus(budget.remaining(now));
        let (asked, read) = (&asked, &read);
        let ask = move |place: u8| async move {
            let upstream = &self.upstreams[usize::from(place)];
            let reply = upstream.ask(exchanger, asked, budget, until, read).await;
            reply.map(|reply| (reply, place))
        };
        match self.upstreams.len() {
            0 => Err(Unanswered::Nobody),
            1 if avoid.never & 1 == 0 => ask(0).await.map_err(Failure::last),
            1 => Err(Unanswered::Nobody),
            _ => {
                self.look_after_the_dead(exchanger, asked, budget, until, now);
                self.race(ask, avoid, now).await
            }
        }
    }

    /// Asks one upstream after the other, each as long as it usually takes before the next is asked too.
    async fn race<T, F>(
        &self,
        ask: impl Fn(u8) -> F,
        avoid: Avoid,
        now: Now,
    ) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // Nobody can foretell the low bits of a clock of nanoseconds, and here it would not help.
        let seed = now.mono_ns.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        let mut choice = Choice::new(avoid);
        let mut next = || {
            let health = self.health();
            let place = choice.next(|tried| health::pick(&health, tried, seed))?;
            Some((place, health[usize::from(place)].patience()))
        };
        let Some((first, patience)) = next() else {
            return Err(Unanswered::Nobody);
        };
        let mut asking = FuturesUnordered::new();
        asking.push(ask(first));
        let mut patience: Option<Duration> = Some(patience);
        let mut worst = Unanswered::Nobody;
        loop {
            let failure = match patience {
                Some(patience) => match tokio::time::timeout(patience, asking.next()).await {
                    Ok(Some(Ok(reply))) => return Ok(reply),
                    Ok(Some(Err(failure))) => Some(failure),
                    Ok(None) | Err(_) => None,
                },
                None => match asking.next().await {
                    Some(Ok(reply)) => return Ok(reply),
                    Some(Err(failure)) => Some(failure),
                    None => return Err(worst),
                },
            };
            if let Some(failure) = failure {
                if failure.is_final() {
                    return Err(failure.last());
                }
                if worst == Unanswered::Nobody {
                    worst = failure.last();
                }
            }
            patience = match next() {
                Some((place, patience)) => {
                    asking.push(ask(place));
                    Some(patience)
                }
                None => None,
            };
        }
    }

    /// Asks an upstream taken for dead whose time has come, beside the one that is asked for the client.
    fn look_after_the_dead(
        &self,
        exchanger: &Arc<Exchanger>,
        question: &Question<'_>,
        budget: &Budget,
        until: Now,
        now: Now,
    ) {
        let Some(place) = health::due(&self.health(), now) else {
            return;
        };
        let upstream = self.upstreams[place].clone();
        // Until it has replied, nobody else need look.
        upstream.server.put_off(now);
        let (exchanger, budget) = (Arc::clone(exchanger), budget.share());
        let name = Box::<[u8]>::from(question.name);
        let question = Question {
            name: &[],
            zone: &[],
            ..*question
        };
        tokio::spawn(async move {
            let question = Question {
                name: &name,
                zone: names::crowd(&name),
                ..question
            };
            let _ = exchanger
                .exchange(&upstream.server, &question, &budget, until)
                .await;
        });
    }

    fn health(&self) -> Vec<Health> {
        self.upstreams
            .iter()
            .map(|upstream| upstream.server.health())
            .collect()
    }
}

impl Upstream {
    async fn ask<T, R>(
        &self,
        exchanger: &Exchanger,
        question: &Question<'_>,
        budget: &Budget,
        until: Now,
        read: &R,
    ) -> Result<T, Failure>
    where
        R: Fn(&[u8]) -> Result<T, Invalid>,
    {
        let mut outcome = Outcome {
            outcomes: &self.outcomes,
            decided: false,
        };
        let reply = exchanger.exchange(&self.server, question, budget, until);
        let result = match reply.await {
            Ok(message) => read(&message).map_err(Failure::Reply),
            Err(error) => Err(Failure::Exchange(error)),
        };
        outcome.is(&result);
        if let Err(failure) = &result {
            tracing::debug!(upstream = %self.target, %failure, "upstream gave no answer");
        }
        result
    }
}

/// Why one upstream gave no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Exchange(ExchangeError),
    #[error(transparent)]
    Reply(Invalid),
}

impl Failure {
    fn is_final(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_final())
    }

    /// What it means when no other upstream is left.
    fn last(self) -> Unanswered {
        match self {
            Self::Exchange(ExchangeError::Exhausted(_)) => Unanswered::Exhausted,
            Self::Exchange(ExchangeError::TimeUp) => Unanswered::TimeUp,
            Self::Exchange(ExchangeError::Busy) => Unanswered::Busy,
            // Out of reach, or in trouble with the name itself.
            Self::Exchange(ExchangeError::Silent | ExchangeError::Unreachable(_))
            | Self::Reply(Invalid::Rcode(_)) => Unanswered::Nobody,
            Self::Exchange(_) | Self::Reply(_) => Unanswered::Failed(Ede::NetworkError),
        }
    }
}

/// Counts how one query to one upstream ended; dropped undecided, it was abandoned.
struct Outcome<'a> {
    outcomes: &'a Counters,
    decided: bool,
}

impl Outcome<'_> {
    fn is<T>(&mut self, result: &Result<T, Failure>) {
        self.decided = true;
        match result {
            Ok(_) => &self.outcomes.answer,
            Err(Failure::Reply(Invalid::Rcode(_))) => &self.outcomes.failure,
            Err(Failure::Exchange(ExchangeError::Silent | ExchangeError::TimeUp)) => {
                &self.outcomes.timeout
            }
            Err(Failure::Reply(_) | Failure::Exchange(_)) => &self.outcomes.error,
        }
        .inc();
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.outcomes.abandoned.inc();
        }
    }
}

/// Upstreams of one set: as many as [`health::pick`] looks at.
pub const UPSTREAMS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// In which order upstreams are asked of which none answers; `count` of them, the first is the fastest.
    fn order(count: usize, avoid: Avoid) -> Vec<u8> {
        let mut choice = Choice::new(avoid);
        let first = |tried: u64| (0..count).find(|place| tried >> place & 1 == 0);
        std::iter::from_fn(|| choice.next(first)).collect()
    }

    #[test]
    fn upstreams_that_are_suspect_come_last_and_those_ruled_out_never() {
        let avoid = |never, last| Avoid { never, last };
        assert_eq!(order(4, Avoid::default()), [0, 1, 2, 3]);
        assert_eq!(order(4, avoid(0b0001, 0)), [1, 2, 3]);
        assert_eq!(order(4, avoid(0, 0b0101)), [1, 3, 0, 2]);
        assert_eq!(order(4, avoid(0b0010, 0b0111)), [3, 0, 2]);
        assert_eq!(order(2, avoid(0b11, 0b11)), [0; 0]);
        assert_eq!(order(64, avoid(1 << 63, 1)).len(), 63);
    }
}
