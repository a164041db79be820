//! Prices of the pure calls every HTTP request makes, with hostile input beside the common one.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headwater::http::fresh::{self, Validators};
use headwater::http::range::plan;
use headwater::http::route::route;
use headwater::http::screen::Screen;
use http::{HeaderMap, Method, Uri, header};

const VALIDATORS: Validators<'static> = Validators {
    etag: "\"0123456789abcdef0123456789abcdef\"",
    modified: 784_111_777,
};

const LEN: u64 = 1 << 30;

fn with(name: header::HeaderName, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, "example.test".parse().unwrap());
    headers.insert(header::USER_AGENT, "curl/8.0".parse().unwrap());
    headers.insert(name, value.parse().unwrap());
    headers
}

fn ranges(count: u64) -> String {
    let list: Vec<_> = (0..count)
        .map(|i| format!("{}-{}", i * 100, i * 100 + 49))
        .collect();
    format!("bytes={}", list.join(","))
}

fn range(c: &mut Criterion) {
    let mut group = c.benchmark_group("range_plan");
    let cases = [
        ("none", with(header::ACCEPT, "*/*")),
        ("one", with(header::RANGE, "bytes=1048576-2097151")),
        ("sixteen", with(header::RANGE, &ranges(16))),
        ("hostile_thousand", with(header::RANGE, &ranges(1000))),
        (
            "hostile_commas",
            with(header::RANGE, &format!("bytes={}", ",".repeat(8000))),
        ),
    ];
    for (name, headers) in &cases {
        group.bench_function(*name, |b| {
            b.iter(|| {
                plan(
                    &Method::GET,
                    black_box(headers),
                    &VALIDATORS,
                    black_box(LEN),
                    16,
                )
            });
        });
    }
    group.finish();
}

fn conditions(c: &mut Criterion) {
    let mut group = c.benchmark_group("preconditions");
    let tags = vec!["\"00000000000000000000000000000000\""; 200].join(", ");
    let cases = [
        ("none", with(header::ACCEPT, "*/*")),
        (
            "if_none_match",
            with(header::IF_NONE_MATCH, VALIDATORS.etag),
        ),
        (
            "if_modified_since",
            with(header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ),
        (
            "hostile_two_hundred_tags",
            with(header::IF_NONE_MATCH, &tags),
        ),
    ];
    for (name, headers) in &cases {
        group.bench_function(*name, |b| {
            b.iter(|| fresh::evaluate(&Method::GET, black_box(headers), &VALIDATORS));
        });
    }
    group.finish();
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let cases = [
        ("plain", "/films/video.bin".to_owned()),
        ("escaped", "/films/a%20film%20with%20spaces.mp4".to_owned()),
        ("hostile_dots", "/a/..".repeat(1024)),
        ("hostile_escape", "/%2e%2e".repeat(1024)),
        ("hostile_climb", "/..".repeat(1024)),
    ];
    for (name, path) in &cases {
        let uri: Uri = path.parse().unwrap();
        group.bench_function(*name, |b| {
            b.iter(|| route(&Method::GET, black_box(&uri)) == route(&Method::PUT, &uri));
        });
    }
    group.finish();
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("screen");
    let common = b"GET /video.bin HTTP/1.1\r\nHost: example.test\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n";
    let mut long = b"GET / HTTP/1.1\r\n".to_vec();
    for i in 0..90 {
        long.extend_from_slice(format!("Content-Lengthy{i}: {}\r\n", "x".repeat(300)).as_bytes());
    }
    long.extend_from_slice(b"\r\n");
    for (name, head) in [("common", common.as_slice()), ("hostile_28_kib", &long)] {
        let mut bytes = head.to_vec();
        let mut screen = Screen::default();
        group.bench_function(name, |b| {
            b.iter(|| screen.look(black_box(&mut bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, range, conditions, paths, heads);
criterion_main!(benches);
