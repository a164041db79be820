//! What curl and h2load get over TLS.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::harness::{COMMON, LIMIT, Node, Output, READY, free_port, noise, poll, run, tool};

/// An origin of `video.bin` that speaks TLS, its port, and the bytes.
fn origin() -> (Node, u16, Vec<u8>) {
    let port = free_port();
    let listeners =
        format!("listen = [\"127.0.0.1:@HTTP@\"]\ntls_listen = [\"127.0.0.1:{port}\"]\n");
    let common = COMMON.replace("listen = [\"127.0.0.1:@HTTP@\"]\n", &listeners);
    let mut node = Node::new(&format!(
        r#"{common}
[tls]
cert = "cert.pem"
key = "key.pem"
[resolver]
mode = "off"
[[publish]]
prefix = "/"
dir = "content"
"#
    ));
    let video = noise(7, 3 << 20);
    node.write("content/video.bin", &video);
    certify(&node, "first.test");
    node.start();
    poll(READY, "video.bin to be published", || {
        let output = curl(&node, port, "first.test", &["-I", "-w", "%{http_code}"]);
        output.stdout.ends_with("200").then_some(())
    });
    (node, port, video)
}

/// Writes a new certificate for `name`, and itself as what clients trust.
fn certify(node: &Node, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    node.write("key.pem", made.signing_key.serialize_pem());
    node.write("cert.pem", made.cert.pem());
}

/// Gets `video.bin` from the server as `name`, whose certificate is verified.
fn curl(node: &Node, port: u16, name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(tool("curl"));
    command
        .args(["-q", "-sS", "--max-time", "30", "--cacert"])
        .arg(node.path("cert.pem"))
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://{name}:{port}/video.bin"));
    run(&mut command)
}

#[test]
fn curl_gets_the_same_bytes_by_both_protocols() {
    let (node, port, video) = origin();
    let body = node.path("body");
    let into = body.to_str().expect("a path in UTF-8");
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let written = "%{http_version} %{http_code}";
        let output = curl(
            &node,
            port,
            "first.test",
            &[protocol, "-o", into, "-w", written],
        );
        output.assert_success();
        assert_eq!(output.stdout, format!("{version} 200"));
        assert!(
            fs::read(&body).expect("curl wrote it") == video,
            "{version}"
        );
        let range = ["-r", "1048570-1048580", protocol, "-o", into, "-w", written];
        let output = curl(&node, port, "first.test", &range);
        assert_eq!(output.stdout, format!("{version} 206"));
        let part = fs::read(&body).expect("curl wrote it");
        assert!(part == video[1_048_570..=1_048_580], "{version}");
    }
}

#[test]
fn certificate_is_read_again_at_a_reload() {
    let (node, port, _) = origin();
    let shown = |name: &str| {
        let output = curl(&node, port, name, &["-I", "-w", "%{http_code}"]);
        output.stdout.ends_with("200")
    };
    certify(&node, "second.test");
    assert!(!shown("second.test"), "before the reload");
    node.signal(Signal::HUP);
    poll(LIMIT, "the new certificate", || {
        shown("second.test").then_some(())
    });
    // A bad one changes nothing.
    let good = fs::read(node.path("cert.pem")).expect("it was written");
    node.write("cert.pem", "not a certificate");
    node.signal(Signal::HUP);
    poll(LIMIT, "the fault in status", || {
        let status = node.control(&["status"]).stdout;
        status.contains("tls.cert").then_some(())
    });
    node.write("cert.pem", good);
    assert!(shown("second.test"));
}

#[test]
fn many_streams_within_tls_all_succeed() {
    let (node, port, _) = origin();
    let mut command = Command::new(tool("h2load"));
    command
        .args(["-n", "200", "-c", "10", "-m", "20"])
        .arg(format!("https://127.0.0.1:{port}/video.bin"));
    let output = run(&mut command);
    output.assert_success();
    let done = "200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout";
    assert!(output.stdout.contains(done), "{}", output.stdout);
    let sent = node.metric("headwater_http_sent_bytes_total", &[("role", "origin")]);
    assert!(sent >= 200.0 * f64::from(3 << 20), "{sent} bytes counted");
}
