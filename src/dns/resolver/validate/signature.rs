//! One RRset under the keys of one zone (RFC 4035 section 5.3).

use super::super::message::{self, Name};
use super::super::recurse::dname::Dname;
use super::super::recurse::response::RrSet;
use super::super::recurse::rtype;
use super::super::recurse::trouble::Bogus;
use super::Account;
use super::crypto::Dnskey;

/// The RDATA of an RRSIG record, in parts.
#[derive(Debug)]
struct Rrsig<'a> {
    covered: u16,
    algorithm: u8,
    labels: u8,
    ttl: u32,
    expiration: u32,
    inception: u32,
    tag: u16,
    signer: Dname,
    /// Everything before the signer's name.
    head: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Rrsig<'a> {
    fn read(rdata: &'a [u8]) -> Option<Self> {
        let (head, _) = rdata.split_at_checked(18)?;
        let (signer, end) = Name::read(rdata, 18)?;
        let long = |at: usize| {
            let bytes = head[at..at + 4].try_into();
            u32::from_be_bytes(bytes.expect("four octets were sliced"))
        };
        Some(Self {
            covered: u16::from_be_bytes([head[0], head[1]]),
            algorithm: head[2],
            labels: head[3],
            ttl: long(4),
            expiration: long(8),
            inception: long(12),
            tag: u16::from_be_bytes([head[16], head[17]]),
            signer: Dname::new(signer.as_wire()),
            head,
            signature: &rdata[end..],
        })
    }

    /// Whether it holds at `unix` seconds, by serial number arithmetic (RFC 4034 section 3.1.5).
    fn in_time(&self, unix: u32) -> Result<(), Bogus> {
        let later = |a: u32, b: u32| a.wrapping_sub(b).cast_signed() > 0;
        if later(unix, self.expiration) {
            Err(Bogus::Expired)
        } else if later(self.inception, unix) {
            Err(Bogus::NotYet)
        } else {
            Ok(())
        }
    }
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// How long the RRset may be kept by that signature, seconds.
    pub(super) ttl: u32,
    /// The RRset was made from the wildcard beneath this name.
    pub(super) encloser: Option<Dname>,
}

/// The zone that has signed `set`, by what the first `most` of its signatures say. `None`: none of them can be right.
pub(super) fn signer(set: &RrSet, most: usize) -> Option<Dname> {
    set.sigs.iter().take(most).find_map(|rdata| {
        let sig = Rrsig::read(rdata)?;
        let above = match set.rtype {
            // The parent signs it; the root has none.
            rtype::DS => set.owner.is_strictly_beneath(&sig.signer),
            rtype::DNSKEY => set.owner == sig.signer,
            _ => set.owner.is_beneath(&sig.signer),
        };
        (above && sig.covered == set.rtype).then_some(sig.signer)
    })
}

/// Checks `set` by one of the `keys` (DNSKEY RDATA) of `zone` at `unix` seconds.
///
/// # Errors
/// Why none of its signatures holds. [`Bogus::Checks`]: the account of the client query is used up.
pub(super) fn verify(
    set: &RrSet,
    zone: &Dname,
    keys: &[Box<[u8]>],
    unix: u32,
    account: &mut Account,
) -> Result<Verified, Bogus> {
    verify_by(set, zone, keys, |rdata| Dnskey::read(rdata), unix, account)
}

/// Whether the revoked `key` has signed `set`, the DNSKEY RRset of its `zone` (RFC 5011 section 2.1).
pub(super) fn is_self_revoked(
    set: &RrSet,
    zone: &Dname,
    key: &[u8],
    unix: u32,
    account: &mut Account,
) -> bool {
    let keys = [key.into()];
    verify_by(
        set,
        zone,
        &keys,
        |rdata| Dnskey::revoked(rdata),
        unix,
        account,
    )
    .is_ok()
}

fn verify_by(
    set: &RrSet,
    zone: &Dname,
    keys: &[Box<[u8]>],
    read: for<'k> fn(&'k [u8]) -> Option<Dnskey<'k>>,
    unix: u32,
    account: &mut Account,
) -> Result<Verified, Bogus> {
    let labels = signable(&set.owner);
    let mut why = Bogus::Unsigned;
    let mut sigs = set.sigs.iter();
    for rdata in sigs.by_ref().take(account.signatures_per_rrset) {
        let Some(sig) = Rrsig::read(rdata) else {
            continue;
        };
        let signed = usize::from(sig.labels);
        if sig.signer != *zone || sig.covered != set.rtype || signed > labels {
            continue;
        }
        if let Err(error) = sig.in_time(unix) {
            why = error;
            continue;
        }
        if why == Bogus::Unsigned {
            why = Bogus::Signature;
        }
        let mut keys = keys
            .iter()
            .filter_map(|rdata| read(rdata))
            .filter(|key| key.algorithm == sig.algorithm && key.tag() == sig.tag);
        let mut data = None;
        for key in keys.by_ref().take(account.keys_per_tag) {
            if account.checks == 0 || account.failures == 0 {
                return Err(Bogus::Checks);
            }
            if data.is_none() {
                data = signed_data(set, &sig);
            }
            let Some(data) = &data else { break };
            account.checks -= 1;
            if key.verify(data, sig.signature) {
                let left = sig.expiration.wrapping_sub(unix);
                return Ok(Verified {
                    ttl: sig.ttl.min(left),
                    encloser: (signed < labels).then(|| set.owner.suffix(signed)),
                });
            }
            account.failures -= 1;
        }
        account.reached.keys_per_tag |= keys.next().is_some();
    }
    account.reached.signatures_per_rrset |= sigs.next().is_some();
    Err(why)
}

/// Labels a signature counts: neither that of the root nor a leading asterisk.
fn signable(owner: &Dname) -> usize {
    owner.labels() - usize::from(owner.starts_with(b"\x01*"))
}

/// What was signed (RFC 4034 section 3.1.8.1). `None`: RDATA of the set is malformed.
fn signed_data(set: &RrSet, sig: &Rrsig<'_>) -> Option<Vec<u8>> {
    let mut owner = set.owner.clone();
    let signed = usize::from(sig.labels);
    if signed < signable(&owner) {
        owner = owner.suffix(signed).wildcard()?;
    }
    let mut data: Vec<Vec<u8>> = set
        .data
        .iter()
        .map(|rdata| message::rdata(rdata, set.rtype, 0..rdata.len(), true))
        .collect::<Option<_>>()?;
    data.sort_unstable();
    data.dedup();
    let mut bytes = [sig.head, &sig.signer].concat();
    for rdata in data {
        bytes.extend(&*owner);
        bytes.extend(set.rtype.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(sig.ttl.to_be_bytes());
        bytes.extend(u16::try_from(rdata.len()).ok()?.to_be_bytes());
        bytes.extend(rdata);
    }
    Some(bytes)
}
