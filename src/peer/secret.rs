//! What nodes that share a secret prove to each other.
//!
//! A request carries `Authorization: Headwater TIME.RUN.NUMBER.MAC`: milliseconds since 1970, a number drawn when the
//! asker started, one that goes up with each request, and a keyed BLAKE3 digest of all of them with method and target.
//! It counts once, within [`WINDOW`] of the asked node's clock: [`Gate`] remembers which numbers of each run were seen,
//! as IPsec does (RFC 4303 section 3.4.3), so what it keeps does not grow with the requests. The answer carries
//! `Headwater-Proof`, the same of the request's digest, so a node that does not know the secret is noticed at once.
//! Bodies are not covered: chunks and manifests are checked by their digests, whoever sent them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blake3::Hash;

use super::window::Window;
use crate::time::Now;

/// The field of an answer that proves that its sender knows the secret.
pub const PROOF: &str = "headwater-proof";

/// How far the clocks of two nodes may be apart.
pub const WINDOW: Duration = Duration::from_secs(60);

/// What all nodes of a swarm know.
#[derive(Clone)]
pub struct Secret {
    key: [u8; 32],
}

/// Signs the requests of one run of a node.
#[derive(Debug)]
pub struct Signer {
    secret: Secret,
    run: u64,
    number: AtomicU64,
}

/// A signed request: the field it carries, and what the answer to it must carry.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Value of `Authorization`.
    pub field: String,
    expected: Hash,
}

/// Lets in who knows the secret, once with each request.
#[derive(Debug)]
pub struct Gate {
    secret: Secret,
    runs: Mutex<HashMap<u64, Run>>,
    most: usize,
}

/// One run of a node: which of its numbers were seen, and when the last came.
#[derive(Clone, Debug)]
struct Run {
    window: Window,
    last: Now,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It carries no proof, or one of another shape.
    #[error("no proof that the secret is known")]
    Unsigned,
    /// The proof is another secret's, or another request's.
    #[error("a wrong proof")]
    Wrong,
    /// The clocks are too far apart, or it is an old request.
    #[error("a proof of another time: found one more than 60 s away")]
    Time,
    /// It was seen before.
    #[error("a proof that was used before")]
    Replayed,
    /// More runs of nodes than are remembered.
    #[error("too many nodes at once")]
    Full,
}

impl Secret {
    /// The secret with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            key: blake3::derive_key("headwater 2026 requests between nodes", bytes),
        }
    }

    /// A keyed digest of `parts`, each with its length, for `purpose`.
    #[must_use]
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Hash {
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize()
    }

    fn request(&self, method: &str, target: &str, [time, run, number]: [u64; 3]) -> Hash {
        let parts: [&[u8]; 5] = [
            method.as_bytes(),
            target.as_bytes(),
            &time.to_le_bytes(),
            &run.to_le_bytes(),
            &number.to_le_bytes(),
        ];
        self.digest("request", &parts)
    }

    fn answer(&self, request: &Hash) -> Hash {
        self.digest("answer", &[request.as_bytes()])
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Signer {
    /// Signs with `secret`; `run` is drawn at the start of the node.
    #[must_use]
    pub fn new(secret: Secret, run: u64) -> Self {
        Self {
            secret,
            run,
            number: AtomicU64::new(0),
        }
    }

    /// Signs a request for `target` (path and query).
    #[must_use]
    pub fn sign(&self, method: &str, target: &str, now: Now) -> Signed {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (time, run) = (now.unix_ms, self.run);
        let mac = self.secret.request(method, target, [time, run, number]);
        Signed {
            field: format!("{SCHEME}{time}.{run:016x}.{number}.{}", mac.to_hex()),
            expected: self.secret.answer(&mac),
        }
    }
}

impl Signed {
    /// Whether an answer with this proof comes from a node that knows the secret. Compares in constant time.
    #[must_use]
    pub fn is_answered_by(&self, proof: &str) -> bool {
        Hash::from_hex(proof).is_ok_and(|proof| proof == self.expected)
    }
}

impl Gate {
    /// Lets in who knows `secret`; remembers `most` runs of nodes.
    #[must_use]
    pub fn new(secret: Secret, most: usize) -> Self {
        Self {
            secret,
            runs: Mutex::default(),
            most,
        }
    }

    /// Judges a request by its `Authorization`; returns the proof its answer is to carry.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn admit(
        &self,
        method: &str,
        target: &str,
        field: Option<&str>,
        now: Now,
    ) -> Result<String, Refused> {
        let text = field
            .and_then(|f| f.strip_prefix(SCHEME))
            .ok_or(Refused::Unsigned)?;
        let ([time, run, number], mac) = read(text).ok_or(Refused::Unsigned)?;
        let expected = self.secret.request(method, target, [time, run, number]);
        if expected != mac {
            return Err(Refused::Wrong);
        }
        if now.unix_ms.abs_diff(time) > WINDOW.as_millis() as u64 {
            return Err(Refused::Time);
        }
        self.once(run, number, now)?;
        Ok(self.secret.answer(&expected).to_hex().to_string())
    }

    fn once(&self, run: u64, number: u64, now: Now) -> Result<(), Refused> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() >= self.most && !runs.contains_key(&run) {
            // Only those whose every request is too old by now may be forgotten.
            runs.retain(|_, run| now.since(run.last) <= WINDOW * 2);
            if runs.len() >= self.most {
                return Err(Refused::Full);
            }
        }
        let seen = runs.entry(run).or_insert(Run {
            window: Window::new(number),
            last: now,
        });
        seen.last = now;
        if seen.window.take(number) {
            Ok(())
        } else {
            Err(Refused::Replayed)
        }
    }
}

fn read(text: &str) -> Option<([u64; 3], Hash)> {
    let mut parts = text.split('.');
    let time = parts.next()?.parse().ok()?;
    let run = u64::from_str_radix(parts.next()?, 16).ok()?;
    let number = parts.next()?.parse().ok()?;
    let mac = Hash::from_hex(parts.next()?).ok()?;
    parts.next().is_none().then_some(([time, run, number], mac))
}

/// The scheme of the field.
const SCHEME: &str = "Headwater ";

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 1_000_000_000_000,
        unix_ms: 1_700_000_000_000,
    };

    fn pair() -> (Signer, Gate) {
        let secret = Secret::new(b"one two three");
        (Signer::new(secret.clone(), 7), Gate::new(secret, 4))
    }

    fn admit(gate: &Gate, target: &str, field: &str, now: Now) -> Result<String, Refused> {
        gate.admit("GET", target, Some(field), now)
    }

    #[test]
    fn signed_request_is_admitted_once_and_its_answer_proved() {
        let (signer, gate) = pair();
        let signed = signer.sign("GET", "/a", START);
        let proof = admit(&gate, "/a", &signed.field, START).unwrap();
        assert!(signed.is_answered_by(&proof));
        assert!(!signer.sign("GET", "/a", START).is_answered_by(&proof));
        let again = admit(&gate, "/a", &signed.field, START);
        assert_eq!(again, Err(Refused::Replayed));
    }

    #[test]
    fn request_with_anything_changed_is_refused() {
        let (signer, gate) = pair();
        let field = signer.sign("GET", "/a", START).field;
        assert_eq!(admit(&gate, "/b", &field, START), Err(Refused::Wrong));
        let head = gate.admit("HEAD", "/a", Some(&field), START);
        assert_eq!(head, Err(Refused::Wrong));
        let other = field.replacen(".0000000000000007.0.", ".0000000000000007.1.", 1);
        assert_eq!(admit(&gate, "/a", &other, START), Err(Refused::Wrong));
        let stranger = Signer::new(Secret::new(b"one two thre"), 7);
        let field = stranger.sign("GET", "/a", START).field;
        assert_eq!(admit(&gate, "/a", &field, START), Err(Refused::Wrong));
        for bad in [
            "",
            "Headwater 1.2.3",
            "Bearer x",
            "Headwater ....",
            "Headwater 1.2.3.4.5",
        ] {
            assert_eq!(
                admit(&gate, "/a", bad, START),
                Err(Refused::Unsigned),
                "{bad}"
            );
        }
        assert_eq!(gate.admit("GET", "/a", None, START), Err(Refused::Unsigned));
    }

    #[test]
    fn request_of_another_time_is_refused() {
        let (signer, gate) = pair();
        for (apart, expected) in [(60, true), (61, false)] {
            let now = START.plus(Duration::from_secs(apart));
            let late = admit(&gate, "/", &signer.sign("GET", "/", START).field, now);
            assert_eq!(late.is_ok(), expected, "{late:?}");
            let early = admit(&gate, "/", &signer.sign("GET", "/", now).field, START);
            assert_eq!(early.is_ok(), expected, "{early:?}");
        }
    }

    #[test]
    fn runs_beyond_the_bound_are_refused_until_old_ones_are_forgotten() {
        let secret = Secret::new(b"x");
        let gate = Gate::new(secret.clone(), 4);
        let ask = |run, now| {
            let field = Signer::new(secret.clone(), run).sign("GET", "/", now).field;
            admit(&gate, "/", &field, now).map(drop)
        };
        for run in 0..4 {
            assert_eq!(ask(run, START), Ok(()));
        }
        assert_eq!(ask(9, START), Err(Refused::Full));
        let later = START.plus(WINDOW * 2 + Duration::from_millis(1));
        assert_eq!(ask(9, later), Ok(()));
    }
}
