//! FTP sessions with the built binary, spoken by a small client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::time::Duration;

use super::harness::{Node, get, until};
use headwater::ftp::users;

/// A control connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.reply().starts_with("220"));
        client
    }

    fn login(server: SocketAddr, user: &str) -> Self {
        let mut client = Self::connect(server);
        assert!(client.ask(&format!("USER {user}")).starts_with("331"));
        let reply = client.ask("PASS geheim");
        assert!(reply.starts_with("230"), "{reply}");
        client
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn send(&mut self, command: &str) {
        write!(self.0.get_mut(), "{command}\r\n").unwrap();
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.reply()
    }

    /// A data connection.
    fn data(&mut self) -> TcpStream {
        let reply = self.ask("EPSV");
        let port = reply.split('|').nth(3).unwrap_or_else(|| panic!("{reply}"));
        let server = self.0.get_ref().peer_addr().unwrap();
        TcpStream::connect((server.ip(), port.parse().unwrap())).unwrap()
    }

    /// Puts a file; the last reply.
    fn put(&mut self, path: &str, bytes: &[u8]) -> String {
        let mut data = self.data();
        self.send(&format!("STOR {path}"));
        let reply = self.reply();
        if !reply.starts_with("150") {
            return reply;
        }
        let _ = data.write_all(bytes); // A server that refuses need not read it.
        drop(data);
        self.reply()
    }

    /// Gets what a command sends.
    fn fetch(&mut self, command: &str) -> Vec<u8> {
        let mut data = self.data();
        let reply = self.ask(command);
        assert!(reply.starts_with("150"), "{reply}");
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes).unwrap();
        assert!(self.reply().starts_with("226"));
        bytes
    }
}

fn node(more: &str) -> Node {
    let hash = users::hash("geheim", [7; 16], NonZeroU32::new(1_000).unwrap());
    let users = format!("press:{hash}:/press/:rw\nguest:{hash}:/press/:r\n");
    let config = format!(
        r#"
[node]
state = "state"
[dns]
listen = []
[resolver]
mode = "off"
[http]
listen = ["127.0.0.1:0"]
[metrics]
listen = "127.0.0.1:0"
[[publish]]
prefix = "/press/"
dir = "press"
[ftp]
listen = ["127.0.0.1:0"]
tls = "optional"
{more}
"#
    );
    let files = [("ftp.users", users.as_str()), ("press/old.txt", "old")];
    Node::start(&config, &files)
}

#[test]
fn file_put_is_an_object_when_it_is_acknowledged() {
    let node = node("");
    let (ftp, http) = (node.address("ftp"), node.address("http"));
    let mut client = Client::login(ftp, "press");
    for text in ["first", "second"] {
        let reply = client.put("a.txt", text.as_bytes());
        assert!(reply.starts_with("226"), "{reply}");
        let answer = get(http, "/press/a.txt", &[]);
        assert_eq!(
            (answer.status, answer.body),
            (200, text.as_bytes().to_vec())
        );
    }
    assert_eq!(client.fetch("RETR a.txt"), b"second");
    let names = String::from_utf8(client.fetch("NLST")).unwrap();
    assert_eq!(names, "a.txt\r\nold.txt\r\n");
    assert!(client.ask("RNFR a.txt").starts_with("350"));
    assert!(client.ask("RNTO b.txt").starts_with("250"));
    assert_eq!(get(http, "/press/a.txt", &[]).status, 404);
    assert_eq!(get(http, "/press/b.txt", &[]).body, b"second");
    assert!(client.ask("DELE b.txt").starts_with("250"));
    assert_eq!(get(http, "/press/b.txt", &[]).status, 404);
}

#[test]
fn upload_whose_client_vanished_is_not_published() {
    let node = node("");
    let mut client = Client::login(node.address("ftp"), "press");
    let mut data = client.data();
    assert!(client.ask("STOR old.txt").starts_with("150"));
    data.write_all(b"half").unwrap();
    client.0.get_ref().shutdown(Shutdown::Both).unwrap();
    drop(client);
    drop(data);
    let uploads = node.path("press/.headwater-uploads");
    let sessions = || {
        let page = get(node.address("metrics"), "/metrics", &[]);
        String::from_utf8(page.body)
            .unwrap()
            .contains("headwater_ftp_sessions 0")
    };
    until("the session to end", sessions);
    until("the half file to go", || {
        std::fs::read_dir(&uploads).is_ok_and(|mut files| files.next().is_none())
    });
    assert_eq!(
        get(node.address("http"), "/press/old.txt", &[]).body,
        b"old"
    );
}

#[test]
fn user_who_may_read_only_changes_nothing() {
    let node = node("");
    let mut client = Client::login(node.address("ftp"), "guest");
    assert_eq!(client.fetch("RETR old.txt"), b"old");
    assert!(client.put("new.txt", b"x").starts_with("550"));
    assert!(client.ask("DELE old.txt").starts_with("550"));
    assert!(client.ask("MKD dir").starts_with("550"));
    assert_eq!(
        get(node.address("http"), "/press/old.txt", &[]).body,
        b"old"
    );
}

#[test]
fn path_out_of_home_and_hidden_name_are_refused() {
    let node = node("");
    let mut client = Client::login(node.address("ftp"), "press");
    assert!(client.ask("SIZE ../../node.toml").starts_with("550"));
    assert!(client.put(".htaccess", b"x").starts_with('5'));
    std::os::unix::fs::symlink(node.path(""), node.path("press/out")).unwrap();
    assert!(client.put("out/evil", b"x").starts_with(['4', '5']));
    assert!(!node.path("evil").exists());
}

#[test]
fn active_mode_is_refused() {
    let node = node("");
    let mut client = Client::login(node.address("ftp"), "press");
    assert!(client.ask("PORT 127,0,0,1,4,1").starts_with('5'));
    assert!(client.ask("EPRT |1|127.0.0.1|1025|").starts_with('5'));
}

#[test]
fn password_guessed_too_often_is_not_tried() {
    let node = node("login_failures = 2\n");
    for _ in 0..2 {
        let mut client = Client::connect(node.address("ftp"));
        client.ask("USER press");
        assert!(client.ask("PASS wrong").starts_with("530"));
    }
    let mut client = Client::connect(node.address("ftp"));
    client.ask("USER press");
    assert!(client.ask("PASS geheim").starts_with("530"));
    let page = get(node.address("metrics"), "/metrics", &[]);
    let page = String::from_utf8(page.body).unwrap();
    assert!(
        page.contains("headwater_ftp_logins_total{outcome=\"locked\"} 1"),
        "{page}"
    );
}

#[test]
fn file_beyond_the_bound_is_refused_and_the_old_one_stays() {
    let node = node("max = \"1 KiB\"\n");
    let mut client = Client::login(node.address("ftp"), "press");
    let reply = client.put("old.txt", &[7; 4_096]);
    assert!(reply.starts_with("552"), "{reply}");
    assert_eq!(
        get(node.address("http"), "/press/old.txt", &[]).body,
        b"old"
    );
}

#[test]
fn session_beyond_the_bound_is_refused() {
    let node = node("sessions_per_address = 1\n");
    let _first = Client::login(node.address("ftp"), "press");
    let mut second = TcpStream::connect(node.address("ftp")).unwrap();
    assert_eq!(second.read(&mut [0; 16]).unwrap_or(0), 0);
}
