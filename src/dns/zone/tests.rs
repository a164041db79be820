//! Whole zones: text in, problems, warnings or text out.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::dns::TtlOverride;

fn config(ttls: &[(&str, Option<&str>, u32)]) -> ZoneConfig {
    ZoneConfig {
        name: "test.".to_owned(),
        file: PathBuf::from("z"),
        ttl: 300,
        ttls: ttls
            .iter()
            .map(|(name, rtype, ttl)| TtlOverride {
                name: (*name).to_owned(),
                rtype: rtype.map(str::to_owned),
                ttl: *ttl,
            })
            .collect(),
        ..ZoneConfig::default()
    }
}

/// Line 1 and 2 of most zones here.
const HEAD: &str = "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\n";

fn loaded(text: &str) -> Loaded {
    load_text(&config(&[]), text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// `HEAD` and `text` (from line 4 on) load, and are printed as `expected` behind the head.
#[track_caller]
fn check(text: &str, expected: &str) {
    let zone = loaded(&format!("{HEAD}{text}")).zone;
    let printed = zone.to_text();
    let rest: Vec<&str> = printed
        .lines()
        .filter(|line| !line.contains(" 60 IN "))
        .collect();
    assert_eq!(rest.join("\n"), expected);
}

/// `HEAD` and `text` are refused, with these problems.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    whole_refused(&format!("{HEAD}{text}"), expected);
}

#[track_caller]
fn whole_refused(text: &str, expected: &[&str]) {
    let problems = load_text(&config(&[]), text.as_bytes()).expect_err("a bad zone");
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, expected);
}

/// `HEAD` and `text` load with these warnings.
#[track_caller]
fn warned(text: &str, expected: &[&str]) {
    let warnings = loaded(&format!("{HEAD}{text}")).warnings;
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, expected);
}

#[test]
fn load_gives_name_serial_and_records() {
    let zone = loaded(HEAD).zone;
    assert_eq!(
        (zone.name(), zone.serial(), zone.records()),
        ("test.", 1, 3)
    );
    assert_eq!(
        zone.to_text(),
        "test. 60 IN SOA ns.test. h.test. 1 2 3 4 5\ntest. 60 IN NS ns.test.\nns.test. 60 IN A 192.0.2.1\n"
    );
}

#[test]
fn load_takes_ttl_class_and_owner_as_rfc_1035_allows() {
    check("a 5 IN A 192.0.2.2", "a.test. 5 IN A 192.0.2.2");
    check("a IN 5 A 192.0.2.2", "a.test. 5 IN A 192.0.2.2");
    check("a in a 192.0.2.2", "a.test. 300 IN A 192.0.2.2");
    check("a class1 type1 192.0.2.2", "a.test. 300 IN A 192.0.2.2");
    check("$TTL 1h30m\na A 192.0.2.2", "a.test. 5400 IN A 192.0.2.2");
    check(
        "a A 192.0.2.2\n  TXT x",
        "a.test. 300 IN A 192.0.2.2\na.test. 300 IN TXT \"x\"",
    );
    check("$ORIGIN b\na A 192.0.2.2", "a.b.test. 300 IN A 192.0.2.2");
    check("A.TEST. MX ( 1 ; one\n b )", "a.test. 300 IN MX 1 b.test.");
}

#[test]
fn to_text_is_in_canonical_order_and_loads_again() {
    let text = format!(
        "{HEAD}z A 192.0.2.2\na.b CNAME z\nb TXT \"q\\\"\" \\000\n*.b SRV 1 2 3 z\nodd TYPE65280 \\# 1 FF\n"
    );
    let printed = loaded(&text).zone.to_text();
    assert_eq!(loaded(&printed).zone.to_text(), printed);
    let owners: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        owners,
        [
            "test.",
            "test.",
            "b.test.",
            "*.b.test.",
            "a.b.test.",
            "ns.test.",
            "odd.test.",
            "z.test."
        ]
    );
}

#[test]
fn load_reports_every_problem_with_its_line() {
    refused(
        "a A 192.0.2.256\nb BAD x\nc. A 192.0.2.1\nd 3000000000 A 192.0.2.1\n$TTL\ne CH A 192.0.2.1\nf\n",
        &[
            "z:4: A: found `192.0.2.256` (expected IPv4 address), expected one IPv4 address",
            "z:5: found `BAD`, expected a record type, class or TTL",
            "z:7: TTL: found `3000000000`, expected at most 2147483647 seconds",
            "z:8: $TTL: expected one TTL",
            "z:9: found class `CH`, expected IN",
            "z:10: found the end of the record, expected a type",
        ],
    );
}

#[test]
fn load_refuses_a_zone_without_its_apex_records() {
    whole_refused(
        "a A 192.0.2.1",
        &[
            "z:0: found no SOA at test., expected one",
            "z:0: found no NS at test., expected at least one",
        ],
    );
    whole_refused(
        "@ SOA n h 1 2 3 4 x\n@ NS n.example.",
        &["z:1: SOA: found `x`, expected seconds, or numbers with units as in 1h30m"],
    );
    refused(
        "@ SOA ns h 2 2 3 4 5",
        &["z:4: test.: found another SOA, expected one"],
    );
    refused(
        "a SOA ns h 2 2 3 4 5",
        &["z:4: found a SOA at a.test., expected it at test."],
    );
    whole_refused(
        "",
        &[
            "z:0: found no SOA at test., expected one",
            "z:0: found no NS at test., expected at least one",
        ],
    );
}

#[test]
fn load_refuses_what_may_not_stand_beside_or_at() {
    refused(
        "a CNAME b\na A 192.0.2.2\nb CNAME c\nb CNAME d",
        &[
            "z:5: a.test.: found CNAME and A, expected a CNAME alone (RFC 1034 section 3.6.2)",
            "z:7: b.test.: found another CNAME, expected one",
        ],
    );
    refused(
        "*.a NS ns",
        &["z:4: found NS at the wildcard *.a.test., expected none (RFC 4592 section 4)"],
    );
    refused(
        "a OPT \\# 0",
        &["z:4: found type OPT, expected one that may stand in a zone"],
    );
    refused(
        "a A \\# 3 ABCDEF",
        &[
            "z:4: A: found generic data that is none of this type, expected the wire form of one IPv4 address",
        ],
    );
}

#[test]
fn load_stops_counting_problems_at_the_bound() {
    let text = "a A x\n".repeat(250);
    let problems =
        load_text(&config(&[]), format!("{HEAD}{text}").as_bytes()).expect_err("a bad zone");
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].message, "150 more like these");
}

#[test]
fn load_of_a_missing_file_names_it() {
    let problems = load(&ZoneConfig {
        file: PathBuf::from("/nonexistent/zone"),
        ..config(&[])
    })
    .expect_err("no file");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0]
            .to_string()
            .starts_with("/nonexistent/zone:0: found no readable file"),
        "{problems:?}"
    );
}

#[test]
fn own_name_server_without_address_is_an_error_in_a_file_and_a_warning_elsewhere() {
    let text = format!("{HEAD}@ 60 NS other\n@ 60 NS alias\nalias CNAME ns");
    let expected = [
        "test. NS: found no address of other.test. in the zone, expected A or AAAA records",
        "test. NS: found the alias alias.test., expected a name with addresses (RFC 2181 section 10.3)",
    ];
    let problems = load_text(&config(&[]), text.as_bytes()).expect_err("as BIND refuses it");
    let said: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(said, expected);
    assert_eq!(problems[0].line, 4);
    // What a primary or an update gives is served.
    let apex = apex("test.").expect("a name");
    let soa = b"\x02ns\x04test\0\x01h\x04test\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
    let loaded = records::from_records(&apex, "a primary", &[], |add| {
        add(&apex, 6, 60, soa);
        add(&apex, 2, 60, b"\x05other\x04test\0");
    });
    let warnings = loaded.unwrap_or_else(|p| panic!("{p:?}")).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].message, expected[0]);
}

#[test]
fn load_warns_of_what_is_legal_but_unwise() {
    warned(
        "a A 192.0.2.2\na A 192.0.2.2",
        &["z:5: a.test. A: found the same record again; it is dropped"],
    );
    warned(
        "a 5 A 192.0.2.2\na 9 A 192.0.2.3",
        &[
            "z:5: a.test. A: found TTL 9 beside 5 in one RRset, expected one TTL; the lowest, 5, is used",
        ],
    );
    warned(
        "sub NS ns.sub",
        &["z:4: sub.test. NS: found no glue for ns.sub.test., expected A or AAAA records"],
    );
    warned(
        "_a._tcp SRV 0 0 1 gone\n_b._tcp SRV 0 0 1 alias\n_c._tcp SRV 0 0 1 .\nalias CNAME ns\na MX 0 ns",
        &[
            "z:4: _a._tcp.test. SRV: found no address of gone.test. in the zone, expected A or AAAA records",
            "z:5: _b._tcp.test. SRV: found the alias alias.test., expected a name with addresses (RFC 2181 section 10.3)",
        ],
    );
    warned(
        "c. A 192.0.2.1",
        &["z:4: found owner c., expected a name in zone test.; it is left out"],
    );
    warned(
        "sub NS ns.sub\nns.sub A 192.0.2.2\nx.sub A 192.0.2.3\nsub TXT x",
        &[
            "z:6: x.sub.test. A: found a record at or beneath a delegation or DNAME; it is never answered",
            "z:7: sub.test. TXT: found a record at or beneath a delegation or DNAME; it is never answered",
        ],
    );
}

#[test]
fn configured_ttls_win_and_the_typed_one_wins_over_the_name() {
    let config = config(&[
        ("w", Some("AAAA"), 7),
        ("w", None, 30),
        ("@", Some("SOA"), 9),
        ("none", None, 1),
        ("w", Some("TXT"), 2),
    ]);
    let text = format!("{HEAD}w 5 A 192.0.2.2\nw 5 AAAA 2001:db8::1\n");
    let loaded = load_text(&config, text.as_bytes()).expect("a good zone");
    let printed = loaded.zone.to_text();
    for line in [
        "w.test. 30 IN A 192.0.2.2",
        "w.test. 7 IN AAAA 2001:db8::1",
        "test. 9 IN SOA ns.test. h.test. 1 2 3 4 5",
    ] {
        assert!(
            printed.lines().any(|found| found == line),
            "{line} in {printed}"
        );
    }
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "z:0: ttls: `none`: found no such records in the zone; the TTL has no effect",
            "z:0: ttls: `w/TXT`: found no such records in the zone; the TTL has no effect",
        ]
    );
}

#[test]
fn configured_ttl_of_an_unknown_type_is_a_problem() {
    let problems =
        load_text(&config(&[("w", Some("BAD"), 7)]), HEAD.as_bytes()).expect_err("a bad type");
    assert_eq!(
        problems[0].message,
        "ttls: `w/BAD`: found type `BAD`, expected a record type"
    );
}

#[test]
fn include_reads_beside_the_file_and_restores_the_origin() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("writable");
    write(
        "zone",
        &format!("{HEAD}$INCLUDE inner sub\nafter A 192.0.2.3\n"),
    );
    write("inner", "a A 192.0.2.2\nb A bad\n");
    let config = ZoneConfig {
        file: dir.path().join("zone"),
        ..config(&[])
    };
    let problems = load(&config).expect_err("a bad address");
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].file.as_str(), problems[0].line),
        (dir.path().join("inner").to_str().expect("UTF-8"), 2)
    );
    write("inner", "a A 192.0.2.2\n");
    let text = load(&config).expect("a good zone").zone.to_text();
    assert!(
        text.contains("a.sub.test. 300 IN A 192.0.2.2\n")
            && text.contains("after.test. 300 IN A 192.0.2.3\n"),
        "{text}"
    );
    write("inner", "$INCLUDE zone\n");
    let problems = load(&config).expect_err("a circle");
    assert!(
        problems[0].message.contains("includes itself"),
        "{problems:?}"
    );
}

#[test]
fn generate_stands_for_many_records() {
    check(
        "$GENERATE 1-2 h$ 9 A 192.0.2.$\n",
        "h1.test. 9 IN A 192.0.2.1\nh2.test. 9 IN A 192.0.2.2",
    );
    refused(
        "$GENERATE 254-300 h$ A 192.0.2.$\n$GENERATE 1 a A 192.0.2.1\n$GENERATE 1-2 a\na A x",
        &[
            "z:4: $GENERATE, number 256: A: found `192.0.2.256` (expected IPv4 address), expected one IPv4 address",
            "z:5: $GENERATE: found `1`, expected START-STOP or START-STOP/STEP",
            "z:6: $GENERATE: expected a range, an owner, a type and its data",
            "z:7: A: found `x` (expected IPv4 address), expected one IPv4 address",
        ],
    );
}

#[test]
fn many_records_of_one_rrset_are_compared_as_few_are() {
    let mut text = String::new();
    for (owner, count) in [("few", 5), ("many", 30)] {
        for number in 0..count {
            text.push_str(&format!("{owner} NS a{number}.example.\n"));
        }
        text.push_str(&format!("{owner} NS A0.Example.\n"));
    }
    warned(
        &text,
        &[
            "z:9: few.test. NS: found the same record again; it is dropped",
            "z:40: many.test. NS: found the same record again; it is dropped",
        ],
    );
}

#[test]
fn zones_find_the_closest_apex() {
    let zone = |name: &str| {
        let config = ZoneConfig {
            name: name.to_owned(),
            ..config(&[])
        };
        load_text(
            &config,
            b"@ SOA n h 1 2 3 4 5\n@ NS n.elsewhere.\nn.elsewhere. A 192.0.2.1\n",
        )
        .expect("a good zone")
        .zone
    };
    let zones = Zones::new(vec![
        zone("test."),
        zone("a.b.test."),
        zone("example."),
        zone("test."),
    ]);
    let names: Vec<&str> = zones.iter().map(|zone| zone.name()).collect();
    assert_eq!(names, ["a.b.test.", "example.", "test."]);
    let closest = |text: &str| {
        let mut wire = Vec::new();
        name::from_text(text.as_bytes(), b"\0", &mut wire).expect("a good name");
        zones.closest(&wire).map(|zone| zone.name().to_owned())
    };
    assert_eq!(closest("x.A.b.TEST.").as_deref(), Some("a.b.test."));
    assert_eq!(closest("b.test.").as_deref(), Some("test."));
    assert_eq!(closest("test.").as_deref(), Some("test."));
    assert_eq!(closest("atest."), None);
    assert_eq!(closest("."), None);
    assert_eq!(
        Zones::new(vec![zone(".")])
            .closest(b"\x01a\0")
            .map(Zone::name),
        Some(".")
    );
    assert!(Zones::default().closest(b"\0").is_none());
}

#[test]
fn zone_of_many_names_takes_little_memory() {
    let mut text = String::from(HEAD);
    for host in 0..10_000 {
        text.push_str(&format!("host{host} A 198.51.100.1\n"));
    }
    let zone = loaded(&text).zone;
    assert_eq!(zone.records(), 10_003);
    let each = zone.bytes() / 10_000;
    assert!(each <= 90, "{each} bytes for a name with an address");
}

proptest! {
    #[test]
    fn any_bytes_load_or_are_refused(text in proptest::collection::vec(
        prop_oneof![
            Just(b"\n".to_vec()), Just(b"@ SOA a b 1 2 3 4 5\n".to_vec()), Just(b"@ NS a\n".to_vec()), Just(b" ".to_vec()),
            Just(b"a ".to_vec()), Just(b"CNAME ".to_vec()), Just(b"* MX 1 a\n".to_vec()), Just(b"$ORIGIN ".to_vec()),
            Just(b"x DNAME b\n".to_vec()), Just(b"TYPE2 \\# 2 C000".to_vec()), Just(b"TXT \"".to_vec()), Just(b"(".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ], 0..40,
    )) {
        if let Ok(loaded) = load_text(&config(&[]), &text.concat()) {
            let printed = loaded.zone.to_text();
            let again = load_text(&config(&[]), printed.as_bytes());
            prop_assert!(again.is_ok(), "{printed}: {again:?}");
            prop_assert_eq!(again.expect("checked").zone.to_text(), printed);
        }
    }
}

#[test]
fn load_of_a_signed_zone_finds_signatures_and_chain() {
    let hash = "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom";
    let text = format!(
        "@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n@ NSEC3PARAM 1 0 1 -\n\
         @ RRSIG SOA 13 1 300 20300101000000 20200101000000 1 test. AAAA\n\
         @ RRSIG NS 13 1 300 20290101000000 20200101000000 1 test. AAAA\n\
         {hash} A 192.0.2.1\n\
         {hash} NSEC3 1 0 1 - {hash} A\n"
    );
    let zone = load_text(&config(&[]), text.as_bytes())
        .expect("a good zone")
        .zone;
    assert_eq!(zone.signatures_expire(), Some(1_861_920_000));
    for (rtype, count) in [(tree::SOA, 1), (tree::NS, 1), (tree::NSEC3PARAM, 0)] {
        let rrset = zone.rrset(tree::APEX, rtype).expect("it is in the file");
        assert_eq!(zone.signatures_of(rrset).count, count);
    }
    assert_eq!(zone.signatures_of(zone.negative()).count, 1);
    assert!(matches!(zone.denial(), denial::Denial::Nsec3(_)));
    // The NSEC3 record is at a node of its own that no lookup finds; the address at the same name is found.
    assert_eq!(zone.nodes.len(), 3);
    let again = load_text(&config(&[]), zone.to_text().as_bytes()).expect("its own text");
    assert_eq!(again.zone.to_text(), zone.to_text());
}

#[test]
fn load_refuses_a_chain_that_costs_too_much() {
    let text = "@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n@ NSEC3PARAM 1 0 51 -\n\
                @ RRSIG SOA 13 1 300 20300101000000 20200101000000 1 test. AAAA\n";
    let problems = load_text(&config(&[]), text.as_bytes()).expect_err("51 iterations");
    assert!(
        problems[0].message.contains("found 51 iterations"),
        "{problems:?}"
    );
}
