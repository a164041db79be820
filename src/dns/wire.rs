//! DNS messages on the wire: a borrowed, checked view of a query, and the writer of answers.
//!
//! Nothing here allocates. The layout is RFC 1035 section 4, EDNS is RFC 6891. From ground to roof: `ede` (why an
//! answer is an error), `edns` (options in, options out), then queries and answers.

mod ede;

mod edns;

pub use self::ede::{Ede, MALFORMED, Reason, TEXT_MAX};
pub use self::edns::{
    BLOCK, CLIENT_COOKIE, Cookie, Edns, Extra, NSID_MAX, OPTIONS_OUT_MAX, Options, OptionsOut,
    SERVER_COOKIE,
};
pub(super) use self::edns::{EDE, Opt};
use self::edns::{EDNS_DO, OPT_LEN, REASONS_MAX};

/// Response codes used here (RFC 1035, 2136, 6891, 7873).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    /// No error.
    NoError = 0,
    /// Malformed query.
    FormErr = 1,
    /// Failure here or upstream.
    ServFail = 2,
    /// The name does not exist.
    NxDomain = 3,
    /// Operation not served.
    NotImp = 4,
    /// Not for this client.
    Refused = 5,
    /// A name that a DNAME makes too long (RFC 6672 section 2.2).
    YxDomain = 6,
    /// An RRset that must not exist does (RFC 2136).
    YxRrset = 7,
    /// An RRset that must exist does not (RFC 2136).
    NxRrset = 8,
    /// Not authoritative for the zone (RFC 2136), or not authorised (RFC 8945).
    NotAuth = 9,
    /// A name outside of the zone (RFC 2136).
    NotZone = 10,
    /// EDNS version not known.
    BadVers = 16,
    /// The server's cookie is missing or wrong (RFC 7873).
    BadCookie = 23,
}

/// A standard query with one question, borrowed from the packet it came in.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The whole packet.
    pub packet: &'a [u8],
    /// Query id.
    pub id: u16,
    /// RD.
    pub recursion_desired: bool,
    /// AD: the client understands AD in the answer (RFC 6840 section 5.7).
    pub authentic_data: bool,
    /// CD.
    pub checking_disabled: bool,
    /// The question's name in wire form, case as asked, at most 255 bytes, never compressed.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// The OPT record, if one came.
    pub edns: Option<Edns>,
    /// Where the TSIG record begins in the packet, if one came (RFC 8945); it is not checked here.
    pub tsig: Option<u16>,
    /// What the OPT of every answer to this query carries; nothing unless the engine says so.
    pub extra: Extra<'a>,
}

/// Why a packet is not a [`Query`], and what the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A response, or too short for a header: no answer.
    Drop,
    /// An answer with this code (see [`error`]).
    Error(Rcode),
    /// No question, but a COOKIE: an answer with the server's cookie and nothing else (RFC 7873 section 5.4).
    CookieOnly(Edns),
}

impl<'a> Query<'a> {
    /// Reads a packet. QDCOUNT other than 1, records in the answer or authority section, a name that is
    /// compressed or runs over, more than one OPT or one with an owner, a COOKIE of a length that none has, a TSIG that is
    /// not the last record: FORMERR; an opcode other than QUERY: NOTIMP; EDNS version above 0: BADVERS. Of the EDNS
    /// options the first [`OPTIONS_MAX`] are looked at; bytes behind the last record are ignored.
    ///
    /// # Errors
    /// See [`Reject`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Reject> {
        Self::parse_within(packet, OPTIONS_MAX)
    }

    /// [`Query::parse`] with another bound on EDNS options.
    ///
    /// # Errors
    /// See [`Reject`].
    pub fn parse_within(packet: &'a [u8], options: usize) -> Result<Self, Reject> {
        const FORMERR: Reject = Reject::Error(Rcode::FormErr);
        let Some((header, _)) = packet.split_first_chunk::<HEADER_LEN>() else {
            return Err(Reject::Drop);
        };
        if header[2] & FLAG_QR != 0 {
            return Err(Reject::Drop);
        }
        if header[2] & OPCODE_MASK != 0 {
            return Err(Reject::Error(Rcode::NotImp));
        }
        if header[4..10] != [0, 1, 0, 0, 0, 0] {
            return Err(cookie_only(packet).unwrap_or(FORMERR));
        }
        let name_len = name_len(&packet[HEADER_LEN..]).ok_or(FORMERR)?;
        let at = HEADER_LEN + name_len;
        let Some(&[t0, t1, c0, c1]) = packet.get(at..at + 4) else {
            return Err(FORMERR);
        };
        let additional = u16::from_be_bytes([header[10], header[11]]);
        let mut found = Found::default();
        if additional > 0 {
            found
                .read(packet, at + 4, additional, options)
                .ok_or(FORMERR)?;
        }
        if found.edns.is_some_and(|e| e.version != 0) {
            return Err(Reject::Error(Rcode::BadVers));
        }
        Ok(Self {
            packet,
            id: u16::from_be_bytes([header[0], header[1]]),
            recursion_desired: header[2] & FLAG_RD != 0,
            authentic_data: header[3] & FLAG_AD != 0,
            checking_disabled: header[3] & FLAG_CD != 0,
            name: &packet[HEADER_LEN..at],
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
            edns: found.edns,
            tsig: found.tsig,
            extra: Extra::default(),
        })
    }

    /// The DO bit.
    #[inline]
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// The COOKIE option.
    #[must_use]
    pub fn cookie(&self) -> Option<Cookie<'a>> {
        self.edns?.options.cookie(self.packet)
    }

    /// Name, type and class as sent: what an answer repeats.
    #[must_use]
    pub fn question(&self) -> &'a [u8] {
        &self.packet[HEADER_LEN..HEADER_LEN + self.name.len() + 4]
    }
}

/// The largest answer to `query` over UDP, bytes: 512 without EDNS, else what the client takes, but at least
/// 512 (RFC 6891 section 6.2.3) and at most `configured`.
#[must_use]
pub fn udp_limit(query: &Query<'_>, configured: u16) -> usize {
    let configured = configured.max(UDP_PLAIN);
    usize::from(match query.edns {
        None => UDP_PLAIN,
        Some(edns) => edns.payload.clamp(UDP_PLAIN, configured),
    })
}

/// Writes an answer that is only a code to a packet that is no [`Query`]: header, the question if it can be read, OPT
/// (with `reason`) if the packet had one. Returns its length. Works on any packet of at least a header; 0 for less, or
/// when `out` is shorter than [`CODE_LEN_MAX`].
#[must_use]
pub fn error(packet: &[u8], rcode: Rcode, reason: Option<Reason>, out: &mut [u8]) -> usize {
    let Some((header, _)) = packet.split_first_chunk::<HEADER_LEN>() else {
        return 0;
    };
    if out.len() < CODE_LEN_MAX {
        return 0;
    }
    let flags = [
        FLAG_QR | (header[2] & (OPCODE_MASK | FLAG_RD)),
        header[3] & FLAG_CD,
    ];
    let question_len = if header[4..6] == [0, 1] {
        name_len(&packet[HEADER_LEN..])
            .map(|len| len + 4)
            .filter(|len| packet.len() >= HEADER_LEN + len)
    } else {
        None
    };
    let mut found = Found::default();
    if let Some(len) = question_len
        && header[6..10] == [0; 4]
    {
        let additional = u16::from_be_bytes([header[10], header[11]]);
        // What is wrong behind the OPT is why we are here: the OPT still decides how the answer looks.
        let _ = found.read(packet, HEADER_LEN + len, additional, OPTIONS_MAX);
    }
    let question = question_len.map_or(&[][..], |len| &packet[HEADER_LEN..HEADER_LEN + len]);
    let id = [header[0], header[1]];
    let limit = out.len();
    let extra = Extra::default();
    let mut writer = Writer::with_parts(id, flags, question, found.edns, extra, limit, out);
    writer.rcode(rcode);
    if let Some(reason) = reason {
        writer.reason(reason);
    }
    writer.finish()
}

/// Writes an answer that is only a code to `query`. Returns its length; 0 if `out` is shorter than [`CODE_LEN_MAX`].
#[must_use]
pub fn code(query: &Query<'_>, rcode: Rcode, reason: Option<Reason>, out: &mut [u8]) -> usize {
    let Some(mut writer) = Writer::new(query, out.len(), out) else {
        return 0;
    };
    writer.rcode(rcode);
    if let Some(reason) = reason {
        writer.reason(reason);
    }
    writer.finish()
}

/// Writes the answer to [`Reject::CookieOnly`]: a header and an OPT with `extra`. Returns its length; 0 if `packet` has
/// no header or `out` is shorter than [`CODE_LEN_MAX`].
#[must_use]
pub fn cookie_answer(packet: &[u8], edns: Edns, extra: Extra<'_>, out: &mut [u8]) -> usize {
    let Some((header, _)) = packet.split_first_chunk::<HEADER_LEN>() else {
        return 0;
    };
    if out.len() < CODE_LEN_MAX {
        return 0;
    }
    let flags = [FLAG_QR | (header[2] & FLAG_RD), header[3] & FLAG_CD];
    let limit = out.len();
    let id = [header[0], header[1]];
    Writer::with_parts(id, flags, &[], Some(edns), extra, limit, out).finish()
}

/// Composes one answer in a caller's buffer: header, question as asked, records, and OPT when the query had one.
///
/// Room for the OPT and the query's [`Extra`] is set aside from the start, so they never fall to truncation. Records are
/// appended raw, by whole RRsets: take a [`mark`](Self::mark), append, and go back to it if something did not fit.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
    /// Most bytes of header, question and records.
    limit: usize,
    /// Most bytes of all.
    whole: usize,
    counts: [u16; 3],
    rcode: Rcode,
    opt: Option<Opt<'o>>,
}

/// A section of an answer that records go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The answer section.
    Answer = 0,
    /// The authority section.
    Authority = 1,
    /// The additional section, without the OPT.
    Additional = 2,
}

/// A state of a [`Writer`] to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    len: usize,
    counts: [u16; 3],
}

impl<'o> Writer<'o> {
    /// An answer to `query` of at most `limit` bytes (and never more than `out` holds): NOERROR, RD and CD as asked.
    /// `None` if `out` or `limit` is smaller than [`CODE_LEN_MAX`], the most that an empty answer takes.
    #[inline]
    #[must_use]
    pub fn new(query: &Query<'o>, limit: usize, out: &'o mut [u8]) -> Option<Self> {
        let limit = limit.min(out.len()).min(usize::from(u16::MAX));
        if limit < CODE_LEN_MAX {
            return None;
        }
        let rd = if query.recursion_desired { FLAG_RD } else { 0 };
        let cd = if query.checking_disabled { FLAG_CD } else { 0 };
        Some(Self::with_parts(
            query.id.to_be_bytes(),
            [FLAG_QR | rd, cd],
            query.question(),
            query.edns,
            query.extra,
            limit,
            out,
        ))
    }

    /// `limit` is at least [`CODE_LEN_MAX`], and `out` holds that.
    #[inline]
    fn with_parts(
        id: [u8; 2],
        flags: [u8; 2],
        question: &[u8],
        edns: Option<Edns>,
        extra: Extra<'o>,
        limit: usize,
        out: &'o mut [u8],
    ) -> Self {
        let opt = edns.map(|edns| Opt {
            dnssec_ok: edns.dnssec_ok,
            extra,
            reasons: [None; REASONS_MAX],
        });
        let asked = u8::from(!question.is_empty());
        let header = [id[0], id[1], flags[0], flags[1], 0, asked, 0, 0, 0, 0, 0, 0];
        let len = HEADER_LEN + question.len();
        out[..HEADER_LEN].copy_from_slice(&header);
        out[HEADER_LEN..len].copy_from_slice(question);
        Self {
            out,
            len,
            limit: limit - opt.as_ref().map_or(0, Opt::len),
            whole: limit,
            counts: [0; 3],
            rcode: Rcode::NoError,
            opt,
        }
    }

    /// Sets AA.
    pub fn authoritative(&mut self) {
        self.out[2] |= FLAG_AA;
    }

    /// Clears AA.
    pub fn not_authoritative(&mut self) {
        self.out[2] &= !FLAG_AA;
    }

    /// Sets RA.
    pub fn recursion_available(&mut self) {
        self.out[3] |= FLAG_RA;
    }

    /// Sets TC.
    pub fn truncated(&mut self) {
        self.out[2] |= FLAG_TC;
    }

    /// Sets the code; bits above the header's four go to the OPT.
    pub fn rcode(&mut self, rcode: Rcode) {
        self.rcode = rcode;
    }

    /// Adds a reason, if the query had an OPT: at most [`REASONS_MAX`], and only as far as there is room (RFC 8914 section
    /// 3 puts the records first). To be sure of room, say it before the records.
    pub fn reason(&mut self, reason: impl Into<Reason>) {
        let reason = reason.into();
        let room = self.limit - self.len;
        let Some(opt) = &mut self.opt else {
            return;
        };
        let Some(free) = opt.reasons.iter_mut().find(|slot| slot.is_none()) else {
            return;
        };
        let bare = Reason::from(reason.code);
        if let Some(fits) = [reason, bare].into_iter().find(|r| r.len() <= room) {
            self.limit -= fits.len();
            *free = Some(fits);
        }
    }

    /// What is written so far: the header's counts and code are filled in by [`finish`](Self::finish).
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.out[..self.len]
    }

    /// As [`written`](Self::written), to be patched.
    #[must_use]
    pub fn written_mut(&mut self) -> &mut [u8] {
        &mut self.out[..self.len]
    }

    /// Where the next byte goes.
    #[must_use]
    pub fn position(&self) -> usize {
        self.len
    }

    /// The state now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            len: self.len,
            counts: self.counts,
        }
    }

    /// Forgets everything appended after `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.len = mark.len;
        self.counts = mark.counts;
    }

    /// Appends bytes of a record; `false` (and nothing appended) if they do not fit.
    #[inline]
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.len + bytes.len();
        if end > self.limit {
            return false;
        }
        self.out[self.len..end].copy_from_slice(bytes);
        self.len = end;
        true
    }

    /// Counts `records` appended records to `section`. Sections must be filled in their order.
    pub fn count(&mut self, section: Section, records: u16) {
        let count = &mut self.counts[section as usize];
        *count = count.saturating_add(records); // 65,535 bytes hold fewer than 6,000 records.
    }

    /// Writes OPT, code and counts; returns the length of the answer.
    #[inline]
    #[must_use]
    pub fn finish(self) -> usize {
        let code = self.rcode as u16;
        let [extended, low] = (code << 4).to_be_bytes();
        self.out[3] = (self.out[3] & 0xF0) | (low >> 4);
        let mut len = self.len;
        let mut additional = self.counts[Section::Additional as usize];
        if let Some(opt) = &self.opt {
            len = opt.write(extended, self.out, len, self.whole);
            additional += 1;
        }
        let [answer, authority, _] = self.counts;
        for (at, count) in [(6, answer), (8, authority), (10, additional)] {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        len
    }
}

/// The length of the name at the start of `bytes`, root byte included; `None` if it runs over, is compressed, or
/// is longer than 255 bytes.
#[must_use]
pub fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let label = usize::from(*bytes.get(at)?);
        at += label + 1;
        if label == 0 {
            return Some(at);
        }
        if label > LABEL_MAX || at >= NAME_MAX {
            return None;
        }
    }
}

/// What the additional section of a query holds.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    edns: Option<Edns>,
    tsig: Option<u16>,
}

impl Found {
    /// Walks `count` records from `at`. What was found stays, also when something behind it is wrong. `None`: a record
    /// runs over, a second OPT, an OPT whose owner is not the root, or a record behind the TSIG.
    fn read(&mut self, packet: &[u8], mut at: usize, count: u16, options: usize) -> Option<()> {
        // A record takes at least 11 bytes, so the packet's length bounds this loop.
        for _ in 0..count {
            let owner = at;
            at = skip_name(packet, at)?;
            let fixed = packet.get(at..at + 10)?;
            let rdata = at + 10;
            let end = rdata + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
            if end > packet.len() || self.tsig.is_some() {
                return None;
            }
            if fixed[..2] == [0, 41] {
                if at != owner + 1 || self.edns.is_some() {
                    return None;
                }
                let edns = self.edns.insert(Edns {
                    payload: u16::from_be_bytes([fixed[2], fixed[3]]),
                    version: fixed[5],
                    dnssec_ok: fixed[6] & EDNS_DO != 0,
                    options: Options::default(),
                });
                // Another version may lay its options out differently; BADVERS comes first.
                if edns.version == 0 && end > rdata {
                    edns.options = Options::read(packet, rdata, end, options)?;
                }
            } else if fixed[..2] == [0, 250] {
                self.tsig = u16::try_from(owner).ok();
            }
            at = end;
        }
        Some(())
    }
}

/// Whether a packet without the usual counts is one without any question but with a COOKIE.
#[cold]
fn cookie_only(packet: &[u8]) -> Option<Reject> {
    let counts = packet.get(4..HEADER_LEN)?;
    if counts[..6] != [0; 6] {
        return None;
    }
    let mut found = Found::default();
    found.read(
        packet,
        HEADER_LEN,
        u16::from_be_bytes([counts[6], counts[7]]),
        OPTIONS_MAX,
    )?;
    let edns = found.edns?;
    if edns.version != 0 {
        return Some(Reject::Error(Rcode::BadVers));
    }
    let cookie = edns.options.cookie(packet);
    cookie.map(|_| Reject::CookieOnly(edns))
}

/// The end of a name that may be compressed. The pointer is not followed: only the end matters here.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let label = usize::from(*packet.get(at)?);
        match label {
            0 => return Some(at + 1),
            1..=LABEL_MAX => at += label + 1,
            0xC0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// EDNS options looked at per query, where nobody says otherwise.
pub const OPTIONS_MAX: usize = 32;

/// The UDP payload size this server states in its OPT, bytes.
pub const PAYLOAD: u16 = 1232;

/// The UDP limit without EDNS, bytes (RFC 1035 section 4.2.1).
pub const UDP_PLAIN: u16 = 512;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;

/// The longest name, bytes.
pub const NAME_MAX: usize = 255;

/// The longest answer without a record, bytes: header, longest question, OPT with all it may carry.
pub const CODE_LEN_MAX: usize =
    HEADER_LEN + NAME_MAX + 4 + OPT_LEN + OPTIONS_OUT_MAX + REASONS_MAX * (6 + TEXT_MAX);
const _: () = assert!(CODE_LEN_MAX <= UDP_PLAIN as usize);

const LABEL_MAX: usize = 63;
const FLAG_QR: u8 = 0x80;
const OPCODE_MASK: u8 = 0x78;
const FLAG_AA: u8 = 0x04;
const FLAG_TC: u8 = 0x02;
const FLAG_RD: u8 = 0x01;
const FLAG_RA: u8 = 0x80;
const FLAG_AD: u8 = 0x20;
const FLAG_CD: u8 = 0x10;

#[cfg(test)]
mod tests;
