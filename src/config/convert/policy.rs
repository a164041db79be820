//! What of `[resolver]` says which names are answered here or not as asked.

use std::collections::BTreeSet;

use super::super::read::Section;
use super::values::{DOMAIN_EXPECTED, Paths, TTLS, domain, seconds, secs};
use crate::dns::resolver::policy::{Config, Format, ListConfig, Response, record};
use crate::dns::wire::Ede;
use crate::dns::zone::apex;

/// `recursive`: names are asked for from the root on.
pub(super) fn settings(section: &Section<'_, '_>, recursive: bool, paths: &Paths<'_>) -> Config {
    let private: Vec<Box<[u8]>> = section.list("private_answers", DOMAIN_EXPECTED, |text| {
        let name = domain(text).and_then(|name| apex(&name));
        name.map(|name| Box::from(&*name))
            .ok_or_else(|| format!("found {text:?}, expected {DOMAIN_EXPECTED}"))
    });
    let local = section.section("local");
    let hosts = local.list("hosts", "paths of hosts files", |text| match text {
        "" => Err(String::from(
            "found \"\", expected the path of a hosts file",
        )),
        text => Ok(paths.resolve(&local, "hosts", text)),
    });
    let records = local.list("records", RECORD_EXPECTED, |text| {
        record(text).map_err(|problem| format!("found {text:?}: {problem}"))
    });
    let local_ttl = seconds(local.duration("ttl", TTLS));
    local.end();
    Config {
        special_use_names: section.boolean("special_use_names"),
        test: recursive,
        private_answers: private.iter().all(|name| name.len() > 1).then_some(private),
        hosts,
        records,
        local_ttl,
        blocklists: blocklists(section, paths),
    }
}

fn blocklists(section: &Section<'_, '_>, paths: &Paths<'_>) -> Vec<ListConfig> {
    let mut names = BTreeSet::new();
    let mut lists = Vec::new();
    for entry in section.sections("blocklist") {
        let format = match entry.choice_or_first("format", &["names", "rpz"]) {
            "rpz" => Format::Rpz,
            _ => Format::Names,
        };
        let mut name = entry.text("name");
        if format == Format::Rpz && !entry.failed("name") {
            match domain(&name) {
                Some(apex) => name = apex,
                None => entry.error(
                    "name",
                    format!(
                        "found {name:?}, expected the apex of the policy zone, {DOMAIN_EXPECTED}"
                    ),
                ),
            }
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let taken = matches!(name.as_str(), "local" | "special-use");
        if !entry.failed("name")
            && (name.is_empty() || name.len() > 255 || taken || !name.chars().all(good))
        {
            let expected =
                "expected letters, digits, '-', '.' or '_', and not \"local\" or \"special-use\"";
            entry.error("name", format!("found {name:?}, {expected}"));
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            entry.error(
                "name",
                format!("found {name:?} a second time, expected it once"),
            );
        }
        let file = entry.text("file");
        if file.is_empty() && !entry.failed("file") {
            entry.error("file", "expected the path of a list");
        }
        let words = ["nxdomain", "nodata", "refused", "drop", "null", "pass"];
        let response = match entry.choice_or_first("response", &words) {
            "nodata" => Response::NoData,
            "refused" => Response::Refused,
            "drop" => Response::Drop,
            "null" => Response::Null,
            "pass" => Response::Pass,
            _ => Response::NxDomain,
        };
        if format == Format::Rpz && !entry.is_default("response") {
            entry.warning("response", "a policy zone says itself what its names get");
        }
        let reason = match entry.choice_or_first("reason", &["blocked", "censored", "filtered"]) {
            "censored" => Ede::Censored,
            "filtered" => Ede::Filtered,
            _ => Ede::Blocked,
        };
        let ttl = entry.duration_or("ttl", TTLS, secs(60));
        let rules = entry.integer_or("rules", 1..=10_000_000, 5_000_000);
        let file = paths.resolve(&entry, "file", &file);
        entry.end();
        lists.push(ListConfig {
            name,
            file,
            format,
            response,
            ttl: seconds(ttl),
            reason,
            rules,
        });
    }
    if lists.len() > LISTS_MAX {
        let message = format!("found {} lists, expected at most {LISTS_MAX}", lists.len());
        section.error("blocklist", message);
    }
    lists
}

/// Each list is another walk for every query that is not of an own zone.
const LISTS_MAX: usize = 64;

const RECORD_EXPECTED: &str = "records such as \"printer.lan. 300 A 192.0.2.7\"";
