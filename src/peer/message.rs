//! The peer protocol's shapes, spoken over the same HTTP server.
//!
//! - `GET /.well-known/headwater/v1/index?prefix=P`: JSON [`Index`], with an `ETag`: what this node holds, and whose
//!   catalogues it has.
//! - `GET /.well-known/headwater/v1/catalogue/KEY?prefix=P`: the signed catalogue (`content::catalogue`) of the node
//!   with this public key, for P or a prefix of it: what that node publishes.
//! - `GET /.well-known/headwater/v1/manifest/ID`: the encoded manifest with its publisher's signature.
//! - `GET /.well-known/headwater/v1/chunk/ID/N`: chunk N of the object whose manifest digest is ID.
//! - `GET /.well-known/headwater/v1/have?of=…`: which chunks of some versions it holds (see `exchange`).
//! - `GET /.well-known/headwater/v1/announce?prefix=P&port=N`: who else mirrors P (see `tracker`).
//! - `GET /.well-known/headwater/v1/hello`: JSON [`Hello`]: what an address is asked at which a node may be.
//!
//! `P` is a decoded path prefix, percent-encoded in the query; `ID` and `KEY` are 64 lower-case hex digits. 404 says that a
//! chunk is not held here, 410 that the version is not known here (any more). Manifests and chunks never change.
//!
//! A chunk that a reader waits for is asked for with `Priority: u=3`, any other with `u=7`: those yield to viewers.
//!
//! What ought to be held is said by catalogues alone, which only their publisher can make; so they, like manifests and
//! chunks, may come from anybody. An index is one node's own word about itself, and only says whom to ask.

use std::fmt;
use std::marker::PhantomData;

use http::HeaderMap;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::exchange::HaveAsk;
use crate::content::chunk::Digest;
use crate::content::manifest;
use crate::content::name;
use crate::content::sign::PublicKey;

/// Path beneath which the protocol lives; no published object may stand there.
pub const ROOT: &str = "/.well-known/headwater/v1/";

/// Objects in one index at most.
pub const INDEX_ENTRIES: usize = 100_000;

/// Catalogues named in one index at most.
pub const CATALOGUES: usize = 64;

/// Bytes of one index, catalogue or manifest at most.
pub const MESSAGE_SIZE: u64 = 64 << 20;

/// How urgent a chunk is that a reader waits for, and one that is replicated unasked (RFC 9218 section 4.1: 7 is for work
/// in the background).
pub const PRIORITIES: [&str; 2] = ["u=3", "u=7"];

/// Whether a request is for replication that viewers come before: one for a chunk, unless it says that it is more urgent.
#[must_use]
pub fn is_background(path: &str, headers: &HeaderMap) -> bool {
    let chunk = path
        .strip_prefix(ROOT)
        .is_some_and(|rest| rest.starts_with("chunk/"));
    let fields = headers.get_all("priority").iter();
    let mut members = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','));
    chunk && !members.any(|member| matches!(member.trim().as_bytes(), [b'u', b'=', b'0'..=b'6']))
}

/// What is asked of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// What the node holds beneath a prefix (decoded; begins and ends with `/`).
    Index(String),
    /// The catalogue of a publisher for a prefix.
    Catalogue(PublicKey, String),
    /// The manifest with this digest.
    Manifest(Digest),
    /// One chunk of the version with this manifest digest.
    Chunk(Digest, u32),
    /// Which chunks of these versions the node holds.
    Have(Vec<HaveAsk>),
    /// Who else mirrors this prefix; the asker does, and serves HTTP on this port.
    Announce(String, u16),
    /// Whether a node is there.
    Hello,
}

/// What a node says of itself to whom found its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The number by which it knows itself.
    pub node: u64,
}

/// What a node holds beneath a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The node's own public key.
    pub key: PublicKey,
    /// The catalogues it can give for this prefix, its own among them.
    #[serde(deserialize_with = "bounded::<_, _, CATALOGUES>")]
    pub catalogues: Vec<Edition>,
    /// The objects it holds whole, by path.
    #[serde(deserialize_with = "bounded::<_, _, INDEX_ENTRIES>")]
    pub objects: Vec<IndexEntry>,
}

/// A catalogue that a node has, in its [`Index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edition {
    /// Whose it is.
    pub key: PublicKey,
    /// Its version.
    pub version: u64,
}

/// One object in an [`Index`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its path.
    pub path: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Whether the node publishes it itself.
    pub published: bool,
}

impl Ask {
    /// Reads a request target beneath [`ROOT`].
    ///
    /// # Errors
    /// What was found and what was expected.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Self, MessageError> {
        let rest = path
            .strip_prefix(ROOT)
            .ok_or_else(|| error("path", path, "a path beneath the protocol's root"))?;
        match (rest.split_once('/'), query) {
            (None, Some(query)) if rest == "index" => Ok(Self::Index(parse_prefix(query)?)),
            (Some(("catalogue", key)), Some(query)) => {
                let key = key
                    .parse()
                    .map_err(|_| error("key", key, "64 lower-case hex digits"))?;
                Ok(Self::Catalogue(key, parse_prefix(query)?))
            }
            (None, Some(query)) if rest == "have" => query
                .strip_prefix("of=")
                .and_then(HaveAsk::parse_all)
                .map(Self::Have)
                .ok_or_else(|| error("query", query, "of=ID-TAGS,ID-TAGS")),
            (None, Some(query)) if rest == "announce" => {
                let (prefix, port) = query
                    .strip_prefix("prefix=")
                    .and_then(|rest| rest.split_once("&port="))
                    .and_then(|(prefix, port)| Some((decode(prefix)?, number(port)?)))
                    .ok_or_else(|| error("query", query, "prefix=P&port=N"))?;
                check_prefix(&prefix)?;
                Ok(Self::Announce(prefix, port))
            }
            (None, None) if rest == "hello" => Ok(Self::Hello),
            (Some(("manifest", id)), None) => Ok(Self::Manifest(parse_digest(id)?)),
            (Some(("chunk", rest)), None) => {
                let (id, number) = rest
                    .split_once('/')
                    .ok_or_else(|| error("path", path, "chunk/ID/N"))?;
                let index: u32 = self::number(number)
                    .ok_or_else(|| error("chunk number", number, "a number below 2^32"))?;
                Ok(Self::Chunk(parse_digest(id)?, index))
            }
            _ => Err(error(
                "path",
                path,
                "index?prefix=P, catalogue/KEY?prefix=P, manifest/ID, chunk/ID/N, have?of=IDS, announce?prefix=P&port=N or hello",
            )),
        }
    }
}

impl fmt::Display for Ask {
    /// The request target that [`Ask::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(prefix) => write!(f, "{ROOT}index?prefix={}", encode(prefix)),
            Self::Catalogue(key, prefix) => {
                write!(f, "{ROOT}catalogue/{key}?prefix={}", encode(prefix))
            }
            Self::Manifest(id) => write!(f, "{ROOT}manifest/{id}"),
            Self::Chunk(id, index) => write!(f, "{ROOT}chunk/{id}/{index}"),
            Self::Have(asks) => {
                write!(f, "{ROOT}have?of=")?;
                for (place, ask) in asks.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{ask}")?;
                }
                Ok(())
            }
            Self::Announce(prefix, port) => {
                write!(f, "{ROOT}announce?prefix={}&port={port}", encode(prefix))
            }
            Self::Hello => write!(f, "{ROOT}hello"),
        }
    }
}

impl Index {
    /// Reads an index that was asked for with `prefix`: bounded, each path beneath the prefix and normalised, each
    /// digest well-formed, no path twice.
    ///
    /// # Errors
    /// What was found and what was expected; then nothing of the index is to be believed.
    pub fn parse(body: &[u8], prefix: &str) -> Result<Self, MessageError> {
        if body.len() as u64 > MESSAGE_SIZE {
            return Err(error("index", body.len(), "at most 64 MiB"));
        }
        let index: Self = serde_json::from_slice(body)
            .map_err(|e| error("index", e, "JSON with at most 100,000 objects"))?;
        let mut last: Option<&str> = None;
        for entry in &index.objects {
            check_path(&entry.path, prefix)?;
            if last.is_some_and(|last| last >= entry.path.as_str()) {
                return Err(error("path", &entry.path, "objects in the order of paths"));
            }
            last = Some(&entry.path);
        }
        Ok(index)
    }
}

/// Checks that `path` may name an object beneath `prefix`, outside the protocol's own space.
fn check_path(path: &str, prefix: &str) -> Result<(), MessageError> {
    manifest::check_path(path).map_err(|e| error("path", e.found, e.expected))?;
    if !path.starts_with(prefix) || path.starts_with(ROOT) {
        return Err(error("path", path, "a path beneath the mirrored prefix"));
    }
    Ok(())
}

fn parse_prefix(query: &str) -> Result<String, MessageError> {
    let prefix = query
        .strip_prefix("prefix=")
        .and_then(decode)
        .ok_or_else(|| error("query", query, "prefix=P, percent-encoded"))?;
    check_prefix(&prefix)?;
    Ok(prefix)
}

/// A decimal number as it would be written.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|n: &T| n.to_string() == text)
}

fn parse_digest(text: &str) -> Result<Digest, MessageError> {
    text.parse()
        .map_err(|_| error("digest", text, "64 lower-case hex digits"))
}

fn check_prefix(prefix: &str) -> Result<(), MessageError> {
    if prefix.starts_with('/') && prefix.ends_with('/') && prefix.len() <= PATH_SIZE {
        Ok(())
    } else {
        Err(error(
            "prefix",
            prefix,
            "a path that begins and ends with /",
        ))
    }
}

fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for &byte in name::to_bytes(text).iter() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'&' | b'=' | b'+' => return None,
            byte => byte,
        });
    }
    Some(name::from_bytes(&out).into_owned())
}

/// Reads at most `MOST` entries: the bound holds before the memory is taken.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Entries<T, const MOST: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Entries<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST} entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = seq.next_element()? {
                if entries.len() == MOST {
                    return Err(serde::de::Error::invalid_length(entries.len() + 1, &self));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_seq(Entries::<T, MOST>(PhantomData))
}

fn error(field: &'static str, found: impl fmt::Display, expected: &'static str) -> MessageError {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(FOUND_SIZE) {
        found.truncate(cut);
    }
    MessageError {
        field,
        found,
        expected,
    }
}

/// Why a message of another node is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: found {found:?}, expected {expected}")]
pub struct MessageError {
    /// The field.
    pub field: &'static str,
    /// What stands there (its beginning).
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

/// Bytes of a path at most.
const PATH_SIZE: usize = 4096;

/// Characters of what was found that an error keeps.
const FOUND_SIZE: usize = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(target: &str) -> Result<Ask, MessageError> {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(p, q)| (p, Some(q)));
        Ask::parse(path, query)
    }

    #[track_caller]
    fn refused(target: &str, field: &str) {
        assert_eq!(ask(target).unwrap_err().field, field, "{target}");
    }

    #[track_caller]
    fn index(objects: &str, field: Option<&str>) {
        let key = "0".repeat(64);
        let body = format!("{{\"key\":{key:?},\"catalogues\":[],\"objects\":[{objects}]}}");
        let found = Index::parse(body.as_bytes(), "/v/");
        assert_eq!(found.err().map(|e| e.field), field, "{objects}");
    }

    fn entry(path: &str) -> String {
        let id = "0".repeat(64);
        format!("{{\"path\":{path:?},\"manifest\":\"{id}\",\"size\":1,\"published\":true}}")
    }

    #[test]
    fn ask_of_another_shape_is_refused() {
        let id = "ab".repeat(32);
        refused("/video.bin", "path");
        refused(&format!("{ROOT}index"), "path");
        refused(&format!("{ROOT}index?prefix=v/"), "prefix");
        refused(&format!("{ROOT}index?prefix=/v"), "prefix");
        refused(&format!("{ROOT}index?prefix=/%zz/"), "query");
        refused(&format!("{ROOT}index?prefix=/&x=1"), "query");
        refused(&format!("{ROOT}catalogue/{id}"), "path");
        refused(&format!("{ROOT}catalogue/{id}?prefix=v"), "prefix");
        refused(&format!("{ROOT}catalogue/0{id}?prefix=/"), "key");
        refused(&format!("{ROOT}manifest/{}", "ab".repeat(31)), "digest");
        refused(&format!("{ROOT}manifest/{}", "AB".repeat(32)), "digest");
        refused(&format!("{ROOT}manifest/{id}?x"), "path");
        refused(&format!("{ROOT}chunk/{id}"), "path");
        refused(&format!("{ROOT}chunk/{id}/-1"), "chunk number");
        refused(&format!("{ROOT}chunk/{id}/01"), "chunk number");
        refused(&format!("{ROOT}chunk/{id}/4294967296"), "chunk number");
        refused(&format!("{ROOT}have?of="), "query");
        refused(&format!("{ROOT}have?of={id},"), "query");
        refused(&format!("{ROOT}announce?prefix=/"), "query");
        refused(&format!("{ROOT}announce?prefix=/&port=65536"), "query");
        refused(&format!("{ROOT}announce?prefix=/&port=080"), "query");
        refused(&format!("{ROOT}announce?prefix=v&port=80"), "prefix");
    }

    #[test]
    fn index_with_one_bad_entry_is_refused_whole() {
        index(&entry("/v/a"), None);
        index("", None);
        index(&[entry("/v/a"), entry("/v/b")].join(","), None);
        index(&[entry("/v/a"), entry("/v/a")].join(","), Some("path"));
        index(&entry("/w/a"), Some("path"));
        index(&entry("/v/../a"), Some("path"));
        index(&entry("/v//a"), Some("path"));
        index(&entry("/v/"), Some("path"));
        index(&entry("/v/a").replace("00", "0"), Some("index"));
        index("7", Some("index"));
    }

    #[test]
    fn index_longer_than_the_bound_is_refused() {
        let one = entry("/v/a");
        let body = format!(
            "{{\"key\":\"{}\",\"catalogues\":[],\"objects\":[{}]}}",
            "0".repeat(64),
            vec![one; INDEX_ENTRIES + 1].join(",")
        );
        let found = Index::parse(body.as_bytes(), "/v/").unwrap_err();
        assert!(found.found.contains("100001"), "{found}");
    }

    #[test]
    fn path_in_the_protocols_own_space_is_refused() {
        let path = format!("{ROOT}index");
        assert!(check_path(&path, "/").is_err());
    }

    proptest! {
        #[test]
        fn ask_written_and_read_again_is_equal(
            bytes in any::<[u8; 32]>(),
            number in any::<u32>(),
            name in "\\PC{0,40}",
        ) {
            let id = Digest(bytes);
            for one in [
                Ask::Manifest(id),
                Ask::Chunk(id, number),
                Ask::Index(format!("/{name}/")),
                Ask::Catalogue(PublicKey(bytes), format!("/{name}/")),
                Ask::Announce(format!("/{name}/"), 80),
                Ask::Have(vec![HaveAsk { id, tags: vec![number] }, HaveAsk { id, tags: vec![] }]),
            ] {
                let target = one.to_string();
                prop_assert!(target.bytes().all(|b| b.is_ascii_graphic()));
                prop_assert_eq!(ask(&target), Ok(one));
            }
        }
    }
}
