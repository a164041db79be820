//! `headwater check`: every fault with file, line, key, what was found and what was expected.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use headwater::config::{Place, Source, load};

use crate::harness::{command, home};

/// Checks `config`; `expected` are its problems as they are shown, without the file name.
#[track_caller]
fn check(config: &str, expected: &[&str]) {
    let dir = home();
    let file = dir.path().join("node.toml");
    fs::write(&file, config).unwrap();
    let source = Source {
        file: Some(file.clone()),
        cwd: dir.path().to_owned(),
        state: dir.path().join("state"),
        ..Source::default()
    };
    let problems = match source.load() {
        Ok(settings) => settings.warnings,
        Err(error) => error.0,
    };
    let name = format!("{}:", file.display());
    let shown: Vec<_> = problems
        .iter()
        .map(|p| p.to_string().replace(&name, ""))
        .map(|shown| shown.replace(&dir.path().display().to_string(), "DIR"))
        .collect();
    assert_eq!(shown, expected, "of:\n{config}");
}

#[test]
fn config_with_an_unknown_key_suggests_the_nearest() {
    check(
        "[dns]\nwrokers = 2\n",
        &["2: dns.wrokers: unknown key; did you mean workers?"],
    );
    check(
        "[htpp]\nlisten = []\n",
        &["1: htpp: unknown key; did you mean http?"],
    );
    check(
        "[[zone]]\nname = \"a.\"\nfile = \"a\"\nttt = \"5s\"\n",
        &["4: zone[0].ttt: unknown key; did you mean ttl?"],
    );
    check(
        "[admin]\ncolour = 1\n",
        &["2: admin.colour: unknown key; expected one of socket, connections"],
    );
}

#[test]
fn config_with_a_value_of_the_wrong_kind_names_both() {
    check(
        "[dns]\n\nworkers = \"two\"\n",
        &["3: dns.workers: found \"two\", expected an integer from 0 to 1024"],
    );
    check(
        "[dns]\nudp_payload = 100\n",
        &["2: dns.udp_payload: found 100, expected an integer from 512 to 4096"],
    );
    check(
        "[dns.rate_limit]\nbuckets = 100\n",
        &["2: dns.rate_limit.buckets: found 100, expected a power of two such as 64 or 128"],
    );
    check(
        "[dns]\ntcp_idle = 10\n",
        &["2: dns.tcp_idle: found 10, expected a duration such as \"5s\", from 100ms to 1h"],
    );
    check(
        "[dns]\ntcp_idle = \"10 parsecs\"\n",
        &[
            "2: dns.tcp_idle: found \"10 parsecs\", expected a duration such as \"5s\", from 100ms to 1h",
        ],
    );
    check(
        "[resolver.cache]\nsize = \"big\"\n",
        &[
            "2: resolver.cache.size: found \"big\", expected a size such as \"64 MiB\", from 64 KiB to 1 TiB",
        ],
    );
    check(
        "[link]\ncapacity = \"1 Gbit\"\n",
        &[
            "2: link.capacity: found \"1 Gbit\", expected a rate such as \"1 Gbit/s\", or \"\" for what the interface reports",
        ],
    );
    check(
        "[log]\nformat = \"xml\"\n",
        &["2: log.format: found \"xml\", expected \"text\" or \"json\""],
    );
    check("dns = 5\n", &["1: dns: found 5, expected a table ([dns])"]);
    check(
        "[zone]\nname = \"a.\"\n",
        &["1: zone: found a table, expected an array of tables ([[zone]])"],
    );
}

#[test]
fn config_with_too_many_upstreams_is_refused() {
    let many = |n: u8| {
        let addresses: Vec<_> = (0..n).map(|n| format!("\"192.0.2.{n}\"")).collect();
        format!("[resolver]\nupstreams = [{}]\n", addresses.join(", "))
    };
    check(&many(64), &[]);
    check(
        &many(65),
        &["2: resolver.upstreams: found 65, expected at most 64"],
    );
}

#[test]
fn config_with_a_bad_address_names_the_element() {
    check(
        "[dns]\nlisten = [\n  \"127.0.0.1:5300\",\n  \"localhost\",\n]\n",
        &[
            "4: dns.listen[1]: found \"localhost\", expected an address and a port such as \"127.0.0.1:5300\" or \"[::1]:5300\"",
        ],
    );
    check(
        "[metrics]\nlisten = \"9153\"\n",
        &[
            "2: metrics.listen: found \"9153\", expected an address and a port such as \"127.0.0.1:9153\", or \"\" for none",
        ],
    );
    check(
        "[resolver]\nallow = [\"192.0.2.1/24\"]\n",
        &[
            "2: resolver.allow[0]: found \"192.0.2.1/24\": bits set beyond the prefix; expected 192.0.2.0/24",
        ],
    );
    check(
        "[resolver]\nupstreams = [\"dns.example\"]\n",
        &[
            "2: resolver.upstreams[0]: found \"dns.example\", expected an address with or without a port such as \"192.0.2.53\" or \"[2001:db8::1]:53\", \"tls://192.0.2.53#dns.example\" or \"https://dns.example/dns-query@192.0.2.53\"",
        ],
    );
    check(
        "[resolver]\nupstreams = [\"tls://dns.example\", \"https://dns.example/dns-query\"]\n",
        &[
            "2: resolver.upstreams[0]: found \"tls://dns.example\", expected \"tls://\", an address with or without a port, and the name in its certificate, such as \"tls://192.0.2.53#dns.example\" or \"tls://[2001:db8::1]:853#dns.example\"",
            "2: resolver.upstreams[1]: found \"https://dns.example/dns-query\", expected a URL with a path, \"@\" and an address, with or without a port, such as \"https://dns.example/dns-query@192.0.2.53\"",
        ],
    );
    check(
        "[resolver]\nupstreams = [\"192.0.2.53\", \"192.0.2.53:5353\", \"tls://192.0.2.53#dns.example\", \"https://dns.example/dns-query@192.0.2.53\"]\n[resolver.tls]\nca_file = \"none.pem\"\n",
        &[
            "2: warning: resolver.upstreams: some are encrypted, others not: what is asked of these can be read on the way",
            "4: resolver.tls.ca_file: found DIR/none.pem: No such file or directory (os error 2), expected certificates (PEM)",
        ],
    );
}

#[test]
fn config_that_contradicts_itself_is_refused() {
    check(
        "[dns]\nlisten = [\"127.0.0.1:5300\"]\n[resolver]\nupstreams = [\"127.0.0.1:5300\"]\n",
        &[
            "4: resolver.upstreams: found 127.0.0.1:5300, where this node itself listens, expected another",
        ],
    );
    check(
        "[http]\nlisten = [\"127.0.0.1:9153\"]\n",
        // metrics.listen is a default; the file can only change the other.
        &[
            "2: http.listen: found 127.0.0.1:9153, which metrics.listen has already, expected another",
        ],
    );
    check(
        "[resolver.cache]\nmin_ttl = \"1h\"\nmax_ttl = \"10m\"\n",
        &["2: resolver.cache.min_ttl: found \"1h\", expected at most max_ttl (\"10m\")"],
    );
    check(
        "[[zone]]\nname = \"a.\"\nfile = \"a\"\n[[zone]]\nname = \"A\"\nfile = \"b\"\n",
        &["5: zone[1].name: found \"a.\" a second time, expected it once"],
    );
    check(
        "[[publish]]\ndir = \"a\"\n[[mirror]]\nprefix = \"/\"\nfrom = [\"http://192.0.2.1\"]\n",
        &["4: mirror[0].prefix: found \"/\", which is published here, expected another prefix"],
    );
}

#[test]
fn config_of_zones_and_content_is_checked() {
    check(
        "[[zone]]\nname = \"a..b\"\nfile = \"a\"\n",
        &["2: zone[0].name: found \"a..b\", expected a domain name such as \"cdn.test.\""],
    );
    check(
        "[[zone]]\nname = \"a.\"\n",
        &["1: zone[0].file: expected the path of a master file, or primaries"],
    );
    check(
        "[[zone]]\nname = \"a.\"\nfile = \"a\"\nttls = { \"www/NOPE\" = \"5s\" }\n",
        &[
            "4: zone[0].ttls: found \"www/NOPE\", expected a name relative to the zone such as \"www\", \"www/AAAA\" or \"@\"",
        ],
    );
    check(
        "[[publish]]\nprefix = \"videos\"\ndir = \"a\"\n",
        &[
            "2: publish[0].prefix: found \"videos\", expected a path that begins and ends with '/', such as \"/videos/\"",
        ],
    );
    check(
        "[[mirror]]\nfrom = [\"ftp://192.0.2.1\"]\n",
        &[
            "2: mirror[0].from[0]: found \"ftp://192.0.2.1\", expected the base URL of a node such as \"http://origin:8080\"",
        ],
    );
    check(
        "[[mirror]]\nprefix = \"/v/\"\n",
        &[
            "1: mirror[0].from: expected at least one: the base URL of a node such as \"http://origin:8080\"; or `key`, by which nodes are taken that `peers.discover` finds",
        ],
    );
    check(
        &format!(
            "[peers]\ndiscover = [\"static\", \"tracker\"]\n[[mirror]]\nprefix = \"/v/\"\nkey = \"{}\"\n",
            "ab".repeat(32)
        ),
        &[
            "2: peers.discover: finds no node to mirror /v/ from, which names none in `from`: expected \"lan\", \"dht\", or \"static\" and its list",
        ],
    );
    check(
        "[[mirror]]\nfrom = [\"http://192.0.2.1\"]\nmode = \"some\"\n",
        &["3: mirror[0].mode: found \"some\", expected \"replicate\" or \"on-demand\""],
    );
    check(
        "[[mirror]]\nfrom = [\"http://192.0.2.1\"]\nkey = \"ab\"\nexclude = [\"[a\"]\n",
        &[
            "3: mirror[0].key: found \"ab\", expected the public key of the origin, 64 digits as `headwater status` shows it there",
            "4: mirror[0].exclude[0]: found \"[a\": unclosed character class; missing ']', expected a pattern such as \"*.iso\" or \"releases/**\"",
        ],
    );
}

#[test]
fn root_hints_that_cannot_be_used_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let hints = folder.path().join("root.hints");
    std::fs::write(&hints, ". NS a.root.\na.root. A 192.0.2\n").unwrap();
    let hints = hints.display().to_string();
    let found =
        format!("3: resolver.root_hints: {hints}:2: found \"192.0.2\", expected an address");
    check(
        &format!("[resolver]\nmode = \"recursive\"\nroot_hints = \"{hints}\"\n"),
        &[&found],
    );
}

#[test]
fn config_of_encrypted_listeners_needs_certificate_and_key() {
    check(
        "[dns]\ntls_listen = [\"127.0.0.1:853\"]\n",
        &[" tls.cert: found \"\", expected a file: dns has encrypted listeners"],
    );
    check(
        "[tls]\nkey = \"key.pem\"\n",
        &["1: tls.cert: found \"\", expected a file: there is a key"],
    );
    check(
        "[tls]\ncert = \"/no/cert.pem\"\nkey = \"/no/key.pem\"\n",
        &["2: tls.cert: /no/cert.pem: No such file or directory (os error 2)"],
    );
    check(
        "[dns]\nhttps_path = \"dns\"\nnsid = \"0123456789012345678901234567890123456789012345678901234567890123x\"\n[dns.rate_limit]\nslip = 11\n",
        &[
            "2: dns.https_path: found \"dns\", expected a path such as \"/dns-query\"",
            "3: dns.nsid: found 65 bytes, expected at most 64",
            "5: dns.rate_limit.slip: found 11, expected an integer from 0 to 10",
        ],
    );
}

#[test]
fn config_with_many_faults_shows_them_all_in_order() {
    check(
        "[dns]\nworkers = -1\n[metrics]\ncolor = 1\n[http]\nheaders = 1\n",
        &[
            "2: dns.workers: found -1, expected an integer from 0 to 1024",
            "4: metrics.color: unknown key; expected one of listen, connections",
            "6: http.headers: found 1, expected an integer from 10 to 1000",
        ],
    );
}

#[test]
fn config_that_is_unwise_only_warns() {
    check(
        "[resolver]\nallow = [\"0.0.0.0/0\"]\nupstreams = [\"192.0.2.53\"]\n[resolver.cache]\nmax_ttl = \"14d\"\n",
        &[
            "2: warning: resolver.allow: 0.0.0.0/0 lets all of IPv4 recurse: an open resolver",
            "5: warning: resolver.cache.max_ttl: \"2w\": longer than a week",
        ],
    );
    check(
        "[resolver]\nmode = \"off\"\n[[zone]]\nname = \"a.\"\nfile = \"a\"\nttl = \"0s\"\n",
        &["6: warning: zone[0].ttl: 0s: no resolver may keep any answer of this zone"],
    );
}

#[test]
fn config_of_peers_is_checked() {
    let secret = "secret_file = \"peers.key\"\n";
    let all = "[peers]\ndiscover = [\"static\", \"tracker\", \"lan\", \"dht\"]\n";
    check(
        &format!("{all}{secret}static = [\"http://192.0.2.2:8080\"]\n"),
        &[],
    );
    check(
        &format!("{all}[[mirror]]\nprefix = \"/v/\"\nfrom = [\"http://a\"]\n"),
        &[
            "2: warning: peers.discover: \"lan\" without secret_file: whoever is on the network can name nodes",
            "2: warning: peers.discover: \"dht\" finds no other mirrors of /v/: expected secret_file, or `key` in its [[mirror]]",
        ],
    );
    check(
        "[peers]\ndiscover = [\"bonjour\"]\nlan_groups = [\"192.0.2.1:4857\"]\nlan_interfaces = [\"a/b\"]\n\
         lan_interval = \"1h\"\ndht_bootstrap = [\"router.example\"]\ndht_listen = \"[::]:6881\"\n",
        &[
            "2: peers.discover[0]: found \"bonjour\", expected \"static\", \"tracker\", \"lan\" or \"dht\"",
            "3: peers.lan_groups[0]: found \"192.0.2.1:4857\", expected a multicast group and a port such as \
             \"239.255.72.87:4857\" or \"[ff02::4857]:4857\"",
            "4: peers.lan_interfaces[0]: found \"a/b\", expected the name of an interface such as \"eth0\"",
            "5: peers.lan_interval: found \"1h\", expected a duration such as \"5s\", from 1s to 20m",
            "6: peers.dht_bootstrap[0]: found \"router.example\", expected a host and a port such as \
             \"router.bittorrent.com:6881\"",
            "7: peers.dht_listen: found \"[::]:6881\", expected an IPv4 address and a port such as \"0.0.0.0:6881\"",
        ],
    );
}

#[test]
fn config_that_is_no_toml_names_the_line() {
    let dir = home();
    fs::write(dir.path().join("node.toml"), "[dns]\nworkers = \n").unwrap();
    let checked = command(dir.path())
        .args(["check", "--config", "node.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.starts_with("node.toml:2: "), "{text}");
    assert_eq!(checked.status.code(), Some(1));
}

#[test]
fn environment_that_is_wrong_is_named_by_its_variable() {
    let dir = home();
    fs::write(dir.path().join("node.toml"), "").unwrap();
    let checked = command(dir.path())
        .args(["check", "--config", "node.toml"])
        .env("HEADWATER__DNS__WORKERS", "many")
        .env("HEADWATER__DNS__LISTN", "127.0.0.1:0")
        .output()
        .unwrap();
    let text = String::from_utf8(checked.stdout).unwrap();
    let lines: Vec<_> = text.lines().filter(|l| !l.contains("warning:")).collect();
    assert_eq!(
        lines,
        [
            "environment HEADWATER__DNS__LISTN: dns.listn: unknown key; did you mean listen?",
            "environment HEADWATER__DNS__WORKERS: dns.workers: found \"many\", expected an integer from 0 to 1024",
        ]
    );
    assert_eq!(checked.status.code(), Some(1));
}

#[test]
fn command_line_wins_over_environment_over_file() {
    let dir = home();
    let file = dir.path().join("node.toml");
    fs::write(
        &file,
        "[dns]\nworkers = 1\nudp_payload = 600\n[http]\nheaders = 11\n",
    )
    .unwrap();
    let variable = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
    let settings = Source {
        file: Some(file),
        environment: [
            ("HEADWATER__DNS__WORKERS", "2"),
            ("HEADWATER__DNS__UDP_PAYLOAD", "700"),
            ("HEADWATER__HTTP__LISTEN", "127.0.0.1:1,[::1]:2"),
        ]
        .map(variable)
        .into(),
        overrides: vec![("dns.workers".to_owned(), "3".to_owned())],
        ..Source::default()
    }
    .load()
    .unwrap();
    assert_eq!(settings.dns.workers, 3);
    assert_eq!(settings.dns.udp_payload, 700);
    assert_eq!(settings.http.headers, 11);
    let listen: Vec<_> = settings
        .http
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["127.0.0.1:1", "[::1]:2"]);
}

#[test]
fn shipped_configurations_pass_check() {
    let dir = home();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let copy = dir.path().join("config");
    fs::create_dir_all(copy.join("zones")).unwrap();
    fs::create_dir_all(dir.path().join("content")).unwrap();
    for name in [
        "headwater.toml",
        "origin.toml",
        "mirror.toml",
        "resolver.toml",
        "zones/cdn.test.zone",
    ] {
        fs::copy(shipped.join(name), copy.join(name)).unwrap();
    }
    for name in ["headwater", "origin", "mirror", "resolver"] {
        let checked = command(dir.path())
            .args(["check", "--config", &format!("config/{name}.toml")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(0), "{name}: {text}");
    }
}

/// Every key the code asks for is in the reference, with its default; and no other.
#[test]
fn reference_configuration_has_every_key_with_its_default() {
    let reference = include_str!("../../config/headwater.toml");
    let uncommented: String = reference
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let dir = home();
    let file = dir.path().join("headwater.toml");
    let mut loaded = uncommented.clone();
    if !cfg!(feature = "s3") {
        // A program that was built without it refuses a bucket.
        let bucket = loaded.find("[[publish]]\nprefix = \"/models/\"");
        let (from, to) = (bucket.unwrap(), loaded.find("[[mirror]]").unwrap());
        loaded.replace_range(from..to, "");
    }
    fs::write(&file, &loaded).unwrap();
    fs::write(
        dir.path().join("transfer.key"),
        "c2VjcmV0IG9mIHNvbWUgbGVuZ3Ro",
    )
    .unwrap();
    let source = Source {
        file: Some(file),
        ..Source::default()
    };
    let asked = source.load().unwrap_or_else(|e| panic!("{e}")).keys;
    let asked: BTreeSet<_> = asked.into_iter().collect();
    let table: toml::Table = uncommented.parse().unwrap();
    let base: toml::Table = load::BASE.parse().unwrap();
    let (mut written, mut defaults) = (BTreeSet::new(), BTreeSet::new());
    paths("", &toml::Value::Table(table.clone()), &mut written);
    paths("", &toml::Value::Table(base.clone()), &mut defaults);
    // A key may be shown in any one of the tables of its kind: a zone is of a file or of primaries.
    let any = |keys: &BTreeSet<String>| -> BTreeSet<String> {
        let digits = |c: char| c.is_ascii_digit();
        keys.iter().map(|key| key.replace(digits, "")).collect()
    };
    let (asked, written) = (any(&asked), any(&written));
    let missing: Vec<_> = asked.difference(&written).collect();
    assert!(missing.is_empty(), "not in the reference: {missing:?}");
    for key in defaults {
        let differs = ["node.state", "admin.socket"].contains(&key.as_str());
        let (written, default) = (value(&table, &key), value(&base, &key));
        let leaf = default.is_some_and(|v| !v.is_table());
        assert!(
            !leaf || differs || written == default,
            "{key}: {written:?}, {default:?}"
        );
    }
}

#[test]
fn problem_places_sort_by_line() {
    let place = |line| Place::File("a".to_owned(), line);
    assert!(place(2) < place(10));
}

/// The dotted paths of all keys beneath `value`.
fn paths(at: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                found.insert(path.clone());
                paths(&path, value, found);
            }
        }
        toml::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                paths(&format!("{at}[{index}]"), item, found);
            }
        }
        _ => {}
    }
}

fn value<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    let mut keys = path.split('.');
    let first = table.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}
