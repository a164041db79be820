//! A look at the keys of a trust anchor's zone, for [`roll`](super::roll).

use std::sync::Arc;

use super::super::recurse::dname::Dname;
use super::super::recurse::fact::{NANOS, What};
use super::super::recurse::iterate::Errand;
use super::super::recurse::net::Net;
use super::super::recurse::rtype;
use super::super::recurse::store::Perishable as _;
use super::super::recurse::trouble::{Bogus, Trouble};
use super::chain::{Keys, bogus};
use super::crypto::{Dnskey, REVOKE};
use super::roll::Look;
use super::signature;

impl<N: Net> Errand<'_, N> {
    /// What `zone`, which has an anchor, shows now: fetched anew, proven by the keys believed so far.
    ///
    /// # Errors
    /// It cannot be had, or those keys have not signed it.
    pub(in super::super) async fn look(&mut self, zone: &Dname) -> Result<Look, Trouble> {
        let world = self.world;
        let anchors = Arc::clone(&self.anchors);
        world.facts.drop_one(zone, rtype::DNSKEY);
        world.trusts.drop_one(zone, rtype::DNSKEY);
        let whole = match self.trust(&anchors, zone, 0).await? {
            Keys::Secure(_) => true,
            Keys::Insecure => return Err(bogus(zone, Bogus::Dnskey)),
            // Perhaps all that have signed it are revoked now.
            Keys::Bogus(_) => false,
        };
        let fact = self.lookup(zone, rtype::DNSKEY, 0).await?;
        let What::Set { set, .. } = &fact.what else {
            return Err(bogus(zone, Bogus::Dnskey));
        };
        let (unix, account) = (self.unix(), &mut self.account);
        let revoked = set.data.iter().filter(|rdata| {
            rdata.get(1).is_some_and(|low| low & REVOKE != 0)
                && Dnskey::revoked(rdata).is_some()
                && signature::is_self_revoked(set, zone, rdata, unix, account)
        });
        let revoked: Vec<_> = revoked.cloned().collect();
        self.count_reached();
        if !whole && revoked.is_empty() {
            return Err(bogus(zone, Bogus::Dnskey));
        }
        let now = self.now();
        let trust = world.trusts.find(zone, rtype::DNSKEY, now);
        let left_ns = trust.map_or(0, |trust| trust.until_ns().saturating_sub(now.mono_ns));
        Ok(Look {
            keys: set.data.clone(),
            revoked,
            whole,
            ttl: u32::try_from(left_ns / NANOS).unwrap_or(u32::MAX),
        })
    }
}
