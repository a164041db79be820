//! aria2 takes one object from several nodes at once, by each face of its manifest.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::harness::{COMMON, LIMIT, Node, Output, free_port, noise, poll, run, sha256, tool};

const SIZE: usize = (48 << 20) + 4_321;

/// An origin of `video.bin` and a mirror of it, each naming the other, and perhaps a third.
struct Pair {
    origin: Node,
    mirror: Node,
    file: PathBuf,
}

impl Pair {
    /// `others` are named before the mirror.
    fn start(others: &[&Node]) -> Self {
        Self::start_with(others, COMMON)
    }

    fn start_with(others: &[&Node], common: &str) -> Self {
        let mut mirror = Node::new("");
        let duplicates: Vec<_> = others.iter().copied().chain([&mirror]).collect();
        // aria2 counts its connections by host name: another one than the origin's is another server to it.
        let named = |node: &&Node| node.url("").replace("127.0.0.1", "localhost");
        let duplicates: Vec<_> = duplicates.iter().map(named).collect();
        let mut origin = Node::new(&format!(
            "{common}\n[resolver]\nmode = \"off\"\n[[publish]]\nprefix = \"/\"\ndir = \"content\"\nduplicates = {duplicates:?}\n"
        ));
        mirror.configure(&format!(
            "{common}\n[resolver]\nmode = \"off\"\n[[mirror]]\nprefix = \"/\"\nfrom = [\"{}\"]\ninterval = \"200ms\"\n",
            origin.url("")
        ));
        let file = origin.write("content/video.bin", noise(8, SIZE));
        origin.start();
        mirror.start();
        poll(LIMIT, "the mirror to be whole", || {
            let whole = [("state", "whole")];
            (mirror.metric("headwater_replication_objects", &whole) == 1.0).then_some(())
        });
        Self {
            origin,
            mirror,
            file,
        }
    }

    /// Downloads what `path` of the origin describes, into a directory of its own, and checks it; what each node sent.
    fn aria2(&self, name: &str, path: &str) -> [f64; 2] {
        self.download(name, &self.origin.url(path))
    }

    /// The same of a link.
    fn download(&self, name: &str, link: &str) -> [f64; 2] {
        let before = self.sent();
        let output = aria2(&self.origin, name, &[link]);
        output.assert_success();
        let found = self.origin.path(name).join("video.bin");
        assert!(found.exists(), "{name}: {}", output.stdout);
        assert_eq!(sha256(&found), sha256(&self.file), "{name}");
        let after = self.sent();
        [after[0] - before[0], after[1] - before[1]]
    }

    /// What curl gets from a node.
    fn fetch(node: &Node, path: &str) -> Vec<u8> {
        let file = node.path("fetched");
        let mut command = Command::new(tool("curl"));
        command.args(["-q", "-sSf", "-o"]).arg(&file);
        run(command.arg(node.url(path))).assert_success();
        fs::read(&file).expect("curl wrote it")
    }

    /// The magnet link of a node.
    fn magnet(node: &Node) -> String {
        let link = String::from_utf8(Self::fetch(node, "/video.bin.magnet")).expect("text");
        link.trim_end().to_owned()
    }

    fn sent(&self) -> [f64; 2] {
        [sent(&self.origin, "origin"), sent(&self.mirror, "mirror")]
    }
}

/// Runs aria2 into a directory of `node`.
fn aria2(node: &Node, name: &str, args: &[&str]) -> Output {
    run(command(node, name).args(args))
}

/// aria2 at a pace at which all sources have their part.
fn command(node: &Node, name: &str) -> Command {
    let mut command = Command::new(tool("aria2c"));
    command
        .args(["--no-conf", "--file-allocation=none", "--split=8"])
        .args(["--min-split-size=1M", "--max-connection-per-server=4"])
        .args(["--max-overall-download-limit=20M", "--follow-metalink=mem"])
        .args([
            "--follow-torrent=mem",
            "--seed-time=0",
            "--bt-stop-timeout=30",
        ])
        .args(["--enable-dht=false", "--enable-dht6=false"])
        .args(["--enable-peer-exchange=false", "--bt-enable-lpd=false"])
        .arg(format!("--listen-port={}", free_port()))
        .args(["--max-tries=3", "--retry-wait=1", "--stop=50"])
        .arg("--dir")
        .arg(node.path(name));
    command
}

/// Bytes of objects sent, by HTTP and to peers.
fn sent(node: &Node, role: &str) -> f64 {
    node.metric("headwater_http_sent_bytes_total", &[("role", role)])
        + node.metric("headwater_http_torrent_sent_bytes_total", &[])
}

#[track_caller]
fn assert_both(sent: [f64; 2]) {
    assert!(sent.iter().all(|sent| *sent > 2e6), "{sent:?}");
    assert!(sent.iter().sum::<f64>() < 1.5 * SIZE as f64, "{sent:?}");
}

#[test]
fn metalink_is_downloaded_from_two_nodes_at_once() {
    let pair = Pair::start(&[]);
    assert_both(pair.aria2("meta4", "/video.bin.meta4"));
}

#[test]
fn object_itself_is_downloaded_from_two_nodes_at_once_by_its_link_fields() {
    let pair = Pair::start(&[]);
    assert_both(pair.aria2("link", "/video.bin"));
}

#[test]
fn torrent_is_downloaded_from_two_nodes_at_once() {
    let pair = Pair::start(&[]);
    assert_both(pair.aria2("torrent", "/video.bin.torrent"));
}

#[test]
fn magnet_link_is_downloaded_from_two_nodes_at_once() {
    let common = COMMON.replace("[http]\n", "[http]\ntorrent_peers = true\n");
    let pair = Pair::start_with(&[], &common);
    for node in [&pair.origin, &pair.mirror] {
        poll(LIMIT, "the node to be a peer", || {
            let made = node.metric("headwater_http_pieces_digested_bytes_total", &[]);
            (made >= SIZE as f64).then_some(())
        });
    }
    let link = Pair::magnet(&pair.origin);
    assert_both(pair.download("magnet", &link));
    for node in [&pair.origin, &pair.mirror] {
        // It has come from peers alone: aria2 knows no web seeds by a magnet link.
        assert!(node.metric("headwater_http_torrent_sent_bytes_total", &[]) > 2e6);
    }
}

#[test]
fn server_with_wrong_bytes_is_found_out_by_both_faces() {
    let mut liar = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[publish]]\nprefix = \"/\"\ndir = \"content\"\n"
    ));
    let mut wrong = noise(8, SIZE);
    for byte in wrong.iter_mut().step_by(100_000) {
        *byte ^= 1;
    }
    liar.write("content/video.bin", wrong);
    liar.start();
    let pair = Pair::start(&[&liar]);
    for (name, path) in [
        ("meta4", "/video.bin.meta4"),
        ("torrent", "/video.bin.torrent"),
    ] {
        let before = sent(&liar, "origin");
        pair.aria2(name, path);
        let lies = sent(&liar, "origin") - before;
        assert!(lies > 0.0, "{name}: the liar was not asked");
    }
}

#[test]
fn torrents_of_both_nodes_are_one_and_the_magnet_link_names_it() {
    let pair = Pair::start(&[]);
    let hash = |node: &Node| {
        let link = Pair::magnet(node);
        let hash = link
            .strip_prefix("magnet:?xt=urn:btih:")
            .expect("a magnet link")[..40]
            .to_owned();
        Pair::fetch(node, "/video.bin.torrent");
        let mut command = Command::new(tool("aria2c"));
        command.arg("--show-files").arg(node.path("fetched"));
        let shown = run(&mut command).stdout;
        assert!(
            shown.contains(&format!("Info Hash: {hash}")),
            "{hash}: {shown}"
        );
        hash
    };
    assert_eq!(hash(&pair.origin), hash(&pair.mirror));
}
