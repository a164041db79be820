//! A whole zone, signed: its records, its keys and the signatures it has in; the records of the signed zone out.

use std::collections::HashMap;
use std::sync::Arc;

use super::Proof;
use super::canonical;
use super::chain::{self, Entry, NSEC, NSEC3, NSEC3PARAM, NSEC3PARAM_DATA, RRSIG};
use super::key::{Key, KeyError, SIGNATURE_LEN};
use super::rrset::{Digest, INCEPTION, Message, Unsigned, Validity};

/// An RRset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    /// Wire form, lower case.
    pub(super) owner: Box<[u8]>,
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    /// Data of the records, uncompressed.
    pub(super) data: Vec<Box<[u8]>>,
}

impl Set {
    pub(super) fn one(owner: &[u8], rtype: u16, ttl: u32, data: Vec<u8>) -> Self {
        Self {
            owner: owner.into(),
            rtype,
            ttl,
            data: vec![data.into()],
        }
    }
}

/// What the keys of a zone do at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    /// In DNSKEY, and sign it.
    pub(super) published: Vec<Arc<Key>>,
    /// Sign everything else.
    pub(super) signing: Vec<Arc<Key>>,
    /// What the parent shall have, as CDS and CDNSKEY; empty: nothing is said.
    pub(super) wanted: Vec<Arc<Key>>,
    /// Instead: the parent shall have no DS (RFC 8078 section 4).
    pub(super) delete: bool,
}

impl Roles {
    /// Those that sign RRsets of a type.
    fn keys(&self, rtype: u16) -> impl Iterator<Item = &Arc<Key>> {
        let (first, more): (_, &[_]) = match rtype {
            DNSKEY => (&self.published, &[]),
            // What the parent takes must be signed by a key it points to (RFC 7344 section 4.1), and is data of the zone.
            CDS | CDNSKEY => (&self.published, &self.signing),
            _ => (&self.signing, &[]),
        };
        let more = more
            .iter()
            .filter(|key| !first.iter().any(|known| Arc::ptr_eq(known, key)));
        first.iter().chain(more)
    }

    /// What the parent is told, as data of CDS and of CDNSKEY.
    fn told(&self, apex: &[u8]) -> Option<[Vec<Box<[u8]>>; 2]> {
        if self.delete {
            return Some([vec![CDS_DELETE.into()], vec![CDNSKEY_DELETE.into()]]);
        }
        let wanted = || self.wanted.iter();
        (!self.wanted.is_empty()).then(|| {
            [
                wanted().map(|key| key.ds(apex).into()).collect(),
                wanted().map(|key| key.dnskey().into()).collect(),
            ]
        })
    }
}

/// Signatures made before, by what they sign.
pub(super) type Kept = HashMap<Digest, (Validity, [u8; SIGNATURE_LEN])>;

/// How and when a zone is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Unix seconds modulo 2^32.
    pub(super) now: u32,
    pub(super) lifetime: u32,
    /// Signatures that end within this are made anew.
    pub(super) refresh: u32,
    pub(super) dnskey_ttl: u32,
    pub(super) proof: Proof,
}

/// What was served last: its serial, and a digest of all but the serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) serial: u32,
    pub(super) content: Digest,
}

/// A signed zone.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) sets: Vec<Set>,
    pub(super) served: Served,
    /// All its signatures.
    pub(super) kept: Kept,
    /// When the first of them ends.
    pub(super) expires: u32,
    /// How many were made now.
    pub(super) made: usize,
}

/// Signs the zone at `apex` (wire form, lower case). What `sets` has of a chain and of signatures is dropped; DNSKEY
/// records that are not ours stay beside ours.
///
/// The serial is the file's if that is higher than the one served last; else, if anything differs, one more than that.
///
/// # Errors
/// The system gave no random bytes.
pub(super) fn sign(
    apex: &[u8],
    sets: Vec<Set>,
    roles: &Roles,
    kept: &Kept,
    last: Option<Served>,
    terms: Terms,
) -> Result<Signed, KeyError> {
    let mut sets = sets;
    sets.retain(|set| !matches!(set.rtype, RRSIG | NSEC | NSEC3 | NSEC3PARAM));
    let soa = sets
        .iter()
        .find(|set| set.rtype == SOA && *set.owner == *apex);
    let soa = soa
        .cloned()
        .unwrap_or_else(|| Set::one(apex, SOA, 0, vec![0; 22])); // A zone has one.
    let minimum = number(&soa.data[0], 4);
    let negative_ttl = soa.ttl.min(minimum); // RFC 9077.
    add_apex(apex, &mut sets, roles, terms, negative_ttl);

    let mut sets: Vec<(Vec<u8>, Set)> = sets
        .into_iter()
        .map(|set| (canonical::order(&set.owner), set))
        .collect();
    sets.sort_unstable_by(|one, other| (&one.0, one.1.rtype).cmp(&(&other.0, other.1.rtype)));
    let mut pen = Pen {
        apex,
        roles,
        kept,
        terms,
        signed: Vec::new(),
        used: Kept::new(),
        expires: None,
        made: 0,
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut out = Vec::with_capacity(sets.len() * 2);
    // Names beneath a cut or a DNAME follow it in this order.
    let mut above: Option<Vec<u8>> = None;
    let mut rest = &mut sets[..];
    while let Some((first, _)) = rest.first() {
        let key = first.clone();
        let len = rest.iter().take_while(|(other, _)| *other == key).count();
        let (here, after) = rest.split_at_mut(len);
        rest = after;
        let occluded = above.as_ref().is_some_and(|above| key.starts_with(above));
        let has = |rtype| here.iter().any(|(_, set)| set.rtype == rtype);
        let is_apex = *here[0].1.owner == *apex;
        let cut = !is_apex && has(NS);
        if !occluded {
            above = (cut || has(DNAME)).then(|| key.clone());
            let types = here.iter().map(|(_, set)| set.rtype);
            let types: Vec<u16> = types
                .filter(|rtype| !cut || matches!(*rtype, NS | DS))
                .collect();
            entries.push(Entry {
                owner: here[0].1.owner.clone(),
                types,
            });
        }
        for (_, set) in here {
            let authoritative = !occluded && (!cut || set.rtype == DS);
            if authoritative && !(is_apex && set.rtype == SOA) {
                pen.sign(set)?;
            }
            out.push(Set {
                data: std::mem::take(&mut set.data),
                ..set.clone()
            });
        }
    }
    let links = match terms.proof {
        Proof::Nsec => chain::nsec(&entries, negative_ttl),
        Proof::Nsec3 => chain::nsec3(apex, &entries, negative_ttl, |entry| {
            let cut = *entry.owner != *apex && entry.types.contains(&NS);
            !cut || entry.types.contains(&DS)
        }),
    };
    for set in &links {
        pen.sign(set)?;
    }
    out.extend(links);

    // Everything but the serial is known now.
    out.retain(|set| !(set.rtype == SOA && *set.owner == *apex));
    let content = digest(&out, &pen.signed, &soa);
    let offered = number(&soa.data[0], 20);
    let at = |serial| with_serial(&soa, serial);
    let serial = match last {
        None => offered,
        Some(last) if is_above(offered, last.serial) => offered,
        Some(last) if last.content == content && pen.is_fresh(&at(last.serial)) => last.serial,
        Some(last) => last.serial.wrapping_add(1).max(1),
    };
    let soa = at(serial);
    pen.sign(&soa)?;
    out.push(soa);
    out.append(&mut pen.signed);
    Ok(Signed {
        sets: out,
        served: Served { serial, content },
        expires: pen.expires.unwrap_or(terms.now),
        kept: pen.used,
        made: pen.made,
    })
}

/// The keys of the zone, what its parent is told, and the parameters of NSEC3.
fn add_apex(apex: &[u8], sets: &mut Vec<Set>, roles: &Roles, terms: Terms, negative_ttl: u32) {
    let ours: Vec<Box<[u8]>> = roles
        .published
        .iter()
        .map(|key| key.dnskey().into())
        .collect();
    let foreign = sets
        .iter()
        .position(|set| set.rtype == DNSKEY && *set.owner == *apex);
    match foreign.map(|at| &mut sets[at]) {
        Some(set) => {
            set.data.extend(ours);
            set.data.sort_unstable();
            set.data.dedup();
        }
        None => sets.push(Set {
            owner: apex.into(),
            rtype: DNSKEY,
            ttl: terms.dnskey_ttl,
            data: ours,
        }),
    }
    if let Some([cds, cdnskey]) = roles.told(apex) {
        sets.retain(|set| !(matches!(set.rtype, CDS | CDNSKEY) && *set.owner == *apex));
        sets.extend([(CDS, cds), (CDNSKEY, cdnskey)].map(|(rtype, data)| Set {
            owner: apex.into(),
            rtype,
            ttl: terms.dnskey_ttl,
            data,
        }));
    }
    if terms.proof == Proof::Nsec3 {
        sets.push(Set::one(
            apex,
            NSEC3PARAM,
            negative_ttl,
            NSEC3PARAM_DATA.to_vec(),
        ));
    }
}

/// What makes signatures, or takes those made before.
struct Pen<'a> {
    apex: &'a [u8],
    roles: &'a Roles,
    kept: &'a Kept,
    terms: Terms,
    signed: Vec<Set>,
    used: Kept,
    expires: Option<u32>,
    made: usize,
}

impl Pen<'_> {
    fn sign(&mut self, set: &Set) -> Result<(), KeyError> {
        let mut data = Vec::new();
        let roles = self.roles;
        for key in roles.keys(set.rtype) {
            let message = message(key, self.apex, set);
            let digest = message.digest(key);
            let (validity, signature) = match self.fresh(&digest) {
                Some(known) => known,
                None => {
                    self.made += 1;
                    let validity = self.validity(&digest);
                    (validity, message.sign(key, validity)?)
                }
            };
            data.push(message.rrsig(validity, &signature).into());
            self.used.insert(digest, (validity, signature));
            let earlier = |other: u32| is_above(other, validity.expiration);
            if self.expires.is_none_or(earlier) {
                self.expires = Some(validity.expiration);
            }
        }
        self.signed.push(Set {
            owner: set.owner.clone(),
            rtype: RRSIG,
            ttl: set.ttl,
            data,
        });
        Ok(())
    }

    /// Whether all signatures of an RRset are there already.
    fn is_fresh(&self, set: &Set) -> bool {
        self.roles.keys(set.rtype).all(|key| {
            let digest = message(key, self.apex, set).digest(key);
            self.fresh(&digest).is_some()
        })
    }

    fn fresh(&self, digest: &Digest) -> Option<(Validity, [u8; SIGNATURE_LEN])> {
        let (validity, signature) = self.kept.get(digest)?;
        let due = self.terms.now.wrapping_add(self.terms.refresh);
        // One from the future is of a clock that was wrong.
        let begun = !is_above(validity.inception, self.terms.now);
        (begun && is_above(validity.expiration, due)).then_some((*validity, *signature))
    }

    /// Signatures made together end up to a fourteenth of their life apart, so that they are not all due at once.
    fn validity(&self, digest: &Digest) -> Validity {
        let dice = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let early = dice % (self.terms.lifetime / 14).max(1);
        Validity {
            inception: self.terms.now.wrapping_sub(INCEPTION),
            expiration: self.terms.now.wrapping_add(self.terms.lifetime - early),
        }
    }
}

fn message(key: &Key, apex: &[u8], set: &Set) -> Message {
    let data: Vec<&[u8]> = set.data.iter().map(|data| &**data).collect();
    let unsigned = Unsigned {
        owner: &set.owner,
        rtype: set.rtype,
        ttl: set.ttl,
        data: &data,
    };
    Message::new(key, apex, unsigned)
}

/// A digest of all but the serial.
fn digest(sets: &[Set], signatures: &[Set], soa: &Set) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for set in sets.iter().chain(signatures).chain([&with_serial(soa, 0)]) {
        hasher.update(&set.owner);
        hasher.update(&set.rtype.to_be_bytes());
        hasher.update(&set.ttl.to_be_bytes());
        for data in &set.data {
            hasher.update(&(data.len() as u64).to_be_bytes());
            hasher.update(data);
        }
    }
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// The number of 32 bits that starts so many bytes before the end of the data.
fn number(data: &[u8], from_end: usize) -> u32 {
    let at = data.len().saturating_sub(from_end);
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

fn with_serial(soa: &Set, serial: u32) -> Set {
    let mut soa = soa.clone();
    let at = soa.data[0].len().saturating_sub(20);
    soa.data[0][at..at + 4].copy_from_slice(&serial.to_be_bytes());
    soa
}

/// Whether a number is above another (RFC 1982 section 3.2), as serials and times of signatures are compared.
pub(super) fn is_above(one: u32, other: u32) -> bool {
    one != other && one.wrapping_sub(other) < 1 << 31
}

pub(super) const NS: u16 = 2;
pub(super) const SOA: u16 = 6;
const DNAME: u16 = 39;
const DS: u16 = 43;
const DNSKEY: u16 = 48;
const CDS: u16 = 59;
const CDNSKEY: u16 = 60;

/// `0 0 0 00` and `0 3 0 AA==` (RFC 8078 section 4).
const CDS_DELETE: [u8; 5] = [0; 5];
const CDNSKEY_DELETE: [u8; 5] = [0, 0, 3, 0, 0];

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    fn key() -> Arc<Key> {
        let pkcs8 = Key::generate(Algorithm::Ed25519).expect("random bytes");
        Arc::new(Key::new(Algorithm::Ed25519, &pkcs8).expect("its own key"))
    }

    fn set(owner: &[u8], rtype: u16, data: &[u8]) -> Set {
        Set::one(owner, rtype, 300, data.to_vec())
    }

    const APEX: &[u8] = b"\x04test\0";

    /// A zone with a host, and a delegation with glue and without DS, at `serial`.
    fn zone(serial: u32) -> Vec<Set> {
        let mut soa = b"\x02ns\x04test\0\x01h\x04test\0".to_vec();
        for number in [serial, 3_600, 900, 604_800, 60] {
            soa.extend(number.to_be_bytes());
        }
        vec![
            set(APEX, SOA, &soa),
            set(APEX, NS, b"\x02ns\x04test\0"),
            set(b"\x02ns\x04test\0", 1, &[192, 0, 2, 1]),
            set(b"\x03sub\x04test\0", NS, b"\x02ns\x03sub\x04test\0"),
            set(b"\x02ns\x03sub\x04test\0", 1, &[192, 0, 2, 2]),
        ]
    }

    struct World {
        roles: Roles,
        kept: Kept,
        last: Option<Served>,
        now: u32,
        proof: Proof,
    }

    impl World {
        fn new() -> Self {
            let key = key();
            Self {
                roles: Roles {
                    published: vec![key.clone()],
                    signing: vec![key],
                    ..Roles::default()
                },
                kept: Kept::new(),
                last: None,
                now: 1_000_000,
                proof: Proof::Nsec,
            }
        }

        fn sign(&mut self, sets: Vec<Set>) -> Signed {
            let terms = Terms {
                now: self.now,
                lifetime: 1_400,
                refresh: 700,
                dnskey_ttl: 600,
                proof: self.proof,
            };
            let signed = sign(APEX, sets, &self.roles, &self.kept, self.last, terms);
            let signed = signed.expect("random bytes");
            self.kept.clone_from(&signed.kept);
            self.last = Some(signed.served);
            signed
        }
    }

    #[test]
    fn signatures_cover_what_the_zone_is_authoritative_for() {
        let signed = World::new().sign(zone(7));
        let covered = |owner: &[u8]| -> Vec<u16> {
            let mut types: Vec<u16> = signed
                .sets
                .iter()
                .filter(|set| set.rtype == RRSIG && *set.owner == *owner)
                .map(|set| u16::from_be_bytes([set.data[0][0], set.data[0][1]]))
                .collect();
            types.sort_unstable();
            types
        };
        assert_eq!(covered(APEX), [NS, SOA, NSEC, DNSKEY]);
        assert_eq!(covered(b"\x02ns\x04test\0"), [1, NSEC]);
        assert_eq!(covered(b"\x03sub\x04test\0"), [NSEC]);
        assert_eq!(covered(b"\x02ns\x03sub\x04test\0"), [0_u16; 0]);
        // The link at the cut leads back to the apex and shows NS without DS.
        let link = signed
            .sets
            .iter()
            .find(|set| set.rtype == NSEC && *set.owner == *b"\x03sub\x04test\0");
        let expected = [APEX, &[0, 6, 0x20, 0, 0, 0, 0, 3]].concat();
        assert_eq!(*link.expect("a link").data[0], *expected);
    }

    #[test]
    fn signing_again_makes_only_what_is_new_or_due() {
        let mut world = World::new();
        assert_eq!(world.sign(zone(7)).made, 7);
        assert_eq!(world.sign(zone(7)).made, 0);
        let mut more = zone(7);
        more.push(set(b"\x01a\x04test\0", 1, &[192, 0, 2, 3]));
        // The address, its link, the link before it, and the SOA with its new serial.
        assert_eq!(world.sign(more.clone()).made, 4);
        world.now += 500;
        assert_eq!(world.sign(more.clone()).made, 0);
        world.now += 200;
        let again = world.sign(more);
        assert_eq!(again.made, 9);
        assert!(is_above(again.expires, world.now + 700));
    }

    #[test]
    fn serial_rises_when_anything_differs_and_never_falls() {
        let mut world = World::new();
        let serial = |world: &mut World, sets| world.sign(sets).served.serial;
        assert_eq!(serial(&mut world, zone(7)), 7);
        assert_eq!(serial(&mut world, zone(7)), 7);
        world.now += 700; // Everything is due.
        assert_eq!(serial(&mut world, zone(7)), 8);
        let mut more = zone(7);
        more.push(set(b"\x01a\x04test\0", 1, &[192, 0, 2, 3]));
        assert_eq!(serial(&mut world, more.clone()), 9);
        assert_eq!(serial(&mut world, more), 9);
        assert_eq!(serial(&mut world, zone(8)), 10);
        assert_eq!(serial(&mut world, zone(20)), 20);
        assert_eq!(serial(&mut world, zone(19)), 20);
        world.last = world.last.map(|_| Served {
            serial: u32::MAX,
            content: [0; 16],
        });
        assert_eq!(serial(&mut world, zone(20)), 20); // RFC 1982: 20 is above 2^32 - 1.
    }

    #[test]
    fn changing_the_chain_leaves_nothing_of_the_old_one() {
        let mut world = World::new();
        let signed = world.sign(zone(7)).sets;
        world.proof = Proof::Nsec3;
        let signed = world.sign(signed);
        let count = |rtype| signed.sets.iter().filter(|set| set.rtype == rtype).count();
        assert_eq!((count(NSEC), count(NSEC3), count(NSEC3PARAM)), (0, 3, 1));
        assert_eq!(count(DNSKEY), 1);
        assert_eq!(signed.served.serial, 8);
    }

    #[test]
    fn key_that_is_not_published_signs_all_but_dnskey() {
        let mut world = World::new();
        let new = key();
        world.roles.signing.push(new.clone());
        world.roles.delete = true;
        let signed = world.sign(zone(7));
        let by = |covered: u16, key: &Key| {
            let sets = signed.sets.iter().filter(|set| set.rtype == RRSIG);
            let mut data = sets.flat_map(|set| set.data.iter());
            data.any(|data| {
                data[..2] == covered.to_be_bytes() && data[16..18] == key.tag().to_be_bytes()
            })
        };
        let old = world.roles.published[0].clone();
        for rtype in [SOA, NS, CDS, CDNSKEY, DNSKEY] {
            assert!(by(rtype, &old), "{rtype}");
            assert_eq!(by(rtype, &new), rtype != DNSKEY, "{rtype}");
        }
        let data = |rtype| {
            let mut sets = signed.sets.iter().filter(|set| set.rtype == rtype);
            sets.next().map(|set| set.data.clone())
        };
        assert_eq!(data(DNSKEY), Some(vec![old.dnskey().into()]));
        assert_eq!(data(CDS), Some(vec![CDS_DELETE.into()]));
        assert_eq!(data(CDNSKEY), Some(vec![CDNSKEY_DELETE.into()]));
    }

    #[test]
    fn parent_is_told_of_the_wanted_key_alone() {
        let mut world = World::new();
        let new = key();
        world.roles.published.push(new.clone());
        world.roles.wanted = vec![new.clone()];
        let signed = world.sign(zone(7));
        let data = |rtype| {
            let sets = signed.sets.iter().filter(|set| set.rtype == rtype);
            sets.flat_map(|set| set.data.clone()).collect::<Vec<_>>()
        };
        assert_eq!(data(CDS), [new.ds(APEX).into_boxed_slice()]);
        assert_eq!(data(CDNSKEY), [new.dnskey().into()]);
        let by_both = signed
            .sets
            .iter()
            .filter(|set| set.rtype == RRSIG && set.data.len() == 2);
        assert_eq!(by_both.count(), 3); // DNSKEY, CDS, CDNSKEY.
    }
}
