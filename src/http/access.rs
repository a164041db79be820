//! The access log: a bounded queue to one writer.
//!
//! A request never waits for the log: when the queue is full or the file is at fault, its line is dropped and
//! counted. The writer is a thread of its own; it ends when the last [`Log`] is gone, after writing what is queued.
//! A line is in the combined format, as other servers write it, or a JSON object with the outcome, the time taken and the host beside that:
//!
//! ```text
//! 192.0.2.7 - - [22/Nov/2026:17:52:00 +0000] "GET /video.bin HTTP/1.1" 206 1048576 "-" "curl/8"
//! {"time":"2026-11-22T17:52:00.123Z","address":"192.0.2.7","method":"GET","target":"/video.bin","version":"HTTP/1.1","status":206,…}
//! ```

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use serde::Serialize;

use super::fresh::{http_date, rfc3339};
use crate::metrics::Metrics;
use crate::metrics::http::Outcome;
use crate::time::Now;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As Apache's and nginx's `combined`.
    Combined,
    /// A JSON object.
    Json,
}

/// A handle to the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Item>,
    format: Format,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

/// What of a request is logged, taken as it begins.
#[derive(Debug)]
pub struct Entry {
    address: IpAddr,
    begun: Now,
    method: Method,
    target: String,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
}

/// A request as a line of the log tells it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asked.
    pub address: IpAddr,
    /// When.
    pub begun: Now,
    /// How.
    pub method: &'a str,
    /// For what: path and query.
    pub target: &'a str,
    /// In which version of HTTP.
    pub version: Version,
    /// Of whom.
    pub host: Option<&'a [u8]>,
    /// Sent by which page.
    pub referer: Option<&'a [u8]>,
    /// With which program.
    pub agent: Option<&'a [u8]>,
}

#[derive(Debug)]
enum Item {
    Line(String),
    Wake,
    Flush(SyncSender<()>),
}

impl Log {
    /// Opens (or makes) the file at `path` and starts the writer, for whom at most `lines` wait.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(
        path: &Path,
        format: Format,
        lines: usize,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let file = append(path)?;
        let (queue, items) = sync_channel(lines);
        let log = Self {
            queue,
            format,
            reopen: Arc::new(AtomicBool::new(false)),
            metrics,
        };
        let writer = Writer {
            path: path.to_owned(),
            file: BufWriter::new(file),
            reopen: Arc::clone(&log.reopen),
            metrics: Arc::clone(&log.metrics),
            faulty: false,
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&items))?;
        Ok(log)
    }

    /// Has the file opened anew before the next line (it was renamed away by a log rotation).
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // A full queue wakes the writer as well.
        let _ = self.queue.try_send(Item::Wake);
    }

    /// Waits until all that was queued is written. Blocking.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Item::Flush(done)).is_ok() {
            // An error means the writer is gone, and with it what could be waited for.
            let _ = wait.recv();
        }
    }

    /// Queues the line of a request that ended.
    pub fn write(&self, asked: &Asked<'_>, status: StatusCode, bytes: u64, outcome: Outcome) {
        let line = match self.format {
            Format::Combined => asked.combined(status, bytes),
            Format::Json => asked.json(status, bytes, outcome, Now::read()),
        };
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.metrics.http.access_dropped.inc();
        }
    }
}

impl Entry {
    /// Takes what is logged of a request that begins now.
    #[must_use]
    pub fn new(
        address: IpAddr,
        begun: Now,
        method: &Method,
        target: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Self {
        let path = target.path_and_query();
        Self {
            address,
            begun,
            method: method.clone(),
            target: path
                .map_or_else(|| target.path(), |path| path.as_str())
                .to_owned(),
            version,
            host: match target.authority() {
                // HTTP/2 names it in the target.
                Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
                None => headers.get(header::HOST).cloned(),
            },
            referer: headers.get(header::REFERER).cloned(),
            agent: headers.get(header::USER_AGENT).cloned(),
        }
    }

    /// What is logged.
    #[must_use]
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            address: self.address,
            begun: self.begun,
            method: self.method.as_str(),
            target: &self.target,
            version: self.version,
            host: self.host.as_ref().map(HeaderValue::as_bytes),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            agent: self.agent.as_ref().map(HeaderValue::as_bytes),
        }
    }
}

impl Asked<'_> {
    fn combined(&self, status: StatusCode, bytes: u64) -> String {
        // "Sun, 06 Nov 1994 08:49:37 GMT" has fixed columns.
        let date = http_date(self.begun.unix_ms / 1000);
        let mut line = format!(
            "{} - - [{}/{}/{}:{} +0000] \"",
            self.address,
            &date[5..7],
            &date[8..11],
            &date[12..16],
            &date[17..25],
        );
        escape(self.method.as_bytes(), &mut line);
        line.push(' ');
        escape(self.target.as_bytes(), &mut line);
        let _ = write!(line, " {:?}\" {} {bytes}", self.version, status.as_u16());
        for field in [self.referer, self.agent] {
            line.push_str(" \"");
            match field {
                Some(value) => escape(value, &mut line),
                None => line.push('-'),
            }
            line.push('"');
        }
        line.push('\n');
        line
    }

    fn json(&self, status: StatusCode, bytes: u64, outcome: Outcome, now: Now) -> String {
        let text = |field: Option<&[u8]>| Some(String::from_utf8_lossy(field?).into_owned());
        let line = Json {
            time: rfc3339(self.begun.unix_ms),
            address: self.address,
            method: self.method,
            host: text(self.host),
            target: self.target,
            version: format!("{:?}", self.version),
            status: status.as_u16(),
            bytes,
            outcome: outcome.label(),
            micros: u64::try_from(now.since(self.begun).as_micros()).unwrap_or(u64::MAX),
            referer: text(self.referer),
            agent: text(self.agent),
        };
        let mut line = serde_json::to_string(&line).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// A line of the JSON format; what the client did not say is null.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    address: IpAddr,
    method: &'a str,
    host: Option<String>,
    target: &'a str,
    version: String,
    status: u16,
    /// Of the body, handed to the connection.
    bytes: u64,
    outcome: &'static str,
    /// From the head of the request to the end of the answer's body.
    micros: u64,
    referer: Option<String>,
    agent: Option<String>,
}

/// Bytes that could end a field or a line, or are not ASCII, are written `\xHH`.
fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..b' ' | 0x7f.. => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            _ => out.push(char::from(*byte)),
        }
    }
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    faulty: bool,
}

impl Writer {
    fn run(mut self, items: &Receiver<Item>) {
        while let Ok(item) = items.recv() {
            self.take(item);
            // All that is queued goes out in one write.
            while let Ok(item) = items.try_recv() {
                self.take(item);
            }
            let flushed = self.file.flush();
            self.note(flushed);
        }
    }

    fn take(&mut self, item: Item) {
        if self.reopen.swap(false, Ordering::Acquire) {
            let flushed = self.file.flush();
            self.note(flushed);
            let opened = append(&self.path).map(|file| self.file = BufWriter::new(file));
            self.note(opened);
        }
        match item {
            Item::Line(line) => {
                let written = self.file.write_all(line.as_bytes());
                if written.is_err() {
                    self.metrics.http.access_dropped.inc();
                }
                self.note(written);
            }
            Item::Wake => {}
            Item::Flush(done) => {
                let flushed = self.file.flush();
                self.note(flushed);
                let _ = done.try_send(());
            }
        }
    }

    /// Logs a fault once, until writing works again.
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.faulty = false,
            Err(error) if !self.faulty => {
                self.faulty = true;
                tracing::warn!(path = %self.path.display(), %error, "access log not written");
            }
            Err(_) => {}
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn entry(target: &'static str, agent: &'static str) -> Entry {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, agent.parse().unwrap());
        Entry::new(
            "192.0.2.7".parse().unwrap(),
            Now {
                mono_ns: 5_000,
                unix_ms: 784_111_777_123,
            },
            &Method::GET,
            &Uri::from_static(target),
            Version::HTTP_11,
            &headers,
        )
    }

    /// Waits until the file at `path` satisfies `check`.
    fn wait(path: &Path, check: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if check(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{}: {text:?}", path.display());
            std::thread::yield_now();
        }
    }

    #[test]
    fn line_is_in_the_combined_format() {
        assert_eq!(
            entry("/a?b", "curl/8").asked().combined(StatusCode::OK, 12),
            "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 12 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn line_is_a_json_object() {
        let now = Now {
            mono_ns: 1_505_000,
            unix_ms: 0,
        };
        let entry = entry("http://a.test/a?b", "x\"y\\\t");
        assert_eq!(
            entry
                .asked()
                .json(StatusCode::PARTIAL_CONTENT, 12, Outcome::Partial, now),
            concat!(
                r#"{"time":"1994-11-06T08:49:37.123Z","address":"192.0.2.7","method":"GET","host":"a.test","target":"/a?b","#,
                r#""version":"HTTP/1.1","status":206,"bytes":12,"outcome":"partial","micros":1500,"referer":null,"agent":"x\"y\\\t"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn quote_in_a_field_cannot_end_it() {
        let line = entry("/", "x\" 200 \\\t")
            .asked()
            .combined(StatusCode::OK, 0);
        assert!(line.contains(r#""x\x22 200 \x5c\x09""#), "{line}");
    }

    #[test]
    fn lines_beyond_the_queue_are_dropped_and_counted() {
        let metrics = Arc::new(Metrics::new());
        let (queue, _held) = sync_channel(2);
        let log = Log {
            queue,
            format: Format::Json,
            reopen: Arc::default(),
            metrics: Arc::clone(&metrics),
        };
        for _ in 0..5 {
            log.write(&entry("/x", "a").asked(), StatusCode::OK, 1, Outcome::Ok);
        }
        assert_eq!(metrics.http.access_dropped.get(), 3);
    }

    #[test]
    fn log_is_reopened_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = Log::open(&path, Format::Combined, 8_192, Arc::new(Metrics::new())).unwrap();
        log.write(
            &entry("/first", "a").asked(),
            StatusCode::OK,
            1,
            Outcome::Ok,
        );
        wait(&path, |text| text.contains("/first"));
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        log.reopen();
        log.write(
            &entry("/second", "a").asked(),
            StatusCode::OK,
            1,
            Outcome::Ok,
        );
        let text = wait(&path, |text| text.contains("/second"));
        assert!(!text.contains("/first"));
    }

    #[test]
    fn flushed_lines_are_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = Log::open(&path, Format::Combined, 8_192, Arc::new(Metrics::new())).unwrap();
        for _ in 0..100 {
            log.write(&entry("/x", "a").asked(), StatusCode::OK, 1, Outcome::Ok);
        }
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
    }
}
