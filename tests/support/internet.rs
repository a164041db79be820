//! A made-up Internet: name servers with zones given as text, signed or not, and with what a test wants them to do wrong.
//!
//! Everything is in memory and follows from its arguments; a test gives the servers sockets, or asks them directly. It shares no
//! code with the server and the validator it tests: names, messages, signatures and proofs are made here.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(unreachable_pub, reason = "it is a file of several crates")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ring::digest;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

// Names.

/// A name as text in wire form, lower case.
pub fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("a label is short"));
        wire.extend(label.to_ascii_lowercase().bytes());
    }
    wire.push(0);
    wire
}

/// The labels of a name, the last first: they sort in canonical order.
fn path(name: &[u8]) -> Vec<Vec<u8>> {
    let mut labels = Vec::new();
    let mut rest = name;
    while rest[0] != 0 {
        let (label, tail) = rest[1..].split_at(usize::from(rest[0]));
        labels.push(label.to_ascii_lowercase());
        rest = tail;
    }
    labels.reverse();
    labels
}

fn unpath(path: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in path.iter().rev() {
        wire.push(u8::try_from(label.len()).expect("a label is short"));
        wire.extend(label);
    }
    wire.push(0);
    wire
}

/// A name in wire form as text.
pub fn text(name: &[u8]) -> String {
    let labels = path(name);
    let mut text: String = labels
        .iter()
        .rev()
        .map(|label| format!("{}.", String::from_utf8_lossy(label)))
        .collect();
    if text.is_empty() {
        text.push('.');
    }
    text
}

// Messages.

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rec {
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
}

/// A record as text: `owner ttl type rdata`, all names absolute.
pub fn rec(line: &str) -> Rec {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [owner, ttl, rtype, rest @ ..] = &words[..] else {
        panic!("{line}: owner ttl type rdata expected");
    };
    let (rtype, rdata) = rdata(rtype, rest);
    Rec {
        owner: name(owner),
        rtype,
        ttl: ttl
            .parse()
            .unwrap_or_else(|_| panic!("{line}: a TTL expected")),
        rdata,
    }
}

fn rdata(rtype: &str, words: &[&str]) -> (u16, Vec<u8>) {
    let number = |at: usize| words[at].parse::<u32>().expect("a number");
    match rtype {
        "A" => (
            A,
            words[0]
                .parse::<Ipv4Addr>()
                .expect("an address")
                .octets()
                .into(),
        ),
        "AAAA" => (
            28,
            words[0]
                .parse::<Ipv6Addr>()
                .expect("an address")
                .octets()
                .into(),
        ),
        "NS" => (NS, name(words[0])),
        "CNAME" => (CNAME, name(words[0])),
        "PTR" => (12, name(words[0])),
        "DNAME" => (DNAME, name(words[0])),
        "MX" => {
            let preference = u16::try_from(number(0)).expect("16 bits");
            (
                15,
                [&preference.to_be_bytes()[..], &name(words[1])].concat(),
            )
        }
        "TXT" => {
            let text = words.join(" ");
            let length = u8::try_from(text.len()).expect("a short text");
            (16, [&[length], text.as_bytes()].concat())
        }
        "SOA" => {
            let mut rdata = [name(words[0]), name(words[1])].concat();
            for at in 2..7 {
                rdata.extend(number(at).to_be_bytes());
            }
            (SOA, rdata)
        }
        other => panic!("{other} is not among the types of this Internet"),
    }
}

/// The question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: [u8; 2],
    /// As sent, case included.
    pub spelled: Vec<u8>,
    /// Lower case.
    pub name: Vec<u8>,
    pub qtype: u16,
    pub dnssec_ok: bool,
    pub recursion_desired: bool,
}

impl Asked {
    pub fn read(packet: &[u8]) -> Option<Self> {
        let mut at = 12;
        while *packet.get(at)? != 0 {
            at += 1 + usize::from(packet[at]);
        }
        let spelled = packet.get(12..=at)?.to_vec();
        let qtype = u16::from_be_bytes(packet.get(at + 1..at + 3)?.try_into().ok()?);
        // OPT, if there is one, comes right behind the question.
        let opt = packet.get(at + 5..at + 16);
        Some(Self {
            id: packet[..2].try_into().ok()?,
            name: spelled.to_ascii_lowercase(),
            spelled,
            qtype,
            dnssec_ok: opt.is_some_and(|opt| opt[2] == 41 && opt[7] & 0x80 != 0),
            recursion_desired: packet[2] & 1 != 0,
        })
    }
}

/// A reply.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub rcode: u8,
    pub authoritative: bool,
    pub recursive: bool,
    pub answer: Vec<Rec>,
    pub authority: Vec<Rec>,
    pub additional: Vec<Rec>,
}

impl Reply {
    pub fn encode(&self, asked: &Asked) -> Vec<u8> {
        let mut out = asked.id.to_vec();
        out.push(0x80 | u8::from(self.authoritative) << 2);
        out.push(u8::from(self.recursive) << 7 | self.rcode);
        out.extend(1_u16.to_be_bytes());
        let sections = [&self.answer, &self.authority, &self.additional];
        for (place, section) in sections.iter().enumerate() {
            let count = section.len() + usize::from(place == 2);
            out.extend(u16::try_from(count).expect("few records").to_be_bytes());
        }
        out.extend(&asked.spelled);
        out.extend(asked.qtype.to_be_bytes());
        out.extend([0, 1]);
        for record in sections.into_iter().flatten() {
            out.extend(&record.owner);
            out.extend(record.rtype.to_be_bytes());
            out.extend([0, 1]);
            out.extend(record.ttl.to_be_bytes());
            let length = u16::try_from(record.rdata.len()).expect("short RDATA");
            out.extend(length.to_be_bytes());
            out.extend(&record.rdata);
        }
        out.extend([
            0,
            0,
            41,
            0x04,
            0xD0,
            0,
            0,
            u8::from(asked.dnssec_ok) << 7,
            0,
            0,
            0,
        ]);
        out
    }
}

// Zones.

type Sets = BTreeMap<u16, Vec<Rec>>;

/// A zone.
#[derive(Clone)]
pub struct Zone {
    pub apex: Vec<u8>,
    nodes: BTreeMap<Vec<Vec<u8>>, Sets>,
    signed: Option<Signing>,
    /// NSEC3 records by hash.
    hashes: BTreeMap<Vec<u8>, Rec>,
}

/// How a zone is signed.
#[derive(Clone)]
pub struct Signing {
    /// The key is made from it.
    pub seed: u8,
    /// The key says of itself that it is not to be believed (RFC 5011).
    pub revoked: bool,
    pub inception: u32,
    pub expiration: u32,
    pub denial: Denial,
}

/// How a zone proves what is not there.
#[derive(Clone, PartialEq, Eq)]
pub enum Denial {
    Nsec,
    Nsec3 { iterations: u16, opt_out: bool },
}

impl Signing {
    /// By NSEC, valid for a day around `unix`.
    pub fn at(seed: u8, unix: u64) -> Self {
        let unix = u32::try_from(unix).expect("before 2106");
        Self {
            seed,
            revoked: false,
            inception: unix - 86_400,
            expiration: unix + 86_400,
            denial: Denial::Nsec,
        }
    }

    pub fn nsec3(self, iterations: u16, opt_out: bool) -> Self {
        Self {
            denial: Denial::Nsec3 {
                iterations,
                opt_out,
            },
            ..self
        }
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[self.seed; 32]).expect("32 octets are a seed")
    }

    /// The DNSKEY: one key for everything.
    pub fn dnskey(&self) -> Vec<u8> {
        let flags = 1 | u8::from(self.revoked) << 7;
        [&[1, flags, 3, 15], self.pair().public_key().as_ref()].concat()
    }

    /// The DS of the zone `apex` signed so.
    pub fn ds(&self, apex: &[u8]) -> Vec<u8> {
        let key = self.dnskey();
        let digest = digest::digest(&digest::SHA256, &[apex, &key].concat());
        let [t1, t2] = tag(&key).to_be_bytes();
        [&[t1, t2, 15, 2], digest.as_ref()].concat()
    }

    /// The RRSIG over `set`, made by the zone `apex`; `owner` differs from the set's where a wildcard was signed.
    pub fn sign(&self, apex: &[u8], set: &[Rec]) -> Rec {
        let owner = &set[0].owner;
        let labels = path(owner).len() - usize::from(owner.starts_with(b"\x01*"));
        let mut head = set[0].rtype.to_be_bytes().to_vec();
        head.extend([15, u8::try_from(labels).expect("few labels")]);
        head.extend(set[0].ttl.to_be_bytes());
        head.extend(self.expiration.to_be_bytes());
        head.extend(self.inception.to_be_bytes());
        head.extend(tag(&self.dnskey()).to_be_bytes());
        head.extend(apex);
        let mut data: Vec<&[u8]> = set.iter().map(|record| &record.rdata[..]).collect();
        data.sort_unstable();
        let mut signed = head.clone();
        for rdata in data {
            signed.extend(owner);
            signed.extend(set[0].rtype.to_be_bytes());
            signed.extend([0, 1]);
            signed.extend(set[0].ttl.to_be_bytes());
            signed.extend(u16::try_from(rdata.len()).expect("short").to_be_bytes());
            signed.extend(rdata);
        }
        head.extend(self.pair().sign(&signed).as_ref());
        Rec {
            owner: owner.clone(),
            rtype: RRSIG,
            ttl: set[0].ttl,
            rdata: head,
        }
    }
}

/// The key tag of a DNSKEY (RFC 4034 appendix B).
pub fn tag(dnskey: &[u8]) -> u16 {
    let sum: u32 = dnskey
        .iter()
        .enumerate()
        .map(|(at, &octet)| u32::from(octet) << if at % 2 == 0 { 8 } else { 0 })
        .sum();
    (sum + (sum >> 16)) as u16
}

impl Zone {
    /// A zone from lines `owner ttl type rdata`; names without a final dot are relative to `apex`, `@` is it. A SOA and NS are
    /// added unless given.
    pub fn new(apex: &str, lines: &[&str]) -> Self {
        let suffix = apex.trim_end_matches('.');
        let absolute = |word: &str| match word {
            "@" => format!("{suffix}."),
            word if word.ends_with('.') || suffix.is_empty() => {
                format!("{}.", word.trim_end_matches('.'))
            }
            word => format!("{word}.{suffix}."),
        };
        let mut zone = Self {
            apex: name(apex),
            nodes: BTreeMap::new(),
            signed: None,
            hashes: BTreeMap::new(),
        };
        for line in lines {
            let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            words[0] = absolute(&words[0]);
            let place = match &*words[2] {
                "NS" | "CNAME" | "DNAME" | "PTR" => Some(3),
                "MX" => Some(4),
                _ => None,
            };
            if let Some(place) = place {
                words[place] = absolute(&words[place]);
            }
            zone.add(rec(&words.join(" ")));
        }
        let apex = text(&zone.apex);
        if zone.set(&zone.apex, SOA).is_empty() {
            zone.add(rec(&format!(
                "{apex} 3600 SOA ns.{apex} host.{apex} 1 2 3 4 300"
            )
            .replace("..", ".")));
        }
        zone
    }

    pub fn add(&mut self, record: Rec) {
        let node = self.nodes.entry(path(&record.owner)).or_default();
        node.entry(record.rtype).or_default().push(record);
    }

    /// Adds the DS of `child`, if that is signed.
    pub fn delegate_securely(&mut self, child: &Zone) {
        if let Some(signing) = &child.signed {
            self.add(Rec {
                owner: child.apex.clone(),
                rtype: DS,
                ttl: 3_600,
                rdata: signing.ds(&child.apex),
            });
        }
    }

    /// Signs everything that is there now.
    pub fn sign(mut self, signing: Signing) -> Self {
        let ttl = 3_600;
        self.add(Rec {
            owner: self.apex.clone(),
            rtype: DNSKEY,
            ttl,
            rdata: signing.dnskey(),
        });
        self.resign(signing)
    }

    /// Signs everything but for the DNSKEY record, which is there.
    pub fn resign(mut self, signing: Signing) -> Self {
        let own: Vec<Vec<Vec<u8>>> = self
            .nodes
            .keys()
            .filter(|path| !self.is_occluded(path))
            .cloned()
            .collect();
        match signing.denial {
            Denial::Nsec => self.chain_nsec(&own),
            Denial::Nsec3 {
                iterations,
                opt_out,
            } => self.chain_nsec3(&own, &signing, iterations, opt_out),
        }
        for path in &own {
            let cut = self.is_cut(path);
            let node = self.nodes.get_mut(path).expect("it was listed");
            let signatures: Vec<Rec> = node
                .values()
                .filter(|set| !(cut && matches!(set[0].rtype, NS | A | 28)))
                .map(|set| signing.sign(&self.apex, set))
                .collect();
            node.insert(RRSIG, signatures);
        }
        self.signed = Some(signing);
        self
    }

    fn chain_nsec(&mut self, own: &[Vec<Vec<u8>>]) {
        for (at, path) in own.iter().enumerate() {
            let next = unpath(&own[(at + 1) % own.len()]);
            let mut types: Vec<u16> = self.types(path);
            types.extend([RRSIG, NSEC]);
            let rdata = [next, bitmap(&mut types)].concat();
            self.add(Rec {
                owner: unpath(path),
                rtype: NSEC,
                ttl: 300,
                rdata,
            });
        }
    }

    fn chain_nsec3(
        &mut self,
        own: &[Vec<Vec<u8>>],
        signing: &Signing,
        iterations: u16,
        opt_out: bool,
    ) {
        let mut hashed: BTreeMap<Vec<u8>, Vec<u16>> = BTreeMap::new();
        for path in own {
            let mut types = self.types(path);
            let insecure = self.is_cut(path) && !types.contains(&DS);
            if opt_out && insecure {
                continue;
            }
            if !insecure {
                types.push(RRSIG);
            }
            for length in path_of(&self.apex).len()..=path.len() {
                let name = unpath(&path[..length]);
                let known = hashed.entry(nsec3_hash(&name, iterations)).or_default();
                if length == path.len() {
                    known.extend(&types);
                }
            }
        }
        let flags = u8::from(opt_out);
        let [i1, i2] = iterations.to_be_bytes();
        let hashes: Vec<Vec<u8>> = hashed.keys().cloned().collect();
        for (at, (hash, types)) in hashed.iter_mut().enumerate() {
            let next = &hashes[(at + 1) % hashes.len()];
            let mut rdata = vec![1, flags, i1, i2, 2, 0xAB, 0xCD, 20];
            rdata.extend(next);
            rdata.extend(bitmap(types));
            let owner = [&[32][..], &base32(hash), &self.apex].concat();
            let record = Rec {
                owner,
                rtype: NSEC3,
                ttl: 300,
                rdata,
            };
            self.hashes.insert(hash.clone(), record);
        }
        let _ = signing;
    }

    fn types(&self, path: &[Vec<u8>]) -> Vec<u16> {
        let types = self.nodes[path].keys().copied();
        if self.is_cut(path) {
            types.filter(|rtype| matches!(*rtype, NS | DS)).collect()
        } else {
            types.collect()
        }
    }

    fn is_cut(&self, path: &[Vec<u8>]) -> bool {
        path.len() > path_of(&self.apex).len()
            && self
                .nodes
                .get(path)
                .is_some_and(|node| node.contains_key(&NS))
    }

    /// Beneath a cut: glue.
    fn is_occluded(&self, path: &[Vec<u8>]) -> bool {
        (path_of(&self.apex).len() + 1..path.len()).any(|length| self.is_cut(&path[..length]))
    }

    fn set(&self, name: &[u8], rtype: u16) -> Vec<Rec> {
        self.nodes
            .get(&path(name))
            .and_then(|node| node.get(&rtype))
            .cloned()
            .unwrap_or_default()
    }

    /// A set with its signature, if the zone is signed and `dnssec_ok`.
    fn signed_set(&self, name: &[u8], rtype: u16, dnssec_ok: bool) -> Vec<Rec> {
        let mut set = self.set(name, rtype);
        if dnssec_ok && !set.is_empty() {
            set.extend(self.signature(name, rtype));
        }
        set
    }

    fn signature(&self, name: &[u8], rtype: u16) -> Option<Rec> {
        self.set(name, RRSIG)
            .into_iter()
            .find(|signature| signature.rdata[..2] == rtype.to_be_bytes())
    }

    fn exists(&self, path: &[Vec<u8>]) -> bool {
        self.nodes
            .range(path.to_vec()..)
            .next()
            .is_some_and(|(found, _)| found.starts_with(path))
    }

    /// Answers as RFC 1034 section 4.3.2 and RFC 4035 section 3.1 say.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let mut reply = Reply {
            authoritative: true,
            ..Reply::default()
        };
        let mut at = asked.name.clone();
        for _ in 0..20 {
            match self.step(&at, asked, &mut reply) {
                Some(next) if path(&next).starts_with(&path_of(&self.apex)) => at = next,
                _ => break,
            }
        }
        reply
    }

    /// Answers for one name; returns where its alias leads.
    fn step(&self, name: &[u8], asked: &Asked, reply: &mut Reply) -> Option<Vec<u8>> {
        let whole = path(name);
        let apex = path_of(&self.apex).len();
        let dnssec_ok = asked.dnssec_ok && self.signed.is_some();
        for length in apex + 1..=whole.len() {
            let cut = &whole[..length];
            let for_parent = length == whole.len() && asked.qtype == DS;
            if self.is_cut(cut) && !for_parent {
                self.refer(&unpath(cut), dnssec_ok, reply);
                return None;
            }
        }
        for length in apex..whole.len() {
            let above = unpath(&whole[..length]);
            let dname = self.signed_set(&above, DNAME, dnssec_ok);
            if let Some(first) = dname.first() {
                let target = [&name[..name.len() - above.len()], &first.rdata].concat();
                let ttl = first.ttl;
                reply.answer.extend(dname);
                reply.answer.push(Rec {
                    owner: name.to_vec(),
                    rtype: CNAME,
                    ttl,
                    rdata: target.clone(),
                });
                return Some(target);
            }
        }
        let mut source = name.to_vec();
        let mut expanded = None;
        if !self.exists(&whole) {
            let encloser = (apex..whole.len())
                .rev()
                .find(|&length| self.exists(&whole[..length]))
                .unwrap_or(apex);
            let wildcard = [b"\x01*", &unpath(&whole[..encloser])[..]].concat();
            if !self.exists(&path(&wildcard)) {
                reply.rcode = 3;
                self.deny(
                    dnssec_ok,
                    reply,
                    &[
                        Why::Gone(&whole, encloser),
                        Why::Gone(&path(&wildcard), encloser),
                    ],
                );
                return None;
            }
            expanded = Some(encloser);
            source = wildcard;
        }
        let prove = |reply: &mut Reply| {
            if let Some(encloser) = expanded.filter(|_| dnssec_ok) {
                let proof = self.proof(&Why::Expanded(&whole, encloser));
                reply.authority.extend(proof);
            }
        };
        let spell = |mut records: Vec<Rec>| {
            for record in &mut records {
                record.owner = name.to_vec();
            }
            records
        };
        let set = self.signed_set(&source, asked.qtype, dnssec_ok);
        if !set.is_empty() {
            if asked.qtype == NS {
                for server in self.set(&source, NS) {
                    reply.additional.extend(self.set(&server.rdata, A));
                }
            }
            reply.answer.extend(spell(set));
            prove(reply);
            return None;
        }
        let alias = self.signed_set(&source, CNAME, dnssec_ok);
        if let Some(first) = alias.first() {
            let target = first.rdata.clone();
            reply.answer.extend(spell(alias));
            prove(reply);
            return Some(target);
        }
        let source = path(&source);
        match expanded {
            Some(encloser) => {
                let why = [Why::Gone(&whole, encloser), Why::Empty(&source)];
                self.deny(dnssec_ok, reply, &why);
            }
            None => self.deny(dnssec_ok, reply, &[Why::Empty(&source)]),
        }
        None
    }

    fn refer(&self, cut: &[u8], dnssec_ok: bool, reply: &mut Reply) {
        let ns = self.set(cut, NS);
        reply.authoritative = !reply.answer.is_empty();
        for server in &ns {
            for rtype in [A, 28] {
                reply.additional.extend(self.set(&server.rdata, rtype));
            }
        }
        reply.authority.extend(ns);
        let ds = self.signed_set(cut, DS, dnssec_ok);
        if ds.is_empty() && dnssec_ok {
            reply.authority.extend(self.proof(&Why::Empty(&path(cut))));
        }
        reply.authority.extend(ds);
    }

    fn deny(&self, dnssec_ok: bool, reply: &mut Reply, why: &[Why<'_>]) {
        reply
            .authority
            .extend(self.signed_set(&self.apex, SOA, dnssec_ok));
        if dnssec_ok {
            for why in why {
                for record in self.proof(why) {
                    if !reply.authority.contains(&record) {
                        reply.authority.push(record);
                    }
                }
            }
        }
    }

    /// The records that prove it, with their signatures.
    fn proof(&self, why: &Why<'_>) -> Vec<Rec> {
        let Some(signing) = &self.signed else {
            return Vec::new();
        };
        let Denial::Nsec3 { iterations, .. } = signing.denial else {
            let path = match why {
                Why::Gone(path, _) | Why::Expanded(path, _) | Why::Empty(path) => path.to_vec(),
            };
            return self.nsec_at_or_before(&path);
        };
        let mut records = Vec::new();
        let mut with = |record: &Rec| {
            let signature = signing.sign(&self.apex, std::slice::from_ref(record));
            records.extend([record.clone(), signature]);
        };
        let hash = |path: &[Vec<u8>]| nsec3_hash(&unpath(path), iterations);
        let cover = |path: &[Vec<u8>]| {
            let hash = hash(path);
            let before = self.hashes.range(..hash).next_back();
            before
                .or_else(|| self.hashes.iter().next_back())
                .map(|(_, record)| record)
        };
        match why {
            Why::Empty(path) => match self.hashes.get(&hash(path)) {
                Some(record) => with(record),
                // Opted out: the closest provable encloser, and that the next name is covered.
                None => {
                    let apex = path_of(&self.apex).len();
                    let encloser = (apex..path.len())
                        .rev()
                        .find(|&length| self.hashes.contains_key(&hash(&path[..length])))
                        .unwrap_or(apex);
                    self.hashes.get(&hash(&path[..encloser])).map(&mut with);
                    cover(&path[..encloser + 1]).map(&mut with);
                }
            },
            Why::Gone(path, encloser) => {
                if let Some(record) = self.hashes.get(&hash(&path[..*encloser])) {
                    with(record);
                }
                cover(&path[..encloser + 1]).map(&mut with);
            }
            Why::Expanded(path, encloser) => {
                cover(&path[..encloser + 1]).map(&mut with);
            }
        }
        records
    }

    fn nsec_at_or_before(&self, path: &[Vec<u8>]) -> Vec<Rec> {
        let found = self
            .nodes
            .range(..=path.to_vec())
            .rev()
            .find(|(_, node)| node.contains_key(&NSEC));
        found.map_or_else(Vec::new, |(path, _)| {
            self.signed_set(&unpath(path), NSEC, true)
        })
    }
}

/// What is to be proven.
enum Why<'a> {
    /// The name is not there; the closest encloser has so many labels.
    Gone(&'a [Vec<u8>], usize),
    /// The name is not there, but was made from a wildcard.
    Expanded(&'a [Vec<u8>], usize),
    /// The name is there, the type is not.
    Empty(&'a [Vec<u8>]),
}

fn path_of(apex: &[u8]) -> Vec<Vec<u8>> {
    path(apex)
}

/// The hash of RFC 5155 section 5, salted with AB CD.
pub fn nsec3_hash(name: &[u8], iterations: u16) -> Vec<u8> {
    let sha1 = |bytes: &[u8]| {
        let salted = [bytes, &[0xAB, 0xCD]].concat();
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &salted)
            .as_ref()
            .to_vec()
    };
    (0..iterations).fold(sha1(name), |hash, _| sha1(&hash))
}

fn base32(bytes: &[u8]) -> Vec<u8> {
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    (0..bytes.len() * 8 / 5)
        .map(|at| (0..5).fold(0, |value, n| value << 1 | bit(at * 5 + n)))
        .map(|value| b"0123456789abcdefghijklmnopqrstuv"[usize::from(value)])
        .collect()
}

/// The type bitmap of RFC 4034 section 4.1.2; only types below 256.
fn bitmap(types: &mut [u16]) -> Vec<u8> {
    let mut bits = [0_u8; 32];
    for rtype in types.iter() {
        bits[usize::from(rtype / 8)] |= 0x80 >> (rtype % 8);
    }
    let length = bits
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |at| at + 1);
    if length == 0 {
        return Vec::new();
    }
    [
        &[0, u8::try_from(length).expect("at most 32")],
        &bits[..length],
    ]
    .concat()
}

// Servers.

type Hook = Box<dyn Fn(&Asked, &mut Option<Reply>) + Send + Sync>;

/// A name server.
#[derive(Default)]
pub struct Server {
    zones: Vec<Zone>,
    hook: Option<Hook>,
}

impl Server {
    pub fn new(zones: Vec<Zone>) -> Self {
        Self { zones, hook: None }
    }

    /// Lets the test change or take away what the server is about to reply.
    pub fn hook(
        mut self,
        hook: impl Fn(&Asked, &mut Option<Reply>) + Send + Sync + 'static,
    ) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// A server that never replies.
    pub fn dead() -> Self {
        Self::default().hook(|_, reply| *reply = None)
    }

    /// The reply to a query; `None`: silence.
    pub fn reply(&self, asked: &Asked) -> Option<Vec<u8>> {
        let whole = path(&asked.name);
        let zone = self
            .zones
            .iter()
            .filter(|zone| whole.starts_with(&path(&zone.apex)))
            // The DS lies in the parent.
            .filter(|zone| {
                !(asked.qtype == DS
                    && zone.apex == asked.name
                    && self.zones.iter().any(|other| {
                        other.apex != zone.apex && whole.starts_with(&path(&other.apex))
                    }))
            })
            .max_by_key(|zone| zone.apex.len());
        let mut reply = Some(zone.map_or_else(
            || Reply {
                rcode: 5,
                ..Reply::default()
            },
            |zone| zone.answer(asked),
        ));
        if let Some(hook) = &self.hook {
            hook(asked, &mut reply);
        }
        reply.map(|reply| reply.encode(asked))
    }
}

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const DNAME: u16 = 39;
pub const DS: u16 = 43;
pub const RRSIG: u16 = 46;
pub const NSEC: u16 = 47;
pub const DNSKEY: u16 = 48;
pub const NSEC3: u16 = 50;
