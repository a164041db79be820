//! `[[key]]`: secrets that messages between servers are signed with (TSIG).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::read::Section;
use super::values::{DOMAIN_EXPECTED, Paths, domain};
use crate::dns::tsig::{Algorithm, Key, Keys};

pub(super) fn settings(sections: &[Section<'_, '_>], paths: &Paths<'_>) -> Keys {
    let mut names = BTreeSet::new();
    let mut keys = Vec::new();
    for section in sections {
        let name = section.parsed("name", DOMAIN_EXPECTED, domain);
        let words = Algorithm::ALL.map(Algorithm::text);
        // The first is what a key has that says nothing.
        let algorithm = section.choice_or_first(
            "algorithm",
            &["hmac-sha256", "hmac-sha512", "hmac-sha384", "hmac-sha1"],
        );
        debug_assert!(words.contains(&algorithm));
        let file = section.text("secret_file");
        if !name.is_empty() && !names.insert(name.clone()) {
            section.error(
                "name",
                format!("found {name:?} a second time, expected it once"),
            );
        }
        section.end();
        if file.is_empty() || name.is_empty() {
            if file.is_empty() && !section.failed("secret_file") {
                section.error("secret_file", "expected the path of a file");
            }
            continue;
        }
        let path = paths.resolve(section, "secret_file", &file);
        match secret(&path) {
            Ok(secret) => {
                if is_open(&path) {
                    let shown = path.display();
                    section.warning("secret_file", format!("{shown} can be read by everybody"));
                }
                let algorithm = Algorithm::from_text(algorithm).unwrap_or(Algorithm::Sha256);
                keys.extend(Key::new(&name, algorithm, &secret));
            }
            Err(problem) => section.error("secret_file", format!("{}: {problem}", path.display())),
        }
    }
    Keys::new(keys)
}

/// The secret in a file: base64, white space ignored.
fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text: String = text.split_whitespace().collect();
    let secret = domain::utils::base64::decode::<Vec<u8>>(&text);
    let secret = secret.map_err(|error| format!("expected a secret in base64: {error}"))?;
    if secret.len() < SECRET_MIN {
        let found = secret.len();
        return Err(format!(
            "found a secret of {found} bytes, expected at least {SECRET_MIN}"
        ));
    }
    Ok(secret)
}

fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

/// Shorter secrets can be guessed.
const SECRET_MIN: usize = 8;
