//! `[link]`: the network interfaces.

use super::super::read::Section;
use super::super::units;
use crate::link;

pub(super) fn settings(section: &Section<'_, '_>) -> link::Config {
    let capacity = section.parsed("capacity", RATE_OR_EMPTY, |text| {
        if text.is_empty() {
            return Some(None);
        }
        units::rate(text).filter(|r| *r > 0).map(Some)
    });
    let interfaces = section.list(
        "interfaces",
        "names of interfaces such as \"eth0\"",
        |text| {
            let good =
                !text.is_empty() && text.len() < 16 && !text.contains(['/', ' ']) && text != "..";
            let expected = "expected the name of an interface such as \"eth0\"";
            good.then(|| text.to_owned())
                .ok_or_else(|| format!("found {text:?}, {expected}"))
        },
    );
    let default_capacity = section.parsed("default_capacity", RATE_EXPECTED, |text| {
        units::rate(text).filter(|r| *r > 0)
    });
    let background_share = section.share("background_share");
    if background_share < SHARE_MIN && !section.failed("background_share") {
        let expected = "expected 0.01 to 1: with less, nodes that replicate from here give up";
        let message = format!("found {background_share}, {expected}");
        section.error("background_share", message);
    }
    let fair = section.boolean("fair");
    section.end();
    link::Config {
        capacity,
        interfaces,
        default_capacity,
        background_share,
        fair,
    }
}

/// With less, a node that waits for a chunk takes this one for stalled.
const SHARE_MIN: f64 = 0.01;

const RATE_EXPECTED: &str = "a rate such as \"1 Gbit/s\"";

const RATE_OR_EMPTY: &str = "a rate such as \"1 Gbit/s\", or \"\" for what the interface reports";
