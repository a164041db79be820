//! `[[zone]]`: own zones.

use std::collections::BTreeSet;
use std::str::FromStr;

use hickory_proto::rr::RecordType;

use super::super::read::Section;
use super::common::{DOMAIN_EXPECTED, Paths, TTLS, domain, seconds, secs, whole_seconds};
use crate::dns::dnssec::{Algorithm, Policy, Proof};
use crate::dns::transfer::{ALLOW_EXPECTED, Allow, JOURNAL, REMOTE_EXPECTED, Remote};
use crate::dns::tsig::Keys;
use crate::dns::{TtlOverride, ZoneConfig};

pub(super) fn settings(
    sections: &[Section<'_, '_>],
    paths: &Paths<'_>,
    keys: &Keys,
) -> Vec<ZoneConfig> {
    let mut names = BTreeSet::new();
    let mut zones = Vec::new();
    for section in sections {
        let name = section.parsed("name", DOMAIN_EXPECTED, domain);
        let file = section.text_or("file", "");
        let primaries = section.list_or_none("primaries", REMOTE_EXPECTED, |text| {
            let remote: Remote = text.parse().map_err(|e| format!("found {e}"))?;
            known(keys, remote.key.as_deref()).map(|()| remote)
        });
        let update_keys = section.list_or_none("update_keys", DOMAIN_EXPECTED, |text| {
            let name = domain(text).ok_or(format!("found {text:?}, expected {DOMAIN_EXPECTED}"))?;
            known(keys, Some(&name)).map(|()| name)
        });
        let secondary = !primaries.is_empty() || section.failed("primaries");
        if file.is_empty() && !secondary && !section.failed("file") {
            section.error("file", "expected the path of a master file, or primaries");
        }
        if !file.is_empty() && !primaries.is_empty() {
            let message = format!("found {file:?} beside primaries, expected one of them");
            section.error("file", message);
        }
        if !update_keys.is_empty() && !primaries.is_empty() {
            let message = "found keys beside primaries; a zone is updated where it comes from";
            section.error("update_keys", message);
        }
        let ttl = section.duration_or("ttl", TTLS, secs(3_600));
        let mut ttls = Vec::new();
        for (key, ttl) in section.durations("ttls", TTLS) {
            match ttl_override(&key, seconds(ttl)) {
                Some(ttl) => ttls.push(ttl),
                None => section.error(
                    "ttls",
                    format!("found {key:?}, expected {TTL_KEY_EXPECTED}"),
                ),
            }
            whole_seconds(section, "ttls", ttl);
        }
        whole_seconds(section, "ttl", ttl);
        if ttl.is_zero() && !section.failed("ttl") {
            section.warning("ttl", "0s: no resolver may keep any answer of this zone");
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            section.error(
                "name",
                format!("found {name:?} a second time, expected it once"),
            );
        }
        let allow_transfer = section.list_or_none("allow_transfer", ALLOW_EXPECTED, |text| {
            let allow: Allow = text.parse().map_err(|e| format!("found {e}"))?;
            known(keys, allow.key.as_deref()).map(|()| allow)
        });
        let notify = section.list_or_none("notify", REMOTE_EXPECTED, |text| {
            let remote: Remote = text.parse().map_err(|e| format!("found {e}"))?;
            known(keys, remote.key.as_deref()).map(|()| remote)
        });
        let journal = section.size_or("journal", 0..=1 << 32, JOURNAL);
        let sign = sign(section);
        if sign.is_some() && !primaries.is_empty() {
            let message = "found true beside primaries; a zone is signed where it comes from";
            section.error("sign", message);
        }
        section.end();
        let kept = paths.state.join("zones").join(file_name(&name));
        zones.push(ZoneConfig {
            file: if primaries.is_empty() {
                paths.resolve_zone(section, &file)
            } else {
                kept.with_added_extension("copy")
            },
            updates_file: kept.with_added_extension("updates"),
            sign,
            name,
            primaries,
            update_keys,
            ttl: seconds(ttl),
            ttls,
            allow_transfer,
            notify,
            journal: usize::try_from(journal).unwrap_or(usize::MAX),
        });
    }
    zones
}

/// A file name for what is kept of a zone: its name, but for what a file system takes amiss.
fn file_name(zone: &str) -> String {
    let mut name = String::new();
    for byte in zone.trim_end_matches('.').bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    match name.len() {
        0 => "%root".to_owned(),
        // Longer ones, which a label of 63 octets three times gives, are told apart by a digest.
        200.. => blake3::hash(zone.as_bytes()).to_hex().to_string(),
        _ => name,
    }
}

/// `sign`, and how.
fn sign(section: &Section<'_, '_>) -> Option<Policy> {
    let sign = section.boolean_or("sign", false);
    let word = section.choice_or_first("algorithm", &Algorithm::ALL.map(Algorithm::text));
    let algorithm = Algorithm::ALL
        .into_iter()
        .find(|known| known.text() == word);
    let denial = match section.choice_or_first("denial", &["nsec", "nsec3"]) {
        "nsec3" => Proof::Nsec3,
        _ => Proof::Nsec,
    };
    algorithm
        .filter(|_| sign)
        .map(|algorithm| Policy { algorithm, denial })
}

/// Whether there is a [[key]] of that name.
fn known(keys: &Keys, name: Option<&str>) -> Result<(), String> {
    match name {
        Some(name) if keys.get(name).is_none() => Err(format!(
            "found key {name:?}, expected the name of a [[key]]"
        )),
        _ => Ok(()),
    }
}

/// `www`, `www/AAAA` or `@`.
fn ttl_override(key: &str, ttl: u32) -> Option<TtlOverride> {
    let (name, rtype) = match key.split_once('/') {
        Some((name, rtype)) => (name, Some(rtype.to_ascii_uppercase())),
        None => (key, None),
    };
    let known = |t: &String| {
        RecordType::from_str(t).is_ok()
            || t.strip_prefix("TYPE")
                .is_some_and(|n| n.parse::<u16>().is_ok())
    };
    let relative = name == "@" || domain(name).is_some() && !name.ends_with('.');
    (relative && rtype.as_ref().is_none_or(known)).then(|| TtlOverride {
        name: name.to_ascii_lowercase(),
        rtype,
        ttl,
    })
}

const TTL_KEY_EXPECTED: &str = "a name relative to the zone such as \"www\", \"www/AAAA\" or \"@\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_override_names_a_name_and_maybe_a_type() {
        let get = |key| ttl_override(key, 5).map(|t| (t.name, t.rtype));
        assert_eq!(get("WWW"), Some(("www".into(), None)));
        assert_eq!(get("a.b/aaaa"), Some(("a.b".into(), Some("AAAA".into()))));
        assert_eq!(
            get("@/TYPE65280"),
            Some(("@".into(), Some("TYPE65280".into())))
        );
        assert_eq!(get("www/NOTYPE"), None);
        assert_eq!(get("www.cdn.test."), None);
    }
}
