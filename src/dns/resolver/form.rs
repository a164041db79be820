//! Whether RDATA has the form of its type, for what [`message`](super::message) does not read itself.
//!
//! A client takes a message apart by these forms: one record that has another is reason enough to refuse the whole of it, so no such
//! record comes in with an answer. Checked is where fields begin and end, never what they mean: a digest or a key of a length that
//! its algorithm does not have is for those who use it. Types not listed are opaque (RFC 3597).

/// Whether RDATA may end in `rest`, which lies behind the names and strings that `message` reads of `rtype` (`opaque`: it reads none).
pub(super) fn ends_well(rtype: u16, opaque: bool, rest: &[u8]) -> bool {
    match rtype {
        // A (RFC 1035 section 3.4.1), AAAA (RFC 3596 section 2.2), EUI48, EUI64 (RFC 7043)
        1 => rest.len() == 4,
        28 => rest.len() == 16,
        108 => rest.len() == 6,
        109 => rest.len() == 8,
        // NID, L32, L64, LP (RFC 6742)
        104 | 106 => rest.len() == 10,
        105 => rest.len() == 6,
        107 => skip(rest, 2).and_then(name) == Some(&[]),
        // Five numbers of a SOA (RFC 1035 section 3.3.13)
        6 => rest.len() == 20,
        // HINFO, X25, ISDN, GPOS (RFC 1035 section 3.3.2, RFC 1183 section 3, RFC 1712)
        13 => strings(rest) == Some(2),
        19 => strings(rest) == Some(1),
        20 => matches!(strings(rest), Some(1 | 2)),
        27 => strings(rest) == Some(3),
        // TXT, NINFO, SPF, AVC, RESINFO, WALLET (RFC 1035 section 3.3.14, RFC 7208 section 3.1, RFC 9606)
        16 | 56 | 99 | 258 | 261 | 262 => strings(rest).is_some_and(|count| count > 0),
        // A signature (RFC 4034 section 3.1.8)
        24 | 46 => !rest.is_empty(),
        // KEY, DNSKEY, CDNSKEY (RFC 4034 section 2.1); of these the first may have no key (RFC 3445)
        25 => rest.len() >= 4,
        48 | 60 => rest.len() > 4,
        // DS, CDS, DLV, TA (RFC 4034 section 5.1)
        43 | 59 | 32_768 | 32_769 => rest.len() > 4,
        // LOC of version 0 (RFC 1876 section 2)
        29 => rest.first().is_some_and(|&version| version != 0) || rest.len() == 16,
        // CERT (RFC 4398 section 2), SSHFP (RFC 4255 section 3.1), DHCID (RFC 4701 section 3.1), OPENPGPKEY (RFC 7929 section 2)
        37 => rest.len() > 5,
        44 => rest.len() > 2,
        49 | 61 => !rest.is_empty(),
        // TLSA, SMIMEA (RFC 6698 section 2.1, RFC 8162 section 2)
        52 | 53 => rest.len() > 3,
        // ZONEMD: no digest is shorter than 12 octets (RFC 8976 section 2.2.4)
        63 => rest.len() >= 18,
        // URI (RFC 7553 section 4.5)
        256 => rest.len() > 4,
        // CAA: a tag is not empty (RFC 8659 section 4.1)
        257 => rest.get(1).is_some_and(|&tag| tag > 0) && skip(rest, 1).and_then(string).is_some(),
        // APL (RFC 3123 section 4)
        42 => prefixes(rest).is_some(),
        // IPSECKEY, AMTRELAY (RFC 4025 section 2.1, RFC 8777 section 4.2)
        45 => relay(rest, 1, 3, 0xFF).is_some(),
        260 => relay(rest, 1, 2, 0x7F) == Some(&[]),
        // HIP (RFC 8005 section 5)
        55 => host_identity(rest).is_some(),
        // NSEC (RFC 4034 section 4.1), CSYNC (RFC 7477 section 2.1.1)
        47 => name(rest).is_some_and(is_bitmap),
        62 => skip(rest, 6).is_some_and(is_bitmap),
        // NSEC3, NSEC3PARAM (RFC 5155 sections 3.2, 4.2)
        50 => hashed(rest).is_some_and(is_bitmap),
        51 => skip(rest, 4).and_then(string) == Some(&[]),
        // SVCB, HTTPS (RFC 9460 section 2.2)
        64 | 65 => service(rest).is_some(),
        // The bitmap behind the name of NXT is opaque here.
        30 => true,
        _ => opaque || rest.is_empty(),
    }
}

fn skip(bytes: &[u8], count: usize) -> Option<&[u8]> {
    bytes.get(count..)
}

/// What is behind the number of one octet at the beginning and as many octets.
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = bytes.split_first()?;
    skip(rest, length.into())
}

/// How many character strings `rest` is made of; `None`: the last one runs over.
fn strings(mut rest: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !rest.is_empty() {
        rest = string(rest)?;
        count += 1;
    }
    Some(count)
}

/// What is behind the name at the beginning, which must not be compressed (RFC 3597 section 4).
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        match *rest.first()? {
            0 => {
                let rest = &rest[1..];
                return (bytes.len() - rest.len() <= 255).then_some(rest);
            }
            1..=63 => rest = string(rest)?,
            _ => return None,
        }
    }
}

/// Whether these are blocks of types in rising order (RFC 4034 section 4.1.2). None at all: an empty non-terminal of NSEC3.
fn is_bitmap(mut rest: &[u8]) -> bool {
    let mut next = 0;
    while let [window, length @ 1..=32, behind @ ..] = rest {
        let Some(behind) = skip(behind, (*length).into()) else {
            return false;
        };
        if u16::from(*window) < next {
            return false;
        }
        next = u16::from(*window) + 1;
        rest = behind;
    }
    rest.is_empty()
}

/// The bitmap of an NSEC3 record; a hash is not empty.
fn hashed(rest: &[u8]) -> Option<&[u8]> {
    let hash = skip(rest, 4).and_then(string)?;
    (*hash.first()? > 0).then(|| string(hash)).flatten()
}

/// A target and parameters, with keys in rising order.
fn service(rest: &[u8]) -> Option<()> {
    let mut rest = skip(rest, 2).and_then(name)?;
    let mut next = 0;
    while !rest.is_empty() {
        let (&[k1, k2, l1, l2], value) = rest.split_first_chunk()?;
        let key = u32::from(u16::from_be_bytes([k1, k2]));
        if key < next {
            return None;
        }
        next = key + 1;
        rest = skip(value, u16::from_be_bytes([l1, l2]).into())?;
    }
    Some(())
}

/// Address prefixes: family, length, octets.
fn prefixes(mut rest: &[u8]) -> Option<()> {
    while !rest.is_empty() {
        let (&[_, _, _, length], octets) = rest.split_first_chunk()?;
        rest = skip(octets, usize::from(length & 0x7F))?;
    }
    Some(())
}

/// What is behind the gateway or relay, of which the type stands at `kind` (in the bits of `mask`) and itself at `at`.
fn relay(rest: &[u8], kind: usize, at: usize, mask: u8) -> Option<&[u8]> {
    let kind = *rest.get(kind)? & mask;
    let gateway = skip(rest, at)?;
    match kind {
        0 => Some(gateway),
        1 => skip(gateway, 4),
        2 => skip(gateway, 16),
        3 => name(gateway),
        // Of a type that is yet to come nothing is known.
        _ => Some(&[]),
    }
}

fn host_identity(rest: &[u8]) -> Option<()> {
    let (&[tag, _, k1, k2], keys) = rest.split_first_chunk()?;
    let mut servers = skip(
        keys,
        usize::from(tag) + usize::from(u16::from_be_bytes([k1, k2])),
    )?;
    while !servers.is_empty() {
        servers = name(servers)?;
    }
    (tag > 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole it has the form of its type, and cut by an octet or with one more it has it only as `lengths` says.
    #[track_caller]
    fn check(rtype: u16, good: &[u8], (shorter, longer): (bool, bool)) {
        let well = |rest: &[u8]| ends_well(rtype, true, rest);
        assert!(well(good), "type {rtype}: {good:?}");
        assert_eq!(
            well(&good[..good.len() - 1]),
            shorter,
            "type {rtype}, shorter"
        );
        assert_eq!(
            well(&[good, &[0xFF]].concat()),
            longer,
            "type {rtype}, longer"
        );
        assert!(!well(&[]), "type {rtype}, empty");
    }

    const EXACT: (bool, bool) = (false, false);
    /// The last field runs to the end and has one octet here, the least it may have.
    const LEAST: (bool, bool) = (false, true);

    #[test]
    fn record_with_fields_of_fixed_length_is_refused_with_any_other() {
        check(108, &[0; 6], EXACT);
        check(109, &[0; 8], EXACT);
        check(104, &[0; 10], EXACT);
        check(105, &[0; 6], EXACT);
        check(107, b"\0\x0A\x01a\0", EXACT);
        check(29, &[0; 16], EXACT);
        check(51, b"\x01\0\0\0\x02ab", EXACT);
        check(20, b"\x01a\x01b", (false, false));
        check(260, b"\x0A\x81\xC0\0\x02\x01", EXACT);
    }

    #[test]
    fn record_whose_last_field_is_missing_is_refused() {
        for (rtype, before) in [
            (43, 4),
            (59, 4),
            (48, 4),
            (60, 4),
            (37, 5),
            (44, 2),
            (52, 3),
            (53, 3),
            (63, 17),
            (256, 4),
        ] {
            check(rtype, &vec![1; before + 1], LEAST);
        }
        check(257, b"\0\x05issue", LEAST);
        assert!(!ends_well(257, true, b"\0\0value"), "CAA without a tag");
    }

    #[test]
    fn bitmap_out_of_order_or_of_no_octets_is_refused() {
        let nsec = |bitmap: &[u8]| ends_well(47, true, &[b"\x01a\0", bitmap].concat());
        assert!(nsec(b"\0\x01\x40") && nsec(b"\0\x01\x40\x01\x01\x40"));
        assert!(!nsec(b"\x01\x01\x40\0\x01\x40"), "falling");
        assert!(!nsec(b"\0\x01\x40\0\x01\x40"), "twice");
        assert!(!nsec(b"\0\0"), "empty block");
        assert!(!nsec(b"\0\x02\x40"), "runs over");
        assert!(!nsec(&[&[0, 33][..], &[1; 33]].concat()), "too long");
        assert!(!ends_well(47, true, b"\xC0\x0C\0\x01\x40"), "compressed");
        assert!(ends_well(50, true, b"\x01\0\0\0\0\x01h"), "no types");
        assert!(!ends_well(50, true, b"\x01\0\0\0\0\0"), "no hash");
        assert!(
            !ends_well(50, true, b"\x01\0\0\0\x05ab\x01h"),
            "salt runs over"
        );
        assert!(ends_well(62, true, b"\0\0\0\x01\0\x03\0\x01\x40"));
    }

    #[test]
    fn service_parameters_out_of_order_or_running_over_are_refused() {
        let https = |params: &[u8]| ends_well(65, true, &[b"\0\x01\x01a\0", params].concat());
        assert!(https(b"") && https(b"\0\x01\0\x03\x02h2\0\x03\0\x02\x01\xBB"));
        assert!(!https(b"\0\x03\0\x02\x01\xBB\0\x01\0\x03\x02h2"), "falling");
        assert!(!https(b"\0\x03\0\0\0\x03\0\0"), "twice");
        assert!(!https(b"\0\x03\0\x03\x01\xBB"), "runs over");
        assert!(!https(b"\0\x03\0"), "cut");
        assert!(!ends_well(64, true, b"\0\x01\xC0\x0C"), "compressed target");
        assert!(https(&[&[0xFF, 0xFF, 0, 1][..], &[7]].concat()), "last key");
    }

    #[test]
    fn lists_and_gateways_are_read_to_their_end() {
        let list = |rest: &[u8]| ends_well(42, true, rest);
        assert!(list(b"") && list(b"\0\x01\x18\x83\xC0\0\x02"));
        assert!(!list(b"\0\x01\x18\x03\xC0\0") && !list(b"\0\x01\x18"));
        let key = |rest: &[u8]| ends_well(45, true, rest);
        assert!(key(b"\x0A\0\x02key") && key(b"\x0A\x01\x02\xC0\0\x02\x01key"));
        assert!(key(b"\x0A\x03\x02\x01a\0key") && !key(b"\x0A\x03\x02\x01a"));
        assert!(!key(b"\x0A\x02\x02\xC0\0\x02\x01"), "short address");
        let host = b"\x02\x02\0\x03hhkkk\x01a\0";
        check(55, host, (false, false));
    }
}
