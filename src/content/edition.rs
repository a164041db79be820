//! This node as a publisher: its key, and the catalogues it signs.
//!
//! In the state directory stand `node.key` (the seed of the key pair as 64 hexadecimal digits, for its owner only, made
//! once) and `catalogue.start`, a number that is higher at each start. It is the upper half of the versions given out
//! since, so that versions rise over restarts without a write for each: it is the time of the start in seconds, or one
//! more than the number before where the clock went back. So they rise even if the directory comes from a backup.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::catalogue::{Catalogue, Listed, SignedCatalogue};
use super::chunk::Digest;
use super::sign::{Identity, PublicKey, Purpose, Seal};
use crate::time::Now;

/// The key of this node and the catalogues it signed last.
#[derive(Debug)]
pub struct Editions {
    identity: Identity,
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    version: u64,
    /// By prefix.
    last: HashMap<String, Edition>,
}

/// The catalogue signed last for one prefix, and the state of the library it was made from.
#[derive(Debug)]
struct Edition {
    signed: SignedCatalogue,
    generation: u64,
}

impl Editions {
    /// The key in the state directory `state`, made if there is none yet.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn open(state: &Path, now: Now) -> io::Result<Self> {
        let key = state.join(KEY);
        let seed = match fs::read_to_string(&key) {
            Ok(text) => text.trim_end().parse::<Digest>().map_err(|_| {
                let expected = "expected the seed of a key, 64 lower-case hexadecimal digits";
                at(&key, &io::Error::new(io::ErrorKind::InvalidData, expected))
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let seed = dice().map_err(|e| at(&key, &e))?;
                write(&key, format!("{seed}\n")).map_err(|e| at(&key, &e))?;
                tracing::info!(file = %key.display(), "key of this node made");
                seed
            }
            Err(e) => return Err(at(&key, &e)),
        };
        if fs::metadata(&key).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
            let file = key.display();
            tracing::warn!(%file, "the key of this node can be read by others, expected mode 0600");
        }
        let file = state.join(START);
        let before = match fs::read_to_string(&file) {
            Ok(text) => text.trim_end().parse::<u32>().map_err(|_| {
                let expected = "expected the number of the last start";
                at(&file, &io::Error::new(io::ErrorKind::InvalidData, expected))
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(at(&file, &e)),
        };
        let clock = u32::try_from(now.unix_ms / 1_000).unwrap_or(u32::MAX);
        let start = clock.max(before.saturating_add(1));
        write(&file, format!("{start}\n")).map_err(|e| at(&file, &e))?;
        Ok(Self::new(
            Identity::from_seed(&seed.0),
            u64::from(start) << 32,
        ))
    }

    /// A key that nobody keeps: for a library without a state directory.
    ///
    /// # Errors
    /// What the kernel said to a wish for random bytes.
    pub fn unkept(now: Now) -> io::Result<Self> {
        let identity = Identity::from_seed(&dice()?.0);
        Ok(Self::new(identity, (now.unix_ms / 1_000) << 32))
    }

    fn new(identity: Identity, version: u64) -> Self {
        let last = HashMap::new();
        Self {
            identity,
            made: Mutex::new(Made { version, last }),
        }
    }

    /// The public key of this node.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.identity.key()
    }

    /// Signs the manifest with this digest.
    #[must_use]
    pub fn seal(&self, manifest: Digest) -> Seal {
        self.identity.sign(Purpose::Manifest, manifest)
    }

    /// The catalogue for `prefix`: the one signed last if it says the same, else a new one with the next version.
    /// `generation` changes whenever the answer of `gather` may (whether it is complete, and the objects in the order
    /// of their paths, at most [`super::catalogue::OBJECTS_MAX`]).
    ///
    /// # Errors
    /// What `gather` said.
    pub fn catalogue<E>(
        &self,
        prefix: &str,
        generation: impl FnOnce() -> u64,
        gather: impl FnOnce() -> Result<(bool, Vec<Listed>), E>,
    ) -> Result<SignedCatalogue, E> {
        // Gathered under the lock: a higher version is never of an earlier state.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = generation();
        let last = made.last.get(prefix);
        if let Some(last) = last.filter(|last| last.generation == generation) {
            return Ok(last.signed.clone());
        }
        let (complete, objects) = gather()?;
        if let Some(last) = made.last.get_mut(prefix) {
            let said = last.signed.catalogue();
            if said.complete == complete && said.objects == objects {
                last.generation = generation;
                return Ok(last.signed.clone());
            }
        }
        made.version += 1;
        let catalogue = Catalogue {
            version: made.version,
            complete,
            prefix: prefix.to_owned(),
            objects,
        };
        let signed = SignedCatalogue::sign(catalogue, &self.identity);
        if made.last.len() == PREFIXES {
            made.last.clear(); // Some are signed anew, with a higher version, which costs nothing but the work.
        }
        let edition = Edition {
            signed: signed.clone(),
            generation,
        };
        made.last.insert(prefix.to_owned(), edition);
        Ok(signed)
    }
}

/// Random bytes of the kernel.
fn dice() -> io::Result<Digest> {
    let mut seed = [0; 32];
    let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    if got != seed.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Digest(seed))
}

/// Writes a small file of state for its owner only: the old one or the new one is there, whatever happens.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_ref())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Catalogues that are kept signed, by prefix.
const PREFIXES: usize = 64;

const KEY: &str = "node.key";
const START: &str = "catalogue.start";

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at_second(second: u64) -> Now {
        Now {
            mono_ns: 0,
            unix_ms: second * 1_000,
        }
    }

    fn listed(path: &str) -> Listed {
        Listed {
            path: path.into(),
            size: 1,
            manifest: Digest([1; 32]),
        }
    }

    fn version(editions: &Editions, generation: u64, paths: &[&str]) -> u64 {
        let gather = || Ok::<_, Infallible>((true, paths.iter().map(|p| listed(p)).collect()));
        let signed = editions.catalogue("/", || generation, gather);
        signed
            .unwrap_or_else(|never| match never {})
            .catalogue()
            .version
    }

    #[test]
    fn key_is_made_once_for_its_owner_only() {
        let state = tempfile::tempdir().unwrap();
        let made = Editions::open(state.path(), at_second(1)).unwrap().key();
        assert_eq!(
            Editions::open(state.path(), at_second(1)).unwrap().key(),
            made
        );
        let mode = fs::metadata(state.path().join(KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = fs::read_dir(state.path()).unwrap().count();
        assert_eq!(left, 2, "a temporary file stayed");
    }

    #[test]
    fn key_that_is_damaged_is_named_and_never_replaced() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join(KEY);
        fs::write(&file, "short\n").unwrap();
        let error = Editions::open(state.path(), at_second(1)).unwrap_err();
        assert!(error.to_string().contains("node.key: expected"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "short\n");
    }

    #[test]
    fn version_rises_over_restarts_whatever_the_clock_does() {
        let state = tempfile::tempdir().unwrap();
        let mut last = 0;
        for second in [1_000, 1_000, 5, 2_000, 1] {
            let editions = Editions::open(state.path(), at_second(second)).unwrap();
            for generation in 0..3 {
                let paths = [["/a"], ["/b"], ["/c"]][generation];
                let version = version(&editions, generation as u64, &paths);
                assert!(version > last, "second {second}: {version} after {last}");
                last = version;
            }
        }
    }

    #[test]
    fn catalogue_that_says_the_same_keeps_its_version() {
        let editions = Editions::unkept(at_second(1)).unwrap();
        let first = version(&editions, 1, &["/a"]);
        assert_eq!(version(&editions, 1, &["never asked"]), first);
        assert_eq!(version(&editions, 2, &["/a"]), first);
        assert_eq!(version(&editions, 3, &["/a", "/b"]), first + 1);
    }

    #[test]
    fn seal_is_by_the_key_that_is_told() {
        let editions = Editions::unkept(at_second(1)).unwrap();
        let seal = editions.seal(Digest([4; 32]));
        assert_eq!(seal.key, editions.key());
        assert!(seal.holds(Purpose::Manifest, Digest([4; 32])));
    }
}
