//! The access log: a bounded queue to one writer.
//!
//! A request never waits for the log: when the queue is full or the file is at fault, its line is dropped and
//! counted. The writer is a thread of its own; it ends when the last [`Log`] is gone, after writing what is queued.
//! A line is in the combined format, then the outcome in brackets:
//!
//! ```text
//! 192.0.2.7 - - [22/Nov/2026:17:52:00 +0000] "GET /video.bin HTTP/1.1" 206 1048576 "-" "curl/8" [partial]
//! ```

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use super::fresh::http_date;
use crate::metrics::Metrics;
use crate::metrics::http::Outcome;

/// A handle to the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Item>,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

/// What of a request is logged, taken as it begins.
#[derive(Debug)]
pub struct Entry {
    address: IpAddr,
    /// Seconds since 1970.
    at: u64,
    /// Request line, without quotes.
    request: String,
    referer: String,
    agent: String,
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
    pub fn open(path: &Path, lines: usize, metrics: Arc<Metrics>) -> io::Result<Self> {
        let file = append(path)?;
        let (queue, items) = sync_channel(lines);
        let log = Self {
            queue,
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
    pub fn write(&self, entry: &Entry, status: StatusCode, bytes: u64, outcome: Outcome) {
        let line = entry.line(status, bytes, outcome);
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.metrics.http.access_dropped.inc();
        }
    }
}

impl Entry {
    /// Takes what is logged of a request.
    #[must_use]
    pub fn new(
        address: IpAddr,
        at: u64,
        method: &Method,
        target: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Self {
        let field = |name| {
            let mut text = String::new();
            match headers.get(name) {
                Some(value) => escape(value.as_bytes(), &mut text),
                None => text.push('-'),
            }
            text
        };
        let mut request = String::new();
        escape(method.as_str().as_bytes(), &mut request);
        request.push(' ');
        let target = target
            .path_and_query()
            .map_or_else(|| target.path(), |target| target.as_str());
        escape(target.as_bytes(), &mut request);
        let _ = write!(request, " {version:?}");
        Self {
            address,
            at,
            request,
            referer: field(header::REFERER),
            agent: field(header::USER_AGENT),
        }
    }

    fn line(&self, status: StatusCode, bytes: u64, outcome: Outcome) -> String {
        // "Sun, 06 Nov 1994 08:49:37 GMT" has fixed columns.
        let date = http_date(self.at);
        format!(
            "{} - - [{}/{}/{}:{} +0000] \"{}\" {} {bytes} \"{}\" \"{}\" [{}]\n",
            self.address,
            &date[5..7],
            &date[8..11],
            &date[12..16],
            &date[17..25],
            self.request,
            status.as_u16(),
            self.referer,
            self.agent,
            outcome.label(),
        )
    }
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
            784_111_777,
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
            entry("/a?b", "curl/8").line(StatusCode::OK, 12, Outcome::Ok),
            "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 12 \"-\" \"curl/8\" [ok]\n"
        );
    }

    #[test]
    fn quote_in_a_field_cannot_end_it() {
        let line = entry("/", "x\" 200 \\\t").line(StatusCode::OK, 0, Outcome::Ok);
        assert!(line.contains(r#""x\x22 200 \x5c\x09""#), "{line}");
    }

    #[test]
    fn log_is_reopened_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = Log::open(&path, 8_192, Arc::new(Metrics::new())).unwrap();
        log.write(&entry("/first", "a"), StatusCode::OK, 1, Outcome::Ok);
        wait(&path, |text| text.contains("/first"));
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        log.reopen();
        log.write(&entry("/second", "a"), StatusCode::OK, 1, Outcome::Ok);
        let text = wait(&path, |text| text.contains("/second"));
        assert!(!text.contains("/first"));
    }

    #[test]
    fn flushed_lines_are_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = Log::open(&path, 8_192, Arc::new(Metrics::new())).unwrap();
        for _ in 0..100 {
            log.write(&entry("/x", "a"), StatusCode::OK, 1, Outcome::Ok);
        }
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
    }
}
