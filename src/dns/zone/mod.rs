//! Own zones: master files in, immutable snapshots with pre-encoded RRsets out.

use std::sync::Arc;

use super::ZoneConfig;

/// One loaded zone: immutable, shared by all threads.
#[derive(Debug)]
pub struct Zone {}

impl Zone {
    /// Apex in text form with a final dot.
    #[must_use]
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// SOA serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        unimplemented!()
    }

    /// Number of records.
    #[must_use]
    pub fn records(&self) -> usize {
        unimplemented!()
    }

    /// The zone as master-file lines (absolute names), for `headwater zone show`.
    #[must_use]
    pub fn to_text(&self) -> String {
        unimplemented!()
    }
}

/// A problem in a master file: file, line, what was found, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct Problem {
    /// The file, as configured or as named by `$INCLUDE`.
    pub file: String,
    /// 1-based line; 0 when the file as a whole is meant.
    pub line: usize,
    /// Found and expected.
    pub message: String,
}

/// What loading one zone gave.
#[derive(Debug)]
pub struct Loaded {
    /// The zone.
    pub zone: Arc<Zone>,
    /// Legal but unwise.
    pub warnings: Vec<Problem>,
}

/// Reads the master file of `config` and builds the zone.
///
/// # Errors
/// Every problem found (at least one), in file order; the caller keeps the zone it had.
pub fn load(config: &ZoneConfig) -> Result<Loaded, Vec<Problem>> {
    let _ = config;
    unimplemented!()
}

/// All own zones: one immutable snapshot, swapped whole.
#[derive(Debug, Default)]
pub struct Zones {}

impl Zones {
    /// The snapshot of these zones (at most one per apex; the last wins).
    #[must_use]
    pub fn new(zones: Vec<Arc<Zone>>) -> Self {
        let _ = zones;
        unimplemented!()
    }

    /// The zones, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Zone>> {
        std::iter::empty()
    }
}
