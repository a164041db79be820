//! The canonical form and order of names and records (RFC 4034 section 6, RFC 6840 section 5.1).

use crate::dns::wire::name_len;

/// Data of a record in canonical form: names in lower case in the types that RFC 4034 section 6.2 lists, but for NSEC (RFC
/// 6840 section 5.1). `data` is uncompressed.
pub(super) fn data(rtype: u16, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    lower(rtype, &mut data);
    data
}

/// As [`data`], in place.
pub(super) fn lower(rtype: u16, data: &mut [u8]) {
    let layout: &[Part] = match rtype {
        2..=5 | 7..=9 | 12 | 30 | 39 => &[Part::Name],
        6 | 14 | 17 => &[Part::Name, Part::Name],
        15 | 18 | 21 | 36 => &[Part::Bytes(2), Part::Name],
        26 => &[Part::Bytes(2), Part::Name, Part::Name],
        33 => &[Part::Bytes(6), Part::Name],
        35 => &[
            Part::Bytes(4),
            Part::Text,
            Part::Text,
            Part::Text,
            Part::Name,
        ],
        24 | 46 => &[Part::Bytes(18), Part::Name],
        _ => &[],
    };
    let mut at = 0;
    for part in layout {
        let rest = data.get(at..).unwrap_or_default();
        let len = match part {
            Part::Bytes(len) => *len,
            Part::Text => rest.first().map_or(0, |&len| usize::from(len) + 1),
            Part::Name => {
                let len = name_len(rest).unwrap_or(rest.len());
                if let Some(name) = data.get_mut(at..at + len) {
                    name.make_ascii_lowercase(); // A length byte is below any letter.
                }
                len
            }
        };
        at += len;
    }
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Bytes(usize),
    /// A length byte and as many more.
    Text,
    Name,
}

/// The key by which names sort (section 6.1): labels from the root down, each ended by two zero bytes, a zero inside a
/// label written as 0 1. `name` is in wire form, lower case.
pub(super) fn order(name: &[u8]) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut rest = name;
    while let Some((&len, tail)) = rest.split_first()
        && len > 0
    {
        let (label, after) = tail.split_at(usize::from(len).min(tail.len()));
        labels.push(label);
        rest = after;
    }
    let mut key = Vec::with_capacity(name.len() + labels.len());
    for label in labels.into_iter().rev() {
        for &byte in label {
            key.push(byte);
            if byte == 0 {
                key.push(1);
            }
        }
        key.extend([0, 0]);
    }
    key
}

/// The name above; the root is above itself.
pub(super) fn parent(name: &[u8]) -> &[u8] {
    match name.split_first() {
        Some((&len, rest)) if len > 0 => rest.get(usize::from(len)..).unwrap_or(&[0]),
        _ => name,
    }
}

/// The number of labels as RRSIG counts them: neither the root nor a leading `*` (RFC 4034 section 3.1.3).
pub(super) fn labels(name: &[u8]) -> u8 {
    let mut count = 0;
    let mut rest = name;
    while rest.first().is_some_and(|&len| len > 0) {
        count += 1; // At most 127.
        rest = parent(rest);
    }
    if name.starts_with(b"\x01*") {
        count - 1
    } else {
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lowers_names_of_the_listed_types_only() {
        assert_eq!(data(2, b"\x02NS\x01A\0"), b"\x02ns\x01a\0");
        assert_eq!(data(15, b"\0\x41\x01M\0"), b"\0\x41\x01m\0");
        assert_eq!(
            data(6, b"\x01N\0\x01H\0AAAABBBBCCCCDDDDEEEE"),
            b"\x01n\0\x01h\0AAAABBBBCCCCDDDDEEEE"
        );
        assert_eq!(
            data(35, b"\0\x41\0\x42\x01U\x03E2U\x02!A\x01R\0"),
            b"\0\x41\0\x42\x01U\x03E2U\x02!A\x01r\0"
        );
        assert_eq!(data(16, b"\x03ABC"), b"\x03ABC");
        assert_eq!(data(47, b"\x01A\0\0\x01\x40"), b"\x01A\0\0\x01\x40");
        assert_eq!(data(64, b"\0\x01\x01A\0"), b"\0\x01\x01A\0");
        assert_eq!(data(33, b"\0"), b"\0");
    }

    #[test]
    fn order_is_that_of_the_rfc() {
        let names: [&[u8]; 9] = [
            b"\x07example\0",
            b"\x01a\x07example\0",
            b"\x08yljkjljk\x01a\x07example\0",
            b"\x01z\x01a\x07example\0",
            b"\x04zabc\x01a\x07example\0",
            b"\x01z\x07example\0",
            b"\x01\x01\x01z\x07example\0",
            b"\x01*\x01z\x07example\0",
            b"\x01\xc8\x01z\x07example\0",
        ];
        for pair in names.windows(2) {
            assert!(order(pair[0]) < order(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn labels_leave_root_and_wildcard_out() {
        assert_eq!(labels(b"\0"), 0);
        assert_eq!(labels(b"\x01a\x04test\0"), 2);
        assert_eq!(labels(b"\x01*\x04test\0"), 1);
        assert_eq!(labels(b"\x01a\x01*\x04test\0"), 3);
    }
}
