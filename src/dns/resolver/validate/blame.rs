//! Who is to blame for what does not validate: one of a zone's servers or one upstream, so that another may be asked; or upstreams of
//! which none passes on signatures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::recurse::dname::Dname;
use super::super::recurse::fact::{Fact, Source, What};
use super::super::recurse::iterate::{Avoided, Errand};
use super::super::recurse::net::Net;
use super::super::recurse::rtype;
use super::super::recurse::trouble::{Bogus, Trouble};
use super::anchor::Anchors;
use super::chain::bogus;

impl<N: Net> Errand<'_, N> {
    /// What another server of the zone, or another upstream, says of (`name`, `qtype`), since what `fact` says does not validate; `avoided`
    /// are those asked so far. `None`: there is none, or enough have been asked for this client query. It is all on its account.
    pub(super) async fn ask_another(
        &mut self,
        name: &Dname,
        qtype: u16,
        fact: &Fact,
        trouble: &Trouble,
        avoided: &mut Vec<Source>,
        depth: u8,
    ) -> Option<Arc<Fact>> {
        let source = fact.from?;
        if let Trouble::Bogus {
            why: Bogus::Checks, ..
        } = trouble
        {
            return None;
        }
        if self.others == 0 {
            self.world.limits.other_servers.inc();
            return None;
        }
        self.others -= 1;
        tracing::debug!(name = %name, qtype, ?source, %trouble, "asking another server");
        avoided.push(source);
        if let Source::Upstream(partition, place) = source
            && !self.suspects.contains(&(partition, place))
        {
            self.suspects.push((partition, place));
        }
        let before = self.avoided.replace(Avoided {
            name: name.clone(),
            qtype,
            sources: avoided.clone(),
        });
        let other = self.lookup(name, qtype, depth).await;
        self.avoided = before;
        other.ok()
    }

    /// The same trouble, or that the upstreams are to blame for it: they do not even pass on the signatures over the keys at the anchor.
    pub(super) async fn blame(
        &mut self,
        anchors: &Anchors,
        name: &Dname,
        qtype: u16,
        trouble: Trouble,
        depth: u8,
    ) -> Trouble {
        let Trouble::Bogus {
            name: culprit,
            why: Bogus::Unsigned | Bogus::Denial | Bogus::Dnskey,
        } = &trouble
        else {
            return trouble;
        };
        let relayed = |name: &Dname, qtype| self.world.upstreams(name, qtype).is_some();
        let Some(anchor) = anchors.of(name) else {
            return trouble;
        };
        if !relayed(name, qtype) || !relayed(&anchor.zone, rtype::DNSKEY) {
            return trouble;
        }
        let stripped = match self.lookup(&anchor.zone, rtype::DNSKEY, depth).await {
            Ok(fact) => match &fact.what {
                What::Set { set, .. } => set.sigs.is_empty(),
                What::Nothing(_) => true,
            },
            Err(_) => false,
        };
        if !stripped {
            return trouble;
        }
        if !self.world.stripped.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                anchor = %anchor.zone,
                "upstreams pass on no signatures, so nothing they say validates (resolver.dnssec)"
            );
        }
        bogus(culprit, Bogus::Stripped)
    }
}
