//! One request to one node: index, manifest or chunk, with time and size bounds.
//!
//! The replicator holds one [`Client`] per node. Redirects are not followed: only the configured node is ever asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, ETAG, IF_NONE_MATCH, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::exchange::{self, HaveAnswer, HaveAsk};
use super::message::{Ask, Hello, Index, MESSAGE_SIZE, MessageError, PRIORITIES};
use super::secret::{PROOF, Signer};
use super::swarm::Swarm;
use super::tracker::{self, Others};
use crate::content::catalogue::SignedCatalogue;
use crate::content::chunk::Digest;
use crate::content::manifest::Manifest;
use crate::content::sign::{PublicKey, Seal, VerifyError};
use crate::link::pace::Pace;
use crate::metrics::replication::SealFault;
use crate::time::Now;

/// Asks one node. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    signer: Option<Arc<Signer>>,
    pace: Arc<Pace>,
}

/// How long a source of a chunk may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// It may be silent for so long.
    pub silence: Duration,
    /// The whole chunk may take so long.
    pub whole: Duration,
}

/// What a node says of its index.
#[derive(Debug)]
pub enum IndexAnswer {
    /// It changed: the index, and the entity tag to ask with next time.
    Changed(Index, Option<String>),
    /// As it was when the entity tag was given.
    Unchanged,
}

/// Why there is no answer, by what the asker does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node is away, too slow or has a fault: ask again later.
    #[error("{node}: {reason}")]
    Retry {
        /// The node's base URL.
        node: String,
        /// What was found.
        reason: String,
    },
    /// It does not prove that it knows the secret, or does not take our proof: ask again later.
    #[error("{node}: {reason}")]
    Stranger {
        /// The node's base URL.
        node: String,
        /// What was found.
        reason: &'static str,
    },
    /// It does not go on with what it began, or is far too slow with it: ask another.
    #[error("{node}: {reason}")]
    Stalled {
        /// The node's base URL.
        node: String,
        /// What was found.
        reason: String,
    },
    /// It does not hold this chunk: ask another.
    #[error("{node}: does not hold {what}")]
    Missing {
        /// The node's base URL.
        node: String,
        /// What was asked for.
        what: String,
    },
    /// It does not know this version (any more): read its index again.
    #[error("{node}: does not know {what} any more")]
    Gone {
        /// The node's base URL.
        node: String,
        /// What was asked for.
        what: String,
    },
    /// Its answer cannot be right: stop asking it for a good while.
    #[error("{node}: {reason}")]
    Liar {
        /// The node's base URL.
        node: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// Its answer is not what the origin signed.
    #[error("{node}: {reason}")]
    Untrusted {
        /// The node's base URL.
        node: String,
        /// What is wrong with the signature.
        fault: SealFault,
        /// What was found and what was expected.
        reason: String,
    },
}

impl Client {
    /// A client of the node at `base`, such as `http://origin:8080`, for a node of `swarm`. Where nodes share a secret,
    /// requests are signed and answers must prove that their sender knows it.
    ///
    /// # Errors
    /// What was found and what was expected.
    pub fn new(base: &str, swarm: &Swarm) -> Result<Self, MessageError> {
        let base = check_base(base)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self {
            base,
            http,
            signer: swarm.signer(),
            pace: Arc::clone(swarm.pace()),
        })
    }

    /// The node's base URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks what the node holds beneath `prefix`; `etag` is that of the index known already.
    ///
    /// # Errors
    /// See [`Error`]; an index that is not one is a `Liar`'s.
    pub async fn index(&self, prefix: &str, etag: Option<&str>) -> Result<IndexAnswer, Error> {
        let ask = Ask::Index(prefix.to_owned());
        self.timed(MESSAGE_SIZE, async {
            let response = self.send(&ask, etag, SILENCE).await?;
            if response.status() == StatusCode::NOT_MODIFIED && etag.is_some() {
                return Ok(IndexAnswer::Unchanged);
            }
            self.expect_ok(&ask, &response)?;
            let tag = response
                .headers()
                .get(ETAG)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let body = self.body(response, 0, MESSAGE_SIZE, SILENCE).await?;
            let index = Index::parse(&body, prefix).map_err(|e| self.liar(e))?;
            Ok(IndexAnswer::Changed(index, tag))
        })
        .await
    }

    /// Fetches the catalogue of `key` for `prefix`, or for a prefix of it; its signature is verified, and its version is
    /// at least `version`.
    ///
    /// # Errors
    /// See [`Error`]; other bytes are `Untrusted` or a `Liar`'s.
    pub async fn catalogue(
        &self,
        key: PublicKey,
        prefix: &str,
        version: u64,
    ) -> Result<SignedCatalogue, Error> {
        let ask = Ask::Catalogue(key, prefix.to_owned());
        self.timed(MESSAGE_SIZE, async {
            let response = self.send(&ask, None, SILENCE).await?;
            self.expect_ok(&ask, &response)?;
            let body = self.body(response, 0, MESSAGE_SIZE, SILENCE).await?;
            let signed = SignedCatalogue::verify(&body, key)
                .map_err(|e| self.untrusted(&format!("catalogue beneath {prefix}"), &e))?;
            let found = signed.catalogue();
            if !prefix.starts_with(&found.prefix) {
                let reason = format!(
                    "catalogue: found prefix {:?}, expected {prefix:?}",
                    found.prefix
                );
                return Err(self.liar(reason));
            }
            if found.version < version {
                return Err(Error::Untrusted {
                    node: self.base.clone(),
                    fault: SealFault::Older,
                    reason: format!(
                        "catalogue beneath {prefix}: found version {}, expected {version} or later",
                        found.version
                    ),
                });
            }
            Ok(signed)
        })
        .await
    }

    /// Fetches a manifest with its signature; it is the one with this digest, signed by a key that is `trusted`.
    ///
    /// # Errors
    /// See [`Error`]; other bytes are `Untrusted` or a `Liar`'s.
    pub async fn manifest(
        &self,
        id: Digest,
        trusted: impl Fn(PublicKey) -> bool,
    ) -> Result<(Manifest, Seal), Error> {
        let ask = Ask::Manifest(id);
        self.timed(MESSAGE_SIZE, async {
            let response = self.send(&ask, None, SILENCE).await?;
            self.expect_ok(&ask, &response)?;
            let body = self.body(response, 0, MESSAGE_SIZE, SILENCE).await?;
            let found = Manifest::verify(&body, trusted)
                .map_err(|e| self.untrusted(&format!("manifest {id}"), &e))?;
            if found.0.digest() != id {
                return Err(self.liar("a manifest with another digest than the one asked for"));
            }
            Ok(found)
        })
        .await
    }

    /// Fetches chunk `index`, `len` bytes, of the version `id`. The caller verifies it (`Object::write` does). Unless `urgent`
    /// says that a reader waits for it, viewers come first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn chunk(
        &self,
        id: Digest,
        index: u32,
        len: u32,
        patience: Patience,
        urgent: impl Fn() -> bool,
        mut heard: impl FnMut(u64),
    ) -> Result<Bytes, Error> {
        let ask = Ask::Chunk(id, index);
        let len = u64::from(len);
        let silence = patience.silence;
        let answered = tokio::time::timeout(patience.whole, async {
            let [waited_for, unasked] = PRIORITIES;
            let priority = if urgent() { waited_for } else { unasked };
            let request = Request::get(self.uri(&ask)?).header("priority", priority);
            let response = self.exchange(&ask, request, silence).await?;
            self.expect_ok(&ask, &response)?;
            let mut body = self.reading(response, len, len, silence)?;
            // What is not read fills the window, and the other side waits.
            while let Some(taken) = body.next().await? {
                heard(taken);
                self.pace.receive.pass(taken, &urgent).await;
            }
            body.end()
        });
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(self.stalled(format_args!("{ask} not done within {:?}", patience.whole))),
        }
    }

    /// Asks which chunks of some versions the node holds.
    ///
    /// # Errors
    /// See [`Error`]; `Missing`: it does not speak of that.
    pub async fn have(&self, asks: Vec<HaveAsk>) -> Result<HaveAnswer, Error> {
        let ask = Ask::Have(asks);
        let body = self.small(&ask, exchange::ANSWER_SIZE).await?;
        HaveAnswer::parse(&body).map_err(|e| self.liar(e))
    }

    /// Tells the node that this one mirrors `prefix` and serves HTTP on `port`; learns who else does.
    ///
    /// # Errors
    /// See [`Error`]; `Missing`: it is no tracker.
    pub async fn announce(&self, prefix: &str, port: u16) -> Result<Others, Error> {
        let ask = Ask::Announce(prefix.to_owned(), port);
        let body = self.small(&ask, tracker::ANSWER_SIZE).await?;
        Others::parse(&body).ok_or_else(|| self.liar("an announcement's answer that is none"))
    }

    /// Asks whether a node is there; gives the number by which it knows itself.
    ///
    /// # Errors
    /// See [`Error`]; a `Liar` or `Missing`: something else is there.
    pub async fn hello(&self) -> Result<u64, Error> {
        let body = self.small(&Ask::Hello, HELLO_SIZE).await?;
        let hello: Result<Hello, _> = serde_json::from_slice(&body);
        hello
            .map(|hello| hello.node)
            .map_err(|error| self.liar(error))
    }

    async fn small(&self, ask: &Ask, most: u64) -> Result<Bytes, Error> {
        self.within(SMALL_TIME, async {
            let response = self.send(ask, None, SMALL_TIME).await?;
            self.expect_ok(ask, &response)?;
            self.body(response, 0, most, SMALL_TIME).await
        })
        .await
    }

    async fn send(
        &self,
        ask: &Ask,
        etag: Option<&str>,
        silence: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::get(self.uri(ask)?);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        self.exchange(ask, request, silence).await
    }

    fn uri(&self, ask: &Ask) -> Result<Uri, Error> {
        let uri = format!("{}{ask}", self.base).parse();
        uri.map_err(|e| self.retry(e))
    }

    async fn exchange(
        &self,
        ask: &Ask,
        request: http::request::Builder,
        silence: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = request.header(USER_AGENT, AGENT);
        let sign = |signer: &Arc<Signer>| signer.sign("GET", &ask.to_string(), Now::read());
        let signed = self.signer.as_ref().map(sign);
        if let Some(signed) = &signed {
            request = request.header(AUTHORIZATION, &signed.field);
        }
        let request = request.body(Empty::new()).map_err(|e| self.retry(e))?;
        let response = match tokio::time::timeout(silence, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.retry(chain(&error))),
            Err(_) => return Err(self.stalled(format_args!("no answer within {silence:?}"))),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.stranger("it has another secret, or its clock is more than 60 s away"));
        }
        if let Some(signed) = signed {
            let proof = response.headers().get(PROOF).and_then(|v| v.to_str().ok());
            if !proof.is_some_and(|proof| signed.is_answered_by(proof)) {
                return Err(self.stranger("it does not prove that it knows the secret"));
            }
        }
        Ok(response)
    }

    fn expect_ok(&self, ask: &Ask, response: &Response<Incoming>) -> Result<(), Error> {
        let node = self.base.clone();
        let what = ask.to_string();
        match (response.status(), ask) {
            (StatusCode::OK, _) => Ok(()),
            // 500: a fault with this one chunk; the node is asked for others.
            (StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR, Ask::Chunk(..)) => {
                Err(Error::Missing { node, what })
            }
            // A node that is older, or no tracker.
            (
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST,
                Ask::Have(_) | Ask::Announce(..) | Ask::Hello,
            ) => Err(Error::Missing { node, what }),
            (StatusCode::NOT_FOUND, Ask::Manifest(_))
            | (StatusCode::GONE, Ask::Chunk(..) | Ask::Manifest(_) | Ask::Catalogue(..)) => {
                Err(Error::Gone { node, what })
            }
            (status, _) => Err(self.retry(format_args!("found status {status}, expected 200"))),
        }
    }

    /// Reads a body of `least` to `most` bytes.
    async fn body(
        &self,
        response: Response<Incoming>,
        least: u64,
        most: u64,
        silence: Duration,
    ) -> Result<Bytes, Error> {
        let mut body = self.reading(response, least, most, silence)?;
        while body.next().await?.is_some() {}
        body.end()
    }

    fn reading(
        &self,
        response: Response<Incoming>,
        least: u64,
        most: u64,
        silence: Duration,
    ) -> Result<Reading<'_>, Error> {
        let body = response.into_body();
        let said = body.size_hint();
        let room = said.upper().unwrap_or(0).min(most).min(FIRST_ROOM);
        let reading = Reading {
            client: self,
            body,
            bytes: BytesMut::with_capacity(usize::try_from(room).unwrap_or(0)),
            least,
            most,
            silence,
        };
        if said.lower() > most {
            return Err(reading.too_long());
        }
        Ok(reading)
    }

    /// Bounds a whole request: as long as `size` bytes take at the slowest pace that is borne.
    async fn timed<T>(
        &self,
        size: u64,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.within(SILENCE + Duration::from_secs(size / SLOWEST), request)
            .await
    }

    async fn within<T>(
        &self,
        bound: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(bound, request).await {
            Ok(result) => result,
            Err(_) => Err(self.retry(format_args!("not done within {bound:?}"))),
        }
    }

    fn stranger(&self, reason: &'static str) -> Error {
        let node = self.base.clone();
        Error::Stranger { node, reason }
    }

    fn retry(&self, reason: impl std::fmt::Display) -> Error {
        Error::Retry {
            node: self.base.clone(),
            reason: reason.to_string(),
        }
    }

    fn untrusted(&self, what: &str, error: &VerifyError) -> Error {
        let fault = match error {
            VerifyError::Unsigned => SealFault::Missing,
            VerifyError::Wrong(_) => SealFault::Wrong,
            VerifyError::OtherKey(_) => SealFault::OtherKey,
            VerifyError::Format(_) => return self.liar(format_args!("{what}: {error}")),
        };
        Error::Untrusted {
            node: self.base.clone(),
            fault,
            reason: format!("{what}: {error}"),
        }
    }

    fn stalled(&self, reason: impl std::fmt::Display) -> Error {
        Error::Stalled {
            node: self.base.clone(),
            reason: reason.to_string(),
        }
    }

    fn liar(&self, reason: impl std::fmt::Display) -> Error {
        Error::Liar {
            node: self.base.clone(),
            reason: reason.to_string(),
        }
    }
}

/// A body of `least` to `most` bytes being read. One that is longer, or ends well and is shorter, is a lie; a broken
/// connection is none.
struct Reading<'a> {
    client: &'a Client,
    body: Incoming,
    bytes: BytesMut,
    least: u64,
    most: u64,
    silence: Duration,
}

impl Reading<'_> {
    /// Reads on; how many bytes came, or `None` at the end.
    async fn next(&mut self) -> Result<Option<u64>, Error> {
        let (client, silence) = (self.client, self.silence);
        let frame = tokio::time::timeout(silence, self.body.frame())
            .await
            .map_err(|_| client.stalled(format_args!("silent for {silence:?} in the body")))?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|e| client.retry(chain(&e)))?;
        let data = frame.into_data().unwrap_or_default();
        let taken = data.len() as u64;
        if self.bytes.len() as u64 + taken > self.most {
            return Err(self.too_long());
        }
        self.bytes.extend_from_slice(&data);
        Ok(Some(taken))
    }

    fn end(self) -> Result<Bytes, Error> {
        let (found, least) = (self.bytes.len(), self.least);
        if (found as u64) < least {
            let text = format_args!("a whole body of {found} bytes, expected {least}");
            return Err(self.client.liar(text));
        }
        Ok(self.bytes.freeze())
    }

    fn too_long(&self) -> Error {
        let most = self.most;
        let text = format_args!("a body longer than the {most} bytes expected");
        self.client.liar(text)
    }
}

/// Checks the base URL of a node and gives it without its final `/`: `http://HOST` or `http://HOST:PORT`.
///
/// # Errors
/// What was found and what was expected.
pub fn check_base(base: &str) -> Result<String, MessageError> {
    let expected = || MessageError {
        field: "node",
        found: base.to_owned(),
        expected: "a URL such as http://origin:8080",
    };
    let uri: Uri = base.parse().map_err(|_| expected())?;
    let authority = uri.authority().ok_or_else(expected)?;
    let plain = uri.scheme_str() == Some("http")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !authority.as_str().contains('@')
        && !authority.host().is_empty();
    if plain {
        Ok(format!("http://{authority}"))
    } else {
        Err(expected())
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How this program names itself.
const AGENT: &str = concat!("headwater/", env!("CARGO_PKG_VERSION"));

/// Time for a connection to stand.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Longest silence before the answer begins, and within it.
const SILENCE: Duration = Duration::from_secs(30);

/// A bitmap or an announcement is answered within this.
const SMALL_TIME: Duration = Duration::from_secs(5);

/// Bytes of a greeting at most.
const HELLO_SIZE: u64 = 256;

/// Slowest pace that is borne, bytes per second.
const SLOWEST: u64 = 1_024;

/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// Unused connections kept per node.
const IDLE_CONNECTIONS: usize = 8;

/// Memory taken for a body before its bytes are there.
const FIRST_ROOM: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, expected: Option<&str>) {
        assert_eq!(check_base(base).ok().as_deref(), expected, "{base}");
    }

    #[test]
    fn base_is_a_plain_http_url() {
        check("http://origin:8080", Some("http://origin:8080"));
        check("http://192.0.2.1/", Some("http://192.0.2.1"));
        check("http://[2001:db8::1]:80", Some("http://[2001:db8::1]:80"));
        check("https://origin", None);
        check("origin:8080", None);
        check("http://user@origin", None);
        check("http://origin/path", None);
        check("http://origin?x", None);
        check("", None);
    }
}
