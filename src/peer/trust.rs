//! Whose word a mirror takes: the keys of its origins, and the newest catalogue of each.
//!
//! An origin's key is configured, or else it is the one that a node named in the configuration had when it was first
//! asked (trust on first use). Both key and catalogue are kept below the store's directory, in `origins/HASH` with the
//! hash of the mirrored prefix: a restart neither trusts another key nor goes back to an older catalogue.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::MirrorConfig;
use super::message::Edition;
use crate::content::catalogue::SignedCatalogue;
use crate::content::chunk::Digest;
use crate::content::edition::write;
use crate::content::sign::PublicKey;

/// The origins of one mirrored prefix, in the order of their rank.
#[derive(Debug)]
pub(super) struct Trust {
    origins: Vec<Origin>,
    configured: bool,
    files: Files,
}

/// Whose objects are mirrored.
#[derive(Debug, Default)]
struct Origin {
    key: Option<PublicKey>,
    catalogue: Option<SignedCatalogue>,
}

/// What a node's key says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It may be asked.
    Known,
    /// It was never asked before: from now on this key is its own.
    New,
    /// It had another key, this one.
    Changed(PublicKey),
}

/// Where keys and catalogues are kept. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: Arc<Path>,
}

impl Trust {
    /// Nothing known yet but what is configured.
    pub(super) fn new(config: &MirrorConfig, store: &Path) -> Self {
        let configured = !config.keys.is_empty();
        let origins = if configured {
            let known = |key: &PublicKey| Origin {
                key: Some(*key),
                catalogue: None,
            };
            config.keys.iter().map(known).collect()
        } else {
            config.from.iter().map(|_| Origin::default()).collect()
        };
        Self {
            origins,
            configured,
            files: Files::of(store, &config.prefix),
        }
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Origins there are, known or not.
    pub(super) fn count(&self) -> usize {
        self.origins.len()
    }

    /// The key of the origin, or of the first of several, once it is known.
    pub(super) fn first_key(&self) -> Option<PublicKey> {
        self.origins.iter().find_map(|origin| origin.key)
    }

    /// The highest version of a catalogue that is known.
    pub(super) fn version(&self) -> Option<u64> {
        let catalogues = self.origins.iter().filter_map(|o| o.catalogue.as_ref());
        catalogues.map(|signed| signed.catalogue().version).max()
    }

    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.origins
            .iter()
            .filter_map(|origin| origin.key)
            .collect()
    }

    /// The node in this place of the configuration says that this is its key.
    pub(super) fn greet(&mut self, node: usize, key: PublicKey) -> Greeting {
        if self.configured {
            return Greeting::Known; // Whoever it is: it can only pass on what the origin signed.
        }
        let origin = &mut self.origins[node];
        match origin.key {
            None => {
                origin.key = Some(key);
                Greeting::New
            }
            Some(known) if known == key => Greeting::Known,
            Some(known) => Greeting::Changed(known),
        }
    }

    /// Of the catalogues a node has: those of origins, newer than what is known.
    pub(super) fn news<'a>(&'a self, offered: &'a [Edition]) -> impl Iterator<Item = Edition> + 'a {
        offered.iter().copied().filter(|offered| {
            self.origins.iter().any(|origin| {
                origin.key == Some(offered.key)
                    && origin
                        .catalogue
                        .as_ref()
                        .is_none_or(|known| known.catalogue().version < offered.version)
            })
        })
    }

    /// Takes a verified catalogue, unless it is not newer; gives the ranks of the origins whose it is.
    pub(super) fn accept(&mut self, signed: &SignedCatalogue) -> Vec<usize> {
        let mut ranks = Vec::new();
        for (rank, origin) in self.origins.iter_mut().enumerate() {
            let newer = origin
                .catalogue
                .as_ref()
                .is_none_or(|known| known.catalogue().version < signed.catalogue().version);
            if origin.key == Some(signed.key()) && newer {
                origin.catalogue = Some(signed.clone());
                ranks.push(rank);
            }
        }
        ranks
    }
}

impl Files {
    fn of(store: &Path, prefix: &str) -> Self {
        let name = format!("{:.32}", Digest::of(prefix.as_bytes()));
        Self {
            dir: store.join("origins").join(name).into(),
        }
    }

    /// What was known of these nodes' keys before. Blocking.
    ///
    /// # Errors
    /// The file and what is wrong with it. A key that cannot be read is no reason to trust another one.
    pub(super) fn pins(&self, from: &[String]) -> io::Result<Vec<Option<PublicKey>>> {
        let pin = |base: &String| {
            let path = self.pin(base);
            let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let key = text.split_whitespace().next().unwrap_or_default();
                    let key = key.parse().map_err(io::Error::other).map_err(at)?;
                    Ok(Some(key))
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(at(e)),
            }
        };
        from.iter().map(pin).collect()
    }

    /// The newest catalogue of `key` that was known. Blocking. One that is damaged is none.
    pub(super) fn catalogue(&self, key: PublicKey) -> Option<SignedCatalogue> {
        let path = self.dir.join(key.to_string());
        let bytes = fs::read(&path).ok()?;
        match SignedCatalogue::verify(&bytes, key) {
            Ok(signed) => Some(signed),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "catalogue not taken up");
                None
            }
        }
    }

    /// Keeps the key of the node at `base`. Blocking.
    pub(super) fn keep_pin(&self, base: &str, key: PublicKey) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        write(&self.pin(base), format!("{key} {base}\n"))
    }

    /// Keeps a catalogue. Blocking.
    pub(super) fn keep(&self, signed: &SignedCatalogue) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        write(&self.dir.join(signed.key().to_string()), signed.bytes())
    }

    /// Where the key of the node at `base` is kept.
    pub(super) fn pin(&self, base: &str) -> PathBuf {
        let name = format!("pin-{:.32}", Digest::of(base.as_bytes()));
        self.dir.join(name)
    }
}

/// What was known before, read at the start.
#[derive(Debug)]
pub(super) struct Kept {
    pins: Vec<Option<PublicKey>>,
    catalogues: Vec<SignedCatalogue>,
}

impl Kept {
    /// Reads it. Blocking.
    ///
    /// # Errors
    /// As [`Files::pins`].
    pub(super) fn read(files: &Files, config: &MirrorConfig) -> io::Result<Self> {
        let pins = if config.keys.is_empty() {
            files.pins(&config.from)?
        } else {
            Vec::new()
        };
        let keys = config.keys.iter().chain(pins.iter().flatten());
        let mut keys: Vec<PublicKey> = keys.copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let catalogues = keys.into_iter().filter_map(|key| files.catalogue(key));
        Ok(Self {
            catalogues: catalogues.collect(),
            pins,
        })
    }
}

impl Trust {
    /// Takes up what was known before; gives the catalogues.
    pub(super) fn resume(&mut self, kept: Kept) -> Vec<SignedCatalogue> {
        for (origin, pin) in self.origins.iter_mut().zip(kept.pins) {
            origin.key = origin.key.or(pin);
        }
        kept.catalogues
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::catalogue::Catalogue;
    use crate::content::sign::Identity;

    fn config(keys: Vec<PublicKey>) -> MirrorConfig {
        MirrorConfig {
            keys,
            ..MirrorConfig::new("/v/", vec!["http://a".into(), "http://b".into()])
        }
    }

    fn signed(seed: u8, version: u64) -> SignedCatalogue {
        let catalogue = Catalogue {
            version,
            complete: true,
            prefix: "/v/".into(),
            objects: Vec::new(),
        };
        SignedCatalogue::sign(catalogue, &Identity::from_seed(&[seed; 32]))
    }

    fn key(seed: u8) -> PublicKey {
        Identity::from_seed(&[seed; 32]).key()
    }

    #[test]
    fn first_key_of_a_node_is_its_own_from_then_on() {
        let mut trust = Trust::new(&config(Vec::new()), Path::new("/nowhere"));
        assert_eq!(trust.greet(0, key(1)), Greeting::New);
        assert_eq!(trust.greet(0, key(1)), Greeting::Known);
        assert_eq!(trust.greet(0, key(2)), Greeting::Changed(key(1)));
        assert_eq!(trust.greet(1, key(2)), Greeting::New);
    }

    #[test]
    fn configured_key_is_trusted_and_no_other() {
        let mut trust = Trust::new(&config(vec![key(1)]), Path::new("/nowhere"));
        assert_eq!(trust.greet(0, key(2)), Greeting::Known);
        assert_eq!(trust.accept(&signed(2, 9)), Vec::<usize>::new());
        assert_eq!(trust.accept(&signed(1, 9)), [0]);
    }

    #[test]
    fn older_catalogue_is_never_taken_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(Vec::new());
        let mut trust = Trust::new(&config, dir.path());
        trust.greet(0, key(1));
        trust.files().keep_pin("http://a", key(1)).unwrap();
        assert_eq!(trust.accept(&signed(1, 7)), [0]);
        trust.files().keep(&signed(1, 7)).unwrap();
        assert_eq!(trust.accept(&signed(1, 7)), Vec::<usize>::new());

        let mut trust = Trust::new(&config, dir.path());
        let kept = Kept::read(trust.files(), &config).unwrap();
        for catalogue in trust.resume(kept) {
            assert_eq!(trust.accept(&catalogue), [0]);
        }
        assert_eq!(trust.greet(0, key(2)), Greeting::Changed(key(1)));
        assert_eq!(trust.version(), Some(7));
        let edition = |version| Edition {
            key: key(1),
            version,
        };
        let news = |offered: &[Edition]| trust.news(offered).count();
        assert_eq!(
            [
                news(&[edition(6)]),
                news(&[edition(7)]),
                news(&[edition(8)])
            ],
            [0, 0, 1]
        );
        assert_eq!(trust.accept(&signed(1, 6)), Vec::<usize>::new());
    }

    #[test]
    fn pin_that_is_damaged_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(Vec::new());
        let trust = Trust::new(&config, dir.path());
        trust.files().keep_pin("http://a", key(1)).unwrap();
        let file = trust.files().pin("http://a");
        fs::write(&file, "?").unwrap();
        let error = Kept::read(trust.files(), &config).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }

    #[test]
    fn catalogue_that_is_damaged_on_disk_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let trust = Trust::new(&config(vec![key(1)]), dir.path());
        trust.files().keep(&signed(1, 7)).unwrap();
        assert!(trust.files().catalogue(key(1)).is_some());
        let file = trust.files().dir.join(key(1).to_string());
        let mut bytes = fs::read(&file).unwrap();
        bytes[9] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(trust.files().catalogue(key(1)).is_none());
    }
}
