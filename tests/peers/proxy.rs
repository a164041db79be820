//! The cache before a real nginx, and under the public HTTP cache test suite.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::harness::{COMMON, Node, Process, READY, free_port, http_get, noise, poll, run, tool};

/// nginx with a folder of files, started in it.
struct Nginx {
    _process: Process,
    dir: tempfile::TempDir,
    port: u16,
}

impl Nginx {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let at = dir.path();
        fs::create_dir(at.join("root")).expect("the directory is empty");
        for (name, bytes) in files {
            fs::write(at.join("root").join(name), bytes).expect("there is room");
        }
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
             events {{}}
             http {{
                log_format bytes '$request_method $uri $status $body_bytes_sent $http_range';
                access_log {at}/access.log bytes;
                client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
                uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                server {{ listen 127.0.0.1:{port}; root {at}/root; add_header Cache-Control max-age=1;
                    location ~ (large|other|huge).bin {{ add_header Cache-Control max-age=600; }} }}
             }}",
            at = at.display()
        );
        fs::write(at.join("nginx.conf"), config).expect("there is room");
        let mut command = Command::new(tool("nginx"));
        command
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .arg("-p")
            .arg(at);
        command.arg("-e").arg(at.join("error.log"));
        let process = Process::spawn("nginx", command, at.join("log"));
        poll(READY, "nginx to answer", || http_get(port, "/"));
        Self {
            _process: process,
            dir,
            port,
        }
    }

    /// Lines of its access log for `path`, once there are at least `count`.
    fn asked(&self, path: &str, count: usize) -> Vec<String> {
        poll(READY, "nginx to log", || {
            let log = fs::read_to_string(self.dir.path().join("access.log")).ok()?;
            let of_path = |line: &&str| line.split(' ').nth(1) == Some(path);
            let lines: Vec<_> = log.lines().filter(of_path).map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }
}

fn before(port: u16) -> Node {
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[proxy]]\nhost = \"*\"\nupstream = \"http://127.0.0.1:{port}\"\n"
    ));
    node.start();
    node
}

/// What curl gets, in a file.
fn curl(node: &Node, args: &[&str], path: &str) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = Command::new(tool("curl"));
    command
        .current_dir(dir.path())
        .args(["-q", "-sS", "--max-time", "60", "-D", "head", "-o", "body"])
        .args(args)
        .arg(node.url(path));
    run(&mut command).assert_success();
    let head = fs::read_to_string(dir.path().join("head")).expect("curl wrote the head");
    (
        head.to_ascii_lowercase(),
        fs::read(dir.path().join("body")).unwrap_or_default(),
    )
}

#[test]
fn nginx_is_asked_once_and_then_only_whether_it_changed() {
    let video = noise(3, (5 << 20) + 99);
    let nginx = Nginx::start(&[("video.bin", &video)]);
    let node = before(nginx.port);
    for turn in 0..3 {
        let (head, body) = curl(&node, &[], "/video.bin");
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(body == video, "turn {turn}: the bytes differ");
    }
    // Stale after a second: validated, and not sent again.
    poll(READY, "a validation", || {
        let (head, body) = curl(&node, &["-r", "1000000-1999999"], "/video.bin");
        assert!(head.starts_with("http/1.1 206"), "{head}");
        assert!(body == video[1_000_000..2_000_000], "the bytes differ");
        head.contains("fwd-status=304").then_some(())
    });
    let asked = nginx.asked("/video.bin", 2);
    let whole = asked.iter().filter(|line| line.contains(" 200 ")).count();
    assert_eq!(whole, 1, "{asked:?}");
}

#[test]
fn nginx_sends_little_for_one_byte_of_much() {
    let video = noise(4, 64 << 20);
    let nginx = Nginx::start(&[("video.bin", &video)]);
    let node = before(nginx.port);
    let (head, body) = curl(&node, &["-r", "50000000-50000000"], "/video.bin");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert_eq!(body, video[50_000_000..=50_000_000]);
    let asked = nginx.asked("/video.bin", 1);
    let sent: u64 = asked
        .iter()
        .filter_map(|line| line.split(' ').nth(3)?.parse::<u64>().ok())
        .sum();
    assert!(sent <= 8 << 20, "{asked:?}");
}

#[test]
fn full_disk_passes_on_what_it_cannot_keep_until_there_is_room() {
    // The mount is this thread's and its children's.
    let ran = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS)
            .unwrap_or_else(|e| panic!("no mount namespace can be made ({e}): run as root"));
        on_a_small_disk();
    });
    ran.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn on_a_small_disk() {
    let (small, large, huge) = (noise(5, 900), noise(6, 12 << 20), noise(7, 80 << 20));
    let nginx = Nginx::start(&[
        ("small.bin", &small),
        ("large.bin", &large),
        ("other.bin", &large),
        ("huge.bin", &huge),
    ]);
    let zone = "[[zone]]\nname = \"cdn.test.\"\nfile = \"@DIR@/zone\"\n";
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n{zone}[[proxy]]\nupstream = \"http://127.0.0.1:{}\"\n\
         [proxy_cache]\nmemory = \"8 MiB\"\n",
        nginx.port
    ));
    node.write(
        "zone",
        "@ 60 SOA ns.cdn.test. root.cdn.test. 1 1 1 1 1\n@ 60 NS ns\nns 60 A 192.0.2.1\n",
    );
    let state = node.path("state");
    fs::create_dir(&state).expect("the temporary directory is writable");
    let mount = |words: &[&str]| {
        let mut mount = Command::new(tool("mount"));
        run(mount.args(words)).assert_success();
    };
    mount(&["--make-rprivate", "/"]);
    let at = state.to_str().expect("a path in UTF-8");
    mount(&["-t", "tmpfs", "-o", "size=64m", "tmpfs", at]);
    node.start();
    let gets = |path: &str, bytes: &[u8]| {
        let (head, body) = curl(&node, &[], path);
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(body == bytes, "{path}: the bytes differ");
        head
    };
    // Larger than the disk: never begun, and nothing makes room for it.
    gets("/large.bin", &large);
    gets("/huge.bin", &huge);
    let evicted = || node.metric("headwater_proxy_evicted_total", &[]) as u32;
    assert_eq!(evicted(), 0);
    // The disk fills from outside: what is kept makes room for what is new.
    let ballast = state.join("ballast");
    let fill = |bytes: usize| fs::write(&ballast, noise(8, bytes)).expect("there is room for it");
    fill(45 << 20);
    gets("/other.bin", &large);
    assert_eq!(evicted(), 1);
    // And then there is nothing left that could.
    let mut wholly = fs::File::create(state.join("rest")).expect("a file");
    let rest = noise(9, 1 << 20);
    while std::io::Write::write_all(&mut wholly, &rest).is_ok() {}
    for _ in 0..3 {
        gets("/large.bin", &large);
        gets("/huge.bin", &huge);
        gets("/small.bin", &small);
    }
    let failures = node.metric("headwater_proxy_disk_failures_total", &[("reason", "full")]);
    assert!(failures >= 1.0, "{failures}");
    assert_eq!(node.dig(&["ns.cdn.test", "A"]).status, "NOERROR");
    fs::remove_file(&ballast).expect("removed");
    fs::remove_file(state.join("rest")).expect("removed");
    let begun = Instant::now();
    poll(READY, "it to be kept again", || {
        gets("/large.bin", &large).contains("; hit").then_some(())
    });
    let took = begun.elapsed();
    println!("normal {took:?} after space returned");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(node.stop().success());
}

/// The public suite (<https://github.com/http-tests/cache-tests>), where `HEADWATER_CACHE_TESTS` says it is cloned to,
/// with `npm install` done in it. It cannot be had everywhere: without the variable this says so.
#[test]
fn public_cache_test_suite_passes_all_it_requires() {
    let Some(suite) = std::env::var_os("HEADWATER_CACHE_TESTS").map(PathBuf::from) else {
        println!("NOT RUN: HEADWATER_CACHE_TESTS does not name a clone of http-tests/cache-tests");
        return;
    };
    let port = free_port();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut origin = Command::new(tool("node"));
    origin
        .current_dir(&suite)
        .arg("test-engine/server/server.mjs")
        .env("npm_config_protocol", "http")
        .env("npm_config_port", port.to_string())
        .env("npm_config_pidfile", dir.path().join("pid"));
    let _origin = Process::spawn("node", origin, dir.path().join("log"));
    poll(READY, "the suite's origin to answer", || {
        http_get(port, "/")
    });
    let node = before(port);
    fs::write(dir.path().join("run.mjs"), RUN).expect("there is room");
    let mut client = Command::new(tool("node"));
    client
        .current_dir(&suite)
        .args(["--no-warnings"])
        .arg(dir.path().join("run.mjs"))
        .arg(&suite)
        .arg(node.url(""))
        .arg(dir.path().join("result"));
    // Longer than a command may take otherwise.
    let client = Process::spawn("node", client, dir.path().join("client"));
    let text = poll(Duration::from_secs(300), "the suite to end", || {
        fs::read_to_string(dir.path().join("result"))
            .ok()
            .filter(|t| t.ends_with("\n"))
    });
    drop(client);
    println!("{text}");
    let line = text.lines().next_back().unwrap_or_default();
    let counts: serde_json::Value = serde_json::from_str(line).expect("the last line counts");
    assert_eq!(counts["required"]["fail"], 0, "{text}");
    assert!(counts["optimal"]["pass"].as_u64() >= Some(90), "{text}");
}

/// Runs all tests of the suite meant for caches like this one and counts, naming those that fail.
const RUN: &str = r#"
import fs from 'node:fs'
const [suite, base, out] = process.argv.slice(2)
const tests = (await import(suite + '/tests/index.mjs')).default
const { runTests, getResults } = await import(suite + '/test-engine/client/runner.mjs')
const { determineTestResult, resultTypes } = await import(suite + '/test-engine/lib/results.mjs')
await runTests(tests, false, base.replace(/\/$/, ''))
const results = getResults()
const counts = { required: { pass: 0, fail: 0 }, optimal: { pass: 0, fail: 0 } }
let text = ''
for (const test of tests.flatMap(set => set.tests).filter(test => !test.browser_only)) {
  const kind = test.kind || 'required'
  if (!counts[kind]) continue
  const passed = determineTestResult(tests, test.id, results) === resultTypes.pass
  counts[kind][passed ? 'pass' : 'fail']++
  if (!passed) text += `${kind} ${test.id}: ${JSON.stringify(results[test.id])}\n`
}
fs.writeFileSync(out, text + JSON.stringify(counts) + '\n')
"#;
