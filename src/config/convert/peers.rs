//! `[peers]`: what nodes do among themselves.

use std::path::PathBuf;

use super::super::read::Section;
use super::content::{NODE_EXPECTED, node_url};
use super::values::{Paths, ms, secs};
use crate::metrics::peers::Way;
use crate::peer::swarm::SwarmConfig;

pub(super) fn settings(
    section: &Section<'_, '_>,
    paths: &Paths<'_>,
) -> (SwarmConfig, Option<PathBuf>) {
    let file = section.text("secret_file");
    let file = (!file.is_empty()).then(|| paths.resolve(section, "secret_file", &file));
    let config = SwarmConfig {
        secret: None,
        discover: section.list("discover", WAYS, |text| {
            let way = Way::ALL.into_iter().find(|way| way.label() == text);
            way.ok_or_else(|| format!("found {text:?}, expected {WAYS}"))
        }),
        known: section.list("static", NODE_EXPECTED, node_url),
        nodes: section.integer("nodes", 1..=1_000),
        tracked: section.integer("tracked", 1..=1_000_000),
        in_flight: section.integer("in_flight", 1..=1_024),
        silence: section.duration("silence", ms(100)..=secs(300)),
    };
    section.end();
    (config, file)
}

const WAYS: &str = "\"static\", \"tracker\"";
