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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::dnssec::{Algorithm, Config, Proof};
    use crate::metrics::Metrics;

    const ZONE: &str = "@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n";

    /// A keeper of `a.test.` in `folder`, signed.
    fn keeper(folder: &tempfile::TempDir) -> Keeper {
        let config = ZoneConfig {
            name: "a.test.".to_owned(),
            file: folder.path().join("zone"),
            ttl: 300,
            sign: Some(Policy {
                algorithm: Algorithm::EcdsaP256,
                denial: Proof::Nsec3,
            }),
            ..ZoneConfig::default()
        };
        let keeper = Keeper::new(vec![config], Arc::new(Metrics::new()));
        let times = Config {
            propagation: std::time::Duration::ZERO,
            ..Config::default()
        };
        keeper.set_signer(Signer::new(folder.path().join("keys"), times));
        keeper
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("zone"), ZONE).expect("writable");
        folder
    }

    fn text(keeper: &Keeper) -> String {
        keeper.zone_text("a.test").expect("in service")
    }

    #[test]
    fn signed_zone_is_the_same_after_a_restart_and_new_after_an_edit() {
        let folder = folder();
        let first = keeper(&folder);
        let states = first.reload(None).expect("all zones");
        assert_eq!(
            (states[0].serial, &states[0].problems[..]),
            (Some(1), &[][..])
        );
        assert!(states[0].signed_until > Some(seconds()));
        assert!(first.next_signing() > Some(seconds()));
        let second = keeper(&folder);
        let _ = second.reload(None);
        assert_eq!(text(&second), text(&first));
        std::fs::write(folder.path().join("zone"), format!("{ZONE}b A 192.0.2.2\n"))
            .expect("writable");
        let states = second.reload(None).expect("all zones");
        assert_eq!(states[0].serial, Some(2));
        // Signed again it is what it was.
        let before = text(&second);
        lock(&lock(&second.kept)["a.test."].signing).due = Some(0);
        second.sign_due();
        assert_eq!(text(&second), before);
        assert!(second.next_signing() > Some(seconds()));
    }

    #[test]
    fn zone_that_cannot_be_signed_stays_as_it_was() {
        let folder = folder();
        let keeper = keeper(&folder);
        let _ = keeper.reload(None);
        let before = text(&keeper);
        std::fs::write(folder.path().join("keys/a.test.json"), "{}").expect("writable");
        let states = keeper.reload(None).expect("all zones");
        assert!(
            states[0].problems[0].contains("not signed: "),
            "{:?}",
            states[0].problems
        );
        assert_eq!(text(&keeper), before);
        // It is tried again, and so are the keys told.
        assert!(
            keeper
                .next_signing()
                .is_some_and(|due| due <= seconds() + RETRY)
        );
        assert!(keeper.zone_keys("a.test").is_some_and(|keys| keys.is_err()));
        assert!(keeper.zone_keys("b.test").is_none());
    }

    #[test]
    fn key_that_is_too_new_or_not_there_is_not_touched() {
        let folder = folder();
        let keeper = keeper(&folder);
        let _ = keeper.reload(None);
        let keys = keeper
            .zone_keys("A.test.")
            .expect("the zone")
            .expect("its keys");
        assert_eq!((keys.len(), &keys[0].ds, keys[0].seen), (1, &None, false));
        for refused in [
            keeper.roll_key("a.test"),
            keeper.ds_seen("a.test", keys[0].tag),
            keeper.ds_seen("a.test", keys[0].tag.wrapping_add(1)),
        ] {
            assert!(
                matches!(refused, Some(Err(SignError::NotNow(_)))),
                "{refused:?}"
            );
        }
        let after = keeper
            .zone_keys("a.test")
            .expect("the zone")
            .expect("its keys");
        assert_eq!(after, keys);
    }
}
