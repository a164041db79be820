//! What is not asked of a zone's servers but of upstreams: names beneath a forward zone, or all.
//!
//! Upstreams are asked for each RRset, keys and DS records included, as the servers of one zone that reaches down to every name, with CD and DO
//! set: what they have validated themselves is not taken on trust. Which upstreams a name belongs to is said by its partition; of a
//! forward zone's DS that of its parent.

use std::sync::Arc;

use super::super::forward::{Avoid, Unanswered};
use super::super::partition::Partition;
use super::cut::Cut;
use super::dname::Dname;
use super::fact::Source;
use super::iterate::{Errand, Heard, World};
use super::judge;
use super::net::Net;
use super::rtype;
use super::trouble::Trouble;

impl<N: Net> Errand<'_, N> {
    /// Puts the question to the upstreams of `partition`, which speak for all beneath `cut`.
    pub(super) async fn ask_upstreams(
        &self,
        cut: &Cut,
        partition: Partition,
        name: &Dname,
        qtype: u16,
    ) -> Result<Heard, Trouble> {
        let world = self.world;
        if self.budget.remaining(self.now()).is_zero() {
            world.limits.time.inc();
            return Err(Trouble::Time);
        }
        let avoid = self.avoid(partition, name, qtype);
        let reply = (world.net).forward(partition, (name, qtype), avoid, self.budget);
        let (response, place) = reply.await.map_err(|unanswered| match unanswered {
            Unanswered::Exhausted => Trouble::Packets,
            Unanswered::TimeUp => Trouble::Time,
            Unanswered::Busy => Trouble::Busy(cut.zone.clone()),
            Unanswered::Nobody => Trouble::Unreachable(cut.zone.clone()),
            Unanswered::Failed(_) => Trouble::Useless(cut.zone.clone()),
        })?;
        let verdict = judge::relayed(&response, &cut.zone, name, qtype);
        Ok(Heard {
            verdict,
            response,
            from: Some(Source::Upstream(partition, place)),
        })
    }

    /// Which upstreams of `partition` are not asked for (`name`, `qtype`), and which only if no other answers.
    fn avoid(&self, partition: Partition, name: &Dname, qtype: u16) -> Avoid {
        let bits = |places: &mut dyn Iterator<Item = (Partition, u8)>| {
            (places.filter(|(of, _)| *of == partition))
                .fold(0, |bits, (_, place)| bits | 1_u64 << place)
        };
        let told = self.avoided(name, qtype).iter();
        Avoid {
            never: bits(&mut told.filter_map(|source| match source {
                Source::Upstream(of, place) => Some((*of, *place)),
                Source::Server(_) => None,
            })),
            last: bits(&mut self.suspects.iter().copied()),
        }
    }
}

impl<N> World<N> {
    /// The partition that (`name`, `qtype`) belongs to.
    pub(super) fn partition(&self, name: &Dname, qtype: u16) -> Partition {
        match (qtype, name.parent()) {
            (rtype::DS, Some(parent)) => self.routes.find(&parent),
            _ => self.routes.find(name),
        }
    }

    /// Who is asked for (`name`, `qtype`), as servers of one zone; `None`: it is resolved from the root.
    pub(in super::super) fn upstreams(&self, name: &Dname, qtype: u16) -> Option<Arc<Cut>> {
        let partition = self.partition(name, qtype);
        if partition == Partition(0) && self.config.from_root {
            return None;
        }
        let zone = match self.routes.zone(partition) {
            [] => Dname::root(),
            apex => Dname::new(apex),
        };
        Some(Arc::new(Cut {
            zone,
            servers: Vec::new(),
            upstreams: Some(partition),
            since_ns: 0,
            until_ns: u64::MAX,
        }))
    }

    /// Whether a forward zone begins at `name`.
    pub(in super::super) fn begins_forward_zone(&self, name: &Dname) -> bool {
        let partition = self.routes.find(name);
        partition != Partition(0) && self.routes.zone(partition) == &**name
    }
}
