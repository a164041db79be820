//! Metrics of what is published from buckets.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{counter, counters, gauge};

/// Handles of the `bucket` topic.
#[derive(Debug)]
pub struct Metrics {
    /// Listings that came whole.
    pub listings_ok: IntCounter,
    /// Listings that did not.
    pub listings_failed: IntCounter,
    /// Objects read through and kept.
    pub taken_kept: IntCounter,
    /// Objects read through for which there was no room.
    pub taken: IntCounter,
    /// Objects that could not be read through.
    pub taken_failed: IntCounter,
    /// Chunks fetched again.
    pub chunks_ok: IntCounter,
    /// Chunks that could not be fetched, or not be kept.
    pub chunks_failed: IntCounter,
    /// Chunks of a version that is not in the bucket any more.
    pub chunks_changed: IntCounter,
    /// Bytes of objects received.
    pub received: IntCounter,
    /// Requests for objects and ranges under way.
    pub in_flight: IntGauge,
    /// Times nothing was asked for a while, after a failure.
    pub pauses: IntCounter,
    /// Listings with more objects than may be taken.
    pub objects_limit: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let listings = counters(
            registry,
            "headwater_bucket_listings_total",
            "Listings of buckets, by outcome.",
            &["outcome"],
        );
        let objects = counters(
            registry,
            "headwater_bucket_objects_read_total",
            "Objects of buckets read through for their digests, by what became of them.",
            &["outcome"],
        );
        let chunks = counters(
            registry,
            "headwater_bucket_chunks_total",
            "Chunks of objects of buckets fetched again, by outcome.",
            &["outcome"],
        );
        let limits = counters(
            registry,
            "headwater_bucket_limit_reached_total",
            "How often a bound of what is taken from buckets took effect.",
            &["limit"],
        );
        Self {
            listings_ok: listings.with_label_values(&["ok"]),
            listings_failed: listings.with_label_values(&["failed"]),
            taken_kept: objects.with_label_values(&["kept"]),
            taken: objects.with_label_values(&["no_room"]),
            taken_failed: objects.with_label_values(&["failed"]),
            chunks_ok: chunks.with_label_values(&["ok"]),
            chunks_failed: chunks.with_label_values(&["failed"]),
            chunks_changed: chunks.with_label_values(&["changed"]),
            received: counter(
                registry,
                "headwater_bucket_bytes_total",
                "Bytes of objects received from buckets.",
            ),
            in_flight: gauge(
                registry,
                "headwater_bucket_requests_in_flight",
                "Requests for objects and ranges of buckets under way.",
            ),
            pauses: counter(
                registry,
                "headwater_bucket_pauses_total",
                "Times nothing was asked of a bucket for a while, after a failure.",
            ),
            objects_limit: limits.with_label_values(&["objects"]),
        }
    }
}
