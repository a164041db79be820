//! The engine: one packet in, one answer out, for every transport.
//!
//! Fast path ([`Snapshot::fast`]): parse, access list, own zones, cache; synchronous and without
//! allocation. Slow path ([`Engine::slow`]): resolve, on a bounded task of the front. The engine owns
//! the zones in service: readers take the snapshot of one instant, a reload swaps it whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use hickory_proto::rr::Name;

use super::answer::{self, Action, View};
use super::resolver::Resolver;
use super::resolver::near::Near;
use super::wire::{self, Query, Rcode, Reject};
use super::zone::{self, Zone, Zones};
use super::{Config, Outcome, Transport, ZoneConfig};
use crate::metrics::Metrics;
use crate::time::Now;

/// What the fast path says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fast {
    /// `out[..len]` is the answer.
    Respond {
        /// Bytes of the answer.
        len: usize,
        /// How it is counted.
        outcome: Outcome,
    },
    /// To be resolved on the slow path.
    Slow,
    /// No answer.
    Drop,
}

/// Zones, resolver and limits behind one handle.
#[derive(Debug)]
pub struct Engine {
    serving: ArcSwap<Serving>,
    entries: ArcSwap<BTreeMap<String, Entry>>,
    /// Held while files are read: reloads and reconfigurations go one after the other.
    changing: Mutex<()>,
    resolver: Option<Resolver>,
    udp_payload: u16,
    metrics: Arc<Metrics>,
}

/// What is in service at one instant.
#[derive(Debug, Default)]
struct Serving {
    zones: Zones,
    /// Apexes (wire form, lower case) of zones that are configured and were never loaded. Their names are ours:
    /// SERVFAIL, not whatever an upstream says of them.
    unloaded: Vec<Box<[u8]>>,
}

/// One configured zone.
#[derive(Clone, Debug)]
struct Entry {
    config: ZoneConfig,
    zone: Option<Arc<Zone>>,
    status: ZoneStatus,
}

/// The state of one configured zone, for `status` and `zone list`.
#[derive(Clone, Debug)]
pub struct ZoneStatus {
    /// Apex, text form.
    pub name: String,
    /// Its master file.
    pub file: String,
    /// Serial in service; `None`: never loaded.
    pub serial: Option<u32>,
    /// Records in service.
    pub records: usize,
    /// When the zone in service was loaded, Unix milliseconds.
    pub loaded_unix_ms: Option<u64>,
    /// Why the last load failed (file:line: …), until one succeeds.
    pub problems: Vec<String>,
    /// Warnings of the last good load.
    pub warnings: Vec<String>,
}

impl Engine {
    /// An engine with no zones loaded yet: names of `zones` get SERVFAIL until [`Engine::reload`].
    #[must_use]
    pub fn new(
        config: &Config,
        zones: Vec<ZoneConfig>,
        resolver: Option<Resolver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let engine = Self {
            serving: ArcSwap::default(),
            entries: ArcSwap::default(),
            changing: Mutex::new(()),
            resolver,
            udp_payload: config.udp_payload,
            metrics,
        };
        engine.configure(zones);
        engine.publish();
        engine
    }

    /// Loads one zone (by apex, text form) or all, and swaps the snapshot once. A zone that does not load
    /// keeps the version in service. Reads files: call it on the blocking pool, never on a DNS thread.
    /// Returns the state after. `None`: no such zone.
    #[must_use]
    pub fn reload(&self, name: Option<&str>) -> Option<Vec<ZoneStatus>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = BTreeMap::clone(&self.entries.load());
        let names: Vec<String> = match name.map(apex) {
            Some(name) => vec![entries.contains_key(&name).then_some(name)?],
            None => entries.keys().cloned().collect(),
        };
        for name in &names {
            if let Some(entry) = entries.get_mut(name) {
                self.load(entry);
            }
        }
        let statuses = names.iter().map(|n| entries[n].status.clone()).collect();
        self.entries.store(Arc::new(entries));
        self.publish();
        Some(statuses)
    }

    /// Replaces the configured zones (after a configuration reload); call `reload` next. Until then the zones
    /// that were in service stay.
    pub fn configure(&self, zones: Vec<ZoneConfig>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.entries.load();
        let entries: BTreeMap<String, Entry> = zones
            .into_iter()
            .map(|config| {
                let name = apex(&config.name);
                let entry = match old.get(&name) {
                    Some(known) => Entry {
                        config,
                        ..known.clone()
                    },
                    None => Entry::new(name.clone(), config),
                };
                (name, entry)
            })
            .collect();
        for name in old.keys().filter(|n| !entries.contains_key(*n)) {
            self.metrics.dns.zone_gone(name);
        }
        self.entries.store(Arc::new(entries));
    }

    /// The configured zones and their state, in the order of their names.
    #[must_use]
    pub fn zones(&self) -> Vec<ZoneStatus> {
        self.entries
            .load()
            .values()
            .map(|e| e.status.clone())
            .collect()
    }

    /// One zone as master-file text; `None`: no such zone, or it was never loaded.
    #[must_use]
    pub fn zone_text(&self, name: &str) -> Option<String> {
        let entries = self.entries.load();
        Some(entries.get(&apex(name))?.zone.as_ref()?.to_text())
    }

    /// The resolver, unless off.
    #[must_use]
    pub fn resolver(&self) -> Option<&Resolver> {
        self.resolver.as_ref()
    }

    /// The zones of this instant. Take one per batch: all its answers are of one version.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            engine: self,
            serving: self.serving.load(),
            near: None,
        }
    }

    /// A table of copies of cached answers for one of `workers` threads; `None` without a resolver.
    #[must_use]
    pub fn near(&self, workers: usize) -> Option<Near> {
        Some(self.resolver.as_ref()?.cache().near(workers))
    }

    /// Resolves a packet the fast path declined; the whole answer is in `out`, empty if there is none.
    pub async fn slow(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(Reject::Drop) => return Outcome::Dropped,
            Err(Reject::Error(rcode)) => return refuse(packet, rcode, out),
        };
        match &self.resolver {
            Some(resolver) if resolver.allows(client) => {
                // The one budget of this client query: whatever it sets off spends from it.
                let budget = resolver.budget();
                let limit = self.limit(&query, transport);
                resolver.resolve(&query, limit, &budget, out).await
            }
            _ => refuse(packet, Rcode::Refused, out),
        }
    }

    /// Bytes an answer may have.
    fn limit(&self, query: &Query<'_>, transport: Transport) -> usize {
        match transport {
            Transport::Tcp => MESSAGE_MAX,
            Transport::Udp => wire::udp_limit(query, self.udp_payload),
        }
    }

    /// Reads the zone's file into `entry`. Says so once: on failure in the log, too.
    fn load(&self, entry: &mut Entry) {
        let status = &mut entry.status;
        status.file = entry.config.file.display().to_string();
        match zone::load(&entry.config) {
            Ok(loaded) => {
                status.serial = Some(loaded.zone.serial());
                status.records = loaded.zone.records();
                status.loaded_unix_ms = Some(Now::read().unix_ms);
                status.problems.clear();
                status.warnings = loaded.warnings.iter().map(ToString::to_string).collect();
                self.metrics.dns.zone_in_service(
                    &status.name,
                    loaded.zone.serial(),
                    status.records,
                );
                tracing::info!(
                    zone = %status.name, serial = loaded.zone.serial(), records = status.records,
                    warnings = status.warnings.len(), "zone loaded"
                );
                entry.zone = Some(loaded.zone);
            }
            Err(problems) => {
                status.problems = problems.iter().map(ToString::to_string).collect();
                self.metrics.dns.zone_failed(&status.name);
                tracing::error!(
                    zone = %status.name, problems = status.problems.len(),
                    first = status.problems.first().map_or("", String::as_str),
                    serial_in_service = status.serial, "zone not loaded"
                );
            }
        }
    }

    /// Puts the zones of `entries` in service, in one step.
    fn publish(&self) {
        let entries = self.entries.load();
        let zones = entries.values().filter_map(|e| e.zone.clone()).collect();
        let unloaded = entries
            .values()
            .filter(|e| e.zone.is_none())
            .filter_map(|e| Some(wire_name(&Name::from_str(&e.status.name).ok()?)))
            .collect();
        self.serving.store(Arc::new(Serving {
            zones: Zones::new(zones),
            unloaded,
        }));
    }
}

/// The engine with the zones of one instant.
#[derive(Debug)]
pub struct Snapshot<'e> {
    engine: &'e Engine,
    serving: Guard<Arc<Serving>>,
    near: Option<&'e mut Near>,
}

impl<'e> Snapshot<'e> {
    /// This snapshot with the copies of cached answers that the thread has of its own ([`Engine::near`]).
    #[must_use]
    pub fn with(self, near: Option<&'e mut Near>) -> Self {
        Self { near, ..self }
    }

    /// Answers a packet from own zones or the cache, if that is possible at once. `out` must hold the
    /// largest answer of the transport (`udp_payload`, 65,535 bytes); `seed` rotates addresses.
    #[must_use]
    pub fn fast(
        &mut self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now,
        seed: u64,
        out: &mut [u8],
    ) -> Fast {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(Reject::Drop) => return Fast::Drop,
            Err(Reject::Error(rcode)) => return error(packet, rcode, out),
        };
        let unloaded = self.in_unloaded_zone(query.name);
        let cache = match &self.engine.resolver {
            Some(resolver) if !unloaded && resolver.allows(client) => {
                Some((resolver.cache(), resolver.partition(query.name)))
            }
            _ => None,
        };
        let view = View {
            zones: &self.serving.zones,
            cache,
        };
        let limit = self.engine.limit(&query, transport).min(out.len());
        let near = self.near.as_deref_mut();
        match answer::answer_near(&query, view, near, now, seed, limit, out) {
            Action::Respond {
                outcome: Outcome::Refused,
                ..
            } if unloaded => error(packet, Rcode::ServFail, out),
            Action::Respond {
                outcome: Outcome::Dropped,
                ..
            } => Fast::Drop,
            Action::Respond { len, outcome } => Fast::Respond { len, outcome },
            Action::Recurse => Fast::Slow,
        }
    }

    fn in_unloaded_zone(&self, name: &[u8]) -> bool {
        self.serving.unloaded.iter().any(|apex| {
            let mut rest = name;
            // Label by label, so that the octets of a label are never taken for a shorter name.
            loop {
                if rest.eq_ignore_ascii_case(apex) {
                    return true;
                }
                match rest.split_first() {
                    Some((&len, tail)) if len > 0 && tail.len() > usize::from(len) => {
                        rest = &tail[usize::from(len)..];
                    }
                    _ => return false,
                }
            }
        })
    }
}

impl Entry {
    fn new(name: String, config: ZoneConfig) -> Self {
        Self {
            status: ZoneStatus {
                name,
                file: config.file.display().to_string(),
                serial: None,
                records: 0,
                loaded_unix_ms: None,
                problems: Vec::new(),
                warnings: Vec::new(),
            },
            config,
            zone: None,
        }
    }
}

/// An answer that is only a code, written to `out`; none to a packet without a header.
pub(super) fn error(packet: &[u8], rcode: Rcode, out: &mut [u8]) -> Fast {
    match wire::error(packet, rcode, out) {
        0 => Fast::Drop,
        len => Fast::Respond {
            len,
            outcome: outcome_of(rcode),
        },
    }
}

/// As [`error`], in a vector of its own.
fn refuse(packet: &[u8], rcode: Rcode, out: &mut Vec<u8>) -> Outcome {
    out.resize(wire::CODE_LEN_MAX, 0);
    match error(packet, rcode, out) {
        Fast::Respond { len, outcome } => {
            out.truncate(len);
            outcome
        }
        _ => {
            out.clear();
            Outcome::Dropped
        }
    }
}

/// How an answer that is only a code is counted; those with other codes are never only a code.
fn outcome_of(rcode: Rcode) -> Outcome {
    match rcode {
        Rcode::FormErr => Outcome::Formerr,
        Rcode::NotImp => Outcome::Notimp,
        Rcode::Refused => Outcome::Refused,
        Rcode::BadVers => Outcome::Badvers,
        Rcode::ServFail | Rcode::NoError | Rcode::NxDomain | Rcode::YxDomain => Outcome::Servfail,
    }
}

/// The key of a zone: lower case, with a final dot.
fn apex(name: &str) -> String {
    let mut name = name.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    name
}

/// A name in wire form, lower case.
fn wire_name(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.to_lowercase().iter() {
        // A label has at most 63 octets.
        wire.push(u8::try_from(label.len()).unwrap_or(63));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire.into()
}

/// The largest message: its length has 16 bits.
pub(super) const MESSAGE_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// An engine for `zones` (none loaded) and the folder of their files: `a.test.` and `b.test.` are good.
    fn engine(zones: &[&str]) -> (Engine, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.test.", "b.test."] {
            let text = "@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n";
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        let config = crate::dns::front::tests::config();
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::new(&config, configs(&folder, zones), None, metrics);
        (engine, folder)
    }

    fn configs(folder: &tempfile::TempDir, zones: &[&str]) -> Vec<ZoneConfig> {
        let config = |name: &&str| ZoneConfig {
            name: (*name).to_owned(),
            file: folder.path().join(name),
            ttl: 300,
            ttls: vec![],
        };
        zones.iter().map(config).collect()
    }

    /// Asks for the address of `name`.
    #[track_caller]
    fn check(engine: &Engine, name: &str, expected: Outcome) {
        let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend_from_slice(&wire_name(&Name::from_str(name).expect("a name")));
        packet.extend_from_slice(&[0, 1, 0, 1]);
        let mut out = [0; 1232];
        let now = Now {
            mono_ns: 1,
            unix_ms: 1,
        };
        let mut snapshot = engine.snapshot();
        let fast = snapshot.fast(&packet, CLIENT, Transport::Udp, now, 0, &mut out);
        match fast {
            Fast::Respond { outcome, .. } => assert_eq!(outcome, expected, "{name}"),
            other => panic!("{name}: {other:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn zone_not_loaded_is_servfail_beneath_its_apex_only() {
        let (engine, _folder) = engine(&["a.test.", "missing.test."]);
        check(&engine, "ns.a.test.", Outcome::Servfail);
        let states = engine.reload(None).expect("all zones");
        assert_eq!(states[0].problems, [""; 0]);
        assert!(!states[1].problems.is_empty());
        check(&engine, "ns.a.test.", Outcome::Authoritative);
        check(&engine, "missing.test.", Outcome::Servfail);
        check(&engine, "x.y.missing.test.", Outcome::Servfail);
        check(&engine, "notmissing.test.", Outcome::Refused);
        check(&engine, "test.", Outcome::Refused);
    }

    #[test]
    fn configure_takes_effect_with_the_next_reload() {
        let (engine, folder) = engine(&["a.test."]);
        let _ = engine.reload(None);
        engine.configure(configs(&folder, &["B.test"]));
        check(&engine, "ns.a.test.", Outcome::Authoritative);
        check(&engine, "ns.b.test.", Outcome::Refused);
        let _ = std::fs::rename(folder.path().join("b.test."), folder.path().join("B.test"));
        let states = engine.reload(Some("b.test.")).expect("the zone");
        assert_eq!(states[0].name, "b.test.");
        check(&engine, "ns.a.test.", Outcome::Refused);
        check(&engine, "ns.b.test.", Outcome::Authoritative);
        assert!(engine.reload(Some("a.test.")).is_none());
        assert!(engine.zone_text("b.test").is_some());
    }
}
