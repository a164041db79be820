//! Settings and files to a [`Policy`]. Reads files: not for a DNS thread.
//!
//! A list that does not load stays as it was; the others are taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::addresses::{Addresses, Growing};
use super::rpz::Triggers;
use super::rules::{Act, Builder, Rules};
use super::{List, Policy, lists, special};
use crate::dns::wire::Ede;
use crate::dns::zone::name::from_text;
use crate::dns::zone::{Problem, Record, read_record, read_records};
use crate::metrics::policy::Metrics;

/// What is answered here, and what is not answered as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Special-use names are answered here.
    pub special_use_names: bool,
    /// `test` is one of them.
    pub test: bool,
    /// Names (wire form, lower case) that may have private addresses, with all beneath them; `None`: all may.
    pub private_answers: Option<Vec<Box<[u8]>>>,
    /// Hosts files.
    pub hosts: Vec<PathBuf>,
    /// Records of local names.
    pub records: Vec<Record>,
    /// TTL of what hosts files say, seconds.
    pub local_ttl: u32,
    /// Blocklists, in the order they are asked.
    pub blocklists: Vec<ListConfig>,
}

/// One blocklist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListConfig {
    /// What it is called in metrics; for a policy zone its apex.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// What is in it.
    pub format: Format,
    /// What its names get; a policy zone says that itself.
    pub response: Response,
    /// TTL of its answers, seconds.
    pub ttl: u32,
    /// Whose wish it is, as clients are told (RFC 8914).
    pub reason: Ede,
    /// Rules it may have.
    pub rules: usize,
}

/// What is in a blocklist's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Names, or lines of a hosts file.
    Names,
    /// A response policy zone.
    Rpz,
}

/// What the names of a plain list get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// NXDOMAIN.
    NxDomain,
    /// No data.
    NoData,
    /// REFUSED.
    Refused,
    /// No answer.
    Drop,
    /// The unspecified address.
    Null,
    /// What they would get without any list: an exception from the lists behind this one.
    Pass,
}

/// The state of one list, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListStatus {
    /// What it is called.
    pub name: String,
    /// Rules in service.
    pub rules: usize,
    /// Bytes they take.
    pub bytes: usize,
    /// Why it was not loaded (file:line: …).
    pub problems: Vec<String>,
    /// What was left out of it.
    pub warnings: Vec<String>,
}

/// Reads a record of a local name, such as `printer.lan. 300 A 192.0.2.7`.
///
/// # Errors
/// What is wrong with it.
pub fn record(text: &str) -> Result<Record, String> {
    read_record(text, RECORD_TTL)
}

/// Reads all files. `forwarded`: the forward zones (wire form, lower case), which win over special-use names. A list
/// that does not load is that of `old`.
pub(in crate::dns::resolver) fn load(
    config: &Config,
    forwarded: &[Box<[u8]>],
    old: &Policy,
    metrics: &Metrics,
) -> (Policy, Vec<ListStatus>) {
    let mut policy = Policy {
        lists: Vec::new(),
        private: config.private_answers.clone(),
    };
    let mut statuses = Vec::new();
    let mut take = |name: &str, made: Result<Made, Vec<Problem>>, blocks: Option<&ListConfig>| {
        let (list, problems, warnings) = match made {
            Ok(made) => {
                let list = List {
                    name: name.to_owned(),
                    own: blocks.is_none(),
                    rules: made.rules,
                    addresses: made.addresses,
                    ttl: blocks.map_or(special::TTL, |list| list.ttl),
                    ede: blocks.map_or(Ede::Blocked, |list| list.reason),
                    hits: metrics.hits(name),
                };
                (Some(Arc::new(list)), Vec::new(), made.warnings)
            }
            Err(problems) => {
                metrics.failed(name);
                let kept = old.lists.iter().find(|list| list.name == name);
                (kept.cloned(), problems, Vec::new())
            }
        };
        let rules = list
            .as_ref()
            .map_or(0, |l| l.rules.len() + l.addresses.len());
        let bytes = list
            .as_ref()
            .map_or(0, |l| l.rules.bytes() + l.addresses.bytes());
        metrics.in_service(name, rules, bytes);
        let text = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
        statuses.push(ListStatus {
            name: name.to_owned(),
            rules,
            bytes,
            problems: text(problems),
            warnings: text(warnings),
        });
        policy.lists.extend(list);
    };
    if !config.hosts.is_empty() || !config.records.is_empty() {
        take(LOCAL, local(config), None);
    }
    if config.special_use_names {
        let private = config.private_answers.iter().flatten();
        let in_use: Vec<_> = forwarded.iter().chain(private).cloned().collect();
        let made = Made::of(special::rules(&in_use, config.test));
        take(SPECIAL, Ok(made), None);
    }
    for list in &config.blocklists {
        let made = read(&list.file).and_then(|text| blocklist(list, &text));
        take(&list.name, made, Some(list));
    }
    for list in &old.lists {
        if !policy.lists.iter().any(|other| other.name == list.name) {
            metrics.gone(&list.name);
        }
    }
    (policy, statuses)
}

/// The rules of one list.
#[derive(Debug)]
struct Made {
    rules: Rules,
    addresses: Addresses,
    warnings: Vec<Problem>,
}

impl Made {
    fn of(rules: Rules) -> Self {
        Self {
            rules,
            addresses: Addresses::default(),
            warnings: Vec::new(),
        }
    }
}

/// Configured records first, then hosts files.
fn local(config: &Config) -> Result<Made, Vec<Problem>> {
    let mut builder = Builder::new(LOCAL_MAX);
    let mut problems = Vec::new();
    for record in &config.records {
        let added =
            builder.add_record(&record.owner, false, record.rtype, record.ttl, &record.data);
        if let Err(message) = added {
            problems.push(Problem {
                file: String::from("resolver.local.records"),
                line: 0,
                message,
            });
        }
    }
    for file in &config.hosts {
        let name = file.display().to_string();
        let read = read(file);
        let taken =
            read.and_then(|text| lists::hosts(&name, &text, config.local_ttl, &mut builder));
        problems.extend(taken.err().into_iter().flatten());
    }
    if problems.is_empty() {
        Ok(Made::of(builder.finish()))
    } else {
        Err(problems)
    }
}

/// One blocklist's text to its rules.
fn blocklist(config: &ListConfig, text: &[u8]) -> Result<Made, Vec<Problem>> {
    let file = config.file.display().to_string();
    let mut rules = Builder::new(config.rules);
    let mut addresses = Growing::new(config.rules);
    let warnings = match config.format {
        Format::Names => {
            let act = match config.response {
                Response::NxDomain => Act::NxDomain,
                Response::NoData => Act::NoData,
                Response::Refused => Act::Refused,
                Response::Drop => Act::Drop,
                Response::Null => Act::Null,
                Response::Pass => Act::Pass,
            };
            let notes = lists::names(&file, text, act, &mut rules).map_err(|p| vec![p])?;
            notes.finish(&file)
        }
        Format::Rpz => {
            let mut apex = Vec::new();
            if let Err(message) = from_text(config.name.as_bytes(), b"\0", &mut apex) {
                return Err(vec![Problem {
                    file,
                    line: 0,
                    message: format!("zone name `{}`: {message}", config.name),
                }]);
            }
            apex.make_ascii_lowercase();
            let mut triggers = Triggers::new(&apex, &mut rules, &mut addresses);
            let (errors, warnings) = read_records(&file, text, &apex, config.ttl, &mut triggers);
            if !errors.is_empty() {
                return Err(errors);
            }
            warnings
        }
    };
    Ok(Made {
        rules: rules.finish(),
        addresses: addresses.finish(),
        warnings,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Vec<Problem>> {
    std::fs::read(path).map_err(|error| {
        vec![Problem {
            file: path.display().to_string(),
            line: 0,
            message: format!("found no readable file: {error}"),
        }]
    })
}

/// The list of hosts files and configured records.
pub(super) const LOCAL: &str = "local";

/// The list of special-use names.
pub(super) const SPECIAL: &str = "special-use";

/// TTL of a configured record that has none.
const RECORD_TTL: u32 = 3_600;

/// Local names.
const LOCAL_MAX: usize = 1_000_000;

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Special-use names and these lists, by name, text, format and response.
    pub(in super::super) fn policy(lists: &[(&str, &str, Format, Response)]) -> Policy {
        let metrics = crate::metrics::Metrics::new();
        let config = Config {
            special_use_names: true,
            ..Config::default()
        };
        let (mut policy, _) = load(&config, &[], &Policy::default(), &metrics.policy);
        for &(name, text, format, response) in lists {
            let config = ListConfig {
                name: name.to_owned(),
                file: PathBuf::from(name),
                format,
                response,
                ttl: 60,
                reason: Ede::Blocked,
                rules: 1_000,
            };
            let made = blocklist(&config, text.as_bytes()).unwrap();
            policy.lists.push(Arc::new(List {
                name: name.to_owned(),
                own: false,
                rules: made.rules,
                addresses: made.addresses,
                ttl: 60,
                ede: Ede::Blocked,
                hits: metrics.policy.hits(name),
            }));
        }
        policy
    }

    /// Private addresses only for these names.
    pub(in super::super) fn private(names: &[&str]) -> Policy {
        let wire = |name: &&str| super::super::super::testing::wire(name);
        Policy {
            lists: Vec::new(),
            private: Some(names.iter().map(wire).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::path::Path as NamePath;

    fn rules(policy: &Policy, name: &[u8]) -> bool {
        policy.find(&NamePath::new(name)).is_some()
    }

    #[test]
    fn list_that_does_not_load_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ads.txt");
        std::fs::write(&file, "ads.example\n*.b.example\n").unwrap();
        let config = Config {
            blocklists: vec![ListConfig {
                name: String::from("ads"),
                file: file.clone(),
                format: Format::Names,
                response: Response::NxDomain,
                ttl: 60,
                reason: Ede::Blocked,
                rules: 1,
            }],
            ..Config::default()
        };
        let metrics = crate::metrics::Metrics::new();
        let (first, statuses) = load(&config, &[], &Policy::default(), &metrics.policy);
        assert_eq!((statuses[0].rules, statuses[0].problems.len()), (0, 1));
        drop(first);
        let config = Config {
            blocklists: vec![ListConfig {
                rules: 10,
                ..config.blocklists[0].clone()
            }],
            ..config
        };
        let (first, statuses) = load(&config, &[], &Policy::default(), &metrics.policy);
        assert_eq!((statuses[0].rules, statuses[0].problems.len()), (2, 0));
        assert!(rules(&first, b"\x03ads\x07example\0"));
        std::fs::write(&file, "<html> <p>\n").unwrap();
        let (second, statuses) = load(&config, &[], &first, &metrics.policy);
        assert_eq!((statuses[0].rules, statuses[0].problems.len()), (2, 1));
        assert!(rules(&second, b"\x03ads\x07example\0"));
        let text = crate::metrics::Metrics::text(&metrics);
        assert!(
            text.contains(r#"headwater_policy_rules{list="ads"} 2"#),
            "{text}"
        );
        let (third, _) = load(&Config::default(), &[], &second, &metrics.policy);
        assert!(!rules(&third, b"\x03ads\x07example\0"));
        assert!(
            !metrics
                .text()
                .contains(r#"headwater_policy_rules{list="ads"}"#)
        );
    }

    #[test]
    fn record_is_one_line_of_a_master_file() {
        let good = record("printer.lan. 300 A 192.0.2.7").unwrap();
        assert_eq!(
            (&*good.owner, good.ttl),
            (&b"\x07printer\x03lan\0"[..], 300)
        );
        assert_eq!(record("a.lan. A 192.0.2.7").unwrap().ttl, RECORD_TTL);
        for bad in [
            "",
            "printer.lan.",
            "a.lan. A 192.0.2",
            "a. A 192.0.2.1\nb. A 192.0.2.1",
        ] {
            assert!(record(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_million_names_take_less_than_64_bytes_each() {
        let mut text = String::new();
        for n in 0..100_000 {
            use std::fmt::Write as _;
            let _ = writeln!(text, "tracker-{n}.example{}.com", n % 7_000);
        }
        let config = ListConfig {
            name: String::from("big"),
            file: PathBuf::from("big"),
            format: Format::Names,
            response: Response::NxDomain,
            ttl: 60,
            reason: Ede::Blocked,
            rules: 1_000_000,
        };
        let made = blocklist(&config, text.as_bytes()).unwrap();
        let each = made.rules.bytes() / 100_000;
        assert!(each < 64, "{each} bytes");
    }
}
