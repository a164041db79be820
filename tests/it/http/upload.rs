//! Files put and deleted over HTTP.

use headwater::http::upload;
use headwater::metrics::http::Upload;

use super::*;

const TOKEN: &str = "a-token-of-the-tests";

/// A node that takes files beneath `/in/`, at most 4 MiB each.
async fn node(change: impl FnOnce(&mut upload::Config)) -> (Node, TempDir) {
    let tokens = tempfile::tempdir().unwrap();
    let file = tokens.path().join("tokens");
    std::fs::write(&file, format!("# of tests\nanother-token-of-16\n{TOKEN}\n")).unwrap();
    let mut config = config_of_tests();
    let mut upload = upload::Config {
        token_file: file,
        prefix: "/in/".into(),
        max: 4 << 20,
        at_once: 2,
        keep: Duration::from_secs(60),
    };
    change(&mut upload);
    config.upload = Some(upload);
    (Node::start(config).await, tokens)
}

impl Node {
    /// A request with a token and a body.
    async fn put(&self, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        self.with_body("PUT", target, fields, body).await
    }

    async fn with_body(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let length = body.len();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        if !fields.iter().any(|(name, _)| *name == "Authorization") {
            head += &format!("Authorization: Bearer {TOKEN}\r\n");
        }
        if !fields.iter().any(|(name, _)| *name == "Content-Length") {
            head += &format!("Content-Length: {length}\r\n");
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = self.connect().await;
        stream
            .write_all(format!("{head}\r\n").as_bytes())
            .await
            .unwrap();
        // It may be refused before all of it was sent.
        let _ = stream.write_all(body).await;
        Reply::parse(&read_all(&mut stream).await)
    }

    /// Files on their way.
    fn parts(&self) -> Vec<String> {
        let dir = self.dir.path().join("content/.headwater");
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", base64(&Sha256::digest(bytes)))
}

#[tokio::test]
async fn file_put_is_an_object_at_once() {
    let (node, _tokens) = node(|_| {}).await;
    let big = big();
    for (target, bytes) in [("/in/a.txt", SMALL), ("/in/deep/er/b%20c.bin", &big[..])] {
        let reply = node
            .put(target, &[("Repr-Digest", &sha256(bytes))], bytes)
            .await;
        assert_eq!(reply.status, 201, "{target}");
        assert_eq!(reply.field("location"), target);
        assert_eq!(reply.field("repr-digest"), sha256(bytes));
        let got = node.get(target, &[]).await;
        assert_eq!((got.status, got.field("etag")), (200, reply.field("etag")));
        assert!(got.body == bytes, "{target}: other bytes");
        let lies = node
            .dir
            .path()
            .join("content")
            .join(target[1..].replace("%20", " "));
        assert!(std::fs::read(lies).unwrap() == bytes);
    }
    // Again: it is replaced, and the version before it is gone.
    let etag = node.get("/in/a.txt", &[]).await.field("etag").to_owned();
    let reply = node.put("/in/a.txt", &[], b"other").await;
    assert_eq!(reply.status, 204);
    let got = node.get("/in/a.txt", &[("If-Match", &etag)]).await;
    assert_eq!(got.status, 412);
    assert_eq!(node.get("/in/a.txt", &[]).await.body, b"other");
    assert!(node.parts().is_empty(), "{:?}", node.parts());
    assert_eq!(node.metrics.http.uploads(Upload::Stored), 3);
    let reply = node.with_body("DELETE", "/in/a.txt", &[], b"").await;
    assert_eq!(reply.status, 204);
    assert_eq!(node.get("/in/a.txt", &[]).await.status, 404);
    let reply = node.with_body("DELETE", "/in/a.txt", &[], b"").await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn who_has_no_token_or_aims_elsewhere_changes_nothing() {
    let (node, tokens) = node(|_| {}).await;
    for token in [
        "Bearer wrong-token-of-the-tests",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer # of tests",
    ] {
        for method in ["PUT", "DELETE"] {
            let reply = node
                .with_body(method, "/in/x", &[("Authorization", token)], b"x")
                .await;
            assert_eq!(reply.status, 401, "{method} {token}");
            assert_eq!(reply.field("www-authenticate"), "Bearer");
        }
    }
    let own = format!("Bearer {TOKEN}");
    let two = [
        ("Authorization", own.as_str()),
        ("Authorization", "Bearer x"),
    ];
    assert_eq!(node.put("/in/x", &two, b"x").await.status, 401);
    assert_eq!(node.metrics.http.uploads(Upload::Unauthorized), 11);
    for (target, status) in [
        ("/small.txt", 405),
        ("/in/", 405),
        ("/in/../small.txt", 405),
        ("/in/%2e%2e/small.txt", 405),
        ("/in/.hidden", 403),
        ("/in/../../x", 405),
    ] {
        let reply = node.put(target, &[], b"x").await;
        assert_eq!(reply.status, status, "{target}");
    }
    std::os::unix::fs::symlink(node.dir.path(), node.dir.path().join("content/in-link")).unwrap();
    std::fs::create_dir_all(node.dir.path().join("content/in")).unwrap();
    std::os::unix::fs::symlink(node.dir.path(), node.dir.path().join("content/in/out")).unwrap();
    let reply = node.put("/in/out/stolen", &[], b"x").await;
    assert!(reply.status >= 400, "{}", reply.status);
    assert!(!node.dir.path().join("stolen").exists());
    assert_eq!(node.get("/small.txt", &[]).await.body, SMALL);
    // A token counts from the moment it stands in the file.
    std::fs::write(tokens.path().join("tokens"), "a-new-token-of-tests\n").unwrap();
    let new = ("Authorization", "Bearer a-new-token-of-tests");
    assert_eq!(node.put("/in/x", &[new], b"x").await.status, 201);
    assert_eq!(node.put("/in/x", &[], b"y").await.status, 401);
    std::fs::remove_file(tokens.path().join("tokens")).unwrap();
    assert_eq!(node.put("/in/x", &[new], b"y").await.status, 503);
    assert_eq!(node.get("/in/x", &[]).await.body, b"x");
}

#[tokio::test]
async fn bytes_that_are_not_those_declared_are_422_and_nothing_stays() {
    let (node, _tokens) = node(|_| {}).await;
    let other = sha256(b"other");
    let sha512 = format!("sha-512=:{}:", base64(&sha2::Sha512::digest(SMALL)));
    for (name, value, status) in [
        ("Repr-Digest", other.as_str(), 422),
        ("Content-Digest", &other, 422),
        ("Content-Digest", "sha-256=:AAAA:", 400),
        ("Content-Digest", "what?", 400),
        ("Content-Encoding", "gzip", 415),
        ("Content-Range", "bytes 0-9/*", 400),
        ("Content-Range", "bytes 0-1/16", 400),
        ("If-Match", "*", 412),
        ("Content-Digest", &sha512, 201),
        ("If-None-Match", "*", 412),
        ("Repr-Digest", "md5=:AAAA:", 204),
    ] {
        let reply = node.put("/in/x", &[(name, value)], SMALL).await;
        assert_eq!(reply.status, status, "{name}: {value}");
        if (400..500).contains(&status) && name != "If-None-Match" {
            assert_eq!(node.get("/in/x", &[]).await.status, 404, "{name}: {value}");
        }
        assert!(node.parts().is_empty(), "{name}: {:?}", node.parts());
    }
    assert_eq!(node.metrics.http.uploads(Upload::DigestMismatch), 2);
}

#[tokio::test]
async fn file_that_is_too_large_is_413_whether_it_says_so_or_not() {
    let (node, _tokens) = node(|config| config.max = 100).await;
    assert_eq!(node.put("/in/x", &[], &[b'x'; 100]).await.status, 201);
    assert_eq!(node.put("/in/y", &[], &[b'x'; 101]).await.status, 413);
    let range = ("Content-Range", "bytes 0-9/101");
    assert_eq!(node.put("/in/y", &[range], &[b'x'; 10]).await.status, 413);
    let mut chunked = format!(
        "PUT /in/y HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n"
    );
    chunked += &format!("{}\r\n0\r\n\r\n", "x".repeat(101));
    assert_eq!(
        Reply::parse(&node.raw(chunked.as_bytes()).await).status,
        413
    );
    assert_eq!(node.get("/in/y", &[]).await.status, 404);
    assert!(node.parts().is_empty(), "{:?}", node.parts());
    assert_eq!(node.metrics.http.uploads(Upload::TooLarge), 3);
}

#[tokio::test]
async fn upload_that_broke_off_goes_on_where_it_was() {
    let (node, _tokens) = node(|_| {}).await;
    let bytes = &big()[..3 << 20];
    let size = bytes.len();
    // 2 MiB of 3, then the client is gone.
    let mut stream = node.connect().await;
    let head = format!(
        "PUT /in/x HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes[..2 << 20]).await.unwrap();
    let metrics = Arc::clone(&node.metrics);
    eventually("it is taken", || metrics.http.upload_bytes.get() == 2 << 20).await;
    drop(stream);
    eventually("it is seen to be gone", || {
        metrics.http.connections.get() == 0
    })
    .await;
    assert_eq!(node.get("/in/x", &[]).await.status, 404);
    let query = format!("bytes */{size}");
    let deadline = Instant::now() + LONG;
    let at = loop {
        let reply = node.put("/in/x", &[("Content-Range", &query)], b"").await;
        // 409 as long as the last of it is being written.
        if reply.status == 202 {
            break reply.field("upload-offset").parse::<usize>().unwrap();
        }
        assert_eq!(reply.status, 409);
        assert!(Instant::now() < deadline, "what came is kept");
    };
    assert!((1 << 20..=2 << 20).contains(&at), "{at}");
    // Not from beyond what is there.
    let beyond = format!("bytes {}-{}/{size}", at + 1, size - 1);
    let reply = node
        .put("/in/x", &[("Content-Range", &beyond)], &bytes[at + 1..])
        .await;
    assert_eq!(reply.status, 409);
    assert_eq!(reply.field("upload-offset"), at.to_string());
    // One part more, then the rest.
    let middle = at + 1_000;
    let part = format!("bytes {at}-{}/{size}", middle - 1);
    let reply = node
        .put(
            "/in/x",
            &[
                ("Content-Range", &part),
                ("Content-Digest", &sha256(&bytes[at..middle])),
            ],
            &bytes[at..middle],
        )
        .await;
    assert_eq!(
        (reply.status, reply.field("upload-offset")),
        (202, &*middle.to_string())
    );
    let rest = format!("bytes {middle}-{}/{size}", size - 1);
    let whole = sha256(bytes);
    let fields = [("Content-Range", rest.as_str()), ("Repr-Digest", &whole)];
    let reply = node.put("/in/x", &fields, &bytes[middle..]).await;
    assert_eq!(reply.status, 201);
    assert!(node.get("/in/x", &[]).await.body == bytes, "other bytes");
    assert!(node.parts().is_empty(), "{:?}", node.parts());
}

#[tokio::test]
async fn uploads_are_bounded_and_what_breaks_off_is_swept() {
    let (node, _tokens) = node(|config| {
        config.at_once = 1;
        config.keep = Duration::from_secs(1);
    })
    .await;
    let mut open = node.connect().await;
    let head = format!(
        "PUT /in/x HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\nhalf"
    );
    open.write_all(head.as_bytes()).await.unwrap();
    let metrics = Arc::clone(&node.metrics);
    eventually("the first is taken", || {
        metrics.http.upload_bytes.get() == 4
    })
    .await;
    let reply = node.put("/in/y", &[], b"x").await;
    assert_eq!(reply.status, 503);
    assert_eq!(metrics.http.uploads(Upload::Busy), 1);
    drop(open);
    eventually("it is swept", || metrics.http.uploads_swept.get() == 1).await;
    assert!(node.parts().is_empty(), "{:?}", node.parts());
    assert_eq!(node.put("/in/y", &[], b"x").await.status, 201);
}

#[tokio::test]
async fn upload_that_stalls_is_closed_and_one_that_trickles_enough_is_not() {
    let slow = Duration::from_secs(1);
    let tokens = tempfile::tempdir().unwrap();
    let file = tokens.path().join("tokens");
    std::fs::write(&file, TOKEN).unwrap();
    let mut config = config_of_tests();
    config.slow = slow;
    config.upload = Some(upload::Config {
        token_file: file,
        prefix: "/in/".into(),
        max: 4 << 20,
        at_once: 2,
        keep: LONG,
    });
    let node = Node::start(config).await;
    let begin = async |path: &str| {
        let mut stream = node.connect().await;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let mut good = begin("/in/good").await;
    let stalled = begin("/in/bad").await;
    let metrics = Arc::clone(&node.metrics);
    let end = Instant::now() + 3 * slow;
    while Instant::now() < end {
        good.write_all(&[b'x'; 1_000]).await.unwrap();
        tokio::time::sleep(slow / 20).await;
    }
    assert_eq!(metrics.http.closed(Closed::Slow), 1, "the one that stalled");
    drop(stalled);
    eventually("then the other", || metrics.http.closed(Closed::Slow) == 2).await;
}

#[tokio::test]
async fn options_say_where_files_may_be_put() {
    let (node, _tokens) = node(|_| {}).await;
    let allow = async |target: &str| {
        let reply = node.ask("OPTIONS", target, &[]).await;
        reply.field("allow").to_owned()
    };
    assert_eq!(allow("/in/x").await, "GET, HEAD, OPTIONS, PUT, DELETE");
    assert_eq!(allow("/x").await, "GET, HEAD, OPTIONS");
}
