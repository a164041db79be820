//! `[[publish]]` with `s3`: a bucket instead of a directory.

use super::super::read::Section;
use super::values::{ms, secs};
use crate::content::bucket::BucketConfig;

/// The keys beside those every `[[publish]]` has; `None` if `s3` is not written, or wrong.
pub(super) fn settings(
    section: &Section<'_, '_>,
    prefix: &str,
    index: &str,
    listing: bool,
) -> Option<BucketConfig> {
    let written = section.text_or("s3", "");
    let endpoint = section.text_or("endpoint", "");
    let region = section.text_or("region", "");
    let config = BucketConfig {
        prefix: prefix.to_owned(),
        bucket: String::new(),
        beneath: String::new(),
        endpoint: endpoint_of(section, &endpoint),
        region: (!region.is_empty()).then_some(region),
        anonymous: section.boolean_or("anonymous", false),
        virtual_host: section.boolean_or("virtual_host", false),
        index: index.to_owned(),
        listing,
        interval: section.duration_or("interval", ms(100)..=secs(86_400), secs(60)),
        objects: section.integer_or("objects", 1..=100_000, 100_000),
        reads: section.integer_or("reads", 1..=64, 4),
        in_flight: section.integer_or("in_flight", 1..=1_024, 8),
        silence: section.duration_or("silence", ms(100)..=secs(600), secs(30)),
    };
    if written.is_empty() {
        if !section.failed("s3") {
            alone(section);
        }
        return None;
    }
    if !cfg!(feature = "s3") {
        let build = "this program was built without it: `cargo build --release --features s3`";
        section.error("s3", format!("found {written:?}, but {build}"));
        return None;
    }
    let Some((bucket, beneath)) = parse(&written) else {
        section.error("s3", format!("found {written:?}, expected {EXPECTED}"));
        return None;
    };
    Some(BucketConfig {
        bucket,
        beneath,
        ..config
    })
}

/// Keys that mean something for a bucket only.
fn alone(section: &Section<'_, '_>) {
    for key in KEYS {
        if !section.is_default(key) {
            section.error(key, "found beside no `s3`, expected it with a bucket only");
        }
    }
}

/// Bucket and what keys begin with, of `s3://bucket/path`.
fn parse(text: &str) -> Option<(String, String)> {
    let (bucket, path) = text
        .strip_prefix("s3://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bucket.len() < 3 || bucket.len() > 255 || !bucket.chars().all(good) {
        return None;
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments = |s: &str| s.is_empty() || s == "." || s == "..";
    if !path.is_empty() && (path.split('/').any(segments) || path.chars().any(char::is_control)) {
        return None;
    }
    let beneath = match path {
        "" => String::new(),
        path => format!("{path}/"),
    };
    Some((bucket.to_owned(), beneath))
}

fn endpoint_of(section: &Section<'_, '_>, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let good = text.parse::<::http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if !good {
        section.error("endpoint", format!("found {text:?}, expected {ENDPOINT}"));
    }
    good.then(|| text.trim_end_matches('/').to_owned())
}

const KEYS: [&str; 9] = [
    "endpoint",
    "region",
    "anonymous",
    "virtual_host",
    "interval",
    "objects",
    "reads",
    "in_flight",
    "silence",
];

const EXPECTED: &str = "a bucket and what its keys begin with, such as \"s3://bucket/models\"";

const ENDPOINT: &str = "the base URL of a server such as \"https://s3.example:9000\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(bucket, beneath)| (bucket.to_owned(), beneath.to_owned()));
        assert_eq!(parse(text), expected, "{text}");
    }

    #[test]
    fn parse_bucket_and_path_ends_with_one_slash() {
        check("s3://bucket", Some(("bucket", "")));
        check("s3://bucket/", Some(("bucket", "")));
        check("s3://my.bucket-1/a b/c", Some(("my.bucket-1", "a b/c/")));
        check("s3://bucket/a/", Some(("bucket", "a/")));
    }

    #[test]
    fn parse_what_is_no_bucket_is_none() {
        for text in [
            "bucket/a",
            "https://bucket/a",
            "s3://",
            "s3://a",
            "s3:///a",
            "s3://b?cket/a",
            "s3://bucket//a",
            "s3://bucket/../a",
            "s3://bucket/a//",
            "s3://user@bucket/",
        ] {
            check(text, None);
        }
    }
}
