//! Objects that still come from another node.

use super::*;

/// A node that mirrors `bytes` as `/mirrored.bin` and holds no chunk of it yet.
fn mirror(bytes: &[u8], fill_wait: Duration) -> (Node, Arc<Object>) {
    mirror_with(
        bytes,
        Config {
            fill_wait,
            ..config_of_tests()
        },
    )
}

/// The same with a configuration of one's own.
pub(super) fn mirror_with(bytes: &[u8], config: Config) -> (Node, Arc<Object>) {
    let dir = tempfile::tempdir().unwrap();
    let metrics = metrics();
    let stored = StoreConfig::new(dir.path().join("store"));
    let library = Library::new(&stored, Arc::clone(&metrics));
    let store = Store::open(&stored, &library, Arc::clone(&metrics)).unwrap();
    let manifest = Manifest {
        path: "/mirrored.bin".into(),
        layout: Layout {
            size: bytes.len() as u64,
            chunk: CHUNK,
        },
        media_type: "application/octet-stream".into(),
        modified: 784_111_777,
        sha256: Sha256::digest(bytes).into(),
        chunks: bytes
            .chunks(CHUNK as usize)
            .map(|chunk| chunk::Digest(blake3::hash(chunk).into()))
            .collect(),
    };
    let object = store.begin(manifest).unwrap();
    let node = Node::serve(config, library, metrics, dir, CancellationToken::new());
    (node, object)
}

pub(super) const CHUNK: u32 = 64 << 10;

pub(super) fn put(object: &Arc<Object>, bytes: &[u8], index: u32) {
    let chunk = bytes.chunks(CHUNK as usize).nth(index as usize).unwrap();
    object.write(index, chunk).unwrap();
}

#[tokio::test]
async fn mirror_serves_chunks_as_they_come() {
    let bytes = &big()[..3 * CHUNK as usize + 5];
    let (node, object) = mirror(bytes, LONG);
    let mut stream = node.connect().await;
    stream
        .write_all(b"GET /mirrored.bin HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    for index in [0, 1, 2, 3] {
        eventually("the reader asks for its chunk", || {
            object.wants().contains(&index)
        })
        .await;
        put(&object, bytes, index);
        // What is held is served before the next chunk is there.
        let until = (CHUNK as usize * (index as usize + 1)).min(bytes.len());
        while Reply::try_parse(&seen).is_none_or(|reply| reply.body.len() < until) {
            let mut buffer = vec![0; 64 << 10];
            let read = timeout(LONG, stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert!(read > 0, "ended early");
            seen.extend_from_slice(&buffer[..read]);
        }
    }
    let reply = Reply::parse(&seen);
    assert_eq!(reply.status, 200);
    assert!(reply.body == bytes, "other bytes");
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Mirror, Outcome::Ok), 1);
    let fill = metrics.content.requests.with_label_values(&["fill"]);
    assert_eq!(fill.get(), 1);
}

#[tokio::test]
async fn range_of_a_held_chunk_does_not_wait_for_others() {
    let bytes = &big()[..3 * CHUNK as usize];
    let (node, object) = mirror(bytes, LONG);
    put(&object, bytes, 1);
    let reply = node
        .get("/mirrored.bin", &[("Range", "bytes=65536-131071")])
        .await;
    assert_eq!(reply.status, 206);
    assert!(reply.body == bytes[65_536..131_072], "other bytes");
}

#[tokio::test]
async fn mirror_without_the_first_chunk_says_503_in_time() {
    let bytes = &big()[..2 * CHUNK as usize];
    let (node, _object) = mirror(bytes, Duration::from_millis(100));
    let reply = node.get("/mirrored.bin", &[]).await;
    assert_eq!(reply.status, 503);
    assert!(reply.field("retry-after").parse::<u32>().is_ok());
    assert_eq!(node.ask("HEAD", "/mirrored.bin", &[]).await.status, 200);
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Mirror, Outcome::Unavailable), 1);
}

#[tokio::test]
async fn body_that_cannot_go_on_ends_its_connection() {
    let bytes = &big()[..2 * CHUNK as usize];
    let (node, object) = mirror(bytes, Duration::from_millis(100));
    put(&object, bytes, 0);
    let text = node
        .raw(b"GET /mirrored.bin HTTP/1.1\r\nHost: test\r\n\r\nGET /mirrored.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    let reply = Reply::parse(&text);
    assert_eq!(reply.field("content-length"), bytes.len().to_string());
    assert!(
        reply.body.len() <= CHUNK as usize,
        "nothing stands in for the missing chunk"
    );
    assert!(bytes.starts_with(&reply.body));
    let (metrics, _dir) = node.end().await;
    assert_eq!(metrics.http.requests(Role::Mirror, Outcome::Aborted), 1);
}
