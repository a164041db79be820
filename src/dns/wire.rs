//! DNS messages on the wire: a borrowed, checked view of a query, and the writer of answers.
//!
//! Nothing here allocates. The layout is RFC 1035 section 4, EDNS is RFC 6891.

/// Response codes used here (RFC 1035, RFC 6891).
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
    /// EDNS version not known.
    BadVers = 16,
}

/// The EDNS part of a query (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The client's UDP payload size, bytes, as sent.
    pub payload: u16,
    /// EDNS version; only 0 is known.
    pub version: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
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
}

/// Why a packet is not a [`Query`], and what the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A response, or too short for a header: no answer.
    Drop,
    /// An answer with this code (see [`error`]).
    Error(Rcode),
}

impl<'a> Query<'a> {
    /// Reads a packet. QDCOUNT other than 1, records in the answer or authority section, a name that is
    /// compressed or runs over, more than one OPT or one with an owner: FORMERR; an opcode other than QUERY:
    /// NOTIMP; EDNS version above 0: BADVERS. Of the EDNS options the first [`OPTIONS_MAX`] are looked at; bytes
    /// behind the last record are ignored.
    ///
    /// # Errors
    /// See [`Reject`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Reject> {
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
            return Err(FORMERR);
        }
        let name_len = name_len(&packet[HEADER_LEN..]).ok_or(FORMERR)?;
        let at = HEADER_LEN + name_len;
        let Some(&[t0, t1, c0, c1]) = packet.get(at..at + 4) else {
            return Err(FORMERR);
        };
        let additional = u16::from_be_bytes([header[10], header[11]]);
        let edns = if additional == 0 {
            None
        } else {
            let mut edns = None;
            find_opt(packet, at + 4, additional, &mut edns).ok_or(FORMERR)?;
            edns
        };
        if edns.is_some_and(|e| e.version != 0) {
            return Err(Reject::Error(Rcode::BadVers));
        }
        Ok(Self {
            packet,
            id: u16::from_be_bytes([header[0], header[1]]),
            recursion_desired: header[2] & FLAG_RD != 0,
            checking_disabled: header[3] & FLAG_CD != 0,
            name: &packet[HEADER_LEN..at],
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
            edns,
        })
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

/// Writes an answer that is only a code: header, the question if it can be read, OPT if the query had one.
/// Returns its length. Works on any packet of at least a header; 0 for less, or when `out` is shorter than
/// [`CODE_LEN_MAX`].
#[must_use]
pub fn error(packet: &[u8], rcode: Rcode, out: &mut [u8]) -> usize {
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
    let mut edns = None;
    if let Some(len) = question_len
        && header[6..10] == [0; 4]
    {
        let additional = u16::from_be_bytes([header[10], header[11]]);
        // What is wrong behind the OPT is why we are here: the OPT still decides how the answer looks.
        let _ = find_opt(packet, HEADER_LEN + len, additional, &mut edns);
    }
    let question = question_len.map_or(&[][..], |len| &packet[HEADER_LEN..HEADER_LEN + len]);
    let mut writer = Writer::with_parts([header[0], header[1]], flags, question, edns, out);
    writer.rcode(rcode);
    writer.finish()
}

/// Composes one answer in a caller's buffer: header, question as asked, records, and OPT when the query had one.
///
/// Room for the OPT is set aside from the start, so it never falls to truncation. Records are appended raw, by
/// whole RRsets: take a [`mark`](Self::mark), append, and go back to it if something did not fit.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
    /// Most bytes of header, question and records.
    limit: usize,
    counts: [u16; 3],
    rcode: Rcode,
    edns: Option<Edns>,
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
    #[must_use]
    pub fn new(query: &Query<'_>, limit: usize, out: &'o mut [u8]) -> Option<Self> {
        let limit = limit.min(out.len()).min(usize::from(u16::MAX));
        if limit < CODE_LEN_MAX {
            return None;
        }
        let rd = if query.recursion_desired { FLAG_RD } else { 0 };
        let cd = if query.checking_disabled { FLAG_CD } else { 0 };
        let mut writer = Self::with_parts(
            query.id.to_be_bytes(),
            [FLAG_QR | rd, cd],
            query.question(),
            query.edns,
            out,
        );
        writer.limit = limit - writer.opt_len();
        Some(writer)
    }

    /// `out` holds at least [`CODE_LEN_MAX`] bytes.
    fn with_parts(
        id: [u8; 2],
        flags: [u8; 2],
        question: &[u8],
        edns: Option<Edns>,
        out: &'o mut [u8],
    ) -> Self {
        let asked = u8::from(!question.is_empty());
        let header = [id[0], id[1], flags[0], flags[1], 0, asked, 0, 0, 0, 0, 0, 0];
        let len = HEADER_LEN + question.len();
        out[..HEADER_LEN].copy_from_slice(&header);
        out[HEADER_LEN..len].copy_from_slice(question);
        Self {
            out,
            len,
            limit: len,
            counts: [0; 3],
            rcode: Rcode::NoError,
            edns,
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
    #[must_use]
    pub fn finish(self) -> usize {
        let code = self.rcode as u16;
        let [extended, low] = (code << 4).to_be_bytes();
        self.out[3] = (self.out[3] & 0xF0) | (low >> 4);
        let mut len = self.len;
        let mut additional = self.counts[Section::Additional as usize];
        if let Some(edns) = self.edns {
            let size = PAYLOAD.to_be_bytes();
            let flags = if edns.dnssec_ok { EDNS_DO } else { 0 };
            let opt = [0, 0, 41, size[0], size[1], extended, 0, flags, 0, 0, 0];
            self.out[len..len + OPT_LEN].copy_from_slice(&opt);
            len += OPT_LEN;
            additional += 1;
        }
        let [answer, authority, _] = self.counts;
        for (at, count) in [(6, answer), (8, authority), (10, additional)] {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        len
    }

    fn opt_len(&self) -> usize {
        if self.edns.is_some() { OPT_LEN } else { 0 }
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

/// Walks `count` records from `at` and leaves the OPT's fields in `edns`, also when something behind it is
/// wrong. `None`: a record runs over, a second OPT, or an OPT whose owner is not the root.
fn find_opt(packet: &[u8], mut at: usize, count: u16, edns: &mut Option<Edns>) -> Option<()> {
    // A record takes at least 11 bytes, so the packet's length bounds this loop.
    for _ in 0..count {
        let owner = at;
        at = skip_name(packet, at)?;
        let fixed = packet.get(at..at + 10)?;
        let rdlen = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let rdata = packet.get(at + 10..at + 10 + rdlen)?;
        if fixed[..2] == [0, 41] {
            if at != owner + 1 || edns.is_some() {
                return None;
            }
            let found = Edns {
                payload: u16::from_be_bytes([fixed[2], fixed[3]]),
                version: fixed[5],
                dnssec_ok: fixed[6] & EDNS_DO != 0,
            };
            *edns = Some(found);
            // Another version may lay its options out differently; BADVERS comes first.
            if found.version == 0 {
                check_options(rdata)?;
            }
        }
        at += 10 + rdlen;
    }
    Some(())
}

/// Bounds of the first [`OPTIONS_MAX`] options. None of them changes an answer yet.
fn check_options(rdata: &[u8]) -> Option<()> {
    let mut rest = rdata;
    for _ in 0..OPTIONS_MAX {
        if rest.is_empty() {
            break;
        }
        let len = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        rest = rest.get(4 + len..)?;
    }
    Some(())
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

/// EDNS options looked at per query.
pub const OPTIONS_MAX: usize = 32;

/// The UDP payload size this server states in its OPT, bytes.
pub const PAYLOAD: u16 = 1232;

/// The UDP limit without EDNS, bytes (RFC 1035 section 4.2.1).
pub const UDP_PLAIN: u16 = 512;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;

/// The longest name, bytes.
pub const NAME_MAX: usize = 255;

/// The longest answer without a record, bytes: header, longest question, OPT.
pub const CODE_LEN_MAX: usize = HEADER_LEN + NAME_MAX + 4 + OPT_LEN;

const LABEL_MAX: usize = 63;
const OPT_LEN: usize = 11;
const FLAG_QR: u8 = 0x80;
const OPCODE_MASK: u8 = 0x78;
const FLAG_AA: u8 = 0x04;
const FLAG_TC: u8 = 0x02;
const FLAG_RD: u8 = 0x01;
const FLAG_RA: u8 = 0x80;
const FLAG_CD: u8 = 0x10;
const EDNS_DO: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(counts: [u16; 4], body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xAB, 0xCD, 0x01, 0x10];
        packet.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        packet.extend_from_slice(body);
        packet
    }

    const QUESTION: &[u8] = b"\x03wWw\x04test\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\x80\0\0\0";

    fn asked(counts: [u16; 4], parts: &[&[u8]]) -> Vec<u8> {
        packet(counts, &parts.concat())
    }

    #[track_caller]
    fn rejected(packet: &[u8], reject: Reject) {
        assert_eq!(Query::parse(packet).err(), Some(reject));
    }

    #[test]
    fn parse_plain_question_is_borrowed_as_asked() {
        let packet = asked([1, 0, 0, 0], &[QUESTION]);
        let query = Query::parse(&packet).expect("a good query");
        assert_eq!(query.id, 0xABCD);
        assert!(query.recursion_desired && query.checking_disabled);
        assert_eq!(query.name, b"\x03wWw\x04test\0");
        assert_eq!((query.qtype, query.qclass), (1, 1));
        assert_eq!(query.question(), QUESTION);
        assert_eq!(query.edns, None);
    }

    #[test]
    fn parse_opt_gives_payload_and_do() {
        let packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
        let edns = Query::parse(&packet).expect("a good query").edns;
        assert_eq!(
            edns,
            Some(Edns {
                payload: 4096,
                version: 0,
                dnssec_ok: true
            })
        );
    }

    #[test]
    fn parse_runt_or_response_is_dropped() {
        rejected(&[0; 11], Reject::Drop);
        let mut response = asked([1, 0, 0, 0], &[QUESTION]);
        response[2] |= FLAG_QR;
        rejected(&response, Reject::Drop);
    }

    #[test]
    fn parse_other_opcodes_are_notimp() {
        for opcode in [1, 2, 4, 5, 6, 15] {
            let mut packet = asked([1, 0, 0, 0], &[QUESTION]);
            packet[2] |= opcode << 3;
            rejected(&packet, Reject::Error(Rcode::NotImp));
        }
    }

    #[test]
    fn parse_malformed_is_formerr() {
        let formerr = Reject::Error(Rcode::FormErr);
        for counts in [[0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]] {
            rejected(&asked(counts, &[QUESTION, QUESTION]), formerr);
        }
        let long = [&[63; 64][..]; 4].concat();
        let bodies: &[&[&[u8]]] = &[
            &[&QUESTION[..QUESTION.len() - 1]],
            &[b"\x03ww"],
            &[b"\xC0\x0C\0\x01\0\x01"],
            &[b"\x40abc\0\0\x01\0\x01"],
            &[&long, b"\0\0\x01\0\x01"],
        ];
        for body in bodies {
            rejected(&asked([1, 0, 0, 0], body), formerr);
        }
        let additional: &[&[&[u8]]] = &[
            &[QUESTION],                                                // counted, not there
            &[QUESTION, &OPT[..10]],                                    // cut
            &[QUESTION, b"\x01a", OPT],                                 // OPT with an owner
            &[QUESTION, b"\0\0\x29\x10\0\0\0\0\0\0\x05\0\x0A\0\x08\0"], // option runs over
        ];
        for body in additional {
            rejected(&asked([1, 0, 0, 1], body), formerr);
        }
        rejected(&asked([1, 0, 0, 2], &[QUESTION, OPT, OPT]), formerr);
    }

    #[test]
    fn parse_name_of_255_bytes_is_taken_and_256_is_not() {
        let name = |labels: &[u8]| -> Vec<u8> {
            let label = |&len: &u8| [vec![len], vec![b'x'; usize::from(len)]].concat();
            [labels.iter().flat_map(label).collect(), vec![0]].concat()
        };
        assert_eq!(name_len(&name(&[63, 63, 63, 61])), Some(255));
        assert_eq!(name_len(&name(&[63, 63, 63, 62])), None);
        assert_eq!(name_len(&name(&[63, 63, 63, 61, 1])), None);
    }

    #[test]
    fn parse_later_edns_version_is_badvers_and_answered_with_opt() {
        let mut opt = OPT.to_vec();
        opt[6] = 1;
        let packet = asked([1, 0, 0, 1], &[QUESTION, &opt]);
        rejected(&packet, Reject::Error(Rcode::BadVers));
        let mut out = [0; 512];
        let len = error(&packet, Rcode::BadVers, &mut out);
        let opt = &out[len - OPT_LEN..len];
        assert_eq!(out[3] & 0x0F, 0);
        assert_eq!(opt, b"\0\0\x29\x04\xD0\x01\0\x80\0\0\0");
        assert_eq!(&out[10..12], &[0, 1]);
    }

    #[test]
    fn parse_options_beyond_the_bound_are_not_looked_at() {
        let mut rdata = [0, 10, 0, 0].repeat(OPTIONS_MAX);
        rdata.extend([0, 10, 0xFF]);
        let mut opt = b"\0\0\x29\x10\0\0\0\0\0".to_vec();
        opt.extend(u16::try_from(rdata.len()).expect("131 bytes").to_be_bytes());
        opt.extend(rdata);
        assert!(Query::parse(&asked([1, 0, 0, 1], &[QUESTION, &opt])).is_ok());
    }

    #[test]
    fn error_repeats_question_rd_and_cd() {
        let packet = asked([1, 0, 0, 0], &[QUESTION]);
        let mut out = [0; 512];
        let len = error(&packet, Rcode::Refused, &mut out);
        let mut expected = packet.clone();
        expected[2] |= FLAG_QR;
        expected[3] |= 5;
        assert_eq!(&out[..len], &expected[..]);
    }

    #[test]
    fn error_without_a_readable_question_is_a_header() {
        let mut out = [0; 512];
        let len = error(&asked([1, 0, 0, 0], &[b"\x09x"]), Rcode::FormErr, &mut out);
        assert_eq!(
            &out[..len],
            &[0xAB, 0xCD, 0x81, 0x11, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(error(&[0; 11], Rcode::FormErr, &mut out), 0);
    }

    #[test]
    fn udp_limit_follows_client_and_configuration() {
        let mut packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
        let at = packet.len() - 8;
        for (payload, limit) in [(0, 512), (511, 512), (700, 700), (1232, 1232), (4096, 1232)] {
            packet[at..at + 2].copy_from_slice(&u16::to_be_bytes(payload));
            let query = Query::parse(&packet).expect("a good query");
            assert_eq!(udp_limit(&query, 1232), limit);
        }
        let packet = asked([1, 0, 0, 0], &[QUESTION]);
        assert_eq!(udp_limit(&Query::parse(&packet).expect("good"), 1232), 512);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_get_an_answer_that_is_one(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            check_any(&bytes)?;
        }

        #[test]
        fn any_damage_to_a_query_is_answered_within_bounds(
            at in 0usize..100, value: u8, cut in 0usize..100,
        ) {
            let mut packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
            let at = at % packet.len();
            packet[at] = value;
            packet.truncate(packet.len() - cut % packet.len());
            check_any(&packet)?;
        }
    }

    fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
        let mut out = [0; CODE_LEN_MAX];
        let parsed = Query::parse(bytes);
        if let Ok(query) = &parsed {
            prop_assert!(query.name.len() <= NAME_MAX);
            prop_assert!(query.question().starts_with(query.name));
        }
        let len = error(bytes, Rcode::FormErr, &mut out);
        if bytes.len() >= HEADER_LEN {
            let message = hickory_proto::op::Message::from_vec(&out[..len]);
            prop_assert!(message.is_ok(), "{message:?}");
        }
        Ok(())
    }
}
