//! What became of one request: recorded once, however it ends.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};

use super::access::Entry;
use super::line::Line;
use super::object::Site;
use super::watch::Pulse;
use crate::metrics::http::{Outcome, Role};
use crate::time::Now;

/// One connection as its requests see it.
#[derive(Debug)]
pub struct Client {
    /// What the server serves.
    pub site: Arc<Site>,
    /// Where it comes from.
    pub address: IpAddr,
    /// Whether it speaks TLS.
    pub encrypted: bool,
    /// The connection's socket.
    pub line: Line,
    /// The connection's marks.
    pub pulse: Arc<Pulse>,
}

/// Goes with a request from its head to the end of its body; its drop counts and logs the request.
///
/// A request dropped before [`Receipt::answer`], or whose body was not taken to its end, was aborted.
#[derive(Debug)]
pub struct Receipt {
    client: Arc<Client>,
    entry: Option<Box<Entry>>,
    status: StatusCode,
    role: Role,
    outcome: Outcome,
    /// Body bytes still to be handed over.
    left: u64,
    sent: u64,
    waits: bool,
    filled: bool,
    head_only: bool,
}

impl Receipt {
    /// A request began.
    #[must_use]
    pub fn new(client: &Arc<Client>, request: &Parts) -> Self {
        client.pulse.begin();
        let entry = client.site.access.as_ref().map(|_| {
            Box::new(Entry::new(
                client.address,
                Now::read(),
                &request.method,
                &request.uri,
                request.version,
                &request.headers,
            ))
        });
        Self {
            client: Arc::clone(client),
            entry,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            role: Role::None,
            outcome: Outcome::Aborted,
            left: 0,
            sent: 0,
            waits: false,
            filled: false,
            head_only: request.method == Method::HEAD,
        }
    }

    /// It is answered so, with a body of `length` bytes.
    pub fn answer(&mut self, status: StatusCode, role: Role, outcome: Outcome, length: u64) {
        self.status = status;
        self.role = role;
        self.outcome = outcome;
        self.left = length;
    }

    /// `bytes` of the body were handed to the connection.
    pub fn hand(&mut self, bytes: u64) {
        self.sent += bytes;
        self.left = self.left.saturating_sub(bytes);
    }

    /// Its body broke off, whatever its length was to be.
    pub fn broke(&mut self) {
        self.left = self.left.max(1);
    }

    /// It waits for content (so the client is not slow), or no more.
    pub fn waits(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            self.client.pulse.wait(waits);
        }
    }

    /// A chunk was not held and had to be waited for.
    pub fn filled(&mut self) {
        self.filled = true;
    }

    /// It is about an object of this role.
    pub fn relabel(&mut self, role: Role) {
        self.role = role;
    }

    /// Whether the client wants no body.
    #[must_use]
    pub fn head_only(&self) -> bool {
        self.head_only
    }

    /// The connection it came on.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.waits(false);
        self.client.pulse.end();
        let site = &self.client.site;
        let outcome = if self.left > 0 {
            Outcome::Aborted
        } else {
            self.outcome
        };
        site.metrics.http.request(self.role, outcome, self.sent);
        if matches!(self.role, Role::Origin | Role::Mirror) {
            let content = match outcome {
                Outcome::Unavailable | Outcome::ServerError => &site.content.failed,
                _ if self.filled => &site.content.fill,
                _ => &site.content.hit,
            };
            content.inc();
        }
        if let (Some(log), Some(entry)) = (&site.access, &self.entry) {
            log.write(&entry.asked(), self.status, self.sent, outcome);
        }
    }
}
