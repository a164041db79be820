//! Zones that are signed here, between their source and their publication; and signed again when it is time.

use std::sync::Arc;

use super::past::Known;
use super::{Keeper, Kept, canonical, lock};
use crate::dns::ZoneConfig;
use crate::dns::dnssec::Policy;
use crate::dns::dnssec::parent::Awaited;
use crate::dns::dnssec::signer::{KeyStatus, SignError, Signed, Signer};
use crate::dns::zone::{Loaded, Problem, Zone};
use crate::time::Now;

/// What a zone that is signed here is signed from, and when again.
#[derive(Debug, Default)]
pub(super) struct Signing {
    /// The zone without signatures, and the warnings of its load.
    unsigned: Option<(Arc<Zone>, Vec<Problem>)>,
    /// How it is signed, if it is.
    policy: Option<Policy>,
    /// Unix seconds.
    due: Option<u64>,
    /// What it waits for at its parent.
    awaited: Option<Awaited>,
    /// What the parent said last.
    said: Option<String>,
}

impl Signing {
    pub(super) fn waits_for(&self) -> Option<String> {
        let awaited = self.awaited.as_ref()?;
        Some(match &self.said {
            Some(said) => format!("{awaited}; {said}"),
            None => awaited.to_string(),
        })
    }
}

/// A zone that waits for its parent.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Apex, text form.
    pub name: String,
    /// Apex, wire form, lower case.
    pub apex: Arc<[u8]>,
    /// What it waits for.
    pub awaited: Awaited,
}

impl Keeper {
    /// Gives the keeper what signs zones.
    pub fn set_signer(&self, signer: Signer) {
        self.signer.store(Some(Arc::new(signer)));
    }

    /// Takes a zone that came from its source into service, signed if it is to be. The caller has the turn.
    pub(super) fn serve(
        &self,
        kept: &Arc<Kept>,
        config: &ZoneConfig,
        loaded: Loaded,
        known: Option<Known>,
    ) {
        let not_signed = |error: &SignError| {
            let problem = Problem {
                file: config.file.display().to_string(),
                line: 0,
                message: format!("not signed: {error}"),
            };
            self.failed(kept, config, &[problem]);
        };
        let policy = match self.policy(kept, config, &loaded.zone) {
            Ok(Some(policy)) => policy,
            Ok(None) => {
                *lock(&kept.signing) = Signing::default();
                return self.publish(kept, config, loaded, known);
            }
            Err(error) => return not_signed(&error),
        };
        {
            let mut signing = lock(&kept.signing);
            signing.unsigned = Some((loaded.zone.clone(), loaded.warnings.clone()));
            signing.policy = Some(policy);
        }
        match self.sign(kept, &loaded.zone, policy) {
            Ok(signed) => {
                let mut warnings = loaded.warnings;
                if config.sign.is_none() {
                    warnings.push(held(config));
                }
                let zone = signed.zone;
                // Signatures differ in more than what is known.
                self.publish(kept, config, Loaded { zone, warnings }, None);
            }
            Err(error) => not_signed(&error),
        }
    }

    /// How a zone is signed: as it is configured; or, if its parent may still have a DS, as it was before. The keys of one
    /// that needs no signatures any more are put aside.
    fn policy(
        &self,
        kept: &Kept,
        config: &ZoneConfig,
        zone: &Zone,
    ) -> Result<Option<Policy>, SignError> {
        // What comes signed, or from elsewhere, needs no keys here.
        let foreign = zone.signatures_expire().is_some() || !config.primaries.is_empty();
        if config.sign.is_some() || foreign {
            return Ok(config.sign);
        }
        let Some(signer) = self.signer.load_full() else {
            return Ok(None);
        };
        let held = signer.held(&kept.name, seconds())?;
        if held.is_none()
            && let Some(serial) = signer.retire(&kept.name)?
        {
            tracing::info!(
                zone = %kept.name, served_serial = serial, file_serial = zone.serial(),
                "zone served unsigned; secondaries take it once the serial is above the one served"
            );
        }
        Ok(held)
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
        let awaited = signed.as_ref().ok().map(|signed| signed.awaited.clone());
        {
            let mut signing = lock(&kept.signing);
            signing.due = Some(due);
            if let Some(awaited) = awaited
                && signing.awaited != awaited
            {
                signing.awaited = awaited;
                signing.said = None;
                self.waiting_bell.notify_one();
            }
        }
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
        match unsigned {
            Some((zone, warnings)) => self.serve(kept, &config, Loaded { zone, warnings }, None),
            // Its load failed: the next load decides.
            None => lock(&kept.signing).due = None,
        }
    }

    /// The zones that wait for their parents.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let kept = lock(&self.kept).clone();
        let zones = kept.values().filter_map(|zone| {
            Some(Waiting {
                name: zone.name.clone(),
                apex: crate::dns::zone::apex(&zone.name)?,
                awaited: lock(&zone.signing).awaited.clone()?,
            })
        });
        zones.collect()
    }

    /// Waits until [`Keeper::waiting`] may have changed.
    pub async fn waiting_changed(&self) {
        self.waiting_bell.notified().await;
    }

    /// The DS data of a zone, from its parent if that is served here.
    #[must_use]
    pub fn ds_of(&self, apex: &[u8]) -> Option<Vec<Box<[u8]>>> {
        let zones = self.serving();
        let mut above = parent(apex)?;
        let zone = loop {
            if let Some(zone) = zones.get(above) {
                break zone;
            }
            above = parent(above)?;
        };
        let records = zone.records_at(apex);
        // Else the zone between is somebody else's.
        let delegated = records.iter().any(|record| record.rtype == NS);
        delegated.then(|| {
            let ds = records.into_iter().filter(|record| record.rtype == DS);
            ds.map(|record| record.data).collect()
        })
    }

    /// Notes, in words, what the parent of a zone said.
    pub fn parent_said(&self, zone: &Waiting, said: &str) {
        let Some(kept) = lock(&self.kept).get(&zone.name).cloned() else {
            return;
        };
        let mut signing = lock(&kept.signing);
        if signing.awaited.as_ref() == Some(&zone.awaited) {
            signing.said = Some(said.to_owned());
        }
    }

    /// Notes that the parent shows since `at` (Unix seconds) what the zone waits for, and signs the zone.
    pub fn parent_agrees(&self, zone: &Waiting, at: u64) {
        let awaited = &zone.awaited;
        let agreed = self.with_key(&zone.name, |signer, name, _, now| {
            signer.agreed(name, &zone.apex, awaited, at, now)
        });
        match agreed {
            Some(Ok(())) => tracing::info!(zone = zone.name, seen = %awaited, "parent has changed"),
            Some(Err(error)) => tracing::warn!(zone = zone.name, %error, "parent's DS not noted"),
            None => {}
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

    /// Begins to have the DS of a zone removed, or with `cancel` keeps it after all. `None`: no such zone.
    #[must_use]
    pub fn leave(&self, name: &str, cancel: bool) -> Option<Result<(), SignError>> {
        self.with_key(name, |signer, name, _, now| signer.leave(name, cancel, now))
    }

    /// Notes that the parent has no DS, and signs the zone, or does not any more. `None`: no such zone.
    #[must_use]
    pub fn ds_gone(&self, name: &str) -> Option<Result<(), SignError>> {
        self.with_key(name, |signer, name, _, now| signer.gone(name, now))
    }

    fn with_key(
        &self,
        name: &str,
        change: impl FnOnce(&Signer, &str, Policy, u64) -> Result<(), SignError>,
    ) -> Option<Result<(), SignError>> {
        let kept = lock(&self.kept).get(&canonical(name))?.clone();
        let _turn = lock(&kept.turn);
        let configured = lock(&kept.config).sign;
        let Some(policy) = configured.or(lock(&kept.signing).policy) else {
            let error = format!("{} is not signed here: it has no `sign = true`", kept.name);
            return Some(Err(SignError::NotNow(error)));
        };
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

/// Says of a zone that is to be signed no more why it still is.
fn held(config: &ZoneConfig) -> Problem {
    Problem {
        file: config.file.display().to_string(),
        line: 0,
        message: still_signed(&config.name),
    }
}

/// Why a zone with `sign = false` is signed.
#[must_use]
pub fn still_signed(zone: &str) -> String {
    format!(
        "sign = false, but the parent may have a DS, and without signatures nobody who validates could reach the zone: it \
         stays signed until `headwater zone insecure {zone}` has had the DS removed"
    )
}

/// The name above, wire form.
fn parent(name: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = name.split_first()?;
    (len > 0).then(|| rest.get(usize::from(len)..)).flatten()
}

const NS: u16 = 2;
const DS: u16 = 43;

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

    /// A keeper whose zones have no TTLs to wait for, so that every time is over at once.
    fn hasty(folder: &tempfile::TempDir, sign: bool) -> Keeper {
        let keeper = Keeper::new(vec![hasty_config(folder, sign)], Arc::new(Metrics::new()));
        let zero = std::time::Duration::ZERO;
        let times = Config {
            propagation: zero,
            dnskey_ttl: zero,
            ds_ttl: zero,
            ..Config::default()
        };
        keeper.set_signer(Signer::new(folder.path().join("keys"), times));
        keeper
    }

    fn hasty_config(folder: &tempfile::TempDir, sign: bool) -> ZoneConfig {
        ZoneConfig {
            name: "a.test.".to_owned(),
            file: folder.path().join("zone"),
            ttl: 0,
            sign: sign.then_some(Policy {
                algorithm: Algorithm::EcdsaP256,
                denial: Proof::Nsec3,
            }),
            ..ZoneConfig::default()
        }
    }

    fn done(changed: Option<Result<(), SignError>>) {
        changed.expect("the zone").expect("done");
    }

    #[test]
    fn zone_whose_parent_may_have_a_ds_stays_signed_until_that_is_gone() {
        let folder = folder();
        let keeper = hasty(&folder, true);
        let _ = keeper.reload(None);
        let key = keeper.zone_keys("a.test").expect("the zone").expect("keys")[0].tag;
        done(keeper.ds_seen("a.test", key));
        assert!(keeper.waiting().is_empty());
        // By a reload and by a restart with another configuration.
        keeper.configure(vec![hasty_config(&folder, false)]);
        for keeper in [keeper, hasty(&folder, false)] {
            let states = keeper.reload(None).expect("all zones");
            assert!(states[0].signed_until.is_some());
            assert!(
                states[0].warnings[0].contains("headwater zone insecure a.test."),
                "{:?}",
                states[0].warnings
            );
            assert!(text(&keeper).contains("NSEC3"));
        }
        let keeper = hasty(&folder, false);
        let _ = keeper.reload(None);
        assert!(matches!(keeper.ds_gone("a.test"), Some(Err(_))));
        done(keeper.leave("a.test", false));
        assert!(text(&keeper).contains("CDS 0 0 0 00"), "{}", text(&keeper));
        // Changed one's mind, and again.
        done(keeper.leave("a.test", true));
        assert!(!text(&keeper).contains("CDS 0 0 0 00"));
        assert!(text(&keeper).contains("CDNSKEY 257 3 13 "));
        done(keeper.leave("a.test", false));
        let waiting = keeper.waiting();
        assert_eq!(waiting[0].awaited, Awaited::Gone);
        keeper.parent_said(&waiting[0], "it has no DS");
        let status = &keeper.zones()[0];
        assert_eq!(
            status.waits_for.as_deref(),
            Some("the parent's DS to go; it has no DS")
        );
        keeper.parent_agrees(&waiting[0], seconds());
        let status = &keeper.zones()[0];
        assert_eq!((status.signed_until, &status.waits_for), (None, &None));
        assert!(!text(&keeper).contains("DNSKEY") && status.warnings.is_empty());
        assert!(keeper.next_signing().is_none() && keeper.waiting().is_empty());
        // Signed once more it has another key.
        keeper.configure(vec![hasty_config(&folder, true)]);
        let _ = keeper.reload(None);
        let keys = keeper.zone_keys("a.test").expect("the zone").expect("keys");
        assert_eq!((keys.len(), keys[0].seen), (1, false));
    }

    #[test]
    fn zone_that_had_no_ds_yet_is_unsigned_at_once() {
        let folder = folder();
        let keeper = keeper(&folder);
        let _ = keeper.reload(None);
        assert!(text(&keeper).contains("DNSKEY"));
        let unsigned = ZoneConfig {
            ttl: 300,
            ..hasty_config(&folder, false)
        };
        keeper.configure(vec![unsigned]);
        let states = keeper.reload(None).expect("all zones");
        assert_eq!(
            (states[0].signed_until, states[0].warnings.len()),
            (None, 0)
        );
        assert!(!text(&keeper).contains("DNSKEY"));
    }

    #[test]
    fn rollover_to_another_algorithm_goes_on_when_the_parent_agrees() {
        let folder = folder();
        let keeper = hasty(&folder, true);
        let _ = keeper.reload(None);
        let agree = || {
            let waiting = keeper.waiting();
            assert_eq!(waiting.len(), 1);
            keeper.parent_agrees(&waiting[0], seconds());
            // What it has said before is not what is waited for now.
            keeper.parent_agrees(&waiting[0], seconds());
        };
        let keys = || keeper.zone_keys("a.test").expect("the zone").expect("keys");
        agree();
        let mut config = hasty_config(&folder, true);
        config.sign = config.sign.map(|policy| Policy {
            algorithm: Algorithm::Ed25519,
            ..policy
        });
        keeper.configure(vec![config]);
        let _ = keeper.reload(None);
        assert_eq!(keys()[0].algorithm, "ecdsa-p256");
        done(keeper.roll_key("a.test"));
        let sign_again = || {
            lock(&lock(&keeper.kept)["a.test."].signing).due = Some(0);
            keeper.sign_due();
        };
        sign_again();
        sign_again();
        let doing = keys().iter().map(|key| key.doing).collect::<Vec<_>>();
        assert_eq!(
            doing,
            [
                "signs; the parent's DS points to it",
                "signs; waits for its DS at the parent"
            ]
        );
        assert!(matches!(keeper.roll_key("a.test"), Some(Err(_))));
        agree();
        sign_again();
        sign_again();
        let keys = keys();
        assert_eq!((keys.len(), keys[0].algorithm), (1, "ed25519"));
        assert!(!text(&keeper).contains("DNSKEY 257 3 13 "));
    }

    #[test]
    fn ds_are_those_of_the_parent_served_here() {
        let folder = folder();
        let file = folder.path().join("parent");
        let text = "@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nb NS ns\nc NS ns\nc DS 7 13 2 \
                    0000000000000000000000000000000000000000000000000000000000000000\n";
        std::fs::write(&file, text).expect("writable");
        let parent = ZoneConfig {
            name: "a.test.".to_owned(),
            file,
            ..ZoneConfig::default()
        };
        let keeper = Keeper::new(vec![parent], Arc::new(Metrics::new()));
        let _ = keeper.reload(None);
        let count = |name: &str| {
            let apex = crate::dns::zone::apex(name).expect("a name");
            keeper.ds_of(&apex).map(|ds| ds.len())
        };
        assert_eq!((count("b.a.test."), count("c.a.test.")), (Some(0), Some(1)));
        // Not delegated here, of somebody else's zone beneath, and of nobody's above.
        for other in ["d.a.test.", "x.b.a.test.", "a.test.", "."] {
            assert_eq!(count(other), None, "{other}");
        }
    }
}
