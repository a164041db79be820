//! What is asked and answered over the control socket: `POST /v1/VERB` with a JSON body. Shared by both sides.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A verb of the control socket: its path, what it takes and what it answers.
pub trait Verb: Serialize + for<'de> Deserialize<'de> {
    /// The path, such as `/v1/status`.
    const PATH: &'static str;
    /// The answer.
    type Answer: Serialize + for<'de> Deserialize<'de>;
}

/// The body of every answer that is no success.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was found, and what was expected.
    pub error: String,
}

/// Asks how the node does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetStatus {}

/// How the node does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub uptime_seconds: u64,
    /// Its public key: what it publishes is signed with it.
    pub key: String,
    /// Its state directory.
    pub state: String,
    /// Whether everything is loaded.
    pub ready: bool,
    /// What is wrong now; empty when all is well.
    pub problems: Vec<String>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Its own zones.
    pub zones: Vec<Zone>,
    /// The resolver cache; `None`: the resolver is off.
    pub cache: Option<Cache>,
    /// What the resolver asks, unless it resolves from the root.
    pub upstreams: Vec<Upstream>,
    /// The keys of the resolver's trust anchors, if they roll.
    #[serde(default)]
    pub trust_anchors: Vec<TrustAnchor>,
    /// What it serves.
    pub content: Content,
    /// Network interfaces.
    pub links: Vec<Link>,
    /// What it mirrors, and the buckets it publishes from.
    pub mirrors: Vec<Mirror>,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `dns`, `http`, `metrics` or `admin`.
    pub service: String,
    /// Address and port, or the path of the control socket.
    pub address: String,
}

/// One own zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Zone {
    /// Apex.
    pub name: String,
    /// Where it comes from: `primary` (a master file), `secondary` (other servers) or `catalog` (made here, of own
    /// zones).
    pub role: String,
    /// Master file, or the copy kept of the zone.
    pub file: String,
    /// Serial in service; `None`: never loaded.
    pub serial: Option<u32>,
    /// Records in service.
    pub records: usize,
    /// When it was loaded, Unix milliseconds.
    pub loaded_unix_ms: Option<u64>,
    /// Why the last load failed.
    pub problems: Vec<String>,
    /// Warnings of the last good load.
    pub warnings: Vec<String>,
    /// When its primaries are asked next, Unix milliseconds.
    pub refresh_unix_ms: Option<u64>,
    /// When it expires unless a primary confirms it, Unix milliseconds.
    pub expires_unix_ms: Option<u64>,
    /// When its first signature ends, Unix seconds; `None`: it is not signed.
    pub signed_until: Option<u64>,
    /// What it waits for at its parent, and what the parent said last; in words.
    pub waits_for: Option<String>,
    /// The catalog zone from elsewhere that it is a member of.
    pub catalog: Option<String>,
    /// Member zones, of a catalog zone.
    pub members: Option<usize>,
}

/// One key of a trust anchor's zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnchor {
    /// The zone.
    pub zone: String,
    /// The key's tag.
    pub tag: u16,
    /// `pending`, `valid`, `missing`, `revoked` or `removed`; what is valid or missing is believed.
    pub state: String,
    /// Since when, Unix seconds.
    pub since: u64,
    /// When its zone is looked at next, Unix seconds.
    pub next: u64,
}

/// Numbers of the resolver cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cache {
    /// Entries held, stale ones included.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes allowed.
    pub capacity: u64,
    /// Answers from fresh positive entries.
    pub hits: u64,
    /// Answers from fresh negative entries.
    pub negative: u64,
    /// Answers from expired entries.
    pub stale: u64,
    /// Queries it could not answer.
    pub misses: u64,
}

/// One upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// The names it is asked for are beneath this; `.`: all that are not beneath another.
    pub zone: String,
    /// As in the configuration, with its port.
    pub upstream: String,
    /// `up`, `dead`, or `unknown` before its first answer.
    pub state: String,
    /// Smoothed round trip; `None`: never measured.
    pub round_trip_ms: Option<f64>,
    /// `open`, `opening` or `closed`; `None`: it is asked in the clear.
    pub connection: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Sums over everything served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Content {
    /// Objects known.
    pub objects: usize,
    /// Objects held whole.
    pub complete: usize,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Bytes of mirrored objects on disk.
    pub store_used: u64,
    /// Bytes allowed for them.
    pub store_size: u64,
}

/// One network interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Bytes it sent.
    pub transmit_bytes: f64,
    /// Bytes it received.
    pub receive_bytes: f64,
    /// Bytes per second it can carry in one direction.
    pub capacity_bytes_per_second: f64,
    /// Load over capacity.
    pub utilization: f64,
}

/// One mirrored prefix, or one that is published from a bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mirror {
    /// The prefix.
    pub prefix: String,
    /// The node asked last; or the bucket, such as `s3://bucket/path/`.
    pub from: String,
    /// Objects in its index.
    pub objects: usize,
    /// Objects not whole here yet.
    pub filling: usize,
    /// When the index was read last, Unix milliseconds.
    pub seen_unix_ms: Option<u64>,
    /// Public key of the origin, or of the first of several, once it is known.
    pub key: Option<String>,
    /// Version of its catalogue.
    pub version: Option<u64>,
    /// What went wrong last, until it goes right.
    pub problem: Option<String>,
}

/// Asks for the numbers of the resolver cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheStats {}

/// Asks for cached answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheLookup {
    /// The name asked for.
    pub name: String,
    /// Mnemonic of the type; `None`: all types.
    pub rtype: Option<String>,
}

/// One cached answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheEntry {
    /// The name asked for.
    pub name: String,
    /// Mnemonic of the type.
    pub rtype: String,
    /// Mnemonic of the response code.
    pub rcode: String,
    /// Seconds of freshness left; negative: expired that long ago.
    pub ttl: i64,
    /// Bytes of the answer.
    pub bytes: usize,
    /// Its records as master-file lines.
    pub records: Vec<String>,
}

/// Drops what the proxy keeps of one URL, or of all that begin with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachePurge {
    /// `http://host/path`, or `/path` for every host; a final `*` stands for whatever follows.
    pub url: String,
}

/// Drops cached answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum CacheFlush {
    /// Of one name, one type or all.
    Name(CacheLookup),
    /// Of a name and everything beneath it.
    Zone(String),
    /// All.
    All,
}

/// What was dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flushed {
    /// Entries dropped.
    pub entries: usize,
}

/// Has the resolver cache written to a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheDump {
    /// Where, an absolute path; without it `cache.dump` in the state directory.
    pub file: Option<PathBuf>,
}

/// What was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dumped {
    /// Where.
    pub file: PathBuf,
    /// Answers written.
    pub entries: usize,
}

/// Has a file that [`CacheDump`] has written taken over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheLoad {
    /// As in [`CacheDump`].
    pub file: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheLoaded {
    /// From where.
    pub file: PathBuf,
    /// Answers taken over.
    pub entries: usize,
    /// Answers left out: too old, of no use here, or here already.
    pub skipped: usize,
    /// Answers refused.
    pub refused: usize,
    /// What was wrong with the first of them, and where.
    pub problems: Vec<String>,
}

/// Asks for the own zones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneList {}

/// Asks for one zone as master-file text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneShow {
    /// Its apex.
    pub name: String,
}

/// One zone as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneText {
    /// Master-file lines.
    pub text: String,
}

/// Makes a record the only one of its type at its name, or one more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneSet {
    /// As in a master file, with absolute names.
    pub record: String,
    /// The others of its type stay.
    pub beside: bool,
}

/// Removes records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneDelete {
    /// Their owner.
    pub name: String,
    /// Their type; `None`: all.
    pub rtype: Option<String>,
}

/// What a change of a zone did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneChanged {
    /// The zone.
    pub zone: String,
    /// Its serial now.
    pub serial: u32,
    /// Whether anything differs from before.
    pub changed: bool,
}

/// Reads zones again; without a name also the configuration's zones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneReload {
    /// One zone's apex; `None`: all.
    pub name: Option<String>,
}

/// What a reload gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// The zones after it.
    pub zones: Vec<Zone>,
    /// Problems of the configuration: the old one stays in service.
    pub problems: Vec<String>,
    /// Settings that changed but need a restart.
    pub restart: Vec<String>,
}

/// Asks for the keys of a zone signed here, after noting that its DS was seen at the parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneDs {
    /// Its apex.
    pub name: String,
    /// The tag of the key that the parent's DS points to.
    pub seen: Option<u16>,
    /// The parent has no DS.
    pub gone: bool,
}

/// Begins to have the DS of a zone removed, so that it can be served unsigned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneInsecure {
    /// Its apex.
    pub name: String,
    /// Keeps the DS after all.
    pub cancel: bool,
}

/// Begins to replace the key of a zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneRollover {
    /// Its apex.
    pub name: String,
}

/// A key of a zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ZoneKey {
    /// Its tag.
    pub tag: u16,
    /// Its algorithm.
    pub algorithm: String,
    /// What it does now.
    pub doing: String,
    /// Whether the parent's DS was seen to point to it.
    pub seen: bool,
    /// Its DS record, once the parent may have it.
    pub ds: Option<String>,
    /// When this changes by itself, Unix seconds.
    pub until: Option<u64>,
}

/// Asks for the objects served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentList {}

/// Asks for one object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentShow {
    /// Its path.
    pub path: String,
}

/// One object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Object {
    /// Its path; a byte `b` that is no UTF-8 is the character U+10FF00 + `b`.
    pub path: String,
    /// Its path as a URL has it.
    pub url: String,
    /// `origin` or `mirror`.
    pub role: String,
    /// Whether requests for the path are answered with it; a next version that still fills is not.
    pub serving: bool,
    /// Bytes.
    pub size: u64,
    /// Bytes of a chunk.
    pub chunk: u32,
    /// Chunks in all.
    pub chunks: u32,
    /// Chunks held.
    pub held: u32,
    /// Media type.
    pub media_type: String,
    /// Last modification, Unix seconds.
    pub modified: u64,
    /// Entity tag, equal on every node.
    pub etag: String,
    /// Hex digest of its manifest.
    pub manifest: String,
    /// Public key of who signed it; `None`: nobody.
    pub signed_by: Option<String>,
    /// Bytes per second it fills with; `None`: it does not fill, or that was not measured.
    pub rate: Option<u64>,
    /// Seconds until it is whole at that rate.
    pub seconds_left: Option<u64>,
    /// Hex SHA-256 of its bytes.
    pub sha256: String,
}

/// Digests held bytes anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentVerify {
    /// One object's path; `None`: all.
    pub path: Option<String>,
}

/// What verifying one object gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Its path.
    pub path: String,
    /// Chunks whose bytes are right.
    pub good: u32,
    /// Chunks whose bytes are not.
    pub bad: u32,
}

/// Asks a mirror for an object, or for all beneath a path that ends in `/`; what is on its way already stays so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentPrefetch {
    /// Its path.
    pub path: String,
}

/// How far a mirror is with what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefetched {
    /// Objects asked for.
    pub objects: usize,
    /// Those held whole, in the version the origin publishes now.
    pub whole: usize,
    /// Bytes of all.
    pub bytes: u64,
    /// Bytes held.
    pub held: u64,
    /// What is wrong with the mirror now.
    pub problem: Option<String>,
}

/// Drops the copy of a mirrored object, or of all beneath a path that ends in `/`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentPurge {
    /// Its path.
    pub path: String,
}

/// What was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Objects dropped.
    pub objects: usize,
    /// Bytes of them that were held.
    pub bytes: u64,
}

/// Publishes a file at a path: behind this line of JSON and a line feed come its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentPut {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub size: u64,
}

/// What was published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Whether nothing was published there before.
    pub new: bool,
    /// The object.
    pub object: Object,
}

/// Removes a published file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContentDelete {
    /// Its path.
    pub path: String,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Its path.
    pub path: String,
    /// Its bytes, if it was an object already.
    pub bytes: Option<u64>,
}

macro_rules! verbs {
    ($($verb:ty, $path:literal => $answer:ty;)*) => {
        $(impl Verb for $verb {
            const PATH: &'static str = $path;
            type Answer = $answer;
        })*
    };
}

verbs! {
    GetStatus, "/v1/status" => Status;
    CacheStats, "/v1/cache/stats" => Cache;
    CacheLookup, "/v1/cache/lookup" => Vec<CacheEntry>;
    CacheFlush, "/v1/cache/flush" => Flushed;
    CachePurge, "/v1/cache/purge" => Flushed;
    CacheDump, "/v1/cache/dump" => Dumped;
    CacheLoad, "/v1/cache/load" => CacheLoaded;
    ZoneList, "/v1/zone/list" => Vec<Zone>;
    ZoneShow, "/v1/zone/show" => ZoneText;
    ZoneReload, "/v1/zone/reload" => Reloaded;
    ZoneDs, "/v1/zone/ds" => Vec<ZoneKey>;
    ZoneRollover, "/v1/zone/rollover" => Vec<ZoneKey>;
    ZoneInsecure, "/v1/zone/insecure" => Vec<ZoneKey>;
    ZoneSet, "/v1/zone/set" => ZoneChanged;
    ZoneDelete, "/v1/zone/delete" => ZoneChanged;
    ContentList, "/v1/content/list" => Vec<Object>;
    ContentShow, "/v1/content/show" => Object;
    ContentVerify, "/v1/content/verify" => Vec<Verified>;
    ContentPrefetch, "/v1/content/prefetch" => Prefetched;
    ContentPurge, "/v1/content/purge" => Purged;
    ContentPut, "/v1/content/put" => Stored;
    ContentDelete, "/v1/content/delete" => Deleted;
}
