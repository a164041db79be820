//! Chunks that other nodes say are on their way to them. Pure.
//!
//! Who believes a claim does not ask the origin for the chunk but waits until the other has it, so each chunk leaves the
//! origin about once. A claim costs its node nothing, so it is believed only for a while, only so many of one node at
//! once, and no more once several were not kept.

use std::collections::HashMap;
use std::time::Duration;

use crate::content::have::Have;
use crate::time::Now;

/// The claims of one node to chunks of one version.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    since: HashMap<u32, Now>,
    broken: u32,
}

impl Claims {
    /// Takes over what the node claims now; `have` is what it holds now.
    pub fn update(&mut self, coming: &[u32], have: &Have, now: Now) {
        let mut since = HashMap::new();
        for &index in coming.iter().take(CLAIMS) {
            let first = self.since.remove(&index).unwrap_or(now);
            since.insert(index, first);
        }
        let broken = self.since.keys().filter(|i| !have.contains(**i)).count();
        self.broken = self
            .broken
            .saturating_add(u32::try_from(broken).unwrap_or(u32::MAX));
        self.since = since;
    }

    /// The chunks that may be waited for.
    #[must_use]
    pub fn believed(&self, now: Now) -> Vec<u32> {
        if self.broken >= BROKEN {
            return Vec::new();
        }
        let young = self.since.iter().filter(|(_, s)| now.since(**s) < BELIEVED);
        young.map(|(index, _)| *index).collect()
    }
}

/// How long a claim is believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// Claims of one node at once.
const CLAIMS: usize = 64;

/// After so many claims that were not kept, none of the node's is believed.
const BROKEN: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    #[test]
    fn claim_is_believed_until_it_is_old() {
        let (mut claims, have) = (Claims::default(), Have::empty(9));
        claims.update(&[3, 5], &have, START);
        let mut believed = claims.believed(START);
        believed.sort_unstable();
        assert_eq!(believed, [3, 5]);
        let later = START.plus(Duration::from_secs(9));
        claims.update(&[3, 7], &have, later);
        assert_eq!(claims.believed(START.plus(BELIEVED)), [7]);
    }

    #[test]
    fn node_that_claims_everything_is_believed_a_little() {
        let (mut claims, have) = (Claims::default(), Have::empty(1_000));
        let all: Vec<u32> = (0..1_000).collect();
        claims.update(&all, &have, START);
        assert_eq!(claims.believed(START).len(), CLAIMS);
    }

    #[test]
    fn node_that_does_not_keep_its_claims_is_not_believed() {
        let mut claims = Claims::default();
        let mut have = Have::empty(1_000);
        for index in 0..100 {
            claims.update(&[index], &have, START);
            have.insert(index); // It keeps what it claims.
        }
        assert_eq!(claims.believed(START), [99]);
        for index in 100..100 + BROKEN {
            assert_eq!(claims.believed(START).len(), 1);
            claims.update(&[index], &have, START);
        }
        claims.update(&[900], &have, START);
        assert!(claims.believed(START).is_empty());
    }
}
