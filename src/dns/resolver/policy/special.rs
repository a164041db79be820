//! Special-use names: answered here, so that no upstream hears of them.
//!
//! `localhost` (RFC 6761 section 6.3), `invalid`, `test` (6.4, 6.2), `local` (RFC 6762 section 22.1), `onion` (RFC 7686), `home.arpa`
//! (RFC 8375), `service.arpa` (RFC 9665), `resolver.arpa` (RFC 9462 section 6.4), and the reverse zones of RFC 6303 and 7793.
//!
//! What the operator has named wins: a forward zone takes a special-use zone that is at or beneath it, and is taken
//! out of one that it lies in.

use super::rules::{Act, Builder, Rules};
use crate::dns::zone::name::from_text;

/// The rules, without the names at or beneath those `in_use` (wire form, lower case).
///
/// `test` is what a recursive resolver must not ask the root for; a forwarder leaves it to its upstream, where people who
/// use it have set it up.
pub(super) fn rules(in_use: &[Box<[u8]>], test: bool) -> Rules {
    let mut builder = Builder::new(usize::MAX);
    for name in in_use.iter().filter(|name| name.len() > 1) {
        for below in [false, true] {
            // Only where a name is given twice; the first is as good.
            let _ = builder.add(name, below, Act::Except);
        }
    }
    let is_used = |name: &[u8]| {
        in_use
            .iter()
            .any(|used| used.len() > 1 && is_in(name, used))
    };
    let absent = ["invalid.", "local.", "onion."].into_iter();
    for text in absent.chain(test.then_some("test.")) {
        let name = wire(text);
        if !is_used(&name) {
            add(&mut builder, &name, Act::NxDomain, Act::NxDomain);
        }
    }
    let localhost = wire("localhost.");
    if !is_used(&localhost) {
        let apex = Act::Apex(builder.new_sets());
        let below = Act::Records(builder.new_sets());
        add(&mut builder, &localhost, apex, below);
        for below in [false, true] {
            put(&mut builder, &localhost, below, A, &[127, 0, 0, 1]);
            let mut address = [0; 16];
            address[15] = 1;
            put(&mut builder, &localhost, below, AAAA, &address);
        }
    }
    let carrier = (64..=127).map(|n| format!("{n}.100.in-addr.arpa."));
    let private = (16..=31).map(|n| format!("{n}.172.in-addr.arpa."));
    let loopback = format!("1.{}ip6.arpa.", "0.".repeat(31));
    let unspecified = format!("0.{}ip6.arpa.", "0.".repeat(31));
    let zones = EMPTY_ZONES.iter().map(|&zone| zone.to_owned());
    for text in zones
        .chain(carrier)
        .chain(private)
        .chain([loopback.clone(), unspecified])
    {
        let name = wire(&text);
        if is_used(&name) {
            continue;
        }
        let below = match text.as_str() {
            "resolver.arpa." => Act::NoData,
            _ => Act::NxDomain,
        };
        let apex = Act::Apex(builder.new_sets());
        add(&mut builder, &name, apex, below);
        if text == loopback {
            put(&mut builder, &name, false, PTR, &localhost);
        }
        if text == LOOPBACK {
            let pointer = wire(&format!("1.0.0.{LOOPBACK}"));
            if !is_used(&pointer) {
                put(&mut builder, &pointer, false, PTR, &localhost);
            }
        }
    }
    builder.finish()
}

fn add(builder: &mut Builder, name: &[u8], exact: Act, below: Act) {
    for (is_below, act) in [(false, exact), (true, below)] {
        builder
            .add(name, is_below, act)
            .expect("the number of rules is not bounded here");
    }
}

fn put(builder: &mut Builder, name: &[u8], below: bool, rtype: u16, data: &[u8]) {
    builder
        .add_record(name, below, rtype, TTL, data)
        .expect("a few records");
}

fn wire(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    from_text(text.as_bytes(), b"\0", &mut wire).expect("the names of this file are names");
    wire
}

/// Whether `name` is `zone` or beneath it; both lower case, in wire form.
pub(super) fn is_in(name: &[u8], zone: &[u8]) -> bool {
    let mut rest = name;
    while rest.len() > zone.len() {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    rest == zone
}

/// TTL of these answers (RFC 6303 section 3).
pub(super) const TTL: u32 = 10_800;

const LOOPBACK: &str = "127.in-addr.arpa.";

const EMPTY_ZONES: &[&str] = &[
    LOOPBACK,
    "0.in-addr.arpa.",
    "10.in-addr.arpa.",
    "254.169.in-addr.arpa.",
    "168.192.in-addr.arpa.",
    "2.0.192.in-addr.arpa.",
    "100.51.198.in-addr.arpa.",
    "113.0.203.in-addr.arpa.",
    "255.255.255.255.in-addr.arpa.",
    "d.f.ip6.arpa.",
    "8.e.f.ip6.arpa.",
    "9.e.f.ip6.arpa.",
    "a.e.f.ip6.arpa.",
    "b.e.f.ip6.arpa.",
    "8.b.d.0.1.0.0.2.ip6.arpa.",
    "home.arpa.",
    "service.arpa.",
    "resolver.arpa.",
];

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::path::Path;

    #[track_caller]
    fn check(in_use: &[&str], name: &str, is_special: bool) {
        let in_use: Vec<_> = in_use.iter().map(|name| wire(name).into()).collect();
        let rules = rules(&in_use, false);
        let found = rules.find(&Path::new(&wire(name)));
        assert_eq!(found.is_some(), is_special, "{name}: {found:?}");
    }

    #[test]
    fn names_of_the_registries_are_special_and_others_are_not() {
        for name in [
            "localhost.",
            "a.localhost.",
            "x.invalid.",
            "printer.local.",
            "1.0.0.10.in-addr.arpa.",
            "9.20.172.in-addr.arpa.",
            "1.64.100.in-addr.arpa.",
            "_dns.resolver.arpa.",
            "x.home.arpa.",
        ] {
            check(&[], name, true);
        }
        for name in [
            ".",
            "arpa.",
            "example.",
            "test.",
            "9.32.172.in-addr.arpa.",
            "1.63.100.in-addr.arpa.",
        ] {
            check(&[], name, false);
        }
    }

    #[test]
    fn forward_zone_wins_at_above_and_inside_a_special_zone() {
        check(&["10.in-addr.arpa."], "1.0.0.10.in-addr.arpa.", false);
        check(&["in-addr.arpa."], "1.0.0.10.in-addr.arpa.", false);
        check(&["in-addr.arpa."], "localhost.", true);
        check(&["site.local."], "a.site.local.", false);
        check(&["site.local."], "b.local.", true);
        check(&["."], "localhost.", true);
    }
}
