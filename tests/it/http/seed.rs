//! BitTorrent peers on the port of HTTP.

use headwater::http::faces::{self, Face};
use headwater::http::message::{self, HANDSHAKE, PART};
use sha1::{Digest as _, Sha1};

use super::*;

const PIECE: u32 = 256 << 10;

/// Files are digested in pieces while their name is not on the network yet.
async fn start() -> Node {
    start_with(|config| config).await
}

async fn start_with(change: impl FnOnce(Config) -> Config) -> Node {
    let rule = Rule {
        prefix: "/".into(),
        duplicates: vec!["http://192.0.2.7:81".into(), "https://b".into()],
        faces: vec![Face::Torrent],
        ..Rule::default()
    };
    let node = Node::start(change(Config {
        rules: vec![rule],
        torrent_peers: true,
        ..config_of_tests()
    }))
    .await;
    let deadline = Instant::now() + LONG;
    // The largest comes to be known last or not: all are asked for.
    while hello(&node, &info_hash()).await.is_none() {
        assert!(Instant::now() < deadline, "no peer is served");
        tokio::time::sleep(POLL).await;
    }
    node
}

fn info() -> Vec<u8> {
    let big = big();
    let digest = |piece| <[u8; 20]>::from(Sha1::digest(piece));
    let digests: Vec<_> = big.chunks(PIECE as usize).map(digest).collect();
    let mut info = format!(
        "d6:lengthi{}e4:name7:big.bin12:piece lengthi{PIECE}e6:pieces{}:",
        big.len(),
        digests.len() * 20
    )
    .into_bytes();
    info.extend_from_slice(&digests.concat());
    info.push(b'e');
    info
}

fn info_hash() -> [u8; 20] {
    Sha1::digest(info()).into()
}

/// A connection that has shaken hands; `None` if the node closed it.
async fn hello(node: &Node, hash: &[u8; 20]) -> Option<TcpStream> {
    let mut stream = node.connect().await;
    let bytes = message::handshake(hash, b"-XX0001-aaaaaaaaaaaa");
    stream.write_all(&bytes).await.unwrap();
    let mut answer = [0; HANDSHAKE];
    timeout(LONG, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .ok()?;
    assert_eq!(answer[..28], bytes[..28]);
    assert_eq!(answer[28..48], hash[..]);
    Some(stream)
}

/// The next message without its length.
async fn next(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let mut bytes = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut bytes).await.map(|_| bytes)
    };
    timeout(LONG, read).await.unwrap().unwrap()
}

async fn send(stream: &mut TcpStream, parts: &[&[u8]]) {
    let bytes = parts.concat();
    stream.write_u32(bytes.len() as u32).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

fn request(index: u32, begin: u32, length: u32) -> Vec<u8> {
    let mut out = vec![6];
    for word in [index, begin, length] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out
}

#[tokio::test]
async fn peer_gets_the_torrent_and_any_part_of_its_pieces() {
    let node = start().await;
    let (info, big) = (info(), big());
    let mut stream = hello(&node, &info_hash()).await.expect("it is served");
    let extended = next(&mut stream).await;
    let text = String::from_utf8_lossy(&extended);
    assert!(
        text.contains(&format!("13:metadata_sizei{}e", info.len())),
        "{text}"
    );
    let bits = next(&mut stream).await;
    let pieces = faces::pieces(big.len() as u64);
    assert_eq!(bits.len(), 1 + pieces.div_ceil(8));
    assert_eq!(
        bits[1..].iter().map(|b| b.count_ones()).sum::<u32>() as usize,
        pieces
    );

    send(&mut stream, &[b"\x14\0d1:md11:ut_metadatai5eee"]).await;
    send(&mut stream, &[b"\x14\x01d8:msg_typei0e5:piecei0ee"]).await;
    let part = next(&mut stream).await;
    assert_eq!(part[..2], [20, 5]);
    assert!(info.len() < PART && part.ends_with(&info));

    send(&mut stream, &[b"\x02"]).await;
    assert_eq!(next(&mut stream).await, [1]);
    let last = (pieces - 1) as u32;
    let rest = big.len() as u32 - last * PIECE;
    for (index, begin, length) in [
        (0, 0, 16 << 10),
        (0, 16 << 10, 16 << 10),
        (3, PIECE - 1, 1),
        (1, 5, 128 << 10),
        (last, 0, rest),
    ] {
        send(&mut stream, &[&request(index, begin, length)]).await;
        let piece = next(&mut stream).await;
        assert_eq!(piece[0], 7);
        assert_eq!(piece[1..9], request(index, begin, length)[1..9]);
        let start = (index * PIECE + begin) as usize;
        assert!(
            piece[9..] == big[start..start + length as usize],
            "{index} {begin}"
        );
    }
    drop(stream);
    let (metrics, _dir) = node.end().await;
    let sent = 2 * (16 << 10) + 1 + (128 << 10) + rest;
    assert_eq!(metrics.http.torrent_sent.get(), u64::from(sent));
}

#[tokio::test]
async fn peer_that_makes_no_sense_is_closed() {
    let node = start().await;
    let last = (faces::pieces(big().len() as u64) - 1) as u32;
    for bytes in [
        request(0, 0, (128 << 10) + 1),
        request(0, 0, 0),
        request(0, PIECE - 1, 2),
        request(last, 0, PIECE.min(128 << 10)),
        request(u32::MAX, u32::MAX, u32::MAX),
        vec![6, 0],
    ] {
        let mut stream = hello(&node, &info_hash()).await.expect("it is served");
        let before = node.metrics.http.closed(Closed::Protocol);
        send(&mut stream, &[&bytes]).await;
        read_all(&mut stream).await;
        eventually("closed for what it said", || {
            node.metrics.http.closed(Closed::Protocol) > before
        })
        .await;
    }
    let mut stream = hello(&node, &info_hash()).await.expect("it is served");
    stream.write_u32(u32::MAX).await.unwrap();
    read_all(&mut stream).await;
    assert!(hello(&node, &[9; 20]).await.is_none(), "nobody has that");
    // HTTP is spoken all the same.
    assert_eq!(node.get("/small.txt", &[]).await.body, SMALL);
}

#[tokio::test]
async fn peer_that_says_nothing_or_reads_nothing_is_closed() {
    let node = start_with(|config| Config {
        silent: Duration::from_millis(200),
        idle: Duration::from_millis(300),
        slow: Duration::from_millis(400),
        ..config
    })
    .await;
    let mut stream = node.connect().await;
    read_all(&mut stream).await;
    let mut stream = hello(&node, &info_hash()).await.expect("it is served");
    read_all(&mut stream).await;
    let stream = hello(&node, &info_hash()).await.expect("it is served");
    let (read, mut write) = stream.into_split();
    // Until nothing fits into the sockets between.
    let asks = async { while send_to(&mut write, &request(0, 0, 128 << 10)).await.is_ok() {} };
    timeout(LONG, asks).await.expect("the node closes");
    drop(read);
    let closed = |reason| node.metrics.http.closed(reason);
    eventually("all three were seen", || {
        closed(Closed::Silent) == 1 && closed(Closed::Idle) >= 1 && closed(Closed::Slow) == 1
    })
    .await;
}

async fn send_to(
    stream: &mut tokio::net::tcp::OwnedWriteHalf,
    bytes: &[u8],
) -> std::io::Result<()> {
    stream.write_u32(bytes.len() as u32).await?;
    stream.write_all(bytes).await
}

#[tokio::test]
async fn tracker_names_the_nodes_that_can_be_peers() {
    let node = start().await;
    let magnet = node.get("/big.bin.magnet", &[]).await;
    let magnet = String::from_utf8(magnet.body).unwrap();
    assert!(
        magnet.contains("&tr=http%3A%2F%2Ftest%2Fbig.bin.announce&"),
        "{magnet}"
    );
    let target = "/big.bin.announce?info_hash=%00&compact=1";
    let reply = node.get(target, &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("cache-control"), "no-store");
    // The node is called by a name here.
    let expected = "d8:intervali1800e5:peersld2:ip4:test4:porti80eed2:ip9:192.0.2.74:porti81eeee";
    assert_eq!(String::from_utf8_lossy(&reply.body), expected);
}

#[tokio::test]
async fn node_that_serves_no_peers_names_none() {
    let node = start_without().await;
    assert_eq!(node.get("/big.bin.announce", &[]).await.status, 404);
    let bytes = message::handshake(&info_hash(), b"-XX0001-aaaaaaaaaaaa");
    assert_eq!(Reply::parse(&node.raw(&bytes).await).status, 400);
    let magnet = node.get("/big.bin.magnet", &[]).await;
    assert!(!String::from_utf8_lossy(&magnet.body).contains("&tr="));
}

async fn start_without() -> Node {
    let rule = Rule {
        prefix: "/".into(),
        faces: vec![Face::Torrent],
        ..Rule::default()
    };
    Node::start(Config {
        rules: vec![rule],
        ..config_of_tests()
    })
    .await
}
