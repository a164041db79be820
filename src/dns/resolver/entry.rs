//! One cached answer, and how it is written out for a client.
//!
//! It is kept as wire bytes with the question first. A client's question has the same length whatever its case, so
//! the offsets inside stay valid when it is put in place of ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::dump::Saved;
use super::key::Parts;
use super::message;
use super::reply::Reply;
use crate::dns::wire::{BLOCK, CODE_LEN_MAX, Ede, HEADER_LEN, Opt, Query, Reason};
use crate::time::Now;

/// One answer and when it was fetched.
#[derive(Debug)]
pub(crate) struct Entry {
    facts: Facts,
    /// The message, then the places of its TTLs.
    bytes: Box<[u8]>,
    /// Until when a refresh need not be tried, since one has failed (RFC 8767 section 5); [`CLAIMED`]: one has been asked for.
    recheck_ns: AtomicU64,
}

/// What is known of an answer beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// When it was fetched, on the monotonic clock.
    stored_ns: u64,
    /// How long it is fresh from then on, seconds.
    ttl: u32,
    /// Where the message ends.
    wire_end: u16,
    /// Where the answer section ends.
    answers_end: u16,
    authentic: bool,
    negative: bool,
    rcode: u8,
}

/// How old an entry is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Seconds since it was fetched; TTLs count down by that.
    Fresh(u32),
    /// Expired; every TTL is this many seconds.
    Stale(u32),
}

impl Entry {
    /// An entry fetched at `now`.
    pub(crate) fn new(reply: Reply, now: Now) -> Self {
        let mut bytes = reply.wire;
        // Messages have at most 65,535 octets.
        let wire_end = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        bytes.reserve_exact(reply.ttls.len() * size_of::<Place>());
        bytes.extend(reply.ttls.iter().flat_map(|place| place.to_ne_bytes()));
        Self {
            facts: Facts {
                stored_ns: now.mono_ns,
                ttl: reply.ttl,
                wire_end,
                answers_end: u16::try_from(reply.answers_end).unwrap_or(u16::MAX),
                authentic: reply.authentic,
                negative: reply.negative,
                rcode: reply.rcode,
            },
            bytes: bytes.into(),
            recheck_ns: AtomicU64::new(0),
        }
    }

    /// What is known of it beside its bytes.
    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// Where the TTLs lie in [`Entry::wire`], in their order: numbers of this machine's byte order.
    #[inline]
    pub(super) fn ttls(&self) -> &[Place] {
        self.bytes[usize::from(self.facts.wire_end)..].as_chunks().0
    }

    /// Name (wire form, lower case) and type of its question.
    pub(super) fn question(&self) -> (&[u8], u16) {
        let rest = &self.wire()[HEADER_LEN..];
        let mut end = 0;
        while rest[end] != 0 {
            end += 1 + usize::from(rest[end]);
        }
        end += 1;
        (&rest[..end], u16::from_be_bytes([rest[end], rest[end + 1]]))
    }

    /// NXDOMAIN or NODATA.
    pub(crate) fn is_negative(&self) -> bool {
        self.facts.negative
    }

    /// NXDOMAIN for the very name asked about: no alias led elsewhere, and a SOA says how long.
    pub(super) fn is_bare_nxdomain(&self) -> bool {
        let wire = self.wire();
        self.facts.rcode == NXDOMAIN && wire[6..8] == [0, 0] && wire[8..10] != [0, 0]
    }

    /// Whether the upstream, or we, have validated it.
    pub(super) fn is_authentic(&self) -> bool {
        self.facts.authentic
    }

    /// The response code, 0 or 3.
    pub(crate) fn rcode(&self) -> u8 {
        self.facts.rcode
    }

    /// The message as kept: no id, no flags of a client, the question in lower case, TTLs as fetched.
    #[inline]
    pub(crate) fn wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.facts.wire_end)]
    }

    /// How long it is fresh from when it was fetched.
    pub(crate) fn fresh(&self) -> Duration {
        Duration::from_secs(self.facts.ttl.into())
    }

    /// Its age at `now` if it is fresh then.
    #[inline]
    pub(crate) fn age(&self, now: Now) -> Option<Age> {
        self.facts.age(now)
    }

    /// Seconds of freshness left at `now`; negative: expired that long ago.
    pub(crate) fn ttl_left(&self, now: Now) -> i64 {
        let age = i64::try_from(now.mono_ns.saturating_sub(self.facts.stored_ns) / NANOS);
        i64::from(self.facts.ttl) - age.unwrap_or(i64::MAX)
    }

    /// Whether it was within its stale window at `now`: expired, but for less than `window`.
    pub(crate) fn is_stale(&self, now: Now, window: Duration) -> bool {
        let age = Duration::from_nanos(now.mono_ns.saturating_sub(self.facts.stored_ns));
        age >= self.fresh() && age < self.fresh().saturating_add(window)
    }

    /// Remembers that a refresh has failed at `now` and need not be tried again for `pause`.
    pub(crate) fn refresh_failed(&self, now: Now, pause: Duration) {
        self.recheck_ns
            .store(now.plus(pause).mono_ns, Ordering::Relaxed);
    }

    /// Whether a refresh has failed so shortly before `now` that none need be tried.
    #[inline]
    pub(crate) fn refresh_failed_lately(&self, now: Now) -> bool {
        now.mono_ns < self.recheck_ns.load(Ordering::Relaxed)
    }

    /// Whether not even its stale window lasts at `now`.
    pub(super) fn is_gone(&self, now: Now, window: Duration) -> bool {
        let age = Duration::from_nanos(now.mono_ns.saturating_sub(self.facts.stored_ns));
        age >= self.fresh().saturating_add(window)
    }

    /// As a reply that has just come, with the TTLs it has left at `now`.
    pub(super) fn to_reply(&self, now: Now) -> Reply {
        let age = match self.facts.age(now) {
            Some(Age::Fresh(age)) => age,
            _ => u32::MAX,
        };
        let mut wire = self.wire().to_vec();
        let ttls: Vec<u16> = self
            .ttls()
            .iter()
            .map(|&at| u16::from_ne_bytes(at))
            .collect();
        for &at in &ttls {
            let at = usize::from(at);
            if let Some(field) = wire.get_mut(at..at + 4).and_then(|f| f.first_chunk_mut()) {
                *field = u32::from_be_bytes(*field).saturating_sub(age).to_be_bytes();
            }
        }
        Reply {
            wire,
            ttls,
            answers_end: self.facts.answers_end.into(),
            ttl: u32::try_from(self.ttl_left(now)).unwrap_or(0),
            negative: self.facts.negative,
            rcode: self.facts.rcode,
            authentic: self.facts.authentic,
            rrset: 0,
            onward: None,
            shortened: false,
        }
    }

    /// As it is to lie in a file.
    pub(super) fn to_saved<'a>(
        &'a self,
        question: Parts<'_>,
        zone: &'a [u8],
        now: Now,
    ) -> Saved<'a> {
        let age_ms = now.mono_ns.saturating_sub(self.facts.stored_ns) / 1_000_000;
        Saved {
            fetched_ms: now.unix_ms.saturating_sub(age_ms),
            ttl: self.facts.ttl,
            dnssec_ok: question.dnssec_ok,
            checking_disabled: question.checking_disabled,
            authentic: self.facts.authentic,
            negative: self.facts.negative,
            zone,
            wire: self.wire(),
        }
    }

    /// Whether a name kept warm is to be fetched anew at `now`: it is about to expire, or would before the next look.
    pub(super) fn is_to_be_warmed(&self, now: Now) -> bool {
        self.facts.is_ending(now) || self.ttl_left(now) <= 2
    }

    /// Whether it is to be refreshed before it expires: little of its life is left at `now`, and nobody was told so before.
    #[inline]
    pub(super) fn claim_refresh(&self, now: Now) -> bool {
        self.facts.is_ending(now)
            && self
                .recheck_ns
                .compare_exchange(0, CLAIMED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Bytes it takes of the heap behind an [`Arc`](std::sync::Arc).
    pub(crate) fn weight(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        allocated(COUNTS + size_of::<Self>()) + allocated(self.bytes.len())
    }

    /// Room enough for [`Entry::write`].
    pub(crate) fn room(&self) -> usize {
        self.wire().len() + CODE_LEN_MAX + usize::from(BLOCK)
    }

    /// Writes the answer to `query` into `out`; see [`Facts::write`].
    #[inline]
    pub(crate) fn write(&self, query: &Query<'_>, age: Age, limit: usize, out: &mut [u8]) -> usize {
        self.facts
            .write(self.wire(), self.ttls(), query, age, limit, out)
    }
}

impl Facts {
    /// NXDOMAIN or NODATA.
    #[inline]
    pub(super) fn is_negative(&self) -> bool {
        self.negative
    }

    /// The age at `now` of an answer that is fresh then.
    #[inline]
    pub(super) fn age(&self, now: Now) -> Option<Age> {
        let age = now.mono_ns.saturating_sub(self.stored_ns);
        (age < self.fresh_ns()).then(|| Age::Fresh(u32::try_from(age / NANOS).unwrap_or(u32::MAX)))
    }

    /// Whether less than a tenth of its life is left at `now`.
    #[inline]
    pub(super) fn is_ending(&self, now: Now) -> bool {
        let age = now.mono_ns.saturating_sub(self.stored_ns);
        let fresh = self.fresh_ns();
        fresh >= REFRESHED_FROM && age >= fresh - fresh / 10
    }

    #[inline]
    fn fresh_ns(&self) -> u64 {
        u64::from(self.ttl) * NANOS
    }

    /// Writes the answer to `query` into `out`, at most `limit` bytes; returns its length. `wire` and `ttls` are those
    /// of the entry.
    ///
    /// What does not fit goes from the end by whole RRsets, with TC set. Only the authority section of a positive answer goes
    /// without a word, unless the client asked for proofs: nobody needs it.
    ///
    /// # Panics
    /// If `out` is shorter than [`CODE_LEN_MAX`](crate::dns::wire::CODE_LEN_MAX).
    #[inline]
    pub(super) fn write(
        &self,
        wire: &[u8],
        ttls: &[Place],
        query: &Query<'_>,
        age: Age,
        limit: usize,
        out: &mut [u8],
    ) -> usize {
        let limit = limit.min(out.len());
        let opt = query.edns.map(|edns| Opt {
            dnssec_ok: edns.dnssec_ok,
            extra: query.extra,
            reasons: [self.reason(age), None],
        });
        let question_end = 12 + query.name.len() + 4;
        let dnssec_ok = query.dnssec_ok();
        let room = limit.saturating_sub(opt.as_ref().map_or(0, Opt::len));
        let whole = if wire.len() > room && !self.negative && !dnssec_ok {
            usize::from(self.answers_end)
        } else {
            wire.len()
        };
        let (end, cut) = if whole <= room {
            (whole, None)
        } else {
            let cut = Cut::new(wire, question_end, room);
            (cut.end, Some(cut))
        };

        out[..end].copy_from_slice(&wire[..end]);
        out[..2].copy_from_slice(&query.id.to_be_bytes());
        out[2] = 0x80 | u8::from(cut.is_some()) << 1 | u8::from(query.recursion_desired);
        // AD is for those who ask for it, by DO or by AD (RFC 6840 section 5.8).
        let wants = dnssec_ok || query.authentic_data;
        out[3] = 0x80
            | u8::from(self.authentic && wants && matches!(age, Age::Fresh(_))) << 5
            | u8::from(query.checking_disabled) << 4
            | self.rcode;
        if let Some(cut) = cut {
            out[6..8].copy_from_slice(&cut.answers.to_be_bytes());
            out[8..10].copy_from_slice(&cut.authorities.to_be_bytes());
        } else if end < wire.len() {
            out[8..10].fill(0);
        }
        out[12..question_end].copy_from_slice(query.question());

        for &at in ttls {
            let at = usize::from(u16::from_ne_bytes(at));
            if at >= end {
                break;
            }
            let field: &mut [u8; 4] = (&mut out[at..at + 4])
                .try_into()
                .expect("four octets were sliced");
            let ttl = match age {
                Age::Fresh(secs) => u32::from_be_bytes(*field).saturating_sub(secs),
                Age::Stale(ttl) => ttl,
            };
            *field = ttl.to_be_bytes();
        }

        match opt {
            None => end,
            Some(opt) => {
                out[11] = 1;
                opt.write(0, out, end, limit)
            }
        }
    }

    fn reason(&self, age: Age) -> Option<Reason> {
        let code = match age {
            Age::Fresh(_) => return None,
            Age::Stale(_) if self.rcode == NXDOMAIN => Ede::StaleNxdomain,
            Age::Stale(_) => Ede::StaleAnswer,
        };
        Some(code.into())
    }
}

/// How much of an answer fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    end: usize,
    answers: u16,
    authorities: u16,
}

impl Cut {
    /// As many whole RRsets as end within `room`, signatures counted to the RRset before them.
    fn new(wire: &[u8], question_end: usize, room: usize) -> Self {
        let count = |at: usize| u16::from_be_bytes([wire[at], wire[at + 1]]);
        let (answers, all) = (count(6), count(6).saturating_add(count(8)));
        let mut cut = Self {
            end: question_end,
            answers: 0,
            authorities: 0,
        };
        let (mut at, mut last) = (question_end, (0, 0));
        for n in 0..=all {
            // An RRset ends where another begins, and at the end of a section.
            let next = message::peek(wire, at);
            let set = next.map(|(name_end, rtype, _)| (at..name_end, rtype));
            let goes_on = n != 0
                && n != answers
                && set.as_ref().is_some_and(|(owner, rtype)| {
                    let (last_at, last_type) = last;
                    let same = wire.get(owner.clone()) == wire.get(last_at..last_at + owner.len());
                    *rtype == RRSIG || *rtype == last_type && same
                });
            if !goes_on {
                if at > room {
                    return cut;
                }
                cut = Self {
                    end: at,
                    answers: n.min(answers),
                    authorities: n.saturating_sub(answers),
                };
            }
            let (Some((owner, rtype)), Some((_, _, end))) = (set, next) else {
                return cut;
            };
            if rtype != RRSIG {
                last = (owner.start, rtype);
            }
            at = end;
        }
        cut
    }
}

/// Where a TTL lies in a message, in this machine's byte order.
pub(super) type Place = [u8; 2];

/// What the allocator takes for `len` bytes: a header, and a multiple of its grain.
fn allocated(len: usize) -> usize {
    const HEADER: usize = 8;
    const GRAIN: usize = 16;
    (len + HEADER).next_multiple_of(GRAIN).max(2 * GRAIN)
}

/// A refresh has been asked for. As a time it is long past.
const CLAIMED: u64 = 1;

/// Answers that live shorter are not refreshed before they expire, nanoseconds.
const REFRESHED_FROM: u64 = 10 * NANOS;

const RRSIG: u16 = 46;
const NXDOMAIN: u8 = 3;

const NANOS: u64 = 1_000_000_000;
