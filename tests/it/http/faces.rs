//! Objects as Metalink, torrent and magnet link.

use headwater::http::faces::Face;
use sha1::Sha1;

use super::filling::{CHUNK, mirror_with, put};
use super::*;

/// Bytes of a piece of every object here.
const PIECE: usize = 256 << 10;

fn config(faces: &[Face]) -> Config {
    let rule = Rule {
        prefix: "/".into(),
        cache_control: Some("max-age=60".parse().unwrap()),
        duplicates: vec!["http://b:81".into()],
        faces: faces.to_vec(),
        ..Rule::default()
    };
    Config {
        rules: vec![rule],
        ..config_of_tests()
    }
}

const ALL: &[Face] = &[Face::Metalink, Face::Torrent];

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-1 of each piece.
fn pieces(bytes: &[u8]) -> Vec<[u8; 20]> {
    let digest = |piece| <[u8; 20]>::from(Sha1::digest(piece));
    bytes.chunks(PIECE).map(digest).collect()
}

/// The info dictionary a torrent of `bytes` must have.
fn info(name: &str, bytes: &[u8]) -> Vec<u8> {
    let pieces = pieces(bytes).concat();
    let mut info = format!(
        "d6:lengthi{}e4:name{}:{name}12:piece lengthi{PIECE}e6:pieces{}:",
        bytes.len(),
        name.len(),
        pieces.len()
    )
    .into_bytes();
    info.extend_from_slice(&pieces);
    info.push(b'e');
    info
}

#[tokio::test]
async fn metalink_names_size_digests_and_all_servers() {
    let node = Node::start(config(ALL)).await;
    let reply = node.get("/big.bin.meta4", &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("content-type"), "application/metalink4+xml");
    assert_eq!(reply.field("cache-control"), "max-age=60");
    let (xml, big) = (text(&reply), big());
    let mut hashes = String::new();
    for digest in pieces(&big) {
        hashes += &format!("      <hash>{}</hash>\n", hex(&digest));
    }
    for part in [
        "<file name=\"big.bin\">".to_owned(),
        format!("<size>{}</size>", big.len()),
        format!(
            "<hash type=\"sha-256\">{}</hash>",
            hex(&Sha256::digest(&big))
        ),
        format!("<pieces length=\"{PIECE}\" type=\"sha-1\">\n{hashes}    </pieces>"),
        "<url priority=\"1\">http://test/big.bin</url>".into(),
        "<url priority=\"2\">http://b:81/big.bin</url>".into(),
        "<origin dynamic=\"true\">http://test/big.bin.meta4</origin>".into(),
    ] {
        assert!(xml.contains(&part), "{part} is not in {xml}");
    }
}

#[tokio::test]
async fn torrent_and_magnet_link_have_one_info_hash() {
    let node = Node::start(config(ALL)).await;
    let big = big();
    let info = info("big.bin", &big);
    let torrent = node.get("/big.bin.torrent", &[]).await;
    assert_eq!(torrent.status, 200);
    assert_eq!(torrent.field("content-type"), "application/x-bittorrent");
    let seeds = b"8:url-listl19:http://test/big.bin19:http://b:81/big.binee";
    let expected = [&b"d4:info"[..], &info, seeds].concat();
    assert!(torrent.body == expected, "another torrent");
    let magnet = node.get("/big.bin.magnet", &[]).await;
    assert_eq!(
        text(&magnet),
        format!(
            "magnet:?xt=urn:btih:{}&dn=big.bin&xl={}&xs=http%3A%2F%2Ftest%2Fbig.bin.torrent&ws=http%3A%2F%2Ftest%2Fbig.bin&ws=http%3A%2F%2Fb%3A81%2Fbig.bin\n",
            hex(&Sha1::digest(&info)),
            big.len()
        )
    );
    let (metrics, _dir) = node.end().await;
    // Digested once for both.
    assert_eq!(metrics.http.pieces_digested.get(), big.len() as u64);
    assert!(metrics.http.pieces_bytes.get() >= 20 * pieces(&big).len() as i64);
}

#[tokio::test]
async fn face_of_an_empty_object_is_whole() {
    let node = Node::start(config(ALL)).await;
    let torrent = node.get("/empty.bin.torrent", &[]).await;
    assert!(text(&torrent).starts_with("d4:infod6:lengthi0e4:name9:empty.bin"));
    let metalink = node.get("/empty.bin.meta4", &[]).await;
    assert!(text(&metalink).contains("<size>0</size>"));
}

#[tokio::test]
async fn head_and_conditions_of_a_face_are_those_of_a_page_and_cost_no_digest() {
    let node = Node::start(config(ALL)).await;
    let mut tags = Vec::new();
    for suffix in ["meta4", "torrent", "magnet"] {
        let target = format!("/big.bin.{suffix}");
        let mut head = node.ask("HEAD", &target, &[]).await;
        assert_eq!(head.status, 200, "{target}");
        let tag = head.field("etag").to_owned();
        let same = node.get(&target, &[("If-None-Match", &tag)]).await;
        assert_eq!(
            (same.status, same.field("etag")),
            (304, &tag[..]),
            "{target}"
        );
        let other = node.get(&target, &[("If-Match", "\"other\"")]).await;
        assert_eq!(other.status, 412, "{target}");
        assert_eq!(node.metrics.http.pieces_digested.get(), 0, "{target}");
        head.fields.remove("date");
        tags.push((target, head));
    }
    for (target, head) in tags {
        let mut get = node.get(&target, &[]).await;
        assert_eq!(get.field("content-length"), get.body.len().to_string());
        get.fields.remove("date");
        assert_eq!(get.fields, head.fields, "{target}");
    }
}

#[tokio::test]
async fn file_with_the_name_of_a_face_is_served_as_it_is() {
    let node = Node::start(config(ALL)).await;
    let file = node.dir.path().join("content/small.txt.torrent");
    std::fs::write(file, "my own").unwrap();
    let reply = node.get("/small.txt.torrent", &[]).await;
    assert_eq!((reply.status, &text(&reply)[..]), (200, "my own"));
    // And has faces itself.
    let reply = node.get("/small.txt.torrent.meta4", &[]).await;
    assert!(text(&reply).contains("<size>6</size>"));
}

#[tokio::test]
async fn face_that_is_switched_off_or_of_nothing_is_not_found() {
    let node = Node::start(config(&[Face::Metalink])).await;
    for (target, status) in [
        ("/big.bin.meta4", 200),
        ("/big.bin.torrent", 404),
        ("/big.bin.magnet", 404),
        ("/missing.meta4", 404),
        ("/films.meta4", 404),
        ("/.meta4", 404),
        ("/films/.meta4", 404),
    ] {
        assert_eq!(node.get(target, &[]).await.status, status, "{target}");
    }
    let head = b"HEAD /big.bin HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let head = String::from_utf8(node.raw(head).await).unwrap();
    let links = head.lines().filter_map(|line| line.strip_prefix("link: "));
    let expected = [
        "<http://b:81/big.bin>; rel=duplicate; pri=1",
        "</big.bin.meta4>; rel=describedby; type=\"application/metalink4+xml\"",
    ];
    assert_eq!(links.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn face_for_a_client_that_calls_the_server_nothing_good_is_refused() {
    let node = Node::start(config(ALL)).await;
    for head in [
        "GET /big.bin.meta4 HTTP/1.0\r\n\r\n",
        "GET /big.bin.meta4 HTTP/1.1\r\nHost: a\"b\r\nConnection: close\r\n\r\n",
        "GET /big.bin.meta4 HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
    ] {
        let reply = Reply::parse(&node.raw(head.as_bytes()).await);
        assert_eq!(reply.status, 400, "{head}");
    }
}

#[tokio::test]
async fn mirror_that_fills_gives_metalink_at_once_and_the_torrent_when_it_can() {
    let bytes = &big()[..5 * CHUNK as usize + 5];
    let (node, object) = mirror_with(
        bytes,
        Config {
            fill_wait: Duration::from_millis(100),
            ..config(ALL)
        },
    );
    let early = node.get("/mirrored.bin.meta4", &[]).await;
    assert_eq!(early.status, 200);
    assert!(text(&early).contains(&hex(&Sha256::digest(bytes))));
    assert!(!text(&early).contains("<pieces"));
    let torrent = node.get("/mirrored.bin.torrent", &[]).await;
    assert_eq!(torrent.status, 503);
    assert!(torrent.field("retry-after").parse::<u32>().is_ok());
    for index in 0..6 {
        put(&object, bytes, index);
    }
    let torrent = node.get("/mirrored.bin.torrent", &[]).await;
    assert_eq!(torrent.status, 200);
    let info = info("mirrored.bin", bytes);
    assert!(torrent.body[7..].starts_with(&info), "another torrent");
    let later = node.get("/mirrored.bin.meta4", &[]).await;
    assert!(text(&later).contains("<pieces"));
    assert_ne!(early.field("etag"), later.field("etag"));
}
