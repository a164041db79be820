//! Server cookies (RFC 7873), made as RFC 9018 says, so that servers of one address can share a secret.
//!
//! A cookie proves that its client can read what is sent to its address: who has one may ask for more.

pub mod file;

use std::fmt;
use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::wire::{CLIENT_COOKIE, Cookie, SERVER_COOKIE};
use crate::time::Now;

/// Makes cookies with its first secret, and knows those made with any of its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookies {
    /// One to [`SECRETS_MAX`].
    secrets: Vec<Secret>,
}

/// A secret.
pub type Secret = [u8; 16];

/// What a client's cookie is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The server's part of the client's next cookie.
    pub server: [u8; SERVER_COOKIE],
    /// The client had it from here not long ago, so its address is its own.
    pub valid: bool,
}

impl Cookies {
    /// Cookies of one secret.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secrets: vec![secret],
        }
    }

    /// Reads secrets: one a line, 32 hexadecimal digits each, the one to make cookies with first. Empty lines and
    /// lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// The line, what was found there (never a secret) and what was expected.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let secret = from_hex(line).ok_or_else(|| {
                format!(
                    "{}: found {} characters that are no secret, expected 32 hexadecimal digits",
                    number + 1,
                    line.chars().count()
                )
            })?;
            secrets.push(secret);
        }
        if !(1..=SECRETS_MAX).contains(&secrets.len()) {
            let found = secrets.len();
            return Err(format!(
                "found {found} secrets, expected 1 to {SECRETS_MAX}"
            ));
        }
        Ok(Self { secrets })
    }

    /// A secret in the form that [`Cookies::from_text`] reads.
    #[must_use]
    pub fn to_line(secret: &Secret) -> String {
        let mut line: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        line.push('\n');
        line
    }

    /// Checks the cookie of a client at `address`, and gives the next one. A good one serves for half an hour
    /// before it is replaced (RFC 9018 section 4.3).
    #[must_use]
    pub fn check(&self, cookie: Cookie<'_>, address: IpAddr, now: Now) -> Checked {
        let now = (now.unix_ms / 1000) as u32; // Serial numbers of 32 bits, RFC 1982.
        if let Ok(server) = <[u8; SERVER_COOKIE]>::try_from(cookie.server)
            && let Some(age) = age(&server, now)
            && let Some(place) = self.secrets.iter().position(|secret| {
                let [head @ .., _, _, _, _, _, _, _, _] = &server;
                is_equal(&hash(secret, cookie.client, head, address), &server[8..])
            })
        {
            let server = if place == 0 && age < RENEW_SECS {
                server
            } else {
                self.make(cookie.client, address, now)
            };
            return Checked {
                server,
                valid: true,
            };
        }
        Checked {
            server: self.make(cookie.client, address, now),
            valid: false,
        }
    }

    fn make(&self, client: &[u8; CLIENT_COOKIE], address: IpAddr, now: u32) -> [u8; SERVER_COOKIE] {
        let mut server = [VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        server[4..8].copy_from_slice(&now.to_be_bytes());
        let [head @ .., _, _, _, _, _, _, _, _] = &server;
        // There is a first: `new` and `from_text` see to it.
        let hash = hash(&self.secrets[0], client, head, address);
        server[8..].copy_from_slice(&hash);
        server
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies")
            .field("secrets", &self.secrets.len())
            .finish()
    }
}

/// Seconds since the cookie was made; `None`: it is of another kind, too old, or too far in the future.
fn age(server: &[u8; SERVER_COOKIE], now: u32) -> Option<u32> {
    let [VERSION, _, _, _, t0, t1, t2, t3, ..] = *server else {
        return None;
    };
    let age = now.wrapping_sub(u32::from_be_bytes([t0, t1, t2, t3])) as i32;
    (-FUTURE_SECS..=LIFE_SECS)
        .contains(&age)
        .then_some(age.max(0) as u32)
}

fn hash(secret: &Secret, client: &[u8], head: &[u8], address: IpAddr) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(client);
    hasher.write(head);
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.finish().to_le_bytes()
}

/// Compares without telling by the time it takes where the difference is.
fn is_equal(one: &[u8; 8], other: &[u8]) -> bool {
    one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn from_hex(text: &str) -> Option<Secret> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// Secrets known at once.
pub const SECRETS_MAX: usize = 4;

const VERSION: u8 = 1;

/// How long a cookie is good, and how far its clock may be ahead, seconds (RFC 9018 section 4.3).
const LIFE_SECS: i32 = 3_600;
const FUTURE_SECS: i32 = 300;
const RENEW_SECS: u32 = 1_800;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 8] = [0x24, 0x64, 0xC4, 0xAB, 0xCF, 0x10, 0xC9, 0x57];
    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 100));

    fn at(unix: u64) -> Now {
        Now {
            mono_ns: 0,
            unix_ms: unix * 1000,
        }
    }

    fn cookie(server: &[u8]) -> Cookie<'_> {
        Cookie {
            client: &CLIENT,
            server,
        }
    }

    /// The examples of RFC 9018, appendix A.
    #[test]
    fn cookies_are_those_of_the_standard() {
        let cookies = Cookies::from_text(SECRET).unwrap();
        let learnt = cookies.check(cookie(&[]), ADDRESS, at(1_559_731_985));
        let expected = [
            1, 0, 0, 0, 0x5C, 0xF7, 0x9F, 0x11, 0x1F, 0x81, 0x30, 0xC3, 0xEE, 0xE2, 0x94, 0x80,
        ];
        assert_eq!((learnt.server, learnt.valid), (expected, false));
        let cookies = Cookies::from_text(
            "445536bcd2513298075a5d379663c962\ndd3bdf9344b678b185a6f5cb60fca715",
        )
        .unwrap();
        let address = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let client = [0x22, 0x68, 0x1A, 0xB9, 0x7D, 0x52, 0xC2, 0x98];
        let old = [
            1, 0, 0, 0, 0x5C, 0xF7, 0xC5, 0x79, 0x26, 0x55, 0x6B, 0xD0, 0x93, 0x4C, 0x72, 0xF8,
        ];
        let theirs = Cookie {
            client: &client,
            server: &old,
        };
        let renewed = cookies.check(theirs, address, at(1_559_741_961));
        let expected = [
            1, 0, 0, 0, 0x5C, 0xF7, 0xC6, 0x09, 0xA6, 0xBB, 0x79, 0xD1, 0x66, 0x25, 0x50, 0x7A,
        ];
        assert_eq!(
            (renewed.server, renewed.valid),
            (expected, true),
            "made with the older secret"
        );
    }

    #[test]
    fn cookie_serves_its_address_for_an_hour_and_is_renewed_after_half() {
        let cookies = Cookies::new([7; 16]);
        let given = cookies.check(cookie(&[]), ADDRESS, at(10_000)).server;
        let check = |address, unix| cookies.check(cookie(&given), address, at(unix));
        assert_eq!(
            check(ADDRESS, 11_799),
            Checked {
                server: given,
                valid: true
            }
        );
        let later = check(ADDRESS, 11_800);
        assert!(later.valid && later.server != given);
        assert!(check(ADDRESS, 13_600).valid);
        assert!(!check(ADDRESS, 13_601).valid);
        assert!(check(ADDRESS, 9_700).valid, "a clock that was set back");
        assert!(!check(ADDRESS, 9_699).valid);
        assert!(!check("198.51.100.101".parse().unwrap(), 10_000).valid);
        let mut forged = given;
        forged[15] ^= 1;
        assert!(!cookies.check(cookie(&forged), ADDRESS, at(10_000)).valid);
        assert!(
            !cookies
                .check(cookie(&given[..8]), ADDRESS, at(10_000))
                .valid
        );
    }

    #[test]
    fn secrets_are_read_by_line_and_never_shown() {
        let line = Cookies::to_line(&[0xAB; 16]);
        let text = format!("# first\n{line}\n{SECRET}\n");
        let cookies = Cookies::from_text(&text).unwrap();
        assert_eq!(cookies.secrets.len(), 2);
        assert_eq!(cookies.secrets[0], [0xAB; 16]);
        assert_eq!(format!("{cookies:?}"), "Cookies { secrets: 2 }");
        let error = Cookies::from_text(&format!("{SECRET}\n{}", &SECRET[1..])).unwrap_err();
        assert_eq!(
            error,
            "2: found 31 characters that are no secret, expected 32 hexadecimal digits"
        );
        assert_eq!(
            Cookies::from_text("").unwrap_err(),
            "found 0 secrets, expected 1 to 4"
        );
    }
}
