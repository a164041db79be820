//! What curl and lftp put and get over FTP, in the clear refused and within TLS.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::harness::{COMMON, LIMIT, Node, Output, headwater, noise, poll, run, tool};

const PASSWORD: &str = "secret";

/// The field of a users file, made by the command that is there for it.
fn hash() -> String {
    let mut made = headwater()
        .args(["ftp", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("headwater");
    let mut input = made.stdin.take().expect("its input");
    writeln!(input, "{PASSWORD}").expect("its input is open");
    drop(input);
    let output = made.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// The settings of a node that publishes `own`, takes FTP at `port`, and does what `more` says.
fn settings(own: &str, port: u16, more: &str) -> String {
    format!(
        r#"{COMMON}
[tls]
cert = "cert.pem"
key = "key.pem"
[resolver]
mode = "off"
[[publish]]
prefix = "/{own}/"
dir = "{own}"
[ftp]
listen = ["127.0.0.1:{port}"]
{more}
"#
    )
}

/// That `prefix` is mirrored of `node`.
fn mirrors(prefix: &str, node: &Node) -> String {
    let from = node.url("");
    let from = from.trim_end_matches('/');
    format!("[[mirror]]\nprefix = \"{prefix}\"\nfrom = [\"{from}\"]\ninterval = \"500ms\"\n")
}

/// A node that publishes `own`, and its FTP port.
fn node(own: &str, hash: &str) -> (Node, u16) {
    let port = super::harness::free_port();
    let node = Node::new(&settings(own, port, ""));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    node.write("key.pem", made.signing_key.serialize_pem());
    node.write("cert.pem", made.cert.pem());
    node.write(&format!("{own}/.keep"), "");
    node.write("ftp.users", format!("press:{hash}:/{own}/:rw\n"));
    (node, port)
}

fn curl(node: &Node, args: &[&str], url: &str) -> Output {
    let mut command = Command::new(tool("curl"));
    command
        .args(["-q", "-sS", "--max-time", "30", "--cacert"])
        .arg(node.path("cert.pem"))
        .args(["-u", &format!("press:{PASSWORD}")])
        .args(args)
        .arg(url);
    run(&mut command)
}

fn lftp(node: &Node, port: u16, script: &str) -> Output {
    let mut command = Command::new(tool("lftp"));
    let set = format!(
        "set ssl:ca-file {}; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set net:max-retries 2; set net:timeout 20",
        node.path("cert.pem").display()
    );
    command.args([
        "--norc",
        "-c",
        &format!("{set}; open -u press,{PASSWORD} -p {port} localhost; {script}"),
    ]);
    run(&mut command)
}

/// The files beneath `dir`, with their bytes.
fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            files.extend(
                tree(&path)
                    .into_iter()
                    .map(|(n, b)| (format!("{name}/{n}"), b)),
            );
        } else {
            files.push((name, fs::read(&path).expect("a file")));
        }
    }
    files.sort();
    files
}

#[test]
fn curl_puts_and_gets_within_tls_and_is_refused_without() {
    let (mut node, port) = node("press", &hash());
    node.start();
    let video = noise(11, 5 << 20);
    let file = node.write("video.bin", &video);
    let url = format!("ftp://localhost:{port}/video.bin");
    let clear = curl(&node, &["-T", &file.to_string_lossy()], &url);
    assert!(!node.path("press/video.bin").exists(), "{}", clear.stderr);
    curl(&node, &["--ssl-reqd", "-T", &file.to_string_lossy()], &url).assert_success();
    let got = node.path("got.bin");
    curl(&node, &["--ssl-reqd", "-o", &got.to_string_lossy()], &url).assert_success();
    assert_eq!(fs::read(&got).expect("the file"), video);
    let part = ["--ssl-reqd", "-C", "1000000", "-o", &got.to_string_lossy()];
    curl(&node, &part, &url).assert_success();
    assert!(
        fs::read(&got)
            .expect("the file")
            .ends_with(&video[1_000_000..])
    );
    curl(
        &node,
        &["-o", &got.to_string_lossy()],
        &node.url("/press/video.bin"),
    )
    .assert_success();
    assert_eq!(fs::read(&got).expect("the file"), video);
}

#[test]
fn lftp_mirrors_both_ways() {
    let (mut node, port) = node("press", &hash());
    node.start();
    for (name, size) in [("a.bin", 300_000), ("deep/er/b.bin", 2_000_000)] {
        node.write(&format!("up/{name}"), noise(3, size));
    }
    let (up, down) = (node.path("up"), node.path("down"));
    lftp(&node, port, &format!("mirror -R {} photos", up.display())).assert_success();
    lftp(&node, port, &format!("mirror photos {}", down.display())).assert_success();
    assert_eq!(tree(&down), tree(&up));
    fs::remove_file(node.path("up/a.bin")).expect("it was there");
    lftp(
        &node,
        port,
        &format!("mirror -R --delete {} photos", up.display()),
    )
    .assert_success();
    assert!(!node.path("press/photos/a.bin").exists());
}

#[test]
fn files_put_at_two_nodes_are_on_both_and_outlive_either() {
    let hash = hash();
    let (mut first, first_port) = node("a", &hash);
    let (mut second, second_port) = node("b", &hash);
    first.configure(&settings("a", first_port, &mirrors("/b/", &second)));
    second.configure(&settings("b", second_port, &mirrors("/a/", &first)));
    first.start();
    second.start();
    let files = [
        (&first, first_port, "a/fileA", noise(5, 3 << 20)),
        (&second, second_port, "b/fileB", noise(6, 2 << 20)),
    ];
    for (node, port, path, bytes) in &files {
        let file = node.write("upload", bytes);
        let name = path.split_once('/').expect("a directory").1;
        let url = format!("ftp://localhost:{port}/{name}");
        curl(node, &["--ssl-reqd", "-T", &file.to_string_lossy()], &url).assert_success();
    }
    let has = |node: &Node, path: &str, bytes: &[u8]| {
        let got = node.path("got");
        let url = node.url(&format!("/{path}"));
        curl(node, &["-f", "-o", &got.to_string_lossy()], &url);
        (fs::read(&got).ok()? == bytes).then_some(())
    };
    for (_, _, path, bytes) in &files {
        for node in [&first, &second] {
            poll(LIMIT, path, || has(node, path, bytes));
        }
    }
    let contents = files.map(|(_, _, path, bytes)| (path, bytes));
    first.kill();
    for (path, bytes) in &contents {
        assert!(has(&second, path, bytes).is_some(), "{path} of the second");
    }
    first.start();
    second.kill();
    for (path, bytes) in &contents {
        poll(LIMIT, path, || has(&first, path, bytes));
    }
}
