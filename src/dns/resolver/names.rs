//! Names and records as text, for the operator's commands.

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::serialize::binary::{BinDecodable, BinDecoder};

/// A name in text form, any case, as lower-cased wire form. `None`: it is no domain name.
pub(super) fn wire(name: &str) -> Option<Box<[u8]>> {
    let name = Name::from_ascii(name).ok()?;
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend(label.to_ascii_lowercase());
    }
    wire.push(0);
    Some(wire.into())
}

/// A name in wire form as text with a final dot.
pub(super) fn text(wire: &[u8]) -> String {
    Name::read(&mut BinDecoder::new(wire))
        .map_or_else(|_| String::from("?"), |name| name.to_ascii())
}

/// Whether `name` is `zone` or beneath it; both lower-cased, in wire form.
pub(super) fn is_beneath(name: &[u8], zone: &[u8]) -> bool {
    let mut rest = name;
    while rest.len() > zone.len() {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    rest == zone
}

/// The records of a message as master-file lines.
pub(super) fn records(message: &[u8]) -> Vec<String> {
    Message::from_vec(message).map_or_else(
        |_| Vec::new(),
        |message| message.all_sections().map(ToString::to_string).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_as_wire_and_back_is_lower_case_with_a_final_dot() {
        let name = wire("wWw.Example").unwrap();
        assert_eq!(&*name, b"\x03www\x07example\0");
        assert_eq!(text(&name), "www.example.");
        assert_eq!(&*wire(".").unwrap(), b"\0");
        assert!(wire("a..b").is_none());
    }

    #[test]
    fn name_beneath_a_zone_ends_at_a_label() {
        let zone = wire("example.").unwrap();
        assert!(is_beneath(&wire("a.b.example.").unwrap(), &zone));
        assert!(is_beneath(&zone, &zone));
        assert!(!is_beneath(&wire("anexample.").unwrap(), &zone));
        assert!(!is_beneath(&wire(".").unwrap(), &zone));
        assert!(is_beneath(&zone, &wire(".").unwrap()));
    }
}
