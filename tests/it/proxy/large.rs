//! Large bodies in the clear, which a thread of their own brings.

use super::*;

/// A node before `upstream` with settings of `[proxy_cache]`.
fn cached(upstream: &Upstream, settings: &str) -> Node {
    node(
        upstream,
        &format!("[proxy_cache]\n{settings}[metrics]\nlisten = \"127.0.0.1:0\"\n"),
    )
}

/// A metric of the node.
fn metric(node: &Node, name: &str) -> f64 {
    let page = get(node.address("metrics"), "/metrics", &[]).body;
    let page = String::from_utf8(page).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("no {name} in {page}"));
    value.trim().parse().unwrap()
}

const THREADS: &str = "headwater_proxy_fill_threads ";

/// An upstream that sends `body`, halts at `at` the first time, and the gate that lets it go on.
fn halting(body: &[u8], at: usize) -> (Upstream, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let upstream = Upstream::start({
        let (gate, body) = (Arc::clone(&gate), body.to_vec());
        move |_| {
            let fields = ["Cache-Control: max-age=60", "ETag: \"v1\""];
            let whole = response("200 OK", &fields, &body);
            let (first, rest) = whole.split_at(at);
            Does::Halt(first.to_vec(), Arc::clone(&gate), rest.to_vec())
        }
    });
    (upstream, gate)
}

/// Asks for `/big` and reads until `bytes` of the answer are there.
fn begin(node: &Node, bytes: usize) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(node.address("http")).unwrap();
    let patience = Duration::from_secs(60);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream
        .write_all(b"GET /big HTTP/1.1\r\nhost: files.test\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut begun = vec![0; bytes];
    stream.read_exact(&mut begun).unwrap();
    (stream, begun)
}

#[track_caller]
fn assert_whole(answer: &[u8], body: &[u8]) {
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    assert!(answer[head + 4..] == *body, "the bytes differ");
}

#[test]
fn large_body_is_brought_by_a_thread_and_what_came_is_passed_on_at_once() {
    let body = noise((20 << 20) + 12_345);
    let (upstream, gate) = halting(&body, (3 << 20) + 777);
    let node = cached(&upstream, "");
    // Its readers have what came, also of a chunk that is not whole.
    let (mut stream, mut answer) = begin(&node, 3 << 20);
    until("a thread to bring it", || metric(&node, THREADS) > 0.0);
    gate.open();
    stream.read_to_end(&mut answer).unwrap();
    assert_whole(&answer, &body);
    until("the thread to end", || metric(&node, THREADS) == 0.0);
    let again = fetch(&node, "/big", &[]);
    assert!(again.body == body, "the bytes differ");
    let part = fetch(&node, "/big", &["range: bytes=9999999-11111111"]);
    assert!(part.body == body[9_999_999..=11_111_111], "a part differs");
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn large_bodies_beyond_the_threads_come_all_the_same() {
    let body = noise((9 << 20) + 1);
    let (upstream, gate) = halting(&body, 1 << 20);
    gate.open();
    let node = cached(&upstream, "fill_threads = 0\n");
    let answer = fetch(&node, "/big", &[]);
    assert!(answer.body == body, "the bytes differ");
    let hit = "headwater_proxy_limit_reached_total{limit=\"fill_threads\"} ";
    assert!(metric(&node, hit) > 0.0);
    assert_eq!(metric(&node, THREADS) as u64, 0);
}

#[test]
fn parts_that_are_missing_of_a_large_body_are_brought_by_a_thread_too() {
    let body = noise((30 << 20) + 5);
    let upstream = file(body.clone());
    let node = cached(&upstream, "");
    let at = 11 << 20;
    let one = fetch(&node, "/big", &[&format!("range: bytes={at}-{at}")]);
    assert_eq!(one.body, body[at..=at]);
    let whole = fetch(&node, "/big", &[]);
    assert!(whole.body == body, "the bytes differ");
    // One byte, what is before its chunk, what is behind it.
    assert_eq!(upstream.asked().len(), 3);
}

#[test]
fn connection_goes_on_behind_a_large_body() {
    let body = noise((9 << 20) + 3);
    let connections = Arc::new(Mutex::new(0));
    let upstream = Upstream::start_over(
        {
            let connections = Arc::clone(&connections);
            move |stream| {
                *connections.lock().unwrap() += 1;
                stream
            }
        },
        {
            let body = body.clone();
            move |_| Does::Say(response("200 OK", &["Cache-Control: max-age=60"], &body))
        },
    );
    let node = cached(&upstream, "");
    let mut asked = 0;
    // One that comes before the connection is free again opens another.
    until("a connection to be used twice", || {
        asked += 1;
        let answer = fetch(&node, &format!("/{asked}"), &[]);
        assert!(answer.body == body, "the bytes of {asked} differ");
        asked > *connections.lock().unwrap()
    });
}

#[test]
fn large_body_that_breaks_off_is_not_kept() {
    let body = noise(16 << 20);
    let upstream = Upstream::start({
        let body = body.clone();
        move |_| {
            let mut bytes = response("200 OK", &["Cache-Control: max-age=60"], &body);
            bytes.truncate(bytes.len() - 10);
            Does::Close(bytes)
        }
    });
    let node = cached(&upstream, "");
    for turn in 1..=2 {
        let answer = fetch(&node, "/big", &[]);
        assert!(answer.body.len() < body.len(), "{}", answer.body.len());
        assert!(answer.body == body[..answer.body.len()], "the bytes differ");
        assert_eq!(upstream.asked().len(), turn);
    }
}

#[test]
fn upstream_that_falls_silent_in_a_large_body_ends_it() {
    let body = noise(16 << 20);
    let (upstream, gate) = halting(&body, 5 << 20);
    let node = cached(&upstream, "silence = \"200ms\"\n");
    let (mut stream, mut answer) = begin(&node, 4 << 20);
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < body.len(), "it is not whole");
    let silent = "headwater_proxy_limit_reached_total{limit=\"silence\"} ";
    until("the silence to be counted", || metric(&node, silent) > 0.0);
    until("the thread to end", || metric(&node, THREADS) == 0.0);
    gate.open();
}

#[test]
fn thread_ends_soon_when_nobody_reads_its_body_any_more() {
    let body = noise(40 << 20);
    let (upstream, gate) = halting(&body, 5 << 20);
    let node = cached(&upstream, "");
    let (stream, _) = begin(&node, 4 << 20);
    until("a thread to bring it", || metric(&node, THREADS) > 0.0);
    drop(stream);
    until("the thread to end", || metric(&node, THREADS) == 0.0);
    let left = "headwater_proxy_abandoned_total ";
    assert_eq!(metric(&node, left) as u64, 1);
    gate.open();
}
