//! Records to a zone: the checks that need all of them, and the encoding of RRsets.

use std::collections::HashMap;

use super::name;
use super::path::Path;
use super::rdata;
use super::read::Sink;
use super::report::{At, Report};
use super::signed;
use super::table::Table;
use super::tree::{
    A, AAAA, APEX, CNAME, CUT, DNAME, DNAME_HERE, DS, HASHED, MX, NO_NODE, NS, NSEC, NSEC3, PTR,
    RRSIG, SOA, SRV, Spot, WILDCARD, WILDCARD_BELOW, Zone,
};
use crate::dns::TtlOverride;

mod encode;

/// Gathers the records of one zone.
#[derive(Debug)]
pub(super) struct Builder {
    apex: Vec<u8>,
    apex_labels: usize,
    apex_hash: u64,
    nodes: Vec<Name>,
    hashes: Vec<u64>,
    /// Nodes but the apex and those of NSEC3 records.
    table: Table<Spot>,
    /// Nodes of NSEC3 records by their first label.
    hashed: HashMap<Vec<u8>, u32>,
    labels: Vec<u8>,
    records: Vec<Raw>,
    data: Vec<u8>,
    /// Owner and node of the last record: many have the owner of the one before.
    last: (Vec<u8>, u32),
    /// A SOA, or an NS, that could not be read: its absence is no problem of its own.
    broken_soa: bool,
    broken_ns: bool,
}

/// A name as read.
#[derive(Clone, Copy, Debug)]
struct Name {
    parent: u32,
    /// In `labels`.
    label: u32,
    flags: u16,
}

/// A record as read.
#[derive(Clone, Copy, Debug)]
struct Raw {
    node: u32,
    rtype: u16,
    /// The type a signature covers; else 0.
    covered: u16,
    /// In `data`.
    start: u32,
    ttl: u32,
    /// Its place.
    line: u32,
    file: u16,
    len: u16,
}

impl Raw {
    /// What a zone's records are sorted by.
    fn key(&self) -> (u32, u16, u16) {
        (self.node, self.rtype, self.covered)
    }

    fn at(&self) -> At {
        At {
            file: self.file,
            line: self.line,
        }
    }
}

/// The records of one type at one name, or of the signatures there those that cover one type: a range of the sorted
/// list.
#[derive(Clone, Copy, Debug)]
struct Group {
    node: u32,
    rtype: u16,
    covered: u16,
    start: u32,
    end: u32,
    ttl: u32,
}

impl Group {
    fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Sink for Builder {
    fn take(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
        at: At,
    ) -> Result<Option<String>, String> {
        // As BIND does: what is elsewhere harms nobody here.
        let problem = self.add(owner, rtype, ttl, data, at).err();
        Ok(problem.map(|problem| format!("{problem}; it is left out")))
    }

    fn broken(&mut self, rtype: u16) {
        self.broken_soa |= rtype == SOA;
        self.broken_ns |= rtype == NS;
    }

    fn broken_file(&mut self) {
        self.broken_soa = true;
        self.broken_ns = true;
    }
}

impl Builder {
    /// A zone without records. `apex` is in wire form, lower case.
    pub(super) fn new(apex: &[u8]) -> Self {
        let path = Path::new(apex);
        Self {
            apex: apex.to_vec(),
            apex_labels: path.labels(),
            apex_hash: path.hash(),
            nodes: vec![Name {
                parent: APEX,
                label: 0,
                flags: 0,
            }],
            hashes: vec![path.hash()],
            table: Table::default(),
            hashed: HashMap::new(),
            labels: vec![0],
            records: Vec::new(),
            data: Vec::new(),
            last: (apex.to_vec(), APEX),
            broken_soa: false,
            broken_ns: false,
        }
    }

    /// Takes one record. `owner` is in wire form, lower case; `data` is uncompressed.
    ///
    /// # Errors
    /// An owner outside the zone.
    pub(super) fn add(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
        at: At,
    ) -> Result<(), String> {
        let covered = signed::covered(rtype, data);
        let node = if rtype == NSEC3 || covered == NSEC3 || owner != self.last.0 {
            self.node(owner, rtype, covered)?
        } else {
            self.last.1
        };
        let start = self.data.len() as u32; // Memory ends before 4 GiB of records in one zone do.
        self.data.extend_from_slice(data);
        self.records.push(Raw {
            node,
            rtype,
            covered,
            start,
            ttl,
            line: at.line,
            file: at.file,
            len: data.len() as u16, // The encoder gives at most 65,535 bytes.
        });
        Ok(())
    }

    /// The node of the owner of a record.
    fn node(&mut self, owner: &[u8], rtype: u16, covered: u16) -> Result<u32, String> {
        let path = Path::new(owner);
        let Some(below) = self.depth_below_apex(&path) else {
            return Err(format!(
                "found owner {}, expected a name in zone {}",
                name::to_text(owner),
                name::to_text(&self.apex),
            ));
        };
        if below == 1 && (rtype == NSEC3 || covered == NSEC3) {
            return Ok(self.intern_hashed(path.label(0)));
        }
        let node = self.intern(&path, below);
        self.last.0.clear();
        self.last.0.extend_from_slice(owner);
        self.last.1 = node;
        Ok(node)
    }

    /// How many labels a name has below the apex; `None` if it is not in the zone.
    fn depth_below_apex(&self, path: &Path) -> Option<usize> {
        let below = path.labels().checked_sub(self.apex_labels)?;
        (path.suffix(below) == self.apex).then_some(below)
    }

    /// The node of a name, made with all the names between it and the apex (empty non-terminals).
    fn intern(&mut self, path: &Path, below: usize) -> u32 {
        let mut node = APEX;
        for index in (0..below).rev() {
            let label = path.label(index);
            let hash = path.hash_at(index, self.hashes[node as usize]);
            node = self
                .child(node, hash, label)
                .unwrap_or_else(|| self.grow(node, hash, label));
        }
        node
    }

    /// The node of an NSEC3 record.
    fn intern_hashed(&mut self, label: &[u8]) -> u32 {
        if let Some(&node) = self.hashed.get(label) {
            return node;
        }
        let node = self.nodes.len() as u32; // As in `grow`.
        self.nodes.push(Name {
            parent: APEX,
            label: self.labels.len() as u32,
            flags: HASHED,
        });
        self.labels.extend_from_slice(label);
        self.hashes.push(0); // Never looked up.
        self.hashed.insert(label.to_vec(), node);
        node
    }

    fn child(&self, parent: u32, hash: u64, label: &[u8]) -> Option<u32> {
        let found = self.table.get(hash, |spot| {
            self.labels[spot.label as usize..].starts_with(label)
                && self.nodes[spot.node as usize].parent == parent
        });
        found.map(|spot| spot.node)
    }

    fn grow(&mut self, parent: u32, hash: u64, label: &[u8]) -> u32 {
        let node = self.nodes.len() as u32; // Memory ends before 2^32 names do.
        let spot = Spot {
            node,
            label: self.labels.len() as u32, // As above.
        };
        self.nodes.push(Name {
            parent,
            label: spot.label,
            flags: 0,
        });
        self.labels.extend_from_slice(label);
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.table
            .insert(hash, spot, |spot| hashes[spot.node as usize]);
        if label == WILDCARD {
            self.nodes[parent as usize].flags |= WILDCARD_BELOW;
        }
        node
    }

    /// Checks the records, applies configured TTLs, and builds the zone. `None`: there were errors.
    pub(super) fn finish(mut self, overrides: &[TtlOverride], report: &mut Report) -> Option<Zone> {
        self.records.sort_by_key(Raw::key); // Stable: file order inside an RRset.
        self.drop_duplicates(report);
        let mut groups = self.groups(report);
        self.check(&groups, report);
        self.override_ttls(overrides, &mut groups, report);
        let soa = groups
            .iter()
            .find(|group| group.node == APEX && group.rtype == SOA)
            .copied()?;
        let mut zone = self.encode(&groups, soa, report);
        zone.look_for_chain(report);
        zone.check_targets(report, |node, rtype, index| {
            let group =
                groups.binary_search_by_key(&(node, rtype), |group| (group.node, group.rtype));
            group.map_or(At::default(), |found| {
                self.records[groups[found].start as usize + index].at()
            })
        });
        self.check_occluded(&zone, &groups, report);
        Some(zone)
    }

    fn raw(&self, raw: &Raw) -> &[u8] {
        &self.data[raw.start as usize..][..usize::from(raw.len)]
    }

    fn owner_text(&self, node: u32) -> String {
        let mut owner = Vec::new();
        self.append_owner(node, &mut owner);
        name::to_text(&owner)
    }

    fn append_owner(&self, mut node: u32, owner: &mut Vec<u8>) {
        while node != APEX {
            owner.extend_from_slice(self.label(node));
            node = self.nodes[node as usize].parent;
        }
        owner.extend_from_slice(&self.apex);
    }

    /// The first label of a node, with its length byte.
    fn label(&self, node: u32) -> &[u8] {
        let at = self.nodes[node as usize].label as usize;
        &self.labels[at..=at + usize::from(self.labels[at])]
    }

    /// Records equal in name, type and data are one (RFC 2181 section 5); the first stays.
    fn drop_duplicates(&mut self, report: &mut Report) {
        let mut drop = vec![false; self.records.len()];
        let mut start = 0;
        while start < self.records.len() {
            let first = self.records[start];
            let len = self.records[start..]
                .iter()
                .take_while(|raw| (raw.node, raw.rtype) == (first.node, first.rtype))
                .count();
            if len <= FEW {
                let records = &self.records[start..start + len];
                for (at, record) in records.iter().enumerate().skip(1) {
                    let data = self.raw(record);
                    let same = |before: &Raw| same_data(first.rtype, self.raw(before), data);
                    drop[start + at] = records[..at].iter().any(same);
                }
            } else {
                // By canonical data, not by pairs: an RRset may be large.
                let mut order: Vec<(Vec<u8>, usize)> = (start..start + len)
                    .map(|at| (canonical(first.rtype, self.raw(&self.records[at])), at))
                    .collect();
                order.sort_unstable();
                for pair in order.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                    drop[pair[1].1] = true;
                }
            }
            start += len;
        }
        if !drop.contains(&true) {
            return;
        }
        for (raw, _) in self.records.iter().zip(&drop).filter(|(_, drop)| **drop) {
            let (owner, mnemonic) = (self.owner_text(raw.node), rdata::mnemonic(raw.rtype));
            report.warn(
                raw.at(),
                format!("{owner} {mnemonic}: found the same record again; it is dropped"),
            );
        }
        let mut drop = drop.into_iter();
        self.records.retain(|_| !drop.next().unwrap_or(false));
    }

    fn groups(&self, report: &mut Report) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (at, raw) in (0..).zip(&self.records) {
            match groups
                .last_mut()
                .filter(|last| (last.node, last.rtype, last.covered) == raw.key())
            {
                None => groups.push(Group {
                    node: raw.node,
                    rtype: raw.rtype,
                    covered: raw.covered,
                    start: at,
                    end: at + 1,
                    ttl: raw.ttl,
                }),
                Some(group) => {
                    if raw.ttl != group.ttl {
                        let lower = raw.ttl.min(group.ttl);
                        report.warn(
                            raw.at(),
                            format!(
                                "{} {}: found TTL {} beside {} in one RRset, expected one TTL; the lowest, {lower}, is used",
                                self.owner_text(raw.node),
                                rdata::mnemonic(raw.rtype),
                                raw.ttl,
                                group.ttl,
                            ),
                        );
                        group.ttl = lower;
                    }
                    group.end = at + 1;
                }
            }
        }
        groups
    }

    /// The rules for one name at a time, and the flags that follow from its types.
    fn check(&mut self, groups: &[Group], report: &mut Report) {
        let zone = name::to_text(&self.apex);
        for group in groups {
            let records = &self.records[group.range()];
            let mnemonic = || rdata::mnemonic(group.rtype);
            if matches!(group.rtype, SOA | CNAME | DNAME) && records.len() > 1 {
                for raw in &records[1..] {
                    let owner = self.owner_text(group.node);
                    report.error(
                        raw.at(),
                        format!("{owner}: found another {}, expected one", mnemonic()),
                    );
                }
            }
            if group.rtype == SOA && group.node != APEX {
                let owner = self.owner_text(group.node);
                report.error(
                    records[0].at(),
                    format!("found a SOA at {owner}, expected it at {zone}"),
                );
            }
            if matches!(group.rtype, NS | DNAME) && self.is_wildcard(group.node) {
                let owner = self.owner_text(group.node);
                report.error(
                    records[0].at(),
                    format!(
                        "found {} at the wildcard {owner}, expected none (RFC 4592 section 4)",
                        mnemonic()
                    ),
                );
            }
            let flags = &mut self.nodes[group.node as usize].flags;
            match group.rtype {
                NS if group.node != APEX => *flags |= CUT,
                DNAME => *flags |= DNAME_HERE,
                _ => {}
            }
        }
        for at_name in groups.chunk_by(|one, next| one.node == next.node) {
            let Some(alias) = at_name.iter().find(|group| group.rtype == CNAME) else {
                continue;
            };
            // RRSIG, NSEC and KEY may stand beside it (RFC 4034 section 2.5, RFC 2181 section 10.1).
            for other in at_name
                .iter()
                .filter(|group| !matches!(group.rtype, CNAME | KEY | RRSIG | NSEC))
            {
                let at = self.records[other.start as usize]
                    .at()
                    .max(self.records[alias.start as usize].at());
                report.error(
                    at,
                    format!(
                        "{}: found CNAME and {}, expected a CNAME alone (RFC 1034 section 3.6.2)",
                        self.owner_text(alias.node),
                        rdata::mnemonic(other.rtype),
                    ),
                );
            }
        }
        let has = |rtype| {
            groups
                .iter()
                .any(|group| group.node == APEX && group.rtype == rtype)
        };
        if !has(SOA) && !self.broken_soa {
            report.error(
                At::default(),
                format!("found no SOA at {zone}, expected one"),
            );
        }
        if !has(NS) && !self.broken_ns {
            report.error(
                At::default(),
                format!("found no NS at {zone}, expected at least one"),
            );
        }
    }

    fn is_wildcard(&self, node: u32) -> bool {
        node != APEX
            && self.labels[self.nodes[node as usize].label as usize..].starts_with(WILDCARD)
    }

    /// Configured TTLs win over the file; one for a type wins over one for the whole name.
    fn override_ttls(&self, overrides: &[TtlOverride], groups: &mut [Group], report: &mut Report) {
        let (whole, typed): (Vec<_>, Vec<_>) =
            overrides.iter().partition(|set| set.rtype.is_none());
        for set in whole.into_iter().chain(typed) {
            let shown = match &set.rtype {
                None => format!("ttls: `{}`", set.name),
                Some(rtype) => format!("ttls: `{}/{rtype}`", set.name),
            };
            let mut wire = Vec::new();
            if let Err(problem) = name::from_text(set.name.as_bytes(), &self.apex, &mut wire) {
                report.error(At::default(), format!("{shown}: {problem}"));
                continue;
            }
            let wanted = set
                .rtype
                .as_ref()
                .map(|rtype| (rtype, rdata::rtype(rtype.as_bytes())));
            if let Some((found, None)) = wanted {
                report.error(
                    At::default(),
                    format!("{shown}: found type `{found}`, expected a record type"),
                );
                continue;
            }
            if u64::from(set.ttl) > rdata::TTL_MAX {
                report.error(
                    At::default(),
                    format!("{shown}: found {} s, expected at most 2147483647", set.ttl),
                );
                continue;
            }
            let path = Path::new(&wire);
            let node = self
                .depth_below_apex(&path)
                .and_then(|below| self.lookup(&path, below));
            let mut matched = false;
            for group in groups.iter_mut().filter(|group| Some(group.node) == node) {
                // Signatures keep to what they cover (RFC 4034 section 3).
                let of = if group.rtype == RRSIG {
                    group.covered
                } else {
                    group.rtype
                };
                if wanted.is_none_or(|(_, rtype)| rtype == Some(of)) {
                    group.ttl = set.ttl;
                    matched = true;
                }
            }
            if !matched {
                report.warn(
                    At::default(),
                    format!("{shown}: found no such records in the zone; the TTL has no effect"),
                );
            }
        }
    }

    fn lookup(&self, path: &Path, below: usize) -> Option<u32> {
        (0..below).rev().try_fold(APEX, |node, index| {
            let hash = path.hash_at(index, self.hashes[node as usize]);
            self.child(node, hash, path.label(index))
        })
    }

    /// Records beneath a zone cut or a DNAME are never answered, but for the addresses of name servers.
    fn check_occluded(&self, zone: &Zone, groups: &[Group], report: &mut Report) {
        let mut glue = vec![false; zone.nodes.len()];
        for rrset in zone.all_rrsets().filter(|rrset| rrset.rtype == NS) {
            for &target in zone
                .targets_of(rrset)
                .iter()
                .filter(|target| **target != NO_NODE)
            {
                glue[target as usize] = true;
            }
        }
        let mut below = vec![false; zone.nodes.len()]; // A parent comes before its children.
        for (at, node) in zone.nodes.iter().enumerate().skip(1) {
            let parent = node.parent as usize;
            below[at] = node.flags & HASHED == 0
                && (below[parent] || zone.nodes[parent].flags & (CUT | DNAME_HERE) != 0);
        }
        for group in groups {
            let at = group.node as usize;
            let cut = zone.nodes[at].flags & CUT != 0;
            let kept = matches!(group.rtype, A | AAAA) && glue[at]
                || cut && !below[at] && matches!(group.rtype, NS | DS | RRSIG | NSEC);
            if (below[at] || cut) && !kept {
                report.warn(
                    self.records[group.start as usize].at(),
                    format!(
                        "{} {}: found a record at or beneath a delegation or DNAME; it is never answered",
                        self.owner_text(group.node),
                        rdata::mnemonic(group.rtype),
                    ),
                );
            }
        }
    }
}

/// Data as compared between records: names in lower case where the layout is known.
fn canonical(rtype: u16, raw: &[u8]) -> Vec<u8> {
    let mut data = raw.to_vec();
    match rtype {
        NS | CNAME | PTR | DNAME => data.make_ascii_lowercase(),
        MX => data[2..].make_ascii_lowercase(),
        SRV => data[6..].make_ascii_lowercase(),
        _ => {}
    }
    data
}

/// Whether two data of a type are equal in their canonical form.
fn same_data(rtype: u16, one: &[u8], other: &[u8]) -> bool {
    let names = match rtype {
        NS | CNAME | PTR | DNAME => 0,
        MX => 2,
        SRV => 6,
        _ => return one == other,
    };
    one[..names] == other[..names] && one[names..].eq_ignore_ascii_case(&other[names..])
}

const KEY: u16 = 25;

/// So many records are compared with each other; more are sorted.
const FEW: usize = 8;
