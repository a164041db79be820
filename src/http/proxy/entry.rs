//! A stored response as its file holds it.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::content::{CHUNK, Content, Ledger};
use super::freshness::Life;
use super::table::Stored;

/// An entry as its file holds it. Field values are kept byte for byte, each as one character.
#[derive(Serialize, Deserialize)]
struct Entry {
    id: String,
    key: String,
    vary: Vec<(String, Option<String>)>,
    status: u16,
    head: Vec<(String, String)>,
    born: u64,
    fresh: u64,
    revalidate: u64,
    on_error: u64,
    always: bool,
    strict: bool,
    strong: bool,
    len: u64,
    /// Digests of its chunks; empty where one is missing.
    chunks: Vec<String>,
}

/// `stored` as a file holds it; `None` while its length is not known.
pub(super) fn text(stored: &Stored) -> Option<Vec<u8>> {
    let (len, digests) = stored.content.digests()?;
    let life = stored.life;
    let entry = Entry {
        id: format!("{:032x}", stored.content.id),
        key: stored.key.to_string(),
        vary: stored
            .vary
            .iter()
            .map(|(n, v)| (n.to_string(), v.as_deref().map(latin)))
            .collect(),
        status: stored.status.as_u16(),
        head: stored
            .head
            .iter()
            .map(|(n, v)| (n.to_string(), latin(v.as_bytes())))
            .collect(),
        born: life.born,
        fresh: life.fresh,
        revalidate: life.revalidate,
        on_error: life.on_error,
        always: life.always,
        strict: life.strict,
        strong: stored.content.strong,
        len,
        chunks: digests
            .iter()
            .map(|d| d.map_or_else(String::new, |d| blake3::Hash::from(d).to_hex().to_string()))
            .collect(),
    };
    serde_json::to_vec(&entry).ok()
}

/// What a file holds; `None` if that is of no use.
pub(super) fn restore(text: &[u8], ledger: &Ledger) -> Option<Stored> {
    let entry: Entry = serde_json::from_slice(text).ok()?;
    let id = u128::from_str_radix(&entry.id, 16).ok()?;
    let mut digests = Vec::with_capacity(entry.chunks.len());
    for text in &entry.chunks {
        digests.push(if text.is_empty() {
            None
        } else {
            Some(*blake3::Hash::from_hex(text).ok()?.as_bytes())
        });
    }
    // What is not whole and cannot be completed is of no use.
    if digests.len() as u64 != entry.len.div_ceil(CHUNK)
        || !entry.strong && digests.iter().any(Option::is_none)
    {
        return None;
    }
    let mut head = HeaderMap::with_capacity(entry.head.len());
    for (name, value) in &entry.head {
        head.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_bytes(&bytes(value)?).ok()?,
        );
    }
    let mut vary = Vec::with_capacity(entry.vary.len());
    for (name, value) in &entry.vary {
        let value = match value {
            Some(value) => Some(bytes(value)?),
            None => None,
        };
        vary.push((HeaderName::from_bytes(name.as_bytes()).ok()?, value));
    }
    let life = Life {
        born: entry.born,
        fresh: entry.fresh,
        revalidate: entry.revalidate,
        on_error: entry.on_error,
        always: entry.always,
        strict: entry.strict,
    };
    let status = StatusCode::from_u16(entry.status).ok()?;
    let content = Content::restored(id, entry.len, entry.strong, &digests, ledger.clone());
    Some(Stored::new(
        entry.key.into(),
        vary,
        status,
        head,
        life,
        content,
    ))
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn bytes(latin: &str) -> Option<Vec<u8>> {
    latin.chars().map(|c| u8::try_from(c).ok()).collect()
}
