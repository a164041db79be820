//! Digest fields (RFC 9530): which one a client wants, and which ones it declares. Pure.

use http::{HeaderMap, HeaderName};

/// `Repr-Digest`: of the whole object, whatever part of it is sent.
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// `Content-Digest`: of the bytes of this message.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Which `Repr-Digest` a client wants.
pub const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
/// Which `Content-Digest` a client wants.
pub const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// What a client says of SHA-256 in a `Want-…-Digest` field (RFC 9530 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// There is no such field, or it is malformed and so ignored.
    Unsaid,
    /// It is welcome; or only others are, of which there is none here: this one is better than nothing.
    Welcome,
    /// It is the one that is not acceptable (weight 0).
    Unwanted,
}

/// What `headers` say of SHA-256 in the fields `name`.
#[must_use]
pub fn want(headers: &HeaderMap, name: &HeaderName) -> Want {
    let mut said = Want::Unsaid;
    for field in headers.get_all(name) {
        let Some(members) = field.to_str().ok().and_then(members) else {
            return Want::Unsaid;
        };
        for (algorithm, weight) in members {
            match weight.parse::<u8>() {
                Ok(0) if algorithm == "sha-256" => said = Want::Unwanted,
                Ok(0..=10) if algorithm == "sha-256" || said == Want::Unsaid => {
                    said = Want::Welcome;
                }
                Ok(0..=10) => {}
                _ => return Want::Unsaid,
            }
        }
    }
    said
}

/// An algorithm that is active and known here (RFC 9530 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `sha-256`
    Sha256,
    /// `sha-512`
    Sha512,
}

/// A digest somebody declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// How it was made.
    pub algorithm: Algorithm,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The digests that `headers` declare in the fields `name`, by algorithms known here; others are left out.
///
/// # Errors
/// What is wrong with a field.
pub fn declared(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<Declared>, &'static str> {
    const MALFORMED: &str = "a digest field is malformed";
    let mut found = Vec::new();
    for field in headers.get_all(name) {
        let members = field.to_str().ok().and_then(members).ok_or(MALFORMED)?;
        for (algorithm, value) in members {
            let (algorithm, length) = match algorithm {
                "sha-256" => (Algorithm::Sha256, 32),
                "sha-512" => (Algorithm::Sha512, 64),
                _ => continue,
            };
            // A byte sequence (RFC 9651 section 3.3.5).
            let inner = value.strip_prefix(':').and_then(|v| v.strip_suffix(':'));
            let bytes = inner.and_then(decode).ok_or(MALFORMED)?;
            if bytes.len() != length {
                return Err("a declared digest has another length than its algorithm's");
            }
            found.push(Declared { algorithm, bytes });
        }
    }
    Ok(found)
}

/// The members of a dictionary (RFC 9651 section 3.2) without inner lists, parameters cut off; `None`: malformed. Neither weights nor
/// digests hold a comma.
fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    for member in text.split(',') {
        let member = member.trim_matches([' ', '\t']);
        let (key, value) = member.split_once('=')?;
        let value = value.split(';').next()?;
        let good = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
        if !good || value.is_empty() || found.len() == MEMBERS {
            return None;
        }
        found.push((key, value));
    }
    Some(found)
}

/// RFC 4648 section 4, with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0u32, |bits, b| bits << 8 | u32::from(*b));
        for place in 0..4 {
            if place <= group.len() {
                let digit = bits >> (18 - 6 * place) & 0x3f;
                out.push(char::from(ALPHABET[digit as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// What [`base64`] wrote; `None`: it did not. Padding may be left out.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Members read of one field.
const MEMBERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_want(field: &str, expected: Want) {
        let mut headers = HeaderMap::new();
        headers.insert(WANT_REPR_DIGEST, field.parse().unwrap());
        assert_eq!(want(&headers, &WANT_REPR_DIGEST), expected, "{field}");
    }

    #[test]
    fn weight_of_sha_256_decides() {
        assert_eq!(want(&HeaderMap::new(), &WANT_REPR_DIGEST), Want::Unsaid);
        check_want("sha-256=1", Want::Welcome);
        check_want("sha-512=3, sha-256=10, unixsum=0", Want::Welcome);
        check_want("sha-512=3", Want::Welcome);
        check_want("sha-256=0", Want::Unwanted);
        check_want("sha-512=3, sha-256=0", Want::Unwanted);
        check_want("sha-256=0, sha-512=3", Want::Unwanted);
        for malformed in [
            "",
            "sha-256",
            "SHA-256=1",
            "sha-256=11",
            "sha-256=x",
            "a=1,,b=2",
        ] {
            check_want(malformed, Want::Unsaid);
        }
    }

    fn declare(field: &str) -> Result<Vec<Declared>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(REPR_DIGEST, field.parse().unwrap());
        declared(&headers, &REPR_DIGEST)
    }

    #[test]
    fn declared_digests_are_read_and_unknown_ones_left_out() {
        let one = declare("md5=:AAAA:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        let one = one.unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].algorithm, Algorithm::Sha256);
        assert_eq!(one[0].bytes[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        for bad in [
            "sha-256=:AAAA:",
            "sha-256=AAAA",
            "sha-256=:****:",
            "x",
            "sha-256=:A:",
        ] {
            assert!(declare(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    proptest! {
        #[test]
        fn base64_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            prop_assert_eq!(decode(&base64(&bytes)), Some(bytes));
        }

        #[test]
        fn any_field_is_read_without_panic(text in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(REPR_DIGEST, text.parse().unwrap());
            let _ = declared(&headers, &REPR_DIGEST);
            let _ = want(&headers, &REPR_DIGEST);
        }
    }
}
