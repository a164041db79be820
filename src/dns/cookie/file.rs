//! The file the secrets of cookies are in.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Cookies, Secret};

/// Reads the secrets in a file.
///
/// # Errors
/// The file, the line, what was found and what was expected.
pub fn read(path: &Path) -> Result<Cookies, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SIZE_MAX).read_to_string(&mut text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Cookies::from_text(&text).map_err(|problem| format!("{}:{problem}", path.display()))
}

/// As [`read`]; a file that is not there is made first, with a secret of the kernel's dice, readable by its owner only.
///
/// # Errors
/// As [`read`]; and why the file could not be made.
pub fn read_or_make(path: &Path) -> Result<Cookies, String> {
    match make(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("{}: {error}", path.display())),
    }
    read(path)
}

/// A secret of the kernel's dice.
///
/// # Errors
/// What the kernel said.
pub fn dice() -> io::Result<Secret> {
    let mut secret = Secret::default();
    let got = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
    if got != secret.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(secret)
}

fn make(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(Cookies::to_line(&dice()?).as_bytes())?;
    file.sync_all()
}

/// More is no file of secrets.
const SIZE_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secret_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cookie.secret");
        let made = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), made);
        assert_eq!(read(&path).unwrap(), made);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn problem_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cookie.secret");
        assert!(
            read(&path)
                .unwrap_err()
                .starts_with(&path.display().to_string())
        );
        std::fs::write(&path, "\nxyz\n").unwrap();
        let expected = format!("{}:2: found 3 characters", path.display());
        assert!(read_or_make(&path).unwrap_err().starts_with(&expected));
    }
}
