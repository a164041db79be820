//! Domain names as recursion and validation handle them: lower case, wire form, cheap to clone.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::super::names;

/// A domain name in lower-cased wire form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in super::super) struct Dname(Arc<[u8]>);

impl Dname {
    /// `wire` is a whole name in wire form, any case.
    pub(in super::super) fn new(wire: &[u8]) -> Self {
        if wire.iter().any(u8::is_ascii_uppercase) {
            Self(wire.to_ascii_lowercase().into())
        } else {
            Self(wire.into())
        }
    }

    /// The root.
    pub(in super::super) fn root() -> Self {
        Self(Arc::new([0]))
    }

    /// A name given as text.
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        names::wire(text).map(|wire| Self(wire.into()))
    }

    pub(in super::super) fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Labels without that of the root.
    pub(in super::super) fn labels(&self) -> usize {
        labels(self)
    }

    /// The name without its first label; `None`: the root has none.
    pub(in super::super) fn parent(&self) -> Option<Self> {
        (!self.is_root()).then(|| Self(self.0[1 + usize::from(self.0[0])..].into()))
    }

    /// The last `count` labels (all of them, if it has fewer).
    pub(in super::super) fn suffix(&self, count: usize) -> Self {
        let drop = self.labels().saturating_sub(count);
        if drop == 0 {
            return self.clone();
        }
        let mut rest = &self.0[..];
        for _ in 0..drop {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        Self(rest.into())
    }

    /// Whether this name is `zone` or beneath it.
    pub(in super::super) fn is_beneath(&self, zone: &[u8]) -> bool {
        names::is_beneath(self, zone)
    }

    /// Whether this name is beneath `zone`, and not `zone` itself.
    pub(in super::super) fn is_strictly_beneath(&self, zone: &Self) -> bool {
        self.0.len() > zone.0.len() && self.is_beneath(zone)
    }

    /// This name with `*` in front; `None`: too long.
    pub(in super::super) fn wildcard(&self) -> Option<Self> {
        (self.0.len() <= 253).then(|| Self([b"\x01*", &self.0[..]].concat().into()))
    }

    /// `self` with its tail `from` replaced by `to`, as a DNAME does (RFC 6672); `None`: `self` is not strictly beneath
    /// `from`, or the new name would be too long.
    pub(in super::super) fn rewritten(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_strictly_beneath(from) {
            return None;
        }
        let name = [&self.0[..self.0.len() - from.0.len()], &to.0[..]].concat();
        (name.len() <= 255).then(|| Self(name.into()))
    }

    /// The longest name both are at or beneath.
    pub(in super::super) fn shared(&self, other: &Self) -> Self {
        let mut name = self.suffix(other.labels());
        while !other.is_beneath(&name) {
            name = name.parent().unwrap_or_else(Self::root);
        }
        name
    }

    /// The name and those above it, the root last.
    pub(in super::super) fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Some(&self.0[..]);
        std::iter::from_fn(move || {
            let this = rest?;
            rest = (this.len() > 1).then(|| &this[1 + usize::from(this[0])..]);
            Some(this)
        })
    }
}

/// Labels of a name in wire form without that of the root.
pub(in super::super) fn labels(name: &[u8]) -> usize {
    let mut rest = name;
    let mut count = 0;
    while rest.len() > 1 {
        rest = &rest[1 + usize::from(rest[0])..];
        count += 1;
    }
    count
}

/// The canonical order of RFC 4034 section 6.1: label by label from the right.
impl Ord for Dname {
    fn cmp(&self, other: &Self) -> Ordering {
        // A name has at most 127 labels.
        let starts = |name: &[u8]| {
            let mut starts = [0_u8; 128];
            let (mut at, mut count) = (0, 0);
            while name[at] != 0 {
                starts[count] = u8::try_from(at).expect("a name has at most 255 octets");
                count += 1;
                at += 1 + usize::from(name[at]);
            }
            (starts, count)
        };
        let ((a, mut m), (b, mut n)) = (starts(self), starts(other));
        let label = |name: &Self, at: u8| {
            let at = usize::from(at);
            at + 1..at + 1 + usize::from(name.0[at])
        };
        while m > 0 && n > 0 {
            (m, n) = (m - 1, n - 1);
            let order = self.0[label(self, a[m])].cmp(&other.0[label(other, b[n])]);
            if order != Ordering::Equal {
                return order;
            }
        }
        m.cmp(&n)
    }
}

impl PartialOrd for Dname {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Deref for Dname {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Dname {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Dname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::text(self))
    }
}

impl fmt::Debug for Dname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Dname {
        Dname::parse(text).unwrap()
    }

    #[test]
    fn names_are_in_the_canonical_order_of_rfc_4034() {
        let sorted = [
            ".",
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            "*.z.example.",
        ];
        for pair in sorted.windows(2) {
            assert!(name(pair[0]) < name(pair[1]), "{pair:?}");
        }
        assert_eq!(name("a.Example.").cmp(&name("A.example.")), Ordering::Equal);
    }

    #[test]
    fn dname_rewrites_what_is_strictly_beneath_it() {
        let rewritten = |n: &str| name(n).rewritten(&name("old.test."), &name("new.example."));
        assert_eq!(rewritten("a.b.old.test."), Some(name("a.b.new.example.")));
        assert_eq!(rewritten("old.test."), None);
        assert_eq!(rewritten("a.told.test."), None);
        let long = format!("{}{}old.test.", "a.".repeat(61), "b.".repeat(61));
        assert_eq!(rewritten(&long), None, "257 octets");
    }

    #[test]
    fn suffix_shared_and_ancestors_end_at_labels() {
        assert_eq!(name("a.b.c.").suffix(2), name("b.c."));
        assert_eq!(name("a.b.c.").suffix(9), name("a.b.c."));
        assert_eq!(name("a.b.c.").suffix(0), Dname::root());
        assert_eq!(name("x.b.c.").shared(&name("y.x.b.c.")), name("x.b.c."));
        assert_eq!(name("a.xb.").shared(&name("a.b.")), Dname::root());
        assert_eq!(name("a.b.").ancestors().count(), 3);
        assert_eq!(name("a.b.c.").labels(), 3);
    }
}
