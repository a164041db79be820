//! Names and records as text, for the operator's commands.

use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

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

/// The part of `name` (wire form) beneath which fetches are counted together when where zones are cut is not known: what
/// one can register. Two labels, three where the second is of a kind that countries sell beneath (`co.uk`), and
/// for addresses the network.
pub(super) fn crowd(name: &[u8]) -> &[u8] {
    let mut starts = [0_usize; 128];
    let mut labels = 0;
    let mut at = 0;
    while let Some(&label) = name.get(at)
        && label != 0
        && labels < starts.len()
    {
        starts[labels] = at;
        labels += 1;
        at += 1 + usize::from(label);
    }
    let label = |from_end: usize| -> &[u8] {
        labels
            .checked_sub(from_end)
            .and_then(|place| name.get(starts[place]..))
            .and_then(|rest| rest.get(1..1 + usize::from(rest[0])))
            .unwrap_or_default()
    };
    let (top, second) = (label(1), label(2));
    let kept = if top.eq_ignore_ascii_case(b"arpa") {
        if second.eq_ignore_ascii_case(b"ip6") {
            2 + 12
        } else {
            2 + 3
        }
    } else if top.len() == 2 && second.len() <= 3 {
        3
    } else {
        2
    };
    let start = if labels > kept {
        starts[labels - kept]
    } else {
        0
    };
    name.get(start..).unwrap_or_default()
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
    fn crowd_of_a_name_is_what_one_can_register() {
        for (name, expected) in [
            ("a.b.dead.example.", "dead.example."),
            ("dead.example.", "dead.example."),
            ("com.", "com."),
            (".", "."),
            ("a.b.dead.co.uk.", "dead.co.uk."),
            ("a.b.dead.de.", "dead.de."),
            ("9.8.7.10.in-addr.arpa.", "8.7.10.in-addr.arpa."),
            (
                "0.1.2.3.4.5.6.7.8.9.a.b.c.d.e.f.ip6.arpa.",
                "4.5.6.7.8.9.a.b.c.d.e.f.ip6.arpa.",
            ),
        ] {
            assert_eq!(text(crowd(&wire(name).unwrap())), expected, "{name}");
        }
        assert_eq!(crowd(b"\x05cut"), b"\x05cut");
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
