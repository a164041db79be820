//! `[dnssec]`: times that hold for all zones signed here.

use super::super::read::Section;
use super::values::secs;
use crate::dns::dnssec::{Cds, Config};

pub(super) fn settings(section: &Section<'_, '_>) -> Config {
    let lifetime = section.duration("lifetime", secs(60)..=secs(365 * 86_400));
    let refresh = section.duration("refresh", secs(1)..=secs(182 * 86_400));
    if refresh * 2 > lifetime && !section.failed("refresh") && !section.failed("lifetime") {
        section.error("refresh", "expected at most half of dnssec.lifetime");
    }
    let day = secs(86_400);
    let word = section.choice("cds", &Cds::ALL.map(Cds::text));
    let config = Config {
        lifetime,
        refresh,
        dnskey_ttl: section.duration("dnskey_ttl", secs(0)..=day),
        propagation: section.duration("propagation", secs(0)..=day * 28),
        ds_ttl: section.duration("ds_ttl", secs(0)..=day * 7),
        cds: Cds::ALL
            .into_iter()
            .find(|cds| cds.text() == word)
            .unwrap_or(Cds::Rollover),
        ask_parent: section.duration("ask_parent", secs(0)..=day),
        parent_propagation: section.duration("parent_propagation", secs(0)..=day * 7),
    };
    section.end();
    config
}
