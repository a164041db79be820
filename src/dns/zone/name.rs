//! Domain names: master-file text to wire form and back, and the [`Path`] that lookups walk.

use std::hash::Hasher;

use foldhash::{SharedSeed, fast::FoldHasher};

use crate::dns::wire::NAME_MAX;

/// A name taken apart for lookups: lower case, with the place of every label. On the stack, never allocated.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct Path {
    bytes: [u8; NAME_MAX],
    len: usize,
    /// Where each label starts, leftmost first.
    offsets: [u8; LABELS_MAX],
    labels: usize,
}

impl Path {
    /// The path of an uncompressed name in wire form, checked before (255 bytes at most).
    pub(in crate::dns) fn new(name: &[u8]) -> Self {
        let mut path = Self {
            bytes: [0; NAME_MAX],
            len: name.len(),
            offsets: [0; LABELS_MAX],
            labels: 0,
        };
        path.bytes[..name.len()].copy_from_slice(name);
        path.finish();
        path
    }

    /// The path of a name inside a message this server composed; `at` is where it starts. `None` if it is longer
    /// than a name may be.
    pub(in crate::dns) fn from_message(message: &[u8], at: usize) -> Option<Self> {
        let mut path = Self {
            bytes: [0; NAME_MAX],
            len: 0,
            offsets: [0; LABELS_MAX],
            labels: 0,
        };
        let mut at = at;
        loop {
            at = resolve_pointer(message, at);
            let len = usize::from(message[at]) + 1;
            let to = path.len..path.len + len;
            path.bytes
                .get_mut(to)?
                .copy_from_slice(&message[at..at + len]);
            path.len += len;
            at += len;
            if len == 1 {
                path.finish();
                return Some(path);
            }
        }
    }

    /// Lower-cases the bytes (a length byte is below any letter) and notes the labels.
    fn finish(&mut self) {
        self.bytes[..self.len].make_ascii_lowercase();
        let mut at = 0;
        while self.bytes[at] != 0 {
            self.offsets[self.labels] = at as u8; // Below NAME_MAX.
            self.labels += 1;
            at += usize::from(self.bytes[at]) + 1;
        }
    }

    /// Number of labels, the root not counted.
    pub(in crate::dns) fn labels(&self) -> usize {
        self.labels
    }

    /// Label `index` (leftmost is 0), its length byte before it.
    pub(in crate::dns) fn label(&self, index: usize) -> &[u8] {
        let at = self.offset(index);
        &self.bytes[at..=at + usize::from(self.bytes[at])]
    }

    /// Where label `index` starts; for `labels()` that is the root.
    pub(in crate::dns) fn offset(&self, index: usize) -> usize {
        if index == self.labels {
            self.len - 1
        } else {
            usize::from(self.offsets[index])
        }
    }

    /// The name from label `index` on, in wire form.
    pub(in crate::dns) fn suffix(&self, index: usize) -> &[u8] {
        &self.bytes[self.offset(index)..self.len]
    }

    /// The name before label `index`, without a root.
    pub(in crate::dns) fn prefix(&self, index: usize) -> &[u8] {
        &self.bytes[..self.offset(index)]
    }
}

/// The hash of a name, given that of its parent and its first label (length byte included, lower case). All names
/// of all zones hash the same way, so one walk from the root gives the key of every suffix. Seeded once per process.
pub(in crate::dns) fn hash_label(parent: u64, label: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(parent, SharedSeed::global_random());
    hasher.write(label);
    hasher.finish()
}

/// The hash of the root.
pub(in crate::dns) const ROOT_HASH: u64 = 0;

/// Follows compression pointers from `at` to a label. Only for messages this server composed: they do not loop.
pub(in crate::dns) fn resolve_pointer(message: &[u8], mut at: usize) -> usize {
    while message[at] >= 0xC0 {
        at = usize::from(u16::from_be_bytes([message[at] & 0x3F, message[at + 1]]));
    }
    at
}

/// Where the part of a name behind its first `skip` bytes stands in a message; the name starts at `at`.
pub(in crate::dns) fn suffix_in_message(message: &[u8], at: usize, skip: usize) -> usize {
    let mut at = at;
    let mut left = skip;
    loop {
        at = resolve_pointer(message, at);
        if left == 0 {
            return at;
        }
        let label = usize::from(message[at]) + 1;
        at += label;
        left -= label;
    }
}

/// Reads master-file text as a name and appends it to `out`; relative to `origin` unless it ends in a dot.
///
/// # Errors
/// What is wrong with it; `out` is then as before.
pub(in crate::dns) fn from_text(
    text: &[u8],
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let start = out.len();
    let read = append_text(text, origin, out);
    if read.is_err() {
        out.truncate(start);
    }
    read
}

fn append_text(text: &[u8], origin: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    match text {
        b"@" => {
            out.extend_from_slice(origin);
            return Ok(());
        }
        b"." => {
            out.push(0);
            return Ok(());
        }
        b"" => return Err("found an empty name, expected a name"),
        _ => {}
    }
    let mut label = out.len();
    out.push(0);
    let mut absolute = false;
    for symbol in Symbols(text) {
        let (byte, escaped) = symbol?;
        absolute = false;
        if byte == b'.' && !escaped {
            if out.len() - label == 1 {
                return Err("found an empty label, expected 1 to 63 bytes between two dots");
            }
            label = out.len();
            out.push(0);
            absolute = true;
        } else {
            out.push(byte);
            if out.len() - label - 1 > 63 {
                return Err("found a label of more than 63 bytes, expected at most 63");
            }
            out[label] += 1;
        }
        if out.len() - start > NAME_MAX {
            return Err(TOO_LONG);
        }
    }
    if !absolute {
        out.extend_from_slice(origin);
    }
    if out.len() - start > NAME_MAX {
        return Err(TOO_LONG);
    }
    Ok(())
}

const TOO_LONG: &str = "found a name of more than 255 bytes, expected at most 255";

/// The bytes of a token, escapes resolved (RFC 1035 section 5.1), each with whether it was escaped.
pub(super) struct Symbols<'a>(pub(super) &'a [u8]);

impl Iterator for Symbols<'_> {
    type Item = Result<(u8, bool), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first != b'\\' {
            return Some(Ok((first, false)));
        }
        let Some((&second, rest)) = rest.split_first() else {
            return Some(Err(
                "found a backslash at the end, expected a character or three digits behind it",
            ));
        };
        if !second.is_ascii_digit() {
            self.0 = rest;
            return Some(Ok((second, true)));
        }
        let value = self
            .0
            .get(..3)
            .filter(|d| d.iter().all(u8::is_ascii_digit))
            .map(|digits| {
                digits
                    .iter()
                    .fold(0_u16, |value, digit| value * 10 + u16::from(digit - b'0'))
            });
        self.0 = self.0.get(3..).unwrap_or(&[]);
        match value.map(u8::try_from) {
            Some(Ok(byte)) => Some(Ok((byte, true))),
            _ => Some(Err("found a bad escape, expected \\000 to \\255")),
        }
    }
}

/// A wire-form name as master-file text with a final dot.
pub(in crate::dns) fn to_text(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut at = 0;
    while name[at] != 0 {
        let end = at + 1 + usize::from(name[at]);
        for &byte in &name[at + 1..end] {
            match byte {
                b'.' | b'"' | b'(' | b')' | b';' | b'@' | b'$' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                0x21..=0x7E => text.push(char::from(byte)),
                _ => {
                    let _ = write!(text, "\\{byte:03}"); // A String takes everything.
                }
            }
        }
        text.push('.');
        at = end;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// Labels of the longest name, plus one.
const LABELS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[u8], &str>) {
        let mut out = vec![9];
        let read = from_text(text.as_bytes(), b"\x04test\0", &mut out);
        match expected {
            Ok(wire) => {
                assert_eq!(read, Ok(()));
                assert_eq!(&out[1..], wire);
            }
            Err(part) => {
                assert!(read.is_err_and(|error| error.contains(part)));
                assert_eq!(out, [9]);
            }
        }
    }

    #[test]
    fn from_text_reads_relative_absolute_and_escaped_names() {
        check("@", Ok(b"\x04test\0"));
        check(".", Ok(b"\0"));
        check("www", Ok(b"\x03www\x04test\0"));
        check("a.B.", Ok(b"\x01a\x01B\0"));
        check("a\\.b", Ok(b"\x03a.b\x04test\0"));
        check("a\\046b.", Ok(b"\x03a.b\0"));
    }

    #[test]
    fn from_text_names_what_is_wrong() {
        check("", Err("empty name"));
        check("a..b", Err("empty label"));
        check(".a", Err("empty label"));
        check("a\\25", Err("bad escape"));
        check("a\\256", Err("bad escape"));
        check("a\\", Err("backslash"));
        check(&"x".repeat(64), Err("63 bytes"));
        check(&"x.".repeat(128), Err("255 bytes"));
        check(
            &"x.".repeat(127),
            Ok(&[&b"\x01x".repeat(127)[..], b"\0"].concat()),
        );
    }

    #[test]
    fn path_gives_labels_suffixes_and_prefixes_in_lower_case() {
        let path = Path::new(b"\x03wWw\x04TEST\0");
        assert_eq!(path.labels(), 2);
        assert_eq!(path.label(1), b"\x04test");
        assert_eq!(path.suffix(1), b"\x04test\0");
        assert_eq!(path.suffix(2), b"\0");
        assert_eq!(path.prefix(1), b"\x03www");
    }

    proptest! {
        #[test]
        fn any_name_survives_text(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).expect("below 20"));
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let mut back = Vec::new();
            prop_assert_eq!(from_text(to_text(&wire).as_bytes(), b"\0", &mut back), Ok(()));
            prop_assert_eq!(back, wire);
        }
    }
}
