//! Other faces of an object's manifest: Metalink (RFC 5854), torrent (BEP 3, with web seeds by BEP 19) and magnet link. Pure.
//!
//! A torrent depends on nothing but the object, so its info hash is the same on every node that has it.

use std::fmt::Write as _;
use std::net::IpAddr;

use sha1::Digest as _;

use super::fresh::rfc3339;
use super::listing::escape;
use crate::content::chunk::Digest;
use crate::content::manifest::Manifest;

/// Another face of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// `.meta4`
    Metalink,
    /// `.torrent`
    Torrent,
    /// `.magnet`: the torrent's magnet link, as text.
    Magnet,
    /// `.announce`: what a tracker answers, where peers are served.
    Announce,
}

/// Where an object is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The object's URLs, the best first; the first one's server says so.
    pub urls: Vec<String>,
    /// Whether that server serves peers, and is their tracker.
    pub tracks: bool,
}

impl Places {
    /// The URL of a face at the first server.
    #[must_use]
    pub fn of(&self, face: Face) -> String {
        let own = self.urls.first().map_or("", String::as_str);
        format!("{own}{}", face.suffix())
    }
}

impl Face {
    /// The face `path` asks for, and of what.
    #[must_use]
    pub fn of(path: &str) -> Option<(Self, &str)> {
        [Self::Metalink, Self::Torrent, Self::Magnet, Self::Announce]
            .into_iter()
            .find_map(|face| Some((face, path.strip_suffix(face.suffix())?)))
            .filter(|(_, path)| !path.ends_with('/'))
    }

    /// What follows the object's path.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Metalink => ".meta4",
            Self::Torrent => ".torrent",
            Self::Magnet => ".magnet",
            Self::Announce => ".announce",
        }
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Metalink => "application/metalink4+xml",
            Self::Torrent => "application/x-bittorrent",
            Self::Magnet => "text/plain; charset=utf-8",
            Self::Announce => "text/plain",
        }
    }
}

/// The Metalink document of an object that is to be had at `places`. With the SHA-1 digests of its `pieces`, a client knows which
/// server sent a wrong one, and takes only that one anew.
#[must_use]
pub fn metalink(manifest: &Manifest, pieces: Option<&[u8]>, places: &Places) -> String {
    let moment = rfc3339(manifest.modified.saturating_mul(1000));
    let size = manifest.layout.size;
    let mut xml = format!(
        concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n",
            "  <generator>headwater/{}</generator>\n  <origin dynamic=\"true\">{}</origin>\n",
            "  <published>{}</published>\n  <updated>{}</updated>\n",
            "  <file name=\"{}\">\n    <size>{}</size>\n    <hash type=\"sha-256\">{}</hash>\n",
        ),
        env!("CARGO_PKG_VERSION"),
        escape(&places.of(Face::Metalink)),
        moment,
        moment,
        escape(&printable(name(manifest))),
        size,
        hex(&manifest.sha256),
    );
    // One piece is the whole, whose digest stands above.
    if let Some(pieces) = pieces.filter(|pieces| pieces.len() > SHA1) {
        let _ = writeln!(
            xml,
            "    <pieces length=\"{}\" type=\"sha-1\">",
            piece(size)
        );
        for digest in pieces.chunks(SHA1) {
            let _ = writeln!(xml, "      <hash>{}</hash>", hex(digest));
        }
        xml.push_str("    </pieces>\n");
    }
    for (at, url) in places.urls.iter().enumerate() {
        let _ = writeln!(
            xml,
            "    <url priority=\"{}\">{}</url>",
            at + 1,
            escape(url)
        );
    }
    xml.push_str("  </file>\n</metalink>\n");
    xml
}

/// The torrent of an object whose pieces have these SHA-1 digests.
#[must_use]
pub fn torrent(manifest: &Manifest, pieces: &[u8], places: &Places) -> Vec<u8> {
    let mut out = b"d".to_vec();
    if places.tracks {
        bytes(&mut out, b"announce");
        bytes(&mut out, places.of(Face::Announce).as_bytes());
    }
    bytes(&mut out, b"info");
    out.extend_from_slice(&info(manifest, pieces));
    bytes(&mut out, b"url-list");
    out.push(b'l');
    for url in &places.urls {
        bytes(&mut out, url.as_bytes());
    }
    out.extend_from_slice(b"ee");
    out
}

/// The magnet link of that torrent (BEP 9; `ws`: web seeds, `xs`: where the torrent itself is to be had).
#[must_use]
pub fn magnet(manifest: &Manifest, pieces: &[u8], places: &Places) -> String {
    let mut link = format!(
        "magnet:?xt=urn:btih:{}&dn={}&xl={}&xs={}",
        hex(&info_hash(manifest, pieces)),
        component(name(manifest)),
        manifest.layout.size,
        component(&places.of(Face::Torrent))
    );
    if places.tracks {
        let _ = write!(link, "&tr={}", component(&places.of(Face::Announce)));
    }
    for url in &places.urls {
        let _ = write!(link, "&ws={}", component(url));
    }
    link
}

/// What a tracker answers that knows these peers: in few bytes if that is `compact` (BEP 23, BEP 7) and they have addresses, not names.
#[must_use]
pub fn announced(peers: &[(String, u16)], compact: bool) -> Vec<u8> {
    let mut out = format!("d8:intervali{INTERVAL}e").into_bytes();
    let numeric = peers.iter().map(|(host, port)| {
        let address: IpAddr = host.parse().ok()?;
        Some((address, port.to_be_bytes()))
    });
    match numeric.collect::<Option<Vec<_>>>() {
        Some(numeric) if compact => {
            let (mut four, mut six) = (Vec::new(), Vec::new());
            for (address, port) in numeric {
                match address {
                    IpAddr::V4(address) => four.extend(address.octets().into_iter().chain(port)),
                    IpAddr::V6(address) => six.extend(address.octets().into_iter().chain(port)),
                }
            }
            bytes(&mut out, b"peers");
            bytes(&mut out, &four);
            if !six.is_empty() {
                bytes(&mut out, b"peers6");
                bytes(&mut out, &six);
            }
        }
        _ => {
            bytes(&mut out, b"peers");
            out.push(b'l');
            for (host, port) in peers {
                out.extend_from_slice(b"d2:ip");
                bytes(&mut out, host.as_bytes());
                out.extend_from_slice(format!("4:porti{port}ee").as_bytes());
            }
            out.push(b'e');
        }
    }
    out.push(b'e');
    out
}

/// Host and port of a server that speaks HTTP in the clear.
#[must_use]
pub fn peer(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.split('/').next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Strong entity tag, with its quotes, of a face of this version with these places.
#[must_use]
pub fn etag(face: Face, id: Digest, pieces: bool, places: &Places) -> String {
    let mut seen = format!(
        "{} {} {pieces} {}",
        env!("CARGO_PKG_VERSION"),
        face.suffix(),
        places.tracks
    );
    let _ = write!(seen, " {id}");
    for url in &places.urls {
        // No URL has a space.
        seen.push(' ');
        seen.push_str(url);
    }
    format!("\"{:.32}\"", Digest::of(seen.as_bytes()))
}

/// How many pieces an object of `size` bytes has.
#[must_use]
pub fn pieces(size: u64) -> usize {
    usize::try_from(size.div_ceil(piece(size))).unwrap_or(usize::MAX)
}

/// Bytes of a piece: by the object's size alone, some two thousand of them at most while that can be.
#[must_use]
pub fn piece(size: u64) -> u64 {
    size.div_ceil(PIECES)
        .next_power_of_two()
        .clamp(PIECE_MIN, PIECE_MAX)
}

/// What a torrent is known by: the SHA-1 of its info dictionary.
#[must_use]
pub fn info_hash(manifest: &Manifest, pieces: &[u8]) -> [u8; SHA1] {
    sha1::Sha1::digest(info(manifest, pieces)).into()
}

/// Bytes of the info dictionary.
#[must_use]
pub fn info_size(manifest: &Manifest) -> usize {
    let pieces = pieces(manifest.layout.size) * SHA1;
    info(manifest, &vec![0; pieces]).len()
}

/// The info dictionary of a torrent.
#[must_use]
pub fn info(manifest: &Manifest, pieces: &[u8]) -> Vec<u8> {
    let size = manifest.layout.size;
    let mut out = format!("d6:lengthi{size}e4:name").into_bytes();
    bytes(&mut out, name(manifest).as_bytes());
    let piece = piece(size);
    out.extend_from_slice(format!("12:piece lengthi{piece}e6:pieces").as_bytes());
    bytes(&mut out, pieces);
    out.push(b'e');
    out
}

/// A byte string of the bencoding.
fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn name(manifest: &Manifest) -> &str {
    manifest.path.rsplit('/').next().unwrap_or_default()
}

/// XML 1.0 has no way to write these.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{fffe}' | '\u{ffff}' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, b| {
        let _ = write!(hex, "{b:02x}");
        hex
    })
}

/// Percent-encodes all but what is unreserved (RFC 3986 section 2.3).
fn component(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// Bytes of a piece's digest.
pub const SHA1: usize = 20;

/// Seconds after which a client may ask a tracker again.
const INTERVAL: u32 = 1_800;

const PIECES: u64 = 2_048;
const PIECE_MIN: u64 = 256 << 10;
const PIECE_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::chunk::Layout;

    fn places(urls: &[&str]) -> Places {
        Places {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            tracks: false,
        }
    }

    fn manifest(path: &str) -> Manifest {
        Manifest {
            path: path.into(),
            layout: Layout {
                size: 5,
                chunk: 1 << 20,
            },
            media_type: "video/mp4".into(),
            modified: 784_111_777,
            sha256: [0xab; 32],
            chunks: Vec::new(),
        }
    }

    #[test]
    fn metalink_escapes_what_it_names() {
        let named = manifest("/d/a<b>&\"\u{1}");
        let xml = metalink(&named, Some(&[1; 20]), &places(&["http://a/x?&"]));
        assert!(!xml.contains("<pieces"), "{xml}");
        assert!(
            xml.contains("<file name=\"a&lt;b&gt;&amp;&quot;_\">"),
            "{xml}"
        );
        assert!(
            xml.contains("<url priority=\"1\">http://a/x?&amp;</url>"),
            "{xml}"
        );
        assert!(
            xml.contains("<published>1994-11-06T08:49:37.000Z</published>"),
            "{xml}"
        );
        assert!(xml.contains(&format!(">{}<", "ab".repeat(32))), "{xml}");
    }

    #[test]
    fn metalink_has_the_digests_of_pieces_in_their_order() {
        let digests = [[1; 20], [2; 20]].concat();
        let xml = metalink(&manifest("/v"), Some(&digests), &places(&["http://a/v"]));
        let expected = format!(
            "    <pieces length=\"262144\" type=\"sha-1\">\n      <hash>{}</hash>\n      <hash>{}</hash>\n    </pieces>\n",
            "01".repeat(20),
            "02".repeat(20)
        );
        assert!(xml.contains(&expected), "{xml}");
    }

    #[test]
    fn etag_differs_where_the_document_does() {
        let both = places(&["http://a/v", "http://b/v"]);
        let tracked = Places {
            tracks: true,
            ..both.clone()
        };
        let id = Digest([1; 32]);
        let tags = [
            etag(Face::Torrent, id, true, &both),
            etag(Face::Magnet, id, true, &both),
            etag(Face::Torrent, Digest([2; 32]), true, &both),
            etag(Face::Torrent, id, false, &both),
            etag(Face::Torrent, id, true, &places(&["http://a/v"])),
            etag(Face::Torrent, id, true, &tracked),
        ];
        for (at, tag) in tags.iter().enumerate() {
            assert_eq!(tags.iter().position(|other| other == tag), Some(at));
        }
    }

    #[test]
    fn torrent_is_bencoded_and_its_magnet_link_names_it() {
        let (manifest, mut places) = (manifest("/d/v"), places(&["http://a/v"]));
        let text =
            |places: &Places| String::from_utf8(torrent(&manifest, &[b'x'; 20], places)).unwrap();
        let inner = "d6:lengthi5e4:name1:v12:piece lengthi262144e6:pieces20:xxxxxxxxxxxxxxxxxxxxe";
        assert_eq!(
            text(&places),
            format!("d4:info{inner}8:url-listl10:http://a/vee")
        );
        assert_eq!(info_size(&manifest), inner.len());
        let hash = hex(&sha1::Sha1::digest(inner));
        let before = format!("magnet:?xt=urn:btih:{hash}&dn=v&xl=5&xs=http%3A%2F%2Fa%2Fv.torrent");
        let link = magnet(&manifest, &[b'x'; 20], &places);
        assert_eq!(link, format!("{before}&ws=http%3A%2F%2Fa%2Fv"));
        places.tracks = true;
        let link = magnet(&manifest, &[b'x'; 20], &places);
        let tracker = "http%3A%2F%2Fa%2Fv.announce";
        assert_eq!(link, format!("{before}&tr={tracker}&ws=http%3A%2F%2Fa%2Fv"));
        assert_eq!(
            text(&places),
            format!("d8:announce19:http://a/v.announce4:info{inner}8:url-listl10:http://a/vee")
        );
    }

    #[test]
    fn tracker_answers_in_few_bytes_where_it_can() {
        let peers = [("192.0.2.1".to_owned(), 80), ("::1".to_owned(), 258)];
        let mut expected = b"d8:intervali1800e5:peers6:\xc0\0\x02\x01\0\x506:peers618:".to_vec();
        expected.extend_from_slice(&[0; 15]);
        expected.extend_from_slice(b"\x01\x01\x02e");
        assert_eq!(announced(&peers, true), expected);
        let list = "d2:ip9:192.0.2.14:porti80eed2:ip3:::14:porti258ee";
        let long = format!("d8:intervali1800e5:peersl{list}ee");
        assert_eq!(announced(&peers, false), long.as_bytes());
        let named = [("a.test".to_owned(), 80)];
        let long = "d8:intervali1800e5:peersld2:ip6:a.test4:porti80eeee";
        assert_eq!(announced(&named, true), long.as_bytes());
    }

    #[track_caller]
    fn check_peer(url: &str, expected: Option<(&str, u16)>) {
        let expected = expected.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(peer(url), expected, "{url}");
    }

    #[test]
    fn peer_is_a_server_in_the_clear() {
        check_peer("http://a.test:8080/x:1", Some(("a.test", 8080)));
        check_peer("http://a.test", Some(("a.test", 80)));
        check_peer("http://[::1]:81/", Some(("::1", 81)));
        check_peer("http://[::1]/", Some(("::1", 80)));
        check_peer("http://a:x/", None);
        check_peer("https://a.test/", None);
        check_peer("http:///", None);
    }

    #[test]
    fn pieces_are_some_thousand_at_most() {
        assert_eq!(piece(0), 256 << 10);
        assert_eq!(piece(512 << 20), 256 << 10);
        assert_eq!(piece((512 << 20) + 1), 512 << 10);
        assert_eq!(piece(1 << 50), 16 << 20);
    }

    #[test]
    fn face_is_asked_for_by_a_suffix() {
        assert_eq!(Face::of("/a.torrent"), Some((Face::Torrent, "/a")));
        assert_eq!(Face::of("/a.bin"), None);
        assert_eq!(Face::of("/a/.torrent"), None);
    }
}
