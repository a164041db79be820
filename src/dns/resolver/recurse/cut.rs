//! Delegations: where a zone begins and who its servers are, as its parent told.
//!
//! They are kept apart from data. What a zone says of its own NS set never changes or prolongs them, so a zone that its parent has
//! taken away dies with the TTL the parent gave it ("ghost domains"), and everything beneath with it.

use std::sync::Arc;

use super::super::partition::Partition;
use super::dname::Dname;
use super::judge::NameServer;
use super::rtype;
use super::store::{Perishable, Store};
use crate::time::Now;

/// A zone and its servers.
#[derive(Clone, Debug)]
pub(in super::super) struct Cut {
    pub(super) zone: Dname,
    pub(super) servers: Vec<NameServer>,
    /// Instead of servers of its own: the upstreams that are asked for what lies beneath it.
    pub(super) upstreams: Option<Partition>,
    /// On the monotonic clock, nanoseconds.
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
}

impl Cut {
    /// Until when what its servers say may be kept. The root is nobody's to take away; its entry ends only so that its servers
    /// are asked for anew.
    pub(super) fn bound_ns(&self) -> u64 {
        if self.zone.is_root() {
            u64::MAX
        } else {
            self.until_ns
        }
    }

    /// Whether it may still be started from at `now`. With a tenth of its life left it is fetched anew, so that what is
    /// learnt beneath it need not be thrown away at once.
    fn is_fresh(&self, now: Now) -> bool {
        let reserve = self.until_ns.saturating_sub(self.since_ns) / 10;
        now.mono_ns < self.until_ns.saturating_sub(reserve)
    }
}

impl Perishable for Cut {
    fn until_ns(&self) -> u64 {
        self.until_ns
    }

    fn weight(&self) -> usize {
        let server = |server: &NameServer| {
            size_of::<NameServer>() + server.name.len() + 16 + server.glue.len() * 17
        };
        size_of::<Self>() + self.zone.len() + self.servers.iter().map(server).sum::<usize>()
    }
}

/// The delegation closest to `name` at `now`.
pub(super) fn closest(cuts: &Store<Cut>, name: &Dname, now: Now) -> Option<Arc<Cut>> {
    name.ancestors().find_map(|zone| {
        let cut = cuts.find(zone, rtype::NS, now)?;
        cut.is_fresh(now).then_some(cut)
    })
}
