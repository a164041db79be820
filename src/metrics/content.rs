//! Metrics of the `content` topic.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, gauge, gauges};

/// Handles of the `content` topic.
#[derive(Debug)]
pub struct Metrics {
    /// `headwater_content_requests_total{outcome}`: counted by the HTTP server, once per object request.
    pub requests: IntCounterVec,
    /// Objects published by this node.
    pub origin_objects: IntGauge,
    /// Objects mirrored from other nodes, also those that still fill.
    pub mirror_objects: IntGauge,
    /// Objects refused because of the bound on objects.
    pub objects_refused: IntCounter,
    /// Bytes of mirrored objects on disk.
    pub store_used: IntGauge,
    /// Bytes of mirrored objects at most.
    pub store_capacity: IntGauge,
    /// Slices that left against the seal of a chunk proved before.
    pub proved: IntCounter,
    /// Chunks read and digested.
    pub digested: IntCounter,
    /// Chunks whose bytes on disk were wrong.
    pub corrupt: IntCounter,
    /// Chunks found wrong on disk that did not come again yet.
    pub quarantined: IntGauge,
    /// Chunks found wrong on disk that came again.
    pub repaired: IntCounter,
    /// Chunks the scrub found right.
    pub scrub_good: IntCounter,
    /// Chunks the scrub found wrong.
    pub scrub_bad: IntCounter,
    /// Bytes the scrub read.
    pub scrubbed_bytes: IntCounter,
    /// Times the scrub waited for readers.
    pub scrub_yielded: IntCounter,
    /// Passes of the scrub over all there is.
    pub scrub_passes: IntCounter,
    /// Chunks or objects not kept: bytes of another digest.
    pub write_mismatch: IntCounter,
    /// Chunks or objects not kept: the store or the disk is full.
    pub write_full: IntCounter,
    /// Chunks or objects not kept: any other error of the operating system.
    pub write_io: IntCounter,
    /// Bytes of small objects kept in memory.
    pub small_bytes: IntGauge,
    /// Bytes of chunks kept in memory, or in use by responses after they were kept.
    pub memory_bytes: IntGauge,
    /// Slices of objects that came from memory.
    pub from_memory: IntCounter,
    /// Slices of objects that came from disk or the page cache.
    pub from_disk: IntCounter,
    /// Published files that were read and digested.
    pub published_hashed: IntCounter,
    /// Published files whose digests were remembered.
    pub published_remembered: IntCounter,
    /// Published files that could not be read.
    pub published_failed: IntCounter,
    /// Bytes of published files that were digested.
    pub hashed_bytes: IntCounter,
    evictions: [IntCounter; Eviction::ALL.len()],
    evicted_bytes: [IntCounter; Eviction::ALL.len()],
    limits: [IntCounter; Limit::ALL.len()],
    /// Threads of the runtime that reads, digests and syncs, its workers included.
    pub threads: IntGauge,
    /// Changes of published directories that could not be followed one by one, so that all was scanned anew.
    pub rescans: IntCounter,
}

/// A bound of the content's work, for `headwater_content_limit_reached_total{limit}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A read waited for its turn at the disk.
    Reads,
    /// A look beneath a published directory waited for its turn.
    Looks,
    /// Work waited for a thread.
    Threads,
    /// A directory has more names than a listing shows.
    Listing,
    /// Readers wait for too many objects that are not held yet.
    Wishes,
}

impl Limit {
    /// All limits, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::Reads,
        Self::Looks,
        Self::Threads,
        Self::Listing,
        Self::Wishes,
    ];

    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Looks => "looks",
            Self::Threads => "threads",
            Self::Listing => "listing",
            Self::Wishes => "wishes",
        }
    }
}

/// Why an object was evicted, for `headwater_content_evictions_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// A new object was to be replicated.
    Replicate,
    /// A reader waited for another.
    Reader,
    /// The store's size was lowered.
    Size,
}

impl Eviction {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Replicate, Self::Reader, Self::Size];

    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Replicate => "replicate",
            Self::Reader => "reader",
            Self::Size => "size",
        }
    }
}

impl Metrics {
    /// Counts an object of `bytes` that was evicted.
    pub fn evicted(&self, reason: Eviction, bytes: u64) {
        self.evictions[reason as usize].inc();
        self.evicted_bytes[reason as usize].inc_by(bytes);
    }

    /// Objects evicted, and their bytes.
    #[must_use]
    pub fn evicted_count(&self, reason: Eviction) -> (u64, u64) {
        let (objects, bytes) = (&self.evictions, &self.evicted_bytes);
        (objects[reason as usize].get(), bytes[reason as usize].get())
    }

    /// Counts a limit that took effect.
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }

    /// How often a limit took effect.
    #[must_use]
    pub fn limit_count(&self, limit: Limit) -> u64 {
        self.limits[limit as usize].get()
    }

    pub(super) fn new(registry: &Registry) -> Self {
        let requests = counters(
            registry,
            "headwater_content_requests_total",
            "Requests for objects, by where the bytes came from.",
            &["outcome"],
        );
        let objects = gauges(
            registry,
            "headwater_content_objects",
            "Objects this node can serve.",
            &["role"],
        );
        let verified = counters(
            registry,
            "headwater_content_verified_total",
            "Checks of bytes read from disk: slices proved by a seal, chunks digested, chunks found corrupt.",
            &["outcome"],
        );
        let writes = counters(
            registry,
            "headwater_content_write_failures_total",
            "Chunks and objects not kept, by reason.",
            &["reason"],
        );
        let reads = counters(
            registry,
            "headwater_content_reads_total",
            "Slices of objects read, by where they came from.",
            &["outcome"],
        );
        let published = counters(
            registry,
            "headwater_content_published_files_total",
            "Published files taken up, by what it took.",
            &["outcome"],
        );
        let scrubbed = counters(
            registry,
            "headwater_content_scrubbed_chunks_total",
            "Chunks read and digested in the background, by what was found.",
            &["outcome"],
        );
        let evictions = counters(
            registry,
            "headwater_content_evictions_total",
            "Mirrored objects dropped to keep within the store's size, by what it was for.",
            &["reason"],
        );
        let evicted_bytes = counters(
            registry,
            "headwater_content_evicted_bytes_total",
            "Bytes of mirrored objects dropped to keep within the store's size, by what it was for.",
            &["reason"],
        );
        let limits = counters(
            registry,
            "headwater_content_limit_reached_total",
            "How often a bound of the content's work took effect.",
            &["limit"],
        );
        Self {
            requests,
            origin_objects: objects.with_label_values(&["origin"]),
            mirror_objects: objects.with_label_values(&["mirror"]),
            objects_refused: counter(
                registry,
                "headwater_content_objects_refused_total",
                "Objects refused because of the bound on objects.",
            ),
            store_used: gauge(
                registry,
                "headwater_content_store_bytes",
                "Bytes of mirrored objects on disk.",
            ),
            store_capacity: gauge(
                registry,
                "headwater_content_store_capacity_bytes",
                "Bytes of mirrored objects at most.",
            ),
            proved: verified.with_label_values(&["proved"]),
            digested: verified.with_label_values(&["digested"]),
            corrupt: verified.with_label_values(&["corrupt"]),
            quarantined: gauge(
                registry,
                "headwater_content_quarantined_chunks",
                "Mirrored chunks found wrong on disk that did not come again yet.",
            ),
            repaired: counter(
                registry,
                "headwater_content_repaired_chunks_total",
                "Mirrored chunks found wrong on disk that came again.",
            ),
            scrub_good: scrubbed.with_label_values(&["good"]),
            scrub_bad: scrubbed.with_label_values(&["bad"]),
            scrubbed_bytes: counter(
                registry,
                "headwater_content_scrubbed_bytes_total",
                "Bytes read and digested in the background.",
            ),
            scrub_yielded: counter(
                registry,
                "headwater_content_scrub_yielded_total",
                "Chunks before which the scrub waited because readers waited for the disk.",
            ),
            scrub_passes: counter(
                registry,
                "headwater_content_scrub_passes_total",
                "Passes of the scrub over all objects that were ended.",
            ),
            write_mismatch: writes.with_label_values(&["mismatch"]),
            write_full: writes.with_label_values(&["full"]),
            write_io: writes.with_label_values(&["io"]),
            small_bytes: gauge(
                registry,
                "headwater_content_small_bytes",
                "Bytes of small objects kept in memory.",
            ),
            memory_bytes: gauge(
                registry,
                "headwater_content_memory_bytes",
                "Bytes of chunks kept in memory, or in use by responses after they were kept.",
            ),
            from_memory: reads.with_label_values(&["memory"]),
            from_disk: reads.with_label_values(&["disk"]),
            published_hashed: published.with_label_values(&["hashed"]),
            published_remembered: published.with_label_values(&["remembered"]),
            published_failed: published.with_label_values(&["failed"]),
            hashed_bytes: counter(
                registry,
                "headwater_content_hashed_bytes_total",
                "Bytes of published files that were digested.",
            ),
            evictions: Eviction::ALL.map(|r| evictions.with_label_values(&[r.label()])),
            evicted_bytes: Eviction::ALL.map(|r| evicted_bytes.with_label_values(&[r.label()])),
            limits: Limit::ALL.map(|l| limits.with_label_values(&[l.label()])),
            threads: gauge(
                registry,
                "headwater_content_threads",
                "Threads of the runtime that serves and reads content: its workers, and up to store.threads more.",
            ),
            rescans: counter(
                registry,
                "headwater_content_rescans_total",
                "Scans of a whole published directory because single changes could not be followed.",
            ),
        }
    }
}
