//! The decision about one query: own zones first, then the resolver cache. Pure: bytes, snapshot,
//! `now` and `seed` in, bytes and an outcome out; allocates nothing.
//!
//! The walk is that of RFC 1034 section 4.3.2 with RFC 4592 (wildcards), RFC 2308 (negative answers), RFC 6672
//! (DNAME), RFC 8482 (ANY) and RFC 9471 (glue). With DO, RRsets of signed zones come with their signatures, and what
//! is missing with its proof (`proof`; RFC 4035 section 3.1).

use super::resolver::cache::{Cache, Cached, Partition};
use super::resolver::near::Near;
use super::resolver::policy::{Policy, Ruling};
use super::wire::{Ede, HEADER_LEN, NAME_MAX, Query, Rcode, Reason, Section, Writer};
use super::zone::path::{Path, resolve_pointer, suffix_in_message};
use super::zone::tree::{
    A, AAAA, CNAME, DNAME, DS, Encloser, Found, HTTPS, MARK_APEX, MARK_OWNER, NO_NODE, NS,
    Place as DataPlace, RECORD_HEAD, RRSIG, RRset, SVCB, Zone, is_service_alias, name_places,
    target_offset,
};
use super::zone::{Place, Zones};
use super::{Outcome, Transport};
use crate::time::Now;

use self::proof::Proofs;

mod proof;

/// What a query may be answered from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Own zones.
    pub zones: &'a Zones,
    /// The resolver's cache and the partition of this name, if this client may recurse.
    pub cache: Option<(&'a Cache, Partition)>,
    /// Local data, special-use names and blocklists, and what the query came over, if this client may recurse.
    pub policy: Option<(&'a Policy, Transport)>,
    /// Aliases followed through own zones, at most [`CHAIN_MAX`].
    pub chain: usize,
}

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The answer is in `out[..len]`.
    Respond {
        /// Bytes of the answer.
        len: usize,
        /// How it is counted.
        outcome: Outcome,
        /// What in own zones it was made from: answers that are equal have an equal source.
        source: u64,
    },
    /// Neither zone nor cache has it: the slow path shall resolve it.
    Recurse,
}

/// Answers `query` into `out`, at most `limit` bytes (then TC, never a partial RRset). Both must be at least
/// [`CODE_LEN_MAX`](super::wire::CODE_LEN_MAX); else nothing is written and the outcome is `Dropped`.
///
/// Own zones are authoritative and never answered from the cache. What is in no own zone is answered
/// from the cache, or is to be resolved, when `view.cache` is there and RD is set; else REFUSED.
/// `seed` rotates the addresses of an RRset.
#[must_use]
pub fn answer(
    query: &Query<'_>,
    view: View<'_>,
    now: Now,
    seed: u64,
    limit: usize,
    out: &mut [u8],
) -> Action {
    let own = Own {
        path: &Path::new(query.name),
        near: None,
    };
    answer_with(query, own, view, now, seed, limit, out)
}

/// What a thread has of its own for a query.
#[derive(Debug)]
pub(in crate::dns) struct Own<'a> {
    /// The path of the query's name.
    pub(in crate::dns) path: &'a Path,
    /// Copies of the cache's answers.
    pub(in crate::dns) near: Option<&'a mut Near>,
}

/// As [`answer`], with what the thread has of its own.
#[must_use]
pub(in crate::dns) fn answer_with(
    query: &Query<'_>,
    Own { path, near }: Own<'_>,
    view: View<'_>,
    now: Now,
    seed: u64,
    limit: usize,
    out: &mut [u8],
) -> Action {
    let place = if query.qclass == CLASS_IN {
        find_zone(view.zones, path, query.qtype)
    } else {
        None
    };
    if place.is_none()
        && query.qclass == CLASS_IN
        && !is_transfer(query.qtype)
        && let Some((policy, transport)) = view.policy
        && let Some(ruling) = policy.answer(query, path, transport, limit, out)
    {
        return match ruling {
            Ruling::Respond { len, outcome } => Action::Respond {
                len,
                outcome,
                source: 0,
            },
            Ruling::Alias => Action::Recurse,
        };
    }
    if place.is_none()
        && query.recursion_desired
        && query.qclass == CLASS_IN
        && !is_transfer(query.qtype)
        && let Some((cache, partition)) = view.cache
    {
        let cached = match near {
            Some(near) => cache.answer_at((near, path), query, partition, now, limit, out),
            None => cache.answer(query, partition, now, limit, out),
        };
        return match cached {
            Cached::Fresh { len, .. } => Action::Respond {
                len,
                outcome: Outcome::CacheHit,
                source: 0,
            },
            Cached::Stale { len } => Action::Respond {
                len,
                outcome: Outcome::CacheStale,
                source: 0,
            },
            Cached::Miss => Action::Recurse,
        };
    }
    let Some(mut writer) = Writer::new(query, limit, out) else {
        return Action::Respond {
            len: 0,
            outcome: Outcome::Dropped,
            source: 0,
        };
    };
    if view.cache.is_some() {
        writer.recursion_available();
    }
    // Large, and only made where it is needed.
    let mut proofs;
    let proofs = if query.dnssec_ok() {
        proofs = Proofs::default();
        Some(&mut proofs)
    } else {
        None
    };
    let mut answer = Answer {
        zones: view.zones,
        chain: view.chain.min(CHAIN_MAX),
        qtype: query.qtype,
        seed,
        source: 0,
        writer,
        proofs,
    };
    let outcome = match place {
        Some(place) if !is_transfer(query.qtype) => answer.authoritative(path, place),
        place => {
            answer.writer.rcode(Rcode::Refused);
            answer.writer.reason(refusal(query, place.is_some(), view));
            Outcome::Refused
        }
    };
    Action::Respond {
        source: answer.source,
        len: answer.writer.finish(),
        outcome,
    }
}

/// The zone that answers for a name: the closest, but for DS at its apex the one above, if that is ours too
/// (RFC 4035 section 3.1.4.1).
fn find_zone<'z>(zones: &'z Zones, path: &Path, qtype: u16) -> Option<Place<'z>> {
    let place = zones.find(path, 0)?;
    if qtype == DS && place.apex == 0 && path.labels() > 0 {
        return zones.find(path, 1).or(Some(place));
    }
    Some(place)
}

/// Zone transfers, and the mail lookups of RFC 883, are not served.
fn is_transfer(qtype: u16) -> bool {
    matches!(qtype, 251..=254)
}

/// Why a query is refused.
#[cold]
fn refusal(query: &Query<'_>, own: bool, view: View<'_>) -> Reason {
    if query.qclass != CLASS_IN {
        Reason::new(Ede::NotSupported, "only class IN is served")
    } else if is_transfer(query.qtype) {
        if own {
            Reason::new(Ede::Prohibited, "")
        } else {
            Ede::NotAuthoritative.into()
        }
    } else if query.recursion_desired && view.cache.is_none() {
        Reason::new(Ede::Prohibited, "no zone of this server, and no recursion")
    } else {
        Reason::new(Ede::NotAuthoritative, "no zone of this server")
    }
}

/// One answer in the making.
#[derive(Debug)]
struct Answer<'a, 'o> {
    zones: &'a Zones,
    /// Aliases followed.
    chain: usize,
    qtype: u16,
    seed: u64,
    source: u64,
    writer: Writer<'o>,
    /// What is to be proved; `None`: signatures were not asked for.
    proofs: Option<&'o mut Proofs<'a>>,
}

/// A name being answered.
#[derive(Clone, Copy, Debug)]
struct Asked<'a, 'p> {
    zone: &'a Zone,
    path: &'p Path,
    /// The label of `path` where the apex starts.
    apex: usize,
    spot: Spot,
}

/// A name in the message: where it starts, and where the apex of its zone starts.
#[derive(Clone, Copy, Debug)]
struct Spot {
    owner: usize,
    apex: usize,
}

impl<'a> Answer<'a, '_> {
    fn authoritative(&mut self, question: &Path, place: Place<'a>) -> Outcome {
        let outcome = self.follow(question, place);
        self.prove_expansions();
        outcome
    }

    /// Follows aliases through own zones, then answers for the last name.
    fn follow(&mut self, question: &Path, place: Place<'a>) -> Outcome {
        self.writer.authoritative();
        let mut path = question;
        let mut next;
        let mut place = place;
        let mut owner = HEADER_LEN;
        let mut seen: [Option<(&Zone, u32, usize)>; CHAIN_MAX] = [None; CHAIN_MAX];
        for slot in 0..=CHAIN_MAX {
            let zone = place.zone;
            let apex = suffix_in_message(self.writer.written(), owner, path.offset(place.apex));
            let spot = Spot { owner, apex };
            let asked = Asked {
                zone,
                path,
                apex: place.apex,
                spot,
            };
            let found = zone.find(path, place.apex, place.hash);
            if slot == 0 {
                self.source = source(place.hash, &found);
            }
            let target = match found {
                Found::Missing(encloser) => return self.nxdomain(asked, encloser),
                Found::Cut { node, depth: 0 } if self.qtype == DS => {
                    return self.data(asked, node, None);
                }
                Found::Cut { node, depth } => {
                    if slot == 0 {
                        self.writer.not_authoritative();
                    }
                    return self.referral(asked, node, depth);
                }
                Found::Dname { node, depth } => {
                    let given = seen.iter().flatten().any(|at| is_same(at, zone, node));
                    let mut before = seen.iter().flatten().filter(|at| is_same(at, zone, node));
                    if before.any(|&(.., at)| self.is_named(at, path)) {
                        return Outcome::Authoritative;
                    }
                    if let Some(free) = seen.get_mut(slot) {
                        *free = Some((zone, node, owner));
                    }
                    let target = self.dname(zone, node, spot, path, depth, given);
                    if target.is_some() && slot == self.chain && self.qtype != CNAME {
                        return Outcome::Chain;
                    }
                    target.filter(|_| self.qtype != CNAME)
                }
                found @ (Found::Node(node) | Found::Wildcard { node, .. }) => {
                    let encloser = match found {
                        Found::Wildcard { encloser, .. } => Some(encloser),
                        _ => None,
                    };
                    let Some(alias) = self.alias(zone, node) else {
                        return self.data(asked, node, encloser);
                    };
                    // A loop ends where it closes. What a wildcard or a DNAME stands for may be another name each time,
                    // and then the bound ends it.
                    let mut before = seen.iter().flatten().filter(|at| is_same(at, zone, node));
                    if before.any(|&(.., at)| encloser.is_none() || self.is_named(at, path)) {
                        return Outcome::Authoritative;
                    }
                    if slot == self.chain {
                        return Outcome::Chain;
                    }
                    seen[slot] = Some((zone, node, owner));
                    if let Some(encloser) = encloser {
                        self.expanded(asked, encloser);
                    }
                    self.put(zone, alias, Section::Answer, spot)
                        .map(|start| start + RECORD_HEAD)
                }
            };
            // An alias out of own zones ends the answer; so does one that did not fit.
            let Some(target) = target else {
                return Outcome::Authoritative;
            };
            let message = self.writer.written();
            owner = resolve_pointer(message, target);
            if owner > POINTER_MAX {
                self.writer.truncated(); // Nothing could point to it.
                return Outcome::Authoritative;
            }
            let Some(aliased) = Path::from_message(message, owner) else {
                return Outcome::Authoritative;
            };
            next = aliased;
            path = &next;
            match find_zone(self.zones, path, self.qtype) {
                Some(next) => place = next,
                None => return Outcome::Authoritative,
            }
        }
        Outcome::Authoritative
    }

    /// Whether the name at `at` of the message is that of `path`.
    fn is_named(&self, at: usize, path: &Path) -> bool {
        Path::from_message(self.writer.written(), at)
            .is_some_and(|name| name.suffix(0).eq_ignore_ascii_case(path.suffix(0)))
    }

    /// The CNAME to follow at a node, if the question is not for what is there.
    fn alias<'z>(&self, zone: &'z Zone, node: u32) -> Option<&'z RRset> {
        if matches!(self.qtype, CNAME | ANY) || zone.rrset(node, self.qtype).is_some() {
            return None;
        }
        zone.rrset(node, CNAME)
    }

    /// The records asked for, with the addresses of what they name; or that there are none. ANY is answered with one
    /// RRset (RFC 8482 section 4.1), and RRSIG with the signatures of one (section 7). `encloser` is there if the node is a wildcard that stands in for the name.
    fn data(&mut self, asked: Asked<'a, '_>, node: u32, encloser: Option<Encloser>) -> Outcome {
        let zone = asked.zone;
        let some = (self.qtype == RRSIG)
            .then(|| zone.some_signatures(node))
            .flatten();
        let rrset = match self.qtype {
            // Signatures alone would be of no use.
            ANY => {
                let all = zone.rrsets_of(node);
                let best = all.iter().find(|rrset| rrset.rtype != RRSIG);
                best.or_else(|| all.first())
            }
            RRSIG => some.as_ref(),
            rtype => zone.rrset(node, rtype),
        };
        let Some(rrset) = rrset else {
            self.negative(asked);
            match encloser {
                None => self.prove_nodata(asked, node, 0),
                Some(encloser) => self.prove_wildcard_nodata(asked, node, encloser),
            }
            return Outcome::Nodata;
        };
        if let Some(encloser) = encloser {
            self.expanded(asked, encloser);
        }
        if let Some(start) = self.put(zone, rrset, Section::Answer, asked.spot) {
            self.prove_expansions();
            self.additional(zone, rrset, start);
        }
        Outcome::Authoritative
    }

    fn nxdomain(&mut self, asked: Asked<'a, '_>, encloser: Encloser) -> Outcome {
        self.writer.rcode(Rcode::NxDomain);
        self.negative(asked);
        self.prove_missing(asked, encloser);
        Outcome::Nxdomain
    }

    /// The SOA with the lower of its TTL and its last field (RFC 2308 section 3).
    fn negative(&mut self, asked: Asked<'a, '_>) {
        let spot = Spot {
            owner: asked.spot.apex,
            ..asked.spot
        };
        self.put(asked.zone, asked.zone.negative(), Section::Authority, spot);
    }

    /// The name servers of the cut whose name starts at label `depth`, their keys or that there are none, and glue.
    fn referral(&mut self, asked: Asked<'a, '_>, node: u32, depth: usize) -> Outcome {
        let (zone, spot) = (asked.zone, asked.spot);
        let message = self.writer.written();
        let owner = suffix_in_message(message, spot.owner, asked.path.offset(depth));
        let cut = Spot { owner, ..spot };
        if let Some(ns) = zone.rrset(node, NS)
            && let Some(start) = self.put(zone, ns, Section::Authority, cut)
        {
            if self.proofs.is_some() && zone.is_signed() {
                match zone.rrset(node, DS) {
                    Some(ds) => {
                        self.put(zone, ds, Section::Authority, cut);
                    }
                    None => self.prove_nodata(asked, node, depth),
                }
                self.prove_expansions();
            }
            self.additional(zone, ns, start);
        }
        Outcome::Referral
    }

    /// The addresses of the names in an RRset that starts at `start` of the message. They may be left out, but for
    /// glue beneath the delegation itself: without it the servers are not to be found (RFC 9471 section 3).
    fn additional(&mut self, zone: &Zone, rrset: &RRset, start: usize) {
        let Some(offset) = target_offset(rrset.rtype) else {
            return;
        };
        let (stored, targets) = (zone.bytes_of(rrset), zone.targets_of(rrset));
        if targets.iter().all(|&target| target == NO_NODE) {
            return;
        }
        // IPv4 of all before IPv6 of any: if they do not all fit, as many servers as possible can be reached. An alias of
        // a service names one that is described by the same type (RFC 9460 section 4.1).
        let types = match rrset.rtype {
            SVCB | HTTPS => &[A, AAAA, rrset.rtype][..],
            _ => &[A, AAAA],
        };
        for &rtype in types {
            let mut at = start;
            for &target in targets {
                let message = self.writer.written();
                let end = at + RECORD_HEAD + data_len(message, at);
                let data = &message[at + RECORD_HEAD..end];
                if target != NO_NODE
                    && (rtype != rrset.rtype || is_service_alias(rtype, data))
                    && let Some(addresses) = zone.rrset(target, rtype)
                {
                    let service = matches!(rrset.rtype, SVCB | HTTPS);
                    let own = service && data.get(offset) == Some(&0);
                    let named = if own { at } else { at + RECORD_HEAD + offset };
                    let owner = resolve_pointer(message, named);
                    let required = rrset.rtype == NS && stored[end - start - 1] == MARK_OWNER;
                    // What a wildcard gives would need a proof of its own; for the answer's own name it is there.
                    let proved = own
                        || self.proofs.is_none()
                        || !zone.is_signed()
                        || !zone.is_wildcard(target);
                    if proved {
                        self.put_additional(zone, addresses, owner, required);
                    }
                }
                at = end;
            }
        }
    }

    fn put_additional(&mut self, zone: &Zone, rrset: &RRset, owner: usize, required: bool) {
        let mark = self.writer.mark();
        let bytes = zone.bytes_of(rrset);
        let (signatures, signed) = self.signatures(zone, rrset);
        let count = rrset.count + signed;
        if owner <= POINTER_MAX {
            let start = self.writer.position();
            if self.writer.append(bytes) && self.writer.append(signatures) {
                point_owners(self.writer.written_mut(), start, owner);
                self.writer.count(Section::Additional, count);
                return;
            }
        } else if let Some(name) = Path::from_message(self.writer.written(), owner) {
            // Beyond the reach of a pointer, in a long answer over TCP: the name is written out.
            if records(bytes).chain(records(signatures)).all(|record| {
                self.writer.append(name.suffix(0)) && self.writer.append(&record[2..])
            }) {
                self.writer.count(Section::Additional, count);
                return;
            }
        }
        self.writer.rewind(mark);
        if required {
            self.writer.truncated();
        }
    }

    /// A DNAME and the CNAME that follows from it (RFC 6672 section 3.1); gives where the CNAME's target starts.
    /// `None`: the answer ends here. The DNAME itself is left out if it was `given` before.
    fn dname(
        &mut self,
        zone: &Zone,
        node: u32,
        spot: Spot,
        path: &Path,
        depth: usize,
        given: bool,
    ) -> Option<usize> {
        let dname = zone.rrset(node, DNAME)?;
        if !given {
            let owner = suffix_in_message(self.writer.written(), spot.owner, path.offset(depth));
            self.put(zone, dname, Section::Answer, Spot { owner, ..spot })?;
        }
        let mut record = [0; RECORD_HEAD + NAME_MAX];
        let (head, target) = zone.bytes_of(dname).split_at(RECORD_HEAD);
        // Owner and type are set below; class and TTL are the DNAME's.
        record[..RECORD_HEAD].copy_from_slice(head);
        let prefix = path.prefix(depth);
        let len = prefix.len() + target.len();
        if len > NAME_MAX {
            self.writer.rcode(Rcode::YxDomain);
            return None;
        }
        record[..2].copy_from_slice(&pointer(spot.owner));
        record[2..4].copy_from_slice(&CNAME.to_be_bytes());
        record[10..12].copy_from_slice(&(len as u16).to_be_bytes()); // At most NAME_MAX.
        record[RECORD_HEAD..RECORD_HEAD + prefix.len()].copy_from_slice(prefix);
        record[RECORD_HEAD + prefix.len()..RECORD_HEAD + len].copy_from_slice(target);
        let at = self.writer.position();
        if !self.writer.append(&record[..RECORD_HEAD + len]) {
            self.writer.truncated();
            return None;
        }
        self.writer.count(Section::Answer, 1);
        Some(at + RECORD_HEAD)
    }

    /// Appends an RRset whole and gives where it starts, or sets TC. Owner and names are pointed to `spot`; addresses
    /// asked for start with another one each time.
    fn put(&mut self, zone: &Zone, rrset: &RRset, section: Section, spot: Spot) -> Option<usize> {
        let bytes = zone.bytes_of(rrset);
        let start = self.writer.position();
        let rotated = if rrset.count > 1 && matches!(rrset.rtype, A | AAAA) {
            let record = bytes.len() / usize::from(rrset.count);
            record * (self.seed % u64::from(rrset.count)) as usize // Below `count`.
        } else {
            0
        };
        let mark = self.writer.mark();
        if !self.writer.append(&bytes[rotated..]) || !self.writer.append(&bytes[..rotated]) {
            self.writer.rewind(mark);
            self.writer.truncated();
            return None;
        }
        let names = name_places(rrset.rtype);
        if !names.is_empty() {
            point_names(self.writer.written_mut(), start, names, spot);
        }
        let (signatures, signed) = self.signatures(zone, rrset);
        if !self.writer.append(signatures) {
            self.writer.rewind(mark);
            self.writer.truncated();
            return None;
        }
        if spot.owner != HEADER_LEN {
            point_owners(self.writer.written_mut(), start, spot.owner);
        }
        self.writer.count(section, rrset.count + signed);
        Some(start)
    }

    /// The signatures of an RRset that go with it, and how many; none if they were not asked for.
    fn signatures<'z>(&self, zone: &'z Zone, rrset: &RRset) -> (&'z [u8], u16) {
        if self.proofs.is_none() || !zone.is_signed() {
            return (&[], 0);
        }
        let signatures = zone.signatures_of(rrset);
        (zone.signature_bytes(signatures), signatures.count)
    }
}

/// The zone and the node, but for names that do not exist: one for them all.
fn source(apex: u64, found: &Found) -> u64 {
    let node = match found {
        Found::Missing(_) => 0,
        Found::Cut { node, .. }
        | Found::Dname { node, .. }
        | Found::Node(node)
        | Found::Wildcard { node, .. } => u64::from(*node) + 1,
    };
    apex.wrapping_add(node)
}

fn is_same(seen: &(&Zone, u32, usize), zone: &Zone, node: u32) -> bool {
    std::ptr::eq(seen.0, zone) && seen.1 == node
}

/// Points the owners of the records from `start` to the message's end at the name at `owner`.
fn point_owners(message: &mut [u8], start: usize, owner: usize) {
    let pointer = pointer(owner);
    let mut at = start;
    while at < message.len() {
        message[at..at + 2].copy_from_slice(&pointer);
        at += RECORD_HEAD + data_len(message, at);
    }
}

/// Replaces the markers in the data of the records from `start` to the message's end.
fn point_names(message: &mut [u8], start: usize, places: &[DataPlace], spot: Spot) {
    let mut record = start;
    while record < message.len() {
        let mut at = record + RECORD_HEAD;
        for place in places {
            match place {
                DataPlace::Bytes(len) => at += len,
                DataPlace::Name => {
                    while (1..0xC0).contains(&message[at]) {
                        at += usize::from(message[at]) + 1;
                    }
                    if message[at] == 0 {
                        at += 1;
                        continue;
                    }
                    let to = if message[at + 1] == MARK_APEX {
                        spot.apex
                    } else {
                        spot.owner
                    };
                    message[at..at + 2].copy_from_slice(&pointer(to));
                    at += 2;
                }
            }
        }
        record += RECORD_HEAD + data_len(message, record);
    }
}

/// The stored records of an RRset, or of its signatures, one by one.
fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (record, after) = rest.split_at(RECORD_HEAD + data_len(rest, 0));
        rest = after;
        Some(record)
    })
}

fn data_len(message: &[u8], record: usize) -> usize {
    usize::from(u16::from_be_bytes([
        message[record + 10],
        message[record + 11],
    ]))
}

/// A compression pointer. The names of questions, aliases and delegations stand in the first few KiB: a chain is
/// bounded, and what may be long comes after.
fn pointer(to: usize) -> [u8; 2] {
    debug_assert!(to <= POINTER_MAX);
    (0xC000 | to as u16).to_be_bytes()
}

/// Aliases followed for one question at most, whatever [`View::chain`] says.
pub const CHAIN_MAX: usize = 11;

/// The last offset a compression pointer reaches.
const POINTER_MAX: usize = 0x3FFF;

const CLASS_IN: u16 = 1;
const ANY: u16 = 255;

#[cfg(test)]
mod tests;
