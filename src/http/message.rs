//! What is said between BitTorrent peers (BEP 3), with the extension protocol (BEP 10) and torrents given by it (BEP 9): as much of
//! it as a node needs that has everything and wants nothing. Pure.

/// SHA-1 of an info dictionary: what a torrent is known by.
pub type InfoHash = [u8; 20];

/// Bytes of a handshake.
pub const HANDSHAKE: usize = 68;

/// The first byte of a handshake, which no HTTP request begins with.
pub const FIRST: u8 = 19;

/// Bytes of a message at most: bitfields are the longest that peers send unasked.
pub const LONGEST: usize = 256 << 10;

/// Bytes asked for at once at most.
pub const REQUEST: u32 = 128 << 10;

/// Bytes of an info dictionary given at once.
pub const PART: usize = 16 << 10;

/// What a peer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The torrent it wants.
    pub info_hash: InfoHash,
    /// Whether it knows the extension protocol.
    pub extended: bool,
}

/// What a peer says then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It would like to be served.
    Interested,
    /// It asks for a part of a piece.
    Request {
        /// Which piece.
        index: u32,
        /// Bytes from the piece's begin.
        begin: u32,
        /// Bytes.
        length: u32,
    },
    /// It says by which number it calls messages with parts of the info dictionary; `None`: it does not take any.
    Extended(Option<u8>),
    /// It asks for a part of the info dictionary.
    Metadata(u32),
    /// Anything else, which a node that has everything need not know.
    Other,
}

impl Hello {
    /// Reads a handshake; `None`: it is not one.
    #[must_use]
    pub fn read(bytes: &[u8; HANDSHAKE]) -> Option<Self> {
        let rest = bytes.strip_prefix(PROTOCOL)?;
        let (reserved, rest) = rest.split_at(8);
        Some(Self {
            info_hash: rest[..20].try_into().ok()?,
            extended: reserved[5] & EXTENDED_BIT != 0,
        })
    }
}

impl Message {
    /// Reads a message without its length; `None`: it makes no sense.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let Some((kind, rest)) = bytes.split_first() else {
            return Some(Self::Other); // Keep-alive.
        };
        match *kind {
            INTERESTED => Some(Self::Interested),
            REQUESTED => {
                let (words, []) = rest.as_chunks::<4>() else {
                    return None;
                };
                let &[index, begin, length] = words else {
                    return None;
                };
                Some(Self::Request {
                    index: u32::from_be_bytes(index),
                    begin: u32::from_be_bytes(begin),
                    length: u32::from_be_bytes(length),
                })
            }
            EXTENDED => {
                let (&id, rest) = rest.split_first()?;
                match id {
                    0 => {
                        let id = find(rest, b"m").and_then(|m| integer(find(m, METADATA_NAME)?));
                        let id = id.and_then(|id| u8::try_from(id).ok());
                        Some(Self::Extended(id.filter(|id| *id != 0)))
                    }
                    METADATA => match integer(find(rest, b"msg_type")?)? {
                        0 => {
                            let piece = integer(find(rest, b"piece")?)?;
                            Some(Self::Metadata(u32::try_from(piece).ok()?))
                        }
                        _ => Some(Self::Other),
                    },
                    _ => Some(Self::Other),
                }
            }
            _ => Some(Self::Other),
        }
    }
}

/// How a node calls itself that drew `run` at its start. Clients take two peers of one name for one.
#[must_use]
pub fn peer_id(run: u64) -> [u8; 20] {
    let mut id = *b"-HW0001-............";
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    for (at, place) in id[8..].iter_mut().enumerate() {
        *place = digits[(run >> (5 * at) & 31) as usize];
    }
    id
}

/// A handshake for `info_hash` by the node that is called `id`.
#[must_use]
pub fn handshake(info_hash: &InfoHash, id: &[u8; 20]) -> Vec<u8> {
    let reserved = [0, 0, 0, 0, 0, EXTENDED_BIT, 0, 0];
    [PROTOCOL, &reserved[..], info_hash, id].concat()
}

/// Says that parts of an info dictionary of `size` bytes may be asked for.
#[must_use]
pub fn extended(size: usize) -> Vec<u8> {
    let text = format!(
        "d1:md11:ut_metadatai{METADATA}ee13:metadata_sizei{size}e4:reqqi{IN_FLIGHT}e1:v9:headwatere"
    );
    message(&[&[EXTENDED, 0], text.as_bytes()])
}

/// Says that all of so many pieces are here.
#[must_use]
pub fn bitfield(pieces: usize) -> Vec<u8> {
    let mut bits = vec![0xff; pieces.div_ceil(8)];
    if let Some(last) = bits.last_mut() {
        *last <<= (8 - pieces % 8) % 8;
    }
    message(&[&[BITFIELD], &bits])
}

/// Says that parts of pieces may be asked for.
#[must_use]
pub fn unchoke() -> Vec<u8> {
    message(&[&[UNCHOKE]])
}

/// The part of the info dictionary with this number, for a peer that calls such messages `id`; that there is none, if it is beyond
/// the end.
#[must_use]
pub fn metadata(id: u8, part: u32, info: &[u8]) -> Vec<u8> {
    let start = (part as usize).saturating_mul(PART);
    let Some(rest) = info.get(start..).filter(|rest| !rest.is_empty()) else {
        let text = format!("d8:msg_typei2e5:piecei{part}ee");
        return message(&[&[EXTENDED, id], text.as_bytes()]);
    };
    let bytes = &rest[..rest.len().min(PART)];
    let text = format!(
        "d8:msg_typei1e5:piecei{part}e10:total_sizei{}ee",
        info.len()
    );
    message(&[&[EXTENDED, id], text.as_bytes(), bytes])
}

/// What stands before `length` bytes of a piece.
#[must_use]
pub fn piece(index: u32, begin: u32, length: u32) -> Vec<u8> {
    let mut out = (9 + length).to_be_bytes().to_vec();
    out.push(PIECE);
    out.extend_from_slice(&index.to_be_bytes());
    out.extend_from_slice(&begin.to_be_bytes());
    out
}

fn message(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("messages made here are short");
    let mut out = length.to_be_bytes().to_vec();
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// What a dictionary has under `key`, bencoded, with what follows it.
fn find<'a>(dictionary: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut rest = dictionary.strip_prefix(b"d")?;
    while !rest.starts_with(b"e") {
        let (found, value) = string(rest)?;
        if found == key {
            return Some(value);
        }
        rest = skip(value, DEPTH)?;
    }
    None
}

fn integer(bytes: &[u8]) -> Option<i64> {
    let rest = bytes.strip_prefix(b"i")?;
    let end = rest.iter().take(20).position(|b| *b == b'e')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// A byte string, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(8).position(|b| *b == b':')?;
    let digits = &bytes[..colon];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(length)
}

/// What follows the first value.
fn skip(bytes: &[u8], depth: u32) -> Option<&[u8]> {
    match bytes.first()? {
        b'i' => {
            let end = bytes.iter().take(22).position(|b| *b == b'e')?;
            Some(&bytes[end + 1..])
        }
        // The keys of a dictionary are values like any other here.
        b'l' | b'd' => {
            let depth = depth.checked_sub(1)?;
            let mut rest = &bytes[1..];
            loop {
                match rest.strip_prefix(b"e") {
                    Some(rest) => return Some(rest),
                    None => rest = skip(rest, depth)?,
                }
            }
        }
        _ => string(bytes).map(|(_, rest)| rest),
    }
}

const PROTOCOL: &[u8] = b"\x13BitTorrent protocol";
const EXTENDED_BIT: u8 = 0x10;
const METADATA_NAME: &[u8] = b"ut_metadata";

const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const BITFIELD: u8 = 5;
const REQUESTED: u8 = 6;
const PIECE: u8 = 7;
const EXTENDED: u8 = 20;

/// By this number peers call messages about the info dictionary that are for this node.
const METADATA: u8 = 1;

/// Requests a peer may have sent beyond the one that is being answered.
const IN_FLIGHT: u32 = 256;

/// Lists and dictionaries within each other.
const DEPTH: u32 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn handshake_is_read_as_it_was_made() {
        let bytes = handshake(&[7; 20], &[8; 20]);
        let hello = Hello::read(bytes[..].try_into().unwrap());
        let expected = Hello {
            info_hash: [7; 20],
            extended: true,
        };
        assert_eq!(hello, Some(expected));
        assert_eq!(bytes[0], FIRST);
        let mut other = [0; HANDSHAKE];
        other.copy_from_slice(&bytes);
        other[1] = b'b';
        assert_eq!(Hello::read(&other), None);
    }

    #[test]
    fn nodes_call_themselves_differently() {
        let (a, b) = (peer_id(1), peer_id(1 << 59));
        assert!(a.starts_with(b"-HW0001-") && a.is_ascii());
        assert_ne!(a, b);
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<Message>) {
        assert_eq!(Message::read(bytes), expected);
    }

    #[test]
    fn messages_are_read() {
        check(b"", Some(Message::Other));
        check(b"\x02", Some(Message::Interested));
        check(b"\x04\0\0\0\x01", Some(Message::Other));
        let request = Message::Request {
            index: 1,
            begin: 2,
            length: 3,
        };
        check(b"\x06\0\0\0\x01\0\0\0\x02\0\0\0\x03", Some(request));
        check(b"\x06\0\0\0\x01\0\0\0\x02\0\0\0", None);
        check(b"\x06\0\0\0\x01\0\0\0\x02\0\0\0\x03\0", None);
        check(b"\x14", None);
        let hello = b"\x14\0d1:ei0e1:md6:ut_pexi1e11:ut_metadatai3ee1:pi6881ee";
        check(hello, Some(Message::Extended(Some(3))));
        check(b"\x14\0d1:mdee", Some(Message::Extended(None)));
        check(
            b"\x14\0d1:md11:ut_metadatai0eee",
            Some(Message::Extended(None)),
        );
        check(
            b"\x14\x01d8:msg_typei0e5:piecei4ee",
            Some(Message::Metadata(4)),
        );
        check(
            b"\x14\x01d8:msg_typei1e5:piecei4eexyz",
            Some(Message::Other),
        );
        check(b"\x14\x01d8:msg_typei0e5:piecei-4ee", None);
        check(b"\x14\x01d8:msg_typei0ee", None);
    }

    #[test]
    fn bitfield_has_a_bit_for_each_piece_and_no_more() {
        for (pieces, bits) in [
            (1, &[0x80][..]),
            (8, &[0xff]),
            (11, &[0xff, 0xe0]),
            (0, &[]),
        ] {
            let bytes = bitfield(pieces);
            assert_eq!(bytes[4], BITFIELD);
            assert_eq!(&bytes[5..], bits, "{pieces}");
            assert_eq!(bytes[..4], (1 + bits.len() as u32).to_be_bytes());
        }
    }

    #[test]
    fn metadata_is_given_in_parts_and_not_beyond_the_end() {
        let info: Vec<u8> = (0..PART + 5).map(|i| (i % 251) as u8).collect();
        let last = metadata(9, 1, &info);
        let text = format!("d8:msg_typei1e5:piecei1e10:total_sizei{}ee", info.len());
        let expected = [&[EXTENDED, 9], text.as_bytes(), &info[PART..]].concat();
        assert_eq!(last[4..], expected);
        for part in [2, u32::MAX] {
            let text = format!("d8:msg_typei2e5:piecei{part}ee");
            assert_eq!(metadata(9, part, &info)[6..], *text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Message::read(&bytes);
            let _ = Message::read(&[b"\x14\0d".as_slice(), &bytes].concat());
            let _ = Message::read(&[b"\x14\x01d".as_slice(), &bytes].concat());
        }
    }
}
