//! TLS, HTTPS, QUIC and EDNS options, as kdig and dig see them.

use std::process::Command;

use rustix::process::Signal;

use super::harness::{Answer, COMMON, LIMIT, Node, free_port, poll, run, tool};

/// A node with every encrypted listener, and its ports: TLS, HTTPS, QUIC.
fn node() -> (Node, [u16; 3]) {
    let ports = [free_port(), free_port(), free_port()];
    let [tls, https, quic] = ports;
    let listeners = format!(
        r#"listen = ["127.0.0.1:@DNS@"]
tls_listen = ["127.0.0.1:{tls}"]
https_listen = ["127.0.0.1:{https}"]
quic_listen = ["127.0.0.1:{quic}"]
nsid = "node-a"
cookies.required = true
"#
    );
    let common = COMMON.replace("listen = [\"127.0.0.1:@DNS@\"]\n", &listeners);
    let mut node = Node::new(&format!(
        r#"{common}
[tls]
cert = "cert.pem"
key = "key.pem"
[resolver]
mode = "off"
[[zone]]
name = "cdn.test."
file = "cdn.test.zone"
"#
    ));
    let zone =
        "@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\nvideo A 192.0.2.1\n";
    node.write("cdn.test.zone", zone);
    certify(&node, "dns.test");
    node.start();
    (node, ports)
}

/// Writes a new certificate for `name`, and itself as what clients trust.
fn certify(node: &Node, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    node.write("key.pem", made.signing_key.serialize_pem());
    node.write("cert.pem", made.cert.pem());
}

/// Asks with `program`; `None`: no answer came.
fn ask(program: &str, port: u16, args: &[&str]) -> Option<Answer> {
    let mut command = Command::new(tool(program));
    command.args(["@127.0.0.1", "-p", &port.to_string()]);
    command.args(["+time=5", "+retry=0"]).args(args);
    Answer::parse(&run(&mut command).stdout)
}

#[track_caller]
fn assert_video(answer: Option<Answer>, transport: &str) {
    let answer = answer.unwrap_or_else(|| panic!("no answer over {transport}"));
    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
    assert_eq!(answer.data("A"), ["192.0.2.1"], "{}", answer.text);
    assert!(answer.flag("aa"));
    assert!(answer.text.contains(transport), "{}", answer.text);
}

#[test]
fn kdig_and_dig_are_answered_over_every_encrypted_transport() {
    let (node, [tls, https, quic]) = node();
    let question = ["video.cdn.test", "A"];
    let kdig = |port, transport: &str| ask("kdig", port, &[&question[..], &[transport]].concat());
    assert_video(kdig(tls, "+tls"), "(TCP)");
    assert_video(kdig(https, "+https"), "HTTP/2-POST");
    assert_video(kdig(https, "+https-get"), "HTTP/2-GET");
    assert_video(kdig(quic, "+quic"), "QUIC");
    let dig = |port, transport: &str| ask("dig", port, &[&question[..], &[transport]].concat());
    assert_video(dig(tls, "+tls"), "(TLS)");
    assert_video(dig(https, "+https"), "(HTTPS)");
    assert_video(dig(https, "+https-get"), "(HTTPS-GET)");
    for (transport, least) in [("tls", 2.0), ("https", 4.0), ("quic", 1.0)] {
        let labels = [("transport", transport), ("outcome", "authoritative")];
        let count = node.metric("headwater_dns_queries_total", &labels);
        assert!(count >= least, "{transport}: {count}");
    }
}

#[test]
fn certificate_is_read_again_at_a_reload_and_a_bad_one_changes_nothing() {
    let (node, [tls, ..]) = node();
    let cert = node.path("cert.pem").display().to_string();
    let shown = |name: &str, cert: &str| {
        let (ca, host) = (format!("+tls-ca={cert}"), format!("+tls-hostname={name}"));
        let args = ["video.cdn.test", "A", ca.as_str(), host.as_str()];
        ask("kdig", tls, &args).is_some()
    };
    assert!(shown("dns.test", &cert));
    certify(&node, "new.test");
    assert!(!shown("new.test", &cert), "before the reload");
    node.signal(Signal::HUP);
    poll(LIMIT, "the new certificate", || {
        shown("new.test", &cert).then_some(())
    });
    let good = node.path("good.pem");
    std::fs::copy(&cert, &good).expect("a copy");
    node.write("cert.pem", "not a certificate");
    node.signal(Signal::HUP);
    poll(LIMIT, "the fault in status", || {
        let status = node.control(&["status"]).stdout;
        status.contains("tls.cert").then_some(())
    });
    assert!(shown("new.test", &good.display().to_string()));
}

#[test]
fn dig_learns_the_name_and_a_cookie() {
    let (node, _) = node();
    // dig sends a cookie of its own; BADCOOKIE makes it come again with the server's.
    let answer = ask(
        "dig",
        node.dns,
        &["video.cdn.test", "A", "+nsid", "+cookie"],
    );
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
    assert!(answer.text.contains("(\"node-a\")"), "{}", answer.text);
    assert!(answer.text.contains("(good)"), "{}", answer.text);
    let first = ["video.cdn.test", "A", "+cookie", "+nobadcookie"];
    let answer = ask("dig", node.dns, &first).expect("an answer");
    assert_eq!(answer.status, "BADCOOKIE", "{}", answer.text);
    let ping = ["+header-only", "+cookie", "+nobadcookie"];
    let answer = ask("dig", node.dns, &ping).expect("an answer");
    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
    assert!(answer.text.contains("(good)"), "{}", answer.text);
    for (rd, reason) in [("+rdflag", "EDE: 18"), ("+nordflag", "EDE: 20")] {
        let foreign = ask("kdig", node.dns, &["www.example", "A", "+edns", rd]).expect("an answer");
        assert_eq!(foreign.status, "REFUSED");
        assert!(foreign.text.contains(reason), "{}", foreign.text);
    }
}
