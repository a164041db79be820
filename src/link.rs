//! Load of the network interfaces: the kernel's byte counters, read every second; and what replication may take of
//! them ([`budget`], pure, and [`pace`], which waits), and each reader of what is left ([`fair`], pure, and [`clients`]).
//!
//! The daemon runs one [`Links`]. [`Meter`] is the pure part: samples in, rates out. A link that disappears keeps
//! its counters and shows no load; one that appears is taken up at the next reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::pace::Pace;
use crate::metrics::Metrics;
use crate::metrics::link::Link;
use crate::time::Now;

pub mod budget;

pub mod clients;

pub mod fair;

pub mod pace;

/// Settings of the link readings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What every link can carry in one direction, bytes per second; `None`: what the interface reports.
    pub capacity: Option<u64>,
    /// Interfaces; empty: all that are up, loopback too, at most 16 in the order of names.
    pub interfaces: Vec<String>,
    /// Capacity of an interface that reports none, bytes per second.
    pub default_capacity: u64,
    /// What replication may take while viewers want the link: 0 to 1 of its capacity.
    pub background_share: f64,
    /// Whether clients have equal shares of a link that they fill.
    pub fair: bool,
}

/// Reads the interfaces every second.
#[derive(Debug)]
pub struct Links {
    config: Config,
    root: PathBuf,
    metrics: Arc<Metrics>,
    meters: BTreeMap<String, (Meter, Link)>,
    pace: Arc<Pace>,
}

/// One reading of a link's byte counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Bytes sent since the interface came up.
    pub transmit: u64,
    /// Bytes received since then.
    pub receive: u64,
}

/// Readings of one link to bytes per second, smoothed over a few seconds.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    last: Option<(Now, Sample)>,
    transmit: f64,
    receive: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: None,
            interfaces: Vec::new(),
            default_capacity: 10_000_000_000 / 8,
            background_share: 0.3,
            fair: true,
        }
    }
}

impl Links {
    /// Readings of this machine's interfaces.
    #[must_use]
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Self::below(config, PathBuf::from("/sys/class/net"), metrics)
    }

    fn below(config: Config, root: PathBuf, metrics: Arc<Metrics>) -> Self {
        let capacity = config.capacity.unwrap_or(config.default_capacity);
        Self {
            pace: Pace::new(capacity, config.background_share, &metrics),
            config,
            root,
            metrics,
            meters: BTreeMap::new(),
        }
    }

    /// What holds replication back for viewers.
    #[must_use]
    pub fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }

    /// Reads until `stop`.
    ///
    /// # Errors
    /// None so far: an interface that cannot be read shows no load.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut every = tokio::time::interval(INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = every.tick() => self.read(Now::read()),
                _ = turn.tick(), if self.config.fair => self.pace.share(Now::read()),
            }
        }
    }

    /// One reading of every link. The files are the kernel's memory: reading them does not wait for a disk.
    fn read(&mut self, now: Now) {
        let names = if self.config.interfaces.is_empty() {
            up(&self.root)
        } else {
            self.config.interfaces.clone()
        };
        for (name, (meter, link)) in &mut self.meters {
            if !names.contains(name) {
                meter.rest();
                link.utilization.set(0.0);
            }
        }
        let mut largest = None;
        for name in names {
            if self.meters.len() == LINKS_SEEN && !self.meters.contains_key(&name) {
                continue; // Names that come and go would else make series without end.
            }
            let dir = self.root.join(&name);
            let Some(sample) = sample(&dir) else { continue };
            let known = self.config.capacity.or_else(|| speed(&dir));
            largest = largest.max(known);
            let capacity = known.unwrap_or(self.config.default_capacity).max(1);
            let (meter, link) = self
                .meters
                .entry(name)
                .or_insert_with_key(|name| (Meter::default(), self.metrics.link.link(name)));
            let moved = meter.observe(now, sample);
            link.transmit.inc_by(moved.transmit);
            link.receive.inc_by(moved.receive);
            link.capacity
                .set(i64::try_from(capacity).unwrap_or(i64::MAX));
            link.utilization.set(meter.utilization(capacity));
        }
        // Of several links the largest: replication over it must not be held to what another carries.
        let capacity = largest.unwrap_or(self.config.default_capacity);
        self.pace.look(capacity, now);
    }
}

impl Meter {
    /// Takes a reading; returns the bytes moved since the one before. The first returns the kernel's own counters, so
    /// that ours follow them; after a counter went backwards (the interface was made anew) it returns what it shows.
    pub fn observe(&mut self, now: Now, sample: Sample) -> Sample {
        let Some((then, last)) = self.last.replace((now, sample)) else {
            return sample;
        };
        let moved = Sample {
            transmit: moved(last.transmit, sample.transmit),
            receive: moved(last.receive, sample.receive),
        };
        let secs = now.since(then).as_secs_f64();
        if secs > 0.0 {
            // The weight of the newest reading, right for any spacing of readings.
            let weight = 1.0 - (-secs / SMOOTHING.as_secs_f64()).exp();
            self.transmit += weight * (rate(moved.transmit, secs) - self.transmit);
            self.receive += weight * (rate(moved.receive, secs) - self.receive);
        }
        moved
    }

    /// No load until the next reading; the counters are kept.
    pub fn rest(&mut self) {
        (self.transmit, self.receive) = (0.0, 0.0);
    }

    /// Bytes per second sent and received.
    #[must_use]
    pub fn rates(&self) -> (f64, f64) {
        (self.transmit, self.receive)
    }

    /// The busier direction's share of `capacity` (bytes per second, not 0).
    #[must_use]
    pub fn utilization(&self, capacity: u64) -> f64 {
        self.transmit.max(self.receive) / capacity as f64
    }
}

fn moved(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}

fn rate(bytes: u64, secs: f64) -> f64 {
    bytes as f64 / secs
}

/// The interfaces that are up, at most [`LINKS`].
fn up(root: &Path) -> Vec<String> {
    const IFF_UP: u32 = 1;
    let Ok(dir) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut names: Vec<String> = dir
        .flatten()
        .filter(|entry| {
            let flags = std::fs::read_to_string(entry.path().join("flags")).unwrap_or_default();
            let digits = flags.trim().trim_start_matches("0x");
            u32::from_str_radix(digits, 16).is_ok_and(|flags| flags & IFF_UP != 0)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.truncate(LINKS);
    names
}

fn sample(dir: &Path) -> Option<Sample> {
    Some(Sample {
        transmit: number(&dir.join("statistics/tx_bytes"))?,
        receive: number(&dir.join("statistics/rx_bytes"))?,
    })
}

/// What the interface reports, bytes per second: the file holds Mbit/s, -1 or nothing readable when unknown.
fn speed(dir: &Path) -> Option<u64> {
    number(&dir.join("speed"))
        .filter(|&mbits| mbits > 0 && mbits < u64::from(u32::MAX))
        .map(|mbits| mbits * 1_000_000 / 8)
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Time between readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between turns of sharing a link out.
const TURN: Duration = Duration::from_millis(100);

/// Time constant of the smoothing.
const SMOOTHING: Duration = Duration::from_secs(3);

/// Links read at once when none are configured.
const LINKS: usize = 16;

/// Links remembered, those that are gone included.
const LINKS_SEEN: usize = 4 * LINKS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    fn at(secs: u64, bytes: u64) -> (Now, Sample) {
        let sample = Sample {
            transmit: bytes,
            receive: bytes / 2,
        };
        (START.plus(Duration::from_secs(secs)), sample)
    }

    #[test]
    fn meter_under_steady_load_shows_its_rate() {
        let mut meter = Meter::default();
        for second in 0..30 {
            let (now, sample) = at(second, 7 + second * 1_000);
            meter.observe(now, sample);
        }
        let (transmit, receive) = meter.rates();
        assert!((transmit - 1_000.0).abs() < 1.0, "{transmit}");
        assert!((receive - 500.0).abs() < 1.0, "{receive}");
        assert!((meter.utilization(2_000) - 0.5).abs() < 0.001);
    }

    #[test]
    fn meter_after_the_load_ends_falls_to_nothing() {
        let mut meter = Meter::default();
        for second in 0..60 {
            let (now, sample) = at(second, second.min(10) * 1_000);
            meter.observe(now, sample);
        }
        assert!(meter.utilization(1_000) < 0.001);
    }

    #[test]
    fn meter_of_a_link_made_anew_counts_what_it_shows() {
        let mut meter = Meter::default();
        let moved = [at(0, 500), at(1, 700), at(2, 40)].map(|(now, s)| meter.observe(now, s));
        assert_eq!(moved.map(|s| s.transmit), [500, 200, 40]);
    }

    proptest! {
        #[test]
        fn meter_sums_to_the_kernels_counter(steps in prop::collection::vec(0u64..1 << 40, 1..20)) {
            let mut meter = Meter::default();
            let (mut total, mut sum) = (0, 0);
            for (second, step) in steps.iter().enumerate() {
                total += step;
                let (now, sample) = at(second as u64, total);
                sum += meter.observe(now, sample).transmit;
            }
            prop_assert_eq!(sum, total);
        }
    }

    fn interface(root: &Path, name: &str, flags: &str, bytes: u64, speed: Option<&str>) {
        let dir = root.join(name);
        std::fs::create_dir_all(dir.join("statistics")).unwrap();
        std::fs::write(dir.join("flags"), flags).unwrap();
        std::fs::write(dir.join("statistics/tx_bytes"), format!("{bytes}\n")).unwrap();
        std::fs::write(dir.join("statistics/rx_bytes"), format!("{bytes}\n")).unwrap();
        if let Some(speed) = speed {
            std::fs::write(dir.join("speed"), speed).unwrap();
        }
    }

    #[test]
    fn links_that_are_up_are_shown_with_their_capacity() {
        let root = tempfile::tempdir().unwrap();
        interface(root.path(), "lo", "0x9\n", 1_000, None);
        interface(root.path(), "eth0", "0x1003\n", 5_000, Some("1000\n"));
        interface(root.path(), "eth1", "0x1002\n", 9_000, Some("1000\n"));
        interface(root.path(), "tap0", "0x1003\n", 10, Some("-1\n"));
        let metrics = Arc::new(Metrics::new());
        let mut links = Links::below(Config::default(), root.path().into(), metrics.clone());
        links.read(START);
        interface(root.path(), "eth0", "0x1003\n", 8_000, Some("1000\n"));
        links.read(START.plus(INTERVAL));
        let text = metrics.text();
        for line in [
            "headwater_link_transmit_bytes_total{link=\"eth0\"} 8000",
            "headwater_link_receive_bytes_total{link=\"lo\"} 1000",
            "headwater_link_capacity_bytes_per_second{link=\"eth0\"} 125000000",
            "headwater_link_capacity_bytes_per_second{link=\"lo\"} 1250000000",
            "headwater_link_capacity_bytes_per_second{link=\"tap0\"} 1250000000",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("eth1"), "{text}");
        assert!(links.meters["eth0"].0.utilization(125_000_000) > 0.0);
    }

    #[test]
    fn link_that_is_configured_is_the_only_one() {
        let root = tempfile::tempdir().unwrap();
        interface(root.path(), "lo", "0x9\n", 1_000, None);
        interface(root.path(), "eth0", "0x1003\n", 5_000, Some("1000\n"));
        let metrics = Arc::new(Metrics::new());
        let config = Config {
            capacity: Some(1_000),
            interfaces: vec!["eth0".into(), "eth7".into()],
            ..Config::default()
        };
        Links::below(config, root.path().into(), metrics.clone()).read(START);
        let text = metrics.text();
        assert!(text.contains("headwater_link_capacity_bytes_per_second{link=\"eth0\"} 1000"));
        assert!(!text.contains("link=\"lo\""), "{text}");
    }
}
