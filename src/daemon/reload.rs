//! Reading configuration and zones again while the node runs. What is bad stays out; the old stays in service.

use std::sync::{Arc, Mutex, PoisonError};

use super::secrets::Secrets;
use crate::config::{Settings, Source};
use crate::dns::keeper::{Keeper, ZoneStatus};
use crate::dns::resolver::{Resolver, policy};
use crate::metrics::Metrics;
use crate::systemd;

/// Reads configuration and zones again; the configuration one reload at a time.
#[derive(Debug)]
pub struct Reloader {
    source: Source,
    /// As the node was started; what differs from it needs a restart.
    running: Settings,
    keeper: Arc<Keeper>,
    secrets: Arc<Secrets>,
    resolver: Option<Resolver>,
    /// What the resolver's lists are made of.
    policy: Mutex<policy::Config>,
    metrics: Arc<Metrics>,
    turn: tokio::sync::Mutex<()>,
    /// What was wrong with the configuration last time.
    problems: Mutex<Vec<String>>,
}

/// What a reload gave.
#[derive(Debug)]
pub struct Reloaded {
    /// The zones after it.
    pub zones: Vec<ZoneStatus>,
    /// Problems of the configuration and of lists; what they concern stays as it was.
    pub problems: Vec<String>,
    /// Sections that changed and need a restart.
    pub restart: Vec<String>,
}

impl Reloader {
    /// A reloader of what `running` was made of.
    pub(super) fn new(
        source: Source,
        running: Settings,
        keeper: Arc<Keeper>,
        secrets: Secrets,
        resolver: Option<Resolver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            source,
            policy: Mutex::new(running.policy.clone()),
            running,
            keeper,
            secrets: Arc::new(secrets),
            resolver,
            metrics,
            turn: tokio::sync::Mutex::default(),
            problems: Mutex::default(),
        }
    }

    /// What was wrong with the configuration when it was read last.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration's zones and lists, and all their files, again.
    pub async fn all(&self) -> Reloaded {
        let _turn = self.turn.lock().await;
        systemd::reloading();
        let source = self.source.clone();
        let loaded = blocking(move || source.load()).await;
        let mut restart = Vec::new();
        let mut problems = match loaded {
            Ok(settings) => {
                restart = self.changed(&settings);
                self.keeper.set_keys(settings.tsig);
                self.keeper.configure(settings.zones);
                *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = settings.policy;
                Vec::new()
            }
            Err(error) => error
                .0
                .iter()
                .filter(|p| !p.warning)
                .map(ToString::to_string)
                .collect(),
        };
        let secrets = Arc::clone(&self.secrets);
        let more = blocking(move || secrets.reload()).await;
        // A configuration that names a bad file has said so already.
        problems.extend(
            more.into_iter()
                .filter(|_| problems.is_empty())
                .collect::<Vec<_>>(),
        );
        for problem in &problems {
            tracing::error!(%problem, "not reloaded; the old one stays in service");
        }
        for section in &restart {
            tracing::warn!(%section, "changed; takes effect after a restart");
        }
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems.clone();
        problems.extend(self.load_policy().await);
        let zones = self.load_zones(None).await.unwrap_or_default();
        systemd::ready(&summary(&zones));
        Reloaded {
            zones,
            problems,
            restart,
        }
    }

    /// Reads one zone file again, beside whatever else is being read. `None`: no such zone.
    pub async fn zone(&self, name: String) -> Option<Vec<ZoneStatus>> {
        self.load_zones(Some(name)).await
    }

    /// Loads zones on the blocking pool. The engine says how it went.
    pub(super) async fn load_zones(&self, name: Option<String>) -> Option<Vec<ZoneStatus>> {
        let keeper = self.keeper.clone();
        let zones = blocking(move || keeper.reload(name.as_deref())).await?;
        for zone in &zones {
            for warning in &zone.warnings {
                tracing::warn!(zone = zone.name, %warning, "zone");
            }
        }
        let lists = self
            .resolver
            .as_ref()
            .map(Resolver::lists)
            .unwrap_or_default();
        let good = self.keeper.is_good()
            && self.problems().is_empty()
            && lists.iter().all(|list| list.problems.is_empty());
        self.metrics.node.reload_good.set(i64::from(good));
        Some(zones)
    }

    /// Loads local data and blocklists on the blocking pool, and says how it went; returns the problems.
    pub(super) async fn load_policy(&self) -> Vec<String> {
        let Some(resolver) = self.resolver.clone() else {
            return Vec::new();
        };
        let policy = self.policy.lock();
        let policy = policy.unwrap_or_else(PoisonError::into_inner).clone();
        let mut problems = Vec::new();
        for list in blocking(move || resolver.load_policy(&policy)).await {
            for warning in &list.warnings {
                tracing::warn!(list = list.name, %warning, "left out of the list");
            }
            match list.problems.first() {
                None => {
                    let (rules, bytes) = (list.rules, list.bytes);
                    tracing::info!(list = list.name, rules, bytes, "list loaded");
                }
                Some(first) => tracing::error!(
                    list = list.name, problems = list.problems.len(), %first,
                    rules_in_service = list.rules, "list not loaded"
                ),
            }
            problems.extend(list.problems);
        }
        problems
    }

    /// Sections whose settings differ from those the node runs with.
    fn changed(&self, new: &Settings) -> Vec<String> {
        let sections = |s: &Settings| {
            [
                ("node", format!("{:?}{:?}", s.node, s.state)),
                ("dns", format!("{:?}", s.dns)),
                ("tls", format!("{:?}", s.tls)),
                ("dnssec", format!("{:?}", s.dnssec)),
                ("resolver", format!("{:?}", s.resolver)),
                ("http", format!("{:?}{:?}", s.http, s.http_workers)),
                ("ftp", format!("{:?}", s.ftp)),
                ("publish", format!("{:?}", s.publish)),
                ("mirror", format!("{:?}", s.mirrors)),
                ("store", format!("{:?}", s.store)),
                ("link", format!("{:?}", s.link)),
                ("metrics", format!("{:?}", s.metrics_listen)),
                ("admin", format!("{:?}", s.admin_socket)),
                ("log", format!("{:?}{:?}", s.log, s.query_log)),
            ]
        };
        let pairs = sections(&self.running).into_iter().zip(sections(new));
        let changed = pairs.filter(|(old, new)| old != new);
        changed.map(|((name, _), _)| name.to_owned()).collect()
    }
}

/// One line for `systemctl status`.
pub(super) fn summary(zones: &[ZoneStatus]) -> String {
    let bad = zones.iter().filter(|z| !z.problems.is_empty()).count();
    if bad == 0 {
        format!("serving {} zones", zones.len())
    } else {
        format!("serving {} zones, {bad} of them with problems", zones.len())
    }
}

/// Runs `work` on the blocking pool.
///
/// # Panics
/// If `work` does.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
