//! The users file: who may log in, where their files lie, and whether they may write.
//!
//! One user a line, `name:password:home:rights`, as in `press:pbkdf2-sha256$600000$SALT$HASH:/press/:rw`; `#` begins a
//! comment. `headwater ftp hash` makes the second field (PBKDF2 with HMAC-SHA-256; salt and hash in hexadecimal).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;

use ring::pbkdf2;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name of the login.
    pub name: String,
    /// URL path prefix the user sees as its root; begins and ends with `/`.
    pub home: String,
    /// May put, rename and delete.
    pub write: bool,
}

/// All users.
#[derive(Debug, Default)]
pub struct Users(HashMap<String, (User, Hash)>);

#[derive(Clone, Debug)]
struct Hash {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Users {
    /// Reads the text of a users file.
    ///
    /// # Errors
    /// The line, what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: &str| format!("line {number}: {what}");
            let fields: Vec<_> = line.split(':').collect();
            let [name, password, home, rights] = fields[..] else {
                let found = fields.len();
                return Err(at(&format!(
                    "found {found} fields, expected name:password:home:rights"
                )));
            };
            if name.is_empty() || users.len() >= USERS {
                return Err(at("expected a name, and at most 10000 users"));
            }
            let hash = Hash::parse(password)
                .ok_or_else(|| at("expected a password as `headwater ftp hash` prints it"))?;
            if !home.starts_with('/')
                || !home.ends_with('/')
                || home.contains("/.")
                || home.contains("//")
            {
                return Err(at(&format!(
                    "found home {home:?}, expected a prefix such as \"/press/\""
                )));
            }
            let write = match rights {
                "rw" => true,
                "r" => false,
                _ => {
                    return Err(at(&format!(
                        "found rights {rights:?}, expected \"r\" or \"rw\""
                    )));
                }
            };
            let user = User {
                name: name.to_owned(),
                home: home.to_owned(),
                write,
            };
            if users.insert(name.to_owned(), (user, hash)).is_some() {
                return Err(at(&format!(
                    "found {name:?} a second time, expected it once"
                )));
            }
        }
        Ok(Self(users))
    }

    /// The user, if the password is right. A name that is not known takes as long as one that is.
    #[must_use]
    pub fn check(&self, name: &str, password: &str) -> Option<&User> {
        let known = self.0.get(name);
        let other = self.0.values().next().map(|(_, hash)| hash);
        let hash = known.map(|(_, hash)| hash).or(other)?;
        let right = pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            hash.iterations,
            &hash.salt,
            password.as_bytes(),
            &hash.hash,
        );
        known.filter(|_| right.is_ok()).map(|(user, _)| user)
    }

    /// One of them, by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name).map(|(user, _)| user)
    }
}

impl Hash {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("pbkdf2-sha256$")?;
        let [iterations, salt, hash] = rest.split('$').collect::<Vec<_>>().try_into().ok()?;
        let iterations: u32 = iterations.parse().ok()?;
        if !(1_000..=10_000_000).contains(&iterations) {
            return None;
        }
        let (salt, hash) = (unhex(salt)?, unhex(hash)?);
        ((8..=64).contains(&salt.len()) && hash.len() == 32).then_some(())?;
        Some(Self {
            iterations: NonZeroU32::new(iterations)?,
            salt,
            hash,
        })
    }
}

/// The field of a users file for `password`; `salt` are dice.
#[must_use]
pub fn hash(password: &str, salt: [u8; 16], iterations: NonZeroU32) -> String {
    let mut out = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, &salt, password.as_bytes(), &mut out);
    format!("pbkdf2-sha256${iterations}${}${}", hex(&salt), hex(&out))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // To a string: it cannot fail.
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// What OWASP asks of PBKDF2 with HMAC-SHA-256.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("not 0");

const USERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        let few = NonZeroU32::new(1_000).unwrap();
        format!("{name}:{}:/press/:rw\n", hash("geheim", [7; 16], few))
    }

    #[test]
    fn right_password_is_that_user_and_no_other_is() {
        let users = Users::parse(&format!("# people\n{}{}", line("a"), line("b"))).unwrap();
        assert_eq!(users.check("a", "geheim").unwrap().home, "/press/");
        assert!(users.check("a", "Geheim").is_none());
        assert!(users.check("c", "geheim").is_none());
        assert!(Users::default().check("a", "geheim").is_none());
    }

    #[test]
    fn bad_line_is_named() {
        for (text, expected) in [
            ("a:b:/x/".to_owned(), "line 1: found 3 fields"),
            ("\na:plain:/x/:rw".to_owned(), "line 2: expected a password"),
            (
                line("a").replace("/press/", "press"),
                "found home \"press\"",
            ),
            (line("a").replace(":rw", ":w"), "found rights \"w\""),
            (line("a") + &line("a"), "line 2: found \"a\" a second time"),
        ] {
            let error = Users::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
