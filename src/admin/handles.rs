//! The verbs of the control socket, over handles of the topics. Reads are snapshots, writes are named.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::api;
use crate::content;
use crate::content::bucket::BucketStatus;
use crate::content::library::Library;
use crate::content::object::Role;
use crate::content::store::Store;
use crate::daemon::reload::Reloader;
use crate::dns::dnssec::signer::KeyStatus;
use crate::dns::engine::Engine;
use crate::dns::keeper::ZoneStatus;
use crate::dns::resolver::validate::roll;
use crate::dns::resolver::{Flush, Resolver, UpstreamStatus};
use crate::http::proxy::serve::Proxy;
use crate::http::rules::encode;
use crate::metrics::Metrics;
use crate::peer::replicate::MirrorHandle;
use crate::time::Now;

/// Everything the control socket and the pages read or ask. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Handles {
    /// The node's name.
    pub node: String,
    /// Its state directory.
    pub state: PathBuf,
    /// When it was started.
    pub started: Now,
    /// Where it listens.
    pub listeners: Vec<api::Listener>,
    /// Bytes allowed for mirrored objects.
    pub store_size: u64,
    /// Set once everything is loaded.
    pub ready: AtomicBool,
    /// Zones and resolver.
    pub engine: Arc<Engine>,
    /// Objects.
    pub library: Library,
    /// Mirrored objects on disk.
    pub store: Store,
    /// Replication; `None`: nothing is mirrored.
    pub mirrors: Option<MirrorHandle>,
    /// The states of the buckets.
    pub buckets: Vec<Arc<ArcSwap<BucketStatus>>>,
    /// The cache of other HTTP servers; `None`: there are none.
    pub proxy: Option<Arc<Proxy>>,
    /// Reads configuration and zones again.
    pub reloader: Reloader,
    /// All metrics.
    pub metrics: Arc<Metrics>,
}

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// What it names is not there.
    #[error("{0}")]
    NotFound(String),
    /// What it says makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It was begun and did not end well.
    #[error("{0}")]
    Failed(String),
}

impl Handles {
    /// How the node does.
    #[must_use]
    pub fn status(&self, now: Now) -> api::Status {
        let zones = self.zones();
        let mirrors: Vec<_> = self.mirrors();
        let mut problems: Vec<String> = zones.iter().flat_map(|z| z.problems.clone()).collect();
        problems.extend(self.reloader.problems());
        let lists = self
            .engine
            .resolver()
            .map(Resolver::lists)
            .into_iter()
            .flatten();
        problems.extend(lists.flat_map(|list| list.problems));
        let anchors = self.engine.resolver().map(Resolver::anchors);
        problems.extend(anchors.and_then(|anchors| anchors.problem));
        problems.extend(mirrors.iter().filter_map(|m| {
            let problem = m.problem.as_ref()?;
            let kind = if m.from.starts_with("s3://") {
                "bucket"
            } else {
                "mirror"
            };
            Some(format!("{kind} {}: {problem}", m.prefix))
        }));
        api::Status {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.since(self.started).as_secs(),
            key: self.library.editions().key().to_string(),
            state: self.state.display().to_string(),
            ready: self.is_ready(),
            problems,
            listeners: self.listeners.clone(),
            zones,
            cache: self.engine.resolver().map(cache),
            upstreams: self.engine.resolver().map_or_else(Vec::new, upstreams),
            trust_anchors: self.engine.resolver().map_or_else(Vec::new, trust_anchors),
            content: self.content(),
            links: links(&self.metrics),
            mirrors,
        }
    }

    /// Whether everything is loaded.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Numbers of the resolver cache.
    ///
    /// # Errors
    /// The resolver is off.
    pub fn cache_stats(&self) -> Result<api::Cache, VerbError> {
        self.resolver().map(cache)
    }

    /// Cached answers.
    ///
    /// # Errors
    /// The resolver is off, or the type is none.
    pub fn cache_lookup(
        &self,
        lookup: &api::CacheLookup,
    ) -> Result<Vec<api::CacheEntry>, VerbError> {
        let rtype = rtype(lookup.rtype.as_deref())?;
        let entries = self.resolver()?.lookup(&lookup.name, rtype);
        Ok(entries
            .into_iter()
            .map(|e| api::CacheEntry {
                name: e.name,
                rtype: RecordType::from(e.qtype).to_string(),
                rcode: rcode(e.rcode),
                ttl: e.ttl,
                bytes: e.bytes,
                records: e.records,
            })
            .collect())
    }

    /// Writes the resolver cache to a file. Walks all of it: for the blocking pool.
    ///
    /// # Errors
    /// The resolver is off, or what the kernel said.
    pub fn cache_dump(&self, dump: api::CacheDump) -> Result<api::Dumped, VerbError> {
        let file = self.dump_file(dump.file)?;
        let entries = self.resolver()?.save(&file);
        let entries = entries.map_err(|e| VerbError::Failed(format!("{}: {e}", file.display())))?;
        Ok(api::Dumped { file, entries })
    }

    /// Takes over a file that [`Handles::cache_dump`] has written. Reads it: for the blocking pool.
    ///
    /// # Errors
    /// The resolver is off, or the file cannot be read.
    pub fn cache_load(&self, load: api::CacheLoad) -> Result<api::CacheLoaded, VerbError> {
        let file = self.dump_file(load.file)?;
        let loaded = self.resolver()?.load(&file);
        let loaded = loaded.map_err(|e| VerbError::Failed(format!("{}: {e}", file.display())))?;
        let at = |problem| format!("{}: {problem}", file.display());
        Ok(api::CacheLoaded {
            entries: loaded.entries,
            skipped: loaded.skipped,
            refused: loaded.refused,
            problems: loaded.problems.into_iter().map(at).collect(),
            file,
        })
    }

    fn dump_file(&self, file: Option<PathBuf>) -> Result<PathBuf, VerbError> {
        let file = file.unwrap_or_else(|| self.state.join("cache.dump"));
        if file.is_absolute() {
            Ok(file)
        } else {
            let message = format!("found {}, expected an absolute path", file.display());
            Err(VerbError::Invalid(message))
        }
    }

    /// Drops what the proxy keeps of `url`, or of all URLs that begin so if it ends in `*`.
    ///
    /// # Errors
    /// There is no proxy, or this is no URL.
    pub fn cache_purge(&self, url: &str) -> Result<api::Flushed, VerbError> {
        let Some(proxy) = &self.proxy else {
            let text = "nothing is proxied here: no [[proxy]] is configured";
            return Err(VerbError::NotFound(text.to_owned()));
        };
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        let (host, target) = match rest {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", url),
        };
        let target = if target.is_empty() { "/" } else { target };
        if !target.starts_with('/') || rest.is_some() && host.is_empty() {
            return Err(VerbError::Invalid(format!(
                "found {url:?}, expected http://HOST/PATH or /PATH, each with or without a final *"
            )));
        }
        Ok(api::Flushed {
            entries: proxy.purge(host, target),
        })
    }

    /// Drops cached answers.
    ///
    /// # Errors
    /// The resolver is off, or the type is none.
    pub fn cache_flush(&self, flush: api::CacheFlush) -> Result<api::Flushed, VerbError> {
        let flush = match flush {
            api::CacheFlush::Name(lookup) => {
                Flush::Name(lookup.name, rtype(lookup.rtype.as_deref())?)
            }
            api::CacheFlush::Zone(zone) => Flush::Zone(zone),
            api::CacheFlush::All => Flush::All,
        };
        let entries = self.resolver()?.flush(&flush);
        tracing::info!(entries, ?flush, "cache flushed");
        Ok(api::Flushed { entries })
    }

    /// The own zones.
    #[must_use]
    pub fn zones(&self) -> Vec<api::Zone> {
        self.engine.keeper().zones().into_iter().map(zone).collect()
    }

    /// One zone as text.
    ///
    /// # Errors
    /// There is no such zone in service.
    pub fn zone_show(&self, name: &str) -> Result<api::ZoneText, VerbError> {
        let text = self.engine.keeper().zone_text(&canonical(name));
        let text = text.ok_or_else(|| self.no_zone(name))?;
        Ok(api::ZoneText { text })
    }

    /// The keys of a zone. Reads and writes files.
    ///
    /// # Errors
    /// There is no such zone, it is not signed here, or the DS is not to be there yet.
    pub fn zone_ds(&self, verb: &api::ZoneDs) -> Result<Vec<api::ZoneKey>, VerbError> {
        let (keeper, name) = (self.engine.keeper(), canonical(&verb.name));
        if let Some(tag) = verb.seen {
            let seen = keeper
                .ds_seen(&name, tag)
                .ok_or_else(|| self.no_zone(&name))?;
            seen.map_err(|error| VerbError::Invalid(error.to_string()))?;
            tracing::info!(zone = name, tag, "DS seen at the parent");
        }
        if verb.gone {
            let gone = keeper.ds_gone(&name).ok_or_else(|| self.no_zone(&name))?;
            gone.map_err(|error| VerbError::Invalid(error.to_string()))?;
            tracing::info!(zone = name, "DS gone at the parent");
        }
        self.zone_key_list(&name)
    }

    fn zone_key_list(&self, name: &str) -> Result<Vec<api::ZoneKey>, VerbError> {
        let keys = self.engine.keeper().zone_keys(name);
        let keys = keys.ok_or_else(|| self.no_zone(name))?;
        let keys = keys.map_err(|error| VerbError::Invalid(error.to_string()))?;
        Ok(keys.into_iter().map(key).collect())
    }

    /// Begins to replace the key of a zone. Reads and writes files.
    ///
    /// # Errors
    /// There is no such zone, it is not signed here, or a rollover is going on.
    pub fn zone_rollover(&self, verb: &api::ZoneRollover) -> Result<Vec<api::ZoneKey>, VerbError> {
        let (keeper, name) = (self.engine.keeper(), canonical(&verb.name));
        let rolled = keeper.roll_key(&name).ok_or_else(|| self.no_zone(&name))?;
        rolled.map_err(|error| VerbError::Invalid(error.to_string()))?;
        tracing::info!(zone = name, "key rollover begun");
        self.zone_key_list(&name)
    }

    /// Begins to have the DS of a zone removed, or keeps it after all. Reads and writes files.
    ///
    /// # Errors
    /// There is no such zone, or it is not signed here.
    pub fn zone_insecure(&self, verb: &api::ZoneInsecure) -> Result<Vec<api::ZoneKey>, VerbError> {
        let (keeper, name) = (self.engine.keeper(), canonical(&verb.name));
        let left = keeper.leave(&name, verb.cancel);
        let left = left.ok_or_else(|| self.no_zone(&name))?;
        left.map_err(|error| VerbError::Invalid(error.to_string()))?;
        tracing::info!(zone = name, cancel = verb.cancel, "removal of the DS");
        self.zone_key_list(&name)
    }

    /// Reads one zone again, or the configuration and all of them.
    ///
    /// # Errors
    /// There is no such zone. A zone that does not load is no error here: it is in the answer.
    pub async fn zone_reload(&self, name: Option<&str>) -> Result<api::Reloaded, VerbError> {
        let Some(name) = name else {
            let reloaded = self.reloader.all().await;
            return Ok(api::Reloaded {
                zones: reloaded.zones.into_iter().map(zone).collect(),
                problems: reloaded.problems,
                restart: reloaded.restart,
            });
        };
        let zones = self.reloader.zone(canonical(name)).await;
        let zones = zones.ok_or_else(|| self.no_zone(name))?;
        Ok(api::Reloaded {
            zones: zones.into_iter().map(zone).collect(),
            problems: Vec::new(),
            restart: Vec::new(),
        })
    }

    /// The objects, by path; after each the next version of it that fills, if there is one.
    #[must_use]
    pub fn objects(&self) -> Vec<api::Object> {
        let holdings = self.library.holdings().into_iter();
        holdings
            .filter_map(|holding| {
                let found = self.library.version(holding.id)?;
                let serving = holding.serving;
                Some(api::Object {
                    serving,
                    ..self.describe(&found)
                })
            })
            .collect()
    }

    /// One object.
    ///
    /// # Errors
    /// There is none at that path.
    pub fn object(&self, path: &str) -> Result<api::Object, VerbError> {
        let found = self.library.get(path).ok_or_else(|| no_object(path))?;
        Ok(self.describe(&found))
    }

    /// One version, as the operator is told of it.
    pub(super) fn describe(&self, object: &content::object::Object) -> api::Object {
        let manifest = object.manifest();
        let have = object.have();
        let (role, key) = match object.role() {
            Role::Origin => ("origin", Some(self.library.editions().key())),
            Role::Mirror => ("mirror", object.seal().map(|seal| seal.key)),
        };
        api::Object {
            path: manifest.path.clone(),
            url: encode(&manifest.path),
            role: role.to_owned(),
            size: manifest.layout.size,
            chunk: manifest.layout.chunk,
            serving: true,
            chunks: have.count(),
            held: have.held(),
            media_type: manifest.media_type.clone(),
            modified: manifest.modified,
            etag: object.etag().to_owned(),
            manifest: hex(&object.id().0),
            signed_by: key.map(|key| key.to_string()),
            rate: None,
            seconds_left: None,
            sha256: hex(&manifest.sha256),
        }
    }

    /// Has a mirror begin an object, or all beneath a prefix, and says how far it is.
    ///
    /// # Errors
    /// Nothing of that path is mirrored, or the origin does not publish it.
    pub fn prefetch(&self, path: &str) -> Result<api::Prefetched, VerbError> {
        let demand = self.library.demand(path).ok_or_else(|| {
            let expected = "expected a path beneath the prefix of a [[mirror]]";
            VerbError::Invalid(format!("{path}: not mirrored here; {expected}"))
        })?;
        let listed = demand.listed(path);
        if listed.is_empty() {
            let expected = "expected a path of the origin's catalogue";
            return Err(VerbError::NotFound(format!(
                "{path}: the origin publishes no such object; {expected}"
            )));
        }
        let mut state = api::Prefetched {
            objects: listed.len(),
            whole: 0,
            bytes: 0,
            held: 0,
            problem: None,
        };
        for listed in &listed {
            state.bytes += listed.size;
            let known = self.library.version(listed.manifest);
            let current = self.library.get(&listed.path);
            let whole = current.is_some_and(|o| {
                o.role() == Role::Origin || (o.id() == listed.manifest && o.complete())
            });
            if whole {
                state.whole += 1;
                state.held += listed.size;
                continue;
            }
            state.held += known.map_or(0, |object| held_bytes(&object));
            // With too many waited for, the others are asked for at the next call.
            drop(demand.ask(&listed.path));
        }
        let mirror = self.mirrors().into_iter();
        let mut of_path = mirror.filter(|m| m.prefix == demand.prefix());
        state.problem = of_path.next().and_then(|m| m.problem);
        Ok(state)
    }

    /// Drops the copy of a mirrored object, or of all beneath a prefix. Readers finish. Blocking.
    ///
    /// # Errors
    /// There is no copy, or the disk has a fault.
    pub fn purge(&self, path: &str) -> Result<api::Purged, VerbError> {
        let beneath = |at: &str| at == path || (path.ends_with('/') && at.starts_with(path));
        let mut purged = api::Purged {
            objects: 0,
            bytes: 0,
        };
        let mut published = false;
        for holding in self.library.holdings() {
            if !beneath(&holding.path) {
                continue;
            }
            if holding.role == Role::Origin {
                published = true;
                continue;
            }
            let held = self.library.version(holding.id);
            let removed = self.store.remove(&holding.path);
            let removed =
                removed.map_err(|e| VerbError::Failed(format!("{}: {e}", holding.path)))?;
            if removed {
                tracing::info!(path = holding.path, "copy dropped by the operator");
                purged.objects += 1;
                purged.bytes += held.map_or(0, |object| held_bytes(&object));
            }
        }
        match (purged.objects, published) {
            (0, true) => Err(VerbError::Invalid(format!(
                "{path}: published here, not mirrored; expected a mirrored object, or `content delete`"
            ))),
            (0, false) => Err(no_object(path)),
            _ => Ok(purged),
        }
    }

    /// Digests the held bytes of one object, or of all, anew. Blocking.
    ///
    /// # Errors
    /// There is none at that path.
    pub fn verify(&self, path: Option<&str>) -> Result<Vec<api::Verified>, VerbError> {
        let mut objects = match path {
            Some(path) => vec![self.library.get(path).ok_or_else(|| no_object(path))?],
            None => self.library.list(),
        };
        objects.sort_by(|a, b| a.manifest().path.cmp(&b.manifest().path));
        Ok(objects
            .iter()
            .map(|object| {
                let (good, bad) = object.verify();
                let path = object.manifest().path.clone();
                api::Verified { path, good, bad }
            })
            .collect())
    }

    fn content(&self) -> api::Content {
        let objects = self.library.list();
        api::Content {
            objects: objects.len(),
            complete: objects.iter().filter(|o| o.complete()).count(),
            bytes: objects.iter().map(|o| o.manifest().layout.size).sum(),
            store_used: self.store.used(),
            store_size: self.store_size,
        }
    }

    fn mirrors(&self) -> Vec<api::Mirror> {
        let statuses = self.mirrors.iter().flat_map(MirrorHandle::status);
        let own = self.library.editions().key().to_string();
        let buckets = self.buckets.iter().map(|status| {
            let status = status.load();
            api::Mirror {
                prefix: status.prefix.clone(),
                from: status.bucket.clone(),
                objects: status.objects,
                filling: status.filling,
                seen_unix_ms: status.seen_unix_ms,
                key: Some(own.clone()),
                version: None,
                problem: status.problem.clone(),
            }
        });
        statuses
            .map(|m| api::Mirror {
                prefix: m.prefix,
                from: m.from,
                objects: m.objects,
                filling: m.filling,
                seen_unix_ms: m.seen_unix_ms,
                key: m.key.map(|key| key.to_string()),
                version: m.version,
                problem: m.problem,
            })
            .chain(buckets)
            .collect()
    }

    fn resolver(&self) -> Result<&Resolver, VerbError> {
        let off = || VerbError::Invalid("the resolver is off (resolver.mode = \"off\")".to_owned());
        self.engine.resolver().ok_or_else(off)
    }

    fn no_zone(&self, name: &str) -> VerbError {
        let zones = self.engine.keeper().zones();
        let names: Vec<_> = zones.iter().map(|z| z.name.as_str()).collect();
        let expected = if names.is_empty() {
            "no zone is configured".to_owned()
        } else {
            format!("expected one of {}", names.join(", "))
        };
        VerbError::NotFound(format!("zone {name}: not in service here; {expected}"))
    }
}

/// A zone name as the engine keeps it: lower case, final dot.
fn canonical(name: &str) -> String {
    let mut name = name.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    name
}

fn zone(status: ZoneStatus) -> api::Zone {
    api::Zone {
        name: status.name,
        role: status.role.label().to_owned(),
        file: status.file,
        serial: status.serial,
        records: status.records,
        loaded_unix_ms: status.loaded_unix_ms,
        problems: status.problems,
        warnings: status.warnings,
        refresh_unix_ms: status.refresh_unix_ms,
        expires_unix_ms: status.expires_unix_ms,
        signed_until: status.signed_until,
        waits_for: status.waits_for,
        catalog: status.catalog,
        members: status.members,
    }
}

fn key(status: KeyStatus) -> api::ZoneKey {
    api::ZoneKey {
        tag: status.tag,
        algorithm: status.algorithm.to_owned(),
        doing: status.doing.to_owned(),
        seen: status.seen,
        ds: status.ds,
        until: status.until,
    }
}

fn upstreams(resolver: &Resolver) -> Vec<api::Upstream> {
    let statuses = resolver.upstreams().into_iter();
    let upstream = |status: UpstreamStatus| api::Upstream {
        zone: status.zone,
        upstream: status.upstream,
        state: match (status.dead, status.round_trip) {
            (true, _) => "dead",
            (false, Some(_)) => "up",
            (false, None) => "unknown",
        }
        .to_owned(),
        round_trip_ms: status.round_trip.map(|took| took.as_secs_f64() * 1_000.0),
        connection: status.connection.map(str::to_owned),
        problem: status.problem,
    };
    statuses.map(upstream).collect()
}

fn trust_anchors(resolver: &Resolver) -> Vec<api::TrustAnchor> {
    let keys = resolver.anchors().keys.into_iter();
    let anchor = |key: roll::KeyStatus| api::TrustAnchor {
        zone: key.zone,
        tag: key.tag,
        state: key.state.name().to_owned(),
        since: key.since,
        next: key.next,
    };
    keys.map(anchor).collect()
}

fn cache(resolver: &Resolver) -> api::Cache {
    let stats = resolver.stats();
    api::Cache {
        entries: stats.entries,
        bytes: stats.bytes,
        capacity: stats.capacity,
        hits: stats.hits,
        negative: stats.negative,
        stale: stats.stale,
        misses: stats.misses,
    }
}

/// Bytes of an object that are held.
fn held_bytes(object: &content::object::Object) -> u64 {
    let layout = object.manifest().layout;
    (u64::from(object.held()) * u64::from(layout.chunk)).min(layout.size)
}

pub(super) fn no_object(path: &str) -> VerbError {
    VerbError::NotFound(format!(
        "{path}: no such object here; expected a path of `headwater content list`"
    ))
}

fn rtype(mnemonic: Option<&str>) -> Result<Option<u16>, VerbError> {
    let Some(mnemonic) = mnemonic else {
        return Ok(None);
    };
    let upper = mnemonic.to_ascii_uppercase();
    let numbered = upper.strip_prefix("TYPE").and_then(|n| n.parse().ok());
    let known = RecordType::from_str(&upper).ok().map(u16::from);
    known.or(numbered).map(Some).ok_or_else(|| {
        let expected = "expected a record type such as AAAA or TYPE65280";
        VerbError::Invalid(format!("found {mnemonic:?}, {expected}"))
    })
}

fn rcode(code: u16) -> String {
    let [high, low] = [(code >> 4) as u8, (code & 15) as u8];
    match ResponseCode::from(high, low) {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        _ => format!("RCODE{code}"),
    }
}

/// The interfaces, from their metrics.
fn links(metrics: &Metrics) -> Vec<api::Link> {
    let mut links: Vec<api::Link> = Vec::new();
    for family in metrics.gather() {
        let Some(what) = family.name().strip_prefix("headwater_link_") else {
            continue;
        };
        for metric in family.get_metric() {
            let name = metric.get_label().first().map_or("", |l| l.value());
            let at = links.iter().position(|l| l.name == name);
            let at = at.unwrap_or_else(|| {
                links.push(api::Link {
                    name: name.to_owned(),
                    ..api::Link::default()
                });
                links.len() - 1
            });
            let (counter, gauge) = (
                metric.get_counter().get_value(),
                metric.get_gauge().get_value(),
            );
            match what {
                "transmit_bytes_total" => links[at].transmit_bytes = counter,
                "receive_bytes_total" => links[at].receive_bytes = counter,
                "capacity_bytes_per_second" => links[at].capacity_bytes_per_second = gauge,
                "utilization_ratio" => links[at].utilization = gauge,
                _ => {}
            }
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
