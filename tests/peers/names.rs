//! Names with any bytes a URL can carry: published, listed, fetched by curl, mirrored, put and deleted, on the command line too.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::harness::{COMMON, LIMIT, Node, Output, headwater, poll, run, tool};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Names as the file system has them, and as a URL has them.
const NAMES: [(&[u8], &str); 7] = [
    (b"caf\xe9.txt", "caf%E9.txt"),
    (b"\xff\xfe", "%FF%FE"),
    ("café.txt".as_bytes(), "caf%C3%A9.txt"),
    // The character that stands for the byte of the first.
    ("caf\u{10FFE9}.txt".as_bytes(), "caf%F4%8F%BF%A9.txt"),
    (
        b"100% & \"more\"?#<b>",
        "100%25%20%26%20%22more%22%3F%23%3Cb%3E",
    ),
    (b"\xc0\xaf..\xc0\xaf", "%C0%AF..%C0%AF"),
    (b"a:b;c=d,e+f", "a:b;c=d,e+f"),
];

fn at(node: &Node, dir: &str, name: &[u8]) -> PathBuf {
    node.path(dir).join(OsStr::from_bytes(name))
}

fn curl(node: &Node, args: &[&str], path: &str) -> Output {
    let mut command = Command::new(tool("curl"));
    command
        .current_dir(node.path("."))
        .args(["-q", "-sS", "-f", "--path-as-is", "--max-time", "30"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(args)
        .arg(node.url(path));
    run(&mut command)
}

/// A command about a path of any bytes; what it printed, bytes too.
fn content(node: &Node, verb: &str, args: &[&[u8]]) -> (bool, Vec<u8>) {
    let output = headwater()
        .args(["content", verb])
        .args(args.iter().map(|arg| OsStr::from_bytes(arg)))
        .arg("--socket")
        .arg(node.path("admin.sock"))
        .output()
        .expect("headwater");
    (output.status.success(), output.stdout)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn names_of_any_bytes_are_published_listed_mirrored_put_and_deleted() {
    let mut origin = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[publish]]
prefix = "/"
dir = "content"
listing = true
[upload]
enabled = true
token_file = "upload.token"
prefix = "/d/"
"#
    ));
    origin.write("upload.token", format!("{TOKEN}\n"));
    origin.write("content/d/.keep", "");
    for (name, url) in NAMES {
        fs::write(at(&origin, "content/d", name), url).expect("the file system takes the name");
    }
    origin.start();
    for (name, url) in NAMES {
        poll(LIMIT, url, || {
            (curl(&origin, &[], &format!("/d/{url}")).stdout == url).then_some(())
        });
        let path = [b"/d/", name].concat();
        let (good, shown) = content(&origin, "show", &[&path]);
        assert!(good && contains(&shown, &path), "{url}");
    }

    // Each entry of a page, and of JSON, leads to its file.
    let page = curl(&origin, &[], "/d/").stdout;
    let items = curl(&origin, &["-H", "Accept: application/json"], "/d/").stdout;
    let items: serde_json::Value = serde_json::from_str(&items).expect("JSON");
    let items = items.as_array().expect("an array");
    assert_eq!(items.len(), NAMES.len());
    for (name, url) in NAMES {
        assert!(
            page.contains(&format!("<a href=\"./{url}\">")),
            "{url}: {page}"
        );
        let leads = |item: &&serde_json::Value| match item["url"].as_str() {
            Some(found) => found == url,
            None => item["name"].as_str().map(str::as_bytes) == Some(name),
        };
        assert_eq!(items.iter().filter(leads).count(), 1, "{url}: {items:?}");
    }

    let mut mirror = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[mirror]]\nprefix = \"/\"\nfrom = [\"{}\"]\ninterval = \"200ms\"\n",
        origin.url("").trim_end_matches('/')
    ));
    mirror.start();
    for (name, url) in NAMES {
        poll(LIMIT, url, || {
            (curl(&mirror, &[], &format!("/d/{url}")).stdout == url).then_some(())
        });
        let (good, list) = content(&mirror, "list", &[]);
        assert!(good && contains(&list, &[b"/d/", name].concat()), "{url}");
    }

    // Put and deleted by curl, and by the operator.
    origin.write("new", "put");
    let put = curl(&origin, &["-T", "new"], "/d/%80new");
    put.assert_success();
    assert_eq!(
        fs::read(at(&origin, "content/d", b"\x80new"))
            .ok()
            .as_deref(),
        Some(&b"put"[..])
    );
    let new = origin.path("new");
    let new = new.as_os_str().as_bytes();
    assert!(content(&origin, "put", &[new, b"/d/\x81new"]).0);
    assert_eq!(curl(&origin, &[], "/d/%81new").stdout, "put");
    curl(&origin, &["-X", "DELETE"], "/d/%80new").assert_success();
    for (name, _) in NAMES {
        assert!(content(&origin, "delete", &[&[b"/d/", name].concat()]).0);
        assert!(!at(&origin, "content/d", name).exists());
    }
    poll(LIMIT, "the mirror to have what is left", || {
        let list = mirror.control_json(&["content", "list"]);
        let urls: Vec<_> = list
            .as_array()?
            .iter()
            .filter_map(|o| o["url"].as_str())
            .collect();
        (urls == ["/d/%81new"]).then_some(())
    });
}
