//! Questions about the server itself, in class CH (RFC 4892): which version it is, and which of several it is.

use super::wire::{Ede, Query, Rcode, Reason, Section, Writer};

/// What the server tells of itself; an empty text: that question is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// To `version.bind` and `version.server`.
    pub version: String,
    /// To `id.server` and `hostname.bind`; NSID says the same.
    pub name: String,
}

/// Answers `query`, whose class is not IN, into `out`. Returns its length and whether it tells something; else the
/// answer is REFUSED.
#[must_use]
pub fn answer(query: &Query<'_>, identity: &Identity, out: &mut [u8]) -> (usize, bool) {
    let limit = out.len();
    let Some(mut writer) = Writer::new(query, limit, out) else {
        return (0, false);
    };
    let text = text(query, identity);
    if text.is_empty() {
        writer.rcode(Rcode::Refused);
        writer.reason(Reason::new(Ede::NotSupported, "only class IN is served"));
        return (writer.finish(), false);
    }
    writer.authoritative();
    let text = &text.as_bytes()[..text.len().min(TEXT_MAX)];
    let len = text.len() as u8; // At most `TEXT_MAX`.
    let head = [0xC0, 12, 0, 16, 0, 3, 0, 0, 0, 0, 0, len + 1, len];
    if writer.append(&head) && writer.append(text) {
        writer.count(Section::Answer, 1);
    } else {
        writer.truncated();
    }
    (writer.finish(), true)
}

fn text<'i>(query: &Query<'_>, identity: &'i Identity) -> &'i str {
    if query.qclass != CH || !matches!(query.qtype, TXT | ANY) {
        return "";
    }
    let is = |names: [&[u8]; 2]| names.iter().any(|n| n.eq_ignore_ascii_case(query.name));
    if is([b"\x07version\x04bind\0", b"\x07version\x06server\0"]) {
        &identity.version
    } else if is([b"\x02id\x06server\0", b"\x08hostname\x04bind\0"]) {
        &identity.name
    } else {
        ""
    }
}

/// The longest text, bytes; an answer with it fits 512.
pub const TEXT_MAX: usize = 128;

const CH: u16 = 3;
const TXT: u16 = 16;
const ANY: u16 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &[u8], qtype: u8, class: u8, expected: Option<&[u8]>) {
        let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend_from_slice(name);
        packet.extend([0, qtype, 0, class]);
        let query = Query::parse(&packet).unwrap();
        let identity = Identity {
            version: "one".to_owned(),
            name: String::new(),
        };
        let mut out = [0; 512];
        let (len, told) = answer(&query, &identity, &mut out);
        assert_eq!(told, expected.is_some());
        assert_eq!(out[3] & 15, if told { 0 } else { 5 });
        assert_eq!(out[7], u8::from(told));
        if let Some(expected) = expected {
            assert!(out[..len].ends_with(expected));
        }
    }

    #[test]
    fn server_tells_what_it_was_told_to_and_nothing_else() {
        let record = b"\xC0\x0C\0\x10\0\x03\0\0\0\0\0\x04\x03one";
        check(b"\x07Version\x04BIND\0", 16, 3, Some(record));
        check(b"\x07version\x06server\0", 255, 3, Some(record));
        check(b"\x07version\x04bind\0", 1, 3, None);
        check(b"\x07version\x04bind\0", 16, 4, None);
        check(b"\x02id\x06server\0", 16, 3, None);
        check(b"\x04test\0", 16, 3, None);
    }
}
