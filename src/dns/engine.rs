//! The engine: one packet in, one answer out, for every transport.
//!
//! Fast path ([`Snapshot::fast`]): parse, access list, own zones, cache; synchronous and without
//! allocation. Slow path ([`Engine::slow`]): resolve, on a bounded task of the front. The zones are read from the
//! snapshot the [`Keeper`] has in service.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::Guard;

use super::answer::{self, Action, View};
use super::keeper::Keeper;
use super::resolver::Resolver;
use super::resolver::near::Near;
use super::wire::{self, Ede, Query, Rcode, Reason, Reject};
use super::zone::Zones;
use super::{Config, Outcome, Transport};
use crate::time::Now;

/// What the fast path says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fast {
    /// `out[..len]` is the answer.
    Respond {
        /// Bytes of the answer.
        len: usize,
        /// How it is counted.
        outcome: Outcome,
    },
    /// To be resolved on the slow path.
    Slow,
    /// No answer.
    Drop,
}

/// Zones, resolver and limits behind one handle.
#[derive(Debug)]
pub struct Engine {
    keeper: Arc<Keeper>,
    resolver: Option<Resolver>,
    udp_payload: u16,
}

impl Engine {
    /// An engine that answers from the zones of `keeper`, and for other names by `resolver`.
    #[must_use]
    pub fn new(config: &Config, keeper: Arc<Keeper>, resolver: Option<Resolver>) -> Self {
        Self {
            keeper,
            resolver,
            udp_payload: config.udp_payload,
        }
    }

    /// The zones.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// The resolver, unless off.
    #[must_use]
    pub fn resolver(&self) -> Option<&Resolver> {
        self.resolver.as_ref()
    }

    /// The zones of this instant. Take one per batch: all its answers are of one version.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            engine: self,
            zones: self.keeper.serving(),
            near: None,
        }
    }

    /// A table of copies of cached answers for one of `workers` threads; `None` without a resolver.
    #[must_use]
    pub fn near(&self, workers: usize) -> Option<Near> {
        Some(self.resolver.as_ref()?.cache().near(workers))
    }

    /// Resolves a packet the fast path declined; the whole answer is in `out`, empty if there is none.
    pub async fn slow(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(Reject::Drop) => return Outcome::Dropped,
            Err(Reject::Error(_) | Reject::CookieOnly(_)) => {
                return owned(out, |out| error(packet, Rcode::FormErr, out));
            }
        };
        match &self.resolver {
            Some(resolver) if resolver.allows(client) => {
                // The one budget of this client query: whatever it sets off spends from it.
                let budget = resolver.budget();
                let limit = self.limit(&query, transport);
                resolver.resolve(&query, limit, &budget, out).await
            }
            _ => owned(out, |out| code(&query, Rcode::Refused, PROHIBITED, out)),
        }
    }

    /// Bytes an answer may have.
    fn limit(&self, query: &Query<'_>, transport: Transport) -> usize {
        match transport {
            Transport::Udp => wire::udp_limit(query, self.udp_payload),
            Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => MESSAGE_MAX,
        }
    }
}

/// The engine with the zones of one instant.
#[derive(Debug)]
pub struct Snapshot<'e> {
    engine: &'e Engine,
    zones: Guard<Arc<Zones>>,
    near: Option<&'e mut Near>,
}

impl<'e> Snapshot<'e> {
    /// This snapshot with the copies of cached answers that the thread has of its own ([`Engine::near`]).
    #[must_use]
    pub fn with(self, near: Option<&'e mut Near>) -> Self {
        Self { near, ..self }
    }

    /// Answers a packet from own zones or the cache, if that is possible at once. `out` must hold the
    /// largest answer of the transport (`udp_payload`, 65,535 bytes); `seed` rotates addresses.
    #[must_use]
    pub fn fast(
        &mut self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now,
        seed: u64,
        out: &mut [u8],
    ) -> Fast {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(Reject::Drop) => return Fast::Drop,
            Err(Reject::Error(rcode)) => return error(packet, rcode, out),
            Err(Reject::CookieOnly(_)) => return error(packet, Rcode::FormErr, out),
        };
        if self.zones.is_unavailable(query.name) {
            return code(&query, Rcode::ServFail, NOT_LOADED, out);
        }
        let cache = match &self.engine.resolver {
            Some(resolver) if resolver.allows(client) => {
                Some((resolver.cache(), resolver.partition(query.name)))
            }
            _ => None,
        };
        let view = View {
            zones: &self.zones,
            cache,
        };
        let limit = self.engine.limit(&query, transport).min(out.len());
        let near = self.near.as_deref_mut();
        match answer::answer_near(&query, view, near, now, seed, limit, out) {
            Action::Respond {
                outcome: Outcome::Dropped,
                ..
            } => Fast::Drop,
            Action::Respond { len, outcome } => Fast::Respond { len, outcome },
            Action::Recurse => Fast::Slow,
        }
    }
}

/// An answer that is only a code to a packet that is no query; none to one without a header.
pub(super) fn error(packet: &[u8], rcode: Rcode, out: &mut [u8]) -> Fast {
    let reason = (rcode == Rcode::NotImp).then_some(Ede::NotSupported.into());
    respond(wire::error(packet, rcode, reason, out), rcode)
}

/// An answer that is only a code.
pub(super) fn code(query: &Query<'_>, rcode: Rcode, reason: Reason, out: &mut [u8]) -> Fast {
    respond(wire::code(query, rcode, Some(reason), out), rcode)
}

fn respond(len: usize, rcode: Rcode) -> Fast {
    match len {
        0 => Fast::Drop,
        len => Fast::Respond {
            len,
            outcome: outcome_of(rcode),
        },
    }
}

/// Has an answer that is only a code written to a vector.
fn owned(out: &mut Vec<u8>, write: impl FnOnce(&mut [u8]) -> Fast) -> Outcome {
    out.clear();
    out.resize(wire::CODE_LEN_MAX, 0);
    let (len, outcome) = match write(out) {
        Fast::Respond { len, outcome } => (len, outcome),
        _ => (0, Outcome::Dropped),
    };
    out.truncate(len);
    outcome
}

/// How an answer that is only a code is counted.
fn outcome_of(rcode: Rcode) -> Outcome {
    match rcode {
        Rcode::FormErr => Outcome::Formerr,
        Rcode::NotImp => Outcome::Notimp,
        Rcode::Refused | Rcode::NotAuth | Rcode::NotZone => Outcome::Refused,
        Rcode::BadVers => Outcome::Badvers,
        _ => Outcome::Servfail,
    }
}

const PROHIBITED: Reason = Reason::new(Ede::Prohibited, "recursion is not for this client");
const NOT_LOADED: Reason = Reason::new(Ede::NotReady, "the zone is not in service");

/// The largest message: its length has 16 bits.
pub(super) const MESSAGE_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use crate::metrics::Metrics;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn zone_not_loaded_is_servfail_beneath_its_apex_only() {
        let zones = vec![ZoneConfig {
            name: "missing.test.".to_owned(),
            ..ZoneConfig::default()
        }];
        let keeper = Arc::new(Keeper::new(zones, Arc::new(Metrics::new())));
        let config = crate::dns::front::tests::config();
        let engine = Engine::new(&config, keeper, None);
        let check = |name: &[u8], expected| {
            let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            packet.extend_from_slice(name);
            packet.extend_from_slice(&[0, 1, 0, 1]);
            let mut out = [0; 1232];
            let now = Now {
                mono_ns: 1,
                unix_ms: 1,
            };
            let mut snapshot = engine.snapshot();
            let fast = snapshot.fast(&packet, CLIENT, Transport::Udp, now, 0, &mut out);
            match fast {
                Fast::Respond { outcome, .. } => assert_eq!(outcome, expected, "{name:?}"),
                other => panic!("{name:?}: {other:?}, expected {expected:?}"),
            }
        };
        check(b"\x07Missing\x04test\0", Outcome::Servfail);
        check(b"\x01x\x01y\x07missing\x04test\0", Outcome::Servfail);
        check(b"\x0anotmissing\x04test\0", Outcome::Refused);
        check(b"\x04test\0", Outcome::Refused);
    }
}
