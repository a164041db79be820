use super::*;
use crate::dns::Membership;
use crate::dns::transfer::incoming::Came;
use crate::metrics::Metrics;

/// A consumer of the catalogs `names`, whose state is in `folder`; nothing loaded.
fn consumer(folder: &Path, names: &[&str], more: Vec<ZoneConfig>) -> Keeper {
    let remote = || vec!["192.0.2.1".parse().expect("an address")];
    let template = |name: &str| Template {
        name: name.to_owned(),
        journal: 1_000,
        ..Template::default()
    };
    let other = Template {
        primaries: vec!["192.0.2.9 key:other.".parse().expect("an address")],
        ..template("other")
    };
    let catalogs = names.iter().map(|name| ZoneConfig {
        name: (*name).to_owned(),
        file: folder.join(format!("{name}copy")),
        primaries: remote(),
        catalog: Some(Catalog::Consumer {
            templates: vec![template("member"), other.clone()],
            members: 3,
            folder: folder.join("members"),
        }),
        ..ZoneConfig::default()
    });
    let keeper = Keeper::new(catalogs.chain(more).collect(), Arc::new(Metrics::new()));
    let _ = keeper.reload(None);
    keeper
}

/// The primary gives a zone: its master file, the SOA left out.
fn give(keeper: &Keeper, name: &str, serial: u32, text: &str) {
    let config = ZoneConfig {
        name: name.to_owned(),
        ..ZoneConfig::default()
    };
    let text =
        format!("@ 0 SOA invalid. invalid. {serial} 3600 600 86400 0\n@ 0 NS invalid.\n{text}");
    let loaded = zone::load_text(&config, text.as_bytes()).expect("a good zone");
    let apex = zone::apex(name).expect("a name");
    assert!(keeper.ask(&apex, Now::read()), "{name} is no secondary");
    let (due, _) = keeper.due(Now::read());
    let (due, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| due.apex == apex);
    others.iter().for_each(|other| keeper.postponed(other));
    let due = due.first().expect("it was asked for");
    let mut records = Vec::new();
    let soa = loaded.zone.soa().expect("a SOA");
    loaded
        .zone
        .walk(&mut Default::default(), |owner, rtype, ttl, data| {
            let (owner, data) = (owner.into(), data.into());
            records.push(Record {
                owner,
                rtype,
                ttl,
                data,
            });
            true
        });
    let came = Came::Whole(soa, records);
    let installed = keeper.install(due, came, "test", Now::read());
    installed.expect("a good zone");
}

fn catalog(keeper: &Keeper, serial: u32, text: &str) {
    give(keeper, "cat.", serial, &format!("version 0 TXT 2\n{text}"));
}

/// Names and serials of the zones.
fn zones(keeper: &Keeper) -> Vec<(String, Option<u32>)> {
    let zones = keeper.zones().into_iter();
    zones.map(|zone| (zone.name, zone.serial)).collect()
}

fn expect(zones: &[(&str, Option<u32>)]) -> Vec<(String, Option<u32>)> {
    zones
        .iter()
        .map(|(name, serial)| ((*name).to_owned(), *serial))
        .collect()
}

fn status(keeper: &Keeper, name: &str) -> super::super::ZoneStatus {
    let found = keeper.zones().into_iter().find(|zone| zone.name == name);
    found.expect("a zone")
}

/// Whether questions for the zone get SERVFAIL.
fn unavailable(keeper: &Keeper, name: &str) -> bool {
    keeper
        .serving()
        .unavailable(&zone::apex(name).expect("a name"))
        .is_some()
}

fn copies(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("members")).map_or(0, Iterator::count)
}

#[test]
fn members_come_and_go_with_the_catalog_and_begin_anew_with_another_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = consumer(folder.path(), &["cat."], vec![]);
    catalog(
        &keeper,
        1,
        "a.zones 0 PTR a.test.\nb.zones 0 PTR b.test.\ngroup.b.zones 0 TXT other\n",
    );
    assert_eq!(
        zones(&keeper),
        expect(&[("a.test.", None), ("b.test.", None), ("cat.", Some(1))])
    );
    assert!(unavailable(&keeper, "a.test."));
    // From where the catalog comes, or as the template of its group says.
    let primaries = |name: &str| {
        let found = keeper.find(&zone::apex(name).expect("a name"));
        found.expect("a zone").1.primaries[0].address.to_string()
    };
    assert_eq!(
        (&*primaries("a.test."), &*primaries("b.test.")),
        ("192.0.2.1:53", "192.0.2.9:53")
    );
    give(&keeper, "a.test.", 5, "");
    give(&keeper, "b.test.", 6, "");
    let a = status(&keeper, "a.test.");
    assert_eq!((a.serial, a.catalog.as_deref()), (Some(5), Some("cat.")));
    assert_eq!(status(&keeper, "cat.").members, Some(2));
    assert_eq!(copies(folder.path()), 2);
    // Another member, and one in another group: nothing else begins anew.
    catalog(
        &keeper,
        2,
        "a.zones 0 PTR a.test.\ngroup.a.zones 0 TXT other\nb.zones 0 PTR b.test.\nc.zones 0 PTR c.test.\n",
    );
    assert_eq!(status(&keeper, "a.test.").serial, Some(5));
    assert_eq!(
        (&*primaries("a.test."), &*primaries("b.test.")),
        ("192.0.2.9:53", "192.0.2.1:53")
    );
    // One leaves, one gets another id.
    catalog(
        &keeper,
        3,
        "new.zones 0 PTR a.test.\nc.zones 0 PTR c.test.\n",
    );
    assert_eq!(
        zones(&keeper),
        expect(&[("a.test.", None), ("c.test.", None), ("cat.", Some(3))])
    );
    assert!(unavailable(&keeper, "a.test.") && !unavailable(&keeper, "b.test."));
    assert_eq!(copies(folder.path()), 0);
    let text = keeper.metrics().text();
    assert!(
        text.contains("headwater_catalog_members{zone=\"cat.\"} 2"),
        "{text}"
    );
}

#[test]
fn broken_catalog_changes_nothing_and_says_why_even_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = consumer(folder.path(), &["cat."], vec![]);
    catalog(&keeper, 1, "a.zones 0 PTR a.test.\n");
    give(&keeper, "a.test.", 5, "");
    let good = expect(&[("a.test.", Some(5)), ("cat.", Some(2))]);
    for (serial, text, why) in [
        (2, "version 0 TXT 3\n", "version \"3\""),
        (3, "x.zones 0 PTR x.\n", "no version"),
        (
            4,
            "version 0 TXT 2\na.zones 0 PTR x.\na.zones 0 PTR y.\n",
            "several PTR",
        ),
        (
            5,
            "version 0 TXT 2\na.zones 0 PTR a.\nb.zones 0 PTR b.\nc.zones 0 PTR c.\nd.zones 0 PTR d.\n",
            "4 member zones, expected at most 3",
        ),
    ] {
        give(&keeper, "cat.", serial, text);
        let mut good = good.clone();
        good[1].1 = Some(serial);
        assert_eq!(zones(&keeper), good);
        let problems = status(&keeper, "cat.").problems;
        assert!(
            problems[0].starts_with("catalog not followed: ") && problems[0].contains(why),
            "{problems:?}"
        );
        assert!(!keeper.is_good());
    }
    let text = keeper.metrics().text();
    for line in [
        "headwater_catalog_broken{zone=\"cat.\"} 1",
        "headwater_catalog_members_limit_total 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    drop(keeper);
    let again = consumer(folder.path(), &["cat."], vec![]);
    assert_eq!(
        zones(&again),
        expect(&[("a.test.", Some(5)), ("cat.", Some(5))])
    );
    assert_eq!(status(&again, "cat.").problems.len(), 1);
    assert!(!unavailable(&again, "a.test."));
    // Good again.
    catalog(&again, 6, "a.zones 0 PTR a.test.\n");
    assert!(status(&again, "cat.").problems.is_empty() && again.is_good());
    assert_eq!(status(&again, "a.test.").serial, Some(5));
    drop(again);
    // The copy of the catalog is lost: its members are known all the same.
    std::fs::remove_file(folder.path().join("cat.copy")).expect("a copy");
    let again = consumer(folder.path(), &["cat."], vec![]);
    assert_eq!(
        zones(&again),
        expect(&[("a.test.", Some(5)), ("cat.", None)])
    );
    assert_eq!(copies(folder.path()), 1);
}

#[test]
fn zone_changes_hands_without_beginning_anew_if_its_id_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = consumer(folder.path(), &["cat.", "dog."], vec![]);
    let listed = "version 0 TXT 2\na.zones 0 PTR a.test.\n";
    catalog(&keeper, 1, "a.zones 0 PTR a.test.\n");
    give(&keeper, "a.test.", 5, "");
    // Somebody else lists it: nothing happens but that it is said.
    give(&keeper, "dog.", 1, listed);
    assert_eq!(status(&keeper, "a.test.").catalog.as_deref(), Some("cat."));
    assert_eq!(
        status(&keeper, "dog.").warnings,
        ["zone a.test. belongs to catalog cat."]
    );
    assert_eq!(status(&keeper, "dog.").members, Some(0));
    catalog(
        &keeper,
        2,
        "a.zones 0 PTR a.test.\ncoo.a.zones 0 PTR dog.\n",
    );
    let a = status(&keeper, "a.test.");
    assert_eq!((a.catalog.as_deref(), a.serial), (Some("dog."), Some(5)));
    assert!(status(&keeper, "dog.").warnings.is_empty());
    // It leaves the catalog it was in: it is not that one's any more.
    catalog(&keeper, 3, "");
    assert_eq!(status(&keeper, "a.test.").serial, Some(5));
    assert_eq!(copies(folder.path()), 1);
    drop(keeper);
    let again = consumer(folder.path(), &["cat.", "dog."], vec![]);
    assert_eq!(status(&again, "a.test.").catalog.as_deref(), Some("dog."));
    assert_eq!(status(&again, "a.test.").serial, Some(5));
    // Another id with the other owner: it begins anew.
    give(
        &again,
        "dog.",
        2,
        "version 0 TXT 2\na.zones 0 PTR a.test.\ncoo.a.zones 0 PTR cat.\n",
    );
    catalog(&again, 4, "b.zones 0 PTR a.test.\n");
    let a = status(&again, "a.test.");
    assert_eq!((a.catalog.as_deref(), a.serial), (Some("cat."), None));
}

#[test]
fn configured_zone_is_never_a_member_and_catalogs_no_longer_configured_take_theirs_out_of_service()
{
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("own");
    let text = "@ 60 SOA ns h 9 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\n";
    std::fs::write(&file, text).expect("a file");
    let own = ZoneConfig {
        name: "a.test.".to_owned(),
        file: file.clone(),
        ..ZoneConfig::default()
    };
    let keeper = consumer(folder.path(), &["cat."], vec![own.clone()]);
    catalog(&keeper, 1, "a.zones 0 PTR a.test.\nb.zones 0 PTR b.test.\n");
    give(&keeper, "b.test.", 5, "");
    let expected = [
        ("a.test.", Some(9)),
        ("b.test.", Some(5)),
        ("cat.", Some(1)),
    ];
    assert_eq!(zones(&keeper), expect(&expected));
    assert_eq!(
        status(&keeper, "cat.").warnings,
        ["zone a.test. is configured here"]
    );
    catalog(&keeper, 2, "");
    assert_eq!(
        zones(&keeper),
        expect(&[("a.test.", Some(9)), ("cat.", Some(2))])
    );
    assert!(file.exists());
    catalog(&keeper, 3, "b.zones 0 PTR b.test.\n");
    give(&keeper, "b.test.", 6, "");
    keeper.configure(vec![own]);
    assert_eq!(zones(&keeper), expect(&[("a.test.", Some(9))]));
    assert!(!unavailable(&keeper, "b.test."));
    assert_eq!(copies(folder.path()), 1, "it may come back");
}

#[test]
fn members_of_a_catalog_that_comes_back_are_served_at_once_and_those_of_one_long_gone_are_swept_away()
 {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = consumer(folder.path(), &["cat.", "dog."], vec![]);
    catalog(&keeper, 1, "a.zones 0 PTR a.test.\n");
    give(&keeper, "a.test.", 5, "");
    give(
        &keeper,
        "dog.",
        1,
        "version 0 TXT 2\nd.zones 0 PTR d.test.\n",
    );
    give(&keeper, "d.test.", 7, "");
    assert_eq!(copies(folder.path()), 2);
    // Without its catalog, over a restart and reloads.
    let keeper = consumer(folder.path(), &["cat."], vec![]);
    for _ in 0..2 {
        let _ = keeper.reload(None);
    }
    let served = [("a.test.", Some(5)), ("cat.", Some(1))];
    assert_eq!(zones(&keeper), expect(&served));
    assert_eq!(copies(folder.path()), 2);
    // With it again.
    let keeper = consumer(folder.path(), &["cat.", "dog."], vec![]);
    let _ = keeper.reload(None);
    assert!(zones(&keeper).contains(&(String::from("d.test."), Some(7))));
    // For good.
    let keeper = consumer(folder.path(), &["cat."], vec![]);
    let _ = keeper.reload(None);
    let left = folder.path().join("dog.copy.members.left");
    let file = std::fs::File::options().append(true).open(&left);
    let file = file.expect("it is marked");
    file.set_modified(std::time::UNIX_EPOCH).expect("a time");
    let _ = keeper.reload(None);
    assert!(!left.exists());
    assert_eq!(copies(folder.path()), 1);
}

#[test]
fn copy_of_no_member_is_swept_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = consumer(folder.path(), &["cat."], vec![]);
    let stray = folder.path().join("members/x.test.0123456789abcdef");
    std::fs::create_dir_all(folder.path().join("members")).expect("a folder");
    std::fs::write(&stray, "x").expect("a file");
    // As long as the catalog has not said what it lists, nothing is known to be stray.
    let _ = keeper.reload(None);
    assert!(stray.exists());
    catalog(&keeper, 1, "a.zones 0 PTR a.test.\n");
    give(&keeper, "a.test.", 5, "");
    let _ = keeper.reload(None);
    assert!(!stray.exists());
    assert_eq!(copies(folder.path()), 1);
}

#[test]
fn catalog_made_here_lists_its_members_and_changes_its_serial_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let configs = |members: &[&str]| {
        let zone = |name: &&str| ZoneConfig {
            name: (*name).to_owned(),
            file: folder.path().join("none"),
            member: Some(Membership {
                catalog: "cat.".to_owned(),
                id: None,
                groups: vec!["g".to_owned()],
                coo: None,
            }),
            ..ZoneConfig::default()
        };
        let made = ZoneConfig {
            name: "cat.".to_owned(),
            file: folder.path().join("cat.copy"),
            catalog: Some(Catalog::Producer),
            ..ZoneConfig::default()
        };
        members.iter().map(zone).chain([made]).collect::<Vec<_>>()
    };
    let keeper = Keeper::new(configs(&["a.test."]), Arc::new(Metrics::new()));
    let _ = keeper.reload(None);
    let first = status(&keeper, "cat.");
    assert_eq!((first.problems.len(), first.members), (0, Some(1)));
    let serial = first.serial.expect("in service");
    let listed = |keeper: &Keeper| {
        let zones = keeper.serving();
        let zone = zones.get(b"\x03cat\0").expect("in service").clone();
        let members = catalog::members(&zone, 10).expect("a good catalog");
        members
            .into_iter()
            .map(|m| (m.zone, m.groups))
            .collect::<BTreeMap<_, _>>()
    };
    let groups = vec!["g".to_owned()];
    assert_eq!(
        listed(&keeper),
        [("a.test.".to_owned(), groups.clone())].into()
    );
    // The same again is the same version, also after a restart.
    let _ = keeper.reload(None);
    assert_eq!(status(&keeper, "cat.").serial, Some(serial));
    let again = Keeper::new(configs(&["a.test."]), Arc::new(Metrics::new()));
    let _ = again.reload(None);
    assert_eq!(status(&again, "cat.").serial, Some(serial));
    again.configure(configs(&["a.test.", "b.test."]));
    let _ = again.reload(None);
    assert_eq!(status(&again, "cat.").serial, Some(serial.wrapping_add(1)));
    assert_eq!(listed(&again).len(), 2);
    again.configure(configs(&[]));
    let _ = again.reload(None);
    assert_eq!(status(&again, "cat.").serial, Some(serial.wrapping_add(2)));
    assert!(listed(&again).is_empty());
}
