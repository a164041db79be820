//! What other servers and operators say: transfers, NOTIFY, updates, and signed queries. Everything here is beside the fast
//! path: who may is decided by address and signature (RFC 8945), and every bound has its count.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::keeper::Keeper;
use super::transfer::history::{is_newer, serial};
use super::transfer::message::{self, AXFR, IXFR, Message, NOTIFY, QUERY, Question, SOA, UPDATE};
use super::transfer::outgoing::Outgoing;
use super::transfer::{Allow, Config};
use super::tsig::{Failure, Session, Verified};
use super::wire::{self, Ede, HEADER_LEN, MALFORMED, Query, Rcode, Reason};
use super::{Outcome, Transport};
use crate::metrics::Metrics;
use crate::metrics::transfer::{Direction, Ended, Kind};
use crate::time::Now;

/// Transfers, notices and signatures, over the zones of a keeper.
#[derive(Debug)]
pub struct Exchange {
    keeper: Arc<Keeper>,
    config: Config,
    /// Transfers to secondaries now.
    outgoing: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// A transfer to a secondary that goes out message by message. Dropped before its end, it counts as broken off.
#[derive(Debug)]
pub struct Transfer {
    messages: Outgoing,
    kind: Kind,
    ended: bool,
    outgoing: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// How a request for a transfer begins.
#[derive(Debug)]
pub enum Begin {
    /// It goes out.
    Transfer(Transfer),
    /// It is answered with this alone.
    Answer(Vec<u8>, Outcome),
}

/// A code to refuse with, and why, for who has sent an OPT.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    rcode: Rcode,
    reason: Option<Reason>,
}

impl From<Rcode> for Refusal {
    fn from(rcode: Rcode) -> Self {
        let reason = match rcode {
            Rcode::Refused => Some(Ede::Prohibited.into()),
            Rcode::NotAuth => Some(Ede::NotAuthoritative.into()),
            Rcode::ServFail => Some(Ede::Other.into()),
            Rcode::FormErr => Some(MALFORMED),
            // The code says it all.
            _ => None,
        };
        Self { rcode, reason }
    }
}

impl Refusal {
    const fn new(rcode: Rcode, code: Ede, text: &'static str) -> Self {
        Self {
            rcode,
            reason: Some(Reason::new(code, text)),
        }
    }
}

/// A request whose signature, if any, is right.
#[derive(Debug)]
struct Request {
    message: Message,
    session: Option<Session>,
    /// It had an OPT.
    edns: Option<u16>,
}

impl Exchange {
    /// An exchange over the zones of `keeper`.
    #[must_use]
    pub fn new(keeper: Arc<Keeper>, config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            keeper,
            config,
            outgoing: Arc::default(),
            metrics,
        }
    }

    /// The bounds of transfers.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a packet that is no plain query is for the exchange.
    #[must_use]
    pub fn concerns(packet: &[u8]) -> bool {
        match opcode(packet) {
            Some(NOTIFY | UPDATE) => true,
            Some(QUERY) => asks_for_transfer(packet),
            _ => false,
        }
    }

    /// Begins the transfer that a packet over a stream asks for. `None`: it asks for none.
    #[must_use]
    pub fn transfer(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now,
    ) -> Option<Begin> {
        if opcode(packet) != Some(QUERY) || !asks_for_transfer(packet) {
            return None;
        }
        let answer = |(answer, outcome)| Some(Begin::Answer(answer, outcome));
        let request = match self.read(packet, now) {
            Ok(request) => request,
            Err(refused) => return answer(refused),
        };
        let (kind, messages) = match self.prepare(packet, &request, client, transport) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                self.metrics.transfer.ended(
                    Direction::Out,
                    kind_of(&request.message),
                    Ended::Refused,
                );
                return answer(self.refuse(packet, request, refusal, now));
            }
        };
        if self.outgoing.fetch_add(1, Relaxed) >= self.config.outgoing {
            self.outgoing.fetch_sub(1, Relaxed);
            self.metrics.transfer.limit_outgoing.inc();
            return answer(self.refuse(packet, request, CROWDED, now));
        }
        self.metrics.transfer.outgoing.inc();
        Some(Begin::Transfer(Transfer {
            messages,
            kind,
            ended: false,
            outgoing: self.outgoing.clone(),
            metrics: self.metrics.clone(),
        }))
    }

    /// Answers a packet that is for the exchange and asks for no transfer over a stream.
    pub async fn answer(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now,
    ) -> (Vec<u8>, Outcome) {
        let request = match self.read(packet, now) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        match request.message.opcode {
            NOTIFY => self.notified(packet, request, client, now),
            UPDATE => self.update(packet, request, now).await,
            _ if transport == Transport::Udp => self.datagram(packet, request, client, now),
            // Begun by the stream itself.
            _ => self.refuse(packet, request, Rcode::Refused, now),
        }
    }

    /// Checks the signature of a query. `Ok(None)`: it has none that is right, and this is the answer to it.
    ///
    /// # Errors
    /// The answer to a query whose signature is not right.
    pub fn signed(&self, packet: &[u8], now: Now) -> Result<SignedQuery, (Vec<u8>, Outcome)> {
        match self.keeper.keys().verify(packet, now.unix_ms / 1_000) {
            Verified::Signed(session, len) => {
                let mut packet = packet[..len].to_vec();
                let count = u16::from_be_bytes([packet[10], packet[11]]);
                packet[10..12].copy_from_slice(&count.saturating_sub(1).to_be_bytes());
                Ok(SignedQuery { packet, session })
            }
            Verified::Unsigned => Err((
                message::code(packet, None, Rcode::FormErr),
                Outcome::Formerr,
            )),
            Verified::Rejected(rejected) => Err(self.rejected(packet, &rejected, now)),
        }
    }

    fn rejected(
        &self,
        packet: &[u8],
        rejected: &super::tsig::Rejected,
        now: Now,
    ) -> (Vec<u8>, Outcome) {
        let message = Message::parse(packet);
        let edns = message.as_ref().and_then(Message::payload);
        let question = message.and_then(|message| message.question);
        let (rcode, outcome) = match rejected.failure {
            Failure::Malformed => (Rcode::FormErr, Outcome::Formerr),
            _ => (Rcode::NotAuth, Outcome::Refused),
        };
        self.metrics.transfer.signatures_refused.inc();
        let mut answer = message::code(packet, question.as_ref(), rcode);
        if edns.is_some() {
            message::append_opt(&mut answer, Some(UNSIGNED));
        }
        rejected.append(&mut answer, now.unix_ms / 1_000);
        (answer, outcome)
    }

    /// Reads a packet and checks its signature.
    fn read(&self, packet: &[u8], now: Now) -> Result<Request, (Vec<u8>, Outcome)> {
        let (session, len) = match self.keeper.keys().verify(packet, now.unix_ms / 1_000) {
            Verified::Unsigned => (None, packet.len()),
            Verified::Signed(session, len) => (Some(session), len),
            Verified::Rejected(rejected) => return Err(self.rejected(packet, &rejected, now)),
        };
        let mut plain = packet[..len].to_vec();
        if session.is_some() {
            let count = u16::from_be_bytes([plain[10], plain[11]]);
            plain[10..12].copy_from_slice(&count.saturating_sub(1).to_be_bytes());
        }
        let Some(message) = Message::parse(&plain) else {
            let answer = message::code(packet, None, Rcode::FormErr);
            return Err((answer, Outcome::Formerr));
        };
        let edns = message.payload();
        Ok(Request {
            message,
            session,
            edns,
        })
    }

    /// The messages that a request for a transfer gets.
    fn prepare(
        &self,
        packet: &[u8],
        request: &Request,
        client: IpAddr,
        transport: Transport,
    ) -> Result<(Kind, Outgoing), Refusal> {
        let question = request.message.question.clone().ok_or(Rcode::FormErr)?;
        if question.qclass != message::IN {
            return Err(CLASS);
        }
        let Some((zone, config)) = self.keeper.find(&question.name) else {
            return Err(Rcode::NotAuth.into());
        };
        let key = request.session.as_ref().map(|s| s.key().name());
        let encrypted = transport.is_encrypted();
        let may = |allow: &Allow| allow.allows(client, key.as_deref(), encrypted);
        if !config.allow_transfer.iter().any(may) {
            return Err(NOT_FOR_YOU);
        }
        let zone = zone.ok_or(NOT_LOADED)?;
        let steps = if question.qtype == IXFR {
            let soa = request.message.sections[1]
                .iter()
                .find(|entry| entry.record.rtype == SOA && entry.record.owner == question.name);
            let from = serial(&soa.ok_or(Rcode::FormErr)?.record);
            if !is_newer(zone.serial(), from) {
                Some(Vec::new())
            } else {
                self.keeper.steps(&question.name, from, &zone)
            }
        } else {
            None
        };
        let kind = if steps.is_some() {
            Kind::Ixfr
        } else {
            Kind::Axfr
        };
        let session = request.session.clone();
        let edns = request.edns.is_some();
        let messages = Outgoing::new(packet, question, zone, steps, session, edns);
        let messages = messages.map(|messages| (kind, messages));
        messages.ok_or(Rcode::ServFail.into())
    }

    /// A transfer asked for in a datagram: differences if they fit, else the SOA, which says to come over TCP
    /// (RFC 1995 section 2). AXFR is for streams only (RFC 5936 section 4.2).
    fn datagram(
        &self,
        packet: &[u8],
        request: Request,
        client: IpAddr,
        now: Now,
    ) -> (Vec<u8>, Outcome) {
        if request
            .message
            .question
            .as_ref()
            .is_some_and(|q| q.qtype != IXFR)
        {
            return self.refuse(packet, request, Rcode::FormErr, now);
        }
        let limit = request.edns.unwrap_or(wire::UDP_PLAIN);
        let limit = usize::from(limit.clamp(wire::UDP_PLAIN, wire::PAYLOAD));
        match self.prepare(packet, &request, client, Transport::Udp) {
            Ok((kind, messages)) => {
                self.metrics
                    .transfer
                    .ended(Direction::Out, kind, Ended::Done);
                let answer = messages.datagram(limit, now.unix_ms / 1_000);
                (answer, Outcome::Transfer)
            }
            Err(refusal) => self.refuse(packet, request, refusal, now),
        }
    }

    /// RFC 2136 section 3; only with one of the zone's keys.
    async fn update(&self, packet: &[u8], request: Request, now: Now) -> (Vec<u8>, Outcome) {
        let zone = match &request.message.question {
            Some(Question {
                name,
                qtype: SOA,
                qclass: message::IN,
            }) => name.clone(),
            _ => return self.refuse(packet, request, Rcode::FormErr, now),
        };
        let Some((_, config)) = self.keeper.find(&zone) else {
            return self.refuse(packet, request, Rcode::NotAuth, now);
        };
        let key = request.session.as_ref().map(|s| s.key().name());
        if !key.is_some_and(|key| config.update_keys.contains(&key)) {
            return self.refuse(packet, request, NO_KEY, now);
        }
        let [prerequisites, changes, _] = request.message.sections.clone();
        let keeper = self.keeper.clone();
        let work = move || keeper.update(&zone, prerequisites, changes);
        // Bounded by the permits of the slow path.
        let done = tokio::task::spawn_blocking(work).await;
        match done.unwrap_or(Err(Rcode::ServFail)) {
            Ok(_) => {
                let (answer, _) = self.refuse(packet, request, Rcode::NoError, now);
                (answer, Outcome::Update)
            }
            Err(rcode) => self.refuse(packet, request, rcode, now),
        }
    }

    /// RFC 1996 section 3.
    fn notified(
        &self,
        packet: &[u8],
        request: Request,
        client: IpAddr,
        now: Now,
    ) -> (Vec<u8>, Outcome) {
        if request.message.response {
            return (Vec::new(), Outcome::Dropped);
        }
        let Some(question) = &request.message.question else {
            return self.refuse(packet, request, Rcode::FormErr, now);
        };
        let Some((zone, config)) = self.keeper.find(&question.name) else {
            return self.refuse(packet, request, Rcode::NotAuth, now);
        };
        if config.primaries.is_empty() {
            return self.refuse(packet, request, Rcode::NotAuth, now);
        }
        let key = request.session.as_ref().map(|s| s.key().name());
        let known = config.primaries.iter().any(|primary| {
            primary.address.ip().to_canonical() == client
                && (primary.key.is_none() || primary.key == key)
        });
        if !known {
            return self.refuse(packet, request, NO_PRIMARY, now);
        }
        let hint = request.message.sections[0]
            .iter()
            .find(|e| e.record.rtype == SOA);
        let current = match (hint, zone) {
            (Some(hint), Some(zone)) => serial(&hint.record) == zone.serial(),
            _ => false,
        };
        if !current {
            self.keeper.ask(&question.name, now);
        }
        let (answer, _) = self.refuse(packet, request, Rcode::NoError, now);
        (answer, Outcome::Transfer)
    }

    /// An answer that is only a code, signed if the request was.
    fn refuse(
        &self,
        packet: &[u8],
        request: Request,
        refusal: impl Into<Refusal>,
        now: Now,
    ) -> (Vec<u8>, Outcome) {
        let Refusal { rcode, reason } = refusal.into();
        let mut answer = message::code(packet, request.message.question.as_ref(), rcode);
        if request.message.opcode == NOTIFY && rcode == Rcode::NoError {
            answer[2] |= AA;
        }
        if request.edns.is_some() {
            message::append_opt(&mut answer, reason);
        }
        if let Some(mut session) = request.session {
            session.sign(&mut answer, now.unix_ms / 1_000);
        }
        let outcome = match rcode {
            Rcode::FormErr => Outcome::Formerr,
            Rcode::NotImp => Outcome::Notimp,
            Rcode::ServFail => Outcome::Servfail,
            _ => Outcome::Refused,
        };
        (answer, outcome)
    }
}

/// A query whose signature is right.
#[derive(Debug)]
pub struct SignedQuery {
    /// Without the signature.
    pub packet: Vec<u8>,
    session: Session,
}

impl SignedQuery {
    /// Bytes the signature of the answer takes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.session.key().room()
    }

    /// Signs the answer.
    pub fn sign(mut self, answer: &mut Vec<u8>, now: Now) {
        self.session.sign(answer, now.unix_ms / 1_000);
    }
}

impl Transfer {
    /// The next message; `None` after the last.
    #[must_use]
    pub fn next(&mut self, now: Now) -> Option<Vec<u8>> {
        let message = self.messages.next(now.unix_ms / 1_000);
        self.ended = message.is_none();
        if let Some(message) = &message {
            self.metrics.transfer.sent(message.len());
        }
        message
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.outgoing.fetch_sub(1, Relaxed);
        let ended = if self.ended {
            Ended::Done
        } else {
            Ended::Broken
        };
        let transfer = &self.metrics.transfer;
        transfer.outgoing.dec();
        transfer.ended(Direction::Out, self.kind, ended);
    }
}

fn kind_of(message: &Message) -> Kind {
    match &message.question {
        Some(Question { qtype: IXFR, .. }) => Kind::Ixfr,
        _ => Kind::Axfr,
    }
}

fn opcode(packet: &[u8]) -> Option<u8> {
    let flags = *packet.get(..HEADER_LEN)?.get(2)?;
    (flags & 0x80 == 0).then_some(flags >> 3 & 15)
}

/// Whether a packet's question is for AXFR or IXFR.
fn asks_for_transfer(packet: &[u8]) -> bool {
    let question = packet.get(HEADER_LEN..);
    let qtype = question.and_then(|question| {
        let at = wire::name_len(question)?;
        question[at..].first_chunk()
    });
    let qtype = qtype.map(|qtype| u16::from_be_bytes(*qtype));
    packet.get(4..6) == Some(&[0, 1]) && matches!(qtype, Some(IXFR | AXFR))
}

/// Whether a plain query must go to the exchange: it is signed, or asks for a transfer.
#[must_use]
pub(super) fn takes(query: &Query<'_>) -> bool {
    query.tsig.is_some() || matches!(query.qtype, IXFR | AXFR)
}

const CROWDED: Refusal = Refusal::new(Rcode::ServFail, Ede::Other, "too many transfers under way");
const CLASS: Refusal = Refusal::new(Rcode::Refused, Ede::NotSupported, "only class IN is served");
const NOT_FOR_YOU: Refusal = Refusal::new(
    Rcode::Refused,
    Ede::Prohibited,
    "no transfer for this address and key",
);
const NOT_LOADED: Refusal =
    Refusal::new(Rcode::ServFail, Ede::NotReady, "the zone is not in service");
const NO_KEY: Refusal = Refusal::new(
    Rcode::Refused,
    Ede::Prohibited,
    "updates need a key of the zone",
);
const NO_PRIMARY: Refusal = Refusal::new(
    Rcode::Refused,
    Ede::Prohibited,
    "no primary of the zone has this address and key",
);
const UNSIGNED: Reason = Reason::new(Ede::Prohibited, "the signature is not right");

/// AA, in the third octet of a header.
const AA: u8 = 4;
