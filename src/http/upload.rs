//! `PUT` and `DELETE` beneath one prefix, for whoever has a token.
//!
//! A file is written beside the published ones, checked against what the client declared of it, made durable and moved to its name
//! ([`crate::content::intake`]); the answer comes when it is published, so a GET after it has it, and mirrors hear of it as of any other.
//!
//! What broke off goes on with `Content-Range` (RFC 9110 section 14.5), which curl sends by itself (`curl -C OFFSET -T`). The drafts of
//! resumable uploads were not taken: they want interim responses, which hyper does not send, their fields change from draft to draft, and no
//! client at hand speaks them. From where to go on is said by `Upload-Offset`, which is theirs: in the answer to a part, to a part that does
//! not fit, and to `Content-Range: bytes */SIZE` without content.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::digest::{self, Algorithm, CONTENT_DIGEST, Declared, REPR_DIGEST};
use super::fresh::{self, Validators, Verdict};
use super::object::{self, empty, plain};
use super::receipt::Receipt;
use super::rules::encode;
use crate::content::intake::{Intake, IntakeError};
use crate::content::library::{Entry, Library};
use crate::metrics::Metrics;
use crate::metrics::http::{Outcome, Role, Upload};

/// Settings of uploads.
#[derive(Clone, Debug)]
pub struct Config {
    /// File with the tokens, one a line; read for each upload, so that a change counts at once.
    pub token_file: PathBuf,
    /// URL path prefix beneath which files may be put; begins and ends with `/`.
    pub prefix: String,
    /// Bytes of a file at most.
    pub max: u64,
    /// Uploads at once.
    pub at_once: usize,
    /// What broke off may go on within this.
    pub keep: Duration,
}

/// What takes uploads.
#[derive(Debug)]
pub struct Uploads {
    config: Config,
    places: Arc<Semaphore>,
}

/// A request that was not carried out: how it counts, and how it is answered.
struct Refusal {
    kind: Upload,
    status: StatusCode,
    text: String,
    offset: Option<u64>,
}

impl Refusal {
    fn new(kind: Upload, status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            text: text.into(),
            offset: None,
        }
    }

    fn bad(text: &str) -> Self {
        Self::new(Upload::Refused, StatusCode::BAD_REQUEST, text)
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        let (kind, status) = match &error {
            IntakeError::Place(_) => (Upload::Refused, StatusCode::FORBIDDEN),
            IntakeError::Busy => (Upload::Busy, StatusCode::CONFLICT),
            IntakeError::Offset(_) | IntakeError::Taken => (Upload::Refused, StatusCode::CONFLICT),
            IntakeError::Full => (Upload::Full, StatusCode::INSUFFICIENT_STORAGE),
            IntakeError::Io(_) => (Upload::Failed, StatusCode::INTERNAL_SERVER_ERROR),
        };
        // What the kernel says is for the operator.
        let text = match &error {
            IntakeError::Io(_) => {
                tracing::warn!(%error, "upload not stored");
                "the file cannot be stored".to_owned()
            }
            error => error.to_string(),
        };
        let mut refusal = Self::new(kind, status, text);
        if let IntakeError::Offset(offset) = error {
            refusal.offset = Some(offset);
        }
        refusal
    }
}

/// What became of a request that was carried out.
enum Done {
    Stored {
        new: bool,
        etag: String,
        sha256: [u8; 32],
    },
    /// So many bytes are here, and more are to come.
    Part(u64),
    Deleted,
}

impl Uploads {
    /// Takes uploads as `config` says.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.at_once)),
            config,
        }
    }

    /// Whether a request for `path` is an upload's.
    #[must_use]
    pub fn takes(&self, method: &Method, path: &str) -> bool {
        (method == Method::PUT || method == Method::DELETE)
            && path.starts_with(&self.config.prefix)
            && !path.ends_with('/')
    }

    /// Whether files may be put at `path`.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        path.starts_with(&self.config.prefix)
    }

    /// Removes what broke off and did not go on, now and then until `stop`.
    pub async fn sweep(&self, library: &Library, metrics: &Metrics, stop: &CancellationToken) {
        let mut every = tokio::time::interval(self.config.keep.max(Duration::from_secs(1)) / 2);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => {}
            }
            let (swept, age) = (library.clone(), self.config.keep);
            let swept = library.threads().run(move || swept.sweep(age)).await;
            match swept {
                Ok(Ok(swept)) => metrics.http.uploads_swept.inc_by(swept),
                Ok(Err(error)) => tracing::warn!(%error, "uploads that broke off not swept"),
                Err(_) => {}
            }
        }
    }

    /// Whether the client has a token.
    async fn authorise(&self, headers: &HeaderMap, library: &Library) -> Result<(), Refusal> {
        let denied = || {
            let text = "a bearer token is wanted, and this is none";
            Refusal::new(Upload::Unauthorized, StatusCode::UNAUTHORIZED, text)
        };
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Err(denied()); // Of two, nobody knows which is meant.
        };
        let field = field.to_str().map_err(|_| denied())?;
        let (scheme, token) = field.split_once(' ').ok_or_else(denied)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(denied());
        }
        let file = self.config.token_file.clone();
        let read = library.threads().run(move || tokens(&file)).await;
        let tokens = match read {
            Ok(Ok(tokens)) => tokens,
            Ok(Err(problem)) => {
                tracing::error!(problem, "uploads refused");
                let text = "the server cannot read its tokens";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Err(Refusal::new(Upload::Failed, status, text));
            }
            Err(_) => {
                return Err(Refusal::new(
                    Upload::Failed,
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "",
                ));
            }
        };
        // Digests compare in constant time, whatever the lengths; and each is compared, whichever fits.
        let token = blake3::hash(token.trim().as_bytes());
        let fits = tokens.iter().fold(false, |fits, known| {
            fits | (blake3::hash(known.as_bytes()) == token)
        });
        if fits { Ok(()) } else { Err(denied()) }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let text = "too many uploads at once";
            Refusal::new(Upload::Busy, StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }
}

/// Reads a file of tokens, one a line; empty lines and those that begin with `#` are none. Blocking.
///
/// # Errors
/// What is wrong with it.
pub fn tokens(file: &std::path::Path) -> Result<Vec<String>, String> {
    let at = |what: String| format!("{}: {what}", file.display());
    let size = std::fs::metadata(file)
        .map_err(|e| at(e.to_string()))?
        .len();
    if size > TOKENS_SIZE {
        return Err(at(format!(
            "found {size} bytes, expected at most {TOKENS_SIZE}"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|e| at(e.to_string()))?;
    let lines = text.lines().map(str::trim);
    let tokens: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if tokens.is_empty() {
        return Err(at("found no token, expected one a line".to_owned()));
    }
    if let Some(short) = tokens.iter().find(|token| token.len() < TOKEN_MIN) {
        let found = short.len();
        return Err(at(format!(
            "found a token of {found} bytes, expected at least {TOKEN_MIN}"
        )));
    }
    Ok(tokens)
}

/// Answers an upload's request; [`Uploads::takes`] said that it is one.
pub async fn serve<B>(parts: Parts, path: String, body: B, mut receipt: Receipt) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let site = Arc::clone(&receipt.client().site);
    let Some(uploads) = &site.uploads else {
        return plain(
            receipt,
            StatusCode::METHOD_NOT_ALLOWED,
            "nothing is taken here",
        );
    };
    let work = Work {
        uploads,
        site: &site,
        path: &path,
        headers: &parts.headers,
        receipt: &mut receipt,
    };
    let done = if parts.method == Method::DELETE {
        work.delete().await
    } else {
        work.put(body).await
    };
    let mut response = match done {
        Ok(done) => {
            let (kind, status) = match &done {
                Done::Stored { new: true, .. } => (Upload::Stored, StatusCode::CREATED),
                Done::Stored { new: false, .. } => (Upload::Stored, StatusCode::NO_CONTENT),
                Done::Part(_) => (Upload::Part, StatusCode::ACCEPTED),
                Done::Deleted => (Upload::Deleted, StatusCode::NO_CONTENT),
            };
            site.metrics.http.upload(kind);
            let mut response = empty(receipt, status, Role::None, Outcome::Ok);
            let head = response.headers_mut();
            match done {
                Done::Stored { new, etag, sha256 } => {
                    let digest = format!("sha-256=:{}:", digest::base64(&sha256));
                    head.insert(header::ETAG, object::value(etag, "\"\""));
                    head.insert(REPR_DIGEST, object::value(digest, ""));
                    if new {
                        head.insert(header::LOCATION, object::value(encode(&path), "/"));
                    }
                }
                Done::Part(offset) => {
                    head.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
                }
                Done::Deleted => {}
            }
            response
        }
        Err(refusal) => {
            site.metrics.http.upload(refusal.kind);
            let mut response = plain(receipt, refusal.status, &refusal.text);
            let head = response.headers_mut();
            if refusal.status == StatusCode::UNAUTHORIZED {
                head.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
                head.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            if let Some(offset) = refusal.offset {
                head.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
            }
            response
        }
    };
    if let Some(rule) = site.rules.of(&path) {
        rule.share(response.headers_mut());
    }
    response
}

/// One request being carried out.
struct Work<'a> {
    uploads: &'a Uploads,
    site: &'a object::Site,
    path: &'a str,
    headers: &'a HeaderMap,
    receipt: &'a mut Receipt,
}

impl Work<'_> {
    /// Whether the preconditions hold for what stands there (RFC 9110 section 13); and whether anything does.
    async fn precondition(&mut self, method: &Method) -> Result<bool, Refusal> {
        self.receipt.waits(true);
        let entry = self.site.library.find(self.path).await;
        self.receipt.waits(false);
        let (verdict, stands) = match &entry {
            Entry::Object(object) => {
                let validators = Validators {
                    etag: object.etag(),
                    modified: object.manifest().modified,
                };
                (fresh::evaluate(method, self.headers, &validators), true)
            }
            _ if self.headers.contains_key(header::IF_MATCH) => {
                (Verdict::PreconditionFailed, false)
            }
            _ => (Verdict::Proceed, false),
        };
        if verdict == Verdict::Proceed {
            return Ok(stands);
        }
        let text = "what stands there is not the version asked for";
        Err(Refusal::new(
            Upload::Refused,
            StatusCode::PRECONDITION_FAILED,
            text,
        ))
    }

    async fn delete(mut self) -> Result<Done, Refusal> {
        let library = &self.site.library;
        self.uploads.authorise(self.headers, library).await?;
        let _place = self.uploads.place()?;
        self.precondition(&Method::DELETE).await?;
        self.receipt.waits(true);
        let (work, path) = (library.clone(), self.path.to_owned());
        let gone = run(library, move || work.take_away(&path)).await?;
        library.refresh(self.path).await;
        self.receipt.waits(false);
        if gone {
            Ok(Done::Deleted)
        } else {
            let text = "nothing stands here";
            Err(Refusal::new(Upload::Refused, StatusCode::NOT_FOUND, text))
        }
    }

    async fn put<B>(mut self, body: B) -> Result<Done, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let library = &self.site.library;
        self.uploads.authorise(self.headers, library).await?;
        let _place = self.uploads.place()?;
        let stands = self.precondition(&Method::PUT).await?;
        if let Some(coding) = self.headers.get(header::CONTENT_ENCODING)
            && coding != "identity"
        {
            let text = "files are taken as they are, without a content coding";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refusal::new(Upload::Refused, status, text));
        }
        let expected = expected(self.headers, body.size_hint().exact())?;
        if expected
            .total
            .is_some_and(|total| total > self.uploads.config.max)
        {
            return Err(self.too_large());
        }
        let path = self.path.to_owned();
        if let (Some(total), true) = (expected.total, expected.query) {
            let work = library.clone();
            let held = run(library, move || work.received(&path, total)).await?;
            return Ok(Done::Part(held));
        }
        let content = digest::declared(self.headers, &CONTENT_DIGEST).map_err(Refusal::bad)?;
        let whole = digest::declared(self.headers, &REPR_DIGEST).map_err(Refusal::bad)?;
        let (work, total, offset) = (library.clone(), expected.total, expected.offset);
        let intake = run(library, move || work.receive(&path, total, offset)).await?;
        let sums = content.into_iter().map(Sum::new).collect();
        let (intake, sums) = self.receive(body, intake, sums, &expected).await?;
        if expected.total.is_some_and(|total| intake.length() < total) {
            let held = intake.length();
            run(library, move || {
                let right = check(sums);
                if right.is_err() {
                    intake.discard();
                }
                right
            })
            .await?;
            return Ok(Done::Part(held));
        }
        self.receipt.waits(true);
        run(library, move || {
            let right = check(sums).and_then(|()| {
                if whole.is_empty() {
                    return Ok(());
                }
                let mut sums: Vec<_> = whole.into_iter().map(Sum::new).collect();
                let read = intake.read_back(|bytes| sums.iter_mut().for_each(|s| s.update(bytes)));
                read.map_err(IntakeError::from)?;
                check(sums)
            });
            match right {
                Ok(()) => intake.finish().map_err(Refusal::from),
                Err(refusal) => {
                    intake.discard();
                    Err(refusal)
                }
            }
        })
        .await?;
        let object = library.refresh(self.path).await;
        self.receipt.waits(false);
        let Some(object) = object else {
            return Err(IntakeError::Full.into());
        };
        Ok(Done::Stored {
            new: !stands,
            etag: object.etag().to_owned(),
            sha256: object.manifest().sha256,
        })
    }

    /// Writes the body. What breaks off stays if it can go on, also when the connection is given up and this is dropped.
    async fn receive<B>(
        &mut self,
        mut body: B,
        mut intake: Intake,
        mut sums: Vec<Sum>,
        expected: &Expected,
    ) -> Result<(Intake, Vec<Sum>), Refusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let library = &self.site.library;
        let most = expected.end.unwrap_or(self.uploads.config.max);
        let mut buffer = BytesMut::new();
        loop {
            let (bytes, ended, broken) = match body.frame().await {
                Some(Ok(frame)) => (frame.into_data().ok(), false, false),
                Some(Err(_)) => (None, false, true),
                None => (None, true, false),
            };
            if let Some(bytes) = bytes {
                self.receipt.client().pulse.take(bytes.len() as u64);
                self.site
                    .metrics
                    .http
                    .upload_bytes
                    .inc_by(bytes.len() as u64);
                buffer.extend_from_slice(&bytes);
            }
            if intake.length() + buffer.len() as u64 > most {
                return Err(match expected.end {
                    Some(_) => Refusal::bad("there are more bytes than Content-Range says"),
                    None => self.too_large(),
                });
            }
            if buffer.len() >= BUFFER || ended || broken {
                let bytes = buffer.split().freeze();
                self.receipt.waits(true);
                (intake, sums) = run(library, move || {
                    intake.write(&bytes)?;
                    sums.iter_mut().for_each(|sum| sum.update(&bytes));
                    Ok::<_, IntakeError>((intake, sums))
                })
                .await?;
                self.receipt.waits(false);
            }
            let short = expected.end.is_some_and(|end| intake.length() < end);
            if broken || ended && short {
                let mut refusal = Refusal::bad("the content broke off");
                refusal.kind = Upload::Aborted;
                refusal.offset = Some(intake.length());
                return Err(refusal);
            }
            if ended {
                return Ok((intake, sums));
            }
        }
    }

    fn too_large(&self) -> Refusal {
        let text = format!("more than {} bytes are not taken", self.uploads.config.max);
        Refusal::new(Upload::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, text)
    }
}

/// Runs `work` where it may wait for the disk.
async fn run<T, E>(
    library: &Library,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Refusal>
where
    T: Send + 'static,
    E: Into<Refusal> + Send + 'static,
{
    match library.threads().run(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Refusal::new(
            Upload::Failed,
            StatusCode::INTERNAL_SERVER_ERROR,
            "the file cannot be stored",
        )),
    }
}

/// What a request says of the bytes it brings.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    /// Where they begin in the file.
    offset: u64,
    /// Where they end, if that is known.
    end: Option<u64>,
    /// Bytes of the whole file, if that is known.
    total: Option<u64>,
    /// It brings none and asks how many there are.
    query: bool,
}

/// By `Content-Range` and the length of the content.
fn expected(headers: &HeaderMap, length: Option<u64>) -> Result<Expected, Refusal> {
    const MALFORMED: &str =
        "expected Content-Range to be \"bytes FIRST-LAST/SIZE\" or \"bytes */SIZE\"";
    let mut fields = headers.get_all(header::CONTENT_RANGE).iter();
    let Some(field) = fields.next() else {
        return Ok(Expected {
            offset: 0,
            end: length,
            total: length,
            query: false,
        });
    };
    let malformed = || Refusal::bad(MALFORMED);
    let number = |text: &str| -> Result<u64, Refusal> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .ok_or_else(malformed)
    };
    if fields.next().is_some() {
        return Err(malformed());
    }
    let text = field.to_str().map_err(|_| malformed())?.trim();
    let (range, total) = text
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('/'))
        .ok_or_else(malformed)?;
    let total = number(total)?;
    if range == "*" {
        if length != Some(0) {
            return Err(Refusal::bad(
                "\"bytes */SIZE\" asks how many bytes are here, and brings none",
            ));
        }
        return Ok(Expected {
            offset: 0,
            end: Some(0),
            total: Some(total),
            query: true,
        });
    }
    let (first, last) = range.split_once('-').ok_or_else(malformed)?;
    let (first, last) = (number(first)?, number(last)?);
    if first > last || last >= total {
        return Err(malformed());
    }
    if length.is_some_and(|length| length != last - first + 1) {
        return Err(Refusal::bad(
            "the content has another length than Content-Range says",
        ));
    }
    Ok(Expected {
        offset: first,
        end: Some(last + 1),
        total: Some(total),
        query: false,
    })
}

/// A declared digest, and what it is compared with.
struct Sum {
    declared: Declared,
    context: ring::digest::Context,
}

impl Sum {
    fn new(declared: Declared) -> Self {
        let algorithm = match declared.algorithm {
            Algorithm::Sha256 => &ring::digest::SHA256,
            Algorithm::Sha512 => &ring::digest::SHA512,
        };
        Self {
            declared,
            context: ring::digest::Context::new(algorithm),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }
}

/// Whether what came is what was declared.
fn check(sums: Vec<Sum>) -> Result<(), Refusal> {
    for sum in sums {
        if sum.context.finish().as_ref() != sum.declared.bytes {
            let text = "the bytes are not those whose digest was declared";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Err(Refusal::new(Upload::DigestMismatch, status, text));
        }
    }
    Ok(())
}

/// Where an upload goes on.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// Bytes written at once.
const BUFFER: usize = 1 << 20;

/// Bytes of a file of tokens, and of a token at least.
const TOKENS_SIZE: u64 = 64 << 10;
const TOKEN_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(field: &str, length: Option<u64>) -> Option<(u64, Option<u64>, Option<u64>, bool)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_RANGE, field.parse().unwrap());
        let e = expected(&headers, length).ok()?;
        Some((e.offset, e.end, e.total, e.query))
    }

    #[test]
    fn content_range_says_where_bytes_belong() {
        assert_eq!(
            read("bytes 0-9/10", Some(10)),
            Some((0, Some(10), Some(10), false))
        );
        assert_eq!(
            read("bytes 4-9/10", None),
            Some((4, Some(10), Some(10), false))
        );
        assert_eq!(
            read("bytes */10", Some(0)),
            Some((0, Some(0), Some(10), true))
        );
        for bad in [
            "bytes 0-9/*",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes 0-8/10",
            "bytes */10",
            "bytes=0-9/10",
            "bytes +0-9/10",
            "bytes 0-9/99999999999999999999",
            "items 0-9/10",
        ] {
            assert_eq!(read(bad, Some(10)), None, "{bad}");
        }
        let without = expected(&HeaderMap::new(), None).ok().unwrap();
        assert_eq!((without.offset, without.total), (0, None));
    }

    #[test]
    fn tokens_are_lines_that_are_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            tokens(&file)
        };
        let good = check("# of the build\nabcdefghijklmnop\n\n 0123456789abcdef \n").unwrap();
        assert_eq!(good, ["abcdefghijklmnop", "0123456789abcdef"]);
        assert!(check("# none\n").unwrap_err().contains("no token"));
        assert!(check("short\n").unwrap_err().contains("5 bytes"));
        let large = "x".repeat(65 << 10);
        assert!(check(&large).unwrap_err().contains("at most"));
        std::fs::remove_file(&file).unwrap();
        assert!(tokens(&file).is_err());
    }

    proptest! {
        #[test]
        fn any_content_range_is_read_without_panic_and_lies_within(
            text in "bytes [0-9*/-]{0,24}|[ -~]{0,30}", length in proptest::option::of(0u64..50),
        ) {
            if let Some((offset, Some(end), Some(total), _)) = read(&text, length) {
                prop_assert!(offset <= end && end <= total);
            }
        }
    }
}
