//! The engine: one packet in, one answer out, for every transport.
//!
//! Fast path: parse, access list, own zones, cache; synchronous and without allocation. Slow path:
//! resolve, on a bounded task. Owns the zone snapshot and its reload.

use std::net::IpAddr;
use std::sync::Arc;

use super::resolver::Resolver;
use super::{Config, Outcome, Transport, ZoneConfig};
use crate::metrics::Metrics;
use crate::time::Now;

/// What the fast path says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fast {
    /// `out[..len]` is the answer.
    Respond {
        /// Bytes of the answer.
        len: usize,
        /// How it is counted.
        outcome: Outcome,
    },
    /// To be resolved on the slow path.
    Slow,
    /// No answer.
    Drop,
}

/// Zones, resolver and limits behind one handle.
#[derive(Debug)]
pub struct Engine {}

/// The state of one configured zone, for `status` and `zone list`.
#[derive(Clone, Debug)]
pub struct ZoneStatus {
    /// Apex, text form.
    pub name: String,
    /// Its master file.
    pub file: String,
    /// Serial in service; `None`: never loaded.
    pub serial: Option<u32>,
    /// Records in service.
    pub records: usize,
    /// When the zone in service was loaded, Unix milliseconds.
    pub loaded_unix_ms: Option<u64>,
    /// Why the last load failed (file:line: …), until one succeeds.
    pub problems: Vec<String>,
    /// Warnings of the last good load.
    pub warnings: Vec<String>,
}

impl Engine {
    /// An engine with no zones loaded yet.
    #[must_use]
    pub fn new(
        config: &Config,
        zones: Vec<ZoneConfig>,
        resolver: Option<Resolver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let _ = (config, zones, resolver, metrics);
        Self {}
    }

    /// Loads one zone (by apex, text form) or all, and swaps the snapshot once. A zone that does not load
    /// keeps the version in service. Reads files: call it on the blocking pool, never on a DNS thread.
    /// Returns the state after. `None`: no such zone.
    #[must_use]
    pub fn reload(&self, name: Option<&str>) -> Option<Vec<ZoneStatus>> {
        let _ = name;
        unimplemented!()
    }

    /// Replaces the configured zones (after a configuration reload); call `reload` next.
    pub fn configure(&self, zones: Vec<ZoneConfig>) {
        let _ = zones;
    }

    /// The configured zones and their state, in the order of their names.
    #[must_use]
    pub fn zones(&self) -> Vec<ZoneStatus> {
        unimplemented!()
    }

    /// One zone as master-file text.
    #[must_use]
    pub fn zone_text(&self, name: &str) -> Option<String> {
        let _ = name;
        unimplemented!()
    }

    /// The resolver, unless off.
    #[must_use]
    pub fn resolver(&self) -> Option<&Resolver> {
        unimplemented!()
    }

    /// Answers a packet from own zones or the cache, if that is possible at once.
    #[must_use]
    pub fn fast(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now,
        seed: u64,
        out: &mut [u8],
    ) -> Fast {
        let _ = (packet, client, transport, now, seed, out);
        unimplemented!()
    }

    /// Resolves a packet the fast path declined; the answer is in `out`.
    pub async fn slow(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let _ = (packet, client, transport, out);
        unimplemented!()
    }
}
