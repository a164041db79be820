//! The engine: one packet in, one answer out, for every transport.
//!
//! Fast path ([`Snapshot::fast`]): parse, access list, own zones, cache; synchronous and without
//! allocation. Slow path ([`Engine::slow`]): resolve, on a bounded task of the front. The zones are read from the
//! snapshot the [`Keeper`] has in service.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};

use super::ahead::Ahead;
use super::answer::{self, Action, Own, View};
use super::chaos::{self, Identity};
use super::cookie::Cookies;
use super::exchange::{self, Exchange};
use super::keeper::Keeper;
use super::log::{Entry, Log, Tap};
use super::resolver::Resolver;
use super::resolver::budget::Budget;
use super::resolver::near::Near;
use super::resolver::policy::{Alias, Policy};
use super::rrl::{self, Equal, Verdict};
use super::wire::{
    self, BLOCK, Ede, Edns, Extra, MALFORMED, OptionsOut, Query, Rcode, Reason, Reject, Writer,
};
use super::zone::Zones;
use super::zone::path::Path;
use super::{Config, Outcome, RateLimit, Transport};
use crate::metrics::Metrics;
use crate::metrics::dns::Limit;
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
    Slow {
        /// The client has shown a cookie of ours.
        proven: bool,
    },
    /// No answer, and how that is counted.
    Drop(Outcome),
}

/// What is known of a client from its query's options.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// It sent a cookie, and gets one.
    cookie: bool,
    /// It sent a good one: its address is its own.
    proven: bool,
    /// What its answer is padded to.
    block: u16,
}

impl Standing {
    fn extra(self, options: &OptionsOut) -> Extra<'_> {
        Extra {
            options: options.as_bytes(),
            block: self.block,
        }
    }
}

/// Zones, resolver and limits behind one handle.
#[derive(Debug)]
pub struct Engine {
    keeper: Arc<Keeper>,
    exchange: Exchange,
    resolver: Option<Resolver>,
    udp_payload: u16,
    identity: Identity,
    cookies: ArcSwapOption<Cookies>,
    cookies_required: bool,
    rate_limit: Option<RateLimit>,
    log: OnceLock<Log>,
    /// How long a stream may be idle, in units of 100 ms.
    keepalive: u16,
    edns_options: usize,
    cname_chain: usize,
}

impl Engine {
    /// An engine that answers from the zones of `keeper`, and for other names by `resolver`.
    #[must_use]
    pub fn new(
        config: &Config,
        keeper: Arc<Keeper>,
        resolver: Option<Resolver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            exchange: Exchange::new(keeper.clone(), config.transfer.clone(), metrics),
            keeper,
            resolver,
            udp_payload: config.udp_payload,
            identity: config.identity.clone(),
            cookies: ArcSwapOption::default(),
            cookies_required: config.cookies.as_ref().is_some_and(|c| c.required),
            rate_limit: config.rate_limit.clone(),
            log: OnceLock::new(),
            keepalive: u16::try_from(config.tcp_idle.as_millis() / 100).unwrap_or(u16::MAX),
            edns_options: config.edns_options,
            cname_chain: config.cname_chain,
        }
    }

    /// The zones.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// What other servers say.
    #[must_use]
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// The resolver, unless off.
    #[must_use]
    pub fn resolver(&self) -> Option<&Resolver> {
        self.resolver.as_ref()
    }

    /// Has all queries from now on go to `log` (or a share of them, as it is set). Once.
    pub fn set_log(&self, log: Log) {
        // A second log would leave the first without queries; nobody sets two.
        let _ = self.log.set(log);
    }

    /// The query log, unless off.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.get()
    }

    /// The zones of this instant. Take one per batch: all its answers are of one version.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            engine: self,
            zones: self.keeper.serving(),
            policy: self.resolver.as_ref().map(Resolver::policy),
            near: None,
            buckets: None,
            log: self.log.get().map_or(Sink::None, Sink::Shared),
        }
    }

    /// A table of copies of cached answers for one of `workers` threads; `None` without a resolver.
    #[must_use]
    pub fn near(&self, workers: usize) -> Option<Near> {
        Some(self.resolver.as_ref()?.cache().near(workers))
    }

    /// Puts these secrets in service; `None`: cookies are ignored.
    pub fn set_cookies(&self, cookies: Option<Cookies>) {
        self.cookies.store(cookies.map(Arc::new));
    }

    /// The buckets of the rate limit for one thread; `None`: off.
    #[must_use]
    pub fn rate_limit(&self) -> Option<rrl::Table> {
        let limit = self.rate_limit.as_ref()?;
        Some(rrl::Table::new(limit.rate, limit.buckets))
    }

    /// Resolves a packet the fast path declined; the whole answer is in `out`, empty if there is none.
    pub async fn slow(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(log) = self.log.get() else {
            return self.slow_unlogged(packet, client, transport, out).await;
        };
        let received = Now::read();
        let outcome = self.slow_unlogged(packet, client, transport, out).await;
        log.put(&Entry {
            received,
            client,
            transport,
            outcome,
            query: packet,
            answer: out,
        });
        outcome
    }

    async fn slow_unlogged(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let now = Now::read();
        if Exchange::concerns(packet) {
            let outcome;
            // Boxed, as what follows: a query that only wants an upstream asked has no use for the room.
            let answer = Box::pin(self.exchange.answer(packet, client, transport, now));
            (*out, outcome) = answer.await;
            return outcome;
        }
        // The fast path declines no others but good queries.
        let Ok(mut query) = Query::parse_within(packet, self.edns_options) else {
            return Outcome::Dropped;
        };
        let limit = self.limit(&query, transport);
        if query.tsig.is_some() {
            return Box::pin(self.signed(packet, client, transport, limit, out)).await;
        }
        let mut options = OptionsOut::new();
        let standing = self.options(query.edns, packet, client, transport, now, &mut options);
        query.extra = standing.extra(&options);
        self.resolve(&query, client, limit, out).await
    }

    async fn resolve(
        &self,
        query: &Query<'_>,
        client: IpAddr,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match &self.resolver {
            Some(resolver) if resolver.allows(client) => {
                // The one budget of this client query: whatever it sets off spends from it.
                let budget = resolver.budget();
                let alias = resolver.policy().alias(query);
                match alias {
                    None => resolver.resolve(query, limit, &budget, out).await,
                    Some(alias) => {
                        let answer = self.alias(&alias, query, client, limit, &budget, out);
                        Box::pin(answer).await
                    }
                }
            }
            _ => {
                out.resize(wire::CODE_LEN_MAX, 0);
                let len = wire::code(query, Rcode::Refused, Some(PROHIBITED), out);
                out.truncate(len);
                Outcome::Refused
            }
        }
    }

    /// Answers with a local CNAME and whatever its target has, here or elsewhere.
    async fn alias(
        &self,
        alias: &Alias,
        query: &Query<'_>,
        client: IpAddr,
        limit: usize,
        budget: &Budget,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let packet = alias.query(query);
        let mut answer = vec![0; MESSAGE_MAX];
        let now = Now::read();
        let asked = Asked {
            path: None,
            client,
            transport: Transport::Tcp,
            now,
            seed: now.mono_ns,
        };
        let fast = self.snapshot().decide(&packet, asked, &mut answer);
        let outcome = match (fast, &self.resolver, Query::parse(&packet)) {
            (Fast::Respond { len, outcome }, ..) => {
                answer.truncate(len);
                outcome
            }
            (Fast::Slow { .. }, Some(resolver), Ok(query)) => {
                resolver
                    .resolve(&query, MESSAGE_MAX, budget, &mut answer)
                    .await
            }
            _ => Outcome::Dropped,
        };
        match alias.join(query, &answer, limit) {
            Some(joined) if outcome != Outcome::Dropped => {
                *out = joined;
                outcome
            }
            _ => {
                out.resize(wire::CODE_LEN_MAX, 0);
                let len = wire::code(query, Rcode::ServFail, Some(Ede::Other.into()), out);
                out.truncate(len);
                Outcome::Servfail
            }
        }
    }

    /// What the options of a query give rise to: options for its answer, and what is known of the client.
    fn options(
        &self,
        edns: Option<Edns>,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now,
        out: &mut OptionsOut,
    ) -> Standing {
        let mut standing = Standing::default();
        let Some(Edns { options, .. }) = edns else {
            return standing;
        };
        if options.nsid() && !self.identity.name.is_empty() {
            out.nsid(self.identity.name.as_bytes());
        }
        if let Some(cookie) = options.cookie(packet)
            && let Some(cookies) = &*self.cookies.load()
        {
            let checked = cookies.check(cookie, client, now);
            out.cookie(cookie.client, &checked.server);
            standing.cookie = true;
            standing.proven = checked.valid;
        }
        if options.keepalive() && matches!(transport, Transport::Tcp | Transport::Tls) {
            out.keepalive(self.keepalive);
        }
        if options.padding() && transport.is_encrypted() {
            standing.block = BLOCK;
        }
        standing
    }

    /// Whether the rate limit leaves this client alone.
    #[cold]
    fn is_exempt(&self, client: IpAddr) -> bool {
        let exempt = self.rate_limit.as_ref().map(|limit| &limit.exempt);
        exempt.is_some_and(|networks| networks.iter().any(|n| n.contains(client)))
    }

    /// Answers a query that is signed, and signs the answer.
    async fn signed(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let now = Now::read();
        let signed = match self.exchange.signed(packet, now) {
            Ok(signed) => signed,
            Err((answer, outcome)) => {
                *out = answer;
                return outcome;
            }
        };
        let limit = limit.saturating_sub(signed.room()).max(wire::CODE_LEN_MAX);
        out.resize(limit, 0);
        let asked = Asked {
            path: None,
            client,
            transport,
            now,
            seed: now.mono_ns,
        };
        let fast = self.snapshot().decide(&signed.packet, asked, out);
        let outcome = match (fast, Query::parse(&signed.packet)) {
            (Fast::Respond { len, outcome }, _) => {
                out.truncate(len);
                outcome
            }
            (Fast::Slow { .. }, Ok(query)) => self.resolve(&query, client, limit, out).await,
            _ => {
                out.clear();
                Outcome::Dropped
            }
        };
        if !out.is_empty() {
            signed.sign(out, now);
        }
        outcome
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
    policy: Option<Guard<Arc<Policy>>>,
    near: Option<&'e mut Near>,
    buckets: Option<&'e mut rrl::Table>,
    log: Sink<'e>,
}

/// Where exchanges are logged.
#[derive(Debug)]
enum Sink<'e> {
    None,
    /// A ring of the thread's own.
    Own(&'e mut Tap),
    /// The ring of all who have none.
    Shared(&'e Log),
}

impl<'e> Snapshot<'e> {
    /// This snapshot with what the thread has of its own: copies of cached answers ([`Engine::near`]), and the buckets
    /// of the rate limit for what it answers over UDP ([`Engine::rate_limit`]).
    #[must_use]
    pub fn with(self, near: Option<&'e mut Near>, buckets: Option<&'e mut rrl::Table>) -> Self {
        Self {
            near,
            buckets,
            ..self
        }
    }

    /// This snapshot with a ring of the thread's own for the query log ([`Log::tap`]).
    #[must_use]
    pub fn logging(self, tap: Option<&'e mut Tap>) -> Self {
        match tap {
            Some(tap) => Self {
                log: Sink::Own(tap),
                ..self
            },
            None => self,
        }
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
        self.fast_at(packet, None, client, transport, now, seed, out)
    }

    /// As [`fast`](Self::fast), with the path of the question's name, if that is at hand ([`Ahead`](super::ahead::Ahead)).
    #[expect(clippy::too_many_arguments, reason = "a query, and how it came")]
    pub(super) fn fast_at(
        &mut self,
        packet: &[u8],
        path: Option<&Path>,
        client: IpAddr,
        transport: Transport,
        now: Now,
        seed: u64,
        out: &mut [u8],
    ) -> Fast {
        let asked = Asked {
            path,
            client,
            transport,
            now,
            seed,
        };
        let fast = self.decide(packet, asked, out);
        if !matches!(self.log, Sink::None) {
            self.put(fast, packet, client, transport, now, out);
        }
        fast
    }

    /// Leaves what was decided in the query log; what goes the slow way is logged there.
    #[cold]
    fn put(
        &mut self,
        fast: Fast,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        received: Now,
        out: &[u8],
    ) {
        let (outcome, len) = match fast {
            Fast::Respond { len, outcome } => (outcome, len),
            Fast::Drop(outcome) => (outcome, 0),
            Fast::Slow { .. } => return,
        };
        let entry = Entry {
            received,
            client,
            transport,
            outcome,
            query: packet,
            answer: &out[..len],
        };
        match &mut self.log {
            Sink::None => {}
            Sink::Own(tap) => tap.put(&entry),
            Sink::Shared(log) => log.put(&entry),
        }
    }

    /// Reads the names that `count` packets ask about and brings in what their answers will read.
    pub(super) fn look_ahead<'b>(
        &self,
        ahead: &mut Ahead,
        count: usize,
        packet: impl Fn(usize) -> &'b [u8],
    ) {
        ahead.look(count, packet, &self.zones, self.near.as_deref());
    }

    #[inline]
    fn decide(&mut self, packet: &[u8], asked: Asked<'_>, out: &mut [u8]) -> Fast {
        let query = match Query::parse_within(packet, self.engine.edns_options) {
            Ok(query) if exchange::takes(&query) => return Fast::Slow { proven: false },
            Ok(query) => query,
            Err(Reject::Error(_)) if Exchange::concerns(packet) => {
                return Fast::Slow { proven: false };
            }
            Err(reject) => return self.reject(reject, packet, asked, out),
        };
        if query.edns.is_some_and(|edns| !edns.options.is_empty()) {
            return self.answer_with_options(query, asked, out);
        }
        self.answer(&query, asked, Standing::default(), out)
    }

    /// As [`answer`](Self::answer), after the options of the query.
    #[inline(never)]
    fn answer_with_options(&mut self, query: Query<'_>, asked: Asked<'_>, out: &mut [u8]) -> Fast {
        let mut options = OptionsOut::new();
        let Asked {
            client,
            transport,
            now,
            ..
        } = asked;
        let engine = self.engine;
        if query.edns.is_some_and(|edns| edns.options.more()) {
            engine.keeper.metrics().dns.limit(Limit::EdnsOptions);
        }
        let standing = engine.options(
            query.edns,
            query.packet,
            client,
            transport,
            now,
            &mut options,
        );
        let query = Query {
            extra: standing.extra(&options),
            ..query
        };
        let must = engine.cookies_required && transport == Transport::Udp;
        if must && standing.cookie && !standing.proven {
            return badcookie(&query, Outcome::Cookie, out);
        }
        self.answer(&query, asked, standing, out)
    }

    #[inline]
    fn answer(
        &mut self,
        query: &Query<'_>,
        asked: Asked<'_>,
        standing: Standing,
        out: &mut [u8],
    ) -> Fast {
        let engine = self.engine;
        let limit = engine.limit(query, asked.transport).min(out.len());
        let (len, outcome, source) = if query.qclass != CLASS_IN {
            match chaos::answer(query, &engine.identity, &mut out[..limit]) {
                (len, true) => (len, Outcome::Authoritative, u64::MAX),
                (len, false) => (len, Outcome::Refused, 0),
            }
        } else if let Some(why) = self.zones.unavailable(query.name) {
            let len = wire::code(query, Rcode::ServFail, Some(why), out);
            (len, Outcome::Servfail, 0)
        } else {
            let cache = match &engine.resolver {
                Some(resolver) if resolver.allows(asked.client) => {
                    Some((resolver.cache(), resolver.partition(query.name)))
                }
                _ => None,
            };
            let view = View {
                zones: &self.zones,
                cache,
                chain: engine.cname_chain,
                policy: match (&self.policy, cache) {
                    (Some(policy), Some(_)) => Some((policy, asked.transport)),
                    _ => None,
                },
            };
            let made;
            let path = match asked.path {
                Some(path) => path,
                None => {
                    made = Path::new(query.name);
                    &made
                }
            };
            let own = Own {
                path,
                near: self.near.as_deref_mut(),
            };
            match answer::answer_with(query, own, view, asked.now, asked.seed, limit, out) {
                Action::Respond {
                    len,
                    outcome,
                    source,
                } => (len, outcome, source),
                Action::Recurse => {
                    return Fast::Slow {
                        proven: standing.proven,
                    };
                }
            }
        };
        match outcome {
            Outcome::Dropped => return Fast::Drop(Outcome::Dropped),
            Outcome::CacheHit | Outcome::CacheStale | Outcome::Local | Outcome::Blocked => {}
            _ if standing.proven => {}
            _ => {
                let kind = match outcome {
                    Outcome::Authoritative => u64::from(query.qtype) << 8,
                    other => other as u64,
                };
                let equal = Equal { source, kind };
                match self.check(asked.client, equal, asked.now) {
                    Verdict::Pass => {}
                    Verdict::Drop => return Fast::Drop(Outcome::RateLimited),
                    Verdict::Slip if standing.cookie => {
                        return badcookie(query, Outcome::Slipped, out);
                    }
                    Verdict::Slip => return truncated(query, out),
                }
            }
        }
        Fast::Respond { len, outcome }
    }

    /// Answers a packet that is no query.
    #[cold]
    fn reject(&mut self, reject: Reject, packet: &[u8], asked: Asked<'_>, out: &mut [u8]) -> Fast {
        let Asked {
            client,
            transport,
            now,
            ..
        } = asked;
        let fast = match reject {
            Reject::Drop => Fast::Drop(Outcome::Dropped),
            Reject::Error(rcode) => error(packet, rcode, out),
            Reject::CookieOnly(edns) => {
                let mut options = OptionsOut::new();
                let engine = self.engine;
                let edns = Some(edns);
                let standing = engine.options(edns, packet, client, transport, now, &mut options);
                match edns {
                    Some(edns) if standing.cookie => {
                        let extra = standing.extra(&options);
                        let len = wire::cookie_answer(packet, edns, extra, out);
                        respond(len, Outcome::Cookie)
                    }
                    // Cookies are off: a query without a question.
                    _ => error(packet, Rcode::FormErr, out),
                }
            }
        };
        let Fast::Respond { outcome, .. } = fast else {
            return fast;
        };
        let equal = Equal {
            source: 0,
            kind: outcome as u64,
        };
        match self.check(client, equal, now) {
            Verdict::Pass => fast,
            // Such an answer is as short as one with TC.
            Verdict::Slip | Verdict::Drop => Fast::Drop(Outcome::RateLimited),
        }
    }

    /// Whether one more answer like this may go to `client`.
    #[inline]
    fn check(&mut self, client: IpAddr, equal: Equal, now: Now) -> Verdict {
        let Some(buckets) = self.buckets.as_deref_mut() else {
            return Verdict::Pass;
        };
        match buckets.check(client, equal, now) {
            Verdict::Pass => Verdict::Pass,
            _ if self.engine.is_exempt(client) => Verdict::Pass,
            refused => refused,
        }
    }
}

/// How and when a query came.
#[derive(Clone, Copy, Debug)]
struct Asked<'p> {
    /// Of the question's name, if it is at hand.
    path: Option<&'p Path>,
    client: IpAddr,
    transport: Transport,
    now: Now,
    /// Rotates addresses.
    seed: u64,
}

/// An answer that is only a code to a packet that is no query; none to one without a header.
pub(super) fn error(packet: &[u8], rcode: Rcode, out: &mut [u8]) -> Fast {
    let reason = match rcode {
        Rcode::NotImp => Some(Ede::NotSupported.into()),
        Rcode::ServFail => Some(BUSY),
        Rcode::FormErr => Some(MALFORMED),
        Rcode::BadVers => Some(VERSION),
        _ => None,
    };
    let outcome = outcome_of(rcode);
    respond(wire::error(packet, rcode, reason, out), outcome)
}

/// Asks the client for the cookie that goes with this answer.
fn badcookie(query: &Query<'_>, outcome: Outcome, out: &mut [u8]) -> Fast {
    respond(
        wire::code(query, Rcode::BadCookie, Some(COOKIE), out),
        outcome,
    )
}

/// Sends the client to TCP.
#[cold]
fn truncated(query: &Query<'_>, out: &mut [u8]) -> Fast {
    let limit = out.len();
    let len = Writer::new(query, limit, out).map_or(0, |mut writer| {
        writer.truncated();
        writer.finish()
    });
    respond(len, Outcome::Slipped)
}

fn respond(len: usize, outcome: Outcome) -> Fast {
    match len {
        0 => Fast::Drop(Outcome::Dropped),
        len => Fast::Respond { len, outcome },
    }
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
const BUSY: Reason = Reason::new(Ede::Other, "too many queries in flight");
const VERSION: Reason = Reason::new(Ede::NotSupported, "only EDNS version 0 is known");
const COOKIE: Reason = Reason::new(Ede::Other, "the cookie is not known");

const CLASS_IN: u16 = 1;

/// The largest message: its length has 16 bits.
pub(super) const MESSAGE_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn zone_not_loaded_is_servfail_beneath_its_apex_only() {
        let zones = vec![ZoneConfig {
            name: "missing.test.".to_owned(),
            ..ZoneConfig::default()
        }];
        let metrics = Arc::new(Metrics::new());
        let keeper = Arc::new(Keeper::new(zones, metrics.clone()));
        let config = crate::dns::front::tests::config();
        let engine = Engine::new(&config, keeper, None, metrics);
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
