//! What a node keeps of zones on disk, as octets. The copy of a zone: its records, one after the other, and a digest of
//! them all. And entries that are added to a file one by one, each with its length and digest: one that is not whole is
//! the end of the file, for the process ended while it was written.

use crate::dns::wire::name_len;
use crate::dns::zone::records::Cursor;
use crate::dns::zone::{Record, Zone};

/// A zone as the octets of a file.
pub(in crate::dns) fn encode(zone: &Zone) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + zone.bytes());
    out.extend_from_slice(MAGIC);
    if let Some(soa) = zone.soa() {
        put(&soa.owner, soa.rtype, soa.ttl, &soa.data, &mut out);
    }
    let mut at = Cursor::default();
    zone.walk(&mut at, |owner, rtype, ttl, data| {
        put(owner, rtype, ttl, data, &mut out);
        true
    });
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// The records of a file, the SOA first. `None`: it is damaged.
pub(in crate::dns) fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let (body, digest) = bytes.split_last_chunk::<{ blake3::OUT_LEN }>()?;
    if blake3::hash(body) != *digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        records.push(take(&mut rest)?);
    }
    Some(records)
}

/// Appends a count and so many records.
pub(in crate::dns) fn put_list(records: &[Record], out: &mut Vec<u8>) {
    out.extend((records.len() as u32).to_be_bytes()); // Memory ends before.
    for record in records {
        put(&record.owner, record.rtype, record.ttl, &record.data, out);
    }
}

/// Takes a list of records off `rest`.
pub(in crate::dns) fn take_list(rest: &mut &[u8]) -> Option<Vec<Record>> {
    let (count, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    (0..u32::from_be_bytes(*count))
        .map(|_| take(rest))
        .collect()
}

/// A file's entry with this body.
pub(in crate::dns) fn entry(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + blake3::OUT_LEN + body.len());
    out.extend((body.len() as u32).to_be_bytes()); // What one change of a zone says; memory ends before.
    out.extend_from_slice(blake3::hash(body).as_bytes());
    out.extend_from_slice(body);
    out
}

/// The entries of a file that begins with `magic`, read one by one, and how many of its octets they take; what is
/// behind them is torn. `None`: it is no such file.
pub(in crate::dns) fn entries<T>(
    bytes: &[u8],
    magic: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<(Vec<T>, usize)> {
    // Torn within its first octets: nothing was done yet.
    if magic.starts_with(bytes) && bytes.len() < magic.len() {
        return Some((Vec::new(), 0));
    }
    let mut rest = bytes.strip_prefix(magic)?;
    let mut found = Vec::new();
    while let Some((entry, after)) = first(rest, &read) {
        found.push(entry);
        rest = after;
    }
    Some((found, bytes.len() - rest.len()))
}

/// The entry at the start of `rest`, and what follows it. `None`: it is not whole.
fn first<T>(rest: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<(T, &[u8])> {
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (digest, rest) = rest.split_first_chunk::<{ blake3::OUT_LEN }>()?;
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    (blake3::hash(body) == *digest).then_some(())?;
    Some((read(body)?, rest))
}

/// A file name for what is kept of a zone: its name, but for what a file system takes amiss.
#[must_use]
pub fn file_name(zone: &str) -> String {
    let mut name = String::new();
    for byte in zone.trim_end_matches('.').bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    match name.len() {
        0 => "%root".to_owned(),
        // Longer ones, which a label of 63 octets three times gives, are told apart by a digest.
        200.. => blake3::hash(zone.as_bytes()).to_hex().to_string(),
        _ => name,
    }
}

/// Appends one record.
pub(in crate::dns) fn put(owner: &[u8], rtype: u16, ttl: u32, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(owner);
    out.extend(rtype.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes()); // Data of a record has at most 65,535 octets.
    out.extend_from_slice(data);
}

/// Takes one record off `rest`.
pub(in crate::dns) fn take(rest: &mut &[u8]) -> Option<Record> {
    let (owner, after) = rest.split_at(name_len(rest)?);
    let (fixed, after) = after.split_first_chunk::<8>()?;
    let len = usize::from(u16::from_be_bytes([fixed[6], fixed[7]]));
    let (data, after) = after.split_at_checked(len)?;
    *rest = after;
    Some(Record {
        owner: owner.into(),
        rtype: u16::from_be_bytes([fixed[0], fixed[1]]),
        ttl: u32::from_be_bytes([fixed[2], fixed[3], fixed[4], fixed[5]]),
        data: data.into(),
    })
}

const MAGIC: &[u8] = b"headwater zone copy 1\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;

    #[test]
    fn copy_reads_as_it_was_written_and_damage_is_seen() {
        let config = ZoneConfig {
            name: "test.".to_owned(),
            ..ZoneConfig::default()
        };
        let text = "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\n*.w 9 TXT \"x\"\n";
        let zone = crate::dns::zone::load_text(&config, text.as_bytes());
        let zone = zone.expect("a good zone").zone;
        let bytes = encode(&zone);
        let records = decode(&bytes).expect("a good copy");
        assert_eq!(records.len(), zone.records());
        assert_eq!(Some(&records[0]), zone.soa().as_ref());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_none());
            assert!(decode(&bytes[..at]).is_none());
        }
    }
}
