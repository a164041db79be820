//! What NSEC and NSEC3 sets prove (RFC 4035 section 5.4, RFC 5155 section 8, RFC 6840 section 4).
//!
//! The sets given here have been verified; which zone they are of is an argument, and sets of another zone prove nothing.

use std::sync::Arc;

use super::super::message::Name;
use super::super::recurse::dname::Dname;
use super::super::recurse::response::RrSet;
use super::super::recurse::rtype;
use super::Account;
use super::crypto;

/// What is proven of a negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is as the answer says.
    Secure,
    /// It may be: the span is one where unsigned delegations are left out (opt-out), or the hashes take too many
    /// iterations to look (RFC 9276).
    Insecure,
    /// Nothing.
    None,
}

/// What is proven of a DS set that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDs {
    /// There is a delegation, and it is not signed; or there may be one (opt-out).
    Unsigned,
    /// No zone begins there.
    NoCut,
    /// Nothing.
    Unproven,
}

/// The proofs of one zone.
pub(super) struct Proofs<'a> {
    zone: &'a Dname,
    nsec: Vec<Nsec<'a>>,
    nsec3: Vec<Nsec3<'a>>,
    /// Of the NSEC3 records some take more iterations than are made.
    beyond: bool,
}

struct Nsec<'a> {
    owner: &'a Dname,
    next: Dname,
    types: Types<'a>,
}

struct Nsec3<'a> {
    hash: [u8; 20],
    next: [u8; 20],
    opt_out: bool,
    iterations: u16,
    salt: &'a [u8],
    types: Types<'a>,
}

/// A type bitmap (RFC 4034 section 4.1.2).
#[derive(Clone, Copy)]
struct Types<'a>(&'a [u8]);

impl Types<'_> {
    fn has(&self, rtype: u16) -> bool {
        let [window, low] = rtype.to_be_bytes();
        let mut rest = self.0;
        while let [number, length, tail @ ..] = rest {
            let Some((bits, after)) = tail.split_at_checked(usize::from(*length)) else {
                return false;
            };
            if *number == window {
                let octet = bits.get(usize::from(low / 8));
                return octet.is_some_and(|octet| octet & (0x80 >> (low % 8)) != 0);
            }
            rest = after;
        }
        false
    }

    /// The parent's side of a delegation: it can only speak of the DS.
    fn is_parent_side(&self) -> bool {
        self.has(rtype::NS) && !self.has(rtype::SOA)
    }

    /// Whether it proves that there is no `qtype` and no alias.
    fn lacks(&self, qtype: u16, at_root: bool) -> bool {
        if self.has(qtype) || self.has(rtype::CNAME) {
            return false;
        }
        if qtype == rtype::DS {
            // The child's side knows nothing of it.
            at_root || !self.has(rtype::SOA)
        } else {
            !self.is_parent_side()
        }
    }
}

impl<'a> Nsec<'a> {
    fn read(set: &'a RrSet) -> Option<Self> {
        let rdata = set.data.first()?;
        let (next, end) = Name::read(rdata, 0)?;
        Some(Self {
            owner: &set.owner,
            next: Dname::new(next.as_wire()),
            types: Types(&rdata[end..]),
        })
    }

    /// Whether it proves that `name` has no records: `name` lies between its owner and the next name, and the owner is no
    /// delegation or DNAME above `name`.
    fn covers(&self, name: &Dname) -> bool {
        let between = if *self.owner < self.next {
            self.owner < name && *name < self.next
        } else {
            // The last one of the zone.
            self.owner < name
        };
        let diverts = name.is_strictly_beneath(self.owner)
            && (self.types.is_parent_side() || self.types.has(rtype::DNAME));
        between && !diverts
    }

    /// Whether it proves that `name` has names beneath it and no records itself.
    fn passes(&self, name: &Dname) -> bool {
        self.covers(name) && self.next.is_strictly_beneath(name)
    }

    /// The closest encloser of a name it covers.
    fn encloser(&self, name: &Dname) -> Dname {
        let (a, b) = (name.shared(self.owner), name.shared(&self.next));
        if a.labels() > b.labels() { a } else { b }
    }
}

impl<'a> Nsec3<'a> {
    fn read(set: &'a RrSet, zone: &Dname) -> Option<Self> {
        let hash = base32hex_decode(set.owner.get(1..33)?)?;
        if set.owner[0] != 32 || set.owner[33..] != **zone {
            return None;
        }
        let rdata = set.data.first()?;
        let (&[algorithm, flags, i1, i2, salt], rest) = rdata.split_first_chunk()?;
        // RFC 5155 sections 8.1 and 8.2: others are as if they were not there.
        if algorithm != 1 || flags > 1 {
            return None;
        }
        let (salt, rest) = rest.split_at_checked(usize::from(salt))?;
        let (&length, rest) = rest.split_first()?;
        let (next, types) = rest.split_at_checked(usize::from(length))?;
        Some(Self {
            hash,
            next: next.try_into().ok()?,
            opt_out: flags == 1,
            iterations: u16::from_be_bytes([i1, i2]),
            salt,
            types: Types(types),
        })
    }

    fn covers(&self, hash: &[u8; 20]) -> bool {
        if self.hash < self.next {
            self.hash < *hash && *hash < self.next
        } else {
            self.hash < *hash || *hash < self.next
        }
    }
}

/// The closest encloser that NSEC3 records prove, and what covers the name next closer to the one asked.
struct Enclosed {
    encloser: Dname,
    opt_out: bool,
}

impl<'a> Proofs<'a> {
    /// The proofs among `sets` that are of `zone`.
    pub(super) fn new(sets: &'a [Arc<RrSet>], zone: &'a Dname, account: &mut Account) -> Self {
        let of = |rtype| {
            sets.iter()
                .filter(move |set| set.rtype == rtype && set.owner.is_beneath(zone))
        };
        let mut nsec3: Vec<Nsec3<'_>> = of(rtype::NSEC3)
            .filter_map(|set| Nsec3::read(set, zone))
            .collect();
        let all = nsec3.len();
        nsec3.retain(|record| record.iterations <= account.iterations);
        let beyond = nsec3.len() < all;
        account.reached.nsec3_iterations |= beyond;
        if let Some(first) = nsec3.first() {
            // RFC 5155 section 8.2: of one chain.
            let (salt, iterations) = (first.salt, first.iterations);
            nsec3.retain(|record| record.salt == salt && record.iterations == iterations);
        }
        Self {
            zone,
            nsec: of(rtype::NSEC).filter_map(|set| Nsec::read(set)).collect(),
            nsec3,
            beyond,
        }
    }

    /// Whether `name` does not exist.
    pub(super) fn nxdomain(&self, name: &Dname, account: &mut Account) -> Proof {
        if let Some(nsec) = self.nsec.iter().find(|nsec| nsec.covers(name)) {
            let denied = !nsec.passes(name)
                && nsec
                    .encloser(name)
                    .wildcard()
                    .is_none_or(|wildcard| self.is_absent(&wildcard));
            return self.secure_if(denied);
        }
        let Some(enclosed) = self.enclosed(name, account) else {
            return self.secure_if(false);
        };
        let denied = match enclosed.encloser.wildcard() {
            Some(wildcard) => self.cover(&wildcard, account).is_some(),
            None => true,
        };
        match (denied, enclosed.opt_out) {
            (true, true) => Proof::Insecure,
            (denied, _) => self.secure_if(denied),
        }
    }

    /// Whether there is no `qtype` at `name`, which may exist.
    pub(super) fn nodata(&self, name: &Dname, qtype: u16, account: &mut Account) -> Proof {
        let at_root = name.is_root();
        if let Some(nsec) = self.nsec.iter().find(|nsec| nsec.owner == name) {
            return self.secure_if(nsec.types.lacks(qtype, at_root));
        }
        if let Some(nsec) = self.nsec.iter().find(|nsec| nsec.covers(name)) {
            if nsec.passes(name) {
                return Proof::Secure;
            }
            // Or a wildcard without it.
            let wildcard = nsec.encloser(name).wildcard();
            let lacking = self.nsec.iter().any(|nsec| {
                Some(nsec.owner) == wildcard.as_ref() && nsec.types.lacks(qtype, false)
            });
            return self.secure_if(lacking);
        }
        if let Some(nsec3) = self.matching(name, account) {
            return self.secure_if(nsec3.types.lacks(qtype, at_root));
        }
        let Some(enclosed) = self.enclosed(name, account) else {
            return self.secure_if(false);
        };
        if enclosed.opt_out {
            // A delegation that is left out, or an empty name above one.
            return Proof::Insecure;
        }
        let lacking = enclosed
            .encloser
            .wildcard()
            .and_then(|wildcard| self.matching(&wildcard, account))
            .is_some_and(|nsec3| nsec3.types.lacks(qtype, false));
        self.secure_if(lacking)
    }

    /// Whether nothing closer to `name` exists than `encloser`, so that the wildcard beneath that may stand for it.
    pub(super) fn expanded(&self, name: &Dname, encloser: &Dname, account: &mut Account) -> Proof {
        if self.is_absent(name) {
            return Proof::Secure;
        }
        let closer = name.suffix(encloser.labels() + 1);
        match self.cover(&closer, account) {
            Some(nsec3) if nsec3.opt_out => Proof::Insecure,
            cover => self.secure_if(cover.is_some()),
        }
    }

    /// The closest encloser of `name`, if an NSEC covers that.
    pub(super) fn encloser(&self, name: &Dname) -> Option<Dname> {
        let nsec = self.nsec.iter().find(|nsec| nsec.covers(name))?;
        Some(nsec.encloser(name))
    }

    /// What is proven of `name` not having a DS set.
    pub(super) fn no_ds(&self, name: &Dname, account: &mut Account) -> NoDs {
        let of = |types: &Types<'_>| {
            if types.has(rtype::DS) || types.has(rtype::SOA) && !name.is_root() {
                NoDs::Unproven
            } else if types.has(rtype::NS) {
                NoDs::Unsigned
            } else {
                NoDs::NoCut
            }
        };
        if let Some(nsec) = self.nsec.iter().find(|nsec| nsec.owner == name) {
            return of(&nsec.types);
        }
        if self.nsec.iter().any(|nsec| nsec.covers(name)) {
            return NoDs::NoCut;
        }
        if let Some(nsec3) = self.matching(name, account) {
            return of(&nsec3.types);
        }
        match self.enclosed(name, account) {
            Some(enclosed) if enclosed.opt_out => NoDs::Unsigned,
            Some(_) => NoDs::NoCut,
            None if self.beyond => NoDs::Unsigned,
            None => NoDs::Unproven,
        }
    }

    /// Whether an NSEC proves that there is nothing at `name` and nothing beneath it.
    fn is_absent(&self, name: &Dname) -> bool {
        self.nsec
            .iter()
            .any(|nsec| nsec.covers(name) && !nsec.passes(name))
    }

    /// The closest encloser proof of RFC 5155 section 8.3.
    fn enclosed(&self, name: &Dname, account: &mut Account) -> Option<Enclosed> {
        if self.nsec3.is_empty() {
            return None;
        }
        let mut closer = name.clone();
        while closer.is_strictly_beneath(self.zone) {
            let encloser = closer.parent()?;
            if let Some(nsec3) = self.matching(&encloser, account) {
                if nsec3.types.is_parent_side() || nsec3.types.has(rtype::DNAME) {
                    return None;
                }
                let cover = self.cover(&closer, account)?;
                return Some(Enclosed {
                    encloser,
                    opt_out: cover.opt_out,
                });
            }
            closer = encloser;
        }
        None
    }

    fn matching(&self, name: &Dname, account: &mut Account) -> Option<&Nsec3<'a>> {
        let hash = self.hash(name, account)?;
        self.nsec3.iter().find(|nsec3| nsec3.hash == hash)
    }

    fn cover(&self, name: &Dname, account: &mut Account) -> Option<&Nsec3<'a>> {
        let hash = self.hash(name, account)?;
        self.nsec3.iter().find(|nsec3| nsec3.covers(&hash))
    }

    fn hash(&self, name: &Dname, account: &mut Account) -> Option<[u8; 20]> {
        let first = self.nsec3.first()?;
        let Some(left) = account.hashes.checked_sub(1) else {
            account.reached.nsec3_hashes = true;
            return None;
        };
        account.hashes = left;
        Some(crypto::nsec3_hash(name, first.salt, first.iterations))
    }

    /// Where nothing is proven with too many iterations, we have not looked.
    fn secure_if(&self, proven: bool) -> Proof {
        match (proven, self.beyond) {
            (true, _) => Proof::Secure,
            (false, true) => Proof::Insecure,
            (false, false) => Proof::None,
        }
    }
}

/// Base32 with the extended hex alphabet, lower case, of a SHA-1 hash.
#[cfg(test)]
pub(super) fn base32hex(hash: &[u8; 20]) -> [u8; 32] {
    let mut text = [0; 32];
    for (at, to) in text.iter_mut().enumerate() {
        let bit = |n: usize| hash[n / 8] >> (7 - n % 8) & 1;
        let value = (0..5).fold(0, |value, n| value << 1 | bit(at * 5 + n));
        *to = b"0123456789abcdefghijklmnopqrstuv"[usize::from(value)];
    }
    text
}

fn base32hex_decode(text: &[u8]) -> Option<[u8; 20]> {
    let mut hash = [0; 20];
    let (mut bits, mut count, mut at) = (0_u16, 0, 0);
    for &c in text {
        let value = match c.to_ascii_lowercase() {
            c @ b'0'..=b'9' => c - b'0',
            c @ b'a'..=b'v' => c - b'a' + 10,
            _ => return None,
        };
        bits = bits << 5 | u16::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            // Eight bits are left above the rest.
            *hash.get_mut(at)? = (bits >> count) as u8;
            at += 1;
            bits &= (1 << count) - 1;
        }
    }
    (at == 20).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn base32hex_and_back_is_the_same(hash: [u8; 20]) {
            proptest::prop_assert_eq!(base32hex_decode(&base32hex(&hash)), Some(hash));
        }
    }
}
