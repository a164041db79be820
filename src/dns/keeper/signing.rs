//! Zones that are signed here, between their source and their publication; and signed again when it is time.

use std::sync::Arc;

use super::{Keeper, Kept, canonical, lock};
use crate::dns::ZoneConfig;
use crate::dns::dnssec::Policy;
use crate::dns::dnssec::signer::{KeyStatus, SignError, Signed, Signer};
use crate::dns::zone::{Loaded, Problem, Zone};
use crate::time::Now;

/// What a zone that is signed here is signed from, and when again.
#[derive(Debug, Default)]
pub(super) struct Signing {
    /// The zone without signatures, and the warnings of its load.
    unsigned: Option<(Arc<Zone>, Vec<Problem>)>,
    /// Unix seconds.
    due: Option<u64>,
}

impl Keeper {
    /// Gives the keeper what signs zones.
    pub fn set_signer(&self, signer: Signer) {
        self.signer.store(Some(Arc::new(signer)));
    }

    /// Takes a zone that came from its source into service, signed if it is to be. The caller has the turn.
    pub(super) fn serve(&self, kept: &Arc<Kept>, config: &ZoneConfig, loaded: Loaded) {
        let Some(policy) = config.sign else {
            *lock(&kept.signing) = Signing::default();
            return self.publish(kept, config, loaded);
        };
        lock(&kept.signing).unsigned = Some((loaded.zone.clone(), loaded.warnings.clone()));
        match self.sign(kept, &loaded.zone, policy) {
            Ok(signed) => {
                let zone = signed.zone;
                self.publish(kept, config, Loaded { zone, ..loaded });
            }
            Err(error) => {
                let problem = Problem {
                    file: config.file.display().to_string(),
                    line: 0,
                    message: format!("not signed: {error}"),
                };
                self.failed(kept, config, &[problem]);
            }
        }
    }

    fn sign(&self, kept: &Kept, zone: &Zone, policy: Policy) -> Result<Signed, SignError> {
        let now = seconds();
        let signed = self
            .signer()
            .and_then(|signer| signer.sign(zone, policy, now));
        let due = match &signed {
            Ok(signed) => {
                tracing::info!(
                    zone = %kept.name, serial = signed.zone.serial(), made = signed.made,
                    again_unix = signed.due, "zone signed"
                );
                signed.due.max(now + 1)
            }
            Err(error) => {
                tracing::error!(zone = %kept.name, %error, "zone not signed; tried again in a minute");
                self.metrics.dns.zone_not_signed(&kept.name);
                now + RETRY
            }
        };
        lock(&kept.signing).due = Some(due);
        self.signing_bell.notify_one();
        signed
    }

    /// Signs the zones again whose time has come. For the blocking pool.
    pub fn sign_due(&self) {
        let kept = lock(&self.kept).clone();
        let now = seconds();
        for zone in kept.values() {
            if lock(&zone.signing).due.is_some_and(|due| due <= now) {
                let _turn = lock(&zone.turn);
                self.sign_again(zone);
            }
        }
    }

    /// When the first zone is to be signed again, Unix seconds.
    #[must_use]
    pub fn next_signing(&self) -> Option<u64> {
        let kept = lock(&self.kept);
        kept.values()
            .filter_map(|zone| lock(&zone.signing).due)
            .min()
    }

    /// Waits until [`Keeper::next_signing`] may have changed.
    pub async fn signing_changed(&self) {
        self.signing_bell.notified().await;
    }

    /// The caller has the turn.
    fn sign_again(&self, kept: &Arc<Kept>) {
        let config = lock(&kept.config).clone();
        let unsigned = lock(&kept.signing).unsigned.clone();
        match (unsigned, config.sign) {
            (Some((zone, warnings)), Some(_)) => {
                self.serve(kept, &config, Loaded { zone, warnings });
            }
            // Its load failed, or it is to be signed no more: the next load decides.
            _ => lock(&kept.signing).due = None,
        }
    }

    /// The keys of a zone. `None`: no such zone.
    #[must_use]
    pub fn zone_keys(&self, name: &str) -> Option<Result<Vec<KeyStatus>, SignError>> {
        let name = canonical(name);
        let kept = lock(&self.kept).get(&name)?.clone();
        let apex = crate::dns::zone::apex(&kept.name)?;
        let _turn = lock(&kept.turn);
        Some(
            self.signer()
                .and_then(|signer| signer.keys(&name, &apex, seconds())),
        )
    }

    /// Begins to replace the key of a zone and signs it. `None`: no such zone.
    #[must_use]
    pub fn roll_key(&self, name: &str) -> Option<Result<(), SignError>> {
        self.with_key(name, |signer, name, policy, now| {
            signer.roll(name, policy, now)
        })
    }

    /// Notes that the parent's DS points to the key with this tag, and signs the zone. `None`: no such zone.
    #[must_use]
    pub fn ds_seen(&self, name: &str, tag: u16) -> Option<Result<(), SignError>> {
        self.with_key(name, |signer, name, _, now| signer.seen(name, tag, now))
    }

    fn with_key(
        &self,
        name: &str,
        change: impl FnOnce(&Signer, &str, Policy, u64) -> Result<(), SignError>,
    ) -> Option<Result<(), SignError>> {
        let kept = lock(&self.kept).get(&canonical(name))?.clone();
        let Some(policy) = lock(&kept.config).sign else {
            let error = format!("{} is not signed here: it has no `sign = true`", kept.name);
            return Some(Err(SignError::NotNow(error)));
        };
        let _turn = lock(&kept.turn);
        let changed = self
            .signer()
            .and_then(|signer| change(&signer, &kept.name, policy, seconds()));
        if changed.is_ok() {
            self.sign_again(&kept);
        }
        Some(changed)
    }

    fn signer(&self) -> Result<Arc<Signer>, SignError> {
        let signer = self.signer.load_full();
        signer.ok_or_else(|| SignError::NotNow("found no folder for keys".to_owned()))
    }
}

/// Unix seconds.
fn seconds() -> u64 {
    Now::read().unix_ms / 1_000
}

/// How long after a failure a zone is signed again, seconds.
const RETRY: u64 = 60;
