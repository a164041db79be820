//! Catalog zones (RFC 9432): zones that list zones. Read and composed here, and which catalog a zone belongs to.

use std::collections::BTreeMap;

use super::message::SOA;
use crate::dns::zone::records::Cursor;
use crate::dns::zone::{Record, Zone, name};

/// One zone that a catalog lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Member {
    /// Its apex, text form, lower case.
    pub(in crate::dns) zone: String,
    /// The label that stands for this zone with this history; another one means that it begins anew.
    pub(in crate::dns) id: Box<[u8]>,
    /// The values of its group property.
    pub(in crate::dns) groups: Vec<String>,
    /// The catalog it moves to, if it says so.
    pub(in crate::dns) coo: Option<String>,
}

/// Why a catalog is not followed (RFC 9432 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::dns) enum Broken {
    /// It is none, or one of another kind.
    #[error("found {0}, expected version.{1} TXT \"2\"")]
    Version(String, String),
    /// A name has several.
    #[error("found several PTR at {0}, expected one")]
    Several(String),
    /// A zone stands there twice.
    #[error("found zone {0} more than once, expected it once")]
    Twice(String),
    /// Over the bound.
    #[error("found {found} member zones, expected at most {limit} (catalog_members)")]
    Many {
        /// Members listed.
        found: usize,
        /// Members allowed.
        limit: usize,
    },
}

/// The member zones of a catalog, in the order of their ids.
///
/// # Errors
/// The catalog is broken: it is not to be followed, and what it said before stays.
pub(in crate::dns) fn members(zone: &Zone, limit: usize) -> Result<Vec<Member>, Broken> {
    let mut versions = Vec::new();
    let mut targets: BTreeMap<Box<[u8]>, Vec<String>> = BTreeMap::new();
    let mut groups: BTreeMap<Box<[u8]>, Vec<String>> = BTreeMap::new();
    let mut coos: BTreeMap<Box<[u8]>, Vec<String>> = BTreeMap::new();
    let target = |data: &[u8]| name::to_text(data).to_ascii_lowercase();
    zone.walk(&mut Cursor::default(), |owner, rtype, _, data| {
        let labels = labels(&owner[..owner.len() - zone.apex().len()]);
        match (&labels[..], rtype) {
            ([b"version"], TXT) => versions.push(data.to_vec()),
            ([id, b"zones"], PTR) => targets.entry((*id).into()).or_default().push(target(data)),
            ([b"coo", id, b"zones"], PTR) => {
                coos.entry((*id).into()).or_default().push(target(data));
            }
            ([b"group", id, b"zones"], TXT) => {
                groups.entry((*id).into()).or_default().push(text(data));
            }
            // What is not known is not minded (RFC 9432 section 4).
            _ => {}
        }
        true
    });
    if versions != [VERSION] {
        let found = match &versions[..] {
            [] => "no version".to_owned(),
            [one] => format!("version {:?}", text(one)),
            more => format!("{} versions", more.len()),
        };
        return Err(Broken::Version(found, zone.name().to_owned()));
    }
    if targets.len() > limit {
        let found = targets.len();
        return Err(Broken::Many { found, limit });
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut members = Vec::with_capacity(targets.len());
    for (id, mut zones) in targets {
        let several = |property: &str| {
            let label = name::to_text(&[&[id.len() as u8], &id[..], &[0]].concat()); // A label: at most 63 octets.
            Broken::Several(format!("{property}{label}zones.{}", zone.name()))
        };
        let (Some(member), true) = (zones.pop(), zones.is_empty()) else {
            return Err(several(""));
        };
        let mut coo = coos.remove(&id).unwrap_or_default();
        let moves_to = coo.pop();
        if !coo.is_empty() {
            return Err(several("coo."));
        }
        if !seen.insert(member.clone()) {
            return Err(Broken::Twice(member));
        }
        members.push(Member {
            zone: member,
            groups: groups.remove(&id).unwrap_or_default(),
            coo: moves_to,
            id,
        });
    }
    Ok(members)
}

/// The records of a catalog, the SOA first.
pub(in crate::dns) fn records(apex: &[u8], serial: u32, members: &[Member]) -> Vec<Record> {
    let record = |owner: Vec<u8>, rtype, data: Vec<u8>| Record {
        owner: owner.into(),
        rtype,
        ttl: 0,
        data: data.into(),
    };
    let mut soa = [INVALID, INVALID].concat();
    for number in [serial, REFRESH, RETRY, EXPIRE, 0] {
        soa.extend(number.to_be_bytes());
    }
    let mut records = vec![
        record(apex.to_vec(), SOA, soa),
        record(apex.to_vec(), NS, INVALID.to_vec()),
        record([b"\x07version", apex].concat(), TXT, VERSION.to_vec()),
    ];
    for member in members {
        let id = [&[member.id.len() as u8], &member.id[..], b"\x05zones", apex].concat();
        let mut point = |owner: Vec<u8>, zone: &str| {
            if let Some(zone) = crate::dns::zone::apex(zone) {
                records.push(record(owner, PTR, zone.to_vec()));
            }
        };
        point(id.clone(), &member.zone);
        if let Some(catalog) = &member.coo {
            point([b"\x03coo", &id[..]].concat(), catalog);
        }
        for group in &member.groups {
            let text = &group.as_bytes()[..group.len().min(255)];
            let data = [&[text.len() as u8], text].concat(); // At most 255.
            records.push(record([b"\x05group", &id[..]].concat(), TXT, data));
        }
    }
    records
}

/// The id of a zone that its configuration gives none: the same on every node, so that a zone may move from one
/// producer's catalog to another's and be the same zone.
pub(in crate::dns) fn id(zone: &str) -> Box<[u8]> {
    let digest = blake3::hash(zone.as_bytes()).to_hex();
    digest.as_bytes()[..32].into()
}

/// Which catalog each zone belongs to, by zone.
pub(in crate::dns) type Owners = BTreeMap<String, (String, Member)>;

/// A zone that a catalog lists and does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Clash {
    pub(in crate::dns) catalog: String,
    pub(in crate::dns) zone: String,
    /// The catalog that has it; `None`: it is configured here.
    pub(in crate::dns) holder: Option<String>,
}

/// Gives each zone to a catalog: the one that had it, unless that one lists it no more or says that it moves (coo) to
/// another one that lists it; else the first to list it, those before others of whose zone something is kept. Zones
/// that are configured here belong to none (RFC 9432 sections 4.4.1 and 5.2).
pub(in crate::dns) fn owners(
    catalogs: &BTreeMap<String, Vec<Member>>,
    before: &BTreeMap<String, String>,
    configured: impl Fn(&str) -> bool,
    kept: impl Fn(&Member) -> bool,
) -> (Owners, Vec<Clash>) {
    let mut listed: BTreeMap<&str, Vec<(&str, &Member)>> = BTreeMap::new();
    for (catalog, members) in catalogs {
        for member in members {
            let by_zone = listed.entry(&member.zone).or_default();
            by_zone.push((catalog, member));
        }
    }
    let (mut owners, mut clashes) = (Owners::new(), Vec::new());
    for (zone, claims) in listed {
        let clash = |catalog: &str, holder: Option<&str>| Clash {
            catalog: catalog.to_owned(),
            zone: zone.to_owned(),
            holder: holder.map(str::to_owned),
        };
        if configured(zone) {
            clashes.extend(claims.iter().map(|(catalog, _)| clash(catalog, None)));
            continue;
        }
        let of = |wanted: &str| claims.iter().find(|(catalog, _)| *catalog == wanted);
        let had = before.get(zone).and_then(|catalog| of(catalog));
        let first = had
            .or_else(|| claims.iter().find(|(_, member)| kept(member)))
            .or_else(|| claims.first());
        let Some(mut owner) = first else {
            continue;
        };
        // From hand to hand, as often as there are catalogs at most.
        for _ in 1..claims.len() {
            match owner.1.coo.as_deref().and_then(of) {
                Some(next) => owner = next,
                None => break,
            }
        }
        let (catalog, member) = *owner;
        let others = claims.iter().filter(|(other, _)| *other != catalog);
        // The catalog it left may list it still, until the move is done everywhere.
        let others = others.filter(|(_, other)| other.coo.as_deref() != Some(catalog));
        clashes.extend(others.map(|(other, _)| clash(other, Some(catalog))));
        owners.insert(zone.to_owned(), (catalog.to_owned(), member.clone()));
    }
    (owners, clashes)
}

/// The labels of the part of a name before the apex.
fn labels(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut labels = Vec::new();
    while let Some((&len, after)) = rest.split_first() {
        let Some((label, after)) = after.split_at_checked(usize::from(len)) else {
            break;
        };
        labels.push(label);
        rest = after;
    }
    labels
}

/// The strings of a TXT record as one.
fn text(data: &[u8]) -> String {
    let strings = labels(data).concat();
    String::from_utf8_lossy(&strings).into_owned()
}

const VERSION: &[u8] = b"\x012";
const INVALID: &[u8] = b"\x07invalid\0";

/// Timers of a catalog made here, seconds: NOTIFY brings changes, and members outlive silence.
const REFRESH: u32 = 3_600;
const RETRY: u32 = 600;
const EXPIRE: u32 = 0x7FFF_FFFF;

const NS: u16 = 2;
const PTR: u16 = 12;
const TXT: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use crate::dns::zone::records::from_records;
    use proptest::prelude::*;

    fn zone(text: &str) -> std::sync::Arc<Zone> {
        let config = ZoneConfig {
            name: "cat.".to_owned(),
            ..ZoneConfig::default()
        };
        let text = format!("@ 0 SOA invalid. invalid. 1 2 3 4 5\n@ 0 NS invalid.\n{text}");
        let loaded = crate::dns::zone::load_text(&config, text.as_bytes());
        loaded.expect("a good zone").zone
    }

    fn member(zone: &str, id: &str, coo: Option<&str>) -> Member {
        Member {
            zone: zone.to_owned(),
            id: id.as_bytes().into(),
            groups: Vec::new(),
            coo: coo.map(str::to_owned),
        }
    }

    #[test]
    fn members_are_read_with_their_properties_and_what_is_unknown_is_not_minded() {
        let catalog = zone(
            "version 0 TXT 2\na.zones 0 PTR A.test.\nb.zones 0 PTR b.test.\ngroup.a.zones 0 TXT x\n\
             group.a.zones 0 TXT y\ncoo.b.zones 0 PTR Other.\nprimaries.ext 0 A 192.0.2.1\n\
             new.a.zones 0 TXT z\nmail 0 A 192.0.2.1\n",
        );
        let mut found = members(&catalog, 2).expect("a good catalog");
        found[0].groups.sort();
        let mut a = member("a.test.", "a", None);
        a.groups = vec!["x".to_owned(), "y".to_owned()];
        assert_eq!(found, [a, member("b.test.", "b", Some("other."))]);
    }

    #[test]
    fn broken_catalog_says_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let broken = members(&zone(text), 2).expect_err(text);
            assert_eq!(broken.to_string(), expected);
        };
        let version = "expected version.cat. TXT \"2\"";
        check(
            "a.zones 0 PTR a.\n",
            &format!("found no version, {version}"),
        );
        check(
            "version 0 TXT 1\n",
            &format!("found version \"1\", {version}"),
        );
        check(
            "version 0 TXT 2\nversion 0 TXT 1\n",
            &format!("found 2 versions, {version}"),
        );
        check(
            "version 0 TXT 2\na.zones 0 PTR a.\na.zones 0 PTR b.\n",
            "found several PTR at a.zones.cat., expected one",
        );
        check(
            "version 0 TXT 2\na.zones 0 PTR a.\ncoo.a.zones 0 PTR b.\ncoo.a.zones 0 PTR c.\n",
            "found several PTR at coo.a.zones.cat., expected one",
        );
        check(
            "version 0 TXT 2\na.zones 0 PTR a.\nb.zones 0 PTR A.\n",
            "found zone a. more than once, expected it once",
        );
        check(
            "version 0 TXT 2\na.zones 0 PTR a.\nb.zones 0 PTR b.\nc.zones 0 PTR c.\n",
            "found 3 member zones, expected at most 2 (catalog_members)",
        );
    }

    /// Owners of `z.`, and catalogs that clash over it.
    fn owner(
        catalogs: &[(&str, Option<&str>)],
        before: Option<&str>,
        configured: bool,
    ) -> (Option<String>, Vec<String>) {
        let catalogs = catalogs
            .iter()
            .map(|(catalog, coo)| ((*catalog).to_owned(), vec![member("z.", catalog, *coo)]))
            .collect();
        let before = before.map(|c| ("z.".to_owned(), c.to_owned()));
        let before = before.into_iter().collect();
        let (owners, clashes) = owners(&catalogs, &before, |_| configured, |_| false);
        let owner = owners.get("z.").map(|(catalog, _)| catalog.clone());
        (owner, clashes.into_iter().map(|c| c.catalog).collect())
    }

    #[test]
    fn zone_stays_with_its_catalog_until_it_is_let_go() {
        let some = |name: &str| Some(name.to_owned());
        let none: Vec<String> = Vec::new();
        assert_eq!(owner(&[("a.", None)], None, false), (some("a."), none));
        let both = [("a.", None), ("b.", None)];
        assert_eq!(
            owner(&both, Some("b."), false),
            (some("b."), vec!["a.".to_owned()])
        );
        // It says that it moves, and where it moves to lists it: there it goes.
        let moves = [("a.", Some("b.")), ("b.", None)];
        assert_eq!(owner(&moves, Some("a."), false), (some("b."), vec![]));
        // It says so, and is not listed there yet; or is let go.
        assert_eq!(owner(&moves[..1], Some("a."), false), (some("a."), vec![]));
        assert_eq!(owner(&both[1..], Some("a."), false), (some("b."), vec![]));
        // Nobody may take it by saying that it moves from somewhere else.
        assert_eq!(
            owner(&[("a.", None), ("b.", Some("b."))], Some("a."), false),
            (some("a."), vec!["b.".to_owned()])
        );
        // Round and round ends.
        let round = [("a.", Some("b.")), ("b.", Some("a."))];
        assert_eq!(owner(&round, Some("a."), false).0, some("b."));
        assert_eq!(
            owner(&both, None, true),
            (None, vec!["a.".to_owned(), "b.".to_owned()])
        );
    }

    #[test]
    fn zone_that_two_catalogs_list_goes_to_the_one_whose_copy_is_kept() {
        let catalogs = ["a.", "b."]
            .map(|catalog| (catalog.to_owned(), vec![member("z.", catalog, None)]))
            .into();
        let (owners, clashes) = owners(
            &catalogs,
            &BTreeMap::new(),
            |_| false,
            |member| *member.id == *b"b.",
        );
        assert_eq!(owners["z."].0, "b.");
        assert_eq!(clashes.len(), 1);
    }

    proptest! {
        /// What is composed reads as what went in.
        #[test]
        fn catalog_composed_reads_the_same(
            listed in prop::collection::btree_map("[a-z]{1,9}", (prop::option::of("[a-z]{1,9}"), prop::collection::vec("[a-z]{0,9}", 0..3)), 0..9),
        ) {
            let wanted: Vec<Member> = listed
                .into_iter()
                .map(|(zone, (coo, mut groups))| {
                    groups.sort();
                    groups.dedup();
                    let zone = format!("{zone}.");
                    let id = id(&zone);
                    Member { zone, id, groups, coo: coo.map(|c| format!("{c}.")) }
                })
                .collect();
            let records = records(b"\x03cat\0", 7, &wanted);
            let loaded = from_records(b"\x03cat\0", "test", &[], |add| {
                for record in &records {
                    add(&record.owner, record.rtype, record.ttl, &record.data);
                }
            });
            let zone = loaded.expect("a good zone").zone;
            prop_assert_eq!(zone.serial(), 7);
            let mut found = members(&zone, 100).expect("a good catalog");
            found.sort_by(|a, b| a.zone.cmp(&b.zone));
            found.iter_mut().for_each(|m| m.groups.sort());
            prop_assert_eq!(found, wanted);
        }
    }
}
