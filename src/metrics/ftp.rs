//! Metrics of the FTP server.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, gauge};

/// Handles of FTP.
#[derive(Debug)]
pub struct Metrics {
    /// Sessions now.
    pub sessions: IntGauge,
    /// Sessions refused because there are as many as there may be: in all, or from one address.
    pub refused: IntCounterVec,
    /// Logins by outcome.
    pub logins: IntCounterVec,
    /// Operations by kind and outcome.
    pub operations: IntCounterVec,
    /// Bytes of files received.
    pub received: IntCounter,
    /// Bytes of files sent.
    pub sent: IntCounter,
    /// Bounds reached.
    pub limits: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let limits = counters(
            registry,
            "headwater_ftp_limit_reached_total",
            "Bounds of FTP sessions that were reached.",
            &["limit"],
        );
        for limit in [
            "connections_per_session",
            "idle",
            "login_time",
            "session_time",
            "max",
        ] {
            limits.with_label_values(&[limit]);
        }
        let refused = counters(
            registry,
            "headwater_ftp_sessions_refused_total",
            "FTP sessions refused, by the bound that was reached.",
            &["limit"],
        );
        let logins = counters(
            registry,
            "headwater_ftp_logins_total",
            "FTP logins: right, wrong, or not tried after too many wrong ones.",
            &["outcome"],
        );
        ["total", "address"]
            .iter()
            .for_each(|l| drop(refused.with_label_values(&[l])));
        ["ok", "wrong", "locked"]
            .iter()
            .for_each(|l| drop(logins.with_label_values(&[l])));
        Self {
            sessions: gauge(registry, "headwater_ftp_sessions", "FTP sessions now."),
            refused,
            logins,
            operations: counters(
                registry,
                "headwater_ftp_operations_total",
                "What FTP clients asked for, by kind and outcome.",
                &["operation", "outcome"],
            ),
            received: counter(
                registry,
                "headwater_ftp_received_bytes_total",
                "Bytes of files received over FTP.",
            ),
            sent: counter(
                registry,
                "headwater_ftp_sent_bytes_total",
                "Bytes of files sent over FTP.",
            ),
            limits,
        }
    }
}
