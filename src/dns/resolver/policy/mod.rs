//! What is answered without asking anybody, or not answered as asked: local data, special-use names, blocklists, and
//! private addresses in public names.
//!
//! A [`Policy`] is an immutable snapshot, asked after own zones and before the cache. An ordinary name costs one look at its
//! last label for local and special-use names, and for each blocklist a walk to its first label that the list does not
//! share. Answers of upstreams are screened once, before they are kept ([`Policy::screen`]).
//!
//! From ground to roof: `suffixes` and `addresses` (what is found by name and by address), `rules` (what is to be done),
//! `special`, `lists` and `rpz` (where rules come from), `answer` (a rule as an answer), `alias` (local CNAMEs), `screen`
//! (answers of upstreams), `load` (files to a policy).

use std::sync::Arc;

use prometheus::IntCounter;

use self::addresses::Addresses;
use self::rules::{Act, Match, Rules};
use crate::dns::wire::Ede;
use crate::dns::zone::path::Path;
use crate::metrics::policy::Metrics;

mod suffixes;

mod rules;

mod addresses;

mod special;

mod lists;

mod rpz;

mod answer;

mod alias;

mod screen;

mod load;

pub(in crate::dns) use self::alias::Alias;
pub(in crate::dns) use self::answer::Ruling;
pub(super) use self::load::load;
pub use self::load::{Config, Format, ListConfig, ListStatus, Response, record};

/// Rules in the order they are asked: local data, special-use names, then the blocklists as configured.
#[derive(Debug, Default)]
pub struct Policy {
    lists: Vec<Arc<List>>,
    /// Names that may have private addresses (wire form, lower case); `None`: all may.
    private: Option<Vec<Box<[u8]>>>,
}

/// Rules of one origin.
#[derive(Debug)]
struct List {
    name: String,
    /// Local data and special-use names: answered as if from an own zone.
    own: bool,
    rules: Rules,
    addresses: Addresses,
    /// TTL of answers that have none of their own.
    ttl: u32,
    /// Why a name is blocked.
    ede: Ede,
    hits: IntCounter,
}

impl Policy {
    /// Reads the files of `config` once; those that do not load are left out. For benches and tests: a resolver keeps its own
    /// ([`Resolver::load_policy`](super::Resolver::load_policy)).
    #[must_use]
    pub fn read(config: &Config, metrics: &Metrics) -> Self {
        load(config, &[], &Self::default(), metrics).0
    }

    /// The first list that has a rule for a name, and the rule; `None`: resolved as usual.
    #[inline]
    fn find(&self, path: &Path) -> Option<(&List, Match)> {
        for list in &self.lists {
            if let Some(found) = list.rules.find(path) {
                if found.act == Act::Pass {
                    list.hits.inc();
                    return None;
                }
                return Some((list, found));
            }
        }
        None
    }
}
