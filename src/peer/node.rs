//! One node that is mirrored from: how to ask it, how it does.

use super::client::{Client, Error};
use super::schedule::{Health, Standing};
use crate::time::Now;

/// A node that is mirrored from.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) client: Client,
    pub(super) health: Health,
    /// The standing that the metric shows.
    pub(super) shown: Option<Standing>,
    /// What went wrong last, until it goes right.
    pub(super) problem: Option<String>,
    /// Chunks asked of it and not answered yet.
    pub(super) in_flight: usize,
    /// The entity tag of its index.
    pub(super) etag: Option<String>,
}

impl Node {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            health: Health::default(),
            shown: None,
            problem: None,
            in_flight: 0,
            etag: None,
        }
    }

    pub(super) fn is_open(&self, now: Now) -> bool {
        self.health.standing(now) == Standing::Open
    }

    pub(super) fn succeeded(&mut self, now: Now) {
        self.health.succeeded(now);
        if self.is_open(now) && self.problem.take().is_some() {
            tracing::info!(node = self.client.base(), "node answers again");
        }
    }

    pub(super) fn fails(&mut self, error: &Error) {
        let problem = error.to_string();
        let liar = matches!(error, Error::Liar { .. } | Error::Untrusted { .. });
        if self.problem.as_ref() != Some(&problem) && (liar || self.problem.is_none()) {
            tracing::warn!(problem, liar, "node not asked for a while");
        }
        self.problem = Some(problem);
    }
}
