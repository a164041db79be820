//! The authoritative answer path on a zone of 10,000 names: parse and answer, as a UDP thread does per packet.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use headwater::dns::ZoneConfig;
use headwater::dns::answer::{CHAIN_MAX, View, answer};
use headwater::dns::dnssec::online::{OnlineSigner, Scratch, write_rrsig};
use headwater::dns::dnssec::rrset::{Unsigned, Validity};
use headwater::dns::dnssec::signer::Signer;
use headwater::dns::dnssec::{Algorithm, Config, Key, Policy, Proof};
use headwater::dns::rrl::{Equal, Rate, Table};
use headwater::dns::wire::Query;
use headwater::dns::zone::{Zones, load_text};
use headwater::time::Now;

/// 10,000 hosts, 100 delegations, a wildcard.
fn zones() -> Zones {
    let mut text = String::from(
        "$TTL 300\n@ SOA ns1 host 1 3600 900 604800 60\n@ NS ns1\nns1 A 192.0.2.1\n*.wild A 192.0.2.2\n",
    );
    for host in 0..10_000 {
        text.push_str(&format!(
            "host{host} A 198.18.{}.{}\n",
            host / 250,
            host % 250
        ));
    }
    for cut in 0..100 {
        text.push_str(&format!(
            "cut{cut} NS ns1.cut{cut}\ncut{cut} NS ns2.cut{cut}\nns1.cut{cut} A 192.0.2.3\nns2.cut{cut} A 192.0.2.4\n"
        ));
    }
    text.push_str("many A 192.0.2.1\nmany A 192.0.2.2\nmany A 192.0.2.3\nalias CNAME host7\n");
    let config = ZoneConfig {
        name: "bench.test.".to_owned(),
        file: PathBuf::from("bench"),
        ttl: 300,
        ..ZoneConfig::default()
    };
    let loaded = load_text(&config, text.as_bytes()).expect("a good zone");
    Zones::new(vec![loaded.zone])
}

/// A query for an A record below `bench.test`, with EDNS.
fn packet(labels: &[&str]) -> Vec<u8> {
    let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in labels.iter().chain(&["bench", "test"]) {
        packet.push(u8::try_from(label.len()).expect("a short label"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

fn answers(criterion: &mut Criterion) {
    let zones = zones();
    let now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };
    let mut out = vec![0; 1232];
    let deep = ["x"; 100];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (
            "existing",
            (0..1024)
                .map(|host| packet(&[&format!("host{}", host * 9)]))
                .collect(),
        ),
        ("existing, three addresses", vec![packet(&["many"])]),
        (
            "nxdomain",
            (0..1024)
                .map(|host| packet(&[&format!("miss{host}")]))
                .collect(),
        ),
        ("nxdomain, 100 labels deep", vec![packet(&deep)]),
        (
            "wildcard",
            (0..1024)
                .map(|host| packet(&[&format!("any{host}"), "wild"]))
                .collect(),
        ),
        (
            "referral",
            (0..100)
                .map(|cut| packet(&["www", &format!("cut{cut}")]))
                .collect(),
        ),
        ("cname", vec![packet(&["alias"])]),
    ];
    let mut group = criterion.benchmark_group("dns_answer");
    for (name, packets) in &cases {
        let mut next = 0;
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                next = (next + 1) % packets.len();
                let query = Query::parse(black_box(&packets[next])).expect("a good query");
                let view = View {
                    zones: &zones,
                    cache: None,
                    policy: None,
                    chain: CHAIN_MAX,
                };
                black_box(answer(&query, view, now, next as u64, 1232, &mut out))
            });
        });
    }
    group.finish();
}

fn hostile(criterion: &mut Criterion) {
    let mut options = packet(&["www"]);
    let at = options.len() - 2;
    options[at..].copy_from_slice(&1200_u16.to_be_bytes());
    options.extend([0, 8, 0, 0].repeat(300));
    let mut records = packet(&["www"]);
    records[10..12].copy_from_slice(&u16::MAX.to_be_bytes());
    records.extend([0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0].repeat(100));
    let cases = [
        ("longest name", packet(&["x"; 120])),
        ("300 options", options),
        ("65535 records claimed, 100 there", records),
        ("cut", packet(&["www"])[..20].to_vec()),
    ];
    let mut group = criterion.benchmark_group("dns_parse");
    for (name, packet) in &cases {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| black_box(Query::parse(black_box(packet)).is_ok()));
        });
    }
    group.finish();
}

/// What the rate limit adds to an answer: 10,000 kinds of answers to one network, as a benchmark's client asks, and answers
/// to networks made up.
fn rate_limit(criterion: &mut Criterion) {
    let rate = Rate {
        responses: 100,
        slip: 2,
    };
    let mut group = criterion.benchmark_group("rate_limit");
    let mut next = 0_u32;
    for (name, networks) in [("one network", 1), ("many networks", 1 << 16)] {
        let mut table = Table::new(rate, 16_384);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                next = next.wrapping_add(1);
                let client = IpAddr::from(((next % networks) << 8).to_be_bytes());
                let equal = Equal {
                    source: u64::from(next % 10_000),
                    kind: 256,
                };
                let now = Now {
                    mono_ns: u64::from(next) * 2_000,
                    unix_ms: 0,
                };
                black_box(table.check(client, equal, now))
            });
        });
    }
    group.finish();
}

/// The same zone signed, asked with DO.
fn signed(criterion: &mut Criterion) {
    let now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };
    let mut out = vec![0; 1232];
    let mut group = criterion.benchmark_group("dns_answer_signed");
    for (chain, denial) in [("nsec", Proof::Nsec), ("nsec3", Proof::Nsec3)] {
        let folder = tempfile::tempdir().expect("a folder");
        let signer = Signer::new(folder.path().to_path_buf(), Config::default());
        let policy = Policy {
            algorithm: Algorithm::EcdsaP256,
            denial,
        };
        let unsigned = zones();
        let zone = unsigned.iter().next().expect("one zone");
        let zone = signer
            .sign(zone, policy, 1_000_000)
            .expect("a signed zone")
            .zone;
        let zones = Zones::new(vec![zone]);
        for (name, start) in [
            ("existing", "host"),
            ("nxdomain", "miss"),
            ("referral", "cut"),
        ] {
            let packets: Vec<Vec<u8>> = (0..1024)
                .map(|host| {
                    let mut packet = packet(&[&format!("{start}{}", host % 100)]);
                    let flags = packet.len() - 4;
                    packet[flags] = 0x80;
                    packet
                })
                .collect();
            let mut next = 0;
            group.bench_function(format!("{name}, {chain}"), |bencher| {
                bencher.iter(|| {
                    next = (next + 1) % packets.len();
                    let query = Query::parse(black_box(&packets[next])).expect("a good query");
                    let view = View {
                        zones: &zones,
                        cache: None,
                        policy: None,
                        chain: CHAIN_MAX,
                    };
                    black_box(answer(&query, view, now, next as u64, 1232, &mut out))
                });
            });
        }
    }
    group.finish();
}

/// One RRset signed in the answer path: anew, and with the signature kept from before.
fn signing(criterion: &mut Criterion) {
    let apex = b"\x05bench\x04test\0";
    let rrset = Unsigned {
        owner: b"\x03www\x05bench\x04test\0",
        rtype: 1,
        ttl: 30,
        data: &[&[192, 0, 2, 1], &[192, 0, 2, 2]],
    };
    let validity = Validity {
        inception: 0,
        expiration: 1,
    };
    let (mut scratch, mut out) = (Scratch::default(), [0; 256]);
    let mut group = criterion.benchmark_group("dns_sign");
    for algorithm in Algorithm::ALL {
        let pkcs8 = Key::generate(algorithm).expect("random bytes");
        let key = Key::new(algorithm, &pkcs8).expect("its own key");
        group.bench_function(algorithm.text(), |bencher| {
            bencher.iter(|| {
                let rrset = black_box(rrset);
                write_rrsig(&key, apex, rrset, validity, &mut scratch, &mut out)
            });
        });
        let mut signer = OnlineSigner::new(16);
        group.bench_function(format!("{}, kept", algorithm.text()), |bencher| {
            bencher.iter(|| {
                let rrset = black_box(rrset);
                signer.sign(&key, apex, rrset, 1_000_000, 1_000, &mut out)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, answers, hostile, rate_limit, signed, signing);
criterion_main!(benches);
