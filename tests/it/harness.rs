//! Nodes as processes: the built binary in a temporary directory, on free ports of 127.0.0.1.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use headwater::admin::api::{GetStatus, Status};
use headwater::admin::client;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    dir: TempDir,
}

/// An answer to an HTTP request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Node {
    /// A node on the embedded default configuration, in an empty home and working directory.
    pub(crate) fn start_default() -> Self {
        Self::start_in(home(), None)
    }

    /// A node on `config`, which is written as `node.toml` beside `files`.
    pub(crate) fn start(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = home();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a file has a directory")).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(dir.path().join("node.toml"), config).unwrap();
        Self::start_in(dir, Some("node.toml"))
    }

    fn start_in(dir: TempDir, config: Option<&str>) -> Self {
        let child = spawn(dir.path(), config);
        let mut node = Self { child, dir };
        node.wait_ready();
        node
    }

    /// Starts it anew in its directory, after it has ended.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), Some("node.toml"));
        self.wait_ready();
    }

    /// Its directory: home, working directory and place of `node.toml`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All it has logged and printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Its own account of itself.
    pub(crate) fn status(&self) -> Status {
        self.try_status().expect("the node answers")
    }

    /// Where it serves `service`, IPv4.
    pub(crate) fn address(&self, service: &str) -> SocketAddr {
        let status = self.status();
        let own = status.listeners.iter().filter(|l| l.service == service);
        let mut addresses = own.filter_map(|l| l.address.parse::<SocketAddr>().ok());
        addresses
            .find(SocketAddr::is_ipv4)
            .unwrap_or_else(|| panic!("no {service} listener in {:?}", status.listeners))
    }

    /// Runs a command against this node.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        let mut command = command(self.dir.path());
        command.args(args).output().unwrap()
    }

    /// Asks it over UDP.
    pub(crate) fn ask(&self, name: &str, rtype: RecordType) -> Message {
        ask(self.address("dns"), name, rtype)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill_process(Pid::from_raw(pid).expect("a process id is not 0"), signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let child = &mut self.child;
        until("the node to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has just ended")
    }

    fn try_status(&self) -> Option<Status> {
        client::call(&[self.path("state/admin.sock")], &GetStatus {}).ok()
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.try_status().is_some_and(|s| s.ready) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the node ended ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the node:\n{}", self.log());
        }
    }
}

fn spawn(dir: &Path, config: Option<&str>) -> Child {
    let mut command = command(dir);
    if let Some(config) = config {
        command.args(["run", "--config", config]);
    }
    let log = File::create(dir.join("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("the binary is built before its tests")
}

/// The binary, in a clean environment with free ports.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command
        .env_clear()
        .current_dir(dir)
        .env("HOME", dir)
        .env("HEADWATER__NODE__STATE", dir.join("state"))
        .env("HEADWATER__DNS__LISTEN", "127.0.0.1:0")
        .env("HEADWATER__DNS__WORKERS", "1")
        .env("HEADWATER__HTTP__LISTEN", "127.0.0.1:0")
        .env("HEADWATER__METRICS__LISTEN", "127.0.0.1:0");
    command
}

/// An empty directory to live in. Not beneath a deep `TMPDIR`: a socket's path has 107 bytes at most.
pub(crate) fn home() -> TempDir {
    tempfile::Builder::new()
        .prefix("headwater-")
        .tempdir()
        .expect("there is a directory for temporary files")
}

/// Asks `server` over UDP, again after a loss.
pub(crate) fn ask(server: SocketAddr, name: &str, rtype: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    let query = query.to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut answer = [0; 4096];
    for _ in 0..5 {
        socket.send_to(&query, server).unwrap();
        if let Ok(len) = socket.recv(&mut answer) {
            return Message::from_vec(&answer[..len]).unwrap();
        }
    }
    panic!("no answer from {server} for {name}");
}

/// Gets `path` from `server`, with further header lines.
pub(crate) fn get(server: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: bytes.split_off(end + 4),
    }
}

/// Polls until `done`; fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(POLL);
    }
}

/// How often a test looks.
const POLL: Duration = Duration::from_millis(5);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP/2 client's first octets: `streams` requests, each reset at once.
pub(crate) fn rapid_resets(streams: u32) -> Vec<u8> {
    // GET, http, "/", authority "a" (RFC 7541).
    const HEAD: &[u8] = b"\x82\x86\x84\x41\x01a";
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let header = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&header, payload].concat()
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    for stream in (0..streams).map(|n| 2 * n + 1) {
        // END_STREAM, END_HEADERS; then CANCEL.
        bytes.extend(frame(1, 5, stream, HEAD));
        bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    bytes
}
