//! Metrics of the `http` topic.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, gauge};

/// Handles of the `http` topic.
#[derive(Debug)]
pub struct Metrics {
    /// Requests by [`Role`] and [`Outcome`].
    requests: [[IntCounter; Outcome::ALL.len()]; Role::ALL.len()],
    /// Of these, the ones answered before the HTTP parser saw them.
    pub quick: IntCounter,
    /// Body bytes handed to connections, by [`Role`].
    sent: [IntCounter; Role::ALL.len()],
    /// Connections open now.
    pub connections: IntGauge,
    /// Bodies of large objects being sent now.
    pub bodies: IntGauge,
    /// Bytes of them that were read and not sent yet.
    pub frame_bytes: IntGauge,
    /// Such bodies that began while parts of them were smaller than they could be.
    pub frames_reduced: IntCounter,
    refused: [IntCounter; Refused::ALL.len()],
    closed: [IntCounter; Closed::ALL.len()],
    uploads: [IntCounter; Upload::ALL.len()],
    /// Bytes of uploads received.
    pub upload_bytes: IntCounter,
    /// Uploads that broke off and did not go on in time.
    pub uploads_swept: IntCounter,
    /// Ranges a request named and did not get as such: too many, or malformed.
    pub ranges_ignored: IntCounter,
    /// Times `accept` failed for want of descriptors or memory.
    pub accept_failures: IntCounter,
    /// Bytes of objects digested in pieces, for torrents and Metalink.
    pub pieces_digested: IntCounter,
    /// Bytes of those digests kept.
    pub pieces_bytes: IntGauge,
    /// Objects whose digests were given up for those of others.
    pub pieces_given_up: IntCounter,
    /// Bytes of objects sent to BitTorrent peers.
    pub torrent_sent: IntCounter,
    /// Access log lines dropped because its writer was behind or its file was at fault.
    pub access_dropped: IntCounter,
}

/// What this node is to the object of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It publishes it.
    Origin,
    /// It mirrors it.
    Mirror,
    /// There is no object, or another node asks.
    None,
    /// It passes on what another server has.
    Proxy,
}

/// What became of a request; each has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 or 204, whole.
    Ok,
    /// 206, whole.
    Partial,
    /// 304.
    NotModified,
    /// 301: a directory without its final slash.
    Redirect,
    /// 404.
    NotFound,
    /// 400, 405, 412, 416.
    ClientError,
    /// 503: a mirror could not get the bytes in time.
    Unavailable,
    /// 500.
    ServerError,
    /// The client went away, or a fault cut the body short.
    Aborted,
}

/// What became of an upload's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// A file is published.
    Stored,
    /// A part of one is here.
    Part,
    /// A file was deleted.
    Deleted,
    /// There was no token, or a wrong one.
    Unauthorized,
    /// It is larger than may be.
    TooLarge,
    /// Its bytes are not what was declared.
    DigestMismatch,
    /// There is no room.
    Full,
    /// Too many at once, or two of one path.
    Busy,
    /// It broke off.
    Aborted,
    /// It makes no sense, or its preconditions do not hold.
    Refused,
    /// The disk or the tokens were at fault.
    Failed,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All connections are taken.
    Total,
    /// All connections of its address are taken.
    Address,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// By the client, or in agreement with it.
    Done,
    /// It sent nothing.
    Silent,
    /// Its TLS handshake was not done in time.
    TlsHandshake,
    /// Its TLS handshake failed.
    Unshaken,
    /// Its request head was not whole in time.
    Head,
    /// It was idle.
    Idle,
    /// It read too slowly.
    Slow,
    /// It did not speak HTTP as it must.
    Protocol,
    /// It had too many HTTP/2 streams that were reset.
    Flood,
    /// The network, or a body that could not be read on.
    Broken,
    /// The daemon stops.
    Stop,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let requests = counters(
            registry,
            "headwater_http_requests_total",
            "HTTP requests, by what this node is to the object and by outcome.",
            &["role", "outcome"],
        );
        let sent = counters(
            registry,
            "headwater_http_sent_bytes_total",
            "Body bytes of HTTP responses handed to connections.",
            &["role"],
        );
        let refused = counters(
            registry,
            "headwater_http_connections_refused_total",
            "HTTP connections closed as they came, by the limit that was hit.",
            &["limit"],
        );
        let closed = counters(
            registry,
            "headwater_http_connections_closed_total",
            "HTTP connections ended, by reason.",
            &["reason"],
        );
        let uploads = counters(
            registry,
            "headwater_http_uploads_total",
            "Requests to put or delete a file, by outcome.",
            &["outcome"],
        );
        Self {
            uploads: resolve(&uploads, Upload::ALL.map(Upload::label)),
            upload_bytes: counter(
                registry,
                "headwater_http_upload_received_bytes_total",
                "Bytes of uploaded files received.",
            ),
            uploads_swept: counter(
                registry,
                "headwater_http_uploads_swept_total",
                "Uploads that broke off and were removed because they did not go on in time.",
            ),
            requests: Role::ALL.map(|role| {
                Outcome::ALL
                    .map(|outcome| requests.with_label_values(&[role.label(), outcome.label()]))
            }),
            quick: counter(
                registry,
                "headwater_http_quick_requests_total",
                "HTTP requests, of those counted in all, that were plain and answered from memory before the HTTP parser.",
            ),
            sent: Role::ALL.map(|role| sent.with_label_values(&[role.label()])),
            connections: gauge(
                registry,
                "headwater_http_connections",
                "HTTP connections open now.",
            ),
            bodies: gauge(
                registry,
                "headwater_http_bodies",
                "Bodies of large objects being sent now.",
            ),
            frame_bytes: gauge(
                registry,
                "headwater_http_frame_bytes",
                "Bytes of large objects that were read for clients and not sent yet.",
            ),
            frames_reduced: counter(
                registry,
                "headwater_http_frames_reduced_total",
                "Bodies of large objects that began while so many were being sent that they are read in smaller parts.",
            ),
            refused: resolve(&refused, Refused::ALL.map(Refused::label)),
            closed: resolve(&closed, Closed::ALL.map(Closed::label)),
            ranges_ignored: counter(
                registry,
                "headwater_http_ranges_ignored_total",
                "Requests whose Range was answered with the whole object: too many ranges, malformed, or If-Range said so.",
            ),
            accept_failures: counter(
                registry,
                "headwater_http_accept_failures_total",
                "Times accepting an HTTP connection failed for want of descriptors or memory.",
            ),
            pieces_digested: counter(
                registry,
                "headwater_http_pieces_digested_bytes_total",
                "Bytes of objects digested in pieces, for torrents and Metalink documents.",
            ),
            pieces_bytes: gauge(
                registry,
                "headwater_http_piece_digests_bytes",
                "Bytes of digests of pieces kept.",
            ),
            pieces_given_up: counter(
                registry,
                "headwater_http_piece_digests_given_up_total",
                "Objects whose digests of pieces were given up because those of others needed the room.",
            ),
            torrent_sent: counter(
                registry,
                "headwater_http_torrent_sent_bytes_total",
                "Bytes of objects sent to BitTorrent peers.",
            ),
            access_dropped: counter(
                registry,
                "headwater_http_access_log_dropped_total",
                "Access log lines dropped: the queue was full or the file could not be written.",
            ),
        }
    }

    /// Counts a request and the body bytes it was sent.
    pub fn request(&self, role: Role, outcome: Outcome, sent: u64) {
        self.requests[role as usize][outcome as usize].inc();
        if sent > 0 {
            self.sent[role as usize].inc_by(sent);
        }
    }

    /// Requests counted so far.
    #[must_use]
    pub fn requests(&self, role: Role, outcome: Outcome) -> u64 {
        self.requests[role as usize][outcome as usize].get()
    }

    /// Body bytes sent so far.
    #[must_use]
    pub fn sent(&self, role: Role) -> u64 {
        self.sent[role as usize].get()
    }

    /// Counts an upload's request.
    pub fn upload(&self, outcome: Upload) {
        self.uploads[outcome as usize].inc();
    }

    /// Requests of uploads counted so far.
    #[must_use]
    pub fn uploads(&self, outcome: Upload) -> u64 {
        self.uploads[outcome as usize].get()
    }

    /// Counts a connection that was refused.
    pub fn refuse(&self, limit: Refused) {
        self.refused[limit as usize].inc();
    }

    /// Connections refused so far.
    #[must_use]
    pub fn refused(&self, limit: Refused) -> u64 {
        self.refused[limit as usize].get()
    }

    /// Counts a connection that ended.
    pub fn close(&self, reason: Closed) {
        self.closed[reason as usize].inc();
    }

    /// Connections that ended so far.
    #[must_use]
    pub fn closed(&self, reason: Closed) -> u64 {
        self.closed[reason as usize].get()
    }
}

fn resolve<const N: usize>(vec: &IntCounterVec, labels: [&str; N]) -> [IntCounter; N] {
    labels.map(|label| vec.with_label_values(&[label]))
}

impl Role {
    const ALL: [Self; 4] = [Self::Origin, Self::Mirror, Self::None, Self::Proxy];

    fn label(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Mirror => "mirror",
            Self::None => "none",
            Self::Proxy => "proxy",
        }
    }
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Partial,
        Self::NotModified,
        Self::Redirect,
        Self::NotFound,
        Self::ClientError,
        Self::Unavailable,
        Self::ServerError,
        Self::Aborted,
    ];

    /// As in metrics and the access log.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::NotModified => "not_modified",
            Self::Redirect => "redirect",
            Self::NotFound => "not_found",
            Self::ClientError => "client_error",
            Self::Unavailable => "unavailable",
            Self::ServerError => "server_error",
            Self::Aborted => "aborted",
        }
    }
}

impl Upload {
    const ALL: [Self; 11] = [
        Self::Stored,
        Self::Part,
        Self::Deleted,
        Self::Unauthorized,
        Self::TooLarge,
        Self::DigestMismatch,
        Self::Full,
        Self::Busy,
        Self::Aborted,
        Self::Refused,
        Self::Failed,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Part => "part",
            Self::Deleted => "deleted",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too_large",
            Self::DigestMismatch => "digest_mismatch",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Refused {
    const ALL: [Self; 2] = [Self::Total, Self::Address];

    fn label(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
        }
    }
}

impl Closed {
    const ALL: [Self; 11] = [
        Self::Done,
        Self::Silent,
        Self::TlsHandshake,
        Self::Unshaken,
        Self::Head,
        Self::Idle,
        Self::Slow,
        Self::Protocol,
        Self::Flood,
        Self::Broken,
        Self::Stop,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Silent => "silent",
            Self::TlsHandshake => "tls_handshake",
            Self::Unshaken => "tls_failed",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Protocol => "protocol",
            Self::Flood => "flood",
            Self::Broken => "broken",
            Self::Stop => "stop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_counts_its_own_series() {
        let metrics = Metrics::new(&Registry::new());
        for (i, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(i, role as usize);
            for (j, outcome) in Outcome::ALL.into_iter().enumerate() {
                assert_eq!(j, outcome as usize);
                metrics.request(role, outcome, 3);
                assert_eq!(metrics.requests(role, outcome), 1);
            }
            assert_eq!(metrics.sent(role), 3 * 9);
        }
        for (i, reason) in Closed::ALL.into_iter().enumerate() {
            assert_eq!(i, reason as usize);
        }
        for (i, upload) in Upload::ALL.into_iter().enumerate() {
            assert_eq!(i, upload as usize);
        }
        for (i, limit) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(i, limit as usize);
        }
    }
}
