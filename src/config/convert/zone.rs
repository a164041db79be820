//! `[[zone]]`: own zones.

use std::collections::BTreeSet;
use std::str::FromStr;

use hickory_proto::rr::RecordType;

use super::super::read::Section;
use super::values::{DOMAIN_EXPECTED, Paths, TTLS, domain, seconds, secs, whole_seconds};
use crate::dns::dnssec::{Algorithm, Policy, Proof};
use crate::dns::transfer::{
    ALLOW_EXPECTED, Allow, JOURNAL, REMOTE_EXPECTED, Remote, UPDATES_WAITING, file_name,
};
use crate::dns::tsig::Keys;
use crate::dns::{Catalog, Membership, Template, TtlOverride, ZoneConfig};

pub(super) fn settings(
    sections: &[Section<'_, '_>],
    paths: &Paths<'_>,
    keys: &Keys,
    templates: &[Template],
) -> Vec<ZoneConfig> {
    let mut names = BTreeSet::new();
    let mut zones = Vec::new();
    for section in sections {
        let name = section.parsed("name", DOMAIN_EXPECTED, domain);
        let file = section.text_or("file", "");
        let primaries = remotes(section, "primaries", keys);
        let update_keys = section.list_or_none("update_keys", DOMAIN_EXPECTED, |text| {
            let name = domain(text).ok_or(format!("found {text:?}, expected {DOMAIN_EXPECTED}"))?;
            known(keys, Some(&name)).map(|()| name)
        });
        let secondary = !primaries.is_empty() || section.failed("primaries");
        let catalog = catalog(section, paths, templates, secondary);
        let made = catalog == Some(Catalog::Producer);
        if !file.is_empty() && made {
            let message = format!("found {file:?}; a catalog that is made here has no master file");
            section.error("file", message);
        }
        if file.is_empty() && !secondary && !made && !section.failed("file") {
            section.error("file", "expected the path of a master file, or primaries");
        }
        if !file.is_empty() && !primaries.is_empty() {
            let message = format!("found {file:?} beside primaries, expected one of them");
            section.error("file", message);
        }
        if !update_keys.is_empty() && made {
            section.error(
                "update_keys",
                "found keys; a catalog that is made here is not updated",
            );
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
        let allow_transfer = allowed(section, keys);
        let notify = remotes(section, "notify", keys);
        let journal = journal(section);
        let updates_waiting = section.integer_or("updates_waiting", 1..=1_000_000, UPDATES_WAITING);
        let member = membership(section);
        let sign = sign(section);
        if sign.is_some() && !primaries.is_empty() {
            let message = "found true beside primaries; a zone is signed where it comes from";
            section.error("sign", message);
        }
        if sign.is_some() && made {
            section.error(
                "sign",
                "found true; a catalog that is made here is not signed",
            );
        }
        section.end();
        let kept = paths.state.join("zones").join(file_name(&name));
        zones.push(ZoneConfig {
            file: if primaries.is_empty() && !made {
                paths.resolve_zone(section, &file)
            } else {
                kept.with_added_extension("copy")
            },
            updates_file: kept.with_added_extension("updates"),
            history_file: kept.with_added_extension("history"),
            updates_waiting,
            catalog,
            member,
            sign,
            name,
            primaries,
            update_keys,
            ttl: seconds(ttl),
            ttls,
            allow_transfer,
            notify,
            journal,
        });
    }
    check_memberships(sections, &zones);
    zones
}

/// `[[template]]`: what the members of catalogs are configured with.
pub(super) fn templates(sections: &[Section<'_, '_>], keys: &Keys) -> Vec<Template> {
    let mut templates: Vec<Template> = Vec::new();
    for section in sections {
        let name = section.text("name");
        if name.is_empty() && !section.failed("name") {
            section.error("name", "found \"\", expected what catalogs call the group");
        }
        if templates.iter().any(|template| template.name == name) {
            let message = format!("found {name:?} a second time, expected it once");
            section.error("name", message);
        }
        let template = Template {
            name,
            primaries: remotes(section, "primaries", keys),
            allow_transfer: allowed(section, keys),
            notify: remotes(section, "notify", keys),
            journal: journal(section),
        };
        section.end();
        templates.push(template);
    }
    templates
}

/// `catalog_role`, and what belongs to it.
fn catalog(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
    templates: &[Template],
    secondary: bool,
) -> Option<Catalog> {
    let role = section.choice_or_first("catalog_role", &["none", "consumer", "producer"]);
    let members = section.integer_or("catalog_members", 1..=1_000_000, MEMBERS);
    let chosen = section.list_or_none("catalog_templates", TEMPLATE_EXPECTED, |text| {
        let known = templates.iter().find(|template| template.name == text);
        known
            .cloned()
            .ok_or(format!("found {text:?}, expected {TEMPLATE_EXPECTED}"))
    });
    match role {
        "consumer" => {
            if !secondary {
                let message = "found \"consumer\" without primaries; a catalog that is followed comes from elsewhere";
                section.error("catalog_role", message);
            }
            if chosen.is_empty() && !section.failed("catalog_templates") {
                section.error("catalog_templates", format!("expected {TEMPLATE_EXPECTED}"));
            }
            Some(Catalog::Consumer {
                templates: chosen,
                members,
                folder: paths.state.join("zones").join("members"),
            })
        }
        "producer" => {
            if secondary {
                let message = "found \"producer\" beside primaries; such a catalog is made here";
                section.error("catalog_role", message);
            }
            Some(Catalog::Producer)
        }
        _ => None,
    }
}

/// `catalog_zone`, and what it says of the zone.
fn membership(section: &Section<'_, '_>) -> Option<Membership> {
    let name = |key: &'static str| {
        let text = section.text_or(key, "");
        if text.is_empty() {
            return None;
        }
        let name = domain(&text);
        if name.is_none() {
            section.error(key, format!("found {text:?}, expected {DOMAIN_EXPECTED}"));
        }
        name
    };
    let (catalog, coo) = (name("catalog_zone"), name("catalog_coo"));
    let groups = section.list_or_none("catalog_group", GROUP_EXPECTED, |text| match text.len() {
        1..=255 => Ok(text.to_owned()),
        found => Err(format!("found {found} bytes, expected {GROUP_EXPECTED}")),
    });
    let id = section.text_or("catalog_id", "");
    let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
    if id.len() > 63 || !id.bytes().all(label) {
        let expected = "expected at most 63 lower-case letters, digits, '-' or '_'";
        section.error("catalog_id", format!("found {id:?}, {expected}"));
    }
    Some(Membership {
        catalog: catalog?,
        id: (!id.is_empty()).then_some(id),
        groups,
        coo,
    })
}

/// Each `catalog_zone` is a catalog made here, and another zone.
fn check_memberships(sections: &[Section<'_, '_>], zones: &[ZoneConfig]) {
    for (section, zone) in sections.iter().zip(zones) {
        let Some(member) = &zone.member else {
            continue;
        };
        let made = |other: &ZoneConfig| {
            other.name == member.catalog && other.catalog == Some(Catalog::Producer)
        };
        if !zones.iter().any(made) {
            let found = &member.catalog;
            let expected = "expected the name of a [[zone]] with catalog_role = \"producer\"";
            section.error("catalog_zone", format!("found {found:?}, {expected}"));
        } else if zone.catalog == Some(Catalog::Producer) {
            let message = "found it in a catalog that is made here itself, expected it in none";
            section.error("catalog_zone", message);
        }
    }
}

/// A list of other servers.
fn remotes(section: &Section<'_, '_>, key: &'static str, keys: &Keys) -> Vec<Remote> {
    section.list_or_none(key, REMOTE_EXPECTED, |text| {
        let remote: Remote = text.parse().map_err(|e| format!("found {e}"))?;
        if key == "notify" && remote.tls.is_some() {
            // RFC 9103 section 6.5: it says nothing but that there is something new, and servers take no other.
            return Err(format!(
                "found {text:?}, expected an address: a NOTIFY goes in the clear"
            ));
        }
        known(keys, remote.key.as_deref()).map(|()| remote)
    })
}

/// `allow_transfer`.
fn allowed(section: &Section<'_, '_>, keys: &Keys) -> Vec<Allow> {
    section.list_or_none("allow_transfer", ALLOW_EXPECTED, |text| {
        let allow: Allow = text.parse().map_err(|e| format!("found {e}"))?;
        known(keys, allow.key.as_deref()).map(|()| allow)
    })
}

/// `journal`.
fn journal(section: &Section<'_, '_>) -> usize {
    let journal = section.size_or("journal", 0..=1 << 32, JOURNAL);
    usize::try_from(journal).unwrap_or(usize::MAX)
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

/// Members of a catalog that has no `catalog_members` of its own configured.
const MEMBERS: usize = 10_000;

const TEMPLATE_EXPECTED: &str = "the name of a [[template]]";

const GROUP_EXPECTED: &str = "a group of 1 to 255 bytes";

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
