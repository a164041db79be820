//! Keys and signatures on disk: `<state>/keys/ZONE.json` and `ZONE.signatures`, for the service's user alone.
//!
//! A file is written beside the one it replaces, synced and renamed, so a crash leaves the old or the new one. Keys are
//! there before anything they sign is served. A damaged file of keys is an error: new keys would break the zone for
//! everybody who has its DS. Damaged signatures are only made anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Proof;
use super::key::{Algorithm, SIGNATURE_LEN};
use super::roll::{Leaving, Life};
use super::rrset::{Digest, Validity};
use super::sign::{Kept, Served};

/// What is kept of a signed zone besides its signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The older first; one or two.
    pub(super) keys: Vec<Stored>,
    /// What was served last.
    pub(super) served: Option<Served>,
    /// The highest TTL of the zone, and of its DNSKEY, since the last rollover ended, seconds.
    pub(super) zone_ttl: u32,
    /// See `zone_ttl`.
    pub(super) dnskey_ttl: u32,
    /// Whether it is to be unsigned.
    pub(super) leaving: Option<Leaving>,
    /// How it proved last what does not exist.
    pub(super) denial: Proof,
}

/// A private key and its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) algorithm: Algorithm,
    /// PKCS#8.
    pub(super) private: Vec<u8>,
    pub(super) life: Life,
}

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {found}, expected keys as written by headwater; restore the file", path.display())]
    Damaged { path: PathBuf, found: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    keys: Vec<KeyFile>,
    served: Option<ServedFile>,
    zone_ttl: u32,
    dnskey_ttl: u32,
    #[serde(default)]
    leaving: Option<Leaving>,
    #[serde(default)]
    denial: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    algorithm: String,
    /// PKCS#8, base64.
    private: String,
    life: Life,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServedFile {
    serial: u32,
    content: Digest,
}

/// The folder of all signed zones.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The state of a zone (text form); `None`: it was never signed here.
    pub(super) fn state(&self, zone: &str) -> Result<Option<State>, StoreError> {
        let path = self.path(zone, "json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::Io { path, error }),
        };
        let read = decode(&bytes);
        read.map(Some)
            .map_err(|found| StoreError::Damaged { path, found })
    }

    pub(super) fn set_state(&self, zone: &str, state: &State) -> Result<(), StoreError> {
        let file = StateFile {
            version: VERSION,
            keys: state.keys.iter().map(KeyFile::from).collect(),
            served: state.served.map(|served| ServedFile {
                serial: served.serial,
                content: served.content,
            }),
            zone_ttl: state.zone_ttl,
            dnskey_ttl: state.dnskey_ttl,
            leaving: state.leaving,
            denial: Some(state.denial.text().to_owned()),
        };
        let path = self.path(zone, "json");
        let bytes = serde_json::to_vec_pretty(&file).map_err(|error| StoreError::Io {
            path: path.clone(),
            error: error.into(),
        })?;
        self.write(&path, &bytes)
    }

    /// Puts the files of a zone aside that is served unsigned: its keys as `ZONE.retired`, its signatures are gone.
    pub(super) fn retire(&self, zone: &str) -> Result<(), StoreError> {
        let path = self.path(zone, "json");
        let moved = fs::rename(&path, self.path(zone, "retired"));
        moved.map_err(|error| StoreError::Io { path, error })?;
        let _ = fs::remove_file(self.path(zone, "signatures")); // There may be none.
        Ok(())
    }

    /// The signatures kept of a zone; none if there are none that can be read.
    pub(super) fn signatures(&self, zone: &str) -> Kept {
        let bytes = fs::read(self.path(zone, "signatures")).unwrap_or_default();
        signatures(&bytes).unwrap_or_default()
    }

    pub(super) fn set_signatures(&self, zone: &str, kept: &Kept) -> Result<(), StoreError> {
        let mut bytes = Vec::with_capacity(kept.len() * ENTRY_LEN + 64);
        bytes.extend_from_slice(MAGIC);
        for (digest, (validity, signature)) in kept {
            bytes.extend_from_slice(digest);
            bytes.extend(validity.inception.to_be_bytes());
            bytes.extend(validity.expiration.to_be_bytes());
            bytes.extend_from_slice(signature);
        }
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        self.write(&self.path(zone, "signatures"), &bytes)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let written = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.dir)?;
            let beside = path.with_extension("new");
            let _ = fs::remove_file(&beside); // Left by a crash.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            File::open(&self.dir)?.sync_all()
        };
        written().map_err(|error| StoreError::Io {
            path: path.to_path_buf(),
            error,
        })
    }

    /// The file of a zone. Bytes of its name that a file name should not have are written as `%` and two digits.
    fn path(&self, zone: &str, kind: &str) -> PathBuf {
        use std::fmt::Write as _;
        let name = zone
            .strip_suffix('.')
            .filter(|name| !name.is_empty())
            .unwrap_or("root zone");
        let mut file = String::new();
        for (at, byte) in name.bytes().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => file.push(char::from(byte)),
                b'.' if at > 0 => file.push('.'),
                _ => {
                    let _ = write!(file, "%{byte:02X}"); // A String takes everything.
                }
            }
        }
        self.dir.join(format!("{file}.{kind}"))
    }
}

fn decode(bytes: &[u8]) -> Result<State, String> {
    let file: StateFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("found version {}", file.version));
    }
    let keys: Vec<Stored> = file
        .keys
        .iter()
        .map(Stored::read)
        .collect::<Result<_, _>>()?;
    if keys.is_empty() || keys.len() > 2 {
        return Err(format!("found {} keys", keys.len()));
    }
    let denial = match file.denial.as_deref() {
        None => Proof::default(),
        Some(word) => Proof::ALL
            .into_iter()
            .find(|denial| denial.text() == word)
            .ok_or_else(|| format!("found denial {word:?}"))?,
    };
    Ok(State {
        keys,
        leaving: file.leaving,
        denial,
        served: file.served.map(|served| Served {
            serial: served.serial,
            content: served.content,
        }),
        zone_ttl: file.zone_ttl,
        dnskey_ttl: file.dnskey_ttl,
    })
}

impl Stored {
    fn read(file: &KeyFile) -> Result<Self, String> {
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.text() == file.algorithm)
            .ok_or_else(|| format!("found algorithm {:?}", file.algorithm))?;
        let private = domain::utils::base64::decode::<Vec<u8>>(&file.private)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            algorithm,
            private,
            life: file.life,
        })
    }
}

impl From<&Stored> for KeyFile {
    fn from(stored: &Stored) -> Self {
        Self {
            algorithm: stored.algorithm.text().to_owned(),
            private: domain::utils::base64::encode_string(&stored.private),
            life: stored.life,
        }
    }
}

fn signatures(bytes: &[u8]) -> Option<Kept> {
    let (bytes, sum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(bytes) != *sum {
        return None;
    }
    let entries = bytes.strip_prefix(MAGIC)?.chunks_exact(ENTRY_LEN);
    let read = |entry: &[u8]| {
        let (digest, rest) = entry.split_first_chunk::<16>()?;
        let (inception, rest) = rest.split_first_chunk::<4>()?;
        let (expiration, rest) = rest.split_first_chunk::<4>()?;
        let validity = Validity {
            inception: u32::from_be_bytes(*inception),
            expiration: u32::from_be_bytes(*expiration),
        };
        let signature: [u8; SIGNATURE_LEN] = rest.try_into().ok()?;
        Some((*digest, (validity, signature)))
    };
    entries.map(read).collect()
}

const VERSION: u32 = 1;
const MAGIC: &[u8] = b"headwater signatures 1\n";
const ENTRY_LEN: usize = 16 + 4 + 4 + SIGNATURE_LEN;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state() -> State {
        State {
            keys: vec![Stored {
                algorithm: Algorithm::Ed25519,
                private: vec![1, 2, 3],
                life: Life::new(7, true),
            }],
            served: Some(Served {
                serial: 9,
                content: [4; 16],
            }),
            zone_ttl: 300,
            dnskey_ttl: 60,
            leaving: Some(Leaving {
                begun: 8,
                gone: None,
            }),
            denial: Proof::Nsec3,
        }
    }

    #[test]
    fn keys_kept_by_the_version_before_are_read() {
        let file = r#"{"version":1,"keys":[{"algorithm":"ed25519","private":"AQID","life":
            {"published":7,"active":7,"retired":null,"seen":null}}],"served":null,"zone_ttl":300,"dnskey_ttl":60}"#;
        let read = decode(file.as_bytes()).expect("its own file");
        assert_eq!(read.keys, state().keys);
        assert_eq!((read.leaving, read.denial), (None, Proof::Nsec));
    }

    #[test]
    fn retired_keys_are_put_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::new(dir.path().to_path_buf());
        store.set_state("a.test.", &state()).expect("writable");
        store.retire("a.test.").expect("writable");
        assert_eq!(store.state("a.test.").expect("readable"), None);
        assert!(dir.path().join("a.test.retired").exists());
        let error = store.retire("a.test.").expect_err("no such file");
        assert!(error.to_string().contains("a.test.json: "), "{error}");
    }

    #[test]
    fn state_survives_and_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::new(dir.path().join("keys"));
        assert_eq!(store.state("a.test.").expect("readable"), None);
        for _ in 0..2 {
            store.set_state("a.test.", &state()).expect("writable");
            assert_eq!(store.state("a.test.").expect("readable"), Some(state()));
        }
        let mode = |path: PathBuf| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode(dir.path().join("keys")), 0o700);
        assert_eq!(mode(dir.path().join("keys/a.test.json")), 0o600);
        assert_eq!(
            fs::read_dir(dir.path().join("keys"))
                .expect("readable")
                .count(),
            1
        );
    }

    #[test]
    fn damaged_keys_are_an_error_and_damaged_signatures_are_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::new(dir.path().to_path_buf());
        fs::write(dir.path().join("a.test.json"), "{").expect("writable");
        let error = store.state("a.test.").expect_err("damaged");
        assert!(error.to_string().contains("a.test.json: EOF"), "{error}");
        let validity = Validity {
            inception: 1,
            expiration: 2,
        };
        let kept = Kept::from([([3; 16], (validity, [4; 64]))]);
        store.set_signatures("a.test.", &kept).expect("writable");
        assert_eq!(store.signatures("a.test."), kept);
        let path = dir.path().join("a.test.signatures");
        let mut bytes = fs::read(&path).expect("readable");
        bytes[50] ^= 1;
        fs::write(&path, bytes).expect("writable");
        assert_eq!(store.signatures("a.test."), Kept::new());
        assert_eq!(store.signatures("b.test."), Kept::new());
    }

    #[test]
    fn file_names_stay_in_the_folder() {
        let store = Store::new(PathBuf::from("k"));
        for (zone, file) in [
            ("a.test.", "k/a.test.json"),
            (
                "0/25.2.0.192.in-addr.arpa.",
                "k/0%2F25.2.0.192.in-addr.arpa.json",
            ),
            ("..", "k/%2E.json"),
            (".", "k/root%20zone.json"),
        ] {
            assert_eq!(store.path(zone, "json"), PathBuf::from(file));
        }
    }
}
