//! Cache keys: what makes two questions the same, as bytes built on the stack.

use std::borrow::Borrow;
use std::ops::Deref;

use super::partition::Partition;
use crate::dns::wire::Query;

/// The key of one question: lower-cased name in wire form, QTYPE, DO and CD, partition. The class is not part
/// of it: only IN is ever asked upstream.
///
/// Built on the stack for a probe; [`Kept`] where it stays. Two keys are equal exactly when their bytes are.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Key {
    /// A name of 255 bytes and the tail.
    const MAX: usize = 255 + TAIL;

    /// The key of a client's query.
    #[inline]
    pub(crate) fn of(query: &Query<'_>, partition: Partition) -> Self {
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        Self::new(
            query.name,
            query.qtype,
            dnssec_ok,
            query.checking_disabled,
            partition,
        )
    }

    /// The key of a question; `name` is in wire form, any case, at most 255 bytes.
    #[inline]
    pub(crate) fn new(
        name: &[u8],
        qtype: u16,
        dnssec_ok: bool,
        checking_disabled: bool,
        partition: Partition,
    ) -> Self {
        let mut bytes = [0; Self::MAX];
        let n = name.len().min(255);
        for (to, from) in bytes[..n].iter_mut().zip(name) {
            // Length octets are at most 63, below 'A': lower-casing the whole name leaves them alone.
            *to = from.to_ascii_lowercase();
        }
        bytes[n..n + TAIL].copy_from_slice(&tail(qtype, dnssec_ok, checking_disabled, partition));
        Self {
            bytes,
            len: n + TAIL,
        }
    }

    /// What the key of a client's query has behind the name.
    #[inline]
    pub(crate) fn tail(query: &Query<'_>, partition: Partition) -> [u8; TAIL] {
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        tail(query.qtype, dnssec_ok, query.checking_disabled, partition)
    }

    /// A key kept elsewhere, read back.
    pub(crate) fn parts(key: &[u8]) -> Parts<'_> {
        let (name, tail) = key.split_at(key.len() - TAIL);
        Parts {
            name,
            qtype: u16::from_be_bytes([tail[0], tail[1]]),
            dnssec_ok: tail[2] & 1 != 0,
            checking_disabled: tail[2] & 2 != 0,
            partition: Partition(u16::from_be_bytes([tail[3], tail[4]])),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[inline]
fn tail(qtype: u16, dnssec_ok: bool, checking_disabled: bool, partition: Partition) -> [u8; TAIL] {
    let [type_high, type_low] = qtype.to_be_bytes();
    let [part_high, part_low] = partition.0.to_be_bytes();
    let flags = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
    [type_high, type_low, flags, part_high, part_low]
}

/// What a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// Lower-cased wire form.
    pub(crate) name: &'a [u8],
    pub(crate) qtype: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) partition: Partition,
}

/// A key in a table, looked up by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kept(Box<[u8]>);

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Kept {
    fn from(key: &[u8]) -> Self {
        Self(key.into())
    }
}

impl Borrow<[u8]> for Kept {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Bytes behind the name: QTYPE, flags, partition.
pub(crate) const TAIL: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"\x03WwW\x07eXample\0";

    #[test]
    fn key_of_one_name_in_two_cases_is_one_key() {
        let key = Key::new(NAME, 28, true, false, Partition(7));
        let same = Key::new(b"\x03www\x07example\0", 28, true, false, Partition(7));
        assert_eq!(*key, *same);
        let parts = Key::parts(&key);
        assert_eq!(parts.name, b"\x03www\x07example\0");
        assert_eq!(parts.partition, Partition(7));
        assert_eq!(
            (parts.qtype, parts.dnssec_ok, parts.checking_disabled),
            (28, true, false)
        );
    }

    #[test]
    fn key_differs_by_type_flags_and_partition() {
        let key = Key::new(NAME, 1, false, false, Partition(0));
        for other in [
            Key::new(NAME, 28, false, false, Partition(0)),
            Key::new(NAME, 1, true, false, Partition(0)),
            Key::new(NAME, 1, false, true, Partition(0)),
            Key::new(NAME, 1, false, false, Partition(1)),
        ] {
            assert_ne!(*key, *other);
        }
    }

    #[test]
    fn key_of_the_longest_name_fits() {
        let mut name = Vec::new();
        for _ in 0..3 {
            name.push(63);
            name.extend([b'a'; 63]);
        }
        name.push(61);
        name.extend([b'a'; 61]);
        name.push(0);
        assert_eq!(name.len(), 255);
        assert_eq!(
            Key::parts(&Key::new(&name, 1, false, false, Partition(0))).name,
            name
        );
    }
}
