//! Starts the binary and its peers in temporary directories on free loopback ports, and asks them things.
//!
//! - [`Node`]: a headwater node; [`Nsd`], [`Unbound`], [`Prometheus`]: real peers with generated configurations.
//! - [`dig`]: a question asked by dig, taken apart; [`run`]: any command, with a time limit.
//! - [`poll`]: the only way to wait: until something is so, or panic at a deadline.
//!
//! Every process is stopped by its pid when its handle is dropped: TERM, and KILL when it has not ended in time.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) use super::answer::{Answer, dig, try_dig};

/// A headwater node: the release binary, its configuration, directory and ports.
#[derive(Debug)]
pub(crate) struct Node {
    // First, so that its log is still there when it is dropped.
    process: Option<Process>,
    dir: TempDir,
    /// Variables it is started with, beside ours.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// UDP and TCP port for `@DNS@`.
    pub(crate) dns: u16,
    /// TCP port for `@HTTP@`.
    pub(crate) http: u16,
    /// TCP port for `@METRICS@`.
    pub(crate) metrics: u16,
}

impl Node {
    /// A node that is not started: a directory with `config.toml`, where `@DNS@`, `@HTTP@`, `@METRICS@` stand for
    /// free ports of 127.0.0.1 and `@DIR@` for the directory. [`COMMON`] has the tables every node needs.
    pub(crate) fn new(config: &str) -> Self {
        let node = Self {
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
            dns: free_port(),
            http: free_port(),
            metrics: free_port(),
            environment: Vec::new(),
            process: None,
        };
        node.configure(config);
        node
    }

    /// Writes `config.toml` anew, with the same placeholders as [`Node::new`].
    pub(crate) fn configure(&self, config: &str) {
        let text = config
            .replace("@DNS@", &self.dns.to_string())
            .replace("@HTTP@", &self.http.to_string())
            .replace("@METRICS@", &self.metrics.to_string())
            .replace("@DIR@", &self.dir.path().display().to_string());
        self.write("config.toml", text);
    }

    /// Writes a file beneath the node's directory as an operator's editor does: beside it, then renamed over it.
    pub(crate) fn write(&self, path: &str, data: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        let parent = path.parent().expect("a file has a parent");
        fs::create_dir_all(parent).expect("the temporary directory is writable");
        let beside = path.with_extension("beside");
        fs::write(&beside, data).expect("the temporary directory is writable");
        fs::rename(&beside, &path).expect("both are in one directory");
        path
    }

    /// A path beneath the node's directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Starts the node (again) and waits until `/readyz` says so.
    pub(crate) fn start(&mut self) {
        self.spawn();
        let port = self.metrics;
        poll(READY, "the node to be ready", || {
            let process = self.process.as_mut().expect("just started");
            process.assert_running();
            match http_get(port, "/readyz") {
                Some((200, _)) => Some(()),
                _ => None,
            }
        });
    }

    /// Starts the node without waiting.
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "the node runs already");
        let mut command = headwater();
        command
            .args(["run", "--config"])
            .arg(self.path("config.toml"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path());
        let log = self.path("log");
        self.process = Some(Process::spawn("headwater", command, log));
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.process.as_ref().expect("the node runs").pid()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the node runs");
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("the node runs").kill();
    }

    /// Stops it as a service manager would; its exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.process.take().expect("the node runs").stop()
    }

    /// Runs a control command against this node (`["cache", "stats"]`).
    pub(crate) fn control(&self, args: &[&str]) -> Output {
        let mut command = headwater();
        command
            .args(args)
            .arg("--socket")
            .arg(self.path("admin.sock"));
        run(&mut command)
    }

    /// The same with `--json`, which must succeed; its document.
    pub(crate) fn control_json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.control(&[args, &["--json"]].concat());
        output.assert_success();
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: not JSON ({error}): {}", output.stdout))
    }

    /// Asks it a question over dig: `["www.example", "A", "+tcp"]`.
    pub(crate) fn dig(&self, args: &[&str]) -> Answer {
        dig(self.dns, args)
    }

    /// The URL of a path on its HTTP server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    /// The sum of the series of `name` that carry all of `labels`; 0 when there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (status, text) = http_get(self.metrics, "/metrics").expect("the node serves /metrics");
        assert_eq!(status, 200, "{text}");
        text.lines()
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, have) = series.split_once('{').unwrap_or((series, ""));
                let matches = found == name
                    && labels
                        .iter()
                        .all(|(key, value)| have.contains(&format!("{key}=\"{value}\"")));
                matches.then(|| value.parse::<f64>().expect("a sample is a number"))
            })
            .sum()
    }
}

/// NSD with zones of its own.
#[derive(Debug)]
pub(crate) struct Nsd {
    /// UDP and TCP port on 127.0.0.1.
    pub(crate) port: u16,
    process: Process,
    dir: TempDir,
}

impl Nsd {
    /// Starts NSD with `(apex, master file text)` zones and waits until it answers each. Its answers have the
    /// additional records of MX and SRV and the NS of the zone.
    pub(crate) fn start(zones: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let at = dir.path().display();
        let mut config = format!(
            "server:\n server-count: 1\n ip-address: 127.0.0.1@{port}\n username: \"\"\n zonesdir: \"{at}\"\n \
             database: \"\"\n pidfile: \"\"\n xfrdfile: \"{at}/xfrd.state\"\n zonelistfile: \"{at}/zone.list\"\n \
             minimal-responses: no\n rrl-ratelimit: 0\n hide-version: yes\nremote-control:\n control-enable: no\n"
        );
        for (index, (apex, text)) in zones.iter().enumerate() {
            let file = dir.path().join(format!("{index}.zone"));
            fs::write(&file, text).expect("the temporary directory is writable");
            writeln!(
                config,
                "zone:\n name: \"{apex}\"\n zonefile: \"{}\"",
                file.display()
            )
            .expect("a String takes all");
        }
        let file = dir.path().join("nsd.conf");
        fs::write(&file, config).expect("the temporary directory is writable");
        let mut command = Command::new(tool("nsd"));
        command.arg("-d").arg("-c").arg(&file);
        let mut process = Process::spawn("nsd", command, dir.path().join("log"));
        for (apex, _) in zones {
            poll(READY, "NSD to answer", || {
                process.assert_running();
                let soa = try_dig(port, &[apex, "SOA", "+time=1"])?;
                (soa.status == "NOERROR").then_some(())
            });
        }
        Self { port, process, dir }
    }

    /// Replaces the master file of the zone with this number, and has NSD read it.
    pub(crate) fn replace(&self, index: usize, text: &str) {
        let file = self.dir.path().join(format!("{index}.zone"));
        fs::write(file, text).expect("the temporary directory is writable");
        kill_process(self.process.pid(), Signal::HUP).expect("NSD runs");
    }
}

/// Knot DNS with zones read from files, and nothing else.
#[derive(Debug)]
pub(crate) struct Knot {
    /// UDP and TCP port on 127.0.0.1.
    pub(crate) port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Knot {
    /// Starts Knot with `(apex, master file text)` zones and waits until it answers each.
    pub(crate) fn start(zones: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let at = dir.path().display();
        let mut config = format!(
            "server:\n  rundir: \"{at}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ndatabase:\n  storage: \"{at}\"\ntemplate:\n  - id: default\n    \
             storage: \"{at}\"\n    semantic-checks: off\n    zonefile-sync: -1\n    journal-content: none\nzone:\n"
        );
        for (index, (apex, text)) in zones.iter().enumerate() {
            let file = format!("{index}.zone");
            fs::write(dir.path().join(&file), text).expect("the temporary directory is writable");
            writeln!(config, "  - domain: {apex}\n    file: {file}").expect("a String takes all");
        }
        let file = dir.path().join("knot.conf");
        fs::write(&file, config).expect("the temporary directory is writable");
        let mut command = Command::new(tool("knotd"));
        command.arg("-c").arg(&file);
        let mut process = Process::spawn("knotd", command, dir.path().join("log"));
        for (apex, _) in zones {
            poll(READY, "Knot to answer", || {
                process.assert_running();
                let soa = try_dig(port, &[apex, "SOA", "+time=1"])?;
                (soa.status == "NOERROR").then_some(())
            });
        }
        Self {
            port,
            _process: process,
            _dir: dir,
        }
    }
}

/// BIND with zones read from files, and nothing else.
#[derive(Debug)]
pub(crate) struct Bind {
    /// UDP and TCP port on 127.0.0.1.
    pub(crate) port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Bind {
    /// Starts BIND with `(apex, master file text)` zones and waits until it answers each. Its answers have the
    /// additional records of what they name, and no NS of the zone.
    pub(crate) fn start(zones: &[(&str, &str)]) -> Self {
        Self::start_with(zones, "", "")
    }

    /// Likewise, with more options, and more statements before them.
    pub(crate) fn start_with(zones: &[(&str, &str)], options: &str, statements: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let at = dir.path().display();
        let mut config = format!(
            "{statements}options {{ {options} directory \"{at}\"; pid-file none; session-keyfile none; listen-on port {port} {{ 127.0.0.1; }};\n \
             listen-on-v6 {{ none; }}; recursion no; minimal-responses no-auth; dnssec-validation no; empty-zones-enable \
             no; check-integrity no; check-names primary ignore; notify no; }};\ncontrols {{ }};\n"
        );
        for (index, (apex, text)) in zones.iter().enumerate() {
            let file = format!("{index}.zone");
            fs::write(dir.path().join(&file), text).expect("the temporary directory is writable");
            writeln!(
                config,
                "zone \"{apex}\" {{ type primary; file \"{file}\"; }};"
            )
            .expect("a String takes all");
        }
        let file = dir.path().join("named.conf");
        fs::write(&file, config).expect("the temporary directory is writable");
        let mut command = Command::new(tool("named"));
        command.args(["-g", "-n", "1"]).arg("-c").arg(&file);
        let mut process = Process::spawn("named", command, dir.path().join("log"));
        for (apex, _) in zones {
            poll(READY, "BIND to answer", || {
                process.assert_running();
                let soa = try_dig(port, &[apex, "SOA", "+time=1"])?;
                (soa.status == "NOERROR").then_some(())
            });
        }
        Self {
            port,
            _process: process,
            _dir: dir,
        }
    }
}

/// Unbound that answers for zones of its own and nothing else.
#[derive(Debug)]
pub(crate) struct Unbound {
    /// UDP and TCP port on 127.0.0.1.
    pub(crate) port: u16,
    process: Option<Process>,
    _dir: TempDir,
}

impl Unbound {
    /// Starts Unbound with `zone` (records of a `static` local zone, one a line) and waits until it answers.
    pub(crate) fn start(zone: &str, records: &[&str]) -> Self {
        Self::start_with(zone, records, "")
    }

    /// Likewise, with more lines of its `server:` clause.
    pub(crate) fn start_with(zone: &str, records: &[&str], lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let mut config = format!(
            "server:\n{lines} interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{at}\"\n \
             pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n module-config: \"iterator\"\n num-threads: 1\n \
             access-control: 127.0.0.0/8 allow\n local-zone: \"{zone}\" static\n",
            at = dir.path().display()
        );
        for record in records {
            writeln!(config, " local-data: '{record}'").expect("a String takes all");
        }
        config.push_str("remote-control:\n control-enable: no\n");
        let file = dir.path().join("unbound.conf");
        fs::write(&file, config).expect("the temporary directory is writable");
        let mut command = Command::new(tool("unbound"));
        command.arg("-d").arg("-c").arg(&file);
        let mut process = Process::spawn("unbound", command, dir.path().join("log"));
        poll(READY, "Unbound to answer", || {
            process.assert_running();
            let soa = try_dig(port, &[zone, "SOA", "+time=1"])?;
            (soa.status == "NOERROR").then_some(())
        });
        Self {
            port,
            process: Some(process),
            _dir: dir,
        }
    }

    /// Stops it: from now on its port is closed.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("Unbound runs").stop();
    }

    /// Makes it silent: its port is open, nobody answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Unbound::pause`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("Unbound runs");
        kill_process(process.pid(), signal).expect("it is our child");
    }
}

/// Prometheus, scraping every second.
#[derive(Debug)]
pub(crate) struct Prometheus {
    port: u16,
    process: Process,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with one job `headwater` for the metrics ports of `nodes` (label `node` → port).
    pub(crate) fn start(nodes: &[(&str, u16)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let mut config = String::from(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: headwater\n    static_configs:\n",
        );
        for (name, metrics) in nodes {
            writeln!(
                config,
                "      - targets: ['127.0.0.1:{metrics}']\n        labels: {{ node: '{name}' }}"
            )
            .expect("a String takes all");
        }
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).expect("the temporary directory is writable");
        let mut command = Command::new(tool("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.format=logfmt");
        let mut process = Process::spawn("prometheus", command, dir.path().join("log"));
        poll(READY, "Prometheus to be ready", || {
            process.assert_running();
            match http_get(port, "/-/ready") {
                Some((200, _)) => Some(()),
                _ => None,
            }
        });
        Self {
            port,
            process,
            _dir: dir,
        }
    }

    /// The value of an instant query's first sample, if it has one (and it is a number).
    pub(crate) fn query(&self, expression: &str) -> Option<f64> {
        let document = self.api(&format!("/api/v1/query?query={}", percent(expression)));
        let value = document["data"]["result"][0]["value"][1].as_str()?;
        value.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Any document of its HTTP API.
    pub(crate) fn api(&self, path: &str) -> serde_json::Value {
        let (status, text) = http_get(self.port, path).expect("Prometheus answers");
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).expect("its API speaks JSON")
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

/// A process of ours with its log in a file; stopped by pid when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl Process {
    /// Starts `command`, its standard output and error appended to `log`.
    pub(crate) fn spawn(name: &'static str, mut command: Command, log: PathBuf) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log is writable");
        let err = out.try_clone().expect("a file can be shared");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            name,
            child,
            log,
            ended: false,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Panics with its log when it has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            self.ended = true;
            panic!("{} ended early ({status}):\n{}", self.name, self.log());
        }
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// TERM, then its exit status; panics when it does not end in [`STOP`].
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.end()
            .unwrap_or_else(|| panic!("{} did not stop in {STOP:?}:\n{}", self.name, self.log()))
    }

    /// Waits until it ends by itself; panics when it does not within [`LIMIT`].
    pub(crate) fn wait(mut self) -> ExitStatus {
        let status = poll(LIMIT, self.name, || {
            self.child.try_wait().expect("it is our child")
        });
        self.ended = true;
        status
    }

    /// KILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        self.ended = true;
    }

    /// TERM, KILL after [`STOP`]; the status when TERM was enough.
    fn end(&mut self) -> Option<ExitStatus> {
        self.ended = true;
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        let _ = kill_process(self.pid(), Signal::TERM);
        let _ = kill_process(self.pid(), Signal::CONT);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
        if thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, tail(&self.log(), 60));
        }
    }
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// Its standard output, as text.
    pub(crate) stdout: String,
    /// Its standard error, as text.
    pub(crate) stderr: String,
}

impl Output {
    /// Panics with everything it said unless it exited with 0.
    #[track_caller]
    pub(crate) fn assert_success(&self) {
        assert!(self.status.success(), "{self:#?}");
    }
}

/// Runs a command within [`LIMIT`]; panics when it takes longer.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let pid = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    let Ok(output) = receiver.recv_timeout(LIMIT) else {
        let _ = kill_process(pid, Signal::KILL);
        panic!("{command:?} took longer than {LIMIT:?}");
    };
    let output = output.expect("its output can be read");
    Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary under test, with an environment that has none of its variables.
pub(crate) fn headwater() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("HEADWATER") {
            command.env_remove(key);
        }
    }
    command
}

/// A tool's path; panics with the Debian package to install when it is missing.
#[track_caller]
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            let package = match name {
                "dig" | "delv" => "bind9-dnsutils",
                "dnstap" => "golang-github-dnstap-golang-dnstap-cli",
                "kdig" => "knot-dnsutils",
                "knotd" => "knot",
                "named" => "bind9",
                "nsupdate" => "bind9-dnsutils",
                "dnssec-cds" | "dnssec-keygen" | "dnssec-signzone" | "dnssec-verify"
                | "dnssec-dsfromkey" | "named-checkzone" => "bind9-utils",
                "kzonecheck" => "knot-dnssecutils",
                "nsd-checkzone" => "nsd",
                "ldns-keygen" | "ldns-signzone" | "ldns-verify-zone" => "ldnsutils",
                "h2load" => "nghttp2-client",
                "aria2c" => "aria2",
                "promtool" => "prometheus",
                other => other,
            };
            panic!("`{name}` is missing: apt-get install {package}")
        })
}

/// A port of 127.0.0.1 free for both UDP and TCP, below the range the kernel picks from, never handed out twice.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    // Two runs at once begin at different places.
    let begin = u16::try_from(std::process::id() % u32::from(COUNT)).expect("less than COUNT");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin.wrapping_add(step) % COUNT);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Asks `check` until it has an answer; panics, saying what for, when there is none within `limit`.
#[track_caller]
pub(crate) fn poll<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain for {what}"
        );
        thread::sleep(PAUSE);
    }
}

/// One HTTP/1.0 GET to 127.0.0.1: status and body; `None` when nobody answers.
pub(crate) fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    )
    .ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The SHA-256 of a file in hexadecimal, as `sha256sum` prints it.
#[track_caller]
pub(crate) fn sha256(file: &Path) -> String {
    let output = run(Command::new(tool("sha256sum")).arg(file));
    output.assert_success();
    output
        .stdout
        .split_whitespace()
        .next()
        .expect("sha256sum prints the digest first")
        .to_owned()
}

/// `size` bytes that look random and are the same for the same `seed`.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes all");
        }
        out
    })
}

/// The tables every node needs: identity and state, DNS, HTTP, metrics and control on free ports.
pub(crate) const COMMON: &str = r#"
[node]
id = "test"
state = "@DIR@/state"
[dns]
listen = ["127.0.0.1:@DNS@"]
# The tests are one network, and ask more than that may.
rate_limit.responses = 0
[http]
listen = ["127.0.0.1:@HTTP@"]
[metrics]
listen = "127.0.0.1:@METRICS@"
[admin]
socket = "@DIR@/admin.sock"
"#;

/// How long a command may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long a daemon may take until it serves.
pub(crate) const READY: Duration = Duration::from_secs(20);

/// How long a daemon may take to stop after TERM.
const STOP: Duration = Duration::from_secs(10);

/// Between two looks of [`poll`].
const PAUSE: Duration = Duration::from_millis(20);

/// Unbound that validates answers of servers on other ports.
#[derive(Debug)]
pub(crate) struct Validator {
    /// UDP and TCP port on 127.0.0.1.
    pub(crate) port: u16,
    process: Process,
    _dir: TempDir,
}

impl Validator {
    /// Starts Unbound with a stub zone per name of `zones`, at the port beside it, and waits until it answers. `anchors`
    /// are DNSKEY or DS records.
    pub(crate) fn start(zones: &[(&str, u16)], anchors: &[String]) -> Self {
        Self::start_at(free_port(), zones, anchors)
    }

    /// The same on a given port.
    pub(crate) fn start_at(port: u16, zones: &[(&str, u16)], anchors: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = format!(
            "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{at}\"\n \
             pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n module-config: \"validator iterator\"\n num-threads: 1\n \
             do-not-query-localhost: no\n local-zone: \"test.\" nodefault\n harden-algo-downgrade: yes\n val-log-level: 2\n \
             access-control: 127.0.0.0/8 allow\n",
            at = dir.path().display()
        );
        for anchor in anchors {
            writeln!(config, " trust-anchor: '{anchor}'").expect("a String takes all");
        }
        for (zone, server) in zones {
            writeln!(
                config,
                "stub-zone:\n name: \"{zone}\"\n stub-addr: 127.0.0.1@{server}"
            )
            .expect("a String takes all");
        }
        config.push_str("remote-control:\n control-enable: no\n");
        let file = dir.path().join("unbound.conf");
        fs::write(&file, config).expect("the temporary directory is writable");
        let mut command = Command::new(tool("unbound"));
        command.arg("-d").arg("-c").arg(&file);
        let mut process = Process::spawn("unbound", command, dir.path().join("log"));
        poll(READY, "Unbound to answer", || {
            process.assert_running();
            try_dig(port, &[zones[0].0, "SOA", "+time=1"])
        });
        Self {
            port,
            process,
            _dir: dir,
        }
    }

    /// All it has logged: a line for each answer that does not validate, too.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
