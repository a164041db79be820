//! What changes cost: one zone published among many, and one record changed in a large zone.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headwater::dns::ZoneConfig;
use headwater::dns::keeper::Keeper;
use headwater::dns::zone::{Change, Zones, load_text};
use headwater::metrics::Metrics;

fn text(hosts: usize) -> String {
    let mut text = "@ 60 SOA ns h 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.1\n".to_owned();
    for host in 0..hosts {
        let _ = writeln!(text, "h{host} 60 A 192.0.2.1");
    }
    text
}

fn config(folder: &Path, name: String) -> ZoneConfig {
    ZoneConfig {
        file: folder.join("zone"),
        updates_file: folder.join("updates"),
        updates_waiting: 1,
        name,
        ..ZoneConfig::default()
    }
}

/// The snapshot after a change of one zone; the others are shared.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dns_publish");
    for count in [1, 100, 10_000] {
        let zones = (0..count).map(|number| {
            let config = config(Path::new("."), format!("z{number}.test."));
            let loaded = load_text(&config, text(1).as_bytes());
            loaded.expect("a good zone").zone
        });
        let zones: Vec<_> = zones.collect();
        let one = zones[count / 2].clone();
        let zones = Zones::new(zones);
        let id = BenchmarkId::new("one of", count);
        group.bench_function(id, |bencher| {
            bencher.iter(|| zones.with([Change::Serve(one.clone())]));
        });
    }
    group.finish();
}

/// One record set, from the command to its being on disk and in service: each time another value.
fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dns_update");
    group.sample_size(10);
    for hosts in [1_000, 100_000, 1_000_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path(), "u.test.".to_owned());
        std::fs::write(&config.file, text(hosts)).expect("writable");
        let keeper = Keeper::new(vec![config], Arc::new(Metrics::new()));
        let states = keeper.reload(None).expect("all zones");
        assert!(states[0].problems.is_empty(), "{:?}", states[0].problems);
        let mut last = 0_u32;
        let id = BenchmarkId::new("one record of", hosts);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                last += 1;
                let record = format!("h7.u.test. 60 TXT {last}");
                let done = keeper.set(&record, false).expect("a good update");
                assert!(done.changed);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish, update);
criterion_main!(benches);
