//! The seeds of the fuzz targets, and mutations of them, against the same laws.

#[path = "../common/laws.rs"]
pub(crate) mod laws;

#[path = "../common/mutate.rs"]
pub(crate) mod mutate;

use self::mutate::Mutator;

#[track_caller]
fn check(target: &str, law: fn(&[u8]), mutations: usize) {
    for seed in mutate::seeds(target) {
        law(&seed);
    }
    let mut mutator = Mutator::new(target);
    let mut bytes = Vec::new();
    for _ in 0..mutations {
        mutator.next(&mut bytes);
        // What made it panic, to become a seed.
        let found = std::panic::catch_unwind(|| law(&bytes));
        assert!(found.is_ok(), "{target}: b\"{}\"", bytes.escape_ascii());
    }
}

#[test]
fn messages_are_answered_or_dropped() {
    check("message", laws::message, 100_000);
}

#[test]
fn manifests_catalogues_and_indexes_are_canonical_or_refused() {
    check("content", laws::content, 20_000);
}

#[test]
fn messages_between_nodes_are_canonical_or_refused() {
    check("peer", laws::peer, 20_000);
}

#[test]
fn zone_texts_are_zones_or_have_problems() {
    check("zone_text", laws::zone_text, 3_000);
}

#[test]
fn replies_are_answers_or_refused() {
    check("reply", laws::reply, 50_000);
}

#[test]
fn cache_directives_never_allow_more_by_being_more() {
    check("cache_control", laws::cache_control, 20_000);
}

#[test]
fn ftp_paths_lead_beneath_home_or_nowhere() {
    check("ftp_path", laws::ftp_path, 50_000);
}

#[test]
fn range_fields_are_plans_within_the_object() {
    check("http_range", laws::http_range, 50_000);
}

#[test]
fn plain_heads_are_what_the_parser_reads() {
    check("http_plain", laws::http_plain, 50_000);
}
