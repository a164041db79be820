//! What verified bytes cost: the digest of a chunk, a proved read, the decoding of a large manifest.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headwater::content::StoreConfig;
use headwater::content::chunk::{Digest, Layout};
use headwater::content::library::Library;
use headwater::content::manifest::Manifest;
use headwater::content::store::Store;
use headwater::metrics::Metrics;

const CHUNK: u32 = 1 << 20;

fn manifest(size: u64, chunk_of: impl Fn(u32) -> Digest) -> Manifest {
    let layout = Layout { size, chunk: CHUNK };
    Manifest {
        path: "/video.bin".into(),
        layout,
        media_type: "application/octet-stream".into(),
        modified: 1,
        sha256: [0; 32],
        chunks: (0..layout.count()).map(chunk_of).collect(),
    }
}

fn verify(c: &mut Criterion) {
    let chunk = vec![0xA5; CHUNK as usize];
    let mut group = c.benchmark_group("verify");
    group.throughput(Throughput::Bytes(u64::from(CHUNK)));
    group.bench_function("chunk of 1 MiB", |b| {
        b.iter(|| Digest::of(black_box(&chunk)));
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    read_with(c, "proved and resident", Some(0));
    read_with(c, "from memory", Some(64 << 20));
}

fn read_with(c: &mut Criterion, what: &str, memory: Option<u64>) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = StoreConfig {
        memory,
        ..StoreConfig::new(dir.path())
    };
    let metrics = Arc::new(Metrics::new());
    let library = Library::new(&config, Arc::clone(&metrics));
    let store = Store::open(&config, &library, metrics).expect("a store");
    let chunk = vec![0xA5; CHUNK as usize];
    let digest = Digest::of(&chunk);
    let count = 16;
    let manifest = manifest(u64::from(CHUNK * count), |_| digest);
    let object = store.begin(manifest).expect("room");
    for index in 0..count {
        object.write(index, &chunk).expect("written");
    }
    let mut group = c.benchmark_group("read");
    for len in [256 << 10, 1 << 10] {
        group.throughput(Throughput::Bytes(u64::from(len)));
        let mut at = 0;
        group.bench_function(format!("{} KiB, {what}", len >> 10), |b| {
            b.iter(|| {
                at = (at + 1) % (4 * count);
                let start = at % 4 * (256 << 10);
                object.read_blocking(at / 4, start..start + len)
            });
        });
    }
    if memory == Some(0) {
        group.throughput(Throughput::Bytes(u64::from(CHUNK * count)));
        group.bench_function("16 MiB digested anew", |b| b.iter(|| object.verify()));
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let encoded = manifest(1 << 30, |i| Digest([i as u8; 32])).encode();
    let mut group = c.benchmark_group("manifest");
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function("decode, 1 GiB object", |b| {
        b.iter(|| Manifest::decode(black_box(&encoded)));
    });
    let mut hostile = encoded.clone();
    hostile.truncate(encoded.len() - 1);
    group.bench_function("refuse, last byte missing", |b| {
        b.iter(|| Manifest::decode(black_box(&hostile)));
    });
    group.finish();
}

criterion_group!(benches, verify, read, decode);
criterion_main!(benches);
