//! What DNS over HTTPS (RFC 8484) adds to a message: its form in a URL, and how long an HTTP cache may keep it.

use super::wire::{HEADER_LEN, name_len};

/// The message in the `dns` parameter of a query string (base64url, section 6); `None`: it is not there once, or is
/// malformed or longer than a message.
#[must_use]
pub fn dns_parameter(query: &str) -> Option<Vec<u8>> {
    let mut values = query
        .split('&')
        .filter_map(|part| part.strip_prefix("dns="));
    let text = values.next()?;
    if values.next().is_some() {
        return None;
    }
    // Padding must not be there (section 6), but says nothing that could be misread.
    decode(text.trim_end_matches('='))
}

/// Seconds an HTTP cache may keep an answer: the lowest TTL in its answer and authority sections (section 5.1); 0 if it has
/// no records, or is not well formed.
#[must_use]
pub fn freshness(answer: &[u8]) -> u32 {
    lowest_ttl(answer).flatten().unwrap_or(0)
}

fn lowest_ttl(answer: &[u8]) -> Option<Option<u32>> {
    let count = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let mut at = HEADER_LEN;
    for _ in 0..count(4)? {
        at += name_len(answer.get(at..)?)? + 4;
    }
    let mut lowest = None;
    for _ in 0..u32::from(count(6)?) + u32::from(count(8)?) {
        loop {
            let label = usize::from(*answer.get(at)?);
            at += match label {
                0 => break at += 1,
                0xC0.. => break at += 2,
                label => label + 1,
            };
        }
        let &[_, _, _, _, t0, t1, t2, t3, l0, l1] = answer.get(at..at + 10)? else {
            return None;
        };
        let ttl = u32::from_be_bytes([t0, t1, t2, t3]);
        lowest = Some(lowest.map_or(ttl, |lowest: u32| lowest.min(ttl)));
        at += 10 + usize::from(u16::from_be_bytes([l0, l1]));
    }
    Some(lowest)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            bits = bits << 6 | u32::from(sextet(digit)?);
        }
        let whole = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

/// The longest message in base64url.
const TEXT_MAX: usize = (u16::MAX as usize).div_ceil(3) * 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameter_is_read_as_in_the_standard() {
        let text = "dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
        let message = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
        assert_eq!(dns_parameter(text).as_deref(), Some(&message[..]));
        assert_eq!(
            dns_parameter("a=b&dns=_-8&c").as_deref(),
            Some(&[0xFF, 0xEF][..])
        );
        assert_eq!(dns_parameter("dns=AA==").as_deref(), Some(&[0][..]));
        for bad in ["", "dn=AA", "dns=A", "dns=A+", "dns=AA&dns=AA", "DNS=AA"] {
            assert_eq!(dns_parameter(bad), None, "{bad}");
        }
        assert_eq!(dns_parameter(&format!("dns={}", "A".repeat(90_000))), None);
    }

    #[test]
    fn freshness_is_the_lowest_ttl_before_the_additional_section() {
        let mut answer = b"\0\0\x80\0\0\x01\0\x01\0\x01\0\x01\x01a\0\0\x01\0\x01".to_vec();
        for ttl in [300_u32, 60, 0] {
            answer.extend(b"\xC0\x0C\0\x01\0\x01");
            answer.extend(ttl.to_be_bytes());
            answer.extend(b"\0\x02ab");
        }
        assert_eq!(freshness(&answer), 60);
        assert_eq!(freshness(&answer[..40]), 0, "cut");
        assert_eq!(freshness(b"\0\0\x80\0\0\0\0\0\0\0\0\0"), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,100}") {
            let _ = freshness(&bytes);
            let _ = dns_parameter(&format!("dns={text}"));
        }
    }
}
