//! One node that chunks come from: how to ask it, how it does.

use std::time::Duration;

use super::client::{Client, Error};
use super::schedule::{Health, Standing};
use crate::time::Now;

/// A node that chunks come from.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) client: Client,
    pub(super) health: Health,
    /// Whether it is one of those the mirror names: its index is read, and it is never put aside for being slow.
    pub(super) named: bool,
    /// Whether it says that it is an origin: then its index is read before those of others that were found, and it is not
    /// put aside for being slow.
    pub(super) origin: bool,
    /// Whether it is known still; of a named one always.
    pub(super) listed: bool,
    /// The standing that the metric shows.
    pub(super) shown: Option<Standing>,
    /// What went wrong last, until it goes right.
    pub(super) problem: Option<String>,
    /// Chunks asked of it and not answered yet.
    pub(super) in_flight: usize,
    /// Good chunks in a row: the more, the more are asked for at once.
    good: usize,
    /// Chunks in a row that it said it has and has not.
    missed: u32,
    /// Chunks per second, smoothed; 0: not known.
    pub(super) pace: f64,
    /// The entity tag of its index.
    pub(super) etag: Option<String>,
    /// Its bitmaps were asked for and have not come yet.
    pub(super) asking: bool,
    /// The number by which it knows itself.
    pub(super) run: Option<u64>,
    /// When its bitmaps are asked for next, and how long after the answer before.
    pub(super) due: Now,
    pause: Duration,
}

/// What the answer about bitmaps brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// Something changed.
    Some,
    /// Nothing.
    Nothing,
    /// It knows none of the objects, or does not speak of bitmaps.
    Stranger,
}

impl Node {
    pub(super) fn new(client: Client, named: bool) -> Self {
        Self {
            client,
            health: Health::default(),
            named,
            origin: false,
            listed: true,
            shown: None,
            problem: None,
            in_flight: 0,
            good: 0,
            missed: 0,
            pace: 0.0,
            etag: None,
            asking: false,
            run: None,
            due: Now {
                mono_ns: 0,
                unix_ms: 0,
            },
            pause: PAUSE_MIN,
        }
    }

    pub(super) fn is_open(&self, now: Now) -> bool {
        self.listed && self.health.standing(now) == Standing::Open
    }

    /// Chunks it may be asked for at once, of `most`: one more with each that was good.
    pub(super) fn limit(&self, most: usize) -> usize {
        if self.named {
            most
        } else {
            most.min(1 + self.good)
        }
    }

    pub(super) fn succeeded(&mut self, now: Now) {
        self.health.succeeded(now);
        if self.is_open(now) && self.problem.take().is_some() {
            tracing::info!(node = self.client.base(), "node answers again");
        }
    }

    /// A chunk came and was right; it took so long, with others beside it.
    pub(super) fn gave(&mut self, took: Duration) {
        self.good = self.good.saturating_add(1);
        self.missed = 0;
        let pace = (self.in_flight + 1) as f64 / took.as_secs_f64().max(0.001);
        if self.pace == 0.0 {
            self.pace = pace;
        } else {
            self.pace += (pace - self.pace) * 0.3;
        }
    }

    /// It does not have a chunk it said it has. Whether that was once too often.
    pub(super) fn missed(&mut self) -> bool {
        self.missed += 1;
        !self.named && self.missed >= MISSED
    }

    /// It is not asked for a good while; then it begins anew.
    pub(super) fn put_aside(&mut self, now: Now) {
        self.health.lied(now);
        (self.good, self.missed, self.pace) = (0, 0, 0.0);
    }

    pub(super) fn fails(&mut self, error: &Error) {
        let problem = error.to_string();
        let liar = matches!(error, Error::Liar { .. } | Error::Untrusted { .. });
        if self.problem.as_ref() != Some(&problem) && (liar || self.problem.is_none()) {
            tracing::warn!(problem, liar, "node not asked for a while");
        }
        self.problem = Some(problem);
    }

    /// Its bitmaps came: when they are asked for next.
    pub(super) fn told(&mut self, news: News, now: Now) {
        self.pause = match news {
            News::Some => PAUSE_MIN,
            News::Nothing => (self.pause * 2).min(PAUSE_MAX),
            News::Stranger => (self.pause * 2).clamp(PAUSE_STRANGER, PAUSE_STRANGER_MAX),
        };
        self.due = now.plus(self.pause);
    }
}

/// Pause between two questions for bitmaps while they change.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest, while they do not.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Pauses before a node that knows none of the objects is asked again.
const PAUSE_STRANGER: Duration = Duration::from_millis(250);
const PAUSE_STRANGER_MAX: Duration = Duration::from_secs(5);

/// Chunks in a row that a node said it has and has not, after which it is put aside.
const MISSED: u32 = 3;
