//! A forwarding node whose upstreams are real servers asked over TLS and HTTPS: Unbound and BIND.

use super::harness::{Bind, COMMON, LIMIT, Node, Unbound, free_port, poll};

/// Certificate and key of `dns.test` in files, and free ports for TLS and HTTPS.
struct Shown {
    dir: tempfile::TempDir,
    tls: u16,
    https: u16,
}

impl Shown {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]);
        let made = made.expect("a certificate");
        let write = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).expect("the directory is writable");
        };
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        Self {
            dir,
            tls: free_port(),
            https: free_port(),
        }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn unbound(&self, records: &[&str]) -> Unbound {
        let Self { tls, https, .. } = self;
        let lines = format!(
            " interface: 127.0.0.1@{tls}\n interface: 127.0.0.1@{https}\n tls-port: {tls}\n https-port: {https}\n \
             tls-service-pem: \"{}\"\n tls-service-key: \"{}\"\n",
            self.file("cert.pem"),
            self.file("key.pem")
        );
        Unbound::start_with("up.test.", records, &lines)
    }

    fn bind(&self, zone: &str) -> Bind {
        let Self { tls, https, .. } = self;
        let options = format!(
            "listen-on port {tls} tls shown {{ 127.0.0.1; }}; listen-on port {https} tls shown http shown {{ 127.0.0.1; }};"
        );
        let statements = format!(
            "tls shown {{ cert-file \"{}\"; key-file \"{}\"; }};\nhttp shown {{ endpoints {{ \"/dns-query\"; }}; }};\n",
            self.file("cert.pem"),
            self.file("key.pem")
        );
        Bind::start_with(&[("up.test.", zone)], &options, &statements)
    }

    /// The upstreams as they are written: over TLS, over HTTPS.
    fn targets(&self, name: &str) -> [String; 2] {
        let Self { tls, https, .. } = self;
        [
            format!("tls://127.0.0.1:{tls}#{name}"),
            format!("https://{name}:{https}/dns-query@127.0.0.1:{https}"),
        ]
    }

    fn node(&self, upstream: &str) -> Node {
        let mut node = Node::new(&format!(
            "{COMMON}\n[resolver]\nupstreams = [\"{upstream}\"]\n[resolver.tls]\nca_file = \"{}\"\n",
            self.file("cert.pem")
        ));
        node.start();
        node
    }
}

/// Many names and one large answer, over one connection.
#[track_caller]
fn check(node: &Node, upstream: &str) {
    for number in 0..40 {
        let name = format!("n{number}.up.test");
        let answer = node.dig(&[&name, "A"]);
        let expected = format!("192.0.2.{number}");
        assert_eq!(answer.data("A"), [expected], "{upstream}: {}", answer.text);
    }
    let missing = node.dig(&["none.up.test", "A"]);
    assert_eq!(missing.status, "NXDOMAIN", "{upstream}: {}", missing.text);
    let large = node.dig(&["big.up.test", "TXT", "+tcp"]);
    assert_eq!(large.data("TXT").len(), 80, "{upstream}");
    let answers = node.metric(
        "headwater_resolver_upstream_queries_total",
        &[("upstream", upstream), ("outcome", "answer")],
    );
    assert_eq!(answers, 42.0, "{upstream}");
    let opened = |outcome| {
        let labels = [("outcome", outcome)];
        node.metric("headwater_resolver_upstream_handshakes_total", &labels)
    };
    assert_eq!(opened("full") + opened("resumed"), 1.0, "{upstream}");
    let status = node.control_json(&["status"]);
    let shown = &status["upstreams"][0];
    assert_eq!(shown["upstream"], upstream);
    assert_eq!(
        (&shown["state"], &shown["connection"]),
        (&"up".into(), &"open".into())
    );
}

fn records() -> Vec<String> {
    let mut records = vec![
        "up.test. 3600 IN SOA ns.up.test. hostmaster.up.test. 1 3600 600 86400 60".to_owned(),
        "up.test. 3600 IN NS ns.up.test.".to_owned(),
        "ns.up.test. 3600 IN A 127.0.0.1".to_owned(),
    ];
    for number in 0..40 {
        records.push(format!("n{number}.up.test. 300 IN A 192.0.2.{number}"));
    }
    for number in 0..80 {
        records.push(format!(
            "big.up.test. 200 IN TXT \"record {number:02} of a large set\""
        ));
    }
    records
}

#[test]
fn unbound_is_asked_over_tls_and_over_https() {
    let shown = Shown::new();
    let records = records();
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let _unbound = shown.unbound(&records);
    for target in shown.targets("dns.test") {
        check(&shown.node(&target), &target);
    }
}

#[test]
fn bind_is_asked_over_tls_and_over_https() {
    let shown = Shown::new();
    let _bind = shown.bind(&(records().join("\n") + "\n"));
    for target in shown.targets("dns.test") {
        check(&shown.node(&target), &target);
    }
}

#[test]
fn unbound_that_shows_another_name_is_not_asked_and_status_says_why() {
    let shown = Shown::new();
    let records = records();
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let _unbound = shown.unbound(&records);
    for target in shown.targets("other.test") {
        let node = shown.node(&target);
        let answer = node.dig(&["n1.up.test", "A"]);
        assert_eq!(answer.status, "SERVFAIL", "{}", answer.text);
        assert!(answer.text.contains("EDE: 23"), "{}", answer.text);
        let status = node.control(&["status"]).stdout;
        assert!(status.contains("certificate"), "{status}");
        assert!(status.contains("dead"), "{status}");
    }
}

#[test]
fn upstream_over_tls_that_has_gone_is_asked_again_once_it_is_back() {
    let shown = Shown::new();
    let records = records();
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let mut unbound = shown.unbound(&records);
    let [tls, _] = shown.targets("dns.test");
    let node = shown.node(&tls);
    assert_eq!(node.dig(&["n1.up.test", "A"]).data("A"), ["192.0.2.1"]);
    unbound.stop();
    let gone = node.dig(&["n2.up.test", "A", "+time=8"]);
    assert_eq!(gone.status, "SERVFAIL", "{}", gone.text);
    let _unbound = shown.unbound(&records);
    poll(LIMIT, "an answer of the upstream that is back", || {
        let answer = node.dig(&["n3.up.test", "A"]);
        (answer.data("A") == ["192.0.2.3"]).then_some(())
    });
}
