//! The resolver cache: an answer out of it, a probe that finds nothing, an answer into it; and what comes before it, local data
//! and blocklists.
//!
//! Measured in CPU time of the thread, so that what else runs on the machine disturbs less.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use headwater::dns::Transport;
use headwater::dns::answer::{self, CHAIN_MAX, View};
use headwater::dns::resolver::cache::{Cache, Cached, Partition};
use headwater::dns::resolver::{CacheConfig, policy};
use headwater::dns::wire::{Ede, Query};
use headwater::dns::zone::Zones;
use headwater::metrics::Metrics;
use headwater::time::Now;
use hickory_proto::op::{Edns, Message, OpCode, Query as Question};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// CPU time of the calling thread.
struct CpuTime;

impl CpuTime {
    fn read() -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let part = |n: i64| u64::try_from(n).expect("CPU time is not negative");
        Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::read()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::read() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

const NAMES: usize = 10_000;

fn name(n: usize) -> Name {
    Name::from_ascii(format!("host{n}.cache.example.")).unwrap()
}

fn query(n: usize, edns: bool) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name(n), RecordType::A));
    if edns {
        message.set_edns(Edns::new());
    }
    message.to_vec().unwrap()
}

fn reply(n: usize) -> Vec<u8> {
    let mut message = Message::response(1, OpCode::Query);
    message.add_query(Question::query(name(n), RecordType::A));
    let address = RData::A(A([192, 0, 2, 1].into()));
    message.add_answer(Record::from_rdata(name(n), 86_400, address));
    message.to_vec().unwrap()
}

fn cache() -> Cache {
    let config = CacheConfig {
        size: 256 << 20,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(86_400),
        negative_max_ttl: Duration::from_secs(3_600),
        stale: Duration::from_secs(86_400),
        stale_wait: Duration::from_millis(1_800),
        stale_ttl: Duration::from_secs(30),
        failure_ttl: (Duration::from_secs(1), Duration::from_secs(300)),
        entry: 16 << 10,
        records: 100,
        ..CacheConfig::default()
    };
    Cache::new(config, Arc::new(Metrics::new()))
}

fn answer(cache: &Cache, packet: &[u8], now: Now, out: &mut [u8]) -> Cached {
    let query = Query::parse(packet).unwrap();
    cache.answer(&query, Partition(0), now, 1_232, out)
}

/// What local data and lists cost a name that is in none: parse, own zones (none) and no cache, with and without.
fn policies(c: &mut Criterion<CpuTime>, packets: &[Vec<u8>], now: Now) {
    use std::fmt::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list");
    let mut text = String::new();
    for n in 0..1_000_000 {
        let _ = writeln!(text, "tracker{n}.site{}.example", n % 400_000);
    }
    std::fs::write(&file, text).unwrap();
    let special = policy::Config {
        special_use_names: true,
        ..policy::Config::default()
    };
    let million = policy::Config {
        blocklists: vec![policy::ListConfig {
            name: "million".to_owned(),
            file,
            format: policy::Format::Names,
            response: policy::Response::NxDomain,
            ttl: 60,
            reason: Ede::Blocked,
            rules: 1_000_000,
        }],
        ..special.clone()
    };
    let metrics = Metrics::new();
    let zones = Zones::default();
    let mut out = [0; 1_232];
    let mut group = c.benchmark_group("dns_policy");
    let configs = [
        ("none", policy::Config::default()),
        ("special", special),
        ("million", million),
    ];
    for (name, config) in configs {
        let policy = policy::Policy::read(&config, &metrics.policy);
        group.bench_function(name, |b| {
            let mut at = 0;
            b.iter(|| {
                at = (at + 7_919) % NAMES;
                let query = Query::parse(black_box(&packets[at])).unwrap();
                let view = View {
                    zones: &zones,
                    cache: None,
                    policy: Some((&policy, Transport::Udp)),
                    chain: CHAIN_MAX,
                };
                black_box(answer::answer(&query, view, now, 0, 1_232, &mut out))
            });
        });
    }
    group.finish();
}

fn benches(c: &mut Criterion<CpuTime>) {
    let now = Now::read();
    let cache = cache();
    let packets: Vec<Vec<u8>> = (0..NAMES).map(|n| query(n, true)).collect();
    for (n, packet) in packets.iter().enumerate() {
        let query = Query::parse(packet).unwrap();
        assert!(cache.store(&query, Partition(0), &reply(n), now));
    }
    let strange: Vec<Vec<u8>> = (NAMES..2 * NAMES).map(|n| query(n, true)).collect();
    let mut out = [0; 1_232];

    policies(c, &packets, now);
    let mut group = c.benchmark_group("dns_cache");
    // Parsing is part of the three below: what it costs alone.
    group.bench_function("parse", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 7_919) % NAMES;
            black_box(Query::parse(black_box(&packets[at])).unwrap())
        });
    });
    group.bench_function("hit", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 7_919) % NAMES;
            black_box(answer(&cache, black_box(&packets[at]), now, &mut out))
        });
    });
    group.bench_function("hit_hot", |b| {
        b.iter(|| black_box(answer(&cache, black_box(&packets[7]), now, &mut out)));
    });
    let mut near = cache.near(1);
    group.bench_function("hit_near", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 7_919) % NAMES;
            let query = Query::parse(black_box(&packets[at])).unwrap();
            black_box(cache.answer_near(&mut near, &query, Partition(0), now, 1_232, &mut out))
        });
    });
    group.bench_function("miss", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 7_919) % NAMES;
            black_box(answer(&cache, black_box(&strange[at]), now, &mut out))
        });
    });
    group.bench_function("insert", |b| {
        let replies: Vec<Vec<u8>> = (0..NAMES).map(reply).collect();
        let mut at = 0;
        b.iter_batched(
            || {
                at = (at + 7_919) % NAMES;
                at
            },
            |at| {
                let query = Query::parse(&packets[at]).unwrap();
                cache.store(&query, Partition(0), &replies[at], now)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = dns_cache;
    config = Criterion::default().with_measurement(CpuTime);
    targets = benches
}
criterion_main!(dns_cache);
