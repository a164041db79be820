//! Trust anchors that roll by themselves (RFC 5011): their state in a file, and the task that looks at their zones when it is time.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Inner;
use super::budget::Budget;
use super::recurse::Recursor;
use super::recurse::dname::Dname;
use super::recurse::net::Net;
use super::validate::anchor::Anchors;
use super::validate::roll::{self, Config, KeyStatus, Point};
use crate::metrics::resolver::Anchors as Counters;
use crate::time::Now;

/// The keys of trust anchors, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnchorStatus {
    /// All that were shown.
    pub keys: Vec<KeyStatus>,
    /// What is wrong.
    pub problem: Option<String>,
}

/// The anchors of one resolver.
#[derive(Debug)]
pub(super) struct Rolling {
    config: Config,
    state: Mutex<State>,
    metrics: Counters,
}

#[derive(Debug)]
struct State {
    points: Vec<Point>,
    problem: Option<String>,
}

impl Rolling {
    /// Reads the state; what cannot be read is left as it is until the next look, and `anchors` begin anew. Reads a file.
    pub(super) fn open(config: &Config, anchors: &Anchors, metrics: &Counters, now: Now) -> Self {
        let file = config.file.display();
        let unix = now.unix_ms / 1_000;
        let anew = || roll::read("", anchors, unix).unwrap_or_default();
        let (points, problem) = match fs::read_to_string(&config.file) {
            Ok(text) => match roll::read(&text, anchors, unix) {
                Ok(points) => (points, None),
                Err(line) => (anew(), Some(format!("{file}:{line}: it cannot be read"))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (anew(), None),
            Err(error) => (anew(), Some(format!("{file}: {error}"))),
        };
        if let Some(problem) = &problem {
            tracing::warn!(problem, "trust anchors begin with those configured");
        }
        let rolling = Self {
            config: config.clone(),
            state: Mutex::new(State { points, problem }),
            metrics: metrics.clone(),
        };
        rolling.count();
        rolling
    }

    /// What is believed now, of the zones of `configured`.
    pub(super) fn anchors(&self, configured: &Anchors) -> Anchors {
        let state = self.lock();
        configured.replaced(state.points.iter().filter_map(Point::anchor).collect())
    }

    pub(super) fn status(&self) -> AnchorStatus {
        let state = self.lock();
        AnchorStatus {
            keys: state.points.iter().flat_map(Point::status).collect(),
            problem: state.problem.clone(),
        }
    }

    /// The zone to look at next, and when, Unix seconds.
    fn next(&self) -> Option<(Dname, u64)> {
        let state = self.lock();
        let points = state.points.iter();
        let next = points.min_by_key(|point| point.next())?;
        Some((next.zone().clone(), next.next()))
    }

    /// Looks at `zone`, and has `recursor` believe what follows. Writes a file.
    pub(super) async fn visit<N: Net>(
        &self,
        recursor: &Recursor<N>,
        zone: &Dname,
        budget: &Budget,
    ) {
        let look = recursor.look(zone, budget).await;
        let unix = recursor.now().unix_ms / 1_000;
        let (text, believed) = {
            let mut state = self.lock();
            let State { points, problem } = &mut *state;
            let Some(point) = points.iter_mut().find(|point| point.zone() == zone) else {
                return;
            };
            let change = point.take(look.as_ref().ok(), unix, self.config.terms);
            if change.crowded {
                self.metrics.crowded.inc();
            }
            match &look {
                Ok(_) => self.metrics.seen.inc(),
                Err(_) => self.metrics.failed.inc(),
            }
            *problem = look.err().map(|trouble| format!("{zone}: {trouble}"));
            if let Some(problem) = problem {
                tracing::warn!(problem, "the keys of a trust anchor could not be looked at");
            }
            (roll::write(points), change.believed)
        };
        self.count();
        if believed {
            tracing::info!(%zone, "other keys of a trust anchor are believed than before (RFC 5011)");
            recursor.believe(|configured| self.anchors(configured));
        }
        if let Err(error) = self.write(&text) {
            let problem = format!("{}: {error}", self.config.file.display());
            tracing::warn!(problem, "the state of trust anchors was not written");
            self.lock().problem = Some(problem);
        }
    }

    /// In one step: beside it first, then in its place.
    fn write(&self, text: &str) -> io::Result<()> {
        let path = &self.config.file;
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn count(&self) {
        let status = self.status();
        for (state, gauge) in &self.metrics.keys {
            let of_state = |key: &&KeyStatus| key.state.name() == *state;
            let count = status.keys.iter().filter(of_state).count();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the zones when it is time, as long as there is a resolver.
pub(super) async fn keep(inner: Weak<Inner>) {
    // A node that is only tried asks nobody for anything.
    let mut wait = FIRST;
    loop {
        tokio::time::sleep(wait).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some((recursor, rolling)) = inner.recursor.as_ref().zip(inner.rolling.as_ref()) else {
            return;
        };
        let Some((zone, next)) = rolling.next() else {
            return;
        };
        let now = Now::read();
        wait = Duration::from_secs(next.saturating_sub(now.unix_ms / 1_000)).min(MOST);
        if wait.is_zero() {
            let budget = inner.budget();
            rolling.visit(recursor, &zone, &budget).await;
            wait = BETWEEN;
        }
    }
}

/// The first look after a start; between two; and the longest sleep, since the clock may be set.
const FIRST: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(900);
