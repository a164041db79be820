//! The chain of trust, walked for one errand: from the data to the zone that signed it, from its keys to its DS, and so up
//! to an anchor.
//!
//! Each step goes to a name strictly above, so it ends. What has been proven is kept with the time it holds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::super::recurse::dname::Dname;
use super::super::recurse::fact::{Fact, Status, What};
use super::super::recurse::iterate::Errand;
use super::super::recurse::judge::Nothing;
use super::super::recurse::net::Net;
use super::super::recurse::response::RrSet;
use super::super::recurse::rtype;
use super::super::recurse::store::Perishable;
use super::super::recurse::trouble::{Bogus, Trouble};
use super::anchor::Anchors;
use super::crypto::{self, Dnskey};
use super::denial::{NoDs, Proof, Proofs};
use super::signature::{self, Verified};

/// What is known of a zone's keys.
#[derive(Clone, Debug)]
pub(in super::super) struct Trust {
    keys: Keys,
    until_ns: u64,
}

/// The keys of a zone.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// DNSKEY RDATA, proven.
    Secure(KeySet),
    /// It is proven that the zone need not be signed.
    Insecure,
    /// The zone should be signed, and its keys do not hold.
    Bogus(Bogus),
}

impl Perishable for Trust {
    fn until_ns(&self) -> u64 {
        self.until_ns
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
            + match &self.keys {
                Keys::Secure(keys) => keys.iter().map(|key| key.len() + 16).sum(),
                Keys::Insecure | Keys::Bogus(_) => 0,
            }
    }
}

/// RDATA of DNSKEY records.
pub(super) type KeySet = Arc<[Box<[u8]>]>;

/// What the DS set of a name says.
enum Ds {
    /// A signed zone begins there.
    Signed { set: Vec<Box<[u8]>>, until_ns: u64 },
    /// An unsigned one does, or the name is beneath one.
    Insecure,
    /// No zone begins there.
    NoCut,
}

/// A status, and until when it holds.
struct Found {
    status: Status,
    until_ns: u64,
    /// The fact without what did not hold and is not needed.
    what: Option<What>,
    /// The wildcard it was made from, with NSEC records to show that it was.
    wildcard: Option<Dname>,
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'a>>;

impl<N: Net> Errand<'_, N> {
    /// Proves `fact`, which answers (`name`, `qtype`), or that it needs no proof; returns it with its status. What is bogus is
    /// dropped.
    pub(in super::super) fn check<'a>(
        &'a mut self,
        name: &'a Dname,
        qtype: u16,
        fact: Arc<Fact>,
        depth: u8,
    ) -> Pending<'a, Arc<Fact>> {
        Box::pin(async move {
            if self.world.config.dnssec.is_none() {
                return Ok(fact);
            }
            let anchors = Arc::clone(&self.anchors);
            let mut fact = fact;
            let mut avoided = Vec::new();
            loop {
                let trouble = match self.prove(&anchors, name, qtype, &fact, depth).await {
                    Err(Trouble::Bogus { name, why }) => Trouble::Bogus { name, why },
                    proven => return proven,
                };
                (self.world.facts).drop_one(fact.kept_at(name), fact.kept_as(qtype));
                match self
                    .ask_another(name, qtype, &fact, &trouble, &mut avoided, depth)
                    .await
                {
                    Some(other) => fact = other,
                    None => return Err(self.blame(&anchors, name, qtype, trouble, depth).await),
                }
            }
        })
    }

    /// Proves `fact`, and keeps it with what is proven.
    async fn prove(
        &mut self,
        anchors: &Anchors,
        name: &Dname,
        qtype: u16,
        fact: &Arc<Fact>,
        depth: u8,
    ) -> Result<Arc<Fact>, Trouble> {
        if fact.status != Status::Unchecked {
            return Ok(Arc::clone(fact));
        }
        // Another errand that waited for the same may have checked it meanwhile.
        let now = self.now();
        if let Some(known) = (self.world.facts)
            .find(fact.kept_at(name), fact.kept_as(qtype), now)
            .filter(|known| known.status != Status::Unchecked)
        {
            return Ok(known);
        }
        let found = match &fact.what {
            What::Set { set, proof } => self.check_set(anchors, set, proof, depth).await,
            What::Nothing(nothing) => {
                self.check_nothing(anchors, name, qtype, nothing, depth)
                    .await
            }
        }?;
        let checked = Arc::new(Fact {
            what: found.what.unwrap_or_else(|| fact.what.clone()),
            status: found.status,
            from: fact.from,
            until_ns: fact.until_ns.min(found.until_ns),
        });
        let now = self.now();
        let (at, rtype) = (checked.kept_at(name), checked.kept_as(qtype));
        let facts = &self.world.facts;
        facts.keep(at, rtype, Arc::clone(&checked), now);
        if let (Some(wildcard), What::Set { set, .. }) = (found.wildcard, &checked.what) {
            // What it was made from, for other names that it stands for.
            let what = What::Set {
                set: Arc::new(RrSet {
                    owner: wildcard.clone(),
                    ..RrSet::clone(set)
                }),
                proof: Vec::new(),
            };
            let fact = Arc::new(Fact {
                what,
                ..Fact::clone(&checked)
            });
            facts.keep(&wildcard, rtype, fact, now);
        }
        Ok(checked)
    }

    async fn check_set(
        &mut self,
        anchors: &Anchors,
        set: &Arc<RrSet>,
        proof: &[Arc<RrSet>],
        depth: u8,
    ) -> Result<Found, Trouble> {
        // Nobody signs signatures; the answer to a question for them is as it is.
        if set.rtype == rtype::RRSIG || anchors.of(&set.owner).is_none() {
            return Ok(insecure());
        }
        let most = self.account.signatures_per_rrset;
        let Some(zone) = signer(anchors, set, most) else {
            return self.unsigned(anchors, &set.owner, set.rtype, depth).await;
        };
        let keys = match self.trust(anchors, &zone, depth).await? {
            Keys::Secure(keys) => keys,
            Keys::Insecure => return Ok(insecure()),
            Keys::Bogus(why) => return Err(bogus(&set.owner, why)),
        };
        let verified = self.verify(set, &zone, &keys)?;
        let Some(encloser) = verified.encloser else {
            return Ok(Found {
                status: Status::Secure,
                until_ns: self.until(verified.ttl),
                what: None,
                wildcard: None,
            });
        };
        let (proof, ttl) = self.verify_all(proof, &zone, &keys)?;
        let account = &mut self.account;
        let proven = Proofs::new(&proof, &zone, account).expanded(&set.owner, &encloser, account);
        self.count_reached();
        let until_ns = self.until(ttl.min(verified.ttl));
        let by_nsec = proof.iter().any(|set| set.rtype == rtype::NSEC);
        let wildcard = (proven == Proof::Secure && by_nsec && set.rtype != rtype::DNAME)
            .then(|| encloser.wildcard())
            .flatten();
        if wildcard.is_some() {
            let most = self.now().plus(self.world.config.negative_max_ttl).mono_ns;
            let now = self.now();
            let ranges = &self.world.ranges;
            ranges.keep(&zone, None, &proof, until_ns.min(most), now);
        }
        Ok(Found {
            status: status(proven).ok_or_else(|| bogus(&set.owner, Bogus::Denial))?,
            until_ns,
            what: Some(What::Set {
                set: Arc::clone(set),
                proof,
            }),
            wildcard,
        })
    }

    async fn check_nothing(
        &mut self,
        anchors: &Anchors,
        name: &Dname,
        qtype: u16,
        nothing: &Nothing,
        depth: u8,
    ) -> Result<Found, Trouble> {
        if anchors.of(name).is_none() {
            return Ok(insecure());
        }
        let most = self.account.signatures_per_rrset;
        let zone = nothing.proof.iter().find_map(|set| {
            let zone = signer(anchors, set, most)?;
            let speaks = if qtype == rtype::DS && !name.is_root() {
                name.is_strictly_beneath(&zone)
            } else {
                name.is_beneath(&zone)
            };
            speaks.then_some(zone)
        });
        let Some(zone) = zone else {
            let found = self.unsigned(anchors, name, qtype, depth).await;
            return found.map_err(|error| match error {
                Trouble::Bogus {
                    name,
                    why: Bogus::Unsigned,
                } => bogus(&name, Bogus::Denial),
                other => other,
            });
        };
        let keys = match self.trust(anchors, &zone, depth).await? {
            Keys::Secure(keys) => keys,
            Keys::Insecure => return Ok(insecure()),
            Keys::Bogus(why) => return Err(bogus(name, why)),
        };
        let (proof, mut ttl) = self.verify_all(&nothing.proof, &zone, &keys)?;
        let mut soa = None;
        if let Some(set) = nothing.soa.as_ref().filter(|soa| soa.owner == zone) {
            ttl = ttl.min(self.verify(set, &zone, &keys)?.ttl);
            soa = Some(Arc::clone(set));
        }
        let account = &mut self.account;
        let proofs = Proofs::new(&proof, &zone, account);
        let proven = if nothing.nxdomain {
            proofs.nxdomain(name, account)
        } else {
            proofs.nodata(name, qtype, account)
        };
        self.count_reached();
        let until_ns = self.until(ttl);
        if let (Proof::Secure, Some(soa)) = (proven, &soa) {
            let most = self.now().plus(self.world.config.negative_max_ttl).mono_ns;
            let now = self.now();
            self.world
                .ranges
                .keep(&zone, Some(soa), &proof, until_ns.min(most), now);
        }
        Ok(Found {
            status: status(proven).ok_or_else(|| bogus(name, Bogus::Denial))?,
            until_ns,
            what: Some(What::Nothing(Nothing {
                nxdomain: nothing.nxdomain,
                soa,
                proof,
            })),
            wildcard: None,
        })
    }

    /// Whether data of `rtype` at `owner` may be without signatures: only beneath a delegation proven to be unsigned.
    async fn unsigned(
        &mut self,
        anchors: &Anchors,
        owner: &Dname,
        rtype: u16,
        depth: u8,
    ) -> Result<Found, Trouble> {
        let Some(anchor) = anchors.of(owner) else {
            return Ok(insecure());
        };
        // The parent signs the DS.
        let lowest = owner.labels() - usize::from(rtype == rtype::DS && !owner.is_root());
        let mut signed = false;
        let now = self.now();
        // Where delegations are known, the answer is probably among them.
        let (cuts, others): (Vec<usize>, Vec<usize>) = (anchor.zone.labels() + 1..=lowest)
            .partition(|&labels| {
                let zone = owner.suffix(labels);
                self.world.cuts.find(&zone, rtype::NS, now).is_some()
            });
        for labels in cuts.into_iter().chain(others) {
            match self.ds(&owner.suffix(labels), depth).await {
                Ok(Ds::Insecure) => return Ok(insecure()),
                Ok(Ds::Signed { .. }) => signed = true,
                Ok(Ds::NoCut) => {}
                // Beneath a signed zone nothing shows an unsigned delegation.
                Err(Trouble::Bogus { .. }) if signed => break,
                Err(error) => return Err(error),
            }
        }
        Err(bogus(owner, Bogus::Unsigned))
    }

    /// What the parent says of the keys of `zone`.
    async fn ds(&mut self, zone: &Dname, depth: u8) -> Result<Ds, Trouble> {
        let Some(dnssec) = &self.world.config.dnssec else {
            return Ok(Ds::Insecure);
        };
        let now = self.now();
        if let Some(trust) = self.world.trusts.find(zone, rtype::DNSKEY, now)
            && let Keys::Insecure = trust.keys
        {
            return Ok(Ds::Insecure);
        }
        let fact = self.lookup(zone, rtype::DS, depth).await?;
        if fact.alias(zone, rtype::DS).is_some() {
            return Ok(Ds::NoCut);
        }
        let fact = self.check(zone, rtype::DS, fact, depth).await?;
        let ds = match (&fact.what, fact.status) {
            (What::Set { set, .. }, Status::Secure) => {
                let known = || set.data.iter().filter(|ds| crypto::is_supported(ds));
                // RFC 4509 section 3: SHA-1 is for those who give nothing better.
                let strong = known().any(|ds| ds[3] != 1);
                let mut usable = known().filter(|ds| !strong || ds[3] != 1);
                let set: Vec<_> = usable.by_ref().take(dnssec.ds_records).cloned().collect();
                if usable.next().is_some() {
                    self.world.limits.ds_records.inc();
                }
                if set.is_empty() {
                    Ds::Insecure
                } else {
                    let until_ns = fact.until_ns;
                    Ds::Signed { set, until_ns }
                }
            }
            (What::Nothing(nothing), Status::Secure) => {
                let first = nothing.proof.first();
                let most = self.account.signatures_per_rrset;
                let signer = first.and_then(|set| signer(&self.anchors, set, most));
                let account = &mut self.account;
                let no_ds = signer.map_or(NoDs::Unproven, |signer| {
                    Proofs::new(&nothing.proof, &signer, account).no_ds(zone, account)
                });
                self.count_reached();
                match no_ds {
                    NoDs::Unsigned => Ds::Insecure,
                    // The operator says that a zone begins there, and it is proven that nobody vouches for its keys.
                    NoDs::NoCut if self.world.begins_forward_zone(zone) => Ds::Insecure,
                    NoDs::NoCut => Ds::NoCut,
                    NoDs::Unproven => return Err(bogus(zone, Bogus::Denial)),
                }
            }
            (_, _) => Ds::Insecure,
        };
        if let Ds::Insecure = ds {
            self.keep_trust(zone, Keys::Insecure, fact.until_ns);
        }
        Ok(ds)
    }

    /// The keys of `zone`.
    pub(super) fn trust<'a>(
        &'a mut self,
        anchors: &'a Anchors,
        zone: &'a Dname,
        depth: u8,
    ) -> Pending<'a, Keys> {
        Box::pin(async move {
            let now = self.now();
            if let Some(trust) = self.world.trusts.find(zone, rtype::DNSKEY, now) {
                return Ok(trust.keys.clone());
            }
            let Some(anchor) = anchors.of(zone) else {
                return Ok(Keys::Insecure);
            };
            let (ds, own, until_ns) = if anchor.zone == *zone {
                (anchor.ds.clone(), &anchor.keys[..], u64::MAX)
            } else {
                match self.ds(zone, depth).await? {
                    Ds::Signed { set, until_ns } => (set, &[][..], until_ns),
                    Ds::Insecure => return Ok(Keys::Insecure),
                    // Whoever signs in its name is not a zone.
                    Ds::NoCut => return Ok(Keys::Bogus(Bogus::Dnskey)),
                }
            };
            let fact = self.lookup(zone, rtype::DNSKEY, depth).await?;
            let now = self.now();
            if let Some(trust) = self.world.trusts.find(zone, rtype::DNSKEY, now) {
                return Ok(trust.keys.clone());
            }
            let mut fact = fact;
            let mut avoided = Vec::new();
            let found = loop {
                let found = match &fact.what {
                    What::Set { set, .. } if set.rtype == rtype::DNSKEY => {
                        self.entry(zone, set, &ds, own)
                    }
                    _ => Err(Bogus::Dnskey),
                };
                let Err(why) = found else { break found };
                self.world.facts.drop_one(zone, rtype::DNSKEY);
                let trouble = bogus(zone, why);
                match self
                    .ask_another(zone, rtype::DNSKEY, &fact, &trouble, &mut avoided, depth)
                    .await
                {
                    Some(other) => fact = other,
                    None => break Err(why),
                }
            };
            let (keys, until_ns) = match found {
                Ok((keys, ttl)) => {
                    let until_ns = until_ns.min(fact.until_ns).min(self.until(ttl));
                    (Keys::Secure(keys), until_ns)
                }
                Err(why) => (Keys::Bogus(why), self.until(BOGUS)),
            };
            // Who has run out of checks has not seen whether they hold.
            if !matches!(keys, Keys::Bogus(Bogus::Checks)) {
                self.keep_trust(zone, keys.clone(), until_ns);
            }
            Ok(keys)
        })
    }

    /// The keys in `set`, if one of those that `ds` or the anchor's `own` speak of has signed it; and how long they hold, seconds.
    fn entry(
        &mut self,
        zone: &Dname,
        set: &RrSet,
        ds: &[Box<[u8]>],
        own: &[Box<[u8]>],
    ) -> Result<(KeySet, u32), Bogus> {
        let unix = self.unix();
        let entries: Vec<Box<[u8]>> = set
            .data
            .iter()
            .filter(|rdata| {
                Dnskey::read(rdata).is_some_and(|key| {
                    own.contains(rdata) || ds.iter().any(|ds| key.matches(zone, ds))
                })
            })
            .cloned()
            .collect();
        if entries.is_empty() {
            return Err(Bogus::Dnskey);
        }
        let verified = signature::verify(set, zone, &entries, unix, &mut self.account);
        let verified = self.charged(verified)?;
        let keys = set
            .data
            .iter()
            .filter(|rdata| Dnskey::read(rdata).is_some());
        Ok((keys.cloned().collect(), verified.ttl))
    }

    fn verify(
        &mut self,
        set: &RrSet,
        zone: &Dname,
        keys: &[Box<[u8]>],
    ) -> Result<Verified, Trouble> {
        let unix = self.unix();
        let verified = signature::verify(set, zone, keys, unix, &mut self.account);
        self.charged(verified).map_err(|why| bogus(&set.owner, why))
    }

    /// The sets among `sets` that are of `zone` and hold, and how long all of them do.
    fn verify_all(
        &mut self,
        sets: &[Arc<RrSet>],
        zone: &Dname,
        keys: &[Box<[u8]>],
    ) -> Result<(Vec<Arc<RrSet>>, u32), Trouble> {
        let mut good = Vec::new();
        let mut ttl = u32::MAX;
        for set in sets {
            match self.verify(set, zone, keys) {
                // A proof made from a wildcard is none.
                Ok(verified) if verified.encloser.is_none() => {
                    ttl = ttl.min(verified.ttl).min(set.ttl);
                    good.push(Arc::clone(set));
                }
                Err(Trouble::Bogus { name, why }) if why == Bogus::Checks => {
                    return Err(Trouble::Bogus { name, why });
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok((good, ttl))
    }

    fn charged(&mut self, verified: Result<Verified, Bogus>) -> Result<Verified, Bogus> {
        self.count_reached();
        if verified == Err(Bogus::Checks) {
            self.world.limits.signatures.inc();
        }
        verified
    }

    /// Counts the bounds that took effect.
    pub(super) fn count_reached(&mut self) {
        let reached = std::mem::take(&mut self.account.reached);
        let limits = &self.world.limits;
        for (reached, limit) in [
            (reached.keys_per_tag, &limits.keys_per_tag),
            (reached.signatures_per_rrset, &limits.signatures_per_rrset),
            (reached.nsec3_iterations, &limits.nsec3_iterations),
            (reached.nsec3_hashes, &limits.nsec3_hashes),
        ] {
            if reached {
                limit.inc();
            }
        }
    }

    fn keep_trust(&self, zone: &Dname, keys: Keys, until_ns: u64) {
        let trust = Arc::new(Trust { keys, until_ns });
        let now = self.now();
        self.world.trusts.keep(zone, rtype::DNSKEY, trust, now);
    }

    /// In `ttl` seconds, on the monotonic clock.
    fn until(&self, ttl: u32) -> u64 {
        self.now().plus(Duration::from_secs(ttl.into())).mono_ns
    }

    /// Seconds since 1970, as signatures count them: they wrap.
    pub(super) fn unix(&self) -> u32 {
        (self.now().unix_ms / 1_000) as u32
    }
}

/// The zone that claims to have signed `set`, if it may have: at or beneath the anchor.
fn signer(anchors: &Anchors, set: &RrSet, most: usize) -> Option<Dname> {
    let anchor = anchors.of(&set.owner)?;
    signature::signer(set, most).filter(|signer| signer.is_beneath(&anchor.zone))
}

fn status(proof: Proof) -> Option<Status> {
    match proof {
        Proof::Secure => Some(Status::Secure),
        Proof::Insecure => Some(Status::Insecure),
        Proof::None => None,
    }
}

fn insecure() -> Found {
    Found {
        status: Status::Insecure,
        until_ns: u64::MAX,
        what: None,
        wildcard: None,
    }
}

pub(super) fn bogus(name: &Dname, why: Bogus) -> Trouble {
    Trouble::Bogus {
        name: name.clone(),
        why,
    }
}

/// How long it is remembered that a zone's keys do not hold, seconds.
const BOGUS: u32 = 30;
