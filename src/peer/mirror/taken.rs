//! What came back from other nodes and from the disk: what of it is kept, and what a failure costs whom.

use std::sync::Arc;
use std::time::Duration;

use super::super::client::{Error, IndexAnswer};
use super::super::exchange::HaveAnswer;
use super::super::job::{self, Event, Failure};
use super::super::message::{Edition, Index};
use super::super::node::News;
use super::super::replicate::MirrorStatus;
use super::super::schedule::Fetch;
use super::super::transfer::Transfer;
use super::super::trust::Greeting;
use super::{LATE, Mirror, ROOM, SOON};
use crate::content::catalogue::SignedCatalogue;
use crate::content::chunk::Digest;
use crate::content::object::{Object, WriteError};
use crate::content::sign::PublicKey;
use crate::metrics::peers::Limit;
use crate::metrics::replication::{IndexOutcome, Outcome, SealFault};
use crate::time::Now;

impl Mirror {
    pub(super) fn take(&mut self, event: Event, now: Now) {
        match event {
            Event::Index { node, result } => self.take_index(node, result, now),
            Event::Catalogue { node, key, result } => self.take_catalogue(node, key, result, now),
            Event::Kept(Ok(())) => {}
            Event::Kept(Err(error)) => {
                tracing::error!(%error, "key of a node not kept: it is not known after a restart");
            }
            Event::Begun {
                path,
                id,
                node,
                result,
            } => self.take_begun(path, id, node, result, now),
            Event::Chunk {
                path,
                id,
                fetch,
                result,
            } => self.take_chunk(&path, id, fetch, result, now),
            Event::Have {
                node,
                asked,
                result,
            } => self.take_have(node, &asked, result, now),
            Event::Removed { path, result } => match result {
                Ok(_) => tracing::info!(path, "object removed: no longer published"),
                Err(error) => {
                    tracing::error!(path, %error, "object not removed");
                    self.refused
                        .insert(path.clone(), format!("{path}: {error}"));
                }
            },
        }
    }

    fn take_index(&mut self, place: usize, result: Result<IndexAnswer, Error>, now: Now) {
        let outcome = match result {
            Ok(answer) => {
                let node = &mut self.nodes[place];
                self.status.rcu(|status| MirrorStatus {
                    from: node.client.base().to_owned(),
                    seen_unix_ms: Some(now.unix_ms),
                    ..MirrorStatus::clone(status)
                });
                match answer {
                    IndexAnswer::Unchanged => {
                        node.succeeded(now);
                        IndexOutcome::Unchanged
                    }
                    IndexAnswer::Changed(index, etag) => {
                        node.etag = etag;
                        self.take_changed(place, index, now)
                    }
                }
            }
            Err(error) => {
                let outcome = match error {
                    Error::Liar { .. } | Error::Untrusted { .. } => IndexOutcome::Refused,
                    _ => IndexOutcome::Failed,
                };
                self.blame(place, &error, now);
                outcome
            }
        };
        self.metrics.replication.index(outcome);
        self.round.open -= 1;
        if self.round.open == 0 {
            self.end_round(now);
        }
    }

    /// Takes what a node says of itself, and asks it for what it has of the origins' words.
    fn take_changed(&mut self, place: usize, index: Index, now: Now) -> IndexOutcome {
        let node = &self.nodes[place];
        let base = node.client.base().to_owned();
        let files = self.trust.files().clone();
        // Of another than those that are named only what others signed counts.
        let greeting = match node.named {
            true => self.trust.greet(place, index.key),
            false => Greeting::Known,
        };
        match greeting {
            Greeting::Known => {}
            Greeting::New => {
                let threads = self.store.threads().clone();
                self.jobs.spawn(job::pin(files, base, index.key, threads));
            }
            Greeting::Changed(known) => {
                let error = Error::Untrusted {
                    reason: format!(
                        "found key {}, expected {known}, which it had before; if it was replaced on purpose, remove {} \
                         and restart, or configure `key`",
                        index.key,
                        files.pin(&base).display()
                    ),
                    node: base,
                    fault: SealFault::OtherKey,
                };
                self.nodes[place].etag = None;
                self.blame(place, &error, now);
                return IndexOutcome::Refused;
            }
        }
        self.nodes[place].origin = self.trust.keys().contains(&index.key);
        let news: Vec<Edition> = self.trust.news(&index.catalogues).collect();
        if news.is_empty() {
            self.nodes[place].succeeded(now);
        }
        for edition in news {
            if !self.reading.insert(edition.key) {
                // Another node is being asked: what this one has is looked at again in the next round.
                self.nodes[place].etag = None;
                continue;
            }
            self.round.open += 1;
            self.jobs.spawn(job::take_catalogue(
                place,
                self.nodes[place].client.clone(),
                edition,
                self.config.prefix.clone(),
                self.trust.files().clone(),
                self.store.threads().clone(),
            ));
        }
        self.plan.changed(place, index);
        IndexOutcome::Changed
    }

    fn take_catalogue(
        &mut self,
        place: usize,
        key: PublicKey,
        result: Result<SignedCatalogue, Error>,
        now: Now,
    ) {
        self.reading.remove(&key);
        match result {
            Ok(signed) => {
                self.nodes[place].succeeded(now);
                tracing::info!(
                    %key,
                    version = signed.catalogue().version,
                    objects = signed.catalogue().objects.len(),
                    from = self.nodes[place].client.base(),
                    "catalogue"
                );
                self.accept(&signed);
            }
            Err(error) => {
                // Its index is to be read whole again: the catalogue is still wanted.
                self.nodes[place].etag = None;
                self.blame(place, &error, now);
            }
        }
        self.round.open -= 1;
        if self.round.open == 0 {
            self.end_round(now);
        }
    }

    fn take_have(
        &mut self,
        place: usize,
        asked: &[(String, Digest)],
        result: Result<HaveAnswer, Error>,
        now: Now,
    ) {
        let metrics = self.metrics.clone();
        let node = &mut self.nodes[place];
        node.asking = false;
        let answer = match result {
            Ok(answer) if answer.node == self.swarm.run() => {
                // A list that all nodes share names this one, too.
                node.told(News::Stranger, now);
                return;
            }
            Ok(answer) => answer,
            Err(error) => {
                metrics.peers.bitmaps_failed.inc();
                node.told(News::Stranger, now);
                self.blame(place, &error, now);
                return;
            }
        };
        metrics.peers.bitmaps.inc();
        node.run = Some(answer.node);
        node.succeeded(now);
        let mut news = if answer.objects.is_empty() {
            News::Stranger
        } else {
            News::Nothing
        };
        for (path, id) in asked {
            let transfers = &mut self.transfers;
            let Some(transfer) = transfers.get_mut(path).filter(|t| t.object.id() == *id) else {
                continue;
            };
            let holding = answer.objects.iter().find(|o| o.manifest == *id);
            match transfer.answered(place, holding, now) {
                Ok(true) => news = News::Some,
                Ok(false) => {}
                Err(error) => {
                    let error = Error::Liar {
                        node: self.nodes[place].client.base().to_owned(),
                        reason: error.to_string(),
                    };
                    metrics.peers.bitmaps_failed.inc();
                    self.blame(place, &error, now);
                    break;
                }
            }
        }
        self.nodes[place].told(news, now);
    }

    fn take_begun(
        &mut self,
        path: String,
        id: Digest,
        node: Option<usize>,
        result: Result<Arc<Object>, Failure>,
        now: Now,
    ) {
        self.beginning.remove(&path);
        // Before anybody who waits looks.
        let full = matches!(&result, Err(Failure::Write(WriteError::Full { .. })));
        self.demand.set_full(full);
        self.demand.settle(&path);
        let object = match result {
            Ok(object) => object,
            Err(failure) => {
                let reason = match failure {
                    Failure::Node(error) => {
                        if let Some(node) = node {
                            self.blame(node, &error, now);
                        }
                        error.to_string()
                    }
                    Failure::Write(error) => {
                        if !(full && self.full) {
                            tracing::warn!(path, %error, "object not begun");
                        }
                        if full {
                            self.full = true; // Said once: many may wait for room.
                            self.round.due = self.round.due.min(self.round.began.plus(ROOM));
                        }
                        error.to_string()
                    }
                    Failure::Dropped => "called off".to_owned(),
                };
                self.refused.insert(path, reason);
                return;
            }
        };
        if std::mem::take(&mut self.full) {
            tracing::info!(path, "there is room again");
        }
        if let Some(node) = node {
            self.nodes[node].succeeded(now);
        }
        // The indexes may have changed while it began.
        let Some(wanted) = self.plan.wanted().get(&path).filter(|w| w.id == id) else {
            return;
        };
        if object.complete() {
            tracing::info!(path, size = wanted.size, "object whole");
            return;
        }
        tracing::info!(
            path,
            size = wanted.size,
            held = object.have().held(),
            chunks = object.have().count(),
            "object filling"
        );
        let transfer = Transfer::new(object, wanted, self.nodes.len());
        self.transfers.insert(path, transfer);
        // Who knew nothing of it before may now.
        self.nodes
            .iter_mut()
            .for_each(|node| node.due = node.due.min(now));
    }

    fn take_chunk(
        &mut self,
        path: &str,
        id: Digest,
        fetch: Fetch,
        result: Result<(), Failure>,
        now: Now,
    ) {
        let metrics = self.metrics.clone();
        self.in_flight -= 1;
        metrics.replication.in_flight.dec();
        let node = &mut self.nodes[fetch.source];
        node.in_flight -= 1;
        let mut transfer = self
            .transfers
            .get_mut(path)
            .filter(|transfer| transfer.object.id() == id);
        let mut took = Duration::ZERO;
        if let Some(transfer) = &mut transfer {
            took = transfer.ended(fetch, now);
            self.swarm.expect(id, transfer.busy());
        } else {
            self.swarm.expect(id, Vec::new());
        }
        let outcome = match result {
            Ok(()) => {
                node.succeeded(now);
                node.gave(took);
                let usual = self.chunk_time.unwrap_or(took);
                self.chunk_time = Some((usual * 7 + took) / 8);
                let others = transfer
                    .as_ref()
                    .map_or_else(Vec::new, |t| t.had(fetch.index, now));
                if transfer.is_some_and(|transfer| transfer.object.complete()) {
                    self.transfers.remove(path);
                    self.swarm.expect(id, Vec::new());
                    tracing::info!(path, "object whole");
                }
                for (place, waited) in others {
                    if waited > took.max(LATE) * 3 {
                        let error = Error::Stalled {
                            node: self.nodes[place].client.base().to_owned(),
                            reason: format!(
                                "chunk {} of {path} not come in {waited:?}",
                                fetch.index
                            ),
                        };
                        self.blame(place, &error, now);
                    }
                }
                Outcome::Kept
            }
            Err(Failure::Dropped) => Outcome::Dropped,
            Err(Failure::Node(error)) => {
                let outcome = match error {
                    Error::Missing { .. } | Error::Gone { .. } => Outcome::Missing,
                    Error::Liar { .. } | Error::Untrusted { .. } => Outcome::Mismatch,
                    Error::Retry { .. } | Error::Stranger { .. } | Error::Stalled { .. } => {
                        Outcome::Failed
                    }
                };
                if let Some(transfer) = transfer {
                    match &error {
                        Error::Missing { .. } => transfer.misses(fetch.source, fetch.index),
                        Error::Gone { .. } => transfer.gone(fetch.source),
                        _ => {}
                    }
                }
                if matches!(error, Error::Missing { .. }) && node.missed() {
                    let error = Error::Liar {
                        node: node.client.base().to_owned(),
                        reason: "it says that it has chunks and has not".to_owned(),
                    };
                    self.blame(fetch.source, &error, now);
                } else {
                    self.blame(fetch.source, &error, now);
                }
                outcome
            }
            Err(Failure::Write(WriteError::Mismatch { .. })) => {
                let error = Error::Liar {
                    node: node.client.base().to_owned(),
                    reason: format!("chunk {} of {path}: digest mismatch", fetch.index),
                };
                self.blame(fetch.source, &error, now);
                Outcome::Mismatch
            }
            Err(Failure::Write(error)) => {
                let outcome = match error {
                    WriteError::Full { .. } => Outcome::Full,
                    _ => Outcome::Io,
                };
                // Others go on; this one is tried again in the next round.
                if self.transfers.remove(path).is_some() {
                    tracing::error!(path, %error, "object not filled on");
                }
                self.swarm.expect(id, Vec::new());
                self.refused.insert(path.to_owned(), error.to_string());
                outcome
            }
        };
        metrics.replication.chunk(outcome);
        self.close_stuck(path);
    }

    /// Closes a transfer of which no node holds a missing chunk, so that others have its place. It is begun again in
    /// the next round.
    fn close_stuck(&mut self, path: &str) {
        let Some(transfer) = self.transfers.get(path).filter(|t| t.pending.is_empty()) else {
            return;
        };
        let have = transfer.object.have();
        if let Some(index) = have.missing().next()
            && !have.missing().any(|index| transfer.is_held(index))
        {
            let reason = format!("{path}: no node holds chunk {index}");
            self.refused.insert(path.to_owned(), reason);
            self.transfers.remove(path);
        }
    }

    /// What a node's failure costs it, and what is done about it.
    fn blame(&mut self, place: usize, error: &Error, now: Now) {
        self.seed = self.seed.wrapping_add(1);
        let node = &mut self.nodes[place];
        match error {
            Error::Missing { .. } => {}
            Error::Gone { .. } => {
                // Something newer stands there: its index is read again soon.
                let soon = self.round.began.plus(SOON);
                self.round.due = self.round.due.min(soon);
            }
            // Who says that it is the origin, and is slow, may be all there is.
            Error::Stalled { .. } if !node.named && !node.origin => {
                self.metrics.peers.limit(Limit::Silence);
                self.put_aside(place, error, now);
            }
            Error::Retry { .. } | Error::Stranger { .. } | Error::Stalled { .. } => {
                node.health.failed(now, self.seed);
                node.fails(error);
            }
            Error::Liar { .. } => self.put_aside(place, error, now),
            Error::Untrusted { fault, .. } => {
                self.metrics.replication.refused(*fault);
                // What another origin signed may be held in good faith; others are asked meanwhile.
                match fault {
                    SealFault::OtherKey => node.health.failed(now, self.seed),
                    _ => node.health.lied(now),
                }
                node.fails(error);
            }
        }
    }

    /// A node is not asked for a good while, and what it was asked for is asked of others at once.
    fn put_aside(&mut self, place: usize, error: &Error, now: Now) {
        let node = &mut self.nodes[place];
        node.put_aside(now);
        node.fails(error);
        self.metrics.peers.put_aside.inc();
        self.transfers.values().for_each(|t| t.leave(place));
    }
}
