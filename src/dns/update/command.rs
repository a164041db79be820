//! Changes as an operator writes them: a record as in a master file, a name, a type.

use crate::dns::transfer::history::{is_newer, serial};
use crate::dns::transfer::message::{Entry, IN};
use crate::dns::zone::tree::{CNAME, SOA};
use crate::dns::zone::{Record, Zone, name, rdata, read_record};

/// Reads one record, such as `www.cdn.test. 300 A 192.0.2.1`; names are absolute.
///
/// # Errors
/// Found and expected.
pub(in crate::dns) fn record(text: &str) -> Result<Record, String> {
    read_record(text, 0)
}

/// Reads an absolute name; its final dot may be left out.
///
/// # Errors
/// Found and expected.
pub(in crate::dns) fn owner(text: &str) -> Result<Box<[u8]>, String> {
    let mut wire = Vec::new();
    name::from_text(text.as_bytes(), b"\0", &mut wire)
        .map_err(|problem| format!("{text:?}: {problem}"))?;
    wire.make_ascii_lowercase();
    Ok(wire.into())
}

/// The changes that make `record` the only one of its type at its name, or (`beside`) one of them.
pub(in crate::dns) fn set(record: Record, beside: bool) -> Vec<Entry> {
    let mut changes = Vec::new();
    if !beside {
        changes.push(delete(record.owner.clone(), record.rtype));
    }
    changes.push(Entry { class: IN, record });
    changes
}

/// Why `record` cannot stand in `zone` (RFC 2136 section 3.4.2.2 passes over such records without a word). `None`: it can.
pub(in crate::dns) fn unfit(zone: &Zone, record: &Record) -> Option<String> {
    let shown = name::to_text(&record.owner);
    let apex = *record.owner == *zone.apex();
    let there = zone.records_at(&record.owner);
    match record.rtype {
        SOA if !apex => Some(format!(
            "{shown} is not the name of the zone, which alone has a SOA"
        )),
        SOA => {
            let (theirs, ours) = (serial(record), zone.serial());
            let older = theirs != ours && !is_newer(theirs, ours);
            older.then(|| format!("serial {theirs} is not newer than {ours}"))
        }
        CNAME if apex => Some(format!(
            "{shown} is the name of the zone: its SOA and NS cannot stand beside an alias (CNAME)"
        )),
        CNAME => {
            let other = there
                .iter()
                .find(|r| r.rtype != CNAME && !may_stand_beside(r.rtype))?;
            Some(format!(
                "nothing can stand beside an alias (CNAME), and {shown} has other records: delete them first, such as {other}"
            ))
        }
        rtype if may_stand_beside(rtype) => None,
        _ => {
            let alias = there.iter().find(|r| r.rtype == CNAME)?;
            let target = name::to_text(&alias.data);
            Some(format!(
                "{shown} is an alias (CNAME) of {target}, beside which nothing else can stand: set it there, or delete the CNAME first"
            ))
        }
    }
}

/// Whether records of this type may stand beside a CNAME (RFC 2136 section 1.1.5, RFC 4034 section 2.5): KEY, RRSIG, NSEC.
pub(super) fn may_stand_beside(rtype: u16) -> bool {
    matches!(rtype, 25 | 46 | 47)
}

/// The change that removes the records of a type at a name; type 255: all of them.
pub(in crate::dns) fn delete(owner: Box<[u8]>, rtype: u16) -> Entry {
    Entry {
        class: CLASS_ANY,
        record: Record {
            owner,
            rtype,
            ttl: 0,
            data: Box::default(),
        },
    }
}

/// Reads a type such as `AAAA` or `TYPE65280`.
///
/// # Errors
/// Found and expected.
pub(in crate::dns) fn rtype(text: &str) -> Result<u16, String> {
    rdata::rtype(text.as_bytes()).ok_or_else(|| format!("found {text:?}, expected a record type"))
}

/// All types (RFC 2136 section 2.5.3).
pub(in crate::dns) const ALL_TYPES: u16 = 255;

const CLASS_ANY: u16 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_read_as_in_a_master_file() {
        let check = |text: &str, expected: &str| {
            let shown = match record(text) {
                Ok(record) => record.to_string(),
                Err(error) => error,
            };
            assert!(shown.contains(expected), "{text}: {shown}");
        };
        check("WWW.test. 5m A 192.0.2.1", "www.test. 300 IN A 192.0.2.1");
        check(
            "a.test 60 MX 10 mail.test",
            "a.test. 60 IN MX 10 mail.test.",
        );
        check("a.test 60 TXT \"a b\" c", "a.test. 60 IN TXT \"a b\" \"c\"");
        check("a.test 60 A 192.0.2", "expected");
        check("a.test 60 NOPE x", "NOPE");
        check("$INCLUDE /etc/passwd", "expected one record");
        check(
            "a.test 60 A 192.0.2.1\nb.test 60 A 192.0.2.1",
            "expected one",
        );
        check("", "expected one record");
    }
}
